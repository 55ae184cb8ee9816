//! `bare-argon2 THREADS SECONDS` prints how many argon2id hashes (19 MiB, t = 2, p = 1) that many threads make a
//! second, each reusing its memory: the most that a server can log in on this machine.

use std::time::{Duration, Instant};

use argon2::{Algorithm, Argon2, Block, Params, Version};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let numbers = std::env::args().skip(1).map(|word| word.parse()).collect::<Result<Vec<u32>, _>>()?;
    let [threads, seconds] = numbers[..] else {
        return Err("usage: bare-argon2 THREADS SECONDS".into());
    };
    let length = Duration::from_secs(seconds.into());
    let rate: f64 = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(|| hashes_per_second(length))).collect();
        running.into_iter().map(|thread| thread.join().expect("a hashing thread does not panic")).sum()
    });
    println!("{rate:.3}");
    Ok(())
}

/// The rate of one thread, over its own time: its last hash ends a little after `length`.
fn hashes_per_second(length: Duration) -> f64 {
    let params = Params::new(19 * 1024, 2, 1, None).expect("the parameters are valid");
    let mut memory = vec![Block::default(); params.block_count()];
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let mut hash = [0; Params::DEFAULT_OUTPUT_LEN];
    let start = Instant::now();
    let mut hashes = 0.0;
    while start.elapsed() < length {
        argon2
            .hash_password_into_with_memory(b"correct horse", b"sixteen bytes ok", &mut hash, &mut memory)
            .expect("the lengths are valid");
        hashes += 1.0;
    }
    hashes / start.elapsed().as_secs_f64()
}

//! Limits, and who has to go.

use proptest::prelude::*;

use super::*;

fn census(workers: usize, connections: usize, per_address: usize) -> Arc<Census> {
    Census::new(workers, &Limits { connections, per_address, header_bytes: 0, body: 0 })
}

fn idle(count: usize, seconds: u64) -> Idle {
    Idle { count, longest: Duration::from_secs(seconds) }
}

fn ip(text: &str) -> Option<IpAddr> {
    Some(text.parse().unwrap())
}

#[test]
fn an_address_has_its_share() {
    for (first, other, same) in [
        ("192.0.2.1", "192.0.2.1", true),
        ("192.0.2.1", "::ffff:192.0.2.1", true),
        ("192.0.2.1", "192.0.2.2", false),
        ("2001:db8::1", "2001:db8::ffff:0:0:1", true),
        ("2001:db8::1", "2001:db8:0:1::1", false),
        ("0.0.0.0", "::", false),
    ] {
        let census = census(1, 10, 1);
        let ticket = census.enter(ip(first)).ok().unwrap();
        let outcome = census.enter(ip(other)).map(drop);
        assert_eq!(outcome, if same { Err(Full::Address) } else { Ok(()) }, "{first} {other}");
        assert_eq!(census.open(), 1);
        drop(ticket);
        assert!(census.enter(ip(other)).is_ok() && census.enter(None).is_ok());
        assert_eq!(census.open(), 0);
        assert!(census.addresses.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }
}

#[test]
fn no_share_no_limit_until_it_is_given_one() {
    let census = census(1, 10, 0);
    let tickets: Vec<_> = (0..5).map(|_| census.enter(ip("192.0.2.1")).ok().unwrap()).collect();
    census.set_limits(&Limits { connections: 10, per_address: 5, header_bytes: 0, body: 0 });
    assert_eq!(census.enter(ip("192.0.2.1")).map(drop), Err(Full::Address));
    assert!(census.enter(None).is_ok());
    drop(tickets);
    assert!(census.enter(ip("192.0.2.1")).is_ok());
}

#[test]
fn when_full_the_idle_make_room_and_the_busy_do_not() {
    let census = census(2, 3, 0);
    let mut tickets: Vec<_> = (0..3).map(|_| census.enter(None).ok().unwrap()).collect();
    assert_eq!(census.enter(None).map(drop), Err(Full::Everywhere));
    assert_eq!(census.open(), 3);
    assert_eq!((census.sweep(0, idle(1, 5)), census.sweep(1, idle(1, 9))), (0, 0));
    // Two are idle, so two more get in; the first costs worker 1 its only one.
    tickets.push(census.enter(None).ok().unwrap());
    assert_eq!(census.sweep(0, idle(1, 5)), 0);
    tickets.push(census.enter(None).ok().unwrap());
    assert_eq!(census.enter(None).map(drop), Err(Full::Everywhere));
    assert_eq!(census.sweep(0, idle(1, 5)), 1);
    // Told once, though it is still open at the other's sweep.
    assert_eq!((census.sweep(1, idle(1, 9)), census.sweep(1, idle(0, 0))), (1, 0));
    assert_eq!(census.enter(None).map(drop), Err(Full::Everywhere));
    tickets.truncate(3);
    assert_eq!(census.enter(None).map(drop), Err(Full::Everywhere));
    assert_eq!((census.sweep(0, idle(1, 1)), census.sweep(1, idle(0, 0)), census.counts().evicted), (0, 0, 2));
}

#[test]
fn what_has_become_busy_is_taken_from_another_worker() {
    let census = census(2, 2, 0);
    let _tickets = [census.enter(None).ok().unwrap(), census.enter(None).ok().unwrap()];
    census.sweep(0, idle(1, 9));
    census.sweep(1, idle(1, 1));
    let _third = census.enter(None).ok().unwrap();
    assert_eq!(census.sweep(0, idle(0, 0)), 0);
    assert_eq!(census.sweep(1, idle(1, 1)), 1);
}

#[test]
fn who_left_meanwhile_spares_the_idle() {
    let census = census(1, 2, 0);
    let mut tickets = vec![census.enter(None).ok().unwrap(), census.enter(None).ok().unwrap()];
    census.sweep(0, idle(2, 9));
    tickets.push(census.enter(None).ok().unwrap());
    tickets.pop();
    assert_eq!(census.sweep(0, idle(2, 9)), 0);
    tickets.push(census.enter(None).ok().unwrap());
    assert_eq!(census.sweep(0, idle(2, 9)), 1);
}

#[test]
fn a_lower_limit_closes_idle_connections() {
    let census = census(2, 10, 0);
    let _tickets: Vec<_> = (0..8).map(|_| census.enter(None).ok().unwrap()).collect();
    census.sweep(0, idle(4, 8));
    census.sweep(1, idle(2, 2));
    census.set_limits(&Limits { connections: 3, per_address: 0, header_bytes: 0, body: 0 });
    let closed = census.sweep(0, idle(4, 8));
    assert!((3..=4).contains(&closed), "{closed}");
    assert_eq!(closed + census.sweep(1, idle(2, 2)), 5);
    assert_eq!(census.sweep(7, idle(2, 2)), 0);
}

proptest! {
    /// A model of two workers whose connections come, go, idle and work at random.
    #[test]
    fn the_limit_is_kept_at_rest(steps in proptest::collection::vec((0..6_u8, 0..100_usize), 1..200)) {
        const LIMIT: usize = 5;
        let census = census(2, LIMIT, 0);
        let mut workers: [Vec<(Ticket, bool)>; 2] = Default::default();
        for (step, number) in steps {
            let worker = number % 2;
            let count = workers[worker].len();
            match step {
                0 | 1 => if let Ok(ticket) = census.enter(None) {
                    workers[worker].push((ticket, number % 3 == 0));
                },
                2 if count > 0 => drop(workers[worker].swap_remove(number % count)),
                3 if count > 0 => workers[worker][number % count].1 ^= true,
                4 | 5 => {
                    let idles = workers[worker].iter().filter(|(_, idle)| *idle).count();
                    let close = census.sweep(worker, idle(idles, 3));
                    prop_assert!(close <= idles);
                    for _ in 0..close {
                        let at = workers[worker].iter().position(|(_, idle)| *idle).unwrap();
                        drop(workers[worker].swap_remove(at));
                    }
                }
                _ => {}
            }
            let open: usize = workers.iter().map(Vec::len).sum();
            prop_assert_eq!(census.open(), open);
        }
        // Two rounds of sweeps after the last newcomer: only the busy can be too many.
        for _ in 0..2 {
            for (number, worker) in workers.iter_mut().enumerate() {
                let idles = worker.iter().filter(|(_, idle)| *idle).count();
                for _ in 0..census.sweep(number, idle(idles, 3)) {
                    let at = worker.iter().position(|(_, idle)| *idle).unwrap();
                    drop(worker.swap_remove(at));
                }
            }
        }
        let idles = workers.iter().flatten().filter(|(_, idle)| *idle).count();
        prop_assert!(census.open() <= LIMIT || idles == 0, "{} open, {} idle", census.open(), idles);
    }
}

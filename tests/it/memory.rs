//! What a hostile peer can make the gateway hold or do, beside a client that must not notice.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::frames::{
    ACK, CONTINUATION, Client, END_HEADERS, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, block, frame,
};
use crate::harness::{Gateway, Setup, await_that, holds_within};
use crate::origin::Origin;
use crate::wire::{Connection, get};

/// Resident memory in bytes.
fn resident(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Asks until `stop`; how often, and the longest wait.
fn good_client(address: SocketAddr, stop: &AtomicBool) -> (usize, Duration) {
    let mut connection = Connection::open(address);
    let (mut count, mut longest) = (0, Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        let begin = Instant::now();
        assert_eq!(get("/public/good").send_on(&mut connection, address).unwrap().status, 200);
        longest = longest.max(begin.elapsed());
        count += 1;
    }
    (count, longest)
}

/// Runs `work` beside a good client; its longest wait.
fn beside_a_good_client(address: SocketAddr, work: impl FnOnce()) -> Duration {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = AtomicBool::new(false);
    let (count, longest) = std::thread::scope(|scope| {
        let good = scope.spawn(|| good_client(address, &stop));
        let stop = Stop(&stop);
        work();
        drop(stop);
        good.join().unwrap()
    });
    println!("a good client beside it: {count} requests, the longest took {longest:?}");
    assert!(count > 5, "{count}");
    longest
}

#[test]
fn header_lists_of_one_connection_are_bounded() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    // One field of 4,000 bytes, which later ones name by its index.
    let head = |method: &'static str| {
        block(&[(":method", method), (":scheme", "http"), (":authority", "x"), (":path", "/public/x")])
    };
    let insert = [&[0x40, 7][..], b"x-large", &[127, 0xa1, 0x1e], &[b'v'; 4000]].concat();
    let before = resident(&gateway);
    let (mut sent, mut refused) = (0, 0);
    let mut most = 0;
    let longest = beside_a_good_client(gateway.public, || {
        let mut clients: Vec<_> = (0..8)
            .map(|_| {
                let mut client = Client::open(gateway.public);
                for number in 0..128 {
                    let first = if number == 0 { insert.as_slice() } else { &[] };
                    let list = [head("POST").as_slice(), first, &[0xbe; 15]].concat();
                    let bytes = frame(HEADERS, END_HEADERS, number * 2 + 1, &list);
                    sent += bytes.len();
                    client.send(&bytes).unwrap();
                }
                client.patience(Duration::from_millis(300));
                client
            })
            .collect();
        for client in &mut clients {
            while let Ok(came) = client.next() {
                if came.kind == RST_STREAM {
                    assert_eq!(came.payload, [0, 0, 0, 7], "REFUSED_STREAM");
                    refused += 1;
                }
            }
        }
        most = resident(&gateway);
    });
    let grown = most.saturating_sub(before);
    println!("{sent} bytes sent, {refused} streams refused, {} KiB more", grown / 1024);
    assert!(grown < 20 << 20, "{grown} bytes for {sent}");
    assert!(refused > 500, "{refused}");
    assert!(longest < Duration::from_secs(1), "{longest:?}");
}

#[test]
fn many_requests_with_ordinary_headers_are_not_refused() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    let mut client = Client::open(gateway.public);
    let cookie = "c".repeat(4000);
    let mut fields = vec![(":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", "/public/x")];
    fields.push(("cookie", &cookie));
    for number in 0..100 {
        client.send(&frame(HEADERS, END_HEADERS | crate::frames::END_STREAM, number * 2 + 1, &block(&fields))).unwrap();
    }
    let mut answered = 0;
    await_that("all are answered", || {
        let came = client.next().unwrap();
        assert_ne!(came.kind, RST_STREAM, "{came:?}");
        answered += usize::from(came.kind == HEADERS);
        answered == 100
    });
}

#[test]
fn interim_responses_without_end_are_cut_off() {
    let origin = Origin::scripted(|exchange| {
        if !exchange.seen.target.ends_with("/interim") {
            return exchange.echo();
        }
        while !exchange.is_closing() {
            exchange.write(&b"HTTP/1.1 100 Continue\r\n\r\n".repeat(2000));
        }
    });
    let gateway = Setup::new(origin.address).set("server.workers", json!(1)).start();
    let longest = beside_a_good_client(gateway.public, || {
        for _ in 0..20 {
            let answer = get("/public/interim").send(gateway.public);
            assert_eq!((answer.status, answer.code()), (502, "upstream_unreachable"), "{answer:?}");
        }
    });
    assert!(longest < Duration::from_millis(500), "{longest:?}");
    await_that("the log names the cause", || gateway.output().contains("interim responses (1xx)"));
}

/// A server that answers the first request on each connection with responses of status 103, without end and without regard
/// for a reset.
fn start_interim_flood() -> (SocketAddr, Arc<AtomicUsize>) {
    fn greet(stream: &mut TcpStream) -> std::io::Result<u32> {
        stream.read_exact(&mut [0; PREFACE.len()])?;
        stream.write_all(&frame(SETTINGS, 0, 0, &[]))?;
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head)?;
            let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
            stream.read_exact(&mut payload)?;
            match (head[3], head[4]) {
                (SETTINGS, 0) => stream.write_all(&frame(SETTINGS, ACK, 0, &[]))?,
                (PING, 0) => stream.write_all(&frame(PING, ACK, 0, &payload))?,
                (HEADERS | CONTINUATION, flags) if flags & END_HEADERS != 0 => {
                    return Ok(u32::from_be_bytes(head[5..9].try_into().unwrap()));
                }
                _ => {}
            }
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, sent) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&sent);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let count = Arc::clone(&count);
            std::thread::spawn(move || {
                let Ok(id) = greet(&mut stream) else { return };
                let bytes = frame(HEADERS, END_HEADERS, id, &block(&[(":status", "103")])).repeat(1000);
                while stream.write_all(&bytes).is_ok() {
                    count.fetch_add(1000, Ordering::Relaxed);
                }
            });
        }
    });
    (address, sent)
}

#[test]
fn interim_responses_of_http_2_without_end_are_cut_off() {
    let (flood, sent) = start_interim_flood();
    let origin = Origin::start();
    let gateway = Setup::new(origin.address)
        .set("server.workers", json!(1))
        .set("upstreams.flood", json!({"servers": [format!("http://{flood}")], "protocol": "h2"}))
        .and_routes(json!([{"path": "/flood", "upstream": "flood", "auth": "public"}]))
        .start();
    let before = resident(&gateway);
    let longest = beside_a_good_client(gateway.public, || {
        for _ in 0..4 {
            let begin = Instant::now();
            let answer = get("/flood").send(gateway.public);
            assert_eq!((answer.status, answer.code()), (502, "upstream_unreachable"), "{answer:?}");
            println!("502 after {:?}", begin.elapsed());
        }
        let written = sent.load(Ordering::Relaxed);
        let is_read = holds_within(Duration::from_millis(500), || sent.load(Ordering::Relaxed) > written + 100_000);
        assert!(!is_read, "a server that does not stop is still read");
    });
    let grown = resident(&gateway).saturating_sub(before);
    println!("{} interim responses written, {} KiB more", sent.load(Ordering::Relaxed), grown / 1024);
    assert!(grown < 24 << 20, "{grown} bytes");
    assert!(longest < Duration::from_millis(500), "{longest:?}");
    await_that("the log names the cause", || gateway.output().contains("interim responses (1xx)"));
}

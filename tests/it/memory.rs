//! What a hostile peer can make the gateway hold or do, beside a client that must not notice.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::frames::{Client, END_HEADERS, HEADERS, RST_STREAM, block, frame};
use crate::harness::{Gateway, Setup, await_that};
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
    assert!(grown < 24 << 20, "{grown} bytes for {sent}");
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

//! Clients that send their bodies slowly, from one address, beside clients from others: these are served all the while.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::frames::{DATA, END_HEADERS, HEADERS, PREFACE, SETTINGS, block, frame};
use crate::harness::{Gateway, Setup, await_that, holds_within};
use crate::origin::Origin;
use crate::wire::get;

const HOSTILE: Ipv4Addr = Ipv4Addr::new(127, 0, 66, 6);

/// How soon a client from another address is served.
const SERVED: Duration = Duration::from_secs(2);

/// A connection from `source`.
pub fn connect_from(source: impl Into<IpAddr>, address: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(source.into(), 0).into()).unwrap();
    socket.connect(&address.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true).unwrap();
    stream
}

/// Asks on a connection of its own, from an address of its own; how long the 200 took.
pub fn ask_from(source: Ipv4Addr, gateway: SocketAddr) -> Duration {
    let begin = Instant::now();
    let mut stream = connect_from(source, gateway);
    stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    stream.write_all(&get("/public/good").bytes(gateway, "Connection: close\r\n")).unwrap();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let took = begin.elapsed();
    let text = String::from_utf8_lossy(&answer);
    assert!(text.starts_with("HTTP/1.1 200"), "after {took:?}: {read:?} {text:?}");
    took
}

fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }
}

/// As the metrics tell; the one that asks comes by the admin listener.
fn open_connections(gateway: &Gateway) -> usize {
    let metrics = get("/metrics").send(gateway.admin).text();
    metrics.lines().find_map(|line| line.strip_prefix("portcullis_connections ")).unwrap().parse().unwrap()
}

fn slow_post(path: &str) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n{{")
        .into_bytes()
}

/// A client that opens `count` connections from one address and drips into them, opening each again that is closed.
struct Attack {
    first: Vec<u8>,
    then: Vec<u8>,
    count: usize,
}

impl Attack {
    fn run(&self, gateway: SocketAddr, stop: &AtomicBool) {
        let open = || {
            let mut stream = connect_from(HOSTILE, gateway);
            let _ = stream.write_all(&self.first);
            stream
        };
        let mut streams: Vec<_> = (0..self.count).map(|_| open()).collect();
        let mut next = Instant::now() + Duration::from_secs(3);
        while !stop.load(Ordering::Relaxed) {
            for stream in &mut streams {
                if is_closed(stream) {
                    *stream = open();
                }
            }
            if Instant::now() > next {
                next += Duration::from_secs(3);
                for stream in &mut streams {
                    let _ = stream.write_all(&self.then);
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Ends what runs beside a test, also when that fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn assert_others_are_served(what: &str, gateway: &Gateway, attack: &Attack) {
    let stop = AtomicBool::new(false);
    let waits: Vec<Duration> = std::thread::scope(|scope| {
        scope.spawn(|| attack.run(gateway.public, &stop));
        let _stop = Stop(&stop);
        await_that("the hostile client has every place", || open_connections(gateway) >= attack.count);
        let waits = (0..12).map(|number| {
            std::thread::sleep(Duration::from_millis(200));
            ask_from(Ipv4Addr::new(127, 0, 77, number + 1), gateway.public)
        });
        waits.collect()
    });
    let longest = waits.iter().max().unwrap();
    println!("{what}: {} clients from other addresses, the longest wait {longest:?}", waits.len());
    assert!(*longest < SERVED, "{what}: {waits:?}");
}

#[test]
fn places_held_by_slow_clients_are_given_to_others() {
    let origin = Origin::start();
    let http2 = |path: &str| {
        let head = [(":method", "POST"), (":scheme", "http"), (":authority", "x"), (":path", path)];
        [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, END_HEADERS, 1, &block(&head))].concat()
    };
    let cases = [
        ("slow bodies to /login", slow_post("/login"), b" ".to_vec()),
        ("slow bodies that are forwarded", slow_post("/public/x"), b" ".to_vec()),
        ("slow bodies over HTTP/2", http2("/public/x"), frame(DATA, 0, 1, b"x")),
        ("slow header sections", b"GET /public/x HTTP/1.1\r\nHost: x\r\n".to_vec(), b"X-A: b\r\n".to_vec()),
        ("silence", Vec::new(), Vec::new()),
    ];
    std::thread::scope(|scope| {
        for (what, first, then) in cases {
            let origin = &origin;
            scope.spawn(move || {
                let gateway = Setup::new(origin.address).set("server.limits.connections", json!(60)).start();
                assert_others_are_served(what, &gateway, &Attack { first, then, count: 60 });
            });
        }
    });
}

#[test]
fn connections_that_make_progress_are_not_closed_for_a_newcomer() {
    let origin = Origin::scripted(|exchange| {
        if exchange.seen.target.ends_with("/late") {
            std::thread::sleep(Duration::from_millis(4000));
        }
        exchange.echo();
    });
    let gateway = Setup::new(origin.address).set("server.limits.connections", json!(4)).start();
    let mut busy: Vec<_> = (0..4)
        .map(|_| {
            let mut stream = connect_from(HOSTILE, gateway.public);
            stream.write_all(&get("/public/late").bytes(gateway.public, "Connection: close\r\n")).unwrap();
            stream
        })
        .collect();
    await_that("all are under way", || origin.seen().len() == 4);
    let waited = ask_from(Ipv4Addr::new(127, 0, 77, 1), gateway.public);
    println!("a newcomer beside four requests under way waited {waited:?}");
    for stream in &mut busy {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
    }
}

#[test]
fn a_body_slower_than_the_rate_ends_and_one_that_is_declared_slow_does_not() {
    let origin = Origin::start();
    let routes = json!([
        {"path": "/stream", "upstream": "app", "auth": "public", "stream": true},
        {"path": "/unlimited", "upstream": "app", "auth": "public", "limits": {"body": "none"}},
    ]);
    let gateway = Setup::new(origin.address)
        .and_routes(routes)
        .set("server.timeouts.body", json!("14s"))
        .set("server.timeouts.body_rate", json!("10B/s"))
        .start();
    // Five bytes a second: half of what is asked for.
    let drip = |path: &'static str, bytes: usize, limit: Duration| {
        let mut stream = connect_from(Ipv4Addr::LOCALHOST, gateway.public);
        stream.write_all(&slow_post(path)).unwrap();
        let begin = Instant::now();
        let closed = holds_within(limit, || {
            std::thread::sleep(Duration::from_millis(200));
            stream.write_all(&vec![b' '; bytes]).is_err() || is_closed(&mut stream)
        });
        closed.then(|| begin.elapsed())
    };
    let limit = Duration::from_secs(17);
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| drip("/public/x", 1, limit));
        let fast = scope.spawn(|| drip("/public/x", 4, limit));
        let endpoint = scope.spawn(|| drip("/login", 4, limit));
        let free = ["/stream", "/unlimited"].map(|path| scope.spawn(move || drip(path, 1, limit)));
        let slow = slow.join().unwrap().expect("a slow body ends");
        println!("5 B/s where 10 are asked for: closed after {slow:?}");
        assert!((Duration::from_secs(9)..Duration::from_secs(14)).contains(&slow), "{slow:?}");
        assert_eq!(fast.join().unwrap(), None, "20 B/s is fast enough");
        let endpoint = endpoint.join().unwrap().expect("a body of an endpoint has a time in all");
        assert!((Duration::from_secs(13)..limit).contains(&endpoint), "{endpoint:?}");
        for free in free {
            assert_eq!(free.join().unwrap(), None, "a route may be free of the rate");
        }
    });
}

#[test]
fn an_http2_client_that_opens_no_window_gives_its_place_to_others() {
    let origin = Origin::scripted(|exchange| {
        if exchange.seen.target.ends_with("/big") {
            exchange.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
            exchange.write(&[b'x'; 1_000_000]);
        } else {
            exchange.echo();
        }
    });
    let gateway = Setup::new(origin.address).set("server.limits.connections", json!(30)).start();
    let head = [(":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", "/public/big")];
    // SETTINGS_INITIAL_WINDOW_SIZE 0.
    let settings = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let request = frame(HEADERS, END_HEADERS | crate::frames::END_STREAM, 1, &block(&head));
    let held: Vec<_> = (0..30)
        .map(|_| {
            let mut stream = connect_from(HOSTILE, gateway.public);
            stream.write_all(&[PREFACE, &settings, &request].concat()).unwrap();
            stream
        })
        .collect();
    await_that("all have their places", || origin.seen().len() == 30);
    let waits: Vec<_> = (1..4).map(|number| ask_from(Ipv4Addr::new(127, 0, 77, number), gateway.public)).collect();
    println!("others waited {waits:?}");
    assert!(waits.iter().all(|wait| *wait < Duration::from_secs(8)), "{waits:?}");
    drop(held);
}

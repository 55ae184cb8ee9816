//! Connections to upstreams are bounded, and so is what one client may hold of them.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::frames::{Client, DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, RST_STREAM, SETTINGS, block, frame};
use crate::harness::{Gateway, Setup, await_that};
use crate::origin::Origin;
use crate::slow_bodies::{ask_from, connect_from};
use crate::wire::{Connection, get};

const HOSTILE: Ipv4Addr = Ipv4Addr::new(127, 0, 66, 6);

fn head(method: &'static str, path: &str) -> Vec<u8> {
    block(&[(":method", method), (":scheme", "http"), (":authority", "x"), (":path", path)])
}

/// Uploads on one HTTP/2 connection, none of which goes on.
fn slow_uploads(address: SocketAddr, count: u32) -> std::net::TcpStream {
    let mut stream = connect_from(HOSTILE, address);
    let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    for number in 0..count {
        bytes.extend(frame(HEADERS, END_HEADERS, number * 2 + 1, &head("POST", "/public/x")));
        bytes.extend(frame(DATA, 0, number * 2 + 1, b"x"));
    }
    stream.write_all(&bytes).unwrap();
    stream
}

fn files(gateway: &Gateway) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap().count()
}

/// Clients from other addresses, each of which is to be served soon; the longest wait.
fn others(gateway: &Gateway) -> Duration {
    let waits = (1..=10).map(|number| ask_from(Ipv4Addr::new(127, 0, 77, number), gateway.public));
    waits.max().unwrap()
}

#[test]
fn slow_uploads_take_no_descriptors_from_others() {
    let origin = Origin::start();
    // 1,024 uploads would need as many descriptors as there are in all.
    let gateway = Setup::new(origin.address).after("ulimit -n 1024").start();
    let _held: Vec<_> = (0..8).map(|_| slow_uploads(gateway.public, 128)).collect();
    await_that("the uploads have what they can get", || origin.count() > 100 || files(&gateway) > 250);
    let longest = others(&gateway);
    println!("{} descriptors are open; others waited {longest:?} at most", files(&gateway));
    assert!(files(&gateway) < 1000, "{}", files(&gateway));
    assert!(longest < Duration::from_millis(2500), "{longest:?}");
    let before = gateway.processor_ticks();
    std::thread::sleep(Duration::from_secs(1));
    let ticks = gateway.processor_ticks() - before;
    assert!(ticks < 50, "it spins: {ticks} hundredths of a second in one");
    assert!(!gateway.output().contains("could not be accepted"), "descriptors ran out");
}

#[test]
fn max_connections_bounds_an_upstream_and_requests_wait_for_one() {
    let origin = Origin::scripted(|exchange| {
        if exchange.seen.target.ends_with("/late") {
            std::thread::sleep(Duration::from_millis(600));
        }
        exchange.echo();
    });
    let setup = Setup::new(origin.address).set("upstreams.app.max_connections", json!(3));
    let gateway = setup.set("upstreams.app.timeouts", json!({"connect": "1s"})).start();
    let begin = Instant::now();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let late = || get("/public/late").send(gateway.public).status;
        let running: Vec<_> = (0..6).map(|_| scope.spawn(late)).collect();
        running.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let took = begin.elapsed();
    println!("six requests on three connections took {took:?}");
    assert_eq!(statuses, [200; 6], "three wait for the first three");
    assert!(took > Duration::from_millis(1100), "{took:?}: more than three at a time");
    let answers: Vec<_> = std::thread::scope(|scope| {
        let late = || get("/public/late").send(gateway.public);
        let running: Vec<_> = (0..12).map(|_| scope.spawn(late)).collect();
        running.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status == 503).collect();
    assert!(
        !refused.is_empty() && answers.iter().all(|answer| matches!(answer.status, 200 | 503)),
        "{}",
        refused.len()
    );
    for answer in refused {
        assert_eq!((answer.code(), answer.header("retry-after")), ("unavailable", Some("1")), "{answer:?}");
    }
    assert_eq!(get("/public/x").send(gateway.public).status, 200, "and then there is room again");
}

#[test]
fn a_kept_connection_gives_way_to_one_that_is_needed() {
    let (one, other) = (Origin::start(), Origin::start());
    let servers = [one.address, other.address].map(|address| format!("http://{address}"));
    let gateway = Setup::new(one.address)
        .set("upstreams.app.servers", json!(servers))
        .set("upstreams.app.max_connections", json!(1))
        .start();
    let mut connection = Connection::open(gateway.public);
    let begin = Instant::now();
    for _ in 0..4 {
        assert_eq!(get("/public/x").send_on(&mut connection, gateway.public).unwrap().status, 200);
    }
    println!("four requests in turn on one connection took {:?}", begin.elapsed());
    assert_eq!((one.count(), other.count()), (2, 2));
}

#[test]
fn streams_count_into_per_address() {
    let origin = Origin::scripted(|exchange| {
        if exchange.seen.target.ends_with("/late") {
            std::thread::sleep(Duration::from_secs(1));
        }
        exchange.echo();
    });
    let gateway = Setup::new(origin.address).set("server.limits.per_address", json!(8)).start();
    let mut client = Client::open(gateway.public);
    for number in 0..20 {
        client.send(&frame(HEADERS, END_HEADERS | END_STREAM, number * 2 + 1, &head("GET", "/public/late"))).unwrap();
    }
    let (mut refused, mut answered) = (0, 0);
    await_that("each stream has its end", || {
        let came = client.next().unwrap();
        if came.kind == RST_STREAM {
            assert_eq!(came.payload, [0, 0, 0, 7], "REFUSED_STREAM");
            refused += 1;
        }
        answered += usize::from(came.kind == HEADERS);
        refused + answered == 20
    });
    assert_eq!((answered, refused), (8, 12));
    drop(client);
    let mut stream = connect_from(Ipv4Addr::LOCALHOST, gateway.public);
    await_that("its share is given back", || {
        stream = connect_from(Ipv4Addr::LOCALHOST, gateway.public);
        let sent = stream.write_all(&get("/public/x").bytes(gateway.public, "Connection: close\r\n"));
        let mut text = String::new();
        sent.is_ok() && stream.read_to_string(&mut text).is_ok() && text.starts_with("HTTP/1.1 200")
    });
}

#[test]
fn uploads_to_another_upstream_do_not_give_way() {
    let (one, other) = (
        Origin::start(),
        Origin::scripted(|exchange| {
            std::thread::sleep(Duration::from_secs(3));
            exchange.echo();
        }),
    );
    let gateway = Setup::new(one.address)
        .set("upstreams.busy", json!({"servers": [format!("http://{}", other.address)], "max_connections": 1}))
        .and_routes(json!([
            {"path": "/busy", "upstream": "busy", "auth": "public"},
            {"path": "/stream", "upstream": "busy", "auth": "public", "stream": true},
        ]))
        .start();
    let mut upload = slow_uploads(gateway.public, 1);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| get("/busy").send(gateway.public));
        }
        std::thread::sleep(Duration::from_millis(2600));
    });
    upload.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut bytes = vec![0; 4096];
    let count = upload.read(&mut bytes).unwrap_or(0);
    // SETTINGS and the like, and no RST_STREAM.
    let mut rest = &bytes[..count];
    while rest.len() >= 9 {
        let length = usize::from(rest[0]) << 16 | usize::from(rest[1]) << 8 | usize::from(rest[2]);
        assert_ne!(rest[3], RST_STREAM, "the upload was ended for requests to another upstream");
        rest = rest.get(9 + length..).unwrap_or_default();
    }
}

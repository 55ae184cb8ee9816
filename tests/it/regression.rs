//! Defects that were found once, by review or in use, each held down by a test that names it. None has an issue of its own
//! yet: they were found before the first release.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Setup, await_that, cli_with, said};
use crate::jwt;
use crate::origin::Origin;
use crate::wire::{Connection, exchange, get, post};

/// An upload that broke off while the response was on its way left a connection on which the next request was read as the
/// rest of the body.
#[test]
fn a_broken_upload_spoils_its_connection() {
    let origin = Origin::scripted(|exchange| match exchange.seen.target.as_str() {
        "/public/early" => {
            exchange.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nearly");
            // Until the gateway has heard that the client is gone; then the rest of the answer.
            let part = exchange.read_some().unwrap_or_default();
            assert!(!String::from_utf8_lossy(&part).contains("0\r\n\r\n"), "a part is not sent as the whole");
            exchange.is_closed_within(Duration::from_millis(500));
            exchange.write(b"after");
        }
        _ => exchange.echo(),
    });
    let gateway = Setup::new(origin.address).set("server.workers", json!(1)).start();
    for framing in ["Content-Length: 400\r\n\r\nAAAAAAAAAA", "Transfer-Encoding: chunked\r\n\r\na\r\nAAAAAAAAAA\r\n"] {
        let mut attacker = Connection::open(gateway.public);
        attacker.send(format!("POST /public/early HTTP/1.1\r\nHost: x\r\n{framing}").as_bytes()).unwrap();
        assert_eq!(attacker.receive_head().unwrap().status, 200);
        drop(attacker);
        let before = origin.last().connection;
        let victim = get("/public/victim").send(gateway.public);
        assert_eq!(victim.status, 200, "{framing:?}: {victim:?}");
        let seen = origin.last();
        assert_eq!((seen.target.as_str(), seen.violations.len()), ("/public/victim", 0), "{framing:?}: {seen:?}");
        assert_ne!(seen.connection, before, "{framing:?}: not on the spoilt connection");
    }
}

/// A deadline that was set while the client waited rang while it was the client that took its time.
#[test]
fn a_slow_client_is_not_a_silent_upstream() {
    const LENGTH: usize = 24 * 1024 * 1024;
    let origin = Origin::scripted(|exchange| {
        exchange.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n").as_bytes());
        exchange.write(&vec![b'x'; LENGTH]);
    });
    let gateway =
        Setup::new(origin.address).set("upstreams.app.timeouts", json!({"response": "500ms", "idle": "500ms"})).start();
    let mut client = Connection::open(gateway.public);
    client.send(b"GET /public/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut left = LENGTH;
    client.receive_head().unwrap();
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(1600) {
        // Slower than the upstream for longer than its timeouts, but never still.
        std::thread::sleep(Duration::from_millis(5));
        left -= client.take(16 * 1024).unwrap().len();
    }
    while left > 0 {
        let part = client.take(left).unwrap();
        assert!(!part.is_empty(), "cut off {left} bytes before the end");
        left -= part.len();
    }
}

/// What an origin's own empty 400 looks like on the wire was taken for hyper's automatic answer.
#[test]
fn an_origins_empty_refusal_passes() {
    let origin = Origin::scripted(|exchange| {
        let status = exchange.seen.target.rsplit('/').next().unwrap().to_owned();
        exchange.write(
            format!("HTTP/1.1 {status} No\r\nDate: Mon, 23 Nov 2026 08:00:00 GMT\r\nContent-Length: 0\r\n\r\n")
                .as_bytes(),
        );
    });
    let gateway = Setup::new(origin.address).start();
    let mut client = Connection::open(gateway.public);
    for status in [400, 414, 431] {
        for method in ["GET", "HEAD"] {
            client.send(format!("{method} /public/{status} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
            let answer = client.receive(method).unwrap();
            assert_eq!((answer.status, answer.header("portcullis-error")), (status, None), "{method} {answer:?}");
            assert!(answer.body.is_empty(), "{method} {answer:?}");
        }
    }
}

/// A connection counted as idle while hyper still held the end of its answer, and was closed with it.
#[test]
fn a_drain_waits_until_answers_are_written_out() {
    const LENGTH: usize = 4_100_000;
    let origin = Origin::scripted(|exchange| {
        exchange.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n").as_bytes());
        exchange.write(&vec![b'x'; LENGTH]);
    });
    let mut gateway = Setup::new(origin.address).set("server.timeouts", json!({"drain": "15s"})).start();
    let mut clients: Vec<Connection> = (0..4).map(|_| Connection::open(gateway.public)).collect();
    for client in &mut clients {
        client.send(b"GET /public/a HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        client.receive_head().unwrap();
    }
    gateway.signal("TERM");
    await_that("it drains", || !gateway.is_ready());
    // Longer than an idle connection is given.
    std::thread::sleep(Duration::from_millis(1500));
    for client in &mut clients {
        let mut left = LENGTH;
        while left > 0 {
            let part = client.take(left).unwrap();
            assert!(!part.is_empty(), "cut off {left} bytes before the end");
            left -= part.len();
        }
    }
    assert!(gateway.await_end().success());
}

/// A client that read nothing held its connection, and the upstream's, for ever.
#[test]
fn a_client_that_takes_nothing_is_let_go() {
    let let_go = Arc::new(AtomicBool::new(false));
    let noticed = Arc::clone(&let_go);
    let origin = Origin::scripted(move |exchange| {
        exchange.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
        while !exchange.is_closing() {
            exchange.write(&[b'x'; 65_536]);
        }
        noticed.store(true, Ordering::Relaxed);
    });
    let gateway = Setup::new(origin.address).set("server.timeouts", json!({"idle": "1s"})).start();
    let mut client = Connection::open(gateway.public);
    client.send(b"GET /public/a HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    client.receive_head().unwrap();
    await_that("the upstream's connection is let go", || let_go.load(Ordering::Relaxed));
}

/// A Connection line took fields away that the gateway vouches for.
#[test]
fn connection_cannot_name_what_the_gateway_says() {
    let origin = Origin::start();
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for trusted in [json!([]), json!(["127.0.0.1"])] {
        let gateway = Setup::new(origin.address).set("server.trusted_proxies", trusted.clone()).start();
        let answer = get("/public/a")
            .header(
                "Connection",
                "close, traceparent, x-request-id, x-forwarded-proto, x-forwarded-host, x-forwarded-for",
            )
            .header("traceparent", trace)
            .header("X-Forwarded-Proto", "https")
            .header("X-Forwarded-Host", "outside")
            .send(gateway.public);
        assert_eq!(answer.status, 200);
        let seen = origin.last();
        for name in ["traceparent", "x-request-id", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-for"] {
            assert_eq!(seen.all_like(name).len(), 1, "{name}, trusted: {trusted}: {seen:?}");
        }
    }
}

/// A proxy that asks /auth/verify understands few statuses.
#[test]
fn verify_answers_a_bad_host_with_a_verdict() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    for host in ["", "Host: a\r\nHost: b\r\n", "Host: a b\r\n", "Host: @\r\n"] {
        let raw = format!("GET /auth/verify HTTP/1.1\r\n{host}Connection: close\r\n\r\n");
        let answer = exchange(gateway.public, raw.as_bytes(), "GET").unwrap();
        assert_eq!((answer.status, answer.code()), (403, "bad_request"), "{host:?}: {answer:?}");
    }
}

/// Nor did it where the request was refused before the gate had seen it, and 401 says that the token is no good.
#[test]
fn verify_answers_a_malformed_request_with_a_verdict() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    let large = format!("X: {}", "x".repeat(70 * 1024));
    for (fields, status, code) in [
        ("Transfer-Encoding: gzip", 400, "bad_request"),
        ("Content-Length: 1\r\nContent-Length: 2", 400, "bad_request"),
        ("Content-Length: x", 400, "bad_request"),
        ("X Y: 1", 400, "bad_header"),
        ("X: a\0b", 400, "bad_header"),
        (&large, 431, "headers_too_large"),
    ] {
        for (target, is_verify) in [
            ("/auth/verify", true),
            ("/auth/verify/", true),
            ("/auth/verify?a=b", true),
            ("/auth/verify/?a", true),
            ("/auth/verified", false),
            ("/auth/verify/a", true),
            ("/auth/verified/a", false),
            ("/public/a?/auth/verify", false),
        ] {
            let raw = format!("GET {target} HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n");
            let mut client = Connection::open(gateway.public);
            client.send(raw.as_bytes()).unwrap();
            let answer = client.receive("GET").unwrap();
            let told = &fields[..fields.len().min(30)];
            if is_verify {
                assert_eq!((answer.status, answer.code()), (403, code), "{target}, {told:?}: {answer:?}");
                assert!(answer.header("www-authenticate").is_some(), "{answer:?}");
            } else {
                assert_eq!((answer.status, answer.code()), (status, code), "{target}, {told:?}: {answer:?}");
            }
        }
    }
}

/// What one request of a connection asks for says nothing about the next.
#[test]
fn a_malformed_request_after_a_verdict_is_answered_as_it_is_anywhere() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    let good = "GET /auth/verify HTTP/1.1\r\nHost: x\r\n\r\n";
    let bad = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: x\r\nX Y: 1\r\n\r\n");
    // One after the other, and both at once.
    for at_once in [false, true] {
        let mut client = Connection::open(gateway.public);
        let second = bad("/public/a");
        client.send(if at_once { [good, &second].concat() } else { good.to_owned() }.as_bytes()).unwrap();
        assert_eq!(client.receive("GET").unwrap().status, 401);
        if !at_once {
            client.send(second.as_bytes()).unwrap();
        }
        assert_eq!(client.receive("GET").unwrap().status, 400, "at once: {at_once}");
    }
    let mut client = Connection::open(gateway.public);
    client.send(b"GET /public/a HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!(client.receive("GET").unwrap().status, 200);
    client.send(bad("/auth/verify").as_bytes()).unwrap();
    assert_eq!(client.receive("GET").unwrap().status, 403);
}

/// Fields that are none had the code of every malformed request.
#[test]
fn malformed_fields_are_bad_headers() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    for (raw, code) in [
        ("GET /public/a HTTP/1.1\r\nHost: x\r\nX Foo: 1\r\n\r\n", "bad_header"),
        ("GET /public/a HTTP/1.1\r\nHost: x\r\nX@: 1\r\n\r\n", "bad_header"),
        ("GET /public/a HTTP/1.1\r\nHost: x\r\nX: a\x01b\r\n\r\n", "bad_header"),
        ("GET /public/a HTTP/9.9\r\nHost: x\r\n\r\n", "bad_request"),
        ("GET\r\n\r\n", "bad_request"),
    ] {
        let mut client = Connection::open(gateway.public);
        client.send(raw.as_bytes()).unwrap();
        let answer = client.receive("GET").unwrap();
        assert_eq!((answer.status, answer.code()), (400, code), "{raw:?}: {answer:?}");
        assert!(client.is_closed_within(Duration::from_secs(3)), "{raw:?}");
    }
}

/// A request that may not be sent twice went out on a connection that its server had closed.
#[test]
fn a_post_finds_out_that_its_connection_is_closed() {
    let origin = Origin::scripted(|exchange| {
        exchange.echo();
        if exchange.seen.target.ends_with("/last") {
            exchange.close();
        }
    });
    let gateway = Setup::new(origin.address).set("server.workers", json!(1)).start();
    for round in 0..20 {
        assert_eq!(get("/public/last").send(gateway.public).status, 200);
        // Until the origin has closed: what nobody can know yet is not what this is about.
        std::thread::sleep(std::time::Duration::from_millis(30));
        let before = origin.count();
        let answer = post("/public/a").body("once").send(gateway.public);
        assert_eq!(answer.status, 200, "round {round}: {answer:?}");
        assert_eq!(origin.count(), before + 1, "sent once");
    }
}

/// A refusal was lost to a reset when the client was still sending.
#[test]
fn an_early_refusal_reaches_a_client_that_is_still_sending() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    for round in 0..10 {
        let answer = post("/secret/a").body(vec![b'x'; 1024 * 1024]).try_send(gateway.public);
        assert_eq!(answer.map(|answer| answer.status).ok(), Some(401), "round {round}");
    }
}

/// `explain` judged tokens that the gateway would not have looked at, and read them from the command line only.
#[test]
fn explain_judges_as_the_gateway_does() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    let good = jwt::access("alice");
    let config = gateway.folder.path().join("gateway.yaml");
    for (arguments, input, code, says) in [
        (&["explain", "GET", "/public/a", "--token", "rubbish"][..], "", 0, "nobody looks at the token"),
        (&["explain", "GET", "/login"], "", 1, "method_not_allowed"),
        (&["explain", "GET", "/secret", "--token", "-"], &*good, 0, "X-Auth-Subject: alice"),
    ] {
        let done = cli_with(&config, arguments, input);
        assert_eq!(done.status.code(), Some(code), "{arguments:?}: {}", said(&done));
        assert!(said(&done).contains(says), "{arguments:?}: {}", said(&done));
    }
}

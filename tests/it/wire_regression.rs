//! What hostile readers found on the way to upstreams, each as it was found.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::frames::{Client, END_HEADERS, END_STREAM, HEADERS, block, frame, get as h2_get};
use crate::harness::{PATIENCE, Setup, await_that, free_address};
use crate::origin::Origin;
use crate::upstream_h2::{H2Origin, Manner};
use crate::wire::{Connection, get, post};

#[test]
fn answers_that_nobody_reads_do_not_stop_those_of_others() {
    let origin = H2Origin::start(Manner::default());
    let gateway = origin.gateway(&[]);
    let head = block(&h2_get("x", "/public/flood"));
    let ask = |mut client: Client| {
        for n in 0..50 {
            client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &head)).unwrap();
        }
        client
    };
    let _greedy = [(); 3].map(|()| ask(Client::open(gateway.public)));
    await_that("all are stalled", || origin.stalled() == 150);
    assert_eq!(post("/public/echo").body("hello").send(gateway.public).text(), "hello");
    assert_eq!(origin.connections(), 2);
}

#[test]
fn a_client_may_be_silent_once_its_answer_has_begun() {
    let second = H2Origin::start(Manner::default());
    let first = Origin::scripted(|exchange| {
        exchange.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while let Ok(some) = exchange.read_some() {
            exchange.write(format!("{:x}\r\n", some.len()).as_bytes());
            exchange.write(&some);
            exchange.write(b"\r\n");
        }
        exchange.close();
    });
    for (protocol, address) in [("h2", second.address), ("http1", first.address)] {
        let gateway = Setup::new(address)
            .set("upstreams.app.protocol", json!(protocol))
            .set("server.timeouts", json!({"body": "300ms"}))
            .start();
        let mut client = Connection::open(gateway.public);
        client
            .send(b"POST /public/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nold\r\n")
            .unwrap();
        assert_eq!(client.receive_head().unwrap().status, 200, "{protocol}");
        let heard = client.chunk().unwrap().unwrap();
        assert!(String::from_utf8_lossy(&heard).contains("old"), "{protocol}");
        std::thread::sleep(Duration::from_secs(1));
        client.send(b"3\r\nnew\r\n").unwrap();
        let heard = client.chunk().unwrap().unwrap();
        assert!(String::from_utf8_lossy(&heard).contains("new"), "{protocol}");
    }
}

#[test]
fn a_204_with_a_body_does_not_answer_the_next_request() {
    let origin = Origin::scripted(|exchange| match exchange.seen.target.as_str() {
        "/public/204" => exchange.write(b"HTTP/1.1 204 No Content\r\nContent-Length: 36\r\n\r\n"),
        _ => exchange.echo(),
    });
    let gateway = Setup::new(origin.address).set("server.workers", json!(1)).start();
    assert_eq!(get("/public/204").send(gateway.public).status, 204);
    assert_eq!(get("/public/a").send(gateway.public).status, 200);
    assert_eq!(origin.connections(), 2);
}

#[test]
fn retries_of_kept_connections_are_paid_for() {
    // Every connection answers once, and then closes on the next request.
    let origin = Origin::scripted(|exchange| if exchange.nth == 0 { exchange.echo() } else { exchange.close() });
    let gateway = Setup::new(origin.address).set("server.workers", json!(1)).start();
    let mut client = Connection::open(gateway.public);
    let failed = AtomicUsize::new(0);
    for _ in 0..1500 {
        let answer = get("/public/a").send_on(&mut client, gateway.public).unwrap();
        failed.fetch_add(usize::from(answer.status == 502), Ordering::Relaxed);
    }
    assert!(failed.into_inner() > 100, "the budget has an end");
}

#[test]
fn when_the_last_resort_fails_the_client_is_told_to_come_again() {
    let (one, two) = (free_address(), free_address());
    let servers = json!([format!("http://{one}"), format!("http://{two}")]);
    let gateway = Setup::new(one).set("server.workers", json!(1)).set("upstreams.app.servers", servers).start();
    await_that("no server is left", || get("/public/a").send(gateway.public).code() == "unavailable");
    let answer = get("/public/a").send(gateway.public);
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    let gateway = Setup::new(one).start();
    (0..12).for_each(|_| assert_eq!(get("/public/a").send(gateway.public).status, 502));
}

#[test]
fn what_connection_names_is_removed_whatever_it_is() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    let request = get("/public/a")
        .header("Connection", "cookie, Sec-WebSocket-Protocol, x-request-id, expect")
        .header("Cookie", "a=1")
        .header("Sec-WebSocket-Protocol", "chat")
        .header("X-Request-Id", "mine");
    // A Connection of its own line goes with it.
    assert_eq!(request.send(gateway.public).status, 200);
    let seen = origin.last();
    assert_eq!((seen.header("cookie"), seen.header("sec-websocket-protocol")), (None, None));
    assert_eq!(seen.all("x-request-id").len(), 1, "made anew");
}

#[test]
fn a_body_with_two_codings_ends_the_connection() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    let raw = b"POST /public/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n";
    let mut client = Connection::open(gateway.public);
    client.send(raw).unwrap();
    let answer = client.receive("POST").unwrap();
    assert_eq!((answer.status, answer.header("connection")), (400, Some("close")));
    assert!(client.is_closed_within(PATIENCE));
    assert_eq!(origin.count(), 0);
}

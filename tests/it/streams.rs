//! What outlives its request: a stream on a protected route ends with its token, and others go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::frames::{self, Client, END_HEADERS, END_STREAM, Fate, HEADERS};
use crate::harness::{Gateway, Setup, await_that};
use crate::origin::Origin;
use crate::wire::{Connection, get, post};

/// An event every 50 ms, for as long as somebody listens.
fn events() -> Origin {
    Origin::scripted(|exchange| {
        let _ = exchange.read_body();
        if exchange.seen.target.contains("sized") {
            exchange.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
        } else {
            exchange.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
        }
        while !exchange.is_closing() {
            let event = if exchange.seen.target.contains("sized") { "data\n\n" } else { "6\r\ndata\n\n\r\n" };
            exchange.write(event.as_bytes());
            std::thread::sleep(Duration::from_millis(50));
        }
    })
}

/// A stream under way.
fn listen(gateway: &Gateway, path: &str, token: Option<&str>) -> Connection {
    let mut connection = Connection::open(gateway.public);
    let request = get(path);
    let request = token.map_or(request.clone(), |token| request.bearer(token));
    connection.send(&request.bytes(gateway.public, "")).unwrap();
    assert_eq!(connection.receive_head().unwrap().status, 200);
    connection.take(10).unwrap();
    connection
}

/// How long the stream goes on, at most `limit`.
fn lasts(connection: &mut Connection, limit: Duration) -> Duration {
    let begin = Instant::now();
    while begin.elapsed() < limit {
        match connection.take(1000) {
            Ok(bytes) if !bytes.is_empty() => {}
            _ => break,
        }
    }
    begin.elapsed()
}

const LONG: Duration = Duration::from_millis(2500);

#[test]
fn a_logout_ends_the_streams_of_its_token_within_a_second() {
    let origin = events();
    let gateway = Setup::new(origin.address).start();
    let (alice, bob) = (gateway.register("alice"), gateway.register("bob"));
    let mut streams = [
        listen(&gateway, "/secret/events", Some(&alice.access)),
        listen(&gateway, "/secret/sized", Some(&alice.access)),
        listen(&gateway, "/optional/events", Some(&alice.access)),
    ];
    let mut others = [
        listen(&gateway, "/secret/events", Some(&bob.access)),
        listen(&gateway, "/public/events", Some(&alice.access)),
    ];
    let mut second = Client::open(gateway.public);
    let bearer = format!("Bearer {}", alice.access);
    let fields = [frames::get("app", "/secret/events"), vec![("authorization", bearer.as_str())]].concat();
    second.send(&frames::frame(HEADERS, END_HEADERS | END_STREAM, 1, &frames::block(&fields))).unwrap();
    assert_eq!(second.fate(1), Fate::Answered(200));
    assert_eq!(post("/logout/access").bearer(&alice.access).send(gateway.public).status, 200);
    for stream in &mut streams {
        assert!(lasts(stream, LONG) < Duration::from_millis(1000));
    }
    assert!(matches!(second.fate(1), Fate::Reset(_)));
    assert_eq!(get("/secret").bearer(&alice.access).send(gateway.public).status, 401);
    for other in &mut others {
        assert!(lasts(other, Duration::from_millis(1200)) >= Duration::from_millis(1200));
    }
}

#[test]
fn the_end_of_a_session_is_that_of_its_streams() {
    let origin = events();
    let gateway = Setup::new(origin.address).start();
    gateway.register("alice");
    for path in ["/logout", "/logout/all"] {
        let tokens = gateway.login("alice");
        let mut stream = listen(&gateway, "/secret/events", Some(&tokens.access));
        let by = if path == "/logout" { &tokens.refresh } else { &tokens.access };
        assert_eq!(post(path).bearer(by).send(gateway.public).status, 200);
        assert!(lasts(&mut stream, LONG) < Duration::from_millis(1000), "{path}");
    }
}

#[test]
fn a_revocation_by_another_process_ends_streams_too() {
    let origin = events();
    let gateway = Setup::new(origin.address).start();
    let alice = gateway.register("alice");
    let mut stream = listen(&gateway, "/secret/events", Some(&alice.access));
    let done = gateway.cli(&["tokens", "revoke", "--user", "alice"], "");
    assert!(done.status.success(), "{done:?}");
    assert!(lasts(&mut stream, LONG) < Duration::from_millis(1000));
}

#[test]
fn expiry_ends_streams_but_not_what_was_asked_for_and_begun_in_time() {
    let origin = events();
    let gateway = Setup::new(origin.address)
        .set("tokens.access_ttl", json!("2s"))
        .set("tokens.leeway", json!("0s"))
        .and_routes(json!([{"path": "/lasting/*", "upstream": "app", "on_expiry": "ignore"}]))
        .start();
    let token = gateway.register("alice").access;
    let mut stream = listen(&gateway, "/secret/events", Some(&token));
    let mut download = listen(&gateway, "/secret/sized", Some(&token));
    let mut lasting = listen(&gateway, "/lasting/events", Some(&token));
    let lasted = lasts(&mut stream, Duration::from_secs(5));
    assert!(lasted < Duration::from_millis(3000), "{lasted:?}");
    assert_eq!(get("/secret").bearer(&token).send(gateway.public).code(), "token_expired");
    for going_on in [&mut download, &mut lasting] {
        assert!(lasts(going_on, Duration::from_millis(1200)) >= Duration::from_millis(1200));
    }
}

/// A GET on `stream` with a token, whose answer's window is as `settings` said.
fn ask(client: &mut Client, stream: u32, path: &str, token: &str) {
    let bearer = format!("Bearer {token}");
    let fields = [frames::get("app", path), vec![("authorization", bearer.as_str())]].concat();
    client.send(&frames::frame(HEADERS, END_HEADERS | END_STREAM, stream, &frames::block(&fields))).unwrap();
}

/// A client that takes no byte of any answer.
fn windowless(gateway: &Gateway) -> Client {
    let mut client = Client::raw(gateway.public);
    client.send(frames::PREFACE).unwrap();
    // SETTINGS_INITIAL_WINDOW_SIZE is 0.
    client.send(&frames::frame(frames::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).unwrap();
    client.send(&frames::frame(frames::SETTINGS, frames::ACK, 0, &[])).unwrap();
    client
}

/// Counts how many requests its script is at.
fn watched_events() -> (Origin, Arc<AtomicUsize>) {
    let open = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&open);
    let origin = Origin::scripted(move |exchange| {
        let _ = exchange.read_body();
        count.fetch_add(1, Ordering::SeqCst);
        exchange.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while !exchange.is_closing() {
            exchange.write(b"6\r\ndata\n\n\r\n");
            std::thread::sleep(Duration::from_millis(20));
        }
        count.fetch_sub(1, Ordering::SeqCst);
    });
    (origin, open)
}

#[test]
fn a_client_that_widens_no_window_cannot_keep_a_stream_beyond_its_token() {
    let (origin, open) = watched_events();
    let gateway = Setup::new(origin.address).start();
    let token = gateway.register("alice").access;
    let mut client = windowless(&gateway);
    ask(&mut client, 1, "/secret/events", &token);
    assert_eq!(client.fate(1), Fate::Answered(200));
    await_that("the upstream sends", || open.load(Ordering::SeqCst) == 1);
    assert_eq!(post("/logout/access").bearer(&token).send(gateway.public).status, 200);
    let begin = Instant::now();
    await_that("the upstream is let go", || open.load(Ordering::SeqCst) == 0);
    assert!(begin.elapsed() < Duration::from_millis(1000), "{:?}", begin.elapsed());
    assert!(client.is_closed_within(Duration::from_secs(3)), "and the connection with it");
}

#[test]
fn answers_that_are_left_lying_let_their_upstreams_go_whatever_else_the_connection_does() {
    let (origin, open) = watched_events();
    let gateway = Setup::new(origin.address).set("server.timeouts", json!({"idle": "600ms"})).start();
    let mut client = windowless(&gateway);
    for stream in [1, 3, 5] {
        ask(&mut client, stream, "/public/events", "none");
        assert_eq!(client.fate(stream), Fate::Answered(200));
    }
    await_that("the upstream sends", || open.load(Ordering::SeqCst) == 3);
    // One that is not lying: its answer has no body.
    let mut stream = 7;
    await_that("all three are let go", || {
        ask(&mut client, stream, "/nowhere", "none");
        stream += 2;
        std::thread::sleep(Duration::from_millis(100));
        open.load(Ordering::SeqCst) == 0
    });
}

#[test]
fn an_endless_upload_ends_with_its_token_and_a_whole_request_does_not() {
    let origin = Origin::scripted(|exchange| {
        let _ = exchange.read_body();
        if exchange.seen.target.contains("slow") {
            std::thread::sleep(Duration::from_millis(2500));
        }
        exchange.answer("200 OK", "", "done");
    });
    let gateway = Setup::new(origin.address)
        .set("tokens.access_ttl", json!("2s"))
        .set("tokens.leeway", json!("0s"))
        .set("server.workers", json!(1))
        .start();
    let token = gateway.register("alice").access;
    let head = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
    };
    let mut whole = Connection::open(gateway.public);
    whole.send(format!("{}1\r\nx\r\n0\r\n\r\n", head("/secret/slow")).as_bytes()).unwrap();
    let mut endless = Connection::open(gateway.public);
    endless.send(head("/secret/x").as_bytes()).unwrap();
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(6) && endless.send(b"1\r\nx\r\n").is_ok() {
        if endless.is_closed_within(Duration::from_millis(100)) {
            break;
        }
    }
    assert!(begin.elapsed() < Duration::from_millis(3500), "{:?}", begin.elapsed());
    assert_eq!(whole.receive("POST").unwrap().status, 200, "it was asked whole, in time");
}

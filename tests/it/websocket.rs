//! WebSocket: which requests pass as an upgrade, what the upstream sees of them, and the tunnel behind its 101.

use std::sync::{Mutex, mpsc};
use std::time::Duration;

use serde_json::json;

use crate::harness::{Gateway, PATIENCE, Setup};
use crate::origin::{Exchange, Origin};
use crate::wire::{Connection, get, post};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The request of RFC 6455 1.3, with `more` fields.
fn upgrade(more: &str) -> String {
    format!(
        "GET /public/chat HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
    )
}

fn switch(exchange: &mut Exchange<'_>, more: &str) {
    exchange.write(
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {ACCEPT}\r\n{more}"
        )
        .as_bytes(),
    );
}

fn with(script: impl Fn(&mut Exchange<'_>) + Send + Sync + 'static) -> (Origin, Gateway) {
    let origin = Origin::scripted(script);
    let gateway = Setup::new(origin.address).set("server.workers", json!(1)).start();
    (origin, gateway)
}

#[test]
fn bytes_pass_both_ways_behind_the_101_until_both_ends_close() {
    let (origin, gateway) = with(|exchange| {
        // The first bytes come in one piece with the head.
        switch(exchange, "\r\nhello");
        let mut heard = Vec::new();
        while let Ok(some) = exchange.read_some() {
            if heard.is_empty() {
                exchange.write(b" back");
            }
            heard.extend(some);
        }
        // The client has closed its half, and still listens.
        exchange.write(format!(" heard {}", heard.len()).as_bytes());
        exchange.close();
    });
    let mut client = Connection::open(gateway.public);
    // And here too.
    client.send(format!("{}early", upgrade("Sec-WebSocket-Protocol: chat\r\n")).as_bytes()).unwrap();
    let answer = client.receive("GET").unwrap();
    assert_eq!(answer.status, 101);
    assert_eq!(answer.header("sec-websocket-accept"), Some(ACCEPT));
    assert_eq!((answer.header("upgrade"), answer.header("connection")), (Some("websocket"), Some("Upgrade")));
    assert_eq!(answer.header("sec-websocket-protocol"), None);
    assert_eq!(answer.header("content-length").or(answer.header("transfer-encoding")), None);
    let mut heard = Vec::new();
    while heard.len() < b"hello back".len() {
        heard.extend(client.take(1000).unwrap());
    }
    let body = vec![7; 300_000];
    client.send(&body).unwrap();
    client.close_write();
    heard.extend(client.receive_all(PATIENCE, PATIENCE));
    assert_eq!(String::from_utf8(heard).unwrap(), "hello back heard 300005");
    let seen = origin.last();
    assert_eq!(seen.all("upgrade"), ["websocket"]);
    assert_eq!(seen.all("connection"), ["Upgrade"]);
    assert_eq!(seen.header("sec-websocket-key"), Some(KEY));
    assert_eq!(seen.header("sec-websocket-protocol"), Some("chat"));
}

#[test]
fn only_a_websocket_passes_as_an_upgrade() {
    let (origin, gateway) = with(|exchange| exchange.echo());
    let whole = upgrade("");
    for raw in [
        whole.replace("Upgrade: websocket", "Upgrade: h2c"),
        whole.replace("Upgrade: websocket", "Upgrade: websocket, h2c"),
        whole.replace("Upgrade: websocket", "Upgrade: websocket\r\nUpgrade: h2c"),
        whole.replace("keep-alive, Upgrade", "keep-alive"),
        whole.replace("Version: 13", "Version: 8"),
        whole.replace("GET", "DELETE"),
    ] {
        let mut client = Connection::open(gateway.public);
        client.send(raw.as_bytes()).unwrap();
        assert_eq!(client.receive("GET").unwrap().status, 200, "{raw}");
        let seen = origin.last();
        assert_eq!((seen.header("upgrade"), seen.header("connection")), (None, None), "{raw}");
    }
    let reached = origin.count();
    for body in ["Content-Length: 2\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut client = Connection::open(gateway.public);
        client.send(upgrade(body).as_bytes()).unwrap();
        assert_eq!(client.receive("GET").unwrap().code(), "bad_request", "{body}");
    }
    assert_eq!(origin.count(), reached, "a body behind an upgrade reaches nobody");
}

#[test]
fn a_refusal_is_an_ordinary_answer_and_the_connection_goes_on() {
    let (origin, gateway) = with(|exchange| match exchange.seen.header("upgrade") {
        Some(_) => exchange.answer("403 Forbidden", "", "not you"),
        None => exchange.echo(),
    });
    let mut client = Connection::open(gateway.public);
    client.send(upgrade("").as_bytes()).unwrap();
    let answer = client.receive("GET").unwrap();
    assert_eq!((answer.status, answer.text().as_str(), answer.code()), (403, "not you", ""));
    assert_eq!(post("/public/a").body("x").send_on(&mut client, gateway.public).unwrap().status, 200);
    assert_eq!(origin.connections(), 1, "the connection to the upstream is kept as well");
}

#[test]
fn a_101_to_anything_else_is_no_answer() {
    let (_origin, gateway) = with(|exchange| {
        let text = match exchange.seen.header("x-case").unwrap_or_default() {
            "other" => "Upgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
            "several" => "Upgrade: websocket\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
            "bare" => "Upgrade: websocket\r\n\r\n",
            "framed" => "Upgrade: websocket\r\nConnection: Upgrade\r\nTransfer-Encoding: chunked\r\n\r\n",
            _ => "Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        };
        exchange.write(format!("HTTP/1.1 101 Switching Protocols\r\n{text}").as_bytes());
        exchange.close();
    });
    for case in ["other", "several", "bare", "framed"] {
        let mut client = Connection::open(gateway.public);
        client.send(upgrade(&format!("X-Case: {case}\r\n")).as_bytes()).unwrap();
        assert_eq!(client.receive("GET").unwrap().code(), "upstream_unreachable", "{case}");
    }
    assert_eq!(get("/public/unasked").send(gateway.public).code(), "upstream_unreachable");
}

#[test]
fn it_is_judged_like_any_request() {
    let (origin, gateway) = with(|exchange| switch(exchange, "\r\n"));
    let secret = upgrade("").replace("/public/chat", "/secret/chat");
    let mut client = Connection::open(gateway.public);
    client.send(secret.as_bytes()).unwrap();
    assert_eq!(client.receive("GET").unwrap().code(), "token_missing");
    assert_eq!(origin.count(), 0);
    let token = gateway.register("alice").access;
    let mut client = Connection::open(gateway.public);
    let field = format!("\r\nAuthorization: Bearer {token}\r\n\r\n");
    client.send(secret.replace("\r\n\r\n", &field).as_bytes()).unwrap();
    assert_eq!(client.receive("GET").unwrap().status, 101);
    assert_eq!(origin.last().header("x-auth-subject"), Some("alice"));
}

#[test]
fn a_silent_tunnel_is_closed_on_both_sides() {
    let (closed, server_end) = mpsc::channel();
    let closed = Mutex::new(closed);
    let origin = Origin::scripted(move |exchange| {
        switch(exchange, "\r\n");
        let _ = closed.lock().unwrap().send(exchange.is_closed_within(PATIENCE));
    });
    let timeouts = json!({"idle": "300ms"});
    let gateway = Setup::new(origin.address).set("upstreams.app.timeouts", timeouts).start();
    let mut client = Connection::open(gateway.public);
    client.send(upgrade("").as_bytes()).unwrap();
    assert_eq!(client.receive("GET").unwrap().status, 101);
    assert!(client.is_closed_within(PATIENCE), "the client's side");
    assert!(server_end.recv_timeout(Duration::from_secs(20)).unwrap(), "the server's side");
}

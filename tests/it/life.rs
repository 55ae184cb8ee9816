//! Start, readiness, log, metrics, and the end.

use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Gateway, PASSWORD, SECRET, Setup, await_that, credentials};
use crate::jwt;
use crate::origin::Origin;
use crate::wire::{Connection, get, post, request};

/// An origin whose /public/held and /secret/held answer when the flag is raised.
fn holding() -> (Origin, Arc<AtomicBool>) {
    let release = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&release);
    let origin = Origin::scripted(move |exchange| {
        if exchange.seen.target.ends_with("/held") {
            await_that("the origin is released", || raised.load(Ordering::Relaxed));
        }
        exchange.echo();
    });
    (origin, release)
}

#[test]
fn the_admin_listener() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    for path in ["/livez", "/readyz"] {
        assert_eq!(get(path).send(gateway.admin).status, 200, "{path}");
        assert_eq!(get(path).send(gateway.public).code(), "no_route", "{path} is not public");
    }
    assert_eq!(get("/metrics").send(gateway.public).code(), "no_route");
    assert_eq!(get("/nothing").send(gateway.admin).status, 404);
    let token = gateway.register("alice").access;
    assert_eq!(gateway.try_token(&token), 200);
    assert_eq!(get("/secret/some/long/path").send(gateway.public).status, 401);
    assert_eq!(post("/logout/access").bearer(&token).send(gateway.public).status, 200);
    let metrics = get("/metrics").send(gateway.admin);
    assert_eq!(metrics.status, 200);
    let text = metrics.text();
    assert!(text.contains("# TYPE"), "{text}");
    assert!(text.contains("histogram"), "{text}");
    assert!(text.contains("/secret"), "labelled by route: {text}");
    assert!(!text.contains("some/long/path"), "never the raw path: {text}");
    for secret in ["alice", &token] {
        assert!(!text.contains(secret), "{text}");
    }
}

/// Whether `value` stands anywhere in `line`.
fn holds(line: &Value, value: &Value) -> bool {
    line == value
        || line.as_array().is_some_and(|list| list.iter().any(|item| holds(item, value)))
        || line.as_object().is_some_and(|object| object.values().any(|item| holds(item, value)))
}

#[track_caller]
fn access_line(gateway: &Gateway, id: &str) -> Value {
    let find = || gateway.log().into_iter().filter(|line| holds(line, &json!(id))).collect::<Vec<_>>();
    await_that(&format!("the log tells of {id}"), || !find().is_empty());
    let mut lines = find();
    assert_eq!(lines.len(), 1, "one line a request: {lines:?}");
    lines.remove(0)
}

#[test]
fn one_line_a_request() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    let token = jwt::access("alice");
    let id = jwt::claims_of(&token)["jti"].clone();
    for (name, target, bearer, status, route) in [
        ("log-1", "/secret/a/b?c=d", true, 200, Some("/secret/*")),
        ("log-2", "/secret", false, 401, Some("/secret")),
        ("log-3", "/public/x", false, 200, Some("/public/*")),
        ("log-4", "/nowhere", false, 404, None),
        ("log-5", "/public/%00", false, 400, None),
    ] {
        let asked = get(target).header("X-Request-Id", name);
        let asked = if bearer { asked.bearer(&token) } else { asked };
        assert_eq!(asked.send(gateway.public).status, status);
        let line = access_line(&gateway, name);
        assert!(holds(&line, &json!(status)), "{line}");
        assert!(route.is_none_or(|route| holds(&line, &json!(route))), "{line}");
        assert_eq!(holds(&line, &id), bearer, "the token's id: {line}");
        assert!(line.as_object().unwrap().len() >= 4, "{line}");
    }
}

#[test]
fn the_access_log_can_be_off() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).set("log.access", json!(false)).start();
    assert_eq!(get("/public/x").header("X-Request-Id", "unheard-of").send(gateway.public).status, 200);
    assert_eq!(get("/public/y").send(gateway.public).status, 200);
    assert!(!gateway.output().contains("unheard-of"), "{}", gateway.output());
}

#[test]
fn no_secret_is_ever_logged() {
    let origin = Origin::start();
    let mut gateway = Setup::new(origin.address).set("log.level", json!("trace")).start();
    let tokens = gateway.register("alice");
    let other = gateway.login("alice");
    let mut secrets = vec![SECRET.to_owned(), PASSWORD.to_owned(), "a-wrong-password".into(), "cookie-value".into()];
    for token in [&tokens.access, &tokens.refresh, &other.access, &other.refresh] {
        secrets.push(token.clone());
        secrets.push(token.rsplit('.').next().unwrap().to_owned());
    }
    let _ = get("/secret").bearer(&tokens.access).header("Cookie", "a=cookie-value").send(gateway.public);
    let _ = get(&format!("/secret?access_token={}", tokens.access)).send(gateway.public);
    let _ = get(&format!("/public/x?token={}", tokens.access)).send(gateway.public);
    let _ = get("/secret").bearer(&format!("{}x", tokens.access)).send(gateway.public);
    let _ = get("/secret").header("Authorization", &format!("Token {}", tokens.access)).send(gateway.public);
    let _ = get("/secret").bearer(&tokens.access).bearer(&other.access).send(gateway.public);
    let _ = post("/login").json(&credentials("alice", "a-wrong-password")).send(gateway.public);
    let _ = post("/login")
        .header("Content-Type", "application/json")
        .body("{\"password\":\"a-wrong-password\"")
        .send(gateway.public);
    let _ = post("/token/refresh").bearer(&tokens.refresh).send(gateway.public);
    let _ = post("/logout/access").bearer(&tokens.access).send(gateway.public);
    let _ = request("GET", "/users").bearer(&other.access).send(gateway.public);
    let _ = get(&format!("/public/{}/x", other.access)).send(gateway.public);
    let _ = get(&format!("/nowhere/{}%zz", other.access)).send(gateway.public);
    let _ = request("DELETE", &format!("/sessions/{}", other.refresh)).bearer(&other.access).send(gateway.public);
    gateway.signal("TERM");
    gateway.await_end();
    let output = gateway.output();
    for secret in secrets {
        assert!(!output.contains(&secret), "{secret} is in the log");
    }
}

#[test]
fn a_signal_drains_and_ends_with_0() {
    for signal in ["TERM", "INT"] {
        let (origin, release) = holding();
        let mut gateway = Setup::new(origin.address).start();
        let mut idle = Connection::open(gateway.public);
        assert_eq!(get("/public/a").send_on(&mut idle, gateway.public).unwrap().status, 200);
        let mut busy = Connection::open(gateway.public);
        busy.send(b"GET /public/held HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        origin.await_count(2);

        gateway.signal(signal);
        await_that("readyz turns", || !gateway.is_ready());
        assert!(idle.is_closed_within(Duration::from_secs(10)), "SIG{signal}: an idle connection is closed");
        assert!(gateway.poll_end().is_none(), "SIG{signal}: a request is in flight");
        release.store(true, Ordering::Relaxed);
        let answer = busy.receive("GET").unwrap();
        assert_eq!(answer.status, 200, "SIG{signal}: a request in flight ends");
        assert!(busy.is_closed_within(Duration::from_secs(10)), "SIG{signal}: and its connection closes");
        assert_eq!(gateway.await_end().code(), Some(0), "SIG{signal}:\n{}", gateway.output());
        assert!(Connection::try_open(gateway.public).is_err());
    }
}

#[test]
fn the_drain_is_bounded() {
    let (origin, release) = holding();
    let mut gateway = Setup::new(origin.address).set("server.timeouts.drain", json!("1s")).start();
    let mut busy = Connection::open(gateway.public);
    busy.send(b"GET /public/held HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    origin.await_count(1);
    let begin = Instant::now();
    gateway.signal("TERM");
    let ended = gateway.await_end();
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(800) && took < Duration::from_secs(8), "{took:?}");
    assert!(ended.signal().is_none(), "it ended by itself: {ended}");
    release.store(true, Ordering::Relaxed);
}

#[test]
fn slow_clients_are_let_go() {
    let origin = Origin::start();
    let timeouts = json!({"header": "500ms", "idle": "700ms", "body": "500ms"});
    let gateway = Setup::new(origin.address).set("server.timeouts", timeouts).start();
    let limit = Duration::from_secs(8);
    let mut silent = Connection::open(gateway.public);
    let mut half = Connection::open(gateway.public);
    half.send(b"GET /public/a HTTP/1.1\r\nHo").unwrap();
    let mut kept = Connection::open(gateway.public);
    assert_eq!(get("/public/a").send_on(&mut kept, gateway.public).unwrap().status, 200);
    assert!(kept.is_closed_within(limit), "idle after a request");
    assert!(silent.is_closed_within(limit), "never sent a byte");
    let left = half.receive_all(limit, limit);
    assert!(left.is_empty() || left.starts_with(b"HTTP/1.1 4"), "half a head: {}", left.escape_ascii());
    let mut drip = Connection::open(gateway.public);
    drip.send(b"POST /public/a HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc").unwrap();
    let left = drip.receive_all(limit, limit);
    assert!(!left.starts_with(b"HTTP/1.1 2"), "half a body: {}", left.escape_ascii());
    let mut drip = Connection::open(gateway.public);
    drip.send(b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{")
        .unwrap();
    let left = drip.receive_all(limit, limit);
    assert!(
        !left.starts_with(b"HTTP/1.1 2") && !left.starts_with(b"HTTP/1.1 5"),
        "half a login: {}",
        left.escape_ascii()
    );
    assert_eq!(get("/public/a").send(gateway.public).status, 200);
}

#[test]
fn a_taken_port_is_told() {
    let origin = Origin::start();
    let first = Setup::new(origin.address).start();
    let second = Setup::new(origin.address).set("server.listen", json!([first.public.to_string()]));
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let mut second = second.spawn_in(folder);
    assert_eq!(second.await_end().code(), Some(1), "{}", second.output());
    await_that("it says why", || second.output().contains(&first.public.to_string()));
    assert_eq!(get("/public/a").send(first.public).status, 200);
}

//! Which servers get requests: balance, active checks, and passing over those that fail.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Gateway, Setup, await_that, free_address};
use crate::jwt;
use crate::origin::{Exchange, Origin};
use crate::wire::get;

/// A gateway of one worker before these servers, with `more` keys of the upstream.
fn before(origins: &[&Origin], more: Value) -> Gateway {
    let servers: Vec<_> = origins.iter().map(|origin| format!("http://{}", origin.address)).collect();
    let mut upstream = json!({"servers": servers});
    upstream.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Setup::new(origins[0].address).set("server.workers", json!(1)).set("upstreams.app", upstream).start()
}

fn ask(gateway: &Gateway) -> u16 {
    get("/public/a").send(gateway.public).status
}

/// A server that answers with the status in the switch, to requests and to checks.
fn switched(status: u16) -> (Arc<AtomicU16>, Origin) {
    let switch = Arc::new(AtomicU16::new(status));
    let own = Arc::clone(&switch);
    let origin =
        Origin::scripted(move |exchange| exchange.answer(&format!("{} x", own.load(Ordering::Relaxed)), "", ""));
    (switch, origin)
}

/// Requests without checks.
fn requests(origin: &Origin) -> usize {
    origin.seen().iter().filter(|seen| seen.target != "/healthz").count()
}

/// How often `message` was logged of the server at `address`.
fn logged(gateway: &Gateway, message: &str, address: SocketAddr) -> usize {
    let server = format!("http://{address}");
    let says = |line: &&Value| line["server"] == server && line.to_string().contains(message);
    gateway.log().iter().filter(says).count()
}

#[test]
fn a_server_whose_checks_fail_gets_nothing_until_they_pass() {
    let (good, (switch, sick)) = (Origin::start(), switched(503));
    let health = json!({"health": {"path": "/healthz", "every": "500ms", "up": 2, "down": 2}});
    let gateway = before(&[&good, &sick], health);
    await_that("the sick one is down", || logged(&gateway, "server is down", sick.address) == 1);
    let before = requests(&sick);
    assert!((0..20).all(|_| ask(&gateway) == 200));
    assert_eq!(requests(&sick), before);
    let check = sick.seen().into_iter().find(|seen| seen.target == "/healthz").unwrap();
    assert_eq!((check.method.as_str(), check.header("user-agent")), ("GET", Some("portcullis-health")));
    assert_eq!(check.header("host"), Some(sick.address.to_string().as_str()));
    assert!(check.violations.is_empty(), "{check:?}");
    switch.store(204, Ordering::Relaxed);
    await_that("it is back", || logged(&gateway, "server is back", sick.address) == 1);
    await_that("it gets requests", || ask(&gateway) == 204);
    assert_eq!(logged(&gateway, "server is down", sick.address), 1, "said once");
}

#[test]
fn when_no_server_is_up_the_answer_is_503_with_retry_after() {
    let ((switch, one), (_keep, other)) = (switched(503), switched(500));
    let health = json!({"health": {"path": "/healthz", "every": "100ms", "up": 1, "down": 1}});
    let gateway = before(&[&one, &other], health);
    let is_down = |origin: &Origin| logged(&gateway, "server is down", origin.address) > 0;
    await_that("all are down", || is_down(&one) && is_down(&other));
    let answer = get("/public/a").send(gateway.public);
    assert_eq!((answer.status, answer.code()), (503, "unavailable"), "{answer:?}");
    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds));
    switch.store(200, Ordering::Relaxed);
    await_that("one is back", || ask(&gateway) == 200);
}

#[test]
fn a_single_server_that_is_gone_is_found_by_its_port() {
    let nobody = free_address();
    let upstream = json!({"servers": [format!("http://{nobody}")], "health": {"every": "100ms"}});
    let gateway = Setup::new(nobody).set("upstreams.app", upstream).start();
    await_that("it is down", || ask(&gateway) == 503);
    let listener = std::net::TcpListener::bind(nobody).unwrap();
    await_that("it is back", || logged(&gateway, "server is back", nobody) == 1);
    drop(listener);
}

#[test]
fn a_dead_server_fails_no_request_and_is_soon_left_alone() {
    let good = Origin::start();
    let nobody = free_address();
    let servers = json!([format!("http://{}", good.address), format!("http://{nobody}")]);
    let gateway =
        Setup::new(good.address).set("server.workers", json!(1)).set("upstreams.app.servers", servers).start();
    assert!((0..40).all(|_| ask(&gateway) == 200));
    await_that("it is put out", || logged(&gateway, "server is skipped", nobody) > 0);
    // It comes to life: after its time out, one request is its trial, and then it has its share.
    let late = std::net::TcpListener::bind(nobody).unwrap();
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        for mut stream in late.incoming().flatten() {
            std::thread::spawn(move || {
                while stream.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {
                    let _ = stream.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n");
                }
            });
        }
    });
    await_that("it is back", || ask(&gateway) == 202 && logged(&gateway, "server is back", nobody) == 1);
    let share = (0..20).filter(|_| ask(&gateway) == 202).count();
    assert_eq!(share, 10);
}

#[test]
fn a_server_that_answers_503_is_passed_over() {
    let (good, (_switch, sick)) = (Origin::start(), switched(503));
    let gateway = before(&[&good, &sick], json!({}));
    let statuses: Vec<_> = (0..10).map(|_| ask(&gateway)).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 503).count(), 5, "{statuses:?}");
    await_that("it is put out", || logged(&gateway, "server is skipped", sick.address) == 1);
    // Alone it would stay.
    let (_switch, alone) = switched(503);
    let gateway = before(&[&alone], json!({}));
    assert!((0..10).all(|_| ask(&gateway) == 503));
    assert_eq!((alone.count(), logged(&gateway, "server is skipped", alone.address)), (10, 0));
}

#[test]
fn a_server_that_is_too_slow_is_passed_over() {
    let slow = Origin::scripted(|exchange| {
        exchange.is_closed_within(Duration::from_secs(20));
    });
    let good = Origin::start();
    let gateway = before(&[&slow, &good], json!({"timeouts": {"response": "250ms"}}));
    let statuses: Vec<_> = (0..10).map(|_| ask(&gateway)).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 504).count(), 5, "{statuses:?}");
    let begun = Instant::now();
    let passed = (0..10).filter(|_| ask(&gateway) == 200).count();
    // One may have been its trial, a second later.
    assert!(passed >= 9, "{passed} in {:?}", begun.elapsed());
}

#[test]
fn one_subject_stays_with_one_server() {
    let origins = [Origin::start(), Origin::start(), Origin::start()];
    let gateway = before(&origins.each_ref(), json!({"balance": {"consistent": "subject"}}));
    let server_of = |n: usize| {
        let before = origins.each_ref().map(Origin::count);
        assert_eq!(gateway.try_token(&jwt::access(&format!("user{n}"))), 200);
        origins.iter().zip(before).position(|(origin, before)| origin.count() > before).unwrap()
    };
    // So many that chance leaves no server without any.
    let first: Vec<_> = (0..80).map(server_of).collect();
    let again: Vec<_> = (0..80).map(server_of).collect();
    assert_eq!(first, again, "the subject decides, not the token");
    assert!((0..3).all(|server| first.contains(&server)), "{first:?}");
}

#[test]
fn least_connections_leaves_a_busy_server_alone() {
    let release = Arc::new(AtomicBool::new(false));
    let held = Arc::clone(&release);
    let busy = Origin::scripted(move |exchange: &mut Exchange<'_>| {
        exchange.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        await_that("the test releases it", || held.load(Ordering::Relaxed));
        exchange.write(b"0\r\n\r\n");
    });
    let idle = Origin::start();
    let gateway = before(&[&busy, &idle], json!({"balance": "least_connections"}));
    let public = gateway.public;
    // A body on its way counts as in flight.
    let waiting = std::thread::spawn(move || while get("/public/a").send(public).header("content-length").is_some() {});
    busy.await_count(1);
    assert!((0..10).all(|_| ask(&gateway) == 200));
    assert_eq!(busy.count(), 1);
    release.store(true, Ordering::Relaxed);
    waiting.join().unwrap();
    await_that("it gets its share again", || ask(&gateway) == 200 && busy.count() > 1);
}

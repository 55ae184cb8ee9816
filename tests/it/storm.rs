//! A storm of logins: refused in time instead of queued without end, and proxied requests do not feel it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Gateway, PASSWORD, Setup, credentials, holds_within, said};
use crate::origin::Origin;
use crate::wire::{Connection, Response, get, post};

const LOGINS: usize = 200;

/// Registers `count` accounts, each from an address of its own.
fn register_all(gateway: &Gateway, count: usize) {
    for number in 0..count {
        let registration = post("/registration").header("X-Forwarded-For", &format!("203.0.113.{number}"));
        let answer = registration.json(&credentials(&format!("user-{number}"), PASSWORD)).send(gateway.public);
        assert_eq!(answer.status, 201, "{answer:?}");
    }
}

#[test]
fn two_hundred_right_logins_at_once() {
    let origin = Origin::start();
    // The default limits; each client has an account of its own, and comes from an address that is new to that.
    let gateway = Setup::new(origin.address)
        .set("server.trusted_proxies", json!(["127.0.0.1"]))
        .set("identity.attempts", json!({"per_account": "5/15m", "per_address": "50/5m"}))
        .start();
    register_all(&gateway, LOGINS);
    let token = gateway.register("alice").access;
    let over = AtomicBool::new(false);
    let (mut slowest, mut proxied) = (Duration::ZERO, 0);
    let answers: Vec<(Response, Duration)> = std::thread::scope(|scope| {
        let (gateway, over) = (&gateway, &over);
        let storm = scope.spawn(move || {
            let log_in = |number: usize| {
                let begin = Instant::now();
                let address = format!("198.51.100.{number}");
                let login = post("/login").header("X-Forwarded-For", &address);
                let answer = login.json(&credentials(&format!("user-{number}"), PASSWORD)).send(gateway.public);
                (answer, begin.elapsed())
            };
            let answers = std::thread::scope(|scope| {
                let logins: Vec<_> = (0..LOGINS).map(|number| scope.spawn(move || log_in(number))).collect();
                logins.into_iter().map(|login| login.join().unwrap()).collect()
            });
            over.store(true, Ordering::Relaxed);
            answers
        });
        let mut connection = Connection::open(gateway.public);
        while !over.load(Ordering::Relaxed) && !storm.is_finished() {
            let begin = Instant::now();
            let answer = get("/secret").bearer(&token).send_on(&mut connection, gateway.public).unwrap();
            assert_eq!(answer.status, 200, "a proxied request failed: {answer:?}");
            slowest = slowest.max(begin.elapsed());
            proxied += 1;
        }
        storm.join().unwrap()
    });
    let number = |status: u16| answers.iter().filter(|(answer, _)| answer.status == status).count();
    let longest = answers.iter().map(|(_, took)| *took).max().unwrap();
    println!("{} times 200, {} times 503, the longest wait {longest:?}", number(200), number(503));
    println!("{proxied} proxied requests beside them, the slowest took {slowest:?}");
    assert_eq!(number(200) + number(503), LOGINS);
    assert!(number(200) > 0 && number(503) > 0, "the queue has no bound, or no room");
    for (answer, _) in answers.iter().filter(|(answer, _)| answer.status == 503) {
        assert_eq!(answer.code(), "unavailable", "{answer:?}");
        let wait: u64 = answer.header("retry-after").and_then(|wait| wait.parse().ok()).expect("Retry-After");
        assert!((1..=60).contains(&wait), "{wait}");
    }
    assert!(longest < Duration::from_secs(5), "{longest:?}");
    assert!(proxied > 10 && slowest < Duration::from_secs(2), "{proxied}, {slowest:?}");
    assert_eq!(gateway.try_token(&gateway.login("alice").access), 200, "and all is well afterwards");
}

#[test]
fn right_logins_to_one_account_are_not_refused_for_being_many_at_once() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address)
        .set("identity.attempts", json!({"per_account": "5/15m", "per_address": "50/5m"}))
        .start();
    gateway.register("alice");
    let answers: Vec<Response> = std::thread::scope(|scope| {
        let gateway = &gateway;
        let log_in = || post("/login").json(&credentials("alice", PASSWORD)).send(gateway.public);
        let logins: Vec<_> = (0..40).map(|_| scope.spawn(log_in)).collect();
        logins.into_iter().map(|login| login.join().unwrap()).collect()
    });
    let number = |status: u16| answers.iter().filter(|answer| answer.status == status).count();
    // Thirty a minute; those that are let in at the same moment may be a few more.
    println!("{} times 200, {} times 429, {} times 503", number(200), number(429), number(503));
    assert!((30..=36).contains(&number(200)), "{} of 40", number(200));
    assert_eq!(number(200) + number(429) + number(503), 40);
    let late = answers.iter().find(|answer| answer.status == 429).unwrap();
    let wait: u64 = late.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
}

#[test]
fn a_costly_imported_hash_keeps_nobody_waiting() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address)
        .set("server.trusted_proxies", json!(["127.0.0.1"]))
        .set("identity.attempts", json!({"per_account": "off", "per_address": "1000000/5m"}))
        .start();
    gateway.register("alice");
    // As much as any that is taken, and more than is taken.
    let file = gateway.folder.path().join("app.db");
    let application = rusqlite::Connection::open(&file).unwrap();
    application.execute_batch("CREATE TABLE users (username, password)").unwrap();
    for (name, iterations) in [("bob", 600_000), ("carol", 2_000_000)] {
        let hash = format!("pbkdf2:sha512:{iterations}$salt${}", "0".repeat(128));
        application.execute("INSERT INTO users VALUES (?1, ?2)", [name, hash.as_str()]).unwrap();
    }
    let done = gateway.cli(&["import", "flask", file.to_str().unwrap()], "");
    let told = said(&done);
    let line = told.lines().find(|line| line.starts_with(r#"not taken over: "carol": "#));
    assert!(line.is_some_and(|line| line.contains("costs too much") && line.contains("SHA-512 600000")), "{told}");
    assert!(told.contains("users: 1 taken over") && told.contains("1 not usable"), "{told}");
    // Each of them at an address of its own, and more than the queue takes.
    let storm = 40 * std::thread::available_parallelism().map_or(1, usize::from);
    let log_in = |number: usize, name: &str, password: &str| {
        let address = format!("198.51.{}.{}", 100 + number / 200, number % 200);
        let login = post("/login").header("X-Forwarded-For", &address).json(&credentials(name, password));
        login.send(gateway.public)
    };
    let answers: Vec<_> = std::thread::scope(|scope| {
        let log_in = &log_in;
        let logins: Vec<_> = (0..storm).map(|n| scope.spawn(move || log_in(n, "nobody", "wrong one"))).collect();
        logins.into_iter().map(|login| login.join().unwrap()).collect()
    });
    let number = |wanted: u16| answers.iter().filter(|answer| answer.status == wanted).count();
    let (judged, busy) = (number(401), number(503));
    assert!(judged > 0 && busy > 0 && judged + busy == storm, "{judged} judged, {busy} busy of {storm}");
    assert!(answers.iter().all(|answer| answer.status != 503 || answer.header("retry-after").is_some()));
    assert_eq!(log_in(storm, "alice", PASSWORD).status, 200, "and all is well afterwards");
    // What was never looked at does not count.
    let database = rusqlite::Connection::open(gateway.folder.path().join("portcullis.db")).unwrap();
    let counted = || -> i64 {
        database.query_row("SELECT sum(failures) FROM attempt WHERE account = x''", [], |row| row.get(0)).unwrap()
    };
    // The registration is one.
    let settled = holds_within(Duration::from_secs(5), || usize::try_from(counted()) == Ok(judged + 1));
    assert!(settled, "{} counted, {judged} judged", counted());
}

//! A storm of logins: refused in time instead of queued without end, and proxied requests do not feel it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{PASSWORD, Setup, credentials, holds_within, said};
use crate::origin::Origin;
use crate::wire::{Connection, get, post};

const LOGINS: usize = 200;

#[test]
fn two_hundred_logins_at_once() {
    let origin = Origin::start();
    // All of them are at one address, which is to have the whole queue here.
    let gateway = Setup::new(origin.address)
        .set("identity.attempts", json!({"per_account": "off", "per_address": "off"}))
        .start();
    let token = gateway.register("alice").access;
    let answers = Mutex::new(Vec::new());
    let over = AtomicBool::new(false);
    let mut slowest = Duration::ZERO;
    let mut proxied = 0;
    std::thread::scope(|scope| {
        let logins: Vec<_> = (0..LOGINS)
            .map(|n| {
                let (answers, gateway) = (&answers, &gateway);
                scope.spawn(move || {
                    // Right, wrong and unknown alike.
                    let (name, password) = [("alice", PASSWORD), ("alice", "wrong one"), ("nobody", PASSWORD)][n % 3];
                    let answer = post("/login").json(&credentials(name, password)).try_send(gateway.public);
                    answers.lock().unwrap().push((n % 3, answer));
                })
            })
            .collect();
        let over = &over;
        scope.spawn(move || {
            for login in logins {
                let _ = login.join();
            }
            over.store(true, Ordering::Relaxed);
        });
        let mut connection = Connection::open(gateway.public);
        while !over.load(Ordering::Relaxed) {
            let begin = Instant::now();
            let answer = get("/secret").bearer(&token).send_on(&mut connection, gateway.public).unwrap();
            assert_eq!(answer.status, 200, "a proxied request failed: {answer:?}");
            slowest = slowest.max(begin.elapsed());
            proxied += 1;
        }
    });
    let answers = answers.into_inner().unwrap();
    assert_eq!(answers.len(), LOGINS);
    let mut refused = 0;
    for (kind, answer) in answers {
        let answer = answer.expect("every login is answered");
        match answer.status {
            503 => {
                assert_eq!(answer.code(), "unavailable", "{answer:?}");
                let wait: u64 = answer.header("retry-after").and_then(|wait| wait.parse().ok()).expect("Retry-After");
                assert!((1..=60).contains(&wait), "{wait}");
                refused += 1;
            }
            200 => assert_eq!(kind, 0, "{answer:?}"),
            401 => assert_eq!((answer.code(), kind > 0), ("wrong_credentials", true), "{answer:?}"),
            _ => panic!("{answer:?}"),
        }
    }
    assert!(refused > 0, "none was refused: the queue has no bound");
    assert!(refused < LOGINS, "some got through");
    assert!(
        proxied > 10 && slowest < Duration::from_secs(2),
        "{proxied} proxied requests, the slowest took {slowest:?}"
    );
    assert_eq!(gateway.try_token(&gateway.login("alice").access), 200, "and all is well afterwards");
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

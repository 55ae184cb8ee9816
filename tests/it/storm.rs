//! A storm of logins: refused in time instead of queued without end, and proxied requests do not feel it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{PASSWORD, Setup, credentials};
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

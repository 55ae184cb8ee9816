//! What was logged out stays out: at once, after a restart, after `kill -9`, and from another process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Dice, Gateway, Setup, holds_within, said};
use crate::jwt;
use crate::origin::Origin;
use crate::wire::{Connection, get, post};

#[track_caller]
fn log_out(gateway: &Gateway, token: &str) {
    let answer = post("/logout/access").bearer(token).send(gateway.public);
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn a_logout_is_refused_at_once_on_every_kept_connection() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).set("server.workers", json!(4)).start();
    let token = jwt::access("alice");
    let ask = get("/secret").bearer(&token);
    let mut kept: Vec<_> = (0..12).map(|_| Connection::open(gateway.public)).collect();
    for connection in &mut kept {
        // Warm: the verdict on this token is remembered by every worker.
        assert_eq!(ask.send_on(connection, gateway.public).unwrap().status, 200);
    }
    log_out(&gateway, &token);
    for connection in &mut kept {
        let answer = ask.send_on(connection, gateway.public).unwrap();
        assert_eq!((answer.status, answer.code()), (401, "token_revoked"));
    }
    assert_eq!(gateway.try_token(&jwt::access("alice")), 200, "other tokens of the same user live");
}

#[test]
fn a_restart_forgets_nothing() {
    let origin = Origin::start();
    let setup = Setup::new(origin.address);
    let mut gateway = setup.clone().start();
    let tokens = gateway.register("alice");
    log_out(&gateway, &tokens.access);
    assert_eq!(post("/logout/refresh").bearer(&tokens.refresh).send(gateway.public).status, 200);
    gateway.signal("TERM");
    gateway.await_end();
    let again = setup.start_in(Arc::clone(&gateway.folder));
    assert_eq!(get("/secret").bearer(&tokens.access).send(again.public).code(), "token_revoked");
    assert_eq!(post("/token/refresh").bearer(&tokens.refresh).send(again.public).code(), "token_revoked");
    assert_eq!(again.try_token(&again.login("alice").access), 200);
}

/// Logs fresh tokens out on four connections until the gateway dies, and gives those that were answered 200.
fn logout_load(gateway: &mut Gateway, lifetime: Duration) -> Vec<String> {
    let answered = Mutex::new(Vec::new());
    let dead = AtomicBool::new(false);
    let address = gateway.public;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let Ok(mut connection) = Connection::try_open(address) else { return };
                while !dead.load(Ordering::Relaxed) {
                    let token = jwt::access("alice");
                    match post("/logout/access").bearer(&token).send_on(&mut connection, address) {
                        Ok(answer) if answer.status == 200 => answered.lock().unwrap().push(token),
                        Ok(answer) => panic!("a logout was answered {answer:?}"),
                        Err(_) => return,
                    }
                }
            });
        }
        let begin = Instant::now();
        holds_within(Duration::from_secs(5), || !answered.lock().unwrap().is_empty() && begin.elapsed() >= lifetime);
        gateway.kill();
        dead.store(true, Ordering::Relaxed);
    });
    answered.into_inner().unwrap()
}

#[track_caller]
fn assert_revoked(gateway: &Gateway, tokens: &[String]) {
    let mut connection = Connection::open(gateway.public);
    for token in tokens {
        let answer = get("/secret").bearer(token).send_on(&mut connection, gateway.public).unwrap();
        assert_eq!((answer.status, answer.code()), (401, "token_revoked"), "lost: {token}");
    }
}

#[test]
fn kill_9_loses_no_logout_that_was_answered() {
    const KILLS: usize = 50;
    let origin = Origin::start();
    let setup = Setup::new(origin.address);
    let mut dice = Dice::new();
    let mut gateway = setup.clone().start();
    let mut answered: Vec<String> = Vec::new();
    for round in 0..KILLS {
        let lifetime = Duration::from_micros(dice.below(40_000));
        let new = logout_load(&mut gateway, lifetime);
        assert!(!new.is_empty(), "round {round}: nothing was logged out");
        gateway = setup.clone().start_in(Arc::clone(&gateway.folder));
        // The latest are the ones in danger; all are asked again at the end.
        assert_revoked(&gateway, &new[new.len().saturating_sub(60)..]);
        answered.extend(new);
    }
    assert_revoked(&gateway, &answered);
    assert_eq!(gateway.try_token(&jwt::access("alice")), 200);
}

#[test]
fn another_process_is_heard_within_a_second() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    for _ in 0..3 {
        let token = jwt::access("alice");
        assert_eq!(gateway.try_token(&token), 200);
        let done = gateway.cli(&["tokens", "revoke", &token], "");
        assert!(done.status.success(), "{}", said(&done));
        assert!(!said(&done).contains(&token), "the token is not repeated");
        let heard = holds_within(Duration::from_secs(1), || gateway.try_token(&token) == 401);
        assert!(heard, "not heard within a second");
    }
}

#[test]
fn two_gateways_on_one_database_hear_each_other() {
    let origin = Origin::start();
    let setup = Setup::new(origin.address);
    let first = setup.clone().start();
    let second = setup.start_in(Arc::clone(&first.folder));
    let tokens = first.register("alice");
    assert_eq!(second.try_token(&tokens.access), 200);
    log_out(&first, &tokens.access);
    let heard = holds_within(Duration::from_secs(1), || second.try_token(&tokens.access) == 401);
    assert!(heard, "not heard within a second");
    assert_eq!(post("/logout/refresh").bearer(&tokens.refresh).send(second.public).status, 200);
    assert_eq!(post("/token/refresh").bearer(&tokens.refresh).send(second.public).code(), "token_revoked");
}

#[test]
fn equal_ids_of_both_types_are_told_by_their_token_id_alone() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    let id = format!("{}-x", jwt::fresh_id());
    let token = |subject: &str| jwt::token_with(subject, &json!({"jti": id}));
    log_out(&gateway, &token("alice"));
    assert_eq!(gateway.try_token(&token("bob")), 401, "a jti is one token, whoever carries it");
    assert_eq!(gateway.try_token(&jwt::token_with("alice", &json!({"jti": id.to_uppercase()}))), 200, "exact");
}

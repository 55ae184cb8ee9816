//! Guessing is slow: who guesses has to wait, and whom he guesses about need not.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Gateway, PASSWORD, Setup, await_that, credentials, holds_within, said};
use crate::origin::Origin;
use crate::reload::reload;
use crate::wire::{Connection, Request, Response, get, post};

/// Where alice has logged in before, and where someone guesses.
const HOME: &str = "192.0.2.1";
const ELSEWHERE: &str = "198.51.100.1";

const WRONG: &str = "wrong horse battery";

/// Behind a proxy that tells who asks, with cheap hashes.
fn setup(origin: &Origin, attempts: Value) -> Setup {
    Setup::new(origin.address)
        .set("server.trusted_proxies", json!(["127.0.0.1"]))
        .set("identity.password", json!({"argon2": {"memory": "64KiB", "iterations": 1}}))
        .set("identity.attempts", attempts)
}

fn ask(gateway: &Gateway, endpoint: &str, address: &str, (name, password): (&str, &str)) -> Response {
    post(endpoint).header("X-Forwarded-For", address).json(&credentials(name, password)).send(gateway.public)
}

fn log_in(gateway: &Gateway, address: &str, name: &str, password: &str) -> Response {
    ask(gateway, "/login", address, (name, password))
}

fn register(gateway: &Gateway, address: &str, name: &str) -> Response {
    ask(gateway, "/registration", address, (name, PASSWORD))
}

/// How long a refused attempt has to wait; `None` for one that was judged.
#[track_caller]
fn wait(answer: &Response) -> Option<u64> {
    if answer.status != 429 {
        return None;
    }
    assert_eq!(answer.code(), "too_many_requests", "{answer:?}");
    let seconds = answer.header("retry-after").expect("no Retry-After").parse().unwrap();
    assert!((1..=300).contains(&seconds), "{answer:?}");
    assert!(answer.message().starts_with("Too many requests. Try again in "), "{answer:?}");
    Some(seconds)
}

/// Guesses wrong `times` times, each of which is judged.
#[track_caller]
fn guess(gateway: &Gateway, address: &str, name: &str, times: usize) {
    for n in 0..times {
        let answer = log_in(gateway, address, name, WRONG);
        assert_eq!((answer.status, answer.code()), (401, "wrong_credentials"), "guess {n}: {answer:?}");
    }
}

/// Goes on guessing until a wait is as long as this: long enough for what is to be seen meanwhile on a busy machine. The
/// waits that came of it.
#[track_caller]
fn provoke(gateway: &Gateway, address: &str, name: &str, least: u64) -> Vec<u64> {
    let mut waits = Vec::new();
    await_that("the wait is as long", || {
        let Some(left) = wait(&log_in(gateway, address, name, WRONG)) else { return false };
        // The same one, a second later, is shorter.
        if waits.last().is_none_or(|last| left > *last) {
            waits.push(left);
        }
        left >= least
    });
    waits
}

fn refused(gateway: &Gateway, reason: &str) -> u64 {
    let text = get("/metrics").send(gateway.admin).text();
    let begin = format!("portcullis_attempts_refused_total{{reason=\"{reason}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&begin));
    line.unwrap_or_else(|| panic!("no {begin}in\n{text}")).parse().unwrap()
}

#[test]
fn who_guesses_waits_and_the_owner_does_not() {
    let origin = Origin::start();
    let gateway = setup(&origin, json!({})).start();
    assert_eq!(register(&gateway, HOME, "alice").status, 201);
    guess(&gateway, ELSEWHERE, "alice", 5);
    // Each failure more doubles the wait.
    let waits = provoke(&gateway, ELSEWHERE, "alice", 8);
    assert!(waits.iter().all(|wait| [1, 2, 4, 8].contains(wait)), "{waits:?}");
    let before = refused(&gateway, "account");
    assert!(before > 3);
    // Right or wrong, from here or there: the answer tells nothing.
    for (address, password) in [(ELSEWHERE, WRONG), (ELSEWHERE, PASSWORD), ("203.0.113.7", PASSWORD)] {
        let answer = log_in(&gateway, address, "alice", password);
        assert!(wait(&answer).is_some(), "{address}: {answer:?}");
    }
    assert_eq!((refused(&gateway, "account"), refused(&gateway, "address")), (before + 3, 0));
    assert_eq!(log_in(&gateway, ELSEWHERE, "bob", WRONG).status, 401, "another name");
    assert_eq!(log_in(&gateway, HOME, "alice", PASSWORD).status, 200, "where he logged in before");
    assert!(wait(&log_in(&gateway, ELSEWHERE, "alice", PASSWORD)).is_some(), "his success frees nobody else");
    // Known addresses have a counter of their own, and are no way round.
    guess(&gateway, HOME, "alice", 5);
    provoke(&gateway, HOME, "alice", 1);
    await_that("the owner is let in again", || log_in(&gateway, HOME, "alice", PASSWORD).status == 200);
    assert_eq!(log_in(&gateway, HOME, "alice", PASSWORD).status, 200);
}

#[test]
fn an_unknown_name_is_counted_alike() {
    let origin = Origin::start();
    for style in ["standard", "flask"] {
        let gateway = setup(&origin, json!({})).set("identity.responses", json!(style)).start();
        assert!(matches!(register(&gateway, HOME, "alice").status, 200 | 201));
        let long = "x".repeat(5000);
        let failure = if style == "flask" { 200 } else { 401 };
        for name in ["alice", "nobody", " bad name", &long] {
            for n in 0..5 {
                let answer = log_in(&gateway, &format!("198.51.100.{n}"), name, WRONG);
                assert_eq!(answer.status, failure, "{style} {name:.20} {n}: {answer:?}");
            }
            let answer = (0..3).map(|_| log_in(&gateway, ELSEWHERE, name, WRONG)).find(|answer| answer.status == 429);
            let answer = answer.unwrap_or_else(|| panic!("{style} {name:.20} is not counted"));
            assert!(answer.header("retry-after").is_some() && answer.json()["message"].is_string(), "{answer:?}");
        }
        assert_eq!(log_in(&gateway, HOME, "alice", PASSWORD).status, 200);
    }
}

#[test]
fn an_address_is_counted_over_all_names() {
    let origin = Origin::start();
    let gateway = setup(&origin, json!({"per_address": "10/5m"})).start();
    assert_eq!(register(&gateway, HOME, "alice").status, 201);
    // A household of IPv6 has 2^64 addresses; IPv4 has two spellings; `who` may claim what he likes to the left.
    for (what, address) in [
        ("IPv4", &(|n: usize| ["198.51.100.1", "::ffff:198.51.100.1"][n % 2].to_owned()) as &dyn Fn(usize) -> String),
        ("IPv6", &|n| format!("2001:db8:0:1:{n:x}::{n:x}")),
        ("behind a claim", &|n| format!("192.0.2.{n}, 198.51.100.3")),
    ] {
        for n in 0..10 {
            assert_eq!(log_in(&gateway, &address(n), &format!("user {n}"), WRONG).status, 401, "{what} {n}");
        }
        provoke(&gateway, &address(11), what, 4);
        let answer = log_in(&gateway, &address(12), "alice", PASSWORD);
        assert!(wait(&answer).is_some(), "{what}: {answer:?}");
        assert!(wait(&register(&gateway, &address(12), "eve")).is_some(), "{what}");
    }
    assert!(refused(&gateway, "address") >= 6 && refused(&gateway, "account") == 0);
    assert_eq!(log_in(&gateway, "2001:db8:0:2::1", "alice", PASSWORD).status, 200, "next door");
    // Where the address is known to the account, others behind it delay nothing.
    for n in 0..10 {
        log_in(&gateway, HOME, &format!("other {n}"), WRONG);
    }
    provoke(&gateway, HOME, "nobody", 4);
    assert_eq!(log_in(&gateway, HOME, "alice", PASSWORD).status, 200);
}

#[test]
fn registrations_count_and_successes_do_not() {
    let origin = Origin::start();
    let gateway = setup(&origin, json!({"per_account": "2/15m", "per_address": "5/5m"})).start();
    assert_eq!(register(&gateway, HOME, "alice").status, 201);
    for _ in 0..30 {
        assert_eq!(log_in(&gateway, HOME, "alice", PASSWORD).status, 200);
        assert_eq!(log_in(&gateway, ELSEWHERE, "alice", PASSWORD).status, 200);
    }
    let short = ask(&gateway, "/registration", HOME, ("bob", "short"));
    assert_eq!(short.code(), "weak_password", "what costs nothing counts nothing");
    for name in ["bob", "carol", "alice"] {
        assert!(matches!(register(&gateway, HOME, name).status, 201 | 409));
    }
    assert_eq!(log_in(&gateway, HOME, "nobody", WRONG).status, 401);
    let more = (0..3).map(|n| register(&gateway, HOME, &format!("user {n}"))).find(|answer| answer.status == 429);
    assert!(wait(&more.expect("registrations do not count")).is_some());
    assert_eq!(register(&gateway, ELSEWHERE, "dave").status, 201);
}

#[test]
fn of_many_guesses_at_once_no_more_are_judged() {
    let origin = Origin::start();
    let gateway = setup(&origin, json!({"per_address": "off"})).start();
    assert_eq!(register(&gateway, HOME, "alice").status, 201);
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let gateway = &gateway;
        let guesses: Vec<_> = (0..60)
            .map(|n| scope.spawn(move || log_in(gateway, &format!("198.51.100.{n}"), "alice", WRONG).status))
            .collect();
        guesses.into_iter().map(|guess| guess.join().unwrap()).collect()
    });
    let judged = statuses.iter().filter(|status| **status == 401).count();
    assert!(statuses.iter().all(|status| matches!(status, 401 | 429)), "{statuses:?}");
    // One more when the first wait was over before the last of them came.
    assert!((5..=6).contains(&judged), "{judged} of 60 were judged");
}

#[test]
fn of_many_right_logins_at_once_none_is_refused() {
    let origin = Origin::start();
    let gateway = setup(&origin, json!({"per_account": "2/15m"})).start();
    assert_eq!(register(&gateway, HOME, "alice").status, 201);
    // Thirty a minute may be completed from elsewhere, and as many from where the account is known by then.
    for round in 0..5 {
        let statuses: Vec<u16> = std::thread::scope(|scope| {
            let gateway = &gateway;
            let logins: Vec<_> =
                (0..5).map(|_| scope.spawn(move || log_in(gateway, ELSEWHERE, "alice", PASSWORD).status)).collect();
            logins.into_iter().map(|login| login.join().unwrap()).collect()
        });
        assert_eq!(statuses, [200; 5], "round {round}");
    }
    assert_eq!(refused(&gateway, "account"), 0);
    // Among wrong ones too, while those are within what is free.
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let gateway = &gateway;
        let log_in = |n| log_in(gateway, "203.0.113.1", "alice", if n == 5 { WRONG } else { PASSWORD }).status;
        let logins: Vec<_> = (0..10).map(|n| scope.spawn(move || log_in(n))).collect();
        logins.into_iter().map(|login| login.join().unwrap()).collect()
    });
    assert_eq!(statuses, [200, 200, 200, 200, 200, 401, 200, 200, 200, 200]);
}

fn login(password: &str) -> Request {
    post("/login").header("X-Forwarded-For", ELSEWHERE).json(&credentials("alice", password))
}

/// Logs in as alice, and hangs up when there is no answer within `patience`. Whether there was none.
fn hang_up(gateway: &Gateway, password: &str, patience: Duration) -> bool {
    let mut connection = Connection::open(gateway.public);
    connection.send(&login(password).bytes(gateway.public, "")).unwrap();
    connection.patience(patience);
    connection.receive("POST").is_err()
}

/// What is counted against accounts.
fn failures(folder: &Path) -> i64 {
    let database = rusqlite::Connection::open(folder.join("portcullis.db")).unwrap();
    let sql = "SELECT coalesce(sum(failures), 0) FROM attempt WHERE length(account) = 16";
    database.query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn who_hangs_up_soon_leaves_nothing_behind() {
    let origin = Origin::start();
    let gateway = setup(&origin, json!({"per_account": "1/15m", "per_address": "off"})).start();
    assert_eq!(register(&gateway, HOME, "alice").status, 201);
    for n in 0..200 {
        let mut connection = Connection::open(gateway.public);
        connection.send(&login(PASSWORD).bytes(gateway.public, "")).unwrap();
        // Before it is counted, while it is, and while it is hashed.
        std::thread::sleep(Duration::from_micros(n % 40 * 50));
    }
    await_that("a right password is no failure", || failures(gateway.folder.path()) == 0);
    assert_eq!(log_in(&gateway, ELSEWHERE, "alice", PASSWORD).status, 200);
}

#[test]
fn who_hangs_up_is_judged_all_the_same() {
    let origin = Origin::start();
    let slow = setup(&origin, json!({"per_account": "1/15m"}))
        .set("identity.password", json!({"argon2": {"memory": "64MiB", "iterations": 8}}));
    let mut gateway = slow.clone().start();
    let folder = Arc::clone(&gateway.folder);
    assert_eq!(register(&gateway, HOME, "alice").status, 201);
    let begun = Duration::from_millis(50);
    assert!(hang_up(&gateway, PASSWORD, begun), "the hash was too fast");
    await_that("a right password is no failure", || failures(folder.path()) == 0);
    assert!(hang_up(&gateway, PASSWORD, begun));
    gateway.signal("TERM");
    gateway.await_end();
    assert_eq!(failures(folder.path()), 0, "what it was nobody knows");
    let gateway = slow.start_in(Arc::clone(&folder));
    assert_eq!(log_in(&gateway, ELSEWHERE, "alice", PASSWORD).status, 200);
    // A hash that was not begun when he left is not computed.
    await_that("hanging up is no way round", || {
        hang_up(&gateway, WRONG, begun);
        !holds_within(Duration::from_secs(1), || failures(folder.path()) == 0)
    });
}

#[test]
fn a_reload_does_not_forget_who_is_under_way() {
    let origin = Origin::start();
    let gateway = setup(&origin, json!({"per_account": "2/15m"}))
        .set("identity.password", json!({"argon2": {"memory": "64MiB", "iterations": 8}}))
        .start();
    assert_eq!(register(&gateway, HOME, "alice").status, 201);
    std::thread::scope(|scope| {
        let right = || log_in(&gateway, ELSEWHERE, "alice", PASSWORD).status;
        let logins = [(); 2].map(|()| scope.spawn(right));
        await_that("both are counted", || failures(gateway.folder.path()) == 2);
        reload(&gateway);
        assert_eq!(right(), 200, "those before the reload are waited for");
        assert_eq!(logins.map(|login| login.join().unwrap()), [200, 200]);
    });
}

#[test]
fn a_guess_that_was_begun_early_is_late() {
    let origin = Origin::start();
    let gateway = setup(&origin, json!({"per_address": "off"})).start();
    assert_eq!(register(&gateway, HOME, "alice").status, 201);
    let body = credentials("alice", PASSWORD).to_string();
    let (first, rest) = body.split_at(1);
    let mut held = Connection::open(gateway.public);
    let head = format!("POST /login HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {ELSEWHERE}\r\n");
    let head = format!("{head}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{first}", body.len());
    held.send(head.as_bytes()).unwrap();
    guess(&gateway, ELSEWHERE, "alice", 5);
    provoke(&gateway, ELSEWHERE, "alice", 4);
    held.send(rest.as_bytes()).unwrap();
    let answer = held.receive("POST").unwrap();
    assert!(wait(&answer).is_some(), "{answer:?}");
}

#[test]
fn counters_survive_a_crash_until_they_are_unlocked() {
    let origin = Origin::start();
    let attempts = json!({"per_account": "1/15m", "per_address": "8/5m"});
    let mut gateway = setup(&origin, attempts.clone()).start();
    assert_eq!(register(&gateway, HOME, "alice").status, 201);
    let judged = || log_in(&gateway, ELSEWHERE, "alice", WRONG).status == 401;
    for _ in 0..5 {
        await_that("the wait is over", judged);
    }
    gateway.kill();
    let gateway = setup(&origin, attempts).start_in(Arc::clone(&gateway.folder));
    let left = wait(&log_in(&gateway, ELSEWHERE, "alice", PASSWORD)).expect("forgotten");
    assert!((8..=16).contains(&left), "{left}");
    assert_eq!(log_in(&gateway, HOME, "alice", PASSWORD).status, 200, "who is known is still known");

    let unlock = |arguments: &[&str]| gateway.cli(&[&["users", "unlock"], arguments].concat(), "");
    assert_eq!(unlock(&[]).status.code(), Some(2), "a name or an address is needed");
    let done = unlock(&["nobody"]);
    assert!(done.status.success() && said(&done).contains("Nothing was counted"), "{}", said(&done));
    let done = unlock(&["alice"]);
    assert!(done.status.success() && said(&done).contains("User alice may try again at once"), "{}", said(&done));
    assert_eq!(log_in(&gateway, ELSEWHERE, "alice", PASSWORD).status, 200);

    for n in 0..8 {
        log_in(&gateway, ELSEWHERE, &format!("user {n}"), WRONG);
    }
    provoke(&gateway, ELSEWHERE, "nobody", 4);
    assert!(wait(&log_in(&gateway, ELSEWHERE, "carol", PASSWORD)).is_some());
    assert!(unlock(&["--address", ELSEWHERE]).status.success());
    assert_eq!(log_in(&gateway, ELSEWHERE, "carol", PASSWORD).status, 401);
    assert_eq!(unlock(&["--address", "nonsense"]).status.code(), Some(2));
}

#[test]
fn a_reload_changes_what_is_free() {
    let origin = Origin::start();
    let gateway = setup(&origin, json!({"per_account": "1/15m"})).start();
    assert_eq!(register(&gateway, HOME, "alice").status, 201);
    provoke(&gateway, ELSEWHERE, "alice", 16);
    let text = std::fs::read_to_string(&gateway.config).unwrap();
    std::fs::write(&gateway.config, text.replace("1/15m", "1000/15m")).unwrap();
    gateway.signal("HUP");
    // Sooner than the wait is over.
    let freed = || log_in(&gateway, ELSEWHERE, "alice", PASSWORD).status == 200;
    assert!(holds_within(Duration::from_secs(8), freed), "still waiting");
}

#[test]
fn two_gateways_count_together() {
    let origin = Origin::start();
    let one = setup(&origin, json!({})).start();
    let other = setup(&origin, json!({})).start_in(Arc::clone(&one.folder));
    assert_eq!(register(&one, HOME, "alice").status, 201);
    guess(&one, ELSEWHERE, "alice", 3);
    guess(&other, ELSEWHERE, "alice", 2);
    provoke(&one, ELSEWHERE, "alice", 4);
    assert!(wait(&log_in(&other, ELSEWHERE, "alice", PASSWORD)).is_some());
    assert_eq!(log_in(&other, HOME, "alice", PASSWORD).status, 200);
}

#[test]
fn what_is_off_does_not_count() {
    let origin = Origin::start();
    let gateway = setup(&origin, json!({"per_account": "off", "per_address": "off"})).start();
    assert_eq!(register(&gateway, HOME, "alice").status, 201);
    guess(&gateway, ELSEWHERE, "alice", 60);
    assert_eq!(log_in(&gateway, ELSEWHERE, "alice", PASSWORD).status, 200);
}

#[test]
fn a_guess_that_cannot_be_counted_is_not_judged() {
    let origin = Origin::start();
    let gateway = setup(&origin, json!({})).start();
    assert_eq!(register(&gateway, HOME, "alice").status, 201);
    let other = rusqlite::Connection::open(gateway.folder.path().join("portcullis.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    for (name, password) in [("alice", WRONG), ("alice", PASSWORD), ("nobody", WRONG)] {
        let answer = log_in(&gateway, HOME, name, password);
        assert_eq!((answer.status, answer.code()), (503, "unavailable"), "{name}: {answer:?}");
    }
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(log_in(&gateway, HOME, "alice", PASSWORD).status, 200);
}

#[test]
fn right_logins_whose_store_fails_meanwhile_do_not_count() {
    let origin = Origin::start();
    let gateway = setup(&origin, json!({"per_account": "2/15m"}))
        .set("identity.password", json!({"argon2": {"memory": "64MiB", "iterations": 12}}))
        .start();
    assert_eq!(register(&gateway, HOME, "alice").status, 201);
    let other = rusqlite::Connection::open(gateway.folder.path().join("portcullis.db")).unwrap();
    let statuses = std::thread::scope(|scope| {
        let logins = [(); 2].map(|()| scope.spawn(|| log_in(&gateway, ELSEWHERE, "alice", PASSWORD).status));
        await_that("both are counted", || failures(gateway.folder.path()) == 2);
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        logins.map(|login| login.join().unwrap())
    });
    // Without a store there is no session, unless the machine was slow in taking it away.
    assert!(statuses.iter().all(|status| matches!(status, 200 | 503)), "{statuses:?}");
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(log_in(&gateway, ELSEWHERE, "alice", PASSWORD).status, 200);
    await_that("nothing is left of it", || failures(gateway.folder.path()) == 0);
}

#[test]
fn a_registration_that_the_store_fails_does_not_count() {
    let origin = Origin::start();
    let gateway = setup(&origin, json!({"per_address": "3/5m"})).start();
    let other = rusqlite::Connection::open(gateway.folder.path().join("portcullis.db")).unwrap();
    other
        .execute_batch("CREATE TRIGGER bar BEFORE INSERT ON account BEGIN SELECT RAISE(ABORT, 'barred'); END")
        .unwrap();
    for n in 0..6 {
        let answer = register(&gateway, HOME, "alice");
        assert!(answer.status >= 500, "{n}: {answer:?}");
    }
    other.execute_batch("DROP TRIGGER bar").unwrap();
    assert_eq!(register(&gateway, HOME, "alice").status, 201);
}

#[test]
fn a_login_no_longer_counts_while_its_hash_is_renewed() {
    let origin = Origin::start();
    let mut gateway = setup(&origin, json!({})).start();
    assert_eq!(register(&gateway, HOME, "alice").status, 201);
    gateway.kill();
    let slow = json!({"argon2": {"memory": "64MiB", "iterations": 20}});
    let gateway = setup(&origin, json!({})).set("identity.password", slow).start_in(Arc::clone(&gateway.folder));
    let database = rusqlite::Connection::open(gateway.folder.path().join("portcullis.db")).unwrap();
    let ask = |sql: &str| -> i64 { database.query_row(sql, [], |row| row.get(0)).unwrap() };
    std::thread::scope(|scope| {
        let login = scope.spawn(|| log_in(&gateway, ELSEWHERE, "alice", PASSWORD).status);
        await_that("he is welcome", || ask("SELECT count(*) FROM known_address WHERE address = x'c6336401'") == 1);
        assert_eq!(ask("SELECT count(*) FROM account WHERE CAST(hash AS TEXT) LIKE '%m=64,%'"), 1, "renewed first");
        assert_eq!(login.join().unwrap(), 200);
    });
    assert_eq!(ask("SELECT count(*) FROM account WHERE CAST(hash AS TEXT) LIKE '%m=65536,%'"), 1);
}

#[test]
fn one_address_leaves_room_in_the_queue() {
    let origin = Origin::start();
    // Hashes that take a while, so that the queue is felt.
    let gateway = setup(&origin, json!({"per_account": "off", "per_address": "1000000/5m"}))
        .set("identity.password", json!({"argon2": {"memory": "19MiB", "iterations": 6}}))
        .start();
    assert_eq!(register(&gateway, HOME, "alice").status, 201);
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let gateway = &gateway;
        let storm: Vec<_> = (0..150)
            .map(|n| scope.spawn(move || log_in(gateway, ELSEWHERE, &format!("user {n}"), WRONG).status))
            .collect();
        await_that("the address has its share", || refused(gateway, "queue") > 0);
        for n in 0..3 {
            assert_eq!(log_in(gateway, HOME, "alice", PASSWORD).status, 200, "{n}: another address");
        }
        storm.into_iter().map(|login| login.join().unwrap()).collect()
    });
    let number = |wanted: u16| statuses.iter().filter(|status| **status == wanted).count();
    let (judged, busy) = (number(401), number(503));
    assert!(judged > 0 && busy > 20 && judged + busy == statuses.len(), "{statuses:?}");
    // What was never looked at does not count.
    let database = rusqlite::Connection::open(gateway.folder.path().join("portcullis.db")).unwrap();
    let counted = || -> i64 {
        database.query_row("SELECT sum(failures) FROM attempt WHERE account = x''", [], |row| row.get(0)).unwrap()
    };
    // The registration is one.
    let settled = holds_within(Duration::from_secs(5), || usize::try_from(counted()) == Ok(judged + 1));
    assert!(settled, "{} counted, {judged} judged", counted());
}

//! Session lists that a client requests and never reads: revocations still arrive in time, and memory stays bounded.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::frames::{self, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, block, frame};
use crate::harness::{Gateway, Setup, await_that};
use crate::jwt;
use crate::origin::Origin;
use crate::wire::{Connection, get, post};

/// Sessions of the hostile account: its own login and those that the test inserts.
const SESSIONS: i64 = 1_100;

/// How late a revocation may take effect on another replica (CONTRACT.md, section 1).
const REVOCATION_DELAY: Duration = Duration::from_secs(1);

/// Gives the account `name` a long list of live sessions.
fn insert_sessions(gateway: &Gateway, name: &str) {
    let mut database = rusqlite::Connection::open(gateway.folder.path().join("portcullis.db")).unwrap();
    database.busy_timeout(Duration::from_secs(5)).unwrap();
    let changes = database.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    let (account, generation): (i64, i64) = changes
        .query_row("SELECT id, generation FROM account WHERE username = ?1", [name], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    let now = jwt::now() * 1000;
    for n in 1..SESSIONS {
        changes
            .execute(
                "INSERT INTO session (id, account, created, last_used, expires, address, user_agent, generation)
                 VALUES (?1, ?2, ?3, ?3, ?4, '192.0.2.1', ?5, ?6)",
                rusqlite::params![
                    format!("00000000-0000-4000-9000-{n:012x}"),
                    account,
                    now - 60_000 - n,
                    now + 30 * 86_400_000,
                    "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
                    generation,
                ],
            )
            .unwrap();
    }
    changes.commit().unwrap();
}

/// The bytes of an HTTP/2 connection that asks `path` on 100 streams; `settings` is the payload of its SETTINGS frame.
fn hundred_requests(address: SocketAddr, path: &str, token: &str, settings: &[u8]) -> Vec<u8> {
    let (authority, credential) = (address.to_string(), format!("Bearer {token}"));
    let mut fields = frames::get(&authority, path);
    fields.push(("authorization", &credential));
    let head = block(&fields);
    let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, settings)].concat();
    for n in 0..100 {
        bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &head));
    }
    bytes
}

/// Requests lists and closes the connection without reading, again and again.
fn flood(address: SocketAddr, bytes: &[u8], done: &AtomicBool) -> usize {
    let mut connections = 0;
    while !done.load(Ordering::Relaxed) {
        // The gateway may refuse the connection, or close it early: it is hostile.
        if let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(5)) {
            connections += usize::from(stream.write_all(bytes).is_ok());
        }
        // Not a flood of connections: those would be refused before a request is read.
        std::thread::sleep(Duration::from_millis(40));
    }
    connections
}

/// For how long after a logout at `other` the gateway still accepts the token; `None` when it does so beyond `limit`.
fn acceptance_after_logout(gateway: &Gateway, other: &Gateway, limit: Duration) -> Option<Duration> {
    let token = jwt::access("bob");
    let ask = get("/secret").bearer(&token);
    let mut kept = Connection::open(gateway.public);
    assert_eq!(ask.send_on(&mut kept, gateway.public).unwrap().status, 200, "before the logout");
    let answer = post("/logout/access").bearer(&token).send(other.public);
    assert_eq!(answer.status, 200, "{answer:?}");
    let revoked = Instant::now();
    let mut accepted = Duration::ZERO;
    loop {
        // Taken before the request is sent: how slowly the machine answers does not count.
        let sent = revoked.elapsed();
        let answer = ask.send_on(&mut kept, gateway.public).unwrap();
        match answer.status {
            200 => accepted = sent,
            401 => break Some(accepted),
            _ => panic!("{answer:?}"),
        }
        if sent > limit {
            break None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn revocation_delay_under_a_flood_of_session_lists() {
    const LOGOUTS: usize = 12;
    let origin = Origin::start();
    let first = Setup::new(origin.address).start();
    let database = first.folder.path().join("portcullis.db");
    let other_folder = Arc::new(tempfile::Builder::new().prefix("portcullis-").tempdir().unwrap());
    let second = Setup::new(origin.address)
        .set("store.url", json!(format!("sqlite:{}", database.display())))
        .start_in(other_folder);
    let hostile = first.register("mallory").access;
    insert_sessions(&first, "mallory");
    let requests = hundred_requests(first.public, "/sessions", &hostile, &[]);

    let done = AtomicBool::new(false);
    let (delays, polls, connections) = std::thread::scope(|scope| {
        let clients = [(); 2].map(|()| scope.spawn(|| flood(first.public, &requests, &done)));
        let polls = scope.spawn(|| {
            let mut answers = Vec::new();
            while !done.load(Ordering::Relaxed) {
                answers.push(get("/readyz").try_send(first.admin).map_or(0, |answer| answer.status));
                std::thread::sleep(Duration::from_millis(50));
            }
            answers
        });
        let begin = Instant::now();
        let mut delays = Vec::new();
        while delays.len() < LOGOUTS && begin.elapsed() < Duration::from_secs(18) {
            delays.push(acceptance_after_logout(&first, &second, 2 * REVOCATION_DELAY));
            // The interval of the measurement: each logout meets another state of the queues.
            std::thread::sleep(Duration::from_millis(150));
        }
        done.store(true, Ordering::Relaxed);
        let connections: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
        (delays, polls.join().unwrap(), connections)
    });
    println!("{connections} connections of 100 requests; accepted after the logout: {delays:?}");
    let late = delays.iter().filter(|delay| delay.is_none_or(|delay| delay > REVOCATION_DELAY)).count();
    assert_eq!(late, 0, "logouts took effect later than {REVOCATION_DELAY:?} (None: than twice that): {delays:?}");
    assert_eq!(delays.len(), LOGOUTS, "each within the time of the test");
    let unready = polls.iter().filter(|status| **status != 200).count();
    assert_eq!(unready, 0, "/readyz was not 200 in {unready} of {} polls: {polls:?}", polls.len());
    assert!(connections > 20, "the flood was a trickle: {connections} connections");
}

/// The resident memory of the process, in KiB.
fn resident_kib(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn memory_of_session_lists_that_are_not_read() {
    const CONNECTIONS: usize = 5;
    const GROWTH_KIB: u64 = 40 * 1024;
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    let hostile = gateway.register("mallory").access;
    let other = gateway.register("bob").access;
    insert_sessions(&gateway, "mallory");
    let path = "/sessions?limit=1000";
    for _ in 0..4 {
        // Memory that one list needs is not what is measured.
        let answer = get(path).bearer(&hostile).send(gateway.public);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["sessions"].as_array().map(Vec::len), Some(1000));
    }
    let before = resident_kib(&gateway);

    // SETTINGS_INITIAL_WINDOW_SIZE (4) of 0: no byte of a body may be sent (RFC 9113 6.9.2).
    let bytes = hundred_requests(gateway.public, path, &hostile, &[0, 4, 0, 0, 0, 0]);
    let mut unread = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(gateway.public).unwrap();
        stream.write_all(&bytes).unwrap();
        unread.push(stream);
    }
    let begin = Instant::now();
    let (mut most, mut slowest) = (0, Duration::ZERO);
    // As long as 500 lists take on a busy machine.
    while begin.elapsed() < Duration::from_secs(6) {
        let asked = Instant::now();
        let answer = get("/sessions").bearer(&other).send(gateway.public);
        assert_eq!(answer.status, 200, "another account's list: {answer:?}");
        slowest = slowest.max(asked.elapsed());
        most = most.max(resident_kib(&gateway).saturating_sub(before));
        std::thread::sleep(Duration::from_millis(50));
    }
    println!("{before} KiB before, {most} KiB more at most; another account's list took {slowest:?} at most");
    assert!(most <= GROWTH_KIB, "lists that are not read took {most} KiB, at most {GROWTH_KIB} are allowed");
    assert!(slowest < Duration::from_secs(2), "another account's list took {slowest:?}");
    drop(unread);
    await_that("the gateway is ready after the connections are gone", || gateway.is_ready());
}

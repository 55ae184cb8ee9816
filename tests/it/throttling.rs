//! Guessing at an account, beside its owner: who is delayed, and how many guesses an attacker gets.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Gateway, PASSWORD, Setup, await_that, credentials};
use crate::origin::Origin;
use crate::wire::{Response, post};

const HOME: &str = "203.0.113.7";

fn start(origin: &Origin) -> Gateway {
    Setup::new(origin.address)
        .set("server.trusted_proxies", json!(["127.0.0.1"]))
        .set("identity.attempts", json!({"per_account": "5/15m", "per_address": "50/5m"}))
        .start()
}

fn log_in(gateway: &Gateway, address: &str, password: &str) -> Response {
    let login = post("/login").header("X-Forwarded-For", address).json(&credentials("alice", password));
    login.send(gateway.public)
}

fn register(gateway: &Gateway) {
    let registration = post("/registration").header("X-Forwarded-For", HOME);
    assert_eq!(registration.json(&credentials("alice", PASSWORD)).send(gateway.public).status, 201);
}

/// Ends what runs beside a test, also when that fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_known_address_is_not_delayed_by_others() {
    let origin = Origin::start();
    let gateway = start(&origin);
    register(&gateway);
    let (stop, guesses, refused) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let mut waits = Vec::new();
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        // From many addresses of other networks, and from the owner's own: an office, a provider's gateway.
        for attacker in 0..12 {
            let (stop, guesses, refused, gateway) = (&stop, &guesses, &refused, &gateway);
            scope.spawn(move || {
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    number += 1;
                    let address = format!("198.51.{attacker}.{}", number % 250);
                    match log_in(gateway, &address, "wrong guess").status {
                        401 => guesses.fetch_add(1, Ordering::Relaxed),
                        429 | 503 => refused.fetch_add(1, Ordering::Relaxed),
                        other => panic!("{other}"),
                    };
                }
            });
        }
        // Others behind the owner's address fail at their own accounts.
        let (stop, gateway, refused) = (&stop, &gateway, &refused);
        scope.spawn(move || {
            for number in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let name = format!("neighbour-{number}");
                let login = post("/login").header("X-Forwarded-For", HOME).json(&credentials(&name, "wrong guess"));
                login.send(gateway.public);
            }
        });
        await_that("the attack runs", || refused.load(Ordering::Relaxed) > 100);
        for _ in 0..20 {
            let begin = Instant::now();
            let answer = log_in(gateway, HOME, PASSWORD);
            waits.push(begin.elapsed());
            assert_eq!(answer.status, 200, "after {:?}: {answer:?}", begin.elapsed());
            std::thread::sleep(Duration::from_millis(250));
        }
    });
    let longest = waits.iter().max().unwrap();
    let (guesses, refused) = (guesses.into_inner(), refused.into_inner());
    println!("the owner logged in {} times, the longest took {longest:?}", waits.len());
    println!("the attacker had {guesses} guesses judged and {refused} refused");
    assert!(*longest < Duration::from_secs(4), "{waits:?}");
    // 5 are free, then 1, 2, 4 … s: in six seconds or a little more there are no more than nine.
    assert!(guesses <= 12 && refused > 50, "{guesses} guesses");
}

#[test]
fn from_elsewhere_addresses_take_turns() {
    let origin = Origin::start();
    let gateway = start(&origin);
    register(&gateway);
    let (stop, guesses) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut entered = None;
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        for _ in 0..4 {
            let (stop, guesses, gateway) = (&stop, &guesses, &gateway);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    if log_in(gateway, "198.51.100.1", "wrong guess").status == 401 {
                        guesses.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        await_that("the account makes attempts wait", || guesses.load(Ordering::Relaxed) >= 6);
        // The owner, from an address that is not known: waits as long as Retry-After says.
        while begin.elapsed() < Duration::from_secs(30) {
            let answer = log_in(&gateway, "192.0.2.1", PASSWORD);
            if answer.status == 200 {
                entered = Some(begin.elapsed());
                break;
            }
            assert_eq!(answer.status, 429, "{answer:?}");
            let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
            std::thread::sleep(Duration::from_secs(wait));
        }
    });
    println!("the owner was in after {entered:?}, beside {} guesses", guesses.into_inner());
    assert!(entered.is_some_and(|entered| entered < Duration::from_secs(12)), "{entered:?}");
}

//! `limits` of a route: how often one caller or address may ask, and how large a body may be.

use serde_json::json;

use crate::harness::{Setup, await_that};
use crate::jwt;
use crate::origin::Origin;
use crate::wire::{Request, Response, get, post};

#[track_caller]
fn passes(answer: &Response) -> bool {
    match answer.status {
        200 => true,
        429 => {
            assert_eq!(answer.code(), "too_many_requests");
            let seconds: u64 = answer.header("retry-after").expect("no Retry-After").parse().unwrap();
            assert!((1..=1200).contains(&seconds), "{answer:?}");
            assert_eq!(answer.message(), format!("Too many requests. Try again in {seconds} seconds"));
            false
        }
        _ => panic!("{answer:?}"),
    }
}

#[test]
fn each_caller_has_a_quota() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address)
        .set("server.trusted_proxies", json!(["127.0.0.1"]))
        .and_routes(json!([
            {"path": "/few/*", "upstream": "app", "limits": {"requests": "3/1h"}},
            {"path": "/others/*", "upstream": "app", "limits": {"requests": "3/1h"}},
            {"path": "/open/*", "upstream": "app", "auth": "public", "limits": {"requests": "3/1h"}},
            {"path": "/maybe/*", "upstream": "app", "auth": "optional", "limits": {"requests": "3/1h"}},
        ]))
        .start();
    let (alice, bob, again) = (jwt::access("alice"), jwt::access("bob"), jwt::access("alice"));
    let from = |target: &str, address: &str| get(target).header("X-Forwarded-For", address);
    let count = |requests: &[Request]| {
        let answers = requests.iter().cycle().take(5);
        answers.filter(|request| passes(&request.send(gateway.public))).count()
    };
    for (what, requests, expected) in [
        (
            "a caller, from anywhere",
            &[from("/few/a", "1.1.1.1").bearer(&alice), from("/few/b", "2.2.2.2").bearer(&alice)][..],
            3,
        ),
        ("his other token", &[from("/few/a", "3.3.3.3").bearer(&again)], 0),
        ("another caller", &[from("/few/a", "1.1.1.1").bearer(&bob)], 3),
        ("another route", &[from("/others/a", "1.1.1.1").bearer(&alice)], 3),
        (
            "an address, with or without token",
            &[from("/open/a", "1.1.1.1"), from("/open/a", "1.1.1.1").bearer(&bob)],
            3,
        ),
        ("another address", &[from("/open/a", "1.1.1.2")], 3),
        ("a network of IPv6", &[from("/open/a", "2001:db8::1"), from("/open/a", "2001:db8::2")], 3),
        ("another network", &[from("/open/a", "2001:db8:0:1::1")], 3),
        ("no token given", &[from("/maybe/a", "1.1.1.1")], 3),
        ("the same address with a token", &[from("/maybe/a", "1.1.1.1").bearer(&alice)], 3),
    ] {
        assert_eq!(count(requests), expected, "{what}");
    }
    let forwarded = origin.count();
    assert!(!passes(&from("/few/a", "1.1.1.1").bearer(&alice).send(gateway.public)));
    assert_eq!(origin.count(), forwarded, "a refused request reached the upstream");
    let refused = from("/few/a", "1.1.1.1").bearer("x").send(gateway.public);
    assert_eq!((refused.status, refused.code()), (401, "token_malformed"), "the token is judged first");
}

#[test]
fn a_quota_comes_back() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address)
        .and_routes(json!([{"path": "/few", "upstream": "app", "auth": "public", "limits": {"requests": "1/s"}}]))
        .start();
    let status = || get("/few").send(gateway.public).status;
    await_that("the quota is used up", || status() == 429);
    await_that("the quota is back", || status() == 200);
    let is_refusal = |line: &serde_json::Value| line["error"] == "too_many_requests" && line["route"] == "/few";
    await_that("a refusal is logged", || gateway.log().iter().any(is_refusal));
}

#[test]
fn another_reading_of_the_path_counts_too() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address)
        .and_routes(json!([
            {"path": "/few", "upstream": "app", "auth": "public", "limits": {"requests": "2/h", "body": "10B"}},
            {"path": "/*", "upstream": "app", "auth": "public"},
        ]))
        .start();
    let large = post("/few;x").body("x".repeat(20)).send(gateway.public);
    assert_eq!(large.code(), "body_too_large", "an upstream may cut at the semicolon");
    assert_eq!(get("/few").send(gateway.public).status, 200);
    for path in ["/few", "/few;x"] {
        assert_eq!(get(path).send(gateway.public).status, 429, "{path}");
    }
}

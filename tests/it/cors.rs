//! CORS: true preflights need no token, and every answer on such a route can be read by the page that is allowed to.

use serde_json::json;

use crate::harness::{Gateway, PASSWORD, Setup, credentials};
use crate::jwt;
use crate::origin::Origin;
use crate::wire::{Request, Response, get, post, request};

const PAGE: &str = "https://app.example.com";
const EXPOSED: &str = "Portcullis-Error, WWW-Authenticate, Retry-After, X-Request-Id";

fn started() -> (Origin, Gateway) {
    let origin = Origin::scripted(|exchange| match exchange.seen.target.as_str() {
        "/shared/own" | "/secret/own" => {
            let own = "Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Origin: https://x\r\nVary: Accept\r\n";
            exchange.answer("200 OK", own, "own");
        }
        _ => exchange.echo(),
    });
    let cors = json!({"origins": [PAGE, "http://localhost:3000"]});
    let other = json!({"origins": ["https://other.example"]});
    let nobody = format!("http://{}", crate::harness::free_address());
    let gateway = Setup::new(origin.address)
        .set("identity.cors", cors.clone())
        .set("upstreams.down", json!({"servers": [nobody]}))
        .and_routes(json!([
            {"path": "/shared/*", "upstream": "app", "cors": cors},
            {"path": "/world/*", "upstream": "app", "auth": "public", "cors": {"origins": ["*"]}},
            {"path": "/boss/*", "upstream": "app", "auth": {"roles": ["boss"]}, "cors": cors},
            {"path": "/down/*", "upstream": "down", "auth": "public", "cors": cors},
            {"path": "/small/*", "upstream": "app", "auth": "public", "cors": cors, "limits": {"body": "1KiB"}},
            {"path": "/split", "upstream": "app", "methods": ["GET", "POST"], "auth": "public", "cors": cors},
            {"path": "/split", "upstream": "app", "methods": ["PUT"], "cors": cors},
            {"path": "/split", "upstream": "app", "methods": ["DELETE"], "cors": other},
            {"path": "/split", "upstream": "app", "methods": ["PATCH"]},
        ]))
        .start();
    (origin, gateway)
}

fn preflight(target: &str, page: &str, method: &str) -> Request {
    request("OPTIONS", target).header("Origin", page).header("Access-Control-Request-Method", method)
}

/// Every CORS field, in order.
fn told(answer: &Response) -> Vec<String> {
    let is_told = |name: &str| name.starts_with("access-control-") || name == "vary";
    let lines = answer.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value));
    let mut told: Vec<_> = lines.filter(|(name, _)| is_told(name)).map(|(n, v)| format!("{n}: {v}")).collect();
    told.sort();
    told
}

#[test]
fn a_preflight_is_answered_here() {
    let (origin, gateway) = started();
    for (target, page, asked, methods) in [
        ("/shared/a", PAGE, "GET", "GET"),
        ("/shared/a", "http://localhost:3000", "DELETE", "DELETE"),
        ("/shared/a%2e/../b?c", PAGE, "PURGE", "PURGE"),
        ("/world/a", "https://any.example", "PUT", "PUT"),
        ("/world/a", "null", "PUT", "PUT"),
        ("/split", PAGE, "PUT", "GET, HEAD, POST, PUT"),
        ("/split", PAGE, "HEAD", "GET, HEAD, POST, PUT"),
        ("/split", "https://other.example", "DELETE", "DELETE"),
        ("/login", PAGE, "POST", "POST"),
        ("/sessions/1", PAGE, "DELETE", "DELETE"),
        ("/users", PAGE, "DELETE", "DELETE, GET, HEAD"),
    ] {
        let answer = preflight(target, page, asked)
            .header("Access-Control-Request-Headers", "authorization, x-thing")
            .send(gateway.public);
        assert_eq!((answer.status, answer.body.len()), (204, 0), "{target} {page} {asked}: {answer:?}");
        let allowed = if target.starts_with("/world") { "*" } else { page };
        let expected = [
            "access-control-allow-headers: authorization, x-thing",
            &format!("access-control-allow-methods: {methods}"),
            &format!("access-control-allow-origin: {allowed}"),
            "access-control-max-age: 600",
            "vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
        ];
        assert_eq!(told(&answer), expected, "{target} {page} {asked}");
    }
    let answer =
        preflight("/shared/a", PAGE, "GET").header("Access-Control-Request-Headers", "a b").send(gateway.public);
    assert_eq!((answer.status, answer.header("access-control-allow-headers")), (204, None));
    assert_eq!(origin.count(), 0, "no preflight was sent on");
}

#[test]
fn a_page_of_another_origin_is_refused() {
    let (origin, gateway) = started();
    for (target, pages, asked) in [
        ("/shared/a", &["https://evil.example"][..], "GET"),
        ("/shared/a", &["https://app.example.com.evil.example"], "GET"),
        ("/shared/a", &["http://app.example.com"], "GET"),
        ("/shared/a", &["null"], "GET"),
        ("/shared/a", &[PAGE, PAGE], "GET"),
        ("/shared/a", &["https://app.example.com, https://app.example.com"], "GET"),
        ("/world/a", &["https://a", "https://b"], "GET"),
        ("/world/a", &["no origin"], "GET"),
        ("/split", &[PAGE], "DELETE"),
        ("/login", &["https://evil.example"], "POST"),
    ] {
        let mut request = request("OPTIONS", target).header("Access-Control-Request-Method", asked);
        for page in pages {
            request = request.header("Origin", page);
        }
        let answer = request.send(gateway.public);
        assert_eq!((answer.status, answer.code()), (403, "forbidden"), "{target} {pages:?}: {answer:?}");
        assert_eq!(told(&answer), ["vary: origin"], "{target} {pages:?}");
    }
    assert_eq!(origin.count(), 0);
}

#[test]
fn what_is_no_preflight_is_judged() {
    let (origin, gateway) = started();
    let plain = |target: &str| request("OPTIONS", target);
    for (request, status) in [
        (plain("/shared/a"), 401),
        (plain("/shared/a").header("Origin", PAGE), 401),
        (plain("/shared/a").header("Access-Control-Request-Method", "GET"), 401),
        (preflight("/shared/a", PAGE, "GET").header("Access-Control-Request-Method", "GET"), 401),
        (preflight("/shared/a", PAGE, "G T"), 401),
        (get("/shared/a").header("Origin", PAGE).header("Access-Control-Request-Method", "GET"), 401),
        (preflight("/secret", PAGE, "GET"), 401),
        (preflight("/public/a", PAGE, "GET"), 200),
        (preflight("/split", PAGE, "PATCH"), 405),
        (preflight("/nowhere", PAGE, "GET"), 404),
        (preflight("/auth/verify", PAGE, "GET"), 401),
        (preflight("/shared/%2e%2e/%2e%2e", PAGE, "GET"), 400),
    ] {
        let answer = request.send(gateway.public);
        assert_eq!(answer.status, status, "{request:?}: {answer:?}");
        assert_eq!(answer.header("access-control-allow-methods"), None, "{request:?}");
    }
    assert_eq!(origin.count(), 1, "only the one to the public route");
}

#[test]
fn every_answer_can_be_read() {
    let (_origin, gateway) = started();
    let token = jwt::access("alice");
    let large = "x".repeat(2048);
    for (request, status, code) in [
        (get("/shared/a"), 401, "token_missing"),
        (get("/shared/a").bearer("x"), 401, "token_malformed"),
        (get("/boss/a").bearer(&token), 403, "forbidden"),
        (get("/shared/a%2fb"), 400, "bad_path"),
        (request("PURGE", "/split"), 405, "method_not_allowed"),
        (get("/down/a"), 502, "upstream_unreachable"),
        (post("/small/a").body(large), 413, "body_too_large"),
        (get("/shared/a").bearer(&token).header("Connection", "authorization"), 400, "bad_header"),
        (post("/login").json(&credentials("nobody", PASSWORD)), 401, "wrong_credentials"),
        (get("/login"), 405, "method_not_allowed"),
    ] {
        let answer = request.clone().header("Origin", PAGE).send(gateway.public);
        assert_eq!((answer.status, answer.code()), (status, code));
        let expected = [
            &format!("access-control-allow-origin: {PAGE}"),
            &format!("access-control-expose-headers: {EXPOSED}"),
            "vary: origin",
        ];
        assert_eq!(told(&answer), expected, "{code}");
        let foreign = request.clone().header("Origin", "https://evil.example").send(gateway.public);
        assert_eq!((foreign.status, told(&foreign)), (status, vec!["vary: origin".to_owned()]), "{code}");
        let same = request.send(gateway.public);
        assert_eq!((same.status, told(&same)), (status, vec!["vary: origin".to_owned()]), "{code}");
    }
}

#[test]
fn the_gateways_word_replaces_the_upstreams() {
    let (_origin, gateway) = started();
    let token = jwt::access("alice");
    let allowed = format!("access-control-allow-origin: {PAGE}");
    for (target, page, expected) in [
        ("/shared/a", PAGE, &[allowed.as_str(), "vary: origin"][..]),
        ("/shared/own", PAGE, &[&allowed, "vary: Accept", "vary: origin"]),
        ("/shared/own", "https://evil.example", &["vary: Accept", "vary: origin"]),
        (
            "/secret/own",
            PAGE,
            &["access-control-allow-origin: *", "access-control-allow-origin: https://x", "vary: Accept"],
        ),
        ("/secret/a", PAGE, &[]),
    ] {
        let answer = get(target).bearer(&token).header("Origin", page).send(gateway.public);
        assert_eq!(
            (answer.status, &told(&answer)[..]),
            (200, &expected.iter().map(|&l| l.to_owned()).collect::<Vec<_>>()[..]),
            "{target} {page}"
        );
    }
    let answer =
        post("/registration").json(&credentials("carol", PASSWORD)).header("Origin", PAGE).send(gateway.public);
    assert_eq!((answer.status, told(&answer)), (201, vec![allowed, "vary: origin".to_owned()]));
}

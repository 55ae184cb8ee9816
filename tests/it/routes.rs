//! Which route a request takes, who may pass, and what target reaches the upstream.

use serde_json::json;

use crate::harness::{Gateway, Setup};
use crate::jwt;
use crate::origin::Origin;
use crate::wire::{Response, exchange, get, request};

fn started() -> (Origin, Gateway) {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address)
        .and_routes(json!([
            {"path": "/v1/*", "upstream": "app", "auth": "public", "strip_prefix": "/v1"},
            {"path": "/files/*", "upstream": "app", "auth": "public", "encoded_slash": "preserve"},
            {"path": "/methods", "upstream": "app", "auth": "public", "methods": ["GET", "POST"]},
            {"path": "/split", "upstream": "app", "auth": "public", "methods": ["GET"]},
            {"path": "/split", "upstream": "app", "methods": ["POST"]},
            {"path": "/spec/me", "upstream": "app", "methods": ["GET"]},
            {"path": "/spec/{id}", "upstream": "app", "auth": "public"},
            {"path": "/spec/*", "upstream": "app"},
            {"path": "/spec/{id}/open", "upstream": "app", "auth": "public"},
            {"path": "/deep/a/*", "upstream": "app", "auth": "public"},
            {"path": "/deep/*", "upstream": "app"},
            {"host": "reports.example.com", "path": "/r/*", "upstream": "app", "auth": "public"},
            {"path": "/r/*", "upstream": "app"},
            {"path": "/rule/role/*", "upstream": "app", "auth": {"roles": ["analyst", "boss"]}},
            {"path": "/rule/claim/*", "upstream": "app", "auth": {"claims": {"tenant": "blue"}}},
            {"path": "/rule/fresh/*", "upstream": "app", "auth": {"fresh": true}},
            {"path": "/rule/all/*", "upstream": "app", "auth": {"roles": ["boss"], "claims": {"tenant": "blue"}, "fresh": true}},
        ]))
        .start();
    (origin, gateway)
}

/// Sends the raw target without a token and gives the answer.
#[track_caller]
fn raw(gateway: &Gateway, method: &str, target: &[u8]) -> Response {
    let head = format!(" HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", gateway.public);
    let bytes = [method.as_bytes(), b" ", target, head.as_bytes()].concat();
    exchange(gateway.public, &bytes, method).unwrap_or_else(|error| panic!("{}: {error}", target.escape_ascii()))
}

#[test]
fn what_is_forwarded() {
    let (origin, gateway) = started();
    for (sent, forwarded) in [
        // Nothing to canonicalise: the raw bytes.
        ("/public/a", "/public/a"),
        ("/public", "/public"),
        ("/public/", "/public/"),
        ("/public/a/", "/public/a/"),
        ("/public/a?", "/public/a?"),
        ("/public/a?b=%2e%2e/..//&c", "/public/a?b=%2e%2e/..//&c"),
        ("/public/a%20b", "/public/a%20b"),
        ("/public/a;b=c", "/public/a;b=c"),
        ("/public/a%3Bb", "/public/a%3Bb"),
        ("/public/%C3%A9", "/public/%C3%A9"),
        ("/public/%c3%a9", "/public/%c3%a9"),
        ("/public/a%3Fb%23c", "/public/a%3Fb%23c"),
        ("/public/a:b@c!d$e&f'g(h)i*j+k,l=m", "/public/a:b@c!d$e&f'g(h)i*j+k,l=m"),
        ("/public/...", "/public/..."),
        ("/public/a..b/.c", "/public/a..b/.c"),
        ("/public/~user_-.", "/public/~user_-."),
        ("/?q=1", "/?q=1"),
        // The canonical path.
        ("/public/%61%7E%2D", "/public/a~-"),
        ("/public//a///b", "/public/a/b"),
        ("/public/./a/.", "/public/a/"),
        ("/public/b/../a", "/public/a"),
        ("/public/b/%2e%2e/a?x", "/public/a?x"),
        ("/public/b/.%2E/a", "/public/a"),
        ("//public/a", "/public/a"),
        ("/x/../public/a", "/public/a"),
        ("/public/%61%20", "/public/a%20"),
        // strip_prefix, on the boundary of a segment.
        ("/v1/a/b?c", "/a/b?c"),
        ("/v1/a%20b;c/", "/a%20b;c/"),
        ("/v1/", "/"),
        ("/v1", "/"),
        ("/v1?x", "/?x"),
        // encoded_slash: preserve.
        ("/files/a%2Fb", "/files/a%2Fb"),
        ("/files/a%2fb%2Fc", "/files/a%2fb%2Fc"),
    ] {
        let answer = raw(&gateway, "GET", sent.as_bytes());
        assert_eq!(answer.status, 200, "{sent}: {answer:?}");
        assert_eq!(origin.last().target, forwarded, "{sent}");
    }
}

#[test]
fn what_is_no_path() {
    let (origin, gateway) = started();
    let targets: &[&[u8]] = &[
        b"/..",
        b"/../public/a",
        b"/public/../../a",
        b"/public/%2e%2e/%2e%2e/x",
        b"/%2e%2e/public",
        b"/public/..;/secret",
        b"/public/..;x/secret",
        b"/public/.;/a",
        b"/public/%2e%2e;/secret",
        b"/public/..;a=b;c",
        b"/public/a\\b",
        b"/public/..\\secret",
        b"\\secret",
        b"/public/%5c",
        b"/public/%5C..%5Csecret",
        b"/public/%00",
        b"/public/a%00.png",
        b"/public/%0a",
        b"/public/%0d%0a",
        b"/public/%7f",
        b"/public/%1f",
        b"/public/%09",
        b"/public/%",
        b"/public/%2",
        b"/public/%zz",
        b"/public/%2g",
        b"/public/%u002e%u002e/secret",
        b"/public/%u2215",
        b"/public/%252e%252e/secret",
        b"/public/%252E",
        b"/public/%252f",
        b"/public/%252Fsecret",
        b"/public/%255c",
        b"/public/%25252e%25252e/secret",
        b"/public/%2f",
        b"/public/a%2Fb",
        b"/public/..%2fsecret",
        b"/public/%c0%ae%c0%ae/secret",
        b"/public/%c0%af",
        b"/public/%e0%80%af",
        b"/public/%ff",
        b"/public/%c3",
        b"/public/%ed%a0%80",
        b"/public/%ef%bc%8f",
        b"/public/%ef%bc%8e%ef%bc%8e/secret",
        b"/public/%ef%bc%bc",
        b"/v1/..",
        b"/files/%2e%2e%2f%2e%2e%2f..",
        b"public/a",
        b"secret",
        b"*",
        b"?",
        b"",
    ];
    for &target in targets {
        let answer = exchange(
            gateway.public,
            &[b"GET ", target, b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"].concat(),
            "GET",
        );
        let shown = target.escape_ascii();
        let answer = answer.unwrap_or_else(|error| panic!("{shown}: {error}"));
        let climbed = target.starts_with(b"/v1/..");
        assert!(answer.status == 400 || climbed && answer.status == 200, "{shown}: {answer:?}");
        if target.starts_with(b"/public/%") {
            assert_eq!(answer.code(), "bad_path", "{shown}: {answer:?}");
        }
    }
    assert!(origin.seen().iter().all(|seen| seen.target == "/"), "{:?}", origin.seen());
    let slash = raw(&gateway, "GET", b"/public/a%2Fb");
    assert!(slash.message().contains("encoded_slash"), "the option is named: {slash:?}");
}

#[test]
fn raw_bytes_in_a_target() {
    let (origin, gateway) = started();
    for target in
        [&b"/public/\xff"[..], b"/public/\xc0\xaf", b"/public/\xef\xbc\x8e\xef\xbc\x8e/secret", b"/public/a\x01"]
    {
        let bytes = [b"GET ", target, b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"].concat();
        let answer = exchange(gateway.public, &bytes, "GET").unwrap();
        assert_eq!(answer.status, 400, "{}: {answer:?}", target.escape_ascii());
    }
    assert_eq!(origin.count(), 0);
}

#[test]
fn who_may_pass() {
    let (origin, gateway) = started();
    let token = jwt::access("alice");
    let analyst = jwt::token_with("ann", &json!({"roles": ["intern", "analyst"]}));
    let blue = jwt::token_with("ben", &json!({"tenant": "blue"}));
    let blues = jwt::token_with("ben", &json!({"tenant": ["red", "blue"]}));
    let fresh = jwt::token_with("eve", &json!({"fresh": true}));
    let all = jwt::token_with("max", &json!({"fresh": true, "tenant": "blue", "roles": ["boss"]}));
    let bad = jwt::token_with("eve", &json!({"exp": 1}));
    let none = "";
    let missing = (401, "token_missing");
    let forbidden = (403, "forbidden");
    let no_route = (404, "no_route");
    let not_allowed = (405, "method_not_allowed");
    let good = (200, "");
    for (method, target, token, expected) in [
        // Deny by default.
        ("GET", "/", none, good),
        ("GET", "/secret", none, missing),
        ("GET", "/secret/", none, missing),
        ("GET", "/secret/a/b", none, missing),
        ("GET", "/secret/a/b", &token, good),
        ("GET", "/secretx", &token, no_route),
        ("GET", "/publicx", none, no_route),
        ("GET", "/nowhere", none, no_route),
        ("GET", "/nowhere", &token, no_route),
        ("GET", "/Secret", &token, no_route),
        ("GET", "/public/../secret", none, missing),
        ("GET", "/public/%2e%2e/secret", none, missing),
        ("GET", "//secret", none, missing),
        ("GET", "/%73ecret", none, missing),
        ("GET", "/nowhere/../secret", &token, good),
        // A bad token matters on routes that look at it, and only there.
        ("GET", "/public/a", &bad, good),
        ("GET", "/optional/a", &bad, (401, "token_expired")),
        ("GET", "/optional/a", none, good),
        ("GET", "/optional/a", &token, good),
        // Two readings of `;`.
        ("GET", "/secret;x", &token, no_route),
        ("GET", "/public;x", none, no_route),
        ("GET", "/secret/a;x", none, missing),
        ("GET", "/spec/me;x", none, missing),
        ("GET", "/deep/a;x/b", none, missing),
        // Two readings of %2F.
        // Servers that merge slashes before they remove dots disagree with those that do not: refused, not routed.
        ("GET", "/files/..%2Fsecret", none, (400, "bad_path")),
        ("GET", "/files/a%2F..%2F..%2Fsecret%2Fb", none, (400, "bad_path")),
        ("GET", "/files/..%2Fnowhere", none, (400, "bad_path")),
        // The most specific route; a method that it lacks is 405, never a less specific route.
        ("GET", "/spec/me", none, missing),
        ("POST", "/spec/me", none, not_allowed),
        ("GET", "/spec/7", none, good),
        ("GET", "/spec/7/x", none, missing),
        ("GET", "/spec/7/open", none, good),
        ("GET", "/spec/me/open", none, good),
        ("GET", "/spec", none, missing),
        ("GET", "/deep/a/b", none, good),
        ("GET", "/deep/a", none, good),
        ("GET", "/deep/ab", none, missing),
        ("GET", "/v1x", none, no_route),
        // Methods.
        ("GET", "/methods", none, good),
        ("HEAD", "/methods", none, good),
        ("POST", "/methods", none, good),
        ("DELETE", "/methods", none, not_allowed),
        ("get", "/methods", none, not_allowed),
        ("OPTIONS", "/methods", none, not_allowed),
        ("GET", "/split", none, good),
        ("HEAD", "/split", none, good),
        ("POST", "/split", none, missing),
        ("POST", "/split", &token, good),
        ("PUT", "/split", &token, not_allowed),
        ("BREW", "/public/a", none, good),
        ("OPTIONS", "/secret", none, missing),
        // Rules.
        ("GET", "/rule/role/x", none, missing),
        ("GET", "/rule/role/x", &token, forbidden),
        ("GET", "/rule/role/x", &analyst, good),
        ("GET", "/rule/claim/x", &token, forbidden),
        ("GET", "/rule/claim/x", &blue, good),
        ("GET", "/rule/claim/x", &blues, good),
        ("GET", "/rule/fresh/x", &token, forbidden),
        ("GET", "/rule/fresh/x", &fresh, good),
        ("GET", "/rule/all/x", &blue, forbidden),
        ("GET", "/rule/all/x", &fresh, forbidden),
        ("GET", "/rule/all/x", &analyst, forbidden),
        ("GET", "/rule/all/x", &all, good),
    ] {
        let before = origin.count();
        let asked = request(method, target);
        let asked = if token.is_empty() { asked } else { asked.bearer(token) };
        let answer = asked.send(gateway.public);
        assert_eq!((answer.status, answer.code()), expected, "{method} {target}: {answer:?}");
        assert_eq!(origin.count() - before, usize::from(expected == good), "{method} {target} forwarded");
    }
}

#[test]
fn allow_names_the_methods() {
    let (_origin, gateway) = started();
    for (target, methods) in [("/methods", ["GET", "POST"]), ("/split", ["GET", "POST"])] {
        let answer = request("DELETE", target).bearer(&jwt::access("alice")).send(gateway.public);
        let allow = answer.header("allow").unwrap().to_owned();
        for method in methods {
            assert!(allow.split(", ").any(|allowed| allowed == method), "{target}: {allow}");
        }
    }
}

#[test]
fn hosts() {
    let (origin, gateway) = started();
    let ask = |host: &str| get("/r/x").header("Host", host).send(gateway.public);
    for host in [
        "reports.example.com",
        "Reports.EXAMPLE.com",
        "reports.example.com:8080",
        "reports.example.com.",
        "reports.example.com.:80",
    ] {
        assert_eq!(ask(host).status, 200, "{host}");
        assert_eq!(origin.last().header("host"), Some(host), "Host is kept");
    }
    for host in ["example.com", "xreports.example.com", "reports.example.com.evil.org", "127.0.0.1", "[::1]:80"] {
        assert_eq!(ask(host).code(), "token_missing", "{host}");
    }
    let before = origin.count();
    for host in ["a b", "a,b", "a/b", "a@b", "a:b:c", "a:port", "[::1", "a\\b", "a#b", "a?b"] {
        let answer = ask(host);
        assert_eq!(answer.status, 400, "{host:?}: {answer:?}");
    }
    for head in [
        "GET /public/a HTTP/1.1\r\n\r\n",
        "GET /public/a HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET /public/a HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n",
        "GET /public/a HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET http://b/public/a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a:81/public/a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://u@a/public/a HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let answer = exchange(gateway.public, head.as_bytes(), "GET").unwrap();
        assert_eq!(answer.status, 400, "{head:?}: {answer:?}");
    }
    assert_eq!(origin.count(), before);
}

#[test]
fn the_absolute_form_is_routed_like_any_other() {
    let (origin, gateway) = started();
    for (target, status) in [
        ("http://a/public/x?y", 200),
        ("http://a/secret", 401),
        ("http://a/public/%2e%2e/secret", 401),
        ("http://a", 200),
    ] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let answer = exchange(gateway.public, head.as_bytes(), "GET").unwrap();
        assert_eq!(answer.status, status, "{target}: {answer:?}");
    }
    assert_eq!(origin.seen()[0].target, "/public/x?y", "the origin gets the origin form");
    let head = "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nConnection: close\r\n\r\n";
    let answer = exchange(gateway.public, head.as_bytes(), "GET").unwrap();
    assert!((400..500).contains(&answer.status), "{answer:?}");
    let head = "OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answer = exchange(gateway.public, head.as_bytes(), "OPTIONS").unwrap();
    assert!(answer.status < 500, "{answer:?}");
}

#[test]
fn a_refusal_is_marked_and_an_upstreams_own_is_not() {
    let origin = Origin::scripted(|exchange| {
        exchange.answer(
            "401 Unauthorized",
            "Portcullis-Error: forged\r\nWWW-Authenticate: Basic\r\nX-Own: 1\r\n",
            "mine",
        );
    });
    let gateway = Setup::new(origin.address).start();
    let own = get("/secret").bearer(&jwt::access("alice")).send(gateway.public);
    assert_eq!((own.status, own.code(), own.text().as_str()), (401, "", "mine"));
    assert_eq!((own.header("www-authenticate"), own.header("x-own")), (Some("Basic"), Some("1")));
    assert!(own.header("cache-control").is_none());
    assert_eq!(get("/secret").send(gateway.public).code(), "token_missing");
}

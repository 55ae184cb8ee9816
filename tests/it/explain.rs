//! `explain` tells what the gateway does: the very bytes that it sends, its verdict, and what the store knows of a token.

use std::process::Output;

use serde_json::{Value, json};

use crate::harness::{Gateway, PASSWORD, SECRET, Setup, Tokens, await_that, cli_with, run, said};
use crate::jwt::{self, token_with};
use crate::origin::Origin;
use crate::wire::{Request, post, request};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// The lines of one kind, without their label.
fn lines(output: &Output, label: &str) -> Vec<String> {
    let label = format!("{label}:");
    let text = said(output);
    text.lines().filter_map(|line| line.strip_prefix(&label)).map(|line| line.trim_start().to_owned()).collect()
}

#[track_caller]
fn only(output: &Output, label: &str) -> String {
    let found = lines(output, label);
    assert_eq!(found.len(), 1, "{label} in\n{}", said(output));
    found[0].clone()
}

#[track_caller]
fn explained(gateway: &Gateway, target: &str, token: &str, code: i32) -> Output {
    let done = gateway.cli(&["explain", "GET", target, "--token", "-"], token);
    assert_eq!(done.status.code(), Some(code), "{}", said(&done));
    assert!(!said(&done).contains(token), "the token is not repeated");
    done
}

#[test]
fn the_headers_are_the_very_ones_that_are_sent() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address)
        .set("server.trusted_proxies", json!(["192.0.2.0/24"]))
        .set("identity_headers", json!({"email": "X-Auth-Email", "tenant": "X-Tenant"}))
        .and_routes(json!([
            {"path": "/v1/*", "upstream": "app", "strip_prefix": "/v1", "forward_authorization": false},
        ]))
        .start();
    let claims = json!({"roles": ["admin", "b"], "email": "ä@b.example", "sid": "s"});
    let token = token_with("Ünal O'Neil", &claims);
    let spoof = [
        ("X-Auth-Subject", "root"),
        ("X_Auth.Subject", "root"),
        ("x-tenant", "other"),
        ("X-Forwarded-For", "6.6.6.6"),
        ("X-Forwarded-Host", "evil.example"),
        ("Accept", "text/html"),
        ("X-Drop", "me"),
        ("Connection", "x-drop"),
        ("Cookie", "a=b"),
        ("Accept", "*/*"),
        ("X-Request-Id", "abc"),
        ("Traceparent", TRACE),
    ];
    let host = gateway.public.to_string();
    for target in ["/secret/a?b=c", "/admin/x", "/v1/r%65ports", "/public/a", "/optional/a"] {
        let mut arguments = vec!["explain", "GET", target, "--host", &host, "--token", "-"];
        let fields: Vec<String> = spoof.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        fields.iter().for_each(|field| arguments.extend(["--header", field]));
        let told = gateway.cli(&arguments, &token);
        assert_eq!(told.status.code(), Some(0), "{}", said(&told));
        let sending = |request: Request, (name, value): &(&str, &str)| request.header(name, value);
        let sent = spoof.iter().fold(request("GET", target).bearer(&token), sending);
        assert_eq!(sent.send(gateway.public).status, 200);
        let seen = origin.last();
        assert_eq!(only(&told, "request"), format!("GET {} HTTP/1.1", seen.target));
        let hidden = |name: &str| ["authorization", "cookie"].contains(&name);
        let expected: Vec<String> = seen
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", if hidden(name) { "***" } else { value }))
            .collect();
        let told: Vec<String> = lines(&told, "header")
            .iter()
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| format!("{}: {value}", name.to_ascii_lowercase()))
            .collect();
        assert_eq!(told, expected, "{target}");
        assert!(!told.iter().any(|line| line.contains("root") || line.contains("evil")), "{told:?}");
    }
    let from = ["explain", "GET", "/public/a", "--header", "X-Forwarded-For: 6.6.6.6", "--from", "192.0.2.7"];
    let told = gateway.cli(&from, "");
    assert!(lines(&told, "header").contains(&"x-forwarded-for: 6.6.6.6, 192.0.2.7".to_owned()), "{}", said(&told));
    assert_eq!(gateway.cli(&["explain", "GET", "/", "--header", "no colon"], "").status.code(), Some(2));
    assert_eq!(gateway.cli(&["explain", "GET", "/", "--from", "nowhere"], "").status.code(), Some(2));
}

#[test]
fn http_2_has_its_own_form() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address)
        .set(
            "upstreams.two",
            json!({"servers": ["http://10.0.0.9:81", "http://10.0.0.8"], "protocol": "h2", "host": "in.example"}),
        )
        .and_routes(json!([{"path": "/two", "upstream": "two"}]))
        .start();
    let told = explained(&gateway, "/two?x", &jwt::access("alice"), 0);
    assert_eq!(only(&told, "server"), "http://10.0.0.9:81");
    assert_eq!(only(&told, "request"), "GET http://in.example/two?x HTTP/2");
    let headers = lines(&told, "header");
    assert!(headers.contains(&"X-Auth-Subject: alice".to_owned()), "{headers:?}");
    assert!(!headers.iter().any(|header| header.starts_with("host:")), "{headers:?}");
}

#[test]
fn the_verdict_names_the_rule_and_the_answer() {
    let origin = Origin::start();
    for (style, wrong_type) in [("standard", "401 token_wrong_type"), ("flask", "422 token_wrong_type")] {
        let gateway = Setup::new(origin.address).set("identity.responses", json!(style)).start();
        let good = jwt::access("alice");
        let refresh = token_with("alice", &json!({"type": "refresh"}));
        let expired = token_with("alice", &json!({"exp": jwt::now() - 100, "iat": jwt::now() - 1000}));
        for (target, token, rule, verdict) in [
            ("/secret", &good, "/secret  required: met", None),
            ("/optional/x", &good, "/optional/*  optional: met", None),
            (
                "/admin/x",
                &good,
                "/admin/*  required  one of the roles admin: not met: forbidden",
                Some("403 forbidden"),
            ),
            ("/secret", &refresh, "/secret  required: not met: token_wrong_type", Some(wrong_type)),
            ("/secret", &expired, "/secret  required: not met: token_expired", Some("401 token_expired")),
        ] {
            let told = explained(&gateway, target, token, i32::from(verdict.is_some()));
            assert_eq!(only(&told, "rule"), rule);
            match verdict {
                None => assert_eq!(only(&told, "verdict"), "passes"),
                Some(code) => assert!(said(&told).contains(&format!("refused: {code}: ")), "{}", said(&told)),
            }
            assert!(lines(&told, "header").is_empty() == verdict.is_some(), "{}", said(&told));
            let claims: Value = serde_json::from_str(&only(&told, "claims")).unwrap();
            assert_eq!(claims, jwt::claims_of(token));
        }
        let forged = format!("{}x", &good[..good.len() - 1]);
        let told = explained(&gateway, "/secret", &forged, 1);
        assert!(lines(&told, "claims").is_empty(), "nothing is told of a token that nobody signed: {}", said(&told));
        let told = explained(&gateway, "/auth/verify", &good, 0);
        assert!(lines(&told, "header").contains(&"X-Auth-Subject: alice".to_owned()), "{}", said(&told));
        let told = gateway.cli(&["explain", "GET", "/secret"], "");
        assert_eq!((told.status.code(), &*only(&told, "verdict")), (Some(0), "without a token 401 token_missing"));
        let told =
            gateway.cli(&["explain", "GET", "/secret", "--header", &format!("Authorization: Bearer {good}")], "");
        assert_eq!((told.status.code(), &*only(&told, "verdict")), (Some(0), "passes"));
        assert!(!said(&told).contains(&good) && said(&told).contains("authorization: ***"), "{}", said(&told));
        let protocol = format!("Sec-WebSocket-Protocol: bearer, {good}");
        let told = gateway.cli(&["explain", "GET", "/public/a", "--header", &protocol], "");
        assert!(!said(&told).contains(&good) && said(&told).contains("sec-websocket-protocol: ***"), "{}", said(&told));
        let told = gateway.cli(&["explain", "GET", "/secret", "--header", "Connection: host", "--token", &good], "");
        assert_eq!(told.status.code(), Some(1));
        assert!(said(&told).contains("400 bad_header"), "{}", said(&told));
    }
    assert_eq!(origin.count(), 0, "nothing was sent");
}

#[test]
fn the_endpoints_own_demands_are_told() {
    let origin = Origin::start();
    let off = json!({"per_account": "off", "per_address": "off"});
    let gateway = Setup::new(origin.address).set("identity.attempts", off).start();
    gateway.register("alice");
    gateway.add_user("root", "admin");
    let told = gateway.cli(&["explain", "GET", "/users", "--token", "-"], &gateway.login("root").access);
    assert!(only(&told, "verdict").starts_with("answered by the gateway itself"), "{}", said(&told));
    let expired = |kind: &str| token_with("alice", &json!({"exp": jwt::now() - 100, "type": kind}));
    for (method, path) in [
        ("GET", "/users"),
        ("GET", "/sessions/"),
        ("DELETE", "/sessions/x"),
        ("POST", "/logout"),
        ("POST", "/logout/all"),
        ("POST", "/logout/access"),
        ("POST", "/logout/refresh"),
        ("POST", "/token/refresh"),
        ("POST", "/password"),
        ("POST", "/login"),
        ("GET", "/.well-known/jwks.json"),
    ] {
        let Tokens { access, refresh } = gateway.login("alice");
        let other = gateway.login("alice");
        let forged = format!("{}x", &access[..access.len() - 1]);
        let all = [&other.access, &other.refresh, &expired("access"), &expired("refresh"), &forged, "garbage"];
        for token in all.into_iter().chain([&*access, &refresh]).map(Some).chain([None]) {
            let mut arguments = vec!["explain", method, path];
            arguments.extend(token.iter().flat_map(|_| ["--token", "-"]));
            let told = gateway.cli(&arguments, token.unwrap_or_default());
            let asked = request(method, path);
            let live = token.map_or(asked.clone(), |token| asked.bearer(token)).send(gateway.public);
            let code = if live.status < 400 { "" } else { live.code() };
            assert!(said(&told).contains("answered by the gateway itself"), "{}", said(&told));
            if code.starts_with("token_") {
                assert!(only(&told, "rule").ends_with(&format!("not met: {code}")), "{live:?}: {}", said(&told));
                assert_eq!(told.status.code(), Some(i32::from(token.is_some())), "{live:?}: {}", said(&told));
            } else if code == "forbidden" {
                assert!(said(&told).contains("refused: 403 forbidden: This needs the role admin"), "{}", said(&told));
                assert_eq!(told.status.code(), Some(1));
            } else {
                assert!(!only(&told, "rule").contains("not met"), "{path} {live:?}: {}", said(&told));
                assert!(only(&told, "verdict").starts_with("answered by the gateway itself"), "{}", said(&told));
                assert_eq!(told.status.code(), Some(0), "{live:?}: {}", said(&told));
            }
        }
    }
}

#[test]
fn a_target_that_is_none_is_a_bad_request() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    for target in ["/public/a b", "", "/public/<>\"{}|^`"] {
        let told = gateway.cli(&["explain", "GET", target], "");
        assert_eq!(told.status.code(), Some(1));
        assert!(said(&told).contains("refused: 400 bad_request"), "{target:?}: {}", said(&told));
        let live = request("GET", target).send(gateway.public);
        assert_eq!((live.status, live.code()), (400, "bad_request"), "{target:?}: {live:?}");
    }
}

#[test]
fn without_a_database_the_plan_is_told() {
    let origin = Origin::start();
    let folder = tempfile::tempdir().unwrap();
    let (config, _, _) = Setup::new(origin.address).write(folder.path());
    let told = cli_with(&config, &["explain", "GET", "/secret"], "");
    assert!(told.status.success() && said(&told).contains("upstream: app"), "{}", said(&told));
    assert!(!folder.path().join("portcullis.db").exists(), "explaining makes nothing");
    let told = cli_with(&config, &["explain", "GET", "/secret", "--token", &jwt::access("alice")], "");
    assert_eq!(told.status.code(), Some(1), "{}", said(&told));
}

/// What `explain` and `tokens inspect` both say of a token.
#[track_caller]
fn known(gateway: &Gateway, token: &str, good: bool) -> Output {
    let code = i32::from(!good);
    let told = explained(gateway, "/secret", token, code);
    let inspected = gateway.cli(&["tokens", "inspect", "-"], token);
    assert_eq!(inspected.status.code(), Some(code), "{}", said(&inspected));
    for label in ["claims", "key", "account", "revoked"] {
        assert_eq!(lines(&told, label), lines(&inspected, label));
    }
    assert!(!said(&inspected).contains(token), "the token is not repeated");
    told
}

#[test]
fn the_store_tells_of_session_account_and_blocklist() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    gateway.add_user("alice", "b");
    let Tokens { access, .. } = gateway.login("alice");
    let told = known(&gateway, &access, true);
    assert_eq!(only(&told, "key"), "the configured secret (tokens.secret), HS256");
    let session = jwt::claims_of(&access)["sid"].as_str().unwrap().to_owned();
    assert!(only(&told, "session").starts_with(&format!("{session}: live, opened ")), "{}", said(&told));
    assert!(only(&told, "session").contains("from 127.0.0.1, last used "), "{}", said(&told));
    assert!(
        only(&told, "times").contains("ago), expires ") && only(&told, "times").contains("(in 14m5"),
        "{}",
        said(&told)
    );
    assert_eq!(only(&told, "account"), "alice: roles now [b], generation 0 (the token's: 0)");
    assert_eq!(only(&told, "revoked"), "no");

    assert_eq!(post("/logout/access").bearer(&access).send(gateway.public).status, 200);
    let told = known(&gateway, &access, false);
    assert!(only(&told, "revoked").starts_with("the token itself, at "), "{}", said(&told));
    assert!(only(&told, "session").contains(": live, "), "{}", said(&told));

    let Tokens { access, .. } = gateway.login("alice");
    let session = jwt::claims_of(&access)["sid"].as_str().unwrap().to_owned();
    assert!(gateway.cli(&["tokens", "revoke", "--session", &session], "").status.success());
    let told = known(&gateway, &access, false);
    assert!(only(&told, "revoked").starts_with("its session, at "), "{}", said(&told));
    assert!(only(&told, "session").contains(": ended "), "{}", said(&told));

    let Tokens { access, .. } = gateway.login("alice");
    assert!(gateway.cli(&["users", "roles", "alice", "admin", "c"], "").status.success());
    assert!(gateway.cli(&["users", "disable", "alice"], "").status.success());
    let told = known(&gateway, &access, false);
    assert!(only(&told, "revoked").starts_with("all tokens of its account below generation 2, "), "{}", said(&told));
    assert_eq!(only(&told, "account"), "alice: roles now [admin c], generation 2 (the token's: 0), disabled");

    let foreign = jwt::access("nobody");
    let told = known(&gateway, &foreign, true);
    assert_eq!(only(&told, "account"), r#"there is none of the name "nobody""#);
    assert_eq!(only(&told, "session"), "none: not from a login here");
    let told = known(&gateway, &token_with("alice", &json!({"sid": "gone", "gen": 2})), true);
    assert_eq!(only(&told, "session"), "gone: not known here (any more)");
}

#[test]
fn a_key_of_the_store_is_named() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).unset("tokens", "secret").start();
    let token = gateway.register("alice").access;
    let told = known(&gateway, &token, true);
    let kid: Value = serde_json::from_slice(&jwt::from_base64url(token.split('.').next().unwrap())).unwrap();
    assert_eq!(only(&told, "key"), format!("{}, kept in the store, HS256", kid["kid"].as_str().unwrap()));
    assert!(!said(&told).contains(SECRET) && !said(&told).contains(PASSWORD));
}

#[track_caller]
fn revoke(gateway: &Gateway, arguments: &[&str]) -> String {
    let mut all = vec!["tokens", "revoke"];
    all.extend(arguments);
    let done = gateway.cli(&all, "");
    assert!(done.status.success(), "{}", said(&done));
    assert!(said(&done).contains("remembered until 2"), "{}", said(&done));
    said(&done)
}

#[track_caller]
fn is_heard(gateway: &Gateway, token: &str) {
    let heard = crate::harness::holds_within(std::time::Duration::from_secs(1), || gateway.try_token(token) == 401);
    assert!(heard, "not heard within a second");
}

#[test]
fn tokens_are_revoked_by_id_session_and_user() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    let [alice, other] = [gateway.register("alice"), gateway.login("alice")];
    let bob = gateway.register("bob");
    let id = |token: &str, name: &str| jwt::claims_of(token)[name].as_str().unwrap().to_owned();
    let refresh = |tokens: &Tokens| post("/token/refresh").bearer(&tokens.refresh).send(gateway.public).status;
    for _ in 0..2 {
        revoke(&gateway, &["--jti", &id(&alice.access, "jti")]);
    }
    is_heard(&gateway, &alice.access);
    assert_eq!(refresh(&alice), 200, "one token alone");
    for _ in 0..2 {
        let told = revoke(&gateway, &["--session", &id(&alice.access, "sid")]);
        assert!(!told.contains("no session"), "{told}");
    }
    await_that("the session's refresh token is dead", || refresh(&alice) == 401);
    assert_eq!((gateway.try_token(&other.access), refresh(&other)), (200, 200), "her other session");
    assert!(revoke(&gateway, &["--session", "unknown"]).contains("no session of that id"));
    for _ in 0..2 {
        revoke(&gateway, &["--user", "alice"]);
    }
    is_heard(&gateway, &other.access);
    assert_eq!(refresh(&other), 401);
    assert_eq!((gateway.try_token(&bob.access), refresh(&bob)), (200, 200));
    assert_eq!(gateway.try_token(&gateway.login("alice").access), 200);
    for (wrong, code) in [
        (&["--user", "nobody"][..], 1),
        (&["--user", "nobody", "--before", "now"], 1),
        (&["--jti", ""], 1),
        (&[], 2),
        (&["--jti", "a", "--session", "b"], 2),
        (&["--jti", "a", "--before", "now"], 2),
        (&["--before", "yesterday"], 2),
        (&["--before", "2999-01-01T00:00:00Z"], 2),
    ] {
        let mut all = vec!["tokens", "revoke"];
        all.extend(wrong);
        let done = gateway.cli(&all, "");
        assert_eq!(done.status.code(), Some(code), "{wrong:?}: {}", said(&done));
    }
}

#[test]
fn tokens_are_revoked_by_time() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    let [alice, bob] = ["alice", "bob"].map(|name| gateway.register(name));
    // Of a Flask service with the same secret: without generation.
    let flask = |name: &str, age: i64| token_with(name, &json!({"iat": jwt::now() - age, "nbf": null}));
    let [old, young, theirs] = [flask("alice", 300), flask("alice", 100), flask("nobody", 300)];
    let rfc3339 = |ago: &str| {
        let mut command = std::process::Command::new("date");
        command.args(["-u", "-d", ago, "+%Y-%m-%dT%H:%M:%SZ"]);
        String::from_utf8(run(command, "").stdout).unwrap().trim().to_owned()
    };
    let told = revoke(&gateway, &["--before", &rfc3339("200 seconds ago")]);
    assert!(told.contains("All tokens of 2 accounts issued before "), "{told}");
    is_heard(&gateway, &old);
    for (whose, token) in
        [("a younger one", &young), ("no account's", &theirs), ("alice's", &alice.access), ("bob's", &bob.access)]
    {
        assert_eq!(gateway.try_token(token), 200, "{whose}");
    }
    revoke(&gateway, &["--before", "now", "--user", "alice"]);
    is_heard(&gateway, &alice.access);
    is_heard(&gateway, &young);
    assert_eq!(gateway.try_token(&bob.access), 200, "only hers");
    let told = revoke(&gateway, &["--before", "now"]);
    is_heard(&gateway, &bob.access);
    let moment = told.strip_prefix("All tokens of 2 accounts issued before ").unwrap().split(' ').next().unwrap();
    let again = gateway.login("bob");
    revoke(&gateway, &["--before", moment]);
    let later = token_with("carol", &json!({}));
    revoke(&gateway, &["--jti", jwt::claims_of(&later)["jti"].as_str().unwrap()]);
    is_heard(&gateway, &later);
    assert_eq!(gateway.try_token(&again.access), 200, "what was ended already is not ended once more");
}

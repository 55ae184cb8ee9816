//! Tokens of others: opened by routes that name their issuer, and never mistaken for those of our own users.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use crate::harness::{Gateway, Setup, holds_within, said};
use crate::jwt::{self, now};
use crate::origin::Origin;
use crate::provider::{
    FLASK, FLASK_SECRET, ISSUER, Key, Provider, ask, await_keys, claims, flask, flask_token, keycloak, set, setup,
};
use crate::wire::{get, post, request};

#[test]
fn a_rule_opens_to_its_issuer_and_nothing_else_does() {
    let (origin, key) = (Origin::start(), Key::new("k1", Algorithm::RS256));
    let provider = Provider::start(&[&key]);
    let gateway = setup(&origin, keycloak("jwks_url", &provider.url())).start();
    let theirs = key.sign(&claims(json!({})));
    await_keys(&gateway, &theirs);
    assert_eq!(provider.origin.last().target, "/realms/main/certs?x=y");
    assert_eq!(provider.origin.last().header("host"), Some(provider.origin.address.to_string().as_str()));
    let (ours, flask) = (gateway.register("alice").access, flask_token(json!({})));
    for (path, by_us, by_them, by_flask) in [
        ("/public/a", 200, 200, 200),
        ("/secret", 200, 403, 403),
        ("/optional/a", 200, 403, 403),
        ("/admin/a", 403, 403, 403),
        ("/theirs/a", 403, 200, 403),
        ("/flask", 403, 403, 200),
        ("/both", 200, 200, 403),
        ("/analysts", 403, 200, 403),
        ("/admins", 403, 403, 403),
    ] {
        for (whose, token, status) in
            [("ours", &ours, by_us), ("theirs", &theirs, by_them), ("Flask's", &flask, by_flask)]
        {
            let answer = ask(&gateway, path, token);
            assert_eq!(answer.status, status, "{path}, {whose}: {answer:?}");
            assert_eq!(answer.code(), if status == 403 { "forbidden" } else { "" }, "{path}, {whose}");
        }
    }
    assert_eq!(ask(&gateway, "/secret", &theirs).message(), format!("Tokens of {ISSUER} do not open this"));
    assert_eq!(ask(&gateway, "/theirs/a", &ours).message(), "Tokens of this gateway itself do not open this");
}

#[test]
fn the_upstream_is_told_whose_alice_it_is() {
    let (origin, key) = (Origin::start(), Key::new("k1", Algorithm::ES256));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    std::fs::write(&path, set(&[&key])).unwrap();
    let mut trusted = keycloak("jwks_file", path.to_str().unwrap());
    trusted["subject_claim"] = json!("preferred_username");
    let gateway = setup(&origin, trusted).start();
    let id = jwt::fresh_id();
    assert_eq!(ask(&gateway, "/both", &key.sign(&claims(json!({"jti": id})))).status, 200);
    let seen = origin.last();
    for (name, value) in [
        ("x-auth-subject", "alice.liddell"),
        ("x-auth-issuer", ISSUER),
        ("x-auth-roles", "analyst,offline_access"),
        ("x-auth-token-id", &id),
        ("x-auth-session", "a-session-there"),
    ] {
        assert_eq!(seen.all(name), [value]);
    }
    let forged = get("/both").bearer(&gateway.register("alice").access).header("X-Auth-Issuer", ISSUER);
    assert_eq!(forged.send(gateway.public).status, 200);
    assert!(origin.last().all_like("x-auth-issuer").is_empty(), "our own tokens name no issuer");
}

#[test]
fn every_kind_of_key_verifies_by_its_own_algorithm() {
    let origin = Origin::start();
    let keys = [
        Key::new("rs", Algorithm::RS256),
        Key::new("ps", Algorithm::PS512),
        Key::new("p256", Algorithm::ES256),
        Key::new("p384", Algorithm::ES384),
        Key::new("ed", Algorithm::EdDSA),
    ];
    let provider = Provider::start(&keys.iter().collect::<Vec<_>>());
    let gateway = setup(&origin, keycloak("jwks_url", &provider.url())).start();
    for key in &keys {
        await_keys(&gateway, &key.sign(&claims(json!({}))));
        let unnamed = key.sign_with(&json!({"alg": key.algorithm}), &claims(json!({})));
        assert_eq!(
            ask(&gateway, "/theirs/a", &unnamed).status,
            200,
            "{}: of one key a kind no name is needed",
            key.kid
        );
    }
    let secret = keys[2].public()["x"].as_str().unwrap().to_owned();
    let hmac = |header: Value, secret: &[u8]| {
        jwt::sign_text(&header.to_string(), &claims(json!({})).to_string(), secret, aws_lc_rs::hmac::HMAC_SHA256)
    };
    let text = set(&[&keys[2]]);
    for (what, token) in [
        ("a public key as HMAC secret", hmac(json!({"alg": "HS256", "kid": "p256"}), secret.as_bytes())),
        ("the set as HMAC secret", hmac(json!({"alg": "HS256"}), text.as_bytes())),
        ("the other issuer's secret", hmac(json!({"alg": "HS256"}), FLASK_SECRET.as_bytes())),
        ("our own secret", hmac(json!({"alg": "HS256"}), crate::harness::SECRET.as_bytes())),
        ("none", hmac(json!({"alg": "none", "kid": "p256"}), b"x")),
        (
            "an algorithm that is not the key's",
            keys[0].sign_with(&json!({"alg": "RS256", "kid": "ps"}), &claims(json!({}))),
        ),
        ("another key of the set", keys[2].sign_with(&json!({"alg": "ES256", "kid": "p384"}), &claims(json!({})))),
        (
            "an embedded key",
            keys[2].sign_with(&json!({"alg": "ES256", "kid": "p256", "jwk": keys[2].public()}), &claims(json!({}))),
        ),
    ] {
        let answer = ask(&gateway, "/theirs/a", &token);
        assert_eq!((answer.status, answer.code()), (401, "token_invalid"), "{what}: {answer:?}");
    }
}

#[test]
fn what_a_token_of_others_must_have() {
    let (origin, key) = (Origin::start(), Key::new("k", Algorithm::EdDSA));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    std::fs::write(&path, set(&[&key])).unwrap();
    let mut trusted = keycloak("jwks_file", path.to_str().unwrap());
    trusted["algorithms"] = json!(["EdDSA"]);
    let gateway = setup(&origin, trusted).start();
    for (changes, status, code) in [
        (json!({}), 200, ""),
        (json!({"aud": "app"}), 200, ""),
        (json!({"jti": null, "sid": null, "iat": null, "typ": null, "realm_access": null}), 200, ""),
        (json!({"exp": now() - 10}), 200, ""),
        (json!({"exp": now() - 40}), 401, "token_expired"),
        (json!({"exp": null}), 401, "token_invalid"),
        (json!({"exp": "9999999999"}), 401, "token_invalid"),
        (json!({"nbf": now() + 100}), 401, "token_invalid"),
        (json!({"iat": now() + 100}), 401, "token_invalid"),
        (json!({"sub": null}), 401, "token_invalid"),
        (json!({"sub": 7}), 200, ""),
        (json!({"sub": -7}), 200, ""),
        (json!({"sub": 7.5}), 401, "token_invalid"),
        (json!({"sub": 1e20}), 401, "token_invalid"),
        (json!({"sub": true}), 401, "token_invalid"),
        (json!({"sub": ["alice"]}), 401, "token_invalid"),
        (json!({"sub": "a\nb"}), 401, "token_invalid"),
        (json!({"jti": 7}), 401, "token_invalid"),
        (json!({"jti": ""}), 401, "token_invalid"),
        (json!({"aud": null}), 401, "token_invalid"),
        (json!({"aud": "another"}), 401, "token_invalid"),
        (json!({"iss": null}), 401, "token_invalid"),
        (json!({"iss": "https://evil.example"}), 401, "token_invalid"),
        (json!({"iss": format!("{ISSUER}/")}), 401, "token_invalid"),
        (json!({"iss": [ISSUER]}), 401, "token_invalid"),
        (json!({"iss": FLASK}), 401, "token_invalid"),
        (json!({"typ": "Logout"}), 401, "token_invalid"),
        (json!({"type": "refresh"}), 401, "token_wrong_type"),
        (json!({"type": "password_reset"}), 401, "token_invalid"),
        (json!({"type": 1}), 401, "token_invalid"),
        (json!({"type": "Bearer"}), 200, ""),
    ] {
        let answer = ask(&gateway, "/theirs/a", &key.sign(&claims(changes.clone())));
        assert_eq!((answer.status, answer.code()), (status, code), "{changes}: {answer:?}");
    }
    assert_eq!(ask(&gateway, "/flask", &flask_token(json!({}))).status, 200);
    assert_eq!(ask(&gateway, "/flask", &flask_token(json!({"iss": ISSUER}))).code(), "token_invalid");
}

#[test]
fn refresh_and_id_tokens_of_others_open_nothing() {
    let (origin, key) = (Origin::start(), Key::new("k", Algorithm::EdDSA));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    std::fs::write(&path, set(&[&key])).unwrap();
    let gateway = setup(&origin, keycloak("jwks_file", path.to_str().unwrap())).start();
    let token = |changes: &Value| {
        let mut all = json!({"typ": null});
        all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        key.sign(&claims(all))
    };
    let places = ["/theirs/a", "/both", "/analysts", "/auth/verify", "/logout/access"];
    for name in ["typ", "type", "token_type", "token_use", "tokenType", "tokenName"] {
        for value in ["refresh", "Refresh", "refresh_token", "refresh-token", "Offline", "id", "ID", "id_token"] {
            let changes = json!({name: value});
            for place in places {
                let answer = post(place).bearer(&token(&changes)).send(gateway.public);
                assert_eq!((answer.status, answer.code()), (401, "token_wrong_type"), "{place}, {changes}: {answer:?}");
            }
            let answer = post("/logout/refresh").bearer(&token(&changes)).send(gateway.public);
            let expected = if value.to_lowercase().starts_with("id") { 401 } else { 200 };
            assert_eq!(answer.status, expected, "{changes}: {answer:?}");
        }
        for value in ["access", "Bearer", "access_token", "access-token"] {
            let changes = json!({name: value});
            assert_eq!(ask(&gateway, "/theirs/a", &token(&changes)).status, 200, "{changes}");
        }
    }
    for (changes, code) in [
        (json!({"typ": "Bearer", "token_use": "id"}), "token_wrong_type"),
        (json!({"token_use": "access", "type": "refresh"}), "token_wrong_type"),
        (json!({"token_type": "invitation"}), "token_invalid"),
        (json!({"token_use": 7}), "token_invalid"),
        (json!({"tokenType": "JWTToken", "tokenName": "id_token"}), "token_wrong_type"),
        (json!({"tokenType": "member", "tokenName": 7}), ""),
        (json!({"typ": "verify-email"}), "token_invalid"),
        (json!({"token_type": "sliding"}), ""),
    ] {
        assert_eq!(ask(&gateway, "/theirs/a", &token(&changes)).code(), code, "{changes}");
    }
    assert_eq!(ask(&gateway, "/both", &token(&json!({"sub": 4217}))).status, 200);
    assert_eq!(origin.last().all("x-auth-subject"), ["4217"]);
    let simple = flask_token(json!({"type": null, "token_type": "refresh", "sub": 1}));
    assert_eq!(ask(&gateway, "/flask", &simple).code(), "token_wrong_type");
}

#[test]
fn their_tokens_are_logged_out_here() {
    let (origin, key) = (Origin::start(), Key::new("k", Algorithm::EdDSA));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    std::fs::write(&path, set(&[&key])).unwrap();
    let setup = setup(&origin, keycloak("jwks_file", path.to_str().unwrap()));
    let mut gateway = setup.clone().start();
    let id = jwt::fresh_id();
    let (named, unnamed) = (key.sign(&claims(json!({"jti": id}))), key.sign(&claims(json!({"jti": null}))));
    let other = key.sign(&claims(json!({"jti": null, "azp": "another"})));
    let namesake = flask_token(json!({"jti": id}));
    let ours = jwt::token_with("alice", &json!({"jti": id}));
    for token in [&named, &unnamed] {
        assert_eq!(ask(&gateway, "/theirs/a", token).status, 200);
        let answer = post("/logout/access").bearer(token).send(gateway.public);
        assert_eq!((answer.status, answer.message().as_str()), (200, "Access token has been revoked"));
        assert_eq!(ask(&gateway, "/theirs/a", token).code(), "token_revoked");
    }
    let all_others_live = |gateway: &Gateway| {
        assert_eq!(
            ask(gateway, "/theirs/a", &other).status,
            200,
            "no token without jti is revoked by another's logout"
        );
        assert_eq!(ask(gateway, "/flask", &namesake).status, 200, "an id is one issuer's");
        assert_eq!(ask(gateway, "/secret", &ours).status, 200, "and not ours");
    };
    all_others_live(&gateway);
    gateway.kill();
    let again = setup.start_in(Arc::clone(&gateway.folder));
    for token in [&named, &unnamed] {
        assert_eq!(ask(&again, "/theirs/a", token).code(), "token_revoked", "also after a crash");
    }
    all_others_live(&again);
    let done = again.cli(&["tokens", "revoke", &other], "");
    assert!(done.status.success(), "{}", said(&done));
    assert!(holds_within(Duration::from_secs(1), || ask(&again, "/theirs/a", &other).code() == "token_revoked"));
}

#[test]
fn a_logout_ends_their_session_and_none_of_ours() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address)
        .set("tokens.trusted", json!([flask()]))
        .and_routes(json!([{"path": "/flask", "upstream": "app", "auth": {"issuers": [FLASK]}}]))
        .start();
    let ours = gateway.register("alice").access;
    let sid = jwt::claims_of(&ours)["sid"].clone();
    let token = |jti: &str, sid: &Value| flask_token(json!({"jti": jti, "sid": sid}));
    let (one, other, alone) = (token("1", &sid), token("2", &sid), token("3", &json!("another")));
    assert_eq!(ask(&gateway, "/flask", &other).status, 200);
    assert_eq!(post("/logout").bearer(&one).send(gateway.public).status, 200);
    for (token, code) in [(&one, "token_revoked"), (&other, "token_revoked"), (&alone, "")] {
        assert_eq!(ask(&gateway, "/flask", token).code(), code);
    }
    assert_eq!(gateway.try_token(&ours), 200, "of the same sid, and ours");
    let done = gateway.cli(&["tokens", "inspect", "-"], &alone);
    assert!(
        said(&done).contains(&format!("account:  none of this gateway: the token is of {FLASK}")),
        "{}",
        said(&done)
    );
    assert!(said(&done).contains(&format!("key:      one of {FLASK}")), "{}", said(&done));
}

#[test]
fn the_command_line_ends_their_tokens_by_id_and_session() {
    let origin = Origin::start();
    let gateway = setup(&origin, json!({"issuer": ISSUER, "secret": format!("{FLASK_SECRET}, and another")})).start();
    let ours = gateway.register("alice").access;
    let sid = jwt::claims_of(&ours)["sid"].clone();
    let id = jwt::fresh_id();
    let token = |jti: &str, sid: &Value| flask_token(json!({"jti": jti, "sid": sid}));
    let [one, same_session, other] = [token(&id, &sid), token("2", &sid), token("3", &json!("another"))];
    let namesake = jwt::token_with("alice", &json!({"jti": id}));
    let revoke = |what: &[&str]| {
        let done = gateway.cli(&[&["tokens", "revoke"], what].concat(), "");
        assert!(done.status.success() && said(&done).contains(&format!("of {FLASK} has been revoked")), "{done:?}");
        assert!(!said(&done).contains("no session"), "{done:?}");
        assert!(said(&done).contains(&format!("\"issuer\":\"{FLASK}\"")), "the audit tells whose: {done:?}");
    };
    let is_refused = |token: &str| {
        assert!(holds_within(Duration::from_secs(1), || ask(&gateway, "/flask", token).code() == "token_revoked"));
    };
    revoke(&["--jti", &id, "--issuer", FLASK]);
    is_refused(&one);
    assert_eq!(ask(&gateway, "/flask", &same_session).status, 200, "one token alone");
    assert_eq!(gateway.try_token(&namesake), 200, "of the same jti, and ours");
    revoke(&["--session", sid.as_str().unwrap(), "--issuer", FLASK]);
    is_refused(&same_session);
    assert_eq!(ask(&gateway, "/flask", &other).status, 200);
    assert_eq!(gateway.try_token(&ours), 200, "of the same sid, and ours");
    for (wrong, code, text) in [
        (&["--jti", "3", "--issuer", "nobody"][..], 1, format!("it names: {ISSUER}, {FLASK}; leave --issuer out")),
        (&["--user", "alice", "--issuer", FLASK], 2, "cannot be used with".into()),
        (&["--before", "now", "--issuer", FLASK], 2, "cannot be used with".into()),
        (&[&other, "--issuer", FLASK], 2, "cannot be used with".into()),
        (&["--issuer", FLASK], 2, "required".into()),
    ] {
        let done = gateway.cli(&[&["tokens", "revoke"], wrong].concat(), "");
        assert_eq!(done.status.code(), Some(code), "{wrong:?}: {}", said(&done));
        assert!(said(&done).contains(&text), "{wrong:?}: {}", said(&done));
    }
    assert_eq!(ask(&gateway, "/flask", &other).status, 200, "what was refused revoked nothing");
}

#[test]
fn the_endpoints_are_for_our_own_users() {
    let (origin, key) = (Origin::start(), Key::new("k", Algorithm::EdDSA));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    std::fs::write(&path, set(&[&key])).unwrap();
    let setup = setup(&origin, keycloak("jwks_file", path.to_str().unwrap()));
    let gateway = setup.set("server.trusted_proxies", json!(["127.0.0.1"])).start();
    gateway.add_user("alice", "admin");
    let token = key.sign(&claims(json!({"roles": ["admin"], "realm_access": {"roles": ["admin"]}})));
    for asked in [get("/users"), request("DELETE", "/users")] {
        let answer = asked.bearer(&token).send(gateway.public);
        assert_eq!((answer.status, answer.code()), (403, "forbidden"), "their alice is not ours: {answer:?}");
    }
    let refresh = flask_token(json!({"type": "refresh"}));
    let answer = post("/token/refresh").bearer(&refresh).send(gateway.public);
    assert_eq!((answer.status, answer.code()), (403, "forbidden"), "{answer:?}");
    let verify = |uri: Option<&str>, token: &str| {
        let mut asked = get("/auth/verify").bearer(token);
        if let Some(uri) = uri {
            asked = asked.header("X-Forwarded-Method", "GET").header("X-Forwarded-Host", "h");
            asked = asked.header("X-Forwarded-Uri", uri);
        }
        asked.send(gateway.public)
    };
    let answer = verify(None, &token);
    assert_eq!((answer.status, answer.header("x-auth-issuer")), (200, Some(ISSUER)));
    for (uri, status) in [("/theirs/a", 200), ("/both", 200), ("/secret", 403), ("/optional/a", 403), ("/flask", 403)] {
        assert_eq!(verify(Some(uri), &token).status, status, "{uri}");
    }
}

#[test]
fn the_command_line_judges_by_the_keys_that_the_provider_publishes() {
    let (origin, key) = (Origin::start(), Key::new("k", Algorithm::ES256));
    let provider = Provider::start(&[&key]);
    let gateway = setup(&origin, keycloak("jwks_url", &provider.url())).start();
    let (token, own) = (key.sign(&claims(json!({}))), gateway.register("alice").access);
    await_keys(&gateway, &token);
    let mut fetched = provider.origin.count();
    let mut cli = |arguments: &[&str], token: &str, fetches: usize| {
        let done = gateway.cli(arguments, token);
        fetched += fetches;
        assert_eq!(provider.origin.count(), fetched, "{arguments:?}: {}", said(&done));
        (done.status.code(), said(&done))
    };
    let explain = ["explain", "GET", "/theirs/a", "--token", "-"];
    let (code, told) = cli(&explain, &token, 1);
    assert!(code == Some(0) && told.contains("verdict:  passes") && told.contains(ISSUER), "{told}");
    let (code, told) = cli(&["explain", "GET", "/secret", "--token", "-"], &own, 0);
    assert!(code == Some(0) && told.contains("verdict:  passes"), "{told}");
    let (code, told) = cli(&["tokens", "inspect", "-"], &token, 1);
    assert!(code == Some(0) && told.contains("verdict:  good until"), "{told}");
    let forged = Key::new("k", Algorithm::ES256).sign(&claims(json!({})));
    let (code, told) = cli(&["tokens", "revoke", "-"], &forged, 1);
    assert!(code == Some(1) && told.contains("Signature verification failed"), "{told}");
    let (code, told) = cli(&["tokens", "revoke", "-"], &token, 1);
    assert!(code == Some(0) && told.contains("has been revoked"), "{told}");
    assert!(holds_within(Duration::from_secs(1), || ask(&gateway, "/theirs/a", &token).code() == "token_revoked"));
    provider.up.store(false, Ordering::Relaxed);
    for command in [&explain[..], &["tokens", "inspect", "-"], &["tokens", "revoke", "-"]] {
        let (code, told) = cli(command, &token, 1);
        assert_eq!(code, Some(1), "{told}");
        for part in [ISSUER, &provider.url(), "500 Internal Server Error", "tokens revoke --jti JTI --issuer"] {
            assert!(told.contains(part), "{part} in {told}");
        }
    }
    let (code, told) = cli(&["explain", "GET", "/public/a", "--token", "-"], &token, 1);
    assert!(code == Some(0) && told.contains("nobody looks at the token here"), "{told}");
}

#[test]
fn the_keys_of_one_gateway_open_another() {
    let (origin, idle) = (Origin::start(), Origin::start());
    let first = Setup::new(idle.address)
        .unset("tokens", "secret")
        .set("tokens", json!({"algorithm": "EdDSA", "issuer": ISSUER, "audience": "app"}))
        .start();
    let url = format!("http://{}/.well-known/jwks.json", first.public);
    let second = setup(&origin, json!({"issuer": ISSUER, "jwks_url": url, "audience": "app"})).start();
    let tokens = first.register("alice");
    await_keys(&second, &tokens.access);
    assert_eq!(origin.last().all("x-auth-issuer"), [ISSUER]);
    assert_eq!(ask(&second, "/theirs/a", &tokens.refresh).code(), "token_wrong_type");
    let explained = second.cli(&["explain", "GET", "/both"], "");
    assert!(said(&explained).contains(&format!("issued by local or {ISSUER}")), "{}", said(&explained));
}

//! The keys of trusted issuers: fetched, kept, replaced and withdrawn while the gateway runs.

use std::sync::atomic::Ordering;
use std::time::Duration;

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use crate::harness::{Setup, await_that, holds_within, said};
use crate::jwt;
use crate::origin::{Exchange, Origin};
use crate::provider::{FLASK, ISSUER, Key, Provider, ask, await_keys, claims, flask_token, keycloak, set, setup};
use crate::trusted_fetch::serve;
use crate::upstream_tls::Authority;
use crate::wire::{Connection, get};

#[test]
fn an_unreachable_provider_stops_no_known_key() {
    let (origin, key, new) = (Origin::start(), Key::new("k", Algorithm::ES256), Key::new("new", Algorithm::ES256));
    let provider = Provider::start(&[&key]);
    provider.up.store(false, Ordering::Relaxed);
    let gateway = setup(&origin, keycloak("jwks_url", &provider.url())).start();
    let token = key.sign(&claims(json!({})));
    let answer = ask(&gateway, "/theirs/a", &token);
    assert_eq!(
        (answer.status, answer.code()),
        (503, "unavailable"),
        "a client must not throw its token away: {answer:?}"
    );
    assert_eq!(gateway.try_token(&gateway.register("alice").access), 200, "our own users feel nothing");
    await_that("the log says so", || gateway.output().contains("cannot be fetched"));
    provider.up.store(true, Ordering::Relaxed);
    await_keys(&gateway, &token);
    provider.up.store(false, Ordering::Relaxed);
    let fetched = provider.origin.count();
    let mut connection = Connection::open(gateway.public);
    for _ in 0..50 {
        let answer = get("/theirs/a").bearer(&new.sign(&claims(json!({})))).send_on(&mut connection, gateway.public);
        assert_eq!(answer.unwrap().code(), "token_invalid");
        let answer = get("/theirs/a").bearer(&token).send_on(&mut connection, gateway.public).unwrap();
        assert_eq!(answer.status, 200);
    }
    assert_eq!(provider.origin.count(), fetched, "an unknown key fetches at most once a minute");
}

/// Slow: keys that are known are fetched again after a minute at the soonest.
#[test]
fn a_token_by_a_new_key_has_the_keys_of_its_issuer_fetched_early() {
    let unnamed = |key: &Key| {
        let mut public = key.public();
        public.as_object_mut().unwrap().remove("kid");
        json!({"keys": [public]}).to_string()
    };
    let origin = Origin::start();
    let kinds = [
        ("https://same.example", Algorithm::ES256, Algorithm::ES256),
        ("https://other.example", Algorithm::RS256, Algorithm::ES256),
        ("https://quiet.example", Algorithm::EdDSA, Algorithm::EdDSA),
    ];
    let issuers: Vec<&str> = kinds.iter().map(|(issuer, ..)| *issuer).collect();
    let (old, new) = (kinds.map(|(_, old, _)| Key::new("", old)), kinds.map(|(.., new)| Key::new("", new)));
    let providers = old.each_ref().map(|key| Provider::start(&[key]));
    let trusted = kinds.iter().zip(&providers).zip(&old).map(|(((issuer, from, to), provider), key)| {
        *provider.document.lock().unwrap() = unnamed(key);
        json!({"issuer": issuer, "jwks_url": provider.url(), "audience": "app", "algorithms": [from, to]})
    });
    let gateway = Setup::new(origin.address)
        .set("tokens.trusted", trusted.collect())
        .and_routes(json!([{"path": "/theirs/*", "upstream": "app", "auth": {"issuers": issuers}}]))
        .start();
    let token = |key: &Key, issuer: &str| {
        key.sign_with(&json!({"alg": key.algorithm}), &claims(json!({"iss": issuer, "jti": null})))
    };
    let tokens = |keys: &[Key; 3]| [0, 1, 2].map(|at| token(&keys[at], issuers[at]));
    let (by_old, by_new) = (tokens(&old), tokens(&new));
    by_old.iter().for_each(|token| await_keys(&gateway, token));
    for (provider, key) in providers.iter().zip(&new) {
        *provider.document.lock().unwrap() = unnamed(key);
    }
    // One of our own that was tampered with, which is no business of anybody else.
    let ours = jwt::access("alice");
    let ours = format!("{}{}", ours.rsplit_once('.').unwrap().0, ".AAAA");
    let try_all = || {
        assert_eq!(ask(&gateway, "/secret", &ours).code(), "token_invalid");
        [0, 1].map(|at| ask(&gateway, "/theirs/a", &by_new[at]).code().to_owned())
    };
    assert_eq!(try_all(), ["token_invalid"; 2]);
    let fetched = holds_within(Duration::from_secs(90), || {
        std::thread::sleep(Duration::from_millis(200));
        try_all() == ["", ""]
    });
    assert!(fetched, "not within a minute, or so");
    assert_eq!(ask(&gateway, "/theirs/a", &by_old[0]).code(), "token_invalid", "a key that is gone verifies no more");
    let count = || providers.each_ref().map(|provider| provider.origin.count());
    assert!(!holds_within(Duration::from_secs(1), || try_all() != ["", ""] || count() != [2, 2, 1]), "{:?}", count());
    assert_eq!(ask(&gateway, "/theirs/a", &by_new[2]).code(), "token_invalid");
    await_that("its keys are fetched at once", || ask(&gateway, "/theirs/a", &by_new[2]).status == 200);
}

#[test]
fn nonsense_of_a_provider_changes_nothing() {
    let (origin, key) = (Origin::start(), Key::new("k", Algorithm::ES256));
    let large = format!("{{\"keys\": [], \"x\": \"{}\"}}", "x".repeat(2 << 20));
    for document in ["", "[]", "{\"keys\": {}}", "{\"keys\": [7]}", "<html>", &large] {
        let provider = Provider::start(&[]);
        document.clone_into(&mut provider.document.lock().unwrap());
        let gateway = setup(&origin, keycloak("jwks_url", &provider.url())).start();
        await_that("the log says so", || gateway.output().contains("cannot be fetched"));
        assert_eq!(ask(&gateway, "/theirs/a", &key.sign(&claims(json!({})))).status, 503);
    }
    let redirect = Origin::scripted(|exchange| exchange.answer("302 Found", "Location: /elsewhere\r\n", ""));
    let gateway = setup(&origin, keycloak("jwks_url", &format!("http://{}/a", redirect.address))).start();
    await_that("the log says so", || gateway.output().contains("it answered 302"));
    assert!(redirect.seen().iter().all(|seen| seen.target == "/a"), "redirects are not followed");
}

#[test]
fn a_provider_that_publishes_no_keys_has_withdrawn_them() {
    let (origin, key) = (Origin::start(), Key::new("k", Algorithm::ES256));
    let provider = Provider::start(&[&key]);
    provider.up.store(false, Ordering::Relaxed);
    let gateway = setup(&origin, keycloak("jwks_url", &provider.url())).start();
    let age = || {
        let metrics = get("/metrics").send(gateway.admin).text();
        assert!(!metrics.contains(&format!("portcullis_trusted_keys_age_seconds{{issuer=\"{FLASK}\"")));
        let of = format!("portcullis_trusted_keys_age_seconds{{issuer=\"{ISSUER}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&of)?.parse::<u64>().ok())
    };
    assert_eq!(age(), None, "never fetched");
    provider.up.store(true, Ordering::Relaxed);
    let token = key.sign(&claims(json!({})));
    await_keys(&gateway, &token);
    await_that("they age", || age() >= Some(1));
    // At a reload all keys are fetched anew.
    let publish = |document: &str| {
        let fetched = provider.origin.count();
        document.clone_into(&mut provider.document.lock().unwrap());
        gateway.signal("HUP");
        await_that("the keys are fetched again", || provider.origin.count() > fetched);
    };
    let mut warm = Connection::open(gateway.public);
    let mut on_warm = || get("/theirs/a").bearer(&token).send_on(&mut warm, gateway.public).unwrap();
    let told = || gateway.output().matches("what is known of them stays").count();
    let before = told();
    publish("{\"keys\": \"none\"}");
    await_that("the log says so", || told() > before);
    assert_eq!((on_warm().status, age() >= Some(1)), (200, true), "nonsense withdraws nothing");
    let says =
        |line: &Value| line["level"] == "WARN" && line["issuer"] == ISSUER && line.to_string().contains("no key");
    let told = || gateway.log().iter().filter(|line| says(line)).count();
    for document in [json!({"keys": []}), json!({"keys": [{"kty": "oct", "k": "c2VjcmV0"}]})] {
        let before = told();
        publish(&document.to_string());
        await_that("its tokens are refused", || on_warm().status == 401);
        assert_eq!(on_warm().code(), "token_invalid");
        await_that("the log says so", || told() > before);
        assert_eq!(ask(&gateway, "/flask", &flask_token(json!({}))).status, 200, "others feel nothing");
        publish(&set(&[&key]));
        await_that("its tokens are good again", || on_warm().status == 200);
    }
    assert!(age().is_some(), "they are known again");
    let never = Provider::start(&[]);
    let gateway = setup(&origin, keycloak("jwks_url", &never.url())).start();
    await_that("the log says so", || gateway.output().contains("publishes no key"));
    await_that("its tokens are refused for good", || ask(&gateway, "/theirs/a", &token).code() == "token_invalid");
}

/// RFC 9864 names the algorithm of Ed25519 keys by their curve.
#[test]
fn ed25519_is_eddsa_by_another_name() {
    let (origin, key) = (Origin::start(), Key::new("k", Algorithm::EdDSA));
    for (published, allowed) in [("Ed25519", "Ed25519"), ("Ed25519", "EdDSA"), ("EdDSA", "Ed25519"), ("EdDSA", "EdDSA")]
    {
        let mut public = key.public();
        public["alg"] = json!(published);
        let provider = Provider::start(&[]);
        *provider.document.lock().unwrap() = json!({"keys": [public]}).to_string();
        let mut trusted = keycloak("jwks_url", &provider.url());
        trusted["algorithms"] = json!([allowed]);
        let gateway = setup(&origin, trusted).set("tokens.algorithm", json!(allowed)).unset("tokens", "secret").start();
        await_keys(&gateway, &key.sign(&claims(json!({}))));
        for name in ["EdDSA", "Ed25519"] {
            let answer =
                ask(&gateway, "/theirs/a", &key.sign_with(&json!({"alg": name, "kid": "k"}), &claims(json!({}))));
            assert_eq!(answer.status, 200, "{published}, {allowed}, {name}: {answer:?}");
        }
        let other = key.sign_with(&json!({"alg": "Ed448", "kid": "k"}), &claims(json!({})));
        assert_eq!(ask(&gateway, "/theirs/a", &other).code(), "token_invalid");
        assert_eq!(gateway.try_token(&gateway.register("alice").access), 200);
        assert!(get("/.well-known/jwks.json").send(gateway.public).text().contains("EdDSA"));
    }
}

#[test]
fn many_keys_without_a_name_are_all_tried() {
    let origin = Origin::start();
    let keys: Vec<Key> = (0..40).map(|_| Key::new("", Algorithm::ES256)).collect();
    let rsa = Key::new("", Algorithm::RS256);
    let unnamed = keys.iter().chain([&rsa]).map(|key| {
        let mut public = key.public();
        public.as_object_mut().unwrap().remove("kid");
        public
    });
    let provider = Provider::start(&[]);
    *provider.document.lock().unwrap() = json!({"keys": unnamed.collect::<Vec<_>>()}).to_string();
    let gateway = setup(&origin, keycloak("jwks_url", &provider.url())).start();
    for (nth, key) in keys.iter().enumerate() {
        for header in [json!({"alg": "ES256"}), json!({"alg": "ES256", "kid": "none of theirs has one"})] {
            let token = key.sign_with(&header, &claims(json!({})));
            await_that("the keys are fetched", || ask(&gateway, "/theirs/a", &token).code() != "unavailable");
            let answer = ask(&gateway, "/theirs/a", &token);
            assert_eq!(answer.status, 200, "key {nth}, {header}: {answer:?}");
        }
    }
    let stranger = Key::new("", Algorithm::ES256).sign_with(&json!({"alg": "ES256"}), &claims(json!({})));
    assert_eq!(ask(&gateway, "/theirs/a", &stranger).code(), "token_invalid");
}

/// Answers, and at a path that ends in `stream` goes on answering.
fn answer_or_stream(exchange: &mut Exchange<'_>) {
    if !exchange.seen.target.ends_with("stream") {
        return exchange.answer("200 OK", "", "");
    }
    exchange.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    while !exchange.is_closing() {
        exchange.write(b"2\r\nhi\r\n");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_key_that_is_published_again_with_other_members_is_the_same_key() {
    let (origin, key) = (Origin::scripted(answer_or_stream), Key::new("k", Algorithm::RS256));
    let provider = Provider::start(&[&key]);
    let gateway = setup(&origin, keycloak("jwks_url", &provider.url())).start();
    let token = key.sign(&claims(json!({})));
    await_keys(&gateway, &token);
    let publish = |changes: &Value| {
        let mut public = key.public();
        public.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        *provider.document.lock().unwrap() = json!({"keys": [public]}).to_string();
        let told = gateway.output().matches("can be fetched again").count();
        provider.up.store(true, Ordering::Relaxed);
        await_that("they are known", || gateway.output().matches("can be fetched again").count() > told);
    };
    // After a failure the keys are fetched again soon, without another reload, which would forget all that is known of tokens.
    let fail = || {
        provider.up.store(false, Ordering::Relaxed);
        let told = gateway.output().matches("what is known of them stays").count();
        gateway.signal("HUP");
        await_that("the log says so", || gateway.output().matches("what is known of them stays").count() > told);
    };
    let zeros = |name: &str| {
        let number = jwt::from_base64url(key.public()[name].as_str().unwrap());
        jwt::base64url(&[vec![0], number].concat())
    };
    for (what, changes, code) in [
        ("another certificate", json!({"x5t": "b", "x5c": ["MIIB"]}), ""),
        ("an alg", json!({"x5t": "c", "alg": "RS256"}), ""),
        ("leading zeros", json!({"n": zeros("n"), "e": zeros("e")}), ""),
        ("operations", json!({"key_ops": ["verify"]}), ""),
        ("another alg", json!({"alg": "PS256"}), "token_invalid"),
        ("other operations", json!({"key_ops": ["encrypt"]}), "token_invalid"),
        ("another use", json!({"use": "enc"}), "token_invalid"),
        ("another name", json!({"kid": "other"}), "token_invalid"),
    ] {
        fail();
        let mut warm = Connection::open(gateway.public);
        let mut on_warm = || get("/theirs/a").bearer(&token).send_on(&mut warm, gateway.public).unwrap();
        assert_eq!((on_warm().status, on_warm().status), (200, 200), "{what}");
        let mut stream = Connection::open(gateway.public);
        stream.send(&get("/theirs/stream").bearer(&token).bytes(gateway.public, "")).unwrap();
        assert_eq!(stream.receive_head().unwrap().status, 200);
        publish(&changes);
        let (warm, cold) = (on_warm(), ask(&gateway, "/theirs/a", &token));
        assert_eq!((warm.code(), cold.code()), (code, code), "{what}: {warm:?} {cold:?}");
        // A revoked token ends its streams within a second.
        let ends = holds_within(Duration::from_millis(1500), || !matches!(stream.chunk(), Ok(Some(_))));
        assert_eq!(ends, !code.is_empty(), "{what}");
        fail();
        publish(&json!({}));
        assert_eq!(ask(&gateway, "/theirs/a", &token).status, 200, "{what}, and back");
    }
}

#[test]
fn a_changed_file_of_keys_is_taken_up() {
    let (origin, old, new) = (Origin::start(), Key::new("k", Algorithm::ES256), Key::new("k", Algorithm::ES256));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    std::fs::write(&path, set(&[&old])).unwrap();
    let gateway = setup(&origin, keycloak("jwks_file", path.to_str().unwrap())).start();
    let (by_old, by_new) = (old.sign(&claims(json!({}))), new.sign(&claims(json!({}))));
    let mut warm = Connection::open(gateway.public);
    let mut on_warm = || get("/theirs/a").bearer(&by_old).send_on(&mut warm, gateway.public).unwrap().status;
    assert_eq!((on_warm(), on_warm(), ask(&gateway, "/theirs/a", &by_new).status), (200, 200, 401));
    std::fs::write(&path, set(&[&new])).unwrap();
    await_that("the new key verifies", || ask(&gateway, "/theirs/a", &by_new).status == 200);
    assert_eq!(on_warm(), 401, "a key that is gone verifies no more, however well its token is known");
    std::fs::write(&path, "{\"keys\": []}").unwrap();
    await_that("the log says so", || gateway.output().contains("the old configuration stays"));
    assert_eq!(ask(&gateway, "/theirs/a", &by_new).status, 200);
    let checked = gateway.cli(&["check"], "");
    assert_eq!(checked.status.code(), Some(78), "check finds what a start would");
    assert!(said(&checked).contains("it holds no key that can verify tokens"), "{}", said(&checked));
}

#[test]
fn keys_are_fetched_by_https_with_the_roots_of_the_system() {
    let (origin, key, authority) = (Origin::start(), Key::new("k", Algorithm::ES256), Authority::new());
    let served = serve(authority.server(&["localhost"], &["http/1.1"]), set(&[&key]));
    let url = format!("https://localhost:{}/keys", served.port());
    let token = key.sign(&claims(json!({})));
    let trusting = setup(&origin, keycloak("jwks_url", &url));
    let gateway = trusting.clone().env("SSL_CERT_FILE", authority.file().to_str().unwrap()).start();
    await_keys(&gateway, &token);
    let other = Authority::new();
    let gateway = trusting.env("SSL_CERT_FILE", other.file().to_str().unwrap()).start();
    await_that("the log says so", || gateway.output().contains("cannot be fetched"));
    assert_eq!(ask(&gateway, "/theirs/a", &token).status, 503);
}

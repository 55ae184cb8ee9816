//! Tokens of others: opened by routes that name their issuer, and never mistaken for those of our own users.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use rustls::{ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::harness::{Gateway, Setup, await_that, holds_within, said};
use crate::jwt::{self, base64url, now};
use crate::origin::Origin;
use crate::upstream_tls::Authority;
use crate::wire::{Connection, Response, get, post, request};

const ISSUER: &str = "https://id.example.com/realms/main";
const FLASK: &str = "the-flask-service";
const FLASK_SECRET: &str = "another-secret-that-a-flask-service-shares-with-us";

/// A key of an identity provider.
struct Key {
    kid: &'static str,
    algorithm: Algorithm,
    key: EncodingKey,
}

impl Key {
    fn new(kid: &'static str, algorithm: Algorithm) -> Self {
        let key = match algorithm {
            Algorithm::EdDSA => {
                EncodingKey::from_ed_der(Ed25519KeyPair::generate().unwrap().to_pkcs8v1().unwrap().as_ref())
            }
            Algorithm::ES256 | Algorithm::ES384 => {
                let curve = if algorithm == Algorithm::ES256 {
                    &ECDSA_P256_SHA256_FIXED_SIGNING
                } else {
                    &ECDSA_P384_SHA384_FIXED_SIGNING
                };
                EncodingKey::from_ec_der(EcdsaKeyPair::generate(curve).unwrap().to_pkcs8v1().unwrap().as_ref())
            }
            _ => {
                let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
                let pkcs8 = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
                EncodingKey::from_rsa_der(&pkcs8.as_ref()[26..])
            }
        };
        Self { kid, algorithm, key }
    }

    fn public(&self) -> Value {
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&self.key, self.algorithm).unwrap()).unwrap();
        jwk["kid"] = json!(self.kid);
        jwk["use"] = json!("sig");
        jwk
    }

    fn sign(&self, claims: &Value) -> String {
        self.sign_with(&json!({"alg": self.algorithm, "typ": "JWT", "kid": self.kid}), claims)
    }

    fn sign_with(&self, header: &Value, claims: &Value) -> String {
        let encode = |value: &Value| base64url(value.to_string().as_bytes());
        let message = format!("{}.{}", encode(header), encode(claims));
        let signature = crypto::sign(message.as_bytes(), &self.key, self.algorithm).unwrap();
        format!("{message}.{signature}")
    }
}

fn set(keys: &[&Key]) -> String {
    json!({"keys": keys.iter().map(|key| key.public()).collect::<Vec<_>>()}).to_string()
}

/// The claims of an access token as Keycloak writes it, with `changes`; a change to null takes the claim away.
fn claims(changes: Value) -> Value {
    let mut claims = json!({
        "iss": ISSUER, "sub": "alice", "aud": ["app", "account"], "exp": now() + 300, "iat": now(), "jti": jwt::fresh_id(),
        "typ": "Bearer", "azp": "app", "sid": "a-session-there", "scope": "openid email",
        "preferred_username": "alice.liddell", "realm_access": {"roles": ["analyst", "offline_access", "two words"]},
    });
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims
}

/// Where a provider publishes its keys.
struct Provider {
    origin: Origin,
    document: Arc<Mutex<String>>,
    up: Arc<AtomicBool>,
}

impl Provider {
    fn start(keys: &[&Key]) -> Self {
        let (document, up) = (Arc::new(Mutex::new(set(keys))), Arc::new(AtomicBool::new(true)));
        let (text, works) = (Arc::clone(&document), Arc::clone(&up));
        let origin = Origin::scripted(move |exchange| {
            if !works.load(Ordering::Relaxed) {
                return exchange.answer("500 Internal Server Error", "", "");
            }
            let text = text.lock().unwrap().clone();
            exchange.answer("200 OK", "Content-Type: application/json\r\n", &text);
        });
        Self { origin, document, up }
    }

    fn url(&self) -> String {
        format!("http://{}/realms/main/certs?x=y", self.origin.address)
    }
}

/// Routes for our own users, for the provider's, for the Flask service's, for both, and for a role of the provider's.
fn setup(origin: &Origin, trusted: Value) -> Setup {
    Setup::new(origin.address).set("tokens.trusted", json!([trusted, flask()])).and_routes(json!([
        {"path": "/theirs/*", "upstream": "app", "auth": {"issuers": [ISSUER]}},
        {"path": "/flask", "upstream": "app", "auth": {"issuers": [FLASK]}},
        {"path": "/both", "upstream": "app", "auth": {"issuers": ["local", ISSUER]}},
        {"path": "/analysts", "upstream": "app", "auth": {"issuers": [ISSUER], "roles": ["analyst"]}},
        {"path": "/admins", "upstream": "app", "auth": {"issuers": [ISSUER], "roles": ["admin"]}},
    ]))
}

fn flask() -> Value {
    json!({"issuer": FLASK, "secret": FLASK_SECRET})
}

fn keycloak(source: &str, value: &str) -> Value {
    json!({"issuer": ISSUER, source: value, "audience": "app", "roles_claim": "realm_access.roles"})
}

#[track_caller]
fn ask(gateway: &Gateway, path: &str, token: &str) -> Response {
    get(path).bearer(token).send(gateway.public)
}

#[track_caller]
fn await_keys(gateway: &Gateway, token: &str) {
    await_that("the keys are fetched", || ask(gateway, "/theirs/a", token).status == 200);
}

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

fn flask_token(changes: Value) -> String {
    let mut all = jwt::claims_with("alice", &json!({"iss": FLASK}));
    all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    let header = r#"{"alg":"HS256","typ":"JWT"}"#;
    jwt::sign_text(header, &all.to_string(), FLASK_SECRET.as_bytes(), aws_lc_rs::hmac::HMAC_SHA256)
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
        (json!({"sub": 7}), 401, "token_invalid"),
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
        (json!({"typ": "ID"}), 401, "token_invalid"),
        (json!({"typ": "Refresh"}), 401, "token_invalid"),
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
    await_that("it is told", || gateway.output().contains("cannot be fetched"));
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
        await_that("it is told", || gateway.output().contains("cannot be fetched"));
        assert_eq!(ask(&gateway, "/theirs/a", &key.sign(&claims(json!({})))).status, 503);
    }
    let redirect = Origin::scripted(|exchange| exchange.answer("302 Found", "Location: /elsewhere\r\n", ""));
    let gateway = setup(&origin, keycloak("jwks_url", &format!("http://{}/a", redirect.address))).start();
    await_that("it is told", || gateway.output().contains("it answered 302"));
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
    await_that("it is told", || told() > before);
    assert_eq!((on_warm().status, age() >= Some(1)), (200, true), "nonsense withdraws nothing");
    let says =
        |line: &Value| line["level"] == "WARN" && line["issuer"] == ISSUER && line.to_string().contains("no key");
    let told = || gateway.log().iter().filter(|line| says(line)).count();
    for document in [json!({"keys": []}), json!({"keys": [{"kty": "oct", "k": "c2VjcmV0"}]})] {
        let before = told();
        publish(&document.to_string());
        await_that("its tokens are refused", || on_warm().status == 401);
        assert_eq!(on_warm().code(), "token_invalid");
        await_that("it is told", || told() > before);
        assert_eq!(ask(&gateway, "/flask", &flask_token(json!({}))).status, 200, "others feel nothing");
        publish(&set(&[&key]));
        await_that("its tokens are good again", || on_warm().status == 200);
    }
    assert!(age().is_some(), "they are known again");
    let never = Provider::start(&[]);
    let gateway = setup(&origin, keycloak("jwks_url", &never.url())).start();
    await_that("it is told", || gateway.output().contains("publishes no key"));
    await_that("its tokens are refused for good", || ask(&gateway, "/theirs/a", &token).code() == "token_invalid");
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
    await_that("it is told", || gateway.output().contains("the old configuration stays"));
    assert_eq!(ask(&gateway, "/theirs/a", &by_new).status, 200);
    let checked = gateway.cli(&["check"], "");
    assert_eq!(checked.status.code(), Some(1), "check finds what a start would");
    assert!(said(&checked).contains("it holds no key that can verify tokens"), "{}", said(&checked));
}

#[test]
fn keys_are_fetched_by_https_with_the_roots_of_the_system() {
    let (origin, key, authority) = (Origin::start(), Key::new("k", Algorithm::ES256), Authority::new());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://localhost:{}/keys", listener.local_addr().unwrap().port());
    let (config, document) = (authority.server(&["localhost"], &["http/1.1"]), set(&[&key]));
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
            let mut buffer = [0; 4096];
            if stream.read(&mut buffer).is_ok() {
                let length = document.len();
                let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{document}");
            }
        }
    });
    let token = key.sign(&claims(json!({})));
    let trusting = setup(&origin, keycloak("jwks_url", &url));
    let gateway = trusting.clone().env("SSL_CERT_FILE", authority.file().to_str().unwrap()).start();
    await_keys(&gateway, &token);
    let other = Authority::new();
    let gateway = trusting.env("SSL_CERT_FILE", other.file().to_str().unwrap()).start();
    await_that("it is told", || gateway.output().contains("cannot be fetched"));
    assert_eq!(ask(&gateway, "/theirs/a", &token).status, 503);
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

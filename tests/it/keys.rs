//! The keys that sign: made, published, rotated and revoked, each while the gateway runs, and kept encrypted.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use aws_lc_rs::hmac;
use rusqlite::Connection as Database;
use serde_json::{Value, json};

use crate::harness::{Gateway, PASSWORD, SECRET, Setup, await_that, credentials, holds_within, run, said};
use crate::jwt::{self, from_base64url};
use crate::origin::Origin;
use crate::python;
use crate::wire::{Connection, Response, get, post, request};

const PATH: &str = "/.well-known/jwks.json";
const ENCRYPTION_KEY: &str = "an encryption key of more than 32 bytes, for tests";

fn setup(origin: &Origin, algorithm: &str) -> Setup {
    Setup::new(origin.address).unset("tokens", "secret").set("tokens.algorithm", json!(algorithm))
}

fn header_of(token: &str) -> Value {
    serde_json::from_slice(&from_base64url(token.split('.').next().unwrap())).unwrap()
}

fn kid_of(token: &str) -> String {
    header_of(token)["kid"].as_str().unwrap().to_owned()
}

#[track_caller]
fn published(gateway: &Gateway) -> Vec<Value> {
    let answer = get(PATH).send(gateway.public);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["keys"].as_array().unwrap().clone()
}

#[track_caller]
fn published_kids(gateway: &Gateway) -> Vec<String> {
    published(gateway).iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn keys(gateway: &Gateway, arguments: &[&str]) -> String {
    let done = gateway.cli(&[&["keys"], arguments].concat(), "");
    assert!(done.status.success(), "keys {arguments:?}: {}", said(&done));
    said(&done)
}

/// Lets the standby's time come: 15 minutes are long.
fn let_time_pass(folder: &Path) {
    let database = Database::open(folder.join("portcullis.db")).unwrap();
    let moved = database.execute("UPDATE signing_key SET ends = 0 WHERE state = 'standby'", []).unwrap();
    assert_eq!(moved, 1);
}

fn edit(gateway: &Gateway, change: impl FnOnce(&mut Value)) {
    let text = std::fs::read_to_string(&gateway.config).unwrap();
    let mut config = serde_json::from_str(&text).unwrap();
    change(&mut config);
    std::fs::write(&gateway.config, config.to_string()).unwrap();
    gateway.signal("HUP");
}

#[test]
fn every_algorithm_signs_and_is_published() {
    let origin = Origin::start();
    for (algorithm, kind, public) in
        [("EdDSA", "OKP", &["crv", "x"][..]), ("ES256", "EC", &["crv", "x", "y"]), ("RS256", "RSA", &["n", "e"])]
    {
        let gateway = setup(&origin, algorithm).start();
        let tokens = gateway.register("alice");
        for token in [&tokens.access, &tokens.refresh] {
            let header = header_of(token);
            assert_eq!((&header["alg"], &header["typ"]), (&json!(algorithm), &json!("JWT")));
            let [key] = &published(&gateway)[..] else { panic!("one key") };
            assert_eq!((&key["kid"], &key["alg"], &key["use"]), (&header["kid"], &json!(algorithm), &json!("sig")));
            let mut names: Vec<&str> = key.as_object().unwrap().keys().map(String::as_str).collect();
            names.sort_unstable();
            let mut expected = [&["alg", "kid", "kty", "use"], public].concat();
            expected.sort_unstable();
            assert_eq!((&key["kty"], names), (&json!(kind), expected), "and nothing private");
        }
        assert_eq!(gateway.try_token(&tokens.access), 200, "{algorithm}");
        let renewed = post("/token/refresh").bearer(&tokens.refresh).send(gateway.public);
        assert_eq!(gateway.try_token(renewed.json()["access_token"].as_str().unwrap()), 200);
        let (message, _) = tokens.access.rsplit_once('.').unwrap();
        let (_, other) = tokens.refresh.rsplit_once('.').unwrap();
        let answer = get("/secret").bearer(&format!("{message}.{other}")).send(gateway.public);
        assert_eq!((answer.status, answer.message().as_str()), (401, "Signature verification failed"));
        let inspected = gateway.cli(&["tokens", "inspect", &tokens.access], "");
        assert!(said(&inspected).contains("good until"), "{}", said(&inspected));
        assert!(keys(&gateway, &["list"]).contains(&format!("{algorithm:5}  signing")));
    }
}

#[test]
fn pyjwt_verifies_by_the_published_keys() {
    let python = python::python("jose");
    let origin = Origin::start();
    for algorithm in ["EdDSA", "ES256", "RS256"] {
        let gateway = setup(&origin, algorithm).start();
        let mut command = Command::new(&python);
        command.arg(python::source("jose", "verify.py")).arg(format!("http://{}{PATH}", gateway.public));
        command.arg(gateway.register("alice").access);
        let done = run(command, "");
        assert_eq!(String::from_utf8_lossy(&done.stdout), "alice\n", "{algorithm}: {}", said(&done));
    }
}

#[test]
fn the_key_set_stands_where_it_always_stands() {
    let origin = Origin::start();
    for setup in [Setup::new(origin.address), setup(&origin, "HS256"), Setup::flask(origin.address)] {
        let gateway = setup.set("identity.prefix", json!("/auth")).start();
        for path in [PATH, "/.well-known/jwks.json/", "/.well-known//jwks.json?x"] {
            let answer = get(path).send(gateway.public);
            assert_eq!((answer.status, answer.text().as_str()), (200, r#"{"keys":[]}"#), "HS256 is never published");
            assert_eq!(answer.header("cache-control"), Some("public, max-age=600"));
            assert_eq!(answer.header("content-type"), Some("application/json"));
        }
        assert_eq!(request("HEAD", PATH).send(gateway.public).status, 200);
        let answer = post(PATH).send(gateway.public);
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")));
        assert_eq!(get(&format!("/auth{PATH}")).send(gateway.public).code(), "no_route");
    }
    assert_eq!(origin.count(), 0);
}

#[test]
fn a_rotation_under_traffic_refuses_nobody() {
    let origin = Origin::start();
    let gateway = setup(&origin, "EdDSA").start();
    let old = gateway.register("alice");
    let (stop, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for renews in [false, false, true] {
            let (gateway, old, stop, count) = (&gateway, &old, &stop, &count);
            scope.spawn(move || {
                let mut connection = Connection::open(gateway.public);
                let (mut token, mut refresh) = (old.access.clone(), old.refresh.clone());
                while !stop.load(Ordering::Relaxed) {
                    let answer = get("/secret").bearer(&token).send_on(&mut connection, gateway.public).unwrap();
                    assert_eq!(answer.status, 200, "{answer:?}");
                    count.fetch_add(1, Ordering::Relaxed);
                    if renews {
                        let answer = post("/token/refresh").bearer(&refresh);
                        let answer = answer.send_on(&mut connection, gateway.public).unwrap();
                        if answer.status == 429 {
                            // A session may refresh only so often.
                            refresh = gateway.login("alice").refresh;
                            continue;
                        }
                        token = answer.json()["access_token"].as_str().unwrap().to_owned();
                    }
                }
            });
        }
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| rotate(&gateway, &old.access)));
        let before = count.load(Ordering::Relaxed);
        let goes_on = holds_within(Duration::from_secs(5), || count.load(Ordering::Relaxed) > before + 200);
        stop.store(true, Ordering::Relaxed);
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        assert!(goes_on, "requests go on after the rotation");
    });
    assert_eq!(gateway.try_token(&old.access), 200, "tokens of the old key live");
}

fn rotate(gateway: &Gateway, old: &str) {
    let said = keys(gateway, &["rotate"]);
    assert!(said.contains("is published, and signs from"), "{said}");
    let standby = said.split(' ').next().unwrap().to_owned();
    await_that("the standby is published", || published_kids(gateway).contains(&standby));
    assert_eq!(kid_of(&gateway.login("alice").access), kid_of(old), "the old key signs on");
    assert!(!gateway.cli(&["keys", "rotate"], "").status.success(), "there is a standby already");
    let_time_pass(gateway.folder.path());
    await_that("the standby signs", || kid_of(&gateway.login("alice").access) == standby);
    assert_eq!(published_kids(gateway).len(), 2, "the old key still verifies, so that it is published");
    let list = keys(gateway, &["list"]);
    assert!(list.contains("verifying until") && list.contains(&format!("{standby}  EdDSA  signing")), "{list}");
}

#[test]
fn a_rotation_in_an_emergency_does_not_wait() {
    let origin = Origin::start();
    let gateway = setup(&origin, "ES256").start();
    let old = gateway.register("alice").access;
    let standby = keys(&gateway, &["rotate"]).split(' ').next().unwrap().to_owned();
    assert!(keys(&gateway, &["rotate", "--now"]).contains(&format!("{standby} signs from now on")));
    await_that("it signs", || kid_of(&gateway.login("alice").access) == standby);
    let third = keys(&gateway, &["rotate", "--now"]).split(' ').next().unwrap().to_owned();
    await_that("the third signs", || kid_of(&gateway.login("alice").access) == third);
    assert_eq!((gateway.try_token(&old), published_kids(&gateway).len()), (200, 3));
}

#[test]
fn no_good_token_is_refused_while_keys_change() {
    let origin = Origin::start();
    let cheap = json!({"argon2": {"memory": "64KiB", "iterations": 1}});
    let setup = setup(&origin, "EdDSA").set("identity.password", cheap);
    // More logins of one account than there may be in a minute.
    let setup = setup.set("identity.attempts", json!({"per_account": "off"}));
    let first = setup.clone().start();
    let second = setup.start_in(Arc::clone(&first.folder));
    let old = first.register("alice").access;
    let changed = AtomicBool::new(false);
    let follow = |signs: &Gateway, verifies: &Gateway| {
        let mut kids = BTreeSet::new();
        while !changed.load(Ordering::Relaxed) {
            let token = signs.login("alice").access;
            let answer = get("/secret").bearer(&token).send(verifies.public);
            assert_eq!(answer.status, 200, "{answer:?}");
            kids.insert(kid_of(&token));
        }
        kids
    };
    let kids = std::thread::scope(|scope| {
        let followers = [scope.spawn(|| follow(&first, &second)), scope.spawn(|| follow(&second, &first))];
        for _ in 0..3 {
            keys(&first, &["rotate", "--now"]);
        }
        changed.store(true, Ordering::Relaxed);
        followers.map(|follower| follower.join().unwrap())
    });
    assert!(kids.iter().all(|kids| kids.len() >= 3 && kids.contains(&kid_of(&old))), "{kids:?}");
}

#[test]
fn a_key_of_no_use_keeps_no_other_from_being_revoked() {
    let origin = Origin::start();
    let gateway = setup(&origin, "EdDSA").start();
    let old = gateway.register("alice").access;
    assert_eq!(gateway.try_token(&old), 200);
    let database = Database::open(gateway.folder.path().join("portcullis.db")).unwrap();
    // As a version yet to come might leave it.
    let row = "INSERT INTO signing_key (kid, algorithm, secret, created, state, ends, sealed)
        VALUES ('future', 'ES999', x'00', 1, 'verifying', 9999999999999, 0)";
    database.execute_batch(row).unwrap();
    await_that("it is told of", || gateway.output().contains("ES999"));
    keys(&gateway, &["revoke", &kid_of(&old)]);
    assert!(holds_within(Duration::from_secs(1), || gateway.try_token(&old) == 401), "not heard within a second");
    assert!(!published_kids(&gateway).contains(&kid_of(&old)));
    assert_eq!(gateway.try_token(&gateway.login("alice").access), 200, "another key signs");
}

#[test]
fn keys_that_cannot_be_opened_are_left_to_whoever_can() {
    let origin = Origin::start();
    let gateway = setup(&origin, "EdDSA").set("store.encryption_key", json!(ENCRYPTION_KEY)).start();
    let kid = kid_of(&gateway.register("alice").access);
    let text = std::fs::read_to_string(&gateway.config).unwrap();
    for other in
        [text.replace(ENCRYPTION_KEY, &ENCRYPTION_KEY.replace("an ", "no ")), text.replace("encryption_key", "url_of")]
    {
        let mut config: Value = serde_json::from_str(&other).unwrap();
        config["store"].as_object_mut().unwrap().remove("url_of");
        let path = gateway.folder.path().join("other.yaml");
        std::fs::write(&path, config.to_string()).unwrap();
        for arguments in [&["revoke", kid.as_str()][..], &["rotate"], &["rotate", "--now"]] {
            let done = crate::harness::cli_with(&path, &[&["keys"], arguments].concat(), "");
            assert_eq!(done.status.code(), Some(78), "{arguments:?}");
            assert!(said(&done).contains("store.encryption_key"), "{arguments:?}: {}", said(&done));
        }
    }
    assert_eq!(kid_of(&gateway.login("alice").access), kid, "nothing was changed");
    let done =
        crate::harness::cli_with(&gateway.folder.path().join("other.yaml"), &["keys", "revoke", "--force", &kid], "");
    assert!(done.status.success(), "{}", said(&done));
}

#[test]
fn without_a_key_to_sign_with_nothing_is_begun() {
    let origin = Origin::start();
    let gateway = setup(&origin, "EdDSA").set("store.encryption_key", json!(ENCRYPTION_KEY)).start();
    let before = gateway.register("alice").access;
    keys(&gateway, &["rotate", "--now"]);
    let mut tokens = gateway.login("alice");
    await_that("the new key signs", || {
        tokens = gateway.login("alice");
        kid_of(&tokens.access) != kid_of(&before)
    });
    let text = std::fs::read_to_string(&gateway.config).unwrap();
    let other = gateway.folder.path().join("other.yaml");
    std::fs::write(&other, text.replace(ENCRYPTION_KEY, &ENCRYPTION_KEY.replace("an ", "no "))).unwrap();
    let revoke = |config: &Path, kid: &str| {
        let done = crate::harness::cli_with(config, &["keys", "revoke", "--force", kid], "");
        assert!(done.status.success(), "{}", said(&done));
        said(&done)
    };
    // The next one is encrypted in another way.
    let done = revoke(&other, &kid_of(&tokens.access));
    let next = done.rsplit_once("; ").unwrap().1.split(' ').next().unwrap();
    let signs = || get("/metrics").send(gateway.admin).text().contains("\nportcullis_signs 1\n");
    await_that("no key signs", || !signs());
    assert!(gateway.is_ready(), "those who are logged in are served");
    assert_eq!(gateway.try_token(&before), 200);
    let database = Database::open(gateway.folder.path().join("portcullis.db")).unwrap();
    let count = |what: &str| database.query_row(what, [], |row| row.get::<_, i64>(0)).unwrap();
    let sessions = count("SELECT count(*) FROM session");
    let passwords = json!({"old_password": PASSWORD, "new_password": "another password"});
    for asked in [
        post("/registration").json(&credentials("bob", PASSWORD)),
        post("/login").json(&credentials("alice", PASSWORD)),
        post("/token/refresh").bearer(&tokens.refresh),
        post("/password").bearer(&tokens.access).json(&passwords),
    ] {
        let answer = asked.send(gateway.public);
        assert_eq!((answer.status, answer.code(), answer.header("retry-after")), (503, "unavailable", Some("1")));
    }
    assert_eq!(count("SELECT count(*) FROM account"), 1, "and the name is free");
    assert_eq!(count("SELECT count(*) FROM session"), sessions);
    revoke(&gateway.config, next);
    await_that("a key signs again", signs);
    for tokens in [gateway.register("bob"), gateway.login("alice")] {
        assert_eq!(gateway.try_token(&tokens.access), 200);
    }
}

#[test]
fn a_revoked_key_is_refused_within_a_second_on_warm_connections() {
    let origin = Origin::start();
    for algorithm in ["HS256", "EdDSA"] {
        let gateway = setup(&origin, algorithm).start();
        let old = gateway.register("alice");
        let ask = get("/secret").bearer(&old.access);
        let mut warm: Vec<_> = (0..4).map(|_| Connection::open(gateway.public)).collect();
        for connection in &mut warm {
            // Twice: the second time the connection itself remembers.
            assert_eq!(ask.send_on(connection, gateway.public).unwrap().status, 200);
            assert_eq!(ask.send_on(connection, gateway.public).unwrap().status, 200);
        }
        let kid = kid_of(&old.access);
        let done = keys(&gateway, &["revoke", &kid]);
        assert!(done.contains("signs from now on"), "{done}");
        let refused = |connection: &mut Connection| ask.send_on(connection, gateway.public).unwrap();
        let heard = holds_within(Duration::from_secs(1), || refused(&mut warm[0]).status == 401);
        assert!(heard, "not heard within a second");
        for connection in &mut warm {
            let answer = refused(connection);
            assert_eq!((answer.status, answer.code()), (401, "token_revoked"), "{answer:?}");
        }
        let answer = post("/token/refresh").bearer(&old.refresh).send(gateway.public);
        assert_eq!(answer.code(), "token_revoked");
        assert!(!published_kids(&gateway).contains(&kid));
        let new = gateway.login("alice").access;
        assert_ne!(kid_of(&new), kid);
        assert_eq!(gateway.try_token(&new), 200);
        assert!(keys(&gateway, &["list"]).contains("revoked, forgotten at"));
        assert!(keys(&gateway, &["revoke", &kid]).contains("was revoked before"));
        assert!(!gateway.cli(&["keys", "revoke", "nonsense"], "").status.success());
    }
}

#[test]
fn a_stream_ends_with_the_key_of_its_token() {
    let origin = Origin::scripted(|exchange| {
        exchange.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n");
        exchange.is_closed_within(Duration::from_secs(20));
    });
    let gateway = setup(&origin, "EdDSA").start();
    let token = gateway.register("alice").access;
    let mut connection = Connection::open(gateway.public);
    connection.send(&get("/secret").bearer(&token).bytes(gateway.public, "")).unwrap();
    assert_eq!(connection.receive_head().unwrap().status, 200);
    assert!(!connection.take(1000).unwrap().is_empty());
    keys(&gateway, &["revoke", &kid_of(&token)]);
    assert!(connection.is_closed_within(Duration::from_secs(2)), "the stream goes on");
}

#[test]
fn a_restart_keeps_the_keys() {
    let origin = Origin::start();
    let setup = setup(&origin, "EdDSA");
    let mut gateway = setup.clone().start();
    let tokens = gateway.register("alice");
    let kids = published_kids(&gateway);
    gateway.signal("TERM");
    gateway.await_end();
    let again = setup.start_in(Arc::clone(&gateway.folder));
    assert_eq!(published_kids(&again), kids);
    assert_eq!(again.try_token(&tokens.access), 200);
    assert_eq!(kid_of(&again.login("alice").access), kids[0]);
}

#[test]
fn a_change_of_algorithm_logs_nobody_out() {
    let origin = Origin::start();
    let gateway = setup(&origin, "HS256").start();
    let first = gateway.register("alice");
    edit(&gateway, |config| config["tokens"]["algorithm"] = json!("EdDSA"));
    let alg = || header_of(&gateway.login("alice").access)["alg"].clone();
    await_that("EdDSA signs at once: nobody verifies by published keys yet", || alg() == "EdDSA");
    let second = gateway.login("alice");
    edit(&gateway, |config| config["tokens"]["algorithm"] = json!("ES256"));
    await_that("ES256 is published", || published(&gateway).iter().any(|key| key["alg"] == "ES256"));
    assert_eq!(alg(), "EdDSA", "and signs only when everybody knows it");
    let_time_pass(gateway.folder.path());
    await_that("ES256 signs", || alg() == "ES256");
    for tokens in [&first, &second] {
        assert_eq!(gateway.try_token(&tokens.access), 200);
        assert_eq!(post("/token/refresh").bearer(&tokens.refresh).send(gateway.public).status, 200);
    }
}

#[test]
fn the_shared_secret_verifies_on_beside_keys_of_our_own() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    let tokens = gateway.register("alice");
    assert_eq!(header_of(&tokens.access).get("kid"), None);
    assert!(!gateway.cli(&["keys", "rotate"], "").status.success(), "the secret is the operator's");
    edit(&gateway, |config| config["tokens"]["algorithm"] = json!("EdDSA"));
    await_that("EdDSA signs", || header_of(&gateway.login("alice").access)["alg"] == "EdDSA");
    let new = gateway.login("alice").access;
    for token in [&tokens.access, &jwt::access("alice"), &new] {
        assert_eq!(gateway.try_token(token), 200);
    }
    assert_eq!(post("/token/refresh").bearer(&tokens.refresh).send(gateway.public).status, 200);
    assert!(keys(&gateway, &["list"]).contains("tokens.secret"));
    // Back again: tokens of the key that signed meanwhile live on.
    edit(&gateway, |config| config["tokens"]["algorithm"] = json!("HS256"));
    await_that("the secret signs", || header_of(&gateway.login("alice").access)["alg"] == "HS256");
    assert_eq!(gateway.try_token(&new), 200);
    assert_eq!(published(&gateway).len(), 1);
}

#[test]
fn the_algorithm_comes_from_the_key() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).set("tokens.algorithm", json!("EdDSA")).start();
    let kid = kid_of(&gateway.register("alice").access);
    let key = published(&gateway).remove(0);
    let public = key["x"].as_str().unwrap();
    let claims = Value::Object(jwt::claims("alice")).to_string();
    let sign = |header: Value, secret: &[u8]| jwt::sign_text(&header.to_string(), &claims, secret, hmac::HMAC_SHA256);
    for (what, token) in [
        ("the public key as HMAC secret", sign(json!({"alg": "HS256", "kid": kid}), &from_base64url(public))),
        ("its text", sign(json!({"alg": "HS256", "kid": kid}), public.as_bytes())),
        ("the shared secret under its name", sign(json!({"alg": "HS256", "kid": kid}), SECRET.as_bytes())),
        ("no name, its algorithm", sign(json!({"alg": "EdDSA"}), SECRET.as_bytes())),
        ("none", format!("{}.", sign(json!({"alg": "none", "kid": kid}), b"").rsplit_once('.').unwrap().0)),
        ("another algorithm", sign(json!({"alg": "ES256", "kid": kid}), SECRET.as_bytes())),
        ("a name of nobody", sign(json!({"alg": "HS256", "kid": "x"}), SECRET.as_bytes())),
    ] {
        let answer: Response = get("/secret").bearer(&token).send(gateway.public);
        assert_eq!((answer.status, answer.code()), (401, "token_invalid"), "{what}: {answer:?}");
    }
}

/// All that the database holds, its log included.
fn stored(folder: &Path) -> Vec<u8> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let ours = files.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("portcullis.db"));
    ours.flat_map(|path| std::fs::read(path).unwrap()).collect()
}

#[test]
fn keys_are_encrypted_at_rest() {
    let origin = Origin::start();
    let plain = setup(&origin, "EdDSA");
    let mut gateway = plain.clone().start();
    let tokens = gateway.register("alice");
    gateway.signal("TERM");
    gateway.await_end();
    let folder = Arc::clone(&gateway.folder);
    // The beginning of every Ed25519 key in PKCS #8.
    let marker = [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];
    let is_plain = || stored(folder.path()).windows(marker.len()).any(|part| part == marker);
    assert!(is_plain());
    std::fs::write(folder.path().join("key"), format!("{ENCRYPTION_KEY}\n")).unwrap();
    let sealed = plain.clone().set("store.encryption_key_file", json!("key"));
    let mut gateway = sealed.clone().start_in(Arc::clone(&folder));
    await_that("the log says so", || gateway.output().contains("encrypted from now on"));
    assert_eq!(gateway.try_token(&tokens.access), 200);
    keys(&gateway, &["rotate", "--now"]);
    gateway.signal("TERM");
    gateway.await_end();
    assert!(!is_plain());
    let wrong = plain.clone().set("store.encryption_key", json!("another key of more than 32 bytes, for tests"));
    for (setup, says) in [(&plain, "has no encryption key"), (&wrong, "another encryption key")] {
        let mut gateway = setup.clone().spawn_in(Arc::clone(&folder));
        assert_eq!(gateway.await_end().code(), Some(78));
        let said = gateway.output();
        assert!(said.contains("store.encryption_key") && said.contains(says), "{said}");
        assert!(!said.contains("another key of"), "the encryption key is not repeated");
    }
    let gateway = sealed.start_in(folder);
    assert_eq!(gateway.try_token(&tokens.access), 200);
    assert!(!gateway.output().contains("encrypted from now on"));
}

#[test]
fn two_gateways_on_one_database_agree() {
    let origin = Origin::start();
    let setup = setup(&origin, "EdDSA");
    let first = setup.clone().start();
    let second = setup.start_in(Arc::clone(&first.folder));
    let old = first.register("alice").access;
    assert_eq!((published_kids(&second), second.try_token(&old)), (published_kids(&first), 200));
    keys(&second, &["rotate", "--now"]);
    await_that("the first signs with the new key", || kid_of(&first.login("alice").access) != kid_of(&old));
    keys(&second, &["revoke", &kid_of(&old)]);
    for gateway in [&first, &second] {
        assert!(holds_within(Duration::from_secs(1), || gateway.try_token(&old) == 401));
    }
}

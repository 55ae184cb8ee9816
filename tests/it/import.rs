//! Coming from Flask: the accounts, hashes and revoked tokens of the tutorial's application, by its own libraries.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use crate::harness::{Gateway, PASSWORD, SECRET, Setup, cli_with, credentials, holds_within, run, said};
use crate::jwt;
use crate::origin::Origin;
use crate::python;
use crate::wire::{get, post};

/// What tests/flask/database.py takes for good.
const USERS: [&str; 8] =
    ["alice", "passlib512", "passlib1", "werkzeug", "werkzeug512", "werkzeug1", "scrypt", "Ünal O'Neil"];

/// Has the application's database written in `folder`; its path, and the tokens of its making.
fn application(folder: &Path) -> (PathBuf, Value) {
    let file = folder.join("app.db");
    let mut command = Command::new(python::python("flask"));
    command.arg(python::source("flask", "database.py")).arg(&file).env("JWT_SECRET_KEY", SECRET);
    let done = run(command, "");
    assert!(done.status.success(), "{}", said(&done));
    (file, serde_json::from_slice(&done.stdout).unwrap())
}

/// A database with these statements run in it.
fn made(folder: &Path, sql: &str) -> PathBuf {
    let file = folder.join("made.db");
    let _ = std::fs::remove_file(&file);
    Connection::open(&file).unwrap().execute_batch(sql).unwrap();
    file
}

#[track_caller]
fn import(gateway: &Gateway, file: &Path, arguments: &[&str], code: i32) -> String {
    let mut all = vec!["import", "flask", file.to_str().unwrap()];
    all.extend(arguments);
    let done = gateway.cli(&all, "");
    assert_eq!(done.status.code(), Some(code), "{}", said(&done));
    said(&done)
}

/// The stored hash of an account.
fn hash_of(gateway: &Gateway, name: &str) -> String {
    let file = gateway.folder.path().join("portcullis.db");
    let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let sql = "SELECT CAST(hash AS TEXT) FROM account WHERE username = ?1";
    connection.query_row(sql, [name], |row| row.get(0)).unwrap()
}

fn log_in(gateway: &Gateway, name: &str, password: &str) -> u16 {
    post("/login").json(&credentials(name, password)).send(gateway.public).status
}

fn text<'a>(tokens: &'a Value, name: &str) -> &'a str {
    tokens[name].as_str().unwrap()
}

#[test]
fn the_tutorials_users_log_in_and_its_tokens_stay_what_they_were() {
    let origin = Origin::start();
    let gateway = Setup::flask(origin.address).start();
    let (file, tokens) = application(gateway.folder.path());
    let before = std::fs::read(&file).unwrap();
    assert_eq!(gateway.try_token(text(&tokens, "revoked")), 200, "not yet known");
    let told = import(&gateway, &file, &[], 0);
    assert!(
        told.contains("users: 10 taken over from users (username, password), 0 known already, 10 not usable"),
        "{told}"
    );
    assert!(told.contains("revoked tokens: 2 taken over from revoked_tokens, 0 known already, 2 not usable"), "{told}");
    for (name, why) in [
        (r#"" blank""#, "space"),
        (r#""esc\u{1b}[31m""#, "control"),
        (r#""twice""#, "more than once"),
        (r#""plain""#, "kind that is not known"),
        (r#""bcrypt""#, "kind that is not known"),
        (r#""cut""#, "damaged"),
        (r#""costly""#, "costs too much"),
        (r#""large""#, "costs too much"),
        (r#""nothing""#, "kind that is not known"),
        (r#""""#, "no text"),
    ] {
        let line = told.lines().find(|line| line.starts_with(&format!("not taken over: {name}: ")));
        assert!(line.is_some_and(|line| line.contains(why)), "{name}: {why} in\n{told}");
    }
    assert!(!told.contains("$pbkdf2-sha256") && !told.contains(PASSWORD), "{told}");
    let heard = holds_within(Duration::from_secs(1), || gateway.try_token(text(&tokens, "revoked")) == 401);
    assert!(heard, "a running gateway hears of it within a second");
    assert_eq!(get("/secret").bearer(text(&tokens, "revoked")).send(gateway.public).code(), "token_revoked");
    let refresh = |name: &str| post("/token/refresh").bearer(text(&tokens, name)).send(gateway.public);
    assert_eq!(refresh("revoked_refresh").code(), "token_revoked");
    assert_eq!(gateway.try_token(text(&tokens, "live")), 200, "the application's live token");
    assert_eq!(refresh("live_refresh").status, 200, "its live refresh token");
    assert!(hash_of(&gateway, "alice").starts_with("$pbkdf2-sha256$29000$"));
    for name in USERS {
        let wrong = log_in(&gateway, name, "wrong horse battery");
        assert_eq!(wrong, 200, "{name}: flask answers so");
        let old = hash_of(&gateway, name);
        assert!(!old.starts_with("$argon2"), "{name}: a wrong password replaces nothing: {old}");
        let pair = gateway.login(name);
        assert_eq!(gateway.try_token(&pair.access), 200);
        assert!(hash_of(&gateway, name).starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{name}");
        gateway.login(name);
    }
    let short = post("/login").json(&credentials("short", "pw")).send(gateway.public);
    assert!(short.json()["access_token"].is_string(), "rules hold where a password is set: {short:?}");
    assert_eq!(std::fs::read(&file).unwrap(), before, "the file is only read");
}

#[test]
fn a_second_import_harms_nothing() {
    let origin = Origin::start();
    let setup = Setup::new(origin.address);
    let mut gateway = setup.clone().start();
    let (file, tokens) = application(gateway.folder.path());
    gateway.register("werkzeug");
    let own = hash_of(&gateway, "werkzeug");
    let told = import(&gateway, &file, &[], 0);
    assert!(told.contains("users: 9 taken over from users (username, password), 1 known already"), "{told}");
    assert!(told.contains(r#"not taken over: "werkzeug": there is an account of that name"#), "{told}");
    assert_eq!(hash_of(&gateway, "werkzeug"), own);
    let pair = gateway.login("alice");
    let renewed = hash_of(&gateway, "alice");
    for name in ["passlib1", "werkzeug"] {
        assert!(gateway.cli(&["users", "delete", name], "").status.success());
    }
    let rows = || -> Vec<(i64, i64)> {
        let file = gateway.folder.path().join("portcullis.db");
        let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let mut rows = connection.prepare("SELECT seq, keep_until FROM revocation ORDER BY seq").unwrap();
        rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
    };
    let before = rows();
    let told = import(&gateway, &file, &[], 0);
    assert!(told.contains("users: 0 taken over"), "{told}");
    for name in ["passlib1", "werkzeug"] {
        assert!(
            told.contains(&format!("not taken over: {name:?}: it was imported before, and deleted since")),
            "{told}"
        );
        assert_eq!(log_in(&gateway, name, PASSWORD), 401, "{name} stays deleted");
    }
    assert!(told.contains("revoked tokens: 0 taken over from revoked_tokens, 2 known already"), "{told}");
    assert_eq!(rows(), before, "nothing was written anew");
    assert_eq!((hash_of(&gateway, "alice"), gateway.try_token(&pair.access)), (renewed, 200));
    let told = import(&gateway, &file, &["--lifetime", "365d"], 0);
    assert!(told.contains("365d") && told.contains("SIGHUP"), "{told}");
    let late = i64::try_from(Duration::from_secs(364 * 86_400).as_millis()).unwrap() + jwt::now() * 1000;
    assert_eq!(rows().iter().filter(|(_, keep_until)| *keep_until > late).count(), 2, "kept for longer");
    gateway.kill();
    let again = setup.start_in(Arc::clone(&gateway.folder));
    assert_eq!(get("/secret").bearer(text(&tokens, "revoked")).send(again.public).code(), "token_revoked");
    assert_eq!(again.try_token(text(&tokens, "live")), 200);
}

#[test]
fn ten_thousand_revoked_tokens_come_over_in_seconds() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    let file = made(
        gateway.folder.path(),
        "CREATE TABLE user_model (ID INTEGER PRIMARY KEY, UserName TEXT, password_hash TEXT);
         CREATE TABLE token_blocklist (id INTEGER PRIMARY KEY, jti VARCHAR(36), created_at DATETIME);
         INSERT INTO token_blocklist (jti) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
             SELECT 'jti-' || i FROM n;",
    );
    let begin = Instant::now();
    let told = import(&gateway, &file, &[], 0);
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
    assert!(told.contains("0 taken over from user_model (UserName, password_hash)"), "{told}");
    assert!(told.contains("10000 taken over from token_blocklist"), "{told}");
    let heard = |number: &str| {
        let token = jwt::token_with("alice", &json!({"jti": format!("jti-{number}")}));
        holds_within(Duration::from_secs(1), || gateway.try_token(&token) == 401)
    };
    assert!(heard("10000") && heard("1") && heard("5000"));
    assert_eq!(gateway.try_token(&jwt::token_with("alice", &json!({"jti": "jti-10001"}))), 200);
}

#[test]
fn revoked_tokens_are_ours_whatever_the_issuer() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).set("tokens.issuer", json!("me")).start();
    let sql = "CREATE TABLE users (username, password);
               CREATE TABLE revoked_tokens (id, jti); INSERT INTO revoked_tokens VALUES (1, 'dead');";
    import(&gateway, &made(gateway.folder.path(), sql), &[], 0);
    let token = |jti: &str| jwt::token_with("alice", &json!({"jti": jti, "iss": "me"}));
    assert!(holds_within(Duration::from_secs(1), || gateway.try_token(&token("dead")) == 401));
    assert_eq!(get("/secret").bearer(&token("dead")).send(gateway.public).code(), "token_revoked");
    assert_eq!(gateway.try_token(&token("live")), 200);
}

#[test]
fn a_file_that_is_none_is_refused_and_makes_nothing() {
    let origin = Origin::start();
    let folder = tempfile::tempdir().unwrap();
    let (config, _, _) = Setup::new(origin.address).write(folder.path());
    let garbage = folder.path().join("garbage.db");
    std::fs::write(&garbage, "this is no database at all".repeat(100)).unwrap();
    let absent = folder.path().join("absent.db");
    let refused = |file: &Path, arguments: &[&str], says: &[&str]| {
        let mut all = vec!["import", "flask", file.to_str().unwrap()];
        all.extend(arguments);
        let done = cli_with(&config, &all, "");
        assert_eq!(done.status.code(), Some(1), "{}", said(&done));
        for word in says {
            assert!(said(&done).contains(word), "expected {word:?} in {}", said(&done));
        }
    };
    refused(&garbage, &[], &["garbage.db"]);
    refused(&absent, &[], &["absent.db"]);
    refused(&made(folder.path(), ""), &[], &["--users-table"]);
    refused(&made(folder.path(), "CREATE TABLE posts (id, title)"), &[], &["posts (id, title)", "--password-column"]);
    let two = "CREATE TABLE staff (name, hash); CREATE TABLE members (name, hash)";
    refused(&made(folder.path(), two), &[], &["members, staff", "--users-table"]);
    refused(&made(folder.path(), two), &["--users-table", "staff", "--revoked-table", "gone"], &["gone"]);
    assert!(!absent.exists(), "it is not made");
    assert!(!folder.path().join("portcullis.db").exists(), "nor is the store");
    let odd = made(
        folder.path(),
        r#"CREATE TABLE "my ""users" (nick, "the hash"); CREATE TABLE ended (jti); INSERT INTO ended VALUES ('a');
           INSERT INTO "my ""users" VALUES ('bob', 'x'), (7, 'y'), (x'ff', 'z')"#,
    );
    let names = ["--users-table", "my \"users", "--name-column", "nick", "--password-column", "the hash"];
    let mut all = vec!["import", "flask", odd.to_str().unwrap(), "--revoked-table", "ended"];
    all.extend(names);
    let done = cli_with(&config, &all, "");
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    assert!(said(&done).contains("3 not usable") && said(&done).contains("1 taken over from ended"), "{}", said(&done));
    for wrong in ["0x", "11y", "99999d"] {
        let done = cli_with(&config, &["import", "flask", odd.to_str().unwrap(), "--lifetime", wrong], "");
        assert_eq!(done.status.code(), Some(2), "{}", said(&done));
    }
}

#[test]
fn what_keeps_live_tokens_from_working_is_told() {
    let origin = Origin::start();
    let folder = tempfile::tempdir().unwrap();
    let file = made(folder.path(), "CREATE TABLE users (username, password)");
    let told = |setup: Setup| {
        let (config, _, _) = setup.write(folder.path());
        said(&cli_with(&config, &["import", "flask", file.to_str().unwrap()], ""))
    };
    let setup = Setup::new(origin.address);
    assert!(!told(setup.clone()).contains("NOT accepted"));
    assert!(told(setup.clone().unset("tokens", "secret")).contains("JWT_SECRET_KEY"));
    assert!(told(setup.clone().set("tokens.issuer", json!("me"))).contains("tokens.issuer"));
    assert!(told(setup).contains("no table of them"));
}

/// The processor time that each of three refused logins costs the gateway, asked in turns: that other programs take the
/// processor meanwhile does not count.
fn costs(gateway: &Gateway, names: [&str; 3]) -> [u64; 3] {
    let mut ticks = [0; 3];
    for _ in 0..12 {
        for (name, ticks) in names.iter().zip(&mut ticks) {
            let before = gateway.processor_ticks();
            assert_eq!(log_in(gateway, name, "wrong horse battery"), 401);
            *ticks += gateway.processor_ticks() - before;
        }
    }
    ticks
}

#[test]
fn the_time_of_a_refusal_does_not_tell_whose_hash_is_older() {
    let origin = Origin::start();
    let off = json!({"per_account": "off", "per_address": "off"});
    let setup = Setup::new(origin.address).set("identity.attempts", off);
    let with = |memory: &str| setup.clone().set("identity.password", json!({"argon2": {"memory": memory}}));
    let mut gateway = with("48MiB").start();
    gateway.register("alice");
    gateway.kill();
    let gateway = with("64MiB").start_in(Arc::clone(&gateway.folder));
    gateway.register("carol");
    assert!(hash_of(&gateway, "alice").contains("$m=49152,") && hash_of(&gateway, "carol").contains("$m=65536,"));
    let [older, current, unknown] = costs(&gateway, ["alice", "carol", "nobody"]);
    for other in [current, unknown] {
        // By more than a third: 7 : 10.
        assert!(
            other * 10 > older * 7 && older * 10 > other * 7,
            "older {older}, current {current}, unknown {unknown}"
        );
    }
}

#[test]
fn the_time_of_a_refusal_does_not_tell_who_was_imported() {
    let origin = Origin::start();
    let off = json!({"per_account": "off", "per_address": "off"});
    let gateway = Setup::new(origin.address).set("identity.attempts", off).start();
    gateway.register("carol");
    let folder = tempfile::tempdir().unwrap();
    // Several times what argon2id costs here.
    let hash = format!("pbkdf2:sha256:800000$salt${}", "0".repeat(64));
    let file = made(
        folder.path(),
        &format!("CREATE TABLE users (username, password); INSERT INTO users VALUES ('alice', '{hash}')"),
    );
    import(&gateway, &file, &[], 0);
    let [imported, own, unknown] = costs(&gateway, ["alice", "carol", "nobody"]);
    for other in [own, unknown] {
        // By more than a third: 7 : 10.
        assert!(
            other * 10 > imported * 7 && imported * 10 > other * 7,
            "imported {imported}, own {own}, unknown {unknown}"
        );
    }
    assert!(gateway.cli(&["users", "delete", "alice"], "").status.success());
    let [_, _, after] = costs(&gateway, ["alice", "carol", "nobody"]);
    assert!(after < unknown / 2, "with the last old hash goes its cost: {unknown}, then {after}");
}

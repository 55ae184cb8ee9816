//! What tokens, files and configurations hold reaches a person's terminal as text: nothing in it steers the terminal, and
//! nothing floods it.

use std::process::Output;

use aws_lc_rs::hmac;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::harness::{Setup, cli_with, said};
use crate::jwt::{self, sign_text, token_with};
use crate::origin::Origin;

const ISSUER: &str = "the-flask-service";
const FOREIGN_SECRET: &str = "another-secret-that-a-flask-service-shares-with-us";

/// A title for the window, a colour by a C1 control, an override of direction.
const EVIL: &str = "x\u{1b}]0;pwned\u{7}\u{9b}31m\u{202e}\u{7f}";

/// That no terminal obeys any of it.
#[track_caller]
fn harmless(done: &Output) -> String {
    let text = said(done);
    let obeyed = |c: char| (c.is_control() && c != '\n') || ('\u{202a}'..='\u{202e}').contains(&c);
    assert!(!text.contains(obeyed), "{text:?}");
    text
}

#[test]
fn a_token_steers_no_terminal() {
    let origin = Origin::start();
    let trusted = json!([{"issuer": ISSUER, "secret": FOREIGN_SECRET}]);
    let gateway = Setup::new(origin.address)
        .set("tokens.trusted", trusted)
        .and_routes(json!([{"path": "/theirs", "upstream": "app", "auth": {"issuers": [ISSUER]}}]))
        .start();
    let lines = format!("{EVIL}\nverdict:  good");
    let own = token_with("alice", &json!({"jti": lines, "sid": lines, "note": EVIL}));
    let header = json!({"alg": "HS256", "kid": lines}).to_string();
    let claims = jwt::claims_with("alice\u{202e}", &json!({"iss": ISSUER, "jti": "j".repeat(2000), EVIL: EVIL}));
    let theirs = sign_text(&header, &claims.to_string(), FOREIGN_SECRET.as_bytes(), hmac::HMAC_SHA256);
    for (token, target) in [(&own, "/secret"), (&theirs, "/theirs")] {
        let told = harmless(&gateway.cli(&["explain", "GET", target, "--token", "-"], token));
        assert!(told.contains("claims:") && told.contains("pwned"), "{told}");
        let told = harmless(&gateway.cli(&["tokens", "inspect", "-"], token));
        let claims = told.lines().find_map(|line| line.strip_prefix("claims:   ")).unwrap();
        let claims: Value = serde_json::from_str(claims).unwrap();
        assert_eq!(claims, jwt::claims_of(token), "still JSON, and whole");
        assert_eq!(told.matches("\nverdict:").count(), 1, "no line of its own: {told}");
        let done = gateway.cli(&["tokens", "revoke", "-"], token);
        assert_eq!(done.status.code(), Some(0), "{}", said(&done));
        harmless(&done);
        let told = String::from_utf8(done.stdout).unwrap();
        assert!(told.len() < 500 && told.lines().count() == 1, "{told}");
    }
}

#[test]
fn a_database_steers_no_terminal_and_floods_none() {
    let origin = Origin::start();
    let folder = tempfile::tempdir().unwrap();
    let (config, _, _) = Setup::new(origin.address).write(folder.path());
    let long = "n".repeat(1_000_000);
    let import = |name: &str, sql: &str, code: i32| {
        let file = folder.path().join(name);
        Connection::open(&file).unwrap().execute_batch(sql).unwrap();
        let done = cli_with(&config, &["import", "flask", file.to_str().unwrap()], "");
        assert_eq!(done.status.code(), Some(code), "{}", said(&done));
        let told = harmless(&done);
        assert!(told.len() < 3000, "{} bytes", told.len());
        told
    };
    let none = format!("CREATE TABLE \"{EVIL}\" (id, \"{EVIL}\n\"); CREATE TABLE \"{long}\" (\"{long}\")");
    assert!(import("none.db", &none, 1).contains("pwned"));
    let several = format!("CREATE TABLE \"{EVIL}\" (username, password); CREATE TABLE \"{long}\" (name, hash)");
    assert!(import("several.db", &several, 1).contains("--users-table"));
    let good = format!(
        "CREATE TABLE \"{EVIL}\" (username, password); CREATE TABLE \"revoked{EVIL}\" (jti);
         INSERT INTO \"{EVIL}\" VALUES ('{EVIL}', 'x'), ('{long}', 'y')"
    );
    assert!(import("good.db", &good, 0).contains("2 not usable"));
}

#[test]
fn a_configuration_steers_no_terminal() {
    let origin = Origin::start();
    let folder = tempfile::tempdir().unwrap();
    for setup in [
        Setup::new(origin.address).set(&format!("server.{EVIL}"), json!(1)),
        Setup::new(origin.address).set(&format!("upstreams.{EVIL}"), json!({"servers": [7]})),
        Setup::new(origin.address).set("log.format", json!(EVIL)),
    ] {
        let (config, _, _) = setup.write(folder.path());
        // YAML takes such characters only as escapes.
        let escape = |c: char| if c >= '\u{7f}' { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
        let text: String = std::fs::read_to_string(&config).unwrap().chars().map(escape).collect();
        std::fs::write(&config, text).unwrap();
        let done = cli_with(&config, &["check"], "");
        assert_eq!(done.status.code(), Some(78), "{}", said(&done));
        assert!(harmless(&done).contains("pwned"), "{}", said(&done));
    }
}

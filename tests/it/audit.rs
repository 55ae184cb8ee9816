//! The audit: who did what, from where, in which session, and how it ended; never a secret, and never in anyone's way.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::{Gateway, PASSWORD, SECRET, Setup, Tokens, await_that, cli_with, credentials, said};
use crate::jwt;
use crate::origin::Origin;
use crate::wire::{Connection, get, post, request};

const WRONG: &str = "a wrong password";

/// A gateway that writes its audit into `audit.log` in its folder.
fn with_file(setup: Setup) -> (Gateway, PathBuf) {
    let gateway = setup.set("log.audit", json!("audit.log")).start();
    let path = gateway.folder.path().join("audit.log");
    (gateway, path)
}

/// The lines of the file.
fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Waits until there are `count` lines, and gives the last.
#[track_caller]
fn last(path: &Path, count: usize) -> Value {
    await_that(&format!("there are {count} audit lines"), || {
        // A line that is being written ends without a newline.
        std::fs::read_to_string(path).is_ok_and(|text| text.ends_with('\n') && text.lines().count() >= count)
    });
    let lines = lines(path);
    assert_eq!(lines.len(), count, "{lines:?}");
    lines[count - 1].clone()
}

/// The value of a metric without labels.
pub fn metric(gateway: &Gateway, name: &str) -> f64 {
    let text = get("/metrics").send(gateway.admin).text();
    text.lines().find_map(|line| line.strip_prefix(name)).map_or(f64::NAN, |value| value.trim().parse().unwrap())
}

#[track_caller]
fn check(line: &Value, expected: &Value) {
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&line[name], value, "{name} of {line}");
    }
    assert_eq!((&line["level"], &line["message"]), (&json!("INFO"), &json!("audit")), "{line}");
    let time = line["timestamp"].as_str().unwrap();
    assert!(time.len() == 24 && time.ends_with('Z'), "RFC 3339: {line}");
}

/// What is told of a token.
fn of_token(token: &str) -> Value {
    let claims = jwt::claims_of(token);
    json!({"user": claims["sub"], "sid": claims["sid"], "jti": claims["jti"]})
}

fn merged(left: &Value, right: &Value) -> Value {
    let mut both = left.as_object().unwrap().clone();
    both.extend(right.as_object().unwrap().clone());
    Value::Object(both)
}

#[test]
fn the_life_of_an_account() {
    let origin = Origin::start();
    let (gateway, path) = with_file(Setup::new(origin.address));
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let ask = |target: &str| post(target).header("User-Agent", "tests/1").header("X-Request-Id", "the-id");
    let from = json!({"actor": "client", "client": "127.0.0.1", "user_agent": "tests/1", "request_id": "the-id"});
    let told = |count: usize, event: &str, reason: &str, about: &Value| {
        let outcome = if reason.is_empty() { "success" } else { "failure" };
        let line = last(&path, count);
        check(&line, &merged(&merged(&from, &json!({"event": event, "outcome": outcome})), about));
        assert_eq!(line["reason"].as_str().unwrap_or_default(), reason, "{line}");
    };
    let tokens = |answer: crate::wire::Response| {
        let body = answer.json();
        Tokens {
            access: body["access_token"].as_str().unwrap().into(),
            refresh: body["refresh_token"].as_str().unwrap().into(),
        }
    };

    let alice = tokens(ask("/registration").json(&credentials("alice", PASSWORD)).send(gateway.public));
    told(1, "registration", "", &of_token(&alice.access));
    ask("/registration").json(&credentials("alice", PASSWORD)).send(gateway.public);
    told(2, "registration", "user_exists", &json!({"user": "alice", "sid": null}));
    ask("/login").json(&credentials("alice", WRONG)).send(gateway.public);
    told(3, "login", "wrong_credentials", &json!({"user": "alice", "sid": null, "jti": null}));
    ask("/login").json(&credentials("nobody", WRONG)).send(gateway.public);
    told(4, "login", "wrong_credentials", &json!({"user": "nobody"}));
    ask("/login").body("{").header("Content-Type", "application/json").send(gateway.public);
    told(5, "login", "malformed_body", &json!({"user": null}));
    let again = tokens(ask("/login").json(&credentials("alice", PASSWORD)).send(gateway.public));
    told(6, "login", "", &of_token(&again.access));
    assert_eq!(ask("/token/refresh").bearer(&alice.refresh).send(gateway.public).status, 200);
    told(7, "refresh", "", &of_token(&alice.refresh));
    assert_eq!(ask("/logout/access").bearer(&alice.access).send(gateway.public).status, 200);
    told(8, "logout_access", "", &of_token(&alice.access));
    assert_eq!(ask("/logout/refresh").bearer(&alice.refresh).send(gateway.public).status, 200);
    told(9, "logout_refresh", "", &of_token(&alice.refresh));
    assert_eq!(ask("/token/refresh").bearer(&alice.refresh).send(gateway.public).status, 401);
    told(10, "refresh", "token_revoked", &of_token(&alice.refresh));
    assert_eq!(ask("/token/refresh").bearer("a.b.c").send(gateway.public).status, 401);
    told(11, "refresh", "token_malformed", &json!({"user": null, "sid": null}));
    assert_eq!(request("DELETE", "/users").bearer(&again.access).send(gateway.public).status, 403);
    check(
        &last(&path, 12),
        &json!({"event": "users_delete", "reason": "forbidden", "user": "alice", "user_agent": null}),
    );
    // Neither reading nor a wrong method is an event.
    get("/users").bearer(&again.access).send(gateway.public);
    get("/login").send(gateway.public);
    assert_eq!(gateway.try_token(&again.access), 200);
    gateway.register("bob");
    check(&last(&path, 13), &json!({"event": "registration", "user": "bob"}));

    let text = std::fs::read_to_string(&path).unwrap();
    let output = gateway.output();
    let secrets = [PASSWORD, WRONG, &alice.access, &alice.refresh, &again.access, &again.refresh, "argon2", "$"];
    for secret in secrets {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    assert!(!output.contains(r#""message":"audit""#), "it goes to the file alone: {output}");
}

#[test]
fn the_ends_of_sessions() {
    let origin = Origin::start();
    let rotating = json!({"enabled": true, "grace": "0s"});
    let (gateway, path) = with_file(Setup::new(origin.address).set("identity.refresh_rotation", rotating));
    let success = |count: usize, event: &str, about: &Value| {
        check(&last(&path, count), &merged(&json!({"event": event, "outcome": "success"}), about));
    };
    let first = gateway.register("alice");
    let second = gateway.login("alice");
    let sid = jwt::claims_of(&first.access)["sid"].as_str().unwrap().to_owned();
    request("DELETE", &format!("/sessions/{sid}")).bearer(&second.access).send(gateway.public);
    success(3, "session_end", &merged(&of_token(&second.access), &json!({"ended": sid})));
    request("DELETE", "/sessions/none").bearer(&second.access).send(gateway.public);
    check(&last(&path, 4), &json!({"event": "session_end", "reason": "no_route", "ended": "none"}));
    post("/logout").bearer(&second.refresh).send(gateway.public);
    success(5, "logout", &of_token(&second.refresh));

    let third = gateway.login("alice");
    let body = json!({"old_password": PASSWORD, "new_password": format!("{PASSWORD} 2")});
    let changed = post("/password").bearer(&third.access).json(&body).send(gateway.public).json();
    let pair = |name: &str| changed[name].as_str().unwrap().to_owned();
    success(7, "password", &of_token(&pair("access_token")));
    post("/password").bearer(&pair("access_token")).json(&body).send(gateway.public);
    check(&last(&path, 8), &json!({"event": "password", "reason": "wrong_credentials", "user": "alice"}));

    let root = pair("refresh_token");
    let child = post("/token/refresh").bearer(&root).send(gateway.public).json()["refresh_token"].clone();
    post("/token/refresh").bearer(child.as_str().unwrap()).send(gateway.public);
    success(10, "refresh", &of_token(child.as_str().unwrap()));
    post("/token/refresh").bearer(&root).send(gateway.public);
    let reused = merged(&of_token(&root), &json!({"event": "reuse", "outcome": "failure", "reason": "token_revoked"}));
    check(&last(&path, 11), &reused);

    let body = credentials("alice", &format!("{PASSWORD} 2"));
    let fourth = post("/login").json(&body).send(gateway.public).json()["access_token"].clone();
    post("/logout/all").bearer(fourth.as_str().unwrap()).send(gateway.public);
    success(13, "logout_all", &of_token(fourth.as_str().unwrap()));
    get("/sessions").bearer(fourth.as_str().unwrap()).send(gateway.public);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains(PASSWORD) && !text.contains(&root), "{text}");
}

#[test]
fn an_administrator_and_the_command_line() {
    let origin = Origin::start();
    let (gateway, path) = with_file(Setup::new(origin.address));
    let user = String::from_utf8(std::process::Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    let by_hand = json!({"actor": "cli", "system_user": user.trim(), "outcome": "success", "client": null});
    let run = |arguments: &[&str]| {
        let done = gateway.cli(arguments, &format!("{PASSWORD}\n"));
        assert!(done.status.success(), "{arguments:?}: {done:?}");
        assert!(!said(&done).contains("audit"), "the file alone is told: {}", said(&done));
    };
    run(&["users", "add", "root", "--role", "admin", "--role", "staff"]);
    check(&last(&path, 1), &merged(&by_hand, &json!({"event": "user_add", "user": "root", "roles": "admin,staff"})));
    let bob = gateway.register("bob");
    let claims = jwt::claims_of(&bob.access);
    let (jti, sid) = (claims["jti"].as_str().unwrap(), claims["sid"].as_str().unwrap());
    for (index, (arguments, expected)) in [
        (&["users", "roles", "bob", "a", "b"][..], json!({"event": "user_roles", "user": "bob", "roles": "a,b"})),
        (&["users", "roles", "bob"], json!({"event": "user_roles", "user": "bob", "roles": ""})),
        (&["users", "password", "bob"], json!({"event": "user_password", "user": "bob"})),
        (&["users", "disable", "bob"], json!({"event": "user_disable", "user": "bob"})),
        (&["users", "disable", "--undo", "bob"], json!({"event": "user_enable", "user": "bob"})),
        (&["users", "disable", "bob"], json!({"event": "user_disable", "user": "bob"})),
        (&["users", "enable", "bob"], json!({"event": "user_enable", "user": "bob"})),
        (&["users", "unlock", "bob"], json!({"event": "user_unlock", "user": "bob"})),
        (&["tokens", "revoke", &bob.access], json!({"event": "revocation", "user": "bob", "jti": jti})),
        (&["tokens", "revoke", "--jti", "x"], json!({"event": "revocation", "user": null, "jti": "x"})),
        (&["tokens", "revoke", "--session", sid], json!({"event": "revocation", "sid": sid, "jti": null})),
        (&["tokens", "revoke", "--user", "bob"], json!({"event": "revocation", "user": "bob", "sid": null})),
        (&["users", "delete", "bob"], json!({"event": "user_delete", "user": "bob"})),
    ]
    .iter()
    .enumerate()
    {
        run(arguments);
        check(&last(&path, index + 3), &merged(&by_hand, expected));
    }
    let refused = gateway.cli(&["users", "delete", "nobody"], "");
    assert_eq!(refused.status.code(), Some(1));
    run(&["users", "list"]);
    gateway.register("carl");
    let root = gateway.login("root");
    assert_eq!(request("DELETE", "/users").bearer(&root.access).send(gateway.public).status, 200);
    let expected = json!({"event": "users_delete", "actor": "client", "user": "root", "count": "1"});
    check(&last(&path, 18), &expected);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains(PASSWORD) && !text.contains(&bob.access), "{text}");
}

#[test]
fn keys_and_whose_token_of_another_issuer_it_was() {
    let origin = Origin::start();
    let trusted = json!([{"issuer": "https://idp.example", "secret": SECRET}]);
    let setup = Setup::new(origin.address).unset("tokens", "secret").set("tokens.trusted", trusted);
    let (gateway, path) = with_file(setup);
    let done = gateway.cli(&["keys", "rotate", "--now"], "");
    assert!(done.status.success(), "{done:?}");
    let kid = said(&done).split(' ').next().unwrap().to_owned();
    check(&last(&path, 1), &json!({"event": "key_rotate", "outcome": "success", "kid": kid, "actor": "cli"}));
    assert!(gateway.cli(&["keys", "revoke", &kid], "").status.success());
    check(&last(&path, 2), &json!({"event": "key_revoke", "outcome": "success", "kid": kid, "actor": "cli"}));

    let exp = jwt::now() + 600;
    let foreign = json!({"iss": "https://idp.example", "sub": "alice", "jti": "j", "exp": exp});
    let foreign = jwt::sign(&foreign);
    assert_eq!(post("/logout").bearer(&foreign).send(gateway.public).status, 200);
    let of = json!({"user": "alice", "issuer": "https://idp.example", "jti": "j"});
    check(&last(&path, 3), &merged(&of, &json!({"event": "logout", "outcome": "success"})));
    assert_eq!(post("/logout/all").bearer(&foreign).send(gateway.public).status, 401);
    let foreign = json!({"iss": "https://idp.example", "sub": "alice", "jti": "k", "exp": exp});
    let foreign = jwt::sign(&foreign);
    assert_eq!(post("/logout/all").bearer(&foreign).send(gateway.public).status, 403);
    check(&last(&path, 5), &json!({"event": "logout_all", "reason": "forbidden", "issuer": "https://idp.example"}));
}

#[test]
fn through_the_log_whatever_its_level() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).set("log", json!({"level": "error", "access": false})).start();
    gateway.register("alice");
    let audit = || gateway.log().into_iter().filter(|line| line["message"] == "audit").collect::<Vec<_>>();
    await_that("the line is written", || audit().len() == 1);
    check(&audit()[0], &json!({"event": "registration", "user": "alice"}));
    let done = gateway.cli(&["users", "disable", "alice"], "");
    let line = serde_json::from_slice(&done.stderr).unwrap_or_else(|error| panic!("{error}: {done:?}"));
    check(&line, &json!({"event": "user_disable", "user": "alice", "actor": "cli"}));

    let name = "x\" outcome=\"success\n\u{1b}[2J";
    let gateway = Setup::new(origin.address).set("log", json!({"format": "text"})).start();
    post("/login").json(&credentials(name, WRONG)).send(gateway.public);
    let found = |needle: &str| gateway.output().lines().any(|line| line.contains(needle));
    await_that("the line is written", || found(" AUDIT event=\"login\" outcome=\"failure\""));
    assert!(found(r#"user="x\" outcome=\"success\u000a\u001b[2J""#), "{}", gateway.output());
}

#[test]
fn names_that_attack_the_file() {
    let origin = Origin::start();
    let (gateway, path) = with_file(Setup::new(origin.address));
    let forged = "x\"}\n{\"timestamp\":\"2000-01-01T00:00:00.000Z\",\"event\":\"login\",\"user\":\"root";
    for (index, name) in [forged, "\u{2028}\u{85}\u{7f}\u{202e}", &"n".repeat(9000), "\u{0}"].into_iter().enumerate() {
        post("/login").json(&credentials(name, WRONG)).send(gateway.public);
        let user = last(&path, index + 1)["user"].as_str().unwrap().to_owned();
        assert!(name.starts_with(user.trim_end_matches('…')) && user.chars().count() <= 257, "{user:?}");
        assert!(name.len() < 1000 || user.len() < 300, "bounded: {user:?}");
    }
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.trim_end().contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
}

#[test]
fn logrotate_moves_the_file_away() {
    let origin = Origin::start();
    let (gateway, path) = with_file(Setup::new(origin.address));
    gateway.register("alice");
    last(&path, 1);
    let old = path.with_extension("log.1");
    std::fs::rename(&path, &old).unwrap();
    gateway.register("bob");
    check(&last(&old, 2), &json!({"user": "bob"}));
    gateway.signal("HUP");
    await_that("the file is made anew", || path.exists());
    await_that("the reload is done", || {
        metric(&gateway, "portcullis_config_reloads_total{outcome=\"success\"}") == 1.0
    });
    gateway.register("carl");
    check(&last(&path, 1), &json!({"user": "carl"}));
    assert_eq!(lines(&old).len(), 2);
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(metric(&gateway, "portcullis_audit_lines_lost_total") == 0.0);
}

#[test]
fn a_file_that_cannot_be_written() {
    let origin = Origin::start();
    let setup = Setup::new(origin.address).set("log.audit", json!("none/audit.log"));
    let folder = tempfile::tempdir().unwrap();
    let (config, ..) = setup.clone().write(folder.path());
    for arguments in [&["check"][..], &["run"], &["users", "add", "alice"]] {
        let done = cli_with(&config, arguments, &format!("{PASSWORD}\n"));
        assert_eq!(done.status.code(), Some(78), "{arguments:?}: {done:?}");
        assert!(said(&done).contains("log.audit: "), "{arguments:?}: {}", said(&done));
    }
    std::fs::create_dir(folder.path().join("none")).unwrap();
    let gateway = setup.start_in(std::sync::Arc::new(folder));
    gateway.register("alice");
    last(&gateway.folder.path().join("none/audit.log"), 1);

    // A reload that asks for the impossible changes nothing.
    let text = std::fs::read_to_string(&gateway.config).unwrap();
    std::fs::write(&gateway.config, text.replace("none/audit.log", "nowhere/audit.log")).unwrap();
    gateway.signal("HUP");
    await_that("the reload is refused", || {
        gateway.output().contains("not reloaded, the old configuration stays: log.audit")
    });
    gateway.register("bob");
    last(&gateway.folder.path().join("none/audit.log"), 2);
}

#[test]
fn a_full_disk_stops_no_login() {
    let origin = Origin::start();
    // The audit may grow to 256 or 512 KiB, and is almost there; the database lies below that.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let setup = Setup::new(origin.address).set("log.audit", json!("audit.log"));
    std::fs::write(&path, "\n".repeat(1024 * 1024)).unwrap();
    let gateway = setup.after("trap '' XFSZ; ulimit -f 1024").start_in(std::sync::Arc::new(folder));
    gateway.register("alice");
    await_that("the loss is counted", || metric(&gateway, "portcullis_audit_lines_lost_total") >= 1.0);
    assert_eq!(gateway.try_token(&gateway.login("alice").access), 200);
    await_that("the loss is counted", || metric(&gateway, "portcullis_audit_lines_lost_total") >= 2.0);
    let told =
        gateway.log().iter().filter(|line| line["message"].as_str().is_some_and(|m| m.contains("the audit"))).count();
    assert_eq!(told, 1, "told once: {}", gateway.output());
    std::fs::write(&path, "").unwrap();
    gateway.login("alice");
    check(&last(&path, 1), &json!({"event": "login", "user": "alice"}));
    await_that("the log says so", || gateway.output().contains("the audit can be written again"));
}

#[test]
fn a_client_that_leaves_is_not_forgotten() {
    let origin = Origin::start();
    let slow = json!({"memory": "64MiB", "iterations": 8});
    let (gateway, path) = with_file(Setup::new(origin.address).set("identity.password.argon2", slow));
    let body = credentials("alice", PASSWORD).to_string();
    let head = format!(
        "POST /registration HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    let mut connection = Connection::open(gateway.public);
    connection.send(head.as_bytes()).unwrap();
    assert_eq!(connection.receive_head().unwrap().status, 100, "the body is waited for");
    connection.send(body.as_bytes()).unwrap();
    // Long before its hash is computed.
    drop(connection);
    check(&last(&path, 1), &json!({"event": "registration", "outcome": "unknown", "client": "127.0.0.1"}));
}

#[test]
fn the_last_lines_are_written_at_the_end() {
    let origin = Origin::start();
    let (mut gateway, path) = with_file(Setup::new(origin.address));
    let alice = gateway.register("alice");
    for _ in 0..50 {
        post("/logout/access").bearer(&alice.access).send(gateway.public);
    }
    gateway.signal("TERM");
    assert!(gateway.await_end().success());
    assert_eq!(lines(&path).len(), 51);
}

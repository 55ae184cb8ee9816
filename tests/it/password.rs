//! Accounts change: by POST /password, and by the command line beside a running gateway.

use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::harness::{BINARY, Gateway, PASSWORD, Setup, Tokens, await_that, credentials, holds_within, run, said};
use crate::jwt;
use crate::origin::Origin;
use crate::wire::{Connection, Response, get, post};

const NEW: &str = "another battery, another horse";

fn started() -> (Origin, Gateway) {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    (origin, gateway)
}

fn change(gateway: &Gateway, token: &str, old: &str, new: &str) -> Response {
    post("/password").bearer(token).json(&json!({"old_password": old, "new_password": new})).send(gateway.public)
}

fn login(gateway: &Gateway, name: &str, password: &str) -> u16 {
    post("/login").json(&credentials(name, password)).send(gateway.public).status
}

fn refresh(gateway: &Gateway, token: &str) -> Response {
    post("/token/refresh").bearer(token).send(gateway.public)
}

/// Both tokens are refused, a little later at most.
#[track_caller]
fn await_end(gateway: &Gateway, tokens: &Tokens) {
    await_that("the access token is refused", || gateway.try_token(&tokens.access) == 401);
    assert_eq!(get("/secret").bearer(&tokens.access).send(gateway.public).code(), "token_revoked");
    assert_eq!(refresh(gateway, &tokens.refresh).code(), "token_revoked");
}

#[track_caller]
fn command(gateway: &Gateway, arguments: &[&str], input: &str) {
    let done = gateway.cli(arguments, input);
    assert!(done.status.success(), "{arguments:?}: {}", said(&done));
}

#[test]
fn a_new_password_ends_every_session_but_the_one_that_it_gives() {
    let (_origin, gateway) = started();
    let (other, own) = (gateway.register("alice"), gateway.login("alice"));
    let flask = jwt::access("alice");
    let answer = change(&gateway, &own.access, PASSWORD, NEW);
    assert_eq!((answer.status, answer.message()), (200, "Password changed".into()), "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let body = answer.json();
    let text = |name: &str| body[name].as_str().unwrap().to_owned();
    let fresh = Tokens { access: text("access_token"), refresh: text("refresh_token") };
    for tokens in [&other, &own] {
        assert_eq!(get("/secret").bearer(&tokens.access).send(gateway.public).code(), "token_revoked");
        assert_eq!(refresh(&gateway, &tokens.refresh).code(), "token_revoked");
    }
    assert_eq!(gateway.try_token(&flask), 401);
    assert_eq!(gateway.try_token(&fresh.access), 200);
    assert_eq!(refresh(&gateway, &fresh.refresh).status, 200);
    assert_eq!(jwt::claims_of(&fresh.access)["fresh"], true, "the password was typed for it");
    let list = get("/sessions").bearer(&fresh.access).send(gateway.public).json();
    let list = list["sessions"].as_array().unwrap();
    assert!(list.len() == 1 && list[0]["current"] == true, "{list:?}");
    assert_eq!((login(&gateway, "alice", PASSWORD), login(&gateway, "alice", NEW)), (401, 200));
}

#[test]
fn what_a_new_password_needs() {
    let (_origin, gateway) = started();
    let tokens = gateway.register("alice");
    let huge = "p".repeat(1025);
    for (old, new, status, code) in [
        ("wrong password", NEW, 401, "wrong_credentials"),
        ("x", NEW, 401, "wrong_credentials"),
        (&huge, NEW, 401, "wrong_credentials"),
        (PASSWORD, "short", 400, "weak_password"),
        (PASSWORD, &huge, 400, "weak_password"),
        ("", NEW, 400, "field_missing"),
        (PASSWORD, "", 400, "field_missing"),
    ] {
        let answer = change(&gateway, &tokens.access, old, new);
        assert_eq!((answer.status, answer.code()), (status, code), "{answer:?}");
    }
    let ask = || post("/password").bearer(&tokens.access);
    let blank = ask().json(&json!({"username": "alice", "password": PASSWORD})).send(gateway.public);
    assert_eq!(blank.json()["message"], json!({"old_password": "This field cannot be blank"}));
    let twice = r#"{"old_password":"a","old_password":"b","new_password":"12345678"}"#;
    let twice = ask().header("Content-Type", "application/json").body(twice).send(gateway.public);
    assert_eq!(twice.code(), "malformed_body");
    assert!(twice.message().contains("old_password and new_password"), "{twice:?}");
    assert_eq!(ask().header("Content-Type", "text/plain").body("x").send(gateway.public).status, 415);
    assert_eq!(change(&gateway, &jwt::access("nobody"), PASSWORD, NEW).code(), "token_revoked");
    assert_eq!(gateway.try_token(&tokens.access), 200, "nothing has changed");
    assert_eq!(login(&gateway, "alice", PASSWORD), 200);
    let form = ask().form(&format!("old_password={}&new_password=a+new+one", PASSWORD.replace(' ', "+")));
    assert_eq!(form.send(gateway.public).status, 200);
    assert_eq!(login(&gateway, "alice", "a new one"), 200);
}

#[test]
fn a_token_that_expires_while_the_body_comes_changes_nothing() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).set("tokens", json!({"access_ttl": "4s", "leeway": "0s"})).start();
    let tokens = gateway.register("alice");
    let body = json!({"old_password": PASSWORD, "new_password": NEW}).to_string();
    let (first, rest) = body.split_at(1);
    let mut held = Connection::open(gateway.public);
    let head = format!("POST /password HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n", tokens.access);
    let head = format!("{head}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{first}", body.len());
    held.send(head.as_bytes()).unwrap();
    assert_eq!(gateway.try_token(&tokens.access), 200, "the machine is too slow for this test");
    await_that("it has expired", || gateway.try_token(&tokens.access) == 401);
    held.send(rest.as_bytes()).unwrap();
    assert_eq!(held.receive("POST").unwrap().code(), "token_expired");
    assert_eq!(login(&gateway, "alice", PASSWORD), 200);
}

#[test]
fn of_two_changes_at_once_one_is_made() {
    let (_origin, gateway) = started();
    let password = |round: usize| format!("password number {round}");
    let first = post("/registration").json(&credentials("alice", &password(0))).send(gateway.public);
    assert_eq!(first.status, 201);
    for round in 0..5 {
        let (old, new) = (password(round), password(round + 1));
        let tokens = [(); 2].map(|()| {
            let answer = post("/login").json(&credentials("alice", &old)).send(gateway.public);
            answer.json()["access_token"].as_str().unwrap().to_owned()
        });
        let mut statuses = std::thread::scope(|scope| {
            let changes = tokens.each_ref().map(|token| scope.spawn(|| change(&gateway, token, &old, &new).status));
            changes.map(|change| change.join().unwrap())
        });
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 401], "round {round}");
    }
}

#[test]
fn a_disabled_account_is_out_until_that_is_undone() {
    let (_origin, gateway) = started();
    let tokens = gateway.register("alice");
    command(&gateway, &["users", "disable", "alice"], "");
    await_end(&gateway, &tokens);
    assert_eq!(login(&gateway, "alice", PASSWORD), 401);
    assert_eq!(change(&gateway, &tokens.access, PASSWORD, NEW).code(), "token_revoked");
    assert!(said(&gateway.cli(&["users", "list"], "")).contains("disabled"));
    for undo in [&["users", "enable", "alice"][..], &["users", "disable", "alice", "--undo"]] {
        command(&gateway, undo, "");
        let live = gateway.login("alice").access;
        let again = gateway.cli(undo, "");
        assert!(again.status.success() && said(&again).contains("is not disabled"), "{}", said(&again));
        assert!(!holds_within(Duration::from_millis(500), || gateway.try_token(&live) != 200), "nothing has changed");
        assert_eq!(gateway.try_token(&tokens.access), 401, "old tokens stay dead");
        assert!(!said(&gateway.cli(&["users", "list"], "")).contains("disabled"));
        command(&gateway, &["users", "disable", "alice"], "");
        assert_eq!(login(&gateway, "alice", PASSWORD), 401);
    }
}

#[test]
fn each_command_that_changes_an_account_ends_its_tokens() {
    let (_origin, gateway) = started();
    let bob = gateway.register("bob");
    gateway.register("alice");
    let file = gateway.folder.path().join("password");
    std::fs::write(&file, format!("{NEW}\n")).unwrap();
    let file = file.to_str().unwrap();
    for arguments in [
        &["users", "roles", "alice", "analyst", "staff"][..],
        &["tokens", "revoke", "--user", "alice"],
        &["users", "password", "alice", "--password-file", file],
        &["users", "delete", "alice"],
    ] {
        let tokens = gateway.login("alice");
        assert_eq!(gateway.try_token(&tokens.access), 200);
        command(&gateway, arguments, "");
        await_end(&gateway, &tokens);
        if arguments.contains(&"password") {
            assert_eq!((login(&gateway, "alice", PASSWORD), login(&gateway, "alice", NEW)), (401, 200));
            command(&gateway, &["users", "password", "alice"], &format!("{PASSWORD}\n"));
        }
    }
    assert_eq!(login(&gateway, "alice", PASSWORD), 401);
    assert_eq!(gateway.try_token(&bob.access), 200, "nobody else's");
    for arguments in [
        &["users", "disable", "alice"][..],
        &["users", "enable", "alice"],
        &["users", "password", "alice"],
        &["users", "roles", "alice"],
    ] {
        let done = gateway.cli(arguments, &format!("{PASSWORD}\n"));
        assert_eq!(done.status.code(), Some(1), "{arguments:?}: {}", said(&done));
    }
}

#[test]
fn a_password_is_the_one_line_of_its_source() {
    let (_origin, gateway) = started();
    let file = gateway.folder.path().join("password");
    let give = |name: &str, bytes: &[u8], from_file: bool| {
        std::fs::write(&file, bytes).unwrap();
        let input = std::fs::File::open(&file).unwrap();
        let mut command = Command::new(BINARY);
        command.args(["users", "add", name]);
        if from_file {
            command.arg("--password-file").arg(&file);
        }
        command.arg("--config").arg(&gateway.config).stdin(input).output().unwrap()
    };
    for (index, from_file) in [(0, false), (10, true)] {
        for (more, ends) in [("", ""), ("", "\r\n\n"), ("\u{feff}", "\r\n"), ("", "\n\r\n")].iter().enumerate() {
            let name = format!("u{}", index + more);
            let bytes = format!("{}{NEW}{}", ends.0, ends.1);
            let done = give(&name, bytes.as_bytes(), from_file);
            assert_eq!(done.status.code(), Some(0), "{bytes:?}: {}", said(&done));
            assert_eq!(login(&gateway, &name, NEW), 200, "{bytes:?}");
        }
        let two = give("two", format!("{NEW}\n{PASSWORD}\n").as_bytes(), from_file);
        assert!(two.status.code() == Some(1) && said(&two).contains("several lines"), "{}", said(&two));
        let endless = vec![b'0'; 100 * 1024];
        let done = give("large", &endless, from_file);
        assert!(done.status.code() == Some(1) && said(&done).contains("64 KiB"), "{}", said(&done));
    }
    let mut zeros = Command::new("sh");
    zeros.arg("-c").arg("ulimit -v 1000000; exec \"$0\" users add zero --config \"$1\" </dev/zero").arg(BINARY);
    let done = zeros.arg(&gateway.config).output().unwrap();
    assert!(done.status.code() == Some(1) && said(&done).contains("64 KiB"), "{}", said(&done));
}

#[test]
fn without_a_terminal_to_ask_on_the_remedy_is_named() {
    let (_origin, gateway) = started();
    // Standard input is a terminal, but not the one that controls the program: there is none.
    let line = format!("setsid -w {BINARY} users add carol --config {}", gateway.config.display());
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]);
    let done = run(command, "");
    assert!(said(&done).contains("--password-file FILE") && said(&done).contains("pipe"), "{}", said(&done));
}

#[test]
fn a_password_is_never_an_argument() {
    let (_origin, gateway) = started();
    for arguments in [
        &["users", "add", "carol", "--password", PASSWORD][..],
        &["users", "add", "carol", PASSWORD],
        &["users", "password", "carol", PASSWORD],
    ] {
        assert_eq!(gateway.cli(arguments, "").status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn new_roles_are_in_new_tokens_and_open_their_routes() {
    let (_origin, gateway) = started();
    let tokens = gateway.register("alice");
    let admin = |token: &str| get("/admin/x").bearer(token).send(gateway.public).status;
    assert_eq!(admin(&tokens.access), 403);
    command(&gateway, &["users", "roles", "alice", "admin"], "");
    await_end(&gateway, &tokens);
    let tokens = gateway.login("alice");
    assert_eq!(admin(&tokens.access), 200);
    let renewed = refresh(&gateway, &tokens.refresh).json();
    assert_eq!(admin(renewed["access_token"].as_str().unwrap()), 200, "of a refresh too");
}

#[test]
fn in_the_style_of_flask() {
    let origin = Origin::start();
    let gateway = Setup::flask(origin.address).start();
    let tokens = gateway.register("alice");
    let wrong = change(&gateway, &tokens.access, "wrong password", NEW);
    assert_eq!((wrong.status, wrong.json()), (200, json!({"message": "Wrong credentials"})));
    let changed = change(&gateway, &tokens.access, PASSWORD, NEW);
    assert_eq!((changed.status, changed.message()), (200, "Password changed".into()));
    let access = changed.json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(jwt::claims_of(&access)["fresh"], false);
    let dead = get("/sessions").bearer(&tokens.access).send(gateway.public);
    assert_eq!((dead.status, dead.json()), (401, json!({"msg": "Token has been revoked"})));
}

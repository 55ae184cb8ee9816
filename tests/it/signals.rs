//! Signals that are not for stopping.

use serde_json::{Value, json};

use crate::harness::{PASSWORD, Setup, await_that, credentials};
use crate::origin::Origin;
use crate::wire::{get, post};

#[test]
fn usr1_opens_the_audit_anew_and_usr2_is_ignored() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).set("log.audit", json!("audit.log")).start();
    gateway.register("alice");
    let file = gateway.folder.path().join("audit.log");
    let moved = gateway.folder.path().join("audit.log.1");
    let events = |path| std::fs::read_to_string(path).unwrap_or_default().matches(r#""event":"#).count();
    await_that("the registration is written", || events(&file) == 1);
    std::fs::rename(&file, &moved).unwrap();
    gateway.signal("USR2");
    gateway.signal("USR1");
    await_that("the file is there again", || file.exists());
    let log_in = || post("/login").json(&credentials("alice", PASSWORD)).send(gateway.public).status;
    assert_eq!(log_in(), 200);
    await_that("the login is in the new one", || events(&file) == 1);
    assert_eq!(events(&moved), 1);
    for _ in 0..20 {
        gateway.signal("USR2");
    }
    assert_eq!(get("/public/x").send(gateway.public).status, 200);
    assert!(gateway.is_ready());
}

#[test]
fn a_hangup_without_a_change_says_so() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    let says = |text: &str| gateway.log().iter().any(|line: &Value| line["message"].as_str().unwrap().contains(text));
    gateway.signal("HUP");
    await_that("it says that nothing has changed", || says("SIGHUP: no file has changed"));
    await_that("and reloads nevertheless", || says("gateway.yaml is reloaded"));
}

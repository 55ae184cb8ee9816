//! Reloading: a good file takes the place of the old one as a whole, a wrong one changes nothing.

use std::time::Duration;

use aws_lc_rs::hmac;
use serde_json::{Value, json};

use crate::harness::{Gateway, Setup, await_that};
use crate::jwt;
use crate::origin::Origin;
use crate::wire::{Connection, get};

const OTHER: &str = "another-secret-for-the-same-tests-of-48-bytes-ok";

/// A good access token, signed with the other secret.
fn foreign(subject: &str) -> String {
    let (header, claims) = (r#"{"alg":"HS256","typ":"JWT"}"#, Value::Object(jwt::claims(subject)).to_string());
    jwt::sign_text(header, &claims, OTHER.as_bytes(), hmac::HMAC_SHA256)
}

/// Rewrites gateway.yaml.
pub fn edit(gateway: &Gateway, change: impl FnOnce(&mut Value)) {
    let text = std::fs::read_to_string(&gateway.config).unwrap();
    let mut config = serde_json::from_str(&text).unwrap();
    change(&mut config);
    std::fs::write(&gateway.config, config.to_string()).unwrap();
}

/// How many reloads there were, good and bad.
fn reloads(gateway: &Gateway) -> (u32, u32) {
    let text = get("/metrics").send(gateway.admin).text();
    let count = |outcome: &str| {
        let name = format!("portcullis_config_reloads_total{{outcome=\"{outcome}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |count| count.parse().unwrap())
    };
    (count("success"), count("failure"))
}

/// Has it taken up.
pub fn reload(gateway: &Gateway) {
    let (before, _) = reloads(gateway);
    gateway.signal("HUP");
    await_that("the reload is done", || reloads(gateway).0 > before);
}

#[test]
fn reload_that_the_store_did_not_allow_is_tried_again() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    let other = rusqlite::Connection::open(gateway.folder.path().join("portcullis.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    edit(&gateway, |config| {
        // A longer life of tokens is written to the store before it holds.
        config["tokens"]["refresh_ttl"] = json!("60d");
        config["routes"].as_array_mut().unwrap().push(json!({"path": "/fresh", "upstream": "app", "auth": "public"}));
    });
    await_that("the reload has failed", || reloads(&gateway).1 > 0);
    assert_eq!(get("/fresh").send(gateway.public).status, 404);
    other.execute_batch("ROLLBACK").unwrap();
    await_that("the reload is done", || reloads(&gateway).0 > 0);
    assert_eq!(get("/fresh").send(gateway.public).status, 200);
}

#[test]
fn sighup_takes_up_routes_upstreams_and_rules() {
    let (old, new) = (Origin::start(), Origin::start());
    let gateway = Setup::new(old.address).start();
    let token = gateway.register("alice").access;
    assert_eq!(get("/fresh").send(gateway.public).status, 404);
    edit(&gateway, |config| {
        config["upstreams"]["app"]["servers"] = json!([format!("http://{}", new.address)]);
        config["routes"].as_array_mut().unwrap().push(json!({"path": "/fresh", "upstream": "app", "auth": "public"}));
        config["routes"][2]["auth"] = json!({"roles": ["admin"]});
    });
    reload(&gateway);
    let seen = old.count();
    assert_eq!(get("/fresh").send(gateway.public).status, 200);
    assert_eq!((old.count(), new.last().target.as_str()), (seen, "/fresh"));
    assert_eq!(gateway.try_token(&token), 403, "the same token by the new rule");
}

#[test]
fn a_changed_file_is_seen_without_a_signal() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    edit(&gateway, |config| config["routes"][0]["auth"] = json!("required"));
    await_that("the change is taken up", || get("/").send(gateway.public).status == 401);
    assert_eq!(reloads(&gateway), (1, 0), "once");
}

#[test]
fn a_wrong_file_changes_nothing_and_says_why() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    for wrong in [
        "routes: [{path: /x, upstream: nowhere}]",
        "{",
        "server: {listen: 127.0.0.1:1}\ntokens: {secret: short}",
        // As while it is being written.
        "",
        "log: {level: info}",
    ] {
        let (_, before) = reloads(&gateway);
        std::fs::write(&gateway.config, wrong).unwrap();
        gateway.signal("HUP");
        await_that("the reload has failed", || reloads(&gateway).1 > before);
        assert_eq!(get("/").send(gateway.public).status, 200, "{wrong}");
    }
    let metrics = get("/metrics").send(gateway.admin).text();
    assert!(metrics.contains("portcullis_config_last_reload_success 0"), "{metrics}");
    let output = gateway.output();
    assert!(output.contains("not reloaded, the old configuration stays"), "{output}");
    assert!(output.contains("routes[0].upstream") && output.contains("there is no upstream `nowhere`"), "{output}");
}

#[test]
fn what_needs_a_restart_is_named_and_the_rest_holds() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    edit(&gateway, |config| {
        config["server"]["workers"] = json!(3);
        config["admin"]["listen"] = json!("127.0.0.1:1");
        config["routes"][0]["auth"] = json!("required");
    });
    reload(&gateway);
    assert_eq!(get("/").send(gateway.public).status, 401);
    let named = || -> Vec<String> {
        let log = gateway.log();
        let told = log.iter().filter(|line| line["message"].as_str().is_some_and(|text| text.contains("restart")));
        told.filter_map(|line| line["key"].as_str().map(str::to_owned)).collect()
    };
    // Once for each reload; on a slow machine the change of the file is one of its own.
    let first = ["server.workers", "admin.listen"];
    let told = |times: usize| named().len() >= times * first.len() && named().chunks(2).all(|pair| pair == first);
    await_that("both are named", || told(1));
    // The same file is still not what runs.
    let before = named().len() / 2;
    reload(&gateway);
    await_that("both are named again", || told(before + 1));
    edit(&gateway, |config| {
        config["server"]["workers"] = json!(2);
        config["admin"]["listen"] = json!(gateway.admin.to_string());
    });
    let before = named();
    reload(&gateway);
    assert_eq!(named(), before, "nothing waits any more");
}

#[test]
fn what_failed_for_a_missing_file_is_tried_again_when_it_comes() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    let token = foreign("alice");
    edit(&gateway, |config| config["tokens"] = json!({"secret_file": "other.secret"}));
    await_that("it fails", || reloads(&gateway) == (0, 1));
    assert_eq!(gateway.try_token(&token), 401);
    std::fs::write(gateway.folder.path().join("other.secret"), OTHER).unwrap();
    await_that("it is taken up", || reloads(&gateway) == (1, 1));
    assert_eq!(gateway.try_token(&token), 200);
}

#[test]
fn the_warnings_of_a_new_file_are_told() {
    let origin = Origin::start();
    let gateway = Setup::flask(origin.address).start();
    assert!(!gateway.output().contains("guess such a secret"));
    edit(&gateway, |config| config["tokens"]["secret"] = json!("short"));
    reload(&gateway);
    await_that("it warns", || gateway.log().iter().any(|line| line["key"] == "tokens.secret"));
}

#[test]
fn a_kept_connection_is_judged_by_the_new_secret() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    let (old, new) = (gateway.register("alice").access, foreign("alice"));
    let mut connection = Connection::open(gateway.public);
    let mut ask = |token: &str| get("/secret").bearer(token).send_on(&mut connection, gateway.public).unwrap().status;
    assert_eq!((ask(&old), ask(&new), ask(&old)), (200, 401, 200));
    edit(&gateway, |config| config["tokens"]["secret"] = json!(OTHER));
    reload(&gateway);
    assert_eq!((ask(&old), ask(&new), ask(&old)), (401, 200, 401), "what was remembered of a signature is not");
}

#[test]
fn a_request_under_way_finishes_on_what_it_began_with() {
    let origin = Origin::scripted(|exchange| {
        let _ = exchange.read_body();
        exchange.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n");
        std::thread::sleep(Duration::from_millis(700));
        exchange.write(b"whole!");
    });
    let gateway = Setup::new(origin.address).start();
    let asking = std::thread::spawn({
        let address = gateway.public;
        move || get("/").send(address)
    });
    origin.await_count(1);
    edit(&gateway, |config| config["routes"] = json!([]));
    reload(&gateway);
    assert_eq!(get("/").send(gateway.public).status, 404);
    let answer = asking.join().unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "whole!"));
}

#[test]
fn revocations_connections_and_counts_outlive_a_reload() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address)
        .and_routes(json!([{"path": "/few", "upstream": "app", "auth": "public", "limits": {"requests": "2/h"}}]))
        .set("server.workers", json!(1))
        .start();
    let tokens = gateway.register("alice");
    let revoked = gateway.login("alice").access;
    assert_eq!(crate::wire::post("/logout/access").bearer(&revoked).send(gateway.public).status, 200);
    assert_eq!([get("/few").send(gateway.public).status, get("/few").send(gateway.public).status], [200, 200]);
    let opened = origin.connections();
    for _ in 0..3 {
        reload(&gateway);
        assert_eq!((gateway.try_token(&revoked), gateway.try_token(&tokens.access)), (401, 200));
        assert_eq!(get("/few").send(gateway.public).status, 429);
    }
    assert_eq!(origin.connections(), opened, "connections to the upstream are kept");
}

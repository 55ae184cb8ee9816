//! Exit codes: 78 (EX_CONFIG) where only a change of the configuration helps, 1 where a restart may.

use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;
use serde_json::json;
use tempfile::TempDir;

use crate::harness::{PASSWORD, Setup, cli_with, said};
use crate::origin::Origin;

const ENCRYPTION_KEY: &str = "an encryption key of at least 32 bytes";

const ADD: [&str; 3] = ["users", "add", "alice"];

/// Runs the command to its end, and checks its exit code and its text.
#[track_caller]
fn ends(config: &Path, arguments: &[&str], code: i32, says: &str) {
    let done = cli_with(config, arguments, &format!("{PASSWORD}\n"));
    assert_eq!(done.status.code(), Some(code), "{arguments:?}: {}", said(&done));
    assert!(said(&done).contains(says), "{arguments:?}, expected {says:?}: {}", said(&done));
}

fn folder() -> Arc<TempDir> {
    Arc::new(tempfile::tempdir().unwrap())
}

#[test]
fn a_wrong_file_is_78_for_every_command() {
    let origin = Origin::start();
    let good = Setup::new(origin.address);
    for (setup, says) in [
        (good.clone().set("nonsense", json!(1)), "nonsense"),
        (good.clone().set("tokens.secret", json!("short")), "tokens.secret"),
        (good.clone().set("tokens.secret", json!("${PORTCULLIS_TEST_NOT_SET}")), "PORTCULLIS_TEST_NOT_SET"),
        (good.clone().and_routes(json!([{"path": "/secret", "upstream": "app"}])), "routes[6]"),
        (good.clone().and_routes(json!([{"path": "/x", "upstream": "absent"}])), "absent"),
        (good.clone().set("log.audit", json!("absent/audit.log")), "log.audit"),
    ] {
        let folder = folder();
        let (config, ..) = setup.write(folder.path());
        for command in [&["run"][..], &["check"], &ADD] {
            ends(&config, command, 78, says);
        }
    }
    let folder = folder();
    let absent = folder.path().join("absent.yaml");
    for command in [&["run"][..], &["check"], &["health"], &["users", "list"], &["keys", "list"], &ADD] {
        ends(&absent, command, 78, "absent.yaml");
    }
}

#[test]
fn files_that_only_the_gateway_reads_are_78_too() {
    let origin = Origin::start();
    let good = Setup::new(origin.address);
    let folder = folder();
    std::fs::write(folder.path().join("empty.pem"), "").unwrap();
    std::fs::write(folder.path().join("keys.json"), "{\"keys\": []}").unwrap();
    let listen = json!([{"address": crate::harness::free_address().to_string(), "tls": true}]);
    let certificates = json!([{"cert": "empty.pem", "key": "empty.pem"}]);
    let trusted = json!([{"issuer": "https://id.test", "jwks_file": "keys.json", "audience": "x"}]);
    for (setup, says) in [
        (good.clone().set("server.listen", listen).set("server.tls.certificates", certificates), "server.tls"),
        (good.clone().set("tokens.trusted", trusted), "https://id.test"),
    ] {
        let (config, ..) = setup.write(folder.path());
        ends(&config, &["run"], 78, says);
        ends(&config, &["check"], 78, says);
    }
}

#[test]
fn a_database_of_another_kind_is_78() {
    let origin = Origin::start();
    let setup = Setup::new(origin.address);
    let sql = |path: &Path, sql: &str| Connection::open(path).unwrap().execute_batch(sql).unwrap();
    let folder = folder();
    let (config, ..) = setup.write(folder.path());
    let path = folder.path().join("portcullis.db");
    let refused = |says: &str| {
        for command in [&["run"][..], &["check"], &["users", "list"], &["keys", "list"], &ADD] {
            ends(&config, command, 78, says);
        }
    };
    std::fs::write(&path, "no database at all ".repeat(200)).unwrap();
    refused("this is no SQLite database");
    std::fs::remove_file(&path).unwrap();
    sql(&path, "CREATE TABLE users (username, password)");
    refused("another program's database");
    std::fs::remove_file(&path).unwrap();
    ends(&config, &ADD, 0, "was created");
    sql(&path, "PRAGMA user_version = 1000");
    refused("made by a newer Portcullis");
}

#[test]
fn a_wrong_encryption_key_is_78() {
    let origin = Origin::start();
    let setup = Setup::new(origin.address).set("tokens.algorithm", json!("EdDSA"));
    let sealed = setup.clone().set("store.encryption_key", json!(ENCRYPTION_KEY));
    let mut gateway = sealed.start();
    gateway.register("alice");
    gateway.signal("TERM");
    gateway.await_end();
    let folder = Arc::clone(&gateway.folder);
    let wrong = setup.clone().set("store.encryption_key", json!(ENCRYPTION_KEY.replace("an ", "no ")));
    for (setup, says) in [(setup, "no encryption key"), (wrong, "another encryption key")] {
        let (config, ..) = setup.write(folder.path());
        for command in [&["run"][..], &["check"], &["keys", "list"]] {
            ends(&config, command, 78, says);
        }
    }
}

#[test]
fn what_a_restart_may_heal_is_1() {
    let origin = Origin::start();
    let setup = Setup::new(origin.address);
    let gateway = setup.clone().start();
    let taken = folder();
    let (config, ..) = setup.clone().set("server.listen", json!([gateway.public.to_string()])).write(taken.path());
    ends(&config, &["run"], 1, "cannot listen");
    ends(&config, &["check"], 0, "good");

    let missing = folder();
    let (config, ..) = setup.set("store.url", json!("sqlite:absent/portcullis.db")).write(missing.path());
    for command in [&["run"][..], &["check"], &ADD] {
        ends(&config, command, 1, "the database cannot be made");
    }

    let locked = Connection::open(gateway.folder.path().join("portcullis.db")).unwrap();
    locked.execute_batch("BEGIN IMMEDIATE").unwrap();
    ends(&gateway.config, &ADD, 1, "busy");
    locked.execute_batch("ROLLBACK").unwrap();
    ends(&gateway.config, &["users", "delete", "nobody"], 1, "there is no user");
}

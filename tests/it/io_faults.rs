//! A disk that fails under the database: what is said of it, what answers 503, and that it heals.

use std::path::PathBuf;
use std::process::Command;

use crate::harness::{Gateway, PASSWORD, Setup, await_that, credentials};
use crate::jwt;
use crate::origin::Origin;
use crate::wire::{get, post};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;

/// Builds the library of tests/faults/io.c.
fn library() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("io.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/io.c");
    let built =
        Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).args([source, "-ldl"]).status();
    assert!(built.unwrap().success(), "cc");
    (folder, library)
}

fn metric(gateway: &Gateway, name: &str) -> Option<String> {
    let text = get("/metrics").send(gateway.admin).text();
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned))
}

fn errors(gateway: &Gateway) -> Vec<String> {
    let lines = gateway.log().into_iter().filter(|line| line["level"] == "ERROR");
    lines.map(|line| line.to_string()).collect()
}

#[test]
fn disk_that_fails_is_named_once_and_heals() {
    let (_folder, library) = library();
    let origin = Origin::start();
    // What happens, what the log says of it, and whether only writing fails.
    for (fault, says, writes) in [
        (format!("write {ENOSPC}"), "the disk is full", true),
        (format!("write {EIO}"), "disk I/O error", true),
        (format!("sync {EIO}"), "disk I/O error", true),
        (format!("write {EROFS}"), "disk I/O error", true),
        (format!("read {EIO}"), "disk I/O error", false),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let switch = folder.path().join("fault");
        let gateway = Setup::new(origin.address)
            .env("LD_PRELOAD", library.to_str().unwrap())
            .env("IO_FAULT", switch.to_str().unwrap())
            .start();
        let alice = gateway.register("alice").access;
        let revoked = gateway.login("alice").access;
        assert_eq!(post("/logout/access").bearer(&revoked).send(gateway.public).status, 200);
        await_that("the store is writable", || metric(&gateway, "portcullis_store_writable").as_deref() == Some("1"));
        assert!(errors(&gateway).is_empty(), "{fault}: {:?}", errors(&gateway));

        std::fs::write(&switch, &fault).unwrap();
        let doomed = jwt::access("alice");
        let logout = || post("/logout/access").bearer(&doomed).send(gateway.public);
        if !writes {
            // What another process has written must be read.
            let other = rusqlite::Connection::open(gateway.folder.path().join("portcullis.db")).unwrap();
            other.execute("INSERT INTO meta (name, value) VALUES ('of_a_test', 1)", []).unwrap();
        }
        await_that("a logout is refused", || logout().status == 503);
        for _ in 0..5 {
            let login = post("/login").json(&credentials("alice", PASSWORD)).send(gateway.public);
            assert_eq!((login.status, login.code()), (503, "unavailable"), "{fault}: {login:?}");
            assert_eq!(logout().status, 503, "{fault}");
        }
        if writes {
            assert_eq!(metric(&gateway, "portcullis_store_writable").as_deref(), Some("0"), "{fault}");
            assert!(gateway.is_ready(), "{fault}: what can be read is no reason to be not ready");
        }
        assert_eq!(gateway.try_token(&alice), 200, "{fault}: proxied traffic is unharmed");
        assert_eq!(gateway.try_token(&revoked), 401, "{fault}");
        let lines = errors(&gateway);
        let said = lines.join("\n");
        assert!(said.contains(says) && said.contains("portcullis.db"), "{fault}: {said}");
        assert!(!said.contains("damaged") && !said.contains("backup"), "{fault}: {said}");
        assert!(lines.len() <= if writes { 1 } else { 3 }, "{fault}: one line, and a reminder later: {said}");

        std::fs::remove_file(&switch).unwrap();
        await_that("the store heals", || metric(&gateway, "portcullis_store_writable").as_deref() == Some("1"));
        await_that("a logout is done", || logout().status == 200);
        await_that("it is ready", || gateway.is_ready());
        assert_eq!(gateway.try_token(&doomed), 401);
        assert_eq!(gateway.try_token(&gateway.login("alice").access), 200, "{fault}");
    }
}

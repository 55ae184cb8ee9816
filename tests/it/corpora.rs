//! The shared corpora of smuggling cases and request targets, replayed by their own runners.
//!
//! `PORTCULLIS_CORPORA` names their folder, and a named folder that is missing fails. Without it, `../shared/corpora`
//! beside the repository is used where it exists; elsewhere these tests say that they were skipped.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::harness::{Gateway, Setup, await_that, free_address, run, said};
use crate::jwt;
use crate::wire::get;

fn folder() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("PORTCULLIS_CORPORA").filter(|named| !named.is_empty()) {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(named);
        assert!(folder.join("recorder.py").is_file(), "PORTCULLIS_CORPORA: no corpora in {}", folder.display());
        return Some(folder);
    }
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora");
    let found = beside.join("recorder.py").is_file();
    if !found {
        println!("skipped: PORTCULLIS_CORPORA is not set, and there is no {}", beside.display());
    }
    found.then_some(beside)
}

/// recorder.py, killed when this is dropped.
struct Recorder(Child);

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs `script` against a gateway before a recorder, and requires that it finds nothing.
fn replay(script: &str, with_token: bool, more: &[&str]) {
    let Some(folder) = folder() else { return };
    let (origin, control) = (free_address(), free_address());
    let mut recorder = Command::new("python3");
    recorder.arg(folder.join("recorder.py")).arg(origin.port().to_string()).arg(control.port().to_string());
    let recorder = Recorder(recorder.stdout(Stdio::null()).spawn().expect("python3 is needed"));
    await_that("the recorder answers", || get("/log?since=0").try_send(control).is_ok());
    let routes = json!([
        {"path": "/secret/*", "upstream": "app"},
        {"path": "/public/*", "upstream": "app", "auth": "public"},
    ]);
    let gateway: Gateway = Setup::new(origin).set("routes", routes).start();

    let mut command = Command::new("python3");
    command.arg(folder.join(script)).args(more);
    command.args(["--gw", &gateway.public.to_string(), "--control", &control.to_string()]);
    if with_token {
        command.args(["--token", &jwt::access("alice")]);
    }
    let done = run(command, "");
    drop(recorder);
    println!("{}", said(&done));
    assert!(done.status.success(), "{script}:\n{}", said(&done));
    let panics = gateway.output().lines().filter(|line| line.contains("panicked")).count();
    assert_eq!(panics, 0, "{}", gateway.output());
}

#[test]
fn smuggling() {
    replay("h1_run.py", true, &["-j", "32"]);
}

#[test]
fn request_targets() {
    replay("run_targets.py", false, &["-j", "16"]);
}

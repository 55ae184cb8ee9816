//! File permissions of the database: a start takes the rights of other users away.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::harness::{Setup, await_that, said};
use crate::origin::Origin;
use crate::store_check::{as_other_user, check};

const FILES: [&str; 3] = ["portcullis.db", "portcullis.db-wal", "portcullis.db-shm"];

pub fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn files(folder: &Path) -> [PathBuf; 3] {
    FILES.map(|name| folder.join(name))
}

fn modes(folder: &Path) -> [u32; 3] {
    files(folder).map(|path| path.metadata().unwrap().permissions().mode() & 0o7777)
}

#[test]
fn a_start_takes_the_rights_of_others_away() {
    let origin = Origin::start();
    let setup = Setup::new(origin.address);
    let mut gateway = setup.clone().start();
    let folder = Arc::clone(&gateway.folder);
    assert_eq!(modes(folder.path()), [0o600; 3]);
    assert!(!gateway.output().contains("had access"), "{}", gateway.output());
    gateway.register("alice");
    // Its log stays behind.
    gateway.kill();
    for (mode, wanted) in [(0o644, 0o600), (0o666, 0o660), (0o664, 0o660), (0o640, 0o600), (0o660, 0o660)] {
        files(folder.path()).iter().for_each(|path| set_mode(path, mode));
        let told = check(&gateway.config);
        assert_eq!(said(&told).contains("has access"), mode != wanted, "{mode:o}: {}", said(&told));
        assert_eq!(modes(folder.path()), [mode; 3], "check changes nothing");
        gateway = setup.clone().start_in(Arc::clone(&folder));
        assert_eq!(modes(folder.path()), [wanted; 3], "{mode:o}");
        let told = gateway.output();
        for path in files(folder.path()) {
            let change = format!("{}: mode {mode:04o} -> {wanted:04o}", path.canonicalize().unwrap().display());
            assert_eq!(told.contains(&change), mode != wanted, "{change}: {told}");
        }
        gateway.login("alice");
        gateway.kill();
    }
}

#[test]
fn the_log_is_made_with_the_new_mode() {
    let origin = Origin::start();
    let setup = Setup::new(origin.address);
    let mut gateway = setup.clone().start();
    let folder = Arc::clone(&gateway.folder);
    gateway.signal("TERM");
    gateway.await_end();
    set_mode(&folder.path().join("portcullis.db"), 0o644);
    let gateway = setup.start_in(Arc::clone(&folder));
    gateway.register("alice");
    assert_eq!(modes(folder.path()), [0o600; 3]);
}

#[test]
fn another_programs_file_keeps_its_mode() {
    let origin = Origin::start();
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let path = folder.path().join("portcullis.db");
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE users (name)").unwrap();
    set_mode(&path, 0o644);
    let mut gateway = Setup::new(origin.address).spawn_in(Arc::clone(&folder));
    assert_eq!(gateway.await_end().code(), Some(78));
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o644);
}

/// The mode of another user's file cannot be changed: the log says so, and the gateway runs.
#[test]
fn a_mode_that_cannot_be_changed_is_told() {
    let origin = Origin::start();
    let setup = Setup::new(origin.address);
    let mut gateway = setup.clone().start();
    let folder = Arc::clone(&gateway.folder);
    gateway.signal("TERM");
    gateway.await_end();
    let path = folder.path().join("portcullis.db");
    set_mode(&path, 0o606);
    set_mode(folder.path(), 0o777);
    let (config, _, admin) = setup.write(folder.path());
    let Some(mut command) = as_other_user(&config, &["run"]) else { return };
    let log = folder.path().join("log");
    command.stdout(std::fs::File::create(&log).unwrap());
    let mut child = command.spawn().unwrap();
    await_that("it is ready", || {
        assert!(child.try_wait().unwrap().is_none(), "it has ended: {}", std::fs::read_to_string(&log).unwrap());
        crate::wire::get("/readyz").try_send(admin).is_ok_and(|answer| answer.status == 200)
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let told = std::fs::read_to_string(&log).unwrap();
    let advice = format!("chmod 600 {}", path.canonicalize().unwrap().display());
    assert!(told.contains(&advice) && told.contains("every user of this machine has access"), "{told}");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o606);
}

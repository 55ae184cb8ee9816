//! What happens to the database file under a running gateway: deleted, renamed, replaced, restored from a backup.
//!
//! Until the right file is back, what needs the store is 503, and no logout is acknowledged that a restart would forget.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Dice, Gateway, PASSWORD, Setup, await_that, cli_with, credentials, holds_within, said};
use crate::jwt;
use crate::origin::Origin;
use crate::wire::{Response, get, post};

/// How soon a fault of the file must be noticed, and how soon its end.
const NOTICED: Duration = Duration::from_secs(2);
const HEALED: Duration = Duration::from_secs(5);

/// A logout, whatever the answer.
pub fn log_out(gateway: &Gateway, token: &str) -> Response {
    post("/logout/access").bearer(token).send(gateway.public)
}

#[track_caller]
pub fn assert_unavailable(what: &str, answer: &Response) {
    assert_eq!((answer.status, answer.code()), (503, "unavailable"), "{what}: {answer:?}");
    assert!(answer.header("retry-after").is_some(), "{what}: {answer:?}");
    assert!(!answer.text().to_lowercase().contains("sqlite"), "{what}: an inner error's text: {answer:?}");
}

/// A gateway with an account, a backup of its database, and logouts from before and after that backup.
struct Scene {
    setup: Setup,
    gateway: Gateway,
    good: String,
    /// Logged out, one before the backup and one after it.
    revoked: Vec<String>,
    backup: PathBuf,
    other_store: PathBuf,
    _origin: Origin,
}

impl Scene {
    fn start() -> Self {
        let origin = Origin::start();
        let setup = Setup::new(origin.address);
        let gateway = setup.clone().start();
        let good = gateway.register("alice").access;
        let folder = gateway.folder.path().to_owned();
        let (backup, other_store) = (folder.join("backup.db"), folder.join("other/portcullis.db"));
        let mut scene = Self { setup, gateway, good, revoked: Vec::new(), backup, other_store, _origin: origin };
        scene.revoke();
        scene.checkpoint();
        std::fs::copy(scene.file(""), &scene.backup).unwrap();
        scene.revoke();
        scene.checkpoint();

        std::fs::create_dir(folder.join("other")).unwrap();
        let (config, ..) = scene.setup.clone().write(&folder.join("other"));
        let made = cli_with(&config, &["users", "add", "alice"], &format!("{PASSWORD}\n"));
        assert!(made.status.success(), "{}", said(&made));
        assert!(scene.other_store.exists());
        scene
    }

    /// `portcullis.db` with `suffix` behind it.
    fn file(&self, suffix: &str) -> PathBuf {
        self.gateway.folder.path().join(format!("portcullis.db{suffix}"))
    }

    fn revoke(&mut self) {
        let token = jwt::access("alice");
        assert_eq!(log_out(&self.gateway, &token).status, 200);
        self.revoked.push(token);
    }

    /// Writes the log into the database file, which then holds all that was committed.
    fn checkpoint(&self) {
        let connection = rusqlite::Connection::open(self.file("")).unwrap();
        await_that("the log is empty", || {
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0)).unwrap() == 0
        });
    }

    /// Puts a copy of `source` in the place of the database, in one step; the original stays under another name.
    fn replace_by(&self, source: &Path) {
        std::fs::copy(source, self.file(".new")).unwrap();
        std::fs::hard_link(self.file(""), self.file(".kept")).unwrap();
        std::fs::rename(self.file(".new"), self.file("")).unwrap();
    }

    /// Puts the original back.
    fn put_back(&self) {
        std::fs::rename(self.file(".kept"), self.file("")).unwrap();
    }

    /// The errors in the log that name the database.
    fn errors(&self) -> Vec<Value> {
        let path = self.file("").display().to_string();
        let mut log = self.gateway.log();
        log.retain(|line| line["level"] == "ERROR" && line.to_string().contains(&path));
        log
    }

    #[track_caller]
    fn assert_memory_holds(&self) {
        assert_eq!(self.gateway.try_token(&self.good), 200, "a good token, on a proxied route");
        for token in &self.revoked {
            assert_eq!(self.gateway.try_token(token), 401, "a token that was logged out");
        }
    }

    /// What must be seen while the file is not the right one.
    #[track_caller]
    fn assert_fault_is_noticed(&self) {
        assert!(holds_within(NOTICED, || !self.gateway.is_ready()), "/readyz is still 200 after {NOTICED:?}");
        let survivor = jwt::access("alice");
        assert_unavailable("logout", &log_out(&self.gateway, &survivor));
        let login = post("/login").json(&credentials("alice", PASSWORD));
        assert_unavailable("login", &login.send(self.gateway.public));
        assert_unavailable("logout, again", &log_out(&self.gateway, &survivor));
        assert_unavailable("login, again", &login.send(self.gateway.public));
        assert_eq!(self.gateway.try_token(&survivor), 200, "a logout that was refused did not happen");
        self.assert_memory_holds();
        assert!(!self.gateway.is_ready(), "/readyz is 200 again, although the file is not back");
        await_that("an error in the log names the file", || !self.errors().is_empty());
        let errors = self.errors();
        assert_eq!(errors.len(), 1, "one line, not one for each request: {errors:#?}");
        let text = errors[0].to_string().to_lowercase();
        assert!(
            ["restore", "restart", "start the gateway", "put ", "move ", "bring "].iter().any(|way| text.contains(way)),
            "it does not say what to do: {text}"
        );
    }

    /// What must be seen after the right file is back.
    #[track_caller]
    fn assert_heals(mut self) {
        assert!(holds_within(HEALED, || self.gateway.is_ready()), "not ready {HEALED:?} after the file is back");
        self.gateway.login("alice");
        self.revoke();
        self.assert_memory_holds();
        self.gateway.kill();
        self.gateway = self.setup.clone().start_in(Arc::clone(&self.gateway.folder));
        self.assert_memory_holds();
    }
}

#[test]
fn database_file_unlinked() {
    let scene = Scene::start();
    std::fs::remove_file(scene.file("")).unwrap();
    scene.assert_fault_is_noticed();
}

#[test]
fn database_file_unlinked_with_its_log() {
    let scene = Scene::start();
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(scene.file(suffix)).unwrap();
    }
    scene.assert_fault_is_noticed();
}

#[test]
fn database_log_truncated() {
    let scene = Scene::start();
    // What was committed since the last checkpoint is in the log alone.
    assert_eq!(log_out(&scene.gateway, &jwt::access("alice")).status, 200);
    std::fs::File::options().write(true).truncate(true).open(scene.file("-wal")).unwrap();
    scene.assert_fault_is_noticed();
}

#[test]
fn database_log_overwritten_by_an_older_one() {
    let scene = Scene::start();
    let older = std::fs::read(scene.file("-wal")).unwrap();
    for _ in 0..3 {
        assert_eq!(log_out(&scene.gateway, &jwt::access("alice")).status, 200);
    }
    std::fs::write(scene.file("-wal"), older).unwrap();
    scene.assert_fault_is_noticed();
}

#[test]
fn database_file_renamed_away_and_back() {
    let scene = Scene::start();
    std::fs::rename(scene.file(""), scene.file(".kept")).unwrap();
    scene.assert_fault_is_noticed();
    scene.put_back();
    scene.assert_heals();
}

#[test]
fn database_file_replaced_by_another_store_and_back() {
    let scene = Scene::start();
    scene.replace_by(&scene.other_store);
    scene.assert_fault_is_noticed();
    scene.put_back();
    scene.assert_heals();
}

#[test]
fn database_file_replaced_by_an_older_backup_and_back() {
    let scene = Scene::start();
    scene.replace_by(&scene.backup);
    scene.assert_fault_is_noticed();
    scene.put_back();
    scene.assert_heals();
}

#[test]
fn database_file_overwritten_by_an_older_backup() {
    let scene = Scene::start();
    let done = Command::new("cp").arg(&scene.backup).arg(scene.file("")).status().unwrap();
    assert!(done.success());
    scene.assert_fault_is_noticed();
}

#[test]
fn database_log_unlinked() {
    let scene = Scene::start();
    std::fs::remove_file(scene.file("-wal")).unwrap();
    scene.assert_fault_is_noticed();
}

/// A copy of the present state is put in the place of all files, as on a file system that gives the same
/// files other inode numbers; the gateway must go on by itself.
#[test]
fn database_file_replaced_by_an_equal_copy_with_its_log() {
    /// So many that SQLite writes its log back into the database file in between.
    const LOGOUTS: usize = 600;
    let mut scene = Scene::start();
    // The gateway sees all of it at once.
    scene.gateway.signal("STOP");
    for suffix in ["", "-wal", "-shm"] {
        std::fs::copy(scene.file(suffix), scene.file(".new")).unwrap();
        std::fs::rename(scene.file(".new"), scene.file(suffix)).unwrap();
    }
    scene.gateway.signal("CONT");
    let mut acknowledged = Vec::new();
    let mut refused = 0;
    let begin = Instant::now();
    while acknowledged.len() < LOGOUTS {
        let token = jwt::access("alice");
        let answer = log_out(&scene.gateway, &token);
        match answer.status {
            200 => acknowledged.push(token),
            _ => {
                assert_unavailable("logout", &answer);
                refused += 1;
                assert!(begin.elapsed() < HEALED, "still refused after {HEALED:?}: {answer:?}");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
    println!("{refused} logouts were refused before the gateway went on");
    assert!(holds_within(HEALED, || scene.gateway.is_ready()), "not ready after {HEALED:?}");
    scene.gateway.login("alice");
    scene.assert_memory_holds();
    scene.gateway.kill();
    scene.gateway = scene.setup.clone().start_in(Arc::clone(&scene.gateway.folder));
    let lost = acknowledged.iter().filter(|token| scene.gateway.try_token(token) != 401).count();
    assert_eq!(lost, 0, "a restart forgot {lost} of {LOGOUTS} logouts that were answered 200");
    scene.assert_memory_holds();
}

/// SQLite would mix the copy with the log of the old file.
#[test]
fn database_file_replaced_by_an_equal_copy_beside_the_old_log() {
    let scene = Scene::start();
    std::fs::rename(scene.file(""), scene.file(".kept")).unwrap();
    std::fs::copy(scene.file(".kept"), scene.file("")).unwrap();
    scene.assert_fault_is_noticed();
    scene.put_back();
    scene.assert_heals();
}

/// Logs fresh tokens out until `done`, and gives those that were answered 200.
fn log_out_until(gateway: &Gateway, done: &AtomicBool) -> Vec<String> {
    let mut acknowledged = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let token = jwt::access("alice");
        let answer = log_out(gateway, &token);
        if answer.status == 200 {
            acknowledged.push(token);
        } else {
            assert_unavailable("logout", &answer);
        }
    }
    acknowledged
}

#[test]
fn database_file_replaced_during_logouts_and_put_back() {
    let mut scene = Scene::start();
    let mut dice = Dice::new();
    let begin = Instant::now();
    let (mut rounds, mut all) = (0, Vec::new());
    while rounds < 20 && begin.elapsed() < Duration::from_secs(20) {
        let done = AtomicBool::new(false);
        let new = std::thread::scope(|scope| {
            let logouts = scope.spawn(|| log_out_until(&scene.gateway, &done));
            let mut pause = |most| std::thread::sleep(Duration::from_micros(dice.below(most)));
            pause(60_000);
            match rounds % 3 {
                0 => std::fs::rename(scene.file(""), scene.file(".kept")).unwrap(),
                1 => scene.replace_by(&scene.backup),
                _ => scene.replace_by(&scene.other_store),
            }
            pause(400_000);
            scene.put_back();
            pause(200_000);
            done.store(true, Ordering::Relaxed);
            logouts.join().unwrap()
        });
        scene.gateway.kill();
        scene.gateway = scene.setup.clone().start_in(Arc::clone(&scene.gateway.folder));
        let lost = new.iter().filter(|token| scene.gateway.try_token(token) != 401).count();
        assert_eq!(lost, 0, "round {rounds}: a restart forgot {lost} of {} logouts that were answered 200", new.len());
        all.extend(new);
        rounds += 1;
    }
    println!("{} logouts were answered 200 in {rounds} rounds", all.len());
    assert!(!all.is_empty());
    for token in &all {
        assert_eq!(scene.gateway.try_token(token), 401, "at the end");
    }
    scene.assert_memory_holds();
}

#[test]
fn database_file_that_is_new_is_named_by_a_warning() {
    let origin = Origin::start();
    let setup = Setup::new(origin.address);
    let mut gateway = setup.clone().start();
    let path = gateway.folder.path().join("portcullis.db").display().to_string();
    let warns = |gateway: &Gateway| {
        gateway.log().iter().any(|line| line["level"] == "WARN" && line.to_string().contains(&path))
    };
    let warned = holds_within(NOTICED, || warns(&gateway));
    assert!(warned, "an empty database was made, and no warning names it:\n{}", gateway.output());
    gateway.register("alice");
    gateway.signal("TERM");
    gateway.await_end();
    let again = setup.start_in(Arc::clone(&gateway.folder));
    assert_eq!(get("/readyz").send(again.admin).status, 200);
    assert!(!warns(&again), "the database is an old one:\n{}", again.output());
}

//! `check` opens the store for reading, changes nothing, and says what `run` would.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use rusqlite::Connection;
use serde_json::json;
use tempfile::TempDir;

use crate::harness::{BINARY, Gateway, Setup, cli_with, run, said};
use crate::origin::Origin;
use crate::store_modes::set_mode;

const ENCRYPTION_KEY: &str = "an encryption key of at least 32 bytes";

/// The first three migrations.
const OLD_SCHEMA: [&str; 3] = [
    include_str!("../../src/store/migrations/0001_first.sql"),
    include_str!("../../src/store/migrations/0002_sessions.sql"),
    include_str!("../../src/store/migrations/0003_keys.sql"),
];

/// Runs `check`.
pub fn check(config: &Path) -> Output {
    cli_with(config, &["check"], "")
}

/// The program as a user who owns nothing here; `None` where the tests do not run as root, or without setpriv.
pub fn as_other_user(config: &Path, arguments: &[&str]) -> Option<Command> {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    if !is_root || Command::new("setpriv").arg("--version").output().is_err() {
        println!("skipped: only root may run a program as another user, with setpriv");
        return None;
    }
    set_mode(config, 0o644);
    // The binary may lie where others cannot read it.
    let binary = config.with_file_name("portcullis-copy");
    if !binary.exists() {
        std::fs::copy(BINARY, &binary).unwrap();
        set_mode(&binary, 0o755);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(binary);
    command.args(arguments).arg("--config").arg(config);
    Some(command)
}

/// A file or folder, as far as a program could have changed it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    path: PathBuf,
    mode: u32,
    modified: (i64, i64),
    bytes: Vec<u8>,
}

impl Seen {
    fn of(path: &Path) -> Self {
        let found = path.metadata().unwrap();
        let bytes = if found.is_file() { std::fs::read(path).unwrap() } else { Vec::new() };
        Self { path: path.into(), mode: found.mode(), modified: (found.mtime(), found.mtime_nsec()), bytes }
    }
}

/// The folder and every file in it.
fn snapshot(folder: &Path) -> Vec<Seen> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| Seen::of(&entry.unwrap().path()));
    let mut all: Vec<_> = files.chain([Seen::of(folder)]).collect();
    all.sort();
    all
}

/// Checks, and fails the test when that has changed a file.
#[track_caller]
fn check_changes_nothing(config: &Path, code: i32) -> String {
    let folder = config.parent().unwrap();
    let before = snapshot(folder);
    let done = check(config);
    assert_eq!(done.status.code(), Some(code), "{}", said(&done));
    let after = snapshot(folder);
    let names = |files: &[Seen]| files.iter().map(|seen| seen.path.clone()).collect::<Vec<_>>();
    assert_eq!(names(&before), names(&after));
    for (before, after) in before.iter().zip(&after) {
        assert!(before == after, "{} has changed", before.path.display());
    }
    said(&done)
}

fn setup(origin: &Origin) -> Setup {
    Setup::new(origin.address).set("tokens.algorithm", json!("EdDSA")).set("identity.registration", json!("closed"))
}

/// The configuration in a folder of its own.
fn prepared(origin: &Origin) -> (Arc<TempDir>, PathBuf, PathBuf) {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let (config, ..) = setup(origin).write(folder.path());
    let database = folder.path().join("portcullis.db");
    (folder, config, database)
}

fn stop(mut gateway: Gateway) -> Arc<TempDir> {
    gateway.signal("TERM");
    gateway.await_end();
    Arc::clone(&gateway.folder)
}

#[test]
fn without_a_database() {
    let origin = Origin::start();
    let (_folder, config, database) = prepared(&origin);
    let told = check_changes_nothing(&config, 0);
    let note = format!("note: store.url: there is no database at {} yet; run makes one", database.display());
    assert!(told.contains(&note), "{told}");
    std::fs::write(&database, "").unwrap();
    set_mode(&database, 0o600);
    let told = check_changes_nothing(&config, 0);
    assert!(told.contains("portcullis.db is empty; run makes the tables"), "{told}");
    // The name of a link's target is not made up.
    std::fs::remove_file(&database).unwrap();
    std::os::unix::fs::symlink("nowhere/portcullis.db", &database).unwrap();
    let done = check(&config);
    assert!(done.status.code() == Some(1) && said(&done).contains("cannot be made"), "{}", said(&done));
}

#[test]
fn a_good_database() {
    let origin = Origin::start();
    // Characters that mean something else in a URI.
    for name in ["portcullis.db", "a#b%20c é.db"] {
        let setup = setup(&origin).set("store.url", json!(format!("sqlite:{name}")));
        let folder = stop(setup.clone().start());
        let (config, ..) = setup.write(folder.path());
        assert!(folder.path().join(name).exists());
        let told = check_changes_nothing(&config, 0);
        assert!(!told.contains("store.url") && told.ends_with("good\n"), "{told}");
        let database = Connection::open(folder.path().join(name)).unwrap();
        database.execute_batch("PRAGMA journal_mode = DELETE; PRAGMA user_version = 1000").unwrap();
        drop(database);
        let told = check_changes_nothing(&config, 78);
        assert!(told.contains("schema 1000"), "the file itself is read: {told}");
    }
}

#[test]
fn a_database_that_run_refuses() {
    let origin = Origin::start();
    let (folder, config, database) = prepared(&origin);
    let sql = |sql: &str| Connection::open(&database).unwrap().execute_batch(sql).unwrap();
    let same_as_run = |code: i32, says: &str| {
        let told = check_changes_nothing(&config, code);
        assert!(told.contains(says), "{told}");
        assert!(!told.contains("gateway.yaml: good"), "{told}");
        // The routes are listed all the same.
        assert!(told.contains("/public/*"), "{told}");
        let run = cli_with(&config, &["run"], "");
        assert_eq!(run.status.code(), Some(code), "{}", said(&run));
        let reason = |text: &str| text.lines().find(|line| line.contains(says)).unwrap_or_default().to_owned();
        assert_eq!(reason(&told), reason(&said(&run)));
    };
    std::fs::write(&database, "no database at all ".repeat(200)).unwrap();
    same_as_run(78, "this is no SQLite database");
    std::fs::remove_file(&database).unwrap();
    sql("CREATE TABLE users (username, password)");
    same_as_run(78, "another program's database");
    std::fs::remove_file(&database).unwrap();
    stop(setup(&origin).start_in(Arc::clone(&folder)));
    let (config, ..) = setup(&origin).write(folder.path());
    sql("PRAGMA user_version = 1000");
    let told = check_changes_nothing(&config, 78);
    assert!(told.contains("schema 1000; this one knows "), "{told}");
    // A folder.
    for name in ["portcullis.db", "portcullis.db-wal", "portcullis.db-shm"] {
        let _ = std::fs::remove_file(folder.path().join(name));
    }
    std::fs::create_dir(&database).unwrap();
    let (checked, run) = (check(&config), cli_with(&config, &["run"], ""));
    assert_eq!((checked.status.code(), run.status.code()), (Some(1), Some(1)), "{}", said(&checked));
    assert!(said(&checked).contains("the database cannot be opened"), "{}", said(&checked));
}

#[test]
fn an_older_schema() {
    let origin = Origin::start();
    let (folder, config, database) = prepared(&origin);
    let old = Connection::open(&database).unwrap();
    old.execute_batch(&OLD_SCHEMA.concat()).unwrap();
    old.execute_batch("PRAGMA application_id = 0x504f5254; PRAGMA user_version = 3").unwrap();
    drop(old);
    set_mode(&database, 0o600);
    let told = check_changes_nothing(&config, 0);
    assert!(told.contains("note: store.url: ") && told.contains("has schema 3; run migrates it to schema "), "{told}");
    let gateway = setup(&origin).start_in(folder);
    assert!(!said(&check(&gateway.config)).contains("store.url"));
}

#[test]
fn one_in_use_and_one_whose_gateway_was_killed() {
    let origin = Origin::start();
    let sealed = setup(&origin).set("store.encryption_key", json!(ENCRYPTION_KEY));
    let mut gateway = sealed.clone().start();
    gateway.add_user("alice", "admin");
    let files = |gateway: &Gateway| {
        let mut files = snapshot(gateway.folder.path());
        // The gateway itself may change it at any time.
        files.retain(|seen| !seen.path.ends_with("portcullis.db-shm"));
        files
    };
    let before = files(&gateway);
    let done = check(&gateway.config);
    assert!(done.status.success() && !said(&done).contains("store.url"), "{}", said(&done));
    assert!(before == files(&gateway), "check changes nothing");
    let other = tempfile::tempdir().unwrap();
    let database = gateway.folder.path().join("portcullis.db");
    let store = json!(format!("sqlite:{}", database.display()));
    let (keyless, ..) = setup(&origin).set("store.url", store).write(other.path());
    let done = check(&keyless);
    assert!(done.status.code() == Some(78) && said(&done).contains("no encryption key"), "{}", said(&done));
    assert!(before == files(&gateway), "check changes nothing");
    gateway.login("alice");
    gateway.kill();
    let told = check_changes_nothing(&gateway.config, 0);
    assert!(!told.contains("store.url"), "{told}");
    let again = sealed.start_in(Arc::clone(&gateway.folder));
    again.login("alice");
}

/// What is only in the write-ahead log counts, whether a process has it open or was killed.
#[test]
fn the_log_is_read() {
    let origin = Origin::start();
    let folder = stop(setup(&origin).start());
    let (config, _, _) = setup(&origin).write(folder.path());
    let open = Connection::open(folder.path().join("portcullis.db")).unwrap();
    open.execute_batch("PRAGMA wal_autocheckpoint = 0; PRAGMA user_version = 1000").unwrap();
    let told = check_changes_nothing(&config, 78);
    assert!(told.contains("schema 1000"), "{told}");
    for (files, code, says) in [
        (&["portcullis.db", "portcullis.db-wal", "portcullis.db-shm"][..], 78, "schema 1000"),
        (&["portcullis.db", "portcullis.db-wal"], 0, "portcullis.db-wal was not read"),
        (&["portcullis.db"], 0, "good"),
    ] {
        let (_folder, config, database) = prepared(&origin);
        for file in files {
            std::fs::copy(folder.path().join(file), database.with_file_name(file)).unwrap();
        }
        let told = check_changes_nothing(&config, code);
        assert!(told.contains(says), "{told}");
    }
}

#[test]
fn a_mode_that_run_changes_is_told() {
    let origin = Origin::start();
    let folder = stop(setup(&origin).start());
    let (config, ..) = setup(&origin).write(folder.path());
    set_mode(&folder.path().join("portcullis.db"), 0o644);
    let told = check_changes_nothing(&config, 0);
    let note = "has access (mode 0644); run changes the mode to 0600";
    assert!(told.contains("note: store.url: ") && told.contains(note), "{told}");
}

#[test]
fn what_is_not_writable_is_told() {
    let origin = Origin::start();
    let folder = stop(setup(&origin).start());
    let (config, ..) = setup(&origin).write(folder.path());
    let database = folder.path().join("portcullis.db");
    let ask = |file: u32, place: u32, command: &str| {
        set_mode(&database, file);
        set_mode(folder.path(), 0o755);
        let command = as_other_user(&config, &[command])?;
        set_mode(folder.path(), place);
        Some(run(command, ""))
    };
    let Some(done) = ask(0o644, 0o777, "check") else { return };
    let told = said(&done);
    assert!(done.status.success(), "{told}");
    assert!(told.contains("warning: store.url: ") && told.contains("portcullis.db is not writable; logins"), "{told}");
    assert!(told.contains("run `chmod 600 ") && told.contains("as its owner"), "{told}");
    for (file, place, says) in [
        (0o600, 0o777, "the database cannot be opened"),
        (0o644, 0o755, "the database is read-only"),
        (0o666, 0o755, "the database is read-only"),
    ] {
        for command in ["check", "run"] {
            let done = ask(file, place, command).unwrap();
            assert_eq!(done.status.code(), Some(1), "{command}: {}", said(&done));
            assert!(said(&done).contains(says), "{command}: {}", said(&done));
        }
    }
    set_mode(folder.path(), 0o755);
    std::fs::remove_file(&database).unwrap();
    for command in ["check", "run"] {
        let done = run(as_other_user(&config, &[command]).unwrap(), "");
        assert_eq!(done.status.code(), Some(1), "{command}: {}", said(&done));
        assert!(said(&done).contains("the database cannot be made: Permission denied"), "{}", said(&done));
    }
}

//! Imports that end midway, and files that are not what one would import.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{BINARY, Setup, await_that, cli_with, run, said};
use crate::origin::Origin;

/// A folder, and in it a configuration whose audit goes into a file.
fn prepared() -> (Origin, TempDir, PathBuf) {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let (config, _, _) = Setup::new(origin.address).set("log.audit", json!("audit.log")).write(folder.path());
    (origin, folder, config)
}

/// A database of `count` users, and two revoked tokens.
fn application(folder: &Path, count: usize) -> PathBuf {
    let file = folder.join("app.db");
    let hash = format!("pbkdf2:sha256:1000$salt${}", "0".repeat(64));
    let sql = format!(
        "CREATE TABLE users (username, password); CREATE TABLE revoked_tokens (jti);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
         INSERT INTO users SELECT 'u' || i, '{hash}' FROM n;
         INSERT INTO revoked_tokens VALUES ('a'), ('b')"
    );
    Connection::open(&file).unwrap().execute_batch(&sql).unwrap();
    file
}

/// What the audit says: of each line the event, the outcome, the file and what was taken.
fn audit(folder: &Path) -> Vec<[Value; 4]> {
    let text = std::fs::read_to_string(folder.join("audit.log")).unwrap_or_default();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.map(|line| ["event", "outcome", "file", "taken"].map(|name| line[name].clone())).collect()
}

fn accounts(folder: &Path) -> i64 {
    let store = Connection::open(folder.join("portcullis.db")).unwrap();
    store.query_row("SELECT count(*) FROM account", [], |row| row.get(0)).unwrap_or(0)
}

#[test]
fn an_import_is_told_before_and_after() {
    let (_origin, folder, config) = prepared();
    let file = application(folder.path(), 3);
    let file = file.to_str().unwrap();
    let done = cli_with(&config, &["import", "flask", file], "");
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    let told = audit(folder.path());
    let [begin, end] = &told[..] else { panic!("{told:?}") };
    assert_eq!(*begin, [json!("import_begin"), json!("success"), json!(file), Value::Null]);
    assert_eq!(*end, [json!("import"), json!("success"), json!(file), json!("3 users, 2 revoked tokens")]);
}

#[test]
fn an_import_that_fails_midway_tells_what_it_took() {
    let (_origin, folder, config) = prepared();
    assert_eq!(cli_with(&config, &["users", "list"], "").status.code(), Some(1), "there is no store yet");
    assert!(cli_with(&config, &["users", "add", "root"], "correct horse battery\n").status.success());
    let bar = "CREATE TRIGGER bar BEFORE INSERT ON account WHEN NEW.username = 'u1500'
        BEGIN SELECT RAISE(ABORT, 'barred'); END";
    Connection::open(folder.path().join("portcullis.db")).unwrap().execute_batch(bar).unwrap();
    let file = application(folder.path(), 2500);
    let done = cli_with(&config, &["import", "flask", file.to_str().unwrap()], "");
    assert_eq!(done.status.code(), Some(1), "{}", said(&done));
    assert!(said(&done).contains("1000 users and 0 revoked tokens were taken over before"), "{}", said(&done));
    assert_eq!(accounts(folder.path()), 1001);
    let told = audit(folder.path());
    let [_, begin, end] = &told[..] else { panic!("{told:?}") };
    assert_eq!(begin[0], "import_begin");
    assert_eq!(end[..2], [json!("import"), json!("failure")]);
    assert_eq!(end[3], "1000 users, 0 revoked tokens");
}

#[test]
fn an_import_that_is_killed_has_been_told() {
    let (_origin, folder, config) = prepared();
    let file = application(folder.path(), 100_000);
    let mut command = Command::new(BINARY);
    command.args(["import", "flask"]).arg(&file).arg("--config").arg(&config).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    await_that("a batch is in", || folder.path().join("portcullis.db").exists() && accounts(folder.path()) > 0);
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().code(), None, "it was killed midway");
    let told = audit(folder.path());
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0][0], "import_begin");
}

/// Runs an import in `folder`, with the file as it is written.
fn import(folder: &TempDir, file: &str, code: i32) -> String {
    let mut command = Command::new("timeout");
    command.arg("20").arg(BINARY).args(["import", "flask", "--config", "gateway.yaml", "--", file]);
    command.current_dir(folder.path());
    let done = run(command, "");
    assert_eq!(done.status.code(), Some(code), "{file}: {}", said(&done));
    said(&done)
}

#[test]
fn only_a_file_is_imported_and_by_its_name() {
    let (_origin, folder, _) = prepared();
    let app = application(folder.path(), 2);
    let pipe = Command::new("mkfifo").arg(folder.path().join("pipe")).status().unwrap();
    assert!(pipe.success());
    for none in ["pipe", "/dev/zero", "."] {
        assert!(import(&folder, none, 1).contains("this is no file"), "{none}");
    }
    for absent in ["file:app.db?mode=rwc", "file:app.db", ":memory:", "absent.db"] {
        let told = import(&folder, absent, 1);
        assert!(told.contains(absent) && told.contains("No such file"), "{absent}: {told}");
    }
    std::os::unix::fs::symlink(&app, folder.path().join("link.db")).unwrap();
    std::fs::copy(&app, folder.path().join("file:app.db?mode=rwc")).unwrap();
    assert!(import(&folder, "link.db", 0).contains("2 taken over from users"));
    assert!(import(&folder, "file:app.db?mode=rwc", 0).contains("2 known already"));
}

#[test]
fn what_is_left_out_is_said() {
    let (_origin, folder, _) = prepared();
    let made = |name: &str, sql: &str| Connection::open(folder.path().join(name)).unwrap().execute_batch(sql).unwrap();
    made("view.db", "CREATE VIEW users AS SELECT 'a' AS username, 'b' AS password");
    let told = import(&folder, "view.db", 1);
    assert!(told.contains("It has no tables; views, which are not read: users"), "{told}");
    let odd = "CREATE TABLE users (username, password); INSERT INTO users VALUES ('a', 'x'), ('b', 'y');
        CREATE TABLE revoked (jti); INSERT INTO revoked VALUES ('good'), (7), (NULL), (x'ff'), (''), (1.5), ('good')";
    made("odd.db", odd);
    let told = import(&folder, "odd.db", 0);
    assert!(told.contains("revoked tokens: 1 taken over from revoked, 0 known already, 5 not usable"), "{told}");
    assert!(told.contains("1 NULL, 1 empty, 1 not in UTF-8, 2 number"), "{told}");
    assert!(told.contains("2 of 2 were left out, and cannot log in"), "{told}");
    let help = Command::new(BINARY).args(["import", "flask", "--help"]).output().unwrap();
    assert!(said(&help).contains("the exit code is 0"), "{}", said(&help));
}

#[test]
fn another_database_as_the_store_is_told_shortly() {
    let (_origin, folder, config) = prepared();
    let store = folder.path().join("portcullis.db");
    let refused = |what: &str| {
        for command in [&["users", "list"][..], &["users", "add", "bob"], &["run"]] {
            let done = cli_with(&config, command, "correct horse battery\n");
            assert_eq!(done.status.code(), Some(78), "{what}: {}", said(&done));
            let told = said(&done);
            assert!(told.contains("another program's database") && !told.contains("CREATE"), "{what}: {told}");
        }
    };
    assert!(cli_with(&config, &["users", "add", "bob"], "correct horse battery\n").status.success());
    let change = |sql: &str| Connection::open(&store).unwrap().execute_batch(sql).unwrap();
    change("PRAGMA user_version = -1");
    refused("a negative version");
    change("PRAGMA user_version = 0");
    refused("no version");
    change("PRAGMA user_version = 1");
    let told = said(&cli_with(&config, &["users", "list"], ""));
    assert!(told.contains("already exists") || told.contains("duplicate column"), "{told}");
    assert!(!told.contains("ALTER TABLE") && !told.contains("CREATE"), "no statements: {told}");
}

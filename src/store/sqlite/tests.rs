//! What only an embedded store does: its file, its locks, its groups, and a process that is killed.

mod faults;
mod replacement;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rusqlite::Connection;
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::*;
use crate::clock::{self, UnixTime};
use crate::model::{AccountId, Generation, SessionId, TokenId};
use crate::store::tests::{name, newcomer, registered, session, sqlite, token};
use crate::store::{Key, Refreshed, Registered, Rotation, SessionPage, Successor, Use, Warrant};

/// Names the database of the process that is to be killed.
const VICTIM: &str = "PORTCULLIS_TEST_VICTIM";

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("portcullis.db");
    (folder, path)
}

fn open(path: &Path) -> Store {
    Store::open(&sqlite(path)).unwrap()
}

fn refused(path: &Path) -> Error {
    Store::open(&sqlite(path)).err().expect("the store opened")
}

/// Another program's connection, which holds the write lock.
fn locked(path: &Path) -> Connection {
    let other = Connection::open(path).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    other
}

async fn has(store: &Store, jti: &str) -> bool {
    let rows = store.revocations_after(0, usize::MAX).await.unwrap();
    rows.iter().any(|(_, revocation)| revocation.key == Key::token(None, jti))
}

/// Lets every task that was spawned put its job into the queue.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_file_is_its_owners_alone() {
    let (folder, path) = folder();
    let store = open(&path);
    store.revoke(vec![token("a")]).await.unwrap();
    let modes: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name(), entry.metadata().unwrap().permissions().mode() & 0o777))
        .collect();
    assert_eq!(modes.len(), 3, "{modes:?}");
    assert!(modes.iter().all(|(_, mode)| *mode == 0o600), "{modes:?}");
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart() {
    let (folder, path) = folder();
    let store = open(&path);
    registered(&store, "alice").await;
    store.revoke(vec![token("a")]).await.unwrap();
    drop(store);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "the log was not cleared away");
    let store = open(&path);
    assert!(has(&store, "a").await);
    assert!(store.find_account(&name("alice")).await.unwrap().is_some());
}

#[tokio::test]
async fn closing_finishes_what_is_queued() {
    let (_folder, path) = folder();
    let store = open(&path);
    let mut jobs = JoinSet::new();
    for number in 0..100 {
        let store = store.clone();
        jobs.spawn(async move { store.revoke(vec![token(&number.to_string())]).await });
    }
    settle().await;
    store.close();
    assert!(jobs.join_all().await.iter().all(Result::is_ok));
    assert_eq!(open(&path).revocations_after(0, 1000).await.unwrap().len(), 100);
}

#[tokio::test]
async fn a_command_does_not_make_a_file() {
    let (folder, path) = folder();
    let missing = Store::open_existing(&sqlite(&path)).err().unwrap();
    assert!(matches!(missing, Error::Missing { .. }));
    assert!(missing.to_string().contains("portcullis.db: there is no database yet"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    open(&path).close();
    Store::open_existing(&sqlite(&path)).unwrap();
}

#[test]
fn files_that_cannot_be_ours_are_refused_and_left_alone() {
    let (folder, path) = folder();
    let error = refused(&folder.path().join("no/such/folder.db"));
    assert!(matches!(error, Error::Create { .. }), "{error}");
    let error = refused(folder.path());
    assert!(matches!(error, Error::Open { .. }), "{error}");

    fs::write(&path, b"not a database, but long enough to be taken for one\n".repeat(100)).unwrap();
    let error = refused(&path);
    assert!(matches!(error, Error::NotADatabase { .. }), "{error}");

    fs::remove_file(&path).unwrap();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE users (id INTEGER)").unwrap();
    let before = fs::read(&path).unwrap();
    let error = refused(&path);
    assert!(matches!(error, Error::Foreign { .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_newer_schema_is_refused() {
    let (_folder, path) = folder();
    open(&path).close();
    Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
    let error = refused(&path);
    assert!(matches!(error, Error::Newer { found: 99, .. }), "{error}");
    let says = format!("made by a newer Portcullis (schema 99; this one knows {})", connection::LATEST);
    assert!(error.to_string().contains(&says), "{error}");
}

#[tokio::test]
async fn sessions_of_the_first_schema_go_on() {
    let (_folder, path) = folder();
    let first = Connection::open(&path).unwrap();
    first.execute_batch(include_str!("../migrations/0001_first.sql")).unwrap();
    let rows = "INSERT INTO account VALUES (1, 'alice', x'00', 3, 0, 0);
        INSERT INTO session VALUES ('s', 1, 5, 6, 9000000, NULL, 'curl');
        PRAGMA application_id = 0x504f5254; PRAGMA user_version = 1;";
    first.execute_batch(rows).unwrap();
    drop(first);
    let store = open(&path);
    let (at, expires, session) = (UnixTime::from_secs(7), UnixTime::from_secs(9000), SessionId::new("s"));
    let (token, generation) = (Key::token(None, "first"), Generation(3));
    let warrant = Warrant { username: name("alice"), generation, token, session: None };
    assert_eq!(
        store.list_sessions(warrant, at, SessionPage { after: None, limit: 10 }).await.unwrap().unwrap().len(),
        1
    );
    let by = Use { token, account: AccountId(1), generation, at, expires, access_expires: at };
    let rotation = Rotation { successor: TokenId::new("second"), expires, grace: Duration::ZERO };
    let next = Successor { token: TokenId::new("second"), issued: at, expires };
    let refreshed = store.refresh_session(&session, by, Some(rotation)).await.unwrap();
    assert_eq!(refreshed, Refreshed::Granted(Some(next)));
}

#[tokio::test]
async fn a_damaged_file_is_an_error_of_its_readers() {
    let (_folder, path) = folder();
    let store = open(&path);
    registered(&store, "alice").await;
    store.revoke((0..2000).map(|number| token(&number.to_string())).collect()).await.unwrap();
    store.close();
    let root = "SELECT rootpage FROM sqlite_schema WHERE name = 'account'";
    let root: u32 = Connection::open(&path).unwrap().query_row(root, [], |row| row.get(0)).unwrap();
    let sound = fs::read(&path).unwrap();
    let mut bytes = sound.clone();
    bytes[4096 * (root as usize - 1)..4096 * root as usize].fill(0xaa);
    fs::write(&path, bytes).unwrap();
    let store = open(&path);
    for _ in 0..2 {
        let error = store.find_account(&name("alice")).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        let error = store.register(newcomer("bob"), None).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        assert!(!store.is_writable());
        store.revoke(vec![token("x")]).await.unwrap();
    }
    store.close();
    let mut bytes = sound;
    bytes[4096..].fill(0xaa);
    fs::write(&path, bytes).unwrap();
    let error = refused(&path);
    assert!(matches!(error, Error::Corrupt { .. }), "revocations that cannot be read are not none: {error}");
}

#[tokio::test]
async fn two_processes_share_a_file() {
    let (_folder, path) = folder();
    let (one, two) = (open(&path), open(&path));
    let version = one.look().await.unwrap();
    two.revoke(vec![token("a")]).await.unwrap();
    assert_ne!(one.look().await.unwrap(), version);
    assert!(has(&one, "a").await);
    let key = |kid: &str| crate::store::SigningKey {
        kid: kid.into(),
        algorithm: "HS256".into(),
        secret: crate::secret::Secret::new(kid),
        created: crate::clock::UnixTime::from_secs(0),
        state: crate::store::KeyState::Signing,
    };
    let end = crate::clock::UnixTime::from_secs(0);
    let (mine, theirs) = tokio::join!(one.replace_key(None, key("1"), end), two.replace_key(None, key("2"), end));
    assert!(mine.unwrap() != theirs.unwrap());
}

#[test]
fn a_first_start_of_many_at_once_makes_one_database() {
    for _ in 0..5 {
        let (_folder, path) = folder();
        // One stays open: a process must not open and close the file behind SQLite's back.
        let kept = connection::create(&path).unwrap();
        std::thread::scope(|scope| {
            let starts: Vec<_> = (0..6).map(|_| scope.spawn(|| Store::open(&sqlite(&kept)).map(drop))).collect();
            for start in starts {
                start.join().unwrap().unwrap();
            }
        });
    }
}

#[tokio::test]
async fn every_answered_revocation_survives_a_kill() {
    let (_folder, path) = folder();
    let mut answered = Vec::new();
    for round in 1..=6 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::sqlite::tests::revoke_until_killed", "--ignored", "--nocapture"])
            .env(VICTIM, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let jti = |line: String| line.split_once("answered ").map(|(_, jti)| jti.to_owned());
        let before = answered.len();
        answered.extend(lines.by_ref().filter_map(jti).take(round * 97));
        child.kill().unwrap();
        // The last line may be cut off, so that it names no token at all; the others were answered too.
        let rest: Vec<_> = lines.filter_map(jti).filter(|jti| jti.ends_with('.')).collect();
        answered.extend(rest);
        child.wait().unwrap();
        assert!(answered.len() >= before + round * 97);
        let store = open(&path);
        let rows = store.revocations_after(0, usize::MAX).await.unwrap();
        let keys: std::collections::HashSet<_> = rows.into_iter().map(|(_, revocation)| revocation.key).collect();
        let lost = answered.iter().filter(|jti| !keys.contains(&Key::token(None, jti))).count();
        assert_eq!(lost, 0, "of {} answered, in round {round}", answered.len());
    }
}

#[tokio::test]
#[ignore = "it is the process that every_answered_revocation_survives_a_kill kills"]
async fn revoke_until_killed() {
    let Some(path) = std::env::var_os(VICTIM) else { return };
    let store = open(Path::new(&path));
    let mut jobs = JoinSet::new();
    for task in 0..16 {
        let store = store.clone();
        jobs.spawn(async move {
            for number in 0.. {
                let jti = format!("{}-{task}-{number}.", std::process::id());
                store.revoke(vec![token(&jti)]).await.unwrap();
                // One write a line, which a kill cannot split.
                std::io::stdout().write_all(format!("answered {jti}\n").as_bytes()).unwrap();
            }
        });
    }
    jobs.join_all().await;
}

#[tokio::test]
async fn keys_are_encrypted_under_the_encryption_key() {
    let (_folder, path) = folder();
    let with = |key: Option<&str>| {
        let encryption_key = key.map(crate::secret::Secret::new);
        Store::open(&crate::config::Store { encryption_key, ..sqlite(&path) }).unwrap()
    };
    let key = |kid: &str, secret: &str| crate::store::SigningKey {
        kid: kid.into(),
        algorithm: "HS256".into(),
        secret: crate::secret::Secret::new(secret),
        created: crate::clock::UnixTime::from_secs(0),
        state: crate::store::KeyState::Signing,
    };
    let stands_in_file = |secret: &str| {
        let all: Vec<u8> = fs::read_dir(path.parent().unwrap())
            .unwrap()
            .flat_map(|entry| fs::read(entry.unwrap().path()).unwrap())
            .collect();
        all.windows(secret.len()).any(|part| part == secret.as_bytes())
    };
    let end = crate::clock::UnixTime::from_secs(1);
    let store = with(None);
    assert!(store.replace_key(None, key("plain", "this one was stored plain"), end).await.unwrap());
    assert_eq!(store.seal_keys().await.unwrap(), 0);
    store.close();
    assert!(stands_in_file("this one was stored plain"));
    let store = with(Some("one"));
    assert_eq!((store.seal_keys().await.unwrap(), store.seal_keys().await.unwrap()), (1, 0));
    assert!(store.replace_key(Some("plain".into()), key("sealed", "this one never was"), end).await.unwrap());
    let read: Vec<_> = store.load_keys().await.unwrap().keys.into_iter().map(|key| key.secret).collect();
    assert_eq!((read[0].expose(), read[1].expose()), (&b"this one was stored plain"[..], &b"this one never was"[..]));
    store.close();
    assert!(!stands_in_file("this one was stored plain") && !stands_in_file("this one never was"));
    for (other, named) in [(None, "has no encryption key"), (Some("two"), "another encryption key")] {
        let store = with(other);
        let list = store.load_keys().await.unwrap();
        assert!(list.keys.is_empty() && list.unreadable.len() == 2);
        let text = list.unreadable[0].to_string();
        assert!(text.starts_with("store.encryption_key: ") && text.contains(named) && text.contains("plain"), "{text}");
        store.close();
    }
}

#[tokio::test]
async fn the_key_of_an_older_database_signs_on() {
    let (_folder, path) = folder();
    let old = Connection::open(&path).unwrap();
    old.execute_batch(include_str!("../migrations/0001_first.sql")).unwrap();
    old.execute_batch(
        "INSERT INTO signing_key VALUES ('a', 'HS256', x'0707', 5, 'signing');
        PRAGMA application_id = 0x504f5254; PRAGMA user_version = 1;",
    )
    .unwrap();
    drop(old);
    let store = open(&path);
    let key = store.load_keys().await.unwrap().keys.remove(0);
    assert_eq!((key.kid.as_str(), key.secret.expose(), key.created.millis()), ("a", &[7, 7][..], 5));
    assert_eq!(key.state, crate::store::KeyState::Signing);
}

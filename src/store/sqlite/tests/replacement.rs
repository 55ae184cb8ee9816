//! What happens to the database file under an open store.

use super::*;

/// Copies the database with its log, as a backup does.
fn back_up(path: &Path, name: &str) -> PathBuf {
    let target = path.with_file_name(name);
    // One file that has everything.
    Connection::open(path).unwrap().execute("VACUUM INTO ?1", [target.to_str().unwrap()]).unwrap();
    target
}

/// Writes `source` into the file at `path`, whose inode stays.
fn overwrite(source: &Path, path: &Path) {
    let mut target = fs::OpenOptions::new().write(true).truncate(true).open(path).unwrap();
    target.write_all(&fs::read(source).unwrap()).unwrap();
}

fn checkpoint(path: &Path) {
    Connection::open(path).unwrap().query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
}

async fn assert_broken(what: &str, store: &Store) {
    let looked = store.look().await.unwrap_err();
    assert!(looked.is_of_file(), "{what}: {looked}");
    let written = store.revoke(vec![token("lost")]).await.unwrap_err();
    assert!(written.is_of_file(), "{what}: {written}");
    let read = store.find_account(&name("alice")).await.unwrap_err();
    assert!(read.is_of_file(), "{what}: {read}");
    assert!(!store.is_writable(), "{what}");
}

async fn assert_heals(what: &str, store: &Store, path: &Path, jti: &str) {
    store.look().await.unwrap_or_else(|error| panic!("{what}: {error}"));
    store.revoke(vec![token(jti)]).await.unwrap_or_else(|error| panic!("{what}: {error}"));
    let other = open(path);
    assert!(has(&other, jti).await, "{what}: what was acknowledged is not in the file at the path");
    assert!(has(&other, "before").await, "{what}");
    assert!(!has(&other, "lost").await, "{what}");
}

#[tokio::test]
async fn a_file_that_is_moved_away_is_noticed_and_heals_when_it_is_back() {
    let (folder, path) = folder();
    let store = open(&path);
    store.revoke(vec![token("before")]).await.unwrap();
    let away = folder.path().join("away.db");
    for (round, what) in ["once", "twice"].into_iter().enumerate() {
        fs::rename(&path, &away).unwrap();
        assert_broken(what, &store).await;
        fs::rename(&away, &path).unwrap();
        assert_heals(what, &store, &path, &round.to_string()).await;
    }
    for suffix in ["-wal", "-shm"] {
        let companion = folder.path().join(format!("portcullis.db{suffix}"));
        fs::rename(&companion, &away).unwrap();
        assert_broken(suffix, &store).await;
        fs::rename(&away, &companion).unwrap();
        assert_heals(suffix, &store, &path, suffix).await;
    }
}

#[tokio::test]
async fn another_file_in_its_place_is_noticed() {
    for copied in [false, true] {
        let (folder, path) = folder();
        let store = open(&path);
        store.revoke(vec![token("before")]).await.unwrap();
        let older = back_up(&path, "older.db");
        store.revoke(vec![token("later")]).await.unwrap();
        checkpoint(&path);
        store.look().await.unwrap();
        let other = folder.path().join("other.db");
        open(&other).close();
        let mine = folder.path().join("mine.db");
        for (what, replacement) in [("older", &older), ("other", &other)] {
            fs::copy(replacement, folder.path().join("replacement.db")).unwrap();
            if copied {
                fs::copy(&path, &mine).unwrap();
                overwrite(replacement, &path);
            } else {
                fs::rename(&path, &mine).unwrap();
                fs::rename(folder.path().join("replacement.db"), &path).unwrap();
            }
            assert_broken(&format!("{what}, copied: {copied}"), &store).await;
            if copied {
                overwrite(&mine, &path);
            } else {
                fs::rename(&mine, &path).unwrap();
            }
            assert_heals(&format!("{what} and back, copied: {copied}"), &store, &path, what).await;
            checkpoint(&path);
            store.look().await.unwrap();
        }
    }
}

/// Commits a little, and says which of it was acknowledged.
async fn write_some(store: &Store, round: &str) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for number in 0..10 {
        let jti = format!("{round}.{number}");
        if store.revoke(vec![token(&jti)]).await.is_ok() {
            acknowledged.push(jti);
        }
    }
    acknowledged
}

#[tokio::test]
async fn a_log_that_is_truncated_or_overwritten_is_noticed() {
    for (what, is_checkpointed) in [("truncated", false), ("older", false), ("older", true), ("other", false)] {
        let (folder, path) = folder();
        let log = folder.path().join("portcullis.db-wal");
        let store = open(&path);
        assert_eq!(write_some(&store, "first").await.len(), 10);
        let older = fs::read(&log).unwrap();
        if is_checkpointed {
            checkpoint(&path);
        }
        assert_eq!(write_some(&store, "second").await.len(), 10, "{what}");
        let main = fs::read(&path).unwrap();
        // In place, as `cp` does it, and between two looks.
        match what {
            "truncated" => drop(fs::OpenOptions::new().write(true).truncate(true).open(&log).unwrap()),
            "older" => fs::write(&log, &older).unwrap(),
            _ => {
                let (_other_folder, other) = super::folder();
                let another = open(&other);
                write_some(&another, "other").await;
                fs::write(&log, fs::read(other.with_file_name("portcullis.db-wal")).unwrap()).unwrap();
            }
        }
        assert_eq!(write_some(&store, "lost").await, Vec::<String>::new(), "{what}, {is_checkpointed}");
        let looked = store.look().await;
        assert!(looked.as_ref().is_err_and(Error::is_of_file), "{what}, {is_checkpointed}: {looked:?}");
        assert_eq!(fs::read(&path).unwrap(), main, "{what}, {is_checkpointed}: the main file was written");
    }
}

#[tokio::test]
async fn shared_memory_that_is_overwritten_is_made_anew() {
    for is_same_log in [true, false] {
        let (folder, path) = folder();
        let index = folder.path().join("portcullis.db-shm");
        let store = open(&path);
        write_some(&store, "first").await;
        let older = fs::read(&index).unwrap();
        if !is_same_log {
            checkpoint(&path);
        }
        let mut acknowledged = write_some(&store, "second").await;
        // As `cp` does it, but it stays mapped.
        fs::OpenOptions::new().write(true).open(&index).unwrap().write_all(&older).unwrap();
        acknowledged.extend(write_some(&store, "third").await);
        store.look().await.unwrap_or_else(|error| panic!("{is_same_log}: {error}"));
        let last = write_some(&store, "last").await;
        assert_eq!(last.len(), 10);
        acknowledged.extend(last);
        store.close();
        let connection = Connection::open(&path).unwrap();
        let sound: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(sound, "ok", "{is_same_log}");
        let store = open(&path);
        for jti in acknowledged {
            assert!(has(&store, &jti).await, "{is_same_log}: {jti}");
        }
    }
}

#[tokio::test]
async fn a_log_that_lost_nothing_is_no_fault() {
    let (_folder, path) = folder();
    let store = open(&path);
    let mut written = 0;
    for round in 0..6 {
        written += write_some(&store, &format!("{round}")).await.len();
        let other = Connection::open(&path).unwrap();
        let mode = ["PASSIVE", "FULL", "RESTART", "TRUNCATE", "TRUNCATE", "RESTART"][round];
        other.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(())).unwrap();
        if round == 4 {
            other.execute_batch("VACUUM").unwrap();
        }
        store.look().await.unwrap_or_else(|error| panic!("{mode}: {error}"));
    }
    assert_eq!(written, 60);
    // Large transactions that spill into the log, given up and committed, by another process.
    let other = Connection::open(&path).unwrap();
    other.execute_batch("PRAGMA cache_size = 5; CREATE TABLE big (text TEXT)").unwrap();
    for end in ["ROLLBACK", "COMMIT", "ROLLBACK"] {
        other.execute_batch("BEGIN").unwrap();
        for _ in 0..200 {
            other.execute("INSERT INTO big VALUES (hex(randomblob(2000)))", []).unwrap();
        }
        store.look().await.unwrap();
        other.execute_batch(end).unwrap();
        store.look().await.unwrap();
        assert_eq!(write_some(&store, end).await.len(), 10);
        store.look().await.unwrap();
    }
}

#[tokio::test]
async fn a_copy_with_another_order_of_pages_is_noticed() {
    let (_folder, path) = folder();
    let store = open(&path);
    store.revoke(vec![token("before")]).await.unwrap();
    checkpoint(&path);
    store.look().await.unwrap();
    store.revoke(vec![token("later")]).await.unwrap();
    let mine = fs::read(&path).unwrap();
    // It has all that was written, and more than the main file.
    let copy = back_up(&path, "copy.db");
    overwrite(&copy, &path);
    assert!(store.revoke(vec![token("lost")]).await.is_err());
    assert_broken("copied", &store).await;
    fs::write(&path, &mine).unwrap();
    assert_heals("back", &store, &path, "back").await;
}

#[tokio::test]
async fn the_log_stays_short() {
    let (folder, path) = folder();
    let store = open(&path);
    for round in 0..300 {
        write_some(&store, &format!("{round}")).await;
    }
    let size = fs::metadata(folder.path().join("portcullis.db-wal")).unwrap().len();
    assert!(size < 16 << 20, "{size}");
    assert!(fs::metadata(&path).unwrap().len() > 100_000);
}

#[tokio::test]
async fn a_copy_of_the_present_state_is_gone_on_with() {
    let (folder, path) = folder();
    let store = open(&path);
    store.revoke(vec![token("before")]).await.unwrap();
    let epoch = store.look().await.unwrap().epoch;
    for round in ["1", "2", "3"] {
        let copy = back_up(&path, "copy.db");
        fs::rename(&copy, &path).unwrap();
        for suffix in ["-wal", "-shm"] {
            fs::remove_file(folder.path().join(format!("portcullis.db{suffix}")))
                .unwrap_or_else(|error| panic!("{round} {suffix}: {error}"));
        }
        assert_heals(round, &store, &path, round).await;
    }
    assert_eq!(store.look().await.unwrap().epoch, epoch + 3);
    store.close();
    assert!(has(&open(&path), "3").await);
}

#[tokio::test]
async fn checkpoints_and_restarts_of_others_are_no_replacement() {
    let (_folder, path) = folder();
    let store = open(&path);
    for round in 0..20 {
        let other = open(&path);
        for number in 0..20 {
            let jti = format!("{round}.{number}");
            let writer = if number % 2 == 0 { &store } else { &other };
            writer.revoke(vec![token(&jti)]).await.unwrap();
            store.look().await.unwrap();
        }
        checkpoint(&path);
        store.look().await.unwrap();
        other.close();
        store.reopen();
        store.look().await.unwrap();
    }
    assert_eq!(store.revocations_after(0, 1000).await.unwrap().len(), 400);
}

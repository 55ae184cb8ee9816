//! What goes wrong with a database: it is locked, full, read-only, or a job fails.

use super::*;

#[tokio::test]
async fn a_locked_database_is_busy_and_still_read() {
    let (_folder, path) = folder();
    let store = open(&path);
    let other = locked(&path);
    let begin = clock::monotonic();
    let jobs = (0..50).map(|number| {
        let store = store.clone();
        async move { store.revoke(vec![token(&number.to_string())]).await }
    });
    let jobs: JoinSet<_> = jobs.collect();
    assert!(store.find_account(&name("alice")).await.unwrap().is_none());
    assert!(begin.elapsed() < Duration::from_secs(1));
    let results = jobs.join_all().await;
    assert!(results.iter().all(|result| matches!(result, Err(Error::Busy))));
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
    drop(other);
    store.revoke(vec![token("a")]).await.unwrap();
    assert_eq!(store.revocations_after(0, 100).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_full_queue_is_busy_at_once() {
    let (_folder, path) = folder();
    let store = open(&path);
    let other = locked(&path);
    let begin = clock::monotonic();
    let mut jobs = JoinSet::new();
    for number in 0..1200 {
        let store = store.clone();
        jobs.spawn(async move { store.revoke(vec![token(&number.to_string())]).await.map(|()| number) });
    }
    settle().await;
    let mut busy = 0;
    while let Some(result) = jobs.try_join_next() {
        assert!(matches!(result.unwrap(), Err(Error::Busy)));
        busy += 1;
    }
    assert!((170..=180).contains(&busy) && begin.elapsed() < Duration::from_secs(1), "{busy}");
    drop(other);
    let done = jobs.join_all().await;
    assert!(done.iter().all(Result::is_ok));
    assert_eq!(store.revocations_after(0, 2000).await.unwrap().len(), done.len());
}

#[tokio::test]
async fn a_failing_job_leaves_its_group_alone() {
    let (_folder, path) = folder();
    let store = open(&path);
    store.register(newcomer("alice"), Some(session("s"))).await.unwrap();
    let other = locked(&path);
    let (mut good, mut bad) = (JoinSet::new(), JoinSet::new());
    for number in 0..20 {
        let (one, two) = (store.clone(), store.clone());
        good.spawn(async move { one.revoke(vec![token(&number.to_string())]).await });
        // The account goes in, then its session's id is taken.
        let username = format!("user{number}");
        bad.spawn(async move { two.register(newcomer(&username), Some(session("s"))).await });
    }
    settle().await;
    drop(other);
    assert!(good.join_all().await.iter().all(Result::is_ok));
    assert!(bad.join_all().await.iter().all(|result| matches!(result, Err(Error::Sqlite(_)))));
    assert_eq!(store.revocations_after(0, 100).await.unwrap().len(), 20);
    assert_eq!(store.list_accounts(None, 100).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_failing_commit_fails_all_of_its_group() {
    let (_folder, path) = folder();
    let store = open(&path);
    let other = locked(&path);
    let mut jobs = JoinSet::new();
    for number in 0..10 {
        let store = store.clone();
        jobs.spawn(async move { store.revoke(vec![token(&number.to_string())]).await });
    }
    let spoiler = store.clone();
    // A deferred foreign key that holds nothing: found out by COMMIT alone.
    jobs.spawn(async move {
        let sql = "PRAGMA defer_foreign_keys = ON; INSERT INTO account_role (account, role) VALUES (99, 'x')";
        spoiler.run_on_writer(sql).await
    });
    settle().await;
    drop(other);
    let results = jobs.join_all().await;
    assert!(results.iter().all(Result::is_err), "{results:?}");
    assert!(store.revocations_after(0, 100).await.unwrap().is_empty());
    store.revoke(vec![token("a")]).await.unwrap();
}

#[tokio::test]
async fn a_transaction_that_sqlite_gave_up_fails_its_group_only() {
    let (_folder, path) = folder();
    let store = open(&path);
    let other = locked(&path);
    let mut jobs = JoinSet::new();
    for number in 0..10 {
        let store = store.clone();
        jobs.spawn(async move { store.revoke(vec![token(&number.to_string())]).await });
    }
    let spoiler = store.clone();
    jobs.spawn(async move { spoiler.run_on_writer("ROLLBACK; SELECT no_such_function()").await });
    settle().await;
    drop(other);
    assert!(jobs.join_all().await.iter().all(Result::is_err));
    assert!(store.revocations_after(0, 100).await.unwrap().is_empty());
    store.revoke(vec![token("a")]).await.unwrap();
}

/// SQLite's own bound on the file stands in for a full disk: it is refused in the same place, with the same code.
#[tokio::test]
async fn a_full_disk_bars_writing_alone_and_until_there_is_room() {
    let (_folder, path) = folder();
    let store = open(&path);
    store.run_on_writer("PRAGMA max_page_count = 1").await.unwrap();
    let mut done = vec![];
    let error = loop {
        let jti = done.len().to_string();
        match store.revoke(vec![token(&jti)]).await {
            Ok(()) => done.push(jti),
            Err(error) => break error,
        }
        assert!(done.len() < 10_000, "the disk is not full");
    };
    assert!(matches!(error, Error::Full { .. }), "{error}");
    assert!(matches!(store.revoke(vec![token("x")]).await, Err(Error::Full { .. })));
    assert_eq!(store.revocations_after(0, 10_000).await.unwrap().len(), done.len());
    assert!(store.find_account(&name("alice")).await.unwrap().is_none());
    store.run_on_writer("PRAGMA max_page_count = 100000").await.unwrap();
    store.revoke(vec![token("x")]).await.unwrap();
    assert_eq!(store.revocations_after(0, 10_000).await.unwrap().len(), done.len() + 1);
}

/// `query_only` stands in for a read-only file system, because nothing is read-only to root.
#[tokio::test]
async fn a_read_only_database_is_read_and_heals() {
    let (_folder, path) = folder();
    let store = open(&path);
    registered(&store, "alice").await;
    store.run_on_writer("PRAGMA query_only = ON").await.unwrap();
    let error = store.revoke(vec![token("a")]).await.unwrap_err();
    assert!(matches!(error, Error::ReadOnly { .. }), "{error}");
    assert!(store.find_account(&name("alice")).await.unwrap().is_some());
    store.revoke(vec![token("a")]).await.unwrap();
    assert!(matches!(store.register(newcomer("alice"), None).await.unwrap(), Registered::Taken));
}

//! The store's contract: every kind of store passes each of these.

mod accounts;
mod attempts;
mod eviction;
mod keys;
mod rotation;
mod sessions;

use std::time::Duration;

use super::*;
use crate::config::{self, OnStale, StoreLocation};
use crate::model::SessionId;

const AT: UnixTime = UnixTime::from_secs(1_800_000_000);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Runs a test on a fresh store of each kind.
async fn on_each_store(test: impl AsyncFn(&Store)) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&sqlite(&folder.path().join("portcullis.db"))).unwrap();
    test(&store).await;
}

/// The configuration of an embedded store.
pub(crate) fn sqlite(path: &std::path::Path) -> config::Store {
    config::Store {
        location: StoreLocation::Sqlite(path.into()),
        max_stale: Duration::from_secs(30),
        on_stale: OnStale::Refuse,
        encryption_key: None,
    }
}

pub(crate) fn name(text: &str) -> Username {
    Username::parse(text).unwrap()
}

fn roles(names: &[&str]) -> Vec<Role> {
    names.iter().map(|name| Role::parse(name).unwrap()).collect()
}

pub(crate) fn newcomer(username: &str) -> NewAccount {
    NewAccount { username: name(username), hash: Secret::new("$argon2id$x"), roles: vec![], at: AT }
}

pub(crate) fn session(id: &str) -> NewSession {
    NewSession {
        id: SessionId::new(id),
        at: AT,
        expires: AT + HOUR,
        access_expires: AT + SECOND * 900,
        limit: 1000,
        address: Some("192.0.2.1".into()),
        user_agent: Some("curl/8".into()),
    }
}

pub(crate) async fn registered(store: &Store, username: &str) -> Account {
    match store.register(newcomer(username), None).await.unwrap() {
        Registered::Created(account) => account,
        Registered::Taken => panic!("{username} is taken"),
    }
}

pub(crate) fn token(jti: &str) -> Revocation {
    Revocation {
        key: Key::token(None, jti),
        kind: Kind::Token,
        generation: Generation(0),
        at: AT,
        keep_until: AT + HOUR,
    }
}

pub(crate) fn by(account: AccountId, generation: Generation) -> Use {
    let (expires, access_expires) = (AT + HOUR, AT + SECOND * 900);
    Use { token: Key::token(None, "refresh"), account, generation, at: AT, expires, access_expires }
}

#[tokio::test]
async fn revocations_come_in_the_order_of_their_commits() {
    on_each_store(async |store| {
        for jti in ["a", "b", "c"] {
            store.revoke(vec![token(jti)]).await.unwrap();
        }
        store.revoke(vec![token("d"), token("e")]).await.unwrap();
        let all = store.revocations_after(0, 10).await.unwrap();
        let expected: Vec<_> = ["a", "b", "c", "d", "e"].map(token).into();
        assert_eq!(all.iter().map(|(_, revocation)| revocation.clone()).collect::<Vec<_>>(), expected);
        assert!(all.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!(store.revocations_after(all[2].0, 1).await.unwrap(), &all[3..4]);
        assert!(store.revocations_after(all[4].0, 10).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn repeating_a_revocation_writes_only_what_is_new() {
    on_each_store(async |store| {
        let only = async || {
            let mut rows = store.revocations_after(0, 10).await.unwrap();
            assert_eq!(rows.len(), 1);
            rows.remove(0)
        };
        store.revoke(vec![token("a")]).await.unwrap();
        let (seq, version) = (only().await.0, store.look().await.unwrap());
        let earlier = Revocation { at: AT + HOUR, keep_until: AT, ..token("a") };
        store.revoke(vec![token("a"), earlier]).await.unwrap();
        assert_eq!(only().await, (seq, token("a")));
        assert_eq!(store.look().await.unwrap(), version);
        let longer = Revocation { at: AT + HOUR, keep_until: AT + HOUR * 2, ..token("a") };
        store.revoke(vec![longer]).await.unwrap();
        let (later, revocation) = only().await;
        assert!(later > seq);
        assert_eq!(revocation, Revocation { keep_until: AT + HOUR * 2, ..token("a") });
    })
    .await;
}

#[tokio::test]
async fn revocations_of_a_subject_are_joined() {
    on_each_store(async |store| {
        let entry = |generation, at, keep_until| Revocation {
            key: Key::subject(None, "alice"),
            kind: Kind::Subject,
            generation: Generation(generation),
            at,
            keep_until,
        };
        let mut seq = 0;
        for (new, joined) in [
            (entry(3, AT, AT + HOUR), entry(3, AT, AT + HOUR)),
            (entry(2, AT + HOUR, AT), entry(3, AT + HOUR, AT + HOUR)),
            (entry(4, AT, AT), entry(4, AT + HOUR, AT + HOUR)),
            (entry(1, AT, AT + HOUR * 2), entry(4, AT + HOUR, AT + HOUR * 2)),
        ] {
            store.revoke(vec![new]).await.unwrap();
            let rows = store.revocations_after(seq, 10).await.unwrap();
            assert_eq!(rows.iter().map(|row| &row.1).collect::<Vec<_>>(), [&joined]);
            seq = rows[0].0;
        }
        store.revoke(vec![entry(4, AT, AT)]).await.unwrap();
        assert!(store.revocations_after(seq, 10).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn the_data_version_follows_commits() {
    on_each_store(async |store| {
        let first = store.look().await.unwrap();
        assert_eq!(store.look().await.unwrap(), first);
        store.revoke(vec![token("a")]).await.unwrap();
        let second = store.look().await.unwrap();
        assert_ne!(second, first);
        assert_eq!(store.look().await.unwrap(), second);
    })
    .await;
}

#[tokio::test]
async fn the_longest_lifetime_only_grows() {
    on_each_store(async |store| {
        for (lifetime, longest) in [(HOUR, HOUR), (HOUR / 2, HOUR), (HOUR * 3, HOUR * 3), (HOUR, HOUR * 3)] {
            assert_eq!(store.raise_longest_lifetime(lifetime).await.unwrap(), longest);
        }
        let bound = Duration::from_millis(i64::MAX.unsigned_abs());
        assert_eq!(store.raise_longest_lifetime(Duration::MAX).await.unwrap(), bound);
    })
    .await;
}

#[tokio::test]
async fn the_purge_takes_what_has_expired_and_no_more() {
    on_each_store(async |store| {
        let alice = registered(store, "alice").await;
        for hours in 0..5 {
            let id = hours.to_string();
            store.revoke(vec![Revocation { keep_until: AT + HOUR * hours, ..token(&id) }]).await.unwrap();
            let opened = NewSession { expires: AT + HOUR * hours, ..session(&id) };
            store.open_session(opened, alice.id, alice.generation).await.unwrap();
        }
        let last = store.revocations_after(0, 10).await.unwrap()[4].0;
        assert_eq!(store.stats(AT + HOUR * 3).await.unwrap(), Stats { accounts: 1, sessions: 2, revocations: 5 });
        // Revocations of hours 0 to 2, and sessions of hours 0 and 1: these are kept an hour longer.
        let mut counts = vec![];
        while counts.last() != Some(&0) {
            counts.push(store.purge(AT + HOUR * 3, 2).await.unwrap());
        }
        assert_eq!(counts, [2, 2, 1, 0]);
        let left = store.revocations_after(0, 10).await.unwrap();
        assert_eq!(left.iter().map(|row| row.1.key).collect::<Vec<_>>(), ["3", "4"].map(|id| Key::token(None, id)));
        assert!(store.find_session(&SessionId::new("1")).await.unwrap().is_none());
        assert!(store.find_session(&SessionId::new("2")).await.unwrap().is_some());
        while store.purge(AT + HOUR * 9, 2).await.unwrap() > 0 {}
        store.revoke(vec![token("new")]).await.unwrap();
        assert!(store.revocations_after(last, 10).await.unwrap().len() == 1, "a number was given twice");
    })
    .await;
}

#[tokio::test]
async fn a_closed_store_says_so() {
    on_each_store(async |store| {
        store.close();
        store.close();
        assert!(matches!(store.revoke(vec![token("a")]).await, Err(Error::Closed)));
        assert!(matches!(store.look().await, Err(Error::Closed)));
        assert!(matches!(store.list_accounts(None, 1).await, Err(Error::Closed)));
    })
    .await;
}

#[test]
fn a_handle_may_go_anywhere() {
    fn check<T: Clone + Send + Sync + 'static>(_: Option<T>) {}
    check(None::<Store>);
    check(None::<Error>);
}

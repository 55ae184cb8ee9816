//! The store's contract: every kind of store passes each of these.

mod sessions;
mod attempts;

use std::time::Duration;

use super::*;
use crate::config::{self, OnStale, StoreLocation};
use crate::model::{ADMIN, SessionId};

const AT: UnixTime = UnixTime::from_secs(1_800_000_000);
const HOUR: Duration = Duration::from_secs(3600);

/// Runs a test on a fresh store of each kind.
async fn on_each_store(test: impl AsyncFn(&Store)) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&sqlite(&folder.path().join("portcullis.db"))).unwrap();
    test(&store).await;
}

/// The configuration of an embedded store.
pub(super) fn sqlite(path: &std::path::Path) -> config::Store {
    config::Store {
        location: StoreLocation::Sqlite(path.into()),
        max_stale: Duration::from_secs(30),
        on_stale: OnStale::Refuse,
        encryption_key: None,
    }
}

pub(super) fn name(text: &str) -> Username {
    Username::parse(text).unwrap()
}

fn roles(names: &[&str]) -> Vec<Role> {
    names.iter().map(|name| Role::parse(name).unwrap()).collect()
}

pub(super) fn newcomer(username: &str) -> NewAccount {
    NewAccount { username: name(username), hash: Secret::new("$argon2id$x"), roles: vec![], at: AT }
}

pub(super) fn session(id: &str) -> NewSession {
    NewSession {
        id: SessionId::new(id),
        at: AT,
        expires: AT + HOUR,
        address: Some("192.0.2.1".into()),
        user_agent: Some("curl/8".into()),
    }
}

pub(super) async fn registered(store: &Store, username: &str) -> Account {
    match store.register(newcomer(username), None).await.unwrap() {
        Registered::Created(account) => account,
        Registered::Taken => panic!("{username} is taken"),
    }
}

pub(super) fn token(jti: &str) -> Revocation {
    Revocation {
        key: Key::token(None, jti),
        kind: Kind::Token,
        generation: Generation(0),
        at: AT,
        keep_until: AT + HOUR,
    }
}

fn candidate(kid: &str) -> SigningKey {
    SigningKey {
        kid: kid.into(),
        algorithm: "HS256".into(),
        secret: Secret::new(vec![7; 32]),
        created: AT,
        state: KeyState::Signing,
    }
}

#[tokio::test]
async fn an_account_comes_back_as_it_was_registered() {
    on_each_store(async |store| {
        let asked = NewAccount { roles: roles(&["b", "a", "b"]), ..newcomer("Ünal O'Neil") };
        let Registered::Created(made) = store.register(asked, None).await.unwrap() else { panic!("taken") };
        let found = store.find_account(&name("Ünal O'Neil")).await.unwrap().unwrap();
        for account in [made, found] {
            assert_eq!(account.username, name("Ünal O'Neil"));
            assert_eq!(account.hash.expose(), b"$argon2id$x");
            assert_eq!(account.roles, roles(&["a", "b"]));
            assert_eq!((account.generation, account.disabled, account.created), (Generation(0), false, AT));
        }
        assert!(store.find_account(&name("ünal o'neil")).await.unwrap().is_none());
    })
    .await;
}

#[tokio::test]
async fn a_taken_name_changes_nothing() {
    on_each_store(async |store| {
        let first = registered(store, "alice").await;
        let second = NewAccount { roles: roles(&[ADMIN]), hash: Secret::new("other"), ..newcomer("alice") };
        let outcome = store.register(second, Some(session("s"))).await.unwrap();
        assert!(matches!(outcome, Registered::Taken));
        let found = store.find_account(&name("alice")).await.unwrap().unwrap();
        assert_eq!((found.id, found.roles.len()), (first.id, 0));
        assert_eq!(found.hash.expose(), first.hash.expose());
        assert_eq!(store.find_session(&SessionId::new("s")).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn a_registration_opens_its_session() {
    on_each_store(async |store| {
        let outcome = store.register(newcomer("alice"), Some(session("s"))).await.unwrap();
        let Registered::Created(account) = outcome else { panic!("taken") };
        let row = store.find_session(&SessionId::new("s")).await.unwrap().unwrap();
        assert_eq!(
            row,
            SessionRow {
                id: SessionId::new("s"),
                account: account.id,
                created: AT,
                last_used: AT,
                expires: AT + HOUR,
                address: Some("192.0.2.1".into()),
                user_agent: Some("curl/8".into()),
            }
        );
    })
    .await;
}

#[tokio::test]
async fn a_registration_whose_session_fails_leaves_no_account() {
    on_each_store(async |store| {
        store.register(newcomer("alice"), Some(session("s"))).await.unwrap();
        assert!(store.register(newcomer("bob"), Some(session("s"))).await.is_err());
        assert!(store.find_account(&name("bob")).await.unwrap().is_none());
    })
    .await;
}

#[tokio::test]
async fn a_session_needs_the_account_as_it_was() {
    on_each_store(async |store| {
        let alice = registered(store, "alice").await;
        assert!(store.open_session(session("1"), alice.id, alice.generation).await.unwrap());
        assert!(!store.open_session(session("2"), alice.id, alice.generation.next()).await.unwrap());
        assert!(!store.open_session(session("3"), AccountId(99), Generation(0)).await.unwrap());
        store.raise_generation(&name("alice"), AT, AT + HOUR).await.unwrap();
        assert!(!store.open_session(session("4"), alice.id, alice.generation).await.unwrap());
        assert!(store.open_session(session("5"), alice.id, alice.generation.next()).await.unwrap());
        store.set_disabled(&name("alice"), true, AT, AT + HOUR).await.unwrap();
        assert!(!store.open_session(session("6"), alice.id, Generation(2)).await.unwrap());
    })
    .await;
}

fn by(account: AccountId, generation: Generation) -> Use {
    Use { token: Key::token(None, "refresh"), account, generation, at: AT, expires: AT + HOUR }
}

#[tokio::test]
async fn is_current_follows_the_account() {
    on_each_store(async |store| {
        let alice = registered(store, "alice").await;
        assert!(store.is_current(by(alice.id, Generation(0))).await.unwrap());
        assert!(!store.is_current(by(alice.id, Generation(1))).await.unwrap());
        store.set_disabled(&name("alice"), true, AT, AT + HOUR).await.unwrap();
        assert!(!store.is_current(by(alice.id, Generation(1))).await.unwrap());
        store.set_disabled(&name("alice"), false, AT, AT + HOUR).await.unwrap();
        assert!(store.is_current(by(alice.id, Generation(2))).await.unwrap());
        store.delete_account(&name("alice"), AT, AT + HOUR).await.unwrap();
        assert!(!store.is_current(by(alice.id, Generation(2))).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn each_change_of_an_account_ends_its_tokens() {
    on_each_store(async |store| {
        let (alice, until) = (name("alice"), AT + HOUR);
        registered(store, "alice").await;
        let made = [
            store.raise_generation(&alice, AT, until).await.unwrap(),
            store.set_roles(&alice, roles(&["x", "y"]), AT, until).await.unwrap(),
            store.set_hash(&alice, Secret::new("new"), AT, until).await.unwrap(),
            store.set_disabled(&alice, true, AT, until).await.unwrap(),
        ];
        for (count, revocation) in (1..).zip(made) {
            assert_eq!(
                revocation,
                Some(Revocation {
                    key: Key::subject(None, "alice"),
                    kind: Kind::Subject,
                    generation: Generation(count),
                    at: AT,
                    keep_until: until,
                })
            );
        }
        let account = store.find_account(&alice).await.unwrap().unwrap();
        assert_eq!((account.generation, account.disabled, account.roles), (Generation(4), true, roles(&["x", "y"])));
        assert_eq!(account.hash.expose(), b"new");
        let stored = store.revocations_after(0, 10).await.unwrap();
        let generations = stored.iter().map(|(seq, revocation)| (*seq > 3, revocation.generation));
        assert_eq!(generations.collect::<Vec<_>>(), [(true, Generation(4))]);
    })
    .await;
}

#[tokio::test]
async fn an_unknown_account_is_none() {
    on_each_store(async |store| {
        let nobody = name("nobody");
        assert_eq!(store.raise_generation(&nobody, AT, AT).await.unwrap(), None);
        assert_eq!(store.set_roles(&nobody, roles(&["x"]), AT, AT).await.unwrap(), None);
        assert_eq!(store.set_hash(&nobody, Secret::new("x"), AT, AT).await.unwrap(), None);
        assert_eq!(store.set_disabled(&nobody, true, AT, AT).await.unwrap(), None);
        assert_eq!(store.delete_account(&nobody, AT, AT).await.unwrap(), None);
        assert!(store.revocations_after(0, 10).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_namesake_of_a_deleted_account_starts_above_its_tokens() {
    on_each_store(async |store| {
        let alice = registered(store, "alice").await;
        store.open_session(session("s"), alice.id, alice.generation).await.unwrap();
        store.raise_generation(&name("alice"), AT, AT + HOUR).await.unwrap();
        let end = store.delete_account(&name("alice"), AT, AT + HOUR).await.unwrap().unwrap();
        assert_eq!(end.generation, Generation(2));
        assert!(store.find_account(&name("alice")).await.unwrap().is_none());
        assert_eq!(store.find_session(&SessionId::new("s")).await.unwrap(), None);
        let namesake = registered(store, "alice").await;
        assert_ne!(namesake.id, alice.id);
        assert_eq!(namesake.generation, Generation(2));
        assert!(store.open_session(session("s"), namesake.id, namesake.generation).await.unwrap());
        while store.purge(AT + HOUR * 3, 10).await.unwrap() > 0 {}
        store.delete_account(&name("alice"), AT, AT + HOUR).await.unwrap();
        while store.purge(AT + HOUR * 3, 10).await.unwrap() > 0 {}
        assert_eq!(registered(store, "alice").await.generation, Generation(0));
    })
    .await;
}

#[tokio::test]
async fn all_other_accounts_are_deleted_at_once() {
    on_each_store(async |store| {
        let alice = registered(store, "alice").await.id;
        registered(store, "bob").await;
        registered(store, "carol").await;
        let (token, session) = (Key::token(None, "jti"), None);
        let by = |generation| Warrant { username: name("alice"), generation: Generation(generation), token, session };
        let clear = async |by| store.delete_other_accounts(by, AT, AT + HOUR).await.unwrap();
        store.raise_generation(&name("carol"), AT, AT + HOUR * 2).await.unwrap();
        assert_eq!(clear(Some(by(0))).await, Cleared::NoAdministrator);
        assert_eq!(store.list_accounts(None, 10).await.unwrap().len(), 3);
        store.set_roles(&name("alice"), vec![Role::parse(ADMIN).unwrap()], AT, AT + HOUR).await.unwrap();
        assert_eq!(clear(Some(by(0))).await, Cleared::Refused, "his roles have changed");
        assert_eq!(store.list_accounts(None, 10).await.unwrap().len(), 3);
        let Cleared::Done(mut ended) = clear(Some(by(1))).await else { panic!("refused") };
        ended.sort_by_key(|revocation| revocation.generation);
        let seen: Vec<_> = ended.iter().map(|revocation| (revocation.key, revocation.generation)).collect();
        assert_eq!(seen, [(Key::subject(None, "bob"), Generation(1)), (Key::subject(None, "carol"), Generation(2))]);
        let left = store.list_accounts(None, 10).await.unwrap();
        assert_eq!(left.iter().map(|account| account.id).collect::<Vec<_>>(), [alice]);
        let stored = store.revocations_after(0, 10).await.unwrap();
        let carol = stored.iter().find(|(_, revocation)| revocation.key == Key::subject(None, "carol")).unwrap();
        assert_eq!((carol.1.generation, carol.1.keep_until), (Generation(2), AT + HOUR * 2));
        store.revoke(vec![self::token("jti")]).await.unwrap();
        assert_eq!(clear(Some(by(1))).await, Cleared::Refused, "his token was revoked");
        let Cleared::Done(ended) = clear(None).await else { panic!("refused") };
        assert_eq!(ended.len(), 1);
        assert!(store.list_accounts(None, 10).await.unwrap().is_empty());
        assert_eq!(clear(None).await, Cleared::Done(vec![]));
    })
    .await;
}

#[tokio::test]
async fn a_hash_is_upgraded_only_from_the_one_that_was_verified() {
    on_each_store(async |store| {
        let alice = registered(store, "alice").await;
        let new = || Secret::new("new");
        assert!(!store.upgrade_hash(alice.id, Secret::new("$argon2id$y"), new()).await.unwrap());
        assert!(store.upgrade_hash(alice.id, alice.hash.clone(), new()).await.unwrap());
        assert!(!store.upgrade_hash(alice.id, alice.hash.clone(), new()).await.unwrap());
        let found = store.find_account(&name("alice")).await.unwrap().unwrap();
        assert_eq!((found.hash.expose(), found.generation), (&b"new"[..], Generation(0)));
    })
    .await;
}

#[tokio::test]
async fn accounts_are_listed_in_the_order_of_bytes() {
    on_each_store(async |store| {
        for username in ["é", "a", "B", "名", "ab"] {
            registered(store, username).await;
        }
        let names = async |after, limit| {
            let accounts = store.list_accounts(after, limit).await.unwrap();
            accounts.iter().map(|account| account.username.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(None, 10).await, ["B", "a", "ab", "é", "名"]);
        assert_eq!(names(None, 2).await, ["B", "a"]);
        assert_eq!(names(Some("a"), 2).await, ["ab", "é"]);
        assert_eq!(names(Some("aa"), 1).await, ["ab"]);
        assert!(names(Some("名"), 1).await.is_empty());
        assert!(names(None, 0).await.is_empty());
    })
    .await;
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
        let (seq, version) = (only().await.0, store.data_version().await.unwrap());
        let earlier = Revocation { at: AT + HOUR, keep_until: AT, ..token("a") };
        store.revoke(vec![token("a"), earlier]).await.unwrap();
        assert_eq!(only().await, (seq, token("a")));
        assert_eq!(store.data_version().await.unwrap(), version);
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
        let first = store.data_version().await.unwrap();
        assert_eq!(store.data_version().await.unwrap(), first);
        store.revoke(vec![token("a")]).await.unwrap();
        let second = store.data_version().await.unwrap();
        assert_ne!(second, first);
        assert_eq!(store.data_version().await.unwrap(), second);
    })
    .await;
}

async fn keys(store: &Store) -> Vec<(String, KeyState)> {
    let list = store.load_keys().await.unwrap();
    assert!(list.unreadable.is_empty());
    list.keys.into_iter().map(|key| (key.kid, key.state)).collect()
}

fn standby(kid: &str, algorithm: &str, signs_from: UnixTime) -> SigningKey {
    SigningKey { algorithm: algorithm.into(), state: KeyState::Standby { signs_from }, ..candidate(kid) }
}

#[tokio::test]
async fn there_is_one_signing_key() {
    on_each_store(async |store| {
        let replace = |old: Option<&str>, kid| store.replace_key(old.map(Into::into), candidate(kid), AT + HOUR);
        let (one, two) = tokio::join!(replace(None, "1"), replace(None, "2"));
        assert!(one.unwrap() != two.unwrap(), "of two processes that start at once, one makes the key");
        let first = store.load_keys().await.unwrap().keys.remove(0);
        assert_eq!((first.algorithm.as_str(), first.created, first.state), ("HS256", AT, KeyState::Signing));
        assert_eq!(first.secret.expose(), &[7; 32]);
        assert!(!replace(None, "3").await.unwrap() && !replace(Some("x"), "3").await.unwrap());
        assert!(replace(Some(&first.kid), "3").await.unwrap());
        let verifying = KeyState::Verifying { until: AT + HOUR };
        assert_eq!(keys(store).await, [(first.kid, verifying), ("3".into(), KeyState::Signing)]);
    })
    .await;
}

#[tokio::test]
async fn a_standby_signs_when_its_time_has_come() {
    on_each_store(async |store| {
        assert!(store.replace_key(None, candidate("a"), AT).await.unwrap());
        let due = AT + HOUR;
        assert!(store.add_standby(standby("b", "HS256", due)).await.unwrap());
        assert!(!store.add_standby(standby("c", "HS256", due)).await.unwrap(), "there is one");
        assert!(!store.promote_standby(due - Duration::from_millis(1), due + HOUR).await.unwrap());
        assert!(store.promote_standby(due, due + HOUR).await.unwrap());
        assert!(!store.promote_standby(due, due + 2 * HOUR).await.unwrap(), "once");
        let verifying = KeyState::Verifying { until: due + HOUR };
        assert_eq!(keys(store).await, [("a".into(), verifying), ("b".into(), KeyState::Signing)]);
        assert_eq!(store.purge_keys(due + HOUR).await.unwrap(), 0);
        assert_eq!(store.purge_keys(due + HOUR + Duration::from_millis(1)).await.unwrap(), 1);
        assert_eq!(keys(store).await, [("b".into(), KeyState::Signing)]);
        assert!(store.add_standby(standby("d", "HS256", due)).await.unwrap());
        assert!(store.add_standby(standby("e", "EdDSA", due)).await.unwrap(), "of another algorithm");
        store.drop_standby("EdDSA").await.unwrap();
        assert_eq!(keys(store).await.len(), 2);
        store.drop_standby("ES256").await.unwrap();
        store.retire_key(due).await.unwrap();
        assert_eq!(keys(store).await, [("b".into(), KeyState::Verifying { until: due })]);
    })
    .await;
}

#[tokio::test]
async fn a_revoked_key_is_wiped_and_another_signs() {
    on_each_store(async |store| {
        let revoke = |kid: &str, spare| store.revoke_key(kid.into(), candidate(spare), AT + HOUR);
        assert!(store.replace_key(None, candidate("a"), AT).await.unwrap());
        assert_eq!(revoke("x", "b").await.unwrap(), None);
        assert_eq!(revoke("a", "b").await.unwrap(), Some(KeyState::Signing));
        let revoked = KeyState::Revoked { until: AT + HOUR };
        assert_eq!(revoke("a", "c").await.unwrap(), Some(revoked), "nothing changes");
        assert_eq!(keys(store).await, [("a".into(), revoked), ("b".into(), KeyState::Signing)]);
        assert!(store.load_keys().await.unwrap().keys[0].secret.is_empty());
        assert!(store.add_standby(standby("d", "HS256", AT + HOUR)).await.unwrap());
        assert_eq!(revoke("b", "e").await.unwrap(), Some(KeyState::Signing));
        let kids: Vec<String> = keys(store).await.into_iter().map(|(kid, _)| kid).collect();
        assert_eq!(kids, ["a", "b", "d"], "the standby, not the spare one");
        assert_eq!(keys(store).await[2].1, KeyState::Signing);
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
        assert!(matches!(store.data_version().await, Err(Error::Closed)));
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

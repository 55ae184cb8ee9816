//! Memory against the store, when a job of the store fails or its caller is dropped at any await.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;

use super::*;
use crate::config::Algorithm;
use crate::model::{Generation, SessionId, TokenId};
use crate::sessions::keyring::make;
use crate::store::tests::{name, newcomer, registered, session, sqlite, token};
use crate::store::{Account, Injected, Key, KeyState, NewPassword, Revocation, Rotation, Use, Warrant};
use crate::{secret::Secret, store::Cut};

const AT: crate::clock::UnixTime = crate::clock::UnixTime::from_secs(1_800_000_000);
const HOUR: Duration = Duration::from_secs(3600);
const ALL: [Injected; 3] = [Injected::FailBefore, Injected::FailAfter, Injected::Stall];

/// Longer than a job takes; what waits longer is dropped.
const DROPPED_AFTER: Duration = Duration::from_millis(100);

fn tokens() -> config::Tokens {
    let text = "upstreams: {app: {servers: [\"http://127.0.0.1:1\"]}}\nroutes: [{path: /a, upstream: app}]";
    config::parse(text, "gateway.yaml".as_ref(), &|_| None).unwrap().tokens
}

/// A feed on a new database.
async fn feed() -> (tempfile::TempDir, Store, Feed) {
    let folder = tempfile::tempdir().unwrap();
    let settings = sqlite(&folder.path().join("portcullis.db"));
    let store = Store::open(&settings).unwrap();
    let keyring = Keyring::load(store.clone(), &tokens()).await.unwrap();
    let feed = Feed::load(store.clone(), keyring, settings).await.unwrap();
    (folder, store, feed)
}

async fn stored(store: &Store) -> BTreeSet<[u8; 16]> {
    let rows = store.revocations_after(0, usize::MAX).await.unwrap();
    rows.into_iter().map(|(_, revocation)| revocation.key.0).collect()
}

/// How many revocations memory has, all of which are in the store.
async fn assert_alike(what: &str, store: &Store, feed: &Feed) -> usize {
    let stored = stored(store).await;
    let missing = stored.iter().filter(|key| !feed.blocklist.has(&Key(**key))).count();
    assert_eq!(missing, 0, "{what}: memory lacks revocations of the store");
    feed.blocklist.maintain();
    assert_eq!(feed.blocklist.count(), stored.len() as u64, "{what}: memory has others than the store");
    stored.len()
}

#[tokio::test]
async fn feed_skips_nothing_when_a_read_fails_or_is_dropped_at_any_await() {
    let (folder, store, mut feed) = feed().await;
    let other = Store::open(&sqlite(&folder.path().join("portcullis.db"))).unwrap();
    feed.page = 10;
    let mut number = 0;
    for injected in ALL {
        for at in 0.. {
            // Three pages, and a key.
            for _ in 0..25 {
                number += 1;
                other.revoke(vec![token(&number.to_string())]).await.unwrap();
            }
            let standby = KeyState::Standby { signs_from: AT };
            let algorithm = if at % 2 == 0 { Algorithm::EdDsa } else { Algorithm::Es256 };
            let key = make(algorithm, standby, AT).unwrap();
            let kid = key.kid.clone();
            assert!(other.add_standby(key).await.unwrap());
            store.inject(Some((at, injected)));
            let glanced = tokio::time::timeout(DROPPED_AFTER, feed.glance(false)).await;
            let met = store.has_injected();
            store.inject(None);
            assert_eq!(matches!(glanced, Ok(Ok(()))), !met, "{injected:?} at {at}");
            feed.glance(false).await.unwrap();
            let what = format!("{injected:?} at {at}");
            assert_eq!(assert_alike(&what, &other, &feed).await, number);
            assert!(feed.keyring.knows(&kid).await, "{what}: the key ring lacks a key");
            if !met {
                assert!(at >= 5, "a look, three pages and the keys are five jobs at least, not {at}");
                break;
            }
        }
    }
}

type Change = (&'static str, bool, fn(Store, Account) -> Pin<Box<dyn Future<Output = ()>>>);

fn warrant() -> Warrant {
    Warrant {
        username: name("alice"),
        generation: Generation(0),
        token: Key::token(None, "t"),
        session: Some(Key::session(None, "s")),
    }
}

/// Every function of the store that adds revocations, and whether it adds one that was not there. The future's outcome is
/// left to the comparison.
fn changes() -> Vec<Change> {
    fn done<T, E>(_: Result<T, E>) {}
    vec![
        ("revoke", true, |store, _| Box::pin(async move { done(store.revoke(vec![token("x")]).await) })),
        ("revoke again", false, |store, _| Box::pin(async move { done(store.revoke(vec![token("known")]).await) })),
        ("end_session", true, |store, _| {
            Box::pin(async move { done(store.end_session(&SessionId::new("s"), AT, AT + HOUR).await) })
        }),
        ("end_session without a row", true, |store, _| {
            Box::pin(async move { done(store.end_session(&SessionId::new("none"), AT, AT + HOUR).await) })
        }),
        ("end_own_session", true, |store, _| {
            Box::pin(async move { done(store.end_own_session(warrant(), &SessionId::new("s"), AT).await) })
        }),
        ("raise_generation", true, |store, _| {
            Box::pin(async move { done(store.raise_generation(&name("alice"), AT, AT + HOUR).await) })
        }),
        ("raise_own_generation", true, |store, _| {
            Box::pin(async move { done(store.raise_own_generation(warrant(), AT, AT + HOUR).await) })
        }),
        ("set_own_hash", true, |store, alice| {
            let (account, generation) = (alice.id, alice.generation);
            let new = NewPassword { account, generation, hash: Secret::new("$argon2id$y"), session: session("next") };
            Box::pin(async move { done(store.set_own_hash(warrant(), new, AT + HOUR).await) })
        }),
        ("set_roles", true, |store, _| {
            Box::pin(async move { done(store.set_roles(&name("alice"), vec![], AT, AT + HOUR).await) })
        }),
        ("set_hash", true, |store, _| {
            Box::pin(async move { done(store.set_hash(&name("alice"), Secret::new("z"), AT, AT + HOUR).await) })
        }),
        ("set_disabled", true, |store, _| {
            Box::pin(async move { done(store.set_disabled(&name("alice"), true, AT, AT + HOUR).await) })
        }),
        ("delete_account", true, |store, _| {
            Box::pin(async move { done(store.delete_account(&name("alice"), AT, AT + HOUR).await) })
        }),
        ("delete_other_accounts", true, |store, _| {
            Box::pin(async move { done(store.delete_other_accounts(None, AT, AT + HOUR).await) })
        }),
        ("refresh_session with a token used before", true, |store, alice| {
            Box::pin(async move {
                for (jti, next) in [("0", "1"), ("1", "2"), ("0", "x")] {
                    let at = AT + HOUR / 2;
                    let by =
                        Use { token: Key::token(None, jti), at, ..crate::store::tests::by(alice.id, alice.generation) };
                    let rotation =
                        Rotation { successor: TokenId::new(next), expires: AT + HOUR, grace: Duration::ZERO };
                    done(store.refresh_session(&SessionId::new("s"), by, Some(rotation)).await);
                }
            })
        }),
        ("cut_account", true, |store, _| {
            let cut = Cut { before: AT + HOUR, at: AT, life: HOUR };
            Box::pin(async move { done(store.cut_account(&name("alice"), cut).await) })
        }),
        ("import_revoked", true, |store, _| {
            Box::pin(async move { done(store.import_revoked(vec![Key::token(None, "i")], AT, HOUR).await) })
        }),
    ]
}

#[tokio::test]
async fn memory_is_told_of_a_commit_whatever_becomes_of_the_caller() {
    for (what, adds, change) in changes() {
        for injected in [None, Some(Injected::FailBefore), Some(Injected::FailAfter), Some(Injected::Stall)] {
            for at in 0.. {
                let (_folder, store, feed) = feed().await;
                let alice = registered(&store, "alice").await;
                assert!(store.open_session(session("s"), alice.id, alice.generation).await.unwrap().is_some());
                store.register(newcomer("bob"), None).await.unwrap();
                store.revoke(vec![token("known")]).await.unwrap();
                store.inject(injected.map(|injected| (at, injected)));
                let _dropped = tokio::time::timeout(DROPPED_AFTER, change(store.clone(), alice)).await;
                let met = injected.is_some() && store.has_injected();
                store.inject(None);
                // The feed is not asked. A write that comes later is answered later, so that all before it are done.
                store.run_on_writer("SELECT 1").await.unwrap();
                let context = format!("{what}, {injected:?} at {at}");
                let count = assert_alike(&context, &store, &feed).await;
                let failed = met && injected != Some(Injected::Stall);
                if !failed && adds && at == 0 && !what.starts_with("refresh") {
                    assert!(count > 1, "{context}: nothing was added");
                }
                if !met {
                    break;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_revocation_that_another_process_made_first_is_known_when_the_second_is_answered() {
    let (folder, store, feed) = feed().await;
    let other = Store::open(&sqlite(&folder.path().join("portcullis.db"))).unwrap();
    let revocation: Revocation = token("x");
    other.revoke(vec![revocation.clone()]).await.unwrap();
    other.end_session(&SessionId::new("s"), AT, AT + HOUR).await.unwrap();
    assert_eq!(feed.blocklist.count(), 0);
    store.revoke(vec![revocation]).await.unwrap();
    store.end_session(&SessionId::new("s"), AT, AT + HOUR).await.unwrap();
    assert_eq!(assert_alike("both again", &store, &feed).await, 2);
}

//! Accounts: registered, changed, deleted and listed; each change ends what it must.

use super::*;
use crate::model::ADMIN;

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
        assert!(store.open_session(session("1"), alice.id, alice.generation).await.unwrap().is_some());
        assert!(store.open_session(session("2"), alice.id, alice.generation.next()).await.unwrap().is_none());
        assert!(store.open_session(session("3"), AccountId(99), Generation(0)).await.unwrap().is_none());
        store.raise_generation(&name("alice"), AT, AT + HOUR).await.unwrap();
        assert!(store.open_session(session("4"), alice.id, alice.generation).await.unwrap().is_none());
        assert!(store.open_session(session("5"), alice.id, alice.generation.next()).await.unwrap().is_some());
        store.set_disabled(&name("alice"), true, AT, AT + HOUR).await.unwrap();
        assert!(store.open_session(session("6"), alice.id, Generation(2)).await.unwrap().is_none());
    })
    .await;
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
        assert!(store.open_session(session("s"), namesake.id, namesake.generation).await.unwrap().is_some());
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

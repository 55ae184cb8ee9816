//! Sessions: continued, rotated, listed and ended.

use super::*;

#[tokio::test]
async fn a_revoked_token_has_no_successor() {
    on_each_store(async |store| {
        let alice = registered(store, "alice").await;
        store.open_session(session("s"), alice.id, alice.generation).await.unwrap();
        let by = by(alice.id, alice.generation);
        assert!(store.is_current(by).await.unwrap());
        store.revoke(vec![Revocation { key: by.token, ..token("") }]).await.unwrap();
        assert_eq!(store.refresh_session(&SessionId::new("s"), by, None).await.unwrap(), Refreshed::Refused);
        assert!(!store.is_current(by).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn a_session_is_continued() {
    on_each_store(async |store| {
        let alice = registered(store, "alice").await;
        let id = SessionId::new("s");
        store.open_session(session("s"), alice.id, alice.generation).await.unwrap();
        // Requests overtake each other, and clocks are set back: nothing goes backwards.
        for (minutes, expires, used) in [(1, AT + HOUR * 2, 1), (3, AT, 3), (2, AT, 3)] {
            let after = |minutes: u64| AT + Duration::from_secs(60 * minutes);
            let by = Use { at: after(minutes), expires, ..by(alice.id, alice.generation) };
            assert_eq!(store.refresh_session(&id, by, None).await.unwrap(), Refreshed::Granted(None));
            let row = store.find_session(&id).await.unwrap().unwrap();
            assert_eq!((row.created, row.last_used, row.expires), (AT, after(used), AT + HOUR * 2));
        }
    })
    .await;
}

#[tokio::test]
async fn a_session_ends_with_what_it_stands_on() {
    on_each_store(async |store| {
        let alice = registered(store, "alice").await;
        let bob = registered(store, "bob").await;
        let (id, expires) = (SessionId::new("s"), AT + HOUR);
        store.open_session(session("s"), alice.id, alice.generation).await.unwrap();
        let goes_on = async |id: &SessionId, account, generation| {
            let by = Use { expires, ..by(account, generation) };
            store.refresh_session(id, by, None).await.unwrap() == Refreshed::Granted(None)
        };
        assert!(goes_on(&id, alice.id, alice.generation).await);
        assert!(!goes_on(&SessionId::new("none"), alice.id, alice.generation).await);
        assert!(!goes_on(&id, bob.id, bob.generation).await);
        assert!(!goes_on(&id, alice.id, Generation(1)).await);
        let end = Revocation { key: Key::session(None, "s"), kind: Kind::Session, ..token("") };
        store.revoke(vec![end]).await.unwrap();
        assert!(!goes_on(&id, alice.id, alice.generation).await);
        store.open_session(session("t"), alice.id, alice.generation).await.unwrap();
        assert!(goes_on(&SessionId::new("t"), alice.id, alice.generation).await);
        store.set_disabled(&name("alice"), true, AT, expires).await.unwrap();
        assert!(!goes_on(&SessionId::new("t"), alice.id, Generation(1)).await);
    })
    .await;
}

fn warrant(jti: &str, sid: &str, generation: u32) -> Warrant {
    Warrant {
        username: name("alice"),
        generation: Generation(generation),
        token: Key::token(None, jti),
        session: Some(Key::session(None, sid)),
    }
}

async fn listed(store: &Store, by: Warrant) -> Option<Vec<String>> {
    let rows = store.list_sessions(by, AT + SECOND, page(None, 10)).await.unwrap()?;
    Some(rows.iter().map(|row| row.id.as_str().to_owned()).collect())
}

fn page(after: Option<Cursor>, limit: u32) -> SessionPage {
    SessionPage { after, limit }
}

fn some(ids: &[&str]) -> Option<Vec<String>> {
    Some(ids.iter().map(|&id| id.to_owned()).collect())
}

#[tokio::test]
async fn live_sessions_are_listed() {
    on_each_store(async |store| {
        let alice = registered(store, "alice").await;
        let bob = registered(store, "bob").await;
        for (id, account, after) in [("a", &alice, 3), ("b", &alice, 9), ("c", &alice, 1), ("d", &bob, 5)] {
            let opened = NewSession { at: AT + SECOND * after, ..session(id) };
            store.open_session(opened, account.id, account.generation).await.unwrap();
        }
        let over = NewSession { expires: AT, ..session("over") };
        store.open_session(over, alice.id, alice.generation).await.unwrap();
        assert_eq!(listed(store, warrant("t", "a", 0)).await, some(&["b", "a", "c"]));
        assert_eq!(
            listed(store, warrant("t", "none", 0)).await,
            some(&["b", "a", "c"]),
            "a token of no session of ours"
        );
        let two = store.list_sessions(warrant("t", "a", 0), AT, page(None, 2)).await.unwrap().unwrap();
        assert_eq!(two.len(), 2);
        store
            .revoke(vec![Revocation { key: Key::session(None, "b"), kind: Kind::Session, ..token("") }])
            .await
            .unwrap();
        assert_eq!(listed(store, warrant("t", "a", 0)).await, some(&["a", "c"]));
        store.revoke(vec![token("t")]).await.unwrap();
        for dead in [warrant("t", "a", 0), warrant("u", "b", 0), warrant("u", "a", 1)] {
            assert_eq!(listed(store, dead.clone()).await, None);
            assert_eq!(store.end_own_session(dead, &SessionId::new("c"), AT).await.unwrap(), Ended::Refused);
        }
        store.raise_generation(&name("alice"), AT, AT + HOUR).await.unwrap();
        assert_eq!(listed(store, warrant("u", "a", 0)).await, None);
        assert_eq!(listed(store, warrant("u", "e", 1)).await, some(&[]));
        store.open_session(session("e"), alice.id, Generation(1)).await.unwrap();
        assert_eq!(listed(store, warrant("u", "e", 1)).await, some(&["e"]));
    })
    .await;
}

#[tokio::test]
async fn ones_own_sessions_can_be_ended() {
    on_each_store(async |store| {
        let (alice, bob) = (registered(store, "alice").await, registered(store, "bob").await);
        for (id, account) in [("a", &alice), ("b", &alice), ("c", &bob)] {
            store.open_session(session(id), account.id, account.generation).await.unwrap();
        }
        let end = async |id: &str| store.end_own_session(warrant("t", "a", 0), &SessionId::new(id), AT).await.unwrap();
        assert_eq!((end("c").await, end("none").await), (Ended::Unknown, Ended::Unknown));
        let Ended::Done(revocation) = end("b").await else { panic!("it did not end") };
        assert_eq!((revocation.key, revocation.keep_until), (Key::session(None, "b"), AT + HOUR + RETENTION));
        assert_eq!(end("b").await, Ended::Unknown);
        assert!(matches!(end("a").await, Ended::Done(_)));
        assert_eq!(end("a").await, Ended::Refused, "it was his own");
        assert_eq!(store.revocations_after(0, 10).await.unwrap().len(), 2);
    })
    .await;
}

#[tokio::test]
async fn a_session_that_ends_is_remembered_for_as_long_as_its_last_token() {
    on_each_store(async |store| {
        let alice = registered(store, "alice").await;
        let id = SessionId::new("s");
        store.open_session(session("s"), alice.id, alice.generation).await.unwrap();
        let by = Use { expires: AT + HOUR * 7, ..by(alice.id, alice.generation) };
        store.refresh_session(&id, by, None).await.unwrap();
        let revocation = store.end_session(&id, AT, AT + HOUR * 99).await.unwrap();
        assert_eq!(revocation.keep_until, AT + HOUR * 7 + RETENTION);
        let rows = store.revocations_after(0, 10).await.unwrap();
        store.end_session(&id, AT + HOUR, AT + HOUR * 2).await.unwrap();
        assert_eq!(store.revocations_after(0, 10).await.unwrap(), rows, "what stands already lasts longer");
        store.end_session(&id, AT + HOUR, AT + HOUR * 99).await.unwrap();
        let kept = store.revocations_after(0, 10).await.unwrap();
        assert_eq!(kept.len(), 1);
        assert_eq!(kept[0].1.keep_until, AT + HOUR * 99, "a later logout may keep it for longer");
        let foreign = store.end_session(&SessionId::new("t"), AT, AT + HOUR * 2).await.unwrap();
        assert_eq!(foreign.keep_until, AT + HOUR * 2);
    })
    .await;
}

#[tokio::test]
async fn all_tokens_end_for_the_holder_of_a_live_one() {
    on_each_store(async |store| {
        registered(store, "alice").await;
        let end = async |by| store.raise_own_generation(by, AT, AT + HOUR).await.unwrap().map(|end| end.generation);
        assert_eq!(end(warrant("t", "s", 1)).await, None);
        assert_eq!(end(warrant("t", "s", 0)).await, Some(Generation(1)));
        assert_eq!(end(warrant("t", "s", 0)).await, None, "it is dead itself");
        assert_eq!(end(warrant("t", "s", 1)).await, Some(Generation(2)));
        store.revoke(vec![token("t")]).await.unwrap();
        assert_eq!(end(warrant("t", "s", 2)).await, None);
        store.set_disabled(&name("alice"), true, AT, AT + HOUR).await.unwrap();
        assert_eq!(end(warrant("u", "s", 3)).await, None);
        assert_eq!(end(Warrant { username: name("nobody"), ..warrant("u", "s", 0) }).await, None);
    })
    .await;
}

#[tokio::test]
async fn a_password_is_changed_with_all_that_hangs_on_it() {
    on_each_store(async |store| {
        let alice = registered(store, "alice").await;
        store.open_session(session("old"), alice.id, alice.generation).await.unwrap();
        let change = async |by, generation, id: &str| {
            let hash = Secret::new(format!("hash of {id}"));
            let new = NewPassword { account: alice.id, generation: Generation(generation), hash, session: session(id) };
            store.set_own_hash(by, new, AT + HOUR).await.unwrap()
        };
        assert_eq!(change(warrant("t", "old", 0), 1, "x").await, None, "the account has changed");
        assert_eq!(change(warrant("t", "old", 1), 0, "x").await, None, "the token is dead");
        let ended = change(warrant("t", "old", 0), 0, "new").await.unwrap();
        assert_eq!((ended.key, ended.generation), (Key::subject(None, "alice"), Generation(1)));
        let account = store.find_account(&name("alice")).await.unwrap().unwrap();
        assert_eq!((account.hash.expose(), account.generation), (&b"hash of new"[..], Generation(1)));
        assert_eq!(listed(store, warrant("u", "new", 1)).await, some(&["new"]));
        assert_eq!(change(warrant("t", "old", 0), 1, "x").await, None);
        assert_eq!(store.find_session(&SessionId::new("x")).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn pages_have_every_session_once() {
    on_each_store(async |store| {
        let alice = registered(store, "alice").await;
        for number in 0..250_u32 {
            // Several of one moment, whose order is that of their ids.
            let opened = NewSession { at: AT + SECOND * (number / 7), ..session(&format!("s{number:03}")) };
            store.open_session(opened, alice.id, alice.generation).await.unwrap();
        }
        let is_revoked = |number: u32| number.is_multiple_of(3) || (100..140).contains(&number);
        for number in (0..250).filter(|number| is_revoked(*number)) {
            let key = Key::session(None, &format!("s{number:03}"));
            store.revoke(vec![Revocation { key, kind: Kind::Session, ..token("") }]).await.unwrap();
        }
        let (mut seen, mut after, mut pages) = (Vec::new(), None, 0);
        loop {
            let rows = store.list_sessions(warrant("t", "none", 0), AT, page(after, 30)).await.unwrap().unwrap();
            seen.extend(rows.iter().map(|row| row.id.as_str().to_owned()));
            pages += 1;
            let (Some(last), 30) = (rows.last(), rows.len()) else { break };
            after = Some(Cursor { last_used: last.last_used, id: last.id.clone() });
            // One that was listed is used, and becomes the first. It is not listed again.
            let by = Use { at: AT + HOUR / 2 + SECOND * pages, ..by(alice.id, alice.generation) };
            let used = SessionId::new(seen[0].as_str());
            assert_eq!(store.refresh_session(&used, by, None).await.unwrap(), Refreshed::Granted(None));
        }
        let expected: Vec<String> =
            (0..250).rev().filter(|number| !is_revoked(*number)).map(|number| format!("s{number:03}")).collect();
        assert_eq!(seen, expected);
        assert_eq!(usize::try_from(pages).unwrap(), expected.len().div_ceil(30));
        let first = store.list_sessions(warrant("t", "none", 0), AT, page(None, 1)).await.unwrap().unwrap();
        assert_eq!(first[0].id.as_str(), "s248", "the last used");
        let beyond = Cursor { last_used: UnixTime::from_millis(-1), id: SessionId::new("x") };
        assert!(
            store.list_sessions(warrant("t", "a", 0), AT, page(Some(beyond), 9)).await.unwrap().unwrap().is_empty()
        );
    })
    .await;
}

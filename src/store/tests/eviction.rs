//! The sessions that end when an account opens more than it may have.

use super::*;
use crate::model::TokenId;

/// Opens sessions of alice.
struct Logins<'a> {
    store: &'a Store,
    account: Account,
    limit: u32,
}

impl<'a> Logins<'a> {
    async fn begin(store: &'a Store, limit: u32) -> Self {
        Self { store, account: registered(store, "alice").await, limit }
    }

    /// Opens a session so many seconds after [`AT`]; the ids of those that ended.
    async fn open(&self, id: &str, address: &str, seconds: u32) -> Vec<String> {
        let at = AT + SECOND * seconds;
        let address = (!address.is_empty()).then(|| address.to_owned());
        let (expires, access_expires) = (at + HOUR * 9, at + SECOND * 900);
        let new = NewSession { at, expires, access_expires, address, limit: self.limit, ..session(id) };
        let evicted = self.store.open_session(new, self.account.id, self.account.generation).await.unwrap().unwrap();
        evicted.iter().map(|id| id.as_str().to_owned()).collect()
    }

    async fn is_open(&self, id: &str) -> bool {
        self.store.find_session(&SessionId::new(id)).await.unwrap().is_some()
    }

    async fn revocation(&self, id: &str) -> Revocation {
        let found = self.store.find_revocations(vec![Key::session(None, id)]).await.unwrap();
        let [revocation] = found.as_slice() else { panic!("{found:?}") };
        revocation.clone()
    }

    /// Refreshes with the first refresh token, which is turned in for `next`.
    async fn refresh(&self, id: &str, next: Option<&str>, at: UnixTime, access_expires: UnixTime) -> Refreshed {
        let by = Use { at, expires: at + HOUR * 9, access_expires, ..by(self.account.id, self.account.generation) };
        let rotation = next.map(|next| Rotation { successor: TokenId::new(next), expires: by.expires, grace: HOUR });
        self.store.refresh_session(&SessionId::new(id), by, rotation).await.unwrap()
    }
}

#[tokio::test]
async fn the_least_recently_used_session_of_the_largest_prefix_ends() {
    on_each_store(async |store| {
        let logins = Logins::begin(store, 4).await;
        for (id, address, seconds, evicted) in [
            ("home", "192.0.2.1", 1, ""),
            ("old", "2001:db8::1", 2, ""),
            ("new", "2001:db8::2", 3, ""),
            ("phone", "198.51.100.1", 4, ""),
            // The two of the /64 are the most; the least recently used of all is in another place.
            ("office", "203.0.113.1", 5, "old"),
            // All prefixes have one.
            ("train", "", 6, "home"),
            // Those without an address are one group; the session just opened counts, and stays.
            ("bus", "", 7, "train"),
            ("café", "not an address", 8, "bus"),
        ] {
            let expected: Vec<&str> = evicted.split_whitespace().collect();
            assert_eq!(logins.open(id, address, seconds).await, expected, "{id}");
            assert!(logins.is_open(id).await);
        }
        for (id, open) in [("home", false), ("old", false), ("new", true), ("phone", true), ("office", true)] {
            assert_eq!(logins.is_open(id).await, open, "{id}");
        }
        // A refresh is a use.
        assert_eq!(logins.refresh("new", None, AT + HOUR, AT + HOUR).await, Refreshed::Granted(None));
        assert_eq!(logins.open("next", "2001:db8::3", 9).await, ["new"], "it has the largest prefix");
        assert_eq!(logins.open("last", "192.0.2.9", 10).await, ["phone"]);
    })
    .await;
}

#[tokio::test]
async fn one_session_at_a_time() {
    on_each_store(async |store| {
        let logins = Logins::begin(store, 1).await;
        assert!(logins.open("a", "192.0.2.1", 5).await.is_empty());
        assert_eq!(logins.open("b", "192.0.2.2", 6).await, ["a"]);
        assert_eq!(logins.open("c", "192.0.2.2", 0).await, ["b"], "the clock was set back");
        assert_eq!(logins.open("d", "192.0.2.3", 1).await, ["c"]);
    })
    .await;
}

#[tokio::test]
async fn only_live_sessions_of_the_account_count() {
    on_each_store(async |store| {
        let logins = Logins::begin(store, 2).await;
        let bob = registered(store, "bob").await;
        for id in ["x", "y", "z"] {
            assert_eq!(store.open_session(session(id), bob.id, bob.generation).await.unwrap(), Some(vec![]));
            let over = NewSession { expires: AT, ..session(&format!("over-{id}")) };
            store.open_session(over, logins.account.id, logins.account.generation).await.unwrap();
        }
        assert!(logins.open("a", "192.0.2.1", 1).await.is_empty());
        assert!(logins.open("b", "192.0.2.1", 2).await.is_empty());
        store.raise_generation(&name("alice"), AT, AT + HOUR).await.unwrap();
        let account = Account { generation: Generation(1), ..logins.account };
        let logins = Logins { account, ..logins };
        for (id, seconds, count) in [("c", 3, 0), ("d", 4, 0), ("e", 5, 1)] {
            assert_eq!(logins.open(id, "192.0.2.1", seconds).await.len(), count, "{id}");
        }
        let refused = NewSession { limit: 1, ..session("f") };
        assert_eq!(store.open_session(refused, logins.account.id, Generation(0)).await.unwrap(), None);
        assert!(logins.is_open("d").await && logins.is_open("e").await, "a refused login ends nothing");
    })
    .await;
}

#[tokio::test]
async fn a_lowered_limit_ends_a_hundred_at_a_time() {
    on_each_store(async |store| {
        let logins = Logins::begin(store, 1000).await;
        for number in 0..250_u32 {
            // 50 in one prefix, the others in pairs.
            let address = if number < 50 { "192.0.2.1".into() } else { format!("10.0.{}.1", number / 2) };
            assert!(logins.open(&number.to_string(), &address, number).await.is_empty());
        }
        let logins = Logins { limit: 20, ..logins };
        let evicted = logins.open("first", "192.0.2.9", 300).await;
        assert_eq!(evicted.len(), 100);
        // The large prefix shrinks to the size of the others, then the least recently used one of each pair ends.
        let expected = (0..49).chain((50..).step_by(2)).take(100);
        assert_eq!(evicted, expected.map(|number: u32| number.to_string()).collect::<Vec<_>>());
        assert_eq!(logins.open("second", "192.0.2.9", 301).await.len(), 100);
        assert_eq!(logins.open("third", "192.0.2.9", 302).await.len(), 33);
        assert_eq!(store.stats(AT + HOUR).await.unwrap().sessions, 20);
        assert_eq!(logins.open("fourth", "192.0.2.9", 303).await.len(), 1);
        assert_eq!(store.stats(AT + HOUR).await.unwrap().revocations, 234);
        for id in ["first", "second", "third", "fourth"] {
            assert_eq!(logins.is_open(id).await, id == "fourth", "{id}: no other prefix has two");
        }
    })
    .await;
}

#[tokio::test]
async fn an_evicted_session_is_revoked_until_its_last_access_token_expires() {
    on_each_store(async |store| {
        let heard = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        store.listen({
            let heard = std::sync::Arc::clone(&heard);
            move |revocations| heard.lock().unwrap().extend_from_slice(revocations)
        });
        let logins = Logins::begin(store, 1).await;
        let granted = |refreshed: Refreshed| assert!(matches!(refreshed, Refreshed::Granted(_)), "{refreshed:?}");
        let at = |seconds: u32| AT + SECOND * seconds;
        logins.open("login", "192.0.2.1", 0).await;
        logins.open("plain", "192.0.2.1", 1).await;
        let revocation = logins.revocation("login").await;
        assert_eq!((revocation.kind, revocation.keep_until), (Kind::Session, at(900) + RETENTION));
        assert_eq!(*heard.lock().unwrap(), [revocation], "memory has it before the answer");
        assert_eq!(logins.refresh("login", None, at(2), at(902)).await, Refreshed::Refused);

        granted(logins.refresh("plain", None, at(2), at(5000)).await);
        granted(logins.refresh("plain", None, at(3), at(903)).await);
        logins.open("rotated", "192.0.2.1", 3).await;
        assert_eq!(logins.revocation("plain").await.keep_until, at(5000) + RETENTION, "it never goes down");

        granted(logins.refresh("rotated", Some("1"), at(4), at(6000)).await);
        logins.open("raced", "192.0.2.1", 5).await;
        assert_eq!(logins.revocation("rotated").await.keep_until, at(6000) + RETENTION);

        granted(logins.refresh("raced", Some("1"), at(6), at(906)).await);
        granted(logins.refresh("raced", Some("x"), at(7), at(7000)).await);
        logins.open("late", "192.0.2.1", 8).await;
        assert_eq!(
            logins.revocation("raced").await.keep_until,
            at(7000) + RETENTION,
            "a racer has an access token too"
        );

        granted(logins.refresh("late", Some("1"), at(9), at(909)).await);
        let refreshed = logins.refresh("late", Some("x"), at(9) + HOUR * 2, at(9000)).await;
        granted(refreshed);
        logins.open("unused", "192.0.2.1", 20_000).await;
        assert_eq!(logins.revocation("late").await.keep_until, at(20_000) + RETENTION, "it may have seemed to expire");
    })
    .await;
}

//! Refresh tokens that rotate: successors, racers, reuse, and how often.

use super::*;
use crate::model::TokenId;

const GRACE: Duration = Duration::from_secs(10);

/// A session `s` of alice, whose first refresh token is `0`.
struct Family<'a> {
    store: &'a Store,
    account: Account,
}

impl<'a> Family<'a> {
    async fn begin(store: &'a Store) -> Self {
        let account = registered(store, "alice").await;
        assert!(store.open_session(session("s"), account.id, account.generation).await.unwrap().is_some());
        Self { store, account }
    }

    /// Turns the token `old` in for `new`, so many seconds after the login.
    async fn turn_in(&self, old: &str, new: &str, seconds: u64) -> Refreshed {
        let at = AT + SECOND * u32::try_from(seconds).unwrap();
        let expires = at + HOUR;
        let by = Use { token: Key::token(None, old), at, expires, ..by(self.account.id, self.account.generation) };
        let rotation = Rotation { successor: TokenId::new(new), expires, grace: GRACE };
        self.store.refresh_session(&SessionId::new("s"), by, Some(rotation)).await.unwrap()
    }

    async fn is_over(&self) -> bool {
        self.store.find_session(&SessionId::new("s")).await.unwrap().is_none()
    }
}

/// The refresh token `jti`, as it was issued so many seconds after the login.
fn got(jti: &str, seconds: u64) -> Refreshed {
    let issued = AT + Duration::from_secs(seconds);
    Refreshed::Granted(Some(Successor { token: TokenId::new(jti), issued, expires: issued + HOUR }))
}

#[tokio::test]
async fn a_chain_of_refresh_tokens() {
    on_each_store(async |store| {
        let family = Family::begin(store).await;
        for step in 0..20_u64 {
            let (old, new) = (step.to_string(), (step + 1).to_string());
            assert_eq!(family.turn_in(&old, &new, step * 60).await, got(&new, step * 60));
        }
        let row = store.find_session(&SessionId::new("s")).await.unwrap().unwrap();
        assert_eq!((row.last_used, row.expires), (AT + SECOND * 1140, AT + SECOND * 1140 + HOUR));
    })
    .await;
}

#[tokio::test]
async fn racers_get_the_same_successor() {
    on_each_store(async |store| {
        let family = Family::begin(store).await;
        assert_eq!(family.turn_in("0", "1", 5).await, got("1", 5));
        // Earlier clocks lose too.
        for (name, seconds) in [("a", 4), ("b", 5), ("c", 14)] {
            assert_eq!(family.turn_in("0", name, seconds).await, got("1", 5), "{name}");
        }
        assert_eq!(family.turn_in("a", "x", 6).await, Refreshed::Reused(end(6, AT + SECOND * 14 + HOUR)));
    })
    .await;
}

/// The end of the session `s`, so many seconds after its login; its last token expires then.
fn end(seconds: u64, expires: UnixTime) -> Revocation {
    Revocation {
        key: Key::session(None, "s"),
        kind: Kind::Session,
        generation: Generation(0),
        at: AT + Duration::from_secs(seconds),
        keep_until: expires + RETENTION,
    }
}

#[tokio::test]
async fn the_parent_is_good_while_its_child_is_unused() {
    on_each_store(async |store| {
        let family = Family::begin(store).await;
        assert_eq!(family.turn_in("0", "1", 0).await, got("1", 0));
        assert_eq!(family.turn_in("0", "x", 3000).await, got("1", 0), "the answer may have been lost");
        assert_eq!(family.turn_in("1", "2", 3001).await, got("2", 3001));
        assert_eq!(family.turn_in("1", "x", 3500).await, got("2", 3001));
        let over = AT + SECOND * 3500 + HOUR;
        assert_eq!(family.turn_in("0", "x", 3500).await, Refreshed::Reused(end(3500, over)), "a grandparent is not");
        assert!(family.is_over().await);
        assert_eq!(family.turn_in("2", "3", 3501).await, Refreshed::Refused, "nor is anybody from then on");
        assert_eq!(store.revocations_after(0, 10).await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_racer_within_the_grace_wins_whatever_became_of_the_child() {
    on_each_store(async |store| {
        let family = Family::begin(store).await;
        assert_eq!(family.turn_in("0", "1", 100).await, got("1", 100));
        assert_eq!(family.turn_in("1", "2", 101).await, got("2", 101));
        assert_eq!(family.turn_in("2", "3", 102).await, got("3", 102));
        assert_eq!(family.turn_in("0", "x", 109).await, got("1", 100), "and from there to the newest");
        assert_eq!(family.turn_in("1", "x", 109).await, got("2", 101));
        assert_eq!(family.turn_in("2", "x", 200).await, got("3", 102), "the parent");
        let over = AT + SECOND * 200 + HOUR;
        assert_eq!(family.turn_in("1", "x", 111).await, Refreshed::Reused(end(111, over)), "the grace is over");
    })
    .await;
}

#[tokio::test]
async fn what_was_turned_in_long_ago_is_forgotten_but_not_forgiven() {
    on_each_store(async |store| {
        let family = Family::begin(store).await;
        for step in 0..25_u64 {
            family.turn_in(&step.to_string(), &(step + 1).to_string(), step * 5).await;
        }
        assert!(matches!(family.turn_in("3", "x", 125).await, Refreshed::Reused(_)));
    })
    .await;
}

#[tokio::test]
async fn a_clock_that_was_set_back_is_no_longer_grace() {
    on_each_store(async |store| {
        let family = Family::begin(store).await;
        assert_eq!(family.turn_in("0", "1", 1000).await, got("1", 1000));
        assert_eq!(family.turn_in("1", "2", 1001).await, got("2", 1001));
        assert!(matches!(family.turn_in("0", "x", 500).await, Refreshed::Reused(_)));
    })
    .await;
}

#[tokio::test]
async fn a_logout_of_the_successor_is_one_of_those_before_it() {
    on_each_store(async |store| {
        let family = Family::begin(store).await;
        assert_eq!(family.turn_in("0", "1", 0).await, got("1", 0));
        store.revoke(vec![token("1")]).await.unwrap();
        assert_eq!(family.turn_in("0", "x", 1).await, Refreshed::Refused);
        assert_eq!(family.turn_in("1", "x", 1).await, Refreshed::Refused);
        assert!(!family.is_over().await, "a logout is no theft");
    })
    .await;
}

#[tokio::test]
async fn rotation_may_be_turned_on_and_off() {
    on_each_store(async |store| {
        let family = Family::begin(store).await;
        let plain = async |jti: &str, seconds: u32| {
            let by = by(family.account.id, family.account.generation);
            let by = Use { token: Key::token(None, jti), at: AT + SECOND * seconds, ..by };
            store.refresh_session(&SessionId::new("s"), by, None).await.unwrap()
        };
        assert_eq!(plain("0", 1).await, Refreshed::Granted(None));
        assert_eq!(family.turn_in("0", "1", 100).await, got("1", 100), "it began without");
        assert_eq!(plain("1", 200).await, Refreshed::Granted(None));
        assert_eq!(family.turn_in("1", "2", 300).await, got("2", 300));
    })
    .await;
}

#[tokio::test]
async fn rotation_stands_on_what_the_session_stands_on() {
    on_each_store(async |store| {
        let family = Family::begin(store).await;
        assert_eq!(family.turn_in("0", "1", 0).await, got("1", 0));
        store.raise_generation(&name("alice"), AT, AT + HOUR).await.unwrap();
        for old in ["0", "1", "unknown"] {
            assert_eq!(family.turn_in(old, "x", 1000).await, Refreshed::Refused, "{old}");
        }
        assert!(!family.is_over().await && store.revocations_after(0, 10).await.unwrap().len() == 1);
    })
    .await;
}

#[tokio::test]
async fn thirty_refreshes_a_minute() {
    on_each_store(async |store| {
        let family = Family::begin(store).await;
        let refresh = async |at: UnixTime| {
            let by = Use { at, ..by(family.account.id, family.account.generation) };
            store.refresh_session(&SessionId::new("s"), by, None).await.unwrap()
        };
        let begin = AT + SECOND;
        for second in 0..30 {
            assert_eq!(refresh(begin + SECOND * second).await, Refreshed::Granted(None));
        }
        let until = begin + SECOND * 60;
        for second in [0, 30, 59] {
            assert_eq!(refresh(begin + SECOND * second).await, Refreshed::TooOften { until }, "{second}");
        }
        assert_eq!(refresh(until).await, Refreshed::Granted(None));
        assert_eq!(refresh(AT - HOUR).await, Refreshed::Granted(None), "a clock that was set back");
    })
    .await;
}

#[tokio::test]
async fn racers_count_as_one_and_an_old_parent_each_time() {
    on_each_store(async |store| {
        let family = Family::begin(store).await;
        for _ in 0..65 {
            assert_eq!(family.turn_in("0", "1", 0).await, got("1", 0));
        }
        // One more than any browser has, and those after the grace.
        for seconds in std::iter::once(9).chain([20; 28]) {
            assert_eq!(family.turn_in("0", "x", seconds).await, got("1", 0));
        }
        let too_often = Refreshed::TooOften { until: AT + SECOND * 60 };
        for seconds in [9, 20] {
            assert_eq!(family.turn_in("0", "x", seconds).await, too_often);
            assert_eq!(family.turn_in("1", "2", seconds).await, too_often);
        }
        assert_eq!(family.turn_in("1", "2", 60).await, got("2", 60), "nothing is lost by waiting");
    })
    .await;
}

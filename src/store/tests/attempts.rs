//! Attempts: nobody slips in between, what is taken back is gone, what is forgotten is purged.

use super::*;
use crate::model::Household;

/// One more, up to three.
fn up_to_three(seen: Tallies) -> Result<Tallies, Tallies> {
    let more = |seen: Option<Tally>| {
        let failures = seen.map_or(0, |seen| seen.failures) + 1;
        let until = AT + Duration::from_secs(failures.into());
        (failures <= 3).then_some(Tally { failures, until, forget: AT + HOUR })
    };
    match (more(seen.account), more(seen.address)) {
        (Some(account), Some(address)) => Ok(Tallies { account: Some(account), address: Some(address), ..seen }),
        _ => Err(seen),
    }
}

fn at(address: &str) -> Household {
    Household::of(address.parse().unwrap())
}

fn attempt<'a>(name: &'a str, address: &str) -> Attempt<'a> {
    Attempt { name: Some(name), address: at(address), at: AT }
}

async fn count(store: &Store, attempt: Attempt<'_>) -> Option<Receipt> {
    store.count_attempt(attempt, up_to_three).await.unwrap().ok()
}

/// The failures of the account and of the address.
async fn failures(store: &Store, attempt: Attempt<'_>) -> (u32, u32) {
    let seen = store.find_tallies(attempt).await.unwrap();
    (seen.account.map_or(0, |tally| tally.failures), seen.address.map_or(0, |tally| tally.failures))
}

#[tokio::test]
async fn names_and_addresses_are_counted_apart() {
    on_each_store(async |store| {
        let long = "x".repeat(10_000);
        for (name, address, expected) in [
            ("alice", "192.0.2.1", (1, 1)),
            ("alice", "192.0.2.2", (2, 1)),
            ("bob", "192.0.2.1", (1, 2)),
            ("Alice", "192.0.2.3", (1, 1)),
            ("", "192.0.2.4", (1, 1)),
            (&long, "2001:db8::1", (1, 1)),
            (&long, "2001:db8::2", (2, 2)),
        ] {
            assert!(count(store, attempt(name, address)).await.is_some());
            assert_eq!(failures(store, attempt(name, address)).await, expected, "{address}");
        }
        let registration = Attempt { name: None, ..attempt("", "192.0.2.1") };
        assert_eq!(failures(store, registration).await, (0, 2));
    })
    .await;
}

#[tokio::test]
async fn of_many_at_once_none_slips_through() {
    on_each_store(async |store| {
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..200 {
            let store = store.clone();
            tasks.spawn(async move { count(&store, attempt("alice", &format!("192.0.2.{n}"))).await.is_some() });
        }
        let admitted = tasks.join_all().await.into_iter().filter(|admitted| *admitted).count();
        assert_eq!(admitted, 3);
        // Who was refused was not counted against his address either.
        let mut counted = 0;
        for n in 0..200 {
            counted += failures(store, attempt("alice", &format!("192.0.2.{n}"))).await.1;
        }
        assert_eq!(counted, 3);
    })
    .await;
}

#[tokio::test]
async fn what_is_taken_back_leaves_nothing() {
    on_each_store(async |store| {
        let who = attempt("alice", "192.0.2.1");
        let first = count(store, who).await.unwrap();
        let before = store.find_tallies(who).await.unwrap();
        let second = count(store, who).await.unwrap();
        store.take_back_attempt(second, AT);
        store.revoke(vec![]).await.unwrap();
        assert_eq!(store.find_tallies(who).await.unwrap(), before, "the times came back too");
        // Another one was counted meanwhile: its wait stands.
        count(store, who).await.unwrap();
        store.take_back_attempt(first, AT);
        store.revoke(vec![]).await.unwrap();
        let left = store.find_tallies(who).await.unwrap().account.unwrap();
        assert_eq!((left.failures, left.until), (1, AT + Duration::from_secs(2)));
    })
    .await;
}

#[tokio::test]
async fn a_known_address_has_a_counter_of_its_own() {
    on_each_store(async |store| {
        let (alice, bob) = (registered(store, "alice").await, registered(store, "bob").await);
        let home = attempt("alice", "192.0.2.1");
        let receipt = count(store, home).await;
        store.remember_address(alice.id, home.address, (AT, AT + HOUR), receipt);
        store.revoke(vec![]).await.unwrap();
        assert_eq!(failures(store, home).await, (0, 0));
        for n in 0..3 {
            assert!(count(store, attempt("alice", &format!("198.51.100.{n}"))).await.is_some());
        }
        assert!(count(store, attempt("alice", "198.51.100.9")).await.is_none());
        assert!(count(store, home).await.is_some(), "the others delay no known address");
        assert_eq!(failures(store, attempt("alice", "198.51.100.9")).await, (3, 0), "nor does it them");
        assert_eq!(failures(store, attempt("bob", "192.0.2.1")).await, (0, 0), "nor the address to others");
        let later = Attempt { at: AT + HOUR, ..home };
        assert_eq!(failures(store, later).await, (3, 0), "and not without end");
        // Of many, those that were used last are kept.
        for n in 0..40 {
            let expires = AT + HOUR + Duration::from_secs(n);
            store.remember_address(bob.id, at(&format!("192.0.2.{n}")), (AT, expires), None);
        }
        for n in 0..3 {
            count(store, attempt("bob", &format!("198.51.100.{}", 100 + n))).await.unwrap();
        }
        for (address, expected) in [("192.0.2.39", 0), ("192.0.2.20", 0), ("192.0.2.19", 3)] {
            assert_eq!(failures(store, attempt("bob", address)).await.0, expected, "{address}");
        }
        store.delete_account(&name("bob"), AT, AT + HOUR).await.unwrap();
        registered(store, "bob").await;
        assert_eq!(failures(store, attempt("bob", "192.0.2.39")).await.0, 3, "a namesake knows nobody");
        // An account that is gone meanwhile.
        store.remember_address(bob.id, at("192.0.2.1"), (AT, AT + HOUR), None);
        store.revoke(vec![]).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn an_account_or_an_address_is_unlocked() {
    on_each_store(async |store| {
        let alice = registered(store, "alice").await;
        store.remember_address(alice.id, at("192.0.2.1"), (AT, AT + HOUR), None);
        let who = [attempt("alice", "192.0.2.1"), attempt("alice", "192.0.2.2"), attempt("bob", "192.0.2.2")];
        for attempt in who {
            count(store, attempt).await.unwrap();
        }
        assert_eq!(store.unlock_account("alice").await.unwrap(), 2);
        assert_eq!(store.unlock_account("alice").await.unwrap(), 0);
        let mut left = Vec::new();
        for attempt in who {
            left.push(failures(store, attempt).await);
        }
        assert_eq!(left, [(0, 0), (0, 2), (1, 2)]);
        assert_eq!(store.unlock_address(at("192.0.2.2")).await.unwrap(), 1);
        assert_eq!(failures(store, who[2]).await, (1, 0));
    })
    .await;
}

#[tokio::test]
async fn what_is_forgotten_is_purged_in_batches() {
    on_each_store(async |store| {
        let alice = registered(store, "alice").await;
        for n in 0..5 {
            count(store, attempt(&format!("user {n}"), &format!("192.0.2.{n}"))).await.unwrap();
            store.remember_address(alice.id, at(&format!("192.0.2.{n}")), (AT, AT + HOUR), None);
        }
        assert_eq!(store.purge(AT + HOUR - Duration::from_secs(1), 100).await.unwrap(), 0);
        let mut purged = Vec::new();
        while purged.last() != Some(&0) {
            purged.push(store.purge(AT + HOUR, 4).await.unwrap());
        }
        assert_eq!(purged, [4, 4, 4, 3, 0]);
    })
    .await;
}

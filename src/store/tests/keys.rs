//! The signing keys: one signs, a standby follows, a revoked one is wiped.

use super::*;

fn candidate(kid: &str) -> SigningKey {
    SigningKey {
        kid: kid.into(),
        algorithm: "HS256".into(),
        secret: Secret::new(vec![7; 32]),
        created: AT,
        state: KeyState::Signing,
    }
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

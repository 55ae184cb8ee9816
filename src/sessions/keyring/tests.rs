//! Which steps the keys are due, and when.

use super::*;
use crate::clock;
use crate::secret::Secret;
use crate::tokens::KeySet;

const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

fn tokens(algorithm: Algorithm, secret: bool) -> config::Tokens {
    let text = "upstreams: {app: {servers: [\"http://127.0.0.1:1\"]}}\nroutes: [{path: /a, upstream: app}]";
    let config = config::parse(text, "gateway.yaml".as_ref(), &|_| None).unwrap();
    config::Tokens { algorithm, secret: secret.then(|| Secret::new([9; 32])), ..config.tokens }
}

fn key(algorithm: Algorithm, state: KeyState) -> SigningKey {
    SigningKey { kid: algorithm.as_str().into(), ..make(algorithm, state, NOW).unwrap() }
}

#[test]
fn a_published_key_gives_way_only_to_one_that_was_known_for_a_while() {
    use Algorithm::{EdDsa, Es256, Hs256};
    let standby = KeyState::Standby { signs_from: NOW };
    let replace = |kid: Option<&str>| Step::Replace(kid.map(Into::into));
    for (wanted, secret, stored, steps) in [
        (Hs256, false, &[][..], vec![replace(None)]),
        (Hs256, false, &[(Hs256, KeyState::Signing)], vec![]),
        (Hs256, true, &[], vec![]),
        (Hs256, true, &[(EdDsa, KeyState::Signing), (EdDsa, standby)], vec![Step::Retire, Step::DropStandby("")]),
        (EdDsa, true, &[], vec![replace(None)]),
        (EdDsa, true, &[(Hs256, KeyState::Signing)], vec![replace(Some("HS256"))]),
        (EdDsa, false, &[(EdDsa, KeyState::Verifying { until: NOW })], vec![replace(None)]),
        (EdDsa, false, &[(EdDsa, KeyState::Signing), (EdDsa, standby)], vec![]),
        (EdDsa, false, &[(EdDsa, KeyState::Signing), (Es256, standby)], vec![Step::DropStandby("EdDSA")]),
        (Es256, false, &[(EdDsa, KeyState::Signing)], vec![Step::Announce]),
        (Es256, false, &[(EdDsa, KeyState::Signing), (Es256, standby)], vec![]),
        (
            Es256,
            false,
            &[(EdDsa, KeyState::Signing), (EdDsa, standby)],
            vec![Step::DropStandby("ES256"), Step::Announce],
        ),
        (Hs256, false, &[(EdDsa, KeyState::Signing)], vec![replace(Some("EdDSA"))]),
    ] {
        let keys: Vec<SigningKey> = stored.iter().map(|(algorithm, state)| key(*algorithm, *state)).collect();
        assert_eq!(plan(&tokens(wanted, secret), &keys), steps, "{wanted:?} {secret} {stored:?}");
    }
}

async fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&config::Store {
        location: config::StoreLocation::Sqlite(folder.path().join("portcullis.db")),
        max_stale: Duration::from_secs(30),
        on_stale: config::OnStale::Refuse,
        encryption_key: None,
    });
    (folder, store.unwrap())
}

fn algorithm_of(ring: &Ring, tokens: &config::Tokens) -> String {
    let token = token(ring, tokens);
    let header = token.split('.').next().unwrap();
    let header = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, header).unwrap();
    serde_json::from_slice::<serde_json::Value>(&header).unwrap()["alg"].as_str().unwrap().to_owned()
}

fn token(ring: &Ring, tokens: &config::Tokens) -> String {
    let id = crate::model::TokenId::random();
    let new = tokens::New {
        kind: tokens::TokenType::Access,
        subject: "alice",
        token: &id,
        session: None,
        generation: Default::default(),
        roles: &[],
        fresh: false,
        issued: NOW,
        expires: NOW + Duration::from_secs(900),
    };
    ring.sign(&new, tokens).unwrap()
}

#[tokio::test]
async fn the_life_of_keys() {
    let (_folder, store) = store().await;
    let longest = Duration::from_secs(30 * 86_400);
    let minute = Duration::from_secs(60);
    let (first, then) = (tokens(Algorithm::EdDsa, true), tokens(Algorithm::Es256, true));
    let keyring = Keyring::load(store.clone(), &first).await.unwrap();
    let old = token(&Keyring::load(store.clone(), &tokens(Algorithm::Hs256, true)).await.unwrap().trust().ring, &first);
    keyring.settle(&first, longest, NOW).await.unwrap();
    assert_eq!(algorithm_of(&keyring.trust().ring, &first), "EdDSA");
    let by_first = token(&keyring.trust().ring, &first);
    keyring.settle(&then, longest, NOW).await.unwrap();
    assert_eq!(algorithm_of(&keyring.trust().ring, &then), "EdDSA", "the new key is only published");
    assert!(keyring.trust().ring.jwks().contains("ES256") && keyring.trust().ring.jwks().contains("EdDSA"));
    keyring.move_on(NOW + STANDBY - minute, true).await.unwrap();
    assert_eq!(algorithm_of(&keyring.trust().ring, &then), "EdDSA");
    keyring.move_on(NOW + STANDBY, true).await.unwrap();
    assert_eq!(algorithm_of(&keyring.trust().ring, &then), "ES256");
    for live in [&old, &by_first] {
        keyring.verify(live, &then).unwrap();
    }
    let end = NOW + STANDBY + longest + then.leeway;
    keyring.move_on(end, true).await.unwrap();
    keyring.read().await.unwrap();
    keyring.verify(&by_first, &then).unwrap();
    keyring.move_on(end + 2 * minute, true).await.unwrap();
    keyring.read().await.unwrap();
    assert!(keyring.verify(&by_first, &then).is_err() && keyring.verify(&old, &then).is_ok());
    assert!(!keyring.trust().ring.jwks().contains("EdDSA"));
}

#[tokio::test]
async fn a_key_that_is_gone_is_noticed_by_who_knew_it() {
    let (_folder, store) = store().await;
    let tokens = tokens(Algorithm::Rs256, false);
    let keyring = Keyring::load(store.clone(), &tokens).await.unwrap();
    keyring.settle(&tokens, Duration::from_secs(60), NOW).await.unwrap();
    let token = token(&keyring.trust().ring, &tokens);
    let (verified, known) = keyring.verify(&token, &tokens).unwrap();
    assert!(keyring.still_verifies(&token, verified.mark, &known));
    let kid = store.load_keys().await.unwrap().keys.remove(0).kid;
    store.revoke_key(kid, make(Algorithm::Rs256, KeyState::Signing, NOW).unwrap(), NOW).await.unwrap();
    assert!(keyring.still_verifies(&token, verified.mark, &known), "not heard yet");
    keyring.read().await.unwrap();
    assert!(!keyring.still_verifies(&token, verified.mark, &known));
    assert_eq!(keyring.verify(&token, &tokens).unwrap_err(), tokens::Error::Revoked);
}

/// Trusts one issuer, whose keys are at `url`.
fn trusting(url: &str) -> config::Tokens {
    let text = format!(
        "upstreams: {{app: {{servers: [\"http://127.0.0.1:1\"]}}}}\nroutes: [{{path: /a, upstream: app}}]
tokens: {{trusted: [{{issuer: them, jwks_url: \"{url}\", audience: a}}]}}"
    );
    config::parse(&text, "gateway.yaml".as_ref(), &|_| None).unwrap().tokens
}

fn url_of(tokens: &config::Tokens) -> config::KeySetUrl {
    let config::TrustedKeys::Url(url) = &tokens.trusted[0].keys else { panic!("keys at a URL") };
    url.clone()
}

/// What a token of theirs is refused for.
fn refusal(keyring: &Keyring, tokens: &config::Tokens) -> tokens::Error {
    let encode = |text| base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, text);
    let token = format!("{}.{}.AAAA", encode(r#"{"alg":"ES256","kid":"b"}"#), encode(r#"{"iss":"them"}"#));
    keyring.verify(&token, tokens).map(drop).unwrap_err()
}

const KEYS: &[u8] = br#"{"keys": [{"kty": "EC", "crv": "P-256", "kid": "a",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;

#[tokio::test]
async fn keys_from_where_they_were_before_a_reload_are_not_taken() {
    let (_folder, store) = store().await;
    let (first, then) = (trusting("https://h/old"), trusting("https://h/new"));
    let keyring = Keyring::load(store, &first).await.unwrap();
    let learn = async |url: &config::KeySetUrl| {
        keyring.learn("them", url, KeySet::parse("them", KEYS).unwrap(), clock::monotonic()).await
    };
    keyring.settle(&first, Duration::from_secs(60), NOW).await.unwrap();
    assert_eq!(refusal(&keyring, &first), tokens::Error::NoKeys);
    learn(&url_of(&first)).await;
    assert_eq!(refusal(&keyring, &first), tokens::Error::ForeignKey);
    keyring.settle(&first, Duration::from_secs(60), NOW).await.unwrap();
    assert_eq!(refusal(&keyring, &first), tokens::Error::ForeignKey, "what was fetched is kept");
    keyring.settle(&then, Duration::from_secs(60), NOW).await.unwrap();
    learn(&url_of(&first)).await;
    assert_eq!(refusal(&keyring, &then), tokens::Error::NoKeys, "that fetch began before the reload");
    learn(&url_of(&then)).await;
    assert_eq!(refusal(&keyring, &then), tokens::Error::ForeignKey);
}

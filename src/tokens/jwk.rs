//! A JSON Web Key Set of another issuer (RFC 7517): the keys of it that can verify tokens.

use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

use crate::tokens::key::{Mark, check};
use crate::tokens::public_key::PublicKey;
use crate::tokens::{Error, header};

/// Keys that are taken of one set: more would only cost time.
const MOST_KEYS: usize = 64;

/// How long the keys may take together that are tried on one token, in microseconds: as long as 64 keys on P-256 do.
const MOST_WORK: u32 = 64 * 40;

/// Why there is no key set.
#[derive(Debug, thiserror::Error)]
pub enum KeySetError {
    /// No JSON of that form.
    #[error("it is no JSON Web Key Set")]
    Form,
    /// A key set without a key for signatures of a kind that is known here.
    #[error("it holds no key that can verify tokens: RSA, EC P-256 or P-384, or Ed25519, for signatures")]
    Empty,
}

/// What keys that are published may be good for; never HMAC.
const PUBLIC: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// What a shared secret is good for.
const SHARED: [Algorithm; 3] = [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];

/// The usable keys of a set.
#[derive(Debug)]
pub struct KeySet {
    keys: Vec<PublicKey>,
    /// For which there may be keys in such a set.
    possible: &'static [Algorithm],
}

impl KeySet {
    /// Reads the set of `issuer`. What is no public key for signatures is passed over (RFC 7517, 5), so that nothing may be
    /// left.
    ///
    /// # Errors
    /// [`KeySetError::Form`].
    pub fn parse(issuer: &str, text: &[u8]) -> Result<Self, KeySetError> {
        // Some servers and editors put a byte order mark in front, which RFC 8259 8.1 lets a reader ignore.
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let set: Value = serde_json::from_slice(text).map_err(|_| KeySetError::Form)?;
        let keys = set.get("keys").and_then(Value::as_array).ok_or(KeySetError::Form)?;
        let usable: Vec<PublicKey> =
            keys.iter().filter_map(|key| PublicKey::read(issuer, key)).take(MOST_KEYS).collect();
        // What holds nothing but nonsense does not say that there are no keys any more.
        if usable.is_empty() && !keys.iter().all(Value::is_object) {
            return Err(KeySetError::Form);
        }
        Ok(Self { keys: usable, possible: &PUBLIC })
    }

    /// An HMAC secret that `issuer` shares with us.
    pub fn shared(issuer: &str, secret: &[u8]) -> Self {
        let mark = Mark::of(issuer, None, "HMAC", secret);
        let key =
            PublicKey { kid: None, algorithms: SHARED.into(), key: DecodingKey::from_secret(secret), mark, cost: 1 };
        Self { keys: vec![key], possible: &SHARED }
    }

    /// Whether it can verify nothing.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether the key is in the set, and all that is published of it as it was.
    pub fn has(&self, mark: Mark) -> bool {
        self.keys.iter().any(|key| key.mark == mark)
    }

    /// Whether the key is in the set, under whatever name and for whatever algorithm.
    pub(super) fn has_key(&self, mark: Mark) -> bool {
        self.keys.iter().any(|key| key.mark.is_same_key(mark))
    }

    /// Which key signed the token; `allowed` narrows the algorithms, unless it is empty.
    ///
    /// # Errors
    /// [`Error::ForeignKey`] where the set has no such key.
    pub(super) fn verify(&self, parts: &header::Parts<'_>, allowed: &[String]) -> Result<Mark, Error> {
        let kid = parts.kid()?;
        let name = parts.algorithm().filter(|name| allowed.is_empty() || allowed.iter().any(|known| known == name));
        let algorithm = name.and_then(|name| name.parse().ok()).filter(|name| self.possible.contains(name));
        let algorithm = algorithm.ok_or(header::WRONG_ALGORITHM)?;
        // A key of another kind under the same name, or under none, may have been published since.
        let mut refusal = Error::ForeignKey;
        for key in self.fitting(kid, algorithm) {
            match check(parts.message, parts.signature, &key.key, algorithm) {
                Ok(()) => return Ok(key.mark),
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }

    /// The keys that may have signed a token which names `kid`: those of that name, then those without one. As many as the
    /// work on one token allows.
    fn fitting(&self, kid: Option<&str>, algorithm: Algorithm) -> impl Iterator<Item = &PublicKey> {
        let of_name = self.keys.iter().filter(move |key| kid.is_some() && key.kid.as_deref() == kid);
        let others = self.keys.iter().filter(move |key| kid.is_none() || key.kid.is_none());
        let fitting = of_name.chain(others).filter(move |key| key.algorithms.contains(&algorithm));
        fitting.scan(0, |work, key| {
            *work += key.cost;
            (*work <= MOST_WORK).then_some(key)
        })
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;

    use super::*;

    #[test]
    fn only_public_keys_for_signatures_are_taken() {
        let ec = |changes: Value| {
            let mut key = json!({"kty": "EC", "crv": "P-256", "kid": "a",
                "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
                "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"});
            key.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
            key
        };
        for (key, taken) in [
            (ec(json!({})), true),
            (ec(json!({"use": "sig", "alg": "ES256", "x5c": ["anything"], "more": {}})), true),
            (ec(json!({"use": "enc"})), false),
            (ec(json!({"alg": "HS256"})), false),
            (ec(json!({"alg": "ECDH-ES"})), false),
            (ec(json!({"crv": "P-521"})), false),
            (ec(json!({"crv": "secp256k1"})), false),
            (ec(json!({"x": 7})), false),
            (json!({"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "alg": "HS256"}), false),
            (json!({"kty": "none"}), false),
            (json!("text"), false),
        ] {
            let set = KeySet::parse("i", json!({"keys": [key]}).to_string().as_bytes());
            assert_eq!(set.is_ok_and(|set| !set.is_empty()), taken, "{key}");
            let both = KeySet::parse("i", json!({"keys": [key, ec(json!({"kid": "b"}))]}).to_string().as_bytes());
            assert_eq!(both.unwrap().keys.len(), 1 + usize::from(taken), "one bad key does not spoil the set: {key}");
        }
        assert!(KeySet::parse("i", br#"{"keys": []}"#).unwrap().is_empty());
        for text in ["", "[]", "{}", r#"{"keys": {}}"#, r#"{"keys": ["text"]}"#, r#"{"keys": [{"kty": "oct"}, 7]}"#] {
            assert!(matches!(KeySet::parse("i", text.as_bytes()), Err(KeySetError::Form)), "{text}");
        }
    }

    /// 64 keys without names.
    fn many(curve: &'static aws_lc_rs::signature::EcdsaSigningAlgorithm, name: &str) -> KeySet {
        use aws_lc_rs::signature::{EcdsaKeyPair, KeyPair};
        let keys = (0..64).map(|_| {
            let point = EcdsaKeyPair::generate(curve).unwrap().public_key().as_ref().to_vec();
            let (x, y) = point[1..].split_at(point.len() / 2);
            json!({"kty": "EC", "crv": name, "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)})
        });
        KeySet::parse("i", json!({"keys": keys.collect::<Vec<_>>()}).to_string().as_bytes()).unwrap()
    }

    #[test]
    fn the_work_on_one_token_is_bounded() {
        use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING};
        for (set, algorithm, count) in [
            (many(&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256"), Algorithm::ES256, 64),
            (many(&ECDSA_P384_SHA384_FIXED_SIGNING, "P-384"), Algorithm::ES384, 10),
        ] {
            assert_eq!(set.keys.len(), 64);
            assert_eq!(set.fitting(None, algorithm).count(), count);
            assert_eq!(set.fitting(Some("any"), algorithm).count(), count);
            assert_eq!(set.fitting(None, Algorithm::RS256).count(), 0);
        }
        let rsa = |bytes: usize| {
            let n = URL_SAFE_NO_PAD.encode(vec![0xff; bytes]);
            KeySet::parse("i", json!({"keys": [{"kty": "RSA", "n": n, "e": "AQAB"}]}).to_string().as_bytes()).unwrap()
        };
        assert_eq!([rsa(256).keys[0].cost, rsa(512).keys[0].cost, rsa(1024).keys[0].cost], [20, 79, 319]);
        assert!(rsa(1025).is_empty());
    }

    #[test]
    fn a_number_may_have_leading_zeros_or_too_few() {
        let ec = |x: &str, y: &str| json!({"keys": [{"kty": "EC", "crv": "P-256", "x": x, "y": y}]}).to_string();
        let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
        let (x, y) = ("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0");
        let plain = KeySet::parse("i", ec(x, y).as_bytes()).unwrap().keys.remove(0).mark;
        let padded = URL_SAFE_NO_PAD.encode([&[0, 0][..], &bytes(x)].concat());
        for (x, y) in [(padded.as_str(), y), (x, &format!("{y}=")), (&format!("{padded}="), y)] {
            let set = KeySet::parse("i", ec(x, y).as_bytes()).unwrap();
            assert!(set.has(plain), "{x} {y}");
        }
        let short = KeySet::parse("i", ec(&URL_SAFE_NO_PAD.encode(&bytes(x)[1..]), y).as_bytes()).unwrap();
        assert!(!short.is_empty() && !short.has_key(plain), "another number");
        for nonsense in ["", "AAAA", "AQ AB", &URL_SAFE_NO_PAD.encode([1; 33])] {
            assert!(KeySet::parse("i", ec(nonsense, y).as_bytes()).unwrap().is_empty(), "{nonsense}");
        }
    }

    #[test]
    fn an_algorithm_that_a_new_key_may_have_asks_for_one() {
        let key = json!({"kty": "EC", "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"});
        let mut named = key.clone();
        named["kid"] = json!("a");
        let set = |key| KeySet::parse("i", json!({"keys": [key]}).to_string().as_bytes()).unwrap();
        let (unnamed, named, shared) = (set(key), set(named), KeySet::shared("i", &[7; 32]));
        let some = ["ES256".to_owned(), "RS256".to_owned()];
        let wrong = header::WRONG_ALGORITHM;
        for (set, header, allowed, refusal) in [
            (&unnamed, json!({"alg": "ES256"}), &[][..], Error::Signature),
            (&unnamed, json!({"alg": "RS256"}), &[], Error::ForeignKey),
            (&unnamed, json!({"alg": "RS256", "kid": "b"}), &some, Error::ForeignKey),
            (&unnamed, json!({"alg": "PS256"}), &some, wrong.clone()),
            (&unnamed, json!({"alg": "HS256"}), &[], wrong.clone()),
            (&unnamed, json!({"alg": "none"}), &[], wrong.clone()),
            (&unnamed, json!({}), &[], wrong.clone()),
            (&named, json!({"alg": "RS256", "kid": "a"}), &some, Error::ForeignKey),
            (&named, json!({"alg": "ES256", "kid": "b"}), &some, Error::ForeignKey),
            (&shared, json!({"alg": "HS512"}), &[], Error::Signature),
            (&shared, json!({"alg": "RS256"}), &[], wrong.clone()),
            (&shared, json!({"alg": "HS512"}), &["HS256".to_owned()], wrong),
        ] {
            let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
            let token = format!("{}.{}.{}", encode(&header), encode(&json!({})), "A".repeat(86));
            let parts = header::Parts::of(&token).unwrap();
            assert_eq!(set.verify(&parts, allowed).unwrap_err(), refusal, "{header} {allowed:?}");
        }
    }
}

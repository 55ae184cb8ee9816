//! A JSON Web Key Set of another issuer (RFC 7517): the keys of it that can verify tokens.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

use crate::tokens::key::{Mark, check};
use crate::tokens::{Error, header};

/// Keys that are taken of one set: more would only cost time.
const MOST_KEYS: usize = 64;

/// Keys that are tried on a token that does not name one.
const MOST_TRIES: usize = 4;

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

/// The usable keys of a set.
#[derive(Debug)]
pub struct KeySet(Vec<PublicKey>);

#[derive(Debug)]
struct PublicKey {
    kid: Option<String>,
    /// For which it is good; never HMAC.
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
    mark: Mark,
}

impl KeySet {
    /// Reads the set of `issuer`. What is no public key for signatures is passed over.
    ///
    /// # Errors
    /// [`KeySetError`].
    pub fn parse(issuer: &str, text: &[u8]) -> Result<Self, KeySetError> {
        let set: Value = serde_json::from_slice(text).map_err(|_| KeySetError::Form)?;
        let keys = set.get("keys").and_then(Value::as_array).ok_or(KeySetError::Form)?;
        let keys: Vec<PublicKey> = keys.iter().filter_map(|key| PublicKey::of(issuer, key)).take(MOST_KEYS).collect();
        if keys.is_empty() { Err(KeySetError::Empty) } else { Ok(Self(keys)) }
    }

    /// An HMAC secret that `issuer` shares with us.
    pub fn shared(issuer: &str, secret: &[u8]) -> Self {
        let algorithms = vec![Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
        let mark = Mark::of(issuer, None, "HMAC", secret);
        Self(vec![PublicKey { kid: None, algorithms, key: DecodingKey::from_secret(secret), mark }])
    }

    /// Whether the key is in the set.
    pub fn has(&self, mark: Mark) -> bool {
        self.0.iter().any(|key| key.mark == mark)
    }

    /// Which key signed the token; `allowed` narrows the algorithms, unless it is empty.
    ///
    /// # Errors
    /// [`Error::ForeignKey`] where the set has no such key.
    pub(super) fn verify(&self, parts: &header::Parts<'_>, allowed: &[String]) -> Result<Mark, Error> {
        let kid = parts.kid()?;
        let named = |key: &&PublicKey| kid.is_none() || key.kid.is_none() || key.kid.as_deref() == kid;
        let candidates: Vec<&PublicKey> = self.0.iter().filter(named).collect();
        if candidates.is_empty() {
            return Err(Error::ForeignKey);
        }
        let name = parts.algorithm().filter(|name| allowed.is_empty() || allowed.iter().any(|known| known == name));
        let algorithm: Option<Algorithm> = name.and_then(|name| name.parse().ok());
        let algorithm = algorithm.ok_or(header::WRONG_ALGORITHM)?;
        let fitting = candidates.into_iter().filter(|key| key.algorithms.contains(&algorithm));
        let mut refusal = header::WRONG_ALGORITHM;
        for key in fitting.take(MOST_TRIES) {
            match check(parts.message, parts.signature, &key.key, algorithm) {
                Ok(()) => return Ok(key.mark),
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }
}

impl PublicKey {
    fn of(issuer: &str, value: &Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
        if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return None;
        }
        let mut algorithms = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => vec![
                Algorithm::RS256,
                Algorithm::RS384,
                Algorithm::RS512,
                Algorithm::PS256,
                Algorithm::PS384,
                Algorithm::PS512,
            ],
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => vec![Algorithm::ES256],
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => vec![Algorithm::ES384],
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => vec![Algorithm::EdDSA],
            // A secret in a public place is none; the other curves are not known here.
            _ => return None,
        };
        if let Some(own) = jwk.common.key_algorithm {
            let own = Algorithm::try_from(own).ok();
            algorithms.retain(|algorithm| Some(*algorithm) == own);
        }
        if algorithms.is_empty() {
            return None;
        }
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        let bytes = serde_json::to_vec(&jwk).ok()?;
        let mark = Mark::of(issuer, jwk.common.key_id.as_deref(), "JWK", &bytes);
        Some(Self { kid: jwk.common.key_id, algorithms, key, mark })
    }
}

#[cfg(test)]
mod tests {
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
            assert_eq!(set.is_ok(), taken, "{key}");
            let both = KeySet::parse("i", json!({"keys": [key, ec(json!({"kid": "b"}))]}).to_string().as_bytes());
            assert_eq!(both.unwrap().0.len(), 1 + usize::from(taken), "one bad key does not spoil the set: {key}");
        }
        for text in ["", "[]", "{}", r#"{"keys": {}}"#] {
            assert!(matches!(KeySet::parse("i", text.as_bytes()), Err(KeySetError::Form)), "{text}");
        }
    }
}

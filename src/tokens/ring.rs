//! The key ring: which key signs, which verify, and which are published.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use serde_json::{Value, json};

use crate::config;
use crate::secret::Secret;
use crate::tokens::claims::{Claims, New, to_object};
use crate::tokens::header::{Parts, UNKNOWN_KEY, WRONG_ALGORITHM};
use crate::tokens::key::{Key, KeyError, Mark};
use crate::tokens::{Error, SignError};

/// A key of the store, as far as tokens are concerned.
pub struct Material<'a> {
    /// What tokens call it.
    pub kid: &'a str,
    /// As in a token's `alg`.
    pub algorithm: &'a str,
    /// The key itself.
    pub secret: &'a Secret,
    /// Whether it signs; all verify.
    pub signs: bool,
}

/// What a good signature proves.
#[derive(Debug)]
pub struct Verified {
    /// What the token says.
    pub claims: Claims,
    /// Which key says so.
    pub mark: Mark,
}

/// Signs and verifies. The algorithm comes from the key, never from the token.
pub struct Ring {
    keys: Vec<Key>,
    /// Which of them signs.
    signing: Option<usize>,
    /// Names of keys whose tokens are refused as revoked.
    revoked: Vec<String>,
    jwks: String,
}

impl Ring {
    /// Of the keys that the store holds, and the shared secret of `tokens`, which signs where the algorithm is HS256. A key
    /// that cannot be used is left out, and told of: the others, and what was revoked, must not wait for it.
    pub fn new(tokens: &config::Tokens, stored: &[Material<'_>], revoked: Vec<String>) -> (Self, Vec<KeyError>) {
        let shared = tokens.secret.as_ref().map(Key::shared);
        let shared_signs = shared.is_some() && tokens.algorithm == config::Algorithm::Hs256;
        let mut keys: Vec<Key> = shared.into_iter().collect();
        let (mut signing, mut unusable) = (shared_signs.then_some(0), Vec::new());
        for Material { kid, algorithm, secret, signs } in stored {
            match Key::stored(kid, algorithm, secret) {
                Ok(key) => {
                    if *signs && signing.is_none() {
                        signing = Some(keys.len());
                    }
                    keys.push(key);
                }
                Err(error) => unusable.push(error),
            }
        }
        let public: Vec<&Jwk> = keys.iter().filter_map(Key::public).collect();
        let jwks = json!({ "keys": public }).to_string();
        (Self { keys, signing, revoked, jwks }, unusable)
    }

    /// The public keys as a JSON Web Key Set (RFC 7517).
    pub fn jwks(&self) -> &str {
        &self.jwks
    }

    /// Whether there is a key to sign with.
    pub fn signs(&self) -> bool {
        self.signing.is_some()
    }

    /// Whether it still has the key.
    pub fn has(&self, mark: Mark) -> bool {
        self.keys.iter().any(|key| key.mark() == mark)
    }

    /// The token as text; `tokens` says which issuer and audience it names.
    ///
    /// # Errors
    /// What the cryptography says, or that there is no key.
    pub fn sign(&self, new: &New<'_>, tokens: &config::Tokens) -> Result<String, SignError> {
        let key = self.signing.and_then(|index| self.keys.get(index)).ok_or(SignError::NoKey)?;
        let mut header = json!({ "alg": key.algorithm(), "typ": "JWT" });
        if let (Some(kid), Some(header)) = (key.kid(), header.as_object_mut()) {
            header.insert("kid".to_owned(), json!(kid));
        }
        let claims = Value::Object(to_object(new, tokens.issuer.as_deref(), tokens.audience.as_deref()));
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", encode(&header), encode(&claims));
        let signature = key.sign(&message)?;
        Ok(format!("{message}.{signature}"))
    }

    /// Checks a token as one of ours: signature, claims, and the issuer and audience of `tokens`.
    pub(super) fn verify(&self, parts: &Parts<'_>, tokens: &config::Tokens) -> Result<Verified, Error> {
        let key = self.find(parts)?;
        if parts.algorithm() != Some(key.algorithm()) {
            return Err(WRONG_ALGORITHM);
        }
        key.verify(parts.message, parts.signature)?;
        let claims = Claims::from_object(parts.claims()?)?;
        check_parties(&claims, tokens)?;
        Ok(Verified { claims, mark: key.mark() })
    }

    /// The key that the token names; of a token that names none, the shared secret.
    fn find(&self, parts: &Parts<'_>) -> Result<&Key, Error> {
        let kid = parts.kid()?;
        let found = self.keys.iter().find(|key| key.kid() == kid);
        found.ok_or_else(|| match kid {
            Some(kid) if self.revoked.iter().any(|revoked| revoked == kid) => Error::Revoked,
            Some(_) => UNKNOWN_KEY,
            None => Error::Header("The token names no key"),
        })
    }
}

fn check_parties(claims: &Claims, tokens: &config::Tokens) -> Result<(), Error> {
    if let Some(issuer) = &tokens.issuer
        && claims.all.get("iss").and_then(Value::as_str) != Some(issuer)
    {
        return Err(Error::Claim("Invalid issuer"));
    }
    if let Some(audience) = &tokens.audience
        && !claims.has("aud", &Value::String(audience.clone()))
    {
        return Err(Error::Claim("Invalid audience"));
    }
    Ok(())
}

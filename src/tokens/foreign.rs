//! Tokens of others: whose they are, and what of them is taken. They have no `type` of ours, and not all have a `jti`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::config::{KeySetUrl, Trusted, TrustedKeys};
use crate::model::{Role, TokenId};
use crate::tokens::Error;
use crate::tokens::claims::{Claims, Fresh, TokenType, find, moment, session, text};
use crate::tokens::header::Parts;
use crate::tokens::jwk::{KeySet, KeySetError};
use crate::tokens::key::Mark;
use crate::tokens::ring::Verified;

/// Claims that say what kind of token it is: of Keycloak, flask-jwt-extended, djangorestframework-simplejwt, Cognito.
const KIND_CLAIMS: [&str; 4] = ["typ", "type", "token_type", "token_use"];

/// Claims that say so at Casdoor and PingAM, and may say something else at others.
const OTHER_KIND_CLAIMS: [&str; 2] = ["tokenType", "tokenName"];

/// An issuer of `tokens.trusted`, with the keys that are known of it.
#[derive(Clone)]
pub struct Foreign {
    trusted: Arc<Trusted>,
    issuer: Arc<str>,
    /// `None`: they were never fetched.
    keys: Option<Arc<KeySet>>,
    /// When they were, if they are.
    fetched: Option<Instant>,
}

impl Foreign {
    /// With the keys that the configuration holds; those that must be fetched are not there yet.
    ///
    /// # Errors
    /// A file that holds no usable key.
    pub fn new(trusted: &Trusted) -> Result<Self, KeySetError> {
        let keys = match &trusted.keys {
            TrustedKeys::Url(_) => None,
            TrustedKeys::Set(text) => Some(usable(KeySet::parse(&trusted.issuer, text.as_bytes())?)?),
            TrustedKeys::Secret(secret) => Some(KeySet::shared(&trusted.issuer, secret.expose())),
        };
        let issuer = trusted.issuer.as_str().into();
        Ok(Self { trusted: Arc::new(trusted.clone()), issuer, keys: keys.map(Arc::new), fetched: None })
    }

    /// Its `iss`.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Whether it is `issuer`, whose keys are fetched from `url`.
    pub fn is_fetched_from(&self, issuer: &str, url: &KeySetUrl) -> bool {
        let here = matches!(&self.trusted.keys, TrustedKeys::Url(own) if own == url);
        here && &*self.issuer == issuer
    }

    /// The same issuer with other keys, which were fetched at that time.
    #[must_use]
    pub fn with_keys(&self, keys: KeySet, at: Instant) -> Self {
        Self { keys: Some(Arc::new(keys)), fetched: Some(at), ..self.clone() }
    }

    /// How long ago its keys were fetched, if they were.
    pub fn age(&self, now: Instant) -> Option<Duration> {
        self.fetched.map(|at| now.saturating_duration_since(at))
    }

    /// The keys of `other`, if they were fetched from where these would be.
    pub fn inherit(&mut self, other: &Self) {
        if let TrustedKeys::Url(own) = &self.trusted.keys
            && other.is_fetched_from(&self.issuer, own)
        {
            self.keys.clone_from(&other.keys);
            self.fetched = other.fetched;
        }
    }

    /// Whether the key that verified `token` still does. One that was published again under another name or for another
    /// algorithm is asked anew.
    pub(super) fn still_verifies(&self, token: &str, mark: Mark) -> bool {
        let Some(keys) = &self.keys else { return false };
        let verifies_anew = || {
            let found = Parts::of(token).and_then(|parts| keys.verify(&parts, &self.trusted.algorithms));
            found.is_ok_and(|found| found.is_same_key(mark))
        };
        keys.has(mark) || (keys.has_key(mark) && verifies_anew())
    }

    /// Checks a token that says to be of this issuer; `all` are its claims.
    pub(super) fn verify(&self, parts: &Parts<'_>, all: Map<String, Value>) -> Result<Verified, Error> {
        let keys = self.keys.as_ref().ok_or(Error::NoKeys)?;
        let mark = keys.verify(parts, &self.trusted.algorithms)?;
        let kind = kind(&all)?;
        // A refresh token is for its issuer, so that it need not have what an access token must.
        let claims = self.claims(parts, all, kind).map_err(|error| match kind {
            TokenType::Access => error,
            TokenType::Refresh => Error::NotAccess("The token is a refresh token. Send the access token"),
        })?;
        Ok(Verified { claims, mark })
    }

    fn claims(&self, parts: &Parts<'_>, all: Map<String, Value>, kind: TokenType) -> Result<Claims, Error> {
        let Trusted { audience, audience_claim, subject_claim, roles_claim, .. } = &*self.trusted;
        if !audience.is_empty() && !find(&all, audience_claim).is_some_and(|value| is_for(value, audience)) {
            return Err(Error::Claim("Invalid audience"));
        }
        let token = match all.get("jti") {
            None => digest_of(parts.message),
            Some(Value::String(jti)) if !jti.is_empty() => TokenId::new(jti.as_str()),
            Some(_) => return Err(Error::Claim("jti must be text")),
        };
        Ok(Claims {
            subject: subject(find(&all, subject_claim))?,
            token,
            kind,
            expires: moment(&all, "exp", "exp must be a number")?.ok_or(Error::Claim("Token has no exp claim"))?,
            not_before: moment(&all, "nbf", "nbf must be a number")?,
            issued: moment(&all, "iat", "iat must be a number")?,
            fresh: Fresh::Flag(all.get("fresh") == Some(&Value::Bool(true))),
            session: session(&all)?,
            generation: None,
            roles: find(&all, roles_claim).map(roles).unwrap_or_default(),
            issuer: Some(Arc::clone(&self.issuer)),
            all,
        })
    }
}

/// Whether the value, or an item of it, is one of these.
fn is_for(value: &Value, audience: &[String]) -> bool {
    let is_one = |value: &Value| value.as_str().is_some_and(|text| audience.iter().any(|one| one == text));
    value.as_array().map_or_else(|| is_one(value), |values| values.iter().any(is_one))
}

/// A set that was written down here is to be of use.
fn usable(keys: KeySet) -> Result<KeySet, KeySetError> {
    if keys.is_empty() { Err(KeySetError::Empty) } else { Ok(keys) }
}

/// What a token without `jti` is revoked by. Of what was signed: some signatures have a second form.
fn digest_of(message: &str) -> TokenId {
    TokenId::new(format!("sha256:{}", URL_SAFE_NO_PAD.encode(digest(&SHA256, message.as_bytes()))))
}

/// An access token, unless one of its claims says that it is of another kind.
fn kind(all: &Map<String, Value>) -> Result<TokenType, Error> {
    let mut kind = TokenType::Access;
    let claims = KIND_CLAIMS.map(|name| (name, true)).into_iter().chain(OTHER_KIND_CLAIMS.map(|name| (name, false)));
    for (value, is_strict) in claims.filter_map(|(name, is_strict)| Some((all.get(name)?, is_strict))) {
        let text = value.as_str().unwrap_or_default().to_ascii_lowercase();
        let stem = text.strip_suffix("token").map_or(text.as_str(), |stem| stem.trim_end_matches(['_', '-', ' ']));
        match stem {
            "access" | "bearer" | "sliding" | "jwt" | "at+jwt" => {}
            "refresh" | "offline" => kind = TokenType::Refresh,
            "id" => return Err(Error::NotAccess("The token is an ID token. Send the access token")),
            // Services sign other things with the same key: resets of passwords, invitations.
            _ if is_strict => {
                return Err(Error::Claim("The token is not an access token (typ, type, token_type or token_use)"));
            }
            _ => {}
        }
    }
    Ok(kind)
}

/// The value that names the user: text, or an integer, which is read as its digits.
fn subject(value: Option<&Value>) -> Result<Arc<str>, Error> {
    match value {
        Some(Value::Number(number)) if number.is_i64() || number.is_u64() => Ok(number.to_string().into()),
        value => {
            let text = text(value.and_then(Value::as_str), Error::Claim("The claim that names the user must be text"))?;
            Ok(text.into())
        }
    }
}

/// A list of names, or of objects with a name (Casdoor); words with spaces or commas between; or an object whose keys are
/// the names (Zitadel). What is no role here opens nothing here, and is passed over.
fn roles(value: &Value) -> Vec<Role> {
    let parse = |text: &str| Role::parse(text).ok();
    match value {
        Value::String(words) => words.split([' ', ',']).filter_map(parse).collect(),
        Value::Array(values) => values.iter().filter_map(name).filter_map(parse).collect(),
        Value::Object(entries) => {
            entries.iter().filter(|(_, value)| is_set(value)).filter_map(|(name, _)| parse(name)).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Vec::new(),
    }
}

/// The name of a role in a list.
fn name(item: &Value) -> Option<&str> {
    match item {
        Value::String(name) => Some(name),
        Value::Object(role) if role.get("isEnabled").is_none_or(is_set) => role.get("name")?.as_str(),
        _ => None,
    }
}

fn is_set(value: &Value) -> bool {
    !matches!(value, Value::Null | Value::Bool(false))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn claims_are_found_by_name_or_path() {
        let all = json!({
            "sub": "a", "realm_access": {"roles": ["x", "offline access", 7, "y"]}, "https://e.x/roles": "p q  r",
            "deep": {"er": {"est": true}}, "null": null, "a": {"b": "short", "b.c": {"d": "two"}}, "a.b": {"e": "long"},
            "urn:roles": {"m": {"1": "x"}, "n": false, "o": null, "p/q": {}, "r": []}, "comma": "p,q, r",
            "list": [{"owner": "s", "name": "m"}, {"name": "off", "isEnabled": false}, {"name": 7}, {}, [], "n"],
        });
        let Value::Object(all) = all else { unreachable!() };
        for (path, roles_of) in [
            ("realm_access.roles", &["x", "y"][..]),
            ("https://e.x/roles", &["p", "q", "r"]),
            ("deep.er.est", &[]),
            ("deep.er", &["est"]),
            ("a.b.e", &["long"]),
            ("urn:roles", &["m", "r"]),
            ("comma", &["p", "q", "r"]),
            ("list", &["m", "n"]),
            ("null", &[]),
        ] {
            let found: Vec<Role> = roles(find(&all, path).unwrap());
            assert_eq!(found.iter().map(Role::as_str).collect::<Vec<_>>(), roles_of, "{path}");
        }
        for path in ["", ".", "x", "sub.x", "realm_access.", "realm_access.x", "deep..est", "null.x", "a.b.c.d"] {
            assert_eq!(find(&all, path), None, "{path}");
        }
    }
}

//! A token whose signature is good, prepared for every later use; and the [`Caller`], who has passed all checks.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use crate::config::IdentitySource;
use crate::model::{Generation, Role, Username};
use crate::sessions::Refusal;
use crate::sessions::blocklist::{Birth, Blocklist, Clean, Entry, Keys};
use crate::sessions::keyring::{Keyring, Known};
use crate::store::{Key, Kind, Revocation, Warrant};
use crate::tokens::{Claims, Mark, Verified};

/// A token whose signature, form, issuer and audience are good. It may have expired, or been revoked.
pub struct Signed {
    text: Box<str>,
    claims: Claims,
    mark: Mark,
    known: Known,
    keys: Keys,
    headers: Box<[(usize, Bytes)]>,
    clean: Clean,
}

impl Signed {
    /// Computes what later requests need: blocklist keys, and the values of the identity headers.
    pub(super) fn new(text: &str, verified: Verified, known: Known, sources: &[IdentitySource]) -> Self {
        let Verified { claims, mark } = verified;
        let keys = keys(&claims);
        let value = |source| header_value(&claims, source).map(|text| Bytes::from(visible_ascii(&text)));
        let headers = sources.iter().enumerate().filter_map(|(at, source)| Some((at, value(source)?))).collect();
        Self { text: text.into(), claims, mark, known, keys, headers, clean: Clean::default() }
    }

    /// The token itself.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What the token says.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Whether `blocklist` revokes it.
    pub(super) fn is_revoked(&self, blocklist: &Blocklist, leeway: Duration) -> bool {
        blocklist.revokes_since(&self.clean, &self.keys, birth(&self.claims), leeway)
    }

    /// Whether the key that signed it is still trusted, and still verifies it.
    pub(super) fn is_trusted(&self, keyring: &Keyring) -> bool {
        keyring.still_verifies(&self.text, self.mark, &self.known)
    }

    pub(super) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// About how much memory the verdict takes, in bytes.
    pub(super) fn weight(&self) -> u32 {
        u32::try_from(1024 + 7 * self.text.len()).unwrap_or(u32::MAX)
    }
}

/// The holder of a token that was good in every respect when it was checked. Only `Sessions::admit` can make one, so
/// that holding it is proof; of another issuer it may be, which the route's rule is to judge.
#[derive(Clone)]
pub struct Caller(Arc<Signed>);

impl Caller {
    pub(super) fn of(signed: Arc<Signed>) -> Self {
        Self(signed)
    }

    /// What the token says.
    pub fn claims(&self) -> &Claims {
        &self.0.claims
    }

    /// The values of the identity headers, each with its index in `Config::identity_headers`: visible ASCII, reversible.
    pub fn headers(&self) -> &[(usize, Bytes)] {
        &self.0.headers
    }

    /// For the store, once the generation of the account is known that the token is of.
    pub(super) fn warrant(&self, generation: Generation) -> Result<Warrant, Refusal> {
        let Self(signed) = self;
        Ok(Warrant {
            username: Username::parse(&signed.claims.subject).map_err(|_| Refusal::Revoked)?,
            generation,
            token: signed.keys.token,
            session: signed.keys.session,
        })
    }

    /// The token itself, for revoking it.
    pub fn signed(&self) -> &Arc<Signed> {
        &self.0
    }
}

/// Whether a revocation that was found by one of the keys of these claims ends their token.
pub(super) fn is_ended(claims: &Claims, revocation: &Revocation, leeway: Duration) -> bool {
    match revocation.kind {
        Kind::Token | Kind::Session => true,
        Kind::Subject => Entry::of(revocation).revokes(birth(claims), leeway),
    }
}

/// The blocklist's keys of a token with these claims.
pub(super) fn keys(claims: &Claims) -> Keys {
    let issuer = claims.issuer.as_deref();
    Keys {
        token: Key::token(issuer, claims.token.as_str()),
        session: claims.session.as_ref().map(|session| Key::session(issuer, session.as_str())),
        subject: Key::subject(issuer, &claims.subject),
    }
}

fn birth(claims: &Claims) -> Birth {
    Birth { generation: claims.generation, issued: claims.issued }
}

fn header_value(claims: &Claims, source: &IdentitySource) -> Option<String> {
    match source {
        IdentitySource::Subject => Some(claims.subject.to_string()),
        IdentitySource::Roles if claims.roles.is_empty() => None,
        IdentitySource::Roles => Some(claims.roles.iter().map(Role::as_str).collect::<Vec<_>>().join(",")),
        // Of a token without it, the id is one that we gave it.
        IdentitySource::TokenId => claims.all.contains_key("jti").then(|| claims.token.as_str().to_owned()),
        IdentitySource::Session => claims.session.as_ref().map(|session| session.as_str().to_owned()),
        IdentitySource::Issuer => claims.issuer.as_deref().map(str::to_owned),
        IdentitySource::Claim(name) => claims.find(name).and_then(plain),
    }
}

/// A claim as one line of text: strings as they are, arrays comma-joined, objects as JSON. Null counts as absent.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Array(values) => Some(values.iter().filter_map(plain).collect::<Vec<_>>().join(",")),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => Some(value.to_string()),
    }
}

/// Percent-encodes every byte outside 0x21 to 0x7E, and `%`: the value fits any header, and can be decoded again.
fn visible_ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' | ..=0x20 | 0x7f.. => out.push_str(&format!("%{byte:02X}")),
            _ => out.push(char::from(byte)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_values_are_visible_and_reversible() {
        for (text, value) in [
            ("alice", "alice"),
            ("Ünal", "%C3%9Cnal"),
            ("a b", "a%20b"),
            ("100%", "100%25"),
            ("a\r\nX: y", "a%0D%0AX:%20y"),
        ] {
            assert_eq!(visible_ascii(text), value);
        }
    }
}

//! What ends tokens before their time: one token, one session, or all of a subject's tokens below a generation.

use aws_lc_rs::digest::{Context, SHA256};

use crate::clock::UnixTime;
use crate::model::Generation;

/// What a revocation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// One token, by its `jti`.
    Token,
    /// One login and all tokens that came of it, by `sid`.
    Session,
    /// All tokens of a subject whose generation is below the entry's.
    Subject,
}

impl Kind {
    /// As it stands in the store and in a [`Key`]: never to be changed.
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Token => 1,
            Self::Session => 2,
            Self::Subject => 3,
        }
    }

    /// The kind of that code.
    pub(super) const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Token),
            2 => Some(Self::Session),
            3 => Some(Self::Subject),
            _ => None,
        }
    }
}

/// What a revocation is found by: the first 128 bits of SHA-256 over (kind, issuer, value). The issuer `None` stands
/// for our own tokens, and differs from every `iss`, the empty one included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(pub [u8; 16]);

impl Key {
    /// Of one token.
    pub fn token(issuer: Option<&str>, jti: &str) -> Self {
        Self::of(Kind::Token, issuer, jti)
    }

    /// Of one session.
    pub fn session(issuer: Option<&str>, sid: &str) -> Self {
        Self::of(Kind::Session, issuer, sid)
    }

    /// Of all tokens of a subject.
    pub fn subject(issuer: Option<&str>, sub: &str) -> Self {
        Self::of(Kind::Subject, issuer, sub)
    }

    // Each part follows its length, so that no two triples have the same encoding. It is in every database: never to be
    // changed.
    fn of(kind: Kind, issuer: Option<&str>, value: &str) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(&[kind.code(), u8::from(issuer.is_some())]);
        for part in issuer.into_iter().chain([value]) {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        Self(context.finish().as_ref().first_chunk().copied().unwrap_or_default())
    }
}

/// One entry of the blocklist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// What it is found by.
    pub key: Key,
    /// What it is about.
    pub kind: Kind,
    /// For [`Kind::Subject`]: the first generation that it leaves alone. 0 for the others.
    pub generation: Generation,
    /// When it was made.
    pub at: UnixTime,
    /// How long it must be kept: beyond the last moment of every token that it ends.
    pub keep_until: UnixTime,
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn keys_are_unambiguous() {
        let values = ["", "a", "b", "ab", "a\0", "\0a", "a\0b"];
        let issuers = [None, Some(""), Some("a"), Some("ab"), Some("a\0")];
        let mut keys = HashSet::new();
        for issuer in issuers {
            for value in values {
                keys.extend([Key::token(issuer, value), Key::session(issuer, value), Key::subject(issuer, value)]);
            }
        }
        assert_eq!(keys.len(), 3 * issuers.len() * values.len());
    }

    #[test]
    fn keys_never_change() {
        let hex = |key: Key| key.0.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        // printf '\1\0\0\0\0\0\0\0\0\3jti' | sha256sum
        assert_eq!(hex(Key::token(None, "jti")), "a917a51042e58d9034a253843b7a9d11");
        // printf '\3\1\0\0\0\0\0\0\0\2me\0\0\0\0\0\0\0\5alice' | sha256sum
        assert_eq!(hex(Key::subject(Some("me"), "alice")), "5c01b436c8869817c51db4fdbb0e49bd");
    }
}

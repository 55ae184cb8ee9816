//! The nouns of the domain, each parsed when it is made, so that holding one is proof that it is well-formed.

mod household;
mod shown;

use std::fmt;
use std::sync::Arc;

use unicode_normalization::{UnicodeNormalization, is_nfc};
use uuid::Uuid;

pub use household::Household;
pub use shown::Shown;

/// The name of an account: 1 to 120 characters in NFC, compared exactly.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Username(Arc<str>);

/// Which rule a would-be [`Username`] broke; the text is meant for the person who chose it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsernameError {
    /// It was empty or longer than 120 characters.
    #[error("A username has 1 to 120 characters")]
    Length,
    /// It held a control, format or line separator character.
    #[error("A username has no control, format or line separator characters")]
    Character,
    /// White space at one end.
    #[error("A username neither begins nor ends with a space")]
    Space,
    /// Not in normalization form C, so that two spellings would look alike.
    #[error("A username is written in Unicode normalization form C")]
    Normalization,
}

impl Username {
    /// The longest name, in characters.
    pub const MAX_CHARS: usize = 120;

    /// Checks every rule of the contract, section 1.
    ///
    /// # Errors
    /// The first rule that `name` breaks.
    pub fn parse(name: &str) -> Result<Self, UsernameError> {
        let count = name.chars().take(Self::MAX_CHARS + 1).count();
        if count == 0 || count > Self::MAX_CHARS {
            return Err(UsernameError::Length);
        }
        if name.chars().any(is_forbidden) {
            return Err(UsernameError::Character);
        }
        if name.starts_with(char::is_whitespace) || name.ends_with(char::is_whitespace) {
            return Err(UsernameError::Space);
        }
        if !is_nfc(name) || name.nfc().ne(name.chars()) {
            return Err(UsernameError::Normalization);
        }
        Ok(Self(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Control (Cc), format (Cf), and line and paragraph separators (Zl, Zp), after Unicode 16.
fn is_forbidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}'
            | '\u{8e2}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}'
            | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0001}'..='\u{e007f}')
}

impl fmt::Display for Username {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The store's number of an account. Never reused, and never shown to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(pub i64);

/// How often all tokens of an account were revoked at once. A token carries the value of its birth as `gen`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u32);

impl Generation {
    /// The one after this; stays at the last one, which takes four billion steps to reach.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// The `sid` of a token: which login it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SessionId(Arc<str>);

/// The `jti` of a token. Ours are UUIDv4; those of other services are any text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TokenId(Arc<str>);

impl SessionId {
    /// The length of ours, in bytes.
    pub const LENGTH: usize = 36;

    /// A fresh random one.
    pub fn random() -> Self {
        Self(Uuid::new_v4().to_string().into())
    }

    /// An existing one.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// As it stands in a token.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TokenId {
    /// A fresh random one.
    pub fn random() -> Self {
        Self(Uuid::new_v4().to_string().into())
    }

    /// An existing one.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// As it stands in a token.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A role: `[A-Za-z0-9_.:-]{1,64}`, so that a comma-joined list of them is unambiguous.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Role(Box<str>);

/// The text is no role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("A role has 1 to 64 of the characters A-Z a-z 0-9 _ . : -")]
pub struct RoleError;

impl Role {
    /// Checks length and characters.
    ///
    /// # Errors
    /// [`RoleError`], which states the rule.
    pub fn parse(text: &str) -> Result<Self, RoleError> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'-');
        if (1..=64).contains(&text.len()) && text.bytes().all(fits) { Ok(Self(text.into())) } else { Err(RoleError) }
    }

    /// The role as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `identity.responses`: the shape of the gateway's own answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseStyle {
    /// Codes and statuses of the contract.
    Standard,
    /// As the Flask tutorial and flask-jwt-extended answer.
    Flask,
}

/// The role that may use /users.
pub const ADMIN: &str = "admin";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usernames() {
        let long = "x".repeat(120);
        for good in ["a", "alice", "Ünal", "名前", "a b", "o'neil", "x@y.example", &long] {
            assert!(Username::parse(good).is_ok(), "{good:?}");
        }
        for (bad, why) in [
            ("", UsernameError::Length),
            (&"x".repeat(121), UsernameError::Length),
            (" a", UsernameError::Space),
            ("a\u{3000}", UsernameError::Space),
            ("a\nb", UsernameError::Character),
            ("a\u{202e}b", UsernameError::Character),
            ("a\u{2028}b", UsernameError::Character),
            ("u\u{308}", UsernameError::Normalization),
        ] {
            assert_eq!(Username::parse(bad), Err(why), "{bad:?}");
        }
    }

    #[test]
    fn roles() {
        assert!(Role::parse("billing:read-only_2.x").is_ok());
        for bad in ["", "a,b", "a b", "ä", &"r".repeat(65)] {
            assert_eq!(Role::parse(bad), Err(RoleError), "{bad:?}");
        }
    }
}

//! Tokens (RFC 7519, JWS compact): signing, verifying, and the claims. Pure: no I/O, no clock, no state.
//!
//! `verify` answers "who signed this, and what does it say"; whether the moment fits is asked of the [`Claims`] on every
//! use, and whether the token was revoked is `sessions`' business.

mod claims;
mod key;
mod ring;
mod trust;
mod foreign;
mod jwk;
mod public_key;
mod header;
mod strict;

pub use claims::{Claims, Fresh, Moment, New, TokenType};
pub use foreign::Foreign;
pub use header::Header;
pub use jwk::{KeySet, KeySetError};
pub use key::{KeyError, Mark, generate};
pub use ring::{Material, Ring, Verified};
pub use trust::Trust;

/// Why a token is not good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not three segments of base64url, or no JSON objects inside.
    #[error("{0}")]
    Malformed(Malformed),
    /// The signature does not fit the key.
    #[error("Signature verification failed")]
    Signature,
    /// The header asks for something that is never followed, or names another key or algorithm.
    #[error("{0}")]
    Header(&'static str),
    /// A claim is missing, stands twice, is of the wrong type, or not what is required here.
    #[error("{0}")]
    Claim(&'static str),
    /// It says that it is an ID or refresh token.
    #[error("{0}")]
    NotAccess(&'static str),
    /// `exp` is over.
    #[error("Token has expired")]
    Expired,
    /// Its issuer is trusted, and has no such key as far as is known.
    #[error("The issuer of the token has not published such a key")]
    ForeignKey,
    /// Its issuer is trusted, and his keys could not be fetched yet.
    #[error("the keys of the token's issuer have not been fetched yet")]
    NoKeys,
    /// The key that it names was revoked.
    #[error("Token has been revoked")]
    Revoked,
}

/// What is wrong with the outer form of a token. The texts are PyJWT's where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// More bytes than are read.
    #[error("The token is longer than {0} bytes (tokens.max_bytes)")]
    TooLong(usize),
    /// Fewer than two dots.
    #[error("Not enough segments")]
    TooFewSegments,
    /// More than two dots.
    #[error("Too many segments")]
    TooManySegments,
    /// The header is no base64url without padding.
    #[error("Invalid header padding")]
    HeaderEncoding,
    /// The header is no JSON object with distinct names.
    #[error("Invalid header string: must be a json object")]
    HeaderJson,
    /// The payload is no base64url without padding.
    #[error("Invalid payload padding")]
    PayloadEncoding,
    /// The payload is no JSON object.
    #[error("Invalid payload string: must be a json object")]
    PayloadJson,
    /// The signature is no base64url without padding.
    #[error("Invalid crypto padding")]
    SignatureEncoding,
}

/// A token could not be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// What the cryptography says; with HS256 it never does.
    #[error("a token could not be signed: {0}")]
    Cryptography(#[from] jsonwebtoken::errors::Error),
    /// There is no signing key in the store.
    #[error("there is no key to sign tokens with")]
    NoKey,
}

impl From<Malformed> for Error {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

//! What the errors of the parts below mean to a client.

use crate::accounts;
use crate::message::Rejection;
use crate::sessions::Refusal;
use crate::tokens::{self, SignError, TokenType};

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Token(error) => error.into(),
            Refusal::WrongType(wanted) => Self::TokenWrongType { refresh: wanted == TokenType::Refresh },
            Refusal::Revoked | Refusal::Reused => Self::TokenRevoked,
            Refusal::TooOften(wait) => Self::TooManyRequests(wait),
            foreign @ Refusal::Foreign(_) => Self::Forbidden(foreign.to_string().into()),
            // An outage of the store is 503: a client throws its tokens away on 401.
            outage @ (Refusal::Store(_) | Refusal::Stale) => Self::Unavailable(outage.into()),
            Refusal::Signing(error) => error.into(),
        }
    }
}

impl From<SignError> for Rejection {
    fn from(error: SignError) -> Self {
        match error {
            // The keys can be put right while the gateway runs: a client must not throw its token away.
            missing @ SignError::NoKey => Self::Unavailable(missing.into()),
            broken @ SignError::Cryptography(_) => Self::Internal(broken.into()),
        }
    }
}

impl From<tokens::Error> for Rejection {
    fn from(error: tokens::Error) -> Self {
        match error {
            tokens::Error::Malformed(why) => Self::TokenMalformed(why.to_string().into()),
            tokens::Error::Header(why) | tokens::Error::Claim(why) => Self::TokenInvalid(why.into()),
            signature @ tokens::Error::Signature => Self::TokenInvalid(signature.to_string().into()),
            tokens::Error::NotAccess(why) => Self::NotAccessToken(why),
            tokens::Error::Expired => Self::TokenExpired,
            tokens::Error::Revoked => Self::TokenRevoked,
            unknown @ tokens::Error::ForeignKey => Self::TokenInvalid(unknown.to_string().into()),
            // The token may be good: a client must not throw it away.
            missing @ tokens::Error::NoKeys => Self::Unavailable(missing.into()),
        }
    }
}

impl From<accounts::Error> for Rejection {
    fn from(error: accounts::Error) -> Self {
        match error {
            accounts::Error::Username(rule) => Self::InvalidUsername(rule),
            weak @ (accounts::Error::PasswordTooShort(_) | accounts::Error::PasswordTooLong) => {
                Self::WeakPassword(weak.to_string().into())
            }
            accounts::Error::Taken(name) => Self::UserExists(name.to_string()),
            accounts::Error::WrongCredentials { .. } => Self::WrongCredentials { unknown: None },
            accounts::Error::TooManyAttempts(wait) => Self::TooManyRequests(wait),
            accounts::Error::Hash(accounts::HashError::Unreadable) => {
                Self::Internal(accounts::HashError::Unreadable.into())
            }
            outage @ (accounts::Error::Hash(_) | accounts::Error::Store(_)) => Self::Unavailable(outage.into()),
        }
    }
}

//! Whose tokens are taken: our own, and those of `tokens.trusted`. Which of them a token is judged by, its `iss` says.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::config;
use crate::tokens::foreign::Foreign;
use crate::tokens::header::Parts;
use crate::tokens::key::Mark;
use crate::tokens::ring::{Ring, Verified};
use crate::tokens::{Error, Malformed};

/// See the module.
#[derive(Clone)]
pub struct Trust {
    /// Our own keys.
    pub ring: Arc<Ring>,
    /// The others.
    pub foreign: Vec<Foreign>,
}

impl Trust {
    /// Checks form, header, signature, claims, issuer and audience: all that does not change with time.
    ///
    /// # Errors
    /// Everything of [`Error`] but [`Error::Expired`].
    pub fn verify(&self, token: &str, tokens: &config::Tokens) -> Result<Verified, Error> {
        if token.len() > tokens.max_bytes {
            return Err(Malformed::TooLong(tokens.max_bytes).into());
        }
        let parts = Parts::of(token)?;
        match self.stranger(&parts) {
            Some((foreign, claims)) => foreign.verify(&parts, claims),
            None => self.ring.verify(&parts, tokens),
        }
    }

    /// Which of the others a token names as its issuer.
    pub fn issuer_of(&self, token: &str) -> Option<&str> {
        self.stranger(&Parts::of(token).ok()?).map(|(foreign, _)| foreign.issuer())
    }

    /// Whether the key that verified `token` is still among all of these, and still verifies it.
    pub fn still_verifies(&self, token: &str, mark: Mark) -> bool {
        self.ring.has(mark) || self.foreign.iter().any(|foreign| foreign.still_verifies(token, mark))
    }

    /// Whom a token names as its issuer, if that is one of the others: then his keys alone can verify it.
    fn stranger(&self, parts: &Parts<'_>) -> Option<(&Foreign, Map<String, Value>)> {
        if self.foreign.is_empty() {
            return None;
        }
        let claims = parts.claims().ok()?;
        let issuer = claims.get("iss")?.as_str()?;
        let foreign = self.foreign.iter().find(|foreign| foreign.issuer() == issuer)?;
        Some((foreign, claims))
    }
}

//! What the header of a token says of its key: for a person to read, once the token has been verified.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::tokens::strict::Object;

/// The parts of a header that name a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// `alg`.
    pub algorithm: Option<String>,
    /// `kid`.
    pub kid: Option<String>,
}

impl Header {
    /// Reads the header of a token; what cannot be read is absent. Decides nothing.
    pub fn read(token: &str) -> Self {
        let encoded = token.split('.').next().unwrap_or_default();
        let bytes = URL_SAFE_NO_PAD.decode(encoded).unwrap_or_default();
        let Ok(Object(header)) = serde_json::from_slice(&bytes) else { return Self::default() };
        let text = |name: &str| header.get(name).and_then(Value::as_str).map(str::to_owned);
        Self { algorithm: text("alg"), kid: text("kid") }
    }
}

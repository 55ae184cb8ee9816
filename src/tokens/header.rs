//! The strict reading of a token's outer form: three segments, and a header that asks for nothing.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::tokens::strict::{Object, REPEATED};
use crate::tokens::{Error, Malformed};

/// Header parameters that change what a token means or which key it asks for. None is ever followed.
const FORBIDDEN: [&str; 7] = ["crit", "b64", "zip", "jwk", "jku", "x5u", "x5c"];

/// A token, taken apart; nothing is verified yet.
pub(super) struct Parts<'a> {
    /// What was signed.
    pub message: &'a str,
    /// In base64url.
    pub signature: &'a str,
    header: Map<String, Value>,
    payload: Vec<u8>,
}

impl<'a> Parts<'a> {
    /// Splits `token` and reads its header.
    pub fn of(token: &'a str) -> Result<Self, Error> {
        let (message, signature) = token.rsplit_once('.').ok_or(Malformed::TooFewSegments)?;
        let (header, payload) = message.split_once('.').ok_or(Malformed::TooFewSegments)?;
        if payload.contains('.') {
            return Err(Malformed::TooManySegments.into());
        }
        let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| Malformed::HeaderEncoding)?;
        let Object(header) = serde_json::from_slice(&header).map_err(|_| Malformed::HeaderJson)?;
        check(&header)?;
        let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| Malformed::PayloadEncoding)?;
        Ok(Self { message, signature, header, payload })
    }

    /// `alg`: to be compared with the key's, never to be chosen by. `Ed25519` is `EdDSA` (RFC 9864).
    pub fn algorithm(&self) -> Option<&str> {
        self.header.get("alg").and_then(Value::as_str).map(one_name)
    }

    /// `kid`.
    pub fn kid(&self) -> Result<Option<&str>, Error> {
        match self.header.get("kid") {
            None => Ok(None),
            Some(Value::String(kid)) => Ok(Some(kid)),
            Some(_) => Err(UNKNOWN_KEY),
        }
    }

    /// The claims, as they were written.
    pub fn claims(&self) -> Result<Map<String, Value>, Error> {
        let read = serde_json::from_slice(&self.payload);
        let Object(claims) = read.map_err(|error| match error.to_string() {
            text if text.starts_with("number out of range") => Error::Claim("A number in the token is not finite"),
            text if text.starts_with(REPEATED) => Error::Claim("A claim stands twice in the token"),
            _ => Malformed::PayloadJson.into(),
        })?;
        Ok(claims)
    }
}

/// The name that is compared: RFC 9864 calls EdDSA on Ed25519, the only curve of it here, by the curve's name.
pub(super) fn one_name(algorithm: &str) -> &str {
    if algorithm == "Ed25519" { "EdDSA" } else { algorithm }
}

/// The refusal of a `kid` that no key has.
pub(super) const UNKNOWN_KEY: Error = Error::Header("The token names a key that is not known here");

/// The refusal of an `alg` that is not the key's.
pub(super) const WRONG_ALGORITHM: Error = Error::Header("The specified alg value is not allowed");

fn check(header: &Map<String, Value>) -> Result<(), Error> {
    if FORBIDDEN.iter().any(|name| header.contains_key(*name)) {
        return Err(Error::Header("The header names crit, b64, zip, jwk, jku, x5u or x5c, which are never followed"));
    }
    match header.get("typ") {
        None => Ok(()),
        Some(Value::String(typ)) if is_token(typ) => Ok(()),
        Some(_) => Err(Error::Header("The token's typ is neither JWT nor at+jwt")),
    }
}

/// Whether that media type is a token's. The case does not matter, and `application/` may be left out (RFC 7515, 4.1.9).
fn is_token(typ: &str) -> bool {
    let typ = typ.to_ascii_lowercase();
    matches!(typ.strip_prefix("application/").unwrap_or(&typ), "jwt" | "at+jwt")
}

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

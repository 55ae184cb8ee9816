//! The key ring: which key signs, which verify, and the strict reading of a token's header.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, crypto};
use serde_json::{Map, Value, json};

use crate::clock::UnixTime;
use crate::config;
use crate::model::{Generation, Role, SessionId, TokenId};
use crate::secret::Secret;
use crate::tokens::claims::{Claims, TokenType, to_object};
use crate::tokens::strict::Object;
use crate::tokens::{Error, Malformed, SignError};

/// Header parameters that change what a token means or which key it asks for. None is ever followed.
const FORBIDDEN: [&str; 7] = ["crit", "b64", "zip", "jwk", "jku", "x5u", "x5c"];

/// A token that is about to be signed.
pub struct New<'a> {
    /// `type`.
    pub kind: TokenType,
    /// `sub`.
    pub subject: &'a str,
    /// `jti`.
    pub token: &'a TokenId,
    /// `sid`.
    pub session: Option<&'a SessionId>,
    /// `gen`.
    pub generation: Generation,
    /// `roles`.
    pub roles: &'a [Role],
    /// `fresh`.
    pub fresh: bool,
    /// `iat` and `nbf`.
    pub issued: UnixTime,
    /// `exp`.
    pub expires: UnixTime,
}

/// Signs and verifies. The algorithm comes from the key, never from the token.
pub struct Keys {
    kid: Option<String>,
    signing: EncodingKey,
    verifying: DecodingKey,
    issuer: Option<String>,
    audience: Option<String>,
}

impl Keys {
    /// One HS256 key. `kid` is written into tokens when there is one.
    pub fn hs256(secret: &Secret, kid: Option<String>, tokens: &config::Tokens) -> Self {
        Self {
            kid,
            signing: EncodingKey::from_secret(secret.expose()),
            verifying: DecodingKey::from_secret(secret.expose()),
            issuer: tokens.issuer.clone(),
            audience: tokens.audience.clone(),
        }
    }

    /// The token as text.
    ///
    /// # Errors
    /// What the cryptography says; with HS256 it never does.
    pub fn sign(&self, new: &New<'_>) -> Result<String, SignError> {
        let mut header = json!({ "alg": "HS256", "typ": "JWT" });
        if let (Some(kid), Some(header)) = (&self.kid, header.as_object_mut()) {
            header.insert("kid".to_owned(), json!(kid));
        }
        let claims = Value::Object(to_object(new, self.issuer.as_deref(), self.audience.as_deref()));
        let message =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = crypto::sign(message.as_bytes(), &self.signing, Algorithm::HS256)?;
        Ok(format!("{message}.{signature}"))
    }

    /// Checks form, header, signature, claims, issuer and audience: all that does not change with time.
    ///
    /// # Errors
    /// Everything of [`Error`] but [`Error::Expired`].
    pub fn verify(&self, token: &str) -> Result<Claims, Error> {
        let (message, signature) = token.rsplit_once('.').ok_or(Malformed::TooFewSegments)?;
        let (header, payload) = message.split_once('.').ok_or(Malformed::TooFewSegments)?;
        if payload.contains('.') {
            return Err(Malformed::TooManySegments.into());
        }
        let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| Malformed::HeaderEncoding)?;
        let Object(header) = serde_json::from_slice(&header).map_err(|_| Malformed::HeaderJson)?;
        self.check_header(&header)?;
        let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| Malformed::PayloadEncoding)?;
        // `crypto::verify` answers a signature that is no base64url with an error of its own.
        let good = crypto::verify(signature, message.as_bytes(), &self.verifying, Algorithm::HS256)
            .map_err(|_| Malformed::SignatureEncoding)?;
        if !good {
            return Err(Error::Signature);
        }
        let Object(claims) = serde_json::from_slice(&payload).map_err(|error| match error.to_string() {
            text if text.starts_with("number out of range") => Error::Claim("A number in the token is not finite"),
            _ => Malformed::PayloadJson.into(),
        })?;
        let claims = Claims::from_object(claims)?;
        self.check_parties(&claims)?;
        Ok(claims)
    }

    fn check_header(&self, header: &Map<String, Value>) -> Result<(), Error> {
        if FORBIDDEN.iter().any(|name| header.contains_key(*name)) {
            return Err(Error::Header(
                "The header names crit, b64, zip, jwk, jku, x5u or x5c, which are never followed",
            ));
        }
        if header.get("alg").and_then(Value::as_str) != Some("HS256") {
            return Err(Error::Header("The specified alg value is not allowed"));
        }
        match header.get("kid") {
            None => {}
            Some(Value::String(kid)) if Some(kid) == self.kid.as_ref() => {}
            Some(_) => return Err(Error::Header("The token names a key that is not known here")),
        }
        match header.get("typ") {
            None => Ok(()),
            Some(Value::String(typ)) if typ.eq_ignore_ascii_case("JWT") || typ.eq_ignore_ascii_case("at+jwt") => Ok(()),
            Some(_) => Err(Error::Header("The token's typ is not JWT")),
        }
    }

    fn check_parties(&self, claims: &Claims) -> Result<(), Error> {
        if let Some(issuer) = &self.issuer
            && claims.all.get("iss").and_then(Value::as_str) != Some(issuer)
        {
            return Err(Error::Claim("Invalid issuer"));
        }
        if let Some(audience) = &self.audience
            && !claims.has("aud", &Value::String(audience.clone()))
        {
            return Err(Error::Claim("Invalid audience"));
        }
        Ok(())
    }
}

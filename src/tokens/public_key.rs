//! One public key of a JSON Web Key Set (RFC 7517), as far as it can verify signatures.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Value, json};

use crate::tokens::header;
use crate::tokens::key::Mark;

/// The longest RSA modulus that is verified with, in bytes.
const LONGEST_MODULUS: usize = 1024;

/// A key of another issuer.
#[derive(Debug)]
pub(super) struct PublicKey {
    /// `kid`.
    pub kid: Option<String>,
    /// For which it is good.
    pub algorithms: Vec<Algorithm>,
    /// What verifies.
    pub key: DecodingKey,
    /// Which key it is.
    pub mark: Mark,
    /// About how long one verification takes, in microseconds.
    pub cost: u32,
}

/// What `kty` says of a key: what it may be good for, the key itself, and the members of its thumbprint.
struct Material {
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
    /// RFC 7638: the required members in the order of their names.
    thumbprint: Value,
    cost: u32,
}

impl PublicKey {
    /// Reads a key of `issuer`; `None` for what is no public key for signatures of a kind that is known here.
    pub fn read(issuer: &str, jwk: &Value) -> Option<Self> {
        let kid = optional_text(jwk, "kid")?;
        let is_for_signatures = matches!(optional_text(jwk, "use")?, None | Some("sig"));
        if !is_for_signatures || !may_verify(jwk.get("key_ops")) {
            return None;
        }
        let Material { mut algorithms, key, thumbprint, cost } = match text(jwk, "kty")? {
            "RSA" => rsa(jwk)?,
            "EC" => ec(jwk)?,
            "OKP" => okp(jwk)?,
            // A symmetric key in a published set is not secret.
            _ => return None,
        };
        if let Some(own) = optional_text(jwk, "alg")? {
            algorithms.retain(|algorithm| header::one_name(own).parse().ok() == Some(*algorithm));
        }
        if algorithms.is_empty() {
            return None;
        }
        let mark = Mark::published(issuer, thumbprint.to_string().as_bytes(), kid, &algorithms);
        Some(Self { kid: kid.map(str::to_owned), algorithms, key, mark, cost })
    }
}

fn text<'a>(jwk: &'a Value, name: &str) -> Option<&'a str> {
    jwk.get(name)?.as_str()
}

/// A member that may be left out; `None` where it is no text.
fn optional_text<'a>(jwk: &'a Value, name: &str) -> Option<Option<&'a str>> {
    match jwk.get(name) {
        None => Some(None),
        Some(value) => value.as_str().map(Some),
    }
}

fn may_verify(key_ops: Option<&Value>) -> bool {
    key_ops.is_none_or(|ops| ops.as_array().is_some_and(|ops| ops.iter().any(|op| op == "verify")))
}

fn decode(jwk: &Value, name: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text(jwk, name)?.trim_end_matches('=')).ok()
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A number without leading zero bytes: RFC 7518 2 allows none, and some issuers write one.
fn number(jwk: &Value, name: &str) -> Option<Vec<u8>> {
    let bytes = decode(jwk, name)?;
    let start = bytes.iter().position(|byte| *byte != 0)?;
    bytes.get(start..).map(<[u8]>::to_vec)
}

fn rsa(jwk: &Value) -> Option<Material> {
    let (modulus, exponent) = (number(jwk, "n")?, number(jwk, "e")?);
    if modulus.len() > LONGEST_MODULUS {
        return None;
    }
    Some(Material {
        algorithms: vec![
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
        ],
        key: DecodingKey::from_rsa_raw_components(&modulus, &exponent),
        thumbprint: json!({"e": encode(&exponent), "kty": "RSA", "n": encode(&modulus)}),
        // It grows with the square of the length: 20 for 2048 bits.
        cost: u32::try_from(modulus.len() * modulus.len() / 3277).unwrap_or(u32::MAX).max(20),
    })
}

fn ec(jwk: &Value) -> Option<Material> {
    let curve = text(jwk, "crv")?;
    let (size, algorithm, cost) = match curve {
        "P-256" => (32, Algorithm::ES256, 40),
        "P-384" => (48, Algorithm::ES384, 250),
        _ => return None,
    };
    let (x, y) = (coordinate(jwk, "x", size)?, coordinate(jwk, "y", size)?);
    let point = [&[4][..], &x, &y].concat();
    Some(Material {
        algorithms: vec![algorithm],
        key: DecodingKey::from_ec_der(&point),
        thumbprint: json!({"crv": curve, "kty": "EC", "x": encode(&x), "y": encode(&y)}),
        cost,
    })
}

/// A coordinate at the size of its field (RFC 7518 6.2.1.2), whatever zeros it was written with.
fn coordinate(jwk: &Value, name: &str, size: usize) -> Option<Vec<u8>> {
    let number = number(jwk, name)?;
    let zeros = size.checked_sub(number.len())?;
    Some([vec![0; zeros], number].concat())
}

fn okp(jwk: &Value) -> Option<Material> {
    let x = decode(jwk, "x").filter(|x| x.len() == 32 && text(jwk, "crv") == Some("Ed25519"))?;
    Some(Material {
        algorithms: vec![Algorithm::EdDSA],
        key: DecodingKey::from_ed_der(&x),
        thumbprint: json!({"crv": "Ed25519", "kty": "OKP", "x": encode(&x)}),
        cost: 40,
    })
}

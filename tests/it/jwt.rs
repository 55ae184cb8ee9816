//! Tokens made by hand: signed with any key, any header, any claims.

use aws_lc_rs::hmac;
use serde_json::{Map, Value, json};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::harness::SECRET;

/// Seconds since the epoch.
pub fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// base64url without padding.
pub fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0_u32, |group, &b| group << 8 | u32::from(b)) << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            text.push(char::from(ALPHABET[(group >> (18 - 6 * place) & 63) as usize]));
        }
    }
    text
}

/// The bytes of base64url text without padding.
pub fn from_base64url(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (mut group, mut bits) = (0_u32, 0);
    for c in text.bytes() {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => panic!("no base64url: {text}"),
        };
        group = group << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((group >> bits & 0xff) as u8);
        }
    }
    bytes
}

/// The claims of a token, unverified.
pub fn claims_of(token: &str) -> Value {
    serde_json::from_slice(&from_base64url(token.split('.').nth(1).unwrap())).unwrap()
}

/// The three parts, signed with HMAC by `algorithm` over the texts as they stand.
pub fn sign_text(header: &str, claims: &str, secret: &[u8], algorithm: hmac::Algorithm) -> String {
    let signed = format!("{}.{}", base64url(header.as_bytes()), base64url(claims.as_bytes()));
    let tag = hmac::sign(&hmac::Key::new(algorithm, secret), signed.as_bytes());
    format!("{signed}.{}", base64url(tag.as_ref()))
}

/// An HS256 token of these claims, with the tests' secret.
pub fn sign(claims: &Value) -> String {
    sign_text(r#"{"alg":"HS256","typ":"JWT"}"#, &claims.to_string(), SECRET.as_bytes(), hmac::HMAC_SHA256)
}

/// A `jti` that no other token of this run has.
pub fn fresh_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("00000000-0000-4000-8000-{:04x}{:08x}", std::process::id() & 0xffff, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The claims of a good access token, as flask-jwt-extended writes them.
pub fn claims(subject: &str) -> Map<String, Value> {
    let now = now();
    let claims = json!({
        "fresh": false, "iat": now, "nbf": now, "exp": now + 900,
        "jti": fresh_id(), "type": "access", "sub": subject,
    });
    let Value::Object(claims) = claims else { unreachable!() };
    claims
}

/// Those claims with `changes` laid over; a change to null takes the claim away.
pub fn claims_with(subject: &str, changes: &Value) -> Value {
    let mut claims = claims(subject);
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            claims.remove(name);
        } else {
            claims.insert(name.clone(), value.clone());
        }
    }
    Value::Object(claims)
}

/// A good access token of `subject`, as flask-jwt-extended makes it.
pub fn access(subject: &str) -> String {
    sign(&claims_with(subject, &json!({})))
}

/// A token with changes laid over the claims of a good access token.
pub fn token_with(subject: &str, changes: &Value) -> String {
    sign(&claims_with(subject, changes))
}

#[test]
fn base64url_is_its_own_inverse() {
    for bytes in [&b""[..], b"f", b"fo", b"foo", b"foob", b"\xff\xfe\xfd\xfc"] {
        assert_eq!(from_base64url(&base64url(bytes)), bytes);
    }
    assert_eq!(base64url(b"\xfb\xff\xfeA"), "-__-QQ");
}

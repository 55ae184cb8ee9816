//! Identity providers as the tests need them: their keys, their tokens, and a gateway that trusts them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::{Value, json};

use crate::harness::{Gateway, Setup, await_that};
use crate::jwt::{self, base64url, now};
use crate::origin::Origin;
use crate::wire::{Response, get};

pub const ISSUER: &str = "https://id.example.com/realms/main";
pub const FLASK: &str = "the-flask-service";
pub const FLASK_SECRET: &str = "another-secret-that-a-flask-service-shares-with-us";

/// A key of an identity provider.
pub struct Key {
    pub kid: &'static str,
    pub algorithm: Algorithm,
    pub key: EncodingKey,
}

impl Key {
    pub fn new(kid: &'static str, algorithm: Algorithm) -> Self {
        let key = match algorithm {
            Algorithm::EdDSA => {
                EncodingKey::from_ed_der(Ed25519KeyPair::generate().unwrap().to_pkcs8v1().unwrap().as_ref())
            }
            Algorithm::ES256 | Algorithm::ES384 => {
                let curve = if algorithm == Algorithm::ES256 {
                    &ECDSA_P256_SHA256_FIXED_SIGNING
                } else {
                    &ECDSA_P384_SHA384_FIXED_SIGNING
                };
                EncodingKey::from_ec_der(EcdsaKeyPair::generate(curve).unwrap().to_pkcs8v1().unwrap().as_ref())
            }
            _ => {
                let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
                let pkcs8 = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
                EncodingKey::from_rsa_der(&pkcs8.as_ref()[26..])
            }
        };
        Self { kid, algorithm, key }
    }

    pub fn public(&self) -> Value {
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&self.key, self.algorithm).unwrap()).unwrap();
        jwk["kid"] = json!(self.kid);
        jwk["use"] = json!("sig");
        jwk
    }

    pub fn sign(&self, claims: &Value) -> String {
        self.sign_with(&json!({"alg": self.algorithm, "typ": "JWT", "kid": self.kid}), claims)
    }

    pub fn sign_with(&self, header: &Value, claims: &Value) -> String {
        let encode = |value: &Value| base64url(value.to_string().as_bytes());
        let message = format!("{}.{}", encode(header), encode(claims));
        let signature = crypto::sign(message.as_bytes(), &self.key, self.algorithm).unwrap();
        format!("{message}.{signature}")
    }
}

pub fn set(keys: &[&Key]) -> String {
    json!({"keys": keys.iter().map(|key| key.public()).collect::<Vec<_>>()}).to_string()
}

/// The claims of an access token as Keycloak writes it, with `changes`; a change to null takes the claim away.
pub fn claims(changes: Value) -> Value {
    let mut claims = json!({
        "iss": ISSUER, "sub": "alice", "aud": ["app", "account"], "exp": now() + 300, "iat": now(), "jti": jwt::fresh_id(),
        "typ": "Bearer", "azp": "app", "sid": "a-session-there", "scope": "openid email",
        "preferred_username": "alice.liddell", "realm_access": {"roles": ["analyst", "offline_access", "two words"]},
    });
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims
}

/// Where a provider publishes its keys.
pub struct Provider {
    pub origin: Origin,
    pub document: Arc<Mutex<String>>,
    pub up: Arc<AtomicBool>,
}

impl Provider {
    pub fn start(keys: &[&Key]) -> Self {
        let (document, up) = (Arc::new(Mutex::new(set(keys))), Arc::new(AtomicBool::new(true)));
        let (text, works) = (Arc::clone(&document), Arc::clone(&up));
        let origin = Origin::scripted(move |exchange| {
            if !works.load(Ordering::Relaxed) {
                return exchange.answer("500 Internal Server Error", "", "");
            }
            let text = text.lock().unwrap().clone();
            exchange.answer("200 OK", "Content-Type: application/json\r\n", &text);
        });
        Self { origin, document, up }
    }

    pub fn url(&self) -> String {
        format!("http://{}/realms/main/certs?x=y", self.origin.address)
    }
}

/// Routes for our own users, for the provider's, for the Flask service's, for both, and for a role of the provider's.
pub fn setup(origin: &Origin, trusted: Value) -> Setup {
    Setup::new(origin.address).set("tokens.trusted", json!([trusted, flask()])).and_routes(json!([
        {"path": "/theirs/*", "upstream": "app", "auth": {"issuers": [ISSUER]}},
        {"path": "/flask", "upstream": "app", "auth": {"issuers": [FLASK]}},
        {"path": "/both", "upstream": "app", "auth": {"issuers": ["local", ISSUER]}},
        {"path": "/analysts", "upstream": "app", "auth": {"issuers": [ISSUER], "roles": ["analyst"]}},
        {"path": "/admins", "upstream": "app", "auth": {"issuers": [ISSUER], "roles": ["admin"]}},
    ]))
}

pub fn flask() -> Value {
    json!({"issuer": FLASK, "secret": FLASK_SECRET})
}

pub fn keycloak(source: &str, value: &str) -> Value {
    json!({"issuer": ISSUER, source: value, "audience": "app", "roles_claim": "realm_access.roles"})
}

#[track_caller]
pub fn ask(gateway: &Gateway, path: &str, token: &str) -> Response {
    get(path).bearer(token).send(gateway.public)
}

#[track_caller]
pub fn await_keys(gateway: &Gateway, token: &str) {
    await_that("the keys are fetched", || ask(gateway, "/theirs/a", token).status == 200);
}

pub fn flask_token(changes: Value) -> String {
    let mut all = jwt::claims_with("alice", &json!({"iss": FLASK}));
    all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    all.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    let header = r#"{"alg":"HS256","typ":"JWT"}"#;
    jwt::sign_text(header, &all.to_string(), FLASK_SECRET.as_bytes(), aws_lc_rs::hmac::HMAC_SHA256)
}

//! One key of our own: made here, or read back as the store kept it.

use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, crypto};

use crate::config;
use crate::secret::Secret;
use crate::tokens::{Error, Malformed, SignError};

/// Length of an HS256 key that is made here.
const HMAC_BYTES: usize = 48;

/// What stands before the RSAPrivateKey (RFC 8017) in the PKCS #8 form of a 2048 bit key; jsonwebtoken wants it bare.
const RSA_PREFIX: usize = 26;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// No random numbers, or no memory.
    #[error("the system gives no random numbers for a signing key")]
    Random,
    /// The store holds an algorithm that this version does not know.
    #[error("the signing key {kid} is of the unknown algorithm {algorithm}; run the version that made it")]
    Algorithm {
        /// Which key.
        kid: String,
        /// Its algorithm.
        algorithm: String,
    },
    /// The bytes are no key.
    #[error(
        "the signing key {kid} cannot be read; restore the database, or revoke it with `portcullis keys revoke {kid}`"
    )]
    Unreadable {
        /// Which key.
        kid: String,
    },
}

/// Which key signed a token: equal only for equal key, name and algorithms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Of the key itself.
    key: [u8; 16],
    /// Of its name and algorithms.
    terms: [u8; 16],
}

impl Mark {
    /// Of a secret or private key; `scope` tells ours from those of each issuer.
    pub(super) fn of(scope: &str, kid: Option<&str>, algorithm: &str, bytes: &[u8]) -> Self {
        let parts = [scope.as_bytes(), kid.unwrap_or("\0").as_bytes(), algorithm.as_bytes(), bytes];
        Self { key: hash(&parts), terms: [0; 16] }
    }

    /// Of a key that `issuer` publishes, by its thumbprint (RFC 7638).
    pub(super) fn published(issuer: &str, thumbprint: &[u8], kid: Option<&str>, algorithms: &[Algorithm]) -> Self {
        let names = format!("{algorithms:?}");
        let terms = hash(&[kid.unwrap_or("\0").as_bytes(), names.as_bytes()]);
        Self { key: hash(&[issuer.as_bytes(), thumbprint]), terms }
    }

    /// Whether it is the same key, under whatever name and for whatever algorithm.
    pub(super) fn is_same_key(self, other: Self) -> bool {
        self.key == other.key
    }
}

fn hash(parts: &[&[u8]]) -> [u8; 16] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    context.finish().as_ref().first_chunk().copied().unwrap_or_default()
}

/// The bytes of a new key for `algorithm`: of HS256 the secret, else PKCS #8, of RS256 RFC 8017.
///
/// # Errors
/// [`KeyError::Random`].
pub fn generate(algorithm: config::Algorithm) -> Result<Secret, KeyError> {
    let made = match algorithm {
        config::Algorithm::Hs256 => {
            let mut secret = [0; HMAC_BYTES];
            aws_lc_rs::rand::fill(&mut secret).map(|()| Some(Secret::new(secret)))
        }
        config::Algorithm::EdDsa => {
            Ed25519KeyPair::generate().and_then(|pair| pair.to_pkcs8v1()).map(|der| Some(Secret::new(der.as_ref())))
        }
        config::Algorithm::Es256 => EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)
            .and_then(|pair| pair.to_pkcs8v1())
            .map(|der| Some(Secret::new(der.as_ref()))),
        config::Algorithm::Rs256 => KeyPair::generate(KeySize::Rsa2048)
            .and_then(|pair| AsDer::<Pkcs8V1Der<'_>>::as_der(&pair))
            .map(|der| der.as_ref().get(RSA_PREFIX..).map(Secret::new)),
    };
    made.ok().flatten().ok_or(KeyError::Random)
}

/// See the module.
pub(super) struct Key {
    kid: Option<String>,
    algorithm: config::Algorithm,
    signing: EncodingKey,
    verifying: DecodingKey,
    /// What may be published.
    public: Option<Jwk>,
    mark: Mark,
}

impl Key {
    /// The shared HS256 secret: tokens of it name no key.
    pub fn shared(secret: &Secret) -> Self {
        Self::hmac(None, secret)
    }

    /// A key as the store kept it.
    pub fn stored(kid: &str, algorithm: &str, secret: &Secret) -> Result<Self, KeyError> {
        let found = config::Algorithm::ALL.into_iter().find(|known| known.as_str() == algorithm);
        let unknown = || KeyError::Algorithm { kid: kid.to_owned(), algorithm: algorithm.to_owned() };
        let algorithm = found.ok_or_else(unknown)?;
        let signing = match algorithm {
            config::Algorithm::Hs256 => return Ok(Self::hmac(Some(kid.to_owned()), secret)),
            config::Algorithm::EdDsa => EncodingKey::from_ed_der(secret.expose()),
            config::Algorithm::Es256 => EncodingKey::from_ec_der(secret.expose()),
            config::Algorithm::Rs256 => EncodingKey::from_rsa_der(secret.expose()),
        };
        let unreadable = |_| KeyError::Unreadable { kid: kid.to_owned() };
        let mut public = Jwk::from_encoding_key(&signing, jwa(algorithm)).map_err(unreadable)?;
        let verifying = DecodingKey::from_jwk(&public).map_err(unreadable)?;
        public.common.key_id = Some(kid.to_owned());
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        let mark = Mark::of("", Some(kid), algorithm.as_str(), secret.expose());
        Ok(Self { kid: Some(kid.to_owned()), algorithm, signing, verifying, public: Some(public), mark })
    }

    fn hmac(kid: Option<String>, secret: &Secret) -> Self {
        let algorithm = config::Algorithm::Hs256;
        Self {
            mark: Mark::of("", kid.as_deref(), algorithm.as_str(), secret.expose()),
            kid,
            algorithm,
            signing: EncodingKey::from_secret(secret.expose()),
            verifying: DecodingKey::from_secret(secret.expose()),
            public: None,
        }
    }

    /// What tokens call it.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Its `alg`.
    pub fn algorithm(&self) -> &'static str {
        self.algorithm.as_str()
    }

    /// Its public half, where there is one.
    pub fn public(&self) -> Option<&Jwk> {
        self.public.as_ref()
    }

    /// Which key it is.
    pub fn mark(&self) -> Mark {
        self.mark
    }

    /// The signature of `message`, in base64url.
    pub fn sign(&self, message: &str) -> Result<String, SignError> {
        Ok(crypto::sign(message.as_bytes(), &self.signing, jwa(self.algorithm))?)
    }

    /// Whether `signature` is that of `message`.
    pub fn verify(&self, message: &str, signature: &str) -> Result<(), Error> {
        check(message, signature, &self.verifying, jwa(self.algorithm))
    }
}

/// Whether `signature` is that of `message` by this key and algorithm.
pub(super) fn check(message: &str, signature: &str, key: &DecodingKey, algorithm: Algorithm) -> Result<(), Error> {
    // A signature that is no base64url has an error of its own.
    let good = crypto::verify(signature, message.as_bytes(), key, algorithm);
    if good.map_err(|_| Malformed::SignatureEncoding)? { Ok(()) } else { Err(Error::Signature) }
}

const fn jwa(algorithm: config::Algorithm) -> Algorithm {
    match algorithm {
        config::Algorithm::Hs256 => Algorithm::HS256,
        config::Algorithm::EdDsa => Algorithm::EdDSA,
        config::Algorithm::Es256 => Algorithm::ES256,
        config::Algorithm::Rs256 => Algorithm::RS256,
    }
}

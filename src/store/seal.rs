//! Encryption of the signing keys at rest: AES-256-GCM under a key that is derived from `store.encryption_key`.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};

use crate::secret::Secret;
use crate::store::Error;

/// Tells this use of the encryption key from any other. It is behind every encrypted key: never to be changed.
const PURPOSE: &[u8] = b"portcullis signing keys 1";

/// See the module.
pub(super) struct Seal(RandomizedNonceKey);

impl Seal {
    /// From `store.encryption_key`.
    pub fn new(key: &Secret) -> Result<Self, Error> {
        let mut derived = [0; 32];
        Salt::new(HKDF_SHA256, b"")
            .extract(key.expose())
            .expand(&[PURPOSE], &AES_256_GCM)
            .and_then(|material| material.fill(&mut derived))
            .and_then(|()| RandomizedNonceKey::new(&AES_256_GCM, &derived))
            .map(Self)
            .map_err(|_| Error::Seal)
    }

    /// The secret of the key `kid`, encrypted: nonce, text, tag. It opens under that name only.
    pub fn close(&self, kid: &str, secret: &Secret) -> Result<Vec<u8>, Error> {
        let mut text = secret.expose().to_vec();
        let nonce = self.0.seal_in_place_append_tag(Aad::from(kid), &mut text).map_err(|_| Error::Seal)?;
        Ok([nonce.as_ref().as_slice(), &text].concat())
    }

    /// What was encrypted; `None` when it was under another key or name, or has changed since.
    pub fn open(&self, kid: &str, sealed: &[u8]) -> Option<Secret> {
        let (nonce, text) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut text = text.to_vec();
        let opened = self.0.open_in_place(nonce, Aad::from(kid), &mut text).ok()?;
        Some(Secret::new(&*opened))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_what_it_closed_and_nothing_else() {
        let (seal, other) = (Seal::new(&Secret::new([1; 32])).unwrap(), Seal::new(&Secret::new([2; 32])).unwrap());
        let secret = Secret::new("the key itself");
        let closed = seal.close("kid", &secret).unwrap();
        assert!(!closed.windows(8).any(|part| part == b"the key "));
        assert_eq!(seal.open("kid", &closed).unwrap().expose(), secret.expose());
        assert_ne!(seal.close("kid", &secret).unwrap(), closed, "a nonce is never used twice");
        assert!(seal.open("kid2", &closed).is_none() && other.open("kid", &closed).is_none());
        assert!(seal.open("kid", &closed[..NONCE_LEN - 1]).is_none() && seal.open("kid", &[]).is_none());
        for at in 0..closed.len() {
            let mut changed = closed.clone();
            changed[at] ^= 1;
            assert!(seal.open("kid", &changed).is_none(), "byte {at}");
        }
    }
}

//! The keys of trusted issuers: taken in as they are fetched, and asked for when a token needs them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::Keyring;
use crate::config::{self, KeySetUrl};
use crate::tokens::{KeySet, Trust};

/// By issuer.
pub(super) type Bells = HashMap<String, Notify>;

/// One for each issuer of the configuration. Whoever waits does so for one configuration only.
pub(super) fn bells(tokens: &config::Tokens) -> Bells {
    tokens.trusted.iter().map(|trusted| (trusted.issuer.clone(), Notify::new())).collect()
}

impl Keyring {
    /// Takes what was fetched of `issuer` from `url` in the place of what was known of it; nothing, if that is not where its
    /// keys are any more.
    pub async fn learn(&self, issuer: &str, url: &KeySetUrl, keys: KeySet, at: Instant) {
        let _source = self.0.source.lock().await;
        let mut trust = Trust::clone(&self.0.trust.load());
        if let Some(known) = trust.foreign.iter_mut().find(|foreign| foreign.is_fetched_from(issuer, url)) {
            *known = known.with_keys(keys, at);
            self.swap(trust);
        }
    }

    /// How long ago the keys of each issuer were fetched; those that were not are left out.
    pub fn ages(&self, now: Instant) -> Vec<(String, Duration)> {
        let trust = self.0.trust.load();
        trust.foreign.iter().filter_map(|foreign| Some((foreign.issuer().to_owned(), foreign.age(now)?))).collect()
    }

    /// Which of the trusted issuers a token names; nothing of it has been verified.
    pub fn issuer_of(&self, token: &str) -> Option<String> {
        self.0.trust.load().issuer_of(token).map(str::to_owned)
    }

    /// Waits until somebody has brought a token of `issuer` by a key that it may have published since.
    pub async fn unknown(&self, issuer: &str) {
        match self.0.unknown.load_full().get(issuer) {
            Some(bell) => bell.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Tells whoever waits in [`unknown`](Self::unknown).
    pub(super) fn ring_for(&self, issuer: &str) {
        if let Some(bell) = self.0.unknown.load().get(issuer) {
            bell.notify_waiters();
        }
    }
}

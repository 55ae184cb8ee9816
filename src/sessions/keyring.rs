//! The keys as this process has them: our own, read from the store, swapped whole when that changes, and moved on when their
//! time comes; and those of trusted issuers, as they are fetched. Every process on a store does the same; the store's
//! conditions see to it that each step is taken once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Mutex;

use super::blocklist::Now;
use crate::clock::UnixTime;
use crate::config::{self, Algorithm};
use crate::store::{self, KeyList, KeyState, SigningKey, Store};
use crate::tokens::{self, Foreign, KeyError, KeySetError, Mark, Material, Ring, Trust, Verified, generate};

mod issuers;

use issuers::{Bells, bells};

/// How long a standby is known to everybody before it signs: longer than others may keep the published keys.
pub const STANDBY: Duration = Duration::from_secs(15 * 60);

/// How long after a change another process may still sign with the old key, because it has not heard of it.
const SLACK: Duration = Duration::from_secs(60);

/// Between two looks whether a standby's time has come.
const LOOK: Duration = Duration::from_millis(500);

/// Between two purges of keys that nobody needs any more, in looks.
const PURGE: u32 = 600;

/// Why there is no key ring.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A key that cannot be made or used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A key set that the configuration names.
    #[error("tokens.trusted: the jwks_file of {issuer} cannot be used: {source}")]
    KeySet {
        /// Whose.
        issuer: String,
        /// Why.
        source: KeySetError,
    },
}

impl KeyringError {
    /// Whether a key of the configuration or of the store cannot be used, so that a restart does not help.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Store(error) => error.is_configuration(),
            Self::Key(KeyError::Algorithm { .. } | KeyError::Unreadable { .. }) | Self::KeySet { .. } => true,
            Self::Key(KeyError::Random) => false,
        }
    }
}

/// The version of the key ring at which a token's key was last found in it; 0 is never.
#[derive(Debug, Default)]
pub(super) struct Known(AtomicU64);

/// See the module. Clones share it.
#[derive(Clone)]
pub struct Keyring(Arc<Inner>);

struct Inner {
    store: Store,
    trust: ArcSwap<Trust>,
    /// Grows with every change, after it is in.
    version: AtomicU64,
    source: Mutex<Source>,
    /// Of each issuer: somebody has brought a token by a key that it may have published since.
    unknown: ArcSwap<Bells>,
}

/// What the ring was made of.
struct Source {
    tokens: config::Tokens,
    states: Vec<(String, KeyState)>,
    unreadable: usize,
    /// Keys that were read, and are of no use to this version.
    unusable: usize,
    /// How long tokens live at most, the leeway included.
    life: Duration,
}

impl Keyring {
    /// Reads the keys that there are; makes none.
    ///
    /// # Errors
    /// The store's, or a key that cannot be read.
    pub async fn load(store: Store, tokens: &config::Tokens) -> Result<Self, KeyringError> {
        let list = store.load_keys().await?;
        if let Some(error) = list.unreadable.into_iter().next() {
            return Err(error.into());
        }
        let life = tokens.access_ttl.max(tokens.refresh_ttl) + tokens.leeway;
        let (ring, unusable) = ring(tokens, &list.keys);
        if let Some(error) = unusable.into_iter().next() {
            return Err(error.into());
        }
        let trust = Trust { ring: Arc::new(ring), foreign: foreign(tokens, &[])? };
        let source = Source { tokens: tokens.clone(), states: states(&list.keys), unreadable: 0, unusable: 0, life };
        let (trust, version) = (ArcSwap::from_pointee(trust), AtomicU64::new(1));
        Ok(Self(Arc::new(Inner { store, trust, version, source: Mutex::new(source), unknown: ArcSwap::default() })))
    }

    /// Takes another configuration: sees to it that there is a key of its algorithm. What was fetched of issuers that it
    /// trusts still is known. `longest` is the longest life of any
    /// token ever issued.
    ///
    /// # Errors
    /// The store's, a key set that cannot be used, or a system without random numbers.
    pub async fn settle(&self, tokens: &config::Tokens, longest: Duration, now: UnixTime) -> Result<(), KeyringError> {
        let mut source = self.0.source.lock().await;
        let life = longest + tokens.leeway;
        let foreign = foreign(tokens, &self.0.trust.load().foreign)?;
        for step in plan(tokens, &self.0.store.load_keys().await?.keys) {
            self.take(step, tokens.algorithm, (now, life)).await?;
        }
        let list = self.0.store.load_keys().await?;
        *source = Source { tokens: tokens.clone(), states: Vec::new(), unreadable: 0, unusable: 0, life };
        self.publish(&mut source, list, foreign);
        self.0.unknown.store(Arc::new(bells(tokens)));
        Ok(())
    }

    async fn take(
        &self,
        step: Step,
        algorithm: Algorithm,
        (now, life): (UnixTime, Duration),
    ) -> Result<(), KeyringError> {
        let (store, until) = (&self.0.store, last_use(now, life));
        match step {
            Step::Retire => store.retire_key(until).await?,
            Step::DropStandby(algorithm) => store.drop_standby(algorithm).await?,
            Step::Replace(old) => {
                let key = make(algorithm, KeyState::Signing, now)?;
                let kid = key.kid.clone();
                if store.replace_key(old, key, until).await? {
                    tracing::info!(kid, algorithm = algorithm.as_str(), "a new key signs from now on");
                }
            }
            Step::Announce => {
                let signs_from = now + STANDBY;
                let key = make(algorithm, KeyState::Standby { signs_from }, now)?;
                let kid = key.kid.clone();
                if store.add_standby(key).await? {
                    tracing::info!(kid, algorithm = algorithm.as_str(), %signs_from, "a new key is published, and will sign");
                }
            }
        }
        Ok(())
    }

    /// Takes in what has changed in the store. Keys that cannot be read are left out, with a word.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn read(&self) -> Result<(), store::Error> {
        let mut source = self.0.source.lock().await;
        let list = self.0.store.load_keys().await?;
        if source.states != states(&list.keys) || source.unreadable != list.unreadable.len() {
            for error in &list.unreadable {
                tracing::error!(%error, "a signing key cannot be used here");
            }
            let (foreign, signed) = (self.0.trust.load().foreign.clone(), self.signs());
            self.publish(&mut source, list, foreign);
            match (signed, self.signs()) {
                (true, false) => {
                    tracing::error!("no key can sign: nobody can register, log in or refresh until one can")
                }
                (false, true) => tracing::info!("a key can sign again"),
                (true, true) | (false, false) => {}
            }
        }
        Ok(())
    }

    fn publish(&self, source: &mut Source, list: KeyList, foreign: Vec<Foreign>) {
        let (ring, unusable) = ring(&source.tokens, &list.keys);
        for error in &unusable {
            tracing::error!(%error, "a signing key cannot be used here");
        }
        source.unusable = unusable.len();
        source.states = states(&list.keys);
        source.unreadable = list.unreadable.len();
        self.swap(Trust { ring: Arc::new(ring), foreign });
    }

    /// To be called with `source` locked: two at once would undo each other.
    fn swap(&self, trust: Trust) {
        self.0.trust.store(Arc::new(trust));
        self.0.version.fetch_add(1, Ordering::Release);
    }

    /// Moves the keys on, for ever: a standby whose time has come signs, and what nobody needs is forgotten.
    pub(super) async fn tend(&self, may_forget: &impl Fn(Now) -> bool) {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut failing = false;
        for count in 0_u32.. {
            looks.tick().await;
            let now = Now::read();
            let done = self.move_on(now.wall, count % PURGE == 0 && may_forget(now)).await;
            if let Err(error) = &done
                && !failing
            {
                tracing::warn!(%error, "the signing keys cannot be tended; trying again");
            }
            failing = done.is_err();
        }
    }

    async fn move_on(&self, now: UnixTime, purge: bool) -> Result<(), KeyringError> {
        let (due, missing, tokens, life) = {
            let source = self.0.source.lock().await;
            let mut ends = source.states.iter();
            let due = ends.any(|(_, state)| matches!(state, KeyState::Standby { signs_from } if *signs_from <= now));
            // One that cannot be read may be the one that signs: then another would not be taken anyway.
            let missing = !self.signs() && source.unreadable + source.unusable == 0;
            (due, missing, source.tokens.clone(), source.life)
        };
        if due && self.0.store.promote_standby(now, last_use(now, life)).await? {
            tracing::info!("the standby key signs from now on");
        }
        if missing && !due {
            self.take(Step::Replace(None), tokens.algorithm, (now, life)).await?;
        }
        if due || missing {
            self.read().await?;
        }
        if purge {
            self.0.store.purge_keys(now).await?;
        }
        Ok(())
    }

    /// Whether a key of that name was read.
    #[cfg(test)]
    pub(super) async fn knows(&self, kid: &str) -> bool {
        self.0.source.lock().await.states.iter().any(|(known, _)| known == kid)
    }

    /// Whether there is a key to sign with.
    pub fn signs(&self) -> bool {
        self.0.trust.load().ring.signs()
    }

    /// All that is trusted at present.
    pub(super) fn trust(&self) -> Arc<Trust> {
        self.0.trust.load_full()
    }

    /// What a token with a good signature says: for commands, which ask once.
    ///
    /// # Errors
    /// What is wrong with the token that does not change with time.
    pub fn read_token(&self, token: &str, tokens: &config::Tokens) -> Result<tokens::Claims, tokens::Error> {
        Ok(self.0.trust.load().verify(token, tokens)?.claims)
    }

    /// Whose signature it is, with the version of the ring that says so.
    pub(super) fn verify(&self, token: &str, tokens: &config::Tokens) -> Result<(Verified, Known), tokens::Error> {
        // Before the ring is looked at: it may be newer than this says, never older.
        let version = self.0.version.load(Ordering::Acquire);
        let trust = self.0.trust.load();
        let verified = trust.verify(token, tokens);
        // A key set without names, or with a name that was used again, looks like a forgery until it is fetched anew.
        if matches!(verified, Err(tokens::Error::ForeignKey | tokens::Error::Signature))
            && let Some(issuer) = trust.issuer_of(token)
        {
            self.ring_for(issuer);
        }
        Ok((verified?, Known(AtomicU64::new(version))))
    }

    /// Whether the key that verified `token` still does, looked up only when the ring has changed since `known` was noted.
    pub(super) fn still_verifies(&self, token: &str, mark: Mark, known: &Known) -> bool {
        let version = self.0.version.load(Ordering::Acquire);
        if known.0.load(Ordering::Relaxed) == version {
            return true;
        }
        let verifies = self.0.trust.load().still_verifies(token, mark);
        if verifies {
            known.0.store(version, Ordering::Relaxed);
        }
        verifies
    }
}

/// What is to be done so that the keys fit the configuration.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// No stored key signs any more.
    Retire,
    /// A standby of another algorithm goes.
    DropStandby(&'static str),
    /// A new key signs at once, in the place of this one.
    Replace(Option<String>),
    /// A new key is published, and signs later.
    Announce,
}

/// A published key gives way to a published key only after that was known for a while. Where either is HS256 nobody could
/// know them, so that nobody needs to wait.
fn plan(tokens: &config::Tokens, keys: &[SigningKey]) -> Vec<Step> {
    let wanted = tokens.algorithm;
    let signing = keys.iter().find(|key| key.state == KeyState::Signing);
    let standby = keys.iter().find(|key| matches!(key.state, KeyState::Standby { .. }));
    let fits = |key: &SigningKey| key.algorithm == wanted.as_str();
    if tokens.secret.is_some() && wanted == Algorithm::Hs256 {
        let retire = signing.map(|_| Step::Retire);
        // No algorithm at all: whichever it is, it goes.
        return retire.into_iter().chain(standby.map(|_| Step::DropStandby(""))).collect();
    }
    let drop = standby.filter(|standby| !fits(standby)).map(|_| Step::DropStandby(wanted.as_str()));
    let next = match signing {
        Some(signing) if fits(signing) => None,
        Some(signing) if wanted.is_public() && signing.algorithm != Algorithm::Hs256.as_str() => {
            (!standby.is_some_and(fits)).then_some(Step::Announce)
        }
        signing => Some(Step::Replace(signing.map(|key| key.kid.clone()))),
    };
    drop.into_iter().chain(next).collect()
}

/// When the last token has expired that is signed by `now`, if tokens live for `life` with the leeway.
pub fn last_use(now: UnixTime, life: Duration) -> UnixTime {
    now + SLACK + life
}

/// A new key, as it is to be stored.
///
/// # Errors
/// A system without random numbers.
pub fn make(algorithm: Algorithm, state: KeyState, now: UnixTime) -> Result<SigningKey, tokens::KeyError> {
    let kid = uuid::Uuid::new_v4().to_string();
    Ok(SigningKey { kid, algorithm: algorithm.as_str().to_owned(), secret: generate(algorithm)?, created: now, state })
}

fn ring(tokens: &config::Tokens, keys: &[SigningKey]) -> (Ring, Vec<tokens::KeyError>) {
    let revoked = |key: &&SigningKey| matches!(key.state, KeyState::Revoked { .. });
    let stored = keys.iter().filter(|key| !revoked(key));
    let stored = stored.map(|SigningKey { kid, algorithm, secret, state, .. }| Material {
        kid,
        algorithm,
        secret,
        signs: *state == KeyState::Signing,
    });
    let stored: Vec<Material<'_>> = stored.collect();
    Ring::new(tokens, &stored, keys.iter().filter(revoked).map(|key| key.kid.clone()).collect())
}

/// Whether the keys that the configuration itself gives of other issuers can be used.
///
/// # Errors
/// [`KeyringError::KeySet`].
pub fn check_trusted(tokens: &config::Tokens) -> Result<(), KeyringError> {
    foreign(tokens, &[]).map(drop)
}

/// The issuers of the configuration; those whose keys were fetched before keep them.
fn foreign(tokens: &config::Tokens, past: &[Foreign]) -> Result<Vec<Foreign>, KeyringError> {
    let make = |trusted: &config::Trusted| {
        let failed = |source| KeyringError::KeySet { issuer: trusted.issuer.clone(), source };
        let mut made = Foreign::new(trusted).map_err(failed)?;
        past.iter().for_each(|past| made.inherit(past));
        Ok(made)
    };
    tokens.trusted.iter().map(make).collect()
}

fn states(keys: &[SigningKey]) -> Vec<(String, KeyState)> {
    keys.iter().map(|key| (key.kid.clone(), key.state)).collect()
}

#[cfg(test)]
mod tests;

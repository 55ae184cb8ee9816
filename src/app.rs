//! The wiring diagram: every part, built from the configuration, once.

use std::sync::Arc;

use crate::accounts::{Accounts, HashError, Hasher};
use crate::clock;
use crate::config::Config;
use crate::gate::{Gate, Worker, route};
use crate::identity::Identity;
use crate::secret::Secret;
use crate::sessions::{Freshness, Sessions};
use crate::store::{self, KeyState, SigningKey, Store};
use crate::telemetry;
use crate::telemetry::access;
use crate::telemetry::metrics::{self, Metrics, Reading};
use crate::upstream::{Pools, Upstreams};

pub use crate::sessions::Feed;

/// Why the program cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The hashing threads.
    #[error("identity.password.argon2: {0}")]
    Hash(#[from] HashError),
    /// The route table.
    #[error(transparent)]
    Table(#[from] route::TableError),
    /// The upstreams.
    #[error("upstreams: {0}")]
    Upstreams(#[source] crate::message::Cause),
    /// The metrics.
    #[error("metrics: {0}")]
    Metrics(#[from] metrics::Error),
    /// The access log's thread.
    #[error("the access log cannot be started: {0}")]
    AccessLog(#[source] std::io::Error),
    /// No random numbers.
    #[error("the system gives no random numbers for a signing key")]
    Random,
}

/// Every part, ready to serve.
pub struct App {
    /// As it was resolved.
    pub config: Config,
    /// Judges and forwards.
    pub gate: Gate,
    sessions: Arc<Sessions>,
    store: Store,
    freshness: Freshness,
    metrics: Metrics,
    access: access::Writer,
}

impl App {
    /// Opens the store, loads every live revocation, and builds the parts in the order of the crate's table. Only when
    /// this has returned may the gateway call itself ready. The [`Feed`] is to be run in the background.
    ///
    /// # Errors
    /// What keeps the program from starting.
    pub async fn build(config: Config) -> Result<(Self, Feed), Error> {
        let store = Store::open(&config.store)?;
        let key = signing_key(&store).await?;
        let longest = config.tokens.access_ttl.max(config.tokens.refresh_ttl);
        let longest = store.raise_longest_lifetime(longest).await?;
        let feed = Feed::load(store.clone(), config.store.clone()).await?;
        let sessions = Arc::new(Sessions::new(&config, store.clone(), &key, &feed, longest));
        let hasher = Hasher::start(config.identity.password.argon2, cores())?;
        let accounts = Accounts::new(store.clone(), hasher, config.identity.password);
        let identity = Identity::new(accounts, Arc::clone(&sessions), &config);
        let upstreams = Upstreams::new(&config).map_err(|error| Error::Upstreams(error.into()))?;
        let metrics = Metrics::new()?;
        let gate = Gate::new(&config, identity, Arc::clone(&sessions), upstreams, &metrics)?;
        let shape = telemetry::log::shape(&config.log);
        let access = access::Writer::start(shape, metrics.lost_lines.clone()).map_err(Error::AccessLog)?;
        let freshness = feed.freshness().clone();
        Ok((Self { config, gate, sessions, store, freshness, metrics, access }, feed))
    }

    /// What a worker thread owns; to be built on it.
    pub fn worker(&self) -> Worker {
        Worker {
            pools: Pools::new(&self.config.upstreams, &self.config.identity_headers),
            access: access::Buffer::new(self.access.clone()),
        }
    }

    /// Whether the store is heard, so that requests can be judged.
    pub fn is_ready(&self) -> bool {
        self.freshness.is_reachable() && !self.sessions.is_stale()
    }

    /// Notices when the store has been silent for too long. To be called by every worker, ten times a second or so.
    pub fn look_at_store(&self) {
        self.freshness.look();
    }

    /// The metrics as text.
    ///
    /// # Errors
    /// The encoder's.
    pub fn metrics(&self) -> Result<Vec<u8>, metrics::Error> {
        self.metrics.encode(Reading {
            revocations: self.sessions.revocations(),
            store_up: self.freshness.is_reachable(),
            feed_silence: self.freshness.silence(),
            stale: self.freshness.is_stale(),
        })
    }

    /// Ends the store's threads after they have done what was asked of them.
    pub fn close(&self) {
        self.store.close();
    }
}

/// One thread a core for hashing: more would only take turns.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The key of the store: made at the first start, and the same ever after.
///
/// # Errors
/// The store's, or a system without random numbers.
pub async fn signing_key(store: &Store) -> Result<SigningKey, Error> {
    let mut secret = [0; 48];
    aws_lc_rs::rand::fill(&mut secret).map_err(|_| Error::Random)?;
    let candidate = SigningKey {
        kid: uuid::Uuid::new_v4().to_string(),
        algorithm: "HS256".into(),
        secret: Secret::new(secret),
        created: clock::now(),
        state: KeyState::Signing,
    };
    Ok(store.load_or_make_key(candidate).await?)
}

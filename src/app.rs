//! The wiring diagram: every part, built from the configuration, once.

mod providers;

use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::watch;

use crate::accounts::{Accounts, HashError, Hasher, Ledger};
use crate::clock;
use crate::config::{self, Config};
use crate::gate::{self, Answerers, Gate, Worker, route};
use crate::identity::{Identity, ListingLimiter, openapi};
use crate::sessions::{Blocklist, Freshness, Keyring, KeyringError, Sessions, Truth};
use crate::store::{self, Store};
use crate::telemetry;
use crate::telemetry::access;
use crate::telemetry::audit;
use crate::telemetry::metrics::{self, Connections, Metrics, Reading};
use crate::telemetry::output::{Lost, Output};
use crate::upstream::{Pools, Upstreams};

pub use crate::sessions::Feed;
pub use providers::{Unfetched, consult};

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
    #[error("{0}")]
    Upstreams(#[source] crate::message::Cause),
    /// The metrics.
    #[error("metrics: {0}")]
    Metrics(#[from] metrics::Error),
    /// The audit's file.
    #[error(transparent)]
    Audit(#[from] audit::Error),
    /// The audit's thread.
    #[error("the audit cannot be started: {0}")]
    AuditThread(#[source] std::io::Error),
    /// The signing keys.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
}

impl Error {
    /// Whether the store did not answer or could not be written: the same may work later.
    pub fn is_of_store(&self) -> bool {
        matches!(self, Self::Store(_) | Self::Keyring(KeyringError::Store(_)))
    }

    /// Whether the configuration is wrong, so that a restart does not help.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Store(error) => error.is_configuration(),
            Self::Keyring(error) => error.is_configuration(),
            Self::Table(_) | Self::Upstreams(_) | Self::Audit(_) => true,
            Self::Hash(_) | Self::Metrics(_) | Self::AuditThread(_) => false,
        }
    }
}

/// Every part, ready to serve.
pub struct App {
    editions: watch::Sender<Arc<Edition>>,
    /// What the process was started with: some of it holds until its end.
    first: Config,
    lasting: Lasting,
}

/// What one configuration makes. A reload swaps it as a whole; requests in flight finish on the one they began with.
pub struct Edition {
    /// As it was resolved.
    pub config: Config,
    /// Judges and forwards.
    pub gate: Gate,
}

/// What outlives a reload.
struct Lasting {
    store: Store,
    keyring: Keyring,
    blocklist: Blocklist,
    freshness: Freshness,
    hasher: Hasher,
    attempts: Ledger,
    listings: ListingLimiter,
    metrics: Metrics,
    access: access::Writer,
    audit: audit::Writer,
}

impl App {
    /// Opens the store, loads every live revocation, and builds the parts in the order of the crate's table. Only when
    /// this has returned may the gateway call itself ready. The [`Feed`] is to be run in the background. Access log and
    /// audit go to `output`, where the log is.
    ///
    /// # Errors
    /// What keeps the program from starting.
    pub async fn build(config: Config, output: Output) -> Result<(Self, Feed), Error> {
        let shape = telemetry::log::shape(&config.log);
        // Before the store: a file that cannot be written is an error of the configuration.
        let sink = audit::Sink::open(&config.log.audit, &output, shape)?;
        let store = Store::open(&config.store)?;
        for warning in store.warnings() {
            tracing::warn!("{warning}");
        }
        let keyring = Keyring::load(store.clone(), &config.tokens).await?;
        let sealed = store.seal_keys().await?;
        if sealed > 0 {
            tracing::info!(keys = sealed, "signing keys that were stored plain are encrypted from now on");
        }
        let feed = Feed::load(store.clone(), keyring.clone(), config.store.clone()).await?;
        let metrics = Metrics::new()?;
        let audit = audit::Writer::start(sink).map_err(Error::AuditThread)?;
        let lasting = Lasting {
            keyring,
            blocklist: feed.blocklist().clone(),
            freshness: feed.freshness().clone(),
            hasher: Hasher::start(config.identity.password.argon2, cores())?,
            attempts: Ledger::default(),
            listings: ListingLimiter::default(),
            store,
            metrics,
            access: access::Writer { output, shape },
            audit,
        };
        let edition = Arc::new(lasting.edition(config.clone(), None).await?);
        Ok((Self { editions: watch::Sender::new(edition), first: config, lasting }, feed))
    }

    /// Puts another configuration in the place of the present one. Gives the names of keys that have changed since
    /// the start and that only a restart takes up; all others hold for the next request.
    ///
    /// # Errors
    /// A part that cannot be built; then nothing has changed.
    pub async fn renew(&self, config: Config) -> Result<Vec<&'static str>, Error> {
        let present = self.edition();
        // Opened anew each time: logrotate may have moved the file away.
        let access::Writer { output, shape } = &self.lasting.access;
        let sink = audit::Sink::open(&config.log.audit, output, *shape)?;
        let waiting = config::needs_restart(&self.first, &config);
        let next = self.lasting.edition(config, Some(&present)).await?;
        self.editions.send_replace(Arc::new(next));
        self.lasting.audit.turn_to(sink);
        Ok(waiting)
    }

    /// Opens the audit's file anew, where it has one.
    ///
    /// # Errors
    /// It cannot be written; then the audit goes on where it was.
    pub fn reopen_audit(&self) -> Result<(), audit::Error> {
        let access::Writer { output, shape } = &self.lasting.access;
        self.lasting.audit.turn_to(audit::Sink::open(&self.edition().config.log.audit, output, *shape)?);
        Ok(())
    }

    /// The present edition.
    pub fn edition(&self) -> Arc<Edition> {
        Arc::clone(&self.editions.borrow())
    }

    /// The present edition, and those that follow.
    pub fn editions(&self) -> watch::Receiver<Arc<Edition>> {
        self.editions.subscribe()
    }

    /// Where a worker thread gathers its access lines; to be built on it.
    pub fn access_buffer(&self) -> Rc<access::Buffer> {
        Rc::new(access::Buffer::new(self.lasting.access.clone()))
    }

    /// Whether the store is heard, so that requests can be judged. Where no key can sign, those who are logged in are served
    /// all the same: to take every gateway on the store out of use for that would make it worse.
    pub fn is_ready(&self) -> bool {
        self.lasting.freshness.is_reachable() && !self.lasting.freshness.is_stale()
    }

    /// Notices when the store has been silent for too long. To be called by every worker, ten times a second or so.
    pub fn look_at_store(&self) {
        self.lasting.freshness.look();
    }

    /// The metrics that the parts of the server count by themselves.
    pub fn counters(&self) -> &Metrics {
        &self.lasting.metrics
    }

    /// The metrics as text; `connections` are what the listeners have counted.
    ///
    /// # Errors
    /// The encoder's.
    pub fn metrics(&self, connections: Connections) -> Result<Vec<u8>, metrics::Error> {
        let freshness = &self.lasting.freshness;
        let edition = self.edition();
        self.lasting.metrics.read_servers(edition.gate.upstreams().states());
        self.lasting.metrics.read_key_sets(&self.lasting.keyring.ages(clock::monotonic()));
        self.lasting.metrics.encode(Reading {
            connections,
            attempts: self.lasting.attempts.refused(),
            revocations: self.lasting.blocklist.count(),
            store_up: freshness.is_reachable(),
            feed_silence: freshness.silence(),
            stale: freshness.is_stale(),
            signs: self.lasting.keyring.signs(),
            store_writable: self.lasting.store.is_writable(),
            store_errors: self.lasting.store.errors(),
            lost: self.lost_lines(),
        })
    }

    fn lost_lines(&self) -> Lost {
        let lost = self.lasting.access.output.lost();
        Lost { audit: lost.audit + self.lasting.audit.lost(), ..lost }
    }

    /// What the present edition answers itself, as OpenAPI has it.
    pub fn openapi(&self) -> serde_json::Value {
        openapi::document(&self.edition().config, gate::VERIFY)
    }

    /// Keeps the keys of trusted issuers current, for ever.
    pub async fn follow_providers(&self) {
        let mut editions = self.editions();
        loop {
            let tokens = editions.borrow_and_update().config.tokens.clone();
            tokio::select! {
                () = providers::follow(tokens, self.lasting.keyring.clone()) => {}
                changed = editions.changed() => if changed.is_err() { return },
            }
        }
    }

    /// The keys that tokens are verified by.
    pub fn keyring(&self) -> &Keyring {
        &self.lasting.keyring
    }

    /// Ends the store's threads after they have done what was asked of them, and writes the audit to its end.
    pub fn close(&self) {
        self.lasting.audit.finish();
        self.lasting.store.close();
    }

    /// Writes audit and log to their ends, but does not wait for long: nothing may read them any more.
    pub fn finish_logs(&self) {
        self.lasting.audit.finish();
        self.lasting.access.output.finish();
    }
}

impl Lasting {
    async fn edition(&self, config: Config, previous: Option<&Edition>) -> Result<Edition, Error> {
        let longest = config.tokens.access_ttl.max(config.tokens.refresh_ttl);
        let longest = self.store.raise_longest_lifetime(longest).await?;
        let truth = Truth {
            store: self.store.clone(),
            blocklist: self.blocklist.clone(),
            keyring: self.keyring.clone(),
            freshness: self.freshness.clone(),
        };
        let sessions = Arc::new(Sessions::new(&config, truth, longest));
        let attempts = self.attempts.clone();
        let accounts = Accounts::new(self.store.clone(), self.hasher.clone(), attempts, &config.identity);
        let (audit, listings) = (self.audit.clone(), self.listings.clone());
        let identity = Identity::new(accounts, Arc::clone(&sessions), audit, listings, &config);
        let past = previous.map(|previous| previous.gate.upstreams());
        let upstreams = Upstreams::new(&config, past).map_err(|error| Error::Upstreams(error.into()))?;
        let answerers = Answerers { identity, sessions, upstreams };
        let gate = Gate::new(&config, answerers, &self.metrics, previous.map(|previous| &previous.gate))?;
        // Last: all editions share the keys, and one that could not be built must not change them.
        self.keyring.settle(&config.tokens, longest, clock::now()).await?;
        Ok(Edition { config, gate })
    }
}

impl Edition {
    /// What a worker thread owns of this edition; to be built on it. Connections that `previous` keeps are taken over.
    pub fn worker(&self, access: &Rc<access::Buffer>, previous: Option<&Worker>) -> Worker {
        let previous = previous.map(|previous| &previous.pools);
        let pools = Pools::new(self.gate.upstreams().limited(), &self.config.identity_headers, previous);
        Worker { pools, access: Rc::clone(access) }
    }
}

/// One thread a core for hashing: more would only take turns.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

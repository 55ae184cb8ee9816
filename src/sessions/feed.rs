//! The revocation feed: loads every revocation, then keeps the blocklist and the key ring current from the store.
//!
//! It has a connection of its own to the store. A page is applied to memory before the cursor moves, so that a read that
//! fails, or is given up at any await, skips nothing. The store passes on what this process commits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::clock;
use crate::config::{self, OnStale};
use crate::sessions::blocklist::{Blocklist, Entry, Now};
use crate::sessions::keyring::Keyring;
use crate::store::{Error, Store, Version};

/// How often the store is asked whether anything was written.
const GLANCE: Duration = Duration::from_millis(100);

/// How often new rows are asked for although nothing seems to have been written.
const LOOK: Duration = Duration::from_millis(500);

/// Between two purges of what has expired, and between two batches of one.
const PURGE: Duration = Duration::from_secs(60);
const PURGE_PAUSE: Duration = Duration::from_millis(20);

/// Rows purged at once: few, because logouts wait meanwhile.
const PURGE_BATCH: usize = 1000;

/// Rows read at once: 5 MB.
const PAGE: usize = 100_000;

/// Between two looks whether the store can be written.
const WRITE_CHECK: Duration = Duration::from_secs(1);

/// A store that answers later than this has not answered.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two log lines about a store that stays silent.
const REMINDER: Duration = Duration::from_secs(30);

/// Whether the store was heard recently; shared with everyone who asks. The feed says when it heard the store; how long
/// ago that is, others find out, so that a feed that hangs does not go unnoticed.
#[derive(Clone)]
pub struct Freshness(Arc<State>);

struct State {
    start: Instant,
    heard_ms: AtomicU64,
    stale: AtomicBool,
    reachable: AtomicBool,
    settings: config::Store,
}

impl Freshness {
    fn new(settings: config::Store) -> Self {
        Self(Arc::new(State {
            start: clock::monotonic(),
            heard_ms: AtomicU64::new(0),
            stale: AtomicBool::new(false),
            reachable: AtomicBool::new(true),
            settings,
        }))
    }

    /// Whether protected routes must answer 503, as of the last [`look`](Self::look): never with `on_stale: serve`.
    pub fn is_stale(&self) -> bool {
        self.0.stale.load(Ordering::Relaxed)
    }

    /// Whether the store answered when it was last asked, and was asked not long ago.
    pub fn is_reachable(&self) -> bool {
        self.0.reachable.load(Ordering::Relaxed) && self.silence() < 2 * PATIENCE
    }

    /// How long ago the store was last heard.
    pub fn silence(&self) -> Duration {
        let heard = Duration::from_millis(self.0.heard_ms.load(Ordering::Relaxed));
        self.0.start.elapsed().saturating_sub(heard)
    }

    /// Compares the silence with what the operator allows. To be called often, by every worker.
    pub fn look(&self) {
        let settings = &self.0.settings;
        let stale = settings.on_stale == OnStale::Refuse && self.silence() > settings.max_stale;
        if stale != self.0.stale.swap(stale, Ordering::Relaxed) {
            if stale {
                tracing::error!("store.max_stale is over: protected routes answer 503 until the store is heard");
            } else {
                tracing::info!("the store is heard: protected routes are open again");
            }
        }
    }

    fn hear(&self) {
        let now = u64::try_from(self.0.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.heard_ms.store(now, Ordering::Relaxed);
    }
}

/// See the module. It runs on the background runtime until it is dropped.
pub struct Feed {
    store: Store,
    blocklist: Blocklist,
    keyring: Keyring,
    freshness: Freshness,
    /// The sequence number of the last revocation that memory has.
    cursor: i64,
    /// As of the last look that was followed by a read.
    version: Version,
    /// Rows read at once.
    page: usize,
}

impl Feed {
    /// Loads every revocation; `keyring` is kept current too. Only when this has returned may a token be judged.
    ///
    /// # Errors
    /// The store's.
    pub async fn load(store: Store, keyring: Keyring, settings: config::Store) -> Result<Self, Error> {
        let version = store.look().await?;
        let (blocklist, freshness) = (Blocklist::empty(Now::read()), Freshness::new(settings));
        let memory = blocklist.clone();
        store.listen(move |committed| memory.extend(committed.iter().map(Entry::of).collect(), Now::read()));
        let mut feed = Self { store, blocklist, keyring, freshness, cursor: 0, version, page: PAGE };
        feed.read().await?;
        feed.freshness.hear();
        feed.blocklist.maintain();
        Ok(feed)
    }

    /// The set that it keeps current.
    pub fn blocklist(&self) -> &Blocklist {
        &self.blocklist
    }

    /// Whether it does.
    pub fn freshness(&self) -> &Freshness {
        &self.freshness
    }

    /// Takes in what came after the cursor.
    async fn read(&mut self) -> Result<(), Error> {
        loop {
            let page = self.store.revocations_after(self.cursor, self.page).await?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            let (last, is_last_page) = (*last, page.len() < self.page);
            self.blocklist.extend(page.iter().map(|(_, revocation)| Entry::of(revocation)).collect(), Now::read());
            self.cursor = self.cursor.max(last);
            if is_last_page {
                return Ok(());
            }
        }
    }

    /// Asks the store whether anything was written, and takes in what was.
    async fn glance(&mut self, look: bool) -> Result<(), Error> {
        let version = self.store.look().await?;
        if version.epoch != self.version.epoch {
            // Another file: what it holds is joined with what memory knows. `change` stays, so that it is read.
            self.cursor = 0;
            self.version.epoch = version.epoch;
        }
        if look || version != self.version {
            self.read().await?;
            self.keyring.read().await?;
            self.version = version;
        }
        Ok(())
    }

    /// Takes in what was written while nothing followed.
    ///
    /// # Errors
    /// The store's.
    pub async fn catch_up(&mut self) -> Result<(), Error> {
        self.read().await?;
        self.keyring.read().await?;
        self.freshness.hear();
        self.freshness.look();
        Ok(())
    }

    /// Keeps blocklist and key ring current and the store tidy, until it is dropped.
    pub async fn run(self) {
        let (store, keyring, blocklist) = (self.store.clone(), self.keyring.clone(), self.blocklist.clone());
        let may_forget = |now| blocklist.may_forget(now);
        tokio::join!(self.follow(), keyring.tend(&may_forget), purge(&store, &may_forget), watch_writes(&store));
    }

    async fn follow(mut self) {
        let mut ticks = tokio::time::interval(GLANCE);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut looked = clock::monotonic();
        let mut reminded: Option<Instant> = None;
        loop {
            ticks.tick().await;
            let look = looked.elapsed() >= LOOK;
            let failed = match tokio::time::timeout(PATIENCE, self.glance(look)).await {
                Ok(outcome) => outcome.err().map(|error| error.to_string()),
                Err(_) => Some("no answer".to_owned()),
            };
            let now = clock::monotonic();
            match failed {
                None => {
                    self.freshness.hear();
                    looked = if look { now } else { looked };
                    if reminded.take().is_some() {
                        tracing::info!("the store can be read again");
                    }
                }
                Some(error) if reminded.is_none_or(|at| now.duration_since(at) >= REMINDER) => {
                    reminded = Some(now);
                    tracing::error!(error, "the store cannot be read: revocations by other processes are not seen");
                }
                Some(_) => {}
            }
            self.freshness.0.reachable.store(reminded.is_none(), Ordering::Relaxed);
            self.freshness.look();
            self.blocklist.watch_clock(Now::read());
            self.blocklist.maintain();
        }
    }
}

/// Deletes what has expired, now and then, a little at a time, while the wall clock can be trusted.
async fn purge(store: &Store, may_forget: &impl Fn(Now) -> bool) {
    loop {
        tokio::time::sleep(PURGE).await;
        loop {
            // One reading of the clock: the time that was found right is the time that is used.
            let now = Now::read();
            if !may_forget(now) {
                break;
            }
            match store.purge(now.wall, PURGE_BATCH).await {
                Ok(0) => break,
                Ok(_) => tokio::time::sleep(PURGE_PAUSE).await,
                Err(error) => {
                    tracing::warn!(%error, "expired rows could not be purged; trying again later");
                    break;
                }
            }
        }
    }
}

/// Finds out when the store can no longer be written, and when it can again, also where no client writes.
async fn watch_writes(store: &Store) {
    let mut ticks = tokio::time::interval(WRITE_CHECK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        store.try_writing(clock::monotonic()).await;
    }
}

#[cfg(test)]
mod tests;

//! The embedded store: one SQLite file with a write-ahead log, a writer thread that commits in groups, three readers.
//!
//! SQL only, a file a subject; other processes may use the same file at the same time.

mod connection;
mod disk;
mod file;
mod log;
mod mark;
mod inspect;
mod permissions;
mod health;
#[cfg(test)]
mod injection;
mod transaction;
mod shared;
mod worker;
mod reader;
mod writer;
mod keys;
mod meta;
mod accounts;
mod sessions;
mod eviction;
mod rotation;
mod revocations;
mod import;
mod cut;
mod attempts;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::config::{self, StoreLocation};
use crate::store::seal::Seal;
use crate::store::{Error, Revocation};
use attempts::Debts;
use file::{DatabaseFile, Found};
use mark::Mark;
use shared::{Rendezvous, Shared};
use transaction::WriteConnection;
use worker::{Abandoned, Worker};

pub(super) use connection::without_sql;
#[cfg(test)]
pub(crate) use injection::Injected;
pub(super) use permissions::Exposed;

/// Without another write for this long, one is tried, so that a fault is seen before a login meets it.
const IDLE_WRITE: Duration = Duration::from_secs(60);

/// What a trial writes. A row that stays the same would not be written.
const TRIAL: &str = "INSERT INTO meta (name, value) VALUES ('write_trials', 1)
    ON CONFLICT (name) DO UPDATE SET value = value + 1";

/// A handle on the store; clones share it. Its functions may be called from any runtime.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    writer: Worker<WriteConnection>,
    /// For the revocation feed and the keys: no client can queue here.
    feeder: Worker<Connection>,
    /// For look-ups, which must not wait behind a long listing.
    seeker: Worker<Connection>,
    lister: Worker<Connection>,
    /// Encrypts signing keys.
    seal: Option<Seal>,
    /// Attempts that are still to be taken back.
    debts: Debts,
    warnings: Vec<String>,
}

/// What a look at the store has found. Only comparing it with an earlier one of the same `Store` means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// Grows when another file has taken the place of the database: all revocations are to be read anew then.
    pub epoch: u64,
    /// Changes with every commit, of this process or another.
    pub change: i64,
}

impl Store {
    /// Opens the store, makes it when it is missing (readable by its owner alone), and brings its schema up to date.
    /// Blocks, for up to a few seconds when another process holds a lock.
    ///
    /// # Errors
    /// Any but [`Error::Missing`] and [`Error::Closed`].
    pub fn open(config: &config::Store) -> Result<Self, Error> {
        let StoreLocation::Sqlite(path) = &config.location;
        let seal = config.encryption_key.as_ref().map(Seal::new).transpose()?;
        let path = connection::create(path)?;
        let shared = Shared::new(DatabaseFile::new(path));
        let (first, is_new) = shared.prepare()?;
        // Not before: the file of another program is left as it is.
        let mut warnings = permissions::tighten(shared.file().path());
        if is_new {
            warnings.push(format!(
                "store.url: there was no database at {}, an empty one was made; where accounts are expected, put the \
                 database or a backup there, with the gateway stopped",
                shared.file().path().display()
            ));
        }
        let reader = |name| {
            let first = shared.open_for_reading()?;
            Worker::start(name, &shared, move |shared, queue| reader::run(shared, first, &queue))
        };
        let (feeder, seeker, lister) = (reader("store-feed")?, reader("store-seek")?, reader("store-list")?);
        let writer = Worker::start("store-write", &shared, move |shared, queue| writer::run(shared, first, &queue))?;
        let debts = Debts::default();
        Ok(Self(Arc::new(Inner { shared, writer, feeder, seeker, lister, seal, debts, warnings })))
    }

    /// Like [`Store::open`], but a missing file is an error: for commands that have nothing to look for in an empty one.
    ///
    /// # Errors
    /// Any but [`Error::Closed`]; [`Error::Missing`] names the file.
    pub fn open_existing(config: &config::Store) -> Result<Self, Error> {
        let StoreLocation::Sqlite(path) = &config.location;
        if !path.exists() {
            return Err(Error::Missing { path: path.clone() });
        }
        Self::open(config)
    }

    /// Has `listener` told of every revocation that this process commits: after the commit, and before the caller of the
    /// function that made it is answered, also where that caller has gone. Only the first listener counts.
    pub fn listen(&self, listener: impl Fn(&[Revocation]) + Send + Sync + 'static) {
        self.0.shared.listen(Box::new(listener));
    }

    /// Looks whether the database file is still in its place, and whether anything was written.
    ///
    /// # Errors
    /// The store's; [`Error::Gone`] and [`Error::Replaced`] from then on for all others too, until a look finds the file.
    pub async fn look(&self) -> Result<Version, Error> {
        match self.look_once().await {
            Err(Error::Reopening) => {
                self.reopen();
                self.look_once().await
            }
            seen => seen,
        }
    }

    async fn look_once(&self) -> Result<Version, Error> {
        let shared = Arc::clone(&self.0.shared);
        let look = move |connection: Result<&Connection, Error>| {
            let connection = connection?;
            if shared.file().check()? == Found::Copy {
                return Err(Error::Reopening);
            }
            let explain = |error| shared.classify(error);
            let known = shared.file().mark();
            let change: i64 = connection
                .prepare_cached("PRAGMA data_version")
                .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
                .map_err(explain)?;
            shared.file().note(known, Mark::read(connection).map_err(explain))?;
            // SQLite counts anew for each connection.
            Ok(Version { epoch: shared.file().epoch(), change: (shared.openings() << 40) + change })
        };
        self.0.feeder.ask_always(Abandoned::Skip, look).await
    }

    /// Where the database is.
    pub fn path(&self) -> &Path {
        self.0.shared.file().path()
    }

    /// What was found or done when the store was opened that the operator should know.
    pub fn warnings(&self) -> &[String] {
        &self.0.warnings
    }

    /// Whether the last transaction was committed.
    pub fn is_writable(&self) -> bool {
        self.0.shared.health().is_writable()
    }

    /// How many reads and how many transactions have failed since the start.
    pub fn errors(&self) -> [u64; 2] {
        self.0.shared.health().errors()
    }

    /// Finds out whether the store can be written, where the last transaction failed or was long ago; and opens all
    /// connections anew where that may help. To be called every second or so.
    pub async fn try_writing(&self, now: Instant) {
        let health = self.0.shared.health();
        if health.is_writable() && health.since_write(now).is_some_and(|since| since < IDLE_WRITE) {
            return;
        }
        if matches!(health.write_fault(), Some(Error::ReadOnly { .. })) {
            self.reopen();
        }
        // How it ended, the writer has noted.
        drop(self.write(|connection| connection.prepare_cached(TRIAL)?.execute([])).await);
    }

    /// Has all threads close their connections at the same time, and open new ones.
    fn reopen(&self) {
        let Inner { writer, feeder, seeker, lister, .. } = &*self.0;
        let rendezvous = Rendezvous::of(4);
        let readers = [feeder, seeker, lister].map(|reader| reader.close_connection(&rendezvous));
        if !writer.close_connection(&rendezvous) || readers.contains(&false) {
            rendezvous.cancel();
        }
    }

    /// Finishes what is queued, then ends the threads; later calls give [`Error::Closed`]. Blocks until then. Dropping
    /// the last clone does the same.
    pub fn close(&self) {
        self.0.close();
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&WriteConnection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        self.0.writer.ask(Abandoned::Run, work).await
    }

    /// The same, but `work` is left out where its caller has gone before its turn.
    async fn write_if_wanted<T: Send + 'static>(
        &self,
        work: impl FnOnce(&WriteConnection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        self.0.writer.ask(Abandoned::Skip, work).await
    }

    /// Has `work` done on `what` without waiting for it: what is asked of the writer next shares its commit, after which
    /// `what` is given to `done`. Where it fails `what` is dropped, with a line in the log.
    fn post<T: Send + 'static>(
        &self,
        what: T,
        work: impl FnOnce(&WriteConnection, &T) -> rusqlite::Result<()> + Send + 'static,
        done: impl FnOnce(T) + Send + 'static,
    ) {
        self.0.writer.post(what, work, done);
    }

    async fn feed<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        self.0.feeder.ask(Abandoned::Skip, work).await
    }

    async fn seek<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        self.0.seeker.ask(Abandoned::Skip, work).await
    }

    async fn list<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        self.0.lister.ask(Abandoned::Skip, work).await
    }

    /// Lets something happen to the job that is asked for after so many others.
    #[cfg(test)]
    pub(crate) fn inject(&self, next: Option<(usize, Injected)>) {
        self.0.shared.injection().set(next);
    }

    /// Whether that has happened.
    #[cfg(test)]
    pub(crate) fn has_injected(&self) -> bool {
        self.0.shared.injection().has_happened()
    }

    /// Runs a statement on the writer's connection: lets a test fill or bar the database.
    #[cfg(test)]
    pub(crate) async fn run_on_writer(&self, sql: &'static str) -> Result<(), Error> {
        self.write(move |connection| connection.execute_batch(sql)).await
    }
}

impl Inner {
    fn close(&self) {
        // The last connection that closes also clears the log away: the writer's, which may.
        self.feeder.stop();
        self.seeker.stop();
        self.lister.stop();
        self.writer.stop();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests;

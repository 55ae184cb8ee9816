//! The embedded store: one SQLite file with a write-ahead log, a writer thread that commits in groups, two readers.
//!
//! SQL only, a file a subject; other processes may use the same file at the same time.

mod connection;
mod worker;
mod keys;
mod meta;
mod accounts;
mod sessions;
mod rotation;
mod revocations;
mod import;
mod cut;
mod attempts;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use rusqlite::Connection;

use crate::config::{self, StoreLocation};
use crate::store::Error;
use crate::store::seal::Seal;
use attempts::Debts;
use worker::Worker;

pub(super) use connection::without_sql;

/// A handle on the store; clones share it. Its functions may be called from any runtime.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    path: Arc<Path>,
    writer: Worker,
    /// For look-ups, which must not wait behind a long listing.
    seeker: Worker,
    lister: Worker,
    /// How often the seeker's connection was opened.
    openings: Arc<AtomicI64>,
    /// Encrypts signing keys.
    seal: Option<Seal>,
    /// Attempts that are still to be taken back.
    debts: Debts,
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
        let path: Arc<Path> = connection::create(path)?.into();
        let first = connection::prepare(&path)?;
        let openings = Arc::new(AtomicI64::new(0));
        let reader = |name| {
            let (path, openings) = (Arc::clone(&path), Arc::clone(&openings));
            let first = connection::reopen_for_reading(&path)?;
            Worker::start(name, move |queue| worker::read(&path, first, &queue, &openings))
        };
        let (seeker, lister) = (reader("store-seek")?, reader("store-list")?);
        let own = Arc::clone(&path);
        let writer = Worker::start("store-write", move |queue| worker::write(&own, first, &queue))?;
        Ok(Self(Arc::new(Inner { path, writer, seeker, lister, openings, seal, debts: Debts::default() })))
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

    /// Finishes what is queued, then ends the threads; later calls give [`Error::Closed`]. Blocks until then. Dropping
    /// the last clone does the same.
    pub fn close(&self) {
        self.0.close();
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        self.0.writer.ask(&self.0.path, work).await
    }

    /// Has `work` done on `what` without waiting for it: what is asked of the writer next shares its commit, after which
    /// `what` is given to `done`. Where it comes to nothing `what` is dropped, with a word in the log.
    fn post<T: Send + 'static>(
        &self,
        what: T,
        work: impl FnOnce(&Connection, &T) -> rusqlite::Result<()> + Send + 'static,
        done: impl FnOnce(T) + Send + 'static,
    ) {
        self.0.writer.post(&self.0.path, what, work, done);
    }

    async fn seek<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        self.0.seeker.ask(&self.0.path, work).await
    }

    async fn list<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        self.0.lister.ask(&self.0.path, work).await
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

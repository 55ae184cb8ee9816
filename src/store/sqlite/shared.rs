//! What the threads of one store share: the file, the state of its health, and how connections are opened.

use std::ops::Deref;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rusqlite::Connection;

use super::connection;
use super::file::DatabaseFile;
use super::health::Health;
#[cfg(test)]
use super::injection::Injection;
use super::mark::Mark;
use super::transaction::WriteConnection;
use crate::store::{Error, Revocation};

/// How long a thread that has closed its connection waits for the others.
const RENDEZVOUS_TIMEOUT: Duration = Duration::from_secs(1);

/// Takes revocations that were committed into memory.
type Listener = Box<dyn Fn(&[Revocation]) + Send + Sync>;

/// See the module.
pub(super) struct Shared {
    file: DatabaseFile,
    health: Health,
    /// How many connections were opened: SQLite's data version means something on one connection only.
    openings: AtomicI64,
    listener: OnceLock<Listener>,
    #[cfg(test)]
    injection: Injection,
}

impl Shared {
    pub fn new(file: DatabaseFile) -> Arc<Self> {
        Arc::new(Self {
            file,
            health: Health::default(),
            openings: AtomicI64::new(0),
            listener: OnceLock::new(),
            #[cfg(test)]
            injection: Injection::default(),
        })
    }

    #[cfg(test)]
    pub fn injection(&self) -> &Injection {
        &self.injection
    }

    pub fn file(&self) -> &DatabaseFile {
        &self.file
    }

    pub fn health(&self) -> &Health {
        &self.health
    }

    /// How many connections were opened so far.
    pub fn openings(&self) -> i64 {
        self.openings.load(Ordering::Relaxed)
    }

    /// What an error of SQLite means to its reader.
    pub fn classify(&self, error: rusqlite::Error) -> Error {
        self.file.explain(connection::classify(error, self.file.path()))
    }

    /// Who is given what was committed. The first one stays.
    pub fn listen(&self, listener: Listener) {
        drop(self.listener.set(listener));
    }

    /// Tells the listener. To be called by the writer after the commit, and before the callers are answered.
    pub fn tell(&self, committed: &[Revocation]) {
        if let Some(listener) = self.listener.get().filter(|_| !committed.is_empty()) {
            listener(committed);
        }
    }

    /// The first connection: it brings the schema up to date, and tells whether the store was empty.
    pub fn prepare(self: &Arc<Self>) -> Result<(Handle<WriteConnection>, bool), Error> {
        let mut empty = false;
        let handle = self.open(|path| {
            let (connection, made) = connection::prepare(path)?;
            empty = made;
            Ok(connection)
        })?;
        self.file.check()?;
        Ok((handle.map(WriteConnection::new), empty))
    }

    /// A connection for reading.
    pub fn open_for_reading(self: &Arc<Self>) -> Result<Handle<Connection>, Error> {
        self.open(connection::reopen_for_reading)
    }

    /// A connection for the writer.
    pub fn open_for_writing(self: &Arc<Self>) -> Result<Handle<WriteConnection>, Error> {
        Ok(self.open(connection::reopen_for_writing)?.map(WriteConnection::new))
    }

    fn open(
        self: &Arc<Self>,
        open: impl FnOnce(&std::path::Path) -> Result<Connection, Error>,
    ) -> Result<Handle<Connection>, Error> {
        let registration = Registration::new(self)?;
        self.openings.fetch_add(1, Ordering::Relaxed);
        let known = self.file.mark();
        match open(self.file.path()) {
            Ok(connection) => {
                // The path may lead to another file than a moment ago.
                self.file.note(known, Mark::read(&connection).map_err(|error| self.classify(error)))?;
                Ok(Handle { connection, _registration: registration })
            }
            // That the file is gone says more than that it cannot be opened.
            Err(error) => {
                let of_file = self.file.check().err().filter(Error::is_of_file);
                Err(of_file.unwrap_or_else(|| self.file.explain(error)))
            }
        }
    }
}

/// Counts a connection for as long as it is open: while there is none, another process may remove the log.
struct Registration(Arc<Shared>);

impl Registration {
    fn new(shared: &Arc<Shared>) -> Result<Self, Error> {
        shared.file.register()?;
        Ok(Self(Arc::clone(shared)))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.0.file.release();
    }
}

/// An open connection. The fields are dropped in their order: it is closed before it is no longer counted.
pub(super) struct Handle<C> {
    connection: C,
    _registration: Registration,
}

impl Handle<Connection> {
    fn map<C>(self, wrap: impl FnOnce(Connection) -> C) -> Handle<C> {
        Handle { connection: wrap(self.connection), _registration: self._registration }
    }
}

impl<C> Deref for Handle<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.connection
    }
}

/// Where the threads of a store meet when all of them have closed their connections. What SQLite keeps of a file for the
/// whole process, such as whether its shared memory can be written, is made anew only then; and only then may connections
/// be opened to another file.
pub(super) struct Rendezvous {
    missing: Mutex<usize>,
    changed: Condvar,
}

impl Rendezvous {
    /// For so many threads.
    pub fn of(threads: usize) -> Arc<Self> {
        Arc::new(Self { missing: Mutex::new(threads), changed: Condvar::new() })
    }

    /// Waits for the other threads, but not for long: one may be busy.
    pub fn meet(&self, shared: &Shared) {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        if *missing == 1 {
            shared.file.forget_place();
        }
        *missing = missing.saturating_sub(1);
        self.changed.notify_all();
        drop(self.changed.wait_timeout_while(missing, RENDEZVOUS_TIMEOUT, |missing| *missing > 0));
    }

    /// Ends the wait of those that came: another will not come.
    pub fn cancel(&self) {
        *self.missing.lock().unwrap_or_else(PoisonError::into_inner) = 0;
        self.changed.notify_all();
    }
}

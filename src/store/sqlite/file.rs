//! The database file under the running program: noticed when it is deleted, replaced or overwritten.
//!
//! What was committed to a file that no path leads to is lost at the next start. So device, inode and link count are
//! compared at each look and before a write is acknowledged. File systems may change these numbers by themselves, and
//! `cp` keeps them: the id of the store and its revocation sequence decide. The main file is read past its write-ahead
//! log for that, because the log would hide what stands there.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::connection;
use crate::store::Error;

const ID: &str = "SELECT id FROM store";

const SEQUENCE: &str = "SELECT seq FROM sqlite_sequence WHERE name = 'revocation'";

/// How often a main file is read that cannot be: another process may be writing into it.
const ATTEMPTS: u32 = 3;

/// Between two of these.
const PAUSE: Duration = Duration::from_millis(2);

/// Which store it is, and the highest number that was given to a revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub id: [u8; 16],
    pub sequence: i64,
}

impl Mark {
    /// As `connection` sees it.
    pub fn read(connection: &Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            id: connection.prepare_cached(ID)?.query_row([], |row| row.get(0))?,
            sequence: connection.prepare_cached(SEQUENCE)?.query_row([], |row| row.get(0)).optional()?.unwrap_or(0),
        })
    }

    /// As it stands in the main file, without what the write-ahead log holds.
    fn read_main(path: &Path) -> Option<Self> {
        let uri = format!("file:{}?immutable=1", connection::uri_path(path));
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let read = || Self::read(&Connection::open_with_flags(&uri, flags)?);
        (0..ATTEMPTS).find_map(|attempt| {
            if attempt > 0 {
                pause();
            }
            read().ok()
        })
    }

    /// Whether this is the same store, and no revocation has been lost since `earlier`.
    fn continues(&self, earlier: &Self) -> bool {
        self.id == earlier.id && self.sequence >= earlier.sequence
    }
}

#[expect(clippy::disallowed_methods, reason = "threads of the store serve no connections")]
fn pause() {
    std::thread::sleep(PAUSE);
}

/// Where a file lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    device: u64,
    inode: u64,
}

/// A file that some path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    place: Place,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn read(path: &Path) -> Option<Self> {
        let found = std::fs::metadata(path).ok()?;
        // A mounted file stays reachable when it is deleted, but has no link any more.
        (found.nlink() > 0).then(|| Self {
            place: Place { device: found.dev(), inode: found.ino() },
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

/// What stands at the path of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The file that connections were opened to.
    Same,
    /// A copy of its present state, to which connections are to be opened now.
    Copy,
}

/// See the module.
pub(super) struct DatabaseFile {
    path: PathBuf,
    /// The write-ahead log and its index.
    companions: [PathBuf; 2],
    state: Mutex<State>,
    faulty: AtomicBool,
    /// Grows when another file takes the place of the present one; connections of an earlier one are closed.
    epoch: AtomicU64,
}

struct State {
    stamp: Option<Stamp>,
    /// `None`: not known yet.
    companions: [Option<Place>; 2],
    /// Connections of the present epoch that are open.
    connections: usize,
    /// The newest that was seen through a connection.
    mark: Option<Mark>,
    /// The newest that was seen in the main file.
    main: Option<Mark>,
    fault: Option<Error>,
    /// What connections see is another store, or an older state.
    mark_fault: Option<Error>,
}

impl State {
    /// Whether a main file with this mark may be the one that was seen last. It has none before the first checkpoint.
    fn is_continued_by(&self, main: Option<Mark>) -> bool {
        match (main, self.main) {
            (Some(main), Some(known)) => main.continues(&known),
            (Some(main), None) => self.mark.is_none_or(|mark| mark.id == main.id),
            (None, known) => known.is_none(),
        }
    }
}

impl DatabaseFile {
    /// The file at an absolute path.
    pub fn new(path: PathBuf) -> Self {
        let companions = ["-wal", "-shm"].map(|suffix| {
            let mut name = path.clone().into_os_string();
            name.push(suffix);
            PathBuf::from(name)
        });
        let state = State {
            stamp: Stamp::read(&path),
            companions: [None, None],
            connections: 0,
            mark: None,
            main: None,
            fault: None,
            mark_fault: None,
        };
        Self { path, companions, state: Mutex::new(state), faulty: AtomicBool::new(false), epoch: AtomicU64::new(0) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Counts the file that connections are opened to.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// # Errors
    /// What the last [`check`](Self::check) found.
    pub fn fault(&self) -> Result<(), Error> {
        if !self.faulty.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.state().fault.clone().map_or(Ok(()), Err)
    }

    /// Counts a connection that is about to be opened; in which epoch.
    pub fn register(&self) -> u64 {
        let mut state = self.state();
        if state.connections == 0 {
            // SQLite removes both with the last connection.
            state.companions = [None, None];
        }
        state.connections += 1;
        self.epoch()
    }

    /// Counts one that was closed.
    pub fn release(&self, epoch: u64) {
        let mut state = self.state();
        if epoch == self.epoch() {
            state.connections = state.connections.saturating_sub(1);
        }
    }

    /// Notes what a connection sees.
    ///
    /// # Errors
    /// [`Error::Replaced`] when that is another store, or an older state of this one.
    pub fn note(&self, mark: Mark) -> Result<(), Error> {
        let mut state = self.state();
        let lost = state.mark.is_some_and(|known| !mark.continues(&known));
        state.mark_fault = lost.then(|| self.replaced("it holds another store, or an older state of this one"));
        if !lost {
            state.mark = Some(mark);
        }
        let verdict = state.mark_fault.clone().map_or(Ok(()), Err);
        self.settle(&mut state, verdict)
    }

    /// Whether the path leads to the file that the connections have open, and the store is still in it. To be called by
    /// a thread with an open connection, or where none can be opened. Costs three `stat` calls when nothing has changed.
    ///
    /// # Errors
    /// [`Error::Gone`], [`Error::Replaced`].
    pub fn check(&self) -> Result<Found, Error> {
        let mut state = self.state();
        let found = self.judge(&mut state);
        let verdict = found.and_then(|found| state.mark_fault.clone().map_or(Ok(found), Err));
        self.settle(&mut state, verdict)
    }

    fn settle<T>(&self, state: &mut State, verdict: Result<T, Error>) -> Result<T, Error> {
        state.fault = verdict.as_ref().err().cloned();
        self.faulty.store(state.fault.is_some(), Ordering::Relaxed);
        verdict
    }

    fn judge(&self, state: &mut State) -> Result<Found, Error> {
        let Some(seen) = Stamp::read(&self.path) else { return Err(Error::Gone { path: self.path.clone() }) };
        if state.stamp.is_some_and(|known| known.place != seen.place) {
            return self.judge_other(state, seen);
        }
        for (path, known) in self.companions.iter().zip(&mut state.companions) {
            let found = Stamp::read(path).map(|stamp| stamp.place);
            if known.is_some() && *known != found {
                return Err(Error::Gone { path: path.clone() });
            }
            *known = found;
        }
        // Most changes are checkpoints, which continue what was there.
        if state.stamp != Some(seen) || state.main.is_none() || state.fault.is_some() {
            let main = Mark::read_main(&self.path);
            if !state.is_continued_by(main) {
                return Err(self.replaced("it was overwritten by another store, or by an older state of this one"));
            }
            state.main = main;
            state.stamp = Some(seen);
        }
        Ok(Found::Same)
    }

    /// Another file stands at the path. A copy of the present state may take the place of the old one, but not beside the
    /// log of that: SQLite would mix the two.
    fn judge_other(&self, state: &mut State, seen: Stamp) -> Result<Found, Error> {
        let main = Mark::read_main(&self.path);
        let present = self.companions.iter().map(|path| Stamp::read(path).map(|stamp| stamp.place));
        let is_mixed = present.zip(state.companions).any(|(found, known)| known.is_some() && found == known);
        let is_copy = !is_mixed && state.is_continued_by(main) && {
            let whole = connection::reopen_for_reading(&self.path).ok().and_then(|open| Mark::read(&open).ok());
            whole.is_some_and(|whole| state.mark.is_some_and(|known| whole.continues(&known)))
        };
        if !is_copy {
            return Err(self.replaced("another store, or an older state of this one, was put in its place"));
        }
        tracing::warn!(path = %self.path.display(), "a copy of the database has taken its place; the gateway goes on with it");
        state.stamp = Some(seen);
        state.main = main;
        state.mark_fault = None;
        state.companions = [None, None];
        state.connections = 0;
        self.epoch.fetch_add(1, Ordering::Release);
        Ok(Found::Copy)
    }

    fn replaced(&self, how: &'static str) -> Error {
        Error::Replaced { path: self.path.clone(), how }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

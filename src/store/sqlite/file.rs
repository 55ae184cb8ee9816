//! The database file under the running program: noticed when it is deleted, replaced or overwritten.
//!
//! What was committed to a file that no path leads to is lost at the next start. So device, inode and link count are
//! compared at each look and before a write is acknowledged. File systems may change these numbers by themselves, and
//! `cp` keeps them: the id of the store and the number of its transactions decide. The main file is read past its write-ahead
//! log for that, because the log would hide what stands there.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::connection;
use super::disk::Disk;
use super::log::{Change, Log};
use super::mark::Mark;
use crate::clock;
use crate::store::Error;

/// For how long a main file that cannot be read counts as one that another process is writing into.
const UNSETTLED_MAX: Duration = Duration::from_secs(1);

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
    /// The same file, in which another process seems to be writing just now, such as at a checkpoint.
    Unsettled,
    /// Another file, as it seems a copy of its present state, or another log: all connections are to be closed, and opened
    /// to that.
    Copy,
}

/// See the module.
pub(super) struct DatabaseFile {
    path: PathBuf,
    /// The write-ahead log and its index.
    companions: [PathBuf; 2],
    state: Mutex<State>,
    disk: Mutex<Disk>,
    faulty: AtomicBool,
    /// Grows when another file has taken the place of the one before.
    epoch: AtomicU64,
}

#[derive(Default)]
struct State {
    /// `None`: not known yet.
    stamp: Option<Stamp>,
    companions: [Option<Place>; 2],
    /// Where the file was that connections were opened to before.
    before: Option<Place>,
    /// Connections that are open.
    connections: usize,
    /// The newest that was seen through a connection.
    mark: Option<Mark>,
    /// The newest that was seen in the main file, or that must be in it.
    main: Option<Mark>,
    /// The main file is to be read, although it seems unchanged.
    is_due: bool,
    log: Log,
    /// The newest mark that was known when the log was found to go on.
    log_mark: Option<Mark>,
    fault: Option<Error>,
    /// What connections see is another store, an older state, or cannot be read.
    mark_fault: Option<Error>,
    /// Since when the main file is unsettled.
    unsettled: Option<Instant>,
}

impl State {
    fn forget_place(&mut self) {
        self.before = self.stamp.map(|stamp| stamp.place).or(self.before);
        self.stamp = None;
        self.forget_companions();
    }

    fn forget_companions(&mut self) {
        self.companions = [None, None];
        (self.log, self.log_mark) = (Log::default(), None);
    }

    /// Looks whether the log at `paths` goes on. Where it starts anew, what it held must be in the main file.
    fn look_at_log(&mut self, paths: &[PathBuf; 2]) -> Change {
        let known = self.mark;
        let change = self.log.look(paths);
        if change == Change::Restarted {
            self.main = self.log_mark.or(self.main);
            self.is_due = true;
        }
        if change != Change::Overwritten {
            self.log_mark = known;
        }
        change
    }

    /// Whether a main file with this mark may stand in the place of the one that was seen last. It has none before the
    /// first checkpoint.
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
        Self {
            path,
            companions,
            state: Mutex::default(),
            disk: Mutex::default(),
            faulty: AtomicBool::new(false),
            epoch: AtomicU64::new(0),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Counts the files that connections were opened to.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// What an error means. SQLite reports a read that the system failed as a damaged file; then the files are read here, to
    /// tell one from the other.
    pub fn explain(&self, error: Error) -> Error {
        let Error::Corrupt { path, .. } = &error else { return error };
        let paths = std::iter::once(&self.path).chain(self.companions.first());
        let mut disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        match disk.find_read_error(paths, clock::monotonic()) {
            Some(failed) => {
                let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_READ);
                let text = format!("disk I/O error: {failed}");
                Error::Io { path: path.clone(), source: Arc::new(rusqlite::Error::SqliteFailure(code, Some(text))) }
            }
            None => error,
        }
    }

    /// # Errors
    /// What the last [`check`](Self::check) found.
    pub fn fault(&self) -> Result<(), Error> {
        if !self.faulty.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.state().fault.clone().map_or(Ok(()), Err)
    }

    /// Counts a connection that is about to be opened. While others are open, none is opened to another file: SQLite
    /// would let both use one log, and its locks tell them apart by their files alone.
    ///
    /// # Errors
    /// Those of [`check`](Self::check), and [`Error::Reopening`].
    pub fn register(&self) -> Result<(), Error> {
        let mut state = self.state();
        if state.connections == 0 {
            state.forget_companions();
        }
        if state.stamp.is_some() {
            let found = self.judge(&mut state);
            if self.settle(&mut state, found)? == Found::Copy {
                if state.connections > 0 {
                    return Err(Error::Reopening);
                }
                state.forget_place();
            }
        }
        state.connections += 1;
        Ok(())
    }

    /// Counts one that was closed.
    pub fn release(&self) {
        let mut state = self.state();
        state.connections = state.connections.saturating_sub(1);
    }

    /// Forgets where the file is, if no connection is open: the next is opened to what the path leads to then. What it
    /// must hold stays known.
    pub fn forget_place(&self) {
        let mut state = self.state();
        if state.connections == 0 {
            state.forget_place();
        }
    }

    /// The newest mark that was seen; for [`note`](Self::note).
    pub fn mark(&self) -> Option<Mark> {
        self.state().mark
    }

    /// How many frames the write-ahead log holds, up to its newest transaction.
    pub fn log_frames(&self) -> u64 {
        let mut state = self.state();
        state.look_at_log(&self.companions);
        state.log.frames()
    }

    /// A transaction has failed that may have been written; before it the log held so many frames.
    pub fn forget_log_after(&self, frames: u64) {
        self.state().log.forget_after(frames);
    }

    /// Notes what a connection sees, or why it sees nothing; `known` is the mark from before it looked.
    ///
    /// # Errors
    /// [`Error::Replaced`] when that is another store, or an older state of this one; the one that was given.
    pub fn note(&self, known: Option<Mark>, seen: Result<Mark, Error>) -> Result<(), Error> {
        let mut state = self.state();
        let fault = match seen {
            Ok(mark) if known.is_some_and(|known| !mark.continues(&known)) => {
                Some(self.replaced("it holds another store, or an older state of this one"))
            }
            Ok(mark) => {
                if state.mark.is_none_or(|newest| mark.continues(&newest)) {
                    state.mark = Some(mark);
                }
                None
            }
            Err(error) => Some(error),
        };
        state.mark_fault.clone_from(&fault);
        self.settle(&mut state, fault.map_or(Ok(()), Err))
    }

    /// Whether the path leads to the file that the connections have open, and the store is still in it. To be called by
    /// a thread with an open connection, or where none can be opened. Costs three `stat` calls when nothing has changed.
    ///
    /// # Errors
    /// [`Error::Gone`], [`Error::Replaced`].
    pub fn check(&self) -> Result<Found, Error> {
        let mut state = self.state();
        let found = self.judge(&mut state);
        self.settle(&mut state, found)
    }

    /// The same, and what connections see is what was seen before: for what is to be acknowledged.
    ///
    /// # Errors
    /// Those of [`check`](Self::check) and [`note`](Self::note).
    pub fn confirm(&self) -> Result<Found, Error> {
        let found = self.check()?;
        self.state().mark_fault.clone().map_or(Ok(found), Err)
    }

    fn settle<T>(&self, state: &mut State, verdict: Result<T, Error>) -> Result<T, Error> {
        state.fault = verdict.as_ref().err().or(state.mark_fault.as_ref()).cloned();
        self.faulty.store(state.fault.is_some(), Ordering::Relaxed);
        verdict
    }

    fn judge(&self, state: &mut State) -> Result<Found, Error> {
        let Some(seen) = Stamp::read(&self.path) else { return Err(Error::Gone { path: self.path.clone() }) };
        if state.stamp.is_some_and(|known| known.place != seen.place) {
            return self.judge_other(state);
        }
        for (path, known) in self.companions.iter().zip(&mut state.companions) {
            let found = Stamp::read(path).map(|stamp| stamp.place);
            if known.is_some() && *known != found {
                return Err(Error::Gone { path: path.clone() });
            }
            *known = found;
        }
        let log = state.look_at_log(&self.companions);
        // What is left of it is seen once it is opened.
        if log == Change::Overwritten {
            return Ok(Found::Copy);
        }
        // Most changes are checkpoints, which continue what was there.
        if state.stamp != Some(seen) || state.is_due || state.main.is_none() || state.fault.is_some() {
            let main = self.read_main(state)?;
            // A copy by `VACUUM INTO`: the log belongs to pages that lie elsewhere.
            let is_ahead = main.zip(state.mark).is_some_and(|(main, known)| main.schema > known.schema);
            let is_continued = state.is_continued_by(main);
            if is_ahead || !is_continued {
                // A checkpoint writes page after page; SQLite sees a damaged file in between. And what another process has
                // changed may be in the main file before a connection looks here.
                let is_moving = is_continued || main.is_none() || Stamp::read(&self.path) != Some(seen);
                let since = *state.unsettled.get_or_insert_with(clock::monotonic);
                if is_moving && clock::monotonic().saturating_duration_since(since) < UNSETTLED_MAX {
                    return Ok(Found::Unsettled);
                }
                return Err(self.replaced("it was overwritten by another store, or by an older state of this one"));
            }
            (state.unsettled, state.is_due) = (None, false);
            state.main = main;
            state.stamp = Some(seen);
        }
        if state.before.take().is_some_and(|before| before != seen.place) {
            self.epoch.fetch_add(1, Ordering::Release);
            tracing::warn!(path = %self.path.display(), "a copy of the database has taken its place, and is used from now on");
        }
        Ok(Found::Same)
    }

    /// Another file stands at the path. A copy of the present state may take the place of the old one, but not beside the
    /// log of that: SQLite would mix the two. What the copy's own log holds is seen once it is opened.
    fn judge_other(&self, state: &State) -> Result<Found, Error> {
        let present = self.companions.iter().map(|path| Stamp::read(path).map(|stamp| stamp.place));
        let is_mixed = present.zip(state.companions).any(|(found, known)| match (found, known) {
            (Some(found), Some(known)) => found == known,
            (Some(_), None) => state.connections > 0,
            (None, _) => false,
        });
        if is_mixed || !state.is_continued_by(self.read_main(state)?) {
            return Err(self.replaced("another store, or an older state of this one, was put in its place"));
        }
        Ok(Found::Copy)
    }

    fn read_main(&self, state: &State) -> Result<Option<Mark>, Error> {
        match Mark::read_main(&self.path, state.main.is_some()) {
            Ok(mark) => Ok(Some(mark)),
            Err(error) => match self.explain(connection::classify(error, &self.path)) {
                // Such as for want of descriptors.
                failed @ (Error::Io { .. } | Error::Open { .. }) => Err(failed),
                _ => Ok(None),
            },
        }
    }

    fn replaced(&self, how: &'static str) -> Error {
        Error::Replaced { path: self.path.clone(), how }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

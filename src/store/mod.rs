//! The store: accounts, sessions, signing keys and revocations, durable and shared between processes.
//!
//! Here stand the records and the errors; `sqlite.rs` holds the functions. A function that returned `Ok` has its change
//! on the disk. One whose future is dropped may still take effect. Times are parameters: the store reads no clock.

mod revocation;
mod attempt;
mod finding;
pub mod flask;
mod session;
mod seal;
mod sqlite;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::UnixTime;
use crate::model::{AccountId, Generation, Role, Username};
use crate::secret::Secret;

pub use attempt::{Attempt, Receipt, Tallies, Tally};
pub use finding::Finding;
pub use revocation::{Key, Kind, Revocation};
pub use session::{
    Cleared, Cursor, Ended, NewPassword, NewSession, RETENTION, Refreshed, Rotation, SessionPage, SessionRow,
    Successor, Use, Warrant,
};
#[cfg(test)]
pub(crate) use sqlite::Injected;
pub use sqlite::{Store, Version};

/// An account as it is stored.
#[derive(Clone, Debug)]
pub struct Account {
    /// Never given to another account.
    pub id: AccountId,
    /// Exactly as it was registered.
    pub username: Username,
    /// The password's hash, a PHC string.
    pub hash: Secret,
    /// In the order of their bytes, each once.
    pub roles: Vec<Role>,
    /// What a token of this account must carry.
    pub generation: Generation,
    /// Whether it is barred from logging in.
    pub disabled: bool,
    /// When it was registered.
    pub created: UnixTime,
}

/// An account that is about to be registered.
#[derive(Clone, Debug)]
pub struct NewAccount {
    /// The name that it asks for.
    pub username: Username,
    /// The password's hash, a PHC string.
    pub hash: Secret,
    /// In any order; repeated ones count once.
    pub roles: Vec<Role>,
    /// Now.
    pub at: UnixTime,
}

/// What became of a registration.
#[derive(Clone, Debug)]
pub enum Registered {
    /// It stands.
    Created(Account),
    /// There is an account of that name; nothing was changed.
    Taken,
}

/// What became of an account that an import brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Imported {
    /// It stands.
    Added,
    /// There is an account of that name; nothing was changed.
    Exists,
    /// It was imported before and has been deleted since; it stays so.
    Deleted,
}

/// A moment before which no token is to count.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// Tokens that were issued earlier end.
    pub before: UnixTime,
    /// Now.
    pub at: UnixTime,
    /// How long that must be remembered: the longest life of any token, and the time to spare.
    pub life: Duration,
}

/// A key that the gateway made and keeps.
#[derive(Clone, Debug)]
pub struct SigningKey {
    /// What tokens call it.
    pub kid: String,
    /// As in a token's `alg`.
    pub algorithm: String,
    /// The key itself; empty for a revoked one.
    pub secret: Secret,
    /// When it was made.
    pub created: UnixTime,
    /// What it may still be used for.
    pub state: KeyState,
}

/// What a [`SigningKey`] is used for. It goes from the first of these to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// It verifies already, so that everybody knows it by the time that it signs. There is at most one.
    Standby {
        /// From then on it signs.
        signs_from: UnixTime,
    },
    /// It signs and verifies. There is at most one.
    Signing,
    /// It verifies tokens that it signed earlier.
    Verifying {
        /// When the last of them has expired.
        until: UnixTime,
    },
    /// It does nothing any more; its secret is wiped.
    Revoked {
        /// When the last of its tokens has expired.
        until: UnixTime,
    },
}

/// All keys of the store, the oldest first.
#[derive(Debug, Default)]
pub struct KeyList {
    /// Those that could be read.
    pub keys: Vec<SigningKey>,
    /// Why others could not: [`Error::Sealed`] or [`Error::WrongSeal`].
    pub unreadable: Vec<Error>,
}

/// How much there is in the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Accounts, disabled ones too.
    pub accounts: u64,
    /// Sessions that have not expired.
    pub sessions: u64,
    /// Revocations that are kept.
    pub revocations: u64,
}

/// Why the store did not do what it was asked. Nothing was changed then, or, with [`Error::Io`], perhaps: asking again
/// is safe.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// There is no file, and none may be made.
    #[error(
        "{}: there is no database yet; start the gateway once, or make the first account with `portcullis users add`",
        path.display()
    )]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The file could not be made.
    #[error(
        "{}: the database cannot be made: {source}; the folder of store.url must exist and be writable",
        path.display()
    )]
    Create {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: Arc<std::io::Error>,
    },
    /// The file could not be opened.
    #[error(
        "{}: the database cannot be opened: {source}; check store.url, and that the file and its folder may be read \
         and written",
        path.display()
    )]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: Arc<rusqlite::Error>,
    },
    /// The file is something else.
    #[error("{}: this is no SQLite database; name another file in store.url, or restore a backup", path.display())]
    NotADatabase {
        /// Which file.
        path: PathBuf,
        /// How SQLite put it.
        source: Arc<rusqlite::Error>,
    },
    /// A database, but none of ours.
    #[error("{}: this is another program's database; name another file in store.url", path.display())]
    Foreign {
        /// Which file.
        path: PathBuf,
    },
    /// The schema is one that this program does not know.
    #[error(
        "{}: this database was made by a newer Portcullis (schema {found}; this one knows {known}); run that version, \
         or restore a backup",
        path.display()
    )]
    Newer {
        /// Which file.
        path: PathBuf,
        /// The file's schema.
        found: i64,
        /// The newest schema of this program.
        known: i64,
    },
    /// The file system cannot do write-ahead logging.
    #[error("{}: the database cannot use write-ahead logging here; put it on a local, writable disk", path.display())]
    NoWal {
        /// Which file.
        path: PathBuf,
    },
    /// What was read makes no sense.
    #[error(
        "{}: the database is damaged: {source}; stop the gateway, and restore a backup or try `sqlite3 FILE .recover`",
        path.display()
    )]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// What was found.
        source: Arc<rusqlite::Error>,
    },
    /// Reading works, writing is not allowed.
    #[error("{}: the database is read-only; make the file, its folder and their file system writable", path.display())]
    ReadOnly {
        /// Which file.
        path: PathBuf,
        /// How SQLite put it.
        source: Arc<rusqlite::Error>,
    },
    /// Reading works, writing finds no room.
    #[error("{}: the disk is full; make room on the file system of the database", path.display())]
    Full {
        /// Which file.
        path: PathBuf,
        /// How SQLite put it.
        source: Arc<rusqlite::Error>,
    },
    /// The operating system failed to read or write.
    #[error("{}: reading or writing the database failed: {source}; check the disk and the kernel's log", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// How SQLite put it.
        source: Arc<rusqlite::Error>,
    },
    /// There is a write-ahead log, and no database that it belongs to.
    #[error(
        "{}: there is no database, but its write-ahead log {} is not empty, and may hold logouts and accounts; put the \
         database back beside it, or move the log away to begin with an empty database",
        path.display(),
        log.display()
    )]
    LogAlone {
        /// Where the database was looked for.
        path: PathBuf,
        /// The log.
        log: PathBuf,
    },
    /// The file was deleted or moved away while the program runs.
    #[error(
        "{}: the database file was deleted or moved while the program runs, and what is written to it would be lost; put \
         it back, or stop the gateway, put a backup there, and start it again",
        path.display()
    )]
    Gone {
        /// Which file: the database, its write-ahead log or that one's index.
        path: PathBuf,
    },
    /// The file is another one than was opened.
    #[error(
        "{}: the database was replaced while the program runs: {how}; put the former one back, or restart the gateway to \
         go on with this one, in which logouts may be missing",
        path.display()
    )]
    Replaced {
        /// Which file.
        path: PathBuf,
        /// What was found.
        how: &'static str,
    },
    /// A copy of the database has taken its place, and is about to be opened.
    #[error("the database file has moved and is being opened again; try again")]
    Reopening,
    /// Another process held the database locked for too long, or too much waits already.
    #[error("the database is busy; try again, and end any other program that keeps it locked")]
    Busy,
    /// A key in the store is encrypted, and nothing was given to decrypt it.
    #[error(
        "store.encryption_key: the signing key {kid} in the database is encrypted, and the configuration has no \
         encryption key; set the one that it was encrypted with"
    )]
    Sealed {
        /// Which key.
        kid: String,
    },
    /// A key in the store is encrypted otherwise.
    #[error(
        "store.encryption_key: the signing key {kid} in the database was encrypted with another encryption key, or has \
         been tampered with; set the one that it was encrypted with, or restore a backup"
    )]
    WrongSeal {
        /// Which key.
        kid: String,
    },
    /// The cryptography of the system does not work.
    #[error("a signing key could not be encrypted: the system gives no random numbers")]
    Seal,
    /// The store was closed.
    #[error("the store is closed; start the gateway again")]
    Closed,
    /// A thread could not be started.
    #[error("no thread could be started for the store: {0}; raise the limit of processes or memory")]
    Thread(#[source] Arc<std::io::Error>),
    /// Anything else.
    #[error("the database refused: {0}; this is a bug, please report it")]
    Sqlite(#[source] Arc<rusqlite::Error>),
}

impl Error {
    /// Whether the configuration names the wrong database or the wrong encryption key, so that a restart does not help.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::NotADatabase { .. }
            | Self::Foreign { .. }
            | Self::Newer { .. }
            | Self::Sealed { .. }
            | Self::WrongSeal { .. } => true,
            Self::Missing { .. }
            | Self::Create { .. }
            | Self::Open { .. }
            | Self::NoWal { .. }
            | Self::Corrupt { .. }
            | Self::ReadOnly { .. }
            | Self::Full { .. }
            | Self::Io { .. }
            | Self::LogAlone { .. }
            | Self::Gone { .. }
            | Self::Replaced { .. }
            | Self::Reopening
            | Self::Busy
            | Self::Seal
            | Self::Closed
            | Self::Thread(_)
            | Self::Sqlite(_) => false,
        }
    }

    /// Whether the file is no longer the one that was opened.
    fn is_of_file(&self) -> bool {
        matches!(self, Self::Gone { .. } | Self::Replaced { .. } | Self::Reopening)
    }

    /// Whether it is about the database as such, and not about one statement.
    fn is_of_storage(&self) -> bool {
        self.asks_for_reopening() || self.is_of_file() || matches!(self, Self::Full { .. } | Self::Busy)
    }

    /// Whether a fresh connection may fare better.
    fn asks_for_reopening(&self) -> bool {
        match self {
            Self::Create { .. }
            | Self::Open { .. }
            | Self::NotADatabase { .. }
            | Self::Foreign { .. }
            | Self::Newer { .. }
            | Self::NoWal { .. }
            | Self::Corrupt { .. }
            | Self::ReadOnly { .. }
            | Self::Io { .. } => true,
            Self::Missing { .. }
            | Self::LogAlone { .. }
            | Self::Gone { .. }
            | Self::Replaced { .. }
            | Self::Reopening
            | Self::Full { .. }
            | Self::Busy
            | Self::Sealed { .. }
            | Self::WrongSeal { .. }
            | Self::Seal
            | Self::Closed
            | Self::Thread(_)
            | Self::Sqlite(_) => false,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;

//! What `check` reports about a database before `run` opens it.

use std::fmt;
use std::path::PathBuf;

use crate::store::sqlite::Exposed;

/// One fact about the database that does not keep `run` from starting. Its text is a line for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// There is no file.
    Absent {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The file has no tables.
    Empty {
        /// Which file.
        path: PathBuf,
    },
    /// The schema is older than this program's.
    Outdated {
        /// Which file.
        path: PathBuf,
        /// The file's schema.
        found: i64,
        /// The newest schema of this program.
        known: i64,
    },
    /// Other users have access.
    Exposed {
        /// Which file, and its mode.
        file: Exposed,
        /// Whether this user may change the mode.
        is_owner: bool,
    },
    /// Writes will fail.
    NotWritable {
        /// The database or its folder.
        path: PathBuf,
    },
    /// Reading the write-ahead log would have made a file.
    UnreadLog {
        /// Which log.
        path: PathBuf,
    },
}

impl Finding {
    /// Whether the operator has to do something.
    pub fn is_warning(&self) -> bool {
        match self {
            Self::Exposed { is_owner, .. } => !is_owner,
            Self::NotWritable { .. } => true,
            Self::Absent { .. } | Self::Empty { .. } | Self::Outdated { .. } | Self::UnreadLog { .. } => false,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "store.url: ")?;
        match self {
            Self::Absent { path } => write!(f, "there is no database at {} yet; run makes one", path.display()),
            Self::Empty { path } => write!(f, "{} is empty; run makes the tables", path.display()),
            Self::Outdated { path, found, known } => {
                write!(f, "{} has schema {found}; run migrates it to schema {known}", path.display())
            }
            Self::Exposed { file, is_owner } => {
                let (path, readers, wanted) = (file.path.display(), file.readers(), file.wanted);
                write!(f, "{path}: {readers} has access (mode {:04o}); ", file.mode)?;
                if *is_owner {
                    write!(f, "run changes the mode to {wanted:04o}")
                } else {
                    write!(f, "run cannot change that, so run `chmod {wanted:o} {path}` as its owner")
                }
            }
            Self::NotWritable { path } => {
                write!(
                    f,
                    "{} is not writable; logins and logouts will answer 503 until this user may write it",
                    path.display()
                )
            }
            Self::UnreadLog { path } => {
                write!(f, "{} was not read, because its index (-shm) is missing; run reads it", path.display())
            }
        }
    }
}

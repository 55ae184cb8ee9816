//! One connection: opening, settings, migrations, and what SQLite's errors mean.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::{AsciiSet, CONTROLS, percent_encode};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::clock;
use crate::store::Error;

/// How long another process's lock is waited for.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// Marks the file as ours: "PORT".
const APPLICATION_ID: i64 = 0x504f_5254;

/// The schema's steps, in order; `user_version` counts those that were taken.
const MIGRATIONS: [&str; 6] = [
    include_str!("../migrations/0001_first.sql"),
    include_str!("../migrations/0002_sessions.sql"),
    include_str!("../migrations/0003_keys.sql"),
    include_str!("../migrations/0004_attempts.sql"),
    include_str!("../migrations/0005_import.sql"),
    include_str!("../migrations/0006_store.sql"),
];

/// The newest schema of this program.
pub(super) const LATEST: i64 = MIGRATIONS.len() as i64;

// Sorting and savepoints stay in memory, because a container may have no writable /tmp. The limit gives the space of a
// once large log back. The writer runs the checkpoints. What was deleted is overwritten where that costs no further
// writing: it may be a key.
const SETTINGS: &str = "
    PRAGMA synchronous = FULL;
    PRAGMA foreign_keys = ON;
    PRAGMA temp_store = MEMORY;
    PRAGMA secure_delete = FAST;
    PRAGMA trusted_schema = OFF;
    PRAGMA cell_size_check = ON;
    PRAGMA wal_autocheckpoint = 0;
    PRAGMA journal_size_limit = 67108864;
";

/// What means something else in the path of a URI.
const URI_PATH: &AsciiSet = &CONTROLS.add(b'%').add(b'?').add(b'#');

/// Makes an empty file that only its owner may read, when there is none, and returns its absolute path.
///
/// An existing file is never opened here: closing it would drop the locks that SQLite holds on it in this process.
pub(super) fn create(path: &Path) -> Result<PathBuf, Error> {
    let failed = |source| Error::Create { path: path.into(), source: Arc::new(source) };
    // SQLite removes a log that has no database; it may hold what was acknowledged.
    let size = |path: &Path| path.metadata().map_or(0, |found| found.len());
    let log = super::permissions::companion(path, "-wal");
    if size(path) == 0 && size(&log) > 0 {
        return Err(Error::LogAlone { path: path.into(), log });
    }
    if !path.exists() {
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
    }
    // An absolute path means the same file after a change of folder, and is never SQLite's `:memory:`.
    path.canonicalize().map_err(failed)
}

/// The first connection of a process: checks whose file it is, and brings its schema up to date. Whether it was empty.
pub(super) fn prepare(path: &Path) -> Result<(Connection, bool), Error> {
    let connection = connect(path)?;
    let explain = |error| classify(error, path);
    // Before anything is written: another program's database must stay as it is.
    let version = identify(&connection, path)?;
    require_wal(&connection, path)?;
    connection.execute_batch(SETTINGS).map_err(explain)?;
    if version < LATEST {
        connection.execute_batch("BEGIN IMMEDIATE").map_err(explain)?;
        // Another process may have been faster.
        let version = identify(&connection, path)?;
        migrate(&connection, version).map_err(explain)?;
        // The id of the store is compared with what stands in the main file; another process may keep this from working.
        drop(connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())));
    }
    Ok((connection, version == 0))
}

/// A further connection to a prepared file.
fn reopen(path: &Path) -> Result<Connection, Error> {
    let connection = connect(path)?;
    if identify(&connection, path)? != LATEST {
        return Err(Error::Foreign { path: path.into() });
    }
    connection.execute_batch(SETTINGS).map_err(|error| classify(error, path))?;
    Ok(connection)
}

/// Like [`reopen`], for the writer: a copy of the database may have another journal.
pub(super) fn reopen_for_writing(path: &Path) -> Result<Connection, Error> {
    let connection = reopen(path)?;
    require_wal(&connection, path)?;
    Ok(connection)
}

/// Like [`reopen`], for reading only.
pub(super) fn reopen_for_reading(path: &Path) -> Result<Connection, Error> {
    let connection = reopen(path)?;
    connection.execute_batch("PRAGMA query_only = ON").map_err(|error| classify(error, path))?;
    Ok(connection)
}

/// A path as it stands in a `file:` URI.
pub(super) fn uri_path(path: &Path) -> impl std::fmt::Display + '_ {
    percent_encode(path.as_os_str().as_encoded_bytes(), URI_PATH)
}

/// Writes the log into the database, and lets it be removed when the connection is closed as the last one.
pub(super) fn tidy(connection: &Connection) {
    // Another process that reads just now may keep it from succeeding.
    drop(connection.execute_batch("PRAGMA busy_timeout = 0; PRAGMA wal_checkpoint(TRUNCATE);"));
    drop(connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false));
}

fn connect(path: &Path) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| classify(error, path))?;
    let explain = |error| classify(error, path);
    connection.busy_timeout(BUSY_TIMEOUT).map_err(explain)?;
    // SQLite would remove the log by its path, which may lead to the log of another database meanwhile.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(explain)?;
    Ok(connection)
}

/// The schema's version, when the file is ours or empty.
pub(super) fn identify(connection: &Connection, path: &Path) -> Result<i64, Error> {
    let explain = |error| classify(error, path);
    let number = |sql| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(explain);
    // One look for all three: another process may be migrating. A savepoint, because there may be a transaction already.
    connection.execute_batch("SAVEPOINT look").map_err(explain)?;
    let version = number("PRAGMA user_version")?;
    let ours = number("PRAGMA application_id")? == APPLICATION_ID;
    let empty = version == 0 && number("SELECT count(*) FROM sqlite_schema")? == 0;
    connection.execute_batch("RELEASE look").map_err(explain)?;
    // Nor have we ever left tables behind without counting the steps.
    if !empty && (!ours || version < 1) {
        return Err(Error::Foreign { path: path.into() });
    }
    if version > LATEST {
        return Err(Error::Newer { path: path.into(), found: version, known: LATEST });
    }
    Ok(version)
}

fn require_wal(connection: &Connection, path: &Path) -> Result<(), Error> {
    match enter_wal(connection).map_err(|error| classify(error, path))?.as_str() {
        "wal" => Ok(()),
        _ => Err(Error::NoWal { path: path.into() }),
    }
}

/// Turns on write-ahead logging, and says which journal there is then. SQLite does not wait for locks here.
#[expect(
    clippy::disallowed_methods,
    reason = "it runs at the start, and on a thread of the store where a copy has taken the place of the database"
)]
fn enter_wal(connection: &Connection) -> rusqlite::Result<String> {
    let deadline = clock::monotonic() + BUSY_TIMEOUT;
    loop {
        match connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)) {
            Err(error) if is_busy(&error) && clock::monotonic() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            done => return done,
        }
    }
}

fn migrate(connection: &Connection, version: i64) -> rusqlite::Result<()> {
    for step in MIGRATIONS.iter().skip(usize::try_from(version).unwrap_or(0)) {
        connection.execute_batch(step)?;
    }
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "user_version", LATEST)?;
    connection.execute_batch("COMMIT")
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// The error without the statement, which may be a whole schema, and tells its reader nothing.
pub(in crate::store) fn without_sql(error: rusqlite::Error) -> rusqlite::Error {
    match error {
        rusqlite::Error::SqlInputError { error, msg, .. } => rusqlite::Error::SqliteFailure(error, Some(msg)),
        error => error,
    }
}

/// What an error of SQLite means to its reader.
pub(super) fn classify(error: rusqlite::Error, path: &Path) -> Error {
    let code = error.sqlite_error_code();
    let error = without_sql(error);
    let (path, source) = (path.to_path_buf(), Arc::new(error));
    match code {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed) => Error::Busy,
        Some(ErrorCode::ReadOnly) => Error::ReadOnly { path, source },
        Some(ErrorCode::DiskFull) => Error::Full { path, source },
        Some(ErrorCode::SystemIoFailure) => Error::Io { path, source },
        Some(ErrorCode::DatabaseCorrupt) => Error::Corrupt { path, source },
        Some(ErrorCode::NotADatabase) => Error::NotADatabase { path, source },
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => Error::Open { path, source },
        // A stored value that is not what only we could have stored.
        None if matches!(
            *source,
            rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::InvalidColumnType(..)
        ) =>
        {
            Error::Corrupt { path, source }
        }
        _ => Error::Sqlite(source),
    }
}

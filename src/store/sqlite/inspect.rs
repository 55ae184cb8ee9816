//! Reads the database as it is, for `check`: nothing is written, no file is made, and a gateway may be running on it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, ffi};
use rustix::fs::{Access, access};

use super::Store;
use super::connection::{BUSY_TIMEOUT, LATEST, classify, identify, uri_path};
use super::permissions::{companion, find_exposed};
use crate::config::{self, StoreLocation};
use crate::store::seal::Seal;
use crate::store::{Error, Finding};

/// How often the file is read when a gateway starts or ends meanwhile.
const ATTEMPTS: u32 = 3;

/// A schema before the encryption of keys has no such column.
const HAS_SEALS: &str = "SELECT count(*) FROM pragma_table_info('signing_key') WHERE name = 'sealed'";

/// In the order of the key ring, so that the error names the same key.
const SEALED: &str = "SELECT kid, secret FROM signing_key WHERE sealed = 1 ORDER BY created, kid";

impl Store {
    /// What [`Store::open`] would find and do. Changes nothing. Blocks as that does.
    ///
    /// # Errors
    /// Those of [`Store::open`], and [`Error::Sealed`] and [`Error::WrongSeal`].
    pub fn inspect(config: &config::Store) -> Result<Vec<Finding>, Error> {
        let StoreLocation::Sqlite(path) = &config.location;
        let seal = config.encryption_key.as_ref().map(Seal::new).transpose()?;
        match path.canonicalize() {
            Ok(path) => inspect_file(&path, seal.as_ref()),
            // A symbolic link without a target is no place to make a file at.
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.symlink_metadata().is_err() => {
                check_folder(path)?;
                Ok(vec![Finding::Absent { path: path.clone() }])
            }
            Err(source) => Err(Error::Create { path: path.clone(), source: Arc::new(source) }),
        }
    }
}

/// Whether a file can be made at `path`.
fn check_folder(path: &Path) -> Result<(), Error> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let judge = || match folder.metadata() {
        Ok(found) if !found.is_dir() => Err(io::ErrorKind::NotADirectory.into()),
        Ok(_) => access(folder, Access::WRITE_OK | Access::EXEC_OK).map_err(io::Error::from),
        Err(error) => Err(error),
    };
    judge().map_err(|source| Error::Create { path: path.into(), source: Arc::new(source) })
}

fn inspect_file(path: &Path, seal: Option<&Seal>) -> Result<Vec<Finding>, Error> {
    let is_file = path.metadata().is_ok_and(|found| found.is_file());
    if !is_file {
        return Err(classify(failure(ffi::SQLITE_CANTOPEN), path));
    }
    let (version, log) = read_settled(path, seal)?;
    let mut findings = Vec::new();
    if version == 0 {
        findings.push(Finding::Empty { path: path.into() });
    } else if version < LATEST {
        findings.push(Finding::Outdated { path: path.into(), found: version, known: LATEST });
    }
    if log == Log::Unindexed {
        findings.push(Finding::UnreadLog { path: companion(path, "-wal") });
    }
    let own = rustix::process::geteuid();
    findings.extend(find_exposed(path).into_iter().map(|file| {
        let is_owner = own.is_root() || own.as_raw() == file.owner;
        Finding::Exposed { file, is_owner }
    }));
    findings.extend(check_writable(path, version)?);
    Ok(findings)
}

/// What cannot be written. An error where `run` could not even start.
fn check_writable(path: &Path, version: i64) -> Result<Option<Finding>, Error> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let (has_file, has_folder) =
        (access(path, Access::WRITE_OK).is_ok(), access(folder, Access::WRITE_OK | Access::EXEC_OK).is_ok());
    let has_companions = ["-wal", "-shm"].iter().all(|suffix| companion(path, suffix).exists());
    if (!has_folder && !has_companions) || (!has_file && version < LATEST) {
        return Err(classify(failure(ffi::SQLITE_READONLY), path));
    }
    Ok(match (has_file, has_folder) {
        (true, true) => None,
        (false, _) => Some(Finding::NotWritable { path: path.into() }),
        (true, false) => Some(Finding::NotWritable { path: folder.into() }),
    })
}

fn failure(code: std::ffi::c_int) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
}

/// The write-ahead log beside the database, which decides how that can be read without a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Log {
    /// There is none: no process has the database open.
    Absent,
    /// A process has it open, or was killed.
    Indexed,
    /// A process was killed, and the index is lost; SQLite would make another one.
    Unindexed,
}

impl Log {
    fn find(database: &Path) -> Self {
        match companion(database, "-wal").metadata() {
            Err(_) => Self::Absent,
            Ok(_) if companion(database, "-shm").exists() => Self::Indexed,
            Ok(found) if found.len() == 0 => Self::Absent,
            Ok(_) => Self::Unindexed,
        }
    }

    /// Parameters of SQLite's URI. `immutable` makes no files and takes no locks; `readonly_shm` does not write the index.
    fn parameters(self) -> &'static str {
        match self {
            Self::Absent | Self::Unindexed => "immutable=1",
            Self::Indexed => "readonly_shm=1",
        }
    }
}

/// Reads the schema's version, and whether the keys can be decrypted; anew when the log came or went meanwhile.
fn read_settled(path: &Path, seal: Option<&Seal>) -> Result<(i64, Log), Error> {
    let mut attempt = 1;
    loop {
        let log = Log::find(path);
        let read = read(path, log, seal);
        if Log::find(path) == log || attempt == ATTEMPTS {
            return read.map(|version| (version, log));
        }
        attempt += 1;
    }
}

fn read(path: &Path, log: Log, seal: Option<&Seal>) -> Result<i64, Error> {
    let explain = |error| classify(error, path);
    let uri = format!("file:{}?{}", uri_path(path), log.parameters());
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(uri, flags).map_err(explain)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(explain)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(explain)?;
    let version = identify(&connection, path)?;
    for (kid, secret) in sealed_keys(&connection).map_err(explain)? {
        let seal = seal.ok_or_else(|| Error::Sealed { kid: kid.clone() })?;
        seal.open(&kid, &secret).ok_or(Error::WrongSeal { kid })?;
    }
    Ok(version)
}

/// Name and encrypted bytes of each key that is encrypted.
fn sealed_keys(connection: &Connection) -> rusqlite::Result<Vec<(String, Vec<u8>)>> {
    let has_seals: i64 = connection.query_row(HAS_SEALS, [], |row| row.get(0))?;
    if has_seals == 0 {
        return Ok(Vec::new());
    }
    connection.prepare(SEALED)?.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

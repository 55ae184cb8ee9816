//! The database of a Flask application, as an import reads it: accounts and revoked tokens. It is never written to.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row};

use crate::model::Shown;
use crate::secret::Secret;
use crate::store::sqlite::without_sql;

/// What tables of users are called, the likeliest first.
const USERS: [&str; 7] = ["users", "user", "user_model", "usermodel", "accounts", "account", "auth_user"];

/// What their columns are called, the likeliest first.
const NAMES: [&str; 5] = ["username", "user_name", "name", "login", "email"];
const HASHES: [&str; 6] = ["password", "password_hash", "passwordhash", "pw_hash", "hashed_password", "hash"];

/// What a name of a table of revoked tokens holds.
const REVOKED: [&str; 5] = ["revoked", "blocklist", "blacklist", "denylist", "block_list"];

/// How long a write of the application is waited for.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

const TABLES: &str = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
    ORDER BY name";

const VIEWS: &str = "SELECT name FROM sqlite_schema WHERE type = 'view' ORDER BY name";

const COLUMNS: &str = "SELECT name FROM pragma_table_xinfo(?1)";

/// Why nothing can be imported from a file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be opened or read.
    #[error("{}: this cannot be read as an SQLite database: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: rusqlite::Error,
    },
    /// It is not there, or may not be looked at.
    #[error("{}: {source}", path.display())]
    Find {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A folder, a pipe or a device.
    #[error("{}: this is no file; name the SQLite file of the application", path.display())]
    NoFile {
        /// Where.
        path: PathBuf,
    },
    /// There is no table that could hold users.
    #[error(
        "{}: no table has a column for names ({}) and one for password hashes ({}); name them with --users-table, \
         --name-column and --password-column. {}{}",
        path.display(), NAMES.join(", "), HASHES.join(", "), listed("Its tables", tables).unwrap_or("It has no tables".into()),
        listed("; views, which are not read", views).unwrap_or_default()
    )]
    NoUsers {
        /// Which file.
        path: PathBuf,
        /// What it has.
        tables: Vec<String>,
        /// What looks like tables.
        views: Vec<String>,
    },
    /// There are several.
    #[error("{}: several tables could hold the users: {}; name one with --users-table", path.display(), tables.join(", "))]
    Ambiguous {
        /// Which file.
        path: PathBuf,
        /// Which tables.
        tables: Vec<String>,
    },
    /// A table that was named has no such column, or is not there.
    #[error("{}: there is no table {table} with a column {column}", path.display())]
    Absent {
        /// Which file.
        path: PathBuf,
        /// Which table.
        table: String,
        /// Which column.
        column: String,
    },
}

/// What the operator says of the names in the file; the rest is found by the usual ones.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// The table of users.
    pub users: Option<String>,
    /// Its column with the name.
    pub name: Option<String>,
    /// Its column with the password's hash.
    pub password: Option<String>,
    /// The table of revoked tokens, whose column is `jti`.
    pub revoked: Option<String>,
}

/// A table, and some columns of it.
#[derive(Clone, Debug)]
struct Table<const N: usize> {
    name: String,
    columns: [String; N],
}

/// One user as the file has it; a part that is no text is missing.
pub struct User {
    /// The name.
    pub name: Option<String>,
    /// The password's hash.
    pub hash: Option<Secret>,
}

/// An application's database, open for reading.
pub struct Database {
    path: PathBuf,
    connection: Connection,
    users: Table<2>,
    revoked: Vec<Table<1>>,
}

impl Database {
    /// Opens the file and finds its tables. The application may be using it at the same time.
    ///
    /// # Errors
    /// [`Error`], saying what is wrong with the file.
    pub fn open(path: &Path, names: &Names) -> Result<Self, Error> {
        let fail = |source| Error::Read { path: path.into(), source: without_sql(source) };
        let missing = |source| Error::Find { path: path.into(), source };
        // An absolute path is never a URI or `:memory:` to SQLite.
        let file = path.canonicalize().map_err(missing)?;
        // Opening a pipe waits for ever.
        if !file.metadata().map_err(missing)?.is_file() {
            return Err(Error::NoFile { path: path.into() });
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&file, flags).map_err(fail)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(fail)?;
        // The file is somebody else's: nothing in it may run. What is read is of one moment.
        connection
            .execute_batch("PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA query_only = ON; BEGIN;")
            .map_err(fail)?;
        let tables = tables(&connection).map_err(fail)?;
        let views = texts(&connection, VIEWS).map_err(fail)?;
        let users = find_users((&tables, &views), names, path)?;
        let revoked = find_revoked(&tables, names, path)?;
        Ok(Self { path: path.into(), connection, users, revoked })
    }

    /// The table of users, with its two columns.
    pub fn users_table(&self) -> String {
        let Table { name, columns: [user, hash] } = &self.users;
        format!("{} ({}, {})", Shown(name), Shown(user), Shown(hash))
    }

    /// The tables of revoked tokens.
    pub fn revoked_tables(&self) -> Vec<String> {
        self.revoked.iter().map(|table| Shown(&table.name).to_string()).collect()
    }

    /// Every user, in the order of the file.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn users(&self) -> Result<Vec<User>, Error> {
        self.rows(&self.users, |row| {
            let hash = text(row, 1)?.map(Secret::new);
            Ok(User { name: text(row, 0)?, hash })
        })
    }

    /// The `jti` of every revoked token, or the kind of what stands there instead.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn revoked(&self) -> Result<Vec<Result<String, &'static str>>, Error> {
        let mut all = Vec::new();
        for table in &self.revoked {
            all.extend(self.rows(table, jti)?);
        }
        Ok(all)
    }

    fn rows<T, const N: usize>(
        &self,
        table: &Table<N>,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, Error> {
        let columns: Vec<String> = table.columns.iter().map(|column| quoted(column)).collect();
        let sql = format!("SELECT {} FROM {}", columns.join(", "), quoted(&table.name));
        let rows = self.connection.prepare(&sql).and_then(|mut statement| statement.query_map([], read)?.collect());
        rows.map_err(|source| Error::Read { path: self.path.clone(), source: without_sql(source) })
    }
}

fn texts(connection: &Connection, sql: &str) -> rusqlite::Result<Vec<String>> {
    connection.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
}

/// Every table with its columns.
fn tables(connection: &Connection) -> rusqlite::Result<Vec<(String, Vec<String>)>> {
    let names = texts(connection, TABLES)?;
    let mut columns = connection.prepare(COLUMNS)?;
    let with_columns = |name: String| {
        let found = columns.query_map([&name], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        Ok((name, found))
    };
    names.into_iter().map(with_columns).collect()
}

fn find_users(
    (tables, views): (&[(String, Vec<String>)], &[String]),
    names: &Names,
    path: &Path,
) -> Result<Table<2>, Error> {
    let column = |columns: &[String], named: &Option<String>, usual: &[&str]| match named {
        Some(named) => find(columns, named),
        None => usual.iter().find_map(|usual| find(columns, usual)),
    };
    let fit = |(name, columns): &(String, Vec<String>)| {
        let columns = [column(columns, &names.name, &NAMES)?, column(columns, &names.password, &HASHES)?];
        Some(Table { name: name.clone(), columns })
    };
    let mut fitting: Vec<Table<2>> = tables.iter().filter_map(fit).collect();
    let usual = |table: &Table<2>| USERS.iter().position(|usual| table.name.eq_ignore_ascii_case(usual));
    if let Some(named) = &names.users {
        fitting.retain(|table| table.name.eq_ignore_ascii_case(named));
    } else if let Some(best) = fitting.iter().filter_map(usual).min() {
        fitting.retain(|table| usual(table) == Some(best));
    }
    let several = fitting.iter().map(|table| Shown(&table.name).to_string()).collect();
    match (fitting.pop(), fitting.is_empty()) {
        (Some(table), true) => Ok(table),
        (Some(_), false) => Err(Error::Ambiguous { path: path.into(), tables: several }),
        (None, _) => Err(Error::NoUsers {
            path: path.into(),
            tables: tables.iter().map(|(name, columns)| format!("{} ({})", Shown(name), shown(columns))).collect(),
            views: views.iter().map(|name| Shown(name).to_string()).collect(),
        }),
    }
}

fn find_revoked(tables: &[(String, Vec<String>)], names: &Names, path: &Path) -> Result<Vec<Table<1>>, Error> {
    let fits = |name: &str| match &names.revoked {
        Some(named) => name.eq_ignore_ascii_case(named),
        None => REVOKED.iter().any(|part| name.to_ascii_lowercase().contains(part)),
    };
    let found: Vec<Table<1>> = tables
        .iter()
        .filter(|(name, _)| fits(name))
        .filter_map(|(name, columns)| Some(Table { name: name.clone(), columns: [find(columns, "jti")?] }))
        .collect();
    match &names.revoked {
        Some(table) if found.is_empty() => {
            Err(Error::Absent { path: path.into(), table: table.clone(), column: "jti".to_owned() })
        }
        _ => Ok(found),
    }
}

fn listed(what: &str, names: &[String]) -> Option<String> {
    (!names.is_empty()).then(|| format!("{what}: {}", names.join(", ")))
}

fn shown(names: &[String]) -> String {
    names.iter().map(|name| Shown(name).to_string()).collect::<Vec<_>>().join(", ")
}

/// The name as it is written in the file; SQLite does not tell upper from lower case.
fn find(all: &[String], name: &str) -> Option<String> {
    all.iter().find(|known| known.eq_ignore_ascii_case(name)).cloned()
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn jti(row: &Row<'_>) -> rusqlite::Result<Result<String, &'static str>> {
    Ok(match row.get_ref(0)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => match str::from_utf8(bytes) {
            Ok("") => Err("empty"),
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err("not in UTF-8"),
        },
        ValueRef::Null => Err("NULL"),
        ValueRef::Integer(_) | ValueRef::Real(_) => Err("number"),
    })
}

/// A value that is text, or the bytes of one.
fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<String>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => std::str::from_utf8(bytes).ok().map(str::to_owned),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => None,
    })
}

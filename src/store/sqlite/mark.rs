//! Identifies a store and one of its states.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Row};

use super::connection;

const MARK: &str = "SELECT id, commits, schema_version FROM store, pragma_schema_version";

/// How often a main file is read that cannot be: another process may be writing into it.
const ATTEMPTS: u32 = 3;

/// Between two of these.
const PAUSE: Duration = Duration::from_millis(2);

/// Which store it is, and how many transactions have changed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub id: [u8; 16],
    pub commits: i64,
    /// Grows with each change of the schema and each VACUUM. `VACUUM INTO` gives its copy the next one.
    pub schema: i64,
}

impl Mark {
    /// As `connection` sees it.
    pub fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let read = |row: &Row<'_>| Ok(Self { id: row.get(0)?, commits: row.get(1)?, schema: row.get(2)? });
        connection.prepare_cached(MARK)?.query_row([], read)
    }

    /// As it stands in the main file, without what the write-ahead log holds. It has none before the first checkpoint; where
    /// it is expected, another process may just be writing.
    pub fn read_main(path: &Path, is_expected: bool) -> rusqlite::Result<Self> {
        let uri = format!("file:{}?immutable=1", connection::uri_path(path));
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let read = || Self::read(&Connection::open_with_flags(&uri, flags)?);
        let mut mark = read();
        for _ in 1..if is_expected { ATTEMPTS } else { 1 } {
            if mark.is_ok() {
                break;
            }
            pause();
            mark = read();
        }
        mark
    }

    /// Whether this is the same store, and nothing has been lost since `earlier`.
    pub fn continues(&self, earlier: &Self) -> bool {
        self.id == earlier.id && self.commits >= earlier.commits
    }
}

#[expect(clippy::disallowed_methods, reason = "threads of the store serve no connections")]
fn pause() {
    std::thread::sleep(PAUSE);
}

//! Revocations: written once, read in the order of their commits, purged when no token can be alive that they end.

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::transaction::WriteConnection;
use super::{Store, attempts};
use crate::clock::UnixTime;
use crate::model::Generation;
use crate::store::{Error, Key, Kind, RETENTION, Revocation};

// One row of values, and no ON CONFLICT: SQLite keeps a journal of every statement that may write several rows, and uses
// up a sequence number, which is a write, for a row that is then in conflict.
const ADD: &str = "INSERT INTO revocation (key, kind, generation, at, keep_until) VALUES (?1, ?2, ?3, ?4, ?5)";

const FIND: &str = "SELECT seq, key, kind, generation, at, keep_until FROM revocation WHERE key = ?1";

const IS_ANY_THERE: &str = "SELECT EXISTS (SELECT 1 FROM revocation WHERE key IN (?1, ?2))";

const REMOVE: &str = "DELETE FROM revocation WHERE seq = ?1";

const AFTER: &str = "SELECT seq, key, kind, generation, at, keep_until FROM revocation WHERE seq > ?1
    ORDER BY seq LIMIT ?2";

const PURGE: &str = "DELETE FROM revocation WHERE seq IN
    (SELECT seq FROM revocation WHERE keep_until < ?1 LIMIT ?2)";

const PURGE_SESSIONS: &str = "DELETE FROM session WHERE rowid IN
    (SELECT rowid FROM session WHERE expires < ?1 LIMIT ?2)";

impl Store {
    /// Adds revocations, all or none. One whose key is there already is joined with it: the later end, and for a subject
    /// the higher generation and later time, count. Where that changes nothing, nothing is written.
    ///
    /// # Errors
    /// The store's.
    pub async fn revoke(&self, revocations: Vec<Revocation>) -> Result<(), Error> {
        self.write(move |connection| revocations.iter().try_for_each(|revocation| add(connection, revocation))).await
    }

    /// The revocations of these keys, as far as there are any; expired ones too until they are purged.
    ///
    /// # Errors
    /// The store's.
    pub async fn find_revocations(&self, keys: Vec<Key>) -> Result<Vec<Revocation>, Error> {
        self.seek(move |connection| keys.into_iter().filter_map(|key| find(connection, key).transpose()).collect())
            .await
    }

    /// Up to `limit` revocations with a sequence number above `seq`, in its order, each with its own. The numbers grow
    /// in the order of commits: what is committed later has a higher one than all that was ever returned. A changed
    /// revocation gets a new number. Expired ones are among them until they are purged.
    ///
    /// # Errors
    /// The store's.
    pub async fn revocations_after(&self, seq: i64, limit: usize) -> Result<Vec<(i64, Revocation)>, Error> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.feed(move |connection| {
            connection.prepare_cached(AFTER)?.query_map([seq, limit], read_revocation)?.collect()
        })
        .await
    }

    /// Deletes what nobody can need any more at `now`, at most `limit` rows; how many it was. Call it until that is 0.
    ///
    /// # Errors
    /// The store's.
    pub async fn purge(&self, now: UnixTime, limit: usize) -> Result<usize, Error> {
        let bound = |left: usize| i64::try_from(left).unwrap_or(i64::MAX);
        self.write(move |connection| {
            let purged = connection.prepare_cached(PURGE)?.execute([now.millis(), bound(limit)])?;
            let left = bound(limit.saturating_sub(purged));
            // A token is honoured a little beyond its end, for the sake of clocks, and so is its session.
            let expired = (now - RETENTION).millis();
            let purged = purged + connection.prepare_cached(PURGE_SESSIONS)?.execute([expired, left])?;
            Ok(purged + attempts::purge(connection, now, bound(limit.saturating_sub(purged)))?)
        })
        .await
    }
}

/// Adds one, or joins it with the one of its key. What stands then is noted, also where nothing had to be written: it may
/// be of another process, and not in this one's memory yet.
pub(super) fn add(connection: &WriteConnection, new: &Revocation) -> rusqlite::Result<()> {
    let Some((seq, old)) = find_row(connection, new.key)? else {
        insert(connection, new)?;
        connection.note(new);
        return Ok(());
    };
    let joined = join(&old, new);
    if joined != old {
        // Readers find it only by a new number.
        connection.prepare_cached(REMOVE)?.execute([seq])?;
        insert(connection, &joined)?;
    }
    connection.note(&joined);
    Ok(())
}

/// The revocation of that key.
pub(super) fn find(connection: &Connection, key: Key) -> rusqlite::Result<Option<Revocation>> {
    Ok(find_row(connection, key)?.map(|(_, revocation)| revocation))
}

fn find_row(connection: &Connection, key: Key) -> rusqlite::Result<Option<(i64, Revocation)>> {
    connection.prepare_cached(FIND)?.query_row([key.0], read_revocation).optional()
}

/// Whether one of these keys is revoked.
pub(super) fn is_any_there(connection: &Connection, keys: [Key; 2]) -> rusqlite::Result<bool> {
    connection.prepare_cached(IS_ANY_THERE)?.query_row(keys.map(|key| key.0), |row| row.get(0))
}

fn insert(connection: &Connection, new: &Revocation) -> rusqlite::Result<()> {
    connection.prepare_cached(ADD)?.execute(params![
        new.key.0,
        new.kind.code(),
        new.generation.0,
        new.at.millis(),
        new.keep_until.millis()
    ])?;
    Ok(())
}

/// The stricter of both in every respect. When a token or session was revoked first does not matter to anyone.
fn join(old: &Revocation, new: &Revocation) -> Revocation {
    let keep_until = old.keep_until.max(new.keep_until);
    match old.kind {
        Kind::Token | Kind::Session => Revocation { keep_until, ..old.clone() },
        Kind::Subject => Revocation {
            generation: old.generation.max(new.generation),
            at: old.at.max(new.at),
            keep_until,
            ..old.clone()
        },
    }
}

fn read_revocation(row: &Row<'_>) -> rusqlite::Result<(i64, Revocation)> {
    let code: u8 = row.get(2)?;
    let kind = Kind::from_code(code).ok_or_else(|| {
        rusqlite::Error::FromSqlConversionFailure(2, Type::Integer, format!("unknown kind {code} of revocation").into())
    })?;
    let revocation = Revocation {
        key: Key(row.get(1)?),
        kind,
        generation: Generation(row.get(3)?),
        at: UnixTime::from_millis(row.get(4)?),
        keep_until: UnixTime::from_millis(row.get(5)?),
    };
    Ok((row.get(0)?, revocation))
}

//! Sessions: opened by one statement, conditional on the account being as it was when the credential was checked; listed
//! and ended for those who hold a token that is still live. `rotation.rs` continues them.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::transaction::WriteConnection;
use super::{Store, eviction, revocations};
use crate::clock::UnixTime;
use crate::model::{AccountId, Generation, SessionId};
use crate::store::{Ended, Error, Key, Kind, NewSession, RETENTION, Revocation, SessionPage, SessionRow, Warrant};

const OPEN: &str = "INSERT INTO session
    (id, account, created, last_used, expires, address, user_agent, generation, access_expires)
    SELECT ?1, id, ?4, ?4, ?5, ?6, ?7, generation, ?8 FROM account WHERE id = ?2 AND generation = ?3 AND disabled = 0";

const FIND: &str = "SELECT id, account, created, last_used, expires, address, user_agent FROM session WHERE id = ?1";

const HONOUR: &str = "SELECT id, generation FROM account
    WHERE username = ?1 AND generation = ?2 AND disabled = 0
    AND NOT EXISTS (SELECT 1 FROM revocation WHERE key IN (?3, ?4))";

// A session of an earlier generation has ended. The index session_account_used gives this order backwards: nothing is sorted.
const LIST: &str = "SELECT id, account, created, last_used, expires, address, user_agent FROM session
    WHERE account = ?1 AND generation = ?2 AND (last_used, id) < (?4, ?5) AND expires > ?3
    ORDER BY last_used DESC, id DESC";

const IS_LIVE: &str = "SELECT EXISTS
    (SELECT 1 FROM session WHERE id = ?1 AND account = ?2 AND generation = ?3 AND expires > ?4)";

const IS_REVOKED: &str = "SELECT EXISTS (SELECT 1 FROM revocation WHERE key = ?1)";

const END: &str = "DELETE FROM session WHERE id = ?1 RETURNING expires";

impl Store {
    /// Opens a session, and ends those that exceed the account's limit, at most 100. Returns the ended ones; `None`, and
    /// nothing done, unless the account exists, is enabled and has exactly that generation.
    ///
    /// # Errors
    /// The store's. An id that is in use already is [`Error::Sqlite`].
    pub async fn open_session(
        &self,
        session: NewSession,
        account: AccountId,
        generation: Generation,
    ) -> Result<Option<Vec<SessionId>>, Error> {
        self.write(move |connection| {
            if !open(connection, &session, account, generation)? {
                return Ok(None);
            }
            eviction::evict(connection, &session, account, generation).map(Some)
        })
        .await
    }

    /// The session of that id, live or not.
    ///
    /// # Errors
    /// The store's.
    pub async fn find_session(&self, session: &SessionId) -> Result<Option<SessionRow>, Error> {
        let session = session.clone();
        self.seek(move |connection| {
            connection.prepare_cached(FIND)?.query_row([session.as_str()], read_session).optional()
        })
        .await
    }

    /// A page of the live sessions of the token's account, the last used first; `None` when the token is dead.
    ///
    /// # Errors
    /// The store's.
    pub async fn list_sessions(
        &self,
        by: Warrant,
        now: UnixTime,
        page: SessionPage,
    ) -> Result<Option<Vec<SessionRow>>, Error> {
        let limit = usize::try_from(page.limit).unwrap_or(usize::MAX);
        self.list(move |connection| {
            let Some((account, generation)) = honour(connection, &by)? else { return Ok(None) };
            // Without a cursor: every session was used before the end of time.
            let (used, id) = page.after.map_or((i64::MAX, SessionId::new("")), |at| (at.last_used.millis(), at.id));
            let mut statement = connection.prepare_cached(LIST)?;
            let values = params![account.0, generation.0, now.millis(), used, id.as_str()];
            let rows = statement.query_map(values, read_session)?;
            // A command may have revoked one without a look at the row.
            let is_live = |row: &SessionRow| is_revoked(connection, &row.id).map(|revoked| !revoked);
            let live = rows.filter_map(|row| row.and_then(|row| Ok(is_live(&row)?.then_some(row))).transpose());
            live.take(limit).collect::<rusqlite::Result<_>>().map(Some)
        })
        .await
    }

    /// Ends a session by its id. One that is not known has either ended already, or is of tokens that the store does
    /// not remember: it is revoked until `otherwise` at least. The revocation
    /// that was asked for.
    ///
    /// # Errors
    /// The store's.
    pub async fn end_session(
        &self,
        session: &SessionId,
        at: UnixTime,
        otherwise: UnixTime,
    ) -> Result<Revocation, Error> {
        let session = session.clone();
        self.write(move |connection| {
            if let Some(revocation) = end(connection, &session, at)? {
                return Ok(revocation);
            }
            let revocation = end_of_session(&session, at, otherwise);
            revocations::add(connection, &revocation)?;
            Ok(revocation)
        })
        .await
    }

    /// Whether a token is live.
    ///
    /// # Errors
    /// The store's.
    pub async fn honours(&self, by: Warrant) -> Result<bool, Error> {
        self.seek(move |connection| Ok(honour(connection, &by)?.is_some())).await
    }

    /// Ends a live session of the token's account.
    ///
    /// # Errors
    /// The store's.
    pub async fn end_own_session(&self, by: Warrant, session: &SessionId, at: UnixTime) -> Result<Ended, Error> {
        let session = session.clone();
        self.write(move |connection| {
            let Some((account, generation)) = honour(connection, &by)? else { return Ok(Ended::Refused) };
            let values = params![session.as_str(), account.0, generation.0, at.millis()];
            let live: bool = connection.prepare_cached(IS_LIVE)?.query_row(values, |row| row.get(0))?;
            if !live || is_revoked(connection, &session)? {
                return Ok(Ended::Unknown);
            }
            Ok(end(connection, &session, at)?.map_or(Ended::Unknown, Ended::Done))
        })
        .await
    }
}

pub(super) fn open(
    connection: &Connection,
    session: &NewSession,
    account: AccountId,
    generation: Generation,
) -> rusqlite::Result<bool> {
    let added = connection.prepare_cached(OPEN)?.execute(params![
        session.id.as_str(),
        account.0,
        generation.0,
        session.at.millis(),
        session.expires.millis(),
        session.address,
        session.user_agent,
        session.access_expires.millis()
    ])?;
    Ok(added == 1)
}

/// Ends a session that is known: its row goes, and its tokens are revoked for as long as the last of them lives; longer
/// where it seems to have expired, because the clock may be wrong.
pub(super) fn end(
    connection: &WriteConnection,
    session: &SessionId,
    at: UnixTime,
) -> rusqlite::Result<Option<Revocation>> {
    let expires = connection
        .prepare_cached(END)?
        .query_row([session.as_str()], |row| row.get(0).map(UnixTime::from_millis))
        .optional()?;
    let Some(expires) = expires else { return Ok(None) };
    let revocation = end_of_session(session, at, expires.max(at) + RETENTION);
    revocations::add(connection, &revocation)?;
    Ok(Some(revocation))
}

/// The token's account and its generation, while the token is live.
pub(super) fn honour(connection: &Connection, by: &Warrant) -> rusqlite::Result<Option<(AccountId, Generation)>> {
    let values = params![by.username.as_str(), by.generation.0, by.token.0, by.session.map(|key| key.0)];
    let read = |row: &Row<'_>| Ok((AccountId(row.get(0)?), Generation(row.get(1)?)));
    connection.prepare_cached(HONOUR)?.query_row(values, read).optional()
}

fn is_revoked(connection: &Connection, session: &SessionId) -> rusqlite::Result<bool> {
    let key = Key::session(None, session.as_str());
    connection.prepare_cached(IS_REVOKED)?.query_row([key.0], |row| row.get(0))
}

pub(super) fn end_of_session(session: &SessionId, at: UnixTime, keep_until: UnixTime) -> Revocation {
    let key = Key::session(None, session.as_str());
    Revocation { key, kind: Kind::Session, generation: Generation(0), at, keep_until }
}

fn read_session(row: &Row<'_>) -> rusqlite::Result<SessionRow> {
    Ok(SessionRow {
        id: SessionId::new(row.get_ref(0)?.as_str()?),
        account: AccountId(row.get(1)?),
        created: UnixTime::from_millis(row.get(2)?),
        last_used: UnixTime::from_millis(row.get(3)?),
        expires: UnixTime::from_millis(row.get(4)?),
        address: row.get(5)?,
        user_agent: row.get(6)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::sqlite;

    #[test]
    fn the_index_gives_the_order_of_the_list() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("portcullis.db");
        Store::open(&sqlite(&path)).unwrap().close();
        let connection = Connection::open(&path).unwrap();
        let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {LIST}")).unwrap();
        let steps = plan.query_map(params![1, 0, 0, 0, ""], |row| row.get::<_, String>(3)).unwrap();
        let steps: Vec<String> = steps.map(Result::unwrap).collect();
        let [step] = steps.as_slice() else { panic!("{steps:?}") };
        assert!(
            step.contains("USING INDEX session_account_used (account=? AND generation=? AND (last_used,id)<"),
            "{step}"
        );
        assert!(!step.contains("USE TEMP B-TREE"), "{step}");
    }
}

//! Sessions: opened and continued by one statement each, conditional on the account being as it was when the credential
//! was checked.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::Store;
use crate::clock::UnixTime;
use crate::model::{AccountId, Generation, SessionId};
use crate::store::{Error, Key, NewSession, SessionRow, Use};

const OPEN: &str = "INSERT INTO session (id, account, created, last_used, expires, address, user_agent)
    SELECT ?1, id, ?4, ?4, ?5, ?6, ?7 FROM account WHERE id = ?2 AND generation = ?3 AND disabled = 0";

const CONTINUE: &str = "UPDATE session SET last_used = ?4, expires = max(expires, ?5)
    WHERE id = ?1 AND account = ?2
    AND EXISTS (SELECT 1 FROM account WHERE id = ?2 AND generation = ?3 AND disabled = 0)
    AND NOT EXISTS (SELECT 1 FROM revocation WHERE key IN (?6, ?7))";

const FIND: &str = "SELECT id, account, created, last_used, expires, address, user_agent FROM session WHERE id = ?1";

impl Store {
    /// Opens a session; false, and nothing done, unless the account exists, is enabled and has exactly that generation.
    ///
    /// # Errors
    /// The store's. An id that is in use already is [`Error::Sqlite`].
    pub async fn open_session(
        &self,
        session: NewSession,
        account: AccountId,
        generation: Generation,
    ) -> Result<bool, Error> {
        self.write(move |connection| open(connection, &session, account, generation)).await
    }

    /// Notes a use of a session, whose tokens now last until `expires` at least; false, and nothing done, unless the
    /// session is the account's, neither it nor the token has been revoked, and the account is enabled and has exactly
    /// that generation.
    ///
    /// # Errors
    /// The store's.
    pub async fn continue_session(&self, session: &SessionId, by: Use) -> Result<bool, Error> {
        let session = session.clone();
        self.write(move |connection| {
            let key = Key::session(None, session.as_str());
            let changed = connection.prepare_cached(CONTINUE)?.execute(params![
                session.as_str(),
                by.account.0,
                by.generation.0,
                by.at.millis(),
                by.expires.millis(),
                key.0,
                by.token.0
            ])?;
            Ok(changed == 1)
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
        session.user_agent
    ])?;
    Ok(added == 1)
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

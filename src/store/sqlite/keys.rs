//! What the gateway makes once and must remember: its signing key, and the longest token life.

use std::time::Duration;

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::Store;
use crate::clock::UnixTime;
use crate::secret::Secret;
use crate::store::{Error, KeyState, SigningKey, Stats};

const SIGNING_KEY: &str = "SELECT kid, algorithm, secret, created, state FROM signing_key WHERE state = 'signing'";

const ADD_KEY: &str = "INSERT INTO signing_key (kid, algorithm, secret, created, state)
    VALUES (?1, ?2, ?3, ?4, 'signing') ON CONFLICT DO NOTHING";

const LONGEST_LIFETIME: &str = "SELECT value FROM meta WHERE name = 'longest_lifetime_ms'";

const RAISE_LONGEST_LIFETIME: &str = "INSERT INTO meta (name, value) VALUES ('longest_lifetime_ms', ?1)
    ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value) RETURNING value";

const STATS: &str = "SELECT (SELECT count(*) FROM account), (SELECT count(*) FROM session WHERE expires >= ?1),
    (SELECT count(*) FROM revocation)";

impl Store {
    /// The stored key that signs; `candidate` becomes it when there is none. Processes that ask at the same time get
    /// the same answer. A store that has one need not be writable.
    ///
    /// # Errors
    /// The store's.
    pub async fn load_or_make_key(&self, candidate: SigningKey) -> Result<SigningKey, Error> {
        if let Some(key) = self.seek(|connection| signing_key(connection).optional()).await? {
            return Ok(key);
        }
        self.write(move |connection| {
            connection.prepare_cached(ADD_KEY)?.execute(params![
                candidate.kid,
                candidate.algorithm,
                candidate.secret.expose(),
                candidate.created.millis()
            ])?;
            signing_key(connection)
        })
        .await
    }

    /// Notes that tokens may live for `lifetime`; the longest that was ever noted, in whole milliseconds. Revocations
    /// of all of an account's tokens are kept for that long. A store that knows a longer one need not be writable.
    ///
    /// # Errors
    /// The store's.
    pub async fn raise_longest_lifetime(&self, lifetime: Duration) -> Result<Duration, Error> {
        let wanted = i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX);
        let known = self
            .seek(|connection| {
                connection.prepare_cached(LONGEST_LIFETIME)?.query_row([], |row| row.get::<_, i64>(0)).optional()
            })
            .await?;
        let longest = match known {
            Some(known) if known >= wanted => known,
            _ => {
                self.write(move |connection| {
                    connection.prepare_cached(RAISE_LONGEST_LIFETIME)?.query_row([wanted], |row| row.get(0))
                })
                .await?
            }
        };
        Ok(Duration::from_millis(u64::try_from(longest).unwrap_or(0)))
    }

    /// Counts what there is. Reads every index once: not for every second.
    ///
    /// # Errors
    /// The store's.
    pub async fn stats(&self, now: UnixTime) -> Result<Stats, Error> {
        self.list(move |connection| {
            connection.prepare_cached(STATS)?.query_row([now.millis()], |row| {
                let count = |column| row.get::<_, i64>(column).map(i64::unsigned_abs);
                Ok(Stats { accounts: count(0)?, sessions: count(1)?, revocations: count(2)? })
            })
        })
        .await
    }
}

fn signing_key(connection: &Connection) -> rusqlite::Result<SigningKey> {
    connection.prepare_cached(SIGNING_KEY)?.query_row([], read_key)
}

fn read_key(row: &Row<'_>) -> rusqlite::Result<SigningKey> {
    let state = match row.get_ref(4)?.as_str()? {
        "signing" => KeyState::Signing,
        "verifying" => KeyState::Verifying,
        other => {
            let why = format!("unknown state {other:?} of a signing key");
            return Err(rusqlite::Error::FromSqlConversionFailure(4, Type::Text, why.into()));
        }
    };
    Ok(SigningKey {
        kid: row.get(0)?,
        algorithm: row.get(1)?,
        secret: Secret::new(row.get::<_, Vec<u8>>(2)?),
        created: UnixTime::from_millis(row.get(3)?),
        state,
    })
}

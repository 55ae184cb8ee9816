//! The signing keys and their states. Each change is one transaction, conditional on the state that it was decided on:
//! processes that act at the same time do it once.

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::Store;
use crate::clock::UnixTime;
use crate::secret::Secret;
use crate::store::{Error, KeyList, KeyState, SigningKey};

const ALL: &str = "SELECT kid, algorithm, secret, created, state, ends, sealed FROM signing_key ORDER BY created, kid";

const SIGNING: &str = "SELECT kid FROM signing_key WHERE state = 'signing'";

const STATE: &str = "SELECT kid, algorithm, x'', created, state, ends, 0 FROM signing_key WHERE kid = ?1";

const ADD: &str = "INSERT INTO signing_key (kid, algorithm, secret, created, state, ends, sealed)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING";

const RETIRE: &str = "UPDATE signing_key SET state = 'verifying', ends = ?1 WHERE state = 'signing'";

const DUE: &str = "SELECT count(*) FROM signing_key WHERE state = 'standby' AND ends <= ?1";

const PROMOTE: &str = "UPDATE signing_key SET state = 'signing', ends = NULL WHERE state = 'standby'";

const DROP_STANDBY: &str = "DELETE FROM signing_key WHERE state = 'standby' AND algorithm <> ?1";

const REVOKE: &str = "UPDATE signing_key SET state = 'revoked', secret = x'', sealed = 0, ends = ?2 WHERE kid = ?1";

const PURGE: &str = "DELETE FROM signing_key WHERE state IN ('verifying', 'revoked') AND ends < ?1";

const PLAIN: &str = "SELECT kid, secret FROM signing_key WHERE sealed = 0 AND state <> 'revoked'";

const SEAL: &str =
    "UPDATE signing_key SET secret = ?2, sealed = 1 WHERE kid = ?1 AND sealed = 0 AND state <> 'revoked'";

impl Store {
    /// All keys, the oldest first.
    ///
    /// # Errors
    /// The store's.
    pub async fn load_keys(&self) -> Result<KeyList, Error> {
        let rows: Vec<(SigningKey, bool)> =
            self.feed(|connection| connection.prepare_cached(ALL)?.query_map([], read_key)?.collect()).await?;
        let mut list = KeyList::default();
        for (key, sealed) in rows {
            match self.open_key(key, sealed) {
                Ok(key) => list.keys.push(key),
                Err(error) => list.unreadable.push(error),
            }
        }
        Ok(list)
    }

    /// Lets `new` sign in the place of `old` (`None`: there is none), whose tokens live until `until`. Whether `old` was
    /// still the one that signs; if not, nothing was changed.
    ///
    /// # Errors
    /// The store's.
    pub async fn replace_key(&self, old: Option<String>, new: SigningKey, until: UnixTime) -> Result<bool, Error> {
        let new = self.close_key(new)?;
        self.write(move |connection| {
            if signing(connection)? != old {
                return Ok(false);
            }
            connection.prepare_cached(RETIRE)?.execute([until.millis()])?;
            add(connection, &new)
        })
        .await
    }

    /// Adds a standby. Whether there was none of its algorithm yet; if there was, nothing was changed.
    ///
    /// # Errors
    /// The store's.
    pub async fn add_standby(&self, new: SigningKey) -> Result<bool, Error> {
        let new = self.close_key(new)?;
        self.write(move |connection| {
            connection.prepare_cached(DROP_STANDBY)?.execute([&new.0.algorithm])?;
            add(connection, &new)
        })
        .await
    }

    /// Forgets the standby unless it is of `algorithm`: it has not signed anything.
    ///
    /// # Errors
    /// The store's.
    pub async fn drop_standby(&self, algorithm: &'static str) -> Result<(), Error> {
        self.write(move |connection| connection.prepare_cached(DROP_STANDBY)?.execute([algorithm]).map(drop)).await
    }

    /// Lets the standby sign if its time has come at `due`; the tokens of the one before it live until `until`. Whether it
    /// did.
    ///
    /// # Errors
    /// The store's.
    pub async fn promote_standby(&self, due: UnixTime, until: UnixTime) -> Result<bool, Error> {
        self.write(move |connection| {
            let due: i64 = connection.prepare_cached(DUE)?.query_row([due.millis()], |row| row.get(0))?;
            if due > 0 {
                connection.prepare_cached(RETIRE)?.execute([until.millis()])?;
                connection.prepare_cached(PROMOTE)?.execute([])?;
            }
            Ok(due > 0)
        })
        .await
    }

    /// Lets no stored key sign; the tokens of the one that did live until `until`.
    ///
    /// # Errors
    /// The store's.
    pub async fn retire_key(&self, until: UnixTime) -> Result<(), Error> {
        self.write(move |connection| connection.prepare_cached(RETIRE)?.execute([until.millis()]).map(drop)).await
    }

    /// Revokes a key and wipes its secret; its tokens would have lived until `until`. If it was the one that signs, the
    /// standby does from now on, or else `spare`. Gives the state that it had; `None` when there is no such key.
    ///
    /// # Errors
    /// The store's.
    pub async fn revoke_key(&self, kid: String, spare: SigningKey, until: UnixTime) -> Result<Option<KeyState>, Error> {
        let spare = self.close_key(spare)?;
        self.write(move |connection| {
            let found = connection.prepare_cached(STATE)?.query_row([&kid], read_key).optional()?;
            let Some((SigningKey { state, .. }, _)) = found else { return Ok(None) };
            if !matches!(state, KeyState::Revoked { .. }) {
                connection.prepare_cached(REVOKE)?.execute(params![kid, until.millis()])?;
            }
            if state == KeyState::Signing && connection.prepare_cached(PROMOTE)?.execute([])? == 0 {
                add(connection, &spare)?;
            }
            Ok(Some(state))
        })
        .await
    }

    /// Forgets the keys whose last token has expired at `now`; how many.
    ///
    /// # Errors
    /// The store's.
    pub async fn purge_keys(&self, now: UnixTime) -> Result<usize, Error> {
        self.write(move |connection| connection.prepare_cached(PURGE)?.execute([now.millis()])).await
    }

    /// Encrypts the keys that are not yet, if there is an encryption key; how many.
    ///
    /// # Errors
    /// The store's.
    pub async fn seal_keys(&self) -> Result<usize, Error> {
        let Some(seal) = &self.0.seal else { return Ok(0) };
        let plain: Vec<(String, Vec<u8>)> = self
            .seek(|connection| {
                connection.prepare_cached(PLAIN)?.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
            })
            .await?;
        let mut closed = Vec::with_capacity(plain.len());
        for (kid, secret) in plain {
            let sealed = seal.close(&kid, &Secret::new(secret))?;
            closed.push((kid, sealed));
        }
        if closed.is_empty() {
            return Ok(0);
        }
        self.write(move |connection| {
            let mut count = 0;
            for (kid, secret) in &closed {
                count += connection.prepare_cached(SEAL)?.execute(params![kid, secret])?;
            }
            Ok(count)
        })
        .await
    }

    fn open_key(&self, key: SigningKey, sealed: bool) -> Result<SigningKey, Error> {
        if !sealed {
            return Ok(key);
        }
        let seal = self.0.seal.as_ref().ok_or_else(|| Error::Sealed { kid: key.kid.clone() })?;
        let secret = seal.open(&key.kid, key.secret.expose());
        let secret = secret.ok_or_else(|| Error::WrongSeal { kid: key.kid.clone() })?;
        Ok(SigningKey { secret, ..key })
    }

    /// As it is to be stored.
    fn close_key(&self, key: SigningKey) -> Result<(SigningKey, bool), Error> {
        let Some(seal) = &self.0.seal else { return Ok((key, false)) };
        let secret = Secret::new(seal.close(&key.kid, &key.secret)?);
        Ok((SigningKey { secret, ..key }, true))
    }
}

fn signing(connection: &Connection) -> rusqlite::Result<Option<String>> {
    connection.prepare_cached(SIGNING)?.query_row([], |row| row.get(0)).optional()
}

fn add(connection: &Connection, (key, sealed): &(SigningKey, bool)) -> rusqlite::Result<bool> {
    let (state, ends) = match key.state {
        KeyState::Standby { signs_from } => ("standby", Some(signs_from)),
        KeyState::Signing => ("signing", None),
        KeyState::Verifying { until } => ("verifying", Some(until)),
        KeyState::Revoked { until } => ("revoked", Some(until)),
    };
    let added = connection.prepare_cached(ADD)?.execute(params![
        key.kid,
        key.algorithm,
        key.secret.expose(),
        key.created.millis(),
        state,
        ends.map(UnixTime::millis),
        sealed
    ])?;
    Ok(added > 0)
}

fn read_key(row: &Row<'_>) -> rusqlite::Result<(SigningKey, bool)> {
    let ends = UnixTime::from_millis(row.get::<_, Option<i64>>(5)?.unwrap_or(i64::MAX));
    let state = match row.get_ref(4)?.as_str()? {
        "standby" => KeyState::Standby { signs_from: ends },
        "signing" => KeyState::Signing,
        "verifying" => KeyState::Verifying { until: ends },
        "revoked" => KeyState::Revoked { until: ends },
        other => {
            let why = format!("unknown state {other:?} of a signing key");
            return Err(rusqlite::Error::FromSqlConversionFailure(4, Type::Text, why.into()));
        }
    };
    let key = SigningKey {
        kid: row.get(0)?,
        algorithm: row.get(1)?,
        secret: Secret::new(row.get::<_, Vec<u8>>(2)?),
        created: UnixTime::from_millis(row.get(3)?),
        state,
    };
    Ok((key, row.get(6)?))
}

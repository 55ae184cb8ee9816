//! Refreshes: one conditional statement decides each, and with rotation turns the old refresh token in for a new one.
//!
//! The newest token of a session is noted with it, and only that may be turned in. Whoever comes with an older one came
//! late or has stolen it: he gets the same successor while that is unused or the grace lasts, and else ends the session.
//! Where tokens do not rotate any more, he gets nothing: there is neither a successor to give nor a race to judge.

use std::time::Duration;

use rusqlite::{OptionalExtension, Row, params};

use super::transaction::WriteConnection;
use super::{Store, revocations, sessions};
use crate::clock::UnixTime;
use crate::model::{SessionId, TokenId};
use crate::store::{Error, Key, Refreshed, Rotation, Successor, Use};

/// A session may be refreshed so often ...
const PACE: u32 = 30;

/// ... within this many milliseconds, which begin with the first of them.
const PACE_TIME: u32 = 60_000;

/// So many who race for one successor count as one refresh, and any more as one each: no browser has so many tabs.
const RACERS: u32 = 64;

// ?10 is the key of the successor, or NULL where there is none to come; ?11 that of the token which must be the newest. A
// pace may begin a little in the future, because requests overtake each other; one that begins far in it is of a clock
// that was set back.
const PROCEED: &str = "UPDATE session SET last_used = max(last_used, ?4), expires = max(expires, ?5),
    access_expires = max(access_expires, ?12), newest = coalesce(?10, newest),
    pace_uses = iif(abs(pace_begin - ?4) < ?8, pace_uses + 1, 1),
    pace_begin = iif(abs(pace_begin - ?4) < ?8, pace_begin, ?4)
    WHERE id = ?1 AND account = ?2
    AND EXISTS (SELECT 1 FROM account WHERE id = ?2 AND generation = ?3 AND disabled = 0)
    AND NOT EXISTS (SELECT 1 FROM revocation WHERE key IN (?6, ?7))
    AND (pace_uses < ?9 OR abs(pace_begin - ?4) >= ?8)
    AND (newest IS NULL OR newest = ?11)";

const LOOK: &str = "SELECT newest, pace_begin FROM session WHERE id = ?1 AND account = ?2
    AND EXISTS (SELECT 1 FROM account WHERE id = ?2 AND generation = ?3 AND disabled = 0)
    AND NOT EXISTS (SELECT 1 FROM revocation WHERE key IN (?4, ?5))";

const NOTE: &str = "UPDATE session SET last_used = max(last_used, ?2), expires = max(expires, ?3),
    access_expires = max(access_expires, ?4) WHERE id = ?1";

const REMEMBER: &str = "INSERT INTO rotation (session, token, successor, issued, expires) VALUES (?1, ?2, ?3, ?4, ?5)";

const FORGET: &str = "DELETE FROM rotation WHERE session = ?1 AND issued <= ?2";

const RACE: &str = "UPDATE rotation SET racers = racers + 1 WHERE session = ?1 AND token = ?2 AND racers < ?3";

const SUCCESSOR: &str = "SELECT successor, issued, expires FROM rotation WHERE session = ?1 AND token = ?2";

impl Store {
    /// Notes a use of a session, whose tokens now last until `by.expires` at least; refused, and nothing done, unless the
    /// session is the account's, neither it nor the token has been revoked, and the account is enabled and has exactly
    /// that generation. With a `rotation` the token is turned in for its successor.
    ///
    /// # Errors
    /// The store's.
    pub async fn refresh_session(
        &self,
        session: &SessionId,
        by: Use,
        rotation: Option<Rotation>,
    ) -> Result<Refreshed, Error> {
        let session = session.clone();
        self.write(move |connection| {
            let refresh = Refresh { connection, session: &session, key: Key::session(None, session.as_str()), by };
            match rotation {
                None => refresh.stay(),
                Some(rotation) => refresh.rotate(rotation),
            }
        })
        .await
    }
}

/// One refresh, within the writer's transaction.
struct Refresh<'a> {
    connection: &'a WriteConnection,
    session: &'a SessionId,
    /// Of the session.
    key: Key,
    by: Use,
}

/// What stands in a session that did not let a refresh proceed.
struct State {
    newest: Option<Key>,
    pace_begin: UnixTime,
}

impl State {
    /// Whether the token was turned in for another.
    fn is_past(&self, token: Key) -> bool {
        self.newest.is_some_and(|newest| newest != token)
    }

    fn too_often(self) -> Refreshed {
        Refreshed::TooOften { until: self.pace_begin + Duration::from_millis(PACE_TIME.into()) }
    }
}

impl Refresh<'_> {
    /// Notes a use, while `newest` is the token to be used next.
    fn proceed(&self, newest: Key, successor: Option<Key>) -> rusqlite::Result<bool> {
        let changed = self.connection.prepare_cached(PROCEED)?.execute(params![
            self.session.as_str(),
            self.by.account.0,
            self.by.generation.0,
            self.by.at.millis(),
            self.by.expires.millis(),
            self.key.0,
            self.by.token.0,
            PACE_TIME,
            PACE,
            successor.map(|key| key.0),
            newest.0,
            self.by.access_expires.millis()
        ])?;
        Ok(changed == 1)
    }

    /// The session, when all but pace and rotation lets it be refreshed.
    fn look(&self) -> rusqlite::Result<Option<State>> {
        let Self { session, key, by, .. } = self;
        let values = params![session.as_str(), by.account.0, by.generation.0, key.0, by.token.0];
        let read = |row: &Row<'_>| {
            let newest = row.get::<_, Option<_>>(0)?.map(Key);
            Ok(State { newest, pace_begin: UnixTime::from_millis(row.get(1)?) })
        };
        self.connection.prepare_cached(LOOK)?.query_row(values, read).optional()
    }

    /// A refresh where tokens do not rotate.
    fn stay(&self) -> rusqlite::Result<Refreshed> {
        if self.proceed(self.by.token, None)? {
            return Ok(Refreshed::Granted(None));
        }
        let state = self.look()?.filter(|state| !state.is_past(self.by.token));
        Ok(state.map_or(Refreshed::Refused, State::too_often))
    }

    fn rotate(&self, rotation: Rotation) -> rusqlite::Result<Refreshed> {
        if self.proceed(self.by.token, Some(Key::token(None, rotation.successor.as_str())))? {
            return self.remember(rotation);
        }
        let Some(state) = self.look()? else { return Ok(Refreshed::Refused) };
        match state.newest {
            Some(newest) if newest != self.by.token => self.repeat(newest, rotation.grace),
            _ => Ok(state.too_often()),
        }
    }

    fn remember(&self, rotation: Rotation) -> rusqlite::Result<Refreshed> {
        let Rotation { successor, expires, grace } = rotation;
        let (session, token, at) = (self.session.as_str(), self.by.token.0, self.by.at);
        self.connection.prepare_cached(FORGET)?.execute(params![session, (at - grace).millis()])?;
        let values = params![session, token, successor.as_str(), at.millis(), expires.millis()];
        self.connection.prepare_cached(REMEMBER)?.execute(values)?;
        Ok(Refreshed::Granted(Some(Successor { token: successor, issued: at, expires })))
    }

    /// For a token that was turned in before; `newest` is the one to be used next.
    fn repeat(&self, newest: Key, grace: Duration) -> rusqlite::Result<Refreshed> {
        let found = self.successor()?.map(|successor| (Key::token(None, successor.token.as_str()), successor));
        // Either way: a clock that was set back is no longer grace.
        let apart = |one: UnixTime, other: UnixTime| one.since(other).max(other.since(one));
        let in_grace = |successor: &Successor| apart(self.by.at, successor.issued) < grace;
        let Some((key, successor)) = found.filter(|(key, successor)| *key == newest || in_grace(successor)) else {
            return Ok(match sessions::end(self.connection, self.session, self.by.at)? {
                Some(revocation) => Refreshed::Reused(revocation),
                None => Refreshed::Refused,
            });
        };
        // A logout of the successor, or of what came of it, is one of all that led there.
        if revocations::is_any_there(self.connection, [key, newest])? {
            return Ok(Refreshed::Refused);
        }
        if in_grace(&successor) && self.race()? {
            let by = self.by;
            let values =
                params![self.session.as_str(), by.at.millis(), by.expires.millis(), by.access_expires.millis()];
            self.connection.prepare_cached(NOTE)?.execute(values)?;
        } else if !self.proceed(newest, None)? {
            return Ok(self.look()?.map_or(Refreshed::Refused, State::too_often));
        }
        Ok(Refreshed::Granted(Some(successor)))
    }

    /// Whether there is room in the race for one successor.
    fn race(&self) -> rusqlite::Result<bool> {
        let values = params![self.session.as_str(), self.by.token.0, RACERS];
        Ok(self.connection.prepare_cached(RACE)?.execute(values)? == 1)
    }

    fn successor(&self) -> rusqlite::Result<Option<Successor>> {
        let read = |row: &Row<'_>| {
            Ok(Successor {
                token: TokenId::new(row.get_ref(0)?.as_str()?),
                issued: UnixTime::from_millis(row.get(1)?),
                expires: UnixTime::from_millis(row.get(2)?),
            })
        };
        let values = params![self.session.as_str(), self.by.token.0];
        self.connection.prepare_cached(SUCCESSOR)?.query_row(values, read).optional()
    }
}

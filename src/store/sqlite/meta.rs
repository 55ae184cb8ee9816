//! What the gateway must remember of itself: the longest token life, and how much there is.

use std::time::Duration;

use rusqlite::OptionalExtension;

use super::Store;
use crate::clock::UnixTime;
use crate::store::{Error, Stats};

const LONGEST_LIFETIME: &str = "SELECT value FROM meta WHERE name = 'longest_lifetime_ms'";

const RAISE_LONGEST_LIFETIME: &str = "INSERT INTO meta (name, value) VALUES ('longest_lifetime_ms', ?1)
    ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value) RETURNING value";

const STATS: &str = "SELECT (SELECT count(*) FROM account), (SELECT count(*) FROM session WHERE expires >= ?1),
    (SELECT count(*) FROM revocation)";

impl Store {
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

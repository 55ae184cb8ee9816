//! Attempts: counted before a password is looked at, taken back when it was right, so that no two slip through at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension, params};

use super::Store;
use super::transaction::WriteConnection;
use crate::clock::UnixTime;
use crate::model::{AccountId, Household};
use crate::store::attempt::{Entry, Place};
use crate::store::{Attempt, Error, Receipt, Tallies, Tally};

/// Addresses that are remembered for an account: those that were used last.
const KNOWN_ADDRESSES: u32 = 20;

/// Debts beyond these are let go: they stay counted.
const MOST_DEBTS: usize = 1024;

const IS_KNOWN: &str = "SELECT EXISTS (SELECT 1 FROM account JOIN known_address ON known_address.account = account.id
    WHERE username = ?1 AND address = ?2 AND expires > ?3)";

const FIND: &str = "SELECT failures, until, forget FROM attempt WHERE account = ?1 AND address = ?2";

const PUT: &str = "INSERT INTO attempt (account, address, failures, until, forget) VALUES (?1, ?2, ?3, ?4, ?5)
    ON CONFLICT (account, address)
    DO UPDATE SET failures = excluded.failures, until = excluded.until, forget = excluded.forget";

// Times come back only where nobody has counted since.
const TAKE_BACK: &str = "UPDATE attempt SET failures = failures - 1,
    until = CASE WHEN until = ?3 AND forget = ?4 THEN ?5 ELSE until END,
    forget = CASE WHEN until = ?3 AND forget = ?4 THEN ?6 ELSE forget END
    WHERE account = ?1 AND address = ?2";

const DROP_EMPTY: &str = "DELETE FROM attempt WHERE account = ?1 AND address = ?2 AND failures <= 0";

const REMEMBER: &str = "INSERT INTO known_address (account, address, expires)
    SELECT id, ?2, ?3 FROM account WHERE id = ?1
    ON CONFLICT (account, address) DO UPDATE SET expires = excluded.expires";

const TRIM: &str = "DELETE FROM known_address WHERE account = ?1 AND address IN
    (SELECT address FROM known_address WHERE account = ?1 ORDER BY expires DESC LIMIT -1 OFFSET ?2)";

const UNLOCK_ACCOUNT: &str = "DELETE FROM attempt WHERE account IN (?1, ?2)";

const UNLOCK_ADDRESS: &str = "DELETE FROM attempt WHERE address = ?1";

const PURGE: &str = "DELETE FROM attempt WHERE (account, address) IN
    (SELECT account, address FROM attempt WHERE forget <= ?1 LIMIT ?2)";

const PURGE_KNOWN: &str = "DELETE FROM known_address WHERE (account, address) IN
    (SELECT account, address FROM known_address WHERE expires <= ?1 LIMIT ?2)";

/// What could not be taken back, because the store did not take it: made good with the next attempt that is counted.
#[derive(Clone, Default)]
pub(super) struct Debts(Arc<Mutex<Vec<(Receipt, UnixTime)>>>);

impl Debts {
    fn list(&self) -> MutexGuard<'_, Vec<(Receipt, UnixTime)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them, to be made good.
    fn draw(&self) -> Vec<Return> {
        let owed = std::mem::take(&mut *self.list());
        let again = |(receipt, at)| Return { receipt: Some(receipt), at, debts: self.clone() };
        owed.into_iter().map(again).collect()
    }
}

/// A receipt on its way back. Dropped before that is committed, it becomes a debt.
struct Return {
    receipt: Option<Receipt>,
    at: UnixTime,
    debts: Debts,
}

impl Return {
    /// Does it; to be committed.
    fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
        self.receipt.as_ref().map_or(Ok(()), |receipt| take_back(connection, receipt, self.at))
    }

    /// It stands.
    fn done(mut self) {
        self.receipt = None;
    }
}

impl Drop for Return {
    fn drop(&mut self) {
        let mut debts = self.debts.list();
        if let Some(receipt) = self.receipt.take().filter(|_| debts.len() < MOST_DEBTS) {
            debts.push((receipt, self.at));
        }
    }
}

impl Store {
    /// Whether more is counted than there should be, because it could not be taken back yet.
    pub fn owes_attempts(&self) -> bool {
        !self.0.debts.list().is_empty()
    }

    /// What is counted against an attempt.
    ///
    /// # Errors
    /// The store's.
    pub async fn find_tallies(&self, attempt: Attempt<'_>) -> Result<Tallies, Error> {
        let (name, address, at) = (attempt.name.map(str::to_owned), attempt.address, attempt.at);
        self.seek(move |connection| {
            Places::of(connection, Attempt { name: name.as_deref(), address, at })?.find(connection)
        })
        .await
    }

    /// Counts an attempt as `judge` says, which is given what is counted against it and returns what is to stand there:
    /// nothing of others comes in between. Where `judge` refuses, nothing is written.
    ///
    /// # Errors
    /// The store's.
    pub async fn count_attempt<R: Send + 'static>(
        &self,
        attempt: Attempt<'_>,
        judge: impl FnOnce(Tallies) -> Result<Tallies, R> + Send + 'static,
    ) -> Result<Result<Receipt, R>, Error> {
        let (name, address, at) = (attempt.name.map(str::to_owned), attempt.address, attempt.at);
        let debts = self.0.debts.clone();
        // What is counted for a caller that has gone, or has waited for too long, could not be taken back.
        let counted = self.write_if_wanted(move |connection| {
            let owed = debts.draw();
            owed.iter().try_for_each(|owed| owed.write(connection))?;
            let places = Places::of(connection, Attempt { name: name.as_deref(), address, at })?;
            let seen = places.find(connection)?;
            let next = match judge(seen) {
                Ok(next) => next,
                Err(refusal) => return Ok((Err(refusal), owed)),
            };
            let mut entries = Vec::new();
            for (place, before, after) in [
                (places.account, seen.account, next.account),
                (places.day, seen.day, next.day),
                (places.address, seen.address, next.address),
            ] {
                if let (Some(place), Some(after)) = (place, after) {
                    put(connection, &place, after)?;
                    entries.push(Entry { place, before, after });
                }
            }
            Ok((Ok(Receipt::new(entries)), owed))
        });
        let (counted, owed) = counted.await?;
        owed.into_iter().for_each(Return::done);
        Ok(counted)
    }

    /// Takes back what an attempt has counted, because it did not fail. Nobody waits for it: it is committed with what is
    /// asked for next.
    pub fn take_back_attempt(&self, receipt: Receipt, at: UnixTime) {
        self.post(self.way_back(Some(receipt), at), |connection, way| way.write(connection), Return::done);
    }

    /// Remembers that an account was entered from an address, which is then known to it until `expires`, and takes back
    /// what the attempt has counted. Nobody waits for it, as with [`Store::take_back_attempt`].
    pub fn remember_address(
        &self,
        account: AccountId,
        address: Household,
        (at, expires): (UnixTime, UnixTime),
        receipt: Option<Receipt>,
    ) {
        let remember = move |connection: &WriteConnection, way: &Return| {
            way.write(connection)?;
            let values = params![account.0, address.bytes(), expires.millis()];
            connection.prepare_cached(REMEMBER)?.execute(values)?;
            connection.prepare_cached(TRIM)?.execute(params![account.0, KNOWN_ADDRESSES])?;
            Ok(())
        };
        self.post(self.way_back(receipt, at), remember, Return::done);
    }

    fn way_back(&self, receipt: Option<Receipt>, at: UnixTime) -> Return {
        Return { receipt, at, debts: self.0.debts.clone() }
    }

    /// Clears what is counted against an account, known or not, from everywhere; how many counters there were.
    ///
    /// # Errors
    /// The store's.
    pub async fn unlock_account(&self, name: &str) -> Result<usize, Error> {
        let (place, day) = (Place::account(name, None), Place::day(name, None));
        let values = [place.account, day.account];
        self.write(move |connection| connection.prepare_cached(UNLOCK_ACCOUNT)?.execute(values)).await
    }

    /// Clears what is counted against an address; how many counters there were.
    ///
    /// # Errors
    /// The store's.
    pub async fn unlock_address(&self, address: Household) -> Result<usize, Error> {
        self.write(move |connection| connection.prepare_cached(UNLOCK_ADDRESS)?.execute([address.bytes()])).await
    }
}

/// The counters that an attempt meets.
struct Places {
    is_known: bool,
    account: Option<Place>,
    day: Option<Place>,
    address: Option<Place>,
}

impl Places {
    fn of(connection: &Connection, attempt: Attempt<'_>) -> rusqlite::Result<Self> {
        let address = Some(Place::address(attempt.address));
        let Some(name) = attempt.name else { return Ok(Self { is_known: false, account: None, day: None, address }) };
        let values = params![name, attempt.address.bytes(), attempt.at.millis()];
        let is_known: bool = connection.prepare_cached(IS_KNOWN)?.query_row(values, |row| row.get(0))?;
        let pair = is_known.then_some(attempt.address);
        let (account, day) = (Some(Place::account(name, pair)), Some(Place::day(name, pair)));
        Ok(Self { is_known, account, day, address: address.filter(|_| !is_known) })
    }

    fn find(&self, connection: &Connection) -> rusqlite::Result<Tallies> {
        let find = |place: &Option<Place>| place.as_ref().map_or(Ok(None), |place| find(connection, place));
        let (account, day, address) = (find(&self.account)?, find(&self.day)?, find(&self.address)?);
        Ok(Tallies { is_known: self.is_known, account, day, address })
    }
}

fn find(connection: &Connection, place: &Place) -> rusqlite::Result<Option<Tally>> {
    let read = |row: &rusqlite::Row<'_>| {
        Ok(Tally {
            failures: row.get(0)?,
            until: UnixTime::from_millis(row.get(1)?),
            forget: UnixTime::from_millis(row.get(2)?),
        })
    };
    connection.prepare_cached(FIND)?.query_row(params![place.account, place.address], read).optional()
}

fn put(connection: &Connection, place: &Place, tally: Tally) -> rusqlite::Result<()> {
    connection.prepare_cached(PUT)?.execute(params![
        place.account,
        place.address,
        tally.failures,
        tally.until.millis(),
        tally.forget.millis()
    ])?;
    Ok(())
}

fn take_back(connection: &Connection, receipt: &Receipt, at: UnixTime) -> rusqlite::Result<()> {
    for Entry { place, before, after } in &receipt.entries {
        let (until, forget) = before.map_or((at, after.forget), |before| (before.until, before.forget));
        connection.prepare_cached(TAKE_BACK)?.execute(params![
            place.account,
            place.address,
            after.until.millis(),
            after.forget.millis(),
            until.millis(),
            forget.millis()
        ])?;
        connection.prepare_cached(DROP_EMPTY)?.execute(params![place.account, place.address])?;
    }
    Ok(())
}

/// Deletes what is forgotten at `now`, at most `limit` rows; how many it was.
pub(super) fn purge(connection: &Connection, now: UnixTime, limit: i64) -> rusqlite::Result<usize> {
    let purged = connection.prepare_cached(PURGE)?.execute([now.millis(), limit])?;
    let left = limit - i64::try_from(purged).unwrap_or(limit);
    Ok(purged + connection.prepare_cached(PURGE_KNOWN)?.execute([now.millis(), left])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unlocking_an_address_scans_no_counters_of_others() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(include_str!("../migrations/0001_first.sql")).unwrap();
        connection.execute_batch(include_str!("../migrations/0004_attempts.sql")).unwrap();
        let plan = format!("EXPLAIN QUERY PLAN {UNLOCK_ADDRESS}");
        let plan: String = connection.query_row(&plan, [[0_u8; 4]], |row| row.get("detail")).unwrap();
        assert!(plan.starts_with("SEARCH attempt") && plan.contains("attempt_address"), "{plan}");
    }
}

//! Eviction: the sessions that end because their account opens more than it may have.

use std::collections::{HashMap, VecDeque};

use rusqlite::{Row, params};

use super::transaction::WriteConnection;
use super::{revocations, sessions};
use crate::clock::UnixTime;
use crate::model::{AccountId, Generation, Household, SessionId};
use crate::store::{NewSession, RETENTION};

/// The most sessions that one login ends. Where a lowered limit leaves more, later logins end the rest.
const EVICTED_AT_ONCE: usize = 100;

const COUNT: &str = "SELECT count(*) FROM session WHERE account = ?1 AND generation = ?2 AND expires > ?3";

const LEAST_RECENTLY_USED: &str = "SELECT id, address FROM session
    WHERE account = ?1 AND generation = ?2 AND expires > ?3 ORDER BY last_used, id";

const END: &str = "DELETE FROM session WHERE id = ?1 RETURNING access_expires";

/// Ends the sessions that exceed the limit of `opened`, the session that the account has just got, which never ends.
pub(super) fn evict(
    connection: &WriteConnection,
    opened: &NewSession,
    account: AccountId,
    generation: Generation,
) -> rusqlite::Result<Vec<SessionId>> {
    let values = params![account.0, generation.0, opened.at.millis()];
    let live: u32 = connection.prepare_cached(COUNT)?.query_row(values, |row| row.get(0))?;
    let excess = usize::try_from(live.saturating_sub(opened.limit)).unwrap_or(usize::MAX).min(EVICTED_AT_ONCE);
    if excess == 0 {
        return Ok(Vec::new());
    }
    let mut groups = Groups::new(&opened.id, excess);
    let mut statement = connection.prepare_cached(LEAST_RECENTLY_USED)?;
    let mut rows = statement.query(values)?;
    while let Some(row) = rows.next()? {
        groups.add(row)?;
    }
    let evicted: Vec<SessionId> = std::iter::from_fn(|| groups.take()).take(excess).collect();
    evicted.iter().try_for_each(|session| end(connection, session, opened.at))?;
    Ok(evicted)
}

/// Deletes the row, by which refreshes are refused, and revokes the access tokens until the last one has expired.
fn end(connection: &WriteConnection, session: &SessionId, at: UnixTime) -> rusqlite::Result<()> {
    let read = |row: &Row<'_>| row.get(0).map(UnixTime::from_millis);
    let expires = connection.prepare_cached(END)?.query_row([session.as_str()], read)?;
    revocations::add(connection, &sessions::end_of_session(session, at, expires.max(at) + RETENTION))
}

/// The live sessions of an account by client prefix.
struct Groups<'a> {
    /// Never ends, but counts.
    opened: &'a SessionId,
    /// How many sessions end.
    excess: usize,
    /// How many sessions were added before.
    position: usize,
    /// Sessions without an address form one group.
    by_prefix: HashMap<Option<Household>, Group>,
}

/// The live sessions of one client prefix.
#[derive(Default)]
struct Group {
    count: usize,
    /// The least recently used ones with their position among all of the account; no more than can end.
    candidates: VecDeque<(usize, SessionId)>,
}

impl<'a> Groups<'a> {
    fn new(opened: &'a SessionId, excess: usize) -> Self {
        Self { opened, excess, position: 0, by_prefix: HashMap::new() }
    }

    /// Adds the next session, in the order of last use.
    fn add(&mut self, row: &Row<'_>) -> rusqlite::Result<()> {
        let address = row.get_ref(1)?.as_str_or_null()?;
        let prefix = address.and_then(|text| text.parse().ok()).map(Household::of);
        let group = self.by_prefix.entry(prefix).or_default();
        group.count += 1;
        self.position += 1;
        let id = row.get_ref(0)?.as_str()?;
        if id != self.opened.as_str() && group.candidates.len() < self.excess {
            group.candidates.push_back((self.position, SessionId::new(id)));
        }
        Ok(())
    }

    /// Takes the least recently used session of the largest group; of equal groups, the one used least recently.
    fn take(&mut self) -> Option<SessionId> {
        let ranked = self.by_prefix.values_mut().filter_map(|group| {
            let (position, _) = group.candidates.front()?;
            Some((group.count, std::cmp::Reverse(*position), group))
        });
        let (_, _, group) = ranked.max_by_key(|(count, position, _)| (*count, *position))?;
        group.count -= 1;
        group.candidates.pop_front().map(|(_, session)| session)
    }
}

//! Fair turns at an account that is guessed at: of the addresses that came too early, the one that came first goes first.
//!
//! While an account makes attempts wait, each wait ends with one attempt. Without turns it is that of the client which
//! asks most often. So an address that was told to wait is remembered, and for a moment after the wait no other goes before
//! it. Known addresses have counters of their own and need no turns.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::model::Household;
use crate::store::Key;

/// How long a turn is kept for an address that does not come.
const RESERVED: Duration = Duration::from_secs(10);

/// Addresses in the line of one account. With the time of a turn this bounds what they can delay each other.
const LINE_MAX: usize = 30;

/// Accounts that have lines. Beyond these the first to come goes.
const ACCOUNTS_MAX: usize = 10_000;

/// A line in which nothing happens for so long is forgotten.
const FORGET: Duration = Duration::from_secs(900);

/// The addresses that wait for one account.
struct Line {
    waiting: VecDeque<Household>,
    /// Since when the turn is the first one's.
    open: Option<Instant>,
    touched: Instant,
}

/// Between two searches for lines to forget, when there are as many as may be.
const SWEEP_PAUSE: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Lines {
    by_account: HashMap<Key, Line>,
    swept: Option<Instant>,
}

/// See the module. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Turns(Arc<Mutex<Lines>>);

impl Turns {
    /// An address was told to wait for the account.
    pub fn note(&self, account: Key, address: Household, now: Instant) {
        let mut lines = self.lines();
        if lines.by_account.len() >= ACCOUNTS_MAX && !lines.by_account.contains_key(&account) {
            if lines.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP_PAUSE) {
                lines.swept = Some(now);
                lines.by_account.retain(|_, line| now.saturating_duration_since(line.touched) < FORGET);
            }
            if lines.by_account.len() >= ACCOUNTS_MAX {
                return;
            }
        }
        let line = lines.by_account.entry(account).or_insert_with(|| Line {
            waiting: VecDeque::new(),
            open: None,
            touched: now,
        });
        line.touched = now;
        if line.waiting.len() < LINE_MAX && !line.waiting.contains(&address) {
            line.waiting.push_back(address);
        }
    }

    /// The wait of the account is over. Whether the turn is that of `address`; if not, how long another's is kept.
    ///
    /// # Errors
    /// The time after which to come again.
    pub fn check(&self, account: Key, address: Household, now: Instant) -> Result<(), Duration> {
        let lines = &mut self.lines().by_account;
        let Some(line) = lines.get_mut(&account) else { return Ok(()) };
        if now.saturating_duration_since(line.touched) >= FORGET {
            lines.remove(&account);
            return Ok(());
        }
        while let Some(first) = line.waiting.front() {
            let open = *line.open.get_or_insert(now);
            let passed = now.saturating_duration_since(open);
            if *first == address {
                return Ok(());
            }
            if passed < RESERVED {
                return Err(RESERVED - passed);
            }
            line.waiting.pop_front();
            line.open = Some(now);
        }
        Ok(())
    }

    /// An attempt from the address was counted: it has had its turn.
    pub fn take(&self, account: Key, address: Household, now: Instant) {
        let lines = &mut self.lines().by_account;
        if let Some(line) = lines.get_mut(&account) {
            line.waiting.retain(|waiting| *waiting != address);
            (line.open, line.touched) = (None, now);
            if line.waiting.is_empty() {
                lines.remove(&account);
            }
        }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn address(last: u8) -> Household {
        Household::V4([192, 0, 2, last])
    }

    #[test]
    fn the_first_that_waited_goes_first() {
        let (turns, start) = (Turns::default(), crate::clock::monotonic());
        let account = Key::subject(None, "alice");
        let (attacker, owner) = (address(1), address(2));
        assert_eq!(turns.check(account, attacker, start), Ok(()), "no line");
        turns.take(account, attacker, start);
        turns.note(account, owner, start);
        turns.note(account, attacker, start);
        assert_eq!(turns.check(account, attacker, start + SECOND), Err(RESERVED));
        assert_eq!(turns.check(account, attacker, start + 4 * SECOND), Err(RESERVED - 3 * SECOND));
        assert_eq!(turns.check(account, owner, start + 5 * SECOND), Ok(()));
        turns.take(account, owner, start + 5 * SECOND);
        turns.note(account, owner, start + 6 * SECOND);
        assert_eq!(turns.check(account, owner, start + 7 * SECOND), Err(RESERVED), "in turn");
        assert_eq!(turns.check(account, attacker, start + 8 * SECOND), Ok(()));
    }

    #[test]
    fn a_turn_that_is_not_taken_is_over() {
        let (turns, start) = (Turns::default(), crate::clock::monotonic());
        let account = Key::subject(None, "alice");
        for last in 0..255 {
            turns.note(account, address(last), start);
        }
        let late = address(255);
        let mut now = start;
        while let Err(wait) = turns.check(account, late, now) {
            assert!(wait <= RESERVED);
            now += wait;
        }
        let waited = now - start;
        assert!(waited <= Duration::from_secs(300), "{waited:?}");
        assert_eq!(turns.check(Key::subject(None, "bob"), late, start), Ok(()));
        turns.note(account, address(1), now);
        assert_eq!(turns.check(account, late, now + FORGET), Ok(()));
        assert!(turns.lines().by_account.is_empty());
    }

    #[test]
    fn lines_are_bounded_and_old_ones_make_room() {
        let (turns, start) = (Turns::default(), crate::clock::monotonic());
        let account = |number: usize| Key::subject(None, &number.to_string());
        for number in 0..=ACCOUNTS_MAX {
            turns.note(account(number), address(1), start);
        }
        assert_eq!(turns.lines().by_account.len(), ACCOUNTS_MAX);
        turns.note(account(ACCOUNTS_MAX), address(1), start + FORGET);
        assert_eq!(turns.lines().by_account.len(), 1);
    }
}

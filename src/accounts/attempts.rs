//! Guessing is slow: attempts are counted before their password is looked at, and beyond what is free each has to wait.
//!
//! An address from which the account was entered before is known to it, and judged only by counters of their own: what
//! others do delays nothing there. From elsewhere the counters of the account and of the address hold, with fair turns by
//! address while the account makes attempts wait.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::time::timeout_at;

use crate::accounts::login_rate::{self, LoginRate};
use crate::accounts::turns::Turns;
use crate::accounts::unsettled::{Another, Turn, Unsettled, Visit};
use crate::accounts::{Error, HashError};
use crate::clock::{self, UnixTime};
use crate::config::{self, Rate};
use crate::model::{AccountId, Household};
use crate::store::{self, Key, Receipt, Store, Tallies, Tally};

/// The first wait and the longest.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);

/// Failures of a day, of an account from elsewhere, and of each address that is known to it.
const DAY_MAX: u32 = 300;
const DAY: Duration = Duration::from_secs(86_400);

/// How long an address is known to an account that was entered from it.
const ACQUAINTANCE: Duration = Duration::from_secs(90 * 86_400);

/// Why an attempt is refused before its password is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Too many for the account.
    Account,
    /// Too many from the address.
    Address,
    /// The address has its share of the hash queue, or the queue is full or slow.
    Queue,
}

impl Reason {
    /// In the order of the declaration.
    const LABELS: [&'static str; 3] = ["account", "address", "queue"];
}

/// What is known of attempts in this process, whatever its configuration: those under way, and how many were refused.
/// Clones share it.
#[derive(Clone, Default)]
pub struct Ledger {
    refused: Arc<[AtomicU64; Reason::LABELS.len()]>,
    unsettled: Unsettled,
    turns: Turns,
    logins: LoginRate,
}

impl Ledger {
    /// Each reason's label, and how many were refused for it.
    pub fn refused(&self) -> [(&'static str, u64); Reason::LABELS.len()] {
        let mut numbers = self.refused.iter().map(|number| number.load(Ordering::Relaxed));
        Reason::LABELS.map(|label| (label, numbers.next().unwrap_or_default()))
    }

    /// Counts one that is refused.
    pub(super) fn count(&self, reason: Reason) {
        if let Some(number) = self.refused.get(reason as usize) {
            number.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Someone tries, and from where.
#[derive(Clone, Copy)]
pub(super) struct Try<'a> {
    /// As it was typed; none for a registration.
    pub name: Option<&'a str>,
    pub address: IpAddr,
    pub at: UnixTime,
    /// When it must be answered.
    pub deadline: Instant,
}

impl<'a> Try<'a> {
    fn row(self) -> store::Attempt<'a> {
        store::Attempt { name: self.name, address: Household::of(self.address), at: self.at }
    }
}

/// Counts attempts, and lets them through or not.
#[derive(Clone)]
pub(super) struct Guard {
    store: Store,
    limits: config::Attempts,
    ledger: Ledger,
}

impl Guard {
    pub fn new(store: Store, limits: config::Attempts, ledger: Ledger) -> Self {
        Self { store, limits, ledger }
    }

    /// Whether addresses are told apart at all.
    pub fn minds_addresses(&self) -> bool {
        self.limits.per_address.is_some()
    }

    /// Notes why there is no hash.
    pub fn note(&self, error: &HashError) {
        match error {
            HashError::Busy | HashError::Crowded => self.ledger.count(Reason::Queue),
            HashError::Abandoned
            | HashError::Ended
            | HashError::Argon2(_)
            | HashError::Unreadable
            | HashError::Start(_) => {}
        }
    }

    /// Counts an attempt as a failure, until it is known to be none. What is in the way of it may be attempts of whose
    /// outcome nothing is known yet either, which is waited for.
    ///
    /// # Errors
    /// [`Error::TooManyAttempts`], the store.
    pub async fn admit(&self, attempt: Try<'_>) -> Result<Admission, Error> {
        let limits = match attempt.name {
            Some(_) => self.limits,
            None => config::Attempts { per_account: None, ..self.limits },
        };
        let mut admission =
            Admission { receipt: None, login: None, is_known: false, store: self.store.clone(), at: attempt.at };
        if limits.per_account.is_none() && limits.per_address.is_none() {
            return Ok(admission);
        }
        admission.is_known = self.store.find_tallies(attempt.row()).await?.is_known;
        let name = attempt.name.filter(|_| limits.per_account.is_some());
        let client = admission.is_known.then(|| Household::of(attempt.address));
        admission.login = name.map(|name| (Key::subject(None, name), client));
        admission.receipt = Some(self.receipt(attempt, limits, &admission).await?);
        Ok(admission)
    }

    async fn receipt(
        &self,
        attempt: Try<'_>,
        limits: config::Attempts,
        admission: &Admission,
    ) -> Result<Receipt, Error> {
        let is_known = admission.is_known;
        let mut visit = self.ledger.unsettled.visit(attempt, is_known);
        let deadline = tokio::time::Instant::from_std(attempt.deadline);
        let mut turn: Option<Turn> = None;
        loop {
            if let Some(Err(left)) = admission.login.map(|login| self.ledger.logins.check(login, clock::monotonic())) {
                self.ledger.count(Reason::Account);
                return Err(Error::TooManyAttempts(left));
            }
            let wait = match self.count(attempt, limits, &mut visit).await? {
                Ok(receipt) => {
                    if let Some(turn) = turn {
                        turn.use_up(None);
                    }
                    return Ok(receipt.holding(visit));
                }
                Err(wait) => wait,
            };
            match visit.another(wait.reason, wait.excess) {
                Another::Turn(mut next) => {
                    if let Some(turn) = turn {
                        turn.use_up(Some(&next));
                    }
                    if timeout_at(deadline, next.come()).await.is_err() {
                        return Err(self.busy());
                    }
                    turn = Some(next);
                }
                Another::Full => return Err(self.busy()),
                Another::InVain => {
                    self.ledger.count(wait.reason);
                    if let (Reason::Account, Some(name), false) = (wait.reason, attempt.name, is_known) {
                        let address = Household::of(attempt.address);
                        self.ledger.turns.note(Key::subject(None, name), address, clock::monotonic());
                    }
                    return Err(Error::TooManyAttempts(wait.left));
                }
            }
        }
    }

    /// Only attempts under way are before this one: it is not refused for what the client did.
    fn busy(&self) -> Error {
        self.ledger.count(Reason::Queue);
        HashError::Busy.into()
    }

    async fn count(
        &self,
        attempt: Try<'_>,
        limits: config::Attempts,
        visit: &mut Visit,
    ) -> Result<Result<Receipt, Wait>, store::Error> {
        let at = attempt.at;
        let key = attempt.name.map(|name| (Key::subject(None, name), Household::of(attempt.address)));
        // A look beforehand: an attempt that has to wait should not keep the writer from its work. The count decides.
        if !self.store.owes_attempts() {
            let seen = self.store.find_tallies(attempt.row()).await?;
            if let Err(wait) = judge(seen, limits, at) {
                return Ok(Err(wait));
            }
            if let Some((account, address)) = key.filter(|_| !seen.is_known && is_contended(seen, limits))
                && let Err(left) = self.ledger.turns.check(account, address, clock::monotonic())
            {
                return Ok(Err(Wait { reason: Reason::Account, left, excess: u32::MAX }));
            }
        }
        // First, so that an attempt which finds it counted can wait for it.
        visit.begin();
        let counted = self.store.count_attempt(attempt.row(), move |seen| judge(seen, limits, at)).await?;
        if counted.is_err() {
            visit.withdraw();
        } else if let Some((account, address)) = key {
            self.ledger.turns.take(account, address, clock::monotonic());
        }
        Ok(counted)
    }

    /// Notes a good login. It takes back its own count and no more: what others have counted up keeps delaying them, and
    /// the address is known from now on, so that they no longer delay it.
    pub fn welcome(&self, account: AccountId, (address, at): (IpAddr, UnixTime), admission: Option<Admission>) {
        if self.limits.per_account.is_some() {
            if let Some(login) = admission.as_ref().and_then(|admission| admission.login) {
                self.ledger.logins.count(login, clock::monotonic());
            }
            let receipt = admission.and_then(|mut admission| admission.receipt.take());
            self.store.remember_address(account, Household::of(address), (at, at + ACQUAINTANCE), receipt);
        }
    }
}

/// An attempt that counts as a failure. Dropped without a word, it is taken back: nobody knows what it was.
pub(super) struct Admission {
    /// `None`: nothing is counted.
    receipt: Option<Receipt>,
    /// What a completed login counts for.
    login: Option<login_rate::Subject>,
    is_known: bool,
    store: Store,
    at: UnixTime,
}

impl Admission {
    /// Whether it comes from where the account was entered before.
    pub fn is_known(&self) -> bool {
        self.is_known
    }

    /// It was a failure, or is one of those that count whatever they come to.
    pub fn stand(mut self) {
        self.receipt = None;
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let Some(receipt) = self.receipt.take() {
            self.store.take_back_attempt(receipt, self.at);
        }
    }
}

/// An attempt comes too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wait {
    reason: Reason,
    left: Duration,
    /// With so many failures fewer it would not.
    excess: u32,
}

/// Whether the account makes attempts wait from time to time.
fn is_contended(seen: Tallies, limits: config::Attempts) -> bool {
    let counted = limits.per_account.zip(seen.account);
    counted.is_some_and(|(rate, tally)| delay(tally.failures, rate).is_some())
}

/// What stands on the counters once the attempt is counted, on those that are not turned off; or the longest wait.
fn judge(seen: Tallies, limits: config::Attempts, now: UnixTime) -> Result<Tallies, Wait> {
    let per_address = limits.per_address.filter(|_| !seen.is_known);
    let account = limits.per_account.map(|rate| count(seen.account, rate, now)).transpose();
    let day = limits.per_account.map(|_| count_day(seen.day, now)).transpose();
    let address = per_address.map(|rate| count(seen.address, rate, now)).transpose();
    let free = |rate: Option<Rate>| rate.map_or(0, |rate| rate.count.get() - 1);
    let wait = |reason, left: Duration, tally: Option<Tally>, free| {
        let failures = tally.map_or(0, |tally| tally.failures);
        Wait { reason, left, excess: failures.saturating_sub(free) }
    };
    let waits = [
        account.as_ref().err().map(|left| wait(Reason::Account, *left, seen.account, free(limits.per_account))),
        day.as_ref().err().map(|left| wait(Reason::Account, *left, seen.day, DAY_MAX - 1)),
        address.as_ref().err().map(|left| wait(Reason::Address, *left, seen.address, free(per_address))),
    ];
    match (waits.into_iter().flatten().reduce(|first, next| if next.left > first.left { next } else { first }), account)
    {
        (Some(wait), _) => Err(wait),
        (None, account) => Ok(Tallies {
            is_known: seen.is_known,
            account: account.unwrap_or_default(),
            day: day.unwrap_or_default(),
            address: address.unwrap_or_default(),
        }),
    }
}

/// One more failure of a day, or how long until that is over.
fn count_day(seen: Option<Tally>, now: UnixTime) -> Result<Tally, Duration> {
    let seen = seen.filter(|seen| now < seen.forget);
    let failures = seen.map_or(0, |seen| seen.failures);
    // After a clock that was set back a day is no longer than a day.
    let end = seen.map_or(now + DAY, |seen| seen.forget.min(now + DAY));
    if failures >= DAY_MAX {
        return Err(end.since(now));
    }
    Ok(Tally { failures: failures + 1, until: now, forget: end })
}

/// One more failure, or how long until it may be made.
///
/// So many as the rate says are free from the first on within its time, and then forgotten together. Beyond that nothing
/// is forgotten before the wait is over and the rate's time has passed in quiet.
fn count(seen: Option<Tally>, rate: Rate, now: UnixTime) -> Result<Tally, Duration> {
    let seen = seen.filter(|seen| now < seen.forget);
    let failures = seen.map_or(0, |seen| seen.failures);
    let left = seen.map_or(Duration::ZERO, |seen| seen.until.since(now));
    // Far more than it can be means that the clock was set back: then it is over. A little more means that `now` was a
    // while ago.
    if !left.is_zero() && delay(failures, rate).is_some() && left <= 2 * LONGEST {
        return Err(left.min(LONGEST));
    }
    let failures = failures.saturating_add(1);
    Ok(match delay(failures, rate) {
        Some(delay) => Tally { failures, until: now + delay, forget: now + delay + rate.per },
        None => {
            let end = now + rate.per;
            Tally { failures, until: now, forget: seen.map_or(end, |seen| seen.forget.min(end)) }
        }
    })
}

/// The wait after so many failures.
fn delay(failures: u32, rate: Rate) -> Option<Duration> {
    let doublings = failures.checked_sub(rate.count.get())?;
    Some(SHORTEST.saturating_mul(1 << doublings.min(16)).min(LONGEST))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    const START: UnixTime = UnixTime::from_secs(1_800_000_000);
    const MINUTE: Duration = Duration::from_secs(60);

    fn rate(count: u32, per: Duration) -> Rate {
        Rate { count: NonZeroU32::new(count).unwrap(), per }
    }

    /// Guesses as often as it may until `end`; the waits, and how many guesses there were.
    fn guess(rate: Rate, end: Duration) -> (Vec<u64>, usize) {
        let (mut seen, mut now, mut waits, mut guesses) = (None, START, Vec::new(), 0);
        while now < START + end {
            match count(seen, rate, now) {
                Ok(tally) => {
                    seen = Some(tally);
                    guesses += 1;
                }
                Err(wait) => {
                    waits.push(wait.as_secs());
                    now = now + wait;
                }
            }
        }
        (waits, guesses)
    }

    #[test]
    fn beyond_what_is_free_each_doubles_the_wait() {
        let (waits, _) = guess(rate(5, 15 * MINUTE), 30 * MINUTE);
        assert_eq!(waits[..11], [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        let (_, guesses) = guess(rate(5, 15 * MINUTE), 24 * 60 * MINUTE);
        assert!((280..310).contains(&guesses), "{guesses} guesses in a day");
    }

    #[test]
    fn who_keeps_to_the_rate_never_waits() {
        // Two in four minutes, at any distance: also across the edge of a window.
        for gap in [1, 30, 119, 239] {
            let mut seen = None;
            for pair in 0..50 {
                for second in [0, gap] {
                    let now = START + Duration::from_secs(pair * (241 + gap) + second);
                    seen = Some(count(seen, rate(3, 4 * MINUTE), now).unwrap());
                }
            }
        }
    }

    #[test]
    fn quiet_is_forgotten() {
        let rate = rate(2, 10 * MINUTE);
        let first = count(None, rate, START).unwrap();
        assert_eq!(first, Tally { failures: 1, until: START, forget: START + 10 * MINUTE });
        let second = count(Some(first), rate, START + MINUTE).unwrap();
        assert_eq!(count(Some(second), rate, START + MINUTE), Err(SHORTEST));
        let third = count(Some(second), rate, START + 2 * MINUTE).unwrap();
        assert_eq!((third.failures, third.until), (3, START + 2 * MINUTE + 2 * SHORTEST));
        let late = START + 12 * MINUTE + 2 * SHORTEST;
        assert_eq!(count(Some(third), rate, late - SHORTEST).unwrap().failures, 4);
        assert_eq!(count(Some(third), rate, late).unwrap().failures, 1);
    }

    #[test]
    fn a_clock_that_steps_locks_nobody_out() {
        let rate = rate(1, MINUTE);
        let tally = count(None, rate, START).unwrap();
        let day = Duration::from_secs(86_400);
        // Back by a day: counted on, and the longest wait is still the longest.
        let back = count(Some(tally), rate, START - day).unwrap();
        assert_eq!((back.failures, back.until), (2, START - day + 2 * SHORTEST));
        assert!(back.forget <= START - day + 2 * SHORTEST + MINUTE);
        assert_eq!(count(Some(back), rate, START - day), Err(2 * SHORTEST));
        // Back by a little: who was held up on his way cannot take it for that.
        assert_eq!(count(Some(tally), rate, START - MINUTE), Err(MINUTE + SHORTEST));
        assert_eq!(count(Some(tally), rate, START - 6 * MINUTE), Err(LONGEST));
        // Forth by a day: forgotten.
        assert_eq!(count(Some(tally), rate, START + day).unwrap().failures, 1);
    }

    #[test]
    fn extremes_stand() {
        let tally = Tally { failures: u32::MAX, until: START, forget: START + MINUTE };
        let next = count(Some(tally), rate(1, MINUTE), START).unwrap();
        assert_eq!((next.failures, next.until), (u32::MAX, START + LONGEST));
        // A rate that was raised meanwhile frees; one that was lowered does not shorten the wait.
        assert_eq!(count(Some(Tally { failures: 7, ..next }), rate(10, MINUTE), START).unwrap().failures, 8);
        let waiting = Tally { failures: 7, until: START + SHORTEST, forget: START + MINUTE };
        assert_eq!(count(Some(waiting), rate(1, MINUTE), START), Err(SHORTEST));
    }

    #[test]
    fn the_longer_wait_counts_and_off_is_off() {
        let waiting = |seconds| Some(Tally { failures: 9, until: START + seconds * SHORTEST, forget: START + MINUTE });
        let on = Some(rate(1, MINUTE));
        let limits = |per_account, per_address| config::Attempts { per_account, per_address };
        let judge = |account, address, limits| {
            let seen = Tallies { account, address, ..Tallies::default() };
            judge(seen, limits, START).map(|next| (next.account.is_some(), next.address.is_some()))
        };
        let wait = |reason, seconds| Err(Wait { reason, left: seconds * SHORTEST, excess: 9 });
        assert_eq!(judge(waiting(3), waiting(5), limits(on, on)), wait(Reason::Address, 5));
        assert_eq!(judge(waiting(5), waiting(3), limits(on, on)), wait(Reason::Account, 5));
        assert_eq!(judge(None, waiting(3), limits(on, on)), wait(Reason::Address, 3));
        assert_eq!(judge(waiting(5), waiting(3), limits(None, on)), wait(Reason::Address, 3));
        assert_eq!(judge(waiting(5), None, limits(None, on)), Ok((false, true)));
        assert_eq!(judge(None, waiting(5), limits(on, None)), Ok((true, false)));
    }

    /// Guesses from one address as often as it may, for a day; how many there were.
    fn guesses_of_a_day(rate: Rate, is_known: bool, pause: Duration) -> u32 {
        let limits = config::Attempts { per_account: Some(rate), per_address: None };
        let (mut seen, mut now, mut guesses) = (Tallies { is_known, ..Tallies::default() }, START, 0);
        while now < START + DAY {
            match judge(seen, limits, now) {
                Ok(next) => {
                    seen = next;
                    guesses += 1;
                    now = now + pause;
                }
                Err(wait) => now = now + wait.left,
            }
        }
        guesses
    }

    #[test]
    fn a_day_has_three_hundred_guesses() {
        for is_known in [false, true] {
            for (count, minutes) in [(5, 15), (50, 5), (1000, 1), (1, 1)] {
                for pause in [Duration::ZERO, 60 * SHORTEST, 181 * SHORTEST] {
                    let guesses = guesses_of_a_day(rate(count, minutes * MINUTE), is_known, pause);
                    assert!(guesses <= DAY_MAX, "{guesses} with {count}/{minutes}m, every {pause:?}");
                }
            }
            assert_eq!(guesses_of_a_day(rate(50, 5 * MINUTE), is_known, 60 * SHORTEST), DAY_MAX, "within the rate");
        }
    }

    #[test]
    fn a_day_is_a_day_whatever_the_clock_does() {
        let full = Tally { failures: DAY_MAX, until: START, forget: START + DAY };
        assert_eq!(count_day(Some(full), START + DAY - MINUTE), Err(MINUTE));
        assert_eq!(count_day(Some(full), START - 10 * DAY), Err(DAY));
        assert_eq!(count_day(Some(full), START + DAY).unwrap().failures, 1);
    }
}

//! Guessing is slow: attempts are counted before their password is looked at, and beyond what is free each has to wait.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::accounts::unsettled::{Turn, Unsettled, Visit};
use crate::accounts::{Error, HashError};
use crate::clock::UnixTime;
use crate::config::{self, Rate};
use crate::model::{AccountId, Household};
use crate::store::{self, Receipt, Store, Tallies, Tally};

/// The first wait and the longest.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);

/// How long an attempt waits for others to be settled before it is refused because of them.
const PATIENCE: Duration = Duration::from_secs(5);

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
        let receipt = self.receipt(attempt).await?;
        Ok(Admission { receipt, store: self.store.clone(), at: attempt.at })
    }

    async fn receipt(&self, attempt: Try<'_>) -> Result<Option<Receipt>, Error> {
        let limits = match attempt.name {
            Some(_) => self.limits,
            None => config::Attempts { per_account: None, ..self.limits },
        };
        if limits.per_account.is_none() && limits.per_address.is_none() {
            return Ok(None);
        }
        let mut visit = self.ledger.unsettled.visit(attempt);
        let patience = Instant::now() + PATIENCE;
        let mut turn: Option<Turn> = None;
        loop {
            let wait = match self.count(attempt, limits, &mut visit).await? {
                Ok(receipt) => {
                    if let Some(turn) = turn {
                        turn.use_up(None);
                    }
                    return Ok(Some(receipt.holding(visit)));
                }
                Err(wait) => wait,
            };
            let in_time = Instant::now() < patience;
            if let Some(mut next) = visit.another(wait.reason, wait.excess).filter(|_| in_time) {
                if let Some(turn) = turn {
                    turn.use_up(Some(&next));
                }
                if timeout_at(patience, next.come()).await.is_ok() {
                    turn = Some(next);
                    continue;
                }
            }
            self.ledger.count(wait.reason);
            return Err(Error::TooManyAttempts(wait.left));
        }
    }

    async fn count(
        &self,
        attempt: Try<'_>,
        limits: config::Attempts,
        visit: &mut Visit,
    ) -> Result<Result<Receipt, Wait>, store::Error> {
        let at = attempt.at;
        // A look beforehand: who has to wait should not keep the writer from its work. The count decides.
        if !self.store.owes_attempts() {
            let seen = self.store.find_tallies(attempt.row()).await?;
            if let Err(wait) = judge(seen, limits, at) {
                return Ok(Err(wait));
            }
        }
        // First, so that whoever finds it counted can wait for it.
        visit.begin();
        let counted = self.store.count_attempt(attempt.row(), move |seen| judge(seen, limits, at)).await?;
        if counted.is_err() {
            visit.withdraw();
        }
        Ok(counted)
    }

    /// Notes a good login. It takes back its own count and no more: what others have counted up keeps delaying them, and
    /// the address is known from now on, so that they no longer delay it.
    pub fn welcome(&self, account: AccountId, (address, at): (IpAddr, UnixTime), admission: Option<Admission>) {
        if self.limits.per_account.is_some() {
            let receipt = admission.and_then(|mut admission| admission.receipt.take());
            self.store.remember_address(account, Household::of(address), (at, at + ACQUAINTANCE), receipt);
        }
    }
}

/// An attempt that counts as a failure. Dropped without a word, it is taken back: nobody knows what it was.
pub(super) struct Admission {
    /// `None`: nothing is counted.
    receipt: Option<Receipt>,
    store: Store,
    at: UnixTime,
}

impl Admission {
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

/// What stands on the counters once the attempt is counted, on those that are not turned off; or the longer wait.
fn judge(seen: Tallies, limits: config::Attempts, now: UnixTime) -> Result<Tallies, Wait> {
    let account = limits.per_account.map(|rate| count(seen.account, rate, now)).transpose();
    let address = limits.per_address.map(|rate| count(seen.address, rate, now)).transpose();
    let (reason, left) = match (account, address) {
        (Ok(account), Ok(address)) => return Ok(Tallies { account, address }),
        (Err(left), Err(longer)) if longer > left => (Reason::Address, longer),
        (Err(left), _) => (Reason::Account, left),
        (Ok(_), Err(left)) => (Reason::Address, left),
    };
    let (tally, rate) = match reason {
        Reason::Account => (seen.account, limits.per_account),
        Reason::Address | Reason::Queue => (seen.address, limits.per_address),
    };
    let failures = tally.map_or(0, |tally| tally.failures);
    let free = rate.map_or(0, |rate| rate.count.get() - 1);
    Err(Wait { reason, left, excess: failures.saturating_sub(free) })
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
            let seen = Tallies { account, address };
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
}

//! Completed logins: at most thirty a minute an account, and as many for each address that is known to it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::model::Household;
use crate::store::Key;

const LOGINS_MAX: u32 = 30;
const WINDOW: Duration = Duration::from_secs(60);

/// Counters beyond which those are dropped whose minute is over.
const SWEEP_AT: usize = 4096;

/// What is counted: an account from elsewhere, or from one address that is known to it.
pub(super) type Subject = (Key, Option<Household>);

/// See the module. Clones share it.
#[derive(Clone, Default)]
pub(super) struct LoginRate(Arc<Mutex<HashMap<Subject, (Instant, u32)>>>);

impl LoginRate {
    /// Whether there may be another one.
    ///
    /// # Errors
    /// How long until then.
    pub fn check(&self, subject: Subject, now: Instant) -> Result<(), Duration> {
        match self.counts().get(&subject) {
            Some((begun, LOGINS_MAX..)) if now.saturating_duration_since(*begun) < WINDOW => {
                Err(WINDOW - now.saturating_duration_since(*begun))
            }
            _ => Ok(()),
        }
    }

    /// Counts one.
    pub fn count(&self, subject: Subject, now: Instant) {
        let mut counts = self.counts();
        let is_over = |begun: &Instant| now.saturating_duration_since(*begun) >= WINDOW;
        if counts.len() >= SWEEP_AT {
            counts.retain(|_, (begun, _)| !is_over(begun));
        }
        let entry = counts.entry(subject).or_insert((now, 0));
        if is_over(&entry.0) {
            *entry = (now, 0);
        }
        entry.1 += 1;
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<Subject, (Instant, u32)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirty_a_minute_each() {
        let (rate, start) = (LoginRate::default(), crate::clock::monotonic());
        let elsewhere = (Key::subject(None, "alice"), None);
        let known = (elsewhere.0, Some(Household::V4([192, 0, 2, 1])));
        for _ in 0..LOGINS_MAX {
            assert_eq!(rate.check(elsewhere, start), Ok(()));
            rate.count(elsewhere, start);
        }
        assert_eq!(rate.check(elsewhere, start + WINDOW / 4), Err(WINDOW * 3 / 4));
        assert_eq!(rate.check(known, start), Ok(()));
        assert_eq!(rate.check(elsewhere, start + WINDOW), Ok(()));
        rate.count(elsewhere, start + WINDOW);
        assert_eq!(rate.check(elsewhere, start + WINDOW), Ok(()));
    }
}

//! How many requests may be sent a second time, so that retries cannot multiply an outage.

use std::cell::Cell;

use crate::upstream::alarm::Millis;

/// A retry, in thousandths.
const RETRY: u64 = 1000;

/// What each request pays in: every fifth may be retried.
const SHARE: u64 = RETRY / 5;

/// What a millisecond pays in: ten retries a second, however few requests there are.
const MILLISECOND: u64 = 10 * RETRY / 1000;

/// The most that is saved up: a server that is restarted may break this many connections at once.
const MOST: u64 = 500 * RETRY;

/// One worker's, for one upstream. It begins full.
#[derive(Debug)]
pub struct Budget {
    saved: Cell<u64>,
    /// Up to when time has paid in.
    paid: Cell<Millis>,
}

impl Budget {
    /// A full one.
    pub fn new() -> Self {
        Self { saved: Cell::new(MOST), paid: Cell::new(0) }
    }

    /// Notes a request. To be called once a request, not for its retries.
    pub fn deposit(&self) {
        self.saved.set((self.saved.get() + SHARE).min(MOST));
    }

    /// Whether a retry may be made at `now`, by the worker's clock; it is paid for then.
    pub fn withdraw(&self, now: Millis) -> bool {
        let since = now.saturating_sub(self.paid.get());
        self.paid.set(self.paid.get().max(now));
        let saved = self.saved.get().saturating_add(since.saturating_mul(MILLISECOND)).min(MOST);
        let left = saved.checked_sub(RETRY);
        self.saved.set(left.unwrap_or(saved));
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn emptied(now: Millis) -> Budget {
        let budget = Budget::new();
        while budget.withdraw(now) {}
        budget
    }

    #[test]
    fn a_full_one_allows_a_burst_and_no_more() {
        let budget = Budget::new();
        assert_eq!((0..1000).filter(|_| budget.withdraw(7)).count(), 500);
    }

    #[test]
    fn every_fifth_request_may_be_retried() {
        let budget = emptied(1);
        let retried = (0..1000).filter(|_| {
            budget.deposit();
            budget.withdraw(1)
        });
        assert_eq!(retried.count(), 200);
    }

    #[test]
    fn ten_a_second_whatever_comes() {
        let budget = emptied(0);
        // As a worker's clock ticks; it may also stand still, or be asked for an earlier time.
        let retried =
            (1..=100).flat_map(|tick| [tick * 100, tick * 100, tick * 100 - 50]).filter(|now| budget.withdraw(*now));
        assert_eq!(retried.count(), 100, "in ten seconds");
    }

    proptest! {
        #[test]
        fn never_more_than_paid_in(steps in prop::collection::vec((0_u64..300, 0_u64..20, 0_u64..20), 0..200)) {
            let budget = emptied(0);
            let (mut now, mut requests, mut retries) = (0, 0, 0);
            for (pause, more, wanted) in steps {
                now += pause;
                requests += more;
                (0..more).for_each(|_| budget.deposit());
                retries += (0..wanted).filter(|_| budget.withdraw(now)).count() as u64;
                prop_assert!(retries * 100 <= requests * 20 + now, "{retries} of {requests} in {now} ms");
            }
        }
    }
}

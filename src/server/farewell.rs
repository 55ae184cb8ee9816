//! Who asks /readyz, and what he was told: a load balancer that keeps asking has to hear `draining` before its
//! connections are refused; without one nobody need wait.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::clock;

/// Asked at least so often by one address, over at least that time, and lately: somebody depends on the answer.
const TIMES: u32 = 3;
const SPAN: Duration = Duration::from_secs(2);
/// Checks are a minute apart at most.
const LATELY: Duration = Duration::from_secs(65);

/// How often `draining` must have been said to an address until it counts as heard: what health checks usually want to be
/// sure.
const TOLD: u32 = 3;

/// Addresses that are remembered.
const ADDRESSES: usize = 1024;

/// See the module.
pub struct Farewell {
    asked: Mutex<HashMap<IpAddr, Asked>>,
    /// Somebody was told.
    told: watch::Sender<()>,
}

#[derive(Clone, Copy)]
struct Asked {
    first: Instant,
    last: Instant,
    times: u32,
    told: u32,
}

impl Asked {
    fn is_late(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) > LATELY
    }

    fn depends(&self, now: Instant) -> bool {
        let span = self.last.saturating_duration_since(self.first);
        self.times >= TIMES && span >= SPAN && !self.is_late(now)
    }
}

impl Farewell {
    /// Nobody has asked.
    pub fn new() -> Self {
        Self { asked: Mutex::default(), told: watch::Sender::new(()) }
    }

    /// `address` asked, and was told `ready`.
    pub fn note_ready(&self, address: IpAddr, now: Instant) {
        let mut all = self.asked();
        if all.len() >= ADDRESSES && !all.contains_key(&address) {
            all.retain(|_, asked| !asked.is_late(now));
            if all.len() >= ADDRESSES {
                return;
            }
        }
        let begin = Asked { first: now, last: now, times: 0, told: 0 };
        let asked = all.entry(address).or_insert(begin);
        if asked.is_late(now) {
            *asked = begin;
        }
        asked.last = now;
        asked.times = asked.times.saturating_add(1);
    }

    /// `address` asked, and was told `draining`.
    pub fn note_draining(&self, address: IpAddr) {
        if let Some(asked) = self.asked().get_mut(&address) {
            asked.told = asked.told.saturating_add(1);
        }
        self.told.send_replace(());
    }

    /// Whether somebody keeps asking.
    pub fn is_expected(&self) -> bool {
        !self.dependents(clock::monotonic()).is_empty()
    }

    /// Returns once all who keep asking must have understood.
    pub async fn heard(&self) {
        let mut told = self.told.subscribe();
        let dependents = self.dependents(clock::monotonic());
        // The sender is this one.
        let _ = told.wait_for(|()| self.have_heard(&dependents)).await;
    }

    fn dependents(&self, now: Instant) -> Vec<IpAddr> {
        self.asked().iter().filter(|(_, asked)| asked.depends(now)).map(|(address, _)| *address).collect()
    }

    fn have_heard(&self, addresses: &[IpAddr]) -> bool {
        let all = self.asked();
        addresses.iter().all(|address| all.get(address).is_none_or(|asked| asked.told >= TOLD))
    }

    fn asked(&self) -> MutexGuard<'_, HashMap<IpAddr, Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    /// Whether somebody depends on the answer at `now`, in milliseconds, when it was asked for so.
    fn is_expected(asked: &[(IpAddr, u64)], now: u64) -> bool {
        let (farewell, begin) = (Farewell::new(), clock::monotonic());
        for (address, at) in asked {
            farewell.note_ready(*address, begin + Duration::from_millis(*at));
        }
        !farewell.dependents(begin + Duration::from_millis(now)).is_empty()
    }

    #[test]
    fn one_address_that_keeps_asking_depends_on_the_answer() {
        for (asked, now, expected) in [
            (&[][..], 0, false),
            (&[(ONE, 0), (ONE, 1_000), (ONE, 2_000)], 2_000, true),
            (&[(ONE, 0), (ONE, 1_000), (ONE, 1_999)], 2_000, false),
            (&[(ONE, 0), (ONE, 5_000)], 5_000, false),
            (&[(ONE, 0), (OTHER, 1_000), (ONE, 2_000), (OTHER, 3_000)], 3_000, false),
            (&[(ONE, 0), (OTHER, 0), (ONE, 60_000), (ONE, 120_000)], 180_000, true),
            (&[(ONE, 0), (ONE, 1_000), (ONE, 2_000)], 67_000, true),
            (&[(ONE, 0), (ONE, 1_000), (ONE, 2_000)], 67_001, false),
            (&[(ONE, 0), (ONE, 1_000), (ONE, 70_000), (ONE, 73_000)], 73_000, false),
        ] {
            assert_eq!(is_expected(asked, now), expected, "{asked:?} {now}");
        }
    }

    #[test]
    fn each_of_them_has_to_be_told() {
        let (farewell, begin) = (Farewell::new(), clock::monotonic());
        let passer: IpAddr = [192, 0, 2, 3].into();
        for (address, seconds) in [(ONE, [0, 1, 2]), (OTHER, [0, 2, 4]), (passer, [4, 4, 4])] {
            for second in seconds {
                farewell.note_ready(address, begin + Duration::from_secs(second));
            }
        }
        let mut dependents = farewell.dependents(begin + Duration::from_secs(4));
        dependents.sort();
        assert_eq!(dependents, [ONE, OTHER]);
        let heard = [ONE, ONE, ONE, passer, ONE, OTHER, OTHER, OTHER].map(|address| {
            farewell.note_draining(address);
            farewell.have_heard(&dependents)
        });
        assert_eq!(heard, [false, false, false, false, false, false, false, true]);
    }

    #[test]
    fn strangers_without_number_are_not_remembered() {
        let (farewell, begin) = (Farewell::new(), clock::monotonic());
        for number in 0..2_000 {
            farewell.note_ready(IpAddr::V4(number.into()), begin);
        }
        assert_eq!(farewell.asked().len(), ADDRESSES);
        farewell.note_ready(ONE, begin + Duration::from_secs(66));
        assert_eq!(farewell.asked().len(), 1);
    }
}

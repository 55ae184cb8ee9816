//! Which clients reset their streams early. Their next requests wait for a moment before an HTTP/2 upstream sees them, and
//! share no connection with those of other clients.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::model::Household;
use crate::upstream::alarm::Millis;

/// How long a request of such a client waits: most of what is reset early is reset by then.
pub const SETTLE: Duration = Duration::from_millis(100);

/// A stream that the client ends sooner than this, in milliseconds, before the response was complete, is reset early.
pub const YOUNG: Millis = 1000;

/// Points for an early reset, and what a complete exchange and a second take off again.
const RESET: u32 = 4;
const COMPLETE: u32 = 1;
const SECOND: u32 = 4;

/// With more points than eight early resets the client waits. Points beyond forty are not counted.
const FREE: u32 = 8 * RESET;
const MOST: u32 = 40 * RESET;

/// Clients that are remembered at most.
const CLIENTS: usize = 4096;

/// The early resets of all clients of one worker.
#[derive(Default)]
pub struct History {
    clients: RefCell<HashMap<Household, Score>>,
}

#[derive(Clone, Copy)]
struct Score {
    points: u32,
    /// When the time was last taken off.
    at: Millis,
}

impl Score {
    /// Less what the time since has taken off.
    fn at(self, now: Millis) -> Self {
        let seconds = now.saturating_sub(self.at) / 1000;
        let off = u32::try_from(seconds).unwrap_or(u32::MAX).saturating_mul(SECOND);
        Self { points: self.points.saturating_sub(off), at: self.at + seconds * 1000 }
    }
}

/// One client, whose exchanges are counted.
#[derive(Clone)]
pub struct Requester {
    household: Household,
    history: Rc<History>,
}

impl Requester {
    /// The client at `address`.
    pub fn new(address: IpAddr, history: &Rc<History>) -> Self {
        Self { household: Household::of(address), history: Rc::clone(history) }
    }

    /// Whether the client keeps resetting streams early.
    pub fn is_hasty(&self, now: Millis) -> bool {
        let clients = self.history.clients.borrow();
        clients.get(&self.household).is_some_and(|score| score.at(now).points > FREE)
    }

    /// Whose address it is.
    pub fn household(&self) -> Household {
        self.household
    }

    /// Which of `count` places the client belongs to.
    pub fn place(&self, count: usize) -> usize {
        let sum = self.household.bytes().iter().fold(0_usize, |sum, byte| sum.wrapping_mul(31) + usize::from(*byte));
        sum.checked_rem(count).unwrap_or(0)
    }

    /// Notes an early reset.
    pub fn note_reset(&self, now: Millis) {
        let mut clients = self.history.clients.borrow_mut();
        if clients.len() >= CLIENTS && !clients.contains_key(&self.household) {
            clients.retain(|_, score| score.at(now).points > 0);
            if clients.len() >= CLIENTS {
                let least = clients.iter().min_by_key(|(_, score)| score.at(now).points);
                let least = least.map(|(household, _)| *household);
                least.and_then(|least| clients.remove(&least));
            }
        }
        let score = clients.entry(self.household).or_insert(Score { points: 0, at: now });
        *score = score.at(now);
        score.points = (score.points + RESET).min(MOST);
    }

    /// Notes a response that the client received to its end.
    pub fn note_complete(&self, now: Millis) {
        let mut clients = self.history.clients.borrow_mut();
        if clients.is_empty() {
            return;
        }
        if let Entry::Occupied(mut entry) = clients.entry(self.household) {
            let mut score = entry.get().at(now);
            score.points = score.points.saturating_sub(COMPLETE);
            match score.points {
                0 => drop(entry.remove()),
                _ => *entry.get_mut() = score,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requester(history: &Rc<History>, number: u32) -> Requester {
        Requester::new(IpAddr::from(number.to_be_bytes()), history)
    }

    #[test]
    fn client_is_hasty_after_nine_early_resets_and_recovers() {
        let history = Rc::default();
        let (client, other) = (requester(&history, 1), requester(&history, 2));
        (0..8).for_each(|_| client.note_reset(10));
        assert!(!client.is_hasty(10));
        client.note_reset(10);
        assert!(client.is_hasty(10) && !other.is_hasty(10));
        assert!(client.is_hasty(1009) && !client.is_hasty(1010), "a second takes one off");
        (0..1000).for_each(|_| client.note_reset(1010));
        assert!(client.is_hasty(32_009) && !client.is_hasty(34_000), "points are bounded");
    }

    #[test]
    fn complete_exchanges_make_up_for_resets() {
        let history = Rc::default();
        let client = requester(&history, 1);
        for _ in 0..1000 {
            client.note_reset(1);
            (0..4).for_each(|_| client.note_complete(1));
        }
        assert!(!client.is_hasty(1));
        assert!(history.clients.borrow().is_empty(), "a client without points is not remembered");
    }

    #[test]
    fn table_is_bounded_and_keeps_the_worst() {
        let history = Rc::default();
        let worst = requester(&history, 0);
        (0..20).for_each(|_| worst.note_reset(1));
        for number in 1..=2 * u32::try_from(CLIENTS).unwrap() {
            requester(&history, number).note_reset(1);
        }
        assert_eq!(history.clients.borrow().len(), CLIENTS);
        assert!(worst.is_hasty(1));
    }
}

//! Attempts whose outcome is not known yet. Each counts as a failure until it is, so whoever comes too early only because of
//! them need not be refused: he waits until they are settled.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, watch};

use super::attempts::{Reason, Try};
use crate::model::Household;
use crate::store::Key;

/// How many may wait for the same name or address.
const MOST_WAITING: usize = 32;

/// What attempts have in common.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Mark {
    Name(Key),
    Address(Household),
}

/// Where attempts of one mark meet.
struct Lane {
    /// How many are not settled. Who listens is told when one is, never when one begins.
    unsettled: watch::Sender<u32>,
    waiting: Semaphore,
}

/// The attempts under way in this process. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Unsettled(Arc<Mutex<HashMap<Mark, Arc<Lane>>>>);

impl Unsettled {
    fn lanes(&self) -> MutexGuard<'_, HashMap<Mark, Arc<Lane>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An attempt that is about to be judged: from here on it hears of those that are settled.
    pub fn visit(&self, attempt: Try<'_>) -> Visit {
        let name = attempt.name.map(|name| self.seat(Mark::Name(Key::subject(None, name))));
        let address = self.seat(Mark::Address(Household::of(attempt.address)));
        Visit { unsettled: self.clone(), seats: [name, Some(address)], begun: false }
    }

    fn seat(&self, mark: Mark) -> Seat {
        let fresh = || Arc::new(Lane { unsettled: watch::Sender::new(0), waiting: Semaphore::new(MOST_WAITING) });
        let lane = Arc::clone(self.lanes().entry(mark).or_insert_with(fresh));
        let news = lane.unsettled.subscribe();
        Seat { mark, lane, news }
    }
}

struct Seat {
    mark: Mark,
    lane: Arc<Lane>,
    news: watch::Receiver<u32>,
}

/// One attempt among those of the same name and address. Once begun, it is settled when it is dropped.
pub(super) struct Visit {
    unsettled: Unsettled,
    /// At the name and at the address.
    seats: [Option<Seat>; 2],
    begun: bool,
}

impl Visit {
    /// It is about to be counted: others may wait for it.
    pub fn begin(&mut self) {
        if !self.begun {
            self.begun = true;
            for seat in self.seats.iter().flatten() {
                seat.lane.unsettled.send_if_modified(|number| {
                    *number += 1;
                    false
                });
            }
        }
    }

    /// It was not counted after all.
    pub fn withdraw(&mut self) {
        if std::mem::take(&mut self.begun) {
            for seat in self.seats.iter().flatten() {
                seat.lane.unsettled.send_modify(|number| *number = number.saturating_sub(1));
            }
        }
    }

    /// Waits until another one has been settled since this one was judged last. `false`, at once, where that is no use:
    /// fewer than `needed` are under way, or too many wait already.
    pub async fn another(&mut self, reason: Reason, needed: u32) -> bool {
        let [name, address] = &mut self.seats;
        let seat = match reason {
            Reason::Account => name,
            Reason::Address => address,
            Reason::Queue => return false,
        };
        let Some(Seat { lane, news, .. }) = seat else { return false };
        // In this order: one that is settled in between is seen by either.
        let enough = *lane.unsettled.borrow() >= needed;
        if !enough && !news.has_changed().unwrap_or_default() {
            return false;
        }
        let Ok(_place) = lane.waiting.try_acquire() else { return false };
        news.changed().await.is_ok()
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.withdraw();
        let mut lanes = self.unsettled.lanes();
        for Seat { mark, lane, .. } in self.seats.iter_mut().filter_map(Option::take) {
            drop(lane);
            // Nobody else takes one without the lock.
            if lanes.get(&mark).is_some_and(|lane| Arc::strong_count(lane) == 1) {
                lanes.remove(&mark);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::clock::UnixTime;

    fn visit(unsettled: &Unsettled, name: &str, host: u8) -> Visit {
        let address = IpAddr::from([192, 0, 2, host]);
        unsettled.visit(Try { name: Some(name), address, at: UnixTime::from_secs(1_800_000_000) })
    }

    fn begun(unsettled: &Unsettled, name: &str, host: u8) -> Visit {
        let mut visit = visit(unsettled, name, host);
        visit.begin();
        visit
    }

    /// Polls once.
    fn poll(future: &mut (impl Future<Output = bool> + Unpin)) -> Poll<bool> {
        std::pin::Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[tokio::test(flavor = "current_thread")]
    async fn who_waits_is_told_of_his_own_kind_only() {
        let unsettled = Unsettled::default();
        let (alike, other) = (begun(&unsettled, "alice", 1), begun(&unsettled, "bob", 1));
        let mut late = visit(&unsettled, "alice", 2);
        let mut wait = Box::pin(late.another(Reason::Account, 1));
        assert_eq!(poll(&mut wait), Poll::Pending);
        drop(other);
        // One that begins is no news.
        let next = begun(&unsettled, "alice", 3);
        assert_eq!(poll(&mut wait), Poll::Pending);
        drop(alike);
        assert_eq!(poll(&mut wait), Poll::Ready(true));
        drop(wait);
        let mut again = Box::pin(late.another(Reason::Account, 1));
        assert_eq!(poll(&mut again), Poll::Pending);
        drop(next);
        assert_eq!(poll(&mut again), Poll::Ready(true));
        drop(again);
        drop(late);
        assert!(unsettled.lanes().is_empty(), "lanes were left behind");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_is_settled_before_the_wait_is_not_missed() {
        let unsettled = Unsettled::default();
        let other = begun(&unsettled, "alice", 1);
        let mut late = visit(&unsettled, "alice", 2);
        drop(other);
        assert!(late.another(Reason::Account, 1).await, "settled since it was judged");
        assert!(!late.another(Reason::Account, 1).await, "nothing is under way");
        assert!(!late.another(Reason::Address, 1).await);
        assert!(!late.another(Reason::Queue, 0).await);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn nobody_waits_in_vain() {
        let unsettled = Unsettled::default();
        let under_way = [1, 2].map(|host| begun(&unsettled, "alice", host));
        let mut late = visit(&unsettled, "alice", 3);
        assert!(!late.another(Reason::Account, 3).await, "both of them would not be enough");
        // His own does not count, nor does one that was not counted.
        late.begin();
        late.withdraw();
        assert!(late.another(Reason::Account, 2).await, "a withdrawal is news");
        assert!(!late.another(Reason::Account, 3).await);
        let mut crowd: Vec<_> = (0..MOST_WAITING + 1).map(|_| visit(&unsettled, "alice", 4)).collect();
        let mut waits: Vec<_> = crowd.iter_mut().map(|visit| Box::pin(visit.another(Reason::Account, 1))).collect();
        let answers: Vec<_> = waits.iter_mut().map(poll).collect();
        let (last, first) = answers.split_last().unwrap();
        assert!(first.iter().all(|answer| *answer == Poll::Pending) && *last == Poll::Ready(false), "{answers:?}");
        drop(under_way);
        assert!(waits.iter_mut().take(MOST_WAITING).all(|wait| poll(wait) == Poll::Ready(true)));
    }
}

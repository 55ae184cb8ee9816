//! Attempts whose outcome is not known yet. Each counts as a failure until it is, so whoever comes too early only because of
//! them need not be refused: he waits until they are settled.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::attempts::{Reason, Try};
use crate::model::Household;
use crate::store::Key;

/// How many may wait for the same name or address.
const MOST_WAITING: usize = 256;

/// What attempts have in common.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Mark {
    Name(Key),
    Address(Household),
    /// An account at an address that is known to it.
    Pair(Key, Household),
}

/// Where attempts of one mark meet.
#[derive(Default)]
struct Lane {
    /// How many attempts are here at all.
    present: usize,
    /// How many of them are counted and not settled.
    unsettled: u32,
    /// How many have been settled so far.
    settled: u64,
    /// Each is told of one settlement, in the order in which they came: one that is taken back makes room for one.
    waiting: VecDeque<oneshot::Sender<()>>,
}

impl Lane {
    /// Whether as many wait as may.
    fn is_full(&mut self) -> bool {
        if self.waiting.len() >= MOST_WAITING {
            self.waiting.retain(|told| !told.is_closed());
        }
        self.waiting.len() >= MOST_WAITING
    }

    /// Tells the first who still waits.
    fn tell(&mut self) {
        while let Some(first) = self.waiting.pop_front() {
            if first.send(()).is_ok() {
                return;
            }
        }
    }
}

/// The attempts under way in this process. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Unsettled(Arc<Mutex<HashMap<Mark, Lane>>>);

impl Unsettled {
    fn lanes(&self) -> MutexGuard<'_, HashMap<Mark, Lane>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An attempt that is about to be judged: from here on it misses none that is settled.
    pub fn visit(&self, attempt: Try<'_>, is_known: bool) -> Visit {
        let client = Household::of(attempt.address);
        let mut lanes = self.lanes();
        let mut seat = |mark| {
            let lane = lanes.entry(mark).or_default();
            lane.present += 1;
            Seat { mark, seen: lane.settled }
        };
        let name = attempt.name.map(|name| {
            let key = Key::subject(None, name);
            seat(if is_known { Mark::Pair(key, client) } else { Mark::Name(key) })
        });
        let address = (!is_known).then(|| seat(Mark::Address(client)));
        Visit { unsettled: self.clone(), name, address, begun: false }
    }
}

/// Where an attempt stands, and what had been settled there when it was about to be judged.
struct Seat {
    mark: Mark,
    seen: u64,
}

/// What waiting for another attempt comes to.
pub(super) enum Another {
    /// It will be told.
    Turn(Turn),
    /// Fewer are under way than would have to come out well.
    InVain,
    /// Too many wait already.
    Full,
}

/// One attempt among those of the same name and address. Once begun, it is settled when it is dropped.
pub(super) struct Visit {
    unsettled: Unsettled,
    name: Option<Seat>,
    address: Option<Seat>,
    begun: bool,
}

impl Visit {
    fn each_lane(&self, mut change: impl FnMut(&mut Lane)) {
        let mut lanes = self.unsettled.lanes();
        for seat in self.name.iter().chain(&self.address) {
            lanes.get_mut(&seat.mark).map(&mut change);
        }
    }

    /// It is about to be counted: others may wait for it.
    pub fn begin(&mut self) {
        if !self.begun {
            self.begun = true;
            self.each_lane(|lane| lane.unsettled += 1);
        }
    }

    /// It was not counted after all.
    pub fn withdraw(&mut self) {
        if std::mem::take(&mut self.begun) {
            self.each_lane(|lane| {
                lane.unsettled = lane.unsettled.saturating_sub(1);
                lane.settled += 1;
                lane.tell();
            });
        }
    }

    fn seat(&mut self, reason: Reason) -> Option<&mut Seat> {
        match reason {
            Reason::Account => self.name.as_mut(),
            Reason::Address => self.address.as_mut(),
            Reason::Queue => None,
        }
    }

    /// Waits until another one has been settled since this one was judged last, where that is of use.
    pub fn another(&mut self, reason: Reason, needed: u32) -> Another {
        let unsettled = self.unsettled.clone();
        let Some(seat) = self.seat(reason) else { return Another::InVain };
        let mut lanes = unsettled.lanes();
        let Some(lane) = lanes.get_mut(&seat.mark) else { return Another::InVain };
        let (told, turn) = oneshot::channel();
        if lane.settled != std::mem::replace(&mut seat.seen, lane.settled) {
            // That one is over: nothing will be told of it.
            let _ = told.send(());
        } else if lane.unsettled < needed {
            return Another::InVain;
        } else if lane.is_full() {
            return Another::Full;
        } else {
            lane.waiting.push_back(told);
        }
        let mark = seat.mark;
        drop(lanes);
        Another::Turn(Turn { unsettled, mark, told: turn, is_told: false })
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.withdraw();
        let mut lanes = self.unsettled.lanes();
        for seat in self.name.iter().chain(&self.address) {
            if let Some(lane) = lanes.get_mut(&seat.mark) {
                lane.present -= 1;
                if lane.present == 0 {
                    lanes.remove(&seat.mark);
                }
            }
        }
    }
}

/// To be told of a settlement. Whoever is told and makes no use of it, drops this: then the next one is told.
pub(super) struct Turn {
    unsettled: Unsettled,
    mark: Mark,
    told: oneshot::Receiver<()>,
    is_told: bool,
}

impl Turn {
    /// Waits for it.
    pub async fn come(&mut self) {
        self.is_told = (&mut self.told).await.is_ok();
    }

    /// It was made use of: there was room, and it is taken; or there was none, and `next` is waited for.
    pub fn use_up(mut self, next: Option<&Self>) {
        if next.is_none_or(|next| next.mark == self.mark) {
            self.is_told = false;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.is_told || self.told.try_recv().is_ok() {
            self.unsettled.lanes().get_mut(&self.mark).map(Lane::tell);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::clock::{self, UnixTime};

    fn visit(unsettled: &Unsettled, name: &str, host: u8) -> Visit {
        let address = IpAddr::from([192, 0, 2, host]);
        let (at, deadline) = (UnixTime::from_secs(1_800_000_000), clock::monotonic());
        unsettled.visit(Try { name: Some(name), address, at, deadline }, false)
    }

    fn begun(unsettled: &Unsettled, name: &str, host: u8) -> Visit {
        let mut visit = visit(unsettled, name, host);
        visit.begin();
        visit
    }

    fn turn_of(another: Another) -> Option<Turn> {
        match another {
            Another::Turn(turn) => Some(turn),
            Another::InVain | Another::Full => None,
        }
    }

    fn turn(another: Another) -> Turn {
        turn_of(another).unwrap()
    }

    /// Whether it has been told.
    fn has_come(turn: &mut Turn) -> bool {
        let mut coming = Box::pin(turn.come());
        coming.as_mut().poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    #[test]
    fn who_waits_is_told_of_his_own_kind_only() {
        let unsettled = Unsettled::default();
        let (alike, other) = (begun(&unsettled, "alice", 1), begun(&unsettled, "bob", 1));
        let mut late = visit(&unsettled, "alice", 2);
        let mut turn = turn(late.another(Reason::Account, 1));
        drop(other);
        // One that begins is no news.
        let next = begun(&unsettled, "alice", 3);
        assert!(!has_come(&mut turn));
        drop(alike);
        assert!(has_come(&mut turn));
        drop(next);
        drop(turn);
        drop(late);
        assert!(unsettled.lanes().is_empty(), "lanes were left behind");
    }

    #[test]
    fn what_is_settled_before_the_wait_is_not_missed() {
        let unsettled = Unsettled::default();
        let other = begun(&unsettled, "alice", 1);
        let mut late = visit(&unsettled, "alice", 2);
        drop(other);
        assert!(has_come(&mut turn(late.another(Reason::Account, 1))), "settled since it was judged");
        assert!(turn_of(late.another(Reason::Account, 1)).is_none(), "nothing is under way");
        assert!(turn_of(late.another(Reason::Address, 1)).is_none());
        assert!(turn_of(late.another(Reason::Queue, 0)).is_none());
    }

    #[test]
    fn nobody_waits_in_vain() {
        let unsettled = Unsettled::default();
        let under_way = [1, 2].map(|host| begun(&unsettled, "alice", host));
        let mut late = visit(&unsettled, "alice", 3);
        assert!(turn_of(late.another(Reason::Account, 3)).is_none(), "both of them would not be enough");
        // His own does not count, nor does one that was not counted.
        late.begin();
        late.withdraw();
        assert!(has_come(&mut turn(late.another(Reason::Account, 2))), "a withdrawal is news");
        assert!(turn_of(late.another(Reason::Account, 3)).is_none());
        let mut crowd: Vec<_> = (0..=MOST_WAITING).map(|_| visit(&unsettled, "alice", 4)).collect();
        let mut turns: Vec<_> = crowd.iter_mut().map(|visit| turn_of(visit.another(Reason::Account, 1))).collect();
        assert!(turns.pop().unwrap().is_none(), "more wait than may");
        drop(turns);
        assert!(turn_of(crowd[0].another(Reason::Account, 1)).is_some(), "attempts that were given up hold no place");
        drop(under_way);
    }

    #[test]
    fn each_settlement_is_one_turn_and_is_passed_on() {
        let unsettled = Unsettled::default();
        let mut under_way: Vec<_> = (0..3).map(|host| begun(&unsettled, "alice", host)).collect();
        let mut visits: Vec<_> = (0..4).map(|_| visit(&unsettled, "alice", 9)).collect();
        let mut turns: Vec<_> = visits.iter_mut().map(|visit| turn(visit.another(Reason::Account, 1))).collect();
        let come = |turns: &mut Vec<Turn>| turns.iter_mut().map(has_come).collect::<Vec<_>>();
        under_way.pop();
        assert_eq!(come(&mut turns), [true, false, false, false]);
        turns.remove(0).use_up(None);
        assert_eq!(come(&mut turns), [false, false, false], "he has taken the room");
        // Gone before he looked.
        under_way.pop();
        drop(turns.remove(0));
        assert_eq!(come(&mut turns), [true, false], "the next is told");
        // He waits for the same thing once more, and for another.
        let again = turn(visits[0].another(Reason::Account, 1));
        turns.remove(0).use_up(Some(&again));
        assert_eq!(come(&mut turns), [false]);
        under_way.pop();
        assert_eq!(come(&mut turns), [true]);
        let other = begun(&unsettled, "bob", 9);
        let elsewhere = turn_of(visits[1].another(Reason::Address, 1));
        turns.remove(0).use_up(elsewhere.as_ref());
        assert_eq!(come(&mut vec![again]), [true], "what he does not need is the next one's");
        drop(other);
    }
}

//! Which connections and uploads can give way to others, when places or connections to upstreams are short.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Instant;

use crate::server::census::Share;
use crate::server::roster::{Order, Roster, Seat, Stage};
use crate::server::stay::{SLOW, Stay, UNREAD};

/// How a connection can give way to a newcomer; the first goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Yield {
    /// It asks for nothing.
    Idle,
    /// Its client is waited for, or takes nothing of its answer.
    Slow,
}

impl Seat {
    /// How it can give way, if it can. One that makes progress cannot.
    fn yields(&self) -> Option<Yield> {
        let is_over =
            |since: Option<Instant>, limit| since.is_some_and(|since| self.now().duration_since(since) > limit);
        let is_slow = |since| is_over(since, SLOW);
        if self.order() == Order::Close {
            return None;
        }
        if self.is_idle() {
            // One that has just got its place may have its request on the way.
            let is_new = self.stage() == Stage::New && !is_slow(Some(self.since.get()));
            return (!is_new).then_some(Yield::Idle);
        }
        let stays = self.stays.borrow();
        let slow = match self.stage() {
            Stage::Head => is_slow(Some(self.since.get())),
            Stage::Busy | Stage::Flushing => {
                // All are asked: each notes when its client was first waited for.
                let starving = stays.iter().filter(|stay| stay.starves(self.now())).count();
                is_over(self.stalled.get(), UNREAD)
                    || is_slow(self.partial.get())
                    || (starving > 0 && starving == stays.len())
            }
            Stage::New | Stage::Idle | Stage::Tunnel => false,
        };
        slow.then_some(Yield::Slow)
    }
}

impl Roster {
    /// The connections that can give way, each with its holder's share, the first to go first: the largest holder's, of
    /// these the idle, of these the longest so.
    pub fn yielding(&self, share: impl Fn(IpAddr) -> Share) -> Vec<(Share, Rc<Seat>)> {
        let mut shares: HashMap<IpAddr, Share, ahash::RandomState> = HashMap::default();
        let mut found = Vec::new();
        for seat in self.seats.borrow().values() {
            if let Some(holder) = seat.holder.get()
                && let Some(how) = seat.yields()
            {
                let share = *shares.entry(holder).or_insert_with(|| share(holder));
                found.push((share, how, seat.since.get(), Rc::clone(seat)));
            }
        }
        found.sort_by_key(|(share, how, since, _)| (Reverse(*share), *how, *since));
        found.into_iter().map(|(share, _, _, seat)| (share, seat)).collect()
    }

    /// Ends uploads whose clients are waited for, of the connections that have most of them first: for each upstream at most
    /// as many as are `wanted` there, and `any` others.
    pub fn end_slow_uploads(&self, mut wanted: Vec<usize>, mut any: usize) {
        let mut found: Vec<Vec<Rc<Stay>>> = Vec::new();
        for seat in self.seats.borrow().values().filter(|seat| seat.holder.get().is_some()) {
            let stays = seat.stays.borrow();
            let slow: Vec<_> = stays.iter().filter(|stay| stay.awaits_body(self.tick.get())).cloned().collect();
            if !slow.is_empty() {
                found.push(slow);
            }
        }
        found.sort_by_key(|slow| Reverse(slow.len()));
        for stay in found.into_iter().flatten() {
            let Some(upstream) = stay.lease.body().upstream() else { continue };
            let count = match wanted.get_mut(upstream) {
                Some(count) if *count > 0 => count,
                _ => &mut any,
            };
            if *count > 0 {
                *count -= 1;
                stay.give_way();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::ServerTimeouts;

    const LIMIT: Duration = Duration::from_secs(60);

    fn roster() -> Rc<Roster> {
        let timeouts = ServerTimeouts { header: LIMIT, idle: LIMIT, body: LIMIT, body_rate: 0, drain: LIMIT };
        Rc::new(Roster::new(timeouts))
    }

    fn yielding(roster: &Roster, after: Duration) -> usize {
        let now = roster.tick.get();
        roster.tick.set(now + after);
        let count = roster.yielding(|_| Share::default()).len();
        roster.tick.set(now);
        count
    }

    #[test]
    fn a_connection_that_has_just_got_its_place_keeps_it_for_a_moment() {
        let (roster, moment) = (roster(), Duration::from_millis(1));
        let place = roster.enter();
        assert_eq!(yielding(&roster, 2 * SLOW), 0, "it waits for a place");
        // However long that was.
        roster.tick.set(roster.tick.get() + 2 * SLOW);
        place.seat.set_holder(Some(IpAddr::from([192, 0, 2, 1])));
        assert_eq!((yielding(&roster, SLOW), yielding(&roster, SLOW + moment)), (0, 1));
        place.seat.enter(Stage::Idle);
        assert_eq!(yielding(&roster, moment), 1, "between two requests it gives way at once");
        place.seat.enter(Stage::Head);
        assert_eq!((yielding(&roster, SLOW), yielding(&roster, SLOW + moment)), (0, 1));
        place.seat.enter(Stage::Busy);
        assert_eq!(yielding(&roster, 2 * SLOW), 0, "it is served");
        place.seat.note_write(false);
        assert_eq!((yielding(&roster, UNREAD), yielding(&roster, UNREAD + moment)), (0, 1), "it takes nothing");
        place.seat.note_write(true);
        assert_eq!(yielding(&roster, 2 * UNREAD), 0);
        place.seat.set_holder(None);
        place.seat.enter(Stage::Idle);
        assert_eq!(yielding(&roster, 2 * SLOW), 0, "a trusted proxy's never gives way");
    }
}

//! Bounds on waiting, by a clock that is read ten times a second instead of twice a request: an [`Alarm`] rings for the
//! one task that waits on a connection, the [`Clock`] of the worker rings all that are due.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::clock;

/// Milliseconds on a worker's own clock.
pub type Millis = u64;

/// How coarse the clock is.
const TICK: Millis = 100;

/// One connection's alarm.
#[derive(Default)]
pub struct Alarm {
    /// When to ring; 0 is never.
    deadline: Cell<Millis>,
    rung: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Alarm {
    /// Wakes the task of `waker` at `deadline`.
    pub fn set(&self, waker: &Waker, deadline: Millis) {
        let mut own = self.waker.borrow_mut();
        if !own.as_ref().is_some_and(|own| own.will_wake(waker)) {
            *own = Some(waker.clone());
        }
        self.deadline.set(deadline);
    }

    /// Forgets the task too, which may be over by now.
    pub fn forget(&self) {
        self.clear();
        self.waker.borrow_mut().take();
    }

    /// Nobody waits any more.
    pub fn clear(&self) {
        self.deadline.set(0);
        self.rung.set(false);
    }

    /// Whether it has rung; asking stops it.
    pub fn has_rung(&self) -> bool {
        self.rung.replace(false)
    }

    fn ring(&self, now: Millis) {
        let deadline = self.deadline.get();
        if deadline != 0 && deadline <= now {
            self.deadline.set(0);
            self.rung.set(true);
            if let Some(waker) = &*self.waker.borrow() {
                waker.wake_by_ref();
            }
        }
    }
}

/// A worker's clock, and the alarms of all its connections.
pub struct Clock {
    start: Instant,
    now: Cell<Millis>,
    alarms: RefCell<Vec<Weak<Alarm>>>,
}

impl Clock {
    /// No alarms; the time is 1.
    pub fn new() -> Self {
        Self { start: clock::monotonic(), now: Cell::new(1), alarms: RefCell::default() }
    }

    /// The time of the last tick.
    pub fn now(&self) -> Millis {
        self.now.get()
    }

    /// The time `limit` from now; a tick later, so that nothing rings early.
    pub fn after(&self, limit: Duration) -> Millis {
        let limit = Millis::try_from(limit.as_millis()).unwrap_or(Millis::MAX);
        self.now.get().saturating_add(limit).saturating_add(TICK)
    }

    /// A new alarm, which rings for as long as it lives.
    pub fn alarm(&self) -> Rc<Alarm> {
        let alarm = Rc::new(Alarm::default());
        self.alarms.borrow_mut().push(Rc::downgrade(&alarm));
        alarm
    }

    /// Reads the clock, and rings where a deadline is over.
    pub fn tick(&self) {
        let now = Millis::try_from(self.start.elapsed().as_millis()).unwrap_or(Millis::MAX).saturating_add(1);
        self.now.set(now);
        self.alarms.borrow_mut().retain(|alarm| {
            let Some(alarm) = alarm.upgrade() else { return false };
            alarm.ring(now);
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Counter(AtomicUsize);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn rings_once_and_only_while_somebody_waits() {
        let counter = Arc::new(Counter::default());
        let (waker, alarm) = (Waker::from(Arc::clone(&counter)), Alarm::default());
        let count = || counter.0.load(Ordering::Relaxed);
        alarm.set(&waker, 100);
        alarm.ring(99);
        assert!(!alarm.has_rung() && count() == 0);
        alarm.ring(100);
        alarm.ring(101);
        assert!(alarm.has_rung() && !alarm.has_rung() && count() == 1);
        alarm.set(&waker, 100);
        alarm.clear();
        alarm.ring(200);
        assert!(!alarm.has_rung() && count() == 1);
    }
}

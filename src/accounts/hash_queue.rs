//! The queue before the hashing threads. A quarter of it is kept for logins from where the account was entered before:
//! others cannot fill it, and these go first.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The part of the queue that is kept.
const KEPT: usize = 4;

/// How many of those that go first may go before one of the others.
const STREAK: u32 = 3;

/// Why a job is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// There is no room.
    Full,
    /// The threads have ended.
    Ended,
}

struct State<T> {
    first: VecDeque<T>,
    others: VecDeque<T>,
    /// How many of the first were taken in a row.
    streak: u32,
    closed: bool,
}

/// See the module.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    added: Condvar,
    capacity: usize,
}

impl<T> Queue<T> {
    /// An empty one.
    pub fn new(capacity: usize) -> Arc<Self> {
        let state = State { first: VecDeque::new(), others: VecDeque::new(), streak: 0, closed: false };
        Arc::new(Self { state: Mutex::new(state), added: Condvar::new(), capacity })
    }

    /// Adds a job; `is_first` for one that the kept part is for.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn push(&self, job: T, is_first: bool) -> Result<(), Refused> {
        let mut state = self.state();
        let kept = self.capacity / KEPT;
        let (queue, room) =
            if is_first { (&mut state.first, kept.max(1)) } else { (&mut state.others, self.capacity - kept) };
        if queue.len() >= room {
            return Err(Refused::Full);
        }
        queue.push_back(job);
        if state.closed {
            return Err(Refused::Ended);
        }
        self.added.notify_one();
        Ok(())
    }

    /// Waits for the next job; `None` when the queue is closed and empty.
    pub fn pop(&self) -> Option<T> {
        let mut state = self.state();
        loop {
            let is_their_turn = state.streak < STREAK || state.others.is_empty();
            if is_their_turn && let Some(job) = state.first.pop_front() {
                state.streak = state.streak.saturating_add(1);
                return Some(job);
            }
            if let Some(job) = state.others.pop_front() {
                state.streak = 0;
                return Some(job);
            }
            if state.closed {
                return None;
            }
            state = self.added.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes no more; what is in it is still done.
    pub fn close(&self) {
        self.state().closed = true;
        self.added.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_is_kept_and_goes_first() {
        let queue = Queue::new(8);
        for number in 0..6 {
            assert_eq!(queue.push(number, false), Ok(()));
        }
        assert_eq!(queue.push(6, false), Err(Refused::Full));
        for number in [100, 101] {
            assert_eq!(queue.push(number, true), Ok(()));
        }
        assert_eq!(queue.push(102, true), Err(Refused::Full));
        assert_eq!([(); 3].map(|()| queue.pop().unwrap()), [100, 101, 0]);
        for number in [103, 104] {
            assert_eq!(queue.push(number, true), Ok(()));
        }
        assert_eq!([(); 3].map(|()| queue.pop().unwrap()), [103, 104, 1]);
        // After three of these one of the others goes.
        let order: Vec<_> = (0..5)
            .map(|number| {
                queue.push(200 + number, true).unwrap();
                queue.pop().unwrap()
            })
            .collect();
        assert_eq!(order, [200, 201, 202, 2, 203]);
        queue.close();
        let left: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(left.len(), 4);
        assert_eq!(queue.push(1, false), Err(Refused::Ended));
    }
}

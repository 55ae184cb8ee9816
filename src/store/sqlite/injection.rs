//! For tests: makes a job of a store fail, or leaves its caller without an answer.

use std::any::Any;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What happens to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Injected {
    /// It is not run, and fails.
    FailBefore,
    /// It is run, and fails.
    FailAfter,
    /// It is run and committed, but its caller gets no answer.
    Stall,
}

/// Counts jobs until the one to which something happens.
#[derive(Default)]
pub(super) struct Injection(Mutex<State>);

#[derive(Default)]
struct State {
    next: Option<(usize, Injected)>,
    /// What the callers that wait would be answered by.
    kept: Vec<Box<dyn Any + Send>>,
}

impl Injection {
    /// Lets `injected` happen to the job that is asked for after so many others; `None`: to no job.
    pub fn set(&self, next: Option<(usize, Injected)>) {
        self.state().next = next;
    }

    /// Whether it has happened.
    pub fn has_happened(&self) -> bool {
        self.state().next.is_none()
    }

    /// What happens to the job that is asked for now.
    pub fn next(&self) -> Option<Injected> {
        let mut state = self.state();
        let (left, injected) = state.next?;
        state.next = left.checked_sub(1).map(|left| (left, injected));
        (left == 0).then_some(injected)
    }

    /// Keeps the sender of an answer, so that it is never sent.
    pub fn keep(&self, sender: impl Send + 'static) {
        self.state().kept.push(Box::new(sender));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

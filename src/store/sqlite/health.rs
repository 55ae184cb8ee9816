//! Whether the store can be read and written, as its threads find out; and one line in the log when that changes.

use std::mem::Discriminant;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::clock;
use crate::store::Error;

/// Between two log lines about a fault that lasts.
const REMINDER: Duration = Duration::from_secs(30);

/// Between two log lines about different faults.
const PAUSE: Duration = Duration::from_secs(2);

/// See the module.
pub(super) struct Health {
    writable: AtomicBool,
    read_errors: AtomicU64,
    write_errors: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    write_fault: Option<Error>,
    written: Option<Instant>,
    write_logged: Option<Logged>,
    /// The log says that the store cannot be written.
    announced: bool,
    read_logged: Option<Logged>,
}

/// What was last logged, and when.
struct Logged {
    at: Instant,
    fault: Discriminant<Error>,
}

impl Default for Health {
    fn default() -> Self {
        let zero = AtomicU64::default;
        Self { writable: AtomicBool::new(true), read_errors: zero(), write_errors: zero(), state: Mutex::default() }
    }
}

impl Health {
    /// Whether the last transaction was committed.
    pub fn is_writable(&self) -> bool {
        self.writable.load(Ordering::Relaxed)
    }

    /// How many reads and how many transactions have failed.
    pub fn errors(&self) -> [u64; 2] {
        [&self.read_errors, &self.write_errors].map(|count| count.load(Ordering::Relaxed))
    }

    /// Why the last transaction failed, if it did.
    pub fn write_fault(&self) -> Option<Error> {
        self.state().write_fault.clone()
    }

    /// How long ago a transaction was committed; `None`: never.
    pub fn since_write(&self, now: Instant) -> Option<Duration> {
        self.state().written.map(|written| now.saturating_duration_since(written))
    }

    /// Notes a transaction that was committed.
    pub fn note_write(&self) {
        let mut state = self.state();
        state.written = Some(clock::monotonic());
        state.write_fault = None;
        self.writable.store(true, Ordering::Relaxed);
        if std::mem::take(&mut state.announced) {
            tracing::info!("the store can be written again");
        }
    }

    /// Notes a transaction that failed.
    pub fn note_write_error(&self, error: &Error) {
        if matches!(error, Error::Closed) {
            return;
        }
        self.write_errors.fetch_add(1, Ordering::Relaxed);
        self.writable.store(false, Ordering::Relaxed);
        let mut state = self.state();
        state.write_fault = Some(error.clone());
        if error.is_of_file() {
            return;
        }
        // Not more often where good and bad transactions take turns, as with a damaged page.
        if is_due(&mut state.write_logged, error) {
            state.announced = true;
            tracing::error!(%error, "the store cannot be written: registration, login, refresh and logout answer 503");
        }
    }

    /// Notes a read that failed.
    pub fn note_read_error(&self, error: &Error) {
        self.read_errors.fetch_add(1, Ordering::Relaxed);
        if !error.is_of_file() && is_due(&mut self.state().read_logged, error) {
            tracing::error!(%error, "the store cannot be read: what needs it answers 503");
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a line about `error` is to be written now, which is noted then.
fn is_due(logged: &mut Option<Logged>, error: &Error) -> bool {
    let (now, fault) = (clock::monotonic(), std::mem::discriminant(error));
    let due = logged.as_ref().is_none_or(|last| {
        let pause = if last.fault == fault { REMINDER } else { PAUSE };
        now.saturating_duration_since(last.at) >= pause
    });
    if due {
        *logged = Some(Logged { at: now, fault });
    }
    due
}

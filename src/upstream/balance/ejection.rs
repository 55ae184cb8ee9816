//! Passing over a server that keeps failing, for a time that grows.
//!
//! A server is in; after [`LIMIT`] failures in a row it is out; when its time is over it is on trial: one request is given
//! to it, and the outcome takes it back in or puts it out for twice as long. A trial of which nothing is heard (its client
//! left) is followed by another one after as long a time again.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Milliseconds since the balance was first built.
pub type Millis = u64;

/// Failures in a row that put a server out.
pub(super) const LIMIT: u32 = 5;

/// The first time out, and the longest.
pub(super) const FIRST: Millis = 1000;
pub(super) const LONGEST: Millis = 5 * 60 * 1000;

/// A server that stays in for this long, and for as long as it was last out, begins anew with [`FIRST`]. Less would forget
/// one that works for some seconds after each restart; a server that was out for minutes has more to prove.
pub(super) const PROBATION: Millis = 30 * 1000;

/// In [`Ejection::state`]: on trial. The other bits are the time at which the next trial may begin.
const TRIAL: u64 = 1;

/// In [`Ejection::state`]: in.
const IN: u64 = 0;

/// One server's. The state is changed under the balance's lock only, but for the beginning of a trial.
#[derive(Debug, Default)]
pub struct Ejection {
    /// In a row; 0 only when in.
    failures: AtomicU32,
    state: AtomicU64,
    /// How often in a row it was put out.
    row: AtomicU32,
    /// When it was last taken back.
    back: AtomicU64,
}

impl Ejection {
    /// Whether the last that was heard was good.
    pub fn is_clean(&self) -> bool {
        self.failures.load(Relaxed) == 0
    }

    /// Whether it gets requests.
    pub fn is_in(&self) -> bool {
        self.state.load(Relaxed) == IN
    }

    /// Whether it may get this request; when it is out, that is its trial.
    pub fn admits(&self, now: impl FnOnce() -> Millis) -> bool {
        let state = self.state.load(Relaxed);
        if state == IN {
            return true;
        }
        let now = now();
        let trial = until(now.saturating_add(time(self.row.load(Relaxed)))) | TRIAL;
        now >= state >> 1 && self.state.compare_exchange(state, trial, Relaxed, Relaxed).is_ok()
    }

    /// Notes a success: forgets failures. Whether it was on trial, and has passed. An answer to a request from before it
    /// was put out says nothing.
    pub fn is_passed(&self) -> bool {
        let state = self.state.load(Relaxed);
        if state == IN {
            self.failures.store(0, Relaxed);
        }
        state & TRIAL != 0
    }

    /// Notes a failure. Whether it is one too many.
    pub fn is_enough(&self) -> bool {
        match self.state.load(Relaxed) {
            IN => self.failures.load(Relaxed) >= LIMIT || self.failures.fetch_add(1, Relaxed) >= LIMIT - 1,
            out => out & TRIAL != 0,
        }
    }

    /// When the next trial may begin.
    pub fn due(&self) -> Millis {
        self.state.load(Relaxed) >> 1
    }

    /// How long it has been in.
    pub fn time_in(&self, now: Millis) -> Millis {
        now.saturating_sub(self.back.load(Relaxed))
    }

    /// Puts it out, if it is in or on trial; for how long.
    pub fn put_out(&self, now: Millis) -> Option<Millis> {
        let state = self.state.load(Relaxed);
        let failed = if state == IN { self.failures.load(Relaxed) >= LIMIT } else { state & TRIAL != 0 };
        if !failed {
            return None;
        }
        let before = self.row.load(Relaxed);
        let proven = state == IN && self.time_in(now) >= time(before).max(PROBATION);
        let row = if proven { 1 } else { before.saturating_add(1) };
        self.row.store(row, Relaxed);
        self.state.store(until(now.saturating_add(time(row))), Relaxed);
        Some(time(row))
    }

    /// Takes it back, if it is on trial; whether it was.
    pub fn take_back(&self, now: Millis) -> bool {
        let on_trial = self.state.load(Relaxed) & TRIAL != 0;
        if on_trial {
            self.pardon(now);
        }
        on_trial
    }

    /// Takes it back.
    pub fn pardon(&self, now: Millis) {
        self.back.store(now, Relaxed);
        self.failures.store(0, Relaxed);
        self.state.store(IN, Relaxed);
    }
}

/// How long a server is out the `row`th time in a row.
fn time(row: u32) -> Millis {
    FIRST.checked_shl(row.saturating_sub(1).min(32)).unwrap_or(LONGEST).min(LONGEST)
}

fn until(time: Millis) -> u64 {
    time << 1
}

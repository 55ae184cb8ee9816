//! What is worth a word in the log, and happens as often as strangers please.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Between two words on the same matter.
const PAUSE: Duration = Duration::from_secs(10);

/// One matter.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    /// Whether a word is due at `now`; the next one is then due ten seconds later.
    pub fn is_due(&self, now: Instant) -> bool {
        let Ok(mut last) = self.0.lock() else { return false };
        let due = last.is_none_or(|last| now.duration_since(last) >= PAUSE);
        if due {
            *last = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn is_due_once_in_ten_seconds() {
        let (seldom, begin) = (Seldom::default(), clock::monotonic());
        let due = [0, 1, 9_999, 10_000, 10_001, 19_999, 20_000];
        let due = due.map(|millis| seldom.is_due(begin + Duration::from_millis(millis)));
        assert_eq!(due, [true, false, false, true, false, false, true]);
    }
}

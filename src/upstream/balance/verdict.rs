//! What the active checks of a server add up to.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::config::Health;

/// One server's; up until a check has said otherwise.
#[derive(Debug, Default)]
pub struct Verdict {
    down: AtomicBool,
    heard: Mutex<Heard>,
}

#[derive(Debug, Default)]
struct Heard {
    any: bool,
    /// Checks in a row that contradict the verdict.
    against: u32,
}

/// The verdict is another one now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The server gets requests again.
    Up,
    /// The server gets none.
    Down,
}

impl Verdict {
    /// Whether the server is to get no request.
    pub fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    /// Takes in the result of a check. The very first decides, later ones only as many in a row as `health` says.
    pub fn hear(&self, good: bool, health: &Health) -> Option<Change> {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let first = !std::mem::replace(&mut heard.any, true);
        if good != self.is_down() {
            heard.against = 0;
            return None;
        }
        heard.against = heard.against.saturating_add(1);
        let (enough, change) = if good { (health.up, Change::Up) } else { (health.down, Change::Down) };
        if !first && heard.against < enough {
            return None;
        }
        heard.against = 0;
        self.down.store(!good, Ordering::Relaxed);
        Some(change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_first_check_decides_and_later_ones_only_in_a_row() {
        let health = Health { path: None, every: Duration::from_secs(1), up: 2, down: 3 };
        for (results, changes) in
            [("+--+---", "......D"), ("-+-++", "D...U"), ("-++", "D.U"), ("+++", "..."), ("-----++---", "D.....U..D")]
        {
            let verdict = Verdict::default();
            assert!(!verdict.is_down(), "one never checked is up");
            let heard: String = results
                .chars()
                .map(|result| match verdict.hear(result == '+', &health) {
                    Some(Change::Up) => 'U',
                    Some(Change::Down) => 'D',
                    None => '.',
                })
                .collect();
            assert_eq!(heard, changes, "{results}");
        }
    }
}

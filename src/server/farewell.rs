//! Who asks /readyz, and what he was told: a load balancer that keeps asking has to hear `draining` before its
//! connections are refused; without one nobody need wait.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::clock;

/// Asked at least so often, over at least that time, and lately: somebody depends on the answer.
const TIMES: u32 = 3;
const SPAN: Duration = Duration::from_secs(2);
const LATELY: Duration = Duration::from_secs(30);

/// How often `draining` must have been said until it counts as heard: what health checks usually want to be sure.
const TOLD: u32 = 3;

/// See the module.
pub struct Farewell {
    asked: Mutex<Option<Asked>>,
    told: watch::Sender<u32>,
}

#[derive(Clone, Copy)]
struct Asked {
    first: Instant,
    last: Instant,
    times: u32,
}

impl Farewell {
    /// Nobody has asked.
    pub fn new() -> Self {
        Self { asked: Mutex::default(), told: watch::Sender::new(0) }
    }

    /// Somebody asked, and was told `ready`.
    pub fn note_ready(&self) {
        let now = clock::monotonic();
        if let Ok(mut asked) = self.asked.lock() {
            let past = asked.filter(|asked| now.duration_since(asked.last) < LATELY);
            let begin = Asked { first: now, last: now, times: 0 };
            let past = past.unwrap_or(begin);
            *asked = Some(Asked { last: now, times: past.times.saturating_add(1), ..past });
        }
    }

    /// Somebody asked, and was told `draining`.
    pub fn note_draining(&self) {
        self.told.send_modify(|told| *told += 1);
    }

    /// Whether somebody keeps asking.
    pub fn is_expected(&self) -> bool {
        let Some(asked) = self.asked.lock().ok().and_then(|asked| *asked) else { return false };
        let lately = clock::monotonic().duration_since(asked.last) < LATELY;
        lately && asked.times >= TIMES && asked.last.duration_since(asked.first) >= SPAN
    }

    /// Returns once he must have understood.
    pub async fn heard(&self) {
        // The sender is this one.
        let _ = self.told.subscribe().wait_for(|told| *told >= TOLD).await;
    }
}

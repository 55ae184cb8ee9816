//! Connections to upstream servers, kept per worker: no lock, no other thread, newest first.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use crate::config;
use crate::upstream::alarm::{Clock, Millis};
use crate::upstream::headers::Rules;
use crate::upstream::wire::{ConnectError, Wire};

/// Unused connections that a worker keeps to one server.
const KEPT: usize = 1024;

/// Ticks between two sweeps of unused connections.
const SWEEP: u32 = 50;

/// The unused connections of one worker to one server.
pub struct Pool {
    idle: RefCell<Vec<(Wire, Millis)>>,
    clock: Rc<Clock>,
}

impl Pool {
    /// Keeps a connection whose exchange is over, if it can take another.
    pub fn keep(&self, mut wire: Wire) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < KEPT && wire.rest() {
            idle.push((wire, self.clock.now()));
        }
    }

    /// A kept connection that still works as far as is known; never waits. With `sure` the kernel is asked.
    pub fn take(&self, idle_limit: Duration, sure: bool) -> Option<Wire> {
        let oldest = self.clock.now().saturating_sub(millis(idle_limit));
        let mut idle = self.idle.borrow_mut();
        while let Some((wire, since)) = idle.pop() {
            if since < oldest {
                // Newest last: all below are older still.
                idle.clear();
                return None;
            }
            if if sure { wire.is_open() } else { wire.is_quiet() } {
                return Some(wire);
            }
        }
        None
    }

    /// A new connection.
    pub fn connect<'a>(
        &'a self,
        server: &'a config::UpstreamServer,
        limit: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<Wire, ConnectError>> + 'a>> {
        // In a box: the way of most requests does not come by here, and should not carry its state.
        Box::pin(Wire::connect(server, limit, self.clock.alarm()))
    }

    /// The clock by which exchanges are bounded.
    pub fn clock(&self) -> &Rc<Clock> {
        &self.clock
    }

    fn sweep(&self, idle_limit: Duration) {
        let oldest = self.clock.now().saturating_sub(millis(idle_limit));
        self.idle.borrow_mut().retain_mut(|(wire, since)| {
            wire.shrink();
            *since >= oldest && wire.is_quiet()
        });
    }
}

/// What one worker needs to forward: the pools by upstream, then by server, as in the configuration.
pub struct Pools {
    upstreams: Vec<(Vec<Rc<Pool>>, Duration)>,
    rules: Rc<Rules>,
    clock: Rc<Clock>,
    ticks: Cell<u32>,
}

impl Pools {
    /// Empty pools for every server.
    pub fn new(upstreams: &[config::Upstream], headers: &[config::IdentityHeader]) -> Self {
        let clock = Rc::new(Clock::new());
        let pool = |_: &config::UpstreamServer| Rc::new(Pool { idle: RefCell::default(), clock: Rc::clone(&clock) });
        let pools = |upstream: &config::Upstream| (upstream.servers.iter().map(pool).collect(), upstream.timeouts.idle);
        let upstreams = upstreams.iter().map(pools).collect();
        Self { upstreams, rules: Rc::new(Rules::new(headers)), clock, ticks: Cell::new(0) }
    }

    /// To be called every 100 ms or so: rings for exchanges that wait too long, and now and then closes connections that
    /// have been unused for too long or were closed by their server.
    pub fn tick(&self) {
        self.clock.tick();
        let ticks = self.ticks.get().wrapping_add(1);
        self.ticks.set(ticks);
        if ticks.is_multiple_of(SWEEP) {
            for (servers, idle_limit) in &self.upstreams {
                servers.iter().for_each(|pool| pool.sweep(*idle_limit));
            }
        }
    }

    /// The clock by which exchanges are bounded.
    pub(super) fn clock(&self) -> &Rc<Clock> {
        &self.clock
    }

    /// How header sections are rewritten.
    pub(super) fn rules(&self) -> &Rc<Rules> {
        &self.rules
    }

    /// The pool of one server.
    pub(super) fn of(&self, upstream: usize, server: usize) -> Option<&Rc<Pool>> {
        self.upstreams.get(upstream)?.0.get(server)
    }
}

fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}

//! Connections to upstream servers, kept per worker: no lock, no other thread, newest first.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use crate::config::{self, ServerAddress};
use crate::upstream::alarm::{Clock, Millis};
use crate::upstream::budget::Budget;
use crate::upstream::connection_limit::Limited;
use crate::upstream::copy::Copies;
use crate::upstream::h2::{Berth, Demand, Links};
use crate::upstream::headers::Rules;
use crate::upstream::resets::History;
use crate::upstream::resolve::Names;
use crate::upstream::stream::{ConnectError, Door};
use crate::upstream::tls::Tls;
use crate::upstream::wire::Wire;

/// Unused connections that a worker keeps to one server.
const KEPT: usize = 1024;

/// Ticks between two sweeps of unused connections.
const SWEEP: u32 = 50;

/// The unused connections of one worker to one server.
pub struct Pool {
    idle: RefCell<Vec<(Wire, Millis)>>,
    links: Links,
    /// `None` for a UNIX socket.
    names: Option<Rc<Names>>,
    clock: Rc<Clock>,
    limited: RefCell<Rc<Limited>>,
}

impl Pool {
    fn new(server: &config::UpstreamServer, clock: &Rc<Clock>, limited: &Rc<Limited>) -> Self {
        let names = match &server.address {
            ServerAddress::Tcp { host, port } => Some(Rc::new(Names::new(host, *port, Rc::clone(clock)))),
            ServerAddress::Unix(_) => None,
        };
        Self {
            idle: RefCell::default(),
            links: Links::default(),
            names,
            clock: Rc::clone(clock),
            limited: RefCell::new(Rc::clone(limited)),
        }
    }

    /// Keeps a connection whose exchange is over, if it can take another.
    pub fn keep(&self, mut wire: Wire) {
        let mut idle = self.idle.borrow_mut();
        if let Some(names) = &self.names {
            names.note_use();
        }
        if idle.len() < KEPT && wire.rest() && !self.limited.borrow().is_wanted() {
            idle.push((wire, self.clock.now()));
        }
    }

    /// A kept connection that still works as far as is known; never waits. With `sure` the kernel is asked.
    pub fn take(&self, idle_limit: Duration, sure: bool) -> Option<Wire> {
        let oldest = self.clock.now().saturating_sub(millis(idle_limit));
        let mut idle = self.idle.borrow_mut();
        while let Some((mut wire, since)) = idle.pop() {
            if since < oldest {
                // Newest last: all below are older still.
                idle.clear();
                return None;
            }
            if self.has(&mut wire) && if sure { wire.is_open() } else { wire.is_quiet() } {
                return Some(wire);
            }
        }
        None
    }

    /// Whether the connection goes where the server still is.
    fn has(&self, wire: &mut Wire) -> bool {
        match (&self.names, wire.place()) {
            (Some(names), Some(place)) => names.has(place),
            _ => true,
        }
    }

    /// A new connection, on behalf of `client`.
    pub fn connect<'a>(
        &'a self,
        server: &'a config::UpstreamServer,
        tls: Option<&'a Tls>,
        limit: Duration,
        client: IpAddr,
    ) -> Pin<Box<dyn Future<Output = Result<Wire, ConnectError>> + 'a>> {
        // In a box: the way of most requests does not come by here, and should not carry its state.
        Box::pin(async move {
            let (limited, client) = (Rc::clone(&self.limited.borrow()), Some(client));
            let door = Door { server, names: self.names.as_ref(), tls, limit, limited: Some(&limited), client };
            Wire::connect(door, self.clock.alarm()).await
        })
    }

    /// Room for one stream on an HTTP/2 connection, a new one when there is none.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn stream(
        &self,
        server: &config::UpstreamServer,
        tls: Option<&Tls>,
        limit: Duration,
        demand: Demand<'_>,
    ) -> Result<Berth, ConnectError> {
        if let Some(names) = &self.names {
            names.note_use();
        }
        let limited = Rc::clone(&self.limited.borrow());
        let door = Door { server, names: self.names.as_ref(), tls, limit, limited: Some(&limited), client: None };
        self.links.take(door, &self.clock, demand).await
    }

    /// The clock by which exchanges are bounded.
    pub fn clock(&self) -> &Rc<Clock> {
        &self.clock
    }

    /// Closes the connections that nothing uses.
    fn release_idle(&self) {
        self.idle.borrow_mut().clear();
        self.links.sweep(self.clock.now());
    }

    fn sweep(&self, idle_limit: Duration) {
        if let Some(names) = &self.names {
            names.sweep();
        }
        let oldest = self.clock.now().saturating_sub(millis(idle_limit));
        self.idle.borrow_mut().retain_mut(|(wire, since)| {
            wire.shrink();
            *since >= oldest && self.has(wire) && wire.is_quiet()
        });
        self.links.sweep(oldest);
    }
}

/// One upstream's.
struct Kept {
    settings: config::Upstream,
    /// By server, as in the configuration.
    pools: Vec<Rc<Pool>>,
    budget: Rc<Budget>,
    limited: Rc<Limited>,
}

impl Kept {
    fn new(settings: &config::Upstream, limited: Rc<Limited>, previous: Option<&Pools>, clock: &Rc<Clock>) -> Self {
        let past = previous.and_then(|pools| pools.upstreams.iter().find(|past| past.settings.name == settings.name));
        let budget = past.map_or_else(|| Rc::new(Budget::new()), |past| Rc::clone(&past.budget));
        // What connections were opened by.
        let same = |past: &&Kept| {
            let (a, b) = (&past.settings, settings);
            a.tls == b.tls && a.protocol == b.protocol && a.host == b.host
        };
        let past = past.filter(same);
        let pool = |server: &config::UpstreamServer| {
            let known = past.and_then(|past| past.find(server));
            let pool = known.unwrap_or_else(|| Rc::new(Pool::new(server, clock, &limited)));
            pool.limited.replace(Rc::clone(&limited));
            pool
        };
        let pools = settings.servers.iter().map(pool).collect();
        Self { settings: settings.clone(), pools, budget, limited }
    }

    fn find(&self, server: &config::UpstreamServer) -> Option<Rc<Pool>> {
        let same = |known: &config::UpstreamServer| known.address == server.address && known.tls == server.tls;
        let index = self.settings.servers.iter().position(same)?;
        self.pools.get(index).map(Rc::clone)
    }
}

/// What one worker needs to forward, by upstream, as in the configuration.
pub struct Pools {
    upstreams: Vec<Kept>,
    rules: Rc<Rules>,
    clock: Rc<Clock>,
    resets: Rc<History>,
    copies: Rc<Copies>,
    ticks: Cell<u32>,
}

impl Pools {
    /// Pools for every server: those of `previous` where the server is still there, else empty ones.
    pub fn new<'a>(
        upstreams: impl Iterator<Item = (&'a config::Upstream, Limited)>,
        headers: &[config::IdentityHeader],
        previous: Option<&Self>,
    ) -> Self {
        let clock = previous.map_or_else(|| Rc::new(Clock::new()), |previous| Rc::clone(&previous.clock));
        let upstreams =
            upstreams.map(|(upstream, limited)| Kept::new(upstream, Rc::new(limited), previous, &clock)).collect();
        let resets = previous.map(|previous| Rc::clone(&previous.resets)).unwrap_or_default();
        let copies = previous.map(|previous| Rc::clone(&previous.copies)).unwrap_or_default();
        Self { upstreams, rules: Rc::new(Rules::new(headers)), clock, resets, copies, ticks: Cell::new(0) }
    }

    /// To be called every 100 ms or so: rings for exchanges that wait too long, and now and then closes connections that
    /// have been unused for too long or were closed by their server.
    pub fn tick(&self) {
        self.clock.tick();
        let ticks = self.ticks.get().wrapping_add(1);
        self.ticks.set(ticks);
        for kept in &self.upstreams {
            if kept.limited.is_wanted() {
                kept.pools.iter().for_each(|pool| pool.release_idle());
            }
            if ticks.is_multiple_of(SWEEP) {
                kept.pools.iter().for_each(|pool| pool.sweep(kept.settings.timeouts.idle));
            }
        }
    }

    /// Closes the connections that nothing uses: descriptors are short.
    pub fn release_idle(&self) {
        self.upstreams.iter().flat_map(|kept| &kept.pools).for_each(|pool| pool.release_idle());
    }

    /// The clock by which exchanges are bounded.
    pub(super) fn clock(&self) -> &Rc<Clock> {
        &self.clock
    }

    /// Which clients reset streams early.
    pub(super) fn resets(&self) -> &Rc<History> {
        &self.resets
    }

    /// What the copies of request bodies hold.
    pub(super) fn copies(&self) -> &Rc<Copies> {
        &self.copies
    }

    /// How header sections are rewritten.
    pub(super) fn rules(&self) -> &Rc<Rules> {
        &self.rules
    }

    /// The pool of one server.
    pub(super) fn of(&self, upstream: usize, server: usize) -> Option<&Rc<Pool>> {
        self.upstreams.get(upstream)?.pools.get(server)
    }

    /// The retry budget of one upstream.
    pub(super) fn budget(&self, upstream: usize) -> Option<&Budget> {
        self.upstreams.get(upstream).map(|kept| &*kept.budget)
    }
}

fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::connection_limit::ConnectionLimit;
    use tokio::net::TcpListener;

    #[tokio::test(flavor = "current_thread")]
    async fn a_connection_to_where_the_server_is_no_more_is_not_used_again() {
        let listening = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (first, second) = (listening.local_addr().unwrap(), "127.0.0.2:80".parse().unwrap());
        let server = config::UpstreamServer {
            address: ServerAddress::Tcp { host: "app.invalid".into(), port: 80 },
            tls: false,
            weight: 1,
        };
        let limited = Rc::new(Limited { process: ConnectionLimit::new(10), own: None });
        let pool = Pool::new(&server, &Rc::new(Clock::new()), &limited);
        let names = pool.names.as_ref().unwrap();
        let limit = Duration::from_secs(20);
        for (addresses, found) in [(vec![first], true), (vec![second, first], true), (vec![second], false)] {
            names.learn(vec![first]);
            pool.keep(pool.connect(&server, None, limit, first.ip()).await.unwrap());
            names.learn(addresses);
            assert_eq!(pool.take(limit, false).is_some(), found);
        }
    }
}

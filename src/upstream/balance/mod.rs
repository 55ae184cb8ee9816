//! Which server of an upstream gets a request, and which are passed over: those that active checks call down, and those
//! that failed several requests in a row.

mod order;
mod ejection;
mod verdict;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::clock;
use crate::config;

use ejection::{Ejection, Millis};
use order::Order;

pub use verdict::{Change, Verdict};

/// How soon at the earliest the last server may be swapped for one that was put out before it.
const TURN: Millis = 1000;

/// The servers of one upstream; shared by all workers.
pub struct Balance {
    upstream: String,
    order: Order,
    servers: Box<[Server]>,
    /// How often servers are checked, if they are, and how soon one may be back.
    checks: Option<(config::Health, Duration)>,
    start: Instant,
    /// Held while a server is put out or taken back, so that never all are out.
    ejecting: Arc<Mutex<()>>,
}

struct Server {
    settings: config::UpstreamServer,
    text: String,
    ejection: Arc<Ejection>,
    verdict: Arc<Verdict>,
    in_flight: Arc<AtomicUsize>,
}

/// What [`Balance::next`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The index of a server, as in the configuration.
    Server(usize),
    /// The index of one that is passed over, because nothing else is left. Its failure would be no news.
    LastResort(usize),
    /// Some were tried, and no other is left.
    Exhausted,
    /// Active checks call all servers down.
    NoneHealthy {
        /// How soon one may be back; a second at least.
        retry_after: Duration,
    },
}

/// How an exchange with a server went, as far as it tells of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered.
    Good,
    /// It could not be reached, fell silent, broke off, or answered 502, 503 or 504.
    Failed,
}

/// Counts one request to a server, until it is dropped.
#[derive(Debug)]
#[must_use = "the request counts for as long as this lives"]
pub struct InFlight(Arc<AtomicUsize>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why there is no balance.
#[derive(Debug, thiserror::Error)]
#[error("upstream {upstream} has {count} servers, {} at most", u16::MAX)]
pub struct Error {
    upstream: String,
    count: usize,
}

impl Balance {
    /// Servers of weight 0 get no request. What `previous` knows of a server that is also in `upstream` is taken over.
    ///
    /// # Errors
    /// More servers than a table of pingora-load-balancing can name.
    pub fn new(upstream: &config::Upstream, previous: Option<&Self>) -> Result<Self, Error> {
        let count = upstream.servers.len();
        if count > usize::from(u16::MAX) {
            return Err(Error { upstream: upstream.name.clone(), count });
        }
        let question = |health: Option<&config::Health>| health.map(|health| health.path.clone());
        let before = previous.and_then(|previous| previous.checks.as_ref()).map(|(health, _)| health);
        // A verdict on another question is none; and without checks, nobody would change it.
        let stands = upstream.health.is_some() && question(before) == question(upstream.health.as_ref());
        let servers = upstream.servers.iter().map(|settings| {
            let known = previous.and_then(|previous| previous.find(settings));
            let judged = known.filter(|_| stands);
            Server {
                text: settings.to_string(),
                ejection: known.map(|server| Arc::clone(&server.ejection)).unwrap_or_default(),
                verdict: judged.map(|server| Arc::clone(&server.verdict)).unwrap_or_default(),
                in_flight: known.map(|server| Arc::clone(&server.in_flight)).unwrap_or_default(),
                settings: settings.clone(),
            }
        });
        Ok(Self {
            servers: servers.collect(),
            upstream: upstream.name.clone(),
            order: Order::new(upstream),
            checks: upstream.health.clone().map(|health| {
                let back = health.every.saturating_mul(health.up).max(Duration::from_secs(1));
                (health, back)
            }),
            start: previous.map_or_else(clock::monotonic, |previous| previous.start),
            ejecting: previous.map(|previous| Arc::clone(&previous.ejecting)).unwrap_or_default(),
        })
    }

    fn find(&self, settings: &config::UpstreamServer) -> Option<&Server> {
        let same =
            |server: &&Server| server.settings.address == settings.address && server.settings.tls == settings.tls;
        self.servers.iter().find(same)
    }

    /// A server that is not among `tried`. `key` decides with `consistent`, where none counts as an empty one. A server
    /// whose time out is over is given to one request, whose outcome decides.
    pub fn next(&self, key: Option<&[u8]>, tried: &[usize]) -> Choice {
        self.next_at(key, tried, clock::monotonic)
    }

    fn next_at(&self, key: Option<&[u8]>, tried: &[usize], now: impl Fn() -> Instant) -> Choice {
        let key = key.unwrap_or_default();
        let now = || self.millis(now());
        let fits = |index: usize| {
            !tried.contains(&index) && self.servers.get(index).is_some_and(|server| !self.is_down(server))
        };
        let admits = |index: usize| fits(index) && self.ejection(index).is_some_and(|ejection| ejection.admits(now));
        let found = match &self.order {
            Order::Single(index) => Some(*index).filter(|index| fits(*index)),
            Order::Least(_) => self.least(fits, now),
            Order::Turns(_) | Order::Dice(_) | Order::Ring(_) => self.order.find(key, admits),
        };
        if let Some(index) = found {
            return Choice::Server(index);
        }
        match (self.spare(key, fits, now), &self.checks) {
            (Some(choice), _) => choice,
            (None, Some((_, retry_after))) if tried.is_empty() => Choice::NoneHealthy { retry_after: *retry_after },
            (None, _) => Choice::Exhausted,
        }
    }

    /// The fewest in flight in proportion to the weight; those that are equal, in turn. One that is due for a trial first:
    /// a server that hung would never again have the fewest.
    fn least(&self, fits: impl Fn(usize) -> bool, now: impl Fn() -> Millis + Copy) -> Option<usize> {
        let turn = self.order.find(b"", |_| true)?;
        let mut best: Option<(usize, u64, u64)> = None;
        for index in (turn..self.servers.len()).chain(0..turn) {
            let Some(server) = self.servers.get(index).filter(|server| server.settings.weight > 0 && fits(index))
            else {
                continue;
            };
            if !server.ejection.is_in() {
                if server.ejection.admits(now) {
                    return Some(index);
                }
                continue;
            }
            let load = server.in_flight.load(Ordering::Relaxed) as u64;
            let weight = server.settings.weight as u64;
            if best.is_none_or(|(_, least, of)| load.saturating_mul(of) < least.saturating_mul(weight)) {
                best = Some((index, load, weight));
            }
        }
        best.map(|(index, ..)| index)
    }

    /// For when the order did not come by a server in time, or nothing is left but servers that are out.
    fn spare(&self, key: &[u8], fits: impl Fn(usize) -> bool, now: impl Fn() -> Millis + Copy) -> Option<Choice> {
        let left = || {
            let usable = |(index, server): &(usize, &Server)| server.settings.weight > 0 && fits(*index);
            self.servers.iter().enumerate().filter(usable)
        };
        let by_key = |(_, server): &(usize, &Server)| self.order.rank(key, &server.text);
        let healthy = left().filter(|(_, server)| server.ejection.is_in()).max_by_key(by_key);
        let due = || left().find(|(_, server)| server.ejection.admits(now));
        if let Some((index, _)) = healthy.or_else(due) {
            return Some(Choice::Server(index));
        }
        // The others are down for certain, or have just failed; this one may have recovered.
        left().max_by_key(by_key).map(|(index, _)| Choice::LastResort(index))
    }

    /// Counts a request that is sent to `server`, where the balance goes by that.
    pub fn enter(&self, server: usize) -> Option<InFlight> {
        let (Order::Least(_), Some(server)) = (&self.order, self.servers.get(server)) else { return None };
        server.in_flight.fetch_add(1, Ordering::Relaxed);
        Some(InFlight(Arc::clone(&server.in_flight)))
    }

    /// Takes a server back at once, which was the last resort, and worked.
    pub fn redeem(&self, server: usize) {
        let Some(server) = self.servers.get(server).filter(|server| !server.ejection.is_in()) else { return };
        let held = self.ejecting.lock().unwrap_or_else(PoisonError::into_inner);
        server.ejection.pardon(self.millis(clock::monotonic()));
        drop(held);
        tracing::info!(upstream = self.upstream, server = server.text, "server is back");
    }

    /// Notes how an exchange went. To be called once for each server that [`next`](Self::next) gave, if it is known.
    pub fn report(&self, server: usize, outcome: Outcome) {
        self.report_at(server, outcome, clock::monotonic);
    }

    fn report_at(&self, index: usize, outcome: Outcome, now: impl Fn() -> Instant) {
        // There is nothing to go to instead.
        if let Order::Single(_) = self.order {
            return;
        }
        let Some(server) = self.servers.get(index) else { return };
        let concerns = match outcome {
            Outcome::Good => !server.ejection.is_clean() && server.ejection.is_passed(),
            Outcome::Failed => server.ejection.is_enough(),
        };
        if !concerns {
            return;
        }
        let held = self.ejecting.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.millis(now());
        match outcome {
            Outcome::Good => self.take_back(server, now),
            Outcome::Failed => self.put_out(index, server, now),
        }
        drop(held);
    }

    fn take_back(&self, server: &Server, now: Millis) {
        if server.ejection.take_back(now) {
            tracing::info!(upstream = self.upstream, server = server.text, "server is back");
        }
    }

    /// Never the last: that is swapped for the one that would be due first, so that no server that has recovered waits
    /// for its time while all requests go to a dead one.
    fn put_out(&self, index: usize, server: &Server, now: Millis) {
        let others = || {
            let other =
                |(at, other): &(usize, &Server)| *at != index && other.settings.weight > 0 && !self.is_down(other);
            self.servers.iter().enumerate().filter(other).map(|(_, other)| other)
        };
        if server.ejection.is_in() && !others().any(|other| other.ejection.is_in()) {
            let Some(first) = others().min_by_key(|other| other.ejection.due()) else { return };
            if server.ejection.time_in(now) < TURN {
                return;
            }
            self.swap_in(first, now);
        }
        let Some(time) = server.ejection.put_out(now) else { return };
        let seconds = time / 1000;
        tracing::warn!(upstream = self.upstream, server = server.text, seconds, "server is skipped: it keeps failing");
    }

    fn swap_in(&self, server: &Server, now: Millis) {
        server.ejection.pardon(now);
        tracing::info!(upstream = self.upstream, server = server.text, "server is tried again: no other one is left");
    }

    /// What active checks say of each server, in the order of the configuration, with its text.
    pub fn verdicts(&self) -> impl Iterator<Item = (&str, &Arc<Verdict>)> {
        self.servers.iter().map(|server| (server.text.as_str(), &server.verdict))
    }

    /// For each server its text, whether active checks call it up, and whether it is passed over for its failures.
    pub fn states(&self) -> impl Iterator<Item = (&str, bool, bool)> {
        // One that is alone now may have been put out when it was not.
        let alone = matches!(self.order, Order::Single(_));
        self.servers
            .iter()
            .map(move |server| (server.text.as_str(), !self.is_down(server), !alone && !server.ejection.is_in()))
    }

    fn is_down(&self, server: &Server) -> bool {
        self.checks.is_some() && server.verdict.is_down()
    }

    fn ejection(&self, index: usize) -> Option<&Ejection> {
        self.servers.get(index).map(|server| &*server.ejection)
    }

    fn millis(&self, now: Instant) -> Millis {
        let since = now.saturating_duration_since(self.start).as_millis();
        Millis::try_from(since).unwrap_or(Millis::MAX)
    }
}

#[cfg(test)]
mod tests;

//! The open connections of all workers, counted: `server.limits.connections` and `per_address`.
//!
//! When all places are taken a newcomer waits. At each sweep the workers close what can give way until there is room for
//! those that wait: connections of the largest holder first, and of these the idle before the slow. A holder is a network
//! (IPv4 /24, IPv6 /48), and within it a client's own prefix (/32, /64). Trusted proxies and UNIX sockets hold for many
//! clients: their connections count, and never give way. A connection that makes progress does not either.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::config::Limits;
use crate::telemetry::metrics::Connections;

/// Locks between which addresses are divided; a connection takes two of them twice in its life.
const SHARDS: usize = 64;

/// Newcomers that may wait for a place, and those of one network among them.
const WAITING_MAX: usize = 256;
const WAITING_SHARE: usize = 16;

/// Why a connection is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// No more connections, and as many wait for a place as may.
    #[error("server.limits.connections is reached")]
    Everywhere,
    /// No more connections of this address.
    #[error("server.limits.per_address is reached")]
    Address,
}

/// How many connections a client's network and its own prefix hold; the larger gives way first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share {
    network: usize,
    prefix: usize,
}

/// A client's prefix or network, as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Holder {
    Prefix(u128),
    Network(u128),
    /// A network's newcomers that wait.
    Waiting(u128),
}

/// See the module.
pub struct Census {
    limit: AtomicUsize,
    per_address: AtomicUsize,
    open: AtomicUsize,
    waiting: AtomicUsize,
    /// A place may be free.
    freed: Notify,
    /// How many of the open ones are on their way out: the workers have closed them.
    closing: AtomicUsize,
    holders: Vec<Mutex<HashMap<Holder, usize, ahash::RandomState>>>,
    hash: ahash::RandomState,
    /// By worker: the share of the connection that it would close next.
    offers: Mutex<Vec<Option<Share>>>,
    evicted: AtomicU64,
}

impl Census {
    /// Of `workers`, numbered from 0.
    pub fn new(workers: usize, limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            limit: AtomicUsize::new(limits.connections),
            per_address: AtomicUsize::new(limits.per_address),
            open: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            freed: Notify::new(),
            closing: AtomicUsize::new(0),
            holders: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hash: ahash::RandomState::new(),
            offers: Mutex::new(vec![None; workers]),
            evicted: AtomicU64::new(0),
        })
    }

    /// Changes the limits from now on. Connections beyond the new ones are closed at the next sweeps, as far as they can
    /// give way.
    pub fn set_limits(&self, limits: &Limits) {
        self.limit.store(limits.connections, Ordering::Relaxed);
        self.per_address.store(limits.per_address, Ordering::Relaxed);
        self.freed.notify_waiters();
    }

    /// Counts a connection in, of the client at `address`; `None` is one that only the total counts: of a UNIX socket, or
    /// of a trusted proxy on behalf of many clients. Waits for a place; how long that may take is the caller's to bound.
    /// It is counted out when the [`Ticket`] is dropped.
    ///
    /// # Errors
    /// It is to be closed.
    pub async fn enter(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Ticket, Full> {
        let holder = self.count_holder(address)?;
        if self.take_place() {
            return Ok(Ticket { holder, _place: Place(Arc::clone(self)) });
        }
        let _waiting = self.wait_in_line(address)?;
        loop {
            let freed = self.freed.notified();
            if self.take_place() {
                return Ok(Ticket { holder, _place: Place(Arc::clone(self)) });
            }
            freed.await;
        }
    }

    /// How many connections are to give way: for those that wait, and those beyond a limit that was lowered.
    pub fn demand(&self) -> usize {
        let (open, waiting, limit) =
            (self.open(), self.waiting.load(Ordering::Relaxed), self.limit.load(Ordering::Relaxed));
        if waiting > 0 && open < limit {
            // Where several places were freed at once, only one of those that wait may have heard of it.
            self.freed.notify_waiters();
        }
        (open + waiting).saturating_sub(self.closing.load(Ordering::Relaxed)).saturating_sub(limit)
    }

    /// What the client at `address` holds, and its network.
    pub fn share(&self, address: IpAddr) -> Share {
        let [prefix, network] = holders(address).map(|holder| self.count(holder));
        Share { network, prefix }
    }

    /// Worker number `worker` has these connections that can give way, the first to go first. Returns how many of them it
    /// is to close at once: others go first where they hold more.
    pub fn settle(&self, worker: usize, shares: impl IntoIterator<Item = Share>) -> usize {
        let mut offers = self.offers();
        let others = offers.iter().enumerate().filter(|(index, _)| *index != worker);
        let largest = others.filter_map(|(_, offer)| *offer).max();
        let (mut left, mut told, mut next) = (self.demand(), 0, None);
        for share in shares {
            next = Some(share);
            if left == 0 || largest.is_some_and(|largest| largest > share) {
                break;
            }
            (left, told, next) = (left - 1, told + 1, None);
        }
        if let Some(offer) = offers.get_mut(worker) {
            *offer = next;
        }
        self.closing.fetch_add(told, Ordering::Relaxed);
        self.evicted.fetch_add(u64::try_from(told).unwrap_or(0), Ordering::Relaxed);
        told
    }

    /// What has been counted since the start.
    pub fn counts(&self) -> Connections {
        Connections {
            open: u64::try_from(self.open()).unwrap_or(u64::MAX),
            evicted: self.evicted.load(Ordering::Relaxed),
        }
    }

    fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    fn take_place(&self) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        let more = |open: usize| (open < limit).then_some(open + 1);
        self.open.fetch_update(Ordering::AcqRel, Ordering::Relaxed, more).is_ok()
    }

    fn wait_in_line(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Waiting, Full> {
        let holder = address.map(|address| match holders(address) {
            [_, Holder::Network(bits)] => Holder::Waiting(bits),
            [_, other] => other,
        });
        if holder.is_some_and(|holder| !self.add(holder, WAITING_SHARE)) {
            return Err(Full::Everywhere);
        }
        // From here on its drop counts it out again.
        let waiting = Waiting { census: Arc::clone(self), holder };
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            return Err(Full::Everywhere);
        }
        Ok(waiting)
    }

    /// Counted without a limit too: it may get one while the connection is open.
    fn count_holder(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Counted, Full> {
        let Some(address) = address else { return Ok(Counted { census: Arc::clone(self), address: None }) };
        let limit = match self.per_address.load(Ordering::Relaxed) {
            0 => usize::MAX,
            limit => limit,
        };
        let [prefix, network] = holders(address);
        if !self.add(prefix, limit) {
            return Err(Full::Address);
        }
        self.add(network, usize::MAX);
        Ok(Counted { census: Arc::clone(self), address: Some(address) })
    }

    /// One more, where there are fewer than `limit`.
    fn add(&self, holder: Holder, limit: usize) -> bool {
        self.with_shard(holder, |shard| {
            let count = shard.entry(holder).or_insert(0);
            let fits = *count < limit;
            *count += usize::from(fits);
            // A limit is at least one: a holder that is turned away has an entry already.
            fits
        })
    }

    fn subtract(&self, holder: Holder) {
        self.with_shard(holder, |shard| {
            if let Entry::Occupied(mut entry) = shard.entry(holder) {
                match entry.get().saturating_sub(1) {
                    0 => drop(entry.remove()),
                    count => *entry.get_mut() = count,
                }
            }
        });
    }

    fn count(&self, holder: Holder) -> usize {
        self.with_shard(holder, |shard| shard.get(&holder).copied().unwrap_or(0))
    }

    fn with_shard<T: Default>(
        &self,
        holder: Holder,
        work: impl FnOnce(&mut HashMap<Holder, usize, ahash::RandomState>) -> T,
    ) -> T {
        let index = usize::try_from(self.hash.hash_one(holder) >> 32).unwrap_or(0) % SHARDS;
        let shard = self.holders.get(index).map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner));
        shard.map(|mut shard| work(&mut shard)).unwrap_or_default()
    }

    fn offers(&self) -> MutexGuard<'_, Vec<Option<Share>>> {
        self.offers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an address counts as: its own prefix, which one client has to itself, and its network.
fn holders(address: IpAddr) -> [Holder; 2] {
    let (bits, prefix, network) = match address.to_canonical() {
        IpAddr::V4(address) => (address.to_ipv6_mapped().to_bits(), 0, 8),
        IpAddr::V6(address) => (address.to_bits(), 64, 80),
    };
    [Holder::Prefix(bits & (u128::MAX << prefix)), Holder::Network(bits & (u128::MAX << network))]
}

fn prefix_of(address: IpAddr) -> Holder {
    let [prefix, _] = holders(address);
    prefix
}

/// One connection's place, until it is dropped.
pub struct Ticket {
    holder: Counted,
    _place: Place,
}

impl Ticket {
    /// The client that holds it; `None` where it holds for many.
    pub fn holder(&self) -> Option<IpAddr> {
        self.holder.address
    }
}

impl Ticket {
    /// Counts a further stream of this connection as one of its client's, where `per_address` limits these. `None`: there
    /// are as many as may be.
    pub fn stream(&self) -> Option<StreamTicket> {
        let Counted { census, address } = &self.holder;
        let limit = census.per_address.load(Ordering::Relaxed);
        let Some(prefix) = address.filter(|_| limit > 0).map(prefix_of) else {
            return Some(StreamTicket(None));
        };
        census.add(prefix, limit).then(|| StreamTicket(Some((Arc::clone(census), prefix))))
    }
}

/// One stream's part of its client's share, until it is dropped.
pub struct StreamTicket(Option<(Arc<Census>, Holder)>);

impl Drop for StreamTicket {
    fn drop(&mut self) {
        if let Some((census, holder)) = &self.0 {
            census.subtract(*holder);
        }
    }
}

/// A connection that counts for its holder.
struct Counted {
    census: Arc<Census>,
    address: Option<IpAddr>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        for holder in self.address.into_iter().flat_map(holders) {
            self.census.subtract(holder);
        }
    }
}

struct Place(Arc<Census>);

impl Drop for Place {
    fn drop(&mut self) {
        let Self(census) = self;
        // Whether it was told to or not: one fewer is on its way out, or room is found a moment later.
        if census.closing.load(Ordering::Relaxed) > 0 {
            let fewer = |closing: usize| closing.checked_sub(1);
            let _ = census.closing.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer);
        }
        census.open.fetch_sub(1, Ordering::AcqRel);
        census.freed.notify_one();
    }
}

/// A newcomer that waits for a place.
struct Waiting {
    census: Arc<Census>,
    holder: Option<Holder>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(holder) = self.holder {
            self.census.subtract(holder);
        }
        self.census.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;

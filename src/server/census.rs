//! The open connections of all workers, counted: `server.limits.connections` and `per_address`.
//!
//! When all places are taken, a newcomer gets in at the cost of the connection that has been idle for longest. Each worker
//! tells at every sweep what it has idle ([`Census::sweep`]), and hears how many it is to close; until then the newcomer
//! is one too many. A newcomer for whom nothing idle is left is turned away.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::config::Limits;
use crate::telemetry::metrics::Connections;

/// Locks between which addresses are divided; a connection takes one of them twice in its life.
const SHARDS: usize = 64;

/// Why a connection is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// No more connections, and none is idle.
    #[error("server.limits.connections is reached, and none is idle")]
    Everywhere,
    /// No more connections of this address.
    #[error("server.limits.per_address is reached")]
    Address,
}

/// What a worker has, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Idle {
    /// Connections that may be closed at once: between two requests, or silent from the start.
    pub count: usize,
    /// How long the longest idle one of them has been so.
    pub longest: Duration,
}

/// See the module.
pub struct Census {
    connections: AtomicUsize,
    per_address: AtomicUsize,
    open: AtomicUsize,
    /// How many of the open ones are on their way out: the workers were told to close them.
    closing: AtomicUsize,
    addresses: Vec<Mutex<HashMap<u128, usize, ahash::RandomState>>>,
    hash: ahash::RandomState,
    /// Taken at a sweep, and by a newcomer that is one too many.
    desks: Mutex<Vec<Desk>>,
    evicted: AtomicU64,
}

/// What is known of one worker.
#[derive(Clone, Copy, Default)]
struct Desk {
    /// As it told last, less what it owes.
    idle: Idle,
    /// Connections that it has yet to be told to close.
    owed: usize,
}

impl Census {
    /// Of `workers`, numbered from 0.
    pub fn new(workers: usize, limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            connections: AtomicUsize::new(limits.connections),
            per_address: AtomicUsize::new(limits.per_address),
            open: AtomicUsize::new(0),
            closing: AtomicUsize::new(0),
            addresses: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hash: ahash::RandomState::new(),
            desks: Mutex::new(vec![Desk::default(); workers]),
            evicted: AtomicU64::new(0),
        })
    }

    /// Changes the limits from now on. Idle connections beyond the new ones are closed at the next sweeps.
    pub fn set_limits(&self, limits: &Limits) {
        self.connections.store(limits.connections, Ordering::Relaxed);
        self.per_address.store(limits.per_address, Ordering::Relaxed);
    }

    /// Counts a connection in, of the client at `address`; `None` is one that only the total counts: of a UNIX socket, or
    /// of a trusted proxy on behalf of many clients. It is counted out when the [`Ticket`] is dropped.
    ///
    /// # Errors
    /// It is to be closed.
    pub fn enter(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Ticket, Full> {
        let key = address.map(key);
        if key.is_some_and(|key| !self.enter_address(key)) {
            return Err(Full::Address);
        }
        // From here on its drop counts it out again.
        let ticket = Ticket { census: Arc::clone(self), key };
        self.open.fetch_add(1, Ordering::Relaxed);
        if self.excess() > 0 && !cover(&mut self.desks(), self.excess()) {
            return Err(Full::Everywhere);
        }
        Ok(ticket)
    }

    /// What worker number `worker` has idle right now. Returns how many of these it is to close, the longest idle first,
    /// at once.
    pub fn sweep(&self, worker: usize, idle: Idle) -> usize {
        let mut desks = self.desks();
        let excess = self.excess();
        let Some(desk) = desks.get_mut(worker) else { return 0 };
        desk.owed = desk.owed.min(idle.count);
        desk.idle = Idle { count: idle.count - desk.owed, ..idle };
        cover(&mut desks, excess);
        // Others may have left in the meantime.
        let surplus = owed(&desks).saturating_sub(excess);
        let Some(desk) = desks.get_mut(worker) else { return 0 };
        let spared = desk.owed.min(surplus);
        let told = std::mem::take(&mut desk.owed) - spared;
        desk.idle.count += spared;
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

    /// How many are open beyond the limit, with nobody told to close them.
    fn excess(&self) -> usize {
        let leaving = self.closing.load(Ordering::Relaxed);
        self.open().saturating_sub(leaving).saturating_sub(self.connections.load(Ordering::Relaxed))
    }

    /// Counted without a limit too: it may get one while the connection is open.
    fn enter_address(&self, key: u128) -> bool {
        let limit = match self.per_address.load(Ordering::Relaxed) {
            0 => usize::MAX,
            limit => limit,
        };
        self.with_shard(key, |shard| {
            let count = shard.entry(key).or_insert(0);
            let fits = *count < limit;
            *count += usize::from(fits);
            // A limit is at least one: an address that is turned away has an entry already.
            fits
        })
    }

    fn leave_address(&self, key: u128) {
        self.with_shard(key, |shard| {
            if let Entry::Occupied(mut entry) = shard.entry(key) {
                match entry.get().saturating_sub(1) {
                    0 => drop(entry.remove()),
                    count => *entry.get_mut() = count,
                }
            }
        });
    }

    fn with_shard<T: Default>(
        &self,
        key: u128,
        work: impl FnOnce(&mut HashMap<u128, usize, ahash::RandomState>) -> T,
    ) -> T {
        let index = usize::try_from(self.hash.hash_one(key) >> 32).unwrap_or(0) % SHARDS;
        let shard = self.addresses.get(index).map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner));
        shard.map(|mut shard| work(&mut shard)).unwrap_or_default()
    }

    fn desks(&self) -> MutexGuard<'_, Vec<Desk>> {
        self.desks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an address counts as: itself, or of IPv6 its /64, which one client has to itself.
fn key(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits() & (u128::MAX << 64),
    }
}

fn owed(desks: &[Desk]) -> usize {
    desks.iter().map(|desk| desk.owed).sum()
}

/// Has the workers owe `excess` connections in all, the longest idle first; whether they have so many.
fn cover(desks: &mut [Desk], excess: usize) -> bool {
    let mut missing = excess.saturating_sub(owed(desks));
    while missing > 0 {
        let idle = desks.iter_mut().filter(|desk| desk.idle.count > 0);
        let Some(desk) = idle.max_by_key(|desk| desk.idle.longest) else { return false };
        desk.owed += 1;
        // The next one's time is not known before the next sweep: they are taken to be spread evenly.
        let share = u32::try_from(desk.idle.count).unwrap_or(u32::MAX);
        desk.idle.longest -= desk.idle.longest / share;
        desk.idle.count -= 1;
        missing -= 1;
    }
    true
}

/// One connection's place, until it is dropped.
pub struct Ticket {
    census: Arc<Census>,
    key: Option<u128>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.census.leave_address(key);
        }
        // Whether it was told to or not: one fewer is on its way out, or room is found a moment later.
        if self.census.closing.load(Ordering::Relaxed) > 0 {
            let fewer = |closing: usize| closing.checked_sub(1);
            let _ = self.census.closing.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer);
        }
        self.census.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;

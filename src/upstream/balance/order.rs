//! In which order the servers of an upstream are asked, by the selections of pingora-load-balancing.

use std::collections::BTreeSet;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use pingora::lb::Backend;
use pingora::lb::selection::{BackendIter, BackendSelection, Consistent, Random, RoundRobin};
use pingora::protocols::l4::socket::SocketAddr as BackendAddr;

use crate::config;

/// Servers that are asked before the search is given up; a ring may name the same one many times in a row.
const LONGEST: usize = 256;

/// See the module.
pub(super) enum Order {
    /// There is nothing to choose.
    Single(usize),
    /// In turn, by weight.
    Turns(Arc<RoundRobin>),
    /// As [`Turns`](Self::Turns), among those with the fewest requests.
    Least(Arc<RoundRobin>),
    /// At random, by weight.
    Dice(Arc<Random>),
    /// By key, along a ring.
    Ring(Arc<Consistent>),
}

impl Order {
    /// Servers of weight 0 are left out.
    pub fn new(upstream: &config::Upstream) -> Self {
        let weighted = || upstream.servers.iter().enumerate().filter(|(_, server)| server.weight > 0);
        if let (Some((index, _)), None) = (weighted().next(), weighted().nth(1)) {
            return Self::Single(index);
        }
        let unit = weighted().fold(0, |unit, (_, server)| common_divisor(unit, server.weight)).max(1);
        let backends = |label: fn(usize, &config::UpstreamServer) -> u64| -> BTreeSet<Backend> {
            let backend = |(index, server): (usize, &config::UpstreamServer)| Backend {
                addr: address(label(index, server), index),
                weight: server.weight / unit,
                ext: Default::default(),
            };
            weighted().map(backend).collect()
        };
        let in_turn = || backends(|index, _| index as u64);
        match upstream.balance {
            config::Balance::RoundRobin => Self::Turns(Arc::new(RoundRobin::build(&in_turn()))),
            config::Balance::LeastConnections => Self::Least(Arc::new(RoundRobin::build(&in_turn()))),
            config::Balance::Random => Self::Dice(Arc::new(Random::build(&in_turn()))),
            // Its place depends on nothing but its name: a key keeps its server when another one is struck off the list.
            config::Balance::Consistent(_) => {
                Self::Ring(Arc::new(Consistent::build(&backends(|_, server| place(&server.to_string())))))
            }
        }
    }

    /// The first server that `accept` takes; `None` when the search took too long.
    pub fn find(&self, key: &[u8], accept: impl FnMut(usize) -> bool) -> Option<usize> {
        match self {
            Self::Single(index) => Some(*index).filter(|index| { accept }(*index)),
            Self::Turns(selection) | Self::Least(selection) => first(selection, key, accept),
            Self::Dice(selection) => first(selection, key, accept),
            Self::Ring(selection) => first(selection, key, accept),
        }
    }

    /// How well `server` goes with `key`: the highest gets it, whoever else is there. Without a ring, chance decides.
    pub fn rank(&self, key: &[u8], server: &str) -> u64 {
        match self {
            Self::Ring(_) => ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one((key, server)),
            Self::Single(_) | Self::Turns(_) | Self::Least(_) | Self::Dice(_) => fastrand::u64(..),
        }
    }
}

fn first<S>(selection: &Arc<S>, key: &[u8], mut accept: impl FnMut(usize) -> bool) -> Option<usize>
where
    S: BackendSelection,
    S::Iter: BackendIter,
{
    let mut servers = selection.iter(key);
    (0..LONGEST).find_map(|_| servers.next().and_then(index).filter(|index| accept(*index)))
}

/// The same for all processes and versions.
fn place(server: &str) -> u64 {
    let digest = digest(&SHA256, server.as_bytes());
    digest.as_ref().iter().take(8).fold(0, |bits, byte| bits << 8 | u64::from(*byte))
}

/// Names are resolved when a connection is opened, so pingora knows a server by a label, written as an address of the
/// discard prefix 100::/64 (RFC 6666). The index stands where the ring does not look: in the scope.
fn address(label: u64, index: usize) -> BackendAddr {
    let bits = (0x0100_u128 << 112) | u128::from(label);
    let scope = u32::try_from(index).unwrap_or(u32::MAX);
    BackendAddr::Inet(SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::from_bits(bits), 1, 0, scope)))
}

fn index(backend: &Backend) -> Option<usize> {
    match &backend.addr {
        BackendAddr::Inet(SocketAddr::V6(address)) => usize::try_from(address.scope_id()).ok(),
        _ => None,
    }
}

fn common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

//! Which server of an upstream gets a request: weighted round robin by pingora-load-balancing.

use std::collections::BTreeSet;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::task::{Context, Poll, Waker};

use pingora::lb::selection::RoundRobin;
use pingora::lb::{Backend, Backends, LoadBalancer, discovery::Static};
use pingora::protocols::l4::socket::SocketAddr as BackendAddr;

use crate::config;

/// The servers of one upstream in turn, each as often as its weight says.
pub struct Balance {
    /// `None` when there is nothing to choose.
    turns: Option<LoadBalancer<RoundRobin>>,
}

/// Why there is no balance.
#[derive(Debug, thiserror::Error)]
#[error("the servers of upstream {upstream} cannot be balanced")]
pub struct Error {
    upstream: String,
}

impl Balance {
    /// Servers of weight 0 are left out.
    ///
    /// # Errors
    /// When pingora-load-balancing refuses the set, which a valid configuration never makes it do.
    pub fn new(upstream: &config::Upstream) -> Result<Self, Error> {
        if upstream.servers.len() == 1 {
            return Ok(Self { turns: None });
        }
        let weighted = upstream.servers.iter().enumerate().filter(|(_, server)| server.weight > 0);
        let backends: BTreeSet<Backend> = weighted
            .map(|(index, server)| Backend {
                addr: BackendAddr::Inet(label(index)),
                weight: server.weight,
                ext: Default::default(),
            })
            .collect();
        let turns = LoadBalancer::from_backends(Backends::new(Static::new(backends)));
        // A static set is there at the first poll.
        match std::pin::pin!(turns.update()).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) | Poll::Pending => return Err(Error { upstream: upstream.name.clone() }),
        }
        Ok(Self { turns: Some(turns) })
    }

    /// The index of the next server that is not among `tried`.
    pub fn next(&self, tried: &[usize]) -> Option<usize> {
        let Some(turns) = &self.turns else { return tried.is_empty().then_some(0) };
        let fresh = |backend: &Backend, _| index(backend).is_some_and(|index| !tried.contains(&index));
        turns.select_with(b"", 256, fresh).as_ref().and_then(index)
    }
}

/// Names are resolved when a connection is opened, so the balancer knows a server by its index, written as an address
/// of the discard prefix 100::/64 (RFC 6666).
fn label(index: usize) -> SocketAddr {
    let bits = (0x0100_u128 << 112) | index as u128;
    SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::from_bits(bits), 1, 0, 0))
}

fn index(backend: &Backend) -> Option<usize> {
    match &backend.addr {
        BackendAddr::Inet(SocketAddr::V6(address)) => usize::try_from(address.ip().to_bits() & 0xffff_ffff).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{HostPolicy, Protocol, ServerAddress, Upstream, UpstreamServer, UpstreamTimeouts, UpstreamTls};
    use std::time::Duration;

    fn upstream(weights: &[usize]) -> Upstream {
        let timeouts = UpstreamTimeouts { connect: Duration::ZERO, response: Duration::ZERO, idle: Duration::ZERO };
        let server = |weight: &usize| UpstreamServer {
            address: ServerAddress::Tcp { host: "app".into(), port: 80 },
            tls: false,
            weight: *weight,
        };
        let servers = weights.iter().map(server).collect();
        Upstream {
            name: "app".into(),
            servers,
            balance: config::Balance::RoundRobin,
            health: None,
            timeouts,
            protocol: Protocol::Http1,
            host: HostPolicy::Keep,
            tls: UpstreamTls::default(),
        }
    }

    #[test]
    fn turns_follow_the_weights() {
        let balance = Balance::new(&upstream(&[3, 0, 1])).unwrap();
        let mut count = [0; 3];
        for _ in 0..400 {
            count[balance.next(&[]).unwrap()] += 1;
        }
        assert_eq!(count, [300, 0, 100]);
    }

    #[test]
    fn no_server_is_tried_twice() {
        let balance = Balance::new(&upstream(&[1, 1])).unwrap();
        let first = balance.next(&[]).unwrap();
        let second = balance.next(&[first]).unwrap();
        assert_ne!(first, second);
        assert_eq!(balance.next(&[first, second]), None);
        let single = Balance::new(&upstream(&[1])).unwrap();
        assert_eq!((single.next(&[]), single.next(&[0])), (Some(0), None));
    }
}

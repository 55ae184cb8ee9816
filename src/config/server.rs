//! `server`, resolved: where the gateway listens, and within which bounds.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use super::Network;

/// `server`.
#[derive(Clone, Debug)]
pub struct Server {
    /// At least one.
    pub listen: Vec<Listener>,
    /// Worker threads.
    pub workers: NonZeroUsize,
    /// Peers whose X-Forwarded-* headers are believed.
    pub trusted_proxies: Vec<Network>,
    /// How long each phase of a connection may take.
    pub timeouts: ServerTimeouts,
    /// How much a request may bring.
    pub limits: Limits,
    /// Certificates; there when a listener speaks TLS.
    pub tls: Option<Tls>,
}

/// One entry of `server.listen`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where.
    pub address: Address,
    /// Whether it speaks TLS, with the certificates of `server.tls`.
    pub tls: bool,
    /// Whether each connection begins with a PROXY protocol header, which only peers of `trusted_proxies` may send.
    pub proxy_protocol: bool,
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// An address and port.
    Tcp(SocketAddr),
    /// A UNIX socket; relative to the folder of gateway.yaml.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// `server.tls`. The files are read when the listeners are built, and again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// At least one; the first is shown to clients that name no host, or one that no certificate is for.
    pub certificates: Vec<Certificate>,
    /// Authorities (PEM) of which every client must show a certificate.
    pub client_ca: Option<PathBuf>,
}

/// One entry of `server.tls.certificates`. Relative to the folder of gateway.yaml.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The chain, PEM, the server's own first.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// `server.timeouts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerTimeouts {
    /// From the first byte of a request to the end of its header section.
    pub header: Duration,
    /// Between two requests of a kept connection, and while a client takes nothing of its answer.
    pub idle: Duration,
    /// Between two reads of a request body that is forwarded; for the whole body of a request to an own endpoint.
    pub body: Duration,
    /// The least that a request body must bring, in bytes a second; 0 is no minimum.
    pub body_rate: u64,
    /// How long a stopping gateway waits for requests in flight.
    pub drain: Duration,
}

/// `server.limits.connections`, when it is not given.
pub const DEFAULT_CONNECTIONS: usize = 50_000;

/// `server.limits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open client connections. When full, those of the largest holder give way, idle before slow ones.
    pub connections: usize,
    /// Open connections of one client address (IPv6: of one /64); 0 is no limit.
    pub per_address: usize,
    /// Largest header section of a request, in bytes.
    pub header_bytes: usize,
    /// Largest request body that is forwarded, in bytes.
    pub body: u64,
}

/// Descriptors for everything else: listeners, the store, log, threads.
const SPARE_FILES: usize = 100;

impl Limits {
    /// How many client connections `files` descriptors are enough for: every third may have its upstream's beside its
    /// own. Most kept connections are idle.
    pub fn connections_within(files: usize) -> usize {
        (files.saturating_sub(SPARE_FILES) / 4).saturating_mul(3).max(1)
    }

    /// How many files these many client connections need.
    pub fn files_for(connections: usize) -> usize {
        (connections / 3).saturating_mul(4).saturating_add(SPARE_FILES)
    }

    /// How many connections to upstreams `files` descriptors leave.
    pub fn upstream_connections_within(&self, files: usize) -> usize {
        let clients = self.connections.min(Self::connections_within(files));
        files.saturating_sub(SPARE_FILES).saturating_sub(clients).max(1)
    }
}

/// `admin.allow` and `admin.hosts`: who may read more than /livez and /readyz.
#[derive(Clone, Debug)]
pub struct AdminAccess {
    /// Peers, by the address of their sockets.
    pub allow: Vec<Network>,
    /// Lower case; `*.` in front stands for one label or more.
    pub hosts: Vec<String>,
}

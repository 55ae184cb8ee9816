//! `upstreams`, resolved: the services behind the gateway.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// `upstreams.NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// The key in the file.
    pub name: String,
    /// At least one, at least one of positive weight.
    pub servers: Vec<UpstreamServer>,
    /// How long each phase of an exchange may take.
    pub timeouts: UpstreamTimeouts,
    /// Which server gets a request.
    pub balance: Balance,
    /// Active health checks; `None`: every server counts as healthy until requests fail.
    pub health: Option<Health>,
    /// What the servers speak.
    pub protocol: Protocol,
    /// Which Host the upstream sees.
    pub host: HostPolicy,
    /// How servers with `https://` are verified.
    pub tls: UpstreamTls,
    /// Open connections to its servers together; `None`: as many as there are descriptors for.
    pub max_connections: Option<usize>,
}

/// `upstreams.NAME.balance`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// In turn, by weight.
    RoundRobin,
    /// The one with the fewest requests in flight, in proportion to its weight.
    LeastConnections,
    /// At random, by weight.
    Random,
    /// The same key finds the same server, as long as that is healthy.
    Consistent(HashKey),
}

/// `upstreams.NAME.balance.consistent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// Whose token it is; without one, the client's address.
    Subject,
    /// The client's address.
    Address,
}

/// `upstreams.NAME.health`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Asked with GET, and any 2xx or 3xx is good; `None`: a connection that opens is good.
    pub path: Option<String>,
    /// Between two checks of one server; also how long a check may take.
    pub every: Duration,
    /// Good checks in a row that bring a server back.
    pub up: u32,
    /// Failed checks in a row that take a server out.
    pub down: u32,
}

/// `upstreams.NAME.protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2: by ALPN with TLS, by prior knowledge without.
    H2,
}

/// `upstreams.NAME.tls`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Authorities (PEM) that are trusted instead of the system's; relative to the folder of gateway.yaml.
    pub ca: Option<PathBuf>,
    /// Accept any certificate.
    pub insecure_skip_verify: bool,
}

/// One server of an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamServer {
    /// Where it listens.
    pub address: ServerAddress,
    /// Whether it speaks TLS (`https://`).
    pub tls: bool,
    /// Share of the requests; 0 gets none.
    pub weight: usize,
}

/// Where a server of an upstream listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServerAddress {
    /// By name or address literal (IPv6 without brackets), and port.
    Tcp {
        /// The name.
        host: String,
        /// The port.
        port: u16,
    },
    /// A UNIX socket; relative to the folder of gateway.yaml.
    Unix(PathBuf),
}

impl UpstreamServer {
    /// `host:port` as it stands in a Host field: IPv6 in brackets, no default port; `localhost` for a UNIX socket.
    pub fn authority(&self) -> String {
        let ServerAddress::Tcp { host, port } = &self.address else { return "localhost".into() };
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let default = if self.tls { 443 } else { 80 };
        if *port == default { host } else { format!("{host}:{port}") }
    }
}

impl fmt::Display for UpstreamServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        match &self.address {
            ServerAddress::Tcp { .. } => write!(f, "{scheme}://{}", self.authority()),
            ServerAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// `upstreams.NAME.timeouts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamTimeouts {
    /// To open a connection.
    pub connect: Duration,
    /// From the last part of the request to the response's header section.
    pub response: Duration,
    /// How long no byte may come: between two parts of a response body, and on an unused connection.
    pub idle: Duration,
}

/// `upstreams.NAME.host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPolicy {
    /// As the client sent it.
    Keep,
    /// The server's own `host:port`.
    Upstream,
    /// This one.
    Name(String),
}

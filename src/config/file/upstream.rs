//! `upstreams` as written.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::scalar::{Choice, Text, Time};
use crate::config::shorthand::{Backend, Balance};

/// A service behind the gateway.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Upstream {
    /// Its servers, such as `http://127.0.0.1:5000`, `https://10.0.0.7` or `unix:/run/app.sock`.
    pub servers: Vec<Backend>,
    /// Which server gets a request: `round_robin`, `least_connections`, `random` or `{consistent: subject}`.
    #[schemars(extend("default" = "round_robin"))]
    pub balance: Option<Balance>,
    /// Checks of each server; left out, all count as healthy until requests fail.
    pub health: Option<Health>,
    /// How long each phase of an exchange may take.
    pub timeouts: Option<UpstreamTimeouts>,
    /// What the servers speak: `http1`, or `h2` by ALPN with `https://` and by prior knowledge without.
    #[schemars(extend("default" = "http1"))]
    pub protocol: Option<Choice<Protocol>>,
    /// Which Host it sees: `keep` the client's, its own (`upstream`), or a name.
    #[schemars(extend("default" = "keep"))]
    pub host: Option<Text>,
    /// How servers with `https://` are verified.
    pub tls: Option<Tls>,
    /// Open connections to its servers together, of all workers; left out, as many as there are descriptors for. A request
    /// that needs one more waits for up to `timeouts.connect`, then gets 503.
    pub max_connections: Option<u64>,
}

/// Which server gets a request, in one word.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Dealing {
    /// In turn, by weight.
    RoundRobin,
    /// The one with the fewest requests in flight.
    LeastConnections,
    /// At random, by weight.
    Random,
}

/// The same key finds the same server, as long as that is healthy.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Consistent {
    /// Whose token it is (without one, the client's address), or the client's address.
    pub consistent: Choice<HashKey>,
}

/// What finds the server.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum HashKey {
    Subject,
    Address,
}

/// Checks of each server.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Health {
    /// Asked with GET, and any 2xx or 3xx is good; left out, a connection that opens is good.
    pub path: Option<Text>,
    /// Between two checks of one server; also how long one may take.
    #[schemars(extend("default" = "5s"))]
    pub every: Option<Time>,
    /// Good checks in a row that bring a server back.
    #[schemars(extend("default" = 2))]
    pub up: Option<u64>,
    /// Failed checks in a row that take a server out.
    #[schemars(extend("default" = 3))]
    pub down: Option<u64>,
}

/// What the servers speak.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Protocol {
    Http1,
    H2,
}

/// How servers with `https://` are verified.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "UpstreamTls")]
pub(in crate::config) struct Tls {
    /// Authorities (a PEM file) that are trusted instead of the system's.
    pub ca: Option<Text>,
    /// Accept any certificate: whoever sits between can read and change everything.
    #[schemars(extend("default" = false))]
    pub insecure_skip_verify: Option<bool>,
}

/// How long each phase of an exchange may take.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct UpstreamTimeouts {
    /// To open a connection.
    #[schemars(extend("default" = "2s"))]
    pub connect: Option<Time>,
    /// From the request's end to the response's header section, and between two reads of its body.
    #[schemars(extend("default" = "30s"))]
    pub response: Option<Time>,
    /// How long an unused connection is kept.
    #[schemars(extend("default" = "60s"))]
    pub idle: Option<Time>,
}

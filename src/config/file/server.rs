//! `server` and `admin` as written.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::scalar::{Size, Text, Time, present};
use crate::config::shorthand::Listen;

/// The public listeners and their bounds.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Server {
    /// One address or several, such as `127.0.0.1:8080` or `unix:/run/portcullis.sock`.
    #[schemars(extend("default" = ["127.0.0.1:8080"]))]
    pub listen: Option<Listen>,
    /// Worker threads; 0 is one per core.
    #[schemars(extend("default" = 0))]
    pub workers: Option<u64>,
    /// Peers whose X-Forwarded-* and PROXY protocol headers are believed: addresses and ranges such as `10.0.0.0/8`.
    #[schemars(extend("default" = []))]
    pub trusted_proxies: Option<Vec<Text>>,
    /// How long each phase of a connection may take.
    pub timeouts: Option<ServerTimeouts>,
    /// How many connections there may be, and how much a request may bring.
    pub limits: Option<Limits>,
    /// Certificates for the listeners with `tls: true`.
    pub tls: Option<Tls>,
}

/// An address to listen on, and what is spoken there.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Listener {
    /// Such as `127.0.0.1:8080` or `unix:/run/portcullis.sock`.
    pub address: Text,
    /// Whether it speaks TLS, with the certificates of `server.tls`.
    #[schemars(extend("default" = false))]
    pub tls: Option<bool>,
    /// Whether each connection begins with a PROXY protocol header, which only peers of `server.trusted_proxies` may send.
    #[schemars(extend("default" = false))]
    pub proxy_protocol: Option<bool>,
}

/// Certificates for the listeners with `tls: true`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Tls {
    /// Chosen by the host that a client names; the first is for all others.
    pub certificates: Vec<Certificate>,
    /// Authorities (a PEM file) of which every client must show a certificate.
    pub client_ca: Option<Text>,
}

/// A certificate and its key: PEM files, relative to the folder of this file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Certificate {
    /// The chain, the server's own first.
    pub cert: Text,
    /// Its private key.
    pub key: Text,
}

/// How long each phase of a connection may take.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct ServerTimeouts {
    /// For the header section of a request.
    #[schemars(extend("default" = "10s"))]
    pub header: Option<Time>,
    /// Between two requests of a kept connection.
    #[schemars(extend("default" = "75s"))]
    pub idle: Option<Time>,
    /// Between two reads of a request body that is forwarded; for the whole body of a request to the gateway's own
    /// endpoints.
    #[schemars(extend("default" = "30s"))]
    pub body: Option<Time>,
    /// The least that a request body must bring, on average over 10 s of waiting for the client, such as `256B/s`; `off`
    /// is no minimum. A route with `stream: true` or `limits.body: none` is free of it.
    #[schemars(extend("default" = "256B/s"))]
    pub body_rate: Option<Text>,
    /// How long a stopping gateway waits for requests in flight.
    #[schemars(extend("default" = "30s"))]
    pub drain: Option<Time>,
}

/// How many connections there may be, and how much a request may bring.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Limits {
    /// Open client connections; when full, those of the largest holder give way, idle before slow ones.
    #[schemars(extend("default" = 50000))]
    pub connections: Option<u64>,
    /// Open connections of one client address (IPv6: of one /64), each further HTTP/2 stream too; 0 is no limit.
    #[schemars(extend("default" = 0))]
    pub per_address: Option<u64>,
    /// Largest header section.
    #[schemars(extend("default" = "64KiB"))]
    pub header_bytes: Option<Size>,
    /// Largest body that is forwarded.
    #[schemars(extend("default" = "64MiB"))]
    pub body: Option<Size>,
}

/// The operator's listener.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Admin {
    /// Its address and port; `null` turns it off.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "Option<Text>", extend("default" = "127.0.0.1:9180"))]
    pub listen: Option<Option<Text>>,
    /// Peers that may read more than /livez and /readyz: addresses and ranges such as `10.0.0.0/8`. The socket's address
    /// counts, never X-Forwarded-For.
    #[schemars(extend("default" = ["127.0.0.0/8", "::1"]))]
    pub allow: Option<Vec<Text>>,
    /// Hosts by which these may ask, beside IP addresses and localhost, such as `gateway.internal` or `*.internal`.
    #[schemars(extend("default" = []))]
    pub hosts: Option<Vec<Text>>,
}

//! `tokens.trusted`, resolved: whose tokens are taken beside our own.

use std::path::PathBuf;
use std::time::Duration;

use crate::secret::Secret;

/// What a rule calls our own tokens among issuers.
pub const LOCAL: &str = "local";

/// One entry of `tokens.trusted`.
#[derive(Clone, Debug)]
pub struct Trusted {
    /// `iss` of its tokens.
    pub issuer: String,
    /// What verifies them.
    pub keys: TrustedKeys,
    /// They must be for one of these; empty: any.
    pub audience: Vec<String>,
    /// Which claim holds the audience: a name, or a path with dots.
    pub audience_claim: String,
    /// Their `alg`; empty: whatever fits the key.
    pub algorithms: Vec<String>,
    /// Which claim names the user: a name, or a path with dots.
    pub subject_claim: String,
    /// Which claim holds the roles: a name, or a path with dots.
    pub roles_claim: String,
}

/// Where the keys of a trusted issuer come from.
#[derive(Clone, Debug)]
pub enum TrustedKeys {
    /// A JSON Web Key Set that is fetched.
    Url(KeySetUrl),
    /// A JSON Web Key Set that was read from a file.
    Set(String),
    /// A shared secret, for HMAC.
    Secret(Secret),
}

/// An address of a JSON Web Key Set.
#[derive(Clone, Debug)]
pub struct KeySetUrl {
    /// As it was written.
    pub text: String,
    /// Whether it is https.
    pub tls: bool,
    /// A name, or an address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Path and query.
    pub target: String,
    /// PEM file of the authorities that are trusted instead of the system's.
    pub ca: Option<PathBuf>,
    /// Through which it is fetched.
    pub proxy: Option<Proxy>,
}

/// An HTTP proxy that opens tunnels (CONNECT).
#[derive(Clone, Debug)]
pub struct Proxy {
    /// A name, or an address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The value of Proxy-Authorization.
    pub authorization: Option<Secret>,
}

/// Equal where the same keys are: by whichever way.
impl PartialEq for KeySetUrl {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl KeySetUrl {
    /// How often it is fetched.
    pub const EVERY: Duration = Duration::from_secs(600);

    /// As `Host` has it.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == if self.tls { 443 } else { 80 } { host } else { format!("{host}:{}", self.port) }
    }
}

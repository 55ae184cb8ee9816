//! The configuration: a valid [`Config`], the only form in which the rest of the program meets `gateway.yaml`.
//!
//! Two types on purpose: `file.rs` is the file as written, `resolve.rs` turns it into what stands here and collects
//! every problem on the way, so that holding a `Config` is proof that its parts fit together.

mod problem;
mod file;
mod scalar;
mod shorthand;
mod form;
mod key;
mod locate;
mod spelling;
mod advice;
mod resolve;
mod reader;
mod expand;
mod units;
mod host;
mod socket;
mod origin;
mod network;
mod pattern;
mod server;
mod upstream;
mod route;
mod trusted;
mod change;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use crate::model::ResponseStyle;
use crate::secret::Secret;

pub use change::needs_restart;
pub use network::Network;
pub use pattern::{PathPattern, Segment};
pub use problem::{Error, Problem, Warning};
pub use route::{Auth, Cors, EncodedSlash, NO_LIMIT, OnExpiry, Rate, Route, RouteLimits, Rule};
pub use server::{
    Address, AdminAccess, Certificate, DEFAULT_CONNECTIONS, Limits, Listener, Server, ServerTimeouts, Tls,
};
pub use trusted::{KeySetUrl, LOCAL, Proxy, Trusted, TrustedKeys};
pub use upstream::{
    Balance, HashKey, Health, HostPolicy, Protocol, ServerAddress, Upstream, UpstreamServer, UpstreamTimeouts,
    UpstreamTls,
};

/// All that the gateway was told, checked and complete.
#[derive(Clone, Debug)]
pub struct Config {
    /// The public listener and its bounds.
    pub server: Server,
    /// Where /livez, /readyz, /metrics and /openapi.json are answered; `None` turns the listener off.
    pub admin: Option<SocketAddr>,
    /// Who may read more than /livez and /readyz there.
    pub admin_access: AdminAccess,
    /// What is logged, and how.
    pub log: Log,
    /// Where accounts, sessions and revocations are kept.
    pub store: Store,
    /// How tokens are signed and how long they live.
    pub tokens: Tokens,
    /// The endpoints that the gateway answers itself.
    pub identity: Identity,
    /// The headers that tell an upstream who calls: the built-in ones first, then `identity_headers`.
    pub identity_headers: Vec<IdentityHeader>,
    /// In the order of the file; [`Route::upstream`] points into it.
    pub upstreams: Vec<Upstream>,
    /// In the order of the file.
    pub routes: Vec<Route>,
    /// What works but deserves a loud word, such as a short secret in flask mode.
    pub warnings: Vec<Warning>,
    /// All other files that it names: secrets, certificates, authorities. To be watched.
    pub files: Vec<PathBuf>,
}

/// `log`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// How a line looks.
    pub format: LogFormat,
    /// The least severe level that is written.
    pub level: LogLevel,
    /// One line a request.
    pub access: bool,
    /// Where the audit goes.
    pub audit: AuditTarget,
}

/// `log.audit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditTarget {
    /// Through the log, whatever its level.
    Log,
    /// To this file, at its end. Relative to the folder of gateway.yaml.
    File(PathBuf),
}

/// `log.format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON on a pipe.
    Auto,
    /// Readable lines.
    Text,
    /// One JSON object a line.
    Json,
}

/// `log.level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Only what needs a person.
    Error,
    /// And what may.
    Warn,
    /// And the course of things (the default).
    Info,
    /// And the reasons.
    Debug,
    /// And everything else.
    Trace,
}

/// `store`.
#[derive(Clone, Debug)]
pub struct Store {
    /// Which store.
    pub location: StoreLocation,
    /// How long the store may be unheard before protected routes answer 503.
    pub max_stale: Duration,
    /// What happens then.
    pub on_stale: OnStale,
    /// Encrypts the signing keys in it; at least 32 bytes.
    pub encryption_key: Option<Secret>,
}

/// `store.url`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreLocation {
    /// An embedded database: this file, made when it is missing. Relative to the folder of gateway.yaml.
    Sqlite(PathBuf),
}

/// `store.on_stale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStale {
    /// 503 on protected routes.
    Refuse,
    /// Go on with the revocations that are known.
    Serve,
}

/// `tokens`.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// The shared HS256 secret, which verifies whatever the algorithm is, and signs with HS256; `None`: all keys are made
    /// here and kept in the store.
    pub secret: Option<Secret>,
    /// What new tokens are signed with.
    pub algorithm: Algorithm,
    /// Life of an access token.
    pub access_ttl: Duration,
    /// Life of a refresh token.
    pub refresh_ttl: Duration,
    /// Allowed difference of clocks, for exp, nbf and iat; at most 5 minutes.
    pub leeway: Duration,
    /// `iss`, written and then required.
    pub issuer: Option<String>,
    /// `aud`, written and then required.
    pub audience: Option<String>,
    /// The longest token that is read, in bytes.
    pub max_bytes: usize,
    /// Whose tokens are taken beside our own, each issuer once.
    pub trusted: Vec<Trusted>,
}

/// `tokens.algorithm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC with SHA-256: who can verify can sign. Never published.
    Hs256,
    /// Ed25519.
    EdDsa,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// RSA with SHA-256, as PKCS #1 v1.5 has it.
    Rs256,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Hs256, Self::EdDsa, Self::Es256, Self::Rs256];

    /// As in a token's `alg`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }

    /// Whether others can verify what they cannot sign, by a published key.
    pub const fn is_public(self) -> bool {
        !matches!(self, Self::Hs256)
    }
}

/// `identity`.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Put before the endpoints' paths; empty, or `/auth` and the like, without a slash at the end.
    pub prefix: String,
    /// The shape of answers.
    pub responses: ResponseStyle,
    /// Whether anyone may register.
    pub registration: Registration,
    /// Who may use /users.
    pub users: UsersAccess,
    /// How refresh tokens rotate; `None`: one lasts until it expires.
    pub refresh_rotation: Option<RefreshRotation>,
    /// Rules for passwords.
    pub password: Password,
    /// How often a password may be guessed.
    pub attempts: Attempts,
    /// Live sessions that an account may have; 1 to 10,000.
    pub sessions_per_account: u32,
    /// Which pages of other origins may call the endpoints.
    pub cors: Option<Cors>,
}

/// `identity.registration`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    /// Anyone may register.
    Open,
    /// Accounts come from the command line only.
    Closed,
}

/// `identity.users`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsersAccess {
    /// Accounts with the role `admin`.
    Admin,
    /// Nobody: the endpoint does not exist.
    Off,
    /// Whoever asks, as in the tutorial (flask mode only).
    Anyone,
}

/// `identity.refresh_rotation`, enabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefreshRotation {
    /// For how long after it was turned in a refresh token gets the same successor again, so that racers all win.
    pub grace: Duration,
}

/// `identity.attempts`: so many failures are free, then each doubles the wait. `None`: not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempts {
    /// Of one account, from addresses that are not known to it together.
    pub per_account: Option<Rate>,
    /// Of one address, registrations too.
    pub per_address: Option<Rate>,
}

/// `identity.password`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Password {
    /// Shortest password, in bytes.
    pub min_length: usize,
    /// Cost of a hash.
    pub argon2: Argon2,
}

/// `identity.password.argon2`: the parameters of argon2id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argon2 {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub iterations: u32,
    /// Lanes.
    pub parallelism: u32,
}

/// One header that carries a claim to the upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityHeader {
    /// What it carries.
    pub source: IdentitySource,
    /// A valid field name, as written.
    pub name: String,
}

/// Where the value of an identity header comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentitySource {
    /// `sub`.
    Subject,
    /// `roles`, comma-joined.
    Roles,
    /// `jti`.
    TokenId,
    /// `sid`.
    Session,
    /// `iss` of a foreign token.
    Issuer,
    /// Any claim by its name.
    Claim(String),
}

/// Reads and checks `path`; `env` looks up `${NAME}`.
///
/// # Errors
/// [`Error::Read`], or [`Error::Invalid`] with everything that is wrong.
pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.into(), source })?;
    parse(&text, path, env)
}

/// Like [`load`], for a text that came from elsewhere; `path` names it, and relative paths inside start from its folder.
///
/// # Errors
/// [`Error::Invalid`] with everything that is wrong.
pub fn parse(text: &str, path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Error> {
    let text = without_mark(text);
    let folder = path.parent().unwrap_or(Path::new(""));
    file::File::parse(text)
        .map_err(|problem| resolve::Wrong { problems: vec![problem], files: Vec::new() })
        .and_then(|file| resolve::resolve(file, text, folder, env))
        .map_err(|resolve::Wrong { problems, files }| Error::Invalid { path: path.into(), problems, files })
}

/// The line of `key` in the file at `path`, or of what stands around it: for what is found wrong only later.
pub fn line_of(path: &Path, key: &str) -> Option<usize> {
    let text = std::fs::read_to_string(path).ok()?;
    locate::find(without_mark(&text), &key::Key::of(key)).map(|at| at.line)
}

/// Some editors put a mark in front of UTF-8, which YAML would take for a document of its own.
fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Reads a duration as any key takes it, such as `15m` or `30d`: at most ten years.
pub fn parse_duration(text: &str) -> Option<Duration> {
    units::parse_duration(text).filter(|duration| *duration <= units::LONGEST)
}

/// Writes a duration as one would in the file.
pub fn show_duration(duration: Duration) -> String {
    units::show_duration(duration)
}

/// The JSON Schema of `gateway.yaml`.
pub fn schema() -> serde_json::Value {
    file::File::schema()
}

#[cfg(test)]
mod tests;

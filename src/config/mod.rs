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
mod resolve;
mod reader;
mod expand;
mod units;
mod host;
mod network;
mod pattern;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use crate::model::ResponseStyle;
use crate::model::Role;
use crate::secret::Secret;

pub use network::Network;
pub use pattern::{PathPattern, Segment};
pub use problem::{Error, Problem, Warning};

/// All that the gateway was told, checked and complete.
#[derive(Clone, Debug)]
pub struct Config {
    /// The public listener and its bounds.
    pub server: Server,
    /// Where /livez, /readyz and /metrics are answered; `None` turns the listener off.
    pub admin: Option<SocketAddr>,
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
}

/// `server`.
#[derive(Clone, Debug)]
pub struct Server {
    /// At least one address.
    pub listen: Vec<SocketAddr>,
    /// Worker threads.
    pub workers: NonZeroUsize,
    /// Peers whose X-Forwarded-* headers are believed.
    pub trusted_proxies: Vec<Network>,
    /// How long each phase of a connection may take.
    pub timeouts: ServerTimeouts,
    /// How much a request may bring.
    pub limits: Limits,
}

/// `server.timeouts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerTimeouts {
    /// From the first byte of a request to the end of its header section.
    pub header: Duration,
    /// Between two requests of a kept connection, and while a client takes nothing of its answer.
    pub idle: Duration,
    /// Between two reads of a request body.
    pub body: Duration,
    /// How long a stopping gateway waits for requests in flight.
    pub drain: Duration,
}

/// `server.limits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest header section of a request, in bytes.
    pub header_bytes: usize,
    /// Largest request body that is forwarded, in bytes.
    pub body: u64,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// Which store.
    pub location: StoreLocation,
    /// How long the store may be unheard before protected routes answer 503.
    pub max_stale: Duration,
    /// What happens then.
    pub on_stale: OnStale,
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
    /// The shared HS256 secret; `None`: a key is made at the first start and kept in the store.
    pub secret: Option<Secret>,
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
    /// Rules for passwords.
    pub password: Password,
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

/// `upstreams.NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// The key in the file.
    pub name: String,
    /// At least one, at least one of positive weight.
    pub servers: Vec<UpstreamServer>,
    /// How long each phase of an exchange may take.
    pub timeouts: UpstreamTimeouts,
    /// Which Host the upstream sees.
    pub host: HostPolicy,
}

/// One server of an upstream. Plain HTTP/1.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamServer {
    /// Host name or address literal (IPv6 without brackets).
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Share of the requests; 0 gets none.
    pub weight: usize,
}

impl UpstreamServer {
    /// `host:port` as it stands in a Host field: IPv6 in brackets, no default port.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == 80 { host } else { format!("{host}:{}", self.port) }
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

/// One entry of `routes`.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its name in logs and metrics: `host` (when there is one) and `path` as written, for example `/reports/*`.
    pub id: String,
    /// Lower case, without port and trailing dot; `None`: any host.
    pub host: Option<String>,
    /// The path, parsed.
    pub path: PathPattern,
    /// Upper case; empty: any method.
    pub methods: Vec<String>,
    /// Index into [`Config::upstreams`].
    pub upstream: usize,
    /// Who may pass.
    pub auth: Auth,
    /// Removed from the path before it is sent; always a prefix of `path` on a segment boundary, without slash at the end.
    pub strip_prefix: Option<String>,
    /// What a `%2F` in the path means.
    pub encoded_slash: EncodedSlash,
    /// Whether `Authorization` is passed on.
    pub forward_authorization: bool,
}

/// `routes[].auth`.
#[derive(Clone, Debug, PartialEq)]
pub enum Auth {
    /// No check at all.
    Public,
    /// A good token is passed on, none is fine, a bad one is refused.
    Optional,
    /// A good token that meets the rule.
    Required(Rule),
}

/// What a token must bring beyond being good; all parts together. The default asks nothing more.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rule {
    /// Any of these; empty: not asked.
    pub roles: Vec<Role>,
    /// Each claim must equal the value, or be an array that holds it.
    pub claims: Vec<(String, serde_json::Value)>,
    /// Whether `fresh` must be true.
    pub fresh: bool,
}

/// `routes[].encoded_slash`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodedSlash {
    /// `%2F` is refused.
    Reject,
    /// `%2F` is data within a segment, and is sent as it came.
    Preserve,
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
    let folder = path.parent().unwrap_or(Path::new(""));
    file::File::parse(text)
        .map_err(|problem| vec![problem])
        .and_then(|file| resolve::resolve(file, text, folder, env))
        .map_err(|problems| Error::Invalid { path: path.into(), problems })
}

/// The JSON Schema of `gateway.yaml`.
pub fn schema() -> serde_json::Value {
    file::File::schema()
}

#[cfg(test)]
mod tests;

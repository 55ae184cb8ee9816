//! `gateway.yaml` as written: every key that may stand in it, and nothing checked beyond its form.

mod server;
mod upstream;
mod route;
mod trusted;

use schemars::JsonSchema;
use serde::Deserialize;

use super::form;
use super::problem::Problem;
use super::scalar::{Choice, Frequency, Hidden, Named, Size, Text, Time};

pub(super) use route::{Access, Cors, EncodedSlash, OnExpiry, Route, RouteLimits, Rule};
pub(super) use server::{Admin, Limits, Listener, Server, ServerTimeouts, Tls};
pub(super) use trusted::Trusted;
pub(super) use upstream::{
    Consistent, Dealing, HashKey, Health, Protocol, Tls as UpstreamTls, Upstream, UpstreamTimeouts,
};

/// The configuration of Portcullis, a reverse proxy that checks who calls.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "gateway.yaml")]
pub(super) struct File {
    /// The public listeners and their bounds.
    pub server: Option<Server>,
    /// The operator's listener: /livez, /readyz, /metrics, /openapi.json.
    pub admin: Option<Admin>,
    /// What is logged, and how.
    pub log: Option<Log>,
    /// Where accounts, sessions and revocations are kept.
    pub store: Option<Store>,
    /// How tokens are signed and how long they live.
    pub tokens: Option<Tokens>,
    /// The endpoints that the gateway answers itself.
    pub identity: Option<Identity>,
    /// Claims that are sent to the upstream beyond the built-in ones: `claim: Header-Name`.
    pub identity_headers: Option<Named<Text>>,
    /// The services behind the gateway, by name.
    pub upstreams: Option<Named<Upstream>>,
    /// Which request goes where, and who may send it. What has no route is 404.
    pub routes: Option<Vec<Route>>,
}

impl File {
    /// Reads the text of a file. An empty one is valid.
    ///
    /// # Errors
    /// The first error of form, with its line and column.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        form::read(text)
    }

    /// The JSON Schema of the file.
    pub fn schema() -> serde_json::Value {
        schemars::schema_for!(File).to_value()
    }
}

/// What is logged, and how.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Log {
    /// `auto` is text on a terminal and JSON on a pipe.
    #[schemars(extend("default" = "auto"))]
    pub format: Option<Choice<LogFormat>>,
    /// The least severe level that is written.
    #[schemars(extend("default" = "info"))]
    pub level: Option<Choice<LogLevel>>,
    /// Whether each request gets a line.
    #[schemars(extend("default" = true))]
    pub access: Option<bool>,
    /// Where logins, logouts and changes of accounts are told: `log`, or a file, relative to the folder of this file.
    #[schemars(extend("default" = "log"))]
    pub audit: Option<Text>,
}

/// How a line looks.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum LogFormat {
    Auto,
    Text,
    Json,
}

/// The least severe level that is written.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// Where accounts, sessions and revocations are kept.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Store {
    /// `sqlite:` and a path, relative to the folder of this file.
    #[schemars(extend("default" = "sqlite:portcullis.db"))]
    pub url: Option<Text>,
    /// How long the store may be unheard before protected routes answer 503.
    #[schemars(extend("default" = "30s"))]
    pub max_stale: Option<Time>,
    /// What happens then: `refuse`, or `serve` with the revocations that are known.
    #[schemars(extend("default" = "refuse"))]
    pub on_stale: Option<Choice<OnStale>>,
    /// Encrypts the signing keys in the store: at least 32 bytes.
    pub encryption_key: Option<Hidden>,
    /// The same, read from a file.
    pub encryption_key_file: Option<Text>,
}

/// What a store that is unheard for too long means.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum OnStale {
    Refuse,
    Serve,
}

/// How tokens are signed and how long they live.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Tokens {
    /// Shared HS256 secret of at least 32 bytes; left out, keys are made and kept in the store. With another `algorithm` it
    /// only verifies.
    pub secret: Option<Hidden>,
    /// The same, read from a file.
    pub secret_file: Option<Text>,
    /// What new tokens are signed with. All but `HS256` are published at /.well-known/jwks.json.
    #[schemars(extend("default" = "HS256"))]
    pub algorithm: Option<Choice<Algorithm>>,
    /// Life of an access token.
    #[schemars(extend("default" = "15m"))]
    pub access_ttl: Option<Time>,
    /// Life of a refresh token.
    #[schemars(extend("default" = "30d"))]
    pub refresh_ttl: Option<Time>,
    /// Allowed difference of clocks, at most `5m`.
    #[schemars(extend("default" = "30s"))]
    pub leeway: Option<Time>,
    /// `iss`, written and then required.
    pub issuer: Option<Text>,
    /// `aud`, written and then required.
    pub audience: Option<Text>,
    /// The longest token that is read, at most `32KiB`. 170 groups of Entra take 9,350 bytes.
    #[schemars(extend("default" = "8KiB"))]
    pub max_bytes: Option<Size>,
    /// Other issuers whose tokens are taken, on routes whose rule names them.
    pub trusted: Option<Vec<Trusted>>,
}

/// What tokens are signed with.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
pub(super) enum Algorithm {
    #[serde(rename = "HS256")]
    Hs256,
    #[serde(rename = "EdDSA")]
    EdDsa,
    Ed25519,
    #[serde(rename = "ES256")]
    Es256,
    #[serde(rename = "RS256")]
    Rs256,
}

/// The endpoints that the gateway answers itself.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Identity {
    /// Put before their paths, such as `/auth`.
    #[schemars(extend("default" = ""))]
    pub prefix: Option<Text>,
    /// `flask` answers as the Flask tutorial and flask-jwt-extended do.
    #[schemars(extend("default" = "standard"))]
    pub responses: Option<Choice<Responses>>,
    /// `closed`: accounts come from the command line only.
    #[schemars(extend("default" = "open"))]
    pub registration: Option<Choice<Registration>>,
    /// Who may use /users; `anyone` in flask mode only.
    #[schemars(extend("default" = "admin"))]
    pub users: Option<Choice<Users>>,
    /// Which pages of other origins may call them.
    #[schemars(extend("default" = {"origins": []}))]
    pub cors: Option<Cors>,
    /// Whether each refresh gives a new refresh token too.
    pub refresh_rotation: Option<RefreshRotation>,
    /// Rules for passwords.
    pub password: Option<Password>,
    /// How often a password may be guessed: so many failures are free, then each doubles the wait, from 1s to 5m.
    pub attempts: Option<Attempts>,
    /// Live sessions of one account, 1 to 10000. One login more ends the least recently used session of the client address
    /// (IPv6: of the /64) that has most of them.
    #[schemars(extend("default" = 100))]
    pub sessions_per_account: Option<u64>,
}

/// How often a password may be guessed.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Attempts {
    /// Failures of one account that are free; `off` counts none.
    #[schemars(extend("default" = "5/15m"))]
    pub per_account: Option<Frequency>,
    /// Failures and registrations of one address that are free; `off` counts none.
    #[schemars(extend("default" = "50/5m"))]
    pub per_address: Option<Frequency>,
}

/// The shape of answers.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Responses {
    Standard,
    Flask,
}

/// Who may register.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Registration {
    Open,
    Closed,
}

/// Who may use /users.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Users {
    Admin,
    Off,
    Anyone,
}

/// Whether each refresh gives a new refresh token too.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RefreshRotation {
    /// `true`: a refresh token is good for one refresh, and its reuse ends the session.
    #[schemars(extend("default" = false))]
    pub enabled: Option<bool>,
    /// How long after its first use racers still get the same successor, at most `5m`.
    #[schemars(extend("default" = "10s"))]
    pub grace: Option<Time>,
}

/// Rules for passwords.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Password {
    /// Shortest password, in bytes.
    #[schemars(extend("default" = 8))]
    pub min_length: Option<u64>,
    /// Cost of a hash.
    pub argon2: Option<Argon2>,
}

/// The parameters of argon2id.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Argon2 {
    /// Memory of one hash.
    #[schemars(extend("default" = "19MiB"))]
    pub memory: Option<Size>,
    /// Passes over the memory.
    #[schemars(extend("default" = 2))]
    pub iterations: Option<u64>,
    /// Lanes.
    #[schemars(extend("default" = 1))]
    pub parallelism: Option<u64>,
}

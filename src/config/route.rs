//! `routes`, resolved: which request goes where, and who may send it.

use std::num::NonZeroU32;
use std::time::Duration;

use super::PathPattern;
use crate::model::Role;

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
    /// Whether `Sec-WebSocket-Protocol: bearer, <jwt>` is a credential.
    pub websocket_protocol_token: bool,
    /// What the expiry of its token means to a tunnel or stream.
    pub on_expiry: OnExpiry,
    /// Which pages of other origins may call; `None`: preflights are judged like any request.
    pub cors: Option<Cors>,
    /// Whether request bodies are free of `server.timeouts.body_rate`.
    pub stream: bool,
    /// How often and how much.
    pub limits: RouteLimits,
}

/// `routes[].on_expiry`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExpiry {
    /// It ends.
    Close,
    /// It goes on.
    Ignore,
}

/// `routes[].cors` and `identity.cors`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    /// As browsers send them, such as `https://app.example.com`; `*` alone is any.
    pub origins: Vec<String>,
}

/// `routes[].limits.body: none`.
pub const NO_LIMIT: u64 = u64::MAX;

/// `routes[].limits`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteLimits {
    /// Requests of one subject, or of one address where no token is looked at.
    pub requests: Option<Rate>,
    /// Largest request body, in bytes; [`NO_LIMIT`] for `none`; `None`: `server.limits.body`.
    pub body: Option<u64>,
}

/// So many within that time, such as `100/s` or `5/15m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many; also how many at once.
    pub count: NonZeroU32,
    /// In which time.
    pub per: Duration,
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
    /// All of these; empty: not asked.
    pub scopes: Vec<String>,
    /// Each claim, by its name or path, must equal the value, or be an array that holds it.
    pub claims: Vec<(String, serde_json::Value)>,
    /// Whether `fresh` must be true.
    pub fresh: bool,
    /// Whose token it must be: issuers of `tokens.trusted`, and [`LOCAL`](super::LOCAL) for our own; empty: ours.
    pub issuers: Vec<String>,
}

/// `routes[].encoded_slash`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodedSlash {
    /// `%2F` is refused.
    Reject,
    /// `%2F` is data within a segment, and is sent as it came.
    Preserve,
}

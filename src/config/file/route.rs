//! `routes` as written.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::scalar::{Choice, Frequency, Named, Plain, Size, Text};
use crate::config::shorthand::Auth;

/// One route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Route {
    /// Only requests for this host; left out, any.
    pub host: Option<Text>,
    /// Such as `/reports`, `/users/{id}`, or `/files/*` for all below.
    pub path: Text,
    /// Only these; left out, any.
    pub methods: Option<Vec<Text>>,
    /// The name of an upstream.
    pub upstream: Text,
    /// Removed from the path before it is sent.
    pub strip_prefix: Option<Text>,
    /// What a `%2F` in the path means: `reject`, or `preserve` it as data.
    #[schemars(extend("default" = "reject"))]
    pub encoded_slash: Option<Choice<EncodedSlash>>,
    /// Whether `Authorization` is passed on.
    #[schemars(extend("default" = true))]
    pub forward_authorization: Option<bool>,
    /// Whether `Sec-WebSocket-Protocol: bearer, <jwt>` is a credential too.
    #[schemars(extend("default" = false))]
    pub websocket_protocol_token: Option<bool>,
    /// What the expiry of its token means to a tunnel or stream: `close`, or `ignore` it.
    #[schemars(extend("default" = "close"))]
    pub on_expiry: Option<Choice<OnExpiry>>,
    /// Whether request bodies may be slow, as uploads of an open end are: free of `server.timeouts.body_rate`.
    #[schemars(extend("default" = false))]
    pub stream: Option<bool>,
    /// Who may pass: `required`, `public`, `optional`, or a rule.
    #[schemars(extend("default" = "required"))]
    pub auth: Option<Auth>,
    /// Which pages of other origins may call; left out, a preflight is judged like any request.
    pub cors: Option<Cors>,
    /// How often, and how much.
    pub limits: Option<RouteLimits>,
}

/// What the expiry of its token means to a tunnel or stream.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum OnExpiry {
    Close,
    Ignore,
}

/// Which pages of other origins may call.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Cors {
    /// As browsers send them, such as `https://app.example.com`; `*` alone is any.
    pub origins: Vec<Text>,
}

/// How often, and how much.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RouteLimits {
    /// Requests of one subject, or of one client address where no token is looked at, such as `100/s` or `5/15m`.
    pub requests: Option<Frequency>,
    /// Largest body that is forwarded, or `none` for no limit; left out, `server.limits.body`.
    pub body: Option<Size>,
}

/// What a `%2F` in the path means.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum EncodedSlash {
    Reject,
    Preserve,
}

/// Who may pass, in one word.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Access {
    Required,
    Public,
    Optional,
}

/// What a token must bring: all of these.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Rule {
    /// Any of these roles.
    pub roles: Option<Vec<Text>>,
    /// All of these, in `scope` (words) or `scp` (words or a list).
    pub scopes: Option<Vec<Text>>,
    /// Each claim equals the value, or is a list that holds it. A name, or a path with dots such as `realm_access.roles`.
    pub claims: Option<Named<Plain>>,
    /// Whether it must come from a login, not from a refresh.
    pub fresh: Option<bool>,
    /// Whose it must be: issuers of `tokens.trusted`, and `local` for the gateway's own. Left out, only the gateway's own.
    pub issuers: Option<Vec<Text>>,
}

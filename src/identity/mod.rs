//! What the gateway answers itself: a closed list of endpoints, one file a verb. Section 1 of the contract.

mod fields;
mod listing;
mod login;
mod logout;
pub mod openapi;
mod paging;
mod password;
mod refresh;
mod refusal;
mod registration;
mod sessions;
mod trail;
mod users;
mod jwks;

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};
use http::{Method, Response, StatusCode, Uri, request};
use serde_json::{Value, json};

use crate::accounts::Accounts;
use crate::clock::UnixTime;
use crate::config::{self, ServerTimeouts, UsersAccess};
use crate::message::{Body, IncomingBody, Rejection, credential};
use crate::model::ResponseStyle;
use crate::sessions::{Caller, Device, Pair, Sessions};
use crate::telemetry::{audit, redact};
use crate::tokens::TokenType;

pub use listing::ListingLimiter;

use listing::ListingPermit;
use trail::Trail;

/// Characters of a User-Agent that are kept with a session.
const USER_AGENT_CHARS: usize = 256;

/// What the gateway answers itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// POST /registration.
    Registration,
    /// POST /login.
    Login,
    /// POST /token/refresh.
    Refresh,
    /// POST /logout/access.
    LogoutAccess,
    /// POST /logout/refresh.
    LogoutRefresh,
    /// POST /logout.
    Logout,
    /// POST /logout/all.
    LogoutAll,
    /// GET /sessions.
    Sessions,
    /// DELETE /sessions/{id}.
    Session,
    /// POST /password.
    Password,
    /// GET and DELETE /users.
    Users,
    /// GET /.well-known/jwks.json.
    Jwks,
}

impl Endpoint {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Registration,
        Self::Login,
        Self::Refresh,
        Self::LogoutAccess,
        Self::LogoutRefresh,
        Self::Logout,
        Self::LogoutAll,
        Self::Sessions,
        Self::Session,
        Self::Password,
        Self::Users,
        Self::Jwks,
    ];

    /// What stands in a path for any one segment.
    pub const OPEN: &str = "{id}";

    /// Its path without the prefix. The last segment may be [`OPEN`](Self::OPEN).
    pub const fn path(self) -> &'static str {
        match self {
            Self::Registration => "/registration",
            Self::Login => "/login",
            Self::Refresh => "/token/refresh",
            Self::LogoutAccess => "/logout/access",
            Self::LogoutRefresh => "/logout/refresh",
            Self::Logout => "/logout",
            Self::LogoutAll => "/logout/all",
            Self::Sessions => "/sessions",
            Self::Session => "/sessions/{id}",
            Self::Password => "/password",
            Self::Users => "/users",
            Self::Jwks => "/.well-known/jwks.json",
        }
    }

    /// Where it is answered. Others ask for the keys where the standards put them: they never move.
    pub fn place(self, settings: &config::Identity) -> String {
        match self {
            Self::Jwks => self.path().to_owned(),
            moved => format!("{}{}", settings.prefix, moved.path()),
        }
    }

    /// The endpoint at a canonical path, with or without one trailing slash.
    pub fn find(settings: &config::Identity, path: &str) -> Option<Self> {
        let path = path.strip_suffix('/').unwrap_or(path);
        if path == Self::Jwks.path() {
            return Some(Self::Jwks);
        }
        let path = own_part(settings, path)?;
        let fits = |endpoint: &Self| *endpoint != Self::Jwks && endpoint.fit(path).is_some();
        let found = Self::ALL.into_iter().find(fits)?;
        let hidden = found == Self::Users && settings.users == UsersAccess::Off;
        (!hidden).then_some(found)
    }

    /// What stands in `path` for the open segment of this endpoint, empty where it has none; `None`: it does not fit.
    fn fit(self, path: &str) -> Option<&str> {
        match self.path().strip_suffix(Self::OPEN) {
            Some(stem) => path.strip_prefix(stem).filter(|segment| !segment.is_empty() && !segment.contains('/')),
            None => (path == self.path()).then_some(""),
        }
    }

    /// Whether it answers `method`.
    ///
    /// # Errors
    /// `method_not_allowed`.
    pub fn check_method(self, method: &Method) -> Result<(), Rejection> {
        if self.methods().split(", ").any(|known| known == method.as_str()) {
            return Ok(());
        }
        Err(Rejection::MethodNotAllowed(self.methods().to_owned()))
    }

    /// The methods that it answers, as `Allow` lists them.
    pub const fn methods(self) -> &'static str {
        match self {
            Self::Users => "DELETE, GET, HEAD",
            Self::Sessions | Self::Jwks => "GET, HEAD",
            Self::Session => "DELETE",
            Self::Registration
            | Self::Login
            | Self::Refresh
            | Self::LogoutAccess
            | Self::LogoutRefresh
            | Self::Logout
            | Self::LogoutAll
            | Self::Password => "POST",
        }
    }
}

/// A canonical path without the prefix and without one slash at its end.
fn own_part<'a>(settings: &config::Identity, path: &'a str) -> Option<&'a str> {
    let path = path.strip_prefix(settings.prefix.as_str())?;
    Some(path.strip_suffix('/').unwrap_or(path))
}

/// Who asks, as far as the connection tells.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The client's address.
    pub address: IpAddr,
    /// When the request came.
    pub now: UnixTime,
    /// Of the request, as in the access log.
    pub request_id: &'a str,
}

/// The same for those who answer, with what they note.
#[derive(Clone, Copy)]
struct Origin<'a> {
    address: IpAddr,
    now: UnixTime,
    trail: &'a Trail<'a>,
}

/// See the module.
pub struct Identity {
    accounts: Accounts,
    sessions: Arc<Sessions>,
    audit: audit::Writer,
    listings: ListingLimiter,
    settings: config::Identity,
    timeouts: ServerTimeouts,
}

impl Identity {
    /// Builds the part; `listings` is that of the process.
    pub fn new(
        accounts: Accounts,
        sessions: Arc<Sessions>,
        audit: audit::Writer,
        listings: ListingLimiter,
        config: &config::Config,
    ) -> Self {
        let (settings, timeouts) = (config.identity.clone(), config.server.timeouts);
        Self { accounts, sessions, audit, listings, settings, timeouts }
    }

    /// How the endpoints are configured.
    pub fn settings(&self) -> &config::Identity {
        &self.settings
    }

    /// Does what the endpoint promises, and has it in the audit; `path` is the canonical one that it was found at.
    ///
    /// # Errors
    /// The contract's refusals.
    pub async fn answer(
        &self,
        endpoint: Endpoint,
        path: &str,
        asker: Asker<'_>,
        (head, body): (&request::Parts, IncomingBody),
    ) -> Result<Response<Body>, Rejection> {
        endpoint.check_method(&head.method)?;
        let trail = Trail::begin(&self.audit, endpoint.event(&head.method), asker, user_agent(&head.headers));
        let verdict = self.act(endpoint, path, trail.origin(), (head, body)).await;
        trail.end(&verdict);
        verdict
    }

    async fn act(
        &self,
        endpoint: Endpoint,
        path: &str,
        origin: Origin<'_>,
        (head, body): (&request::Parts, IncomingBody),
    ) -> Result<Response<Body>, Rejection> {
        match endpoint {
            Endpoint::Registration => self.register(origin, &head.headers, body).await,
            Endpoint::Login => self.log_in(origin, &head.headers, body).await,
            Endpoint::Refresh => self.refresh(origin, &head.headers).await,
            Endpoint::LogoutAccess => self.log_out(TokenType::Access, origin, &head.headers).await,
            Endpoint::LogoutRefresh => self.log_out(TokenType::Refresh, origin, &head.headers).await,
            Endpoint::Logout => self.log_out_of_session(origin, &head.headers).await,
            Endpoint::LogoutAll => self.log_out_everywhere(origin, &head.headers).await,
            Endpoint::Sessions => self.list_sessions(origin, &head.headers, &head.uri).await,
            Endpoint::Session => {
                let id = own_part(&self.settings, path).and_then(|path| endpoint.fit(path)).unwrap_or_default();
                self.end_session(id, origin, &head.headers).await
            }
            Endpoint::Password => self.change_password(origin, &head.headers, body).await,
            Endpoint::Users if head.method == Method::DELETE => self.delete_users(origin, &head.headers).await,
            Endpoint::Users => self.list_users(origin, &head.headers, &head.uri).await,
            Endpoint::Jwks => Ok(self.jwks()),
        }
    }

    /// The holder of the request's one good token of type `kind`, which is ours.
    fn caller(&self, kind: TokenType, headers: &HeaderMap, origin: Origin<'_>) -> Result<Caller, Rejection> {
        let token = credential::token(credential::field(headers)?)?;
        let signed = self.sessions.open_signed(token)?;
        origin.trail.token(signed.claims());
        Ok(self.sessions.admit_own(signed, kind, origin.now)?)
    }

    fn is_flask(&self) -> bool {
        self.settings.responses == ResponseStyle::Flask
    }
}

fn device(origin: Origin<'_>, headers: &HeaderMap) -> Device {
    Device { address: Some(origin.address.to_string()), user_agent: user_agent(headers) }
}

fn user_agent(headers: &HeaderMap) -> Option<String> {
    headers.get(USER_AGENT).map(|value| {
        let text = String::from_utf8_lossy(value.as_bytes());
        redact::redacted(&text).chars().filter(|c| !c.is_control()).take(USER_AGENT_CHARS).collect()
    })
}

/// The value of a query parameter; the first of several.
fn query_parameter(uri: &Uri, name: &str) -> Option<String> {
    let pairs = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    pairs.into_iter().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

fn with_pair(message: String, pair: Pair) -> Value {
    json!({ "message": message, "access_token": pair.access, "refresh_token": pair.refresh })
}

/// A JSON answer that nobody may keep.
fn answer(status: StatusCode, value: &Value) -> Response<Body> {
    json_response(status, Bytes::from(value.to_string()))
}

/// The same with 200 for a listing, which holds its permit until it is written.
fn listing_answer(value: &Value, permit: ListingPermit) -> Response<Body> {
    json_response(StatusCode::OK, permit.keep_with(value.to_string().into_bytes()))
}

fn json_response(status: StatusCode, bytes: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::Full(bytes));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

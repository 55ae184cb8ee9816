//! What the gateway answers itself: a closed list of endpoints, one file a verb. Section 1 of the contract.

mod fields;
mod login;
mod logout;
mod refresh;
mod refusal;
mod registration;
mod users;
mod jwks;

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};
use http::{Method, Request, Response, StatusCode, Uri};
use serde_json::{Value, json};

use crate::accounts::Accounts;
use crate::clock::UnixTime;
use crate::config::{self, ServerTimeouts, UsersAccess};
use crate::message::{Body, Incoming, Rejection, credential};
use crate::model::ResponseStyle;
use crate::sessions::{Caller, Device, Pair, Sessions};
use crate::tokens::TokenType;

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
    /// GET and DELETE /users.
    Users,
    /// GET /.well-known/jwks.json.
    Jwks,
}

impl Endpoint {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Registration,
        Self::Login,
        Self::Refresh,
        Self::LogoutAccess,
        Self::LogoutRefresh,
        Self::Users,
        Self::Jwks,
    ];

    /// Its path without the prefix.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Registration => "/registration",
            Self::Login => "/login",
            Self::Refresh => "/token/refresh",
            Self::LogoutAccess => "/logout/access",
            Self::LogoutRefresh => "/logout/refresh",
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
        let path = path.strip_prefix(settings.prefix.as_str())?;
        let found = Self::ALL.into_iter().find(|endpoint| endpoint.path() == path && *endpoint != Self::Jwks)?;
        let hidden = found == Self::Users && settings.users == UsersAccess::Off;
        (!hidden).then_some(found)
    }

    /// Whether the path is a logout that this version does not know yet. An application must not be asked for it: whatever
    /// it answers, the token would live on.
    pub fn is_to_come(settings: &config::Identity, path: &str) -> bool {
        let path = path.strip_prefix(settings.prefix.as_str()).unwrap_or_default();
        matches!(path.strip_suffix('/').unwrap_or(path), "/logout" | "/logout/all")
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
            Self::Jwks => "GET, HEAD",
            Self::Registration | Self::Login | Self::Refresh | Self::LogoutAccess | Self::LogoutRefresh => "POST",
        }
    }
}

/// Who asks, as far as the connection tells.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// The client's address.
    pub address: IpAddr,
    /// When the request came.
    pub now: UnixTime,
}

/// See the module.
pub struct Identity {
    accounts: Accounts,
    sessions: Arc<Sessions>,
    settings: config::Identity,
    timeouts: ServerTimeouts,
}

impl Identity {
    /// Builds the part.
    pub fn new(accounts: Accounts, sessions: Arc<Sessions>, config: &config::Config) -> Self {
        Self { accounts, sessions, settings: config.identity.clone(), timeouts: config.server.timeouts }
    }

    /// How the endpoints are configured.
    pub fn settings(&self) -> &config::Identity {
        &self.settings
    }

    /// Does what the endpoint promises.
    ///
    /// # Errors
    /// The contract's refusals.
    pub async fn answer(
        &self,
        endpoint: Endpoint,
        origin: Origin,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Rejection> {
        let (head, body) = request.into_parts();
        endpoint.check_method(&head.method)?;
        match endpoint {
            Endpoint::Registration => self.register(origin, &head.headers, body).await,
            Endpoint::Login => self.log_in(origin, &head.headers, body).await,
            Endpoint::Refresh => self.refresh(origin, &head.headers).await,
            Endpoint::LogoutAccess => self.log_out(TokenType::Access, origin, &head.headers).await,
            Endpoint::LogoutRefresh => self.log_out(TokenType::Refresh, origin, &head.headers).await,
            Endpoint::Users if head.method == Method::DELETE => self.delete_users(origin, &head.headers).await,
            Endpoint::Users => self.list_users(origin, &head.headers, &head.uri).await,
            Endpoint::Jwks => Ok(self.jwks()),
        }
    }

    /// The holder of the request's one good token of type `kind`.
    fn caller(&self, kind: TokenType, headers: &HeaderMap, now: UnixTime) -> Result<Caller, Rejection> {
        let token = credential::token(credential::field(headers)?)?;
        Ok(self.sessions.verify(token, kind, now)?)
    }

    fn is_flask(&self) -> bool {
        self.settings.responses == ResponseStyle::Flask
    }
}

fn device(origin: Origin, headers: &HeaderMap) -> Device {
    let agent = headers.get(USER_AGENT).map(|value| {
        let text = String::from_utf8_lossy(value.as_bytes());
        text.chars().filter(|c| !c.is_control()).take(USER_AGENT_CHARS).collect()
    });
    Device { address: Some(origin.address.to_string()), user_agent: agent }
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
    let mut response = Response::new(Body::Full(Bytes::from(value.to_string())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

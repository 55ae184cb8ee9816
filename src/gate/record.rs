//! What is noted of a request while it passes: for the metrics, the access line, and the ids that upstreams are told.

use std::error::Error;
use std::net::IpAddr;
use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, request};

use crate::clock::UnixTime;
use crate::config::{Config, OnExpiry};
use crate::gate::{cors, verify};
use crate::identity::Endpoint;
use crate::message::{Presence, grpc};
use crate::sessions::Caller;
use crate::telemetry::access::{Buffer, Line};
use crate::telemetry::ids;
use crate::telemetry::metrics::{self, Metrics};
use crate::upstream::Ids;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What answered, or refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Nothing was found.
    Nothing,
    /// An endpoint of the gateway.
    Endpoint(Endpoint),
    /// /auth/verify.
    Verify,
    /// A route, by its index.
    Route(usize),
}

/// The counters of every subject.
pub struct Subjects {
    routes: Vec<metrics::Route>,
    endpoints: Vec<(Endpoint, metrics::Route)>,
    verify: metrics::Route,
    nothing: metrics::Route,
}

impl Subjects {
    /// Asks for all counters once.
    pub fn new(config: &Config, metrics: &Metrics) -> Self {
        let endpoint = |endpoint: Endpoint| (endpoint, metrics.route(&endpoint.place(&config.identity)));
        Self {
            routes: config.routes.iter().map(|route| metrics.route(&route.id)).collect(),
            endpoints: Endpoint::ALL.into_iter().map(endpoint).collect(),
            verify: metrics.route(verify::PATH),
            nothing: metrics.route("none"),
        }
    }

    /// The counters of one.
    pub fn of(&self, subject: Subject) -> &metrics::Route {
        let found = match subject {
            Subject::Nothing => None,
            Subject::Verify => Some(&self.verify),
            Subject::Route(index) => self.routes.get(index),
            Subject::Endpoint(endpoint) => {
                self.endpoints.iter().find(|(known, _)| *known == endpoint).map(|(_, route)| route)
            }
        };
        found.unwrap_or(&self.nothing)
    }
}

/// See the module.
pub struct Record {
    /// The request's method.
    pub method: Method,
    /// What answered.
    pub subject: Subject,
    /// Whose token it was.
    pub caller: Option<Caller>,
    /// What its expiry means to a long answer.
    pub on_expiry: OnExpiry,
    /// What a page of another origin is told.
    pub cors: Option<cors::Verdict>,
    /// Whether a gRPC client asks.
    pub grpc: bool,
    /// Which of the rarer fields it has.
    pub presence: Presence,
    path: String,
    given_id: Option<HeaderValue>,
    made_id: [u8; 32],
    client: IpAddr,
    /// When the request came.
    pub time: UnixTime,
}

impl Record {
    /// Notes what is known at once. The path is copied only for a line that will be written.
    pub fn begin(logged: bool, head: &request::Parts, client: IpAddr, time: UnixTime) -> Self {
        let presence = Presence::of(&head.headers);
        let given_id = if presence.request_id { only(&head.headers, &REQUEST_ID) } else { None };
        let given_id = given_id.filter(|id| ids::is_request_id(id.as_bytes())).cloned();
        let made_id = if given_id.is_none() { ids::new_request_id() } else { [0; 32] };
        Self {
            method: head.method.clone(),
            subject: if verify::is_asked(head.uri.path()) { Subject::Verify } else { Subject::Nothing },
            caller: None,
            on_expiry: OnExpiry::Close,
            cors: None,
            grpc: grpc::is_request(head),
            presence,
            path: if logged { head.uri.path().to_owned() } else { String::new() },
            given_id,
            made_id,
            client,
            time,
        }
    }

    /// The ids that the upstream is told: the request's own where they are well-formed, else new ones.
    pub fn ids(&self, headers: &HeaderMap) -> Ids<'_> {
        let good = self.presence.traceparent
            && only(headers, &TRACEPARENT).is_some_and(|value| ids::is_traceparent(value.as_bytes()));
        Ids { request: self.id(), trace: (!good).then(ids::new_traceparent) }
    }

    /// The request's id, as the log and the upstream are told.
    pub fn request_id(&self) -> &str {
        // Visible ASCII, both.
        std::str::from_utf8(self.id()).unwrap_or_default()
    }

    fn id(&self) -> &[u8] {
        self.given_id.as_ref().map_or(&self.made_id, HeaderValue::as_bytes)
    }

    /// Writes the access line.
    pub fn write(&self, log: &Buffer, route: &str, status: StatusCode, end: End<'_>) {
        let claims = self.caller.as_ref().map(Caller::claims);
        log.add(&Line {
            time: self.time,
            took: end.took,
            request_id: self.request_id(),
            client: self.client,
            method: self.method.as_str(),
            path: &self.path,
            route,
            status: status.as_u16(),
            error: end.code,
            cause: end.cause,
            subject: claims.map(|claims| &*claims.subject),
            issuer: claims.and_then(|claims| claims.issuer.as_deref()),
            token_id: claims.map(|claims| claims.token.as_str()),
            session: claims.and_then(|claims| claims.session.as_ref()).map(|session| session.as_str()),
        });
    }
}

/// How a request ended.
#[derive(Clone, Copy)]
pub struct End<'a> {
    /// How long it took.
    pub took: Duration,
    /// The code of its refusal.
    pub code: Option<&'static str>,
    /// What only the inside knows of it.
    pub cause: Option<&'a str>,
}

/// An error and its sources, in one line.
pub fn chain(error: &(dyn Error + Send + Sync)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        // Many errors repeat their source in their own text.
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        source = inner.source();
    }
    text
}

/// The value of a field that stands once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

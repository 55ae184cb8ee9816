//! The gate: every request comes through [`handle`]. Route found → caller checked → the target answers.

mod bearer;
pub mod client;
pub mod explain;
mod host;
mod lease;
pub mod path;
mod record;
pub mod route;
mod target;
mod verify;

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::header::HeaderName;
use http::{Request, Response, request};
use http_body::Body as _;

use crate::clock;
use crate::config::{self, Config, OnExpiry};
use crate::identity::{Endpoint, Identity, Origin};
use crate::message::{Body, Incoming, Rejection};
use crate::model::ResponseStyle;
use crate::sessions::Sessions;
use crate::telemetry::access;
use crate::telemetry::metrics::{Metrics, Outcome};
use crate::upstream::{Client, Exchange, Pools, Upstreams};

pub use bearer::check_rule;
pub use lease::{End as LeaseEnd, Lease};
use record::{End, Record, Subject, Subjects};
use target::Target;

/// All that judges and forwards, shared by the workers.
pub struct Gate {
    identity: Identity,
    sessions: Arc<Sessions>,
    upstreams: Upstreams,
    table: route::Table,
    routes: Vec<config::Route>,
    headers: Vec<HeaderName>,
    trusted: Vec<config::Network>,
    style: ResponseStyle,
    subjects: Subjects,
    access: bool,
}

/// One worker's own: what no other thread touches.
pub struct Worker {
    /// Connections to upstreams.
    pub pools: Pools,
    /// Access lines that are not written yet.
    pub access: Rc<access::Buffer>,
}

impl Gate {
    /// Builds the part.
    ///
    /// # Errors
    /// Routes that cannot stand in one table; a valid configuration has none.
    pub fn new(
        config: &Config,
        identity: Identity,
        sessions: Arc<Sessions>,
        upstreams: Upstreams,
        metrics: &Metrics,
    ) -> Result<Self, route::TableError> {
        let name = |header: &config::IdentityHeader| HeaderName::try_from(header.name.as_str()).ok();
        Ok(Self {
            identity,
            sessions,
            upstreams,
            table: route::Table::new(&config.routes)?,
            routes: config.routes.clone(),
            headers: config.identity_headers.iter().filter_map(name).collect(),
            trusted: config.server.trusted_proxies.clone(),
            style: config.identity.responses,
            subjects: Subjects::new(config, metrics),
            access: config.log.access,
        })
    }

    /// The shape of refusals.
    pub fn style(&self) -> ResponseStyle {
        self.style
    }
}

/// The other end of one connection.
pub struct Peer {
    client: Client,
    memo: bearer::Memo,
}

impl Peer {
    /// As the connection tells.
    pub fn new(address: IpAddr, gate: &Gate) -> Self {
        Self { client: client::of_connection(address, &gate.trusted), memo: bearer::Memo::default() }
    }
}

/// A request in its two parts.
struct Message {
    head: request::Parts,
    body: Incoming,
}

/// Answers one request: times it, judges it, counts and logs it. `lease` is empty, and tells from the moment on when the
/// caller is known what the rest of the answer hangs on.
pub async fn handle(
    gate: &Gate,
    worker: &Worker,
    peer: &Peer,
    lease: &Lease,
    request: Request<Incoming>,
) -> Response<Body> {
    let begin = clock::monotonic();
    let now = clock::now();
    let client = client::of_request(&peer.client, request.headers(), &gate.trusted);
    let (head, body) = request.into_parts();
    let mut record = Record::begin(gate.access, &head, client.address, now);
    let verdict = gate.admit(worker, (peer, &client, lease), Message { head, body }, &mut record).await;
    let (response, outcome, code, cause) = match verdict {
        Ok((response, outcome)) => (response, outcome, None, None),
        Err(rejection) => {
            let (code, cause) = (rejection.code(), rejection.cause().map(|cause| record::chain(cause.as_ref())));
            let response = match record.subject {
                Subject::Verify => rejection.into_verdict(gate.style),
                _ => rejection.into_response(gate.style),
            };
            (response, Outcome::Refused, Some(code), cause)
        }
    };
    let route = gate.subjects.of(record.subject);
    let took = begin.elapsed();
    route.count(record.method.as_str(), response.status().as_u16(), outcome, took);
    if gate.access {
        let end = End { took, code, cause: cause.as_deref() };
        record.write(&worker.access, route.name(), response.status(), end);
    }
    if let (Outcome::Forwarded, Some(caller)) = (outcome, record.caller) {
        lease.grant(caller, gate.on_expiry(record.subject));
    }
    response
}

impl Gate {
    /// The heart: what is asked for, who asks, and then whoever has the answer.
    async fn admit(
        &self,
        worker: &Worker,
        (peer, client, lease): (&Peer, &Client, &Lease),
        Message { head, body }: Message,
        record: &mut Record,
    ) -> Result<(Response<Body>, Outcome), Rejection> {
        let now = record.time;
        let target = Target::of(&head.uri, &head.method)?;
        if target.is(verify::PATH) {
            // Before anything can be refused: a proxy that asks here understands few statuses.
            record.subject = Subject::Verify;
        }
        let host = target::host(&head.uri, &head.headers)?;
        if let Some(endpoint) = Endpoint::find(self.identity.settings(), target.path().as_str()) {
            record.subject = Subject::Endpoint(endpoint);
            let origin = Origin { address: client.address, now };
            // In a box: most requests do not come by here, and should not carry its state.
            let response = Box::pin(self.identity.answer(endpoint, origin, Request::from_parts(head, body))).await?;
            return Ok((response, Outcome::Answered));
        }
        if record.subject == Subject::Verify {
            let (response, caller) = self.verify(&head.headers, peer, now)?;
            record.caller = Some(caller);
            return Ok((response, Outcome::Answered));
        }
        let found = self.table.find(host.as_str(), &head.method, target.path())?;
        record.subject = Subject::Route(found.route);
        let route = self.route(found.route)?;
        record.caller = bearer::check(&self.sessions, &route.auth, &head.headers, &peer.memo, now)?;
        for other in found.also {
            let caller = bearer::check(&self.sessions, &self.route(other)?.auth, &head.headers, &peer.memo, now)?;
            record.caller = record.caller.take().or(caller);
        }
        if let (Some(caller), false) = (&record.caller, body.is_end_stream()) {
            lease.grant(caller.clone(), route.on_expiry);
        }
        let ids = record.ids(&head.headers);
        let exchange = Exchange {
            upstream: route.upstream,
            target: target.to_send(route.strip_prefix.as_deref())?,
            method: head.method,
            headers: head.headers,
            body,
            caller: record.caller.as_ref(),
            client,
            ids,
            forward_authorization: route.forward_authorization,
        };
        let response = self.upstreams.forward(&worker.pools, exchange).await?;
        Ok((response, Outcome::Forwarded))
    }

    fn on_expiry(&self, subject: Subject) -> OnExpiry {
        match subject {
            Subject::Route(index) => self.routes.get(index).map_or(OnExpiry::Close, |route| route.on_expiry),
            Subject::Nothing | Subject::Endpoint(_) | Subject::Verify => OnExpiry::Ignore,
        }
    }

    fn route(&self, index: usize) -> Result<&config::Route, Rejection> {
        self.routes.get(index).ok_or_else(|| Rejection::Internal("the table names a route that is not there".into()))
    }
}

//! The gate: every request comes through [`handle`]. Route found → caller checked → the target answers.

mod bearer;
pub mod client;
mod cors;
pub mod explain;
mod host;
mod lease;
pub mod path;
pub mod quota;
mod record;
mod rehearsal;
pub mod route;
mod target;
mod verify;

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use http::header::HeaderName;
use http::{Request, Response, Version, request};
use http_body::Body as _;

use crate::clock::{self, UnixTime};
use crate::config::{self, Auth, Config, OnExpiry};
use crate::identity::{Asker, Endpoint, Identity};
use crate::message::credential::Given;
use crate::message::{Body, Incoming, Rejection};
use crate::model::ResponseStyle;
use crate::sessions::{Caller, Sessions};
use crate::telemetry::access;
use crate::telemetry::metrics::{Metrics, Outcome};
use crate::upstream::{Client, Exchange, Pools, Upstreams};

pub use crate::upstream::Tunnel;
pub use client::Source;
pub use lease::{End as LeaseEnd, Lease};
use quota::Quotas;
use record::{End, Record, Subject, Subjects};
pub use rehearsal::{Rehearsal, Stage};
use target::Target;
pub use verify::{PATH as VERIFY, is_asked as is_verify};

/// All that judges and forwards, shared by the workers.
pub struct Gate {
    identity: Identity,
    sessions: Arc<Sessions>,
    upstreams: Upstreams,
    table: route::Table,
    routes: Vec<config::Route>,
    cors: cors::Policies,
    quotas: Quotas,
    headers: Vec<HeaderName>,
    trusted: Vec<config::Network>,
    style: ResponseStyle,
    subjects: Subjects,
    header_bytes: usize,
    access: bool,
    /// Whether somebody was told that his proxy is not trusted.
    warned: AtomicBool,
}

/// Those who have the answers.
pub struct Answerers {
    /// For the gateway's own endpoints.
    pub identity: Identity,
    /// For tokens.
    pub sessions: Arc<Sessions>,
    /// For all else.
    pub upstreams: Upstreams,
}

/// One worker's own: what no other thread touches.
pub struct Worker {
    /// Connections to upstreams.
    pub pools: Pools,
    /// Access lines that are not written yet.
    pub access: Rc<access::Buffer>,
}

impl Gate {
    /// Builds the part. What `previous` has counted goes on counting.
    ///
    /// # Errors
    /// Routes that cannot stand in one table; a valid configuration has none.
    pub fn new(
        config: &Config,
        answerers: Answerers,
        metrics: &Metrics,
        previous: Option<&Self>,
    ) -> Result<Self, route::TableError> {
        let Answerers { identity, sessions, upstreams } = answerers;
        let name = |header: &config::IdentityHeader| HeaderName::try_from(header.name.as_str()).ok();
        Ok(Self {
            identity,
            sessions,
            upstreams,
            table: route::Table::new(&config.routes)?,
            routes: config.routes.clone(),
            cors: cors::Policies::new(config),
            quotas: Quotas::new(&config.routes, previous.map(Self::quotas)),
            headers: config.identity_headers.iter().filter_map(name).collect(),
            trusted: config.server.trusted_proxies.clone(),
            style: config.identity.responses,
            subjects: Subjects::new(config, metrics),
            header_bytes: config.server.limits.header_bytes,
            access: config.log.access,
            warned: AtomicBool::new(false),
        })
    }

    /// Who forwards.
    pub fn upstreams(&self) -> &Upstreams {
        &self.upstreams
    }

    /// How often routes may be used.
    pub fn quotas(&self) -> &Quotas {
        &self.quotas
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
    tunnel: RefCell<Option<Box<Tunnel>>>,
}

impl Peer {
    /// As the connection tells.
    pub fn new(source: Source, gate: &Gate) -> Self {
        Self {
            client: client::of_connection(source, &gate.trusted),
            memo: bearer::Memo::default(),
            tunnel: RefCell::default(),
        }
    }

    fn note_tunnel(&self, tunnel: Option<Box<Tunnel>>) {
        if tunnel.is_some() {
            *self.tunnel.borrow_mut() = tunnel;
        }
    }

    /// What the connection becomes once the answer in flight, a 101, is written.
    pub fn take_tunnel(&self) -> Option<Box<Tunnel>> {
        self.tunnel.take()
    }
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
    let (mut head, body) = request.into_parts();
    let mut record = Record::begin(gate.access, &head, client.address, now);
    let verdict = gate.admit(worker, (peer, &client, lease), (&mut head, body), &mut record).await;
    let (mut response, outcome, code, cause) = match verdict {
        Ok((response, outcome)) => (response, outcome, None, None),
        Err(rejection) => {
            let (code, cause) = (rejection.code(), rejection.cause().map(|cause| record::chain(cause.as_ref())));
            (gate.refuse(rejection, &record), Outcome::Refused, Some(code), cause)
        }
    };
    if let Some(verdict) = &record.cors {
        verdict.mark(response.headers_mut(), code.is_some());
    }
    let route = gate.subjects.of(record.subject);
    let took = begin.elapsed();
    route.count(record.method.as_str(), response.status().as_u16(), outcome, took);
    if gate.access {
        let end = End { took, code, cause: cause.as_deref() };
        record.write(&worker.access, route.name(), response.status(), end);
    }
    if let (Outcome::Forwarded, Some(caller)) = (outcome, record.caller) {
        lease.grant(caller, record.on_expiry);
    }
    response
}

impl Gate {
    /// The heart: what is asked for, who asks, and then whoever has the answer.
    async fn admit(
        &self,
        worker: &Worker,
        (peer, client, lease): (&Peer, &Client, &Lease),
        (head, body): (&mut request::Parts, Incoming),
        record: &mut Record,
    ) -> Result<(Response<Body>, Outcome), Rejection> {
        let now = record.time;
        let target = Target::of(&head.uri, &head.method)?;
        // Before anything else can be refused: each has its own form of refusals.
        record.subject = self.own_subject(&target);
        record.cors = self.cors.judge(record.subject, &head.headers);
        if head.version == Version::HTTP_2 {
            target::settle_http2(&head.uri, &mut head.headers, self.header_bytes)?;
        }
        let host = target::host(&head.uri, &head.headers)?;
        if let Some(response) = self.preflight(head, host.as_str(), target.path(), record)? {
            return Ok((response, Outcome::Answered));
        }
        if let Subject::Endpoint(endpoint) = record.subject {
            let asker = Asker { address: client.address, now, request_id: record.request_id() };
            let answer = self.identity.answer(endpoint, target.path().as_str(), asker, (head, lease.of_endpoint(body)));
            // In a box: most requests do not come by here, and should not carry its state.
            return Ok((Box::pin(answer).await?, Outcome::Answered));
        }
        if record.subject == Subject::Verify {
            let (response, caller) = self.verify((head, &target, host.as_str()), peer, now)?;
            record.caller = Some(caller);
            return Ok((response, Outcome::Answered));
        }
        let found = self.find(head, host.as_str(), target.path(), record)?;
        let route = self.route(found.route)?;
        let given = given(route, head)?;
        record.caller = self.check(&found, &given, peer, now)?;
        let bounds = self.bounds(&found, record.caller.as_ref(), client.address)?;
        record.on_expiry = bounds.on_expiry;
        let caller = record.caller.as_ref();
        let guard = (!body.is_end_stream()).then(|| lease.receive(caller, bounds.on_expiry, bounds.gives_way));
        let exchange = Exchange {
            upstream: route.upstream,
            target: target.to_send(route.strip_prefix.as_deref())?,
            version: head.version,
            method: &head.method,
            websocket_token: given.is_in_protocol(),
            ids: record.ids(&head.headers),
            headers: std::mem::take(&mut head.headers),
            presence: record.presence,
            body,
            caller,
            client,
            forward_authorization: route.forward_authorization,
            guard,
            body_limit: bounds.body,
            stream: bounds.stream,
            recheck: &|| bearer::check_again(&self.sessions, caller, clock::now()),
        };
        let reply = self.upstreams.forward(&worker.pools, exchange).await?;
        peer.note_tunnel(reply.tunnel);
        Ok((reply.response, Outcome::Forwarded))
    }

    /// What the gateway answers itself, or nothing yet.
    fn own_subject(&self, target: &Target<'_>) -> Subject {
        match Endpoint::find(self.identity.settings(), target.path().as_str()) {
            Some(endpoint) => Subject::Endpoint(endpoint),
            None if target.is(verify::PATH) || target.below(verify::PATH).is_some() => Subject::Verify,
            None => Subject::Nothing,
        }
    }

    /// The route of the request, and those of its path's other readings.
    fn find(
        &self,
        head: &request::Parts,
        host: &str,
        path: &path::Path<'_>,
        record: &mut Record,
    ) -> Result<route::Match, Rejection> {
        let found = self.table.find(host, &head.method, path);
        record.cors = match &found {
            Ok(found) => {
                record.subject = Subject::Route(found.route);
                self.cors.judge(record.subject, &head.headers)
            }
            Err(_) => self.judge_missed(host, path, &head.headers),
        };
        Ok(found?)
    }

    /// Who asks, by the rules of all the routes that the request's readings found.
    fn check(
        &self,
        found: &route::Match,
        given: &Given<'_>,
        peer: &Peer,
        now: UnixTime,
    ) -> Result<Option<Caller>, Rejection> {
        let mut caller = bearer::check(&self.sessions, &self.route(found.route)?.auth, given, &peer.memo, now)?;
        for other in &found.also {
            let other = bearer::check(&self.sessions, &self.route(*other)?.auth, given, &peer.memo, now)?;
            caller = caller.or(other);
        }
        Ok(caller)
    }

    /// Counts the request against the quotas of all the routes that its readings found, and gives the strictest of their
    /// bounds.
    fn bounds(&self, found: &route::Match, caller: Option<&Caller>, address: IpAddr) -> Result<Strictest, Rejection> {
        let route = self.route(found.route)?;
        self.quotas.check(found.route, caller, address)?;
        let mut strictest =
            Strictest { body: route.limits.body, on_expiry: route.on_expiry, stream: route.stream, gives_way: None };
        for other in &found.also {
            self.quotas.check(*other, caller, address)?;
            let other = self.route(*other)?;
            strictest.body = strictest.body.into_iter().chain(other.limits.body).min();
            strictest.stream &= other.stream;
            if other.on_expiry == OnExpiry::Close {
                strictest.on_expiry = OnExpiry::Close;
            }
        }
        strictest.gives_way = (!strictest.stream).then_some(route.upstream);
        Ok(strictest)
    }

    fn route(&self, index: usize) -> Result<&config::Route, Rejection> {
        self.routes.get(index).ok_or_else(|| Rejection::Internal("the table names a route that is not there".into()))
    }

    /// A refusal in the form that the one who asks can read.
    fn refuse(&self, rejection: Rejection, record: &Record) -> Response<Body> {
        match record.subject {
            Subject::Verify => rejection.into_verdict(self.style),
            Subject::Nothing | Subject::Route(_) if record.grpc => rejection.into_grpc(),
            Subject::Nothing | Subject::Route(_) | Subject::Endpoint(_) => rejection.into_response(self.style),
        }
    }
}

/// Of the routes of one request.
struct Strictest {
    body: Option<u64>,
    on_expiry: OnExpiry,
    stream: bool,
    /// The upstream for which a slow body gives way to other requests.
    gives_way: Option<usize>,
}

/// Where the request's credential stands, on this route.
fn given<'a>(route: &config::Route, head: &'a request::Parts) -> Result<Given<'a>, Rejection> {
    if route.websocket_protocol_token && route.auth != Auth::Public {
        return Given::in_header_or_protocol(head);
    }
    Ok(Given::in_header(&head.headers))
}

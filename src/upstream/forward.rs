//! The exchange: one request to a server of its upstream, one response back, a retry only when it is safe.

mod h2;
mod pick;
mod preview;

use std::rc::Rc;

use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use http::{Method, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;

use crate::config::{self, HostPolicy, Protocol};
use crate::message::{Body, BodyGuard, Presence, Rejection};
use crate::sessions::Caller;
use crate::upstream::alarm::Millis;
use crate::upstream::balance::{self, Balance, InFlight, Outcome};
use crate::upstream::body::{Bounds, Download, Fault, Progress, Upload};
use crate::upstream::connection_limit::{ConnectionLimit, Limited};
use crate::upstream::decode::{self, Asked, Head};
use crate::upstream::forward::pick::{Turns, outcome};
use crate::upstream::headers::{self, Client, Ids, Rewrite};
use crate::upstream::health::Checks;
use crate::upstream::pool::{Pool, Pools};
use crate::upstream::tls::{self, Tls};
use crate::upstream::tunnel::{self, Tunnel};
use crate::upstream::wire::{Broken, Wire};

pub use preview::{Preview, Trial};

/// All upstreams, shared by the workers.
pub struct Upstreams {
    list: Vec<Upstream>,
    bounds: Bounds,
    process: ConnectionLimit,
}

struct Upstream {
    config: config::Upstream,
    balance: Balance,
    /// The Host that each server sees; `None` keeps the client's.
    hosts: Vec<Option<HeaderValue>>,
    /// How each server is spoken to; `None` is without TLS.
    tls: Vec<Option<Tls>>,
    max_connections: Option<ConnectionLimit>,
}

/// Why the upstreams cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The balancer's.
    #[error(transparent)]
    Balance(#[from] balance::Error),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] tls::Error),
}

/// One request that has passed the gate.
pub struct Exchange<'a> {
    /// Index into the configuration's upstreams.
    pub upstream: usize,
    /// The method.
    pub method: &'a Method,
    /// What the client speaks.
    pub version: Version,
    /// Path and query as they are sent.
    pub target: Uri,
    /// The client's header section.
    pub headers: HeaderMap,
    /// Which of the rarer fields are among them.
    pub presence: Presence,
    /// The client's body.
    pub body: Incoming,
    /// Whose token it was, if one was looked at.
    pub caller: Option<&'a Caller>,
    /// Who sent it.
    pub client: &'a Client,
    /// Its ids.
    pub ids: Ids<'a>,
    /// Whether Authorization is passed on.
    pub forward_authorization: bool,
    /// Whether the credential came in Sec-WebSocket-Protocol, from where it is not passed on.
    pub websocket_token: bool,
    /// To be dropped when the body is passed on.
    pub guard: Option<BodyGuard>,
    /// The largest body, in bytes; `None`: `server.limits.body`.
    pub body_limit: Option<u64>,
    /// Whether the body may be slow.
    pub stream: bool,
    /// Checks the caller again, before a retry.
    pub recheck: &'a dyn Fn() -> Result<(), Rejection>,
}

/// What a server answered.
pub struct Reply {
    /// To the client.
    pub response: Response<Body>,
    /// With 101: what has to run once that is written.
    pub tunnel: Option<Box<Tunnel>>,
}

impl Upstreams {
    /// Builds the part. What `previous` knows of servers that are still there is not forgotten.
    ///
    /// # Errors
    /// [`Error`], naming the key.
    pub fn new(config: &config::Config, previous: Option<&Self>) -> Result<Self, Error> {
        tls::check_key_sets(&config.tokens.trusted)?;
        let mut roots = tls::Roots::default();
        let build = |upstream: &config::Upstream| {
            let hosts = upstream.servers.iter().map(|server| match &upstream.host {
                HostPolicy::Keep => None,
                HostPolicy::Upstream => HeaderValue::try_from(server.authority()).ok(),
                HostPolicy::Name(name) => HeaderValue::try_from(name).ok(),
            });
            let past =
                previous.and_then(|previous| previous.list.iter().find(|past| past.config.name == upstream.name));
            let balance = Balance::new(upstream, past.map(|past| &past.balance))?;
            let tls = roots.servers(upstream)?;
            let max_connections = upstream.max_connections.map(|most| {
                let known = past.and_then(|past| past.max_connections.clone());
                known.filter(|known| known.most() == most).unwrap_or_else(|| ConnectionLimit::new(most))
            });
            Ok(Upstream { config: upstream.clone(), balance, hosts: hosts.collect(), tls, max_connections })
        };
        let list = config.upstreams.iter().map(build).collect::<Result<_, Error>>()?;
        let timeouts = &config.server.timeouts;
        let bounds = Bounds { size: config.server.limits.body, pause: timeouts.body, rate: timeouts.body_rate };
        let process = previous.map(|previous| previous.process.clone());
        let process = process.unwrap_or_else(|| ConnectionLimit::of_process(&config.server.limits));
        Ok(Self { list, bounds, process })
    }

    /// Each upstream, and what bounds its connections.
    pub fn limited(&self) -> impl Iterator<Item = (&config::Upstream, Limited)> {
        self.list.iter().map(|upstream| {
            let limited = Limited { process: self.process.clone(), own: upstream.max_connections.clone() };
            (&upstream.config, limited)
        })
    }

    /// How many requests wait for a connection: to each upstream, and for want of descriptors to any.
    pub fn waiting(&self) -> (Vec<usize>, usize) {
        let own = |upstream: &Upstream| upstream.max_connections.as_ref().map_or(0, ConnectionLimit::waiting);
        (self.list.iter().map(own).collect(), self.process.waiting())
    }

    /// Whether any does.
    pub fn is_wanted(&self) -> bool {
        self.limited().any(|(_, limited)| limited.is_wanted())
    }

    /// The active checks of all servers.
    pub fn checks(&self) -> Checks {
        Checks::of(self.list.iter().map(|upstream| (&upstream.config, &upstream.balance, upstream.tls.as_slice())))
    }

    /// For each server its upstream, its text, and whether it gets requests.
    pub fn states(&self) -> impl Iterator<Item = (&str, &str, bool)> {
        self.list.iter().flat_map(|upstream| {
            let states = upstream.balance.states();
            states.map(|(server, up, ejected)| (upstream.config.name.as_str(), server, up && !ejected))
        })
    }

    /// Forwards a request and passes the response back as it arrives.
    ///
    /// # Errors
    /// What the request did wrong, or that no server answered.
    pub async fn forward(&self, pools: &Pools, exchange: Exchange<'_>) -> Result<Reply, Rejection> {
        let upstream =
            self.list.get(exchange.upstream).ok_or_else(|| Rejection::Internal("no such upstream".into()))?;
        let h2 = upstream.config.protocol == Protocol::H2;
        let websocket =
            !h2 && exchange.presence.upgrade && tunnel::is_asked(exchange.method, exchange.version, &exchange.headers)?;
        let size = exchange.body.size_hint();
        // hyper knows the length of every body but a chunked one, and never takes both readings of one.
        let chunked = size.exact().is_none();
        if exchange.version == Version::HTTP_2 {
            check_length(&exchange.headers, size.exact())?;
        } else if chunked {
            check_chunked(&exchange.headers)?;
        }
        let bounds = Bounds {
            size: exchange.body_limit.unwrap_or(self.bounds.size),
            rate: if exchange.stream { 0 } else { self.bounds.rate },
            ..self.bounds
        };
        if size.lower() > bounds.size {
            return Err(Rejection::BodyTooLarge);
        }
        let (upload, progress) = if exchange.body.is_end_stream() {
            (None, None)
        } else {
            let (mut upload, progress) = Upload::new(exchange.body, bounds, pools);
            upload.guard = exchange.guard;
            if h2 {
                upload.keep(pools.copies());
            }
            (Some(upload), Some(progress))
        };
        let attempt = Attempt {
            upstream,
            pools,
            index: exchange.upstream,
            method: exchange.method,
            target: &exchange.target,
            rewrite: Rewrite {
                caller: exchange.caller,
                client: exchange.client,
                ids: exchange.ids,
                authorization: exchange.forward_authorization,
                connection: exchange.presence.connection,
                chunked: chunked && progress.is_some(),
                version: exchange.version,
                websocket,
                websocket_token: exchange.websocket_token,
            },
            progress,
            recheck: exchange.recheck,
        };
        if h2 {
            // In a box: most upstreams speak HTTP/1.1, and their requests should not carry this state.
            return Box::pin(attempt.run_h2(exchange.headers, upload)).await;
        }
        attempt.run(exchange.headers, upload).await
    }
}

/// `Transfer-Encoding: chunked`, once and alone, is the only one that has one reading.
fn check_chunked(headers: &HeaderMap) -> Result<(), Rejection> {
    let mut lines = headers.get_all(TRANSFER_ENCODING).iter();
    match (lines.next(), lines.next()) {
        (Some(line), None) if line.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Rejection::BadRequest("Transfer-Encoding must be chunked, and stand once".into())),
    }
}

/// HTTP/2 frames a body by itself. What is passed on as Content-Length must say the same, once.
fn check_length(headers: &HeaderMap, length: Option<u64>) -> Result<(), Rejection> {
    let mut lines = headers.get_all(CONTENT_LENGTH).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Ok(()),
        (Some(line), None) if decode::digits(line.as_bytes()).is_some_and(|number| Some(number) == length) => Ok(()),
        _ => Err(Rejection::BadRequest("Content-Length must be the length of the body, and stand once".into())),
    }
}

struct Attempt<'a> {
    upstream: &'a Upstream,
    pools: &'a Pools,
    index: usize,
    method: &'a Method,
    target: &'a Uri,
    rewrite: Rewrite<'a>,
    progress: Option<Rc<Progress>>,
    recheck: &'a dyn Fn() -> Result<(), Rejection>,
}

/// One server, and the connections to it.
#[derive(Clone, Copy)]
struct Server<'a> {
    index: usize,
    /// It is passed over otherwise.
    last_resort: bool,
    pool: &'a Rc<Pool>,
    settings: &'a config::UpstreamServer,
    host: Option<&'a HeaderValue>,
    tls: Option<&'a Tls>,
}

impl<'a> Attempt<'a> {
    /// Tries one server after the other, for as long as none can have acted on the request.
    async fn run(&self, mut headers: HeaderMap, mut upload: Option<Upload>) -> Result<Reply, Rejection> {
        let timeouts = &self.upstream.config.timeouts;
        let repeatable = upload.is_none() && self.method.is_idempotent() && !self.rewrite.websocket;
        let offers_others = self.rewrite.websocket_token && headers::other_protocols(&headers).next().is_some();
        let (mut turns, client) = (Turns::default(), self.rewrite.client.address);
        while let Some(server) = self.next(&mut turns)? {
            let flight = self.upstream.balance.enter(server.index);
            let kept = if turns.handed_back() > 0 { None } else { server.pool.take(timeouts.idle, !repeatable) };
            let mut wire = match kept {
                Some(wire) => wire,
                None => match server.pool.connect(server.settings, server.tls, timeouts.connect, client).await {
                    Ok(wire) => wire,
                    Err(error) => {
                        self.miss(&mut turns, server, error);
                        continue;
                    }
                },
            };
            self.write(wire.output(), &headers, server)?;
            match self.exchange(&mut wire, &mut headers, upload.take()).await {
                Ok(head) if head.status == StatusCode::SWITCHING_PROTOCOLS => {
                    self.report(server, Outcome::Good);
                    return Ok(self.switch(headers, (wire, flight), offers_others));
                }
                Ok(head) => {
                    self.report(server, outcome(head.status));
                    return Ok(self.receive((head, headers), (wire, flight), server));
                }
                // A kept connection that was closed before a byte was answered. A fresh one is never `reused`.
                Err(broken @ (Broken::Off(_) | Broken::Response(_)))
                    if repeatable && wire.is_reused() && !wire.has_heard() =>
                {
                    turns.hand_back(broken);
                }
                Err(broken) => return Err(self.reject(server, broken)),
            }
        }
        Err(turns.end())
    }

    fn server(&self, index: usize) -> Option<Server<'a>> {
        let pool = self.pools.of(self.index, index)?;
        let settings = self.upstream.config.servers.get(index)?;
        let (host, tls) = (self.upstream.hosts.get(index)?.as_ref(), self.upstream.tls.get(index)?.as_ref());
        Some(Server { index, last_resort: false, pool, settings, host, tls })
    }

    fn write(&self, out: &mut Vec<u8>, headers: &HeaderMap, server: Server<'_>) -> Result<(), Rejection> {
        out.extend_from_slice(self.method.as_str().as_bytes());
        out.extend_from_slice(b" ");
        let target = self.target.path_and_query().map_or("/", |target| target.as_str());
        out.extend_from_slice(target.as_bytes());
        out.extend_from_slice(b" HTTP/1.1\r\n");
        self.pools.rules().write(out, headers, server.host, &self.rewrite)
    }

    /// Waits for the header section of the response. `headers` becomes the response's.
    async fn exchange(&self, wire: &mut Wire, headers: &mut HeaderMap, upload: Option<Upload>) -> Result<Head, Broken> {
        let asked = Asked { method: self.method, websocket: self.rewrite.websocket };
        wire.exchange(upload, asked, headers, self.deadline()).await
    }

    /// When to ring while the response is awaited: `timeouts.response` after the request has last moved.
    fn deadline(&self) -> impl FnMut() -> Option<Millis> {
        let limit = self.upstream.config.timeouts.response;
        let clock = self.pools.clock();
        let mut moved = None;
        move || match (&self.progress, moved) {
            (_, None) => {
                moved = Some(clock.now());
                Some(clock.after(limit))
            }
            // The upload went on meanwhile: the wait begins anew.
            (Some(progress), Some(before)) if progress.moved() > before => {
                moved = Some(progress.moved());
                Some(clock.after(limit))
            }
            (_, Some(_)) => None,
        }
    }

    /// The answer to a request for a WebSocket, and the connection that it makes a tunnel.
    fn switch(&self, mut headers: HeaderMap, (wire, flight): (Wire, Option<InFlight>), offers_others: bool) -> Reply {
        tunnel::complete(&mut headers, self.rewrite.websocket_token && !offers_others);
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *response.headers_mut() = headers;
        let clock = Rc::clone(self.pools.clock());
        let tunnel = wire.into_tunnel(clock, self.upstream.config.timeouts.idle, flight);
        Reply { response, tunnel: Some(Box::new(tunnel)) }
    }

    fn receive(
        &self,
        (head, headers): (Head, HeaderMap),
        (wire, flight): (Wire, Option<InFlight>),
        server: Server<'_>,
    ) -> Reply {
        let pause = self.upstream.config.timeouts.idle;
        let download = Download::new(head, (wire, flight), Rc::clone(server.pool), pause);
        let mut response = Response::new(Body::stream(download));
        *response.status_mut() = head.status;
        *response.headers_mut() = headers;
        Reply { response, tunnel: None }
    }

    fn reject(&self, server: Server<'_>, broken: Broken) -> Rejection {
        match self.progress.as_ref().and_then(|progress| progress.take_fault()) {
            Some(Fault::TooLarge) => return Rejection::BodyTooLarge,
            Some(Fault::Silent) => return Rejection::BadRequest("The request body did not arrive in time".into()),
            Some(Fault::Slow) => {
                let text = "The request body is too slow; server.timeouts.body_rate is the least";
                return Rejection::BadRequest(text.into());
            }
            Some(Fault::Broken(_)) => return Rejection::BadRequest("The request body is malformed".into()),
            None => self.report(server, Outcome::Failed),
        }
        match broken {
            late @ Broken::Late => Rejection::UpstreamTimeout(late.into()),
            broken => Rejection::UpstreamUnreachable(broken.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_beside_http_2_is_its_own_or_refused() {
        for (lines, length, good) in [
            (&[][..], Some(3), true),
            (&[], None, true),
            (&["3"], Some(3), true),
            (&["0"], Some(0), true),
            (&["3"], None, false),
            (&["3"], Some(4), false),
            (&["3", "3"], Some(3), false),
            (&["3", "0"], None, false),
            (&["3, 3"], Some(3), false),
            (&["+3"], Some(3), false),
            (&[""], None, false),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(CONTENT_LENGTH, HeaderValue::from_static(line));
            }
            assert_eq!(check_length(&headers, length).is_ok(), good, "{lines:?} {length:?}");
        }
    }
}

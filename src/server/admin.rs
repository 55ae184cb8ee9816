//! The admin listener: /livez, /readyz, /metrics and /openapi.json, for those who operate the gateway. Never on the public listener.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use pingora::server::{ListenFds, ShutdownWatch};
use pingora::services::Service;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::app::App;
use crate::clock;
use crate::config::AdminAccess;
use crate::server::Phase;
use crate::server::doors::Doors;
use crate::server::farewell::Farewell;
use crate::server::seldom::Seldom;

/// What `portcullis health` calls itself.
pub const HEALTH_AGENT: &str = "portcullis-health";

/// For the header section of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// After a failed accept, such as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// Connections at a time: probes and scrapers are few.
const CONNECTIONS: usize = 256;

/// For requests that are under way when a successor takes over.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The admin listener's service.
pub struct Admin {
    socket: Option<TcpListener>,
    desk: Desk,
}

#[derive(Clone)]
struct Desk {
    app: Arc<App>,
    phase: watch::Receiver<Phase>,
    farewell: Arc<Farewell>,
    doors: Arc<Doors>,
}

impl Admin {
    /// Answers at `socket`.
    pub fn new(
        socket: TcpListener,
        app: Arc<App>,
        phase: watch::Receiver<Phase>,
        farewell: Arc<Farewell>,
        doors: Arc<Doors>,
    ) -> Self {
        Self { socket: Some(socket), desk: Desk { app, phase, farewell, doors } }
    }
}

#[async_trait]
impl Service for Admin {
    async fn start_service(&mut self, _: Option<ListenFds>, _: ShutdownWatch, _: usize) {
        let Some(socket) = self.socket.take() else { return };
        let socket = match tokio::net::TcpListener::from_std(socket) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::error!(%error, "the admin listener cannot be started");
                return;
            }
        };
        let (mut connections, failures) = (JoinSet::new(), Seldom::default());
        loop {
            tokio::select! {
                accepted = socket.accept() => match accepted {
                    // What is too much is closed: a probe asks again.
                    Ok(_) if connections.len() >= CONNECTIONS => {}
                    Ok((stream, peer)) => drop(connections.spawn(self.desk.clone().serve(stream, peer.ip()))),
                    Err(error) => {
                        if failures.is_due(clock::monotonic()) {
                            tracing::warn!("admin.listen: a connection could not be accepted: {error}");
                        }
                        tokio::time::sleep(PAUSE).await;
                    }
                },
                Some(_) = connections.join_next() => {}
                () = self.desk.succeeded() => break,
            }
        }
        // Who asks from now on is to meet the successor.
        drop(socket);
        let _ = tokio::time::timeout(LAST_WORDS, connections.join_all()).await;
    }

    fn name(&self) -> &'static str {
        "admin"
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}

impl Desk {
    /// Serves a connection until its client leaves, or the process has a successor.
    async fn serve(self, stream: TcpStream, peer: IpAddr) {
        let service = service_fn(|request| std::future::ready(Ok::<_, Infallible>(self.answer(&request, peer))));
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            _ = connection.as_mut() => return,
            () = self.succeeded() => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }

    /// Returns once the process has a successor, or ends.
    async fn succeeded(&self) {
        let _ = self.phase.clone().wait_for(|phase| *phase == Phase::Succeeded).await;
    }

    fn answer<B>(&self, request: &Request<B>, peer: IpAddr) -> Response<Full<Bytes>> {
        let known = matches!(request.uri().path(), "/livez" | "/readyz" | "/metrics" | "/openapi.json");
        if known && *request.method() != Method::GET && *request.method() != Method::HEAD {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        if !matches!(request.uri().path(), "/livez" | "/readyz")
            && let Err(reason) = self.check(request, peer)
        {
            return text(StatusCode::FORBIDDEN, reason);
        }
        match request.uri().path() {
            "/livez" => text(StatusCode::OK, "alive\n"),
            // With a successor, whoever was let in just before that learns how the service is.
            "/readyz" if matches!(*self.phase.borrow(), Phase::Leaving | Phase::Draining) => {
                if !is_own(request) {
                    self.farewell.note_draining(peer);
                }
                text(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
            }
            "/readyz" if self.app.is_ready() => {
                if !is_own(request) {
                    self.farewell.note_ready(peer, clock::monotonic());
                }
                text(StatusCode::OK, "ready\n")
            }
            "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "the store cannot be read; see the log\n"),
            "/metrics" => match self.app.metrics(self.doors.census.counts()) {
                Ok(metrics) => text(StatusCode::OK, metrics),
                Err(error) => {
                    tracing::error!(%error, "metrics could not be written");
                    text(StatusCode::INTERNAL_SERVER_ERROR, "metrics could not be written; see the log\n")
                }
            },
            "/openapi.json" => {
                let mut response = text(StatusCode::OK, self.app.openapi().to_string());
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                response
            }
            _ => text(StatusCode::NOT_FOUND, "here are /livez, /readyz, /metrics and /openapi.json\n"),
        }
    }
}

impl Desk {
    /// Whether this peer may read more than how the gateway is, by the Host that it names: a page in a browser can have any
    /// name resolve to this address.
    fn check<B>(&self, request: &Request<B>, peer: IpAddr) -> Result<(), String> {
        let edition = self.app.edition();
        let AdminAccess { allow, hosts } = &edition.config.admin_access;
        let peer = peer.to_canonical();
        if !allow.iter().any(|network| network.contains(peer)) {
            return Err(format!("{peer} may not read this; add it, or its network, to admin.allow\n"));
        }
        let mut values = request.headers().get_all(HOST).iter();
        let (Some(host), None) = (values.next().and_then(|host| host.to_str().ok()), values.next()) else {
            return Err(
                "Host is missing or duplicate; ask by an IP address, localhost, or a name in admin.hosts\n".into()
            );
        };
        let name = host_of(host).to_ascii_lowercase();
        let is_listed = |listed: &String| match listed.strip_prefix('*') {
            Some(suffix) => name.len() > suffix.len() && name.ends_with(suffix),
            None => *listed == name,
        };
        if name == "localhost" || is_address(&name) || hosts.iter().any(is_listed) {
            return Ok(());
        }
        Err("this Host is not allowed; ask by an IP address or localhost, or add the name to admin.hosts\n".into())
    }
}

/// A Host without its port.
fn host_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty() => name,
        _ => host,
    }
}

fn is_address(name: &str) -> bool {
    let inside = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inside.map_or_else(|| name.parse::<Ipv4Addr>().is_ok(), |inside| inside.parse::<Ipv6Addr>().is_ok())
}

/// Whether `portcullis health` asks: it sends nobody here.
fn is_own<B>(request: &Request<B>) -> bool {
    request.headers().get(USER_AGENT).is_some_and(|agent| agent == HEALTH_AGENT)
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

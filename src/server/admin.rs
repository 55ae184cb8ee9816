//! The admin listener: /livez, /readyz and /metrics, for those who operate the gateway. Never on the public listener.

use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use pingora::server::{ListenFds, ShutdownWatch};
use pingora::services::Service;
use tokio::sync::watch;

use crate::app::App;
use crate::server::Phase;
use crate::server::doors::Doors;
use crate::server::farewell::Farewell;

/// For the header section of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

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
        loop {
            match socket.accept().await {
                Ok((stream, _)) => {
                    let desk = self.desk.clone();
                    let service = service_fn(move |request| {
                        let response = desk.answer(&request);
                        async move { Ok::<_, Infallible>(response) }
                    });
                    let mut builder = http1::Builder::new();
                    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
                    tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    fn name(&self) -> &'static str {
        "admin"
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}

impl Desk {
    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let known = matches!(request.uri().path(), "/livez" | "/readyz" | "/metrics");
        if known && *request.method() != Method::GET && *request.method() != Method::HEAD {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/livez" => text(StatusCode::OK, "alive\n"),
            "/readyz" if *self.phase.borrow() != Phase::Serving => {
                self.farewell.note_draining();
                text(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
            }
            "/readyz" if self.app.is_ready() => {
                self.farewell.note_ready();
                text(StatusCode::OK, "ready\n")
            }
            "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "the store does not answer\n"),
            "/metrics" => match self.app.metrics(self.doors.census.counts()) {
                Ok(metrics) => text(StatusCode::OK, metrics),
                Err(error) => {
                    tracing::error!(%error, "metrics could not be written");
                    text(StatusCode::INTERNAL_SERVER_ERROR, "metrics could not be written; see the log\n")
                }
            },
            _ => text(StatusCode::NOT_FOUND, "here are /livez, /readyz and /metrics\n"),
        }
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

//! Active checks: every server of an upstream with `health` is asked now and then, whether requests fail or not.

use std::error::Error as _;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Request, StatusCode, Uri, header};
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Join};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsConnector;

use crate::config::{self, HostPolicy, Protocol, ServerAddress};
use crate::upstream::balance::{Balance, Change, Verdict};
use crate::upstream::tls::Tls;

/// What a check says of itself.
const AGENT: &str = "portcullis-health";

/// How much of an answer, and for how long, is read and thrown away, so that the server is not reset while it writes.
const REST: u64 = 64 * 1024;
const LINGER: Duration = Duration::from_secs(1);

/// The next check comes after `every`, less up to a tenth, so that the servers of many gateways are not asked in step.
const JITTER: u32 = 10;

/// A connection to a server.
pub type Stream = Join<Box<dyn AsyncRead + Send + Unpin>, Box<dyn AsyncWrite + Send + Unpin>>;

/// All active checks. To be [`run`](Self::run) in the background.
#[derive(Default)]
pub struct Checks(Vec<Check>);

struct Check {
    upstream: String,
    server: config::UpstreamServer,
    tls: Option<Tls>,
    health: config::Health,
    protocol: Protocol,
    /// Host or `:authority`.
    host: String,
    verdict: Arc<Verdict>,
}

/// Why a check failed.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    // hyper's own text says nothing; what it was stands behind it.
    #[error("HTTP/2 failed: {}", cause(.0))]
    Http2(#[from] hyper::Error),
    #[error("health.path cannot be asked for: {0}")]
    Request(#[from] http::Error),
    #[error("it answered {0}")]
    Status(u16),
    #[error("its answer is not HTTP/1")]
    Answer,
    #[error("no answer within {0:?}")]
    Slow(Duration),
}

impl Checks {
    /// The checks of those upstreams that have any. Their results are written into each one's `Balance`.
    pub fn of<'a>(upstreams: impl IntoIterator<Item = (&'a config::Upstream, &'a Balance, &'a [Option<Tls>])>) -> Self {
        let mut checks = Vec::new();
        for (upstream, balance, tls) in upstreams {
            let Some(health) = &upstream.health else { continue };
            for ((server, (_, verdict)), tls) in upstream.servers.iter().zip(balance.verdicts()).zip(tls) {
                checks.push(Check {
                    upstream: upstream.name.clone(),
                    health: health.clone(),
                    protocol: upstream.protocol,
                    host: match &upstream.host {
                        HostPolicy::Name(name) => name.clone(),
                        HostPolicy::Keep | HostPolicy::Upstream => server.authority(),
                    },
                    server: server.clone(),
                    tls: tls.clone(),
                    verdict: Arc::clone(verdict),
                });
            }
        }
        Self(checks)
    }

    /// Checks for ever, each server in a task of its own, beginning at once. The tasks end when this future is dropped.
    pub async fn run(self) {
        let mut tasks = JoinSet::new();
        for check in self.0 {
            tasks.spawn(check.repeat());
        }
        while tasks.join_next().await.is_some() {}
    }
}

impl Check {
    async fn repeat(self) {
        loop {
            let begun = Instant::now();
            let (fault, rest) = match timeout(self.health.every, self.ask()).await {
                Ok(Ok(rest)) => (None, rest),
                Ok(Err(fault)) => (Some(fault), None),
                Err(_) => (Some(Fault::Slow(self.health.every)), None),
            };
            self.judge(fault.as_ref());
            if let Some(rest) = rest {
                let _ = timeout(LINGER, tokio::io::copy(&mut rest.take(REST), &mut tokio::io::sink())).await;
            }
            sleep_until(begun + self.health.every.mul_f64(1.0 - fastrand::f64() / f64::from(JITTER))).await;
        }
    }

    fn judge(&self, fault: Option<&Fault>) {
        let (upstream, server) = (&self.upstream, &self.server);
        match (self.verdict.hear(fault.is_none(), &self.health), fault) {
            (Some(Change::Down), Some(reason)) => tracing::warn!(upstream, %server, %reason, "server is down"),
            (Some(Change::Up), _) => tracing::info!(upstream, %server, "server is back"),
            (Some(Change::Down) | None, _) => {}
        }
    }

    /// One check. Gives back a connection on which more may come.
    async fn ask(&self) -> Result<Option<Stream>, Fault> {
        let mut stream = connect(&self.server, self.tls.as_ref()).await.map_err(Fault::Connect)?;
        let Some(path) = &self.health.path else { return Ok(None) };
        match self.protocol {
            Protocol::Http1 => {
                let host = &self.host;
                let request = format!(
                    "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {AGENT}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
                );
                probe(&mut stream, request.as_bytes()).await.map(|()| Some(stream))
            }
            Protocol::H2 => {
                let uri = Uri::builder()
                    .scheme(if self.server.tls { "https" } else { "http" })
                    .authority(self.host.as_str())
                    .path_and_query(PathAndQuery::try_from(path.as_str()).map_err(http::Error::from)?)
                    .build()?;
                probe_h2(stream, uri).await.map(|()| None)
            }
        }
    }
}

/// Opens a connection for a check.
async fn connect(server: &config::UpstreamServer, tls: Option<&Tls>) -> io::Result<Stream> {
    Ok(match &server.address {
        ServerAddress::Tcp { host, port } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            match tls {
                None => split(stream),
                Some(tls) => {
                    let connector = TlsConnector::from(Arc::clone(&tls.config));
                    split(connector.connect(tls.name.clone(), stream).await?)
                }
            }
        }
        ServerAddress::Unix(path) => split(UnixStream::connect(path).await?),
    })
}

fn split(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Stream {
    let (reader, writer) = tokio::io::split(stream);
    tokio::io::join(Box::new(reader), Box::new(writer))
}

/// Sends `request`, and reads the beginning of the status line.
async fn probe(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &[u8]) -> Result<(), Fault> {
    stream.write_all(request).await?;
    stream.flush().await?;
    let mut line = [0; b"HTTP/1.1 200".len()];
    stream.read_exact(&mut line).await?;
    let code = line.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(1..)?.strip_prefix(b" "));
    let code = code.and_then(|code| StatusCode::from_bytes(code).ok());
    judge_status(code.ok_or(Fault::Answer)?)
}

/// The same in HTTP/2, without asking first whether the server speaks it.
async fn probe_h2(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, uri: Uri) -> Result<(), Fault> {
    let request = Request::get(uri).header(header::USER_AGENT, AGENT).body(Empty::<Bytes>::new())?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(sender.send_request(request));
    // The connection moves nothing unless it is polled; what ends it, ends the answer too.
    let mut is_open = true;
    let answer = std::future::poll_fn(|context| {
        if is_open && connection.as_mut().poll(context).is_ready() {
            is_open = false;
        }
        answer.as_mut().poll(context)
    });
    judge_status(answer.await?.status())
}

fn cause(error: &hyper::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

fn judge_status(status: StatusCode) -> Result<(), Fault> {
    if status.is_success() || status.is_redirection() { Ok(()) } else { Err(Fault::Status(status.as_u16())) }
}

#[cfg(test)]
mod tests;

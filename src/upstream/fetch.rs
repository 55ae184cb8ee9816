//! Fetching a small document: one GET on a connection of its own, bounded in time and size. Redirects are not followed.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HeaderValue;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::{KeySetUrl, Proxy};
use crate::upstream::tls::{self, Roots};

/// The largest document, in bytes.
const LARGEST: usize = 1024 * 1024;

/// The one content coding that is read here.
const IDENTITY: &str = "identity";

const AGENT: &str = concat!("portcullis/", env!("CARGO_PKG_VERSION"));

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No connection.
    #[error("no connection: {0}")]
    Connect(#[from] io::Error),
    /// No connection to the proxy.
    #[error("no connection to the proxy {place} (HTTPS_PROXY): {source}")]
    Proxy {
        /// The proxy.
        place: String,
        /// Why.
        source: io::Error,
    },
    /// The proxy opens no tunnel.
    #[error("the proxy {place} (HTTPS_PROXY) answered {status} to CONNECT")]
    Refused {
        /// The proxy.
        place: String,
        /// Its answer.
        status: StatusCode,
    },
    /// The document is compressed, although that was not asked for.
    #[error("it sent the content coding {0:?}, where identity was asked for")]
    Coding(String),
    /// No certificates to verify by.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// The host cannot stand in a certificate.
    #[error("{0} cannot be the name in a certificate")]
    Name(String),
    /// No HTTP.
    #[error("the exchange failed: {0}")]
    Http(#[from] hyper::Error),
    /// The URL cannot be asked for.
    #[error("the URL cannot be asked for: {0}")]
    Request(#[from] http::Error),
    /// Another answer than 200.
    #[error("it answered {0}")]
    Status(StatusCode),
    /// The body broke off, or is too large.
    #[error("the document could not be read: {0}")]
    Body(Box<dyn StdError + Send + Sync>),
    /// Nothing came for so long.
    #[error("no answer within {0:?}")]
    Slow(Duration),
}

/// Fetches what is at `url`, within `patience` from the look-up of the name to the last byte.
///
/// # Errors
/// [`FetchError`].
pub async fn fetch(url: &KeySetUrl, patience: Duration) -> Result<Bytes, FetchError> {
    tokio::time::timeout(patience, open(url)).await.map_err(|_| FetchError::Slow(patience))?
}

async fn open(url: &KeySetUrl) -> Result<Bytes, FetchError> {
    if !url.tls {
        return get(url, TcpStream::connect((url.host.as_str(), url.port)).await?).await;
    }
    let config = Arc::new(Roots::default().client_of_key_set(url.ca.as_deref())?);
    let name = ServerName::try_from(url.host.clone()).map_err(|_| FetchError::Name(url.host.clone()))?;
    let tls = TlsConnector::from(config);
    match &url.proxy {
        None => get(url, tls.connect(name, TcpStream::connect((url.host.as_str(), url.port)).await?).await?).await,
        Some(proxy) => get(url, tls.connect(name, tunnel(url, proxy).await?).await?).await,
    }
}

/// A tunnel to the server through `proxy` (RFC 9110 9.3.6).
async fn tunnel(
    url: &KeySetUrl,
    proxy: &Proxy,
) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static, FetchError> {
    let place = || format!("{}:{}", proxy.host, proxy.port);
    let stream = TcpStream::connect((proxy.host.as_str(), proxy.port)).await;
    let stream = stream.map_err(|source| FetchError::Proxy { place: place(), source })?;
    let host = if url.host.contains(':') { format!("[{}]", url.host) } else { url.host.clone() };
    let authority = format!("{host}:{}", url.port);
    let mut request = Request::connect(&authority).header(header::HOST, &authority).header(header::USER_AGENT, AGENT);
    if let Some(authorization) = &proxy.authorization {
        let mut value = HeaderValue::from_bytes(authorization.expose()).map_err(http::Error::from)?;
        value.set_sensitive(true);
        request = request.header(header::PROXY_AUTHORIZATION, value);
    }
    let request = request.body(Empty::<Bytes>::new())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let upgrade = async {
        let answer = sender.send_request(request).await?;
        match answer.status() {
            status if status.is_success() => Ok(TokioIo::new(hyper::upgrade::on(answer).await?)),
            status => Err(FetchError::Refused { place: place(), status }),
        }
    };
    // The connection hands its stream over when it is polled to its end.
    let mut upgrade = std::pin::pin!(upgrade);
    tokio::select! {
        biased;
        upgraded = &mut upgrade => upgraded,
        _ = connection.with_upgrades() => upgrade.await,
    }
}

async fn get(
    url: &KeySetUrl,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<Bytes, FetchError> {
    let request = Request::get(&url.target)
        .header(header::HOST, url.authority())
        .header(header::USER_AGENT, AGENT)
        .header(header::ACCEPT, "application/jwk-set+json, application/json")
        .header(header::ACCEPT_ENCODING, IDENTITY)
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let answer = async {
        let answer = sender.send_request(request).await?;
        if answer.status() != StatusCode::OK {
            return Err(FetchError::Status(answer.status()));
        }
        if let Some(coding) = answer.headers().get(header::CONTENT_ENCODING)
            && !coding.as_bytes().eq_ignore_ascii_case(IDENTITY.as_bytes())
        {
            return Err(FetchError::Coding(String::from_utf8_lossy(coding.as_bytes()).into_owned()));
        }
        Ok(Limited::new(answer.into_body(), LARGEST).collect().await.map_err(FetchError::Body)?.to_bytes())
    };
    // The connection moves nothing unless it is polled; when it ends, the answer has come or never will.
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        biased;
        document = &mut answer => document,
        _ = connection => answer.await,
    }
}

//! Fetching a small document: one GET on a connection of its own, bounded in time and size. Redirects are not followed.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::KeySetUrl;
use crate::upstream::tls::{self, Roots};

/// The largest document, in bytes.
const LARGEST: usize = 1024 * 1024;

const AGENT: &str = concat!("portcullis/", env!("CARGO_PKG_VERSION"));

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No connection.
    #[error("no connection: {0}")]
    Connect(#[from] io::Error),
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
    let stream = TcpStream::connect((url.host.as_str(), url.port)).await?;
    if !url.tls {
        return get(url, stream).await;
    }
    let config = Arc::new(Roots::default().system_client()?);
    let name = ServerName::try_from(url.host.clone()).map_err(|_| FetchError::Name(url.host.clone()))?;
    get(url, TlsConnector::from(config).connect(name, stream).await?).await
}

async fn get(
    url: &KeySetUrl,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<Bytes, FetchError> {
    let request = Request::get(&url.target)
        .header(header::HOST, url.authority())
        .header(header::USER_AGENT, AGENT)
        .header(header::ACCEPT, "application/jwk-set+json, application/json")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let answer = async {
        let answer = sender.send_request(request).await?;
        if answer.status() != StatusCode::OK {
            return Err(FetchError::Status(answer.status()));
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

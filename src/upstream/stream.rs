//! The bytes between this gateway and one server, over TCP, a UNIX socket or TLS, and how they begin to flow.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Sleep;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::{self, ServerAddress};
use crate::upstream::connection_limit::{Limited, Permit};
use crate::upstream::resolve::{Names, Place};
use crate::upstream::tls::{self, Tls};

/// Addresses that a message names at most.
const SHOWN: usize = 4;

/// Why no connection could be opened. No byte of the request has been sent then.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Refused, unreachable, or the name is unknown.
    #[error("connecting to {server} failed: {source}{tried}")]
    Failed {
        /// As in the configuration.
        server: String,
        /// Why.
        source: io::Error,
        /// The addresses of its name.
        tried: Tried,
    },
    /// No answer in time.
    #[error("connecting to {server} took longer than {limit:?}{tried}")]
    Slow {
        /// As in the configuration.
        server: String,
        /// `timeouts.connect`.
        limit: Duration,
        /// The addresses of its name.
        tried: Tried,
    },
    /// As many connections are open as may be.
    #[error(
        "no connection to {server} is free: as many are open as max_connections or the limit of open files (ulimit -n) allows"
    )]
    Full {
        /// As in the configuration.
        server: String,
    },
    /// It is there, but not trusted, or speaks no TLS.
    #[error("TLS with {server} failed: {source}. The upstream's tls.ca says which authorities are trusted")]
    Tls {
        /// As in the configuration.
        server: String,
        /// Why.
        source: io::Error,
    },
    /// It is there, but speaks no HTTP/2.
    #[error("{server} does not speak HTTP/2{source}. Turn HTTP/2 on there, or set the upstream's protocol: http1")]
    NoH2 {
        /// As in the configuration.
        server: String,
        /// Why, behind `: `, if something is known.
        source: NoH2,
    },
}

/// Addresses to which connections were opened, for the log; none where the server is configured by its address.
#[derive(Clone, Debug, Default)]
pub struct Tried(Vec<SocketAddr>);

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = "; tried ";
        for address in self.0.iter().take(SHOWN) {
            write!(f, "{before}{address}")?;
            before = ", ";
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// How a server showed that it speaks no HTTP/2.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NoH2 {
    /// By ALPN.
    #[error(" (ALPN h2)")]
    Alpn,
    /// By what it sent.
    #[error(": {0}")]
    Answer(String),
    /// By hanging up.
    #[error(": it closes the connection")]
    Closed,
}

impl ConnectError {
    /// The same for another request that waited for the same connection.
    pub fn again(&self) -> Self {
        let copy = |error: &io::Error| io::Error::new(error.kind(), error.to_string());
        match self {
            Self::Failed { server, source, tried } => {
                Self::Failed { server: server.clone(), source: copy(source), tried: tried.clone() }
            }
            Self::Slow { server, limit, tried } => {
                Self::Slow { server: server.clone(), limit: *limit, tried: tried.clone() }
            }
            Self::Full { server } => Self::Full { server: server.clone() },
            Self::Tls { server, source } => Self::Tls { server: server.clone(), source: copy(source) },
            Self::NoH2 { server, source } => Self::NoH2 { server: server.clone(), source: source.clone() },
        }
    }
}

/// How a server is reached.
#[derive(Clone, Copy)]
pub struct Door<'a> {
    /// As in the configuration.
    pub server: &'a config::UpstreamServer,
    /// Its addresses; `None` for a UNIX socket, or to look the name up for this one time.
    pub names: Option<&'a Rc<Names>>,
    /// How it is spoken to.
    pub tls: Option<&'a Tls>,
    /// To open a connection, all in all.
    pub limit: Duration,
    /// What bounds the connections that are open; `None`: nothing.
    pub limited: Option<&'a Limited>,
    /// The client on whose behalf it is opened, where it is one's alone.
    pub client: Option<IpAddr>,
}

/// See the module.
pub struct Stream {
    io: Io,
    _permit: Option<Permit>,
}

enum Io {
    /// TCP.
    Tcp(TcpStream),
    /// A UNIX socket.
    Unix(UnixStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Whether the server has neither closed it nor said anything unasked, as far as this worker's reactor has heard.
    pub fn is_quiet(&mut self) -> bool {
        // Without a sign of readiness these make no system call.
        match &mut self.io {
            Io::Tcp(stream) => is_pending(stream.try_read(&mut [0])),
            Io::Unix(stream) => is_pending(stream.try_read(&mut [0])),
            Io::Tls(stream) => {
                // What only TLS has to say, such as session tickets, is read and done with.
                let mut byte = [0];
                let mut cx = Context::from_waker(Waker::noop());
                Pin::new(stream.as_mut()).poll_read(&mut cx, &mut ReadBuf::new(&mut byte)).is_pending()
            }
        }
    }

    /// Like [`is_quiet`](Self::is_quiet), but asks the kernel: for a request that cannot be sent twice.
    pub fn is_open(&mut self) -> bool {
        if matches!(self.io, Io::Tls(_)) && !self.is_quiet() {
            return false;
        }
        let socket = match &self.io {
            Io::Tcp(stream) => SockRef::from(stream),
            Io::Unix(stream) => SockRef::from(stream),
            Io::Tls(stream) => SockRef::from(stream.get_ref().0),
        };
        is_pending(socket.peek(&mut [MaybeUninit::uninit()]))
    }
}

fn is_pending(outcome: io::Result<usize>) -> bool {
    matches!(outcome, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Io::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Io::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Io::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Io::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            // The kernel has it.
            Io::Tcp(_) | Io::Unix(_) => Poll::Ready(Ok(())),
            Io::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}

/// Opens a connection, and says where it goes, before `timer` ends, which is set to the limit.
///
/// # Errors
/// [`ConnectError`].
pub async fn open(door: Door<'_>, timer: Pin<&mut Sleep>) -> Result<(Stream, Option<Place>), ConnectError> {
    let (tried, is_counted) = (RefCell::default(), Cell::new(false));
    let full = || ConnectError::Full { server: door.server.to_string() };
    let opened = async {
        let permit = match door.limited {
            Some(limited) => Some(limited.take(door.client).await.ok_or_else(full)?),
            None => None,
        };
        is_counted.set(true);
        let (io, place) = attempt(door, &tried).await?;
        Ok((Stream { io, _permit: permit }, place))
    };
    tokio::select! {
        biased;
        outcome = opened => outcome,
        () = timer => Err(match is_counted.get() {
            true => ConnectError::Slow { server: door.server.to_string(), limit: door.limit, tried: tried.take() },
            false => full(),
        }),
    }
}

async fn attempt(door: Door<'_>, tried: &RefCell<Tried>) -> Result<(Io, Option<Place>), ConnectError> {
    let failed = |source| ConnectError::Failed { server: door.server.to_string(), source, tried: tried.take() };
    let (stream, place) = match (&door.server.address, door.names) {
        (ServerAddress::Unix(path), _) => {
            let stream = UnixStream::connect(path).await.map_err(failed)?;
            return Ok((Io::Unix(stream), None));
        }
        (ServerAddress::Tcp { host, port }, None) => {
            (TcpStream::connect((host.as_str(), *port)).await.map_err(failed)?, None)
        }
        (ServerAddress::Tcp { .. }, Some(names)) => {
            let (stream, peer) = reach(names, door.limit / 3, tried).await.map_err(failed)?;
            (stream, Some(names.place(peer)))
        }
    };
    // Only a hint: without it small writes wait for acknowledgements.
    let _ = stream.set_nodelay(true);
    let Some(tls) = door.tls else { return Ok((Io::Tcp(stream), place)) };
    let connector = TlsConnector::from(std::sync::Arc::clone(&tls.config));
    let stream = connector.connect(tls.name.clone(), stream).await;
    let stream = stream.map_err(|source| refine(source, tls, door.server))?;
    if tls.h2 && stream.get_ref().1.alpn_protocol() != Some(tls::H2) {
        return Err(ConnectError::NoH2 { server: door.server.to_string(), source: NoH2::Alpn });
    }
    Ok((Io::Tls(Box::new(stream)), place))
}

/// A server may refuse ALPN with an alert instead of leaving it out.
fn refine(source: io::Error, tls: &Tls, server: &config::UpstreamServer) -> ConnectError {
    let alert = rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol);
    let inner = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if tls.h2 && inner == Some(&alert) {
        return ConnectError::NoH2 { server: server.to_string(), source: NoH2::Alpn };
    }
    ConnectError::Tls { server: server.to_string(), source }
}

/// A connection, and which address it goes to.
type Found = (TcpStream, SocketAddr);

/// A connection to one of the addresses of a name. When all known ones fail, or none answers for a `pause`, the name is
/// looked up, and addresses that are new are tried too.
async fn reach(names: &Rc<Names>, pause: Duration, tried: &RefCell<Tried>) -> io::Result<Found> {
    let known = names.addresses().await?;
    let note = |addresses: &[SocketAddr]| tried.borrow_mut().0.extend_from_slice(addresses);
    if names.is_literal() {
        return connect(&known, pause).await;
    }
    note(&known);
    let mut first = pin!(connect(&known, pause));
    let outcome = tokio::time::timeout(pause, first.as_mut()).await;
    if let Ok(Ok(found)) = outcome {
        return Ok(found);
    }
    let second = async {
        let fresh = tokio::time::timeout(pause, names.renew(&known)).await.unwrap_or_default();
        note(&fresh);
        if fresh.is_empty() { None } else { Some(connect(&fresh, pause).await) }
    };
    match outcome {
        Ok(outcome) => second.await.unwrap_or(outcome),
        // The known ones may still answer.
        Err(_) => {
            let mut second = pin!(second);
            tokio::select! {
                biased;
                outcome = first.as_mut() => match outcome {
                    Ok(found) => Ok(found),
                    Err(error) => second.await.unwrap_or(Err(error)),
                },
                outcome = second.as_mut() => match outcome {
                    Some(Ok(found)) => Ok(found),
                    Some(Err(_)) | None => first.await,
                },
            }
        }
    }
}

/// The address that answers first. The next one is tried when one fails, and beside it after each `pause`.
async fn connect(addresses: &[SocketAddr], pause: Duration) -> io::Result<Found> {
    if let [only] = addresses {
        return TcpStream::connect(only).await.map(|stream| (stream, *only));
    }
    let mut waiting = addresses.iter().copied();
    let mut running: Vec<Pin<Box<dyn Future<Output = io::Result<Found>>>>> = Vec::new();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let mut timer: Pin<Box<Sleep>> = Box::pin(tokio::time::sleep(pause));
    let mut next = true;
    std::future::poll_fn(move |cx| {
        loop {
            if next && let Some(address) = waiting.next() {
                running
                    .push(Box::pin(async move { TcpStream::connect(address).await.map(|stream| (stream, address)) }));
                timer = Box::pin(tokio::time::sleep(pause));
            }
            next = false;
            let mut index = 0;
            while let Some(attempt) = running.get_mut(index) {
                match attempt.as_mut().poll(cx) {
                    Poll::Ready(Ok(found)) => return Poll::Ready(Ok(found)),
                    Poll::Ready(Err(error)) => {
                        last = error;
                        drop(running.swap_remove(index));
                        next = true;
                    }
                    Poll::Pending => index += 1,
                }
            }
            let more = waiting.len() > 0;
            if running.is_empty() && !more {
                return Poll::Ready(Err(io::Error::new(last.kind(), last.to_string())));
            }
            next = more && (next || timer.as_mut().poll(cx).is_ready());
            if !next {
                return Poll::Pending;
            }
        }
    })
    .await
}

#[cfg(test)]
impl From<UnixStream> for Stream {
    fn from(stream: UnixStream) -> Self {
        Self { io: Io::Unix(stream), _permit: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// An address that takes no connections and refuses none.
    fn silent() -> (std::net::TcpListener, Vec<std::net::TcpStream>, SocketAddr) {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(0).unwrap();
        let listener: std::net::TcpListener = socket.into();
        let address = listener.local_addr().unwrap();
        let full = |_| std::net::TcpStream::connect_timeout(&address, Duration::from_millis(50)).ok();
        let held = (0..4).map_while(full).collect();
        (listener, held, address)
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_next_address_is_tried_when_one_fails_or_is_silent() {
        let good = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = good.local_addr().unwrap();
        let refused = {
            let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
            gone.local_addr().unwrap()
        };
        let (_listener, _held, silent) = silent();
        let pause = Duration::from_millis(30);
        for addresses in [vec![there], vec![refused, there], vec![silent, there], vec![silent, refused, there]] {
            assert_eq!(connect(&addresses, pause).await.unwrap().1, there, "{addresses:?}");
        }
        let error = connect(&[refused, refused], pause).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(connect(&[], pause).await.is_err());
    }
}

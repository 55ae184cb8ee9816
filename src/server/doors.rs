//! The way in: from an accepted socket to a stream that HTTP is spoken over, with who is at the other end.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use crate::config::{Limits, Network, Server};
use crate::gate::Source;
use crate::server::census::{self, Census, Ticket};
use crate::server::listener::Arrival;
use crate::server::stream::Stream;
use crate::server::{proxy, tls};

/// Why a connection is not served. It is closed without a word.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Only peers of `server.trusted_proxies` may say whose connection they pass on.
    #[error("the listener takes the PROXY protocol, and {0} is not in server.trusted_proxies")]
    Untrusted(IpAddr),
    /// Whose connection it is was not said, or not rightly.
    #[error(transparent)]
    Proxy(#[from] proxy::Error),
    /// There are too many.
    #[error(transparent)]
    Full(#[from] census::Full),
    /// The handshake failed, or the connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// `server.tls` is not there; the configuration does not allow that.
    #[error("there are no certificates")]
    NoCertificates,
}

/// Who came in.
pub struct Guest {
    /// Its stream.
    pub stream: Stream,
    /// Who it is.
    pub source: Source,
    /// Its place, to be kept while it is open.
    pub ticket: Ticket,
}

/// What all public listeners share.
pub struct Doors {
    /// Who is in.
    pub census: Arc<Census>,
    /// Taken for a moment by a connection with TLS, and by a reload.
    acceptor: RwLock<Option<tls::Acceptor>>,
}

/// What a reload brings: certificates that were read, and can be used.
pub struct Renewal {
    acceptor: Option<tls::Acceptor>,
    limits: Limits,
}

impl Renewal {
    /// Reads the certificates, where a listener needs any.
    ///
    /// # Errors
    /// These cannot be used.
    pub fn load(config: &Server) -> Result<Self, tls::Error> {
        let needed = config.tls.as_ref().filter(|_| config.listen.iter().any(|listener| listener.tls));
        Ok(Self { acceptor: needed.map(tls::Acceptor::load).transpose()?, limits: config.limits })
    }
}

impl Doors {
    /// Of this configuration. Reads the certificates.
    ///
    /// # Errors
    /// These cannot be used.
    pub fn new(config: &Server) -> Result<Self, tls::Error> {
        let Renewal { acceptor, limits } = Renewal::load(config)?;
        Ok(Self { census: Census::new(config.workers.get(), &limits), acceptor: RwLock::new(acceptor) })
    }

    /// Other certificates and limits for the connections to come.
    pub fn renew(&self, renewal: Renewal) {
        self.census.set_limits(&renewal.limits);
        *self.acceptor.write().unwrap_or_else(PoisonError::into_inner) = renewal.acceptor;
    }

    fn acceptor(&self) -> Option<tls::Acceptor> {
        self.acceptor.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets a connection in: its PROXY header, its place, its TLS handshake, in this order, each where there is one. How
    /// long that may take is the caller's to bound.
    ///
    /// # Errors
    /// It is to be closed.
    pub async fn open(&self, arrival: Arrival, trusted: &[Network]) -> Result<Guest, Error> {
        let Arrival { socket, door } = arrival;
        let peer = socket.peer()?;
        let mut stream = socket.into_tokio()?;
        let mut source = peer;
        if door.proxy_protocol {
            if let Some(peer) = peer.filter(|_| !proxy::may_send(peer, trusted)) {
                return Err(Error::Untrusted(peer));
            }
            let told = proxy::read(&mut stream).await?;
            source = told.map(|address| address.ip()).or(peer);
        }
        let source = Source { address: source, secure: door.tls };
        let counted = source.address.filter(|address| !trusted.iter().any(|network| network.contains(*address)));
        let ticket = self.census.enter(counted)?;
        let stream = match self.acceptor() {
            _ if !door.tls => Stream::Plain(stream),
            Some(acceptor) => acceptor.accept(stream).await?,
            None => return Err(Error::NoCertificates),
        };
        Ok(Guest { stream, source, ticket })
    }
}

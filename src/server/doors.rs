//! The way in: from an accepted socket to a stream that HTTP is spoken over, with who is at the other end.

use std::io;
use std::net::IpAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError, RwLock};

use crate::clock;
use crate::config::{Limits, Network, Server};
use crate::gate::Source;
use crate::server::census::{self, Census, Ticket};
use crate::server::listener::Arrival;
use crate::server::seldom::Seldom;
use crate::server::stream::Stream;
use crate::server::{descriptors, proxy, tls};
use crate::telemetry::metrics::{Metrics, Refusal};

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
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The TLS handshake failed.
    #[error("the TLS handshake failed: {0}")]
    Handshake(#[source] io::Error),
    /// `server.tls` is not there; the configuration does not allow that.
    #[error("there are no certificates")]
    NoCertificates,
}

impl Error {
    /// What it counts as; `None` when the client is just gone.
    fn refusal(&self) -> Option<Refusal> {
        Some(match self {
            Self::Untrusted(_) => Refusal::UntrustedProxy,
            Self::Proxy(_) => Refusal::ProxyHeader,
            Self::Full(census::Full::Everywhere) => Refusal::Connections,
            Self::Full(census::Full::Address) => Refusal::PerAddress,
            Self::Handshake(_) | Self::NoCertificates => Refusal::Tls,
            Self::Io(_) => return None,
        })
    }

    /// The key that decides, and what to do with it. Nothing where it is the client's matter: scanners are everywhere, and
    /// those who only look whether a port is open.
    fn remedy(&self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Untrusted(_) => {
                Some(("server.trusted_proxies", "add it if it is your load balancer, or keep others from this port"))
            }
            Self::Proxy(proxy::Error::Missing | proxy::Error::Malformed(_)) => Some((
                "server.listen",
                "have the load balancer send the header, or take proxy_protocol off the listener",
            )),
            Self::Full(census::Full::Everywhere) => Some(("server.limits.connections", "raise it if memory allows")),
            Self::Full(census::Full::Address) => {
                let remedy =
                    "raise it if many clients share that address; a load balancer belongs to server.trusted_proxies";
                Some(("server.limits.per_address", remedy))
            }
            Self::Proxy(_) | Self::Io(_) | Self::Handshake(_) | Self::NoCertificates => None,
        }
    }
}

/// A connection that is not served.
#[derive(Debug)]
pub struct Refused {
    /// Whose it is, as far as that came out.
    pub client: Option<IpAddr>,
    /// Why.
    pub error: Error,
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
    /// How often a connection could not be accepted for want of descriptors.
    pub shortages: Arc<AtomicU64>,
    /// Whether a listener that is open speaks TLS: which do is settled at the start.
    speak_tls: bool,
    /// Taken for a moment by a connection with TLS, and by a reload.
    acceptor: RwLock<Option<tls::Acceptor>>,
    /// By [`Refusal`].
    words: [Seldom; Refusal::COUNT],
}

/// What a reload brings: certificates that were read, and can be used.
pub struct Renewal {
    acceptor: Option<tls::Acceptor>,
    limits: Limits,
}

impl Renewal {
    /// Reads the certificates, where a listener of `config` needs any.
    ///
    /// # Errors
    /// These cannot be used.
    pub fn load(config: &Server) -> Result<Self, tls::Error> {
        let needed = config.tls.as_ref().filter(|_| speaks_tls(config));
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
        Ok(Self {
            census: Census::new(config.workers.get(), &descriptors::fit(limits)),
            shortages: Arc::default(),
            speak_tls: speaks_tls(config),
            acceptor: RwLock::new(acceptor),
            words: Default::default(),
        })
    }

    /// Reads the certificates of `config`, where a listener needs any: one of these, or one that is open.
    ///
    /// # Errors
    /// They cannot be used; or there are none, and open listeners need some.
    pub fn load(&self, config: &Server) -> Result<Renewal, tls::Error> {
        let mut renewal = Renewal::load(config)?;
        if self.speak_tls && renewal.acceptor.is_none() {
            let tls = config.tls.as_ref().ok_or(tls::Error::Needed)?;
            renewal.acceptor = Some(tls::Acceptor::load(tls)?);
        }
        Ok(renewal)
    }

    /// Other certificates and limits for the connections to come.
    pub fn renew(&self, renewal: Renewal) {
        self.census.set_limits(&descriptors::fit(renewal.limits));
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
    pub async fn open(&self, arrival: Arrival, trusted: &[Network]) -> Result<Guest, Refused> {
        let mut source = Source { address: None, secure: arrival.door.tls };
        let opened = self.pass(arrival, trusted, &mut source).await;
        let (stream, ticket) = opened.map_err(|error| Refused { client: source.address, error })?;
        Ok(Guest { stream, source, ticket })
    }

    /// `source` is told who it is as soon as that is known.
    async fn pass(
        &self,
        arrival: Arrival,
        trusted: &[Network],
        source: &mut Source,
    ) -> Result<(Stream, Ticket), Error> {
        let Arrival { socket, door } = arrival;
        let peer = socket.peer()?;
        source.address = peer;
        let mut stream = socket.into_tokio()?;
        if door.proxy_protocol {
            if let Some(peer) = peer.filter(|_| !proxy::may_send(peer, trusted)) {
                return Err(Error::Untrusted(peer));
            }
            let told = proxy::read(&mut stream).await?;
            source.address = told.map(|address| address.ip()).or(peer);
        }
        let counted = source.address.filter(|address| !trusted.iter().any(|network| network.contains(*address)));
        let ticket = self.census.enter(counted).await?;
        let stream = match self.acceptor() {
            _ if !door.tls => Stream::Plain(stream),
            Some(acceptor) => acceptor.accept(stream).await.map_err(Error::Handshake)?,
            None => return Err(Error::NoCertificates),
        };
        Ok((stream, ticket))
    }

    /// Counts a connection that is not served, and now and then says so.
    pub fn turn_away(&self, refused: &Refused, counters: &Metrics) {
        let Refused { client, error } = refused;
        let client = client.map_or_else(|| "a UNIX socket".to_owned(), |client| client.to_string());
        let refusal = error.refusal();
        if let Some(refusal) = refusal {
            counters.refused(refusal);
        }
        let word = refusal.and_then(|refusal| self.words.get(refusal as usize));
        let due = || word.is_some_and(|word| word.is_due(clock::monotonic()));
        match error.remedy() {
            Some((key, remedy)) if due() => {
                let reason = refusal.map(Refusal::label);
                tracing::warn!(client, reason, key, "a connection is refused: {error}; {remedy}");
            }
            _ => tracing::debug!(client, %error, "a connection is not served"),
        }
    }
}

fn speaks_tls(config: &Server) -> bool {
    config.listen.iter().any(|listener| listener.tls)
}

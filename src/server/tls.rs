//! TLS at the public listeners: rustls, with the certificates of `server.tls`, chosen by the name that the client asks for.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, InconsistentKeys, RootCertStore, ServerConfig, SignatureScheme};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};

use crate::clock;
use crate::config::{Certificate, Tls};
use crate::server::stream::{Plain, Stream};

/// The first byte of a ClientHello: a record of the handshake.
const HANDSHAKE: u8 = 0x16;

/// For those who speak HTTP where TLS is spoken.
const NOT_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 35\r\n\
    Connection: close\r\n\r\nThis port speaks TLS: use https://\n";

/// How much of such a request is read and thrown away, in bytes, so that its client reads the answer before a reset.
const RUBBISH: u64 = 64 * 1024;

/// Why the certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("{key}: {}: {source}; it must be there and readable by this process", path.display())]
    Read {
        /// The key in gateway.yaml.
        key: String,
        /// Its file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file is not PEM, or holds no part of the kind that is needed.
    #[error("{key}: {}: holds no {wanted}; {remedy}", path.display())]
    Lacking {
        /// The key in gateway.yaml.
        key: String,
        /// Its file.
        path: PathBuf,
        /// What should be in it.
        wanted: &'static str,
        /// How to get it there.
        remedy: &'static str,
    },
    /// A file holds something that rustls does not take.
    #[error("{key}: {}: {source}; {remedy}", path.display())]
    Unusable {
        /// The key in gateway.yaml.
        key: String,
        /// Its file.
        path: PathBuf,
        /// Why not.
        source: Box<rustls::Error>,
        /// What is taken.
        remedy: &'static str,
    },
    /// A key is another certificate's.
    #[error(
        "{key}: {}: is not the key of {}; name the two files of one pair, the server's own certificate first in its file",
        path.display(), certificate.display()
    )]
    Mismatch {
        /// The key in gateway.yaml.
        key: String,
        /// The private key's file.
        path: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
    },
    /// An authority cannot be one.
    #[error("server.tls.client_ca: {}: {source}; give the certificates of authorities, in PEM", path.display())]
    Authority {
        /// Its file.
        path: PathBuf,
        /// Why not.
        source: rustls::server::VerifierBuilderError,
    },
    /// A reload brings none, and listeners that are open need some.
    #[error(
        "server.tls: is missing, and a listener that is open speaks TLS until a restart; put the certificates back, \
         or restart"
    )]
    Needed,
    /// rustls refuses what was put together.
    #[error("server.tls: {0}")]
    Config(#[source] Box<rustls::Error>),
}

/// Makes TLS of connections. A clone is a reference to the same.
#[derive(Clone)]
pub struct Acceptor {
    inner: tokio_rustls::TlsAcceptor,
}

impl Acceptor {
    /// Reads all files. A certificate that is out of its time is a warning in the log: it may be the clock that is wrong.
    /// Sessions of one Acceptor are not resumed at another, so that a client authority that is gone is gone at once.
    ///
    /// # Errors
    /// The first file that cannot be used; nothing has changed then.
    pub fn load(tls: &Tls) -> Result<Self, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut certificates = Vec::with_capacity(tls.certificates.len());
        for (index, pair) in tls.certificates.iter().enumerate() {
            certificates.push(load_pair(&format!("server.tls.certificates[{index}]"), pair, &provider)?);
        }
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|source| Error::Config(source.into()))?;
        let config = match &tls.client_ca {
            None => config.with_no_client_auth(),
            Some(path) => {
                let roots = Arc::new(load_authorities(path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
                let refuse = |source| Error::Authority { path: path.clone(), source };
                config.with_client_cert_verifier(verifier.map_err(refuse)?)
            }
        };
        let mut config = config.with_cert_resolver(Arc::new(Certificates(certificates)));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(|source| Error::Config(source.into()))?;
        // A replay of early data would be a second request.
        config.max_early_data_size = 0;
        Ok(Self { inner: Arc::new(config).into() })
    }

    /// Shakes hands. Who speaks HTTP instead is told so in plain text. How long it may take is the caller's to bound.
    ///
    /// # Errors
    /// The client and we found no common ground, or it left.
    pub async fn accept(&self, mut stream: Plain) -> io::Result<Stream> {
        match stream.fill_buf().await?.first() {
            Some(&HANDSHAKE) => Ok(Stream::Tls(Box::new(self.inner.accept(stream).await?))),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
            Some(first) => {
                if first.is_ascii_uppercase() {
                    stream.write_all(NOT_TLS).await?;
                    stream.shutdown().await?;
                    tokio::io::copy(&mut stream.take(RUBBISH), &mut tokio::io::sink()).await?;
                }
                Err(io::Error::new(io::ErrorKind::InvalidData, "the client does not speak TLS"))
            }
        }
    }
}

fn load_pair(key: &str, pair: &Certificate, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, Error> {
    let cert_key = format!("{key}.cert");
    let chain = read_certificates(&cert_key, &pair.cert)?;
    let key = format!("{key}.key");
    let bytes = read(&key, &pair.key)?;
    let lacking = |_: pem::Error| Error::Lacking {
        key: key.clone(),
        path: pair.key.clone(),
        wanted: "private key",
        remedy: "give one in PEM, without a passphrase (`openssl pkey -in KEY -out PLAIN` takes it off)",
    };
    let private = PrivateKeyDer::from_pem_slice(&bytes).map_err(lacking)?;
    let unusable = |source, key: &str, path: &Path, remedy| Error::Unusable {
        key: key.to_owned(),
        path: path.to_owned(),
        source: Box::new(source),
        remedy,
    };
    let private = provider.key_provider.load_private_key(private).map_err(|source| {
        unusable(
            source,
            &key,
            &pair.key,
            "RSA of 2048 bits or more, ECDSA on P-256, P-384 or P-521, and Ed25519 are taken",
        )
    })?;
    let certified = CertifiedKey::new(chain, private);
    match certified.keys_match() {
        Ok(()) => {}
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            return Err(Error::Mismatch { key, path: pair.key.clone(), certificate: pair.cert.clone() });
        }
        Err(source) => {
            return Err(unusable(source, &cert_key, &pair.cert, "give an X.509 certificate of version 3"));
        }
    }
    if let Some(what) = misfit_in_time(&certified, clock::now(), provider) {
        tracing::warn!(
            "{cert_key}: {}: {what}: clients will refuse it; renew it, or set the clock",
            pair.cert.display()
        );
    }
    Ok(Arc::new(certified))
}

fn load_authorities(path: &Path) -> Result<RootCertStore, Error> {
    let key = "server.tls.client_ca";
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(key, path)? {
        roots.add(certificate).map_err(|source| Error::Unusable {
            key: key.to_owned(),
            path: path.to_owned(),
            source: Box::new(source),
            remedy: "give the certificates of authorities, in PEM",
        })?;
    }
    Ok(roots)
}

fn read_certificates(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bytes = read(key, path)?;
    let found = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>().unwrap_or_default();
    if found.is_empty() {
        return Err(Error::Lacking {
            key: key.to_owned(),
            path: path.to_owned(),
            wanted: "certificate",
            remedy: "give PEM, which begins with -----BEGIN CERTIFICATE-----",
        });
    }
    Ok(found)
}

fn read(key: &str, path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Read { key: key.to_owned(), path: path.to_owned(), source })
}

/// What is wrong, when the certificate has expired or is not valid yet. Its times are judged before its issuer, so that no
/// authority need be known.
fn misfit_in_time(certified: &CertifiedKey, now: clock::UnixTime, provider: &CryptoProvider) -> Option<&'static str> {
    let now = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.secs()).unwrap_or(0)));
    let parsed = ParsedCertificate::try_from(certified.cert.first()?).ok()?;
    let algorithms = provider.signature_verification_algorithms.all;
    let verdict = verify_server_cert_signed_by_trust_anchor(&parsed, &RootCertStore::empty(), &[], now, algorithms);
    let Err(rustls::Error::InvalidCertificate(reason)) = verdict else { return None };
    match reason {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Some("has expired"),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Some("is not valid yet"),
        _ => None,
    }
}

/// In the order of the file. They are few, and parsing one takes a hundredth of the time that signing does: no index.
#[derive(Debug)]
struct Certificates(Vec<Arc<CertifiedKey>>);

impl Certificates {
    /// One for the name itself, else one whose wildcard covers it, else the first; of several, the first whose key the
    /// client can check (a name may have an RSA and an ECDSA certificate).
    fn find(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<&Arc<CertifiedKey>> {
        let named = name.map(|name| self.named(name)).filter(|named| !named.is_empty());
        let all = named.unwrap_or_else(|| self.0.iter().collect());
        let suited = all.iter().find(|certified| certified.key.choose_scheme(schemes).is_some());
        suited.or(all.first()).copied()
    }

    fn named(&self, name: &str) -> Vec<&Arc<CertifiedKey>> {
        let fitting = self.0.iter().filter(|certified| is_for(certified, name));
        let fitting: Vec<_> = fitting.collect();
        // Only a wildcard is for a sibling that nobody has named.
        let sibling = name.split_once('.').map(|(_, parent)| format!("portcullis-names-no-such-host.{parent}"));
        let exact = fitting.iter().filter(|certified| !sibling.as_ref().is_some_and(|name| is_for(certified, name)));
        let exact: Vec<_> = exact.copied().collect();
        if exact.is_empty() { fitting } else { exact }
    }
}

fn is_for(certified: &CertifiedKey, name: &str) -> bool {
    let parsed = certified.cert.first().and_then(|first| ParsedCertificate::try_from(first).ok());
    let name = ServerName::try_from(name).ok();
    parsed.zip(name).is_some_and(|(parsed, name)| verify_server_name(&parsed, &name).is_ok())
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name(), hello.signature_schemes()).cloned()
    }
}

#[cfg(test)]
mod tests;

//! TLS to upstream servers: whom to trust, and as whom to address them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::config::{self, HostPolicy, KeySetUrl, Protocol, ServerAddress, TrustedKeys};

/// The name of HTTP/2 in ALPN.
pub const H2: &[u8] = b"h2";

/// Why servers cannot be spoken to over TLS.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No PEM.
    #[error("{key}: {} cannot be read as PEM: {source}. Give a file of certificates", path.display())]
    Authority {
        /// Where it is named.
        key: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// PEM, but no certificate that can be trusted.
    #[error("{key}: {} holds no certificate of an authority. Give one in PEM", path.display())]
    NoAuthority {
        /// Where it is named.
        key: String,
        /// The file.
        path: PathBuf,
    },
    /// Nothing to trust.
    #[error(
        "upstreams.{upstream}.tls.ca: this system has no root certificates. Install them (ca-certificates), or name a file"
    )]
    NoRoots {
        /// The upstream.
        upstream: String,
    },
    /// Nothing to trust, outside of upstreams.
    #[error("this system has no root certificates; install them (ca-certificates)")]
    NoSystemRoots,
    /// The provider lacks what is asked of it, outside of upstreams.
    #[error(transparent)]
    System(rustls::Error),
    /// The name cannot stand in a certificate.
    #[error("upstreams.{upstream}.{key}: {name} cannot be the name in a certificate. Give a DNS name or an address")]
    Name {
        /// The upstream.
        upstream: String,
        /// Where it says so.
        key: &'static str,
        /// Of the server.
        name: String,
    },
    /// The provider lacks what is asked of it, which ours does not.
    #[error("upstreams.{upstream}.tls: {source}")]
    Provider {
        /// The upstream.
        upstream: String,
        /// Why.
        source: rustls::Error,
    },
}

/// How one server is spoken to.
#[derive(Clone)]
pub struct Tls {
    /// Shared by the servers of the upstream, sessions that can be resumed too.
    pub config: Arc<ClientConfig>,
    /// Sent as SNI, and what the certificate must be for.
    pub name: ServerName<'static>,
    /// Whether the server has to agree to HTTP/2.
    pub h2: bool,
}

/// The system's roots, read when the first upstream needs them.
#[derive(Default)]
pub struct Roots(Option<Arc<RootCertStore>>);

impl Roots {
    /// How each server of `upstream` is spoken to; `None` for those without TLS.
    ///
    /// # Errors
    /// [`Error`], naming the key.
    pub fn servers(&mut self, upstream: &config::Upstream) -> Result<Vec<Option<Tls>>, Error> {
        if !upstream.servers.iter().any(|server| server.tls) {
            return Ok(upstream.servers.iter().map(|_| None).collect());
        }
        let config = Arc::new(self.client(upstream)?);
        let h2 = upstream.protocol == Protocol::H2;
        let server = |server: &config::UpstreamServer| match server.tls {
            true => Ok(Some(Tls { config: Arc::clone(&config), name: server_name(upstream, server)?, h2 })),
            false => Ok(None),
        };
        upstream.servers.iter().map(server).collect()
    }

    /// How the server of a key set is spoken to: verified by its own authorities, or by the system's.
    ///
    /// # Errors
    /// Authorities that cannot be used, or none, or a provider that lacks what is asked of it.
    pub fn client_of_key_set(&mut self, ca: Option<&Path>) -> Result<ClientConfig, Error> {
        let roots = match ca {
            Some(path) => authorities(path, || "ca".to_owned())?,
            None => self.system(),
        };
        if roots.is_empty() {
            return Err(Error::NoSystemRoots);
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().map_err(Error::System)?;
        Ok(builder.with_root_certificates(roots).with_no_client_auth())
    }

    fn system(&mut self) -> Arc<RootCertStore> {
        let roots = self.0.get_or_insert_with(|| {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            Arc::new(roots)
        });
        Arc::clone(roots)
    }

    fn client(&mut self, upstream: &config::Upstream) -> Result<ClientConfig, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|source| Error::Provider { upstream: upstream.name.clone(), source })?;
        let mut config = if upstream.tls.insecure_skip_verify {
            let verifier = Arc::new(AnyCertificate(algorithms));
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        } else {
            builder.with_root_certificates(self.of(upstream)?).with_no_client_auth()
        };
        let protocol = match upstream.protocol {
            Protocol::Http1 => b"http/1.1",
            Protocol::H2 => H2,
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(config)
    }

    fn of(&mut self, upstream: &config::Upstream) -> Result<Arc<RootCertStore>, Error> {
        let Some(path) = &upstream.tls.ca else {
            let roots = self.system();
            let none = || Error::NoRoots { upstream: upstream.name.clone() };
            return if roots.is_empty() { Err(none()) } else { Ok(roots) };
        };
        authorities(path, || format!("upstreams.{}.tls.ca", upstream.name))
    }
}

/// The authorities of a PEM file; `key` names it in the configuration.
fn authorities(path: &Path, key: impl Fn() -> String) -> Result<Arc<RootCertStore>, Error> {
    let mut roots = RootCertStore::empty();
    let authority = |source| Error::Authority { key: key(), path: path.into(), source };
    let certificates = CertificateDer::pem_file_iter(path).map_err(authority)?;
    roots.add_parsable_certificates(certificates.collect::<Result<Vec<_>, _>>().map_err(authority)?);
    match roots.is_empty() {
        true => Err(Error::NoAuthority { key: key(), path: path.into() }),
        false => Ok(Arc::new(roots)),
    }
}

/// Whether the authorities that `tokens.trusted` names can be used.
///
/// # Errors
/// [`Error`], naming the key.
pub fn check_key_sets(trusted: &[config::Trusted]) -> Result<(), Error> {
    for (index, entry) in trusted.iter().enumerate() {
        if let TrustedKeys::Url(KeySetUrl { ca: Some(path), .. }) = &entry.keys {
            authorities(path, || format!("tokens.trusted[{index}].ca"))?;
        }
    }
    Ok(())
}

/// The upstream's own name for itself where the configuration gives one, else the server's.
fn server_name(upstream: &config::Upstream, server: &config::UpstreamServer) -> Result<ServerName<'static>, Error> {
    let (key, name) = match (&upstream.host, &server.address) {
        (HostPolicy::Name(name), _) => ("host", without_port(name)),
        (HostPolicy::Keep | HostPolicy::Upstream, ServerAddress::Tcp { host, .. }) => ("servers", host.as_str()),
        (HostPolicy::Keep | HostPolicy::Upstream, ServerAddress::Unix(_)) => ("servers", "localhost"),
    };
    ServerName::try_from(name.to_owned()).map_err(|_| Error::Name {
        upstream: upstream.name.clone(),
        key,
        name: name.to_owned(),
    })
}

fn without_port(authority: &str) -> &str {
    match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => authority.split(':').next().unwrap_or(authority),
    }
}

/// `insecure_skip_verify`: any certificate will do, but whoever shows it must hold its key.
#[derive(Debug)]
struct AnyCertificate(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Balance, Upstream, UpstreamServer, UpstreamTimeouts, UpstreamTls};
    use std::time::Duration;

    fn upstream(host: HostPolicy, tls: UpstreamTls) -> Upstream {
        let timeouts = UpstreamTimeouts { connect: Duration::ZERO, response: Duration::ZERO, idle: Duration::ZERO };
        let server = |host: &str, tls| UpstreamServer {
            address: ServerAddress::Tcp { host: host.into(), port: 443 },
            tls,
            weight: 1,
        };
        Upstream {
            name: "app".into(),
            servers: vec![server("a.example", true), server("b.example", false), server("::1", true)],
            balance: Balance::RoundRobin,
            health: None,
            timeouts,
            protocol: Protocol::H2,
            host,
            tls,
            max_connections: None,
        }
    }

    fn skip() -> UpstreamTls {
        UpstreamTls { ca: None, insecure_skip_verify: true }
    }

    #[test]
    fn servers_are_addressed_by_their_names() {
        for (host, names) in [
            (HostPolicy::Keep, ["a.example", "::1"]),
            (HostPolicy::Upstream, ["a.example", "::1"]),
            (HostPolicy::Name("app.example:8443".into()), ["app.example", "app.example"]),
            (HostPolicy::Name("[2001:db8::1]:8443".into()), ["2001:db8::1", "2001:db8::1"]),
        ] {
            let servers = Roots::default().servers(&upstream(host, skip())).unwrap();
            assert!(servers[1].is_none());
            for (server, name) in [&servers[0], &servers[2]].into_iter().zip(names) {
                let server = server.as_ref().unwrap();
                assert_eq!(server.name, ServerName::try_from(name).unwrap());
                assert_eq!(server.config.alpn_protocols, [H2]);
            }
        }
    }

    #[test]
    fn what_is_wrong_is_named_by_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let broken = "-----BEGIN CERTIFICATE-----\n%\n-----END CERTIFICATE-----\n";
        let no_certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (path, expected) in [
            (folder.path().join("none.pem"), "cannot be read as PEM"),
            (file("broken.pem", broken), "cannot be read as PEM"),
            (file("empty.pem", ""), "holds no certificate"),
            (file("other.pem", no_certificate), "holds no certificate"),
        ] {
            let tls = UpstreamTls { ca: Some(path), insecure_skip_verify: false };
            let error = Roots::default().servers(&upstream(HostPolicy::Keep, tls)).err().unwrap().to_string();
            assert!(error.starts_with("upstreams.app.tls.ca: ") && error.contains(expected), "{error}");
        }
        let error = Roots::default().servers(&upstream(HostPolicy::Name("a b".into()), skip())).err().unwrap();
        assert!(error.to_string().starts_with("upstreams.app.host: "), "{error}");
    }
}

//! Servers behind TLS and UNIX sockets: whom the gateway believes, and as whom it addresses them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Gateway, PATIENCE, Setup, await_that, free_address};
use crate::wire::{Connection, get, post};

/// An authority that nobody knows, in a file.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), folder }
    }

    pub fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A server with a certificate for `names` that agrees to `protocols`.
    pub fn server(&self, names: &[&str], protocols: &[&str]) -> Arc<ServerConfig> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

/// What a connection asked for in its handshake: SNI and ALPN.
type Greeting = (Option<String>, Option<String>);

/// An application that answers every request with the length of its body, over TLS.
struct TlsOrigin {
    address: SocketAddr,
    greetings: Arc<Mutex<Vec<Greeting>>>,
}

impl TlsOrigin {
    fn start(config: Arc<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = Self { address: listener.local_addr().unwrap(), greetings: Arc::default() };
        let greetings = Arc::clone(&origin.greetings);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (config, greetings) = (Arc::clone(&config), Arc::clone(&greetings));
                std::thread::spawn(move || {
                    let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
                    while stream.conn.is_handshaking() {
                        if stream.conn.complete_io(&mut stream.sock).is_err() {
                            return;
                        }
                    }
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    let greeting =
                        (stream.conn.server_name().map(str::to_owned), stream.conn.alpn_protocol().map(text));
                    greetings.lock().unwrap().push(greeting);
                    answer(&mut stream);
                });
            }
        });
        origin
    }

    fn greetings(&self) -> Vec<Greeting> {
        self.greetings.lock().unwrap().clone()
    }
}

/// Answers requests until the peer goes.
fn answer(stream: &mut (impl Read + Write)) {
    let mut unread = Vec::new();
    let fill = |stream: &mut dyn Read, unread: &mut Vec<u8>| {
        let mut buffer = [0; 16 * 1024];
        let count = stream.read(&mut buffer).unwrap_or(0);
        unread.extend_from_slice(&buffer[..count]);
        count > 0
    };
    loop {
        let end = loop {
            match unread.windows(4).position(|four| four == b"\r\n\r\n") {
                Some(end) => break end + 4,
                None if fill(stream, &mut unread) => {}
                None => return,
            }
        };
        let head = String::from_utf8_lossy(&unread[..end]).to_lowercase();
        let length = head.split_once("content-length: ").and_then(|(_, rest)| rest.lines().next()?.parse().ok());
        let length: usize = length.unwrap_or(0);
        while unread.len() < end + length {
            if !fill(stream, &mut unread) {
                return;
            }
        }
        unread.drain(..end + length);
        if head.contains("upgrade: websocket") {
            let switch = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
            let mut switched = stream.write_all(switch).and_then(|()| stream.flush());
            while switched.is_ok() && fill(stream, &mut unread) {
                switched = stream.write_all(&unread).and_then(|()| stream.flush());
                unread.clear();
            }
            return;
        }
        let host = head.split_once("\r\nhost: ").and_then(|(_, rest)| rest.lines().next()).unwrap_or_default();
        let body = format!("{length} for {host} {}", "x".repeat(length));
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(answer.as_bytes()).and_then(|()| stream.flush()).is_err() {
            return;
        }
    }
}

/// A gateway before one server; `tls` and `host` stand in the upstream as they are.
fn gateway(server: &str, tls: Value, host: &str) -> Gateway {
    Setup::new(free_address())
        .set("server.workers", json!(1))
        .set("upstreams.app.servers", json!([server]))
        .set("upstreams.app.host", json!(host))
        .set("upstreams.app.tls", tls)
        .start()
}

#[test]
fn a_server_is_believed_when_its_authority_is_named() {
    let authority = Authority::new();
    let origin = TlsOrigin::start(authority.server(&["127.0.0.1", "localhost"], &["http/1.1"]));
    let port = origin.address.port();
    let gateway = gateway(&format!("https://127.0.0.1:{port}"), json!({"ca": authority.file()}), "keep");
    let mut client = Connection::open(gateway.public);
    for length in [0, 1, 100_000, 3_000_000] {
        let answer = post("/public/a").body("y".repeat(length)).send_on(&mut client, gateway.public).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.text().ends_with(&format!(" {}", "x".repeat(length))), "{length}");
    }
    for _ in 0..20 {
        assert_eq!(get("/public/a").send_on(&mut client, gateway.public).unwrap().status, 200);
    }
    let greeting = (None, Some("http/1.1".to_owned()));
    assert_eq!(origin.greetings(), [greeting], "one connection serves them all, and an address is no SNI");
}

#[test]
fn a_websocket_passes_through_tls() {
    let authority = Authority::new();
    let origin = TlsOrigin::start(authority.server(&["127.0.0.1"], &[]));
    let gateway = gateway(&format!("https://{}", origin.address), json!({"ca": authority.file()}), "keep");
    let mut client = Connection::open(gateway.public);
    let raw = "GET /public/a HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\r\n";
    client.send(raw.as_bytes()).unwrap();
    assert_eq!(client.receive("GET").unwrap().status, 101);
    for length in [1, 100, 60_000] {
        client.send(&vec![b'z'; length]).unwrap();
        let mut back = 0;
        while back < length {
            back += client.take(length).unwrap().len();
        }
    }
    client.close_write();
    assert!(client.is_closed_within(PATIENCE), "the end comes back");
}

#[test]
fn a_server_is_addressed_by_its_name_or_the_one_of_host() {
    let authority = Authority::new();
    let origin = TlsOrigin::start(authority.server(&["localhost", "app.example"], &[]));
    let server = format!("https://localhost:{}", origin.address.port());
    for (host, seen_host, name) in [
        ("upstream", server.trim_start_matches("https://"), "localhost"),
        ("app.example", "app.example", "app.example"),
    ] {
        let gateway = gateway(&server, json!({"ca": authority.file()}), host);
        let answer = get("/public/a").send(gateway.public);
        assert_eq!(answer.text(), format!("0 for {seen_host} "));
        assert_eq!(origin.greetings().pop().unwrap(), (Some(name.to_owned()), None));
    }
    let gateway = gateway(&server, json!({"ca": authority.file()}), "other.example");
    assert_eq!(get("/public/a").send(gateway.public).code(), "upstream_unreachable", "the certificate is for another");
}

#[test]
fn a_server_of_an_unknown_authority_is_refused_unless_told_otherwise() {
    let (authority, other) = (Authority::new(), Authority::new());
    let origin = TlsOrigin::start(authority.server(&["127.0.0.1"], &["http/1.1"]));
    let server = format!("https://{}", origin.address);
    let strict = gateway(&server, json!({"ca": other.file()}), "keep");
    assert_eq!(get("/public/a").send(strict.public).code(), "upstream_unreachable");
    let told = |line: &Value| line.to_string().contains("tls.ca says which authorities are trusted");
    await_that("the log names the remedy", || strict.log().iter().any(told));
    let lax = gateway(&server, json!({"insecure_skip_verify": true}), "keep");
    assert_eq!(get("/public/a").send(lax.public).status, 200);
}

#[test]
fn a_server_without_tls_is_no_tls_server() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 1000]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let gateway = gateway(&format!("https://{address}"), json!({"insecure_skip_verify": true}), "keep");
    assert_eq!(get("/public/a").send(gateway.public).code(), "upstream_unreachable");
}

#[test]
fn a_file_without_an_authority_is_refused_by_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let mut gateway = Setup::new(free_address())
        .set("upstreams.app.servers", json!(["https://127.0.0.1:9"]))
        .set("upstreams.app.tls", json!({"ca": empty}))
        .spawn_in(folder);
    assert!(!gateway.await_end().success());
    assert!(gateway.output().contains("upstreams.app.tls.ca: "), "{}", gateway.output());
}

#[test]
fn a_unix_socket_is_a_server_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let gateway = gateway(&format!("unix:{}", path.display()), Value::Null, "upstream");
    assert_eq!(get("/public/a").send(gateway.public).code(), "upstream_unreachable", "nobody listens there yet");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || listener.incoming().map_while(Result::ok).for_each(|mut stream| answer(&mut stream)));
    let mut client = Connection::open(gateway.public);
    assert_eq!(get("/public/a").send_on(&mut client, gateway.public).unwrap().text(), "0 for localhost ");
    let body = "y".repeat(300_000);
    let answer = post("/public/a").body(body).send_on(&mut client, gateway.public).unwrap();
    assert_eq!(answer.body.len(), "300000 for localhost ".len() + 300_000);
}

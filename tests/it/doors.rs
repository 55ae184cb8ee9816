//! The public listener's doors: TLS, the PROXY protocol, UNIX sockets, socket activation, and how many get in.

use std::io::{self, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};
use serde_json::json;
use tempfile::TempDir;

use crate::harness::{Gateway, PATIENCE, Setup, await_that, free_address};
use crate::origin::Origin;
use crate::wire::{Connection, Response, get};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: one.test\r\nConnection: close\r\n\r\n";

static TLS12: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS12];
static TLS13: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];

/// Certificates of one authority, in the folder of the gateway.
struct Authority {
    folder: Arc<TempDir>,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let folder = Arc::new(tempfile::Builder::new().prefix("portcullis-").tempdir().unwrap());
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { folder, issuer }
    }

    fn issue(&self, name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let file = name.replace('*', "any");
        std::fs::write(self.folder.path().join(format!("{file}.pem")), cert.pem()).unwrap();
        std::fs::write(self.folder.path().join(format!("{file}.key")), key.serialize_pem()).unwrap();
        (cert.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }

    fn client(&self) -> Client {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        Client { roots, alpn: Vec::new(), versions: rustls::ALL_VERSIONS, own: None }
    }
}

/// A TLS client in the making.
struct Client {
    roots: RootCertStore,
    alpn: Vec<&'static str>,
    versions: &'static [&'static SupportedProtocolVersion],
    own: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

impl Client {
    fn offer(self, protocols: &[&'static str]) -> Self {
        Self { alpn: protocols.to_vec(), ..self }
    }

    fn shake(self, mut stream: TcpStream, name: &str) -> io::Result<Tls> {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(self.versions).unwrap();
        let config = config.with_root_certificates(self.roots);
        let mut config = match self.own {
            Some((cert, key)) => config.with_client_auth_cert(vec![cert], key).unwrap(),
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = self.alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut session = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        while session.is_handshaking() {
            session.complete_io(&mut stream)?;
        }
        Ok(StreamOwned::new(session, stream))
    }

    fn open(self, address: SocketAddr, name: &str) -> io::Result<Tls> {
        self.shake(TcpStream::connect(address)?, name)
    }
}

/// Sends a request and reads until the other end says that it is over; the status.
fn ask(mut stream: impl Read + Write) -> io::Result<(u16, String)> {
    stream.write_all(REQUEST)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    Ok((status.unwrap_or(0), answer))
}

fn setup(origin: &Origin, listener: serde_json::Value) -> Setup {
    Setup::new(origin.address).set("server.listen", json!([listener]))
}

fn over_tls(origin: &Origin, authority: &Authority, names: &[&str]) -> (Setup, SocketAddr) {
    let address = free_address();
    let pairs: Vec<_> = names
        .iter()
        .map(|name| {
            authority.issue(name);
            let file = name.replace('*', "any");
            json!({"cert": format!("{file}.pem"), "key": format!("{file}.key")})
        })
        .collect();
    let setup = setup(origin, json!({"address": address.to_string(), "tls": true}));
    (setup.set("server.tls", json!({"certificates": pairs})), address)
}

#[test]
fn tls_shows_each_name_its_certificate() {
    let (origin, authority) = (Origin::start(), Authority::new());
    let (setup, address) = over_tls(&origin, &authority, &["first.test", "*.site.test", "www.site.test"]);
    let _gateway = setup.start_in(Arc::clone(&authority.folder));
    // The client verifies the name: a wrong certificate fails the handshake.
    for name in ["first.test", "a.site.test", "www.site.test"] {
        for versions in [&TLS12, &TLS13] {
            let client = Client { versions, ..authority.client() };
            let stream = client.open(address, name).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(stream.conn.protocol_version(), Some(versions[0].version));
            assert_eq!(ask(stream).unwrap().0, 200, "{name}");
        }
    }
    let error = authority.client().open(address, "unknown.test").unwrap_err().to_string();
    assert!(error.contains("first.test"), "{error}");
    // One who names an address sends no name.
    let error = authority.client().open(address, "127.0.0.1").unwrap_err().to_string();
    assert!(error.contains("first.test"), "{error}");
}

#[test]
fn a_listener_that_is_open_keeps_its_certificates() {
    let (origin, authority) = (Origin::start(), Authority::new());
    let (setup, address) = over_tls(&origin, &authority, &["one.test"]);
    let gateway = setup.start_in(Arc::clone(&authority.folder));
    let text = std::fs::read_to_string(&gateway.config).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    config["server"]["listen"][0]["tls"] = json!(false);
    std::fs::write(&gateway.config, config.to_string()).unwrap();
    gateway.signal("HUP");
    await_that("it is reloaded", || gateway.output().contains("gateway.yaml is reloaded"));
    assert_eq!(authority.client().open(address, "one.test").and_then(ask).unwrap().0, 200);

    config["server"].as_object_mut().unwrap().remove("tls");
    std::fs::write(&gateway.config, config.to_string()).unwrap();
    gateway.signal("HUP");
    await_that("it says why not", || gateway.output().contains("server.tls: is missing, and a listener that is open"));
    assert_eq!(authority.client().open(address, "one.test").and_then(ask).unwrap().0, 200);
}

#[test]
fn alpn_agrees_on_http_1_or_2() {
    let (origin, authority) = (Origin::start(), Authority::new());
    let (setup, address) = over_tls(&origin, &authority, &["one.test"]);
    let _gateway = setup.start_in(Arc::clone(&authority.folder));
    let open = |protocols: &[&'static str]| authority.client().offer(protocols).open(address, "one.test");
    for (offered, agreed) in [
        (&[][..], None),
        (&["http/1.1"], Some("http/1.1")),
        (&["spdy/3", "http/1.1"], Some("http/1.1")),
        (&["http/1.1", "h2"], Some("h2")),
    ] {
        let mut stream = open(offered).unwrap();
        assert_eq!(stream.conn.alpn_protocol(), agreed.map(str::as_bytes), "{offered:?}");
        if agreed == Some("h2") {
            // The preface and empty SETTINGS; theirs come first in return.
            stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
            let mut frame = [0; 9];
            stream.read_exact(&mut frame).unwrap();
            assert_eq!((frame[3], frame[5..].to_vec()), (4, vec![0; 4]), "{frame:?}");
        } else {
            assert_eq!(ask(stream).unwrap().0, 200, "{offered:?}");
        }
    }
    assert!(open(&["spdy/3"]).is_err());
}

#[test]
fn a_client_certificate_is_required_where_it_is_asked_for() {
    let (origin, authority, stranger) = (Origin::start(), Authority::new(), Authority::new());
    let (setup, address) = over_tls(&origin, &authority, &["one.test"]);
    let folder = authority.folder.path().join("ca.pem");
    let setup = setup.set("server.tls.client_ca", json!(folder.to_string_lossy()));
    let _gateway = setup.start_in(Arc::clone(&authority.folder));
    for versions in [&TLS12, &TLS13] {
        let outcome = |own| {
            let client = Client { versions, own, ..authority.client() };
            client.open(address, "one.test").and_then(ask).map(|(status, _)| status)
        };
        assert_eq!(outcome(Some(authority.issue("client.test"))).unwrap(), 200);
        assert!(outcome(None).is_err());
        assert!(outcome(Some(stranger.issue("client.test"))).is_err());
    }
    assert_eq!(origin.count(), 2);
}

#[test]
fn who_speaks_http_to_a_tls_port_is_told() {
    let (origin, authority) = (Origin::start(), Authority::new());
    let (setup, address) = over_tls(&origin, &authority, &["one.test"]);
    let _gateway = setup.start_in(Arc::clone(&authority.folder));
    let answer = get("/").send(address);
    assert_eq!((answer.status, answer.text().as_str()), (400, "This port speaks TLS: use https://\n"));
    let mut connection = Connection::open(address);
    connection.send(b"\0\x01\x02").unwrap();
    assert!(connection.is_closed_within(PATIENCE));
    assert_eq!(origin.count(), 0);
}

#[test]
fn certificates_that_cannot_be_used_are_refused_at_the_start() {
    let (origin, authority) = (Origin::start(), Authority::new());
    let (setup, _) = over_tls(&origin, &authority, &["one.test", "two.test"]);
    let setup = setup.set(
        "server.tls.certificates",
        json!([
            {"cert": "one.test.pem", "key": "one.test.key"},
            {"cert": "two.test.pem", "key": "one.test.key"},
        ]),
    );
    let mut gateway = setup.spawn_in(Arc::clone(&authority.folder));
    assert_eq!(gateway.await_end().code(), Some(78));
    await_that("it says why", || gateway.output().contains("server.tls.certificates[1].key: "));
    assert!(gateway.output().contains("one.test.key: is not the key of "), "{}", gateway.output());
}

#[test]
fn who_is_refused_is_counted_and_told_of_once_in_a_while() {
    let (origin, authority) = (Origin::start(), Authority::new());
    let (setup, over_tls) = over_tls(&origin, &authority, &["one.test"]);
    let (plain, believed) = (free_address(), free_address());
    let listeners = json!([
        {"address": over_tls.to_string(), "tls": true},
        plain.to_string(),
        {"address": believed.to_string(), "proxy_protocol": true},
    ]);
    let setup = setup.set("server.listen", listeners).set("server.trusted_proxies", json!(["192.0.2.0/24"]));
    let gateway = setup.set("server.limits", json!({"per_address": 1})).start_in(Arc::clone(&authority.folder));
    for _ in 0..2 {
        assert!(try_ask_as(believed, b"PROXY UNKNOWN\r\n").is_err());
        // The place of the one before may be free a moment late.
        let told = || get("/").try_send(over_tls).is_ok_and(|answer| answer.status == 400);
        await_that("plain text is refused", told);
    }
    let _kept = await_served(plain, b"");
    for _ in 0..2 {
        assert!(try_ask_as(plain, b"").is_err());
    }
    let counted = |line: &str| {
        let metrics = get("/metrics").send(gateway.admin).text();
        metrics.contains(&format!("\nportcullis_connections_{line}"))
    };
    for line in [
        "refused_total{reason=\"untrusted_proxy\"} 2\n",
        "refused_total{reason=\"tls\"} 2\n",
        "refused_total{reason=\"connections\"} 0\n",
        "evicted_total 0\n",
    ] {
        await_that(line, || counted(line));
    }
    await_that("the others count too", || !counted("refused_total{reason=\"per_address\"} 0\n"));
    let warned = |reason| gateway.log().iter().any(|line| line["reason"] == reason);
    await_that("both are told of", || warned("untrusted_proxy") && warned("per_address"));
    let log = gateway.log();
    let told = |reason| log.iter().filter(|line| line["reason"] == reason && line["level"] == "WARN").count();
    assert_eq!((told("untrusted_proxy"), told("per_address"), told("tls")), (1, 1, 0), "{log:?}");
    let told = log.iter().find(|line| line["reason"] == "per_address").unwrap();
    assert_eq!((&told["client"], &told["key"]), (&json!("127.0.0.1"), &json!("server.limits.per_address")));
}

fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, body].concat()
}

fn behind_a_balancer(origin: &Origin, trusted: &str) -> (Setup, SocketAddr) {
    let address = free_address();
    let setup = setup(origin, json!({"address": address.to_string(), "proxy_protocol": true}));
    (setup.set("server.trusted_proxies", json!([trusted])), address)
}

fn try_ask_as(address: SocketAddr, header: &[u8]) -> io::Result<(Connection, Response)> {
    let mut connection = Connection::try_open(address)?;
    connection.send(header)?;
    let answer = get("/").send_on(&mut connection, address)?;
    Ok((connection, answer))
}

#[test]
fn the_proxy_protocol_says_who_the_client_is() {
    let origin = Origin::start();
    let (setup, address) = behind_a_balancer(&origin, "127.0.0.0/8");
    let _gateway = setup.start();
    let ends6 = |source: &str| {
        let source: Ipv6Addr = source.parse().unwrap();
        [&source.octets()[..], &Ipv6Addr::LOCALHOST.octets(), &[0x1f, 0x90, 0, 80]].concat()
    };
    let with_extension = [&[192, 0, 2, 7, 10, 0, 0, 1, 0x1f, 0x90, 0, 80][..], &[4, 0, 3, 1, 2, 3]].concat();
    for (header, client) in [
        (b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 80\r\n".to_vec(), "192.0.2.7"),
        (b"PROXY TCP6 2001:db8::1 ::1 8080 80\r\n".to_vec(), "2001:db8::1"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (v2(0x21, 0x11, &with_extension), "192.0.2.7"),
        (v2(0x21, 0x21, &ends6("2001:db8::1")), "2001:db8::1"),
        (v2(0x20, 0, b""), "127.0.0.1"),
    ] {
        let name = header.escape_ascii().to_string();
        // In one segment with the request, and byte by byte.
        let (_, answer) = try_ask_as(address, &header).expect(&name);
        assert_eq!(answer.status, 200, "{name}");
        assert_eq!(origin.last().header("x-forwarded-for"), Some(client), "{name}");
        let mut connection = Connection::open(address);
        for byte in &header {
            connection.send(&[*byte]).unwrap();
        }
        let answer = get("/").header("X-Forwarded-For", "203.0.113.9").send_on(&mut connection, address).unwrap();
        assert_eq!(answer.status, 200, "{name}");
        let seen = origin.last().header("x-forwarded-for").unwrap().to_owned();
        // The client of a balancer is a stranger; the balancer itself is believed.
        let expected = if client == "127.0.0.1" { "203.0.113.9, 127.0.0.1" } else { client };
        assert_eq!(seen, expected, "{name}");
    }
}

#[test]
fn without_a_good_header_of_a_trusted_peer_nobody_is_served() {
    let origin = Origin::start();
    let (setup, address) = behind_a_balancer(&origin, "127.0.0.1");
    let _gateway = setup.start();
    for header in [&b""[..], b"PROXY TCP4 192.0.2.7 10.0.0.1 8080\r\n", b"PROXY TCP4 ", &v2(0x21, 0x11, &[0; 11])] {
        assert!(try_ask_as(address, header).is_err(), "{}", header.escape_ascii());
    }
    let (setup, address) = behind_a_balancer(&origin, "192.0.2.0/24");
    let _gateway = setup.start();
    for header in [&b""[..], b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 80\r\n", &v2(0x20, 0, b"")] {
        assert!(try_ask_as(address, header).is_err(), "{}", header.escape_ascii());
    }
    assert_eq!(origin.count(), 0);
}

#[test]
fn a_silent_client_is_closed_before_its_header_and_handshake() {
    let (origin, authority) = (Origin::start(), Authority::new());
    let (setup, address) = over_tls(&origin, &authority, &["one.test"]);
    let setup = setup.set("server.trusted_proxies", json!(["127.0.0.1"]));
    let setup = setup.set("server.timeouts", json!({"header": "300ms"}));
    let listener = json!({"address": address.to_string(), "tls": true, "proxy_protocol": true});
    let _gateway = setup.set("server.listen", json!([listener])).start_in(Arc::clone(&authority.folder));
    let header = b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 80\r\n";
    let hello = [&header[..], b"\x16\x03\x01"].concat();
    for begin in [&b""[..], b"PROXY", &header[..], &hello[..]] {
        let mut connection = Connection::open(address);
        connection.send(begin).unwrap();
        assert!(connection.is_closed_within(PATIENCE), "{}", begin.escape_ascii());
    }
    // Both together, in time.
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(header).unwrap();
    let stream = authority.client().shake(stream, "one.test").unwrap();
    assert_eq!(ask(stream).unwrap().0, 200);
    assert_eq!(origin.last().header("x-forwarded-for"), Some("192.0.2.7"));
}

#[test]
fn a_unix_socket_is_served_and_cleared_away() {
    let origin = Origin::start();
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let path = folder.path().join("gate.sock");
    // Left by one that was killed.
    drop(UnixListener::bind(&path).unwrap());
    let configured = setup(&origin, json!("unix:gate.sock"));
    let mut gateway = configured.clone().start_in(Arc::clone(&folder));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    assert_eq!(ask(UnixStream::connect(&path).unwrap()).unwrap().0, 200);
    assert_eq!(origin.last().header("x-forwarded-for"), Some("127.0.0.1"));
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.7\r\nConnection: close\r\n\r\n").unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(origin.last().header("x-forwarded-for"), Some("192.0.2.7, 127.0.0.1"));

    let second = Arc::new(tempfile::tempdir().unwrap());
    let shared = configured.set("server.listen", json!([format!("unix:{}", path.display())]));
    let mut other = shared.spawn_in(second);
    assert_eq!(other.await_end().code(), Some(1));
    await_that("it says why", || other.output().contains("another process listens there"));

    assert_eq!(ask(UnixStream::connect(&path).unwrap()).unwrap().0, 200);
    gateway.signal("TERM");
    gateway.await_end();
    assert!(!path.exists());
}

#[test]
fn a_socket_that_was_passed_on_is_served() {
    let origin = Origin::start();
    let address = free_address();
    let socket = TcpListener::bind(address).unwrap();
    // Waits in the socket's queue until there is a gateway.
    let mut early = Connection::open(address);
    early.send(REQUEST).unwrap();
    let configured = setup(&origin, json!(address.to_string()));
    let gateway = configured.clone().passing(socket).start();
    assert_eq!(early.receive("GET").unwrap().status, 200);
    assert_eq!(get("/").send(address).status, 200);
    drop(gateway);

    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let passed = elsewhere.local_addr().unwrap();
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let mut gateway = configured.passing(elsewhere).spawn_in(folder);
    assert_eq!(gateway.await_end().code(), Some(1));
    let expected = format!("socket 0 listens on {passed}, and server.listen has {address}");
    await_that("it names both", || gateway.output().contains(&expected));
}

/// Opens connections until one is served.
fn await_served(address: SocketAddr, header: &[u8]) -> Connection {
    let mut served = None;
    await_that("a connection is served", || {
        served = try_ask_as(address, header).ok().filter(|(_, answer)| answer.status == 200);
        served.is_some()
    });
    served.unwrap().0
}

fn is_served(connection: &mut Connection, gateway: &Gateway) -> bool {
    get("/").send_on(connection, gateway.public).is_ok_and(|answer| answer.status == 200)
}

#[test]
fn when_all_places_are_taken_the_longest_idle_connection_makes_room() {
    let origin = Origin::start();
    let setup = Setup::new(origin.address).set("server.limits", json!({"connections": 3}));
    let gateway = setup.start();
    let mut open: Vec<_> = (0..3).map(|_| await_served(gateway.public, b"")).collect();
    // The first is now the youngest.
    std::thread::sleep(Duration::from_millis(250));
    assert!(is_served(&mut open[0], &gateway));
    let mut newcomer = await_served(gateway.public, b"");
    let moment = Duration::from_millis(20);
    await_that("one of the others is closed", || open[1..].iter_mut().any(|other| other.is_closed_within(moment)));
    assert!(is_served(&mut open[0], &gateway) && is_served(&mut newcomer, &gateway));
}

#[test]
fn a_newcomer_does_not_push_out_the_busy() {
    let release = Arc::new(AtomicBool::new(false));
    let hold = Arc::clone(&release);
    let origin = Origin::scripted(move |exchange| {
        await_that("it may answer", || hold.load(Ordering::Relaxed));
        exchange.echo();
    });
    let setup = Setup::new(origin.address).set("server.limits", json!({"connections": 2}));
    let gateway = setup.start();
    let mut busy: Vec<_> = (0..2).map(|_| Connection::open(gateway.public)).collect();
    for connection in &mut busy {
        connection.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    }
    origin.await_count(2);
    let mut newcomers: Vec<_> = (0..5).map(|_| Connection::open(gateway.public)).collect();
    newcomers[0].send(REQUEST).unwrap();
    for newcomer in &mut newcomers {
        assert!(!newcomer.is_closed_within(Duration::from_millis(200)), "it waits");
    }
    assert_eq!(origin.count(), 2);
    release.store(true, Ordering::Relaxed);
    for connection in &mut busy {
        assert_eq!(connection.receive("GET").unwrap().status, 200);
    }
    // Idle now: one of them goes.
    assert_eq!(newcomers[0].receive("GET").unwrap().status, 200);
    assert_eq!(origin.count(), 3);
}

#[test]
fn an_address_gets_its_share_of_connections() {
    let origin = Origin::start();
    let (setup, address) = behind_a_balancer(&origin, "127.0.0.1");
    let _gateway = setup.set("server.limits", json!({"per_address": 2})).start();
    let from = |client: &str| format!("PROXY TCP6 {client} ::1 8080 80\r\n").into_bytes();
    let one = [from("2001:db8::1"), from("2001:db8::2"), from("2001:db8::3")];
    let mut kept = vec![await_served(address, &one[0]), await_served(address, &one[1])];
    for header in &one {
        assert!(try_ask_as(address, header).is_err());
    }
    kept.push(await_served(address, &from("2001:db8:0:1::1")));
    // The balancer's own are many clients', and unlimited.
    kept.extend((0..4).map(|_| await_served(address, b"PROXY UNKNOWN\r\n")));
    assert!(try_ask_as(address, &one[2]).is_err());
    kept.remove(0);
    kept.push(await_served(address, &one[2]));
    assert!(try_ask_as(address, &one[0]).is_err());
}

#[test]
fn file_descriptors_bound_the_connections() {
    let origin = Origin::start();
    let limits =
        |connections: u32| Setup::new(origin.address).set("server.limits", json!({"connections": connections}));
    let told = |gateway: &Gateway| {
        let log = gateway.log();
        log.into_iter().find(|line| line["key"] == "server.limits.connections").map(|line| line["message"].to_string())
    };
    let gateway = limits(50).after("ulimit -S -n 64").start();
    assert_eq!(told(&gateway), None, "the soft limit is raised");

    let gateway = limits(50).after("ulimit -n 104").start();
    let text = told(&gateway).unwrap_or_default();
    assert!(text.contains("50 connections need 164 open files: 3 are taken"), "{text}");
    let mut open: Vec<_> = (0..4).map(|_| await_served(gateway.public, b"")).collect();
    let moment = Duration::from_millis(20);
    await_that("one makes room for the fourth", || open.iter_mut().any(|other| other.is_closed_within(moment)));
}

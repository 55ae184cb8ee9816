//! Under load, and not one request failed: upstreams restart in turn, the gateway reloads, certificates change, and the
//! program is replaced. ROLLING_SECONDS (3) says how long each goes on.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::json;

use crate::harness::{BINARY, Gateway, Setup, await_that, free_address};
use crate::jwt;
use crate::origin::Origin;
use crate::outside::{Outside, Tool};

fn lasting() -> Duration {
    Duration::from_secs(std::env::var("ROLLING_SECONDS").map_or(3, |text| text.parse().unwrap()))
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<rustls::StreamOwned<rustls::ClientConnection, TcpStream>>),
}

impl Stream {
    fn open(address: SocketAddr, tls: Option<&Arc<rustls::ClientConfig>>) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let Some(config) = tls else { return Ok(Self::Plain(stream)) };
        let name = ServerName::try_from("localhost").unwrap();
        let session = rustls::ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        Ok(Self::Tls(Box::new(rustls::StreamOwned::new(session, stream))))
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes),
            Self::Tls(stream) => stream.write_all(bytes),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }

    /// The status, and whether the connection ends with this answer.
    fn ask(&mut self, request: &[u8]) -> io::Result<(u16, bool)> {
        self.write_all(request)?;
        let mut answer = Vec::new();
        loop {
            let mut buffer = [0; 4096];
            let count = self.read(&mut buffer)?;
            answer.extend_from_slice(&buffer[..count]);
            let mut fields = [httparse::EMPTY_HEADER; 32];
            let mut head = httparse::Response::new(&mut fields);
            if let httparse::Status::Complete(length) = head.parse(&answer).map_err(io::Error::other)? {
                let field = |name: &str| {
                    let found = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
                    found.map(|field| String::from_utf8_lossy(field.value).to_ascii_lowercase())
                };
                let body: usize = field("content-length").unwrap().parse().unwrap();
                if answer.len() >= length + body {
                    let closes = field("connection").is_some_and(|value| value == "close");
                    return Ok((head.code.unwrap(), closes));
                }
            }
            if count == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("closed after {} bytes", answer.len()),
                ));
            }
        }
    }
}

/// Clients that ask again and again.
struct Load {
    address: SocketAddr,
    request: Vec<u8>,
    tls: Option<Arc<rustls::ClientConfig>>,
    /// Whether a connection is used until the gateway says that it closes; else for one request.
    kept: bool,
    clients: usize,
}

/// Requests under way at a time on a connection of HTTP/2.
const STREAMS: usize = 4;

#[derive(Default)]
struct Tally {
    answered: AtomicUsize,
    connections: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl Tally {
    fn note(&self, outcome: Result<u16, String>) {
        match outcome {
            Ok(200) => _ = self.answered.fetch_add(1, Ordering::Relaxed),
            Ok(status) => self.failures.lock().unwrap().push(format!("status {status}")),
            Err(error) => self.failures.lock().unwrap().push(error),
        }
    }
}

/// A client of cleartext HTTP/2. A connection that goes away is used no more; what was sent on it is to be answered.
fn http2_client(address: SocketAddr, stop: &AtomicBool, tally: &Tally) {
    let token = jwt::access("alice");
    let request = http::Request::get(format!("http://{address}/secret/x"));
    let request = request.header("authorization", format!("Bearer {token}")).body(()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        while !stop.load(Ordering::Relaxed) {
            tally.connections.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = http2_connection(address, &request, stop, tally).await {
                tally.note(Err(format!("HTTP/2: {error}")));
            }
        }
    });
}

async fn http2_connection(
    address: SocketAddr,
    request: &http::Request<()>,
    stop: &AtomicBool,
    tally: &Tally,
) -> Result<(), Box<dyn std::error::Error>> {
    let stream = tokio::net::TcpStream::connect(address).await?;
    let (mut client, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(connection);
    while !stop.load(Ordering::Relaxed) {
        client = match client.ready().await {
            Err(error) if error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR) => return Ok(()),
            ready => ready?,
        };
        let mut answers = Vec::new();
        for _ in 0..STREAMS {
            // One that cannot be sent is asked on the next connection.
            let Ok((answer, _)) = client.send_request(request.clone(), true) else { break };
            answers.push(answer);
        }
        for answer in answers {
            let (head, mut body) = match answer.await {
                // It was not sent any more, or not looked at (RFC 9113 6.8): to be asked on the next connection.
                Err(error) if error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR) => continue,
                answer => answer?.into_parts(),
            };
            while let Some(part) = body.data().await {
                body.flow_control().release_capacity(part?.len())?;
            }
            tally.note(Ok(head.status.as_u16()));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

impl Load {
    fn client(&self, stop: &AtomicBool, tally: &Tally) {
        let mut kept = None;
        while !stop.load(Ordering::Relaxed) {
            let outcome = kept.take().map_or_else(
                || {
                    tally.connections.fetch_add(1, Ordering::Relaxed);
                    Stream::open(self.address, self.tls.as_ref())
                },
                Ok,
            );
            let outcome = outcome.and_then(|mut stream| stream.ask(&self.request).map(|answer| (stream, answer)));
            match outcome {
                Ok((stream, (status, closes))) => {
                    tally.note(Ok(status));
                    kept = (self.kept && !closes && status == 200).then_some(stream);
                }
                Err(error) => tally.note(Err(error.to_string())),
            }
            // Several hundred requests a second are load enough, and leave the other tests some of the machine.
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// What stays connected, and what comes back when it was told to go.
const BOTH: &[Tool] = &[Tool::Wrk, Tool::H2load];
const RETURNING: &[Tool] = &[Tool::Wrk];

/// Runs `work` under all `loads` and `tools`; fails the test when one request failed.
#[track_caller]
fn none_fails(what: &str, loads: &[Load], tools: &[Tool], work: impl FnOnce()) {
    let (stop, tally) = (AtomicBool::new(false), Tally::default());
    let outside = outside(tools, &loads[0]);
    std::thread::scope(|scope| {
        // Of TLS there is HTTP/1 alone.
        for load in loads.iter().filter(|load| load.tls.is_none()).take(1) {
            scope.spawn(|| http2_client(load.address, &stop, &tally));
        }
        for load in loads {
            for _ in 0..load.clients {
                scope.spawn(|| load.client(&stop, &tally));
            }
        }
        // What panics in here must not leave the clients running, which the scope would wait for.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
    let (answered, failures) = (tally.answered.into_inner(), tally.failures.into_inner().unwrap());
    let connections = tally.connections.into_inner();
    println!("{what}: {answered} requests on {connections} connections, {} failed", failures.len());
    for tool in outside {
        let report = tool.report();
        assert_eq!(report.failed, 0, "{what}: {report:?}");
        assert!(report.requests > 100, "{what}: hardly a load: {report:?}");
    }
    assert!(failures.is_empty(), "{what}: {} of {answered}: {:?}", failures.len(), &failures[..failures.len().min(9)]);
    assert!(answered > 100, "{what}: hardly a load: {answered}");
}

/// For as long as the work goes on.
fn outside(tools: &[Tool], load: &Load) -> Vec<Outside> {
    let scheme = if load.tls.is_some() { "https" } else { "http" };
    let seconds = lasting().as_secs() + 1;
    tools.iter().map(|&tool| Outside::start(tool, scheme, load.address, seconds)).collect()
}

/// Kept and fresh connections, GET and POST, with a token and without.
fn loads(address: SocketAddr, tls: Option<&Arc<rustls::ClientConfig>>) -> Vec<Load> {
    let token = jwt::access("alice");
    let secret = format!("GET /secret/x HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n");
    let posted = format!(
        "POST /secret/x HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Length: 5\r\n\r\nhello"
    );
    let public = "GET /public/x HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned();
    let load =
        |request: &str, kept, clients| Load { address, request: request.into(), tls: tls.cloned(), kept, clients };
    vec![load(&secret, true, 2), load(&posted, true, 2), load(&secret, false, 1), load(&public, false, 1)]
}

/// A quiet gateway: thousands of access lines are of no use here.
fn quiet(origin: SocketAddr) -> Setup {
    Setup::new(origin).set("log.access", json!(false))
}

/// Works until the time is over.
fn repeat(every: Duration, mut work: impl FnMut(usize)) -> usize {
    let end = Instant::now() + lasting();
    for turn in 0.. {
        if Instant::now() >= end {
            return turn;
        }
        work(turn);
        std::thread::sleep(every);
    }
    unreachable!()
}

/// An application that takes no more connections when it ends, and closes each after the answer that it is at.
struct Restartable {
    address: SocketAddr,
    running: Option<Running>,
}

struct Running {
    stop: Arc<AtomicBool>,
    acceptor: std::thread::JoinHandle<()>,
}

impl Restartable {
    fn start() -> Self {
        let mut new = Self { address: free_address(), running: None };
        new.begin();
        new
    }

    fn begin(&mut self) {
        let listener = TcpListener::bind(self.address).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let acceptor = std::thread::spawn(move || {
            let mut served = Vec::new();
            loop {
                let Ok((stream, _)) = listener.accept() else { break };
                if flag.load(Ordering::Relaxed) {
                    // From here on the kernel refuses; what it took before is served.
                    listener.set_nonblocking(true).unwrap();
                }
                let flag = Arc::clone(&flag);
                served.push(std::thread::spawn(move || serve_until(&flag, stream)));
            }
            drop(listener);
            served.into_iter().for_each(|thread| thread.join().unwrap());
        });
        self.running = Some(Running { stop, acceptor });
    }

    fn end(&mut self) {
        let Some(running) = self.running.take() else { return };
        running.stop.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(self.address));
        running.acceptor.join().unwrap();
    }
}

impl Drop for Restartable {
    fn drop(&mut self) {
        self.end();
    }
}

fn serve_until(stop: &AtomicBool, mut stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    stream.set_nonblocking(false).unwrap();
    let (mut unread, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => unread.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
        while let Some(end) = unread.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            unread.drain(..end + 4);
            if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").is_err() {
                return;
            }
        }
        // Without a word before, which is the harder case: the next request may be on its way.
        if stop.load(Ordering::Relaxed) && unread.is_empty() {
            return;
        }
    }
}

#[test]
fn upstreams_restart_in_turn() {
    let mut servers = [Restartable::start(), Restartable::start()];
    let urls: Vec<_> = servers.iter().map(|server| format!("http://{}", server.address)).collect();
    let gateway = quiet(servers[0].address).set("upstreams.app.servers", json!(urls)).start();
    // What a POST did before its connection broke nobody knows, so that none is sent twice: only GET here.
    let loads: Vec<_> =
        loads(gateway.public, None).into_iter().filter(|load| load.request.starts_with(b"GET")).collect();
    none_fails("rolling restart of two upstream servers", &loads, BOTH, || {
        let turns = repeat(Duration::from_millis(100), |turn| {
            let server = &mut servers[turn % 2];
            server.end();
            std::thread::sleep(Duration::from_millis(100));
            server.begin();
        });
        assert!(turns > 5, "{turns}");
    });
}

#[test]
fn the_gateway_reloads() {
    let origin = Origin::start();
    let gateway = quiet(origin.address).start();
    let text = std::fs::read_to_string(&gateway.config).unwrap();
    let reloads = || gateway.output().matches("is reloaded").count();
    none_fails("a reload every 200 ms", &loads(gateway.public, None), BOTH, || {
        let turns = repeat(Duration::from_millis(200), |turn| {
            // Now with another route and another identity header, and now without.
            let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
            if turn % 2 == 0 {
                let more = json!({"path": "/more/*", "upstream": "app"});
                config["routes"].as_array_mut().unwrap().push(more);
                config["identity_headers"] = json!({"email": "X-Auth-Email"});
            }
            std::fs::write(&gateway.config, config.to_string()).unwrap();
            gateway.signal("HUP");
        });
        await_that("most of the reloads are done", || reloads() * 2 > turns);
        println!("{} reloads", reloads());
    });
}

/// A certificate for localhost, signed by itself.
struct Pair {
    cert: rcgen::Certificate,
    key: String,
}

fn pair() -> Pair {
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    Pair { cert, key: key.serialize_pem() }
}

fn trusting(pairs: &[Pair]) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    for pair in pairs {
        roots.add(pair.cert.der().clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    // Each handshake is to show the certificate.
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

fn certificate_shown(address: SocketAddr, config: &Arc<rustls::ClientConfig>) -> CertificateDer<'static> {
    let mut stream = Stream::open(address, Some(config)).unwrap();
    assert_eq!(stream.ask(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap().0, 200);
    let Stream::Tls(stream) = stream else { unreachable!() };
    stream.conn.peer_certificates().unwrap()[0].clone().into_owned()
}

#[test]
fn certificates_change() {
    let folder = Arc::new(tempfile::Builder::new().prefix("portcullis-").tempdir().unwrap());
    let pairs = [pair(), pair()];
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let install = |pair: &Pair| {
        // Between the two writes they do not belong together: the gateway must go on with the old pair.
        std::fs::write(&cert, pair.cert.pem()).unwrap();
        std::fs::write(&key, &pair.key).unwrap();
    };
    install(&pairs[0]);
    let origin = Origin::start();
    let address = free_address();
    let gateway = quiet(origin.address)
        .set("server.listen", json!([{"address": address.to_string(), "tls": true}]))
        .set("server.tls", json!({"certificates": [{"cert": "cert.pem", "key": "key.pem"}]}))
        .start_in(Arc::clone(&folder));
    let client = trusting(&pairs);
    none_fails("certificates change", &loads(address, Some(&client)), BOTH, || {
        let turns = repeat(Duration::from_millis(100), |turn| {
            let new = &pairs[(turn + 1) % 2];
            install(new);
            gateway.signal("HUP");
            await_that("the new certificate is shown", || certificate_shown(address, &client) == *new.cert.der());
        });
        println!("{turns} changes");
    });
}

/// A process that took over, killed when this is dropped.
struct Successor(Child);

impl Drop for Successor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Successor {
    /// Starts it, and waits until it waits for the sockets.
    fn of(gateway: &Gateway, number: usize) -> Self {
        let log = gateway.folder.path().join(format!("successor-{number}"));
        let file = std::fs::File::create(&log).unwrap();
        let mut command = Command::new(BINARY);
        command.args(["run", "--upgrade", "--config"]).arg(&gateway.config).stdin(Stdio::null());
        command.stdout(file.try_clone().unwrap()).stderr(file);
        let successor = Self(command.spawn().unwrap());
        let said = || std::fs::read_to_string(&log).unwrap();
        await_that("the successor waits for the sockets", || said().contains("SIGQUIT"));
        successor
    }

    fn quit(&self) {
        let done = Command::new("sh").arg("-c").arg(format!("kill -QUIT {}", self.0.id())).status().unwrap();
        assert!(done.success());
    }
}

#[test]
fn the_program_is_replaced() {
    let origin = Origin::start();
    let mut gateway = quiet(origin.address).set("server.timeouts", json!({"drain": "5s"})).start();
    let loads = loads(gateway.public, None);
    // Outlives the load.
    let mut serving: Option<Successor> = None;
    none_fails("upgrades", &loads, RETURNING, || {
        let turns = repeat(Duration::from_millis(200), |turn| {
            let next = Successor::of(&gateway, turn);
            match serving.replace(next) {
                None => {
                    gateway.signal("QUIT");
                    assert_eq!(gateway.await_end().code(), Some(0));
                }
                Some(mut old) => {
                    old.quit();
                    await_that("the predecessor ends", || old.0.try_wait().unwrap().is_some());
                    assert_eq!(old.0.wait().unwrap().code(), Some(0));
                }
            }
        });
        println!("{turns} upgrades");
        assert!(gateway.is_ready(), "the successor has the admin listener too");
    });
}

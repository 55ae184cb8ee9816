//! Names of upstream servers: when the address of a name changes, the new one is found at once.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::harness::{Gateway, Setup, await_that, free_port, holds_within};
use crate::origin::Origin;
use crate::upstream_resets::Guarded;
use crate::wire::get;

/// The name service of one gateway: the library of tests/faults/dns.c and its file.
struct Names {
    folder: TempDir,
}

impl Names {
    fn new() -> Self {
        let names = Self { folder: tempfile::tempdir().unwrap() };
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/dns.c");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(names.path("dns.so"))
            .args([source, "-ldl"])
            .status();
        assert!(built.unwrap().success(), "cc");
        names
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `app.test` is at `address` from now on, and each look-up takes so long.
    fn put(&self, address: IpAddr, pause: Duration) {
        let new = self.path("new");
        std::fs::write(&new, format!("app.test {address} {}\n", pause.as_millis())).unwrap();
        std::fs::rename(new, self.path("hosts")).unwrap();
    }

    /// Look-ups so far.
    fn count(&self) -> u64 {
        std::fs::metadata(self.path("hosts.count")).map_or(0, |file| file.len())
    }

    /// A gateway of one worker with the upstream `app` at `app.test:port`, and `/other` at `other`.
    fn gateway(&self, port: u16, protocol: &str, other: SocketAddr) -> Gateway {
        Setup::new(other)
            .set("server.workers", json!(1))
            .set("upstreams.app.servers", json!([format!("http://app.test:{port}")]))
            .set("upstreams.app.protocol", json!(protocol))
            .set("upstreams.other", json!({"servers": [format!("http://{other}")]}))
            .and_routes(json!([{"path": "/other", "upstream": "other", "auth": "public"}]))
            .env("LD_PRELOAD", self.path("dns.so").to_str().unwrap())
            .env("DNS_HOSTS", self.path("hosts").to_str().unwrap())
            .start()
    }
}

/// An application on HTTP/1.1 that can be stopped: then its address refuses connections.
struct App {
    stopped: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl App {
    fn start(address: SocketAddr, status: u16) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let stopped = Arc::new(AtomicBool::new(false));
        let own = Arc::clone(&stopped);
        let thread = std::thread::spawn(move || {
            while !own.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => answer(stream, status),
                    Err(_) => std::thread::sleep(Duration::from_millis(2)),
                }
            }
        });
        Self { stopped, thread: Some(thread) }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Answers one request, and closes.
fn answer(mut stream: TcpStream, status: u16) {
    stream.set_nonblocking(false).unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
        head.push(byte[0]);
    }
    let _ = write!(stream, "HTTP/1.1 {status} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
}

fn local(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), port))
}

/// An address that neither takes nor refuses connections.
fn silent(address: SocketAddr) -> (socket2::Socket, Vec<TcpStream>) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.listen(0).unwrap();
    let fill = |_| TcpStream::connect_timeout(&address, Duration::from_millis(50)).ok();
    let held = (0..4).map_while(fill).collect();
    (socket, held)
}

#[test]
fn application_at_a_new_address_is_found_at_once() {
    let other = Origin::start();
    // Whether the old address refuses connections, or says nothing.
    for refuses in [true, false] {
        let (names, port) = (Names::new(), free_port());
        names.put(local(2, port).ip(), Duration::ZERO);
        let old = App::start(local(2, port), 201);
        let gateway = names.gateway(port, "http1", other.address);
        assert_eq!(get("/public/a").send(gateway.public).status, 201);
        // Longer than look-ups must be apart.
        std::thread::sleep(Duration::from_millis(1200));
        drop(old);
        let _silent = (!refuses).then(|| silent(local(2, port)));
        let _new = App::start(local(3, port), 202);
        names.put(local(3, port).ip(), Duration::ZERO);
        let begun = Instant::now();
        let answer = get("/public/a").send(gateway.public);
        println!("old address refuses: {refuses}; answered after {:?}", begun.elapsed());
        assert_eq!(answer.status, 202, "{}", gateway.output());
        let begun = Instant::now();
        assert_eq!(get("/public/a").send(gateway.public).status, 202);
        assert!(begun.elapsed() < Duration::from_millis(500), "the old address is not tried again");
    }
}

#[test]
fn so_is_one_on_http_2() {
    let other = Origin::start();
    let (names, old) = (Names::new(), Guarded::start());
    let port = old.address.port();
    names.put(old.address.ip(), Duration::ZERO);
    let gateway = names.gateway(port, "h2", other.address);
    assert_eq!(get("/public/a").send(gateway.public).status, 200);
    std::thread::sleep(Duration::from_millis(1200));
    old.stop();
    let new = Guarded::start_at(local(3, port));
    names.put(new.address.ip(), Duration::ZERO);
    assert_eq!(get("/public/a").send(gateway.public).status, 200, "{}", gateway.output());
}

#[test]
fn name_of_an_application_that_is_down_is_looked_up_once_a_second() {
    let other = Origin::start();
    let (names, port) = (Names::new(), free_port());
    // Slower than any name service should be.
    names.put(local(2, port).ip(), Duration::from_millis(300));
    let gateway = names.gateway(port, "http1", other.address);
    assert_eq!(get("/public/a").send(gateway.public).code(), "upstream_unreachable");
    let public = gateway.public;
    let (done, before, begun) = (Arc::new(AtomicBool::new(false)), names.count(), Instant::now());
    let hammer = |_| {
        let done = Arc::clone(&done);
        std::thread::spawn(move || {
            let mut count = 0;
            while !done.load(Ordering::Relaxed) {
                assert_eq!(get("/public/a").send(public).code(), "upstream_unreachable");
                count += 1;
            }
            count
        })
    };
    let hostile: Vec<_> = (0..4).map(hammer).collect();
    let mut times: Vec<Duration> = Vec::new();
    while begun.elapsed() < Duration::from_secs(3) {
        let begun = Instant::now();
        assert_eq!(get("/other").send(public).status, 200);
        times.push(begun.elapsed());
    }
    done.store(true, Ordering::Relaxed);
    let asked: usize = hostile.into_iter().map(|thread| thread.join().unwrap()).sum();
    times.sort();
    let count = names.count() - before;
    println!(
        "{asked} requests for the application that is down, {count} look-ups in {:?}; {} requests for another: median {:?}, longest {:?}",
        begun.elapsed(),
        times.len(),
        times[times.len() / 2],
        times[times.len() - 1],
    );
    assert!((2..=5).contains(&count), "{count}");
    assert!(times[times.len() / 2] < Duration::from_millis(100));
    let address = local(2, port).to_string();
    let names_it =
        || gateway.log().iter().any(|line| line["cause"].as_str().is_some_and(|cause| cause.contains(&address)));
    await_that("the log names the address that was tried", names_it);
    // It comes back where it was.
    let _app = App::start(local(2, port), 201);
    assert!(holds_within(Duration::from_secs(1), || get("/public/a").send(public).status == 201));
}

#[test]
fn log_names_an_address_that_does_not_answer() {
    let other = Origin::start();
    let (names, port) = (Names::new(), free_port());
    names.put(local(2, port).ip(), Duration::ZERO);
    let _silent = silent(local(2, port));
    let gateway = names.gateway(port, "http1", other.address);
    assert_eq!(get("/public/a").send(gateway.public).code(), "upstream_timeout");
    let address = local(2, port).to_string();
    let names_it =
        || gateway.log().iter().any(|line| line["cause"].as_str().is_some_and(|cause| cause.contains(&address)));
    await_that("the log names the address that was tried", names_it);
}

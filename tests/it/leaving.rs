//! How a gateway leaves: behind a load balancer, with tunnels open, and with a successor or without.

use std::io::ErrorKind;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::frames::{self, ACK, Client, END_HEADERS, END_STREAM, Fate, HEADERS, PING, UNKNOWN, block, frame};
use crate::harness::{BINARY, Gateway, PATIENCE, Setup, await_that, holds_within};
use crate::origin::Origin;
use crate::wire::{Connection, get};

/// A successor, killed when this is dropped.
struct Successor(Child);

impl Drop for Successor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn succeed(gateway: &Gateway) -> Successor {
    let mut command = Command::new(BINARY);
    command.args(["run", "--upgrade", "--config"]).arg(&gateway.config);
    Successor(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

#[test]
fn a_load_balancer_that_keeps_asking_hears_of_it_before_connections_are_refused() {
    let origin = Origin::start();
    let mut gateway = Setup::new(origin.address).start();
    let asking = Instant::now();
    while asking.elapsed() < Duration::from_millis(2300) {
        assert!(gateway.is_ready());
        std::thread::sleep(Duration::from_millis(100));
    }
    gateway.signal("TERM");
    let ready = || get("/readyz").try_send(gateway.admin).map(|answer| answer.status).ok();
    await_that("/readyz turns", || ready() == Some(503));
    assert_eq!(get("/").send(gateway.public).status, 200, "a new connection, after that");
    assert_eq!(ready(), Some(503));
    assert_eq!(get("/").send(gateway.public).status, 200);
    assert_eq!(ready(), Some(503));
    assert!(gateway.await_end().success(), "it was told three times");
}

#[test]
fn without_one_it_stops_at_once() {
    let origin = Origin::start();
    let mut gateway = Setup::new(origin.address).start();
    gateway.signal("TERM");
    assert!(holds_within(Duration::from_secs(2), || gateway.poll_end().is_some()));
}

#[test]
fn the_health_command_is_no_load_balancer() {
    let origin = Origin::start();
    let mut gateway = Setup::new(origin.address).start();
    let asking = Instant::now();
    while asking.elapsed() < Duration::from_millis(2300) {
        assert!(gateway.cli(&["health"], "").status.success());
        std::thread::sleep(Duration::from_millis(200));
    }
    gateway.signal("TERM");
    assert!(gateway.await_end().success());
    assert!(!gateway.output().contains("leaving"), "{}", gateway.output());
}

#[test]
fn a_client_of_http_2_that_is_told_to_go_is_not_reset() {
    let origin = Origin::start();
    let mut gateway = Setup::new(origin.address).start();
    let mut client = Client::open(gateway.public);
    let asked = block(&frames::get("a", "/"));
    client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &asked)).unwrap();
    assert_eq!(client.fate(1), Fate::Answered(200));
    gateway.signal("TERM");
    let ended = loop {
        match client.next() {
            Ok(came) if came.kind == PING && came.flags == 0 => {
                client.send(&frame(PING, ACK, 0, &came.payload)).unwrap();
            }
            Ok(_) => {}
            Err(error) => break error.kind(),
        }
    };
    assert_eq!(ended, ErrorKind::UnexpectedEof, "an end, not a reset");
    // What it writes meanwhile, it would learn of a reset by: it has not read all of its answers, perhaps.
    let crossing = frame(UNKNOWN, 0, 0, &[0; 1024]);
    for _ in 0..20 {
        client.send(&crossing).unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(client);
    assert!(gateway.await_end().success());
}

#[test]
fn what_outlasts_the_drain_is_cut_off() {
    let origin = Origin::scripted(|exchange| {
        exchange.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
        while !exchange.is_closing() {
            exchange.write(b"1\r\nx\r\n");
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let mut gateway = Setup::new(origin.address).set("server.timeouts", json!({"drain": "700ms"})).start();
    let mut stream = Connection::open(gateway.public);
    stream.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(stream.receive_head().unwrap().status, 200);
    let begin = Instant::now();
    gateway.signal("TERM");
    assert!(gateway.await_end().success());
    assert!(begin.elapsed() >= Duration::from_millis(650), "{:?}", begin.elapsed());
}

#[test]
fn without_a_successor_it_goes_on_serving() {
    let origin = Origin::start();
    let mut gateway = Setup::new(origin.address).start();
    gateway.signal("QUIT");
    await_that("it says so", || gateway.output().contains("no hand-over"));
    assert!(gateway.output().contains("portcullis run --upgrade"), "and what to do: {}", gateway.output());
    assert_eq!(get("/").send(gateway.public).status, 200);
    assert!(gateway.poll_end().is_none());
}

#[test]
fn a_successor_takes_unix_sockets_and_their_files() {
    let origin = Origin::start();
    let folder = Arc::new(tempfile::Builder::new().prefix("portcullis-").tempdir().unwrap());
    let path = folder.path().join("public.sock");
    let mut gateway = Setup::new(origin.address).set("server.listen", json!(["unix:public.sock"])).start_in(folder);
    let ask = || {
        use std::io::{Read, Write};
        let mut stream = std::os::unix::net::UnixStream::connect(&path).ok()?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        text.starts_with("HTTP/1.1 200").then_some(())
    };
    assert!(ask().is_some());
    let second = succeed(&gateway);
    await_that("the successor takes over", || {
        gateway.signal("QUIT");
        holds_within(Duration::from_millis(300), || gateway.poll_end().is_some())
    });
    assert!(path.exists() && ask().is_some(), "the file stays, and somebody answers");
    let done = Command::new("sh").arg("-c").arg(format!("kill -TERM {}", second.0.id())).status().unwrap();
    assert!(done.success());
    await_that("the file goes with the last one", || !path.exists());
}

#[test]
fn a_kept_connection_that_has_been_idle_may_still_ask_when_the_drain_begins() {
    let origin = Origin::start();
    let mut gateway = Setup::new(origin.address).start();
    let mut kept = Connection::open(gateway.public);
    assert_eq!(get("/").send_on(&mut kept, gateway.public).unwrap().status, 200);
    let mut second = Client::open(gateway.public);
    second.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&frames::get("a", "/")))).unwrap();
    assert_eq!(second.fate(1), Fate::Answered(200));
    std::thread::sleep(Duration::from_millis(900));
    gateway.signal("TERM");
    std::thread::sleep(Duration::from_millis(50));
    let last = get("/").send_on(&mut kept, gateway.public).unwrap();
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));
    let goodbye = std::iter::from_fn(|| second.next().ok()).find(|came| came.kind == frames::GOAWAY).unwrap();
    assert_eq!(goodbye.payload[..4], [0x7f, 0xff, 0xff, 0xff], "streams on their way count");
    assert!(gateway.await_end().success());
}

#[test]
fn who_asks_after_a_handover_meets_the_successor() {
    let release = Arc::new(AtomicBool::new(false));
    let hold = Arc::clone(&release);
    let origin = Origin::scripted(move |exchange| {
        await_that("it may answer", || hold.load(Ordering::Relaxed));
        exchange.echo();
    });
    let mut gateway = Setup::new(origin.address).start();
    let mut kept = Connection::open(gateway.admin);
    assert_eq!(get("/readyz").send_on(&mut kept, gateway.admin).unwrap().status, 200);
    let mut slow = Connection::open(gateway.public);
    slow.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    origin.await_count(1);
    let _second = succeed(&gateway);
    await_that("the successor takes over", || {
        gateway.signal("QUIT");
        holds_within(Duration::from_millis(300), || gateway.output().contains("the successor serves"))
    });
    for _ in 0..20 {
        assert_eq!(get("/readyz").send(gateway.admin).status, 200);
    }
    assert!(kept.is_closed_within(PATIENCE), "so does who kept his connection");
    assert!(gateway.poll_end().is_none(), "all the while");
    release.store(true, Ordering::Relaxed);
    assert_eq!(slow.receive("GET").unwrap().status, 200);
    assert!(gateway.await_end().success());
}

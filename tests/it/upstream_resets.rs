//! HTTP/2 connections to a server, shared by clients: one that resets its streams ends no request of another, and what
//! the server did not process is sent again.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Request, Response};
use serde_json::{Value, json};

use crate::frames::{
    ACK, Client, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, block, frame,
    get as get_fields,
};
use crate::harness::{Gateway, Setup, await_that, holds_within};
use crate::wire::{Connection, get, post, request};

/// What a server on HTTP/2 has seen.
#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    /// Connections that its guard against resets has ended.
    ended: AtomicUsize,
    requests: AtomicUsize,
    resets: AtomicUsize,
}

/// A server with the guard of the h2 crate: more than twenty streams that are reset before it accepts them end the
/// connection.
pub struct Guarded {
    pub address: SocketAddr,
    seen: Arc<Seen>,
    stopped: tokio::sync::oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Guarded {
    pub fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    pub fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (address, seen) = (listener.local_addr().unwrap(), Arc::<Seen>::default());
        let (stopped, stop) = tokio::sync::oneshot::channel();
        let own = Arc::clone(&seen);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let accepting = async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    own.connections.fetch_add(1, Ordering::SeqCst);
                    tokio::spawn(serve(stream, Arc::clone(&own)));
                }
            };
            runtime.block_on(async {
                tokio::select! { () = accepting => {}, _ = stop => {} }
            });
        });
        Self { address, seen, stopped, thread }
    }

    /// Closes all, and waits until that is done.
    pub fn stop(self) {
        drop(self.stopped);
        self.thread.join().unwrap();
    }

    fn gateway(&self, keys: &[(&str, Value)]) -> Gateway {
        gateway(self.address, keys)
    }
}

/// A gateway with one worker before a server on HTTP/2.
fn gateway(address: SocketAddr, keys: &[(&str, Value)]) -> Gateway {
    let setup = Setup::new(address).set("server.workers", json!(1)).set("upstreams.app.protocol", json!("h2"));
    keys.iter().fold(setup, |setup, (path, value)| setup.set(path, value.clone())).start()
}

async fn serve(stream: tokio::net::TcpStream, seen: Arc<Seen>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(accepted) = connection.accept().await {
        match accepted {
            Ok((request, respond)) => {
                seen.requests.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(answer(request, respond, Arc::clone(&seen)));
            }
            Err(error) => {
                seen.ended.fetch_add(usize::from(error.reason() == Some(Reason::ENHANCE_YOUR_CALM)), Ordering::SeqCst);
                return;
            }
        }
    }
}

async fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, seen: Arc<Seen>) {
    let (head, mut body) = request.into_parts();
    if head.uri.path() == "/public/hold" {
        let _ = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
        seen.resets.fetch_add(1, Ordering::SeqCst);
        return;
    }
    if head.uri.path() == "/public/echo" {
        let Ok(mut stream) = respond.send_response(Response::new(()), false) else { return };
        while let Some(Ok(part)) = body.data().await {
            let _ = body.flow_control().release_capacity(part.len());
            let _ = stream.send_data(part, false);
        }
        let _ = stream.send_data(Bytes::new(), true);
        return;
    }
    if head.uri.path() == "/public/flood" {
        let Ok(mut stream) = respond.send_response(Response::new(()), false) else { return };
        let mut left = 900_000;
        while left > 0 {
            stream.reserve_capacity(left);
            let Some(Ok(room)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else { return };
            let _ = stream.send_data(Bytes::from(vec![0; room.min(left)]), false);
            left = left.saturating_sub(room);
        }
        let _ = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
        return;
    }
    if head.uri.path() == "/public/late-end" {
        let response = Response::builder().header("content-length", 5).body(()).unwrap();
        let Ok(mut stream) = respond.send_response(response, false) else { return };
        let _ = stream.send_data(Bytes::from_static(b"hello"), false);
        tokio::time::sleep(Duration::from_millis(20)).await;
        let _ = stream.send_data(Bytes::new(), true);
        return;
    }
    let mut whole = Vec::new();
    while let Some(part) = body.data().await {
        let Ok(part) = part else { return };
        let _ = body.flow_control().release_capacity(part.len());
        whole.extend_from_slice(&part);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    if let Ok(mut stream) = respond.send_response(Response::new(()), false) {
        let _ = stream.send_data(whole.into(), true);
    }
}

/// A connection from another address of the loopback network.
fn connect_from(source: [u8; 4], target: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::from(source), 0)).into()).unwrap();
    socket.connect(&target.into()).unwrap();
    socket.into()
}

/// `count` requests that are reset in the same segment.
fn reset_at_once(stream: TcpStream, path: &str, count: u32) {
    let mut client = Client::on(stream);
    let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(SETTINGS, ACK, 0, &[])].concat();
    for id in (0..count).map(|n| 2 * n + 1) {
        bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, id, &block(&get_fields("x", path))));
        bytes.extend(frame(RST_STREAM, 0, id, &8_u32.to_be_bytes()));
    }
    let _ = client.send(&bytes);
    // Until the gateway has read all: a PING is answered behind it.
    let _ = client.send(&frame(PING, 0, 0, b"00000000"));
    while client.next().is_ok_and(|came| came.kind != PING) {}
}

/// `count` connections that send `bytes` and are closed at once.
fn hang_up(source: [u8; 4], target: SocketAddr, bytes: &[u8], count: usize) {
    let streams: Vec<_> = (0..count).map(|_| connect_from(source, target)).collect();
    for mut stream in &streams {
        let _ = stream.write_all(bytes);
    }
    // So many come at once that some are closed before they are read; the next round waits for none of them.
    drop(streams);
}

/// `count` requests that are reset when they are answered.
fn abandon(stream: TcpStream, path: &str, count: u32) {
    let mut client = Client::on(stream);
    let ids = || (0..count).map(|n| 2 * n + 1);
    let open = |id| frame(HEADERS, END_HEADERS | END_STREAM, id, &block(&get_fields("x", path)));
    let _ = client.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(SETTINGS, ACK, 0, &[])].concat());
    let _ = client.send(&ids().flat_map(open).collect::<Vec<_>>());
    let mut answered = 0;
    while answered < count
        && client.next().is_ok_and(|came| {
            answered += u32::from(came.kind == HEADERS);
            true
        })
    {}
    let _ = client.send(&ids().flat_map(|id| frame(RST_STREAM, 0, id, &8_u32.to_be_bytes())).collect::<Vec<_>>());
    let _ = client.send(&frame(PING, 0, 0, b"00000000"));
    while client.next().is_ok_and(|came| came.kind != PING) {}
}

/// Ten requests from each address whose bodies of `length` bytes the server does not read.
fn fill(sources: &[[u8; 4]], target: SocketAddr, length: usize) {
    let streams = (0..10).flat_map(|_| sources).map(|source| connect_from(*source, target));
    let streams: Vec<_> = streams.collect();
    for mut stream in &streams {
        let head = format!("POST /public/hold HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
        stream.set_nonblocking(true).unwrap();
        let _ = stream.write(&[head.as_bytes(), &vec![b'x'; length]].concat());
    }
    std::thread::sleep(Duration::from_millis(500));
}

/// 300 chunks of one byte.
fn trickle(mut stream: &TcpStream, path: &str) {
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    let _ = stream.write_all(head.as_bytes());
    for _ in 0..300 {
        let _ = stream.write_all(b"1\r\nx\r\n");
        std::thread::sleep(Duration::from_micros(300));
    }
}

/// 100 requests of ten clients: how many were not answered as they should be, and all times, sorted.
fn others(gateway: &Gateway) -> (usize, Vec<Duration>) {
    let public = gateway.public;
    let client = move |number: usize| {
        let mut client = Connection::open(public);
        let mut times = Vec::new();
        let mut failed = 0;
        for n in 0..10 {
            let ask = match (number + n) % 2 {
                0 => request("GET", "/public/slow"),
                _ => request("POST", "/public/slow").body("hello"),
            };
            let begun = Instant::now();
            let good = ask.send_on(&mut client, public).is_ok_and(|answer| answer.status == 200);
            times.push(begun.elapsed());
            if !good {
                failed += 1;
                client = Connection::open(public);
            }
        }
        (failed, times)
    };
    let threads: Vec<_> = (0..10).map(|number| std::thread::spawn(move || client(number))).collect();
    let (mut failed, mut times) = (0, Vec::new());
    for (count, own) in threads.into_iter().map(|thread| thread.join().unwrap()) {
        failed += count;
        times.extend(own);
    }
    times.sort();
    (failed, times)
}

/// Runs the 100 requests while `attack` is repeated, and prints how long they took.
fn attacked(what: &str, gateway: &Gateway, attack: impl Fn(u32) + Send + 'static) -> (usize, Vec<Duration>) {
    let done = Arc::new(AtomicBool::new(false));
    let own = Arc::clone(&done);
    let hostile = std::thread::spawn(move || {
        let mut rounds = 0;
        while !own.load(Ordering::Relaxed) {
            attack(rounds);
            rounds += 1;
        }
        rounds
    });
    // The attack has begun.
    std::thread::sleep(Duration::from_millis(50));
    let (failed, times) = others(gateway);
    done.store(true, Ordering::Relaxed);
    let rounds = hostile.join().unwrap();
    let (median, last) = (times[times.len() / 2], times[times.len() - 1]);
    println!(
        "{what}: {failed} of {} requests of others failed; median {median:?}, longest {last:?}; {rounds} rounds",
        times.len()
    );
    (failed, times)
}

#[test]
fn hostile_client_ends_no_request_of_others() {
    type Attack = Box<dyn Fn(u32) + Send>;
    type Kind = (&'static str, fn(SocketAddr) -> Attack);
    let kinds: [Kind; 11] = [
        ("bodies that fill the window of the connection", |public| {
            Box::new(move |_| fill(&[[127, 0, 0, 2]], public, 299_999))
        }),
        ("short ones from five addresses", |public| {
            let sources: Vec<_> = (2..7).map(|last| [127, 0, 0, last]).collect();
            Box::new(move |_| fill(&sources, public, 16_000))
        }),
        ("downloads that are reset", |public| {
            Box::new(move |_| abandon(connect_from([127, 0, 0, 2], public), "/public/flood", 100))
        }),
        ("small parts that the server does not read", |public| {
            Box::new(move |_| trickle(&connect_from([127, 0, 0, 2], public), "/public/hold"))
        }),
        ("the same on many streams", |public| {
            Box::new(move |_| {
                let streams: Vec<_> = (0..50).map(|_| connect_from([127, 0, 0, 2], public)).collect();
                std::thread::scope(|scope| {
                    for stream in &streams {
                        scope.spawn(|| trickle(stream, "/public/hold"));
                    }
                });
            })
        }),
        ("HEADERS, RST_STREAM", |public| {
            Box::new(move |_| reset_at_once(connect_from([127, 0, 0, 2], public), "/public/slow", 25))
        }),
        ("the same, unanswered", |public| {
            Box::new(move |_| reset_at_once(connect_from([127, 0, 0, 2], public), "/public/hold", 25))
        }),
        ("the same from many addresses", |public| {
            Box::new(move |round| {
                let [a, b, ..] = round.to_le_bytes();
                reset_at_once(connect_from([127, 1, b, a], public), "/public/hold", 25);
            })
        }),
        ("HTTP/1.1 clients that hang up", |public| {
            let ask = b"GET /public/hold HTTP/1.1\r\nHost: x\r\n\r\n";
            Box::new(move |_| hang_up([127, 0, 0, 2], public, ask, 50))
        }),
        ("bodies that break off", |public| {
            let ask = b"POST /public/slow HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc";
            Box::new(move |_| hang_up([127, 0, 0, 2], public, ask, 50))
        }),
        ("bodies that are too large", |public| {
            let ask = b"POST /public/slow HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0bb9\r\n";
            let ask = [&ask[..], &[b'x'; 3001]].concat();
            Box::new(move |_| hang_up([127, 0, 0, 2], public, &ask, 50))
        }),
    ];
    for (what, attack) in kinds {
        let origin = Guarded::start();
        let limit = if what == "bodies that are too large" { 3000 } else { 1_000_000 };
        let gateway = origin.gateway(&[("server.limits", json!({"body": limit}))]);
        let (failed, times) = attacked(what, &gateway, attack(gateway.public));
        let seen = &origin.seen;
        println!(
            "    {} connections, {} ended by the guard, {} requests, {} reset",
            seen.connections.load(Ordering::SeqCst),
            seen.ended.load(Ordering::SeqCst),
            seen.requests.load(Ordering::SeqCst),
            seen.resets.load(Ordering::SeqCst),
        );
        assert_eq!(failed, 0, "{what}");
        assert_eq!(seen.ended.load(Ordering::SeqCst), 0, "{what}: no connection is ended");
        assert!(times[50] < Duration::from_millis(1000), "{what}: {:?}", times[50]);
        drop(gateway);
        origin.stop();
    }
}

/// A server that reads frames, and answers each connection's first request as `manner` says by the connection's number.
fn framed(
    manner: impl Fn(usize, &mut Client, u32) -> bool + Send + Sync + 'static,
) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let bodies: Arc<Mutex<Vec<String>>> = Arc::default();
    let (own, manner) = (Arc::clone(&bodies), Arc::new(manner));
    std::thread::spawn(move || {
        for (number, mut stream) in listener.incoming().map_while(Result::ok).enumerate() {
            let (bodies, manner) = (Arc::clone(&own), Arc::clone(&manner));
            std::thread::spawn(move || {
                let mut preface = [0; PREFACE.len()];
                if stream.read_exact(&mut preface).is_err() || preface != *PREFACE {
                    return;
                }
                let mut client = Client::on(stream);
                client.patience(Duration::from_secs(30));
                let _ = client.send(&frame(SETTINGS, 0, 0, &[]));
                let (mut body, mut takes) = (Vec::new(), true);
                while let Ok(came) = client.next() {
                    let ends = came.flags & END_STREAM != 0;
                    match came.kind {
                        SETTINGS if came.flags & ACK == 0 => drop(client.send(&frame(SETTINGS, ACK, 0, &[]))),
                        PING if came.flags & ACK == 0 => drop(client.send(&frame(PING, ACK, 0, &came.payload))),
                        HEADERS => {
                            body.clear();
                            takes = manner(number, &mut client, came.stream);
                        }
                        DATA => body.extend(&came.payload),
                        _ => {}
                    }
                    if matches!(came.kind, HEADERS | DATA) && ends && takes {
                        bodies.lock().unwrap().push(String::from_utf8_lossy(&body).into_owned());
                        let _ = client.send(&frame(HEADERS, END_HEADERS | END_STREAM, came.stream, &[0x88]));
                    }
                }
            });
        }
    });
    (address, bodies)
}

/// The first connection says that it processed nothing; the next ones answer.
fn goes_away(number: usize, client: &mut Client, _: u32) -> bool {
    if number == 0 {
        let _ = client.send(&frame(GOAWAY, 0, 0, &[0_u32.to_be_bytes(), 0_u32.to_be_bytes()].concat()));
    }
    number > 0
}

/// The first connection refuses all streams.
fn refuses(number: usize, client: &mut Client, stream: u32) -> bool {
    if number == 0 {
        let _ = client.send(&frame(RST_STREAM, 0, stream, &7_u32.to_be_bytes()));
    }
    number > 0
}

#[test]
fn unprocessed_request_is_sent_again_whatever_its_method() {
    type Manner = fn(usize, &mut Client, u32) -> bool;
    for (what, manner) in [("GOAWAY", goes_away as Manner), ("REFUSED_STREAM", refuses)] {
        let long = "x".repeat(60_000);
        for (method, body, status) in [
            ("GET", "", 200),
            ("DELETE", "", 200),
            ("POST", "", 200),
            ("POST", "hello", 200),
            ("PUT", &long, 200),
            ("PATCH", &"x".repeat(70_000), 502),
        ] {
            let (address, bodies) = framed(manner);
            let gateway = gateway(address, &[]);
            let mut ask = request(method, "/public/x");
            if !body.is_empty() {
                ask = ask.body(body);
            }
            let answer = ask.send(gateway.public);
            assert_eq!(answer.status, status, "{what}, {method}, {} bytes: {answer:?}", body.len());
            let expected: &[String] = if status == 200 { &[body.to_owned()] } else { &[] };
            assert!(*bodies.lock().unwrap() == expected, "{what}, {method}: the whole body, once");
        }
    }
}

#[test]
fn body_that_is_still_arriving_is_sent_again_from_its_beginning() {
    let (address, bodies) = framed(refuses);
    let gateway = gateway(address, &[]);
    let mut client = Connection::open(gateway.public);
    client.send(b"POST /public/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").unwrap();
    // The first connection refuses the stream before this part is there.
    std::thread::sleep(Duration::from_millis(300));
    client.send(b"7\r\n second\r\n0\r\n\r\n").unwrap();
    assert_eq!(client.receive_head().unwrap().status, 200);
    assert_eq!(*bodies.lock().unwrap(), ["first second"]);
}

#[test]
fn request_is_sent_again_once() {
    let count = Arc::new(AtomicUsize::new(0));
    let own = Arc::clone(&count);
    let (address, _) = framed(move |_, client, stream| {
        own.fetch_add(1, Ordering::SeqCst);
        let _ = client.send(&frame(RST_STREAM, 0, stream, &7_u32.to_be_bytes()));
        false
    });
    let gateway = gateway(address, &[]);
    for body in ["", "hello"] {
        count.store(0, Ordering::SeqCst);
        let answer = request("POST", "/public/x").body(body).send(gateway.public);
        assert_eq!((answer.status, answer.code()), (502, "upstream_unreachable"));
        assert_eq!(count.load(Ordering::SeqCst), 2);
    }
}

#[test]
fn caller_is_checked_again_before_a_retry() {
    let refuse = Arc::new(AtomicBool::new(false));
    let (own, asked) = (Arc::clone(&refuse), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&asked);
    let (address, bodies) = framed(move |number, client, stream| {
        seen.fetch_add(1, Ordering::SeqCst);
        if number == 0 {
            await_that("the token is revoked", || own.load(Ordering::SeqCst));
            let _ = client.send(&frame(RST_STREAM, 0, stream, &7_u32.to_be_bytes()));
        }
        number > 0
    });
    let gateway = gateway(address, &[]);
    let token = gateway.register("alice").access;
    let (public, own) = (gateway.public, token.clone());
    let asking = std::thread::spawn(move || post("/secret").bearer(&own).body("x").send(public));
    await_that("the server has the request", || asked.load(Ordering::SeqCst) == 1);
    assert_eq!(post("/logout/access").bearer(&token).send(gateway.public).status, 200);
    refuse.store(true, Ordering::SeqCst);
    let answer = asking.join().unwrap();
    assert_eq!((answer.status, answer.code()), (401, "token_revoked"));
    assert!(bodies.lock().unwrap().is_empty(), "it is not sent again");
}

#[test]
fn stream_that_its_client_leaves_is_reset_at_last() {
    let origin = Guarded::start();
    let gateway = origin.gateway(&[]);
    assert_eq!(get("/public/slow").send(gateway.public).status, 200);
    let begun = Instant::now();
    let mut client = Client::on(connect_from([127, 0, 0, 2], gateway.public));
    client.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(SETTINGS, ACK, 0, &[])].concat()).unwrap();
    let ids = || (0..40).map(|n| 2 * n + 1);
    let open = |id| frame(HEADERS, END_HEADERS | END_STREAM, id, &block(&get_fields("x", "/public/hold")));
    client.send(&ids().flat_map(open).collect::<Vec<_>>()).unwrap();
    await_that("the server has them", || origin.seen.requests.load(Ordering::SeqCst) == 41);
    client.send(&ids().flat_map(|id| frame(RST_STREAM, 0, id, &8_u32.to_be_bytes())).collect::<Vec<_>>()).unwrap();
    let resets = || origin.seen.resets.load(Ordering::SeqCst);
    await_that("eight are reset at once", || resets() == 8);
    assert!(begun.elapsed() < Duration::from_millis(900), "{:?}", begun.elapsed());
    assert!(!holds_within(Duration::from_millis(100), || resets() > 8), "the others are not");
    await_that("all are reset", || {
        get("/public/slow").send(gateway.public);
        resets() == 40
    });
    println!("40 streams are reset after {:?}", begun.elapsed());
    assert!((Duration::from_millis(850)..Duration::from_secs(3)).contains(&begun.elapsed()));
    assert_eq!(origin.seen.connections.load(Ordering::SeqCst), 1);
}

#[test]
fn client_that_resets_waits_and_others_do_not() {
    let origin = Guarded::start();
    let gateway = origin.gateway(&[]);
    // Once, so that a connection is there.
    assert_eq!(get("/public/x").send(gateway.public).status, 200);
    let ask = |source: [u8; 4]| {
        let begun = Instant::now();
        let mut client = Connection::on(connect_from(source, gateway.public)).unwrap();
        assert_eq!(get("/public/x").send_on(&mut client, gateway.public).unwrap().status, 200);
        begun.elapsed()
    };
    let before = ask([127, 0, 0, 2]);
    assert_eq!(origin.seen.connections.load(Ordering::SeqCst), 1);
    reset_at_once(connect_from([127, 0, 0, 2], gateway.public), "/public/x", 18);
    await_that("it waits, on a connection of its own", || {
        ask([127, 0, 0, 2]) > Duration::from_millis(200) && origin.seen.connections.load(Ordering::SeqCst) == 2
    });
    let (hasty, other) = (ask([127, 0, 0, 2]), ask([127, 0, 0, 1]));
    println!("the server takes 100 ms; before {before:?}, the client that resets {hasty:?}, another {other:?}");
    assert!(other < hasty);
    let recovers = || ask([127, 0, 0, 2]) < Duration::from_millis(190);
    assert!(holds_within(Duration::from_secs(20), recovers), "complete exchanges and time make up for it");
}

#[test]
fn small_parts_of_a_body_arrive_in_time_and_whole() {
    let origin = Guarded::start();
    let gateway = origin.gateway(&[]);
    let mut client = Connection::open(gateway.public);
    client.send(b"POST /public/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n.\r\n").unwrap();
    assert_eq!(client.receive_head().unwrap().status, 200);
    assert_eq!(client.chunk().unwrap().unwrap(), b".");
    // Each is answered: none is gathered.
    let mut times: Vec<_> = (0..200)
        .map(|n| {
            let (begun, text) = (Instant::now(), format!("{n:03}"));
            client.send(format!("3\r\n{text}\r\n").as_bytes()).unwrap();
            assert_eq!(client.chunk().unwrap().unwrap(), text.as_bytes());
            begun.elapsed()
        })
        .collect();
    times.sort();
    println!("a part of three bytes there and back: median {:?}, longest {:?}", times[100], times[199]);
    assert!(times[100] < Duration::from_millis(50));
    // Nothing is said until all are there.
    let begun = Instant::now();
    let mut client = Connection::open(gateway.public);
    client.send(b"POST /public/slow HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    let parts: Vec<_> = (0..100).map(|n| format!("{n:03}")).collect();
    for part in &parts {
        client.send(format!("3\r\n{part}\r\n").as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(3));
    }
    client.send(b"0\r\n\r\n").unwrap();
    let answer = client.receive("POST").unwrap();
    assert_eq!((answer.status, answer.text()), (200, parts.concat()));
    println!("100 parts that are gathered: {:?}", begun.elapsed());
}

#[test]
fn response_that_is_whole_without_its_end_is_no_reset() {
    let origin = Guarded::start();
    let gateway = origin.gateway(&[]);
    let mut client = Connection::open(gateway.public);
    let mut times: Vec<_> = (0..150)
        .map(|_| {
            let begun = Instant::now();
            let answer = get("/public/late-end").send_on(&mut client, gateway.public).unwrap();
            assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
            begun.elapsed()
        })
        .collect();
    times.sort();
    println!("median {:?}, longest {:?}", times[75], times[149]);
    assert!(times[75] < Duration::from_millis(80), "the client does not wait");
    assert_eq!(origin.seen.connections.load(Ordering::SeqCst), 1);
}

#[test]
fn long_body_is_not_held_up_by_another_that_the_server_does_not_read() {
    let origin = Guarded::start();
    let gateway = origin.gateway(&[]);
    let mut hostile = Connection::on(connect_from([127, 0, 0, 2], gateway.public)).unwrap();
    hostile.send(b"POST /public/hold HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n").unwrap();
    hostile.send(&[b'x'; 100_000]).unwrap();
    await_that("the server has the request", || origin.seen.requests.load(Ordering::SeqCst) == 1);
    for _ in 0..10 {
        let begun = Instant::now();
        let body = vec![b'y'; 500_000];
        let answer = post("/public/slow").body(body.clone()).send(gateway.public);
        assert_eq!(answer.status, 200);
        assert!(answer.body == body);
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    }
    assert_eq!(origin.seen.connections.load(Ordering::SeqCst), 2, "one for each client");
}

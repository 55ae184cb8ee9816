//! Servers that speak HTTP/2: streams on one connection, what they see, and how exchanges end.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use crate::harness::{Gateway, PATIENCE, Setup, await_that};
use crate::upstream_tls::Authority;
use crate::wire::{Connection, exchange, get, post, request};

/// What an application on HTTP/2 has seen.
#[derive(Default)]
struct Seen {
    heads: Mutex<Vec<Request<()>>>,
    connections: AtomicUsize,
    /// Requests that `/public/hold` has not answered yet.
    held: AtomicUsize,
    /// Answers of `/public/flood` that have used up their window.
    stalled: AtomicUsize,
    /// How the peer gave up `/public/hold`.
    resets: Mutex<Vec<Reason>>,
}

/// An application on HTTP/2, which does what the path says.
pub struct H2Origin {
    pub address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Clone, Default)]
pub struct Manner {
    tls: Option<Arc<rustls::ServerConfig>>,
    socket: Option<PathBuf>,
    streams: Option<u32>,
}

impl H2Origin {
    pub fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let origin = Self { address: listener.local_addr().unwrap(), seen: Arc::default() };
        let seen = Arc::clone(&origin.seen);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                if let Some(path) = &manner.socket {
                    let listener = tokio::net::UnixListener::bind(path).unwrap();
                    while let Ok((stream, _)) = listener.accept().await {
                        serve(stream, &seen, manner.streams).await;
                    }
                }
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    let (seen, manner) = (Arc::clone(&seen), manner.clone());
                    seen.connections.fetch_add(1, Ordering::SeqCst);
                    tokio::spawn(async move {
                        match &manner.tls {
                            None => serve(stream, &seen, manner.streams).await,
                            Some(tls) => {
                                let Ok(stream) = TlsAcceptor::from(Arc::clone(tls)).accept(stream).await else {
                                    return;
                                };
                                serve(stream, &seen, manner.streams).await;
                            }
                        }
                    });
                }
            });
        });
        origin
    }

    /// Floods that the peer's window has stopped.
    pub fn stalled(&self) -> usize {
        self.seen.stalled.load(Ordering::SeqCst)
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    fn held(&self) -> usize {
        self.seen.held.load(Ordering::SeqCst)
    }

    fn count(&self) -> usize {
        self.seen.heads.lock().unwrap().len()
    }

    fn last(&self) -> (String, HeaderMap) {
        let heads = self.seen.heads.lock().unwrap();
        let last = heads.last().unwrap();
        (format!("{} {}", last.method(), last.uri()), last.headers().clone())
    }

    /// A gateway with one worker before it.
    pub fn gateway(&self, keys: &[(&str, Value)]) -> Gateway {
        let setup = Setup::new(self.address).set("server.workers", json!(1)).set("upstreams.app.protocol", json!("h2"));
        keys.iter().fold(setup, |setup, (path, value)| setup.set(path, value.clone())).start()
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, seen: &Arc<Seen>, streams: Option<u32>) {
    let mut builder = h2::server::Builder::new();
    if let Some(streams) = streams {
        builder.max_concurrent_streams(streams);
    }
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        let nth = {
            let mut heads = seen.heads.lock().unwrap();
            heads.push(Request::from_parts(head, ()));
            heads.len()
        };
        if path == "/public/leave" {
            connection.graceful_shutdown();
        }
        tokio::spawn(answer(path, nth, body, respond, Arc::clone(seen)));
    }
}

async fn answer(path: String, nth: usize, body: RecvStream, mut respond: SendResponse<Bytes>, seen: Arc<Seen>) {
    match path.as_str() {
        "/public/echo" => {
            let mut response = Response::new(());
            response.headers_mut().insert("portcullis-error", "forged".parse().unwrap());
            response.headers_mut().insert("trailer", "x-sum, x-auth-subject, portcullis-error".parse().unwrap());
            let stream = respond.send_response(response, false).unwrap();
            let _ = echo(body, stream).await;
        }
        "/public/hold" => {
            seen.held.fetch_add(1, Ordering::SeqCst);
            let reset = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            seen.resets.lock().unwrap().extend(reset);
            drop(body);
        }
        "/public/flood" => {
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            let mut left = 1024 * 1024;
            while left > 0 {
                stream.reserve_capacity(left);
                let Some(Ok(room)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else { return };
                stream.send_data(Bytes::from(vec![0; room.min(left)]), false).unwrap();
                left = left.saturating_sub(room);
            }
            seen.stalled.fetch_add(1, Ordering::SeqCst);
            let _ = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
        }
        "/public/refuse" if nth == 1 => respond.send_reset(Reason::REFUSED_STREAM),
        "/public/stall" => {
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            let _ = stream.send_data(Bytes::from_static(b"part"), false);
            let _ = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
        }
        _ => {
            let _ = respond.send_response(Response::new(()), true);
        }
    }
}

/// Sends back what comes, and the trailers in the end.
async fn echo(mut body: RecvStream, mut stream: SendStream<Bytes>) -> Result<(), h2::Error> {
    while let Some(data) = body.data().await {
        let mut data = data?;
        body.flow_control().release_capacity(data.len())?;
        while !data.is_empty() {
            stream.reserve_capacity(data.len());
            let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap_or(Ok(0))?;
            stream.send_data(data.split_to(room.min(data.len())), false)?;
        }
    }
    match body.trailers().await? {
        Some(mut trailers) => {
            trailers.insert("portcullis-error", "forged".parse().unwrap());
            stream.send_trailers(trailers)
        }
        None => stream.send_data(Bytes::new(), true),
    }
}

#[test]
fn requests_share_a_connection_and_look_as_they_should() {
    let origin = H2Origin::start(Manner::default());
    let gateway = origin.gateway(&[]);
    let clients: Vec<_> = (0..16).map(|_| Connection::open(gateway.public)).collect();
    let ask = |mut client: Connection| {
        let public = gateway.public;
        std::thread::spawn(move || {
            for _ in 0..5 {
                assert_eq!(get("/public/a").send_on(&mut client, public).unwrap().status, 200);
            }
        })
    };
    clients.into_iter().map(ask).collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!((origin.count(), origin.connections()), (80, 1));

    let fields = request("GET", "/public/a?b=c%20d")
        .header("Host", "shop.example")
        .header("TE", "gzip, trailers")
        .header("X-Auth-Subject", "forged")
        .header("X-Hop", "1")
        .header("Connection", "X-Hop, keep-alive")
        .header("Keep-Alive", "1")
        .header("Cookie", "a=b")
        .header("X-Forwarded-Proto", "https");
    assert_eq!(fields.send_on(&mut Connection::open(gateway.public), gateway.public).unwrap().status, 200);
    let (line, headers) = origin.last();
    assert_eq!(line, "GET http://shop.example/public/a?b=c%20d");
    for (name, expected) in [
        ("te", Some("trailers")),
        ("cookie", Some("a=b")),
        ("x-forwarded-proto", Some("http")),
        ("x-forwarded-host", Some("shop.example")),
        ("x-forwarded-for", Some("127.0.0.1")),
        ("x-auth-subject", None),
        ("x-hop", None),
        ("connection", None),
        ("keep-alive", None),
        ("host", None),
    ] {
        assert_eq!(headers.get(name).map(|value| value.to_str().unwrap()), expected, "{name}");
    }
    assert!(headers.contains_key("x-request-id"));
}

#[test]
fn bodies_and_trailers_pass_both_ways() {
    let origin = H2Origin::start(Manner::default());
    let gateway = origin.gateway(&[]);
    for length in [1, 65_535, 5_000_000] {
        let body: Vec<u8> = (0..length).map(|n: usize| (n * 31 % 251) as u8).collect();
        let answer = post("/public/echo").body(body.clone()).send(gateway.public);
        assert_eq!((answer.status, answer.code()), (200, ""), "the marker of our refusals is ours");
        assert!(answer.body == body, "{length} bytes came back as {}", answer.body.len());
    }
    let raw = "POST /public/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\nTrailer: X-Sum\r\nConnection: close\r\n\r\n\
               4\r\nwiki\r\n5\r\npedia\r\n0\r\nX-Sum: 9\r\nX-Auth-Subject: forged\r\n\r\n";
    let answer = exchange(gateway.public, raw.as_bytes(), "POST").unwrap();
    assert_eq!(answer.text(), "wikipedia");
    assert_eq!(answer.trailers, [("x-sum".to_owned(), "9".to_owned())], "and nothing that is forged");
    assert_eq!(origin.last().1.get("content-length"), None);
}

#[test]
fn a_full_connection_gets_a_second_beside_it() {
    let origin = H2Origin::start(Manner { streams: Some(2), ..Manner::default() });
    let gateway = origin.gateway(&[]);
    let hold = || {
        let mut client = Connection::open(gateway.public);
        client.send(b"GET /public/hold HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        client
    };
    let clients: Vec<_> = (0..5).map(|_| hold()).collect();
    await_that("all five are held", || origin.held() == 5);
    assert_eq!(origin.connections(), 3);
    drop(clients);
    await_that("the streams are reset", || origin.seen.resets.lock().unwrap().len() == 5);
    assert!(origin.seen.resets.lock().unwrap().iter().all(|reason| *reason == Reason::CANCEL));
    assert_eq!(get("/public/a").send(gateway.public).status, 200);
    assert_eq!(origin.connections(), 3, "there is room again");
}

#[test]
fn a_server_that_leaves_is_left_in_peace() {
    let origin = H2Origin::start(Manner::default());
    let gateway = origin.gateway(&[]);
    let mut client = Connection::open(gateway.public);
    client.send(b"POST /public/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nold").unwrap();
    client.receive_head().unwrap();
    assert_eq!(client.chunk().unwrap().unwrap(), b"old");
    assert_eq!(get("/public/leave").send(gateway.public).status, 200);
    let reconnected = || get("/public/a").send(gateway.public).status == 200 && origin.connections() == 2;
    await_that("new requests have a new connection", reconnected);
    client.send(b" stream").unwrap();
    assert_eq!(client.chunk().unwrap().unwrap(), b" stream", "the old stream goes on");
    assert_eq!(client.chunk().unwrap(), None);
}

#[test]
fn what_a_server_hands_back_is_sent_anew_when_it_may_be() {
    let origin = H2Origin::start(Manner::default());
    let gateway = origin.gateway(&[]);
    assert_eq!(get("/public/refuse").send(gateway.public).status, 200);
    assert_eq!((origin.count(), origin.connections()), (2, 2));
    let origin = H2Origin::start(Manner::default());
    let gateway = origin.gateway(&[]);
    assert_eq!(post("/public/refuse").body("x").send(gateway.public).status, 200);
    assert_eq!((origin.count(), origin.connections()), (2, 2));
}

#[test]
fn silence_and_size_have_bounds() {
    let origin = H2Origin::start(Manner::default());
    let gateway = origin.gateway(&[
        ("upstreams.app.timeouts", json!({"response": "300ms", "idle": "300ms"})),
        ("server.limits", json!({"body": 1000})),
    ]);
    assert_eq!(get("/public/hold").send(gateway.public).code(), "upstream_timeout");
    await_that("its stream is reset", || origin.seen.resets.lock().unwrap().len() == 1);
    let mut client = Connection::open(gateway.public);
    client.send(b"GET /public/stall HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    client.receive_head().unwrap();
    assert_eq!(client.chunk().unwrap().unwrap(), b"part");
    assert!(client.is_closed_within(PATIENCE), "a body that stops is broken off");
    let chunk = format!(
        "POST /public/hold HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n{}",
        "x".repeat(1001)
    );
    let answer = exchange(gateway.public, chunk.as_bytes(), "POST").unwrap();
    assert_eq!(answer.code(), "body_too_large");
    await_that("its stream is reset", || origin.seen.resets.lock().unwrap().len() == 2);
    assert_eq!(origin.connections(), 2, "the connection serves on, and a body of unknown length has its own");
}

#[test]
fn over_tls_it_has_to_be_agreed_upon() {
    let authority = Authority::new();
    for (protocols, agreed) in [(&["h2", "http/1.1"][..], true), (&["http/1.1"], false), (&[], false)] {
        let tls = Some(authority.server(&["127.0.0.1"], protocols));
        let origin = H2Origin::start(Manner { tls, ..Manner::default() });
        let gateway = origin.gateway(&[
            ("upstreams.app.servers", json!([format!("https://{}", origin.address)])),
            ("upstreams.app.tls", json!({"ca": authority.file()})),
        ]);
        let answer = post("/public/echo").body("hello").send(gateway.public);
        if agreed {
            assert_eq!(answer.text(), "hello");
            assert!(origin.last().0.starts_with("POST https://"), "{:?}", origin.last());
        } else {
            assert_eq!(answer.code(), "upstream_unreachable", "{protocols:?}");
            await_that("the log names the remedy", || gateway.output().contains("set the upstream's protocol: http1"));
        }
    }
}

#[test]
fn a_unix_socket_will_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let origin = H2Origin::start(Manner { socket: Some(path.clone()), ..Manner::default() });
    await_that("it listens", || path.exists());
    let gateway = origin.gateway(&[
        ("upstreams.app.servers", json!([format!("unix:{}", path.display())])),
        ("upstreams.app.host", json!("upstream")),
    ]);
    assert_eq!(post("/public/echo").body("hello").send(gateway.public).text(), "hello");
    assert_eq!(origin.last().0, "POST http://localhost/public/echo");
}

#[test]
fn a_server_of_http_1_is_told_apart_before_a_request_is_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            // Until the peer has had enough.
            let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
    });
    let setup = Setup::new(address).set("upstreams.app.protocol", json!("h2"));
    let gateway = setup.start();
    assert_eq!(post("/public/a").body("x").send(gateway.public).code(), "upstream_unreachable");
    await_that("the log names the remedy", || gateway.output().contains("set the upstream's protocol: http1"));
}

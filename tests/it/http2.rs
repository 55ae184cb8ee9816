//! HTTP/2 on the public listener: what passes arrives at an HTTP/1.1 server with one meaning, and floods end.

use std::time::Duration;

use bytes::Bytes;
use h2::client;
use http::{HeaderMap, Request, Response, Version};
use serde_json::json;

use crate::frames::{
    ACK, CONTINUATION, Client, DATA, END_HEADERS, END_STREAM, Fate, HEADERS, PING, PREFACE, PRIORITY, RST_STREAM,
    SETTINGS, block, frame, get,
};
use crate::harness::{Gateway, Setup, await_that};
use crate::origin::Origin;
use crate::wire;

/// Runs a client's future on a runtime of its own.
fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A well-behaved connection.
async fn connect(gateway: &Gateway) -> client::SendRequest<Bytes> {
    let stream = tokio::net::TcpStream::connect(gateway.public).await.unwrap();
    let (sender, connection) = client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender.ready().await.unwrap()
}

/// One exchange with a body and trailers.
async fn exchange(
    sender: &mut client::SendRequest<Bytes>,
    request: Request<()>,
    body: &[&'static str],
    trailers: Option<HeaderMap>,
) -> (Response<()>, Vec<u8>, Option<HeaderMap>) {
    let bare = body.is_empty() && trailers.is_none();
    let (response, mut stream) = sender.send_request(request, bare).unwrap();
    for (index, part) in body.iter().enumerate() {
        stream.send_data(Bytes::from_static(part.as_bytes()), index + 1 == body.len() && trailers.is_none()).unwrap();
    }
    if let Some(trailers) = trailers {
        stream.send_trailers(trailers).unwrap();
    }
    let (parts, mut incoming) = response.await.unwrap().into_parts();
    let mut whole = Vec::new();
    while let Some(part) = incoming.data().await {
        let part = part.unwrap();
        incoming.flow_control().release_capacity(part.len()).unwrap();
        whole.extend_from_slice(&part);
    }
    let trailers = incoming.trailers().await.unwrap();
    (Response::from_parts(parts, ()), whole, trailers)
}

fn request(method: &str, path: &str) -> http::request::Builder {
    Request::builder().version(Version::HTTP_2).method(method).uri(format!("http://app.example{path}"))
}

#[test]
fn arrives_as_one_clean_request() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    let token = gateway.register("alice").access;
    run(async {
        let mut sender = connect(&gateway).await;
        let ask = request("POST", "/secret/x?y=1")
            .header("authorization", format!("Bearer {token}"))
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .header("x-auth-subject", "root")
            .header("x-forwarded-for", "6.6.6.6");
        let (response, body, _) = exchange(&mut sender, ask.body(()).unwrap(), &["he", "llo"], None).await;
        assert_eq!((response.status().as_u16(), response.version()), (200, Version::HTTP_2));
        assert!(String::from_utf8(body).unwrap().contains("hello"));
    });
    let seen = origin.last();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/secret/x?y=1"));
    assert_eq!(seen.all("host"), ["app.example"]);
    assert_eq!(seen.all("cookie"), ["a=1; b=2"], "RFC 9113 8.2.3");
    assert_eq!(seen.all("x-auth-subject"), ["alice"]);
    assert_eq!(seen.all("transfer-encoding"), ["chunked"]);
    assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.1"]);
    assert!(seen.violations.is_empty() && seen.complete, "{seen:?}");
    assert!(!seen.headers.iter().any(|(name, _)| name.starts_with(':')));
}

#[test]
fn length_trailers_and_many_streams() {
    let origin = Origin::scripted(|exchange| {
        let _ = exchange.read_body();
        exchange.write(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 6\r\n\r\n",
        );
    });
    let gateway = Setup::new(origin.address).start();
    run(async {
        let mut sender = connect(&gateway).await;
        let ask = request("PUT", "/public/x").header("content-length", "5");
        let mut trailers = HeaderMap::new();
        trailers.insert("x-check", "1".parse().unwrap());
        trailers.insert("x-auth-subject", "root".parse().unwrap());
        let (response, body, sums) = exchange(&mut sender, ask.body(()).unwrap(), &["hello"], None).await;
        assert_eq!((response.status().as_u16(), body.as_slice()), (200, &b"abc"[..]));
        assert_eq!(sums.unwrap()["x-sum"], "6");
        assert_eq!(origin.last().all("content-length"), ["5"]);
        exchange(&mut sender, request("PUT", "/public/x").body(()).unwrap(), &["hello"], Some(trailers)).await;
        let names: Vec<String> = origin.last().trailers.into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["x-check"], "and nothing that speaks of identity");
        let mut asked = Vec::new();
        for _ in 0..100 {
            sender = sender.ready().await.unwrap();
            asked.push(sender.send_request(request("GET", "/").body(()).unwrap(), true).unwrap().0);
        }
        for response in asked {
            assert_eq!(response.await.unwrap().status(), 200);
        }
    });
}

#[test]
fn refusals_have_their_form() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    run(async {
        let mut sender = connect(&gateway).await;
        let (response, body, _) = exchange(&mut sender, request("GET", "/secret").body(()).unwrap(), &[], None).await;
        assert_eq!(response.status(), 401);
        assert_eq!(response.headers()["portcullis-error"], "token_missing");
        assert!(String::from_utf8(body).unwrap().contains("token_missing"));
        let large = request("GET", "/").header("x-large", "x".repeat(66 * 1024));
        let (response, ..) = exchange(&mut sender, large.body(()).unwrap(), &[], None).await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()["portcullis-error"]),
            (431, &"headers_too_large".parse().unwrap())
        );
        for (path, content_type, status, grpc) in [
            ("/secret", "application/grpc", 200, Some("16")),
            ("/secret", "application/grpc+proto", 200, Some("16")),
            ("/secret", "application/grpc-web", 401, None),
            ("/nowhere", "application/grpc", 200, Some("12")),
            ("/login", "application/grpc", 400, None),
            ("/auth/verify", "application/grpc", 401, None),
        ] {
            let ask = request("POST", path).header("content-type", content_type);
            let (response, body, _) = exchange(&mut sender, ask.body(()).unwrap(), &[], None).await;
            assert_eq!(response.status().as_u16(), status, "{path} {content_type}");
            assert_eq!(response.headers().get("grpc-status").map(|value| value.to_str().unwrap()), grpc, "{path}");
            assert!(grpc.is_none() || body.is_empty());
        }
    });
}

#[test]
fn ambiguous_requests_do_not_pass() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    let good = || get("app.example", "/public/hidden");
    let and = |field: (&'static str, &'static str)| good().into_iter().chain([field]).collect::<Vec<_>>();
    let without = |name: &str| good().into_iter().filter(|(n, _)| *n != name).collect::<Vec<_>>();
    let with = |name: &'static str, value: &'static str| {
        good().into_iter().map(|field| if field.0 == name { (name, value) } else { field }).collect::<Vec<_>>()
    };
    let cases = [
        ("another Host", and(("host", "other.example"))),
        ("no authority and no Host", without(":authority")),
        ("an empty authority", with(":authority", "")),
        ("user information", with(":authority", "u@app.example")),
        ("no path", without(":path")),
        ("an empty path", with(":path", "")),
        ("a path without slash", with(":path", "public/hidden")),
        ("a path with a blank", with(":path", "/public/hidden HTTP/1.1")),
        ("a path with CRLF", with(":path", "/public/hidden\r\nx: y")),
        ("no method", without(":method")),
        ("a method with a blank", with(":method", "GET /x")),
        ("CONNECT", with(":method", "CONNECT")),
        ("no scheme", without(":scheme")),
        ("a foreign scheme", with(":scheme", "ftp")),
        ("two paths", and((":path", "/secret"))),
        ("a pseudo field after a field", [&[("x", "y")][..], &good()].concat()),
        ("an unknown pseudo field", and((":protocol", "websocket"))),
        ("a response's pseudo field", and((":status", "200"))),
        ("upper case", and(("X-Upper", "y"))),
        ("a name with a colon", and(("x:y", "z"))),
        ("a name with a blank", and(("x y", "z"))),
        ("a name with CRLF", and(("x\r\ny", "z"))),
        ("an empty name", and(("", "z"))),
        ("a value with CRLF", and(("x", "y\r\nz: a"))),
        ("a value with LF", and(("x", "y\nz: a"))),
        ("a value with NUL", and(("x", "y\0z"))),
        ("a value that begins with a blank", and(("x", " y"))),
        ("a value that ends with a tab", and(("x", "y\t"))),
        ("connection", and(("connection", "x-auth-subject"))),
        ("keep-alive", and(("keep-alive", "1"))),
        ("proxy-connection", and(("proxy-connection", "close"))),
        ("transfer-encoding", and(("transfer-encoding", "chunked"))),
        ("upgrade", and(("upgrade", "websocket"))),
        ("te: gzip", and(("te", "gzip"))),
        ("a length without a body", and(("content-length", "5"))),
        ("a length that is no number", and(("content-length", "5x"))),
        ("two Hosts", [good(), vec![("host", "app.example"), ("host", "app.example")]].concat()),
    ];
    for (name, fields) in &cases {
        let mut client = Client::open(gateway.public);
        client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(fields))).unwrap();
        let fate = client.fate(1);
        assert!(!matches!(fate, Fate::Answered(200..=399)), "{name}: {fate:?}");
        assert_eq!(origin.count(), 0, "{name}: reached the origin");
    }
    for (name, length, parts) in
        [("too short", "5", &["abc"][..]), ("too long", "2", &["abc"]), ("none", "0", &["abc"])]
    {
        let mut client = Client::open(gateway.public);
        let fields: Vec<_> = with(":method", "POST").into_iter().chain([("content-length", length)]).collect();
        client.send(&frame(HEADERS, END_HEADERS, 1, &block(&fields))).unwrap();
        for (index, part) in parts.iter().enumerate() {
            let end = if index + 1 == parts.len() { END_STREAM } else { 0 };
            client.send(&frame(DATA, end, 1, part.as_bytes())).unwrap();
        }
        let fate = client.fate(1);
        assert!(!matches!(fate, Fate::Answered(200..=399)), "a body {name}: {fate:?}");
        assert!(origin.seen().iter().all(|seen| !seen.complete), "a body {name}: the origin took it for whole");
    }
}

#[test]
fn floods_end_and_others_are_served() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    let fields = block(&get("app.example", "/public/x"));
    type Make = Box<dyn Fn(u32) -> Vec<u8>>;
    let flood: [(&str, Make); 5] = [
        ("pings", Box::new(|_| frame(PING, 0, 0, &[7; 8]))),
        ("settings", Box::new(|_| frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]))),
        ("priorities", Box::new(|n| frame(PRIORITY, 0, 2 * n + 1, &[0, 0, 0, 0, 1]))),
        ("resets", {
            let fields = fields.clone();
            Box::new(move |n| {
                let mut both = frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &fields);
                both.extend(frame(RST_STREAM, 0, 2 * n + 1, &[0, 0, 0, 8]));
                both
            })
        }),
        ("continuations", {
            Box::new(move |n| {
                if n == 0 { frame(HEADERS, 0, 1, &fields) } else { frame(CONTINUATION, 0, 1, &block(&[("x", "y")])) }
            })
        }),
    ];
    for (name, make) in flood {
        let mut client = Client::open(gateway.public);
        let ended = (0..200_000).any(|n| client.send(&make(n)).is_err());
        assert!(ended || client.is_closed_within(Duration::from_secs(5)), "{name} go on for ever");
        assert_eq!(wire::get("/").send(gateway.public).status, 200, "after {name}");
    }
}

#[test]
fn an_acknowledged_ping_is_answered() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    let mut client = Client::open(gateway.public);
    client.send(&frame(PING, 0, 0, b"12345678")).unwrap();
    loop {
        let came = client.next().unwrap();
        if came.kind == PING {
            assert_eq!((came.flags & ACK, came.payload.as_slice()), (ACK, &b"12345678"[..]));
            break;
        }
    }
}

#[test]
fn slow_openings_are_closed_in_time() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address)
        .set("server.timeouts", json!({"header": "400ms", "idle": "900ms", "body": "400ms"}))
        .start();
    let half_block = frame(HEADERS, 0, 1, &block(&get("app.example", "/public/x")));
    let openings: [(&str, Vec<u8>); 5] = [
        ("half a preface", PREFACE[..10].to_vec()),
        ("a preface and nothing more", PREFACE.to_vec()),
        ("half a frame", [PREFACE, &frame(SETTINGS, 0, 0, &[]), &[0, 0]].concat()),
        ("half a header block", [PREFACE, &frame(SETTINGS, 0, 0, &[]), &half_block].concat()),
        ("settings and nothing more", [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()),
    ];
    let mut clients: Vec<_> = openings
        .iter()
        .map(|(name, bytes)| {
            let mut client = Client::raw(gateway.public);
            client.send(bytes).unwrap();
            (name, client)
        })
        .collect();
    for (name, client) in &mut clients {
        assert!(client.is_closed_within(Duration::from_secs(4)), "{name}");
    }
    // A body that stops.
    let mut client = Client::open(gateway.public);
    let fields: Vec<_> = get("app.example", "/public/x")
        .into_iter()
        .map(|f| if f.0 == ":method" { (":method", "POST") } else { f })
        .collect();
    client.send(&frame(HEADERS, END_HEADERS, 1, &block(&fields))).unwrap();
    client.send(&frame(DATA, 0, 1, b"abc")).unwrap();
    assert!(matches!(client.fate(1), Fate::Answered(400) | Fate::Reset(_)));
}

#[test]
fn a_stop_finishes_open_streams_and_says_goodbye() {
    let origin = Origin::scripted(|exchange| {
        let _ = exchange.read_body();
        std::thread::sleep(Duration::from_millis(600));
        exchange.answer("200 OK", "", "late");
    });
    let mut gateway = Setup::new(origin.address).start();
    let mut client = Client::open(gateway.public);
    client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&get("app.example", "/")))).unwrap();
    origin.await_count(1);
    gateway.signal("TERM");
    assert_eq!(client.fate(1), Fate::Answered(200));
    assert!(gateway.await_end().success());
    await_that("the connection ends", || client.is_closed_within(Duration::from_millis(50)));
}

#[test]
fn a_steady_upload_of_small_frames_outlasts_the_header_timeout() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).set("server.timeouts", json!({"header": "500ms"})).start();
    let mut client = Client::open(gateway.public);
    let fields: Vec<_> = get("app.example", "/public/x")
        .into_iter()
        .map(|field| if field.0 == ":method" { (":method", "POST") } else { field })
        .collect();
    client.send(&frame(HEADERS, END_HEADERS, 1, &block(&fields))).unwrap();
    // Each write ends in the middle of a frame.
    let frames = frame(DATA, 0, 1, &[b'x'; 100]).repeat(30);
    let (first, rest) = frames.split_at(50);
    client.send(first).unwrap();
    for part in rest.chunks(109) {
        client.send(part).unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
    client.send(&frame(DATA, END_STREAM, 1, b"")).unwrap();
    assert_eq!(client.fate(1), Fate::Answered(200));
    assert_eq!(origin.last().body.len(), 3000);
}

#[test]
fn streams_that_are_reset_as_soon_as_they_are_asked_end_the_connection() {
    let origin = Origin::scripted(|exchange| {
        let _ = exchange.read_body();
        std::thread::sleep(Duration::from_millis(200));
        exchange.echo();
    });
    let gateway = Setup::new(origin.address).start();
    let mut client = Client::open(gateway.public);
    let fields = block(&get("app.example", "/public/x"));
    let ended = (0..5000).any(|n| {
        let asked = client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &fields));
        std::thread::sleep(Duration::from_millis(1));
        asked.and_then(|()| client.send(&frame(RST_STREAM, 0, 2 * n + 1, &[0, 0, 0, 8]))).is_err()
    });
    assert!(ended, "it may go on for ever");
    assert!(origin.count() < 1500, "{}", origin.count());
    assert_eq!(wire::get("/login").send(gateway.public).status, 405);
}

//! Bodies, timeouts, retries, balance: the exchange with an upstream.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Gateway, Setup, await_that, free_address};
use crate::jwt;
use crate::origin::{Exchange, Origin};
use crate::wire::{Connection, exchange, get, post, request};

fn with(script: impl Fn(&mut Exchange<'_>) + Send + Sync + 'static) -> (Origin, Gateway) {
    let origin = Origin::scripted(script);
    let gateway = Setup::new(origin.address).set("server.workers", json!(1)).start();
    (origin, gateway)
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 31 % 251) as u8).collect()
}

#[test]
fn large_bodies_pass_unchanged_both_ways() {
    let (origin, gateway) = with(|exchange| {
        exchange.read_body().unwrap();
        let body = exchange.seen.body.clone();
        exchange.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes());
        exchange.write(&body);
    });
    for length in [0, 1, 4095, 65_536, 5_000_000] {
        let body = pattern(length);
        let answer = post("/public/a").body(body.clone()).send(gateway.public);
        assert_eq!(answer.status, 200);
        assert!(answer.body == body, "{length} bytes came back as {}", answer.body.len());
        assert_eq!(origin.last().header("content-length"), Some(length.to_string().as_str()));
    }
}

#[test]
fn chunked_bodies_and_their_trailers_pass() {
    let (origin, gateway) = with(|exchange| {
        exchange.read_body().unwrap();
        exchange.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n");
        exchange.write(b"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\nX-Sum: 11\r\n\r\n");
    });
    let raw = "POST /public/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\nTrailer: X-Check\r\nConnection: close\r\n\r\n\
               4\r\nwiki\r\n5;a=b\r\npedia\r\n0\r\nX-Check: 9\r\n\r\n";
    let answer = exchange(gateway.public, raw.as_bytes(), "POST").unwrap();
    assert_eq!(answer.text(), "hello world");
    let seen = origin.last();
    assert_eq!((seen.body.as_slice(), seen.complete), (&b"wikipedia"[..], true), "{seen:?}");
    let trailers: Vec<_> = seen.trailers.iter().map(|(name, value)| (name.to_lowercase(), value.as_str())).collect();
    assert_eq!(trailers, [("x-check".to_owned(), "9")], "{seen:?}");
    assert_eq!(answer.trailers.len(), 1, "{answer:?}");
    let get_with_body = "GET /public/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    assert_eq!(exchange(gateway.public, get_with_body.as_bytes(), "GET").unwrap().status, 200);
    assert_eq!(origin.last().body, b"abc", "GET may have a body");
}

#[test]
fn a_response_streams_as_it_comes() {
    let (next, turns) = mpsc::channel::<()>();
    let turns = std::sync::Mutex::new(turns);
    let (_origin, gateway) = with(move |exchange| {
        exchange.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
        for turn in 0..3 {
            let _ = turns.lock().unwrap().recv();
            exchange.write(format!("8\r\ndata: {turn}\n\r\n").as_bytes());
        }
        exchange.write(b"0\r\n\r\n");
    });
    let mut client = Connection::open(gateway.public);
    client.send(b"GET /public/stream HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let head = client.receive_head().unwrap();
    assert_eq!(head.header("content-type"), Some("text/event-stream"), "the head comes before any of the body");
    for turn in 0..3 {
        next.send(()).unwrap();
        let chunk = client.chunk().unwrap().unwrap();
        assert_eq!(chunk, format!("data: {turn}\n").into_bytes(), "a chunk comes before the next is made");
    }
    assert!(client.chunk().unwrap().is_none());
}

#[test]
fn a_request_streams_as_it_comes() {
    let (heard, parts) = mpsc::channel();
    let heard = std::sync::Mutex::new(heard);
    let (_origin, gateway) = with(move |exchange| {
        let mut all = Vec::new();
        while !all.ends_with(b"0\r\n\r\n") {
            let some = exchange.read_some().unwrap();
            all.extend_from_slice(&some);
            heard.lock().unwrap().send(String::from_utf8_lossy(&all).into_owned()).unwrap();
        }
        exchange.answer("200 OK", "", "done");
        exchange.close();
    });
    let mut client = Connection::open(gateway.public);
    client
        .send(b"POST /public/up HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
        .unwrap();
    for word in ["first", "second", "third"] {
        client.send(format!("{:x}\r\n{word}\r\n", word.len()).as_bytes()).unwrap();
        await_that("the origin has heard it", || parts.try_recv().is_ok_and(|all: String| all.contains(word)));
    }
    client.send(b"0\r\n\r\n").unwrap();
    assert_eq!(client.receive("POST").unwrap().text(), "done");
}

#[test]
fn responses_without_a_body_keep_the_connection_in_step() {
    let (_origin, gateway) = with(|exchange| match exchange.seen.target.as_str() {
        "/public/204" => exchange.write(b"HTTP/1.1 204 No Content\r\n\r\n"),
        "/public/304" => exchange.write(b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 5\r\n\r\n"),
        "/public/103" => {
            exchange.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
            exchange.answer("200 OK", "", "after");
        }
        "/public/http10" => {
            exchange.write(b"HTTP/1.0 200 OK\r\n\r\nuntil the end");
            exchange.close();
        }
        _ => exchange.answer("200 OK", "", "hello"),
    });
    let mut client = Connection::open(gateway.public);
    for (method, target, status, body, length) in [
        ("HEAD", "/public/a", 200, "", Some("5")),
        ("GET", "/public/204", 204, "", None),
        ("GET", "/public/304", 304, "", Some("5")),
        ("GET", "/public/103", 200, "after", Some("5")),
        ("GET", "/public/a", 200, "hello", Some("5")),
        ("GET", "/public/http10", 200, "until the end", None),
        ("HEAD", "/secret", 401, "", None),
        ("GET", "/public/a", 200, "hello", Some("5")),
    ] {
        let answer = request(method, target).send_on(&mut client, gateway.public).unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (status, body), "{method} {target}");
        if let Some(length) = length.filter(|_| status != 304) {
            assert_eq!(answer.header("content-length"), Some(length), "{method} {target}");
        }
    }
}

#[test]
fn connections_to_the_upstream_are_reused() {
    let (origin, gateway) = with(|exchange| exchange.echo());
    let mut client = Connection::open(gateway.public);
    for _ in 0..10 {
        assert_eq!(get("/public/a").send_on(&mut client, gateway.public).unwrap().status, 200);
        assert_eq!(get("/public/b").send(gateway.public).status, 200, "from other clients as well");
    }
    assert!(origin.connections() <= 3, "{} connections for 20 requests", origin.connections());
}

#[test]
fn a_body_over_the_limit_is_refused() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).set("server.limits.body", json!("4KiB")).start();
    assert_eq!(post("/public/a").body(pattern(4096)).send(gateway.public).status, 200);
    let before = origin.count();
    let answer = post("/public/a").body(pattern(4097)).send(gateway.public);
    assert_eq!((answer.status, answer.code()), (413, "body_too_large"));
    assert_eq!(origin.count(), before, "a length that is known is judged before");
    let chunk = "x".repeat(3000);
    let raw = format!(
        "POST /public/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nbb8\r\n{chunk}\r\nbb8\r\n{chunk}\r\n0\r\n\r\n"
    );
    let answer = exchange(gateway.public, raw.as_bytes(), "POST").unwrap();
    assert_eq!((answer.status, answer.code()), (413, "body_too_large"));
    assert!(origin.seen()[before..].iter().all(|seen| !seen.complete), "the upstream never took it for whole");
}

#[test]
fn an_upstream_that_is_late_or_gone() {
    let release = Arc::new(AtomicBool::new(false));
    let held = Arc::clone(&release);
    let origin = Origin::scripted(move |exchange| match exchange.seen.target.as_str() {
        "/public/late" => await_that("the test ends", || held.load(Ordering::Relaxed)),
        "/public/garbage" => {
            exchange.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n");
            exchange.close();
        }
        "/public/silent" => exchange.close(),
        "/public/half-head" => {
            exchange.write(b"HTTP/1.1 200 OK\r\nContent-Le");
            exchange.close();
        }
        "/public/huge-head" => {
            let line = format!("X-Large: {}\r\n", "x".repeat(8000));
            exchange.write(format!("HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n", line.repeat(200)).as_bytes());
            exchange.close();
        }
        "/public/both" => {
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n";
            exchange.write(format!("{head}0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged").as_bytes());
            exchange.close();
        }
        "/public/101" => {
            exchange.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n");
            exchange.close();
        }
        _ => exchange.echo(),
    });
    let gateway = Setup::new(origin.address)
        .set("upstreams.app.timeouts", json!({"response": "400ms"}))
        .set("upstreams.gone", json!({"servers": [format!("http://{}", free_address())]}))
        .and_routes(json!([{"path": "/gone/*", "upstream": "gone", "auth": "public"}]))
        .start();
    for (target, statuses, code) in [
        ("/public/late", &[504][..], "upstream_timeout"),
        ("/gone/a", &[502], "upstream_unreachable"),
        ("/public/garbage", &[502], "upstream_unreachable"),
        ("/public/silent", &[502], "upstream_unreachable"),
        ("/public/half-head", &[502], "upstream_unreachable"),
        ("/public/huge-head", &[502], "upstream_unreachable"),
        ("/public/101", &[502], "upstream_unreachable"),
        ("/public/both", &[200, 502], ""),
    ] {
        let answer = get(target).send(gateway.public);
        assert!(statuses.contains(&answer.status), "{target}: {answer:?}");
        assert!(code.is_empty() || answer.code() == code, "{target}: {answer:?}");
        assert!(!answer.text().contains("forged") && !answer.text().contains("SSH"), "{target}: {answer:?}");
        let inner = origin.address.port().to_string();
        assert!(!answer.text().contains(&inner), "{target}: an inner address is nobody's business: {answer:?}");
        assert_eq!(get("/public/fine").send(gateway.public).status, 200, "after {target}");
    }
    release.store(true, Ordering::Relaxed);
}

#[test]
fn a_response_that_breaks_off_is_not_passed_on_as_whole() {
    let (_origin, gateway) = with(|exchange| {
        match exchange.seen.target.as_str() {
            "/public/length" => exchange.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this"),
            _ => exchange.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        }
        exchange.close();
    });
    for target in ["/public/length", "/public/chunks"] {
        let answer = get(target).try_send(gateway.public);
        assert!(answer.as_ref().map_or(true, |answer| answer.status == 502), "{target}: {answer:?}");
    }
}

#[test]
fn a_retry_is_made_only_when_it_is_safe() {
    // The second request of a connection finds it closed before a byte is answered.
    let (origin, gateway) = with(|exchange| if exchange.nth == 0 { exchange.echo() } else { exchange.close() });
    let warm = || {
        assert_eq!(get("/public/warm").send(gateway.public).status, 200);
        origin.count()
    };
    for (method, attempts, status) in
        [("GET", 2, 200), ("HEAD", 2, 200), ("DELETE", 2, 200), ("POST", 1, 502), ("PATCH", 1, 502)]
    {
        // A connection that served its two requests is gone: warm up a fresh one.
        let before = warm();
        let asked = request(method, "/public/again");
        let asked = if method == "POST" || method == "PATCH" { asked.body("x") } else { asked };
        let answer = asked.send(gateway.public);
        let seen = origin.seen();
        let reached = seen[before..].iter().filter(|seen| seen.target == "/public/again").count();
        // The gateway may notice in time that the connection is gone, and open a new one: then it is one attempt, and 200.
        let noticed = seen[before].connection != seen[before - 1].connection;
        let expected = if noticed { (1, 200) } else { (attempts, status) };
        assert_eq!((reached, answer.status), expected, "{method}");
    }
}

#[test]
fn a_refused_connection_is_tried_on_another_server() {
    let origin = Origin::start();
    let servers = json!([format!("http://{}", free_address()), format!("http://{}", origin.address)]);
    let gateway = Setup::new(origin.address).set("upstreams.app.servers", servers).start();
    for turn in 0..10 {
        assert_eq!(post("/public/a").body("x").send(gateway.public).status, 200, "{turn}");
    }
    assert_eq!(origin.count(), 10);
}

#[test]
fn servers_share_the_load_by_weight() {
    let (heavy, light, idle) = (Origin::start(), Origin::start(), Origin::start());
    let server = |origin: &Origin, weight: u32| json!({"url": format!("http://{}", origin.address), "weight": weight});
    let servers = json!([server(&heavy, 3), server(&light, 1), server(&idle, 0)]);
    let gateway =
        Setup::new(heavy.address).set("upstreams.app.servers", servers).set("server.workers", json!(1)).start();
    for _ in 0..40 {
        assert_eq!(get("/public/a").send(gateway.public).status, 200);
    }
    assert_eq!(idle.count(), 0, "weight 0 gets none");
    assert!((28..=32).contains(&heavy.count()), "{} of 40", heavy.count());
    assert_eq!(heavy.count() + light.count(), 40);
}

#[test]
fn expect_continue() {
    let (origin, gateway) = with(|exchange| exchange.echo());
    let token = jwt::access("alice");
    let head = |auth: &str| {
        format!(
            "POST /secret HTTP/1.1\r\nHost: x\r\n{auth}Expect: 100-continue\r\nContent-Length: 5\r\nConnection: close\r\n\r\n"
        )
    };
    let mut client = Connection::open(gateway.public);
    client.send(head(&format!("Authorization: Bearer {token}\r\n")).as_bytes()).unwrap();
    assert_eq!(client.receive_head().unwrap().status, 100);
    client.send(b"hello").unwrap();
    assert_eq!(client.receive("POST").unwrap().status, 200);
    assert_eq!(origin.last().body, b"hello");

    let mut client = Connection::open(gateway.public);
    client.send(head("").as_bytes()).unwrap();
    let answer = client.receive("POST").unwrap();
    assert_eq!((answer.status, answer.interim), (401, vec![]), "nobody is asked for a body that will not be read");
    assert_eq!(origin.count(), 1);
}

#[test]
fn an_answer_before_the_body_is_read_reaches_the_client() {
    let (_origin, gateway) = with(|exchange| {
        // Unread bytes would turn the close into a reset that overtakes the answer.
        let _ = exchange.read_some();
        exchange.answer("413 Content Too Large", "Connection: close\r\n", "enough");
        exchange.close();
    });
    let mut client = Connection::open(gateway.public);
    client.send(b"POST /public/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nstart").unwrap();
    let answer = client.receive("POST").unwrap();
    assert_eq!((answer.status, answer.text().as_str(), answer.code()), (413, "enough", ""));
}

#[test]
fn a_client_that_leaves_is_not_worked_for() {
    let left = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&left);
    let (origin, gateway) = with(move |exchange| match exchange.seen.target.as_str() {
        "/public/wait" => {
            if exchange.is_closed_within(Duration::from_secs(10)) {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
        "/public/flood" => {
            exchange.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            let chunk = [b"10000\r\n".as_slice(), &[b'x'; 65536], b"\r\n"].concat();
            let begin = Instant::now();
            let before = counter.load(Ordering::Relaxed);
            while counter.load(Ordering::Relaxed) == before && begin.elapsed() < Duration::from_secs(10) {
                // A failed write makes the exchange close; told by the peer's reset.
                exchange.write(&chunk);
                if exchange.is_closing() {
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        _ => exchange.echo(),
    });
    for (path, departed) in [("/public/wait", 1), ("/public/flood", 2)] {
        let before = origin.count();
        let mut client = Connection::open(gateway.public);
        client.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
        origin.await_count(before + 1);
        drop(client);
        await_that("the upstream is told", || left.load(Ordering::Relaxed) == departed);
    }
    let mut client = Connection::open(gateway.public);
    client.send(b"POST /public/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nonly a part").unwrap();
    origin.await_count(3);
    drop(client);
    assert_eq!(get("/public/a").send(gateway.public).status, 200);
    let upload = origin.seen().into_iter().find(|seen| seen.target == "/public/upload").unwrap();
    assert!(!upload.complete, "half an upload is never whole");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (origin, gateway) = with(|exchange| exchange.echo());
    let token = jwt::access("alice");
    let mut client = Connection::open(gateway.public);
    let one = |target: &str, auth: &str| format!("GET {target} HTTP/1.1\r\nHost: x\r\n{auth}\r\n");
    let auth = format!("Authorization: Bearer {token}\r\n");
    let all = [one("/secret/1", &auth), one("/secret/2", ""), one("/public/3", ""), one("/secret/4", &auth)].concat();
    client.send(all.as_bytes()).unwrap();
    let statuses: Vec<_> = (0..4).map(|_| client.receive("GET").unwrap().status).collect();
    assert_eq!(statuses, [200, 401, 200, 200], "each request is judged by itself");
    let targets: Vec<_> = origin.seen().into_iter().map(|seen| seen.target).collect();
    assert_eq!(targets, ["/secret/1", "/public/3", "/secret/4"]);
}

//! Checks against servers that answer as told, on a runtime of several kinds.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::duplex;
use tokio::net::TcpListener;

use super::*;
use crate::config::{Health, UpstreamServer, UpstreamTimeouts, UpstreamTls};
use crate::upstream::balance::Choice;

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn upstream(addresses: Vec<ServerAddress>, health: Health, protocol: Protocol) -> config::Upstream {
    let server = |address| UpstreamServer { address, tls: false, weight: 1 };
    config::Upstream {
        name: "app".into(),
        servers: addresses.into_iter().map(server).collect(),
        balance: config::Balance::RoundRobin,
        health: Some(health),
        timeouts: UpstreamTimeouts { connect: Duration::ZERO, response: Duration::ZERO, idle: Duration::ZERO },
        protocol,
        host: HostPolicy::Keep,
        tls: UpstreamTls::default(),
        max_connections: None,
    }
}

fn tcp(listener: &TcpListener) -> ServerAddress {
    let address = listener.local_addr().unwrap();
    ServerAddress::Tcp { host: address.ip().to_string(), port: address.port() }
}

fn every(millis: u64, path: Option<&str>) -> Health {
    Health { path: path.map(Into::into), every: Duration::from_millis(millis), up: 2, down: 2 }
}

fn check(upstream: &config::Upstream) -> Check {
    let balance = Balance::new(upstream, None).unwrap();
    Checks::of([(upstream, &balance, &[const { None }; 8][..])]).0.remove(0)
}

/// What [`Check::ask`] makes of the first server; in words when it failed.
async fn ask(upstream: &config::Upstream) -> Result<(), String> {
    check(upstream).ask().await.map(drop).map_err(|fault| fault.to_string())
}

#[test]
fn only_the_status_decides() {
    for (answer, expected) in [
        ("HTTP/1.1 200 OK\r\n\r\n", Ok(())),
        ("HTTP/1.0 204\r\n", Ok(())),
        ("HTTP/1.1 399 x", Ok(())),
        ("HTTP/1.1 400 Bad", Err("it answered 400")),
        ("HTTP/1.1 503 Service Unavailable\r\n", Err("it answered 503")),
        ("HTTP/1.1 103 Early Hints\r\n", Err("it answered 103")),
        ("HTTP/2.0 200 OK\r\n", Err("its answer is not HTTP/1")),
        ("SSH-2.0-OpenSSH", Err("its answer is not HTTP/1")),
        ("HTTP/1.1 2xx OK\r\n", Err("its answer is not HTTP/1")),
        ("HTTP/1.1 20", Err("the connection broke: early eof")),
        ("", Err("the connection broke: early eof")),
    ] {
        // Byte by byte, and closed at the end.
        let (mut near, mut far) = duplex(1);
        let done = block_on(async {
            let write = async {
                let mut request = [0; 4];
                let _ = far.read_exact(&mut request).await;
                assert_eq!(&request, b"GET ");
                let _ = far.write_all(answer.as_bytes()).await;
                drop(far);
            };
            // The far side may have more to say than is read.
            let ask = async move { probe(&mut near, b"GET ").await };
            tokio::join!(ask, write).0
        });
        assert_eq!(done.map_err(|fault| fault.to_string()), expected.map_err(str::to_owned), "{answer:?}");
    }
}

#[test]
fn asks_in_full_over_tcp_and_unix_sockets() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let unix = tokio::net::UnixListener::bind(&path).unwrap();
        let upstream_tcp = upstream(vec![tcp(&listener)], every(5000, Some("/up?x=1")), Protocol::Http1);
        let mut upstream_unix =
            upstream(vec![ServerAddress::Unix(path)], every(5000, Some("/up?x=1")), Protocol::Http1);
        upstream_unix.host = HostPolicy::Name("app.example:81".into());
        let serve = async {
            let (mut by_tcp, _) = listener.accept().await.unwrap();
            let first = answer(&mut by_tcp).await;
            let (mut by_unix, _) = unix.accept().await.unwrap();
            (first, answer(&mut by_unix).await)
        };
        let asked = async { (ask(&upstream_tcp).await, ask(&upstream_unix).await) };
        let ((first, second), done) = tokio::join!(serve, asked);
        assert_eq!(done, (Ok(()), Ok(())));
        let expected = |host: &str| {
            let agent = "User-Agent: portcullis-health\r\nAccept: */*\r\nConnection: close";
            format!("GET /up?x=1 HTTP/1.1\r\nHost: {host}\r\n{agent}\r\n\r\n")
        };
        assert_eq!((first, second), (expected(&format!("127.0.0.1:{port}")), expected("app.example:81")));
    });
}

/// Reads a request, and answers 200.
async fn answer(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> String {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.unwrap());
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    String::from_utf8(request).unwrap()
}

#[test]
fn asks_in_http2() {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = upstream(vec![tcp(&listener)], every(5000, Some("/up")), Protocol::H2);
        let serve = async {
            for status in [200, 503] {
                let (stream, _) = listener.accept().await.unwrap();
                let mut connection = h2::server::handshake(stream).await.unwrap();
                let (request, mut respond) = connection.accept().await.unwrap().unwrap();
                assert_eq!(request.uri().to_string(), format!("http://{}/up", listener.local_addr().unwrap()));
                respond.send_response(http::Response::builder().status(status).body(()).unwrap(), true).unwrap();
                while connection.accept().await.is_some() {}
            }
            // One that does not speak it.
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        };
        let asked = async { [ask(&upstream).await, ask(&upstream).await, ask(&upstream).await] };
        let ((), [good, bad, none]) = tokio::join!(serve, asked);
        assert_eq!((good, bad), (Ok(()), Err("it answered 503".into())));
        assert!(none.is_err_and(|fault| fault.starts_with("HTTP/2 failed")));
    });
}

#[test]
fn without_a_path_a_connection_that_opens_is_good() {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for protocol in [Protocol::Http1, Protocol::H2] {
            let upstream = upstream(vec![tcp(&listener)], every(5000, None), protocol);
            assert_eq!(ask(&upstream).await, Ok(()));
        }
        let closed = upstream(vec![tcp(&listener)], every(5000, None), Protocol::Http1);
        drop(listener);
        assert!(ask(&closed).await.is_err_and(|fault| fault.starts_with("cannot connect")));
    });
}

/// Waits until `condition` holds.
async fn until(condition: impl Fn() -> bool) {
    let waited = timeout(Duration::from_secs(20), async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    waited.await.expect("in vain");
}

#[test]
fn servers_go_down_and_come_back_until_the_checks_are_dropped() {
    block_on(async {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (first, asked) = (tcp(&listener), Arc::new(AtomicUsize::new(0)));
        let upstream = upstream(vec![first, tcp(&silent)], every(100, Some("/")), Protocol::Http1);
        let balance = Arc::new(Balance::new(&upstream, None).unwrap());
        let checks = tokio::spawn(Checks::of([(&upstream, &*balance, &[const { None }; 8][..])]).run());
        let count = Arc::clone(&asked);
        let application = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                answer(&mut stream).await;
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        let up = |server: usize| balance.states().nth(server).unwrap().1;
        until(|| !up(1)).await;
        until(|| up(0)).await;
        until(|| asked.load(Ordering::Relaxed) > 2).await;
        until(|| balance.next(None, &[]) == Choice::Server(0)).await;
        application.abort();
        until(|| !up(0)).await;
        assert!(matches!(balance.next(None, &[]), Choice::NoneHealthy { .. }));
        let application = tokio::spawn(async move {
            loop {
                let (mut stream, _) = silent.accept().await.unwrap();
                // Connections of checks that gave up are closed by now.
                tokio::spawn(async move { stream.write_all(b"HTTP/1.1 302 Found\r\n\r\n").await });
            }
        });
        until(|| up(1)).await;
        until(|| balance.next(None, &[]) == Choice::Server(1)).await;
        checks.abort();
        assert!(checks.await.is_err());
        application.abort();
        assert!(application.await.is_err());
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert!(up(1), "nobody checks any more");
    });
}

#[test]
fn checks_may_run_on_several_threads() {
    fn is_send<T: Send>(_: &T) {}
    let upstream = upstream(Vec::new(), every(40, None), Protocol::Http1);
    let balance = Balance::new(&upstream, None).unwrap();
    let run = Checks::of([(&upstream, &balance, &[const { None }; 8][..])]).run();
    is_send(&run);
    block_on(run);
}

//! The admin listener: who may read what there, and under which Host.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use serde_json::json;

use crate::harness::{Gateway, Setup, await_that};
use crate::origin::Origin;
use crate::slow_bodies::connect_from;
use crate::wire::get;

/// The status and the body of a GET from `source` with this Host line, if any.
fn ask(source: Ipv4Addr, address: SocketAddr, path: &str, host: Option<&str>) -> (u16, String) {
    let mut stream = connect_from(source, address);
    let version = if host.is_some() { "1.1" } else { "1.0" };
    let host = host.map(|host| format!("Host: {host}\r\n")).unwrap_or_default();
    stream.write_all(format!("GET {path} HTTP/{version}\r\n{host}Connection: close\r\n\r\n").as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn start(access: serde_json::Value) -> (Origin, Gateway) {
    let origin = Origin::start();
    let admin = crate::harness::free_address();
    let mut access = access;
    access["listen"] = json!(admin.to_string());
    let mut gateway =
        Setup::new(origin.address).set("admin", access).spawn_in(std::sync::Arc::new(tempfile::tempdir().unwrap()));
    gateway.admin = admin;
    gateway.await_ready();
    (origin, gateway)
}

#[test]
fn pages_with_a_rebound_name_and_peers_that_are_not_listed_read_nothing() {
    let (_origin, gateway) =
        start(json!({"allow": ["127.0.0.1", "127.9.0.0/16"], "hosts": ["gateway.internal", "*.ops.example"]}));
    let (home, listed, stranger) = (Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 9, 1, 2), Ipv4Addr::new(127, 8, 1, 2));
    for path in ["/metrics", "/openapi.json", "/unknown"] {
        let good = if path == "/unknown" { 404 } else { 200 };
        for (source, host, expected, names) in [
            (home, Some("127.0.0.1:9180"), good, ""),
            (home, Some("[::1]:9180"), good, ""),
            (home, Some("LocalHost"), good, ""),
            (home, Some("gateway.internal:80"), good, ""),
            (listed, Some("a.ops.example"), good, ""),
            (home, Some("ops.example"), 403, "admin.hosts"),
            (home, Some("evil.example"), 403, "admin.hosts"),
            (home, Some("127.0.0.1.evil.example"), 403, "admin.hosts"),
            (home, Some("localhost.evil.example"), 403, "admin.hosts"),
            (home, Some(""), 403, "admin.hosts"),
            (home, None, 403, "admin.hosts"),
            (stranger, Some("127.0.0.1"), 403, "admin.allow"),
        ] {
            let (status, body) = ask(source, gateway.admin, path, host);
            assert_eq!(status, expected, "{path} {source} {host:?}: {body}");
            assert!(body.contains(names), "{path} {source} {host:?}: {body}");
        }
    }
    // Probes have any Host, or none, and come from anywhere.
    for path in ["/livez", "/readyz"] {
        for host in [Some("127.0.0.1"), Some("evil.example"), None] {
            assert_eq!(ask(stranger, gateway.admin, path, host).0, 200, "{path} {host:?}");
        }
    }
}

#[test]
fn by_default_loopback_may_read() {
    let (_origin, gateway) = start(json!({}));
    assert_eq!(ask(Ipv4Addr::new(127, 8, 1, 2), gateway.admin, "/metrics", Some("localhost:9180")).0, 200);
    assert_eq!(ask(Ipv4Addr::LOCALHOST, gateway.admin, "/metrics", Some("rebound.example")).0, 403);
    // X-Forwarded-For says nothing here.
    let forwarded = get("/metrics").header("X-Forwarded-For", "203.0.113.1").send(gateway.admin);
    assert_eq!(forwarded.status, 200);
}

#[test]
fn connections_are_limited() {
    let (_origin, gateway) = start(json!({}));
    let held: Vec<TcpStream> = (0..300).map(|_| TcpStream::connect(gateway.admin).unwrap()).collect();
    let is_closed = |stream: &TcpStream| {
        stream.set_nonblocking(true).unwrap();
        matches!((&mut &*stream).read(&mut [0]), Ok(0))
    };
    await_that("those beyond the limit are closed", || held.iter().filter(|stream| is_closed(stream)).count() >= 44);
    drop(held);
    await_that("and then it answers again", || get("/readyz").try_send(gateway.admin).is_ok_and(|a| a.status == 200));
}

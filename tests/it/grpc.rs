//! gRPC end to end: a real client and a real server (PyPI grpcio), cleartext HTTP/2 on both sides of the gateway.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::harness::{Gateway, Setup, await_that, free_address, run, said};
use crate::origin::Origin;
use crate::python;
use crate::wire::Connection;

/// tests/grpc/server.py, killed when this is dropped.
struct Server {
    address: SocketAddr,
    child: Child,
}

impl Server {
    fn start() -> Self {
        let address = free_address();
        let mut command = Command::new(python::python("grpc"));
        command.arg(python::source("grpc", "server.py")).arg(address.port().to_string());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let server = Self { address, child };
        await_that("the gRPC server listens", || Connection::try_open(address).is_ok());
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn gateway_before(server: SocketAddr) -> Gateway {
    let unused = Origin::start();
    Setup::new(unused.address)
        .set("upstreams.grpc", json!({"servers": [format!("http://{server}")], "protocol": "h2"}))
        .set("upstreams.gone", json!({"servers": [format!("http://{}", free_address())], "protocol": "h2"}))
        .and_routes(json!([
            {"path": "/test.Echo/*", "upstream": "grpc"},
            {"path": "/test.Admin/*", "upstream": "grpc", "auth": {"roles": ["admin"]}},
            {"path": "/test.Open/*", "upstream": "grpc", "auth": "public"},
            {"path": "/test.Gone/*", "upstream": "gone"},
        ]))
        .start()
}

#[test]
fn grpc_end_to_end() {
    let server = Server::start();
    let gateway = gateway_before(server.address);
    let (token, other) = (gateway.register("alice").access, gateway.login("alice").access);
    let mut command = Command::new(python::python("grpc"));
    command.arg(python::source("grpc", "client.py")).args([&gateway.public.to_string(), &token, &other]);
    let told = said(&run(command, ""));
    println!("{told}");
    // The client's own list, so that a case which stops being run is missed.
    let source = std::fs::read_to_string(python::source("grpc", "client.py")).unwrap();
    let cases: Vec<_> = source.split("@case\ndef ").skip(1).filter_map(|rest| rest.split('(').next()).collect();
    assert!(cases.len() > 20, "{cases:?}");
    for case in cases {
        assert!(told.lines().any(|line| line == format!("ok {case}")), "{case}:\n{told}");
    }
}

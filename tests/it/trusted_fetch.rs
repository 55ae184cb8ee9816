//! How the keys of trusted issuers are fetched: private authorities, proxies, codings.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use jsonwebtoken::Algorithm;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;

use crate::harness::{await_that, said};
use crate::origin::Origin;
use crate::provider::{Key, ask, await_keys, claims, keycloak, set, setup};
use crate::upstream_tls::Authority;

/// Serves one document by https, on a port of the loopback.
pub fn serve(config: Arc<ServerConfig>, document: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
            let mut buffer = [0; 4096];
            if stream.read(&mut buffer).is_ok() {
                let length = document.len();
                let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{document}");
            }
        }
    });
    address
}

/// A proxy that answers each CONNECT with `status`, and opens a tunnel to `server` whatever was asked for.
struct Proxy {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn start(status: &'static str, server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, heads) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<String>>>::default());
        let seen = Arc::clone(&heads);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || relay(client, status, server, &seen));
            }
        });
        Self { address, heads }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

fn relay(client: TcpStream, status: &str, server: SocketAddr, seen: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(client.try_clone().unwrap());
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap_or(0) == 0 {
            return;
        }
    }
    seen.lock().unwrap().push(head);
    let mut writer = client;
    let _ = write!(writer, "HTTP/1.1 {status}\r\n\r\n");
    if status.starts_with("200") {
        let mut upstream = TcpStream::connect(server).unwrap();
        let mut back = upstream.try_clone().unwrap();
        let there = std::thread::spawn(move || std::io::copy(&mut reader, &mut upstream));
        let _ = std::io::copy(&mut back, &mut writer);
        let _ = there.join();
    }
}

#[test]
fn a_private_authority_is_trusted_for_the_keys_that_name_it() {
    let (origin, key, authority) = (Origin::start(), Key::new("k", Algorithm::ES256), Authority::new());
    let address = serve(authority.server(&["localhost"], &["http/1.1"]), set(&[&key]));
    let url = format!("https://localhost:{}/keys", address.port());
    let token = key.sign(&claims(json!({})));
    let with = |ca: &str| {
        let mut trusted = keycloak("jwks_url", &url);
        trusted["ca"] = json!(ca);
        setup(&origin, trusted)
    };
    let gateway = with(authority.file().to_str().unwrap()).start();
    await_keys(&gateway, &token);
    assert_eq!(gateway.cli(&["check"], "").status.code(), Some(0));
    let inspected = gateway.cli(&["tokens", "inspect", &token], "");
    assert_eq!(inspected.status.code(), Some(0), "{}", said(&inspected));
    let gateway = setup(&origin, keycloak("jwks_url", &url)).start();
    await_that("the log says so", || gateway.output().contains("cannot be fetched"));
    let other = Authority::new();
    let gateway = with(other.file().to_str().unwrap()).start();
    await_that("the log says so", || gateway.output().contains("cannot be fetched"));
    assert_eq!(ask(&gateway, "/theirs/a", &token).status, 503);
    // As soon as the file has the right one, it is read again.
    std::fs::copy(authority.file(), other.file()).unwrap();
    await_keys(&gateway, &token);
    std::fs::write(other.file(), "no certificate").unwrap();
    let checked = gateway.cli(&["check"], "");
    assert_eq!(checked.status.code(), Some(78));
    assert!(said(&checked).contains("tokens.trusted[0].ca: "), "{}", said(&checked));
}

#[test]
fn keys_are_fetched_through_the_proxy_of_the_environment() {
    const HOST: &str = "id.provider.invalid";
    let (origin, key, authority) = (Origin::start(), Key::new("k", Algorithm::ES256), Authority::new());
    let server = serve(authority.server(&[HOST, "localhost"], &["http/1.1"]), set(&[&key]));
    let (token, authority) = (key.sign(&claims(json!({}))), authority.file());
    let with = |url: &str| {
        let mut trusted = keycloak("jwks_url", url);
        trusted["ca"] = json!(authority.to_str().unwrap());
        setup(&origin, trusted).env("NO_PROXY", "").env("no_proxy", "").env("HTTPS_PROXY", "").env("https_proxy", "")
    };
    // Only the proxy can find the host.
    for (variable, url, connect) in [
        ("HTTPS_PROXY", format!("https://{HOST}/keys"), format!("CONNECT {HOST}:443 HTTP/1.1\r\n")),
        ("https_proxy", format!("https://{HOST}:8443/keys"), format!("CONNECT {HOST}:8443 HTTP/1.1\r\n")),
    ] {
        let proxy = Proxy::start("200 Connection established", server);
        let gateway = with(&url).env(variable, &format!("http://user:pa%3Ass@{}", proxy.address)).start();
        await_keys(&gateway, &token);
        let head = proxy.heads().remove(0);
        assert!(head.starts_with(&connect), "{head}");
        assert!(head.to_lowercase().contains("\r\nproxy-authorization: basic dxnlcjpwytpzcw==\r\n"), "{head}");
        assert!(!gateway.output().contains("pa%3Ass") && !gateway.output().contains("pa:ss"));
    }
    // Loopback and NO_PROXY: directly.
    let proxy = Proxy::start("403 Forbidden", server);
    let address = format!("http://{}", proxy.address);
    let local = with(&format!("https://localhost:{}/keys", server.port())).env("HTTPS_PROXY", &address).start();
    await_keys(&local, &token);
    let exempt =
        with(&format!("https://{HOST}/keys")).env("HTTPS_PROXY", &address).env("NO_PROXY", "x, .invalid").start();
    await_that("the log says so", || exempt.output().contains("cannot be fetched"));
    assert!(proxy.heads().is_empty(), "{:?}", proxy.heads());
    let refused = with(&format!("https://{HOST}/keys")).env("HTTPS_PROXY", &address).start();
    await_that("the log names the answer of the proxy", || {
        refused.output().contains("answered 403 Forbidden to CONNECT")
    });
    let gone = with(&format!("https://{HOST}/keys")).env("HTTPS_PROXY", "http://127.0.0.1:1").start();
    await_that("the log says so", || gone.output().contains("no connection to the proxy 127.0.0.1:1"));
    let other = with(&format!("https://{HOST}/keys")).env("HTTPS_PROXY", "socks5://me:secret@127.0.0.1:1").start();
    await_that("the log says so", || other.output().contains("because HTTPS_PROXY cannot be used"));
    assert!(!other.output().contains("secret"), "{}", other.output());
}

#[test]
fn the_document_is_asked_for_as_it_is() {
    let (origin, key) = (Origin::start(), Key::new("k", Algorithm::ES256));
    let token = key.sign(&claims(json!({})));
    let document = format!("\u{feff}{}", set(&[&key]));
    let text = document.clone();
    let marked = Origin::scripted(move |exchange| {
        exchange.answer("200 OK", "Content-Encoding: identity\r\n", &text);
    });
    let gateway = setup(&origin, keycloak("jwks_url", &format!("http://{}/keys", marked.address))).start();
    await_keys(&gateway, &token);
    assert_eq!(marked.last().all("accept-encoding"), ["identity"]);
    let coded = Origin::scripted(|exchange| exchange.answer("200 OK", "Content-Encoding: gzip\r\n", "\u{1f}"));
    let gateway = setup(&origin, keycloak("jwks_url", &format!("http://{}/keys", coded.address))).start();
    await_that("the log says so", || gateway.output().contains("content coding"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    std::fs::write(&path, document).unwrap();
    let gateway = setup(&origin, keycloak("jwks_file", path.to_str().unwrap())).start();
    assert_eq!(ask(&gateway, "/theirs/a", &token).status, 200, "a file with a mark");
}

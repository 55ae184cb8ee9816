//! `server.listen`, `server.tls` and `server.limits`.

use std::path::Path;

use insta::assert_snapshot;

use super::super::{Address, Config};
use super::{env, errors, load, warnings};

/// The listeners of `text`, with their flags.
fn shown(config: &Config) -> Vec<String> {
    let flag = |set: bool, name: &'static str| if set { name } else { "" };
    let listeners = config.server.listen.iter();
    listeners
        .map(|one| format!("{}{}{}", one.address, flag(one.tls, " tls"), flag(one.proxy_protocol, " proxy")))
        .collect()
}

#[test]
fn listeners() {
    let certificates = "tls: {certificates: [{cert: a.pem, key: a.key}]}";
    for (listen, meaning) in [
        ("127.0.0.1:8080", vec!["127.0.0.1:8080"]),
        ("\"[::1]:${PORT}\"", vec!["[::1]:8088"]),
        ("unix:/run/p.sock", vec!["unix:/run/p.sock"]),
        ("\"unix:${NO_SUCH:-/run}/p.sock\"", vec!["unix:/run/p.sock"]),
        ("{address: 127.0.0.1:8080}", vec!["127.0.0.1:8080"]),
        ("{address: unix:/run/p.sock, proxy_protocol: true}", vec!["unix:/run/p.sock proxy"]),
        (
            "[127.0.0.1:80, {address: 0.0.0.0:443, tls: true}, {address: 127.0.0.1:81, tls: false}]",
            vec!["127.0.0.1:80", "0.0.0.0:443 tls", "127.0.0.1:81"],
        ),
        (
            "[127.0.0.1:0, 127.0.0.1:0, unix:/run/a, unix:/run/b]",
            vec!["127.0.0.1:0", "127.0.0.1:0", "unix:/run/a", "unix:/run/b"],
        ),
    ] {
        assert_eq!(shown(&load(&format!("server: {{listen: {listen}, {certificates}}}"))), meaning, "{listen}");
    }
    let trusted = load("server: {trusted_proxies: [10.0.0.1], listen: {address: 0.0.0.0:80, proxy_protocol: true}}");
    assert_eq!(shown(&trusted), ["0.0.0.0:80 proxy"]);
}

#[test]
fn files_start_from_the_folder_of_the_file() {
    let text = "\
server:
  listen: [unix:run/p.sock, unix:/run/p.sock, {address: 127.0.0.1:443, tls: true}]
  tls:
    certificates: [{cert: tls/a.pem, key: /keys/a.key}, {cert: \"${PORT}.pem\", key: b.key}]
    client_ca: clients.pem
";
    let server = super::super::parse(text, Path::new("/etc/p/gateway.yaml"), &env).unwrap().server;
    let sockets: Vec<&Address> = server.listen.iter().map(|listener| &listener.address).collect();
    assert_eq!(sockets[0], &Address::Unix("/etc/p/run/p.sock".into()));
    assert_eq!(sockets[1], &Address::Unix("/run/p.sock".into()));
    assert_snapshot!(format!("{:?}", server.tls.unwrap()), @r#"Tls { certificates: [Certificate { cert: "/etc/p/tls/a.pem", key: "/keys/a.key" }, Certificate { cert: "/etc/p/8088.pem", key: "/etc/p/b.key" }], client_ca: Some("/etc/p/clients.pem") }"#);
}

#[test]
fn sockets() {
    assert_snapshot!(errors(r#"server: {listen: "unix:"}"#), @r"
    gateway.yaml:1: server.listen: does not name a socket
        Write unix:PATH, such as unix:/run/app.sock
    ");
    assert_snapshot!(errors(r#"server: {listen: "unix:/run/"}"#), @r"
    gateway.yaml:1: server.listen: does not name a socket
        Write unix:PATH, such as unix:/run/app.sock
    ");
    assert_snapshot!(errors(r#"server: {listen: "unix:/run/a\nb"}"#), @r"
    gateway.yaml:1: server.listen: does not name a socket
        Write unix:PATH, such as unix:/run/app.sock
    ");
    assert_snapshot!(errors(r#"server: {listen: "unix://run/p.sock"}"#), @r"
    gateway.yaml:1: server.listen: `unix://` can be read in two ways
        Write unix:PATH, such as unix:/run/app.sock
    ");
    assert_snapshot!(errors(r#"server: {listen: "unix:@p"}"#), @r"
    gateway.yaml:1: server.listen: `@p` looks like an abstract socket, which anyone on the machine may open
        Write unix:PATH, such as unix:/run/app.sock
    ");
    assert_snapshot!(errors("server:
  listen:
    - unix:/run/p.sock
    - address: unix:/run//./p.sock"), @r"
    gateway.yaml:4: server.listen[1]: unix:/run//./p.sock stands twice
        Keep one of the two
    ");
    assert_snapshot!(errors("admin: {listen: unix:/run/admin.sock}"), @r"
    gateway.yaml:1: admin.listen: the operator's listener is TCP only, not a UNIX socket
        Write an address and port, such as 127.0.0.1:9180, or `listen: null` for none
    ");
}

/// The bound is the kernel's, for the whole path.
#[test]
fn a_socket_has_107_bytes_at_most() {
    let listen = |length: usize| format!("server: {{listen: unix:/{}}}", "x".repeat(length - 1));
    assert_eq!(load(&listen(107)).server.listen.len(), 1);
    assert_snapshot!(errors(&listen(108)), @r"
    gateway.yaml:1: server.listen: the path has 108 bytes; a UNIX socket has 107 at most
        Choose a shorter one, such as unix:/run/app.sock
    ");
    let relative = |length: usize| {
        let (text, path) =
            (format!("server: {{listen: unix:{}}}", "x".repeat(length)), Path::new("/etc/p/gateway.yaml"));
        super::super::parse(&text, path, &env).is_ok()
    };
    assert!(relative(107 - "/etc/p/".len()));
    assert!(!relative(108 - "/etc/p/".len()));
}

#[test]
fn forms_of_a_listener() {
    assert_snapshot!(errors("server: {listen: 8080}"), @r"
    gateway.yaml:1:18: server.listen: expected an address, a mapping of `address`, `tls` and `proxy_protocol`, or a list of such, found a number
        Write such as 127.0.0.1:8080, 0.0.0.0:8080 for all addresses, or unix:/run/portcullis.sock
    ");
    assert_snapshot!(errors("server: {listen: [8080]}"), @r"
    gateway.yaml:1:19: server.listen[0]: expected an address, or a mapping of `address`, `tls` and `proxy_protocol`, found a number
        Write such as 127.0.0.1:8080, 0.0.0.0:8080 for all addresses, or unix:/run/portcullis.sock
    ");
    assert_snapshot!(errors("server: {listen: [[127.0.0.1:80]]}"), @r"
    gateway.yaml:1:19: server.listen[0]: expected an address, or a mapping of `address`, `tls` and `proxy_protocol`, found a list
        Write such as 127.0.0.1:8080, 0.0.0.0:8080 for all addresses, or unix:/run/portcullis.sock
    ");
    assert_snapshot!(errors("server: {listen: [{tls: true}]}"), @"gateway.yaml:1:19: server.listen[0]: `address` is missing");
    assert_snapshot!(errors("server: {listen: [{address: 8080}]}"), @r"
    gateway.yaml:1:29: server.listen[0].address: expected text, found a number
        Put it in quotes
    ");
    assert_snapshot!(errors("server: {listen: [{address: 127.0.0.1:80, tls: yes}]}"), @"gateway.yaml:1:48: server.listen[0].tls: expected `true` or `false`, found text");
    assert_snapshot!(errors("server:
  listen:
    - address: 127.0.0.1:80
      proxy: true"), @r"
    gateway.yaml:4:7: server.listen[0].proxy: there is no key `proxy` here
        The keys here are: address, tls, proxy_protocol
    ");
    assert_snapshot!(errors("server: {listen: {adress: 127.0.0.1:80}}"), @r"
    gateway.yaml:1:19: server.listen.adress: there is no key `adress` here
        Did you mean `address`? The keys here are: address, tls, proxy_protocol
    ");
}

#[test]
fn certificates() {
    assert_snapshot!(errors("server:
  listen:
    - 127.0.0.1:80
    - address: 127.0.0.1:443
      tls: true"), @r"
    gateway.yaml:5: server.listen[1].tls: there is no certificate to show
        Give one: server.tls: {certificates: [{cert: tls/site.pem, key: tls/site.key}]}
    ");
    assert_snapshot!(errors("server:
  listen: {address: 127.0.0.1:443, tls: true}
  tls: {certificates: []}"), @r"
    gateway.yaml:3: server.tls.certificates: is an empty list
        Give one pair at least, such as {cert: tls/site.pem, key: tls/site.key}
    ");
    assert_snapshot!(errors("server: {tls: {}}"), @"gateway.yaml:1:15: server.tls: `certificates` is missing");
    assert_snapshot!(errors("server: {tls: {certificates: [{cert: a.pem}]}}"), @"gateway.yaml:1:31: server.tls.certificates[0]: `key` is missing");
    assert_snapshot!(errors("server: {tls: {certificates: a.pem}}"), @r"
    gateway.yaml:1:30: server.tls.certificates: expected a list, found text
        Write [one, two], or each on a line of its own after `- `
    ");
    assert_snapshot!(errors(r#"server: {tls: {certificates: [{cert: "", key: "a\n"}], client_ca: ""}}"#), @r"
    gateway.yaml:1: server.tls.certificates[0].cert: does not name a file
        Write its path, such as tls/site.pem
    gateway.yaml:1: server.tls.certificates[0].key: does not name a file
        Write its path, such as tls/site.pem
    gateway.yaml:1: server.tls.client_ca: does not name a file
        Write its path, such as tls/site.pem
    ");
    assert_snapshot!(warnings("server: {tls: {certificates: [{cert: a.pem, key: a.key}]}}"), @r"
    server.tls: no listener speaks TLS: in server.listen write {address: 0.0.0.0:443, tls: true}
    routes: there are none: every path but the gateway's own endpoints is 404
    ");
}

#[test]
fn nobody_sends_the_proxy_protocol() {
    assert_snapshot!(errors("server:
  listen:
    - address: 127.0.0.1:80
      proxy_protocol: true
    - address: unix:/run/p.sock
      proxy_protocol: true"), @r"
    gateway.yaml:4: server.listen[0].proxy_protocol: nobody may send the PROXY protocol's header, because there are no server.trusted_proxies
        Name there the load balancers that stand before this
    ");
}

#[test]
fn bounds() {
    let limits = load("server: {limits: {connections: 10000000, per_address: 20}}").server.limits;
    assert_eq!((limits.connections, limits.per_address), (10_000_000, 20));
    let limits = load("").server.limits;
    assert_eq!((limits.connections, limits.per_address), (50_000, 0));
    assert_snapshot!(errors("server: {limits: {connections: 0}}"), @"gateway.yaml:1: server.limits.connections: must be from 1 to 10000000");
    assert_snapshot!(errors("server: {limits: {connections: 10000001}}"), @"gateway.yaml:1: server.limits.connections: must be from 1 to 10000000");
    assert_snapshot!(errors("server: {limits: {per_address: many}}"), @"gateway.yaml:1:32: server.limits.per_address: expected a whole number, not negative, found text");
    assert_snapshot!(errors("server: {limits: {per_address: 10000001}}"), @"gateway.yaml:1: server.limits.per_address: must be from 0 to 10000000");
}

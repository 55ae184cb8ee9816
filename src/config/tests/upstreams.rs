//! What an upstream's servers speak, how they are checked and dealt.

use std::path::Path;
use std::time::Duration;

use insta::assert_snapshot;

use super::super::{Balance, HashKey, Protocol, ServerAddress, Upstream, UpstreamServer};
use super::{env, errors, load, warnings};

/// The upstream `app` with these keys.
fn app(keys: &str) -> Upstream {
    load(&file(keys)).upstreams.remove(0)
}

fn file(keys: &str) -> String {
    format!("upstreams: {{app: {{{keys}}}}}\nroutes: [{{path: /, upstream: app}}]")
}

#[test]
fn servers() {
    let text = "\
upstreams:
  app:
    servers:
      - http://h
      - HTTPS://H.Example
      - {url: https://10.0.0.7:8443/, weight: 2}
      - https://[::1]
      - http://[::1]:444
      - unix:/run/app.sock
      - {url: unix:run/app.sock, weight: 0}
routes: [{path: /, upstream: app}]
";
    let config = super::super::parse(text, Path::new("/etc/p/gateway.yaml"), &env);
    let servers = config.unwrap_or_else(|error| panic!("{error}")).upstreams.remove(0).servers;
    let shown: Vec<String> = servers.iter().map(|server| format!("{server} {}", server.weight)).collect();
    assert_eq!(
        shown,
        [
            "http://h 1",
            "https://h.example 1",
            "https://10.0.0.7:8443 2",
            "https://[::1] 1",
            "http://[::1]:444 1",
            "unix:/run/app.sock 1",
            "unix:/etc/p/run/app.sock 0"
        ]
    );
    assert_eq!(
        servers[1],
        UpstreamServer { address: ServerAddress::Tcp { host: "h.example".into(), port: 443 }, tls: true, weight: 1 }
    );
    assert!(!servers[5].tls);
}

#[test]
fn servers_that_are_none() {
    assert_snapshot!(errors(&file(r#"servers: ["unix:"]"#)), @r"
    gateway.yaml:1: upstreams.app.servers[0]: does not name a socket
        Write unix:PATH, such as unix:/run/app.sock
    ");
    assert_snapshot!(errors(&file(r#"servers: ["unix://run/app.sock"]"#)), @r"
    gateway.yaml:1: upstreams.app.servers[0]: `unix://` can be read in two ways
        Write unix:PATH, such as unix:/run/app.sock
    ");
    assert_snapshot!(errors(&file(&format!("servers: [unix:/{}]", "x".repeat(107)))), @r"
    gateway.yaml:1: upstreams.app.servers[0]: the path has 108 bytes; a UNIX socket has 107 at most
        Choose a shorter one, such as unix:/run/app.sock
    ");
    assert_snapshot!(errors(&file(r#"servers: ["unix:/run/app.sock", "unix:/run/./app.sock"]"#)), @r"
    gateway.yaml:1: upstreams.app.servers[1]: `unix:/run/./app.sock` stands twice
        Keep one of the two, with a larger weight
    ");
    assert_snapshot!(errors(&file(r#"servers: ["https://h:443", "http://h:443"]"#)), @r"
    gateway.yaml:1: upstreams.app.servers[1]: `h:443` stands twice
        Keep one of the two, with a larger weight
    ");
    assert_snapshot!(errors(&file(r#"servers: ["https://user:hunter2@h"]"#)), @r"
    gateway.yaml:1: upstreams.app.servers[0]: the URL of a server has no user or password
        Write http://HOST:PORT, https://HOST:PORT or unix:/PATH
    ");
    assert_snapshot!(errors(&file(r#"servers: ["https://h/base"]"#)), @r"
    gateway.yaml:1: upstreams.app.servers[0]: the URL of a server has no path, query or fragment
        Write just scheme, host and port; a route's strip_prefix changes the path that is sent
    ");
    assert_snapshot!(errors(&file(r#"servers: ["http://:80"]"#)), @r"
    gateway.yaml:1: upstreams.app.servers[0]: `:80` has no host
        Write it before the port
    ");
    assert_snapshot!(errors(&file(r#"servers: ["h2c://h"]"#)), @r"
    gateway.yaml:1: upstreams.app.servers[0]: `h2c` is not a possible scheme
        Write http://HOST:PORT, https://HOST:PORT or unix:/PATH
    ");
}

#[test]
fn balances() {
    for (written, balance) in [
        ("round_robin", Balance::RoundRobin),
        ("least_connections", Balance::LeastConnections),
        ("random", Balance::Random),
        ("\"${NO_SUCH:-random}\"", Balance::Random),
        ("{consistent: subject}", Balance::Consistent(HashKey::Subject)),
        ("{consistent: address}", Balance::Consistent(HashKey::Address)),
    ] {
        assert_eq!(app(&format!("servers: [http://h], balance: {written}")).balance, balance, "{written}");
    }
    assert_eq!(app("servers: [http://h]").balance, Balance::RoundRobin);
    assert_snapshot!(errors(&file("servers: [http://h], balance: round-robin")), @r"
    gateway.yaml:1:49: upstreams.app.balance: `round-robin` is not possible here
        Did you mean `round_robin`? Possible are: round_robin, least_connections, random
    ");
    assert_snapshot!(errors(&file("servers: [http://h], balance: consistent")), @"gateway.yaml:1:49: upstreams.app.balance: `consistent` needs a key; write `{consistent: subject}` or `{consistent: address}`");
    assert_snapshot!(errors(&file("servers: [http://h], balance: {consistent: cookie}")), @r"
    gateway.yaml:1:62: upstreams.app.balance.consistent: `cookie` is not possible here
        Possible are: subject, address
    ");
    assert_snapshot!(errors(&file("servers: [http://h], balance: {sticky: subject}")), @r"
    gateway.yaml:1:50: upstreams.app.balance.sticky: there is no key `sticky` here
        The keys here are: consistent
    ");
    assert_snapshot!(errors(&file("servers: [http://h], balance: {}")), @"gateway.yaml:1:49: upstreams.app.balance: `consistent` is missing");
    assert_snapshot!(errors(&file("servers: [http://h], balance: [random]")), @"gateway.yaml:1:49: upstreams.app.balance: expected `round_robin`, `least_connections`, `random` or `{consistent: subject}`, found a list");
    assert_snapshot!(errors(&file("servers: [http://h], balance: \"${PORT}\"")), @r"
    gateway.yaml:1: upstreams.app.balance: `8088` is not possible here
        Possible are: round_robin, least_connections, random
    ");
}

#[test]
fn health() {
    assert_eq!(app("servers: [http://h]").health, None);
    assert_eq!(app("servers: [http://h], health: null").health, None);
    let tcp = app("servers: [http://h], health: {}").health.unwrap();
    assert_eq!((tcp.path, tcp.every, tcp.up, tcp.down), (None, Duration::from_secs(5), 2, 3));
    let http = app(r#"servers: [http://h], health: {path: "/healthz?deep=1", every: 100ms, up: 1, down: 5}"#);
    let http = http.health.unwrap();
    assert_eq!((http.path.as_deref(), http.up, http.down), (Some("/healthz?deep=1"), 1, 5));
    assert_eq!(http.every, Duration::from_millis(100));
    assert_snapshot!(errors(&file("servers: [http://h], health: {path: healthz}")), @r"
    gateway.yaml:1: upstreams.app.health.path: `healthz` does not begin with `/`
        Write such as /healthz
    ");
    assert_snapshot!(errors(&file(r#"servers: [http://h], health: {path: ""}"#)), @r"
    gateway.yaml:1: upstreams.app.health.path: an empty text does not begin with `/`
        Leave it out to check for a connection that opens
    ");
    assert_snapshot!(errors(&file("servers: [http://h], health: {path: /a#b}")), @r"
    gateway.yaml:1: upstreams.app.health.path: `/a#b` has a fragment, which is never sent
        Leave out what follows `#`
    ");
    assert_snapshot!(errors(&file(r#"servers: [http://h], health: {path: "/a b"}"#)), @r"
    gateway.yaml:1: upstreams.app.health.path: `/a b` has a space, a control character or a letter beyond ASCII
        Write it percent-encoded, such as %20
    ");
    assert_snapshot!(errors(&file(r#"servers: [http://h], health: {path: "/a\r\nX: y"}"#)), @r"
    gateway.yaml:1: upstreams.app.health.path: `/a\r\nX: y` has a space, a control character or a letter beyond ASCII
        Write it percent-encoded, such as %20
    ");
    assert_snapshot!(errors(&file(r#"servers: [http://h], health: {path: "/é"}"#)), @r"
    gateway.yaml:1: upstreams.app.health.path: `/é` has a space, a control character or a letter beyond ASCII
        Write it percent-encoded, such as %20
    ");
    assert_snapshot!(errors(&file("servers: [http://h], health: {every: 1ms, up: 0, down: 5000}")), @r"
    gateway.yaml:1: upstreams.app.health.every: must be at least 10ms
    gateway.yaml:1: upstreams.app.health.up: must be from 1 to 1000
    gateway.yaml:1: upstreams.app.health.down: must be from 1 to 1000
    ");
    assert_snapshot!(errors(&file("servers: [http://h], health: /healthz")), @r"
    gateway.yaml:1:48: upstreams.app.health: expected a mapping, found text
        Write such as {path: /healthz, every: 5s}
    ");
}

#[test]
fn protocols() {
    for (keys, protocol) in [
        ("servers: [http://h]", Protocol::Http1),
        ("servers: [http://h], protocol: http1", Protocol::Http1),
        ("servers: [http://h, https://i, unix:/s], protocol: h2", Protocol::H2),
    ] {
        assert_eq!(app(keys).protocol, protocol, "{keys}");
    }
    assert_snapshot!(errors(&file("servers: [http://h], protocol: http2")), @r"
    gateway.yaml:1:50: upstreams.app.protocol: `http2` is not possible here
        Possible are: http1, h2
    ");
}

#[test]
fn verification() {
    let verified = app("servers: [https://h], tls: {ca: ca.pem}").tls;
    assert_eq!((verified.ca.as_deref(), verified.insecure_skip_verify), (Some(Path::new("ca.pem")), false));
    for quiet in [
        "servers: [https://h], host: keep",
        "servers: [http://h], tls: {ca: null, insecure_skip_verify: false}",
        "servers: [http://h, https://i], tls: {ca: ca.pem}",
    ] {
        assert_eq!(warnings(&file(quiet)), "", "{quiet}");
    }
    assert_snapshot!(warnings(&file("servers: [https://h], tls: {insecure_skip_verify: true}")), @"upstreams.app.tls.insecure_skip_verify: any certificate is accepted: whoever sits between can read and change everything. Give `ca` instead");
    assert_snapshot!(warnings(&file("servers: [http://h, unix:/s], tls: {ca: ca.pem}")), @"upstreams.app.tls: has no effect: no server here has https://");
    assert_snapshot!(warnings(&file("servers: [http://h], tls: {insecure_skip_verify: true}")), @"upstreams.app.tls: has no effect: no server here has https://");
    assert_snapshot!(errors(&file("servers: [https://h], tls: {ca: ca.pem, insecure_skip_verify: true}")), @r"
    gateway.yaml:1: upstreams.app.tls.insecure_skip_verify: stands beside `ca`, which would never be looked at
        Leave it out: a `ca` of your own verifies your own certificates
    ");
    assert_snapshot!(errors(&file(r#"servers: [https://h], tls: {ca: ""}"#)), @r"
    gateway.yaml:1: upstreams.app.tls.ca: does not name a file
        Write its path, such as tls/site.pem
    ");
    assert_snapshot!(errors(&file("servers: [https://h], tls: {verify: false}")), @r"
    gateway.yaml:1:47: upstreams.app.tls.verify: there is no key `verify` here
        The keys here are: ca, insecure_skip_verify
    ");
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn upstream_servers() {
    assert_snapshot!(errors("upstreams: {app: {servers: []}}"), @r"
    gateway.yaml:1: upstreams.app.servers: is an empty list
        Give one server at least, such as http://127.0.0.1:5000
    ");
    assert_snapshot!(errors(r#"upstreams: {app: {servers: ["h:80"]}}"#), @r"
    gateway.yaml:1: upstreams.app.servers[0]: `h:80` is not a URL
        Write http://HOST:PORT, https://HOST:PORT or unix:/PATH
    ");
    assert_snapshot!(errors(r#"upstreams: {app: {servers: ["127.0.0.1"]}}"#), @r"
    gateway.yaml:1: upstreams.app.servers[0]: `127.0.0.1` is not a URL
        Write http://HOST:PORT, https://HOST:PORT or unix:/PATH
    ");
    assert_snapshot!(errors(r#"upstreams: {app: {servers: ["ftp://h"]}}"#), @r"
    gateway.yaml:1: upstreams.app.servers[0]: `ftp` is not a possible scheme
        Write http://HOST:PORT, https://HOST:PORT or unix:/PATH
    ");
    assert_snapshot!(errors(r#"upstreams: {app: {servers: ["http://user:hunter2@h"]}}"#), @r"
    gateway.yaml:1: upstreams.app.servers[0]: the URL of a server has no user or password
        Write http://HOST:PORT, https://HOST:PORT or unix:/PATH
    ");
    assert_snapshot!(errors(r#"upstreams: {app: {servers: ["user:hunter2@h"]}}"#), @r"
    gateway.yaml:1: upstreams.app.servers[0]: is not a URL
        Write http://HOST:PORT, https://HOST:PORT or unix:/PATH
    ");
    assert_snapshot!(errors(r#"upstreams: {app: {servers: ["http://h/base"]}}"#), @r"
    gateway.yaml:1: upstreams.app.servers[0]: the URL of a server has no path, query or fragment
        Write just scheme, host and port; a route's strip_prefix changes the path that is sent
    ");
    assert_snapshot!(errors(r#"upstreams: {app: {servers: ["http://h?x"]}}"#), @r"
    gateway.yaml:1: upstreams.app.servers[0]: the URL of a server has no path, query or fragment
        Write just scheme, host and port; a route's strip_prefix changes the path that is sent
    ");
    assert_snapshot!(errors(r#"upstreams: {app: {servers: ["http://"]}}"#), @r"
    gateway.yaml:1: upstreams.app.servers[0]: the URL has no host
        Write http://HOST:PORT, https://HOST:PORT or unix:/PATH
    ");
    assert_snapshot!(errors(r#"upstreams: {app: {servers: ["http://h:0"]}}"#), @r"
    gateway.yaml:1: upstreams.app.servers[0]: `0` is not a port
        A port is a number from 1 to 65535
    ");
    assert_snapshot!(errors(r#"upstreams: {app: {servers: ["http://h:99999"]}}"#), @r"
    gateway.yaml:1: upstreams.app.servers[0]: `99999` is not a port
        A port is a number from 1 to 65535
    ");
    assert_snapshot!(errors(r#"upstreams: {app: {servers: ["http://h:"]}}"#), @r"
    gateway.yaml:1: upstreams.app.servers[0]: an empty text is not a port
        A port is a number from 1 to 65535
    ");
    assert_snapshot!(errors(r#"upstreams: {app: {servers: ["http://[::1"]}}"#), @"gateway.yaml:1: upstreams.app.servers[0]: `[::1` is not an IPv6 address");
    assert_snapshot!(errors(r#"upstreams: {app: {servers: ["http://::1"]}}"#), @r"
    gateway.yaml:1: upstreams.app.servers[0]: `::1` lacks brackets
        Write [::1]
    ");
    assert_snapshot!(errors(r#"upstreams: {app: {servers: ["http://1.2.3.4.5"]}}"#), @"gateway.yaml:1: upstreams.app.servers[0]: `1.2.3.4.5` looks like an IPv4 address, but is none");
    assert_snapshot!(errors(r#"upstreams: {app: {servers: ["http://a_b..c"]}}"#), @r"
    gateway.yaml:1: upstreams.app.servers[0]: `a_b..c` is not a host name
        A host name has the characters a-z 0-9 - _ and single dots
    ");
    assert_snapshot!(errors(r#"upstreams: {app: {servers: ["http://bücher.example"]}}"#), @r"
    gateway.yaml:1: upstreams.app.servers[0]: `bücher.example` has letters beyond ASCII
        Write its punycode form, which begins with xn--
    ");
    assert_snapshot!(errors(r#"upstreams: {app: {servers: [{url: "http://h", weight: 0}, {url: "http://i", weight: 0}]}}"#), @r"
    gateway.yaml:1: upstreams.app.servers: every weight is 0, so that no server would get a request
        Give one a weight of 1
    ");
    assert_snapshot!(errors(r#"upstreams: {app: {servers: [{url: "http://h", weight: 1000}]}}"#), @"gateway.yaml:1: upstreams.app.servers[0].weight: must be from 0 to 256");
    assert_snapshot!(errors(r#"upstreams: {app: {servers: ["http://h", "http://H:80/"]}}"#), @r"
    gateway.yaml:1: upstreams.app.servers[1]: `h:80` stands twice
        Keep one of the two, with a larger weight
    ");
    assert_snapshot!(errors(r#"upstreams: {app: {servers: ["http://${EMPTY}"]}}"#), @r"
    gateway.yaml:1: upstreams.app.servers[0]: the environment variable EMPTY is empty
        Set EMPTY, or give a default: ${EMPTY:-default}
    ");
    assert_snapshot!(errors(r#"upstreams: {"a b": {servers: [http://h]}}"#), @r"
    gateway.yaml:1: upstreams.a b: `a b` is not a name for an upstream
        It has letters, digits, - and _, and begins with a letter or digit
    ");
    assert_snapshot!(errors("upstreams: {-a: {servers: [http://h]}}"), @r"
    gateway.yaml:1: upstreams.-a: `-a` is not a name for an upstream
        It has letters, digits, - and _, and begins with a letter or digit
    ");
    assert_snapshot!(errors(r#"upstreams: {a: {servers: [http://h], host: ""}}"#), @r"
    gateway.yaml:1: upstreams.a.host: is empty
        Write keep, upstream or a host name
    ");
    assert_snapshot!(errors(r#"upstreams: {a: {servers: [http://h], host: "a/b"}}"#), @r"
    gateway.yaml:1: upstreams.a.host: `a/b` is not just a host name
        Leave out scheme and path
    ");
    assert_snapshot!(errors(r#"upstreams: {a: {servers: [http://h], host: "a:b"}}"#), @r"
    gateway.yaml:1: upstreams.a.host: `b` is not a port
        A port is a number from 1 to 65535
    ");
    assert_snapshot!(errors("upstreams: {a: {servers: [http://h], timeouts: {connect: 0s}}}"), @"gateway.yaml:1: upstreams.a.timeouts.connect: must be at least 1ms");
}

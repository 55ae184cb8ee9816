//! What a file means.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use insta::assert_snapshot;

use super::super::key::Key;
use super::super::{
    Auth, Config, HostPolicy, IdentitySource, LogLevel, PathPattern, Segment, StoreLocation, UsersAccess,
};
use super::super::{expand, locate, spelling, units};
use super::{env, errors, load, problems, with_app};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn an_empty_file_is_all_defaults() {
    for text in ["", "\n", "# nothing\n", "---\n", "server:\nroutes:\n", "{}", "\u{feff}log: {}\n"] {
        let config = load(text);
        assert_eq!(config.server.listen[0].address.to_string(), "127.0.0.1:8080", "{text:?}");
        assert_eq!(config.admin, Some("127.0.0.1:9180".parse().unwrap()));
        assert_eq!(config.store.location, StoreLocation::Sqlite("portcullis.db".into()));
        assert!(config.tokens.secret.is_none() && config.routes.is_empty());
        assert_eq!(config.identity_headers.len(), 5);
    }
}

#[test]
fn every_example_is_valid() {
    let unset = |_: &str| None;
    for name in [
        "gateway.yaml",
        "examples/minimal.yaml",
        "examples/full.yaml",
        "examples/flask.yaml",
        "examples/compose-gateway.yaml",
    ] {
        let path = Path::new(ROOT).join(name);
        let config = super::super::load(&path, &unset).unwrap_or_else(|error| panic!("{error}"));
        assert!(!config.routes.is_empty(), "{name}");
        assert_eq!(config.warnings.is_empty(), name != "examples/flask.yaml", "{name}: {:?}", config.warnings);
    }
}

/// The full example spells the defaults out; whatever it says of them must be so.
#[test]
fn the_full_example_shows_the_defaults() {
    let path = Path::new(ROOT).join("examples/full.yaml");
    let text = fs::read_to_string(path).unwrap();
    let (full, bare) = (load(&text), load(""));
    let shown = |config: &Config| {
        let Config { server, admin, log, store, tokens, identity, .. } = config;
        format!(
            "{:?}",
            (&server.listen, server.workers, server.timeouts, server.limits, admin, log, store, tokens, identity)
        )
    };
    assert_eq!(shown(&full), shown(&bare));
    let (shown, default) = (&full.upstreams[0], &load(&with_app("  []")).upstreams[0]);
    assert_eq!(
        (&shown.timeouts, shown.balance, shown.protocol),
        (&default.timeouts, default.balance, default.protocol)
    );
    assert_eq!((&shown.host, &shown.tls, &shown.health), (&default.host, &default.tls, &default.health));
    let checked = &full.upstreams[1].health;
    let bare = load("upstreams: {app: {servers: [http://h], health: {path: /healthz}}}");
    assert_eq!(*checked, bare.upstreams[0].health);
}

#[test]
fn the_schema_knows_every_key_of_the_full_example() {
    let schema = super::super::schema().to_string();
    for key in [
        "trusted_proxies",
        "header_bytes",
        "proxy_protocol",
        "client_ca",
        "per_address",
        "secret_file",
        "algorithm",
        "jwks_url",
        "roles_claim",
        "issuers",
        "encryption_key_file",
        "argon2",
        "origins",
        "balance",
        "consistent",
        "insecure_skip_verify",
        "strip_prefix",
        "websocket_protocol_token",
        "on_expiry",
        "fresh",
        "weight",
        "on_stale",
    ] {
        assert!(schema.contains(&format!("\"{key}\"")), "{key}");
    }
    assert!(schema.contains("\"additionalProperties\":false"));
}

#[test]
fn the_schema_describes_every_key() {
    fn walk(value: &serde_json::Value, seen: &mut Vec<String>) {
        let properties = value.get("properties").and_then(serde_json::Value::as_object);
        for (name, key) in properties.into_iter().flatten() {
            assert!(key.get("description").is_some(), "{name}: {key}");
            seen.push(name.clone());
        }
        match value {
            serde_json::Value::Object(all) => all.values().for_each(|value| walk(value, seen)),
            serde_json::Value::Array(all) => all.iter().for_each(|value| walk(value, seen)),
            _ => {}
        }
    }
    let mut seen = Vec::new();
    walk(&super::super::schema(), &mut seen);
    assert!(seen.iter().any(|name| name == "proxy_protocol") && seen.len() > 60, "{seen:?}");
}

#[test]
fn variables_are_expanded_once_and_after_parsing() {
    for (text, value) in [
        ("a${PORT}b${PORT}", "a8088b8088"),
        ("${NO_SUCH:-x}", "x"),
        ("${EMPTY:-x}", "x"),
        ("${NO_SUCH:-}", ""),
        ("${PORT:-x}", "8088"),
        ("${NO_SUCH:-a:-b}", "a:-b"),
        ("$${PORT}", "${PORT}"),
        ("$$${PORT}", "$${PORT}"),
        ("$PORT $ {PORT} $$", "$PORT $ {PORT} $$"),
        ("${NESTED}", "${PORT}"),
    ] {
        assert_eq!(expand::expand(text, &env).as_deref(), Ok(value), "{text}");
    }
    let config = load(
        "log: {level: \"${LEVEL}\"}\nserver: {listen: \"127.0.0.1:${PORT}\", limits: {body: \"${NO_SUCH:-1MiB}\"}}",
    );
    assert_eq!(config.log.level, LogLevel::Debug);
    assert_eq!(config.server.listen[0].address.to_string(), "127.0.0.1:8088");
    assert_eq!(config.server.limits.body, 1 << 20);
}

#[test]
fn durations_and_sizes() {
    for (text, millis) in [
        ("500ms", 500),
        ("10s", 10_000),
        ("15m", 900_000),
        ("1h30m", 5_400_000),
        ("30d", 2_592_000_000),
        ("1d1h1m1s1ms", 90_061_001),
        ("0s", 0),
    ] {
        assert_eq!(units::parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
    }
    for bad in [
        "",
        "10",
        "s",
        "1.5h",
        "-1s",
        "+1s",
        "1 s",
        "1S",
        "1w",
        "1m1h",
        "1s1s",
        "99999999999999999999s",
        "999999999999999999d",
    ] {
        assert_eq!(units::parse_duration(bad), None, "{bad}");
    }
    for text in ["1h30m", "500ms", "30d", "0s", "1d1h1m1s1ms"] {
        assert_eq!(units::show_duration(units::parse_duration(text).unwrap()), text);
    }
    for (text, bytes) in [("64KiB", 65_536), ("1MiB", 1 << 20), ("2GiB", 2 << 30), ("100", 100), ("100B", 100)] {
        assert_eq!(units::parse_size(text), Some(bytes), "{text}");
    }
    for bad in ["", "KiB", "1KB", "1k", "1.5MiB", "-1", "1 MiB", "99999999999999999999", "99999999999TiB"] {
        assert_eq!(units::parse_size(bad), None, "{bad}");
    }
}

#[test]
fn paths() {
    let shown = |path: &str| {
        let PathPattern { segments, wildcard } =
            PathPattern::parse(path).unwrap_or_else(|fault| panic!("{path}: {fault:?}"));
        let segments: Vec<String> = segments
            .into_iter()
            .map(|segment| match segment {
                Segment::Literal(text) => text,
                Segment::Any => "{}".into(),
            })
            .collect();
        format!("/{}{}", segments.join("/"), if wildcard { " and below" } else { "" })
    };
    for (path, meaning) in [
        ("/", "/"),
        ("/*", "/ and below"),
        ("/secret", "/secret"),
        ("/secret/", "/secret"),
        ("/reports/*", "/reports and below"),
        ("/users/{id}/posts/{post_2}", "/users/{}/posts/{}"),
        ("/{a}/", "/{}"),
        ("/{a}/*", "/{} and below"),
        ("/%73ecret%2Dx", "/secret-x"),
        ("/a%20b%3f", "/a%20b%3f"),
        ("/caf\u{e9}/%c3%a9", "/caf%C3%A9/%c3%a9"),
        ("/.../.well-known", "/.../.well-known"),
        ("/a:b@c,d=e", "/a:b@c,d=e"),
        ("/100%25", "/100%25"),
        ("/%2A", "/%2A"),
    ] {
        assert_eq!(shown(path), meaning, "{path}");
    }
    for (path, prefix, stripped) in [
        ("/v1/*", "/v1", "/v1"),
        ("/v1/*", "/v1/", "/v1"),
        ("/v1/x", "/v1", "/v1"),
        ("/v1/x", "/v1/x", "/v1/x"),
        ("/%761/{a}", "/v%31", "/v1"),
    ] {
        assert_eq!(PathPattern::parse(path).unwrap().parse_prefix(prefix).as_deref(), Ok(stripped), "{path} {prefix}");
    }
}

#[test]
fn routes() {
    let config = load(
        r#"
upstreams:
  app: {servers: [http://h]}
  API:
    servers: ["http://[::1]:81", {url: HTTP://H.Example./, weight: 3}]
    host: API.internal:99
routes:
  - {path: /a/, host: Example.COM., upstream: app, methods: [GET]}
  - {path: /a, host: example.com, upstream: API, methods: [POST, PUT]}
  - {path: /a, upstream: app}
  - {path: /x, upstream: app, auth: {}}
  - {path: /y, upstream: app, auth: {roles: [a, b:c], scopes: [orders/read], claims: {n: 5, t: "${PORT}", b: true}, fresh: true}}
"#,
    );
    let ids: Vec<&str> = config.routes.iter().map(|route| route.id.as_str()).collect();
    assert_eq!(ids, ["example.com/a/ GET", "example.com/a POST,PUT", "/a", "/x", "/y"]);
    assert_eq!(config.routes[1].upstream, 1);
    assert_eq!(config.routes[3].auth, Auth::Required(super::super::Rule::default()));
    assert!(config.routes[0].forward_authorization);
    assert_snapshot!(format!("{:?}", config.routes[4].auth), @r#"Required(Rule { roles: [Role("a"), Role("b:c")], scopes: ["orders/read"], claims: [("n", Number(5)), ("t", String("8088")), ("b", Bool(true))], fresh: true, issuers: [] })"#);
    let servers: Vec<String> =
        config.upstreams[1].servers.iter().map(super::super::UpstreamServer::authority).collect();
    assert_eq!(servers, ["[::1]:81", "h.example"]);
    assert_eq!(config.upstreams[1].host, HostPolicy::Name("api.internal:99".into()));
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn identity_headers_come_in_order() {
    let config = load("identity_headers: {zone: X-Zone, email: X-Email, sub: X-User}");
    let names: Vec<&str> = config.identity_headers.iter().map(|header| header.name.as_str()).collect();
    assert_eq!(names[..5], ["X-Auth-Subject", "X-Auth-Roles", "X-Auth-Token-Id", "X-Auth-Session", "X-Auth-Issuer"]);
    assert_eq!(names[5..], ["X-Email", "X-User", "X-Zone"]);
    assert_eq!(config.identity_headers[6].source, IdentitySource::Claim("sub".into()));
}

#[test]
fn switches() {
    assert_eq!(load("admin: {listen: null}").admin, None);
    assert_eq!(load("identity: {users: off}").identity.users, UsersAccess::Off);
    assert_eq!(load("identity: {users: false}").identity.users, UsersAccess::Off);
    assert_eq!(load("").identity.sessions_per_account, 100);
    assert_eq!(load("identity: {sessions_per_account: 10000}").identity.sessions_per_account, 10_000);
    for (text, grace) in [
        ("{}", None),
        ("{grace: 20s}", None),
        ("{enabled: true}", Some(10)),
        ("{enabled: true, grace: 0s}", Some(0)),
        ("{enabled: true, grace: 5m}", Some(300)),
    ] {
        let rotation = load(&format!("identity: {{refresh_rotation: {text}}}")).identity.refresh_rotation;
        assert_eq!(rotation.map(|rotation| rotation.grace), grace.map(Duration::from_secs), "{text}");
    }
    let folders = |url: &str| {
        let text = format!("store: {{url: \"{url}\"}}");
        let config = super::super::parse(&text, Path::new("/etc/p/gateway.yaml"), &env).unwrap();
        let StoreLocation::Sqlite(path) = config.store.location;
        path
    };
    assert_eq!(folders("sqlite:data/p.db"), PathBuf::from("/etc/p/data/p.db"));
    assert_eq!(folders("sqlite:/data/p.db"), PathBuf::from("/data/p.db"));
}

#[test]
fn networks() {
    let config = load("server: {trusted_proxies: [10.0.0.0/8, 192.0.2.7, \"fd00::/8\", \"::ffff:172.16.0.0/108\"]}");
    let trusted = |address: &str| {
        let address: IpAddr = address.parse().unwrap();
        config.server.trusted_proxies.iter().any(|network| network.contains(address))
    };
    for inside in ["10.1.2.3", "192.0.2.7", "fd12::1", "172.16.9.9", "::ffff:10.0.0.1"] {
        assert!(trusted(inside), "{inside}");
    }
    for outside in ["11.0.0.1", "192.0.2.8", "fe80::1", "172.32.0.1"] {
        assert!(!trusted(outside), "{outside}");
    }
}

#[test]
fn anchors_and_merges() {
    let text = "\
upstreams:
  a: &base
    servers: [http://h]
    timeouts: &t {connect: 1s}
  b:
    <<: *base
    servers: [http://i]
routes:
  - {path: /a, upstream: a}
  - &r {path: /b, upstream: b, auth: public}
  - {<<: *r, path: /c}
";
    let config = load(text);
    assert_eq!(config.upstreams[1].timeouts.connect, Duration::from_secs(1));
    assert_eq!(config.upstreams[1].servers[0].authority(), "i");
    assert_eq!(config.routes[2].auth, Auth::Public);
    // Errors point into the file as written, not into its merged form.
    assert_snapshot!(errors(&text.replace("{<<: *r, path: /c}", "{<<: *r, pth: /c}")), @r"
    gateway.yaml:11:14: routes[2].pth: there is no key `pth` here
        Did you mean `path`? The keys here are: host, path, methods, upstream, strip_prefix, encoded_slash, forward_authorization, websocket_protocol_token, on_expiry, stream, auth, cors, limits
    ");
    assert_snapshot!(errors(&text.replace("connect: 1s", "connect: 1x")), @r"
    gateway.yaml:4: upstreams.a.timeouts.connect: `1x` is not a duration
        Write such as 500ms, 10s, 15m, 1h30m or 30d
    gateway.yaml:4: upstreams.b.timeouts.connect: `1x` is not a duration
        Write such as 500ms, 10s, 15m, 1h30m or 30d
    ");
    assert_snapshot!(errors(&format!("{text}log: {{levle: 1}}\n")), @r"
    gateway.yaml:12:7: log.levle: there is no key `levle` here
        Did you mean `level`? The keys here are: format, level, access, audit
    ");
}

#[test]
fn key_paths_are_found() {
    let text = "a:\n  b:\n    - x\n    - c: &m\n        d: 1\n  e: {f: [1, {g: 2}]}\nh:\n  <<: *m\n  i: 1\n";
    for (key, line, column) in [
        ("a", 1, 1),
        ("a.b", 2, 3),
        ("a.b[0]", 3, 7),
        ("a.b[1]", 4, 7),
        ("a.b[1].c.d", 5, 9),
        ("a.e.f[1].g", 6, 15),
        ("h.i", 9, 3),
        ("h.d", 5, 9),
        ("h.none", 7, 1),
        ("a.b[7].x", 2, 3),
        ("a.b[0].x", 3, 7),
    ] {
        let at = locate::find(text, &Key::of(key)).map(|at| (at.line, at.column));
        assert_eq!(at, Some((line, column)), "{key}");
    }
    assert_eq!(locate::find(text, &Key::of("none")), None);
    for key in ["a.b[1].c", "x[0][2].y"] {
        assert_eq!(Key::of(key).to_string(), key);
    }
}

#[test]
fn names_are_guessed() {
    for (word, guess) in
        [("lisen", Some("listen")), ("ptah", Some("path")), ("HOST", Some("host")), ("zebra", None), ("", None)]
    {
        assert_eq!(spelling::nearest(word, ["listen", "path", "host"]), guess, "{word}");
    }
    for (word, guess) in [("http2", None), ("htp1", Some("http1")), ("argon", Some("argon2")), ("argon3", None)] {
        assert_eq!(spelling::nearest(word, ["http1", "argon2"]), guess, "{word}");
    }
}

#[test]
fn every_error_is_told_but_only_a_hundred_are_located() {
    let routes: String = (0..150).map(|n| format!("  - {{path: p{n}, upstream: app}}\n")).collect();
    let problems = problems(&with_app(&routes));
    assert_eq!(problems.len(), 150);
    assert_eq!(problems.iter().filter(|problem| problem.line.is_some()).count(), 100);
}

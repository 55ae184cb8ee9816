//! Errors of form: one at a time, with line and column.

use insta::assert_snapshot;

use super::{errors, route_errors};

#[test]
fn unknown_keys() {
    assert_snapshot!(errors("sever: {}"), @r"
    gateway.yaml:1:1: sever: there is no key `sever` here
        Did you mean `server`? The keys here are: server, admin, log, store, tokens, identity, identity_headers, upstreams, routes
    ");
    assert_snapshot!(errors("server:
  lisen: 127.0.0.1:80"), @r"
    gateway.yaml:2:3: server.lisen: there is no key `lisen` here
        Did you mean `listen`? The keys here are: listen, workers, trusted_proxies, timeouts, limits, tls
    ");
    assert_snapshot!(errors("log: {colour: true}"), @r"
    gateway.yaml:1:7: log.colour: there is no key `colour` here
        The keys here are: format, level, access, audit
    ");
    assert_snapshot!(errors("routes:
  - path: /
    upstream: app
    atuh: public"), @r"
    gateway.yaml:4:5: routes[0].atuh: there is no key `atuh` here
        Did you mean `auth`? The keys here are: host, path, methods, upstream, strip_prefix, encoded_slash, forward_authorization, websocket_protocol_token, on_expiry, stream, auth, cors, limits
    ");
    assert_snapshot!(errors("routes:
  - path: /
    upstream: app
    auth:
      rolls: [admin]"), @r"
    gateway.yaml:5:7: routes[0].auth.rolls: there is no key `rolls` here
        Did you mean `roles`? The keys here are: roles, scopes, claims, fresh, issuers
    ");
    assert_snapshot!(errors("upstreams:
  app:
    servers: [http://h:1]
    timeout: 3s"), @r"
    gateway.yaml:4:5: upstreams.app.timeout: there is no key `timeout` here
        Did you mean `timeouts`? The keys here are: servers, balance, health, timeouts, protocol, host, tls, max_connections
    ");
    assert_snapshot!(errors("upstreams:
  app:
    servers:
      - url: http://h
        wait: 2"), @r"
    gateway.yaml:5:9: upstreams.app.servers[0].wait: there is no key `wait` here
        The keys here are: url, weight
    ");
}

#[test]
fn missing_keys() {
    assert_snapshot!(errors("routes:
  - path: /
    upstream: app
  - path: /x"), @"gateway.yaml:4:5: routes[1]: `upstream` is missing");
    assert_snapshot!(errors("upstreams:
  app:
    host: keep"), @"gateway.yaml:3:5: upstreams.app: `servers` is missing");
    assert_snapshot!(errors("upstreams:
  app:"), @"gateway.yaml:2:7: upstreams.app: `servers` is missing");
    assert_snapshot!(errors("upstreams: {app: {servers: [{weight: 1}]}}"), @"gateway.yaml:1:29: upstreams.app.servers[0]: `url` is missing");
    assert_snapshot!(errors("routes:
  -"), @"gateway.yaml:2:4: routes[0]: `path` is missing");
}

#[test]
fn duplicate_keys() {
    assert_snapshot!(errors("log: {level: info}
store: {}
log:
  level: debug"), @r"
    gateway.yaml:3:1: log: `log` stands twice
        Keep one of the two
    ");
    assert_snapshot!(errors("tokens:
  issuer: a
  audience: b
  issuer: c"), @r"
    gateway.yaml:4:3: tokens.issuer: `issuer` stands twice
        Keep one of the two
    ");
    assert_snapshot!(errors("upstreams:
  a: {servers: [http://h]}
  b: {servers: [http://h]}
  a: {servers: [http://i]}"), @r"
    gateway.yaml:4:3: upstreams.a: `a` stands twice
        Keep one of the two
    ");
    assert_snapshot!(errors("identity_headers:
  email: X-A
  email: X-B"), @r"
    gateway.yaml:3:3: identity_headers.email: `email` stands twice
        Keep one of the two
    ");
}

#[test]
fn wrong_types() {
    assert_snapshot!(errors("just words"), @"gateway.yaml:1:1: expected a mapping, found text");
    assert_snapshot!(errors("[1, 2]"), @"gateway.yaml:1:1: expected a mapping, found a list");
    assert_snapshot!(errors("server: 5"), @r"
    gateway.yaml:1:9: server: expected a mapping, found a number
        Write such as {listen: 127.0.0.1:8080}
    ");
    assert_snapshot!(errors("server:
  workers: many"), @"gateway.yaml:2:12: server.workers: expected a whole number, not negative, found text");
    assert_snapshot!(errors("server: {workers: -1}"), @"gateway.yaml:1:19: server.workers: expected a whole number, not negative, found a number");
    assert_snapshot!(errors(r#"server: {workers: "${PORT}"}"#), @r"
    gateway.yaml:1:19: server.workers: expected a whole number, not negative, found text
        `${NAME}` is expanded only where text is expected: write the value itself
    ");
    assert_snapshot!(errors("server: {timeouts: {header: 10}}"), @r"
    gateway.yaml:1:29: server.timeouts.header: expected a duration with its unit, such as `10s`, found a number
        Write such as 500ms, 10s, 15m, 1h30m or 30d
    ");
    assert_snapshot!(errors("server: {limits: {body: [1]}}"), @"gateway.yaml:1:25: server.limits.body: expected a size, such as `64KiB`, found a list");
    assert_snapshot!(errors("server: {limits: {body: -1}}"), @"gateway.yaml:1:25: server.limits.body: expected a size, such as `64KiB`, found a number");
    assert_snapshot!(errors("log: {access: 1}"), @"gateway.yaml:1:15: log.access: expected `true` or `false`, found a number");
    assert_snapshot!(errors("log: {level: 5}"), @"gateway.yaml:1:14: log.level: expected a word, found a number");
    assert_snapshot!(errors("log: {level: true}"), @"gateway.yaml:1:14: log.level: expected a word, found a truth value");
    assert_snapshot!(errors("routes: {path: /}"), @r"
    gateway.yaml:1:9: routes: expected a list, found a mapping
        Write such as [{path: /*, upstream: app}]
    ");
    assert_snapshot!(errors("routes:
  - path: [/a]
    upstream: app"), @"gateway.yaml:2:11: routes[0].path: expected text, found a list");
    assert_snapshot!(errors("routes:
  - path: /
    upstream: app
    methods: GET"), @r"
    gateway.yaml:4:14: routes[0].methods: expected a list, found text
        Write [one, two], or each on a line of its own after `- `
    ");
    assert_snapshot!(errors("routes:
  - path: 5
    upstream: app"), @r"
    gateway.yaml:2:11: routes[0].path: expected text, found a number
        Put it in quotes
    ");
    assert_snapshot!(errors("routes: [{path: /, upstream: app, auth: [admin]}]"), @r"
    gateway.yaml:1:41: routes[0].auth: expected `required`, `public`, `optional` or a mapping, found a list
        Write such as {roles: [admin]}
    ");
    assert_snapshot!(errors("routes: [{path: /, upstream: app, auth: {claims: {aud: [a]}}}]"), @"gateway.yaml:1:56: routes[0].auth.claims.aud: expected text, a number, `true` or `false`, found a list");
    assert_snapshot!(errors("routes: [{path: /, upstream: app, auth: {claims: {n: .inf}}}]"), @"gateway.yaml:1:54: routes[0].auth.claims.n: expected text, a number, `true` or `false`, found a number");
    assert_snapshot!(errors("upstreams: [app]"), @r"
    gateway.yaml:1:12: upstreams: expected a mapping, found a list
        Write such as upstreams: {app: {servers: [http://127.0.0.1:5000]}}, where `app` is the name that routes use
    ");
    assert_snapshot!(errors("upstreams: {app: {servers: http://h}}"), @r"
    gateway.yaml:1:28: upstreams.app.servers: expected a list, found text
        Write [one, two], or each on a line of its own after `- `
    ");
    assert_snapshot!(errors("upstreams: {app: {servers: [5]}}"), @"gateway.yaml:1:29: upstreams.app.servers[0]: expected a URL, or a mapping of `url` and `weight`, found a number");
    assert_snapshot!(errors("identity_headers: {email: null}"), @"gateway.yaml:1:27: identity_headers.email: expected text, found nothing");
    assert_snapshot!(errors("admin: {listen: 9180}"), @r"
    gateway.yaml:1:17: admin.listen: expected text, found a number
        Write such as 127.0.0.1:9180
    ");
}

#[test]
fn unknown_words() {
    assert_snapshot!(errors("log:
  level: inf"), @r"
    gateway.yaml:2:10: log.level: `inf` is not possible here
        Did you mean `info`? Possible are: error, warn, info, debug, trace
    ");
    assert_snapshot!(errors("log: {format: xml}"), @r"
    gateway.yaml:1:15: log.format: `xml` is not possible here
        Possible are: auto, text, json
    ");
    assert_snapshot!(errors("store: {on_stale: ignore}"), @r"
    gateway.yaml:1:19: store.on_stale: `ignore` is not possible here
        Possible are: refuse, serve
    ");
    assert_snapshot!(errors("identity: {responses: flusk}"), @r"
    gateway.yaml:1:23: identity.responses: `flusk` is not possible here
        Did you mean `flask`? Possible are: standard, flask
    ");
    assert_snapshot!(errors("identity: {registration: opne}"), @r"
    gateway.yaml:1:26: identity.registration: `opne` is not possible here
        Did you mean `open`? Possible are: open, closed
    ");
    assert_snapshot!(errors("identity: {users: everyone}"), @r"
    gateway.yaml:1:19: identity.users: `everyone` is not possible here
        Possible are: admin, off, anyone
    ");
    assert_snapshot!(errors("identity: {users: true}"), @"gateway.yaml:1:19: identity.users: expected a word, found a truth value");
    assert_snapshot!(errors("routes: [{path: /, upstream: app, encoded_slash: decode}]"), @r"
    gateway.yaml:1:50: routes[0].encoded_slash: `decode` is not possible here
        Possible are: reject, preserve
    ");
    assert_snapshot!(errors("routes: [{path: /, upstream: app, auth: publik}]"), @r"
    gateway.yaml:1:41: routes[0].auth: `publik` is not possible here
        Did you mean `public`? Possible are: required, public, optional
    ");
}

#[test]
fn a_route_without_a_check_is_public() {
    assert_snapshot!(route_errors("  - path: /
    upstream: app
    auth: off"), @"gateway.yaml:5:11: routes[0].auth: a route without a check is `auth: public`, one with it `auth: required`; write `public`");
    assert_snapshot!(route_errors("  - {path: /, upstream: app, auth: none}"), @"gateway.yaml:3:36: routes[0].auth: a route without a check is `auth: public`, one with it `auth: required`; write `public`");
    assert_snapshot!(route_errors("  - {path: /, upstream: app, auth: false}"), @"gateway.yaml:3:36: routes[0].auth: a route without a check is `auth: public`, one with it `auth: required`; write `public`");
    assert_snapshot!(route_errors("  - {path: /, upstream: app, auth: true}"), @"gateway.yaml:3:36: routes[0].auth: a route without a check is `auth: public`, one with it `auth: required`; write `required`");
}

#[test]
fn a_mark_before_utf8_is_no_document() {
    assert_eq!(super::load("\u{feff}log: {level: debug}").log.level, super::load("log: {level: debug}").log.level);
}

#[test]
fn syntax() {
    assert_snapshot!(errors("server:
	listen: x"), @r"
    gateway.yaml:2:1: a line is indented with a tab
        YAML is indented with spaces only
    ");
    assert_snapshot!(errors("a: b: c"), @r"
    gateway.yaml:1:1: a: there is no key `a` here
        The keys here are: server, admin, log, store, tokens, identity, identity_headers, upstreams, routes
    ");
    assert_snapshot!(errors("log: {level: info"), @"gateway.yaml:2:1: did not find expected ',' or '}', while parsing a flow mapping at line 1 column 6");
    assert_snapshot!(errors("log: *missing"), @r"
    gateway.yaml:1:6: no anchor has the name that stands here after `*`
        Text that begins with `*` goes in quotes
    ");
    assert_snapshot!(errors("log: {level: @x}"), @"gateway.yaml:1:14: found character that cannot start any token, while scanning for the next token");
    assert_snapshot!(errors("log:
  level: info
---
log: {}"), @r"
    gateway.yaml:3:1: there is more than one document in the file
        Remove the `---` between them
    ");
    assert_snapshot!(errors("server: {<<: 5}"), @"gateway.yaml: expected a mapping or list of mappings for merging, but found scalar");
    assert_snapshot!(errors(r#"log:
  level: "in\qfo""#), @"gateway.yaml:2:13: found unknown escape character, while parsing a quoted scalar at line 2 column 10");
    assert_snapshot!(errors("log: &a
  level: *a"), @"gateway.yaml:1:6: log.level: expected a word, found a mapping");
}

#[test]
fn variables_within_braces() {
    let said = errors("tokens: {secret: ${SECRET}}");
    assert!(said.ends_with("Within { } or [ ] a `${NAME}` goes in quotes: \"${NAME}\""), "{said}");
}

#[test]
fn what_a_newcomer_writes() {
    assert_snapshot!(errors("listen: 8080"), @r"
    gateway.yaml:1:1: listen: there is no key `listen` here
        Did you mean `server: {listen: 127.0.0.1:8080}`? The keys here are: server, admin, log, store, tokens, identity, identity_headers, upstreams, routes
    ");
    assert_snapshot!(errors("workers: 2"), @r"
    gateway.yaml:1:1: workers: there is no key `workers` here
        Did you mean `server: {workers: …}`? The keys here are: server, admin, log, store, tokens, identity, identity_headers, upstreams, routes
    ");
    assert_snapshot!(errors("server: {port: 8080}"), @r"
    gateway.yaml:1:10: server.port: there is no key `port` here
        Did you mean `listen: 127.0.0.1:8080`? The keys here are: listen, workers, trusted_proxies, timeouts, limits, tls
    ");
    assert_snapshot!(errors("server: {listen: 8080}"), @r"
    gateway.yaml:1:18: server.listen: expected an address, a mapping of `address`, `tls` and `proxy_protocol`, or a list of such, found a number
        Write such as 127.0.0.1:8080, 0.0.0.0:8080 for all addresses, or unix:/run/portcullis.sock
    ");
    assert_snapshot!(errors("admin: {listen: 9180}"), @r"
    gateway.yaml:1:17: admin.listen: expected text, found a number
        Write such as 127.0.0.1:9180
    ");
    assert_snapshot!(errors("upstreams:
  - servers: [http://127.0.0.1:5000]"), @r"
    gateway.yaml:2:3: upstreams: expected a mapping, found a list
        Write such as upstreams: {app: {servers: [http://127.0.0.1:5000]}}, where `app` is the name that routes use
    ");
    assert_snapshot!(errors("upstreams: {app: http://127.0.0.1:5000}"), @r"
    gateway.yaml:1:18: upstreams.app: expected a mapping, found text
        Write such as {servers: [http://127.0.0.1:5000]}
    ");
    assert_snapshot!(errors("upstreams: {app: {servers: [http://h], health: /h}}"), @r"
    gateway.yaml:1:48: upstreams.app.health: expected a mapping, found text
        Write such as {path: /healthz, every: 5s}
    ");
    assert_snapshot!(errors("identity: {attempts: {per_account: 5}}"), @r"
    gateway.yaml:1:36: identity.attempts.per_account: expected a rate, such as `100/s`, found a number
        Write such as 5/15m or 50/5m, or off
    ");
    assert_snapshot!(errors("tokens:
  access_ttl: 15"), @r"
    gateway.yaml:2:15: tokens.access_ttl: expected a duration with its unit, such as `10s`, found a number
        Write such as 500ms, 10s, 15m, 1h30m or 30d
    ");
    assert_snapshot!(errors("store: {path: portcullis.db}"), @r"
    gateway.yaml:1:9: store.path: there is no key `path` here
        Did you mean `url: sqlite:portcullis.db`? The keys here are: url, max_stale, on_stale, encryption_key, encryption_key_file
    ");
    assert_snapshot!(errors("store: {url: portcullis.db}"), @r"
    gateway.yaml:1: store.url: does not begin with `sqlite:`
        Write sqlite:PATH, such as sqlite:portcullis.db or sqlite:/var/lib/portcullis/portcullis.db
    ");
    assert_snapshot!(route_errors("  - {path: /, upstream: app, roles: [admin]}"), @r"
    gateway.yaml:3:30: routes[0].roles: there is no key `roles` here
        Did you mean `auth: {roles: …}`? The keys here are: host, path, methods, upstream, strip_prefix, encoded_slash, forward_authorization, websocket_protocol_token, on_expiry, stream, auth, cors, limits
    ");
}

//! Of a route: methods, upstream and rule, and which routes cannot stand beside each other.

use insta::assert_snapshot;

use super::{errors, route_errors};

#[test]
fn methods() {
    assert_snapshot!(route_errors("  - path: /
    upstream: app
    methods: [get]"), @r"
    gateway.yaml:5: routes[0].methods[0]: `get` is not in upper case
        Write GET
    ");
    assert_snapshot!(route_errors("  - path: /
    upstream: app
    methods: []"), @r"
    gateway.yaml:5: routes[0].methods: is an empty list
        Leave it out for every method
    ");
    assert_snapshot!(route_errors("  - path: /
    upstream: app
    methods: [GET, POST, GET]"), @r"
    gateway.yaml:5: routes[0].methods[2]: GET stands twice
        Keep one of the two
    ");
    assert_snapshot!(route_errors(r#"  - path: /
    upstream: app
    methods: ["GE T"]"#), @r"
    gateway.yaml:5: routes[0].methods[0]: `GE T` is not a method
        Write such as GET
    ");
    assert_snapshot!(route_errors("  - path: /
    upstream: app
    methods: [CONNECT]"), @r"
    gateway.yaml:5: routes[0].methods[0]: CONNECT is never forwarded
        Leave it out
    ");
    assert_snapshot!(route_errors("  - path: /
    upstream: app
    methods: [trace]"), @r"
    gateway.yaml:5: routes[0].methods[0]: TRACE is never forwarded
        Leave it out
    ");
    assert_snapshot!(route_errors(r#"  - path: /
    upstream: app
    methods: [""]"#), @r"
    gateway.yaml:5: routes[0].methods[0]: an empty text is not a method
        Write such as GET
    ");
}

#[test]
fn upstreams() {
    assert_snapshot!(route_errors("  - {path: /, upstream: ap}"), @r"
    gateway.yaml:3: routes[0].upstream: there is no upstream `ap`
        Did you mean `app`? There are: app
    ");
    assert_snapshot!(route_errors("  - {path: /, upstream: other}"), @r"
    gateway.yaml:3: routes[0].upstream: there is no upstream `other`
        There are: app
    ");
    assert_snapshot!(route_errors(r#"  - {path: /, upstream: ""}"#), @r"
    gateway.yaml:3: routes[0].upstream: there is no upstream an empty text
        There are: app
    ");
    assert_snapshot!(errors("routes: [{path: /, upstream: app}]"), @r"
    gateway.yaml:1: routes[0].upstream: there is no upstream `app`
        There are none: add one under `upstreams`
    ");
    assert_snapshot!(errors("upstreams: {web: {servers: [http://h]}, api: {servers: [http://h]}}
routes:
  - path: /
    upstream: apy"), @r"
    gateway.yaml:4: routes[0].upstream: there is no upstream `apy`
        Did you mean `api`? There are: web, api
    ");
}

#[test]
fn rules() {
    assert_snapshot!(route_errors("  - path: /
    upstream: app
    auth: {roles: []}"), @r"
    gateway.yaml:5: routes[0].auth.roles: is an empty list, which no token could meet
        Leave it out to ask for no role
    ");
    assert_snapshot!(route_errors(r#"  - path: /
    upstream: app
    auth: {scopes: [orders/read, "a b", ""]}"#), @r"
    gateway.yaml:5: routes[0].auth.scopes[1]: `a b` is not a scope
        Write each scope by itself, such as orders/read: visible ASCII without spaces, quotes and backslashes
    gateway.yaml:5: routes[0].auth.scopes[2]: an empty text is not a scope
        Write each scope by itself, such as orders/read: visible ASCII without spaces, quotes and backslashes
    ");
    assert_snapshot!(route_errors("  - path: /
    upstream: app
    auth: {scopes: []}"), @r"
    gateway.yaml:5: routes[0].auth.scopes: is an empty list
        Leave it out to ask for no scope
    ");
    assert_snapshot!(route_errors(r#"  - path: /
    upstream: app
    auth: {roles: ["a b"]}"#), @r"
    gateway.yaml:5: routes[0].auth.roles[0]: `a b` is not a role
        A role has 1 to 64 of the characters A-Z a-z 0-9 _ . : -
    ");
    assert_snapshot!(route_errors(r#"  - path: /
    upstream: app
    auth: {roles: [admin, ""]}"#), @r"
    gateway.yaml:5: routes[0].auth.roles[1]: an empty text is not a role
        A role has 1 to 64 of the characters A-Z a-z 0-9 _ . : -
    ");
    assert_snapshot!(route_errors(r#"  - path: /
    upstream: app
    auth: {claims: {aud: "${NO_SUCH}"}}"#), @r"
    gateway.yaml:5: routes[0].auth.claims.aud: the environment variable NO_SUCH is not set
        Set NO_SUCH, or give a default: ${NO_SUCH:-default}
    ");
    assert_snapshot!(route_errors(r#"  - path: /
    upstream: app
    auth: {claims: {"": x}}"#), @"gateway.yaml:5: routes[0].auth.claims.: an empty text is not the name of a claim");
    assert_snapshot!(route_errors(r#"  - path: /
    upstream: app
    auth: "${LEVEL}""#), @r"
    gateway.yaml:5: routes[0].auth: `debug` is not possible here
        Possible are: required, public, optional
    ");
}

#[test]
fn ambiguous_routes() {
    assert_snapshot!(route_errors("  - {path: /a, upstream: app}
  - {path: /b, upstream: app}
  - {path: /a/, upstream: app}"), @r"
    gateway.yaml:5: routes[2]: ambiguous: `/a/` is the same path as `/a` of routes[0] in line 3
        Remove one, or give each `methods` that the other has not (HEAD goes with GET)
    ");
    assert_snapshot!(route_errors(r#"  - {path: "/{a}", upstream: app, methods: [GET, POST]}
  - {path: "/{b}", upstream: app, methods: [POST]}"#), @r"
    gateway.yaml:4: routes[1]: ambiguous: `/{b}` is the same path as `/{a}` of routes[0] in line 3
        Remove one, or give each `methods` that the other has not (HEAD goes with GET)
    ");
    assert_snapshot!(route_errors("  - {path: /a, upstream: app, methods: [GET]}
  - {path: /a, upstream: app, methods: [HEAD]}"), @r"
    gateway.yaml:4: routes[1]: ambiguous: `/a` is the same path as `/a` of routes[0] in line 3
        Remove one, or give each `methods` that the other has not (HEAD goes with GET)
    ");
    assert_snapshot!(route_errors("  - {path: /a, host: A.example, upstream: app}
  - {path: /%61, host: a.example., upstream: app, methods: [GET]}"), @r"
    gateway.yaml:4: routes[1]: ambiguous: `a.example/%61` is the same path as `a.example/a` of routes[0] in line 3
        Remove one, or give each `methods` that the other has not (HEAD goes with GET)
    ");
    assert_snapshot!(route_errors("  - {path: /a/*, upstream: app}
  - {path: /a/*, upstream: app}
  - {path: /a/*, upstream: app}"), @r"
    gateway.yaml:4: routes[1]: ambiguous: `/a/*` is the same path as `/a/*` of routes[0] in line 3
        Remove one, or give each `methods` that the other has not (HEAD goes with GET)
    gateway.yaml:5: routes[2]: ambiguous: `/a/*` is the same path as `/a/*` of routes[0] in line 3
        Remove one, or give each `methods` that the other has not (HEAD goes with GET)
    ");
}

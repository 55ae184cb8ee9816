//! Errors of meaning in the routes.

use insta::assert_snapshot;

use super::{route_errors, warnings, with_app};

#[test]
fn names_of_segments_in_other_spellings() {
    assert_snapshot!(route_errors("  - path: /users/<id>
    upstream: app"), @r"
    gateway.yaml:3: routes[0].path: has `<`
        For any one segment write {name}; literal ones are %3C and %3E
    ");
    assert_snapshot!(
        warnings(&with_app("  - {path: /users/:id, upstream: app}")),
        @"routes[0].path: `:id` is taken as it stands; for any one segment write {id}"
    );
}

#[test]
fn paths() {
    assert_snapshot!(route_errors("  - path: secret
    upstream: app"), @r"
    gateway.yaml:3: routes[0].path: `secret` does not begin with `/`
        Write /secret
    ");
    assert_snapshot!(route_errors(r#"  - path: ""
    upstream: app"#), @r"
    gateway.yaml:3: routes[0].path: an empty text does not begin with `/`
        Write /
    ");
    assert_snapshot!(route_errors(r#"  - path: "*"
    upstream: app"#), @r"
    gateway.yaml:3: routes[0].path: `*` does not begin with `/`
        Write /*
    ");
    assert_snapshot!(route_errors("  - path: //
    upstream: app"), @r"
    gateway.yaml:3: routes[0].path: has an empty segment (`//`)
        Requests have them merged: write one `/`
    ");
    assert_snapshot!(route_errors("  - path: /a//b
    upstream: app"), @r"
    gateway.yaml:3: routes[0].path: has an empty segment (`//`)
        Requests have them merged: write one `/`
    ");
    assert_snapshot!(route_errors("  - path: /a//
    upstream: app"), @r"
    gateway.yaml:3: routes[0].path: has an empty segment (`//`)
        Requests have them merged: write one `/`
    ");
    assert_snapshot!(route_errors("  - path: /a/*/b
    upstream: app"), @r"
    gateway.yaml:3: routes[0].path: `*` stands only as the whole last segment, as in `/files/*`
        A literal one is %2A
    ");
    assert_snapshot!(route_errors("  - path: /a/*/
    upstream: app"), @r"
    gateway.yaml:3: routes[0].path: `*` stands only as the whole last segment, as in `/files/*`
        A literal one is %2A
    ");
    assert_snapshot!(route_errors("  - path: /a*
    upstream: app"), @r"
    gateway.yaml:3: routes[0].path: `*` stands only as the whole last segment, as in `/files/*`
        A literal one is %2A
    ");
    assert_snapshot!(route_errors("  - path: /a/**
    upstream: app"), @r"
    gateway.yaml:3: routes[0].path: `*` stands only as the whole last segment, as in `/files/*`
        A literal one is %2A
    ");
    assert_snapshot!(route_errors("  - path: /{a}/{a}
    upstream: app"), @r"
    gateway.yaml:3: routes[0].path: `{a}` stands twice in the path
        Give each its own name
    ");
    assert_snapshot!(route_errors("  - path: /{A}
    upstream: app"), @r"
    gateway.yaml:3: routes[0].path: braces stand for one whole segment, as in `/users/{id}`
        The name has a-z 0-9 _ and does not begin with a digit; a literal brace is written %7B or %7D
    ");
    assert_snapshot!(route_errors("  - path: /{1}
    upstream: app"), @r"
    gateway.yaml:3: routes[0].path: braces stand for one whole segment, as in `/users/{id}`
        The name has a-z 0-9 _ and does not begin with a digit; a literal brace is written %7B or %7D
    ");
    assert_snapshot!(route_errors("  - path: /{}
    upstream: app"), @r"
    gateway.yaml:3: routes[0].path: braces stand for one whole segment, as in `/users/{id}`
        The name has a-z 0-9 _ and does not begin with a digit; a literal brace is written %7B or %7D
    ");
    assert_snapshot!(route_errors("  - path: /{a
    upstream: app"), @r"
    gateway.yaml:3: routes[0].path: braces stand for one whole segment, as in `/users/{id}`
        The name has a-z 0-9 _ and does not begin with a digit; a literal brace is written %7B or %7D
    ");
    assert_snapshot!(route_errors("  - path: /a{b}
    upstream: app"), @r"
    gateway.yaml:3: routes[0].path: braces stand for one whole segment, as in `/users/{id}`
        The name has a-z 0-9 _ and does not begin with a digit; a literal brace is written %7B or %7D
    ");
    assert_snapshot!(route_errors("  - path: /a}
    upstream: app"), @r"
    gateway.yaml:3: routes[0].path: braces stand for one whole segment, as in `/users/{id}`
        The name has a-z 0-9 _ and does not begin with a digit; a literal brace is written %7B or %7D
    ");
    assert_snapshot!(route_errors(r#"  - path: "/a?b"
    upstream: app"#), @r"
    gateway.yaml:3: routes[0].path: has `?`
        Routes look at the path alone: leave query and fragment out
    ");
    assert_snapshot!(route_errors(r#"  - path: "/a#b"
    upstream: app"#), @r"
    gateway.yaml:3: routes[0].path: has `#`
        Routes look at the path alone: leave query and fragment out
    ");
    assert_snapshot!(route_errors(r#"  - path: "/a;b"
    upstream: app"#), @r"
    gateway.yaml:3: routes[0].path: has `;`, which upstreams read in two ways
        Leave it and what follows out
    ");
    assert_snapshot!(route_errors("  - path: /a/./b
    upstream: app"), @r"
    gateway.yaml:3: routes[0].path: has a dot segment
        Requests have them resolved: write the path that is meant
    ");
    assert_snapshot!(route_errors("  - path: /a/..
    upstream: app"), @r"
    gateway.yaml:3: routes[0].path: has a dot segment
        Requests have them resolved: write the path that is meant
    ");
    assert_snapshot!(route_errors("  - path: /%2e%2e/a
    upstream: app"), @r"
    gateway.yaml:3: routes[0].path: has a dot segment
        Requests have them resolved: write the path that is meant
    ");
    assert_snapshot!(route_errors("  - path: /%252e
    upstream: app"), @r"gateway.yaml:3: routes[0].path: has a doubly encoded `.`, `/` or `\`, which requests are refused for");
    assert_snapshot!(route_errors("  - path: /%252F
    upstream: app"), @r"gateway.yaml:3: routes[0].path: has a doubly encoded `.`, `/` or `\`, which requests are refused for");
    assert_snapshot!(route_errors(r#"  - path: "/a\\b"
    upstream: app"#), @"gateway.yaml:3: routes[0].path: has a backslash, which requests are refused for");
    assert_snapshot!(route_errors("  - path: /a%5Cb
    upstream: app"), @"gateway.yaml:3: routes[0].path: has %5C, which requests are refused for");
    assert_snapshot!(route_errors("  - path: /a%2fb
    upstream: app"), @r"
    gateway.yaml:3: routes[0].path: has an encoded slash (%2f)
        Stand `{name}` or `*` there, with `encoded_slash: preserve`
    ");
    assert_snapshot!(route_errors("  - path: /a%00
    upstream: app"), @"gateway.yaml:3: routes[0].path: has %00, which requests are refused for");
    assert_snapshot!(route_errors(r#"  - path: "/a\u0001b"
    upstream: app"#), @"gateway.yaml:3: routes[0].path: has a control character");
    assert_snapshot!(route_errors("  - path: /a%
    upstream: app"), @r"
    gateway.yaml:3: routes[0].path: has a broken percent triplet
        A literal `%` is written %25
    ");
    assert_snapshot!(route_errors("  - path: /a%2
    upstream: app"), @r"
    gateway.yaml:3: routes[0].path: has a broken percent triplet
        A literal `%` is written %25
    ");
    assert_snapshot!(route_errors("  - path: /a%zz
    upstream: app"), @r"
    gateway.yaml:3: routes[0].path: has a broken percent triplet
        A literal `%` is written %25
    ");
    assert_snapshot!(route_errors("  - path: /a%u002f
    upstream: app"), @r"
    gateway.yaml:3: routes[0].path: has a broken percent triplet
        A literal `%` is written %25
    ");
    assert_snapshot!(route_errors("  - path: /a%c3
    upstream: app"), @"gateway.yaml:3: routes[0].path: has triplets that are not UTF-8");
    assert_snapshot!(route_errors(r#"  - path: "/a b"
    upstream: app"#), @r"
    gateway.yaml:3: routes[0].path: has the character ` `
        Write it as %20
    ");
    assert_snapshot!(route_errors(r#"  - path: "/a|b"
    upstream: app"#), @r"
    gateway.yaml:3: routes[0].path: has the character `|`
        Write it as %7C
    ");
    assert_snapshot!(route_errors(r#"  - path: "/a／b"
    upstream: app"#), @r"gateway.yaml:3: routes[0].path: has a fullwidth `.`, `/` or `\`, which requests are refused for");
}

#[test]
fn prefixes() {
    assert_snapshot!(route_errors("  - path: /v1/*
    upstream: app
    strip_prefix: v1"), @r"
    gateway.yaml:5: routes[0].strip_prefix: `v1` does not begin with `/`
        Write /v1
    ");
    assert_snapshot!(route_errors("  - path: /v1/*
    upstream: app
    strip_prefix: /"), @r"
    gateway.yaml:5: routes[0].strip_prefix: `/` removes nothing
        Leave it out
    ");
    assert_snapshot!(route_errors(r#"  - path: /v1/*
    upstream: app
    strip_prefix: """#), @r"
    gateway.yaml:5: routes[0].strip_prefix: an empty text removes nothing
        Leave it out
    ");
    assert_snapshot!(route_errors("  - path: /v1/*
    upstream: app
    strip_prefix: /v"), @r"
    gateway.yaml:5: routes[0].strip_prefix: `/v` is not how the route's path begins
        It must be a whole number of the path's first segments
    ");
    assert_snapshot!(route_errors("  - path: /v1x/*
    upstream: app
    strip_prefix: /v1"), @r"
    gateway.yaml:5: routes[0].strip_prefix: `/v1` is not how the route's path begins
        It must be a whole number of the path's first segments
    ");
    assert_snapshot!(route_errors("  - path: /v1/*
    upstream: app
    strip_prefix: /v2"), @r"
    gateway.yaml:5: routes[0].strip_prefix: `/v2` is not how the route's path begins
        It must be a whole number of the path's first segments
    ");
    assert_snapshot!(route_errors("  - path: /v1
    upstream: app
    strip_prefix: /v1/x"), @r"
    gateway.yaml:5: routes[0].strip_prefix: `/v1/x` is not how the route's path begins
        It must be a whole number of the path's first segments
    ");
    assert_snapshot!(route_errors("  - path: /{v}/x
    upstream: app
    strip_prefix: /{v}"), @r"
    gateway.yaml:5: routes[0].strip_prefix: has a `{name}` or `*`
        A prefix to strip is literal
    ");
    assert_snapshot!(route_errors("  - path: /v1/*
    upstream: app
    strip_prefix: /v1/*"), @r"
    gateway.yaml:5: routes[0].strip_prefix: has a `{name}` or `*`
        A prefix to strip is literal
    ");
    assert_snapshot!(route_errors("  - path: /v1/*
    upstream: app
    strip_prefix: /v1?"), @r"
    gateway.yaml:5: routes[0].strip_prefix: has `?`
        Routes look at the path alone: leave query and fragment out
    ");
}

#[test]
fn hosts() {
    assert_snapshot!(route_errors("  - path: /
    upstream: app
    host: example.com:80"), @r"
    gateway.yaml:5: routes[0].host: `example.com:80` has a port
        Leave the port out: example.com
    ");
    assert_snapshot!(route_errors(r#"  - path: /
    upstream: app
    host: "*.example.com""#), @r"
    gateway.yaml:5: routes[0].host: `*.example.com` has a wildcard, which is not supported by this version
        Write one route for each host
    ");
    assert_snapshot!(route_errors("  - path: /
    upstream: app
    host: bücher.example"), @r"
    gateway.yaml:5: routes[0].host: `bücher.example` has letters beyond ASCII
        Write its punycode form, which begins with xn--
    ");
    assert_snapshot!(route_errors(r#"  - path: /
    upstream: app
    host: """#), @r"
    gateway.yaml:5: routes[0].host: is empty
        Leave it out for any host
    ");
    assert_snapshot!(route_errors("  - path: /
    upstream: app
    host: a b"), @r"
    gateway.yaml:5: routes[0].host: `a b` is not a host name
        A host name has the characters a-z 0-9 - _ and single dots
    ");
    assert_snapshot!(route_errors("  - path: /
    upstream: app
    host: -a.example"), @r"
    gateway.yaml:5: routes[0].host: `-a.example` is not a host name
        A host name has the characters a-z 0-9 - _ and single dots
    ");
    assert_snapshot!(route_errors("  - path: /
    upstream: app
    host: http://a"), @r"
    gateway.yaml:5: routes[0].host: `http://a` is not just a host name
        Leave out scheme and path
    ");
    assert_snapshot!(route_errors("  - path: /
    upstream: app
    host: a..b"), @r"
    gateway.yaml:5: routes[0].host: `a..b` is not a host name
        A host name has the characters a-z 0-9 - _ and single dots
    ");
    assert_snapshot!(route_errors("  - path: /
    upstream: app
    host: 300.1.1.1"), @"gateway.yaml:5: routes[0].host: `300.1.1.1` looks like an IPv4 address, but is none");
    assert_snapshot!(route_errors(r#"  - path: /
    upstream: app
    host: "::1""#), @r"
    gateway.yaml:5: routes[0].host: `::1` lacks brackets
        Write [::1]
    ");
    assert_snapshot!(route_errors(r#"  - path: /
    upstream: app
    host: "[::x]""#), @"gateway.yaml:5: routes[0].host: `[::x]` is not an IPv6 address");
}

//! What a route says about other origins, rates and tunnels; and `identity.cors`.

use std::num::NonZeroU32;
use std::time::Duration;

use insta::assert_snapshot;

use super::super::{Cors, NO_LIMIT, OnExpiry, Rate, Route};
use super::{errors, load, route_errors, warnings, with_app};

/// The route with these keys.
fn route(keys: &str) -> Route {
    load(&with_app(&format!("  - {{path: /, upstream: app, {keys}}}"))).routes.remove(0)
}

/// The errors of a route with these keys.
fn wrong(keys: &str) -> String {
    route_errors(&format!("  - {{path: /, upstream: app, {keys}}}"))
}

/// The warnings of a public route with these keys, beside one that is not.
fn public(keys: &str) -> String {
    warnings(&with_app(&format!(
        "  - {{path: /, upstream: app, auth: public, {keys}}}\n  - {{path: /x, upstream: app}}"
    )))
}

#[test]
fn origins() {
    for (written, origin) in [
        ("https://app.example.com", "https://app.example.com"),
        ("HTTPS://App.Example.COM", "https://app.example.com"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://h:443", "http://h:443"),
        ("https://h:80", "https://h:80"),
        ("\"http://[::1]:3000\"", "http://[::1]:3000"),
        ("\"*\"", "*"),
        ("\"http://localhost:${PORT}\"", "http://localhost:8088"),
    ] {
        let cors = Some(Cors { origins: vec![origin.into()] });
        assert_eq!(route(&format!("cors: {{origins: [{written}]}}")).cors, cors, "{written}");
        assert_eq!(load(&format!("identity: {{cors: {{origins: [{written}]}}}}")).identity.cors, cors, "{written}");
    }
    let two = route("methods: [GET, OPTIONS], cors: {origins: [https://a, http://a]}").cors.unwrap();
    assert_eq!(two.origins, ["https://a", "http://a"]);
    assert_eq!(route("methods: [GET]").cors, None);
    assert_eq!(load("identity: {cors: {origins: []}}").identity.cors, None);
    assert_eq!(load("").identity.cors, None);
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn origins_that_no_browser_sends() {
    assert_snapshot!(wrong("cors: {origins: []}"), @r"
    gateway.yaml:3: routes[0].cors.origins: is an empty list, so that no page could call
        Name one, such as https://app.example.com, or leave `cors` out
    ");
    assert_snapshot!(wrong("cors: {}"), @"gateway.yaml:3:36: routes[0].cors: `origins` is missing");
    assert_snapshot!(wrong("cors: true"), @r"
    gateway.yaml:3:36: routes[0].cors: expected a mapping, found a truth value
        Write such as {origins: [https://app.example.com]}
    ");
    assert_snapshot!(wrong("cors: {origins: https://a}"), @r"
    gateway.yaml:3:46: routes[0].cors.origins: expected a list, found text
        Write [one, two], or each on a line of its own after `- `
    ");
    assert_snapshot!(wrong("cors: {origin: https://a}"), @r"
    gateway.yaml:3:37: routes[0].cors.origin: there is no key `origin` here
        Did you mean `origins`? The keys here are: origins
    ");
    assert_snapshot!(wrong("cors: {origins: [null]}"), @r"
    gateway.yaml:3:47: routes[0].cors.origins[0]: expected text, found nothing
        `null` is what files and sandboxed frames send, so that any page can have it: serve yours from a host of its own
    ");
    assert_snapshot!(wrong(r#"cors: {origins: ["null"]}"#), @r"
    gateway.yaml:3: routes[0].cors.origins[0]: the origin `null` is no one's
        `null` is what files and sandboxed frames send, so that any page can have it: serve yours from a host of its own
    ");
    assert_snapshot!(wrong("cors: {origins: [*]}"), @r"
    gateway.yaml:3:48: no name follows the `*` that stands here
        Text that begins with `*` goes in quotes
    ");
    assert_snapshot!(wrong(r#"cors: {origins: [https://a, "*"]}"#), @r"
    gateway.yaml:3: routes[0].cors.origins[1]: `*` is any origin, also those beside it
        Keep it alone, or leave it out
    ");
    assert_snapshot!(wrong("cors: {origins: [https://a, HTTPS://A]}"), @r"
    gateway.yaml:3: routes[0].cors.origins[1]: https://a stands twice
        Keep one of the two
    ");
    assert_snapshot!(wrong("cors: {origins: [app.example.com]}"), @r"
    gateway.yaml:3: routes[0].cors.origins[0]: `app.example.com` has no scheme
        Write such as https://app.example.com
    ");
    assert_snapshot!(wrong("cors: {origins: [ftp://a]}"), @r"
    gateway.yaml:3: routes[0].cors.origins[0]: `ftp` is not a possible scheme
        Write such as https://app.example.com
    ");
    assert_snapshot!(wrong("cors: {origins: [https://a/]}"), @r"
    gateway.yaml:3: routes[0].cors.origins[0]: `https://a/` ends with `/`
        Write https://a
    ");
    assert_snapshot!(wrong("cors: {origins: [https://a:443]}"), @r"
    gateway.yaml:3: routes[0].cors.origins[0]: `https://a:443` has the port that goes without saying
        Browsers leave it out: write https://a
    ");
    assert_snapshot!(wrong("cors: {origins: [http://a:80]}"), @r"
    gateway.yaml:3: routes[0].cors.origins[0]: `http://a:80` has the port that goes without saying
        Browsers leave it out: write http://a
    ");
    assert_snapshot!(wrong("cors: {origins: [https://a:443/]}"), @r"
    gateway.yaml:3: routes[0].cors.origins[0]: `https://a:443/` ends with `/`
        Write https://a
    ");
    assert_snapshot!(wrong("cors: {origins: [https://a/app?x]}"), @r"
    gateway.yaml:3: routes[0].cors.origins[0]: `https://a/app?x` has more than scheme, host and port
        Write https://a
    ");
    assert_snapshot!(wrong("cors: {origins: [https://user:hunter2@a]}"), @r"
    gateway.yaml:3: routes[0].cors.origins[0]: an origin has no user or password
        Write such as https://app.example.com
    ");
    assert_snapshot!(wrong("cors: {origins: [https://]}"), @r"
    gateway.yaml:3: routes[0].cors.origins[0]: the origin has no host
        Write such as https://app.example.com
    ");
    assert_snapshot!(wrong(r#"cors: {origins: ["https://:1"]}"#), @r"
    gateway.yaml:3: routes[0].cors.origins[0]: `:1` has no host
        Write it before the port
    ");
    assert_snapshot!(wrong("cors: {origins: [https://a:x]}"), @r"
    gateway.yaml:3: routes[0].cors.origins[0]: `x` is not a port
        A port is a number from 1 to 65535
    ");
    assert_snapshot!(wrong("cors: {origins: [https://a b]}"), @r"
    gateway.yaml:3: routes[0].cors.origins[0]: `a b` is not a host name
        A host name has the characters a-z 0-9 - _ and single dots
    ");
    assert_snapshot!(wrong(r#"cors: {origins: ["https://*.example.com"]}"#), @r"
    gateway.yaml:3: routes[0].cors.origins[0]: `https://*.example.com` has a wildcard, which is not supported by this version
        List each origin, or `*` alone for any
    ");
    assert_snapshot!(wrong(r#"cors: {origins: [""]}"#), @r"
    gateway.yaml:3: routes[0].cors.origins[0]: is empty
        Write such as https://app.example.com
    ");
    assert_snapshot!(errors(r#"identity: {cors: {origins: ["null", https://a/]}}"#), @r"
    gateway.yaml:1: identity.cors.origins[0]: the origin `null` is no one's
        `null` is what files and sandboxed frames send, so that any page can have it: serve yours from a host of its own
    gateway.yaml:1: identity.cors.origins[1]: `https://a/` ends with `/`
        Write https://a
    ");
    assert_snapshot!(errors("identity: {cors: {origins: [null]}}"), @r"
    gateway.yaml:1:29: identity.cors.origins[0]: expected text, found nothing
        `null` is what files and sandboxed frames send, so that any page can have it: serve yours from a host of its own
    ");
    assert_snapshot!(errors("identity: {cors: {}}"), @"gateway.yaml:1:18: identity.cors: `origins` is missing");
}

#[test]
fn rates() {
    for (written, count, seconds) in [
        ("100/s", 100, 1),
        ("100/1s", 100, 1),
        ("10/m", 10, 60),
        ("5/15m", 5, 900),
        ("1000/h", 1000, 3600),
        ("1/1h30m", 1, 5400),
        ("1000000/d", 1_000_000, 86_400),
        ("\"${PORT}/s\"", 8088, 1),
    ] {
        let rate = Rate { count: NonZeroU32::new(count).unwrap(), per: Duration::from_secs(seconds) };
        assert_eq!(route(&format!("limits: {{requests: {written}}}")).limits.requests, Some(rate), "{written}");
    }
    let least = route("limits: {requests: 1/ms}").limits.requests.unwrap();
    assert_eq!(least.per, Duration::from_millis(1));
    for bad in [
        "100",
        "/s",
        "100/",
        "s/100",
        "1.5/s",
        "-1/s",
        "1/2",
        "1/s/s",
        "1 / s",
        "1s/s",
        "100/S",
        "99999999999999999999/s",
    ] {
        assert!(wrong(&format!("limits: {{requests: \"{bad}\"}}")).contains("is not a rate"), "{bad}");
    }
    assert_snapshot!(wrong("limits: {requests: 100/week}"), @r"
    gateway.yaml:3: routes[0].limits.requests: `100/week` is not a rate
        Write such as 100/s, 5/15m or 1000/h
    ");
    assert_snapshot!(wrong("limits: {requests: 100}"), @r"
    gateway.yaml:3:49: routes[0].limits.requests: expected a rate, such as `100/s`, found a number
        Write such as 100/s, 5/15m or 1000/h
    ");
    assert_snapshot!(wrong("limits: {requests: 0/s}"), @"gateway.yaml:3: routes[0].limits.requests: the count must be from 1 to 1000000");
    assert_snapshot!(wrong("limits: {requests: 1000001/s}"), @"gateway.yaml:3: routes[0].limits.requests: the count must be from 1 to 1000000");
    assert_snapshot!(wrong("limits: {requests: 1/0s}"), @"gateway.yaml:3: routes[0].limits.requests: the time must be from 1ms to 1d");
    assert_snapshot!(wrong("limits: {requests: 1/25h}"), @"gateway.yaml:3: routes[0].limits.requests: the time must be from 1ms to 1d");
    assert_snapshot!(wrong("limits: {rate: 1/s}"), @r"
    gateway.yaml:3:39: routes[0].limits.rate: there is no key `rate` here
        The keys here are: requests, body
    ");
}

#[test]
fn bodies() {
    assert_eq!(route("limits: {}").limits.body, None);
    assert_eq!(route("limits: {body: 1MiB}").limits.body, Some(1 << 20));
    assert_eq!(route("limits: {body: 64MiB}").limits.body, Some(64 << 20));
    assert_eq!(route("limits: {body: 65MiB}").limits.body, Some(65 << 20), "more than server.limits.body");
    assert_eq!(route("limits: {body: none}").limits.body, Some(NO_LIMIT));
    let streams = ["", "limits: {body: 65MiB}", "limits: {body: none}", "stream: true", "stream: false"];
    assert_eq!(streams.map(|text| route(text).stream), [false, false, true, true, false]);
    assert_snapshot!(wrong("limits: {body: lots}"), @r"
    gateway.yaml:3: routes[0].limits.body: `lots` is not a size
        Write such as 512B, 64KiB, 1MiB or 2GiB
    ");
    assert_snapshot!(wrong("limits: {body: 0}"), @"gateway.yaml:3: routes[0].limits.body: must be from 1B to 1TiB");
    assert_snapshot!(wrong("limits: {body: 2TiB}"), @"gateway.yaml:3: routes[0].limits.body: must be from 1B to 1TiB");
}

#[test]
fn tunnels() {
    let quiet = route("websocket_protocol_token: true, on_expiry: ignore");
    assert!(quiet.websocket_protocol_token);
    assert_eq!(quiet.on_expiry, OnExpiry::Ignore);
    let bare = route("methods: [GET]");
    assert!(!bare.websocket_protocol_token);
    assert_eq!(bare.on_expiry, OnExpiry::Close);
    assert_snapshot!(wrong("on_expiry: drop"), @r"
    gateway.yaml:3:41: routes[0].on_expiry: `drop` is not possible here
        Possible are: close, ignore
    ");
    assert_snapshot!(wrong("websocket_protocol_token: bearer"), @"gateway.yaml:3:56: routes[0].websocket_protocol_token: expected `true` or `false`, found text");
    assert_eq!(public("websocket_protocol_token: false, cors: {origins: [https://a]}"), "");
    assert_snapshot!(public("websocket_protocol_token: true"), @"routes[0].websocket_protocol_token: has no effect: the route is public, so that no token is looked at");
    assert_snapshot!(public("on_expiry: ignore"), @"routes[0].on_expiry: has no effect: the route is public, so that no token is looked at");
}

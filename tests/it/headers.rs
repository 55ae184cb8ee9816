//! The fields that reach the upstream: who calls, whence, and nothing that a client smuggled.

use serde_json::json;

use crate::harness::{Gateway, Setup};
use crate::jwt;
use crate::origin::{Origin, Seen, canonical_name};
use crate::wire::{Request, exchange, get};

const IDENTITY: [&str; 6] =
    ["x-auth-subject", "x-auth-roles", "x-auth-token-id", "x-auth-session", "x-auth-issuer", "x-tenant"];

fn setup(origin: &Origin) -> Setup {
    Setup::new(origin.address).set("identity_headers", json!({"tenant": "X-Tenant"})).and_routes(json!([
        {"path": "/hidden/*", "upstream": "app", "forward_authorization": false},
        {"path": "/hidden-public/*", "upstream": "app", "auth": "public", "forward_authorization": false},
    ]))
}

fn started() -> (Origin, Gateway) {
    let origin = Origin::start();
    let gateway = setup(&origin).start();
    (origin, gateway)
}

/// Sends it, expects 200, and gives what the origin saw.
#[track_caller]
fn forwarded(origin: &Origin, gateway: &Gateway, request: &Request) -> Seen {
    let before = origin.count();
    let answer = request.send(gateway.public);
    assert_eq!(answer.status, 200, "{request:?}: {answer:?}");
    assert_eq!(origin.count(), before + 1);
    origin.last()
}

/// Other spellings that a CGI, WSGI or PHP application reads as the same name.
fn spellings(name: &str) -> Vec<String> {
    let mut all = vec![name.to_owned(), name.to_uppercase()];
    for other in ["_", ".", "~", "!", "+", "|", "*", "'", "`", "^", "#", "$", "%", "&"] {
        all.push(name.replace('-', other));
        all.push(name.replacen('-', other, 1));
    }
    all.push(name.to_uppercase().replacen('-', "_", 1).replace('-', "."));
    all
}

#[test]
fn an_identity_header_of_the_client_never_passes() {
    let (origin, gateway) = started();
    let token = jwt::token_with("alice", &json!({"roles": ["admin"]}));
    for target in ["/", "/public/a", "/optional/a", "/hidden-public/a", "/secret", "/admin/a", "/hidden/a"] {
        for with_token in [true, false] {
            if !with_token && ["/secret", "/admin/a", "/hidden/a"].contains(&target) {
                continue;
            }
            let known = with_token && !target.contains("public") && target != "/";
            for forged in IDENTITY {
                let request = spellings(forged).iter().fold(get(target), |request, spelling| {
                    request.header(spelling, "mallory").header(spelling, "mallory too")
                });
                let request = if with_token { request.bearer(&token) } else { request };
                let seen = forwarded(&origin, &gateway, &request);
                check_identity(
                    &seen,
                    known.then_some(token.as_str()),
                    &format!("{target}, {forged}, token {with_token}"),
                );
            }
        }
    }
}

/// The identity headers are those of the token, if there is one, and nothing else.
#[track_caller]
fn check_identity(seen: &Seen, token: Option<&str>, what: &str) {
    let id = token.map(|token| jwt::claims_of(token)["jti"].as_str().unwrap().to_owned());
    for name in IDENTITY {
        let expected = match name {
            "x-auth-subject" if token.is_some() => vec!["alice"],
            "x-auth-roles" if token.is_some() => vec!["admin"],
            "x-auth-token-id" => id.iter().map(String::as_str).collect(),
            _ => vec![],
        };
        assert_eq!(seen.all_like(name), expected, "{what}: {name}");
    }
    assert!(!String::from_utf8_lossy(&seen.head).contains("mallory"), "{what}");
}

#[test]
fn other_names_with_odd_characters_pass() {
    let (origin, gateway) = started();
    let names =
        ["X_Own", "x.own.too", "X-Auth-Subjects", "X-AuthSubject", "Auth-Subject", "X-Tenant-Id", "~", "X_Tenant_2"];
    let request = names.iter().fold(get("/public/a"), |request, name| request.header(name, "kept"));
    let seen = forwarded(&origin, &gateway, &request);
    for name in names {
        assert_eq!(seen.header(name), Some("kept"), "{name}");
    }
}

#[test]
fn identity_values_are_encoded_reversibly() {
    let (origin, gateway) = started();
    for (subject, encoded) in [
        ("alice", "alice"),
        ("a b", "a%20b"),
        ("50%", "50%25"),
        ("%41", "%2541"),
        ("é", "%C3%A9"),
        ("名", "%E5%90%8D"),
        ("a,b;c=\"d\"", "a,b;c=\"d\""),
        ("~!x@y.example", "~!x@y.example"),
    ] {
        let request = get("/secret").bearer(&jwt::token_with(subject, &json!({"tenant": subject})));
        let seen = forwarded(&origin, &gateway, &request);
        assert_eq!(seen.all("x-auth-subject"), [encoded], "{subject}");
        assert_eq!(seen.all("x-tenant"), [encoded], "{subject}");
    }
    let request = get("/secret").bearer(&jwt::token_with("alice", &json!({"roles": ["b:c", "a.d"]})));
    assert_eq!(forwarded(&origin, &gateway, &request).all("x-auth-roles"), ["b:c,a.d"]);
    let tokens = gateway.register("bob");
    let seen = forwarded(&origin, &gateway, &get("/secret").bearer(&tokens.access));
    assert_eq!(seen.all("x-auth-session"), [jwt::claims_of(&tokens.access)["sid"].as_str().unwrap()]);
    assert!(seen.all("x-auth-roles").is_empty() && seen.all("x-auth-issuer").is_empty());
}

#[test]
fn connection_removes_what_the_client_named_and_nothing_that_the_gateway_adds() {
    let (origin, gateway) = started();
    let token = jwt::access("alice");
    for lines in [
        vec!["close, X-Auth-Subject, X-Auth-Token-Id, X-Forwarded-For, X-Own"],
        vec!["", "X-Own, x-auth-subject", "close"],
        vec!["X_Auth_Subject, X-Own,,close"],
        vec!["close", "x-own", "X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, X-Request-Id"],
    ] {
        let request =
            lines.iter().fold(get("/secret").bearer(&token).header("X-Own", "1"), |r, l| r.header("Connection", l));
        let seen = forwarded(&origin, &gateway, &request);
        assert_eq!(seen.all("x-auth-subject"), ["alice"], "{lines:?}");
        assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.1"], "{lines:?}");
        assert_eq!(seen.all("x-forwarded-proto"), ["http"], "{lines:?}");
        assert!(seen.header("x-own").is_none(), "{lines:?}");
        assert_eq!(seen.all("host").len(), 1);
    }
    for name in ["Host", "Content-Length", "Transfer-Encoding", "Authorization", "authorization"] {
        let before = origin.count();
        for line in [name.to_owned(), format!("close, {name}"), format!("x ,\t{name} ")] {
            let answer = get("/secret").bearer(&token).header("Connection", &line).send(gateway.public);
            assert_eq!((answer.status, answer.code()), (400, "bad_header"), "{line}: {answer:?}");
        }
        assert_eq!(origin.count(), before);
    }
}

#[test]
fn hop_by_hop_fields_end_here() {
    let (origin, gateway) = started();
    let request = get("/public/a")
        .header("Keep-Alive", "timeout=5")
        .header("Proxy-Connection", "keep-alive")
        .header("Upgrade", "h2c, foo")
        .header("HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA")
        .header("Connection", "Upgrade, HTTP2-Settings")
        .header("Accept", "kept");
    let seen = forwarded(&origin, &gateway, &request);
    for name in ["keep-alive", "proxy-connection", "upgrade", "http2-settings", "connection"] {
        let values = seen.all(name);
        assert!(values.is_empty() || name == "connection" && values == ["keep-alive"], "{name}: {values:?}");
    }
    assert_eq!(seen.header("accept"), Some("kept"));

    let origin = Origin::scripted(|exchange| {
        let hop = "Keep-Alive: timeout=9\r\nProxy-Connection: x\r\nX-Private: 1\r\nConnection: X-Private\r\n";
        exchange.answer("200 OK", &format!("{hop}X-Own: 2\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n"), "");
    });
    let gateway = setup(&origin).start();
    let answer = get("/public/a").send(gateway.public);
    for name in ["keep-alive", "proxy-connection", "x-private"] {
        assert!(answer.header(name).is_none(), "{name}: {answer:?}");
    }
    assert_eq!((answer.header("x-own"), answer.all("set-cookie")), (Some("2"), vec!["a", "b"]));
}

/// What a client may claim about its way here.
const CLAIMED: [(&str, &str); 12] = [
    ("X-Forwarded-For", "6.6.6.6"),
    ("X_Forwarded_For", "6.6.6.6"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "evil.example"),
    ("X.Forwarded.Host", "evil.example"),
    ("X-Forwarded-Prefix", "/evil"),
    ("X-Forwarded-User", "evil"),
    ("Forwarded", "for=6.6.6.6;host=evil.example"),
    ("X-Real-IP", "6.6.6.6"),
    ("X-Original-URL", "/evil"),
    ("X_Original_Url", "/evil"),
    ("X-Rewrite-URL", "/evil"),
];

#[test]
fn an_untrusted_client_tells_nothing_about_its_way() {
    let (origin, gateway) = started();
    for target in ["/public/a", "/secret", "/optional/a"] {
        let request = get(target).bearer(&jwt::access("alice")).header("Host", "site.example:8443");
        let request = CLAIMED.iter().fold(request, |request, (name, value)| request.header(name, value));
        let seen = forwarded(&origin, &gateway, &request);
        let head = String::from_utf8_lossy(&seen.head).into_owned();
        assert!(!head.contains("6.6.6.6") && !head.contains("evil"), "{target}: {head}");
        assert_eq!(seen.all_like("x-forwarded-for"), ["127.0.0.1"]);
        assert_eq!(seen.all_like("x-forwarded-proto"), ["http"]);
        assert_eq!(seen.all_like("x-forwarded-host"), ["site.example:8443"]);
        assert_eq!(seen.header("host"), Some("site.example:8443"));
    }
}

#[test]
fn a_trusted_proxy_is_believed() {
    let origin = Origin::start();
    let gateway = setup(&origin).set("server.trusted_proxies", json!(["127.0.0.0/8", "10.0.0.0/8"])).start();
    let request = get("/public/a")
        .header("X-Forwarded-For", "6.6.6.6, 203.0.113.9")
        .header("X-Forwarded-For", "10.1.2.3")
        .header("X-Forwarded-Proto", "https")
        .header("X-Forwarded-Host", "site.example");
    let seen = forwarded(&origin, &gateway, &request);
    let way = seen.all("x-forwarded-for").join(", ");
    assert!(way.contains("203.0.113.9"), "the client is the first untrusted hop from the right: {way}");
    assert_eq!(seen.all("x-forwarded-proto"), ["https"]);
    assert_eq!(seen.all("x-forwarded-host"), ["site.example"]);
}

#[test]
fn every_request_has_an_id_and_a_trace() {
    let (origin, gateway) = started();
    let seen = forwarded(&origin, &gateway, &get("/public/a"));
    let made = seen.header("x-request-id").unwrap().to_owned();
    let trace = seen.header("traceparent").unwrap().to_owned();
    assert!(!made.is_empty());
    let parts: Vec<_> = trace.split('-').collect();
    assert!(matches!(parts[..], ["00", id, span, _] if id.len() == 32 && span.len() == 16), "{trace}");
    let other = forwarded(&origin, &gateway, &get("/public/a"));
    assert_ne!(other.header("x-request-id"), Some(made.as_str()));

    let id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let request = get("/public/a")
        .header("X-Request-Id", "abc-123")
        .header("traceparent", &format!("00-{id}-00f067aa0ba902b7-01"));
    let seen = forwarded(&origin, &gateway, &request);
    assert_eq!(seen.all("x-request-id"), ["abc-123"]);
    assert!(seen.header("traceparent").unwrap().contains(id));
    assert_eq!(seen.all("traceparent").len(), 1);
}

#[test]
fn authorization_is_passed_on_unless_the_route_says_otherwise() {
    let (origin, gateway) = started();
    let token = jwt::access("alice");
    let bearer = format!("Bearer {token}");
    for (target, expected) in [
        ("/secret", Some(bearer.as_str())),
        ("/optional/a", Some(&bearer)),
        ("/public/a", Some(&bearer)),
        ("/hidden/a", None),
        ("/hidden-public/a", None),
    ] {
        let seen = forwarded(&origin, &gateway, &get(target).bearer(&token));
        assert_eq!(seen.header("authorization"), expected, "{target}");
        let head = String::from_utf8_lossy(&seen.head).into_owned();
        assert_eq!(head.contains(&token), expected.is_some(), "{target}");
    }
    let seen = forwarded(&origin, &gateway, &get("/public/a").header("Authorization", "Basic eDp5"));
    assert_eq!(seen.header("authorization"), Some("Basic eDp5"), "a public route looks at no credential");
}

#[test]
fn malformed_fields_are_refused() {
    let (origin, gateway) = started();
    for line in [
        &b"X Y: 1"[..],
        b"X-Y : 1",
        b"X\tY: 1",
        b": 1",
        b"X(Y): 1",
        b"X\x80: 1",
        b"X-Y: a\x00b",
        b"X-Y: a\x01b",
        b"X-Y: a\x7fb",
        b"X-Y: a\rb",
        b"no colon",
        b" X-Y: folded",
        b"X-Y: 1\r\n folded",
        b"X-Y: 1\r\n\tfolded",
    ] {
        let bytes = [b"GET /public/a HTTP/1.1\r\nHost: x\r\n", line, b"\r\nConnection: close\r\n\r\n"].concat();
        let answer = exchange(gateway.public, &bytes, "GET").unwrap();
        assert_eq!(answer.status, 400, "{}: {answer:?}", line.escape_ascii());
    }
    assert_eq!(origin.count(), 0);
    let large = get("/public/a").header("X-Large", &"x".repeat(70 * 1024)).send(gateway.public);
    assert_eq!(large.status, 431, "{large:?}");
    assert_eq!(origin.count(), 0);
}

#[test]
fn host_is_kept_or_rewritten_as_told() {
    for (policy, expected) in [("keep", "site.example"), ("inner.example", "inner.example"), ("upstream", "")] {
        let origin = Origin::start();
        let gateway = setup(&origin).set("upstreams.app.host", json!(policy)).start();
        let seen = forwarded(&origin, &gateway, &get("/public/a").header("Host", "site.example"));
        let address = origin.address.to_string();
        let expected = if expected.is_empty() { &address } else { expected };
        assert_eq!(seen.all("host"), [expected], "{policy}");
        assert_eq!(seen.all("x-forwarded-host"), ["site.example"], "{policy}");
    }
}

#[test]
fn names_and_order_of_other_fields_are_left_alone() {
    let (origin, gateway) = started();
    let fields = [("X-One", "1"), ("Accept", "a"), ("X-Two", "2"), ("Accept", "b"), ("Cookie", "c=d"), ("X-One", "3")];
    let request = fields.iter().fold(get("/public/a"), |request, (name, value)| request.header(name, value));
    let seen = forwarded(&origin, &gateway, &request);
    for name in ["x-one", "accept", "x-two", "cookie"] {
        let sent: Vec<_> = fields.iter().filter(|(n, _)| canonical_name(n) == name).map(|(_, v)| *v).collect();
        assert_eq!(seen.all(name), sent, "{name}");
    }
}

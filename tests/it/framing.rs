//! Requests whose end is in dispute: a generator of such, with an origin that judges by the letter of RFC 9112.
//!
//! Each case carries a token in its first request and hides a second one, without a token, where another reader of the
//! same bytes would find it. Nothing malformed may reach the origin, nothing hidden, and the gateway may not stumble.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::harness::{Gateway, Setup};
use crate::jwt;
use crate::origin::Origin;
use crate::wire::{Connection, get};

/// What has to become of a case.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Must {
    /// It is malformed: nothing of it reaches the origin.
    Refuse,
    /// It is well-formed: 2xx.
    Accept,
    /// Either, as long as nothing slips through.
    Either,
}

struct Case {
    name: String,
    raw: Vec<u8>,
    must: Must,
}

/// `{id}` and `{auth}` are filled in when the case is sent.
const HEAD: &str = "POST /secret/case{id} HTTP/1.1\r\nHost: x\r\n{auth}";
const HIDDEN: &str = "GET /secret/hidden{id} HTTP/1.1\r\nHost: x\r\n\r\n";

fn case(name: impl Into<String>, fields: &str, body: &str, must: Must) -> Case {
    Case { name: name.into(), raw: format!("{HEAD}{fields}\r\n{body}").into_bytes(), must }
}

/// Every way to spell a Transfer-Encoding that some reader takes for chunked and another does not.
fn codings() -> Vec<Case> {
    let spellings: [(&str, Must); 42] = [
        ("Transfer-Encoding: chunked", Must::Refuse),
        ("Transfer-Encoding : chunked", Must::Refuse),
        ("Transfer-Encoding\t: chunked", Must::Refuse),
        (" Transfer-Encoding: chunked", Must::Refuse),
        ("Transfer-Encoding:\x0bchunked", Must::Refuse),
        ("Transfer-Encoding: \x00chunked", Must::Refuse),
        ("Transfer-Encoding: chunked\x00", Must::Refuse),
        ("Transfer-Encoding\x00: chunked", Must::Refuse),
        ("Transfer\x00-Encoding: chunked", Must::Refuse),
        ("Transfer-Encoding:\r chunked", Must::Refuse),
        ("Transfer-Encoding:\r\n chunked", Must::Refuse),
        ("Transfer-Encoding\r\n: chunked", Must::Refuse),
        ("X: a\r\n Transfer-Encoding: chunked", Must::Refuse),
        ("X: a\rTransfer-Encoding: chunked", Must::Refuse),
        // RFC 9112 2.2: a reader may take a single LF for the end of a line; what is sent on has none.
        ("X: a\nTransfer-Encoding: chunked", Must::Either),
        ("Transfer-Encoding: xchunked", Must::Refuse),
        ("Transfer-Encoding: chunkedx", Must::Refuse),
        ("Transfer-Encoding: \"chunked\"", Must::Refuse),
        ("Transfer-Encoding: 'chunked'", Must::Refuse),
        ("Transfer-Encoding: chunked;q=1", Must::Refuse),
        ("Transfer-Encoding: [chunked]", Must::Refuse),
        ("Transfer-Encoding: identity", Must::Refuse),
        ("Transfer-Encoding: gzip", Must::Refuse),
        ("Transfer-Encoding: chunked, gzip", Must::Refuse),
        ("Transfer-Encoding: chunked, identity", Must::Refuse),
        ("Transfer-Encoding: identity, chunked", Must::Refuse),
        ("Transfer-Encoding: chunked, chunked", Must::Refuse),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", Must::Refuse),
        ("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", Must::Refuse),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", Must::Refuse),
        ("Transfer-Encoding:", Must::Refuse),
        ("Transfer-Encoding: ,", Must::Refuse),
        ("Transfer-Encoding: CHUNKED", Must::Refuse),
        ("TRANSFER-ENCODING: chunked", Must::Refuse),
        ("Transfer-Encoding:chunked", Must::Refuse),
        ("Transfer-Encoding: \tchunked \t", Must::Refuse),
        ("Transfer_Encoding: chunked", Must::Either),
        ("Transfer.Encoding: chunked", Must::Either),
        ("Transfer-Encodings: chunked", Must::Either),
        ("X-Transfer-Encoding: chunked", Must::Either),
        ("TE: chunked", Must::Either),
        ("Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked", Must::Refuse),
    ];
    let mut cases = Vec::new();
    for (spelling, must) in spellings {
        let plain = matches!(spelling.to_lowercase().replace(['\t', ' '], "").as_str(), "transfer-encoding:chunked")
            && !spelling.starts_with(' ')
            && !spelling.contains(" :")
            && !spelling.contains("\t:");
        // RFC 9112 6.3 lets a reader refuse a length beside a plain chunked, or drop the length.
        let both = if plain { Must::Either } else { must };
        // Both framings: whoever believes the length reads on into the hidden request, or stops before it.
        let inner = format!("0\r\n\r\n{HIDDEN}");
        for (order, fields) in [
            ("length first", format!("Content-Length: {}\r\n{spelling}\r\n", inner.len())),
            ("length last", format!("{spelling}\r\nContent-Length: {}\r\n", inner.len())),
            ("short length", format!("Content-Length: 5\r\n{spelling}\r\n")),
        ] {
            cases.push(case(format!("{spelling:?}, {order}"), &fields, &inner, both));
        }
        let must = if plain { Must::Accept } else { must };
        let body = if plain { "3\r\nabc\r\n0\r\n\r\n".to_owned() } else { inner };
        cases.push(case(format!("{spelling:?} alone"), &format!("{spelling}\r\n"), &body, must));
    }
    cases
}

/// Every way to write a length that two readers take for different numbers.
fn lengths() -> Vec<Case> {
    let long = HIDDEN.len();
    let mut cases = Vec::new();
    for value in [
        "+3",
        "-3",
        "0x3",
        "3,4",
        "3 4",
        "3;",
        "3.0",
        "3e0",
        "\"3\"",
        "",
        " ",
        "three",
        "3\x0b",
        "\x0c3",
        "3\0",
        "18446744073709551616",
        "99999999999999999999999999",
        "-0",
        "٣",
        "3_0",
        "3\r",
        "1 1",
        "0,3",
    ] {
        cases.push(case(
            format!("length {value:?}"),
            &format!("Content-Length: {value}\r\n"),
            &format!("abc{HIDDEN}"),
            Must::Refuse,
        ));
    }
    for pair in [("0", "3"), ("3", "0"), ("3", "+3"), ("3", ""), ("3", "abc"), ("0", &long.to_string())] {
        let fields = format!("Content-Length: {}\r\nContent-Length: {}\r\n", pair.0, pair.1);
        cases.push(case(format!("lengths {pair:?}"), &fields, &format!("abc{HIDDEN}"), Must::Refuse));
    }
    for spelling in [
        "Content-Length : 3",
        "Content-Length\t: 3",
        " Content-Length: 3",
        "Content-Length:\r\n 3",
        "Content\0-Length: 3",
    ] {
        cases.push(case(format!("{spelling:?}"), &format!("{spelling}\r\n"), &format!("abc{HIDDEN}"), Must::Refuse));
    }
    for spelling in ["Content_Length: 3", "Content.Length: 3", "X: a\r\nContent-Length: 3\r\nContent-Length: 3"] {
        cases.push(case(format!("{spelling:?}"), &format!("{spelling}\r\n"), "abc", Must::Either));
    }
    for good in ["3", "003", " 3", "3 ", "\t3\t"] {
        let must = if good == "003" { Must::Either } else { Must::Accept };
        cases.push(case(format!("length {good:?}"), &format!("Content-Length:{good}\r\n"), "abc", must));
    }
    cases.push(case(
        "Connection names the length",
        "Connection: Content-Length\r\nContent-Length: 3\r\n",
        "abc",
        Must::Refuse,
    ));
    cases
}

/// Chunked bodies, the size line and the ends bent in every way.
fn chunks() -> Vec<Case> {
    let mut cases = Vec::new();
    let te = "Transfer-Encoding: chunked\r\n";
    for line in [
        "0x3",
        "+3",
        "-3",
        "3 ",
        " 3",
        "\t3",
        "3\t",
        "3\x0b",
        "3\0",
        "3_",
        "g",
        "",
        ";",
        "3;\n",
        "3;a\rb",
        "3;a\nb",
        "3\n",
        "3\r",
        "10000000000000003",
        "fffffffffffffffff",
        "ffffffffffffffff3",
        "3,",
        "\"3\"",
        "3\r\r",
        "٣",
    ] {
        let body = format!("{line}\r\nabc\r\n0\r\n\r\n{HIDDEN}");
        // A space before the extension is "bad whitespace" that RFC 9112 lets a reader take.
        let must = if matches!(line, "3 " | "3\t") { Must::Either } else { Must::Refuse };
        cases.push(case(format!("chunk line {line:?}"), te, &body, must));
    }
    for (name, body) in [
        ("no CRLF after the data", "3\r\nabc0\r\n\r\n"),
        ("LF after the data", "3\r\nabc\n0\r\n\r\n"),
        ("CR after the data", "3\r\nabc\r0\r\n\r\n"),
        ("two bytes more", "3\r\nabcXX0\r\n\r\n"),
        ("LF alone everywhere", "3\nabc\n0\n\n"),
        ("LF after the size", "3\nabc\r\n0\r\n\r\n"),
        ("LF after the last size", "3\r\nabc\r\n0\n\r\n"),
        ("LF at the end", "3\r\nabc\r\n0\r\n\n"),
        ("CR at the end", "3\r\nabc\r\n0\r\n\rX"),
        ("a bare 0", "3\r\nabc\r\n0X\r\n\r\n"),
        ("trailer without colon", "3\r\nabc\r\n0\r\nnonsense\r\n\r\n"),
        ("trailer with space", "3\r\nabc\r\n0\r\nX : 1\r\n\r\n"),
        ("folded trailer", "3\r\nabc\r\n0\r\nX: 1\r\n folded\r\n\r\n"),
    ] {
        let must = if name == "LF at the end" { Must::Either } else { Must::Refuse };
        cases.push(case(name, te, &format!("{body}{HIDDEN}"), must));
    }
    for (name, body) in [
        ("extension", "3;a=b\r\nabc\r\n0;c\r\n\r\n"),
        ("quoted extension", "3;a=\"b;c\"\r\nabc\r\n0\r\n\r\n"),
        ("leading zeros", "0003\r\nabc\r\n000\r\n\r\n"),
        ("upper case", "A\r\n0123456789\r\n0\r\n\r\n"),
        ("a trailer", "3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"),
        ("empty", "0\r\n\r\n"),
    ] {
        cases.push(case(name, te, body, Must::Accept));
    }
    for name in [
        "Content-Length: 3",
        "Transfer-Encoding: chunked",
        "Host: y",
        "Authorization: Bearer x",
        "X-Auth-Subject: root",
    ] {
        cases.push(case(format!("trailer {name}"), te, &format!("3\r\nabc\r\n0\r\n{name}\r\n\r\n"), Must::Either));
    }
    cases
}

/// The request line, the version, the fields.
fn heads() -> Vec<Case> {
    let mut cases = Vec::new();
    let rest = "Host: x\r\n{auth}";
    for line in [
        "GET  /secret/case{id} HTTP/1.1",
        "GET\t/secret/case{id}\tHTTP/1.1",
        " GET /secret/case{id} HTTP/1.1",
        "GET /secret/case{id}  HTTP/1.1",
        "GET /secret/case{id} HTTP/1.1 ",
        "GET /secret/case{id}",
        "GET /secret/case{id} HTTP/1.2x",
        "GET /secret/case{id} http/1.1",
        "GET /secret/case{id} HTTP/01.1",
        "GET /secret/case{id} HTTP/1.",
        "GET /secret/case{id} HTTP/2.0",
        "GET /secret/case{id} HTTP/0.9",
        "GET /secret/case{id} HTTP/1.1\0",
        "G\0ET /secret/case{id} HTTP/1.1",
        "G(T /secret/case{id} HTTP/1.1",
        "GET /secret/case{id} x HTTP/1.1",
        "GET /secret/case{id}\x0b HTTP/1.1",
        "GET /secret/case{id}\r HTTP/1.1",
        "/secret/case{id} HTTP/1.1",
        "GET: /secret/case{id} HTTP/1.1",
        "GET /secret/case{id} HTTP/1.1\rX: y",
    ] {
        let raw = format!("{line}\r\n{rest}\r\n{HIDDEN}").into_bytes();
        cases.push(Case { name: format!("{line:?}"), raw, must: Must::Refuse });
    }
    for (name, raw, must) in [
        (
            "1.0 with chunked",
            format!("POST /secret/case{{id}} HTTP/1.0\r\n{rest}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}"),
            Must::Refuse,
        ),
        ("1.0", format!("GET /secret/case{{id}} HTTP/1.0\r\n{rest}\r\n"), Must::Either),
        ("LF alone", "GET /secret/case{id} HTTP/1.1\nHost: x\n{auth}\n".replace("\r\n", "\n"), Must::Either),
        ("an empty line first", format!("\r\nGET /secret/case{{id}} HTTP/1.1\r\n{rest}\r\n"), Must::Either),
        ("no Host", "GET /secret/case{id} HTTP/1.1\r\n{auth}\r\n".to_owned(), Must::Refuse),
        ("two Hosts", format!("GET /secret/case{{id}} HTTP/1.1\r\n{rest}Host: x\r\n\r\n"), Must::Refuse),
        (
            "a field before Host is folded",
            format!("GET /secret/case{{id}} HTTP/1.1\r\nX: y\r\n z\r\n{rest}\r\n"),
            Must::Refuse,
        ),
        ("the first field is folded", format!("GET /secret/case{{id}} HTTP/1.1\r\n X: y\r\n{rest}\r\n"), Must::Refuse),
        (
            "a GET with a length",
            format!("GET /secret/case{{id}} HTTP/1.1\r\n{rest}Content-Length: 3\r\n\r\nabc"),
            Must::Accept,
        ),
        (
            "a HEAD with a length",
            format!("HEAD /secret/case{{id}} HTTP/1.1\r\n{rest}Content-Length: 3\r\n\r\nabc"),
            Must::Accept,
        ),
        (
            "h2c",
            format!("GET /secret/case{{id}} HTTP/1.1\r\n{rest}Upgrade: h2c\r\nConnection: Upgrade\r\n\r\n{HIDDEN}"),
            Must::Either,
        ),
        ("a preface that is none", "PRI * HTTP/2.0\r\n\r\nSX\r\n\r\n".to_owned(), Must::Refuse),
        ("TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03".to_owned(), Must::Refuse),
        ("nothing but CRLF", "\r\n\r\n\r\n\r\n".to_owned(), Must::Refuse),
    ] {
        cases.push(Case { name: name.into(), raw: raw.into_bytes(), must });
    }
    cases
}

/// A request that is refused early, its body hiding another.
fn refused_early() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, head) in [
        ("no token", "POST /secret/case{id} HTTP/1.1\r\nHost: x\r\n"),
        ("no route", "POST /nowhere/case{id} HTTP/1.1\r\nHost: x\r\n"),
        ("an endpoint", "POST /login HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n"),
        ("a wrong method", "PUT /login HTTP/1.1\r\nHost: x\r\n"),
        ("a bad path", "POST /secret/%00case{id} HTTP/1.1\r\nHost: x\r\n"),
    ] {
        let sized = format!("{head}Content-Length: {}\r\n\r\n{HIDDEN}", HIDDEN.len());
        let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len());
        let expecting = format!("{head}Expect: 100-continue\r\nContent-Length: {}\r\n\r\n{HIDDEN}", HIDDEN.len());
        for (framing, raw) in [("sized", sized), ("chunked", chunked), ("expecting", expecting)] {
            cases.push(Case { name: format!("{name}, {framing}"), raw: raw.into_bytes(), must: Must::Refuse });
        }
    }
    cases
}

/// Sends one case and says what is wrong with what became of it, the origin's view aside.
fn play(gateway: &Gateway, case: &Case, id: &str, auth: &str) -> Vec<String> {
    let raw = replace(&replace(&case.raw, b"{id}", id.as_bytes()), b"{auth}", auth.as_bytes());
    let mut wrong = Vec::new();
    let mut client = Connection::open(gateway.public);
    let _ = client.send(&raw);
    let answer = client.receive_all(Duration::from_millis(400), Duration::from_millis(40));
    let versions = [&b"HTTP/1.1 "[..], b"HTTP/1.0 "];
    let rest = versions.iter().find_map(|version| answer.strip_prefix(*version));
    let status = rest.and_then(|rest| rest.get(..3)).map(String::from_utf8_lossy);
    match status.as_deref() {
        Some("100") | None if answer.is_empty() => {}
        None => wrong.push(format!("no status line: {}", answer[..answer.len().min(80)].escape_ascii())),
        Some(status) if status.starts_with('5') => wrong.push(format!("answered {status}")),
        Some(status) if case.must == Must::Accept && status != "200" => wrong.push(format!("answered {status}")),
        Some(status) if case.must == Must::Refuse && status.starts_with('2') => {
            wrong.push(format!("answered {status}"))
        }
        Some(_) => {}
    }
    if case.must == Must::Accept && answer.is_empty() {
        wrong.push("not answered".into());
    }
    // A clean request right after gets its own answer.
    let canary = format!("/secret/canary{id}");
    let after =
        get(&canary).header("Authorization", auth["Authorization: ".len()..].trim_end()).try_send(gateway.public);
    if !after.as_ref().is_ok_and(|after| after.status == 200 && after.text().contains(&canary)) {
        wrong.push(format!("the next request got {after:?}"));
    }
    wrong
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(from.len()).position(|window| window == from) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    out.extend_from_slice(rest);
    out
}

#[test]
fn nothing_malformed_passes_and_nothing_hidden() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    let auth = format!("Authorization: Bearer {}\r\n", jwt::access("alice"));
    let cases: Vec<Case> = [codings(), lengths(), chunks(), heads(), refused_early()].into_iter().flatten().collect();
    let next = AtomicUsize::new(0);
    let wrong = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                while let Some((index, case)) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|n| Some((n, cases.get(n)?)))
                {
                    for what in play(&gateway, case, &format!("{index:04}"), &auth) {
                        wrong.lock().unwrap().push(format!("{}: {what}", case.name));
                    }
                }
            });
        }
    });
    let mut wrong = wrong.into_inner().unwrap();
    let seen = origin.seen();
    for request in &seen {
        let index: Option<usize> =
            request.target.rsplit(|c: char| !c.is_ascii_digit()).next().and_then(|n| n.parse().ok());
        let Some(case) = index.and_then(|index| cases.get(index)) else {
            wrong.push(format!("of unknown origin: {}", request.head.escape_ascii()));
            continue;
        };
        if !request.violations.is_empty() {
            wrong.push(format!("{}: malformed at the origin: {:?}", case.name, request.violations));
        }
        if request.target.contains("hidden") {
            wrong.push(format!("{}: the hidden request passed", case.name));
        }
        if request.target.contains("case") && case.must == Must::Refuse && request.complete {
            wrong.push(format!("{}: forwarded", case.name));
        }
        if request.trailers.iter().any(|(name, _)| name.to_lowercase().contains("auth")) {
            wrong.push(format!("{}: a trailer that speaks of identity passed: {:?}", case.name, request.trailers));
        }
    }
    assert!(seen.len() > cases.len(), "the canaries arrived");
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

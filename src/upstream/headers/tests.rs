//! Header sections for both protocols from the same request.

use super::*;

type Fields = Vec<(&'static str, &'static str)>;

struct Case {
    fields: Fields,
    version: Version,
    websocket: bool,
    token: bool,
    secure: bool,
}

impl Default for Case {
    fn default() -> Self {
        let fields = vec![("host", "a.example")];
        Self { fields, version: Version::HTTP_11, websocket: false, token: false, secure: false }
    }
}

fn rules() -> Rules {
    Rules::new(&[config::IdentityHeader { source: config::IdentitySource::Subject, name: "X-Auth-Subject".into() }])
}

impl Case {
    /// What an upstream gets: the lines of HTTP/1.1, and the fields of HTTP/2.
    fn run(&self, host: Option<&'static str>) -> (Vec<String>, Vec<String>) {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let host = host.map(HeaderValue::from_static);
        let client = Client {
            address: [10, 0, 0, 1].into(),
            peer: HeaderValue::from_static("10.0.0.1"),
            trusted: false,
            secure: self.secure,
        };
        let request = Rewrite {
            caller: None,
            client: &client,
            ids: Ids { request: b"id", trace: None },
            authorization: true,
            connection: headers.contains_key(CONNECTION),
            chunked: false,
            version: self.version,
            websocket: self.websocket,
            websocket_token: self.token,
        };
        let mut out = Vec::new();
        rules().write(&mut out, &headers, host.as_ref(), &request).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines = text.strip_suffix("\r\n\r\n").unwrap().split("\r\n").map(str::to_owned).collect();
        let map = rules().map(&headers, &request).unwrap();
        let fields = map.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        (lines, fields)
    }
}

fn without(mut lines: Vec<String>, names: &[&str]) -> Vec<String> {
    lines.retain(|line| !names.contains(&line.split(':').next().unwrap()));
    lines.sort();
    lines
}

#[test]
fn both_protocols_say_the_same_but_for_what_is_their_own() {
    let fields = vec![
        ("host", "a.example"),
        ("x-auth_subject", "forged"),
        ("x-forwarded-for", "1.2.3.4"),
        ("forwarded", "for=1.2.3.4"),
        ("authorization", "Bearer t"),
        ("connection", "x-hop, te, upgrade"),
        ("x-hop", "1"),
        ("te", "trailers, deflate"),
        ("upgrade", "h2c"),
        ("accept", "a"),
        ("accept", "b"),
    ];
    let (lines, map) = Case { fields, ..Case::default() }.run(None);
    let own = ["host", "te"];
    assert_eq!(without(lines.clone(), &own), without(map.clone(), &own));
    assert_eq!(
        without(lines, &["x-request-id"]),
        [
            "accept: a",
            "accept: b",
            "authorization: Bearer t",
            "host: a.example",
            "x-forwarded-for: 10.0.0.1",
            "x-forwarded-host: a.example",
            "x-forwarded-proto: http",
        ]
    );
    assert!(map.contains(&"te: trailers".to_owned()) && !map.iter().any(|field| field.starts_with("host:")), "{map:?}");
    let (_, map) = Case { fields: vec![("host", "a.example"), ("te", "gzip")], ..Case::default() }.run(None);
    assert!(!map.iter().any(|field| field.starts_with("te:")), "{map:?}");
}

#[test]
fn a_request_of_http_2_is_put_into_the_words_of_http_1() {
    let fields = vec![("cookie", "a=1"), ("x", "y"), ("cookie", "b=2"), ("cookie", "c=3; d=4"), ("host", "b.example")];
    let case = Case { fields, version: Version::HTTP_2, secure: true, ..Case::default() };
    let expected = |host: &str| {
        let host = format!("host: {host}");
        let rest = ["x-forwarded-for: 10.0.0.1", "x-forwarded-host: b.example", "x-forwarded-proto: https", "x: y"];
        let all = ["cookie: a=1; b=2; c=3; d=4", host.as_str()].into_iter().chain(rest);
        all.map(str::to_owned).collect::<Vec<_>>()
    };
    for (host, seen) in [(None, "b.example"), (Some("app"), "app")] {
        assert_eq!(without(case.run(host).0, &["x-request-id"]), expected(seen));
    }
    let two = Case { fields: vec![("host", "x"), ("cookie", "a"), ("cookie", "b")], ..Case::default() };
    assert!(two.run(None).0.contains(&"cookie: b".to_owned()), "HTTP/1.1 is left as it came");
}

#[test]
fn a_websocket_keeps_its_upgrade_and_loses_its_credential() {
    for (offered, token, seen) in [
        (&["chat"][..], false, Some("chat")),
        (&["bearer, t.o.k"], false, Some("bearer, t.o.k")),
        (&["bearer, t.o.k"], true, None),
        (&["chat, bearer, t.o.k, superchat"], true, Some("chat, superchat")),
        (&["Bearer,t.o.k", "chat"], true, Some("chat")),
        (&["bearer", "t.o.k, chat"], true, Some("chat")),
        (&["bearer, t.o.k, chat, t.o.k"], true, Some("chat")),
    ] {
        let mut fields = vec![("host", "x"), ("upgrade", "websocket"), ("connection", "Upgrade")];
        fields.extend(offered.iter().map(|line| ("sec-websocket-protocol", *line)));
        let (lines, _) = Case { fields, websocket: true, token, ..Case::default() }.run(None);
        let protocols: Vec<_> = lines.iter().filter_map(|line| line.strip_prefix("sec-websocket-protocol: ")).collect();
        assert_eq!(protocols.first().copied(), seen, "{offered:?}");
        assert_eq!(lines.iter().filter(|line| *line == "upgrade: websocket").count(), 1, "{lines:?}");
        assert_eq!(lines.iter().filter(|line| *line == "connection: Upgrade").count(), 1, "{lines:?}");
    }
}

//! The route table: precedence, methods, readings, and the properties that hold for every path.

use proptest::prelude::*;

use super::super::path::tests::any_path;
use super::*;
use crate::config::{Auth, PathPattern};

/// `[METHODS ][HOST]PATH[ preserve]`, for example `GET,POST a.example/x/{id}`.
fn route(text: &str) -> Route {
    let (text, encoded_slash) = match text.strip_suffix(" preserve") {
        Some(text) => (text, EncodedSlash::Preserve),
        None => (text, EncodedSlash::Reject),
    };
    let (methods, place) = text.split_once(' ').unwrap_or(("", text));
    let (host, path) = place.split_at(place.find('/').unwrap());
    let (base, wildcard) = path.strip_suffix("/*").map_or((path, false), |base| (base, true));
    let segments = base.split('/').filter(|segment| !segment.is_empty()).map(|segment| match segment {
        "{}" => Segment::Any,
        text => Segment::Literal(text.into()),
    });
    Route {
        id: path.into(),
        host: (!host.is_empty()).then(|| host.into()),
        path: PathPattern { segments: segments.collect(), wildcard },
        methods: methods.split(',').filter(|method| !method.is_empty()).map(Into::into).collect(),
        upstream: 0,
        auth: Auth::Public,
        strip_prefix: None,
        encoded_slash,
        forward_authorization: true,
        websocket_protocol_token: false,
        on_expiry: crate::config::OnExpiry::Close,
        cors: None,
        stream: false,
        limits: crate::config::RouteLimits::default(),
    }
}

fn table(routes: &[&str]) -> Result<Table, TableError> {
    Table::new(&routes.iter().map(|text| route(text)).collect::<Vec<_>>())
}

fn find(table: &Table, host: &str, method: &str, path: &str) -> Result<Match, Miss> {
    table.find(host, &Method::from_bytes(method.as_bytes()).unwrap(), &Path::parse(path).unwrap())
}

/// Each path finds the route that is written beside it.
fn check(routes: &[&str], cases: &[(&str, Option<&str>)]) {
    let table = table(routes).unwrap();
    for (path, expected) in cases {
        let found = match find(&table, "x", "GET", path) {
            Ok(found) => Some(routes[found.route]),
            Err(Miss::NoRoute) => None,
            Err(other) => panic!("{path}: {other}"),
        };
        assert_eq!(found, *expected, "{path}");
    }
}

#[test]
fn a_path_is_itself_with_and_without_slash() {
    check(
        &["/", "/secret", "/a/b"],
        &[
            ("/", Some("/")),
            ("/secret", Some("/secret")),
            ("/secret/", Some("/secret")),
            ("/secret/x", None),
            ("/secretx", None),
            ("/Secret", None),
            ("/a", None),
            ("/a/b/", Some("/a/b")),
        ],
    );
}

#[test]
fn a_wildcard_is_the_folder_and_all_below() {
    check(
        &["/reports/*"],
        &[
            ("/reports", Some("/reports/*")),
            ("/reports/", Some("/reports/*")),
            ("/reports/a/b/c/", Some("/reports/*")),
            ("/reportsx", None),
            ("/", None),
        ],
    );
    check(&["/*"], &[("/", Some("/*")), ("/a", Some("/*")), ("/a/b/", Some("/*"))]);
}

#[test]
fn a_name_is_one_segment() {
    check(
        &["/u/{}", "/u/{}/x"],
        &[
            ("/u", None),
            ("/u/", None),
            ("/u/1", Some("/u/{}")),
            ("/u/1/", Some("/u/{}")),
            ("/u/1/x", Some("/u/{}/x")),
            ("/u/1/y", None),
            ("/u/%20", Some("/u/{}")),
        ],
    );
}

#[test]
fn the_most_specific_wins() {
    check(
        &["/*", "/a", "/a/*", "/a/{}", "/a/b", "/a/{}/c", "/a/b/*", "/{}", "/{}/b/c"],
        &[
            ("/", Some("/*")),
            ("/a", Some("/a")),
            ("/z", Some("/{}")),
            ("/a/b", Some("/a/b")),
            ("/a/x", Some("/a/{}")),
            ("/a/b/c", Some("/a/b/*")),
            ("/a/x/c", Some("/a/{}/c")),
            ("/a/x/d", Some("/a/*")),
            ("/z/b/c", Some("/{}/b/c")),
            ("/z/b/d", Some("/*")),
            ("/z/y", Some("/*")),
        ],
    );
}

#[test]
fn a_dead_end_hides_nothing() {
    check(
        &["/a/b/c/d", "/a/{}/c/e", "/{}/b/{}/f", "/a/*", "/*"],
        &[
            ("/a/b/c/d", Some("/a/b/c/d")),
            ("/a/b/c/e", Some("/a/{}/c/e")),
            ("/a/b/c/f", Some("/a/*")),
            ("/z/b/c/f", Some("/{}/b/{}/f")),
            ("/z/b/c/g", Some("/*")),
        ],
    );
    check(
        &["/a/b/c/d", "/a/{}/c/e", "/{}/b/{}/f"],
        &[("/a/b/c/f", Some("/{}/b/{}/f")), ("/a/b/c/e", Some("/a/{}/c/e")), ("/a/b/c/g", None), ("/a/b", None)],
    );
}

#[test]
fn literals_are_compared_decoded() {
    check(
        &["/*", "/caf%C3%A9", "/a%20b", "/x&y"],
        &[
            ("/caf%c3%a9", Some("/caf%C3%A9")),
            ("/café", Some("/caf%C3%A9")),
            ("/caf%C3%A9/", Some("/caf%C3%A9")),
            ("/a%20b", Some("/a%20b")),
            ("/a%2520b", Some("/*")),
            ("/x%26y", Some("/x&y")),
            ("/%63af%c3%A9", Some("/caf%C3%A9")),
        ],
    );
}

#[test]
fn hosts() {
    let routes = ["/*", "a.example/v1/*", "a.example/v1/x", "POST a.example/only", "/only"];
    let table = table(&routes).unwrap();
    for (host, method, path, expected) in [
        ("a.example", "GET", "/v1/y", Ok(1)),
        ("a.example", "GET", "/v1/x", Ok(2)),
        ("a.example", "GET", "/v2", Ok(0)),
        ("b.example", "GET", "/v1/x", Ok(0)),
        ("a.example", "POST", "/only", Ok(3)),
        ("a.example", "GET", "/only", Err(Miss::MethodNotAllowed { allow: "POST".into() })),
        ("b.example", "GET", "/only", Ok(4)),
    ] {
        let found = find(&table, host, method, path).map(|found| found.route);
        assert_eq!(found, expected, "{host} {method} {path}");
    }
}

#[test]
fn methods_are_checked_afterwards() {
    let routes = ["/*", "GET /a", "POST,DELETE /a", "PUT /b", "GET /c", "HEAD /c", "/d/*", "PURGE /e"];
    let table = table(&routes).unwrap();
    let not_allowed = |allow: &str| Err(Miss::MethodNotAllowed { allow: allow.into() });
    for (method, path, expected) in [
        ("GET", "/a", Ok(1)),
        ("HEAD", "/a", Ok(1)),
        ("POST", "/a/", Ok(2)),
        ("PUT", "/a", not_allowed("DELETE, GET, HEAD, POST")),
        ("get", "/a", not_allowed("DELETE, GET, HEAD, POST")),
        ("HEAD", "/b", not_allowed("PUT")),
        ("GET", "/b", not_allowed("PUT")),
        ("HEAD", "/c", Ok(5)),
        ("POST", "/c", not_allowed("GET, HEAD")),
        ("BREW", "/d/x", Ok(6)),
        ("PURGE", "/e", Ok(7)),
        ("PUT", "/b/x", Ok(0)),
    ] {
        assert_eq!(find(&table, "x", method, path).map(|found| found.route), expected, "{method} {path}");
    }
}

#[test]
fn encoded_slashes() {
    let routes = ["/r/*", "/p/* preserve", "/p/admin/*", "POST /p/posted", "/q/{} preserve"];
    let table = table(&routes).unwrap();
    let found = |route, also: &[usize]| Ok(Match { route, also: also.to_vec() });
    for (path, expected) in [
        ("/r/a%2fb", Err(Miss::EncodedSlash)),
        ("/r/a%2Fb", Err(Miss::EncodedSlash)),
        ("/n/a%2fb", Err(Miss::NoRoute)),
        ("/p/a%2fb", found(1, &[])),
        ("/p/admin%2fb", found(1, &[2])),
        ("/p/%2fadmin%2Fb", found(1, &[2])),
        ("/p%2fadmin", Err(Miss::NoRoute)),
        ("/p/posted%2f", Err(Miss::MethodNotAllowed { allow: "POST".into() })),
        ("/q/a%2fb", Err(Miss::NoRoute)),
        ("/q/%2fa", found(4, &[])),
    ] {
        assert_eq!(find(&table, "x", "GET", path), expected, "{path}");
    }
}

#[test]
fn params() {
    let routes = ["/f/{}", "/f/secret", "/* preserve", "/f/x/{}", "/f/x/secret"];
    let table = table(&routes).unwrap();
    let found = |route, also: &[usize]| Ok(Match { route, also: also.to_vec() });
    for (path, expected) in [
        ("/f/a;b=c", found(0, &[])),
        ("/f/secret;x", found(0, &[1])),
        ("/f;x/secret", found(2, &[1])),
        ("/;/f/secret", found(2, &[1])),
        ("/f;x/a", found(2, &[0])),
        ("/f%2fx%2fsecret;y%2fz", found(2, &[4])),
    ] {
        let mut result = find(&table, "x", "GET", path);
        if let Ok(result) = &mut result {
            result.also.sort_unstable();
        }
        assert_eq!(result, expected, "{path}");
    }
    let table = self::table(&["/f/{}"]).unwrap();
    assert_eq!(find(&table, "x", "GET", "/f/;x"), Err(Miss::NoRoute), "cut, nothing is left for the name");
}

#[test]
fn collisions() {
    for (routes, expected) in [
        (["/a", "/a"], Some((0, 1))),
        (["/u/{}", "/u/{}"], Some((0, 1))),
        (["GET /a", "POST,GET /a"], Some((0, 1))),
        (["GET /a", "/a"], Some((0, 1))),
        (["x/a", "X./a"], Some((0, 1))),
        (["/caf%C3%A9", "/caf%c3%a9"], Some((0, 1))),
        (["/a", "/a/*"], None),
        (["GET /a", "POST /a"], None),
        (["GET,GET /a", "GET /b"], None),
        (["x/a", "/a"], None),
    ] {
        let error = table(&routes).err();
        assert_eq!(error, expected.map(|(first, second)| TableError::Equal { first, second }), "{routes:?}");
    }
    let method = TableError::Method { route: 0, method: "G@T".into() };
    assert_eq!(table(&["G@T /a"]).err(), Some(method));
    let host = TableError::Host { route: 1, source: host::HostError::Label };
    assert_eq!(table(&["/a", "x..y/a"]).err(), Some(host));
}

/// The rule as the contract words it, slowly: of all routes that fit, the one whose segments rank best from the left.
fn reference(routes: &[Route], host: &str, segments: &[Vec<u8>]) -> Option<usize> {
    let rank = |route: &Route| {
        let pattern = &route.path.segments;
        let fits = if route.path.wildcard { segments.len() >= pattern.len() } else { segments.len() == pattern.len() };
        let literal = |(pattern, segment): (&Segment, &Vec<u8>)| match pattern {
            Segment::Any => Some(1),
            Segment::Literal(text) => (decode(text.as_bytes()) == *segment).then_some(2),
        };
        let mut ranks: Vec<i32> = pattern.iter().zip(segments).map(literal).collect::<Option<_>>()?;
        ranks.push(if route.path.wildcard { 0 } else { 1 });
        let host = match &route.host {
            None => Some(0),
            Some(name) => (name == host).then_some(1),
        };
        fits.then_some((host?, ranks))
    };
    let ranked = routes.iter().enumerate().filter_map(|(index, route)| Some((rank(route)?, index)));
    ranked.max().map(|(_, index)| index)
}

fn segments(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|&byte| byte == b'/').filter(|segment| !segment.is_empty()).map(<[u8]>::to_vec).collect()
}

fn any_routes() -> impl Strategy<Value = Vec<Route>> {
    let segment = prop::sample::select(vec!["a", "b", "secret", "%C3%A9", "a%20", "{}", "{}"]);
    let path = prop::collection::vec(segment, 0..4).prop_map(|segments| segments.join("/"));
    let one = (prop::sample::select(vec!["", "", "h"]), path, any::<bool>()).prop_map(|(host, path, wildcard)| {
        let path = path.trim_matches('/');
        match (path, wildcard) {
            ("", true) => format!("{host}/*"),
            (path, true) => format!("{host}/{path}/*"),
            (path, false) => format!("{host}/{path}"),
        }
    });
    prop::collection::btree_set(one, 1..12)
        .prop_map(|texts| texts.into_iter().map(|text| route(&format!("{text} preserve"))).collect())
}

fn without_dots(segments: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut out: Vec<Vec<u8>> = Vec::new();
    for segment in segments {
        match segment.as_slice() {
            b"." => {}
            b".." => drop(out.pop()),
            _ => out.push(segment.clone()),
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn finds_what_the_reference_finds(routes in any_routes(), raw in "(/(a|b|secret|%C3%A9|%c3%a9|a%20|x)){0,5}/?") {
        let table = Table::new(&routes).unwrap();
        let raw = if raw.is_empty() { "/".into() } else { raw };
        let decoded: Vec<Vec<u8>> = segments(raw.as_bytes()).iter().map(|segment| decode(segment)).collect();
        for host in ["h", "x"] {
            let found = find(&table, host, "GET", &raw).ok().map(|found| found.route);
            prop_assert_eq!(found, reference(&routes, host, &decoded), "{} {}", host, raw);
        }
    }

    /// Decoding once and removing dots, in either order, is every server's right: it must meet no route unasked.
    #[test]
    fn no_server_reads_a_route_that_was_not_checked(routes in any_routes(), raw in any_path()) {
        let table = Table::new(&routes).unwrap();
        let Ok(path) = Path::parse(&raw) else { return Ok(()) };
        let Ok(found) = table.find("h", &Method::GET, &path) else { return Ok(()) };
        let sent = path.as_str().as_bytes();
        let decode_first = without_dots(&segments(&decode(sent)));
        let dots_first: Vec<Vec<u8>> = without_dots(&segments(sent)).iter().map(|segment| decode(segment)).collect();
        for reading in [decode_first, dots_first] {
            let read = reference(&routes, "h", &reading);
            let checked = read.is_some_and(|route| found.route == route || found.also.contains(&route));
            prop_assert!(checked, "{} is sent as {}, checked {:?}, read as {:?}", raw, path.as_str(), found, read);
        }
    }
}

//! What a request asks for: host and canonical path, read from target and Host field with one meaning, or refused.

use http::header::{HOST, HeaderMap, HeaderValue};
use http::uri::{PathAndQuery, Scheme};
use http::{Method, Uri};

use crate::gate::host::{self, Host};
use crate::gate::path::Path;
use crate::gate::route::Miss;
use crate::message::Rejection;

/// The canonical path of a request, and what it came as.
pub struct Target<'a> {
    uri: &'a Uri,
    path: Path<'a>,
}

impl<'a> Target<'a> {
    /// Reads the path.
    ///
    /// # Errors
    /// `bad_path`; `bad_request` for CONNECT and for schemes other than http; `no_route` for `OPTIONS *`.
    pub fn of(uri: &'a Uri, method: &Method) -> Result<Self, Rejection> {
        if *method == Method::CONNECT {
            return Err(Rejection::BadRequest("CONNECT is not served here".into()));
        }
        if uri.scheme().is_some_and(|scheme| *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS) {
            return Err(Rejection::BadRequest("The target's scheme is neither http nor https".into()));
        }
        if *method == Method::OPTIONS && uri.path() == "*" {
            return Err(Rejection::NoRoute);
        }
        let path = Path::parse(uri.path()).map_err(|error| Rejection::BadPath(error.to_string().into()))?;
        Ok(Self { uri, path })
    }

    /// The path.
    pub fn path(&self) -> &Path<'a> {
        &self.path
    }

    /// Whether it is `path`, with or without one trailing slash.
    pub fn is(&self, path: &str) -> bool {
        let own = self.path.as_str();
        own.strip_suffix('/').unwrap_or(own) == path
    }

    /// What stands behind `path`, its slash included. As it was sent, where it was sent so: dot segments in it end there.
    pub fn below(&self, path: &str) -> Option<&str> {
        let rest = |whole: &'a str| whole.strip_prefix(path).filter(|rest| rest.starts_with('/'));
        rest(self.uri.path()).or_else(|| self.path.as_str().strip_prefix(path).filter(|rest| rest.starts_with('/')))
    }

    /// Path and query as the upstream gets them: what was judged, the raw bytes where nothing was to be canonicalised.
    ///
    /// # Errors
    /// `bad_path` when the canonical path fits no request line, which no path is known to do.
    pub fn to_send(&self, strip: Option<&str>) -> Result<Uri, Rejection> {
        // Not so `http://host?query`, whose path is empty.
        let raw = self.uri.path_and_query().filter(|raw| raw.as_str().starts_with('/'));
        if let Some(raw) = raw
            && strip.is_none()
            && self.path.is_unchanged()
        {
            return Ok(Uri::from(raw.clone()));
        }
        let path = self.path.as_str();
        let path = strip.map_or(path, |prefix| without_segments(path, prefix.matches('/').count()));
        let whole = match self.uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        };
        PathAndQuery::try_from(whole)
            .map(Uri::from)
            .map_err(|_| Rejection::BadPath("The path cannot be sent on".into()))
    }
}

/// What follows the first `count` segments. By segments, not by text: `/%C3%A9` and `/%c3%a9` are one route.
fn without_segments(path: &str, count: usize) -> &str {
    path.match_indices('/').nth(count).and_then(|(at, _)| path.get(at..)).unwrap_or("/")
}

/// Gives a request of HTTP/2 the form of HTTP/1.1: its authority stands in the Host field, if only there.
///
/// # Errors
/// `headers_too_large` beyond `limit` bytes, `bad_path` for a `:path` without path, `bad_header` for a value with blanks at
/// its ends (RFC 9113 section 8.2.1).
pub fn settle_http2(uri: &Uri, headers: &mut HeaderMap, limit: usize) -> Result<(), Rejection> {
    // As RFC 9113 6.5.2 counts, but for the pseudo-header fields.
    if headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum::<usize>() > limit {
        return Err(Rejection::HeadersTooLarge);
    }
    if uri.path_and_query().is_none_or(|path| !path.as_str().starts_with('/')) {
        return Err(Rejection::BadPath("The target does not begin with /".into()));
    }
    if let Some((name, _)) = headers.iter().find(|(_, value)| has_blank_end(value)) {
        return Err(Rejection::BadHeader(format!("{name} begins or ends with a blank").into()));
    }
    if let Some(authority) = uri.authority()
        && !headers.contains_key(HOST)
    {
        let host = HeaderValue::try_from(authority.as_str());
        let host = host.map_err(|_| Rejection::BadRequest("The authority is no host".into()))?;
        headers.insert(HOST, host);
    }
    Ok(())
}

fn has_blank_end(value: &HeaderValue) -> bool {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let bytes = value.as_bytes();
    bytes.first().is_some_and(is_blank) || bytes.last().is_some_and(is_blank)
}

/// The host that is asked for: the one Host field, to which the authority of an absolute-form target must be equal.
///
/// # Errors
/// `bad_request`, saying what is wrong.
pub fn host<'h>(uri: &Uri, headers: &'h HeaderMap) -> Result<Host<'h>, Rejection> {
    let mut fields = headers.get_all(HOST).iter();
    let field = match (fields.next(), fields.next()) {
        (Some(field), None) => field,
        (None, _) => return Err(Rejection::BadRequest("The Host field is missing".into())),
        (Some(_), Some(_)) => return Err(Rejection::BadRequest("The Host field stands more than once".into())),
    };
    let host = host::parse(field.as_bytes()).map_err(|error| Rejection::BadRequest(error.to_string().into()))?;
    let default = if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
    match uri.authority() {
        Some(authority) if !host::same_authority(&host, authority.as_str(), default) => {
            Err(Rejection::BadRequest("The target names another host than the Host field".into()))
        }
        _ => Ok(host),
    }
}

/// What the route table's refusals mean to a client.
impl From<Miss> for Rejection {
    fn from(miss: Miss) -> Self {
        match miss {
            Miss::NoRoute => Self::NoRoute,
            Miss::MethodNotAllowed { allow } => Self::MethodNotAllowed(allow),
            slash @ Miss::EncodedSlash => Self::BadPath(slash.to_string().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::uri::Parts;

    use super::*;

    /// As h2 puts a target together.
    fn http2(scheme: &str, authority: Option<&str>, path: &str) -> Uri {
        let mut parts = Parts::default();
        parts.path_and_query = Some(path.parse().unwrap());
        if let Some(authority) = authority {
            parts.scheme = Some(scheme.parse().unwrap());
            parts.authority = Some(authority.parse().unwrap());
        }
        Uri::from_parts(parts).unwrap()
    }

    fn judge(uri: &Uri, method: &str, fields: &[(&'static str, &'static str)]) -> Result<(String, String), Rejection> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let target = Target::of(uri, &Method::from_bytes(method.as_bytes()).unwrap())?;
        settle_http2(uri, &mut headers, 8192)?;
        Ok((host(uri, &headers)?.as_str().to_owned(), target.to_send(None)?.to_string()))
    }

    #[test]
    fn one_authority_over_http2() {
        for (scheme, authority, fields, expected) in [
            ("http", Some("a.example"), &[][..], "a.example"),
            ("https", Some("A.example:8443"), &[], "a.example"),
            ("http", None, &[("host", "b.example")], "b.example"),
            ("http", Some("a.example"), &[("host", "A.EXAMPLE:80")], "a.example"),
            ("https", Some("a.example"), &[("host", "a.example:443")], "a.example"),
            ("https", Some("a.example"), &[("host", "a.example:80")], "bad_request"),
            ("http", Some("a.example"), &[("host", "b.example")], "bad_request"),
            ("http", Some("a.example"), &[("host", "")], "bad_request"),
            ("http", Some("a.example"), &[("host", "a.example"), ("host", "a.example")], "bad_request"),
            ("http", Some("u@a.example"), &[], "bad_request"),
            ("http", Some("u@a.example"), &[("host", "a.example")], "bad_request"),
            ("http", Some("a.example:x"), &[], "bad_request"),
            ("ftp", Some("a.example"), &[], "bad_request"),
            ("http", None, &[], "bad_request"),
            ("http", Some("a.example"), &[("x-a", " b")], "bad_header"),
            ("http", Some("a.example"), &[("x-a", "b\t")], "bad_header"),
            ("http", Some("a.example"), &[("x-a", "b c"), ("x-b", "")], "a.example"),
        ] {
            let found = judge(&http2(scheme, authority, "/"), "GET", fields);
            let found = found.map_or_else(|rejection| rejection.code().to_owned(), |(host, _)| host);
            assert_eq!(found, expected, "{scheme} {authority:?} {fields:?}");
        }
    }

    #[test]
    fn targets_over_http2() {
        for (method, path, expected) in [
            ("GET", "/a?b", "/a?b"),
            ("GET", "/", "/"),
            ("GET", "a", "bad_path"),
            ("GET", "?a", "bad_path"),
            ("GET", "*", "bad_path"),
            ("GET", "/a b", "bad_path"),
            ("GET", "/a?b c", "bad_path"),
            ("GET", "/a?b\r\nc: d", "bad_path"),
            ("GET", "/a?b\0", "bad_path"),
            ("OPTIONS", "*", "no_route"),
            ("CONNECT", "/", "bad_request"),
        ] {
            // What http itself does not take never comes here.
            if path.parse::<PathAndQuery>().is_err() {
                assert_eq!(expected, "bad_path");
                continue;
            }
            let found = judge(&http2("http", Some("a"), path), method, &[]);
            let found = found.map_or_else(|rejection| rejection.code().to_owned(), |(_, sent)| sent);
            assert_eq!(found, expected, "{method} {path}");
        }
    }

    #[test]
    fn what_stands_below_a_path_is_as_it_was_sent() {
        for (target, below) in [
            ("/v", None),
            ("/vx", None),
            ("/v/", Some("/")),
            ("/v/a%20b/", Some("/a%20b/")),
            ("/v/../x", Some("/../x")),
            ("/%76/a/../b", Some("/b")),
            ("/v/../v/b", Some("/../v/b")),
            ("/x/../v/b", Some("/b")),
        ] {
            let uri: Uri = target.parse().unwrap();
            assert_eq!(Target::of(&uri, &Method::GET).unwrap().below("/v"), below, "{target}");
        }
    }

    #[test]
    fn an_empty_path_is_sent_as_a_slash() {
        for (target, sent) in [("http://a?b", "/?b"), ("http://a", "/"), ("http://a/?b", "/?b")] {
            let uri: Uri = target.parse().unwrap();
            assert_eq!(Target::of(&uri, &Method::GET).unwrap().to_send(None).unwrap(), sent, "{target}");
        }
    }

    #[test]
    fn prefixes_are_stripped_by_segments() {
        for (path, count, rest) in [
            ("/v1/x", 1, "/x"),
            ("/v1", 1, "/"),
            ("/v1/", 1, "/"),
            ("/a/b/c/", 2, "/c/"),
            ("/%c3%a9/x%20y", 1, "/x%20y"),
        ] {
            assert_eq!(without_segments(path, count), rest);
        }
    }
}

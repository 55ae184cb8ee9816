//! What a request asks for: host and canonical path, read from target and Host field with one meaning, or refused.

use http::header::{HOST, HeaderMap};
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

    /// Path and query as the upstream gets them: what was judged, the raw bytes where nothing was to be canonicalised.
    ///
    /// # Errors
    /// `bad_path` when the canonical path fits no request line, which no path is known to do.
    pub fn to_send(&self, strip: Option<&str>) -> Result<Uri, Rejection> {
        if strip.is_none() && self.path.is_unchanged() {
            return Ok(self.uri.path_and_query().cloned().map(Uri::from).unwrap_or_default());
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
    match uri.authority() {
        Some(authority) if !host::same_authority(&host, authority.as_str()) => {
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
    use super::*;

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

//! CORS: which pages of other origins may call, as their browsers ask. Only a true preflight goes without a token.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName, HeaderValue, ORIGIN, VARY,
};
use http::{Method, Response, StatusCode, request};

use crate::config::{self, Config};
use crate::gate::path::Path;
use crate::gate::record::{Record, Subject};
use crate::gate::{Gate, route};
use crate::message::{Body, Rejection};

/// What a page may read of a refusal.
const EXPOSED: HeaderValue = HeaderValue::from_static("Portcullis-Error, WWW-Authenticate, Retry-After, X-Request-Id");
/// Seconds for which a browser may keep the answer to a preflight.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");
const PREFLIGHT_VARIES: HeaderValue =
    HeaderValue::from_static("Origin, Access-Control-Request-Method, Access-Control-Request-Headers");

/// The policies of all routes, and of the endpoints.
pub struct Policies {
    routes: Vec<Option<Policy>>,
    endpoints: Option<Policy>,
}

impl Policies {
    /// Reads the configuration once.
    pub fn new(config: &Config) -> Self {
        Self {
            routes: config.routes.iter().map(|route| route.cors.as_ref().map(Policy::new)).collect(),
            endpoints: config.identity.cors.as_ref().map(Policy::new),
        }
    }

    /// What the answer has to tell the page that asks; `None` where no policy is set.
    pub fn judge(&self, subject: Subject, headers: &HeaderMap) -> Option<Verdict> {
        Some(self.of(subject)?.judge(headers))
    }

    fn of(&self, subject: Subject) -> Option<&Policy> {
        match subject {
            Subject::Route(index) => self.routes.get(index)?.as_ref(),
            Subject::Endpoint(_) => self.endpoints.as_ref(),
            Subject::Nothing | Subject::Verify => None,
        }
    }
}

struct Policy {
    /// `*`.
    any: bool,
    origins: Vec<HeaderValue>,
}

impl Policy {
    fn new(cors: &config::Cors) -> Self {
        let (any, named): (Vec<_>, Vec<_>) = cors.origins.iter().partition(|origin| *origin == "*");
        let origins = named.into_iter().filter_map(|origin| HeaderValue::try_from(origin).ok()).collect();
        Self { any: !any.is_empty(), origins }
    }

    fn judge(&self, headers: &HeaderMap) -> Verdict {
        let mut lines = headers.get_all(ORIGIN).iter();
        let Some(origin) = lines.next() else { return Verdict::NoPage };
        if lines.next().is_some() {
            return Verdict::Foreign;
        }
        if self.any && is_origin(origin.as_bytes()) {
            return Verdict::Allowed(HeaderValue::from_static("*"));
        }
        let known = self.origins.iter().find(|known| *known == origin);
        known.cloned().map_or(Verdict::Foreign, Verdict::Allowed)
    }
}

/// `null`, or scheme and authority (RFC 6454 section 7), as browsers write them.
fn is_origin(value: &[u8]) -> bool {
    let authority = |rest: &[u8]| {
        !rest.is_empty() && rest.iter().all(|&byte| byte.is_ascii_graphic() && !b"/\\?#@,\"<>".contains(&byte))
    };
    let scheme = |scheme: &str| scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let parts = std::str::from_utf8(value).ok().and_then(|text| text.split_once("://"));
    value == b"null" || parts.is_some_and(|(name, rest)| !name.is_empty() && scheme(name) && authority(rest.as_bytes()))
}

/// Whether the page that asks may read the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may; the value of `Access-Control-Allow-Origin`.
    Allowed(HeaderValue),
    /// It may not.
    Foreign,
    /// No page asks; a cache must not give this answer to one.
    NoPage,
}

impl Verdict {
    /// Writes it into an answer, in the place of what an upstream said of it.
    pub fn mark(&self, headers: &mut HeaderMap, refused: bool) {
        match self {
            Self::Allowed(origin) => {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
                if refused {
                    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
                }
            }
            Self::Foreign => {
                headers.remove(ACCESS_CONTROL_ALLOW_ORIGIN);
            }
            Self::NoPage => {}
        }
        if !varies_by_origin(headers) {
            headers.append(VARY, HeaderValue::from_name(ORIGIN));
        }
    }
}

fn varies_by_origin(headers: &HeaderMap) -> bool {
    let mut names = headers.get_all(VARY).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    names.any(|name| name.trim_ascii().eq_ignore_ascii_case(b"origin"))
}

/// What a preflight asks for.
struct Preflight {
    method: Method,
    headers: Option<HeaderValue>,
}

impl Preflight {
    /// `None` for what is an OPTIONS request like any other.
    fn of(head: &request::Parts) -> Option<Self> {
        if head.method != Method::OPTIONS || !head.headers.contains_key(ORIGIN) {
            return None;
        }
        let only = |name: HeaderName| {
            let mut lines = head.headers.get_all(name).iter();
            lines.next().filter(|_| lines.next().is_none())
        };
        let method = Method::from_bytes(only(ACCESS_CONTROL_REQUEST_METHOD)?.as_bytes()).ok()?;
        let headers = only(ACCESS_CONTROL_REQUEST_HEADERS).filter(|names| are_names(names.as_bytes())).cloned();
        Some(Self { method, headers })
    }

    fn answer(self, origin: &HeaderValue, methods: &str) -> Response<Body> {
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if let Ok(methods) = HeaderValue::try_from(methods) {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
        }
        if let Some(names) = self.headers {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names);
        }
        headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        headers.insert(VARY, PREFLIGHT_VARIES);
        response
    }
}

fn are_names(list: &[u8]) -> bool {
    list.split(|byte| *byte == b',').all(|name| HeaderName::from_bytes(name.trim_ascii()).is_ok())
}

impl Gate {
    /// The answer to a preflight, where a policy is set for what it asks about; `None`: a request like any other.
    ///
    /// # Errors
    /// `forbidden` for a page of another origin.
    pub(super) fn preflight(
        &self,
        head: &request::Parts,
        host: &str,
        path: &Path<'_>,
        record: &mut Record,
    ) -> Result<Option<Response<Body>>, Rejection> {
        let Some(asked) = Preflight::of(head) else { return Ok(None) };
        let subject = match (record.subject, self.table.find(host, &asked.method, path)) {
            (Subject::Nothing, Ok(found)) => Subject::Route(found.route),
            (own, _) => own,
        };
        let Some(policy) = self.cors.of(subject) else { return Ok(None) };
        record.subject = subject;
        record.cors = Some(policy.judge(&head.headers));
        let Some(Verdict::Allowed(origin)) = &record.cors else {
            return Err(Rejection::Forbidden("Pages of this origin may not call".into()));
        };
        let methods = match subject {
            Subject::Endpoint(endpoint) => endpoint.methods().to_owned(),
            _ => self.open_methods(host, path, &asked.method, &head.headers),
        };
        Ok(Some(asked.answer(origin, &methods)))
    }

    /// The methods of the path's routes that are open to the page; where every one is, that which it asks for.
    fn open_methods(&self, host: &str, path: &Path<'_>, asked: &Method, headers: &HeaderMap) -> String {
        let is_open = |route| matches!(self.cors.judge(Subject::Route(route), headers), Some(Verdict::Allowed(_)));
        let open = self.table.at(host, path).filter(|(_, route)| is_open(*route));
        let named: Option<Vec<&str>> = open.map(|(method, _)| method.map(Method::as_str)).collect();
        named.map_or_else(|| asked.as_str().to_owned(), route::allow)
    }

    /// What to tell a page of a path that has routes, but none for its request.
    pub(super) fn judge_missed(&self, host: &str, path: &Path<'_>, headers: &HeaderMap) -> Option<Verdict> {
        let verdicts = self.table.at(host, path).filter_map(|(_, at)| self.cors.judge(Subject::Route(at), headers));
        verdicts.reduce(|known, next| if known == Verdict::Foreign { next } else { known })
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn policy(origins: &[&str]) -> Policy {
        Policy::new(&config::Cors { origins: origins.iter().map(|&origin| origin.to_owned()).collect() })
    }

    #[test]
    fn origins() {
        let named = ["https://app.example.com", "http://localhost:3000"];
        for (origins, sent, expected) in [
            (&named[..], &[][..], None),
            (&named, &["https://app.example.com"], Some("https://app.example.com")),
            (&named, &["http://localhost:3000"], Some("http://localhost:3000")),
            (&named, &["http://app.example.com"], Some("")),
            (&named, &["https://app.example.com:8443"], Some("")),
            (&named, &["https://app.example.com.evil"], Some("")),
            (&named, &["https://app.example.com", "https://app.example.com"], Some("")),
            (&named, &["https://app.example.com, https://app.example.com"], Some("")),
            (&named, &["null"], Some("")),
            (&named, &[""], Some("")),
            (&["*"], &["https://any.example:1"], Some("*")),
            (&["*"], &["null"], Some("*")),
            (&["*"], &["http://[::1]:80"], Some("*")),
            (&["*"], &["https://a", "https://b"], Some("")),
            (&["*"], &["https://a, https://b"], Some("")),
            (&["*"], &["https://a b"], Some("")),
            (&["*"], &["https://a/"], Some("")),
            (&["*"], &["https://"], Some("")),
            (&["*"], &["://a"], Some("")),
            (&["*"], &["a"], Some("")),
            (&["*"], &["*"], Some("")),
            (&[], &["https://a"], Some("")),
        ] {
            let mut headers = HeaderMap::new();
            for line in sent {
                headers.append(ORIGIN, HeaderValue::from_str(line).unwrap());
            }
            let expected = match expected {
                None => Verdict::NoPage,
                Some("") => Verdict::Foreign,
                Some(value) => Verdict::Allowed(HeaderValue::from_static(value)),
            };
            assert_eq!(policy(origins).judge(&headers), expected, "{origins:?} {sent:?}");
        }
    }

    #[test]
    fn answers_are_marked() {
        let allowed = Verdict::Allowed(HeaderValue::from_static("https://a"));
        for (verdict, refused, before, after) in [
            (&allowed, false, &[][..], &["access-control-allow-origin: https://a", "vary: origin"][..]),
            (
                &allowed,
                false,
                &[("access-control-allow-origin", "*"), ("access-control-allow-origin", "x"), ("vary", "Accept")],
                &["access-control-allow-origin: https://a", "vary: Accept", "vary: origin"],
            ),
            (
                &allowed,
                false,
                &[("vary", "Accept, Origin")],
                &["access-control-allow-origin: https://a", "vary: Accept, Origin"],
            ),
            (
                &allowed,
                true,
                &[],
                &[
                    "access-control-allow-origin: https://a",
                    "access-control-expose-headers: Portcullis-Error, WWW-Authenticate, Retry-After, X-Request-Id",
                    "vary: origin",
                ],
            ),
            (&Verdict::Foreign, true, &[("access-control-allow-origin", "*")], &["vary: origin"]),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in before {
                headers.append(*name, HeaderValue::from_static(value));
            }
            verdict.mark(&mut headers, refused);
            let mut lines: Vec<_> =
                headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
            lines.sort();
            assert_eq!(lines, after, "{verdict:?} {before:?}");
        }
    }

    #[test]
    fn true_preflights() {
        const FROM: (&str, &str) = ("origin", "https://a");
        const FOR: (&str, &str) = ("access-control-request-method", "PUT");
        const NAMES: &str = "access-control-request-headers";
        for (method, fields, expected) in [
            ("OPTIONS", &[FROM, FOR][..], Some(None)),
            ("OPTIONS", &[FROM, FOR, (NAMES, "authorization, x-a")], Some(Some("authorization, x-a"))),
            ("OPTIONS", &[FROM, FOR, (NAMES, "authorization,,x-a")], Some(None)),
            ("OPTIONS", &[FROM, FOR, (NAMES, "a b")], Some(None)),
            ("OPTIONS", &[FROM, FOR, (NAMES, "a"), (NAMES, "b")], Some(None)),
            ("OPTIONS", &[FROM], None),
            ("OPTIONS", &[FOR], None),
            ("OPTIONS", &[FROM, FOR, FOR], None),
            ("OPTIONS", &[FROM, ("access-control-request-method", "P T")], None),
            ("GET", &[FROM, FOR], None),
        ] {
            let mut request = Request::builder().method(method);
            for (name, value) in fields {
                request = request.header(*name, *value);
            }
            let (head, ()) = request.body(()).unwrap().into_parts();
            let found = Preflight::of(&head).map(|asked| {
                assert_eq!(asked.method, "PUT");
                asked.headers.map(|names| names.to_str().unwrap().to_owned())
            });
            assert_eq!(found, expected.map(|names| names.map(str::to_owned)), "{method} {fields:?}");
        }
    }
}

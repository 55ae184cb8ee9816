//! gRPC's form of a refusal: HTTP 200 and trailers only, for clients that look at nothing else.

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use http::{Method, Response, Version, request};

use crate::message::rejection::MARKER;
use crate::message::{Body, Rejection};
use crate::model::ResponseStyle;

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Whether a gRPC client sent it: an HTTP/2 POST of `application/grpc` or `application/grpc+…`. gRPC-Web is not meant.
pub fn is_request(head: &request::Parts) -> bool {
    head.version == Version::HTTP_2
        && head.method == Method::POST
        && head.headers.get(CONTENT_TYPE).is_some_and(|kind| is_type(kind.as_bytes()))
}

fn is_type(kind: &[u8]) -> bool {
    const NAME: &[u8] = b"application/grpc";
    match kind.split_at_checked(NAME.len()) {
        Some((name, rest)) if name.eq_ignore_ascii_case(NAME) => {
            matches!(rest.trim_ascii_start(), [] | [b';', ..]) || rest.starts_with(b"+")
        }
        _ => false,
    }
}

impl Rejection {
    /// The answer that a gRPC client gets: the contract, section 1.
    pub fn into_grpc(self) -> Response<Body> {
        let mut response = Response::new(Body::Empty);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(STATUS, HeaderValue::from(self.grpc_status()));
        if let Ok(message) = HeaderValue::try_from(percent_encoded(&self.summary())) {
            headers.insert(MESSAGE, message);
        }
        headers.insert(MARKER, HeaderValue::from_static(self.code()));
        if let Some(challenge) = self.standard_challenge() {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }

    fn grpc_status(&self) -> u16 {
        match self.status(ResponseStyle::Standard).as_u16() {
            // DEADLINE_EXCEEDED
            504 => 4,
            // PERMISSION_DENIED
            403 => 7,
            // RESOURCE_EXHAUSTED
            413 | 429 | 431 => 8,
            // UNIMPLEMENTED
            404 | 405 => 12,
            // UNAVAILABLE
            502 | 503 => 14,
            // UNAUTHENTICATED
            401 => 16,
            // INTERNAL
            _ => 13,
        }
    }
}

/// As the gRPC protocol wants `grpc-message`: every byte outside 0x20 to 0x7E, and `%`, is encoded.
fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' | ..0x20 | 0x7f.. => out.push_str(&format!("%{byte:02X}")),
            _ => out.push(char::from(byte)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Request;
    use http_body::Body as _;

    use super::*;

    #[test]
    fn who_is_a_grpc_client() {
        for (version, method, kind, expected) in [
            (Version::HTTP_2, "POST", "application/grpc", true),
            (Version::HTTP_2, "POST", "application/grpc+proto", true),
            (Version::HTTP_2, "POST", "Application/GRPC; charset=utf-8", true),
            (Version::HTTP_2, "POST", "application/grpc ;x", true),
            (Version::HTTP_2, "POST", "application/grpc+json;x=y", true),
            (Version::HTTP_2, "POST", "application/grpc-web", false),
            (Version::HTTP_2, "POST", "application/grpc-web+proto", false),
            (Version::HTTP_2, "POST", "application/grp", false),
            (Version::HTTP_2, "POST", "application/json", false),
            (Version::HTTP_2, "GET", "application/grpc", false),
            (Version::HTTP_11, "POST", "application/grpc", false),
        ] {
            let request = Request::builder().version(version).method(method).header(CONTENT_TYPE, kind);
            let (head, ()) = request.body(()).unwrap().into_parts();
            assert_eq!(is_request(&head), expected, "{version:?} {method} {kind}");
        }
    }

    #[test]
    fn a_status_for_each_code() {
        let cause = || "inside".into();
        for (rejection, status) in [
            (Rejection::TokenMissing { other_scheme: false }, 16),
            (Rejection::TokenExpired, 16),
            (Rejection::HeaderMalformed, 16),
            (Rejection::TokenAmbiguous, 13),
            (Rejection::Forbidden("no".into()), 7),
            (Rejection::NoRoute, 12),
            (Rejection::MethodNotAllowed("GET".into()), 12),
            (Rejection::TooManyRequests(Duration::ZERO), 8),
            (Rejection::BodyTooLarge, 8),
            (Rejection::HeadersTooLarge, 8),
            (Rejection::UpstreamUnreachable(cause()), 14),
            (Rejection::Unavailable(cause()), 14),
            (Rejection::NoUpstream { retry_after: Duration::ZERO }, 14),
            (Rejection::UpstreamTimeout(cause()), 4),
            (Rejection::BadPath("x".into()), 13),
            (Rejection::Internal(cause()), 13),
        ] {
            let (code, challenged) = (rejection.code(), matches!(status, 16 | 7));
            let response = rejection.into_grpc();
            let headers = response.headers();
            assert_eq!(response.status(), 200, "{code}");
            assert_eq!(headers["grpc-status"], status.to_string().as_str(), "{code}");
            assert_eq!(headers["portcullis-error"], code);
            assert_eq!(headers.contains_key(WWW_AUTHENTICATE), challenged, "{code}");
            assert!(response.body().is_end_stream() && !headers["grpc-message"].is_empty(), "{code}");
        }
    }

    #[test]
    fn messages_are_encoded() {
        for (text, encoded) in [("a b", "a b"), ("100%", "100%25"), ("\u{e9}\n~", "%C3%A9%0A~")] {
            assert_eq!(percent_encoded(text), encoded);
        }
    }
}

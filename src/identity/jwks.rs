//! GET /.well-known/jwks.json: the public keys, by which others verify our tokens themselves.

use bytes::Bytes;
use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};

use crate::identity::Identity;
use crate::message::Body;

impl Identity {
    pub(super) fn jwks(&self) -> Response<Body> {
        let mut response = Response::new(Body::Full(Bytes::from(self.sessions.jwks())));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // Shorter than a standby is published before it signs.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=600"));
        response
    }
}

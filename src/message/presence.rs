//! One look at the names of a header section, for fields that every request is asked for and few have: a look-up of each
//! would cost a hash.

use http::HeaderMap;

/// Which of these fields stand in a header section, once or more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Presence {
    /// `Connection`.
    pub connection: bool,
    /// `Upgrade`.
    pub upgrade: bool,
    /// `X-Request-Id`.
    pub request_id: bool,
    /// `traceparent`.
    pub traceparent: bool,
}

impl Presence {
    /// Of the fields in `headers`.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        for name in headers.keys() {
            match name.as_str() {
                "upgrade" => found.upgrade = true,
                "connection" => found.connection = true,
                "traceparent" => found.traceparent = true,
                "x-request-id" => found.request_id = true,
                _ => {}
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use http::header::HeaderValue;

    use super::*;

    #[test]
    fn each_field_is_seen_whatever_stands_beside_it() {
        let wanted = |name: &str| Presence {
            connection: name == "connection",
            upgrade: name == "upgrade",
            request_id: name == "x-request-id",
            traceparent: name == "traceparent",
        };
        for name in ["connection", "upgrade", "x-request-id", "traceparent", "x-request-ids", "host"] {
            let mut headers = HeaderMap::new();
            headers.append("accept", HeaderValue::from_static("*/*"));
            headers.append(HeaderName::try_from(name.to_uppercase()).unwrap(), HeaderValue::from_static(""));
            headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::from_static("a"));
            assert_eq!(Presence::of(&headers), wanted(name), "{name}");
        }
    }
}

//! The credential of a request: the one Bearer token (RFC 6750 section 2.1), or why there is none.
//!
//! Scripts in browsers cannot set Authorization when they open a WebSocket. Where a route says so, the token may stand in
//! `Sec-WebSocket-Protocol: bearer, <jwt>` instead.

use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, request};

use crate::message::Rejection;

/// Where the credential of a request stands.
pub struct Given<'a> {
    headers: &'a HeaderMap,
    /// What Authorization would be.
    protocol: Option<HeaderValue>,
}

impl<'a> Given<'a> {
    /// In `Authorization`.
    pub fn in_header(headers: &'a HeaderMap) -> Self {
        Self { headers, protocol: None }
    }

    /// In `Sec-WebSocket-Protocol`, when a WebSocket is asked for and that names `bearer`; else in `Authorization`.
    ///
    /// # Errors
    /// `token_ambiguous` for both or several, `token_malformed` when no token follows.
    pub fn in_header_or_protocol(head: &'a request::Parts) -> Result<Self, Rejection> {
        let protocol = if asks_for_websocket(head) { protocol_token(&head.headers)? } else { None };
        Ok(Self { headers: &head.headers, protocol })
    }

    /// Whether it stands in `Sec-WebSocket-Protocol`.
    pub fn is_in_protocol(&self) -> bool {
        self.protocol.is_some()
    }

    /// The only field, as `Authorization` would have it.
    ///
    /// # Errors
    /// Those of [`field`].
    pub fn field(&self) -> Result<&HeaderValue, Rejection> {
        self.protocol.as_ref().map_or_else(|| field(self.headers), Ok)
    }
}

fn asks_for_websocket(head: &request::Parts) -> bool {
    head.method == Method::GET
        && only(&head.headers, &UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
        && only(&head.headers, &SEC_WEBSOCKET_VERSION).is_some_and(|value| value == "13")
}

/// The value of a field that stands once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

/// Whether an item of Sec-WebSocket-Protocol says that the token follows.
pub fn is_scheme(item: &[u8]) -> bool {
    item.eq_ignore_ascii_case(b"bearer")
}

/// What Authorization would be for the list item that follows `bearer`.
fn protocol_token(headers: &HeaderMap) -> Result<Option<HeaderValue>, Rejection> {
    let malformed = || Rejection::TokenMalformed("Sec-WebSocket-Protocol must be: bearer, <JWT>".into());
    let lines = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let mut items = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    if !items.any(is_scheme) {
        return Ok(None);
    }
    let token = items.next();
    if headers.contains_key(AUTHORIZATION) || token.is_some_and(is_scheme) || items.any(is_scheme) {
        return Err(Rejection::TokenAmbiguous);
    }
    let token = token.and_then(|token| std::str::from_utf8(token).ok()).filter(|token| is_token(token));
    let field = HeaderValue::try_from(format!("Bearer {}", token.ok_or_else(malformed)?));
    field.map(Some).map_err(|_| malformed())
}

/// The only `Authorization` field.
///
/// # Errors
/// `token_missing` without one, `token_ambiguous` for several.
pub fn field(headers: &HeaderMap) -> Result<&HeaderValue, Rejection> {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    match (fields.next(), fields.next()) {
        (Some(field), None) => Ok(field),
        (None, _) => Err(Rejection::TokenMissing { other_scheme: false }),
        (Some(_), Some(_)) => Err(Rejection::TokenAmbiguous),
    }
}

/// The token of a field; the scheme is matched without regard to case. One or more spaces stand between the two (RFC 6750
/// section 2.1), no tab: white space before the scheme and after the token is OWS.
///
/// # Errors
/// `token_missing` for another scheme, `token_ambiguous` for more than one credential, `token_malformed` for anything
/// that is no `Bearer <JWT>`.
pub fn token(field: &HeaderValue) -> Result<&str, Rejection> {
    let field = field.to_str().map_err(|_| Rejection::HeaderMalformed)?.trim_matches([' ', '\t']);
    let (scheme, rest) = field.split_once([' ', '\t']).unwrap_or((field, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        // "Bearer x, Basic y" and "Basic y, Bearer x" are two credentials; a comma inside one of another scheme is not.
        let joined = rest.split(',').skip(1).any(|part| begins_with_bearer(part.trim_start()));
        return Err(if joined { Rejection::TokenAmbiguous } else { Rejection::TokenMissing { other_scheme: true } });
    }
    if rest.contains(',') && rest.split(',').all(is_credential) {
        return Err(Rejection::TokenAmbiguous);
    }
    let separator_is_tab = field.get(scheme.len()..).is_some_and(|behind| behind.starts_with('\t'));
    let token = rest.trim_start_matches(' ');
    if token.is_empty() || separator_is_tab || token.contains([' ', '\t', ',']) {
        return Err(Rejection::HeaderMalformed);
    }
    Ok(token)
}

/// Whether one part of a comma-joined field could be a token, with or without its scheme.
fn is_credential(part: &str) -> bool {
    let part = part.trim_matches([' ', '\t']);
    let token = part.split_once([' ', '\t']).map_or(part, |(_, token)| token.trim_start_matches([' ', '\t']));
    is_token(token)
}

/// Whether it has the characters of a token (RFC 9110, token68).
fn is_token(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    !text.is_empty() && text.bytes().all(fits)
}

fn begins_with_bearer(text: &str) -> bool {
    text.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer"))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn protocol(method: &str, fields: &[(&str, &str)]) -> String {
        let mut request = Request::builder().method(method);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        let given = Given::in_header_or_protocol(&head);
        let found = given.and_then(|given| given.field().and_then(token).map(str::to_owned));
        found.unwrap_or_else(|rejection| rejection.code().to_owned())
    }

    #[test]
    fn a_token_in_the_protocol() {
        const UP: (&str, &str) = ("upgrade", "WebSocket");
        const V13: (&str, &str) = ("sec-websocket-version", "13");
        const NAME: &str = "sec-websocket-protocol";
        for (fields, expected) in [
            (&[UP, V13, (NAME, "bearer, a.b.c")][..], "a.b.c"),
            (&[UP, V13, (NAME, "chat,bearer ,\ta.b.c , superchat")], "a.b.c"),
            (&[UP, V13, (NAME, "chat, bearer"), (NAME, "a.b.c")], "a.b.c"),
            (&[UP, V13, (NAME, "chat")], "token_missing"),
            (&[UP, V13, (NAME, "Bearer, a.b.c")], "a.b.c"),
            (&[UP, V13, (NAME, "bearer a.b.c")], "token_missing"),
            (&[UP, V13, (NAME, "bearer")], "token_malformed"),
            (&[UP, V13, (NAME, "a.b.c, bearer")], "token_malformed"),
            (&[UP, V13, (NAME, "bearer,,a.b.c")], "token_malformed"),
            (&[UP, V13, (NAME, "bearer, a b")], "token_malformed"),
            (&[UP, V13, (NAME, "bearer, bearer")], "token_ambiguous"),
            (&[UP, V13, (NAME, "Bearer, x, bearer, a.b.c")], "token_ambiguous"),
            (&[UP, V13, (NAME, "bearer, a.b.c, bearer, d.e.f")], "token_ambiguous"),
            (&[UP, V13, (NAME, "bearer, a.b.c"), (NAME, "bearer")], "token_ambiguous"),
            (&[UP, V13, (NAME, "bearer, a.b.c"), ("authorization", "Bearer a.b.c")], "token_ambiguous"),
            (&[UP, V13, (NAME, "bearer, a.b.c"), ("authorization", "Basic dTpw")], "token_ambiguous"),
            (&[UP, V13, (NAME, "chat"), ("authorization", "Bearer d.e.f")], "d.e.f"),
            (&[UP, (NAME, "bearer, a.b.c")], "token_missing"),
            (&[V13, (NAME, "bearer, a.b.c")], "token_missing"),
            (&[UP, ("sec-websocket-version", "8"), (NAME, "bearer, a.b.c")], "token_missing"),
            (&[UP, UP, V13, (NAME, "bearer, a.b.c")], "token_missing"),
            (&[("upgrade", "h2c"), V13, (NAME, "bearer, a.b.c")], "token_missing"),
        ] {
            assert_eq!(protocol("GET", fields), expected, "{fields:?}");
        }
        assert_eq!(protocol("POST", &[UP, V13, (NAME, "bearer, a.b.c")]), "token_missing");
    }

    fn code(fields: &[&str]) -> &'static str {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(AUTHORIZATION, HeaderValue::from_str(field).unwrap());
        }
        field(&headers).and_then(token).map_or_else(|rejection| rejection.code(), |_| "good")
    }

    #[test]
    fn one_bearer_or_a_reason() {
        for (fields, expected) in [
            (&[][..], "token_missing"),
            (&["Bearer a.b.c"], "good"),
            (&["bEARER   a.b.c "], "good"),
            (&["Basic dTpw"], "token_missing"),
            (&["Digest a=\"b\", c=\"d\""], "token_missing"),
            (&["Bearer"], "token_malformed"),
            (&["Bearer "], "token_malformed"),
            (&["\tBearer a.b.c\t"], "good"),
            (&["Bearer\ta.b.c"], "token_malformed"),
            (&["Bearer \ta.b.c"], "token_malformed"),
            (&["Bearer\t a.b.c"], "token_malformed"),
            (&["Bearer\ta.b.c, Bearer d.e.f"], "token_ambiguous"),
            (&["Bearer a b"], "token_malformed"),
            (&["Bearer a.b.c, Bearer d.e.f"], "token_ambiguous"),
            (&["Bearer a.b.c,d.e.f"], "token_ambiguous"),
            (&["Basic dTpw, Bearer a.b.c"], "token_ambiguous"),
            (&["Bearer {\"payload\":\"a\",\"signature\":\"b\"}"], "token_malformed"),
            (&["Bearer a.b.c,"], "token_malformed"),
            (&["Bearer a.b.c", "Bearer a.b.c"], "token_ambiguous"),
            (&["Basic dTpw", "Bearer a.b.c"], "token_ambiguous"),
        ] {
            assert_eq!(code(fields), expected, "{fields:?}");
        }
    }
}

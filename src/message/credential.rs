//! The credential of a request: the one Bearer token (RFC 6750 section 2.1), or why there is none.

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};

use crate::message::Rejection;

/// The longest token, in bytes.
pub const MAX_TOKEN: usize = 8 * 1024;

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

/// The token of a field; the scheme is matched without regard to case.
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
    let token = rest.trim_matches([' ', '\t']);
    if token.contains(',') && token.split(',').all(is_credential) {
        return Err(Rejection::TokenAmbiguous);
    }
    if token.is_empty() || token.contains([' ', '\t', ',']) {
        return Err(Rejection::HeaderMalformed);
    }
    if token.len() > MAX_TOKEN {
        return Err(Rejection::TokenMalformed("Token is larger than 8 KiB".into()));
    }
    Ok(token)
}

/// Whether one part of a comma-joined field could be a token, with or without its scheme.
fn is_credential(part: &str) -> bool {
    let part = part.trim_matches([' ', '\t']);
    let token = part.split_once([' ', '\t']).map_or(part, |(_, token)| token.trim_start_matches([' ', '\t']));
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    !token.is_empty() && token.bytes().all(fits)
}

fn begins_with_bearer(text: &str) -> bool {
    text.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer"))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(code(&[&format!("Bearer {}", "a".repeat(MAX_TOKEN + 1))]), "token_malformed");
    }
}

//! The closed list of refusals: what each says to the client, in both response styles, and what it tells the log.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use serde_json::json;

use crate::message::{Body, Cause};
use crate::model::{ResponseStyle, UsernameError};

/// Marks every answer that is the gateway's own refusal, so that a client can tell it from the upstream's.
pub const MARKER: HeaderName = HeaderName::from_static("portcullis-error");

/// A refusal. The variants are the rows of the contract's table, section 1.
#[derive(Debug)]
pub enum Rejection {
    /// A field of the body is absent, null or empty.
    FieldMissing(&'static str),
    /// The body is no JSON object or form, or a field is no text.
    MalformedBody(Cow<'static, str>),
    /// The body is of a type that is not read here; the types that are.
    UnsupportedMediaType(&'static str),
    /// The rule that the chosen name broke.
    InvalidUsername(UsernameError),
    /// The rule that the chosen password broke.
    WeakPassword(Cow<'static, str>),
    /// The name is taken.
    UserExists(String),
    /// Name and password do not belong together; `unknown` is the name when there is no such account.
    WrongCredentials {
        /// Told to clients in flask mode only.
        unknown: Option<String>,
    },
    /// No credential.
    TokenMissing {
        /// There was an Authorization field, of another scheme.
        other_scheme: bool,
    },
    /// The Authorization field has no form `Bearer <JWT>`.
    HeaderMalformed,
    /// The token cannot be read.
    TokenMalformed(Cow<'static, str>),
    /// The token was read, and is not good.
    TokenInvalid(Cow<'static, str>),
    /// Past `exp` and the leeway.
    TokenExpired,
    /// On the blocklist, or its account is gone.
    TokenRevoked,
    /// An access token was sent where a refresh token belongs, or the reverse.
    TokenWrongType {
        /// What belongs there.
        refresh: bool,
    },
    /// An ID or refresh token of another issuer, in place of its access token.
    NotAccessToken(&'static str),
    /// More than one credential.
    TokenAmbiguous,
    /// A good token that does not meet the rule; which part of it.
    Forbidden(Cow<'static, str>),
    /// Registration is closed.
    RegistrationClosed,
    /// The path has more than one reading, or none.
    BadPath(Cow<'static, str>),
    /// A field that cannot be passed on safely.
    BadHeader(Cow<'static, str>),
    /// Framing, Host or target are wrong.
    BadRequest(Cow<'static, str>),
    /// Nothing is configured for this host and path.
    NoRoute,
    /// The caller has no session of that id.
    NoSession,
    /// Something is, but not for this method; the value of `Allow`.
    MethodNotAllowed(String),
    /// More body than allowed.
    BodyTooLarge,
    /// More header section than allowed.
    HeadersTooLarge,
    /// More requests than the route, or a session, allows; how long until the next one passes.
    TooManyRequests(Duration),
    /// No connection to the upstream, or it broke.
    UpstreamUnreachable(Cause),
    /// The upstream was silent for too long.
    UpstreamTimeout(Cause),
    /// The store, or room in a queue, is missing right now.
    Unavailable(Cause),
    /// No server of the upstream is well.
    NoUpstream {
        /// When the next one may be.
        retry_after: Duration,
    },
    /// A bug, or a state that should not be.
    Internal(Cause),
}

/// What a client reads: a sentence, or a sentence about one field.
enum Text {
    Sentence(Cow<'static, str>),
    Field(&'static str, &'static str),
}

/// How long a client should wait before it asks for what is missing right now.
const RETRY: Duration = Duration::from_secs(1);

impl Rejection {
    /// The contract's code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::FieldMissing(_) => "field_missing",
            Self::MalformedBody(_) => "malformed_body",
            Self::UnsupportedMediaType(_) => "unsupported_media_type",
            Self::InvalidUsername(_) => "invalid_username",
            Self::WeakPassword(_) => "weak_password",
            Self::UserExists(_) => "user_exists",
            Self::WrongCredentials { .. } => "wrong_credentials",
            Self::TokenMissing { .. } => "token_missing",
            Self::HeaderMalformed | Self::TokenMalformed(_) => "token_malformed",
            Self::TokenInvalid(_) => "token_invalid",
            Self::TokenExpired => "token_expired",
            Self::TokenRevoked => "token_revoked",
            Self::TokenWrongType { .. } | Self::NotAccessToken(_) => "token_wrong_type",
            Self::TokenAmbiguous => "token_ambiguous",
            Self::Forbidden(_) => "forbidden",
            Self::RegistrationClosed => "registration_closed",
            Self::BadPath(_) => "bad_path",
            Self::BadHeader(_) => "bad_header",
            Self::BadRequest(_) => "bad_request",
            Self::NoRoute | Self::NoSession => "no_route",
            Self::MethodNotAllowed(_) => "method_not_allowed",
            Self::BodyTooLarge => "body_too_large",
            Self::HeadersTooLarge => "headers_too_large",
            Self::TooManyRequests(_) => "too_many_requests",
            Self::UpstreamUnreachable(_) => "upstream_unreachable",
            Self::UpstreamTimeout(_) => "upstream_timeout",
            Self::Unavailable(_) | Self::NoUpstream { .. } => "unavailable",
            Self::Internal(_) => "internal",
        }
    }

    /// The HTTP status, by style.
    pub fn status(&self, style: ResponseStyle) -> StatusCode {
        let (standard, flask) = match self {
            Self::FieldMissing(_)
            | Self::MalformedBody(_)
            | Self::InvalidUsername(_)
            | Self::WeakPassword(_)
            | Self::BadPath(_)
            | Self::BadHeader(_)
            | Self::BadRequest(_) => (400, 400),
            Self::UnsupportedMediaType(_) => (415, 415),
            Self::UserExists(_) => (409, 200),
            Self::WrongCredentials { .. } => (401, 200),
            Self::TokenMissing { .. } | Self::TokenExpired | Self::TokenRevoked => (401, 401),
            Self::HeaderMalformed
            | Self::TokenMalformed(_)
            | Self::TokenInvalid(_)
            | Self::TokenWrongType { .. }
            | Self::NotAccessToken(_) => (401, 422),
            Self::TokenAmbiguous => (400, 422),
            Self::Forbidden(_) | Self::RegistrationClosed => (403, 403),
            Self::NoRoute | Self::NoSession => (404, 404),
            Self::MethodNotAllowed(_) => (405, 405),
            Self::BodyTooLarge => (413, 413),
            Self::HeadersTooLarge => (431, 431),
            Self::TooManyRequests(_) => (429, 429),
            Self::UpstreamUnreachable(_) => (502, 502),
            Self::UpstreamTimeout(_) => (504, 504),
            Self::Unavailable(_) | Self::NoUpstream { .. } => (503, 503),
            Self::Internal(_) => (500, 500),
        };
        let status = match style {
            ResponseStyle::Standard => standard,
            ResponseStyle::Flask => flask,
        };
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The text inside: the cause, for the log. Never sent.
    pub fn cause(&self) -> Option<&Cause> {
        match self {
            Self::UpstreamUnreachable(cause)
            | Self::UpstreamTimeout(cause)
            | Self::Unavailable(cause)
            | Self::Internal(cause) => Some(cause),
            Self::FieldMissing(_)
            | Self::MalformedBody(_)
            | Self::UnsupportedMediaType(_)
            | Self::InvalidUsername(_)
            | Self::WeakPassword(_)
            | Self::UserExists(_)
            | Self::WrongCredentials { .. }
            | Self::TokenMissing { .. }
            | Self::HeaderMalformed
            | Self::TokenMalformed(_)
            | Self::TokenInvalid(_)
            | Self::TokenExpired
            | Self::TokenRevoked
            | Self::TokenWrongType { .. }
            | Self::NotAccessToken(_)
            | Self::TokenAmbiguous
            | Self::Forbidden(_)
            | Self::RegistrationClosed
            | Self::BadPath(_)
            | Self::BadHeader(_)
            | Self::BadRequest(_)
            | Self::NoRoute
            | Self::NoSession
            | Self::MethodNotAllowed(_)
            | Self::BodyTooLarge
            | Self::HeadersTooLarge
            | Self::TooManyRequests(_)
            | Self::NoUpstream { .. } => None,
        }
    }

    /// The text outside, in one line.
    pub fn summary(&self) -> String {
        match self.text(ResponseStyle::Standard) {
            Text::Sentence(sentence) => sentence.into_owned(),
            Text::Field(field, sentence) => format!("{field}: {sentence}"),
        }
    }

    fn is_about_a_token(&self) -> bool {
        self.code().starts_with("token_")
    }

    fn text(&self, style: ResponseStyle) -> Text {
        let flask = style == ResponseStyle::Flask;
        Text::Sentence(match self {
            Self::FieldMissing(field) => return Text::Field(field, "This field cannot be blank"),
            Self::UnsupportedMediaType(accepted) => format!("The body must be {accepted}").into(),
            Self::InvalidUsername(rule) => rule.to_string().into(),
            Self::UserExists(name) => format!("User {name} already exists").into(),
            Self::WrongCredentials { unknown: Some(name) } if flask => format!("User {name} doesn't exist").into(),
            Self::WrongCredentials { .. } => "Wrong credentials".into(),
            Self::TokenMissing { other_scheme: true } if flask => {
                "Missing 'Bearer' type in 'Authorization' header. Expected 'Authorization: Bearer <JWT>'".into()
            }
            Self::TokenMissing { .. } => "Missing Authorization Header".into(),
            Self::HeaderMalformed => "Bad Authorization header. Expected 'Authorization: Bearer <JWT>'".into(),
            Self::TokenExpired => "Token has expired".into(),
            Self::TokenRevoked => "Token has been revoked".into(),
            Self::TokenWrongType { refresh: true } => "Only refresh tokens are allowed".into(),
            Self::TokenWrongType { refresh: false } => "Only non-refresh tokens are allowed".into(),
            Self::NotAccessToken(text) => (*text).into(),
            Self::TokenAmbiguous => "More than one credential was sent. Send one Authorization header".into(),
            Self::RegistrationClosed => "Registration is closed".into(),
            Self::MalformedBody(text)
            | Self::WeakPassword(text)
            | Self::TokenMalformed(text)
            | Self::TokenInvalid(text)
            | Self::Forbidden(text)
            | Self::BadPath(text)
            | Self::BadHeader(text)
            | Self::BadRequest(text) => text.clone(),
            Self::NoRoute => "No route matches this host and path".into(),
            Self::NoSession => "There is no such session".into(),
            Self::MethodNotAllowed(_) => "The method is not allowed for the requested URL.".into(),
            Self::BodyTooLarge => "The body is too large".into(),
            Self::HeadersTooLarge => "The header section is too large".into(),
            Self::TooManyRequests(wait) => format!("Too many requests. Try again in {}", in_seconds(*wait)).into(),
            Self::UpstreamUnreachable(_) => "The service behind this gateway cannot be reached".into(),
            Self::UpstreamTimeout(_) => "The service behind this gateway did not answer in time".into(),
            Self::Unavailable(_) => "Not available right now. Try again shortly".into(),
            Self::NoUpstream { retry_after } => {
                format!("The service behind this gateway is down. Try again in {}", in_seconds(*retry_after)).into()
            }
            Self::Internal(_) => "Something went wrong".into(),
        })
    }

    /// The RFC 6750 challenge for a refusal that is answered with `status`.
    fn challenge(&self, status: StatusCode, text: &Text) -> Option<HeaderValue> {
        let error = match (status, self) {
            (StatusCode::UNAUTHORIZED, Self::TokenMissing { .. } | Self::WrongCredentials { .. }) => {
                return Some(HeaderValue::from_static("Bearer realm=\"portcullis\""));
            }
            (StatusCode::UNAUTHORIZED, _) => "invalid_token",
            (
                StatusCode::FORBIDDEN,
                Self::BadPath(_) | Self::BadHeader(_) | Self::BadRequest(_) | Self::HeadersTooLarge,
            ) => "invalid_request",
            (StatusCode::FORBIDDEN, _) => "insufficient_scope",
            _ => return None,
        };
        let Text::Sentence(text) = text else { return None };
        // RFC 6750 section 3: printable ASCII without quote and backslash.
        let plain: String = text.chars().filter(|c| matches!(c, ' '..='~') && !matches!(c, '"' | '\\')).collect();
        let value = format!("Bearer realm=\"portcullis\", error=\"{error}\", error_description=\"{plain}\"");
        HeaderValue::try_from(value).ok()
    }

    /// The challenge in gRPC's form, where the status stands elsewhere.
    pub(super) fn standard_challenge(&self) -> Option<HeaderValue> {
        self.challenge(self.status(ResponseStyle::Standard), &self.text(ResponseStyle::Standard))
    }

    /// How long the client is to wait, where waiting helps.
    fn wait(&self) -> Option<Duration> {
        match self {
            Self::TooManyRequests(wait) | Self::NoUpstream { retry_after: wait } => Some(*wait),
            Self::Unavailable(_) => Some(RETRY),
            _ => None,
        }
    }

    /// The answer that the client gets.
    pub fn into_response(self, style: ResponseStyle) -> Response<Body> {
        let status = self.status(style);
        self.answer(style, status)
    }

    /// The answer of /auth/verify, where a proxy understands only 401, 403 and 503. 401 is for the token alone: clients
    /// throw theirs away.
    pub fn into_verdict(self, style: ResponseStyle) -> Response<Body> {
        let status = match self.status(style) {
            status @ StatusCode::SERVICE_UNAVAILABLE => status,
            StatusCode::INTERNAL_SERVER_ERROR => StatusCode::SERVICE_UNAVAILABLE,
            _ if self.is_about_a_token() => StatusCode::UNAUTHORIZED,
            _ => StatusCode::FORBIDDEN,
        };
        self.answer(style, status)
    }

    fn answer(self, style: ResponseStyle, status: StatusCode) -> Response<Body> {
        let text = self.text(style);
        let challenge = self.challenge(status, &text);
        let message = match text {
            Text::Sentence(sentence) => json!(sentence),
            Text::Field(field, sentence) => json!({ field: sentence }),
        };
        let body = match style {
            ResponseStyle::Standard => json!({ "error": self.code(), "message": message }),
            ResponseStyle::Flask if self.is_about_a_token() => json!({ "msg": message }),
            ResponseStyle::Flask => json!({ "message": message }),
        };
        let mut response = Response::new(Body::Full(Bytes::from(body.to_string())));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(MARKER, HeaderValue::from_static(self.code()));
        if let Some(challenge) = challenge {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        if let Self::MethodNotAllowed(allow) = &self
            && let Ok(allow) = HeaderValue::try_from(allow)
        {
            headers.insert(ALLOW, allow);
        }
        if let Some(wait) = self.wait() {
            headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
        }
        response
    }
}

/// Whole seconds, rounded up, at least one: who comes earlier comes in vain.
fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

fn in_seconds(wait: Duration) -> String {
    match whole_seconds(wait) {
        1 => "1 second".to_owned(),
        seconds => format!("{seconds} seconds"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_whole_seconds() {
        for (millis, header, said) in
            [(0, "1", "1 second"), (1, "1", "1 second"), (1000, "1", "1 second"), (1001, "2", "2 seconds")]
        {
            let wait = Duration::from_millis(millis);
            for (rejection, status, code) in [
                (Rejection::TooManyRequests(wait), 429, "too_many_requests"),
                (Rejection::NoUpstream { retry_after: wait }, 503, "unavailable"),
            ] {
                assert!(rejection.summary().ends_with(&format!("in {said}")), "{}", rejection.summary());
                let response = rejection.into_response(ResponseStyle::Standard);
                assert_eq!(
                    (response.status().as_u16(), &response.headers()[RETRY_AFTER]),
                    (status, &header.parse().unwrap())
                );
                assert_eq!(response.headers()[MARKER], code);
            }
        }
    }
}

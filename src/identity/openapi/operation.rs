//! What each endpoint takes and answers, method by method.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::config::{self, IdentityHeader, IdentitySource, Registration, UsersAccess};
use crate::identity::Endpoint;
use crate::identity::openapi::responses::{Answers, Good};
use crate::identity::openapi::schema;
use crate::identity::paging::{LARGEST_PAGE, PAGE};
use crate::message::Rejection;
use crate::model::{ADMIN, ResponseStyle, UsernameError};
use crate::sessions::Refusal;

/// One method of one endpoint.
pub(super) struct Operation {
    id: &'static str,
    summary: &'static str,
    /// The security schemes of which it asks for one.
    credentials: &'static [&'static str],
    parameters: Vec<Value>,
    /// The schema of the body's fields.
    body: Option<Value>,
    good: Option<(StatusCode, Good)>,
    refusals: Vec<Rejection>,
    /// Whether it answers other proxies: 401, 403 and 503 only.
    is_verdict: bool,
}

/// What is the same for most.
const PLAIN: Operation = Operation {
    id: "",
    summary: "",
    credentials: &[],
    parameters: Vec::new(),
    body: None,
    good: None,
    refusals: Vec::new(),
    is_verdict: false,
};

impl Operation {
    /// That of an endpoint.
    pub fn of(endpoint: Endpoint, method: &str, settings: &config::Identity) -> Self {
        match endpoint {
            Endpoint::Registration => register(settings),
            Endpoint::Login => Self {
                id: "login",
                summary: "Open a session with name and password",
                body: Some(schema::fields(&[("username", schema::given()), ("password", schema::given())])),
                good: Some((StatusCode::OK, Good::Json("Pair"))),
                refusals: all([unreadable(), vec![wrong(None), wrong(Some("alice")), too_many()]]),
                ..PLAIN
            },
            Endpoint::Refresh => Self {
                id: "refresh",
                summary: "Get a new access token",
                credentials: &["refresh"],
                good: Some((
                    StatusCode::OK,
                    Good::Json(if settings.refresh_rotation.is_some() { "Renewal" } else { "Access" }),
                )),
                refusals: all([live(true), vec![too_many()]]),
                ..PLAIN
            },
            Endpoint::LogoutAccess => {
                let summary = "End this access token; one that has ended is fine";
                Self::told("logoutAccess", summary, &["access"], of_type(false))
            }
            Endpoint::LogoutRefresh => {
                let summary = "End this refresh token; one that has ended is fine";
                Self::told("logoutRefresh", summary, &["refresh"], of_type(true))
            }
            Endpoint::Logout => {
                let summary = "End the session of this token; one that has ended is fine";
                Self::told("logout", summary, &["access", "refresh"], signed())
            }
            Endpoint::LogoutAll => Self::told("logoutAll", "End all sessions", &["access"], live(false)),
            Endpoint::Sessions => Self {
                parameters: page("The `next` of the page before", &schema::cursor()),
                good: Some((StatusCode::OK, Good::Json("Sessions"))),
                refusals: all([live(false), vec![too_many()]]),
                ..Self::told("listSessions", "List the sessions that are open", &["access"], Vec::new())
            },
            Endpoint::Session => end_session(),
            Endpoint::Password => change_password(settings),
            Endpoint::Users => users(method, settings),
            Endpoint::Jwks => Self {
                id: "jwks",
                summary: "The public keys, by which others verify tokens themselves",
                good: Some((StatusCode::OK, Good::Public("Keys"))),
                ..PLAIN
            },
        }
    }

    /// One that takes nothing but a token, and says in a sentence what was done.
    fn told(
        id: &'static str,
        summary: &'static str,
        credentials: &'static [&'static str],
        refusals: Vec<Rejection>,
    ) -> Self {
        Self { id, summary, credentials, good: Some((StatusCode::OK, Good::Json("Message"))), refusals, ..PLAIN }
    }

    /// The same where tokens of others are trusted: the good ones are refused wherever a live token of ours is asked for.
    pub fn closed_to(mut self, others: &[config::Trusted]) -> Self {
        let asks = self.refusals.iter().any(|refusal| matches!(refusal, Rejection::TokenExpired));
        if let Some(other) = others.first().filter(|_| asks) {
            self.refusals.push(Refusal::Foreign(other.issuer.as_str().into()).into());
        }
        self
    }

    /// That of /auth/verify, whatever the method.
    pub fn verify(headers: &[IdentityHeader]) -> Self {
        let header = |header: &IdentityHeader| {
            let required = matches!(header.source, IdentitySource::Subject | IdentitySource::TokenId);
            (header.name.clone(), json!({ "required": required, "schema": { "type": "string" } }))
        };
        Self {
            id: "verify",
            summary: "Whether this access token is good; for a trusted proxy that sends X-Forwarded-Method, -Host and \
                      -Uri: whether that request may pass",
            credentials: &["access"],
            good: Some((StatusCode::OK, Good::Headers(headers.iter().map(header).collect()))),
            refusals: all([live(false), vec![Rejection::Forbidden("This needs one of the roles admin".into())]]),
            is_verdict: true,
            ..PLAIN
        }
    }

    /// As the document has it.
    pub fn describe(self, method: &str, style: ResponseStyle) -> Value {
        let head = method == "HEAD";
        let mut answers = Answers::new(style, head, self.is_verdict);
        if let Some((status, good)) = self.good {
            answers.add_good(status, good);
        }
        for refusal in self.refusals.into_iter().chain(everywhere()) {
            answers.add_refusal(refusal);
        }
        let id = if self.is_verdict || head {
            format!("{}_{}", self.id, method.to_ascii_lowercase())
        } else {
            self.id.into()
        };
        let mut described = Map::new();
        described.insert("operationId".into(), id.into());
        described.insert("summary".into(), self.summary.into());
        described.insert("parameters".into(), self.parameters.into());
        described.insert("responses".into(), answers.describe());
        let schemes = self.credentials.iter().map(|scheme| json!({ *scheme: [] }));
        described.insert("security".into(), schemes.collect());
        if let Some(schema) = self.body {
            described.insert("requestBody".into(), body(&schema, style));
        }
        Value::Object(described)
    }
}

fn body(schema: &Value, style: ResponseStyle) -> Value {
    let types: &[&str] = match style {
        ResponseStyle::Standard => &["application/json", "application/x-www-form-urlencoded"],
        ResponseStyle::Flask => &["application/json", "application/x-www-form-urlencoded", "multipart/form-data"],
    };
    let content: Map<String, Value> =
        types.iter().map(|kind| ((*kind).to_owned(), json!({ "schema": schema }))).collect();
    json!({ "required": true, "content": content })
}

fn register(settings: &config::Identity) -> Operation {
    let operation = Operation { id: "register", summary: "Make an account, and open its first session", ..PLAIN };
    let created = match settings.responses {
        ResponseStyle::Standard => StatusCode::CREATED,
        ResponseStyle::Flask => StatusCode::OK,
    };
    match settings.registration {
        Registration::Closed => {
            Operation { summary: "Registration is closed", refusals: vec![Rejection::RegistrationClosed], ..operation }
        }
        Registration::Open => Operation {
            body: Some(schema::fields(&[
                ("username", schema::new_username()),
                ("password", schema::new_password(&settings.password)),
            ])),
            good: Some((created, Good::Json("Pair"))),
            refusals: all([
                unreadable(),
                vec![
                    Rejection::InvalidUsername(UsernameError::Length),
                    Rejection::WeakPassword(
                        format!("A password has at least {} bytes", settings.password.min_length).into(),
                    ),
                    Rejection::UserExists("alice".into()),
                    too_many(),
                ],
            ]),
            ..operation
        },
    }
}

fn end_session() -> Operation {
    Operation {
        id: "endSession",
        summary: "End one of the own sessions",
        credentials: &["access"],
        parameters: vec![json!({
            "name": "id",
            "in": "path",
            "required": true,
            "schema": { "type": "string", "format": "uuid" },
        })],
        good: Some((StatusCode::OK, Good::Json("Message"))),
        refusals: all([live(false), vec![Rejection::NoSession, Rejection::BadPath("The path is ambiguous".into())]]),
        ..PLAIN
    }
}

fn change_password(settings: &config::Identity) -> Operation {
    let weak = format!("A password has at least {} bytes", settings.password.min_length);
    Operation {
        id: "changePassword",
        summary: "Set a new password; all sessions end, and a fresh one begins",
        credentials: &["access"],
        body: Some(schema::fields(&[
            ("old_password", schema::given()),
            ("new_password", schema::new_password(&settings.password)),
        ])),
        good: Some((StatusCode::OK, Good::Json("Pair"))),
        refusals: all([live(false), unreadable(), vec![Rejection::WeakPassword(weak.into()), wrong(None), too_many()]]),
        ..PLAIN
    }
}

fn users(method: &str, settings: &config::Identity) -> Operation {
    let (credentials, refusals) = match settings.users {
        UsersAccess::Anyone | UsersAccess::Off => (&[][..], Vec::new()),
        UsersAccess::Admin => {
            let forbidden = Rejection::Forbidden(format!("This needs the role {ADMIN}").into());
            (&["access"][..], all([live(false), vec![forbidden]]))
        }
    };
    let operation = Operation { credentials, refusals, ..PLAIN };
    if method == "DELETE" {
        let good = Some((StatusCode::OK, Good::Json("Message")));
        return Operation { id: "deleteUsers", summary: "Delete all other accounts", good, ..operation };
    }
    Operation {
        id: "listUsers",
        summary: "List accounts in the order of their names",
        parameters: page("Names after this one", &json!({ "type": "string" })),
        good: Some((StatusCode::OK, Good::Json("Users"))),
        refusals: all([operation.refusals, vec![too_many()]]),
        ..operation
    }
}

/// The parameters of a listing with pages.
fn page(description: &str, after: &Value) -> Vec<Value> {
    vec![
        json!({ "name": "after", "in": "query", "schema": after, "description": description }),
        json!({
            "name": "limit",
            "in": "query",
            "schema": { "type": "integer", "minimum": 1, "maximum": LARGEST_PAGE, "default": PAGE },
        }),
    ]
}

fn all<const N: usize>(lists: [Vec<Rejection>; N]) -> Vec<Rejection> {
    lists.into_iter().flatten().collect()
}

/// What any request may meet.
fn everywhere() -> [Rejection; 5] {
    [
        Rejection::BadRequest("The request is malformed".into()),
        Rejection::BadHeader("A field has a name that is no token, or a value with control characters".into()),
        Rejection::HeadersTooLarge,
        Rejection::Unavailable("".into()),
        Rejection::Internal("".into()),
    ]
}

/// To a body.
fn unreadable() -> Vec<Rejection> {
    vec![
        Rejection::FieldMissing("username"),
        Rejection::MalformedBody("The body is no JSON: line 1, column 1".into()),
        Rejection::UnsupportedMediaType("application/json or application/x-www-form-urlencoded"),
        Rejection::BodyTooLarge,
    ]
}

fn wrong(unknown: Option<&str>) -> Rejection {
    Rejection::WrongCredentials { unknown: unknown.map(str::to_owned) }
}

fn too_many() -> Rejection {
    Rejection::TooManyRequests(Duration::from_secs(2))
}

/// To a token that may have ended.
fn signed() -> Vec<Rejection> {
    vec![
        Rejection::TokenMissing { other_scheme: false },
        Rejection::HeaderMalformed,
        Rejection::TokenInvalid("Signature verification failed".into()),
        Rejection::TokenAmbiguous,
    ]
}

/// To one of either type.
fn of_type(refresh: bool) -> Vec<Rejection> {
    all([signed(), vec![Rejection::TokenWrongType { refresh }]])
}

/// To a token that must be good.
fn live(refresh: bool) -> Vec<Rejection> {
    all([of_type(refresh), vec![Rejection::TokenExpired, Rejection::TokenRevoked]])
}

//! The fields of a request body: JSON, a form, and in flask mode multipart, bounded and without a second meaning.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use crate::identity::Identity;
use crate::message::{self, Incoming, ReadError, Rejection};
use crate::secret::Secret;

/// The largest body, in bytes.
const LIMIT: usize = 16 * 1024;

/// What a person types to register or log in.
pub struct Credentials {
    /// `username`, not yet judged.
    pub username: String,
    /// `password`, not yet judged.
    pub password: Secret,
}

/// What was found of the two fields.
#[derive(Default)]
struct Fields {
    username: Field,
    password: Field,
}

/// A field that may stand once.
#[derive(Default)]
enum Field {
    #[default]
    Absent,
    Empty,
    Text(String),
}

impl Field {
    fn put(&mut self, text: Option<String>) -> Result<(), &'static str> {
        if !matches!(self, Self::Absent) {
            return Err("A field stands twice");
        }
        *self = text.filter(|text| !text.is_empty()).map_or(Self::Empty, Self::Text);
        Ok(())
    }

    fn require(self, name: &'static str) -> Result<String, Rejection> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Absent | Self::Empty => Err(Rejection::FieldMissing(name)),
        }
    }
}

impl Fields {
    /// The field called `name`; others are nobody's business.
    fn of(&mut self, name: &str) -> Option<&mut Field> {
        match name {
            "username" => Some(&mut self.username),
            "password" => Some(&mut self.password),
            _ => None,
        }
    }
}

impl Identity {
    /// Reads `username` and `password`.
    pub(super) async fn credentials(&self, headers: &HeaderMap, body: Incoming) -> Result<Credentials, Rejection> {
        let bytes = message::read(body, LIMIT, self.timeouts.body).await.map_err(unread)?;
        let fields = self.parse(headers, bytes).await?;
        let username = fields.username.require("username")?;
        let password = Secret::new(fields.password.require("password")?);
        Ok(Credentials { username, password })
    }

    async fn parse(&self, headers: &HeaderMap, body: Bytes) -> Result<Fields, Rejection> {
        if body.is_empty() {
            return Ok(Fields::default());
        }
        let accepted = if self.is_flask() {
            "application/json, application/x-www-form-urlencoded or multipart/form-data"
        } else {
            "application/json or application/x-www-form-urlencoded"
        };
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/json" => from_json(&body),
            "application/x-www-form-urlencoded" => from_form(&body),
            "multipart/form-data" if self.is_flask() => from_multipart(content_type, body).await,
            _ => Err(Rejection::UnsupportedMediaType(accepted)),
        }
    }
}

fn unread(error: ReadError) -> Rejection {
    match error {
        ReadError::TooLarge(_) => Rejection::BodyTooLarge,
        ReadError::Silent(_) => Rejection::BadRequest("The request body did not arrive in time".into()),
        ReadError::Broken(_) => Rejection::BadRequest("The request body is malformed".into()),
    }
}

fn malformed(text: impl Into<Cow<'static, str>>) -> Rejection {
    Rejection::MalformedBody(text.into())
}

fn from_json(body: &[u8]) -> Result<Fields, Rejection> {
    serde_json::from_slice(body).map_err(|error| {
        // serde's text would quote what was sent; only its place is told.
        if error.is_data() {
            malformed("The body must be one JSON object whose username and password are text, each given once")
        } else {
            malformed(format!("The body is no JSON: line {}, column {}", error.line(), error.column()))
        }
    })
}

fn from_form(body: &[u8]) -> Result<Fields, Rejection> {
    let mut fields = Fields::default();
    let decoded = |text: Cow<'_, str>| {
        // The decoder writes U+FFFD for what is no UTF-8: two passwords must not become one.
        if text.contains('\u{fffd}') { Err(malformed("The form is not valid UTF-8")) } else { Ok(text.into_owned()) }
    };
    for (name, value) in form_urlencoded::parse(body) {
        if let Some(field) = fields.of(&name) {
            field.put(Some(decoded(value)?)).map_err(malformed)?;
        }
    }
    Ok(fields)
}

async fn from_multipart(content_type: &str, body: Bytes) -> Result<Fields, Rejection> {
    let broken = |_| malformed("The body is no multipart/form-data");
    let boundary = multer::parse_boundary(content_type).map_err(broken)?;
    let stream = http_body_util::BodyDataStream::new(http_body_util::Full::new(body));
    let mut parts = multer::Multipart::new(stream, boundary);
    let mut fields = Fields::default();
    while let Some(part) = parts.next_field().await.map_err(broken)? {
        let name = part.name().unwrap_or_default().to_owned();
        let value = part.bytes().await.map_err(broken)?;
        if let Some(field) = fields.of(&name) {
            let text = String::from_utf8(value.to_vec()).map_err(|_| malformed("The form is not valid UTF-8"))?;
            field.put(Some(text)).map_err(malformed)?;
        }
    }
    Ok(fields)
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Fields, A::Error> {
        let mut fields = Fields::default();
        while let Some(name) = access.next_key::<String>()? {
            match fields.of(&name) {
                Some(field) => field.put(access.next_value()?).map_err(A::Error::custom)?,
                None => {
                    access.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(fields)
    }
}

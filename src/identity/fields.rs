//! The fields of a request body: JSON, a form, and in flask mode multipart, bounded and without a second meaning.

use std::borrow::Cow;
use std::fmt;
use std::string::FromUtf8Error;

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use percent_encoding::percent_decode;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use crate::identity::Identity;
use crate::message::{IncomingBody, ReadError, Rejection};
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

/// What a person types to change a password.
pub struct Passwords {
    /// `old_password`, not yet judged.
    pub old: Secret,
    /// `new_password`, not yet judged.
    pub new: Secret,
}

/// What was found of two fields.
struct Fields {
    names: [&'static str; 2],
    values: [Field; 2],
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
    fn new(names: [&'static str; 2]) -> Self {
        Self { names, values: Default::default() }
    }

    /// The field called `name`; others are nobody's business.
    fn of(&mut self, name: &str) -> Option<&mut Field> {
        self.names.into_iter().zip(&mut self.values).find(|(known, _)| *known == name).map(|(_, field)| field)
    }

    /// Both texts.
    fn require(self) -> Result<[String; 2], Rejection> {
        let ([first, second], [one, two]) = (self.names, self.values);
        Ok([one.require(first)?, two.require(second)?])
    }
}

impl Identity {
    /// Reads `username` and `password`.
    pub(super) async fn credentials(&self, headers: &HeaderMap, body: IncomingBody) -> Result<Credentials, Rejection> {
        let [username, password] = self.texts(["username", "password"], headers, body).await?;
        Ok(Credentials { username, password: Secret::new(password) })
    }

    /// Reads `old_password` and `new_password`.
    pub(super) async fn passwords(&self, headers: &HeaderMap, body: IncomingBody) -> Result<Passwords, Rejection> {
        let [old, new] = self.texts(["old_password", "new_password"], headers, body).await?;
        Ok(Passwords { old: Secret::new(old), new: Secret::new(new) })
    }

    async fn texts(
        &self,
        names: [&'static str; 2],
        headers: &HeaderMap,
        body: IncomingBody,
    ) -> Result<[String; 2], Rejection> {
        let bytes = body.read(LIMIT, self.timeouts.body).await.map_err(unread)?;
        self.parse(Fields::new(names), headers, bytes).await?.require()
    }

    async fn parse(&self, fields: Fields, headers: &HeaderMap, body: Bytes) -> Result<Fields, Rejection> {
        if body.is_empty() {
            return Ok(fields);
        }
        let accepted = if self.is_flask() {
            "application/json, application/x-www-form-urlencoded or multipart/form-data"
        } else {
            "application/json or application/x-www-form-urlencoded"
        };
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/json" => from_json(fields, &body),
            "application/x-www-form-urlencoded" if !self.is_flask() && body.starts_with(b"{") => {
                Err(malformed("The body looks like JSON: send it with content-type: application/json"))
            }
            "application/x-www-form-urlencoded" => from_form(fields, &body),
            "multipart/form-data" if self.is_flask() => from_multipart(fields, content_type, body).await,
            _ => Err(Rejection::UnsupportedMediaType(accepted)),
        }
    }
}

fn unread(error: ReadError) -> Rejection {
    match error {
        ReadError::TooLarge(_) => Rejection::BodyTooLarge,
        ReadError::Late(_) => Rejection::BadRequest("The request body did not arrive in time".into()),
        ReadError::Broken(_) => Rejection::BadRequest("The request body is malformed".into()),
    }
}

fn malformed(text: impl Into<Cow<'static, str>>) -> Rejection {
    Rejection::MalformedBody(text.into())
}

fn from_json(fields: Fields, body: &[u8]) -> Result<Fields, Rejection> {
    let [first, second] = fields.names;
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let read = fields.deserialize(&mut deserializer).and_then(|fields| deserializer.end().map(|()| fields));
    read.map_err(|error| {
        // serde's text would quote what was sent; only its place is told.
        if error.is_data() {
            malformed(format!("The body must be one JSON object whose {first} and {second} are text, each given once"))
        } else {
            malformed(format!("The body is no JSON: line {}, column {}", error.line(), error.column()))
        }
    })
}

fn from_form(mut fields: Fields, body: &[u8]) -> Result<Fields, Rejection> {
    for pair in body.split(|byte| *byte == b'&') {
        let mut halves = pair.splitn(2, |byte| *byte == b'=').map(unescape);
        let name = halves.next().and_then(Result::ok).unwrap_or_default();
        if let Some(field) = fields.of(&name) {
            let value = halves.next().transpose().map_err(|_| malformed("The form is not valid UTF-8"))?;
            field.put(Some(value.unwrap_or_default())).map_err(malformed)?;
        }
    }
    Ok(fields)
}

/// A name or value of a form, decoded. Nothing takes the place of what is no UTF-8: two passwords must not become one.
fn unescape(text: &[u8]) -> Result<String, FromUtf8Error> {
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    String::from_utf8(percent_decode(&spaced).collect())
}

async fn from_multipart(mut fields: Fields, content_type: &str, body: Bytes) -> Result<Fields, Rejection> {
    let broken = |_| malformed("The body is no multipart/form-data");
    let boundary = multer::parse_boundary(content_type).map_err(broken)?;
    let stream = http_body_util::BodyDataStream::new(http_body_util::Full::new(body));
    let mut parts = multer::Multipart::new(stream, boundary);
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

impl<'de> DeserializeSeed<'de> for Fields {
    type Value = Self;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut access: A) -> Result<Self, A::Error> {
        while let Some(name) = access.next_key::<String>()? {
            match self.of(&name) {
                Some(field) => field.put(access.next_value()?).map_err(A::Error::custom)?,
                None => {
                    access.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(self)
    }
}

//! The claims of a token, typed: what flask-jwt-extended writes, and `sid`, `gen`, `roles`, `iss`, `aud`.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::clock::UnixTime;
use crate::model::{Generation, Role, SessionId, TokenId};
use crate::tokens::Error;

/// `type`: what a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenType {
    /// Opens routes.
    Access,
    /// Gets new access tokens.
    Refresh,
}

impl TokenType {
    /// As it stands in a token.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Refresh => "refresh",
        }
    }
}

/// `fresh`: whether the password was typed for this very token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fresh {
    /// Always or never.
    Flag(bool),
    /// Until then (flask-jwt-extended writes a NumericDate when it was asked to).
    Until(UnixTime),
}

/// A moment to judge a token by, and the allowed difference of clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The present.
    pub now: UnixTime,
    /// How far the clock of another may be off.
    pub leeway: Duration,
}

/// A token that is about to be signed.
pub struct New<'a> {
    /// `type`.
    pub kind: TokenType,
    /// `sub`.
    pub subject: &'a str,
    /// `jti`.
    pub token: &'a TokenId,
    /// `sid`.
    pub session: Option<&'a SessionId>,
    /// `gen`.
    pub generation: Generation,
    /// `roles`.
    pub roles: &'a [Role],
    /// `fresh`.
    pub fresh: bool,
    /// `iat` and `nbf`.
    pub issued: UnixTime,
    /// `exp`.
    pub expires: UnixTime,
}

/// The claims of one token whose signature was good.
#[derive(Clone, Debug)]
pub struct Claims {
    /// `sub`: the username.
    pub subject: Arc<str>,
    /// `jti`.
    pub token: TokenId,
    /// `type`.
    pub kind: TokenType,
    /// `exp`.
    pub expires: UnixTime,
    /// `nbf`.
    pub not_before: Option<UnixTime>,
    /// `iat`.
    pub issued: Option<UnixTime>,
    /// `fresh`; absent counts as not fresh.
    pub fresh: Fresh,
    /// `sid`; absent in tokens of other services.
    pub session: Option<SessionId>,
    /// `gen`; absent in tokens of other services.
    pub generation: Option<Generation>,
    /// `roles`.
    pub roles: Vec<Role>,
    /// Whose token it is, of the issuers of `tokens.trusted`; `None`: one of ours.
    pub issuer: Option<Arc<str>>,
    /// Every claim as it was written, for rules and headers.
    pub all: Map<String, Value>,
}

impl Claims {
    /// Reads the payload of a token; the contract, section 2, says what must be there.
    ///
    /// # Errors
    /// [`Error::Claim`], naming the first claim that does not fit.
    pub fn from_object(all: Map<String, Value>) -> Result<Self, Error> {
        let get = |name: &str| all.get(name).and_then(Value::as_str);
        let expires = moment(&all, "exp", "exp must be a number")?.ok_or(Error::Claim("Token has no exp claim"))?;
        let subject = text(get("sub"), Error::Claim("sub must be text"))?;
        let kind = match get("type").ok_or(Error::Claim("Token has no type claim"))? {
            "access" => TokenType::Access,
            "refresh" => TokenType::Refresh,
            _ => return Err(Error::Claim("type is neither access nor refresh")),
        };
        let token = get("jti").ok_or(Error::Claim("jti must be text"))?;
        if token.is_empty() {
            return Err(Error::Claim("jti is empty"));
        }
        Ok(Self {
            subject: subject.into(),
            token: TokenId::new(token),
            kind,
            expires,
            not_before: moment(&all, "nbf", "nbf must be a number")?,
            issued: moment(&all, "iat", "iat must be a number")?,
            fresh: fresh(&all)?,
            session: session(&all)?,
            generation: generation(&all)?,
            roles: roles(&all)?,
            issuer: None,
            all,
        })
    }

    /// Whether the token is good at this moment: exp, nbf and iat with leeway.
    ///
    /// # Errors
    /// [`Error::Expired`], or [`Error::Claim`] for a token from the future.
    pub fn check_time(&self, at: Moment) -> Result<(), Error> {
        if self.has_expired(at) {
            return Err(Error::Expired);
        }
        if self.not_before.is_some_and(|begin| begin > at.now + at.leeway) {
            return Err(Error::Claim("The token is not yet valid (nbf)"));
        }
        if self.issued.is_some_and(|issued| issued > at.now + at.leeway) {
            return Err(Error::Claim("The token is not yet valid (iat)"));
        }
        Ok(())
    }

    /// Whether `exp` and the leeway are over. RFC 7519 4.1.4: "on or after" counts as over.
    pub fn has_expired(&self, at: Moment) -> bool {
        self.expires + at.leeway <= at.now
    }

    /// Whether the password was typed for this token, and not too long ago.
    pub fn is_fresh(&self, now: UnixTime) -> bool {
        match self.fresh {
            Fresh::Flag(fresh) => fresh,
            Fresh::Until(end) => now < end,
        }
    }

    /// The claim of that name, or at the end of that path.
    pub fn find(&self, path: &str) -> Option<&Value> {
        find(&self.all, path)
    }

    /// Whether the claim at `path` is `wanted`, or an array that holds it.
    pub fn has(&self, path: &str, wanted: &Value) -> bool {
        match self.find(path) {
            Some(Value::Array(values)) => values.contains(wanted),
            Some(value) => value == wanted,
            None => false,
        }
    }

    /// Whether `scope` or `scp` holds this scope: as a word, or as an item of an array.
    pub fn has_scope(&self, wanted: &str) -> bool {
        ["scope", "scp"].into_iter().filter_map(|name| self.all.get(name)).any(|value| match value {
            Value::String(words) => words.split(' ').any(|word| word == wanted),
            Value::Array(values) => values.iter().any(|value| value.as_str() == Some(wanted)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
        })
    }
}

/// The claim at `path`: names with dots between. At each step the longest name that exists is taken, because many names
/// have dots themselves.
pub(super) fn find<'a>(all: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let (mut object, mut rest) = (all, path);
    loop {
        if let Some(value) = object.get(rest) {
            return Some(value);
        }
        let mut splits = rest.rmatch_indices('.').filter_map(|(dot, _)| Some((rest.get(..dot)?, rest.get(dot + 1..)?)));
        let (value, after) = splits.find_map(|(name, after)| Some((object.get(name)?, after)))?;
        (object, rest) = (value.as_object()?, after);
    }
}

/// Text that names somebody or something: neither empty nor with control characters; `error` where there is none.
pub(super) fn text(value: Option<&str>, error: Error) -> Result<&str, Error> {
    let text = value.ok_or(error)?;
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(Error::Claim("sub is empty or holds control characters"));
    }
    Ok(text)
}

pub(super) fn moment(all: &Map<String, Value>, name: &str, wrong: &'static str) -> Result<Option<UnixTime>, Error> {
    match all.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => {
            let seconds = number.as_f64().filter(|n| n.is_finite()).ok_or(Error::Claim(wrong))?;
            #[expect(clippy::cast_possible_truncation, reason = "a float cast saturates, and that is what is wanted")]
            let millis = (seconds * 1000.0) as i64;
            Ok(Some(UnixTime::from_millis(millis)))
        }
        Some(_) => Err(Error::Claim(wrong)),
    }
}

fn fresh(all: &Map<String, Value>) -> Result<Fresh, Error> {
    match all.get("fresh") {
        None => Ok(Fresh::Flag(false)),
        Some(Value::Bool(fresh)) => Ok(Fresh::Flag(*fresh)),
        Some(_) => {
            let wrong = "fresh must be true, false or a number";
            moment(all, "fresh", wrong)?.map(Fresh::Until).ok_or(Error::Claim(wrong))
        }
    }
}

pub(super) fn session(all: &Map<String, Value>) -> Result<Option<SessionId>, Error> {
    match all.get("sid") {
        None => Ok(None),
        Some(Value::String(sid)) if !sid.is_empty() => Ok(Some(SessionId::new(sid.as_str()))),
        Some(_) => Err(Error::Claim("sid must be text")),
    }
}

fn generation(all: &Map<String, Value>) -> Result<Option<Generation>, Error> {
    let Some(value) = all.get("gen") else { return Ok(None) };
    let number = value.as_u64().and_then(|n| u32::try_from(n).ok());
    number.map(|n| Some(Generation(n))).ok_or(Error::Claim("gen must be a whole number"))
}

fn roles(all: &Map<String, Value>) -> Result<Vec<Role>, Error> {
    const WRONG: Error = Error::Claim("roles must be an array of [A-Za-z0-9_.:-]{1,64}");
    match all.get("roles") {
        None => Ok(Vec::new()),
        Some(Value::Array(roles)) => {
            roles.iter().map(|role| role.as_str().and_then(|text| Role::parse(text).ok()).ok_or(WRONG)).collect()
        }
        Some(_) => Err(WRONG),
    }
}

/// The claims of a token that is about to be signed, in the order in which flask-jwt-extended writes them.
pub fn to_object(new: &New<'_>, issuer: Option<&str>, audience: Option<&str>) -> Map<String, Value> {
    let seconds = new.issued.secs();
    let mut all = Map::new();
    let mut put = |name: &str, value: Value| all.insert(name.to_owned(), value);
    put("fresh", json!(new.fresh));
    put("iat", json!(seconds));
    put("jti", json!(new.token.as_str()));
    put("type", json!(new.kind.as_str()));
    put("sub", json!(new.subject));
    put("nbf", json!(seconds));
    put("exp", json!(new.expires.secs()));
    if let Some(session) = new.session {
        put("sid", json!(session.as_str()));
    }
    put("gen", json!(new.generation.0));
    if !new.roles.is_empty() {
        put("roles", new.roles.iter().map(Role::as_str).collect());
    }
    if let Some(issuer) = issuer {
        put("iss", json!(issuer));
    }
    if let Some(audience) = audience {
        put("aud", json!(audience));
    }
    all
}

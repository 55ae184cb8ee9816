//! The answers of one operation, by status, with their headers and forms.

use std::collections::{BTreeMap, BTreeSet};

use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use serde_json::{Map, Value, json};

use crate::identity::openapi::schema;
use crate::message::rejection::MARKER;
use crate::message::{Body, Rejection};
use crate::model::ResponseStyle;

/// A good answer.
pub(super) enum Good {
    /// A body of this schema.
    Json(&'static str),
    /// The same, which anyone may keep for ten minutes.
    Public(&'static str),
    /// No body, and these headers.
    Headers(Map<String, Value>),
}

/// See the module.
pub(super) struct Answers {
    style: ResponseStyle,
    /// HEAD has no bodies.
    head: bool,
    is_verdict: bool,
    by_status: BTreeMap<u16, Answer>,
}

/// All answers of one status.
#[derive(Default)]
struct Answer {
    good: Option<Good>,
    /// How many refusals there are.
    refusals: usize,
    codes: BTreeSet<&'static str>,
    /// How many refusals have each header.
    headers: BTreeMap<String, usize>,
    /// The properties of the refusals' bodies, each once, with the codes that have them.
    forms: Vec<(Map<String, Value>, BTreeSet<&'static str>)>,
    examples: Map<String, Value>,
}

impl Answers {
    /// None yet.
    pub fn new(style: ResponseStyle, head: bool, is_verdict: bool) -> Self {
        Self { style, head, is_verdict, by_status: BTreeMap::new() }
    }

    /// What is answered when all is well.
    pub fn add_good(&mut self, status: StatusCode, good: Good) {
        self.by_status.entry(status.as_u16()).or_default().good = Some(good);
    }

    /// Answers `rejection`, and takes down what that looks like.
    pub fn add_refusal(&mut self, rejection: Rejection) {
        let code = rejection.code();
        let response =
            if self.is_verdict { rejection.into_verdict(self.style) } else { rejection.into_response(self.style) };
        let answer = self.by_status.entry(response.status().as_u16()).or_default();
        answer.refusals += 1;
        answer.codes.insert(code);
        for name in response.headers().keys().filter(|name| *name != CONTENT_TYPE) {
            *answer.headers.entry(name.to_string()).or_default() += 1;
        }
        let Body::Full(bytes) = response.body() else { return };
        let body: Value = serde_json::from_slice(bytes).unwrap_or_default();
        let form = form(&body);
        match answer.forms.iter_mut().find(|(known, _)| *known == form) {
            Some((_, codes)) => drop(codes.insert(code)),
            None => answer.forms.push((form, BTreeSet::from([code]))),
        }
        answer.examples.entry(code).or_insert_with(|| json!({ "value": body }));
    }

    /// As the document has them.
    pub fn describe(self) -> Value {
        let head = self.head;
        self.by_status.into_iter().map(|(status, answer)| (status.to_string(), answer.describe(head))).collect()
    }
}

/// The properties of a refusal's body.
fn form(body: &Value) -> Map<String, Value> {
    let described = |(name, value): (&String, &Value)| {
        let schema = match value {
            Value::Object(_) => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
            _ => json!({ "type": "string" }),
        };
        (name.clone(), schema)
    };
    body.as_object().into_iter().flatten().map(described).collect()
}

impl Answer {
    fn describe(self, head: bool) -> Value {
        let is_good = self.good.is_some();
        let codes: Vec<&str> = self.codes.iter().copied().collect();
        let mut headers = Map::new();
        let mut forms = Vec::new();
        match self.good {
            Some(Good::Json(name)) => {
                headers.insert("Cache-Control".into(), header(CACHE_CONTROL.as_str(), &codes, true));
                forms.push(json!({ "$ref": format!("#/components/schemas/{name}") }));
            }
            Some(Good::Public(name)) => {
                let schema = json!({ "const": "public, max-age=600" });
                headers.insert("Cache-Control".into(), json!({ "required": true, "schema": schema }));
                forms.push(json!({ "$ref": format!("#/components/schemas/{name}") }));
            }
            Some(Good::Headers(named)) => headers = named,
            None => {}
        }
        for (name, count) in &self.headers {
            let shown = shown(name);
            let required = *count == self.refusals && (!is_good || headers.contains_key(&shown));
            headers.insert(shown, header(name, &codes, required));
        }
        for (mut form, codes) in self.forms {
            if let Some(error) = form.get_mut("error") {
                *error = json!({ "enum": codes });
            }
            forms.push(schema::object(&Value::Object(form)));
        }
        let said: Vec<&str> = is_good.then_some("done").into_iter().chain(codes).collect();
        let mut described = Map::new();
        described.insert("description".into(), said.join(", ").into());
        described.insert("headers".into(), headers.into());
        let schema = if forms.len() > 1 { json!({ "anyOf": forms }) } else { forms.pop().unwrap_or_default() };
        if !head && !schema.is_null() {
            let mut content = Map::new();
            content.insert("schema".into(), schema);
            if !self.examples.is_empty() {
                content.insert("examples".into(), self.examples.into());
            }
            described.insert("content".into(), json!({ "application/json": content }));
        }
        Value::Object(described)
    }
}

fn header(name: &str, codes: &[&str], required: bool) -> Value {
    let schema = if name == MARKER.as_str() {
        json!({ "enum": codes })
    } else if name == CACHE_CONTROL.as_str() {
        json!({ "const": "no-store" })
    } else if name == RETRY_AFTER.as_str() {
        json!({ "type": "integer", "minimum": 1 })
    } else {
        json!({ "type": "string" })
    };
    json!({ "required": required, "schema": schema })
}

/// `cache-control` as people write it.
fn shown(name: &str) -> String {
    let word = |word: &str| {
        let (first, rest) = word.split_at_checked(1).unwrap_or((word, ""));
        if word == "www" { "WWW".to_owned() } else { format!("{}{rest}", first.to_ascii_uppercase()) }
    };
    name.split('-').map(word).collect::<Vec<_>>().join("-")
}

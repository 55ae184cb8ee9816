//! The forms of bodies, as JSON Schema.

use serde_json::{Map, Value, json};

use crate::accounts::MAX_PASSWORD;
use crate::config;
use crate::identity::paging::LARGEST_PAGE;
use crate::model::Username;

/// Those of good answers, by name.
pub(super) fn components() -> Value {
    let text = json!({ "type": "string" });
    let token = json!({ "type": "string", "pattern": r"^[\w-]+\.[\w-]+\.[\w-]+$" });
    let time = json!({ "type": "string", "format": "date-time" });
    let next = json!({
        "type": ["string", "null"],
        "description": "What to give as `after` for the next page; null on the last one",
    });
    json!({
        "Message": object(&json!({ "message": text })),
        "Pair": object(&json!({ "message": text, "access_token": token, "refresh_token": token })),
        "Access": object(&json!({ "access_token": token })),
        "Renewal": object(&json!({ "access_token": token, "refresh_token": token })),
        "Session": object(&json!({
            "id": text,
            "created": time,
            "last_used": time,
            "address": { "type": ["string", "null"] },
            "user_agent": { "type": ["string", "null"] },
            "current": { "type": "boolean" },
        })),
        "Sessions": object(&json!({
            "sessions": {
                "type": "array",
                "items": { "$ref": "#/components/schemas/Session" },
                "maxItems": LARGEST_PAGE,
                "description": "The last used first",
            },
            "next": next,
        })),
        "User": object(&json!({
            "username": text,
            "roles": { "type": "array", "items": { "type": "string", "pattern": "^[A-Za-z0-9_.:-]{1,64}$" } },
            "created": time,
        })),
        "Keys": object(&json!({
            "keys": { "type": "array", "items": { "type": "object", "required": ["kty", "kid", "alg"] } },
        })),
        "Users": object(&json!({
            "users": {
                "type": "array",
                "items": { "$ref": "#/components/schemas/User" },
                "maxItems": LARGEST_PAGE,
            },
            "next": next,
        })),
    })
}

/// A place in the list of sessions.
pub(super) fn cursor() -> Value {
    json!({ "type": "string", "format": "cursor", "pattern": "^[0-9]{1,18}[.][0-9A-Za-z-]{1,36}$" })
}

/// An object of exactly these properties.
pub(super) fn object(properties: &Value) -> Value {
    let names: Vec<&String> = properties.as_object().into_iter().flat_map(|map| map.keys()).collect();
    json!({ "type": "object", "properties": properties, "required": names, "additionalProperties": false })
}

/// The fields of a body, each a text that is not empty; others are not looked at.
pub(super) fn fields(fields: &[(&str, Value)]) -> Value {
    let names: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
    let properties: Map<String, Value> =
        fields.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    json!({ "type": "object", "properties": properties, "required": names })
}

/// A name or password that is compared with what is kept.
pub(super) fn given() -> Value {
    json!({ "type": "string", "minLength": 1 })
}

/// A name that is about to be taken.
pub(super) fn new_username() -> Value {
    json!({
        "type": "string",
        "format": "username",
        "minLength": 1,
        "maxLength": Username::MAX_CHARS,
        "description": "In Unicode normalization form C; without control, format and line separator characters; \
            no space at either end",
    })
}

/// A password that is about to be set.
pub(super) fn new_password(rules: &config::Password) -> Value {
    json!({
        "type": "string",
        "format": "password",
        "minLength": rules.min_length,
        "maxLength": MAX_PASSWORD,
        "description": format!("{} to {MAX_PASSWORD} bytes in UTF-8: bytes are counted, not characters", rules.min_length),
    })
}

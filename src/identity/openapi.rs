//! The description of the endpoints in this configuration: OpenAPI 3.1, for /openapi.json on the admin listener.
//!
//! Refusals describe themselves: each that an endpoint may make is answered once, and status, headers and form are read
//! off that answer.

mod operation;
mod responses;
mod schema;

use serde_json::{Map, Value, json};

use crate::config::Config;
use crate::identity::Endpoint;
use crate::model::ResponseStyle;

use operation::Operation;

/// The document. `verify` is the path of the endpoint that the gate answers.
pub fn document(config: &Config, verify: &str) -> Value {
    let settings = &config.identity;
    let mut paths = Map::new();
    for endpoint in Endpoint::ALL {
        let path = endpoint.place(settings);
        // One that is turned off is not found.
        if Endpoint::find(settings, &path) == Some(endpoint) {
            paths.insert(path, path_item(endpoint, config));
        }
    }
    paths.insert(verify.to_owned(), verify_item(config));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Portcullis",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What the gateway answers itself, at its public listeners. A path may end with one slash. \
                Every refusal is marked by the header Portcullis-Error.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": schema::components(),
            "securitySchemes": {
                "access": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "An access token" },
                "refresh": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "A refresh token" },
            },
        },
    })
}

fn path_item(endpoint: Endpoint, config: &Config) -> Value {
    let (settings, mut item) = (&config.identity, Map::new());
    for method in endpoint.methods().split(", ") {
        let operation = Operation::of(endpoint, method, settings).closed_to(&config.tokens.trusted);
        item.insert(method.to_ascii_lowercase(), operation.describe(method, settings.responses));
    }
    item.insert("description".into(), others_refused(endpoint.methods()));
    Value::Object(item)
}

fn others_refused(methods: &str) -> Value {
    format!("Other methods are refused: 405, method_not_allowed, with Allow: {methods}").into()
}

/// What no operation can say of itself.
const VERIFY_NOTE: &str = "Refusals are 401, 403 and 503 only. But what cannot be read at all is refused before it is known \
    to be meant for this: 400 for a malformed request whose first line comes in pieces or spells the path otherwise, and \
    431 over HTTP/2 for header lists far beyond the limit. A path behind /auth/verify (Envoy's ext_authz with path_prefix) \
    names the request that a trusted proxy asks about, with the method and Host of its question.";

/// /auth/verify takes any method.
fn verify_item(config: &Config) -> Value {
    const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"];
    let style: ResponseStyle = config.identity.responses;
    let item = METHODS.map(|method| {
        (method.to_ascii_lowercase(), Operation::verify(&config.identity_headers).describe(method, style))
    });
    let mut item: Map<String, Value> = item.into_iter().collect();
    item.insert("description".into(), VERIFY_NOTE.into());
    Value::Object(item)
}

#[cfg(test)]
mod tests;

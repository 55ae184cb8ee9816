//! What the configuration takes, what it makes of it, and every word that it says about what it does not take.

mod form;
mod sections;
mod routes;
mod values;
mod listen;
mod upstreams;
mod cors;
mod trusted;
mod change;
mod attempts;
mod files;
mod rules;
mod tokens;

use std::path::Path;

use super::{Config, Error, Problem};

/// The environment of all tests.
fn env(name: &str) -> Option<String> {
    match name {
        "PORT" => Some("8088".into()),
        "LEVEL" => Some("debug".into()),
        "NESTED" => Some("${PORT}".into()),
        "EMPTY" => Some(String::new()),
        "SECRET" => Some("an-inherited-secret-of-forty-characters!".into()),
        _ => None,
    }
}

fn parse(text: &str) -> Result<Config, Error> {
    super::parse(text, Path::new("gateway.yaml"), &env)
}

fn load(text: &str) -> Config {
    parse(text).unwrap_or_else(|error| panic!("{text}\n{error}"))
}

fn problems(text: &str) -> Vec<Problem> {
    match parse(text) {
        Err(Error::Invalid { problems, .. }) => problems,
        other => panic!("{text}\n{other:?}"),
    }
}

/// The errors of `text` as an operator sees them.
fn errors(text: &str) -> String {
    match parse(text) {
        Ok(config) => format!("valid: {config:?}"),
        Err(error) => error.to_string(),
    }
}

/// The errors of a file that has the upstream `app` and these routes.
fn route_errors(routes: &str) -> String {
    errors(&with_app(routes))
}

fn with_app(routes: &str) -> String {
    format!("upstreams: {{app: {{servers: [http://h:1]}}}}\nroutes:\n{routes}\n")
}

fn warnings(text: &str) -> String {
    let lines = load(text).warnings.into_iter().map(|warning| format!("{}: {}", warning.key, warning.message));
    lines.collect::<Vec<_>>().join("\n")
}

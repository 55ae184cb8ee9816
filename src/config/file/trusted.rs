//! `tokens.trusted` as written.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::scalar::{Hidden, Text};
use crate::config::shorthand::Texts;

/// Another issuer whose tokens are taken, on routes whose rule names it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Trusted {
    /// `iss` of its tokens, such as `https://id.example.com/realms/main`.
    pub issuer: Text,
    /// Where its JSON Web Key Set is fetched.
    pub jwks_url: Option<Text>,
    /// Authorities (a PEM file) that are trusted for `jwks_url` instead of the system's.
    pub ca: Option<Text>,
    /// The same, in a file.
    pub jwks_file: Option<Text>,
    /// In place of both, a shared secret of at least 32 bytes, for HS256.
    pub secret: Option<Hidden>,
    /// The same, read from a file.
    pub secret_file: Option<Text>,
    /// Its tokens must be for one of these: one text, or a list; left out, any.
    pub audience: Option<Texts>,
    /// Which claim holds the audience: a name, or a path with dots. Cognito writes `client_id`.
    #[schemars(extend("default" = "aud"))]
    pub audience_claim: Option<Text>,
    /// `alg` that its tokens may have; left out, whatever fits the key.
    pub algorithms: Option<Vec<Text>>,
    /// Which claim names the user: a name, or a path with dots.
    #[schemars(extend("default" = "sub"))]
    pub subject_claim: Option<Text>,
    /// Which claim holds the roles: a name, or a path with dots such as `realm_access.roles`. It may be a list of names or
    /// of objects with `name`, words with spaces or commas between, or an object whose keys are the roles.
    #[schemars(extend("default" = "roles"))]
    pub roles_claim: Option<Text>,
}

//! Keys of the file that take either a word or a mapping.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use super::file::{Access, Rule};
use super::scalar::{Choice, Text, choose};

/// `routes[].auth`: who may pass.
#[derive(Debug)]
pub(super) enum Auth {
    /// In one word.
    Word(Choice<Access>),
    /// What a token must bring.
    Rule(Rule),
}

impl<'de> Deserialize<'de> for Auth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Auth;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`required`, `public`, `optional` or a mapping")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<Auth, E> {
                match word {
                    "off" | "none" | "no" | "false" => self.visit_bool(false),
                    _ if word.contains("${") => Ok(Auth::Word(Choice::Open(word.into()))),
                    _ => choose(word).map(|access| Auth::Word(Choice::Made(access))),
                }
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Auth, E> {
                let word = if value { "required" } else { "public" };
                Err(E::custom(format!(
                    "a route without a check is `auth: public`, one with it `auth: required`; write `{word}`"
                )))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Auth, A::Error> {
                Rule::deserialize(MapAccessDeserializer::new(map)).map(Auth::Rule)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Auth {
    fn schema_name() -> Cow<'static, str> {
        "Auth".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (word, rule) = (generator.subschema_for::<Choice<Access>>(), generator.subschema_for::<Rule>());
        json_schema!({"description": "Who may pass: a word, or what a token must bring.", "anyOf": [word, rule]})
    }
}

/// One entry of `upstreams.NAME.servers`.
#[derive(Debug)]
pub(super) struct Backend {
    /// Such as `http://127.0.0.1:5000`.
    pub url: Text,
    /// Share of the requests; 0 gets none.
    pub weight: Option<u64>,
}

/// A server and its share of the requests.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Weighted {
    /// Such as `http://127.0.0.1:5000`.
    url: Text,
    /// Share of the requests; 0 gets none.
    #[schemars(extend("default" = 1))]
    weight: Option<u64>,
}

impl<'de> Deserialize<'de> for Backend {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Backend;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a URL, or a mapping of `url` and `weight`")
            }

            fn visit_str<E: Error>(self, url: &str) -> Result<Backend, E> {
                Ok(Backend { url: Text(url.into()), weight: None })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Backend, A::Error> {
                let Weighted { url, weight } = Weighted::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Backend { url, weight })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Backend {
    fn schema_name() -> Cow<'static, str> {
        "Backend".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (url, weighted) = (generator.subschema_for::<Text>(), generator.subschema_for::<Weighted>());
        json_schema!({"description": "A server: its URL, or `url` and `weight`.", "anyOf": [url, weighted]})
    }
}

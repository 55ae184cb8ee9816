//! Keys of the file that take either a word or a mapping, or one entry in place of a list.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::file::{Access, Consistent, Dealing, Listener, Rule};
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

/// Reads text, or the mapping that it is short for.
struct TextOr<T, M> {
    expected: &'static str,
    text: fn(Text) -> T,
    mapping: fn(M) -> T,
}

impl<'de, T, M: Deserialize<'de>> Visitor<'de> for TextOr<T, M> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        Ok((self.text)(Text(text.into())))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        M::deserialize(MapAccessDeserializer::new(map)).map(self.mapping)
    }
}

impl<'de> Deserialize<'de> for Backend {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextOr {
            expected: "a URL, or a mapping of `url` and `weight`",
            text: |url| Self { url, weight: None },
            mapping: |Weighted { url, weight }| Self { url, weight },
        })
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

/// `server.listen`.
#[derive(Debug)]
pub(super) enum Listen {
    /// Just one.
    One(Listener),
    /// A list.
    Many(Vec<Entry>),
}

/// One entry of `server.listen`, where text is just the address.
#[derive(Debug)]
pub(super) struct Entry(pub Listener);

/// A listener on `address` that speaks plain HTTP.
fn plain(address: Text) -> Listener {
    Listener { address, tls: None, proxy_protocol: None }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextOr {
            expected: "an address, or a mapping of `address`, `tls` and `proxy_protocol`",
            text: |address| Self(plain(address)),
            mapping: Self,
        })
    }
}

impl JsonSchema for Entry {
    fn schema_name() -> Cow<'static, str> {
        "Entry".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (address, listener) = (generator.subschema_for::<Text>(), generator.subschema_for::<Listener>());
        json_schema!({"anyOf": [address, listener]})
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Listen;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address, a mapping of `address`, `tls` and `proxy_protocol`, or a list of such")
            }

            fn visit_str<E: Error>(self, address: &str) -> Result<Listen, E> {
                Ok(Listen::One(plain(Text(address.into()))))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Listen, A::Error> {
                Listener::deserialize(MapAccessDeserializer::new(map)).map(Listen::One)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Listen, A::Error> {
                let mut all = Vec::new();
                while let Some(entry) = list.next_element()? {
                    all.push(entry);
                }
                Ok(Listen::Many(all))
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}

impl JsonSchema for Listen {
    fn schema_name() -> Cow<'static, str> {
        "Listen".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (one, many) = (generator.subschema_for::<Entry>(), generator.subschema_for::<Vec<Entry>>());
        json_schema!({"anyOf": [one, many]})
    }
}

/// One text, or a list of texts.
#[derive(Debug)]
pub(super) enum Texts {
    /// Just one.
    One(Text),
    /// A list.
    Many(Vec<Text>),
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text, or a list of texts")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Texts, E> {
                Ok(Texts::One(Text(text.into())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Texts, A::Error> {
                let mut all = Vec::new();
                while let Some(text) = list.next_element()? {
                    all.push(text);
                }
                Ok(Texts::Many(all))
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}

impl JsonSchema for Texts {
    fn schema_name() -> Cow<'static, str> {
        "Texts".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (one, many) = (generator.subschema_for::<Text>(), generator.subschema_for::<Vec<Text>>());
        json_schema!({"anyOf": [one, many]})
    }
}

/// `upstreams.NAME.balance`.
#[derive(Debug)]
pub(super) enum Balance {
    /// In one word.
    Word(Choice<Dealing>),
    /// By a key.
    Keyed(Consistent),
}

impl<'de> Deserialize<'de> for Balance {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Balance;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`round_robin`, `least_connections`, `random` or `{consistent: subject}`")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<Balance, E> {
                match word {
                    "consistent" => Err(E::custom(
                        "`consistent` needs a key; write `{consistent: subject}` or `{consistent: address}`",
                    )),
                    _ if word.contains("${") => Ok(Balance::Word(Choice::Open(word.into()))),
                    _ => choose(word).map(|dealing| Balance::Word(Choice::Made(dealing))),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Balance, A::Error> {
                Consistent::deserialize(MapAccessDeserializer::new(map)).map(Balance::Keyed)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Balance {
    fn schema_name() -> Cow<'static, str> {
        "Balance".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (word, keyed) = (generator.subschema_for::<Choice<Dealing>>(), generator.subschema_for::<Consistent>());
        json_schema!({"anyOf": [word, keyed]})
    }
}

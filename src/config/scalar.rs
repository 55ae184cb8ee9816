//! The leaves of the file as written: text that may hold `${NAME}`, secrets, choices, sizes, rates and maps.
//!
//! Each says in words what it takes, and none ever quotes what it was given: that might be a secret.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, Unexpected, Visitor};

use crate::secret::Secret;

/// Text. A number or `true` is none: YAML would have changed its spelling already.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(inline)]
pub(super) struct Text(pub String);

/// Text that is never printed.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(inline)]
pub(super) struct Hidden(#[schemars(with = "String")] pub Secret);

/// Text that holds a duration. Parsed after expansion.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(inline)]
pub(super) struct Time(#[schemars(example = &"15m")] pub String);

/// Text that holds a rate. Parsed after expansion.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(inline)]
pub(super) struct Frequency(#[schemars(example = &"100/s")] pub String);

struct Words<T> {
    expected: &'static str,
    make: fn(&str) -> T,
}

impl<T> Visitor<'_> for Words<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        Ok((self.make)(text))
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Words { expected: "text", make: |text| Self(text.into()) })
    }
}

impl<'de> Deserialize<'de> for Hidden {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Words { expected: "text", make: |text| Self(Secret::new(text)) })
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a duration with its unit, such as `10s`";
        deserializer.deserialize_any(Words { expected, make: |text| Self(text.into()) })
    }
}

impl<'de> Deserialize<'de> for Frequency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a rate, such as `100/s`";
        deserializer.deserialize_any(Words { expected, make: |text| Self(text.into()) })
    }
}

/// A size: a number of bytes, or text such as `64KiB`.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(super) enum Size {
    /// Plain bytes.
    Bytes(u64),
    /// With a unit.
    Written(#[schemars(example = &"64KiB")] String),
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Sized;
        impl Visitor<'_> for Sized {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size, such as `64KiB`")
            }

            fn visit_u64<E: Error>(self, bytes: u64) -> Result<Size, E> {
                Ok(Size::Bytes(bytes))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Size, E> {
                Ok(Size::Written(text.into()))
            }
        }
        deserializer.deserialize_any(Sized)
    }
}

/// One of a closed list of words, or text with a `${NAME}` that will become one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Choice<E> {
    /// A word of the list.
    Made(E),
    /// Still to be expanded.
    Open(String),
}

struct Chosen<E>(PhantomData<E>);

impl<'de, E: Deserialize<'de>> Visitor<'de> for Chosen<E> {
    type Value = Choice<E>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a word")
    }

    fn visit_str<R: Error>(self, text: &str) -> Result<Choice<E>, R> {
        if text.contains("${") { Ok(Choice::Open(text.into())) } else { choose(text).map(Choice::Made) }
    }

    // YAML 1.1 reads `off` as false, and some editors write it so.
    fn visit_bool<R: Error>(self, value: bool) -> Result<Choice<E>, R> {
        if value { Err(R::invalid_type(Unexpected::Bool(value), &self)) } else { self.visit_str("off") }
    }
}

/// The word `text` of the list `E`.
pub(super) fn choose<'de, E: Deserialize<'de>, R: Error>(text: &str) -> Result<E, R> {
    E::deserialize(text.into_deserializer())
}

impl<'de, E: Deserialize<'de>> Deserialize<'de> for Choice<E> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Chosen(PhantomData))
    }
}

impl<E: JsonSchema> JsonSchema for Choice<E> {
    fn schema_name() -> Cow<'static, str> {
        format!("Choice_{}", E::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let words = generator.subschema_for::<E>();
        json_schema!({"anyOf": [words, {"type": "string", "pattern": r"\$\{"}]})
    }
}

/// Text, a number or a truth value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plain(pub serde_json::Value);

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Scalar;
        impl Visitor<'_> for Scalar {
            type Value = Plain;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text, a number, `true` or `false`")
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Plain, E> {
                Ok(Plain(value.into()))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Plain, E> {
                Ok(Plain(value.into()))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Plain, E> {
                Ok(Plain(value.into()))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Plain, E> {
                let number = serde_json::Number::from_f64(value);
                let finite = number.ok_or_else(|| E::invalid_value(Unexpected::Float(value), &self))?;
                Ok(Plain(finite.into()))
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<Plain, E> {
                Ok(Plain(value.into()))
            }
        }
        deserializer.deserialize_any(Scalar)
    }
}

impl JsonSchema for Plain {
    fn schema_name() -> Cow<'static, str> {
        "Plain".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["string", "number", "boolean"]})
    }
}

/// A mapping with free names: in the order of the file, and each name only once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named<T>(pub Vec<(String, T)>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// Reads a name, and fails there when it is not new.
struct NewName<'a, T>(&'a [(String, T)]);

impl<'de, T> DeserializeSeed<'de> for NewName<'_, T> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<T> Visitor<'_> for NewName<'_, T> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<String, E> {
        if self.0.iter().any(|(known, _)| known == name) {
            return Err(E::custom(format!("duplicate entry with key \"{name}\"")));
        }
        Ok(name.into())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = Named<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named<T>, A::Error> {
                let mut entries = Vec::new();
                while let Some(name) = map.next_key_seed(NewName(&entries))? {
                    entries.push((name, map.next_value()?));
                }
                Ok(Named(entries))
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Named<T> {
    fn schema_name() -> Cow<'static, str> {
        <BTreeMap<String, T>>::schema_name()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        <BTreeMap<String, T>>::json_schema(generator)
    }
}

/// Tells an explicit `null` (`Some(None)`) from a key that is not there.
pub(super) fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

//! A JSON object that refuses a repeated name, on every level: two readers of one token must never see two different claims.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// How the error of a repeated name begins: `serde_json` keeps nothing of it but the text.
pub const REPEATED: &str = "a name stands twice";

/// A JSON object with distinct names.
pub struct Object(pub Map<String, Value>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Value::Object(map) = deserializer.deserialize_map(AnyVisitor)? else {
            return Err(D::Error::custom("no JSON object"));
        };
        Ok(Self(map))
    }
}

/// Any JSON, whose objects have distinct names.
struct Any(Value);

impl<'de> Deserialize<'de> for Any {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyVisitor).map(Self)
    }
}

struct AnyVisitor;

impl<'de> Visitor<'de> for AnyVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON with distinct names")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Any(value)) = access.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some((name, Any(value))) = access.next_entry::<String, Any>()? {
            if map.insert(name, value).is_some() {
                return Err(A::Error::custom(REPEATED));
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_else_is_read_as_ever() {
        for text in [
            "{}",
            r#"{"a":null,"b":true,"c":-1,"d":18446744073709551615,"e":1.5,"f":-0.0,"g":"x\u00e9\n","h":[],"i":{}}"#,
            r#"{"a":[1,[2,{"a":{"a":[{"a":1},{"a":2}]}}]],"b":{"a":1}}"#,
            r#"{"":{"":1},"\ud83d\ude00":"\ud83d\ude00"}"#,
        ] {
            let Object(map) = serde_json::from_str(text).unwrap();
            assert_eq!(Value::Object(map), serde_json::from_str::<Value>(text).unwrap(), "{text}");
        }
        let deep = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        assert!(serde_json::from_str::<Object>(&deep(100)).is_ok());
        assert!(serde_json::from_str::<Object>(&deep(10_000)).is_err(), "nor does depth exhaust the stack");
        for text in ["", "null", "[]", "[{}]", "1", "\"a\"", "{", "{}x", "{\"a\":1e999}", "{\"a\":NaN}", "{1:2}"] {
            assert!(serde_json::from_str::<Object>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_may_not_stand_twice_anywhere() {
        for text in [r#"{"a":1,"a":1}"#, r#"{"a":{"b":1,"b":1}}"#, r#"{"a":[[{"b":1,"c":2,"\u0062":3}]]}"#] {
            let error = serde_json::from_str::<Object>(text).map(|_| ()).unwrap_err();
            assert!(error.to_string().starts_with(REPEATED), "{text}: {error}");
        }
    }
}

//! The line of a key path.
//!
//! `serde_yaml` keeps no positions, but gives one with each error: so the file is read once more, and the reading
//! fails on purpose at the value that is looked for.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::key::{Key, Step};

/// A place in the file, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// Line.
    pub line: usize,
    /// Column in that line.
    pub column: usize,
}

/// Where the value of `key` stands, or else the nearest thing around it that the file has.
pub(super) fn find(text: &str, key: &Key) -> Option<Position> {
    (1..=key.steps().len()).rev().find_map(|depth| {
        let steps = key.steps().get(..depth)?;
        search(text, steps, false, 1).or_else(|| search(text, steps, true, 1))
    })
}

/// Where `key`, whose last step is a name, stands for the second time in its mapping.
pub(super) fn find_second(text: &str, key: &Key) -> Option<Position> {
    search(text, key.steps(), false, 2)
}

fn search(text: &str, steps: &[Step], merges: bool, turn: usize) -> Option<Position> {
    let (found, left) = (Cell::new(false), Cell::new(turn));
    let walk = Walk { steps, merges, found: &found, left: &left };
    let error = walk.deserialize(serde_yaml::Deserializer::from_str(text)).err()?;
    let location = error.location().filter(|_| found.get())?;
    Some(Position { line: location.line(), column: location.column() })
}

/// Goes down the steps that are left, and fails where they end.
#[derive(Clone, Copy)]
struct Walk<'a> {
    steps: &'a [Step],
    /// Whether to look behind `<<` too.
    merges: bool,
    found: &'a Cell<bool>,
    /// How many sights of the last name are still wanted.
    left: &'a Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.steps.is_empty() {
            self.found.set(true);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the way to a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((Step::Name(wanted), rest)) = self.steps.split_first() else {
            return Err(A::Error::custom("no further"));
        };
        while let Some(name) = map.next_key_seed(Name { wanted, last: rest.is_empty(), walk: self })? {
            if name == Sight::Wanted {
                map.next_value_seed(Walk { steps: rest, ..self })?;
            } else if name == Sight::Merge && self.merges {
                map.next_value_seed(Merge(self))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Some((Step::Index(wanted), rest)) = self.steps.split_first() else {
            return Err(A::Error::custom("no further"));
        };
        for _ in 0..*wanted {
            list.next_element::<IgnoredAny>()?;
        }
        list.next_element_seed(Walk { steps: rest, ..self })?;
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

/// What a key of a mapping is to a [`Walk`].
#[derive(PartialEq)]
enum Sight {
    Wanted,
    Merge,
    Other,
}

/// Reads a key, and fails there when it ends the walk: a value may begin on a later line than its key.
struct Name<'a> {
    wanted: &'a str,
    last: bool,
    walk: Walk<'a>,
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Sight;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Sight, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Sight;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Sight, E> {
        if name != self.wanted {
            return Ok(if name == "<<" { Sight::Merge } else { Sight::Other });
        }
        self.walk.left.set(self.walk.left.get().saturating_sub(usize::from(self.last)));
        if self.last && self.walk.left.get() == 0 {
            self.walk.found.set(true);
            return Err(E::custom("found"));
        }
        Ok(if self.last { Sight::Other } else { Sight::Wanted })
    }
}

/// The value of `<<`: a mapping, or a list of such.
struct Merge<'a>(Walk<'a>);

impl<'de> DeserializeSeed<'de> for Merge<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Merge<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("mappings to merge")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        self.0.visit_map(map)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(self.0)?.is_some() {}
        Ok(())
    }
}

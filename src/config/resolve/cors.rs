//! `cors` of the routes and of the endpoints: which pages of other origins may call.

use crate::config::key::Key;
use crate::config::reader::Reader;
use crate::config::scalar::Text;
use crate::config::{Cors, origin};

/// The origins under `key`; `None` when there are none. The faults are noted.
pub(super) fn cors(reader: &mut Reader<'_>, key: &Key, written: &[Text]) -> Option<Cors> {
    let mut origins: Vec<String> = Vec::new();
    for (index, text) in written.iter().enumerate() {
        let key = key.index(index);
        let Some(origin) = reader.parse(&key, text, origin::parse) else { continue };
        if origins.contains(&origin) {
            reader.refuse(&key, format!("{origin} stands twice"), "Keep one of the two");
        } else if origin == "*" && written.len() > 1 {
            reader.refuse(&key, "`*` is any origin, also those beside it", "Keep it alone, or leave it out");
        }
        origins.push(origin);
    }
    (!origins.is_empty()).then_some(Cors { origins })
}

//! `portcullis schema`.

use crate::cli::{Refused, say};
use crate::config;

pub fn schema() -> Result<(), Refused> {
    say(serde_json::to_string_pretty(&config::schema())?);
    Ok(())
}

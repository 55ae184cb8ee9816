//! `portcullis run`.

use std::path::Path;

use crate::cli::{Refused, load};
use crate::gate::explain;
use crate::{server, telemetry};

pub fn run(path: &Path) -> Result<(), Refused> {
    let config = load(path)?;
    telemetry::log::start(&config.log);
    // `check` refuses this. A running gateway must not, or a version with one more endpoint would not start.
    if let Err(hidden) = explain::check_hidden(&config) {
        tracing::warn!("{hidden}");
    }
    for warning in &config.warnings {
        tracing::warn!(key = warning.key, "{}", warning.message);
    }
    server::run(config)?;
    Ok(())
}

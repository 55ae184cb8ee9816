//! `portcullis run`.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::{ConfigPath, Refused, environment, load};
use crate::config;
use crate::{server, telemetry};

/// `portcullis run`.
#[derive(Args, Clone)]
pub struct Run {
    #[command(flatten)]
    config: ConfigPath,
    /// Take the listening sockets over from the gateway that runs this configuration, once it gets SIGQUIT.
    #[arg(long)]
    upgrade: bool,
}

impl Run {
    pub fn run(&self) -> Result<(), Refused> {
        run(&self.config.path, self.upgrade)
    }
}

/// Runs the gateway.
pub fn run(path: &Path, upgrade: bool) -> Result<(), Refused> {
    let config = load(path)?;
    telemetry::log::start(&config.log).map_err(server::Error::Thread)?;
    server::warn_of(&config);
    let own: PathBuf = path.into();
    let load = Box::new(move || config::load(&own, &environment));
    let ended = server::run(config, server::Origin { path: path.into(), load }, upgrade);
    telemetry::log::finish();
    Ok(ended?)
}

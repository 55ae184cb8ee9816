//! `portcullis run`.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use crate::cli::{ConfigPath, Refused, environment, load_with};
use crate::config;
use crate::telemetry::output::Output;
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
    pub fn run(&self) -> ExitCode {
        run(&self.config.path, self.upgrade)
    }
}

/// Runs the gateway. Neither standard output nor standard error is ever waited for, but for a moment at the end.
pub fn run(path: &Path, upgrade: bool) -> ExitCode {
    let errors = match Output::start(io::stderr()) {
        Ok(errors) => Ending(errors),
        Err(error) => return Refused::Io(error).print(io::stderr()),
    };
    match serve(path, upgrade, &errors.0) {
        Ok(()) => ExitCode::SUCCESS,
        Err(refused) => refused.print(&errors.0),
    }
}

fn serve(path: &Path, upgrade: bool, errors: &Output) -> Result<(), Refused> {
    let config = load_with(path, || errors)?;
    let output = Ending(Output::start(io::stdout())?);
    telemetry::log::start(&config.log, output.0.clone());
    telemetry::log::report_panics();
    server::warn_of(&config);
    let own: PathBuf = path.into();
    let load = Box::new(move || config::load(&own, &environment));
    server::run(config, server::Origin { path: path.into(), load }, upgrade, output.0.clone())?;
    Ok(())
}

/// Writes an output to its end when the command returns, or panics.
struct Ending(Output);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.finish();
    }
}

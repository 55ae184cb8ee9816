//! Puts what a command has done into the audit, with the one who gave it.

use std::io::IsTerminal;

use crate::cli::{Refused, warn};
use crate::clock;
use crate::config::{Config, LogFormat};
use crate::telemetry::audit::{About, Actor, Event, Line, Outcome, Sink};
use crate::telemetry::log::Shape;

/// An open audit. To be opened before anything is changed: what cannot be told is not to be done by hand.
pub struct Witness {
    sink: Sink,
    user: String,
}

impl Witness {
    /// Where `log.audit` says; for `log` that is standard error.
    pub fn open(config: &Config) -> Result<Self, Refused> {
        let shape = match config.log.format {
            LogFormat::Text => Shape::Text,
            LogFormat::Json => Shape::Json,
            LogFormat::Auto if std::io::stderr().is_terminal() => Shape::Text,
            LogFormat::Auto => Shape::Json,
        };
        Ok(Self { sink: Sink::of_command(&config.log.audit, shape)?, user: system_user() })
    }

    /// Tells what was done.
    pub fn tell(&mut self, event: Event, about: &About) {
        self.tell_of(event, Outcome::Success, about);
    }

    /// Tells how it ended.
    pub fn tell_of(&mut self, event: Event, outcome: Outcome, about: &About) {
        let line = Line::new(clock::now(), event, outcome, Actor::Command(&self.user), about);
        if let Err(error) = self.sink.write(&line) {
            warn(format_args!("log.audit: it was done, and not told: {error}"));
        }
    }
}

/// By its real id, with the name that the system has for it; variables like `USER` say whatever one likes.
fn system_user() -> String {
    let id = rustix::process::getuid().as_raw().to_string();
    let known = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut names = known.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, uid) = (fields.next()?, fields.nth(1)?);
        (uid == id).then(|| name.to_owned())
    });
    names.next().unwrap_or(id)
}

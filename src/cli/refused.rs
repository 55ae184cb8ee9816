//! Why a command fails, and the exit code that tells supervisors whether a restart may help.

use std::io;
use std::process::ExitCode;

use crate::accounts::{self, HashError};
use crate::cli::screen;
use crate::model::UsernameError;
use crate::sessions::KeyringError;
use crate::store::{self, flask};
use crate::telemetry::audit;
use crate::{app, config, server, tokens};

/// sysexits.h: EX_CONFIG.
const WRONG_CONFIGURATION: u8 = 78;

/// Why a command fails. The text is for the person at the terminal.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The arguments or the input are wrong, or a process does not answer.
    #[error("{0}")]
    Input(String),
    /// A value in gateway.yaml, or a file that it names, is wrong.
    #[error("{0}")]
    Configuration(String),
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    App(#[from] app::Error),
    #[error(transparent)]
    Server(#[from] server::Error),
    #[error(transparent)]
    Audit(#[from] audit::Error),
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    #[error(transparent)]
    Unfetched(Box<app::Unfetched>),
    #[error(transparent)]
    Accounts(#[from] accounts::Error),
    #[error(transparent)]
    Username(#[from] UsernameError),
    #[error(transparent)]
    Hash(#[from] HashError),
    #[error(transparent)]
    Token(#[from] tokens::Error),
    #[error(transparent)]
    Key(#[from] tokens::KeyError),
    #[error(transparent)]
    Flask(#[from] flask::Error),
    #[error(transparent)]
    Request(#[from] http::Error),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl From<app::Unfetched> for Refused {
    fn from(error: app::Unfetched) -> Self {
        Self::Unfetched(Box::new(error))
    }
}

impl Refused {
    /// Says why, and gives the exit code.
    pub fn print(&self, errors: impl io::Write) -> ExitCode {
        screen::print(errors, format_args!("portcullis: {self}"));
        self.exit_code()
    }

    /// 78 where a restart does not help until the configuration is changed, else 1.
    fn exit_code(&self) -> ExitCode {
        if self.is_configuration() { ExitCode::from(WRONG_CONFIGURATION) } else { ExitCode::FAILURE }
    }

    fn is_configuration(&self) -> bool {
        match self {
            Self::Configuration(_) | Self::Config(_) | Self::Audit(_) => true,
            Self::Store(error) => error.is_configuration(),
            Self::App(error) => error.is_configuration(),
            Self::Server(error) => error.is_configuration(),
            Self::Keyring(error) => error.is_configuration(),
            Self::Input(_)
            | Self::Unfetched(_)
            | Self::Accounts(_)
            | Self::Username(_)
            | Self::Hash(_)
            | Self::Token(_)
            | Self::Key(_)
            | Self::Flask(_)
            | Self::Request(_)
            | Self::Json(_)
            | Self::Io(_) => false,
        }
    }
}

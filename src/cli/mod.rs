//! The command line: one file a command. Exit codes: 0 done, 1 the input was refused or the system failed, 2 wrong usage,
//! 70 a bug, 78 the configuration is wrong, which no restart changes.

mod check;
mod dossier;
mod explain;
mod health;
mod import;
mod keys;
mod password;
mod refused;
mod run;
mod schema;
mod screen;
mod tokens;
mod users;
mod witness;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::clock::UnixTime;
use crate::config::{self, Config};
use crate::sessions;
use crate::store::{self, Store};

use refused::Refused;

/// A reverse-proxy authentication gateway: it issues, enforces and revokes JWTs.
#[derive(Parser)]
#[command(name = "portcullis", version, about, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    config: ConfigPath,
}

/// Where the configuration is.
#[derive(Args, Clone)]
struct ConfigPath {
    /// The configuration file.
    #[arg(long = "config", value_name = "FILE", default_value = "gateway.yaml")]
    path: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway (the default).
    Run(run::Run),
    /// Check the configuration, and list every route with its rule, public ones first.
    Check(ConfigPath),
    /// Print the JSON Schema of gateway.yaml.
    Schema,
    /// Tell which route a request would take, what it would need, and what would be sent.
    Explain(explain::Explain),
    /// Manage accounts.
    #[command(subcommand)]
    Users(users::Users),
    /// Look into tokens, and revoke them.
    #[command(subcommand)]
    Tokens(tokens::Tokens),
    /// Take accounts and revoked tokens over from another program.
    #[command(subcommand)]
    Import(import::Import),
    /// Manage the keys that sign tokens.
    #[command(subcommand)]
    Keys(keys::Keys),
    /// Ask a running gateway whether it is ready: for a container's HEALTHCHECK.
    Health(ConfigPath),
}

/// Reads the command line and does what it says.
pub fn run() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version come this way too, to standard output and with 0.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let outcome = match arguments.command {
        None => return run::run(&arguments.config.path, false),
        Some(Command::Run(run)) => return run.run(),
        Some(Command::Check(config)) => check::check(&config.path),
        Some(Command::Schema) => schema::schema(),
        Some(Command::Explain(explain)) => explain.run(),
        Some(Command::Users(users)) => users.run(),
        Some(Command::Tokens(tokens)) => tokens.run(),
        Some(Command::Import(import)) => import.run(),
        Some(Command::Keys(keys)) => keys.run(),
        Some(Command::Health(config)) => health::health(&config.path),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(refused) => refused.print(std::io::stderr()),
    }
}

/// Prints a line.
fn say(line: impl std::fmt::Display) {
    screen::print(std::io::stdout(), line);
}

/// Prints a warning, to standard error.
fn warn(line: impl std::fmt::Display) {
    warn_on(std::io::stderr(), line);
}

fn warn_on(errors: impl Write, line: impl std::fmt::Display) {
    screen::print(errors, format_args!("portcullis: warning: {line}"));
}

/// Reads the configuration, with `${NAME}` from the environment; its warnings go to standard error.
fn load(path: &Path) -> Result<Config, Refused> {
    load_with(path, std::io::stderr)
}

/// The same; its warnings go to `errors`.
fn load_with<W: Write>(path: &Path, errors: impl Fn() -> W) -> Result<Config, Refused> {
    let config = config::load(path, &environment)?;
    for warning in &config.warnings {
        warn_on(errors(), format_args!("{}: {}", warning.key, warning.message));
    }
    Ok(config)
}

/// Opens the store, and makes it when it is missing; its warnings go to standard error.
fn open_store(config: &Config) -> Result<Store, Refused> {
    let store = Store::open(&config.store)?;
    store.warnings().iter().for_each(warn);
    Ok(store)
}

/// Opens the store, which must exist.
fn open_existing_store(config: &Config) -> Result<Store, Refused> {
    let store = Store::open_existing(&config.store)?;
    store.warnings().iter().for_each(warn);
    Ok(store)
}

/// The lookup of `${NAME}` that config is given.
fn environment(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "this is that lookup")]
    std::env::var(name).ok()
}

/// Runs a future to its end on a runtime of its own.
fn block_on<T>(future: impl Future<Output = Result<T, Refused>>) -> Result<T, Refused> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(future)
}

/// Until when a revocation of all tokens of an account must be kept, for whatever has ever been issued.
async fn keep_generation_until(store: &Store, config: &Config, now: UnixTime) -> Result<UnixTime, store::Error> {
    let longest: Duration = config.tokens.access_ttl.max(config.tokens.refresh_ttl);
    Ok(sessions::keep_generation_until(store.raise_longest_lifetime(longest).await?, now))
}

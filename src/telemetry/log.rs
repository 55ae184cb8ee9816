//! The log's format: JSON on a pipe, readable on a terminal.

use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use crate::clock;
use crate::config::{Log, LogFormat, LogLevel};
use crate::telemetry::output::Output;

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// For eyes.
    Text,
    /// For machines: one object a line.
    Json,
}

/// The shape that the setting means here: `auto` looks whether standard output is a terminal.
pub fn shape(log: &Log) -> Shape {
    match log.format {
        LogFormat::Text => Shape::Text,
        LogFormat::Json => Shape::Json,
        LogFormat::Auto if io::stdout().is_terminal() => Shape::Text,
        LogFormat::Auto => Shape::Json,
    }
}

static OUTPUT: OnceLock<Output> = OnceLock::new();

/// Sends all events of the program to standard output, panics too. Calling it again changes nothing.
///
/// # Errors
/// The system refuses a thread.
pub fn start(log: &Log) -> io::Result<()> {
    let output = Output::start(io::stdout())?;
    let level = match log.level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    // pingora tells of every step of its own; only its troubles are the operator's.
    let quiet = "pingora_core=warn,pingora_load_balancing=warn,pingora_runtime=warn";
    let filter = EnvFilter::new(format!("{level},{quiet}"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_timer(Rfc3339).with_target(false);
    let builder = builder.with_writer(output.clone());
    // A second start in one process keeps the first format.
    let started = match shape(log) {
        Shape::Text => builder.with_ansi(io::stdout().is_terminal()).try_init(),
        Shape::Json => builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
    };
    if started.is_ok() && OUTPUT.set(output).is_ok() {
        // Rust's own hook writes to standard error, and waits there.
        std::panic::set_hook(Box::new(|panic| tracing::error!("a bug: {panic}")));
    }
    Ok(())
}

/// Log lines that were lost so far.
pub fn lost_lines() -> u64 {
    OUTPUT.get().map_or(0, Output::lost)
}

/// Waits until the log is written, but not for long. To be called at the end of the process.
pub fn finish() {
    if let Some(output) = OUTPUT.get() {
        output.finish();
    }
}

struct Rfc3339;

impl FormatTime for Rfc3339 {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{}", clock::now())
    }
}

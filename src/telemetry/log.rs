//! The log: JSON on a pipe, readable on a terminal. Lines go to [`output`](crate::telemetry::output).

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::io::{self, IsTerminal};

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

/// Sends all events of the program to `output`, which is standard output. Calling it again changes nothing.
pub fn start(log: &Log, output: Output) {
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
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_timer(Rfc3339)
        .with_target(false)
        // It would write these to standard error, and wait for its reader.
        .log_internal_errors(false)
        .with_writer(output);
    // A second start in one process keeps the first format.
    let _ = match shape(log) {
        Shape::Text => builder.with_ansi(io::stdout().is_terminal()).try_init(),
        Shape::Json => builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
    };
}

/// Makes a panic a line of the log. The default is to write to standard error, which nothing may read.
pub fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("unnamed");
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        let text = panic.payload_as_str().unwrap_or("no text");
        let backtrace = Backtrace::capture();
        let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
        tracing::error!(thread, location, backtrace, "panic: {text}; this is a bug");
    }));
}

struct Rfc3339;

impl FormatTime for Rfc3339 {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{}", clock::now())
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::config::AuditTarget;

    /// Set in the process that panics.
    const CHILD: &str = "PORTCULLIS_TEST_PANIC";

    #[test]
    fn a_panic_is_the_last_line_of_the_log() {
        if std::env::var_os(CHILD).is_some() {
            let output = Output::start(io::stdout()).unwrap();
            let (format, level) = (LogFormat::Json, LogLevel::Info);
            let log = Log { format, level, access: true, audit: AuditTarget::Log };
            start(&log, output.clone());
            report_panics();
            let worker = std::thread::Builder::new().name("worker-7".into()).spawn(|| panic!("\"odd\"")).unwrap();
            assert!(worker.join().is_err());
            return output.finish();
        }
        let test = "telemetry::log::tests::a_panic_is_the_last_line_of_the_log";
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture"]).env(CHILD, "1").env_remove("RUST_BACKTRACE");
        let done = command.stdin(Stdio::null()).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        let text = String::from_utf8(done.stdout).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let [line] = &lines[..] else { panic!("{text}") };
        assert_eq!(line["message"], "panic: \"odd\"; this is a bug");
        assert_eq!((&line["level"], &line["thread"]), (&"ERROR".into(), &"worker-7".into()));
        assert!(line["location"].as_str().unwrap().starts_with("src/telemetry/log.rs:"), "{line}");
        assert_eq!(String::from_utf8(done.stderr).unwrap(), "", "nothing is written to standard error");
    }
}

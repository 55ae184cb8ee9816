//! What can be wrong with a file, and how it is told.

use std::fmt;
use std::path::{Path, PathBuf};

/// Something that works but deserves a loud word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Key path, for example `tokens.secret`.
    pub key: String,
    /// What is meant.
    pub message: String,
}

/// One thing that is wrong with the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Key path, for example `routes[2].upstream`; empty for an error of form.
    pub key: String,
    /// Line in the file, from 1, where it can be had.
    pub line: Option<usize>,
    /// Column in that line, from 1, for errors of form.
    pub column: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do about it; empty when the message says so already.
    pub remedy: String,
}

/// Why there is no [`Config`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be read.
    #[error("{}: {source}{}", path.display(), remedy(source))]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file was read, and is wrong in these points: all of them.
    #[error("{}", Listing { path, problems })]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// At least one.
        problems: Vec<Problem>,
        /// The files that it names, as far as it was read.
        files: Vec<PathBuf>,
    },
}

impl Error {
    /// The files that the wrong one names: what is wrong may be one of these.
    pub fn files(&self) -> &[PathBuf] {
        match self {
            Self::Read { .. } => &[],
            Self::Invalid { files, .. } => files,
        }
    }
}

fn remedy(source: &std::io::Error) -> &'static str {
    match source.kind() {
        std::io::ErrorKind::NotFound => {
            "; name the file with --config FILE (examples/minimal.yaml is one to begin with)"
        }
        _ => "",
    }
}

struct Listing<'a> {
    path: &'a Path,
    problems: &'a [Problem],
}

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{}", self.path.display())?;
            if let Some(line) = problem.line {
                write!(f, ":{line}")?;
            }
            if let Some(column) = problem.column {
                write!(f, ":{column}")?;
            }
            write!(f, ": ")?;
            if !problem.key.is_empty() {
                write!(f, "{}: ", problem.key)?;
            }
            write!(f, "{}", problem.message)?;
            if !problem.remedy.is_empty() {
                write!(f, "\n    {}", problem.remedy)?;
            }
        }
        Ok(())
    }
}

/// A value as it may stand in a message: in backticks, on one line, not too long.
pub(super) fn quote(value: &str) -> String {
    if value.is_empty() {
        return "an empty text".into();
    }
    let shown: String = value
        .chars()
        .take(60)
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect();
    let more = if value.chars().nth(60).is_some() { "…" } else { "" };
    format!("`{shown}{more}`")
}

/// What is wrong with one value, before it is known where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl Fault {
    /// Both texts.
    pub fn new(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { message: message.into(), remedy: remedy.into() }
    }
}

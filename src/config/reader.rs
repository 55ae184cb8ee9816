//! What all sections of the file are resolved with: expansion, bounds, and the list of what was found wrong.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::de::value::Error as WordError;

use super::Rate;
use super::expand;
use super::form;
use super::key::Key;
use super::locate;
use super::problem::{Fault, Problem, Warning, quote};
use super::scalar::{Choice, Frequency, Size, Text, Time, choose};
use super::units;

/// Finding a line costs a pass over the file, so that only the first problems get theirs.
const LOCATED: usize = 100;

/// Reads values of the file, and notes what is wrong with them.
pub(super) struct Reader<'a> {
    text: &'a str,
    folder: &'a Path,
    env: &'a dyn Fn(&str) -> Option<String>,
    problems: Vec<Problem>,
    warnings: Vec<Warning>,
    files: Vec<PathBuf>,
}

/// What a reader has noted beside values.
pub(super) struct Notes {
    /// Everything that was wrong, in the order of the file.
    pub problems: Vec<Problem>,
    /// What deserves a word.
    pub warnings: Vec<Warning>,
    /// All files that the configuration names, there or not.
    pub files: Vec<PathBuf>,
}

impl<'a> Reader<'a> {
    /// A reader of the file `text`, which lies in `folder`.
    pub fn new(text: &'a str, folder: &'a Path, env: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { text, folder, env, problems: Vec::new(), warnings: Vec::new(), files: Vec::new() }
    }

    /// The folder that relative paths start from.
    pub fn folder(&self) -> &'a Path {
        self.folder
    }

    /// For a file that is not there: where its path starts from, unless it is absolute.
    pub fn start_of(&self, path: &str) -> String {
        if Path::new(path).is_absolute() {
            return String::new();
        }
        // Of a file in the working folder the folder is empty.
        let folder = std::path::absolute(self.folder.join("."));
        let folder = folder.map_or_else(|_| String::new(), |folder| format!(": {}", folder.display()));
        format!("A relative path starts from the folder of the configuration file{folder}")
    }

    /// What was noted.
    pub fn finish(mut self) -> Notes {
        self.problems.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
        Notes { problems: self.problems, warnings: self.warnings, files: self.files }
    }

    /// `path` from [`Self::folder`], noted as a file that the configuration is made of.
    pub fn file(&mut self, path: impl AsRef<Path>) -> PathBuf {
        let path = self.folder.join(path);
        self.files.push(path.clone());
        path
    }

    /// Notes that the value of `key` is wrong.
    pub fn refuse(&mut self, key: &Key, message: impl Into<String>, remedy: impl Into<String>) {
        let line = self.line(key);
        let (message, remedy) = (message.into(), remedy.into());
        self.problems.push(Problem { key: key.to_string(), line, column: None, message, remedy });
    }

    /// Notes that the value of `key` works but deserves a word.
    pub fn warn(&mut self, key: &Key, message: impl Into<String>) {
        self.warnings.push(Warning { key: key.to_string(), message: message.into() });
    }

    /// The line of `key`.
    pub fn line(&self, key: &Key) -> Option<usize> {
        (self.problems.len() < LOCATED).then(|| locate::find(self.text, key))?.map(|at| at.line)
    }

    /// The value, or `None` with its fault noted.
    pub fn accept<T>(&mut self, key: &Key, value: Result<T, Fault>) -> Option<T> {
        value.map_err(|fault| self.refuse(key, fault.message, fault.remedy)).ok()
    }

    /// A variable of the environment, unless it is empty.
    pub fn variable(&self, name: &str) -> Option<String> {
        (self.env)(name).filter(|value| !value.is_empty())
    }

    /// `text` with its variables expanded.
    pub fn expand(&mut self, key: &Key, text: &str) -> Option<String> {
        let errors = match expand::expand(text, self.env) {
            Ok(expanded) => return Some(expanded),
            Err(errors) => errors,
        };
        for error in errors {
            self.refuse(key, error.to_string(), error.remedy());
        }
        None
    }

    /// Expanded and parsed.
    pub fn parse<T>(&mut self, key: &Key, text: &Text, parse: impl FnOnce(&str) -> Result<T, Fault>) -> Option<T> {
        let text = self.expand(key, &text.0)?;
        self.accept(key, parse(&text))
    }

    /// Text that must not be empty and has no control characters.
    pub fn line_of_text(&mut self, key: &Key, text: Option<&Text>) -> Option<String> {
        self.parse(key, text?, |text| match text {
            "" => Err(Fault::new("is empty", "Leave the key out instead")),
            _ if text.contains(char::is_control) => Err(Fault::new("holds a control character", "")),
            _ => Ok(text.to_owned()),
        })
    }

    /// One word of a closed list.
    pub fn choice<E: DeserializeOwned>(&mut self, key: &Key, choice: Option<Choice<E>>, default: E) -> E {
        let text = match choice {
            None => return default,
            Some(Choice::Made(word)) => return word,
            Some(Choice::Open(text)) => text,
        };
        let Some(word) = self.expand(key, &text) else { return default };
        match choose::<E, WordError>(&word) {
            Ok(made) => made,
            Err(error) => {
                let error = error.to_string();
                let (message, remedy) =
                    form::unknown_word(&word, error.rsplit_once("`, expected ").map_or("", |(_, list)| list));
                self.refuse(key, message, remedy);
                default
            }
        }
    }

    /// A duration of at least `least`.
    pub fn duration(&mut self, key: &Key, time: Option<Time>, default: Duration, least: Duration) -> Duration {
        let Some(Time(text)) = time else { return default };
        let Some(text) = self.expand(key, &text) else { return default };
        let Some(duration) = units::parse_duration(&text) else {
            let message = format!("{} is not a duration", quote(&text));
            self.refuse(key, message, "Write such as 500ms, 10s, 15m, 1h30m or 30d");
            return default;
        };
        if duration < least {
            self.refuse(key, format!("must be at least {}", units::show_duration(least)), "");
            return default;
        }
        if duration > units::LONGEST {
            self.refuse(key, "must be at most ten years (3650d)", "");
            return default;
        }
        duration
    }

    /// A rate: 1 to a million within 1 ms to a day.
    pub fn rate(&mut self, key: &Key, rate: Option<Frequency>) -> Option<Rate> {
        let text = self.expand(key, &rate?.0)?;
        self.written_rate(key, &text, "Write such as 100/s, 5/15m or 1000/h")
    }

    /// A rate, or `off`.
    pub fn rate_or_off(&mut self, key: &Key, rate: Option<Frequency>, default: &str) -> Option<Rate> {
        let written = rate.map_or_else(|| default.to_owned(), |Frequency(text)| text);
        let text = self.expand(key, &written)?;
        if text == "off" { None } else { self.written_rate(key, &text, "Write such as 5/15m or 50/5m, or off") }
    }

    fn written_rate(&mut self, key: &Key, text: &str, remedy: &'static str) -> Option<Rate> {
        let Some((count, per)) = units::parse_rate(text) else {
            self.refuse(key, format!("{} is not a rate", quote(text)), remedy);
            return None;
        };
        let count = u32::try_from(count).ok().filter(|count| *count <= 1_000_000).and_then(NonZeroU32::new);
        let Some(count) = count else {
            self.refuse(key, "the count must be from 1 to 1000000", "");
            return None;
        };
        if !(Duration::from_millis(1)..=Duration::from_secs(86_400)).contains(&per) {
            self.refuse(key, "the time must be from 1ms to 1d", "");
            return None;
        }
        Some(Rate { count, per })
    }

    /// The path of a PEM file, from [`Self::folder`] when it is relative.
    pub fn path(&mut self, key: &Key, text: Option<&Text>) -> Option<PathBuf> {
        let path = self.parse(key, text?, |text| match text {
            _ if text.is_empty() || text.ends_with('/') || text.contains(char::is_control) => {
                Err(Fault::new("does not name a file", "Write its path, such as tls/site.pem"))
            }
            _ => Ok(text.to_owned()),
        })?;
        Some(self.file(path))
    }

    /// A size within `range`.
    pub fn size(&mut self, key: &Key, size: Option<Size>, default: u64, range: RangeInclusive<u64>) -> u64 {
        let bytes = match size {
            None => return default,
            Some(Size::Bytes(bytes)) => bytes,
            Some(Size::Written(text)) => {
                let Some(text) = self.expand(key, &text) else { return default };
                let Some(bytes) = units::parse_size(&text) else {
                    self.refuse(
                        key,
                        format!("{} is not a size", quote(&text)),
                        "Write such as 512B, 64KiB, 1MiB or 2GiB",
                    );
                    return default;
                };
                bytes
            }
        };
        if range.contains(&bytes) {
            return bytes;
        }
        let (least, most) = (units::show_size(*range.start()), units::show_size(*range.end()));
        self.refuse(key, format!("must be from {least} to {most}"), "");
        default
    }

    /// A whole number within `range`.
    pub fn number(&mut self, key: &Key, number: Option<u64>, default: u64, range: RangeInclusive<u64>) -> u64 {
        let number = number.unwrap_or(default);
        if range.contains(&number) {
            return number;
        }
        self.refuse(key, format!("must be from {} to {}", range.start(), range.end()), "");
        default
    }
}

//! Errors of form, made readable: where, what, and what was probably meant.

use serde_yaml::Value;

use super::advice;
use super::file::File;
use super::key::{Key, Step};
use super::locate::{self, Position};
use super::origin::NULL as NULL_ORIGIN;
use super::problem::{Problem, quote};
use super::spelling;

const VARIABLE: &str = "`${NAME}` is expanded only where text is expected: write the value itself";

/// Reads the text of a file.
///
/// # Errors
/// The first error of form.
pub(super) fn read(text: &str) -> Result<File, Problem> {
    let error = match parse(text) {
        Ok(file) => return Ok(file),
        Err(error) => error,
    };
    match merge(text) {
        None => Err(explain(text, &error, true)),
        // The merged text has its own lines: only the key path of its error is of use.
        Some(Ok(merged)) => parse(&merged).map_err(|error| explain(text, &error, false)),
        Some(Err(error)) => Err(explain(text, &error, true)),
    }
}

fn parse(text: &str) -> Result<File, serde_yaml::Error> {
    serde_yaml::from_str::<Option<File>>(text).map(Option::unwrap_or_default)
}

/// The text with its `<<` merged, if it has any: `serde_yaml` can do that only to a tree without positions.
fn merge(text: &str) -> Option<Result<String, serde_yaml::Error>> {
    let before: Value = text.contains("<<").then(|| serde_yaml::from_str(text).ok())??;
    let mut tree = before.clone();
    if let Err(error) = tree.apply_merge() {
        return Some(Err(error));
    }
    (tree != before).then(|| serde_yaml::to_string(&tree))
}

/// What is known of an error before it is put into words.
struct Fact<'a> {
    text: &'a str,
    /// The mapping, list or value that was being read.
    key: Key,
    message: String,
    at: Option<Position>,
}

fn explain(text: &str, error: &serde_yaml::Error, exact: bool) -> Problem {
    let mut message = error.to_string();
    let mut at = None;
    if let Some(place) = error.location() {
        message = message.replacen(&format!(" at line {} column {}", place.line(), place.column()), "", 1);
        at = exact.then(|| Position { line: place.line(), column: place.column() });
    }
    let (key, message) = match message.split_once(": ") {
        Some((path, rest)) if !path.contains(char::is_whitespace) => (Key::of(path), rest.to_owned()),
        _ => (Key::default(), message),
    };
    let fact = Fact { text, key, message, at };
    fact.unknown_key()
        .or_else(|| fact.missing_key())
        .or_else(|| fact.duplicate_key())
        .or_else(|| fact.unknown_word())
        .or_else(|| fact.wrong_type())
        .unwrap_or_else(|| fact.other())
}

impl Fact<'_> {
    fn problem(&self, key: &Key, message: String, remedy: String) -> Problem {
        let at = self.at.or_else(|| locate::find(self.text, key));
        Problem { key: key.to_string(), line: at.map(|at| at.line), column: at.map(|at| at.column), message, remedy }
    }

    fn unknown_key(&self) -> Option<Problem> {
        let (name, expected) = self.message.strip_prefix("unknown field `")?.split_once("`, ")?;
        let key = self.key.name(name);
        let known = ticked(expected);
        let hint = advice::hint(&self.place(), name);
        let hint = hint.unwrap_or_else(|| spelling::hint(name, known.iter().copied()));
        let remedy = format!("{hint}The keys here are: {}", known.join(", "));
        Some(self.problem(&key, format!("there is no key {} here", quote(name)), remedy))
    }

    fn missing_key(&self) -> Option<Problem> {
        let name = self.message.strip_prefix("missing field `")?.strip_suffix('`')?;
        Some(self.problem(&self.key, format!("`{name}` is missing"), String::new()))
    }

    fn duplicate_key(&self) -> Option<Problem> {
        let field = self.message.strip_prefix("duplicate field `").and_then(|rest| rest.strip_suffix('`'));
        let entry = || self.message.strip_prefix("duplicate entry with key \"").and_then(|rest| rest.strip_suffix('"'));
        let name = field.or_else(entry)?;
        let key = self.key.name(name);
        let mut problem = self.problem(&key, format!("{} stands twice", quote(name)), "Keep one of the two".into());
        if let Some(second) = locate::find_second(self.text, &key) {
            (problem.line, problem.column) = (Some(second.line), Some(second.column));
        }
        Some(problem)
    }

    fn unknown_word(&self) -> Option<Problem> {
        let (word, expected) = self.message.strip_prefix("unknown variant `")?.rsplit_once("`, expected ")?;
        let (message, remedy) = unknown_word(word, expected);
        Some(self.problem(&self.key, message, remedy))
    }

    /// The value itself is left out: it might be a secret.
    fn wrong_type(&self) -> Option<Problem> {
        let rest = ["invalid type: ", "invalid value: "].iter().find_map(|start| self.message.strip_prefix(start))?;
        let (found, expected) = rest.rsplit_once(", expected ")?;
        let expected = match expected {
            "u64" => "a whole number, not negative",
            "a boolean" => "`true` or `false`",
            "a sequence" => "a list",
            _ if expected.starts_with("struct ") || expected == "a map" => "a mapping",
            other => other,
        };
        let place = self.place();
        let variable = found.contains("${").then_some(VARIABLE);
        if let Some(remedy) = advice::remedy(&place, expected).filter(|_| variable.is_none()) {
            return Some(self.problem(&self.key, format!("expected {expected}, found {}", noun(found)), remedy));
        }
        let remedy = match (found, expected) {
            ("unit value", "text") if place.ends_with(".cors.origins") => NULL_ORIGIN,
            (_, "text") if found != "map" && found != "sequence" && found != "unit value" => "Put it in quotes",
            (_, "a list") if found.starts_with("string") => "Write [one, two], or each on a line of its own after `- `",
            _ => variable.unwrap_or_default(),
        };
        let message = format!("expected {expected}, found {}", noun(found));
        Some(self.problem(&self.key, message, remedy.into()))
    }

    fn other(&self) -> Problem {
        if self.message.contains("more than one document") {
            return self.second_document();
        }
        let (message, remedy) = match self.message.as_str() {
            text if text.contains("cannot start any token") && self.has_tab() => {
                ("a line is indented with a tab", "YAML is indented with spaces only")
            }
            text if text.contains("while scanning an alias") => {
                ("no name follows the `*` that stands here", "Text that begins with `*` goes in quotes")
            }
            text if text.contains("unknown anchor") => {
                ("no anchor has the name that stands here after `*`", "Text that begins with `*` goes in quotes")
            }
            text if text.contains("flow") && self.line().contains("${") => {
                (text, "Within { } or [ ] a `${NAME}` goes in quotes: \"${NAME}\"")
            }
            text => (text, ""),
        };
        self.problem(&self.key, message.into(), remedy.into())
    }

    /// `serde_yaml` does not say where it begins: at the first `---` after some content.
    fn second_document(&self) -> Problem {
        let content = |line: &&str| !line.trim().is_empty() && !line.starts_with(['#', '%']) && *line != "---";
        let before = self.text.lines().take_while(|line| !content(line)).count();
        let marker = self.text.lines().skip(before).position(|line| line.starts_with("---"));
        let line = marker.map(|after| before + after + 1);
        let (message, remedy) = ("there is more than one document in the file", "Remove the `---` between them");
        Problem { key: String::new(), line, column: line.map(|_| 1), message: message.into(), remedy: remedy.into() }
    }

    /// The line that the error was found in.
    fn line(&self) -> &str {
        self.at.and_then(|at| self.text.lines().nth(at.line.saturating_sub(1))).unwrap_or_default()
    }

    fn has_tab(&self) -> bool {
        self.line().chars().take_while(|c| c.is_whitespace()).any(|c| c == '\t')
    }

    /// The key without indexes, and with `*` for the name of an upstream.
    fn place(&self) -> String {
        let names = self.key.steps().iter().filter_map(|step| match step {
            Step::Name(name) => Some(name.as_str()),
            Step::Index(_) => None,
        });
        let mut names: Vec<&str> = names.collect();
        if let ["upstreams", name, ..] = names.as_mut_slice() {
            *name = "*";
        }
        names.join(".")
    }
}

/// Message and remedy for a word that is not in a closed list; `expected` names the list as serde does.
pub(super) fn unknown_word(word: &str, expected: &str) -> (String, String) {
    let known = ticked(expected);
    let hint = spelling::hint(word, known.iter().copied());
    (format!("{} is not possible here", quote(word)), format!("{hint}Possible are: {}", known.join(", ")))
}

/// The words between backticks.
fn ticked(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

fn noun(found: &str) -> &'static str {
    let kinds = [
        ("string", "text"),
        ("integer", "a number"),
        ("floating point", "a number"),
        ("boolean", "a truth value"),
        ("sequence", "a list"),
        ("map", "a mapping"),
        ("unit value", "nothing"),
    ];
    kinds.iter().find(|(kind, _)| found.starts_with(kind)).map_or("something else", |(_, noun)| noun)
}

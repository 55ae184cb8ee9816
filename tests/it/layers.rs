//! The house of DESIGN.md, section 2, enforced by reading the sources: who may import whom, and which crate lives where.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Each module, lowest first, and the modules that it may name.
const HOUSE: [(&str, &[&str]); 15] = [
    ("clock", &[]),
    ("secret", &[]),
    ("model", &["clock", "secret"]),
    ("config", &["model", "secret"]),
    ("telemetry", &["config", "clock"]),
    ("message", &["model"]),
    ("store", &["config", "model", "secret", "clock"]),
    ("tokens", &["config", "model", "secret", "clock"]),
    ("accounts", &["store", "config", "model", "secret", "clock"]),
    ("sessions", &["store", "tokens", "config", "model", "clock"]),
    ("identity", &["accounts", "sessions", "tokens", "message", "model", "config", "clock", "secret", "telemetry"]),
    ("upstream", &["sessions", "message", "config", "model", "telemetry", "clock"]),
    ("gate", &["identity", "upstream", "sessions", "message", "config", "model", "clock", "telemetry"]),
    ("app", ABOVE_ALL),
    ("server", &["app", "gate", "message", "config", "telemetry", "clock"]),
];

/// May name every module of the house; so may `cli`, `main` and `lib`.
const ABOVE_ALL: &[&str] = &["*"];

/// Paths of crates that only some modules may name.
const FENCES: [(&str, &[&str]); 19] = [
    ("serde_yaml", &["config"]),
    ("schemars", &["config"]),
    ("tracing_subscriber", &["telemetry"]),
    ("prometheus", &["telemetry"]),
    ("rusqlite", &["store"]),
    ("tokio_postgres", &["store"]),
    ("jsonwebtoken", &["tokens"]),
    ("argon2", &["accounts"]),
    ("scrypt", &["accounts"]),
    ("moka", &["sessions"]),
    ("governor", &["gate"]),
    ("hyper::client", &["upstream"]),
    ("h2::client", &["upstream"]),
    ("rustls_native_certs", &["upstream"]),
    ("tokio_rustls", &["server", "upstream"]),
    ("listenfd", &["server"]),
    ("pingora", &["server", "upstream"]),
    ("hyper::server", &["server"]),
    ("clap", &["cli"]),
];

/// Longest file, up to its tests, and longest function.
const FILE_LINES: usize = 400;
const FUNCTION_LINES: usize = 60;

struct Source {
    path: PathBuf,
    /// The top-level module that it belongs to.
    module: String,
    text: String,
}

impl Source {
    /// The lines before the tests, comments blanked.
    fn code(&self) -> Vec<String> {
        let before_tests = self.text.lines().take_while(|line| line.trim() != "#[cfg(test)]");
        before_tests.map(|line| line.split("//").next().unwrap_or_default().to_owned()).collect()
    }

    /// A module of tests only: it may look at everything.
    fn is_test(&self) -> bool {
        self.path.components().any(|part| part.as_os_str() == "tests") || self.path.ends_with("tests.rs")
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                let inside = path.strip_prefix(&root).unwrap();
                let first = inside.components().next().unwrap().as_os_str().to_string_lossy();
                let module = first.trim_end_matches(".rs").to_owned();
                let text = std::fs::read_to_string(&path).unwrap();
                found.push(Source { path: inside.to_owned(), module, text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// The modules that `code` names as `crate::NAME`, also within a group.
fn named_modules(code: &str) -> BTreeSet<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            names.insert(word(rest));
            continue;
        };
        let mut depth = 0;
        let mut expects_name = true;
        for (index, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => expects_name = true,
                c if expects_name && (c.is_alphanumeric() || c == '_') => {
                    names.insert(word(&group[index..]));
                    expects_name = false;
                }
                _ => {}
            }
        }
    }
    names
}

/// Whether `code` names the crate path, as a path of its own; a crate of that name and a suffix (`pingora_core`) counts.
fn names_path(code: &str, path: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(path).any(|(at, _)| {
        let before = &code[..at];
        let after = code[at + path.len()..].trim_start_matches(is_word);
        let starts = !before.ends_with(|c: char| is_word(c) || matches!(c, ':' | '.' | '"'));
        let suffix = &code[at + path.len()..code.len() - after.len()];
        let own = suffix.is_empty() || suffix.starts_with('_');
        starts && own && (after.starts_with("::") || after.starts_with(';') && before.ends_with("use "))
    })
}

#[test]
fn a_module_names_only_what_its_row_lists() {
    let houses: BTreeSet<&str> = HOUSE.iter().map(|(name, _)| *name).chain(["cli"]).collect();
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        let Some((_, allowed)) = HOUSE.iter().find(|(name, _)| *name == source.module) else {
            if !["cli", "main", "lib"].contains(&source.module.as_str()) {
                wrong.push(format!("{}: {} is no room of the house", source.path.display(), source.module));
            }
            continue;
        };
        for name in named_modules(&source.code().join("\n")) {
            let own = name == source.module || !houses.contains(name.as_str());
            if !own && allowed != &ABOVE_ALL && !allowed.contains(&name.as_str()) {
                wrong.push(format!("{}: may not name crate::{name}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_fenced_crate_stays_in_its_room() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        let code = source.code().join("\n");
        for (path, rooms) in FENCES {
            if names_path(&code, path) && !rooms.contains(&source.module.as_str()) {
                wrong.push(format!("{}: {path} belongs to {}", source.path.display(), rooms.join(", ")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_file_opens_with_its_purpose_and_ends_in_time() {
    let mut wrong = Vec::new();
    for source in sources() {
        let shown = source.path.display();
        if !source.text.starts_with("//!") {
            wrong.push(format!("{shown}: the first line is no //! line"));
        }
        let code = source.code();
        if !source.is_test() && code.len() > FILE_LINES {
            wrong.push(format!("{shown}: {} lines before its tests, {FILE_LINES} at most", code.len()));
        }
        for (name, lines) in functions(&code) {
            if lines > FUNCTION_LINES && !source.is_test() {
                wrong.push(format!("{shown}: {name} has {lines} lines, {FUNCTION_LINES} at most"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Each function and how many lines it has, from `fn` to the brace in the same column: rustfmt lays them out so.
fn functions(code: &[String]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (start, line) in code.iter().enumerate() {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        let is_function =
            text.split(' ').take_while(|word| !word.contains('(')).any(|word| word == "fn") || text.starts_with("fn ");
        if !is_function || text.ends_with(';') {
            continue;
        }
        let brace = format!("{}}}", " ".repeat(indent));
        if let Some(length) = code[start..].iter().position(|line| line.trim_end() == brace) {
            found.push((text.split('(').next().unwrap_or(text).to_owned(), length + 1));
        }
    }
    found
}

#[test]
fn the_readers_of_sources_read_right() {
    let code = "use crate::{a::B, c::{d, e}, f};\nuse crate::g::H;\nlet x = mycrate::no; $crate::i";
    let names = named_modules(code).into_iter().collect::<Vec<_>>();
    assert_eq!(names, ["a", "c", "f", "g", "i"]);
    assert!(names_path("use moka::sync::Cache;", "moka") && names_path("fn f(x: pingora_core::X)", "pingora"));
    assert!(names_path("use clap;", "clap") && names_path("hyper::client::conn::http1::f()", "hyper::client"));
    assert!(!names_path("struct X { argon2: u8 }", "argon2") && !names_path("x.argon2;", "argon2"));
    assert!(!names_path("use crate::moka::Cache;", "moka") && !names_path("let argon2id = 1;", "argon2"));
    let code = [
        "pub fn one() {",
        "    let x = 1;",
        "}",
        "fn two() {}",
        "impl X {",
        "    async fn three(",
        "    ) {",
        "    }",
        "}",
    ];
    let found = functions(&code.map(str::to_owned));
    assert!(found.contains(&("pub fn one".into(), 3)) && found.contains(&("async fn three".into(), 3)), "{found:?}");
}

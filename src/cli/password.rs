//! Where a command has a new password from. Never an argument: those are seen by everyone on the machine.

use std::fmt::Display;
use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use clap::Args;

use crate::cli::Refused;
use crate::model::Username;
use crate::secret::Secret;

/// More is no password, but a mistake.
const LARGEST: u64 = 64 * 1024;

#[derive(Args)]
pub struct PasswordSource {
    /// Read the password from this file, which holds one line. So does standard input, if it is no terminal.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

impl PasswordSource {
    pub fn read(&self, username: &Username) -> Result<Secret, Refused> {
        if let Some(path) = &self.password_file {
            let file = File::open(path).map_err(|error| Refused::Input(format!("{}: {error}", path.display())))?;
            return Ok(Secret::new(only_line(file, path.display())?.unwrap_or_default()));
        }
        let input = std::io::stdin();
        if input.is_terminal() {
            return ask(username);
        }
        let line = only_line(input.lock(), "standard input")?;
        let missing = "no password came on standard input; run it in a terminal, or give --password-file FILE";
        Ok(Secret::new(line.ok_or_else(|| Refused::Input(missing.into()))?))
    }
}

fn ask(username: &Username) -> Result<Secret, Refused> {
    let prompt = |text: &str| {
        let failed = |error| {
            let remedy = "give --password-file FILE, or the password on standard input through a pipe";
            Refused::Input(format!("there is no terminal to ask for the password on: {error}; {remedy}"))
        };
        rpassword::prompt_password(text).map_err(failed)
    };
    let first = prompt(&format!("Password for {username}: "))?;
    if prompt("Once more: ")? != first {
        return Err(Refused::Input("the two passwords differ; nothing was changed".into()));
    }
    Ok(Secret::new(first))
}

/// The one line there is, without its end and without the mark that some editors put at the beginning; `None` where there is
/// nothing at all.
fn only_line(source: impl Read, name: impl Display) -> Result<Option<String>, Refused> {
    let refused = |why: &str| Refused::Input(format!("{name}: {why}; nothing was changed"));
    let mut bytes = Vec::new();
    let read = source.take(LARGEST + 1).read_to_end(&mut bytes);
    let length = read.map_err(|error| refused(&error.to_string()))?;
    if length == 0 {
        return Ok(None);
    }
    if length as u64 > LARGEST {
        return Err(refused("this is longer than 64 KiB, and no password"));
    }
    let text = str::from_utf8(&bytes).map_err(|_| refused("the password is no text in UTF-8"))?;
    let mut lines = text.strip_prefix('\u{feff}').unwrap_or(text).split('\n');
    let first = lines.next().unwrap_or_default();
    if lines.any(|line| !line.trim_end_matches('\r').is_empty()) {
        return Err(refused("there are several lines, and a password is one; leave the others out"));
    }
    Ok(Some(first.strip_suffix('\r').unwrap_or(first).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_one_line() {
        for good in ["pass word ", "pass word \n", "pass word \r\n", "\u{feff}pass word \r\n\r\n\n"] {
            let line = only_line(good.as_bytes(), "f");
            assert_eq!(line.ok().flatten().as_deref(), Some("pass word "), "{good:?}");
        }
        assert!(only_line(&b""[..], "f").is_ok_and(|line| line.is_none()));
        for empty in ["\n", "\r\n", "\u{feff}"] {
            assert!(only_line(empty.as_bytes(), "f").is_ok_and(|line| line.as_deref() == Some("")), "{empty:?}");
        }
        for (bad, why) in [
            (&b"one\ntwo"[..], "several lines"),
            (b"\none", "several lines"),
            (b"one\n \n", "several lines"),
            (b"p\xff", "UTF-8"),
        ] {
            assert!(only_line(bad, "f").is_err_and(|refused| refused.to_string().contains(why)), "{bad:?}");
        }
        let longest = "x".repeat(64 * 1024);
        assert!(only_line(longest.as_bytes(), "f").is_ok());
        assert!(only_line(std::io::repeat(b'x'), "f").is_err_and(|refused| refused.to_string().contains("64 KiB")));
    }
}

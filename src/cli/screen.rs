//! What a person at a terminal sees. Tokens, files and configurations are made by anybody: nothing in them may steer the
//! terminal, or make it show another order than is written.

use std::fmt::{self, Display, Write as _};
use std::io;

use crate::telemetry::access::is_deceptive;

/// Writes a line, and what is in it that a terminal would obey as an escape of JSON: of newlines and tabs there are good ones.
/// A closed pipe (`portcullis check | head`) is no error.
pub fn print(mut out: impl io::Write, line: impl Display) {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = writeln!(Plain(&mut text), "{line}");
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Lets through what is harmless.
struct Plain<'a>(&'a mut String);

impl fmt::Write for Plain<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                '\n' | '\t' => self.0.push(c),
                c if c.is_control() || is_deceptive(c) => write!(self.0, "\\u{:04x}", u32::from(c))?,
                c => self.0.push(c),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_has_nothing_to_obey() {
        let mut out = Vec::new();
        print(&mut out, "ä\t\"\u{1b}]0;x\u{7}\u{9b}2J\u{7f}\r\u{202e}\u{2066}\u{feff}\nü");
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "ä\t\"\\u001b]0;x\\u0007\\u009b2J\\u007f\\u000d\\u202e\\u2066\\ufeff\nü\n"
        );
    }
}

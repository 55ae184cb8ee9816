//! A name that somebody else gave, as people are shown it.

use std::fmt::{self, Display, Write};

/// At most 256 characters, and all on one line: there may be 50 MB in it, or lines that look like ours.
pub struct Shown<'a>(pub &'a str);

impl Shown<'_> {
    const LONGEST: usize = 256;
}

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, c) in self.0.chars().enumerate() {
            if index == Self::LONGEST {
                return f.write_char('…');
            }
            if c.is_control() { write!(f, "{}", c.escape_default())? } else { f.write_char(c)? }
        }
        Ok(())
    }
}

/// In quotes, all that is not plainly visible escaped.
impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(Self::LONGEST) {
            Some((end, _)) => write!(f, "{:?}…", self.0.get(..end).unwrap_or_default()),
            None => write!(f, "{:?}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_and_of_one_line() {
        assert_eq!(Shown("O'Neil \"ä\"").to_string(), "O'Neil \"ä\"");
        assert_eq!(Shown("a\nverdict:\u{1b}[2J\u{9b}").to_string(), "a\\nverdict:\\u{1b}[2J\\u{9b}");
        assert_eq!(format!("{:?}", Shown("a\n\u{202e}")), "\"a\\n\\u{202e}\"");
        let long = "é".repeat(1000);
        assert_eq!(Shown(&long).to_string().chars().count(), 257);
        assert_eq!(format!("{:?}", Shown(&long)).chars().count(), 259);
        assert_eq!(Shown(&"é".repeat(256)).to_string(), "é".repeat(256));
    }
}

//! What a segment could be taken for: dot segments and slashes that are not written as such.

use std::borrow::Cow;

use super::{PathError, SPECIAL, class, count_encoded_slashes, decode, hex};

/// How often a segment is decoded in the search for dots: the first full decoding, and three more.
const DECODINGS: usize = 4;

/// Refuses a segment that is, or holds, a dot segment in some other reading, or that hides `.`, `/` or `\` deeper than
/// one encoding. Percent-encoded text must be UTF-8 at the first decoding; deeper, `100%25ff` is somebody's data.
pub(super) fn check(segment: &[u8]) -> Result<(), PathError> {
    if !segment.iter().any(|&byte| class(byte) & SPECIAL != 0) {
        return Ok(());
    }
    let mut reading = Reading::of(segment);
    let visible = reading.marks + count_encoded_slashes(segment);
    let mut text = Cow::Borrowed(segment);
    for level in 0..=DECODINGS {
        if level < 2 && !text.is_ascii() {
            check_characters(&text)?;
        }
        if reading.marks > visible {
            return Err(PathError::EncodedTwice);
        }
        if reading.dots {
            return Err(PathError::HiddenDots);
        }
        let next = decode(&text);
        if next.len() == text.len() {
            break;
        }
        reading = Reading::of(&next);
        text = Cow::Owned(next);
    }
    Ok(())
}

fn check_characters(text: &[u8]) -> Result<(), PathError> {
    for character in std::str::from_utf8(text).map_err(|_| PathError::Utf8)?.chars() {
        match character {
            '\u{ff0e}' | '\u{ff0f}' | '\u{ff3c}' => return Err(PathError::Fullwidth),
            _ if character.is_control() => return Err(PathError::Control),
            _ => {}
        }
    }
    Ok(())
}

/// What the most careless of servers finds in a segment: one that takes `\`, overlong and look-alike characters for
/// what they resemble, cuts at `;`, and drops blanks.
struct Reading {
    /// Some part of it is `.` or `..`.
    dots: bool,
    /// How many `.`, `/` and `\` it holds, in any notation but mere look-alikes.
    marks: usize,
}

/// One character in the eyes of that server.
enum Mark {
    Dots(usize),
    Slash,
    Params,
    Blank,
    Other,
}

impl Reading {
    fn of(text: &[u8]) -> Self {
        let mut this = Self { dots: false, marks: 0 };
        let (mut dots, mut blank, mut other, mut cut) = (0, false, false, false);
        let mut rest = text;
        loop {
            let (mark, length, counts) = mark(rest);
            this.marks += usize::from(counts);
            match mark {
                _ if rest.is_empty() => {}
                Mark::Slash => {}
                _ if cut => {}
                Mark::Dots(count) => dots += count,
                Mark::Params => cut = true,
                Mark::Blank => blank = true,
                Mark::Other => other = true,
            }
            if rest.is_empty() || matches!(mark, Mark::Slash) {
                // `.+` stays where it is even when it is read as `.`, and is somebody's regular expression.
                this.dots |= !other && (dots == 2 || dots == 1 && !blank);
                (dots, blank, other, cut) = (0, false, false, false);
            }
            if rest.is_empty() {
                return this;
            }
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}

/// The first character of `text`, its length in bytes, and whether it is one of the marks that [`Reading`] counts.
fn mark(text: &[u8]) -> (Mark, usize, bool) {
    let resembling = |code: u16, length| match char::from_u32(u32::from(code)).map(resembles) {
        Some((mark, counts)) if !matches!(mark, Mark::Other) => (mark, length, counts || length == 6),
        _ => (Mark::Other, 1, false),
    };
    match *text {
        [b'.', ..] => (Mark::Dots(1), 1, true),
        [b'/' | b'\\', ..] => (Mark::Slash, 1, true),
        [b';', ..] => (Mark::Params, 1, false),
        [b'\0' | b'\t' | b'\n' | b'\r' | b' ' | b'+' | 0xff, ..] => (Mark::Blank, 1, false),
        [b'%', b'u' | b'U', a, b, c, d, ..] => match (hex(a, b), hex(c, d)) {
            (Some(high), Some(low)) => resembling(u16::from_be_bytes([high, low]), 6),
            _ => (Mark::Other, 1, false),
        },
        [0xc0, 0xae, ..] => (Mark::Dots(1), 2, true),
        [0xc0, 0xaf, ..] | [0xc1, 0x9c, ..] => (Mark::Slash, 2, true),
        [0xe0, 0x80, 0xae, ..] => (Mark::Dots(1), 3, true),
        [0xe0, 0x80, 0xaf, ..] | [0xe0, 0x81, 0x9c, ..] => (Mark::Slash, 3, true),
        [0xf0, 0x80, 0x80, 0xae, ..] => (Mark::Dots(1), 4, true),
        [0xf0, 0x80, 0x80, 0xaf, ..] | [0xf0, 0x80, 0x81, 0x9c, ..] => (Mark::Slash, 4, true),
        [a @ 0xe1..=0xef, b @ 0x80..=0xbf, c @ 0x80..=0xbf, ..] => {
            resembling(u16::from(a & 0xf) << 12 | u16::from(b & 0x3f) << 6 | u16::from(c & 0x3f), 3)
        }
        _ => (Mark::Other, 1, false),
    }
}

/// What a character looks like to a server that folds it to ASCII (Windows' best fit, NFKC, IDNA), and whether that
/// alone is enough to refuse it. The others are innocent inside a word (`你好。`), and only refused in a dot segment.
const fn resembles(character: char) -> (Mark, bool) {
    match character {
        '.' | '\u{ff0e}' => (Mark::Dots(1), true),
        '/' | '\\' | '\u{ff0f}' | '\u{ff3c}' => (Mark::Slash, true),
        '\u{2024}' | '\u{3002}' | '\u{fe52}' | '\u{ff61}' => (Mark::Dots(1), false),
        '\u{2025}' => (Mark::Dots(2), false),
        '\u{2044}' | '\u{2215}' | '\u{2216}' | '\u{29f8}' | '\u{fe68}' => (Mark::Slash, false),
        _ => (Mark::Other, false),
    }
}

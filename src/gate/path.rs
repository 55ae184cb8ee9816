//! The canonical path: the one form that is judged and sent, and the other forms that a server may read it in.
//!
//! Three steps: unreserved characters are decoded, `//` is merged and dot segments are removed, and what is left is
//! searched for segments that a less careful server would take for `.`, `..` or a slash. Those are refused, so that no
//! reading of a [`Path`] leaves the folder that it was judged in. Most paths need none of it: one scan, no allocation.

mod disguise;

use std::borrow::Cow;

/// A path that means one thing, but for [`other_readings`](Path::other_readings).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path<'a> {
    text: Cow<'a, str>,
    encoded_slash: bool,
    params: bool,
}

/// Why a target has no canonical path; the text is meant for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It is empty, or begins with another character.
    #[error("The path does not begin with /")]
    NotRooted,
    /// More `..` than segments.
    #[error("A .. in the path climbs above the root")]
    AboveRoot,
    /// `..;x`, `..%20`, `a%2f..` and the like.
    #[error("A segment of the path would be . or .. to a server that decodes it again or cuts it at ; or at a space")]
    HiddenDots,
    /// `\` or `%5c`.
    #[error("The path holds a backslash (\\ or %5C), which some servers read as /")]
    Backslash,
    /// %00 to %1f, %7f, U+0080 to U+009F, raw or encoded, or a raw space.
    #[error("The path holds a control character, or a space that is not written as %20")]
    Control,
    /// A raw `?` or `#` is never part of a path.
    #[error("The path holds a ? or # that is not percent-encoded")]
    Delimiter,
    /// `%252e`, `%252f`, `%255c` and deeper ones.
    #[error("The path holds a . / or \\ that is percent-encoded more than once")]
    EncodedTwice,
    /// `%u002e`.
    #[error("The path holds %u, which is no percent-encoding")]
    PercentU,
    /// `%` without two hexadecimal digits.
    #[error("The path holds a % without two hexadecimal digits; a plain % is written as %25")]
    Percent,
    /// Invalid or overlong, raw or encoded.
    #[error("The path is not valid UTF-8, as sent or once decoded")]
    Utf8,
    /// U+FF0E, U+FF0F or U+FF3C, raw or encoded.
    #[error("The path holds a fullwidth . / or \\, which some servers read as the plain one")]
    Fullwidth,
}

impl<'a> Path<'a> {
    /// Reads the path of a request target, without its query.
    ///
    /// # Errors
    /// What is malformed, or has readings that differ in their folder.
    pub fn parse(raw: &'a str) -> Result<Self, PathError> {
        if !raw.starts_with('/') {
            return Err(PathError::NotRooted);
        }
        if is_plain(raw.as_bytes()) {
            return Ok(Self { text: Cow::Borrowed(raw), encoded_slash: false, params: false });
        }
        let text = match decode_unreserved(raw)? {
            Cow::Borrowed(text) => remove_dots(text)?,
            Cow::Owned(text) => Cow::Owned(remove_dots(&text)?.into_owned()),
        };
        let encoded_slash = count_encoded_slashes(text.as_bytes()) > 0;
        let params = text.contains(';');
        Ok(Self { text, encoded_slash, params })
    }

    /// Like [`parse`](Self::parse), for bytes that nobody has looked at.
    ///
    /// # Errors
    /// Those of `parse`; bytes that are not UTF-8 are [`PathError::Utf8`].
    pub fn parse_bytes(raw: &'a [u8]) -> Result<Self, PathError> {
        Self::parse(std::str::from_utf8(raw).map_err(|_| PathError::Utf8)?)
    }

    /// The canonical path: what is routed, and what is sent.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it came in canonical form, so that the raw bytes are sent.
    pub const fn is_unchanged(&self) -> bool {
        matches!(self.text, Cow::Borrowed(_))
    }

    /// Whether it holds `%2f`, which only routes with `encoded_slash: preserve` take.
    pub const fn has_encoded_slash(&self) -> bool {
        self.encoded_slash
    }

    /// The canonical paths that other servers read here: with `%2f` decoded, with `;…` cut from the segments, and both
    /// in either order. Empty, without allocation, for a path that holds neither.
    pub fn other_readings(&self) -> Vec<String> {
        let mut readings = Vec::new();
        let raw = self.as_str();
        let mut add = |reading: String| {
            let reading = merge_slashes(&reading);
            if reading != raw && !readings.contains(&reading) {
                readings.push(reading);
            }
        };
        if self.params {
            add(cut_params(raw));
        }
        if self.encoded_slash {
            add(decode_slashes(raw));
        }
        if self.params && self.encoded_slash {
            add(cut_params(&decode_slashes(raw)));
            add(decode_slashes(&cut_params(raw)));
        }
        readings
    }
}

/// In [`CLASSES`]: `/`; what makes a `/` before it worth a look; and what is worth a look anywhere.
const SLASH: u8 = 1;
const AFTER_SLASH: u8 = 2;
const SPECIAL: u8 = 4;

/// `+` is special because `.+.` is `..` to a server that drops blanks; `/+` and `a+b` cost a look, not an allocation.
#[expect(clippy::indexing_slicing, reason = "a const table, indexed by what is below its length")]
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        if byte <= 0x20 || byte >= 0x7f {
            classes[byte] = SPECIAL;
        }
        byte += 1;
    }
    let mut at = 0;
    let special = b"%;+\\?#";
    while at < special.len() {
        classes[special[at] as usize] = SPECIAL;
        at += 1;
    }
    classes[b'/' as usize] = SLASH | AFTER_SLASH;
    classes[b'.' as usize] = AFTER_SLASH;
    classes
};

fn class(byte: u8) -> u8 {
    CLASSES.get(usize::from(byte)).copied().unwrap_or(SPECIAL)
}

/// Whether there is nothing to decode, to merge, to remove or to suspect: no branch but the loop's.
fn is_plain(path: &[u8]) -> bool {
    let mut seen = 0;
    let mut before = 0;
    for &byte in path {
        let class = class(byte);
        seen |= class & SPECIAL | ((before & SLASH) << 1) & class;
        before = class;
    }
    seen == 0
}

/// The first decoding, of unreserved characters only; the place where single bytes are refused.
fn decode_unreserved(raw: &str) -> Result<Cow<'_, str>, PathError> {
    let bytes = raw.as_bytes();
    let mut out = String::new();
    let (mut at, mut copied) = (0, 0);
    while let Some(&byte) = bytes.get(at) {
        if byte == b'%' {
            let value = triplet(bytes.get(at + 1..).unwrap_or_default())?;
            refuse_byte(value)?;
            if is_unreserved(value) {
                out.push_str(raw.get(copied..at).unwrap_or_default());
                out.push(char::from(value));
                copied = at + 3;
            }
            at += 3;
        } else {
            match byte {
                b'?' | b'#' => return Err(PathError::Delimiter),
                b' ' => return Err(PathError::Control),
                _ => refuse_byte(byte)?,
            }
            at += 1;
        }
    }
    if copied == 0 {
        return Ok(Cow::Borrowed(raw));
    }
    out.push_str(raw.get(copied..).unwrap_or_default());
    Ok(Cow::Owned(out))
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

const fn refuse_byte(byte: u8) -> Result<(), PathError> {
    match byte {
        0..=0x1f | 0x7f => Err(PathError::Control),
        b'\\' => Err(PathError::Backslash),
        _ => Ok(()),
    }
}

/// The byte that the two digits after a `%` stand for.
fn triplet(after: &[u8]) -> Result<u8, PathError> {
    match *after {
        [b'u' | b'U', ..] => Err(PathError::PercentU),
        [high, low, ..] => hex(high, low).ok_or(PathError::Percent),
        _ => Err(PathError::Percent),
    }
}

fn hex(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

/// One whole decoding; a `%` that begins no triplet stays. Also how the route table compares segments.
pub(super) fn decode(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [byte, tail @ ..] = rest {
        match tail {
            [high, low, after @ ..]
                if *byte == b'%'
                    && let Some(value) = hex(*high, *low) =>
            {
                out.push(value);
                rest = after;
            }
            _ => {
                out.push(*byte);
                rest = tail;
            }
        }
    }
    out
}

/// Merges `//`, removes dot segments (RFC 3986 5.2.4), and has every other segment checked.
fn remove_dots(text: &str) -> Result<Cow<'_, str>, PathError> {
    let segments = text.strip_prefix('/').unwrap_or(text);
    let mut changes = false;
    let mut left = segments.len() + 1;
    for segment in segments.split('/') {
        left -= segment.len() + 1;
        match segment {
            "" => changes |= left > 0,
            "." | ".." => changes = true,
            _ => disguise::check(segment.as_bytes())?,
        }
    }
    if !changes {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = String::with_capacity(text.len());
    // What was removed from the end leaves a folder behind: `/a/..` is `/`, `/a/.` is `/a/`.
    let mut folder = false;
    for segment in segments.split('/') {
        folder = matches!(segment, "" | "." | "..");
        if !folder {
            out.push('/');
            out.push_str(segment);
        } else if segment == ".." {
            out.truncate(out.rfind('/').ok_or(PathError::AboveRoot)?);
        }
    }
    if folder {
        out.push('/');
    }
    Ok(Cow::Owned(out))
}

/// How many `%2f` there are. In a path without broken triplets every `%` begins one, so that none is half another.
fn count_encoded_slashes(text: &[u8]) -> usize {
    text.windows(3).filter(|triplet| triplet.eq_ignore_ascii_case(b"%2f")).count()
}

fn decode_slashes(path: &str) -> String {
    path.replace("%2f", "/").replace("%2F", "/")
}

fn cut_params(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for segment in path.split_inclusive('/') {
        match segment.split_once(';') {
            None => out.push_str(segment),
            Some((name, _)) => {
                out.push_str(name);
                out.push_str(if segment.ends_with('/') { "/" } else { "" });
            }
        }
    }
    out
}

/// No dot segment can appear in another reading, [`disguise::check`] sees to that: an empty one is all that it can bring.
fn merge_slashes(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for character in path.chars() {
        if character != '/' || !out.ends_with('/') {
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
pub(super) mod tests;

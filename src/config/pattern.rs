//! The paths of routes.

use std::collections::HashSet;

use super::problem::{Fault, quote};

/// A route's path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathPattern {
    /// The segments between the slashes; empty for `/`.
    pub segments: Vec<Segment>,
    /// Whether it ended in `/*`: everything below belongs to it.
    pub wildcard: bool,
}

/// One segment of a [`PathPattern`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    /// This text, canonical: unreserved characters decoded, other triplets as written.
    Literal(String),
    /// `{name}`: any one segment.
    Any,
}

impl PathPattern {
    /// Parses `/reports`, `/users/{id}`, `/files/*`.
    ///
    /// Literals are kept in the canonical form that requests are compared in: unreserved characters decoded, other
    /// triplets as written. Letters beyond ASCII become triplets in upper case. A client's triplets are compared as
    /// sent, so that `%c3%a9` in a request does not meet a pattern `é`, which is `%C3%A9`.
    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err(Fault::new(format!("{} does not begin with `/`", quote(text)), format!("Write /{text}")));
        };
        if rest == "*" {
            return Ok(Self { segments: Vec::new(), wildcard: true });
        }
        let (inside, wildcard) = match rest.strip_suffix("/*") {
            Some(inside) => (inside, true),
            None => (rest.strip_suffix('/').unwrap_or(rest), false),
        };
        if rest.is_empty() {
            return Ok(Self { segments: Vec::new(), wildcard });
        }
        let mut names = HashSet::new();
        let segments = inside.split('/').map(|segment| match segment.strip_prefix('{') {
            None => parse_literal(segment).map(Segment::Literal),
            Some(name) => {
                let name = name.strip_suffix('}').filter(|name| is_name(name)).ok_or_else(brace)?;
                let remedy = "Give each its own name";
                let twice = || Fault::new(format!("`{{{name}}}` stands twice in the path"), remedy);
                names.insert(name).then_some(Segment::Any).ok_or_else(twice)
            }
        });
        Ok(Self { segments: segments.collect::<Result<_, _>>()?, wildcard })
    }

    /// Checks that `prefix` is a literal beginning of this path, on a segment boundary, and returns it canonical.
    pub(super) fn parse_prefix(&self, prefix: &str) -> Result<String, Fault> {
        if prefix.is_empty() || prefix == "/" {
            return Err(Fault::new(format!("{} removes nothing", quote(prefix)), "Leave it out"));
        }
        let Self { segments, wildcard } = Self::parse(prefix)?;
        let mut out = String::new();
        for segment in &segments {
            match segment {
                Segment::Literal(text) if !wildcard => {
                    out.push('/');
                    out.push_str(text);
                }
                _ => return Err(Fault::new("has a `{name}` or `*`", "A prefix to strip is literal")),
            }
        }
        if !self.segments.starts_with(&segments) {
            let message = format!("{} is not how the route's path begins", quote(prefix));
            return Err(Fault::new(message, "It must be a whole number of the path's first segments"));
        }
        Ok(out)
    }
}

fn is_name(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    !text.is_empty() && text.bytes().all(fits) && !text.starts_with(|c: char| c.is_ascii_digit())
}

fn brace() -> Fault {
    Fault::new(
        "braces stand for one whole segment, as in `/users/{id}`",
        "The name has a-z 0-9 _ and does not begin with a digit; a literal brace is written %7B or %7D",
    )
}

fn parse_literal(segment: &str) -> Result<String, Fault> {
    if segment.is_empty() {
        return Err(Fault::new("has an empty segment (`//`)", "Requests have them merged: write one `/`"));
    }
    let mut out = String::with_capacity(segment.len());
    let mut rest = segment;
    while let Some(c) = rest.chars().next() {
        let (head, behind) = rest.split_at(c.len_utf8());
        rest = behind;
        if c == '%' {
            let digits = behind.get(..2).filter(|two| two.bytes().all(|b| b.is_ascii_hexdigit()));
            let digits =
                digits.ok_or_else(|| Fault::new("has a broken percent triplet", "A literal `%` is written %25"))?;
            rest = behind.get(2..).unwrap_or_default();
            push_triplet(&mut out, digits)?;
        } else if c.is_ascii() {
            check_raw(c)?;
            out.push(c);
        } else {
            out.extend(head.bytes().map(|byte| format!("%{byte:02X}")));
        }
    }
    check_whole(&out)?;
    Ok(out)
}

fn push_triplet(out: &mut String, digits: &str) -> Result<(), Fault> {
    let byte = u8::from_str_radix(digits, 16).unwrap_or_default();
    match byte {
        b'/' => {
            let remedy = "Stand `{name}` or `*` there, with `encoded_slash: preserve`";
            return Err(Fault::new(format!("has an encoded slash (%{digits})"), remedy));
        }
        b'\\' | 0..=0x1f | 0x7f => {
            return Err(Fault::new(format!("has %{digits}, which requests are refused for"), ""));
        }
        _ if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => out.push(char::from(byte)),
        _ => {
            out.push('%');
            out.push_str(digits);
        }
    }
    Ok(())
}

/// Which characters may stand for themselves: RFC 3986 `pchar` without `;`, which has two readings, and `*`.
fn check_raw(c: char) -> Result<(), Fault> {
    match c {
        _ if c.is_ascii_alphanumeric() || "-._~!$&'()+,=:@".contains(c) => Ok(()),
        '*' => Err(Fault::new("`*` stands only as the whole last segment, as in `/files/*`", "A literal one is %2A")),
        '{' | '}' => Err(brace()),
        '?' | '#' => {
            Err(Fault::new(format!("has `{c}`"), "Routes look at the path alone: leave query and fragment out"))
        }
        ';' => Err(Fault::new("has `;`, which upstreams read in two ways", "Leave it and what follows out")),
        '\\' => Err(Fault::new("has a backslash, which requests are refused for", "")),
        '<' | '>' => {
            Err(Fault::new(format!("has `{c}`"), "For any one segment write {name}; literal ones are %3C and %3E"))
        }
        _ if c.is_control() => Err(Fault::new("has a control character", "")),
        _ => Err(Fault::new(format!("has the character `{c}`"), format!("Write it as %{:02X}", u32::from(c)))),
    }
}

/// Refuses what no request can have: such a route would never be met.
fn check_whole(segment: &str) -> Result<(), Fault> {
    if segment == "." || segment == ".." {
        return Err(Fault::new("has a dot segment", "Requests have them resolved: write the path that is meant"));
    }
    let lower = segment.to_ascii_lowercase();
    if ["%252e", "%252f", "%255c"].iter().any(|double| lower.contains(double)) {
        return Err(Fault::new("has a doubly encoded `.`, `/` or `\\`, which requests are refused for", ""));
    }
    match String::from_utf8(decode(segment)) {
        Err(_) => Err(Fault::new("has triplets that are not UTF-8", "")),
        Ok(plain) if plain.contains(['\u{ff0e}', '\u{ff0f}', '\u{ff3c}']) => {
            Err(Fault::new("has a fullwidth `.`, `/` or `\\`, which requests are refused for", ""))
        }
        Ok(_) => Ok(()),
    }
}

/// Decodes the triplets of a text whose triplets are whole.
fn decode(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    out.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
    for part in parts {
        let (digits, rest) = part.split_at_checked(2).unwrap_or((part, ""));
        out.extend(u8::from_str_radix(digits, 16).ok());
        out.extend_from_slice(rest.as_bytes());
    }
    out
}

//! The access log: one line a request. A worker formats its lines into a buffer of its own, and hands it to
//! [`output`](crate::telemetry::output).

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use crate::clock::UnixTime;
use crate::telemetry::log::Shape;
use crate::telemetry::output::{Kind, Output};
use crate::telemetry::redact::redacted;

/// A buffer of this size, in bytes, is handed over.
const FULL: usize = 16 * 1024;

/// The longest path that is written, in bytes.
const LONGEST_PATH: usize = 2048;

/// One line.
pub struct Line<'a> {
    /// When the request came.
    pub time: UnixTime,
    /// Until the header section of the answer was ready.
    pub took: Duration,
    /// The request's id.
    pub request_id: &'a str,
    /// The client's address.
    pub client: IpAddr,
    /// The method.
    pub method: &'a str,
    /// The path as it was sent, without query: a query may hold secrets.
    pub path: &'a str,
    /// The route's or endpoint's name.
    pub route: &'a str,
    /// The status that was answered.
    pub status: u16,
    /// The code of a refusal.
    pub error: Option<&'a str>,
    /// Why it was refused, when only the inside knows.
    pub cause: Option<&'a str>,
    /// `sub` of the caller's token.
    pub subject: Option<&'a str>,
    /// Whose token it was, where it was another issuer's.
    pub issuer: Option<&'a str>,
    /// `jti` of the caller's token.
    pub token_id: Option<&'a str>,
    /// `sid` of the caller's token.
    pub session: Option<&'a str>,
}

/// Where the lines go, and in which shape.
#[derive(Clone)]
pub struct Writer {
    /// Where they go.
    pub output: Output,
    /// In which shape.
    pub shape: Shape,
}

/// One worker's end. Lines come out at [`flush`](Self::flush), or when enough have gathered.
pub struct Buffer {
    writer: Writer,
    text: RefCell<String>,
}

impl Buffer {
    /// An empty one.
    pub fn new(writer: Writer) -> Self {
        Self { writer, text: RefCell::new(String::new()) }
    }

    /// Adds a line.
    pub fn add(&self, line: &Line<'_>) {
        let mut text = self.text.borrow_mut();
        // Writing to a String does not fail.
        let _ = match self.writer.shape {
            Shape::Json => line.write_json(&mut text),
            Shape::Text => line.write_text(&mut text),
        };
        text.push('\n');
        if text.len() >= FULL {
            self.hand_over(&mut text);
        }
    }

    /// Hands over what has gathered.
    pub fn flush(&self) {
        let mut text = self.text.borrow_mut();
        if !text.is_empty() {
            self.hand_over(&mut text);
        }
    }

    fn hand_over(&self, text: &mut String) {
        self.writer.output.write(Kind::Access, std::mem::take(text));
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.flush();
    }
}

impl Line<'_> {
    fn write_json(&self, out: &mut String) -> std::fmt::Result {
        let ms = self.took.as_secs_f64() * 1000.0;
        write!(out, r#"{{"timestamp":"{}","level":"INFO","message":"request","request_id":"#, self.time)?;
        json_string(out, &printable(self.request_id))?;
        write!(out, r#","client":"{}","method":"#, self.client)?;
        json_string(out, &printable(self.method))?;
        out.push_str(r#","path":"#);
        json_string(out, &printable(self.path))?;
        out.push_str(r#","route":"#);
        json_string(out, self.route)?;
        write!(out, r#","status":{},"duration_ms":{ms:.3}"#, self.status)?;
        for (name, value) in self.optional() {
            if let Some(value) = value {
                write!(out, r#","{name}":"#)?;
                json_string(out, &printable(value))?;
            }
        }
        out.push('}');
        Ok(())
    }

    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        let ms = self.took.as_secs_f64() * 1000.0;
        let Self { time, client, status, .. } = self;
        write!(
            out,
            "{time} {client} {} {} {status} {ms:.1} ms route=",
            plain(&printable(self.method)),
            plain(&printable(self.path))
        )?;
        json_string(out, self.route)?;
        for (name, value) in self.optional() {
            if let Some(value) = value {
                write!(out, " {name}=")?;
                json_string(out, &printable(value))?;
            }
        }
        Ok(())
    }

    fn optional(&self) -> [(&'static str, Option<&str>); 6] {
        [
            ("error", self.error),
            ("cause", self.cause),
            ("sub", self.subject),
            ("iss", self.issuer),
            ("jti", self.token_id),
            ("sid", self.session),
        ]
    }
}

/// A text as it may be written: not without end, and without the tokens that a client has put there.
fn printable(text: &str) -> Cow<'_, str> {
    if text.len() <= LONGEST_PATH {
        return redacted(text);
    }
    let end = text.floor_char_boundary(LONGEST_PATH);
    let mut shown = redacted(text.get(..end).unwrap_or_default()).into_owned();
    shown.push('…');
    Cow::Owned(shown)
}

/// Terminals obey control characters; a path must not.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Separators of lines and marks of direction: a viewer would show something else than what is there.
pub fn is_deceptive(c: char) -> bool {
    matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Writes `text` as a JSON string.
pub(super) fn json_string(out: &mut String, text: &str) -> std::fmt::Result {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() || is_deceptive(c) => write!(out, "\\u{:04x}", u32::from(c))?,
            c => out.push(c),
        }
    }
    out.push('"');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_written_without_tokens_and_without_end() {
        let token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl-_";
        for (path, expected) in [
            ("/a/b.c.d".to_owned(), "/a/b.c.d"),
            (format!("/sessions/{token}"), "/sessions/[token]"),
            (format!("/a/x={token}/b;{token}!"), "/a/x=[token]/b;[token]!"),
            ("/eyJafjallajokull/ashes.and.more.of.it/eyeglasses.of.silver.html".to_owned(), ""),
            (format!("/{}é", "a/".repeat(20)), ""),
        ] {
            assert_eq!(printable(&path), if expected.is_empty() { &path } else { expected });
        }
        let long = format!("/{}é/", "x".repeat(LONGEST_PATH - 2));
        assert_eq!(printable(&long), format!("/{}…", "x".repeat(LONGEST_PATH - 2)));
        let cut = format!("/{}/{token}", "x".repeat(LONGEST_PATH - 50));
        assert_eq!(printable(&cut), format!("/{}/[token]…", "x".repeat(LONGEST_PATH - 50)));
    }

    #[test]
    fn lines_are_json_whatever_stands_in_them() {
        let line = Line {
            time: UnixTime::from_secs(0),
            took: Duration::from_micros(1234),
            request_id: "id",
            client: IpAddr::from([127, 0, 0, 1]),
            method: "GET",
            path: "/a\"\\\u{7}\u{1b}[31mé\u{202e}\u{2028}",
            route: "/*",
            status: 200,
            error: None,
            cause: None,
            subject: Some("alice"),
            issuer: None,
            token_id: Some("t\n"),
            session: None,
        };
        let mut json = String::new();
        line.write_json(&mut json).unwrap();
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["path"], "/a\"\\\u{7}\u{1b}[31mé\u{202e}\u{2028}");
        assert!(!json.contains(['\u{202e}', '\u{2028}']), "{json}");
        assert_eq!(value["jti"], "t\n");
        assert_eq!(value["duration_ms"], 1.234);
        let mut text = String::new();
        line.write_text(&mut text).unwrap();
        assert!(!text.contains('\u{1b}') && !text.contains('\n'), "{text}");
    }
}

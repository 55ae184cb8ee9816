//! Credentials that clients put where none belongs are cut out of whatever is logged: a JWS in a path, a user name or a
//! User-Agent, percent-encoded or not.

use std::borrow::Cow;
use std::ops::Range;

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// The shortest header of a token, and the shortest rest, that are taken for such, in bytes.
const PART: usize = 16;

/// The shortest credential behind the name of a scheme that is taken for one.
const CREDENTIAL: usize = 16;

/// The shortest name of a scheme with its blank: `Basic `.
const SCHEME: usize = 6;

/// How often a text is decoded at most.
const LEVELS: usize = 3;

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The text without credentials.
pub fn redacted(text: &str) -> Cow<'_, str> {
    if !may_hold_secrets(text) {
        return Cow::Borrowed(text);
    }
    let decoded = Decoded::of(text);
    let mut shown = String::new();
    let mut end = 0;
    for (found, instead) in decoded.secrets() {
        shown.push_str(text.get(end..found.start).unwrap_or_default());
        shown.push_str(instead);
        end = found.end;
    }
    if end == 0 {
        return Cow::Borrowed(text);
    }
    shown.push_str(text.get(end..).unwrap_or_default());
    Cow::Owned(shown)
}

/// A first look, which nearly every path and id does not pass: a token has dots and begins with `ey` or `ew`, a scheme has a
/// blank behind it, and both may be encoded.
fn may_hold_secrets(text: &str) -> bool {
    let bytes = text.as_bytes();
    let holds = |part: &[u8]| memchr::memmem::find(bytes, part).is_some();
    match memchr::memchr3(b'.', b'%', b' ', bytes) {
        _ if bytes.len() < SCHEME + CREDENTIAL => false,
        None => !text.is_ascii(),
        Some(_) => memchr::memchr2(b'%', b' ', bytes).is_some() || holds(b"ey") || holds(b"ew"),
    }
}

/// A text as it reads once decoded, and where each of its bytes came from.
struct Decoded {
    bytes: Vec<u8>,
    /// The beginning of each byte in the text; the last is the text's end.
    origins: Vec<usize>,
}

impl Decoded {
    fn of(text: &str) -> Self {
        let mut decoded = Self { bytes: text.as_bytes().to_vec(), origins: (0..=text.len()).collect() };
        for _ in 0..LEVELS {
            if memchr::memchr(b'%', &decoded.bytes).is_none() {
                break;
            }
            decoded.fold(|bytes| match bytes {
                [b'%', high, low, ..] => Some((3, hex(*high)? << 4 | hex(*low)?)),
                _ => None,
            });
        }
        // Fullwidth, ideographic and halfwidth full stops, which some readers take for one.
        if memchr::memchr2(0xef, 0xe3, &decoded.bytes).is_some() {
            decoded.fold(|bytes| match bytes {
                [0xef, 0xbc, 0x8e, ..] | [0xe3, 0x80, 0x82, ..] | [0xef, 0xbd, 0xa1, ..] => Some((3, b'.')),
                _ => None,
            });
        }
        decoded
    }

    /// Puts one byte in the place of several, where `read` says so.
    fn fold(&mut self, read: impl Fn(&[u8]) -> Option<(usize, u8)>) {
        let (mut bytes, mut origins) = (Vec::with_capacity(self.bytes.len()), Vec::with_capacity(self.origins.len()));
        let mut at = 0;
        while let (Some(byte), Some(origin)) = (self.bytes.get(at), self.origins.get(at)) {
            let (length, byte) = self.bytes.get(at..).and_then(&read).unwrap_or((1, *byte));
            bytes.push(byte);
            origins.push(*origin);
            at += length;
        }
        origins.extend(self.origins.last());
        (self.bytes, self.origins) = (bytes, origins);
    }

    /// Where credentials are in the text, and what is shown in their place.
    fn secrets(&self) -> impl Iterator<Item = (Range<usize>, &'static str)> {
        let (mut at, mut behind_scheme) = (0, false);
        std::iter::from_fn(move || {
            while at < self.bytes.len() {
                let start = at + self.run(at, |byte| !is_part(byte));
                let gap = self.bytes.get(at..start).unwrap_or_default();
                let length = self.run(start, is_part);
                let word = self.bytes.get(start..start + length).unwrap_or_default();
                let credential = behind_scheme && is_gap(gap) && is_credential(word);
                behind_scheme = is_scheme(word);
                at = start + length;
                if let Some(skipped) = token(word) {
                    return Some((self.origin(start + skipped)..self.origin(at), "[token]"));
                }
                if credential {
                    return Some((self.origin(start)..self.origin(at), "[credential]"));
                }
            }
            None
        })
    }

    /// How many bytes from `at` on are such.
    fn run(&self, at: usize, is_such: impl Fn(u8) -> bool) -> usize {
        self.bytes.get(at..).unwrap_or_default().iter().take_while(|byte| is_such(**byte)).count()
    }

    fn origin(&self, at: usize) -> usize {
        self.origins.get(at).copied().unwrap_or_default()
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

fn is_part(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

/// Whether it separates a scheme from a credential.
fn is_gap(bytes: &[u8]) -> bool {
    bytes.len() <= 8 && bytes.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'+' | b':' | b'=' | b'"'))
}

fn is_scheme(word: &[u8]) -> bool {
    word.eq_ignore_ascii_case(b"bearer") || word.eq_ignore_ascii_case(b"basic")
}

/// Long, and no plain word.
fn is_credential(word: &[u8]) -> bool {
    word.len() >= CREDENTIAL && word.iter().any(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
}

/// Where in a word a JOSE header begins that something follows: base64url of a JSON object.
fn token(word: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(dot) = memchr::memchr(b'.', word.get(from..)?).map(|dot| from + dot) {
        let (part, rest) = (word.get(from..dot)?, word.get(dot + 1..)?);
        let begins = |at: &usize| part.get(*at..).is_some_and(is_header);
        if rest.len() >= PART
            && let Some(at) = memchr::memchr_iter(b'e', part).find(begins)
        {
            return Some(from + at);
        }
        from = dot + 1;
    }
    None
}

fn is_header(part: &[u8]) -> bool {
    if part.len() < PART || !matches!(part.get(1), Some(b'y' | b'w')) {
        return false;
    }
    LENIENT.decode(part).is_ok_and(|bytes| {
        let body = bytes.strip_prefix(b"{").unwrap_or_default().trim_ascii_start();
        body.starts_with(b"\"") && std::str::from_utf8(&bytes).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl-_";

    #[test]
    fn tokens_are_cut_in_every_spelling() {
        let coded: String = TOKEN.bytes().map(|byte| format!("%{byte:02X}")).collect();
        for (text, expected) in [
            (format!("/sessions/{TOKEN}"), "/sessions/[token]"),
            (format!("/a/x={TOKEN}/b;{TOKEN}!"), "/a/x=[token]/b;[token]!"),
            (format!("/é/{}/ü", TOKEN.replace('.', "%2e")), "/é/[token]/ü"),
            (format!("/{}", TOKEN.replace('.', "%252E")), "/[token]"),
            (format!("/{}", TOKEN.replace('.', "%25252e")), "/[token]"),
            (format!("/{coded}/x"), "/[token]/x"),
            (TOKEN.replace('.', "．"), "[token]"),
            (TOKEN.replace('.', "%EF%BC%8E"), "[token]"),
            (format!("x.y.prefix{TOKEN}"), "x.y.prefix[token]"),
            (format!("{}..iv-iv-iv-iv-iv-iv.text.tag", &TOKEN[..20]), "[token]"),
            (format!("bEARER {TOKEN} and more"), "bEARER [token] and more"),
            ("Bearer 0123456789abcdefgh".into(), "Bearer [credential]"),
            ("x=Bearer%20A123456789abcdefgh&y".into(), "x=Bearer%20[credential]&y"),
            ("Authorization: Basic dXNlcjpwYXNzd29yZA==".into(), "Authorization: Basic [credential]=="),
        ] {
            assert_eq!(redacted(&text), expected, "{text}");
        }
    }

    #[test]
    fn other_texts_stay() {
        for text in [
            "/a/b.c.d",
            "/eyJafjallajokull/ashes.and.more.of.it/eyeglasses.of.silver.html",
            "/eyJafjallajokulliceland.the.volcano.of.many.syllables",
            "/monkeyLanding-2026-01-01.and.a.rather.long.name.html",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0",
            "the bearer of-good-news-everyone comes",
            "%",
            "%2",
            "a long text with %zz and %2e%2e%2f without any token",
            "4bf92f3577b34da6a3ce929d0e0e4736.4bf92f3577b34da6a3ce929d0e0e4736",
        ] {
            assert_eq!(redacted(text), text);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read(text in "[a-zA-Z0-9.%é ．ey{]{0,120}") {
            let _ = redacted(&text);
            let with = format!("{text} {TOKEN} {text}");
            proptest::prop_assert!(!redacted(&with).contains("eyJzdWIiOiJhbGljZSJ9"), "{}", with);
        }
    }
}

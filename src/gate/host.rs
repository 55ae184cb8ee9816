//! The host that a request asks for: one form to compare, whatever the spelling.

use std::borrow::Cow;
use std::net::Ipv6Addr;

/// A well-formed `Host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host<'a> {
    name: Cow<'a, str>,
    port: Option<u16>,
}

/// Why a value is no host; the text is meant for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Nothing before the port.
    #[error("The host is empty")]
    Empty,
    /// User information, a list, a path, a control or non-ASCII character.
    #[error("The host holds a character that no host has")]
    Character,
    /// `a..b`, `.a`.
    #[error("The host has an empty label")]
    Label,
    /// Broken, or of a character that a name would not need to encode.
    #[error("The host holds a percent-encoding that is not one of a letter, digit, - . _ or ~")]
    Percent,
    /// What stands in brackets.
    #[error("The host is no IPv6 address in brackets")]
    Address,
    /// Not 0 to 65535, or none after a colon.
    #[error("The port is no number from 0 to 65535")]
    Port,
}

impl Host<'_> {
    /// Lower case, without port and one trailing dot; an IPv6 address in its shortest form, in brackets.
    pub fn as_str(&self) -> &str {
        &self.name
    }
}

/// Reads the value of a `Host` field, or the authority of a URI without user information.
///
/// # Errors
/// What is wrong with it. Stricter than RFC 3986 where a lenient reader would find another host: no comma, no empty
/// label, no empty port, and of percent-encodings only those of unreserved characters, which are decoded.
pub fn parse(value: &[u8]) -> Result<Host<'_>, HostError> {
    let text = std::str::from_utf8(value).map_err(|_| HostError::Character)?;
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']').ok_or(HostError::Address)?;
        let address: Ipv6Addr = address.parse().map_err(|_| HostError::Address)?;
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            None => return Err(HostError::Address),
            Some(port) => Some(parse_port(port)?),
        };
        return Ok(Host { name: format!("[{address}]").into(), port });
    }
    let colon = value.iter().position(|&byte| byte == b':').unwrap_or(value.len());
    let (name, port) = match text.split_at_checked(colon) {
        Some((name, port)) if !port.is_empty() => (name, Some(parse_port(port.get(1..).unwrap_or_default())?)),
        _ => (text, None),
    };
    Ok(Host { name: parse_name(name)?, port })
}

/// Whether the authority of a target is that of the `Host` field; `default` is the port of its scheme.
pub fn same_authority(host: &Host<'_>, authority: &str, default: u16) -> bool {
    let port = |host: &Host<'_>| host.port.unwrap_or(default);
    parse(authority.as_bytes()).is_ok_and(|other| other.name == host.name && port(&other) == port(host))
}

fn parse_port(digits: &str) -> Result<u16, HostError> {
    // `parse` would take a sign.
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(HostError::Port);
    }
    digits.parse().map_err(|_| HostError::Port)
}

/// In [`CLASSES`]: never in a name; to be folded; and `.`, of which two in a row make an empty label.
const REFUSED: u8 = 1;
const FOLDED: u8 = 2;
const DOT: u8 = 4;

#[expect(clippy::indexing_slicing, reason = "a const table, indexed by what is below its length")]
const CLASSES: [u8; 256] = {
    let mut classes = [REFUSED; 256];
    let mut byte = 0;
    while byte < 128 {
        classes[byte as usize] = match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => 0,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'=' => 0,
            b'A'..=b'Z' | b'%' => FOLDED,
            b'.' => DOT,
            _ => REFUSED,
        };
        byte += 1;
    }
    classes
};

/// A reg-name or IPv4 address, without one trailing dot.
fn parse_name(name: &str) -> Result<Cow<'_, str>, HostError> {
    let undotted = name.strip_suffix('.').unwrap_or(name);
    // A dot at either end stands beside an empty label too.
    let (mut seen, mut double, mut before) = (0, 0, DOT);
    for byte in undotted.bytes() {
        let class = CLASSES.get(usize::from(byte)).copied().unwrap_or(REFUSED);
        seen |= class;
        double |= before & class;
        before = class;
    }
    if seen & REFUSED != 0 {
        Err(HostError::Character)
    } else if seen & FOLDED != 0 {
        // What was folded is lower case: this happens once.
        parse_name(&fold(name)?).map(|folded| Cow::Owned(folded.into_owned()))
    } else if undotted.is_empty() {
        Err(HostError::Empty)
    } else if (double | before) & DOT != 0 {
        Err(HostError::Label)
    } else {
        Ok(Cow::Borrowed(undotted))
    }
}

/// Decodes unreserved characters and lowers the case.
fn fold(name: &str) -> Result<String, HostError> {
    let mut out = String::with_capacity(name.len());
    let mut rest = name.chars();
    while let Some(character) = rest.next() {
        let plain = if character == '%' {
            let mut digit = || rest.next().and_then(|digit| digit.to_digit(16));
            let code = digit().zip(digit()).map(|(high, low)| high << 4 | low).and_then(char::from_u32);
            let unreserved = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~');
            code.filter(unreserved).ok_or(HostError::Percent)?
        } else {
            character
        };
        out.push(plain.to_ascii_lowercase());
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hosts() {
        for (value, name, port) in [
            ("example.com", "example.com", None),
            ("EXAMPLE.com:8080", "example.com", Some(8080)),
            ("example.com.", "example.com", None),
            ("Example.Com.:80", "example.com", Some(80)),
            ("127.0.0.1:0080", "127.0.0.1", Some(80)),
            ("[::1]", "[::1]", None),
            ("[0:0:0:0:0:0:0:1]:9", "[::1]", Some(9)),
            ("[2001:DB8::A]", "[2001:db8::a]", None),
            ("ex%61mple%2Ecom", "example.com", None),
            ("a_b-c~d", "a_b-c~d", None),
            ("x%2e", "x", None),
            ("*.example.com", "*.example.com", None),
        ] {
            let host = parse(value.as_bytes()).unwrap();
            assert_eq!((host.as_str(), host.port), (name, port), "{value}");
        }
    }

    #[test]
    fn malformed() {
        for (value, why) in [
            ("", HostError::Empty),
            (".", HostError::Empty),
            (":80", HostError::Empty),
            ("a b", HostError::Character),
            (" a", HostError::Character),
            ("a,b", HostError::Character),
            ("u@a", HostError::Character),
            ("a/b", HostError::Character),
            ("a\\b", HostError::Character),
            ("a?b", HostError::Character),
            ("a#b", HostError::Character),
            ("a\tb", HostError::Character),
            ("a\0b", HostError::Character),
            ("a\u{e9}", HostError::Character),
            ("a[::1]", HostError::Port),
            ("a]", HostError::Character),
            ("a:", HostError::Port),
            ("a:b", HostError::Port),
            ("a:+80", HostError::Port),
            ("a:65536", HostError::Port),
            ("a:80:80", HostError::Port),
            ("::1", HostError::Port),
            ("u:p@a", HostError::Port),
            ("a..", HostError::Label),
            ("a..b", HostError::Label),
            (".a", HostError::Label),
            ("..", HostError::Label),
            ("a%2", HostError::Percent),
            ("a%zz", HostError::Percent),
            ("a%+1", HostError::Percent),
            ("a%00b", HostError::Percent),
            ("a%2fb", HostError::Percent),
            ("a%c3%a9", HostError::Percent),
            ("[::1", HostError::Address),
            ("[::g]", HostError::Address),
            ("[::1%25eth0]", HostError::Address),
            ("[v1.a]", HostError::Address),
            ("[127.0.0.1]", HostError::Address),
            ("[::1]a", HostError::Address),
            ("[::1]:", HostError::Port),
        ] {
            assert_eq!(parse(value.as_bytes()), Err(why), "{value:?}");
        }
        assert_eq!(parse(b"\xff"), Err(HostError::Character));
    }

    #[test]
    fn borrows_what_is_lower_case() {
        for value in ["example.com", "example.com.", "example.com:80"] {
            assert!(matches!(parse(value.as_bytes()).unwrap().name, Cow::Borrowed(_)), "{value}");
        }
    }

    #[test]
    fn authorities() {
        for (host, authority, same) in [
            ("example.com", "EXAMPLE.com", true),
            ("example.com:443", "example.com", false),
            ("example.com", "example.com:80", true),
            ("example.com:80", "example.com", true),
            ("example.com.", "example.com", true),
            ("example.com:8080", "example.com:8080", true),
            ("[::1]", "[0::1]:80", true),
            ("example.com", "example.org", false),
            ("example.com", "example.com:8080", false),
            ("example.com", "user@example.com", false),
            ("example.com", "", false),
        ] {
            assert_eq!(same_authority(&parse(host.as_bytes()).unwrap(), authority, 80), same, "{host} {authority}");
        }
        let host = parse(b"example.com:443").unwrap();
        assert!(same_authority(&host, "example.com", 443) && !same_authority(&host, "example.com:80", 443));
    }

    proptest! {
        #[test]
        fn is_its_own_normal_form(value in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..24),
            "[a-zA-Z0-9.%:\\[\\]-]{0,24}".prop_map(String::into_bytes),
        ]) {
            if let Ok(host) = parse(&value) {
                let again = parse(host.as_str().as_bytes()).unwrap();
                prop_assert_eq!(again.as_str(), host.as_str());
                prop_assert_eq!(again.port, None);
            }
        }
    }
}

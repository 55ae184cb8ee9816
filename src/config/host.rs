//! Host names, and the URLs of servers.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::problem::{Fault, quote};

/// A host name or address without port: lower case, no trailing dot; IPv6 in brackets.
pub(super) fn parse_name(text: &str) -> Result<String, Fault> {
    let wrong = |why: &str, remedy: String| Err(Fault::new(format!("{} {why}", quote(text)), remedy));
    if text.is_empty() {
        return Err(Fault::new("is empty", "Leave it out for any host"));
    }
    if !text.is_ascii() {
        return wrong("has letters beyond ASCII", "Write its punycode form, which begins with xn--".into());
    }
    if text.contains('*') {
        return wrong("has a wildcard, which is not supported by this version", "Write one route for each host".into());
    }
    let lower = text.to_ascii_lowercase();
    if let Some(inside) = lower.strip_prefix('[') {
        return match inside.strip_suffix(']').map(str::parse::<Ipv6Addr>) {
            Some(Ok(address)) => Ok(format!("[{address}]")),
            Some(Err(_)) | None => wrong("is not an IPv6 address", String::new()),
        };
    }
    if lower.contains("://") || lower.contains('/') {
        return wrong("is not just a host name", "Leave out scheme and path".into());
    }
    if lower.parse::<Ipv6Addr>().is_ok() {
        return wrong("lacks brackets", format!("Write [{lower}]"));
    }
    if let Some((name, _)) = lower.split_once(':') {
        return wrong("has a port", format!("Leave the port out: {name}"));
    }
    let name = lower.strip_suffix('.').unwrap_or(&lower);
    let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(fits) && !label.starts_with('-') && !label.ends_with('-')
    };
    if name.len() > 253 || !name.split('.').all(label) {
        return wrong("is not a host name", "A host name has the characters a-z 0-9 - _ and single dots".into());
    }
    let numeric = |label: &str| label.bytes().all(|b| b.is_ascii_digit());
    if name.rsplit('.').next().is_some_and(numeric) && name.parse::<Ipv4Addr>().is_err() {
        return wrong("looks like an IPv4 address, but is none", String::new());
    }
    Ok(name.to_owned())
}

/// A host name or address, with or without port.
pub(super) fn parse_authority(text: &str) -> Result<(String, Option<u16>), Fault> {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if name.ends_with(']') || !name.contains([':', '[']) => (name, Some(port)),
        _ => (text, None),
    };
    if name.is_empty() && port.is_some() {
        return Err(Fault::new(format!("{} has no host", quote(text)), "Write it before the port"));
    }
    let port = match port {
        None => None,
        Some(digits) => match digits.parse::<u16>() {
            Ok(number) if number > 0 && digits.bytes().all(|b| b.is_ascii_digit()) => Some(number),
            _ => {
                return Err(Fault::new(
                    format!("{} is not a port", quote(digits)),
                    "A port is a number from 1 to 65535",
                ));
            }
        },
    };
    Ok((parse_name(name)?, port))
}

/// What a server's URL may be.
const WRITE: &str = "Write http://HOST:PORT, https://HOST:PORT or unix:/PATH";

/// `http://host:port` and `https://host:port`: the host (IPv6 without brackets), the port, and whether it speaks TLS.
pub(super) fn parse_server(url: &str) -> Result<(String, u16, bool), Fault> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(if url.contains('@') {
            Fault::new("is not a URL", WRITE)
        } else {
            Fault::new(format!("{} is not a URL", quote(url)), WRITE)
        });
    };
    let tls = match scheme.to_ascii_lowercase().as_str() {
        "http" => false,
        "https" => true,
        _ => return Err(Fault::new(format!("{} is not a possible scheme", quote(scheme)), WRITE)),
    };
    // A password may stand before the `@`: it is not repeated.
    if rest.contains('@') {
        return Err(Fault::new("the URL of a server has no user or password", WRITE));
    }
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#']) {
        let remedy = "Write just scheme, host and port; a route's strip_prefix changes the path that is sent";
        return Err(Fault::new("the URL of a server has no path, query or fragment", remedy));
    }
    if authority.is_empty() {
        return Err(Fault::new("the URL has no host", WRITE));
    }
    let (host, port) = parse_authority(authority)?;
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&host);
    Ok((bare.to_owned(), port.unwrap_or(if tls { 443 } else { 80 }), tls))
}

//! Origins, as browsers send them: `https://app.example.com`.

use super::host;
use super::problem::{Fault, quote};

/// Why `null` is never allowed.
pub(super) const NULL: &str =
    "`null` is what files and sandboxed frames send, so that any page can have it: serve yours from a host of its own";

/// An origin in the spelling of browsers, or `*`.
pub(super) fn parse(text: &str) -> Result<String, Fault> {
    let write = "Write such as https://app.example.com";
    match text {
        "*" => return Ok(text.to_owned()),
        "" => return Err(Fault::new("is empty", write)),
        "null" => return Err(Fault::new("the origin `null` is no one's", NULL)),
        _ => {}
    }
    // A password may stand before the `@`: it is not repeated.
    if text.contains('@') {
        return Err(Fault::new("an origin has no user or password", write));
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        let message = format!("{} has no scheme", quote(text));
        return Err(Fault::new(message, write));
    };
    let scheme = scheme.to_ascii_lowercase();
    let default = match scheme.as_str() {
        "http" => 80,
        "https" => 443,
        _ => return Err(Fault::new(format!("{} is not a possible scheme", quote(&scheme)), write)),
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if authority.is_empty() {
        return Err(Fault::new("the origin has no host", write));
    }
    if authority.contains('*') {
        let message = format!("{} has a wildcard, which is not supported by this version", quote(text));
        return Err(Fault::new(message, "List each origin, or `*` alone for any"));
    }
    let (name, port) = host::parse_authority(authority)?;
    let origin = match port.filter(|port| *port != default) {
        Some(port) => format!("{scheme}://{name}:{port}"),
        None => format!("{scheme}://{name}"),
    };
    match path {
        "" if port == Some(default) => {
            let message = format!("{} has the port that goes without saying", quote(text));
            Err(Fault::new(message, format!("Browsers leave it out: write {origin}")))
        }
        "" => Ok(origin),
        "/" => Err(Fault::new(format!("{} ends with `/`", quote(text)), format!("Write {origin}"))),
        _ => {
            let message = format!("{} has more than scheme, host and port", quote(text));
            Err(Fault::new(message, format!("Write {origin}")))
        }
    }
}

//! `identity_headers`: what the upstream is told about the caller.

use crate::config::key::Key;
use crate::config::problem::{Fault, quote};
use crate::config::reader::Reader;
use crate::config::scalar::{Named, Text};
use crate::config::{IdentityHeader, IdentitySource};

const BUILT_IN: [(IdentitySource, &str); 5] = [
    (IdentitySource::Subject, "X-Auth-Subject"),
    (IdentitySource::Roles, "X-Auth-Roles"),
    (IdentitySource::TokenId, "X-Auth-Token-Id"),
    (IdentitySource::Session, "X-Auth-Session"),
    (IdentitySource::Issuer, "X-Auth-Issuer"),
];

/// Names that mean something to the gateway or the protocol, in canonical form.
const TAKEN: [&str; 14] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "authorization",
    "te",
    "upgrade",
    "trailer",
    "keep-alive",
    "forwarded",
    "x-request-id",
    "traceparent",
    "cookie",
    "portcullis-error",
];

/// The built-in headers, and then those of the file by the name of their claim.
pub(super) fn identity_headers(reader: &mut Reader<'_>, written: Named<Text>) -> Vec<IdentityHeader> {
    let mut headers: Vec<IdentityHeader> =
        BUILT_IN.into_iter().map(|(source, name)| IdentityHeader { source, name: name.into() }).collect();
    let Named(mut claims) = written;
    claims.sort_by(|(left, _), (right, _)| left.cmp(right));
    for (claim, text) in claims {
        let key = Key::of("identity_headers").name(&claim);
        if claim.is_empty() || claim.contains(char::is_control) {
            reader.refuse(&key, format!("{} is not the name of a claim", quote(&claim)), "");
            continue;
        }
        let Some(name) = reader.parse(&key, &text, |name| parse_name(name, &headers)) else { continue };
        headers.push(IdentityHeader { source: IdentitySource::Claim(claim), name });
    }
    headers
}

fn parse_name(name: &str, others: &[IdentityHeader]) -> Result<String, Fault> {
    if name.is_empty() || !name.bytes().all(is_token) {
        let message = format!("{} is not the name of a header", quote(name));
        return Err(Fault::new(message, "Write such as X-Auth-Email: letters, digits and -"));
    }
    let form = canonical(name);
    if TAKEN.contains(&form.as_str()) || form.starts_with("proxy-") || form.starts_with("x-forwarded-") {
        return Err(Fault::new(
            format!("{} has a meaning of its own", quote(name)),
            "Choose another, such as X-Auth-Email",
        ));
    }
    match others.iter().find(|other| canonical(&other.name) == form) {
        Some(other) => {
            let message = format!("{} is the same header as {}", quote(name), quote(&other.name));
            Err(Fault::new(message, "Upstreams tell names apart by letters and digits only: choose another"))
        }
        None => Ok(name.to_owned()),
    }
}

/// Lower case, and `-` for whatever is no letter or digit: how many upstreams read names.
fn canonical(name: &str) -> String {
    let fold = |b: u8| if b.is_ascii_alphanumeric() { char::from(b.to_ascii_lowercase()) } else { '-' };
    name.bytes().map(fold).collect()
}

/// A character of an RFC 9110 token.
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

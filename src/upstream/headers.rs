//! The header section on its way: what is removed, what is refused, what is set. The contract, section 5.

use std::net::IpAddr;

use http::header::{CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue};

use crate::config;
use crate::message::Rejection;
use crate::sessions::Caller;

/// Who sent the request, as far as the connection and trusted proxies tell.
#[derive(Clone, Debug)]
pub struct Client {
    /// The first untrusted hop from the right: whom counters and logs mean.
    pub address: IpAddr,
    /// The address of the connection's other end, as X-Forwarded-For wants it.
    pub peer: HeaderValue,
    /// Whether that end is one of `trusted_proxies`.
    pub trusted: bool,
}

/// The ids that a request's traces are tied together by, both visible ASCII.
#[derive(Clone, Copy)]
pub struct Ids<'a> {
    /// `X-Request-Id`; it replaces what the client sent.
    pub request: &'a [u8],
    /// `traceparent`, likewise; `None` passes on the client's, which is well-formed.
    pub trace: Option<[u8; 55]>,
}

/// What stays the same for all requests.
pub struct Rules {
    identity: Vec<HeaderName>,
    /// The identity headers' canonical forms, and a bit for each of their lengths, so that most names miss at once.
    canonical: Vec<Box<[u8]>>,
    lengths: u128,
}

/// What one request brings to the rewriting of its header section.
#[derive(Clone, Copy)]
pub struct Rewrite<'a> {
    /// Whose token it was.
    pub caller: Option<&'a Caller>,
    /// Who sent it.
    pub client: &'a Client,
    /// Its ids.
    pub ids: Ids<'a>,
    /// Whether Authorization is passed on.
    pub authorization: bool,
    /// Whether the body goes in chunks.
    pub chunked: bool,
}

/// Lower case, and each character other than a-z 0-9 read as `-`: names that WSGI, Rack or PHP take for the same.
fn canonical(byte: u8) -> u8 {
    match byte.to_ascii_lowercase() {
        lower @ (b'a'..=b'z' | b'0'..=b'9') => lower,
        _ => b'-',
    }
}

fn canonical_eq(name: &str, canonical_form: &[u8]) -> bool {
    name.len() == canonical_form.len() && name.bytes().map(canonical).eq(canonical_form.iter().copied())
}

fn canonical_starts_with(name: &str, canonical_form: &str) -> bool {
    name.len() >= canonical_form.len() && name.bytes().map(canonical).zip(canonical_form.bytes()).all(|(a, b)| a == b)
}

impl Rules {
    /// Reads the names once. One that is no field name was refused by the configuration, and is left out here.
    pub fn new(headers: &[config::IdentityHeader]) -> Self {
        let names = headers.iter().filter_map(|header| HeaderName::try_from(header.name.as_str()).ok());
        let identity: Vec<HeaderName> = names.collect();
        let form = |name: &HeaderName| name.as_str().bytes().map(canonical).collect::<Box<[u8]>>();
        let canonical: Vec<_> = identity.iter().map(form).collect();
        let lengths = canonical.iter().fold(0, |bits, form| bits | bit(form.len()));
        Self { identity, canonical, lengths }
    }

    fn is_identity(&self, name: &str) -> bool {
        self.lengths & bit(name.len()) != 0 && self.canonical.iter().any(|form| canonical_eq(name, form))
    }

    /// Writes the upstream's header section: the client's but for what must not pass, and then what the gateway has to
    /// say. `host` is what the upstream is to see as Host; `None` keeps the client's.
    ///
    /// # Errors
    /// `bad_header` for a Connection line that names what must stay.
    pub fn write(
        &self,
        out: &mut Vec<u8>,
        headers: &HeaderMap,
        host: Option<&HeaderValue>,
        request: &Rewrite<'_>,
    ) -> Result<(), Rejection> {
        let named = connection_names(headers)?;
        let (mut proto, mut forwarded_host) = (false, false);
        for (name, value) in headers {
            let text = name.as_str();
            let removed = match text {
                "host" => host.is_some(),
                "authorization" => !request.authorization,
                // Answered here, when the body is first read.
                "expect" => value.as_bytes().eq_ignore_ascii_case(b"100-continue"),
                // Written below.
                "x-request-id" | "x-forwarded-for" => true,
                "traceparent" => request.ids.trace.is_some(),
                _ => {
                    is_hop_by_hop(text)
                        || self.is_identity(text)
                        || (!request.client.trusted && is_forwarding(text))
                        || named.iter().any(|named| named == text)
                }
            };
            if removed {
                continue;
            }
            proto |= text == "x-forwarded-proto";
            forwarded_host |= text == "x-forwarded-host";
            write_field(out, text, value.as_bytes());
        }
        if let Some(host) = host {
            write_field(out, "host", host.as_bytes());
        }
        if request.chunked {
            write_field(out, "transfer-encoding", b"chunked");
        }
        if !proto {
            out.extend_from_slice(b"x-forwarded-proto: http\r\n");
        }
        if !forwarded_host && let Some(host) = headers.get(HOST) {
            write_field(out, "x-forwarded-host", host.as_bytes());
        }
        write_forwarded_for(out, headers, request.client);
        self.write_identity(out, request);
        out.extend_from_slice(b"\r\n");
        Ok(())
    }

    fn write_identity(&self, out: &mut Vec<u8>, request: &Rewrite<'_>) {
        write_field(out, "x-request-id", request.ids.request);
        if let Some(trace) = &request.ids.trace {
            write_field(out, "traceparent", trace);
        }
        // Visible ASCII by construction.
        for (index, value) in request.caller.into_iter().flat_map(Caller::headers) {
            if let Some(name) = self.identity.get(*index) {
                write_field(out, name.as_str(), value);
            }
        }
    }

    /// Removes from trailers what would not have passed as a header, and what an upstream might merge into its headers.
    pub fn strip_trailers(&self, trailers: &mut HeaderMap) {
        let framing = |name: &str| matches!(name, "host" | "content-length" | "authorization" | "cookie" | "trailer");
        let doomed: Vec<HeaderName> = trailers
            .keys()
            .filter(|name| {
                let text = name.as_str();
                framing(text) || is_hop_by_hop(text) || is_forwarding(text) || self.is_identity(text)
            })
            .cloned()
            .collect();
        for name in doomed {
            trailers.remove(name);
        }
    }
}

/// Writes one field line. Name and value come from `http`'s types or are made here: neither can hold a line break.
pub fn write_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The peer's address, behind the chain that a trusted peer sent.
fn write_forwarded_for(out: &mut Vec<u8>, headers: &HeaderMap, client: &Client) {
    out.extend_from_slice(b"x-forwarded-for: ");
    if client.trusted {
        for line in headers.get_all("x-forwarded-for") {
            out.extend_from_slice(line.as_bytes());
            out.extend_from_slice(b", ");
        }
    }
    out.extend_from_slice(client.peer.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn bit(length: usize) -> u128 {
    1_u128.checked_shl(u32::try_from(length).unwrap_or(u32::MAX)).unwrap_or(1 << 127)
}

/// Fields that belong to one connection (RFC 9110 7.6.1). `trailer` is not among them. By length first: nearly every
/// name is told apart by it.
pub fn is_hop_by_hop(name: &str) -> bool {
    match name.len() {
        2 => name == "te",
        7 => name == "upgrade",
        10 => name == "connection" || name == "keep-alive",
        14 => name == "http2-settings",
        16 => name == "proxy-connection",
        17 => name == "transfer-encoding",
        18 => name == "proxy-authenticate",
        19 => name == "proxy-authorization",
        _ => false,
    }
}

/// What a proxy would say of the request's origin.
fn is_forwarding(name: &str) -> bool {
    match name.as_bytes().first() {
        Some(b'x') => {
            canonical_eq(name, b"x-real-ip")
                || ["x-forwarded-", "x-original-", "x-rewrite-"].iter().any(|p| canonical_starts_with(name, p))
        }
        Some(b'f') => canonical_eq(name, b"forwarded"),
        _ => false,
    }
}

/// The fields that any Connection line names, in lower case.
fn connection_names(headers: &HeaderMap) -> Result<Vec<String>, Rejection> {
    let mut names = Vec::new();
    for line in headers.get_all(CONNECTION) {
        if line == "keep-alive" || line == "close" {
            continue;
        }
        let Ok(line) = line.to_str() else {
            return Err(Rejection::BadHeader("Connection holds characters that no field name has".into()));
        };
        for name in line.split(',').map(|name| name.trim_matches([' ', '\t']).to_ascii_lowercase()) {
            match name.as_str() {
                "" | "close" | "keep-alive" | "upgrade" => {}
                "host" | "content-length" | "transfer-encoding" | "authorization" => {
                    return Err(Rejection::BadHeader(format!("Connection names {name}, which must stay").into()));
                }
                _ => names.push(name),
            }
        }
    }
    Ok(names)
}

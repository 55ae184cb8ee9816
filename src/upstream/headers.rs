//! The header section on its way: what is removed, what is refused, what is set. The contract, section 5.

use std::net::IpAddr;

use http::Version;
use http::header::{CONNECTION, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL, TE};

use crate::config;
use crate::message::Rejection;
use crate::message::credential::is_scheme;
use crate::sessions::Caller;
use crate::telemetry::ids;

static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");

/// Who sent the request, as far as the connection and trusted proxies tell.
#[derive(Clone, Debug)]
pub struct Client {
    /// The first untrusted hop from the right: whom counters and logs mean.
    pub address: IpAddr,
    /// The address of the connection's other end, as X-Forwarded-For wants it.
    pub peer: HeaderValue,
    /// Whether that end is one of `trusted_proxies`.
    pub trusted: bool,
    /// Whether the connection is encrypted, as X-Forwarded-Proto tells.
    pub secure: bool,
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
    /// Whether it has a Connection line.
    pub connection: bool,
    /// Whether the body goes in chunks.
    pub chunked: bool,
    /// What the client sent; HTTP/2 has its own way with Host and cookies.
    pub version: Version,
    /// Whether it asks for a WebSocket.
    pub websocket: bool,
    /// Whether its credential stands in Sec-WebSocket-Protocol.
    pub websocket_token: bool,
}

/// Where a header section is written: a request line's bytes, or HTTP/2's map.
trait Section {
    /// One of the client's fields.
    fn pass(&mut self, name: &HeaderName, value: &HeaderValue);
    /// One of ours, in parts that are to stand behind one another.
    fn put<'v>(&mut self, name: &HeaderName, parts: impl Iterator<Item = &'v [u8]>);
}

impl Section for Vec<u8> {
    fn pass(&mut self, name: &HeaderName, value: &HeaderValue) {
        write_field(self, name.as_str(), value.as_bytes());
    }

    fn put<'v>(&mut self, name: &HeaderName, parts: impl Iterator<Item = &'v [u8]>) {
        self.extend_from_slice(name.as_str().as_bytes());
        self.extend_from_slice(b": ");
        parts.for_each(|part| self.extend_from_slice(part));
        self.extend_from_slice(b"\r\n");
    }
}

impl Section for HeaderMap {
    fn pass(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.append(name, value.clone());
    }

    fn put<'v>(&mut self, name: &HeaderName, parts: impl Iterator<Item = &'v [u8]>) {
        let whole: Vec<u8> = parts.flatten().copied().collect();
        // Of parts that were values, or visible ASCII.
        if let Ok(value) = HeaderValue::try_from(whole) {
            self.append(name, value);
        }
    }
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

    /// Writes the upstream's header section for HTTP/1.1: the client's but for what must not pass, and then what the
    /// gateway has to say. `host` is what the upstream is to see as Host; `None` keeps the client's.
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
        self.pass(out, headers, host.is_none(), request)?;
        if let Some(host) = host {
            write_field(out, "host", host.as_bytes());
        }
        if request.chunked {
            write_field(out, "transfer-encoding", b"chunked");
        }
        if request.websocket {
            out.extend_from_slice(b"connection: Upgrade\r\nupgrade: websocket\r\n");
        }
        out.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// The upstream's header section for HTTP/2, by the same rules. Host is not in it: that is `:authority`.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn map(&self, headers: &HeaderMap, request: &Rewrite<'_>) -> Result<HeaderMap, Rejection> {
        let mut out = HeaderMap::with_capacity(headers.len() + 8);
        self.pass(&mut out, headers, false, request)?;
        if headers.get_all(TE).iter().any(|te| items(te.as_bytes()).any(|item| item.eq_ignore_ascii_case(b"trailers")))
        {
            // gRPC servers ask for it.
            out.insert(TE, HeaderValue::from_static("trailers"));
        }
        Ok(out)
    }

    fn pass(
        &self,
        out: &mut impl Section,
        headers: &HeaderMap,
        keep_host: bool,
        request: &Rewrite<'_>,
    ) -> Result<(), Rejection> {
        let named = if request.connection { connection_names(headers)? } else { Vec::new() };
        let is_named = |name: &str| named.iter().any(|named| named == name);
        let h2 = request.version == Version::HTTP_2;
        let (mut proto, mut forwarded_host) = (false, false);
        for (name, value) in headers {
            let text = name.as_str();
            let removed = match text {
                _ if is_named(text) => true,
                "host" => !keep_host,
                "authorization" => !request.authorization,
                // Written below, in one.
                "cookie" => h2,
                // Answered here, when the body is first read.
                "expect" => value.as_bytes().eq_ignore_ascii_case(b"100-continue"),
                // Written below.
                "x-request-id" | "x-forwarded-for" => true,
                "traceparent" => request.ids.trace.is_some(),
                "sec-websocket-protocol" => request.websocket_token,
                _ => is_hop_by_hop(text) || self.is_identity(text) || (!request.client.trusted && is_forwarding(text)),
            };
            if removed {
                continue;
            }
            proto |= text == "x-forwarded-proto";
            forwarded_host |= text == "x-forwarded-host";
            out.pass(name, value);
        }
        if h2 && !is_named("cookie") {
            put_cookies(out, headers);
        }
        if request.websocket_token && !is_named("sec-websocket-protocol") {
            put_protocols(out, headers);
        }
        if !proto {
            let scheme: &[u8] = if request.client.secure { b"https" } else { b"http" };
            out.put(&FORWARDED_PROTO, [scheme].into_iter());
        }
        if !forwarded_host && let Some(host) = headers.get(HOST) {
            out.pass(&FORWARDED_HOST, host);
        }
        put_forwarded_for(out, headers, request.client);
        let trace = request.ids.trace.or_else(|| is_named("traceparent").then(ids::new_traceparent));
        self.put_identity(out, request, trace.as_ref());
        Ok(())
    }

    fn put_identity(&self, out: &mut impl Section, request: &Rewrite<'_>, trace: Option<&[u8; 55]>) {
        out.put(&REQUEST_ID, [request.ids.request].into_iter());
        if let Some(trace) = trace {
            out.put(&TRACE_PARENT, [&trace[..]].into_iter());
        }
        // Visible ASCII by construction.
        for (index, value) in request.caller.into_iter().flat_map(Caller::headers) {
            if let Some(name) = self.identity.get(*index) {
                out.put(name, [&value[..]].into_iter());
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
fn put_forwarded_for(out: &mut impl Section, headers: &HeaderMap, client: &Client) {
    let peer = std::iter::once(client.peer.as_bytes());
    if client.trusted {
        let chain = headers.get_all(&FORWARDED_FOR).iter().flat_map(|line| [line.as_bytes(), b", "]);
        out.put(&FORWARDED_FOR, chain.chain(peer));
    } else {
        out.put(&FORWARDED_FOR, peer);
    }
}

/// HTTP/2 may cut a cookie field in pieces, HTTP/1.1 knows only one (RFC 9113 8.2.3).
fn put_cookies(out: &mut impl Section, headers: &HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
    if let Some(first) = crumbs.next() {
        out.put(&COOKIE, std::iter::once(first).chain(crumbs.flat_map(|crumb| [b"; ", crumb])));
    }
}

/// The protocols that are offered, but for the credential among them.
fn put_protocols(out: &mut impl Section, headers: &HeaderMap) {
    let mut rest = other_protocols(headers);
    if let Some(first) = rest.next() {
        out.put(&SEC_WEBSOCKET_PROTOCOL, std::iter::once(first).chain(rest.flat_map(|item| [b", ", item])));
    }
}

/// The items of Sec-WebSocket-Protocol without `bearer` and the token behind it.
pub fn other_protocols(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let all = || headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().flat_map(|line| items(line.as_bytes()));
    let token = all().skip_while(|item| !is_scheme(item)).nth(1);
    all().filter(move |item| !is_scheme(item) && Some(*item) != token)
}

/// The items of a comma-separated list.
pub fn items(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|item| !item.is_empty())
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

#[cfg(test)]
mod tests;

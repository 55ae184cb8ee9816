//! Who sent a request: the connection's other end, or, behind trusted proxies, the first untrusted hop from the right.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, HeaderValue};

use crate::config::Network;

pub use crate::upstream::Client;

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// Its other end, which a PROXY header may have named; `None` for a UNIX socket.
    pub address: Option<IpAddr>,
    /// Whether it speaks TLS.
    pub secure: bool,
}

/// The other end of a connection. Asked for once a connection. Who is at a UNIX socket was let in by the file's mode: he
/// is believed as a trusted proxy is, and is this machine.
pub fn of_connection(source: Source, trusted: &[Network]) -> Client {
    let peer = source.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)).to_canonical();
    // An address is visible ASCII.
    let text = HeaderValue::try_from(peer.to_string()).unwrap_or_else(|_| HeaderValue::from_static("unknown"));
    let trusted = source.address.is_none() || is_trusted(peer, trusted);
    Client { address: peer, peer: text, trusted, secure: source.secure }
}

/// The client of a request that came over the connection of `peer`.
pub fn of_request<'a>(peer: &'a Client, headers: &HeaderMap, trusted: &[Network]) -> Cow<'a, Client> {
    if !peer.trusted {
        return Cow::Borrowed(peer);
    }
    let mut address = peer.address;
    let lines: Vec<&[u8]> = headers.get_all("x-forwarded-for").iter().map(HeaderValue::as_bytes).collect();
    let chain = lines.join(&b","[..]);
    for hop in chain.rsplit(|byte| *byte == b',') {
        // What is no address was not written by a proxy that is trusted: the last good hop stands.
        let Some(hop) = parse_hop(hop) else { break };
        address = hop;
        if !is_trusted(hop, trusted) {
            break;
        }
    }
    Cow::Owned(Client { address, ..peer.clone() })
}

fn is_trusted(address: IpAddr, trusted: &[Network]) -> bool {
    trusted.iter().any(|network| network.contains(address))
}

/// An address, also `1.2.3.4:5678`, `[2001:db8::1]` and `[2001:db8::1]:5678`.
fn parse_hop(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?.trim();
    let bare = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None => match text.split_once(':') {
            Some((v4, port)) if !port.contains(':') => v4,
            _ => text,
        },
    };
    bare.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, chain: &[&str]) -> String {
        let trusted = [Network::new("10.0.0.0".parse().unwrap(), 8).unwrap()];
        let peer = of_connection(Source { address: Some(peer.parse().unwrap()), secure: false }, &trusted);
        let mut headers = HeaderMap::new();
        for line in chain {
            headers.append("x-forwarded-for", HeaderValue::from_str(line).unwrap());
        }
        of_request(&peer, &headers, &trusted).address.to_string()
    }

    #[test]
    fn the_first_untrusted_hop_from_the_right() {
        for (peer, chain, expected) in [
            ("203.0.113.9", &["1.2.3.4"][..], "203.0.113.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["1.2.3.4"], "1.2.3.4"),
            ("::ffff:10.0.0.1", &["1.2.3.4"], "1.2.3.4"),
            ("10.0.0.1", &["6.6.6.6, 1.2.3.4, 10.0.0.2"], "1.2.3.4"),
            ("10.0.0.1", &["6.6.6.6", "1.2.3.4:80"], "1.2.3.4"),
            ("10.0.0.1", &["[2001:db8::1]:80, 10.9.9.9"], "2001:db8::1"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &["1.2.3.4, garbage, 10.0.0.2"], "10.0.0.2"),
        ] {
            assert_eq!(client(peer, chain), expected, "{peer} {chain:?}");
        }
    }
}

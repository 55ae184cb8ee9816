//! `server.listen` and `admin.listen`: where the gateway listens.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::config::file;
use crate::config::key::Key;
use crate::config::problem::{Fault, quote};
use crate::config::reader::Reader;
use crate::config::shorthand::{Entry, Listen};
use crate::config::socket;
use crate::config::{Address, Listener};

const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9180);

/// `server.listen`, each with its key; `proxies` is whether there are `trusted_proxies`.
pub(super) fn listen(reader: &mut Reader<'_>, listen: Option<Listen>, proxies: bool) -> Vec<(Key, Listener)> {
    let key = Key::of("server.listen");
    let written: Vec<(Key, file::Listener)> = match listen {
        None => {
            let address = Address::Tcp(LISTEN);
            return vec![(key, Listener { address, tls: false, proxy_protocol: false })];
        }
        Some(Listen::One(entry)) => vec![(key.clone(), entry)],
        Some(Listen::Many(all)) => {
            all.into_iter().enumerate().map(|(index, Entry(entry))| (key.index(index), entry)).collect()
        }
    };
    if written.is_empty() {
        reader.refuse(&key, "is an empty list", "Give one address at least, such as 127.0.0.1:8080");
    }
    let folder = reader.folder();
    let mut listeners: Vec<(Key, Listener)> = Vec::new();
    for (key, entry) in written {
        let Some(address) = reader.parse(&key, &entry.address, |text| match text.strip_prefix("unix:") {
            Some(path) => socket::parse(path, folder).map(Address::Unix),
            None => parse_address(text).map(Address::Tcp),
        }) else {
            continue;
        };
        let proxy_protocol = entry.proxy_protocol.unwrap_or(false);
        // The peers of a UNIX socket are trusted without a word.
        if proxy_protocol && !proxies && matches!(address, Address::Tcp(_)) {
            let message = "nobody may send the PROXY protocol's header, because there are no server.trusted_proxies";
            reader.refuse(&key.name("proxy_protocol"), message, "Name there the load balancers that stand before this");
        }
        match listeners.iter().find(|(_, other)| overlap(&other.address, &address)) {
            Some((_, other)) if other.address == address => {
                reader.refuse(&key, format!("{address} stands twice"), "Keep one of the two");
            }
            Some((_, other)) => {
                reader.refuse(&key, format!("{address} is within {}", other.address), "Keep one of the two");
            }
            None => listeners.push((key, Listener { address, tls: entry.tls.unwrap_or(false), proxy_protocol })),
        }
    }
    listeners
}

/// `admin.listen`; `public` are the addresses of the public listeners.
pub(super) fn admin(reader: &mut Reader<'_>, admin: file::Admin, public: &[Listener]) -> Option<SocketAddr> {
    let key = Key::of("admin.listen");
    let address = match admin.listen {
        None => ADMIN,
        Some(None) => return None,
        Some(Some(text)) => reader.parse(&key, &text, |text| {
            if text.starts_with("unix:") {
                let remedy = "Write an address and port, such as 127.0.0.1:9180, or `listen: null` for none";
                return Err(Fault::new("the operator's listener is TCP only, not a UNIX socket", remedy));
            }
            parse_address(text)
        })?,
    };
    if public.iter().any(|public| overlap(&public.address, &Address::Tcp(address))) {
        reader.refuse(
            &key,
            format!("{address} is taken by server.listen"),
            "Give it a port of its own, or `listen: null` for none",
        );
    }
    Some(address)
}

/// Whether both cannot be listened on at once. Port 0 is always free.
fn overlap(left: &Address, right: &Address) -> bool {
    let (left, right) = match (left, right) {
        (Address::Tcp(left), Address::Tcp(right)) => (left, right),
        (Address::Unix(left), Address::Unix(right)) => return left == right,
        (Address::Tcp(_), Address::Unix(_)) | (Address::Unix(_), Address::Tcp(_)) => return false,
    };
    let any = |ip: IpAddr| ip.is_unspecified();
    let same_family = left.is_ipv4() == right.is_ipv4();
    left.port() != 0
        && left.port() == right.port()
        && (left.ip() == right.ip() || (same_family && (any(left.ip()) || any(right.ip()))))
}

fn parse_address(text: &str) -> Result<SocketAddr, Fault> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let port = |digits: &str| digits.parse::<u16>().is_ok();
    let remedy = match text.rsplit_once(':') {
        Some(("", digits)) if port(digits) => {
            format!("Write 0.0.0.0:{digits} for all addresses, or 127.0.0.1:{digits}")
        }
        Some(("localhost", digits)) if port(digits) => format!("Write 127.0.0.1:{digits}"),
        None if port(text) => format!("Write 0.0.0.0:{text} for all addresses, or 127.0.0.1:{text}"),
        _ if text.parse::<IpAddr>().is_ok() => "The port is missing, as in 127.0.0.1:8080 or [::1]:8080".into(),
        _ => "Write an address and port, such as 127.0.0.1:8080".into(),
    };
    Err(Fault::new(format!("{} is not an address with a port", quote(text)), remedy))
}

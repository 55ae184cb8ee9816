//! `server` and `admin`: where the gateway listens, and within which bounds.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::thread::available_parallelism;
use std::time::Duration;

use crate::config::file;
use crate::config::key::Key;
use crate::config::problem::{Fault, quote};
use crate::config::reader::Reader;
use crate::config::scalar::{OneOrMany, Text};
use crate::config::{Address, Limits, Listener, Network, Server, ServerTimeouts};

const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9180);

/// `server`.
pub(super) fn server(reader: &mut Reader<'_>, server: file::Server) -> Server {
    let key = Key::of("server");
    let limits = server.limits.unwrap_or_default();
    let plain = |address| Listener { address: Address::Tcp(address), tls: false, proxy_protocol: false };
    Server {
        listen: listen(reader, server.listen).into_iter().map(plain).collect(),
        workers: workers(reader.number(&key.name("workers"), server.workers, 0, 0..=1024)),
        trusted_proxies: trusted_proxies(reader, &server.trusted_proxies.unwrap_or_default()),
        timeouts: timeouts(reader, server.timeouts.unwrap_or_default()),
        limits: bounds(reader, limits),
        tls: None,
    }
}

/// `admin`; `public` are the addresses of the public listener.
pub(super) fn admin(reader: &mut Reader<'_>, admin: file::Admin, public: &[Listener]) -> Option<SocketAddr> {
    let key = Key::of("admin.listen");
    let address = match admin.listen {
        None => ADMIN,
        Some(None) => return None,
        Some(Some(text)) => reader.parse(&key, &text, parse_address)?,
    };
    let taken = |public: &Listener| matches!(public.address, Address::Tcp(public) if overlap(public, address));
    if public.iter().any(taken) {
        reader.refuse(&key, format!("{address} is taken by server.listen"), "Give it a port of its own, or null");
    }
    Some(address)
}

fn listen(reader: &mut Reader<'_>, listen: Option<OneOrMany>) -> Vec<SocketAddr> {
    let key = Key::of("server.listen");
    let written: Vec<(Key, Text)> = match listen {
        None => return vec![LISTEN],
        Some(OneOrMany::One(text)) => vec![(key.clone(), text)],
        Some(OneOrMany::Many(all)) => all.into_iter().enumerate().map(|(i, text)| (key.index(i), text)).collect(),
    };
    if written.is_empty() {
        reader.refuse(&key, "is an empty list", "Give one address at least, such as 127.0.0.1:8080");
    }
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for (key, text) in written {
        let Some(address) = reader.parse(&key, &text, parse_address) else { continue };
        match addresses.iter().find(|other| overlap(**other, address)) {
            Some(other) if *other == address => {
                reader.refuse(&key, format!("{address} stands twice"), "Keep one of the two")
            }
            Some(other) => reader.refuse(&key, format!("{address} is within {other}"), "Keep one of the two"),
            None => addresses.push(address),
        }
    }
    addresses
}

/// Whether both cannot be listened on at once. Port 0 is always free.
fn overlap(left: SocketAddr, right: SocketAddr) -> bool {
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
    if text.starts_with("unix:") {
        return Err(Fault::new(
            "unix sockets are not supported by this version",
            "Write an address and port, such as 127.0.0.1:8080",
        ));
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

fn workers(number: u64) -> NonZeroUsize {
    let number = usize::try_from(number).ok().and_then(NonZeroUsize::new);
    number.or_else(|| available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN)
}

fn trusted_proxies(reader: &mut Reader<'_>, written: &[Text]) -> Vec<Network> {
    let mut networks = Vec::new();
    for (index, text) in written.iter().enumerate() {
        let key = Key::of("server.trusted_proxies").index(index);
        let network = reader.parse(&key, text, |text| {
            let everyone = text.ends_with("/0");
            let parsed = text.parse::<Network>().map(|network| (network, everyone));
            parsed.map_err(|()| {
                Fault::new(
                    format!("{} is not an address or range", quote(text)),
                    "Write such as 10.0.0.0/8, fd00::/8 or 192.0.2.7",
                )
            })
        });
        if let Some((network, everyone)) = network {
            networks.push(network);
            if everyone {
                reader.warn(&key, "every client is believed about who it is: X-Forwarded-For can be forged by anyone");
            }
        }
    }
    networks
}

fn timeouts(reader: &mut Reader<'_>, written: file::ServerTimeouts) -> ServerTimeouts {
    let key = Key::of("server.timeouts");
    let (second, least) = (Duration::from_secs(1), Duration::from_millis(1));
    ServerTimeouts {
        header: reader.duration(&key.name("header"), written.header, 10 * second, least),
        idle: reader.duration(&key.name("idle"), written.idle, 75 * second, least),
        body: reader.duration(&key.name("body"), written.body, 30 * second, least),
        drain: reader.duration(&key.name("drain"), written.drain, 30 * second, Duration::ZERO),
    }
}

fn bounds(reader: &mut Reader<'_>, written: file::Limits) -> Limits {
    let key = Key::of("server.limits");
    // 8 KiB is hyper's own least buffer, and the length of a token that must pass.
    let header_bytes = reader.size(&key.name("header_bytes"), written.header_bytes, 64 << 10, 8 << 10..=1 << 20);
    Limits {
        connections: 50_000,
        per_address: 0,
        header_bytes: usize::try_from(header_bytes).unwrap_or(64 << 10),
        body: reader.size(&key.name("body"), written.body, 64 << 20, 1..=1 << 40),
    }
}

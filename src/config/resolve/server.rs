//! `server`: the bounds of the public listeners, and their certificates.

use std::num::NonZeroUsize;
use std::thread::available_parallelism;
use std::time::Duration;

use super::listen;
use crate::config::file;
use crate::config::host;
use crate::config::key::Key;
use crate::config::problem::{Fault, quote};
use crate::config::reader::Reader;
use crate::config::scalar::Text;
use crate::config::units;
use crate::config::{
    AdminAccess, Certificate, DEFAULT_CONNECTIONS, Limits, Listener, Network, Server, ServerTimeouts, Tls,
};

/// `admin.allow`, when it is not given.
const LOOPBACK: [&str; 2] = ["127.0.0.0/8", "::1"];

/// `server.timeouts.body_rate`, when it is not given, and at most; in bytes a second.
const BODY_RATE: u64 = 256;
const BODY_RATE_MAX: u64 = 1 << 20;

/// `server`.
pub(super) fn server(reader: &mut Reader<'_>, server: file::Server) -> Server {
    let key = Key::of("server");
    let trusted = server.trusted_proxies.unwrap_or_default();
    let listen = listen::listen(reader, server.listen, !trusted.is_empty());
    let tls = tls(reader, server.tls, &listen);
    Server {
        workers: workers(reader.number(&key.name("workers"), server.workers, 0, 0..=1024)),
        trusted_proxies: trusted_proxies(reader, &trusted),
        timeouts: timeouts(reader, server.timeouts.unwrap_or_default()),
        limits: bounds(reader, server.limits.unwrap_or_default()),
        tls,
        listen: listen.into_iter().map(|(_, listener)| listener).collect(),
    }
}

/// `server.tls`, and whether it goes with the listeners. The files are not read here.
fn tls(reader: &mut Reader<'_>, written: Option<file::Tls>, listen: &[(Key, Listener)]) -> Option<Tls> {
    let key = Key::of("server.tls");
    let mut speakers = listen.iter().filter(|(_, listener)| listener.tls);
    let Some(written) = written else {
        for (key, _) in speakers {
            let remedy = "Give one: server.tls: {certificates: [{cert: tls/site.pem, key: tls/site.key}]}";
            reader.refuse(&key.name("tls"), "there is no certificate to show", remedy);
        }
        return None;
    };
    if speakers.next().is_none() {
        reader.warn(&key, "no listener speaks TLS: in server.listen write {address: 0.0.0.0:443, tls: true}");
    }
    let list = key.name("certificates");
    if written.certificates.is_empty() {
        reader.refuse(
            &list,
            "is an empty list",
            "Give one pair at least, such as {cert: tls/site.pem, key: tls/site.key}",
        );
    }
    let mut certificates = Vec::new();
    for (index, pair) in written.certificates.iter().enumerate() {
        let key = list.index(index);
        let cert = reader.path(&key.name("cert"), Some(&pair.cert));
        let private = reader.path(&key.name("key"), Some(&pair.key));
        certificates.extend(cert.zip(private).map(|(cert, key)| Certificate { cert, key }));
    }
    Some(Tls { certificates, client_ca: reader.path(&key.name("client_ca"), written.client_ca.as_ref()) })
}

fn workers(number: u64) -> NonZeroUsize {
    let number = usize::try_from(number).ok().and_then(NonZeroUsize::new);
    number.or_else(|| available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN)
}

fn trusted_proxies(reader: &mut Reader<'_>, written: &[Text]) -> Vec<Network> {
    let mut networks = Vec::new();
    for (index, text) in written.iter().enumerate() {
        let key = Key::of("server.trusted_proxies").index(index);
        let network =
            reader.parse(&key, text, |text| parse_network(text).map(|network| (network, text.ends_with("/0"))));
        if let Some((network, everyone)) = network {
            networks.push(network);
            if everyone {
                reader.warn(&key, "every client is believed about who it is: X-Forwarded-For can be forged by anyone");
            }
        }
    }
    networks
}

fn parse_network(text: &str) -> Result<Network, Fault> {
    text.parse().map_err(|()| {
        let remedy = "Write such as 10.0.0.0/8, fd00::/8 or 192.0.2.7";
        Fault::new(format!("{} is not an address or range", quote(text)), remedy)
    })
}

/// `admin.allow` and `admin.hosts`.
pub(super) fn admin_access(
    reader: &mut Reader<'_>,
    (allow, hosts): (Option<Vec<Text>>, Option<Vec<Text>>),
) -> AdminAccess {
    let loopback = || LOOPBACK.iter().filter_map(|text| text.parse().ok()).collect();
    let key = Key::of("admin.allow");
    let allow = allow.map_or_else(loopback, |allow| {
        let texts = allow.iter().enumerate();
        texts.filter_map(|(index, text)| reader.parse(&key.index(index), text, parse_network)).collect()
    });
    let key = Key::of("admin.hosts");
    let hosts = hosts.unwrap_or_default();
    let hosts = hosts.iter().enumerate().filter_map(|(index, text)| {
        reader.parse(&key.index(index), text, |text| match text.strip_prefix("*.") {
            Some(rest) => host::parse_name(rest).map(|name| format!("*.{name}")),
            None => host::parse_name(text),
        })
    });
    AdminAccess { hosts: hosts.collect(), allow }
}

fn timeouts(reader: &mut Reader<'_>, written: file::ServerTimeouts) -> ServerTimeouts {
    let key = Key::of("server.timeouts");
    let (second, least) = (Duration::from_secs(1), Duration::from_millis(1));
    ServerTimeouts {
        header: reader.duration(&key.name("header"), written.header, 10 * second, least),
        idle: reader.duration(&key.name("idle"), written.idle, 75 * second, least),
        body: reader.duration(&key.name("body"), written.body, 30 * second, least),
        body_rate: body_rate(reader, &key.name("body_rate"), written.body_rate.as_ref()),
        drain: reader.duration(&key.name("drain"), written.drain, 30 * second, Duration::ZERO),
    }
}

fn body_rate(reader: &mut Reader<'_>, key: &Key, written: Option<&Text>) -> u64 {
    let parse = |text: &str| {
        let rate = if text == "off" { Some(0) } else { text.strip_suffix("/s").and_then(units::parse_size) };
        rate.filter(|rate| *rate <= BODY_RATE_MAX).ok_or_else(|| {
            Fault::new(
                format!("{} is not a rate of up to 1MiB/s", quote(text)),
                "Write such as 256B/s or 1KiB/s, or off",
            )
        })
    };
    written.and_then(|text| reader.parse(key, text, parse)).unwrap_or(BODY_RATE)
}

fn bounds(reader: &mut Reader<'_>, written: file::Limits) -> Limits {
    let key = Key::of("server.limits");
    // 8 KiB is hyper's own least buffer, and the length of a token that must pass.
    let header_bytes = reader.size(&key.name("header_bytes"), written.header_bytes, 64 << 10, 8 << 10..=1 << 20);
    let connections =
        reader.number(&key.name("connections"), written.connections, DEFAULT_CONNECTIONS as u64, 1..=10_000_000);
    let per_address = reader.number(&key.name("per_address"), written.per_address, 0, 0..=10_000_000);
    Limits {
        connections: usize::try_from(connections).unwrap_or(DEFAULT_CONNECTIONS),
        per_address: usize::try_from(per_address).unwrap_or(0),
        header_bytes: usize::try_from(header_bytes).unwrap_or(64 << 10),
        body: reader.size(&key.name("body"), written.body, 64 << 20, 1..=1 << 40),
    }
}

//! `upstreams`: the services behind the gateway.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use crate::config::file::{self, Consistent, Dealing};
use crate::config::host;
use crate::config::key::Key;
use crate::config::problem::{Fault, quote};
use crate::config::reader::Reader;
use crate::config::scalar::{Named, Text};
use crate::config::shorthand::{self, Backend};
use crate::config::socket;
use crate::config::{
    Balance, HashKey, Health, HostPolicy, Protocol, ServerAddress, Upstream, UpstreamServer, UpstreamTimeouts,
    UpstreamTls,
};

/// The largest weight: the balancer deals by a table of as many places.
const HEAVIEST: u64 = 256;

/// `upstreams`, in the order of the file. One that has faults is there too, so that routes find its name.
pub(super) fn upstreams(reader: &mut Reader<'_>, written: Named<file::Upstream>) -> Vec<Upstream> {
    let Named(entries) = written;
    entries.into_iter().map(|(name, entry)| upstream(reader, name, entry)).collect()
}

fn upstream(reader: &mut Reader<'_>, name: String, written: file::Upstream) -> Upstream {
    let key = Key::of("upstreams").name(&name);
    let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if !name.bytes().all(fits) || !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        let message = format!("{} is not a name for an upstream", quote(&name));
        reader.refuse(&key, message, "It has letters, digits, - and _, and begins with a letter or digit");
    }
    let host = match written.host {
        None => HostPolicy::Keep,
        Some(text) => reader.parse(&key.name("host"), &text, parse_host).unwrap_or(HostPolicy::Keep),
    };
    let servers = servers(reader, &key.name("servers"), written.servers);
    let tls = tls(reader, &key.name("tls"), written.tls.unwrap_or_default(), &servers);
    let protocol = reader.choice(&key.name("protocol"), written.protocol, file::Protocol::Http1);
    Upstream {
        servers,
        timeouts: timeouts(reader, &key.name("timeouts"), written.timeouts.unwrap_or_default()),
        balance: balance(reader, &key.name("balance"), written.balance),
        health: written.health.map(|written| health(reader, &key.name("health"), written)),
        protocol: match protocol {
            file::Protocol::Http1 => Protocol::Http1,
            file::Protocol::H2 => Protocol::H2,
        },
        tls,
        host,
        max_connections: written.max_connections.map(|most| {
            usize::try_from(reader.number(&key.name("max_connections"), Some(most), 1, 1..=1_000_000)).unwrap_or(1)
        }),
        name,
    }
}

fn servers(reader: &mut Reader<'_>, key: &Key, written: Vec<Backend>) -> Vec<UpstreamServer> {
    if written.is_empty() {
        reader.refuse(key, "is an empty list", "Give one server at least, such as http://127.0.0.1:5000");
        return Vec::new();
    }
    let weights: Vec<u64> = written.iter().map(|backend| backend.weight.unwrap_or(1)).collect();
    if weights.iter().all(|weight| *weight == 0) {
        reader.refuse(key, "every weight is 0, so that no server would get a request", "Give one a weight of 1");
    }
    let (mut servers, mut seen) = (Vec::new(), HashSet::new());
    for (index, (backend, weight)) in written.into_iter().zip(weights).enumerate() {
        let key = key.index(index);
        let weight = reader.number(&key.name("weight"), Some(weight), 1, 0..=HEAVIEST);
        let Text(url) = &backend.url;
        let Some(url) = reader.expand(&key, url) else { continue };
        let parsed = parse_server(&url, reader.folder());
        let Some((address, tls)) = reader.accept(&key, parsed) else { continue };
        if !seen.insert(address.clone()) {
            let message = match &address {
                ServerAddress::Tcp { host, port } => format!("{} stands twice", quote(&format!("{host}:{port}"))),
                ServerAddress::Unix(_) => format!("{} stands twice", quote(&url)),
            };
            reader.refuse(&key, message, "Keep one of the two, with a larger weight");
        }
        servers.push(UpstreamServer { address, tls, weight: usize::try_from(weight).unwrap_or(1) });
    }
    servers
}

/// Where the server listens, and whether it speaks TLS.
fn parse_server(url: &str, folder: &Path) -> Result<(ServerAddress, bool), Fault> {
    match url.strip_prefix("unix:") {
        Some(path) => Ok((ServerAddress::Unix(socket::parse(path, folder)?), false)),
        None => host::parse_server(url).map(|(host, port, tls)| (ServerAddress::Tcp { host, port }, tls)),
    }
}

fn balance(reader: &mut Reader<'_>, key: &Key, written: Option<shorthand::Balance>) -> Balance {
    match written {
        None => Balance::RoundRobin,
        Some(shorthand::Balance::Word(word)) => match reader.choice(key, Some(word), Dealing::RoundRobin) {
            Dealing::RoundRobin => Balance::RoundRobin,
            Dealing::LeastConnections => Balance::LeastConnections,
            Dealing::Random => Balance::Random,
        },
        Some(shorthand::Balance::Keyed(Consistent { consistent })) => {
            let by = reader.choice(&key.name("consistent"), Some(consistent), file::HashKey::Subject);
            Balance::Consistent(match by {
                file::HashKey::Subject => HashKey::Subject,
                file::HashKey::Address => HashKey::Address,
            })
        }
    }
}

fn health(reader: &mut Reader<'_>, key: &Key, written: file::Health) -> Health {
    let every = reader.duration(&key.name("every"), written.every, Duration::from_secs(5), Duration::from_millis(10));
    let up = reader.number(&key.name("up"), written.up, 2, 1..=1000);
    let down = reader.number(&key.name("down"), written.down, 3, 1..=1000);
    Health {
        path: written.path.and_then(|text| reader.parse(&key.name("path"), &text, parse_path)),
        every,
        up: u32::try_from(up).unwrap_or(2),
        down: u32::try_from(down).unwrap_or(3),
    }
}

/// Path and query of a check, as they are sent.
fn parse_path(text: &str) -> Result<String, Fault> {
    if !text.starts_with('/') {
        let remedy = if text.is_empty() {
            "Leave it out to check for a connection that opens"
        } else {
            "Write such as /healthz"
        };
        return Err(Fault::new(format!("{} does not begin with `/`", quote(text)), remedy));
    }
    if text.contains('#') {
        return Err(Fault::new(
            format!("{} has a fragment, which is never sent", quote(text)),
            "Leave out what follows `#`",
        ));
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        let message = format!("{} has a space, a control character or a letter beyond ASCII", quote(text));
        return Err(Fault::new(message, "Write it percent-encoded, such as %20"));
    }
    Ok(text.to_owned())
}

fn tls(reader: &mut Reader<'_>, key: &Key, written: file::UpstreamTls, servers: &[UpstreamServer]) -> UpstreamTls {
    let ca = reader.path(&key.name("ca"), written.ca.as_ref());
    let insecure = written.insecure_skip_verify.unwrap_or(false);
    let key_of_insecure = key.name("insecure_skip_verify");
    if insecure && written.ca.is_some() {
        let message = "stands beside `ca`, which would never be looked at";
        reader.refuse(&key_of_insecure, message, "Leave it out: a `ca` of your own verifies your own certificates");
    } else if (insecure || ca.is_some()) && !servers.iter().any(|server| server.tls) {
        reader.warn(key, "has no effect: no server here has https://");
    } else if insecure {
        reader.warn(
            &key_of_insecure,
            "any certificate is accepted: whoever sits between can read and change everything. Give `ca` instead",
        );
    }
    UpstreamTls { ca, insecure_skip_verify: insecure }
}

fn timeouts(reader: &mut Reader<'_>, key: &Key, written: file::UpstreamTimeouts) -> UpstreamTimeouts {
    let (second, least) = (Duration::from_secs(1), Duration::from_millis(1));
    UpstreamTimeouts {
        connect: reader.duration(&key.name("connect"), written.connect, 2 * second, least),
        response: reader.duration(&key.name("response"), written.response, 30 * second, least),
        idle: reader.duration(&key.name("idle"), written.idle, 60 * second, least),
    }
}

fn parse_host(text: &str) -> Result<HostPolicy, Fault> {
    match text {
        "keep" => Ok(HostPolicy::Keep),
        "upstream" => Ok(HostPolicy::Upstream),
        "" => Err(Fault::new("is empty", "Write keep, upstream or a host name")),
        _ => {
            let (name, port) = host::parse_authority(text)?;
            Ok(HostPolicy::Name(port.map_or_else(|| name.clone(), |port| format!("{name}:{port}"))))
        }
    }
}

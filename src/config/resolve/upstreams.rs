//! `upstreams`: the services behind the gateway.

use std::collections::HashSet;
use std::time::Duration;

use crate::config::file;
use crate::config::host;
use crate::config::key::Key;
use crate::config::problem::{Fault, quote};
use crate::config::reader::Reader;
use crate::config::scalar::{Named, Text};
use crate::config::shorthand::Backend;
use crate::config::{
    Balance, HostPolicy, Protocol, ServerAddress, Upstream, UpstreamServer, UpstreamTimeouts, UpstreamTls,
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
    Upstream {
        servers: servers(reader, &key.name("servers"), written.servers),
        timeouts: timeouts(reader, &key.name("timeouts"), written.timeouts.unwrap_or_default()),
        balance: Balance::RoundRobin,
        health: None,
        protocol: Protocol::Http1,
        tls: UpstreamTls::default(),
        host,
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
        let Some((host, port)) = reader.accept(&key, host::parse_server(&url)) else { continue };
        if !seen.insert((host.clone(), port)) {
            let message = format!("{} stands twice", quote(&format!("{host}:{port}")));
            reader.refuse(&key, message, "Keep one of the two, with a larger weight");
        }
        let address = ServerAddress::Tcp { host, port };
        servers.push(UpstreamServer { address, tls: false, weight: usize::try_from(weight).unwrap_or(1) });
    }
    servers
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

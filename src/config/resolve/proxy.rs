//! The proxy of the environment: HTTPS_PROXY and NO_PROXY, as curl and Go read them.

use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;

use crate::config::Proxy;
use crate::config::host;
use crate::config::key::Key;
use crate::config::network::Network;
use crate::config::problem::Fault;
use crate::config::reader::Reader;
use crate::secret::Secret;

/// The proxy through which an https server is reached, if there is one. `key` names the server's URL.
pub(super) fn proxy(reader: &mut Reader<'_>, key: &Key, (name, port): (&str, u16)) -> Option<Proxy> {
    let variable = |name: &str, lower: &str| {
        [name, lower].into_iter().find_map(|name| Some((name.to_owned(), reader.variable(name)?)))
    };
    let (from, text) = variable("HTTPS_PROXY", "https_proxy")?;
    let exempt = variable("NO_PROXY", "no_proxy").is_some_and(|(_, list)| is_exempt(&list, name, port));
    if exempt || is_loopback(name) {
        return None;
    }
    match parse(&text) {
        Ok(proxy) => Some(proxy),
        Err(Fault { message, remedy }) => {
            // The variable is for every program here. It may hold a password, so that it is not repeated.
            reader.warn(key, format!("is fetched without a proxy, because {from} cannot be used: {message}. {remedy}"));
            None
        }
    }
}

fn is_loopback(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost") || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

fn parse(text: &str) -> Result<Proxy, Fault> {
    const WRITE: &str = "Write http://HOST:PORT or http://USER:PASSWORD@HOST:PORT";
    let rest = match text.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
        Some(_) => return Err(Fault::new("only proxies that speak plain HTTP are possible", WRITE)),
        None => text,
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (user, authority) = rest.rsplit_once('@').map_or((None, rest), |(user, rest)| (Some(user), rest));
    let unclear = |_| Fault::new("it names no host and port", WRITE);
    let (name, port) = host::parse_authority(authority).map_err(unclear)?;
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&name);
    let authorization = user.map(|user| {
        let (user, password) = user.split_once(':').unwrap_or((user, ""));
        let decode = |text| percent_decode_str(text).collect::<Vec<u8>>();
        let pair = [&decode(user)[..], b":", &decode(password)].concat();
        Secret::new(format!("Basic {}", STANDARD.encode(pair)))
    });
    Ok(Proxy { host: bare.to_owned(), port: port.unwrap_or(80), authorization })
}

/// Whether the list names the server: `*`, a name (which stands for those below it too), an address or a CIDR, each with or
/// without a port.
fn is_exempt(list: &str, name: &str, port: u16) -> bool {
    let address = name.parse::<IpAddr>().ok();
    list.split([',', ' ']).filter(|entry| !entry.is_empty()).any(|entry| {
        let entry = entry.to_ascii_lowercase();
        if entry == "*" {
            return true;
        }
        if let Some(address) = address {
            return names_address(&entry, address, port);
        }
        let (entry, of_port) = match entry.rsplit_once(':') {
            Some((entry, digits)) => (entry, digits.parse() == Ok(port)),
            None => (entry.as_str(), true),
        };
        let suffix = entry.strip_prefix('*').unwrap_or(entry);
        let suffix = suffix.strip_prefix('.').unwrap_or(suffix);
        let below = || name.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'));
        of_port && !suffix.is_empty() && (name == suffix || below())
    })
}

fn names_address(entry: &str, address: IpAddr, port: u16) -> bool {
    let bare = |text: &str| text.trim_start_matches('[').trim_end_matches(']').parse() == Ok(address);
    let with_port = || entry.rsplit_once(':').is_some_and(|(entry, digits)| bare(entry) && digits.parse() == Ok(port));
    bare(entry) || with_port() || entry.parse().is_ok_and(|network: Network| network.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_a_host_and_a_port() {
        for (text, host, port, authorization) in [
            ("http://proxy.example:3128", "proxy.example", 3128, None),
            ("http://proxy.example:3128/", "proxy.example", 3128, None),
            ("proxy.example:3128", "proxy.example", 3128, None),
            ("HTTP://10.0.0.1", "10.0.0.1", 80, None),
            ("http://[::1]:1", "::1", 1, None),
            ("http://user:p%40ss@proxy:1", "proxy", 1, Some("Basic dXNlcjpwQHNz")),
            ("http://user@proxy:1", "proxy", 1, Some("Basic dXNlcjo=")),
        ] {
            let proxy = parse(text).unwrap();
            assert_eq!((proxy.host.as_str(), proxy.port), (host, port), "{text}");
            let shown = proxy.authorization.map(|secret| String::from_utf8(secret.expose().to_vec()).unwrap());
            assert_eq!(shown.as_deref(), authorization, "{text}");
        }
        for text in ["", "socks5://proxy:1", "https://proxy:1", "http://", "http://proxy:0", "http://a b"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn some_servers_are_reached_without_it() {
        for (list, name, port, exempt) in [
            ("", "id.example", 443, false),
            ("*", "id.example", 443, true),
            ("id.example", "id.example", 443, true),
            ("ID.example", "id.example", 443, true),
            ("example", "id.example", 443, true),
            (".example", "id.example", 443, true),
            ("*.example", "id.example", 443, true),
            ("other, example", "id.example", 443, true),
            ("d.example", "id.example", 443, false),
            ("id.example:443", "id.example", 443, true),
            ("id.example:8443", "id.example", 443, false),
            ("10.0.0.0/8", "10.1.2.3", 443, true),
            ("10.1.2.3", "10.1.2.3", 443, true),
            ("10.1.2.3:443", "10.1.2.3", 443, true),
            ("10.1.2.3:1", "10.1.2.3", 443, false),
            ("0.0.3", "10.0.0.3", 443, false),
            ("::1/64", "::2", 443, true),
            ("[2001:db8::1]:443", "2001:db8::1", 443, true),
            ("2001:db8::1", "2001:db8::1", 443, true),
        ] {
            assert_eq!(is_exempt(list, name, port), exempt, "{list} {name}:{port}");
        }
        assert!(
            is_loopback("localhost") && is_loopback("127.0.0.9") && is_loopback("::1") && !is_loopback("id.example")
        );
    }
}

//! `portcullis health`: asks the admin listener for /readyz.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use crate::cli::{Refused, load, say};
use crate::server::HEALTH_AGENT;

/// A gateway that takes longer is not healthy.
const PATIENCE: Duration = Duration::from_secs(3);

pub fn health(path: &Path) -> Result<(), Refused> {
    let config = load(path)?;
    let Some(address) = config.admin else {
        return Err(Refused::Input("admin.listen is null: there is no /readyz to ask; set an address".into()));
    };
    let address = reachable(address);
    let answer = ask(address).map_err(|error| Refused::Input(format!("{address} does not answer: {error}")))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if head.split(' ').nth(1) == Some("200") {
        say(body.trim_end());
        Ok(())
    } else {
        Err(Refused::Input(format!("{address} is not ready: {}", body.trim_end())))
    }
}

/// Whoever listens everywhere is reached at the loopback address.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, address.port())
}

fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let agent = format_args!("User-Agent: {HEALTH_AGENT}\r\n");
    write!(stream, "GET /readyz HTTP/1.1\r\nHost: {address}\r\n{agent}Connection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(64 * 1024).read_to_string(&mut answer)?;
    Ok(answer)
}

//! The PROXY protocol, versions 1 and 2: the header by which a balancer says whose connection it passes on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::{io, str};

use tokio::io::{AsyncBufRead, AsyncBufReadExt};

use crate::config::Network;

/// The longest line of version 1, with its CRLF, in bytes.
const LINE: usize = 107;

/// What version 1 begins with.
const V1: &[u8] = b"PROXY ";

/// What version 2 begins with.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The fixed part of version 2, in bytes: signature, command, family, length.
const FIXED: usize = 16;

/// The most that may follow it, in bytes.
const REST: usize = 4096;

/// Why a connection has no usable header. It is then closed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It begins with something else.
    #[error("the connection does not begin with a PROXY protocol header")]
    Missing,
    /// It began so, and went wrong.
    #[error("malformed PROXY protocol header: {0}")]
    Malformed(&'static str),
    /// The peer closed before its end.
    #[error("the connection ended within the PROXY protocol header")]
    Ended,
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Whether `peer` may say whom a connection is from. One at a UNIX socket (`None`) was let in by the file's mode.
pub fn may_send(peer: Option<IpAddr>, trusted: &[Network]) -> bool {
    peer.is_none_or(|peer| trusted.iter().any(|network| network.contains(peer)))
}

/// Reads the header, and not a byte more. `None` when the connection is the balancer's own, such as a health check, or
/// the client has no address: the peer's is to be used then. How long it may take is the caller's to bound.
///
/// # Errors
/// There is none, or it is not as the specification has it.
pub async fn read<R: AsyncBufRead + Unpin>(stream: &mut R) -> Result<Option<SocketAddr>, Error> {
    let mut head = Vec::with_capacity(FIXED);
    loop {
        let step = step(&head)?;
        if let Step::Done(client) = step {
            return Ok(client);
        }
        let there = stream.fill_buf().await?;
        if there.is_empty() {
            return Err(Error::Ended);
        }
        let taken = step.share(there);
        head.extend_from_slice(taken);
        let count = taken.len();
        stream.consume(count);
    }
}

/// What is to come next.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// So many bytes.
    Bytes(usize),
    /// A line feed, within so many bytes.
    Line(usize),
    /// Nothing.
    Done(Option<SocketAddr>),
}

impl Step {
    /// What of `there` belongs to the header.
    fn share<'a>(&self, there: &'a [u8]) -> &'a [u8] {
        let count = match *self {
            Self::Bytes(count) => count,
            Self::Line(most) => {
                let end = there.iter().take(most).position(|byte| *byte == b'\n');
                end.map_or(most, |end| end + 1)
            }
            Self::Done(_) => 0,
        };
        there.get(..count).unwrap_or(there)
    }
}

/// How far `head` has come.
fn step(head: &[u8]) -> Result<Step, Error> {
    let begins = |with: &[u8]| head.iter().zip(with).all(|(one, other)| one == other);
    if head.is_empty() {
        Ok(Step::Bytes(1))
    } else if begins(V1) {
        match head.strip_suffix(b"\n") {
            Some(line) => v1(line).map(Step::Done),
            None if head.len() < LINE => Ok(Step::Line(LINE - head.len())),
            None => Err(Error::Malformed("no line end within 107 bytes")),
        }
    } else if begins(V2) {
        match head.split_first_chunk::<FIXED>() {
            Some((fixed, rest)) => v2(fixed, rest),
            None => Ok(Step::Bytes(FIXED - head.len())),
        }
    } else {
        Err(Error::Missing)
    }
}

fn v1(line: &[u8]) -> Result<Option<SocketAddr>, Error> {
    let line = line.strip_suffix(b"\r").ok_or(Error::Malformed("a line feed without carriage return"))?;
    let line = line.strip_prefix(V1).ok_or(Error::Missing)?;
    let words = str::from_utf8(line).map_err(|_| Error::Malformed("not ASCII"))?;
    // What follows UNKNOWN is to be ignored.
    if words == "UNKNOWN" || words.starts_with("UNKNOWN ") {
        return Ok(None);
    }
    let words: Vec<&str> = words.split(' ').collect();
    let [family, source, target, source_port, target_port] = words[..] else {
        return Err(Error::Malformed("not five words"));
    };
    let address = |text: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let ends =
        address(source).zip(address(target)).ok_or(Error::Malformed("an address that does not fit its family"))?;
    let ports = port(source_port).zip(port(target_port)).ok_or(Error::Malformed("a port that is none"))?;
    Ok(Some(SocketAddr::new(ends.0.to_canonical(), ports.0)))
}

/// Digits without a leading zero.
fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

fn v2(fixed: &[u8; FIXED], rest: &[u8]) -> Result<Step, Error> {
    let [.., command, family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > REST {
        return Err(Error::Malformed("longer than 4096 bytes"));
    }
    if !matches!(command, 0x20 | 0x21) {
        return Err(Error::Malformed("neither LOCAL nor PROXY of version 2"));
    }
    if rest.len() < length {
        return Ok(Step::Bytes(length - rest.len()));
    }
    if command == 0x20 {
        return Ok(Step::Done(None));
    }
    // Source, destination, both ports; then extensions, which are skipped. A datagram's client is one too: QUIC.
    let client = match family {
        0x11 | 0x12 => {
            let ends = rest.first_chunk::<12>().ok_or(Error::Malformed("too short for IPv4"))?;
            let [a, b, c, d, _, _, _, _, high, low, _, _] = *ends;
            Some(SocketAddr::from(([a, b, c, d], u16::from_be_bytes([high, low]))))
        }
        0x21 | 0x22 => {
            let ends = rest.first_chunk::<36>().ok_or(Error::Malformed("too short for IPv6"))?;
            let (source, ports) = (ends.first_chunk::<16>(), ends.last_chunk::<4>());
            let (source, [high, low, _, _]) = source.zip(ports).ok_or(Error::Malformed("too short for IPv6"))?;
            Some(SocketAddr::new(Ipv6Addr::from(*source).to_canonical(), u16::from_be_bytes([*high, *low])))
        }
        0x31 | 0x32 if length >= 216 => None,
        0x31 | 0x32 => return Err(Error::Malformed("too short for UNIX")),
        0x00 => None,
        _ => return Err(Error::Malformed("an unknown family")),
    };
    Ok(Step::Done(client))
}

#[cfg(test)]
mod tests;

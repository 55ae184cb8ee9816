//! A client that writes HTTP/2 frames by hand, so that it can write what no client should.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;
/// To be ignored (RFC 9113 4.1).
pub const UNKNOWN: u8 = 0x7f;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// What an HTTP/2 connection begins with.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One frame's bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block of literals that are not indexed, each name and value as it stands.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            let length = text.len();
            if length < 127 {
                bytes.push(u8::try_from(length).unwrap());
            } else {
                bytes.push(127);
                let mut rest = length - 127;
                while rest >= 128 {
                    bytes.push(u8::try_from(rest % 128).unwrap() | 128);
                    rest /= 128;
                }
                bytes.push(u8::try_from(rest).unwrap());
            }
            bytes.extend(text.bytes());
        }
    }
    bytes
}

/// The fields of a GET, before any others.
pub fn get<'a>(authority: &'a str, path: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![(":method", "GET"), (":scheme", "http"), (":authority", authority), (":path", path)]
}

/// A frame that came.
#[derive(Clone, Debug)]
pub struct Came {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// A response with this status.
    Answered(u16),
    /// The stream was reset, with this code.
    Reset(u32),
    /// The connection ended, with the code of its GOAWAY if there was one.
    Ended(Option<u32>),
}

/// A connection past the preface and both SETTINGS.
pub struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Client {
    /// Opens one.
    pub fn open(address: SocketAddr) -> Self {
        let mut client = Self::raw(address);
        client.send(PREFACE).unwrap();
        client.send(&frame(SETTINGS, 0, 0, &[])).unwrap();
        client.send(&frame(SETTINGS, ACK, 0, &[])).unwrap();
        client
    }

    /// Opens one, and sends nothing.
    pub fn raw(address: SocketAddr) -> Self {
        Self::on(TcpStream::connect(address).unwrap())
    }

    /// Takes an open connection, and sends nothing.
    pub fn on(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
        Self { stream, unread: Vec::new() }
    }

    /// Writes bytes.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Waits at most that long for bytes.
    pub fn patience(&mut self, limit: Duration) {
        self.stream.set_read_timeout(Some(limit)).unwrap();
    }

    /// The next frame.
    pub fn next(&mut self) -> io::Result<Came> {
        loop {
            if let Some(length) = self.unread.get(..3) {
                let length = usize::from(length[0]) << 16 | usize::from(length[1]) << 8 | usize::from(length[2]);
                if self.unread.len() >= 9 + length {
                    let rest = self.unread.split_off(9 + length);
                    let whole = std::mem::replace(&mut self.unread, rest);
                    let stream = u32::from_be_bytes([whole[5] & 127, whole[6], whole[7], whole[8]]);
                    return Ok(Came { kind: whole[3], flags: whole[4], stream, payload: whole[9..].to_vec() });
                }
            }
            let mut buffer = [0; 16 * 1024];
            let count = self.stream.read(&mut buffer)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.unread.extend_from_slice(&buffer[..count]);
        }
    }

    /// What becomes of the request on `stream`.
    pub fn fate(&mut self, stream: u32) -> Fate {
        let code = |payload: &[u8], at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        let mut farewell = None;
        loop {
            match self.next() {
                Ok(came) if came.kind == HEADERS && came.stream == stream => {
                    return Fate::Answered(status(&came.payload));
                }
                Ok(came) if came.kind == RST_STREAM && came.stream == stream => {
                    return Fate::Reset(code(&came.payload, 0));
                }
                Ok(came) if came.kind == GOAWAY => farewell = Some(code(&came.payload, 4)),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    panic!("nothing became of stream {stream} within 10 s")
                }
                Err(_) => return Fate::Ended(farewell),
            }
        }
    }

    /// Whether the other end closes within `limit`; what it sends until then is thrown away.
    pub fn is_closed_within(&mut self, limit: Duration) -> bool {
        let deadline = std::time::Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return false;
            }
            self.patience(left);
            let mut buffer = [0; 16 * 1024];
            match self.stream.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(_) => return true,
            }
        }
    }
}

/// The status of a response's header block: always its first field, from the static table or a literal by its name.
fn status(block: &[u8]) -> u16 {
    // A change of the table's size may stand before it.
    let block = &block[block.iter().take_while(|byte| **byte & 0xe0 == 0x20).count()..];
    match block[0] {
        byte @ 0x88..=0x8e => [200, 204, 206, 304, 400, 404, 500][usize::from(byte - 0x88)],
        0x08 | 0x48 if block[1] & 0x80 == 0 => {
            std::str::from_utf8(&block[2..2 + usize::from(block[1])]).unwrap().parse().unwrap()
        }
        0x08 | 0x48 => huffman(&block[2..2 + usize::from(block[1] & 0x7f)]),
        other => panic!("a response begins with {other:#x}"),
    }
}

/// Three digits in the code of RFC 7541, appendix B: `0` to `2` have five bits, the others six.
fn huffman(bytes: &[u8]) -> u16 {
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)).collect();
    let (mut at, mut number) = (0, 0);
    for _ in 0..3 {
        let take = |count: usize| bits[at..at + count].iter().fold(0, |value, bit| value << 1 | u16::from(*bit));
        let five = take(5);
        if five <= 2 {
            number = number * 10 + five;
            at += 5;
        } else {
            number = number * 10 + (take(6) - 0x19) + 3;
            at += 6;
        }
    }
    number
}

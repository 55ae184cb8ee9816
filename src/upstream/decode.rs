//! Responses of HTTP/1.1 servers (RFC 9112), read strictly: the header section with one framing or an error, and the body
//! by that framing. `httparse` reads the grammar.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use http::{Method, StatusCode};
use http_body::Frame;

use crate::message::rejection;
use crate::upstream::headers::is_hop_by_hop;

/// The largest header section of a response, in bytes.
const HEAD: usize = 128 * 1024;

/// Fields of a response.
const FIELDS: usize = 128;

/// The longest line with a chunk's size, extensions included, in bytes.
const CHUNK_LINE: usize = 1024;

/// The largest trailer section, in bytes.
const TRAILERS: usize = 16 * 1024;

/// What a server sent that is no response.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The grammar is broken.
    #[error("the response is malformed: {0}")]
    Grammar(#[from] httparse::Error),
    /// More than 128 KiB or 128 fields.
    #[error("the header section of the response is too large")]
    HeadTooLarge,
    /// 101, which was not asked for, or to another protocol than the one that was.
    #[error("the upstream switched protocols unasked")]
    Switched,
    /// More than [`INTERIM_MAX`] responses of status 1xx.
    #[error("the upstream sent more than {INTERIM_MAX} interim responses (1xx)")]
    TooManyInterim,
    /// Content-Length that is no number, or two of them, or Transfer-Encoding beside it or of another kind. RFC 9112 6.3:
    /// perhaps an attempt to slip in a second response.
    #[error("the response has no one framing: {0}")]
    Framing(&'static str),
    /// A chunk that is none.
    #[error("the response body has a malformed chunk")]
    Chunk,
    /// The server closed in the middle.
    #[error("the upstream closed the connection before its response was whole")]
    Truncated,
}

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes are left.
    Length(u64),
    /// In chunks.
    Chunked(Chunk),
    /// Until the server closes.
    Close,
}

/// Where in a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// Before the line with its size.
    Size,
    /// So many bytes of it are left.
    Data(u64),
    /// Before the CRLF behind it.
    End,
    /// After the last one.
    Trailers,
    /// All is read.
    Done,
}

/// What is being answered.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The method.
    pub method: &'a Method,
    /// Whether it may be answered with 101 to `websocket`.
    pub websocket: bool,
}

/// The header section of a final response, which 101 is here; its fields went into the map that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The status.
    pub status: StatusCode,
    /// How the body ends.
    pub framing: Framing,
    /// Whether the connection may be used again.
    pub keep: bool,
}

/// Interim responses (1xx) before a final one. More are work for nothing, and keep the worker from others.
pub const INTERIM_MAX: u32 = 32;

/// Takes the header section of a final response from `input`, `None` while it is not whole. Interim ones are passed over,
/// and counted in `interim`. `headers` is emptied and gets the fields that may be passed on.
///
/// # Errors
/// [`Error`]; the connection is of no use then.
pub fn head(
    input: &mut BytesMut,
    asked: Asked<'_>,
    headers: &mut HeaderMap,
    interim: &mut u32,
) -> Result<Option<Head>, Error> {
    loop {
        let Some(end) = memchr::memmem::find(input, b"\r\n\r\n") else {
            return if input.len() > HEAD { Err(Error::HeadTooLarge) } else { Ok(None) };
        };
        if end > HEAD {
            return Err(Error::HeadTooLarge);
        }
        let bytes = input.split_to(end + 4).freeze();
        let mut slots = [const { MaybeUninit::uninit() }; FIELDS];
        let mut response = httparse::Response::new(&mut []);
        match httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut response, &bytes, &mut slots) {
            Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
            // An empty line before the end that was found, or none there: the section has two readings.
            Ok(_) => return Err(httparse::Error::NewLine.into()),
            Err(httparse::Error::TooManyHeaders) => return Err(Error::HeadTooLarge),
            Err(error) => return Err(error.into()),
        }
        match response.code {
            Some(101) if !asked.websocket => return Err(Error::Switched),
            Some(100 | 102..=199) => {
                *interim += 1;
                if *interim > INTERIM_MAX {
                    return Err(Error::TooManyInterim);
                }
            }
            code => {
                let status = code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(httparse::Error::Status)?;
                let version = response.version.unwrap_or(0);
                let fields = Fields { bytes: &bytes, list: response.headers, method: asked.method, status, version };
                return fields.read(headers).map(Some);
            }
        }
    }
}

/// A parsed header section.
struct Fields<'a> {
    bytes: &'a Bytes,
    list: &'a [httparse::Header<'a>],
    method: &'a Method,
    status: StatusCode,
    version: u8,
}

impl Fields<'_> {
    fn read(&self, headers: &mut HeaderMap) -> Result<Head, Error> {
        // A map that was large for the request stays so.
        if headers.len() > FIELDS {
            *headers = HeaderMap::new();
        }
        headers.clear();
        let (mut length, mut chunked, mut keep) = (None, false, self.version == 1);
        let mut named: Vec<HeaderName> = Vec::new();
        for field in self.list {
            let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| httparse::Error::HeaderName)?;
            let value = HeaderValue::from_maybe_shared(self.bytes.slice_ref(field.value))
                .map_err(|_| httparse::Error::HeaderValue)?;
            match name.as_str() {
                "content-length" => {
                    let number = digits(value.as_bytes()).ok_or(Error::Framing("Content-Length is no number"))?;
                    if length.is_some_and(|length| length != number) {
                        return Err(Error::Framing("two values of Content-Length"));
                    }
                    if length.replace(number).is_some() {
                        continue;
                    }
                }
                "transfer-encoding" => {
                    let known = self.version == 1 && !chunked && value.as_bytes().eq_ignore_ascii_case(b"chunked");
                    chunked = known.then_some(true).ok_or(Error::Framing("Transfer-Encoding is not chunked"))?;
                    continue;
                }
                "connection" => {
                    keep &= !read_connection(&value, &mut named);
                    continue;
                }
                text if is_hop_by_hop(text) || name == rejection::MARKER => continue,
                _ => {}
            }
            headers.append(name, value);
        }
        if self.status == StatusCode::SWITCHING_PROTOCOLS {
            self.check_switch(&named, chunked)?;
            headers.remove(CONTENT_LENGTH);
        }
        for name in named {
            headers.remove(name);
        }
        if chunked && length.is_some() {
            return Err(Error::Framing("Transfer-Encoding and Content-Length"));
        }
        // A body where none may be: the next request would get it for its answer.
        keep &= self.status != StatusCode::NO_CONTENT || !chunked && length.is_none_or(|length| length == 0);
        Ok(Head { status: self.status, framing: self.framing(length, chunked), keep })
    }

    /// Whether 101 switches to what was asked for: WebSocket, and nothing else.
    fn check_switch(&self, named: &[HeaderName], chunked: bool) -> Result<(), Error> {
        let mut protocols = self.list.iter().filter(|field| field.name.eq_ignore_ascii_case("upgrade"));
        match (protocols.next(), protocols.next()) {
            (Some(protocol), None)
                if protocol.value.trim_ascii().eq_ignore_ascii_case(b"websocket")
                    && named.contains(&UPGRADE)
                    && self.version == 1
                    && !chunked =>
            {
                Ok(())
            }
            _ => Err(Error::Switched),
        }
    }

    /// RFC 9112 6.3.
    fn framing(&self, length: Option<u64>, chunked: bool) -> Framing {
        let bodyless = self.method == Method::HEAD
            || self.status == StatusCode::SWITCHING_PROTOCOLS
            || self.status == StatusCode::NO_CONTENT
            || self.status == StatusCode::NOT_MODIFIED;
        match length {
            _ if bodyless => Framing::Length(0),
            _ if chunked => Framing::Chunked(Chunk::Size),
            Some(length) => Framing::Length(length),
            None => Framing::Close,
        }
    }
}

/// Whether a Connection line says `close`; the fields that it names go to `named`, but for what frames and types a body.
fn read_connection(value: &HeaderValue, named: &mut Vec<HeaderName>) -> bool {
    if value == "keep-alive" {
        return false;
    }
    let mut close = false;
    for option in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
        close |= option.eq_ignore_ascii_case(b"close");
        if let Ok(name) = HeaderName::from_bytes(option)
            && name != "content-length"
            && name != "content-type"
        {
            named.push(name);
        }
    }
    close
}

/// One to eighteen decimal digits.
pub fn digits(text: &[u8]) -> Option<u64> {
    if !(1..=18).contains(&text.len()) || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(text.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

/// What could be taken from the bytes that are there.
pub enum Part {
    /// A frame for the client.
    Frame(Frame<Bytes>),
    /// More bytes are needed.
    More,
    /// The body is over.
    End,
}

impl Framing {
    /// Whether the body is over.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunk::Done))
    }

    /// Takes what there is in `input`.
    ///
    /// # Errors
    /// [`Error::Chunk`].
    pub fn take(&mut self, input: &mut BytesMut) -> Result<Part, Error> {
        match self {
            Self::Length(0) => Ok(Part::End),
            Self::Length(left) => Ok(take_data(input, left)),
            Self::Close if input.is_empty() => Ok(Part::More),
            Self::Close => Ok(Part::Frame(Frame::data(input.split().freeze()))),
            Self::Chunked(chunk) => chunk.take(input),
        }
    }

    /// What the server's close means here.
    ///
    /// # Errors
    /// [`Error::Truncated`] but where the close is the end.
    pub fn close(self) -> Result<(), Error> {
        if self == Self::Close { Ok(()) } else { Err(Error::Truncated) }
    }
}

fn take_data(input: &mut BytesMut, left: &mut u64) -> Part {
    if input.is_empty() {
        return Part::More;
    }
    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
    *left -= count as u64;
    Part::Frame(Frame::data(input.split_to(count).freeze()))
}

impl Chunk {
    fn take(&mut self, input: &mut BytesMut) -> Result<Part, Error> {
        loop {
            match self {
                Self::Size => match read_size(input)? {
                    None => return Ok(Part::More),
                    Some(0) => *self = Self::Trailers,
                    Some(size) => *self = Self::Data(size),
                },
                Self::Data(left) => {
                    let part = take_data(input, left);
                    if *left == 0 {
                        *self = Self::End;
                    }
                    return Ok(part);
                }
                Self::End => match *input.first_chunk().unwrap_or(&[0, 0]) {
                    [b'\r', b'\n'] => {
                        input.advance(2);
                        *self = Self::Size;
                    }
                    _ if input.len() < 2 && b"\r\n".starts_with(input) => return Ok(Part::More),
                    _ => return Err(Error::Chunk),
                },
                Self::Trailers => {
                    let Some(trailers) = read_trailers(input)? else { return Ok(Part::More) };
                    *self = Self::Done;
                    if !trailers.is_empty() {
                        return Ok(Part::Frame(Frame::trailers(trailers)));
                    }
                }
                Self::Done => return Ok(Part::End),
            }
        }
    }
}

/// The size of the next chunk; its line is taken from `input` when it is whole.
fn read_size(input: &mut BytesMut) -> Result<Option<u64>, Error> {
    let Some(end) = input.iter().take(CHUNK_LINE).position(|byte| *byte == b'\n') else {
        return if input.len() >= CHUNK_LINE { Err(Error::Chunk) } else { Ok(None) };
    };
    let line = input.split_to(end + 1);
    let line = line.strip_suffix(b"\r\n").ok_or(Error::Chunk)?;
    let (digits, rest) = line.split_at(line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count());
    let extension = rest.trim_ascii_start();
    if !(1..=15).contains(&digits.len()) || !(extension.is_empty() || extension.starts_with(b";")) {
        return Err(Error::Chunk);
    }
    let digit = |byte: &u8| char::from(*byte).to_digit(16).map_or(0, u64::from);
    Ok(Some(digits.iter().fold(0, |size, byte| size << 4 | digit(byte))))
}

/// The trailer section; empty when there is none.
fn read_trailers(input: &mut BytesMut) -> Result<Option<HeaderMap>, Error> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let (length, trailers) = match httparse::parse_headers(input, &mut fields) {
        Ok(httparse::Status::Complete((length, fields))) => {
            let mut trailers = HeaderMap::with_capacity(fields.len());
            for field in fields {
                let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Error::Chunk)?;
                let value = HeaderValue::from_bytes(field.value).map_err(|_| Error::Chunk)?;
                if may_trail(&name) {
                    trailers.append(name, value);
                }
            }
            (length, trailers)
        }
        Ok(httparse::Status::Partial) if input.len() <= TRAILERS => return Ok(None),
        Ok(httparse::Status::Partial) | Err(_) => return Err(Error::Chunk),
    };
    input.advance(length);
    Ok(Some(trailers))
}

/// Whether a response may have this field in its trailers.
pub fn may_trail(name: &HeaderName) -> bool {
    let framing = matches!(name.as_str(), "content-length" | "content-type" | "trailer" | "set-cookie");
    !framing && !is_hop_by_hop(name.as_str()) && name != rejection::MARKER
}

#[cfg(test)]
mod tests;

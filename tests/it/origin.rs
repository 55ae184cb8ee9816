//! The application behind the gateway: records exactly what reaches it, by the letter of RFC 9112, and answers as told.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

use crate::harness::await_that;

/// A request as it arrived.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Which connection it came on, from 0.
    pub connection: usize,
    /// The raw head, up to and with the empty line.
    pub head: Vec<u8>,
    /// Method, target as sent.
    pub method: String,
    /// The target as sent.
    pub target: String,
    /// Names in the case and order in which they came.
    pub headers: Vec<(String, String)>,
    /// The body without its framing; what came of it so far.
    pub body: Vec<u8>,
    /// The trailer section of a chunked body.
    pub trailers: Vec<(String, String)>,
    /// Whether the body came to its end.
    pub complete: bool,
    /// What RFC 9112 forbids in it.
    pub violations: Vec<String>,
}

impl Seen {
    /// The first field of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// All fields of this name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    /// All fields whose name, in lower case and with every character other than a-z 0-9 read as `-`, is `canonical`.
    pub fn all_like(&self, canonical: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| canonical_name(n) == canonical).map(|(_, v)| v.as_str()).collect()
    }
}

/// The form in which the gateway compares names of fields.
pub fn canonical_name(name: &str) -> String {
    let fold = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    name.chars().map(fold).collect()
}

/// One request in the hands of the script.
pub struct Exchange<'a> {
    /// The request; its body only after [`Exchange::read_body`].
    pub seen: Seen,
    /// How many came before it on this connection.
    pub nth: usize,
    connection: &'a mut Incoming,
    log: &'a Mutex<Vec<Seen>>,
    index: usize,
    close: bool,
}

impl Exchange<'_> {
    /// Reads the body to its end.
    pub fn read_body(&mut self) -> io::Result<()> {
        if self.seen.complete || !self.seen.violations.is_empty() {
            return Ok(());
        }
        let done = self.connection.read_body(&mut self.seen);
        self.seen.complete = done.is_ok() && self.seen.violations.is_empty();
        self.log.lock().unwrap()[self.index] = self.seen.clone();
        done
    }

    /// Reads whatever part of the body is there next.
    pub fn read_some(&mut self) -> io::Result<Vec<u8>> {
        if self.connection.unread.is_empty() {
            self.connection.fill()?;
        }
        Ok(std::mem::take(&mut self.connection.unread))
    }

    /// Writes raw bytes. A peer that is gone is no failure.
    pub fn write(&mut self, bytes: &[u8]) {
        if self.connection.stream.write_all(bytes).is_err() {
            self.close = true;
        }
    }

    /// A whole answer with Content-Length.
    pub fn answer(&mut self, status: &str, headers: &str, body: &str) {
        let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
        let body = if self.seen.method == "HEAD" { "" } else { body };
        self.write(format!("{head}{body}").as_bytes());
    }

    /// What an application would answer: 200 and what it saw.
    pub fn echo(&mut self) {
        if self.read_body().is_err() {
            self.close = true;
            return;
        }
        let seen = &self.seen;
        let body = json!({"method": seen.method, "target": seen.target, "body": String::from_utf8_lossy(&seen.body)});
        self.answer("200 OK", "Content-Type: application/json\r\n", &body.to_string());
    }

    /// Whether the connection is to be closed, or a write found the peer gone.
    pub fn is_closing(&self) -> bool {
        self.close
    }

    /// Closes the connection when the script returns.
    pub fn close(&mut self) {
        self.close = true;
    }

    /// Whether the peer closes within `limit`.
    pub fn is_closed_within(&mut self, limit: Duration) -> bool {
        self.connection.stream.set_read_timeout(Some(limit)).unwrap();
        let closed = match self.connection.fill() {
            Ok(()) => false,
            Err(error) => !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
        };
        self.close = true;
        closed
    }
}

type Script = dyn Fn(&mut Exchange<'_>) + Send + Sync;

/// An application on a free port. It stops when this is dropped.
pub struct Origin {
    /// Where it listens.
    pub address: SocketAddr,
    log: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Origin {
    /// One that echoes.
    pub fn start() -> Self {
        Self::scripted(|exchange| exchange.echo())
    }

    /// One that does with each request what `script` says. A body that the script leaves unread is read afterwards.
    pub fn scripted(script: impl Fn(&mut Exchange<'_>) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = Self {
            address: listener.local_addr().unwrap(),
            log: Arc::default(),
            connections: Arc::default(),
            stop: Arc::default(),
        };
        let (log, connections, stop) =
            (Arc::clone(&origin.log), Arc::clone(&origin.connections), Arc::clone(&origin.stop));
        let script: Arc<Script> = Arc::new(script);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let number = connections.fetch_add(1, Ordering::Relaxed);
                let (log, script) = (Arc::clone(&log), Arc::clone(&script));
                std::thread::spawn(move || serve(stream, number, &log, &*script));
            }
        });
        origin
    }

    /// All requests so far, in order of arrival.
    pub fn seen(&self) -> Vec<Seen> {
        self.log.lock().unwrap().clone()
    }

    /// The last request; fails the test when there is none.
    #[track_caller]
    pub fn last(&self) -> Seen {
        self.seen().pop().expect("nothing reached the origin")
    }

    /// How many requests came so far.
    pub fn count(&self) -> usize {
        self.log.lock().unwrap().len()
    }

    /// How many connections were opened so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Waits until `count` requests have come.
    #[track_caller]
    pub fn await_count(&self, count: usize) {
        await_that(&format!("{count} requests reached the origin"), || self.count() >= count);
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(stream: TcpStream, number: usize, log: &Mutex<Vec<Seen>>, script: &Script) {
    let _ = stream.set_nodelay(true);
    let mut connection = Incoming { stream, unread: Vec::new() };
    for nth in 0.. {
        let Ok(Some(mut seen)) = connection.read_head() else { return };
        seen.connection = number;
        let index = {
            let mut log = log.lock().unwrap();
            log.push(seen.clone());
            log.len() - 1
        };
        let mut exchange = Exchange { seen, nth, connection: &mut connection, log, index, close: false };
        script(&mut exchange);
        let close = exchange.close || exchange.read_body().is_err() || !exchange.seen.violations.is_empty();
        if close || exchange.seen.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            return;
        }
    }
}

struct Incoming {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Incoming {
    fn fill(&mut self) -> io::Result<()> {
        let mut buffer = [0; 64 * 1024];
        let count = self.stream.read(&mut buffer)?;
        self.unread.extend_from_slice(&buffer[..count]);
        if count == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    fn exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.unread.len() < count {
            self.fill()?;
        }
        let rest = self.unread.split_off(count);
        Ok(std::mem::replace(&mut self.unread, rest))
    }

    /// Up to the line feed, which is checked for its CR and dropped.
    fn line(&mut self, violations: &mut Vec<String>) -> io::Result<Vec<u8>> {
        let end = loop {
            match self.unread.iter().position(|&b| b == b'\n') {
                Some(end) => break end,
                None => self.fill()?,
            }
        };
        let mut line = self.exactly(end + 1)?;
        line.pop();
        if line.pop_if(|&mut last| last == b'\r').is_none() {
            violations.push(format!("bare LF: {}", line.escape_ascii()));
        }
        if line.iter().any(|b| matches!(b, b'\r' | 0)) {
            violations.push(format!("CR or NUL: {}", line.escape_ascii()));
        }
        Ok(line)
    }

    /// The next head; `None` when the peer closes before its first byte.
    fn read_head(&mut self) -> io::Result<Option<Seen>> {
        if self.unread.is_empty() && self.fill().is_err() {
            return Ok(None);
        }
        let mut seen = Seen::default();
        let line = self.line(&mut seen.violations)?;
        seen.head = [&line[..], b"\r\n"].concat();
        let text = String::from_utf8_lossy(&line).into_owned();
        match text.split(' ').collect::<Vec<_>>()[..] {
            [method, target, "HTTP/1.1" | "HTTP/1.0"] if is_token(method.as_bytes()) && !target.is_empty() => {
                seen.method = method.into();
                seen.target = target.into();
            }
            _ => seen.violations.push(format!("request line: {}", line.escape_ascii())),
        }
        loop {
            let line = self.line(&mut seen.violations)?;
            seen.head.extend_from_slice(&[&line[..], b"\r\n"].concat());
            if line.is_empty() {
                break;
            }
            let text = String::from_utf8_lossy(&line).into_owned();
            match text.split_once(':') {
                Some((name, value)) if is_token(name.as_bytes()) => {
                    seen.headers.push((name.into(), value.trim_matches([' ', '\t']).into()));
                }
                _ => seen.violations.push(format!("field line: {}", line.escape_ascii())),
            }
        }
        judge_head(&mut seen);
        Ok(Some(seen))
    }

    fn read_body(&mut self, seen: &mut Seen) -> io::Result<()> {
        if seen.header("transfer-encoding").is_none() {
            let length = seen.header("content-length").map_or(0, |length| length.parse().unwrap_or(0));
            while seen.body.len() < length {
                if self.unread.is_empty() {
                    self.fill()?;
                }
                let take = self.unread.len().min(length - seen.body.len());
                seen.body.extend(self.unread.drain(..take));
            }
            return Ok(());
        }
        loop {
            let line = self.line(&mut seen.violations)?;
            let size = std::str::from_utf8(&line).ok().filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
            let Some(size) = size.and_then(|digits| usize::from_str_radix(digits, 16).ok()) else {
                seen.violations.push(format!("chunk line: {}", line.escape_ascii()));
                return Ok(());
            };
            if size == 0 {
                break;
            }
            let chunk = self.exactly(size + 2)?;
            seen.body.extend_from_slice(&chunk[..size]);
            if !chunk.ends_with(b"\r\n") {
                seen.violations.push(format!("chunk of {size} bytes does not end in CRLF"));
                return Ok(());
            }
        }
        loop {
            let line = self.line(&mut seen.violations)?;
            if line.is_empty() {
                return Ok(());
            }
            let text = String::from_utf8_lossy(&line).into_owned();
            match text.split_once(':') {
                Some((name, value)) if is_token(name.as_bytes()) => {
                    seen.trailers.push((name.into(), value.trim().into()));
                }
                _ => seen.violations.push(format!("trailer: {}", line.escape_ascii())),
            }
        }
    }
}

fn judge_head(seen: &mut Seen) {
    let mut violations = Vec::new();
    let codings: Vec<_> = seen.all("transfer-encoding");
    let lengths: Vec<_> = seen.all("content-length");
    if seen.all("host").len() != 1 {
        violations.push(format!("{} Host fields", seen.all("host").len()));
    }
    if codings.len() + lengths.len() > 1 {
        violations.push(format!("framed by {codings:?} and {lengths:?}"));
    }
    if codings.iter().any(|coding| !coding.eq_ignore_ascii_case("chunked")) {
        violations.push(format!("Transfer-Encoding {codings:?}"));
    }
    if lengths.iter().any(|length| length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit())) {
        violations.push(format!("Content-Length {lengths:?}"));
    }
    if seen.target.bytes().any(|b| b <= b' ' || b == 0x7f) {
        violations.push(format!("target {:?}", seen.target));
    }
    seen.violations.append(&mut violations);
}

fn is_token(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

#[test]
fn the_recorder_is_strict_and_exact() {
    use crate::wire::{exchange, get, post};

    let origin = Origin::start();
    let answer = post("/a?b").body("hello").send(origin.address);
    assert_eq!((answer.status, answer.json()["body"].as_str()), (200, Some("hello")));
    let seen = origin.last();
    assert!(seen.head.starts_with(b"POST /a?b HTTP/1.1\r\nHost: ") && seen.head.ends_with(b"\r\n\r\n"), "{seen:?}");
    assert!(seen.complete && seen.violations.is_empty(), "{seen:?}");
    let chunked = b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: 1\r\n\r\n";
    assert_eq!(exchange(origin.address, chunked, "POST").unwrap().status, 200);
    assert_eq!((origin.last().body, origin.last().trailers.len()), (b"abc".to_vec(), 1));
    for bad in [
        "GET /x HTTP/1.1\r\n\r\n",
        "GET /x HTTP/1.1\nHost: x\r\n\r\n",
        "GET /x HTTP/1.1\r\nHost: x\r\nX : 1\r\n\r\n",
        "GET /x HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\n\r\n",
    ] {
        let _ = exchange(origin.address, bad.as_bytes(), "GET");
        assert!(!origin.last().violations.is_empty(), "{bad:?}");
    }
    assert_eq!(get("/still/here").send(origin.address).status, 200);
}

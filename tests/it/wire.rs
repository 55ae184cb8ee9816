//! A raw HTTP/1.1 client: sends exactly the bytes that it is given, and reads exactly one response.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// How long a read may take before the exchange counts as failed.
const READ_LIMIT: Duration = Duration::from_secs(20);

/// A response, taken apart.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names in the case and order in which they came.
    pub headers: Vec<(String, String)>,
    /// Without its framing.
    pub body: Vec<u8>,
    /// The trailer section of a chunked body.
    pub trailers: Vec<(String, String)>,
    /// Statuses of the interim responses before it.
    pub interim: Vec<u16>,
}

impl Response {
    /// The first field of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// All fields of this name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    /// The code of a refusal that the gateway made.
    pub fn code(&self) -> &str {
        self.header("portcullis-error").unwrap_or("")
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; fails the test when it is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// The `message` of a JSON body.
    #[track_caller]
    pub fn message(&self) -> String {
        let body = self.json();
        let message = &body["message"];
        message.as_str().map_or_else(|| message.to_string(), str::to_owned)
    }
}

/// A connection whose bytes are ours.
pub struct Connection {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Connection {
    /// Opens one; fails the test when it is refused.
    #[track_caller]
    pub fn open(address: SocketAddr) -> Self {
        Self::try_open(address).unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"))
    }

    /// Opens one.
    pub fn try_open(address: SocketAddr) -> io::Result<Self> {
        Self::on(TcpStream::connect_timeout(&address, Duration::from_secs(5))?)
    }

    /// Takes an open connection.
    pub fn on(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(READ_LIMIT))?;
        stream.set_write_timeout(Some(READ_LIMIT))?;
        Ok(Self { stream, unread: Vec::new() })
    }

    /// Sends these bytes.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Says that no more is to come, and still listens.
    pub fn close_write(&mut self) {
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// Changes how long a read may take.
    pub fn patience(&mut self, limit: Duration) {
        self.stream.set_read_timeout(Some(limit)).unwrap();
    }

    /// Reads the response to a request of `method`, interim responses passed over.
    pub fn receive(&mut self, method: &str) -> io::Result<Response> {
        let mut interim = Vec::new();
        loop {
            let mut response = self.receive_head()?;
            if (100..200).contains(&response.status) && response.status != 101 {
                interim.push(response.status);
                continue;
            }
            response.interim = interim;
            if method != "HEAD" && !matches!(response.status, 101 | 204 | 304) {
                self.receive_body(&mut response)?;
            }
            return Ok(response);
        }
    }

    /// Reads a status line and header section, of an interim response too.
    pub fn receive_head(&mut self) -> io::Result<Response> {
        let status_line = self.line()?;
        let mut words = status_line.splitn(3, ' ');
        let status = match (words.next(), words.next().map(str::parse)) {
            (Some("HTTP/1.1" | "HTTP/1.0"), Some(Ok(status))) => status,
            _ => return Err(io::Error::other(format!("no status line: {status_line:?}"))),
        };
        let headers = self.fields()?;
        Ok(Response { status, headers, body: Vec::new(), trailers: Vec::new(), interim: Vec::new() })
    }

    fn receive_body(&mut self, response: &mut Response) -> io::Result<()> {
        let lengths = response.all("content-length");
        if let Some(coding) = response.header("transfer-encoding") {
            if !coding.eq_ignore_ascii_case("chunked") || !lengths.is_empty() {
                return Err(io::Error::other(format!("ambiguous framing: {response:?}")));
            }
            while let Some(chunk) = self.chunk()? {
                response.body.extend(chunk);
            }
            response.trailers = self.fields()?;
        } else if let [length] = lengths[..] {
            let length = length.parse().map_err(io::Error::other)?;
            response.body = self.exactly(length)?;
        } else if lengths.is_empty() {
            while self.fill()? {}
            response.body = std::mem::take(&mut self.unread);
        } else {
            return Err(io::Error::other(format!("several lengths: {response:?}")));
        }
        Ok(())
    }

    /// The next chunk of a chunked body; `None` for the last, whose trailer section is then unread.
    pub fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let line = self.line()?;
        let size = usize::from_str_radix(line.split(';').next().unwrap_or_default(), 16).map_err(io::Error::other)?;
        if size == 0 {
            return Ok(None);
        }
        let mut chunk = self.exactly(size + 2)?;
        if chunk.split_off(size) != b"\r\n" {
            return Err(io::Error::other("a chunk that does not end in CRLF"));
        }
        Ok(Some(chunk))
    }

    fn fields(&mut self) -> io::Result<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(fields);
            }
            let (name, value) = line.split_once(':').ok_or_else(|| io::Error::other(format!("no field: {line:?}")))?;
            fields.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    /// One line, without its CRLF.
    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8_lossy(&self.unread[..end]).into_owned();
                self.unread.drain(..end + 2);
                return Ok(line);
            }
            if !self.fill()? {
                let unread = String::from_utf8_lossy(&self.unread).into_owned();
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("closed after {unread:?}")));
            }
        }
    }

    fn exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.unread.len() < count {
            if !self.fill()? {
                let message = format!("closed after {} of {count} bytes", self.unread.len());
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
            }
        }
        let rest = self.unread.split_off(count);
        Ok(std::mem::replace(&mut self.unread, rest))
    }

    /// Reads some more; `false` at the end.
    fn fill(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 16 * 1024];
        let count = self.stream.read(&mut buffer)?;
        self.unread.extend_from_slice(&buffer[..count]);
        Ok(count > 0)
    }

    /// What has come or comes next, at most `most` bytes; nothing when the peer has closed.
    pub fn take(&mut self, most: usize) -> io::Result<Vec<u8>> {
        if self.unread.is_empty() {
            self.fill()?;
        }
        let rest = self.unread.split_off(most.min(self.unread.len()));
        Ok(std::mem::replace(&mut self.unread, rest))
    }

    /// Waits until the peer closes; whether it did so within `limit`, without a further byte.
    pub fn is_closed_within(&mut self, limit: Duration) -> bool {
        self.patience(limit);
        let mut byte = [0];
        let closed = match self.stream.read(&mut byte) {
            Ok(count) => count == 0,
            Err(error) => matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe),
        };
        self.patience(READ_LIMIT);
        closed
    }

    /// All that comes until the peer closes or is silent: up to `first` before the first byte, `then` after it.
    pub fn receive_all(&mut self, first: Duration, then: Duration) -> Vec<u8> {
        self.patience(first);
        while self.fill().unwrap_or(false) {
            self.patience(then);
        }
        std::mem::take(&mut self.unread)
    }
}

/// A request in the making.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    host: bool,
}

/// GET `target`.
pub fn get(target: &str) -> Request {
    request("GET", target)
}

/// POST `target`.
pub fn post(target: &str) -> Request {
    request("POST", target)
}

/// Any method; the target goes out as it stands.
pub fn request(method: &str, target: &str) -> Request {
    Request { method: method.into(), target: target.into(), headers: Vec::new(), body: Vec::new(), host: true }
}

impl Request {
    /// The same request to another target.
    #[must_use]
    pub fn to(mut self, target: &str) -> Self {
        self.target = target.into();
        self
    }

    /// One more field. A Host of one's own replaces the usual one.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.host &= !name.eq_ignore_ascii_case("host");
        self.headers.push((name.into(), value.into()));
        self
    }

    /// `Authorization: Bearer …`
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    /// A JSON body.
    #[must_use]
    pub fn json(self, value: &Value) -> Self {
        self.header("Content-Type", "application/json").body(value.to_string())
    }

    /// A form body, already encoded.
    #[must_use]
    pub fn form(self, encoded: &str) -> Self {
        self.header("Content-Type", "application/x-www-form-urlencoded").body(encoded)
    }

    /// A body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Its bytes, as they go to `address`, with `last` fields at the end.
    pub fn bytes(&self, address: SocketAddr, last: &str) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if self.host {
            head += &format!("Host: {address}\r\n");
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !self.body.is_empty() || matches!(self.method.as_str(), "POST" | "PUT" | "PATCH") {
            head += &format!("Content-Length: {}\r\n", self.body.len());
        }
        [head.as_bytes(), last.as_bytes(), b"\r\n", &self.body].concat()
    }

    /// Sends it on a connection that is kept, and reads the response.
    pub fn send_on(&self, connection: &mut Connection, address: SocketAddr) -> io::Result<Response> {
        connection.send(&self.bytes(address, ""))?;
        connection.receive(&self.method)
    }

    /// Sends it on a connection of its own, and reads the response.
    pub fn try_send(&self, address: SocketAddr) -> io::Result<Response> {
        let mut connection = Connection::try_open(address)?;
        // A refusal may come, and the connection close, before the body is written: the answer counts.
        let written = connection.send(&self.bytes(address, "Connection: close\r\n"));
        connection.receive(&self.method).map_err(|error| written.err().unwrap_or(error))
    }

    /// As [`Request::try_send`]; fails the test when there is no answer.
    #[track_caller]
    pub fn send(&self, address: SocketAddr) -> Response {
        self.try_send(address).unwrap_or_else(|error| panic!("{} {}: {error}", self.method, self.target))
    }
}

/// Sends exact bytes on a connection of its own and reads one response to `method`.
pub fn exchange(address: SocketAddr, raw: &[u8], method: &str) -> io::Result<Response> {
    let mut connection = Connection::try_open(address)?;
    let written = connection.send(raw);
    connection.receive(method).map_err(|error| written.err().unwrap_or(error))
}

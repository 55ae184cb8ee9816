//! The client's socket under hyper: it notes what the connection is doing, and gives hyper's own bare refusals of malformed
//! requests the form that all refusals of the gateway have.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue};
use http_body::Body as _;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::Sleep;

use crate::config::ResponseStyle;
use crate::gate;
use crate::message::{Body, Rejection};
use crate::server::frames::Frames;
use crate::server::roster::{Seat, Stage};
use crate::server::stream::Stream;

/// How long, and how many bytes, of a request that was answered already are read and thrown away, so that the client reads
/// its answer before it hears that nobody listens any more.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 4 * 1024 * 1024;

/// An answer of at most this size, in bytes, is written in one piece.
const SMALL: usize = 1024;

/// See the module.
pub struct Wire {
    stream: Stream,
    seat: Rc<Seat>,
    /// What was read before the protocol was known.
    first: Bytes,
    /// HTTP/2's frames; `None` for HTTP/1.
    frames: Option<Frames>,
    /// A status that hyper refused a request with, and that was not written.
    refused: Option<u16>,
    /// HTTP/2: nothing more is written, and what the client still sends is read.
    linger: Option<Linger>,
    /// Bytes of the next request came before the last answer was written out.
    early: bool,
    /// The request that is coming in asks /auth/verify.
    for_verify: bool,
}

impl Wire {
    /// Wraps the socket of the connection at `seat`, whose first bytes are `first`.
    pub fn http1(stream: Stream, first: Bytes, seat: Rc<Seat>) -> Self {
        let for_verify = is_for_verify(&first);
        Self { stream, seat, first, frames: None, refused: None, linger: None, early: false, for_verify }
    }

    /// The same for HTTP/2.
    pub fn http2(stream: Stream, first: Bytes, seat: Rc<Seat>) -> Self {
        Self { frames: Some(Frames::new()), ..Self::http1(stream, first, seat) }
    }

    /// Takes hyper's automatic answer away, when `buf` is one: nothing else is written before a request has come in.
    fn withhold(&mut self, buf: &[u8]) -> bool {
        if self.frames.is_some() || !matches!(self.seat.stage(), Stage::New | Stage::Head | Stage::Idle) {
            return false;
        }
        let status = buf.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3));
        self.refused = status.and_then(|status| std::str::from_utf8(status).ok()).and_then(|text| text.parse().ok());
        self.refused.is_some()
    }

    fn note_read(&mut self, bytes: &[u8]) {
        if let Some(frames) = &mut self.frames {
            frames.read(bytes);
            self.seat.note_frames(frames);
            return;
        }
        match self.seat.stage() {
            Stage::New | Stage::Idle => {
                self.seat.enter(Stage::Head);
                self.for_verify = is_for_verify(bytes);
            }
            Stage::Flushing if !self.early => {
                self.early = true;
                self.for_verify = is_for_verify(bytes);
            }
            Stage::Flushing | Stage::Head | Stage::Busy | Stage::Tunnel => {}
        }
    }

    fn note_flush(&mut self) {
        if self.seat.stage() == Stage::Flushing {
            self.for_verify &= self.early;
            self.seat.enter(if std::mem::take(&mut self.early) { Stage::Head } else { Stage::Idle });
        }
    }

    /// Ends the connection: with our refusal in the place of hyper's, if there was one, and without a reset that would
    /// take the answer from a client which is still sending.
    pub async fn end(mut self, error: Option<&hyper::Error>, style: ResponseStyle) {
        if let Some(status) = self.refused {
            let rejection = refusal(status, error);
            let text =
                plain(if self.for_verify { rejection.into_verdict(style) } else { rejection.into_response(style) });
            let _ = tokio::time::timeout(LINGER, self.stream.write_all(&text)).await;
        }
        if self.refused.is_some() || self.seat.is_unread() {
            let _ = self.stream.shutdown().await;
            let _ = tokio::time::timeout(LINGER, drain(&mut self.stream)).await;
        }
    }
}

/// What a client of HTTP/2 had on its way when it was told to go: a socket that is closed with any of it unread is reset,
/// and a client that writes into a reset loses the answers that it has not read yet.
struct Linger {
    end: Pin<Box<Sleep>>,
    left: usize,
}

impl Linger {
    fn begin() -> Self {
        Self { end: Box::pin(tokio::time::sleep(LINGER)), left: LINGER_BYTES }
    }

    /// Ready when the client has closed too, or had its time.
    fn poll(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<()> {
        let mut rubbish = [0; 1024];
        loop {
            let mut buf = ReadBuf::new(&mut rubbish);
            match Pin::new(&mut *stream).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if (1..=self.left).contains(&buf.filled().len()) => self.left -= buf.filled().len(),
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.end.as_mut().poll(cx),
            }
        }
    }
}

async fn drain(stream: &mut Stream) {
    let mut rubbish = vec![0; 16 * 1024];
    let mut left = LINGER_BYTES;
    while let Ok(count) = stream.read(&mut rubbish).await {
        if count == 0 || count > left {
            return;
        }
        left -= count;
    }
}

/// The pieces as one, where they fit: the kernel takes one buffer for less than several.
fn join<'a>(bufs: &[IoSlice<'_>], joined: &'a mut [u8; SMALL]) -> Option<&'a [u8]> {
    let mut length = 0;
    for buf in bufs {
        joined.get_mut(length..length + buf.len())?.copy_from_slice(buf);
        length += buf.len();
    }
    joined.get(..length)
}

/// Whether a request that begins with these bytes asks /auth/verify, which has statuses of its own. The plainest spelling
/// alone is known: what is malformed has no other meaning than its bytes.
fn is_for_verify(head: &[u8]) -> bool {
    let mut words = head.splitn(3, |byte| *byte == b' ');
    let (Some(target), Some(_)) = (words.nth(1), words.next()) else { return false };
    let path = target.split(|byte| *byte == b'?').next().unwrap_or(target);
    std::str::from_utf8(path).is_ok_and(gate::is_verify)
}

/// What hyper's refusal means. Its kinds are told by their text alone.
fn refusal(status: u16, error: Option<&hyper::Error>) -> Rejection {
    let text = error.map(ToString::to_string).unwrap_or_default();
    match status {
        414 | 431 => Rejection::HeadersTooLarge,
        _ if text.contains("HTTP header") => {
            Rejection::BadHeader("A field has a name that is no token, or a value with control characters".into())
        }
        _ => Rejection::BadRequest("The request is malformed".into()),
    }
}

/// A refusal as bytes on the wire; the connection ends after it.
fn plain(mut response: Response<Body>) -> Bytes {
    let length = response.body().size_hint().lower();
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    let status = response.status();
    let mut text =
        format!("HTTP/1.1 {} {}\r\n", status.as_u16(), status.canonical_reason().unwrap_or_default()).into_bytes();
    for (name, value) in response.headers() {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    if let Body::Full(body) = response.body() {
        text.extend_from_slice(body);
    }
    text.into()
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if self.first.is_empty() {
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        } else {
            let count = self.first.len().min(buf.remaining());
            buf.put_slice(&self.first.split_to(count));
        }
        if let Some(bytes) = buf.filled().get(before..).filter(|bytes| !bytes.is_empty()) {
            self.note_read(bytes);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.withhold(buf) {
            return Poll::Ready(Ok(buf.len()));
        }
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.seat.note_write(outcome.is_ready());
        outcome
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.note_flush();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.refused.is_some() {
            // Our answer is still to come.
            return Poll::Ready(Ok(()));
        }
        let this = &mut *self;
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            // HTTP/1 ends in `end`, which has the stream back by then.
            if this.frames.is_none() {
                return Poll::Ready(Ok(()));
            }
        }
        let linger = this.linger.get_or_insert_with(Linger::begin);
        linger.poll(&mut this.stream, cx).map(Ok)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [only] = bufs {
            return self.poll_write(cx, only);
        }
        let mut joined = [0; SMALL];
        let outcome = match join(bufs, &mut joined) {
            Some(whole) => Pin::new(&mut self.stream).poll_write(cx, whole),
            None => Pin::new(&mut self.stream).poll_write_vectored(cx, bufs),
        };
        self.seat.note_write(outcome.is_ready());
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

//! One connection to a server, HTTP/1.1. Our own on purpose: it writes the client's header section straight to the socket
//! and hands the server's bytes on as they are, in the task of the client's connection. hyper's client costs twice that
//! in copies, channels and wake-ups.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::HeaderMap;
use http_body::Frame;
use tokio::io::{AsyncReadExt, AsyncWrite};

use crate::upstream::alarm::{Alarm, Clock, Millis};
use crate::upstream::balance::InFlight;
use crate::upstream::body::Upload;
use crate::upstream::decode::{self, Asked, Framing, Head, Part};
use crate::upstream::resolve::Place;
use crate::upstream::stream::{self, ConnectError, Door, Stream};
use crate::upstream::tunnel::Tunnel;

/// Room for one read, in bytes: small for header sections, large once a body has filled it.
const SMALL_READ: usize = 4 * 1024;
const LARGE_READ: usize = 64 * 1024;

/// Room for a request's header section that is kept once it is written, in bytes.
const KEPT_HEAD: usize = 8 * 1024;

/// Why an exchange ended early.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The alarm rang.
    #[error("the upstream was silent for too long")]
    Late,
    /// The connection failed.
    #[error("the connection to the upstream broke: {0}")]
    Off(#[from] io::Error),
    /// The HTTP/2 stream failed, or the whole connection.
    #[error("the stream to the upstream broke: {0}")]
    Stream(#[from] h2::Error),
    /// Nothing of the request went out, because the connection was closing.
    #[error("the upstream was closing the connection: {0}")]
    Unsent(#[source] h2::Error),
    /// What came was no response.
    #[error(transparent)]
    Response(#[from] decode::Error),
    /// The client's body could not be read; [`Upload`] knows why.
    #[error("the request body broke off")]
    Upload,
}

/// See the module. In a box, because it is passed around on every request.
pub struct Wire(Box<Inner>);

struct Inner {
    stream: Stream,
    place: Option<Place>,
    input: BytesMut,
    /// What of the request is to be written, and how much of that has been.
    output: Vec<u8>,
    written: usize,
    /// What is to be written begins with a header section.
    sends_head: bool,
    upload: Option<Upload>,
    alarm: Rc<Alarm>,
    reused: bool,
    heard: bool,
    large: bool,
    /// The request did not go out as it was meant: what the server makes of the connection now is its own guess.
    spoilt: bool,
}

impl Wire {
    /// Opens a connection.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(door: Door<'_>, alarm: Rc<Alarm>) -> Result<Self, ConnectError> {
        let timer = pin!(tokio::time::sleep(door.limit));
        let (stream, place) = stream::open(door, timer).await?;
        Ok(Self(Box::new(Inner {
            stream,
            place,
            input: BytesMut::new(),
            output: Vec::new(),
            written: 0,
            sends_head: false,
            upload: None,
            alarm,
            reused: false,
            heard: false,
            large: false,
            spoilt: false,
        })))
    }

    /// Where it goes; `None` for a UNIX socket.
    pub fn place(&mut self) -> Option<&mut Place> {
        self.0.place.as_mut()
    }

    /// Whether it has answered before, so that the server may be closing it just now.
    pub fn is_reused(&self) -> bool {
        self.0.reused
    }

    /// Whether the server has sent a byte since the last request began.
    pub fn has_heard(&self) -> bool {
        self.0.heard
    }

    /// Where the request's header section is written.
    pub fn output(&mut self) -> &mut Vec<u8> {
        self.0.clear_output();
        self.0.sends_head = true;
        &mut self.0.output
    }

    /// The exchange is over: nobody waits, and the next one finds it used. `false` when it cannot be used again, because
    /// something is left of this exchange on either side.
    pub fn rest(&mut self) -> bool {
        let inner = &mut *self.0;
        inner.alarm.clear();
        inner.reused = true;
        !inner.spoilt && inner.input.is_empty() && inner.output.is_empty() && inner.upload.is_none()
    }

    /// Gives back the room that a large body took, and forgets who waited last.
    pub fn shrink(&mut self) {
        if self.0.input.capacity() > LARGE_READ / 2 {
            self.0.input = BytesMut::new();
        }
        if self.0.output.capacity() > LARGE_READ / 2 {
            self.0.output = Vec::new();
        }
        self.0.alarm.forget();
    }

    /// [`Stream::is_open`].
    pub fn is_open(&mut self) -> bool {
        self.0.stream.is_open()
    }

    /// [`Stream::is_quiet`].
    pub fn is_quiet(&mut self) -> bool {
        self.0.stream.is_quiet()
    }

    /// Sends what was written to [`output`](Self::output) and then `upload`, and waits for the header section of the
    /// response, whose fields go into `headers`. `deadline` says when to ring; it is asked at the beginning and whenever
    /// it was time, and `None` means too late.
    ///
    /// # Errors
    /// [`Broken`].
    pub async fn exchange(
        &mut self,
        upload: Option<Upload>,
        asked: Asked<'_>,
        headers: &mut HeaderMap,
        mut deadline: impl FnMut() -> Option<Millis>,
    ) -> Result<Head, Broken> {
        let inner = &mut *self.0;
        inner.upload = upload;
        inner.heard = false;
        let mut interim = 0;
        let mut ring = deadline().ok_or(Broken::Late)?;
        poll_fn(|cx| {
            let sent = inner.poll_send(cx);
            loop {
                if !inner.input.is_empty()
                    && let Some(head) = decode::head(&mut inner.input, asked, headers, &mut interim)?
                {
                    inner.alarm.clear();
                    if let Some(upload) = &mut inner.upload {
                        upload.note_answer();
                    }
                    return Poll::Ready(Ok(head));
                }
                match inner.poll_read(cx) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(decode::Error::Truncated.into())),
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                    Poll::Pending => break,
                }
            }
            // A server may answer and close before it has read all: its answer counts, and a failure to send only then
            // when there is none.
            if let Poll::Ready(Err(Broken::Upload)) = sent {
                return Poll::Ready(Err(Broken::Upload));
            }
            // Only now: what has come in meanwhile is not late because this worker was.
            if inner.alarm.has_rung() {
                match deadline() {
                    Some(later) => ring = later,
                    None => return Poll::Ready(Err(Broken::Late)),
                }
            }
            inner.alarm.set(cx.waker(), ring);
            Poll::Pending
        })
        .await
    }

    /// What is left of it when the server has switched to WebSocket.
    pub fn into_tunnel(self, clock: Rc<Clock>, pause: Duration, flight: Option<InFlight>) -> Tunnel {
        let inner = *self.0;
        inner.alarm.forget();
        Tunnel::new((inner.stream, inner.input.freeze()), inner.alarm, clock, pause, flight)
    }

    /// The next part of a response body; [`Broken::Late`] when the alarm, set to `deadline` at every wait, has rung.
    pub fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        framing: &mut Framing,
        deadline: Millis,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let inner = &mut *self.0;
        loop {
            match framing.take(&mut inner.input) {
                Ok(Part::Frame(frame)) => {
                    // Whoever is not waiting is not late: a slow client may take long until it asks again.
                    inner.alarm.clear();
                    return Poll::Ready(Some(Ok(frame)));
                }
                Ok(Part::End) => return Poll::Ready(None),
                Ok(Part::More) => {}
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
            // The request's body may still be on its way. If the server takes no more of it, its response still counts; if
            // the client breaks it off, the exchange is over.
            if let Poll::Ready(Err(Broken::Upload)) = inner.poll_send(cx) {
                return Poll::Ready(Some(Err(Broken::Upload)));
            }
            match inner.poll_read(cx) {
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(framing.close().err().map(|error| Err(error.into())));
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                Poll::Pending if inner.alarm.has_rung() => return Poll::Ready(Some(Err(Broken::Late))),
                Poll::Pending => {
                    inner.alarm.set(cx.waker(), deadline);
                    return Poll::Pending;
                }
            }
        }
    }
}

impl Inner {
    /// Writes the request on; ready when all is written, or it cannot be.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        loop {
            while let Some(rest) = self.output.get(self.written..).filter(|rest| !rest.is_empty()) {
                match ready!(Pin::new(&mut self.stream).poll_write(cx, rest)) {
                    Ok(count) => self.written += count,
                    Err(error) => {
                        self.spoil();
                        return Poll::Ready(Err(error.into()));
                    }
                }
            }
            if std::mem::take(&mut self.sends_head) && self.output.capacity() > KEPT_HEAD {
                self.output = Vec::new();
            }
            self.clear_output();
            if let Err(error) = ready!(Pin::new(&mut self.stream).poll_flush(cx)) {
                self.spoil();
                return Poll::Ready(Err(error.into()));
            }
            let Some(upload) = &mut self.upload else { return Poll::Ready(Ok(())) };
            let over = match ready!(upload.poll(cx)) {
                Some(Ok(frame)) => upload.write(frame, &mut self.output),
                Some(Err(())) => {
                    // No end is written: the server must not take a part for the whole.
                    self.spoil();
                    return Poll::Ready(Err(Broken::Upload));
                }
                None => {
                    upload.write_end(None, &mut self.output);
                    true
                }
            };
            if over {
                self.upload = None;
            }
        }
    }

    fn spoil(&mut self) {
        self.spoilt = true;
        self.upload = None;
        self.clear_output();
    }

    fn clear_output(&mut self) {
        self.output.clear();
        self.written = 0;
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let room = if self.large { LARGE_READ } else { SMALL_READ };
        self.input.reserve(room);
        let count = ready!(pin!(self.stream.read_buf(&mut self.input)).poll(cx))?;
        self.heard |= count > 0;
        self.large = count >= SMALL_READ;
        Poll::Ready(Ok(count))
    }
}

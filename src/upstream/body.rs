//! Bodies on their way: the request's to the upstream, bounded, and the response's back to the client. Neither is held.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use crate::message::{BodyGuard, Cause};
use crate::upstream::alarm::{Clock, Millis};
use crate::upstream::balance::InFlight;
use crate::upstream::copy::{self, Copies, Copy};
use crate::upstream::decode::{Framing, Head};
use crate::upstream::headers::{Rules, write_field};
use crate::upstream::pool::{Pool, Pools};
use crate::upstream::wire::Wire;

/// The time of waiting, in milliseconds, over which the rate of a body is judged, and the least between two looks.
const RATE_WINDOW: Millis = 10_000;
const RATE_PAUSE: Millis = 100;

/// Why a request body could not be passed on.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It is larger than the limit.
    #[error("the request body is larger than allowed")]
    TooLarge,
    /// Nothing came for `server.timeouts.body`.
    #[error("the request body did not go on in time")]
    Silent,
    /// It is slower than `server.timeouts.body_rate`.
    #[error("the request body is slower than server.timeouts.body_rate")]
    Slow,
    /// Its framing is wrong, or the client went away.
    #[error("the request body broke off: {0}")]
    Broken(hyper::Error),
}

/// What the exchange knows of an upload while it runs.
pub struct Progress {
    fault: RefCell<Option<Fault>>,
    moved: Cell<Millis>,
}

impl Progress {
    /// What went wrong on the client's side, if anything did.
    pub fn take_fault(&self) -> Option<Fault> {
        self.fault.borrow_mut().take()
    }

    /// When the last part was passed on.
    pub fn moved(&self) -> Millis {
        self.moved.get()
    }
}

/// A request body on its way to an upstream.
pub struct Upload {
    incoming: Incoming,
    /// Whether it goes in chunks; else its length is known.
    chunked: bool,
    left: u64,
    /// The longest silence; `None` once the answer is there: only the whole exchange has a bound then.
    pause: Option<Duration>,
    silence: Option<Pin<Box<Sleep>>>,
    pace: Pace,
    progress: Rc<Progress>,
    rules: Rc<Rules>,
    clock: Rc<Clock>,
    kept: Kept,
    /// Dropped at its end.
    pub guard: Option<BodyGuard>,
}

/// What is kept of a body to send it again.
enum Kept {
    /// Nothing: it is too long, or nothing is to be kept.
    Nothing,
    /// All that was sent so far.
    Sent(Copy),
    /// What is to be sent again, before the rest.
    Again(Copy),
}

/// Whether a body brings the least that it must, counting only the time spent waiting for the client.
struct Pace {
    /// Bytes a second; 0 is no minimum.
    rate: u64,
    /// Of the present window.
    bytes: u64,
    waited: Millis,
    /// Since when it is waited for.
    since: Option<Millis>,
}

impl Pace {
    fn new(rate: u64) -> Self {
        Self { rate, bytes: 0, waited: 0, since: None }
    }

    /// A part came.
    fn note(&mut self, bytes: u64, now: Millis) {
        self.bytes += bytes;
        if let Some(since) = self.since.take() {
            self.waited += now.saturating_sub(since);
        }
        self.turn_over();
    }

    /// Nothing is there; for how long that may go on before it is looked at again. `None`: it is too slow.
    fn wait(&mut self, now: Millis) -> Option<Duration> {
        let since = *self.since.get_or_insert(now);
        let waited = self.waited + now.saturating_sub(since);
        if self.rate == 0 || waited < RATE_WINDOW {
            return Some(Duration::from_millis((RATE_WINDOW - waited.min(RATE_WINDOW)).max(RATE_PAUSE)));
        }
        if self.bytes < self.rate * (waited / 1000) {
            return None;
        }
        (self.waited, self.since) = (waited, Some(now));
        self.turn_over();
        Some(Duration::from_millis(RATE_WINDOW))
    }

    fn turn_over(&mut self) {
        if self.waited >= RATE_WINDOW && self.bytes >= self.rate * (self.waited / 1000) {
            (self.bytes, self.waited) = (0, 0);
        }
    }
}

/// The bounds of an upload.
#[derive(Clone, Copy)]
pub struct Bounds {
    /// Bytes.
    pub size: u64,
    /// Between two reads.
    pub pause: Duration,
    /// Bytes a second; 0 is no minimum.
    pub rate: u64,
}

impl Upload {
    /// Passes `incoming` on within `bounds`; the worker's `pools` know the rules for trailers and the time.
    pub fn new(incoming: Incoming, bounds: Bounds, pools: &Pools) -> (Self, Rc<Progress>) {
        let (rules, clock) = (Rc::clone(pools.rules()), Rc::clone(pools.clock()));
        let progress = Rc::new(Progress { fault: RefCell::new(None), moved: Cell::new(clock.now()) });
        let chunked = incoming.size_hint().exact().is_none();
        let (left, pause) = (bounds.size, Some(bounds.pause));
        let upload = Self {
            incoming,
            chunked,
            left,
            pause,
            silence: None,
            pace: Pace::new(bounds.rate),
            progress: Rc::clone(&progress),
            rules,
            clock,
            kept: Kept::Nothing,
            guard: None,
        };
        (upload, progress)
    }

    /// Keeps what is sent, so that it can be sent again, unless it is too long.
    pub fn keep(&mut self, copies: &Rc<Copies>) {
        if self.incoming.size_hint().lower() <= copy::LARGEST as u64 {
            self.kept = Kept::Sent(Copy::new(copies));
        }
    }

    /// How long it is, in bytes; the largest number where that is not known.
    pub fn size(&self) -> u64 {
        self.incoming.size_hint().exact().unwrap_or(u64::MAX)
    }

    /// Begins anew; `false` when not all that was sent is kept.
    pub fn rewind(&mut self) -> bool {
        match std::mem::replace(&mut self.kept, Kept::Nothing) {
            Kept::Sent(copy) => {
                self.kept = Kept::Again(copy);
                true
            }
            Kept::Again(_) | Kept::Nothing => false,
        }
    }

    /// The next part; an error is kept in [`Progress`].
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ()>>> {
        let part = ready!(self.poll_part(cx));
        self.progress.moved.set(self.clock.now());
        Poll::Ready(part.map(|part| part.map_err(|fault| *self.progress.fault.borrow_mut() = Some(fault))))
    }

    /// The answer has begun: from here on the client may be silent while the server is not, as on a stream of gRPC.
    pub fn note_answer(&mut self) {
        (self.pause, self.silence, self.pace.rate) = (None, None, 0);
        if let Kept::Sent(_) = self.kept {
            self.kept = Kept::Nothing;
        }
    }

    /// What the exchange knows of it.
    pub fn progress(&self) -> &Rc<Progress> {
        &self.progress
    }

    /// Whether it is known that nothing follows, trailers included.
    pub fn is_over(&self) -> bool {
        let again = matches!(&self.kept, Kept::Again(copy) if !copy.is_empty());
        !again && self.incoming.is_end_stream()
    }

    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        if let Kept::Again(copy) = &mut self.kept {
            match copy.next() {
                Some(part) => return Poll::Ready(Some(Ok(part))),
                None => self.kept = Kept::Nothing,
            }
        }
        let Poll::Ready(next) = Pin::new(&mut self.incoming).poll_frame(cx) else {
            return self.poll_silence(cx).map(|fault| Some(Err(fault)));
        };
        self.silence = None;
        let length = match &next {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
            Some(Err(_)) | None => 0,
        };
        self.pace.note(length as u64, self.clock.now());
        if let Some(guard) = &self.guard {
            guard.note(Some(length));
        }
        Poll::Ready(match next {
            None => None,
            Some(Err(error)) => Some(Err(Fault::Broken(error))),
            Some(Ok(frame)) => Some(self.pass(frame)),
        })
    }

    /// The client is waited for; ready when that has been too long.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<Fault> {
        if let Some(guard) = &self.guard {
            guard.note(None);
        }
        let Some(pause) = self.pause else { return Poll::Pending };
        loop {
            let now = self.clock.now();
            let Some(look) = self.pace.wait(now) else { return Poll::Ready(Fault::Slow) };
            let silent = self.pace.since.map_or(0, |since| now.saturating_sub(since));
            let left = pause.saturating_sub(Duration::from_millis(silent));
            let silence = self.silence.get_or_insert_with(|| Box::pin(tokio::time::sleep(left.min(look))));
            ready!(silence.as_mut().poll(cx));
            self.silence = None;
            if left <= look {
                return Poll::Ready(Fault::Silent);
            }
        }
    }

    fn pass(&mut self, mut frame: Frame<Bytes>) -> Result<Frame<Bytes>, Fault> {
        if let Some(data) = frame.data_ref() {
            self.left = self.left.checked_sub(data.len() as u64).ok_or(Fault::TooLarge)?;
        }
        if let Some(trailers) = frame.trailers_mut() {
            self.rules.strip_trailers(trailers);
        }
        if let Kept::Sent(copy) = &mut self.kept
            && !copy.add(&frame)
        {
            self.kept = Kept::Nothing;
        }
        Ok(frame)
    }

    /// Writes a part as it stands on the wire. `true` when it was the last.
    pub fn write(&self, frame: Frame<Bytes>, out: &mut Vec<u8>) -> bool {
        match frame.into_data() {
            Ok(data) if !self.chunked => out.extend_from_slice(&data),
            // A chunk of no bytes would be the end.
            Ok(data) if data.is_empty() => {}
            Ok(data) => {
                out.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
                out.extend_from_slice(&data);
                out.extend_from_slice(b"\r\n");
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    self.write_end(Some(&trailers), out);
                }
                return true;
            }
        }
        false
    }

    /// Writes the end, with trailers where there are any.
    pub fn write_end(&self, trailers: Option<&HeaderMap>, out: &mut Vec<u8>) {
        if self.chunked {
            out.extend_from_slice(b"0\r\n");
            for (name, value) in trailers.into_iter().flatten() {
                write_field(out, name.as_str(), value.as_bytes());
            }
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// A response body on its way to the client. It hands its connection back when the last byte is read.
pub struct Download {
    framing: Framing,
    wire: Option<Wire>,
    pool: Rc<Pool>,
    keep: bool,
    pause: Duration,
    _flight: Option<InFlight>,
}

impl Download {
    /// Passes on what arrives on `wire`; `pause` is the longest silence between two reads.
    pub fn new(head: Head, (wire, flight): (Wire, Option<InFlight>), pool: Rc<Pool>, pause: Duration) -> Self {
        let (framing, keep) = (head.framing, head.keep);
        let mut download = Self { framing, wire: Some(wire), pool, keep, pause, _flight: flight };
        if download.framing.is_over() {
            download.finish();
        }
        download
    }

    fn finish(&mut self) {
        if let Some(wire) = self.wire.take()
            && self.keep
        {
            self.pool.keep(wire);
        }
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = Cause;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        let this = &mut *self;
        let Some(wire) = &mut this.wire else { return Poll::Ready(None) };
        let deadline = this.pool.clock().after(this.pause);
        match ready!(wire.poll_body(cx, &mut this.framing, deadline)) {
            None => {
                this.keep &= this.framing != Framing::Close;
                this.finish();
                Poll::Ready(None)
            }
            Some(Ok(part)) => {
                if this.framing.is_over() {
                    this.finish();
                }
                Poll::Ready(Some(Ok(part)))
            }
            Some(Err(error)) => {
                this.wire = None;
                Poll::Ready(Some(Err(error.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.wire.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match self.framing {
            Framing::Length(left) => SizeHint::with_exact(left),
            Framing::Chunked(_) | Framing::Close => SizeHint::default(),
        }
    }
}

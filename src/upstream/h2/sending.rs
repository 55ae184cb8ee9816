//! The request body of one stream on its way to the server.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use ::h2::{Reason, SendStream};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;
use tokio::task::AbortHandle;
use tokio::time::Sleep;

use crate::upstream::body::{Progress, Upload};
use crate::upstream::h2::parts::{PACE, SMALL, StreamParts};
use crate::upstream::wire::Broken;

/// A request body on its way.
pub struct Sending {
    stream: SendStream<Bytes>,
    upload: Upload,
    /// What is not sent yet: it is gathered, or the server's window has no room for it.
    left: Bytes,
    /// What is known to follow it.
    end: Option<End>,
    /// All of `left` may be sent, small as it is.
    due: bool,
    parts: Rc<StreamParts>,
    timer: Option<Pin<Box<Sleep>>>,
    /// All is sent, or cannot be.
    done: bool,
}

enum End {
    Data,
    Trailers(HeaderMap),
}

impl Sending {
    /// Sends `upload` on `stream`.
    pub fn new(stream: SendStream<Bytes>, upload: Upload, parts: Rc<StreamParts>) -> Self {
        Self { stream, upload, left: Bytes::new(), end: None, due: false, parts, timer: None, done: false }
    }

    /// Ready when all is handed over, or the server wants no more of it.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        loop {
            if self.is_due() {
                if ready!(self.poll_left(cx))? {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            if self.left.is_empty() {
                self.due = false;
                match self.end.take() {
                    Some(End::Trailers(trailers)) => {
                        return Poll::Ready(self.stream.send_trailers(trailers).map_err(Broken::from));
                    }
                    Some(End::Data) => {
                        return Poll::Ready(self.stream.send_data(Bytes::new(), true).map_err(Broken::from));
                    }
                    None => {}
                }
            }
            let Poll::Ready(part) = self.upload.poll(cx) else {
                if self.poll_small(cx).is_ready() {
                    continue;
                }
                return self
                    .stream
                    .poll_reset(cx)
                    .map(|reset| Err(Broken::Stream(reset.map_or_else(|e| e, Into::into))));
            };
            match part.map(|part| part.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => self.gather(data),
                Some(Ok(Err(rest))) => self.end = Some(End::Trailers(rest.into_trailers().unwrap_or_default())),
                // No end is sent: the server must not take a part for the whole.
                Some(Err(())) => return Poll::Ready(Err(Broken::Upload)),
                None => self.end = Some(End::Data),
            }
        }
    }

    /// Nothing more is sent.
    pub fn finish(&mut self) {
        self.done = true;
        self.upload.guard = None;
    }

    /// Whether nothing more is sent.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// What is known of the upload.
    pub fn progress(&self) -> &Rc<Progress> {
        self.upload.progress()
    }

    /// The stream, and what was to be sent on it.
    pub fn into_parts(self) -> (SendStream<Bytes>, Upload) {
        (self.stream, self.upload)
    }

    fn gather(&mut self, data: Bytes) {
        if self.left.is_empty() {
            self.left = data;
            return;
        }
        let mut both = BytesMut::with_capacity(self.left.len() + data.len());
        both.extend_from_slice(&self.left);
        both.extend_from_slice(&data);
        self.left = both.freeze();
    }

    /// Whether what is left goes out as soon as the window allows.
    fn is_due(&mut self) -> bool {
        // Once a part has begun, all of it goes.
        self.due |= self.left.len() >= SMALL;
        !self.left.is_empty() && (self.due || self.end.is_some() || self.upload.is_over())
    }

    /// Ready when a small part may go, although more is to follow.
    fn poll_small(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.left.is_empty() {
            return Poll::Pending;
        }
        if self.parts.admit() {
            (self.due, self.timer) = (true, None);
            return Poll::Ready(());
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(PACE)));
        ready!(timer.as_mut().poll(cx));
        self.timer = None;
        Poll::Ready(())
    }

    /// `true` when it was the last of the body.
    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Broken>> {
        self.stream.reserve_capacity(self.left.len());
        let mut room = self.stream.capacity();
        if room == 0 {
            room = match ready!(self.stream.poll_capacity(cx)) {
                Some(room) => room?,
                // The stream is closed.
                None => return Poll::Ready(Err(Broken::Stream(Reason::STREAM_CLOSED.into()))),
            };
        }
        let part = self.left.split_to(room.min(self.left.len()));
        let ends = match self.end {
            Some(End::Data) => true,
            Some(End::Trailers(_)) => false,
            None => self.upload.is_over(),
        };
        let last = self.left.is_empty() && ends;
        Poll::Ready(self.stream.send_data(part, last).map(|()| last).map_err(Broken::from))
    }
}

/// The task that sends the rest of a request; it ends with the response.
pub struct Pump(AbortHandle);

impl Pump {
    /// Begins to send.
    pub fn start(mut sending: Sending) -> Self {
        sending.upload.note_answer();
        let pump = async move {
            if let Err(Broken::Upload) = poll_fn(|cx| sending.poll(cx)).await {
                sending.stream.send_reset(Reason::CANCEL);
            }
        };
        Self(tokio::task::spawn_local(pump).abort_handle())
    }

    /// Whether all is sent.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.0.abort();
    }
}

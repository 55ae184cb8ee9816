//! HTTP/2 to servers: few connections, many streams on each. On the `h2` crate itself: it tells how many streams a server
//! takes and which it has not looked at, which hyper's client keeps to itself.

mod group;
mod link;
mod paced;
mod parts;
mod reset;
mod sending;
mod unread;

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::h2::client::ResponseFuture;
use ::h2::{Reason, RecvStream};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName};
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};

use crate::message::{Cause, rejection};
use crate::upstream::alarm::{Alarm, Clock, Millis};
use crate::upstream::balance::InFlight;
use crate::upstream::body::{Progress, Upload};
use crate::upstream::decode::{self, INTERIM_MAX, may_trail};
use crate::upstream::h2::sending::{Pump, Sending};
use crate::upstream::headers::is_hop_by_hop;
use crate::upstream::wire::Broken;

pub use group::{Demand, Links};
pub use link::Berth;

/// Whether a request that failed so may be sent again: the server has not processed it, or the method is idempotent and
/// the connection was closed. `repeatable` is such a method without a body.
pub fn may_repeat(broken: &Broken, repeatable: bool, reused: bool) -> bool {
    match broken {
        Broken::Unsent(_) => true,
        // Streams up to the last id of a GOAWAY fail with an I/O error, those above it with the GOAWAY.
        Broken::Stream(error) if error.is_remote() => {
            error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM)
        }
        Broken::Stream(error) => repeatable && error.is_io() && reused,
        Broken::Late | Broken::Off(_) | Broken::Response(_) | Broken::Upload => false,
    }
}

impl Berth {
    /// Sends the request and then `upload`, which is only taken once there is a stream for it, and waits for the header
    /// section of the response. `deadline` says when to ring, as for HTTP/1.1; `pause` is the longest silence in the body.
    ///
    /// # Errors
    /// [`Broken`]; `upload` is given back then. The stream is reset then, as it is when this or the body is dropped:
    /// at once, or when the server has had time to look at it.
    pub async fn exchange(
        mut self,
        request: Request<()>,
        upload: &mut Option<Upload>,
        mut deadline: impl FnMut() -> Option<Millis>,
        pause: Duration,
    ) -> Result<Response<Download>, Broken> {
        let head_only = request.method() == Method::HEAD;
        let (response, stream) = self.open(request, upload.is_none())?;
        let sending = upload.take().map(|upload| Sending::new(stream, upload, Rc::clone(self.parts())));
        let (alarm, clock) = (self.clock().alarm(), Rc::clone(self.clock()));
        let mut asking = Asking { berth: Some(self), response: Some(response), sending };
        let head = match deadline() {
            Some(ring) => asking.await_head(&alarm, (ring, deadline)).await,
            None => Err(Broken::Late),
        };
        let response = match head {
            Ok(response) => response,
            Err(broken) => {
                if matches!(broken, Broken::Response(_)) {
                    asking.cut_off();
                }
                *upload = asking.end(matches!(broken, Broken::Upload));
                return Err(broken);
            }
        };
        let sending = asking.sending.take();
        let Some(berth) = asking.berth.take() else { return Err(Broken::Late) };
        berth.note_head();
        let (mut head, stream) = response.into_parts();
        strip(&mut head.headers, |name| !is_hop_by_hop(name.as_str()) && *name != rejection::MARKER);
        let length = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        // The rest of the request goes its own way: whoever does not read an answer may still be sending.
        let sent = sending.as_ref().map(|sending| Rc::clone(sending.progress()));
        let pump = sending.filter(|sending| !sending.is_done()).map(Pump::start);
        let empty = head_only || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let left = if empty || stream.is_end_stream() { Some(0) } else { length };
        let (over, stream) = (false, Some(stream));
        let body = Download { stream, left, over, alarm, clock, pause, sent, pump, berth, _flight: None };
        let mut response = Response::new(body);
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        Ok(response)
    }
}

/// A stream without a response so far. It is given up when this is dropped.
struct Asking {
    berth: Option<Berth>,
    /// `None` once it is ready.
    response: Option<ResponseFuture>,
    sending: Option<Sending>,
}

impl Asking {
    async fn await_head(
        &mut self,
        alarm: &Alarm,
        (mut ring, mut deadline): (Millis, impl FnMut() -> Option<Millis>),
    ) -> Result<Response<RecvStream>, Broken> {
        let mut interim = 0;
        poll_fn(|cx| {
            if let Some(sending) = self.sending.as_mut().filter(|sending| !sending.is_done())
                && let Poll::Ready(sent) = sending.poll(cx)
            {
                sending.finish();
                // A server that takes no more may still answer.
                if let Err(Broken::Upload) = sent {
                    return Poll::Ready(Err(Broken::Upload));
                }
            }
            let Some(response) = &mut self.response else { return Poll::Ready(Err(Broken::Late)) };
            // They wait in h2 until they are asked for.
            while let Poll::Ready(Some(Ok(_))) = response.poll_informational(cx) {
                interim += 1;
                if interim > INTERIM_MAX {
                    return Poll::Ready(Err(decode::Error::TooManyInterim.into()));
                }
            }
            if let Poll::Ready(answer) = Pin::new(response).poll(cx) {
                alarm.clear();
                self.response = None;
                return Poll::Ready(answer.map_err(Broken::from));
            }
            if alarm.has_rung() {
                match deadline() {
                    Some(later) => ring = later,
                    None => return Poll::Ready(Err(Broken::Late)),
                }
            }
            alarm.set(cx.waker(), ring);
            Poll::Pending
        })
        .await
    }

    /// Resets the stream at once: the server has looked at it, and does not come to its response.
    fn cut_off(&mut self) {
        self.response = None;
        if let Some(berth) = &self.berth {
            berth.cut_off();
        }
    }

    /// Gives the stream up, and the upload back.
    fn end(&mut self, by_client: bool) -> Option<Upload> {
        let (stream, upload) = self.sending.take().map(Sending::into_parts).unzip();
        if let (Some(berth), Some(response)) = (&self.berth, self.response.take()) {
            berth.leave(response, stream, by_client);
        }
        upload
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        // Only the client can have ended it: an answer or a failure takes these out.
        self.end(true);
    }
}

fn strip(headers: &mut HeaderMap, may_stay: impl Fn(&HeaderName) -> bool) {
    let doomed: Vec<HeaderName> = headers.keys().filter(|name| !may_stay(name)).cloned().collect();
    for name in doomed {
        headers.remove(name);
    }
}

/// A response body on its way to the client.
pub struct Download {
    /// There until this is dropped.
    stream: Option<RecvStream>,
    /// Bytes that are to come, where that is known.
    left: Option<u64>,
    /// The server ended it, whether well or not, or was silent for too long.
    over: bool,
    alarm: Rc<Alarm>,
    clock: Rc<Clock>,
    pause: Duration,
    /// The rest of the request: while that moves, the exchange is not silent.
    sent: Option<Rc<Progress>>,
    pump: Option<Pump>,
    berth: Berth,
    _flight: Option<InFlight>,
}

impl Download {
    /// Counts for as long as it lasts.
    pub fn with(mut self, flight: Option<InFlight>) -> Self {
        self._flight = flight;
        self
    }

    /// How long ago the request last moved.
    fn since_sent(&self) -> Duration {
        let moved = self.sent.as_ref().map_or(0, |sent| sent.moved());
        Duration::from_millis(self.clock.now().saturating_sub(moved))
    }

    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ::h2::Error>>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(None) };
        while let Some(data) = ready!(stream.poll_data(cx)) {
            let data = data?;
            stream.flow_control().release_capacity(data.len())?;
            if !data.is_empty() {
                self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
        let Some(mut trailers) = ready!(stream.poll_trailers(cx))? else { return Poll::Ready(None) };
        strip(&mut trailers, may_trail);
        Poll::Ready((!trailers.is_empty()).then(|| Ok(Frame::trailers(trailers))))
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = Cause;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        let this = &mut *self;
        let Poll::Ready(part) = this.poll_part(cx) else {
            let mut pause = this.pause;
            if this.alarm.has_rung() {
                pause = pause.saturating_sub(this.since_sent());
                if pause.is_zero() {
                    this.over = true;
                    return Poll::Ready(Some(Err(Broken::Late.into())));
                }
            }
            this.alarm.set(cx.waker(), this.clock.after(pause));
            return Poll::Pending;
        };
        // Whoever is not waiting is not late.
        this.alarm.clear();
        this.berth.note_answer();
        this.over |= match &part {
            Some(Ok(_)) => false,
            // Neither is so when the client's upload was at fault.
            Some(Err(error)) => error.is_remote() || error.is_io(),
            None => true,
        };
        Poll::Ready(part.map(|part| part.map_err(|error| Broken::Stream(error).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.as_ref().is_none_or(RecvStream::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        let ended = self.over || self.is_end_stream();
        let is_sending = self.pump.as_ref().is_some_and(|pump| !pump.is_finished());
        match self.stream.take() {
            _ if ended && is_sending => self.berth.note_reset(false),
            // HTTP/1.1 clients need no more than the length: the end of the stream may not be here yet.
            Some(stream) if !ended && self.left == Some(0) && !is_sending => self.berth.await_end(stream),
            _ if ended => self.berth.note_complete(),
            _ => self.berth.note_reset(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_server_did_not_process_is_repeated() {
        let local = || ::h2::Error::from(Reason::INTERNAL_ERROR);
        assert!(may_repeat(&Broken::Unsent(local()), false, false));
        // Made here, not by the server.
        assert!(!may_repeat(&Broken::Stream(Reason::REFUSED_STREAM.into()), true, true));
        assert!(!may_repeat(&Broken::Stream(local()), true, true));
        assert!(!may_repeat(&Broken::Late, true, true));
        assert!(!may_repeat(&Broken::Upload, true, true));
    }
}

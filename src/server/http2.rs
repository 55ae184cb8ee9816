//! HTTP/2 on a client's connection: hyper and h2 read streams and write answers, the gate judges each like any request.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use crate::gate::{self, LeaseEnd};
use crate::message::{Cause, Incoming};
use crate::server::census::{StreamTicket, Ticket};
use crate::server::room::Visit;
use crate::server::roster::{Order, Seat, Stage};
use crate::server::stay::{Length, Stay};
use crate::server::stream::Stream;
use crate::server::wire::Wire;

/// Requests of one connection at a time.
const STREAMS: u32 = 128;

/// Bytes of a request body that a client may send ahead: on one stream, and on the connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Bytes of an answer that wait to be written, a stream.
const SEND_BUFFER: usize = 128 * 1024;

/// Streams that a client may reset before they were looked at, and those that we reset for its errors: beyond that it is
/// an attack (CVE-2023-44487, CVE-2025-8671), and the connection ends.
const RESETS: usize = 20;
const ERROR_RESETS: usize = 256;

/// What header lists may be longer than `server.limits.header_bytes`, so that the refusal is ours and not bare.
const SLACK: usize = 16 * 1024;

/// Bytes of header lists that the streams of one connection may hold at once, at least: a few bytes of a request can stand
/// for a long list (RFC 7541 2.3). Beyond that a stream is refused, which may be sent again (RFC 9113 8.7).
const HEADER_LISTS: usize = 1024 * 1024;

/// What a field of a header list counts beyond its bytes (RFC 9113 6.5.2).
const FIELD_OVERHEAD: usize = 32;

/// Serves the connection to its end; `early` are its first bytes.
pub async fn serve((stream, early): (Stream, Bytes), visit: &Rc<Visit>, seat: &Rc<Seat>, ticket: Ticket) {
    let io = TokioIo::new(Wire::http2(stream, early, Rc::clone(seat)));
    let (own_visit, own_seat) = (Rc::clone(visit), Rc::clone(seat));
    let limit = visit.standing().config().server.limits.header_bytes;
    let most = HEADER_LISTS.max(2 * (limit + SLACK));
    let load = Rc::new(Load { streams: Cell::new(0), header_bytes: Cell::new(0), most, ticket });
    let service = service_fn(move |request: Request<Incoming>| {
        // Here, and not in its task: what is refused is dropped at once.
        let admitted = Share::of(&request, &load).map(|share| (request, share));
        answer(Rc::clone(&own_visit), Rc::clone(&own_seat), admitted)
    });
    let mut connection = pin!(
        http2::Builder::new(Local)
            .max_concurrent_streams(STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(u32::try_from(limit + SLACK).unwrap_or(u32::MAX))
            .max_send_buf_size(SEND_BUFFER)
            .max_pending_accept_reset_streams(RESETS)
            .max_local_error_reset_streams(ERROR_RESETS)
            .serve_connection(io, service)
    );
    let mut draining = false;
    let _ = poll_fn(|cx| {
        seat.follow(cx.waker());
        match seat.order() {
            Order::Close => return Poll::Ready(None),
            Order::Drain if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
            Order::Drain | Order::Stay => {}
        }
        connection.as_mut().poll(cx).map(Some)
    })
    .await;
}

/// Runs hyper's tasks on this worker.
#[derive(Clone, Copy)]
struct Local;

impl<F: Future + 'static> Executor<F> for Local {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(async {
            task.await;
        });
    }
}

/// Why a stream is reset. Without a reason of HTTP/2 in it, it is reset as failed.
#[derive(Debug, thiserror::Error)]
enum Reset {
    /// The caller may not stay.
    #[error("the token of this stream has ended: {0:?}")]
    Ended(LeaseEnd),
    /// The connection holds as many header bytes as it may, or its client as many streams.
    #[error("the header lists of this connection are too large, or its client has too many streams")]
    Refused(#[source] h2::Error),
}

/// What the streams of a connection take.
struct Load {
    streams: Cell<usize>,
    header_bytes: Cell<usize>,
    /// Of these.
    most: usize,
    ticket: Ticket,
}

/// One stream's part, until it is dropped.
struct Share {
    load: Rc<Load>,
    header_bytes: usize,
    /// The first stream counts as the connection.
    _ticket: Option<StreamTicket>,
}

impl Share {
    fn of(request: &Request<Incoming>, load: &Rc<Load>) -> Option<Self> {
        let fields = request.headers().iter();
        let bytes = fields.map(|(name, value)| name.as_str().len() + value.len() + FIELD_OVERHEAD).sum::<usize>();
        let held = load.header_bytes.get() + bytes;
        if held > load.most {
            return None;
        }
        let ticket = if load.streams.get() > 0 { Some(load.ticket.stream()?) } else { None };
        load.header_bytes.set(held);
        load.streams.set(load.streams.get() + 1);
        Some(Self { load: Rc::clone(load), header_bytes: bytes, _ticket: ticket })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let load = &self.load;
        load.header_bytes.set(load.header_bytes.get() - self.header_bytes);
        load.streams.set(load.streams.get() - 1);
    }
}

/// A stream that counts: the connection is busy while there is one.
struct Open {
    seat: Rc<Seat>,
    stay: Rc<Stay>,
    /// The answer was given to its end.
    whole: bool,
    _share: Share,
}

impl Open {
    fn new(seat: Rc<Seat>, share: Share) -> Self {
        let stay = Stay::new(seat.now());
        seat.add_stay(&stay);
        seat.enter(Stage::Busy);
        Self { seat, stay, whole: false, _share: share }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.seat.remove_stay(&self.stay, self.whole) {
            self.seat.enter(Stage::Idle);
        }
    }
}

async fn answer(
    visit: Rc<Visit>,
    seat: Rc<Seat>,
    admitted: Option<(Request<Incoming>, Share)>,
) -> Result<Response<Streamed>, Reset> {
    let Some((request, share)) = admitted else {
        tracing::debug!("a stream is refused: header lists of its connection too large, or server.limits.per_address");
        return Err(Reset::Refused(h2::Reason::REFUSED_STREAM.into()));
    };
    let mut open = Open::new(seat, share);
    let standing = visit.standing();
    open.stay.begin(&standing, request.body().size_hint().exact().is_none());
    let response = {
        let stay = &open.stay;
        let mut handling = pin!(gate::handle(standing.gate(), standing.own(), standing.peer(), &stay.lease, request));
        poll_fn(|cx| match stay.over(cx.waker()) {
            Some(end) => Poll::Ready(Err(Reset::Ended(end))),
            None => handling.as_mut().poll(cx).map(Ok),
        })
        .await?
    };
    open.stay.answer(Length::of(response.body()));
    let is_grpc = |value: &HeaderValue| value.as_bytes().starts_with(b"application/grpc");
    let grpc = response.headers().get(CONTENT_TYPE).is_some_and(is_grpc);
    open.whole = response.body().is_end_stream();
    Ok(response.map(|body| {
        open.stay.hold(body);
        Streamed { open, grpc, ended: false }
    }))
}

/// A response body that ends with its caller's token.
struct Streamed {
    open: Open,
    grpc: bool,
    /// The trailers of its early end were given.
    ended: bool,
}

/// How a gRPC call hears that its token has ended: UNAUTHENTICATED, in trailers.
fn unauthenticated() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    trailers.insert("grpc-status", HeaderValue::from_static("16"));
    trailers.insert("grpc-message", HeaderValue::from_static("The token of this call has ended"));
    trailers
}

impl HttpBody for Streamed {
    type Data = Bytes;
    type Error = Cause;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        let this = &mut *self;
        if let Some(end) = this.open.stay.over(cx.waker()) {
            return Poll::Ready(match (this.grpc, std::mem::replace(&mut this.ended, true)) {
                (false, _) => Some(Err(Reset::Ended(end).into())),
                (true, false) => Some(Ok(Frame::trailers(unauthenticated()))),
                (true, true) => None,
            });
        }
        let frame = ready!(this.open.stay.poll_body(cx, this.open.seat.now()));
        this.open.whole |= frame.is_none() || this.open.stay.is_body_over();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.open.stay.is_body_over()
    }

    fn size_hint(&self) -> SizeHint {
        self.open.stay.body_size()
    }
}

//! HTTP/1 on a client's connection: hyper reads requests and writes answers, the gate judges.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue};
use http::{Request, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use crate::gate::{self, Tunnel};
use crate::message::{Body, Cause, Incoming, rejection};
use crate::server::room::Visit;
use crate::server::roster::{Order, Seat, Stage};
use crate::server::stay::{Length, Stay};
use crate::server::stream::Stream;
use crate::server::wire::Wire;

/// Fields of a request; hyper's own default.
const FIELDS: usize = 100;

/// Serves the connection to its end; `early` are its first bytes.
pub async fn serve(stream: Stream, early: Bytes, visit: &Visit, seat: &Rc<Seat>) {
    let io = TokioIo::new(Wire::http1(stream, early, Rc::clone(seat)));
    let stay = Stay::new(seat.now());
    seat.add_stay(&stay);
    let tunnel = Cell::new(None);
    let service = service_fn(|request: Request<Incoming>| {
        seat.enter(Stage::Busy);
        let busy = Busy { seat: Rc::clone(seat), stay: Rc::clone(&stay) };
        let standing = visit.standing();
        let unread = !request.body().is_end_stream();
        seat.note_body(unread);
        stay.begin(&standing, request.body().size_hint().exact().is_none());
        let tunnel = &tunnel;
        async move {
            let stay = &busy.stay;
            let mut response =
                gate::handle(standing.gate(), standing.own(), standing.peer(), &stay.lease, request).await;
            // Where a body with two framings ends, nobody can say (RFC 9112 6.3).
            let astray = unread && response.headers().get(rejection::MARKER).is_some_and(|code| code == "bad_request");
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                tunnel.set(standing.peer().take_tunnel().map(|tunnel| (tunnel, standing)));
            } else if astray || busy.seat.order() == Order::Drain {
                // hyper's own graceful end would close a kept connection at once, with a request on its way.
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            stay.answer(Length::of(response.body()));
            Ok::<_, Infallible>(response.map(|body| Tracked { body, _busy: busy }))
        }
    });
    let limit = visit.standing().config().server.limits.header_bytes;
    let mut connection = http1::Builder::new()
        .max_headers(FIELDS)
        .max_header_size(limit)
        .max_buf_size(limit.max(8192))
        .serve_connection(io, service);
    let ended = poll_fn(|cx| {
        seat.follow(cx.waker());
        if seat.order() == Order::Close || stay.over(cx.waker()).is_some() {
            return Poll::Ready(None);
        }
        Pin::new(&mut connection).poll(cx).map(Some)
    })
    .await;
    // How a client's connection ends is its own affair: a request that failed has its access line.
    if let Some(outcome) = ended {
        let parts = connection.into_parts();
        let wire = parts.io.into_inner();
        match tunnel.take() {
            Some((tunnel, standing)) => {
                stay.go_on(standing);
                run(*tunnel, (wire, parts.read_buf), seat, &stay).await;
            }
            None => {
                let style = visit.standing().gate().style();
                wire.end(outcome.err().as_ref(), style).await;
            }
        }
    }
}

/// Runs a tunnel for as long as its caller may stay.
async fn run(tunnel: Tunnel, (wire, early): (Wire, Bytes), seat: &Seat, stay: &Stay) {
    seat.enter(Stage::Tunnel);
    let mut tunnel = pin!(tunnel.run(wire, early));
    let watched = poll_fn(|cx| match stay.over(cx.waker()) {
        Some(_) => Poll::Ready(()),
        None => tunnel.as_mut().poll(cx),
    });
    seat.attend_to(watched).await;
}

/// A connection is busy until this is dropped; then the last of its answer is on its way.
struct Busy {
    seat: Rc<Seat>,
    stay: Rc<Stay>,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stay.end();
        self.seat.enter(Stage::Flushing);
    }
}

/// A response body that tells the roster when it is over.
struct Tracked {
    body: Body,
    _busy: Busy,
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = Cause;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

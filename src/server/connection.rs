//! One connection: hyper reads requests and writes answers, the gate judges, the roster bounds how long it may take.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::TcpStream;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Request;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use crate::app::App;
use crate::gate::{self, Peer, client};
use crate::message::{Body, Cause, Incoming};
use crate::server::roster::{Order, Roster, Seat, Stage};
use crate::server::wire::Wire;

/// Fields of a request; hyper's own default.
const FIELDS: usize = 100;

/// Serves a connection in a task of this worker.
pub fn spawn(stream: TcpStream, app: &Arc<App>, own: &Rc<gate::Worker>, roster: &Rc<Roster>) {
    let (app, own, roster) = (Arc::clone(app), Rc::clone(own), Rc::clone(roster));
    tokio::task::spawn_local(async move {
        let place = roster.enter();
        if let Ok((stream, peer)) = prepare(stream, &app) {
            serve(stream, peer, &app, own, &place.seat).await;
        }
    });
}

fn prepare(stream: TcpStream, app: &App) -> std::io::Result<(tokio::net::TcpStream, Peer)> {
    let peer = stream.peer_addr()?.ip();
    stream.set_nodelay(true)?;
    let stream = tokio::net::TcpStream::from_std(stream)?;
    let client = client::of_connection(peer, app.gate.trusted());
    Ok((stream, Peer { client, memo: Default::default() }))
}

async fn serve(stream: tokio::net::TcpStream, peer: Peer, app: &Arc<App>, own: Rc<gate::Worker>, seat: &Rc<Seat>) {
    let io = TokioIo::new(Wire::new(stream, Rc::clone(seat)));
    let service = service_fn(|request: Request<Incoming>| {
        seat.enter(Stage::Busy);
        let busy = Busy(Rc::clone(seat));
        seat.note_body(!request.body().is_end_stream());
        let answer = gate::handle(&app.gate, &own, &peer, request);
        async move { Ok::<_, Infallible>(answer.await.map(|body| Tracked { body, _busy: busy })) }
    });
    let limit = app.config.server.limits.header_bytes;
    let mut connection = http1::Builder::new()
        .max_headers(FIELDS)
        .max_header_size(limit)
        .max_buf_size(limit.max(8192))
        .serve_connection(io, service);
    let mut draining = false;
    let ended = poll_fn(|cx| {
        seat.attend(cx.waker());
        match seat.order() {
            Order::Close => return Poll::Ready(None),
            Order::Drain if !draining => {
                draining = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            Order::Drain | Order::Stay => {}
        }
        Pin::new(&mut connection).poll(cx).map(Some)
    })
    .await;
    // How a client's connection ends is its own affair: a request that failed has its access line.
    if let Some(outcome) = ended {
        let wire = connection.into_parts().io.into_inner();
        wire.end(outcome.err().as_ref(), app.gate.style()).await;
    }
}

/// A connection is busy until this is dropped; then the last of its answer is on its way.
struct Busy(Rc<Seat>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.enter(Stage::Flushing);
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

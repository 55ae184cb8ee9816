//! One connection: which protocol it speaks, and then that protocol, while the roster bounds how long each step may take.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::server::census::Ticket;
use crate::server::doors::Guest;
use crate::server::listener::Arrival;
use crate::server::room::{Room, Visit};
use crate::server::roster::{Seat, Stage};
use crate::server::stream::Stream;
use crate::server::{http1, http2};

/// What an HTTP/2 connection begins with (RFC 9113 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Room for the first read, in bytes.
const FIRST_READ: usize = 4 * 1024;

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

/// Serves a connection in a task of this worker.
pub fn spawn(arrival: Arrival, room: &Rc<Room>) {
    let room = Rc::clone(room);
    // Before the task runs for the first time: a worker that is about to end waits for those who are in the roster.
    let place = room.roster.enter();
    tokio::task::spawn_local(async move {
        // The box lives only as long as the door is being opened.
        match place.seat.attend_to(Box::pin(room.open(arrival))).await {
            Some(Ok(Guest { stream, source, ticket })) => {
                place.seat.set_holder(ticket.holder());
                serve(stream, Rc::new(Visit::new(&room, source)), &place.seat, ticket).await;
            }
            Some(Err(refused)) => room.turn_away(&refused),
            None => {}
        }
    });
}

async fn serve(mut stream: Stream, visit: Rc<Visit>, seat: &Rc<Seat>, ticket: Ticket) {
    let agreed = match stream.alpn() {
        Some(b"h2") => Some((Protocol::Http2, Bytes::new())),
        Some(_) => Some((Protocol::Http1, Bytes::new())),
        None => seat.attend_to(recognize(&mut stream, seat)).await.flatten(),
    };
    let Some((protocol, early)) = agreed else { return };
    match protocol {
        Protocol::Http1 => http1::serve(stream, early, &visit, seat).await,
        Protocol::Http2 => http2::serve((stream, early), &visit, seat, ticket).await,
    }
}

/// Reads until it is clear what the client speaks; what was read belongs to that. `None` when it says nothing.
async fn recognize(stream: &mut (impl AsyncRead + Unpin), seat: &Seat) -> Option<(Protocol, Bytes)> {
    let mut early = BytesMut::with_capacity(FIRST_READ);
    loop {
        if stream.read_buf(&mut early).await.ok()? == 0 {
            return None;
        }
        if seat.stage() == Stage::New {
            seat.enter(Stage::Head);
        }
        if early.starts_with(PREFACE) {
            return Some((Protocol::Http2, early.freeze()));
        }
        if !PREFACE.starts_with(&early) {
            return Some((Protocol::Http1, early.freeze()));
        }
    }
}

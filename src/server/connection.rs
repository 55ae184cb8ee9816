//! One connection: which protocol it speaks, and then that protocol, while the roster bounds how long each step may take.

use std::net::TcpStream as Socket;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;

use crate::server::room::{Room, Source, Visit};
use crate::server::roster::{Seat, Stage};
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
pub fn spawn(socket: Socket, room: &Rc<Room>) {
    let room = Rc::clone(room);
    tokio::task::spawn_local(async move {
        let place = room.roster.enter();
        if let Ok((stream, source)) = prepare(socket) {
            serve(stream, Rc::new(Visit::new(&room, source)), &place.seat).await;
        }
    });
}

fn prepare(socket: Socket) -> std::io::Result<(TcpStream, Source)> {
    let address = socket.peer_addr()?.ip();
    socket.set_nodelay(true)?;
    Ok((TcpStream::from_std(socket)?, Source { address, secure: false }))
}

async fn serve(mut stream: TcpStream, visit: Rc<Visit>, seat: &Rc<Seat>) {
    let Some(Some((protocol, early))) = seat.attend_to(recognize(&mut stream, seat)).await else { return };
    match protocol {
        Protocol::Http1 => http1::serve(stream, early, &visit, seat).await,
        Protocol::Http2 => http2::serve(stream, early, &visit, seat).await,
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

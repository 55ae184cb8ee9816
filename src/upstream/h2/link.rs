//! The HTTP/2 connections of one worker to one server: one, and more only while a server takes no further streams on it.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ::h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use ::h2::{Ping, PingPong, SendStream};
use bytes::Bytes;
use http::Request;
use tokio::sync::Mutex;

use crate::upstream::alarm::{Clock, Millis};
use crate::upstream::resolve::{Names, Place};
use crate::upstream::stream::{self, ConnectError, Door, NoH2, Stream};
use crate::upstream::wire::Broken;

/// What a server may send ahead, in bytes: of one response, and of all on a connection, so that a hundred clients who do
/// not read their answers do not stop the others.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 128 * 1024 * 1024;

/// The largest header section of a response, in bytes.
const HEAD: u32 = 128 * 1024;

/// While streams are open, a server is asked this often whether it is there, and has that long to say so.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_LIMIT: Duration = Duration::from_secs(10);

/// In milliseconds. Servers of gRPC hang up when they are asked more than a few times in five minutes while they have
/// nothing to say, as on a stream of rare events.
const PING_AGAIN: Millis = 310_000;

/// Streams on a connection at most, whatever the server takes: their windows fit into the connection's together.
const STREAMS: usize = 100;

/// Connections that a worker opens to one server at most. Further streams wait their turn on these, where the server
/// takes fewer than [`STREAMS`].
const MOST: usize = 64;

/// See the module.
#[derive(Default)]
pub struct Links {
    list: RefCell<Vec<Link>>,
    /// One connection is opened at a time: who waits may find room on it.
    opening: Mutex<()>,
    /// How many attempts have failed, and why the last one did.
    failures: RefCell<(u64, Option<ConnectError>)>,
}

struct Link {
    sender: SendRequest<Bytes>,
    state: Rc<State>,
    place: Option<Place>,
    names: Option<Rc<Names>>,
}

struct State {
    clock: Rc<Clock>,
    streams: Cell<usize>,
    /// It takes no further streams.
    closing: Cell<bool>,
    /// It has answered before, so that the server may be closing it just now.
    answered: Cell<bool>,
    /// When the last stream ended.
    since: Cell<Millis>,
    /// When the server last answered, or sent a part of an answer.
    heard: Cell<Millis>,
}

/// Room for one stream.
pub struct Berth {
    sender: SendRequest<Bytes>,
    state: Rc<State>,
    reused: bool,
}

impl Berth {
    fn new(sender: SendRequest<Bytes>, state: &Rc<State>) -> Self {
        state.streams.set(state.streams.get() + 1);
        Self { sender, state: Rc::clone(state), reused: state.answered.get() }
    }

    /// Whether others were answered on this connection before.
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// Notes that the server sent something for this stream.
    pub(super) fn note_answer(&self) {
        self.state.answered.set(true);
        self.state.heard.set(self.state.clock.now());
    }

    pub(super) fn clock(&self) -> &Rc<Clock> {
        &self.state.clock
    }

    /// Opens the stream; `end` says that no body follows.
    pub(super) fn open(
        &mut self,
        request: Request<()>,
        end: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), Broken> {
        self.sender.send_request(request, end).map_err(|error| {
            self.state.closing.set(true);
            Broken::Unsent(error)
        })
    }
}

impl Drop for Berth {
    fn drop(&mut self) {
        self.state.streams.set(self.state.streams.get().saturating_sub(1));
        self.state.since.set(self.state.clock.now());
    }
}

impl Link {
    /// Whether new streams may be opened: the server has neither closed it nor said that it will, and is still there.
    fn is_open(&mut self) -> bool {
        let moved = match (&self.names, &mut self.place) {
            (Some(names), Some(place)) => !names.has(place),
            _ => false,
        };
        if !moved && !self.state.closing.get() {
            let ready = self.sender.clone().poll_ready(&mut Context::from_waker(Waker::noop()));
            self.state.closing.set(!matches!(ready, Poll::Ready(Ok(()))));
        }
        !moved && !self.state.closing.get()
    }

    fn streams(&self) -> usize {
        self.state.streams.get()
    }

    fn has_room(&self) -> bool {
        self.streams() < self.sender.current_max_send_streams().min(STREAMS)
    }
}

impl Links {
    /// Room on a connection that is there, or on a new one.
    ///
    /// # Errors
    /// [`ConnectError`], for all who waited for the same attempt.
    pub async fn take(&self, door: Door<'_>, clock: &Rc<Clock>) -> Result<Berth, ConnectError> {
        if let Some(berth) = self.find() {
            return Ok(berth);
        }
        let before = self.failures.borrow().0;
        let _turn = self.opening.lock().await;
        if let Some(berth) = self.find() {
            return Ok(berth);
        }
        match &*self.failures.borrow() {
            (count, Some(error)) if *count > before => return Err(error.again()),
            _ => {}
        }
        if self.list.borrow().len() >= MOST {
            let source = io::Error::new(io::ErrorKind::ResourceBusy, "all connections are full");
            return Err(ConnectError::Failed { server: door.server.to_string(), source });
        }
        match open(door, clock).await {
            Ok(link) => {
                let berth = Berth::new(link.sender.clone(), &link.state);
                self.list.borrow_mut().push(link);
                Ok(berth)
            }
            Err(error) => {
                let mut last = self.failures.borrow_mut();
                *last = (last.0 + 1, Some(error.again()));
                Err(error)
            }
        }
    }

    fn find(&self) -> Option<Berth> {
        let mut list = self.list.borrow_mut();
        list.retain_mut(Link::is_open);
        let full = list.len() >= MOST;
        let link = match list.iter().find(|link| link.has_room()) {
            None if full => {
                let waiting = list.iter().filter(|link| link.streams() < STREAMS);
                waiting.min_by_key(|link| link.streams())?
            }
            link => link?,
        };
        Some(Berth::new(link.sender.clone(), &link.state))
    }

    /// Closes connections that had no stream since `oldest`, and forgets those that are closed.
    pub fn sweep(&self, oldest: Millis) {
        self.list.borrow_mut().retain_mut(|link| {
            let state = &link.state;
            let unused = state.streams.get() == 0 && state.since.get() < oldest;
            !unused && link.is_open()
        });
    }
}

async fn open(door: Door<'_>, clock: &Rc<Clock>) -> Result<Link, ConnectError> {
    match tokio::time::timeout(door.limit, shake_hands(door, clock)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(ConnectError::Slow { server: door.server.to_string(), limit: door.limit }),
    }
}

async fn shake_hands(door: Door<'_>, clock: &Rc<Clock>) -> Result<Link, ConnectError> {
    let (stream, place) = stream::open(door).await?;
    let no_h2 = |error: ::h2::Error| match error.is_io() {
        true => {
            let source = error.into_io().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into());
            ConnectError::Failed { server: door.server.to_string(), source }
        }
        false => ConnectError::NoH2 { server: door.server.to_string(), source: NoH2::Answer(error.to_string()) },
    };
    let (sender, mut connection) = Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEAD)
        .enable_push(false)
        .handshake::<_, Bytes>(stream)
        .await
        .map_err(no_h2)?;
    let mut pings = connection.ping_pong();
    if let Some(pings) = &mut pings {
        // The answer comes behind the server's settings: from here on it is known how many streams it takes.
        tokio::select! {
            biased;
            ended = &mut connection => {
                let closed = || ConnectError::NoH2 { server: door.server.to_string(), source: NoH2::Closed };
                return Err(ended.err().map_or_else(closed, no_h2));
            }
            pong = pings.ping(Ping::opaque()) => {
                pong.map_err(no_h2)?;
            }
        }
    }
    let state = Rc::new(State {
        clock: Rc::clone(clock),
        streams: Cell::new(0),
        closing: Cell::new(false),
        answered: Cell::new(false),
        since: Cell::new(clock.now()),
        heard: Cell::new(clock.now()),
    });
    tokio::task::spawn_local(drive(connection, pings, Rc::clone(&state)));
    Ok(Link { sender, state, place, names: door.names.cloned() })
}

/// Moves the bytes of a connection until it is closed, or the server gives no sign of life while streams are open.
async fn drive(connection: Connection<Stream, Bytes>, pings: Option<PingPong>, state: Rc<State>) {
    let mut connection = pin!(connection);
    let Some(mut pings) = pings else { return };
    let mut asked = state.clock.now();
    loop {
        tokio::select! {
            _ = &mut connection => break,
            () = tokio::time::sleep(PING_EVERY) => {}
        }
        let now = state.clock.now();
        if state.streams.get() > 0 && is_due(now, asked, state.heard.get()) {
            asked = now;
            let alive = tokio::select! {
                _ = &mut connection => false,
                pong = tokio::time::timeout(PING_LIMIT, pings.ping(Ping::opaque())) => matches!(pong, Ok(Ok(_))),
            };
            if !alive {
                break;
            }
        }
    }
    state.closing.set(true);
}

/// Whether to ask again, who was `asked` and last `heard` then.
fn is_due(now: Millis, asked: Millis, heard: Millis) -> bool {
    heard > asked || now >= asked.saturating_add(PING_AGAIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_with_nothing_to_say_is_asked_once_in_five_minutes() {
        assert!(is_due(50_000, 1, 20_000), "it spoke since");
        assert!(!is_due(70_000, 50_000, 20_000), "it has been asked already");
        assert!(!is_due(350_000, 50_000, 20_000) && is_due(360_000, 50_000, 20_000));
    }
}

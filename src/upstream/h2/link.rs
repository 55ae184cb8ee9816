//! One HTTP/2 connection to a server, and the streams on it.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ::h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use ::h2::{Ping, PingPong, RecvStream, SendStream};
use bytes::Bytes;
use http::Request;

use crate::model::Household;
use crate::upstream::alarm::{Clock, Millis};
use crate::upstream::h2::paced::Paced;
use crate::upstream::h2::parts::{SmallParts, StreamParts};
use crate::upstream::h2::reset::{LOOK, Resets};
use crate::upstream::h2::unread::{Body, Load};
use crate::upstream::resets::{Requester, YOUNG};
use crate::upstream::resolve::{Names, Place};
use crate::upstream::stream::{self, ConnectError, Door, NoH2, Stream, Tried};
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
pub const STREAMS: usize = 100;

/// Tells connections apart.
#[derive(Clone)]
pub struct LinkId(Rc<State>);

/// One connection.
pub struct Link {
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
    /// The server sent without end: the connection closes with its last stream, whatever still comes.
    flooded: Cell<bool>,
    /// It has answered before, so that the server may be closing it just now.
    answered: Cell<bool>,
    /// When the last stream ended.
    since: Cell<Millis>,
    /// When the server last answered, or sent a part of an answer.
    heard: Cell<Millis>,
    resets: Resets,
    parts: Rc<SmallParts>,
    load: Load,
    /// The client that had the first of its streams.
    owner: Cell<Option<Household>>,
}

/// Room for one stream.
pub struct Berth {
    sender: SendRequest<Bytes>,
    state: Rc<State>,
    reused: bool,
    requester: Requester,
    opened: Millis,
    parts: Rc<StreamParts>,
    /// Its body, on a shared connection.
    body: Cell<Option<Body>>,
}

impl Berth {
    /// On `link`, for this client.
    pub fn new(link: &Link, requester: &Requester, body: Option<Body>) -> Self {
        let state = &link.state;
        if state.streams.get() == 0 {
            state.owner.set(Some(requester.household()));
        }
        state.streams.set(state.streams.get() + 1);
        Self {
            sender: link.sender.clone(),
            state: Rc::clone(state),
            reused: state.answered.get(),
            requester: requester.clone(),
            opened: state.clock.now(),
            parts: Rc::new(StreamParts::new(&state.parts, requester.household(), &state.clock)),
            body: Cell::new(body),
        }
    }

    /// Which connection it is on.
    pub fn link(&self) -> LinkId {
        LinkId(Rc::clone(&self.state))
    }

    /// Whether others were answered on this connection before.
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// Notes that the server sent something for this stream.
    pub(super) fn note_answer(&self) {
        self.state.answered.set(true);
        self.parts.clear();
        self.state.heard.set(self.state.clock.now());
    }

    /// Notes that the server began its response.
    pub(super) fn note_head(&self) {
        self.note_answer();
        self.state.resets.note_answer(self.state.clock.now());
    }

    /// Gives an unanswered stream up, which is reset now or later.
    pub(super) fn leave(&self, response: ResponseFuture, stream: Option<SendStream<Bytes>>, by_client: bool) {
        self.note_reset(by_client);
        let stream = stream.map(|stream| (stream, Rc::clone(&self.parts), self.body.take()));
        if self.state.resets.leave(response, stream, (self.opened, self.state.clock.now())) {
            self.state.streams.set(self.state.streams.get() + 1);
        }
    }

    /// Notes that the stream is reset because the server sends on it without end: no further one is opened.
    pub(super) fn cut_off(&self) {
        self.note_reset(false);
        self.state.closing.set(true);
        self.state.flooded.set(true);
    }

    /// Notes that the stream is reset before its end.
    pub(super) fn note_reset(&self, by_client: bool) {
        let now = self.state.clock.now();
        if self.state.resets.note() {
            self.state.closing.set(true);
        }
        if by_client && now.saturating_sub(self.opened) < YOUNG {
            self.requester.note_reset(now);
        }
    }

    /// Notes that the response was passed on, and only the end of its stream is to come.
    pub(super) fn await_end(&self, stream: RecvStream) {
        self.note_complete();
        self.state.resets.await_end(stream, self.state.clock.now());
    }

    /// Notes that the response was passed on to its end.
    pub(super) fn note_complete(&self) {
        self.requester.note_complete(self.state.clock.now());
    }

    /// The small parts of its request body.
    pub(super) fn parts(&self) -> &Rc<StreamParts> {
        &self.parts
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
    pub fn is_open(&mut self) -> bool {
        let moved = match (&self.names, &mut self.place) {
            (Some(names), Some(place)) => !names.has(place),
            _ => false,
        };
        if self.state.parts.is_crowded() {
            self.state.closing.set(true);
        }
        if !moved && !self.state.closing.get() {
            let ready = self.sender.clone().poll_ready(&mut Context::from_waker(Waker::noop()));
            self.state.closing.set(!matches!(ready, Poll::Ready(Ok(()))));
        }
        !moved && !self.state.closing.get()
    }

    /// Streams on it.
    pub fn streams(&self) -> usize {
        self.state.streams.get()
    }

    /// Whether the server takes a further stream. One may always wait for that to change.
    pub fn has_room(&self) -> bool {
        self.streams() < self.sender.current_max_send_streams().clamp(1, STREAMS)
    }

    /// What it carries of request bodies.
    pub fn load(&self) -> &Load {
        &self.state.load
    }

    /// Whether no other client has begun to use it.
    pub fn is_for(&self, client: Household) -> bool {
        self.streams() == 0 || self.state.owner.get() == Some(client)
    }

    /// Whether it had no stream since `oldest`.
    pub fn is_unused(&self, oldest: Millis) -> bool {
        self.streams() == 0 && self.state.since.get() < oldest
    }

    /// Whether it is this one.
    pub fn is(&self, id: Option<&LinkId>) -> bool {
        id.is_some_and(|id| Rc::ptr_eq(&id.0, &self.state))
    }
}

/// Opens a connection.
///
/// # Errors
/// [`ConnectError`].
pub async fn open(door: Door<'_>, clock: &Rc<Clock>) -> Result<Link, ConnectError> {
    let mut timer = pin!(tokio::time::sleep(door.limit));
    let (stream, place) = stream::open(door, timer.as_mut()).await?;
    tokio::select! {
        biased;
        outcome = shake_hands((stream, place), door, clock) => outcome,
        () = timer => {
            Err(ConnectError::Slow { server: door.server.to_string(), limit: door.limit, tried: Tried::default() })
        }
    }
}

async fn shake_hands(
    (stream, place): (Stream, Option<Place>),
    door: Door<'_>,
    clock: &Rc<Clock>,
) -> Result<Link, ConnectError> {
    let no_h2 = |error: ::h2::Error| match error.is_io() {
        true => {
            let source = error.into_io().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into());
            ConnectError::Failed { server: door.server.to_string(), source, tried: Tried::default() }
        }
        false => ConnectError::NoH2 { server: door.server.to_string(), source: NoH2::Answer(error.to_string()) },
    };
    let (sender, mut connection) = Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEAD)
        .enable_push(false)
        // What arrives for a stream that was reset and is forgotten by now counts as an error of the server.
        .max_concurrent_reset_streams(2 * STREAMS)
        .handshake::<_, Bytes>(Paced::new(stream))
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
        flooded: Cell::new(false),
        answered: Cell::new(false),
        since: Cell::new(clock.now()),
        heard: Cell::new(clock.now()),
        resets: Resets::default(),
        parts: Rc::default(),
        load: Load::default(),
        owner: Cell::new(None),
    });
    tokio::task::spawn_local(drive(connection, pings, Rc::clone(&state)));
    Ok(Link { sender, state, place, names: door.names.cloned() })
}

/// Moves the bytes of a connection until it is closed, or the server gives no sign of life while streams are open.
async fn drive(mut connection: Connection<Paced<Stream>, Bytes>, pings: Option<PingPong>, state: Rc<State>) {
    let connection = poll_fn(|cx| {
        if state.flooded.get() && state.streams.get() == 0 {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut connection).poll(cx)
    });
    let mut connection = pin!(async {
        tokio::select! {
            _ = connection => {}
            () = release_held(&state) => {}
        }
    });
    let Some(mut pings) = pings else { return };
    let mut asked = state.clock.now();
    loop {
        tokio::select! {
            () = &mut connection => break,
            () = tokio::time::sleep(PING_EVERY) => {}
        }
        let now = state.clock.now();
        if state.streams.get() > 0 && is_due(now, asked, state.heard.get()) {
            asked = now;
            let alive = tokio::select! {
                () = &mut connection => false,
                pong = tokio::time::timeout(PING_LIMIT, pings.ping(Ping::opaque())) => matches!(pong, Ok(Ok(_))),
            };
            if !alive {
                break;
            }
        }
    }
    state.closing.set(true);
    state.resets.close();
}

/// Resets streams that could not be reset at once, when they may be. Never ready.
async fn release_held(state: &State) {
    loop {
        state.resets.wait_for_held().await;
        tokio::time::sleep(LOOK).await;
        let released = state.resets.release(state.clock.now());
        state.streams.set(state.streams.get().saturating_sub(released));
    }
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

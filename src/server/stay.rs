//! One exchange as the sweep sees it: whether its caller may stay, and how it is ended when not.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use crate::clock::UnixTime;
use crate::gate::{Lease, LeaseEnd};
use crate::message::{Body, Cause};
use crate::server::room::Standing;

/// How long a client may be waited for until its connection counts as slow, and the least that a body must bring
/// meanwhile, in bytes a second.
pub const SLOW: Duration = Duration::from_secs(1);
const SLOW_RATE: u64 = 256;

/// For how long of this a body may have brought more than it must.
const CREDIT: Duration = Duration::from_secs(10);

/// For how long a client may leave a part of its answer, until its connection counts as slow. The kernel's buffer takes more
/// only when a good part of it is free: a steady reader may seem to take nothing for seconds.
pub const UNREAD: Duration = Duration::from_secs(5);

/// See the module.
pub struct Stay {
    /// Filled by the gate.
    pub lease: Lease,
    standing: RefCell<Option<Standing>>,
    /// HTTP/2: the answer's body. Here, because a client that widens no window keeps it from being asked for, and it is to
    /// end nevertheless.
    body: RefCell<Body>,
    begun: Instant,
    /// Nobody knows how long the request's body is.
    asks_endlessly: Cell<bool>,
    /// The answer has begun; whether anybody knows how long that is.
    answers: Cell<Option<Length>>,
    over: Cell<Option<LeaseEnd>>,
    looks: Cell<u32>,
    handed: Cell<Option<Instant>>,
    /// Since when the client is waited for, and how much had come then.
    awaited: Cell<Option<(Instant, u64)>>,
    waker: RefCell<Option<Waker>>,
}

/// Of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// It was told.
    Known,
    /// It ends when it ends; so does a tunnel.
    Endless,
}

impl Length {
    /// Of a body.
    pub fn of(body: &Body) -> Self {
        if body.size_hint().exact().is_some() { Self::Known } else { Self::Endless }
    }
}

impl Stay {
    /// Nothing is under way at `now`.
    pub fn new(now: Instant) -> Rc<Self> {
        Rc::new(Self {
            lease: Lease::default(),
            standing: RefCell::default(),
            body: RefCell::default(),
            begun: now,
            asks_endlessly: Cell::new(false),
            answers: Cell::new(None),
            over: Cell::new(None),
            looks: Cell::new(0),
            handed: Cell::new(None),
            awaited: Cell::new(None),
            waker: RefCell::default(),
        })
    }

    /// When it was made.
    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// A request came in, `endless` when its body has no known length.
    pub fn begin(&self, standing: &Standing, endless: bool) {
        self.lease.clear();
        self.answers.set(None);
        self.awaited.set(None);
        self.asks_endlessly.set(endless);
        *self.standing.borrow_mut() = Some(standing.clone());
    }

    /// The answer begins.
    pub fn answer(&self, length: Length) {
        self.answers.set(Some(length));
    }

    /// HTTP/2: the answer's body is kept here.
    pub fn hold(&self, body: Body) {
        *self.body.borrow_mut() = body;
    }

    /// The answer was 101: the connection is a tunnel from now on, by the same lease.
    pub fn go_on(&self, standing: Standing) {
        self.answers.set(Some(Length::Endless));
        *self.standing.borrow_mut() = Some(standing);
    }

    /// The exchange is over.
    pub fn end(&self) {
        self.standing.borrow_mut().take();
    }

    /// HTTP/2: the next part of the body that is [held](Self::hold).
    pub fn poll_body(&self, cx: &mut Context<'_>, now: Instant) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        self.handed.set(None);
        let part = Pin::new(&mut *self.body.borrow_mut()).poll_frame(cx);
        if let Poll::Ready(Some(Ok(_))) = part {
            self.handed.set(Some(now));
        }
        part
    }

    /// HTTP/2: whether the held body is over. One that was broken off must not look whole.
    pub fn is_body_over(&self) -> bool {
        self.over.get().is_none() && self.body.borrow().is_end_stream()
    }

    /// HTTP/2: the size of the held body.
    pub fn body_size(&self) -> SizeHint {
        self.body.borrow().size_hint()
    }

    /// HTTP/2: whether the client has left for `limit` what it was given. The upstream need not wait for it then.
    pub fn look_whether_it_lies(&self, now: Instant, limit: Duration) -> bool {
        let lies = self.handed.get().is_some_and(|since| now.duration_since(since) > limit);
        if lies && self.over.get().is_none() {
            self.abort(LeaseEnd::Left);
        }
        lies
    }

    /// Whether the client has been waited for too long: for the request's body, or to take a part of the answer. To be called
    /// again and again: of a body it is known from the second time on.
    pub fn starves(&self, now: Instant) -> bool {
        self.handed.get().is_some_and(|since| now.duration_since(since) > UNREAD) || self.awaits_body(now)
    }

    /// The same, of the request's body alone.
    pub fn awaits_body(&self, now: Instant) -> bool {
        let body = self.lease.body();
        if !body.is_waiting() || self.answers.get().is_some() {
            self.awaited.set(None);
            return false;
        }
        let Some((since, bytes)) = self.awaited.get() else {
            self.awaited.set(Some((now, body.bytes())));
            return false;
        };
        let gained = body.bytes() - bytes;
        if gained > 0 {
            // Each byte pays for a part of a second.
            let paid = since + Duration::from_millis((gained * 1000 / SLOW_RATE).min(20_000));
            self.awaited.set(Some((paid.min(now + CREDIT), body.bytes())));
        }
        self.awaited.get().is_some_and(|(since, _)| now.saturating_duration_since(since) > SLOW)
    }

    /// Ends it, for others that wait for a connection to an upstream.
    pub fn give_way(&self) {
        self.abort(LeaseEnd::Left);
    }

    /// Looks that have gone by since it was to end, for a caller who may not stay.
    pub fn looks_since_its_end(&self) -> u32 {
        self.looks.get()
    }

    /// Why it must end, once it must. `waker` hears of it.
    pub fn over(&self, waker: &Waker) -> Option<LeaseEnd> {
        let mut own = self.waker.borrow_mut();
        if !own.as_ref().is_some_and(|own| own.will_wake(waker)) {
            *own = Some(waker.clone());
        }
        self.over.get()
    }

    /// Looks whether the caller may stay. One who asked, and waits, gets the answer that he was let in for.
    pub fn look(&self, now: UnixTime) {
        if matches!(self.over.get(), Some(LeaseEnd::Revoked | LeaseEnd::Expired)) {
            self.looks.set(self.looks.get() + 1);
            return;
        }
        let (asks, answers) = (self.lease.body().is_active(), self.answers.get());
        if !asks && answers.is_none() {
            return;
        }
        let endless = answers == Some(Length::Endless) || (asks && self.asks_endlessly.get());
        let standing = self.standing.borrow();
        let end = standing.as_ref().and_then(|standing| standing.gate().end_of(&self.lease, endless, now));
        if let Some(end) = end {
            self.abort(end);
        }
    }

    /// Ends it: what the upstream has to do with it at once, the rest when its task runs.
    fn abort(&self, end: LeaseEnd) {
        tracing::debug!(?end, "an answer under way is ended");
        self.over.set(Some(end));
        drop(self.body.take());
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

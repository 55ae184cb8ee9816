//! The connections of one worker: what each is doing and since when, so that one sweep finds the overdue, without a timer
//! for each.

mod yielding;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crate::clock;
use crate::config::ServerTimeouts;
use crate::server::frames::{self, Frames};
use crate::server::stay::Stay;

/// How long a draining worker leaves connections open that are asking for nothing: a request may be on its way.
const FAREWELL: Duration = Duration::from_millis(1500);

/// Ticks between two looks at what the answers under way hang on: well within the second that the contract gives.
const LOOK: u32 = 4;

/// Frames that bring nothing (PING, SETTINGS, PRIORITY, RST_STREAM …) that a client may send between two sweeps.
const CHATTER: u32 = 1000 * frames::ASKING;

/// Streams that a client may reset within a second of opening them, when it resets most: beyond that each is an upstream's
/// work for nothing (CVE-2023-44487).
const PREMATURE: u32 = 200;
const YOUNG: Duration = Duration::from_secs(1);

/// Looks at which the client may leave an ended stream open, by not widening its window, until the connection is closed.
const LAST_LOOKS: u32 = 2;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Opened, and silent so far.
    New,
    /// A header section has begun to arrive.
    Head,
    /// A request is being answered.
    Busy,
    /// The answer is made, and not yet written out.
    Flushing,
    /// Between two requests.
    Idle,
    /// No more HTTP: bytes both ways.
    Tunnel,
}

/// What a connection is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Go on.
    Stay,
    /// End after the request in flight.
    Drain,
    /// End now.
    Close,
}

/// One connection's entry.
pub struct Seat {
    stage: Cell<Stage>,
    since: Cell<Instant>,
    order: Cell<Order>,
    /// Since when the client has taken none of what is to be written.
    stalled: Cell<Option<Instant>>,
    /// The answer left a part of the request unread.
    unread: Cell<bool>,
    /// HTTP/2: since when a frame or a header block has been arriving that is not whole yet.
    partial: Cell<Option<Instant>>,
    /// HTTP/2: streams so far, and those that the client reset soon.
    streams: Cell<(u32, u32)>,
    /// HTTP/2: frames since the last sweep that only ask for work.
    chatter: Cell<u32>,
    /// What the answers under way hang on.
    stays: RefCell<Vec<Rc<Stay>>>,
    waker: RefCell<Option<Waker>>,
    /// The client whose share it is of; `None` where it holds for many, or has no place yet.
    holder: Cell<Option<IpAddr>>,
    /// The roster's clock: the time of the last sweep, exact enough for bounds of seconds, and free.
    tick: Rc<Cell<Instant>>,
}

impl Seat {
    /// Notes what the connection does from now on.
    pub fn enter(&self, stage: Stage) {
        self.stage.set(stage);
        self.since.set(self.tick.get());
    }

    /// What the connection is doing.
    pub fn stage(&self) -> Stage {
        self.stage.get()
    }

    /// Notes whether the client took something of what is to be written.
    pub fn note_write(&self, taken: bool) {
        if taken {
            self.stalled.set(None);
        } else if self.stalled.get().is_none() {
            self.stalled.set(Some(self.tick.get()));
        }
    }

    /// Notes whether the request has a body, a part of which may be unread when the answer is out.
    pub fn note_body(&self, body: bool) {
        self.unread.set(body);
    }

    /// Whether a part of the last request may be unread.
    pub fn is_unread(&self) -> bool {
        self.unread.get()
    }

    /// HTTP/2: notes what the last bytes left unfinished, and how many frames only ask for work.
    pub fn note_frames(&self, frames: &mut Frames) {
        // The first request, or silence, follows the preface.
        if matches!(self.stage.get(), Stage::New | Stage::Head) && !frames.is_partial() {
            self.enter(Stage::Idle);
        }
        let moved_on = frames.has_moved_on();
        match (frames.is_partial(), self.partial.get()) {
            (true, Some(_)) if !moved_on => {}
            (partial, _) => self.partial.set(partial.then(|| self.tick.get())),
        }
        let chatter = self.chatter.get() + frames.take_chatter();
        self.chatter.set(chatter);
        if chatter > CHATTER {
            tracing::debug!("an HTTP/2 client floods: its connection is closed");
            self.close();
        }
    }

    /// An answer begins.
    pub fn add_stay(&self, stay: &Rc<Stay>) {
        self.stays.borrow_mut().push(Rc::clone(stay));
    }

    /// HTTP/2: a stream is over, `whole` or not; `true` when it was the last.
    pub fn remove_stay(&self, stay: &Rc<Stay>, whole: bool) -> bool {
        let (all, mut reset) = self.streams.get();
        reset += u32::from(!whole && self.tick.get().duration_since(stay.begun()) < YOUNG);
        self.streams.set((all + 1, reset));
        if reset > PREMATURE && reset > all / 2 {
            tracing::debug!("an HTTP/2 client resets most of its streams at once: its connection is closed");
            self.close();
        }
        let mut stays = self.stays.borrow_mut();
        stays.retain(|other| !Rc::ptr_eq(other, stay));
        stays.is_empty()
    }

    /// The time of the last sweep.
    pub fn now(&self) -> Instant {
        self.tick.get()
    }

    /// Whether nothing is asked for, and nothing told yet.
    fn is_idle(&self) -> bool {
        matches!(self.stage(), Stage::New | Stage::Idle) && self.order() != Order::Close
    }

    /// Notes that it has a place, of this client's share.
    pub fn set_holder(&self, holder: Option<IpAddr>) {
        // It may have waited for its place.
        self.since.set(self.tick.get());
        self.holder.set(holder);
    }

    /// Closes the connection now.
    pub fn close(&self) {
        self.command(Order::Close);
    }

    /// Runs `work` to its end, or until the connection is to close.
    pub async fn attend_to<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        poll_fn(|cx| {
            self.follow(cx.waker());
            if self.order() == Order::Close {
                return Poll::Ready(None);
            }
            work.as_mut().poll(cx).map(Some)
        })
        .await
    }

    /// What the connection is to do. Its task is woken when that changes.
    pub fn order(&self) -> Order {
        self.order.get()
    }

    /// Remembers the task, which stays the same for the life of the connection.
    pub fn follow(&self, waker: &Waker) {
        let mut own = self.waker.borrow_mut();
        if own.is_none() {
            *own = Some(waker.clone());
        }
    }

    fn command(&self, order: Order) {
        if self.order.get() != Order::Close && self.order.get() != order {
            self.order.set(order);
            if let Some(waker) = &*self.waker.borrow() {
                waker.wake_by_ref();
            }
        }
    }
}

/// A connection's stay in the roster.
pub struct Place {
    roster: Rc<Roster>,
    number: u64,
    /// Its entry.
    pub seat: Rc<Seat>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.roster.seats.borrow_mut().remove(&self.number);
    }
}

/// See the module.
pub struct Roster {
    seats: RefCell<BTreeMap<u64, Rc<Seat>>>,
    next: Cell<u64>,
    draining: Cell<bool>,
    tick: Rc<Cell<Instant>>,
    ticks: Cell<u32>,
    timeouts: Cell<ServerTimeouts>,
}

impl Roster {
    /// An empty one.
    pub fn new(timeouts: ServerTimeouts) -> Self {
        Self {
            seats: RefCell::default(),
            next: Cell::new(0),
            draining: Cell::new(false),
            tick: Rc::new(Cell::new(clock::monotonic())),
            ticks: Cell::new(0),
            timeouts: Cell::new(timeouts),
        }
    }

    /// Other bounds from now on.
    pub fn set_timeouts(&self, timeouts: ServerTimeouts) {
        self.timeouts.set(timeouts);
    }

    /// Enters a connection. It is taken out again when the [`Place`] is dropped, however its task ends.
    pub fn enter(self: &Rc<Self>) -> Place {
        let number = self.next.get();
        self.next.set(number + 1);
        let order = if self.draining.get() { Order::Drain } else { Order::Stay };
        let seat = Rc::new(Seat {
            stage: Cell::new(Stage::New),
            since: Cell::new(self.tick.get()),
            order: Cell::new(order),
            stalled: Cell::new(None),
            unread: Cell::new(false),
            partial: Cell::new(None),
            streams: Cell::new((0, 0)),
            chatter: Cell::new(0),
            stays: RefCell::default(),
            waker: RefCell::new(None),
            holder: Cell::new(None),
            tick: Rc::clone(&self.tick),
        });
        self.seats.borrow_mut().insert(number, Rc::clone(&seat));
        Place { roster: Rc::clone(self), number, seat }
    }

    /// Whether no connection is left.
    pub fn is_empty(&self) -> bool {
        self.seats.borrow().is_empty()
    }

    /// Whether [`drain`](Self::drain) was called.
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Tells every connection, and those to come, to end after the request in flight.
    pub fn drain(&self) {
        if !self.draining.replace(true) {
            let now = clock::monotonic();
            self.tick.set(now);
            for seat in self.seats.borrow().values() {
                if matches!(seat.stage(), Stage::New | Stage::Idle) {
                    seat.since.set(now);
                }
                seat.command(Order::Drain);
            }
        }
    }

    /// Closes what has been in its stage for too long, and ends answers whose tokens have ended.
    pub fn sweep(&self) {
        let now = clock::monotonic();
        self.tick.set(now);
        let ticks = self.ticks.get().wrapping_add(1);
        self.ticks.set(ticks);
        if ticks.is_multiple_of(LOOK) {
            self.look_at_stays();
        }
        let timeouts = self.timeouts.get();
        for seat in self.seats.borrow().values() {
            seat.chatter.set(0);
            let limit = match seat.stage() {
                Stage::New | Stage::Idle if self.draining.get() => FAREWELL,
                Stage::New | Stage::Head => timeouts.header,
                Stage::Idle => timeouts.idle,
                Stage::Busy | Stage::Flushing | Stage::Tunnel => Duration::MAX,
            };
            let over = |since: Option<Instant>, limit| since.is_some_and(|since| now.duration_since(since) > limit);
            let stalled = over(seat.stalled.get(), timeouts.idle) || over(seat.partial.get(), timeouts.header);
            let age = now.duration_since(seat.since.get());
            if stalled || age > limit {
                seat.command(Order::Close);
            }
        }
    }

    fn look_at_stays(&self) {
        let (now, tick, idle) = (clock::now(), self.tick.get(), self.timeouts.get().idle);
        for seat in self.seats.borrow().values() {
            let stays = seat.stays.borrow();
            let mut lying = 0;
            for stay in &*stays {
                stay.look(now);
                lying += usize::from(stay.look_whether_it_lies(tick, idle));
                if stay.looks_since_its_end() > LAST_LOOKS {
                    seat.close();
                }
            }
            if lying > 0 && lying == stays.len() {
                seat.close();
            }
        }
    }
}

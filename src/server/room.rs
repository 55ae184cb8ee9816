//! What the connections of one worker share, and what each brings to the gate.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::app::{App, Edition};
use crate::config::Config;
use crate::gate::{self, Gate, Peer, Source};
use crate::server::doors::{self, Doors, Guest};
use crate::server::listener::Arrival;
use crate::server::roster::Roster;
use crate::telemetry::access;

/// One edition of the configuration, as one worker uses it.
pub struct Shift {
    edition: Arc<Edition>,
    own: gate::Worker,
}

/// One worker's state.
pub struct Room {
    /// The process.
    pub app: Arc<App>,
    /// Its connections.
    pub roster: Rc<Roster>,
    doors: Arc<Doors>,
    /// Its number among the workers.
    index: usize,
    access: Rc<access::Buffer>,
    shift: RefCell<Rc<Shift>>,
    /// Editions that exchanges are still under way on.
    past: RefCell<Vec<Rc<Shift>>>,
    /// Shortages of descriptors that were seen to.
    shortages: Cell<u64>,
}

impl Room {
    /// An empty room, on the present edition; to be built on the worker's thread.
    pub fn new(app: Arc<App>, doors: Arc<Doors>, index: usize) -> Self {
        let (edition, access) = (app.edition(), app.access_buffer());
        let roster = Rc::new(Roster::new(edition.config.server.timeouts));
        let own = edition.worker(&access, None);
        let shift = RefCell::new(Rc::new(Shift { edition, own }));
        Self { app, roster, doors, index, access, shift, past: RefCell::default(), shortages: Cell::new(0) }
    }

    /// Lets a connection in.
    ///
    /// # Errors
    /// It is to be closed.
    pub async fn open(&self, arrival: Arrival) -> Result<Guest, doors::Refused> {
        let shift = self.shift();
        self.doors.open(arrival, &shift.edition.config.server.trusted_proxies).await
    }

    /// Counts one that was not let in.
    pub fn turn_away(&self, refused: &doors::Refused) {
        self.doors.turn_away(refused, self.app.counters());
    }

    /// Takes `edition` for all requests to come.
    pub fn change(&self, edition: Arc<Edition>) {
        self.roster.set_timeouts(edition.config.server.timeouts);
        let own = edition.worker(&self.access, Some(&self.shift.borrow().own));
        let past = self.shift.replace(Rc::new(Shift { edition, own }));
        self.past.borrow_mut().push(past);
    }

    /// Closes connections for those that wait for a place.
    fn make_room(&self) {
        let census = &self.doors.census;
        if census.demand() == 0 {
            return;
        }
        let yielding = self.roster.yielding(|address| census.share(address));
        let count = census.settle(self.index, yielding.iter().map(|(share, _)| *share));
        for (_, seat) in yielding.iter().take(count) {
            seat.close();
        }
    }

    /// Ends slow uploads for requests that wait for a connection to an upstream, and closes idle ones when descriptors are
    /// short.
    fn free_upstream_connections(&self) {
        if self.shift.borrow().edition.gate.upstreams().is_wanted() {
            let (own, any) = self.shift.borrow().edition.gate.upstreams().waiting();
            // Each worker ends its part.
            let workers = self.shift.borrow().edition.config.server.workers.get();
            let own = own.into_iter().map(|waiting| waiting.div_ceil(workers)).collect();
            self.roster.end_slow_uploads(own, any.div_ceil(workers));
        }
        let shortages = self.doors.shortages.load(Ordering::Relaxed);
        if self.shortages.replace(shortages) != shortages {
            self.shift.borrow().own.pools.release_idle();
        }
    }

    /// The present edition.
    pub fn shift(&self) -> Rc<Shift> {
        Rc::clone(&self.shift.borrow())
    }

    /// To be called every 100 ms or so: whatever is bounded by time.
    pub fn tick(&self) {
        self.roster.sweep();
        self.make_room();
        self.free_upstream_connections();
        self.access.flush();
        self.shift.borrow().own.pools.tick();
        // Their pools go by the same clock.
        self.past.borrow_mut().retain(|shift| Rc::strong_count(shift) > 1);
    }
}

/// A request's place: the edition of its moment, and the connection as that sees it.
#[derive(Clone)]
pub struct Standing {
    shift: Rc<Shift>,
    peer: Rc<Peer>,
}

impl Standing {
    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.shift.edition.config
    }

    /// Who judges.
    pub fn gate(&self) -> &Gate {
        &self.shift.edition.gate
    }

    /// What the worker judges with.
    pub fn own(&self) -> &gate::Worker {
        &self.shift.own
    }

    /// The other end, as this edition sees it.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

/// A connection in a room: each of its requests is judged by the edition of its moment. Between two it holds none, so that
/// a silent connection keeps no edition alive.
pub struct Visit {
    room: Rc<Room>,
    source: Source,
    /// What was known at the last request, and of which edition.
    peer: RefCell<(Weak<Shift>, Rc<Peer>)>,
}

impl Visit {
    /// A new connection.
    pub fn new(room: &Rc<Room>, source: Source) -> Self {
        let shift = room.shift();
        let peer = Rc::new(Peer::new(source, &shift.edition.gate));
        Self { room: Rc::clone(room), source, peer: RefCell::new((Rc::downgrade(&shift), peer)) }
    }

    /// Where its next request stands.
    pub fn standing(&self) -> Standing {
        let shift = self.room.shift();
        let mut peer = self.peer.borrow_mut();
        // A Weak keeps the address from being used again.
        if !std::ptr::eq(peer.0.as_ptr(), Rc::as_ptr(&shift)) {
            *peer = (Rc::downgrade(&shift), Rc::new(Peer::new(self.source, &shift.edition.gate)));
        }
        Standing { peer: Rc::clone(&peer.1), shift }
    }
}

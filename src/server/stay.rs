//! One exchange as the sweep sees it: whether its caller may stay, and how it is ended when not.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;

use crate::clock::UnixTime;
use crate::gate::{Lease, LeaseEnd};
use crate::server::room::Standing;

/// How far an exchange has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Asked whole: it gets the answer that it was let in for.
    Asking,
    /// Of this request the body is still arriving, or of the answer, which has a known length.
    Moving,
    /// An answer without an end that is known, or a tunnel.
    Endless,
}

/// See the module.
pub struct Stay {
    /// Filled by the gate.
    pub lease: Lease,
    standing: RefCell<Option<Rc<Standing>>>,
    phase: Cell<Phase>,
    over: Cell<Option<LeaseEnd>>,
    handed: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Stay {
    /// Nothing is under way.
    pub fn new() -> Rc<Self> {
        Rc::new(Self {
            lease: Lease::default(),
            standing: RefCell::default(),
            phase: Cell::new(Phase::Asking),
            over: Cell::new(None),
            handed: Cell::new(false),
            waker: RefCell::default(),
        })
    }

    /// A request came in; `moving` tells that its body has not.
    pub fn begin(&self, standing: &Rc<Standing>, moving: bool) {
        self.lease.clear();
        self.phase.set(if moving { Phase::Moving } else { Phase::Asking });
        *self.standing.borrow_mut() = Some(Rc::clone(standing));
    }

    /// The answer begins; `endless` tells that nobody knows how long it is.
    pub fn answer(&self, endless: bool) {
        self.phase.set(if endless { Phase::Endless } else { Phase::Moving });
    }

    /// The answer was 101: the connection is a tunnel from now on, by the same lease.
    pub fn go_on(&self, standing: &Rc<Standing>) {
        self.phase.set(Phase::Endless);
        *self.standing.borrow_mut() = Some(Rc::clone(standing));
    }

    /// The exchange is over.
    pub fn end(&self) {
        self.standing.borrow_mut().take();
    }

    /// HTTP/2: notes whether the client has been given something that it has not asked beyond since.
    pub fn hand_over(&self, handed: bool) {
        self.handed.set(handed);
    }

    /// Whether the client leaves the answer lying: to be asked about with some time in between.
    pub fn lies(&self) -> bool {
        self.handed.get()
    }

    /// Why it must end, once it must. `waker` hears of it.
    pub fn over(&self, waker: &Waker) -> Option<LeaseEnd> {
        let mut own = self.waker.borrow_mut();
        if !own.as_ref().is_some_and(|own| own.will_wake(waker)) {
            *own = Some(waker.clone());
        }
        self.over.get()
    }

    /// Looks whether the caller may stay.
    pub fn look(&self, now: UnixTime) {
        let phase = self.phase.get();
        let standing = self.standing.borrow();
        let Some(standing) = standing.as_ref().filter(|_| phase != Phase::Asking) else { return };
        if let Some(end) = standing.gate().end_of(&self.lease, phase == Phase::Endless, now) {
            tracing::debug!(?end, "an answer under way is ended with its token");
            self.over.set(Some(end));
            if let Some(waker) = &*self.waker.borrow() {
                waker.wake_by_ref();
            }
        }
    }
}

//! The HTTP/2 connections of one worker to one server: one, and more only while a server takes no further streams on it.
//! Clients that reset their streams early have others.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use tokio::sync::Notify;

use crate::upstream::alarm::{Clock, Millis};
use crate::upstream::h2::link::{self, Berth, Link, LinkId, STREAMS};
use crate::upstream::h2::unread::{Body, Unread};
use crate::upstream::resets::Requester;
use crate::upstream::stream::{ConnectError, Door, Tried};

/// Connections that a worker opens to one server at most. Further streams wait their turn on these, where the server
/// takes fewer than [`STREAMS`].
const MOST: usize = 64;

/// Groups of connections for clients that reset streams early, and connections of each at most. A client always has the
/// same group.
const HASTY: usize = 4;
const MOST_HASTY: usize = 4;

/// Connections at most for long request bodies and those of unknown length. Each client has its own while there are
/// enough.
const MOST_LONG: usize = 16;

/// See the module.
#[derive(Default)]
pub struct Links {
    ordinary: Rc<Group>,
    hasty: [Rc<Group>; HASTY],
    long: Rc<Group>,
    unread: Rc<Unread>,
}

/// Whose stream is to be opened, and where it must not be.
#[derive(Clone, Copy)]
pub struct Demand<'a> {
    /// The client.
    pub requester: &'a Requester,
    /// Whether the client resets streams early.
    pub hasty: bool,
    /// The length of the request's body, in bytes; the largest number when it is not known.
    pub body: u64,
    /// The connection on which the request came to nothing.
    pub avoid: Option<&'a LinkId>,
}

/// Which streams share a connection.
#[derive(Clone, Copy)]
enum Share<'a> {
    /// Whatever comes.
    All,
    /// Those whose bodies the server's window has room for.
    Short(&'a Rc<Unread>),
    /// Those of one client, while there are enough connections.
    None,
}

/// Whose stream, what it may share, and how many connections there may be.
type Place<'a> = (Demand<'a>, Share<'a>, usize);

#[derive(Default)]
struct Group {
    list: RefCell<Vec<Link>>,
    /// One connection is opened at a time: who waits may find room on it.
    opening: Cell<bool>,
    opened: Notify,
    /// How many attempts have failed, and why the last one did.
    failures: RefCell<(u64, Option<ConnectError>)>,
}

impl Links {
    /// Room on a connection that is there, or on a new one.
    ///
    /// # Errors
    /// [`ConnectError`], for all who waited for the same attempt.
    pub async fn take(&self, door: Door<'_>, clock: &Rc<Clock>, demand: Demand<'_>) -> Result<Berth, ConnectError> {
        let hasty = demand.hasty.then(|| self.hasty.get(demand.requester.place(HASTY))).flatten();
        if let Some(group) = hasty {
            return group.take(door, clock, (demand, Share::All, MOST_HASTY)).await;
        }
        if !self.unread.may_share(demand.requester.household(), demand.body) {
            return self.long.take(door, clock, (demand, Share::None, MOST_LONG)).await;
        }
        self.ordinary.take(door, clock, (demand, Share::Short(&self.unread), MOST)).await
    }

    /// Closes connections that had no stream since `oldest`, and forgets those that are closed.
    pub fn sweep(&self, oldest: Millis) {
        for group in self.hasty.iter().chain([&self.ordinary, &self.long]) {
            group.list.borrow_mut().retain_mut(|link| !link.is_unused(oldest) && link.is_open());
        }
    }
}

impl Group {
    async fn take(self: &Rc<Self>, door: Door<'_>, clock: &Rc<Clock>, place: Place<'_>) -> Result<Berth, ConnectError> {
        let before = self.failures.borrow().0;
        let failed = |kind, text: &str| {
            let (server, source) = (door.server.to_string(), io::Error::new(kind, text));
            Err(ConnectError::Failed { server, source, tried: Tried::default() })
        };
        // Others may take the room on each of the connections that this one waits for.
        for round in 0..=MOST {
            if let Some(berth) = self.find(place) {
                return Ok(berth);
            }
            match &*self.failures.borrow() {
                (count, Some(error)) if *count > before => return Err(error.again()),
                _ => {}
            }
            let count = self.list.borrow().len();
            if count == 0 && round > 0 {
                return failed(io::ErrorKind::ConnectionAborted, "the server closes new connections");
            }
            if count >= place.2 {
                break;
            }
            let opened = self.opened.notified();
            self.open(door, clock);
            opened.await;
        }
        failed(io::ErrorKind::ResourceBusy, "all connections are full")
    }

    /// Opens a connection in a task of its own: when the request that needs it is given up, the next one need not begin
    /// anew.
    fn open(self: &Rc<Self>, door: Door<'_>, clock: &Rc<Clock>) {
        if self.opening.replace(true) {
            return;
        }
        let (server, names, tls, limit) = (door.server.clone(), door.names.cloned(), door.tls.cloned(), door.limit);
        let limited = door.limited.cloned();
        let (group, clock) = (Rc::clone(self), Rc::clone(clock));
        tokio::task::spawn_local(async move {
            let (names, tls, limited) = (names.as_ref(), tls.as_ref(), limited.as_ref());
            let door = Door { server: &server, names, tls, limit, limited, client: None };
            match link::open(door, &clock).await {
                Ok(link) => group.list.borrow_mut().push(link),
                Err(error) => {
                    let mut last = group.failures.borrow_mut();
                    *last = (last.0 + 1, Some(error));
                }
            }
            group.opening.set(false);
            group.opened.notify_waiters();
        });
    }

    fn find(&self, (demand, share, most): Place<'_>) -> Option<Berth> {
        let mut list = self.list.borrow_mut();
        list.retain_mut(Link::is_open);
        let (full, client) = (list.len() >= most, demand.requester.household());
        let others = || list.iter().filter(|link| !link.is(demand.avoid));
        let takes = |link: &&Link| match share {
            Share::All => link.has_room(),
            Share::Short(_) => link.has_room() && link.load().takes(demand.body),
            Share::None => link.has_room() && link.is_for(client),
        };
        let link = match others().find(takes) {
            None if full => others().filter(|link| link.streams() < STREAMS).min_by_key(|link| link.streams())?,
            link => link?,
        };
        let body = match share {
            Share::Short(unread) => Body::new(demand.body, client, unread, link.load()),
            Share::All | Share::None => None,
        };
        Some(Berth::new(link, demand.requester, body))
    }
}

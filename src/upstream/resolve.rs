//! Names of servers, to addresses: looked up when the first connection is opened, again every ten seconds for as long as
//! the name is in use, and at once when no known address can be reached.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use tokio::sync::Notify;

use crate::upstream::alarm::{Clock, Millis};

/// How long addresses are taken for good, in milliseconds.
const FRESH: Millis = 10_000;

/// The shortest time between two look-ups, in milliseconds, when no known address can be reached.
const AGAIN: Millis = 1_000;

/// How long a failed look-up speaks for those who ask next, in milliseconds.
const FAILED: Millis = 1_000;

/// The addresses of one server, as one worker knows them.
pub struct Names {
    host: String,
    port: u16,
    /// The host is an address: nothing is ever looked up.
    literal: bool,
    clock: Rc<Clock>,
    known: RefCell<Rc<[SocketAddr]>>,
    /// Grows when the addresses change.
    version: Cell<u32>,
    asked: Cell<Millis>,
    used: Cell<bool>,
    turn: Cell<usize>,
    failed: RefCell<Option<(Millis, io::ErrorKind, String)>>,
    /// One look-up at a time.
    asking: Cell<bool>,
    answered: Notify,
}

/// The address that a connection goes to, and when that was last found to be the server's.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    peer: SocketAddr,
    version: u32,
}

impl Names {
    /// For `host`, a name or an address literal without brackets.
    pub fn new(host: &str, port: u16, clock: Rc<Clock>) -> Self {
        let address: Option<IpAddr> = host.parse().ok();
        let known: Vec<SocketAddr> = address.map(|address| SocketAddr::new(address, port)).into_iter().collect();
        Self {
            host: host.into(),
            port,
            literal: address.is_some(),
            clock,
            known: RefCell::new(known.into()),
            version: Cell::new(0),
            asked: Cell::new(0),
            used: Cell::new(false),
            turn: Cell::new(0),
            failed: RefCell::new(None),
            asking: Cell::new(false),
            answered: Notify::new(),
        }
    }

    /// All addresses, each call beginning with another one. Waits only when none is known.
    ///
    /// # Errors
    /// The look-up's.
    pub async fn addresses(self: &Rc<Self>) -> io::Result<Vec<SocketAddr>> {
        self.used.set(true);
        while self.known.borrow().is_empty() {
            self.recall_failure()?;
            let answered = self.answered.notified();
            self.ask();
            answered.await;
        }
        self.refresh();
        let mut addresses = self.known.borrow().to_vec();
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        let first = turn.checked_rem(addresses.len()).unwrap_or(0);
        addresses.rotate_left(first);
        Ok(addresses)
    }

    /// The addresses that are not among `tried`, none of which could be reached. Waits for a look-up, unless the last one
    /// began less than a second ago.
    pub async fn renew(self: &Rc<Self>, tried: &[SocketAddr]) -> Vec<SocketAddr> {
        let due = self.clock.now() >= self.asked.get().saturating_add(AGAIN);
        if !self.literal && (due || self.asking.get()) {
            let answered = self.answered.notified();
            self.ask();
            answered.await;
        }
        self.known.borrow().iter().filter(|address| !tried.contains(address)).copied().collect()
    }

    /// Whether the server is configured by its address.
    pub fn is_literal(&self) -> bool {
        self.literal
    }

    /// Notes that a connection to the server is in use.
    pub fn note_use(&self) {
        self.used.set(true);
    }

    /// To be called now and then: looks the name up again, when it was used since the last time and the answer is old.
    pub fn sweep(self: &Rc<Self>) {
        if self.used.replace(false) {
            self.refresh();
        }
    }

    /// Where a connection to `peer` stands.
    pub fn place(&self, peer: SocketAddr) -> Place {
        Place { peer, version: self.version.get() }
    }

    /// Whether the connection's address is still one of the server's.
    pub fn has(&self, place: &mut Place) -> bool {
        let version = self.version.get();
        if place.version == version {
            return true;
        }
        let known = self.known.borrow().contains(&place.peer);
        if known {
            place.version = version;
        }
        known
    }

    fn refresh(self: &Rc<Self>) {
        let now = self.clock.now();
        let fresh = now < self.asked.get().saturating_add(FRESH);
        if self.literal || fresh || self.known.borrow().is_empty() {
            return;
        }
        self.ask();
    }

    /// Looks the name up in a task of its own: when whoever waits for it gives up, the next one need not begin anew.
    fn ask(self: &Rc<Self>) {
        if self.asking.replace(true) {
            return;
        }
        let names = Rc::clone(self);
        tokio::task::spawn_local(async move {
            names.look_up().await;
            names.asking.set(false);
            names.answered.notify_waiters();
        });
    }

    fn recall_failure(&self) -> io::Result<()> {
        match &*self.failed.borrow() {
            Some((since, kind, text)) if self.clock.now() < since.saturating_add(FAILED) => {
                Err(io::Error::new(*kind, text.clone()))
            }
            _ => Ok(()),
        }
    }

    async fn look_up(&self) {
        self.asked.set(self.clock.now());
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await.map(Iterator::collect::<Vec<_>>);
        match found {
            Ok(found) if !found.is_empty() => self.learn(found),
            found => {
                let error = found.err().unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it has no address"));
                // Those that are known may still be good.
                tracing::warn!(host = self.host, %error, "the name of an upstream server cannot be looked up");
                *self.failed.borrow_mut() = Some((self.clock.now(), error.kind(), error.to_string()));
            }
        }
    }

    /// Takes these for the server's addresses from now on.
    pub(super) fn learn(&self, mut found: Vec<SocketAddr>) {
        self.failed.borrow_mut().take();
        let mut seen = Vec::with_capacity(found.len());
        found.retain(|address| {
            !seen.contains(address) && {
                seen.push(*address);
                true
            }
        });
        let mut known = self.known.borrow_mut();
        let same = known.len() == found.len() && found.iter().all(|address| known.contains(address));
        if !same {
            self.version.set(self.version.get().wrapping_add(1));
        }
        *known = found.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(host: &str) -> Rc<Names> {
        Rc::new(Names::new(host, 80, Rc::new(Clock::new())))
    }

    fn sockets(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 80)).collect()
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_literal_is_its_own_address() {
        for host in ["127.0.0.1", "::1"] {
            let names = names(host);
            assert_eq!(names.addresses().await.unwrap(), sockets(&[host]));
            assert_eq!(names.addresses().await.unwrap(), sockets(&[host]));
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn each_connection_begins_with_another_address() {
        let names = names("app");
        names.learn(sockets(&["10.0.0.1", "10.0.0.2", "10.0.0.1", "10.0.0.3"]));
        names.asked.set(names.clock.now());
        for expected in [
            ["10.0.0.1", "10.0.0.2", "10.0.0.3"],
            ["10.0.0.2", "10.0.0.3", "10.0.0.1"],
            ["10.0.0.3", "10.0.0.1", "10.0.0.2"],
        ] {
            assert_eq!(names.addresses().await.unwrap(), sockets(&expected));
        }
    }

    #[test]
    fn a_connection_is_stale_when_its_address_is_gone() {
        let names = names("app");
        names.learn(sockets(&["10.0.0.1", "10.0.0.2"]));
        let [mut first, mut second] = [0, 1].map(|index| names.place(sockets(&["10.0.0.1", "10.0.0.2"])[index]));
        names.learn(sockets(&["10.0.0.2", "10.0.0.1"]));
        assert!(names.has(&mut first) && names.has(&mut second), "the order does not matter");
        names.learn(sockets(&["10.0.0.2", "10.0.0.3"]));
        assert!(!names.has(&mut first) && names.has(&mut second) && !names.has(&mut first));
        names.learn(sockets(&["10.0.0.1"]));
        assert!(names.has(&mut first) && !names.has(&mut second), "it came back");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn renewal_gives_new_addresses_and_looks_up_once_a_second() {
        let ask = async {
            let names = names("localhost");
            names.learn(sockets(&["10.0.0.1"]));
            names.clock.tick();
            names.asked.set(names.clock.now());
            assert_eq!(names.renew(&sockets(&["10.0.0.1"])).await, [], "too soon");
            names.learn(sockets(&["10.0.0.1", "10.0.0.2"]));
            assert_eq!(names.renew(&sockets(&["10.0.0.1"])).await, sockets(&["10.0.0.2"]), "known meanwhile");
            names.asked.set(0);
            while names.clock.now() < AGAIN {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                names.clock.tick();
            }
            let tried = sockets(&["10.0.0.1"]);
            let both = tokio::join!(names.renew(&tried), names.renew(&[]));
            assert!(both.0.contains(&sockets(&["127.0.0.1"])[0]), "{both:?}");
            assert_eq!(both.0, both.1, "both wait for one answer");
        };
        tokio::task::LocalSet::new().run_until(ask).await;
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_failure_is_not_asked_for_again_at_once() {
        let ask = async {
            let names = names("name.invalid");
            let both = tokio::join!(names.addresses(), names.addresses());
            assert!(both.0.is_err() && both.1.is_err(), "both wait for one answer");
            *names.failed.borrow_mut() = Some((names.clock.now(), io::ErrorKind::NotFound, "remembered".into()));
            assert_eq!(names.addresses().await.unwrap_err().to_string(), "remembered");
        };
        tokio::task::LocalSet::new().run_until(ask).await;
    }
}

//! Small parts of request bodies on one connection. Servers end a connection when many of them wait to be read (the h2
//! crate, when a hundred do), and with it the streams of all other clients: beyond a few, parts are gathered.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use crate::model::Household;
use crate::upstream::alarm::{Clock, Millis};

/// Parts below this length, in bytes, are small.
pub const SMALL: usize = 256;

/// Small parts that a client sends at once while the server says nothing, and all clients together on one connection.
const FREE: u32 = 16;
const FREE_ALL: u32 = 48;

/// What is beyond these goes as soon as it is no longer small, the body ends, or at this pace.
pub const PACE: Duration = Duration::from_millis(100);

/// Small parts of one stream, and of all, with which a connection gets no further streams.
const MANY: u32 = 16;
const MANY_ALL: u32 = 64;

/// The small parts on one connection to which the server has not answered.
#[derive(Default)]
pub struct SmallParts {
    clients: RefCell<Vec<Account>>,
    all: Cell<u32>,
    /// When the last one was sent.
    sent: Cell<Millis>,
    crowded: Cell<bool>,
}

struct Account {
    client: Household,
    count: u32,
    sent: Millis,
}

/// Those of one stream. They no longer count once the server answers, or when this is dropped.
pub struct StreamParts {
    parts: Rc<SmallParts>,
    client: Household,
    count: Cell<u32>,
    clock: Rc<Clock>,
}

impl SmallParts {
    /// Whether the connection should get no further streams.
    pub fn is_crowded(&self) -> bool {
        self.crowded.get()
    }

    fn admit(&self, client: Household, now: Millis) -> bool {
        let pace = PACE.as_millis() as Millis;
        let paced = |sent: Millis| now >= sent.saturating_add(pace);
        let mut clients = self.clients.borrow_mut();
        let known = clients.iter_mut().find(|account| account.client == client);
        let (count, sent) = known.as_ref().map_or((0, 0), |account| (account.count, account.sent));
        let free = (count < FREE || paced(sent)) && (self.all.get() < FREE_ALL || paced(self.sent.get()));
        if free {
            match known {
                Some(account) => (account.count, account.sent) = (count + 1, now),
                None => clients.push(Account { client, count: 1, sent: now }),
            }
            self.all.set(self.all.get() + 1);
            self.sent.set(now);
        }
        if self.all.get() >= MANY_ALL {
            self.crowded.set(true);
        }
        free
    }

    fn release(&self, client: Household, count: u32) {
        let mut clients = self.clients.borrow_mut();
        if let Some(at) = clients.iter().position(|account| account.client == client)
            && let Some(account) = clients.get_mut(at)
        {
            account.count = account.count.saturating_sub(count);
            if account.count == 0 {
                clients.swap_remove(at);
            }
        }
        self.all.set(self.all.get().saturating_sub(count));
    }
}

impl StreamParts {
    /// None so far.
    pub fn new(parts: &Rc<SmallParts>, client: Household, clock: &Rc<Clock>) -> Self {
        Self { parts: Rc::clone(parts), client, count: Cell::new(0), clock: Rc::clone(clock) }
    }

    /// Whether a small part may be sent now; it counts then.
    pub fn admit(&self) -> bool {
        let admitted = self.parts.admit(self.client, self.clock.now());
        self.count.set(self.count.get() + u32::from(admitted));
        if self.count.get() >= MANY {
            self.parts.crowded.set(true);
        }
        admitted
    }

    /// The server has answered.
    pub fn clear(&self) {
        match self.count.take() {
            0 => {}
            count => self.parts.release(self.client, count),
        }
    }
}

impl Drop for StreamParts {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u8) -> Household {
        Household::V4([127, 0, 0, number])
    }

    #[test]
    fn client_sends_a_few_at_once_and_ten_a_second() {
        let parts = SmallParts::default();
        assert_eq!((0..100).filter(|_| parts.admit(client(1), 1000)).count(), 16);
        assert_eq!((1000..2001).filter(|now| parts.admit(client(1), *now)).count(), 10);
        assert!(parts.admit(client(2), 2000), "another has its own");
        parts.release(client(1), 20);
        assert_eq!((0..100).filter(|_| parts.admit(client(1), 2000)).count(), 10);
    }

    #[test]
    fn all_clients_together_are_bounded() {
        let parts = Rc::<SmallParts>::default();
        let all = (1..=100).flat_map(|number| [number; 20]).filter(|number| parts.admit(client(*number), 1000));
        assert_eq!(all.count(), 48);
        assert!(!parts.is_crowded());
        let paced = (1..=100).filter(|number| parts.admit(client(*number), 1000 + 10 * u64::from(*number)));
        assert_eq!(paced.count(), 10, "ten a second");
        assert_eq!(
            (1..=100_u8).filter(|number| parts.admit(client(*number), 2000 + 100 * u64::from(*number))).count(),
            100
        );
        assert!(parts.is_crowded());
    }

    #[test]
    fn one_stream_of_many_parts_makes_a_connection_crowded() {
        let (parts, clock) = (Rc::default(), Rc::new(Clock::new()));
        let stream = StreamParts::new(&parts, client(1), &clock);
        for _ in 0..100 {
            (0..15).for_each(|_| assert!(stream.admit()));
            stream.clear();
        }
        assert!(!parts.is_crowded(), "the server answers");
        (0..16).for_each(|_| assert!(stream.admit()));
        assert!(parts.is_crowded());
        drop(stream);
        assert_eq!((parts.all.get(), parts.clients.borrow().len()), (0, 0));
    }
}

//! Request bodies that a server may not have read yet. They take up the window of their connection, and while that is
//! used up no other body on it moves: short bodies share connections within bounds, others have their own.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use crate::model::Household;

/// What one client may have on shared connections, in bytes; a longer body never goes there.
const SHARE: u64 = 16 * 1024;

/// What all may have on one connection: servers give 65,535 bytes at least.
const ALL: u64 = 48 * 1024;

/// By client, on all shared connections to one server.
#[derive(Default)]
pub struct Unread(RefCell<HashMap<Household, u64>>);

/// What one connection carries.
#[derive(Clone, Default)]
pub struct Load(Rc<Cell<u64>>);

/// One body on a shared connection, until its stream is over.
pub struct Body {
    size: u64,
    client: Household,
    unread: Rc<Unread>,
    load: Load,
}

impl Unread {
    /// Whether a body of the client may go on a shared connection.
    pub fn may_share(&self, client: Household, size: u64) -> bool {
        let held = if size == 0 { 0 } else { self.0.borrow().get(&client).copied().unwrap_or(0) };
        held.saturating_add(size) <= SHARE
    }
}

impl Load {
    /// Whether the connection can carry it.
    pub fn takes(&self, size: u64) -> bool {
        size == 0 || self.0.get().saturating_add(size) <= ALL
    }
}

impl Body {
    /// Counts a body; `None` when there is none.
    pub fn new(size: u64, client: Household, unread: &Rc<Unread>, load: &Load) -> Option<Self> {
        if size == 0 {
            return None;
        }
        load.0.set(load.0.get().saturating_add(size));
        let mut clients = unread.0.borrow_mut();
        let held = clients.entry(client).or_default();
        *held = held.saturating_add(size);
        Some(Self { size, client, unread: Rc::clone(unread), load: load.clone() })
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.load.0.set(self.load.0.get().saturating_sub(self.size));
        let mut clients = self.unread.0.borrow_mut();
        let left = clients.get(&self.client).map_or(0, |held| held.saturating_sub(self.size));
        match left {
            0 => drop(clients.remove(&self.client)),
            left => drop(clients.insert(self.client, left)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_and_connection_have_their_bounds() {
        let (unread, load) = (Rc::<Unread>::default(), Load::default());
        let client = |number| Household::V4([127, 0, 0, number]);
        assert!(!unread.may_share(client(1), SHARE + 1) && !unread.may_share(client(1), u64::MAX));
        let body = |number| Body::new(SHARE, client(number), &unread, &load);
        let bodies = [body(1), body(2), body(3)];
        assert!(!unread.may_share(client(1), 1) && unread.may_share(client(1), 0) && unread.may_share(client(4), 1));
        assert!(!load.takes(1) && load.takes(0));
        drop(bodies);
        assert!(unread.0.borrow().is_empty() && load.takes(ALL));
        assert!(Body::new(0, client(1), &unread, &load).is_none());
    }
}

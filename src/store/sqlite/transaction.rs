//! The writer's connection. It notes the revocations of the transaction under way, for memory to take once they are
//! committed: those that were added, and those that a logout found already there.

use std::cell::RefCell;
use std::ops::Deref;

use rusqlite::Connection;

use crate::store::Revocation;

/// See the module.
pub(super) struct WriteConnection {
    connection: Connection,
    noted: RefCell<Vec<Revocation>>,
}

impl WriteConnection {
    pub fn new(connection: Connection) -> Self {
        Self { connection, noted: RefCell::default() }
    }

    /// Notes a revocation that stands once the transaction is committed.
    pub fn note(&self, revocation: &Revocation) {
        self.noted.borrow_mut().push(revocation.clone());
    }

    /// How many are noted.
    pub fn noted(&self) -> usize {
        self.noted.borrow().len()
    }

    /// Forgets all but the first `count`: the rest was rolled back.
    pub fn forget_noted(&self, count: usize) {
        self.noted.borrow_mut().truncate(count);
    }

    /// All that were noted; none is any more.
    pub fn take_noted(&self) -> Vec<Revocation> {
        self.noted.take()
    }
}

impl Deref for WriteConnection {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

//! A request body that is being received, as its connection sees it: whether the client is waited for, and what has come.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::{Incoming, ReadError, read};

/// See the module. One for each exchange under way; between two exchanges nothing is received.
#[derive(Debug, Default)]
pub struct BodyState {
    active: Cell<bool>,
    waits: Cell<bool>,
    bytes: Cell<u64>,
    upstream: Cell<Option<usize>>,
}

impl BodyState {
    /// Whether a body is being received.
    pub fn is_active(&self) -> bool {
        self.active.get()
    }

    /// Whether the client is waited for, as far as is known.
    pub fn is_waiting(&self) -> bool {
        self.active.get() && self.waits.get()
    }

    /// The upstream that it is for, where it gives way to other requests for that; by its index in the configuration.
    pub fn upstream(&self) -> Option<usize> {
        self.upstream.get()
    }

    /// Bytes so far, of all bodies.
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }
}

/// A body is being received until this is dropped.
pub struct BodyGuard(Rc<BodyState>);

impl BodyGuard {
    /// Begins; `upstream` as in [`BodyState::upstream`].
    pub fn new(state: Rc<BodyState>, upstream: Option<usize>) -> Self {
        state.active.set(true);
        state.upstream.set(upstream);
        state.waits.set(true);
        Self(state)
    }

    /// Notes a part of so many bytes; `None` notes that there is none and the client is waited for.
    pub fn note(&self, bytes: Option<usize>) {
        self.0.waits.set(bytes.is_none());
        self.0.bytes.set(self.0.bytes.get() + bytes.unwrap_or(0) as u64);
    }
}

impl Drop for BodyGuard {
    fn drop(&mut self) {
        self.0.active.set(false);
    }
}

/// The body of a request to an endpoint of the gateway.
pub struct IncomingBody {
    /// As hyper reads it.
    pub body: Incoming,
    /// Dropped when it is read; `None` where there is none.
    pub guard: Option<BodyGuard>,
}

impl IncomingBody {
    /// Reads it whole, at most `limit` bytes, within `time` in all.
    ///
    /// # Errors
    /// [`ReadError`]; what was read until then is thrown away.
    pub async fn read(self, limit: usize, time: Duration) -> Result<Bytes, ReadError> {
        let Self { body, guard } = self;
        let whole = tokio::time::timeout(time, read(body, limit, guard.as_ref())).await;
        whole.map_err(|_| ReadError::Late(time))?
    }
}

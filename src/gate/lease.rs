//! What a long answer hangs on: the token of the caller that it is for. Who passed the gate stays in for the answer that
//! he was let in for, but a stream or a tunnel must not outlive its token.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::clock::UnixTime;
use crate::config::OnExpiry;
use crate::gate::Gate;
use crate::sessions::Caller;
use crate::upstream::Uploading;

/// The caller of one exchange, once he is known. Empty where nobody was asked for a token.
#[derive(Default)]
pub struct Lease {
    grant: RefCell<Option<Grant>>,
    uploading: Rc<Cell<bool>>,
}

struct Grant {
    caller: Caller,
    on_expiry: OnExpiry,
}

/// Why a lease is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The token, its session or its account's generation was revoked.
    Revoked,
    /// The token has expired, the leeway included.
    Expired,
    /// Not the lease: the client left its answer lying for too long.
    Left,
}

impl Lease {
    pub(super) fn grant(&self, caller: Caller, on_expiry: OnExpiry) {
        *self.grant.borrow_mut() = Some(Grant { caller, on_expiry });
    }

    /// The same while the request's body is passed on, until what is returned is dropped.
    pub(super) fn upload(&self, caller: Caller, on_expiry: OnExpiry) -> Uploading {
        self.grant(caller, on_expiry);
        self.uploading.set(true);
        Uploading(Rc::clone(&self.uploading))
    }

    /// Whether the request's body is still being passed on.
    pub fn is_uploading(&self) -> bool {
        self.uploading.get()
    }

    /// Forgets the caller.
    pub fn clear(&self) {
        self.grant.borrow_mut().take();
    }
}

impl Gate {
    /// Whether the lease has ended. Expiry ends only what is `endless`: a download of known length was asked for, and
    /// begun, in time.
    pub fn end_of(&self, lease: &Lease, endless: bool, now: UnixTime) -> Option<End> {
        let grant = lease.grant.borrow();
        let grant = grant.as_ref()?;
        if self.sessions.is_revoked(&grant.caller) {
            return Some(End::Revoked);
        }
        let expires = endless && grant.on_expiry == OnExpiry::Close && self.sessions.expires(&grant.caller) <= now;
        expires.then_some(End::Expired)
    }
}

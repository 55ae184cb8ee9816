//! What a long answer hangs on: the token of the caller that it is for. Who passed the gate stays in for the answer that
//! he was let in for, but a stream or a tunnel must not outlive its token.

use std::cell::RefCell;

use crate::clock::UnixTime;
use crate::config::OnExpiry;
use crate::gate::Gate;
use crate::sessions::Caller;

/// The caller of one exchange, once he is known. Empty where nobody was asked for a token.
#[derive(Default)]
pub struct Lease(RefCell<Option<Grant>>);

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
}

impl Lease {
    pub(super) fn grant(&self, caller: Caller, on_expiry: OnExpiry) {
        *self.0.borrow_mut() = Some(Grant { caller, on_expiry });
    }

    /// Forgets the caller.
    pub fn clear(&self) {
        self.0.borrow_mut().take();
    }
}

impl Gate {
    /// Whether the lease has ended. Expiry ends only what is `endless`: a download of known length was asked for, and
    /// begun, in time.
    pub fn end_of(&self, lease: &Lease, endless: bool, now: UnixTime) -> Option<End> {
        let grant = lease.0.borrow();
        let grant = grant.as_ref()?;
        if self.sessions.is_revoked(&grant.caller, now) {
            return Some(End::Revoked);
        }
        let expires = endless && grant.on_expiry == OnExpiry::Close && self.sessions.expires(&grant.caller) <= now;
        expires.then_some(End::Expired)
    }
}

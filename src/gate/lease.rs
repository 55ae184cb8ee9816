//! What a long answer hangs on: the token of the caller that it is for. Who passed the gate stays in for the answer that
//! he was let in for, but a stream or a tunnel must not outlive its token.

use std::cell::RefCell;
use std::rc::Rc;

use http_body::Body as _;

use crate::clock::UnixTime;
use crate::config::OnExpiry;
use crate::gate::Gate;
use crate::message::{BodyGuard, BodyState, Incoming, IncomingBody};
use crate::sessions::Caller;

/// The caller of one exchange, once he is known. Empty where nobody was asked for a token.
#[derive(Default)]
pub struct Lease {
    grant: RefCell<Option<Grant>>,
    body: Rc<BodyState>,
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

    /// The request's body is received until what is returned is dropped; from `caller`, where a token was looked at.
    /// `upstream` is the one for which it may give way to other requests.
    pub(super) fn receive(&self, caller: Option<&Caller>, on_expiry: OnExpiry, upstream: Option<usize>) -> BodyGuard {
        if let Some(caller) = caller {
            self.grant(caller.clone(), on_expiry);
        }
        BodyGuard::new(Rc::clone(&self.body), upstream)
    }

    /// The body of a request to an endpoint of the gateway.
    pub(super) fn of_endpoint(&self, body: Incoming) -> IncomingBody {
        let guard = (!body.is_end_stream()).then(|| self.receive(None, OnExpiry::Close, None));
        IncomingBody { body, guard }
    }

    /// The request's body, where it is being received.
    pub fn body(&self) -> &BodyState {
        &self.body
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

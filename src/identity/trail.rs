//! What is noted of a request while an endpoint answers it: for its audit line, which none can go without.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;

use http::Method;

use crate::clock::UnixTime;
use crate::identity::{Asker, Endpoint, Identity, Origin};
use crate::message::Rejection;
use crate::model::SessionId;
use crate::sessions::Pair;
use crate::telemetry::audit::{About, Actor, Event, Line, Outcome, Writer};
use crate::tokens::Claims;

impl Endpoint {
    /// What it is in the audit; `None` where nothing changes and nobody comes in.
    pub(super) fn event(self, method: &Method) -> Option<Event> {
        match self {
            Self::Registration => Some(Event::Registration),
            Self::Login => Some(Event::Login),
            Self::Refresh => Some(Event::Refresh),
            Self::LogoutAccess => Some(Event::LogoutAccess),
            Self::LogoutRefresh => Some(Event::LogoutRefresh),
            Self::Logout => Some(Event::Logout),
            Self::LogoutAll => Some(Event::LogoutAll),
            Self::Session => Some(Event::SessionEnd),
            Self::Sessions => None,
            Self::Password => Some(Event::Password),
            Self::Jwks => None,
            Self::Users => (*method == Method::DELETE).then_some(Event::UsersDelete),
        }
    }
}

/// See the module.
pub(super) struct Trail<'a> {
    audit: &'a Writer,
    event: Cell<Option<Event>>,
    asker: Asker<'a>,
    user_agent: Option<String>,
    about: RefCell<About>,
    written: Cell<bool>,
}

impl<'a> Trail<'a> {
    /// Of a request that is about to be answered.
    pub fn begin(audit: &'a Writer, event: Option<Event>, asker: Asker<'a>, user_agent: Option<String>) -> Self {
        Self { audit, event: Cell::new(event), asker, user_agent, about: RefCell::default(), written: Cell::new(false) }
    }

    /// As the handlers are told.
    pub fn origin(&self) -> Origin<'_> {
        Origin { address: self.asker.address, now: self.asker.now, trail: self }
    }

    /// Writes further lines of the client, also after its request.
    pub fn client_audit(&self) -> ClientAudit {
        let Asker { address, now, request_id } = self.asker;
        let (user_agent, request_id) = (self.user_agent.clone(), request_id.to_owned());
        ClientAudit { audit: self.audit.clone(), address, now, user_agent, request_id }
    }

    /// Notes that it is another event than its endpoint's.
    pub fn turn_into(&self, event: Event) {
        self.event.set(Some(event));
    }

    /// Notes the name that was typed.
    pub fn user(&self, name: &str) {
        self.about.borrow_mut().user = Some(name.to_owned());
    }

    /// Notes a token whose signature is good.
    pub fn token(&self, claims: &Claims) {
        let mut about = self.about.borrow_mut();
        about.user = Some(claims.subject.to_string());
        about.session = claims.session.as_ref().map(|session| session.as_str().to_owned());
        about.token = Some(claims.token.as_str().to_owned());
        about.more = claims.issuer.as_ref().map(|issuer| ("issuer", issuer.to_string()));
    }

    /// Notes what else there is to say.
    pub fn more(&self, name: &'static str, value: String) {
        self.about.borrow_mut().more = Some((name, value));
    }

    /// Writes the line.
    pub fn end<T>(&self, verdict: &Result<T, Rejection>) {
        self.write(match verdict {
            Ok(_) => Outcome::Success,
            Err(rejection) => Outcome::Failure(rejection.code()),
        });
    }

    fn write(&self, outcome: Outcome) {
        self.written.set(true);
        let Some(event) = self.event.get() else { return };
        let Asker { address, now, request_id } = self.asker;
        let actor = Actor::Client { address, user_agent: self.user_agent.as_deref(), request_id };
        self.audit.write(Line::new(now, event, outcome, actor, &self.about.borrow()));
    }
}

/// A client that leaves takes the answer's future with it, wherever that stands: even behind a commit.
impl Drop for Trail<'_> {
    fn drop(&mut self) {
        if !self.written.get() {
            self.write(Outcome::Unknown);
        }
    }
}

/// Writes audit lines of one client: for a task that goes on when the client has left.
pub(super) struct ClientAudit {
    audit: Writer,
    address: IpAddr,
    now: UnixTime,
    user_agent: Option<String>,
    request_id: String,
}

impl ClientAudit {
    /// Writes that a login of `user` has ended `session`.
    pub fn session_evicted(&self, user: &str, session: &SessionId) {
        let Self { audit, address, now, user_agent, request_id } = self;
        let about =
            About { user: Some(user.to_owned()), session: Some(session.as_str().to_owned()), ..About::default() };
        let actor = Actor::Client { address: *address, user_agent: user_agent.as_deref(), request_id };
        audit.write(Line::new(*now, Event::SessionEvicted, Outcome::Success, actor, &about));
    }
}

impl Identity {
    /// Notes the session of tokens that were just signed.
    pub(super) fn note_pair(&self, trail: &Trail<'_>, pair: &Pair) {
        if let Ok(signed) = self.sessions.open_signed(&pair.access) {
            trail.token(signed.claims());
        }
    }
}

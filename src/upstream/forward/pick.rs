//! Which server an attempt goes to, and what its outcome tells of that server.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use http::StatusCode;
use rustix::io::Errno;

use crate::config::{Balance, HashKey};
use crate::message::Rejection;
use crate::upstream::balance::{Choice, Outcome};
use crate::upstream::forward::{Attempt, Server};
use crate::upstream::stream::ConnectError;
use crate::upstream::wire::Broken;

/// When to come again, where every server keeps failing.
const RETRY: Duration = Duration::from_secs(1);

/// The turns of one request. Every one but the first is paid for.
#[derive(Default)]
pub(super) struct Turns {
    /// Servers that could not be reached.
    tried: Vec<usize>,
    /// Why the last turn was none.
    failure: Option<Rejection>,
    /// How often a server had the request, and has not acted on it.
    handed_back: usize,
}

impl Turns {
    /// Notes that a server has not acted on the request.
    pub(super) fn hand_back(&mut self, broken: Broken) {
        self.handed_back += 1;
        self.failure = Some(Rejection::UpstreamUnreachable(broken.into()));
    }

    pub(super) fn handed_back(&self) -> usize {
        self.handed_back
    }

    /// What to say when there is no further turn.
    pub(super) fn end(self) -> Rejection {
        self.failure.unwrap_or_else(|| Rejection::UpstreamUnreachable("the upstream has no server".into()))
    }
}

impl<'a> Attempt<'a> {
    /// The next server to try, if one is left, and this is not one retry too many.
    ///
    /// # Errors
    /// Active checks call all servers down, or the caller may no longer enter.
    pub(super) fn next(&self, turns: &mut Turns) -> Result<Option<Server<'a>>, Rejection> {
        let Some(budget) = self.pools.budget(self.index) else { return Ok(None) };
        match turns.failure {
            None => budget.deposit(),
            Some(_) if !budget.withdraw(self.pools.clock().now()) => return Ok(None),
            // Its token may have been revoked or expired meanwhile.
            Some(_) => (self.recheck)()?,
        }
        match self.upstream.balance.next(self.key().as_deref(), &turns.tried) {
            Choice::Server(index) => Ok(self.server(index)),
            Choice::LastResort(index) => Ok(self.server(index).map(|server| Server { last_resort: true, ..server })),
            Choice::Exhausted => Ok(None),
            Choice::NoneHealthy { retry_after } => Err(Rejection::NoUpstream { retry_after }),
        }
    }

    /// What finds the same server again.
    fn key(&self) -> Option<Cow<'a, [u8]>> {
        let Balance::Consistent(by) = self.upstream.config.balance else { return None };
        let subject = self.rewrite.caller.filter(|_| by == HashKey::Subject).map(|caller| &caller.claims().subject);
        Some(match subject {
            Some(subject) => Cow::Borrowed(subject.as_bytes()),
            None => match self.rewrite.client.address {
                IpAddr::V4(address) => Cow::Owned(address.octets().to_vec()),
                IpAddr::V6(address) => Cow::Owned(address.octets().to_vec()),
            },
        })
    }

    /// Notes that `server` could not be reached. It is not tried again.
    pub(super) fn miss(&self, turns: &mut Turns, server: Server<'_>, error: ConnectError) {
        // Want of connections tells nothing of the server.
        if is_shortage(&error) {
            self.pools.release_idle();
            tracing::debug!(%error, "a request finds no connection to its upstream");
        } else {
            self.report(server, Outcome::Failed);
        }
        turns.tried.push(server.index);
        turns.failure = Some(match error {
            error if is_shortage(&error) => Rejection::NoUpstream { retry_after: RETRY },
            // All others keep failing, too.
            _ if server.last_resort => Rejection::NoUpstream { retry_after: RETRY },
            ConnectError::Slow { .. } => Rejection::UpstreamTimeout(error.into()),
            _ => Rejection::UpstreamUnreachable(error.into()),
        });
    }

    pub(super) fn report(&self, server: Server<'_>, outcome: Outcome) {
        match outcome {
            Outcome::Good if server.last_resort => self.upstream.balance.redeem(server.index),
            Outcome::Failed if server.last_resort => {}
            outcome => self.upstream.balance.report(server.index, outcome),
        }
    }
}

/// Whether connections or descriptors are short.
fn is_shortage(error: &ConnectError) -> bool {
    match error {
        ConnectError::Full { .. } => true,
        ConnectError::Failed { source, .. } => {
            let short = [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error);
            source.raw_os_error().is_some_and(|code| short.contains(&code))
        }
        ConnectError::Slow { .. } | ConnectError::Tls { .. } | ConnectError::NoH2 { .. } => false,
    }
}

/// What an answer tells of its server: these statuses say that it cannot do its work.
pub(super) fn outcome(status: StatusCode) -> Outcome {
    match status {
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => Outcome::Failed,
        _ => Outcome::Good,
    }
}

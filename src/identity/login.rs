//! POST /login: a session for whoever knows the password.

use std::sync::Arc;

use http::{HeaderMap, Response, StatusCode};

use crate::accounts::{self, Account, Attempt};
use crate::clock;
use crate::identity::{Identity, Origin, answer, device, with_pair};
use crate::message::{Body, IncomingBody, Rejection};
use crate::sessions::{Pair, Refusal, Ticket};

impl Identity {
    pub(super) async fn log_in(
        &self,
        origin: Origin<'_>,
        headers: &HeaderMap,
        body: IncomingBody,
    ) -> Result<Response<Body>, Rejection> {
        let credentials = self.credentials(headers, body).await?;
        origin.trail.user(&credentials.username);
        // The body may have been long on its way, and who waits must not have waited in it.
        let origin = Origin { now: clock::now(), ..origin };
        let signer = self.sessions.signer()?;
        let attempt = Attempt {
            username: credentials.username.clone(),
            password: credentials.password,
            address: origin.address,
            now: origin.now,
        };
        let account = match self.accounts.authenticate(attempt).await {
            Ok(account) => account,
            Err(accounts::Error::WrongCredentials { known: false }) => {
                return Err(Rejection::WrongCredentials { unknown: Some(credentials.username) });
            }
            Err(error) => return Err(error.into()),
        };
        let ticket = self.sessions.begin(signer, device(origin, headers), origin.now);
        let message = format!("Logged in as {}", account.username);
        let pair = self.open_session(origin, ticket, account).await?;
        self.note_pair(origin.trail, &pair);
        Ok(answer(StatusCode::OK, &with_pair(message, pair)))
    }

    /// Opens a session, in a task of its own: the audit has the sessions that it ends even when the client leaves.
    async fn open_session(&self, origin: Origin<'_>, ticket: Ticket, account: Account) -> Result<Pair, Rejection> {
        let (sessions, audit) = (Arc::clone(&self.sessions), origin.trail.client_audit());
        let opening = tokio::spawn(async move {
            let evicted = sessions.open(&ticket, &account).await?;
            evicted.iter().for_each(|session| audit.session_evicted(account.username.as_str(), session));
            sessions.issue(&ticket, &account)
        });
        match opening.await {
            Ok(Ok(pair)) => Ok(pair),
            // The account changed while its password was being checked: what was checked holds no more.
            Ok(Err(Refusal::Revoked)) => Err(Rejection::WrongCredentials { unknown: None }),
            Ok(Err(refusal)) => Err(refusal.into()),
            Err(ended) => Err(Rejection::Unavailable(ended.into())),
        }
    }
}

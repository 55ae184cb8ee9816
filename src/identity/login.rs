//! POST /login: a session for whoever knows the password.

use http::{HeaderMap, Response, StatusCode};

use crate::accounts::{self, Attempt};
use crate::clock;
use crate::identity::{Identity, Origin, answer, device, with_pair};
use crate::message::{Body, Incoming, Rejection};
use crate::sessions::Refusal;

impl Identity {
    pub(super) async fn log_in(
        &self,
        origin: Origin<'_>,
        headers: &HeaderMap,
        body: Incoming,
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
        let pair = match self.sessions.open(ticket, &account).await {
            Ok(pair) => pair,
            // The account changed while its password was being checked: what was checked holds no more.
            Err(Refusal::Revoked) => return Err(Rejection::WrongCredentials { unknown: None }),
            Err(refusal) => return Err(refusal.into()),
        };
        self.note_pair(origin.trail, &pair);
        Ok(answer(StatusCode::OK, &with_pair(format!("Logged in as {}", account.username), pair)))
    }
}

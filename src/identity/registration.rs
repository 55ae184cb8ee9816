//! POST /registration: a new account, and its first session, in one transaction.

use http::{HeaderMap, Response, StatusCode};

use crate::accounts::Applicant;
use crate::clock;
use crate::config::Registration;
use crate::identity::{Identity, Origin, answer, device, with_pair};
use crate::message::{Body, IncomingBody, Rejection};

impl Identity {
    pub(super) async fn register(
        &self,
        origin: Origin<'_>,
        headers: &HeaderMap,
        body: IncomingBody,
    ) -> Result<Response<Body>, Rejection> {
        if self.settings.registration == Registration::Closed {
            return Err(Rejection::RegistrationClosed);
        }
        let credentials = self.credentials(headers, body).await?;
        origin.trail.user(&credentials.username);
        // The body may have been long on its way, and who waits must not have waited in it.
        let origin = Origin { now: clock::now(), ..origin };
        let signer = self.sessions.signer()?;
        let ticket = self.sessions.begin(signer, device(origin, headers), origin.now);
        let applicant = Applicant {
            username: &credentials.username,
            password: credentials.password,
            roles: Vec::new(),
            session: Some(ticket.row()),
            address: Some(origin.address),
            at: origin.now,
        };
        let account = self.accounts.register(applicant).await?;
        let pair = self.sessions.issue(&ticket, &account)?;
        self.note_pair(origin.trail, &pair);
        let status = if self.is_flask() { StatusCode::OK } else { StatusCode::CREATED };
        Ok(answer(status, &with_pair(format!("User {} was created", account.username), pair)))
    }
}

//! POST /password: a new password for whoever is logged in and knows the old one. All sessions end, and a fresh one begins.

use http::{HeaderMap, Response, StatusCode};

use crate::accounts::Exchange;
use crate::clock;
use crate::identity::{Identity, Origin, answer, device, with_pair};
use crate::message::{Body, IncomingBody, Rejection};
use crate::tokens::TokenType;

impl Identity {
    pub(super) async fn change_password(
        &self,
        origin: Origin<'_>,
        headers: &HeaderMap,
        body: IncomingBody,
    ) -> Result<Response<Body>, Rejection> {
        let judge = |origin| {
            let signer = self.sessions.signer()?;
            Ok::<_, Rejection>((signer, self.caller(TokenType::Access, headers, origin)?))
        };
        judge(origin)?;
        let passwords = self.passwords(headers, body).await?;
        // The body may have been long on its way. The token may have died meanwhile, and who waits must not have waited in it.
        let origin = Origin { now: clock::now(), ..origin };
        let (signer, caller) = judge(origin)?;
        let ticket = self.sessions.begin(signer, device(origin, headers), origin.now);
        let exchange = Exchange {
            by: self.sessions.warrant(&caller).await?,
            old: passwords.old,
            new: passwords.new,
            session: ticket.row(),
            keep_until: self.sessions.keep_generation_until(origin.now),
            address: origin.address,
        };
        let exchanged = self.accounts.change_password(exchange).await?;
        // The token died, or the account changed, while the passwords were being hashed.
        let account = exchanged.ok_or(Rejection::TokenRevoked)?;
        let pair = self.sessions.issue(&ticket, &account)?;
        self.note_pair(origin.trail, &pair);
        Ok(answer(StatusCode::OK, &with_pair("Password changed".into(), pair)))
    }
}

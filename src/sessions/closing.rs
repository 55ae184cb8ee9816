//! Ending sessions, and listing those that have not ended. Durable in the store, then refused here, then answered.

use crate::clock::UnixTime;
use crate::model::SessionId;
use crate::sessions::{Caller, Refusal, Sessions, Signed};
use crate::store::{Ended, SessionRow};

/// Sessions that are listed at most.
const LISTED: usize = 1000;

impl Sessions {
    /// Ends the session of a token, which may itself have expired or been revoked; without one, the token alone.
    ///
    /// # Errors
    /// The store's; then nothing was promised.
    pub async fn end(&self, signed: &Signed, now: UnixTime) -> Result<(), Refusal> {
        let claims = signed.claims();
        // Another issuer's session is its own affair.
        let own = claims.session.as_ref().filter(|_| claims.issuer.is_none());
        let Some(session) = own else { return self.revoke(signed, now).await };
        // An expired token still ends a session that is known, but must not fill the store with others.
        let expired = claims.has_expired(self.moment(now));
        let otherwise = (!expired).then(|| self.keep_generation_until(now));
        if let Some(revocation) = self.store.end_session(session, now, otherwise).await? {
            self.blocklist.insert(&revocation, now);
        }
        Ok(())
    }

    /// Ends all sessions of the caller's account, and all tokens that belong to none.
    ///
    /// # Errors
    /// [`Refusal::Revoked`] when the caller's token has died meanwhile; the store's.
    pub async fn end_all(&self, caller: &Caller, now: UnixTime) -> Result<(), Refusal> {
        let keep_until = self.keep_generation_until(now);
        let revocation = self.store.raise_own_generation(caller.warrant()?, now, keep_until).await?;
        self.blocklist.insert(&revocation.ok_or(Refusal::Revoked)?, now);
        Ok(())
    }

    /// The live sessions of the caller's account, the last used first.
    ///
    /// # Errors
    /// [`Refusal::Revoked`] when the caller's token has died meanwhile; the store's.
    pub async fn list(&self, caller: &Caller, now: UnixTime) -> Result<Vec<SessionRow>, Refusal> {
        self.store.list_sessions(caller.warrant()?, now, LISTED).await?.ok_or(Refusal::Revoked)
    }

    /// Ends one session of the caller's account; false when it has none that is called `session` and lives.
    ///
    /// # Errors
    /// [`Refusal::Revoked`] when the caller's token has died meanwhile; the store's.
    pub async fn end_one(&self, caller: &Caller, session: &SessionId, now: UnixTime) -> Result<bool, Refusal> {
        match self.store.end_own_session(caller.warrant()?, session, now).await? {
            Ended::Done(revocation) => {
                self.blocklist.insert(&revocation, now);
                Ok(true)
            }
            Ended::Unknown => Ok(false),
            Ended::Refused => Err(Refusal::Revoked),
        }
    }
}

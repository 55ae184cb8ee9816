//! Ending sessions, and listing those that have not ended. Durable in the store, then refused here, then answered.

use crate::clock::UnixTime;
use crate::model::{Generation, SessionId};
use crate::sessions::{Caller, Refusal, Sessions, Signed, keep_token_until};
use crate::store::{Ended, Kind, Revocation, SessionRow};

/// Sessions that are listed at most.
pub const LISTED: usize = 1000;

/// What is listed of the sessions of an account.
pub struct List {
    /// The last used first, [`LISTED`] at most.
    pub rows: Vec<SessionRow>,
    /// Whether there are others, which were last used before all of these.
    pub more: bool,
}

impl Sessions {
    /// Ends the session of a token, which may itself have expired or been revoked; without one, the token alone.
    ///
    /// # Errors
    /// The store's; then nothing was promised.
    pub async fn end(&self, signed: &Signed, now: UnixTime) -> Result<(), Refusal> {
        let claims = signed.claims();
        let Some(session) = &claims.session else { return self.revoke(signed, now).await };
        if claims.issuer.is_some() {
            return self.end_foreign(signed, now).await;
        }
        self.store.end_session(session, now, self.keep_generation_until(now)).await?;
        Ok(())
    }

    /// Another issuer's session has no row here: it ends for as long as a token of it may live.
    async fn end_foreign(&self, signed: &Signed, now: UnixTime) -> Result<(), Refusal> {
        self.revoke(signed, now).await?;
        let claims = signed.claims();
        let Some(key) = signed.keys().session else { return Ok(()) };
        let keep_until = self.keep_generation_until(now).max(keep_token_until(claims.expires, now));
        let revocation = Revocation { key, kind: Kind::Session, generation: Generation(0), at: now, keep_until };
        Ok(self.store.revoke(vec![revocation]).await?)
    }

    /// Ends all sessions of the caller's account, and all tokens that belong to none.
    ///
    /// # Errors
    /// [`Refusal::Revoked`] when the caller's token has died meanwhile; the store's.
    pub async fn end_all(&self, caller: &Caller, now: UnixTime) -> Result<(), Refusal> {
        let keep_until = self.keep_generation_until(now);
        let warrant = self.warrant(caller).await?;
        let raised = self.store.raise_own_generation(warrant, now, keep_until).await?;
        raised.map(drop).ok_or(Refusal::Revoked)
    }

    /// The live sessions of the caller's account.
    ///
    /// # Errors
    /// [`Refusal::Revoked`] when the caller's token has died meanwhile; the store's.
    pub async fn list(&self, caller: &Caller, now: UnixTime) -> Result<List, Refusal> {
        let rows = self.store.list_sessions(self.warrant(caller).await?, now, LISTED + 1).await?;
        let mut rows = rows.ok_or(Refusal::Revoked)?;
        let more = rows.len() > LISTED;
        rows.truncate(LISTED);
        Ok(List { rows, more })
    }

    /// Ends one session of the caller's account; false when it has none that is called `session` and lives.
    ///
    /// # Errors
    /// [`Refusal::Revoked`] when the caller's token has died meanwhile; the store's.
    pub async fn end_one(&self, caller: &Caller, session: &SessionId, now: UnixTime) -> Result<bool, Refusal> {
        match self.store.end_own_session(self.warrant(caller).await?, session, now).await? {
            Ended::Done(_) => Ok(true),
            Ended::Unknown => Ok(false),
            Ended::Refused => Err(Refusal::Revoked),
        }
    }
}

//! Ending sessions, and listing those that have not ended. Durable in the store, then refused here, then answered.

use crate::clock::UnixTime;
use crate::model::{Generation, SessionId};
use crate::sessions::{Caller, Refusal, Sessions, Signed, keep_token_until};
use crate::store::{Cursor, Ended, Kind, Revocation, SessionPage, SessionRow};

/// A page of the sessions of an account.
pub struct List {
    /// The last used first.
    pub rows: Vec<SessionRow>,
    /// Where the next page begins; `None` on the last one.
    pub next: Option<Cursor>,
}

/// What the time of a revocation is rounded up to, in seconds.
const KEEP_STEP: i64 = 600;

/// The next time at which what is kept is kept for longer.
pub(super) fn round_up(now: UnixTime) -> UnixTime {
    UnixTime::from_secs((now.secs().div_euclid(KEEP_STEP) + 1) * KEEP_STEP)
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
        // Rounded up, so that repeating it writes nothing for a while.
        let until = keep_token_until(claims.expires, now);
        let until = until.max(self.keep_generation_until(round_up(now)));
        self.store.end_session(session, now, until).await?;
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

    /// A page of the live sessions of the caller's account.
    ///
    /// # Errors
    /// [`Refusal::Revoked`] when the caller's token has died meanwhile; the store's.
    pub async fn list(&self, caller: &Caller, now: UnixTime, page: SessionPage) -> Result<List, Refusal> {
        let limit = page.limit;
        // One more than is shown tells whether there is a next page.
        let page = SessionPage { limit: limit.saturating_add(1), ..page };
        let rows = self.store.list_sessions(self.warrant(caller).await?, now, page).await?;
        let mut rows = rows.ok_or(Refusal::Revoked)?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let has_next = rows.len() > limit;
        rows.truncate(limit);
        let last = rows.last().filter(|_| has_next);
        let next = last.map(|row| Cursor { last_used: row.last_used, id: row.id.clone() });
        Ok(List { rows, next })
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

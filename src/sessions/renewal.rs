//! Refreshing: new tokens for the holder of a good refresh token, as the account stands now.

use crate::clock::UnixTime;
use crate::model::{TokenId, Username};
use crate::sessions::{Caller, Refusal, Sessions, Signer, revocations_of};
use crate::store::{Account, Refreshed, Rotation, Successor, Use};
use crate::tokens::{New, TokenType};

/// What a refresh gives.
pub struct Renewed {
    /// The access token.
    pub access: String,
    /// Where refresh tokens rotate: the one to be used next.
    pub refresh: Option<String>,
}

impl Sessions {
    /// New tokens for the holder of a good refresh token. The account is read anew.
    ///
    /// # Errors
    /// [`Refusal::Revoked`] when the account is gone, disabled or changed, or the session ended; [`Refusal::Reused`],
    /// [`Refusal::TooOften`]; the store's.
    pub async fn refresh(&self, signer: &Signer, caller: &Caller, now: UnixTime) -> Result<Renewed, Refusal> {
        let claims = caller.claims();
        let account = self.account_of(caller).await?;
        let successor = self.turn_in(caller, &account, now).await?;
        let sign = |kind, token: &TokenId, issued, expires| {
            self.sign(
                signer,
                &New {
                    kind,
                    subject: account.username.as_str(),
                    token,
                    session: claims.session.as_ref(),
                    generation: account.generation,
                    roles: &account.roles,
                    fresh: false,
                    issued,
                    expires,
                },
            )
        };
        let refresh = |next: Successor| sign(TokenType::Refresh, &next.token, next.issued, next.expires);
        Ok(Renewed {
            access: sign(TokenType::Access, &TokenId::random(), now, now + self.settings.tokens.access_ttl)?,
            refresh: successor.map(refresh).transpose()?,
        })
    }

    /// The caller's account as it stands, while none of its changes has ended his token.
    pub(super) async fn account_of(&self, caller: &Caller) -> Result<Account, Refusal> {
        let claims = caller.claims();
        let username = Username::parse(&claims.subject).map_err(|_| Refusal::Revoked)?;
        let account = self.store.find_account(&username).await?.ok_or(Refusal::Revoked)?;
        let same = match claims.generation {
            Some(generation) => generation == account.generation,
            // Other services' tokens are judged by their `iat`, and in the store: not all may have been heard yet. Read after
            // the account, so that a change which is not among them shows in its generation.
            None => revocations_of(&self.store, claims, self.settings.tokens.leeway).await?.is_empty(),
        };
        if account.disabled || !same { Err(Refusal::Revoked) } else { Ok(account) }
    }

    /// Has the store decide, by one statement, whether there may be a successor.
    async fn turn_in(&self, caller: &Caller, account: &Account, now: UnixTime) -> Result<Option<Successor>, Refusal> {
        let claims = caller.claims();
        let tokens = &self.settings.tokens;
        let rotation = self.settings.rotation.map(|config| Rotation {
            successor: TokenId::random(),
            expires: now + tokens.refresh_ttl,
            grace: config.grace,
        });
        let next = rotation.as_ref().map_or(claims.expires, |rotation| rotation.expires);
        let by = Use {
            token: caller.signed().keys().token,
            account: account.id,
            generation: account.generation,
            at: now,
            expires: claims.expires.max(next).max(now + tokens.access_ttl),
            access_expires: now + tokens.access_ttl,
        };
        // Other services' tokens belong to no session.
        let Some(session) = &claims.session else {
            return if self.store.is_current(by).await? { Ok(None) } else { Err(Refusal::Revoked) };
        };
        match self.store.refresh_session(session, by, rotation).await? {
            Refreshed::Granted(successor) => Ok(successor),
            Refreshed::TooOften { until } => Err(Refusal::TooOften(until.since(now))),
            Refreshed::Refused => Err(Refusal::Revoked),
            Refreshed::Reused(_) => {
                let (session, token) = (session.as_str(), claims.token.as_str());
                tracing::warn!(session, token, "a refresh token was used again after its time: its session has ended");
                Err(Refusal::Reused)
            }
        }
    }
}

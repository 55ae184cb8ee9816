//! Sessions: opening, refreshing and closing them, and [`Sessions::verify`], the only maker of a [`Caller`].

mod blocklist;
mod credential;
mod keyring;
mod feed;
mod renewal;
mod closing;

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;

use crate::clock::UnixTime;
use crate::config::{self, Config, ResponseStyle};
use crate::model::{SessionId, TokenId};
use crate::store::{Account, Kind, NewSession, RETENTION, Revocation, Store};
use crate::tokens::{self, Moment, New, Ring, SignError};

pub use crate::store::{Cursor, SessionPage, SessionRow, Warrant};
pub use crate::tokens::{KeySet, KeySetError, TokenType};
pub use blocklist::Blocklist;
pub use closing::List;
pub use credential::{Caller, Signed};
pub use feed::{Feed, Freshness};
pub use keyring::{Keyring, KeyringError, STANDBY, check_trusted, last_use, make};
pub use renewal::Renewed;

/// How much memory remembered verdicts may take, in bytes.
const VERDICTS: u64 = 32 * 1024 * 1024;

/// Why a token does not open anything.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Form, signature, claims or time.
    #[error(transparent)]
    Token(#[from] tokens::Error),
    /// Of the other type; what was wanted.
    #[error("the token is not of type {}", .0.as_str())]
    WrongType(TokenType),
    /// On the blocklist, or its account is gone, disabled or changed.
    #[error("the token has been revoked")]
    Revoked,
    /// A refresh token that was turned in long before. Its session has been ended.
    #[error("the token was used again after its time")]
    Reused,
    /// The session was refreshed too often; how long until the next time.
    #[error("the session was refreshed too often")]
    TooOften(Duration),
    /// Good, and of another issuer, whose tokens do not open this.
    #[error("Tokens of {0} do not open this")]
    Foreign(Arc<str>),
    /// The blocklist may lack the newest revocations.
    #[error("the store was last heard longer ago than store.max_stale")]
    Stale,
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    /// A token could not be signed.
    #[error(transparent)]
    Signing(#[from] SignError),
}

/// Where a session comes from, as far as the request tells.
#[derive(Clone, Debug, Default)]
pub struct Device {
    /// The client's address.
    pub address: Option<String>,
    /// `User-Agent`, cut to 256 characters.
    pub user_agent: Option<String>,
}

/// Both tokens of a login.
pub struct Pair {
    /// The access token.
    pub access: String,
    /// The refresh token.
    pub refresh: String,
}

/// That there was a key to sign with, asked before anything is committed that ends in a token: whoever holds it can issue,
/// whatever becomes of the keys meanwhile.
pub struct Signer(Arc<Ring>);

/// What is told of a session when it begins, before its account is known.
pub struct Ticket {
    signer: Signer,
    session: SessionId,
    at: UnixTime,
    expires: UnixTime,
    access_expires: UnixTime,
    /// Live sessions that the account may have.
    limit: u32,
    device: Device,
}

impl Ticket {
    /// The row that opens the session for `account`.
    pub fn row(&self) -> NewSession {
        NewSession {
            id: self.session.clone(),
            at: self.at,
            expires: self.expires,
            access_expires: self.access_expires,
            limit: self.limit,
            address: self.device.address.clone(),
            user_agent: self.device.user_agent.clone(),
        }
    }
}

/// Until when a revocation of all tokens of an account must be kept, when `longest` is the longest life of any token
/// ever issued.
pub fn keep_generation_until(longest: Duration, now: UnixTime) -> UnixTime {
    now + longest + RETENTION
}

/// Until when the revocation of one token is kept: an hour beyond its end or its revocation, whichever is later, because
/// the clock may be wrong by which it has expired. The present is rounded up: repeating a logout writes nothing for a while.
pub fn keep_token_until(expires: UnixTime, now: UnixTime) -> UnixTime {
    expires.max(closing::round_up(now)) + RETENTION
}

/// What is known of revocations and keys, on disk and in memory; a [`Feed`] keeps the two alike.
pub struct Truth {
    /// On disk.
    pub store: Store,
    /// The revocations in memory.
    pub blocklist: Blocklist,
    /// The keys in memory.
    pub keyring: Keyring,
    /// How well the two agree.
    pub freshness: Freshness,
}

/// See the module.
pub struct Sessions {
    store: Store,
    keyring: Keyring,
    blocklist: Blocklist,
    freshness: Freshness,
    verdicts: Cache<Box<str>, Arc<Signed>, ahash::RandomState>,
    settings: Settings,
}

struct Settings {
    tokens: config::Tokens,
    headers: Vec<config::IdentitySource>,
    style: ResponseStyle,
    /// Where refresh tokens rotate.
    rotation: Option<config::RefreshRotation>,
    /// Live sessions that an account may have.
    sessions_per_account: u32,
    /// The longest life of any token ever issued.
    longest: Duration,
}

impl Sessions {
    /// Builds the part; `longest` is the longest token life that the store remembers.
    pub fn new(config: &Config, truth: Truth, longest: Duration) -> Self {
        Self {
            store: truth.store,
            keyring: truth.keyring,
            blocklist: truth.blocklist,
            freshness: truth.freshness,
            verdicts: Cache::builder()
                .max_capacity(VERDICTS)
                .weigher(|_, signed: &Arc<Signed>| signed.weight())
                .build_with_hasher(ahash::RandomState::new()),
            settings: Settings {
                tokens: config.tokens.clone(),
                headers: config.identity_headers.iter().map(|header| header.source.clone()).collect(),
                style: config.identity.responses,
                rotation: config.identity.refresh_rotation,
                sessions_per_account: config.identity.sessions_per_account,
                longest,
            },
        }
    }

    fn moment(&self, now: UnixTime) -> Moment {
        Moment { now, leeway: self.settings.tokens.leeway }
    }

    /// The holder of one of our own tokens, when it is good in every respect, now.
    ///
    /// # Errors
    /// [`Refusal`]: those that need no store.
    pub fn verify(&self, token: &str, kind: TokenType, now: UnixTime) -> Result<Caller, Refusal> {
        self.admit_own(self.open_signed(token)?, kind, now)
    }

    /// The same for a token whose signature is known to be good.
    ///
    /// # Errors
    /// Those of [`verify`](Self::verify).
    pub fn admit_own(&self, signed: Arc<Signed>, kind: TokenType, now: UnixTime) -> Result<Caller, Refusal> {
        let caller = self.admit(signed, kind, now)?;
        match &caller.claims().issuer {
            None => Ok(caller),
            Some(issuer) => Err(Refusal::Foreign(Arc::clone(issuer))),
        }
    }

    /// The token's holder, ours or another's, when a token whose signature is known to be good is so in every other respect:
    /// all that changes with time. A proxied request calls [`open_signed`](Self::open_signed) and this and nothing else of
    /// this module: no I/O, no lock that a login takes.
    ///
    /// # Errors
    /// Those of `verify`, but [`Refusal::Foreign`].
    pub fn admit(&self, signed: Arc<Signed>, kind: TokenType, now: UnixTime) -> Result<Caller, Refusal> {
        let claims = signed.claims();
        claims.check_time(self.moment(now))?;
        if claims.kind != kind {
            return Err(Refusal::WrongType(kind));
        }
        if !signed.is_trusted(&self.keyring) || signed.is_revoked(&self.blocklist, self.settings.tokens.leeway) {
            return Err(Refusal::Revoked);
        }
        if self.freshness.is_stale() {
            return Err(Refusal::Stale);
        }
        Ok(Caller::of(signed))
    }

    /// The token as far as its signature goes: it may have expired or been revoked. Enough to end it, never to enter.
    ///
    /// # Errors
    /// [`Refusal::Token`] or [`Refusal::WrongType`].
    pub fn verify_signature(&self, token: &str, kind: TokenType) -> Result<Arc<Signed>, Refusal> {
        let signed = self.open_signed(token)?;
        if signed.claims().kind != kind {
            return Err(Refusal::WrongType(kind));
        }
        Ok(signed)
    }

    /// The remembered verdict "this signature is good" on exactly this text, or a fresh one. Never a decision: that is
    /// [`admit`](Self::admit)'s.
    ///
    /// # Errors
    /// What is wrong with the token that does not change with time.
    pub fn open_signed(&self, token: &str) -> Result<Arc<Signed>, tokens::Error> {
        // One whose key is gone is looked at anew, for the sake of a truthful refusal.
        if let Some(signed) = self.verdicts.get(token).filter(|signed| signed.is_trusted(&self.keyring)) {
            return Ok(signed);
        }
        let (verified, known) = self.keyring.verify(token, &self.settings.tokens)?;
        let signed = Arc::new(Signed::new(token, verified, known, &self.settings.headers));
        self.verdicts.insert(token.into(), Arc::clone(&signed));
        Ok(signed)
    }

    /// Whether the key that verified it still does. Where it does not, the token is to be opened anew, for the true reason.
    pub fn is_trusted(&self, signed: &Signed) -> bool {
        signed.is_trusted(&self.keyring)
    }

    /// To be asked for first by whoever is to issue.
    ///
    /// # Errors
    /// [`SignError::NoKey`].
    pub fn signer(&self) -> Result<Signer, SignError> {
        let ring = Arc::clone(&self.keyring.trust().ring);
        if ring.signs() { Ok(Signer(ring)) } else { Err(SignError::NoKey) }
    }

    /// What a session that begins now will be called, and how long it can live.
    pub fn begin(&self, signer: Signer, device: Device, now: UnixTime) -> Ticket {
        let tokens = &self.settings.tokens;
        Ticket {
            signer,
            session: SessionId::random(),
            at: now,
            expires: now + tokens.refresh_ttl,
            access_expires: now + tokens.access_ttl,
            limit: self.settings.sessions_per_account,
            device,
        }
    }

    /// Opens a session for an account whose password was just checked; `account` is as it was read before the check.
    /// Returns the sessions that ended, because the account had as many as it may have.
    ///
    /// # Errors
    /// [`Refusal::Revoked`] when the account changed since it was read; the store's.
    pub async fn open(&self, ticket: &Ticket, account: &Account) -> Result<Vec<SessionId>, Refusal> {
        let evicted = self.store.open_session(ticket.row(), account.id, account.generation).await?;
        evicted.ok_or(Refusal::Revoked)
    }

    /// Signs both tokens of a session whose row is in the store.
    ///
    /// # Errors
    /// [`Refusal::Signing`].
    pub fn issue(&self, ticket: &Ticket, account: &Account) -> Result<Pair, Refusal> {
        let fresh = self.settings.style == ResponseStyle::Standard;
        let sign = |kind, life| {
            self.sign(
                &ticket.signer,
                &New {
                    kind,
                    subject: account.username.as_str(),
                    token: &TokenId::random(),
                    session: Some(&ticket.session),
                    generation: account.generation,
                    roles: &account.roles,
                    fresh: fresh && kind == TokenType::Access,
                    issued: ticket.at,
                    expires: ticket.at + life,
                },
            )
        };
        Ok(Pair {
            access: sign(TokenType::Access, self.settings.tokens.access_ttl)?,
            refresh: sign(TokenType::Refresh, self.settings.tokens.refresh_ttl)?,
        })
    }

    fn sign(&self, signer: &Signer, new: &New<'_>) -> Result<String, SignError> {
        let trust = self.keyring.trust();
        // With no key left, what was committed is told of all the same. A token of a revoked key opens nothing here.
        let ring = if trust.ring.signs() { &trust.ring } else { &signer.0 };
        ring.sign(new, &self.settings.tokens)
    }

    /// The public keys as a JSON Web Key Set.
    pub fn jwks(&self) -> String {
        self.keyring.trust().ring.jwks().to_owned()
    }

    /// Ends one token: durable in the store, then refused here, then returned. Also one that has expired: the clock may be
    /// wrong.
    ///
    /// # Errors
    /// The store's; then nothing was promised.
    pub async fn revoke(&self, signed: &Signed, now: UnixTime) -> Result<(), Refusal> {
        let claims = signed.claims();
        let revocation = Revocation {
            key: signed.keys().token,
            kind: Kind::Token,
            generation: Default::default(),
            at: now,
            keep_until: keep_token_until(claims.expires, now),
        };
        Ok(self.store.revoke(vec![revocation]).await?)
    }

    /// Until when a revocation of all tokens of an account must be kept.
    pub fn keep_generation_until(&self, now: UnixTime) -> UnixTime {
        keep_generation_until(self.settings.longest, now)
    }

    /// For the store, which confirms that the caller's token is still live when it does what he asks.
    ///
    /// # Errors
    /// [`Refusal::Revoked`] when it is known to be dead already; the store's.
    pub async fn warrant(&self, caller: &Caller) -> Result<Warrant, Refusal> {
        match caller.claims().generation {
            Some(generation) => caller.warrant(generation),
            None => caller.warrant(self.account_of(caller).await?.generation),
        }
    }

    /// Has the store confirm it where nothing is done but telling.
    ///
    /// # Errors
    /// [`Refusal::Revoked`] when the token is dead; the store's.
    pub async fn confirm(&self, warrant: Warrant) -> Result<(), Refusal> {
        if self.store.honours(warrant).await? { Ok(()) } else { Err(Refusal::Revoked) }
    }

    /// Whether the token of a caller who was let in has been revoked meanwhile.
    pub fn is_revoked(&self, caller: &Caller) -> bool {
        let leeway = self.settings.tokens.leeway;
        !caller.signed().is_trusted(&self.keyring) || caller.signed().is_revoked(&self.blocklist, leeway)
    }

    /// When the token of a caller expires, the leeway included.
    pub fn expires(&self, caller: &Caller) -> UnixTime {
        caller.claims().expires + self.settings.tokens.leeway
    }
}

/// The revocations in the store that end the token: for commands, which keep no blocklist, and where memory may be late.
///
/// # Errors
/// The store's.
pub async fn revocations_of(
    store: &Store,
    claims: &tokens::Claims,
    leeway: Duration,
) -> Result<Vec<Revocation>, crate::store::Error> {
    let keys = credential::keys(claims);
    let keys = [Some(keys.token), keys.session, Some(keys.subject)].into_iter().flatten().collect();
    let ends = |revocation: &Revocation| credential::is_ended(claims, revocation, leeway);
    Ok(store.find_revocations(keys).await?.into_iter().filter(ends).collect())
}

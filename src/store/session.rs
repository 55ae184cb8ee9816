//! Records of sessions: what opens, continues and ends them.

use std::time::Duration;

use crate::clock::UnixTime;
use crate::model::{AccountId, Generation, SessionId, TokenId, Username};
use crate::secret::Secret;
use crate::store::{Key, Revocation};

/// A revocation is kept for this long beyond the last moment of what it ends, so that a stepped clock or a raised leeway
/// revives nothing.
pub const RETENTION: Duration = Duration::from_secs(3600);

/// A session that is about to be opened.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// A fresh one.
    pub id: SessionId,
    /// Now.
    pub at: UnixTime,
    /// When its last token expires, as far as is known yet.
    pub expires: UnixTime,
    /// When its access token expires.
    pub access_expires: UnixTime,
    /// How many live sessions the account may have, this one included; only [`Store::open_session`] looks at it.
    ///
    /// [`Store::open_session`]: crate::store::Store::open_session
    pub limit: u32,
    /// Where the client is, for the user to recognise it.
    pub address: Option<String>,
    /// What the client says it is, for the user to recognise it.
    pub user_agent: Option<String>,
}

/// A refresh token on its way to a successor.
#[derive(Clone, Copy, Debug)]
pub struct Use {
    /// Of its `jti`.
    pub token: Key,
    /// Whose it is.
    pub account: AccountId,
    /// The account's, as it was read.
    pub generation: Generation,
    /// Now.
    pub at: UnixTime,
    /// When the last token of the session expires, the successors included.
    pub expires: UnixTime,
    /// When the access token expires that this refresh gives.
    pub access_expires: UnixTime,
}

/// What a refresh token is turned in for, where refresh tokens rotate.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// The `jti` of the refresh token that takes its place, unless another was faster: a fresh one.
    pub successor: TokenId,
    /// When that expires.
    pub expires: UnixTime,
    /// For how long after it was first turned in the old one gets the same successor, whatever came of that.
    pub grace: Duration,
}

/// The refresh token that another was turned in for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Successor {
    /// Its `jti`.
    pub token: TokenId,
    /// When it was first issued.
    pub issued: UnixTime,
    /// When it expires.
    pub expires: UnixTime,
}

/// What became of a refresh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refreshed {
    /// An access token may be issued and, where they rotate, this refresh token.
    Granted(Option<Successor>),
    /// The session was refreshed too often.
    TooOften {
        /// When it may be refreshed again.
        until: UnixTime,
    },
    /// Session, token or account are no longer what they were.
    Refused,
    /// The token had been turned in long before. Somebody else has it: the session has been ended.
    Reused(Revocation),
}

/// A token that was found live: what must still hold when the store does what its holder asks.
#[derive(Clone, Debug)]
pub struct Warrant {
    /// Its `sub`.
    pub username: Username,
    /// Its `gen`; of one without it, the account's when it was found live.
    pub generation: Generation,
    /// Of its `jti`.
    pub token: Key,
    /// Of its `sid`, when it has one.
    pub session: Option<Key>,
}

/// A password that takes the place of another, and the session that goes on from there.
#[derive(Clone, Debug)]
pub struct NewPassword {
    /// Whose it is.
    pub account: AccountId,
    /// The account's, as it was read before the old password was checked.
    pub generation: Generation,
    /// Its hash, a PHC string.
    pub hash: Secret,
    /// Opened when all others have ended.
    pub session: NewSession,
}

/// A session as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// The `sid` of its tokens.
    pub id: SessionId,
    /// Whose it is.
    pub account: AccountId,
    /// The login.
    pub created: UnixTime,
    /// The last login or refresh.
    pub last_used: UnixTime,
    /// When its last token expires.
    pub expires: UnixTime,
    /// Where the client was at the login.
    pub address: Option<String>,
    /// What the client said it was at the login.
    pub user_agent: Option<String>,
}

/// A place in the list of an account's sessions: the one that a page ended with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Its last login or refresh.
    pub last_used: UnixTime,
    /// Its id.
    pub id: SessionId,
}

/// Which part of a list of sessions is wanted.
#[derive(Clone, Debug)]
pub struct SessionPage {
    /// The sessions after this one; `None`: the first page.
    pub after: Option<Cursor>,
    /// The largest number of sessions.
    pub limit: u32,
}

/// What became of an administrator's wish to delete all accounts but his own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cleared {
    /// They are gone; the end of their tokens.
    Done(Vec<Revocation>),
    /// He is no administrator any more.
    NoAdministrator,
    /// His token is dead.
    Refused,
}

/// What became of the wish to end one of one's own sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It has ended.
    Done(Revocation),
    /// The account has no such session, or none that is live.
    Unknown,
    /// The token of the one who asks is dead.
    Refused,
}

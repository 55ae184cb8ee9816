//! Accounts: registering, authenticating, and what an administrator does to them.

mod legacy;
mod password;
mod hash_queue;
mod attempts;
mod unsettled;
mod turns;
mod login_rate;

use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::clock::{self, UnixTime};
use crate::config;
use crate::model::{Role, Username, UsernameError};
use crate::secret::Secret;
use crate::store::{self, NewAccount, NewPassword, NewSession, Registered, Revocation, Store, Warrant};

pub use crate::store::{Account, Cleared};
pub use attempts::Ledger;
pub use legacy::{Legacy, Unusable};
pub use password::{Error as HashError, Hasher};

use attempts::{Guard, Try};
use password::{Asker, Stored, Verdict};

/// From the arrival of an attempt to its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);

/// The longest password, in bytes.
pub const MAX_PASSWORD: usize = 1024;

/// Why an account was not made or not opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name breaks a rule.
    #[error(transparent)]
    Username(#[from] UsernameError),
    /// The password has fewer bytes than this.
    #[error("A password has at least {0} bytes")]
    PasswordTooShort(usize),
    /// The password has more than 1024 bytes.
    #[error("A password has at most 1024 bytes")]
    PasswordTooLong,
    /// The name is taken.
    #[error("the name {0} is taken")]
    Taken(Username),
    /// Name and password do not belong together.
    #[error("wrong credentials")]
    WrongCredentials {
        /// Whether there is an account of that name at all.
        known: bool,
    },
    /// There were too many attempts; how long until the next one may be made. The password was not looked at.
    #[error("too many attempts")]
    TooManyAttempts(Duration),
    /// The hashing threads.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Who wants an account.
pub struct Applicant<'a> {
    /// The name, not yet judged.
    pub username: &'a str,
    /// The password, not yet judged.
    pub password: Secret,
    /// What the account is to be.
    pub roles: Vec<Role>,
    /// Its first session, made in the same transaction.
    pub session: Option<NewSession>,
    /// From where, if that counts.
    pub address: Option<IpAddr>,
    /// Now.
    pub at: UnixTime,
}

/// A user's wish for another password.
pub struct Exchange {
    /// The live token of the one who asks.
    pub by: Warrant,
    /// The password so far, not yet judged.
    pub old: Secret,
    /// The one to come, not yet judged.
    pub new: Secret,
    /// The session that begins when all others have ended.
    pub session: NewSession,
    /// Until when the end of the others must be kept.
    pub keep_until: UnixTime,
    /// From where he asks.
    pub address: IpAddr,
}

/// Someone who says that an account is his.
pub struct Attempt {
    /// Its name, not yet judged.
    pub username: String,
    /// Its password, not yet judged.
    pub password: Secret,
    /// From where.
    pub address: IpAddr,
    /// Now.
    pub now: UnixTime,
}

/// What may be changed about an account. Each ends all its tokens.
pub enum Change {
    /// It is gone.
    Delete,
    /// It has these roles.
    Roles(Vec<Role>),
    /// It is barred from logging in, or let in again.
    Disabled(bool),
    /// It has this password; the old one is not asked for.
    Password(Secret),
}

/// See the module.
#[derive(Clone)]
pub struct Accounts {
    store: Store,
    hasher: Hasher,
    rules: config::Password,
    guard: Guard,
}

impl Accounts {
    /// Builds the part; `ledger` is that of the process.
    pub fn new(store: Store, hasher: Hasher, ledger: Ledger, settings: &config::Identity) -> Self {
        let guard = Guard::new(store.clone(), settings.attempts, ledger);
        Self { store, hasher, rules: settings.password, guard }
    }

    /// Checks the rules for a name and a password that are about to be set.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn check_rules(&self, username: &str, password: &Secret) -> Result<Username, Error> {
        let username = Username::parse(username)?;
        self.check_password(password)?;
        Ok(username)
    }

    fn check_password(&self, password: &Secret) -> Result<(), Error> {
        if password.len() < self.rules.min_length {
            return Err(Error::PasswordTooShort(self.rules.min_length));
        }
        if password.len() > MAX_PASSWORD {
            return Err(Error::PasswordTooLong);
        }
        Ok(())
    }

    /// Makes an account. One that comes from an address counts against it, whatever becomes of it.
    ///
    /// # Errors
    /// The rule that is broken, [`Error::Taken`], [`Error::TooManyAttempts`], a full queue, the store.
    pub async fn register(&self, applicant: Applicant<'_>) -> Result<Account, Error> {
        let (address, at, deadline) = (applicant.address, applicant.at, deadline());
        let username = self.check_rules(applicant.username, &applicant.password)?;
        let admission = match address {
            Some(address) => Some(self.guard.admit(Try { name: None, address, at, deadline }).await?),
            None => None,
        };
        let session = applicant.session.clone();
        let account = match self.prepare(username, applicant, deadline).await {
            Ok(account) => account,
            Err(error) => {
                // With any other error it came to nothing, and does not count.
                if let (Some(admission), Error::Taken(_)) = (admission, &error) {
                    admission.stand();
                }
                return Err(error);
            }
        };
        // In a task, which goes on when the client hangs up: what is committed counts.
        let accounts = self.clone();
        let created = tokio::spawn(async move {
            let created = accounts.create(account, session).await;
            match (&created, admission, address) {
                (Ok(account), Some(admission), Some(address)) => {
                    admission.stand();
                    accounts.guard.welcome(account.id, (address, at), None);
                }
                (Err(Error::Taken(_)), Some(admission), _) => admission.stand(),
                (_, admission, _) => drop(admission),
            }
            created
        });
        created.await.unwrap_or(Err(Error::Hash(HashError::Ended)))
    }

    /// The account, with its hash, that is to be made.
    async fn prepare(
        &self,
        username: Username,
        applicant: Applicant<'_>,
        deadline: Instant,
    ) -> Result<NewAccount, Error> {
        let Applicant { password, roles, address, at, .. } = applicant;
        // A look before the hash: a taken name should not cost 13 ms. The insert decides.
        if self.store.find_account(&username).await?.is_some() {
            return Err(Error::Taken(username));
        }
        let hash =
            self.hasher_for(address).hash(password, deadline).await.inspect_err(|error| self.guard.note(error))?;
        Ok(NewAccount { username, hash, roles, at })
    }

    async fn create(&self, account: NewAccount, session: Option<NewSession>) -> Result<Account, Error> {
        let username = account.username.clone();
        match self.store.register(account, session).await? {
            Registered::Created(account) => Ok(account),
            Registered::Taken => Err(Error::Taken(username)),
        }
    }

    /// The account of that name, when the password is its own. An unknown name and a disabled account cost the same.
    /// Failures are counted, and beyond what is free the next attempt has to wait.
    ///
    /// # Errors
    /// [`Error::WrongCredentials`], [`Error::TooManyAttempts`], a full queue, the store.
    pub async fn authenticate(&self, attempt: Attempt) -> Result<Account, Error> {
        // In a task, which goes on when whoever asked hangs up: a right password must not stay a failure, nor a wrong one be
        // none.
        let asker = Arc::new(Asker);
        let accounts = self.clone();
        let gone = Arc::downgrade(&asker);
        let deadline = deadline();
        let settled = tokio::spawn(async move { accounts.settle(attempt, (gone, deadline)).await });
        settled.await.unwrap_or(Err(Error::Hash(HashError::Ended)))
    }

    async fn settle(&self, attempt: Attempt, asker: (Weak<Asker>, Instant)) -> Result<Account, Error> {
        let (address, at, deadline) = (attempt.address, attempt.now, asker.1);
        let admission = self.guard.admit(Try { name: Some(&attempt.username), address, at, deadline }).await?;
        let hasher = self.hasher_for(Some(address));
        let hasher = if admission.is_known() { hasher.first() } else { hasher };
        match self.recognise(attempt, &hasher, asker).await {
            Ok((account, outdated)) => {
                self.guard.welcome(account.id, (address, at), Some(admission));
                if let Some(password) = outdated {
                    self.renew_hash(&account, password, address).await;
                }
                Ok(account)
            }
            Err(wrong @ Error::WrongCredentials { .. }) => {
                admission.stand();
                Err(wrong)
            }
            // Whether it was right remains unknown.
            Err(outage) => Err(outage),
        }
    }

    /// The account, and its password where the hash deserves to be made anew.
    async fn recognise(
        &self,
        attempt: Attempt,
        hasher: &Hasher,
        asker: (Weak<Asker>, Instant),
    ) -> Result<(Account, Option<Secret>), Error> {
        let Attempt { username, password, .. } = attempt;
        // A name or password that breaks a rule cannot be an account's: it is just wrong, and must not be hashed whole.
        let account = match Username::parse(&username) {
            Ok(username) => self.store.find_account(&username).await?,
            Err(_) => None,
        };
        let known = account.is_some();
        let oversized = password.len() > MAX_PASSWORD;
        let offered = if oversized { Secret::new("") } else { password.clone() };
        // Who may not log in anyway is not compared: the time would tell that the password was right.
        let account = account.filter(|account| !account.disabled && !oversized);
        let hash = account.as_ref().map(|account| account.hash.clone());
        let old = self.store.find_old_hash(&username).await?;
        let verdict = hasher.verify(offered, Stored { hash, old }, asker).await;
        let verdict = verdict.inspect_err(|error| self.guard.note(error))?;
        match (account, verdict) {
            (Some(account), Verdict::Right) => Ok((account, None)),
            (Some(account), Verdict::RightButOutdated) => Ok((account, Some(password))),
            (_, _) => Err(Error::WrongCredentials { known }),
        }
    }

    /// Replaces the password of an account by one that its user chose, ends all its tokens and opens its next session, in
    /// one transaction: the account, of its new generation. `None`, and nothing done, when the token is dead or the account has changed meanwhile.
    ///
    /// # Errors
    /// A new password that breaks a rule; for the old one [`Error::WrongCredentials`] and [`Error::TooManyAttempts`]; a full
    /// queue, the store.
    pub async fn change_password(&self, exchange: Exchange) -> Result<Option<Account>, Error> {
        let Exchange { by, old, new, session, keep_until, address } = exchange;
        self.check_password(&new)?;
        let attempt = Attempt { username: by.username.to_string(), password: old, address, now: session.at };
        let account = self.authenticate(attempt).await?;
        let hash =
            self.hasher_for(Some(address)).hash(new, deadline()).await.inspect_err(|error| self.guard.note(error))?;
        let new = NewPassword { account: account.id, generation: account.generation, hash, session };
        let revocation = self.store.set_own_hash(by, new, keep_until).await?;
        Ok(revocation.map(|revocation| Account { generation: revocation.generation, ..account }))
    }

    /// The hashing threads, as one client may use them.
    fn hasher_for(&self, address: Option<IpAddr>) -> Hasher {
        let address = address.filter(|_| self.guard.minds_addresses());
        address.map_or_else(|| self.hasher.clone(), |address| self.hasher.on_behalf_of(address))
    }

    /// Replaces a hash of other parameters, or of another program. A login does not fail for want of it: the next one
    /// tries again.
    async fn renew_hash(&self, account: &Account, password: Secret, address: IpAddr) {
        let renewed = match self.hasher_for(Some(address)).hash(password, deadline()).await {
            Ok(hash) => self.store.upgrade_hash(account.id, account.hash.clone(), hash).await.map_err(Error::from),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = renewed {
            tracing::warn!(%error, "a password hash was not renewed; the next login tries again");
        }
    }

    /// The account of that name.
    ///
    /// # Errors
    /// The store's.
    pub async fn find(&self, username: &Username) -> Result<Option<Account>, Error> {
        Ok(self.store.find_account(username).await?)
    }

    /// Up to `limit` accounts in the order of their names, after the name `after`.
    ///
    /// # Errors
    /// The store's.
    pub async fn list(&self, after: Option<&str>, limit: u32) -> Result<Vec<Account>, Error> {
        Ok(self.store.list_accounts(after, limit).await?)
    }

    /// Deletes every account but that of an administrator whose token is live; the store has already committed it. `None`:
    /// whoever it is may do it, and no account is spared.
    ///
    /// # Errors
    /// The store's.
    pub async fn delete_others(
        &self,
        by: Option<Warrant>,
        at: UnixTime,
        keep_until: UnixTime,
    ) -> Result<Cleared, Error> {
        Ok(self.store.delete_other_accounts(by, at, keep_until).await?)
    }

    /// Changes an account, and ends its tokens in the same transaction. `None` when there is none of that name.
    ///
    /// # Errors
    /// A password that breaks a rule, a full queue, the store.
    pub async fn change(
        &self,
        username: &Username,
        change: Change,
        at: UnixTime,
        keep_until: UnixTime,
    ) -> Result<Option<Revocation>, Error> {
        Ok(match change {
            Change::Delete => self.store.delete_account(username, at, keep_until).await?,
            Change::Roles(roles) => self.store.set_roles(username, roles, at, keep_until).await?,
            Change::Disabled(disabled) => self.store.set_disabled(username, disabled, at, keep_until).await?,
            Change::Password(password) => {
                self.check_password(&password)?;
                let hash = self.hasher.hash(password, deadline()).await?;
                self.store.set_hash(username, hash, at, keep_until).await?
            }
        })
    }
}

fn deadline() -> Instant {
    clock::monotonic() + ANSWER_TIMEOUT
}

#[cfg(test)]
mod tests;

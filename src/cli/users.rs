//! `portcullis users`: accounts, in the store itself; a running gateway hears of it within a second.

use std::net::IpAddr;

use clap::Subcommand;

use crate::accounts::{Accounts, Applicant, Change, Hasher, Ledger};
use crate::cli::password::PasswordSource;
use crate::cli::witness::Witness;
use crate::cli::{ConfigPath, Refused, block_on, keep_generation_until, load, open_existing_store, open_store, say};
use crate::clock;
use crate::config::Config;
use crate::model::{Household, Role, Username};
use crate::store::Store;
use crate::telemetry::audit::{About, Event};

/// Accounts listed at once.
const PAGE: u32 = 1000;

#[derive(Subcommand)]
pub enum Users {
    /// Make an account. The password is asked for, or read from a file or from standard input.
    Add {
        name: String,
        /// A role; may be given several times.
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<String>,
        #[command(flatten)]
        password: PasswordSource,
        #[command(flatten)]
        config: ConfigPath,
    },
    /// List all accounts.
    List {
        #[command(flatten)]
        config: ConfigPath,
    },
    /// Delete an account; its tokens end.
    Delete {
        name: String,
        #[command(flatten)]
        config: ConfigPath,
    },
    /// Replace an account's roles (none: take all away); its tokens end.
    Roles {
        name: String,
        roles: Vec<String>,
        #[command(flatten)]
        config: ConfigPath,
    },
    /// Set a new password; the account's tokens end.
    Password {
        name: String,
        #[command(flatten)]
        password: PasswordSource,
        #[command(flatten)]
        config: ConfigPath,
    },
    /// Bar an account from logging in; its tokens end.
    Disable {
        name: String,
        /// Let it in again, as `users enable` does.
        #[arg(long)]
        undo: bool,
        #[command(flatten)]
        config: ConfigPath,
    },
    /// Let a disabled account log in again; its old tokens stay dead.
    Enable {
        name: String,
        #[command(flatten)]
        config: ConfigPath,
    },
    /// Clear the failed logins that are counted against a name or an address, which need not wait any more.
    Unlock {
        /// As it is typed at logins; there need not be such an account.
        #[arg(required_unless_present = "address")]
        name: Option<String>,
        /// An address; of IPv6 its first 64 bits count.
        #[arg(long)]
        address: Option<IpAddr>,
        #[command(flatten)]
        config: ConfigPath,
    },
}

/// The store and the accounts in it.
struct Office {
    config: Config,
    store: Store,
    accounts: Accounts,
}

impl Office {
    fn open(path: &ConfigPath, make: bool) -> Result<Self, Refused> {
        let config = load(&path.path)?;
        let store = if make { open_store(&config)? } else { open_existing_store(&config)? };
        let hasher = Hasher::start(config.identity.password.argon2, 1)?;
        let accounts = Accounts::new(store.clone(), hasher, Ledger::default(), &config.identity);
        Ok(Self { config, store, accounts })
    }
}

impl Users {
    pub fn run(self) -> Result<(), Refused> {
        match self {
            Self::Add { name, roles, password, config } => {
                let office = Office::open(&config, true)?;
                let (username, roles) = (Username::parse(&name)?, parse_roles(&roles)?);
                let mut witness = Witness::open(&office.config)?;
                let password = password.read(&username)?;
                let about = about(&username, Some(&roles));
                let at = clock::now();
                let applicant = Applicant { username: &name, password, roles, session: None, address: None, at };
                block_on(async { Ok(office.accounts.register(applicant).await?) })?;
                witness.tell(Event::UserAdd, &about);
                say(format_args!("User {username} was created"));
                Ok(())
            }
            Self::List { config } => Office::open(&config, false)?.list(),
            Self::Delete { name, config } => Office::open(&config, false)?.change(&name, Change::Delete, "was deleted"),
            Self::Roles { name, roles, config } => {
                let roles = parse_roles(&roles)?;
                Office::open(&config, false)?.change(&name, Change::Roles(roles), "has new roles")
            }
            Self::Password { name, password, config } => {
                let password = password.read(&Username::parse(&name)?)?;
                Office::open(&config, false)?.change(&name, Change::Password(password), "has a new password")
            }
            Self::Disable { name, undo: false, config } => {
                Office::open(&config, false)?.change(&name, Change::Disabled(true), "is disabled")
            }
            Self::Disable { name, undo: true, config } | Self::Enable { name, config } => {
                Office::open(&config, false)?.enable(&name)
            }
            Self::Unlock { name, address, config } => {
                let config = load(&config.path)?;
                let store = open_existing_store(&config)?;
                let mut witness = Witness::open(&config)?;
                let more = address.map(|address| ("address", address.to_string()));
                let about = About { user: name.clone(), more, ..About::default() };
                block_on(unlock(&store, name, address))?;
                witness.tell(Event::UserUnlock, &about);
                Ok(())
            }
        }
    }
}

impl Office {
    fn change(&self, name: &str, change: Change, done: &str) -> Result<(), Refused> {
        let username = Username::parse(name)?;
        let mut witness = Witness::open(&self.config)?;
        let (event, about) = told(&username, &change);
        let changed = block_on(async {
            let now = clock::now();
            let keep_until = keep_generation_until(&self.store, &self.config, now).await?;
            Ok(self.accounts.change(&username, change, now, keep_until).await?)
        })?;
        if changed.is_none() {
            return Err(Refused::Input(format!("there is no user {username}; `portcullis users list` shows all")));
        }
        witness.tell(event, &about);
        say(format_args!("User {username} {done}; a running gateway refuses the old tokens within a second"));
        Ok(())
    }

    /// One that may log in anyway keeps its tokens.
    fn enable(&self, name: &str) -> Result<(), Refused> {
        let username = Username::parse(name)?;
        let account = block_on(async { Ok(self.accounts.find(&username).await?) })?;
        if account.is_some_and(|account| !account.disabled) {
            say(format_args!("User {username} is not disabled; nothing was changed"));
            return Ok(());
        }
        self.change(name, Change::Disabled(false), "may log in again")
    }

    fn list(&self) -> Result<(), Refused> {
        block_on(async {
            let mut after: Option<String> = None;
            loop {
                let page = self.accounts.list(after.as_deref(), PAGE).await?;
                for account in &page {
                    let roles: Vec<&str> = account.roles.iter().map(Role::as_str).collect();
                    let disabled = if account.disabled { "  disabled" } else { "" };
                    say(format_args!("{}  {}  [{}]{disabled}", account.username, account.created, roles.join(" ")));
                }
                match page.last() {
                    Some(last) if page.len() == PAGE as usize => after = Some(last.username.as_str().to_owned()),
                    _ => return Ok(()),
                }
            }
        })
    }
}

/// A running gateway counts in the store, and hears of it at once.
async fn unlock(store: &Store, name: Option<String>, address: Option<IpAddr>) -> Result<(), Refused> {
    let tell = |who: &str, counters| match counters {
        0 => say(format_args!("Nothing was counted against {who}")),
        _ => say(format_args!("{who} may try again at once")),
    };
    if let Some(name) = name {
        tell(&format!("User {name}"), store.unlock_account(&name).await?);
    }
    if let Some(address) = address {
        tell(&format!("Address {address}"), store.unlock_address(Household::of(address)).await?);
    }
    Ok(())
}

/// What the audit is told of a change.
fn told(username: &Username, change: &Change) -> (Event, About) {
    match change {
        Change::Delete => (Event::UserDelete, about(username, None)),
        Change::Roles(roles) => (Event::UserRoles, about(username, Some(roles))),
        Change::Disabled(true) => (Event::UserDisable, about(username, None)),
        Change::Disabled(false) => (Event::UserEnable, about(username, None)),
        Change::Password(_) => (Event::UserPassword, about(username, None)),
    }
}

fn about(username: &Username, roles: Option<&Vec<Role>>) -> About {
    let roles = roles.map(|roles| ("roles", roles.iter().map(Role::as_str).collect::<Vec<_>>().join(",")));
    About { user: Some(username.to_string()), more: roles, ..About::default() }
}

fn parse_roles(roles: &[String]) -> Result<Vec<Role>, Refused> {
    let parse = |role: &String| Role::parse(role).map_err(|error| Refused::Input(format!("{role:?}: {error}")));
    roles.iter().map(parse).collect()
}

//! `portcullis import flask app.db`: the accounts and the revoked tokens of a Flask application. Repeating it is harmless.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::accounts::Legacy;
use crate::cli::witness::Witness;
use crate::cli::{ConfigPath, Refused, block_on, load, open_store, say};
use crate::clock::{self, UnixTime};
use crate::config::{self, Config};
use crate::model::{Shown, Username};
use crate::secret::Secret;
use crate::sessions;
use crate::store::flask::{Database, Names, User};
use crate::store::{Imported, Key, NewAccount, Store};
use crate::telemetry::audit::{About, Event, Outcome};

/// Rows of one transaction: few, because a running gateway's logouts wait meanwhile.
const BATCH: usize = 1000;

#[derive(Subcommand)]
pub enum Import {
    /// The SQLite file of a Flask application: users with passlib's or Werkzeug's hashes, and revoked tokens. What is
    /// there already is left alone. Passwords go on working, and are hashed anew at the next login.
    ///
    /// Each user who cannot be taken over is named, with the reason, and the summary says how many there are; that is no
    /// failure: the exit code is 0 when all of the file has been gone through.
    Flask(Flask),
}

#[derive(Args)]
pub struct Flask {
    /// The application's database. It is only read.
    file: PathBuf,
    /// The longest life of a token that the application issued: for so long its revocations are remembered. The default
    /// is that of flask-jwt-extended's refresh tokens.
    #[arg(long, value_name = "DURATION", default_value = "30d", value_parser = duration)]
    lifetime: Duration,
    /// The table of users, where it has no usual name.
    #[arg(long, value_name = "TABLE")]
    users_table: Option<String>,
    /// Its column with the name.
    #[arg(long, value_name = "COLUMN")]
    name_column: Option<String>,
    /// Its column with the password's hash.
    #[arg(long, value_name = "COLUMN")]
    password_column: Option<String>,
    /// The table of revoked tokens, where it has no usual name.
    #[arg(long, value_name = "TABLE")]
    revoked_table: Option<String>,
    #[command(flatten)]
    config: ConfigPath,
}

impl Import {
    pub fn run(self) -> Result<(), Refused> {
        let Self::Flask(flask) = self;
        flask.run()
    }
}

impl Flask {
    fn run(self) -> Result<(), Refused> {
        let config = load(&self.config.path)?;
        let names = Names {
            users: self.users_table,
            name: self.name_column,
            password: self.password_column,
            revoked: self.revoked_table,
        };
        // All of it is read before anything is written.
        let database = Database::open(&self.file, &names)?;
        let (users, revoked) = (database.users()?, database.revoked()?);
        let mut witness = Witness::open(&config)?;
        let store = open_store(&config)?;
        let mut taker = Taker { store, database, now: clock::now(), users: 0, revoked: 0 };
        let file = Some(("file", self.file.display().to_string()));
        let mut about = About { more: file, ..About::default() };
        // Each batch stays, whatever becomes of the next: who dies between them has at least told what he was about to do.
        witness.tell(Event::ImportBegin, &about);
        let outcome = block_on(async {
            taker.take_users(users).await?;
            taker.take_revoked(revoked, self.lifetime.max(longest(&config))).await
        });
        about.taken = Some(format!("{} users, {} revoked tokens", taker.users, taker.revoked));
        let ended = if outcome.is_ok() { Outcome::Success } else { Outcome::Failure("unavailable") };
        witness.tell_of(Event::Import, ended, &about);
        if let Err(error) = outcome {
            let Taker { users, revoked, .. } = taker;
            return Err(Refused::Input(format!(
                "{error}; {users} users and {revoked} revoked tokens were taken over before, and stay: import again to go on"
            )));
        }
        tell_of_tokens(&config);
        Ok(())
    }
}

fn longest(config: &Config) -> Duration {
    config.tokens.access_ttl.max(config.tokens.refresh_ttl)
}

fn duration(text: &str) -> Result<Duration, String> {
    config::parse_duration(text).ok_or_else(|| "a duration such as 12h or 30d, at most ten years".to_owned())
}

/// An account that can be made of a user, or why there is none.
fn judge(user: User, seen: &mut HashSet<String>, at: UnixTime) -> Result<NewAccount, (String, String)> {
    let Some(name) = user.name else { return Err((String::new(), "its name is no text".to_owned())) };
    // As SQLAlchemy's `first()` would find it.
    if !seen.insert(name.clone()) {
        return Err((name, "the file has this name more than once; the first one counts".to_owned()));
    }
    let username = Username::parse(&name).map_err(|rule| (name.clone(), rule.to_string()))?;
    let hash = user.hash.unwrap_or(Secret::new(""));
    match std::str::from_utf8(hash.expose()).map(Legacy::parse) {
        Ok(Ok(_)) => Ok(NewAccount { username, hash, roles: Vec::new(), at }),
        Ok(Err(why)) => Err((name, why.to_string())),
        Err(_) => Err((name, "its password hash is no text".to_owned())),
    }
}

/// Names that were not taken may hold anything.
fn tell(name: &str, why: &str) {
    say(format_args!("not taken over: {:?}: {why}", Shown(name)));
}

/// Takes over, and counts what it took.
struct Taker {
    store: Store,
    database: Database,
    now: UnixTime,
    users: usize,
    revoked: usize,
}

impl Taker {
    async fn take_users(&mut self, users: Vec<User>) -> Result<(), Refused> {
        let (mut seen, mut fit, mut refused, mut there) = (HashSet::new(), Vec::new(), 0, 0);
        let all = users.len();
        for user in users {
            match judge(user, &mut seen, self.now) {
                Ok(account) => fit.push(account),
                Err((name, why)) => {
                    tell(&name, &why);
                    refused += 1;
                }
            }
        }
        for batch in fit.chunks(BATCH) {
            let outcomes = self.store.import_accounts(batch.to_vec()).await?;
            for (account, outcome) in batch.iter().zip(outcomes) {
                let name = account.username.as_str();
                match outcome {
                    Imported::Added => self.users += 1,
                    Imported::Exists => {
                        tell(name, "there is an account of that name, which is left alone");
                        there += 1;
                    }
                    Imported::Deleted => {
                        tell(name, "it was imported before, and deleted since; `portcullis users add` makes it anew");
                        there += 1;
                    }
                }
            }
        }
        let (taken, table) = (self.users, self.database.users_table());
        say(format_args!("users: {taken} taken over from {table}, {there} known already, {refused} not usable"));
        if refused > 0 {
            say(format_args!(
                "  {refused} of {all} were left out, and cannot log in: make them with `portcullis users add NAME`, with a new \
                 password."
            ));
        }
        Ok(())
    }

    /// Only their ids are known, not when they expire: each is kept for as long as any token of the application may live,
    /// which is also noted, because it bounds every later revocation of all of an account's tokens.
    async fn take_revoked(&mut self, revoked: Vec<Result<String, &str>>, life: Duration) -> Result<(), Refused> {
        let before = self.store.raise_longest_lifetime(Duration::ZERO).await?;
        let longest = self.store.raise_longest_lifetime(life).await?;
        let tables = self.database.revoked_tables();
        if tables.is_empty() {
            say(
                "revoked tokens: the file has no table of them with a column jti; if it has, name it with --revoked-table",
            );
        } else {
            let (mut keys, mut seen, mut unusable) = (Vec::new(), HashSet::new(), BTreeMap::<&str, usize>::new());
            for jti in revoked {
                match jti.map(|jti| Key::token(None, &jti)) {
                    Ok(key) if seen.insert(key) => keys.push(key),
                    Ok(_) => {}
                    Err(kind) => *unusable.entry(kind).or_default() += 1,
                }
            }
            let keep_until = sessions::keep_generation_until(longest, self.now);
            for batch in keys.chunks(BATCH) {
                let life = keep_until.since(self.now);
                self.revoked += self.store.import_revoked(batch.to_vec(), self.now, life).await?;
            }
            let (new, tables) = (self.revoked, tables.join(", "));
            let known = keys.len() - new;
            let left_out: usize = unusable.values().sum();
            say(format_args!(
                "revoked tokens: {new} taken over from {tables}, {known} known already, {left_out} not usable"
            ));
            if left_out > 0 {
                let kinds: Vec<String> = unusable.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
                say(format_args!("  Not usable as a jti, which is text: {}.", kinds.join(", ")));
            }
            let life = config::show_duration(longest);
            say(format_args!(
                "  The file does not tell when they expire: they are remembered until {keep_until}, for tokens that live \
                 {life} at most. If the application's live longer, say so with --lifetime."
            ));
        }
        if longest > before && before > Duration::ZERO {
            say(
                "  A running gateway reckons with that longest life once it has reloaded its configuration: send it SIGHUP.",
            );
        }
        Ok(())
    }
}

/// What is needed for the application's live tokens to go on working.
fn tell_of_tokens(config: &Config) {
    if config.tokens.secret.is_none() {
        say(
            "live tokens: they are NOT accepted until tokens.secret is the application's JWT_SECRET_KEY; without it, its \
             users have to log in again",
        );
    }
    for (key, claim, value) in [("issuer", "iss", &config.tokens.issuer), ("audience", "aud", &config.tokens.audience)]
    {
        if let Some(value) = value {
            say(format_args!(
                "live tokens: those without {claim} {value:?} are NOT accepted, because tokens.{key} is set"
            ));
        }
    }
}

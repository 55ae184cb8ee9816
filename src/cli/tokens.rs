//! `portcullis tokens`: what a token says, and ending it.

use std::io::Read;

use clap::{Args, Subcommand};

use crate::cli::{ConfigPath, Refused, block_on, keep_generation_until, load, say};
use crate::clock;
use crate::config::Config;
use crate::model::Username;
use crate::sessions::{self, Keyring, keep_token_until};
use crate::store::{Key, Kind, Revocation, Store};
use crate::tokens::{Claims, Moment};

#[derive(Subcommand)]
pub enum Tokens {
    /// Show what a token says, and whether it is good now.
    Inspect {
        /// The token; `-` reads it from standard input.
        token: String,
        #[command(flatten)]
        config: ConfigPath,
    },
    /// Revoke a token, a session, or all tokens of a user. A running gateway hears of it within a second.
    Revoke {
        #[command(flatten)]
        what: What,
        #[command(flatten)]
        config: ConfigPath,
    },
}

/// Exactly one of these.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub struct What {
    /// The token; `-` reads it from standard input.
    token: Option<String>,
    /// A token by its `jti`.
    #[arg(long)]
    jti: Option<String>,
    /// All tokens of a session, by their `sid`.
    #[arg(long, value_name = "SID")]
    session: Option<String>,
    /// All tokens of a user.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
}

impl Tokens {
    pub fn run(self) -> Result<(), Refused> {
        match self {
            Self::Inspect { token, config } => {
                let config = load(&config.path)?;
                let store = Store::open_existing(&config.store)?;
                block_on(inspect(&config, &store, &read(&token)?))
            }
            Self::Revoke { what, config } => {
                let config = load(&config.path)?;
                let store = Store::open_existing(&config.store)?;
                block_on(what.revoke(&config, &store))
            }
        }
    }
}

/// The token, or what stands on standard input for `-`: an argument is seen by everyone on the machine.
pub fn read(token: &str) -> Result<String, Refused> {
    if token != "-" {
        return Ok(token.trim().to_owned());
    }
    let mut text = String::new();
    std::io::stdin().lock().take(64 * 1024).read_to_string(&mut text)?;
    Ok(text.trim().to_owned())
}

async fn verify(config: &Config, store: &Store, token: &str) -> Result<Claims, Refused> {
    let keyring = Keyring::load(store.clone(), &config.tokens).await?;
    Ok(keyring.read_token(token, &config.tokens)?)
}

async fn inspect(config: &Config, store: &Store, token: &str) -> Result<(), Refused> {
    let claims = verify(config, store, token).await?;
    say(serde_json::to_string_pretty(&claims.all)?);
    let now = clock::now();
    let at = Moment { now, leeway: config.tokens.leeway };
    claims.check_time(at)?;
    if sessions::is_revoked(store, &claims, at).await? {
        return Err(Refused("the signature is good; the token has been revoked".into()));
    }
    say(format_args!("good until {}", claims.expires));
    Ok(())
}

impl What {
    async fn revoke(self, config: &Config, store: &Store) -> Result<(), Refused> {
        let now = clock::now();
        let forever = keep_generation_until(store, config, now).await?;
        let (kind, key, keep_until, said) = if let Some(token) = self.token {
            let claims = verify(config, store, &read(&token)?).await?;
            if claims.has_expired(Moment { now, leeway: config.tokens.leeway }) {
                say("The token has expired; there is nothing to revoke");
                return Ok(());
            }
            let jti = claims.token.as_str();
            let key = Key::token(claims.issuer.as_deref(), jti);
            (Kind::Token, key, keep_token_until(claims.expires), format!("Token {jti}"))
        } else if let Some(jti) = self.jti {
            (Kind::Token, Key::token(None, &jti), forever, format!("Token {jti}"))
        } else if let Some(sid) = self.session {
            (Kind::Session, Key::session(None, &sid), forever, format!("Session {sid}"))
        } else {
            let username = Username::parse(&self.user.unwrap_or_default())?;
            return match store.raise_generation(&username, now, forever).await? {
                Some(_) => {
                    say(format_args!("All tokens of {username} have been revoked"));
                    Ok(())
                }
                None => Err(Refused(format!("there is no user {username}; `portcullis users list` shows all"))),
            };
        };
        store.revoke(vec![Revocation { key, kind, generation: Default::default(), at: now, keep_until }]).await?;
        say(format_args!("{said} has been revoked"));
        Ok(())
    }
}

//! `portcullis keys`: the keys that sign tokens, in the store itself; a running gateway hears of it within a second.

use std::time::Duration;

use clap::Subcommand;

use crate::cli::witness::Witness;
use crate::cli::{ConfigPath, Refused, block_on, load, open_existing_store, say};
use crate::clock::{self, UnixTime};
use crate::config::{Algorithm, Config};
use crate::sessions::{STANDBY, last_use, make};
use crate::store::{self, KeyState, SigningKey, Store};
use crate::telemetry::audit::{About, Event};

/// How long a key is known before it signs at the soonest: every gateway on the database has heard of it within a second.
const HEARD: Duration = Duration::from_secs(2);

#[derive(Subcommand)]
pub enum Keys {
    /// List the keys, the oldest first.
    List {
        #[command(flatten)]
        config: ConfigPath,
    },
    /// Make a new key. It is published now and signs in 15 minutes; the old one verifies until its last token has expired.
    Rotate {
        /// Let it sign as soon as all gateways on the database know it, after two seconds: services that verify with the
        /// published keys may not know it for ten minutes.
        #[arg(long)]
        now: bool,
        #[command(flatten)]
        config: ConfigPath,
    },
    /// Revoke a key, and with it every token that it has signed. If it is the one that signs, another does at once.
    Revoke {
        /// As `keys list` shows it.
        kid: String,
        /// Even when keys cannot be decrypted here, because store.encryption_key is lost. A gateway that runs with another one
        /// cannot sign from then on.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        config: ConfigPath,
    },
}

impl Keys {
    pub fn run(self) -> Result<(), Refused> {
        match self {
            Self::List { config } => {
                let (config, store) = open(&config)?;
                block_on(list(&config, &store))
            }
            Self::Rotate { now, config } => {
                let (config, store) = open(&config)?;
                block_on(rotate(&config, &store, now))
            }
            Self::Revoke { kid, force, config } => {
                let (config, store) = open(&config)?;
                block_on(revoke(&config, &store, kid, force))
            }
        }
    }
}

fn open(path: &ConfigPath) -> Result<(Config, Store), Refused> {
    let config = load(&path.path)?;
    let store = open_existing_store(&config)?;
    Ok((config, store))
}

async fn list(config: &Config, store: &Store) -> Result<(), Refused> {
    let found = store.load_keys().await?;
    if config.tokens.secret.is_some() {
        let state = if secret_signs(config) { "signing" } else { "verifying as long as it is configured" };
        say(format_args!("{:36}  HS256  {state}", "tokens.secret"));
    }
    for SigningKey { kid, algorithm, state, .. } in &found.keys {
        let state = match state {
            KeyState::Standby { signs_from } => format!("standby, signs from {signs_from}"),
            KeyState::Signing => "signing".to_owned(),
            KeyState::Verifying { until } => format!("verifying until {until}"),
            KeyState::Revoked { until } => format!("revoked, forgotten at {until}"),
        };
        say(format_args!("{kid:36}  {algorithm:5}  {state}"));
    }
    match found.unreadable.into_iter().next() {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

async fn rotate(config: &Config, store: &Store, at_once: bool) -> Result<(), Refused> {
    if secret_signs(config) {
        let text =
            "tokens.secret signs; change it in gateway.yaml, or set another tokens.algorithm to have keys made here";
        return Err(Refused::Input(text.into()));
    }
    let mut witness = Witness::open(config)?;
    let (now, algorithm) = (clock::now(), config.tokens.algorithm);
    let until = last_use(now, life(config, store).await?);
    let keys = load_all(store).await?;
    let standby = keys.iter().find_map(|key| match key.state {
        KeyState::Standby { signs_from } => Some((&key.kid, signs_from, key.created)),
        KeyState::Signing | KeyState::Verifying { .. } | KeyState::Revoked { .. } => None,
    });
    let signing = keys.iter().find(|key| key.state == KeyState::Signing).map(|key| key.kid.clone());
    let (done, kid, said) = match standby {
        Some((kid, signs_from, created)) if at_once => {
            await_heard(created).await;
            (promote(store, kid, signs_from, until).await?, kid.clone(), "signs from now on".to_owned())
        }
        Some((kid, signs_from, _)) => {
            return Err(Refused::Input(format!(
                "{kid} is the standby already, and signs from {signs_from}; --now does not wait"
            )));
        }
        None if at_once && signing.is_some() => {
            let signs_from = now + HEARD;
            let key = make(algorithm, KeyState::Standby { signs_from }, now)?;
            let kid = key.kid.clone();
            if !store.add_standby(key).await? {
                return Err(overtaken());
            }
            // Whatever comes in between, a running gateway lets it sign.
            witness.tell(Event::KeyRotate, &about(kid.clone()));
            await_heard(now).await;
            if !promote(store, &kid, signs_from, until).await? {
                return Err(overtaken());
            }
            say(format_args!("{kid} signs from now on"));
            return Ok(());
        }
        None if signing.is_none() => {
            let key = make(algorithm, KeyState::Signing, now)?;
            let kid = key.kid.clone();
            (store.replace_key(signing, key, until).await?, kid, "signs from now on".to_owned())
        }
        None => {
            let signs_from = now + STANDBY;
            let key = make(algorithm, KeyState::Standby { signs_from }, now)?;
            let (kid, said) = (key.kid.clone(), format!("{}, and signs from {signs_from}", told_of(algorithm)));
            (store.add_standby(key).await?, kid, said)
        }
    };
    if !done {
        return Err(overtaken());
    }
    say(format_args!("{kid} {said}"));
    witness.tell(Event::KeyRotate, &about(kid));
    Ok(())
}

/// A key that everybody may have is published; a shared one is known to the gateways on the database.
fn told_of(algorithm: Algorithm) -> &'static str {
    if algorithm.is_public() { "is published" } else { "is known to every gateway" }
}

fn overtaken() -> Refused {
    Refused::Input("keys: another process has changed them just now; see `portcullis keys list`".into())
}

/// Waits until every gateway has heard of a key that was made then: one that has not would refuse its tokens.
async fn await_heard(created: UnixTime) {
    tokio::time::sleep((created + HEARD).since(clock::now()).min(HEARD)).await;
}

/// Lets the standby sign. Whether it does: a running gateway may have been faster.
async fn promote(store: &Store, kid: &str, signs_from: UnixTime, until: UnixTime) -> Result<bool, store::Error> {
    if store.promote_standby(signs_from, until).await? {
        return Ok(true);
    }
    let keys = store.load_keys().await?.keys;
    Ok(keys.iter().any(|key| key.kid == kid && key.state == KeyState::Signing))
}

async fn revoke(config: &Config, store: &Store, kid: String, force: bool) -> Result<(), Refused> {
    let mut witness = Witness::open(config)?;
    // The one that signs next would be encrypted in another way, or not at all.
    if !force {
        load_all(store).await?;
    }
    let now: UnixTime = clock::now();
    let spare = make(config.tokens.algorithm, KeyState::Signing, now)?;
    let (next, until) = (spare.kid.clone(), last_use(now, life(config, store).await?));
    match store.revoke_key(kid.clone(), spare, until).await? {
        None => Err(Refused::Input(format!("there is no key {kid}; `portcullis keys list` shows all"))),
        Some(KeyState::Revoked { .. }) => {
            say(format_args!("{kid} was revoked before"));
            Ok(())
        }
        Some(KeyState::Signing) => {
            let keys = store.load_keys().await?.keys;
            let next = keys.into_iter().find(|key| key.state == KeyState::Signing).map_or(next, |key| key.kid);
            say(format_args!("{kid} is revoked, with all tokens that it has signed; {next} signs from now on"));
            witness.tell(Event::KeyRevoke, &about(kid));
            Ok(())
        }
        Some(KeyState::Standby { .. } | KeyState::Verifying { .. }) => {
            say(format_args!("{kid} is revoked, with all tokens that it has signed"));
            witness.tell(Event::KeyRevoke, &about(kid));
            Ok(())
        }
    }
}

/// All keys; they are changed only by whoever can read every one.
async fn load_all(store: &Store) -> Result<Vec<SigningKey>, Refused> {
    let found = store.load_keys().await?;
    match found.unreadable.into_iter().next() {
        Some(error) => Err(error.into()),
        None => Ok(found.keys),
    }
}

fn about(kid: String) -> About {
    About { more: Some(("kid", kid)), ..About::default() }
}

fn secret_signs(config: &Config) -> bool {
    config.tokens.secret.is_some() && config.tokens.algorithm == Algorithm::Hs256
}

/// How long tokens live at most, the leeway included.
async fn life(config: &Config, store: &Store) -> Result<std::time::Duration, Refused> {
    let longest = config.tokens.access_ttl.max(config.tokens.refresh_ttl);
    Ok(store.raise_longest_lifetime(longest).await? + config.tokens.leeway)
}

//! `portcullis tokens`: what a token says, and ending it.

use std::io::Read;

use clap::{Args, Subcommand};

use crate::app;
use crate::cli::witness::Witness;
use crate::cli::{ConfigPath, Refused, block_on, dossier, keep_generation_until, load, open_existing_store, say};
use crate::clock::{self, UnixTime};
use crate::config::Config;
use crate::model::{AccountId, SessionId, Shown, Username};
use crate::sessions::{Keyring, keep_token_until};
use crate::store::{Cut, Key, Kind, Revocation, Store};
use crate::telemetry::audit::{About, Event};
use crate::tokens::{Claims, Moment};

/// Accounts of one transaction.
const ACCOUNTS: u32 = 1000;

#[derive(Subcommand)]
pub enum Tokens {
    /// Show what a token says, and whether it is good now.
    Inspect {
        /// The token; `-` reads it from standard input.
        token: String,
        #[command(flatten)]
        config: ConfigPath,
    },
    /// Revoke a token, a session, or all tokens of a user or of a time. A running gateway hears of it within a second.
    Revoke {
        #[command(flatten)]
        what: What,
        /// Whose the `jti` or `sid` is: an issuer of `tokens.trusted`. Without it, this gateway's.
        #[arg(long, value_name = "ISSUER", conflicts_with_all = ["token", "user", "before"])]
        issuer: Option<String>,
        #[command(flatten)]
        config: ConfigPath,
    },
}

/// One of these; only `--user` and `--before` go together.
#[derive(Args)]
#[group(required = true, multiple = true)]
pub struct What {
    /// The token; `-` reads it from standard input.
    #[arg(conflicts_with_all = ["jti", "session", "user", "before"])]
    token: Option<String>,
    /// A token by its `jti`. One of another issuer that outlives all of this gateway's is better given whole: this is
    /// remembered for as long as the gateway's own tokens may live.
    #[arg(long, conflicts_with_all = ["session", "user", "before"])]
    jti: Option<String>,
    /// All tokens of a session, by their `sid`; remembered for as long.
    #[arg(long, value_name = "SID", conflicts_with_all = ["user", "before"])]
    session: Option<String>,
    /// All tokens of a user.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// All tokens that were issued before this moment (such as 2026-11-23T08:00:00Z, or `now`), of the user or of all
    /// accounts. An account that is older loses its later tokens too. Tokens of trusted issuers, and of names without an
    /// account, are not meant.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    before: Option<UnixTime>,
}

fn moment(text: &str) -> Result<UnixTime, String> {
    let now = clock::now();
    let time = if text == "now" { Some(now) } else { UnixTime::parse(text) };
    let time = time.ok_or_else(|| "a time such as 2026-11-23T08:00:00Z, or `now`".to_owned())?;
    if time > now { Err(format!("{time} is yet to come; it is {now}")) } else { Ok(time) }
}

impl Tokens {
    pub fn run(self) -> Result<(), Refused> {
        match self {
            Self::Inspect { token, config } => {
                let config = load(&config.path)?;
                let store = open_existing_store(&config)?;
                block_on(inspect(&config, &store, &read(&token)?))
            }
            Self::Revoke { what, issuer, config } => {
                let config = load(&config.path)?;
                let issuer = issuer.as_deref().map(|name| find_issuer(&config, name)).transpose()?;
                let store = open_existing_store(&config)?;
                block_on(what.revoke(&config, &store, issuer))
            }
        }
    }
}

/// The token, or what stands on standard input for `-`: an argument is seen by everyone on the machine.
pub fn read(token: &str) -> Result<String, Refused> {
    let mut text = token.to_owned();
    if token == "-" {
        text.clear();
        std::io::stdin().lock().take(64 * 1024).read_to_string(&mut text)?;
    }
    // As it is copied from a header, or from JSON.
    let text = text.trim().trim_matches(['"', '\'']);
    let bare = match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token,
        _ => text,
    };
    if bare.trim().is_empty() {
        return Err(Refused::Input("there is no token: it is empty, or nothing came on standard input".into()));
    }
    Ok(bare.trim().to_owned())
}

/// An issuer that the configuration trusts, by the name in its tokens.
fn find_issuer<'a>(config: &'a Config, name: &str) -> Result<&'a str, Refused> {
    let mut trusted = config.tokens.trusted.iter().map(|trusted| trusted.issuer.as_str());
    trusted.clone().find(|issuer| *issuer == name).ok_or_else(|| {
        let remedy = "leave --issuer out for tokens of this gateway";
        Refused::Input(match trusted.next() {
            None => format!("tokens.trusted names no issuer {name:?}, nor any other; {remedy}"),
            Some(first) => {
                let all = trusted.fold(first.to_owned(), |all, issuer| format!("{all}, {issuer}"));
                format!("tokens.trusted names no issuer {name:?}; it names: {all}; {remedy}")
            }
        })
    })
}

async fn verify(config: &Config, store: &Store, token: &str) -> Result<Claims, Refused> {
    let keyring = Keyring::load(store.clone(), &config.tokens).await?;
    app::consult(&keyring, &config.tokens, token).await?;
    Ok(keyring.read_token(token, &config.tokens)?)
}

async fn inspect(config: &Config, store: &Store, token: &str) -> Result<(), Refused> {
    let claims = verify(config, store, token).await?;
    let now = clock::now();
    let dossier = dossier::gather(config, store, (token, &claims), now).await?;
    dossier.lines.iter().for_each(say);
    claims.check_time(Moment { now, leeway: config.tokens.leeway })?;
    if !dossier.revocations.is_empty() {
        return Err(Refused::Input("the signature is good; the token has been revoked".into()));
    }
    say(format_args!("verdict:  good until {}", claims.expires));
    Ok(())
}

impl What {
    /// `issuer` is whose the `jti` or `sid` is; `None` is this gateway.
    async fn revoke(self, config: &Config, store: &Store, issuer: Option<&str>) -> Result<(), Refused> {
        let mut witness = Witness::open(config)?;
        let now = clock::now();
        let forever = keep_generation_until(store, config, now).await?;
        let mut about = About { more: issuer.map(|issuer| ("issuer", issuer.to_owned())), ..About::default() };
        let whose = issuer.unwrap_or("this gateway");
        if let Some(before) = self.before {
            let cut = Cut { before, at: now, life: forever.since(now) };
            about.user.clone_from(&self.user);
            about.more = Some(("before", before.to_string()));
            cut_off(store, self.user.as_deref(), cut).await?;
            witness.tell(Event::Revocation, &about);
            return Ok(());
        }
        let (kind, key, keep_until, said) = if let Some(token) = self.token {
            let claims = verify(config, store, &read(&token)?).await?;
            let jti = claims.token.as_str();
            about.user = Some(claims.subject.to_string());
            about.token = Some(jti.to_owned());
            about.more = claims.issuer.as_ref().map(|issuer| ("issuer", issuer.to_string()));
            let key = Key::token(claims.issuer.as_deref(), jti);
            (Kind::Token, key, keep_token_until(claims.expires, now), format!("Token {}", Shown(jti)))
        } else if let Some(jti) = self.jti {
            if jti.is_empty() {
                return Err(Refused::Input("no token has an empty jti".into()));
            }
            // When it expires is not known: as late as any token may.
            about.token = Some(jti.clone());
            (Kind::Token, Key::token(issuer, &jti), forever, format!("Token {jti} of {whose}"))
        } else if let Some(sid) = self.session {
            if issuer.is_none() && store.find_session(&SessionId::new(sid.as_str())).await?.is_none() {
                say("There is no session of that id in the store; it is revoked all the same");
            }
            about.session = Some(sid.clone());
            (Kind::Session, Key::session(issuer, &sid), forever, format!("Session {sid} of {whose}"))
        } else {
            let username = Username::parse(&self.user.unwrap_or_default())?;
            let raised = store.raise_generation(&username, now, forever).await?;
            raised.ok_or_else(|| unknown(&username))?;
            about.user = Some(username.to_string());
            witness.tell(Event::Revocation, &about);
            say(format_args!("All tokens of {username} have been revoked; remembered until {forever}"));
            return Ok(());
        };
        store.revoke(vec![Revocation { key, kind, generation: Default::default(), at: now, keep_until }]).await?;
        witness.tell(Event::Revocation, &about);
        say(format_args!("{said} has been revoked; remembered until {keep_until}"));
        Ok(())
    }
}

fn unknown(username: &Username) -> Refused {
    Refused::Input(format!("there is no user {username}; `portcullis users list` shows all"))
}

/// Ends what was issued before a moment. All accounts take several transactions, so that a running gateway's own writes
/// come in between; repeating it goes on where it broke off, and changes nothing where it was done.
async fn cut_off(store: &Store, user: Option<&str>, cut: Cut) -> Result<(), Refused> {
    let Cut { before, at, life } = cut;
    let whose = if let Some(name) = user {
        let username = Username::parse(name)?;
        store.cut_account(&username, cut).await?.ok_or_else(|| unknown(&username))?;
        username.to_string()
    } else {
        let (mut after, mut count) = (AccountId(0), 0);
        loop {
            let done = store.cut_accounts(after, ACCOUNTS, cut).await?;
            let Some(last) = done.last() else { break };
            (after, count) = (*last, count + done.len());
        }
        if count == 1 { "1 account".to_owned() } else { format!("{count} accounts") }
    };
    let keep_until = at + life;
    say(format_args!("All tokens of {whose} issued before {before} have been revoked; remembered until {keep_until}"));
    Ok(())
}

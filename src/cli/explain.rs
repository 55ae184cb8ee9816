//! `portcullis explain GET /secret`: which route, which rule, what would be sent.

use clap::Args;

use crate::cli::tokens::read;
use crate::cli::{ConfigPath, Refused, block_on, load, say};
use crate::clock;
use crate::config::Config;
use crate::gate;
use crate::gate::explain;
use crate::message::Rejection;
use crate::model::ResponseStyle;
use crate::sessions::{Feed, Keyring, Sessions, TokenType, Truth};
use crate::store::Store;

#[derive(Args)]
pub struct Explain {
    /// The method.
    method: String,
    /// The target as a client sends it: path and query.
    target: String,
    /// The Host that the client sends.
    #[arg(long, default_value = "localhost")]
    host: String,
    /// The access token that the client sends, or `-` to read it from standard input; it is judged against the store.
    #[arg(long)]
    token: Option<String>,
    #[command(flatten)]
    config: ConfigPath,
}

impl Explain {
    pub fn run(self) -> Result<(), Refused> {
        let config = load(&self.config.path)?;
        let plan = explain::plan(&config, &self.method, &self.host, &self.target).map_err(|r| refused(&r))?;
        plan.lines().iter().for_each(say);
        match self.token.as_deref().map(read).transpose()? {
            Some(token) if plan.looks_at_tokens() => block_on(judge(&config, &plan, &token)),
            Some(_) => {
                say("verdict:  passes; nobody looks at the token here");
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// Judges the token as the running gateway would, from the same store.
async fn judge(config: &Config, plan: &explain::Plan, token: &str) -> Result<(), Refused> {
    let store = Store::open_existing(&config.store)?;
    let keyring = Keyring::load(store.clone(), &config.tokens).await?;
    let longest = config.tokens.access_ttl.max(config.tokens.refresh_ttl);
    let feed = Feed::load(store.clone(), keyring.clone(), config.store.clone()).await?;
    let (blocklist, freshness) = (feed.blocklist().clone(), feed.freshness().clone());
    let sessions = Sessions::new(config, Truth { store, blocklist, keyring, freshness }, longest);
    let now = clock::now();
    let signed = sessions.open_signed(token).map_err(|error| refused(&error.into()))?;
    let caller = sessions.admit(signed, TokenType::Access, now).map_err(|refusal| refused(&refusal.into()))?;
    say(format_args!("token:    {}", serde_json::Value::Object(caller.claims().all.clone())));
    for rule in plan.rules() {
        gate::check_rule(rule, &caller, now).map_err(|rejection| refused(&rejection))?;
    }
    for (index, value) in caller.headers() {
        if let Some(header) = config.identity_headers.get(*index) {
            say(format_args!("header:   {}: {}", header.name, String::from_utf8_lossy(value)));
        }
    }
    say("verdict:  passes");
    Ok(())
}

fn refused(rejection: &Rejection) -> Refused {
    let status = rejection.status(ResponseStyle::Standard);
    Refused(format!("refused: {} {}: {}", status.as_u16(), rejection.code(), rejection.summary()))
}

//! What there is to know of a token whose signature is good: its claims, its key, and what the store says of it.

use std::time::Duration;

use serde_json::Value;

use crate::cli::Refused;
use crate::clock::UnixTime;
use crate::config::{self, Config};
use crate::model::{Role, SessionId, Shown, Username};
use crate::sessions;
use crate::store::{Kind, Revocation, Store};
use crate::tokens::{Claims, Header};

/// All that is known, a line each; and what ends the token.
pub struct Dossier {
    /// A line each.
    pub lines: Vec<String>,
    /// The blocklist's entries that mean it.
    pub revocations: Vec<Revocation>,
}

/// Looks everything up.
pub async fn gather(
    config: &Config,
    store: &Store,
    (token, claims): (&str, &Claims),
    now: UnixTime,
) -> Result<Dossier, Refused> {
    let revocations = sessions::revocations_of(store, claims, config.tokens.leeway).await?;
    let mut lines = vec![
        format!("claims:   {}", Value::Object(claims.all.clone())),
        format!("key:      {}", key(config, token, claims)),
        format!("times:    {}", times(claims, now)),
        session(store, claims, &revocations, now).await?,
        account(store, claims).await?,
    ];
    if revocations.is_empty() {
        lines.push("revoked:  no".to_owned());
    }
    lines.extend(revocations.iter().map(|revocation| format!("revoked:  {}", entry(revocation))));
    Ok(Dossier { lines, revocations })
}

fn key(config: &Config, token: &str, claims: &Claims) -> String {
    let Header { algorithm, kid } = Header::read(token);
    let (algorithm, kid) = (algorithm.unwrap_or_default(), kid.as_deref().map(Shown));
    if let Some(issuer) = &claims.issuer {
        let kid = kid.map(|kid| format!(", {kid}")).unwrap_or_default();
        return format!("one of {issuer} (tokens.trusted){kid}, {algorithm}");
    }
    match kid {
        Some(kid) => format!("{kid}, kept in the store, {algorithm}"),
        None if config.tokens.secret.is_some() => format!("the configured secret (tokens.secret), {algorithm}"),
        None => format!("the store's, which the token does not name, {algorithm}"),
    }
}

/// How far off `time` is, to the second.
fn distance(time: UnixTime, now: UnixTime) -> String {
    let whole = |duration: Duration| config::show_duration(Duration::from_secs(duration.as_secs()));
    if time > now { format!("in {}", whole(time.since(now))) } else { format!("{} ago", whole(now.since(time))) }
}

fn times(claims: &Claims, now: UnixTime) -> String {
    let told = |what: &str, time: UnixTime| format!("{what} {time} ({})", distance(time, now));
    let issued = claims.issued.map_or_else(|| "issued nobody knows when".to_owned(), |time| told("issued", time));
    let begins = claims.not_before.filter(|time| *time > now).map(|time| told(", not valid before", time));
    let expires = told(if claims.expires > now { "expires" } else { "expired" }, claims.expires);
    format!("{issued}{}, {expires}", begins.unwrap_or_default())
}

async fn session(store: &Store, claims: &Claims, revocations: &[Revocation], now: UnixTime) -> Result<String, Refused> {
    if let Some(issuer) = &claims.issuer {
        return Ok(format!("session:  none of this gateway: the token is of {issuer}"));
    }
    let Some(id) = &claims.session else { return Ok("session:  none: not from a login here".to_owned()) };
    // With all tokens of its account a session ends too.
    let ended = revocations.iter().find(|revocation| revocation.kind != Kind::Token);
    Ok(format!("session:  {}: {}", Shown(id.as_str()), state(store, id, ended, now).await?))
}

async fn state(store: &Store, id: &SessionId, ended: Option<&Revocation>, now: UnixTime) -> Result<String, Refused> {
    let ended = ended.map(|revocation| format!("ended {}", revocation.at));
    let Some(row) = store.find_session(id).await? else {
        return Ok(ended.unwrap_or_else(|| "not known here (any more)".to_owned()));
    };
    let over = (row.expires <= now).then(|| "over".to_owned());
    let state = ended.or(over).unwrap_or_else(|| "live".to_owned());
    let address = row.address.unwrap_or_else(|| "an unknown address".to_owned());
    let agent = row.user_agent.map(|agent| format!(" ({agent:?})")).unwrap_or_default();
    let used = format!("last used {} ({})", row.last_used, distance(row.last_used, now));
    Ok(format!("{state}, opened {} from {address}{agent}, {used}, lasts until {}", row.created, row.expires))
}

async fn account(store: &Store, claims: &Claims) -> Result<String, Refused> {
    if let Some(issuer) = &claims.issuer {
        return Ok(format!("account:  none of this gateway: the token is of {issuer}"));
    }
    let found = match Username::parse(&claims.subject) {
        Ok(username) => store.find_account(&username).await?,
        Err(_) => None,
    };
    let Some(account) = found else {
        return Ok(format!("account:  there is none of the name {:?}", Shown(&claims.subject)));
    };
    let roles: Vec<&str> = account.roles.iter().map(Role::as_str).collect();
    let disabled = if account.disabled { ", disabled" } else { "" };
    let generation = match claims.generation {
        Some(own) => format!("generation {} (the token's: {})", account.generation.0, own.0),
        None => format!("generation {} (the token has none)", account.generation.0),
    };
    Ok(format!("account:  {}: roles now [{}], {generation}{disabled}", account.username, roles.join(" ")))
}

fn entry(revocation: &Revocation) -> String {
    let Revocation { kind, generation, at, keep_until, .. } = revocation;
    let what = match kind {
        Kind::Token => "the token itself".to_owned(),
        Kind::Session => "its session".to_owned(),
        Kind::Subject => format!(
            "all tokens of its account below generation {}, and those without one that were issued by then",
            generation.0
        ),
    };
    format!("{what}, at {at}; remembered until {keep_until}")
}

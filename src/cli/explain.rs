//! `portcullis explain GET /secret`: which route, which rule, what would be sent.

use std::net::IpAddr;

use clap::Args;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderName, HeaderValue, Request, request};

use crate::app::{self, App};
use crate::cli::tokens::read;
use crate::cli::{ConfigPath, Refused, block_on, dossier, load, say};
use crate::clock;
use crate::config::Config;
use crate::gate::{Rehearsal, Source, Stage, explain};
use crate::message::{Rejection, credential};
use crate::model::Username;
use crate::store::Store;
use crate::telemetry::output::Output;
use crate::upstream::Preview;

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
    /// A header that the client sends, such as `X-Auth-Subject: root`; may be given several times.
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Where the client is: whether that is one of `server.trusted_proxies` matters.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    from: IpAddr,
    #[command(flatten)]
    config: ConfigPath,
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("it has no colon")?;
    let name = HeaderName::try_from(name).map_err(|error| error.to_string())?;
    let value = HeaderValue::try_from(value.trim_matches([' ', '\t'])).map_err(|error| error.to_string())?;
    Ok((name, value))
}

impl Explain {
    pub fn run(self) -> Result<(), Refused> {
        let config = load(&self.config.path)?;
        let plan = explain::plan(&config, &self.method, &self.host, &self.target).map_err(|r| refused(&config, &r))?;
        plan.lines().iter().for_each(say);
        let token = self.token.as_deref().map(read).transpose()?;
        let store = match Store::open_existing(&config.store) {
            Ok(store) => store,
            // The plan is all that can be told, and all that was asked for.
            Err(_) if token.is_none() => return Ok(()),
            Err(_) if !plan.looks_at_tokens() => {
                say("verdict:  passes; nobody looks at the token here");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        block_on(self.judge(config, &store, &plan, token.as_deref()))
    }

    /// Judges the request as the running gateway would, from the same store.
    async fn judge(
        &self,
        config: Config,
        store: &Store,
        plan: &explain::Plan,
        token: Option<&str>,
    ) -> Result<(), Refused> {
        let now = clock::now();
        let head = self.head(token)?;
        let (app, _feed) = App::build(config, Output::start(std::io::stderr())?).await?;
        let edition = app.edition();
        let mut holder = None;
        if let Some(token) = token {
            let (keyring, tokens) = (app.keyring(), &edition.config.tokens);
            let fetched = app::consult(keyring, tokens, token).await;
            // Where nobody looks at the token, nothing hangs on its keys.
            if plan.looks_at_tokens() {
                fetched?;
            }
            // What cannot be read is for the rule to judge.
            if let Ok(claims) = keyring.read_token(token, tokens) {
                let dossier = dossier::gather(&edition.config, store, (token, &claims), now).await?;
                dossier.lines.iter().for_each(say);
                holder = Some(claims.subject);
            }
        }
        let worker = edition.worker(&app.access_buffer(), None);
        let source = Source { address: Some(self.from), secure: false };
        let mut told = Rehearsal::default();
        let stage = Stage { source, now, pools: &worker.pools };
        let outcome = edition.gate.rehearse(&head, &stage, &mut told);
        tell(&edition.config, &told);
        let outcome = match (outcome, told.role, &holder) {
            (Ok(()), Some(role), Some(holder)) if !has_role(store, holder, role).await? => {
                Err(Rejection::Forbidden(format!("This needs the role {role}").into()))
            }
            (outcome, _, _) => outcome,
        };
        match outcome {
            Err(rejection @ Rejection::TokenMissing { .. }) if token.is_none() => {
                let status = rejection.status(edition.config.identity.responses);
                say(format_args!("verdict:  without a token {} {}", status.as_u16(), rejection.code()));
                Ok(())
            }
            Err(rejection) => Err(refused(&edition.config, &rejection)),
            Ok(()) => {
                say(match (&told.preview, plan.looks_at_tokens()) {
                    (None, _) if told.answer.is_empty() => {
                        "verdict:  answered by the gateway itself, which judges the rest of the request when it comes"
                    }
                    (_, false) if token.is_some() => "verdict:  passes; nobody looks at the token here",
                    (_, _) => "verdict:  passes",
                });
                Ok(())
            }
        }
    }

    /// The request as it would come in.
    fn head(&self, token: Option<&str>) -> Result<request::Parts, Refused> {
        let mut request = Request::builder().method(self.method.as_str()).uri(&self.target).header(HOST, &self.host);
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        Ok(request.body(())?.into_parts().0)
    }
}

/// What the rehearsal found, but for credentials.
fn tell(config: &Config, told: &Rehearsal) {
    told.rules.iter().for_each(|rule| say(format_args!("rule:     {rule}")));
    if let Some(Preview { server, line, fields }) = &told.preview {
        say(format_args!("server:   {server}"));
        say(format_args!("request:  {line}"));
        fields.iter().for_each(|(name, value)| tell_field(config, name, value));
    }
    for (name, value) in &told.answer {
        tell_field(config, name.as_str(), &String::from_utf8_lossy(value.as_bytes()));
    }
}

/// Identity headers are spelled as in the configuration; on the wire all names are in lower case.
fn tell_field(config: &Config, name: &str, value: &str) {
    let written = config.identity_headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
    let name = written.map_or(name, |header| header.name.as_str());
    let secret = match name {
        "authorization" | "cookie" => true,
        // Where a route does not take the token from there, it is passed on.
        "sec-websocket-protocol" => value.split(',').any(|item| credential::is_scheme(item.trim().as_bytes())),
        _ => false,
    };
    say(format_args!("header:   {name}: {}", if secret { "***" } else { value }));
}

/// Whether an account that may log in has a role, which the token does not decide.
async fn has_role(store: &Store, name: &str, role: &str) -> Result<bool, Refused> {
    let Ok(username) = Username::parse(name) else { return Ok(false) };
    let account = store.find_account(&username).await?.filter(|account| !account.disabled);
    Ok(account.is_some_and(|account| account.roles.iter().any(|own| own.as_str() == role)))
}

fn refused(config: &Config, rejection: &Rejection) -> Refused {
    let status = rejection.status(config.identity.responses);
    Refused::Input(format!("refused: {} {}: {}", status.as_u16(), rejection.code(), rejection.summary()))
}

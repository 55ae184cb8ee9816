//! `portcullis check`: every problem of the file, or every route with its rule.

use std::error::Error;
use std::path::Path;

use crate::cli::{Refused, load, say, warn};
use crate::config::{self, Auth, Config, Registration, Route};
use crate::gate::{explain, route};
use crate::server;
use crate::sessions;
use crate::store::Store;
use crate::telemetry::audit;
use crate::upstream::Upstreams;

pub fn check(path: &Path) -> Result<(), Refused> {
    let config = load(path)?;
    judge(&config).map_err(|error| Refused::Configuration(placed(path, error.to_string())))?;
    let mut routes: Vec<&Route> = config.routes.iter().collect();
    // Stable: within one kind the order of the file stays.
    routes.sort_by_key(|route| match route.auth {
        Auth::Public => 0,
        Auth::Optional => 1,
        Auth::Required(_) => 2,
    });
    let width = routes.iter().map(|route| route.id.chars().count()).max().unwrap_or(0);
    for route in routes {
        say(format_args!(
            "{:<width$}  {:<9}  -> {}{}{}",
            route.id,
            explain::kind(&route.auth),
            upstream(&config, route),
            methods(route),
            explain::rule(&route.auth)
        ));
    }
    for note in explain::partly_hidden(&config) {
        say(format_args!("note: {note}"));
    }
    for note in notes(&config) {
        say(format_args!("note: {note}"));
    }
    inspect(path, &config)?;
    say(format_args!("{}: good", path.display()));
    Ok(())
}

/// What shows only when the parts are built.
fn judge(config: &Config) -> Result<(), Box<dyn Error>> {
    server::check_files(&config.server)?;
    audit::check(&config.log.audit)?;
    Upstreams::new(config, None)?;
    sessions::check_trusted(&config.tokens)?;
    route::Table::new(&config.routes)?;
    explain::check_hidden(config)?;
    Ok(())
}

/// Reports what `run` would do with the database. It comes last, so that the routes are listed also on a machine without
/// the database.
fn inspect(path: &Path, config: &Config) -> Result<(), Refused> {
    let findings = Store::inspect(&config.store).map_err(|error| {
        if error.is_configuration() { Refused::Configuration(placed(path, error.to_string())) } else { error.into() }
    })?;
    for finding in findings {
        if finding.is_warning() { warn(finding) } else { say(format_args!("note: {finding}")) }
    }
    Ok(())
}

/// With file and line before it, as all other problems of the file: the text begins with its key.
fn placed(path: &Path, text: String) -> String {
    let key = text.split([':', ' ']).next().unwrap_or_default();
    match config::line_of(path, key) {
        Some(line) => format!("{}:{line}: {text}", path.display()),
        None => text,
    }
}

/// What is allowed, and may not be what was meant.
fn notes(config: &Config) -> impl Iterator<Item = &'static str> {
    let open = config.identity.registration == Registration::Open;
    let open = open.then_some(
        "anyone may register, so that `required` means anyone who does; identity.registration: closed leaves that to \
         `portcullis users add`",
    );
    let pages = config.identity.cors.is_none() && config.routes.iter().any(|route| route.cors.is_some());
    let pages = pages.then_some("pages of other origins may call routes, but not log in: see identity.cors");
    open.into_iter().chain(pages)
}

fn upstream<'a>(config: &'a Config, route: &Route) -> &'a str {
    config.upstreams.get(route.upstream).map_or("", |upstream| &upstream.name)
}

fn methods(route: &Route) -> String {
    if route.methods.is_empty() { String::new() } else { format!("  {}", route.methods.join(",")) }
}

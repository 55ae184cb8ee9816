//! `routes`: which request goes where, and who may send it.

use std::collections::{BTreeSet, HashMap};

use super::headers::is_token;
use crate::config::file::{self, Access};
use crate::config::host;
use crate::config::key::Key;
use crate::config::problem::{Fault, quote};
use crate::config::reader::Reader;
use crate::config::scalar::{Named, Plain, Size, Text};
use crate::config::shorthand;
use crate::config::spelling;
use crate::config::{
    Auth, Cors, EncodedSlash, LOCAL, NO_LIMIT, OnExpiry, PathPattern, Route, RouteLimits, Rule, Tokens, Upstream,
};
use crate::model::Role;

/// What routes name of the rest of the file.
pub(super) struct Around<'a> {
    /// `upstreams`.
    pub upstreams: &'a [Upstream],
    /// `tokens`, whose issuers rules may name.
    pub tokens: &'a Tokens,
}

/// `routes`, in the order of the file.
pub(super) fn routes(reader: &mut Reader<'_>, written: Vec<file::Route>, around: &Around<'_>) -> Vec<Route> {
    let key = Key::of("routes");
    if written.is_empty() {
        reader.warn(&key, "there are none: every path but the gateway's own endpoints is 404");
    }
    let mut routes: Vec<(usize, Route)> = Vec::new();
    for (index, entry) in written.into_iter().enumerate() {
        routes.extend(route(reader, &key.index(index), entry, around).map(|route| (index, route)));
    }
    check_pairs(reader, &mut routes);
    let routes: Vec<Route> = routes.into_iter().map(|(_, route)| route).collect();
    warn_of_unused(reader, around.upstreams, &routes);
    warn_of_open_door(reader, &routes);
    routes
}

/// One route; `None` when it has no place in the table. The faults are noted.
fn route(reader: &mut Reader<'_>, key: &Key, written: file::Route, around: &Around<'_>) -> Option<Route> {
    let host = match &written.host {
        None => Some(None),
        Some(text) => reader.parse(&key.name("host"), text, host::parse_name).map(Some),
    };
    let path = reader.parse(&key.name("path"), &written.path, |text| {
        PathPattern::parse(text).map(|pattern| (text.to_owned(), pattern))
    });
    if let Some((text, _)) = &path
        && let Some(name) = text.split('/').find_map(|segment| segment.strip_prefix(':'))
    {
        reader
            .warn(&key.name("path"), format!("`:{name}` is taken as it stands; for any one segment write {{{name}}}"));
    }
    let strip_prefix = strip_prefix(reader, &key.name("strip_prefix"), written.strip_prefix.as_ref(), path.as_ref());
    let methods = methods(reader, &key.name("methods"), written.methods);
    let upstream = reader.parse(&key.name("upstream"), &written.upstream, |name| find_upstream(name, around.upstreams));
    let slash = reader.choice(&key.name("encoded_slash"), written.encoded_slash, file::EncodedSlash::Reject);
    let auth = auth(reader, &key.name("auth"), written.auth, around.tokens);
    if auth == Auth::Public {
        let (token, expiry) = (written.websocket_protocol_token == Some(true), written.on_expiry.is_some());
        warn_of_idle(reader, key, [("websocket_protocol_token", token), ("on_expiry", expiry)]);
    }
    let on_expiry = reader.choice(&key.name("on_expiry"), written.on_expiry, file::OnExpiry::Close);
    let cors = cors(reader, &key.name("cors").name("origins"), written.cors);
    let limits = limits(reader, &key.name("limits"), written.limits.unwrap_or_default());
    let (host, (text, path)) = (host?, path?);
    Some(Route {
        id: format!("{}{text}", host.as_deref().unwrap_or_default()),
        host,
        path,
        methods,
        // Without its upstream the file is refused anyway; the route stays, to be compared with the others.
        upstream: upstream.unwrap_or_default(),
        auth,
        strip_prefix,
        encoded_slash: match slash {
            file::EncodedSlash::Reject => EncodedSlash::Reject,
            file::EncodedSlash::Preserve => EncodedSlash::Preserve,
        },
        forward_authorization: written.forward_authorization.unwrap_or(true),
        websocket_protocol_token: written.websocket_protocol_token.unwrap_or(false),
        on_expiry: match on_expiry {
            file::OnExpiry::Close => OnExpiry::Close,
            file::OnExpiry::Ignore => OnExpiry::Ignore,
        },
        cors,
        stream: written.stream.unwrap_or(false) || limits.body == Some(NO_LIMIT),
        limits,
    })
}

/// Keys about tokens on a public route, each with whether it is set.
fn warn_of_idle(reader: &mut Reader<'_>, key: &Key, keys: [(&str, bool); 2]) {
    for (name, _) in keys.into_iter().filter(|(_, set)| *set) {
        reader.warn(&key.name(name), "has no effect: the route is public, so that no token is looked at");
    }
}

fn cors(reader: &mut Reader<'_>, key: &Key, written: Option<file::Cors>) -> Option<Cors> {
    let origins = written?.origins;
    if origins.is_empty() {
        let remedy = "Name one, such as https://app.example.com, or leave `cors` out";
        reader.refuse(key, "is an empty list, so that no page could call", remedy);
    }
    super::cors::cors(reader, key, &origins)
}

fn limits(reader: &mut Reader<'_>, key: &Key, written: file::RouteLimits) -> RouteLimits {
    let requests = reader.rate(&key.name("requests"), written.requests);
    let body = written.body.map(|size| match size {
        Size::Written(text) if text == "none" => NO_LIMIT,
        size => reader.size(&key.name("body"), Some(size), NO_LIMIT, 1..=1 << 40),
    });
    RouteLimits { requests, body }
}

fn strip_prefix(
    reader: &mut Reader<'_>,
    key: &Key,
    written: Option<&Text>,
    path: Option<&(String, PathPattern)>,
) -> Option<String> {
    let prefix = reader.expand(key, &written?.0)?;
    let (_, pattern) = path?;
    reader.accept(key, pattern.parse_prefix(&prefix))
}

fn find_upstream(name: &str, upstreams: &[Upstream]) -> Result<usize, Fault> {
    if let Some(index) = upstreams.iter().position(|upstream| upstream.name == name) {
        return Ok(index);
    }
    let names: Vec<&str> = upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
    let message = format!("there is no upstream {}", quote(name));
    if names.is_empty() {
        return Err(Fault::new(message, "There are none: add one under `upstreams`"));
    }
    let hint = spelling::hint(name, names.iter().copied());
    Err(Fault::new(message, format!("{hint}There are: {}", names.join(", "))))
}

fn methods(reader: &mut Reader<'_>, key: &Key, written: Option<Vec<Text>>) -> Vec<String> {
    let Some(written) = written else { return Vec::new() };
    if written.is_empty() {
        reader.refuse(key, "is an empty list", "Leave it out for every method");
    }
    let mut methods = Vec::new();
    for (index, text) in written.iter().enumerate() {
        methods.extend(reader.parse(&key.index(index), text, |method| parse_method(method, &methods)));
    }
    methods
}

fn parse_method(method: &str, others: &[String]) -> Result<String, Fault> {
    if method.is_empty() || !method.bytes().all(is_token) {
        return Err(Fault::new(format!("{} is not a method", quote(method)), "Write such as GET"));
    }
    let upper = method.to_ascii_uppercase();
    if upper == "CONNECT" || upper == "TRACE" {
        return Err(Fault::new(format!("{upper} is never forwarded"), "Leave it out"));
    }
    if upper != method {
        return Err(Fault::new(format!("{} is not in upper case", quote(method)), format!("Write {upper}")));
    }
    if others.contains(&upper) {
        return Err(Fault::new(format!("{upper} stands twice"), "Keep one of the two"));
    }
    Ok(upper)
}

fn auth(reader: &mut Reader<'_>, key: &Key, written: Option<shorthand::Auth>, tokens: &Tokens) -> Auth {
    match written {
        None => Auth::Required(Rule::default()),
        Some(shorthand::Auth::Rule(rule)) => Auth::Required(self::rule(reader, key, rule, tokens)),
        Some(shorthand::Auth::Word(word)) => match reader.choice(key, Some(word), Access::Required) {
            Access::Required => Auth::Required(Rule::default()),
            Access::Public => Auth::Public,
            Access::Optional => Auth::Optional,
        },
    }
}

fn rule(reader: &mut Reader<'_>, key: &Key, written: file::Rule, tokens: &Tokens) -> Rule {
    let key_of_roles = key.name("roles");
    if written.roles.as_ref().is_some_and(Vec::is_empty) {
        reader.refuse(&key_of_roles, "is an empty list, which no token could meet", "Leave it out to ask for no role");
    }
    let mut roles: Vec<Role> = Vec::new();
    for (index, text) in written.roles.unwrap_or_default().iter().enumerate() {
        let parse = |role: &str| {
            Role::parse(role).map_err(|rule| Fault::new(format!("{} is not a role", quote(role)), rule.to_string()))
        };
        roles.extend(reader.parse(&key_of_roles.index(index), text, parse));
    }
    let scopes = scopes(reader, &key.name("scopes"), written.scopes);
    let mut claims = Vec::new();
    let Named(written_claims) = written.claims.unwrap_or_default();
    for (name, Plain(value)) in written_claims {
        let key = key.name("claims").name(&name);
        if name.is_empty() || name.contains(char::is_control) {
            reader.refuse(&key, format!("{} is not the name of a claim", quote(&name)), "");
        }
        let value = match value {
            serde_json::Value::String(text) => reader.expand(&key, &text).map(Into::into),
            other => Some(other),
        };
        claims.extend(value.map(|value| (name, value)));
    }
    let issuers = issuers(reader, &key.name("issuers"), written.issuers, tokens);
    Rule { roles, scopes, claims, fresh: written.fresh.unwrap_or(false), issuers }
}

fn scopes(reader: &mut Reader<'_>, key: &Key, written: Option<Vec<Text>>) -> Vec<String> {
    let Some(written) = written else { return Vec::new() };
    if written.is_empty() {
        reader.refuse(key, "is an empty list", "Leave it out to ask for no scope");
    }
    // RFC 6749 3.3.
    let fits = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    let parse = |scope: &str| match !scope.is_empty() && scope.bytes().all(fits) {
        true => Ok(scope.to_owned()),
        false => Err(Fault::new(
            format!("{} is not a scope", quote(scope)),
            "Write each scope by itself, such as orders/read: visible ASCII without spaces, quotes and backslashes",
        )),
    };
    written.iter().enumerate().filter_map(|(index, text)| reader.parse(&key.index(index), text, parse)).collect()
}

fn issuers(reader: &mut Reader<'_>, key: &Key, written: Option<Vec<Text>>, tokens: &Tokens) -> Vec<String> {
    let Some(written) = written else { return Vec::new() };
    if written.is_empty() {
        reader.refuse(key, "is an empty list, which no token could meet", "Leave it out for the gateway's own tokens");
    }
    let names: Vec<&str> = tokens.trusted.iter().map(|trusted| trusted.issuer.as_str()).chain([LOCAL]).collect();
    let parse = |name: &str| {
        if tokens.issuer.as_deref() == Some(name) {
            return Ok(LOCAL.to_owned());
        }
        if names.contains(&name) {
            return Ok(name.to_owned());
        }
        let hint = spelling::hint(name, names.iter().copied());
        let message = format!("{} is not among tokens.trusted", quote(name));
        Err(Fault::new(message, format!("{hint}There are: {}", names.join(", "))))
    };
    written.iter().enumerate().filter_map(|(index, text)| reader.parse(&key.index(index), text, parse)).collect()
}

/// Routes of equal host and path: their methods must be disjoint, and become part of their ids.
fn check_pairs(reader: &mut Reader<'_>, routes: &mut [(usize, Route)]) {
    let mut groups: HashMap<(Option<&str>, &PathPattern), Vec<usize>> = HashMap::new();
    for (place, (_, route)) in routes.iter().enumerate() {
        groups.entry((route.host.as_deref(), &route.path)).or_default().push(place);
    }
    let mut shared: Vec<usize> = Vec::new();
    let mut groups: Vec<Vec<usize>> = groups.into_values().filter(|group| group.len() > 1).collect();
    groups.sort();
    for group in groups {
        for (nth, right) in group.iter().enumerate() {
            let earlier = group.iter().take(nth).filter_map(|left| routes.get(*left));
            let Some(right) = routes.get(*right) else { continue };
            if let Some(left) = earlier.into_iter().find(|left| overlap(&left.1, &right.1)) {
                refuse_pair(reader, left, right);
            }
        }
        shared.extend(group);
    }
    for place in shared {
        if let Some((_, route)) = routes.get_mut(place) {
            route.id = format!("{} {}", route.id, route.methods.join(","));
        }
    }
}

/// Whether a method belongs to both. HEAD follows GET.
fn overlap(left: &Route, right: &Route) -> bool {
    let served = |route: &Route| -> BTreeSet<String> {
        let head = route.methods.iter().any(|method| method == "GET").then(|| "HEAD".to_owned());
        route.methods.iter().cloned().chain(head).collect()
    };
    left.methods.is_empty() || right.methods.is_empty() || !served(left).is_disjoint(&served(right))
}

fn refuse_pair(reader: &mut Reader<'_>, left: &(usize, Route), right: &(usize, Route)) {
    let keys = [left.0, right.0].map(|index| Key::of("routes").index(index));
    let [first, second] = &keys;
    let place = reader.line(first).map_or_else(|| first.to_string(), |line| format!("{first} in line {line}"));
    let message = format!("ambiguous: {} is the same path as {} of {place}", quote(&right.1.id), quote(&left.1.id));
    reader.refuse(second, message, "Remove one, or give each `methods` that the other has not (HEAD goes with GET)");
}

fn warn_of_unused(reader: &mut Reader<'_>, upstreams: &[Upstream], routes: &[Route]) {
    for (index, upstream) in upstreams.iter().enumerate() {
        if routes.iter().all(|route| route.upstream != index) {
            reader.warn(&Key::of("upstreams").name(&upstream.name), "no route leads here");
        }
    }
}

/// A gateway that lets everything through is rarely what was meant.
fn warn_of_open_door(reader: &mut Reader<'_>, routes: &[Route]) {
    let open = |route: &Route| route.auth == Auth::Public && route.path.wildcard && route.path.segments.is_empty();
    let protected = routes.iter().any(|route| matches!(route.auth, Auth::Required(_)));
    if let Some(place) = routes.iter().position(open).filter(|_| !protected) {
        let key = Key::of("routes").index(place);
        reader.warn(&key, "is public for every path, and no route requires a token: nothing is protected");
    }
}

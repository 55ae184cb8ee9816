//! The gate's view of a configuration, for people: which route a request would take, and which routes are hidden.

use http::{Method, Uri};

use crate::config::NO_LIMIT;
use crate::config::{Auth, Config, Cors, OnExpiry, Route, Segment};
use crate::gate::route::Table;
use crate::gate::target::Target;
use crate::gate::{host, verify};
use crate::identity::Endpoint;
use crate::message::Rejection;
use crate::model::Role;

/// Where a request would go.
pub struct Plan {
    lines: Vec<String>,
    looks_at_tokens: bool,
}

impl Plan {
    /// Whether a token is looked at on this way.
    pub fn looks_at_tokens(&self) -> bool {
        self.looks_at_tokens
    }

    /// What there is to say of it, a line each.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }
}

/// A route that no request can reach.
#[derive(Debug, thiserror::Error)]
#[error(
    "routes[{first}]: {}: hidden by the endpoint {endpoint}, which the gateway answers itself; remove the route, or move the endpoints \
     with identity.prefix",
    routes.join(", ")
)]
pub struct Hidden {
    first: usize,
    routes: Vec<String>,
    endpoint: String,
}

/// Follows a request through the table.
///
/// # Errors
/// How the gateway would refuse it before it looks at a token.
pub fn plan(config: &Config, method: &str, host_field: &str, target: &str) -> Result<Plan, Rejection> {
    let method = Method::from_bytes(method.as_bytes())
        .map_err(|_| Rejection::BadRequest(format!("{method:?} is no method").into()))?;
    let uri: Uri = target.parse().map_err(|_| Rejection::BadRequest("The target is malformed".into()))?;
    let target = Target::of(&uri, &method)?;
    let host = host::parse(host_field.as_bytes()).map_err(|error| Rejection::BadRequest(error.to_string().into()))?;
    let mut lines = vec![format!("path:     {}", target.path().as_str())];
    if let Some(endpoint) = Endpoint::find(&config.identity, target.path().as_str()) {
        endpoint.check_method(&method)?;
        lines.push(format!("endpoint: {}, answered by the gateway itself", endpoint.place(&config.identity)));
        lines.extend(config.identity.cors.as_ref().map(cors));
        return Ok(Plan { lines, looks_at_tokens: true });
    }
    if target.is(verify::PATH) || target.below(verify::PATH).is_some() {
        lines.push(format!("endpoint: {}, answered by the gateway itself", verify::PATH));
        return Ok(Plan { lines, looks_at_tokens: true });
    }
    let table = Table::new(&config.routes).map_err(|error| Rejection::Internal(error.into()))?;
    let found = table.find(host.as_str(), &method, target.path())?;
    let mut looks_at_tokens = false;
    for route in std::iter::once(found.route).chain(found.also).filter_map(|index| config.routes.get(index)) {
        lines.push(format!("route:    {}  {}{}", route.id, kind(&route.auth), rule(&route.auth)));
        looks_at_tokens |= route.auth != Auth::Public;
    }
    if let Some(route) = config.routes.get(found.route) {
        let upstream = config.upstreams.get(route.upstream).map_or("", |upstream| &upstream.name);
        let sent = target.to_send(route.strip_prefix.as_deref())?;
        lines.push(format!("upstream: {upstream}"));
        lines.push(format!("sent:     {method} {sent}"));
        lines.extend(options(route));
    }
    Ok(Plan { lines, looks_at_tokens })
}

/// What else is set for a route, a line each.
fn options(route: &Route) -> Vec<String> {
    let mut lines: Vec<String> = route.cors.iter().map(cors).collect();
    if let Some(rate) = route.limits.requests {
        lines.push(format!("limit:    {} requests in {:?}", rate.count, rate.per));
    }
    match route.limits.body {
        None => {}
        Some(NO_LIMIT) => lines.push("limit:    bodies of any size".to_owned()),
        Some(body) => lines.push(format!("limit:    bodies of {body} bytes")),
    }
    if route.stream {
        lines.push("stream:   request bodies may be slow".to_owned());
    }
    if route.websocket_protocol_token {
        lines.push("token:    also in Sec-WebSocket-Protocol".to_owned());
    }
    if route.on_expiry == OnExpiry::Ignore {
        lines.push("expiry:   tunnels and streams outlive their token".to_owned());
    }
    lines
}

fn cors(cors: &Cors) -> String {
    format!("cors:     {}", cors.origins.join(", "))
}

/// Refuses a configuration with a route that lies wholly behind an endpoint.
///
/// # Errors
/// [`Hidden`].
pub fn check_hidden(config: &Config) -> Result<(), Hidden> {
    for (endpoint, path) in endpoints(config) {
        let is_below = |route: &Route| {
            endpoint == verify::PATH && route.path.segments.get(..path.len()).is_some_and(|first| hides(&path, first))
        };
        let is_covered = |route: &Route| is_below(route) || !route.path.wildcard && hides(&path, &route.path.segments);
        if let Some(first) = config.routes.iter().position(is_covered) {
            let covered = config.routes.iter().filter(|route| is_covered(route));
            let routes = covered.map(|route| route.id.clone()).collect();
            return Err(Hidden { first, routes, endpoint });
        }
    }
    Ok(())
}

/// Each route of whose paths an endpoint takes some.
pub fn partly_hidden(config: &Config) -> Vec<String> {
    let mut notes = Vec::new();
    for route in &config.routes {
        let taken: Vec<String> = endpoints(config)
            .into_iter()
            .filter(|(_, path)| covers(&route.path.segments, route.path.wildcard, path))
            .map(|(endpoint, _)| endpoint)
            .collect();
        if !taken.is_empty() {
            notes.push(format!("{}: the gateway itself answers {}", route.id, taken.join(", ")));
        }
    }
    notes
}

/// The endpoints' paths, as text and in segments.
fn endpoints(config: &Config) -> Vec<(String, Vec<String>)> {
    let paths = Endpoint::ALL
        .into_iter()
        .map(|endpoint| endpoint.place(&config.identity))
        .filter(|path| Endpoint::find(&config.identity, path).is_some())
        .chain([verify::PATH.to_owned()]);
    paths.map(|path| (path.clone(), path.split('/').skip(1).map(str::to_owned).collect())).collect()
}

/// Whether the endpoint at `path` takes all that fits `segments`.
fn hides(path: &[String], segments: &[Segment]) -> bool {
    let takes = |(text, segment): (&String, &Segment)| match segment {
        _ if text == Endpoint::OPEN => true,
        Segment::Literal(literal) => literal == text,
        Segment::Any => false,
    };
    path.len() == segments.len() && path.iter().zip(segments).all(takes)
}

/// Whether the endpoint at `path` takes some of what fits `segments`.
fn covers(segments: &[Segment], wildcard: bool, path: &[String]) -> bool {
    let fits = segments.len() == path.len() || (wildcard && segments.len() <= path.len());
    fits && segments.iter().zip(path).all(|(segment, text)| match segment {
        Segment::Literal(literal) => literal == text || text == Endpoint::OPEN,
        Segment::Any => true,
    })
}

/// The word for a kind of check.
pub fn kind(auth: &Auth) -> &'static str {
    match auth {
        Auth::Public => "public",
        Auth::Optional => "optional",
        Auth::Required(_) => "required",
    }
}

/// What a rule asks for beyond a good token.
pub fn rule(auth: &Auth) -> String {
    let Auth::Required(rule) = auth else { return String::new() };
    let mut text = String::new();
    if !rule.roles.is_empty() {
        let names: Vec<&str> = rule.roles.iter().map(Role::as_str).collect();
        text.push_str(&format!("  one of the roles {}", names.join(", ")));
    }
    if !rule.scopes.is_empty() {
        text.push_str(&format!("  the scopes {}", rule.scopes.join(", ")));
    }
    for (name, value) in &rule.claims {
        text.push_str(&format!("  {name} = {value}"));
    }
    if rule.fresh {
        text.push_str("  fresh");
    }
    if !rule.issuers.is_empty() {
        text.push_str(&format!("  issued by {}", rule.issuers.join(" or ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use super::*;
    use crate::config::{self, Rate};

    #[test]
    fn says_what_is_set() {
        let text = "upstreams: {app: {servers: [\"http://127.0.0.1:1\"]}}\nroutes: [{path: /a, upstream: app}]";
        let mut config = config::parse(text, "gateway.yaml".as_ref(), &|_| None).unwrap();
        let last = |config: &Config| plan(config, "GET", "localhost", "/a").unwrap().lines().last().unwrap().clone();
        assert_eq!(last(&config), "sent:     GET /a");
        let page = Cors { origins: vec!["https://a".into(), "https://b".into()] };
        config.identity.cors = Some(page.clone());
        let endpoint = plan(&config, "POST", "localhost", "/login").unwrap();
        assert_eq!(endpoint.lines().last().unwrap(), "cors:     https://a, https://b");
        for (set, says) in [
            (
                &(|route: &mut Route| route.on_expiry = OnExpiry::Ignore) as &dyn Fn(&mut Route),
                "expiry:   tunnels and streams outlive their token",
            ),
            (&|route| route.websocket_protocol_token = true, "token:    also in Sec-WebSocket-Protocol"),
            (&|route| route.limits.body = Some(1024), "limit:    bodies of 1024 bytes"),
            (&|route| route.limits.body = Some(NO_LIMIT), "limit:    bodies of any size"),
            (&|route| route.stream = true, "stream:   request bodies may be slow"),
            (
                &|route| {
                    route.limits.requests =
                        NonZeroU32::new(5).map(|count| Rate { count, per: Duration::from_secs(900) });
                },
                "limit:    5 requests in 900s",
            ),
            (&|route| route.cors = Some(page.clone()), "cors:     https://a, https://b"),
        ] {
            let mut config = config.clone();
            set(&mut config.routes[0]);
            assert_eq!(last(&config), says);
        }
    }
}

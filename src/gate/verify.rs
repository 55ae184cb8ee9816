//! ANY /auth/verify: the gate's verdict for another proxy (nginx `auth_request`, Traefik ForwardAuth, Caddy
//! `forward_auth`), which forwards the request itself. Envoy's ext_authz puts the path of the request behind that, and
//! sends its method and host.

use std::sync::atomic::Ordering;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, request};

use crate::clock::UnixTime;
use crate::config::Auth;
use crate::gate::path::Path;
use crate::gate::route::Miss;
use crate::gate::target::Target;
use crate::gate::{Gate, Peer, bearer, host};
use crate::message::{Body, Rejection, credential};
use crate::sessions::Caller;

/// Where it is answered.
pub const PATH: &str = "/auth/verify";

/// Whether a request's target names the endpoint, or lies below it, so that even what is no path gets its answers.
pub fn is_asked(path: &str) -> bool {
    path.strip_prefix(PATH).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Gate {
    /// 200 with the identity headers for a good access token, which also meets the rules of the route that a trusted
    /// peer names.
    ///
    /// # Errors
    /// To be answered by [`Rejection::into_verdict`].
    pub(super) fn verify(
        &self,
        (head, target, host): (&request::Parts, &Target<'_>, &str),
        peer: &Peer,
        now: UnixTime,
    ) -> Result<(Response<Body>, Caller), Rejection> {
        let headers = &head.headers;
        let below = target.below(PATH);
        let caller = bearer::authenticate(&self.sessions, credential::field(headers)?, &peer.memo, now)?;
        if peer.client.trusted
            && let Some(named) = Named::of(headers, below.map(|uri| Named { method: head.method.as_str(), host, uri }))?
        {
            self.check_named(&named, &caller, now)?;
        }
        if !peer.client.trusted
            && (below.is_some() || Named::stands_in(headers))
            && !self.warned.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                proxy = %peer.client.address,
                "whoever asks /auth/verify about a route is not in server.trusted_proxies: tokens are checked, but no route's rule"
            );
        }
        let mut response = Response::new(Body::Empty);
        for (index, value) in caller.headers() {
            let name = self.headers.get(*index);
            if let (Some(name), Ok(value)) = (name, HeaderValue::from_maybe_shared(value.clone())) {
                response.headers_mut().insert(name.clone(), value);
            }
        }
        Ok((response, caller))
    }

    fn check_named(&self, named: &Named<'_>, caller: &Caller, now: UnixTime) -> Result<(), Rejection> {
        let unclear = |what| move |_| Rejection::Forbidden(format!("{what} cannot be read").into());
        let method = Method::from_bytes(named.method.as_bytes()).map_err(|_| refused("X-Forwarded-Method"))?;
        let host = host::parse(named.host.as_bytes()).map_err(unclear("X-Forwarded-Host"))?;
        // A request target has no fragment: whether the proxy forwards one as part of the path is not known.
        if named.uri.contains('#') {
            return Err(Rejection::Forbidden("X-Forwarded-Uri must not contain #".into()));
        }
        let path = named.uri.split('?').next().unwrap_or_default();
        let path = Path::parse(path).map_err(|_| refused("X-Forwarded-Uri, or the path behind /auth/verify,"))?;
        let found = match self.table.find(host.as_str(), &method, &path) {
            Ok(found) => found,
            // No route of ours: then the good token is all that can be asked.
            Err(Miss::NoRoute) => return Ok(()),
            Err(miss) => return Err(Rejection::Forbidden(miss.to_string().into())),
        };
        for index in std::iter::once(found.route).chain(found.also) {
            match self.routes.get(index).map(|route| &route.auth) {
                Some(Auth::Required(rule)) => bearer::check_rule(rule, caller, now)?,
                Some(Auth::Optional) => bearer::check_issuer(&[], caller)?,
                Some(Auth::Public) | None => {}
            }
        }
        Ok(())
    }
}

fn refused(what: &str) -> Rejection {
    Rejection::Forbidden(format!("{what} cannot be read").into())
}

/// The request that a trusted peer asks about.
struct Named<'a> {
    method: &'a str,
    host: &'a str,
    uri: &'a str,
}

impl<'a> Named<'a> {
    /// Whether a route is named at all. X-Forwarded-Host alone is what any proxy sends.
    fn stands_in(headers: &HeaderMap) -> bool {
        headers.contains_key("x-forwarded-method") || headers.contains_key("x-forwarded-uri")
    }

    /// All three headers, exactly once each, or none of them: then `below`, the one that the path names.
    fn of(headers: &'a HeaderMap, below: Option<Self>) -> Result<Option<Self>, Rejection> {
        const NAMES: [HeaderName; 3] = [
            HeaderName::from_static("x-forwarded-method"),
            HeaderName::from_static("x-forwarded-host"),
            HeaderName::from_static("x-forwarded-uri"),
        ];
        match below {
            below if !Self::stands_in(headers) => return Ok(below),
            // A slash alone may be that of the endpoint.
            Some(below) if below.uri != "/" => {
                return Err(Rejection::Forbidden("The path and X-Forwarded-Uri or -Method both name a request".into()));
            }
            Some(_) | None => {}
        }
        let values = NAMES.map(|name| {
            let mut lines = headers.get_all(name).iter();
            match (lines.next().and_then(|line| line.to_str().ok()), lines.next()) {
                (Some(value), None) => Some(value),
                _ => None,
            }
        });
        match values {
            [Some(method), Some(host), Some(uri)] => Ok(Some(Self { method, host, uri })),
            _ => Err(Rejection::Forbidden(
                "A trusted proxy must send X-Forwarded-Method, -Host and -Uri once each".into(),
            )),
        }
    }
}

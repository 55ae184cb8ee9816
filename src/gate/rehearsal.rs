//! A request played through for a person: the very checks and the very rewriting of a forwarded one, but nothing is sent,
//! and nothing is counted against a quota.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::request;

use crate::clock::UnixTime;
use crate::config::{Auth, UsersAccess};
use crate::gate::explain::{kind, rule};
use crate::gate::record::{Record, Subject};
use crate::gate::target::{self, Target};
use crate::gate::{Gate, Peer, Source, bearer, client, given, route};
use crate::identity::Endpoint;
use crate::message::Rejection;
use crate::message::credential::{self, Given};
use crate::model::ADMIN;
use crate::sessions::TokenType;
use crate::upstream::{Pools, Preview, Trial};

/// How a request would end.
#[derive(Default)]
pub struct Rehearsal {
    /// Each rule that it meets, or does not, a line each.
    pub rules: Vec<String>,
    /// What the upstream would get.
    pub preview: Option<Preview>,
    /// The role that the account must have in the store, which is not asked here.
    pub role: Option<&'static str>,
    /// What another proxy that asks /auth/verify would get.
    pub answer: Vec<(HeaderName, HeaderValue)>,
}

/// Who asks, when, and with whose connections.
pub struct Stage<'a> {
    /// Where the request comes from.
    pub source: Source,
    /// When.
    pub now: UnixTime,
    /// A worker's, none of which is opened.
    pub pools: &'a Pools,
}

impl Gate {
    /// Plays a request through; what is found on the way stands in `told`, also when it is refused.
    ///
    /// # Errors
    /// How the gateway would refuse it.
    pub fn rehearse(&self, head: &request::Parts, stage: &Stage<'_>, told: &mut Rehearsal) -> Result<(), Rejection> {
        let Stage { source, now, pools } = *stage;
        let peer = Peer::new(source, self);
        let client = client::of_request(&peer.client, &head.headers, &self.trusted);
        let mut record = Record::begin(false, head, client.address, now);
        let target = Target::of(&head.uri, &head.method)?;
        record.subject = self.own_subject(&target);
        let host = target::host(&head.uri, &head.headers)?;
        if self.preflight(head, host.as_str(), target.path(), &mut record)?.is_some() {
            return Ok(());
        }
        match record.subject {
            Subject::Endpoint(endpoint) => {
                endpoint.check_method(&head.method)?;
                let guarded = endpoint == Endpoint::Users && self.identity.settings().users != UsersAccess::Anyone;
                told.role = guarded.then_some(ADMIN);
                let (rule, outcome) = self.judge_for(endpoint, &head.headers, now);
                let how = match &outcome {
                    Err(rejection) => format!("not met: {}", rejection.code()),
                    Ok(()) if guarded => "the token is good".to_owned(),
                    Ok(()) => "met".to_owned(),
                };
                told.rules.push(format!("{}  {rule}: {how}", endpoint.place(self.identity.settings())));
                return outcome;
            }
            Subject::Verify => {
                let (response, _) = self.verify((head, &target, host.as_str()), &peer, now)?;
                told.answer = listed(response.headers());
                return Ok(());
            }
            Subject::Nothing | Subject::Route(_) => {}
        }
        let found = self.find(head, host.as_str(), target.path(), &mut record)?;
        let route = self.route(found.route)?;
        let given = given(route, head)?;
        told.rules = self.tell_rules(&found, &given, (&peer, now));
        let caller = self.check(&found, &given, &peer, now)?;
        let trial = Trial {
            upstream: route.upstream,
            method: &head.method,
            target: &target.to_send(route.strip_prefix.as_deref())?,
            version: head.version,
            headers: &head.headers,
            caller: caller.as_ref(),
            client: &client,
            ids: record.ids(&head.headers),
            forward_authorization: route.forward_authorization,
            websocket_token: given.is_in_protocol(),
        };
        told.preview = Some(self.upstreams.preview(pools, &trial)?);
        Ok(())
    }

    /// What an endpoint asks of a token before it looks at anything else, and whether it gets that.
    fn judge_for(
        &self,
        endpoint: Endpoint,
        headers: &HeaderMap,
        now: UnixTime,
    ) -> (&'static str, Result<(), Rejection>) {
        let sessions = &self.sessions;
        let token = || credential::token(credential::field(headers)?);
        let open = || Ok::<_, Rejection>(sessions.open_signed(token()?)?);
        let good = |kind| {
            sessions.admit_own(open()?, kind, now)?;
            Ok(())
        };
        let signed = |kind| {
            sessions.verify_signature(token()?, kind)?;
            Ok(())
        };
        match endpoint {
            Endpoint::Registration | Endpoint::Login | Endpoint::Jwks => ("no token", Ok(())),
            Endpoint::Users if self.identity.settings().users == UsersAccess::Anyone => ("no token", Ok(())),
            Endpoint::Users => ("an access token, and an account with the role admin", good(TokenType::Access)),
            Endpoint::LogoutAll | Endpoint::Sessions | Endpoint::Session | Endpoint::Password => {
                ("an access token", good(TokenType::Access))
            }
            Endpoint::Refresh => ("a refresh token", good(TokenType::Refresh)),
            Endpoint::LogoutAccess => ("an access token, even a dead one", signed(TokenType::Access)),
            Endpoint::LogoutRefresh => ("a refresh token, even a dead one", signed(TokenType::Refresh)),
            Endpoint::Logout => ("any token, even a dead one", open().map(drop)),
        }
    }

    /// How each of the routes that the request's readings found judges it by itself.
    fn tell_rules(&self, found: &route::Match, given: &Given<'_>, (peer, now): (&Peer, UnixTime)) -> Vec<String> {
        let routes = std::iter::once(&found.route).chain(&found.also).filter_map(|index| self.routes.get(*index));
        let judge = |route: &crate::config::Route| {
            let outcome = match bearer::check(&self.sessions, &route.auth, given, &peer.memo, now) {
                Ok(Some(_)) => "met".to_owned(),
                Ok(None) if route.auth == Auth::Public => "nobody looks at a token here".to_owned(),
                Ok(None) => "met without a token".to_owned(),
                Err(rejection) => format!("not met: {}", rejection.code()),
            };
            format!("{}  {}{}: {outcome}", route.id, kind(&route.auth), rule(&route.auth))
        };
        routes.map(judge).collect()
    }
}

fn listed(headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

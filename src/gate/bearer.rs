//! The check of a route: the request's one Bearer token and the route's rule, to a Caller or a Rejection.

use std::cell::RefCell;
use std::sync::Arc;

use http::HeaderValue;

use crate::clock::UnixTime;
use crate::config::{Auth, LOCAL, Rule};
use crate::message::Rejection;
use crate::message::credential::{self, Given};
use crate::model::Role;
use crate::sessions::{Caller, Refusal, Sessions, Signed, TokenType};

/// The credential that a connection's last request brought, and whose it was: most connections send one again and again.
/// Never a decision, only what saves looking a good signature up.
#[derive(Default)]
pub struct Memo(RefCell<Option<Arc<Signed>>>);

impl Memo {
    fn recall(&self, field: &HeaderValue) -> Option<Arc<Signed>> {
        let token = field.as_bytes().strip_prefix(b"Bearer ")?;
        self.0.borrow().as_ref().filter(|signed| signed.text().as_bytes() == token).map(Arc::clone)
    }

    fn keep(&self, signed: &Arc<Signed>) {
        *self.0.borrow_mut() = Some(Arc::clone(signed));
    }
}

/// Who asks, as far as the route wants to know.
///
/// # Errors
/// What is wrong with the credential, or which part of the rule it does not meet.
pub fn check(
    sessions: &Sessions,
    auth: &Auth,
    given: &Given<'_>,
    memo: &Memo,
    now: UnixTime,
) -> Result<Option<Caller>, Rejection> {
    let caller = match auth {
        Auth::Public => return Ok(None),
        Auth::Optional | Auth::Required(_) => given.field().and_then(|field| authenticate(sessions, field, memo, now)),
    };
    match (auth, caller) {
        (Auth::Optional, Err(Rejection::TokenMissing { .. })) => Ok(None),
        (Auth::Required(rule), Ok(caller)) => check_rule(rule, &caller, now).map(|()| Some(caller)),
        (Auth::Optional, Ok(caller)) => check_issuer(&[], &caller).map(|()| Some(caller)),
        (_, caller) => caller.map(Some),
    }
}

/// Whose good access token the field holds. One that was seen before is not taken apart again.
///
/// # Errors
/// What is wrong with the field or the token.
pub fn authenticate(sessions: &Sessions, field: &HeaderValue, memo: &Memo, now: UnixTime) -> Result<Caller, Rejection> {
    let signed = match memo.recall(field).filter(|signed| sessions.is_trusted(signed)) {
        Some(signed) => signed,
        None => {
            let signed = sessions.open_signed(credential::token(field)?).map_err(Refusal::from)?;
            memo.keep(&signed);
            signed
        }
    };
    Ok(sessions.admit(signed, TokenType::Access, now)?)
}

/// Checks a caller again who passed a while ago.
///
/// # Errors
/// What has become wrong with the token since.
pub fn check_again(sessions: &Sessions, caller: Option<&Caller>, now: UnixTime) -> Result<(), Rejection> {
    let Some(caller) = caller else { return Ok(()) };
    Ok(sessions.admit(Arc::clone(caller.signed()), TokenType::Access, now).map(drop)?)
}

/// Whether the caller meets all parts of the rule.
///
/// # Errors
/// `forbidden`, naming the first part that is not met.
pub fn check_rule(rule: &Rule, caller: &Caller, now: UnixTime) -> Result<(), Rejection> {
    check_issuer(&rule.issuers, caller)?;
    let claims = caller.claims();
    if !rule.roles.is_empty() && !rule.roles.iter().any(|role| claims.roles.contains(role)) {
        let names: Vec<&str> = rule.roles.iter().map(Role::as_str).collect();
        return Err(Rejection::Forbidden(format!("This needs one of the roles: {}", names.join(", ")).into()));
    }
    if let Some(scope) = rule.scopes.iter().find(|scope| !claims.has_scope(scope)) {
        return Err(Rejection::Forbidden(format!("This needs the scope {scope}").into()));
    }
    if let Some((name, _)) = rule.claims.iter().find(|(name, wanted)| !claims.has(name, wanted)) {
        return Err(Rejection::Forbidden(format!("This needs another value of the claim {name}").into()));
    }
    if rule.fresh && !claims.is_fresh(now) {
        return Err(Rejection::Forbidden("This needs a fresh token: log in again".into()));
    }
    Ok(())
}

/// Whether the rule names the caller's issuer; one that names none is for our own.
///
/// # Errors
/// `forbidden`.
pub fn check_issuer(issuers: &[String], caller: &Caller) -> Result<(), Rejection> {
    let issuer = caller.claims().issuer.as_deref();
    let named = match issuer {
        None => issuers.is_empty() || issuers.iter().any(|known| known == LOCAL),
        Some(issuer) => issuers.iter().any(|known| known == issuer),
    };
    if named {
        return Ok(());
    }
    let whose = issuer.map_or_else(|| "this gateway itself".to_owned(), str::to_owned);
    Err(Rejection::Forbidden(format!("Tokens of {whose} do not open this").into()))
}

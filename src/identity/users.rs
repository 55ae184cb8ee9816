//! GET and DELETE /users, for administrators. Whether one is, the store says, not the token.

use std::sync::Arc;

use http::{HeaderMap, Response, StatusCode, Uri};
use serde_json::{Value, json};

use crate::accounts::{Account, Cleared};
use crate::config::UsersAccess;
use crate::identity::listing::Subject;
use crate::identity::paging::Page;
use crate::identity::{Identity, Origin, answer, listing_answer};
use crate::message::{Body, Rejection};
use crate::model::{ADMIN, Household, Role, Username};
use crate::sessions::{Caller, Warrant};
use crate::tokens::TokenType;

impl Identity {
    pub(super) async fn list_users(
        &self,
        origin: Origin<'_>,
        headers: &HeaderMap,
        uri: &Uri,
    ) -> Result<Response<Body>, Rejection> {
        let caller = self.users_caller(headers, origin)?;
        let subject = match &caller {
            Some(caller) => Subject::Account(Arc::clone(&caller.claims().subject)),
            None => Subject::Client(Household::of(origin.address)),
        };
        let permit = self.listings.acquire(subject).await?;
        if let Some(caller) = &caller {
            self.sessions.confirm(self.administrator(caller).await?).await?;
        }
        let Page { after, limit } = Page::read(uri)?;
        // One more than is shown tells whether there is a next page.
        let mut accounts = self.accounts.list(after.as_deref(), limit + 1).await?;
        let more = accounts.len() > limit as usize;
        accounts.truncate(limit as usize);
        let next = accounts.last().filter(|_| more).map(|account| account.username.as_str());
        let users: Vec<Value> = accounts.iter().map(entry).collect();
        Ok(listing_answer(&json!({ "users": users, "next": next }), permit))
    }

    pub(super) async fn delete_users(
        &self,
        origin: Origin<'_>,
        headers: &HeaderMap,
    ) -> Result<Response<Body>, Rejection> {
        let by = match self.users_caller(headers, origin)? {
            Some(caller) => Some(self.administrator(&caller).await?),
            None => None,
        };
        let keep_until = self.sessions.keep_generation_until(origin.now);
        let revocations = match self.accounts.delete_others(by, origin.now, keep_until).await? {
            Cleared::Done(revocations) => revocations,
            Cleared::NoAdministrator => return Err(not_admin()),
            Cleared::Refused => return Err(Rejection::TokenRevoked),
        };
        origin.trail.more("count", revocations.len().to_string());
        let message = format!("{} row(s) deleted", revocations.len());
        Ok(answer(StatusCode::OK, &json!({ "message": message })))
    }

    /// The caller of /users; `None` where no token is needed.
    fn users_caller(&self, headers: &HeaderMap, origin: Origin<'_>) -> Result<Option<Caller>, Rejection> {
        match self.settings.users {
            UsersAccess::Anyone => Ok(None),
            UsersAccess::Admin | UsersAccess::Off => self.caller(TokenType::Access, headers, origin).map(Some),
        }
    }

    /// What an administrator's token is good for.
    async fn administrator(&self, caller: &Caller) -> Result<Warrant, Rejection> {
        let account = match Username::parse(&caller.claims().subject) {
            Ok(username) => self.accounts.find(&username).await?,
            Err(_) => None,
        };
        let is_admin = |account: &Account| !account.disabled && account.roles.iter().any(|role| role.as_str() == ADMIN);
        account.filter(is_admin).ok_or_else(not_admin)?;
        Ok(self.sessions.warrant(caller).await?)
    }
}

fn not_admin() -> Rejection {
    Rejection::Forbidden(format!("This needs the role {ADMIN}").into())
}

fn entry(account: &Account) -> Value {
    let roles: Vec<&str> = account.roles.iter().map(Role::as_str).collect();
    json!({ "username": account.username.as_str(), "roles": roles, "created": account.created.to_string() })
}

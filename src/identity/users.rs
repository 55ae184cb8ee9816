//! GET and DELETE /users, for administrators. Whether one is, the store says, not the token.

use http::{HeaderMap, Response, StatusCode, Uri};
use serde_json::{Value, json};

use crate::accounts::{Account, Cleared};
use crate::config::UsersAccess;
use crate::identity::{Identity, Origin, answer, query_parameter};
use crate::message::{Body, Rejection};
use crate::model::{ADMIN, Role, Username};
use crate::sessions::Warrant;
use crate::tokens::TokenType;

/// Accounts on a page, unless `?limit=` says otherwise.
pub(super) const PAGE: u32 = 100;

/// The largest page.
pub(super) const LARGEST_PAGE: u32 = 1000;

impl Identity {
    pub(super) async fn list_users(
        &self,
        origin: Origin<'_>,
        headers: &HeaderMap,
        uri: &Uri,
    ) -> Result<Response<Body>, Rejection> {
        if let Some(by) = self.administrator(headers, origin).await? {
            self.sessions.confirm(by).await?;
        }
        let limit = match query_parameter(uri, "limit") {
            None => PAGE,
            Some(text) => text.parse().ok().filter(|limit| (1..=LARGEST_PAGE).contains(limit)).ok_or_else(|| {
                Rejection::BadRequest(format!("limit must be a number from 1 to {LARGEST_PAGE}").into())
            })?,
        };
        let after = query_parameter(uri, "after");
        // One more than is shown tells whether there is a next page.
        let mut accounts = self.accounts.list(after.as_deref(), limit + 1).await?;
        let more = accounts.len() > limit as usize;
        accounts.truncate(limit as usize);
        let next = accounts.last().filter(|_| more).map(|account| account.username.as_str());
        let users: Vec<Value> = accounts.iter().map(entry).collect();
        Ok(answer(StatusCode::OK, &json!({ "users": users, "next": next })))
    }

    pub(super) async fn delete_users(
        &self,
        origin: Origin<'_>,
        headers: &HeaderMap,
    ) -> Result<Response<Body>, Rejection> {
        let by = self.administrator(headers, origin).await?;
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

    /// What an administrator's token is good for; `None` where anyone may use /users.
    async fn administrator(&self, headers: &HeaderMap, origin: Origin<'_>) -> Result<Option<Warrant>, Rejection> {
        if self.settings.users == UsersAccess::Anyone {
            return Ok(None);
        }
        let caller = self.caller(TokenType::Access, headers, origin)?;
        let account = match Username::parse(&caller.claims().subject) {
            Ok(username) => self.accounts.find(&username).await?,
            Err(_) => None,
        };
        let is_admin = |account: &Account| !account.disabled && account.roles.iter().any(|role| role.as_str() == ADMIN);
        account.filter(is_admin).ok_or_else(not_admin)?;
        Ok(Some(self.sessions.warrant(&caller).await?))
    }
}

fn not_admin() -> Rejection {
    Rejection::Forbidden(format!("This needs the role {ADMIN}").into())
}

fn entry(account: &Account) -> Value {
    let roles: Vec<&str> = account.roles.iter().map(Role::as_str).collect();
    json!({ "username": account.username.as_str(), "roles": roles, "created": account.created.to_string() })
}

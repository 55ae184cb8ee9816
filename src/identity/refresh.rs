//! POST /token/refresh: a new access token for a good refresh token.

use http::{HeaderMap, Response, StatusCode};

use crate::identity::{Identity, Origin, answer};
use crate::message::{Body, Rejection};
use crate::tokens::TokenType;

impl Identity {
    pub(super) async fn refresh(&self, origin: Origin, headers: &HeaderMap) -> Result<Response<Body>, Rejection> {
        let caller = self.caller(TokenType::Refresh, headers, origin.now)?;
        let access = self.sessions.refresh(&caller, origin.now).await?;
        Ok(answer(StatusCode::OK, &serde_json::json!({ "access_token": access })))
    }
}

//! POST /logout/access and /logout/refresh end the one token that is sent, POST /logout its session, POST /logout/all every
//! session of its account. An expired or revoked token is no hindrance, except to the last.

use http::{HeaderMap, Response, StatusCode};
use serde_json::json;

use crate::identity::{Identity, Origin, answer};
use crate::message::{Body, Rejection, credential};
use crate::tokens::TokenType;

impl Identity {
    pub(super) async fn log_out(
        &self,
        kind: TokenType,
        origin: Origin<'_>,
        headers: &HeaderMap,
    ) -> Result<Response<Body>, Rejection> {
        let token = credential::token(credential::field(headers)?)?;
        let signed = self.sessions.verify_signature(token, kind)?;
        origin.trail.token(signed.claims());
        self.sessions.revoke(&signed, origin.now).await?;
        let message = match kind {
            TokenType::Access => "Access token has been revoked",
            TokenType::Refresh => "Refresh token has been revoked",
        };
        Ok(answer(StatusCode::OK, &json!({ "message": message })))
    }

    pub(super) async fn log_out_of_session(
        &self,
        origin: Origin<'_>,
        headers: &HeaderMap,
    ) -> Result<Response<Body>, Rejection> {
        let token = credential::token(credential::field(headers)?)?;
        let signed = self.sessions.open_signed(token)?;
        origin.trail.token(signed.claims());
        self.sessions.end(&signed, origin.now).await?;
        Ok(answer(StatusCode::OK, &json!({ "message": "Session ended" })))
    }

    pub(super) async fn log_out_everywhere(
        &self,
        origin: Origin<'_>,
        headers: &HeaderMap,
    ) -> Result<Response<Body>, Rejection> {
        let caller = self.caller(TokenType::Access, headers, origin)?;
        self.sessions.end_all(&caller, origin.now).await?;
        Ok(answer(StatusCode::OK, &json!({ "message": "All sessions ended" })))
    }
}

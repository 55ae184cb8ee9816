//! POST /logout/access and /logout/refresh: ends the one token that is sent. An expired or revoked one is ended already.

use http::{HeaderMap, Response, StatusCode};

use crate::identity::{Identity, Origin, answer};
use crate::message::{Body, Rejection, credential};
use crate::tokens::TokenType;

impl Identity {
    pub(super) async fn log_out(
        &self,
        kind: TokenType,
        origin: Origin,
        headers: &HeaderMap,
    ) -> Result<Response<Body>, Rejection> {
        let token = credential::token(credential::field(headers)?)?;
        let signed = self.sessions.verify_signature(token, kind)?;
        self.sessions.revoke(&signed, origin.now).await?;
        let message = match kind {
            TokenType::Access => "Access token has been revoked",
            TokenType::Refresh => "Refresh token has been revoked",
        };
        Ok(answer(StatusCode::OK, &serde_json::json!({ "message": message })))
    }
}

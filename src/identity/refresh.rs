//! POST /token/refresh: a new access token for a good refresh token; where those rotate, a new one of them too.

use http::{HeaderMap, Response, StatusCode};
use serde_json::json;

use crate::identity::{Identity, Origin, answer};
use crate::message::{Body, Rejection};
use crate::sessions::Refusal;
use crate::telemetry::audit::Event;
use crate::tokens::TokenType;

impl Identity {
    pub(super) async fn refresh(&self, origin: Origin<'_>, headers: &HeaderMap) -> Result<Response<Body>, Rejection> {
        let signer = self.sessions.signer()?;
        let caller = self.caller(TokenType::Refresh, headers, origin)?;
        let renewed = self.sessions.refresh(&signer, &caller, origin.now).await.inspect_err(|refusal| {
            if matches!(refusal, Refusal::Reused) {
                origin.trail.turn_into(Event::Reuse);
            }
        })?;
        let body = match renewed.refresh {
            Some(refresh) => json!({ "access_token": renewed.access, "refresh_token": refresh }),
            None => json!({ "access_token": renewed.access }),
        };
        Ok(answer(StatusCode::OK, &body))
    }
}

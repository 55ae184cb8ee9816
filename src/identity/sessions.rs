//! GET /sessions and DELETE /sessions/{id}: a user sees where he is logged in, and ends what he likes.

use http::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};

use crate::identity::{Identity, Origin, answer};
use crate::message::{Body, Rejection};
use crate::model::SessionId;
use crate::sessions::SessionRow;
use crate::tokens::TokenType;

impl Identity {
    pub(super) async fn list_sessions(
        &self,
        origin: Origin<'_>,
        headers: &HeaderMap,
    ) -> Result<Response<Body>, Rejection> {
        let caller = self.caller(TokenType::Access, headers, origin)?;
        let list = self.sessions.list(&caller, origin.now).await?;
        let own = caller.claims().session.as_ref();
        let sessions: Vec<Value> = list.rows.iter().map(|row| entry(row, own)).collect();
        let mut body = json!({ "sessions": sessions });
        if let Some(fields) = body.as_object_mut().filter(|_| list.more) {
            fields.insert("more".to_owned(), Value::Bool(true));
        }
        Ok(answer(StatusCode::OK, &body))
    }

    pub(super) async fn end_session(
        &self,
        id: &str,
        origin: Origin<'_>,
        headers: &HeaderMap,
    ) -> Result<Response<Body>, Rejection> {
        let caller = self.caller(TokenType::Access, headers, origin)?;
        // What is longer than any id may be a token that stands in the wrong place.
        if id.len() <= SessionId::LENGTH {
            origin.trail.more("ended", id.to_owned());
        }
        if !self.sessions.end_one(&caller, &SessionId::new(id), origin.now).await? {
            // Nobody is told which ids others have.
            return Err(Rejection::NoSession);
        }
        Ok(answer(StatusCode::OK, &json!({ "message": "Session ended" })))
    }
}

fn entry(row: &SessionRow, own: Option<&SessionId>) -> Value {
    json!({
        "id": row.id.as_str(),
        "created": row.created.to_string(),
        "last_used": row.last_used.to_string(),
        "address": row.address,
        "user_agent": row.user_agent,
        "current": own == Some(&row.id),
    })
}

//! GET /sessions and DELETE /sessions/{id}: a user sees where he is logged in, and ends what he likes.

use std::sync::Arc;

use http::{HeaderMap, Response, StatusCode, Uri};
use serde_json::{Value, json};

use crate::clock::UnixTime;
use crate::identity::listing::Subject;
use crate::identity::paging::Page;
use crate::identity::{Identity, Origin, answer, listing_answer};
use crate::message::{Body, Rejection};
use crate::model::SessionId;
use crate::sessions::{Cursor, SessionPage, SessionRow};
use crate::tokens::TokenType;

/// Digits of the time in a cursor.
const CURSOR_DIGITS: usize = 18;

impl Identity {
    pub(super) async fn list_sessions(
        &self,
        origin: Origin<'_>,
        headers: &HeaderMap,
        uri: &Uri,
    ) -> Result<Response<Body>, Rejection> {
        let caller = self.caller(TokenType::Access, headers, origin)?;
        let page = Page::read(uri)?;
        let after = page.after.as_deref().map(parse_cursor).transpose()?;
        let permit = self.listings.acquire(Subject::Account(Arc::clone(&caller.claims().subject))).await?;
        let page = SessionPage { after, limit: page.limit };
        let list = self.sessions.list(&caller, origin.now, page).await?;
        let own = caller.claims().session.as_ref();
        let sessions: Vec<Value> = list.rows.iter().map(|row| entry(row, own)).collect();
        let next = list.next.as_ref().map(cursor_text);
        Ok(listing_answer(&json!({ "sessions": sessions, "next": next }), permit))
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

fn cursor_text(cursor: &Cursor) -> String {
    format!("{}.{}", cursor.last_used.millis(), cursor.id.as_str())
}

/// Reads what [`cursor_text`] wrote.
fn parse_cursor(text: &str) -> Result<Cursor, Rejection> {
    let malformed =
        || Rejection::BadRequest("after: malformed cursor; pass the value of `next` of the last page".into());
    let (millis, id) = text.split_once('.').ok_or_else(malformed)?;
    let is_time = (1..=CURSOR_DIGITS).contains(&millis.len()) && millis.bytes().all(|byte| byte.is_ascii_digit());
    let is_id = (1..=SessionId::LENGTH).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let millis = millis.parse().ok().filter(|_| is_time && is_id).ok_or_else(malformed)?;
    Ok(Cursor { last_used: UnixTime::from_millis(millis), id: SessionId::new(id) })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors() {
        let id = SessionId::random();
        let cursor = Cursor { last_used: UnixTime::from_millis(1_795_420_800_000), id: id.clone() };
        let text = cursor_text(&cursor);
        assert_eq!(text, format!("1795420800000.{}", id.as_str()));
        assert_eq!(parse_cursor(&text).unwrap(), cursor);
        let long = format!("1.{}", "x".repeat(SessionId::LENGTH + 1));
        let many = format!("{}.x", "1".repeat(CURSOR_DIGITS + 1));
        for malformed in
            ["", ".", "1", "1.", ".x", "x.1", "-1.x", "+1.x", " 1.x", "1.x ", "1.x\n", "1.x.y", "1.é", &long, &many]
        {
            let rejection = parse_cursor(malformed).unwrap_err();
            assert!(matches!(rejection, Rejection::BadRequest(_)), "{malformed:?}");
            assert!(rejection.summary().contains("`next`"), "{malformed:?}");
        }
    }
}

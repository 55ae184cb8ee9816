//! The pages of a listing: `?after=&limit=`.

use http::Uri;

use crate::identity::query_parameter;
use crate::message::Rejection;

/// Entries on a page, unless `?limit=` says otherwise.
pub(super) const PAGE: u32 = 100;

/// The largest page.
pub(super) const LARGEST_PAGE: u32 = 1000;

/// The page that a request asks for.
pub(super) struct Page {
    /// `?after=`, as it was sent.
    pub after: Option<String>,
    /// The largest number of entries.
    pub limit: u32,
}

impl Page {
    /// Reads the query of `uri`.
    ///
    /// # Errors
    /// `bad_request` for a limit that is out of range.
    pub fn read(uri: &Uri) -> Result<Self, Rejection> {
        let limit = match query_parameter(uri, "limit") {
            None => PAGE,
            Some(text) => text.parse().ok().filter(|limit| (1..=LARGEST_PAGE).contains(limit)).ok_or_else(|| {
                Rejection::BadRequest(format!("limit: must be a number from 1 to {LARGEST_PAGE}").into())
            })?,
        };
        Ok(Self { after: query_parameter(uri, "after"), limit })
    }
}

//! Background work: the revocation feed.

use async_trait::async_trait;
use pingora::server::{ListenFds, ShutdownWatch};
use pingora::services::Service;

use crate::app::Feed;

/// Runs the feed for as long as the process lives.
pub struct Background {
    feed: Option<Feed>,
}

impl Background {
    /// The service of `feed`.
    pub fn new(feed: Feed) -> Self {
        Self { feed: Some(feed) }
    }
}

#[async_trait]
impl Service for Background {
    async fn start_service(&mut self, _: Option<ListenFds>, _: ShutdownWatch, _: usize) {
        if let Some(feed) = self.feed.take() {
            feed.run().await;
        }
    }

    fn name(&self) -> &'static str {
        "background"
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}

//! Background work: the revocation feed.

use async_trait::async_trait;
use pingora::server::{ListenFds, ShutdownWatch};
use pingora::services::Service;

use crate::app::Feed;
use crate::server::handover::Predecessor;

/// Runs the feed for as long as the process lives.
pub struct Background {
    feed: Option<Feed>,
    predecessor: Option<Predecessor>,
}

impl Background {
    /// The service of `feed`; `predecessor` may stop once the services run.
    pub fn new(feed: Feed, predecessor: Option<Predecessor>) -> Self {
        Self { feed: Some(feed), predecessor }
    }
}

#[async_trait]
impl Service for Background {
    async fn start_service(&mut self, _: Option<ListenFds>, _: ShutdownWatch, _: usize) {
        if let Some(predecessor) = self.predecessor.take() {
            predecessor.dismiss();
        }
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

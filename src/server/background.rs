//! Background work: the revocation feed, the checks of servers, the keys of trusted issuers, and what is swept now and then.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::{ListenFds, ShutdownWatch};
use pingora::services::Service;

use crate::app::{App, Feed};

/// Between two sweeps of quotas.
const SWEEP: Duration = Duration::from_secs(10);

/// Runs the feed for as long as the process lives.
pub struct Background {
    feed: Option<Feed>,
    app: Arc<App>,
}

impl Background {
    /// The service of `feed`, and of what `app` needs done.
    pub fn new(feed: Feed, app: Arc<App>) -> Self {
        Self { feed: Some(feed), app }
    }

    /// Checks the servers of the present edition, for ever.
    async fn check(&self) {
        let mut editions = self.app.editions();
        loop {
            let checks = editions.borrow_and_update().gate.upstreams().checks();
            tokio::select! {
                () = async { checks.run().await; std::future::pending().await } => {}
                changed = editions.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Forgets those who have not been heard of for a while.
    async fn sweep(&self) {
        let mut sweeps = tokio::time::interval(SWEEP);
        loop {
            sweeps.tick().await;
            self.app.edition().gate.quotas().sweep();
        }
    }
}

#[async_trait]
impl Service for Background {
    async fn start_service(&mut self, _: Option<ListenFds>, _: ShutdownWatch, _: usize) {
        if let Some(feed) = self.feed.take() {
            tokio::join!(feed.run(), self.check(), self.sweep(), self.app.follow_providers());
        }
    }

    fn name(&self) -> &'static str {
        "background"
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}

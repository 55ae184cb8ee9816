//! Signals: SIGTERM and SIGINT drain and stop, a second one stops at once.

use std::time::Duration;

use async_trait::async_trait;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::server::Phase;
use crate::server::worker::Workers;

/// Tells pingora to end the process, once it is drained.
pub struct Signals {
    phase: watch::Sender<Phase>,
    workers: Workers,
    /// How long draining may take.
    patience: Duration,
}

impl Signals {
    /// Watches for signals once pingora asks.
    pub fn new(phase: watch::Sender<Phase>, workers: Workers, patience: Duration) -> Self {
        Self { phase, workers, patience }
    }
}

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        let watched = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()));
        let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) = watched else {
            tracing::error!("signals cannot be watched: only SIGKILL will end this process");
            return std::future::pending().await;
        };
        wait(&mut terminate, &mut interrupt, &mut hangup).await;
        tracing::info!(within = ?self.patience, "draining: requests in flight are finished");
        // Nobody listens only when all services have ended already.
        let _ = self.phase.send(Phase::Draining);
        tokio::select! {
            () = self.workers.finished() => tracing::info!("drained"),
            () = tokio::time::sleep(self.patience) => {
                tracing::warn!("server.timeouts.drain is over: what is still open is cut off");
            }
            () = wait(&mut terminate, &mut interrupt, &mut hangup) => {
                tracing::warn!("a second signal: what is still open is cut off");
            }
        }
        ShutdownSignal::FastShutdown
    }
}

/// Returns at a signal that ends the process. SIGHUP would by default; it must not.
async fn wait(terminate: &mut Signal, interrupt: &mut Signal, hangup: &mut Signal) {
    loop {
        tokio::select! {
            _ = terminate.recv() => return,
            _ = interrupt.recv() => return,
            _ = hangup.recv() => {
                tracing::warn!("SIGHUP: this version does not reload; restart it to read gateway.yaml again");
            }
        }
    }
}

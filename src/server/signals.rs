//! Signals: SIGTERM and SIGINT drain and stop; another one ends what is being waited for, the leave or the drain. SIGQUIT
//! stops once a successor serves. SIGUSR1 opens the audit file anew, for logrotate; SIGUSR2 is ignored.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::app::App;
use crate::clock;
use crate::server::Phase;
use crate::server::farewell::Farewell;
use crate::server::handover::{self, Estate, Meeting};
use crate::server::worker::Workers;

/// Tells pingora to end the process, once it is drained.
pub struct Signals {
    /// Where the process is in its life.
    pub phase: watch::Sender<Phase>,
    /// Those who finish requests.
    pub workers: Workers,
    /// Whose configuration says how long draining may take.
    pub app: Arc<App>,
    /// Who asks whether this process is ready.
    pub farewell: Arc<Farewell>,
    /// Where a successor waits; `None` when there can be none.
    pub meeting: Option<Meeting>,
    /// What a successor gets.
    pub estate: Arc<Estate>,
}

struct Watched {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    reopen: Signal,
    /// Its default would end the process.
    ignored: Signal,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Stop,
    HandOver,
    ReopenAudit,
}

impl Watched {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            reopen: signal(SignalKind::user_defined1())?,
            ignored: signal(SignalKind::user_defined2())?,
        })
    }

    async fn next(&mut self) -> Asked {
        loop {
            return tokio::select! {
                _ = self.terminate.recv() => Asked::Stop,
                _ = self.interrupt.recv() => Asked::Stop,
                _ = self.quit.recv() => Asked::HandOver,
                _ = self.reopen.recv() => Asked::ReopenAudit,
                Some(()) = self.ignored.recv() => continue,
            };
        }
    }

    async fn stop(&mut self) {
        while self.next().await != Asked::Stop {}
    }
}

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        let Ok(mut signals) = Watched::new() else {
            tracing::error!("signals cannot be watched: only SIGKILL will end this process");
            return std::future::pending().await;
        };
        loop {
            match signals.next().await {
                Asked::Stop => {
                    let begin = clock::monotonic();
                    tokio::select! {
                        () = self.take_leave() => {}
                        () = signals.stop() => {}
                    }
                    let left = begin.elapsed();
                    self.drain(Phase::Draining, left, &mut signals).await;
                    return ShutdownSignal::FastShutdown;
                }
                Asked::ReopenAudit => self.reopen_audit(),
                Asked::HandOver => {
                    let handed_over = tokio::select! {
                        handed_over = self.hand_over() => handed_over,
                        () = signals.stop() => {
                            self.drain(Phase::Draining, Duration::ZERO, &mut signals).await;
                            return ShutdownSignal::FastShutdown;
                        }
                    };
                    if handed_over {
                        break;
                    }
                }
            }
        }
        self.drain(Phase::Succeeded, Duration::ZERO, &mut signals).await;
        ShutdownSignal::FastShutdown
    }
}

impl Signals {
    fn patience(&self) -> Duration {
        self.app.edition().config.server.timeouts.drain
    }

    fn reopen_audit(&self) {
        match self.app.reopen_audit() {
            Ok(()) => tracing::info!("SIGUSR1: the audit is opened anew"),
            Err(error) => tracing::error!("SIGUSR1: the audit goes on where it was: {error}"),
        }
    }

    /// Whether a successor serves now.
    async fn hand_over(&self) -> bool {
        let Some(meeting) = self.meeting.clone() else {
            tracing::error!("no hand-over: gateway.yaml cannot be found any more. This process goes on serving");
            return false;
        };
        let estate = Arc::clone(&self.estate);
        let sent = tokio::task::spawn_blocking(move || handover::send(&meeting, &estate)).await;
        match sent.unwrap_or(Err(handover::Error::Died)) {
            Ok(()) => {
                tracing::info!("the successor serves");
                true
            }
            Err(error) => {
                tracing::error!("no hand-over: {error}. This process goes on serving");
                false
            }
        }
    }

    /// Goes on taking connections for as long as a load balancer may still send some.
    async fn take_leave(&self) {
        if self.farewell.is_expected() {
            let limit = self.patience() / 3;
            tracing::info!(within = ?limit, "leaving: /readyz says so, and connections are still taken until it was heard");
            let _ = self.phase.send(Phase::Leaving);
            let _ = tokio::time::timeout(limit, self.farewell.heard()).await;
        }
    }

    /// `left` of `server.timeouts.drain` has gone by.
    async fn drain(&self, phase: Phase, left: Duration, signals: &mut Watched) {
        let patience = self.patience().saturating_sub(left);
        tracing::info!(seconds = patience.as_secs_f32().round(), "draining: requests in flight are finished");
        // Nobody listens only when all services have ended already.
        let _ = self.phase.send(phase);
        tokio::select! {
            () = self.workers.finished() => tracing::info!("drained"),
            () = tokio::time::sleep(patience) => {
                tracing::warn!("server.timeouts.drain is over: what is still open is cut off");
            }
            () = signals.stop() => tracing::warn!("a second signal: what is still open is cut off"),
        }
    }
}

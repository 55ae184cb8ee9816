//! Accepting: one task takes connections from a socket and deals them to the workers in turn.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::{ListenFds, ShutdownWatch};
use pingora::services::Service;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::watch;

use crate::server::worker::Inbox;
use crate::server::{Error, Phase};

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 4096;

/// After a failed accept, such as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// Listens on `address`; `key` names it in errors.
///
/// # Errors
/// [`Error::Bind`].
pub fn bind(key: &'static str, address: SocketAddr) -> Result<TcpListener, Error> {
    let open = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(TcpListener::from(socket))
    };
    open().map_err(|source| Error::Bind { key, address, source })
}

/// A public listener.
pub struct Listener {
    socket: Option<TcpListener>,
    workers: Vec<Inbox>,
    phase: watch::Receiver<Phase>,
}

impl Listener {
    /// Deals what comes in at `socket` to `workers`, until the phase is draining.
    pub fn new(socket: TcpListener, workers: Vec<Inbox>, phase: watch::Receiver<Phase>) -> Self {
        Self { socket: Some(socket), workers, phase }
    }

    async fn accept(&mut self, socket: tokio::net::TcpListener) {
        let mut turns = 0_usize;
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                _ = self.phase.wait_for(|phase| *phase == Phase::Draining) => return,
            };
            // The worker registers the socket with its own reactor: it must leave this one's.
            match accepted.and_then(|(stream, _)| stream.into_std()) {
                Ok(stream) => {
                    turns = turns.wrapping_add(1);
                    if let Some(worker) = self.workers.get(turns % self.workers.len().max(1)) {
                        // A worker that is gone takes its connections with it; the process is ending then.
                        let _ = worker.send(stream);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

#[async_trait]
impl Service for Listener {
    async fn start_service(&mut self, _: Option<ListenFds>, _: ShutdownWatch, _: usize) {
        let Some(socket) = self.socket.take() else { return };
        match tokio::net::TcpListener::from_std(socket) {
            Ok(socket) => self.accept(socket).await,
            Err(error) => tracing::error!(%error, "the listener cannot be started"),
        }
        // Workers end when nobody can hand them connections any more.
        self.workers.clear();
    }

    fn name(&self) -> &'static str {
        "listener"
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}

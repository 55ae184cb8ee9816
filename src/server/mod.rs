//! The process: pingora's `Server` owns signals and services; our own service accepts connections and deals them to
//! worker threads, where hyper speaks HTTP and the gate answers.

mod admin;
mod background;
mod connection;
mod http1;
mod http2;
mod frames;
mod room;
mod stay;
mod listener;
mod roster;
mod signals;
mod wire;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server};
use tokio::sync::watch;

use crate::app::{self, App};
use crate::config::Config;

use admin::Admin;
use background::Background;
use listener::Listener;
use signals::Signals;
use worker::Workers;

/// Why the gateway does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address cannot be listened on.
    #[error("{key}: cannot listen on {address}: {source}")]
    Bind {
        /// The key in gateway.yaml.
        key: &'static str,
        /// Which address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// A thread or a runtime could not be started.
    #[error("a worker thread cannot be started: {0}")]
    Thread(#[source] io::Error),
    /// A part could not be built.
    #[error(transparent)]
    App(#[from] app::Error),
}

/// sysexits.h: EX_SOFTWARE.
pub const BUG: i32 = 70;

/// Where the process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It takes requests.
    Serving,
    /// It finishes what it has, and takes nothing new.
    Draining,
}

/// Runs the gateway until a signal ends it.
///
/// # Errors
/// What keeps it from starting; after that it returns only once it is drained.
pub fn run(config: Config) -> Result<(), Error> {
    let public = config.server.listen.iter().filter_map(|listener| match &listener.address {
        crate::config::Address::Tcp(address) => Some(listener::bind("server.listen", *address)),
        crate::config::Address::Unix(_) => None,
    });
    let public = public.collect::<Result<Vec<_>, _>>()?;
    let admin = config.admin.map(|address| listener::bind("admin.listen", address)).transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Thread)?;
    let (app, feed) = runtime.block_on(App::build(config))?;
    drop(runtime);
    let app = Arc::new(app);
    let settings = app.edition().config.server.clone();
    let (phase, watch) = watch::channel(Phase::Serving);
    let (workers, inboxes) = Workers::start(&app, &watch)?;
    let mut server = Server::new_with_opt_and_conf(None, conf());
    server.bootstrap();
    for socket in public {
        let address = socket.local_addr().map_err(Error::Thread)?;
        tracing::info!(%address, workers = settings.workers.get(), "listening");
        server.add_service(Listener::new(socket, inboxes.clone(), watch.clone()));
    }
    // The listeners hold the only inboxes: workers end when these do.
    drop(inboxes);
    server.add_service(Background::new(feed));
    if let Some(socket) = admin {
        let address = socket.local_addr().map_err(Error::Thread)?;
        tracing::info!(%address, "admin listening: /livez /readyz /metrics");
        server.add_service(Admin::new(socket, Arc::clone(&app), watch.clone()));
    }
    let shutdown_signal = Box::new(Signals::new(phase, workers, settings.timeouts.drain));
    server.run(RunArgs { shutdown_signal });
    app.close();
    tracing::info!("stopped");
    Ok(())
}

/// pingora's own settings, in code: its file format ignores unknown keys. Draining is done before pingora is told.
fn conf() -> ServerConf {
    ServerConf {
        threads: 1,
        work_stealing: false,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(1),
        ..ServerConf::default()
    }
}

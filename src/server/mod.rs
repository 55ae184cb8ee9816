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
mod farewell;
mod handover;
mod reload;
mod wire;
mod worker;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server};
use tokio::sync::watch;

use crate::app::{self, App};
use crate::config::{Address, Config};

pub use reload::Origin;

use admin::Admin;
use background::Background;
use farewell::Farewell;
use handover::{Meeting, Named};
use listener::Listener;
use reload::Reload;
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
    /// The predecessor's sockets could not be had.
    #[error(transparent)]
    HandOver(#[from] handover::Error),
    /// There is no file to meet at.
    #[error("run --upgrade needs the gateway.yaml that the running gateway was started with")]
    NoMeeting,
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
    /// It takes requests, and tells load balancers not to send any.
    Leaving,
    /// It finishes what it has, and takes nothing new.
    Draining,
}

/// Runs the gateway until a signal ends it. With `upgrade` it takes the listening sockets of the process that runs the
/// same gateway.yaml, once that gets SIGQUIT.
///
/// # Errors
/// What keeps it from starting; after that it returns only once it is drained.
pub fn run(config: Config, origin: Origin, upgrade: bool) -> Result<(), Error> {
    let meeting = Meeting::of(&origin.path).ok();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Thread)?;
    // With a predecessor at the sockets they are taken last: until then it serves.
    let early = if upgrade { None } else { Some(Sockets::open(&config, Vec::new())?) };
    let (app, feed) = runtime.block_on(App::build(config))?;
    drop(runtime);
    let app = Arc::new(app);
    let edition = app.edition();
    let (sockets, predecessor) = match early {
        Some(sockets) => (sockets, None),
        None => {
            let meeting = meeting.as_ref().ok_or(Error::NoMeeting)?;
            tracing::info!("waiting for the predecessor's sockets: send it SIGQUIT");
            let (inherited, predecessor) = handover::receive(meeting)?;
            (Sockets::open(&edition.config, inherited)?, Some(predecessor))
        }
    };
    let (phase, watch) = watch::channel(Phase::Serving);
    let (workers, inboxes) = Workers::start(&app, &watch)?;
    let farewell = Arc::new(Farewell::new());
    let spare = sockets.duplicates()?;
    let mut server = Server::new_with_opt_and_conf(None, conf());
    server.bootstrap();
    for (address, socket) in sockets.public {
        tracing::info!(%address, workers = edition.config.server.workers.get(), "listening");
        server.add_service(Listener::new(socket, inboxes.clone(), watch.clone()));
    }
    // The listeners hold the only inboxes: workers end when these do.
    drop(inboxes);
    server.add_service(Background::new(feed, predecessor));
    server.add_service(Reload::new(origin, Arc::clone(&app)));
    if let Some((address, socket)) = sockets.admin {
        tracing::info!(%address, "admin listening: /livez /readyz /metrics");
        server.add_service(Admin::new(socket, Arc::clone(&app), watch, Arc::clone(&farewell)));
    }
    let patience = edition.config.server.timeouts.drain;
    drop(edition);
    let signals = Signals { phase, workers, patience, farewell, meeting, sockets: spare };
    server.run(RunArgs { shutdown_signal: Box::new(signals) });
    app.close();
    tracing::info!("stopped");
    Ok(())
}

/// All listening sockets, each with its address in gateway.yaml.
struct Sockets {
    public: Vec<(Address, TcpListener)>,
    admin: Option<(SocketAddr, TcpListener)>,
}

impl Sockets {
    /// Takes the inherited ones that the configuration names, and opens the others.
    fn open(config: &Config, mut inherited: Vec<Named>) -> Result<Self, Error> {
        let mut open = |key, address: SocketAddr| {
            let name = address.to_string();
            match inherited.iter().position(|named| named.name == name) {
                Some(index) => Ok(TcpListener::from(inherited.swap_remove(index).socket)),
                None => listener::bind(key, address),
            }
        };
        let mut public = Vec::new();
        for listener in &config.server.listen {
            if let Address::Tcp(address) = listener.address {
                public.push((listener.address.clone(), open("server.listen", address)?));
            }
        }
        let admin =
            config.admin.map(|address| Ok::<_, Error>((address, open("admin.listen", address)?))).transpose()?;
        Ok(Self { public, admin })
    }

    /// For a successor.
    fn duplicates(&self) -> Result<Vec<Named>, Error> {
        let public = self.public.iter().map(|(address, socket)| (address.to_string(), socket));
        let admin = self.admin.iter().map(|(address, socket)| (address.to_string(), socket));
        let copy = |(name, socket): (String, &TcpListener)| {
            socket.try_clone().map(|socket| Named { name, socket: socket.into() }).map_err(Error::Thread)
        };
        public.chain(admin).map(copy).collect()
    }
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

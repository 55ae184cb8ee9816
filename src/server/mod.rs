//! The process: pingora's `Server` owns signals and services; our own service accepts connections and deals them to
//! worker threads, where hyper speaks HTTP and the gate answers.

mod admin;
mod background;
mod activation;
mod stream;
mod proxy;
mod tls;
mod census;
mod doors;
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
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server};
use tokio::sync::watch;

use crate::app::{self, App};
use crate::config::{self, Address, Config};

pub use reload::Origin;

use admin::Admin;
use background::Background;
use doors::Doors;
use farewell::Farewell;
use handover::{Estate, Meeting, Named};
use listener::{Bound, Listener};
use reload::Reload;
use signals::Signals;
use worker::Workers;

/// Why the gateway does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] listener::Error),
    /// The sockets that the process was started with do not fit.
    #[error(transparent)]
    Activation(#[from] activation::Error),
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// A thread or a runtime could not be started.
    #[error("a worker thread cannot be started: {0}")]
    Thread(#[source] io::Error),
    /// A socket that was passed on cannot be used.
    #[error("a listening socket cannot be used: {0}")]
    Socket(#[source] io::Error),
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
    let doors = Arc::new(Doors::new(&config.server)?);
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
    let (workers, inboxes) = Workers::start(&app, &doors, &watch)?;
    let farewell = Arc::new(Farewell::new());
    let estate = sockets.estate().map_err(Error::Socket)?;
    let mut server = Server::new_with_opt_and_conf(None, conf());
    server.bootstrap();
    for (door, socket) in sockets.public {
        let workers = edition.config.server.workers.get();
        tracing::info!(address = %door.address, tls = door.tls, workers, "listening");
        server.add_service(Listener::new(socket, door, inboxes.clone(), watch.clone()));
    }
    // The listeners hold the only inboxes: workers end when these do.
    drop(inboxes);
    server.add_service(Background::new(feed, predecessor, Arc::clone(&app)));
    server.add_service(Reload::new(origin, Arc::clone(&app), Arc::clone(&doors)));
    if let Some((address, socket)) = sockets.admin {
        tracing::info!(%address, "admin listening: /livez /readyz /metrics");
        server.add_service(Admin::new(socket, Arc::clone(&app), watch, Arc::clone(&farewell), doors));
    }
    let patience = edition.config.server.timeouts.drain;
    drop(edition);
    let signals = Signals { phase, workers, patience, farewell, meeting, estate };
    server.run(RunArgs { shutdown_signal: Box::new(signals) });
    app.close();
    tracing::info!("stopped");
    Ok(())
}

/// All listening sockets.
struct Sockets {
    public: Vec<(Arc<config::Listener>, Bound)>,
    admin: Option<(SocketAddr, TcpListener)>,
}

impl Sockets {
    /// Takes those that a predecessor or systemd left and that the configuration names, and opens the others.
    fn open(config: &Config, mut inherited: Vec<Named>) -> Result<Self, Error> {
        let listeners = &config.server.listen;
        let mut public = Vec::with_capacity(listeners.len());
        for (index, (listener, passed)) in listeners.iter().zip(activation::take(listeners)?).enumerate() {
            let socket = match (passed, take(&mut inherited, &listener.address.to_string())) {
                (Some(socket), _) => socket,
                (None, Some(socket)) => {
                    let mut socket = Bound::adopt(socket).map_err(Error::Socket)?;
                    socket.own_file();
                    socket
                }
                (None, None) => listener::bind(&format!("server.listen[{index}]"), &listener.address)?,
            };
            public.push((Arc::new(listener.clone()), socket));
        }
        let admin = match config.admin {
            None => None,
            Some(address) => match take(&mut inherited, &address.to_string()) {
                Some(socket) => Some((address, TcpListener::from(socket))),
                None => match listener::bind("admin.listen", &Address::Tcp(address))? {
                    Bound::Tcp(socket) => Some((address, socket)),
                    Bound::Unix(..) => None,
                },
            },
        };
        Ok(Self { public, admin })
    }

    /// For a successor, with the files that are then his.
    fn estate(&self) -> io::Result<Estate> {
        let copy =
            |name: String, socket: BorrowedFd<'_>| socket.try_clone_to_owned().map(|socket| Named { name, socket });
        let public = self.public.iter().map(|(door, socket)| copy(door.address.to_string(), socket.as_fd()));
        let admin = self.admin.iter().map(|(address, socket)| copy(address.to_string(), socket.as_fd()));
        let files = self.public.iter().filter_map(|(_, socket)| socket.file()).collect();
        Ok(Estate { sockets: public.chain(admin).collect::<io::Result<_>>()?, files })
    }
}

fn take(inherited: &mut Vec<Named>, name: &str) -> Option<OwnedFd> {
    let index = inherited.iter().position(|named| named.name == name)?;
    Some(inherited.swap_remove(index).socket)
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

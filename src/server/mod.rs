//! The process: pingora's `Server` owns signals and services; our own service accepts connections and deals them to
//! worker threads, where hyper speaks HTTP and the gate answers.

mod admin;
mod background;
mod activation;
mod stream;
mod proxy;
mod tls;
mod seldom;
mod descriptors;
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
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::app::{self, App, Feed};
use crate::config::{self, Address, Config};
use crate::telemetry::output::Output;

pub use admin::HEALTH_AGENT;
pub use reload::{Origin, warn_of};
pub use tls::Error as TlsError;

use admin::Admin;
use background::Background;
use doors::Doors;
use farewell::Farewell;
use handover::{Estate, Meeting, Named, Predecessor};
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
    /// A thread or a runtime could not be started, or a signal not be watched.
    #[error("the system refuses a thread, a runtime or a signal: {0}")]
    Thread(#[source] io::Error),
    /// A socket that was passed on cannot be used.
    #[error("a listening socket cannot be used: {0}")]
    Socket(#[source] io::Error),
    /// The predecessor's sockets could not be had.
    #[error(transparent)]
    HandOver(#[from] handover::Error),
    /// The file has become wrong while the predecessor's sockets were waited for.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// There is no file to meet at.
    #[error("run --upgrade needs the gateway.yaml that the running gateway was started with")]
    NoMeeting,
    /// A part could not be built.
    #[error(transparent)]
    App(#[from] app::Error),
}

impl Error {
    /// Whether the configuration is wrong, so that a restart does not help.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Tls(_) | Self::Config(_) => true,
            Self::App(error) => error.is_configuration(),
            // Another process, or the system, may be the cause.
            Self::Listen(_) | Self::Activation(_) | Self::Thread(_) | Self::Socket(_) | Self::HandOver(_) => false,
            Self::NoMeeting => false,
        }
    }
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
    /// The same, and a successor has its sockets: nobody is to ask this process anything any more.
    Succeeded,
}

impl Phase {
    /// Whether nothing new is taken.
    pub fn is_last(self) -> bool {
        matches!(self, Self::Draining | Self::Succeeded)
    }
}

/// Runs the gateway until a signal ends it. With `upgrade` it takes the listening sockets of the process that runs the
/// same gateway.yaml, once that gets SIGQUIT. Access log and audit go to `output`, where the log is.
///
/// # Errors
/// What keeps it from starting; after that it returns only once it is drained.
pub fn run(config: Config, origin: Origin, upgrade: bool, output: Output) -> Result<(), Error> {
    let seen = origin.look(&config);
    let meeting = Meeting::of(&origin.path).ok();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Thread)?;
    // From the first moment on these must not end the process. One that nobody hears yet costs nothing: changed files are
    // seen soon after, and a successor waits.
    for kind in [SignalKind::hangup(), SignalKind::quit()] {
        drop(runtime.block_on(async { signal(kind) }).map_err(Error::Thread)?);
    }
    descriptors::raise();
    let start = match (upgrade, &meeting) {
        (false, _) => Start::first(config, &runtime, output)?,
        (true, Some(meeting)) => {
            let app = runtime.block_on(App::build(config, output))?;
            Start::after(meeting, app, &origin, &runtime)?
        }
        (true, None) => return Err(Error::NoMeeting),
    };
    drop(runtime);
    let Start { app, feed, doors, sockets, predecessor } = start;
    let (phase, watch) = watch::channel(Phase::Serving);
    let (workers, inboxes) = Workers::start(&app, &doors, &watch)?;
    let farewell = Arc::new(Farewell::new());
    let estate = Arc::new(sockets.estate().map_err(Error::Socket)?);
    let mut server = Server::new_with_opt_and_conf(None, conf());
    server.bootstrap();
    let count = app.edition().config.server.workers.get();
    for (door, socket) in sockets.public {
        tracing::info!(address = %door.address, tls = door.tls, workers = count, "listening");
        let to = (inboxes.clone(), Arc::clone(&doors.shortages));
        server.add_service(Listener::new(socket, door, to, watch.clone()));
    }
    // The listeners hold the only inboxes: workers end when these do.
    drop(inboxes);
    server.add_service(Background::new(feed, Arc::clone(&app)));
    server.add_service(Reload::new(origin, Arc::clone(&app), Arc::clone(&doors), seen));
    if let Some((address, socket)) = sockets.admin {
        tracing::info!(%address, "admin listening: /livez /readyz /metrics /openapi.json");
        server.add_service(Admin::new(socket, Arc::clone(&app), watch, Arc::clone(&farewell), doors));
    }
    if let Some(predecessor) = predecessor {
        predecessor.relieve()?;
        estate.files.iter().for_each(|file| file.claim());
    }
    let signals = Signals { phase, workers, app: Arc::clone(&app), farewell, meeting, estate };
    server.run(RunArgs { shutdown_signal: Box::new(signals) });
    app.close();
    tracing::info!("stopped");
    Ok(())
}

/// All parts, before anything is served.
struct Start {
    app: Arc<App>,
    feed: Feed,
    doors: Arc<Doors>,
    sockets: Sockets,
    /// Who serves until this process is ready to.
    predecessor: Option<Predecessor>,
}

impl Start {
    fn first(config: Config, runtime: &Runtime, output: Output) -> Result<Self, Error> {
        // What another process may hold first: it is the likeliest to be in the way.
        let sockets = Sockets::open(&config, Vec::new())?;
        let doors = Arc::new(Doors::new(&config.server)?);
        let (app, feed) = runtime.block_on(App::build(config, output))?;
        Ok(Self { app: Arc::new(app), feed, doors, sockets, predecessor: None })
    }

    /// All that takes time is done before the sockets come. While they were waited for, the file may have changed, and
    /// tokens been revoked.
    fn after(
        meeting: &Meeting,
        (app, mut feed): (App, Feed),
        origin: &Origin,
        runtime: &Runtime,
    ) -> Result<Self, Error> {
        tracing::info!("waiting for the predecessor's sockets: send it SIGQUIT");
        let (inherited, predecessor) = handover::receive(meeting)?;
        let config = (origin.load)()?;
        let doors = Arc::new(Doors::new(&config.server)?);
        let sockets = Sockets::open(&config, inherited)?;
        runtime.block_on(async {
            app.renew(config).await?;
            feed.catch_up().await.map_err(app::Error::from)
        })?;
        Ok(Self { app: Arc::new(app), feed, doors, sockets, predecessor: Some(predecessor) })
    }
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
                (None, Some(named)) => {
                    let mut socket = Bound::adopt(named.socket).map_err(Error::Socket)?;
                    if named.file {
                        socket.own_file();
                        // Not yet: the predecessor still serves there.
                        socket.file().iter().for_each(|file| file.leave());
                    }
                    socket
                }
                (None, None) => listener::bind(&format!("server.listen[{index}]"), &listener.address)?,
            };
            public.push((Arc::new(listener.clone()), socket));
        }
        let admin = match config.admin {
            None => None,
            Some(address) => match take(&mut inherited, &address.to_string()) {
                Some(named) => Some((address, TcpListener::from(named.socket))),
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
        let copy = |name: String, socket: BorrowedFd<'_>, file| {
            socket.try_clone_to_owned().map(|socket| Named { name, socket, file })
        };
        let public = self
            .public
            .iter()
            .map(|(door, socket)| copy(door.address.to_string(), socket.as_fd(), socket.file().is_some()));
        let admin = self.admin.iter().map(|(address, socket)| copy(address.to_string(), socket.as_fd(), false));
        let files = self.public.iter().filter_map(|(_, socket)| socket.file()).collect();
        Ok(Estate { sockets: public.chain(admin).collect::<io::Result<_>>()?, files })
    }
}

fn take(inherited: &mut Vec<Named>, name: &str) -> Option<Named> {
    let index = inherited.iter().position(|named| named.name == name)?;
    Some(inherited.swap_remove(index))
}

/// Whether the files that the listeners need can be used.
///
/// # Errors
/// The certificates'.
pub fn check_files(config: &config::Server) -> Result<(), tls::Error> {
    doors::Renewal::load(config).map(drop)
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

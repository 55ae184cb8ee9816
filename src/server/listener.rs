//! Listening: one task takes connections from a socket, of an address or of a path, and deals them to the workers in turn.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::{ListenFds, ShutdownWatch};
use pingora::services::Service;
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockAddr, Type};
use tokio::sync::{mpsc, watch};

use crate::clock;
use crate::config::{self, Address};
use crate::server::Phase;
use crate::server::seldom::Seldom;
use crate::server::stream::Socket;

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 4096;

/// After a failed accept, such as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// Of a UNIX socket's file: its user and its group may connect.
const MODE: u32 = 0o660;

/// Why an address cannot be listened on. `key` is the key in gateway.yaml.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refuses.
    #[error("{key}: cannot listen on {address}: {source}{}", remedy(source))]
    Bind {
        /// The key.
        key: String,
        /// Which address.
        address: Address,
        /// Why not.
        source: io::Error,
    },
    /// Somebody answers at the path.
    #[error("{key}: cannot listen on {address}: another process listens there; stop it, or choose another path")]
    Taken {
        /// The key.
        key: String,
        /// Which path.
        address: Address,
    },
    /// The path is no socket's.
    #[error("{key}: cannot listen on {address}: a file that is no socket is there; remove it, or choose another path")]
    NoSocket {
        /// The key.
        key: String,
        /// Which path.
        address: Address,
    },
}

/// What to do about it, where that is known.
fn remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            ". Another process has it (`ss -ltnp` tells which): stop that, choose another port, or take a running gateway's \
             place with `portcullis run --upgrade`"
        }
        io::ErrorKind::PermissionDenied => ". Ports below 1024 need root, or the capability CAP_NET_BIND_SERVICE",
        io::ErrorKind::AddrNotAvailable => {
            ". This machine has no such address; 0.0.0.0 or [::] is every one that it has"
        }
        _ => "",
    }
}

/// A socket that listens, with no accept loop yet.
pub enum Bound {
    /// On an address and port.
    Tcp(TcpListener),
    /// On a path. The file goes with the listener, where it is ours to remove.
    Unix(UnixListener, Option<Arc<SocketFile>>),
}

impl Bound {
    /// Takes a listening socket over, from systemd or from a predecessor. A UNIX socket's file stays when it is closed:
    /// see [`own_file`](Self::own_file).
    ///
    /// # Errors
    /// It is no stream socket of a family that we know.
    pub fn adopt(socket: OwnedFd) -> io::Result<Self> {
        let socket = socket2::Socket::from(socket);
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        if socket.r#type()? != Type::STREAM {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a stream socket"));
        }
        match address.domain() {
            Domain::IPV4 | Domain::IPV6 => Ok(Self::Tcp(socket.into())),
            Domain::UNIX => Ok(Self::Unix(OwnedFd::from(socket).into(), None)),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "neither an internet nor a UNIX socket")),
        }
    }

    /// Makes the file of a UNIX socket ours, as the predecessor has left it to us: it is removed when we stop.
    pub fn own_file(&mut self) {
        if let Self::Unix(socket, file @ None) = self {
            let address = socket.local_addr().ok();
            *file = address.and_then(|address| SocketFile::at(address.as_pathname()?).ok()).map(Arc::new);
        }
    }

    /// The file of a UNIX socket, if it is ours to remove. To be [left](SocketFile::leave) when a successor has the socket.
    pub fn file(&self) -> Option<Arc<SocketFile>> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(_, file) => file.clone(),
        }
    }

    /// Where it listens; `None` for a UNIX socket without a path.
    ///
    /// # Errors
    /// The system refuses to tell.
    pub fn address(&self) -> io::Result<Option<Address>> {
        Ok(match self {
            Self::Tcp(socket) => Some(Address::Tcp(socket.local_addr()?)),
            Self::Unix(socket, _) => socket.local_addr()?.as_pathname().map(|path| Address::Unix(path.to_owned())),
        })
    }
}

impl AsFd for Bound {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket, _) => socket.as_fd(),
        }
    }
}

/// The file of a UNIX socket that we made. It is removed when this is dropped, if it is still the same file.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    ours: AtomicBool,
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        let found = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device: found.dev(), inode: found.ino(), ours: AtomicBool::new(true) })
    }

    /// Leaves the file where it is, for the successor that now listens there.
    pub fn leave(&self) {
        self.ours.store(false, Ordering::Relaxed);
    }

    /// Takes it over from a predecessor that left it.
    pub fn claim(&self) {
        self.ours.store(true, Ordering::Relaxed);
    }

    /// Removes it, unless it was left or is another's by now.
    pub fn remove(&self) {
        let same = |found: fs::Metadata| (found.dev(), found.ino()) == (self.device, self.inode);
        if self.ours.swap(false, Ordering::Relaxed) && fs::symlink_metadata(&self.path).is_ok_and(same) {
            // A file that cannot be removed is found stale by the next one to bind.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Listens on `address`; `key` names it in errors. A UNIX socket gets mode 0660: its user and its group may connect. A
/// socket's file that nobody listens at any more is replaced.
///
/// # Errors
/// All of [`Error`].
pub fn bind(key: &str, address: &Address) -> Result<Bound, Error> {
    let refuse = |source| Error::Bind { key: key.to_owned(), address: address.clone(), source };
    match address {
        Address::Tcp(address) => open_tcp(*address).map(Bound::Tcp).map_err(refuse),
        Address::Unix(path) => {
            let opened = match open_unix(path) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    remove_stale(key, path)?;
                    open_unix(path)
                }
                opened => opened,
            };
            let (socket, file) = opened.map_err(refuse)?;
            Ok(Bound::Unix(socket, Some(Arc::new(file))))
        }
    }
}

fn open_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn open_unix(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&unix_address(path)?)?;
    let file = SocketFile::at(path)?;
    // Before it listens, so that nobody gets in by the mode that the umask gave.
    fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok((OwnedFd::from(socket).into(), file))
}

fn unix_address(path: &Path) -> io::Result<SockAddr> {
    let refuse = |_| io::Error::new(io::ErrorKind::InvalidInput, "the path of a socket has at most 107 bytes");
    SockAddr::unix(path).map_err(refuse)
}

/// Removes a socket's file that nobody listens at.
fn remove_stale(key: &str, path: &Path) -> Result<(), Error> {
    let (key, address) = (key.to_owned(), Address::Unix(path.to_owned()));
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(Error::Bind { key, address, source }),
    };
    if !found.file_type().is_socket() {
        return Err(Error::NoSocket { key, address });
    }
    match is_answered(path) {
        Ok(true) => Err(Error::Taken { key, address }),
        Ok(false) => fs::remove_file(path).map_err(|source| Error::Bind { key, address, source }),
        Err(source) => Err(Error::Bind { key, address, source }),
    }
}

fn is_answered(path: &Path) -> io::Result<bool> {
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Not to wait where the other's queue is full.
    socket.set_nonblocking(true)?;
    match socket.connect(&unix_address(path)?) {
        Ok(()) => Ok(true),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock => Ok(true),
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Ok(false),
            _ => Err(error),
        },
    }
}

/// A connection, and which listener it came by.
pub struct Arrival {
    /// Its socket, known to no reactor.
    pub socket: Socket,
    /// What is spoken there.
    pub door: Arc<config::Listener>,
}

/// Where a worker gets its connections from.
pub type Inbox = mpsc::UnboundedSender<Arrival>;

/// A public listener.
pub struct Listener {
    socket: Option<Bound>,
    door: Arc<config::Listener>,
    workers: Vec<Inbox>,
    shortages: Arc<AtomicU64>,
    phase: watch::Receiver<Phase>,
}

impl Listener {
    /// Deals what comes in at `socket`, which is `door`'s, to `workers`, until the phase is draining.
    pub fn new(
        socket: Bound,
        door: Arc<config::Listener>,
        (workers, shortages): (Vec<Inbox>, Arc<AtomicU64>),
        phase: watch::Receiver<Phase>,
    ) -> Self {
        Self { socket: Some(socket), door, workers, shortages, phase }
    }

    async fn accept(&mut self, socket: Registered) {
        let failures = Seldom::default();
        let mut turns = 0_usize;
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                _ = self.phase.wait_for(|phase| phase.is_last()) => return,
            };
            match accepted {
                Ok(socket) => {
                    turns = turns.wrapping_add(1);
                    if let Some(worker) = self.workers.get(turns % self.workers.len().max(1)) {
                        // A worker that is gone takes its connections with it; the process is ending then.
                        let _ = worker.send(Arrival { socket, door: Arc::clone(&self.door) });
                    }
                }
                Err(error) => {
                    if is_shortage(&error) {
                        self.shortages.fetch_add(1, Ordering::Relaxed);
                    }
                    if failures.is_due(clock::monotonic()) {
                        tell(&error);
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

fn is_shortage(error: &io::Error) -> bool {
    [Errno::MFILE, Errno::NFILE].map(|errno| Some(errno.raw_os_error())).contains(&error.raw_os_error())
}

fn tell(error: &io::Error) {
    let remedy = if is_shortage(error) {
        "; allow more open files (ulimit -n, or LimitNOFILE= of systemd), or lower server.limits.connections"
    } else {
        ""
    };
    tracing::warn!("a connection could not be accepted: {error}{remedy}");
}

/// A socket that this thread's reactor knows.
enum Registered {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Registered {
    /// The worker registers the connection with its own reactor: it must leave this one's.
    async fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(socket) => socket.accept().await?.0.into_std().map(Socket::Tcp),
            Self::Unix(socket) => socket.accept().await?.0.into_std().map(Socket::Unix),
        }
    }
}

#[async_trait]
impl Service for Listener {
    async fn start_service(&mut self, _: Option<ListenFds>, _: ShutdownWatch, _: usize) {
        let Some(socket) = self.socket.take() else { return };
        let file = socket.file();
        let registered = match socket {
            Bound::Tcp(socket) => tokio::net::TcpListener::from_std(socket).map(Registered::Tcp),
            Bound::Unix(socket, _) => tokio::net::UnixListener::from_std(socket).map(Registered::Unix),
        };
        match registered {
            Ok(socket) => self.accept(socket).await,
            Err(error) => tracing::error!(%error, "the listener cannot be started"),
        }
        // Whoever else may leave it to a successor, nobody is to find it once nobody listens.
        if let Some(file) = file {
            file.remove();
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

#[cfg(test)]
mod tests;

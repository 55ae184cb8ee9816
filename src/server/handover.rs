//! Handing the listening sockets to a successor: `run --upgrade` waits for them, SIGQUIT sends them. Nobody is refused
//! meanwhile, since both processes hold the same sockets until the successor serves. The words that are exchanged: the
//! predecessor sends the sockets, the successor says that it is about to serve, and the predecessor's last word decides; so
//! that there is always one of the two that serves, and never both.
//!
//! pingora's own hand-over gives raw descriptors, which only unsafe code could take; and its sender stops even when
//! nobody took them. Ours goes on serving then.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};

use crate::server::listener::SocketFile;

/// Sockets that can be handed over; the kernel takes 253 in one message.
const SOCKETS: usize = 128;

/// Bytes for the sockets' names.
const NAMES: usize = 64 * 1024;

/// How long the predecessor waits until its successor serves.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the successor says when nothing keeps it any more, and what the predecessor answers.
const READY: &[u8] = b"ready\n";
const GO: &[u8] = b"go\n";

/// Behind the name of a UNIX socket whose file was the predecessor's.
const WITH_FILE: &str = "\tfile";

/// Why sockets did not change hands.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody waits for them.
    #[error(
        "no successor waits for the sockets: start one first, with `portcullis run --upgrade` and the same gateway.yaml"
    )]
    NobodyWaits,
    /// Another successor waits already.
    #[error("another process with this gateway.yaml is waiting already (`run --upgrade`)")]
    AnotherWaits,
    /// The other end belongs to another user.
    #[error("the process at the other end belongs to user {0}: sockets go to the same user only")]
    Stranger(u32),
    /// The successor ended before it served.
    #[error("the successor took the sockets, and ended before it served: its own log says why")]
    Died,
    /// The successor said nothing.
    #[error("the successor took the sockets, and was not ready to serve within {PATIENCE:?}")]
    Silent,
    /// The predecessor has given this successor up.
    #[error("the predecessor did not wait any longer, and goes on serving: start again, and send it SIGQUIT again")]
    GivenUp,
    /// The system refused.
    #[error("the sockets could not change hands: {0}")]
    Io(#[from] io::Error),
}

/// Where predecessor and successor meet: a name in the abstract namespace, by user and gateway.yaml.
#[derive(Clone)]
pub struct Meeting(SocketAddr);

impl Meeting {
    /// The meeting of those who run the configuration at `path`.
    ///
    /// # Errors
    /// The system's.
    pub fn of(path: &Path) -> io::Result<Self> {
        // Links are left alone: one of them may point to the next release by now.
        let path = std::path::absolute(path)?;
        let digest = digest::digest(&digest::SHA256, path.as_os_str().as_encoded_bytes());
        let hash: String = digest.as_ref().iter().take(12).map(|byte| format!("{byte:02x}")).collect();
        let name = format!("portcullis-upgrade-{}-{hash}", rustix::process::getuid().as_raw());
        SocketAddr::from_abstract_name(name).map(Self)
    }
}

/// A socket and the address by which both processes know it.
pub struct Named {
    /// As in gateway.yaml.
    pub name: String,
    /// The socket.
    pub socket: OwnedFd,
    /// Whether the file of a UNIX socket goes along.
    pub file: bool,
}

/// What a successor gets.
pub struct Estate {
    /// All listening sockets.
    pub sockets: Vec<Named>,
    /// The files of UNIX sockets, which then are not ours to remove.
    pub files: Vec<Arc<SocketFile>>,
}

/// The predecessor, waiting to hear that the successor is ready.
pub struct Predecessor(UnixStream);

impl Predecessor {
    /// Takes its place. It stops taking connections then.
    ///
    /// # Errors
    /// [`Error::GivenUp`]: it goes on, and this process must not serve.
    pub fn relieve(mut self) -> Result<(), Error> {
        let mut word = [0; GO.len()];
        let heard = self.0.write_all(READY).and_then(|()| self.0.read_exact(&mut word));
        if heard.is_ok() && word == GO { Ok(()) } else { Err(Error::GivenUp) }
    }
}

/// Waits for a predecessor and its sockets.
///
/// # Errors
/// [`Error`].
pub fn receive(meeting: &Meeting) -> Result<(Vec<Named>, Predecessor), Error> {
    let listener = UnixListener::bind_addr(&meeting.0).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => Error::AnotherWaits,
        _ => Error::Io(error),
    })?;
    let stream = loop {
        let (stream, _) = listener.accept()?;
        match check_peer(&stream) {
            Ok(()) => break stream,
            Err(error) => tracing::warn!("somebody else offers sockets, and is not heard: {error}"),
        }
    };
    let mut names = vec![0; NAMES];
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut names)];
    let received =
        rustix::net::recvmsg(&stream, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC).map_err(io::Error::from)?;
    let mut sockets: Vec<OwnedFd> = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            sockets.extend(descriptors);
        }
    }
    let text = String::from_utf8_lossy(names.get(..received.bytes).unwrap_or_default()).into_owned();
    let named = text.lines().zip(sockets).map(|(line, socket)| {
        let name = line.strip_suffix(WITH_FILE);
        Named { name: name.unwrap_or(line).into(), socket, file: name.is_some() }
    });
    Ok((named.collect(), Predecessor(stream)))
}

/// Sends `sockets` to the successor that waits, and returns once it serves.
///
/// # Errors
/// [`Error`]; then this process still is the one that serves.
pub fn send(meeting: &Meeting, estate: &Estate) -> Result<(), Error> {
    let sockets = &estate.sockets;
    let stream = UnixStream::connect_addr(&meeting.0).map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Error::NobodyWaits,
        _ => Error::Io(error),
    })?;
    check_peer(&stream)?;
    let line = |named: &Named| format!("{}{}\n", named.name, if named.file { WITH_FILE } else { "" });
    let names: String = sockets.iter().map(line).collect();
    let descriptors: Vec<BorrowedFd<'_>> = sockets.iter().map(|named| named.socket.as_fd()).collect();
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) || names.len() > NAMES {
        return Err(io::Error::other(format!("more than {SOCKETS} listening sockets")).into());
    }
    rustix::net::sendmsg(&stream, &[IoSlice::new(names.as_bytes())], &mut ancillary, SendFlags::empty())
        .map_err(io::Error::from)?;
    await_successor(stream)?;
    estate.files.iter().for_each(|file| file.leave());
    Ok(())
}

fn await_successor(mut stream: UnixStream) -> Result<(), Error> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut word = [0; READY.len()];
    match stream.read_exact(&mut word) {
        // From here on the successor serves, whatever becomes of this process.
        Ok(()) if word == READY => stream.write_all(GO).map_err(|_| Error::Died),
        Ok(()) => Err(Error::Died),
        Err(error) => match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Err(Error::Died),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Err(Error::Silent),
            _ => Err(error.into()),
        },
    }
}

/// Anyone may take an abstract name: what counts is who answers there.
fn check_peer(stream: &UnixStream) -> Result<(), Error> {
    let peer = rustix::net::sockopt::socket_peercred(stream).map_err(io::Error::from)?.uid;
    let own = rustix::process::getuid();
    if peer == own { Ok(()) } else { Err(Error::Stranger(peer.as_raw())) }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests wait for each other's threads")]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn estate(sockets: Vec<Named>) -> Estate {
        Estate { sockets, files: Vec::new() }
    }

    #[test]
    fn sockets_change_hands_and_go_on_listening() {
        let folder = tempfile::tempdir().unwrap();
        let meeting = Meeting::of(folder.path()).unwrap();
        assert!(matches!(send(&meeting, &estate(Vec::new())), Err(Error::NobodyWaits)));
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let estate = estate(vec![Named { name: address.to_string(), socket: socket.into(), file: false }]);
        let theirs = meeting.clone();
        let successor = std::thread::spawn(move || {
            let (named, predecessor) = receive(&theirs).unwrap();
            predecessor.relieve().unwrap();
            named
        });
        while let Err(error) = send(&meeting, &estate) {
            assert!(matches!(error, Error::NobodyWaits), "{error}");
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(estate);
        let [taken] = <[Named; 1]>::try_from(successor.join().unwrap()).ok().unwrap();
        assert_eq!(taken.name, address.to_string());
        let listener = TcpListener::from(taken.socket);
        TcpStream::connect(address).unwrap();
        listener.accept().unwrap();
    }

    #[test]
    fn a_successor_that_dies_leaves_the_predecessor_serving() {
        let folder = tempfile::tempdir().unwrap();
        let meeting = Meeting::of(folder.path()).unwrap();
        let theirs = meeting.clone();
        let successor = std::thread::spawn(move || drop(receive(&theirs)));
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let estate = estate(vec![Named { name: "one".into(), socket: socket.into(), file: false }]);
        let outcome = loop {
            match send(&meeting, &estate) {
                Err(Error::NobodyWaits) => std::thread::sleep(Duration::from_millis(1)),
                other => break other,
            }
        };
        assert!(matches!(outcome, Err(Error::Died)), "{outcome:?}");
        successor.join().unwrap();
    }
}

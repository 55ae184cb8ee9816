//! Socket activation: systemd opens the sockets, and passes them on by `LISTEN_FDS` and `LISTEN_PID`.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use listenfd::ListenFd;

use crate::config::{self, Address};
use crate::server::listener::Bound;

/// Why the sockets that were passed on cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A socket for which there is no listener.
    #[error(
        "socket activation: socket {number} listens on {address}, and server.listen has {configured}; \
         make ListenStream= and server.listen agree"
    )]
    Unknown {
        /// From 0, in the order of `ListenStream=`.
        number: usize,
        /// Where it listens.
        address: String,
        /// All of `server.listen`.
        configured: String,
    },
    /// Two sockets for one listener.
    #[error("socket activation: two sockets listen on {0}; keep one ListenStream= of the two")]
    Twice(Address),
    /// What was passed on is of another kind.
    #[error("socket activation: socket {number} cannot be used: {source}; only ListenStream= is served")]
    Unusable {
        /// From 0.
        number: usize,
        /// Why not.
        source: io::Error,
    },
}

/// Takes the sockets that the process was started with: for each of `listeners` the one that listens at its address, if
/// any. Where there are none, all are `None`. Only the first call finds them: the variables are gone after it. To be called
/// before other threads are started, since these may read the environment.
///
/// # Errors
/// A socket that has no listener would take connections that nobody answers.
pub fn take(listeners: &[config::Listener]) -> Result<Vec<Option<Bound>>, Error> {
    let mut passed = ListenFd::from_env();
    let mut sockets = Vec::with_capacity(passed.len().min(listeners.len()));
    for number in 0..passed.len() {
        sockets.push(take_one(&mut passed, number).map_err(|source| Error::Unusable { number, source })?);
    }
    fit(sockets, listeners)
}

fn take_one(passed: &mut ListenFd, number: usize) -> io::Result<Bound> {
    let socket: Option<OwnedFd> = match passed.take_tcp_listener(number) {
        Ok(socket) => socket.map(OwnedFd::from),
        // The first refusal names the wrong kind: of what is no TCP socket, the second one's is told.
        Err(_) => passed.take_unix_listener(number)?.map(OwnedFd::from),
    };
    socket.map_or_else(|| Err(io::ErrorKind::NotFound.into()), Bound::adopt)
}

/// Puts each socket to the listener of its address.
fn fit(sockets: Vec<Bound>, listeners: &[config::Listener]) -> Result<Vec<Option<Bound>>, Error> {
    let mut places: Vec<Option<Bound>> = listeners.iter().map(|_| None).collect();
    for (number, socket) in sockets.into_iter().enumerate() {
        let address = socket.address().map_err(|source| Error::Unusable { number, source })?;
        let fitting =
            address.as_ref().and_then(|address| listeners.iter().position(|door| is_same(&door.address, address)));
        match (fitting.and_then(|index| places.get_mut(index)), address) {
            (Some(place @ None), _) => *place = Some(socket),
            (Some(Some(_)), Some(address)) => return Err(Error::Twice(address)),
            (_, address) => {
                let address = address.map_or_else(|| "no address".into(), |address| address.to_string());
                let configured: Vec<_> = listeners.iter().map(|door| door.address.to_string()).collect();
                return Err(Error::Unknown { number, address, configured: configured.join(", ") });
            }
        }
    }
    Ok(places)
}

/// Paths may be written in several ways.
fn is_same(configured: &Address, passed: &Address) -> bool {
    match (configured, passed) {
        (Address::Unix(one), Address::Unix(other)) => {
            one == other
                || fs::canonicalize(one).is_ok_and(|one| fs::canonicalize(other).is_ok_and(|other| one == other))
        }
        _ => configured == passed,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn door(address: Address) -> config::Listener {
        config::Listener { address, tls: false, proxy_protocol: false }
    }

    fn tcp() -> (OwnedFd, Address) {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(socket.local_addr().unwrap());
        (socket.into(), address)
    }

    fn fit_all(sockets: Vec<OwnedFd>, addresses: &[&Address]) -> Result<Vec<bool>, String> {
        let doors: Vec<_> = addresses.iter().map(|address| door((*address).clone())).collect();
        let sockets = sockets.into_iter().map(|socket| Bound::adopt(socket).unwrap()).collect();
        let places = fit(sockets, &doors).map_err(|error| error.to_string())?;
        for (place, address) in places.iter().zip(addresses) {
            let own = place.as_ref().map(|place| place.address().unwrap().unwrap());
            assert!(own.is_none_or(|own| is_same(&own, address)));
        }
        Ok(places.iter().map(Option::is_some).collect())
    }

    #[test]
    fn a_socket_goes_to_the_listener_of_its_address() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let unix = OwnedFd::from(UnixListener::bind(&path).unwrap());
        let ((one, at_one), (two, at_two)) = (tcp(), tcp());
        let elsewhere = Address::Tcp("192.0.2.1:80".parse().unwrap());
        let roundabout = folder.path().join("..").join(folder.path().file_name().unwrap()).join("socket");
        let doors = [&at_two, &elsewhere, &Address::Unix(roundabout), &at_one];
        assert_eq!(fit_all(vec![one, unix, two], &doors), Ok(vec![true, false, true, true]));
        assert_eq!(fit_all(Vec::new(), &doors), Ok(vec![false; 4]));
        assert!(path.exists(), "the file is systemd's");
    }

    #[test]
    fn one_that_fits_none_is_an_error_that_names_both() {
        let ((one, at_one), elsewhere) = (tcp(), Address::Tcp("192.0.2.1:80".parse().unwrap()));
        let error = fit_all(vec![one], &[&elsewhere, &Address::Unix("/run/x.sock".into())]).unwrap_err();
        let expected = format!(
            "socket activation: socket 0 listens on {at_one}, and server.listen has 192.0.2.1:80, unix:/run/x.sock; \
             make ListenStream= and server.listen agree"
        );
        assert_eq!(error, expected);
        let (two, at_two) = tcp();
        let again = two.try_clone().unwrap();
        assert_eq!(
            fit_all(vec![two, again], &[&at_two]).unwrap_err(),
            format!("socket activation: two sockets listen on {at_two}; keep one ListenStream= of the two")
        );
    }
}

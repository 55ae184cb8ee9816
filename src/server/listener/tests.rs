//! The file of a UNIX socket: made, found, left and removed.

use std::os::unix::net::UnixStream;

use super::*;

fn at(path: &Path) -> Address {
    Address::Unix(path.to_owned())
}

fn refusal(path: &Path) -> String {
    let refused = bind("server.listen[0]", &at(path)).err().map(|error| error.to_string());
    refused.unwrap_or_default().replace(&path.display().to_string(), "PATH")
}

#[test]
fn a_unix_socket_is_for_user_and_group_and_goes_when_we_go() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let bound = bind("server.listen", &at(&path)).unwrap();
    assert_eq!(bound.address().unwrap(), Some(at(&path)));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    assert!(UnixStream::connect(&path).is_ok());
    drop(bound);
    assert!(!path.exists());
}

#[test]
fn a_stale_file_is_replaced_and_a_live_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let live = bind("server.listen", &at(&path)).unwrap();
    insta::assert_snapshot!(refusal(&path), @"server.listen[0]: cannot listen on unix:PATH: another process listens there; stop it, or choose another path");
    assert!(UnixStream::connect(&path).is_ok());
    drop(live);
    fs::write(&path, "precious").unwrap();
    insta::assert_snapshot!(refusal(&path), @"server.listen[0]: cannot listen on unix:PATH: a file that is no socket is there; remove it, or choose another path");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    insta::assert_snapshot!(refusal(&folder.path().join("no/socket")), @"server.listen[0]: cannot listen on unix:PATH: No such file or directory (os error 2)");
    insta::assert_snapshot!(refusal(&folder.path().join("x".repeat(120))), @"server.listen[0]: cannot listen on unix:PATH: the path of a socket has at most 107 bytes");
}

#[test]
fn a_file_that_was_left_or_is_anothers_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let bound = bind("server.listen", &at(&path)).unwrap();
    fs::remove_file(&path).unwrap();
    let other = bind("server.listen", &at(&path)).unwrap();
    drop(bound);
    assert!(path.exists());

    other.file().unwrap().leave();
    let socket = other.as_fd().try_clone_to_owned().unwrap();
    drop(other);
    assert!(path.exists());
    let mut adopted = Bound::adopt(socket).unwrap();
    assert!(adopted.file().is_none() && UnixStream::connect(&path).is_ok());
    assert_eq!(adopted.address().unwrap(), Some(at(&path)));
    adopted.own_file();
    drop(adopted);
    assert!(!path.exists());
}

#[test]
fn a_tcp_socket_is_adopted_and_others_are_not() {
    let bound = bind("server.listen", &Address::Tcp("127.0.0.1:0".parse().unwrap())).unwrap();
    let address = bound.address().unwrap();
    let adopted = Bound::adopt(bound.as_fd().try_clone_to_owned().unwrap()).unwrap();
    assert_eq!(adopted.address().unwrap(), address);
    assert!(matches!(adopted, Bound::Tcp(_)));
    let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    assert!(Bound::adopt(datagrams.into()).is_err());
    let Some(Address::Tcp(taken)) = address else { panic!("no address") };
    let error = bind("admin.listen", &Address::Tcp(taken)).err().unwrap().to_string();
    let says =
        format!("admin.listen: cannot listen on {taken}: Address already in use (os error 98). Another process has it");
    assert!(error.starts_with(&says) && error.contains("run --upgrade"), "{error}");
}

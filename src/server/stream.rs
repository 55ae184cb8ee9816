//! A client's byte stream: TCP or UNIX, plain or TLS, with what was read ahead of HTTP put before it.

use std::io::{self, IoSlice};
use std::net::{self, IpAddr};
use std::os::unix::net as unix;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

/// What one read ahead takes at most: a ClientHello with its keys and a PROXY header fit.
const AHEAD: usize = 4096;

/// A connection as the listener accepted it: not yet known to any reactor.
pub enum Socket {
    /// From an address and port.
    Tcp(net::TcpStream),
    /// From a UNIX socket.
    Unix(unix::UnixStream),
}

impl Socket {
    /// The address of the other end; a UNIX peer has none.
    ///
    /// # Errors
    /// The client is gone already.
    pub fn peer(&self) -> io::Result<Option<IpAddr>> {
        match self {
            Self::Tcp(socket) => socket.peer_addr().map(|address| Some(address.ip().to_canonical())),
            Self::Unix(_) => Ok(None),
        }
    }

    /// Registers it with the reactor of this thread. The socket must be non-blocking.
    ///
    /// # Errors
    /// The system refuses.
    pub fn into_tokio(self) -> io::Result<Plain> {
        let inner = match self {
            Self::Tcp(socket) => {
                socket.set_nodelay(true)?;
                Inner::Tcp(TcpStream::from_std(socket)?)
            }
            Self::Unix(socket) => Inner::Unix(UnixStream::from_std(socket)?),
        };
        Ok(Plain { inner, ahead: Bytes::new() })
    }
}

enum Inner {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A stream without TLS. As an [`AsyncBufRead`] it looks ahead: what is not consumed is read again.
pub struct Plain {
    inner: Inner,
    /// Read, and not yet taken by the reader.
    ahead: Bytes,
}

impl Plain {
    fn poll_socket(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.inner {
            Inner::Tcp(socket) => Pin::new(socket).poll_read(cx, buf),
            Inner::Unix(socket) => Pin::new(socket).poll_read(cx, buf),
        }
    }
}

impl AsyncRead for Plain {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return self.poll_socket(cx, buf);
        }
        let count = self.ahead.len().min(buf.remaining());
        buf.put_slice(&self.ahead.split_to(count));
        if self.ahead.is_empty() {
            // The memory goes, not only the bytes.
            self.ahead = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncBufRead for Plain {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let own = self.get_mut();
        if own.ahead.is_empty() {
            let mut room = BytesMut::zeroed(AHEAD);
            let mut buf = ReadBuf::new(&mut room);
            ready!(own.poll_socket(cx, &mut buf))?;
            let count = buf.filled().len();
            room.truncate(count);
            own.ahead = room.freeze();
        }
        Poll::Ready(Ok(&own.ahead))
    }

    fn consume(mut self: Pin<&mut Self>, count: usize) {
        let count = count.min(self.ahead.len());
        self.ahead.advance(count);
    }
}

impl AsyncWrite for Plain {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.inner {
            Inner::Tcp(socket) => Pin::new(socket).poll_write(cx, buf),
            Inner::Unix(socket) => Pin::new(socket).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.inner {
            Inner::Tcp(socket) => Pin::new(socket).poll_flush(cx),
            Inner::Unix(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.inner {
            Inner::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Inner::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.inner {
            Inner::Tcp(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Inner::Unix(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

/// What HTTP is spoken over.
pub enum Stream {
    /// In the clear.
    Plain(Plain),
    /// Within TLS, its handshake done.
    Tls(Box<TlsStream<Plain>>),
}

impl Stream {
    /// The protocol that was agreed on by ALPN, such as `http/1.1`.
    pub fn alpn(&self) -> Option<&[u8]> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tokio::io::{AsyncBufReadExt, AsyncReadExt};

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn what_was_looked_at_is_read_again() {
        runtime().block_on(async {
            let (mut client, server) = unix::UnixStream::pair().unwrap();
            server.set_nonblocking(true).unwrap();
            client.write_all(b"one two").unwrap();
            let mut stream = Socket::Unix(server).into_tokio().unwrap();
            assert_eq!(stream.fill_buf().await.unwrap(), b"one two");
            stream.consume(4);
            client.write_all(b" three").unwrap();
            drop(client);
            let mut stream = Stream::Plain(stream);
            let mut two = [0; 2];
            stream.read_exact(&mut two).await.unwrap();
            let mut rest = String::new();
            stream.read_to_string(&mut rest).await.unwrap();
            assert_eq!((&two, rest.as_str()), (b"tw", "o three"));
        });
    }

    #[test]
    fn a_peer_is_known_by_its_canonical_address() {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        assert_eq!(Socket::Tcp(server).peer().unwrap(), Some(IpAddr::from([127, 0, 0, 1])));
        drop(client);
        let (one, _other) = unix::UnixStream::pair().unwrap();
        assert_eq!(Socket::Unix(one).peer().unwrap(), None);
    }
}

//! WebSocket: who may ask for it, and the bytes both ways once the server has agreed.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, Version};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::message::Rejection;
use crate::upstream::alarm::{Alarm, Clock};
use crate::upstream::balance::InFlight;
use crate::upstream::headers::items;
use crate::upstream::stream::Stream;

/// What is read at once, and held at most each way, in bytes.
const ROOM: usize = 16 * 1024;

/// Whether a request asks for a WebSocket (RFC 6455 4.1). Any other upgrade is none.
///
/// # Errors
/// `bad_request` when it brings a body, behind which nobody could tell where the tunnel begins.
pub fn is_asked(method: &Method, version: Version, headers: &HeaderMap) -> Result<bool, Rejection> {
    if *method != Method::GET || version != Version::HTTP_11 {
        return Ok(false);
    }
    let Some(upgrade) = only(headers, &UPGRADE) else { return Ok(false) };
    let connection = headers.get_all(CONNECTION);
    let asked = upgrade.as_bytes().trim_ascii().eq_ignore_ascii_case(b"websocket")
        && only(headers, &SEC_WEBSOCKET_VERSION).is_some_and(|version| version.as_bytes().trim_ascii() == b"13")
        && connection.iter().flat_map(|line| items(line.as_bytes())).any(|item| item.eq_ignore_ascii_case(b"upgrade"));
    let sized = || headers.get_all(CONTENT_LENGTH).iter().any(|length| length != "0");
    if asked && (sized() || headers.contains_key(TRANSFER_ENCODING)) {
        return Err(Rejection::BadRequest("A request for a WebSocket must have no body".into()));
    }
    Ok(asked)
}

/// Makes the fields of a 101 what the client has to see. `only_token` says that all it offered as protocols was its
/// credential: a browser wants one of what it offered, and the server saw none.
pub fn complete(headers: &mut HeaderMap, only_token: bool) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if only_token && !headers.contains_key(SEC_WEBSOCKET_PROTOCOL) {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("bearer"));
    }
}

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut fields = headers.get_all(name).iter();
    fields.next().filter(|_| fields.next().is_none())
}

/// A connection to a server that has switched to WebSocket.
pub struct Tunnel {
    stream: Stream,
    /// What the server sent behind its header section.
    input: Bytes,
    alarm: Rc<Alarm>,
    clock: Rc<Clock>,
    pause: Duration,
    _flight: Option<InFlight>,
}

impl Tunnel {
    /// Over `stream`, from which `input` was read already. It ends when nothing moves for `pause`.
    pub fn new(
        (stream, input): (Stream, Bytes),
        alarm: Rc<Alarm>,
        clock: Rc<Clock>,
        pause: Duration,
        flight: Option<InFlight>,
    ) -> Self {
        Self { stream, input, alarm, clock, pause, _flight: flight }
    }

    /// Passes bytes both ways until both ends have closed, one breaks off, or nothing moves for `timeouts.idle`. `early`
    /// is what the client sent behind its request. To be dropped when it is to end sooner.
    pub async fn run(self, client: impl AsyncRead + AsyncWrite + Unpin, early: Bytes) {
        let Self { mut stream, input, alarm, clock, pause, _flight } = self;
        let mut client = client;
        let (mut up, mut down) = (Way::new(early), Way::new(input));
        let mut deadline = clock.after(pause);
        poll_fn(|cx| {
            let passed = up.pass(cx, &mut client, &mut stream).and_then(|()| down.pass(cx, &mut stream, &mut client));
            if passed.is_err() || (up.shut && down.shut) {
                return Poll::Ready(());
            }
            let rung = alarm.has_rung();
            let moved = std::mem::take(&mut up.moved) | std::mem::take(&mut down.moved);
            if moved {
                deadline = clock.after(pause);
            } else if rung {
                return Poll::Ready(());
            }
            alarm.set(cx.waker(), deadline);
            Poll::Pending
        })
        .await;
    }
}

/// One way through the tunnel.
struct Way {
    /// Read and not yet written.
    left: Bytes,
    moved: bool,
    unflushed: bool,
    ended: bool,
    /// The end has been passed on.
    shut: bool,
}

impl Way {
    fn new(left: Bytes) -> Self {
        Self { left, moved: false, unflushed: false, ended: false, shut: false }
    }

    /// Passes on what can be without waiting.
    fn pass(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<()> {
        while !self.shut {
            let poll = if !self.left.is_empty() {
                Pin::new(&mut *to).poll_write(cx, &self.left).map(|count| self.take(count?))
            } else if self.unflushed {
                Pin::new(&mut *to).poll_flush(cx).map_ok(|()| self.unflushed = false)
            } else if self.ended {
                // The other side may be gone altogether, which is an end too.
                Pin::new(&mut *to).poll_shutdown(cx).map(|_| self.shut = true).map(Ok)
            } else {
                self.poll_read(cx, from, to)
            };
            match poll {
                Poll::Ready(done) => done?,
                Poll::Pending => return Ok(()),
            }
        }
        Ok(())
    }

    fn take(&mut self, count: usize) -> io::Result<()> {
        self.left.advance(count);
        (self.moved, self.unflushed) = (true, true);
        if count == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(()) }
    }

    /// Reads into this function's own room: a tunnel that is quiet holds none.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        let mut room = [MaybeUninit::uninit(); ROOM];
        let mut room = ReadBuf::uninit(&mut room);
        std::task::ready!(Pin::new(from).poll_read(cx, &mut room))?;
        let filled = room.filled();
        (self.ended, self.moved) = (filled.is_empty(), true);
        if filled.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let written = match Pin::new(to).poll_write(cx, filled) {
            Poll::Ready(written) => written?,
            Poll::Pending => 0,
        };
        self.unflushed |= written > 0;
        self.left = Bytes::copy_from_slice(filled.get(written..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::net::UnixStream;

    #[test]
    fn only_a_whole_request_for_a_websocket_is_one() {
        const WHOLE: [(&str, &str); 3] =
            [("upgrade", "websocket"), ("connection", "Upgrade"), ("sec-websocket-version", "13")];
        let asked = |method: Method, version, fields: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, HeaderValue::from_static(value));
            }
            is_asked(&method, version, &headers).map_err(|rejection| rejection.code())
        };
        let with = |index: usize, value| {
            let mut fields = WHOLE.to_vec();
            fields[index].1 = value;
            fields
        };
        assert_eq!(asked(Method::GET, Version::HTTP_11, &WHOLE), Ok(true));
        assert_eq!(asked(Method::GET, Version::HTTP_11, &with(0, "WebSocket")), Ok(true));
        assert_eq!(asked(Method::GET, Version::HTTP_11, &[&WHOLE[..], &[("content-length", "0")]].concat()), Ok(true));
        assert_eq!(asked(Method::GET, Version::HTTP_11, &with(1, "keep-alive, upgrade")), Ok(true));
        for fields in [
            with(0, "websocket, h2c"),
            with(0, "h2c"),
            with(0, "websocket/13"),
            with(1, "keep-alive"),
            with(1, "upgrades"),
            with(2, "8"),
            with(2, "13, 8"),
            WHOLE[1..].to_vec(),
            WHOLE[..2].to_vec(),
            [&WHOLE[..], &[("upgrade", "websocket")]].concat(),
            [&WHOLE[..], &[("sec-websocket-version", "13")]].concat(),
        ] {
            assert_eq!(asked(Method::GET, Version::HTTP_11, &fields), Ok(false), "{fields:?}");
        }
        assert_eq!(asked(Method::POST, Version::HTTP_11, &WHOLE), Ok(false));
        assert_eq!(asked(Method::GET, Version::HTTP_10, &WHOLE), Ok(false));
        assert_eq!(asked(Method::GET, Version::HTTP_2, &WHOLE), Ok(false));
        for body in [("content-length", "5"), ("transfer-encoding", "chunked")] {
            assert_eq!(asked(Method::GET, Version::HTTP_11, &[&WHOLE[..], &[body]].concat()), Err("bad_request"));
        }
    }

    #[test]
    fn who_offers_only_a_token_is_answered_with_its_scheme() {
        for (selected, only_token, expected) in
            [(None, true, Some("bearer")), (None, false, None), (Some("chat"), true, Some("chat"))]
        {
            let mut headers = HeaderMap::new();
            headers.extend(selected.map(|name| (SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name))));
            complete(&mut headers, only_token);
            let protocols: Vec<_> = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().collect();
            assert_eq!(protocols, expected.into_iter().collect::<Vec<_>>());
            assert_eq!(
                (&headers[CONNECTION], &headers[UPGRADE]),
                (&"Upgrade".parse().unwrap(), &"websocket".parse().unwrap())
            );
        }
    }

    fn tunnel(input: &'static [u8], pause: Duration) -> (Tunnel, UnixStream, Rc<Clock>) {
        let (near, far) = UnixStream::pair().unwrap();
        let clock = Rc::new(Clock::new());
        let input = Bytes::from_static(input);
        (Tunnel::new((near.into(), input), clock.alarm(), Rc::clone(&clock), pause, None), far, clock)
    }

    #[tokio::test(flavor = "current_thread")]
    async fn bytes_and_ends_pass_both_ways() {
        let (tunnel, mut server, _clock) = tunnel(b"behind the head ", Duration::from_secs(60));
        // Narrower than what is sent, so that both ways have to wait.
        let (mut client, inner) = duplex(700);
        let body: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
        let ends = async {
            let (mut server_read, mut server_write) = server.split();
            let (mut client_read, mut client_write) = tokio::io::split(&mut client);
            let up = async {
                client_write.write_all(&body).await.unwrap();
                client_write.shutdown().await.unwrap();
            };
            let (mut at_server, mut at_client) = (Vec::new(), Vec::new());
            let at_server = async {
                server_read.read_to_end(&mut at_server).await.unwrap();
                // Only now: a side that has heard the end may still speak.
                server_write.write_all(&body).await.unwrap();
                server_write.shutdown().await.unwrap();
                at_server
            };
            let at_client = async {
                client_read.read_to_end(&mut at_client).await.unwrap();
                at_client
            };
            let ((), at_server, at_client) = tokio::join!(up, at_server, at_client);
            assert!(at_server == [b"early ", &body[..]].concat(), "{} bytes", at_server.len());
            assert!(at_client == [b"behind the head ", &body[..]].concat(), "{} bytes", at_client.len());
        };
        tokio::join!(tunnel.run(inner, Bytes::from_static(b"early ")), ends);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_broken_end_and_silence_end_it() {
        let (broken, server, _clock) = tunnel(b"nobody takes this", Duration::from_secs(60));
        let (client, inner) = duplex(4);
        drop((client, server));
        broken.run(inner, Bytes::new()).await;

        let (silent, server, clock) = tunnel(b"", Duration::ZERO);
        let (client, inner) = duplex(4);
        let ticks = async {
            loop {
                tokio::time::sleep(Duration::from_millis(5)).await;
                clock.tick();
            }
        };
        tokio::select! {
            () = silent.run(inner, Bytes::new()) => {}
            () = ticks => {}
        }
        drop((client, server));
    }
}

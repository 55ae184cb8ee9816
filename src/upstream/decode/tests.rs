//! Responses as servers send them, whole and in pieces, well-formed and not.

use super::*;
use proptest::prelude::*;

struct Decoded {
    keep: bool,
    fields: Vec<String>,
    body: Vec<u8>,
    trailers: Vec<String>,
}

/// What became of `raw` when it is fed in pieces of `step` bytes and then closed.
fn decode(method: &Method, raw: &[u8], step: usize) -> Result<Decoded, Error> {
    let mut input = BytesMut::new();
    let mut pieces = raw.chunks(step);
    let mut headers = HeaderMap::new();
    let mut interim = 0;
    let head = loop {
        if let Some(head) = head(&mut input, Asked { method, websocket: false }, &mut headers, &mut interim)? {
            break head;
        }
        input.extend_from_slice(pieces.next().ok_or(Error::Truncated)?);
    };
    let fields = |map: &HeaderMap| map.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect::<Vec<_>>();
    let (mut framing, mut body, mut trailers) = (head.framing, Vec::new(), Vec::new());
    loop {
        match framing.take(&mut input)? {
            Part::End => break,
            Part::More => match pieces.next() {
                Some(piece) => input.extend_from_slice(piece),
                None => {
                    framing.close()?;
                    break;
                }
            },
            Part::Frame(frame) => match frame.into_data() {
                Ok(data) => body.extend_from_slice(&data),
                Err(frame) => trailers = fields(&frame.into_trailers().unwrap()),
            },
        }
    }
    Ok(Decoded { keep: head.keep, fields: fields(&headers), body, trailers })
}

#[test]
fn bodies_end_where_their_framing_says() {
    for (method, raw, body, keep) in [
        (Method::GET, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcREST", "abc", true),
        (Method::GET, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", "abc", true),
        (Method::GET, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "", false),
        (Method::GET, "HTTP/1.1 200 OK\r\nConnection: Close, X\r\n\r\nuntil the end", "until the end", false),
        (Method::GET, "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab", "ab", false),
        (Method::HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", "", true),
        (Method::GET, "HTTP/1.1 204 No Content\r\n\r\n", "", true),
        (Method::GET, "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", "", true),
        (Method::GET, "HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n", "", false),
        (Method::GET, "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", "", false),
        (Method::GET, "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", "", true),
        (Method::GET, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", "x", true),
        (
            Method::GET,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0a;x=\"y\"\r\n0123456789\r\n0\r\n\r\n",
            "abc0123456789",
            true,
        ),
    ] {
        for step in [1, 2, 7, raw.len()] {
            let got = decode(&method, raw.as_bytes(), step).unwrap_or_else(|e| panic!("{raw:?}: {e}"));
            assert_eq!(
                (String::from_utf8(got.body).unwrap().as_str(), got.keep),
                (body, keep),
                "{raw:?} in steps of {step}"
            );
        }
    }
}

#[test]
fn what_has_no_one_framing_is_refused() {
    for raw in [
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n folded\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: y\n\r\nContent-Length: 1\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
    ] {
        assert!(decode(&Method::GET, raw.as_bytes(), raw.len()).is_err(), "{raw:?}");
    }
}

#[test]
fn what_breaks_off_is_not_whole() {
    for raw in [
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
        "HTTP/1.1 200 OK\r\nConte",
    ] {
        assert!(matches!(decode(&Method::GET, raw.as_bytes(), 5), Err(Error::Truncated)), "{raw:?}");
    }
}

#[test]
fn malformed_chunks_are_refused() {
    for body in [
        "3\nabc\r\n0\r\n\r\n",
        "3\r\nabcX",
        "0x3\r\nabc",
        "-1\r\n",
        "\r\n",
        "3 x\r\nabc",
        "10000000000000000\r\n",
        "3\r\nabc\n0\r\n\r\n",
    ] {
        let raw = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        assert!(matches!(decode(&Method::GET, raw.as_bytes(), raw.len()), Err(Error::Chunk)), "{body:?}");
    }
    let raw = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;{}", "x".repeat(CHUNK_LINE));
    assert!(matches!(decode(&Method::GET, raw.as_bytes(), 64), Err(Error::Chunk)));
}

#[test]
fn fields_of_the_connection_stay_behind() {
    let raw = "HTTP/1.1 200 OK\r\nConnection: X-Private, content-length\r\nX-Private: 1\r\nKeep-Alive: timeout=5\r\n\
               Portcullis-Error: forged\r\nX-Public: 2\r\nTransfer-Encoding: chunked\r\n\r\n\
               0\r\nX-Sum: 1\r\nContent-Length: 5\r\nPortcullis-Error: forged\r\n\r\n";
    let got = decode(&Method::GET, raw.as_bytes(), raw.len()).unwrap();
    assert_eq!(got.fields, ["x-public: 2"]);
    assert_eq!(got.trailers, ["x-sum: 1"]);
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(raw in proptest::collection::vec(any::<u8>(), 0..400), step in 1_usize..50) {
        let _ = decode(&Method::GET, &raw, step);
        let framed = [&b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"[..], &raw].concat();
        let _ = decode(&Method::GET, &framed, step);
    }

    #[test]
    fn chunked_bodies_come_out_as_they_went_in(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..8), step in 1_usize..64) {
        let mut raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for part in &parts {
            raw.extend_from_slice(format!("{:X}\r\n", part.len()).as_bytes());
            raw.extend_from_slice(part);
            raw.extend_from_slice(b"\r\n");
        }
        raw.extend_from_slice(b"0\r\n\r\n");
        prop_assert_eq!(decode(&Method::GET, &raw, step).unwrap().body, parts.concat());
    }
}

#[test]
fn a_switch_to_websocket_is_one_when_it_was_asked_for() {
    let read = |fields: &str, websocket| {
        let mut input = BytesMut::from(format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\nrest").as_bytes());
        let mut headers = HeaderMap::new();
        let head = head(&mut input, Asked { method: &Method::GET, websocket }, &mut headers, &mut 0);
        head.map(|head| (head.unwrap(), headers, input)).map_err(|error| error.to_string())
    };
    let whole = "Upgrade: WebSocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: x\r\nSet-Cookie: a=b\r\n";
    let (head, headers, rest) = read(&format!("{whole}Content-Length: 0\r\n"), true).unwrap();
    assert_eq!((head.status, head.framing), (StatusCode::SWITCHING_PROTOCOLS, Framing::Length(0)));
    assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["sec-websocket-accept", "set-cookie"]);
    assert_eq!(&rest[..], b"rest", "what follows is the tunnel's");
    assert!(read(whole, false).is_err());
    for fields in [
        "",
        "Connection: Upgrade\r\n",
        "Upgrade: websocket\r\n",
        "Upgrade: websocket\r\nConnection: close\r\n",
        "Upgrade: h2c\r\nConnection: Upgrade\r\n",
        "Upgrade: websocket, h2c\r\nConnection: Upgrade\r\n",
        "Upgrade: websocket\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
        "Upgrade: websocket\r\nConnection: Upgrade\r\nTransfer-Encoding: chunked\r\n",
    ] {
        assert!(read(fields, true).is_err(), "{fields:?}");
    }
    let old = b"HTTP/1.0 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    let asked = Asked { method: &Method::GET, websocket: true };
    assert!(super::head(&mut BytesMut::from(&old[..]), asked, &mut HeaderMap::new(), &mut 0).is_err());
}

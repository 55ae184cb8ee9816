//! Tables, every split, and any bytes at all.

use std::pin::Pin;
use std::task::{Context, Poll};

use proptest::prelude::*;
use tokio::io::{AsyncRead, ReadBuf};

use super::*;

/// Gives its bytes in pieces: up to `split`, then one of `step` bytes after another.
struct Pieces {
    bytes: Vec<u8>,
    at: usize,
    split: usize,
    step: usize,
}

impl AsyncRead for Pieces {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        unreachable!("the header is read through the buffer")
    }
}

impl AsyncBufRead for Pieces {
    fn poll_fill_buf(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let own = self.get_mut();
        let end = if own.at < own.split { own.split } else { own.at + own.step };
        Poll::Ready(Ok(&own.bytes[own.at..end.min(own.bytes.len())]))
    }

    fn consume(mut self: Pin<&mut Self>, count: usize) {
        self.at += count;
    }
}

fn run(bytes: &[u8], split: usize, step: usize) -> (Result<Option<SocketAddr>, String>, Vec<u8>) {
    let mut pieces = Pieces { bytes: bytes.to_vec(), at: 0, split, step };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let outcome = runtime.block_on(read(&mut pieces)).map_err(|error| error.to_string());
    (outcome, pieces.bytes[pieces.at..].to_vec())
}

fn v2_bytes(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [V2, &[command, family], &length, body].concat()
}

const ENDS4: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0x1f, 0x90, 0, 80];

fn ends6(source: &str) -> Vec<u8> {
    let source: Ipv6Addr = source.parse().unwrap();
    [&source.octets()[..], &Ipv6Addr::LOCALHOST.octets(), &[0x1f, 0x90, 0, 80]].concat()
}

fn good() -> Vec<(Vec<u8>, Option<&'static str>)> {
    let line = |text: &str| format!("{text}\r\n").into_bytes();
    let longest = format!("PROXY UNKNOWN {}", "x".repeat(LINE - 16));
    let seven = Some("192.0.2.7:8080");
    vec![
        (line("PROXY TCP4 192.0.2.7 10.0.0.1 8080 80"), seven),
        (line("PROXY TCP4 255.255.255.255 255.255.255.255 65535 0"), Some("255.255.255.255:65535")),
        (line("PROXY TCP6 2001:db8::1 ::1 8080 80"), Some("[2001:db8::1]:8080")),
        (line("PROXY TCP6 ::ffff:192.0.2.7 ::1 8080 80"), seven),
        (line("PROXY UNKNOWN"), None),
        (line("PROXY UNKNOWN ffff::1 ffff::2 1 2"), None),
        (line(&longest), None),
        (v2_bytes(0x21, 0x11, &ENDS4), seven),
        (v2_bytes(0x21, 0x12, &ENDS4), seven),
        (v2_bytes(0x21, 0x11, &[&ENDS4[..], &[3, 0, 4, 1, 2, 3, 4]].concat()), seven),
        (v2_bytes(0x21, 0x11, &[&ENDS4[..], &[0; REST - 12]].concat()), seven),
        (v2_bytes(0x21, 0x21, &ends6("2001:db8::1")), Some("[2001:db8::1]:8080")),
        (v2_bytes(0x21, 0x21, &ends6("::ffff:192.0.2.7")), seven),
        (v2_bytes(0x21, 0x31, &[b'/'; 216]), None),
        (v2_bytes(0x21, 0x00, b""), None),
        (v2_bytes(0x21, 0x00, b"whatever"), None),
        (v2_bytes(0x20, 0x00, b""), None),
        (v2_bytes(0x20, 0x11, &ENDS4), None),
        (v2_bytes(0x20, 0x11, b"odd"), None),
    ]
}

#[test]
fn a_good_header_is_read_to_its_end_however_it_is_split() {
    for (header, expected) in good() {
        let expected = expected.map(|text| text.parse().unwrap());
        let bytes = [&header[..], b"GET / HTTP/1.1\r\n"].concat();
        let splits = if header.len() > 300 { 290..300 } else { 1..header.len() + 2 };
        for (split, step) in splits.map(|split| (split, 4096)).chain([(0, 1), (bytes.len(), 1)]) {
            let (client, rest) = run(&bytes, split, step);
            assert_eq!(client, Ok(expected), "{}", header.escape_ascii());
            assert_eq!(rest, b"GET / HTTP/1.1\r\n", "{} split at {split}", header.escape_ascii());
        }
    }
}

#[test]
fn a_header_cut_short_is_none() {
    for (header, _) in good().iter().filter(|(header, _)| header.len() < 300) {
        for end in 0..header.len() {
            let (outcome, rest) = run(&header[..end], 0, 7);
            assert_eq!(outcome, Err(Error::Ended.to_string()), "{}", header[..end].escape_ascii());
            assert!(rest.is_empty());
        }
    }
}

#[test]
fn all_else_is_refused() {
    let line = |text: &str| format!("{text}\r\n").into_bytes();
    let missing = "does not begin with";
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (line("GET / HTTP/1.1"), missing),
        (line("POST / HTTP/1.1"), missing),
        (line("proxy TCP4 192.0.2.7 10.0.0.1 8080 80"), missing),
        (line("PROXY\tTCP4 192.0.2.7 10.0.0.1 8080 80"), missing),
        (b"\r\n\r\nGET / HTTP/1.1".to_vec(), missing),
        (b"\x16\x03\x01\x02\x00".to_vec(), missing),
        (b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 80\n".to_vec(), "without carriage return"),
        (line("PROXY "), "five words"),
        (line("PROXY UNKNOWNX"), "five words"),
        (line("PROXY TCP4 192.0.2.7 10.0.0.1 8080"), "five words"),
        (line("PROXY TCP4 192.0.2.7 10.0.0.1 8080 80 "), "five words"),
        (line("PROXY TCP4  192.0.2.7 10.0.0.1 8080 80"), "five words"),
        (line("PROXY TCP5 192.0.2.7 10.0.0.1 8080 80"), "address"),
        (line("PROXY TCP4 2001:db8::1 ::1 8080 80"), "address"),
        (line("PROXY TCP6 192.0.2.7 10.0.0.1 8080 80"), "address"),
        (line("PROXY TCP4 192.0.2.07 10.0.0.1 8080 80"), "address"),
        (line("PROXY TCP4 192.0.2.7 nonsense 8080 80"), "address"),
        (line("PROXY TCP4 192.0.2.7 10.0.0.1 +8080 80"), "port"),
        (line("PROXY TCP4 192.0.2.7 10.0.0.1 08080 80"), "port"),
        (line("PROXY TCP4 192.0.2.7 10.0.0.1 65536 80"), "port"),
        (line("PROXY TCP4 192.0.2.7 10.0.0.1 8080 "), "port"),
        (line("PROXY TCP4 192.0.2.7 10.0.0.1 8080 80\r"), "port"),
        ([V1, b"\xff\xff\r\n"].concat(), "ASCII"),
        (line(&format!("PROXY UNKNOWN {}", "x".repeat(LINE - 15))), "107"),
        (v2_bytes(0x11, 0x11, &ENDS4), "version 2"),
        (v2_bytes(0x22, 0x11, &ENDS4), "version 2"),
        (v2_bytes(0x21, 0x11, &ENDS4[..11]), "IPv4"),
        (v2_bytes(0x21, 0x21, &ENDS4), "IPv6"),
        (v2_bytes(0x21, 0x31, &[b'/'; 215]), "UNIX"),
        (v2_bytes(0x21, 0x41, &ENDS4), "family"),
        (v2_bytes(0x21, 0x13, &ENDS4), "family"),
        (v2_bytes(0x21, 0x11, &[0; REST + 1]), "4096"),
    ];
    for (bytes, expected) in cases {
        for step in [1, 5, 8192] {
            let (outcome, _) = run(&bytes, 0, step);
            let error = outcome.expect_err(&bytes.escape_ascii().to_string());
            assert!(error.contains(expected), "{}: {error}", bytes.escape_ascii());
        }
    }
}

#[test]
fn only_trusted_peers_and_unix_ones_may_send_it() {
    let trusted = ["10.0.0.0/8".parse().unwrap()];
    assert!(may_send(None, &[]));
    assert!(may_send(Some("10.9.9.9".parse().unwrap()), &trusted));
    assert!(may_send(Some("::ffff:10.9.9.9".parse().unwrap()), &trusted));
    assert!(!may_send(Some("192.0.2.7".parse().unwrap()), &trusted));
    assert!(!may_send(Some("10.9.9.9".parse().unwrap()), &[]));
}

proptest! {
    #[test]
    fn no_input_panics_and_no_split_matters(
        version in 0..3_u8,
        fixed in proptest::collection::vec(any::<u8>(), 0..4),
        rest in proptest::collection::vec(any::<u8>(), 0..300),
        split in 0..320_usize,
        step in 1..40_usize,
    ) {
        let begin: &[u8] = match version { 0 => b"", 1 => b"PROXY TCP4 ", _ => V2 };
        let fixed = if version == 2 && fixed.len() == 3 { vec![0x21, fixed[0] & 0x33, 0, fixed[1]] } else { fixed };
        let bytes = [begin, &fixed, &rest].concat();
        let whole = run(&bytes, bytes.len(), 1);
        let parts = run(&bytes, split, step);
        prop_assert_eq!(&whole.0, &parts.0);
        if whole.0.is_ok() {
            prop_assert_eq!(whole.1, parts.1);
        }
    }

    #[test]
    fn what_is_written_is_read(source: SocketAddr, target: SocketAddr) {
        let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
        let target_ip = if source.is_ipv4() { "10.0.0.1".to_owned() } else { "::1".to_owned() };
        let line = format!("PROXY {family} {} {target_ip} {} {}\r\n", source.ip(), source.port(), target.port());
        let expected = SocketAddr::new(source.ip().to_canonical(), source.port());
        prop_assert_eq!(run(line.as_bytes(), 0, 4096).0, Ok(Some(expected)));
    }
}

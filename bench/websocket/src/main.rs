//! `websocket serve PORT` echoes messages; `websocket load PORT PATH TOKEN CONNECTIONS SECONDS` sends one of 32 bytes on
//! each connection, waits for its echo, and so on, and prints how many came back.

#![allow(clippy::disallowed_methods, reason = "the gateway's own rules about clocks and sleep are for the gateway")]

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Key and answer of RFC 6455, section 1.3: nothing need be computed.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

const PAYLOAD: usize = 32;
const TEXT: u8 = 0x81;
const MASKED: u8 = 0x80;

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", port] => serve(number(port)),
        ["load", port, path, token, connections, seconds] => {
            load(number(port), path, token, number(connections), Duration::from_secs(number(seconds)))
        }
        _ => Err(io::Error::other("see the first lines of bench/websocket/src/main.rs")),
    }
}

fn number<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is no such number"))
}

fn serve(port: u16) -> io::Result<()> {
    for stream in TcpListener::bind(("127.0.0.1", port))?.incoming() {
        let stream = stream?;
        // A client that goes away ends its thread alone.
        thread::spawn(move || echo(stream));
    }
    Ok(())
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let head = read_head(&mut stream)?;
    if !head.to_ascii_lowercase().contains("upgrade: websocket") {
        return stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes())?;
    let mut frame = [0; 6 + PAYLOAD];
    loop {
        stream.read_exact(&mut frame)?;
        let [kind, length, mask @ ..] = frame;
        assert_eq!((kind, usize::from(length)), (TEXT, PAYLOAD | usize::from(MASKED)), "not what `load` sends");
        let (key, payload) = mask.split_at(4);
        let mut answer = [0; 2 + PAYLOAD];
        answer[0] = TEXT;
        answer[1] = PAYLOAD as u8;
        for (index, byte) in payload.iter().enumerate() {
            answer[2 + index] = byte ^ key[index % 4];
        }
        stream.write_all(&answer)?;
    }
}

/// Up to and with the empty line, a byte at a time: what follows belongs to the frames.
fn read_head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn load(port: u16, path: &str, token: &str, connections: usize, time: Duration) -> io::Result<()> {
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    );
    let begin = Instant::now();
    let clients: Vec<_> = (0..connections)
        .map(|_| {
            let (stop, count, request) = (Arc::clone(&stop), Arc::clone(&count), request.clone());
            thread::spawn(move || client(port, &request, &stop, &count))
        })
        .collect();
    thread::sleep(time);
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().map_err(|_| io::Error::other("a client panicked"))??;
    }
    println!("{} {:.6}", count.load(Ordering::Relaxed), begin.elapsed().as_secs_f64());
    Ok(())
}

fn client(port: u16, request: &str, stop: &AtomicBool, count: &AtomicU64) -> io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(request.as_bytes())?;
    let head = read_head(&mut stream)?;
    if !head.starts_with("HTTP/1.1 101 ") {
        return Err(io::Error::other(format!("no 101 but {head:?}")));
    }
    // Masked with zeros: the payload stands as it is.
    let mut frame = [b'x'; 6 + PAYLOAD];
    frame[..6].copy_from_slice(&[TEXT, MASKED | PAYLOAD as u8, 0, 0, 0, 0]);
    let mut answer = [0; 2 + PAYLOAD];
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(&frame)?;
        stream.read_exact(&mut answer)?;
        assert_eq!(answer[2..], frame[6..], "not what was sent");
        count.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

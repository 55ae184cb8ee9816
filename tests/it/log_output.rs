//! A standard output that is not read: the gateway goes on, and says later what was lost.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::frames::{Client, END_HEADERS, END_STREAM, HEADERS, block, frame};
use crate::harness::{BINARY, Setup, await_that, holds_within};
use crate::origin::Origin;
use crate::wire::{Connection, get};

/// Killed when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends many streams whose header lists are malformed.
fn send_malformed_streams(address: std::net::SocketAddr) {
    let mut client = Client::open(address);
    let mut block = block(&[(":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", "/public/x")]);
    block.extend(b"\0\x03Bad\x01x");
    for number in 0..400 {
        if client.send(&frame(HEADERS, END_HEADERS | END_STREAM, number * 2 + 1, &block)).is_err() {
            break;
        }
    }
    client.patience(Duration::from_millis(200));
    while client.next().is_ok() {}
}

#[test]
fn an_output_that_is_not_read_stops_no_request() {
    let origin = Origin::start();
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::new(origin.address).set("log", json!({"level": "debug", "format": "json"}));
    let (config, public, admin) = setup.write(folder.path());
    let mut command = Command::new(BINARY);
    command.arg("run").arg("--config").arg(&config).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut running = Running(command.spawn().unwrap());
    await_that("it is ready", || get("/readyz").try_send(admin).is_ok_and(|answer| answer.status == 200));

    // A pipe holds 64 KiB.
    let lost = || {
        let metrics = get("/metrics").send(admin).text();
        let line = metrics.lines().find_map(|line| line.strip_prefix("portcullis_log_lines_lost_total "));
        line.unwrap().parse::<u64>().unwrap()
    };
    let mut longest = Duration::ZERO;
    let mut answered = 0;
    let flooded = holds_within(Duration::from_secs(60), || {
        for _ in 0..2 {
            send_malformed_streams(public);
        }
        let mut connection = Connection::open(public);
        for _ in 0..20 {
            let begin = Instant::now();
            assert_eq!(get("/public/x").send_on(&mut connection, public).unwrap().status, 200);
            (longest, answered) = (longest.max(begin.elapsed()), answered + 1);
        }
        lost() > 0
    });
    assert!(flooded, "no line was lost, so that nothing was shown");
    println!("{answered} requests beside it, the longest took {longest:?}; {} lines lost", lost());
    assert!(longest < Duration::from_secs(1), "{longest:?}");

    let mut output = running.0.stdout.take().unwrap();
    let (sender, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        let mut buffer = [0; 65536];
        while let Ok(count @ 1..) = output.read(&mut buffer) {
            text.push_str(&String::from_utf8_lossy(&buffer[..count]));
            let _ = sender.send(text.clone());
        }
    });
    let mut text = String::new();
    await_that("it says how many were lost", || {
        text = lines.try_iter().last().unwrap_or(std::mem::take(&mut text));
        text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).any(|line| {
            line["lines"].as_u64().is_some_and(|lines| lines > 0) && line["message"].as_str().unwrap().contains("lost")
        })
    });
}

#[test]
fn a_stop_does_not_wait_for_an_output_that_is_not_read() {
    let origin = Origin::start();
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::new(origin.address).set("log", json!({"level": "debug", "format": "json"}));
    let (config, public, admin) = setup.write(folder.path());
    let mut command = Command::new(BINARY);
    command.arg("run").arg("--config").arg(&config).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut running = Running(command.spawn().unwrap());
    await_that("it is ready", || get("/readyz").try_send(admin).is_ok_and(|answer| answer.status == 200));
    let mut connection = Connection::open(public);
    for _ in 0..3000 {
        get("/public/x").send_on(&mut connection, public).unwrap();
    }
    drop(connection);
    let stopped = Command::new("kill").arg("-TERM").arg(running.0.id().to_string()).status().unwrap();
    assert!(stopped.success());
    let begin = Instant::now();
    let ended = holds_within(Duration::from_secs(15), || running.0.try_wait().unwrap().is_some());
    println!("stopped after {:?}", begin.elapsed());
    assert!(ended, "it waits for its output to be read");
}

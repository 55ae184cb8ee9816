//! Log, access log and audit while nothing reads them: no request waits, no stop hangs, and every lost line is counted.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::audit::metric;
use crate::frames::{self, Client, END_HEADERS, END_STREAM, HEADERS, block, frame};
use crate::harness::{BINARY, Gateway, PASSWORD, Setup, await_that, credentials, holds_within};
use crate::origin::Origin;
use crate::wire::{Connection, get, post};

/// How soon another client must be served.
const SERVED: Duration = Duration::from_secs(1);

/// A named pipe whose reader reads only when the test says so.
struct Pipe {
    path: PathBuf,
    reader: Option<File>,
}

fn open(path: &Path, write: bool) -> File {
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap();
    OpenOptions::new().read(!write).write(write).custom_flags(flags).open(path).unwrap()
}

impl Pipe {
    fn make(folder: &TempDir) -> Self {
        let path = folder.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        let reader = Some(open(&path, false));
        Self { path, reader }
    }

    /// Shell commands that send both outputs of the program there.
    fn redirection(&self) -> String {
        format!("exec >{0} 2>&1", self.path.display())
    }

    /// Leaves no room in it.
    fn fill(&self) {
        let mut writer = open(&self.path, true);
        for size in [4096, 1] {
            let filler = "\n".repeat(size);
            while writer.write(filler.as_bytes()).is_ok() {}
        }
    }

    /// What is there.
    fn read(&mut self) -> Vec<u8> {
        let (mut all, mut buffer) = (Vec::new(), vec![0; 1 << 20]);
        loop {
            match self.reader.as_mut().unwrap().read(&mut buffer) {
                Ok(0) => return all,
                Ok(count) => all.extend_from_slice(&buffer[..count]),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    return all;
                }
            }
        }
    }
}

fn folder() -> Arc<TempDir> {
    Arc::new(tempfile::Builder::new().prefix("portcullis-").tempdir().unwrap())
}

/// A running gateway whose pipe is full.
fn stuck(setup: Setup) -> (Gateway, Pipe) {
    let folder = folder();
    let pipe = Pipe::make(&folder);
    let gateway = setup.after(&pipe.redirection()).start_in(folder);
    pipe.fill();
    (gateway, pipe)
}

/// 400 streams with a field that HTTP/2 forbids: h2 warns of their number.
fn malformed_streams(address: SocketAddr) {
    let mut client = Client::open(address);
    let mut fields = frames::get("a", "/");
    fields.push(("connection", "x"));
    let block = block(&fields);
    for stream in 0..400 {
        if client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 2 * stream + 1, &block)).is_err() {
            return;
        }
    }
    client.is_closed_within(Duration::from_millis(500));
}

/// A client that asks on new connections until `stop`; the longest that it had to wait.
fn slowest(gateway: SocketAddr, stop: &AtomicBool) -> Duration {
    let mut slowest = Duration::ZERO;
    while !stop.load(Ordering::Relaxed) {
        slowest = slowest.max(served(gateway));
        std::thread::sleep(Duration::from_millis(20));
    }
    slowest
}

fn served(gateway: SocketAddr) -> Duration {
    let begin = Instant::now();
    let mut connection = Connection::open(gateway);
    connection.patience(Duration::from_secs(5));
    let status = get("/public/good").send_on(&mut connection, gateway).map(|answer| answer.status);
    assert!(matches!(status, Ok(200)), "after {:?}: {status:?}", begin.elapsed());
    begin.elapsed()
}

#[test]
fn an_unread_pipe_delays_no_request_and_lost_lines_are_counted() {
    let origin = Origin::start();
    let (gateway, mut pipe) = stuck(Setup::new(origin.address));
    gateway.register("alice");
    let stop = AtomicBool::new(false);
    let path = format!("/public/{}", "x".repeat(2000));
    let (good, sent) = std::thread::scope(|scope| {
        let good = scope.spawn(|| slowest(gateway.public, &stop));
        (0..4).for_each(|_| malformed_streams(gateway.public));
        let mut connection = Connection::open(gateway.public);
        let mut sent = 0_u64;
        while metric(&gateway, "portcullis_access_lines_lost_total") < 100.0 {
            assert!(sent < 20_000, "no line is lost, so they wait without a bound");
            for _ in 0..100 {
                assert_eq!(get(&path).send_on(&mut connection, gateway.public).unwrap().status, 200);
            }
            sent += 100;
        }
        stop.store(true, Ordering::Relaxed);
        (good.join().unwrap(), sent)
    });
    println!("log_output: slowest answer to another client with a full pipe: {good:?}; flood of {sent} requests");
    assert!(good < SERVED, "{good:?}");
    let begin = Instant::now();
    let login = post("/login").json(&credentials("alice", PASSWORD)).send(gateway.public);
    assert_eq!(login.status, 200);
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
    // The events of the program and the audit have room of their own, whatever the access log loses.
    let lost = metric(&gateway, "portcullis_log_lines_lost_total");
    assert_eq!(lost, metric(&gateway, "portcullis_access_lines_lost_total"));

    // Once it is read, one line says how many were lost; all others are there, and whole.
    let mut text = Vec::new();
    await_that("the loss is reported", || {
        text.extend(pipe.read());
        String::from_utf8_lossy(&text).contains("lines were lost")
    });
    await_that("all is written", || {
        served(gateway.public);
        std::thread::sleep(Duration::from_millis(150));
        let more = pipe.read();
        text.extend_from_slice(&more);
        more.len() < 2048
    });
    let lines: Vec<Value> = String::from_utf8(text)
        .unwrap()
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let reports: Vec<u64> = lines.iter().filter_map(|line| line["lines"].as_u64()).collect();
    assert_eq!(reports.iter().sum::<u64>(), lost as u64, "{reports:?}");
    assert_eq!(reports.len(), 1, "{reports:?}");
    let flood = lines.iter().filter(|line| line["path"].as_str() == Some(&path)).count() as u64;
    assert!(flood < sent && flood + lost as u64 >= sent, "{flood} of {sent}, {lost} lost");
    let events = |name: &str| lines.iter().filter(|line| line["event"] == name).count();
    assert_eq!((events("registration"), events("login")), (1, 1));
    let warned = lines.iter().filter(|line| line["message"].as_str().is_some_and(|text| text.contains("reset")));
    assert_eq!(warned.count(), 4, "h2's warnings are there");
    assert_eq!(metric(&gateway, "portcullis_log_lines_lost_total"), lost);
}

#[test]
fn events_of_the_program_that_are_not_read_are_counted_and_reported() {
    let origin = Origin::start();
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::new(origin.address).set("log", json!({"level": "debug", "format": "json"}));
    let (config, public, admin) = setup.write(folder.path());
    let mut command = Command::new(BINARY);
    command.arg("run").arg("--config").arg(&config).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut running = Process(command.spawn().unwrap());
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
            malformed_streams(public);
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
    println!("log_output: {answered} requests beside it, the longest took {longest:?}; {} lines lost", lost());
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
fn a_stop_does_not_wait_for_an_unread_pipe() {
    let origin = Origin::start();
    for audit in ["log", "audit.log"] {
        let (mut gateway, _pipe) = stuck(Setup::new(origin.address).set("log.audit", json!(audit)));
        gateway.register("alice");
        served(gateway.public);
        let begin = Instant::now();
        gateway.signal("TERM");
        assert!(gateway.await_end().success());
        println!("log_output: stop with a full pipe, audit to {audit}: {:?}", begin.elapsed());
        assert!(begin.elapsed() < Duration::from_secs(7));
        if audit != "log" {
            let text = std::fs::read_to_string(gateway.folder.path().join(audit)).unwrap();
            assert!(text.contains("registration"), "{text}");
        }
    }
}

#[test]
fn a_start_that_fails_does_not_wait_for_an_unread_pipe() {
    let origin = Origin::start();
    let folder = folder();
    let mut pipe = Pipe::make(&folder);
    pipe.fill();
    let wrong = Setup::new(origin.address).set("log.audit", json!("nowhere/audit.log"));
    let mut gateway = wrong.clone().after(&pipe.redirection()).spawn_in(Arc::clone(&folder));
    let begin = Instant::now();
    assert_eq!(gateway.await_end().code(), Some(78));
    println!("log_output: exit 78 with a full pipe: {:?}", begin.elapsed());
    // With a reader, the reason is there.
    pipe.read();
    let mut gateway = wrong.after(&pipe.redirection()).spawn_in(folder);
    assert_eq!(gateway.await_end().code(), Some(78));
    let text = String::from_utf8(pipe.read()).unwrap();
    assert!(text.contains("portcullis: log.audit: "), "{text}");
}

#[test]
fn the_last_line_before_a_stop_is_written() {
    let origin = Origin::start();
    for _ in 0..5 {
        let folder = folder();
        let mut pipe = Pipe::make(&folder);
        let mut gateway = Setup::new(origin.address).after(&pipe.redirection()).start_in(folder);
        served(gateway.public);
        gateway.signal("TERM");
        assert!(gateway.await_end().success());
        let text = String::from_utf8(pipe.read()).unwrap();
        assert!(text.contains("/public/good"), "{text}");
        assert!(text.lines().last().unwrap().contains("\"stopped\""), "{text}");
    }
}

#[test]
fn a_pipe_without_a_reader_and_a_shared_description() {
    let origin = Origin::start();
    let folder = folder();
    let mut pipe = Pipe::make(&folder);
    let mut gateway = Setup::new(origin.address).after(&pipe.redirection()).start_in(folder);
    // The shell before, and a successor after it, share the descriptor's flags.
    for descriptor in [1, 2] {
        let info = std::fs::read_to_string(format!("/proc/{}/fdinfo/{descriptor}", gateway.pid())).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        let flags = u32::from_str_radix(flags.trim(), 8).unwrap();
        assert_eq!(flags & rustix::fs::OFlags::NONBLOCK.bits(), 0, "{info}");
    }
    pipe.reader = None;
    for _ in 0..20 {
        served(gateway.public);
    }
    await_that("the lines are counted", || metric(&gateway, "portcullis_log_lines_lost_total") >= 20.0);
    let before = gateway.processor_ticks();
    std::thread::sleep(Duration::from_secs(1));
    assert!(gateway.processor_ticks() - before < 50, "the writer spins");
    // A reader that comes back gets what is written from then on, and the loss.
    pipe.reader = Some(open(&pipe.path, false));
    let mut text = Vec::new();
    await_that("the loss is reported", || {
        served(gateway.public);
        text.extend(pipe.read());
        String::from_utf8_lossy(&text).contains("lines were lost")
    });
    gateway.signal("TERM");
    assert!(gateway.await_end().success());
}

#[test]
fn a_full_disk_under_standard_output() {
    let origin = Origin::start();
    let folder = folder();
    // The limit lies below the file's end, and above what the database needs.
    let path = folder.path().join("out.log");
    std::fs::write(&path, "\n".repeat(1024 * 1024)).unwrap();
    let limits = format!("exec >>{} 2>&1; trap '' XFSZ; ulimit -f 1024", path.display());
    let gateway = Setup::new(origin.address).after(&limits).start_in(Arc::clone(&folder));
    let latency = (0..20).map(|_| served(gateway.public)).max().unwrap();
    println!("log_output: slowest answer with a full disk: {latency:?}");
    await_that("the lines are counted", || metric(&gateway, "portcullis_log_lines_lost_total") >= 20.0);
    std::fs::write(&path, "").unwrap();
    await_that("the loss is reported", || {
        served(gateway.public);
        std::fs::read_to_string(&path).unwrap().contains("lines were lost")
    });
    for line in std::fs::read_to_string(&path).unwrap().lines().filter(|line| !line.is_empty()) {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}");
    }
}

/// A process that is killed when this is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_upgrade_with_a_full_pipe() {
    let origin = Origin::start();
    // A warning of the configuration goes to standard error, before there is a log.
    let setup = Setup::new(origin.address)
        .and_routes(json!([{"path": "/idle", "upstream": "app", "auth": "public", "on_expiry": "ignore"}]));
    let (mut gateway, pipe) = stuck(setup);
    let mut command = Command::new("sh");
    let script = format!("{}; exec \"$0\" run --upgrade --config \"$1\"", pipe.redirection());
    command.arg("-c").arg(script).arg(BINARY).arg(&gateway.config).stdin(Stdio::null());
    let mut successor = Process(command.spawn().unwrap());
    let begin = Instant::now();
    // A hand-over with no successor there leaves the predecessor serving: ask again.
    let stopped = holds_within(Duration::from_secs(20), || {
        if gateway.poll_end().is_none() {
            gateway.signal("QUIT");
        }
        std::thread::sleep(Duration::from_millis(300));
        gateway.poll_end().is_some()
    });
    assert!(stopped, "the predecessor is still there");
    println!("log_output: upgrade with a full pipe: {:?}", begin.elapsed());
    assert!(successor.0.try_wait().unwrap().is_none(), "the successor has ended");
    println!("log_output: answer of the successor with a full pipe: {:?}", served(gateway.public));
}

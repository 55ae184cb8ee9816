//! Clients that take their time on purpose: each phase is closed when its time is over, and nobody else notices them.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

use crate::frames::{CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, frame};
use crate::harness::{Setup, await_that, run, said};
use crate::origin::Origin;
use crate::wire::{Connection, get};

/// The bounds of most tests here, in seconds.
const HEADER: u64 = 1;
const BODY: u64 = 1;
const IDLE: u64 = 2;

/// What a busy machine may add.
const SLACK: Duration = Duration::from_secs(3);

fn strict(origin: &Origin) -> Setup {
    let timeouts = json!({"header": format!("{HEADER}s"), "body": format!("{BODY}s"), "idle": format!("{IDLE}s")});
    Setup::new(origin.address).set("server.timeouts", timeouts)
}

/// The preface, empty SETTINGS, and a request of stream 1: `method` is 0x82 for GET and 0x83 for POST.
fn http2(method: u8, path: &str, flags: u8) -> Vec<u8> {
    let mut block = vec![method, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
    block.extend(path.as_bytes());
    block.extend(b"\x01\x09localhost");
    [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, flags, 1, &block)].concat()
}

struct Drip {
    what: &'static str,
    /// Sent at once.
    first: Vec<u8>,
    /// Sent again and again.
    then: Vec<u8>,
    /// In milliseconds.
    every: u64,
    /// In seconds: when it is to be over.
    limit: u64,
}

/// Drips until the gateway closes, however much it answers before; how long that took.
fn drip(address: SocketAddr, case: &Drip) -> Duration {
    let begin = Instant::now();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(&case.first).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut next = Duration::from_millis(case.every);
    let mut buffer = [0; 4096];
    while begin.elapsed() < Duration::from_secs(case.limit) + SLACK * 2 {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            _ => {}
        }
        if begin.elapsed() > next {
            next += Duration::from_millis(case.every);
            if stream.write_all(&case.then).is_err() {
                break;
            }
        }
    }
    begin.elapsed()
}

fn drips() -> Vec<Drip> {
    let case = |what, first: &[u8], then: &[u8], every, limit| Drip {
        what,
        first: first.to_vec(),
        then: then.to_vec(),
        every,
        limit,
    };
    let head = "GET /public/x HTTP/1.1\r\nHost: x\r\n";
    let kept = format!("{head}\r\n{head}");
    let posted = "POST /public/x HTTP/1.1\r\nHost: x\r\n";
    let lasting = BODY * 1000 + 600;
    vec![
        case("nothing", b"", b"", 50, HEADER),
        case("half a preface", &PREFACE[..18], b"", 50, HEADER),
        case("a preface, a byte at a time", &PREFACE[..2], b"", 50, HEADER),
        case("a preface and no request", PREFACE, b"", 50, IDLE),
        case("settings and no request", &[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat(), b"", 50, IDLE),
        case("a dripping head", head.as_bytes(), b"X-Drip: 1\r\n", 50, HEADER),
        case("a dripping request line", b"GET /pub", b"l", 50, HEADER),
        case("a dripping second head", kept.as_bytes(), b"X-Drip: 1\r\n", 50, HEADER),
        case(
            "dripping CONTINUATION",
            &http2(0x82, "/public/x", 0),
            &frame(CONTINUATION, 0, 1, b"\0\x01x\x01y"),
            400,
            HEADER,
        ),
        case(
            "a dripping frame",
            &[PREFACE, &frame(SETTINGS, 0, 0, &[]), &[0, 0, 60, 1, 5, 0, 0, 0, 1]].concat(),
            b"\0",
            50,
            HEADER,
        ),
        case("a dripping body", format!("{posted}Content-Length: 99\r\n\r\n").as_bytes(), b"x", lasting, BODY),
        case(
            "a dripping chunked body",
            format!("{posted}Transfer-Encoding: chunked\r\n\r\n").as_bytes(),
            b"1\r\nx\r\n",
            lasting,
            BODY,
        ),
        // The stream ends with its time; the connection, then without a request, a little later.
        case(
            "a dripping body of a stream",
            &http2(0x83, "/public/x", END_HEADERS),
            &frame(DATA, 0, 1, b"x"),
            lasting,
            BODY + IDLE,
        ),
    ]
}

#[test]
fn each_phase_ends_in_time() {
    let origin = Origin::start();
    let gateway = strict(&origin).start();
    let cases = drips();
    let took: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = cases.iter().map(|case| scope.spawn(|| drip(gateway.public, case))).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (case, took) in cases.iter().zip(took) {
        let limit = Duration::from_secs(case.limit);
        println!("{}: {:.2} s of {}", case.what, took.as_secs_f64(), case.limit);
        assert!(took < limit + SLACK, "{}: open for {took:?}", case.what);
        assert!(took > Duration::from_millis(700), "{}: closed after {took:?} already", case.what);
    }
}

/// An origin that gives more than any buffer holds, and notes when it is told that nobody wants it.
fn endless() -> (Origin, Arc<Mutex<Vec<Instant>>>) {
    let ends: Arc<Mutex<Vec<_>>> = Arc::default();
    let noted = Arc::clone(&ends);
    let origin = Origin::scripted(move |exchange| {
        if !exchange.seen.target.ends_with("/endless") {
            return exchange.echo();
        }
        exchange.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        while !exchange.is_closing() {
            exchange.write(&[b'x'; 65536]);
        }
        noted.lock().unwrap().push(Instant::now());
    });
    (origin, ends)
}

#[test]
fn a_client_that_reads_nothing_is_closed() {
    let (origin, ends) = endless();
    let gateway = strict(&origin).start();
    let http1 = b"GET /public/endless HTTP/1.1\r\nHost: x\r\n\r\n".to_vec();
    for (what, request) in [("HTTP/1", http1), ("HTTP/2", http2(0x82, "/public/endless", END_HEADERS | END_STREAM))] {
        ends.lock().unwrap().clear();
        let begin = Instant::now();
        let mut stream = TcpStream::connect(gateway.public).unwrap();
        stream.write_all(&request).unwrap();
        await_that(&format!("{what}: the upstream is let go"), || !ends.lock().unwrap().is_empty());
        let took = ends.lock().unwrap()[0].duration_since(begin);
        println!("{what}: {:.2} s of {IDLE}", took.as_secs_f64());
        assert!(took < Duration::from_secs(IDLE) + SLACK, "{what}: {took:?}");
        assert!(took > Duration::from_millis(1500), "{what}: {took:?}");
    }
}

/// Asks all the while; the longest wait, and how many answers there were. Fails on anything but 200.
fn good_client(address: SocketAddr, stop: &AtomicBool) -> (Duration, usize) {
    let mut connection = Connection::open(address);
    let (mut longest, mut count) = (Duration::ZERO, 0);
    while !stop.load(Ordering::Relaxed) {
        let begin = Instant::now();
        let answer = get("/public/good").send_on(&mut connection, address).unwrap();
        assert_eq!(answer.status, 200);
        longest = longest.max(begin.elapsed());
        count += 1;
        std::thread::sleep(Duration::from_millis(2));
    }
    (longest, count)
}

/// Runs `work` beside a good client, who must not notice.
#[track_caller]
fn beside_a_good_client(address: SocketAddr, work: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    let (longest, count) = std::thread::scope(|scope| {
        let good = scope.spawn(|| good_client(address, &stop));
        work();
        stop.store(true, Ordering::Relaxed);
        good.join().unwrap()
    });
    println!("beside it: {count} answers, the longest wait {longest:?}");
    assert!(longest < Duration::from_secs(1), "a good client waited {longest:?}");
    assert!(count > 10, "{count}");
}

/// Lets this process, and those that it starts, open more files where that is allowed.
fn open_files(wanted: u64) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let granted = maximum.map_or(wanted, |maximum| maximum.min(wanted)).max(current.unwrap_or(wanted));
    setrlimit(Resource::Nofile, Rlimit { current: Some(granted), maximum }).unwrap();
    assert!(granted >= wanted, "only {granted} files can be opened: raise `ulimit -Hn`");
}

#[test]
fn two_thousand_slow_clients_disturb_nobody() {
    // SLOW_CLIENTS=10000 asks for more.
    let count = std::env::var("SLOW_CLIENTS").map_or(2000, |text| text.parse().unwrap());
    open_files(count * 2 + 500);
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    let kinds: [(Vec<u8>, Vec<u8>); 4] = [
        (b"GET /pub".to_vec(), b"l".to_vec()),
        (b"GET /public/x HTTP/1.1\r\nHost: x\r\n".to_vec(), b"X-Drip: 1\r\n".to_vec()),
        (http2(0x82, "/public/x", 0), frame(CONTINUATION, 0, 1, b"\0\x01x\x01y")),
        (b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n".to_vec(), b"X: 1\r\n".to_vec()),
    ];
    beside_a_good_client(gateway.public, || {
        let mut slow: Vec<_> = (0..count)
            .map(|number| {
                let (first, then) = &kinds[usize::try_from(number).unwrap() % kinds.len()];
                let mut stream = TcpStream::connect(gateway.public).unwrap();
                stream.write_all(first).unwrap();
                (stream, then)
            })
            .collect();
        for _ in 0..3 {
            for (stream, then) in &mut slow {
                stream.write_all(then).unwrap();
            }
            std::thread::sleep(Duration::from_millis(300));
        }
        let is_closed = |stream: &TcpStream| {
            stream.set_nonblocking(true).unwrap();
            match stream.peek(&mut [0; 1]) {
                // SETTINGS may lie there to be read.
                Ok(count) => count == 0,
                Err(error) => error.kind() != ErrorKind::WouldBlock,
            }
        };
        let closed = slow.iter().filter(|(stream, _)| is_closed(stream)).count();
        assert_eq!(closed, 0, "slow, but well within their time");
    });
}

#[test]
fn slowhttptest_finds_it_available() {
    let (origin, clients) = (Origin::start(), 300);
    // Headers, bodies, and ranges without end.
    let modes: [(&str, &[&str]); 3] = [("-H", &["-i", "1"]), ("-B", &["-i", "3", "-s", "8192"]), ("-R", &[])];
    std::thread::scope(|scope| {
        for (mode, options) in modes {
            let origin = &origin;
            scope.spawn(move || {
                let gateway = strict(origin).start();
                let mut command = Command::new("slowhttptest");
                command.arg(mode).args(options).args(["-c", &clients.to_string(), "-r", "300", "-l", "20", "-p", "1"]);
                command.args(["-u", &format!("http://{}/public/x", gateway.public)]);
                beside_a_good_client(gateway.public, || {
                    let told = said(&run(command, ""));
                    assert!(told.contains("YES") && !told.contains("NO\n"), "{mode}: service available?\n{told}");
                    assert!(told.contains("No open connections left"), "{mode}: some stayed open\n{told}");
                });
            });
        }
    });
}

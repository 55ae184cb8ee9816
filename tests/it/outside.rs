//! Load from tools that others wrote, wrk and h2load: a few hundred requests a second, none of which may fail.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use tempfile::NamedTempFile;

use crate::jwt;

/// Requests a second of one tool: load enough, and the other tests keep some of the machine.
const PACE: u32 = 200;

/// wrk's way to be slow: milliseconds that each of its connections waits before a request.
const DELAY: &str = "function delay() return 10 end\n";

/// Which tool.
#[derive(Clone, Copy)]
pub enum Tool {
    /// HTTP/1.1 on kept connections.
    Wrk,
    /// HTTP/2. It does not come back when its connection goes away.
    H2load,
}

/// A tool at work.
pub struct Outside {
    tool: Tool,
    child: Child,
    _script: NamedTempFile,
}

/// What a tool reports.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Requests that it made.
    pub requests: u64,
    /// Those without a good answer, by its own count.
    pub failed: u64,
}

impl Tool {
    const fn command(self) -> &'static str {
        match self {
            Self::Wrk => "wrk",
            Self::H2load => "h2load",
        }
    }
}

impl Outside {
    /// Starts it, for so many seconds; the scheme is `http` or `https`.
    pub fn start(tool: Tool, scheme: &str, address: SocketAddr, seconds: u64) -> Self {
        let mut script = NamedTempFile::new().unwrap();
        script.write_all(DELAY.as_bytes()).unwrap();
        let mut command = Command::new(tool.command());
        match tool {
            Tool::Wrk => command.args(["-t1", "-c2", &format!("-d{seconds}s"), "-s"]).arg(script.path()),
            Tool::H2load => {
                command.args(["-t1", "-c2", "-m4", &format!("-D{seconds}"), &format!("--rps={}", PACE / 2)])
            }
        };
        let token = jwt::access("alice");
        command.args(["-H", &format!("authorization: Bearer {token}")]);
        command.arg(format!("{scheme}://localhost:{}/secret/x", address.port()));
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|error| panic!("{}: {error}: make test installs it", tool.command()));
        Self { tool, child, _script: script }
    }

    /// Waits until its time is over.
    #[track_caller]
    pub fn report(self) -> Report {
        let output = self.child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let report = match self.tool {
            Tool::Wrk => read_wrk(&text),
            Tool::H2load => read_h2load(&text),
        };
        let name = self.tool.command();
        let report = report.unwrap_or_else(|| panic!("{name} reports nothing: {text}"));
        println!("  {name}: {} requests, {} failed", report.requests, report.failed);
        report
    }
}

/// The number before `word`.
fn before(text: &str, word: &str) -> Option<u64> {
    let (head, _) = text.split_once(word)?;
    head.rsplit(|c: char| !c.is_ascii_digit()).find(|digits| !digits.is_empty())?.parse().ok()
}

/// The sum of all numbers in the rest of the line behind `word`; 0 where that does not stand.
fn sum_behind(text: &str, word: &str) -> u64 {
    let rest = text.split_once(word).map_or("", |(_, rest)| rest.lines().next().unwrap_or_default());
    rest.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse::<u64>().ok()).sum()
}

fn read_wrk(text: &str) -> Option<Report> {
    let requests = before(text, " requests in ")?;
    let failed = sum_behind(text, "Socket errors:") + sum_behind(text, "Non-2xx or 3xx responses:");
    Some(Report { requests, failed })
}

fn read_h2load(text: &str) -> Option<Report> {
    let bad = [" failed", " errored", " timeout"].into_iter().map(|word| before(text, word)).sum::<Option<u64>>()?;
    let good = before(text, " 2xx")?;
    let done = before(text, " done")?;
    Some(Report { requests: done, failed: bad + (done - good.min(done)) })
}

#[test]
fn reports_are_read() {
    let wrk = "  640 requests in 2.00s, 100KB read\n  Socket errors: connect 1, read 2, write 0, timeout 3\n\
               \x20 Non-2xx or 3xx responses: 4\nRequests/sec: 320\n";
    assert_eq!(read_wrk(wrk), Some(Report { requests: 640, failed: 10 }));
    assert_eq!(read_wrk("  7 requests in 2.00s, 1KB read\n"), Some(Report { requests: 7, failed: 0 }));
    let h2load = "finished in 2.0s, 50 req/s\nrequests: 100 total, 103 started, 100 done, 97 succeeded, 3 failed, \
                  2 errored, 1 timeout\nstatus codes: 98 2xx, 0 3xx, 2 4xx, 0 5xx\n";
    assert_eq!(read_h2load(h2load), Some(Report { requests: 100, failed: 8 }));
    assert_eq!(read_h2load("unable to connect\n"), None);
}

//! Standard output, or standard error, without waiting for its reader: lines go into a bounded queue, and one thread
//! writes them.
//!
//! A pipe that is full or closed, and a disk that is full, stop that thread alone. What finds no room is lost and counted;
//! one line says how many were lost once there is room again. The descriptor stays blocking: it is shared with the parent
//! process and with a successor, and O_NONBLOCK would hold for them too.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, fstat};
use tracing_subscriber::fmt::MakeWriter;

use crate::telemetry::redact::redacted;

/// How long [`Output::finish`] waits for the reader.
const LAST_LINES: Duration = Duration::from_secs(2);

/// What a text counts at least, in bytes: the queue's own part of it.
const LEAST: usize = 256;

/// A write to a pipe of up to this many bytes is not mixed with those of other processes (POSIX PIPE_BUF on Linux).
const PIPE_BUF: usize = 4096;

/// What a line is. Each kind has room of its own, so that a flood of one displaces no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An event of the program.
    Log,
    /// Lines of the access log.
    Access,
    /// A line of the audit.
    Audit,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Log, Self::Access, Self::Audit];
}

/// Lines that were lost, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Events of the program.
    pub log: u64,
    /// Lines of the access log.
    pub access: u64,
    /// Lines of the audit.
    pub audit: u64,
}

impl Lost {
    /// All of them.
    pub fn total(self) -> u64 {
        self.log + self.access + self.audit
    }
}

/// The front of the writing thread.
#[derive(Clone)]
pub struct Output {
    orders: Sender<Order>,
    shares: Arc<Shares>,
}

enum Order {
    Write(Kind, String),
    /// Answer once all that was ordered before is written.
    Answer(SyncSender<()>),
}

/// The room of each kind.
struct Shares {
    log: Share,
    access: Share,
    audit: Share,
}

struct Share {
    /// The most bytes that may wait.
    bound: usize,
    /// Bytes that wait, or are being written.
    held: AtomicUsize,
    lost: AtomicU64,
}

impl Share {
    fn new(bound: usize) -> Self {
        Self { bound, held: AtomicUsize::new(0), lost: AtomicU64::new(0) }
    }

    fn take(&self, cost: usize) -> bool {
        let fits = self.held.fetch_add(cost, Ordering::Relaxed).saturating_add(cost) <= self.bound;
        if !fits {
            self.give_back(cost);
        }
        fits
    }

    fn give_back(&self, cost: usize) {
        self.held.fetch_sub(cost, Ordering::Relaxed);
    }

    fn lose(&self, text: &[u8]) {
        let lines = text.iter().filter(|byte| **byte == b'\n').count().max(1);
        self.lost.fetch_add(lines as u64, Ordering::Relaxed);
    }
}

impl Shares {
    fn new() -> Self {
        Self { log: Share::new(1 << 20), access: Share::new(4 << 20), audit: Share::new(1 << 20) }
    }

    fn of(&self, kind: Kind) -> &Share {
        match kind {
            Kind::Log => &self.log,
            Kind::Access => &self.access,
            Kind::Audit => &self.audit,
        }
    }

    fn lost(&self) -> Lost {
        let read = |share: &Share| share.lost.load(Ordering::Relaxed);
        Lost { log: read(&self.log), access: read(&self.access), audit: read(&self.audit) }
    }

    /// Whether each kind has at least half of its room.
    fn have_room(&self) -> bool {
        Kind::ALL.iter().all(|kind| {
            let share = self.of(*kind);
            share.held.load(Ordering::Relaxed) <= share.bound / 2
        })
    }
}

/// What a text takes of its share: it is the same before and after its way through the queue.
fn cost(text: &String) -> usize {
    text.capacity().max(LEAST)
}

impl Output {
    /// Starts the thread that writes to a copy of `target`.
    ///
    /// # Errors
    /// The system refuses a descriptor or a thread.
    pub fn start(target: impl AsFd) -> io::Result<Self> {
        let file = File::from(target.as_fd().try_clone_to_owned()?);
        let shares = Arc::new(Shares::new());
        let (orders, waiting) = channel();
        let is_pipe = fstat(&file).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
        let desk = Desk { file, is_pipe, shares: Arc::clone(&shares), torn: false, told: Lost::default() };
        thread::Builder::new().name("log".into()).spawn(move || desk.work(&waiting))?;
        Ok(Self { orders, shares })
    }

    /// Hands whole lines over, each with its newline. Never waits.
    pub fn write(&self, kind: Kind, text: String) {
        let (share, cost) = (self.shares.of(kind), cost(&text));
        if !share.take(cost) {
            share.lose(text.as_bytes());
        } else if let Err(unsent) = self.orders.send(Order::Write(kind, text)) {
            share.give_back(cost);
            if let Order::Write(_, text) = unsent.0 {
                share.lose(text.as_bytes());
            }
        }
    }

    /// What was lost since the start.
    pub fn lost(&self) -> Lost {
        self.shares.lost()
    }

    /// Waits until all is written that was handed over, but not for long: nothing may read it any more.
    pub fn finish(&self) {
        // Twice: the thread may have had a loss to report.
        for _ in 0..2 {
            let (answer, answered) = sync_channel(1);
            if self.orders.send(Order::Answer(answer)).is_err() || answered.recv_timeout(LAST_LINES).is_err() {
                return;
            }
        }
    }
}

/// Events of the program; the subscriber writes each as a whole.
impl io::Write for &Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        Output::write(self, Kind::Log, redacted(&text).into_owned());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Output {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

/// The writing thread's own.
struct Desk {
    file: File,
    is_pipe: bool,
    shares: Arc<Shares>,
    /// The last line broke off.
    torn: bool,
    /// The losses that were reported.
    told: Lost,
}

impl Desk {
    fn work(mut self, waiting: &Receiver<Order>) {
        for order in waiting {
            match order {
                Order::Write(kind, text) => {
                    let (shares, cost) = (Arc::clone(&self.shares), cost(&text));
                    let written = self.write(kind, text.as_bytes());
                    shares.of(kind).give_back(cost);
                    if written {
                        self.report();
                    }
                }
                Order::Answer(answer) => drop(answer.send(())),
            }
        }
    }

    /// `false` when a part of it is lost.
    fn write(&mut self, kind: Kind, mut text: &[u8]) -> bool {
        while !text.is_empty() {
            let (lines, rest) = text.split_at(if self.is_pipe { unmixed(text) } else { text.len() });
            if let Err((began, _)) = append_after(&mut self.file, self.torn, lines) {
                self.torn |= began;
                self.shares.of(kind).lose(text);
                return false;
            }
            self.torn = false;
            text = rest;
        }
        true
    }

    fn report(&mut self) {
        let lost = self.shares.lost();
        if lost != self.told && self.shares.have_room() {
            let (lines, log) = (lost.total() - self.told.total(), lost.log - self.told.log);
            let (access, audit) = (lost.access - self.told.access, lost.audit - self.told.audit);
            tracing::error!(lines, log, access, audit, "log: lines were lost; standard output must be read in time");
            self.told = lost;
        }
    }
}

/// Where `text` can be cut so that its lines stay whole beside those of other processes.
fn unmixed(text: &[u8]) -> usize {
    let Some(part) = text.get(..PIPE_BUF).filter(|_| text.len() > PIPE_BUF) else { return text.len() };
    // A longer line stands alone, and may be mixed.
    memchr::memrchr(b'\n', part).or_else(|| memchr::memchr(b'\n', text)).map_or(text.len(), |at| at + 1)
}

/// [`append`], on a line of its own where the one before broke off.
///
/// # Errors
/// As there.
pub(super) fn append_after(file: &mut File, torn: bool, text: &[u8]) -> Result<(), (bool, io::Error)> {
    if torn { append(file, &[b"\n", text].concat()) } else { append(file, text) }
}

/// Writes all of `text`, or tells whether a part of it stands there now.
fn append(file: &mut File, mut text: &[u8]) -> Result<(), (bool, io::Error)> {
    let whole = text.len();
    while !text.is_empty() {
        match file.write(text) {
            Ok(0) => return Err((text.len() < whole, io::ErrorKind::WriteZero.into())),
            Ok(written) => text = text.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Another process that has the descriptor made it so.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => await_room(file.as_fd()),
            Err(error) => return Err((text.len() < whole, error)),
        }
    }
    Ok(())
}

fn await_room(file: BorrowedFd<'_>) {
    // An error shows at the next write as well.
    let _ = poll(&mut [PollFd::new(&file, PollFlags::OUT)], None);
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn pipe() -> (io::PipeReader, Output, io::PipeWriter) {
        let (reader, writer) = io::pipe().unwrap();
        let output = Output::start(&writer).unwrap();
        (reader, output, writer)
    }

    #[test]
    fn each_kind_has_room_of_its_own_and_what_is_lost_is_counted() {
        let (mut reader, output, writer) = pipe();
        drop(writer);
        let line = format!("{}\n", "x".repeat(999));
        for _ in 0..10_000 {
            output.write(Kind::Access, line.repeat(2));
        }
        let lost = output.lost();
        // 4 MiB wait, 64 KiB are in the pipe, one text is in the hands of the thread.
        let kept = 20_000 - lost.access;
        assert!((4190..4270).contains(&kept), "{kept}");
        assert_eq!((lost.log, lost.audit), (0, 0));
        (&output).write_all(b"an event\n").unwrap();
        output.write(Kind::Audit, "an audit line\n".to_owned());
        output.finish();
        assert_eq!(output.lost(), lost);
        drop(output);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text.lines().count() as u64, kept + 2);
        assert!(text.ends_with("an event\nan audit line\n"));
    }

    #[test]
    fn a_closed_pipe_loses_lines_and_keeps_no_room() {
        let (reader, output, writer) = pipe();
        drop((reader, writer));
        for _ in 0..3 {
            output.write(Kind::Audit, "a\nb\n".to_owned());
        }
        output.finish();
        assert_eq!(output.lost(), Lost { audit: 6, ..Lost::default() });
        assert_eq!(output.shares.audit.held.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_descriptor_that_another_process_made_nonblocking() {
        let (mut reader, writer) = io::pipe().unwrap();
        rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK).unwrap();
        let output = Output::start(&writer).unwrap();
        drop(writer);
        let line = format!("{}\n", "x".repeat(2999));
        for _ in 0..100 {
            output.write(Kind::Audit, line.clone());
        }
        drop(output);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, line.repeat(100));
    }

    #[test]
    fn writes_to_a_pipe_end_with_a_line_and_are_small() {
        let text = |lengths: &[usize]| lengths.iter().map(|length| "x".repeat(length - 1) + "\n").collect::<String>();
        for (lengths, expected) in
            [(&[10, 10][..], 20), (&[4000, 96], 4096), (&[4000, 97], 4000), (&[5000, 10], 5000), (&[1; 5000], 4096)]
        {
            assert_eq!(unmixed(text(lengths).as_bytes()), expected);
        }
        assert_eq!(unmixed(b"no end"), 6);
    }
}

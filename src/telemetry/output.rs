//! Standard output without waiting: a bounded queue, and one thread that writes.
//!
//! A pipe that is not read, a full disk or a stopped terminal blocks that thread alone. Lines that find no room are lost,
//! counted, and reported once there is room again.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait.
const WAITING: usize = 2048;

/// How long the end of the process waits for the last lines.
const LAST_LINES: Duration = Duration::from_secs(1);

enum Order {
    Write(Vec<u8>),
    /// Answer once all before is written.
    Answer(SyncSender<()>),
}

/// The front of the writing thread.
#[derive(Clone)]
pub struct Output {
    orders: SyncSender<Order>,
    lost: Arc<AtomicU64>,
}

impl Output {
    /// Starts the thread, which writes to `target`.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn start(target: impl Write + Send + 'static) -> io::Result<Self> {
        let (orders, waiting) = sync_channel(WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&lost);
        thread::Builder::new().name("log".into()).spawn(move || write_all(target, &waiting, &counted))?;
        Ok(Self { orders, lost })
    }

    /// Lines that were lost so far.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Waits until all is written that was handed over, but not for long.
    pub fn finish(&self) {
        let (answer, answered) = sync_channel(1);
        if self.orders.try_send(Order::Answer(answer)).is_ok() {
            let _ = answered.recv_timeout(LAST_LINES);
        }
    }
}

fn write_all(mut target: impl Write, waiting: &Receiver<Order>, lost: &AtomicU64) {
    let mut reported = 0;
    for order in waiting {
        let line = match order {
            Order::Write(line) => line,
            Order::Answer(answer) => {
                let _ = answer.send(());
                continue;
            }
        };
        if target.write_all(&line).and_then(|()| target.flush()).is_err() {
            // Such as a closed pipe: there is no place to report it to.
            lost.fetch_add(1, Ordering::Relaxed);
            reported += 1;
            continue;
        }
        let so_far = lost.load(Ordering::Relaxed);
        if so_far > reported {
            // It queues up like any line.
            tracing::warn!(lines = so_far - reported, "log lines were lost: standard output was not read in time");
            reported = so_far;
        }
    }
}

/// One event's line.
pub struct Line<'a>(&'a Output);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.0.orders.try_send(Order::Write(line.to_vec())).is_err() {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Output {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    /// Takes a line for each message.
    struct Reader(Receiver<()>, Arc<std::sync::Mutex<Vec<u8>>>);

    impl Write for Reader {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.recv().map_err(|_| io::ErrorKind::BrokenPipe)?;
            self.1.lock().unwrap().extend_from_slice(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_never_waits_and_what_is_lost_is_counted() {
        let (let_one_pass, reads) = channel();
        let written = Arc::default();
        let output = Output::start(Reader(reads, Arc::clone(&written))).unwrap();
        let count = WAITING * 2;
        for _ in 0..count {
            output.make_writer().write_all(b"line\n").unwrap();
        }
        // One may be in the hands of the thread.
        let lost = output.lost();
        assert!((count - WAITING - 1..=count - WAITING).contains(&usize::try_from(lost).unwrap()), "{lost}");
        output.finish();
        let kept = count - usize::try_from(lost).unwrap();
        for _ in 0..=kept {
            let_one_pass.send(()).unwrap();
        }
        while output.orders.try_send(Order::Write(b"last\n".to_vec())).is_err() {
            thread::yield_now();
        }
        output.finish();
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        assert!(text.starts_with("line\n") && text.ends_with("last\n"));
        assert_eq!(text.lines().count(), kept + 1);
        drop(let_one_pass);
        output.make_writer().write_all(b"to a closed pipe\n").unwrap();
        output.finish();
        assert_eq!(output.lost(), lost + 1);
    }
}

//! The threads that own the connections: a writer that commits in groups, and readers.

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::connection::{classify, reopen, reopen_for_reading};
use crate::store::Error;

/// A job that takes longer has failed for whoever asked.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many jobs may wait for a thread.
const QUEUE: usize = 1024;

/// How many jobs share a transaction, so that the first of them need not wait for ever.
const GROUP: usize = 512;

/// A piece of work, given a connection, or the reason why there is none.
type Job = Box<dyn FnOnce(Result<&Connection, Error>) -> Outcome + Send>;

/// What came of a job. Its asker is answered later, when the transaction has been committed.
pub(super) struct Outcome {
    error: Option<Error>,
    answer: Box<dyn FnOnce(Option<Error>) + Send>,
}

impl Outcome {
    fn asks_for_reopening(&self) -> bool {
        self.error.as_ref().is_some_and(Error::asks_for_reopening)
    }
}

/// What stands in a thread's queue.
pub(super) enum Message {
    Job(Job),
    Stop,
}

/// A thread with a bounded queue.
pub(super) struct Worker {
    queue: SyncSender<Message>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Worker {
    /// Starts a thread that runs `work` on its queue.
    pub(super) fn start(name: &str, work: impl FnOnce(Receiver<Message>) + Send + 'static) -> Result<Self, Error> {
        let (queue, jobs) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name(name.into())
            .spawn(move || work(jobs))
            .map_err(|source| Error::Thread(Arc::new(source)))?;
        Ok(Self { queue, thread: Mutex::new(Some(thread)) })
    }

    /// Has `work` done by the thread. A full queue is [`Error::Busy`] at once.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        path: &Arc<Path>,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let (sender, receiver) = oneshot::channel();
        let path = Arc::clone(path);
        let job = Box::new(move |connection: Result<&Connection, Error>| {
            let result = connection.and_then(|connection| work(connection).map_err(|error| classify(error, &path)));
            let error = result.as_ref().err().cloned();
            let answer = Box::new(move |undone: Option<Error>| {
                // An asker that went away needs no answer.
                drop(sender.send(match undone {
                    Some(error) if result.is_ok() => Err(error),
                    _ => result,
                }));
            });
            Outcome { error, answer }
        });
        self.enqueue(job)?;
        // A disk that hangs must not hang those who ask. What they asked for may still be done.
        match tokio::time::timeout(PATIENCE, receiver).await {
            Ok(answer) => answer.unwrap_or(Err(Error::Closed)),
            Err(_) => Err(Error::Busy),
        }
    }

    /// Has `work` done by the thread on `what`, and waits for nothing. After the commit `what` is given to `done`; where it
    /// comes to nothing it is dropped, with a word in the log.
    pub(super) fn post<T: Send + 'static>(
        &self,
        path: &Arc<Path>,
        what: T,
        work: impl FnOnce(&Connection, &T) -> rusqlite::Result<()> + Send + 'static,
        done: impl FnOnce(T) + Send + 'static,
    ) {
        let path = Arc::clone(path);
        let job = Box::new(move |connection: Result<&Connection, Error>| {
            let work = |connection| work(connection, &what).map_err(|error| classify(error, &path));
            let error = connection.and_then(work).err();
            let own = error.clone();
            let answer = Box::new(move |undone: Option<Error>| match own.or(undone) {
                None => done(what),
                Some(error) => warn(&error),
            });
            Outcome { error, answer }
        });
        if let Err(error) = self.enqueue(job) {
            warn(&error);
        }
    }

    fn enqueue(&self, job: Job) -> Result<(), Error> {
        self.queue.try_send(Message::Job(job)).map_err(|error| match error {
            TrySendError::Full(_) => Error::Busy,
            TrySendError::Disconnected(_) => Error::Closed,
        })
    }

    /// Lets the thread finish what is queued, and waits for its end.
    pub(super) fn stop(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            drop(self.queue.send(Message::Stop));
            drop(thread.join());
        }
    }
}

fn warn(error: &Error) {
    tracing::warn!(%error, "a small change was not written; nobody waits for it");
}

/// Answers one job after the other. `openings` counts the connections.
pub(super) fn read(path: &Path, first: Connection, queue: &Receiver<Message>, openings: &AtomicI64) {
    let mut connection = Some(first);
    while let Ok(Message::Job(job)) = queue.recv() {
        let opened = connection.take().map_or_else(
            || {
                openings.fetch_add(1, Ordering::Relaxed);
                reopen_for_reading(path)
            },
            Ok,
        );
        let outcome = match opened {
            Ok(open) => {
                let outcome = job(Ok(&open));
                connection = (!outcome.asks_for_reopening()).then_some(open);
                outcome
            }
            Err(error) => job(Err(error)),
        };
        (outcome.answer)(None);
    }
}

/// Commits what has queued up in one transaction, then answers, and so on.
pub(super) fn write(path: &Path, first: Connection, queue: &Receiver<Message>) {
    let mut connection = Some(first);
    while let Ok(Message::Job(first)) = queue.recv() {
        let mut group = Group { first: Some(first), queue, left: GROUP, stopped: false };
        connection = match connection.take().map_or_else(|| reopen(path), Ok) {
            Ok(open) => write_group(open, path, &mut group),
            Err(error) => {
                refuse(&error, &mut group);
                None
            }
        };
        if group.stopped {
            break;
        }
    }
    if let Some(connection) = connection {
        // The next start has less to recover; another process that reads just now may keep it from succeeding.
        drop(connection.execute_batch("PRAGMA busy_timeout = 0; PRAGMA wal_checkpoint(TRUNCATE);"));
    }
}

/// The jobs of one transaction: what queued up until then, and what comes while it is under way.
struct Group<'a> {
    first: Option<Job>,
    queue: &'a Receiver<Message>,
    left: usize,
    stopped: bool,
}

impl Iterator for Group<'_> {
    type Item = Job;

    fn next(&mut self) -> Option<Job> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        if self.stopped || self.left == 0 {
            return None;
        }
        self.left -= 1;
        match self.queue.try_recv() {
            Ok(Message::Job(job)) => Some(job),
            Ok(Message::Stop) => {
                self.stopped = true;
                None
            }
            Err(_) => None,
        }
    }
}

/// Answers a whole group with `error`. Those that queued up behind the first one would only wait for the same lock.
fn refuse(error: &Error, group: &mut Group<'_>) {
    // Collected first: who asks again upon an answer is of the next group.
    let jobs: Vec<_> = group.collect();
    for job in jobs {
        (job(Err(error.clone())).answer)(None);
    }
}

/// Runs a group in one transaction and answers it; the connection comes back unless it had better be opened anew.
fn write_group(connection: Connection, path: &Path, group: &mut Group<'_>) -> Option<Connection> {
    if let Err(error) = run(&connection, "BEGIN IMMEDIATE", path) {
        refuse(&error, group);
        return (!error.asks_for_reopening()).then_some(connection);
    }
    let mut outcomes = Vec::new();
    for job in group {
        outcomes.push(write_one(&connection, path, job));
        // After some errors SQLite rolls everything back of its own accord.
        if connection.is_autocommit() {
            break;
        }
    }
    let undone = if connection.is_autocommit() {
        Some(outcomes.last().and_then(|outcome| outcome.error.clone()).unwrap_or(Error::Busy))
    } else {
        run(&connection, "COMMIT", path).err()
    };
    if !connection.is_autocommit() {
        drop(run(&connection, "ROLLBACK", path));
    }
    let sound = connection.is_autocommit()
        && !undone.as_ref().is_some_and(Error::asks_for_reopening)
        && !outcomes.iter().any(Outcome::asks_for_reopening);
    for outcome in outcomes {
        (outcome.answer)(undone.clone());
    }
    sound.then_some(connection)
}

/// Runs one job so that its failure leaves the others of its group alone.
fn write_one(connection: &Connection, path: &Path, job: Job) -> Outcome {
    if let Err(error) = run(connection, "SAVEPOINT job", path) {
        return job(Err(error));
    }
    let outcome = job(Ok(connection));
    let undone = outcome.error.is_none() || run(connection, "ROLLBACK TO job", path).is_ok();
    if undone {
        // A savepoint that is not released goes with the transaction, whichever way that goes.
        drop(run(connection, "RELEASE job", path));
    } else {
        // Half a job must not be committed: all of the group fails with it.
        drop(run(connection, "ROLLBACK", path));
    }
    outcome
}

fn run(connection: &Connection, sql: &str, path: &Path) -> Result<(), Error> {
    connection.prepare_cached(sql).and_then(|mut statement| statement.execute([])).map_err(|e| classify(e, path))?;
    Ok(())
}

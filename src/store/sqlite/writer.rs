//! The thread that writes: it commits what has queued up in one transaction, then tells memory, then answers.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use super::connection::tidy;
use super::file::Found;
use super::mark::Mark;
use super::shared::{Handle, Rendezvous, Shared};
use super::transaction::WriteConnection;
use super::worker::{Job, Message, Outcome};
use crate::clock;
use crate::store::Error;

/// Counts a transaction that changes something.
const COUNT: &str = "UPDATE store SET commits = commits + 1";

/// How long a file is looked at into which another process is writing, and how often.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);
const CONFIRM_PAUSE: Duration = Duration::from_millis(5);

/// From how many frames on the write-ahead log is written into the main file. It is done here, and not by SQLite within a
/// commit, where a log that was overwritten would be written into the main file before it is noticed.
const CHECKPOINT: u64 = 1000;

/// How many jobs share a transaction, so that the first of them does not wait without end.
const GROUP: usize = 512;

/// Commits the jobs of `queue` in groups until a stop message.
pub(super) fn run(shared: &Arc<Shared>, first: Handle<WriteConnection>, queue: &Receiver<Message<WriteConnection>>) {
    let mut connection = Some(first);
    while let Ok(message) = queue.recv() {
        let next = match message {
            Message::Job(job) => {
                let mut group = Group { first: Some(job), queue, left: GROUP, next: Next::Wait };
                connection = commit(shared, connection, &mut group);
                group.next
            }
            Message::Close(rendezvous) => Next::Close(rendezvous),
            Message::Stop => Next::Stop,
        };
        match next {
            Next::Wait => {}
            Next::Close(rendezvous) => {
                drop(connection.take());
                rendezvous.meet(shared);
            }
            Next::Stop => break,
        }
    }
    // The next start has less to recover.
    if let Some(connection) = connection.filter(|_| confirm(shared).is_ok()) {
        tidy(&connection);
    }
}

/// What follows a group.
enum Next {
    Wait,
    Close(Arc<Rendezvous>),
    Stop,
}

/// The jobs of one transaction: what queued up until then, and what comes while it is under way.
struct Group<'a> {
    first: Option<Job<WriteConnection>>,
    queue: &'a Receiver<Message<WriteConnection>>,
    left: usize,
    next: Next,
}

impl Iterator for Group<'_> {
    type Item = Job<WriteConnection>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        if self.left == 0 || !matches!(self.next, Next::Wait) {
            return None;
        }
        self.left -= 1;
        self.next = match self.queue.try_recv() {
            Ok(Message::Job(job)) => return Some(job),
            Ok(Message::Close(rendezvous)) => Next::Close(rendezvous),
            Ok(Message::Stop) => Next::Stop,
            Err(_) => return None,
        };
        None
    }
}

/// Commits a group and answers it; the connection comes back unless it is better opened anew.
fn commit(
    shared: &Arc<Shared>,
    present: Option<Handle<WriteConnection>>,
    group: &mut Group<'_>,
) -> Option<Handle<WriteConnection>> {
    let connection = match present.map_or_else(|| shared.open_for_writing(), Ok) {
        Ok(open) => open,
        Err(error) => {
            refuse(shared, &error, group);
            return None;
        }
    };
    // The connection stays open with a file that is not in its place: it may come back.
    let begun = confirm(shared).and_then(|()| run_sql(shared, &connection, "BEGIN IMMEDIATE"));
    let before = connection.total_changes();
    if let Err(error) = begun {
        refuse(shared, &error, group);
        return (!error.asks_for_reopening()).then_some(connection);
    }
    let mut outcomes = Vec::new();
    for job in group {
        outcomes.push(run_job(shared, &connection, job));
        // After some errors SQLite rolls everything back of its own accord.
        if connection.is_autocommit() {
            break;
        }
    }
    let undone = if connection.is_autocommit() {
        Some(outcomes.last().and_then(|outcome| outcome.error.clone()).unwrap_or(Error::Busy))
    } else {
        finish_transaction(shared, &connection, connection.total_changes() != before).err()
    };
    if !connection.is_autocommit() {
        drop(run_sql(shared, &connection, "ROLLBACK"));
    }
    let is_clean = undone.is_none();
    let is_sound = finish(shared, &connection, undone, outcomes);
    if is_clean && shared.file().log_frames() >= CHECKPOINT {
        // Another process may keep it from working, or be faster.
        drop(connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())));
    }
    is_sound.then_some(connection)
}

/// Counts the transaction where it changes something, commits it, and looks where it has gone.
fn finish_transaction(shared: &Shared, connection: &WriteConnection, is_change: bool) -> Result<(), Error> {
    let known = shared.file().mark();
    if is_change {
        run_sql(shared, connection, COUNT)?;
    }
    // While this transaction is open, no other process can write.
    let frames = shared.file().log_frames();
    if let Err(error) = run_sql(shared, connection, "COMMIT") {
        shared.file().forget_log_after(frames);
        return Err(error);
    }
    shared.file().note(known, Mark::read(connection).map_err(|error| shared.classify(error)))?;
    confirm(shared)
}

/// What was committed to a file that no path leads to is lost: it is not acknowledged. A checkpoint of another process is
/// waited for.
fn confirm(shared: &Shared) -> Result<(), Error> {
    let deadline = clock::monotonic() + CONFIRM_TIMEOUT;
    loop {
        match shared.file().confirm()? {
            Found::Same => return Ok(()),
            Found::Copy => return Err(Error::Reopening),
            Found::Unsettled if clock::monotonic() > deadline => return Err(Error::Busy),
            Found::Unsettled => pause(),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "threads of the store serve no connections")]
fn pause() {
    std::thread::sleep(CONFIRM_PAUSE);
}

/// Tells memory, health and callers how a transaction ended. Whether its connection is sound.
fn finish(shared: &Shared, connection: &WriteConnection, undone: Option<Error>, outcomes: Vec<Outcome>) -> bool {
    let committed = connection.take_noted();
    let of_store = |outcome: &Outcome| outcome.error.clone().filter(Error::is_of_storage);
    match undone.clone().or_else(|| outcomes.iter().find_map(of_store)).as_ref() {
        None => shared.health().note_write(),
        Some(error) => shared.health().note_write_error(error),
    }
    if undone.is_none() {
        shared.tell(&committed);
    }
    let sound = connection.is_autocommit()
        && !undone.as_ref().is_some_and(Error::asks_for_reopening)
        && !outcomes.iter().any(Outcome::asks_for_reopening);
    for outcome in outcomes {
        (outcome.answer)(undone.clone());
    }
    sound
}

/// Answers a whole group with `error`. Those that queued up behind the first one would only wait for the same lock.
fn refuse(shared: &Shared, error: &Error, group: &mut Group<'_>) {
    shared.health().note_write_error(error);
    // Collected first: a caller that asks again upon its answer is of the next group.
    let jobs: Vec<_> = group.collect();
    for job in jobs {
        (job(Err(error.clone())).answer)(None);
    }
}

/// Runs one job so that its failure leaves the others of its group alone.
fn run_job(shared: &Shared, connection: &WriteConnection, job: Job<WriteConnection>) -> Outcome {
    if let Err(error) = run_sql(shared, connection, "SAVEPOINT job") {
        return job(Err(error));
    }
    let noted = connection.noted();
    let outcome = job(Ok(connection));
    if outcome.error.is_some() {
        connection.forget_noted(noted);
    }
    let undone = outcome.error.is_none() || run_sql(shared, connection, "ROLLBACK TO job").is_ok();
    if undone {
        // A savepoint that is not released goes with the transaction, whichever way that goes.
        drop(run_sql(shared, connection, "RELEASE job"));
    } else {
        // Half a job must not be committed: all of the group fails with it.
        drop(run_sql(shared, connection, "ROLLBACK"));
    }
    outcome
}

fn run_sql(shared: &Shared, connection: &WriteConnection, sql: &str) -> Result<(), Error> {
    let run = connection.prepare_cached(sql).and_then(|mut statement| statement.execute([]));
    run.map(drop).map_err(|error| shared.classify(error))
}

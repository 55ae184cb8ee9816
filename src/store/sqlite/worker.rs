//! A thread that owns a connection and does jobs on it, one after the other, from a bounded queue.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

#[cfg(test)]
use super::injection::Injected;
use super::shared::{Rendezvous, Shared};
use crate::store::Error;

/// A job that takes longer has failed for its caller.
const JOB_TIMEOUT: Duration = Duration::from_secs(10);

/// How many jobs may wait for a thread.
const QUEUE: usize = 1024;

/// A piece of work, given a connection, or the reason why there is none.
pub(super) type Job<C> = Box<dyn FnOnce(Result<&C, Error>) -> Outcome + Send>;

/// What came of a job. Its caller is answered later, when the transaction has been committed.
pub(super) struct Outcome {
    pub error: Option<Error>,
    /// Given the error of the transaction, if that failed.
    pub answer: Box<dyn FnOnce(Option<Error>) + Send>,
}

impl Outcome {
    /// Of a job that was not run, because its caller has gone.
    fn skipped() -> Self {
        Self { error: None, answer: Box::new(|_| {}) }
    }

    pub fn asks_for_reopening(&self) -> bool {
        self.error.as_ref().is_some_and(Error::asks_for_reopening)
    }
}

/// What happens to a job whose caller has gone before its turn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Abandoned {
    /// It is done all the same: a logout that was sent is meant.
    Run,
    /// It is left out.
    Skip,
}

/// What a thread finds in its queue.
pub(super) enum Message<C> {
    Job(Job<C>),
    /// Close the connection, and meet the other threads before another is opened.
    Close(Arc<Rendezvous>),
    Stop,
}

/// A thread with a bounded queue.
pub(super) struct Worker<C> {
    queue: SyncSender<Message<C>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    shared: Arc<Shared>,
}

impl<C: 'static> Worker<C> {
    /// Starts a thread that runs `work` on its queue.
    pub fn start(
        name: &str,
        shared: &Arc<Shared>,
        work: impl FnOnce(&Arc<Shared>, Receiver<Message<C>>) + Send + 'static,
    ) -> Result<Self, Error> {
        let (queue, jobs) = sync_channel(QUEUE);
        let own = Arc::clone(shared);
        let thread = std::thread::Builder::new()
            .name(name.into())
            .spawn(move || work(&own, jobs))
            .map_err(|source| Error::Thread(Arc::new(source)))?;
        Ok(Self { queue, thread: Mutex::new(Some(thread)), shared: Arc::clone(shared) })
    }

    /// Has `work` done by the thread, unless the database file is known to be another one. A full queue is
    /// [`Error::Busy`] at once.
    pub async fn ask<T: Send + 'static>(
        &self,
        abandoned: Abandoned,
        work: impl FnOnce(&C) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let shared = Arc::clone(&self.shared);
        self.ask_always(abandoned, move |connection| {
            shared.file().fault()?;
            work(connection?).map_err(|error| shared.classify(error))
        })
        .await
    }

    /// Has `work` done by the thread, also where there is no connection.
    pub async fn ask_always<T: Send + 'static>(
        &self,
        abandoned: Abandoned,
        work: impl FnOnce(Result<&C, Error>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (sender, receiver) = oneshot::channel();
        #[cfg(test)]
        let (shared, injected) = (Arc::clone(&self.shared), self.shared.injection().next());
        let job = Box::new(move |connection: Result<&C, Error>| {
            if abandoned == Abandoned::Skip && sender.is_closed() {
                return Outcome::skipped();
            }
            #[cfg(test)]
            let connection = if injected == Some(Injected::FailBefore) { Err(Error::Busy) } else { connection };
            let result = work(connection);
            #[cfg(test)]
            let result = if injected == Some(Injected::FailAfter) { Err(Error::Busy) } else { result };
            #[cfg(test)]
            if injected == Some(Injected::Stall) {
                let error = result.as_ref().err().cloned();
                return Outcome { error, answer: Box::new(move |_| shared.injection().keep((sender, result))) };
            }
            let error = result.as_ref().err().cloned();
            let answer = Box::new(move |undone: Option<Error>| {
                // A caller that has gone needs no answer.
                drop(sender.send(match undone {
                    Some(error) if result.is_ok() => Err(error),
                    _ => result,
                }));
            });
            Outcome { error, answer }
        });
        self.enqueue(job)?;
        // A disk that hangs must not hang the callers. The job may still be done later.
        match tokio::time::timeout(JOB_TIMEOUT, receiver).await {
            Ok(answer) => answer.unwrap_or(Err(Error::Closed)),
            Err(_) => Err(Error::Busy),
        }
    }

    /// Has `work` done by the thread on `what`, and waits for nothing. After the commit `what` is given to `done`; where
    /// the job fails it is dropped, with a line in the log.
    pub fn post<T: Send + 'static>(
        &self,
        what: T,
        work: impl FnOnce(&C, &T) -> rusqlite::Result<()> + Send + 'static,
        done: impl FnOnce(T) + Send + 'static,
    ) {
        let shared = Arc::clone(&self.shared);
        let job = Box::new(move |connection: Result<&C, Error>| {
            let work = |connection| work(connection, &what).map_err(|error| shared.classify(error));
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

    fn enqueue(&self, job: Job<C>) -> Result<(), Error> {
        self.queue.try_send(Message::Job(job)).map_err(|error| match error {
            TrySendError::Full(_) => Error::Busy,
            TrySendError::Disconnected(_) => Error::Closed,
        })
    }

    /// Has the thread close its connection and meet the others. With a full queue it does not come: false.
    pub fn close_connection(&self, rendezvous: &Arc<Rendezvous>) -> bool {
        self.queue.try_send(Message::Close(Arc::clone(rendezvous))).is_ok()
    }

    /// Lets the thread finish what is queued, and waits for its end.
    pub fn stop(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            drop(self.queue.send(Message::Stop));
            drop(thread.join());
        }
    }
}

fn warn(error: &Error) {
    tracing::warn!(%error, "a write that no client waits for was not done");
}

//! The threads that read: each answers one job after the other on a connection of its own.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use rusqlite::Connection;

use super::shared::{Handle, Shared};
use super::worker::{Job, Message};

/// Answers the jobs of `queue` until a stop message. The connection is opened anew after an error that asks for it,
/// and when the database file has become another one.
pub(super) fn run(shared: &Arc<Shared>, first: Handle<Connection>, queue: &Receiver<Message<Connection>>) {
    let mut connection = Some(first);
    while let Ok(message) = queue.recv() {
        match message {
            Message::Job(job) => connection = answer(shared, connection, job),
            Message::Close(rendezvous) => {
                drop(connection.take());
                rendezvous.meet(shared);
            }
            Message::Stop => break,
        }
    }
}

fn answer(
    shared: &Arc<Shared>,
    present: Option<Handle<Connection>>,
    job: Job<Connection>,
) -> Option<Handle<Connection>> {
    let opened = match present {
        Some(open) => Ok(open),
        None => shared.open_for_reading(),
    };
    let (outcome, open) = match opened {
        Ok(open) => {
            let outcome = job(Ok(&open));
            let keep = !outcome.asks_for_reopening();
            (outcome, keep.then_some(open))
        }
        Err(error) => (job(Err(error)), None),
    };
    if let Some(error) = &outcome.error {
        shared.health().note_read_error(error);
    }
    (outcome.answer)(None);
    open
}

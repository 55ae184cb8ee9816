//! Worker threads: each has a runtime of its own, and keeps its connections for life.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

use crate::app::App;
use crate::server::doors::Doors;
use crate::server::listener::{Arrival, Inbox};
use crate::server::room::Room;
use crate::server::{Error, Phase, connection};

/// How often a worker looks for overdue connections, and hands its access lines over.
const TICK: Duration = Duration::from_millis(100);

/// Newcomers that a worker takes in before it looks at those that it has: in a rush they wait, not the others.
const AT_ONCE: usize = 16;

/// While a worker waits for its last connections.
const LAST_TICK: Duration = Duration::from_millis(5);

/// All workers.
pub struct Workers {
    ended: watch::Receiver<usize>,
    count: usize,
}

impl Workers {
    /// Starts as many threads as the configuration says. They end when their inboxes are dropped and their last
    /// connection is closed.
    ///
    /// # Errors
    /// The system refuses a thread or a runtime.
    pub fn start(
        app: &Arc<App>,
        doors: &Arc<Doors>,
        phase: &watch::Receiver<Phase>,
    ) -> Result<(Self, Vec<Inbox>), Error> {
        let count = app.edition().config.server.workers.get();
        let (end, ended) = watch::channel(0);
        let end = Arc::new(end);
        let mut inboxes = Vec::with_capacity(count);
        for index in 0..count {
            let (inbox, connections) = mpsc::unbounded_channel();
            inboxes.push(inbox);
            let (app, doors, phase, end) = (Arc::clone(app), Arc::clone(doors), phase.clone(), Arc::clone(&end));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Thread)?;
            let run = move || {
                let process = Arc::clone(&app);
                let ran = catch_unwind(AssertUnwindSafe(|| {
                    let work = async { work(Room::new(app, doors, index), connections, phase).await };
                    LocalSet::new().block_on(&runtime, work);
                }));
                if ran.is_err() {
                    give_up(&process);
                }
                end.send_modify(|ended| *ended += 1);
            };
            thread::Builder::new().name(format!("worker-{index}")).spawn(run).map_err(Error::Thread)?;
        }
        Ok((Self { ended, count }, inboxes))
    }

    /// Returns when all have ended.
    pub async fn finished(&self) {
        // The sender is gone only when all threads are.
        let _ = self.ended.clone().wait_for(|ended| *ended == self.count).await;
    }
}

/// A gateway that has lost a worker would leave the connections that it deals to it without an answer.
#[expect(clippy::disallowed_methods, reason = "a worker's end cannot be passed up to main")]
fn give_up(app: &App) {
    tracing::error!("a worker ended by a bug; the process ends, to be started again");
    app.finish_logs();
    std::process::exit(crate::server::BUG);
}

async fn work(room: Room, mut connections: mpsc::UnboundedReceiver<Arrival>, mut phase: watch::Receiver<Phase>) {
    let mut editions = room.app.editions();
    let room = Rc::new(room);
    let mut ticks = tokio::time::interval(TICK);
    let mut greeted = 0_usize;
    loop {
        tokio::select! {
            arrival = connections.recv() => match arrival {
                Some(arrival) => {
                    connection::spawn(arrival, &room);
                    greeted = greeted.wrapping_add(1);
                    if greeted.is_multiple_of(AT_ONCE) {
                        tokio::task::yield_now().await;
                    }
                }
                None => break,
            },
            _ = ticks.tick() => {
                room.tick();
                room.app.look_at_store();
            }
            Ok(()) = editions.changed() => room.change(Arc::clone(&editions.borrow_and_update())),
            _ = phase.wait_for(|phase| phase.is_last()), if !room.roster.is_draining() => {
                room.roster.drain();
            }
        }
    }
    finish(&room).await;
}

/// Waits for the last connection to close.
async fn finish(room: &Room) {
    room.roster.drain();
    let mut ticks = tokio::time::interval(LAST_TICK);
    while !room.roster.is_empty() {
        ticks.tick().await;
        room.tick();
    }
    room.tick();
}

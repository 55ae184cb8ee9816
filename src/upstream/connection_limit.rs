//! How many connections to upstreams may be open: in the process, by the descriptors that there are, and to one upstream
//! (`max_connections`). A request that needs one more waits, for as long as a connection may take to open.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Resource, getrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Limits;
use crate::model::Household;

/// Requests that may wait for a connection, and those of one client among them.
const WAITING_MAX: usize = 1024;
const WAITING_SHARE: usize = 16;

/// One bound. Clones share it.
#[derive(Clone)]
pub struct ConnectionLimit(Arc<Inner>);

struct Inner {
    places: Arc<Semaphore>,
    most: usize,
    waiting: AtomicUsize,
    clients: Mutex<HashMap<Household, usize>>,
}

impl ConnectionLimit {
    /// At most so many.
    pub fn new(most: usize) -> Self {
        let most = most.min(Semaphore::MAX_PERMITS);
        let places = Arc::new(Semaphore::new(most));
        Self(Arc::new(Inner { places, most, waiting: AtomicUsize::new(0), clients: Mutex::default() }))
    }

    /// For the whole process: the descriptors that client connections within `limits` and all else leave.
    pub fn of_process(limits: &Limits) -> Self {
        let files = getrlimit(Resource::Nofile).current.map(|files| usize::try_from(files).unwrap_or(usize::MAX));
        Self::new(files.map_or(usize::MAX, |files| limits.upstream_connections_within(files)))
    }

    /// How many there may be.
    pub fn most(&self) -> usize {
        self.0.most
    }

    /// Whether requests wait for a connection, so that none is to be kept idle.
    pub fn is_wanted(&self) -> bool {
        self.waiting() > 0
    }

    /// How many requests wait.
    pub fn waiting(&self) -> usize {
        self.0.waiting.load(Ordering::Relaxed)
    }

    /// A place, on behalf of `client`. Waits; `None` at once where too many wait already.
    async fn take(&self, client: Option<IpAddr>) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = Arc::clone(&self.0.places).try_acquire_owned() {
            return Some(place);
        }
        let _waiting = self.wait(client.map(Household::of))?;
        Arc::clone(&self.0.places).acquire_owned().await.ok()
    }

    fn wait(&self, client: Option<Household>) -> Option<Waiting> {
        let waiting = Waiting { limit: self.clone(), client };
        if let Some(client) = client {
            let mut clients = self.clients();
            let count = clients.entry(client).or_insert(0);
            // Counted in any case: the drop counts it out.
            *count += 1;
            let is_full = *count > WAITING_SHARE;
            drop(clients);
            self.0.waiting.fetch_add(1, Ordering::Relaxed);
            if is_full {
                return None;
            }
        } else {
            self.0.waiting.fetch_add(1, Ordering::Relaxed);
        }
        (self.waiting() <= WAITING_MAX).then_some(waiting)
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<Household, usize>> {
        self.0.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that waits.
struct Waiting {
    limit: ConnectionLimit,
    client: Option<Household>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.limit.0.waiting.fetch_sub(1, Ordering::Relaxed);
        let Some(client) = self.client else { return };
        let mut clients = self.limit.clients();
        match clients.get_mut(&client) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(clients.remove(&client)),
        }
    }
}

/// What bounds the connections to one upstream.
#[derive(Clone)]
pub struct Limited {
    /// All of the process.
    pub process: ConnectionLimit,
    /// Its own.
    pub own: Option<ConnectionLimit>,
}

/// Counts one connection, until it is dropped.
pub struct Permit {
    _process: OwnedSemaphorePermit,
    _own: Option<OwnedSemaphorePermit>,
}

impl Limited {
    /// Room for one connection, on behalf of `client`. Waits; `None` at once where too many wait already.
    pub async fn take(&self, client: Option<IpAddr>) -> Option<Permit> {
        let own = match &self.own {
            Some(own) => Some(own.take(client).await?),
            None => None,
        };
        Some(Permit { _process: self.process.take(client).await?, _own: own })
    }

    /// Whether requests wait for a connection.
    pub fn is_wanted(&self) -> bool {
        self.process.is_wanted() || self.own.as_ref().is_some_and(ConnectionLimit::is_wanted)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_connection_too_many_waits_for_one_that_ends() {
        let limited = Limited { process: ConnectionLimit::new(3), own: Some(ConnectionLimit::new(2)) };
        let other = Limited { process: limited.process.clone(), own: None };
        let client = Some(IpAddr::from([192, 0, 2, 1]));
        let take = |limited: &Limited| poll(pin!(limited.take(client)));
        let first = take(&limited).unwrap().unwrap();
        let _second = take(&limited).unwrap().unwrap();
        let mut third = Box::pin(limited.take(client));
        assert!(poll(third.as_mut()).is_none() && limited.is_wanted() && !other.is_wanted());
        let _fourth = take(&other).unwrap().unwrap();
        let mut fifth = Box::pin(other.take(client));
        assert!(poll(fifth.as_mut()).is_none() && other.is_wanted());
        drop(first);
        assert!(poll(fifth.as_mut()).unwrap().is_some());
        drop((third, fifth));
        assert!(!limited.is_wanted() && limited.process.clients().is_empty());
    }

    #[test]
    fn a_client_has_its_share_of_those_that_wait() {
        let limited = Limited { process: ConnectionLimit::new(0), own: None };
        let mut waiting: Vec<_> = Vec::new();
        for number in 0..WAITING_SHARE + 5 {
            let mut one = Box::pin(limited.take(Some(IpAddr::from([192, 0, 2, 1]))));
            assert_eq!(poll(one.as_mut()).is_some(), number >= WAITING_SHARE, "{number}");
            waiting.push(one);
        }
        let mut other = Box::pin(limited.take(Some(IpAddr::from([192, 0, 2, 2]))));
        assert!(poll(other.as_mut()).is_none());
        drop((waiting, other));
        assert!(!limited.is_wanted() && limited.process.clients().is_empty());
    }
}

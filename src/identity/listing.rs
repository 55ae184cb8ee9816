//! Limits the listings of one subject: those that wait for the store, and those whose response is not yet written.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::message::Rejection;
use crate::model::Household;

/// Listings of one subject at a time.
const PERMITS: usize = 2;

/// Requests of one subject that may wait for a permit.
const WAITERS: usize = 16;

/// How long a request waits for a permit.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(1);

/// `Retry-After` of a request that got no permit.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Whose listings are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Subject {
    /// The account of the caller's token, by its `sub`.
    Account(Arc<str>),
    /// A client without a token, by its address prefix.
    Client(Household),
}

/// Gives each subject two permits. Clones share them; a reload keeps them.
#[derive(Clone, Default)]
pub struct ListingLimiter {
    subjects: Arc<Mutex<HashMap<Subject, Usage>>>,
}

/// The permits of one subject, while a request holds one or waits for one.
struct Usage {
    permits: Arc<Semaphore>,
    /// Requests that hold a permit or wait for one.
    requests: usize,
}

impl ListingLimiter {
    /// Waits for a permit.
    ///
    /// # Errors
    /// `too_many_requests`, after a second, or at once when too many requests of the subject wait already.
    pub(super) async fn acquire(&self, subject: Subject) -> Result<ListingPermit, Rejection> {
        let refused = || Rejection::TooManyRequests(RETRY_AFTER);
        let (permits, entered) = self.enter(subject).ok_or_else(refused)?;
        match tokio::time::timeout(PERMIT_TIMEOUT, permits.acquire_owned()).await {
            Ok(Ok(permit)) => Ok(ListingPermit { _permit: permit, _entered: entered }),
            Ok(Err(_)) | Err(_) => Err(refused()),
        }
    }

    /// Counts a request in; `None` when too many wait already.
    fn enter(&self, subject: Subject) -> Option<(Arc<Semaphore>, Entered)> {
        let mut subjects = self.lock();
        let usage = subjects
            .entry(subject.clone())
            .or_insert_with(|| Usage { permits: Arc::new(Semaphore::new(PERMITS)), requests: 0 });
        if usage.requests >= PERMITS + WAITERS {
            return None;
        }
        usage.requests += 1;
        Some((Arc::clone(&usage.permits), Entered { limiter: self.clone(), subject }))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Subject, Usage>> {
        self.subjects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is counted until this is dropped.
struct Entered {
    limiter: ListingLimiter,
    subject: Subject,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut subjects = self.limiter.lock();
        let Entry::Occupied(mut usage) = subjects.entry(self.subject.clone()) else { return };
        usage.get_mut().requests -= 1;
        if usage.get().requests == 0 {
            usage.remove();
        }
    }
}

/// Allows one listing until this is dropped.
pub(super) struct ListingPermit {
    // Fields are dropped in this order: the permit is free again before its request is counted out.
    _permit: OwnedSemaphorePermit,
    _entered: Entered,
}

impl ListingPermit {
    /// Bytes that keep the permit until they are written, or dropped with their connection.
    pub fn keep_with(self, bytes: Vec<u8>) -> Bytes {
        Bytes::from_owner(PermittedBytes { bytes, _permit: self })
    }
}

/// A response body, and the permit that it holds.
struct PermittedBytes {
    bytes: Vec<u8>,
    _permit: ListingPermit,
}

impl AsRef<[u8]> for PermittedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::*;

    fn alice() -> Subject {
        Subject::Account("alice".into())
    }

    fn requests(limiter: &ListingLimiter, subject: &Subject) -> usize {
        limiter.lock().get(subject).map_or(0, |usage| usage.requests)
    }

    /// Whether a request is refused, with a Retry-After of one second.
    fn is_refused(result: &Result<ListingPermit, Rejection>) -> bool {
        matches!(result, Err(Rejection::TooManyRequests(RETRY_AFTER)))
    }

    #[tokio::test]
    async fn each_subject_has_two_permits_of_its_own() {
        let limiter = ListingLimiter::default();
        let household = |address: &str| Subject::Client(Household::of(address.parse().unwrap()));
        let mut held = Vec::new();
        for subject in [alice(), Subject::Account("192.0.2.1".into()), household("192.0.2.1"), household("2001:db8::1")]
        {
            for _ in 0..PERMITS {
                held.push(tokio::time::timeout(PERMIT_TIMEOUT / 10, limiter.acquire(subject.clone())).await.unwrap());
            }
        }
        assert!(held.iter().all(Result::is_ok));
        assert!(is_refused(&limiter.acquire(household("2001:db8::2")).await), "the same /64");
        drop(held);
        assert!(limiter.lock().is_empty());
    }

    #[tokio::test]
    async fn a_permit_lasts_as_long_as_the_bytes() {
        let limiter = ListingLimiter::default();
        let _first = limiter.acquire(alice()).await.unwrap();
        let mut bytes = limiter.acquire(alice()).await.unwrap().keep_with(b"[1,2]".to_vec());
        assert_eq!(bytes.split_to(2), "[1");
        assert!(is_refused(&limiter.acquire(alice()).await), "the rest is not written");
        assert_eq!(bytes, ",2]");
        drop(bytes);
        assert!(limiter.acquire(alice()).await.is_ok());
    }

    #[tokio::test]
    async fn a_waiting_request_gets_the_next_permit() {
        let limiter = ListingLimiter::default();
        let held = [limiter.acquire(alice()).await.unwrap(), limiter.acquire(alice()).await.unwrap()];
        let waiting = tokio::spawn({
            let limiter = limiter.clone();
            async move { limiter.acquire(alice()).await }
        });
        while requests(&limiter, &alice()) < 3 {
            tokio::task::yield_now().await;
        }
        drop(held);
        let permit = waiting.await.unwrap().unwrap();
        assert_eq!(requests(&limiter, &alice()), 1);
        drop(permit);
        assert!(limiter.lock().is_empty());
    }

    #[tokio::test]
    async fn sixteen_requests_wait_and_give_up_after_a_second() {
        let limiter = ListingLimiter::default();
        let held = [limiter.acquire(alice()).await.unwrap(), limiter.acquire(alice()).await.unwrap()];
        let mut waiting = JoinSet::new();
        for _ in 0..WAITERS {
            let limiter = limiter.clone();
            waiting.spawn(async move { limiter.acquire(alice()).await });
        }
        while requests(&limiter, &alice()) < PERMITS + WAITERS {
            tokio::task::yield_now().await;
        }
        let at_once = tokio::time::timeout(PERMIT_TIMEOUT / 10, limiter.acquire(alice())).await;
        assert!(is_refused(&at_once.unwrap()), "one more does not wait");
        assert!(waiting.join_all().await.iter().all(is_refused));
        assert_eq!(requests(&limiter, &alice()), PERMITS);
        drop(held);
        assert!(limiter.lock().is_empty());
    }

    #[tokio::test]
    async fn a_dropped_waiter_leaves_its_place() {
        let limiter = ListingLimiter::default();
        let held = [limiter.acquire(alice()).await.unwrap(), limiter.acquire(alice()).await.unwrap()];
        for _ in 0..WAITERS * 2 {
            let waiter = tokio::time::timeout(Duration::from_millis(1), limiter.acquire(alice()));
            assert!(waiter.await.is_err(), "it got an answer");
        }
        assert_eq!(requests(&limiter, &alice()), PERMITS);
        drop(held);
        assert!(limiter.acquire(alice()).await.is_ok(), "no permit is lost");
        assert!(limiter.lock().is_empty());
    }
}

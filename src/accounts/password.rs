//! Password hashes: argon2id on threads of its own, with a bounded queue, so that a login storm starves nobody.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Instant;

use argon2::password_hash::phc::{Ident, Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use tokio::sync::oneshot;

use crate::accounts::hash_queue::{Queue, Refused};
use crate::accounts::legacy::Legacy;
use crate::clock;
use crate::config;
use crate::model::Household;
use crate::secret::Secret;

/// Jobs that may wait for each thread: about half a second with the default parameters, and more where old hashes are
/// left or the parameters are high.
const QUEUE_PER_THREAD: usize = 32;

/// The part of the queue that one address may hold.
const SHARE: usize = 4;

/// How much the threads yield to those that forward requests (see nice(2)).
const NICENESS: i32 = 10;

/// Why there is no hash, or no verdict.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The queue is full, or moves so slowly that the turn came too late.
    #[error("too many passwords are waiting to be hashed")]
    Busy,
    /// The address has its share of the queue.
    #[error("too many passwords of this address are waiting to be hashed")]
    Crowded,
    /// Nobody cared for the verdict any more when its turn came.
    #[error("nobody waits for the verdict any more")]
    Abandoned,
    /// The threads are gone, because the program ends.
    #[error("the hashing threads have ended")]
    Ended,
    /// The parameters or the stored hash are not usable.
    #[error("argon2: {0}")]
    Argon2(argon2::Error),
    /// A stored hash is of no kind that is known.
    #[error("a stored password hash cannot be read")]
    Unreadable,
    /// A thread could not be started.
    #[error("a hashing thread could not be started")]
    Start(#[source] std::io::Error),
}

/// What a password turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not the one of the hash, or there was no hash.
    Wrong,
    /// The one of the hash, which was made with the current parameters.
    Right,
    /// The one of the hash, which deserves to be made anew.
    RightButOutdated,
}

enum Job {
    Hash { password: Secret, reply: oneshot::Sender<Result<Secret, Error>> },
    Verify { password: Secret, stored: Stored, asker: Weak<Asker>, reply: oneshot::Sender<Result<Verdict, Error>> },
}

/// A job in the queue.
struct Waiting {
    job: Job,
    deadline: Instant,
    _place: Option<Place>,
}

/// Stands for someone who waits for a verdict, as long as it lives.
#[derive(Default)]
pub struct Asker;

/// What the store has for a name that logs in.
#[derive(Default)]
pub struct Stored {
    /// The account's hash; `None` when there is no account that may log in.
    pub hash: Option<Secret>,
    /// Some hash that another program made, while there is one: the same for the same name.
    pub old: Option<Secret>,
}

/// How many places of the queue each address holds.
#[derive(Clone, Default)]
struct Crowd(Arc<Mutex<HashMap<Household, usize>>>);

/// A place in the queue, held until it is dropped.
struct Place {
    crowd: Crowd,
    of: Household,
}

impl Crowd {
    fn places(&self) -> MutexGuard<'_, HashMap<Household, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place, unless there are `most` already.
    fn enter(&self, of: Household, most: usize) -> Option<Place> {
        let mut places = self.places();
        let held = places.get(&of).copied().unwrap_or_default();
        if held >= most {
            return None;
        }
        places.insert(of, held + 1);
        Some(Place { crowd: self.clone(), of })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.crowd.places();
        match places.get(&self.of).copied() {
            Some(held) if held > 1 => places.insert(self.of, held - 1),
            Some(_) | None => places.remove(&self.of),
        };
    }
}

/// The front of the hashing threads.
#[derive(Clone)]
pub struct Hasher {
    front: Arc<Front>,
    crowd: Crowd,
    /// Places that one address may hold.
    share: usize,
    client: Option<Household>,
    is_first: bool,
}

/// The queue, closed when the last front is dropped.
struct Front(Arc<Queue<Waiting>>);

impl Drop for Front {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Hasher {
    /// Starts `threads` threads, each of which keeps its own block of memory.
    ///
    /// # Errors
    /// [`Error::Argon2`] for parameters that argon2 refuses, [`Error::Start`].
    pub fn start(parameters: config::Argon2, threads: usize) -> Result<Self, Error> {
        let threads = threads.max(1);
        let params = Params::new(parameters.memory_kib, parameters.iterations, parameters.parallelism, None)
            .map_err(Error::Argon2)?;
        let queue = Queue::new(threads * QUEUE_PER_THREAD);
        for index in 0..threads {
            let mut bench = Bench { params: params.clone(), memory: Vec::new() };
            let jobs = Arc::clone(&queue);
            let thread = thread::Builder::new().name(format!("argon2-{index}"));
            thread.spawn(move || bench.work(&jobs)).map_err(Error::Start)?;
        }
        let share = threads * QUEUE_PER_THREAD / SHARE;
        Ok(Self { front: Arc::new(Front(queue)), crowd: Crowd::default(), share, client: None, is_first: false })
    }

    /// The same threads, for someone at an address, who may have a quarter of the queue.
    pub fn on_behalf_of(&self, address: IpAddr) -> Self {
        Self { client: Some(Household::of(address)), ..self.clone() }
    }

    /// The same threads, for a login from where the account was entered before: a quarter of the queue is kept for these.
    pub fn first(&self) -> Self {
        Self { is_first: true, ..self.clone() }
    }

    /// The PHC string of a new password.
    ///
    /// # Errors
    /// [`Error::Busy`] when the queue is full, or the turn comes after `deadline`; [`Error::Crowded`] when the address has
    /// its share.
    pub async fn hash(&self, password: Secret, deadline: Instant) -> Result<Secret, Error> {
        let (reply, answer) = oneshot::channel();
        self.enqueue(Job::Hash { password, reply }, deadline)?;
        answer.await.map_err(|_| Error::Ended)?
    }

    /// Compares a password with a stored hash. Where it is wrong, or there is none, the time must not tell which it was:
    /// a current hash is computed either way, and an old one too while any account still has one.
    ///
    /// # Errors
    /// [`Error::Busy`] and [`Error::Crowded`] as above, [`Error::Abandoned`] when the asker was gone before it was begun,
    /// [`Error::Unreadable`] for a stored hash of another kind.
    pub async fn verify(
        &self,
        password: Secret,
        stored: Stored,
        (asker, deadline): (Weak<Asker>, Instant),
    ) -> Result<Verdict, Error> {
        let (reply, answer) = oneshot::channel();
        self.enqueue(Job::Verify { password, stored, asker, reply }, deadline)?;
        answer.await.map_err(|_| Error::Ended)?
    }

    fn enqueue(&self, job: Job, deadline: Instant) -> Result<(), Error> {
        let place = match self.client {
            Some(client) => Some(self.crowd.enter(client, self.share).ok_or(Error::Crowded)?),
            None => None,
        };
        let waiting = Waiting { job, deadline, _place: place };
        self.front.0.push(waiting, self.is_first).map_err(|refused| match refused {
            Refused::Full => Error::Busy,
            Refused::Ended => Error::Ended,
        })
    }
}

/// One thread's workplace.
struct Bench {
    params: Params,
    /// Kept between hashes: fresh memory costs as much again as the hash.
    memory: Vec<Block>,
}

impl Bench {
    fn work(&mut self, jobs: &Queue<Waiting>) {
        // A kernel that refuses leaves the threads as eager as the others, which is slower but not wrong.
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICENESS);
        while let Some(Waiting { job, deadline, _place: place }) = jobs.pop() {
            // A job that is done holds no place any more.
            drop(place);
            self.serve(job, clock::monotonic() > deadline);
        }
    }

    /// Does what was asked for, unless it comes too late. Who went away while waiting needs no hash either.
    fn serve(&mut self, job: Job, late: bool) {
        match job {
            Job::Hash { reply, .. } if reply.is_closed() => {}
            Job::Hash { password, reply } => {
                let _ = reply.send(if late { Err(Error::Busy) } else { self.hash(&password) });
            }
            Job::Verify { password, stored, asker, reply } => {
                let _ = reply.send(if asker.strong_count() == 0 {
                    Err(Error::Abandoned)
                } else if late {
                    Err(Error::Busy)
                } else {
                    self.verify(&password, &stored)
                });
            }
        }
    }

    fn compute(&mut self, params: &Params, password: &Secret, salt: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let blocks = params.block_count();
        if self.memory.len() < blocks {
            self.memory.resize(blocks, Block::new());
        }
        let memory = self.memory.get_mut(..blocks).unwrap_or_default();
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone())
            .hash_password_into_with_memory(password.expose(), salt, out, memory)
            .map_err(Error::Argon2)
    }

    fn hash(&mut self, password: &Secret) -> Result<Secret, Error> {
        let params = self.params.clone();
        let salt = Salt::generate();
        let mut out = [0; Params::DEFAULT_OUTPUT_LEN];
        self.compute(&params, password, &salt, &mut out)?;
        let phc = PasswordHash {
            algorithm: Ident::new("argon2id").map_err(|_| Error::Unreadable)?,
            version: Some(Version::V0x13.into()),
            params: ParamsString::try_from(&params).map_err(|_| Error::Unreadable)?,
            salt: Some(salt),
            hash: Some(Output::new(&out).map_err(|_| Error::Unreadable)?),
        };
        Ok(Secret::new(phc.to_string()))
    }

    fn verify(&mut self, password: &Secret, stored: &Stored) -> Result<Verdict, Error> {
        let Some(hash) = &stored.hash else {
            self.hash(password)?;
            return Ok(reject(password, stored));
        };
        let text = std::str::from_utf8(hash.expose()).map_err(|_| Error::Unreadable)?;
        if text.starts_with("$argon2") {
            return Ok(match self.verify_argon2(password, text)? {
                Verdict::Wrong => reject(password, stored),
                right @ (Verdict::Right | Verdict::RightButOutdated) => right,
            });
        }
        if Legacy::parse(text).map_err(|_| Error::Unreadable)?.verify(password) {
            return Ok(Verdict::RightButOutdated);
        }
        self.hash(password)?;
        Ok(Verdict::Wrong)
    }

    fn verify_argon2(&mut self, password: &Secret, text: &str) -> Result<Verdict, Error> {
        let phc = PasswordHash::new(text).map_err(|_| Error::Unreadable)?;
        let (Some(salt), Some(stored)) = (phc.salt, phc.hash) else { return Err(Error::Unreadable) };
        let argon2id = phc.algorithm.as_str() == "argon2id" && phc.version == Some(Version::V0x13.into());
        let params = Params::try_from(&phc).map_err(|_| Error::Unreadable)?;
        if !argon2id {
            return Err(Error::Unreadable);
        }
        let mut out = vec![0; stored.len()];
        self.compute(&params, password, &salt, &mut out)?;
        let right = aws_lc_rs::constant_time::verify_slices_are_equal(&out, stored.as_bytes()).is_ok();
        let current = params.m_cost() == self.params.m_cost()
            && params.t_cost() == self.params.t_cost()
            && params.p_cost() == self.params.p_cost();
        if !right && !current {
            self.make_up_for(&params, password)?;
        }
        Ok(match (right, current) {
            (false, _) => Verdict::Wrong,
            (true, true) => Verdict::Right,
            (true, false) => Verdict::RightButOutdated,
        })
    }

    /// An unknown name costs a hash with the current parameters; so must a known one whose hash is older, and cost less.
    fn make_up_for(&mut self, older: &Params, password: &Secret) -> Result<(), Error> {
        let work = |params: &Params| u64::from(params.m_cost()) * u64::from(params.t_cost());
        let (passes, lanes) = (self.params.t_cost(), self.params.p_cost());
        let missing = work(&self.params).saturating_sub(work(older)) / u64::from(passes);
        let memory = u32::try_from(missing).unwrap_or(u32::MAX);
        // What is too little for a hash is not felt.
        let Ok(params) = Params::new(memory, passes, lanes, None) else { return Ok(()) };
        let mut out = [0; Params::DEFAULT_OUTPUT_LEN];
        self.compute(&params, password, &Salt::generate(), &mut out)
    }
}

/// Wrong, after the work that an account with an old hash would have cost beside the current one: else the time would
/// tell which names were imported and have not logged in yet. Where old hashes of several costs are left, each name has one
/// of them, and costs what an account of that kind would.
fn reject(password: &Secret, stored: &Stored) -> Verdict {
    let old = stored.old.as_ref().and_then(|old| std::str::from_utf8(old.expose()).ok());
    if let Some(old) = old.and_then(|text| Legacy::parse(text).ok()) {
        old.verify(password);
    }
    Verdict::Wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: config::Argon2 = config::Argon2 { memory_kib: 64, iterations: 1, parallelism: 1 };

    fn soon() -> Instant {
        clock::monotonic() + std::time::Duration::from_secs(4)
    }

    fn secret(text: &str) -> Secret {
        Secret::new(text)
    }

    fn stored(hash: &Secret) -> Stored {
        Stored { hash: Some(hash.clone()), old: None }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_hash_knows_its_password_and_its_parameters() {
        let old = Hasher::start(CHEAP, 1).unwrap();
        let new = Hasher::start(config::Argon2 { iterations: 2, ..CHEAP }, 1).unwrap();
        let hash = old.hash(secret("correct horse"), soon()).await.unwrap();
        assert!(hash.expose().starts_with(b"$argon2id$v=19$m=64,t=1,p=1$"));
        let asker = Arc::new(Asker);
        let verify = async |hasher: &Hasher, password| {
            hasher.verify(secret(password), stored(&hash), (Arc::downgrade(&asker), soon())).await.unwrap()
        };
        assert_eq!(verify(&old, "correct horse").await, Verdict::Right);
        assert_eq!(verify(&new, "correct horse").await, Verdict::RightButOutdated);
        assert_eq!(verify(&new, "wrong horse").await, Verdict::Wrong);
        let unknown = old.verify(secret("x"), Stored::default(), (Arc::downgrade(&asker), soon())).await;
        assert_eq!(unknown.unwrap(), Verdict::Wrong);
        drop(asker);
        let abandoned = old.verify(secret("correct horse"), stored(&hash), (Weak::new(), soon())).await;
        assert!(matches!(abandoned, Err(Error::Abandoned)), "{abandoned:?}");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_stored_hash_of_another_kind_is_an_error() {
        let hasher = Hasher::start(CHEAP, 1).unwrap();
        for hash in ["", "plain", "$argon2i$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo"] {
            let asker = Arc::new(Asker);
            let verdict = hasher.verify(secret("x"), stored(&secret(hash)), (Arc::downgrade(&asker), soon())).await;
            assert!(matches!(verdict, Err(Error::Unreadable)), "{hash:?}: {verdict:?}");
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_full_queue_refuses() {
        let hasher = Hasher::start(config::Argon2 { memory_kib: 8192, iterations: 4, parallelism: 1 }, 1).unwrap();
        let jobs: Vec<_> = (0..100).map(|_| hasher.hash(secret("x"), soon())).collect();
        let mut busy = 0;
        let local = tokio::task::LocalSet::new();
        let tasks: Vec<_> = jobs
            .into_iter()
            .map(|job| {
                let job = job;
                Box::pin(job)
            })
            .collect();
        let mut waiting = Vec::new();
        for mut task in tasks {
            match futures_poll(&mut task).await {
                Some(Err(Error::Busy)) => busy += 1,
                _ => waiting.push(task),
            }
        }
        drop(local);
        assert!(busy >= 100 - QUEUE_PER_THREAD - 2, "{busy} of 100 refused");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn who_has_waited_too_long_is_told_so_instead() {
        // So many of these take more than twice as long as anybody is to wait.
        let slow = config::Argon2 { memory_kib: 64 * 1024, iterations: 20, parallelism: 1 };
        let hasher = Hasher::start(slow, 1).unwrap();
        let asker = Arc::new(Asker);
        let mut verdicts: Vec<_> = (1..QUEUE_PER_THREAD * 3 / 4)
            .map(|_| Box::pin(hasher.verify(secret("x"), Stored::default(), (Arc::downgrade(&asker), soon()))))
            .collect();
        for verdict in &mut verdicts {
            assert!(futures_poll(verdict).await.is_none(), "there is room for all of them");
        }
        let last = hasher.hash(secret("x"), soon()).await;
        assert!(matches!(last, Err(Error::Busy)), "{last:?}");
        let (mut wrong, mut busy) = (0, 0);
        for verdict in verdicts {
            match verdict.await {
                Ok(Verdict::Wrong) => wrong += 1,
                Err(Error::Busy) => busy += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(wrong > 0 && busy > 0, "{wrong} judged, {busy} busy");
        let hash = hasher.hash(secret("x"), soon()).await;
        assert!(hash.is_ok(), "and then there is room again: {hash:?}");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn an_address_has_a_quarter_of_the_queue() {
        let hasher = Hasher::start(config::Argon2 { memory_kib: 8192, iterations: 4, parallelism: 1 }, 1).unwrap();
        let ask = |address: &str| {
            let hasher = hasher.on_behalf_of(address.parse().unwrap());
            Box::pin(async move { hasher.hash(secret("x"), soon()).await })
        };
        let mut waiting = Vec::new();
        let mut taken = |address: &'static str| {
            let mut tasks: Vec<_> = (0..20).map(|_| ask(address)).collect();
            let mut taken = 0;
            for mut task in tasks.drain(..) {
                let polled = task.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
                match polled {
                    std::task::Poll::Ready(Err(Error::Crowded)) => {}
                    std::task::Poll::Ready(other) => panic!("{other:?}"),
                    std::task::Poll::Pending => {
                        taken += 1;
                        waiting.push(task);
                    }
                }
            }
            taken
        };
        let share = QUEUE_PER_THREAD / SHARE;
        // One or two have had their turn meanwhile.
        for address in ["192.0.2.1", "192.0.2.2", "2001:db8::1"] {
            let taken = taken(address);
            assert!((share..share + 3).contains(&taken), "{taken} of {address}");
        }
        assert!(taken("2001:db8::2") < 3, "the same household");
        for task in waiting {
            task.await.unwrap();
        }
        assert!(hasher.crowd.places().is_empty(), "places were not given back");
    }

    /// Polls once.
    async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        std::future::poll_fn(|cx| {
            std::task::Poll::Ready(match std::pin::Pin::new(&mut *future).poll(cx) {
                std::task::Poll::Ready(output) => Some(output),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }
}

//! The blocklist: the exact set of live revocations in memory, expiring, never evicted for room.
//!
//! An entry leaves when its time is over and the wall clock can be trusted. Until then it counts: the tokens that it ends
//! have expired by the same clock. So no look-up asks what time it is.
//!
//! moka holds it in groups of those whose keys begin alike: an entry of its own costs moka some 350 bytes, a place in a
//! group 28. A group leaves with its last revocation.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::sync::Cache;

use crate::clock::{self, Steadiness, UnixTime};
use crate::model::Generation;
use crate::store::{Key, Revocation};

/// For how long the clocks must have agreed before what has expired by the wall clock may be forgotten.
const STEADY_TIME: Duration = Duration::from_secs(3600);

/// The keys of one token, computed once when it is first seen.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    /// Of its `jti`.
    pub token: Key,
    /// Of its `sid`.
    pub session: Option<Key>,
    /// Of its `sub`.
    pub subject: Key,
}

/// When a token was made, as far as it tells: what a revocation of its subject is compared with.
#[derive(Clone, Copy, Debug)]
pub struct Birth {
    /// `gen`.
    pub generation: Option<Generation>,
    /// `iat`, for tokens without `gen`.
    pub issued: Option<UnixTime>,
}

/// One revocation. Times are whole seconds, rounded to the strict side.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    key: Key,
    generation: Generation,
    at: u32,
    keep_until: u32,
}

/// Revocations whose keys begin with the same two bytes, in the order of their keys.
struct Group {
    entries: Box<[Entry]>,
    /// How long the last of them lives from when the group was made.
    life: Duration,
}

/// See the module.
#[derive(Clone)]
pub struct Blocklist {
    groups: Cache<u16, Arc<Group>, ahash::RandomState>,
    /// Grows with every change, after it is in.
    version: Arc<AtomicU64>,
    steadiness: Arc<Steadiness>,
}

/// The present, on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The clock of the times in entries.
    pub wall: UnixTime,
    /// What moka waits by.
    pub monotonic: Instant,
}

impl Now {
    /// Reads both.
    pub fn read() -> Self {
        Self { wall: clock::now(), monotonic: clock::monotonic() }
    }
}

/// The version at which a token was last found not to be revoked; 0 is never.
#[derive(Debug, Default)]
pub struct Clean(AtomicU64);

impl Blocklist {
    /// Nothing revoked. The clocks are compared from `now` on.
    pub fn empty(now: Now) -> Self {
        let steadiness = Arc::new(Steadiness::new(now.wall, now.monotonic));
        let groups = Cache::builder().expire_after(OwnLife).build_with_hasher(ahash::RandomState::new());
        Self { groups, version: Arc::new(AtomicU64::new(1)), steadiness }
    }

    /// Takes a revocation in. Repeating one is harmless, and of two about one key the stricter counts.
    pub fn insert(&self, revocation: &Revocation, now: Now) {
        self.extend(vec![Entry::of(revocation)], now);
    }

    /// Takes many in; a group is made anew once for all of them that belong to it.
    pub fn extend(&self, mut entries: Vec<Entry>, now: Now) {
        self.watch_clock(now);
        let grace = self.grace(now);
        entries.sort_unstable_by_key(|entry| entry.key.0);
        for fresh in entries.chunk_by(|a, b| group_of(&a.key) == group_of(&b.key)) {
            if let Some(first) = fresh.first() {
                let slot = self.groups.entry(group_of(&first.key));
                slot.and_upsert_with(|old| {
                    let old = old.map(moka::Entry::into_value);
                    Arc::new(Group::joined(old.as_ref().map_or(&[], |old| &old.entries), fresh, now.wall, grace))
                });
            }
        }
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Whether the token is revoked: by its id, its session, or its subject's generation.
    fn revokes(&self, keys: &Keys, birth: Birth, leeway: Duration) -> bool {
        self.find(&keys.token).is_some()
            || keys.session.is_some_and(|session| self.find(&session).is_some())
            || self.find(&keys.subject).is_some_and(|entry| entry.revokes(birth, leeway))
    }

    /// Whether the token is revoked, looked up only when something has come in since `clean` was noted. Exact: who reads a
    /// version sees every entry that it counts.
    pub fn revokes_since(&self, clean: &Clean, keys: &Keys, birth: Birth, leeway: Duration) -> bool {
        let version = self.version.load(Ordering::Acquire);
        if clean.0.load(Ordering::Relaxed) == version {
            return false;
        }
        let revoked = self.revokes(keys, birth, leeway);
        if !revoked {
            clean.0.store(version, Ordering::Relaxed);
        }
        revoked
    }

    fn find(&self, key: &Key) -> Option<Entry> {
        let group = self.groups.get(&group_of(key))?;
        let index = group.entries.binary_search_by_key(&key.0, |entry| entry.key.0).ok()?;
        group.entries.get(index).copied()
    }

    /// Whether there is an entry of that key.
    #[cfg(test)]
    pub fn has(&self, key: &Key) -> bool {
        self.find(key).is_some()
    }

    /// For how long an entry must stay beyond its time: until the clocks have agreed for an hour.
    fn grace(&self, now: Now) -> Duration {
        STEADY_TIME.saturating_sub(self.steadiness.lasts(now.monotonic))
    }

    /// Whether what has expired may be forgotten.
    pub fn may_forget(&self, now: Now) -> bool {
        self.watch_clock(now);
        self.grace(now).is_zero()
    }

    /// Compares the clocks. When the wall clock was set, every group gets another life.
    pub fn watch_clock(&self, now: Now) {
        if !self.steadiness.observe(now.wall, now.monotonic) {
            return;
        }
        tracing::warn!(now = %now.wall, "the clock was set; what has expired is kept until it runs steadily for an hour");
        let grace = self.grace(now);
        for (group, _) in &self.groups {
            // As an entry of its own, because others may come in meanwhile.
            self.groups.entry(*group).and_upsert_with(|old| {
                let old = old.map(moka::Entry::into_value);
                Arc::new(Group::joined(old.as_ref().map_or(&[], |old| &old.entries), &[], now.wall, grace))
            });
        }
    }

    /// Lets moka do its housekeeping: expiry, and the queues that inserts leave.
    pub fn maintain(&self) {
        self.groups.run_pending_tasks();
    }

    /// How many revocations there are.
    pub fn count(&self) -> u64 {
        self.groups.iter().map(|(_, group)| group.entries.len() as u64).sum()
    }
}

/// Keys are uniform (SHA-256), so their first bytes are too.
fn group_of(key: &Key) -> u16 {
    let [first, second, ..] = key.0;
    u16::from_be_bytes([first, second])
}

impl Group {
    /// What lives of `old`, and `fresh`, which is in the order of keys too. `grace` is how long an entry stays beyond its
    /// time.
    fn joined(old: &[Entry], fresh: &[Entry], now: UnixTime, grace: Duration) -> Self {
        let mut entries: Vec<Entry> = Vec::with_capacity(old.len() + fresh.len());
        entries.extend(old.iter().chain(fresh).filter(|entry| !grace.is_zero() || entry.is_live(now)));
        // Stable, so that equal keys stand side by side; already sorted but for `fresh`.
        entries.sort_by_key(|entry| entry.key.0);
        entries.dedup_by(|later, earlier| {
            let same = later.key == earlier.key;
            if same {
                *earlier = earlier.stricter(*later);
            }
            same
        });
        let last = entries.iter().map(|entry| entry.keep_until).max().unwrap_or(0);
        let life = UnixTime::from_secs(i64::from(last)).since(now) + grace;
        Self { entries: entries.into(), life }
    }
}

impl Entry {
    /// What is kept of a revocation.
    pub fn of(revocation: &Revocation) -> Self {
        let Revocation { key, generation, at, keep_until, .. } = *revocation;
        Self { key, generation, at: ceiling(at), keep_until: ceiling(keep_until) }
    }

    fn is_live(&self, now: UnixTime) -> bool {
        i64::from(self.keep_until) > now.secs()
    }

    fn stricter(self, other: Self) -> Self {
        Self {
            key: self.key,
            generation: self.generation.max(other.generation),
            at: self.at.max(other.at),
            keep_until: self.keep_until.max(other.keep_until),
        }
    }

    /// For the revocation of a subject: whether a token of that birth is among those it means.
    pub fn revokes(&self, birth: Birth, leeway: Duration) -> bool {
        let end = UnixTime::from_secs(i64::from(self.at)) + leeway;
        match birth.generation {
            Some(generation) => generation < self.generation,
            None => birth.issued.is_none_or(|issued| issued <= end),
        }
    }
}

/// Seconds since the epoch, rounded up; the ends of the range stand for what lies beyond them.
fn ceiling(time: UnixTime) -> u32 {
    let seconds = time.millis().div_euclid(1000) + i64::from(time.millis().rem_euclid(1000) > 0);
    u32::try_from(seconds.max(0)).unwrap_or(u32::MAX)
}

/// moka asks for a group's life whenever it is made anew.
struct OwnLife;

impl Expiry<u16, Arc<Group>> for OwnLife {
    fn expire_after_create(&self, _: &u16, group: &Arc<Group>, _: Instant) -> Option<Duration> {
        Some(group.life)
    }

    fn expire_after_update(&self, _: &u16, group: &Arc<Group>, _: Instant, _: Option<Duration>) -> Option<Duration> {
        Some(group.life)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Kind;

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
    const HOUR: Duration = Duration::from_secs(3600);

    fn revocation(key: Key, generation: u32, keep: Duration) -> Revocation {
        Revocation { key, kind: Kind::Token, generation: Generation(generation), at: NOW, keep_until: NOW + keep }
    }

    fn keys(number: usize) -> Keys {
        Keys { token: Key::token(None, &number.to_string()), session: None, subject: Key::subject(None, "alice") }
    }

    fn revokes(list: &Blocklist, keys: &Keys, generation: Option<u32>) -> bool {
        let birth = Birth { generation: generation.map(Generation), issued: Some(NOW) };
        list.revokes(keys, birth, Duration::from_secs(30))
    }

    fn now() -> Now {
        Now { wall: NOW, monotonic: clock::monotonic() }
    }

    /// The present, so much later on both clocks.
    fn later(now: Now, passed: Duration) -> Now {
        Now { wall: now.wall + passed, monotonic: now.monotonic + passed }
    }

    #[test]
    fn exactly_what_came_in_is_revoked() {
        let list = Blocklist::empty(now());
        let entries = (0..20_000).map(|n| Entry::of(&revocation(keys(n).token, 0, HOUR))).collect();
        list.extend(entries, now());
        (20_000..21_000).for_each(|n| list.insert(&revocation(keys(n).token, 0, HOUR), now()));
        for number in 0..42_000 {
            assert_eq!(revokes(&list, &keys(number), Some(0)), number < 21_000, "{number}");
        }
        assert_eq!(list.count(), 21_000);
    }

    #[test]
    fn an_entry_leaves_with_its_own_time_and_not_with_its_neighbours() {
        let start = now();
        let list = Blocklist::empty(start);
        let (short, long) = neighbours();
        list.insert(&revocation(short, 0, 2 * HOUR), start);
        list.insert(&revocation(long, 0, 3 * HOUR), start);
        assert!(revokes(&list, &of(short), Some(0)) && revokes(&list, &of(long), Some(0)));
        list.insert(&revocation(long, 0, 3 * HOUR), later(start, 2 * HOUR + HOUR / 60));
        assert!(!revokes(&list, &of(short), Some(0)) && revokes(&list, &of(long), Some(0)));
        assert_eq!(list.count(), 1, "what is over leaves when its group is made anew");
    }

    #[test]
    fn nothing_leaves_before_the_clocks_have_agreed_for_an_hour() {
        let start = now();
        let list = Blocklist::empty(start);
        let (over, other) = neighbours();
        // A gateway that starts with a clock that runs ahead; then it is put right, and set ahead again.
        let ahead = Now { wall: start.wall + 24 * HOUR, ..start };
        for present in [ahead, start, ahead] {
            list.insert(&revocation(over, 0, HOUR), present);
            list.insert(&revocation(other, 0, 48 * HOUR), present);
            assert!(!list.may_forget(present));
            assert!(revokes(&list, &of(over), Some(0)) && revokes(&list, &of(other), Some(0)));
        }
        list.insert(&revocation(other, 0, 48 * HOUR), later(ahead, HOUR / 2));
        assert!(revokes(&list, &of(over), Some(0)));
        assert!(list.may_forget(later(ahead, HOUR)));
        list.insert(&revocation(other, 0, 48 * HOUR), later(ahead, HOUR));
        assert!(!revokes(&list, &of(over), Some(0)) && revokes(&list, &of(other), Some(0)));
        // Not noticed before a revocation comes in.
        let stepped = Now { wall: ahead.wall + 72 * HOUR, ..later(ahead, 2 * HOUR) };
        list.insert(&revocation(over, 0, HOUR), stepped);
        assert!(revokes(&list, &of(over), Some(0)) && revokes(&list, &of(other), Some(0)));
    }

    /// Two keys of one group.
    fn neighbours() -> (Key, Key) {
        let mut other = [7; 16];
        other[15] = 8;
        (Key([7; 16]), Key(other))
    }

    fn of(token: Key) -> Keys {
        Keys { token, session: None, subject: Key([0; 16]) }
    }

    #[test]
    fn of_two_revocations_of_a_subject_the_stricter_counts() {
        let list = Blocklist::empty(now());
        let subject = Key::subject(None, "alice");
        list.insert(&revocation(subject, 6, HOUR), now());
        list.insert(&revocation(subject, 5, HOUR), now());
        for (generation, revoked) in [(Some(5), true), (Some(6), false), (None, true)] {
            assert_eq!(revokes(&list, &keys(1), generation), revoked, "{generation:?}");
        }
    }

    #[test]
    fn a_clean_token_is_looked_up_again_when_something_came_in() {
        let (list, clean, keys) = (Blocklist::empty(now()), Clean::default(), keys(1));
        let birth = Birth { generation: Some(Generation(0)), issued: None };
        assert!(!list.revokes_since(&clean, &keys, birth, Duration::ZERO));
        assert!(!list.revokes_since(&clean, &keys, birth, Duration::ZERO));
        list.insert(&revocation(keys.token, 0, HOUR), now());
        assert!(list.revokes_since(&clean, &keys, birth, Duration::ZERO));
        assert!(list.revokes_since(&clean, &keys, birth, Duration::ZERO));
    }
}

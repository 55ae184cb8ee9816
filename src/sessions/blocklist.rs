//! The blocklist: the exact set of live revocations in memory, expiring, never evicted for room.
//!
//! moka holds it in groups of those whose keys begin alike: an entry of its own costs moka some 350 bytes, a place in a
//! group 28. A group leaves with its last revocation; one whose time is over counts no more before that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::sync::Cache;

use crate::clock::UnixTime;
use crate::model::Generation;
use crate::store::{Key, Revocation};
use crate::tokens::Moment;

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
}

/// The version at which a token was last found not to be revoked; 0 is never.
#[derive(Debug, Default)]
pub struct Clean(AtomicU64);

impl Blocklist {
    /// Nothing revoked.
    pub fn empty() -> Self {
        let groups = Cache::builder().expire_after(OwnLife).build_with_hasher(ahash::RandomState::new());
        Self { groups, version: Arc::new(AtomicU64::new(1)) }
    }

    /// Takes a revocation in. Repeating one is harmless, and of two about one key the stricter counts.
    pub fn insert(&self, revocation: &Revocation, now: UnixTime) {
        self.extend(vec![Entry::of(revocation)], now);
    }

    /// Takes many in; a group is made anew once for all of them that belong to it.
    pub fn extend(&self, mut entries: Vec<Entry>, now: UnixTime) {
        entries.sort_unstable_by_key(|entry| entry.key.0);
        for fresh in entries.chunk_by(|a, b| group_of(&a.key) == group_of(&b.key)) {
            if let Some(first) = fresh.first() {
                let slot = self.groups.entry(group_of(&first.key));
                slot.and_upsert_with(|old| {
                    let old = old.map(moka::Entry::into_value);
                    Arc::new(Group::joined(old.as_ref().map_or(&[], |old| &old.entries), fresh, now))
                });
            }
        }
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Whether the token is revoked: by its id, its session, or its subject's generation.
    fn revokes(&self, keys: &Keys, birth: Birth, at: Moment) -> bool {
        self.find(&keys.token, at.now).is_some()
            || keys.session.is_some_and(|session| self.find(&session, at.now).is_some())
            || self.find(&keys.subject, at.now).is_some_and(|entry| entry.revokes(birth, at.leeway))
    }

    /// Whether the token is revoked, looked up only when something has come in since `clean` was noted. Exact: who reads a
    /// version sees every entry that it counts.
    pub fn revokes_since(&self, clean: &Clean, keys: &Keys, birth: Birth, at: Moment) -> bool {
        let version = self.version.load(Ordering::Acquire);
        if clean.0.load(Ordering::Relaxed) == version {
            return false;
        }
        let revoked = self.revokes(keys, birth, at);
        if !revoked {
            clean.0.store(version, Ordering::Relaxed);
        }
        revoked
    }

    fn find(&self, key: &Key, now: UnixTime) -> Option<Entry> {
        let group = self.groups.get(&group_of(key))?;
        let index = group.entries.binary_search_by_key(&key.0, |entry| entry.key.0).ok()?;
        group.entries.get(index).copied().filter(|entry| entry.is_live(now))
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
    /// What lives of `old`, and `fresh`, which is in the order of keys too.
    fn joined(old: &[Entry], fresh: &[Entry], now: UnixTime) -> Self {
        let mut entries: Vec<Entry> = Vec::with_capacity(old.len() + fresh.len());
        entries.extend(old.iter().chain(fresh).filter(|entry| entry.is_live(now)));
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
        let life = UnixTime::from_secs(i64::from(last)).since(now);
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
    fn revokes(&self, birth: Birth, leeway: Duration) -> bool {
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

    fn revokes(list: &Blocklist, keys: &Keys, generation: Option<u32>, now: UnixTime) -> bool {
        let birth = Birth { generation: generation.map(Generation), issued: Some(NOW) };
        list.revokes(keys, birth, Moment { now, leeway: Duration::from_secs(30) })
    }

    #[test]
    fn exactly_what_came_in_is_revoked() {
        let list = Blocklist::empty();
        let entries = (0..20_000).map(|n| Entry::of(&revocation(keys(n).token, 0, HOUR))).collect();
        list.extend(entries, NOW);
        (20_000..21_000).for_each(|n| list.insert(&revocation(keys(n).token, 0, HOUR), NOW));
        for number in 0..42_000 {
            assert_eq!(revokes(&list, &keys(number), Some(0), NOW), number < 21_000, "{number}");
        }
        assert_eq!(list.count(), 21_000);
    }

    #[test]
    fn an_entry_ends_with_its_own_time_and_not_with_its_neighbours() {
        let list = Blocklist::empty();
        let (short, long) = (Key([7; 16]), Key([7; 16].map(|byte| byte)));
        let long = Key({
            let mut bytes = long.0;
            bytes[15] = 8;
            bytes
        });
        list.insert(&revocation(short, 0, HOUR), NOW);
        list.insert(&revocation(long, 0, 2 * HOUR), NOW);
        let of = |token| Keys { token, session: None, subject: Key([0; 16]) };
        let later = NOW + HOUR + Duration::from_secs(1);
        assert!(revokes(&list, &of(short), Some(0), NOW) && revokes(&list, &of(long), Some(0), NOW));
        assert!(!revokes(&list, &of(short), Some(0), later) && revokes(&list, &of(long), Some(0), later));
        list.insert(&revocation(long, 0, 2 * HOUR), later);
        assert_eq!(list.count(), 1, "what is over leaves when its group is made anew");
    }

    #[test]
    fn of_two_revocations_of_a_subject_the_stricter_counts() {
        let list = Blocklist::empty();
        let subject = Key::subject(None, "alice");
        list.insert(&revocation(subject, 6, HOUR), NOW);
        list.insert(&revocation(subject, 5, HOUR), NOW);
        for (generation, revoked) in [(Some(5), true), (Some(6), false), (None, true)] {
            assert_eq!(revokes(&list, &keys(1), generation, NOW), revoked, "{generation:?}");
        }
    }

    #[test]
    fn a_clean_token_is_looked_up_again_when_something_came_in() {
        let (list, clean, keys) = (Blocklist::empty(), Clean::default(), keys(1));
        let at = Moment { now: NOW, leeway: Duration::ZERO };
        let birth = Birth { generation: Some(Generation(0)), issued: None };
        assert!(!list.revokes_since(&clean, &keys, birth, at));
        assert!(!list.revokes_since(&clean, &keys, birth, at));
        list.insert(&revocation(keys.token, 0, HOUR), NOW);
        assert!(list.revokes_since(&clean, &keys, birth, at));
        assert!(list.revokes_since(&clean, &keys, birth, at));
    }
}

//! What a running gateway cannot change.

use super::{Config, Listener};
use crate::secret::Secret;

/// The keys that differ between `old`, which the process was started with, and `new`, and take effect only at a restart, in the order of the file.
pub fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let keys = [
        ("server.listen", !same(&old.server.listen, &new.server.listen)),
        ("server.workers", old.server.workers != new.server.workers),
        ("admin.listen", old.admin != new.admin),
        ("log.format", old.log.format != new.log.format),
        ("log.level", old.log.level != new.log.level),
        ("store.url", old.store.location != new.store.location),
        ("store.max_stale", old.store.max_stale != new.store.max_stale),
        ("store.on_stale", old.store.on_stale != new.store.on_stale),
        ("store.encryption_key", !equal(old.store.encryption_key.as_ref(), new.store.encryption_key.as_ref())),
        ("identity.password.argon2", old.identity.password.argon2 != new.identity.password.argon2),
    ];
    keys.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}

/// Whether both are the same listeners, in any order.
fn same(old: &[Listener], new: &[Listener]) -> bool {
    let within = |left: &[Listener], right: &[Listener]| left.iter().all(|listener| right.contains(listener));
    old.len() == new.len() && within(old, new) && within(new, old)
}

fn equal(old: Option<&Secret>, new: Option<&Secret>) -> bool {
    old.map(Secret::expose) == new.map(Secret::expose)
}

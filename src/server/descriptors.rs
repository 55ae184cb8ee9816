//! File descriptors: as many as the system gives, and no more connections than they allow.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{DEFAULT_CONNECTIONS, Limits};

/// For everything else: listeners, the store, log, threads.
const SPARE: usize = 100;

/// Raises the soft limit of this process to the hard one.
pub fn raise() {
    let present = getrlimit(Resource::Nofile);
    if present.current != present.maximum {
        let wanted = Rlimit { current: present.maximum, ..present };
        if let Err(error) = setrlimit(Resource::Nofile, wanted) {
            tracing::warn!(%error, present = ?present.current, "the limit of open files cannot be raised");
        }
    }
}

/// `limits` with as many connections as there are descriptors for; says so when these are fewer.
pub fn fit(limits: Limits) -> Limits {
    let files = getrlimit(Resource::Nofile).current.map(|files| usize::try_from(files).unwrap_or(usize::MAX));
    let connections = files.map_or(limits.connections, |files| limits.connections.min(places(files)));
    let wanted = limits.connections;
    if connections < wanted && wanted == DEFAULT_CONNECTIONS {
        tracing::info!(
            connections,
            files,
            "so many connections are taken, for which there are open files; for more, raise `ulimit -n`"
        );
    } else if connections < wanted {
        let needed = (wanted / 3).saturating_mul(4).saturating_add(SPARE);
        tracing::warn!(
            key = "server.limits.connections",
            files,
            "{wanted} connections need {needed} open files: {connections} are taken; allow more files (ulimit -n, or \
             LimitNOFILE= of systemd), or lower the key"
        );
    }
    Limits { connections, ..limits }
}

/// How many connections `files` descriptors are enough for: every third may have its upstream's beside its own. Most kept
/// connections are idle.
fn places(files: usize) -> usize {
    (files.saturating_sub(SPARE) / 4).saturating_mul(3).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_third_connection_may_take_two() {
        for (files, connections) in [(0, 1), (100, 1), (104, 3), (1024, 693), (20_000, 14_925)] {
            assert_eq!(places(files), connections, "{files}");
        }
    }
}

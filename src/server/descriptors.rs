//! File descriptors: as many as the system gives, and no more connections than they allow.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{DEFAULT_CONNECTIONS, Limits};

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
    let connections =
        files.map_or(limits.connections, |files| limits.connections.min(Limits::connections_within(files)));
    let wanted = limits.connections;
    if connections < wanted && wanted == DEFAULT_CONNECTIONS {
        tracing::info!(
            connections,
            files,
            "so many connections are taken, for which there are open files; for more, raise `ulimit -n`"
        );
    } else if connections < wanted {
        let needed = Limits::files_for(wanted);
        tracing::warn!(
            key = "server.limits.connections",
            files,
            "{wanted} connections need {needed} open files: {connections} are taken; allow more files (ulimit -n, or \
             LimitNOFILE= of systemd), or lower the key"
        );
    }
    Limits { connections, ..limits }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_third_connection_may_take_two() {
        for (files, connections) in [(0, 1), (100, 1), (104, 3), (1024, 693), (20_000, 14_925)] {
            assert_eq!(Limits::connections_within(files), connections, "{files}");
            let limits = Limits { connections: 50_000, per_address: 0, header_bytes: 0, body: 0 };
            let upstreams = limits.upstream_connections_within(files);
            assert!(connections + upstreams + 100 <= files.max(102), "{files}: {upstreams}");
        }
    }
}

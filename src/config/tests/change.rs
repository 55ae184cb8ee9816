//! What a running gateway cannot change.

use super::super::needs_restart;
use super::load;

#[test]
fn keys_that_need_a_restart() {
    let old = "
server: {listen: [127.0.0.1:80, 127.0.0.1:81], workers: 2, tls: {certificates: [{cert: a, key: a}]}}
admin: {listen: 127.0.0.1:9180}
log: {format: text, level: info, access: true}
store: {url: sqlite:a.db, max_stale: 30s, on_stale: refuse, encryption_key: 0123456789abcdef0123456789abcdef}
tokens: {algorithm: HS256}
identity: {registration: open, password: {argon2: {iterations: 2}, min_length: 8}}
upstreams: {app: {servers: [http://h]}}
routes: [{path: /, upstream: app}]
";
    for (from, to, keys) in [
        ("[127.0.0.1:80, 127.0.0.1:81]", "[127.0.0.1:81, {address: 127.0.0.1:80, tls: false}]", vec![]),
        ("[127.0.0.1:80, 127.0.0.1:81]", "[127.0.0.1:80]", vec!["server.listen"]),
        ("[127.0.0.1:80, 127.0.0.1:81]", "[127.0.0.1:80, 127.0.0.1:82]", vec!["server.listen"]),
        ("[127.0.0.1:80, ", "[{address: 127.0.0.1:80, tls: true}, ", vec!["server.listen"]),
        ("81], w", "81], trusted_proxies: [10.0.0.1], w", vec![]),
        ("[127.0.0.1:80, ", "[unix:/run/s, {address: unix:/run/t, proxy_protocol: true}, ", vec!["server.listen"]),
        ("workers: 2", "workers: 3", vec!["server.workers"]),
        ("workers: 2", "workers: 2, limits: {connections: 7}, timeouts: {idle: 1s}", vec![]),
        ("cert: a", "cert: b", vec![]),
        ("127.0.0.1:9180", "null", vec!["admin.listen"]),
        ("format: text", "format: json", vec!["log.format"]),
        ("level: info", "level: warn", vec!["log.level"]),
        ("access: true", "access: false", vec![]),
        ("access: true", "access: true, audit: audit.log", vec![]),
        ("sqlite:a.db", "sqlite:b.db", vec!["store.url"]),
        ("max_stale: 30s", "max_stale: 31s", vec!["store.max_stale"]),
        ("on_stale: refuse", "on_stale: serve", vec!["store.on_stale"]),
        ("6789abcdef}", "6789abcdeg}", vec!["store.encryption_key"]),
        (", encryption_key: 0123456789abcdef0123456789abcdef", "", vec!["store.encryption_key"]),
        ("algorithm: HS256", "algorithm: EdDSA, secret: 0123456789abcdef0123456789abcdef", vec![]),
        ("iterations: 2", "iterations: 3", vec!["identity.password.argon2"]),
        ("min_length: 8", "min_length: 9", vec![]),
        ("min_length: 8", "min_length: 8}, refresh_rotation: {enabled: true", vec![]),
        ("registration: open", "registration: open, attempts: {per_account: 9/m}", vec![]),
        ("registration: open", "registration: open, sessions_per_account: 5", vec![]),
        ("http://h", "https://i", vec![]),
        ("path: /,", "path: /*, auth: public,", vec![]),
        ("format: text, level: info", "format: auto, level: debug", vec!["log.format", "log.level"]),
    ] {
        let new = old.replacen(from, to, 1);
        assert_ne!(new, old, "{from}");
        assert_eq!(needs_restart(&load(old), &load(&new)), keys, "{from} to {to}");
    }
    assert!(needs_restart(&load(old), &load(old)).is_empty());
}

/// A listener changes only in its flag.
#[test]
fn a_flag_of_a_listener_needs_a_restart() {
    let with = |flag: &str| {
        load(&format!(
            "server: {{listen: {{address: unix:/run/s, {flag}: true}}, tls: {{certificates: [{{cert: a, key: a}}]}}}}"
        ))
    };
    assert_eq!(needs_restart(&with("tls"), &with("proxy_protocol")), ["server.listen"]);
}

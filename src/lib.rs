//! Portcullis: a reverse-proxy authentication gateway. It registers, logs in, refreshes and logs out; it enforces
//! `Authorization: Bearer` with an exact blocklist in memory; and it forwards what may pass.
//!
//! # The way of a request
//!
//! ```text
//! socket ─ server/listener ─ doors ─ http1, http2 ─ gate ──┬─ identity/* ── accounts ── store
//!          (pingora: process, (PROXY, (hyper, h2)          │              └ sessions ─ tokens, store
//!           signals, services) TLS)                        └─ upstream/forward ─┬ wire (HTTP/1.1) ─ socket
//!                                                 gate = route → bearer → quota → target └ h2
//! ```
//!
//! # The house, lowest first
//!
//! A module may name only what its row lists; `tests/it/layers.rs` holds the sources against this table.
//!
//! | module | what lives there | may name |
//! |---|---|---|
//! | [`clock`], [`secret`] | the only readers of the clocks; bytes that cannot be printed | |
//! | [`model`] | nouns, parsed on construction | clock, secret |
//! | [`config`] | gateway.yaml as written → a valid `Config`, with every problem at once | model, secret |
//! | [`telemetry`] | log, access log, audit, metrics, ids | config, clock |
//! | [`message`] | bodies, the one credential, the closed list of refusals | model |
//! | [`store`] | accounts, sessions, keys, revocations: durable. All SQL | config, model, secret, clock |
//! | [`tokens`] | pure: sign, verify, claims, key ring, JWKS | config, model, secret, clock |
//! | [`accounts`] | register, authenticate, slow down who guesses; argon2 on its own threads | store, config, model, secret, clock |
//! | [`sessions`] | open, refresh, revoke; `verify` → `Caller`; the blocklist, the key ring and their feed | store, tokens, config, model, clock |
//! | [`identity`] | what the gateway answers itself, one file a verb | accounts, sessions, tokens, message, model, config, clock, secret, telemetry |
//! | [`upstream`] | the exchange with a server: headers, pool, balance, health, tunnels | sessions, message, config, model, telemetry, clock |
//! | [`gate`] | host and path → route → caller → quota → target; CORS | identity, upstream, sessions, message, config, model, clock, telemetry |
//! | [`app`] | the wiring diagram | all above |
//! | [`server`] | the process: listeners, TLS, workers, admin, signals, reload, upgrade | app, gate, message, config, telemetry, clock |
//! | [`cli`] | the program, one file a command | all above |
//!
//! `identity` and `upstream` are siblings that do not know each other.
//!
//! # What swaps at a reload
//!
//! [`app::App`] lives as long as the process: store, blocklist, keys and feed, hashing threads, attempts under way,
//! permits of listings, metrics. An [`app::Edition`] is what one configuration makes: gate, routes, upstreams, sessions' settings. A reload
//! builds the next edition whole and publishes it; each worker takes it up for the requests to come (`server/room`), and a request keeps
//! the one that it began with. What was counted goes over: quotas, the health of servers, kept connections. Which keys
//! sign and whose verify is the process's, not the edition's: the store and other issuers change it meanwhile.
//!
//! # Choices that a reader may wonder about
//!
//! - Upstream connections speak HTTP/1.1 by `upstream/wire` and `upstream/decode`, on httparse, not by hyper's client. It
//!   costs 4 µs a request less (16 against 12, nginx 10.4): the header section is written straight from the client's map,
//!   nothing crosses a channel or a task, and one buffer serves both ways.
//! - HTTP/2 to upstreams is spoken with the h2 crate, not with hyper's client: that hides how many streams a server takes,
//!   and which requests it has handed back.
//! - Listening sockets change hands by our own few lines (`server/handover`), not by pingora's: those give raw descriptors,
//!   which only unsafe code could take, and stop the predecessor even when nobody took them.
//! - Of pingora-load-balancing the selections are used (weights, the ketama ring), not `LoadBalancer`: that may miss the only
//!   healthy server. Its health checks speak no TLS without a crate that is no longer maintained: `upstream/health` is ours.
//! - The route table is a trie of its own, because routes are compared by decoded segments and with backtracking, which
//!   matchit does not offer.
//! - An attempt at a password counts as a failure before it is looked at, so that no two slip through at once. Whoever is
//!   too early only for attempts under way waits for them (`accounts/unsettled`); each is settled by a task that outlives
//!   its client.
//! - The embedded store tells memory of a commit on the writer's thread (`store/sqlite/writer`), before the answer, and not
//!   in the function that asked: that may be dropped at any await. The feed reads what other processes wrote, on a
//!   connection that no client can queue on.
//! - The database file is watched (`store/sqlite/file`): what is committed to a file that no path leads to is lost at the
//!   next start. SQLite must not remove a log by its path then, which may lead to another database's
//!   (`SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE`).
//! - The write-ahead log is watched as well (`store/sqlite/log`). The writer runs the checkpoints, not SQLite within a
//!   commit: a log that was overwritten would be in the main file before it is noticed.
//! - Standard output belongs to one thread (`telemetry/output`), with bounded room for each kind of line: a pipe that is
//!   not read must not stop a worker.
//! - When places run out, a newcomer waits, and each worker closes what gives way (`server/census`, `server/roster`). So do
//!   slow uploads when connections to an upstream run out (`upstream/connection_limit`).
//! - Clients that reset HTTP/2 streams early, and bodies that a server may leave unread, have upstream connections of their
//!   own (`upstream/h2/group`): a server ends a whole connection for one client's sake.
//! - Look-ups in the blocklist ask no clock. An entry leaves when its time is over and wall and monotonic clock have agreed
//!   for an hour ([`clock::Steadiness`]).
//! - Timeouts of connections have no timers: workers keep the time (`server/roster`, `upstream/alarm`) and look ten times
//!   a second for what is overdue.
//!
//! # What always holds
//!
//! - No SQL outside `store`, no HTTP type below `message` (`telemetry` takes bytes), no YAML type outside `config`.
//! - A [`sessions::Caller`] comes only from [`sessions::Sessions::verify`].
//! - Nothing reads a clock but `clock`: times are parameters.
//! - A proxied request touches no database, takes no lock that a login takes, and crosses no thread.
//! - A client never sees the text of an inner error.
//! - A revocation is on the disk before it is in memory, and in memory before it is answered.
//! - A cursor or version moves when what it stands for has been applied, with no await in between.
//! - A connection that carried part of an exchange which broke off is never used for another.

pub mod clock;
pub mod secret;
pub mod model;
pub mod config;
pub mod telemetry;
pub mod message;
pub mod store;
pub mod tokens;
pub mod accounts;
pub mod sessions;
pub mod identity;
pub mod upstream;
pub mod gate;
pub mod app;
pub mod server;
pub mod cli;

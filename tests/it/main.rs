//! The integration tests: the built binary, started on free ports, asked over the wire.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    clippy::disallowed_methods,
    reason = "a test that meets the unexpected has to fail, reads clocks, waits for conditions, and may be a long table"
)]

mod layers;
mod harness;
mod wire;
mod origin;
mod jwt;
mod endpoints;
mod blocklist;
mod routes;
mod headers;
mod forwarding;
mod framing;
mod corpora;
mod tokens;
mod flask;
mod life;
mod cli;
mod storm;
mod store_faults;
mod regression;

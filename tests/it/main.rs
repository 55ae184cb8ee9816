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
mod frames;
mod memory;
mod origin;
mod jwt;
mod python;
mod endpoints;
mod audit;
mod openapi;
mod blocklist;
mod revocation_flood;
mod clock_steps;
mod sessions;
mod session_limit;
mod rotation;
mod password;
mod routes;
mod headers;
mod forwarding;
mod websocket;
mod upstream_tls;
mod upstream_h2;
mod upstream_resets;
mod upstream_dns;
mod health;
mod framing;
mod http2;
mod corpora;
mod throttling;
mod tokens;
mod keys;
mod provider;
mod providers_tokens;
mod trusted;
mod trusted_keys;
mod trusted_fetch;
mod flask;
mod import;
mod import_faults;
mod descriptor_limits;
mod doors;
mod life;
mod reload;
mod leaving;
mod cli;
mod terminal;
mod explain;
mod fronts;
mod grpc;
mod browser;
mod signals;
mod slow;
mod slow_bodies;
mod log_output;
mod log_secrets;
mod outside;
mod rolling;
mod storm;
mod store_faults;
mod io_faults;
mod store_file;
mod store_check;
mod store_modes;
mod exit_codes;
mod regression;
mod wire_regression;
mod streams;
mod cors;
mod quota;
mod admin;
mod attempts;

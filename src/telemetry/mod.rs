//! What the operator sees: log lines, access lines, audit lines, metrics; and the ids that tie a request's traces together.

pub mod access;
pub mod audit;
pub mod ids;
pub mod log;
pub mod metrics;
pub mod output;
pub mod redact;

//! What the operator sees: log lines, access lines, metrics; and the ids that tie a request's traces together.

pub mod access;
pub mod ids;
pub mod log;
pub mod metrics;

//! Upstreams: forwarding a request to one of the servers of its upstream, and the answer back, both while they arrive.

mod forward;
mod balance;
mod pool;
mod wire;
mod headers;
mod body;
mod decode;
mod alarm;

pub use forward::{Exchange, Upstreams};
pub use headers::{Client, Ids};
pub use pool::Pools;

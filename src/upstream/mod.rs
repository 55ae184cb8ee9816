//! Upstreams: forwarding a request to one of the servers of its upstream, and the answer back, both while they arrive.

mod forward;
mod balance;
mod health;
mod fetch;
mod budget;
mod connection_limit;
mod resets;
mod copy;
mod pool;
mod resolve;
mod tls;
mod stream;
mod wire;
mod h2;
mod tunnel;
mod headers;
mod body;
mod decode;
mod alarm;

pub use fetch::{FetchError, fetch};
pub use forward::{Error, Exchange, Preview, Reply, Trial, Upstreams};
pub use headers::{Client, Ids};
pub use health::Checks;
pub use pool::Pools;
pub use tunnel::Tunnel;

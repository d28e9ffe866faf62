//! The parts behind `embedded`: a Kafka broker, a schema registry and market data, all inside this process.
//!
//! They serve `firn demo`, `firn broker` and the tests. They are for trying things out: everything is in memory, and
//! [`Broker`] lists what a real broker does and this one does not.

pub mod broker;
pub mod market;
pub mod producer;
pub mod registry;

use std::future::Future;
use std::net::SocketAddr;

pub use self::broker::Broker;
pub use self::market::Market;
pub use self::registry::Registry;
use crate::Result;

/// What `firn broker` starts.
#[derive(Debug, Clone)]
pub struct ServeArgs {
    /// Topics to create, each with its number of partitions; clients create others by asking for them.
    pub topics: Vec<(String, i32)>,
    /// Where the registry listens; port 0 takes a free one.
    pub registry_listen: SocketAddr,
}

/// Where the servers of [`serve`] can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// `host:port` for `kafka.brokers`. The broker chooses the port, another one with each start.
    pub bootstrap_servers: String,
    /// For `schema_registry.url`.
    pub registry_url: String,
}

/// Runs the broker and the registry until `stop` is ready; `ready` is told the addresses once both answer.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config) for a topic that Kafka would refuse,
/// [`Error::Unreachable`](crate::Error::Unreachable) when an address cannot be had.
pub async fn serve(args: ServeArgs, ready: impl FnOnce(&Addresses), stop: impl Future<Output = ()>) -> Result<()> {
    let broker = Broker::start(&args.topics)?;
    let registry = Registry::start(args.registry_listen).await?;
    ready(&Addresses { bootstrap_servers: broker.bootstrap_servers().to_string(), registry_url: registry.url() });
    stop.await;
    registry.stop().await;
    Ok(())
}

#[cfg(test)]
mod tests;

//! Kafka and the schema registry: callbacks and messages become events, and back-pressure becomes a full queue.
//!
//! Nothing here decides about V. The service says from which offset a partition is read ([`Command::Open`]) and under
//! which reading epoch; the poll thread stamps that epoch on what it hands to the [`Handler`]. The broker's group
//! offsets are a hint that this module writes and never reads.

mod admin;
mod again;
mod client;
mod config;
mod dead_letters;
mod handle;
mod kafka;
mod poll;
mod registry;
mod show;
mod topics;

#[cfg(test)]
mod tests;

pub use self::again::{Found, Resubmitter, Spans, read};
pub use self::config::{SourceConfig, check_properties};
pub use self::dead_letters::{DeadLetters, Taken};
pub use self::handle::{Command, Event, Flow, Handler, Message, Source};
pub use self::kafka::Headers;
pub use self::registry::{Access, Login, Opinion, Registry, RegistryError, Schema, Version, schema_in_answers};
pub use self::topics::{Cluster, StartAt, TopicInfo, TopicSelection, Topology};

use std::sync::Arc;

/// A partition by the name of its topic, as the consumer group knows it. What identifies it in V is
/// [`crate::core::offsets::PartitionId`]; [`Topology`] maps one to the other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// Counted from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// A partition of the topic of this name.
    #[must_use]
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        TopicPartition { topic: topic.into(), partition }
    }
}

impl std::fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

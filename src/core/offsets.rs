//! V, the position: how far each source partition is contained in a table.
//!
//! V is stored in the table by the commit that advances it and is the only truth for position. It holds *next* offsets,
//! never last ones, because offsets have gaps. Its identity is (cluster id, topic id, partition): a recreated topic has
//! another id, and its offsets mean something else.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Numbers the reading epochs of one process: each assignment of a partition, and each re-read at V, opens a new one.
/// Records of an older epoch are dropped, so that what was queued from ahead of V never passes the filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

/// A source partition by the topic's identity, not by its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId {
    /// The broker's topic id; `name:<topic>` where the broker has none.
    pub topic: Arc<str>,
    pub partition: i32,
}

impl std::fmt::Display for PartitionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// Where reading of a partition began, resolved once and kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    pub offset: i64,
    /// The start was the log's beginning: if the log's beginning moves before the first event is written, it is resolved
    /// again instead of being reported as lost.
    pub earliest: bool,
}

/// How far one partition is contained in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    pub start: Start,
    /// V before the commit that stored this: `from..next` is what that commit added.
    pub from: i64,
    /// The first offset that is not contained.
    pub next: i64,
}

impl Position {
    /// A position at the resolved start, before any event.
    #[must_use]
    pub fn at_start(start: Start) -> Self {
        Position { start, from: start.offset, next: start.offset }
    }
}

/// A topic in V.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicPositions {
    /// The name at the time of the commit, for people; identity is the id.
    pub name: String,
    pub partitions: BTreeMap<i32, Position>,
}

/// V: the full vector of next-offsets, as each commit stores it under `firn.offsets`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vector {
    /// The Kafka cluster's id.
    pub cluster: String,
    /// By topic id.
    pub topics: BTreeMap<Arc<str>, TopicPositions>,
}

impl Vector {
    /// A vector that contains no topic yet.
    #[must_use]
    pub fn new(cluster: impl Into<String>) -> Self {
        Vector { cluster: cluster.into(), topics: BTreeMap::new() }
    }

    /// The position of a partition, if it is in V.
    #[must_use]
    pub fn get(&self, id: &PartitionId) -> Option<&Position> {
        self.topics.get(&id.topic)?.partitions.get(&id.partition)
    }

    /// The next offset to read of a partition. A partition that joined a known topic later starts at 0, so that nothing
    /// written before it was discovered is skipped; a topic that is not in V has no position.
    #[must_use]
    pub fn next(&self, id: &PartitionId) -> Option<i64> {
        let topic = self.topics.get(&id.topic)?;
        Some(topic.partitions.get(&id.partition).map_or(0, |p| p.next))
    }

    /// Every partition with its position, in order.
    pub fn iter(&self) -> impl Iterator<Item = (PartitionId, &Position)> {
        self.topics.iter().flat_map(|(topic, t)| {
            t.partitions
                .iter()
                .map(move |(&partition, position)| (PartitionId { topic: topic.clone(), partition }, position))
        })
    }

    /// The vector that the next commit on top of this one stores: every partition of this one, with `advanced` moved to
    /// their next offsets. Positions never move back; a partition of a known topic that is new starts at 0.
    #[must_use]
    pub fn advance<'a>(&self, advanced: impl IntoIterator<Item = (&'a PartitionId, i64)>) -> Vector {
        let mut next = self.clone();
        for topic in next.topics.values_mut() {
            for position in topic.partitions.values_mut() {
                position.from = position.next;
            }
        }
        for (id, offset) in advanced {
            let Some(topic) = next.topics.get_mut(&id.topic) else { continue };
            let position = topic
                .partitions
                .entry(id.partition)
                .or_insert_with(|| Position::at_start(Start { offset: 0, earliest: true }));
            position.next = position.next.max(offset);
        }
        next
    }

    /// Whether every partition of `older` is here and none is behind it.
    #[must_use]
    pub fn contains(&self, older: &Vector) -> bool {
        self.cluster == older.cluster
            && older.iter().all(|(id, position)| self.next(&id).is_some_and(|next| next >= position.next))
    }

    /// V as the JSON that is stored under `firn.offsets`.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads what [`Vector::to_json`] wrote.
    ///
    /// # Errors
    /// The text is not a vector; the message says where it stops being one.
    pub fn from_json(text: &str) -> Result<Vector, String> {
        serde_json::from_str(text).map_err(|e| format!("not a position vector: {e}"))
    }
}

#[cfg(test)]
mod tests;

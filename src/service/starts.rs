//! What the broker says of a pipeline's topics: their ids, and where reading begins.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::Result;
use crate::core::offsets::PartitionId;
use crate::core::writer::{ResolvedStart, Topology};
use crate::settings::Start;
use crate::source::{self, Cluster, StartAt, TopicSelection};

/// Answers the writers' questions about the log.
pub(super) struct Starts {
    pub(super) cluster: Cluster,
    pub(super) topics: TopicSelection,
    /// Where a topic begins that was there when the pipeline started.
    pub(super) start: Start,
    /// Topic ids that were there at the start; a topic found later begins at its first record.
    pub(super) first: BTreeSet<Arc<str>>,
}

impl Starts {
    /// The topics as they are now, for the core.
    pub(super) async fn topology(&self) -> Result<Topology> {
        Ok(for_core(&self.cluster.describe_once(&self.topics).await?))
    }

    /// Where all partitions of `topics`, and `partitions` besides, begin.
    pub(super) async fn resolve(&self, topics: &[Arc<str>], partitions: &[PartitionId]) -> Result<Vec<ResolvedStart>> {
        let mut now = self.cluster.describe_once(&self.topics).await?;
        let asked = |id: &Arc<str>| topics.contains(id) || partitions.iter().any(|p| p.topic == *id);
        now.topics.retain(|_, info| asked(&info.id));
        let configured = self.cluster.start_offsets(&now, start_at(&self.start)).await?;
        let earliest = self.cluster.start_offsets(&now, StartAt::Earliest).await?;
        let mut resolved = Vec::new();
        for (partition, id) in now.partitions() {
            let again = partitions.contains(&id);
            if !again && !topics.contains(&id.topic) {
                continue;
            }
            let from = if again || !self.first.contains(&id.topic) { &earliest } else { &configured };
            if let Some(&start) = from.get(&id) {
                resolved.push(ResolvedStart { id, topic: partition.topic.to_string(), start });
            }
        }
        Ok(resolved)
    }
}

/// The source's description of the topics as the core takes it.
pub(super) fn for_core(topology: &source::Topology) -> Topology {
    Topology {
        cluster: topology.cluster_id.clone(),
        topics: topology.topics.iter().map(|(name, info)| (name.to_string(), info.id.clone())).collect(),
    }
}

pub(super) fn start_at(start: &Start) -> StartAt {
    match start {
        Start::Earliest => StartAt::Earliest,
        Start::Latest => StartAt::Latest,
        Start::Time(ms) => StartAt::Time(*ms),
    }
}

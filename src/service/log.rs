//! The log of a pipeline as it is now: what operators' commands compare V with.

use std::time::Duration;

use super::selection;
use super::starts::start_at;
use crate::core::reposition::{Log, PartitionLog, TopicLog};
use crate::settings::{Brokers, Pipeline, Settings};
use crate::source::{Cluster, Topology};
use crate::{Error, Result};

/// A client whose questions wait for the brokers up to `timeout`.
///
/// # Errors
/// [`Error::Config`] for `embedded`, and for properties that librdkafka refuses.
pub fn cluster_within(settings: &Settings, timeout: Duration) -> Result<Cluster> {
    match &settings.kafka.brokers {
        Brokers::List(brokers) => Cluster::connect(brokers, &super::kafka_properties(settings), timeout),
        Brokers::Embedded => Err(Error::Config("kafka.brokers: embedded is not running here".into())),
    }
}

/// Asks once for a pipeline's topics, and where their logs begin and end.
///
/// # Errors
/// [`Error::Unreachable`] where no broker answers, [`Error::Config`] for a topic that does not exist.
pub async fn read_log(cluster: &Cluster, pipeline: &Pipeline) -> Result<Log> {
    let topology = cluster.describe_once(&selection(pipeline)?).await?;
    bounds(cluster, topology, pipeline).await
}

async fn bounds(cluster: &Cluster, topology: Topology, pipeline: &Pipeline) -> Result<Log> {
    let partitions: Vec<_> = topology.partitions().map(|(partition, _)| partition).collect();
    let stable = cluster.last_stable_offsets(&partitions).await?;
    let marks = cluster.watermarks(&partitions).await?;
    let starts = cluster.start_offsets(&topology, start_at(&pipeline.start)).await?;
    let mut log = Log { cluster: topology.cluster_id.clone(), topics: Default::default() };
    for (partition, id) in topology.partitions() {
        let (Some(&(first, end)), Some(&stable), Some(&start)) =
            (marks.get(&partition), stable.get(&partition), starts.get(&id))
        else {
            return Err(Error::Unreachable(format!("the brokers say nothing about {partition}; try again")));
        };
        let topic = log.topics.entry(partition.topic.to_string());
        let topic = topic.or_insert_with(|| TopicLog { id: id.topic.clone(), partitions: Default::default() });
        topic.partitions.insert(id.partition, PartitionLog { first, stable, end, start });
    }
    Ok(log)
}

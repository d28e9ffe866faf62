//! What is where: the cluster's id, topics with their ids and partitions, and the offsets that bound their logs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::admin::{self, Ask, Described, Refusal};
use super::client::Client;
use super::{TopicPartition, config};
use crate::core::offsets::{PartitionId, Start};
use crate::{Error, Result};

/// Which topics a pipeline reads.
#[derive(Debug, Clone)]
pub enum TopicSelection {
    /// These.
    Names(Vec<String>),
    /// All topics whose name the expression finds, Kafka's internal ones (`__…`) excepted.
    Pattern(regex::Regex),
}

impl TopicSelection {
    /// What `topics:` of the configuration means: names, or one expression that begins with `^`.
    ///
    /// # Errors
    /// [`Error::Config`] if the expression is none.
    pub fn parse(topics: &[String]) -> Result<TopicSelection> {
        match topics {
            [pattern] if pattern.starts_with('^') => regex::Regex::new(pattern)
                .map(TopicSelection::Pattern)
                .map_err(|e| Error::Config(format!("topics: {pattern}: {e}"))),
            names => Ok(TopicSelection::Names(names.to_vec())),
        }
    }
}

/// A topic as the broker knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicInfo {
    /// The broker's topic id; `name:<topic>` where it has none. A recreated topic has another one.
    pub id: Arc<str>,
    /// In ascending order.
    pub partitions: Vec<i32>,
}

/// The topics that a pipeline reads, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// What the brokers call their cluster.
    pub cluster_id: String,
    /// By name.
    pub topics: BTreeMap<Arc<str>, TopicInfo>,
}

impl Topology {
    /// The identity of a partition, if its topic is here.
    #[must_use]
    pub fn id(&self, partition: &TopicPartition) -> Option<PartitionId> {
        let topic = self.topics.get(&partition.topic)?;
        Some(PartitionId { topic: topic.id.clone(), partition: partition.partition })
    }

    /// Every partition with its identity.
    pub fn partitions(&self) -> impl Iterator<Item = (TopicPartition, PartitionId)> {
        self.topics.iter().flat_map(|(name, info)| {
            info.partitions.iter().map(move |&partition| {
                let id = PartitionId { topic: info.id.clone(), partition };
                (TopicPartition { topic: name.clone(), partition }, id)
            })
        })
    }
}

/// Where a pipeline without V begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// The beginning of the log.
    Earliest,
    /// The end of the log at that moment.
    Latest,
    /// The first record that is not older than this, in milliseconds since 1970.
    Time(i64),
}

/// A client that asks and never reads. Cloning shares the connection.
#[derive(Clone)]
pub struct Cluster {
    client: Arc<Client>,
    timeout: Duration,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// Between two tries while a broker or topic is not there yet.
const AGAIN: Duration = Duration::from_millis(500);

impl Cluster {
    /// A client for these brokers. It connects in the background; each question waits up to `timeout`.
    ///
    /// # Errors
    /// [`Error::Config`] for properties that librdkafka refuses.
    pub fn connect(brokers: &str, properties: &BTreeMap<String, String>, timeout: Duration) -> Result<Cluster> {
        let client = Client::new(&config::asking(brokers, properties)?)?;
        Ok(Cluster { client: Arc::new(client), timeout })
    }

    /// The same, as a member of `group` would ask, so that its stored offsets can be read.
    ///
    /// # Errors
    /// As [`Cluster::connect`].
    pub fn connect_as(
        brokers: &str,
        properties: &BTreeMap<String, String>,
        group: &str,
        timeout: Duration,
    ) -> Result<Cluster> {
        let mut native = config::asking(brokers, properties)?;
        native.set("group.id", group).set("enable.auto.commit", "false");
        Ok(Cluster { client: Arc::new(Client::new(&native)?), timeout })
    }

    /// Looks the topics up. Brokers that do not answer are asked again for `unreachable`, topics that are not there for
    /// `missing`: they may be about to be created.
    ///
    /// # Errors
    /// [`Error::Unreachable`] names the last complaint, [`Error::Config`] the topic that does not exist.
    pub async fn describe(
        &self,
        topics: &TopicSelection,
        unreachable: Duration,
        missing: Duration,
    ) -> Result<Topology> {
        let begun = Instant::now();
        let mut answered: Option<Instant> = None;
        loop {
            let error = match self.describe_once(topics).await {
                Ok(topology) => return Ok(topology),
                Err(error) => error,
            };
            let over = match &error {
                Error::Unreachable(_) => begun.elapsed() >= unreachable,
                _ => answered.get_or_insert_with(Instant::now).elapsed() >= missing,
            };
            if over {
                return Err(error);
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Looks the topics up, without patience.
    ///
    /// # Errors
    /// As [`Cluster::describe`].
    pub async fn describe_once(&self, topics: &TopicSelection) -> Result<Topology> {
        let topics = topics.clone();
        self.ask(move |client, timeout| describe(client, &topics, timeout)).await
    }

    /// Resolves where each partition of the topology begins. For a time after the last record that is the end.
    ///
    /// # Errors
    /// [`Error::Unreachable`] or [`Error::Config`], naming the partitions' topic.
    pub async fn start_offsets(&self, topology: &Topology, at: StartAt) -> Result<BTreeMap<PartitionId, Start>> {
        let topology = topology.clone();
        self.ask(move |client, timeout| {
            let named: Vec<_> = topology.partitions().collect();
            let partitions: Vec<TopicPartition> = named.iter().map(|(p, _)| p.clone()).collect();
            let offsets = starts(client, &partitions, at, timeout)?;
            let start =
                |p: &TopicPartition| offsets.get(p).map(|&offset| Start { offset, earliest: at == StartAt::Earliest });
            Ok(named.into_iter().filter_map(|(p, id)| Some((id, start(&p)?))).collect())
        })
        .await
    }

    /// The offset of each partition below which every transaction is decided: what a read_committed consumer can reach.
    ///
    /// # Errors
    /// [`Error::Unreachable`] or [`Error::Config`].
    pub async fn last_stable_offsets(&self, partitions: &[TopicPartition]) -> Result<BTreeMap<TopicPartition, i64>> {
        let partitions = partitions.to_vec();
        self.ask(move |client, timeout| {
            list(client, &partitions, Ask::Latest, true, timeout)
                .map_err(|r| Error::from(r).within("last stable offsets"))
        })
        .await
    }

    /// The first and the next offset of each partition's log.
    ///
    /// # Errors
    /// [`Error::Unreachable`] or [`Error::Config`], naming the partition.
    pub async fn watermarks(&self, partitions: &[TopicPartition]) -> Result<BTreeMap<TopicPartition, (i64, i64)>> {
        let partitions = partitions.to_vec();
        self.ask(move |client, timeout| {
            let one = |p: TopicPartition| {
                admin::watermarks(client, &p, timeout)
                    .map(|marks| (p.clone(), marks))
                    .map_err(|r| Error::from(r).within(format!("watermarks of {p}")))
            };
            partitions.into_iter().map(one).collect()
        })
        .await
    }

    /// The offsets stored for the group of [`Cluster::connect_as`]; partitions without one are left out.
    ///
    /// # Errors
    /// [`Error::Unreachable`] or [`Error::Config`].
    pub async fn group_offsets(&self, partitions: &[TopicPartition]) -> Result<BTreeMap<TopicPartition, i64>> {
        let partitions = partitions.to_vec();
        self.ask(move |client, timeout| {
            admin::group_offsets(client, &partitions, timeout).map_err(|r| Error::from(r).within("group offsets"))
        })
        .await
    }

    /// Runs a blocking question where it may block.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Client, Duration) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (client, timeout) = (self.client.clone(), self.timeout);
        tokio::task::spawn_blocking(move || question(&client, timeout))
            .await
            .map_err(|e| Error::Internal(format!("asking kafka: {e}")))?
    }
}

fn describe(client: &Client, selection: &TopicSelection, timeout: Duration) -> Result<Topology> {
    let cluster_id = admin::cluster_id(client, timeout).ok_or_else(|| no_broker("no answer in time"))?;
    let names = match selection {
        TopicSelection::Names(names) => names.clone(),
        TopicSelection::Pattern(pattern) => {
            let all = admin::all_topics(client, timeout).map_err(|r| refused("topics", r))?;
            all.into_keys().filter(|name| !name.starts_with("__") && pattern.is_match(name)).collect()
        }
    };
    if names.is_empty() {
        return Ok(Topology { cluster_id, topics: BTreeMap::new() });
    }
    let answers = match admin::describe(client, &names, timeout) {
        Err(Refusal::Unsupported) => by_name(client, &names, timeout)?,
        other => other.map_err(|r| refused("topics", r))?,
    };
    let mut topics = BTreeMap::new();
    for name in names {
        let described = answers.get(&name).cloned().unwrap_or(Err(Refusal::Missing));
        let Described { id, partitions } = described.map_err(|r| refused(&name, r))?;
        let id = id.unwrap_or_else(|| format!("name:{name}"));
        topics.insert(Arc::from(name), TopicInfo { id: Arc::from(id), partitions });
    }
    Ok(Topology { cluster_id, topics })
}

/// For brokers that cannot describe topics: names and partitions only.
fn by_name(
    client: &Client,
    names: &[String],
    timeout: Duration,
) -> Result<BTreeMap<String, Result<Described, Refusal>>> {
    let mut all = admin::all_topics(client, timeout).map_err(|r| refused("topics", r))?;
    let describe = |name: &String| match all.remove(name) {
        Some(partitions) => (name.clone(), Ok(Described { id: None, partitions })),
        None => (name.clone(), Err(Refusal::Missing)),
    };
    Ok(names.iter().map(describe).collect())
}

fn no_broker(why: &str) -> Error {
    Error::Unreachable(format!("no kafka broker answers ({why}): check kafka.brokers and kafka.properties"))
}

fn refused(topic: &str, refusal: Refusal) -> Error {
    match refusal {
        Refusal::Missing => {
            Error::Config(format!("topic {topic} does not exist: create it, or correct topics in the pipeline"))
        }
        Refusal::Unavailable(why) => no_broker(&why),
        Refusal::Denied(why) => Error::Config(format!("topic {topic}: {why}")),
        Refusal::Unsupported => Error::Config(format!("topic {topic}: the broker is too old")),
    }
}

/// One offset per partition.
fn list(
    client: &Client,
    partitions: &[TopicPartition],
    ask: Ask,
    committed: bool,
    timeout: Duration,
) -> Result<BTreeMap<TopicPartition, i64>, Refusal> {
    let asks: Vec<_> = partitions.iter().map(|p| (p.clone(), ask)).collect();
    match admin::offsets(client, &asks, committed, timeout) {
        // Older than transactions and than this question: the watermarks say the same.
        Err(Refusal::Unsupported) if !matches!(ask, Ask::Time(_)) => partitions
            .iter()
            .map(|p| {
                let (low, high) = admin::watermarks(client, p, timeout)?;
                Ok((p.clone(), if ask == Ask::Earliest { low } else { high }))
            })
            .collect(),
        other => other,
    }
}

fn starts(
    client: &Client,
    partitions: &[TopicPartition],
    at: StartAt,
    timeout: Duration,
) -> Result<BTreeMap<TopicPartition, i64>> {
    let ask = match at {
        StartAt::Earliest => Ask::Earliest,
        StartAt::Latest => Ask::Latest,
        StartAt::Time(ms) => Ask::Time(ms),
    };
    let fail = |r| Error::from(r).within("start offsets");
    // The end of the log for `latest`, open transactions included: they began before the pipeline did.
    let mut found = list(client, partitions, ask, false, timeout).map_err(fail)?;
    let after_all: Vec<TopicPartition> = found.iter().filter(|(_, o)| **o < 0).map(|(p, _)| p.clone()).collect();
    if !after_all.is_empty() {
        found.extend(list(client, &after_all, Ask::Latest, false, timeout).map_err(fail)?);
    }
    Ok(found)
}

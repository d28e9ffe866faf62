//! A Kafka broker inside this process, spoken to over loopback like any other.

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};
use rdkafka_sys as native;

use crate::{Error, Result};

/// The broker keeps at most this many batches (what producers send as one) per partition, and drops older ones
/// **silently**.
pub const PARTITION_BATCHES_MAX: u64 = 100_000;
/// The broker keeps at most this many bytes of batches, as compressed by the producer, per partition, and drops older
/// ones **silently**.
pub const PARTITION_BYTES_MAX: u64 = 5 * 1024 * 1024;
/// A topic that a client asks for and that does not exist is created with so many partitions.
pub const AUTO_CREATED_PARTITIONS: i32 = 4;

/// Groups wait this long for further members before the first assignment. Long enough for the members that one
/// process starts together, and far below the three seconds that the mock cluster waits by default.
const JOIN_DELAY_MS: i32 = 100;
const TOPIC_NAME_BYTES_MAX: usize = 249;
const PARTITIONS_MAX: i32 = 1_024;

/// librdkafka's mock cluster of one broker: the real protocol on an ephemeral port of 127.0.0.1, for trying things out.
///
/// What it cannot do, and a real broker can:
/// - It lives in memory: dropping it forgets topics, records and group offsets. The cluster id is derived from an
///   address in memory and topic ids are random, so another start is another cluster.
/// - A partition keeps [`PARTITION_BYTES_MAX`] bytes or [`PARTITION_BATCHES_MAX`] batches; older ones vanish without an
///   error, whoever has read them or not. [`produce`](super::producer::produce) waits for the consumer.
/// - Transactions are accepted and mean nothing: `read_committed` returns aborted records too.
/// - Looking up an offset by time always answers the end of the partition.
/// - Topics are created by [`create_topic`](Self::create_topic) or by a producer's first request for them (with
///   [`AUTO_CREATED_PARTITIONS`]; consumers create none unless `allow.auto.create.topics` says so). Requests to the
///   controller (CreateTopics, and DescribeTopics where no broker is named) time out: the cluster names a controller
///   that it does not have. Nothing deletes a topic or adds partitions.
/// - No compaction, no authentication, no TLS; the port cannot be chosen.
pub struct Broker {
    /// Owns the mock cluster: librdkafka ends it together with this client.
    owner: BaseProducer<Quiet>,
    bootstrap_servers: String,
}

impl Broker {
    /// Starts the broker and creates `topics`, each with its number of partitions.
    ///
    /// # Errors
    /// [`Error::Config`] for a topic name or partition count that Kafka would refuse, [`Error::Unreachable`] when the
    /// port or threads cannot be had.
    pub fn start(topics: &[(String, i32)]) -> Result<Broker> {
        for (topic, partitions) in topics {
            check_topic(topic, *partitions)?;
        }
        let owner: BaseProducer<Quiet> = ClientConfig::new()
            .set("test.mock.num.brokers", "1")
            .set_log_level(RDKafkaLogLevel::Critical)
            .create_with_context(Quiet)
            .map_err(|error| failed(&error))?;
        shorten_join(&owner);
        let bootstrap_servers = cluster(&owner)?.bootstrap_servers();
        let broker = Broker { owner, bootstrap_servers };
        for (topic, partitions) in topics {
            broker.create_topic(topic, *partitions)?;
        }
        Ok(broker)
    }

    /// `host:port` for `bootstrap.servers`; other processes of this machine can connect too.
    #[must_use]
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// [`Error::Config`] for a name or partition count that Kafka would refuse, or a topic that exists.
    pub fn create_topic(&self, topic: &str, partitions: i32) -> Result<()> {
        check_topic(topic, partitions)?;
        cluster(&self.owner)?.create_topic(topic, partitions, 1).map_err(|error| {
            Error::Config(format!("the embedded broker did not create topic {topic}: {error}; does it exist already?"))
        })
    }
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker").field("bootstrap_servers", &self.bootstrap_servers).finish_non_exhaustive()
    }
}

fn cluster(owner: &BaseProducer<Quiet>) -> Result<MockCluster<'_, Quiet>> {
    owner.client().mock_cluster().ok_or_else(|| Error::Internal("the embedded broker has no mock cluster".into()))
}

fn failed(error: &dyn std::fmt::Display) -> Error {
    Error::Unreachable(format!("the embedded broker did not start: {error}; it needs a free port on 127.0.0.1"))
}

fn shorten_join(owner: &BaseProducer<Quiet>) {
    // SAFETY: the client was made with `test.mock.num.brokers`, so it owns a mock cluster (a null pointer is left
    // alone all the same), and the cluster lives until the client is destroyed, which borrows forbid here.
    // librdkafka hands the value to the cluster's own thread.
    unsafe {
        let cluster = native::rd_kafka_handle_mock_cluster(owner.client().native_ptr());
        if !cluster.is_null() {
            native::rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, JOIN_DELAY_MS);
        }
    }
}

/// Refuses what a real broker would refuse, so that a name which works here works there.
fn check_topic(topic: &str, partitions: i32) -> Result<()> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if topic.is_empty()
        || topic.len() > TOPIC_NAME_BYTES_MAX
        || matches!(topic, "." | "..")
        || !topic.chars().all(legal)
    {
        return Err(Error::Config(format!(
            "`{topic}` is no topic name: use 1 to {TOPIC_NAME_BYTES_MAX} letters, digits, dots, underscores and hyphens"
        )));
    }
    if !(1..=PARTITIONS_MAX).contains(&partitions) {
        return Err(Error::Config(format!(
            "topic {topic}: {partitions} partitions asked for, 1 to {PARTITIONS_MAX} are possible"
        )));
    }
    Ok(())
}

/// The broker's own client says nothing: that it runs on a mock cluster is no news here.
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _level: RDKafkaLogLevel, _facility: &str, _message: &str) {}

    fn error(&self, _error: rdkafka::error::KafkaError, _reason: &str) {}
}

impl ProducerContext for Quiet {
    type DeliveryOpaque = ();

    fn delivery(&self, _result: &rdkafka::producer::DeliveryResult<'_>, _opaque: ()) {}
}

#[cfg(test)]
mod tests;

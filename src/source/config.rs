//! What librdkafka is told: the operator's properties untouched, then what Firn owns.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;

use crate::{Error, Result};

/// What a consumer needs to know.
#[derive(Debug, Clone)]
pub struct SourceConfig {
    /// `host:port`, comma separated.
    pub brokers: String,
    /// librdkafka's own names (`security.protocol`, `sasl.*`, …), passed on untouched.
    pub properties: BTreeMap<String, String>,
    /// The consumer group, within which partitions are owned.
    pub group: String,
    /// Names of the topics to subscribe to. A pattern is resolved by [`super::Cluster::describe`], and its topics are
    /// renewed with [`super::Command::Subscribe`]: a topic must be in V before it is read.
    pub topics: Vec<String>,
    /// How much librdkafka may hold in its queue, in bytes; one more fetch response per broker can be under way. 16 MiB
    /// is plenty: with more, records have left the processor's caches before they are decoded.
    pub queue_bytes: u64,
    /// How long a revoked partition waits for the service to commit what it has. Other members wait as long.
    pub revoke_patience: Duration,
}

/// Properties that decide correctness. Offsets come from V, so nothing may commit or reset them behind our back.
const OWNED: [&str; 9] = [
    "group.id",
    "enable.auto.commit",
    "auto.commit.enable",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "enable.partition.eof",
    "isolation.level",
    "bootstrap.servers",
    "metadata.broker.list",
];

/// Checks the operator's properties without contacting a broker.
///
/// # Errors
/// [`Error::Config`] names the first property that Firn owns, that librdkafka does not know, or whose value it refuses.
pub fn check_properties(properties: &BTreeMap<String, String>) -> Result<()> {
    consumer("localhost", properties, "firn", 64 << 20).and_then(|c| native(&c).map(drop))
}

/// The configuration of a client that only asks: metadata, offsets.
pub(super) fn asking(brokers: &str, properties: &BTreeMap<String, String>) -> Result<ClientConfig> {
    for key in properties.keys() {
        if OWNED.contains(&key.as_str()) {
            return Err(Error::Config(format!(
                "kafka.properties: {key} is set by firn itself, remove it (brokers and the group have keys of their own)"
            )));
        }
    }
    if let Some(strategy) = properties.get("partition.assignment.strategy")
        && strategy != "cooperative-sticky"
    {
        return Err(Error::Config(format!(
            "kafka.properties: partition.assignment.strategy is {strategy}, but partitions change hands one by one here: \
             remove it or set cooperative-sticky"
        )));
    }
    let mut config = ClientConfig::new();
    // Defaults that an operator may replace.
    config.set("client.id", "firn").set("allow.auto.create.topics", "false");
    for (key, value) in properties {
        config.set(key, value);
    }
    // Asked for the end of a log, a broker tells the end: what is decided is a question of its own.
    config.set("bootstrap.servers", brokers).set("isolation.level", "read_uncommitted");
    Ok(config)
}

/// The configuration of a group member whose position is V.
pub(super) fn consumer(
    brokers: &str,
    properties: &BTreeMap<String, String>,
    group: &str,
    queue_bytes: u64,
) -> Result<ClientConfig> {
    let mut config = asking(brokers, properties)?;
    let mut default = |key: &str, value: String| {
        if !properties.contains_key(key) {
            config.set(key, value);
        }
    };
    // The newer group protocol has no such settings on the client, and librdkafka refuses them.
    if properties.get("group.protocol").is_none_or(|p| p != "consumer") {
        default("partition.assignment.strategy", "cooperative-sticky".into());
        // After a kill -9 the group waits this long before others take over.
        default("session.timeout.ms", "10000".into());
        // The others learn of it with their next heartbeat. librdkafka looks once a second whether one is due, so that
        // a full second would often become two.
        default("heartbeat.interval.ms", "500".into());
    }
    let kbytes = (queue_bytes / 1024).clamp(1024, 2_097_151);
    default("queued.max.messages.kbytes", kbytes.to_string());
    // One answer of a broker, which comes on top of the queue.
    default("fetch.max.bytes", queue_bytes.max(1 << 20).to_string());
    default("queued.min.messages", "100000".into());
    // A full queue stops fetching for this long; librdkafka's second would leave the pipeline idle most of the time.
    default("fetch.queue.backoff.ms", "10".into());
    default("fetch.wait.max.ms", "100".into());
    // New topics and partitions are looked for this often.
    default("topic.metadata.refresh.interval.ms", "30000".into());
    config
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // A lost offset is for a person to decide about (DESIGN rule 4), never a silent jump.
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed");
    Ok(config)
}

/// librdkafka's form of a configuration; its complaints become ours. Values are not repeated: they can be secrets.
pub(super) fn native(config: &ClientConfig) -> Result<rdkafka::config::NativeClientConfig> {
    config.create_native_config().map_err(|e| match e {
        rdkafka::error::KafkaError::ClientConfig(_, why, key, _) => {
            Error::Config(format!("kafka.properties: {key}: {}", super::client::plain(&why)))
        }
        other => Error::Config(format!("kafka.properties: {other}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect()
    }

    fn complaint(pairs: &[(&str, &str)]) -> String {
        match check_properties(&properties(pairs)) {
            Err(Error::Config(m)) => m,
            other => panic!("expected a config error, got {other:?}"),
        }
    }

    #[test]
    fn owned_unknown_and_wrong_properties_are_named() {
        assert!(complaint(&[("auto.offset.reset", "earliest")]).contains("auto.offset.reset is set by firn"));
        assert!(complaint(&[("no.such.thing", "1")]).contains("no.such.thing"));
        assert!(complaint(&[("session.timeout.ms", "soon")]).contains("session.timeout.ms"));
        assert!(complaint(&[("partition.assignment.strategy", "range")]).contains("cooperative-sticky"));
        assert!(!complaint(&[("security.protocol", "hunter2")]).contains("hunter2\" is"));
    }

    #[test]
    fn the_operator_may_replace_defaults_but_not_what_firn_owns() {
        let given = properties(&[("session.timeout.ms", "45000"), ("fetch.queue.backoff.ms", "7")]);
        let config = consumer("b:1", &given, "g", 64 << 20).expect("valid");
        assert_eq!(config.get("session.timeout.ms"), Some("45000"));
        assert_eq!(config.get("heartbeat.interval.ms"), Some("500"));
        assert_eq!(config.get("fetch.queue.backoff.ms"), Some("7"));
        assert_eq!(config.get("isolation.level"), Some("read_committed"));
        assert_eq!(config.get("queued.max.messages.kbytes"), Some("65536"));
        let newer = consumer("b:1", &properties(&[("group.protocol", "consumer")]), "g", 1).expect("valid");
        assert_eq!(newer.get("session.timeout.ms"), None);
    }
}

//! Reads stretches of topics from beginning to end, and submits records again. Both block: give them a thread.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::sync::mpsc;

use super::{TopicPartition, config};
use crate::core::letter::{Letter, Record, replayed};
use crate::{Error, Result};

/// How long nothing may arrive.
const SILENCE_MAX: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(500);
/// How long a transaction may take to be opened or ended.
const TRANSACTION: Duration = Duration::from_secs(60);

/// A record that was read.
#[derive(Debug, Clone)]
pub struct Found {
    /// Where it was.
    pub partition: TopicPartition,
    /// Its place there.
    pub offset: i64,
    /// Milliseconds since 1970; -1: unknown.
    pub timestamp_ms: i64,
    /// What it is.
    pub record: Record,
}

/// From where to where a partition is read.
pub type Spans = BTreeMap<TopicPartition, (i64, i64)>;

/// Reads the committed records of these spans into `out`, each partition in order. Ends early where nobody listens.
///
/// # Errors
/// [`Error::Config`] for properties that librdkafka refuses, [`Error::Unreachable`] where records do not arrive.
pub fn read(
    brokers: &str,
    properties: &BTreeMap<String, String>,
    spans: &Spans,
    out: &mpsc::Sender<Found>,
) -> Result<()> {
    let mut left: Spans =
        spans.iter().filter(|(_, (from, until))| from < until).map(|(p, s)| (p.clone(), *s)).collect();
    if left.is_empty() {
        return Ok(());
    }
    let failed = |e: &KafkaError| Error::Unreachable(format!("reading from kafka: {e}"));
    let consumer: BaseConsumer = reading(brokers, properties)?.create().map_err(|e| failed(&e))?;
    let mut list = TopicPartitionList::new();
    for (partition, (from, _)) in &left {
        let added = list.add_partition_offset(&partition.topic, partition.partition, Offset::Offset(*from));
        added.map_err(|e| failed(&e))?;
    }
    consumer.assign(&list).map_err(|e| failed(&e))?;
    let mut heard = Instant::now();
    while !left.is_empty() {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                heard = Instant::now();
                let found = found(&message);
                let Some(&(_, until)) = left.get(&found.partition) else { continue };
                if found.offset + 1 >= until {
                    left.remove(&found.partition);
                }
                if found.offset < until && out.blocking_send(found).is_err() {
                    return Ok(());
                }
            }
            // The rest of a span may be markers, which are no records.
            Some(Err(KafkaError::PartitionEOF(_))) | None => {
                left.retain(|p, (_, until)| position(&consumer, p).is_none_or(|at| at < *until));
            }
            Some(Err(error)) if heard.elapsed() >= SILENCE_MAX => return Err(failed(&error)),
            Some(Err(_)) => {}
        }
        if heard.elapsed() >= SILENCE_MAX {
            let names: Vec<_> = left.keys().map(ToString::to_string).collect();
            return Err(Error::Unreachable(format!("nothing arrives from {}", names.join(", "))));
        }
    }
    Ok(())
}

fn reading(brokers: &str, properties: &BTreeMap<String, String>) -> Result<ClientConfig> {
    let mut native = config::asking(brokers, properties)?;
    native
        // Nothing is stored under it.
        .set("group.id", "firn-look")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "earliest")
        .set_log_level(RDKafkaLogLevel::Error);
    Ok(native)
}

fn position(consumer: &BaseConsumer, partition: &TopicPartition) -> Option<i64> {
    let positions = consumer.position().ok()?;
    match positions.find_partition(&partition.topic, partition.partition)?.offset() {
        Offset::Offset(at) => Some(at),
        _ => None,
    }
}

fn found(message: &BorrowedMessage<'_>) -> Found {
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    Found {
        partition: TopicPartition::new(message.topic(), message.partition()),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(-1),
        record: Record {
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers.map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec))).collect(),
        },
    }
}

/// Submits dead letters again: a record goes to its topic and a note to the dead letters, both or neither.
pub struct Resubmitter {
    producer: ThreadedProducer<DefaultProducerContext>,
    dead_letters: String,
}

impl Resubmitter {
    /// Begins to submit. Whoever did under the same name before can no longer: no letter is submitted by two at once.
    ///
    /// # Errors
    /// [`Error::Unreachable`] where the brokers take no transactions now.
    pub fn open(brokers: &str, properties: &BTreeMap<String, String>, name: &str, dead_letters: &str) -> Result<Self> {
        let mut native = config::asking(brokers, properties)?;
        native.remove("isolation.level");
        native
            .set("transactional.id", name)
            .set("message.max.bytes", "1000000000")
            .set("queue.buffering.max.kbytes", "1048576")
            .set_log_level(RDKafkaLogLevel::Error);
        let producer: ThreadedProducer<DefaultProducerContext> =
            native.create().map_err(|e| Error::Config(format!("kafka: nothing can be submitted: {e}")))?;
        producer.init_transactions(TRANSACTION).map_err(|e| not_submitted(&e))?;
        Ok(Resubmitter { producer, dead_letters: dead_letters.to_owned() })
    }

    /// Submits letters in one transaction, in order.
    ///
    /// # Errors
    /// [`Error::Unreachable`] where it was not committed: none of them is submitted.
    pub fn submit(&self, letters: &[Letter]) -> Result<()> {
        self.producer.begin_transaction().map_err(|e| not_submitted(&e))?;
        let sent = letters.iter().try_for_each(|letter| self.send(letter));
        match sent.and_then(|()| self.producer.commit_transaction(TRANSACTION)) {
            Ok(()) => Ok(()),
            Err(error) => {
                // Where this fails as well, the broker ends the transaction by itself.
                let _ = self.producer.abort_transaction(TRANSACTION);
                Err(not_submitted(&error))
            }
        }
    }

    fn send(&self, letter: &Letter) -> Result<(), KafkaError> {
        let Letter { place, topic, key, value, headers, .. } = letter;
        let again = Record { key: key.clone(), value: value.clone(), headers: headers.clone() };
        self.send_record(topic, Some(place.partition), &again)?;
        self.send_record(&self.dead_letters, None, &replayed(place))
    }

    fn send_record(&self, topic: &str, partition: Option<i32>, record: &Record) -> Result<(), KafkaError> {
        let empty = OwnedHeaders::new_with_capacity(record.headers.len());
        let header = |all: OwnedHeaders, (key, value): &(String, Option<Vec<u8>>)| {
            all.insert(Header { key, value: value.as_ref() })
        };
        let mut out = BaseRecord::<[u8], [u8]>::to(topic).headers(record.headers.iter().fold(empty, header));
        if let Some(partition) = partition {
            out = out.partition(partition);
        }
        if let Some(key) = &record.key {
            out = out.key(key);
        }
        if let Some(value) = &record.value {
            out = out.payload(value);
        }
        self.producer.send(out).map_err(|(error, _)| error)
    }
}

fn not_submitted(error: &KafkaError) -> Error {
    Error::Unreachable(format!("the letters were not submitted: {error}; try again, none is submitted twice"))
}

//! Reads stretches of topics from beginning to end, and submits records again. Both block: give them a thread.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};
use tokio::sync::mpsc;

use super::dead_letters::headers;
use super::{TopicPartition, config};
use crate::core::letter::{Letter, Record};
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
    producer: ThreadedProducer<Places>,
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
        let producer: ThreadedProducer<Places> = native
            .create_with_context(Places::default())
            .map_err(|e| Error::Config(format!("kafka: nothing can be submitted: {e}")))?;
        producer.init_transactions(TRANSACTION).map_err(|e| not_submitted(&e))?;
        Ok(Resubmitter { producer, dead_letters: dead_letters.to_owned() })
    }

    /// Sends letters in a transaction that stays open, in order. Returns where in its partition each of them is now.
    ///
    /// # Errors
    /// [`Error::Unreachable`] where a broker does not take them: none of them is submitted.
    pub fn send(&self, letters: &[Letter]) -> Result<Vec<i64>> {
        self.producer.begin_transaction().map_err(|e| not_submitted(&e))?;
        self.producer.context().forget();
        let sent = letters.iter().enumerate().try_for_each(|(number, letter)| self.send_letter(number, letter));
        match sent
            .and_then(|()| self.producer.flush(TRANSACTION))
            .and_then(|()| self.producer.context().all(letters.len()))
        {
            Ok(offsets) => Ok(offsets),
            Err(error) => {
                self.abort();
                Err(not_submitted(&error))
            }
        }
    }

    /// Submits what was sent.
    ///
    /// # Errors
    /// [`Error::Unreachable`] where it was not committed: nothing of it is submitted.
    pub fn commit(&self) -> Result<()> {
        self.producer.commit_transaction(TRANSACTION).map_err(|error| {
            self.abort();
            not_submitted(&error)
        })
    }

    /// Takes back what was sent.
    pub fn abort(&self) {
        // Where this fails, the broker ends the transaction by itself.
        let _ = self.producer.abort_transaction(TRANSACTION);
    }

    fn send_letter(&self, number: usize, letter: &Letter) -> Result<(), KafkaError> {
        self.send_record(number, &letter.topic, Some(letter.place.partition), &letter.again())?;
        self.send_record(NOTE, &self.dead_letters, None, &letter.replayed())
    }

    fn send_record(
        &self,
        number: usize,
        topic: &str,
        partition: Option<i32>,
        record: &Record,
    ) -> Result<(), KafkaError> {
        let mut out = BaseRecord::<[u8], [u8], usize>::with_opaque_to(topic, number).headers(headers(record));
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

/// The number of a record whose place nobody needs.
const NOTE: usize = usize::MAX;

/// Hears from librdkafka's thread where each record of a transaction is.
#[derive(Default)]
struct Places {
    heard: Mutex<BTreeMap<usize, Result<i64, KafkaError>>>,
}

impl Places {
    fn forget(&self) {
        if let Ok(mut heard) = self.heard.lock() {
            heard.clear();
        }
    }

    /// The offsets of the records numbered from 0 up to `count`, once they were flushed.
    fn all(&self, count: usize) -> Result<Vec<i64>, KafkaError> {
        let Ok(heard) = self.heard.lock() else { return Err(KafkaError::Canceled) };
        (0..count).map(|number| heard.get(&number).cloned().unwrap_or(Err(KafkaError::Canceled))).collect()
    }
}

impl ClientContext for Places {}

impl ProducerContext for Places {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        if let Ok(mut heard) = self.heard.lock()
            && number != NOTE
        {
            let offset = result.as_ref().map(|message| message.offset()).map_err(|(error, _)| error.clone());
            heard.insert(number, offset);
        }
    }
}

fn not_submitted(error: &KafkaError) -> Error {
    Error::Unreachable(format!("the letters were not submitted: {error}; try again, none is submitted twice"))
}

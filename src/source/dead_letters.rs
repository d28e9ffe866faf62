//! Writes dead letters to their topic, and knows which of them the broker has.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use tokio::sync::watch;

use super::config;
use crate::core::letter::{Letter, Record};
use crate::{Error, Result};

/// How large a record the topic takes where the broker does not say: its default, and some.
const RECORD_BYTES: usize = 1_000_000;
/// How long the broker may take to say it.
const ASK_WITHIN: Duration = Duration::from_secs(5);
/// A queue that holds the largest letter: its parts are handed over together.
const QUEUE_BYTES_MIN: u64 = 80 << 20;
/// Several letters share a batch up to this size. One above it travels alone, so that no batch is larger than its record.
const BATCH_BYTES: &str = "262144";

/// Whether a letter was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is on its way.
    Yes,
    /// Too much is on its way: hand it over again later.
    Full,
}

/// The dead-letter topic of a pipeline. Letters are sent at least once: one that is read again is sent again.
pub struct DeadLetters {
    producer: ThreadedProducer<Acks>,
    topic: String,
    record_bytes_max: usize,
    sent: std::sync::atomic::AtomicU64,
    state: watch::Receiver<State>,
}

impl std::fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeadLetters").field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// What the broker has said of the letters.
#[derive(Debug, Default)]
struct State {
    /// Numbers of those it has not acknowledged.
    pending: BTreeSet<u64>,
    /// Why it refused the first that it refused.
    refused: Option<String>,
}

impl DeadLetters {
    /// Connects to the topic, which exists. The broker is asked how large its records may be. Letters that it has not
    /// acknowledged take up to `queue_bytes` of memory.
    ///
    /// # Errors
    /// [`Error::Config`] for properties that librdkafka refuses.
    pub async fn connect(
        brokers: &str,
        properties: &BTreeMap<String, String>,
        topic: &str,
        queue_bytes: u64,
    ) -> Result<DeadLetters> {
        let mut native = config::asking(brokers, properties)?;
        let record_bytes_max = record_bytes_max(&native, topic).await.unwrap_or(RECORD_BYTES);
        native.remove("isolation.level");
        native
            .set("acks", "all")
            .set("enable.idempotence", "true")
            // A broker that is away is waited for; V waits with it.
            .set("message.timeout.ms", "0")
            .set("message.max.bytes", record_bytes_max.clamp(RECORD_BYTES, 1_000_000_000).to_string())
            .set("batch.size", BATCH_BYTES)
            .set("linger.ms", "5")
            .set("queue.buffering.max.kbytes", (queue_bytes.max(QUEUE_BYTES_MIN) >> 10).to_string())
            .set_log_level(RDKafkaLogLevel::Error);
        let (told, state) = watch::channel(State::default());
        let producer = native
            .create_with_context(Acks { told })
            .map_err(|e| Error::Config(format!("kafka: no dead letters can be sent: {e}")))?;
        Ok(DeadLetters { producer, topic: topic.to_owned(), record_bytes_max, sent: 0.into(), state })
    }

    /// Hands a letter over. It does not wait.
    ///
    /// # Errors
    /// [`Error::Decision`] for a letter that cannot be kept.
    pub fn send(&self, letter: &Letter) -> Result<Taken> {
        let records = letter.records(self.record_bytes_max).map_err(|why| self.lost(&why))?;
        for record in &records {
            if self.send_record(record)? == Taken::Full {
                // Parts that are sent twice are one part to whoever reads them.
                return Ok(Taken::Full);
            }
        }
        Ok(Taken::Yes)
    }

    fn send_record(&self, record: &Record) -> Result<Taken> {
        let number = self.sent.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let acks = self.producer.context();
        acks.told.send_modify(|state| {
            state.pending.insert(number);
        });
        let mut out = BaseRecord::<[u8], [u8], usize>::with_opaque_to(&self.topic, number as usize);
        out = out.headers(headers(record));
        if let Some(key) = &record.key {
            out = out.key(key);
        }
        if let Some(value) = &record.value {
            out = out.payload(value);
        }
        let Err((error, _)) = self.producer.send(out) else { return Ok(Taken::Yes) };
        acks.told.send_modify(|state| {
            state.pending.remove(&number);
        });
        match error {
            KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => Ok(Taken::Full),
            other => Err(self.lost(&other.to_string())),
        }
    }

    /// Waits until the broker has every letter that was handed over before this call.
    ///
    /// # Errors
    /// [`Error::Decision`] where it refused one for good.
    pub async fn settled(&self) -> Result<()> {
        let mut state = self.state.clone();
        let until = self.sent.load(std::sync::atomic::Ordering::SeqCst);
        let settled = state.wait_for(|s| s.refused.is_some() || s.pending.first().is_none_or(|n| *n >= until)).await;
        match settled {
            Ok(state) => state.refused.as_ref().map_or(Ok(()), |why| Err(self.lost(why))),
            Err(_) => Err(Error::Internal("the dead-letter producer has ended".into())),
        }
    }

    fn lost(&self, why: &str) -> Error {
        Error::Decision(format!(
            "a rejected record cannot be written to the dead-letter topic {}: {why}; nothing behind it is committed: let the \
             topic take it (it exists, has room, max.message.bytes), then start again",
            self.topic
        ))
    }
}

/// The headers of a record in the form in which it is sent.
pub(super) fn headers(record: &Record) -> OwnedHeaders {
    let empty = OwnedHeaders::new_with_capacity(record.headers.len());
    record.headers.iter().fold(empty, |all, (key, value)| all.insert(Header { key, value: value.as_ref() }))
}

/// What the broker says of `max.message.bytes`; `None` where it says nothing.
async fn record_bytes_max(native: &rdkafka::ClientConfig, topic: &str) -> Option<usize> {
    let admin: AdminClient<DefaultClientContext> = native.create().ok()?;
    let options = AdminOptions::new().request_timeout(Some(ASK_WITHIN)).operation_timeout(Some(ASK_WITHIN));
    let asked = [ResourceSpecifier::Topic(topic)];
    let answers = tokio::time::timeout(ASK_WITHIN * 2, admin.describe_configs(&asked, &options)).await.ok()?.ok()?;
    let resource = answers.into_iter().next()?.ok()?;
    resource.entries.iter().find(|entry| entry.name == "max.message.bytes")?.value.as_ref()?.parse().ok()
}

/// Hears from librdkafka's thread what became of each letter.
struct Acks {
    told: watch::Sender<State>,
}

impl ClientContext for Acks {}

impl ProducerContext for Acks {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        self.told.send_modify(|state| match result {
            Ok(_) => {
                state.pending.remove(&(number as u64));
            }
            // It stays pending as well: V must not pass it.
            Err((error, _)) => {
                state.refused.get_or_insert_with(|| error.to_string());
            }
        });
    }
}

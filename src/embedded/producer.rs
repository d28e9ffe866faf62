//! Fills a topic with market data, never so far ahead of its reader that the embedded broker drops records.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};

use super::market::{Event, Market, mix};
use crate::{Error, Result};

/// Records of one partition that may be in the broker and not yet consumed, unless the caller wants fewer. With market
/// data it stays below [`PARTITION_BYTES_MAX`](super::broker::PARTITION_BYTES_MAX), at which the broker drops records.
pub const LEAD_MAX: u64 = 40_000;

/// Deliveries and waiting consumers are looked after between so many events.
const EVENTS_PER_POLL: u64 = 512;
const WAIT: Duration = Duration::from_millis(1);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const FLUSH_WITHIN: Duration = Duration::from_secs(30);

/// Where events go and how many.
#[derive(Debug, Clone)]
pub struct Job<'a> {
    /// `host:port`.
    pub bootstrap_servers: &'a str,
    /// Exists already; its partitions are asked for.
    pub topic: &'a str,
    /// How many events to produce.
    pub events: u64,
    /// Records per partition that may be ahead of the consumer; [`LEAD_MAX`] at most, 1 at least.
    pub lead_max: u64,
}

/// What was produced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Produced {
    /// Records that the broker has, tombstones included.
    pub events: u64,
    /// Those of them that delete their key.
    pub tombstones: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// Events by partition.
    pub by_partition: Vec<u64>,
    /// The stop flag ended it before all events were out.
    pub stopped: bool,
}

/// Produces `job.events` events of `market`, each key always to the same partition and in order. Blocks: give it a
/// thread of its own.
///
/// `consumed(partition)` is the next offset that the reader has not yet taken, and may lag behind the truth; the
/// producer waits while a partition is `lead_max` records ahead of it. A reader that restarts from its last commit
/// needs the offsets from there on, so for a reader that has to survive that, answer with the committed offset. Once
/// `stop` is set the producer delivers what it has accepted and returns.
///
/// # Errors
/// [`Error::Unreachable`] when the broker does not answer or does not take a record.
pub fn produce(
    job: &Job<'_>,
    market: &mut Market,
    consumed: impl Fn(i32) -> i64,
    stop: &AtomicBool,
) -> Result<Produced> {
    produce_paced(job, market, u64::MAX, consumed, stop)
}

/// As [`produce`], but at most `per_second` events a second, evenly.
///
/// # Errors
/// As [`produce`].
pub fn produce_paced(
    job: &Job<'_>,
    market: &mut Market,
    per_second: u64,
    consumed: impl Fn(i32) -> i64,
    stop: &AtomicBool,
) -> Result<Produced> {
    let producer = connect(job)?;
    let mut run = Run::new(job, &producer)?;
    let mut done = 0;
    let began = Instant::now();
    while done < job.events && !stop.load(Ordering::Relaxed) {
        if per_second != u64::MAX && done as f64 >= began.elapsed().as_secs_f64() * per_second as f64 {
            producer.poll(WAIT);
            run.check_deliveries()?;
            continue;
        }
        let event = market.next_event();
        let partition = partition_of(event.id, run.next.len() as i32);
        if !run.wait_for_room(partition, &consumed, stop) || !run.send(&event, partition, stop)? {
            break;
        }
        done += 1;
        if done % EVENTS_PER_POLL == 0 {
            producer.poll(Duration::ZERO);
            run.check_deliveries()?;
        }
    }
    producer.flush(FLUSH_WITHIN).map_err(|error| run.failed(&error))?;
    run.check_deliveries()?;
    run.produced.stopped = done < job.events;
    Ok(run.produced)
}

/// The partition of a key: the same for all its events, and even over all keys.
#[must_use]
pub fn partition_of(id: i64, partitions: i32) -> i32 {
    (mix(id as u64) % partitions.max(1) as u64) as i32
}

/// The state of one call of [`produce`].
struct Run<'a> {
    job: &'a Job<'a>,
    producer: &'a BaseProducer<Deliveries>,
    lead_max: u64,
    /// The offset that the next record of each partition gets.
    next: Vec<u64>,
    /// Records that each partition may get before the consumer is asked again.
    room: Vec<u64>,
    produced: Produced,
}

impl<'a> Run<'a> {
    fn new(job: &'a Job<'a>, producer: &'a BaseProducer<Deliveries>) -> Result<Run<'a>> {
        let next = ends(job, producer)?;
        let (room, by_partition) = (vec![0; next.len()], vec![0; next.len()]);
        let produced = Produced { by_partition, ..Produced::default() };
        Ok(Run { job, producer, lead_max: job.lead_max.clamp(1, LEAD_MAX), next, room, produced })
    }

    /// Waits until the partition may get another record; false when it is to stop.
    fn wait_for_room(&mut self, partition: i32, consumed: &impl Fn(i32) -> i64, stop: &AtomicBool) -> bool {
        let at = partition as usize;
        while self.room[at] == 0 {
            if stop.load(Ordering::Relaxed) {
                return false;
            }
            let lead = self.next[at].saturating_sub(consumed(partition).max(0) as u64);
            self.room[at] = self.lead_max.saturating_sub(lead);
            if self.room[at] == 0 {
                // The consumer waits for what is queued here, so sending goes on meanwhile.
                self.producer.poll(WAIT);
            }
        }
        true
    }

    /// Hands the event to librdkafka, waiting while its bounded queue is full; false when it is to stop.
    fn send(&mut self, event: &Event<'_>, partition: i32, stop: &AtomicBool) -> Result<bool> {
        let mut record = BaseRecord::<[u8], [u8]>::to(self.job.topic);
        record = record.partition(partition).key(event.key).timestamp(event.ts);
        if let Some(value) = event.value {
            record = record.payload(value);
        }
        loop {
            match self.producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), returned)) => {
                    if stop.load(Ordering::Relaxed) {
                        return Ok(false);
                    }
                    record = returned;
                    self.producer.poll(WAIT);
                    self.check_deliveries()?;
                }
                Err((error, _)) => return Err(self.failed(&error)),
            }
        }
        let at = partition as usize;
        self.next[at] += 1;
        self.room[at] -= 1;
        self.produced.events += 1;
        self.produced.by_partition[at] += 1;
        self.produced.tombstones += u64::from(event.value.is_none());
        self.produced.bytes += (event.key.len() + event.value.map_or(0, <[u8]>::len)) as u64;
        Ok(true)
    }

    fn check_deliveries(&self) -> Result<()> {
        let context = self.producer.context();
        match context.failed.load(Ordering::Relaxed) {
            0 => Ok(()),
            failed => {
                let first = context.first.lock().unwrap_or_else(PoisonError::into_inner);
                Err(self.failed(&format!("{failed} records were not delivered, the first because: {first}")))
            }
        }
    }

    fn failed(&self, why: &dyn std::fmt::Display) -> Error {
        let Job { topic, bootstrap_servers, .. } = self.job;
        Error::Unreachable(format!("producing to topic {topic} on {bootstrap_servers}: {why}"))
    }
}

fn connect(job: &Job<'_>) -> Result<BaseProducer<Deliveries>> {
    ClientConfig::new()
        .set("bootstrap.servers", job.bootstrap_servers)
        .set("client.id", "firn-market")
        .set("queue.buffering.max.messages", "100000")
        .set("batch.num.messages", "10000")
        .set("linger.ms", "5")
        // One request at a time keeps the order of a key when a request has to be repeated.
        .set("max.in.flight.requests.per.connection", "1")
        .set("delivery.report.only.error", "true")
        .set("message.timeout.ms", "30000")
        .set_log_level(RDKafkaLogLevel::Error)
        .create_with_context(Deliveries::default())
        .map_err(|error| Error::Unreachable(format!("the market data producer did not start: {error}")))
}

/// The end offset of each partition of the topic.
fn ends(job: &Job<'_>, producer: &BaseProducer<Deliveries>) -> Result<Vec<u64>> {
    let failed = |error: &dyn std::fmt::Display| {
        let Job { topic, bootstrap_servers, .. } = job;
        Error::Unreachable(format!("topic {topic} on {bootstrap_servers}: {error}; is the broker running?"))
    };
    let client = producer.client();
    let metadata = client.fetch_metadata(Some(job.topic), ANSWER_WITHIN).map_err(|error| failed(&error))?;
    let count = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
    if count == 0 {
        return Err(failed(&"it does not exist"));
    }
    (0..count as i32)
        .map(|partition| {
            let (_, end) =
                client.fetch_watermarks(job.topic, partition, ANSWER_WITHIN).map_err(|error| failed(&error))?;
            Ok(end.max(0) as u64)
        })
        .collect()
}

/// Counts records that the broker did not take; delivered ones are not reported one by one.
#[derive(Default)]
struct Deliveries {
    failed: AtomicU64,
    first: Mutex<String>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _opaque: ()) {
        if let Err((error, _)) = result
            && self.failed.fetch_add(1, Ordering::Relaxed) == 0
        {
            *self.first.lock().unwrap_or_else(PoisonError::into_inner) = error.to_string();
        }
    }
}

#[cfg(test)]
mod tests;

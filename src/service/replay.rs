//! Dead letters: looked at, and submitted again once what was wrong with them is mended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use tokio::sync::mpsc;

use super::lanes::{Lanes, Put};
use super::opening::{self, decoder, known_names};
use super::{Catalogs, cluster_within, event_shape, kafka_properties, read_log, registry};
use crate::avro::{Event, Half, Pushed, ValueSchema};
use crate::core::change::{Key, Op};
use crate::core::key_index::KeyEncoder;
use crate::core::letter::{Letter, Letters, Place};
use crate::core::reposition::Log;
use crate::core::resubmit::{Late, Resubmission};
use crate::core::schema::TableSchema;
use crate::settings::{Brokers, Mode, Pipeline, Settings};
use crate::source::{
    Cluster, Found, Registry, RegistryError, Resubmitter, Spans, TopicPartition, TopicSelection, read,
};
use crate::{Error, Result};

/// How long one question to a server may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Records that may be between the thread that reads and the task that looks at them.
const QUEUE: usize = 1024;
/// Letters in one transaction.
const TOGETHER: usize = 100;

/// What became of the letters.
#[derive(Debug, Default)]
pub struct Replay {
    /// Submitted now, or those that would be.
    pub submitted: Vec<Letter>,
    /// Not submitted, and why.
    pub refused: Vec<(Letter, String)>,
    /// Submitted earlier.
    pub earlier: usize,
}

/// All letters of a pipeline; without `content` their keys and values are left out.
///
/// # Errors
/// [`Error::Config`] where the pipeline has no dead letters, [`Error::Unreachable`] where they cannot be read.
pub async fn dead_letters(settings: &Settings, pipeline: &Pipeline, content: bool) -> Result<Letters> {
    let topic = topic(pipeline)?;
    let cluster = cluster_within(settings, PATIENCE)?;
    let spans = whole(&cluster, topic).await?;
    let (mut letters, mut bytes) = (Letters::default(), 0u64);
    let mut records = start_reading(settings, spans)?;
    while let Some(found) = records.next().await? {
        let mut record = found.record;
        if content {
            bytes += record.value.as_ref().map_or(0, Vec::len) as u64;
        } else {
            (record.key, record.value) = (None, None);
        }
        if bytes > settings.memory {
            return Err(Error::Config(format!(
                "the letters in {topic} take more than `memory` ({} bytes): set more of it for this",
                settings.memory
            )));
        }
        letters.add(record);
    }
    letters.whole.retain(|_, letter| letter.pipeline == pipeline.name);
    Ok(letters)
}

/// Submits the letters of a pipeline again that can be rows by now and undo nothing; those of `reasons` alone where it
/// names any. With `dry` it only says which.
///
/// # Errors
/// As [`dead_letters`], and [`Error::Unreachable`] where a server does not answer that is needed.
pub async fn replay(settings: &Settings, pipeline: &Pipeline, reasons: &[String], dry: bool) -> Result<Replay> {
    let mut letters = dead_letters(settings, pipeline, true).await?;
    let mut outcome = Replay::default();
    let before = letters.whole.len();
    letters.whole.retain(|place, _| !letters.replayed.contains(place));
    outcome.earlier = before - letters.whole.len();
    letters.whole.retain(|_, letter| reasons.is_empty() || reasons.contains(&letter.reason));
    if letters.whole.is_empty() {
        return Ok(outcome);
    }
    let cluster = cluster_within(settings, PATIENCE)?;
    let log = read_log(&cluster, pipeline).await?;
    let mut reader = KeyReader::open(settings, pipeline, &log).await?;
    let mut resubmission = Resubmission::new(late(pipeline));
    let mut spans = Spans::new();
    for letter in letters.whole.values() {
        match candidate(&mut reader, letter, &log).await? {
            Ok((key, first, end)) => {
                resubmission.add(&letter.place, key, first);
                let partition = TopicPartition::new(letter.topic.as_str(), letter.place.partition);
                let from = (letter.place.offset + 1).max(first);
                let span = spans.entry(partition).or_insert((from, end));
                span.0 = span.0.min(from);
            }
            Err(why) => outcome.refused.push((letter.clone(), why)),
        }
    }
    if late(pipeline) != Late::Row {
        note_later(settings, &mut reader, spans, &log, &mut resubmission).await?;
    }
    for (place, decided) in resubmission.decide() {
        let Some(letter) = letters.whole.remove(place) else { continue };
        match decided {
            Ok(()) => outcome.submitted.push(letter),
            Err(why) => outcome.refused.push((letter, why.to_owned())),
        }
    }
    if !dry {
        submit(settings, pipeline, outcome.submitted.clone()).await?;
    }
    Ok(outcome)
}

fn late(pipeline: &Pipeline) -> Late {
    let ordered = pipeline.tables.iter().all(|table| pipeline.order_of(table).is_some());
    match (pipeline.mode, ordered) {
        (Mode::Append, _) => Late::Row,
        (Mode::Upsert, true) => Late::Ordered,
        (Mode::Upsert, false) => Late::Overwrites,
    }
}

fn topic(pipeline: &Pipeline) -> Result<&String> {
    let none = || Error::Config(format!("pipeline {} has no `dead_letter` topic", pipeline.name));
    pipeline.dead_letter.as_ref().ok_or_else(none)
}

/// All of a topic.
async fn whole(cluster: &Cluster, topic: &String) -> Result<Spans> {
    let topology = cluster.describe_once(&TopicSelection::parse(std::slice::from_ref(topic))?).await?;
    let partitions: Vec<_> = topology.partitions().map(|(partition, _)| partition).collect();
    let ends = cluster.last_stable_offsets(&partitions).await?;
    let marks = cluster.watermarks(&partitions).await?;
    let span = |p: TopicPartition| {
        let (from, until) = (marks.get(&p)?.0, *ends.get(&p)?);
        Some((p, (from, until)))
    };
    Ok(partitions.into_iter().filter_map(span).collect())
}

/// Records as a thread reads them.
struct Reading {
    records: mpsc::Receiver<Found>,
    thread: Option<tokio::task::JoinHandle<Result<()>>>,
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Found>> {
        if let Some(found) = self.records.recv().await {
            return Ok(Some(found));
        }
        match self.thread.take() {
            Some(thread) => thread.await.map_err(|e| Error::Internal(format!("reading ended: {e}")))?.map(|()| None),
            None => Ok(None),
        }
    }
}

fn start_reading(settings: &Settings, spans: Spans) -> Result<Reading> {
    let (brokers, properties) = (brokers(settings)?, kafka_properties(settings));
    let (out, records) = mpsc::channel(QUEUE);
    let thread = tokio::task::spawn_blocking(move || read(&brokers, &properties, &spans, &out));
    Ok(Reading { records, thread: Some(thread) })
}

fn brokers(settings: &Settings) -> Result<String> {
    match &settings.kafka.brokers {
        Brokers::List(brokers) => Ok(brokers.clone()),
        Brokers::Embedded => Err(Error::Config("kafka.brokers: embedded is not running here".into())),
    }
}

/// The letter's key and its partition's first and last stable offset, or why it cannot be submitted.
async fn candidate(
    reader: &mut KeyReader,
    letter: &Letter,
    log: &Log,
) -> Result<std::result::Result<(Option<Key>, i64, i64), String>> {
    let topic = log.topics.get(&letter.topic).filter(|topic| *topic.id == letter.place.topic_id);
    let Some(partition) = topic.and_then(|topic| topic.partitions.get(&letter.place.partition)) else {
        return Ok(Err(format!("its topic {} is not there any more, or was created again", letter.topic)));
    };
    let event = (letter.topic.as_str(), letter.place.partition, letter.place.offset, letter.timestamp_ms);
    Ok(match reader.read(event, letter.key.as_deref(), letter.value.as_deref()).await? {
        Read::Event(keys, _) if keys.len() > 1 => {
            Err("it deletes rows of several record types, of which some may have been written since".into())
        }
        Read::Event(keys, _) => Ok((keys.first().copied(), partition.first, partition.stable)),
        Read::Nothing => Err("it is a tombstone, which means nothing in append mode".into()),
        Read::Bad(why) => Err(format!("it would be rejected again: {why}")),
    })
}

/// Shows the resubmission what the log has behind the letters.
async fn note_later(
    settings: &Settings,
    reader: &mut KeyReader,
    spans: Spans,
    log: &Log,
    resubmission: &mut Resubmission,
) -> Result<()> {
    let mut records = start_reading(settings, spans)?;
    while let Some(Found { partition, offset, timestamp_ms, record }) = records.next().await? {
        let Some(topic) = log.topics.get(&*partition.topic) else { continue };
        let event = (&*partition.topic, partition.partition, offset, timestamp_ms);
        let read = reader.read(event, record.key.as_deref(), record.value.as_deref()).await?;
        let Read::Event(keys, deletes) = read else { continue };
        let place = Place { topic_id: topic.id.to_string(), partition: partition.partition, offset };
        keys.into_iter().for_each(|key| resubmission.note(&place, key, deletes));
    }
    Ok(())
}

async fn submit(settings: &Settings, pipeline: &Pipeline, letters: Vec<Letter>) -> Result<()> {
    let (brokers, properties, topic) = (brokers(settings)?, kafka_properties(settings), topic(pipeline)?.clone());
    let name = format!("firn-replay-{}", pipeline.group);
    let submitted = tokio::task::spawn_blocking(move || {
        let resubmitter = Resubmitter::open(&brokers, &properties, &name, &topic)?;
        letters.chunks(TOGETHER).try_for_each(|together| resubmitter.submit(together))
    });
    submitted.await.map_err(|e| Error::Internal(format!("submitting ended: {e}")))?
}

/// What a record would be to the table.
enum Read {
    /// A row, or a deletion, of a key; none in append mode. A tombstone may be of a key in several tables.
    Event(Vec<Key>, bool),
    /// Nothing.
    Nothing,
    /// A bad record.
    Bad(String),
}

/// Reads keys as the pipeline does.
struct KeyReader {
    lanes: Lanes,
    /// How many there are.
    count: usize,
    registry: Registry,
    topics: BTreeMap<String, Arc<str>>,
    refused: BTreeSet<(u32, bool)>,
}

impl KeyReader {
    async fn open(settings: &Settings, pipeline: &Pipeline, log: &Log) -> Result<KeyReader> {
        let registry = registry(settings)?;
        let topic = log.topics.keys().next().cloned().unwrap_or_default();
        let newest = super::latest(&registry, pipeline, &topic, Duration::ZERO).await?;
        let catalogs = Catalogs::default();
        let mut decoders = Vec::new();
        for lane in opening::lanes(pipeline) {
            let table = lane[0];
            let shape = event_shape(pipeline, table).with_key_schema(newest.key.is_some());
            let catalog = catalogs.get(settings, &table.catalog).await?;
            let opened = catalog.load_table(&table.namespace, &table.name).await?;
            let opened = opened.ok_or_else(|| Error::Config(format!("there is no table {} yet", table.table_ref())))?;
            let values = newest.values.iter().filter(|value| value.has_any_of(&shape.types));
            let wanted =
                values.filter_map(|v| v.table_schema(newest.key.as_deref(), &shape, table.format_version).ok());
            let schema = known_names(&opened.lake().schema(), &wanted.collect::<Vec<_>>());
            decoders.push((decoder(&schema, &shape, encoder(pipeline, &schema)?)?, shape.types.clone()));
        }
        let topics = log.topics.keys().map(|name| (name.clone(), Arc::from(name.as_str()))).collect();
        let count = decoders.len();
        Ok(KeyReader { lanes: Lanes::new(decoders), count, registry, topics, refused: BTreeSet::new() })
    }

    async fn read(
        &mut self,
        (topic, partition, offset, timestamp_ms): (&str, i32, i64, i64),
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<Read> {
        let topic = self.topics.get(topic).cloned().unwrap_or_else(|| Arc::from(topic));
        let event = Event { topic: &topic, partition, offset, timestamp_ms, key, value };
        loop {
            let pushed = match self.lanes.push(&event) {
                Put::Pushed(pushed) => pushed,
                Put::Unknown(name) => return Ok(Read::Bad(format!("unknown_type: no table takes record type {name}"))),
            };
            match pushed {
                Pushed::Row | Pushed::Delete => return self.event(),
                Pushed::Passed => return Ok(Read::Nothing),
                Pushed::Bad(bad) => return Ok(Read::Bad(bad.to_string())),
                Pushed::Full => drop(self.lanes.cut(&[])?),
                Pushed::NeedsSchema { id, of } => {
                    if let Some(why) = self.learn(id, of).await? {
                        return Ok(Read::Bad(why));
                    }
                }
            }
        }
    }

    /// The event that was just appended. Keys of different lanes are different ones.
    fn event(&mut self) -> Result<Read> {
        let chunks = self.lanes.cut(&[])?;
        let apart = |(lane, key): (usize, &Key)| Key(key.0.wrapping_mul(self.count as u128).wrapping_add(lane as u128));
        let keys =
            chunks.iter().enumerate().filter_map(|(lane, chunk)| Some(apart((lane, chunk.keys.first()?)))).collect();
        let deletes = chunks.iter().any(|chunk| chunk.ops.first().is_some_and(|op| *op != Op::Upsert));
        Ok(Read::Event(keys, deletes))
    }

    /// Fetches a schema; why its records are bad, where they are.
    async fn learn(&mut self, id: u32, of: Half) -> Result<Option<String>> {
        if self.refused.contains(&(id, of == Half::Key)) {
            return Ok(Some(format!("the tables cannot hold rows of {of} schema {id}")));
        }
        let text = match self.registry.schema(id as i32).await {
            Ok(schema) => schema.text,
            Err(error @ RegistryError::NotFound(_)) => return Ok(Some(format!("unknown_schema: {error}"))),
            Err(error) => return Err(error.into()),
        };
        let added = match of {
            Half::Value => ValueSchema::parse(&text).and_then(|schema| self.lanes.add_values(id, &schema)),
            Half::Key => self.lanes.add_key_schema(id, &text),
        };
        match added {
            Ok(()) => Ok(None),
            Err(Error::Decision(why)) => {
                self.refused.insert((id, of == Half::Key));
                Ok(Some(why))
            }
            Err(error) => Err(error),
        }
    }
}

/// How the keys of tables with these columns are told apart; None in append mode.
fn encoder(pipeline: &Pipeline, schema: &TableSchema) -> Result<Option<Arc<KeyEncoder>>> {
    if pipeline.mode == Mode::Append {
        return Ok(None);
    }
    let types: Vec<_> = schema.key.iter().filter_map(|name| schema.column(name)).map(|f| f.kind.clone()).collect();
    let secret = [rand::rng().random(), rand::rng().random()];
    KeyEncoder::new(secret, &types).map(|encoder| Some(Arc::new(encoder))).map_err(Error::Decision)
}

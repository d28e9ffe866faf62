//! Dead letters: looked at, and submitted again once what was wrong with them is mended.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use tokio::sync::mpsc;

use super::lanes::{Lanes, Put};
use super::opening::{self, columns_of, decoder};
use super::schemas::check_pins;
use super::{Catalogs, cluster_within, event_shape, kafka_properties, read_log, registry};
use crate::avro::{Event, Half, KeySchema, Pushed, ValueSchema};
use crate::core::change::{Key, Op};
use crate::core::key_index::KeyEncoder;
use crate::core::letter::{Letter, Letters, Place, replay_of};
use crate::core::reposition::Log;
use crate::core::resubmit::{Late, Resubmission};
use crate::core::schema::TableSchema;
use crate::settings::{Brokers, Mode, Pipeline, Settings};
use crate::source::{
    Cluster, Found, Registry, RegistryError, Resubmitter, Spans, StartAt, TopicPartition, TopicSelection, read,
};
use crate::table::LakeTable;
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
    let (mut letters, mut bytes) = (Letters::of(&pipeline.name), 0u64);
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
    let reader = KeyReader::open(settings, pipeline, &log).await?;
    let resubmission = Resubmission::new(late(pipeline));
    let mut desk = Desk { settings, cluster, log, reader, resubmission, read: Spans::new() };
    let mut left = Vec::new();
    for letter in letters.whole.into_values() {
        match desk.add(&letter).await? {
            None => left.push(letter),
            Some(why) => outcome.refused.push((letter, why)),
        }
    }
    if late(pipeline) != Late::Row && !left.is_empty() {
        desk.look_back(&left).await?;
    }
    let mut left = VecDeque::from(desk.without_refused(left, &mut outcome));
    if dry || left.is_empty() {
        outcome.submitted.extend(left);
        return Ok(outcome);
    }
    let resubmitter = resubmitter(settings, pipeline).await?;
    let mut together = TOGETHER;
    while !left.is_empty() {
        let letters: Vec<Letter> = left.drain(..left.len().min(together)).collect();
        let back = match desk.submit(&resubmitter, &letters).await? {
            Sent::Submitted => {
                outcome.submitted.extend(letters);
                continue;
            }
            Sent::Overtaken => desk.without_refused(letters, &mut outcome),
            Sent::Interleaved => {
                together = (together / 2).max(1);
                letters
            }
        };
        back.into_iter().rev().for_each(|letter| left.push_front(letter));
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

async fn resubmitter(settings: &Settings, pipeline: &Pipeline) -> Result<Arc<Resubmitter>> {
    let (brokers, properties, topic) = (brokers(settings)?, kafka_properties(settings), topic(pipeline)?.clone());
    let name = format!("firn-replay-{}", pipeline.group);
    let opened = blocking(move || Resubmitter::open(&brokers, &properties, &name, &topic)).await?;
    Ok(Arc::new(opened))
}

async fn blocking<T: Send + 'static>(act: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(act).await.map_err(|e| Error::Internal(format!("submitting ended: {e}")))?
}

/// Letters beside the log that they came from.
struct Desk<'a> {
    settings: &'a Settings,
    cluster: Cluster,
    log: Log,
    reader: KeyReader,
    resubmission: Resubmission,
    /// From where to where the log was looked at.
    read: Spans,
}

impl Desk<'_> {
    /// Takes in a letter, or says why it cannot be submitted.
    async fn add(&mut self, letter: &Letter) -> Result<Option<String>> {
        let Letter { place, topic, timestamp_ms, key, value, .. } = letter;
        let known = self.log.topics.get(topic).filter(|known| *known.id == place.topic_id);
        if known.is_none_or(|known| !known.partitions.contains_key(&place.partition)) {
            return Ok(Some(format!("its topic {topic} is not there any more, or was created again")));
        }
        let event = (topic.as_str(), place.partition, place.offset, *timestamp_ms);
        Ok(match self.reader.read(event, key.as_deref(), value.as_deref()).await? {
            Read::Event(keys, _) => {
                self.resubmission.add(place, *timestamp_ms, &keys, value.is_none());
                None
            }
            Read::Nothing => Some("it is a tombstone, which means nothing in append mode".into()),
            Read::Bad(why) => Some(format!("it would be rejected again: {why}")),
        })
    }

    /// Looks at what the log has behind the letters: in their own partitions by offset, in the others by time.
    async fn look_back(&mut self, letters: &[Letter]) -> Result<()> {
        let since = letters.iter().map(|letter| letter.timestamp_ms).min().unwrap_or(-1);
        let at = if since < 0 { StartAt::Earliest } else { StartAt::Time(since) };
        let names: Vec<String> = self.log.topics.keys().cloned().collect();
        let topology = self.cluster.describe_once(&TopicSelection::Names(names)).await?;
        let by_time = self.cluster.start_offsets(&topology, at).await?;
        let mut spans = Spans::new();
        for (partition, id) in topology.partitions() {
            let Some(log) = self.log.topics.get(&*partition.topic).and_then(|t| t.partitions.get(&id.partition)) else {
                continue;
            };
            let own = letters.iter().filter(|l| *l.topic == *partition.topic && l.place.partition == id.partition);
            let own = own.map(|letter| letter.place.offset + 1).min().unwrap_or(log.stable);
            let from = by_time.get(&id).map_or(log.first, |start| start.offset).min(own).max(log.first);
            spans.insert(partition, (from, log.stable.max(from)));
        }
        let first_seen = self.look(spans.clone()).await?;
        for (partition, (from, _)) in &spans {
            let Some(topic) = self.log.topics.get(&*partition.topic) else { continue };
            let first = topic.partitions.get(&partition.partition).map_or(0, |log| log.first);
            let complete =
                if *from > first { i64::MIN } else { first_seen.get(partition).copied().unwrap_or(i64::MAX) };
            let place = Place { topic_id: topic.id.to_string(), partition: partition.partition, offset: first };
            self.resubmission.begins(&place, complete);
        }
        self.read = spans;
        Ok(())
    }

    /// Shows the resubmission these stretches of the log. Returns the timestamp of the first record of each.
    async fn look(&mut self, spans: Spans) -> Result<BTreeMap<TopicPartition, i64>> {
        let mut first = BTreeMap::new();
        let mut records = start_reading(self.settings, spans)?;
        while let Some(Found { partition, offset, timestamp_ms, record }) = records.next().await? {
            let Some(topic) = self.log.topics.get(&*partition.topic) else { continue };
            let place = Place { topic_id: topic.id.to_string(), partition: partition.partition, offset };
            let event = (&*partition.topic, partition.partition, offset, timestamp_ms);
            let read = self.reader.read(event, record.key.as_deref(), record.value.as_deref()).await?;
            if let Read::Event(keys, deletes) = read {
                let then = replay_of(&record.headers)
                    .filter(|then| (&then.topic_id, then.partition) == (&place.topic_id, place.partition));
                let place = then.unwrap_or(place);
                keys.into_iter().for_each(|key| self.resubmission.note(&place, timestamp_ms, key, deletes));
            }
            first.entry(partition).or_insert(timestamp_ms);
        }
        Ok(first)
    }

    /// Lists the letters that may not be submitted, and returns the others.
    fn without_refused(&self, letters: Vec<Letter>, outcome: &mut Replay) -> Vec<Letter> {
        let mut kept = Vec::new();
        for letter in letters {
            match self.resubmission.refusal(&letter.place) {
                None => kept.push(letter),
                Some(why) => outcome.refused.push((letter, why.to_owned())),
            }
        }
        kept
    }

    /// Submits letters in one transaction, unless what came in between forbids it for one of them.
    async fn submit(&mut self, resubmitter: &Arc<Resubmitter>, letters: &[Letter]) -> Result<Sent> {
        let (to, batch) = (resubmitter.clone(), letters.to_vec());
        let offsets = blocking(move || to.send(&batch)).await?;
        let sent = self.after_sending(letters, &offsets).await;
        let to = resubmitter.clone();
        match sent {
            Ok(Sent::Submitted) => blocking(move || to.commit()).await.map(|()| Sent::Submitted),
            other => {
                blocking(move || {
                    to.abort();
                    Ok(())
                })
                .await?;
                other
            }
        }
    }

    /// Whether letters may be submitted that were sent and are at these offsets now. Whatever is behind them comes after
    /// them; what came in before them since the last look is looked at here.
    async fn after_sending(&mut self, letters: &[Letter], offsets: &[i64]) -> Result<Sent> {
        if self.read.is_empty() {
            return Ok(Sent::Submitted);
        }
        let mut own: BTreeMap<TopicPartition, (i64, i64)> = BTreeMap::new();
        for (letter, &offset) in letters.iter().zip(offsets) {
            let partition = TopicPartition::new(letter.topic.as_str(), letter.place.partition);
            let (_, next) = own.entry(partition).or_insert((offset, offset));
            if *next != offset {
                return Ok(Sent::Interleaved);
            }
            *next += 1;
        }
        let others: Vec<_> = self.read.keys().filter(|partition| !own.contains_key(partition)).cloned().collect();
        let ends = self.cluster.last_stable_offsets(&others).await?;
        let mut spans = Spans::new();
        for (partition, (_, read)) in &mut self.read {
            let until = own.get(partition).map(|(first, _)| *first).or_else(|| ends.get(partition).copied());
            let until = until.unwrap_or(*read).max(*read);
            spans.insert(partition.clone(), (*read, until));
            *read = until;
        }
        self.look(spans).await?;
        if letters.iter().any(|letter| self.resubmission.refusal(&letter.place).is_some()) {
            return Ok(Sent::Overtaken);
        }
        // What was sent is not looked at again, should it be committed; what was taken back is not shown.
        for (partition, (_, next)) in own {
            self.read.entry(partition).and_modify(|(_, read)| *read = next);
        }
        Ok(Sent::Submitted)
    }
}

/// What became of letters that were sent.
enum Sent {
    Submitted,
    /// Their keys were written or deleted while the replay ran.
    Overtaken,
    /// Other records are between them, which nobody can look at before the transaction has ended.
    Interleaved,
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
    tables: Vec<Arc<dyn LakeTable>>,
}

impl KeyReader {
    async fn open(settings: &Settings, pipeline: &Pipeline, log: &Log) -> Result<KeyReader> {
        let registry = registry(settings)?;
        let topic = log.topics.keys().next().cloned().unwrap_or_default();
        let newest = super::latest(&registry, pipeline, &topic, Duration::ZERO).await?;
        let catalogs = Catalogs::default();
        let (mut decoders, mut all) = (Vec::new(), Vec::new());
        for lane in opening::lanes(pipeline) {
            let table = lane[0];
            let shape = event_shape(pipeline, table).with_key_schema(newest.key.is_some());
            let catalog = catalogs.get(settings, &table.catalog).await?;
            let opened = catalog.load_table(&table.namespace, &table.name).await?;
            let opened = opened.ok_or_else(|| Error::Config(format!("there is no table {} yet", table.table_ref())))?;
            let (tables, formats) = ([opened.lake()], super::lane_formats(settings, pipeline, table));
            let wanted = opening::wanted(&newest, &shape, table.format_version).unwrap_or_default();
            // Where the newest schema does not fit, letters of others may.
            let schema = columns_of(&tables, pipeline, &shape, &wanted, &formats)
                .unwrap_or_else(|_| tables[0].schema().common_to(&formats));
            all.extend(tables);
            decoders.push((
                decoder(&schema, &shape, encoder(pipeline, &schema)?)?,
                shape.types.clone(),
                formats.into(),
            ));
        }
        let topics = log.topics.keys().map(|name| (name.clone(), Arc::from(name.as_str()))).collect();
        let count = decoders.len();
        Ok(KeyReader { lanes: Lanes::new(decoders), count, registry, topics, refused: BTreeSet::new(), tables: all })
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
            Ok(schema) => {
                check_pins(&self.tables, id, Some(schema.fingerprint))?;
                schema.text
            }
            Err(error @ RegistryError::NotFound(_)) => {
                check_pins(&self.tables, id, None)?;
                return Ok(Some(format!("unknown_schema: {error}")));
            }
            Err(error) => return Err(error.into()),
        };
        let added = match of {
            Half::Value => ValueSchema::parse(&text).and_then(|schema| self.lanes.add_values(id, &Arc::new(schema))),
            Half::Key => self.lanes.add_keys(id, &Arc::new(KeySchema::parse(&text))),
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

//! From the poll thread to the writers: records become chunks.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use tokio::sync::mpsc;

use super::lanes::{Lanes, Put, Wanted};
use super::observing::Rejected;
use crate::Result;
use crate::avro::{Half, KeySchema, Pushed, ValueSchema};
use crate::core::budget::Budget;
use crate::core::change::{Chunk, Run};
use crate::core::letter::{Letter, Place, REPLAY_FOR};
use crate::core::offsets::{Epoch, PartitionId};
use crate::error::Error;
use crate::settings::{OnBadRecord, OnIncompatibleSchema, OnUnknownType};
use crate::source::{DeadLetters, Flow, Handler, Message, Taken, TopicPartition};
use crate::telemetry::Beat;

/// A chunk is passed on when it holds this many events…
const CHUNK_EVENTS: usize = 65_536;
/// …or as many bytes as its share of the memory allows…
/// …or when its first event has waited this long.
const CHUNK_WAIT: Duration = Duration::from_millis(100);
/// How long a schema id that the registry does not know counts as unknown before it is asked for again.
const UNKNOWN_SCHEMA: Duration = Duration::from_secs(10);
/// Rejected records are logged one by one up to this many a second.
const BAD_LOGGED_PER_SECOND: u32 = 10;

/// The reason of records whose schema does not fit the tables.
pub(super) const INCOMPATIBLE: &str = "incompatible_schema";
/// The reason of records of a type that no table takes.
pub(super) const UNKNOWN_TYPE: &str = "unknown_type";
/// The reason of records whose schema the registry does not have.
pub(super) const NO_SCHEMA: &str = "unknown_schema";

/// What the intake tells its pipeline.
#[derive(Debug)]
pub(super) enum FromIntake {
    /// Decoded events, or positions alone; one for each lane.
    Chunks(Vec<Arc<Chunk<RecordBatch>>>),
    /// A record names this schema, and the decoder does not have it.
    NeedsSchema { id: u32, of: Half },
    /// A record was rejected and the pipeline is to stop there.
    Fatal(Error),
}

/// What became of a schema that was asked for.
#[derive(Debug)]
pub(super) enum SchemaAnswer {
    /// That of values, and the tables that it would make.
    Value { schema: Arc<ValueSchema>, wanted: Wanted },
    /// That of record keys.
    Key(Arc<KeySchema>),
    /// The registry does not have it: records that name it are bad.
    Unknown(String),
    /// The tables cannot hold its rows.
    Incompatible(String),
    /// The registry's answer is none.
    Failed(Error),
}

/// What becomes of records that cannot be rows.
pub(super) struct Rules {
    pub(super) pipeline: String,
    pub(super) on_bad_record: OnBadRecord,
    pub(super) on_incompatible_schema: OnIncompatibleSchema,
    pub(super) on_unknown_type: OnUnknownType,
    pub(super) budget: Budget,
    /// Where there is a topic for them.
    pub(super) dead_letters: Option<Arc<DeadLetters>>,
}

/// What is wrong with a record.
struct Fault<'a> {
    code: &'static str,
    half: Half,
    text: &'a str,
}

/// Topic id by name, kept current by the pipeline.
pub(super) type TopicIds = Arc<std::sync::Mutex<BTreeMap<Arc<str>, Arc<str>>>>;

/// Decodes on the poll thread. It never blocks: what it cannot take now it refuses, and is shown again.
pub(super) struct Intake {
    lanes: Lanes,
    topics: TopicIds,
    /// Partition identity by the source's slot number.
    slots: Vec<Option<PartitionId>>,
    runs: Vec<Run>,
    /// The slot that the last run is of.
    run_slot: usize,
    since: Option<Instant>,
    /// Cut and not passed on yet.
    ready: Option<FromIntake>,
    out: mpsc::Sender<FromIntake>,
    answers: std::sync::mpsc::Receiver<(u32, Half, SchemaAnswer)>,
    /// An answer that waits for the chunk in front of it to leave.
    answered: Option<(u32, Half, SchemaAnswer)>,
    asked: Option<(u32, Half)>,
    unknown: HashMap<(u32, Half), (Instant, String)>,
    /// Schemas whose rows the tables cannot hold, where their records are bad ones.
    incompatible: HashMap<(u32, Half), String>,
    rules: Rules,
    /// A chunk of this many bytes is passed on.
    chunk_bytes: usize,
    beat: Beat,
    /// Events in the chunks that were cut.
    good: u64,
    stopped: bool,
    logged: (Instant, u32),
    rejected: Arc<std::sync::Mutex<Rejected>>,
}

impl Intake {
    pub(super) fn new(
        lanes: Lanes,
        topics: TopicIds,
        out: mpsc::Sender<FromIntake>,
        answers: std::sync::mpsc::Receiver<(u32, Half, SchemaAnswer)>,
        rules: Rules,
        rejected: Arc<std::sync::Mutex<Rejected>>,
        (chunk_bytes, beat): (usize, Beat),
    ) -> Self {
        Intake {
            lanes,
            topics,
            slots: Vec::new(),
            runs: Vec::new(),
            run_slot: usize::MAX,
            since: None,
            ready: None,
            out,
            answers,
            answered: None,
            asked: None,
            unknown: HashMap::new(),
            incompatible: HashMap::new(),
            rules,
            chunk_bytes,
            beat,
            good: 0,
            stopped: false,
            logged: (Instant::now(), 0),
            rejected,
        }
    }

    /// The identity of a partition; none while its topic is not known.
    fn identify(&mut self, slot: usize, partition: &TopicPartition) -> Option<&PartitionId> {
        if self.slots.len() <= slot {
            self.slots.resize(slot + 1, None);
        }
        if self.slots[slot].is_none() {
            let topic = self.topics.lock().ok()?.get(&partition.topic)?.clone();
            self.slots[slot] = Some(PartitionId { topic, partition: partition.partition });
        }
        self.slots[slot].as_ref()
    }

    /// Moves the run of a partition to `next`, for every lane.
    #[inline]
    fn advance(&mut self, slot: usize, partition: &TopicPartition, epoch: Epoch, next: i64) {
        if let Some(last) = self.runs.last_mut()
            && last.epoch == epoch
            && self.run_slot == slot
        {
            last.next = last.next.max(next);
            return;
        }
        let Some(id) = self.identify(slot, partition).cloned() else { return };
        self.since.get_or_insert_with(Instant::now);
        self.runs.push(Run { partition: id, epoch, events: 0, next });
        self.lanes.open_run();
        self.run_slot = slot;
    }

    /// Passes over a record.
    fn pass(&mut self, message: &Message<'_>) -> Flow {
        self.advance(message.slot, message.partition, message.epoch, message.offset + 1);
        Flow::Taken
    }

    /// Whether there is room for another event: passes on what is ready, and cuts a chunk that is full.
    #[inline]
    fn has_room(&mut self) -> bool {
        if (self.ready.is_some() && !self.pass_on()) || self.stopped {
            return false;
        }
        let (events, bytes) = self.lanes.size();
        if events >= CHUNK_EVENTS || bytes >= self.chunk_bytes {
            self.cut();
            return self.pass_on();
        }
        true
    }

    /// Tries to hand over what is ready; true when nothing is left.
    fn pass_on(&mut self) -> bool {
        let Some(ready) = self.ready.take() else { return true };
        match self.out.try_send(ready) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(ready)) => {
                self.ready = Some(ready);
                false
            }
            // The pipeline is gone; nothing read now can be written.
            Err(mpsc::error::TrySendError::Closed(_)) => {
                self.stopped = true;
                true
            }
        }
    }

    /// Makes a chunk for each lane of everything decoded so far.
    fn cut(&mut self) {
        self.since = None;
        let runs = std::mem::take(&mut self.runs);
        if runs.is_empty() {
            return;
        }
        let (events, _) = self.lanes.size();
        if let Ok(mut rejected) = self.rejected.lock() {
            rejected.cut_times += self.lanes.take_cut_times();
        }
        match self.lanes.cut(&runs) {
            Ok(chunks) => {
                self.good += events as u64;
                self.ready = Some(FromIntake::Chunks(chunks));
            }
            Err(error) => {
                self.stopped = true;
                self.ready = Some(FromIntake::Fatal(error));
            }
        }
    }

    /// Takes over schemas that have arrived.
    fn take_answers(&mut self) {
        while let Some((id, of, answer)) = self.answered.take().or_else(|| self.answers.try_recv().ok()) {
            // Columns grow between two chunks: what came before leaves first.
            if self.lanes.size().0 > 0 {
                if !self.pass_on() {
                    self.answered = Some((id, of, answer));
                    return;
                }
                self.cut();
            }
            if self.asked == Some((id, of)) {
                self.asked = None;
            }
            let added = match answer {
                SchemaAnswer::Value { schema, wanted } => self.lanes.grow(id, &schema, &wanted),
                SchemaAnswer::Key(schema) => self.lanes.add_keys(id, &schema),
                SchemaAnswer::Failed(error) => {
                    self.stop(error);
                    continue;
                }
                SchemaAnswer::Unknown(reason) => {
                    self.unknown.insert((id, of), (Instant::now(), reason));
                    continue;
                }
                SchemaAnswer::Incompatible(why) => Err(Error::Decision(why)),
            };
            match (added, self.rules.on_incompatible_schema) {
                (Ok(()), _) => {}
                (Err(Error::Decision(why)), OnIncompatibleSchema::DeadLetter) => {
                    self.incompatible.insert((id, of), why);
                }
                (Err(error), _) => self.stop(error.within(format_args!("{of} schema {id} does not fit the tables"))),
            }
        }
    }

    /// Passes on what came before, then the reason to stop.
    fn stop(&mut self, error: Error) {
        self.stopped = true;
        // A chunk that waits for room must not be overwritten: what follows it is read again from V.
        if self.ready.is_none() {
            self.cut();
        }
        if self.ready.is_none() {
            self.ready = Some(FromIntake::Fatal(error));
            return;
        }
        // The chunk in front has to leave first; the queue has room for both.
        let out = self.out.clone();
        if let Some(chunk) = self.ready.take() {
            std::thread::spawn(move || {
                if out.blocking_send(chunk).is_ok() {
                    // A pipeline that is gone needs no reason any more.
                    let _ = out.blocking_send(FromIntake::Fatal(error));
                }
            });
        }
    }

    fn reject(&mut self, message: &Message<'_>, fault: &Fault<'_>) -> Flow {
        let place = place(message);
        let bad = fault.text;
        let letter = match self.rules.on_bad_record {
            // Whatever becomes of other bad records: the setting for schemas says where these go.
            _ if fault.code == INCOMPATIBLE => true,
            OnBadRecord::DeadLetter => true,
            OnBadRecord::Skip => false,
            OnBadRecord::Stop => {
                self.stop(Error::Decision(format!(
                    "{place}: the record cannot be read: {bad}; fix or skip it: with `on_bad_record: skip` firn goes on without \
                     such records, `dead_letter` keeps them in a topic, and `firn offsets set` moves past this one"
                )));
                return Flow::Full;
            }
        };
        if letter && self.keep(message, fault) == Flow::Full {
            return Flow::Full;
        }
        self.count_rejected(message, fault);
        self.pass(message);
        if self.rules.budget.reject(self.good + self.lanes.size().0 as u64) {
            self.stop(Error::Decision(format!(
                "{place}: more records were rejected than `max_bad_ratio` allows, the last because: {bad}; look at them \
                 (`firn dead-letters show`, or the log), fix what is wrong, then start again"
            )));
        }
        Flow::Taken
    }

    /// What becomes of a record whose type no table takes. It is no bad record: it does not count towards `max_bad_ratio`.
    fn unknown_type(&mut self, message: &Message<'_>, name: &str) -> Flow {
        let text = format!("{UNKNOWN_TYPE}: no table takes record type {name}");
        let fault = Fault { code: UNKNOWN_TYPE, half: Half::Value, text: &text };
        match self.rules.on_unknown_type {
            OnUnknownType::Stop => {
                self.stop(Error::Decision(format!(
                    "{}: no table takes record type {name}: name it in `record_type` of a table or in `record_types`, or set \
                     `on_unknown_type: skip` or `dead_letter` to go on without such records",
                    place(message)
                )));
                Flow::Full
            }
            OnUnknownType::Skip => {
                self.count(UNKNOWN_TYPE);
                self.pass(message)
            }
            OnUnknownType::DeadLetter => match self.keep(message, &fault) {
                Flow::Taken => {
                    self.count_rejected(message, &fault);
                    self.pass(message)
                }
                other => other,
            },
        }
    }

    /// Tries to send the record to the dead letters; a failure stops the pipeline.
    fn keep(&mut self, message: &Message<'_>, fault: &Fault<'_>) -> Flow {
        match self.send_letter(message, fault) {
            Ok(Taken::Yes) => Flow::Taken,
            Ok(Taken::Full) => Flow::Full,
            Err(error) => {
                self.stop(error.within(place(message)));
                Flow::Full
            }
        }
    }

    /// Sends the record to the dead letters. V passes it once the broker has it: no commit is made before.
    fn send_letter(&mut self, message: &Message<'_>, fault: &Fault<'_>) -> Result<Taken> {
        let Some(letters) = self.rules.dead_letters.clone() else {
            return Err(Error::Internal("there is no topic for dead letters".into()));
        };
        let Some(id) = self.identify(message.slot, message.partition) else { return Ok(Taken::Full) };
        letters.send(&Letter {
            place: Place { topic_id: id.topic.to_string(), partition: id.partition, offset: message.offset },
            topic: message.partition.topic.to_string(),
            timestamp_ms: message.timestamp_ms,
            pipeline: self.rules.pipeline.clone(),
            reason: fault.code.to_owned(),
            in_key: fault.half == Half::Key,
            message: fault.text.to_owned(),
            key: message.key.map(<[u8]>::to_vec),
            value: message.value.map(<[u8]>::to_vec),
            headers: message.headers.copied(),
        })
    }

    fn count(&self, reason: &'static str) {
        if let Ok(mut rejected) = self.rejected.lock() {
            *rejected.by_reason.entry(reason).or_default() += 1;
        }
    }

    /// Counts a rejected record, and logs it, but not thousands of them.
    fn count_rejected(&mut self, message: &Message<'_>, fault: &Fault<'_>) {
        self.count(fault.code);
        if self.logged.0.elapsed() >= Duration::from_secs(1) {
            self.logged = (Instant::now(), 0);
        }
        self.logged.1 += 1;
        if self.logged.1 <= BAD_LOGGED_PER_SECOND {
            let (partition, offset, reason) = (message.partition.partition, message.offset, fault.text);
            tracing::warn!(topic = %message.partition.topic, partition, offset, reason, "record rejected");
        }
    }

    fn ask(&mut self, message: &Message<'_>, id: u32, of: Half) -> Flow {
        if let Some(why) = self.incompatible.get(&(id, of)) {
            let text = format!("{INCOMPATIBLE}: {of} schema {id}: {why}");
            return self.reject(message, &Fault { code: INCOMPATIBLE, half: of, text: &text });
        }
        match self.unknown.get(&(id, of)) {
            Some((at, reason)) if at.elapsed() < UNKNOWN_SCHEMA => {
                let text = format!("{NO_SCHEMA}: {of}: {reason}");
                return self.reject(message, &Fault { code: NO_SCHEMA, half: of, text: &text });
            }
            _ => {}
        }
        // What was read before need not wait for the registry.
        self.cut();
        self.pass_on();
        if self.asked != Some((id, of)) && self.out.try_send(FromIntake::NeedsSchema { id, of }).is_ok() {
            self.asked = Some((id, of));
        }
        Flow::Full
    }
}

fn place(message: &Message<'_>) -> String {
    format!("{} at offset {}", message.partition, message.offset)
}

impl Handler for Intake {
    fn on_message(&mut self, message: &Message<'_>) -> Flow {
        if !self.has_room() || self.identify(message.slot, message.partition).is_none() {
            return Flow::Full;
        }
        if message.headers.last(REPLAY_FOR).is_some_and(|pipeline| pipeline != self.rules.pipeline.as_bytes()) {
            // A letter of another pipeline that was submitted again: this one has had the record.
            return self.pass(message);
        }
        let event = crate::avro::Event {
            topic: &message.partition.topic,
            partition: message.partition.partition,
            offset: message.offset,
            timestamp_ms: message.timestamp_ms,
            key: message.key,
            value: message.value,
        };
        let pushed = match self.lanes.push(&event) {
            Put::Pushed(pushed) => pushed,
            Put::Unknown(name) => return self.unknown_type(message, &name),
        };
        match pushed {
            Pushed::Row | Pushed::Delete => {
                self.advance(message.slot, message.partition, message.epoch, message.offset + 1);
                self.lanes.count();
                Flow::Taken
            }
            Pushed::Passed => self.pass(message),
            Pushed::NeedsSchema { id, of } => self.ask(message, id, of),
            Pushed::Full => {
                self.cut();
                self.pass_on();
                Flow::Full
            }
            Pushed::Bad(bad) => {
                self.reject(message, &Fault { code: bad.reason.code(), half: bad.half, text: &bad.to_string() })
            }
        }
    }

    fn on_end(&mut self, slot: usize, partition: &TopicPartition, next: i64, epoch: Epoch) -> Flow {
        if !self.has_room() || self.identify(slot, partition).is_none() {
            return Flow::Full;
        }
        self.advance(slot, partition, epoch, next);
        Flow::Taken
    }

    fn on_idle(&mut self) {
        self.beat.turn();
        self.take_answers();
        if self.pass_on() && !self.stopped && self.since.is_some_and(|since| since.elapsed() >= CHUNK_WAIT) {
            self.cut();
            self.pass_on();
        }
    }

    fn on_revoke(&mut self) {
        if self.pass_on() && !self.stopped {
            self.cut();
            self.pass_on();
        }
    }
}

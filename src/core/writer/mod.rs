//! The state machine of one table: event in, actions out.
//!
//! A writer reads the partitions it owns from V on, gathers a batch, folds it over the index, has the files written, and
//! commits. Whatever goes wrong, it asks the table what the table holds, and goes on from there: the table is the
//! authority, the batch and the index are caches.
//!
//! At most one of the actions that have an answer is outstanding; reading goes on meanwhile.

mod event;
mod flight;
mod follow;
mod held;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

pub use event::{Action, CommitOrder, Event, Landed, Outcome, PlacedFile, Placement, ResolvedStart, Topology};
use flight::Flight;
use follow::{Base, FileNumbers};
pub use held::Held;

use super::batch::Batch;
use super::change::{Chunk, Run};
use super::fold::Semantics;
use super::history::{SnapshotId, View};
use super::key_index::{KeyIndex, KeyWidth};
use super::mutant::{Mutant, Mutants};
use super::offsets::{Epoch, PartitionId, Vector};
use super::schema::TableFormat;
use crate::error::Error;

/// What a writer is told once.
#[derive(Debug, Clone)]
pub struct WriterConfig {
    /// `catalog.namespace.table`, for messages.
    pub table: String,
    pub pipeline: String,
    /// Unique among all writers that ever were: the prefix of attempt ids.
    pub writer: String,
    pub semantics: Semantics,
    pub key_width: KeyWidth,
    /// Names of the key columns; they must equal the table's identifier fields.
    pub key: Vec<String>,
    /// What the table, and those that take the same rows, are kept in.
    pub formats: Vec<TableFormat>,
    /// How long a change may wait for its commit, in milliseconds.
    pub interval_ms: i64,
    /// A batch of this many events is committed at once.
    pub max_rows: usize,
    /// A batch that holds this many bytes is committed at once.
    pub max_bytes: usize,
    pub mutants: Mutants,
}

/// How often a writer without work looks at the table.
const IDLE_RELOAD_MS: i64 = 60_000;
/// How often positions alone are committed.
const POSITIONS_ONLY_MS: i64 = 60_000;
/// How long starts that could not be resolved are left alone.
const STARTS_AGAIN_MS: i64 = 10_000;
/// How long foreign snapshots may pile up over the last commit before V is anchored again.
const REANCHOR_MS: i64 = 3_600_000;

/// The answer that the writer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    Nothing,
    Load,
    Follow,
    Starts,
    Files,
    Topics,
    Outcome,
    /// [`Action::Stop`] was given out.
    Stopped,
}

/// A partition that the group gave to this process.
#[derive(Debug)]
struct Owned {
    /// `None` until the source says under which epoch it reads from V.
    epoch: Option<Epoch>,
    /// An [`Action::Open`] is outstanding or answered.
    asked: bool,
    /// Everything below was applied (to the table or to a batch): the filter.
    applied: i64,
}

/// What is saved of a writer: see [`Writer::index`].
#[derive(Debug)]
pub struct SavedState<'a> {
    /// The index itself.
    pub index: &'a KeyIndex,
    /// The files it numbers.
    pub files: Vec<(u32, Arc<str>)>,
    /// The table's uuid.
    pub table: &'a str,
    /// The snapshot that the index is as of.
    pub snapshot: SnapshotId,
}

/// Which snapshot an index that was read from disk knows.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Restored {
    table: String,
    snapshot: SnapshotId,
}

/// The writer of one table.
#[derive(Debug)]
pub struct Writer<R> {
    config: WriterConfig,
    index: KeyIndex,
    files: FileNumbers,
    topology: Option<Topology>,
    base: Option<Base>,
    restored: Option<Restored>,
    /// Loaded, and not yet followed.
    loaded: Option<Box<View>>,
    owned: BTreeMap<PartitionId, Owned>,
    filling: Batch<R>,
    flight: Option<Flight<R>>,
    /// Attempts whose outcome is not known for certain; cleared when a batch ends.
    attempts: Vec<String>,
    waiting: Waiting,
    want_load: bool,
    want_flush: bool,
    want_anchor: bool,
    /// Partitions whose stored start is gone from the log and is to be resolved again.
    restart: BTreeSet<PartitionId>,
    attempt_count: u64,
    loads_again: u32,
    /// Starts are not asked for before.
    starts_after_ms: i64,
    now_ms: i64,
    loaded_ms: i64,
    positions_ms: i64,
    /// Since when the current snapshot is a foreign one.
    foreign_since_ms: Option<i64>,
    actions: Vec<Action<R>>,
}

impl<R> Writer<R> {
    /// A writer that knows nothing yet; its first action will be to load the table.
    #[must_use]
    pub fn new(config: WriterConfig) -> Self {
        let index = KeyIndex::new(config.key_width, config.semantics == Semantics::Ordered);
        Writer {
            config,
            index,
            files: FileNumbers::default(),
            topology: None,
            base: None,
            restored: None,
            loaded: None,
            owned: BTreeMap::new(),
            filling: Batch::default(),
            flight: None,
            attempts: Vec::new(),
            waiting: Waiting::Nothing,
            want_load: true,
            want_flush: false,
            want_anchor: false,
            restart: BTreeSet::new(),
            attempt_count: 0,
            loads_again: 0,
            starts_after_ms: i64::MIN,
            now_ms: 0,
            loaded_ms: 0,
            positions_ms: 0,
            foreign_since_ms: None,
            actions: Vec::new(),
        }
    }

    /// Starts from an index that was saved when `snapshot` of `table` was current, with the paths of the files it numbers.
    /// It is followed from there to the table's current snapshot; if it is another table's, it is dropped.
    #[must_use]
    pub fn with_index(
        mut self,
        index: KeyIndex,
        files: impl IntoIterator<Item = (u32, Arc<str>)>,
        table: String,
        snapshot: SnapshotId,
    ) -> Self {
        self.index = index;
        self.files = FileNumbers::restore(files);
        self.restored = Some(Restored { table, snapshot });
        self
    }

    /// The index as of the snapshot that the writer knows, to be saved: only between commits, when nothing is being
    /// followed.
    #[must_use]
    pub fn index(&self) -> Option<SavedState<'_>> {
        let base = self.base.as_ref().filter(|_| self.waiting != Waiting::Follow)?;
        let files = self.files.all().map(|(number, path)| (number, path.clone())).collect();
        Some(SavedState { index: &self.index, files, table: &base.table, snapshot: base.snapshot? })
    }

    /// Takes one event at time `now_ms` and returns what is to be done, in order.
    pub fn step(&mut self, event: Event<R>, now_ms: i64) -> Vec<Action<R>> {
        self.now_ms = self.now_ms.max(now_ms);
        if self.waiting == Waiting::Stopped {
            return Vec::new();
        }
        match event {
            Event::Topics(topology) => self.on_topics(topology),
            Event::Assigned(ids) => self.on_assigned(ids),
            Event::Revoked(ids) => self.on_revoked(&ids),
            Event::Opened { id, epoch } => self.on_opened(&id, epoch),
            Event::Chunk(chunk) => self.on_chunk(chunk),
            Event::OutOfRange(id) => self.on_out_of_range(id),
            Event::Flush => self.want_flush = true,
            Event::Reload => self.want_load |= self.flight.is_none(),
            Event::Tick => self.on_tick(),
            Event::Loaded(view) => self.on_loaded(view),
            Event::Diff { whole, removed, deletes } => self.on_diff(whole, &removed, &deletes),
            Event::Rows { path, keys, positions, orders } => self.on_rows(&path, &keys, &positions, &orders),
            Event::Followed => self.on_followed(),
            Event::Starts(starts) => self.on_starts(starts),
            Event::Written(files) => self.on_written(files),
            Event::Outcome(outcome) => self.on_outcome(outcome),
        }
        self.advance();
        std::mem::take(&mut self.actions)
    }

    /// V of the snapshot that the writer knows.
    #[must_use]
    pub fn vector(&self) -> Option<&Vector> {
        self.base.as_ref().map(|b| &b.vector)
    }

    /// How far a partition that is being read was applied: where reading has to go on, at the latest.
    #[must_use]
    pub fn applied(&self, id: &PartitionId) -> Option<i64> {
        self.owned.get(id).filter(|o| o.asked).map(|o| o.applied)
    }

    /// Distinct keys in the index.
    #[must_use]
    pub fn keys(&self) -> u64 {
        self.index.keys()
    }

    /// Whether another chunk fits: while a batch is in flight, the next one may fill up to the same limits.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        self.waiting != Waiting::Stopped && !self.is_full()
    }

    /// Whether nothing is uncommitted: no batch in flight and none begun.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.flight.is_none() && self.filling.is_empty()
    }

    /// Whether the writer gave up.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.waiting == Waiting::Stopped
    }

    fn is_full(&self) -> bool {
        self.filling.events >= self.config.max_rows || self.filling.bytes >= self.config.max_bytes
    }

    fn stop(&mut self, error: Error) {
        self.waiting = Waiting::Stopped;
        self.actions.push(Action::Stop(error));
    }

    fn decision(&mut self, message: impl std::fmt::Display) {
        let table = self.config.table.clone();
        self.stop(Error::Decision(format!("table {table}: {message}")));
    }

    // ---- the source -------------------------------------------------------------------------------------------------

    fn on_assigned(&mut self, ids: Vec<PartitionId>) {
        for id in ids {
            self.owned.insert(id, Owned { epoch: None, asked: false, applied: 0 });
        }
        // Another process may have advanced V meanwhile: reading starts at what the table says now.
        self.want_load = true;
    }

    fn on_revoked(&mut self, ids: &[PartitionId]) {
        for id in ids {
            self.owned.remove(id);
            self.restart.remove(id);
            self.want_flush |= self.holds(id);
        }
    }

    fn on_opened(&mut self, id: &PartitionId, epoch: Epoch) {
        if let Some(owned) = self.owned.get_mut(id).filter(|o| o.asked) {
            owned.epoch = Some(epoch);
        }
    }

    fn on_chunk(&mut self, chunk: Arc<Chunk<R>>) {
        let mut events = Vec::with_capacity(chunk.runs.len());
        let (mut first, mut moved) = (0, false);
        let mut asks = chunk.asks.of_runs.iter().peekable();
        for (number, run) in (0..).zip(&chunk.runs) {
            let end = first + run.events;
            let before = events.len();
            moved |= self.admit_run(&chunk, run, first..end, &mut events);
            while let Some((_, wanted)) = asks.next_if(|(of, _)| *of == number) {
                // What is left out asks for nothing: another member has it, or it is read again.
                if events.len() > before {
                    self.filling.want(wanted);
                }
            }
            first = end;
        }
        if moved {
            self.filling.name_schemas(&chunk.asks.schemas);
        }
        if !self.filling.is_empty() {
            let now = self.now_ms;
            self.filling.admit(chunk, events, now);
        }
    }

    /// Adds to `events` which events of a run are new to this table, and moves the filter; whether it moved.
    fn admit_run(&mut self, chunk: &Chunk<R>, run: &Run, all: Range<u32>, events: &mut Vec<Range<u32>>) -> bool {
        let trusting = self.config.mutants.has(Mutant::TrustSeek);
        let put = self.config.mutants.has(Mutant::PutPosition);
        let Some(owned) = self.owned.get_mut(&run.partition) else { return false };
        // Records of an older epoch were queued before the last re-read at V.
        if owned.epoch != Some(run.epoch) && !trusting {
            return false;
        }
        let offsets = &chunk.offsets[all.start as usize..all.end as usize];
        let known = if trusting { 0 } else { offsets.partition_point(|&offset| offset < owned.applied) };
        let new = all.start + known as u32..all.end;
        let moves = run.next > owned.applied || put || (trusting && !new.is_empty());
        if moves {
            let from = owned.applied;
            owned.applied = if put { run.next } else { from.max(run.next) };
            let next = owned.applied;
            self.filling.extend(&run.partition, from, next);
        }
        if !new.is_empty() {
            events.push(new);
        }
        moves
    }

    fn on_out_of_range(&mut self, id: PartitionId) {
        let Some(base) = &self.base else { return };
        // Of a partition that was taken away, or is to be opened anew, this is old news.
        if !self.owned.get(&id).is_some_and(|owned| owned.asked) {
            return;
        }
        let untouched = match base.vector.get(&id) {
            Some(position) => position.start.earliest && position.next == position.start.offset,
            None => base.vector.topics.contains_key(&id.topic),
        };
        if untouched && !self.holds(&id) {
            self.owned.insert(id.clone(), Owned { epoch: None, asked: false, applied: 0 });
            self.restart.insert(id);
            return;
        }
        let next = base.vector.next(&id).unwrap_or_default();
        let name = self.describe(&id);
        self.decision(format_args!(
            "{name} is to be read from offset {next}, but the broker no longer has that offset: records that were never \
             written are gone from the log; accept the loss with `firn offsets set` (to the log's first offset), or restore the log"
        ));
    }

    /// Whether anything that was read of a partition is uncommitted.
    #[must_use]
    pub fn holds(&self, id: &PartitionId) -> bool {
        self.filling.holds(id) || self.flight.as_ref().is_some_and(|f| f.batch.holds(id))
    }

    /// `topic/partition` for people.
    fn describe(&self, id: &PartitionId) -> String {
        let name = self.topology.as_ref().and_then(|t| t.topics.iter().find(|(_, topic)| **topic == id.topic));
        let name = name.map_or(&*id.topic, |(name, _)| name.as_str());
        format!("{name}/{}", id.partition)
    }

    // ---- time -------------------------------------------------------------------------------------------------------

    fn on_tick(&mut self) {
        let now = self.now_ms;
        let due = self.filling.since_ms.is_some_and(|since| now - since >= self.config.interval_ms);
        let only_positions = self.filling.events == 0;
        if due && (!only_positions || now - self.positions_ms >= POSITIONS_ONLY_MS) {
            self.want_flush = true;
        }
        if self.base.is_some() && self.flight.is_none() && now - self.loaded_ms >= IDLE_RELOAD_MS {
            self.want_load = true;
        }
        if self.foreign_since_ms.is_some_and(|since| now - since >= REANCHOR_MS) {
            self.want_anchor = true;
        }
    }

    // ---- what to do next --------------------------------------------------------------------------------------------

    /// Gives out the next action, unless an answer is awaited.
    fn advance(&mut self) {
        if self.waiting != Waiting::Nothing || self.topology.is_none() {
            return;
        }
        if self.want_load || self.base.is_none() {
            self.want_load = false;
            let since = self.base.as_ref().and_then(|b| b.snapshot);
            self.ask(Waiting::Load, Action::Load { since, again: self.loads_again });
            return;
        }
        if self.flight.is_none() && self.resolve_starts() {
            return;
        }
        // Before the next batch takes off: a new owner must not wait until a backlog is written.
        self.open_partitions();
        if self.flight.is_some() {
            self.launch();
            return;
        }
        if !self.want_anchor {
            // Whatever failed before is in the table, or void.
            self.loads_again = 0;
        }
        let flush = std::mem::take(&mut self.want_flush) || self.is_full();
        if flush && !self.filling.is_empty() {
            let batch = std::mem::take(&mut self.filling);
            self.flight = Some(Flight::new(batch));
            self.launch();
        } else if std::mem::take(&mut self.want_anchor) {
            self.flight = Some(Flight::new(Batch::default()));
            self.launch();
        }
    }

    fn ask(&mut self, waiting: Waiting, action: Action<R>) {
        self.waiting = waiting;
        self.actions.push(action);
    }

    /// Asks where reading begins, for topics that V does not have and for starts that the log has lost.
    fn resolve_starts(&mut self) -> bool {
        let Some(base) = &self.base else { return false };
        let unknown: BTreeSet<Arc<str>> =
            self.owned.keys().map(|id| &id.topic).filter(|t| !base.vector.topics.contains_key(*t)).cloned().collect();
        if (unknown.is_empty() && self.restart.is_empty()) || self.now_ms < self.starts_after_ms {
            return false;
        }
        let partitions = self.restart.iter().cloned().collect();
        let topics = unknown.into_iter().collect();
        self.ask(Waiting::Starts, Action::ResolveStarts { topics, partitions });
        true
    }

    /// Starts reading, from V, the partitions that are owned and not read yet.
    fn open_partitions(&mut self) {
        let Some(base) = &self.base else { return };
        for (id, owned) in self.owned.iter_mut().filter(|(_, owned)| !owned.asked) {
            // What is under way decides where reading of its partitions goes on.
            if self.restart.contains(id) || self.flight.as_ref().is_some_and(|f| f.concerns(id)) {
                continue;
            }
            let Some(offset) = base.vector.next(id) else { continue };
            if self.filling.holds(id) {
                // Read before a rebalance took the partition away and gave it back: V will say how much of it counts.
                self.want_flush = true;
                continue;
            }
            owned.asked = true;
            owned.applied = offset;
            self.actions.push(Action::Open { id: id.clone(), offset });
        }
    }

    /// Drops everything that is uncommitted, and reads it again from V.
    fn read_again(&mut self, vector: &Vector) {
        let flight = self.flight.take();
        let dropped = std::mem::take(&mut self.filling);
        let ids: BTreeSet<PartitionId> =
            dropped.next.into_keys().chain(flight.into_iter().flat_map(Flight::into_partitions)).collect();
        self.attempts.clear();
        for (id, owned) in &mut self.owned {
            if ids.contains(id) || vector.next(id).is_some_and(|next| next != owned.applied) {
                *owned = Owned { epoch: None, asked: false, applied: 0 };
            }
        }
    }
}

#[cfg(test)]
mod tests;

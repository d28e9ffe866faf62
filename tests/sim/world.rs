//! The world around the writers: the log, the group, the table, and everything that goes wrong.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use firn::core::change::{Asks, Chunk, Key, NO_ROW, Op, Run};
use firn::core::fold::Semantics;
use firn::core::key_index::KeyWidth;
use firn::core::mutant::{Mutant, Mutants};
use firn::core::offsets::{Epoch, PartitionId, Start, Vector};
use firn::core::schema::{SchemaChange, TableSchema};
use firn::core::writer::{
    Action, CommitOrder, Event, Outcome, PlacedFile, Placement, ResolvedStart, Topology, Writer, WriterConfig,
};
use firn::table::model::{Model, ModelChange, ModelSnapshot};
use roaring::RoaringBitmap;

use crate::columns::{self, FORMATS, SCHEMAS, Stored};
use crate::faults::{Fault, Faults};
use crate::meanings::{Meaning, Meanings, fingerprint, meaning};
use crate::oracle::{Oracle, Row};
use crate::random::Random;
use crate::saves::{Saves, restore};
use crate::trace::Trace;

pub const TOPIC: &str = "topic-id-1";
pub const PARTITIONS: i32 = 3;
const TABLE: &str = "table-uuid";

/// A record of the log.
#[derive(Debug, Clone)]
pub struct Record {
    pub offset: i64,
    pub key: u64,
    pub op: Op,
    pub order: i64,
    /// A rejected record: it moves the position and is no event.
    pub bad: bool,
    /// The schema that it was written with.
    pub schema: usize,
}

/// One process: a writer, what it waits for, and what its source has queued.
pub struct Process {
    pub writer: Writer<()>,
    /// Actions that were given out and not answered yet.
    pending: VecDeque<Action<()>>,
    /// Where the source reads each opened partition, and under which epoch.
    reading: BTreeMap<i32, (Epoch, i64)>,
    /// Polled and not yet delivered.
    queue: VecDeque<Arc<Chunk<()>>>,
    /// What the group gave it, as far as it knows.
    assigned: Vec<i32>,
    /// The table's state at the last load.
    loaded: Option<Arc<ModelSnapshot<Stored>>>,
    /// Its columns then.
    table_columns: Arc<TableSchema>,
    /// The columns in which it gathers rows, and the schemas that it knows.
    columns: Arc<TableSchema>,
    known: [bool; SCHEMAS],
    /// What it takes each of them for.
    taken: [Meaning; SCHEMAS],
    /// A schema that a record names and that it does not know yet.
    unknown: Option<usize>,
    /// The files written for the plan in flight, with their rows.
    written: BTreeMap<Arc<str>, Arc<Vec<Stored>>>,
    /// Asleep: it acts no more until it is woken, but the group has moved its partitions.
    asleep: bool,
}

/// A commit request that the catalog has received and not processed yet.
struct Delayed {
    change: ModelChange<Stored>,
}

pub struct World {
    pub random: Random,
    pub faults: Faults,
    pub semantics: Semantics,
    mutants: Mutants,
    pub log: Vec<Vec<Record>>,
    /// The end of each partition's log, trailing transaction markers included.
    pub ends: Vec<i64>,
    pub processes: Vec<Process>,
    /// Which process the group lets read each partition.
    owners: Vec<usize>,
    pub table: Model<Stored>,
    /// What each schema would make of the table.
    wanted: Vec<Arc<TableSchema>>,
    /// Schemas up to this one have come up.
    newest: usize,
    pub oracle: Oracle,
    meanings: Meanings,
    delayed: Vec<Delayed>,
    saves: Saves,
    /// What happened so far, where somebody wants to compare it.
    trace: Option<Trace>,
    pub now_ms: i64,
    epochs: u64,
    names: u64,
    orders: i64,
    pub decisions: u64,
    /// The first broken promise.
    pub violation: Option<String>,
}

fn id(partition: i32) -> PartitionId {
    PartitionId { topic: TOPIC.into(), partition }
}

fn key(number: u64) -> Key {
    Key(u128::from(number.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
}

impl World {
    pub fn new(seed: u64, mutants: Mutants, trace: Option<Trace>) -> World {
        let mut random = Random::new(seed);
        let semantics =
            [Semantics::Append, Semantics::LastWins, Semantics::LastWins, Semantics::Ordered][random.below(4)];
        let mut world = World {
            random,
            faults: Faults::default(),
            semantics,
            mutants,
            log: vec![Vec::new(); PARTITIONS as usize],
            ends: vec![0; PARTITIONS as usize],
            processes: Vec::new(),
            owners: vec![0; PARTITIONS as usize],
            table: Model::new(columns::wanted(0), mutants),
            wanted: (0..SCHEMAS).map(|schema| Arc::new(columns::wanted(schema))).collect(),
            newest: 0,
            oracle: Oracle::new(semantics),
            meanings: Meanings::default(),
            delayed: Vec::new(),
            saves: Saves::default(),
            trace,
            now_ms: 1_000_000,
            epochs: 0,
            names: 0,
            orders: 0,
            decisions: 0,
            violation: None,
        };
        world.produce();
        let processes = 1 + world.random.below(3);
        for _ in 0..processes {
            let process = world.new_process();
            world.processes.push(process);
        }
        for partition in 0..PARTITIONS as usize {
            world.owners[partition] = world.random.below(processes);
        }
        for process in 0..processes {
            world.start(process);
        }
        world
    }

    fn new_process(&mut self) -> Process {
        self.names += 1;
        let config = WriterConfig {
            table: "lake.sim.t".into(),
            pipeline: "sim".into(),
            writer: format!("w{}", self.names),
            semantics: self.semantics,
            key_width: KeyWidth::Exact,
            key: Vec::new(),
            formats: FORMATS.to_vec(),
            interval_ms: 10_000,
            max_rows: 5 + self.random.below(30),
            max_bytes: 1 << 20,
            mutants: self.mutants,
        };
        let table_columns = self.table.schema().clone();
        // The newest schema is known from the start; others come up in the log.
        let (mut known, mut gathered) = ([false; SCHEMAS], table_columns.clone());
        if self.random.chance(2) {
            known[self.newest] = true;
            gathered = columns::grown(&gathered, self.newest);
        }
        let taken = std::array::from_fn(|schema| self.meanings.of(schema));
        Process {
            taken,
            table_columns,
            columns: gathered,
            known,
            unknown: None,
            writer: Writer::new(config),
            pending: VecDeque::new(),
            reading: BTreeMap::new(),
            queue: VecDeque::new(),
            assigned: Vec::new(),
            loaded: None,
            written: BTreeMap::new(),
            asleep: false,
        }
    }

    /// Tells a fresh process about the topics and its partitions.
    fn start(&mut self, process: usize) {
        self.feed(process, Event::Topics(topology()));
        self.assign(process);
    }

    /// Brings what a process believes to own in line with the group.
    fn assign(&mut self, number: usize) {
        let owned: Vec<i32> = (0..PARTITIONS).filter(|p| self.owners[*p as usize] == number).collect();
        let process = &mut self.processes[number];
        let lost: Vec<i32> = process.assigned.iter().copied().filter(|p| !owned.contains(p)).collect();
        let gained: Vec<i32> = owned.iter().copied().filter(|p| !process.assigned.contains(p)).collect();
        process.assigned = owned;
        for partition in &lost {
            process.reading.remove(partition);
        }
        if !lost.is_empty() {
            self.feed(number, Event::Revoked(lost.into_iter().map(id).collect()));
        }
        if !gained.is_empty() {
            self.feed(number, Event::Assigned(gained.into_iter().map(id).collect()));
        }
    }

    pub fn feed(&mut self, number: usize, event: Event<()>) {
        let now = self.now_ms;
        if let Some(trace) = &mut self.trace {
            trace.note(&(number, now, &event));
        }
        let actions = self.processes[number].writer.step(event, now);
        if let Some(trace) = &mut self.trace {
            trace.note(&actions);
        }
        for action in actions {
            match action {
                Action::Open { id, offset } => self.open(number, &id, offset),
                Action::Landed(_) => {}
                Action::Stop(error) => self.stopped(number, &error),
                other => self.processes[number].pending.push_back(other),
            }
        }
    }

    fn open(&mut self, number: usize, id: &PartitionId, offset: i64) {
        self.epochs += 1;
        let epoch = Epoch(self.epochs);
        let mut from = offset;
        if self.random.chance(8) {
            // The seek has not taken effect when the first records arrive.
            from = self.random.below(offset as usize + 1) as i64;
            if from < offset {
                self.faults.count(Fault::SeekRace);
            }
        }
        let process = &mut self.processes[number];
        process.reading.insert(id.partition, (epoch, from));
        self.feed(number, Event::Opened { id: id.clone(), epoch });
    }

    /// A writer that gave up is legitimate only where V cannot be shown, or a schema is another one; an operator then
    /// accepts the true V, or restores the registry, or accepts what it says.
    fn stopped(&mut self, number: usize, error: &firn::Error) {
        let mut pins = None;
        if self.meanings.replaced && error.to_string().contains("records of schema id") {
            self.faults.count(Fault::SchemaRefused);
            if self.random.chance(2) {
                self.meanings.restore();
                self.crash(number);
                return;
            }
            pins = self.meanings.accept(self.table.schemas());
        } else if !error.to_string().contains("cannot be shown to descend") {
            self.violate(format!("a writer stopped without need: {error}"));
        } else if !self.oracle.is_lost(&self.table) {
            self.violate(format!("a writer found V lost, but it can be shown: {error}"));
        }
        self.decisions += 1;
        let vector = self.oracle.current_vector(&self.table);
        let base = self.table.current().map(|s| s.id);
        let change = ModelChange {
            base,
            columns: self.table.schema().clone(),
            schema_change: None,
            pins: pins.map(Arc::new),
            attempt: Some(format!("operator-{}", self.decisions)),
            vector: Some(vector),
            added: vec![],
            superseded: vec![],
            removed: vec![],
            now_ms: self.now_ms,
        };
        self.commit(change);
        self.crash(number);
    }

    fn violate(&mut self, text: String) {
        self.violation.get_or_insert(text);
    }

    pub fn crash(&mut self, number: usize) {
        let mut process = self.new_process();
        process.writer = self.restored(process.writer);
        self.processes[number] = process;
        self.start(number);
    }

    /// A process saves its index, as it does when it stops in order. Another one may find that.
    pub fn save(&mut self, number: usize) {
        if self.semantics != Semantics::Append && !self.processes[number].asleep {
            let instead = self.random.below(8);
            self.saves.put(&self.processes[number].writer, instead);
        }
    }

    /// What a fresh process finds on its disk: often a saved index, of whatever age.
    fn restored(&mut self, writer: Writer<()>) -> Writer<()> {
        if self.saves.len() == 0 || self.random.chance(4) {
            return writer;
        }
        let which = self.random.below(self.saves.len());
        let (mut tag, index) = self.saves.read(which);
        let current = self.table.current().map(|s| s.id);
        if self.random.chance(4) {
            // Snapshots of another table may have the same numbers.
            tag.table = "another-uuid".into();
            tag.snapshot = current.unwrap_or(tag.snapshot);
            self.faults.count(Fault::OtherIndex);
        } else if self.table.snapshot(tag.snapshot).is_none() {
            self.faults.count(Fault::ExpiredIndex);
        } else if Some(tag.snapshot) != current {
            self.faults.count(Fault::StaleIndex);
        }
        restore(writer, (tag, index))
    }

    /// Appends records, gaps and transaction markers to the log.
    pub fn produce(&mut self) {
        for _ in 0..1 + self.random.below(6) {
            let partition = self.random.below(PARTITIONS as usize);
            let mut offset = self.ends[partition];
            if self.random.chance(4) {
                offset += 1 + self.random.below(3) as i64;
                self.faults.count(Fault::Gap);
            }
            // Where an order decides, a key may come from any partition; else it belongs to one.
            let ordered = self.semantics == Semantics::Ordered;
            let number = self.random.below(6) as u64;
            let key = if ordered { number } else { number * PARTITIONS as u64 + partition as u64 };
            let op = if !ordered && self.random.chance(5) { Op::Tombstone } else { Op::Upsert };
            self.orders += 1;
            let order = if self.random.chance(3) {
                self.faults.count(Fault::LateEvent);
                (self.orders - self.random.below(40) as i64) * 1_000_000 + self.orders
            } else {
                self.orders * 1_000_000 + self.orders
            };
            let bad = self.random.chance(25);
            if self.newest + 1 < SCHEMAS && self.random.chance(12) {
                self.newest += 1;
            }
            let schema = self.random.below(self.newest + 1);
            self.log[partition].push(Record { offset, key, op, order, bad, schema });
            self.ends[partition] = offset + 1;
            if self.random.chance(6) {
                self.ends[partition] += 1;
                self.faults.count(Fault::TrailingMarker);
            }
        }
    }

    // ---- reading ----------------------------------------------------------------------------------------------------

    /// The source of a process reads some records of some partitions into its queue.
    pub fn poll(&mut self, number: usize) {
        if self.processes[number].asleep || self.processes[number].queue.len() > 6 {
            return;
        }
        let process = &mut self.processes[number];
        if let Some(schema) = process.unknown.take() {
            // The registry has answered: the columns grow between two chunks.
            process.columns = columns::grown(&process.columns, schema);
            process.known[schema] = true;
            process.taken[schema] = self.meanings.of(schema);
        }
        let partitions: Vec<i32> = process.reading.keys().copied().collect();
        let mut chunk = empty_chunk();
        chunk.asks.names = process.columns.clone();
        for partition in partitions {
            if self.random.chance(2) {
                self.read_run(number, partition, &mut chunk);
            }
        }
        if !chunk.runs.is_empty() {
            self.processes[number].queue.push_back(Arc::new(chunk));
        }
    }

    fn read_run(&mut self, number: usize, partition: i32, chunk: &mut Chunk<()>) {
        let (epoch, mut position) = self.processes[number].reading[&partition];
        if self.random.chance(12) && position > 0 {
            // Records are delivered a second time within one epoch.
            position -= 1 + self.random.below(5.min(position as usize)) as i64;
            self.faults.count(Fault::Redelivery);
        }
        let end = self.ends[partition as usize];
        let most = 1 + self.random.below(8);
        let log = &self.log[partition as usize];
        let first = log.partition_point(|r| r.offset < position);
        let known = self.processes[number].known;
        let waits = |r: &&Record| !r.bad && r.op == Op::Upsert && !known[r.schema];
        let unknown = log[first..].iter().take(most).find(waits).map(|r| (r.offset, r.schema));
        let before = |r: &&Record| unknown.is_none_or(|(offset, _)| r.offset < offset);
        let records: Vec<Record> = log[first..].iter().take(most).take_while(before).cloned().collect();
        // A record of a schema that is not known waits, and those behind it.
        self.processes[number].unknown = self.processes[number].unknown.or(unknown.map(|(_, schema)| schema));
        let mut events = 0;
        let mut schemas = BTreeSet::new();
        for record in records.iter().filter(|r| !r.bad) {
            if self.semantics == Semantics::Append && record.op != Op::Upsert {
                continue;
            }
            chunk.offsets.push(record.offset);
            chunk.keys.push(key(record.key));
            chunk.ops.push(record.op);
            chunk.orders.push(record.order);
            // Rows are named by where they come from: the row number is the index of the event.
            let row = chunk.row_of.len() as u32;
            chunk.row_of.push(if record.op == Op::Upsert { row } else { NO_ROW });
            if record.op == Op::Upsert {
                schemas.insert(record.schema);
            }
            events += 1;
        }
        let run = chunk.runs.len() as u32;
        for &schema in &schemas {
            let named = (schema as u32, fingerprint(schema, self.processes[number].taken[schema]));
            if !chunk.asks.schemas.contains(&named) {
                chunk.asks.schemas.push(named);
            }
        }
        chunk.asks.of_runs.extend(schemas.into_iter().map(|schema| (run, self.wanted[schema].clone())));
        let log = &self.log[partition as usize];
        let at_end = first + records.len() == log.len();
        let next = match records.last() {
            _ if at_end => end,
            Some(last) => last.offset + 1,
            None => position,
        };
        chunk.runs.push(Run { partition: id(partition), epoch, events, next });
        self.processes[number].reading.insert(partition, (epoch, next));
    }

    pub fn deliver(&mut self, number: usize) {
        let process = &mut self.processes[number];
        if process.asleep || !process.writer.wants_input() {
            return;
        }
        if let Some(chunk) = process.queue.pop_front() {
            let stale =
                chunk.runs.iter().any(|r| process.reading.get(&r.partition.partition).is_none_or(|o| o.0 != r.epoch));
            if stale {
                self.faults.count(Fault::StaleChunk);
            }
            self.feed(number, Event::Chunk(chunk));
        }
    }

    // ---- the group --------------------------------------------------------------------------------------------------

    /// Moves a partition to another process. The old owner may sleep through it.
    pub fn rebalance(&mut self) {
        if self.processes.len() < 2 {
            return;
        }
        let partition = self.random.below(PARTITIONS as usize);
        let old = self.owners[partition];
        let new = self.random.below(self.processes.len());
        if old == new {
            return;
        }
        self.owners[partition] = new;
        self.faults.count(Fault::Rebalance);
        if self.random.chance(2) {
            self.processes[old].asleep = true;
            self.faults.count(Fault::Zombie);
        } else if !self.processes[old].asleep {
            self.assign(old);
        }
        if !self.processes[new].asleep {
            self.assign(new);
        }
    }

    /// A sleeper goes on with what it has queued and in flight, and learns of the rebalance only later.
    pub fn wake(&mut self, number: usize) {
        self.processes[number].asleep = false;
    }

    pub fn learn(&mut self, number: usize) {
        if !self.processes[number].asleep {
            self.assign(number);
        }
    }

    // ---- answers ----------------------------------------------------------------------------------------------------

    /// Carries out the oldest action of a process and answers it.
    pub fn answer(&mut self, number: usize, faulty: bool) {
        if self.processes[number].asleep {
            return;
        }
        let Some(action) = self.processes[number].pending.pop_front() else { return };
        match action {
            Action::Load { since, .. } => {
                let view = self.table.view(TABLE, since);
                self.processes[number].loaded = self.table.current().cloned();
                self.processes[number].table_columns = self.table.schema().clone();
                self.feed(number, Event::Loaded(Box::new(view)));
            }
            Action::Follow { since } => self.follow(number, since),
            Action::ResolveStarts { topics, partitions } => self.resolve(number, &topics, partitions),
            Action::Write { attempt, batch, plan, schema_change } => {
                let to = schema_change.map_or_else(|| self.processes[number].table_columns.clone(), |c| c.to.clone());
                self.write(number, &attempt, (&batch, &plan), &to);
            }
            Action::Inspect => self.feed(number, Event::Topics(topology())),
            Action::Commit(order) => self.answer_commit(number, order, faulty),
            Action::Open { .. } | Action::Landed(_) | Action::Stop(_) => unreachable!("handled when given out"),
        }
    }

    fn follow(&mut self, number: usize, since: Option<i64>) {
        // An edge remembers the state of its last load, even where the table has moved on or expired it.
        let to = self.processes[number].loaded.clone();
        let diff = self.table.diff(since, to.as_deref());
        let files = to.map(|s| s.files.clone()).unwrap_or_default();
        self.feed(number, Event::Diff { whole: diff.whole, removed: diff.removed, deletes: diff.deletes });
        for file in diff.added {
            let live: Vec<(u32, Row)> = files[&file.path].live().map(|(p, r)| (p, r.row.clone())).collect();
            let keys = live.iter().map(|(_, r)| key(r.key)).collect();
            let positions = live.iter().map(|(p, _)| *p).collect();
            let orders = live.iter().map(|(_, r)| r.order).collect();
            self.feed(number, Event::Rows { path: file.path, keys, positions, orders });
        }
        self.feed(number, Event::Followed);
    }

    fn resolve(&mut self, number: usize, topics: &[Arc<str>], partitions: Vec<PartitionId>) {
        let all = topics.iter().flat_map(|_| (0..PARTITIONS).map(id)).chain(partitions);
        let starts =
            all.map(|id| ResolvedStart { id, topic: "t".into(), start: Start { offset: 0, earliest: true } }).collect();
        self.feed(number, Event::Starts(starts));
    }

    /// Writes the plan's rows into one or two files, sorted or not.
    fn write(
        &mut self,
        number: usize,
        attempt: &str,
        (batch, plan): (&firn::core::batch::Batch<()>, &firn::core::plan::Plan),
        to: &TableSchema,
    ) {
        let mut rows = Vec::new();
        for part in &plan.append {
            let chunk = &batch.chunks[part.chunk].chunk;
            let newest = batch.chunks.last().map_or(&chunk.asks.names, |newest| &newest.chunk.asks.names);
            rows.extend(part.rows.iter().map(|&row| self.row(chunk, row as usize, newest, to)));
        }
        let mut lists: Vec<Vec<u32>> = vec![Vec::new(), Vec::new()];
        let sorted = self.random.chance(2);
        if sorted {
            let two = self.random.chance(2);
            for row in 0..rows.len() as u32 {
                lists[usize::from(two && self.random.chance(2))].push(row);
            }
            for list in &mut lists {
                self.random.shuffle(list);
            }
        } else {
            lists[0] = (0..rows.len() as u32).collect();
        }
        let mut placed = Vec::new();
        for (n, list) in lists.into_iter().enumerate().filter(|(_, l)| !l.is_empty()) {
            let path: Arc<str> = format!("{attempt}-{n}").into();
            let content: Vec<Stored> = list.iter().map(|&row| rows[row as usize].clone()).collect();
            self.processes[number].written.insert(path.clone(), Arc::new(content));
            let records = list.len() as u32;
            let rows = if sorted { Placement::List(list) } else { Placement::Range { start: 0 } };
            placed.push(PlacedFile { path, records, rows });
        }
        self.feed(number, Event::Written(placed));
    }

    /// The row of an event, by its place in the log, in the columns of a file.
    fn row(&self, chunk: &Chunk<()>, event: usize, newest: &TableSchema, to: &TableSchema) -> Stored {
        let mut first = 0;
        for run in &chunk.runs {
            first += run.events as usize;
            if event < first {
                let offset = chunk.offsets[event];
                let log = &self.log[run.partition.partition as usize];
                let record = &log[log.partition_point(|r| r.offset < offset)];
                let row = Row::of(run.partition.partition, record);
                let named = chunk.asks.schemas.iter().find(|(id, _)| *id as usize == record.schema);
                let meaning = meaning(named.expect("the chunk names the schemas of its rows").1);
                return columns::stored(row, (record.schema, meaning), &chunk.asks.names, newest, to);
            }
        }
        unreachable!("every event belongs to a run")
    }

    fn answer_commit(&mut self, number: usize, order: CommitOrder, faulty: bool) {
        let files = &self.processes[number].written;
        let change = ModelChange {
            base: order.base,
            columns: self.processes[number].table_columns.clone(),
            schema_change: order.schema_change,
            pins: order.pins,
            attempt: Some(order.attempt),
            vector: Some(order.vector),
            added: order.files.iter().map(|f| (f.path.clone(), files[&f.path].clone())).collect(),
            superseded: order.superseded,
            removed: vec![],
            now_ms: self.now_ms,
        };
        let kind = if faulty { self.random.below(10) } else { 9 };
        let outcome = match kind {
            0 | 1 => {
                // Applied, and the answer is lost.
                self.faults.count(Fault::LostAnswer);
                self.commit(change);
                Outcome::Unknown
            }
            2 => {
                // Applied; something in between repeats the request and passes on the refusal.
                self.faults.count(Fault::RepeatedRequest);
                self.commit(change);
                Outcome::Refused
            }
            3 => {
                // An error now, applied later.
                self.faults.count(Fault::DelayedApply);
                self.delayed.push(Delayed { change });
                Outcome::Unknown
            }
            4 => {
                self.faults.count(Fault::LostRequest);
                Outcome::Unknown
            }
            5 => {
                self.faults.count(Fault::NotSent);
                Outcome::NotSent
            }
            6 => {
                // Applied, and then the process dies before it hears of it.
                self.faults.count(Fault::CrashAfterCommit);
                self.commit(change);
                self.crash(number);
                return;
            }
            7 => {
                self.faults.count(Fault::CrashBeforeCommit);
                self.crash(number);
                return;
            }
            _ => {
                let since = change.base;
                let schema_change = change.schema_change.is_some();
                if self.commit(change) {
                    self.processes[number].table_columns = self.table.schema().clone();
                    Outcome::Committed(Box::new(self.table.view(TABLE, since)))
                } else {
                    self.faults.count(Fault::Conflict);
                    if schema_change {
                        self.faults.count(Fault::ColumnsConflict);
                    }
                    Outcome::Refused
                }
            }
        };
        self.feed(number, Event::Outcome(outcome));
    }

    /// Applies a change if its base is current, and checks the promise at the new snapshot.
    fn commit(&mut self, change: ModelChange<Stored>) -> bool {
        let schema_change = change.schema_change.clone();
        let rows = if change.attempt.is_some() { self.read_with(&change) } else { Vec::new() };
        let Some(snapshot) = self.table.commit(change) else { return false };
        if let Err(text) = self.meanings.check(&rows, self.table.schemas()) {
            self.violate(format!("snapshot {}: {text}", snapshot.id));
        }
        if let Some(planned) = schema_change {
            self.check_change(&snapshot, &planned);
        }
        if let Some(trace) = &mut self.trace {
            trace.note(&snapshot);
        }
        if let Err(text) = self.oracle.check(&snapshot, &self.log) {
            self.violate(text);
        }
        true
    }

    /// The schemas of a commit's rows, and what each was taken for.
    fn read_with(&self, change: &ModelChange<Stored>) -> Vec<(usize, Meaning)> {
        let rows = change.added.iter().flat_map(|(_, rows)| rows.iter());
        let schema = |stored: &Stored| {
            let (partition, offset) = stored.row.source;
            let log = &self.log[partition as usize];
            (log[log.partition_point(|r| r.offset < offset)].schema, stored.meaning)
        };
        rows.map(schema).collect()
    }

    /// The registry is reset, restored from an old copy, or replaced.
    pub fn replace_registry(&mut self) {
        self.meanings.replace(&mut self.random);
        self.faults.count(Fault::RegistryReplaced);
    }

    /// INV-21: columns change in the commit of the first rows that need it, never without them.
    fn check_change(&mut self, snapshot: &ModelSnapshot<Stored>, planned: &SchemaChange) {
        self.faults.count(Fault::ColumnsChanged);
        let schemas = self.oracle.schemas_of(snapshot, &self.log);
        let idle = columns::unneeded(planned, &schemas);
        if !idle.is_empty() {
            self.violate(format!("snapshot {}: nothing in the batch needs this: {idle:?}", snapshot.id));
        }
    }

    pub fn apply_delayed(&mut self) {
        if !self.delayed.is_empty() {
            let which = self.random.below(self.delayed.len());
            let delayed = self.delayed.swap_remove(which);
            self.commit(delayed.change);
        }
    }

    // ---- other writers of the table ---------------------------------------------------------------------------------

    /// Another engine deletes rows, rewrites files, inserts rows, or commits nothing.
    pub fn foreign(&mut self) {
        let Some(current) = self.table.current().cloned() else { return };
        self.names += 1;
        if self.random.chance(5) {
            self.foreign_column();
            return;
        }
        let mut change = ModelChange {
            base: Some(current.id),
            columns: self.table.schema().clone(),
            schema_change: None,
            pins: None,
            attempt: None,
            vector: None,
            added: vec![],
            superseded: vec![],
            removed: vec![],
            now_ms: self.now_ms,
        };
        let paths: Vec<Arc<str>> = current.files.keys().cloned().collect();
        match self.random.below(4) {
            0 if !paths.is_empty() => {
                let path = paths[self.random.below(paths.len())].clone();
                let live: Vec<u32> = current.files[&path].live().map(|(p, _)| p).collect();
                let gone: RoaringBitmap = live.into_iter().filter(|_| self.random.chance(3)).collect();
                change.superseded.push((path, gone));
                self.faults.count(Fault::ForeignDelete);
            }
            1 if !paths.is_empty() => {
                let inputs: Vec<Arc<str>> = paths.into_iter().filter(|_| self.random.chance(2)).collect();
                let mut rows: Vec<Stored> =
                    inputs.iter().flat_map(|p| current.files[p].live().map(|(_, r)| r.clone())).collect();
                self.random.shuffle(&mut rows);
                change.removed = inputs;
                change.added.push((format!("foreign-{}", self.names).into(), Arc::new(rows)));
                self.faults.count(Fault::ForeignRewrite);
            }
            2 => {
                let number = self.random.below(6) as u64;
                let rows = (0..1 + self.random.below(2)).map(|_| Stored::foreign(number, self.names)).collect();
                change.added.push((format!("foreign-{}", self.names).into(), Arc::new(rows)));
                self.faults.count(Fault::ForeignInsert);
            }
            _ => self.faults.count(Fault::ForeignEmpty),
        }
        if self.mutants.has(Mutant::DropOldDeletes) {
            // The fault is planted in our writer, not in the other engine.
            for (path, rows) in &mut change.superseded {
                *rows |= &current.files[path].deleted;
            }
        }
        self.commit(change);
    }

    /// Another engine adds a column, without a snapshot: one of its own, or one that a schema asks for.
    fn foreign_column(&mut self) {
        let schema = self.random.below(SCHEMAS);
        let schema = Some(schema).filter(|schema| *schema > 0);
        let (table, last) = (self.table.schema(), self.table.last_field_id());
        if let Some(next) = columns::foreign(table, last, schema, self.names) {
            self.table.set_schema(Arc::new(next));
            self.faults.count(Fault::ForeignColumn);
        }
    }

    pub fn expire(&mut self) {
        let keep = 1 + self.random.below(3);
        self.table.expire(keep);
        self.faults.count(Fault::Expiry);
    }

    pub fn roll_back(&mut self) {
        let retained: Vec<i64> = self.table.ancestry().skip(1).take(3).map(|s| s.id).collect();
        if !retained.is_empty() {
            let to = retained[self.random.below(retained.len())];
            self.table.roll_back(to);
            self.faults.count(Fault::Rollback);
        }
    }

    /// Whether every process has everything in the table.
    pub fn is_settled(&self) -> bool {
        let Some(vector) = self.table.current().map(|_| self.oracle.current_vector(&self.table)) else { return false };
        (0..PARTITIONS).all(|p| vector.next(&id(p)) == Some(self.ends[p as usize]))
            && self.processes.iter().all(|p| p.writer.is_drained())
    }

    pub fn heal(&mut self) {
        for process in 0..self.processes.len() {
            self.wake(process);
            self.assign(process);
        }
        self.delayed.clear();
        self.meanings.restore();
    }

    /// One number for everything that happened.
    pub fn trace(&self) -> Option<u64> {
        self.trace.as_ref().map(Trace::sum)
    }

    pub fn vector(&self) -> Option<Vector> {
        self.table.current().map(|_| self.oracle.current_vector(&self.table))
    }
}

fn topology() -> Topology {
    Topology { cluster: "cluster".into(), topics: BTreeMap::from([("t".to_string(), TOPIC.into())]) }
}

fn empty_chunk() -> Chunk<()> {
    Chunk {
        runs: vec![],
        offsets: vec![],
        keys: vec![],
        ops: vec![],
        orders: vec![],
        row_of: vec![],
        rows: (),
        asks: Asks::default(),
        bytes: 1,
    }
}

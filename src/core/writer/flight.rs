//! One batch on its way into the table: planned, written, committed, and resolved when the answer is lost.

use std::sync::Arc;

use super::{
    Action, Base, CommitOrder, Landed, Outcome, PlacedFile, Placement, ResolvedStart, Topology, Waiting, Writer,
};
use crate::core::batch::Batch;
use crate::core::fold::{Semantics, fold};
use crate::core::history::SnapshotId;
use crate::core::key_index::Location;
use crate::core::mutant::{Mutant, Mutants};
use crate::core::offsets::{PartitionId, Position, TopicPositions, Vector};
use crate::core::plan::Plan;
use crate::core::schema::{Asked, Difference, Pins, SchemaChange, TableFormat, TableSchema, plan_change};

/// How many attempts of one flight are remembered. They only shorten the answer: where an older one landed late, V says so.
pub(super) const ATTEMPTS_MAX: usize = 64;

/// How many rows enter the index together: enough to fetch ahead, few enough to stay in the processor's cache.
const PLACED_AT_ONCE: usize = 8192;

/// A batch, and how far it got.
#[derive(Debug)]
pub(super) struct Flight<R> {
    /// Empty where only starts or an anchor are stored.
    pub(super) batch: Arc<Batch<R>>,
    starts: Vec<ResolvedStart>,
    plan: Option<Planned>,
    /// The files that hold the plan's rows.
    files: Option<Vec<PlacedFile>>,
    /// The attempt under way.
    attempt: Option<CommitOrder>,
    /// A plan that a conflict made void, with its files: if the new plan appends the same rows to the same columns, they are
    /// not written again.
    void: Option<(Planned, Vec<PlacedFile>)>,
}

/// What a batch does to the table as it was when this was planned.
#[derive(Debug, Clone)]
struct Planned {
    plan: Arc<Plan>,
    /// The table's columns then.
    columns: Arc<TableSchema>,
    /// What becomes of them.
    change: Option<Arc<SchemaChange>>,
    /// The schema ids that the table is to remember, where that changes.
    pins: Option<Arc<Pins>>,
}

impl Planned {
    /// Whether files of the other plan hold this one's rows, under numbers that mean the same columns. A column that
    /// somebody else added meanwhile, even the same one, may be another one in files.
    fn has_rows_of(&self, other: &Planned) -> bool {
        self.plan.append == other.plan.append && self.columns == other.columns && self.change == other.change
    }

    /// Whether the other plan changes the same columns to the same ones: then it is one change, planned again.
    fn repeats(&self, other: &Planned) -> bool {
        let to = |planned: &Planned| planned.change.as_ref().map(|change| change.to.clone());
        self.columns == other.columns && to(self) == to(other)
    }
}

impl<R> Flight<R> {
    pub(super) fn new(batch: Batch<R>) -> Self {
        Flight { batch: Arc::new(batch), starts: Vec::new(), plan: None, files: None, attempt: None, void: None }
    }

    pub(super) fn into_partitions(self) -> Vec<PartitionId> {
        self.batch.next.keys().cloned().collect()
    }

    /// Whether starts are to be stored.
    pub(super) fn has_starts(&self) -> bool {
        !self.starts.is_empty()
    }

    /// Whether V of a partition depends on this flight's end.
    pub(super) fn concerns(&self, id: &PartitionId) -> bool {
        self.batch.holds(id) || self.starts.iter().any(|start| start.id == *id)
    }

    /// Whether V is, for every partition, where this batch begins.
    pub(super) fn starts_at(&self, vector: &Vector) -> bool {
        self.batch.from.iter().all(|(id, &from)| vector.next(id) == Some(from))
    }

    /// Whether V is, for every partition, where this batch ends: then its events are in, by whatever attempt.
    pub(super) fn reached(&self, vector: &Vector) -> bool {
        let moved = self.batch.next.iter().any(|(id, next)| self.batch.from.get(id) != Some(next));
        moved && self.batch.next.iter().all(|(id, &next)| vector.next(id) == Some(next))
    }
}

impl<R> Writer<R> {
    /// Moves the flight on by one step; the base and the index are as of the snapshot loaded last.
    pub(super) fn launch(&mut self) {
        if self.flight.as_ref().is_some_and(|flight| flight.plan.is_none()) && !self.plan() {
            return;
        }
        let Some(flight) = &self.flight else { return };
        let Some(Planned { plan, change: schema_change, .. }) = flight.plan.clone() else { return };
        if !plan.append.is_empty() && flight.files.is_none() {
            let batch = flight.batch.clone();
            let attempt = self.next_attempt();
            self.ask(Waiting::Files, Action::Write { attempt, batch, plan, schema_change });
            return;
        }
        self.ask(Waiting::Topics, Action::Inspect);
    }

    /// Plans the flight against the base and the index; false where the table cannot hold its rows any more.
    fn plan(&mut self) -> bool {
        let id = format!("{}-{}", self.config.writer, self.attempt_count + 1);
        let mutants = self.config.mutants;
        let (Some(flight), Some(base)) = (&mut self.flight, &self.base) else { return false };
        let void = flight.void.take();
        let change = match change_of(&flight.batch, base, &self.config.formats, id) {
            Ok(change) => change.filter(|_| void.is_none() || !mutants.has(Mutant::ForgetColumns)),
            Err(obstacle) => {
                self.decision(format_args!(
                    "other writers changed its columns, and it cannot hold the rows that were read any more: {obstacle}; start \
                     again to have these records treated as the settings say, or make the column fit"
                ));
                return false;
            }
        };
        let pins = match pins_of(&flight.batch, base, mutants) {
            Ok(pins) => pins.map(Arc::new),
            Err(why) => {
                self.decision(why);
                return false;
            }
        };
        let plan = Arc::new(fold(&flight.batch, &self.index, self.config.semantics, mutants));
        let mut planned = Planned { plan, columns: base.schema.clone(), change: change.map(Arc::new), pins };
        if let Some((void, files)) = void {
            if mutants.has(Mutant::StalePins) {
                planned.pins.clone_from(&void.pins);
            }
            if planned.repeats(&void) {
                planned.change.clone_from(&void.change);
            }
            if planned.has_rows_of(&void)
                || (mutants.has(Mutant::StaleFieldIds) && planned.plan.append == void.plan.append)
            {
                flight.files = Some(files);
            }
        }
        flight.plan = Some(planned);
        true
    }

    fn next_attempt(&mut self) -> String {
        self.attempt_count += 1;
        format!("{}-{}", self.config.writer, self.attempt_count)
    }

    pub(super) fn on_written(&mut self, files: Vec<PlacedFile>) {
        if self.waiting != Waiting::Files {
            return;
        }
        self.waiting = Waiting::Nothing;
        if let Some(flight) = &mut self.flight {
            flight.files = Some(files);
        }
    }

    pub(super) fn on_starts(&mut self, starts: Vec<ResolvedStart>) {
        if self.waiting != Waiting::Starts {
            return;
        }
        self.waiting = Waiting::Nothing;
        self.restart.clear();
        if starts.is_empty() {
            // A topic that was deleted meanwhile: the group will take its partitions away.
            self.starts_after_ms = self.now_ms + super::STARTS_AGAIN_MS;
            return;
        }
        let mut flight = Flight::new(Batch::default());
        flight.starts = starts;
        self.flight = Some(flight);
    }

    pub(super) fn on_topics(&mut self, topology: Topology) {
        let topology = self.topology.insert(topology);
        let Some(base) = &mut self.base else { return };
        if base.vector.topics.is_empty() {
            // No offset is stored yet that could mean another cluster's.
            base.vector.cluster.clone_from(&topology.cluster);
        }
        if let Some(message) = elsewhere(&base.vector, topology).or_else(|| recreated(&base.vector, topology)) {
            self.decision(message);
            return;
        }
        if self.waiting == Waiting::Topics {
            self.waiting = Waiting::Nothing;
            self.commit();
        }
    }

    fn commit(&mut self) {
        let attempt = self.next_attempt();
        let (Some(flight), Some(base)) = (&mut self.flight, &self.base) else { return };
        let superseded = flight.plan.iter().flat_map(|planned| &planned.plan.superseded);
        let late = self.config.mutants.has(Mutant::RowsBeforeColumns);
        let order = CommitOrder {
            attempt,
            base: base.snapshot,
            vector: next_vector(flight, base, self.config.mutants),
            files: flight.files.clone().unwrap_or_default(),
            superseded: superseded.filter_map(|(n, rows)| Some((self.files.path(*n)?.clone(), rows.clone()))).collect(),
            schema_change: flight.plan.as_ref().and_then(|planned| planned.change.clone()).filter(|_| !late),
            pins: flight.plan.as_ref().and_then(|planned| planned.pins.clone()),
        };
        flight.attempt = Some(order.clone());
        self.ask(Waiting::Outcome, Action::Commit(order));
    }

    pub(super) fn on_outcome(&mut self, outcome: Outcome) {
        if self.waiting != Waiting::Outcome {
            return;
        }
        self.waiting = Waiting::Nothing;
        let Some(order) = self.flight.as_mut().and_then(|f| f.attempt.take()) else { return };
        match outcome {
            Outcome::Committed(view) => {
                self.place(&order);
                self.finish_flight(view.snapshot, &order.vector);
                self.base = Some(Base::of(&view, order.vector));
                self.loaded_ms = self.now_ms;
                self.foreign_since_ms = None;
                self.want_anchor = false;
            }
            Outcome::Refused | Outcome::Unknown => {
                // Even a refusal may be the answer to our own first try, repeated by something in between.
                if self.attempts.len() == ATTEMPTS_MAX {
                    self.attempts.remove(0);
                }
                self.attempts.push(order.attempt);
                self.want_load = true;
                self.loads_again += 1;
            }
            Outcome::NotSent => {
                self.want_load = true;
                self.loads_again += 1;
            }
        }
    }

    /// Enters the rows of a commit that is the table's current snapshot into the index.
    fn place(&mut self, order: &CommitOrder) {
        let Some(Planned { plan, .. }) = self.flight.as_ref().and_then(|f| f.plan.clone()) else { return };
        if self.config.semantics == Semantics::Append {
            return;
        }
        let in_plan_order = self.config.mutants.has(Mutant::CountInPlanOrder);
        let mut entries = Vec::with_capacity(PLACED_AT_ONCE);
        for placed in &order.files {
            let file = self.files.number(&placed.path);
            for row in 0..placed.records {
                let new = match &placed.rows {
                    Placement::Range { start } => start + row,
                    Placement::List(list) if in_plan_order => list.iter().min().copied().unwrap_or(0) + row,
                    Placement::List(list) => list[row as usize],
                } as usize;
                let Some(&key) = plan.keys.get(new) else { continue };
                entries.push((key, Location { file, row }, plan.orders.get(new).copied().unwrap_or(0)));
                if entries.len() == PLACED_AT_ONCE {
                    self.index.replace_batch(&entries);
                    entries.clear();
                }
            }
        }
        self.index.replace_batch(&entries);
        for &key in &plan.gone {
            self.index.remove_all(key);
        }
    }

    /// The batch is in the table.
    pub(super) fn finish_flight(&mut self, snapshot: Option<SnapshotId>, vector: &Vector) {
        let Some(flight) = self.flight.take() else { return };
        self.attempts.clear();
        self.loads_again = 0;
        self.positions_ms = self.now_ms;
        let (plan, change) = flight.plan.map(|planned| (planned.plan, planned.change)).unwrap_or_default();
        self.actions.push(Action::Landed(Landed {
            snapshot,
            events: flight.batch.events,
            appended: plan.appended(),
            superseded: plan.superseded(),
            schema_changes: change.map(|change| change.changes.clone()).unwrap_or_default(),
            vector: vector.clone(),
        }));
    }

    /// The table moved under the batch, but V did not: everything is looked up and folded again.
    pub(super) fn plan_again(&mut self) {
        let keep = self.config.mutants.has(Mutant::KeepPlan);
        let Some(flight) = &mut self.flight else { return };
        flight.attempt = None;
        if keep {
            return;
        }
        if let (Some(plan), Some(files)) = (flight.plan.take(), flight.files.take()) {
            flight.void = Some((plan, files));
        }
    }
}

/// The change that the table needs to hold a batch's rows; `id` names it.
fn change_of<R>(
    batch: &Batch<R>,
    base: &Base,
    formats: &[TableFormat],
    id: String,
) -> Result<Option<SchemaChange>, Difference> {
    let Some(newest) = batch.chunks.last() else { return Ok(None) };
    let asked = Asked {
        table: &base.schema,
        last_field_id: base.last_field_id,
        names: &newest.chunk.asks.names,
        wanted: &batch.wanted,
        formats,
    };
    plan_change(asked, id)
}

/// The schema ids that the table is to remember besides; `None` where it has those of the batch already.
///
/// # Errors
/// One of them has another schema in the table.
fn pins_of<R>(batch: &Batch<R>, base: &Base, mutants: Mutants) -> Result<Option<Pins>, String> {
    if batch.schemas.is_empty() {
        return Ok(None);
    }
    let held = Pins::read(base.schemas.as_deref().filter(|_| !mutants.has(Mutant::ForgetPins)))?;
    held.with(&batch.schemas).map_err(|repinned| repinned.to_string())
}

/// V as the flight's commit stores it: the full vector of its parent, the flight's partitions advanced.
fn next_vector<R>(flight: &Flight<R>, base: &Base, mutants: Mutants) -> Vector {
    let mut parent = base.vector.clone();
    if mutants.has(Mutant::PartialVector) {
        for (topic, positions) in &mut parent.topics {
            positions.partitions.retain(|&partition, _| {
                let id = PartitionId { topic: topic.clone(), partition };
                flight.batch.is_empty() || flight.batch.holds(&id)
            });
        }
    }
    let back = i64::from(mutants.has(Mutant::StoreLast));
    let mut vector = parent.advance(flight.batch.next.iter().map(|(id, &next)| (id, next - back)));
    for start in &flight.starts {
        let topic = vector
            .topics
            .entry(start.id.topic.clone())
            .or_insert_with(|| TopicPositions { name: start.topic.clone(), partitions: Default::default() });
        topic.partitions.insert(start.id.partition, Position::at_start(start.start));
    }
    vector
}

/// Says so when V is of another cluster than the topics are.
pub(super) fn elsewhere(vector: &Vector, topology: &Topology) -> Option<String> {
    let (held, now) = (&vector.cluster, &topology.cluster);
    (held != now).then(|| {
        format!(
            "it holds offsets of Kafka cluster {held}, but the brokers are cluster {now}: offsets of one cluster mean \
             nothing in another; point the pipeline at the old cluster, or begin a new epoch with `firn offsets set`"
        )
    })
}

/// Says so when a topic of V has another id now: its offsets mean something else.
fn recreated(vector: &Vector, topology: &Topology) -> Option<String> {
    vector.topics.iter().find_map(|(id, stored)| {
        let other = topology.topics.get(&stored.name).filter(|now| *now != id)?;
        Some(format!(
            "topic {} was deleted and created again (its id {id} became {other}): the stored offsets mean nothing in the new \
             topic; begin a new epoch with `firn offsets set`, or restore the old topic",
            stored.name
        ))
    })
}

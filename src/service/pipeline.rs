//! One pipeline while it runs: the source on one side, the writers of its tables on the other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::clock;
use super::intake::{FromIntake, TopicIds};
use super::observing::{Observing, Rejected};
use super::schemas::SchemaDesk;
use super::starts::{Starts, for_core};
use super::table_task::{TableEvent, TableTask};
use crate::core::change::Chunk;
use crate::core::offsets::{Epoch, PartitionId, Vector};
use crate::core::writer::{Action, Event, Landed, Writer};
use crate::error::Error;
use crate::source::{self, Command, Source, TopicPartition};
use crate::telemetry::{Dependency, Task};
use crate::{Result, core};

/// How often writers are told that time passed.
const TICK: Duration = Duration::from_millis(100);
/// How often the table is looked at while waiting for other members to catch up.
const CATCH_UP_LOOK: Duration = Duration::from_secs(1);
/// How long what is uncommitted may take to be committed before partitions are given away, or the process ends.
pub(super) const DRAIN: Duration = Duration::from_secs(20);
/// How often the counts of rejected records are logged, at most.
const REJECTED_LOOK: Duration = Duration::from_secs(10);
/// How often topics are looked up again for a pattern.
const TOPICS_LOOK: Duration = Duration::from_secs(30);

/// A table of the pipeline and its writer.
pub(super) struct TableRun {
    pub(super) task: TableTask,
    pub(super) writer: Writer<RecordBatch>,
    /// Whose chunks it takes; tables are in the order of their lanes.
    pub(super) lane: usize,
}

/// Everything that a running pipeline consists of.
pub(super) struct PipelineRun {
    pub(super) name: String,
    pub(super) source: Source,
    pub(super) intake: mpsc::Receiver<FromIntake>,
    pub(super) answers: mpsc::Receiver<(usize, Result<TableEvent>)>,
    pub(super) tables: Vec<TableRun>,
    pub(super) starts: Arc<Starts>,
    pub(super) desk: SchemaDesk,
    pub(super) topology: source::Topology,
    pub(super) topic_ids: TopicIds,
    /// The end of each partition as seen at start, where the run ends once everything is in.
    pub(super) until: Option<BTreeMap<PartitionId, i64>>,
    pub(super) progress: Arc<Progress>,
    pub(super) rejected: Arc<std::sync::Mutex<Rejected>>,
    pub(super) reported: Reported,
    pub(super) observing: Observing,
    pub(super) epochs: u64,
    pub(super) revoking: Option<Revoking>,
    pub(super) draining: Option<Instant>,
    pub(super) looked: Instant,
    pub(super) topics_looked: Instant,
}

/// Partitions that the group wants back, once what is uncommitted of them is in.
pub(super) struct Revoking {
    ids: Vec<PartitionId>,
    /// Dropping it lets them go.
    _done: oneshot::Sender<()>,
    until: Instant,
}

/// What was last said about rejected records.
#[derive(Debug, Default)]
pub(super) struct Reported {
    at: Option<Instant>,
    rejected: Rejected,
}

/// How far a pipeline is, for whoever shows it.
#[derive(Debug, Default)]
pub struct Progress {
    /// Events in committed batches.
    pub events: std::sync::atomic::AtomicU64,
    /// Commits that hold rows or deletes.
    pub commits: std::sync::atomic::AtomicU64,
    /// Rows appended.
    pub appended: std::sync::atomic::AtomicU64,
    /// Rows superseded.
    pub superseded: std::sync::atomic::AtomicU64,
    /// V of the first table, newest.
    pub vector: std::sync::Mutex<Option<Vector>>,
}

impl Progress {
    /// Takes in a commit to the first table of a lane. One that only moves positions, or stores a start, is not counted:
    /// nobody who asks how many commits there were means these.
    fn count(&self, landed: &Landed) {
        use std::sync::atomic::Ordering::Relaxed;
        self.events.fetch_add(landed.events as u64, Relaxed);
        self.commits.fetch_add(u64::from(landed.appended > 0 || landed.superseded > 0), Relaxed);
        self.appended.fetch_add(landed.appended as u64, Relaxed);
        self.superseded.fetch_add(landed.superseded, Relaxed);
    }
}

/// How a run of a pipeline ended, without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was asked to stop, and everything it had is committed or will be read again.
    Stopped,
    /// V reached the ends seen at start.
    CaughtUp,
}

impl PipelineRun {
    /// Runs until told to stop, caught up, or in need of a person.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Result<Ended> {
        let ended = self.events(stop).await;
        self.report_rejected();
        self.observing.count_rejected(&self.rejected);
        if let Ok(Ended::CaughtUp) = &ended {
            self.report_totals();
        }
        self.save_indexes();
        self.source.stop().await;
        ended
    }

    async fn events(&mut self, stop: CancellationToken) -> Result<Ended> {
        let topology = for_core(&self.topology);
        self.tell_all(|| Event::Topics(topology.clone())).await?;
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.observing.turn();
            let room = self.tables.iter().all(|t| t.writer.wants_input());
            tokio::select! {
                biased;
                answer = self.answers.recv() => {
                    let Some((number, event)) = answer else { return Ok(Ended::Stopped) };
                    self.tell(number, event?).await?;
                }
                event = self.source.event() => self.on_source(event).await?,
                () = stop.cancelled(), if self.draining.is_none() => {
                    self.draining = Some(Instant::now() + DRAIN);
                    self.source.send(Command::Pause).await?;
                    self.tell_all(|| Event::Flush).await?;
                }
                from_intake = self.intake.recv(), if room => match from_intake {
                    Some(FromIntake::Chunks(chunks)) => self.tell_lanes(&chunks).await?,
                    Some(FromIntake::NeedsSchema { id, of }) => self.desk.fetch(id, of),
                    Some(FromIntake::Fatal(error)) => {
                        self.drain().await?;
                        return Err(error);
                    }
                    None => return Err(Error::Internal("the kafka poll thread has ended".into())),
                },
                _ = ticks.tick() => self.tick().await?,
            }
            if let Some(ended) = self.is_done().await? {
                return Ok(ended);
            }
        }
    }

    /// Commits what was read so far, and takes nothing more.
    async fn drain(&mut self) -> Result<()> {
        let until = Instant::now() + DRAIN;
        self.tell_all(|| Event::Flush).await?;
        while !self.is_drained() && Instant::now() < until {
            self.observing.turn();
            match tokio::time::timeout(TICK, self.answers.recv()).await {
                Ok(Some((number, event))) => self.tell(number, event?).await?,
                Ok(None) => break,
                Err(_) => self.tell_all(|| Event::Flush).await?,
            }
        }
        Ok(())
    }

    fn is_drained(&self) -> bool {
        self.tables.iter().all(|t| t.writer.is_drained())
    }

    fn holds_any(&self, ids: &[PartitionId]) -> bool {
        self.tables.iter().any(|table| ids.iter().any(|id| table.writer.holds(id)))
    }

    async fn is_done(&mut self) -> Result<Option<Ended>> {
        // What goes on arriving of other partitions must not hold these back.
        if let Some(revoking) = &self.revoking
            && (!self.holds_any(&revoking.ids) || Instant::now() >= revoking.until)
            && let Some(Revoking { ids, _done, .. }) = self.revoking.take()
        {
            // Whatever is still uncommitted stays in the batch: V at the commit decides whether it counts.
            self.tell_all(|| Event::Revoked(ids.clone())).await?;
        }
        if let Some(until) = self.draining {
            if self.is_drained() || Instant::now() >= until {
                return Ok(Some(Ended::Stopped));
            }
            return Ok(None);
        }
        let Some(ends) = &self.until else { return Ok(None) };
        let reached = |vector: Option<&Vector>| {
            vector.is_some_and(|v| ends.iter().all(|(id, &end)| v.next(id).is_some_and(|next| next >= end)))
        };
        Ok(self.tables.iter().all(|t| reached(t.writer.vector())).then_some(Ended::CaughtUp))
    }

    async fn tick(&mut self) -> Result<()> {
        self.tell_all(|| Event::Tick).await?;
        self.observing.tick(&self.tables, &self.rejected);
        self.observing.look_at_lag(&self.tables, &self.topology, &self.starts);
        if self.revoking.as_ref().is_some_and(|revoking| self.holds_any(&revoking.ids)) {
            // Some of it was still on its way here when the first flush began.
            self.tell_all(|| Event::Flush).await?;
        }
        if let Some(ends) = &self.until {
            let read = |t: &TableRun| ends.iter().all(|(id, &end)| t.writer.applied(id).is_none_or(|at| at >= end));
            if self.tables.iter().all(read) {
                self.tell_all(|| Event::Flush).await?;
                if self.looked.elapsed() >= CATCH_UP_LOOK {
                    self.looked = Instant::now();
                    self.tell_all(|| Event::Reload).await?;
                }
            }
        }
        if self.reported.at.is_none_or(|at| at.elapsed() >= REJECTED_LOOK) {
            self.report_rejected();
        }
        if self.topics_looked.elapsed() >= TOPICS_LOOK {
            self.topics_looked = Instant::now();
            self.look_up_topics().await;
        }
        Ok(())
    }

    /// Finds topics that a pattern matches by now. What fails is tried again next time.
    async fn look_up_topics(&mut self) {
        let task = Task::of(Dependency::Broker, "topics");
        match self.starts.cluster.describe_once(&self.starts.topics).await {
            Ok(topology) => {
                let names = |t: &source::Topology| t.topics.keys().cloned().collect::<BTreeSet<_>>();
                if names(&topology) != names(&self.topology) {
                    let all = topology.topics.keys().map(ToString::to_string).collect();
                    if self.source.send(Command::Subscribe(all)).await.is_err() {
                        return;
                    }
                }
                self.observing.telemetry.answered(&task);
                self.know(topology);
            }
            Err(error) => {
                tracing::warn!(pipeline = self.name, %error, "topics cannot be looked up");
                self.observing.telemetry.failed(&task, &error.to_string());
            }
        }
    }

    fn know(&mut self, topology: source::Topology) {
        if let Ok(mut ids) = self.topic_ids.lock() {
            *ids = topic_ids(&topology);
        }
        self.topology = topology;
    }

    // ---- the source -------------------------------------------------------------------------------------------------

    async fn on_source(&mut self, event: Option<source::Event>) -> Result<()> {
        match event {
            None => return Err(Error::Internal("the kafka poll thread has ended".into())),
            Some(source::Event::Failed(error)) => return Err(error),
            Some(source::Event::Assigned { partitions, .. }) => {
                let ids = self.identify(&partitions).await?;
                tracing::info!(pipeline = self.name, partitions = ?names(&partitions), "partitions assigned");
                let topology = for_core(&self.topology);
                self.tell_all(|| Event::Topics(topology.clone())).await?;
                self.tell_all(|| Event::Assigned(ids.clone())).await?;
            }
            Some(source::Event::Revoked { partitions, done, .. }) => {
                let ids = self.identify(&partitions).await?;
                tracing::info!(pipeline = self.name, partitions = ?names(&partitions), "partitions revoked");
                self.revoking = Some(Revoking { ids, _done: done, until: Instant::now() + DRAIN });
                self.tell_all(|| Event::Flush).await?;
            }
            Some(source::Event::Lost { partitions, .. }) => {
                let ids = self.identify(&partitions).await?;
                tracing::warn!(pipeline = self.name, partitions = ?names(&partitions), "partitions lost");
                self.tell_all(|| Event::Revoked(ids.clone())).await?;
            }
            Some(source::Event::OutOfRange { partition, offset, reason, .. }) => {
                self.out_of_range(partition, offset, &reason).await?;
            }
            Some(source::Event::Trouble { partition, reason }) => {
                let partition = partition.map(|p| p.to_string());
                tracing::warn!(pipeline = self.name, partition, reason, "kafka complains");
            }
            Some(source::Event::Stalled { reason, .. }) => {
                tracing::warn!(pipeline = self.name, reason, "no kafka broker answers; waiting");
                self.observing.telemetry.failed(&Task::only(Dependency::Broker), &reason);
            }
            Some(source::Event::Recovered) => {
                tracing::info!(pipeline = self.name, "kafka answers again");
                self.observing.telemetry.answered(&Task::only(Dependency::Broker));
            }
        }
        Ok(())
    }

    /// The identities of partitions; topics that are new to this process are looked up.
    async fn identify(&mut self, partitions: &[TopicPartition]) -> Result<Vec<PartitionId>> {
        if partitions.iter().any(|p| self.topology.id(p).is_none()) {
            let topology = self.starts.cluster.describe_once(&self.starts.topics).await?;
            self.know(topology);
        }
        Ok(partitions.iter().filter_map(|p| self.topology.id(p)).collect())
    }

    async fn out_of_range(&mut self, partition: TopicPartition, offset: i64, reason: &str) -> Result<()> {
        let marks = self.starts.cluster.watermarks(std::slice::from_ref(&partition)).await?;
        let Some(id) = self.topology.id(&partition) else { return Ok(()) };
        match marks.get(&partition) {
            // A late answer to an earlier question: the log has the offset.
            Some(&(low, high)) if (low..=high).contains(&offset) => self.open(&id, offset).await,
            _ => {
                tracing::warn!(%partition, offset, reason, "the log does not have the offset");
                self.tell_all(|| Event::OutOfRange(id.clone())).await
            }
        }
    }

    /// Reads a partition from where the table that is furthest behind needs it; the others filter by their own V.
    async fn open(&mut self, id: &PartitionId, offset: i64) -> Result<()> {
        // By its topic alone: a partition that was added a moment ago is not in the description yet.
        let Some((topic, _)) = self.topology.topics.iter().find(|(_, info)| info.id == id.topic) else { return Ok(()) };
        let partition = TopicPartition::new(topic.clone(), id.partition);
        let offset = self.tables.iter().filter_map(|t| t.writer.applied(id)).fold(offset, i64::min);
        self.epochs += 1;
        let epoch = Epoch(self.epochs);
        self.source.send(Command::Open { partition, offset, epoch }).await?;
        let now = clock::now_ms();
        for number in 0..self.tables.len() {
            let actions = self.tables[number].writer.step(Event::Opened { id: id.clone(), epoch }, now);
            Box::pin(self.act(number, actions)).await?;
        }
        Ok(())
    }

    // ---- the writers ------------------------------------------------------------------------------------------------

    async fn tell_all(&mut self, event: impl Fn() -> TableEvent) -> Result<()> {
        for number in 0..self.tables.len() {
            self.tell(number, event()).await?;
        }
        Ok(())
    }

    /// Hands each table the chunk of its lane.
    async fn tell_lanes(&mut self, chunks: &[Arc<Chunk<RecordBatch>>]) -> Result<()> {
        for number in 0..self.tables.len() {
            let chunk = chunks[self.tables[number].lane].clone();
            self.tell(number, Event::Chunk(chunk)).await?;
        }
        Ok(())
    }

    async fn tell(&mut self, number: usize, event: TableEvent) -> Result<()> {
        let name = event.name();
        let actions = self.tables[number].writer.step(event, clock::now_ms());
        for action in &actions {
            tracing::debug!(
                table = self.tables[number].task.table.name(),
                event = name,
                action = action.name(),
                "step"
            );
        }
        self.act(number, actions).await
    }

    async fn act(&mut self, number: usize, actions: Vec<Action<RecordBatch>>) -> Result<()> {
        for action in actions {
            self.observing.acting(number, &action);
            match action {
                Action::Open { id, offset } => self.open(&id, offset).await?,
                Action::Landed(landed) => self.landed(number, landed).await?,
                Action::Stop(error) => return Err(error),
                other => self.tables[number].task.spawn(other),
            }
        }
        Ok(())
    }

    async fn landed(&mut self, number: usize, landed: Landed) -> Result<()> {
        let table = &self.tables[number];
        tracing::info!(
            table = table.task.table.name(),
            snapshot = landed.snapshot,
            events = landed.events,
            appended = landed.appended,
            superseded = landed.superseded,
            keys = table.writer.keys(),
            "commit written"
        );
        self.observing.landed(number, table.task.table.name(), &landed);
        if !landed.schema_changes.is_empty() {
            let changes: Vec<String> = landed.schema_changes.iter().map(ToString::to_string).collect();
            tracing::info!(table = table.task.table.name(), snapshot = landed.snapshot, ?changes, "columns changed");
        }
        if number == 0 || self.tables[number - 1].lane != table.lane {
            self.progress.count(&landed);
        }
        if number == 0 {
            if let Ok(mut newest) = self.progress.vector.lock() {
                *newest = Some(landed.vector.clone());
            }
            let next = |id: &PartitionId| landed.vector.next(id);
            let hint = self.topology.partitions().filter_map(|(p, id)| Some((p, next(&id)?))).collect();
            self.source.send(Command::CommitHint(hint)).await?;
        }
        Ok(())
    }

    /// Says how many records were rejected, by reason, where that changed.
    fn report_rejected(&mut self) {
        let Ok(rejected) = self.rejected.lock().map(|r| r.clone()) else { return };
        if rejected.by_reason != self.reported.rejected.by_reason {
            let (records, by_reason) = (rejected.by_reason.values().sum::<u64>(), &rejected.by_reason);
            tracing::info!(pipeline = self.name, records, ?by_reason, "records rejected so far");
            self.reported = Reported { at: Some(Instant::now()), rejected };
        }
    }

    fn report_totals(&self) {
        use std::sync::atomic::Ordering::Relaxed;
        let Progress { events, commits, appended, superseded, .. } = &*self.progress;
        let rejected: u64 = self.reported.rejected.by_reason.values().sum();
        tracing::info!(
            pipeline = self.name,
            events = events.load(Relaxed),
            commits = commits.load(Relaxed),
            appended = appended.load(Relaxed),
            superseded = superseded.load(Relaxed),
            rejected,
            "caught up"
        );
    }

    /// Saves what the indexes know, so that the next start need not read all keys. A failure costs time, nothing else.
    fn save_indexes(&self) {
        for table in &self.tables {
            if let Err(error) = table.task.save(&table.writer) {
                tracing::warn!(table = table.task.table.name(), %error, "the key index was not saved");
            }
        }
    }
}

/// Topic id by name.
pub(super) fn topic_ids(topology: &source::Topology) -> BTreeMap<Arc<str>, Arc<str>> {
    topology.topics.iter().map(|(name, info)| (name.clone(), info.id.clone())).collect()
}

fn names(partitions: &[TopicPartition]) -> Vec<String> {
    partitions.iter().map(ToString::to_string).collect()
}

/// The offsets of a topology's partitions by identity.
pub(super) fn by_identity(
    topology: &source::Topology,
    offsets: &BTreeMap<TopicPartition, i64>,
) -> BTreeMap<core::offsets::PartitionId, i64> {
    topology.partitions().filter_map(|(partition, id)| Some((id, *offsets.get(&partition)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_that_only_move_positions_are_not_counted() {
        let progress = Progress::default();
        let empty = Landed {
            snapshot: Some(1),
            events: 0,
            appended: 0,
            superseded: 0,
            schema_changes: vec![],
            vector: Vector::new("c"),
        };
        progress.count(&empty);
        progress.count(&Landed { events: 3, appended: 2, superseded: 1, ..empty.clone() });
        progress.count(&Landed { events: 1, superseded: 1, ..empty });
        let Progress { events, commits, appended, superseded, .. } = progress;
        let counted = [events, commits, appended, superseded].map(std::sync::atomic::AtomicU64::into_inner);
        assert_eq!(counted, [4, 2, 2, 2]);
    }
}

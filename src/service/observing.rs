//! What a running pipeline shows of itself. Looked at once a second, and at each commit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;

use super::clock;
use super::intake;
use super::pipeline::TableRun;
use super::starts::Starts;
use crate::avro::Reason;
use crate::core::offsets::PartitionId;
use crate::core::writer::{Action, Landed};
use crate::source::{self, TopicPartition};
use crate::telemetry::{self, Beat, Dependency, PipelineTelemetry, TableLevels, Task};

/// How often the levels are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How often the brokers are asked for the ends of the partitions.
const LAG_LOOK: Duration = Duration::from_secs(10);

/// What was not taken as it came; the intake counts it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Rejected {
    /// Records, by reason.
    pub(super) by_reason: BTreeMap<&'static str, u64>,
    /// Timestamps of which digits were cut off.
    pub(super) cut_times: u64,
}

/// One run of a pipeline, as it is shown.
pub(super) struct Observing {
    pub(super) telemetry: PipelineTelemetry,
    beat: Beat,
    tables: Vec<Shown>,
    looked: Option<Instant>,
    lag_looked: Option<Instant>,
    /// The brokers are being asked.
    asking: Arc<AtomicBool>,
    /// As it was counted last.
    rejected: Rejected,
}

/// What is remembered of a table.
#[derive(Debug, Default)]
struct Shown {
    loaded: bool,
    /// When the batch in flight was closed.
    closed: Option<Instant>,
}

impl Observing {
    pub(super) fn new(telemetry: PipelineTelemetry, tables: usize) -> Self {
        // Counters begin at 0, so that the first increase is seen as one.
        let reasons = Reason::ALL.iter().map(|reason| reason.code()).chain([
            intake::INCOMPATIBLE,
            intake::UNKNOWN_TYPE,
            intake::NO_SCHEMA,
        ]);
        reasons.for_each(|reason| telemetry.rejected(reason, 0));
        Observing {
            beat: telemetry.beat("the event loop"),
            telemetry,
            tables: (0..tables).map(|_| Shown::default()).collect(),
            looked: None,
            lag_looked: None,
            asking: Arc::default(),
            rejected: Rejected::default(),
        }
    }

    /// The event loop turns.
    pub(super) fn turn(&self) {
        self.beat.turn();
    }

    /// A writer wants something done.
    pub(super) fn acting(&mut self, number: usize, action: &Action<RecordBatch>) {
        if let Action::Write { .. } | Action::Inspect = action {
            self.tables[number].closed.get_or_insert_with(Instant::now);
        }
    }

    /// A commit is in the table.
    pub(super) fn landed(&mut self, number: usize, table: &str, landed: &Landed) {
        let closed = self.tables[number].closed.take();
        self.telemetry.answered(&Task::of(Dependency::Commit, table));
        let landed = telemetry::Landed {
            events: landed.events as u64,
            appended: landed.appended as u64,
            superseded: landed.superseded,
            seconds: closed.map(|closed| closed.elapsed().as_secs_f64()),
        };
        self.telemetry.landed(table, &landed);
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, runs: &[TableRun], rejected: &std::sync::Mutex<Rejected>) {
        for (run, shown) in runs.iter().zip(&mut self.tables) {
            let name = run.task.table.name();
            if !shown.loaded && run.writer.vector().is_some() {
                shown.loaded = true;
                self.telemetry.loaded(name);
            }
            // The batch was given up: what was read is read again.
            if shown.closed.is_some() && !run.writer.held().in_flight {
                shown.closed = None;
                self.telemetry.answered(&Task::of(Dependency::Commit, name));
            }
        }
        if self.looked.is_some_and(|at| at.elapsed() < LOOK) {
            return;
        }
        self.looked = Some(Instant::now());
        self.telemetry.back_pressure(!runs.iter().all(|run| run.writer.wants_input()));
        runs.iter().for_each(|run| self.show_levels(run));
        self.count_rejected(rejected);
    }

    fn show_levels(&self, run: &TableRun) {
        let held = run.writer.held();
        let waited_ms = held.since_ms.map_or(0, |since| (clock::now_ms() - since).max(0));
        let levels = TableLevels {
            keys: run.writer.keys(),
            buffered_bytes: held.bytes as u64,
            buffer_limit_bytes: held.bytes_max as u64,
            lag_seconds: waited_ms as f64 / 1000.0,
        };
        self.telemetry.levels(run.task.table.name(), &levels);
    }

    /// Counts what was rejected since the last time.
    pub(super) fn count_rejected(&mut self, rejected: &std::sync::Mutex<Rejected>) {
        let Ok(now) = rejected.lock().map(|rejected| rejected.clone()) else { return };
        for (reason, records) in &now.by_reason {
            let before = self.rejected.by_reason.get(reason).copied().unwrap_or(0);
            self.telemetry.rejected(reason, records.saturating_sub(before));
        }
        let cut_times = now.cut_times.saturating_sub(self.rejected.cut_times);
        if self.rejected.cut_times == 0 && cut_times > 0 {
            tracing::warn!(
                "timestamps have digits finer than microseconds, which are cut off; `nanoseconds: keep` has them in tables of \
                 format version 3, `reject` makes such records bad ones"
            );
        }
        self.telemetry.cut_times(cut_times);
        self.rejected = now;
    }

    /// Asks for the ends of the partitions that are read here, where it is time to, and shows how far V of the slowest
    /// table is from them. An answer that does not come leaves what is shown as it is.
    pub(super) fn look_at_lag(&mut self, runs: &[TableRun], topology: &source::Topology, starts: &Arc<Starts>) {
        let due = self.lag_looked.is_none_or(|at| at.elapsed() >= LAG_LOOK);
        let read = |id: &PartitionId| runs.iter().any(|run| run.writer.applied(id).is_some());
        let next = |id: &PartitionId| runs.iter().filter_map(|run| run.writer.vector()?.next(id)).min();
        if !due || self.asking.load(Ordering::Relaxed) {
            return;
        }
        let here = topology.partitions().filter(|(_, id)| read(id));
        let positions: BTreeMap<TopicPartition, i64> = here.filter_map(|(p, id)| Some((p, next(&id)?))).collect();
        if positions.is_empty() && self.lag_looked.is_none() {
            return;
        }
        self.lag_looked = Some(Instant::now());
        self.asking.store(true, Ordering::Relaxed);
        let (starts, telemetry, asking) = (starts.clone(), self.telemetry.clone(), self.asking.clone());
        tokio::spawn(async move {
            let partitions: Vec<_> = positions.keys().cloned().collect();
            match starts.cluster.last_stable_offsets(&partitions).await {
                Ok(ends) => {
                    let lag = |(p, next): (&TopicPartition, &i64)| {
                        Some(((p.topic.clone(), p.partition), (ends.get(p)? - next).max(0)))
                    };
                    telemetry.lag(&positions.iter().filter_map(lag).collect());
                }
                Err(error) => tracing::debug!(%error, "the ends of the partitions are not known"),
            }
            asking.store(false, Ordering::Relaxed);
        });
    }
}

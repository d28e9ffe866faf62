//! Every metric: its name, its labels, and what it counts. docs/operations.md says what to watch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use prometheus::core::Collector;
use prometheus::{
    Encoder, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::lock;
use crate::{Error, Result};

/// From a commit to a local disk to one that waits for a store's timeouts (seconds).
const COMMIT_SECONDS: [f64; 12] = [0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// Partitions by topic and number.
type Partitions = BTreeSet<(Arc<str>, i32)>;

const TABLE: [&str; 2] = ["pipeline", "table"];

/// What one commit put into a table.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Landed {
    /// Events of the batch.
    pub events: u64,
    /// Rows appended.
    pub appended: u64,
    /// Rows of earlier commits that are gone.
    pub superseded: u64,
    /// From the moment the batch was closed until it was known to be in the table; none where there was no batch.
    pub seconds: Option<f64>,
}

/// What a table's writer holds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TableLevels {
    /// Distinct keys in the index.
    pub keys: u64,
    /// Bytes of events that are read and not committed.
    pub buffered_bytes: u64,
    /// How many bytes of them there may be before reading pauses.
    pub buffer_limit_bytes: u64,
    /// How long the oldest of them has waited, in seconds.
    pub lag_seconds: f64,
}

/// The metrics of one process.
pub(super) struct Metrics {
    registry: Registry,
    events: IntCounterVec,
    commits: IntCounterVec,
    appended: IntCounterVec,
    superseded: IntCounterVec,
    pub(super) commit_failures: IntCounterVec,
    commit_seconds: HistogramVec,
    commit_lag: GaugeVec,
    index_keys: IntGaugeVec,
    buffered: IntGaugeVec,
    buffer_limit: IntGaugeVec,
    consumer_lag: IntGaugeVec,
    pub(super) bad_records: IntCounterVec,
    pub(super) cut_times: IntCounterVec,
    pub(super) back_pressure: IntGaugeVec,
    pub(super) stalled: GaugeVec,
    pub(super) ready: IntGauge,
    /// The partitions of each pipeline that have a lag.
    lagging: Mutex<BTreeMap<String, Partitions>>,
}

/// A metric, registered. Names and labels are constants, so that it fails in the first test or never.
fn kept<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> Result<C> {
    let registered = made.and_then(|metric| registry.register(Box::new(metric.clone())).map(|()| metric));
    registered.map_err(|e| Error::Internal(format!("a metric that cannot be: {e}")))
}

impl Metrics {
    pub(super) fn new() -> Result<Self> {
        let registry = Registry::new();
        let r = &registry;
        let counter =
            |name: &str, help: &str, labels: &[&str]| kept(r, IntCounterVec::new(Opts::new(name, help), labels));
        let level = |name: &str, help: &str, labels: &[&str]| kept(r, IntGaugeVec::new(Opts::new(name, help), labels));
        let seconds = |name: &str, help: &str, labels: &[&str]| kept(r, GaugeVec::new(Opts::new(name, help), labels));
        let took = HistogramOpts::new("firn_commit_seconds", "From closing a batch until its commit is in the table");
        let version = Opts::new("firn_build_info", "1, with the version of the program")
            .const_label("version", env!("CARGO_PKG_VERSION"));
        kept(r, IntGauge::with_opts(version))?.set(1);
        Ok(Metrics {
            events: counter("firn_events_total", "Events in committed batches", &TABLE)?,
            commits: counter("firn_commits_total", "Commits, those included that only move positions", &TABLE)?,
            appended: counter("firn_rows_appended_total", "Rows that commits appended", &TABLE)?,
            superseded: counter("firn_rows_superseded_total", "Rows of earlier commits that commits removed", &TABLE)?,
            commit_failures: counter(
                "firn_commit_failures_total",
                "Tries to commit that were refused, not answered or not sent",
                &["pipeline", "table", "outcome"],
            )?,
            commit_seconds: kept(r, HistogramVec::new(took.buckets(COMMIT_SECONDS.to_vec()), &TABLE))?,
            commit_lag: seconds("firn_commit_lag_seconds", "How long the oldest uncommitted event has waited", &TABLE)?,
            index_keys: level("firn_index_keys", "Distinct keys in the key index", &TABLE)?,
            buffered: level("firn_buffered_bytes", "Bytes of events that are read and not committed", &TABLE)?,
            buffer_limit: level("firn_buffer_limit_bytes", "Buffered bytes at which reading pauses", &TABLE)?,
            consumer_lag: level(
                "firn_consumer_lag",
                "Offsets between the slowest table and the end of a partition that this process reads",
                &["pipeline", "topic", "partition"],
            )?,
            bad_records: counter("firn_bad_records_total", "Records that were rejected", &["pipeline", "reason"])?,
            cut_times: counter(
                "firn_truncated_timestamps_total",
                "Timestamps that lost digits finer than microseconds",
                &["pipeline"],
            )?,
            back_pressure: level("firn_back_pressure", "1 while reading is paused for a full buffer", &["pipeline"])?,
            stalled: seconds(
                "firn_stalled_seconds",
                "How long something has not answered; 0 where it does",
                &["pipeline", "dependency", "subject"],
            )?,
            ready: kept(r, IntGauge::new("firn_ready", "1 when /readyz says so"))?,
            lagging: Mutex::default(),
            registry,
        })
    }

    /// Counters begin at 0, so that the first increase is seen as one.
    pub(super) fn expect(&self, pipeline: &str, tables: &[String]) {
        for table in tables {
            let labels = [pipeline, table.as_str()];
            for counter in [&self.events, &self.commits, &self.appended, &self.superseded] {
                let _ = counter.with_label_values(&labels);
            }
            for outcome in ["refused", "unknown", "not_sent"] {
                let _ = self.commit_failures.with_label_values(&[pipeline, table, outcome]);
            }
            let _ = self.commit_seconds.with_label_values(&labels);
            self.levels(pipeline, table, &TableLevels::default());
        }
        self.back_pressure.with_label_values(&[pipeline]).set(0);
    }

    pub(super) fn landed(&self, pipeline: &str, table: &str, landed: &Landed) {
        let labels = [pipeline, table];
        self.events.with_label_values(&labels).inc_by(landed.events);
        self.commits.with_label_values(&labels).inc();
        self.appended.with_label_values(&labels).inc_by(landed.appended);
        self.superseded.with_label_values(&labels).inc_by(landed.superseded);
        if let Some(seconds) = landed.seconds {
            self.commit_seconds.with_label_values(&labels).observe(seconds);
        }
    }

    pub(super) fn levels(&self, pipeline: &str, table: &str, levels: &TableLevels) {
        let whole = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let labels = [pipeline, table];
        self.index_keys.with_label_values(&labels).set(whole(levels.keys));
        self.buffered.with_label_values(&labels).set(whole(levels.buffered_bytes));
        self.buffer_limit.with_label_values(&labels).set(whole(levels.buffer_limit_bytes));
        self.commit_lag.with_label_values(&labels).set(levels.lag_seconds);
    }

    pub(super) fn lag(&self, pipeline: &str, lag: &BTreeMap<(Arc<str>, i32), i64>) {
        let mut lagging = lock(&self.lagging);
        let before = lagging.insert(pipeline.to_owned(), lag.keys().cloned().collect()).unwrap_or_default();
        for (topic, partition) in before.iter().filter(|known| !lag.contains_key(*known)) {
            // One that is not there any more needs no removing.
            let _ = self.consumer_lag.remove_label_values(&[pipeline, topic, &partition.to_string()]);
        }
        for ((topic, partition), offsets) in lag {
            self.consumer_lag.with_label_values(&[pipeline, topic, &partition.to_string()]).set(*offsets);
        }
    }

    /// Prometheus' text format.
    pub(super) fn text(&self) -> String {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics cannot be written");
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

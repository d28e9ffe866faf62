//! What the outside can see of a running process: metrics, readiness and liveness, on `observe.listen`.
//!
//! Metrics are moved once per commit and once per second, never per event. Whatever waits says so here, so that readiness
//! names what is missing; whatever turns says so too, so that liveness notices when it does not any more.

mod health;
mod metrics;
mod server;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use secrecy::{ExposeSecret, SecretString};

pub use self::health::{Dependency, Health, Reason, Task};
pub use self::metrics::{Landed, TableLevels};
pub use self::server::Server;

use self::metrics::Metrics;
use crate::Result;

/// A loop that has not turned for this long is stuck. Asking a broker that does not answer takes some of it.
const STUCK_MS: i64 = 60_000;
/// A shorter secret would blacken words that have nothing to do with it.
const SECRET_CHARS_MIN: usize = 6;
/// What stands in the place of a secret.
const HIDDEN: &str = "***";

/// What one process shows of itself. Cheap to share.
pub struct Telemetry {
    health: Mutex<Health>,
    metrics: Metrics,
    beats: Mutex<Vec<(String, Weak<AtomicI64>)>>,
    secrets: Vec<SecretString>,
    started: Instant,
    started_ms: i64,
}

impl std::fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Telemetry").finish_non_exhaustive()
    }
}

/// Nothing here is left half-changed by a panic.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Telemetry {
    /// Of a process that has just begun, and in whose messages none of `secrets` may appear.
    ///
    /// # Errors
    /// [`Error::Internal`](crate::Error::Internal) for two metrics of one name.
    pub fn new(secrets: Vec<SecretString>) -> Result<Self> {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Telemetry {
            health: Mutex::default(),
            metrics: Metrics::new()?,
            beats: Mutex::default(),
            secrets: secrets.into_iter().filter(|s| s.expose_secret().chars().count() >= SECRET_CHARS_MIN).collect(),
            started: Instant::now(),
            started_ms: i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX),
        })
    }

    /// The pipeline of this name, which keeps these tables (`catalog.namespace.table`): until each of them is loaded the
    /// process is not ready.
    #[must_use]
    pub fn pipeline(self: &Arc<Self>, name: &str, tables: &[String]) -> PipelineTelemetry {
        lock(&self.health).expect(name, tables);
        self.metrics.expect(name, tables);
        PipelineTelemetry { of: self.clone(), pipeline: name.into() }
    }

    /// The process is on its way out: nothing should be sent to it any more.
    pub fn stopping(&self) {
        lock(&self.health).stopping();
    }

    /// Why the process is not ready; empty where it is.
    #[must_use]
    pub fn reasons(&self) -> Vec<Reason> {
        lock(&self.health).reasons(self.now_ms())
    }

    /// The loops that have not turned for a minute.
    #[must_use]
    pub fn stuck(&self) -> Vec<String> {
        let (mut beats, now) = (lock(&self.beats), self.now_ms());
        beats.retain(|(_, last)| last.strong_count() > 0);
        let silent = |last: &Weak<AtomicI64>| now - last.upgrade().map_or(now, |at| at.load(Ordering::Relaxed));
        let stuck = beats.iter().filter(|(_, last)| silent(last) >= STUCK_MS);
        stuck.map(|(name, last)| format!("{name} has not turned for {} s", silent(last) / 1000)).collect()
    }

    /// All metrics in Prometheus' text format.
    #[must_use]
    pub fn scrape(&self) -> String {
        let (now, health) = (self.now_ms(), lock(&self.health));
        self.metrics.ready.set(i64::from(health.reasons(now).is_empty()));
        for (pipeline, task, ms) in health.stalled(now) {
            let stalled = self.metrics.stalled.with_label_values(&[pipeline, task.dependency.name(), &task.subject]);
            stalled.set(ms as f64 / 1000.0);
        }
        drop(health);
        self.metrics.text()
    }

    /// Milliseconds since 1970 as of the start, and then by a clock that never goes back.
    fn now_ms(&self) -> i64 {
        self.started_ms.saturating_add(i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX))
    }

    /// A message as it may leave the process.
    fn hide(&self, message: &str) -> String {
        let hidden = |text: String, secret: &SecretString| text.replace(secret.expose_secret(), HIDDEN);
        self.secrets.iter().fold(message.to_owned(), hidden)
    }
}

/// What one pipeline tells; cloned into whatever works for it.
#[derive(Debug, Clone)]
pub struct PipelineTelemetry {
    of: Arc<Telemetry>,
    pipeline: Arc<str>,
}

impl PipelineTelemetry {
    /// The pipeline starts, again or for the first time: its tables are to be loaded.
    pub fn starting(&self) {
        lock(&self.of.health).starting(&self.pipeline);
    }

    /// V of a table is known.
    pub fn loaded(&self, table: &str) {
        lock(&self.of.health).loaded(&self.pipeline, table);
    }

    /// The pipeline has ended for good, perhaps by an error.
    pub fn ended(&self, error: Option<&crate::Error>) {
        let (error, now) = (error.map(|e| self.of.hide(&e.to_string())), self.of.now_ms());
        lock(&self.of.health).ended(&self.pipeline, error, now);
    }

    /// A request is under way. Its wait begins now, unless it had begun before.
    pub fn began(&self, task: &Task) {
        let now = self.of.now_ms();
        lock(&self.of.health).began(&self.pipeline, task, now);
    }

    /// A try has failed, and there will be another.
    pub fn failed(&self, task: &Task, error: &str) {
        let (error, now) = (self.of.hide(error), self.of.now_ms());
        lock(&self.of.health).failed(&self.pipeline, task, error, now);
    }

    /// The wait is over.
    pub fn answered(&self, task: &Task) {
        lock(&self.of.health).answered(&self.pipeline, task);
    }

    /// A loop of the pipeline, which beats while it turns.
    #[must_use]
    pub fn beat(&self, name: &str) -> Beat {
        let beat = Beat { of: self.of.clone(), last: Arc::new(AtomicI64::new(self.of.now_ms())) };
        lock(&self.of.beats).push((format!("{name} of pipeline {}", self.pipeline), Arc::downgrade(&beat.last)));
        beat
    }

    /// A commit is in a table.
    pub fn landed(&self, table: &str, landed: &Landed) {
        self.of.metrics.landed(&self.pipeline, table, landed);
    }

    /// A commit was not taken, as far as was heard: `refused`, `unknown` or `not_sent`.
    pub fn not_committed(&self, table: &str, outcome: &str) {
        self.of.metrics.commit_failures.with_label_values(&[&self.pipeline, table, outcome]).inc();
    }

    /// What a table's writer holds at the moment.
    pub fn levels(&self, table: &str, levels: &TableLevels) {
        self.of.metrics.levels(&self.pipeline, table, levels);
    }

    /// Whether reading is paused, because the tables cannot take more.
    pub fn back_pressure(&self, paused: bool) {
        self.of.metrics.back_pressure.with_label_values(&[&self.pipeline]).set(i64::from(paused));
    }

    /// `records` more were rejected for this reason.
    pub fn rejected(&self, reason: &str, records: u64) {
        self.of.metrics.bad_records.with_label_values(&[&self.pipeline, reason]).inc_by(records);
    }

    /// `times` more timestamps lost digits finer than microseconds.
    pub fn cut_times(&self, times: u64) {
        self.of.metrics.cut_times.with_label_values(&[&self.pipeline]).inc_by(times);
    }

    /// How many offsets the slowest table is behind the end of each partition that this process reads. Others are taken
    /// off the list.
    pub fn lag(&self, lag: &BTreeMap<(Arc<str>, i32), i64>) {
        self.of.metrics.lag(&self.pipeline, lag);
    }
}

/// The pulse of a loop; dropped when the loop ends.
#[derive(Debug)]
pub struct Beat {
    of: Arc<Telemetry>,
    last: Arc<AtomicI64>,
}

impl Beat {
    /// The loop turns.
    pub fn turn(&self) {
        self.last.store(self.of.now_ms(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;

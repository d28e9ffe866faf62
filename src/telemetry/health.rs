//! Whether the process is ready, and why not: a plain state, told what happens and when.

use std::collections::BTreeMap;
use std::sync::Arc;

/// A request that is not answered for this long counts as a stall, even if nothing has failed yet (milliseconds).
pub(super) const SILENT_MS: i64 = 30_000;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dependency {
    /// The Kafka brokers.
    Broker,
    /// The schema registry.
    SchemaRegistry,
    /// A catalog, while its tables are opened.
    Catalog,
    /// A table: its catalog and its object store or disk.
    Table,
    /// A commit, which may need more than one try.
    Commit,
    /// The topic of dead letters.
    DeadLetters,
    /// The pipeline as a whole, which begins again.
    Pipeline,
}

impl Dependency {
    /// Its name in metrics and answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Dependency::Broker => "broker",
            Dependency::SchemaRegistry => "schema_registry",
            Dependency::Catalog => "catalog",
            Dependency::Table => "table",
            Dependency::Commit => "commit",
            Dependency::DeadLetters => "dead_letters",
            Dependency::Pipeline => "pipeline",
        }
    }
}

/// Something that is repeated until it succeeds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Task {
    /// What it needs.
    pub dependency: Dependency,
    /// Which one: the table's or catalog's name, the topic; empty where there is only one.
    pub subject: Arc<str>,
}

impl Task {
    /// A task that needs `subject`, one of several of the kind.
    #[must_use]
    pub fn of(dependency: Dependency, subject: &str) -> Self {
        Task { dependency, subject: subject.into() }
    }

    /// A task that needs the only one of its kind.
    #[must_use]
    pub fn only(dependency: Dependency) -> Self {
        Task::of(dependency, "")
    }
}

impl std::fmt::Display for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.dependency.name().replace('_', " "))?;
        if self.subject.is_empty() { Ok(()) } else { write!(f, " {}", self.subject) }
    }
}

/// One reason why the process is not ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// None where it concerns the whole process.
    pub pipeline: Option<Arc<str>>,
    /// What is waited for; none where a pipeline has ended or the process is stopping.
    pub task: Option<Task>,
    /// Since when, in milliseconds since 1970, where that is known.
    pub since_ms: Option<i64>,
    /// What went wrong last, or what is missing.
    pub error: String,
}

/// A wait that is not over.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wait {
    since_ms: i64,
    /// None while the first try is under way.
    error: Option<String>,
}

impl Wait {
    fn is_stall(&self, now_ms: i64) -> bool {
        self.error.is_some() || now_ms - self.since_ms >= SILENT_MS
    }
}

#[derive(Debug, Default)]
struct PipelineHealth {
    /// Whether V of each table is known.
    tables: BTreeMap<Arc<str>, bool>,
    /// Every task that was ever begun; none where it is done.
    tasks: BTreeMap<Task, Option<Wait>>,
    /// By what error it ended, and when.
    failed: Option<(String, i64)>,
    ended: bool,
}

/// The state behind readiness. Times are milliseconds since 1970, from the caller.
#[derive(Debug, Default)]
pub struct Health {
    pipelines: BTreeMap<Arc<str>, PipelineHealth>,
    stopping: bool,
}

impl Health {
    /// A pipeline is to run, and to keep these tables.
    pub fn expect(&mut self, pipeline: &str, tables: &[String]) {
        let known = tables.iter().map(|table| (table.as_str().into(), false)).collect();
        let health = PipelineHealth { tables: known, ..PipelineHealth::default() };
        self.pipelines.insert(pipeline.into(), health);
    }

    /// It starts, again or for the first time: whatever it waited for before is over, but for its own new start.
    pub fn starting(&mut self, pipeline: &str) {
        let Some(health) = self.pipelines.get_mut(pipeline) else { return };
        health.tables.values_mut().for_each(|loaded| *loaded = false);
        let others = health.tasks.iter_mut().filter(|(task, _)| task.dependency != Dependency::Pipeline);
        others.for_each(|(_, wait)| *wait = None);
    }

    /// V of a table is known. Once all are, the pipeline has begun.
    pub fn loaded(&mut self, pipeline: &str, table: &str) {
        let Some(health) = self.pipelines.get_mut(pipeline) else { return };
        if let Some(loaded) = health.tables.get_mut(table) {
            *loaded = true;
        }
        if health.tables.values().all(|loaded| *loaded) {
            health.tasks.insert(Task::only(Dependency::Pipeline), None);
        }
    }

    /// It has ended for good, perhaps by an error. One that ended well is no reason not to be ready.
    pub fn ended(&mut self, pipeline: &str, error: Option<String>, now_ms: i64) {
        let Some(health) = self.pipelines.get_mut(pipeline) else { return };
        health.ended = true;
        health.failed = error.map(|error| (error, now_ms));
        health.tasks.values_mut().for_each(|wait| *wait = None);
    }

    /// The process is on its way out.
    pub fn stopping(&mut self) {
        self.stopping = true;
    }

    /// A try is under way. The wait keeps the time and the error that it has, where it began before.
    pub fn began(&mut self, pipeline: &str, task: &Task, now_ms: i64) {
        let Some(health) = self.pipelines.get_mut(pipeline) else { return };
        let wait = health.tasks.entry(task.clone()).or_default();
        wait.get_or_insert(Wait { since_ms: now_ms, error: None });
    }

    /// A try has failed.
    pub fn failed(&mut self, pipeline: &str, task: &Task, error: String, now_ms: i64) {
        let Some(health) = self.pipelines.get_mut(pipeline) else { return };
        let wait = health.tasks.entry(task.clone()).or_default();
        wait.get_or_insert(Wait { since_ms: now_ms, error: None }).error = Some(error);
    }

    /// The wait is over.
    pub fn answered(&mut self, pipeline: &str, task: &Task) {
        if let Some(wait) = self.pipelines.get_mut(pipeline).and_then(|health| health.tasks.get_mut(task)) {
            *wait = None;
        }
    }

    /// Why the process is not ready; empty where it is. What is stalled comes before what could not begin because of it.
    #[must_use]
    pub fn reasons(&self, now_ms: i64) -> Vec<Reason> {
        let mut reasons = Vec::new();
        if self.stopping {
            reasons.push(Reason {
                pipeline: None,
                task: None,
                since_ms: None,
                error: "the process is stopping".into(),
            });
        }
        for (name, health) in &self.pipelines {
            let reason = |task: Option<Task>, since_ms, error: String| Reason {
                pipeline: Some(name.clone()),
                task,
                since_ms,
                error,
            };
            if let Some((error, at)) = &health.failed {
                reasons.push(reason(None, Some(*at), format!("the pipeline has stopped: {error}")));
            }
            for (task, wait) in &health.tasks {
                let Some(wait) = wait.as_ref().filter(|wait| wait.is_stall(now_ms)) else { continue };
                let error = wait.error.clone().unwrap_or_else(|| "no answer yet".into());
                reasons.push(reason(Some(task.clone()), Some(wait.since_ms), error));
            }
            for (table, _) in health.tables.iter().filter(|(_, loaded)| !**loaded && !health.ended) {
                let task = Task { dependency: Dependency::Table, subject: table.clone() };
                reasons.push(reason(Some(task), None, "its position in the log is not loaded yet".into()));
            }
        }
        reasons
    }

    /// How long each task has been stalled, in milliseconds: 0 for those that are not.
    pub fn stalled(&self, now_ms: i64) -> impl Iterator<Item = (&str, &Task, i64)> {
        self.pipelines.iter().flat_map(move |(name, health)| {
            health.tasks.iter().map(move |(task, wait)| {
                let stall = wait.as_ref().filter(|wait| wait.is_stall(now_ms));
                (&**name, task, stall.map_or(0, |wait| (now_ms - wait.since_ms).max(0)))
            })
        })
    }
}

#[cfg(test)]
mod tests;

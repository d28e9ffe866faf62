//! Moves V by hand: an empty commit that carries a new position and the reason for it.

use std::sync::Arc;
use std::time::Instant;

use super::START_PATIENCE;
use super::clock;
use super::retry::backoff;
use crate::core::history::{SnapshotId, View};
use crate::core::offsets::Vector;
use crate::core::schema::Pins;
use crate::table::{Change, LakeTable, Outcome};
use crate::{Error, Result};

/// What a commit by hand sets.
#[derive(Debug, Clone)]
pub struct Moved {
    /// V from then on.
    pub vector: Vector,
    /// The schema ids that the table remembers from then on, where that changes.
    pub pins: Option<Pins>,
}

/// Begins a new epoch of `table` for a log and a registry that begin anew: from now on V is `vector`, and neither V nor
/// the schema ids that it said before count any more. The rows stay.
///
/// # Errors
/// As [`set_vector`].
pub async fn open_epoch(table: &dyn LakeTable, pipeline: &str, vector: &Vector, reason: &str) -> Result<()> {
    let anew = |view: &View| {
        let pins = view.schemas.is_some().then(Pins::default);
        Ok(Moved { vector: vector.clone(), pins })
    };
    set_vector(table, pipeline, &anew, reason).await.map(|_| ())
}

/// Commits the V and the schema ids that `wanted` makes of the table's current state, without rows, with `reason` in the snapshot's summary;
/// returns that V. After a conflict it is made anew of the newer state, so that no commit in between is undone unseen.
///
/// # Errors
/// [`Error::Config`] when the table belongs to another pipeline, [`Error::Unreachable`] when catalog or store do not answer
/// or other writers leave no gap for a minute; what `wanted` fails with.
pub async fn set_vector(
    table: &dyn LakeTable,
    pipeline: &str,
    wanted: &(dyn Fn(&View) -> Result<Moved> + Send + Sync),
    reason: &str,
) -> Result<Vector> {
    let began = Instant::now();
    let mut tried = Tried::default();
    loop {
        let failed = match attempt(table, pipeline, wanted, reason, &mut tried).await {
            Ok(Tries::Landed(vector)) => return Ok(vector),
            Ok(Tries::Again(why)) => format!("table {}: the position was not set: {why}; try again", table.name()),
            Err(Error::Unreachable(why)) => why,
            Err(error) => return Err(error),
        };
        if began.elapsed() >= START_PATIENCE {
            return Err(Error::Unreachable(failed));
        }
        tokio::time::sleep(backoff(tried.count)).await;
    }
}

/// How one try ended.
enum Tries {
    Landed(Vector),
    Again(String),
}

/// Attempts whose outcome is not known for certain: any of them may be in the table by now, or later.
#[derive(Default)]
struct Tried {
    count: u32,
    /// The snapshot that the first of them was planned against.
    base: Option<SnapshotId>,
    attempts: Vec<(String, Vector)>,
}

impl Tried {
    fn landed(&self, view: &View) -> Option<Vector> {
        let landed = self.attempts.iter().find(|(attempt, _)| view.history.landed(attempt).is_some());
        landed.map(|(_, vector)| vector.clone())
    }
}

async fn attempt(
    table: &dyn LakeTable,
    pipeline: &str,
    wanted: &(dyn Fn(&View) -> Result<Moved> + Send + Sync),
    reason: &str,
    tried: &mut Tried,
) -> Result<Tries> {
    tried.count += 1;
    if !tried.attempts.is_empty()
        && let Some(vector) = tried.landed(&table.load(tried.base).await?)
    {
        return Ok(Tries::Landed(vector));
    }
    let view = table.load(None).await?;
    if let Some(other) = view.pipeline.as_ref().filter(|other| *other != pipeline) {
        return Err(Error::Config(format!("table {} belongs to pipeline {other}, not to {pipeline}", table.name())));
    }
    let Moved { vector, pins } = wanted(&view)?;
    let attempt = format!("position-{}", uuid::Uuid::new_v4().simple());
    if tried.attempts.is_empty() {
        tried.base = view.snapshot;
    }
    tried.attempts.push((attempt.clone(), vector.clone()));
    let change = Change {
        base: view.snapshot,
        attempt,
        pipeline: pipeline.to_owned(),
        files: Vec::new(),
        superseded: Vec::new(),
        schema_change: None,
        pins: pins.map(Arc::new),
        vector: vector.clone(),
        now_ms: clock::now_ms(),
        reason: Some(reason.to_owned()),
    };
    match table.commit(change).await {
        Outcome::Committed(_) => Ok(Tries::Landed(vector)),
        Outcome::Refused(why) | Outcome::Unknown(why) => Ok(Tries::Again(why)),
        Outcome::NotSent(error) => {
            tried.attempts.pop();
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests;

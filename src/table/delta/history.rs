//! What a Delta table says about its past: V and attempts.
//!
//! A commit says everything about itself in its `commitInfo`, which is lost when the log is cleaned. What has to survive
//! that is in the state: V in `txn` actions, the version of the last commit in one more of them, and what V needs beyond
//! next offsets (names, starts, which partitions it has) in a table property that changes only when these do.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::actions::Txn;
use super::log::Log;
use super::state::State;
use crate::core::history::{Ancestor, Anchor, History, SnapshotId, View, WalkEnd};
use crate::core::offsets::{Position, Vector};
use crate::core::schema::TableSchema;
use crate::error::{Error, Result};
use crate::table::Change;
use crate::table::iceberg::{ATTEMPT, OFFSETS, PIPELINE, REASON, SCHEMAS, VERSION};

/// Table property: the names of the key columns, separated by commas.
pub const KEY: &str = "firn.key";
/// Table property: V without its next offsets.
pub const STARTS: &str = "firn.starts";
/// Application id of the `txn` whose version is that of Firn's last commit.
const LAST_COMMIT: &str = "firn.commit";
/// More versions than this are not walked back.
const VERSIONS_MAX: usize = 10_000;
/// Stands for a past that cannot be walked, though it is there: no commit is before the first version.
const UNREADABLE: SnapshotId = -1;

/// What a commit said about itself.
#[derive(Debug, Clone, Default)]
pub(super) struct CommitNote {
    pub timestamp_ms: i64,
    pub attempt: Option<String>,
    pub vector: Option<Arc<Vector>>,
    pub operation: String,
    /// It made an older version's files current.
    pub restore: Option<Restore>,
    /// All of it, for those who ask.
    pub text: String,
}

/// Which version a RESTORE went back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Restore {
    To(i64),
    /// By a time, or in a way that is not known.
    Unclear,
}

impl CommitNote {
    /// Reads `commitInfo`.
    ///
    /// # Errors
    /// [`Error::Decision`] where V is there and cannot be read.
    pub(super) fn read(version: i64, info: &Map<String, Value>) -> Result<Self> {
        let text = |key: &str| info.get(key).and_then(Value::as_str).map(str::to_owned);
        let vector = text(OFFSETS).map(|json| {
            Vector::from_json(&json).map(Arc::new).map_err(|e| {
                Error::Decision(format!(
                    "version {version} holds {OFFSETS} that cannot be read ({e}): set the position with `firn offsets set`"
                ))
            })
        });
        let operation = text("operation").unwrap_or_default();
        let restore = (operation == "RESTORE").then(|| {
            let to = info.get("operationParameters").and_then(|p| p.get("version"));
            let to = to.and_then(|v| v.as_i64().or_else(|| v.as_str()?.parse().ok()));
            to.map_or(Restore::Unclear, Restore::To)
        });
        let timestamp_ms = info.get("timestamp").and_then(Value::as_i64).unwrap_or(0);
        let attempt = text(ATTEMPT);
        Ok(CommitNote {
            timestamp_ms,
            attempt,
            vector: vector.transpose()?,
            operation,
            restore,
            text: Value::Object(info.clone()).to_string(),
        })
    }
}

/// What Firn calls a version: a table in which nothing was ever committed has no snapshot.
pub(super) fn snapshot_of(state: &State) -> Option<SnapshotId> {
    (state.version > 0 || !state.files.is_empty()).then_some(state.version)
}

fn app_id(cluster: &str, topic: &str, partition: i32) -> String {
    format!("firn:{cluster}:{topic}:{partition}")
}

/// The `txn` actions of a commit: the full vector, and which version it is.
pub(super) fn txns(vector: &Vector, version: i64, now_ms: i64) -> Vec<Txn> {
    let one = |app_id: String, version: i64| Txn { app_id, version, last_updated: Some(now_ms) };
    let mut txns: Vec<Txn> =
        vector.iter().map(|(id, at)| one(app_id(&vector.cluster, &id.topic, id.partition), at.next)).collect();
    txns.push(one(LAST_COMMIT.to_owned(), version));
    txns
}

/// V with every position at its start.
pub(super) fn starts(vector: &Vector) -> Vector {
    let mut starts = vector.clone();
    for position in starts.topics.values_mut().flat_map(|t| t.partitions.values_mut()) {
        *position = Position::at_start(position.start);
    }
    starts
}

/// `commitInfo` of a commit.
pub(super) fn commit_info(change: &Change, base: i64, timestamp_ms: i64) -> Map<String, Value> {
    let (operation, parameters) = if !change.superseded.is_empty() {
        ("MERGE", json!({"predicate": "[]", "matchedPredicates": "[]", "notMatchedPredicates": "[]"}))
    } else {
        ("WRITE", json!({"mode": "Append", "partitionBy": "[]"}))
    };
    let mut info = Map::new();
    info.insert("timestamp".into(), json!(timestamp_ms));
    info.insert("operation".into(), json!(operation));
    info.insert("operationParameters".into(), parameters);
    info.insert("readVersion".into(), json!(base));
    info.insert("isolationLevel".into(), json!("Serializable"));
    info.insert("isBlindAppend".into(), json!(false));
    info.insert("engineInfo".into(), json!(concat!("firn/", env!("CARGO_PKG_VERSION"))));
    info.insert(VERSION.into(), json!(env!("CARGO_PKG_VERSION")));
    info.insert(PIPELINE.into(), json!(change.pipeline));
    info.insert(ATTEMPT.into(), json!(change.attempt));
    info.insert(OFFSETS.into(), json!(change.vector.to_json()));
    if let Some(reason) = &change.reason {
        info.insert(REASON.into(), json!(reason));
    }
    info
}

/// V as the state has it, with the version that stored it; none in a table that Firn never wrote.
///
/// # Errors
/// [`Error::Decision`] where a part of it cannot be read or is gone.
fn anchor(state: &State) -> Result<Option<Anchor>> {
    let Some(last) = state.txns.get(LAST_COMMIT) else { return Ok(None) };
    let Some(json) = state.metadata.as_ref().and_then(|m| m.configuration.get(STARTS)) else { return Ok(None) };
    let mut vector = Vector::from_json(json).map_err(|e| {
        Error::Decision(format!(
            "the table property {STARTS} cannot be read ({e}): set the position with `firn offsets set`"
        ))
    })?;
    let cluster = vector.cluster.clone();
    for (topic, positions) in &mut vector.topics {
        for (partition, position) in &mut positions.partitions {
            // Forgotten by a retention of transaction versions: then the anchor says nothing at all.
            let Some(txn) = state.txns.get(&app_id(&cluster, topic, *partition)) else { return Ok(None) };
            *position = Position { from: txn.version, next: txn.version, ..*position };
        }
    }
    Ok(Some(Anchor { vector, snapshot: last.version, sequence: last.version }))
}

/// The names of the key columns.
pub(super) fn key(configuration: &BTreeMap<String, String>) -> Vec<String> {
    let listed = configuration.get(KEY).map(String::as_str).unwrap_or_default();
    listed.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// The view of `state`, which has these columns; its history reaches back to `since`, or to the nearest version that has V.
pub(super) async fn view(
    log: &Log,
    state: &State,
    schema: &Arc<TableSchema>,
    since: Option<SnapshotId>,
) -> Result<View> {
    let anchor = anchor(state)?;
    let written = state.txns.contains_key(LAST_COMMIT);
    let mut history = History { ancestors: Vec::new(), end: WalkEnd::Root, anchor };
    if snapshot_of(state).is_some() {
        let since = since.filter(|s| *s <= state.version);
        walk(log, state, since, &mut history).await?;
        if !written && !matches!(history.end, WalkEnd::Known) {
            // Only Firn's own commits have V, and there was none: what was pruned is of no interest.
            history.end = WalkEnd::Root;
        }
    }
    let metadata = state.metadata.as_deref();
    let newest = history.ancestors.first().map(|a| a.timestamp_ms);
    let noted = state.notes.get(&state.version).map(|n| n.timestamp_ms);
    Ok(View {
        table: metadata.map(|m| m.id.clone()).unwrap_or_default(),
        snapshot: snapshot_of(state),
        sequence: state.version,
        updated_ms: newest.or(noted).unwrap_or(0),
        history,
        pipeline: metadata.and_then(|m| m.configuration.get(PIPELINE).cloned()),
        schema: schema.clone(),
        last_field_id: schema.highest_id(),
        schemas: metadata.and_then(|m| m.configuration.get(SCHEMAS).cloned()),
    })
}

/// Walks versions back from the newest one.
async fn walk(log: &Log, state: &State, since: Option<SnapshotId>, history: &mut History) -> Result<()> {
    for version in (0..=state.version).rev() {
        if Some(version) == since {
            history.end = WalkEnd::Known;
            return Ok(());
        }
        let far = history.ancestors.len() >= VERSIONS_MAX;
        if (since.is_none() || far) && history.ancestors.iter().any(|a| a.vector.is_some()) {
            history.end = WalkEnd::Pruned { parent: version };
            return Ok(());
        }
        let Some(note) = note(log, state, version).await? else {
            history.end = WalkEnd::Pruned { parent: version };
            return Ok(());
        };
        let mut found = Ancestor {
            id: version,
            parent: (version > 0).then_some(version - 1),
            sequence: version,
            timestamp_ms: note.timestamp_ms,
            attempt: note.attempt.clone(),
            vector: note.vector.as_deref().cloned(),
        };
        if let Some(restore) = note.restore {
            let (vector, end) = restored(log, state, version, restore).await?;
            let done = vector.is_none();
            found.vector = vector;
            history.ancestors.push(found);
            if done {
                history.end = end;
                if end == WalkEnd::Root {
                    history.anchor = None;
                }
                return Ok(());
            }
            continue;
        }
        history.ancestors.push(found);
    }
    history.end = WalkEnd::Root;
    Ok(())
}

/// V of the version that a RESTORE went back to; where it has none, how the walk ends there: at the root where Firn had not
/// committed yet, else at something that cannot be read.
async fn restored(log: &Log, state: &State, mut at: i64, mut restore: Restore) -> Result<(Option<Vector>, WalkEnd)> {
    'restores: loop {
        // Only what is older can be restored.
        let to = match restore {
            Restore::To(to) if to < at => to,
            _ => return Ok((None, WalkEnd::Pruned { parent: UNREADABLE })),
        };
        for version in (0..=to).rev() {
            let Some(note) = note(log, state, version).await? else {
                return Ok((None, WalkEnd::Pruned { parent: UNREADABLE }));
            };
            if let Some(earlier) = note.restore {
                (restore, at) = (earlier, version);
                continue 'restores;
            }
            if let Some(vector) = note.vector {
                return Ok((Some(Vector::clone(&vector)), WalkEnd::Known));
            }
        }
        return Ok((None, WalkEnd::Root));
    }
}

/// What a version said about itself; none where its file is gone.
async fn note(log: &Log, state: &State, version: i64) -> Result<Option<CommitNote>> {
    if let Some(note) = state.notes.get(&version) {
        return Ok(Some(note.clone()));
    }
    let Some(lines) = log.commit(version).await? else { return Ok(None) };
    let info = lines.into_iter().find_map(|line| line.commit_info).unwrap_or_default();
    CommitNote::read(version, &info).map(Some)
}

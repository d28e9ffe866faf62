//! What a table's metadata says about its past: the ancestry of the current snapshot, with V and attempts.

use std::collections::HashMap;
use std::sync::Arc;

use iceberg::spec::{Snapshot, SnapshotRef, TableMetadata};

use super::catalog::Loaded;
use crate::core::history::{Ancestor, Anchor, History, SnapshotId, View, WalkEnd};
use crate::core::offsets::Vector;
use crate::core::schema::TableSchema;
use crate::error::{Error, Result};
use crate::files::{Store, from_iceberg};

/// Table property and summary key: the pipeline that writes here.
pub const PIPELINE: &str = "firn.pipeline";
/// Summary key: V as JSON. Table property: the [`Anchor`] as JSON.
pub const OFFSETS: &str = "firn.offsets";
/// Table property: the schema ids that the table remembers; see [`crate::core::schema::Pins`].
pub const SCHEMAS: &str = "firn.schemas";
/// Summary key: the attempt that made a snapshot.
pub const ATTEMPT: &str = "firn.attempt-id";
/// Summary key: the version of Firn that made a snapshot.
pub const VERSION: &str = "firn.version";
/// Summary key: why an operator moved V by hand.
pub const REASON: &str = "firn.reason";

/// How many older metadata files are read in search of expired snapshots.
const OLD_METADATA_FILES_MAX: usize = 100;

/// The view of `loaded`, which has these columns; its history reaches back to `since` or as far as anything is retained.
pub(super) async fn view(
    store: &Store,
    loaded: &Loaded,
    schema: &Arc<TableSchema>,
    since: Option<SnapshotId>,
) -> Result<View> {
    let mut history = walk(&loaded.metadata, since)?;
    let unfinished = match history.end {
        WalkEnd::Known => false,
        WalkEnd::Pruned { .. } => true,
        WalkEnd::Root => history.anchor.is_some(),
    };
    if unfinished && history.ancestors.iter().all(|a| a.vector.is_none()) {
        continue_in_old_metadata(store, &loaded.metadata, since, &mut history).await?;
    }
    Ok(view_of(&loaded.metadata, schema, history))
}

/// The view after a commit of our own on top of `base`: one ancestor that the caller does not know yet.
pub(super) fn view_after_commit(
    metadata: &TableMetadata,
    schema: &Arc<TableSchema>,
    base: Option<SnapshotId>,
) -> Result<View> {
    Ok(view_of(metadata, schema, walk(metadata, base)?))
}

fn view_of(metadata: &TableMetadata, schema: &Arc<TableSchema>, history: History) -> View {
    let current = metadata.current_snapshot();
    View {
        table: metadata.uuid().to_string(),
        snapshot: current.map(|s| s.snapshot_id()),
        sequence: current.map_or(0, |s| s.sequence_number()),
        updated_ms: current.map_or(0, |s| s.timestamp_ms()).max(metadata.last_updated_ms()),
        history,
        pipeline: metadata.properties().get(PIPELINE).cloned(),
        schema: schema.clone(),
        last_field_id: metadata.last_column_id(),
        schemas: metadata.properties().get(SCHEMAS).cloned(),
    }
}

/// Walks from the current snapshot back through its parents.
fn walk(metadata: &TableMetadata, since: Option<SnapshotId>) -> Result<History> {
    let mut history = History { ancestors: Vec::new(), end: WalkEnd::Root, anchor: None };
    if let Some(current) = metadata.current_snapshot_id() {
        let find = |id: SnapshotId| metadata.snapshot_by_id(id).cloned();
        history.end = follow(current, since, find, &mut history.ancestors)?;
    }
    match metadata.properties().get(OFFSETS).map(|json| anchor(json)) {
        Some(Ok(anchor)) => history.anchor = Some(anchor),
        // The snapshots say where V is, and the next commit writes the property anew.
        Some(Err(_)) if history.end == WalkEnd::Known || history.ancestors.iter().any(|a| a.vector.is_some()) => {}
        Some(Err(error)) => return Err(error),
        None => {}
    }
    Ok(history)
}

/// Follows parents from `from` on, as far as `find` knows them.
fn follow(
    from: SnapshotId,
    since: Option<SnapshotId>,
    find: impl Fn(SnapshotId) -> Option<SnapshotRef>,
    ancestors: &mut Vec<Ancestor>,
) -> Result<WalkEnd> {
    let mut next = from;
    loop {
        if Some(next) == since {
            return Ok(WalkEnd::Known);
        }
        let Some(snapshot) = find(next) else { return Ok(WalkEnd::Pruned { parent: next }) };
        ancestors.push(ancestor(&snapshot)?);
        match snapshot.parent_snapshot_id() {
            Some(parent) => next = parent,
            None => return Ok(WalkEnd::Root),
        }
    }
}

fn ancestor(snapshot: &Snapshot) -> Result<Ancestor> {
    let summary = &snapshot.summary().additional_properties;
    let vector = match summary.get(OFFSETS) {
        Some(json) => Some(Vector::from_json(json).map_err(|e| {
            Error::Decision(format!(
                "snapshot {} holds {OFFSETS} that cannot be read ({e}): roll the table back to the snapshot before it, \
                 and what came after is read again",
                snapshot.snapshot_id()
            ))
        })?),
        None => None,
    };
    Ok(Ancestor {
        id: snapshot.snapshot_id(),
        parent: snapshot.parent_snapshot_id(),
        sequence: snapshot.sequence_number(),
        timestamp_ms: snapshot.timestamp_ms(),
        attempt: summary.get(ATTEMPT).cloned(),
        vector,
    })
}

fn anchor(json: &str) -> Result<Anchor> {
    serde_json::from_str(json).map_err(|e| {
        Error::Decision(format!(
            "the table property {OFFSETS} cannot be read ({e}), and no retained snapshot holds a position: remove the \
             property (in Spark: ALTER TABLE … UNSET TBLPROPERTIES ('{OFFSETS}')), then order the position with \
             `firn offsets set`"
        ))
    })
}

/// Expired snapshots are still listed in the metadata files from before their expiry, while the log names these. So are
/// parents that an expiry took out of the snapshots it kept, as pyiceberg's does.
async fn continue_in_old_metadata(
    store: &Store,
    metadata: &TableMetadata,
    since: Option<SnapshotId>,
    history: &mut History,
) -> Result<()> {
    let io = store.file_io();
    for entry in metadata.metadata_log().iter().rev().take(OLD_METADATA_FILES_MAX) {
        if !store.exists(&entry.metadata_file).await? {
            // Older ones are gone too: they are removed oldest first.
            return Ok(());
        }
        let old = TableMetadata::read_from(&io, &entry.metadata_file).await;
        let old = old.map_err(|e| from_iceberg(&entry.metadata_file, &e))?;
        let snapshots: HashMap<SnapshotId, SnapshotRef> =
            old.snapshots().map(|s| (s.snapshot_id(), s.clone())).collect();
        if let (WalkEnd::Root, Some(oldest)) = (history.end, history.ancestors.last_mut())
            && let Some(parent) = snapshots.get(&oldest.id).and_then(|s| s.parent_snapshot_id())
        {
            oldest.parent = Some(parent);
            history.end = WalkEnd::Pruned { parent };
        }
        let WalkEnd::Pruned { parent } = history.end else { continue };
        if !snapshots.contains_key(&parent) {
            continue;
        }
        history.end = follow(parent, since, |id| snapshots.get(&id).cloned(), &mut history.ancestors)?;
        if history.ancestors.iter().any(|a| a.vector.is_some()) {
            return Ok(());
        }
    }
    Ok(())
}

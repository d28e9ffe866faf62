//! One commit: a change becomes the actions of the next version, and that version is created if nobody else did.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::actions::{self, Action, Add, MetaData, Protocol, Remove};
use super::history::{self, STARTS};
use super::log::{Log, relative};
use super::partition;
use super::schema::Columns;
use super::state::{Entry, State};
use super::stats;
use super::vector::{self, VectorCache};
use crate::error::{Error, Result};
use crate::files::{DeletedPositions, WrittenFile};
use crate::table::Change;
use crate::table::iceberg::{PIPELINE, SCHEMAS};

/// How creating a version ended.
#[derive(Debug)]
pub(super) enum Created {
    /// It is ours.
    Ours,
    /// It is somebody else's.
    Theirs(String),
    /// Nobody can tell yet.
    Unclear(String),
}

/// The table as a commit leaves it, but for its files.
pub(super) struct After<'a> {
    /// The protocol, where it changes.
    pub protocol: Option<&'a Protocol>,
    pub metadata: &'a MetaData,
    pub columns: &'a Columns,
}

/// The actions of the version after `state` that `change` is.
///
/// # Errors
/// [`Error::Internal`] where the change names what is not live, else as reading and writing deletion vectors.
pub(super) async fn actions(
    log: &Log,
    state: &State,
    after: &After<'_>,
    cache: &VectorCache,
    change: &Change,
    records: &BTreeMap<Arc<str>, u64>,
) -> Result<Vec<Action>> {
    let version = state.version + 1;
    let parent_ms = state.notes.get(&state.version).map_or(0, |note| note.timestamp_ms);
    // INV-11: time never goes back, whatever the clock says.
    let timestamp_ms = change.now_ms.max(parent_ms + 1);
    let mut all = vec![Action::CommitInfo(history::commit_info(change, state.version, timestamp_ms))];
    all.extend(after.protocol.cloned().map(Action::Protocol));
    let metadata = owned(after.metadata, change);
    if state.metadata.as_deref() != Some(&metadata) {
        all.push(Action::MetaData(metadata));
    }
    all.extend(history::txns(&change.vector, version, timestamp_ms).into_iter().map(Action::Txn));
    all.extend(superseded(log, state, cache, change, records, timestamp_ms).await?);
    for file in &change.files {
        all.push(Action::Add(new_file(log, after.columns, file, timestamp_ms)?));
    }
    Ok(all)
}

/// The table's properties, which say whose table it is and where its partitions start. They rarely change, because a change
/// of properties is a conflict to every other writer.
fn owned(metadata: &MetaData, change: &Change) -> MetaData {
    let mut next = metadata.clone();
    next.configuration.insert(STARTS.into(), history::starts(&change.vector).to_json());
    next.configuration.entry(PIPELINE.into()).or_insert_with(|| change.pipeline.clone());
    next.configuration.extend(change.pins.iter().map(|pins| (SCHEMAS.to_owned(), pins.to_json())));
    next
}

/// Files that lose rows: each gets one deletion vector for all that is deleted in it, or leaves when nothing is left.
async fn superseded(
    log: &Log,
    state: &State,
    cache: &VectorCache,
    change: &Change,
    records: &BTreeMap<Arc<str>, u64>,
    now_ms: i64,
) -> Result<Vec<Action>> {
    let mut merged: BTreeMap<&Arc<str>, DeletedPositions> = BTreeMap::new();
    for (path, positions) in change.superseded.iter().filter(|(_, p)| !p.is_empty()) {
        *merged.entry(path).or_default() |= positions;
    }
    let (mut all, mut rewritten, mut vectors) = (Vec::new(), Vec::new(), Vec::new());
    for (path, mut positions) in merged {
        let gone = || Error::Internal(format!("a commit supersedes rows of {path}, which is not live"));
        let entry = state.files.get(path).ok_or_else(gone)?;
        let records = records.get(path).copied().ok_or_else(gone)?;
        if positions.max().is_some_and(|p| u64::from(p) >= records) {
            let text = format!("a commit supersedes row {:?} of {path}, which has {records}", positions.max());
            return Err(Error::Internal(text));
        }
        if let Some(present) = &entry.add.deletion_vector {
            positions |= &*cache.read(&log.store, &log.root, present).await?;
        }
        all.push(Action::Remove(removal(entry, now_ms)));
        if positions.len() < records {
            rewritten.push((entry, records));
            vectors.push(Arc::new(positions));
        }
    }
    let written = vector::write(&log.store, &log.root, &vectors).await?;
    for (((entry, records), vector), positions) in rewritten.into_iter().zip(written).zip(&vectors) {
        cache.put(&vector, positions);
        let stats = stats::wide(entry.add.stats.as_deref(), records)?;
        all.push(Action::Add(Add {
            deletion_vector: Some(vector),
            stats: Some(stats),
            data_change: true,
            ..entry.add.clone()
        }));
    }
    Ok(all)
}

fn removal(entry: &Entry, now_ms: i64) -> Remove {
    let add = &entry.add;
    Remove {
        path: add.path.clone(),
        deletion_timestamp: Some(now_ms),
        data_change: true,
        extended_file_metadata: Some(true),
        partition_values: Some(add.partition_values.clone()),
        size: Some(add.size),
        tags: add.tags.clone(),
        deletion_vector: add.deletion_vector.clone(),
        base_row_id: add.base_row_id,
        default_row_commit_version: add.default_row_commit_version,
    }
}

fn new_file(log: &Log, columns: &Columns, file: &WrittenFile, now_ms: i64) -> Result<Add> {
    let path = relative(&log.root, &file.path);
    let path = path.ok_or_else(|| Error::Internal(format!("{} is not below the table {}", file.path, log.root)))?;
    let in_file = columns.physical.fields.iter().enumerate();
    let in_file = in_file.filter(|(place, _)| !columns.partition.contains(place));
    let fields: Vec<_> = in_file.map(|(_, field)| field.clone()).collect();
    Ok(Add {
        path,
        partition_values: partition::values(columns, &file.partition)?,
        size: i64::try_from(file.bytes).unwrap_or(i64::MAX),
        modification_time: now_ms,
        data_change: true,
        stats: Some(stats::render(&file.metrics, file.records, &fields)),
        tags: None,
        deletion_vector: None,
        base_row_id: None,
        default_row_commit_version: None,
        clustering_provider: None,
    })
}

/// Creates a version once. Where the answer is lost, or the version is there already, its own text says whose it is: an
/// answer of "exists" may be about our own request that was sent twice on the way.
pub(super) async fn create(log: &Log, version: i64, all: &[Action], mine: &str) -> Result<Created> {
    let text = actions::render(all)?;
    let why = match log.create(version, text.into()).await {
        Ok(true) => return Ok(Created::Ours),
        Ok(false) => format!("version {version} exists"),
        Err(error) => error.to_string(),
    };
    let lines = match log.commit(version).await {
        Ok(Some(lines)) => lines,
        // It may still arrive.
        Ok(None) => return Ok(Created::Unclear(why)),
        Err(error) => return Ok(Created::Unclear(format!("{why}; {error}"))),
    };
    let info = lines.into_iter().find_map(|line| line.commit_info);
    let attempt = info.as_ref().and_then(|info| info.get(crate::table::iceberg::ATTEMPT)).and_then(|a| a.as_str());
    if attempt == Some(mine) {
        Ok(Created::Ours)
    } else {
        Ok(Created::Theirs(format!("version {version} is another's")))
    }
}

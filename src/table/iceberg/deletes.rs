//! Deleted positions: reading what is there, and deciding what a commit writes and what that replaces.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use super::live::{DeleteId, DeleteRef, FileInfo, Live, delete_id, is_vector, target};
use super::manifests::Entry;
use crate::error::{Error, Result};
use crate::files::{DeletedPositions, Store, read_position_deletes, read_vector};

/// More position-delete files than this for one data file are merged into one (Iceberg v2).
const DELETE_FILES_PER_DATA_FILE_MAX: usize = 4;
/// What the cache of deleted positions may hold, in bytes.
const CACHED_BYTES_MAX: usize = 64 << 20;

/// Deleted positions by data file.
pub(super) type Positions = Arc<HashMap<String, DeletedPositions>>;

/// Contents of delete files that were read or written lately. Files never change, so their identity says it all.
#[derive(Debug, Default)]
pub(super) struct DeleteCache {
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    by_id: HashMap<DeleteId, (Positions, usize)>,
    /// Oldest first.
    order: VecDeque<DeleteId>,
    bytes: usize,
}

impl DeleteCache {
    /// Everything that a live delete file or vector deletes.
    pub(super) async fn read(&self, store: &Store, entry: &Entry) -> Result<Positions> {
        let id = delete_id(entry);
        if let Some((positions, _)) = self.held.lock().unwrap_or_else(PoisonError::into_inner).by_id.get(&id) {
            return Ok(positions.clone());
        }
        let path = entry.file.file_path();
        let positions = if is_vector(entry) {
            let incomplete = || Error::Decision(format!("deletion vector in {path}: its manifest entry is incomplete"));
            let data_file = target(entry).ok_or_else(incomplete)?;
            let number = |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok()).ok_or_else(incomplete);
            let (offset, length) = (number(entry.file.content_offset())?, number(entry.file.content_size_in_bytes())?);
            HashMap::from([(data_file, read_vector(store, path, offset, length).await?)])
        } else {
            read_position_deletes(store, path, None).await?
        };
        let positions = Arc::new(positions);
        self.put(id, &positions);
        Ok(positions)
    }

    pub(super) fn put(&self, id: DeleteId, positions: &Positions) {
        let bytes: usize = positions.iter().map(|(path, set)| path.len() + set.serialized_size() + 64).sum();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes > CACHED_BYTES_MAX / 4 || held.by_id.contains_key(&id) {
            return;
        }
        held.by_id.insert(id.clone(), (positions.clone(), bytes));
        held.order.push_back(id);
        held.bytes += bytes;
        while held.bytes > CACHED_BYTES_MAX {
            let Some(oldest) = held.order.pop_front() else { break };
            if let Some((_, bytes)) = held.by_id.remove(&oldest) {
                held.bytes -= bytes;
            }
        }
    }

    /// All deleted positions of one data file, given the deletes that apply to it.
    pub(super) async fn union(&self, store: &Store, path: &str, deletes: &[DeleteRef]) -> Result<DeletedPositions> {
        let mut union = DeletedPositions::new();
        for delete in deletes {
            if let Some(positions) = self.read(store, &delete.entry).await?.get(path) {
                union |= positions;
            }
        }
        Ok(union)
    }
}

/// What a commit does about deleted positions.
#[derive(Debug, Default)]
pub(super) struct DeletePlan {
    /// What to write: one vector or position-delete file for each data file, in this order.
    pub write: Vec<(Arc<str>, DeletedPositions)>,
    /// Where each of them belongs.
    pub targets: Vec<FileInfo>,
    /// What that replaces.
    pub removed: Vec<DeleteRef>,
}

/// Plans the deletes of a commit: `superseded` positions on top of what is live. With `vectors`, each data file gets one
/// vector that contains all of its deletes; without, it gets a position-delete file, and when there would be too many
/// of these, one for all.
///
/// # Errors
/// [`Error::Internal`] where a data file is not live or has no such position, else as reading delete files.
pub(super) async fn plan(
    store: &Store,
    cache: &DeleteCache,
    live: &Live,
    superseded: &[(Arc<str>, DeletedPositions)],
    vectors: bool,
) -> Result<DeletePlan> {
    let mut plan = DeletePlan::default();
    let mut shared: Vec<DeleteRef> = Vec::new();
    let mut merged: HashMap<Arc<str>, DeletedPositions> = HashMap::new();
    for (path, positions) in superseded.iter().filter(|(_, p)| !p.is_empty()) {
        *merged.entry(path.clone()).or_default() |= positions;
    }
    let mut paths: Vec<Arc<str>> = merged.keys().cloned().collect();
    paths.sort();
    for path in paths {
        let mut positions = merged.remove(&path).unwrap_or_default();
        let info = live
            .data
            .get(&path)
            .ok_or_else(|| Error::Internal(format!("a commit supersedes rows of {path}, which is not live")))?;
        if positions.max().is_some_and(|p| u64::from(p) >= info.records) {
            let text = format!("a commit supersedes row {:?} of {path}, which has {}", positions.max(), info.records);
            return Err(Error::Internal(text));
        }
        let present = live.deletes_of(&path, info);
        if vectors {
            positions |= cache.union(store, &path, &present).await?;
            let (whole, several) = present.into_iter().partition(|d| is_alone(live, d, &path));
            let whole: Vec<DeleteRef> = whole;
            plan.removed.extend(whole);
            shared.extend::<Vec<DeleteRef>>(several);
        } else {
            let own: Vec<DeleteRef> = present.into_iter().filter(|d| is_alone(live, d, &path)).collect();
            if own.len() >= DELETE_FILES_PER_DATA_FILE_MAX {
                for delete in own {
                    let all = cache.read(store, &delete.entry).await?;
                    if let Some(old) = all.get(&*path) {
                        positions |= old;
                    }
                    // What else it names must not come back.
                    if all.keys().all(|named| **named == *path || !live.data.contains_key(named.as_str())) {
                        plan.removed.push(delete);
                    }
                }
            }
        }
        plan.targets.push(info.clone());
        plan.write.push((path, positions));
    }
    replace_shared(store, cache, live, shared, &mut plan).await?;
    Ok(plan)
}

/// Whether a delete names one data file only.
fn is_alone(live: &Live, delete: &DeleteRef, path: &str) -> bool {
    live.scoped.get(path).is_some_and(|own| own.iter().any(|d| d.id() == delete.id()))
}

/// A delete file for several data files goes when every live one of them has a vector now.
async fn replace_shared(
    store: &Store,
    cache: &DeleteCache,
    live: &Live,
    mut shared: Vec<DeleteRef>,
    plan: &mut DeletePlan,
) -> Result<()> {
    let mut seen = HashSet::new();
    shared.retain(|d| seen.insert(d.id()));
    let written: HashSet<&str> = plan.write.iter().map(|(path, _)| &**path).collect();
    let has_vector = |path: &str| live.scoped.get(path).is_some_and(|deletes| deletes.iter().any(DeleteRef::is_vector));
    let mut removed = Vec::new();
    for delete in shared {
        let all = cache.read(store, &delete.entry).await?;
        let contained = |path: &String| {
            written.contains(path.as_str()) || !live.data.contains_key(path.as_str()) || has_vector(path)
        };
        if all.keys().all(contained) {
            removed.push(delete);
        }
    }
    plan.removed.extend(removed);
    Ok(())
}

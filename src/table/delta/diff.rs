//! What changed between two versions, from the files that the versions in between name.

use std::collections::HashMap;
use std::sync::Arc;

use super::log::Log;
use super::state::{Entry, State};
use super::vector::VectorCache;
use crate::error::Result;
use crate::files::DeletedPositions;

/// A change of files, by entries.
#[derive(Debug, Default)]
pub(super) struct Changed {
    pub removed: Vec<Arc<str>>,
    pub deletes: Vec<(Arc<str>, DeletedPositions)>,
    pub added: Vec<Arc<Entry>>,
}

/// What changed since version `since`; none where nobody can tell any more.
///
/// # Errors
/// Where a deletion vector of a live file cannot be read.
pub(super) async fn since(log: &Log, state: &State, cache: &VectorCache, since: i64) -> Result<Option<Changed>> {
    if let Some(before) = state.changed_since(since) {
        return compare(log, cache, &before, state).await.map(Some);
    }
    if since < 0 || since > state.version {
        return Ok(None);
    }
    // The older state may be read from the log again, as long as that reaches back.
    let Ok(Some(old)) = log.load(Some(since)).await else { return Ok(None) };
    let mut before: HashMap<Arc<str>, Option<Arc<Entry>>> =
        old.files.iter().map(|(location, entry)| (location.clone(), Some(entry.clone()))).collect();
    for location in state.files.keys() {
        before.entry(location.clone()).or_insert(None);
    }
    compare(log, cache, &before, state).await.map(Some)
}

/// Compares files as they were with what they are in `state`.
async fn compare(
    log: &Log,
    cache: &VectorCache,
    before: &HashMap<Arc<str>, Option<Arc<Entry>>>,
    state: &State,
) -> Result<Changed> {
    let mut changed = Changed::default();
    for (location, was) in before {
        match (was, state.files.get(location)) {
            (None, None) => {}
            (Some(_), None) => changed.removed.push(location.clone()),
            (None, Some(now)) => changed.added.push(now.clone()),
            (Some(was), Some(now)) if was.vector_id() == now.vector_id() => {}
            (Some(was), Some(now)) => {
                let deleted = positions(log, cache, now).await?;
                // A vector that cannot be read any more counts as one that shrank: the file is read anew.
                match positions(log, cache, was).await {
                    Ok(older) if older.is_subset(&deleted) => {
                        changed.deletes.push((location.clone(), deleted.as_ref().clone()));
                    }
                    _ => {
                        changed.removed.push(location.clone());
                        changed.added.push(now.clone());
                    }
                }
            }
        }
    }
    Ok(changed)
}

/// What is deleted in a file.
pub(super) async fn positions(log: &Log, cache: &VectorCache, entry: &Entry) -> Result<Arc<DeletedPositions>> {
    match &entry.add.deletion_vector {
        Some(vector) => cache.read(&log.store, &log.root, vector).await,
        None => Ok(Arc::default()),
    }
}

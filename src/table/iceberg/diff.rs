//! What changed between two snapshots, from the manifests that are not in both.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use iceberg::spec::{DataContentType, ManifestFile};

use super::deletes::DeleteCache;
use super::live::{DeleteId, DeleteRef, FileInfo, Live, delete_id, target};
use super::manifests::{Entry, ManifestCache};
use crate::error::Result;
use crate::files::{DeletedPositions, Store};
use crate::table::{Diff, LiveFile};

/// The whole table as a diff from nothing.
pub(super) fn whole(live: &Live) -> Diff {
    Diff { whole: true, added: live.data.iter().map(|(path, info)| live_file(path, info)).collect(), ..Diff::default() }
}

fn live_file(path: &Arc<str>, info: &FileInfo) -> LiveFile {
    LiveFile { path: path.clone(), records: info.records }
}

/// Compares the snapshot whose manifests are `before` with the one that `live` follows.
///
/// # Errors
/// Where a manifest or a delete file of the newer snapshot cannot be read. Those of the older one may be gone already;
/// then the answer is the whole table.
pub(super) async fn compare(
    store: &Store,
    manifests: &ManifestCache,
    deletes: &DeleteCache,
    before: &[ManifestFile],
    live: &Live,
) -> Result<Diff> {
    let old_paths: HashSet<&str> = before.iter().map(|m| m.manifest_path.as_str()).collect();
    let new_paths: HashSet<&str> = live.manifests.iter().map(|m| m.manifest_path.as_str()).collect();
    let mut old = Side::default();
    for manifest in before.iter().filter(|m| !new_paths.contains(m.manifest_path.as_str())) {
        match manifests.entries(store, manifest).await {
            Ok(entries) => old.take(manifest, &entries),
            Err(_) => return Ok(whole(live)),
        }
    }
    let mut new = Side::default();
    for manifest in live.manifests.iter().filter(|m| !old_paths.contains(m.manifest_path.as_str())) {
        new.take(manifest, &manifests.entries(store, manifest).await?);
    }

    let mut diff = Diff::default();
    let gone = old.data.keys().filter(|path| !new.data.contains_key(*path));
    diff.removed.extend(gone.map(|path| Arc::from(path.as_str())));
    let came = new.data.keys().filter(|path| !old.data.contains_key(*path));
    diff.added.extend(came.filter_map(|path| live.data.get_key_value(path.as_str())).map(|(p, i)| live_file(p, i)));

    let added: HashSet<&str> = diff.added.iter().map(|f| &*f.path).collect();
    let touched = match touched(store, deletes, &old, &new).await? {
        Some(touched) => touched,
        None => return Ok(whole(live)),
    };
    let mut shrunk = Vec::new();
    for (path, replaced) in &touched {
        let Some((path, info)) = live.data.get_key_value(path.as_str()) else { continue };
        if added.contains(&**path) {
            continue;
        }
        let now = deletes.union(store, path, &live.deletes_of(path, info)).await?;
        if grew(store, deletes, path, replaced, &now).await {
            diff.deletes.push((path.clone(), now));
        } else {
            shrunk.push(live_file(path, info));
        }
    }
    for file in shrunk {
        diff.removed.push(file.path.clone());
        diff.added.push(file);
    }
    Ok(diff)
}

/// Data files named by deletes that are on one side only, each with the deletes that are gone. `None` where one of these
/// cannot be read any more.
async fn touched<'a>(
    store: &Store,
    cache: &DeleteCache,
    old: &'a Side,
    new: &Side,
) -> Result<Option<BTreeMap<String, Vec<&'a DeleteRef>>>> {
    let mut touched: BTreeMap<String, Vec<&DeleteRef>> = BTreeMap::new();
    for (_, delete) in new.deletes.iter().filter(|(id, _)| !old.deletes.contains_key(*id)) {
        for path in named(store, cache, delete).await? {
            touched.entry(path).or_default();
        }
    }
    for (_, delete) in old.deletes.iter().filter(|(id, _)| !new.deletes.contains_key(*id)) {
        let Ok(paths) = named(store, cache, delete).await else { return Ok(None) };
        for path in paths {
            touched.entry(path).or_default().push(delete);
        }
    }
    Ok(Some(touched))
}

/// Whether all that the `replaced` deletes deleted is deleted now. One that cannot be read any more counts as no.
async fn grew(store: &Store, cache: &DeleteCache, path: &str, replaced: &[&DeleteRef], now: &DeletedPositions) -> bool {
    for delete in replaced {
        match cache.read(store, &delete.entry).await {
            Ok(all) if all.get(path).is_none_or(|was| was.is_subset(now)) => {}
            _ => return false,
        }
    }
    true
}

/// One snapshot's entries in manifests that the other one does not have.
#[derive(Default)]
struct Side {
    data: HashMap<String, Arc<Entry>>,
    deletes: HashMap<DeleteId, DeleteRef>,
}

impl Side {
    fn take(&mut self, manifest: &ManifestFile, entries: &[Arc<Entry>]) {
        let path: Arc<str> = manifest.manifest_path.as_str().into();
        for entry in entries {
            if entry.file.content_type() == DataContentType::Data {
                self.data.insert(entry.file.file_path().to_owned(), entry.clone());
            } else {
                let delete = DeleteRef { entry: entry.clone(), manifest: path.clone() };
                self.deletes.insert(delete_id(entry), delete);
            }
        }
    }
}

/// The data files that a delete names.
async fn named(store: &Store, cache: &DeleteCache, delete: &DeleteRef) -> Result<Vec<String>> {
    match target(&delete.entry) {
        Some(path) => Ok(vec![path]),
        None => Ok(cache.read(store, &delete.entry).await?.keys().cloned().collect()),
    }
}

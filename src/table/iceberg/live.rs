//! What is live in the current snapshot: data files, and which delete files apply to which of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use iceberg::spec::{
    DataContentType, DataFileFormat, Datum, ManifestContentType, ManifestFile, PrimitiveLiteral, Struct,
};

use super::manifests::{Entry, ManifestCache};
use crate::error::{Error, Result};
use crate::files::Store;

/// Reserved id of the `file_path` column of position-delete files.
const DELETE_FILE_PATH_ID: i32 = 2_147_483_546;

/// What a delete needs to know of the data file that it applies to.
#[derive(Debug, Clone)]
pub(super) struct FileInfo {
    pub spec: i32,
    pub partition: Struct,
    pub sequence: i64,
    pub records: u64,
    pub bytes: u64,
}

/// A live delete file or deletion vector.
#[derive(Debug, Clone)]
pub(super) struct DeleteRef {
    pub entry: Arc<Entry>,
    /// The manifest that lists it.
    pub manifest: Arc<str>,
}

impl DeleteRef {
    pub(super) fn is_vector(&self) -> bool {
        is_vector(&self.entry)
    }

    pub(super) fn id(&self) -> DeleteId {
        delete_id(&self.entry)
    }
}

/// Several deletion vectors share a file, so the path alone does not name one.
pub(super) type DeleteId = (String, Option<i64>);

pub(super) fn delete_id(entry: &Entry) -> DeleteId {
    (entry.file.file_path().to_owned(), entry.file.content_offset())
}

pub(super) fn is_vector(entry: &Entry) -> bool {
    entry.file.file_format() == DataFileFormat::Puffin
}

/// The one data file that a delete file names, where it says so itself.
pub(super) fn target(entry: &Entry) -> Option<String> {
    if let Some(path) = entry.file.referenced_data_file() {
        return Some(path);
    }
    let text = |datum: Option<&Datum>| match datum?.literal() {
        PrimitiveLiteral::String(path) => Some(path.clone()),
        _ => None,
    };
    let lower = text(entry.file.lower_bounds().get(&DELETE_FILE_PATH_ID))?;
    let upper = text(entry.file.upper_bounds().get(&DELETE_FILE_PATH_ID))?;
    (lower == upper).then_some(lower)
}

/// The files of one snapshot. It follows the table by reading only the manifests that changed.
#[derive(Debug, Default)]
pub(super) struct Live {
    pub snapshot: Option<i64>,
    /// Manifests with live entries, in the order of the manifest list.
    pub manifests: Vec<ManifestFile>,
    pub data: HashMap<Arc<str>, FileInfo>,
    /// Delete files that name one data file, by its path.
    pub scoped: HashMap<Arc<str>, Vec<DeleteRef>>,
    /// Delete files that may name any data file of their partition.
    pub shared: Vec<DeleteRef>,
}

impl Live {
    /// The same table at another snapshot, whose live manifests are `manifests`.
    ///
    /// # Errors
    /// As reading a manifest, and [`Error::Decision`] naming the file where equality deletes are live.
    pub(super) async fn follow(
        mut self,
        store: &Store,
        cache: &ManifestCache,
        snapshot: Option<i64>,
        manifests: Vec<ManifestFile>,
    ) -> Result<Live> {
        let then: HashSet<&str> = manifests.iter().map(|m| m.manifest_path.as_str()).collect();
        let mut gone = Vec::new();
        for manifest in self.manifests.iter().filter(|m| !then.contains(m.manifest_path.as_str())) {
            match cache.entries(store, manifest).await {
                Ok(entries) => gone.push((manifest, entries)),
                // Expired meanwhile: what it said cannot be taken back any more, so all is read anew.
                Err(_) => return Box::pin(Live::default().follow(store, cache, snapshot, manifests)).await,
            }
        }
        for (manifest, entries) in gone {
            for entry in entries.iter() {
                remove(&mut self.data, &mut self.scoped, manifest, entry);
            }
            self.shared.retain(|d| *d.manifest != *manifest.manifest_path);
        }
        let now: HashSet<String> = self.manifests.iter().map(|m| m.manifest_path.clone()).collect();
        let is_delete = |m: &&ManifestFile| m.content == ManifestContentType::Deletes;
        let new = manifests.iter().filter(|m| !now.contains(&m.manifest_path));
        // Data files first: whether a bound of a delete file is a whole path shows by whether it is one of theirs.
        let (deletes, data): (Vec<_>, Vec<_>) = new.partition(is_delete);
        for manifest in data.into_iter().chain(deletes) {
            let path: Arc<str> = manifest.manifest_path.as_str().into();
            for entry in cache.entries(store, manifest).await?.iter() {
                self.add(&path, entry)?;
            }
        }
        self.snapshot = snapshot;
        self.manifests = manifests;
        Ok(self)
    }

    fn add(&mut self, manifest: &Arc<str>, entry: &Arc<Entry>) -> Result<()> {
        match entry.file.content_type() {
            DataContentType::Data => {
                let file = &entry.file;
                let info = FileInfo {
                    spec: entry.spec,
                    partition: file.partition().clone(),
                    sequence: entry.sequence,
                    records: file.record_count(),
                    bytes: file.file_size_in_bytes(),
                };
                self.data.insert(file.file_path().into(), info);
            }
            DataContentType::EqualityDeletes => return Err(equality_deletes(entry)),
            DataContentType::PositionDeletes => {
                let delete = DeleteRef { entry: entry.clone(), manifest: manifest.clone() };
                match target(entry).filter(|path| is_vector(entry) || self.data.contains_key(path.as_str())) {
                    Some(path) => self.scoped.entry(path.into()).or_default().push(delete),
                    None => self.shared.push(delete),
                }
            }
        }
        Ok(())
    }

    /// The deletes that apply to a data file. A deletion vector contains all others, so that it is alone.
    pub(super) fn deletes_of(&self, path: &str, info: &FileInfo) -> Vec<DeleteRef> {
        let scoped = self.scoped.get(path).map_or(&[][..], Vec::as_slice);
        let applies = |d: &&DeleteRef| d.entry.sequence >= info.sequence;
        if let Some(vector) = scoped.iter().filter(applies).find(|d| d.is_vector()) {
            return vec![vector.clone()];
        }
        let near = |d: &&DeleteRef| d.entry.spec == info.spec && *d.entry.file.partition() == info.partition;
        scoped.iter().filter(applies).chain(self.shared.iter().filter(applies).filter(near)).cloned().collect()
    }

    /// For an index of deletes alone: without data files to compare with, what a delete file says of its target counts.
    pub(super) fn rescope(mut self) -> Live {
        for delete in std::mem::take(&mut self.shared) {
            match target(&delete.entry) {
                Some(path) => self.scoped.entry(path.into()).or_default().push(delete),
                None => self.shared.push(delete),
            }
        }
        self
    }

    /// How many delete files and deletion vectors are live.
    pub(super) fn delete_count(&self) -> usize {
        self.shared.len() + self.scoped.len()
    }
}

fn remove(
    data: &mut HashMap<Arc<str>, FileInfo>,
    scoped: &mut HashMap<Arc<str>, Vec<DeleteRef>>,
    manifest: &ManifestFile,
    entry: &Entry,
) {
    if entry.file.content_type() == DataContentType::Data {
        data.remove(entry.file.file_path());
        return;
    }
    let Some(path) = target(entry) else { return };
    if let Some(deletes) = scoped.get_mut(path.as_str()) {
        deletes.retain(|d| *d.manifest != *manifest.manifest_path);
        if deletes.is_empty() {
            scoped.remove(path.as_str());
        }
    }
}

/// Equality deletes are refused by name: Firn neither applies them nor carries them along unseen.
pub(super) fn equality_deletes(entry: &Entry) -> Error {
    Error::Decision(format!(
        "the table has equality deletes in file {}, which another writer made: rewrite the table \
         (for example with Spark's rewrite_data_files or Trino's OPTIMIZE), then start again",
        entry.file.file_path()
    ))
}

//! Manifests: reading their live entries with everything inherited made explicit, and writing them again.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use iceberg::spec::{
    DataFile, DataFileBuilder, Datum, FormatVersion, ManifestContentType, ManifestFile, ManifestList, ManifestStatus,
    ManifestWriter, ManifestWriterBuilder, SnapshotRef, TableMetadata,
};

use super::promoted::Promoted;
use crate::error::{Error, Result};
use crate::files::{Store, from_iceberg};

/// A live entry of a manifest; nothing in it is inherited any more.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub file: DataFile,
    pub spec: i32,
    pub snapshot: i64,
    /// Data sequence number: a delete applies to data files that are not younger.
    pub sequence: i64,
    pub file_sequence: i64,
}

/// The least or the greatest value of columns, by their ids.
pub(super) type Bounds = HashMap<i32, Datum>;

/// Live entries of one manifest.
pub(super) type Entries = Arc<Vec<Arc<Entry>>>;

/// How many entries the cache holds together.
const CACHED_ENTRIES_MAX: usize = 50_000;

/// Live entries of manifests that were read or written lately. Manifests never change, so a path says it all.
#[derive(Debug, Default)]
pub(super) struct ManifestCache {
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    by_path: HashMap<CacheKey, Entries>,
    /// Oldest first.
    order: VecDeque<CacheKey>,
    entries: usize,
}

/// A manifest's path, and the first row id that its entries inherit: an upgrade to version 3 assigns one later.
type CacheKey = (String, Option<u64>);

fn key(manifest: &ManifestFile) -> CacheKey {
    (manifest.manifest_path.clone(), manifest.first_row_id)
}

impl ManifestCache {
    fn get(&self, manifest: &ManifestFile) -> Option<Entries> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).by_path.get(&key(manifest)).cloned()
    }

    pub(super) fn put(&self, manifest: &ManifestFile, entries: &Entries) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let key = key(manifest);
        if entries.len() > CACHED_ENTRIES_MAX / 4 || held.by_path.contains_key(&key) {
            return;
        }
        held.by_path.insert(key.clone(), entries.clone());
        held.order.push_back(key);
        // An empty manifest costs something too.
        held.entries += entries.len() + 1;
        while held.entries > CACHED_ENTRIES_MAX {
            let Some(oldest) = held.order.pop_front() else { break };
            if let Some(dropped) = held.by_path.remove(&oldest) {
                held.entries -= dropped.len() + 1;
            }
        }
    }

    /// Live entries of `manifest`.
    pub(super) async fn entries(&self, store: &Store, manifest: &ManifestFile) -> Result<Entries> {
        if let Some(entries) = self.get(manifest) {
            return Ok(entries);
        }
        let entries = Arc::new(read(store, manifest).await?);
        self.put(manifest, &entries);
        Ok(entries)
    }
}

async fn read(store: &Store, manifest: &ManifestFile) -> Result<Vec<Arc<Entry>>> {
    let path = &manifest.manifest_path;
    let loaded = manifest.load_manifest(&store.file_io()).await;
    let loaded = loaded.map_err(|e| from_iceberg(&format!("cannot read manifest {path}"), &e))?;
    let incomplete = || Error::Decision(format!("manifest {path} has an entry without snapshot id or sequence number"));
    let mut next_row = manifest.first_row_id.filter(|_| manifest.content == ManifestContentType::Data);
    let mut entries = Vec::with_capacity(loaded.entries().len());
    for entry in loaded.entries() {
        if entry.status() == ManifestStatus::Deleted {
            continue;
        }
        let mut first_row = entry.data_file().first_row_id();
        if let (None, Some(next)) = (first_row, next_row) {
            first_row = i64::try_from(next).ok();
            next_row = Some(next + entry.record_count());
        }
        let sequence = entry.sequence_number().ok_or_else(incomplete)?;
        entries.push(Arc::new(Entry {
            file: rebuild(entry.data_file(), manifest.partition_spec_id, first_row)?,
            spec: manifest.partition_spec_id,
            snapshot: entry.snapshot_id().ok_or_else(incomplete)?,
            sequence,
            file_sequence: entry.file_sequence_number.unwrap_or(sequence),
        }));
    }
    Ok(entries)
}

/// The same file with its partition spec and its first row id in it: the manifest knows the one, the manifest list the
/// other, and a file that moves to another manifest must take both along.
pub(super) fn rebuild(file: &DataFile, spec: i32, first_row_id: Option<i64>) -> Result<DataFile> {
    let (lower, upper) = (file.lower_bounds().clone(), file.upper_bounds().clone());
    rebuild_with(file, spec, first_row_id, (lower, upper))
}

/// As [`rebuild`], with other bounds.
pub(super) fn rebuild_with(
    file: &DataFile,
    spec: i32,
    first_row_id: Option<i64>,
    (lower, upper): (Bounds, Bounds),
) -> Result<DataFile> {
    let mut builder = DataFileBuilder::default();
    builder
        .content(file.content_type())
        .file_path(file.file_path().to_owned())
        .file_format(file.file_format())
        .partition(file.partition().clone())
        .record_count(file.record_count())
        .file_size_in_bytes(file.file_size_in_bytes())
        .column_sizes(file.column_sizes().clone())
        .value_counts(file.value_counts().clone())
        .null_value_counts(file.null_value_counts().clone())
        .nan_value_counts(file.nan_value_counts().clone())
        .lower_bounds(lower)
        .upper_bounds(upper)
        .key_metadata(file.key_metadata().map(<[u8]>::to_vec))
        .split_offsets(file.split_offsets().map(<[i64]>::to_vec))
        .equality_ids(file.equality_ids())
        .first_row_id(first_row_id)
        .partition_spec_id(spec)
        .referenced_data_file(file.referenced_data_file())
        .content_offset(file.content_offset())
        .content_size_in_bytes(file.content_size_in_bytes());
    if let Some(order) = file.sort_order_id() {
        builder.sort_order_id(order);
    }
    builder.build().map_err(|e| Error::Internal(format!("{}: {e}", file.file_path())))
}

/// Manifests of a snapshot that have live entries.
pub(super) async fn list(store: &Store, metadata: &TableMetadata, snapshot: &SnapshotRef) -> Result<Vec<ManifestFile>> {
    let location = snapshot.manifest_list();
    let text = store.get(location).await?;
    let parsed = ManifestList::parse_with_version(&text, metadata.format_version());
    let parsed = match (parsed, metadata.format_version()) {
        // Lists from before an upgrade to version 3 lack what version 3 added.
        (Err(_), FormatVersion::V3) => ManifestList::parse_with_version(&text, FormatVersion::V2),
        (parsed, _) => parsed,
    };
    let list = parsed.map_err(|e| from_iceberg(&format!("cannot read manifest list {location}"), &e))?;
    Ok(list.consume_entries().into_iter().filter(has_live_entries).collect())
}

/// Manifests that only say what earlier snapshots removed are of no use to later ones.
pub(super) fn has_live_entries(manifest: &ManifestFile) -> bool {
    manifest.has_added_files() || manifest.has_existing_files()
}

/// Names and writes the manifests of one snapshot.
pub(super) struct Writer<'a> {
    pub store: &'a Store,
    pub metadata: &'a TableMetadata,
    pub promoted: &'a Promoted,
    pub folder: &'a str,
    /// In every file name.
    pub attempt: &'a str,
    pub snapshot: i64,
    pub sequence: i64,
    pub count: usize,
}

/// Entries of one manifest to write.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub added: Vec<DataFile>,
    pub kept: Vec<Arc<Entry>>,
    pub removed: Vec<Arc<Entry>>,
}

impl Content {
    pub(super) fn is_empty(&self) -> bool {
        self.added.is_empty() && self.kept.is_empty() && self.removed.is_empty()
    }
}

impl Writer<'_> {
    fn open(&mut self, content: ManifestContentType, spec: i32) -> Result<ManifestWriter> {
        let path = format!("{}/{}-m{}.avro", self.folder, self.attempt, self.count);
        self.count += 1;
        let failed = |e: iceberg::Error| from_iceberg("cannot write a manifest", &e);
        let output = self.store.file_io().new_output(path).map_err(failed)?;
        let spec = self
            .metadata
            .partition_spec_by_id(spec)
            .ok_or_else(|| Error::Decision(format!("the table has no partition spec {spec}")))?;
        let schema = self.metadata.current_schema().clone();
        let builder = ManifestWriterBuilder::new(output, Some(self.snapshot), schema, spec.as_ref().clone());
        Ok(match (self.metadata.format_version() >= FormatVersion::V3, content) {
            (false, ManifestContentType::Data) => builder.build_v2_data(),
            (false, ManifestContentType::Deletes) => builder.build_v2_deletes(),
            (true, ManifestContentType::Data) => builder.build_v3_data(),
            (true, ManifestContentType::Deletes) => builder.build_v3_deletes(),
        })
    }

    /// Writes a manifest. Its live entries come back as a reader would see them, except for row ids of added files,
    /// which the manifest list assigns.
    pub(super) async fn write(
        &mut self,
        kind: ManifestContentType,
        spec: i32,
        content: Content,
    ) -> Result<(ManifestFile, Vec<Arc<Entry>>)> {
        let failed = |e: iceberg::Error| from_iceberg("cannot write a manifest", &e);
        let mut writer = self.open(kind, spec)?;
        for entry in &content.removed {
            let entry = self.promoted.entry(entry)?;
            let removed = writer.add_delete_file(entry.file.clone(), entry.sequence, Some(entry.file_sequence));
            removed.map_err(failed)?;
        }
        let mut live = Vec::with_capacity(content.kept.len() + content.added.len());
        for entry in &content.kept {
            let entry = self.promoted.entry(entry)?;
            let (snapshot, sequence) = (entry.snapshot, entry.sequence);
            let kept = writer.add_existing_file(entry.file.clone(), snapshot, sequence, Some(entry.file_sequence));
            kept.map_err(failed)?;
            live.push(entry);
        }
        for file in content.added {
            // Below zero: inherited from the manifest list.
            writer.add_file(file.clone(), -1).map_err(failed)?;
            let (snapshot, sequence) = (self.snapshot, self.sequence);
            live.push(Arc::new(Entry { file, spec, snapshot, sequence, file_sequence: sequence }));
        }
        let mut manifest = writer.write_manifest_file().await.map_err(failed)?;
        manifest.sequence_number = self.sequence;
        manifest.min_sequence_number = live.iter().map(|e| e.sequence).min().unwrap_or(self.sequence);
        if kind == ManifestContentType::Data && manifest.added_files_count == Some(0) {
            // Rows that have their ids keep them; without this the list would reserve new ones.
            let ids: Option<Vec<i64>> = live.iter().map(|e| e.file.first_row_id()).collect();
            manifest.first_row_id = ids.and_then(|ids| ids.into_iter().min()).and_then(|id| u64::try_from(id).ok());
        }
        Ok((manifest, live))
    }
}

/// When manifests of a table are merged.
#[derive(Debug, Clone, Copy)]
pub(super) struct MergePolicy {
    enabled: bool,
    min_count: usize,
    target_bytes: i64,
}

/// So many manifests of about the same size become one, which bounds their number by the logarithm of the files'.
const MERGE_MIN_COUNT: usize = 20;
/// A manifest of this size is left alone.
const MERGE_TARGET_BYTES: i64 = 8 << 20;

impl MergePolicy {
    /// The table's own settings where they are given.
    pub(super) fn of(metadata: &TableMetadata) -> Self {
        let property = |name: &str| metadata.properties().get(name);
        let number = |name: &str| property(name).and_then(|v| v.parse::<i64>().ok()).filter(|n| *n > 1);
        MergePolicy {
            enabled: property("commit.manifest-merge.enabled").is_none_or(|v| v != "false"),
            min_count: number("commit.manifest.min-count-to-merge")
                .and_then(|n| usize::try_from(n).ok())
                .unwrap_or(MERGE_MIN_COUNT),
            target_bytes: number("commit.manifest.target-size-bytes").unwrap_or(MERGE_TARGET_BYTES),
        }
    }

    /// Manifests (by place in `all`) to merge into one, group by group. Groups hold manifests of one content, one spec
    /// and one order of magnitude, so that each entry is rewritten only as often as its manifest grows by that order.
    /// Delete manifests of `delete_entries_max` entries and more are left alone: they are rewritten too often to be large.
    pub(super) fn groups(&self, all: &[ManifestFile], delete_entries_max: usize) -> Vec<Vec<usize>> {
        if !self.enabled {
            return Vec::new();
        }
        let mut tiers: BTreeMap<(bool, i32, u32), Vec<usize>> = BTreeMap::new();
        for (i, manifest) in all.iter().enumerate() {
            let entries = live_count(manifest);
            let deletes = manifest.content == ManifestContentType::Deletes;
            let full = manifest.manifest_length >= self.target_bytes || (deletes && entries * 2 >= delete_entries_max);
            if !full && manifest.key_metadata.is_none() {
                let tier = entries.max(1).ilog(self.min_count.max(2));
                tiers.entry((deletes, manifest.partition_spec_id, tier)).or_default().push(i);
            }
        }
        tiers.into_values().filter(|group| group.len() >= self.min_count).collect()
    }
}

fn live_count(manifest: &ManifestFile) -> usize {
    (manifest.added_files_count.unwrap_or(1) + manifest.existing_files_count.unwrap_or(1)) as usize
}

//! Makes a snapshot: manifests, manifest list, summary, and what the catalog is asked to change.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use iceberg::spec::{
    DataFile, FormatVersion, MAIN_BRANCH, ManifestContentType, ManifestFile, ManifestListWriter, Operation, Snapshot,
    Summary, TableMetadata,
};
use iceberg::{TableRequirement, TableUpdate};

use super::deletes::{DeletePlan, Positions};
use super::history::{ATTEMPT, OFFSETS, PIPELINE, REASON, SCHEMAS, VERSION};
use super::live::{DeleteId, DeleteRef, Live, delete_id};
use super::manifests::{Content, Entries, Entry, ManifestCache, MergePolicy, Writer, rebuild};
use super::promoted::Promoted;
use super::summary::Counts;
use crate::core::history::Anchor;
use crate::error::{Error, Result};
use crate::files::{Store, from_iceberg, to_data_file, to_delete_file, write_position_deletes, write_vectors};
use crate::table::Change;

/// Summary key that garbage collection sets and every later commit carries along.
const GC_BEFORE: &str = "firn.gc-before";
/// Delete manifests are rewritten whenever a vector in them is replaced, so they hold this many entries, or the square root
/// of half of all where that is more: then both their number and the cost of rewriting a few of them stay small.
const DELETE_ENTRIES_MIN: usize = 16;

/// The table as a commit finds it.
pub(super) struct Base<'a> {
    pub store: &'a Store,
    /// As it is now.
    pub before: &'a TableMetadata,
    /// With the columns that it is to have.
    pub metadata: &'a TableMetadata,
    pub live: &'a Live,
    pub cache: &'a ManifestCache,
}

/// A snapshot whose files are written; the catalog has not been asked yet.
pub(super) struct Produced {
    pub snapshot: i64,
    pub updates: Vec<TableUpdate>,
    pub requirements: Vec<TableRequirement>,
    /// Live manifests of the snapshot.
    pub manifests: Vec<ManifestFile>,
    /// What the new ones of them hold.
    pub entries: Vec<(ManifestFile, Entries)>,
    /// What the new delete files hold.
    pub deletes: Vec<(DeleteId, Positions)>,
}

/// Writes everything that `change` needs on top of `base`.
///
/// # Errors
/// Whatever hinders writing a file; nothing was sent to the catalog then.
pub(super) async fn produce(base: &Base<'_>, change: &Change, plan: DeletePlan) -> Result<Produced> {
    let metadata = base.metadata;
    let snapshot = new_snapshot_id(metadata);
    let sequence = metadata.last_sequence_number() + 1;
    // The same attempt may be made again after a failure in between, and file names are never used twice.
    let attempt = format!("{}-{:08x}", change.attempt, rand::random::<u32>());
    let folder = metadata_folder(metadata);
    let promoted = Promoted::of(metadata);
    let (store, promoted) = (base.store, &promoted);
    let mut writer =
        Writer { store, metadata, promoted, folder: &folder, attempt: &attempt, snapshot, sequence, count: 0 };

    let mut counts = Counts::default();
    let data = change.files.iter().map(to_data_file).collect::<Result<Vec<_>>>()?;
    let (deletes, contents) = write_deletes(base, &attempt, &plan).await?;
    for (file, spec) in data
        .iter()
        .zip(change.files.iter().map(|f| f.partition_spec))
        .chain(deletes.iter().zip(plan.targets.iter().map(|t| t.spec)))
    {
        counts.add(file, spec);
    }
    plan.removed.iter().for_each(|d| counts.remove(&d.entry.file, d.entry.spec));

    let mut written = data_manifests(&mut writer, change, data).await?;
    written.extend(delete_manifests(base, &mut writer, deletes, &plan).await?);
    let touched: HashSet<&str> = plan.removed.iter().map(|d| &*d.manifest).collect();
    let untouched: Vec<ManifestFile> =
        base.live.manifests.iter().filter(|m| !touched.contains(m.manifest_path.as_str())).cloned().collect();
    let untouched = match change.schema_change {
        Some(_) => promote(base, &mut writer, untouched, &mut written).await?,
        None => untouched,
    };
    let untouched = merge(base, &mut writer, untouched, &mut written).await?;

    let mut list: Vec<ManifestFile> = written.iter().map(|(m, _)| m.clone()).chain(untouched).collect();
    let added_rows = assign_row_ids(metadata, &mut list);
    let list_path = format!("{folder}/snap-{snapshot}-1-{attempt}.avro");
    write_list(base, &list_path, snapshot, sequence, &list).await?;

    let operation = match (change.files.is_empty(), plan.write.is_empty()) {
        (_, true) => Operation::Append,
        (true, false) => Operation::Delete,
        (false, false) => Operation::Overwrite,
    };
    let summary = Summary { operation, additional_properties: summary(base, change, &counts) };
    let made = Made { id: snapshot, sequence, list_path, summary, added_rows };
    let updates = updates(base, change, made)?;
    let entries = with_row_ids(&list, written)?;
    let mut requirements = requirements(base.before);
    if change.schema_change.is_some() {
        // Another writer may have given the numbers of the new columns to others.
        let last_assigned_field_id = base.before.last_column_id();
        requirements.push(TableRequirement::LastAssignedFieldIdMatch { last_assigned_field_id });
    }
    Ok(Produced {
        snapshot,
        updates,
        requirements,
        manifests: list.into_iter().filter(super::manifests::has_live_entries).collect(),
        entries,
        deletes: contents,
    })
}

/// Where manifests and manifest lists go.
fn metadata_folder(metadata: &TableMetadata) -> String {
    let own = || format!("{}/metadata", metadata.location());
    metadata.properties().get("write.metadata.path").map_or_else(own, |p| p.trim_end_matches('/').to_owned())
}

/// Where data and delete files go.
pub(super) fn data_folder(metadata: &TableMetadata) -> String {
    let own = || format!("{}/data", metadata.location());
    metadata.properties().get("write.data.path").map_or_else(own, |p| p.trim_end_matches('/').to_owned())
}

fn new_snapshot_id(metadata: &TableMetadata) -> i64 {
    loop {
        let id = rand::random::<i64>() & i64::MAX;
        if id > 0 && metadata.snapshot_by_id(id).is_none() {
            return id;
        }
    }
}

/// Writes the planned deletes: their manifest entries, in the plan's order, and what each of them holds.
async fn write_deletes(
    base: &Base<'_>,
    attempt: &str,
    plan: &DeletePlan,
) -> Result<(Vec<DataFile>, Vec<(DeleteId, Positions)>)> {
    let folder = data_folder(base.metadata);
    let written = if base.metadata.format_version() >= FormatVersion::V3 {
        write_vectors(base.store, &folder, attempt, &plan.write).await?
    } else {
        write_position_deletes(base.store, &folder, attempt, &plan.write).await?
    };
    let by_path: HashMap<&str, usize> = plan.write.iter().enumerate().map(|(i, (path, _))| (&**path, i)).collect();
    let mut files: Vec<Option<DataFile>> = vec![None; plan.write.len()];
    let mut contents = Vec::with_capacity(plan.write.len());
    for deletes in &written {
        let unknown = || Error::Internal(format!("deletes of {} were written but not planned", deletes.data_file));
        let i = *by_path.get(&*deletes.data_file).ok_or_else(unknown)?;
        let file = to_delete_file(deletes, plan.targets[i].partition.clone(), plan.targets[i].spec)?;
        let (path, positions) = &plan.write[i];
        let id = (file.file_path().to_owned(), file.content_offset());
        contents.push((id, Arc::new(HashMap::from([(path.to_string(), positions.clone())]))));
        files[i] = Some(file);
    }
    let missing = || Error::Internal("planned deletes were not written".into());
    let files = files.into_iter().collect::<Option<Vec<_>>>().ok_or_else(missing)?;
    Ok((files, contents))
}

type Written = Vec<(ManifestFile, Vec<Arc<Entry>>)>;

async fn data_manifests(writer: &mut Writer<'_>, change: &Change, data: Vec<DataFile>) -> Result<Written> {
    let mut by_spec: BTreeMap<i32, Vec<DataFile>> = BTreeMap::new();
    for (file, written) in data.into_iter().zip(&change.files) {
        by_spec.entry(written.partition_spec).or_default().push(file);
    }
    let mut manifests = Vec::new();
    for (spec, added) in by_spec {
        let content = Content { added, ..Content::default() };
        manifests.push(writer.write(ManifestContentType::Data, spec, content).await?);
    }
    Ok(manifests)
}

/// How many entries a delete manifest may have.
fn delete_entries_max(live: &Live) -> usize {
    (live.delete_count() / 2).isqrt().max(DELETE_ENTRIES_MIN)
}

/// New deletes, and what is left of the manifests whose deletes they replace.
async fn delete_manifests(
    base: &Base<'_>,
    writer: &mut Writer<'_>,
    deletes: Vec<DataFile>,
    plan: &DeletePlan,
) -> Result<Written> {
    let mut by_spec: BTreeMap<i32, Content> = BTreeMap::new();
    for (file, target) in deletes.into_iter().zip(&plan.targets) {
        by_spec.entry(target.spec).or_default().added.push(file);
    }
    let removed: HashSet<DeleteId> = plan.removed.iter().map(DeleteRef::id).collect();
    let touched: BTreeSet<&str> = plan.removed.iter().map(|d| &*d.manifest).collect();
    for manifest in base.live.manifests.iter().filter(|m| touched.contains(m.manifest_path.as_str())) {
        let content = by_spec.entry(manifest.partition_spec_id).or_default();
        for entry in base.cache.entries(base.store, manifest).await?.iter() {
            let to = if removed.contains(&delete_id(entry)) { &mut content.removed } else { &mut content.kept };
            to.push(entry.clone());
        }
    }
    let limit = delete_entries_max(base.live);
    let mut manifests = Vec::new();
    for (spec, content) in by_spec {
        for part in split(content, limit) {
            manifests.push(writer.write(ManifestContentType::Deletes, spec, part).await?);
        }
    }
    Ok(manifests)
}

/// Parts of about equal size with at most `limit` live entries; the first one says what is removed.
fn split(content: Content, limit: usize) -> Vec<Content> {
    let live = content.kept.len() + content.added.len();
    let parts = live.div_ceil(limit.max(1)).max(1);
    let size = live.div_ceil(parts).max(1);
    let (mut kept, mut added) = (content.kept.into_iter(), content.added.into_iter());
    let mut removed = Some(content.removed);
    let mut split = Vec::with_capacity(parts);
    for _ in 0..parts {
        let kept: Vec<_> = kept.by_ref().take(size).collect();
        let added: Vec<_> = added.by_ref().take(size - kept.len()).collect();
        split.push(Content { added, kept, removed: removed.take().unwrap_or_default() });
    }
    split.retain(|part| !part.is_empty());
    split
}

/// Writes manifests again that have bounds of a column which the change promotes; they go to `written`, the others come back.
async fn promote(
    base: &Base<'_>,
    writer: &mut Writer<'_>,
    manifests: Vec<ManifestFile>,
    written: &mut Written,
) -> Result<Vec<ManifestFile>> {
    if writer.promoted.is_empty() {
        return Ok(manifests);
    }
    let mut others = Vec::with_capacity(manifests.len());
    for manifest in manifests {
        let entries = base.cache.entries(base.store, &manifest).await?;
        if !entries.iter().any(|entry| writer.promoted.has_dates(entry)) {
            others.push(manifest);
            continue;
        }
        let content = Content { kept: entries.to_vec(), ..Content::default() };
        written.push(writer.write(manifest.content, manifest.partition_spec_id, content).await?);
    }
    Ok(others)
}

/// Merges small manifests; what was merged goes to `written`, the others come back.
async fn merge(
    base: &Base<'_>,
    writer: &mut Writer<'_>,
    manifests: Vec<ManifestFile>,
    written: &mut Written,
) -> Result<Vec<ManifestFile>> {
    let groups = MergePolicy::of(base.metadata).groups(&manifests, delete_entries_max(base.live));
    let mut merged = HashSet::new();
    for group in groups {
        let mut content = Content::default();
        for &i in &group {
            content.kept.extend(base.cache.entries(base.store, &manifests[i]).await?.iter().cloned());
            merged.insert(i);
        }
        let first = &manifests[group[0]];
        let (kind, spec) = (first.content, first.partition_spec_id);
        written.push(writer.write(kind, spec, content).await?);
    }
    Ok(manifests.into_iter().enumerate().filter(|(i, _)| !merged.contains(i)).map(|(_, m)| m).collect())
}

/// Gives data manifests their first row ids as the manifest list would, and returns how many ids that took.
fn assign_row_ids(metadata: &TableMetadata, list: &mut [ManifestFile]) -> u64 {
    if metadata.format_version() < FormatVersion::V3 {
        list.iter_mut().for_each(|m| m.first_row_id = None);
        return 0;
    }
    let mut next = metadata.next_row_id();
    for manifest in list.iter_mut() {
        match manifest.content {
            ManifestContentType::Data if manifest.first_row_id.is_none() => {
                manifest.first_row_id = Some(next);
                next += manifest.existing_rows_count.unwrap_or(0) + manifest.added_rows_count.unwrap_or(0);
            }
            ManifestContentType::Data => {}
            ManifestContentType::Deletes => manifest.first_row_id = None,
        }
    }
    next - metadata.next_row_id()
}

/// The written manifests with their entries as a reader would see them, row ids included.
fn with_row_ids(list: &[ManifestFile], written: Written) -> Result<Vec<(ManifestFile, Entries)>> {
    let mut entries = Vec::with_capacity(written.len());
    // `list` begins with what was written, in this order.
    for (manifest, (_, live)) in list.iter().zip(written) {
        let mut next = manifest.first_row_id;
        let mut explicit = Vec::with_capacity(live.len());
        for entry in live {
            match next {
                Some(id) if entry.file.first_row_id().is_none() => {
                    next = Some(id + entry.file.record_count());
                    let file = rebuild(&entry.file, entry.spec, i64::try_from(id).ok())?;
                    explicit.push(Arc::new(Entry { file, ..Entry::clone(&entry) }));
                }
                _ => explicit.push(entry),
            }
        }
        entries.push((manifest.clone(), Arc::new(explicit)));
    }
    Ok(entries)
}

pub(super) async fn write_list(
    base: &Base<'_>,
    path: &str,
    id: i64,
    sequence: i64,
    list: &[ManifestFile],
) -> Result<()> {
    let failed = |e: iceberg::Error| from_iceberg("cannot write a manifest list", &e);
    let output = base.store.file_io().new_output(path).map_err(failed)?;
    let file = output.writer().await.map_err(failed)?;
    let parent = base.metadata.current_snapshot_id();
    let mut writer = if base.metadata.format_version() >= FormatVersion::V3 {
        ManifestListWriter::v3(file, id, parent, sequence, Some(base.metadata.next_row_id()))
    } else {
        ManifestListWriter::v2(file, id, parent, sequence)
    };
    writer.add_manifests(list.iter().cloned()).map_err(failed)?;
    writer.close().await.map_err(failed)
}

fn summary(base: &Base<'_>, change: &Change, counts: &Counts) -> HashMap<String, String> {
    let parent = base.metadata.current_snapshot().map(|s| &s.summary().additional_properties);
    let mut summary = counts.summary(parent, base.live);
    let mut set = |key: &str, value: String| summary.insert(key.to_owned(), value);
    set(PIPELINE, change.pipeline.clone());
    set(OFFSETS, change.vector.to_json());
    set(ATTEMPT, change.attempt.clone());
    set(VERSION, env!("CARGO_PKG_VERSION").to_owned());
    if let Some(reason) = &change.reason {
        set(REASON, reason.clone());
    }
    if let Some(before) = parent.and_then(|p| p.get(GC_BEFORE)) {
        set(GC_BEFORE, before.clone());
    }
    summary
}

/// What the new snapshot is made of.
struct Made {
    id: i64,
    sequence: i64,
    list_path: String,
    summary: Summary,
    added_rows: u64,
}

fn updates(base: &Base<'_>, change: &Change, made: Made) -> Result<Vec<TableUpdate>> {
    let metadata = base.before;
    let parent = metadata.current_snapshot();
    // Never before the parent or the last change of the metadata: other engines refuse such a table.
    let timestamp =
        change.now_ms.max(parent.map_or(i64::MIN, |p| p.timestamp_ms() + 1)).max(metadata.last_updated_ms());
    let snapshot = Snapshot::builder()
        .with_snapshot_id(made.id)
        .with_parent_snapshot_id(parent.map(|p| p.snapshot_id()))
        .with_sequence_number(made.sequence)
        .with_timestamp_ms(timestamp)
        .with_manifest_list(made.list_path)
        .with_summary(made.summary)
        .with_schema_id(base.metadata.current_schema_id());
    let snapshot = if metadata.format_version() >= FormatVersion::V3 {
        snapshot.with_row_range(metadata.next_row_id(), made.added_rows).build()
    } else {
        snapshot.build()
    };
    let anchor = Anchor { vector: change.vector.clone(), snapshot: made.id, sequence: made.sequence };
    let anchor = serde_json::to_string(&anchor).map_err(|e| Error::Internal(format!("an anchor is not JSON: {e}")))?;
    let mut properties = HashMap::from([(OFFSETS.to_owned(), anchor)]);
    if metadata.properties().get(PIPELINE) != Some(&change.pipeline) {
        properties.insert(PIPELINE.to_owned(), change.pipeline.clone());
    }
    properties.extend(change.pins.iter().map(|pins| (SCHEMAS.to_owned(), pins.to_json())));
    // The builder keeps the branch's retention settings, which nothing else gives access to.
    let builder = metadata.clone().into_builder(None);
    let builder = match change.schema_change {
        Some(_) => builder.add_current_schema(base.metadata.current_schema().as_ref().clone()),
        None => Ok(builder),
    };
    let built = builder
        .and_then(|b| b.set_properties(properties))
        .and_then(|b| b.set_branch_snapshot(snapshot, MAIN_BRANCH))
        .and_then(|b| b.build())
        .map_err(|e| from_iceberg("the new snapshot is not valid", &e))?;
    Ok(built.changes)
}

fn requirements(metadata: &TableMetadata) -> Vec<TableRequirement> {
    vec![
        TableRequirement::UuidMatch { uuid: metadata.uuid() },
        TableRequirement::RefSnapshotIdMatch {
            r#ref: MAIN_BRANCH.to_owned(),
            snapshot_id: metadata.current_snapshot_id(),
        },
        TableRequirement::CurrentSchemaIdMatch { current_schema_id: metadata.current_schema_id() },
        TableRequirement::DefaultSpecIdMatch { default_spec_id: metadata.default_partition_spec_id() },
        TableRequirement::DefaultSortOrderIdMatch { default_sort_order_id: metadata.default_sort_order_id() },
    ]
}

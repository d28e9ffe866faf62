//! What a reader needs of one snapshot: its data files with their bounds, and the deletes of each.

use std::collections::HashMap;
use std::sync::Arc;

use iceberg::spec::{DataFile, ManifestContentType, PartitionSpecRef};

use super::IcebergTable;
use super::live::{DeleteRef, FileInfo, Live};
use super::schema::from_iceberg_schema;
use crate::core::history::SnapshotId;
use crate::core::schema::TableSchema;
use crate::error::{Error, Result};
use crate::files::DeletedPositions;

/// The files of one snapshot.
#[derive(Debug, Clone)]
pub struct ScanPlan {
    /// The pinned snapshot; none in a table without commits.
    pub snapshot: Option<SnapshotId>,
    /// The columns as of that snapshot (the current ones for the current snapshot).
    pub schema: Arc<TableSchema>,
    /// Every live data file.
    pub files: Vec<ScanFile>,
}

/// A data file to scan.
#[derive(Debug, Clone)]
pub struct ScanFile {
    /// The manifest entry: location, size, row count, partition values, bounds and null counts by field id.
    pub file: Arc<DataFile>,
    /// The partition spec that the partition values belong to.
    pub spec: PartitionSpecRef,
    /// The data sequence number.
    pub sequence: i64,
    /// What is deleted in it.
    pub deletes: ScanDeletes,
}

/// The deletes that apply to a data file, not read yet.
#[derive(Debug, Clone, Default)]
pub struct ScanDeletes {
    pub(super) refs: Vec<DeleteRef>,
}

impl ScanDeletes {
    /// Whether no row of the file is deleted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.refs.is_empty()
    }

    /// How many rows are deleted at most, before anything is read.
    #[must_use]
    pub fn rows_max(&self) -> u64 {
        self.refs.iter().map(|d| d.entry.file.record_count()).sum()
    }

    /// How many delete files and deletion vectors apply.
    #[must_use]
    pub fn count(&self) -> usize {
        self.refs.len()
    }
}

impl ScanFile {
    /// The location as the table's metadata spells it.
    #[must_use]
    pub fn path(&self) -> &str {
        self.file.file_path()
    }

    /// Physical rows, deleted ones included.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.file.record_count()
    }

    /// Size of the object in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.file.file_size_in_bytes()
    }
}

impl IcebergTable {
    /// Lists what a scan of a snapshot reads; without `snapshot`, of the state of the last load or commit.
    ///
    /// # Errors
    /// [`Error::No`] where the table has no such snapshot, [`Error::Decision`] for equality deletes, else as reading manifests.
    pub async fn plan_scan(&self, snapshot: Option<SnapshotId>) -> Result<ScanPlan> {
        let state = self.state();
        let metadata = &state.loaded.metadata;
        let pinned =
            match snapshot {
                Some(id) => Some(metadata.snapshot_by_id(id).cloned().ok_or_else(|| {
                    Error::No(format!("table {} has no snapshot {id}, or it has expired", self.name))
                })?),
                None => metadata.current_snapshot().cloned(),
            };
        let schema = match (&pinned, snapshot) {
            (Some(pinned), Some(_)) => {
                let schema = pinned.schema(metadata).map_err(|e| Error::Decision(e.to_string()))?;
                Arc::new(from_iceberg_schema(&schema)?)
            }
            _ => state.schema.clone(),
        };
        let Some(pinned) = pinned else { return Ok(ScanPlan { snapshot: None, schema, files: Vec::new() }) };

        let manifests = super::manifests::list(&self.store, metadata, &pinned).await?;
        let (deletes, data): (Vec<_>, Vec<_>) =
            manifests.into_iter().partition(|m| m.content == ManifestContentType::Deletes);
        // Only the deletes are indexed: data files are listed once and need no look-up.
        let live = Live::default().follow(&self.store, &self.manifests, None, deletes).await?;
        let live = live.rescope();
        let specs: HashMap<i32, PartitionSpecRef> =
            metadata.partition_specs_iter().map(|s| (s.spec_id(), s.clone())).collect();
        let mut files = Vec::new();
        for manifest in &data {
            let spec = specs.get(&manifest.partition_spec_id).ok_or_else(|| {
                Error::Decision(format!("table {} has no partition spec {}", self.name, manifest.partition_spec_id))
            })?;
            for entry in self.manifests.entries(&self.store, manifest).await?.iter() {
                let info = FileInfo {
                    spec: entry.spec,
                    partition: entry.file.partition().clone(),
                    sequence: entry.sequence,
                    records: entry.file.record_count(),
                    bytes: entry.file.file_size_in_bytes(),
                };
                let refs = live.deletes_of(entry.file.file_path(), &info);
                let (file, sequence) = (Arc::new(entry.file.clone()), entry.sequence);
                files.push(ScanFile { file, spec: spec.clone(), sequence, deletes: ScanDeletes { refs } });
            }
        }
        Ok(ScanPlan { snapshot: Some(pinned.snapshot_id()), schema, files })
    }

    /// The deleted positions of a file of a plan.
    ///
    /// # Errors
    /// As reading delete files.
    pub async fn load_deletes(&self, file: &ScanFile) -> Result<DeletedPositions> {
        self.deletes.union(&self.store, file.path(), &file.deletes.refs).await
    }
}

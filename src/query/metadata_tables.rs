//! Tables about a table: `"trades$snapshots"` and `"trades$files"`.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;

use super::query_error;
use crate::core::history::SnapshotId;
use crate::table::OpenTable;
use crate::table::delta::DeltaTable;
use crate::table::iceberg::IcebergTable;
use crate::{Error, Result};

/// What is known about `table`, by the name behind the `$`.
pub(super) async fn provider(
    table: &OpenTable,
    about: &str,
    version: Option<SnapshotId>,
) -> Result<Option<Arc<dyn TableProvider>>> {
    let columns = match (table, about) {
        (OpenTable::Iceberg(table), "snapshots") => snapshots(table),
        (OpenTable::Iceberg(table), "files") => files(table, version).await?,
        (OpenTable::Delta(table), "snapshots") => versions(table).await,
        (OpenTable::Delta(table), "files") => delta_files(table, version).await?,
        _ => return Ok(None),
    };
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)));
    let batch = batch.map_err(|e| Error::Internal(format!("cannot list {about}: {e}")))?;
    let memory = MemTable::try_new(batch.schema(), vec![vec![batch]]).map_err(query_error)?;
    Ok(Some(Arc::new(memory)))
}

/// Oldest first.
fn snapshots(table: &IcebergTable) -> Vec<(&'static str, ArrayRef)> {
    let metadata = table.metadata();
    let mut all: Vec<_> = metadata.snapshots().collect();
    all.sort_by_key(|s| (s.sequence_number(), s.snapshot_id()));
    let ids: Int64Array = all.iter().map(|s| Some(s.snapshot_id())).collect();
    let parents: Int64Array = all.iter().map(|s| s.parent_snapshot_id()).collect();
    let times: TimestampMillisecondArray = all.iter().map(|s| Some(s.timestamp_ms())).collect();
    let operations: StringArray = all.iter().map(|s| Some(s.summary().operation.as_str())).collect();
    let summaries: StringArray =
        all.iter().map(|s| serde_json::to_string(&s.summary().additional_properties).ok()).collect();
    vec![
        ("committed_at", Arc::new(times.with_timezone("UTC"))),
        ("snapshot_id", Arc::new(ids)),
        ("parent_id", Arc::new(parents)),
        ("operation", Arc::new(operations)),
        ("summary", Arc::new(summaries)),
    ]
}

/// Oldest first, as far as the log was read.
async fn versions(table: &DeltaTable) -> Vec<(&'static str, ArrayRef)> {
    let all = table.versions().await;
    let ids: Int64Array = all.iter().map(|v| Some(v.0)).collect();
    let parents: Int64Array = all.iter().map(|v| (v.0 > 0).then_some(v.0 - 1)).collect();
    let times: TimestampMillisecondArray = all.iter().map(|v| Some(v.1)).collect();
    let operations: StringArray = all.iter().map(|v| Some(v.2.as_str())).collect();
    let summaries: StringArray = all.iter().map(|v| Some(v.3.as_str())).collect();
    vec![
        ("committed_at", Arc::new(times.with_timezone("UTC"))),
        ("snapshot_id", Arc::new(ids)),
        ("parent_id", Arc::new(parents)),
        ("operation", Arc::new(operations)),
        ("summary", Arc::new(summaries)),
    ]
}

async fn delta_files(table: &DeltaTable, version: Option<SnapshotId>) -> Result<Vec<(&'static str, ArrayRef)>> {
    let mut plan = table.plan_scan(version).await?;
    plan.files.sort_by(|a, b| a.location().cmp(b.location()));
    let paths: StringArray = plan.files.iter().map(|f| Some(f.location())).collect();
    let figure = |pick: &dyn Fn(&crate::table::delta::DeltaFile) -> u64| -> ArrayRef {
        Arc::new(plan.files.iter().map(|f| Some(pick(f) as i64)).collect::<Int64Array>())
    };
    Ok(vec![
        ("file_path", Arc::new(paths)),
        ("record_count", figure(&|f| f.records)),
        ("file_size_in_bytes", figure(&|f| f.bytes())),
        ("deleted_count", figure(&|f| f.deleted())),
    ])
}

async fn files(table: &IcebergTable, version: Option<SnapshotId>) -> Result<Vec<(&'static str, ArrayRef)>> {
    let plan = table.plan_scan(version).await?;
    let paths: StringArray = plan.files.iter().map(|f| Some(f.path())).collect();
    let figure = |pick: &dyn Fn(&crate::table::iceberg::ScanFile) -> i64| -> ArrayRef {
        Arc::new(plan.files.iter().map(|f| Some(pick(f))).collect::<Int64Array>())
    };
    Ok(vec![
        ("file_path", Arc::new(paths)),
        ("record_count", figure(&|f| f.records() as i64)),
        ("file_size_in_bytes", figure(&|f| f.bytes() as i64)),
        ("sequence_number", figure(&|f| f.sequence)),
        ("delete_files", figure(&|f| f.deletes.count() as i64)),
    ])
}

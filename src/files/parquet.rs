//! Writes new rows as Parquet data files, partition by partition.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use arrow::datatypes::Field;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use iceberg::spec::{
    DataContentType, DataFile, DataFileBuilder, DataFileFormat, PartitionSpecRef, SchemaRef, SortOrderRef,
};
use parquet::arrow::ArrowWriter;
use parquet::errors::ParquetError;
use tokio::sync::mpsc;

use super::layout::{Group, locate, plan, starts};
use super::metrics::{Floats, from_parquet};
use super::{RowOrder, Store, WrittenFile, encoding};
use crate::core::schema::field_id;
use crate::{Error, Result};

/// Rows that are gathered and encoded at a time; a file's size is looked at in between.
const STEP: u32 = 32_768;
/// Files under way to the store at a time.
const PUTS: usize = 8;

/// Where and in which shape a table's new data files are written.
#[derive(Debug, Clone)]
pub struct WriteTarget {
    /// Takes the files.
    pub store: Store,
    /// Location of the data folder, as metadata is to spell it (`file:///…/data`).
    pub folder: String,
    /// The table's current schema; batches carry its field ids.
    pub schema: SchemaRef,
    /// The table's default partition spec.
    pub spec: PartitionSpecRef,
    /// The table's default sort order; rows are sorted within each file.
    pub sort_order: SortOrderRef,
    /// A file is closed once it has about this many bytes.
    pub target_file_bytes: u64,
    /// Field ids of top-level columns that files do not hold, because the table's log has their values.
    pub leave_out: Vec<i32>,
}

/// Writes the rows of `batches` as data files named `<folder>/<partition>/<attempt>-<n>.parquet`, in the order of `n`. No attempt may
/// be written twice.
///
/// One file is encoded at a time, whatever the number of partitions, in memory and then put in one piece: a single put
/// is complete or absent on every store, where a multipart upload can leave a part. Beyond the rows, memory holds about
/// three times `target_file_bytes`.
///
/// # Errors
/// [`Error::Unreachable`] where the store does not take a file; files that were written before stay, as orphans.
pub async fn write_data_files(
    target: &WriteTarget,
    attempt: &str,
    batches: Vec<RecordBatch>,
) -> Result<Vec<WrittenFile>> {
    let total: usize = batches.iter().map(RecordBatch::num_rows).sum();
    if total > u32::MAX as usize {
        return Err(Error::Internal(format!("{total} new rows in one commit are more than a file can number")));
    }
    if total == 0 {
        return Ok(Vec::new());
    }
    let (done, mut encoded) = mpsc::channel::<Encoded>(1);
    let encoder = Encoder { target: target.clone(), attempt: attempt.to_string(), batches };
    let encoder = tokio::task::spawn_blocking(move || encoder.run(&done));

    let (mut puts, mut on_the_way, mut files) = (FuturesUnordered::new(), 0, Vec::new());
    loop {
        tokio::select! {
            Some(next) = encoded.recv(), if puts.len() < PUTS && on_the_way < target.target_file_bytes => {
                on_the_way += next.bytes.len() as u64;
                puts.push(put(&target.store, next));
            }
            Some(put) = puts.next(), if !puts.is_empty() => {
                let (n, file): (usize, WrittenFile) = put?;
                on_the_way -= file.bytes;
                files.push((n, file));
            }
            else => break,
        }
    }
    encoder.await.map_err(|e| Error::Internal(format!("the Parquet encoder stopped: {e}")))??;
    files.sort_unstable_by_key(|(n, _)| *n);
    Ok(files.into_iter().map(|(_, file)| file).collect())
}

async fn put(store: &Store, encoded: Encoded) -> Result<(usize, WrittenFile)> {
    store.put(&encoded.file.path, encoded.bytes).await?;
    Ok((encoded.n, encoded.file))
}

/// A finished file that is not in the store yet.
struct Encoded {
    n: usize,
    file: WrittenFile,
    bytes: Bytes,
}

/// Turns rows into files on a blocking thread.
struct Encoder {
    target: WriteTarget,
    attempt: String,
    batches: Vec<RecordBatch>,
}

impl Encoder {
    fn run(self, done: &mpsc::Sender<Encoded>) -> Result<()> {
        let total = self.batches.iter().map(|b| b.num_rows() as u32).sum();
        let starts = starts(&self.batches);
        let mut n = 0;
        for group in plan(&self.target, &self.batches)? {
            let rows = group.rows.as_ref().map_or(total, |rows| rows.len() as u32);
            let mut next = 0;
            while next < rows {
                let (encoded, end) = self.encode(n, &group, &starts, next, rows)?;
                if done.blocking_send(encoded).is_err() {
                    // The receiver has met an error and reports that one.
                    return Ok(());
                }
                (n, next) = (n + 1, end);
            }
        }
        Ok(())
    }

    /// One file with rows of the group from the `from`th on; also says which comes next.
    fn encode(&self, n: usize, group: &Group, starts: &[u32], from: u32, rows: u32) -> Result<(Encoded, u32)> {
        let folder = self.target.folder.trim_end_matches('/');
        let slash = if group.folder.is_empty() { "" } else { "/" };
        let path = format!("{folder}{slash}{}/{}-{n}.parquet", group.folder, self.attempt);
        let failed = |e: ParquetError| Error::Internal(format!("cannot encode {path}: {e}"));

        let kept = self.kept();
        let schema = self.batches[0].schema().project(&kept).map(Arc::new);
        let schema = schema.map_err(|e| Error::Internal(format!("cannot leave out columns: {e}")))?;
        let options = encoding::options(&schema, &self.target.schema).map_err(failed)?;
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new_with_options(&mut bytes, schema, options).map_err(failed)?;
        #[cfg(test)]
        let _open = tests::Open::one();
        let (mut floats, mut next) = (Floats::default(), from);
        while next < rows && (next == from || encoded_bytes(&writer) < self.target.target_file_bytes) {
            let batch = self.gather(group, starts, next, rows)?.project(&kept);
            let batch = batch.map_err(|e| Error::Internal(format!("cannot leave out columns: {e}")))?;
            writer.write(&batch).map_err(failed)?;
            floats.add(&batch);
            next += batch.num_rows() as u32;
        }
        let metadata = writer.close().map_err(failed)?;
        let file = WrittenFile {
            records: u64::from(next - from),
            bytes: bytes.len() as u64,
            partition: group.partition.clone(),
            partition_spec: self.target.spec.spec_id(),
            sort_order: (!self.target.sort_order.is_unsorted()).then_some(self.target.sort_order.order_id as i32),
            metrics: from_parquet(&metadata, &self.target.schema, &floats)?,
            split_offsets: metadata.row_groups().iter().map(|g| g.column(0).byte_range().0 as i64).collect(),
            rows: match &group.rows {
                None => RowOrder::Range { start: from },
                Some(list) => RowOrder::List(list[from as usize..next as usize].to_vec()),
            },
            path,
        };
        Ok((Encoded { n, file, bytes: bytes.into() }, next))
    }

    /// Places of the columns that files hold.
    fn kept(&self) -> Vec<usize> {
        let schema = self.batches[0].schema();
        let left_out = |field: &Field| field_id(field).is_some_and(|id| self.target.leave_out.contains(&id));
        (0..schema.fields().len()).filter(|place| !left_out(schema.field(*place))).collect()
    }

    /// The next few rows of a group: a view of a batch where the order is as given, else a copy.
    fn gather(&self, group: &Group, starts: &[u32], from: u32, rows: u32) -> Result<RecordBatch> {
        let Some(list) = &group.rows else {
            let (batch, row) = locate(starts, from);
            let batch = &self.batches[batch];
            return Ok(batch.slice(row, (STEP as usize).min(batch.num_rows() - row)));
        };
        let end = rows.min(from.saturating_add(STEP));
        let places: Vec<_> = list[from as usize..end as usize].iter().map(|row| locate(starts, *row)).collect();
        let batches: Vec<_> = self.batches.iter().collect();
        interleave_record_batch(&batches, &places).map_err(|e| Error::Internal(format!("cannot reorder rows: {e}")))
    }
}

fn encoded_bytes(writer: &ArrowWriter<&mut Vec<u8>>) -> u64 {
    (writer.bytes_written() + writer.in_progress_size()) as u64
}

/// A written file as a manifest entry wants it.
///
/// # Errors
/// [`Error::Internal`] where a mandatory part is missing.
pub fn to_data_file(file: &WrittenFile) -> Result<DataFile> {
    let mut builder = DataFileBuilder::default();
    builder
        .content(DataContentType::Data)
        .file_path(file.path.clone())
        .file_format(DataFileFormat::Parquet)
        .partition(file.partition.clone())
        .partition_spec_id(file.partition_spec)
        .record_count(file.records)
        .file_size_in_bytes(file.bytes)
        .split_offsets(Some(file.split_offsets.clone()));
    file.metrics.fill(&mut builder);
    if let Some(order) = file.sort_order {
        builder.sort_order_id(order);
    }
    builder.build().map_err(|e| Error::Internal(format!("cannot describe {}: {e}", file.path)))
}

#[cfg(test)]
mod tests;

//! Reads columns of a data file with each row's physical position.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::buffer::BooleanBuffer;
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::async_reader::{ParquetObjectReader, ParquetRecordBatchStreamBuilder};
use parquet::errors::ParquetError;

use super::store::cause;
use super::{DeletedPositions, Matching, Store, absent, fit};
use crate::core::schema::{Absent, TableSchema, field_id, to_arrow};
use crate::table::FileRows;
use crate::{Error, Result};

/// Rows of a batch.
const STEP: usize = 32_768;

/// How the columns of a table are found in its data files.
#[derive(Debug, Clone)]
pub enum Naming {
    /// By field id.
    ById,
    /// By these names: columns of the same shape as the table's, as files call them.
    ByName(Arc<TableSchema>),
}

/// The live rows of a data file: the named top-level columns of `schema`, found by field id, in the order of `columns`,
/// as [`crate::core::schema::to_arrow`] types them. Columns that the file does not have are as they were when they were added: their initial default, or null.
///
/// The file is read unfiltered and rows are counted by position; `deleted` ones are then left out.
///
/// # Errors
/// [`Error::Unreachable`] where the file cannot be read, [`Error::Decision`] where it does not fit `schema`,
/// [`Error::Internal`] where `schema` has no such column.
pub async fn read_rows(
    store: &Store,
    location: &str,
    schema: &TableSchema,
    columns: &[String],
    deleted: DeletedPositions,
) -> Result<BoxStream<'static, Result<FileRows>>> {
    read_named_rows(store, location, schema, columns, deleted, false).await
}

/// How many rows a data file has.
///
/// # Errors
/// As [`read_rows`].
pub async fn row_count(store: &Store, location: &str) -> Result<u64> {
    let builder = open(store, location).await?;
    Ok(builder.metadata().file_metadata().num_rows().max(0) as u64)
}

/// As [`read_rows`]; `by_name` finds columns by their names in place of their field ids, as tables do that give no ids.
///
/// # Errors
/// As [`read_rows`].
pub async fn read_named_rows(
    store: &Store,
    location: &str,
    schema: &TableSchema,
    columns: &[String],
    deleted: DeletedPositions,
    by_name: bool,
) -> Result<BoxStream<'static, Result<FileRows>>> {
    let builder = open(store, location).await?;
    let rows = builder.metadata().file_metadata().num_rows();
    if u32::try_from(rows).is_err() {
        return Err(Error::Decision(format!(
            "{location} has {rows} rows, and positions beyond 2^32 are not supported"
        )));
    }
    let mut in_file = Vec::new();
    for (i, field) in builder.parquet_schema().root_schema().get_fields().iter().enumerate() {
        let info = field.get_basic_info();
        if by_name {
            in_file.extend(schema.column(info.name()).map(|column| (column.id, i)));
        } else {
            in_file.extend(info.has_id().then(|| (info.id(), i)));
        }
    }
    if in_file.is_empty() && !by_name {
        let text = format!("{location} has no field ids: files without them (imported ones) are not supported");
        return Err(Error::Decision(text));
    }
    let (sources, wanted) = project(schema, columns, &in_file)?;
    let mut roots: Vec<usize> = sources.iter().flatten().copied().collect();
    roots.sort_unstable();
    roots.dedup();
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots.iter().copied());
    let stream = builder.with_projection(mask).with_batch_size(STEP).build();
    let stream = stream.map_err(|e| parquet_error(location, &e))?;

    // From places in the file to places in a batch.
    let sources = sources.into_iter().map(|s| s.and_then(|s| roots.binary_search(&s).ok())).collect();
    let mut shape = Shape { location: location.to_string(), schema: wanted, sources, deleted, next: 0 };
    let name = location.to_string();
    let rows = stream.map_err(move |e| parquet_error(&name, &e)).map(move |batch| shape.rows(&batch?));
    Ok(rows.boxed())
}

/// Where each wanted column is in the file (root index), and the schema of what is returned.
fn project(
    schema: &TableSchema,
    columns: &[String],
    in_file: &[(i32, usize)],
) -> Result<(Vec<Option<usize>>, SchemaRef)> {
    let arrow = to_arrow(schema);
    let (mut sources, mut fields) = (Vec::new(), Vec::new());
    for name in columns {
        let field: &Field = arrow
            .field_with_name(name)
            .map_err(|_| Error::Internal(format!("a column was asked for that the table does not have: {name}")))?;
        let source = in_file.iter().find(|(id, _)| Some(*id) == field_id(field)).map(|(_, place)| *place);
        // Whoever made a column required later left nulls in older files.
        fields.push(field.clone().with_nullable(field.is_nullable() || source.is_none()));
        sources.push(source);
    }
    Ok((sources, Arc::new(Schema::new(fields))))
}

/// Gives batches of one file the table's shape and counts their rows.
struct Shape {
    location: String,
    schema: SchemaRef,
    /// Index in a batch per column; `None` where the file has no such column.
    sources: Vec<Option<usize>>,
    deleted: DeletedPositions,
    /// Position of the next row.
    next: u32,
}

impl Shape {
    fn rows(&mut self, batch: &RecordBatch) -> Result<FileRows> {
        let (start, rows) = (self.next, batch.num_rows());
        self.next = start + rows as u32;
        let columns = self.columns(batch)?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let columns = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
            .map_err(|e| Error::Decision(format!("{} does not fit the table: {e}", self.location)))?;
        if self.deleted.range_cardinality(start..self.next) == 0 {
            return Ok(FileRows { columns, positions: (start..self.next).collect() });
        }
        let live = BooleanBuffer::collect_bool(rows, |i| !self.deleted.contains(start + i as u32));
        let positions = live.set_indices().map(|i| start + i as u32).collect();
        let columns = filter_record_batch(&columns, &BooleanArray::new(live, None));
        let columns = columns.map_err(|e| Error::Internal(format!("cannot leave out deleted rows: {e}")))?;
        Ok(FileRows { columns, positions })
    }

    fn columns(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let column = |(field, source): (&Arc<Field>, &Option<usize>)| match source {
            None => absent(field, Absent::Older, batch.num_rows()).map_err(|e| {
                Error::Decision(format!("{}: the default of column {}: {e}", self.location, field.name()))
            }),
            Some(source) if batch.column(*source).data_type() == field.data_type() => Ok(batch.column(*source).clone()),
            // The column was promoted after the file was written (int to long), or is spelled otherwise (UTC).
            Some(source) => fit(batch.column(*source), field.data_type(), Matching::InOrder).map_err(|e| {
                Error::Decision(format!("{}: column {} does not fit the table: {e}", self.location, field.name()))
            }),
        };
        self.schema.fields().iter().zip(&self.sources).map(column).collect()
    }
}

/// Opens a Parquet file: its size and footer are read.
pub(super) async fn open(
    store: &Store,
    location: &str,
) -> Result<ParquetRecordBatchStreamBuilder<ParquetObjectReader>> {
    let (disk, key, size) = store.found_object(location).await?;
    let reader = ParquetObjectReader::new(disk, key).with_file_size(size);
    ParquetRecordBatchStreamBuilder::new(reader).await.map_err(|e| parquet_error(location, &e))
}

/// A store that does not answer is waited for; a file that is not what it should be needs a person.
pub(super) fn parquet_error(location: &str, error: &ParquetError) -> Error {
    match error {
        ParquetError::External(e) if e.downcast_ref::<object_store::Error>().is_some() => {
            Error::Unreachable(format!("cannot read {location}: {}", cause(e.as_ref())))
        }
        _ => Error::Decision(format!("cannot read {location}: {error}")),
    }
}

#[cfg(test)]
mod tests;

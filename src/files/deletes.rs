//! Deleted positions as files: what both encodings share, and Iceberg v2's position-delete files.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, Schema as ArrowSchema, SchemaRef};
use bytes::Bytes;
use futures::TryStreamExt;
use iceberg::spec::{DataContentType, DataFile, DataFileBuilder, DataFileFormat, Datum, Struct};
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use roaring::RoaringBitmap;

use super::{DeletedPositions, Metrics, Store, read};
use crate::core::schema::FIELD_ID_KEY;
use crate::{Error, Result};

/// The reserved field ids of a position-delete file.
const FILE_PATH: i32 = 2_147_483_546;
const POS: i32 = 2_147_483_545;
/// Rows that are encoded at a time; each repeats the data file's path.
const STEP: usize = 8192;
/// Deleted positions of one data file that were written and are not yet part of a table.
#[derive(Debug, Clone)]
pub struct WrittenDeletes {
    /// Location of the object they are in.
    pub path: String,
    /// Size of that object in bytes.
    pub bytes: u64,
    /// The data file whose rows are gone, spelled as the table's metadata does.
    pub data_file: Arc<str>,
    /// How many rows are gone.
    pub positions: u64,
    /// Where in the object they are, and how.
    pub encoding: DeleteEncoding,
}

/// How [`WrittenDeletes`] are stored.
#[derive(Debug, Clone)]
pub enum DeleteEncoding {
    /// A blob of a Puffin file that may hold several (Iceberg v3).
    Vector {
        /// First byte of the blob.
        offset: u64,
        /// Bytes of the blob.
        length: u64,
    },
    /// A Parquet file of its own (Iceberg v2).
    Rows(Box<Metrics>),
}

/// Written deletes as a manifest entry wants them; partition and spec are those of the data file.
///
/// # Errors
/// [`Error::Internal`] where a mandatory part is missing.
pub fn to_delete_file(deletes: &WrittenDeletes, partition: Struct, partition_spec: i32) -> Result<DataFile> {
    let mut builder = DataFileBuilder::default();
    builder
        .content(DataContentType::PositionDeletes)
        .file_path(deletes.path.clone())
        .partition(partition)
        .partition_spec_id(partition_spec)
        .record_count(deletes.positions)
        .file_size_in_bytes(deletes.bytes)
        .referenced_data_file(Some(deletes.data_file.to_string()));
    match &deletes.encoding {
        DeleteEncoding::Vector { offset, length } => {
            builder
                .file_format(DataFileFormat::Puffin)
                .content_offset(Some(*offset as i64))
                .content_size_in_bytes(Some(*length as i64));
        }
        DeleteEncoding::Rows(metrics) => {
            builder.file_format(DataFileFormat::Parquet);
            metrics.fill(&mut builder);
        }
    }
    builder.build().map_err(|e| Error::Internal(format!("cannot describe {}: {e}", deletes.path)))
}

/// Writes one position-delete file per data file, named `<folder>/<attempt>-<n>-deletes.parquet`; empty sets are left out.
/// No attempt may be written twice.
///
/// # Errors
/// [`Error::Unreachable`] where the store does not take a file.
pub async fn write_position_deletes(
    store: &Store,
    folder: &str,
    attempt: &str,
    deletes: &[(Arc<str>, DeletedPositions)],
) -> Result<Vec<WrittenDeletes>> {
    let mut all = Vec::new();
    for (data_file, positions) in deletes.iter().filter(|(_, positions)| !positions.is_empty()) {
        let path = format!("{}/{attempt}-{}-deletes.parquet", folder.trim_end_matches('/'), all.len());
        let failed = |e: ParquetError| Error::Internal(format!("cannot encode {path}: {e}"));
        // A set is rarely long enough to keep this thread busy for a millisecond.
        let (bytes, metrics) = encode(data_file, positions).map_err(failed)?;
        let (size, positions) = (bytes.len() as u64, positions.len());
        store.put(&path, bytes).await?;
        let encoding = DeleteEncoding::Rows(Box::new(metrics));
        all.push(WrittenDeletes { path, bytes: size, data_file: data_file.clone(), positions, encoding });
    }
    Ok(all)
}

fn schema() -> SchemaRef {
    let field = |name: &str, kind, id: i32| {
        Field::new(name, kind, false).with_metadata(HashMap::from([(FIELD_ID_KEY.to_string(), id.to_string())]))
    };
    Arc::new(ArrowSchema::new(vec![field("file_path", DataType::Utf8, FILE_PATH), field("pos", DataType::Int64, POS)]))
}

fn encode(data_file: &str, positions: &DeletedPositions) -> Result<(Bytes, Metrics), ParquetError> {
    let pos = ColumnPath::from("pos");
    let properties = WriterProperties::builder()
        .set_created_by(concat!("firn ", env!("CARGO_PKG_VERSION")).to_string())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        // Readers that find the data file by the bounds of file_path take them only when they are exact.
        .set_statistics_truncate_length(None)
        .set_column_index_truncate_length(None)
        .set_column_dictionary_enabled(pos.clone(), false)
        .set_column_encoding(pos, Encoding::DELTA_BINARY_PACKED)
        .build();
    let options = ArrowWriterOptions::new()
        .with_properties(properties)
        .with_skip_arrow_metadata(true)
        .with_schema_root("table".to_string());
    let schema = schema();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new_with_options(&mut bytes, schema.clone(), options)?;
    let mut next = positions.iter();
    loop {
        // A bitmap iterates in ascending order, which is the order that the format wants.
        let step: Int64Array = next.by_ref().take(STEP).map(|p| Some(i64::from(p))).collect();
        if step.is_empty() {
            break;
        }
        let paths = StringArray::from_iter_values(std::iter::repeat_n(data_file, step.len()));
        writer.write(&RecordBatch::try_new(schema.clone(), vec![Arc::new(paths), Arc::new(step)])?)?;
    }
    let metadata = writer.close()?;
    let mut metrics = Metrics::default();
    for (column, id) in [FILE_PATH, POS].into_iter().enumerate() {
        let size = metadata.row_groups().iter().map(|g| g.column(column).compressed_size().max(0) as u64).sum();
        metrics.column_sizes.insert(id, size);
        metrics.value_counts.insert(id, positions.len());
        metrics.null_value_counts.insert(id, 0);
    }
    metrics.lower_bounds.insert(FILE_PATH, Datum::string(data_file));
    metrics.upper_bounds.insert(FILE_PATH, Datum::string(data_file));
    if let (Some(min), Some(max)) = (positions.min(), positions.max()) {
        metrics.lower_bounds.insert(POS, Datum::long(min));
        metrics.upper_bounds.insert(POS, Datum::long(max));
    }
    Ok((bytes.into(), metrics))
}

/// Reads a position-delete file of any engine: the deleted positions by data file, or of `only` one.
///
/// # Errors
/// [`Error::Unreachable`] where it cannot be read, [`Error::Decision`] where it is not a position-delete file or holds a
/// position that is negative or not below 2³².
pub async fn read_position_deletes(
    store: &Store,
    location: &str,
    only: Option<&str>,
) -> Result<HashMap<String, DeletedPositions>> {
    let builder = read::open(store, location).await?;
    let roots = builder.parquet_schema().root_schema().get_fields();
    let place = |id: i32, name: &str| {
        let by_id = roots.iter().position(|f| f.get_basic_info().has_id() && f.get_basic_info().id() == id);
        // The names are reserved too, and some writers leave ids out.
        by_id.or_else(|| roots.iter().position(|f| f.name() == name))
    };
    let (Some(path), Some(pos)) = (place(FILE_PATH, "file_path"), place(POS, "pos")) else {
        return Err(Error::Decision(format!("{location} is not a position-delete file: it lacks file_path or pos")));
    };
    let mask = ProjectionMask::roots(builder.parquet_schema(), [path, pos]);
    let stream = builder.with_projection(mask).build();
    let mut stream = stream.map_err(|e| read::parquet_error(location, &e))?;
    let mut found: HashMap<String, Vec<u32>> = HashMap::new();
    while let Some(batch) = stream.try_next().await.map_err(|e| read::parquet_error(location, &e))? {
        let (path, pos) = if path < pos { (0, 1) } else { (1, 0) };
        gather(&batch, path, pos, only, &mut found).map_err(|e| e.within(location))?;
    }
    Ok(found.into_iter().map(|(file, positions)| (file, bitmap(positions))).collect())
}

fn gather(
    batch: &RecordBatch,
    path: usize,
    pos: usize,
    only: Option<&str>,
    found: &mut HashMap<String, Vec<u32>>,
) -> Result<()> {
    let unfit = |e| Error::Decision(format!("not a position-delete file: {e}"));
    let paths = cast(batch.column(path), &DataType::Utf8).map_err(unfit)?;
    let positions = cast(batch.column(pos), &DataType::Int64).map_err(unfit)?;
    if paths.null_count() + positions.null_count() > 0 {
        return Err(Error::Decision("not a position-delete file: it has nulls".to_string()));
    }
    let (paths, positions) = (paths.as_string::<i32>(), positions.as_primitive::<Int64Type>().values());
    let mut row = 0;
    while row < batch.num_rows() {
        let path = paths.value(row);
        // Files are sorted by path: one look-up serves a whole run.
        let end = (row..batch.num_rows()).find(|r| paths.value(*r) != path).unwrap_or(batch.num_rows());
        if only.is_none_or(|only| only == path) {
            let of_file = found.entry(path.to_string()).or_default();
            for position in &positions[row..end] {
                let narrow = u32::try_from(*position).map_err(|_| {
                    Error::Decision(format!("position {position} of {path} is not between 0 and 2^32 - 1"))
                })?;
                of_file.push(narrow);
            }
        }
        row = end;
    }
    Ok(())
}

/// Sorting first is several times as fast as inserting in any order.
fn bitmap(mut positions: Vec<u32>) -> RoaringBitmap {
    positions.sort_unstable();
    positions.dedup();
    RoaringBitmap::from_sorted_iter(positions.iter().copied()).unwrap_or_else(|_| positions.iter().copied().collect())
}

#[cfg(test)]
mod tests;

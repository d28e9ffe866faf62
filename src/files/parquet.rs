//! Writes new rows as Parquet data files, partition by partition.

use iceberg::spec::{DataFile, PartitionSpecRef, SchemaRef, SortOrderRef};

use super::{Store, WrittenFile};
use crate::table::NewRows;
use crate::{Error, Result};

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
}

/// Writes `rows` as data files named `<folder>/<partition>/<attempt>-<n>.parquet`.
///
/// # Errors
/// [`Error::Unreachable`] where the store does not take a file; files that were written before stay, as orphans.
pub async fn write_data_files(target: &WriteTarget, attempt: &str, rows: NewRows) -> Result<Vec<WrittenFile>> {
    let _ = (target, attempt, rows);
    Err(Error::Internal("being written".to_string()))
}

/// A written file as a manifest entry wants it.
///
/// # Errors
/// [`Error::Internal`] where a mandatory part is missing.
pub fn to_data_file(file: &WrittenFile) -> Result<DataFile> {
    let _ = file;
    Err(Error::Internal("being written".to_string()))
}

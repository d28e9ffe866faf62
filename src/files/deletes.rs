//! Deleted positions as files: what both encodings share, and Iceberg v2's position-delete files.

use std::collections::HashMap;
use std::sync::Arc;

use iceberg::spec::{DataFile, Struct};

use super::{DeletedPositions, Metrics, Store};
use crate::{Error, Result};

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

/// Writes one position-delete file per data file, named `<folder>/<attempt>-<n>-deletes.parquet`; empty sets are left out.
///
/// # Errors
/// [`Error::Unreachable`] where the store does not take a file.
pub async fn write_position_deletes(
    store: &Store,
    folder: &str,
    attempt: &str,
    deletes: &[(Arc<str>, DeletedPositions)],
) -> Result<Vec<WrittenDeletes>> {
    let _ = (store, folder, attempt, deletes);
    Err(Error::Internal("being written".to_string()))
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
    let _ = (store, location, only);
    Err(Error::Internal("being written".to_string()))
}

/// Written deletes as a manifest entry wants them; partition and spec are those of the data file.
///
/// # Errors
/// [`Error::Internal`] where a mandatory part is missing.
pub fn to_delete_file(deletes: &WrittenDeletes, partition: Struct, partition_spec: i32) -> Result<DataFile> {
    let _ = (deletes, partition, partition_spec);
    Err(Error::Internal("being written".to_string()))
}

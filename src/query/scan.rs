//! What a query needs to know of one snapshot of a table, in no format's words.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::scalar::ScalarValue;
use object_store::ObjectStore;
use object_store::path::Path;

use crate::Result;
use crate::core::schema::TableSchema;
use crate::files::{DeletedPositions, Naming};

/// The data files of one snapshot.
#[derive(Debug, Clone)]
pub struct Scan {
    /// `catalog.namespace.table`, for messages.
    pub name: String,
    /// The columns as of the snapshot.
    pub schema: Arc<TableSchema>,
    /// Every live data file, in a fixed order: row order without `ORDER BY` follows it.
    pub files: Vec<DataFile>,
    /// Reads deleted positions when a query needs them.
    pub deletes: Arc<dyn Deletes>,
    /// Where the files are.
    pub store: Arc<dyn ObjectStore>,
    /// How columns are found in the files.
    pub naming: Naming,
    /// Places in the schema of columns that files do not hold: their values are in [`DataFile::constants`].
    pub constant: Vec<usize>,
}

/// One Parquet file of a scan.
#[derive(Debug, Clone)]
pub struct DataFile {
    /// Its key in the store.
    pub key: Path,
    /// Size of the object in bytes.
    pub bytes: u64,
    /// Physical rows, deleted ones included.
    pub records: u64,
    /// Whether rows of it are deleted; only then are positions asked for.
    pub has_deletes: bool,
    /// How many rows are deleted, where that is known without reading the deletes.
    pub deleted: Option<u64>,
    /// What is known of top-level columns, by field id.
    pub columns: HashMap<i32, ColumnFacts>,
    /// The buckets that partitioning puts the file in.
    pub buckets: Vec<Bucket>,
    /// Values of the columns that the file does not hold, in the order of [`Scan::constant`].
    pub constants: Vec<ScalarValue>,
}

/// What is known of one column in one file; whatever is absent is unknown.
#[derive(Debug, Clone, Default)]
pub struct ColumnFacts {
    /// Not above any value. In the column's type.
    pub lower: Option<ScalarValue>,
    /// Not below any value. In the column's type.
    pub upper: Option<ScalarValue>,
    /// How many physical rows are null.
    pub nulls: Option<u64>,
}

/// All values of a column in a file hash into one bucket.
#[derive(Debug, Clone)]
pub struct Bucket {
    /// Field id of the column.
    pub column: i32,
    /// How many buckets there are.
    pub of: u32,
    /// The file's bucket; none: all values are null.
    pub bucket: Option<i32>,
}

/// Where the deleted positions of a scan's files come from.
#[async_trait]
pub trait Deletes: std::fmt::Debug + Send + Sync {
    /// The deleted positions of `files[file]` of the scan.
    async fn positions(&self, file: usize) -> Result<Arc<DeletedPositions>>;
}

/// For tables without deletes.
#[derive(Debug)]
pub struct NoDeletes;

#[async_trait]
impl Deletes for NoDeletes {
    async fn positions(&self, _file: usize) -> Result<Arc<DeletedPositions>> {
        Ok(Arc::default())
    }
}

//! Tables: what a writer and a reader need of a lakehouse table, whichever format it has.
//!
//! [`LakeTable`] is the boundary: nothing above this module knows which format it writes, and one contract suite runs on
//! every implementation.

mod catalog;
pub mod delta;
pub mod iceberg;
pub mod model;

use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use futures::stream::BoxStream;
use roaring::RoaringBitmap;

pub use self::catalog::{Catalog, OpenTable};
use crate::Result;
use crate::core::history::{SnapshotId, View};
use crate::core::offsets::Vector;
use crate::core::schema::{Pins, SchemaChange, TableSchema};
use crate::error::Error;
pub use crate::files::WrittenFile;

/// A data file of a table's snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveFile {
    /// The location exactly as the table's metadata spells it.
    pub path: Arc<str>,
    /// Physical rows in the file, deleted ones included.
    pub records: u64,
}

/// What changed in a table's files between two snapshots.
#[derive(Debug, Clone, Default)]
pub struct Diff {
    /// The two snapshots cannot be compared (nothing was known, or the known one is gone): `added` is the whole table and
    /// whatever was known before is void.
    pub whole: bool,
    /// Files that are no longer live.
    pub removed: Vec<Arc<str>>,
    /// Files that were live before and are, with **all** their deleted positions as of the newer snapshot, where these
    /// only grew.
    pub deletes: Vec<(Arc<str>, RoaringBitmap)>,
    /// Files that became live, and files whose deleted positions shrank (these are in `removed` too).
    pub added: Vec<LiveFile>,
}

/// Live rows of one data file: some columns, and each row's physical position.
#[derive(Debug, Clone)]
pub struct FileRows {
    pub columns: RecordBatch,
    /// Physical position in the file of each row of `columns`, ascending.
    pub positions: Vec<u32>,
}

/// New rows to write, in the order in which the commit's plan lists them.
#[derive(Debug, Clone)]
pub struct NewRows {
    /// Batches whose columns are the table's by name, in whatever order and in types that fit; what one lacks is null. Row
    /// numbers count through all of them.
    pub batches: Vec<RecordBatch>,
    /// They are written for the columns that the table has after this change, which the commit is to make.
    pub schema_change: Option<Arc<SchemaChange>>,
}

/// Everything that enters a table in one atomic snapshot.
#[derive(Debug, Clone)]
pub struct Change {
    /// The snapshot that this change was planned against; the commit is refused when it is not the current one.
    pub base: Option<SnapshotId>,
    /// In every file name and in the snapshot's summary: how a lost answer is resolved.
    pub attempt: String,
    pub pipeline: String,
    pub files: Vec<WrittenFile>,
    /// Rows that are gone, per data file of the base snapshot, beyond what the base already deletes.
    pub superseded: Vec<(Arc<str>, RoaringBitmap)>,
    /// What becomes of the table's columns, all at once with the rest; refused where they are not those that it was planned
    /// on.
    pub schema_change: Option<Arc<SchemaChange>>,
    /// The schema ids that the table remembers from then on, where that changes (`firn.schemas`).
    pub pins: Option<Arc<Pins>>,
    /// V as of this commit, full.
    pub vector: Vector,
    /// The wall clock in milliseconds since 1970-01-01; the snapshot's timestamp is never before its parent's.
    pub now_ms: i64,
    /// Why an operator moved V by hand (`firn offsets set`).
    pub reason: Option<String>,
}

/// How a commit ended. A conflict is an outcome, not an error.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The snapshot is the table's; the view is as of it.
    Committed(Box<View>),
    /// The catalog refused it and nothing was written: the table moved. Whether our own earlier attempt moved it, only a
    /// reload shows.
    Refused(String),
    /// The answer was lost; the commit may or may not be in the table, now or later.
    Unknown(String),
    /// It failed before anything was sent to the catalog.
    NotSent(Error),
}

/// A table that Firn writes: one atomic commit at a time, position deletes only, V inside.
///
/// An implementation remembers the state of its last `load` or commit and works against that; the caller decides when to
/// look again. It never retries a commit by itself, and never deletes a file.
#[async_trait]
pub trait LakeTable: Send + Sync {
    /// `catalog.namespace.table`, for messages.
    fn name(&self) -> &str;

    /// The table's columns and key as of the last load.
    fn schema(&self) -> Arc<TableSchema>;

    /// The schema ids that it remembers, as of the last load (`firn.schemas`).
    fn schemas(&self) -> Option<String>;

    /// Asks the catalog for the current state. `since` is the newest snapshot whose ancestry the caller knows: the
    /// history reaches at least as far back, where it is retained.
    async fn load(&self, since: Option<SnapshotId>) -> Result<View>;

    /// What changed between `since` and the state of the last load.
    async fn diff(&self, since: Option<SnapshotId>) -> Result<Diff>;

    /// The live rows of a data file as of the last load: the named columns, read unfiltered and counted by position,
    /// deleted rows left out.
    async fn rows(&self, file: &LiveFile, columns: &[String]) -> Result<BoxStream<'static, Result<FileRows>>>;

    /// Checks that the table's format can make this change of the columns as of the last load. Nothing is written.
    ///
    /// # Errors
    /// [`crate::Error::Decision`] with what is in the way.
    fn check_change(&self, change: &SchemaChange) -> Result<()>;

    /// Writes new data files for an attempt. They become part of the table only by a later [`LakeTable::commit`].
    async fn write(&self, attempt: &str, rows: NewRows) -> Result<Vec<WrittenFile>>;

    /// Tries once to make `change` the table's next snapshot.
    async fn commit(&self, change: Change) -> Outcome;
}

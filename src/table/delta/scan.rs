//! What a reader needs of one version: its data files, and what is deleted in each.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{Schema as ArrowSchema, SchemaRef};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};

use super::DeltaTable;
use super::schema::{Columns, Mapping};
use super::state::Entry;
use super::{diff, history, partition};
use crate::core::history::SnapshotId;
use crate::core::schema::{TableSchema, to_arrow};
use crate::error::{Error, Result};
use crate::files::{DeletedPositions, Naming, read_named_rows, respell, row_count};
use crate::table::FileRows;

/// The files of one version.
#[derive(Debug, Clone)]
pub struct DeltaScan {
    /// The pinned version; none in a table without commits.
    pub snapshot: Option<SnapshotId>,
    /// The columns as of that version.
    pub columns: Arc<Columns>,
    /// Every live data file, in no particular order.
    pub files: Vec<DeltaFile>,
}

/// A data file to scan.
#[derive(Debug, Clone)]
pub struct DeltaFile {
    pub(super) entry: Arc<Entry>,
    /// Physical rows, deleted ones included.
    pub records: u64,
}

impl DeltaFile {
    /// Where it is.
    #[must_use]
    pub fn location(&self) -> &str {
        &self.entry.location
    }

    /// Size of the object in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.entry.add.size.max(0) as u64
    }

    /// How many rows of it are deleted.
    #[must_use]
    pub fn deleted(&self) -> u64 {
        self.entry.add.deletion_vector.as_ref().map_or(0, |v| v.cardinality.max(0) as u64)
    }

    /// Its statistics in JSON, named as columns are in data files.
    #[must_use]
    pub fn stats(&self) -> Option<&str> {
        self.entry.add.stats.as_deref()
    }

    /// The values of its partition columns by the column's place, one row each, in the types that data files have.
    ///
    /// # Errors
    /// [`Error::Decision`] for a value that is not of its column's type.
    pub fn constants(&self, columns: &Columns) -> Result<HashMap<usize, ArrayRef>> {
        partition::constants(columns, &self.entry.add.partition_values)
    }
}

impl Columns {
    /// How columns are found in data files.
    #[must_use]
    pub fn naming(&self) -> Naming {
        match self.mapping {
            Mapping::Id => Naming::ById,
            Mapping::None | Mapping::Name => Naming::ByName(Arc::new(self.physical.clone())),
        }
    }
}

impl DeltaTable {
    /// Lists what a scan of a version reads; without `snapshot`, of the state of the last load or commit.
    ///
    /// # Errors
    /// [`Error::No`] where the table has no such version, else as reading the log.
    pub async fn plan_scan(&self, snapshot: Option<SnapshotId>) -> Result<DeltaScan> {
        let (entries, columns, snapshot) = {
            let state = self.current().await?;
            match snapshot.filter(|s| *s != state.version) {
                None => {
                    let entries: Vec<_> = state.files.values().cloned().collect();
                    (entries, self.head().columns.clone(), history::snapshot_of(&state))
                }
                Some(version) => {
                    drop(state);
                    let old = self.log.load(Some(version)).await.map_err(|e| self.in_context(e))?;
                    let old = old.ok_or_else(|| self.in_context(Error::No("it is gone".into())))?;
                    let head = super::Head::of(&old).map_err(|e| self.in_context(e))?;
                    (old.files.values().cloned().collect(), head.columns, Some(version))
                }
            }
        };
        let counted = futures::stream::iter(entries).map(|entry| async move {
            let records = self.records(&entry).await?;
            Ok::<_, Error>(DeltaFile { entry, records })
        });
        let files = counted.buffered(8).try_collect().await?;
        Ok(DeltaScan { snapshot, columns, files })
    }

    /// How many physical rows a file has.
    pub(super) async fn records(&self, entry: &Entry) -> Result<u64> {
        if let Some(known) = entry.records.get() {
            return Ok(*known);
        }
        let counted = row_count(&self.log.store, &entry.location).await.map_err(|e| self.in_context(e))?;
        Ok(*entry.records.get_or_init(|| counted))
    }

    /// The deleted positions of a file of a scan.
    ///
    /// # Errors
    /// As reading a deletion vector.
    pub async fn load_deletes(&self, file: &DeltaFile) -> Result<Arc<DeletedPositions>> {
        diff::positions(&self.log, &self.vectors, &file.entry).await.map_err(|e| self.in_context(e))
    }

    /// The live rows of a file of a scan: the named columns, with each row's position.
    ///
    /// # Errors
    /// As [`crate::files::read_rows`].
    pub async fn read_file(
        &self,
        columns: &Columns,
        file: &DeltaFile,
        names: &[String],
    ) -> Result<BoxStream<'static, Result<FileRows>>> {
        let deleted = self.load_deletes(file).await?.as_ref().clone();
        let reading = Reading::new(columns, file, names)?;
        let TableSchema { fields, .. } = &columns.physical;
        let physical: Vec<String> =
            reading.places.iter().filter(|p| !reading.is_constant(**p)).map(|p| fields[*p].name.clone()).collect();
        let by_name = columns.mapping != Mapping::Id;
        let stream =
            read_named_rows(&self.log.store, file.location(), &columns.physical, &physical, deleted, by_name).await?;
        Ok(stream.map(move |rows| reading.spell(rows?)).boxed())
    }
}

/// From the columns of a data file to those that were asked for.
struct Reading {
    /// Place in the table of each wanted column.
    places: Vec<usize>,
    constants: HashMap<usize, ArrayRef>,
    wanted: SchemaRef,
}

impl Reading {
    fn new(columns: &Columns, file: &DeltaFile, names: &[String]) -> Result<Self> {
        let place = |name: &String| {
            let found = columns.logical.fields.iter().position(|f| f.name == *name);
            found.ok_or_else(|| Error::Internal(format!("a column was asked for that the table does not have: {name}")))
        };
        let places = names.iter().map(place).collect::<Result<Vec<_>>>()?;
        let arrow = to_arrow(&columns.logical);
        // Files from before a column, and partitions without a value, have nulls whatever the column says.
        let fields: Vec<_> = places.iter().map(|p| arrow.field(*p).clone().with_nullable(true)).collect();
        let wanted = Arc::new(ArrowSchema::new(fields));
        Ok(Reading { places, constants: file.constants(columns)?, wanted })
    }

    fn is_constant(&self, place: usize) -> bool {
        self.constants.contains_key(&place)
    }

    fn spell(&self, rows: FileRows) -> Result<FileRows> {
        let count = rows.positions.len();
        let mut read = rows.columns.columns().iter();
        let column = |place: &usize| match self.constants.get(place) {
            Some(constant) => partition::repeat(constant, count),
            None => read.next().cloned().ok_or_else(|| Error::Internal("a column was not read".into())),
        };
        let columns = self.places.iter().map(column).collect::<Result<Vec<_>>>()?;
        let columns = respell(columns, count, &self.wanted)?;
        Ok(FileRows { columns, positions: rows.positions })
    }
}

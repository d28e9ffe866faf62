//! Opening and creating tables, and upgrading them.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use iceberg::spec::{
    FormatVersion, NullOrder, Schema, SortDirection, SortField, SortOrder, Transform, UnboundPartitionField,
    UnboundPartitionSpec,
};
use iceberg::{TableRequirement, TableUpdate};

use super::IcebergTable;
use super::catalog::{Answer, CatalogHandle, Creation, TableName};
use super::history::{PIPELINE, view_after_commit};
use super::schema::{current_schema, to_iceberg_schema};
use crate::core::schema::TableSchema;
use crate::error::{Error, Result};
use crate::table::Outcome;

/// A table to create.
#[derive(Debug, Clone)]
pub struct TableSpec {
    /// Columns and key; fields are numbered where they are not yet.
    pub schema: TableSchema,
    /// 2 or 3.
    pub format_version: u8,
    /// Transform and column, in order: `identity`, `bucket[16]`, `truncate[4]`, `year`, `month`, `day`, `hour`.
    pub partition_by: Vec<(String, String)>,
    /// Columns by which rows are sorted within files.
    pub sort_by: Vec<SortColumn>,
    /// The one pipeline that may write here.
    pub pipeline: String,
}

/// One column of a table's sort order.
#[derive(Debug, Clone)]
pub struct SortColumn {
    pub column: String,
    /// Largest first.
    pub descending: bool,
    /// Rows without a value come before the others.
    pub nulls_first: bool,
}

impl CatalogHandle {
    /// Opens a table as the catalog has it now, or `None` where it does not exist.
    ///
    /// # Errors
    /// [`Error::Unreachable`] where the catalog or the metadata file cannot be read, [`Error::Decision`] for a table that
    /// Firn cannot work on: format version 1, or nested key columns.
    pub async fn load_table(self: &Arc<Self>, namespace: &[String], name: &str) -> Result<Option<IcebergTable>> {
        let table = TableName { namespace: namespace.to_vec(), table: name.to_owned() };
        let loaded = self.catalog.load(&table, None).await.map_err(|e| self.named(&table, e))?;
        loaded.map(|loaded| IcebergTable::new(self.clone(), table, loaded)).transpose()
    }

    /// Creates a table, and its namespaces where they are missing. A table that somebody else created meanwhile is
    /// opened as it is.
    ///
    /// # Errors
    /// [`Error::Config`] for a spec that makes no table, else as [`CatalogHandle::load_table`].
    pub async fn create_table(
        self: &Arc<Self>,
        namespace: &[String],
        name: &str,
        spec: TableSpec,
    ) -> Result<IcebergTable> {
        let table = TableName { namespace: namespace.to_vec(), table: name.to_owned() };
        if namespace.is_empty() || namespace.iter().any(String::is_empty) || name.is_empty() {
            return Err(Error::Config(format!("table {table}: a table needs a namespace and a name")));
        }
        let creation = creation(spec, self.catalog.location_of(&table)).map_err(|e| self.named(&table, e))?;
        let loaded = self.catalog.create(&table, creation).await.map_err(|e| self.named(&table, e))?;
        IcebergTable::new(self.clone(), table, loaded)
    }

    fn named(&self, table: &TableName, error: Error) -> Error {
        error.within(format!("table {}.{table}", self.name))
    }
}

/// Checks that a spec makes a table.
///
/// # Errors
/// [`Error::Config`] with what is wrong.
pub fn check_spec(spec: TableSpec) -> Result<()> {
    let Creation { schema, spec, .. } = creation(spec, None)?;
    let bound = spec.bind(schema);
    bound.map(drop).map_err(|e| Error::Config(format!("cannot partition the table: {}", e.message())))
}

fn creation(mut spec: TableSpec, location: Option<String>) -> Result<Creation> {
    if spec.schema.fields.iter().any(|f| f.id == 0) {
        spec.schema.number();
    }
    let schema = to_iceberg_schema(&spec.schema, 0)?;
    let mut properties = BTreeMap::from([(PIPELINE.to_owned(), spec.pipeline)]);
    for (name, value) in [
        ("write.delete.mode", "merge-on-read"),
        ("write.update.mode", "merge-on-read"),
        ("write.merge.mode", "merge-on-read"),
        ("write.parquet.compression-codec", "zstd"),
        ("write.metadata.previous-versions-max", "100"),
    ] {
        properties.insert(name.to_owned(), value.to_owned());
    }
    Ok(Creation {
        spec: partition_spec(&schema, &spec.partition_by)?,
        sort_order: sort_order(&schema, &spec.sort_by)?,
        schema,
        properties,
        format_version: spec.format_version,
        location,
    })
}

fn column(schema: &Schema, name: &str) -> Result<i32> {
    schema.field_id_by_name(name).ok_or_else(|| Error::Config(format!("there is no column {name}")))
}

fn partition_spec(schema: &Schema, fields: &[(String, String)]) -> Result<UnboundPartitionSpec> {
    let mut builder = UnboundPartitionSpec::builder().with_spec_id(0);
    for (i, (transform, source)) in (0i32..).zip(fields) {
        let parsed = Transform::from_str(transform).ok().filter(|t| !matches!(t, Transform::Unknown | Transform::Void));
        let parsed = parsed.ok_or_else(|| Error::Config(format!("{transform} is not a partition transform")))?;
        // Names as Iceberg's own builders choose them.
        let suffix = match parsed {
            Transform::Identity => String::new(),
            Transform::Bucket(_) => "_bucket".into(),
            Transform::Truncate(_) => "_trunc".into(),
            _ => format!("_{transform}"),
        };
        let field = UnboundPartitionField {
            source_id: column(schema, source)?,
            field_id: Some(1000 + i),
            name: format!("{source}{suffix}"),
            transform: parsed,
        };
        let failed =
            |e: iceberg::Error| Error::Config(format!("cannot partition by {transform}({source}): {}", e.message()));
        builder = builder.add_partition_fields([field]).map_err(failed)?;
    }
    Ok(builder.build())
}

fn sort_order(schema: &Schema, columns: &[SortColumn]) -> Result<SortOrder> {
    if columns.is_empty() {
        return Ok(SortOrder::unsorted_order());
    }
    let mut builder = SortOrder::builder();
    for sort in columns {
        builder.with_sort_field(SortField {
            source_id: column(schema, &sort.column)?,
            transform: Transform::Identity,
            direction: if sort.descending { SortDirection::Descending } else { SortDirection::Ascending },
            null_order: if sort.nulls_first { NullOrder::First } else { NullOrder::Last },
        });
    }
    let names: Vec<&str> = columns.iter().map(|s| s.column.as_str()).collect();
    let built = builder.with_order_id(1).build(schema);
    built.map_err(|e| Error::Config(format!("cannot sort by {}: {}", names.join(", "), e.message())))
}

impl IcebergTable {
    /// 2 or 3, as of the last load or commit.
    #[must_use]
    pub fn format_version(&self) -> u8 {
        self.state().loaded.metadata.format_version() as u8
    }

    /// Upgrades the table to format version 3 (deletion vectors) in place; a table that has it already is left alone.
    pub async fn upgrade_to_v3(&self) -> Outcome {
        let metadata = self.state().loaded.metadata.clone();
        let updates = vec![TableUpdate::UpgradeFormatVersion { format_version: FormatVersion::V3 }];
        self.commit_metadata(updates, vec![TableRequirement::UuidMatch { uuid: metadata.uuid() }]).await
    }

    /// Commits a change of the metadata that adds no snapshot of ours, as maintenance and operators need it.
    pub async fn commit_metadata(&self, updates: Vec<TableUpdate>, requirements: Vec<TableRequirement>) -> Outcome {
        let _one_at_a_time = self.committing.lock().await;
        let state = self.state();
        let before = state.loaded.metadata.current_snapshot_id();
        let answer = self.catalog.catalog.commit(&self.table, &state.loaded, updates, requirements).await;
        let loaded = match answer {
            Answer::Committed(loaded) => loaded,
            Answer::Refused(why) => return Outcome::Refused(why),
            Answer::Unknown(why) => return Outcome::Unknown(why),
            Answer::NotSent(e) => return Outcome::NotSent(e),
        };
        let done = current_schema(&loaded.metadata).and_then(|schema| {
            let schema = Arc::new(schema);
            let view = view_after_commit(&loaded.metadata, &schema, before)?;
            Ok((schema, view))
        });
        match done {
            Ok((schema, view)) => {
                self.set_state(loaded, schema);
                Outcome::Committed(Box::new(view))
            }
            Err(e) => Outcome::Unknown(format!("committed, but the table cannot be read back: {e}")),
        }
    }
}

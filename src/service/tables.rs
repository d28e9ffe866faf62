//! Opens the tables of a pipeline, and creates what is missing.

use std::collections::BTreeMap;
use std::sync::Arc;

use secrecy::ExposeSecret;

use super::retry::Waiting;
use crate::avro::{self, DeleteBy, EventShape};
use crate::core::schema::{TableFormat, TableSchema};
use crate::query::{Engine, Limits};
use crate::settings::{self, CatalogKind, Delete, Mode, Pipeline, Settings, SqlUri, Transform};
use crate::table::delta::{self, DeltaCatalog, DeltaConfig, DeltaTable};
use crate::table::iceberg::{self, CatalogConfig, CatalogHandle, IcebergTable, SortColumn, TableSpec};
use crate::table::{Catalog, LakeTable, OpenTable, Outcome};
use crate::telemetry::{Dependency, PipelineTelemetry, Task};
use crate::{Error, Result};

/// How often a change of a table's metadata is tried against other writers.
const TRIES: usize = 20;

/// What the events of a pipeline mean for one of its tables.
#[must_use]
pub fn event_shape(pipeline: &Pipeline, table: &settings::Table) -> EventShape {
    EventShape {
        mode: match pipeline.mode {
            Mode::Upsert => avro::Mode::Upsert,
            Mode::Append => avro::Mode::Append,
        },
        key: pipeline.key_of(table).cloned(),
        record_key: pipeline.record_key.map(|key| match key {
            settings::RecordKey::Avro => avro::RecordKey::Avro,
            settings::RecordKey::String => avro::RecordKey::String,
            settings::RecordKey::Int64 => avro::RecordKey::Int64,
            settings::RecordKey::Int32 => avro::RecordKey::Int32,
        }),
        order_by: pipeline.order_of(table).cloned(),
        delete: match &pipeline.delete {
            Delete::Tombstone => DeleteBy::Tombstone,
            Delete::Field { field, values } => DeleteBy::Field { field: field.clone(), values: values.clone() },
        },
        lineage: pipeline.lineage.clone(),
        types: match (&table.record_type, pipeline.record_types.as_slice()) {
            (Some(one), _) => avro::Types::One(one.clone()),
            (None, []) => avro::Types::Any,
            (None, several) => avro::Types::Structs(several.to_vec()),
        },
        recursive_types: match pipeline.recursive_types {
            settings::RecursiveTypes::Refuse => avro::RecursiveTypes::Refuse,
            settings::RecursiveTypes::Json => avro::RecursiveTypes::Json,
        },
        nanoseconds: match pipeline.nanoseconds {
            settings::Nanoseconds::Truncate => avro::Nanoseconds::Truncate,
            settings::Nanoseconds::Reject => avro::Nanoseconds::Reject,
            settings::Nanoseconds::Keep => avro::Nanoseconds::Keep,
        },
    }
}

/// Opens one catalog of the settings, whatever its tables are.
///
/// # Errors
/// As [`open_catalog`] and [`DeltaCatalog::open`].
pub async fn open_lake(catalog: &settings::Catalog) -> Result<Catalog> {
    match (&catalog.kind, &catalog.warehouse) {
        (CatalogKind::Delta, Some(warehouse)) => {
            let config = DeltaConfig {
                name: catalog.name.clone(),
                warehouse: warehouse.clone(),
                properties: properties(catalog),
            };
            DeltaCatalog::open(&config).map(Catalog::Delta)
        }
        _ => open_catalog(catalog).await.map(Catalog::Iceberg),
    }
}

fn properties(catalog: &settings::Catalog) -> BTreeMap<String, String> {
    catalog.properties.iter().map(|(k, v)| (k.clone(), v.expose_secret().to_owned())).collect()
}

/// Opens one Iceberg catalog of the settings.
///
/// # Errors
/// [`Error::Config`] for a catalog of another kind, else as [`iceberg::open_catalog`].
pub async fn open_catalog(catalog: &settings::Catalog) -> Result<Arc<CatalogHandle>> {
    let kind = match &catalog.kind {
        CatalogKind::IcebergSql { uri: SqlUri::Sqlite(path) } => iceberg::CatalogKind::Sqlite { path: path.clone() },
        CatalogKind::IcebergSql { uri: SqlUri::Postgres(url) } => {
            iceberg::CatalogKind::Postgres { url: url.expose_secret().to_owned() }
        }
        CatalogKind::IcebergRest { uri } => iceberg::CatalogKind::Rest { uri: uri.clone() },
        CatalogKind::Delta => return Err(Error::Config(format!("catalog {} has no Iceberg tables", catalog.name))),
    };
    let properties = properties(catalog);
    let config = CatalogConfig { name: catalog.name.clone(), kind, warehouse: catalog.warehouse.clone(), properties };
    iceberg::open_catalog(config).await
}

/// A query engine over all catalogs of the settings.
///
/// # Errors
/// [`Error::Unreachable`] for a catalog that does not answer.
pub async fn open_engine(settings: &Settings) -> Result<Engine> {
    let mut catalogs = Vec::new();
    for catalog in settings.catalogs.values() {
        catalogs.push(open_lake(catalog).await?);
    }
    Engine::new(catalogs, Limits { memory_bytes: settings.memory / 4, ..Limits::default() })
}

/// Opens every catalog of the settings, each at its first use.
#[derive(Default)]
pub struct Catalogs {
    open: tokio::sync::Mutex<BTreeMap<String, Catalog>>,
}

impl Catalogs {
    /// The catalog of this name.
    ///
    /// # Errors
    /// As [`open_lake`].
    pub async fn get(&self, settings: &Settings, name: &str) -> Result<Catalog> {
        let mut open = self.open.lock().await;
        if let Some(catalog) = open.get(name) {
            return Ok(catalog.clone());
        }
        let configured = settings.catalogs.get(name);
        let configured = configured.ok_or_else(|| Error::Config(format!("there is no catalog {name}")))?;
        let catalog = open_lake(configured).await?;
        open.insert(name.to_owned(), catalog.clone());
        Ok(catalog)
    }
}

/// What the tables of a pipeline are kept in that take the same rows as this one: each can only change as all of them can.
#[must_use]
pub fn lane_formats(settings: &Settings, pipeline: &Pipeline, table: &settings::Table) -> Vec<TableFormat> {
    let same = pipeline.tables.iter().filter(|other| other.record_type == table.record_type);
    same.map(|table| format(settings, table)).collect()
}

/// What a table is kept in, as the settings say.
#[must_use]
pub fn format(settings: &Settings, table: &settings::Table) -> TableFormat {
    let kind = settings.catalogs.get(&table.catalog).map(|catalog| &catalog.kind);
    match (kind, table.format_version) {
        (Some(CatalogKind::Delta), _) => TableFormat::Delta,
        (_, 3..) => TableFormat::IcebergV3,
        _ => TableFormat::IcebergV2,
    }
}

/// What a table is opened for.
pub(super) struct Opening<'a> {
    pub(super) pipeline: &'a Pipeline,
    pub(super) table: &'a settings::Table,
    pub(super) telemetry: &'a PipelineTelemetry,
}

/// Opens a table of a pipeline, creates it where it is missing, upgrades it to the format version that is asked for, and
/// lets it be one that Firn writes. A table of a newer format version stays as it is, and so do its columns: they change
/// with the first rows that need it.
pub(super) async fn open_table(
    catalog: &Catalog,
    Opening { pipeline, table, telemetry }: &Opening<'_>,
    wanted: &TableSchema,
) -> Result<Arc<dyn LakeTable>> {
    if let Catalog::Delta(delta) = catalog {
        delta.check_store().await?;
    }
    let opened = match catalog.load_table(&table.namespace, &table.name).await? {
        Some(opened) => opened,
        None => {
            let created = catalog.create_table(&table.namespace, &table.name, spec(pipeline, table, wanted)).await?;
            tracing::info!(table = created.lake().name(), "table created");
            created
        }
    };
    let lake = opened.lake();
    let waiting = Waiting { telemetry, task: Task::of(Dependency::Table, lake.name()), patience: None };
    match &opened {
        OpenTable::Iceberg(iceberg) if iceberg.format_version() < table.format_version => {
            waiting.until_reachable(|| upgrade(iceberg, table.format_version)).await?;
            tracing::info!(table = lake.name(), format_version = table.format_version, "table upgraded in place");
        }
        OpenTable::Iceberg(_) => {}
        OpenTable::Delta(delta) => waiting.until_reachable(|| prepare(delta, &wanted.key)).await?,
    }
    Ok(lake)
}

/// The table of these columns, as the settings ask for it.
fn spec(pipeline: &Pipeline, table: &settings::Table, columns: &TableSchema) -> TableSpec {
    TableSpec {
        schema: columns.clone(),
        format_version: table.format_version,
        partition_by: table.partition_by.iter().map(|p| (transform(&p.transform), p.column.clone())).collect(),
        sort_by: table.sort_by.iter().map(sort_column).collect(),
        pipeline: pipeline.name.clone(),
    }
}

/// Checks that a table of these columns can be created.
///
/// # Errors
/// [`Error::Config`] with what is wrong.
pub(super) fn check_spec(
    settings: &Settings,
    pipeline: &Pipeline,
    table: &settings::Table,
    columns: &TableSchema,
) -> Result<()> {
    let spec = spec(pipeline, table, columns);
    match format(settings, table) {
        TableFormat::Delta => delta::check_spec(&spec),
        _ => iceberg::check_spec(spec),
    }
}

async fn prepare(table: &DeltaTable, key: &[String]) -> Result<()> {
    for _ in 0..TRIES {
        if settled(table, table.prepare(key).await).await? {
            return Ok(());
        }
    }
    Err(restless(table, "it was to be made one that firn writes"))
}

async fn upgrade(table: &IcebergTable, format_version: u8) -> Result<()> {
    for _ in 0..TRIES {
        if table.format_version() >= format_version || settled(table, table.upgrade_to_v3().await).await? {
            return Ok(());
        }
    }
    Err(restless(table, "its format version was to be upgraded"))
}

/// Whether a change of the table's metadata was committed. Where it is not known, or somebody else came first, the table
/// is loaded again: they may have made the same change.
async fn settled(table: &dyn LakeTable, outcome: Outcome) -> Result<bool> {
    match outcome {
        Outcome::Committed(_) => Ok(true),
        Outcome::Refused(_) | Outcome::Unknown(_) => table.load(None).await.map(|_| false),
        Outcome::NotSent(error) => Err(error),
    }
}

fn restless(table: &dyn LakeTable, meanwhile: &str) -> Error {
    Error::Unreachable(format!("table {}: other writers kept changing it while {meanwhile}", table.name()))
}

fn sort_column(sort: &settings::SortField) -> SortColumn {
    SortColumn { column: sort.column.clone(), descending: sort.descending, nulls_first: sort.nulls_first }
}

fn transform(transform: &Transform) -> String {
    match transform {
        Transform::Identity => "identity".into(),
        Transform::Bucket(n) => format!("bucket[{n}]"),
        Transform::Truncate(n) => format!("truncate[{n}]"),
        Transform::Year => "year".into(),
        Transform::Month => "month".into(),
        Transform::Day => "day".into(),
        Transform::Hour => "hour".into(),
    }
}

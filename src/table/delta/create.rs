//! A warehouse of Delta tables: finding and creating them. The folders are the catalog.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, json};
use uuid::Uuid;

use super::actions::{Action, Format, MetaData, Protocol};
use super::commit::{self, Created};
use super::history::KEY;
use super::log::Log;
use super::protocol::ENABLE_VECTORS;
use super::{DeltaTable, SORT_BY, partition, schema};
use crate::error::{Error, Result};
use crate::files::{Store, check_store_properties, is_store_property};
use crate::table::iceberg::{ATTEMPT, PIPELINE, SortColumn, TableSpec, VERSION};

/// Where Delta tables are.
#[derive(Debug, Clone)]
pub struct DeltaConfig {
    /// The catalog's name.
    pub name: String,
    /// The folder of the tables, absolute or as a location.
    pub warehouse: String,
    /// `accept-transaction-retention: true` accepts that tables forget V some time after the last commit; those of
    /// [`crate::files::STORE_PROPERTIES`] open the buckets.
    pub properties: BTreeMap<String, String>,
}

/// A folder of Delta tables: `<warehouse>/<namespace>/<table>`.
#[derive(Debug)]
pub struct DeltaCatalog {
    name: String,
    store: Store,
    /// Without a final slash.
    root: String,
    forgetting: bool,
    /// Whether the store has been shown to keep two writers from taking one version.
    probed: tokio::sync::Mutex<bool>,
}

impl DeltaCatalog {
    /// A catalog over a folder, which need not exist yet.
    ///
    /// # Errors
    /// [`Error::Config`] for a warehouse that no store is known for, or a property that is not known.
    pub fn open(config: &DeltaConfig) -> Result<Arc<Self>> {
        Self::open_in(config, Store::with_properties(&config.properties))
    }

    /// The same over another store.
    ///
    /// # Errors
    /// As [`DeltaCatalog::open`].
    pub fn open_in(config: &DeltaConfig, store: Store) -> Result<Arc<Self>> {
        check_store_properties(&config.name, &config.properties)?;
        let mut forgetting = false;
        for (name, value) in &config.properties {
            match name.as_str() {
                "accept-transaction-retention" => forgetting = value.eq_ignore_ascii_case("true"),
                name if is_store_property(name) => {}
                _ => {
                    return Err(Error::Config(format!(
                        "catalog {}: the property '{name}' is not known to a delta catalog; it knows \
                         accept-transaction-retention, and those of object stores (s3.*, gcs.*, adls.*)",
                        config.name
                    )));
                }
            }
        }
        let trimmed = config.warehouse.trim_end_matches('/');
        let root = if trimmed.contains("://") { trimmed.to_owned() } else { format!("file://{trimmed}") };
        store.object(&root).map_err(|e| e.within(format!("catalog {}", config.name)))?;
        Ok(Arc::new(DeltaCatalog {
            name: config.name.clone(),
            store,
            root,
            forgetting,
            probed: tokio::sync::Mutex::default(),
        }))
    }

    /// Refuses a store on which two writers could take the same version. Asked once, before the first table is written.
    ///
    /// # Errors
    /// As [`Store::probe_create`].
    pub async fn check_store(&self) -> Result<()> {
        let mut probed = self.probed.lock().await;
        if !*probed {
            self.store.probe_create(&self.root).await.map_err(|e| e.within(format!("catalog {}", self.name)))?;
            *probed = true;
        }
        Ok(())
    }

    /// The catalog's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn log(&self, namespace: &[String], name: &str) -> Result<(String, Log)> {
        let full = format!("{}.{}.{name}", self.name, namespace.join("."));
        let mut parts = namespace.iter().map(String::as_str).chain([name]);
        let strange = |part: &str| part.is_empty() || part.starts_with(['.', '_']) || part.contains(['/', '\\', '\0']);
        if namespace.is_empty() || parts.any(strange) {
            return Err(Error::Config(format!("table {full}: a table needs a namespace and a name that name folders")));
        }
        let root = format!("{}/{}/{name}", self.root, namespace.join("."));
        Ok((full, Log { store: self.store.clone(), root }))
    }

    /// Opens a table as it is now, or `None` where it does not exist.
    ///
    /// # Errors
    /// [`Error::Unreachable`] where the log cannot be read, [`Error::Decision`] for a table that Firn cannot read.
    pub async fn load_table(&self, namespace: &[String], name: &str) -> Result<Option<DeltaTable>> {
        let Ok((full, log)) = self.log(namespace, name) else { return Ok(None) };
        let state = log.load(None).await.map_err(|e| e.within(format!("table {full}")))?;
        state.map(|state| DeltaTable::new(full, log, state, self.forgetting)).transpose()
    }

    /// Creates a table. One that somebody else created meanwhile is opened as it is.
    ///
    /// # Errors
    /// [`Error::Config`] for a spec that makes no Delta table, else as [`DeltaCatalog::load_table`].
    pub async fn create_table(&self, namespace: &[String], name: &str, spec: TableSpec) -> Result<DeltaTable> {
        let (full, log) = self.log(namespace, name)?;
        let attempt = Uuid::new_v4().to_string();
        let actions = creation(&spec, &attempt).map_err(|e| e.within(format!("table {full}")))?;
        match commit::create(&log, 0, &actions, &attempt).await? {
            Created::Ours | Created::Theirs(_) => {}
            Created::Unclear(why) => return Err(Error::Unreachable(format!("table {full} cannot be created: {why}"))),
        }
        let state = log.load(None).await.map_err(|e| e.within(format!("table {full}")))?;
        let state = state.ok_or_else(|| Error::Unreachable(format!("table {full} was created, but is not there")))?;
        DeltaTable::new(full, log, state, self.forgetting)
    }

    /// All tables, by namespace and name.
    ///
    /// # Errors
    /// [`Error::Unreachable`] where the warehouse cannot be listed.
    pub async fn list_tables(&self) -> Result<Vec<(Vec<String>, String)>> {
        let mut tables = Vec::new();
        let visible = |name: &String| !name.starts_with(['.', '_']);
        for namespace in self.store.folders(&self.root).await?.into_iter().filter(visible) {
            let levels: Vec<String> = namespace.split('.').map(str::to_owned).collect();
            let folder = format!("{}/{namespace}", self.root);
            for name in self.store.folders(&folder).await?.into_iter().filter(visible) {
                let below = self.store.folders(&format!("{folder}/{name}")).await?;
                if below.iter().any(|name| name == "_delta_log") {
                    tables.push((levels.clone(), name));
                }
            }
        }
        tables.sort();
        Ok(tables)
    }
}

pub(super) fn info(operation: &str, attempt: &str) -> Map<String, serde_json::Value> {
    let mut info = Map::new();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    info.insert("timestamp".into(), json!(now.as_millis() as i64));
    info.insert("operation".into(), json!(operation));
    info.insert("operationParameters".into(), json!({}));
    info.insert("engineInfo".into(), json!(concat!("firn/", env!("CARGO_PKG_VERSION"))));
    info.insert(VERSION.into(), json!(env!("CARGO_PKG_VERSION")));
    info.insert(ATTEMPT.into(), json!(attempt));
    info
}

/// A column of the sort order as the table property has it: `n`, `n desc`, `n desc nulls first`.
fn sort_text(sort: &SortColumn) -> String {
    let descending = if sort.descending { " desc" } else { "" };
    format!("{}{descending}{}", sort.column, if sort.nulls_first { " nulls first" } else { "" })
}

/// Version 0 of a table.
/// Checks that a spec makes a Delta table.
///
/// # Errors
/// [`Error::Config`] with what is wrong.
pub fn check_spec(spec: &TableSpec) -> Result<()> {
    creation(spec, "").map(drop)
}

fn creation(spec: &TableSpec, attempt: &str) -> Result<Vec<Action>> {
    let mut configuration =
        BTreeMap::from([(ENABLE_VECTORS.to_owned(), "true".to_owned()), (PIPELINE.to_owned(), spec.pipeline.clone())]);
    let sorted: Vec<String> = spec.sort_by.iter().map(|sort| sort.column.clone()).collect();
    if let Some(name) = spec.schema.key.iter().chain(&sorted).find(|name| name.contains([',', ' '])) {
        return Err(Error::Config(format!(
            "column {name} has a comma or a space in its name and cannot be a key or sort column"
        )));
    }
    let order: Vec<String> = spec.sort_by.iter().map(sort_text).collect();
    for (property, columns) in [(KEY, &spec.schema.key), (SORT_BY, &order)] {
        if !columns.is_empty() {
            configuration.insert(property.to_owned(), columns.join(","));
        }
    }
    for name in spec.schema.key.iter().chain(&sorted) {
        if spec.schema.column(name).is_none() {
            return Err(Error::Config(format!("there is no column {name}")));
        }
    }
    let mut partition_columns = Vec::new();
    for (transform, column) in &spec.partition_by {
        if transform != "identity" {
            return Err(Error::Config(format!(
                "partition_by: Delta has no transform {transform}; partition by the column {column} itself, or by no column"
            )));
        }
        let field = spec.schema.column(column).ok_or_else(|| Error::Config(format!("there is no column {column}")))?;
        partition::check(field)?;
        partition_columns.push(column.clone());
    }
    if partition_columns.len() == spec.schema.fields.len() {
        return Err(Error::Config("partition_by names every column: a file would hold none".into()));
    }
    let mut read = vec!["deletionVectors".to_owned()];
    if schema::has_local_timestamps(&spec.schema.fields) {
        read.push("timestampNtz".to_owned());
    }
    // Columns that are never null make Spark ask for invariants.
    let write = read.iter().cloned().chain(["invariants", "appendOnly"].map(str::to_owned)).collect();
    Ok(vec![
        Action::CommitInfo(info("CREATE TABLE", attempt)),
        Action::Protocol(Protocol {
            min_reader_version: 3,
            min_writer_version: 7,
            reader_features: Some(read),
            writer_features: Some(write),
        }),
        Action::MetaData(MetaData {
            id: Uuid::new_v4().to_string(),
            name: None,
            description: None,
            format: Format::default(),
            schema_string: schema::render(&spec.schema)?,
            partition_columns,
            configuration,
            created_time: None,
        }),
    ])
}

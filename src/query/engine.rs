//! The query engine: catalogs in, one read-only statement at a time, a stream of batches out.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SendableRecordBatchStream, SessionStateBuilder};
use datafusion::physical_plan::execute_stream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::{SQLOptions, SessionConfig, SessionContext};
use datafusion::sql::parser::Statement as DFStatement;
use datafusion::sql::sqlparser::ast::Statement;

use super::catalog::StatementCatalog;
use super::files::Footers;
use super::provider::PinnedTable;
use super::scan::Scan;
use super::{delta, iceberg, metadata_tables, query_error, statement};
use crate::core::history::SnapshotId;
use crate::table::{Catalog, OpenTable};
use crate::{Error, Result};

/// Planning walks trees by recursion; [`statement`] bounds their depth for this much stack.
const STACK_BYTES: usize = 64 << 20;
/// Tables that stay open between statements.
const OPEN_TABLES_MAX: usize = 256;
/// The smallest memory that a useful query needs.
const MEMORY_BYTES_MIN: u64 = 32 << 20;

/// What queries may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Memory of all running queries together, in bytes; past it they spill, then fail.
    pub memory_bytes: u64,
    /// Threads' worth of work per query.
    pub partitions: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { memory_bytes: 1 << 30, partitions: 2 }
    }
}

/// Answers read-only SQL over catalogs.
#[derive(Debug, Clone)]
pub struct Engine {
    tables: Arc<Tables>,
    runtime: Arc<RuntimeEnv>,
    limits: Limits,
}

/// What a statement returns. Dropping it ends the query.
pub struct Answer {
    /// The columns.
    pub schema: SchemaRef,
    /// The rows.
    pub stream: SendableRecordBatchStream,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl Answer {
    /// An answer that is there already.
    #[must_use]
    pub fn of(rows: RecordBatch) -> Self {
        let schema = rows.schema();
        let stream = futures::stream::iter([Ok(rows)]);
        Answer { schema: schema.clone(), stream: Box::pin(RecordBatchStreamAdapter::new(schema, stream)) }
    }
}

impl Engine {
    /// An engine over these catalogs, by their names.
    ///
    /// # Errors
    /// [`Error::Unreachable`] where no folder for spilling can be made.
    pub fn new(catalogs: Vec<Catalog>, limits: Limits) -> Result<Self> {
        let memory = limits.memory_bytes.max(MEMORY_BYTES_MIN);
        let pool = FairSpillPool::new(usize::try_from(memory).unwrap_or(usize::MAX));
        let pool = TrackConsumersPool::new(pool, std::num::NonZeroUsize::MIN);
        let disk = DiskManagerBuilder::default()
            .with_mode(DiskManagerMode::OsTmpDirectory)
            .with_max_temp_directory_size(memory.saturating_mul(4));
        let runtime =
            RuntimeEnvBuilder::new().with_memory_pool(Arc::new(pool)).with_disk_manager_builder(disk).build_arc();
        let runtime = runtime.map_err(query_error)?;
        let catalogs = catalogs.into_iter().map(|c| (c.name().to_owned(), c)).collect();
        let tables =
            Tables { catalogs, fixed: HashMap::new(), open: tokio::sync::Mutex::default(), footers: Arc::default() };
        Ok(Engine { tables: Arc::new(tables), runtime, limits })
    }

    /// The same engine with one more table, `catalog.namespace.name`, that is always this scan.
    #[must_use]
    pub fn with_scan(self, catalog: &str, namespace: &str, name: &str, scan: Scan) -> Self {
        let mut fixed = self.tables.fixed.clone();
        let table = Arc::new(PinnedTable::with_footers(scan, self.tables.footers.clone()));
        fixed.insert((catalog.to_owned(), namespace.to_owned(), name.to_owned()), table);
        let tables = Tables {
            catalogs: self.tables.catalogs.clone(),
            fixed,
            open: tokio::sync::Mutex::default(),
            footers: self.tables.footers.clone(),
        };
        Engine { tables: Arc::new(tables), ..self }
    }

    /// Plans a statement and starts it.
    ///
    /// # Errors
    /// [`Error::Config`] for a statement that does not read, does not parse or does not fit the tables,
    /// [`Error::Unreachable`] where a catalog or store does not answer.
    pub async fn query(&self, sql: &str) -> Result<Answer> {
        let (engine, sql) = (self.clone(), sql.to_owned());
        let handle = tokio::runtime::Handle::current();
        let (reply, answer) = tokio::sync::oneshot::channel();
        let work = move || {
            // Nobody waits for the answer where the query was given up.
            let _ = reply.send(handle.block_on(engine.start(&sql)));
        };
        let thread = std::thread::Builder::new().name("plan".into()).stack_size(STACK_BYTES).spawn(work);
        thread.map_err(|e| Error::Unreachable(format!("cannot start a thread to plan the query: {e}")))?;
        answer.await.map_err(|_| Error::Internal("planning the query ended without an answer".into()))?
    }

    async fn start(&self, sql: &str) -> Result<Answer> {
        let statement = statement::parse(sql)?;
        let context = self.context(lists(sql, &statement)).await?;
        let plan = context.state().statement_to_plan(statement).await.map_err(query_error)?;
        let reads = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        reads.verify_plan(&plan).map_err(query_error)?;
        let frame = context.execute_logical_plan(plan).await.map_err(query_error)?;
        let task = Arc::new(frame.task_ctx());
        let physical = frame.create_physical_plan().await.map_err(query_error)?;
        let stream = execute_stream(physical, task).map_err(query_error)?;
        Ok(Answer { schema: stream.schema(), stream })
    }

    /// A session for one statement.
    async fn context(&self, lists: bool) -> Result<SessionContext> {
        let names = self.tables.catalog_names();
        let default = names.first().cloned().unwrap_or_else(|| "none".into());
        let mut config = SessionConfig::new()
            .with_target_partitions(self.limits.partitions.max(1))
            .with_default_catalog_and_schema(default, "default")
            .with_create_default_catalog_and_schema(false)
            .with_information_schema(true);
        // As Trino has them: 1.5 is exact, nulls come last whatever the direction, strings have one type.
        let parser = &mut config.options_mut().sql_parser;
        parser.parse_float_as_decimal = true;
        parser.default_null_ordering = "nulls_last".into();
        parser.map_string_types_to_utf8view = false;
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(self.runtime.clone())
            .with_default_features()
            .build();
        let context = SessionContext::new_with_state(state);
        for name in names {
            let listed = if lists { self.tables.list(&name).await? } else { BTreeMap::new() };
            let catalog = StatementCatalog::new(name.clone(), self.tables.clone(), listed);
            context.register_catalog(name, Arc::new(catalog));
        }
        Ok(context)
    }

    /// A context that knows no tables, and one table by its full name, for plans that are not SQL.
    pub(super) async fn table(&self, name: &str) -> Result<(SessionContext, Arc<PinnedTable>)> {
        let parts: Vec<&str> = name.split('.').collect();
        let (Some(catalog), Some(table), true) = (parts.first(), parts.last(), parts.len() >= 3) else {
            return Err(Error::Config(format!("{name} is not a table's full name: write catalog.namespace.table")));
        };
        let namespace = parts[1..parts.len() - 1].join(".");
        let pinned = self.tables.pinned(catalog, &namespace, table, None).await?;
        let pinned = pinned.ok_or_else(|| Error::Config(format!("there is no table {name}")))?;
        Ok((self.context(false).await?, pinned))
    }
}

/// Whether the statement asks which tables there are; listing costs a request to each catalog.
fn lists(sql: &str, statement: &DFStatement) -> bool {
    let shows = matches!(statement, DFStatement::Statement(s)
        if matches!(s.as_ref(), Statement::ShowTables { .. } | Statement::ShowColumns { .. }));
    shows || sql.to_lowercase().contains("information_schema")
}

/// The tables of the catalogs, and what is kept of them between statements.
#[derive(Debug)]
pub(super) struct Tables {
    catalogs: BTreeMap<String, Catalog>,
    fixed: HashMap<(String, String, String), Arc<PinnedTable>>,
    /// By catalog, namespace and name.
    open: tokio::sync::Mutex<HashMap<(String, String, String), OpenTable>>,
    footers: Arc<Footers>,
}

impl Tables {
    fn catalog_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.catalogs.keys().cloned().collect();
        names.extend(self.fixed.keys().map(|(catalog, ..)| catalog.clone()));
        names.sort();
        names.dedup();
        names
    }

    async fn list(&self, catalog: &str) -> Result<BTreeMap<String, Vec<String>>> {
        let mut listed: BTreeMap<String, Vec<String>> = BTreeMap::new();
        if let Some(handle) = self.catalogs.get(catalog) {
            for (namespace, name) in handle.list_tables().await? {
                listed.entry(namespace.join(".")).or_default().push(name);
            }
        }
        for (_, namespace, name) in self.fixed.keys().filter(|(of, ..)| of == catalog) {
            listed.entry(namespace.clone()).or_default().push(name.clone());
        }
        listed.values_mut().for_each(|names| names.sort());
        Ok(listed)
    }

    /// What a name in a statement stands for: a table, a snapshot of it, or what is known about it.
    pub(super) async fn provider(
        &self,
        catalog: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<dyn TableProvider>>> {
        let (name, version) = statement::split_version(name);
        if let Some(pinned) = self.pinned(catalog, namespace, name, version).await? {
            return Ok(Some(pinned));
        }
        let Some((table, about)) = name.rsplit_once('$') else { return Ok(None) };
        match self.current(catalog, namespace, table).await? {
            Some(table) => metadata_tables::provider(&table, about, version).await,
            None => Ok(None),
        }
    }

    async fn pinned(
        &self,
        catalog: &str,
        namespace: &str,
        name: &str,
        version: Option<SnapshotId>,
    ) -> Result<Option<Arc<PinnedTable>>> {
        let key = (catalog.to_owned(), namespace.to_owned(), name.to_owned());
        if let Some(fixed) = self.fixed.get(&key) {
            if version.is_some() {
                return Err(Error::Config(format!("table {catalog}.{namespace}.{name} has no snapshots")));
            }
            return Ok(Some(fixed.clone()));
        }
        let Some(table) = self.current(catalog, namespace, name).await? else { return Ok(None) };
        let scan = match table {
            OpenTable::Iceberg(table) => iceberg::scan(table, version).await?,
            OpenTable::Delta(table) => delta::scan(table, version).await?,
        };
        Ok(Some(Arc::new(PinnedTable::with_footers(scan, self.footers.clone()))))
    }

    /// The table as its catalog has it now.
    async fn current(&self, catalog: &str, namespace: &str, name: &str) -> Result<Option<OpenTable>> {
        let Some(handle) = self.catalogs.get(catalog) else { return Ok(None) };
        let key = (catalog.to_owned(), namespace.to_owned(), name.to_owned());
        let known = self.open.lock().await.get(&key).cloned();
        // A table that was dropped and made anew is another one: it is opened again below.
        if let Some(known) = known
            && known.lake().load(None).await.is_ok()
        {
            return Ok(Some(known));
        }
        let levels: Vec<String> = namespace.split('.').map(str::to_owned).collect();
        let table = handle.load_table(&levels, name).await?;
        let mut open = self.open.lock().await;
        match &table {
            Some(table) => {
                if open.len() >= OPEN_TABLES_MAX {
                    open.clear();
                }
                open.insert(key, table.clone());
            }
            None => {
                open.remove(&key);
            }
        }
        Ok(table)
    }
}

#[cfg(test)]
mod tests;

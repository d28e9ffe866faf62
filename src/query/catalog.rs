//! Catalogs, namespaces and tables as the planner looks them up, for one statement: a table that is named twice in it is
//! the same snapshot both times.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, SchemaProvider, TableProvider};
use datafusion::datasource::TableType;
use datafusion::error::Result;

use super::engine::Tables;
use super::through;

/// Tables that one statement may name.
const TABLES_MAX: usize = 256;

/// A catalog within one statement.
#[derive(Debug)]
pub(super) struct StatementCatalog {
    name: String,
    tables: Arc<Tables>,
    resolved: Arc<Resolved>,
    /// Tables by namespace; only filled for statements that list them.
    listed: BTreeMap<String, Vec<String>>,
}

/// What a name stands for: nothing, or a table.
type Found = Option<Arc<dyn TableProvider>>;

/// What the statement's names stand for, so far.
#[derive(Debug, Default)]
struct Resolved {
    /// By namespace and name.
    found: tokio::sync::Mutex<HashMap<(String, String), Found>>,
}

impl StatementCatalog {
    pub(super) fn new(name: String, tables: Arc<Tables>, listed: BTreeMap<String, Vec<String>>) -> Self {
        StatementCatalog { name, tables, resolved: Arc::default(), listed }
    }
}

impl CatalogProvider for StatementCatalog {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn schema_names(&self) -> Vec<String> {
        self.listed.keys().cloned().collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        Some(Arc::new(Namespace {
            catalog: self.name.clone(),
            name: name.to_owned(),
            tables: self.tables.clone(),
            resolved: self.resolved.clone(),
            listed: self.listed.get(name).cloned().unwrap_or_default(),
        }))
    }
}

/// A namespace within one statement; levels are joined by dots.
#[derive(Debug)]
struct Namespace {
    catalog: String,
    name: String,
    tables: Arc<Tables>,
    resolved: Arc<Resolved>,
    listed: Vec<String>,
}

#[async_trait]
impl SchemaProvider for Namespace {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn table_names(&self) -> Vec<String> {
        self.listed.clone()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let mut resolved = self.resolved.found.lock().await;
        let key = (self.name.clone(), name.to_owned());
        if let Some(found) = resolved.get(&key) {
            return Ok(found.clone());
        }
        if resolved.len() >= TABLES_MAX {
            return datafusion::common::plan_err!("a statement names more than {TABLES_MAX} tables");
        }
        let found = self.tables.provider(&self.catalog, &self.name, name).await.map_err(through)?;
        resolved.insert(key, found.clone());
        Ok(found)
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>> {
        Ok(self.table_exist(name).then_some(TableType::Base))
    }

    fn table_exist(&self, name: &str) -> bool {
        // Without a list every name may be one; `table` asks.
        self.listed.is_empty() || self.listed.iter().any(|listed| listed == name)
    }
}

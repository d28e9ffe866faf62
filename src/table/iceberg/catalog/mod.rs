//! Catalogs: who says which metadata file is a table's current one, and lets exactly one successor replace it.

mod auth;
mod document;
mod rest;
mod sql;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use iceberg::spec::{Schema, SortOrder, TableMetadata, UnboundPartitionSpec};
use iceberg::{TableRequirement, TableUpdate};

pub(super) use self::document::Document;
use crate::error::{Error, Result};
use crate::files::{Store, check_store_properties};

/// Which catalog to open, and how.
#[derive(Clone)]
pub struct CatalogConfig {
    /// The catalog's name in SQL and, for JDBC catalogs, its `catalog_name`.
    pub name: String,
    /// Where the catalog is.
    pub kind: CatalogKind,
    /// Folder or URL under which tables are created; for REST, the name or location that the server knows it by.
    pub warehouse: Option<String>,
    /// Iceberg REST names (`credential`, `token`, `scope`, `header.*`, …), and those of [`crate::files::STORE_PROPERTIES`].
    pub properties: BTreeMap<String, String>,
}

impl std::fmt::Debug for CatalogConfig {
    /// Without the properties and the URL: both may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CatalogConfig").field("name", &self.name).field("warehouse", &self.warehouse).finish()
    }
}

/// The kinds of Iceberg catalogs.
#[derive(Clone)]
pub enum CatalogKind {
    /// A JDBC-layout catalog in a SQLite file, created when missing.
    Sqlite {
        /// The database file.
        path: std::path::PathBuf,
    },
    /// A JDBC-layout catalog in PostgreSQL; its tables are created when missing.
    Postgres {
        /// `postgres://user:password@host/database`.
        url: String,
    },
    /// An Iceberg REST catalog.
    Rest {
        /// The address before `/v1`.
        uri: String,
    },
}

/// A table's name in a catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableName {
    pub namespace: Vec<String>,
    pub table: String,
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.namespace.join("."), self.table)
    }
}

/// A table's metadata as a catalog answered it.
#[derive(Debug, Clone)]
pub(super) struct Loaded {
    pub metadata: Arc<TableMetadata>,
    /// Where the metadata file is.
    pub location: String,
    /// The stored text, where this process is the one that writes it.
    pub document: Option<Arc<Document>>,
}

/// What a new table is to be.
#[derive(Debug, Clone)]
pub(super) struct Creation {
    pub schema: Schema,
    pub spec: UnboundPartitionSpec,
    pub sort_order: SortOrder,
    pub properties: BTreeMap<String, String>,
    pub format_version: u8,
    /// Where the table goes; `None` where the catalog decides.
    pub location: Option<String>,
}

/// How a commit ended, as far as the catalog's answer says.
#[derive(Debug)]
pub(super) enum Answer {
    Committed(Loaded),
    Refused(String),
    Unknown(String),
    NotSent(Error),
}

/// A catalog. Nothing here retries a commit.
#[async_trait]
pub(super) trait Catalog: Send + Sync {
    /// The current metadata, or `None` where there is no such table. `known` is returned again while it is current.
    async fn load(&self, table: &TableName, known: Option<&Loaded>) -> Result<Option<Loaded>>;

    /// Creates the table and its namespaces; a table that exists is loaded instead.
    async fn create(&self, table: &TableName, creation: Creation) -> Result<Loaded>;

    /// Tries once to put `updates` on top of `base`.
    async fn commit(
        &self,
        table: &TableName,
        base: &Loaded,
        updates: Vec<TableUpdate>,
        requirements: Vec<TableRequirement>,
    ) -> Answer;

    /// Every table, by namespace.
    async fn list(&self) -> Result<Vec<TableName>>;

    /// Where `table` is to be created, `None` where the catalog decides.
    fn location_of(&self, table: &TableName) -> Option<String>;

    /// The store of `table`'s files, which was loaded before; `None` where it is the catalog's.
    fn store_of(self: Arc<Self>, _table: &TableName) -> Option<Store> {
        None
    }
}

/// An opened catalog.
pub struct CatalogHandle {
    pub(super) name: String,
    pub(super) store: Store,
    pub(super) catalog: Arc<dyn Catalog>,
}

impl std::fmt::Debug for CatalogHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CatalogHandle").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Opens a catalog: connects to it and, for JDBC catalogs, creates its two tables where they are missing.
///
/// # Errors
/// [`Error::Config`] for settings that cannot work, [`Error::Unreachable`] where the catalog does not answer.
pub async fn open_catalog(config: CatalogConfig) -> Result<Arc<CatalogHandle>> {
    check_store_properties(&config.name, &config.properties)?;
    let (store, catalog): (Store, Arc<dyn Catalog>) = match &config.kind {
        CatalogKind::Rest { .. } => {
            let catalog = rest::RestCatalog::open(&config).await?;
            (catalog.store().clone(), Arc::new(catalog))
        }
        _ => {
            let store = Store::with_properties(&config.properties);
            if let Some(warehouse) = &config.warehouse {
                store.object(&warehouse_url(warehouse)?).map_err(|e| e.within(format!("catalog {}", config.name)))?;
            }
            (store.clone(), Arc::new(sql::SqlCatalog::open(&config, store).await?))
        }
    };
    Ok(Arc::new(CatalogHandle { name: config.name, store, catalog }))
}

impl CatalogHandle {
    /// The catalog's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The files of the catalog's tables, where it lends no credentials for single tables.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Every table of the catalog: its namespace levels and its name.
    ///
    /// # Errors
    /// [`Error::Unreachable`] where the catalog does not answer.
    pub async fn list_tables(&self) -> Result<Vec<(Vec<String>, String)>> {
        let tables = self.catalog.list().await.map_err(|e| e.within(format!("catalog {}", self.name)))?;
        Ok(tables.into_iter().map(|t| (t.namespace, t.table)).collect())
    }
}

/// `warehouse` as table metadata is to spell it: local folders become `file:///…`.
pub(super) fn warehouse_url(warehouse: &str) -> Result<String> {
    let trimmed = warehouse.trim_end_matches('/');
    if let Some(path) = trimmed.strip_prefix("file:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        return Ok(format!("file:///{}", path.trim_start_matches('/')));
    }
    if trimmed.contains("://") {
        return Ok(trimmed.to_owned());
    }
    let path = std::path::absolute(if trimmed.is_empty() { "/" } else { trimmed })
        .map_err(|e| Error::Config(format!("warehouse {warehouse}: {e}")))?;
    Ok(format!("file:///{}", path.to_string_lossy().trim_start_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warehouses_are_spelled_as_every_engine_reads_them() {
        for (given, wanted) in [
            ("/data/wh/", "file:///data/wh"),
            ("file:/data/wh", "file:///data/wh"),
            ("file:///data/wh", "file:///data/wh"),
            ("s3://bucket/wh/", "s3://bucket/wh"),
        ] {
            assert_eq!(warehouse_url(given).unwrap(), wanted);
        }
    }

    #[test]
    fn a_config_never_prints_its_secrets() {
        let config = CatalogConfig {
            name: "lake".into(),
            kind: CatalogKind::Postgres { url: "postgres://u:hunter2@h/d".into() },
            warehouse: None,
            properties: BTreeMap::from([("credential".into(), "id:hunter2".into())]),
        };
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}

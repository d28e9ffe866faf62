//! Catalogs and tables of either format, where a name decides which one it is.

use std::sync::Arc;

use super::LakeTable;
use super::delta::{DeltaCatalog, DeltaTable};
use super::iceberg::{CatalogHandle, IcebergTable, TableSpec};
use crate::core::schema::TableFormat;
use crate::error::Result;

/// A catalog of tables.
#[derive(Debug, Clone)]
pub enum Catalog {
    /// Of Iceberg tables.
    Iceberg(Arc<CatalogHandle>),
    /// Of Delta tables.
    Delta(Arc<DeltaCatalog>),
}

/// A table that was found in a catalog.
#[derive(Debug, Clone)]
pub enum OpenTable {
    /// An Iceberg table.
    Iceberg(Arc<IcebergTable>),
    /// A Delta table.
    Delta(Arc<DeltaTable>),
}

impl From<Arc<CatalogHandle>> for Catalog {
    fn from(catalog: Arc<CatalogHandle>) -> Self {
        Catalog::Iceberg(catalog)
    }
}

impl From<Arc<DeltaCatalog>> for Catalog {
    fn from(catalog: Arc<DeltaCatalog>) -> Self {
        Catalog::Delta(catalog)
    }
}

impl Catalog {
    /// The catalog's name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Catalog::Iceberg(catalog) => catalog.name(),
            Catalog::Delta(catalog) => catalog.name(),
        }
    }

    /// All tables, by namespace and name.
    ///
    /// # Errors
    /// [`crate::Error::Unreachable`] where the catalog does not answer.
    pub async fn list_tables(&self) -> Result<Vec<(Vec<String>, String)>> {
        match self {
            Catalog::Iceberg(catalog) => catalog.list_tables().await,
            Catalog::Delta(catalog) => catalog.list_tables().await,
        }
    }

    /// Opens a table as the catalog has it now, or `None` where it does not exist.
    ///
    /// # Errors
    /// [`crate::Error::Unreachable`] where it cannot be read, [`crate::Error::Decision`] for a table that Firn cannot work on.
    pub async fn load_table(&self, namespace: &[String], name: &str) -> Result<Option<OpenTable>> {
        Ok(match self {
            Catalog::Iceberg(catalog) => {
                catalog.load_table(namespace, name).await?.map(|table| OpenTable::Iceberg(Arc::new(table)))
            }
            Catalog::Delta(catalog) => {
                catalog.load_table(namespace, name).await?.map(|table| OpenTable::Delta(Arc::new(table)))
            }
        })
    }

    /// Creates a table; one that somebody else created meanwhile is opened as it is.
    ///
    /// # Errors
    /// [`crate::Error::Config`] for a spec that makes no table, else as [`Catalog::load_table`].
    pub async fn create_table(&self, namespace: &[String], name: &str, spec: TableSpec) -> Result<OpenTable> {
        Ok(match self {
            Catalog::Iceberg(catalog) => {
                OpenTable::Iceberg(Arc::new(catalog.create_table(namespace, name, spec).await?))
            }
            Catalog::Delta(catalog) => OpenTable::Delta(Arc::new(catalog.create_table(namespace, name, spec).await?)),
        })
    }
}

impl OpenTable {
    /// The table as a writer sees it.
    #[must_use]
    pub fn lake(&self) -> Arc<dyn LakeTable> {
        match self {
            OpenTable::Iceberg(table) => table.clone(),
            OpenTable::Delta(table) => table.clone(),
        }
    }

    /// What the table is kept in.
    #[must_use]
    pub fn format(&self) -> TableFormat {
        match self {
            OpenTable::Iceberg(table) if table.format_version() >= 3 => TableFormat::IcebergV3,
            OpenTable::Iceberg(_) => TableFormat::IcebergV2,
            OpenTable::Delta(_) => TableFormat::Delta,
        }
    }
}

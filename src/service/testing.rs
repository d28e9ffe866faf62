//! What tests of several parts of the service begin with.

use std::collections::BTreeMap;

use crate::core::schema::{Field, TableSchema, Type};
use crate::table::iceberg::{CatalogConfig, CatalogKind, IcebergTable, TableSpec, open_catalog};

/// An empty table `lake.a.t` of format version 3 in `folder`, with the key `id`.
pub(super) async fn table(folder: &tempfile::TempDir) -> IcebergTable {
    let config = CatalogConfig {
        name: "lake".into(),
        kind: CatalogKind::Sqlite { path: folder.path().join("catalog.db") },
        warehouse: Some(folder.path().join("warehouse").to_string_lossy().into_owned()),
        properties: BTreeMap::new(),
    };
    let id = Field { id: 1, ..Field::new("id", Type::Long, true) };
    let spec = TableSpec {
        schema: TableSchema { fields: vec![id], key: vec!["id".into()] },
        format_version: 3,
        partition_by: Vec::new(),
        sort_by: Vec::new(),
        pipeline: "p".into(),
    };
    open_catalog(config).await.unwrap().create_table(&["a".into()], "t", spec).await.unwrap()
}

//! Iceberg's JDBC catalog layout in SQLite or PostgreSQL: the same two tables that Trino, Spark and pyiceberg open.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use iceberg::compression::CompressionCodec;
use iceberg::spec::{FormatVersion, TableMetadata, TableMetadataBuilder};
use iceberg::{MetadataLocation, TableRequirement, TableUpdate};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions};
use sqlx::{Column, Row};

use super::{Answer, Catalog, CatalogConfig, CatalogKind, Creation, Document, Loaded, TableName, warehouse_url};
use crate::error::{Error, Result};
use crate::files::{Store, from_iceberg};

/// As `JdbcUtil` of Iceberg's Java library creates them, schema version V1.
const CREATE_TABLES: [&str; 2] = [
    "CREATE TABLE IF NOT EXISTS iceberg_tables (catalog_name VARCHAR(255) NOT NULL, table_namespace VARCHAR(255) NOT NULL, \
     table_name VARCHAR(255) NOT NULL, metadata_location VARCHAR(1000), previous_metadata_location VARCHAR(1000), \
     iceberg_type VARCHAR(5), PRIMARY KEY (catalog_name, table_namespace, table_name))",
    "CREATE TABLE IF NOT EXISTS iceberg_namespace_properties (catalog_name VARCHAR(255) NOT NULL, namespace VARCHAR(255) NOT NULL, \
     property_key VARCHAR(255), property_value VARCHAR(1000), PRIMARY KEY (catalog_name, namespace, property_key))",
];

const CONNECTIONS_MAX: u32 = 4;
/// How long a statement waits for another writer of the same SQLite file, and for a free connection.
const BUSY: Duration = Duration::from_secs(10);

#[derive(Debug)]
enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// A JDBC-layout catalog.
#[derive(Debug)]
pub(super) struct SqlCatalog {
    name: String,
    warehouse: Option<String>,
    pool: Pool,
    store: Store,
    /// Whether the tables have the `iceberg_type` column of layout V1.
    typed: bool,
}

impl SqlCatalog {
    pub(super) async fn open(config: &CatalogConfig, store: Store) -> Result<Self> {
        let pool = connect(config).await?;
        let warehouse = config.warehouse.as_deref().map(warehouse_url).transpose()?;
        let mut catalog = SqlCatalog { name: config.name.clone(), warehouse, pool, store, typed: true };
        for statement in CREATE_TABLES {
            // Two processes that create the tables at once can both fail in PostgreSQL; then they exist.
            if catalog.run(statement, &[]).await.is_err() {
                catalog.run(statement, &[]).await.map_err(|e| catalog.unreachable("create its tables", &e))?;
            }
        }
        catalog.typed = catalog.rows("SELECT iceberg_type FROM iceberg_tables WHERE 1 = 0", &[]).await.is_ok();
        Ok(catalog)
    }

    fn unreachable(&self, what: &str, error: &sqlx::Error) -> Error {
        Error::Unreachable(format!("catalog {}: cannot {what}: {}", self.name, text(error)))
    }

    /// Only tables: layout V1 keeps views in the same place.
    fn only_tables(&self) -> &'static str {
        if self.typed { " AND (iceberg_type = 'TABLE' OR iceberg_type IS NULL)" } else { "" }
    }

    /// Runs a statement and returns how many rows it changed.
    async fn run(&self, sql: &str, values: &[&str]) -> sqlx::Result<u64> {
        match &self.pool {
            Pool::Sqlite(pool) => {
                let query = values.iter().fold(sqlx::query(sql), |q, v| q.bind((*v).to_owned()));
                Ok(query.execute(pool).await?.rows_affected())
            }
            Pool::Postgres(pool) => {
                let query = values.iter().fold(sqlx::query(sql), |q, v| q.bind((*v).to_owned()));
                Ok(query.execute(pool).await?.rows_affected())
            }
        }
    }

    /// Runs a query whose columns are all text.
    async fn rows(&self, sql: &str, values: &[&str]) -> sqlx::Result<Vec<Vec<String>>> {
        fn read<R: Row>(rows: &[R]) -> sqlx::Result<Vec<Vec<String>>>
        where
            usize: sqlx::ColumnIndex<R>,
            for<'r> Option<String>: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
        {
            rows.iter()
                .map(|row| {
                    row.columns()
                        .iter()
                        .map(|c| row.try_get::<Option<String>, _>(c.ordinal()).map(Option::unwrap_or_default))
                        .collect()
                })
                .collect()
        }
        match &self.pool {
            Pool::Sqlite(pool) => {
                let query = values.iter().fold(sqlx::query(sql), |q, v| q.bind((*v).to_owned()));
                read(&query.fetch_all(pool).await?)
            }
            Pool::Postgres(pool) => {
                let query = values.iter().fold(sqlx::query(sql), |q, v| q.bind((*v).to_owned()));
                read(&query.fetch_all(pool).await?)
            }
        }
    }

    async fn read_metadata(&self, location: String) -> Result<Loaded> {
        let io = self.store.file_io();
        let bad = |e: &dyn std::fmt::Display| Error::Decision(format!("{location} is not table metadata: {e}"));
        let text = self.store.get(&location).await?;
        if text.starts_with(&[0x1f, 0x8b]) {
            let metadata = TableMetadata::read_from(&io, &location).await.map_err(|e| from_iceberg(&location, &e))?;
            return Ok(Loaded { metadata: Arc::new(metadata), location, document: None });
        }
        let metadata: TableMetadata = serde_json::from_slice(&text).map_err(|e| bad(&e))?;
        let document = Document::parse(&text).map_err(|e| bad(&e))?;
        Ok(Loaded { metadata: Arc::new(metadata), location, document: Some(Arc::new(document)) })
    }

    /// Writes the metadata file that follows `base`.
    async fn write_metadata(&self, base: &Loaded, updates: &[TableUpdate]) -> Result<Loaded> {
        let failed = |e: iceberg::Error| from_iceberg("the new table metadata is not valid", &e);
        let mut builder = TableMetadata::clone(&base.metadata).into_builder(Some(base.location.clone()));
        for update in updates {
            builder = update.clone().apply(builder).map_err(failed)?;
        }
        let metadata = builder.build().map_err(failed)?.metadata;
        let location = next_location(&base.location, &metadata)?;
        let document = base.document.as_ref().and_then(|d| d.apply(updates, &metadata));
        self.write(metadata, location, document).await
    }

    async fn write(
        &self,
        metadata: TableMetadata,
        location: MetadataLocation,
        document: Option<Document>,
    ) -> Result<Loaded> {
        let path = location.to_string();
        if !matches!(location.compression_codec(), CompressionCodec::None) {
            let written = metadata.write_to(&self.store.file_io(), &location).await;
            written.map_err(|e| from_iceberg("cannot write table metadata", &e))?;
            return Ok(Loaded { metadata: Arc::new(metadata), location: path, document: None });
        }
        let internal = |e: serde_json::Error| Error::Internal(format!("table metadata cannot be written as JSON: {e}"));
        let document = match document {
            Some(document) => document,
            None => Document::parse(&serde_json::to_vec(&metadata).map_err(internal)?).map_err(internal)?,
        };
        self.store.put(&path, document.render(&metadata).map_err(internal)?).await?;
        Ok(Loaded { metadata: Arc::new(metadata), location: path, document: Some(Arc::new(document)) })
    }

    async fn create_namespace(&self, namespace: &str) -> Result<()> {
        let sql = "SELECT property_key FROM iceberg_namespace_properties WHERE catalog_name = $1 AND namespace = $2";
        let failed = |e: sqlx::Error| self.unreachable(&format!("create namespace {namespace}"), &e);
        if !self.rows(sql, &[&self.name, namespace]).await.map_err(failed)?.is_empty() {
            return Ok(());
        }
        let sql = "INSERT INTO iceberg_namespace_properties (catalog_name, namespace, property_key, property_value) \
                   VALUES ($1, $2, 'exists', 'true') ON CONFLICT DO NOTHING";
        self.run(sql, &[&self.name, namespace]).await.map_err(failed)?;
        Ok(())
    }
}

#[async_trait]
impl Catalog for SqlCatalog {
    async fn load(&self, table: &TableName, known: Option<&Loaded>) -> Result<Option<Loaded>> {
        let sql = format!(
            "SELECT metadata_location FROM iceberg_tables WHERE catalog_name = $1 AND table_namespace = $2 AND table_name = $3{}",
            self.only_tables()
        );
        let values = [self.name.as_str(), &table.namespace.join("."), &table.table];
        let rows =
            self.rows(&sql, &values).await.map_err(|e| self.unreachable(&format!("look up table {table}"), &e))?;
        let Some(location) = rows.into_iter().flatten().next() else { return Ok(None) };
        match known {
            Some(known) if known.location == location => Ok(Some(known.clone())),
            _ => self.read_metadata(location).await.map(Some),
        }
    }

    async fn create(&self, table: &TableName, creation: Creation) -> Result<Loaded> {
        let namespace = table.namespace.join(".");
        self.create_namespace(&namespace).await?;
        let metadata = new_metadata(creation)?;
        let location = MetadataLocation::new_with_metadata(metadata.location(), &metadata);
        let loaded = self.write(metadata, location, None).await?;
        let (column, value) = if self.typed { (", iceberg_type", ", 'TABLE'") } else { ("", "") };
        let sql = format!(
            "INSERT INTO iceberg_tables (catalog_name, table_namespace, table_name, metadata_location{column}) \
             VALUES ($1, $2, $3, $4{value}) ON CONFLICT DO NOTHING"
        );
        let inserted = self.run(&sql, &[&self.name, &namespace, &table.table, &loaded.location]).await;
        if matches!(inserted, Ok(1)) {
            return Ok(loaded);
        }
        // Somebody else was first, or the answer was lost: the catalog says what there is.
        match (self.load(table, None).await?, inserted) {
            (Some(existing), _) => Ok(existing),
            (None, Err(e)) => Err(self.unreachable(&format!("create table {table}"), &e)),
            (None, Ok(_)) => {
                Err(Error::Decision(format!("{table} exists in catalog {} but is not a table", self.name)))
            }
        }
    }

    async fn commit(
        &self,
        table: &TableName,
        base: &Loaded,
        updates: Vec<TableUpdate>,
        requirements: Vec<TableRequirement>,
    ) -> Answer {
        for requirement in &requirements {
            if let Err(e) = requirement.check(Some(&base.metadata)) {
                return Answer::Refused(e.to_string());
            }
        }
        let next = match self.write_metadata(base, &updates).await {
            Ok(next) => next,
            Err(e) => return Answer::NotSent(e),
        };
        let sql = format!(
            "UPDATE iceberg_tables SET metadata_location = $1, previous_metadata_location = $2 \
             WHERE catalog_name = $3 AND table_namespace = $4 AND table_name = $5 AND metadata_location = $2{}",
            self.only_tables()
        );
        let namespace = table.namespace.join(".");
        match self.run(&sql, &[&next.location, &base.location, &self.name, &namespace, &table.table]).await {
            Ok(0) => Answer::Refused(format!("the metadata of {table} is not {} any more", base.location)),
            Ok(_) => Answer::Committed(next),
            Err(e) if surely_not_applied(&e) => Answer::NotSent(self.unreachable(&format!("commit to {table}"), &e)),
            Err(e) => Answer::Unknown(format!("catalog {}: commit to {table}: {}", self.name, text(&e))),
        }
    }

    async fn list(&self) -> Result<Vec<TableName>> {
        let sql = format!(
            "SELECT table_namespace, table_name FROM iceberg_tables WHERE catalog_name = $1{} \
             ORDER BY table_namespace, table_name",
            self.only_tables()
        );
        let rows = self.rows(&sql, &[&self.name]).await.map_err(|e| self.unreachable("list its tables", &e))?;
        let name = |row: Vec<String>| {
            let mut row = row.into_iter();
            let namespace = row.next()?.split('.').map(str::to_owned).collect();
            Some(TableName { namespace, table: row.next()? })
        };
        Ok(rows.into_iter().filter_map(name).collect())
    }

    fn location_of(&self, table: &TableName) -> Option<String> {
        let warehouse = self.warehouse.as_ref()?;
        Some(format!("{warehouse}/{}/{}", table.namespace.join("/"), table.table))
    }
}

async fn connect(config: &CatalogConfig) -> Result<Pool> {
    let failed = |e: sqlx::Error| Error::Unreachable(format!("catalog {}: cannot connect: {}", config.name, text(&e)));
    match &config.kind {
        CatalogKind::Postgres { url } => {
            let options = PgConnectOptions::from_str(url)
                .map_err(|_| Error::Config(format!("catalog {}: uri is not a PostgreSQL address", config.name)))?;
            let pool = PgPoolOptions::new().max_connections(CONNECTIONS_MAX).acquire_timeout(BUSY);
            Ok(Pool::Postgres(pool.connect_with(options).await.map_err(failed)?))
        }
        CatalogKind::Sqlite { path } => {
            if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
                std::fs::create_dir_all(folder).map_err(|e| {
                    Error::Unreachable(format!("catalog {}: cannot create {}: {e}", config.name, folder.display()))
                })?;
            }
            let options = SqliteConnectOptions::new()
                .filename(path)
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal)
                .busy_timeout(BUSY);
            let pool = SqlitePoolOptions::new().max_connections(CONNECTIONS_MAX).acquire_timeout(BUSY);
            Ok(Pool::Sqlite(pool.connect_with(options).await.map_err(failed)?))
        }
        CatalogKind::Rest { .. } => Err(Error::Internal("a REST catalog is not a database".into())),
    }
}

/// What the database said, never the address that was used (it may hold a password).
fn text(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(e) => e.message().to_owned(),
        sqlx::Error::Configuration(_) => "its address is not valid".to_owned(),
        other => other.to_string(),
    }
}

/// The database itself said that the statement failed. When a connection or the server ended meanwhile, nobody knows.
fn surely_not_applied(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::PoolTimedOut => true,
        // PostgreSQL's classes 08 (connection), 57 (operator intervention) and 40003 (completion unknown).
        sqlx::Error::Database(e) => {
            !e.code().is_some_and(|c| c.len() == 5 && (c.starts_with("08") || c.starts_with("57") || c == "40003"))
        }
        _ => false,
    }
}

fn new_metadata(creation: Creation) -> Result<TableMetadata> {
    let failed = |e: iceberg::Error| Error::Config(format!("the table cannot be created: {}", e.message()));
    let version = match creation.format_version {
        2 => FormatVersion::V2,
        3 => FormatVersion::V3,
        other => return Err(Error::Config(format!("format version {other} is not supported: use 2 or 3"))),
    };
    let location = creation
        .location
        .ok_or_else(|| Error::Config("the catalog needs a warehouse, to know where new tables go".into()))?;
    let properties = creation.properties.into_iter().collect();
    let builder =
        TableMetadataBuilder::new(creation.schema, creation.spec, creation.sort_order, location, version, properties);
    Ok(builder.and_then(TableMetadataBuilder::build).map_err(failed)?.metadata)
}

/// The name of the metadata file after `current`. Names that other writers chose in another form start a new count.
fn next_location(current: &str, metadata: &TableMetadata) -> Result<MetadataLocation> {
    let base = MetadataLocation::from_str(current)
        .unwrap_or_else(|_| MetadataLocation::new_with_metadata(metadata.location(), metadata));
    Ok(base.with_next_version().with_new_metadata(metadata))
}

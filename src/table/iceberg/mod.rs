//! Iceberg tables, format versions 2 and 3: Firn's own commits over the `iceberg` crate's specification types.
//!
//! Data files and deletes are written first, then manifests, then the catalog is asked once. Whatever its answer, the
//! table is the authority on what it holds.

mod catalog;
mod create;
mod deletes;
mod diff;
mod history;
mod live;
mod manifests;
mod promoted;
mod scan;
mod schema;
mod snapshot;
mod summary;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef as ArrowSchemaRef;
use async_trait::async_trait;
use futures::stream::BoxStream;
use iceberg::spec::{FormatVersion, TableMetadata};
use uuid::Uuid;

pub use self::catalog::{CatalogConfig, CatalogHandle, CatalogKind, open_catalog};
pub use self::create::{SortColumn, TableSpec, check_spec};
pub use self::history::{ATTEMPT, OFFSETS, PIPELINE, REASON, SCHEMAS, VERSION};
pub use self::scan::{ScanDeletes, ScanFile, ScanPlan};
use self::schema::current_schema;
pub use self::schema::{from_iceberg_schema, from_iceberg_type, to_iceberg_schema, to_iceberg_type};

use self::catalog::{Answer, Loaded, TableName};
use self::deletes::DeleteCache;
use self::live::Live;
use self::manifests::ManifestCache;
use crate::core::history::{SnapshotId, View};
use crate::core::schema::{SchemaChange, TableSchema, to_arrow};
use crate::error::{Error, Result};
use crate::files::{Store, WriteTarget, WrittenFile, conform, read_rows, write_data_files};
use crate::table::{Change, Diff, FileRows, LakeTable, LiveFile, NewRows, Outcome};

/// Data files are closed at about this size where the table does not say otherwise.
const TARGET_FILE_BYTES: u64 = 512 << 20;

/// An Iceberg table.
pub struct IcebergTable {
    /// `catalog.namespace.table`.
    name: String,
    catalog: Arc<CatalogHandle>,
    table: TableName,
    uuid: Uuid,
    store: Store,
    state: RwLock<Arc<State>>,
    manifests: ManifestCache,
    deletes: DeleteCache,
    /// Follows the state when it is needed. Taken out while a task works on it, so that an error leaves it empty rather
    /// than half changed.
    live: tokio::sync::Mutex<Live>,
    committing: tokio::sync::Mutex<()>,
}

/// The table as of the last load or commit.
struct State {
    loaded: Loaded,
    schema: Arc<TableSchema>,
}

impl std::fmt::Debug for IcebergTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IcebergTable").field("name", &self.name).finish_non_exhaustive()
    }
}

impl IcebergTable {
    fn new(catalog: Arc<CatalogHandle>, table: TableName, loaded: Loaded) -> Result<Self> {
        let name = format!("{}.{table}", catalog.name);
        check(&name, &loaded.metadata)?;
        let schema = current_schema(&loaded.metadata).map_err(|e| e.within(&name))?;
        Ok(IcebergTable {
            name,
            store: catalog.catalog.clone().store_of(&table).unwrap_or_else(|| catalog.store.clone()),
            catalog,
            table,
            uuid: loaded.metadata.uuid(),
            state: RwLock::new(Arc::new(State { loaded, schema: Arc::new(schema) })),
            manifests: ManifestCache::default(),
            deletes: DeleteCache::default(),
            live: tokio::sync::Mutex::default(),
            committing: tokio::sync::Mutex::default(),
        })
    }

    fn state(&self) -> Arc<State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_state(&self, loaded: Loaded, schema: Arc<TableSchema>) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(State { loaded, schema });
    }

    /// The metadata as of the last load or commit.
    #[must_use]
    pub fn metadata(&self) -> Arc<TableMetadata> {
        self.state().loaded.metadata.clone()
    }

    /// Where the metadata file is.
    #[must_use]
    pub fn metadata_location(&self) -> String {
        self.state().loaded.location.clone()
    }

    /// The files of the table.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The table's columns as Arrow has them, field ids included: what new rows come in.
    #[must_use]
    pub fn arrow_schema(&self) -> ArrowSchemaRef {
        Arc::new(to_arrow(&self.state().schema))
    }

    /// The live files of `state`'s current snapshot, read as far as they changed since the last call.
    async fn follow(&self, live: &mut Live, state: &State) -> Result<()> {
        let metadata = &state.loaded.metadata;
        let current = metadata.current_snapshot();
        let id = current.map(|s| s.snapshot_id());
        if live.snapshot == id {
            return Ok(());
        }
        let list = match current {
            Some(snapshot) => manifests::list(&self.store, metadata, snapshot).await?,
            None => Vec::new(),
        };
        *live = std::mem::take(live).follow(&self.store, &self.manifests, id, list).await?;
        Ok(())
    }

    fn in_context(&self, error: Error) -> Error {
        error.within(format!("table {}", self.name))
    }

    async fn try_commit(&self, change: &Change) -> Result<Outcome> {
        let _one_at_a_time = self.committing.lock().await;
        let state = self.state();
        let metadata = &state.loaded.metadata;
        if change.base != metadata.current_snapshot_id() {
            let current = metadata.current_snapshot_id();
            return Ok(Outcome::Refused(format!("planned on snapshot {:?}, but {current:?} is current", change.base)));
        }
        let mut live = self.live.lock().await;
        self.follow(&mut live, &state).await?;
        let vectors = metadata.format_version() >= FormatVersion::V3;
        let plan = deletes::plan(&self.store, &self.deletes, &live, &change.superseded, vectors).await?;
        let grown = match &change.schema_change {
            Some(columns) if columns.from != state.schema => {
                return Ok(Outcome::Refused("its columns are not those that the change of them was planned on".into()));
            }
            Some(columns) => Some(schema::grow(metadata, columns)?),
            None => None,
        };
        let base = snapshot::Base {
            store: &self.store,
            before: metadata,
            metadata: grown.as_ref().unwrap_or(metadata),
            live: &live,
            cache: &self.manifests,
        };
        let produced = snapshot::produce(&base, change, plan).await?;

        let (updates, requirements) = (produced.updates, produced.requirements);
        let answer = self.catalog.catalog.commit(&self.table, &state.loaded, updates, requirements).await;
        let loaded = match answer {
            Answer::Committed(loaded) => loaded,
            Answer::Refused(why) => return Ok(Outcome::Refused(why)),
            Answer::Unknown(why) => return Ok(Outcome::Unknown(why)),
            Answer::NotSent(e) => return Err(e),
        };
        for (manifest, entries) in &produced.entries {
            self.manifests.put(manifest, entries);
        }
        for (id, positions) in produced.deletes {
            self.deletes.put(id, &positions);
        }
        if loaded.metadata.current_snapshot_id() == Some(produced.snapshot) {
            let followed = std::mem::take(&mut *live)
                .follow(&self.store, &self.manifests, Some(produced.snapshot), produced.manifests)
                .await;
            // Committed is committed: where following fails, the next use reads everything anew.
            *live = followed.unwrap_or_default();
        }
        let schema = match &change.schema_change {
            Some(_) => current_schema(&loaded.metadata).map(Arc::new),
            None => Ok(state.schema.clone()),
        };
        let viewed = schema.and_then(|schema| {
            let view = history::view_after_commit(&loaded.metadata, &schema, change.base)?;
            Ok((schema, view))
        });
        match viewed {
            Ok((schema, view)) => {
                self.set_state(loaded, schema);
                Ok(Outcome::Committed(Box::new(view)))
            }
            Err(e) => Ok(Outcome::Unknown(format!("committed, but the table cannot be read back: {e}"))),
        }
    }
}

/// Refuses tables that Firn cannot work on.
fn check(name: &str, metadata: &TableMetadata) -> Result<()> {
    if metadata.format_version() == FormatVersion::V1 {
        return Err(Error::Decision(format!(
            "table {name} has Iceberg format version 1, which has no row-level deletes: \
             upgrade it (set the table property format-version to 2 or 3), then start again"
        )));
    }
    Ok(())
}

#[async_trait]
impl LakeTable for IcebergTable {
    fn name(&self) -> &str {
        &self.name
    }

    fn schema(&self) -> Arc<TableSchema> {
        self.state().schema.clone()
    }

    fn schemas(&self) -> Option<String> {
        self.state().loaded.metadata.properties().get(SCHEMAS).cloned()
    }

    async fn load(&self, since: Option<SnapshotId>) -> Result<View> {
        let known = self.state().loaded.clone();
        let loaded = self.catalog.catalog.load(&self.table, Some(&known)).await.map_err(|e| self.in_context(e))?;
        let loaded = loaded.ok_or_else(|| {
            Error::Decision(format!("table {} is not in its catalog any more: restore it, or start again", self.name))
        })?;
        check(&self.name, &loaded.metadata)?;
        if loaded.metadata.uuid() != self.uuid {
            return Err(Error::Decision(format!(
                "table {} was dropped and created again (its uuid was {}, now it is {}): start again to write to the new one",
                self.name,
                self.uuid,
                loaded.metadata.uuid()
            )));
        }
        let schema = Arc::new(current_schema(&loaded.metadata).map_err(|e| self.in_context(e))?);
        let view = history::view(&self.store, &loaded, &schema, since).await.map_err(|e| self.in_context(e))?;
        let state = State { loaded: loaded.clone(), schema };
        // Reads new delete manifests, so that equality deletes are refused before anything is planned.
        let mut live = self.live.lock().await;
        self.follow(&mut live, &state).await.map_err(|e| self.in_context(e))?;
        self.set_state(loaded, state.schema);
        Ok(view)
    }

    async fn diff(&self, since: Option<SnapshotId>) -> Result<Diff> {
        let state = self.state();
        let mut live = self.live.lock().await;
        self.follow(&mut live, &state).await.map_err(|e| self.in_context(e))?;
        if since.is_some() && since == live.snapshot {
            return Ok(Diff::default());
        }
        let metadata = &state.loaded.metadata;
        let Some(before) = since.and_then(|id| metadata.snapshot_by_id(id)) else { return Ok(diff::whole(&live)) };
        // The older list may be expired while the snapshot is still named.
        let Ok(before) = manifests::list(&self.store, metadata, before).await else { return Ok(diff::whole(&live)) };
        let diff = diff::compare(&self.store, &self.manifests, &self.deletes, &before, &live).await;
        diff.map_err(|e| self.in_context(e))
    }

    async fn rows(&self, file: &LiveFile, columns: &[String]) -> Result<BoxStream<'static, Result<FileRows>>> {
        let state = self.state();
        let deletes = {
            let mut live = self.live.lock().await;
            self.follow(&mut live, &state).await.map_err(|e| self.in_context(e))?;
            let gone = || Error::Internal(format!("table {}: {} is not live", self.name, file.path));
            live.deletes_of(&file.path, live.data.get(&file.path).ok_or_else(gone)?)
        };
        let deleted = self.deletes.union(&self.store, &file.path, &deletes).await.map_err(|e| self.in_context(e))?;
        read_rows(&self.store, &file.path, &state.schema, columns, deleted).await.map_err(|e| self.in_context(e))
    }

    fn check_change(&self, change: &SchemaChange) -> Result<()> {
        schema::grow(&self.state().loaded.metadata, change).map(drop)
    }

    async fn write(&self, attempt: &str, rows: NewRows) -> Result<Vec<WrittenFile>> {
        let state = self.state();
        let (metadata, columns) = match rows.schema_change.as_deref() {
            None => (state.loaded.metadata.clone(), state.schema.clone()),
            Some(change) => {
                let grown = schema::grow(&state.loaded.metadata, change).map_err(|e| self.in_context(e))?;
                (Arc::new(grown), change.to.clone())
            }
        };
        let size = property(metadata.properties(), "write.target-file-size-bytes");
        let target = WriteTarget {
            store: self.store.clone(),
            folder: snapshot::data_folder(&metadata),
            schema: metadata.current_schema().clone(),
            spec: metadata.default_partition_spec().clone(),
            sort_order: metadata.default_sort_order().clone(),
            target_file_bytes: size.unwrap_or(TARGET_FILE_BYTES),
            leave_out: Vec::new(),
        };
        // Tables of one pipeline get the same rows, and each numbers its columns in its own way.
        let own = Arc::new(to_arrow(&columns));
        let spell = |batch: &RecordBatch| match batch.schema() == own {
            true => Ok(batch.clone()),
            false => conform(batch, &own).map_err(|e| self.in_context(e)),
        };
        let batches = rows.batches.iter().map(spell).collect::<Result<_>>()?;
        write_data_files(&target, attempt, batches).await.map_err(|e| self.in_context(e))
    }

    async fn commit(&self, change: Change) -> Outcome {
        match self.try_commit(&change).await {
            Ok(outcome) => outcome,
            Err(e) => Outcome::NotSent(self.in_context(e)),
        }
    }
}

fn property(properties: &HashMap<String, String>, name: &str) -> Option<u64> {
    properties.get(name).and_then(|v| v.parse().ok()).filter(|n| *n > 0)
}

#[cfg(test)]
mod tests;

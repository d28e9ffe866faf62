//! Delta Lake tables: the log read, followed and written by Firn itself.
//!
//! A commit creates the one version that follows the state it was planned on, or it is refused: whatever another writer
//! did meanwhile, the caller looks and plans again. The state of the log is followed in memory, so that a commit costs the
//! same whatever the table's age.

mod actions;
mod checkpoint;
mod cleanup;
mod commit;
mod create;
mod diff;
mod evolve;
mod history;
mod log;
mod partition;
mod protocol;
mod scan;
mod schema;
mod state;
mod stats;
mod vector;
mod z85;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use futures::stream::BoxStream;
use iceberg::spec::{NullOrder, PartitionSpec, SortDirection, SortField, SortOrder, Transform};
use tokio::sync::MutexGuard;

pub use self::create::{DeltaCatalog, DeltaConfig, check_spec};
pub use self::history::{KEY, STARTS};
pub use self::scan::{DeltaFile, DeltaScan};
pub use self::schema::{Columns, Mapping};

use self::actions::{Action, Line, MetaData, Protocol};
use self::commit::Created;
use self::log::Log;
use self::state::State;
use self::vector::VectorCache;
use crate::core::history::{SnapshotId, View};
use crate::core::schema::{SchemaChange, TableSchema, to_arrow};
use crate::error::{Error, Result};
use crate::files::{Store, WriteTarget, WrittenFile, conform, respell, write_data_files};
use crate::table::iceberg::{SCHEMAS, to_iceberg_schema};
use crate::table::{Change, Diff, FileRows, LakeTable, LiveFile, NewRows, Outcome};

/// Data files are closed at about this size where the table does not say otherwise.
const TARGET_FILE_BYTES: u64 = 512 << 20;
/// Table property: columns by which rows are sorted within files, separated by commas; `desc` and `nulls first` may follow.
const SORT_BY: &str = "firn.sort-by";

/// A Delta table.
pub struct DeltaTable {
    /// `catalog.namespace.table`.
    name: String,
    log: Log,
    uuid: String,
    head: RwLock<Arc<Head>>,
    /// Taken out while it is changed, so that an error or a given-up request leaves it empty rather than half changed; an
    /// empty one is read anew.
    state: tokio::sync::Mutex<State>,
    vectors: VectorCache,
    /// The operator accepts that the table forgets V after a while.
    forgetting: bool,
    /// It is opened to be written, not only to be read.
    writing: AtomicBool,
}

/// What rarely changes from version to version.
#[derive(Debug)]
struct Head {
    protocol: Arc<Protocol>,
    metadata: Arc<MetaData>,
    columns: Arc<Columns>,
    /// The columns as Firn knows them.
    logical: Arc<TableSchema>,
}

impl Head {
    fn of(state: &State) -> Result<Self> {
        let incomplete = || Error::Decision("its log says neither what protocol it follows nor what it holds".into());
        let (protocol, metadata) = state.protocol.clone().zip(state.metadata.clone()).ok_or_else(incomplete)?;
        protocol::check_read(&protocol)?;
        let columns = schema::columns(&metadata, &history::key(&metadata.configuration))?;
        Ok(Head { protocol, metadata, logical: Arc::new(columns.logical.clone()), columns: Arc::new(columns) })
    }
}

impl std::fmt::Debug for DeltaTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeltaTable").field("name", &self.name).finish_non_exhaustive()
    }
}

impl DeltaTable {
    fn new(name: String, log: Log, state: State, forgetting: bool) -> Result<Self> {
        let head = Head::of(&state).map_err(|e| e.within(format!("table {name}")))?;
        Ok(DeltaTable {
            name,
            log,
            uuid: head.metadata.id.clone(),
            head: RwLock::new(Arc::new(head)),
            state: tokio::sync::Mutex::new(state),
            vectors: VectorCache::default(),
            forgetting,
            writing: AtomicBool::new(false),
        })
    }

    fn head(&self) -> Arc<Head> {
        self.head.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn in_context(&self, error: Error) -> Error {
        error.within(format!("table {}", self.name))
    }

    /// The files of the table.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.log.store
    }

    /// Where the table is.
    #[must_use]
    pub fn location(&self) -> &str {
        &self.log.root
    }

    /// The newest version that is known.
    pub async fn version(&self) -> i64 {
        self.state.lock().await.version
    }

    /// Operation, time and everything else that each known version said about itself, oldest first: its number, its
    /// time in milliseconds, its operation, all of it in JSON.
    pub async fn versions(&self) -> Vec<(i64, i64, String, String)> {
        let state = self.state.lock().await;
        let one = |(version, note): (&i64, &history::CommitNote)| {
            (*version, note.timestamp_ms, note.operation.clone(), note.text.clone())
        };
        state.notes.iter().map(one).collect()
    }

    /// The state as of the last load, read anew where it was lost.
    async fn current(&self) -> Result<MutexGuard<'_, State>> {
        let mut state = self.state.lock().await;
        if state.version < 0 {
            *state = self.reload().await?;
        }
        Ok(state)
    }

    async fn reload(&self) -> Result<State> {
        let loaded = self.log.load(None).await.map_err(|e| self.in_context(e))?;
        loaded.ok_or_else(|| {
            Error::Decision(format!("table {} is not there any more: restore it, or start again", self.name))
        })
    }

    /// Brings the state to the newest version.
    async fn refresh(&self, state: &mut State) -> Result<()> {
        let mut next = std::mem::replace(state, State::empty());
        if next.version < 0 {
            next = self.reload().await?;
        } else {
            let before = next.metadata.clone();
            let advanced = self.log.advance(&mut next).await.map_err(|e| self.in_context(e))?;
            // Where the log was cleaned beyond what is known here, a missing version says nothing.
            if !advanced && !self.is_newest(next.version).await? {
                next = self.reload().await?;
            }
            if before == next.metadata && self.head().protocol == next.protocol.clone().unwrap_or_default() {
                *state = next;
                return Ok(());
            }
        }
        self.accept(&next)?;
        *state = next;
        Ok(())
    }

    /// Takes a new protocol or new properties in; refuses what Firn cannot work on.
    fn accept(&self, state: &State) -> Result<()> {
        let head = Head::of(state).map_err(|e| self.in_context(e))?;
        if head.metadata.id != self.uuid {
            return Err(Error::Decision(format!(
                "table {} was dropped and created again (its id was {}, now it is {}): start again to write to the new one",
                self.name, self.uuid, head.metadata.id
            )));
        }
        if self.writing.load(Ordering::Relaxed) {
            self.check_write(&head)?;
        }
        *self.head.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(head);
        Ok(())
    }

    /// Refuses a table that Firn can read but not write.
    ///
    /// # Errors
    /// [`Error::Decision`] with the feature or property that is in the way.
    pub fn check_writable(&self) -> Result<()> {
        self.check_write(&self.head())
    }

    fn check_write(&self, head: &Head) -> Result<()> {
        let checked = protocol::check_write(&head.protocol, &head.metadata, self.forgetting)
            .and_then(|()| schema::check_writable(&head.metadata));
        checked.map_err(|e| self.in_context(e))
    }

    /// Whether `version`, after which none was found, is the newest, or one that others have added to. The log is cleaned from
    /// its oldest version on: while a version is there, so are those after it.
    async fn is_newest(&self, version: i64) -> Result<bool> {
        if self.log.store.exists(&self.log.commit_location(version)).await.map_err(|e| self.in_context(e))? {
            return Ok(true);
        }
        let listing = self.log.list().await.map_err(|e| self.in_context(e))?;
        Ok(listing.commits.keys().chain(listing.checkpoints.keys()).max() == Some(&version))
    }

    async fn try_commit(&self, change: &Change) -> Result<Outcome> {
        let mut state = self.current().await?;
        let current = history::snapshot_of(&state);
        if change.base != current {
            return Ok(Outcome::Refused(format!("planned on version {:?}, but {current:?} is current", change.base)));
        }
        let head = self.head();
        self.check_write(&head)?;
        if !change.superseded.is_empty() && !protocol::vectors_enabled(&head.protocol, &head.metadata) {
            return Err(Error::Decision("deletion vectors were disabled: enable them, or start again".into()));
        }
        let mut records = BTreeMap::new();
        for (path, _) in &change.superseded {
            if let Some(entry) = state.files.get(path) {
                records.insert(path.clone(), self.records(entry).await?);
            }
        }
        let grown = match &change.schema_change {
            Some(columns) if columns.from != head.logical => {
                return Ok(Outcome::Refused("its columns are not those that the change of them was planned on".into()));
            }
            Some(columns) => Some(evolve::grow(&head, columns)?),
            None => None,
        };
        let after = commit::After {
            protocol: grown.as_ref().and_then(|grown| grown.protocol.as_ref()),
            metadata: grown.as_ref().map_or(&head.metadata, |grown| &grown.metadata),
            columns: grown.as_ref().map_or(&head.columns, |grown| &grown.columns),
        };
        let actions = commit::actions(&self.log, &state, &after, &self.vectors, change, &records).await?;
        let outcome = self.push(&mut state, actions, &change.attempt, change.base).await?;
        if let Outcome::Committed(_) = &outcome
            && let Err(error) = cleanup::after_commit(&self.log, &mut state, change.now_ms).await
        {
            tracing::warn!(table = self.name, %error, "a checkpoint of the log was not written; trying after the next commit");
        }
        Ok(outcome)
    }

    /// Creates the next version of these actions, and takes it in.
    async fn push(
        &self,
        state: &mut State,
        actions: Vec<Action>,
        attempt: &str,
        since: Option<SnapshotId>,
    ) -> Result<Outcome> {
        let version = state.version + 1;
        // Where the table was created again, a version behind those that are known here would be a hole in its log.
        if !self.is_newest(state.version).await? {
            let gone = format!("version {} is not in the log any more", state.version);
            *state = State::empty();
            return Ok(Outcome::Refused(gone));
        }
        match commit::create(&self.log, version, &actions, attempt).await? {
            Created::Ours => {}
            Created::Theirs(why) => return Ok(Outcome::Refused(why)),
            Created::Unclear(why) => return Ok(Outcome::Unknown(why)),
        }
        // A version after ones that were cleaned away is before the checkpoint, where nobody looks.
        match self.is_newest_or_next(version).await {
            Ok(true) => {}
            Ok(false) => {
                *state = State::empty();
                return Ok(Outcome::Unknown(format!("the log was cleaned while version {version} was written")));
            }
            Err(error) => return Ok(Outcome::Unknown(error.to_string())),
        }
        let mut next = std::mem::replace(state, State::empty());
        let changes_head = actions.iter().any(|a| matches!(a, Action::MetaData(_) | Action::Protocol(_)));
        let taken = next.apply(&self.log.root, version, actions.into_iter().map(Line::from).collect());
        let viewed = match taken.and_then(|()| if changes_head { self.accept(&next) } else { Ok(()) }) {
            Ok(()) => history::view(&self.log, &next, &self.head().logical, since).await,
            Err(error) => Err(error),
        };
        match viewed {
            Ok(view) => {
                *state = next;
                Ok(Outcome::Committed(Box::new(view)))
            }
            Err(e) => Ok(Outcome::Unknown(format!("committed, but the table cannot be read back: {e}"))),
        }
    }

    async fn is_newest_or_next(&self, version: i64) -> Result<bool> {
        if version == 0 || self.log.store.exists(&self.log.commit_location(version - 1)).await? {
            return Ok(true);
        }
        let listing = self.log.list().await?;
        let others = listing.commits.keys().chain(listing.checkpoints.keys()).filter(|v| **v != version);
        // Another writer may have added to ours already, but not to what was cleaned away.
        Ok(others.clone().max().is_none_or(|newest| *newest < version)
            || listing.checkpoints.contains_key(&(version - 1)))
    }

    fn write_target(&self, metadata: &MetaData, columns: &Columns) -> Result<WriteTarget> {
        let schema = Arc::new(to_iceberg_schema(&columns.physical, 0)?);
        let unfit =
            |e: iceberg::Error| Error::Decision(format!("it cannot be partitioned or sorted so: {}", e.message()));
        let mut spec = PartitionSpec::builder(schema.clone());
        for &place in &columns.partition {
            let name = &columns.physical.fields[place].name;
            spec = spec.add_partition_field(name, name, Transform::Identity).map_err(unfit)?;
        }
        let mut order = SortOrder::builder();
        let sorted = metadata.configuration.get(SORT_BY).map(String::as_str).unwrap_or_default();
        let words = |one: &str| one.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let sorted: Vec<_> = sorted
            .split(',')
            .map(words)
            .filter_map(|words| Some((columns.logical.column(words.first()?)?.id, words)))
            .collect();
        for (source_id, words) in &sorted {
            let says = |word: &str| words.iter().skip(1).any(|w| w == word);
            order.with_sort_field(SortField {
                source_id: *source_id,
                transform: Transform::Identity,
                direction: if says("desc") { SortDirection::Descending } else { SortDirection::Ascending },
                null_order: if says("first") { NullOrder::First } else { NullOrder::Last },
            });
        }
        let sort_order = match sorted.is_empty() {
            true => SortOrder::unsorted_order(),
            false => order.with_order_id(1).build(&schema).map_err(unfit)?,
        };
        let size = metadata.configuration.get("delta.targetFileSize").and_then(|s| s.parse().ok());
        Ok(WriteTarget {
            store: self.log.store.clone(),
            folder: self.log.root.clone(),
            spec: Arc::new(spec.build().map_err(unfit)?),
            sort_order: Arc::new(sort_order),
            target_file_bytes: size.filter(|n| *n > 0).unwrap_or(TARGET_FILE_BYTES),
            leave_out: columns.partition.iter().map(|p| columns.physical.fields[*p].id).collect(),
            schema,
        })
    }
}

#[async_trait]
impl LakeTable for DeltaTable {
    fn name(&self) -> &str {
        &self.name
    }

    fn schema(&self) -> Arc<TableSchema> {
        self.head().logical.clone()
    }

    fn schemas(&self) -> Option<String> {
        self.head().metadata.configuration.get(SCHEMAS).cloned()
    }

    async fn load(&self, since: Option<SnapshotId>) -> Result<View> {
        let mut state = self.state.lock().await;
        self.refresh(&mut state).await?;
        history::view(&self.log, &state, &self.head().logical, since).await.map_err(|e| self.in_context(e))
    }

    async fn diff(&self, since: Option<SnapshotId>) -> Result<Diff> {
        let state = self.current().await?;
        if since.is_some() && since == history::snapshot_of(&state) {
            return Ok(Diff::default());
        }
        let changed = match since {
            Some(since) => {
                diff::since(&self.log, &state, &self.vectors, since).await.map_err(|e| self.in_context(e))?
            }
            None => None,
        };
        let whole = changed.is_none();
        let changed = changed.unwrap_or_else(|| diff::Changed {
            added: state.files.values().cloned().collect(),
            ..diff::Changed::default()
        });
        drop(state);
        let mut added = Vec::with_capacity(changed.added.len());
        for entry in changed.added {
            added.push(LiveFile { path: entry.location.clone(), records: self.records(&entry).await? });
        }
        Ok(Diff { whole, removed: changed.removed, deletes: changed.deletes, added })
    }

    async fn rows(&self, file: &LiveFile, columns: &[String]) -> Result<BoxStream<'static, Result<FileRows>>> {
        let entry = self.current().await?.files.get(&file.path).cloned();
        let entry = entry.ok_or_else(|| Error::Internal(format!("table {}: {} is not live", self.name, file.path)))?;
        let file = DeltaFile { entry, records: file.records };
        self.read_file(&self.head().columns, &file, columns).await.map_err(|e| self.in_context(e))
    }

    fn check_change(&self, change: &SchemaChange) -> Result<()> {
        evolve::grow(&self.head(), change).map(drop)
    }

    async fn write(&self, attempt: &str, rows: NewRows) -> Result<Vec<WrittenFile>> {
        let head = self.head();
        self.check_write(&head)?;
        let grown = rows.schema_change.as_deref().map(|change| evolve::grow(&head, change)).transpose();
        let grown = grown.map_err(|e| self.in_context(e))?;
        let (metadata, columns) = match &grown {
            Some(grown) => (&grown.metadata, &grown.columns),
            None => (&*head.metadata, &*head.columns),
        };
        let target = self.write_target(metadata, columns).map_err(|e| self.in_context(e))?;
        let schema = Arc::new(to_arrow(&columns.stored));
        let physical = Arc::new(to_arrow(&columns.physical));
        let spell = |batch: &RecordBatch| {
            let stored = conform(batch, &schema)?;
            respell(stored.columns().to_vec(), stored.num_rows(), &physical)
        };
        let batches = rows.batches.iter().map(spell).collect::<Result<_>>().map_err(|e| self.in_context(e))?;
        write_data_files(&target, attempt, batches).await.map_err(|e| self.in_context(e))
    }

    async fn commit(&self, change: Change) -> Outcome {
        match self.try_commit(&change).await {
            Ok(outcome) => outcome,
            Err(e) => Outcome::NotSent(e),
        }
    }
}

#[cfg(test)]
mod tests;

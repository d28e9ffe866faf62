//! The executable specification of a table: snapshots of files and deleted positions, and nothing else.
//!
//! The simulation runs the writer against it, and the contract suite holds every real format to what it does. Its
//! operations are synchronous and pure; rows can be anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::{Diff, LiveFile};
use crate::core::history::{Ancestor, Anchor, History, SnapshotId, View, WalkEnd};
use crate::core::mutant::Mutants;
use crate::core::offsets::Vector;
use crate::core::plan::merge_deletes;
use crate::core::schema::{Pins, SchemaChange, TableSchema};

/// A data file of a snapshot.
#[derive(Debug)]
pub struct ModelFile<T> {
    /// Every row that was written, by position.
    pub rows: Arc<Vec<T>>,
    /// Which of them are gone.
    pub deleted: RoaringBitmap,
}

impl<T> Clone for ModelFile<T> {
    fn clone(&self) -> Self {
        ModelFile { rows: self.rows.clone(), deleted: self.deleted.clone() }
    }
}

impl<T> ModelFile<T> {
    /// The rows that are not gone, with their positions.
    pub fn live(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(self.rows.iter()).filter(|(position, _)| !self.deleted.contains(*position))
    }
}

/// One snapshot.
#[derive(Debug)]
pub struct ModelSnapshot<T> {
    pub id: SnapshotId,
    pub parent: Option<SnapshotId>,
    pub sequence: i64,
    pub timestamp_ms: i64,
    pub attempt: Option<String>,
    pub vector: Option<Vector>,
    /// The table's columns when it was committed.
    pub schema: Arc<TableSchema>,
    pub files: BTreeMap<Arc<str>, ModelFile<T>>,
}

/// What a commit brings; see [`super::Change`].
#[derive(Debug, Clone)]
pub struct ModelChange<T> {
    pub base: Option<SnapshotId>,
    /// The table's columns as the writer knows them; the commit is refused where they are others.
    pub columns: Arc<TableSchema>,
    pub schema_change: Option<Arc<SchemaChange>>,
    pub pins: Option<Arc<Pins>>,
    /// Absent for a foreign writer.
    pub attempt: Option<String>,
    pub vector: Option<Vector>,
    pub added: Vec<(Arc<str>, Arc<Vec<T>>)>,
    pub superseded: Vec<(Arc<str>, RoaringBitmap)>,
    pub removed: Vec<Arc<str>>,
    pub now_ms: i64,
}

/// A table: its snapshots, which one is current, and the anchor that is kept beside them.
#[derive(Debug)]
pub struct Model<T> {
    snapshots: BTreeMap<SnapshotId, Arc<ModelSnapshot<T>>>,
    current: Option<SnapshotId>,
    next_id: SnapshotId,
    sequence: i64,
    anchor: Option<Anchor>,
    schema: Arc<TableSchema>,
    last_field_id: i32,
    schemas: Option<String>,
    mutants: Mutants,
}

impl<T> Model<T> {
    /// A table with these columns, without a snapshot.
    #[must_use]
    pub fn new(schema: TableSchema, mutants: Mutants) -> Self {
        let last_field_id = schema.highest_id();
        let (snapshots, schema) = (BTreeMap::new(), Arc::new(schema));
        Model {
            snapshots,
            current: None,
            next_id: 1,
            sequence: 0,
            anchor: None,
            schema,
            last_field_id,
            schemas: None,
            mutants,
        }
    }

    /// The table's columns.
    #[must_use]
    pub fn schema(&self) -> &Arc<TableSchema> {
        &self.schema
    }

    /// The schema ids that it remembers, as the table property has them.
    #[must_use]
    pub fn schemas(&self) -> Option<&str> {
        self.schemas.as_deref()
    }

    /// The highest number that a column ever had.
    #[must_use]
    pub fn last_field_id(&self) -> i32 {
        self.last_field_id
    }

    /// Changes the columns without a snapshot, as other engines do. Numbers of columns are never given out again.
    pub fn set_schema(&mut self, schema: Arc<TableSchema>) {
        self.last_field_id = self.last_field_id.max(schema.highest_id());
        self.schema = schema;
    }

    /// The current snapshot.
    #[must_use]
    pub fn current(&self) -> Option<&Arc<ModelSnapshot<T>>> {
        self.snapshots.get(&self.current?)
    }

    /// A retained snapshot.
    #[must_use]
    pub fn snapshot(&self, id: SnapshotId) -> Option<&Arc<ModelSnapshot<T>>> {
        self.snapshots.get(&id)
    }

    /// The anchor as the table property holds it.
    #[must_use]
    pub fn anchor(&self) -> Option<&Anchor> {
        self.anchor.as_ref()
    }

    /// Makes `change` the next snapshot, if its base and its columns are the current ones. Superseded positions of files that are not live
    /// are the caller's mistake and are ignored, as readers ignore them.
    pub fn commit(&mut self, change: ModelChange<T>) -> Option<Arc<ModelSnapshot<T>>> {
        let unplanned = |planned: &Arc<SchemaChange>| planned.from != self.schema;
        if change.base != self.current
            || change.columns != self.schema
            || change.schema_change.as_ref().is_some_and(unplanned)
        {
            return None;
        }
        if let Some(planned) = &change.schema_change {
            self.set_schema(planned.to.clone());
        }
        if let Some(pins) = &change.pins {
            self.schemas = Some(pins.to_json());
        }
        let parent = self.current().cloned();
        let mut files = parent.as_ref().map(|p| p.files.clone()).unwrap_or_default();
        for path in &change.removed {
            files.remove(path);
        }
        for (path, rows) in &change.superseded {
            if let Some(file) = files.get_mut(path) {
                file.deleted = merge_deletes(&file.deleted, rows, self.mutants);
            }
        }
        for (path, rows) in change.added {
            files.insert(path, ModelFile { rows, deleted: RoaringBitmap::new() });
        }
        let earliest = parent.as_ref().map_or(0, |p| p.timestamp_ms + 1);
        self.sequence += 1;
        let snapshot = Arc::new(ModelSnapshot {
            id: self.next_id,
            parent: self.current,
            sequence: self.sequence,
            timestamp_ms: change.now_ms.max(earliest),
            attempt: change.attempt,
            vector: change.vector,
            schema: self.schema.clone(),
            files,
        });
        self.next_id += 1;
        if let Some(vector) = &snapshot.vector {
            self.anchor = Some(Anchor { vector: vector.clone(), snapshot: snapshot.id, sequence: snapshot.sequence });
        }
        self.current = Some(snapshot.id);
        self.snapshots.insert(snapshot.id, snapshot.clone());
        Some(snapshot)
    }

    /// Drops all but the newest `keep` snapshots of the current ancestry.
    pub fn expire(&mut self, keep: usize) {
        let kept: Vec<SnapshotId> = self.ancestry().take(keep.max(1)).map(|s| s.id).collect();
        self.snapshots.retain(|id, _| kept.contains(id));
    }

    /// Makes an older retained snapshot the current one.
    pub fn roll_back(&mut self, to: SnapshotId) {
        if self.snapshots.contains_key(&to) {
            self.current = Some(to);
        }
    }

    /// The current snapshot and its retained ancestors, newest first.
    pub fn ancestry(&self) -> impl Iterator<Item = &Arc<ModelSnapshot<T>>> {
        std::iter::successors(self.current(), |s| self.snapshots.get(&s.parent?))
    }

    /// The state of the table, with its ancestry back to `since` and to the nearest vector.
    #[must_use]
    pub fn view(&self, table: &str, since: Option<SnapshotId>) -> View {
        let mut ancestors = Vec::new();
        let mut end = WalkEnd::Root;
        for snapshot in self.ancestry() {
            if Some(snapshot.id) == since {
                end = WalkEnd::Known;
                break;
            }
            ancestors.push(Ancestor {
                id: snapshot.id,
                parent: snapshot.parent,
                sequence: snapshot.sequence,
                timestamp_ms: snapshot.timestamp_ms,
                attempt: snapshot.attempt.clone(),
                vector: snapshot.vector.clone(),
            });
            end = match snapshot.parent {
                None => WalkEnd::Root,
                Some(parent) if Some(parent) == since => WalkEnd::Known,
                Some(parent) => WalkEnd::Pruned { parent },
            };
        }
        let current = self.current();
        View {
            table: table.to_string(),
            snapshot: self.current,
            sequence: current.map_or(0, |s| s.sequence),
            updated_ms: current.map_or(0, |s| s.timestamp_ms),
            history: History { ancestors, end, anchor: self.anchor.clone() },
            pipeline: None,
            schema: self.schema.clone(),
            last_field_id: self.last_field_id,
            schemas: self.schemas.clone(),
        }
    }

    /// What changed between a snapshot that was current once and `to`, which a reader may still hold after its expiry.
    #[must_use]
    pub fn diff(&self, since: Option<SnapshotId>, to: Option<&ModelSnapshot<T>>) -> Diff {
        let live =
            |path: &Arc<str>, file: &ModelFile<T>| LiveFile { path: path.clone(), records: file.rows.len() as u64 };
        let empty = BTreeMap::new();
        let new = to.map_or(&empty, |s| &s.files);
        let Some(old) = since.and_then(|id| self.snapshots.get(&id)).map(|s| &s.files) else {
            return Diff { whole: true, added: new.iter().map(|(p, f)| live(p, f)).collect(), ..Diff::default() };
        };
        let mut diff = Diff::default();
        diff.removed.extend(old.keys().filter(|path| !new.contains_key(*path)).cloned());
        for (path, file) in new {
            match old.get(path) {
                None => diff.added.push(live(path, file)),
                Some(before) if before.deleted == file.deleted => {}
                Some(before) if before.deleted.is_subset(&file.deleted) => {
                    diff.deletes.push((path.clone(), file.deleted.clone()));
                }
                Some(_) => {
                    diff.removed.push(path.clone());
                    diff.added.push(live(path, file));
                }
            }
        }
        diff
    }
}

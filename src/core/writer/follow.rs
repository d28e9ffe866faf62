//! Keeping the index at the table's current snapshot, whoever made it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::flight::elsewhere;
use super::{Waiting, Writer};
use crate::core::change::Key;
use crate::core::fold::Semantics;
use crate::core::history::{SnapshotId, VectorRead, View};
use crate::core::key_index::Location;
use crate::core::mutant::Mutant;
use crate::core::offsets::Vector;
use crate::core::schema::TableSchema;
use crate::core::writer::Action;

/// The table as of the snapshot that the index knows.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) table: String,
    pub(super) snapshot: Option<SnapshotId>,
    pub(super) vector: Vector,
    pub(super) schema: Arc<TableSchema>,
    pub(super) last_field_id: i32,
    /// As [`View::schemas`].
    pub(super) schemas: Option<String>,
}

impl Base {
    /// The table as it was loaded, with an index that knows its snapshot.
    pub(super) fn of(view: &View, vector: Vector) -> Self {
        let View { snapshot, last_field_id, .. } = *view;
        let (table, schema, schemas) = (view.table.clone(), view.schema.clone(), view.schemas.clone());
        Base { table, snapshot, vector, schema, last_field_id, schemas }
    }
}

/// Numbers for the paths of live files, so that an index entry holds four bytes for its file. Numbers are never used again.
#[derive(Debug, Default)]
pub(super) struct FileNumbers {
    paths: BTreeMap<u32, Arc<str>>,
    numbers: BTreeMap<Arc<str>, u32>,
    next: u32,
}

impl FileNumbers {
    pub(super) fn number(&mut self, path: &Arc<str>) -> u32 {
        if let Some(&number) = self.numbers.get(path) {
            return number;
        }
        let number = self.next;
        self.enter(number, path.clone());
        number
    }

    fn enter(&mut self, number: u32, path: Arc<str>) {
        self.next = self.next.max(number.saturating_add(1));
        self.paths.insert(number, path.clone());
        self.numbers.insert(path, number);
    }

    pub(super) fn find(&self, path: &str) -> Option<u32> {
        self.numbers.get(path).copied()
    }

    pub(super) fn path(&self, number: u32) -> Option<&Arc<str>> {
        self.paths.get(&number)
    }

    /// The numbering that a saved index was written with.
    pub(super) fn restore(files: impl IntoIterator<Item = (u32, Arc<str>)>) -> Self {
        let mut restored = FileNumbers::default();
        for (number, path) in files {
            restored.enter(number, path);
        }
        restored
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (u32, &Arc<str>)> {
        self.paths.iter().map(|(&number, path)| (number, path))
    }

    /// How many paths are kept, in whichever direction there are more.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.paths.len().max(self.numbers.len())
    }

    fn forget(&mut self, path: &str) {
        if let Some(number) = self.numbers.remove(path) {
            self.paths.remove(&number);
        }
    }

    pub(super) fn clear(&mut self) {
        self.numbers.clear();
        self.paths.clear();
    }
}

impl<R> Writer<R> {
    pub(super) fn on_loaded(&mut self, view: Box<View>) {
        if self.waiting != Waiting::Load {
            return;
        }
        self.waiting = Waiting::Nothing;
        self.loaded_ms = self.now_ms;
        let Some(vector) = self.accept(&view) else { return };
        match view.history.ancestors.first() {
            Some(current) if current.attempt.is_none() => {
                self.foreign_since_ms.get_or_insert(self.now_ms);
            }
            Some(_) => self.foreign_since_ms = None,
            None => {}
        }
        self.settle(&view, &vector);
        // An index that was restored from disk is as of the snapshot it was saved at, if this is still that table.
        let restored = self.restored.take().filter(|r| r.table == view.table).map(|r| r.snapshot);
        let known = self.base.as_ref().map(|b| b.snapshot).or(restored.map(Some));
        let since = known.flatten();
        if self.config.semantics == Semantics::Append || known == Some(view.snapshot) {
            self.base = Some(Base::of(&view, vector));
            return;
        }
        self.base = Some(Base { snapshot: since, ..Base::of(&view, vector) });
        self.loaded = Some(view);
        self.ask(Waiting::Follow, Action::Follow { since });
    }

    /// Checks that this table is still the one to write, and reads its V; stops the writer where it is not.
    fn accept(&mut self, view: &View) -> Option<Vector> {
        if let Some(base) = self.base.as_ref().filter(|b| b.table != view.table) {
            let (old, new) = (base.table.clone(), view.table.clone());
            self.decision(format_args!(
                "it was dropped and created again (uuid {old} became {new}); restart firn to write the new table"
            ));
            return None;
        }
        if let Some(other) = view.pipeline.as_ref().filter(|p| **p != self.config.pipeline) {
            let (table, own) = (&self.config.table, &self.config.pipeline);
            let text = format!(
                "table {table} belongs to pipeline {other}, not to {own}: one pipeline per table; give {own} a table of its \
                 own, or remove the table property firn.pipeline if {other} is retired"
            );
            self.stop(crate::Error::Config(text));
            return None;
        }
        let as_set = |key: &[String]| key.iter().cloned().collect::<BTreeSet<_>>();
        if self.config.semantics != Semantics::Append && as_set(&view.schema.key) != as_set(&self.config.key) {
            let text = format!(
                "table {}: its identifier fields are [{}], but the pipeline's key is [{}]: make them equal",
                self.config.table,
                view.schema.key.join(", "),
                self.config.key.join(", ")
            );
            self.stop(crate::Error::Config(text));
            return None;
        }
        self.read_vector(view)
    }

    fn read_vector(&mut self, view: &View) -> Option<Vector> {
        let cluster = self.topology.as_ref().map(|t| t.cluster.clone()).unwrap_or_default();
        let known = self.base.as_ref().map(|b| &b.vector);
        let mutants = self.config.mutants;
        let mut read = view.history.vector(known);
        let forgotten = mutants.has(Mutant::ForgetAnchor) && !view.history.ancestors.iter().any(|a| a.vector.is_some());
        let not_current = mutants.has(Mutant::CurrentSnapshotOnly)
            && view.history.ancestors.first().is_some_and(|a| a.vector.is_none());
        if (forgotten && known.is_none()) || not_current {
            read = VectorRead::Never;
        }
        match read {
            VectorRead::Found(vector) if vector.topics.is_empty() => Some(Vector::new(cluster)),
            VectorRead::Found(vector) => {
                match self.topology.as_ref().and_then(|topology| elsewhere(&vector, topology)) {
                    None => Some(vector),
                    Some(message) => {
                        self.decision(message);
                        None
                    }
                }
            }
            VectorRead::Never => Some(Vector::new(cluster)),
            VectorRead::Lost(anchor) => {
                let proposal = anchor.map_or_else(
                    || "none is stored".to_string(),
                    |a| {
                        format!("its property firn.offsets says, as of snapshot {}, {}", a.snapshot, a.vector.to_json())
                    },
                );
                self.decision(format_args!(
                    "firn wrote to it before, but the snapshot that held the position is gone and the current one cannot be \
                     shown to descend from it; {proposal}; if that is right, accept it with `firn offsets set --from-property`"
                ));
                None
            }
        }
    }

    /// Decides what becomes of everything uncommitted, now that the table says what it holds.
    fn settle(&mut self, view: &View, vector: &Vector) {
        let blind = self.config.mutants.has(Mutant::CommitAgain);
        let unfenced = self.config.mutants.has(Mutant::UnfencedZombie);
        if let Some(flight) = &self.flight {
            let landed = self.attempts.iter().any(|a| view.history.landed(a).is_some()) || flight.reached(vector);
            if landed && !blind {
                self.finish_flight(view.snapshot, vector);
            } else if flight.batch.is_empty() {
                // A start or an anchor: whether it is still needed is found out anew.
                self.want_anchor |= !flight.has_starts() && self.foreign_since_ms.is_some();
                self.flight = None;
                self.attempts.clear();
            } else if flight.starts_at(vector) || landed || unfenced {
                self.plan_again();
            } else {
                self.read_again(vector);
            }
        }
        let follows = |id, from: i64| {
            let flight = self.flight.as_ref().and_then(|f| f.batch.next.get(id).copied());
            from == flight.or_else(|| vector.next(id)).unwrap_or(from)
        };
        let consistent = self.filling.from.iter().all(|(id, &from)| follows(id, from));
        if !consistent && !unfenced && !blind {
            self.read_again(vector);
        }
        // A start is resolved again only while nothing was written from it, by anyone.
        self.restart.retain(|id| vector.get(id).is_none_or(|p| p.start.earliest && p.next == p.start.offset));
        for (id, owned) in &mut self.owned {
            let held = self.filling.holds(id) || self.flight.as_ref().is_some_and(|f| f.batch.holds(id));
            let moved = vector.next(id).is_some_and(|next| next != owned.applied);
            if owned.asked && !held && moved {
                *owned = super::Owned { epoch: None, asked: false, applied: 0 };
            }
        }
    }

    pub(super) fn on_diff(&mut self, whole: bool, removed: &[Arc<str>], deletes: &[(Arc<str>, RoaringBitmap)]) {
        if self.waiting != Waiting::Follow {
            return;
        }
        if whole {
            self.index.retain(|_| false);
            self.files.clear();
            return;
        }
        let gone: BTreeSet<u32> = removed.iter().filter_map(|path| self.files.find(path)).collect();
        let deleted: BTreeMap<u32, &RoaringBitmap> =
            deletes.iter().filter_map(|(path, rows)| Some((self.files.find(path)?, rows))).collect();
        if !gone.is_empty() || !deleted.is_empty() {
            self.index.retain(|at| {
                !gone.contains(&at.file) && deleted.get(&at.file).is_none_or(|rows| !rows.contains(at.row))
            });
        }
        for path in removed {
            self.files.forget(path);
        }
    }

    pub(super) fn on_rows(&mut self, path: &Arc<str>, keys: &[Key], positions: &[u32], orders: &[i64]) {
        if self.waiting != Waiting::Follow {
            return;
        }
        let file = self.files.number(path);
        for (i, (&key, &row)) in keys.iter().zip(positions).enumerate() {
            self.index.insert(key, Location { file, row }, orders.get(i).copied().unwrap_or(0));
        }
    }

    pub(super) fn on_followed(&mut self) {
        if self.waiting != Waiting::Follow {
            return;
        }
        self.waiting = Waiting::Nothing;
        if let (Some(base), Some(view)) = (&mut self.base, self.loaded.take()) {
            base.snapshot = view.snapshot;
        }
    }
}

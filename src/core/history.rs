//! What a table's ancestry says: which V it holds, and what became of an attempt.

use std::sync::Arc;

use super::offsets::Vector;
use super::schema::TableSchema;

/// Identifies a snapshot (Iceberg snapshot id; Delta version).
pub type SnapshotId = i64;

/// One snapshot of the current branch, with what Firn wrote into its summary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ancestor {
    pub id: SnapshotId,
    pub parent: Option<SnapshotId>,
    pub sequence: i64,
    /// Commit time in milliseconds since 1970-01-01.
    pub timestamp_ms: i64,
    /// `firn.attempt-id`: which attempt of which writer made this snapshot; absent for foreign commits.
    pub attempt: Option<String>,
    /// `firn.offsets`: V as of this snapshot; absent for foreign commits.
    pub vector: Option<Vector>,
}

/// Where a walk from the current snapshot back through its parents ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalkEnd {
    /// At the snapshot that the caller knew already, retained or not (it is not among the ancestors listed).
    Known,
    /// At a snapshot without a parent, or the table has no snapshot at all.
    Root,
    /// At a snapshot whose parent was expired.
    Pruned {
        /// The id of the missing parent.
        parent: SnapshotId,
    },
}

/// The table property `firn.offsets`: V once more, for when the snapshot that holds it was expired.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Anchor {
    pub vector: Vector,
    pub snapshot: SnapshotId,
    pub sequence: i64,
}

/// The current snapshot's ancestry as far as it was walked, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// From the current snapshot back; at least as far as the first one with a vector, and as far as the snapshot that
    /// the caller knew, where either is retained. Snapshots found only in older metadata files count as retained.
    pub ancestors: Vec<Ancestor>,
    pub end: WalkEnd,
    pub anchor: Option<Anchor>,
}

/// V of the current snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VectorRead {
    /// The nearest ancestor that has one, or the proven anchor, says so.
    Found(Vector),
    /// Firn never committed to this table.
    Never,
    /// Firn did commit, but which of its commits the current snapshot descends from cannot be shown any more. A person
    /// has to decide; the anchor's V is what to propose.
    Lost(Option<Box<Anchor>>),
}

impl History {
    /// Reads V: the nearest ancestor's, else the anchor's where its snapshot is proven to be an ancestor of the oldest
    /// retained snapshot. A walk that ended at [`WalkEnd::Known`] without a vector needs the caller's own knowledge.
    #[must_use]
    pub fn vector(&self, known: Option<&Vector>) -> VectorRead {
        if let Some(vector) = self.ancestors.iter().find_map(|a| a.vector.as_ref()) {
            return VectorRead::Found(vector.clone());
        }
        match (self.end, &self.anchor) {
            (WalkEnd::Known, _) => known.map_or(VectorRead::Lost(self.lost()), |v| VectorRead::Found(v.clone())),
            (WalkEnd::Root, None) => VectorRead::Never,
            (WalkEnd::Pruned { parent }, Some(anchor)) if self.proves(parent, anchor) => {
                VectorRead::Found(anchor.vector.clone())
            }
            _ => VectorRead::Lost(self.lost()),
        }
    }

    /// The oldest retained snapshot names its missing parent: if that is the anchor's snapshot, and the sequence numbers
    /// agree, the anchor is an ancestor, and no commit of Firn can lie in between.
    fn proves(&self, missing_parent: SnapshotId, anchor: &Anchor) -> bool {
        let younger = self.ancestors.last().is_none_or(|oldest| anchor.sequence < oldest.sequence);
        missing_parent == anchor.snapshot && younger
    }

    fn lost(&self) -> Option<Box<Anchor>> {
        self.anchor.clone().map(Box::new)
    }

    /// The snapshot that an attempt became, if it is in the walked part.
    #[must_use]
    pub fn landed(&self, attempt: &str) -> Option<&Ancestor> {
        self.ancestors.iter().find(|a| a.attempt.as_deref() == Some(attempt))
    }
}

/// What a load of the table says about its current state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The table's uuid: a table that was dropped and created again is another table.
    pub table: String,
    /// The current snapshot of the main branch; none in a table without commits.
    pub snapshot: Option<SnapshotId>,
    pub sequence: i64,
    /// Commit time of the current snapshot, or of the last metadata change if that is later (milliseconds).
    pub updated_ms: i64,
    pub history: History,
    /// `firn.pipeline`: the one pipeline that may write here.
    pub pipeline: Option<String>,
    /// Its columns now, whatever snapshot is current. The key is the identifier fields.
    pub schema: Arc<TableSchema>,
    /// The highest number that a column ever had.
    pub last_field_id: i32,
    /// `firn.schemas`: the schema ids that it remembers; see [`super::schema::Pins`].
    pub schemas: Option<String>,
}

#[cfg(test)]
mod tests;

//! What happens to a writer, and what it wants done.

use std::collections::BTreeMap;
use std::sync::Arc;

use roaring::RoaringBitmap;

use crate::core::batch::Batch;
use crate::core::change::{Chunk, Key};
use crate::core::history::{SnapshotId, View};
use crate::core::offsets::{Epoch, PartitionId, Start, Vector};
use crate::core::plan::Plan;
use crate::core::schema::{Difference, Pins, SchemaChange};
use crate::error::Error;

/// The topics of a pipeline as the broker describes them now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    pub cluster: String,
    /// Topic id by name.
    pub topics: BTreeMap<String, Arc<str>>,
}

/// The resolved beginning of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedStart {
    pub id: PartitionId,
    /// The topic's name.
    pub topic: String,
    pub start: Start,
}

/// A data file that was written for the plan in flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedFile {
    pub path: Arc<str>,
    pub records: u32,
    pub rows: Placement,
}

/// Which of the plan's appended rows a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// Row `start + p` is at position p.
    Range {
        /// The row at position 0.
        start: u32,
    },
    /// Row `list[p]` is at position p.
    List(Vec<u32>),
}

/// How a commit ended; see `LakeTable`.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It is the table's current snapshot.
    Committed(Box<View>),
    /// The catalog refused it. Only a reload shows why.
    Refused,
    /// The answer was lost: it may be in the table, now or later.
    Unknown,
    /// It failed before anything was sent.
    NotSent,
}

/// Something that happened.
#[derive(Debug)]
pub enum Event<R> {
    /// The broker's description of the topics: at start, at each assignment, and as the answer to [`Action::Inspect`].
    Topics(Topology),
    /// The group gave this process partitions to read.
    Assigned(Vec<PartitionId>),
    /// The group took partitions away. Whatever is uncommitted of them stays in the batch: V at the commit decides.
    Revoked(Vec<PartitionId>),
    /// The answer to [`Action::Open`]: records of this partition carry this epoch from now on.
    Opened { id: PartitionId, epoch: Epoch },
    /// Decoded events.
    Chunk(Arc<Chunk<R>>),
    /// The log no longer has the offset at which a partition was to be read.
    OutOfRange(PartitionId),
    /// Commit what there is now, positions alone included.
    Flush,
    /// Look at the table now: another process may have committed.
    Reload,
    /// Time passed.
    Tick,
    /// The answer to [`Action::Load`].
    Loaded(Box<View>),
    /// First answer to [`Action::Follow`]: what is not live any more.
    Diff {
        /// Nothing known before counts any more.
        whole: bool,
        removed: Vec<Arc<str>>,
        deletes: Vec<(Arc<str>, RoaringBitmap)>,
    },
    /// Further answers: live rows that the index does not know.
    Rows {
        path: Arc<str>,
        keys: Vec<Key>,
        positions: Vec<u32>,
        /// Empty without `order_by`.
        orders: Vec<i64>,
    },
    /// Last answer: the index is as of the snapshot loaded last.
    Followed,
    /// The answer to [`Action::ResolveStarts`].
    Starts(Vec<ResolvedStart>),
    /// The answer to [`Action::Write`].
    Written(Vec<PlacedFile>),
    /// The answer to [`Action::Commit`].
    Outcome(Outcome),
}

/// Something to do. Actions that have an answer are outstanding one at a time; the caller repeats a failed attempt (with
/// backoff) until it can answer.
#[derive(Debug)]
pub enum Action<R> {
    /// Load the table. `again` counts the loads since the last success, for backoff.
    Load { since: Option<SnapshotId>, again: u32 },
    /// Bring the index from `since` to the snapshot loaded last.
    Follow { since: Option<SnapshotId> },
    /// Find out where reading of these topics' partitions begins, all of each topic or just the partitions named.
    ResolveStarts { topics: Vec<Arc<str>>, partitions: Vec<PartitionId> },
    /// Read a partition from here, under a new epoch.
    Open { id: PartitionId, offset: i64 },
    /// Write the plan's rows as data files, with the columns that the table has after `schema_change`.
    Write { attempt: String, batch: Arc<Batch<R>>, plan: Arc<Plan>, schema_change: Option<Arc<SchemaChange>> },
    /// Read the topics' ids again: a recreated topic must not be committed.
    Inspect,
    /// Commit.
    Commit(CommitOrder),
    /// A commit is in the table.
    Landed(Landed),
    /// A person has to decide, or the configuration is wrong: nothing more will happen to this table.
    Stop(Error),
}

impl<R> Event<R> {
    /// Its name, for logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Event::Topics(_) => "topics",
            Event::Assigned(_) => "assigned",
            Event::Revoked(_) => "revoked",
            Event::Opened { .. } => "opened",
            Event::Chunk(_) => "chunk",
            Event::OutOfRange(_) => "out of range",
            Event::Flush => "flush",
            Event::Reload => "reload",
            Event::Tick => "tick",
            Event::Loaded(_) => "loaded",
            Event::Diff { .. } => "diff",
            Event::Rows { .. } => "rows",
            Event::Followed => "followed",
            Event::Starts(_) => "starts",
            Event::Written(_) => "written",
            Event::Outcome(_) => "outcome",
        }
    }
}

impl<R> Action<R> {
    /// Its name, for logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Action::Load { .. } => "load",
            Action::Follow { .. } => "follow",
            Action::ResolveStarts { .. } => "resolve starts",
            Action::Open { .. } => "open",
            Action::Write { .. } => "write",
            Action::Inspect => "inspect",
            Action::Commit(_) => "commit",
            Action::Landed(_) => "landed",
            Action::Stop(_) => "stop",
        }
    }
}

/// A commit to try once.
#[derive(Debug, Clone)]
pub struct CommitOrder {
    pub attempt: String,
    pub base: Option<SnapshotId>,
    /// V as of this commit, full.
    pub vector: Vector,
    /// The files that [`Event::Written`] named, all of them.
    pub files: Vec<PlacedFile>,
    /// Positions that are gone, by file of the base snapshot.
    pub superseded: Vec<(Arc<str>, RoaringBitmap)>,
    /// What becomes of the table's columns in the same commit; the files were written for it.
    pub schema_change: Option<Arc<SchemaChange>>,
    /// The schema ids that the table remembers from then on, where that changes.
    pub pins: Option<Arc<Pins>>,
}

/// What a commit did, for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Landed {
    pub snapshot: Option<SnapshotId>,
    pub events: usize,
    pub appended: usize,
    pub superseded: u64,
    /// How the table's columns changed.
    pub schema_changes: Vec<Difference>,
    pub vector: Vector,
}

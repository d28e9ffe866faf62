//! A row's new value or deletion, and its place in the log.

use std::sync::Arc;

use super::offsets::{Epoch, PartitionId};
use super::schema::{Fingerprint, TableSchema};

/// A primary key as the index knows it: no key bytes are kept.
///
/// Keys whose encoding has at most eight bytes are carried exactly (mixed by a bijection); any other key is a keyed
/// 128-bit hash, so that nobody who does not know the process's secret can craft two keys that collide. At 10⁹ keys the
/// odds of any accidental collision are about 1.5·10⁻²¹ (birthday bound n²/2¹²⁹).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub u128);

/// What one event asks of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    /// The row's new value.
    Upsert,
    /// A tombstone: always applies.
    Tombstone,
    /// A delete that carries an order value: applies when it is not older than the row.
    Delete,
}

/// The events of one stretch of reading, decoded, in arrival order.
///
/// `R` is what holds the rows (an Arrow batch in production); the core never looks inside. All vectors that are indexed
/// by event have the same length.
#[derive(Debug, Clone)]
pub struct Chunk<R> {
    /// Consecutive events of one partition, in event order: together they cover every event exactly once.
    pub runs: Vec<Run>,
    /// Offset of each event in its partition.
    pub offsets: Vec<i64>,
    /// Primary key of each event; empty in `append` mode.
    pub keys: Vec<Key>,
    /// What each event does; empty means [`Op::Upsert`] for all.
    pub ops: Vec<Op>,
    /// Order value of each event (see [`crate::core::fold`]); empty without `order_by`. For a tombstone it is ignored.
    pub orders: Vec<i64>,
    /// Which row of `rows` an event's new value is; empty means event i is row i. [`NO_ROW`] for deletes.
    pub row_of: Vec<u32>,
    pub rows: R,
    pub asks: Asks,
    /// Approximate memory held, in bytes.
    pub bytes: usize,
}

/// What the schemas of a chunk's events ask of a table.
#[derive(Debug, Clone, Default)]
pub struct Asks {
    /// The columns of the chunk's rows, with every name under which events have them.
    pub names: Arc<TableSchema>,
    /// For each run, by its number, the columns that its events' schemas would have; each schema once per run.
    pub of_runs: Vec<(u32, Arc<TableSchema>)>,
    /// The schemas that the chunk's records name, those of rejected records included: id, and what it was taken for.
    pub schemas: Vec<(u32, Fingerprint)>,
}

/// The row number of an event that has no row.
pub const NO_ROW: u32 = u32::MAX;

/// Consecutive events of one partition within a [`Chunk`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub partition: PartitionId,
    /// The reading epoch that the poll thread stamped on these records.
    pub epoch: Epoch,
    /// How many events of the chunk belong to this run; 0 where only the position moves.
    pub events: u32,
    /// The offset after the last record seen, rejected records and transaction markers included.
    pub next: i64,
}

impl<R> Chunk<R> {
    /// How many events the chunk holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether the chunk holds no event (it may still move positions).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// What event `i` does.
    #[must_use]
    pub fn op(&self, i: usize) -> Op {
        self.ops.get(i).copied().unwrap_or(Op::Upsert)
    }
}

//! What can go wrong, counted.

use std::collections::BTreeMap;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Offsets that no record has.
    Gap,
    /// A transaction marker after the last record.
    TrailingMarker,
    /// An event that is older than the row, by its order value.
    LateEvent,
    /// Records from before the seek arrive under the new epoch.
    SeekRace,
    /// Records arrive twice within one epoch.
    Redelivery,
    /// A chunk of an older epoch arrives.
    StaleChunk,
    /// A partition moves to another process.
    Rebalance,
    /// The old owner sleeps through the rebalance and goes on afterwards.
    Zombie,
    /// The process dies at any moment.
    Crash,
    CrashBeforeCommit,
    CrashAfterCommit,
    /// The commit is applied, the answer is lost.
    LostAnswer,
    /// The commit is not applied, the answer is lost.
    LostRequest,
    /// The answer is an error, and the commit is applied later.
    DelayedApply,
    /// The commit is applied, its repetition is refused.
    RepeatedRequest,
    /// It failed before it was sent.
    NotSent,
    /// The table moved first.
    Conflict,
    ForeignDelete,
    ForeignRewrite,
    ForeignInsert,
    ForeignEmpty,
    /// All but the newest snapshots are dropped.
    Expiry,
    Rollback,
    /// Hours pass without a commit.
    LongPause,
    /// A process starts from an index that was saved some commits ago.
    StaleIndex,
    /// A process starts from the saved index of a snapshot that is expired.
    ExpiredIndex,
    /// A process starts from a saved index whose tag names another table.
    OtherIndex,
    /// The columns change with the rows that need it.
    ColumnsChanged,
    /// Such a commit is refused, because the table moved first.
    ColumnsConflict,
    /// Another engine adds a column.
    ForeignColumn,
    /// The registry gives out other schemas under ids that it gave out before.
    RegistryReplaced,
    /// A writer stops, because records of a schema were read with another one before.
    SchemaRefused,
}

impl Fault {
    pub const ALL: [Fault; 32] = [
        Fault::Gap,
        Fault::TrailingMarker,
        Fault::LateEvent,
        Fault::SeekRace,
        Fault::Redelivery,
        Fault::StaleChunk,
        Fault::Rebalance,
        Fault::Zombie,
        Fault::Crash,
        Fault::CrashBeforeCommit,
        Fault::CrashAfterCommit,
        Fault::LostAnswer,
        Fault::LostRequest,
        Fault::DelayedApply,
        Fault::RepeatedRequest,
        Fault::NotSent,
        Fault::Conflict,
        Fault::ForeignDelete,
        Fault::ForeignRewrite,
        Fault::ForeignInsert,
        Fault::ForeignEmpty,
        Fault::Expiry,
        Fault::Rollback,
        Fault::LongPause,
        Fault::StaleIndex,
        Fault::ExpiredIndex,
        Fault::OtherIndex,
        Fault::ColumnsChanged,
        Fault::ColumnsConflict,
        Fault::ForeignColumn,
        Fault::RegistryReplaced,
        Fault::SchemaRefused,
    ];
}

/// How often each fault was injected.
#[derive(Debug, Default, Clone)]
pub struct Faults(pub BTreeMap<Fault, u64>);

impl Faults {
    pub fn count(&mut self, fault: Fault) {
        *self.0.entry(fault).or_default() += 1;
    }

    pub fn add(&mut self, other: &Faults) {
        for (&fault, count) in &other.0 {
            *self.0.entry(fault).or_default() += count;
        }
    }
}

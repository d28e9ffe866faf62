//! Planted faults, so that the simulation can show that it would notice them.
//!
//! Each one brings back a failure that others shipped (see `docs/architecture.md`, "planted faults"). They exist only in
//! builds with the feature `mutants`, which nothing but the project's own tests turns on; elsewhere
//! [`Mutants::has`] is constantly false and the branches vanish.

/// A planted fault, named after the failure it brings back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// After a lost answer or a conflict the batch is committed again without asking whether it is in (B4).
    CommitAgain,
    /// Positions are stored as last seen, not as the furthest (C1).
    PutPosition,
    /// V that is not in the retained history is taken for "never committed" (C4).
    ForgetAnchor,
    /// The seek is trusted: nothing is filtered by V where events are applied (C7).
    TrustSeek,
    /// The last offset is stored instead of the next (C13).
    StoreLast,
    /// A file's second deletion vector does not contain the first (G4).
    DropOldDeletes,
    /// After a conflict V is not compared, so that an owner of the past commits what the new owner committed (A10).
    UnfencedZombie,
    /// A commit carries only the writer's own partitions (rule 4).
    PartialVector,
    /// V is looked for in the current snapshot alone (rule 5).
    CurrentSnapshotOnly,
    /// After a conflict the old plan is committed on the new parent without looking up again (rule 9).
    KeepPlan,
    /// Positions are counted in plan order, not in the order of the written file (rule 12).
    CountInPlanOrder,
    /// Only one position of a key is known (rule 13).
    OnePosition,
    /// After a conflict the change of the table's columns is forgotten, and the rows go without it.
    ForgetColumns,
    /// After a conflict files stay as they were written, although their column numbers mean something else by now (D2).
    StaleFieldIds,
    /// Rows are committed before the columns that they need.
    RowsBeforeColumns,
    /// What the table remembers of schema ids is not looked at (D4).
    ForgetPins,
    /// After a conflict the schema ids to remember stay as they were planned, without those that another writer added.
    StalePins,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Mutant; 17] = [
        Mutant::CommitAgain,
        Mutant::PutPosition,
        Mutant::ForgetAnchor,
        Mutant::TrustSeek,
        Mutant::StoreLast,
        Mutant::DropOldDeletes,
        Mutant::UnfencedZombie,
        Mutant::PartialVector,
        Mutant::CurrentSnapshotOnly,
        Mutant::KeepPlan,
        Mutant::CountInPlanOrder,
        Mutant::OnePosition,
        Mutant::ForgetColumns,
        Mutant::StaleFieldIds,
        Mutant::RowsBeforeColumns,
        Mutant::ForgetPins,
        Mutant::StalePins,
    ];
}

/// Which planted fault is on, if any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mutants {
    #[cfg(feature = "mutants")]
    on: Option<Mutant>,
}

impl Mutants {
    /// One planted fault.
    #[cfg(feature = "mutants")]
    #[must_use]
    pub fn only(mutant: Mutant) -> Self {
        Mutants { on: Some(mutant) }
    }

    /// Whether this fault is on.
    #[cfg(feature = "mutants")]
    #[must_use]
    pub fn has(self, mutant: Mutant) -> bool {
        self.on == Some(mutant)
    }

    /// Whether this fault is on: never, outside the tests.
    #[cfg(not(feature = "mutants"))]
    #[must_use]
    pub fn has(self, _mutant: Mutant) -> bool {
        false
    }
}

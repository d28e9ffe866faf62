//! What a change of a table's columns means for the rows that are there and for those who read them.

use super::Type;
use super::evolve::Difference;

/// What a difference means, in words for a schema's owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// The change in one word, for programs.
    pub action: &'static str,
    /// What becomes of the rows that are in the table.
    pub old_data: &'static str,
    /// What those notice who read the table, or write events of the schema before.
    pub old_readers: &'static str,
}

/// What a difference means.
#[must_use]
pub fn verdict(difference: &Difference) -> Verdict {
    let say = |action, old_data, old_readers| Verdict { action, old_data, old_readers };
    match difference {
        Difference::Add { default: Some(_), .. } => say(
            "add_column",
            "right: rows written before read as the default, by readers that know defaults of Iceberg v3",
            "right: queries that do not name the column see no change, and events of older schemas have the default",
        ),
        Difference::Add { .. } => say(
            "add_column",
            "right: rows written before read as null, whatever default the schema has",
            "right: queries that do not name the column see no change, and events of older schemas leave it null",
        ),
        Difference::Widen { from: Type::Date, to: Type::Timestamp { .. }, .. } => say(
            "widen",
            "kept: firn reads the dates of files written before as their midnight; Trino 483 and pyiceberg 0.12 cannot yet",
            "Trino 483 and pyiceberg 0.12 fail where they read this column from files written before; queries without it go on",
        ),
        Difference::Widen { .. } => say(
            "widen",
            "right: files written before are read in the wider type",
            "right: queries go on, and see the wider type",
        ),
        Difference::Rename { .. } => say(
            "rename",
            "right: no data is rewritten, the column is found by its id",
            "queries that name the old column have to be changed; events of older schemas go on into the same column",
        ),
        Difference::Relax { .. } => say(
            "make_optional",
            "right: rows written before keep their values",
            "right, but queries may meet nulls in this column from now on",
        ),
        Difference::Cannot { .. } => say(
            "not_possible",
            "untouched: the table stays as it is",
            "register a schema that fits, give the field another name, or read the topic into a new table",
        ),
    }
}

//! What becomes of a table's columns in the commit that brings the first rows that need it.

use std::sync::Arc;

use super::TableSchema;
use super::evolve::{Difference, Evolution, evolve};
use super::names::learn_former_names;
use super::promote::TableFormat;

/// A change of a table's columns, to be committed with the rows that need it: both or neither.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaChange {
    /// The table's columns when it was planned. Where the table has others by now, its numbers for new columns may mean
    /// something else there, and it is planned again.
    pub from: Arc<TableSchema>,
    /// The columns afterwards, the new ones numbered.
    pub to: Arc<TableSchema>,
    /// The differences between the two.
    pub changes: Vec<Difference>,
    /// Unique to the planning of this change. What a format makes up for new columns, such as their names in data files,
    /// follows from it, so that files and the commit agree.
    pub id: String,
}

/// What a table has, and what the rows of a batch ask of it.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The table's columns.
    pub table: &'a Arc<TableSchema>,
    /// The highest number that a column of the table ever had.
    pub last_field_id: i32,
    /// The columns in which the rows were gathered, with all names under which events have them.
    pub names: &'a TableSchema,
    /// What the schemas of the rows' events ask for, in the order in which they came up.
    pub wanted: &'a [Arc<TableSchema>],
    /// What all tables that take the same rows are kept in.
    pub formats: &'a [TableFormat],
}

/// What becomes of the table so that it holds the rows, up to the first schema that it cannot follow.
#[must_use]
pub fn follow(asked: Asked<'_>) -> Evolution {
    let (schema, last_id) = (TableSchema::clone(asked.table), asked.last_field_id);
    let mut followed = Evolution { changes: Vec::new(), schema, last_id };
    for wanted in asked.wanted {
        // Again for each: a column that was added a moment ago may have had other names.
        learn_former_names(&mut followed.schema, asked.names);
        let mut next = evolve(&followed.schema, wanted, asked.formats, followed.last_id);
        next.changes.splice(0..0, followed.changes);
        followed = next;
        if followed.obstacle().is_some() {
            break;
        }
    }
    followed
}

/// The change that lets the table hold the rows; `None` where it holds them as it is. `id` names it.
///
/// # Errors
/// The difference that the table cannot follow.
pub fn plan_change(asked: Asked<'_>, id: String) -> Result<Option<SchemaChange>, Difference> {
    let followed = follow(asked);
    if let Some(obstacle) = followed.obstacle() {
        return Err(obstacle.clone());
    }
    Ok(SchemaChange::to(asked.table, followed, id))
}

impl SchemaChange {
    /// The change that makes `after` of a table's columns; `None` where they stay. `id` names it.
    #[must_use]
    pub fn to(from: &Arc<TableSchema>, after: Evolution, id: String) -> Option<SchemaChange> {
        let Evolution { changes, schema, .. } = after;
        (!changes.is_empty()).then(|| SchemaChange { from: from.clone(), to: Arc::new(schema), changes, id })
    }
}

#[cfg(test)]
mod tests;

//! What becomes of a table's columns in the commit that brings the first rows that need it.

use std::sync::Arc;

use super::TableSchema;
use super::evolve::{Difference, evolve};
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

/// The change that lets the table hold the rows; `None` where it holds them as it is. `id` names it.
///
/// # Errors
/// The difference that the table cannot follow.
pub fn plan_change(asked: Asked<'_>, id: String) -> Result<Option<SchemaChange>, Difference> {
    if asked.wanted.is_empty() {
        return Ok(None);
    }
    let mut to = TableSchema::clone(asked.table);
    let (mut changes, mut last_id) = (Vec::new(), asked.last_field_id);
    for wanted in asked.wanted {
        // Again for each: a column that was added a moment ago may have had other names.
        learn_former_names(&mut to, asked.names);
        let evolution = evolve(&to, wanted, asked.formats, last_id);
        if let Some(obstacle) = evolution.obstacle() {
            return Err(obstacle.clone());
        }
        last_id = evolution.last_id;
        changes.extend(evolution.changes);
        to = evolution.schema;
    }
    if changes.is_empty() {
        return Ok(None);
    }
    Ok(Some(SchemaChange { from: asked.table.clone(), to: Arc::new(to), changes, id }))
}

#[cfg(test)]
mod tests;

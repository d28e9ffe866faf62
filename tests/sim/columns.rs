//! Schemas that come up in the log, and what their columns hold in the table.
//!
//! Events of schema 0 have no column besides their key. Schema 1 has a narrow one, schema 3 the same one wider; schema 2 has
//! another, which schema 4 has under a new name. The value of an event is its offset.

use std::collections::BTreeMap;
use std::sync::Arc;

use firn::avro::grown_columns;
use firn::core::schema::{Difference, Field, Named, SchemaChange, TableFormat, TableSchema, Type, matches};

use crate::meanings::Meaning;
use crate::oracle::Row;

/// How many schemas there are.
pub const SCHEMAS: usize = 5;
pub const FORMATS: &[TableFormat] = &[TableFormat::IcebergV3];

/// A row as it is in a data file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stored {
    pub row: Row,
    /// Values by the number of their column.
    pub cells: BTreeMap<i32, i64>,
    /// What its event's schema was taken for.
    pub meaning: Meaning,
}

impl Stored {
    pub fn foreign(key: u64, number: u64) -> Stored {
        Stored { row: Row::foreign(key, number), cells: BTreeMap::new(), meaning: 0 }
    }
}

/// The column of a schema, if it has one.
fn column(schema: usize) -> Option<Field> {
    let field = |name: &str, kind| Field::new(name, kind, false);
    match schema {
        1 => Some(field("a", Type::Int)),
        2 => Some(field("b", Type::Long)),
        3 => Some(field("a", Type::Long)),
        4 => Some(Field { aliases: vec!["b".into()], ..field("c", Type::Long) }),
        _ => None,
    }
}

/// The table that a schema would make.
pub fn wanted(schema: usize) -> TableSchema {
    let fields = [Field::new("key", Type::Long, false)].into_iter().chain(column(schema)).collect();
    let mut table = TableSchema { fields, key: Vec::new() };
    table.number();
    table
}

/// The columns in which a process gathers rows, once it knows a schema.
pub fn grown(columns: &TableSchema, schema: usize) -> Arc<TableSchema> {
    Arc::new(grown_columns(columns, &wanted(schema), FORMATS, None).expect("every schema fits"))
}

fn named(schema: &TableSchema) -> Vec<Named<'_>> {
    schema.fields.iter().map(Named::from).collect()
}

/// A row in the columns of `to`, as files are written: gathered in `from` by its event's names, found again among the
/// columns of the newest chunk, and then in the table.
pub fn stored(
    row: Row,
    (schema, meaning): (usize, Meaning),
    from: &TableSchema,
    newest: &TableSchema,
    to: &TableSchema,
) -> Stored {
    let mut cells = BTreeMap::new();
    if let Some(own) = column(schema) {
        let gathered = matches(&named(from), &[Named::from(&own)])[0];
        let gathered =
            matches(&named(from), &named(newest)).iter().position(|place| place.is_some() && *place == gathered);
        let places = matches(&named(newest), &named(to));
        for (field, _) in to.fields.iter().zip(places).filter(|(_, place)| place.is_some() && *place == gathered) {
            cells.insert(field.id, row.source.1);
        }
    }
    Stored { row, cells, meaning }
}

/// Whether the column of a schema is this one in the table.
fn is_column(schema: usize, field: &Field) -> bool {
    match schema {
        1 => field.name == "a",
        3 => field.name == "a" && field.kind == Type::Long,
        2 => field.name == "b" || field.name == "c",
        4 => field.name == "c",
        _ => false,
    }
}

/// Whether a row of this schema reads right in a table of these columns.
pub fn check_row(stored: &Stored, schema: usize, table: &TableSchema) -> Result<(), String> {
    let value = |field: &&Field| stored.cells.contains_key(&field.id);
    let held: Vec<&Field> = table.fields.iter().filter(value).collect();
    let right = match schema {
        0 => held.is_empty(),
        _ => {
            matches!(held[..], [field] if is_column(schema, field))
                && stored.cells.values().all(|v| *v == stored.row.source.1)
        }
    };
    let names: Vec<_> = table.fields.iter().map(|f| (f.name.as_str(), f.id)).collect();
    if right { Ok(()) } else { Err(format!("a row of schema {schema} reads wrong: {stored:?} in {names:?}")) }
}

/// Whether rows of this schema need that change.
pub fn needs(schema: usize, change: &Difference) -> bool {
    match change {
        Difference::Add { path, .. } => column(schema).is_some_and(|field| field.name == *path),
        Difference::Widen { .. } => schema == 3,
        Difference::Rename { .. } => schema == 4,
        Difference::Relax { .. } | Difference::Cannot { .. } => false,
    }
}

/// Changes that none of the schemas in a batch needs.
pub fn unneeded(change: &SchemaChange, schemas: &[usize]) -> Vec<String> {
    let idle = |change: &&Difference| !schemas.iter().any(|schema| needs(*schema, change));
    change.changes.iter().filter(idle).map(ToString::to_string).collect()
}

/// A column that another engine adds.
pub fn foreign(table: &TableSchema, last_field_id: i32, name: Option<usize>, number: u64) -> Option<TableSchema> {
    let mut field = match name {
        Some(schema) => column(schema)?,
        None => Field::new(format!("foreign{number}"), Type::Long, false),
    };
    if table.column(&field.name).is_some() {
        return None;
    }
    (field.id, field.aliases) = (last_field_id + 1, Vec::new());
    let mut next = table.clone();
    next.fields.push(field);
    Some(next)
}

//! Whether a table and the shape of its events fit together, and where their columns are.

use super::columns::Wanted;
use super::shape::EventShape;
use super::{lineage, record_key, schema};
use crate::core::schema::{Field, TableSchema, Type};
use crate::{Error, Result};

/// Rows for which a new decoder makes room at most, and values.
const ROWS_AT_FIRST: usize = 1024;
const VALUES_AT_FIRST: usize = 1 << 20;

/// Where the table has its lineage column.
pub fn lineage_position(table: &TableSchema, shape: &EventShape) -> Result<Option<usize>> {
    let Some(name) = &shape.lineage else { return Ok(None) };
    let at = table.fields.iter().position(|f| f.name == *name);
    match at {
        Some(i) if lineage::fits(&table.fields[i].kind) => Ok(at),
        Some(i) => Err(Error::Decision(format!(
            "column `{name}` is of type {} and cannot hold lineage: set `lineage` to another name, or to false",
            table.fields[i].kind
        ))),
        None => Err(Error::Decision(format!(
            "the table has no column `{name}` for lineage: add it to the table, or set `lineage: false`"
        ))),
    }
}

/// Where the key columns are among `fields`, in key order.
pub fn key_positions(table: &TableSchema, shape: &EventShape, fields: &[&Field]) -> Result<Vec<usize>> {
    if table.key.is_empty() {
        return Err(Error::Decision("the table has no primary key, which `mode: upsert` needs".into()));
    }
    if let Some(key) = &shape.key {
        let same = key.len() == table.key.len() && key.iter().all(|name| table.key.contains(name));
        if !same {
            let (wanted, has) = (key.join(", "), table.key.join(", "));
            return Err(Error::Decision(format!("`key` is [{wanted}], and the table's identifier fields are [{has}]")));
        }
    }
    let mut positions = Vec::with_capacity(table.key.len());
    for name in &table.key {
        let at = fields.iter().position(|f| f.name == *name);
        let at = at.ok_or_else(|| Error::Decision(format!("the table has no key column `{name}`")))?;
        schema::check_key(fields[at])?;
        positions.push(at);
    }
    if let (Some(form), [at]) = (shape.record_key, positions.as_slice())
        && !record_key::raw_fits(form, &fields[*at].kind)
    {
        let (name, kind) = (&fields[*at].name, &fields[*at].kind);
        return Err(Error::Decision(format!("`record_key` does not fit the key column `{name}` of type {kind}")));
    }
    Ok(positions)
}

/// The texts of `delete.values` as values of the column.
pub fn wanted(field: &Field, values: &[String]) -> Result<Wanted> {
    let unreadable = |value: &String| {
        Error::Config(format!("`delete.values` has `{value}`, which is no value of `{}` ({})", field.name, field.kind))
    };
    match field.kind {
        Type::Int | Type::Long => {
            let numbers = values.iter().map(|v| v.parse().map_err(|_| unreadable(v)));
            Ok(Wanted::Numbers(numbers.collect::<Result<_>>()?))
        }
        Type::Boolean => {
            let flags = values.iter().map(|v| v.parse().map_err(|_| unreadable(v)));
            Ok(Wanted::Booleans(flags.collect::<Result<_>>()?))
        }
        _ => Ok(Wanted::Texts(values.iter().map(|v| v.clone().into_bytes()).collect())),
    }
}

/// For how many rows a new decoder makes room: fewer where the columns are many.
pub fn rows_at_first(columns: &[&Field]) -> usize {
    let all: usize = columns.iter().map(|f| values_of(&f.kind)).sum();
    (VALUES_AT_FIRST / all.max(1)).clamp(1, ROWS_AT_FIRST)
}

/// How many columns a column has when those inside of it are counted.
fn values_of(kind: &Type) -> usize {
    match kind {
        Type::Struct(fields) => 1 + fields.iter().map(|f| values_of(&f.kind)).sum::<usize>(),
        Type::List(element) => 1 + values_of(&element.kind),
        Type::Map(_, value) => 2 + values_of(&value.kind),
        _ => 1,
    }
}

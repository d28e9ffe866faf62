//! How much memory rows take as columns, whatever they hold: each record, however short, becomes a row.

use super::{Constant, Field, Type};

/// The most bytes that a row of nulls may take in a table that has followed several schemas and keeps the columns of all.
pub const GROWN_ROW_BYTES_MAX: u64 = 64 << 20;

/// About how many bytes a row of these columns takes even where all is null.
#[must_use]
pub fn row_bytes(columns: &[Field]) -> u64 {
    columns.iter().map(memory_of_field).fold(0, u64::saturating_add)
}

/// About how many bytes a field takes at least, be it there or not: where it is not, its default is.
fn memory_of_field(field: &Field) -> u64 {
    memory_of(&field.kind).saturating_add(field.write_default.as_ref().map_or(0, Constant::bytes) as u64)
}

/// About how many bytes a value takes in columns of this type, whatever its length on the wire.
#[must_use]
pub fn memory_of(kind: &Type) -> u64 {
    match kind {
        Type::Boolean => 1,
        Type::Int | Type::Date | Type::Float => 4,
        Type::Decimal { .. } | Type::Uuid => 16,
        Type::Fixed(n) => u64::from(*n),
        Type::Struct(fields) => row_bytes(fields).saturating_add(1),
        Type::String | Type::Binary | Type::List(_) => 4,
        Type::Map(..) => 8,
        _ => 8,
    }
}

//! Table columns as Arrow fields, in the shape that Parquet readers of every engine expect.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field as ArrowField, Fields, Schema, TimeUnit};

use super::{Constant, Field, TableSchema, Type};

/// The Arrow metadata key under which the Parquet writer looks for a field's id.
pub const FIELD_ID_KEY: &str = "PARQUET:field_id";

/// The Arrow metadata key for the other names of a field, one a line: rows that were gathered under one of them are its.
const NAMES_KEY: &str = "firn:names";

/// The Arrow metadata keys for a field's defaults, as JSON.
const INITIAL_KEY: &str = "firn:initial-default";
const WRITE_KEY: &str = "firn:write-default";

/// Why a row does not have a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// It was written before the field was added.
    Older,
    /// It is written now, by somebody who does not give the field.
    NotGiven,
}

/// The table's columns as an Arrow schema; every field at every depth carries its id under [`FIELD_ID_KEY`].
///
/// Strings are `Utf8`, `uuid` is `FixedSizeBinary(16)`, times and timestamps are 64-bit microseconds (`+00:00` where
/// they have a zone), lists have a child `element`, maps an entry struct `key_value` of `key` and `value`.
#[must_use]
pub fn to_arrow(schema: &TableSchema) -> Schema {
    Schema::new(schema.fields.iter().map(arrow_field).collect::<Vec<_>>())
}

/// The id that [`to_arrow`] put on an Arrow field.
#[must_use]
pub fn field_id(field: &ArrowField) -> Option<i32> {
    field.metadata().get(FIELD_ID_KEY)?.parse().ok()
}

/// The other names that [`to_arrow`] noted on an Arrow field.
pub fn other_names(field: &ArrowField) -> impl Iterator<Item = &str> {
    field.metadata().get(NAMES_KEY).into_iter().flat_map(|names| names.lines())
}

/// What a field of [`to_arrow`] is in rows that do not have it; none: null.
#[must_use]
pub fn default_of(field: &ArrowField, absent: Absent) -> Option<Constant> {
    let key = if absent == Absent::Older { INITIAL_KEY } else { WRITE_KEY };
    serde_json::from_str(field.metadata().get(key)?).ok()
}

fn arrow_field(field: &Field) -> ArrowField {
    let mut metadata = HashMap::from([(FIELD_ID_KEY.to_string(), field.id.to_string())]);
    if !field.aliases.is_empty() {
        metadata.insert(NAMES_KEY.to_string(), field.aliases.join("\n"));
    }
    for (key, constant) in [(INITIAL_KEY, &field.initial_default), (WRITE_KEY, &field.write_default)] {
        if let Some(text) = constant.as_ref().and_then(|constant| serde_json::to_string(constant).ok()) {
            metadata.insert(key.to_string(), text);
        }
    }
    ArrowField::new(&field.name, arrow_type(&field.kind), !field.required).with_metadata(metadata)
}

fn arrow_type(kind: &Type) -> DataType {
    let zone = |utc: bool| utc.then(|| Arc::from("+00:00"));
    match kind {
        Type::Boolean => DataType::Boolean,
        Type::Int => DataType::Int32,
        Type::Long => DataType::Int64,
        Type::Float => DataType::Float32,
        Type::Double => DataType::Float64,
        Type::Decimal { precision, scale } => DataType::Decimal128(*precision, *scale as i8),
        Type::Date => DataType::Date32,
        Type::Time => DataType::Time64(TimeUnit::Microsecond),
        Type::Timestamp { utc } => DataType::Timestamp(TimeUnit::Microsecond, zone(*utc)),
        Type::TimestampNanos { utc } => DataType::Timestamp(TimeUnit::Nanosecond, zone(*utc)),
        Type::String => DataType::Utf8,
        Type::Uuid => DataType::FixedSizeBinary(16),
        Type::Fixed(n) => DataType::FixedSizeBinary(*n as i32),
        Type::Binary => DataType::Binary,
        Type::Struct(fields) => DataType::Struct(fields.iter().map(arrow_field).collect::<Fields>()),
        Type::List(element) => DataType::List(Arc::new(arrow_field(element))),
        Type::Map(key, value) => {
            let entries = Fields::from(vec![arrow_field(key), arrow_field(value)]);
            DataType::Map(Arc::new(ArrowField::new("key_value", DataType::Struct(entries), false)), false)
        }
    }
}

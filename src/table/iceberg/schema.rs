//! Firn's column types and Iceberg's, both ways.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use iceberg::spec::{
    ListType, MapType, NestedField, NestedFieldRef, PrimitiveType, Schema, StructType, TableMetadata,
    Type as IcebergType,
};

use crate::core::schema::{Field, SchemaChange, TableSchema, Type};
use crate::error::{Error, Result};
use crate::files::from_iceberg;

/// The Iceberg type of a Firn type. Fields keep the ids they have.
#[must_use]
pub fn to_iceberg_type(kind: &Type) -> IcebergType {
    let primitive = match kind {
        Type::Boolean => PrimitiveType::Boolean,
        Type::Int => PrimitiveType::Int,
        Type::Long => PrimitiveType::Long,
        Type::Float => PrimitiveType::Float,
        Type::Double => PrimitiveType::Double,
        Type::Decimal { precision, scale } => {
            PrimitiveType::Decimal { precision: u32::from(*precision), scale: u32::from(*scale) }
        }
        Type::Date => PrimitiveType::Date,
        Type::Time => PrimitiveType::Time,
        Type::Timestamp { utc: false } => PrimitiveType::Timestamp,
        Type::Timestamp { utc: true } => PrimitiveType::Timestamptz,
        Type::TimestampNanos { utc: false } => PrimitiveType::TimestampNs,
        Type::TimestampNanos { utc: true } => PrimitiveType::TimestamptzNs,
        Type::String => PrimitiveType::String,
        Type::Uuid => PrimitiveType::Uuid,
        Type::Fixed(bytes) => PrimitiveType::Fixed(u64::from(*bytes)),
        Type::Binary => PrimitiveType::Binary,
        Type::Struct(fields) => {
            return IcebergType::Struct(StructType::new(fields.iter().map(to_iceberg_field).collect()));
        }
        Type::List(element) => return IcebergType::List(ListType::new(to_iceberg_field(element))),
        Type::Map(key, value) => {
            return IcebergType::Map(MapType::new(to_iceberg_field(key), to_iceberg_field(value)));
        }
    };
    IcebergType::Primitive(primitive)
}

fn to_iceberg_field(field: &Field) -> NestedFieldRef {
    let nested = NestedField::new(field.id, &field.name, to_iceberg_type(&field.kind), field.required);
    Arc::new(match &field.doc {
        Some(doc) => nested.with_doc(doc),
        None => nested,
    })
}

/// The Iceberg schema of a numbered table schema; its key becomes the identifier fields.
///
/// # Errors
/// [`Error::Config`] when a key column is missing, optional, nested in something optional, or of a floating type.
pub fn to_iceberg_schema(schema: &TableSchema, schema_id: i32) -> Result<Schema> {
    let mut key = Vec::with_capacity(schema.key.len());
    for name in &schema.key {
        let field = schema
            .column(name)
            .ok_or_else(|| Error::Config(format!("key column {name} is not among the table's columns")))?;
        key.push(field.id);
    }
    Schema::builder()
        .with_schema_id(schema_id)
        .with_fields(schema.fields.iter().map(to_iceberg_field))
        .with_identifier_field_ids(key)
        .build()
        .map_err(|e| Error::Config(format!("the columns do not make an Iceberg schema: {}", e.message())))
}

/// The columns and the key of an Iceberg schema. The key is in column order, since Iceberg keeps it as a set.
///
/// # Errors
/// [`Error::Decision`] for a type that Firn cannot hold or an identifier field that is not a top-level column.
pub fn from_iceberg_schema(schema: &Schema) -> Result<TableSchema> {
    let fields: Vec<Field> =
        schema.as_struct().fields().iter().map(|f| from_iceberg_field(f)).collect::<Result<_>>()?;
    let identifiers: BTreeSet<i32> = schema.identifier_field_ids().collect();
    let key: Vec<String> = fields.iter().filter(|f| identifiers.contains(&f.id)).map(|f| f.name.clone()).collect();
    if key.len() != identifiers.len() {
        return Err(Error::Decision(
            "an identifier field of the table is nested in a struct: Firn needs top-level key columns".into(),
        ));
    }
    Ok(TableSchema { fields, key })
}

fn from_iceberg_field(field: &NestedField) -> Result<Field> {
    Ok(Field {
        id: field.id,
        name: field.name.clone(),
        required: field.required,
        kind: from_iceberg_type(&field.field_type).map_err(|e| e.within(format!("column {}", field.name)))?,
        doc: field.doc.clone(),
        aliases: Vec::new(),
    })
}

/// The Firn type of an Iceberg type.
///
/// # Errors
/// [`Error::Decision`] for sizes that Arrow cannot hold.
pub fn from_iceberg_type(kind: &IcebergType) -> Result<Type> {
    let size = |what: &str| Error::Decision(format!("{what} is larger than Firn can hold"));
    Ok(match kind {
        IcebergType::Primitive(primitive) => match primitive {
            PrimitiveType::Boolean => Type::Boolean,
            PrimitiveType::Int => Type::Int,
            PrimitiveType::Long => Type::Long,
            PrimitiveType::Float => Type::Float,
            PrimitiveType::Double => Type::Double,
            PrimitiveType::Decimal { precision, scale } => Type::Decimal {
                precision: u8::try_from(*precision).map_err(|_| size("the decimal's precision"))?,
                scale: u8::try_from(*scale).map_err(|_| size("the decimal's scale"))?,
            },
            PrimitiveType::Date => Type::Date,
            PrimitiveType::Time => Type::Time,
            PrimitiveType::Timestamp => Type::Timestamp { utc: false },
            PrimitiveType::Timestamptz => Type::Timestamp { utc: true },
            PrimitiveType::TimestampNs => Type::TimestampNanos { utc: false },
            PrimitiveType::TimestamptzNs => Type::TimestampNanos { utc: true },
            PrimitiveType::String => Type::String,
            PrimitiveType::Uuid => Type::Uuid,
            PrimitiveType::Fixed(bytes) => {
                Type::Fixed(u32::try_from(*bytes).map_err(|_| size("the fixed type's length"))?)
            }
            PrimitiveType::Binary => Type::Binary,
        },
        IcebergType::Struct(fields) => {
            Type::Struct(fields.fields().iter().map(|f| from_iceberg_field(f)).collect::<Result<_>>()?)
        }
        IcebergType::List(list) => Type::List(Box::new(from_iceberg_field(&list.element_field)?)),
        IcebergType::Map(map) => {
            Type::Map(Box::new(from_iceberg_field(&map.key_field)?), Box::new(from_iceberg_field(&map.value_field)?))
        }
    })
}

/// The columns that a table has now, with the names that they had before: a field keeps its id when it is renamed, and
/// the metadata keeps the older schemas.
///
/// # Errors
/// As [`from_iceberg_schema`].
pub fn current_schema(metadata: &TableMetadata) -> Result<TableSchema> {
    let current = metadata.current_schema();
    let mut schema = from_iceberg_schema(current)?;
    let mut former: BTreeMap<i32, BTreeSet<String>> = BTreeMap::new();
    for older in metadata.schemas_iter().filter(|s| s.schema_id() != current.schema_id()) {
        note_names(older.as_struct(), &mut former);
    }
    remember(&mut schema.fields, &former);
    Ok(schema)
}

/// The metadata with the columns that the table has after `change`.
///
/// # Errors
/// As [`to_iceberg_schema`].
pub(super) fn grow(metadata: &TableMetadata, change: &SchemaChange) -> Result<TableMetadata> {
    let next_id = metadata.schemas_iter().map(|s| s.schema_id()).max().unwrap_or(0) + 1;
    let schema = to_iceberg_schema(&change.to, next_id)?;
    let built = metadata.clone().into_builder(None).add_current_schema(schema).and_then(|b| b.build());
    Ok(built.map_err(|e| from_iceberg("the new columns are not valid", &e))?.metadata)
}

fn note_names(fields: &StructType, names: &mut BTreeMap<i32, BTreeSet<String>>) {
    for field in fields.fields() {
        names.entry(field.id).or_default().insert(field.name.clone());
        note_below(&field.field_type, names);
    }
}

fn note_below(kind: &IcebergType, names: &mut BTreeMap<i32, BTreeSet<String>>) {
    match kind {
        IcebergType::Primitive(_) => {}
        IcebergType::Struct(fields) => note_names(fields, names),
        IcebergType::List(list) => note_below(&list.element_field.field_type, names),
        IcebergType::Map(map) => note_below(&map.value_field.field_type, names),
    }
}

fn remember(fields: &mut [Field], former: &BTreeMap<i32, BTreeSet<String>>) {
    for field in fields {
        let names = former.get(&field.id).into_iter().flatten();
        field.aliases = names.filter(|name| **name != field.name).cloned().collect();
        let mut kind = &mut field.kind;
        loop {
            kind = match kind {
                Type::Struct(fields) => break remember(fields, former),
                Type::List(element) => &mut element.kind,
                Type::Map(_, value) => &mut value.kind,
                _ => break,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> TableSchema {
        let kafka =
            Type::Struct(vec![Field::new("topic", Type::String, false), Field::new("partition", Type::Int, false)]);
        let mut schema = TableSchema {
            fields: vec![
                Field::new("id", Type::Long, true),
                Field::new("price", Type::Decimal { precision: 10, scale: 2 }, false),
                Field::new("n", Type::Int, false),
                Field::new("tags", Type::List(Box::new(Field::new("element", Type::String, false))), false),
                Field::new(
                    "attributes",
                    Type::Map(
                        Box::new(Field::new("key", Type::String, true)),
                        Box::new(Field::new("value", Type::TimestampNanos { utc: true }, false)),
                    ),
                    false,
                ),
                Field::new("_kafka", kafka, false),
            ],
            key: vec!["id".into()],
        };
        schema.number();
        schema
    }

    #[test]
    fn a_schema_survives_the_way_to_iceberg_and_back() {
        let schema = sample();
        let iceberg = to_iceberg_schema(&schema, 0).unwrap();
        assert_eq!(from_iceberg_schema(&iceberg).unwrap(), schema);
    }
}

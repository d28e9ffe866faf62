//! Firn's column types and Iceberg's, both ways.

use std::collections::BTreeSet;
use std::sync::Arc;

use iceberg::spec::{
    ListType, MapType, NestedField, NestedFieldRef, PrimitiveType, Schema, StructType, Type as IcebergType,
};

use crate::core::schema::{Field, TableSchema, Type, same_type, widen};
use crate::error::{Error, Result};

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

/// The table's columns grown to hold `wanted` too: columns that only `wanted` has are added as optional ones (at any
/// depth, after the existing ones), types are widened where Iceberg allows it, and required columns become optional
/// where `wanted` has nulls. Nothing is dropped, moved or renamed. New fields are numbered after `last_id`.
///
/// # Errors
/// [`Error::Decision`] naming the column for any other difference.
pub fn grow(current: &TableSchema, wanted: &TableSchema, last_id: i32) -> Result<TableSchema> {
    let mut next = last_id;
    let fields = grow_fields(&current.fields, &wanted.fields, "", &mut next)?;
    for name in &current.key {
        if let Some(column) = fields.iter().find(|f| &f.name == name).filter(|f| !f.required) {
            return Err(Error::Decision(format!("key column {} cannot become optional", column.name)));
        }
    }
    Ok(TableSchema { fields, key: current.key.clone() })
}

fn grow_fields(current: &[Field], wanted: &[Field], path: &str, next: &mut i32) -> Result<Vec<Field>> {
    let mut fields = Vec::with_capacity(wanted.len().max(current.len()));
    for old in current {
        match wanted.iter().find(|w| w.name == old.name) {
            Some(new) => fields.push(grow_field(old, new, path, next)?),
            None => fields.push(old.clone()),
        }
    }
    for new in wanted.iter().filter(|w| current.iter().all(|c| c.name != w.name)) {
        let mut added = new.clone();
        added.required = false;
        number_from(&mut added, next);
        fields.push(added);
    }
    Ok(fields)
}

fn grow_field(old: &Field, new: &Field, path: &str, next: &mut i32) -> Result<Field> {
    let path = if path.is_empty() { old.name.clone() } else { format!("{path}.{}", old.name) };
    let kind = match (&old.kind, &new.kind) {
        (Type::Struct(a), Type::Struct(b)) => Type::Struct(grow_fields(a, b, &path, next)?),
        (Type::List(a), Type::List(b)) => Type::List(Box::new(grow_field(a, b, &path, next)?)),
        (Type::Map(ka, va), Type::Map(kb, vb)) => {
            if !same_type(&ka.kind, &kb.kind) {
                return Err(Error::Decision(format!("the key type of map column {path} cannot change")));
            }
            Type::Map(ka.clone(), Box::new(grow_field(va, vb, &path, next)?))
        }
        (a, b) => widen(a, b)
            .ok_or_else(|| Error::Decision(format!("column {path} is {a} in the table and cannot become {b}")))?,
    };
    Ok(Field { kind, required: old.required && new.required, ..old.clone() })
}

fn number_from(field: &mut Field, next: &mut i32) {
    let mut level = vec![field];
    while !level.is_empty() {
        let mut below = Vec::new();
        for field in level {
            *next += 1;
            field.id = *next;
            match &mut field.kind {
                Type::Struct(fields) => below.extend(fields.iter_mut()),
                Type::List(element) => below.push(&mut **element),
                Type::Map(key, value) => below.extend([&mut **key, &mut **value]),
                _ => {}
            }
        }
        level = below;
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

    #[test]
    fn growing_adds_at_any_depth_and_widens_and_keeps_ids() {
        let table = sample();
        let mut wanted = sample();
        wanted.fields[1].kind = Type::Decimal { precision: 20, scale: 2 };
        wanted.fields[2].kind = Type::Long;
        if let Type::Struct(fields) = &mut wanted.fields[5].kind {
            fields.push(Field::new("offset", Type::Long, true));
        }
        wanted.fields.insert(0, Field::new("venue", Type::String, true));
        let grown = grow(&table, &wanted, 12).unwrap();
        assert_eq!(grown.fields.iter().map(|f| f.id).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 14]);
        assert_eq!(grown.column("n").unwrap().kind, Type::Long);
        let Type::Struct(kafka) = &grown.column("_kafka").unwrap().kind else { panic!("a struct") };
        assert_eq!((kafka[2].id, kafka[2].required), (13, false));
        assert!(!grown.column("venue").unwrap().required, "old rows have no venue");
    }

    #[test]
    fn growing_refuses_what_readers_of_old_files_could_not_follow() {
        let table = sample();
        let mut wanted = sample();
        wanted.fields[1].kind = Type::Decimal { precision: 20, scale: 4 };
        assert!(grow(&table, &wanted, 12).unwrap_err().to_string().contains("column price"));
        let mut wanted = sample();
        wanted.fields[0].required = false;
        assert!(grow(&table, &wanted, 12).unwrap_err().to_string().contains("key column id"));
    }
}

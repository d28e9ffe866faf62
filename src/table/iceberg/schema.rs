//! Firn's column types and Iceberg's, both ways.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use iceberg::spec::{
    ListType, Literal, MapType, NestedField, NestedFieldRef, PrimitiveLiteral, PrimitiveType, Schema, StructType,
    TableMetadata, Transform, Type as IcebergType,
};

use crate::core::schema::{Constant, Field, SchemaChange, TableSchema, Type};
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
    Arc::new(NestedField {
        doc: field.doc.clone(),
        initial_default: field.initial_default.as_ref().and_then(|v| to_literal(v, &nested.field_type)),
        write_default: field.write_default.as_ref().and_then(|v| to_literal(v, &nested.field_type)),
        ..nested
    })
}

/// A default in Iceberg's form; none where it could not be written down and read again.
fn to_literal(constant: &Constant, kind: &IcebergType) -> Option<Literal> {
    let literal = match constant {
        Constant::Boolean(v) => Literal::bool(*v),
        Constant::Int(v) => Literal::int(*v),
        Constant::Long(v) => Literal::long(*v),
        Constant::Float(v) => Literal::float(f32::from_bits(*v)),
        Constant::Double(v) => Literal::double(f64::from_bits(*v)),
        Constant::Decimal(v) => Literal::decimal(*v),
        Constant::String(v) => Literal::string(v),
        Constant::Bytes(v) if *kind == IcebergType::Primitive(PrimitiveType::Uuid) => {
            Literal::uuid(uuid::Uuid::from_slice(v).ok()?)
        }
        Constant::Bytes(v) => Literal::binary(v.clone()),
    };
    let json = literal.clone().try_into_json(kind).ok()?;
    (Literal::try_from_json(json, kind).ok()?.as_ref() == Some(&literal)).then_some(literal)
}

fn from_literal(literal: &Literal) -> Option<Constant> {
    let Literal::Primitive(primitive) = literal else { return None };
    Some(match primitive {
        PrimitiveLiteral::Boolean(v) => Constant::Boolean(*v),
        PrimitiveLiteral::Int(v) => Constant::Int(*v),
        PrimitiveLiteral::Long(v) => Constant::Long(*v),
        PrimitiveLiteral::Float(v) => Constant::Float(v.0.to_bits()),
        PrimitiveLiteral::Double(v) => Constant::Double(v.0.to_bits()),
        PrimitiveLiteral::Int128(v) => Constant::Decimal(*v),
        PrimitiveLiteral::String(v) => Constant::String(v.clone()),
        PrimitiveLiteral::Binary(v) => Constant::Bytes(v.clone()),
        PrimitiveLiteral::UInt128(v) => Constant::Bytes(v.to_be_bytes().to_vec()),
        _ => return None,
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
        initial_default: field.initial_default.as_ref().and_then(from_literal),
        write_default: field.write_default.as_ref().and_then(from_literal),
        partitioned_by: None,
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
    let specs = metadata.partition_specs_iter().flat_map(|spec| spec.fields());
    // Those of older files too: a manifest is read with the spec that it was written with.
    let of_the_type = specs.filter(|of| matches!(of.transform, Transform::Identity | Transform::Bucket(_)));
    note_partitions(&mut schema.fields, &of_the_type.map(|of| (of.source_id, of.transform.to_string())).collect());
    Ok(schema)
}

fn note_partitions(fields: &mut [Field], by_source: &BTreeMap<i32, String>) {
    for field in fields {
        field.partitioned_by = by_source.get(&field.id).cloned();
        if let Type::Struct(below) = &mut field.kind {
            note_partitions(below, by_source);
        }
    }
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
    fn defaults_survive_the_way_to_metadata_and_back() {
        let constants = [
            (Type::Boolean, Constant::Boolean(true)),
            (Type::Int, Constant::Int(i32::MIN)),
            (Type::Long, Constant::Long(i64::MAX)),
            (Type::Float, Constant::Float(0.1f32.to_bits())),
            (Type::Double, Constant::Double((-0.0f64).to_bits())),
            (Type::Decimal { precision: 38, scale: 5 }, Constant::Decimal(-123)),
            (Type::Date, Constant::Int(-719_162)),
            (Type::Time, Constant::Long(86_399_999_999)),
            (Type::Timestamp { utc: true }, Constant::Long(253_402_300_799_999_999)),
            (Type::Timestamp { utc: false }, Constant::Long(-62_135_596_800_000_000)),
            (Type::String, Constant::String("\u{1F984}\"".into())),
            (Type::Uuid, Constant::Bytes((0..16).collect())),
            (Type::Fixed(2), Constant::Bytes(vec![0, 255])),
            (Type::Binary, Constant::Bytes(vec![])),
        ];
        let field = |(n, (kind, constant)): (usize, &(Type, Constant))| {
            let (initial_default, write_default) = (Some(constant.clone()), Some(constant.clone()));
            Field { initial_default, write_default, ..Field::new(format!("f{n}"), kind.clone(), n % 2 == 0) }
        };
        let mut schema = TableSchema { fields: constants.iter().enumerate().map(field).collect(), key: Vec::new() };
        schema.fields.push(Field::new("s", Type::Struct(schema.fields.clone()), false));
        schema.number();
        let text = serde_json::to_string(&to_iceberg_schema(&schema, 0).unwrap()).unwrap();
        let read: Schema = serde_json::from_str(&text).unwrap();
        assert_eq!(from_iceberg_schema(&read).unwrap(), schema, "{text}");
    }

    #[test]
    fn a_schema_survives_the_way_to_iceberg_and_back() {
        let schema = sample();
        let iceberg = to_iceberg_schema(&schema, 0).unwrap();
        assert_eq!(from_iceberg_schema(&iceberg).unwrap(), schema);
    }
}

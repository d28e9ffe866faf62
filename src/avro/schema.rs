//! Avro schema → table columns.

use super::avro_type::{Avro, AvroField, TypeRef, Unit, shared_name};
use super::default;
use super::key_schema::KeySchema;
use super::shape::{DeleteBy, EventShape, Mode, Nanoseconds, RecursiveTypes, Types};
use super::value_schema::{SchemaKind, SchemaText, ValueSchema};
use crate::core::order::is_orderable;
use crate::core::schema::{self, Field, TAG, TableSchema, Type, check_names, union_of};
use crate::{Error, Result};

/// The most bytes that a fixed column may have: a null in it takes as many.
const FIXED_BYTES_MAX: usize = 1 << 20;
/// The most bytes that a row of nulls may take: each record, however short, becomes a row.
const ROW_BYTES_MAX: u64 = 16 << 20;

/// The parts of a duration, in the order of the wire; each is unsigned and has 32 bits.
pub const DURATION: [&str; 3] = ["months", "days", "millis"];

/// The columns of a table for events of these Avro schemas, numbered: the value's fields in order, then the record key's
/// fields that the value does not have (where the key is the record key's), then the lineage column. Key columns are
/// required; where the record key gives them, they have its types.
///
/// # Errors
/// [`Error::Decision`] names the field for which there is no column type, or the setting that names no field.
pub fn table_schema(value: &str, key: Option<&str>, shape: &EventShape, format_version: u8) -> Result<TableSchema> {
    let key = key.map(|text| KeySchema::parse(&SchemaText::new(SchemaKind::Avro, text)));
    ValueSchema::avro(value)?.table_schema(key.as_ref(), shape, format_version)
}

impl ValueSchema {
    /// As [`table_schema`], of a schema that is parsed.
    ///
    /// # Errors
    /// As [`table_schema`], and where the schema has none of the record types that the table takes.
    pub fn table_schema(&self, key: Option<&KeySchema>, shape: &EventShape, format_version: u8) -> Result<TableSchema> {
        let rules = Rules { version: format_version, recursive: shape.recursive_types, nanoseconds: shape.nanoseconds };
        let columns = value_columns(self, shape, rules);
        finish(columns.map_err(|e| Error::Decision(format!("value schema: {e}")))?, key, shape, rules)
    }
}

/// The columns of the values.
fn value_columns(value: &ValueSchema, shape: &EventShape, rules: Rules) -> Result<Vec<Field>, String> {
    match &shape.types {
        Types::Any => record_columns(value.only()?, rules),
        Types::One(_) => match value.records(&shape.types)?.as_slice() {
            [(_, fields), ..] => record_columns(fields, rules),
            [] => Err(format!("it has no record type of the table; it is {value}")),
        },
        Types::Structs(_) => struct_columns(value, shape, rules),
    }
}

/// One struct for each record type, behind the columns that all of them share.
fn struct_columns(value: &ValueSchema, shape: &EventShape, rules: Rules) -> Result<Vec<Field>, String> {
    let (mut shared, mut structs) = (Vec::<Field>::new(), Vec::new());
    for (name, fields) in value.records(&shape.types)? {
        let within = |e: String| format!("record type {name}: {e}");
        let columns = record_columns(fields, rules).map_err(within)?;
        for wanted in shape.shared() {
            let column = columns.iter().find(|c| c.name == *wanted).ok_or_else(|| {
                within(format!(
                    "it has no field `{wanted}`, which `key`, `order_by` or `delete` name: all record types need it"
                ))
            })?;
            match shared.iter_mut().find(|c| c.name == *wanted) {
                Some(before) if before.kind != column.kind => {
                    let (kind, other) = (&column.kind, &before.kind);
                    return Err(within(format!(
                        "its field `{wanted}` is {kind}, and in another record type it is {other}"
                    )));
                }
                Some(before) => before.required &= column.required,
                None => shared.push(column.clone()),
            }
        }
        structs.push(Field::new(Types::column(name), Type::Struct(columns), false));
    }
    shared.extend(structs);
    Ok(shared)
}

fn finish(mut columns: Vec<Field>, key: Option<&KeySchema>, shape: &EventShape, rules: Rules) -> Result<TableSchema> {
    let mut key_names = Vec::new();
    if shape.keyed_by_record() {
        let key = key.ok_or_else(|| {
            Error::Decision(
                "the record key has no schema, so its fields cannot be the primary key: name the columns under `key`"
                    .into(),
            )
        })?;
        let fields = record_columns(key.fields()?, rules).map_err(|e| Error::Decision(format!("key schema: {e}")))?;
        for field in fields {
            key_names.push(field.name.clone());
            match columns.iter_mut().find(|c| c.name == field.name) {
                Some(column) => column.kind = field.kind,
                None => columns.push(field),
            }
        }
    } else if shape.mode == Mode::Upsert {
        key_names = shape.key.clone().unwrap_or_default();
    }
    require_keys(&mut columns, &key_names)?;
    check_settings(&columns, shape)?;
    if let Some(name) = &shape.lineage {
        if columns.iter().any(|c| c.name.eq_ignore_ascii_case(name)) {
            return Err(Error::Decision(format!(
                "the value has a field `{name}`, which is the name of the lineage column: set `lineage` to another name"
            )));
        }
        columns.push(lineage_column(name));
    }
    check_names(&columns).map_err(Error::Decision)?;
    row_bytes(&columns, ROW_BYTES_MAX)?;
    let mut table = TableSchema { fields: columns, key: key_names };
    table.number();
    Ok(table)
}

/// The lineage column. It is optional, because rows of foreign writers have none; in a row of ours only the timestamp may
/// be unknown.
pub fn lineage_column(name: &str) -> Field {
    let fields = vec![
        Field::new("topic", Type::String, true),
        Field::new("partition", Type::Int, true),
        Field::new("offset", Type::Long, true),
        Field::new("timestamp", Type::Timestamp { utc: true }, false),
    ];
    let mut column = Field::new(name, Type::Struct(fields), false);
    column.doc = Some("where in Kafka the row's last event was".into());
    column
}

fn require_keys(columns: &mut [Field], key: &[String]) -> Result<()> {
    for (i, name) in key.iter().enumerate() {
        if key[..i].contains(name) {
            return Err(Error::Decision(format!("`key` names the column `{name}` twice")));
        }
        let names = columns.iter().map(|c| c.name.clone()).collect::<Vec<_>>().join(", ");
        let column = columns.iter_mut().find(|c| c.name == *name);
        let column = column.ok_or_else(|| {
            Error::Decision(format!("`key` names `{name}`, which the value does not have; its fields are {names}"))
        })?;
        check_key(column)?;
        column.required = true;
    }
    Ok(())
}

/// Refuses columns of which no table or no batch can be made: none at all, or rows of more than `most` bytes even where all
/// is null. Returns about how many bytes a row takes at least.
pub fn row_bytes(columns: &[Field], most: u64) -> Result<usize> {
    if columns.is_empty() {
        return Err(Error::Decision("a record without fields makes no table: give it one".into()));
    }
    let bytes = schema::row_bytes(columns);
    if bytes > most {
        return Err(Error::Decision(format!(
            "a row of these {} columns takes {bytes} bytes even where all is null; {most} are possible: use bytes instead \
             of wide fixed types",
            columns.len()
        )));
    }
    Ok(bytes as usize)
}

/// Refuses a column that cannot be part of a key.
pub fn check_key(column: &Field) -> Result<()> {
    match column.kind {
        Type::Float | Type::Double | Type::Struct(_) | Type::List(_) | Type::Map(..) => Err(Error::Decision(format!(
            "column `{}` of type {} cannot be part of a key: use an integer, string, uuid, decimal, date, time, timestamp, \
             fixed or binary column",
            column.name, column.kind
        ))),
        _ => Ok(()),
    }
}

/// Checks that `order_by` and `delete` name columns of types that they can use.
pub fn check_settings(columns: &[Field], shape: &EventShape) -> Result<()> {
    if shape.mode == Mode::Append {
        return Ok(());
    }
    let find = |setting: &str, name: &str| {
        let column = columns.iter().find(|c| c.name == name);
        column.ok_or_else(|| Error::Decision(format!("`{setting}` names `{name}`, which is not a column of the table")))
    };
    if let Some(name) = &shape.order_by {
        let column = find("order_by", name)?;
        if !is_orderable(&column.kind) {
            return Err(Error::Decision(format!(
                "`order_by` names `{name}` of type {}: use an integer, float, date, time, timestamp or decimal of at most \
                 18 digits",
                column.kind
            )));
        }
    }
    if let DeleteBy::Field { field, .. } = &shape.delete {
        let column = find("delete.field", field)?;
        if !matches!(column.kind, Type::String | Type::Int | Type::Long | Type::Boolean) {
            return Err(Error::Decision(format!(
                "`delete.field` names `{field}` of type {}: use a string, enum, integer or boolean",
                column.kind
            )));
        }
    }
    Ok(())
}

fn record_columns(fields: &[AvroField], rules: Rules) -> Result<Vec<Field>, String> {
    let columns = struct_fields(fields, rules);
    columns.map_err(|(path, what)| format!("field `{path}`: {what}"))
}

/// A field that is only ever null has nothing to keep: it gets its column once it has another type.
fn struct_fields(fields: &[AvroField], rules: Rules) -> Result<Vec<Field>, Fault> {
    let kept = fields.iter().filter(|field| !field.kind.is_only_null());
    let columns = kept.map(|field| {
        let (kind, required) = column_type(&field.kind, rules).map_err(below(&field.name))?;
        let mut column = column(field, kind, required);
        if rules.version >= 3 {
            column.write_default = field.default.as_ref().and_then(|json| default::constant(&field.kind, json));
        }
        Ok(column)
    });
    columns.collect()
}

fn column(field: &AvroField, kind: Type, required: bool) -> Field {
    Field { doc: field.doc.clone(), aliases: field.aliases.clone(), ..Field::new(&field.name, kind, required) }
}

/// What decides on columns besides the schema.
#[derive(Clone, Copy)]
struct Rules {
    /// Of the table's format.
    version: u8,
    recursive: RecursiveTypes,
    nanoseconds: Nanoseconds,
}

/// A path below a field, and what is wrong there.
type Fault = (String, String);

fn below(name: &str) -> impl Fn(Fault) -> Fault + '_ {
    move |(path, what)| (if path.is_empty() { name.to_string() } else { format!("{name}.{path}") }, what)
}

/// The column type of an Avro type, and whether it is never null.
fn column_type(avro: &Avro, rules: Rules) -> Result<(Type, bool), Fault> {
    let fault = |what: String| Err((String::new(), what));
    let kind = match avro {
        Avro::Union(branches) => match avro.optional() {
            Some((inner, nullable)) => {
                let (kind, _) = column_type(inner, rules)?;
                return Ok((kind, !nullable));
            }
            None if avro.is_only_null() => return fault("a type that is only null has no column type".into()),
            None => return union_type(branches, rules),
        },
        Avro::Null => return fault("a type that is only null has no column type".into()),
        Avro::Duration => Type::Struct(DURATION.map(|part| Field::new(part, Type::Long, true)).into()),
        Avro::Recursive(_) if rules.recursive == RecursiveTypes::Json => Type::String,
        Avro::Recursive(of) => {
            return fault(format!(
                "type `{}` contains itself, which no table column can; `recursive_types: json` keeps such a value as JSON text",
                of.full_name
            ));
        }
        Avro::Boolean => Type::Boolean,
        Avro::Int => Type::Int,
        Avro::Long => Type::Long,
        Avro::Float => Type::Float,
        Avro::Double => Type::Double,
        Avro::Bytes => Type::Binary,
        Avro::String | Avro::Enum(_) => Type::String,
        Avro::Fixed(n) if (1..=FIXED_BYTES_MAX).contains(n) => Type::Fixed(*n as u32),
        Avro::Fixed(n) => return fault(format!("a fixed of {n} bytes has no column type (1 to {FIXED_BYTES_MAX} do)")),
        Avro::Decimal { precision, scale, .. } if *precision <= 38 => {
            Type::Decimal { precision: *precision, scale: *scale }
        }
        Avro::Decimal { .. } => return fault(format!("{avro} has more than the 38 digits of a column")),
        Avro::UuidText | Avro::UuidBytes => Type::Uuid,
        Avro::Date => Type::Date,
        Avro::TimeMillis | Avro::TimeMicros => Type::Time,
        Avro::Timestamp { unit: Unit::Nanos, utc } if rules.version >= 3 => Type::TimestampNanos { utc: *utc },
        Avro::Timestamp { unit: Unit::Nanos, .. } => {
            return fault(format!("{avro} needs a table of format version 3, this one has {}", rules.version));
        }
        Avro::Timestamp { utc, .. } => Type::Timestamp { utc: *utc },
        Avro::Instant if rules.nanoseconds != Nanoseconds::Keep => Type::Timestamp { utc: true },
        Avro::Instant if rules.version >= 3 => Type::TimestampNanos { utc: true },
        Avro::Instant => {
            return fault(format!(
                "`nanoseconds: keep` needs a table of format version 3, this one has {}",
                rules.version
            ));
        }
        Avro::Record(_) if avro.is_bare() => return fault("a record without fields has no column type".into()),
        Avro::Record(fields) => Type::Struct(struct_fields(fields, rules)?),
        Avro::Array(items) => {
            let (kind, required) = column_type(items, rules).map_err(below("element"))?;
            Type::List(Box::new(Field::new("element", kind, required)))
        }
        Avro::Map(values) => {
            let (kind, required) = column_type(values, rules).map_err(below("value"))?;
            let key = Field::new("key", Type::String, true);
            Type::Map(Box::new(key), Box::new(Field::new("value", kind, required)))
        }
    };
    Ok((kind, true))
}

/// The column type of a union of more than null and one type. A branch that is a record without fields is told by its tag
/// alone.
fn union_type(branches: &[TypeRef], rules: Rules) -> Result<(Type, bool), Fault> {
    let fault = |what: String| Err((String::new(), what));
    if let Some(name) = shared_name(branches) {
        return fault(format!("two branches of its union are named `{name}`: give one of the types another name"));
    }
    let mut fields = Vec::with_capacity(branches.len());
    for branch in branches.iter().filter(|branch| ***branch != Avro::Null) {
        if branch.name.eq_ignore_ascii_case(TAG) {
            return fault(format!(
                "a branch of its union is named `{}`, and the column's field `{TAG}` says which branch is there: give the type \
                 another name",
                branch.name
            ));
        }
        if !branch.is_bare() {
            let (kind, _) = column_type(branch, rules).map_err(below(&branch.name))?;
            fields.push(Field::new(&*branch.name, kind, false));
        }
    }
    Ok((union_of(fields), branches.iter().all(|branch| **branch != Avro::Null)))
}

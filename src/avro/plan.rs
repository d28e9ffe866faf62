//! What to do with each field of a writer's records to append them to the table's columns, decided once per schema.
//!
//! This is Avro's schema resolution by field name and alias, with the table's columns as the reader: what the table does not know is
//! skipped, what the writer does not have becomes null, numbers are widened, times scaled to the column's unit.

use std::sync::Arc;

use super::avro_type::{Avro, AvroField, TypeRef, Unit};
use super::bad::Reason;
use super::branches::{self, Branch};
use super::recursive::JsonPlan;
use super::schema::DURATION;
use super::write::NANOS;
use crate::core::schema::{Constant, Field, Named, Type, branches_of, matches, memory_of};

/// How many fields that the table does not know are named.
const UNKNOWN_MAX: usize = 100;

/// Up to how many bytes a symbol is short.
const SHORT: usize = 16;

/// How to append a writer's records.
#[derive(Debug, Clone)]
pub struct Plan {
    pub record: Record,
    /// The writer's top-level fields, in step order.
    pub names: Vec<String>,
    /// Paths of writer fields that the table does not know, the first of them.
    pub unknown: Vec<String>,
    /// The bytes of text that the enums of one record may add, those in collections aside.
    pub symbols: usize,
}

/// How to append the fields of a record.
#[derive(Debug, Clone)]
pub struct Record {
    /// One per field of the writer, in wire order.
    pub steps: Vec<Step>,
    /// Columns that the writer does not have, and what they are then; none: null.
    pub missing: Vec<(usize, Option<Constant>)>,
}

/// What to do with one field.
#[derive(Debug, Clone)]
#[repr(u8)]
pub enum Step {
    Append { column: usize, value: Value },
    Skip(Skip),
}

/// How to append one value.
#[derive(Debug, Clone)]
pub struct Value {
    pub union: Union,
    /// Why a null is refused, where it is.
    pub refuse_null: Option<Reason>,
    pub read: Read,
}

/// The union around a value, if any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Union {
    Never,
    /// The value is the only branch.
    Single,
    NullFirst,
    NullLast,
    /// More than null and one type. `null` is that branch as it is on the wire; there may be none.
    Many {
        null: u64,
    },
}

/// How to read a value that is there. What it is stands in a byte of its own: to look it up is a part of every value's cost.
#[derive(Debug, Clone)]
#[repr(u8)]
pub enum Read {
    Boolean,
    Int,
    Long,
    IntToLong,
    Float,
    IntToFloat,
    LongToFloat,
    Double,
    IntToDouble,
    LongToDouble,
    FloatToDouble,
    /// Also for bytes that become text.
    Text,
    Bytes,
    /// The symbols, by index.
    Symbol(Box<[Symbol]>),
    Fixed(usize),
    UuidText,
    /// Sixteen bytes that become the text of a UUID.
    UuidBytesAsText,
    /// Two's complement of `size` bytes, or behind its length; magnitudes stay below `limit`.
    Decimal {
        size: Option<usize>,
        limit: i128,
    },
    TimeMillis,
    TimeMicros,
    /// A timestamp, times this.
    Scaled(i64),
    /// Seconds and nanoseconds that become a timestamp of so many units a second. Finer digits may be cut off, or not.
    Instant {
        per_second: i64,
        exact: bool,
    },
    /// Days, as the timestamp of their midnight.
    DateToTimestamp,
    Record(Record),
    Array(Items),
    Map(Items),
    /// Twelve bytes that become months, days and milliseconds.
    Duration,
    /// One of these, by the writer's index; `None` is null, which was dealt with before.
    Branches(Vec<Option<Branch>>),
    /// A value that is always this branch of the column's union.
    Branch(Box<Branch>),
    /// A value of the type of this number that becomes JSON text.
    Json(Arc<JsonPlan>, usize),
}

/// A symbol of an enum.
#[derive(Debug, Clone)]
pub struct Symbol {
    pub text: Box<str>,
    /// The same with zeros behind it, where it is no longer than this.
    pub short: Option<[u8; SHORT]>,
}

impl Symbol {
    fn new(text: &str) -> Symbol {
        let mut padded = [0; SHORT];
        let short = padded.get_mut(..text.len()).map(|head| head.copy_from_slice(text.as_bytes())).map(|()| padded);
        Symbol { text: text.into(), short }
    }
}

/// The items of an array or map.
#[derive(Debug, Clone)]
pub struct Items {
    pub value: Box<Value>,
    /// The least that an item takes on the wire.
    pub bytes_min: usize,
    /// About what an item takes in the columns.
    pub memory: u64,
}

/// How to pass over a value.
#[derive(Debug, Clone)]
pub enum Skip {
    Nothing,
    Boolean,
    Int,
    Long,
    /// This many bytes.
    Exactly(usize),
    Bytes,
    Text,
    Symbol(usize),
    Record(Vec<Skip>),
    Union(Vec<Skip>),
    Array {
        items: Box<Skip>,
        bytes_min: usize,
    },
    Map {
        values: Box<Skip>,
        bytes_min: usize,
    },
    /// A type inside itself is read as if it were kept. `None`: it is too large to be read at all.
    Recursive(Option<Arc<JsonPlan>>, usize),
}

/// A table's column as a target: where it is, and what a null in it means.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    pub column: usize,
    pub field: &'a Field,
    /// Why a null is refused at reading; `None` in a required column refuses a nullable writer when the plan is made.
    pub refuse_null: Option<Reason>,
}

/// The plan to append records of these fields to these columns. Fields named in `elsewhere` come from another place and are
/// passed over.
///
/// # Errors
/// The path of a field that cannot be read as its column, with both types.
pub fn compile(fields: &[AvroField], targets: &[Target<'_>], elsewhere: &[String]) -> Result<Plan, String> {
    let mut unknown = Vec::new();
    let record = compile_record(fields, targets, elsewhere, "", &mut unknown)?;
    let symbols = fields.iter().map(|f| longest_symbols(&f.kind)).fold(0, u64::saturating_add) as usize;
    Ok(Plan { record, names: fields.iter().map(|f| f.name.clone()).collect(), unknown, symbols })
}

/// The plan to append bare values to one column.
///
/// # Errors
/// As [`compile`].
pub fn compile_single(avro: &TypeRef, target: &Target<'_>) -> Result<Plan, String> {
    let mut unknown = Vec::new();
    let value = compile_value(avro, target.field, target.refuse_null, &target.field.name, &mut unknown)?;
    let steps = vec![Step::Append { column: target.column, value }];
    let record = Record { steps, missing: Vec::new() };
    Ok(Plan { record, names: vec![target.field.name.clone()], unknown, symbols: longest_symbols(avro) as usize })
}

fn compile_record(
    fields: &[AvroField],
    targets: &[Target<'_>],
    elsewhere: &[String],
    path: &str,
    unknown: &mut Vec<String>,
) -> Result<Record, String> {
    let (mut steps, mut missing) = (Vec::with_capacity(fields.len()), Vec::new());
    let columns: Vec<Named<'_>> = targets.iter().map(|t| Named::from(t.field)).collect();
    let names: Vec<Named<'_>> = fields.iter().map(|f| Named { name: &f.name, aliases: &f.aliases }).collect();
    let places = matches(&columns, &names);
    for (field, place) in fields.iter().zip(&places) {
        let path = below(path, &field.name);
        if elsewhere.contains(&field.name) {
            steps.push(Step::Skip(skip(&field.kind)));
        } else if field.kind.is_only_null() {
            let target = place.and_then(|at| targets.get(at));
            if target.is_some_and(|target| target.field.required || target.refuse_null.is_some()) {
                return Err(format!("field `{path}` is null, and its column is required"));
            }
            missing.extend(target.map(|target| (target.column, None)));
            steps.push(Step::Skip(skip(&field.kind)));
        } else if let Some(target) = place.and_then(|at| targets.get(at)) {
            let value = compile_value(&field.kind, target.field, target.refuse_null, &path, unknown)?;
            steps.push(Step::Append { column: target.column, value });
        } else {
            if unknown.len() < UNKNOWN_MAX {
                unknown.push(path);
            }
            steps.push(Step::Skip(skip(&field.kind)));
        }
    }
    let mut found = vec![false; targets.len()];
    places.iter().flatten().for_each(|at| found[*at] = true);
    for (target, _) in targets.iter().zip(&found).filter(|(_, found)| !**found) {
        if target.refuse_null.is_some() || (target.field.required && target.field.write_default.is_none()) {
            let path = below(path, &target.field.name);
            return Err(format!("column `{path}` is required, and the schema has no such field"));
        }
        missing.push((target.column, target.field.write_default.clone()));
    }
    Ok(Record { steps, missing })
}

/// The plan for a value that becomes `column`.
pub fn compile_value(
    avro: &TypeRef,
    column: &Field,
    refuse_null: Option<Reason>,
    path: &str,
    unknown: &mut Vec<String>,
) -> Result<Value, String> {
    let (union, inner) = match (&**avro, avro.optional()) {
        (Avro::Union(branches), None) => (Union::Many { null: branches::null_of(branches) }, avro),
        (Avro::Union(branches), Some((inner, _))) => {
            let union = match branches.as_slice() {
                [_] => Union::Single,
                [first, _] if **first == Avro::Null => Union::NullFirst,
                _ => Union::NullLast,
            };
            (union, inner)
        }
        _ => (Union::Never, avro),
    };
    let nullable = match union {
        Union::NullFirst | Union::NullLast => true,
        Union::Many { null } => null != branches::NO_NULL,
        Union::Never | Union::Single => false,
    };
    if nullable && column.required && refuse_null.is_none() {
        return Err(format!("field `{path}` may be null, and its column is required"));
    }
    let mut read = match (&**inner, branches_of(&column.kind)) {
        (Avro::Union(branches), Some(columns)) => Read::Branches(branches::compile(branches, columns, path, unknown)?),
        (_, Some(columns)) => Read::Branch(Box::new(branches::compile_one(inner, columns, path, unknown)?)),
        _ => compile_read(inner, &column.kind, path, unknown)?,
    };
    // Two keys must not become one.
    if let (Read::Instant { exact, .. }, Some(Reason::NullKey)) = (&mut read, refuse_null) {
        *exact = true;
    }
    Ok(Value { union, refuse_null, read })
}

fn compile_read(avro: &Avro, kind: &Type, path: &str, unknown: &mut Vec<String>) -> Result<Read, String> {
    let unreadable = || Err(format!("field `{path}`: {avro} cannot be read as the column's {kind}"));
    Ok(match (avro, kind) {
        (Avro::Boolean, Type::Boolean) => Read::Boolean,
        (Avro::Int, Type::Int) | (Avro::Date, Type::Date) => Read::Int,
        (Avro::Int, Type::Long) => Read::IntToLong,
        (Avro::Int, Type::Float) => Read::IntToFloat,
        (Avro::Int, Type::Double) => Read::IntToDouble,
        (Avro::Long, Type::Long) => Read::Long,
        (Avro::Long, Type::Float) => Read::LongToFloat,
        (Avro::Long, Type::Double) => Read::LongToDouble,
        (Avro::Float, Type::Float) => Read::Float,
        (Avro::Float, Type::Double) => Read::FloatToDouble,
        (Avro::Double, Type::Double) => Read::Double,
        (Avro::String | Avro::Bytes | Avro::UuidText, Type::String) => Read::Text,
        (Avro::Bytes | Avro::String, Type::Binary) => Read::Bytes,
        (Avro::UuidBytes, Type::String) => Read::UuidBytesAsText,
        (Avro::Enum(symbols), Type::String | Type::Binary) => {
            Read::Symbol(symbols.iter().map(|symbol| Symbol::new(symbol)).collect())
        }
        (Avro::Fixed(n), Type::Fixed(m)) if *n == *m as usize => Read::Fixed(*n),
        (Avro::UuidBytes, Type::Uuid) => Read::Fixed(16),
        (Avro::UuidText, Type::Uuid) => Read::UuidText,
        (Avro::TimeMillis, Type::Time) => Read::TimeMillis,
        (Avro::TimeMicros, Type::Time) => Read::TimeMicros,
        (Avro::Date, Type::Timestamp { utc: false }) => Read::DateToTimestamp,
        (Avro::Timestamp { unit, utc }, Type::Timestamp { utc: zone } | Type::TimestampNanos { utc: zone })
            if utc == zone =>
        {
            match (unit, kind) {
                (Unit::Millis, Type::Timestamp { .. }) | (Unit::Micros, Type::TimestampNanos { .. }) => {
                    Read::Scaled(1000)
                }
                (Unit::Millis, _) => Read::Scaled(1_000_000),
                (Unit::Nanos, Type::Timestamp { .. }) => return unreadable(),
                _ => Read::Long,
            }
        }
        (Avro::Instant, Type::Timestamp { utc: true }) => Read::Instant { per_second: 1_000_000, exact: false },
        (Avro::Instant, Type::TimestampNanos { utc: true }) => {
            Read::Instant { per_second: i64::from(NANOS), exact: true }
        }
        (Avro::Decimal { precision, scale, size }, Type::Decimal { precision: wide, scale: column_scale })
            if scale == column_scale && precision <= wide && *precision <= 38 =>
        {
            Read::Decimal { size: *size, limit: 10i128.pow(u32::from(*precision)) }
        }
        (Avro::Duration, Type::Struct(parts)) if is_duration(parts) => Read::Duration,
        (Avro::Recursive(of), Type::String) => {
            Read::Json(of.all.plan().map_err(|e| format!("field `{path}`: {e}"))?, of.number)
        }
        (Avro::Record(fields), Type::Struct(columns)) => {
            let target = |(column, field)| Target { column, field, refuse_null: None };
            let targets: Vec<_> = columns.iter().enumerate().map(target).collect();
            Read::Record(compile_record(fields, &targets, &[], path, unknown)?)
        }
        (Avro::Array(items), Type::List(element)) => Read::Array(compile_items(items, element, 0, path, unknown)?),
        (Avro::Map(values), Type::Map(key, value)) if key.kind == Type::String => {
            // Each entry also has a key of at least one byte.
            Read::Map(compile_items(values, value, 1, path, unknown)?)
        }
        _ => return unreadable(),
    })
}

fn is_duration(parts: &[Field]) -> bool {
    parts.len() == DURATION.len() && parts.iter().zip(DURATION).all(|(f, name)| f.name == name && f.kind == Type::Long)
}

fn compile_items(
    items: &TypeRef,
    field: &Field,
    more_bytes: usize,
    path: &str,
    unknown: &mut Vec<String>,
) -> Result<Items, String> {
    let value = compile_value(items, field, None, &below(path, &field.name), unknown)?;
    let memory = memory_of(&field.kind).saturating_add(longest_symbols(items));
    Ok(Items { value: Box::new(value), bytes_min: items.bytes_min().saturating_add(more_bytes), memory })
}

/// The text that the enums of a value can add at most; [`Items::memory`] has that of collections below it.
fn longest_symbols(avro: &Avro) -> u64 {
    match avro {
        Avro::Enum(symbols) => symbols.iter().map(|s| s.len()).max().unwrap_or(0) as u64,
        Avro::Record(fields) => fields.iter().map(|f| longest_symbols(&f.kind)).fold(0, u64::saturating_add),
        // The branch's name, too, where it becomes a tag.
        Avro::Union(branches) => {
            branches.iter().map(|b| longest_symbols(b).saturating_add(b.name.len() as u64)).max().unwrap_or(0)
        }
        _ => 0,
    }
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_string() } else { format!("{path}.{name}") }
}

/// How to pass over a value of this type.
pub fn skip(avro: &Avro) -> Skip {
    match avro {
        Avro::Null => Skip::Nothing,
        Avro::Boolean => Skip::Boolean,
        Avro::Int | Avro::Date | Avro::TimeMillis => Skip::Int,
        Avro::Long | Avro::TimeMicros | Avro::Timestamp { .. } => Skip::Long,
        Avro::Float => Skip::Exactly(4),
        Avro::Double => Skip::Exactly(8),
        Avro::Fixed(n) | Avro::Decimal { size: Some(n), .. } => Skip::Exactly(*n),
        Avro::UuidBytes => Skip::Exactly(16),
        Avro::Instant => Skip::Record(vec![Skip::Long, Skip::Long]),
        Avro::Duration => Skip::Exactly(12),
        Avro::Recursive(of) => Skip::Recursive(of.all.plan().ok(), of.number),
        Avro::Bytes | Avro::Decimal { size: None, .. } => Skip::Bytes,
        Avro::String | Avro::UuidText => Skip::Text,
        Avro::Enum(symbols) => Skip::Symbol(symbols.len()),
        Avro::Record(fields) => Skip::Record(fields.iter().map(|f| skip(&f.kind)).collect()),
        Avro::Union(branches) => Skip::Union(branches.iter().map(|b| skip(b)).collect()),
        Avro::Array(items) => Skip::Array { items: Box::new(skip(items)), bytes_min: items.bytes_min() },
        Avro::Map(values) => {
            Skip::Map { values: Box::new(skip(values)), bytes_min: values.bytes_min().saturating_add(1) }
        }
    }
}

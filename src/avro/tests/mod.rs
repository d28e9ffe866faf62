//! What the decoder promises, over its public face.

mod bad_records;
mod defaults;
mod evolution;
mod keys;
pub mod oracle;
mod recursive;
mod resolution;
mod schemas;
mod times;
mod unions;
mod values;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UnionArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, Time32MillisecondType,
    Time64MicrosecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
};

use super::*;
use crate::core::change::Key;

pub fn upsert(key: &[&str]) -> EventShape {
    EventShape {
        mode: Mode::Upsert,
        key: Some(key.iter().map(ToString::to_string).collect()),
        record_key: None,
        order_by: None,
        delete: DeleteBy::Tombstone,
        lineage: None,
        types: Types::Any,
        recursive_types: RecursiveTypes::Refuse,
        nanoseconds: Nanoseconds::Truncate,
    }
}

pub fn append() -> EventShape {
    EventShape { mode: Mode::Append, key: None, ..upsert(&[]) }
}

/// Keys that are equal where the rendered key columns are.
pub fn encode() -> EncodeKeys {
    Box::new(|columns: &[ArrayRef]| {
        let rows = columns.first().map_or(0, |c| c.len());
        Ok((0..rows).map(|row| key_of(&columns.iter().map(|c| render(c, row)).collect::<Vec<_>>())).collect())
    })
}

/// The key of these rendered values.
pub fn key_of(values: &[impl AsRef<str>]) -> Key {
    let mut hasher = DefaultHasher::new();
    values.iter().for_each(|v| v.as_ref().hash(&mut hasher));
    Key(u128::from(hasher.finish()))
}

/// A decoder for the table that this schema makes; the schema has id 1.
pub fn decoder(schema: &str, shape: &EventShape) -> Decoder {
    let table = table_schema(schema, None, shape, 3).unwrap();
    let mut decoder = Decoder::new(&table, shape, encode()).unwrap();
    decoder.add_value_schema(1, schema).unwrap();
    decoder
}

/// The wire format of a body.
pub fn wire(id: u32, body: &[u8]) -> Vec<u8> {
    [&[0][..], &id.to_be_bytes(), body].concat()
}

pub fn push(decoder: &mut Decoder, offset: i64, key: Option<&[u8]>, value: Option<&[u8]>) -> Pushed {
    let topic: Arc<str> = Arc::from("trades");
    decoder.push(&Event { topic: &topic, partition: 3, offset, timestamp_ms: 1_000 + offset, key, value })
}

pub fn push_body(decoder: &mut Decoder, body: &[u8]) -> Pushed {
    let offset = decoder.events() as i64;
    push(decoder, offset, None, Some(&wire(1, body)))
}

/// What the decoder makes of a body of schema 1: its row as JSON, or why there is none.
pub fn row_of(decoder: &mut Decoder, body: &[u8]) -> Result<serde_json::Value, Reason> {
    match push(decoder, 0, None, Some(&wire(1, body))) {
        Pushed::Row => {
            let mut lines = arrow::json::LineDelimitedWriter::new(Vec::new());
            lines.write(&decoder.finish().unwrap().batch).unwrap();
            lines.finish().unwrap();
            Ok(serde_json::from_slice(&lines.into_inner()).unwrap())
        }
        Pushed::Bad(bad) => Err(bad.reason),
        other => panic!("{other:?}"),
    }
}

pub fn reason(pushed: &Pushed) -> Option<Reason> {
    match pushed {
        Pushed::Bad(bad) => Some(bad.reason),
        _ => None,
    }
}

pub fn long(value: i64) -> Vec<u8> {
    let mut raw = ((value << 1) ^ (value >> 63)) as u64;
    let mut out = Vec::new();
    while raw >= 0x80 {
        out.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
    out
}

pub fn text(value: &str) -> Vec<u8> {
    [&long(value.len() as i64)[..], value.as_bytes()].concat()
}

pub fn record(fields: &str) -> String {
    format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#)
}

/// All rows of a batch as text.
pub fn rows(batch: &RecordBatch) -> Vec<String> {
    let row = |row| batch.columns().iter().map(|c| render(c, row)).collect::<Vec<_>>().join(" ");
    (0..batch.num_rows()).map(row).collect()
}

/// A value as text, whatever layout, unit or field names an array has.
pub fn render(array: &dyn Array, row: usize) -> String {
    if array.is_null(row) {
        return "null".into();
    }
    match array.data_type() {
        DataType::Boolean => array.as_boolean().value(row).to_string(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Float32 => format!("{:?}", array.as_primitive::<Float32Type>().value(row)),
        DataType::Float64 => format!("{:?}", array.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal128(_, scale) => format!("{}e-{scale}", array.as_primitive::<Decimal128Type>().value(row)),
        DataType::Date32 => format!("day {}", array.as_primitive::<Date32Type>().value(row)),
        DataType::Time32(_) => {
            format!("{} us", i64::from(array.as_primitive::<Time32MillisecondType>().value(row)) * 1000)
        }
        DataType::Time64(_) => format!("{} us", array.as_primitive::<Time64MicrosecondType>().value(row)),
        DataType::Timestamp(unit, zone) => {
            let (value, unit) = match unit {
                TimeUnit::Millisecond => (array.as_primitive::<TimestampMillisecondType>().value(row) * 1000, "us"),
                TimeUnit::Microsecond => (array.as_primitive::<TimestampMicrosecondType>().value(row), "us"),
                _ => (array.as_primitive::<TimestampNanosecondType>().value(row), "ns"),
            };
            format!("{value} {unit}{}", if zone.is_some() { "Z" } else { "" })
        }
        DataType::Utf8 => format!("{:?}", array.as_string::<i32>().value(row)),
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            render(dictionary.values().as_ref(), dictionary.normalized_keys()[row])
        }
        DataType::Binary => format!("{:02x?}", array.as_binary::<i32>().value(row)),
        DataType::FixedSizeBinary(_) => format!("{:02x?}", array.as_fixed_size_binary().value(row)),
        DataType::Struct(_) => {
            let fields = array.as_struct().columns().iter().map(|c| render(c, row)).collect::<Vec<_>>();
            format!("{{{}}}", fields.join(" "))
        }
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            format!("[{}]", (0..items.len()).map(|i| render(&items, i)).collect::<Vec<_>>().join(" "))
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            format!("<{}>", (0..entries.len()).map(|i| render(&entries, i)).collect::<Vec<_>>().join(" "))
        }
        DataType::Union(..) => render_union(array.as_any().downcast_ref().unwrap(), row),
        DataType::Null => "null".into(),
        other => panic!("no rendering of {other}"),
    }
}

/// As the struct that a table has in its place: the branch's Avro name, then a value for each branch but null.
fn render_union(array: &UnionArray, row: usize) -> String {
    let DataType::Union(fields, _) = array.data_type() else { panic!() };
    let (chosen, value) = (array.type_id(row), array.value(row));
    if *value.data_type() == DataType::Null || value.is_null(0) {
        return "null".into();
    }
    let branches: Vec<_> = fields.iter().filter(|(_, field)| *field.data_type() != DataType::Null).collect();
    if branches.len() == 1 {
        return render(&value, 0);
    }
    let mut parts = Vec::new();
    for (id, field) in branches {
        let is_named = field.name().ends_with(|last: char| last.is_ascii_digit());
        let name = match field.data_type() {
            _ if is_named => field.name(),
            DataType::Date32 | DataType::Time32(_) => "int",
            DataType::Time64(_) | DataType::Timestamp(..) => "long",
            DataType::Decimal128(..) => "bytes",
            DataType::FixedSizeBinary(_) => "string",
            _ => field.name(),
        };
        if id == chosen {
            parts.insert(0, format!("{name:?}"));
        }
        parts.push(if id == chosen { render(&value, 0) } else { "null".into() });
    }
    format!("{{{}}}", parts.join(" "))
}

/// Whether two values are equal, but for the last digit of fractions, which serde_json does not always read exactly.
pub fn same(a: &serde_json::Value, b: &serde_json::Value) -> bool {
    use serde_json::Value;
    match (a, b) {
        (Value::Number(x), Value::Number(y)) if x.is_f64() || y.is_f64() => {
            let (x, y) = (x.as_f64().unwrap(), y.as_f64().unwrap());
            (x - y).abs() <= x.abs() * 1e-15
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}

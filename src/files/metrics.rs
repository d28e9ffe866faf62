//! Per-column figures of a data file, from what its writer knows.

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Fields, Float32Type, Float64Type};
use iceberg::spec::{Datum, PrimitiveType, Schema};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::statistics::Statistics;
use parquet::schema::types::ColumnDescriptor;

use super::{Metrics, from_iceberg};
use crate::Result;
use crate::core::schema::field_id;

/// Code points of a string bound and bytes of a binary one; the default of Iceberg's own writers.
const BOUND_LENGTH: usize = 16;

/// NaN counts and bounds of float columns outside lists and maps. Parquet's statistics say nothing where a row group has
/// only NaN, and do not count them.
#[derive(Debug, Default)]
pub(super) struct Floats(HashMap<i32, Float>);

#[derive(Debug, Clone, Copy, Default)]
struct Float {
    nans: u64,
    /// Smallest and largest value that is not NaN.
    bounds: Option<(f64, f64)>,
}

impl Floats {
    /// Takes rows in; costs something only where there are float columns.
    pub(super) fn add(&mut self, batch: &RecordBatch) {
        self.visit(batch.schema_ref().fields(), batch.columns(), None);
    }

    fn visit(&mut self, fields: &Fields, columns: &[ArrayRef], absent: Option<&NullBuffer>) {
        for (field, column) in fields.iter().zip(columns) {
            match field.data_type() {
                DataType::Struct(inner) => {
                    let nulls = NullBuffer::union(absent, column.nulls());
                    self.visit(inner, column.as_struct().columns(), nulls.as_ref());
                }
                DataType::Float32 | DataType::Float64 => {
                    let Some(id) = field_id(field) else { continue };
                    let nulls = NullBuffer::union(absent, column.nulls());
                    let tally = self.0.entry(id).or_default();
                    if *field.data_type() == DataType::Float32 {
                        let values = column.as_primitive::<Float32Type>().values();
                        tally.add(values.iter().map(|v| f64::from(*v)), nulls.as_ref());
                    } else {
                        tally.add(column.as_primitive::<Float64Type>().values().iter().copied(), nulls.as_ref());
                    }
                }
                _ => {}
            }
        }
    }
}

impl Float {
    fn add(&mut self, values: impl Iterator<Item = f64>, nulls: Option<&NullBuffer>) {
        let (mut low, mut high, mut nans, mut seen) = (f64::INFINITY, f64::NEG_INFINITY, 0, false);
        let mut one = |v: f64| {
            if v.is_nan() {
                nans += 1;
            } else {
                low = low.min(v);
                high = high.max(v);
                seen = true;
            }
        };
        match nulls.filter(|n| n.null_count() > 0) {
            None => values.for_each(one),
            Some(nulls) => values.zip(nulls.iter()).filter(|(_, valid)| *valid).for_each(|(v, _)| one(v)),
        }
        self.nans += nans;
        if seen {
            let (l, h) = self.bounds.unwrap_or((low, high));
            self.bounds = Some((l.min(low), h.max(high)));
        }
    }

    /// Zeros of either sign compare equal above but are ordered in Iceberg: the bounds take both in.
    fn signed_bounds(&self) -> Option<(f64, f64)> {
        self.bounds.map(|(low, high)| (if low == 0.0 { -0.0 } else { low }, if high == 0.0 { 0.0 } else { high }))
    }
}

/// Figures of every leaf column that has a field id. Columns inside lists and maps have sizes and counts only.
pub(super) fn from_parquet(file: &ParquetMetaData, schema: &Schema, floats: &Floats) -> Result<Metrics> {
    let mut metrics = Metrics::default();
    for (i, column) in file.file_metadata().schema_descr().columns().iter().enumerate() {
        let info = column.self_type().get_basic_info();
        if !info.has_id() {
            continue;
        }
        let id = info.id();
        let chunks: Vec<_> = file.row_groups().iter().map(|group| group.column(i)).collect();
        metrics.column_sizes.insert(id, chunks.iter().map(|c| c.compressed_size().max(0) as u64).sum());
        metrics.value_counts.insert(id, chunks.iter().map(|c| c.num_values().max(0) as u64).sum());
        let nulls: Option<u64> = chunks.iter().map(|c| c.statistics()?.null_count_opt()).sum();
        if let Some(nulls) = nulls {
            metrics.null_value_counts.insert(id, nulls);
        }
        let kind = schema.field_by_id(id).and_then(|f| f.field_type.as_primitive_type());
        if let Some(kind) = kind
            && column.max_rep_level() == 0
        {
            bounds(&mut metrics, id, kind, column, &chunks, floats)?;
        }
    }
    Ok(metrics)
}

fn bounds(
    metrics: &mut Metrics,
    id: i32,
    kind: &PrimitiveType,
    column: &ColumnDescriptor,
    chunks: &[&ColumnChunkMetaData],
    floats: &Floats,
) -> Result<()> {
    let (low, high) = if matches!(kind, PrimitiveType::Float | PrimitiveType::Double) {
        let float = floats.0.get(&id).copied().unwrap_or_default();
        metrics.nan_value_counts.insert(id, float.nans);
        let Some((low, high)) = float.signed_bounds() else { return Ok(()) };
        (Some(float_bytes(low, kind)), Some(float_bytes(high, kind)))
    } else {
        let Some((low, high)) = range(column, chunks) else { return Ok(()) };
        (spec_bytes(low, kind, End::Lower), spec_bytes(high, kind, End::Upper))
    };
    let datum = |bytes: Vec<u8>| {
        Datum::try_from_bytes(&bytes, kind.clone()).map_err(|e| from_iceberg(&format!("bad bound of field {id}"), &e))
    };
    if let Some(low) = low {
        metrics.lower_bounds.insert(id, datum(low)?);
    }
    if let Some(high) = high {
        metrics.upper_bounds.insert(id, datum(high)?);
    }
    Ok(())
}

/// A value of Parquet statistics in a form whose order is the column's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    Number(i128),
    Bytes(Vec<u8>),
}

/// Smallest and largest value over all row groups; `None` where one does not say, or there is no value.
fn range(column: &ColumnDescriptor, chunks: &[&ColumnChunkMetaData]) -> Option<(Value, Value)> {
    let mut all: Option<(Value, Value)> = None;
    for chunk in chunks {
        let statistics = chunk.statistics()?;
        if statistics.null_count_opt().is_some_and(|nulls| nulls as i64 == chunk.num_values()) {
            continue;
        }
        let (low, high) = of_row_group(column, statistics)?;
        all = Some(match all {
            None => (low, high),
            Some((l, h)) => (l.min(low), h.max(high)),
        });
    }
    all
}

fn of_row_group(column: &ColumnDescriptor, statistics: &Statistics) -> Option<(Value, Value)> {
    let exact = statistics.min_is_exact() && statistics.max_is_exact();
    let number = |low: i128, high: i128| Some((Value::Number(low), Value::Number(high)));
    match statistics {
        Statistics::Boolean(s) if exact => number((*s.min_opt()?).into(), (*s.max_opt()?).into()),
        Statistics::Int32(s) if exact => number((*s.min_opt()?).into(), (*s.max_opt()?).into()),
        Statistics::Int64(s) if exact => number((*s.min_opt()?).into(), (*s.max_opt()?).into()),
        Statistics::FixedLenByteArray(s) if exact => {
            let (low, high) = (s.min_bytes_opt()?, s.max_bytes_opt()?);
            match column.logical_type_ref() {
                Some(parquet::basic::LogicalType::Decimal { .. }) => number(signed(low)?, signed(high)?),
                _ => Some((Value::Bytes(low.into()), Value::Bytes(high.into()))),
            }
        }
        // What the writer cut is still a bound: a prefix below, a rounded-up prefix above.
        Statistics::ByteArray(s) => {
            Some((Value::Bytes(s.min_bytes_opt()?.into()), Value::Bytes(s.max_bytes_opt()?.into())))
        }
        _ => None,
    }
}

/// A big-endian two's-complement number.
fn signed(bytes: &[u8]) -> Option<i128> {
    let first = *bytes.first()?;
    let mut wide = [if first & 0x80 == 0 { 0 } else { 0xFF }; 16];
    wide[16_usize.checked_sub(bytes.len())?..].copy_from_slice(bytes);
    Some(i128::from_be_bytes(wide))
}

fn float_bytes(value: f64, kind: &PrimitiveType) -> Vec<u8> {
    // A float column's bounds are its own values, widened: narrowing them again is exact.
    if *kind == PrimitiveType::Float { (value as f32).to_le_bytes().into() } else { value.to_le_bytes().into() }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Lower,
    Upper,
}

/// A bound in the specification's single-value form; `None` where there is no short enough upper bound.
fn spec_bytes(value: Value, kind: &PrimitiveType, end: End) -> Option<Vec<u8>> {
    match (value, kind) {
        (Value::Number(v), PrimitiveType::Boolean) => Some(vec![u8::from(v != 0)]),
        (Value::Number(v), PrimitiveType::Int | PrimitiveType::Date) => {
            Some(i32::try_from(v).ok()?.to_le_bytes().into())
        }
        (Value::Number(v), PrimitiveType::Decimal { .. }) => Some(v.to_be_bytes().into()),
        (Value::Number(v), _) => Some(i64::try_from(v).ok()?.to_le_bytes().into()),
        (Value::Bytes(v), PrimitiveType::String) => {
            let text = String::from_utf8(v).ok()?;
            let bound = if end == End::Lower { Some(prefix(&text).to_string()) } else { string_above(&text) };
            bound.map(String::into_bytes)
        }
        (Value::Bytes(v), PrimitiveType::Binary) if v.len() > BOUND_LENGTH => match end {
            End::Lower => Some(v[..BOUND_LENGTH].to_vec()),
            End::Upper => bytes_above(&v[..BOUND_LENGTH]),
        },
        (Value::Bytes(v), _) => Some(v),
    }
}

fn prefix(text: &str) -> &str {
    text.char_indices().nth(BOUND_LENGTH).map_or(text, |(end, _)| &text[..end])
}

/// The shortest cut string that is not below `text`.
fn string_above(text: &str) -> Option<String> {
    let cut = prefix(text);
    if cut.len() == text.len() {
        return Some(cut.to_string());
    }
    let mut chars: Vec<char> = cut.chars().collect();
    while let Some(last) = chars.pop() {
        // Surrogates are no characters: the one after U+D7FF is U+E000.
        let next = if last == '\u{D7FF}' { Some('\u{E000}') } else { char::from_u32(last as u32 + 1) };
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

fn bytes_above(cut: &[u8]) -> Option<Vec<u8>> {
    let last = cut.iter().rposition(|b| *b != 0xFF)?;
    let mut above = cut[..=last].to_vec();
    above[last] += 1;
    Some(above)
}

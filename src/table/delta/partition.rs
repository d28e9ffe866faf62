//! Partition values as text, both ways, and the text of dates and times.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, StringArray, new_null_array};
use arrow::compute::{CastOptions, cast, cast_with_options, take};
use arrow::datatypes::DataType;
use arrow::util::display::FormatOptions;
use iceberg::spec::{Literal, PrimitiveLiteral, Struct};

use super::actions::PartitionValues;
use super::schema::Columns;
use super::stats::decimal;
use crate::core::schema::{Field, Type, to_arrow};
use crate::error::{Error, Result};

const MILLIS_PER_DAY: i64 = 86_400_000;

/// `yyyy-mm-dd`; none beyond the years that every reader takes.
pub(super) fn date(days: i64) -> Option<String> {
    let date = chrono::DateTime::from_timestamp_millis(days.checked_mul(MILLIS_PER_DAY)?)?.date_naive();
    let text = date.format("%Y-%m-%d").to_string();
    (text.len() == 10).then_some(text)
}

/// `yyyy-mm-ddThh:mm:ss.mmm`; none beyond the years that every reader takes.
pub(super) fn timestamp_millis(millis: i64) -> Option<String> {
    let text = chrono::DateTime::from_timestamp_millis(millis)?.naive_utc().format("%Y-%m-%dT%H:%M:%S%.3f").to_string();
    (text.len() == 23).then_some(text)
}

/// Refuses columns by which Firn does not partition Delta tables.
pub(super) fn check(field: &Field) -> Result<()> {
    match field.kind {
        Type::Boolean
        | Type::Int
        | Type::Long
        | Type::Date
        | Type::Decimal { .. }
        | Type::String
        | Type::Uuid
        | Type::Timestamp { .. } => Ok(()),
        _ => Err(Error::Config(format!(
            "column {} of type {} cannot partition a Delta table: use a boolean, integer, date, decimal, string, uuid or \
             timestamp column",
            field.name, field.kind
        ))),
    }
}

/// The partition of a new file, by physical column name.
///
/// # Errors
/// [`Error::Decision`] for an empty string, which the format cannot tell from null.
pub(super) fn values(columns: &Columns, partition: &Struct) -> Result<PartitionValues> {
    let mut values = PartitionValues::new();
    for (&place, value) in columns.partition.iter().zip(partition.iter()) {
        let (physical, logical) = (&columns.physical.fields[place], &columns.logical.fields[place]);
        let text = match value {
            None => None,
            Some(Literal::Primitive(value)) => Some(text(value, &physical.kind).ok_or_else(|| {
                Error::Decision(format!("a value of column {} cannot be the name of a partition", logical.name))
            })?),
            Some(_) => return Err(Error::Internal("a partition value is not primitive".into())),
        };
        if text.as_deref() == Some("") {
            return Err(Error::Decision(format!(
                "an event has the empty string in column {}, by which the table is partitioned: Delta cannot tell it from \
                 null; correct the event, or partition the table by another column",
                logical.name
            )));
        }
        values.insert(physical.name.clone(), text);
    }
    Ok(values)
}

fn text(value: &PrimitiveLiteral, kind: &Type) -> Option<String> {
    Some(match (kind, value) {
        (Type::Date, PrimitiveLiteral::Int(days)) => date(i64::from(*days))?,
        (Type::Timestamp { utc }, PrimitiveLiteral::Long(micros)) => {
            let time = chrono::DateTime::from_timestamp_micros(*micros)?.naive_utc();
            // A zone in the text keeps readers from taking it in their own.
            let form = if *utc { "%Y-%m-%dT%H:%M:%S%.6fZ" } else { "%Y-%m-%d %H:%M:%S%.6f" };
            time.format(form).to_string()
        }
        (_, PrimitiveLiteral::Boolean(v)) => v.to_string(),
        (_, PrimitiveLiteral::Int(v)) => v.to_string(),
        (_, PrimitiveLiteral::Long(v)) => v.to_string(),
        (_, PrimitiveLiteral::String(v)) => v.clone(),
        (Type::Decimal { scale, .. }, PrimitiveLiteral::Int128(v)) => decimal(*v, *scale),
        _ => return None,
    })
}

/// The values of a file's partition columns as arrays of one row, by place, in the types that data files have.
///
/// # Errors
/// [`Error::Decision`] for a value that is not of its column's type.
pub(super) fn constants(columns: &Columns, values: &PartitionValues) -> Result<HashMap<usize, ArrayRef>> {
    let arrow = to_arrow(&columns.stored);
    let mut constants = HashMap::new();
    for &place in &columns.partition {
        let kind = arrow.field(place).data_type();
        let text = values.get(&columns.physical.fields[place].name).cloned().flatten().filter(|t| !t.is_empty());
        let value = match text {
            None => new_null_array(kind, 1),
            Some(text) => parse(&text, kind).ok_or_else(|| {
                Error::Decision(format!(
                    "'{text}' is not a value of partition column {} of type {}",
                    columns.logical.fields[place].name, columns.stored.fields[place].kind
                ))
            })?,
        };
        constants.insert(place, value);
    }
    Ok(constants)
}

/// Text as one value of an Arrow type; none where it is not one.
pub(super) fn parse(text: &str, kind: &DataType) -> Option<ArrayRef> {
    let array: ArrayRef = Arc::new(StringArray::from_iter_values([text]));
    if *kind == DataType::Binary {
        return cast(&array, kind).ok();
    }
    let strict = CastOptions { safe: false, format_options: FormatOptions::default() };
    cast_with_options(&array, kind, &strict).ok().filter(|value| value.null_count() == 0)
}

/// `value` (one row) as often as asked for.
pub(super) fn repeat(value: &ArrayRef, rows: usize) -> Result<ArrayRef> {
    let places = Int64Array::from_value(0, rows);
    take(value, &places, None).map_err(|e| Error::Internal(format!("cannot repeat a partition value: {e}")))
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::{Decimal128Type, TimeUnit, TimestampMicrosecondType};

    use super::*;

    #[test]
    fn what_is_written_into_a_partition_is_read_back_from_it() {
        let zone = DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()));
        for (value, kind, expected, arrow) in [
            (PrimitiveLiteral::Int(-3), Type::Int, "-3", DataType::Int32),
            (PrimitiveLiteral::Int(19_000), Type::Date, "2022-01-08", DataType::Date32),
            (PrimitiveLiteral::Boolean(true), Type::Boolean, "true", DataType::Boolean),
            (PrimitiveLiteral::Long(-1), Type::Timestamp { utc: true }, "1969-12-31T23:59:59.999999Z", zone.clone()),
        ] {
            let written = text(&value, &kind).unwrap();
            assert_eq!(written, expected);
            assert!(parse(&written, &arrow).is_some(), "{written}");
        }
        let micros = |text: &str| parse(text, &zone).unwrap().as_primitive::<TimestampMicrosecondType>().value(0);
        assert_eq!(micros("1969-12-31T23:59:59.999999Z"), -1);
        assert_eq!(micros("1970-01-01 00:00:01"), 1_000_000, "as other writers spell it");
        let decimal = parse("-12.5", &DataType::Decimal128(10, 2)).unwrap();
        assert_eq!(decimal.as_primitive::<Decimal128Type>().value(0), -1250);
        assert!(parse("twelve", &DataType::Int32).is_none());
    }
}

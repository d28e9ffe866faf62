//! Order values: a column's values as 64-bit integers in the same order.
//!
//! Integers, dates, times, timestamps and decimals of up to 18 digits are their own numbers. Floats are mapped so that
//! integer order is numeric order: -0.0 equals 0.0, NaN is the largest value.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, Time64MicrosecondType,
    TimeUnit, TimestampMicrosecondType, TimestampNanosecondType,
};

use super::schema::Type;

/// Whether a column of this type can be an `order_by`.
#[must_use]
pub fn is_orderable(kind: &Type) -> bool {
    match kind {
        Type::Int
        | Type::Long
        | Type::Float
        | Type::Double
        | Type::Date
        | Type::Time
        | Type::Timestamp { .. }
        | Type::TimestampNanos { .. } => true,
        Type::Decimal { precision, .. } => *precision <= 18,
        _ => false,
    }
}

/// Values of columns of the same class have the same order values, whichever of them they are in: an integer that becomes
/// a long keeps its own.
#[must_use]
pub fn class(kind: &Type) -> String {
    match kind {
        Type::Int | Type::Long => "integer".to_owned(),
        Type::Float | Type::Double => "floating".to_owned(),
        Type::Decimal { scale, .. } => format!("decimal of scale {scale}"),
        other => other.to_string(),
    }
}

/// A double as an integer of the same order.
#[must_use]
pub fn of_double(value: f64) -> i64 {
    if value.is_nan() {
        return i64::MAX;
    }
    let bits = if value == 0.0 { 0 } else { value.to_bits() as i64 };
    if bits < 0 { i64::MIN - bits } else { bits }
}

/// The order values of a column; a null, which only foreign writers make, is older than anything.
///
/// # Errors
/// The column's type has no order that fits 64 bits; the text names it.
pub fn encode_or_least(column: &ArrayRef) -> Result<Vec<i64>, String> {
    let mut values: Vec<i64> = match column.data_type() {
        DataType::Int32 => column.as_primitive::<Int32Type>().values().iter().map(|&v| v.into()).collect(),
        DataType::Int64 => column.as_primitive::<Int64Type>().values().to_vec(),
        DataType::Float32 => {
            column.as_primitive::<Float32Type>().values().iter().map(|&v| of_double(v.into())).collect()
        }
        DataType::Float64 => column.as_primitive::<Float64Type>().values().iter().map(|&v| of_double(v)).collect(),
        DataType::Date32 => column.as_primitive::<Date32Type>().values().iter().map(|&v| v.into()).collect(),
        DataType::Time64(TimeUnit::Microsecond) => column.as_primitive::<Time64MicrosecondType>().values().to_vec(),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            column.as_primitive::<TimestampMicrosecondType>().values().to_vec()
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            column.as_primitive::<TimestampNanosecondType>().values().to_vec()
        }
        DataType::Decimal128(precision, _) if *precision <= 18 => {
            column.as_primitive::<Decimal128Type>().values().iter().map(|&v| v as i64).collect()
        }
        other => return Err(format!("a column of type {other} cannot be an order_by")),
    };
    if column.null_count() > 0 {
        for (i, value) in values.iter_mut().enumerate() {
            if column.is_null(i) {
                *value = i64::MIN;
            }
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::of_double;

    #[test]
    fn doubles_keep_their_order() {
        let ascending = [f64::NEG_INFINITY, -2.5, -1.0, -f64::MIN_POSITIVE, 0.0, 1e-300, 1.0, f64::INFINITY, f64::NAN];
        let encoded: Vec<i64> = ascending.iter().map(|&v| of_double(v)).collect();
        assert!(encoded.is_sorted_by(|a, b| a < b), "{encoded:?}");
        assert_eq!(of_double(-0.0), of_double(0.0));
    }
}

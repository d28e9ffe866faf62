//! Values of the `order_by` column as integers of the same order.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type};

use crate::core::schema::Type;

/// Decimals of up to this many digits fit 64 bits.
const DECIMAL_DIGITS_MAX: u8 = 18;

/// Whether values of this type have an order that 64 bits can say.
pub fn orderable(kind: &Type) -> bool {
    match kind {
        Type::Int | Type::Long | Type::Float | Type::Double | Type::Date | Type::Time => true,
        Type::Timestamp { .. } | Type::TimestampNanos { .. } => true,
        Type::Decimal { precision, .. } => *precision <= DECIMAL_DIGITS_MAX,
        _ => false,
    }
}

/// The order value of every row: integers, dates, times, timestamps and decimals (unscaled) as they are; floats by
/// IEEE 754's total order with −0.0 equal to 0.0 and every NaN equal and largest. `None` for a type without an order; a
/// null's value means nothing.
pub fn orders(column: &ArrayRef) -> Option<Vec<i64>> {
    let column = match column.data_type() {
        DataType::Date32 => arrow::compute::cast(column, &DataType::Int32).ok()?,
        DataType::Time64(_) | DataType::Timestamp(..) => arrow::compute::cast(column, &DataType::Int64).ok()?,
        _ => column.clone(),
    };
    Some(match column.data_type() {
        DataType::Int32 => column.as_primitive::<Int32Type>().values().iter().map(|v| i64::from(*v)).collect(),
        DataType::Int64 => column.as_primitive::<Int64Type>().values().to_vec(),
        DataType::Float32 => {
            column.as_primitive::<Float32Type>().values().iter().map(|v| float_order(f64::from(*v))).collect()
        }
        DataType::Float64 => column.as_primitive::<Float64Type>().values().iter().map(|v| float_order(*v)).collect(),
        DataType::Decimal128(..) => {
            column.as_primitive::<Decimal128Type>().values().iter().map(|v| *v as i64).collect()
        }
        _ => return None,
    })
}

fn float_order(value: f64) -> i64 {
    if value.is_nan() {
        return i64::MAX;
    }
    // Adding zero turns −0.0 into 0.0.
    let bits = (value + 0.0).to_bits() as i64;
    // A larger magnitude makes a negative float smaller: flip all but the sign.
    bits ^ (((bits >> 63) as u64) >> 1) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_keep_their_order() {
        let ordered = [
            f64::NEG_INFINITY,
            f64::MIN,
            -1.5,
            -f64::MIN_POSITIVE,
            -5e-324,
            0.0,
            5e-324,
            1.0,
            f64::MAX,
            f64::INFINITY,
            f64::NAN,
        ];
        for pair in ordered.windows(2) {
            assert!(float_order(pair[0]) < float_order(pair[1]), "{pair:?}");
        }
        assert_eq!(float_order(-0.0), float_order(0.0));
        assert_eq!(float_order(-f64::NAN), float_order(f64::NAN));
    }
}

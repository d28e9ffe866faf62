//! Partition transforms of the Iceberg specification on Arrow columns.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Date32Array, Int32Array, Int64Array, new_null_array};
use arrow::datatypes::{
    DataType, Date32Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType, TimestampNanosecondType,
};
use iceberg::spec::Transform;
use iceberg::transform::create_transform_function;

use super::from_iceberg;
use crate::{Error, Result};

const MICROS_PER_HOUR: i64 = 3_600_000_000;
const NANOS_PER_HOUR: i64 = 3_600_000_000_000;

/// The partition value of each row. Nulls stay null.
///
/// Dates and times are divided here, towards minus infinity throughout: the `iceberg` crate puts fractions of a second
/// before 1970 into the wrong day. Integers are truncated here because the crate's subtraction may overflow.
pub(super) fn apply(transform: Transform, column: &ArrayRef) -> Result<ArrayRef> {
    match transform {
        Transform::Identity => Ok(column.clone()),
        Transform::Void => Ok(new_null_array(column.data_type(), column.len())),
        Transform::Year => Ok(Arc::new(days(column)?.unary::<_, Int32Type>(|d| year_and_month(d).0 - 1970))),
        Transform::Month => Ok(Arc::new(days(column)?.unary::<_, Int32Type>(|d| {
            let (year, month) = year_and_month(d);
            (year - 1970) * 12 + month
        }))),
        Transform::Day => Ok(Arc::new(days(column)?)),
        Transform::Hour => hours(column),
        Transform::Truncate(width) => truncate(column, width),
        Transform::Bucket(_) => ours(transform, &floor_to_micros(column)),
        Transform::Unknown => {
            Err(Error::Decision("the table has a partition transform that this version does not know".into()))
        }
    }
}

fn ours(transform: Transform, column: &ArrayRef) -> Result<ArrayRef> {
    let context = || format!("cannot partition a column of type {} by {transform}", column.data_type());
    let function = create_transform_function(&transform).map_err(|e| from_iceberg(&context(), &e))?;
    function.transform(column.clone()).map_err(|e| from_iceberg(&context(), &e))
}

fn unfit(column: &ArrayRef, what: &str) -> Error {
    Error::Decision(format!("cannot partition a column of type {} by {what}", column.data_type()))
}

/// Days since 1970-01-01. Sixty-four bits of microseconds or nanoseconds always fit.
fn days(column: &ArrayRef) -> Result<Date32Array> {
    match column.data_type() {
        DataType::Date32 => Ok(column.as_primitive::<Date32Type>().clone()),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            Ok(column.as_primitive::<TimestampMicrosecondType>().unary(|v| v.div_euclid(24 * MICROS_PER_HOUR) as i32))
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            Ok(column.as_primitive::<TimestampNanosecondType>().unary(|v| v.div_euclid(24 * NANOS_PER_HOUR) as i32))
        }
        _ => Err(unfit(column, "year, month or day")),
    }
}

fn hours(column: &ArrayRef) -> Result<ArrayRef> {
    match column.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, _) => Ok(Arc::new(
            column
                .as_primitive::<TimestampMicrosecondType>()
                .unary::<_, Int32Type>(|v| v.div_euclid(MICROS_PER_HOUR) as i32),
        )),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => Ok(Arc::new(
            column
                .as_primitive::<TimestampNanosecondType>()
                .unary::<_, Int32Type>(|v| v.div_euclid(NANOS_PER_HOUR) as i32),
        )),
        _ => Err(unfit(column, "hour")),
    }
}

/// The specification hashes nanoseconds as the microsecond they fall into.
fn floor_to_micros(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Timestamp(TimeUnit::Nanosecond, _) => Arc::new(
            column
                .as_primitive::<TimestampNanosecondType>()
                .unary::<_, TimestampMicrosecondType>(|v| v.div_euclid(1000)),
        ),
        _ => column.clone(),
    }
}

fn truncate(column: &ArrayRef, width: u32) -> Result<ArrayRef> {
    match column.data_type() {
        DataType::Int32 => {
            let width = i32::try_from(width).map_err(|_| unfit(column, "so wide a truncation"))?;
            let cut: Int32Array = column.as_primitive::<Int32Type>().unary(|v| v.wrapping_sub(v.rem_euclid(width)));
            Ok(Arc::new(cut))
        }
        DataType::Int64 => {
            let width = i64::from(width);
            let cut: Int64Array = column.as_primitive::<Int64Type>().unary(|v| v.wrapping_sub(v.rem_euclid(width)));
            Ok(Arc::new(cut))
        }
        _ => ours(Transform::Truncate(width), column),
    }
}

/// Year and month (0 to 11) of a day, in the proleptic Gregorian calendar: the year is counted from March, so that the
/// leap day is its last.
pub(super) fn year_and_month(day: i32) -> (i32, i32) {
    let (year, month, _) = civil(i64::from(day));
    (year, month)
}

/// Year, month (0 to 11) and day of month (1 to 31).
pub(super) fn civil(day: i64) -> (i32, i32, i32) {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * from_march + 2) / 5 + 1;
    let month = (from_march + 2) % 12;
    let year = year_of_era + era * 400 + i64::from(month < 2);
    (year as i32, month as i32, of_month as i32)
}

#[cfg(test)]
mod tests;

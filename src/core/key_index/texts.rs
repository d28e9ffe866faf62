//! Key values as a person types them → Arrow columns of one row.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray, Int32Array, Int64Array,
    StringArray, Time64MicrosecondArray, TimestampMicrosecondArray, TimestampNanosecondArray,
};
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Timelike};

use crate::core::schema::Type;

/// The value as a column of one row.
pub(super) fn column(text: &str, kind: &Type) -> Result<ArrayRef, String> {
    let problem = |reason: &str| format!("{text:?} is not a value of type {kind}: {reason}");
    let value = text.trim();
    Ok(match kind {
        Type::Boolean => {
            Arc::new(BooleanArray::from(vec![value.parse::<bool>().map_err(|e| problem(&e.to_string()))?]))
        }
        Type::Int => Arc::new(Int32Array::from(vec![value.parse::<i32>().map_err(|e| problem(&e.to_string()))?])),
        Type::Long => Arc::new(Int64Array::from(vec![value.parse::<i64>().map_err(|e| problem(&e.to_string()))?])),
        Type::Decimal { precision, scale } => {
            let unscaled = decimal(value, *precision, *scale).map_err(|e| problem(&e))?;
            let array = Decimal128Array::from(vec![unscaled]).with_precision_and_scale(*precision, *scale as i8);
            Arc::new(array.map_err(|e| problem(&e.to_string()))?)
        }
        Type::Date => {
            let date = NaiveDate::parse_from_str(value, "%Y-%m-%d").map_err(|_| problem("write it as 2026-01-31"))?;
            let days = date.signed_duration_since(NaiveDate::default()).num_days();
            Arc::new(Date32Array::from(vec![days as i32]))
        }
        Type::Time => {
            let time =
                NaiveTime::parse_from_str(value, "%H:%M:%S%.f").map_err(|_| problem("write it as 12:30:00.5"))?;
            let nanos = i64::from(time.num_seconds_from_midnight()) * 1_000_000_000 + i64::from(time.nanosecond());
            Arc::new(Time64MicrosecondArray::from(vec![micros(nanos).map_err(problem)?]))
        }
        Type::Timestamp { utc } => {
            let time = instant(value, *utc).map_err(problem)?;
            micros(i64::from(time.nanosecond())).map_err(problem)?;
            Arc::new(TimestampMicrosecondArray::from(vec![time.and_utc().timestamp_micros()]))
        }
        Type::TimestampNanos { utc } => {
            let nanos = instant(value, *utc).map_err(problem)?.and_utc().timestamp_nanos_opt();
            let nanos = nanos.ok_or_else(|| problem("nanoseconds reach from 1677 to 2262"))?;
            Arc::new(TimestampNanosecondArray::from(vec![nanos]))
        }
        Type::String => Arc::new(StringArray::from(vec![text])),
        Type::Uuid => {
            let id = uuid::Uuid::try_parse(value).map_err(|e| problem(&e.to_string()))?;
            fixed(id.as_bytes()).map_err(|e| problem(&e))?
        }
        Type::Fixed(n) => {
            let bytes = hex(value).map_err(problem)?;
            if bytes.len() != *n as usize {
                return Err(problem(&format!("it has {} bytes", bytes.len())));
            }
            fixed(&bytes).map_err(|e| problem(&e))?
        }
        Type::Binary => Arc::new(BinaryArray::from(vec![hex(value).map_err(problem)?.as_slice()])),
        Type::Float | Type::Double | Type::Struct(_) | Type::List(_) | Type::Map(..) => {
            return Err(problem("such a column cannot be part of a key"));
        }
    })
}

fn fixed(bytes: &[u8]) -> Result<ArrayRef, String> {
    let array = FixedSizeBinaryArray::try_from_iter(std::iter::once(bytes)).map_err(|e| e.to_string())?;
    Ok(Arc::new(array))
}

fn micros(nanos: i64) -> Result<i64, &'static str> {
    if nanos % 1000 == 0 { Ok(nanos / 1000) } else { Err("the column has microseconds") }
}

/// A moment in UTC from a text with an offset, or one on the wall clock from a text without.
fn instant(text: &str, utc: bool) -> Result<NaiveDateTime, &'static str> {
    if utc {
        let time = DateTime::parse_from_rfc3339(text).map_err(|_| "write it as 2026-01-31T12:30:00.5Z")?;
        return Ok(time.naive_utc());
    }
    NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f")
        .or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f"))
        .map_err(|_| "write it as 2026-01-31T12:30:00.5")
}

/// The unscaled value of a decimal number. Digits beyond the scale must be zeros: rounding would look up another key.
fn decimal(text: &str, precision: u8, scale: u8) -> Result<i128, String> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let (kept, beyond) = fraction.split_at_checked(scale.into()).unwrap_or((fraction, ""));
    if whole.len() + fraction.len() == 0 || !(whole.bytes().chain(fraction.bytes())).all(|b| b.is_ascii_digit()) {
        return Err("write it as -12.50".into());
    }
    if beyond.bytes().any(|b| b != b'0') {
        return Err(format!("the column has {scale} digits after the point"));
    }
    let digits = format!("{whole}{kept:0<width$}", width = usize::from(scale));
    let digits = digits.trim_start_matches('0');
    if digits.len() > usize::from(precision) {
        return Err(format!("the column has {precision} digits"));
    }
    let value = if digits.is_empty() { 0 } else { digits.parse::<i128>().map_err(|e| e.to_string())? };
    Ok(if negative { -value } else { value })
}

fn hex(text: &str) -> Result<Vec<u8>, &'static str> {
    const FORM: &str = "write the bytes in hexadecimal, two digits each";
    let digits = text.strip_prefix("0x").unwrap_or(text).as_bytes();
    if !digits.len().is_multiple_of(2) {
        return Err(FORM);
    }
    let digit = |b: u8| char::from(b).to_digit(16).ok_or(FORM);
    digits.chunks_exact(2).map(|pair| Ok((digit(pair[0])? << 4 | digit(pair[1])?) as u8)).collect()
}

//! The default of an Avro field as the value of its column.

use serde_json::Value;

use super::avro_type::{Avro, Unit};
use super::read::{DAY_MILLIS, decimal};
use crate::core::schema::{Constant, DAY_MICROS};

/// The first and the last day of the years 1 to 9999, which every reader of a default knows.
const DAYS: std::ops::RangeInclusive<i64> = -719_162..=2_932_896;

/// How long a text may be: every record that lacks the field gets it.
const TEXT_BYTES_MAX: usize = 4096;

/// The value that `json`, a field's default, is in the field's column. None: null, and so is what no table format keeps as
/// a default (records, lists, maps, unions of more than null and one type, nanoseconds, dates beyond the years 1 to 9999),
/// a long text, or what is no value of the type.
pub fn constant(avro: &Avro, json: &Value) -> Option<Constant> {
    if json.as_str().is_some_and(|text| text.len() > TEXT_BYTES_MAX) {
        return None;
    }
    if let Some((inner, _)) = avro.optional() {
        return constant(inner, json);
    }
    Some(match avro {
        Avro::Boolean => Constant::Boolean(json.as_bool()?),
        Avro::Int => Constant::Int(int(json)?),
        Avro::Long => Constant::Long(json.as_i64()?),
        Avro::Float => Constant::Float((json.as_f64()? as f32).to_bits()),
        Avro::Double => Constant::Double(json.as_f64()?.to_bits()),
        Avro::String => Constant::String(json.as_str()?.to_owned()),
        Avro::Enum(symbols) => {
            Constant::String(symbols.iter().find(|symbol| json.as_str() == Some(symbol))?.to_string())
        }
        Avro::Bytes => Constant::Bytes(bytes(json)?),
        Avro::Fixed(n) => Constant::Bytes(sized(json, *n)?),
        Avro::UuidText => Constant::Bytes(uuid::Uuid::parse_str(json.as_str()?).ok()?.as_bytes().to_vec()),
        Avro::UuidBytes => Constant::Bytes(sized(json, 16)?),
        Avro::Decimal { precision, size, .. } if *precision <= 38 => {
            let bytes = size.map_or_else(|| bytes(json), |n| sized(json, n))?;
            Constant::Decimal(decimal(&bytes, 10i128.pow(u32::from(*precision))).ok()?)
        }
        Avro::Date => Constant::Int(int(json).filter(|days| DAYS.contains(&i64::from(*days)))?),
        Avro::TimeMillis => {
            Constant::Long(int(json).filter(|time| (0..DAY_MILLIS).contains(time)).map(i64::from)? * 1000)
        }
        Avro::TimeMicros => Constant::Long(json.as_i64().filter(|time| (0..DAY_MICROS).contains(time))?),
        Avro::Timestamp { unit, .. } => {
            let scale = match unit {
                Unit::Millis => 1000,
                Unit::Micros => 1,
                Unit::Nanos => return None,
            };
            let micros = json.as_i64()?.checked_mul(scale)?;
            Constant::Long(Some(micros).filter(|micros| DAYS.contains(&micros.div_euclid(DAY_MICROS)))?)
        }
        _ => return None,
    })
}

fn int(json: &Value) -> Option<i32> {
    json.as_i64().and_then(|value| i32::try_from(value).ok())
}

/// Avro writes bytes as text of which each character is one byte.
fn bytes(json: &Value) -> Option<Vec<u8>> {
    json.as_str()?.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect()
}

fn sized(json: &Value, size: usize) -> Option<Vec<u8>> {
    bytes(json).filter(|bytes| bytes.len() == size)
}

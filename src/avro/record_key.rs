//! Record keys: where the primary key of a tombstone, or of every event, is read from.

use super::avro_type::{Avro, TypeRef};
use super::bad::Reason;
use super::columns::{Column, Data};
use super::cursor::is_utf8;
use super::plan::{self, Plan, Target};
use super::read::uuid;
use super::shape::RecordKey;
use crate::core::schema::{Field, Type};

impl RecordKey {
    /// How the record keys of a topic are written for a table with these key columns: Avro where the registry has a schema
    /// for the topic's keys, else by the type of the single key column. `None` where neither says.
    #[must_use]
    pub fn detect(has_schema: bool, key: &[&Type]) -> Option<RecordKey> {
        match key {
            _ if has_schema => Some(RecordKey::Avro),
            [Type::Long] => Some(RecordKey::Int64),
            [Type::Int] => Some(RecordKey::Int32),
            [Type::String | Type::Uuid] => Some(RecordKey::String),
            _ => None,
        }
    }
}

/// The plan to append a record key of this schema to columns for the key fields.
///
/// # Errors
/// The path of a field that cannot be read as its column, with both types.
pub fn compile(avro: &TypeRef, key: &[&Field], columns: &[usize]) -> Result<Plan, String> {
    let target = |(field, column)| Target { column, field, refuse_null: Some(Reason::NullKey) };
    let targets: Vec<Target<'_>> = key.iter().copied().zip(columns.iter().copied()).map(target).collect();
    match (&**avro, targets.as_slice()) {
        (Avro::Record(fields), _) => plan::compile(fields, &targets, &[]),
        (_, [target]) => plan::compile_single(avro, target),
        (other, _) => Err(format!("a {other} does not have the {} fields of the key", targets.len())),
    }
}

/// Appends a record key that is not Avro to the single key column.
pub fn append_raw(form: RecordKey, bytes: &[u8], column: &mut Column) -> Result<(), Reason> {
    match (form, &mut column.data) {
        (RecordKey::String, Data::Bytes(v)) => {
            // Text does not begin with the magic byte of the wire format: this is an Avro key that nobody announced.
            if bytes.first() == Some(&0) {
                return Err(Reason::BadKey);
            }
            if !is_utf8(bytes) {
                return Err(Reason::InvalidUtf8);
            }
            v.push(bytes)?;
        }
        (RecordKey::String, Data::Fixed { size: 16, bytes: v }) => v.extend_from_slice(&uuid(bytes)?),
        (RecordKey::String, Data::Long(v)) => v.push(number(bytes)?),
        (RecordKey::String, Data::Int(v)) => v.push(number(bytes)?),
        (RecordKey::Int64, Data::Long(v)) => v.push(i64::from_be_bytes(exactly(bytes)?)),
        (RecordKey::Int64, Data::Int(v)) => {
            v.push(i32::try_from(i64::from_be_bytes(exactly(bytes)?)).map_err(|_| Reason::BadKey)?);
        }
        (RecordKey::Int32, Data::Int(v)) => v.push(i32::from_be_bytes(exactly(bytes)?)),
        (RecordKey::Int32, Data::Long(v)) => v.push(i64::from(i32::from_be_bytes(exactly(bytes)?))),
        _ => return Err(Reason::BadKey),
    }
    Ok(())
}

/// Whether [`append_raw`] can fill a column of this type.
pub fn raw_fits(form: RecordKey, kind: &Type) -> bool {
    match form {
        RecordKey::Avro => true,
        RecordKey::String => matches!(kind, Type::String | Type::Uuid | Type::Long | Type::Int),
        RecordKey::Int64 | RecordKey::Int32 => matches!(kind, Type::Long | Type::Int),
    }
}

fn exactly<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Reason> {
    bytes.try_into().map_err(|_| Reason::BadKey)
}

/// A decimal number, in the one way to write it: two texts for one key would be a trap.
fn number<T: std::str::FromStr + ToString>(bytes: &[u8]) -> Result<T, Reason> {
    let text = std::str::from_utf8(bytes).map_err(|_| Reason::InvalidUtf8)?;
    let value: T = text.parse().map_err(|_| Reason::BadKey)?;
    if value.to_string() == text { Ok(value) } else { Err(Reason::BadKey) }
}

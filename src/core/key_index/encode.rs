//! Key columns → [`Key`]s.
//!
//! Columns of fixed width that have at most eight bytes together are laid one after the other, most significant byte
//! first, and mixed by a bijection of 64 bits: the index then knows the key itself. Any other key is written as bytes from
//! which it could be read back (fixed-width values as they are, others behind their length), and hashed to 128 bits with
//! SipHash-1-3. Both are keyed by a secret of the process, so that nobody can craft keys that collide or that crowd
//! together in the index.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Decimal128Type, Int32Type, Int64Type, TimeUnit};
use siphasher::sip128::SipHasher13;

use super::{Key, KeyWidth, texts};
use crate::core::schema::Type;

/// The version of the key encoding; an index saved under another one is of no use.
pub const ENCODING_VERSION: u32 = 1;

/// Turns key columns into keys.
#[derive(Clone)]
pub struct KeyEncoder {
    types: Vec<Type>,
    width: KeyWidth,
    mixer: Mixer,
    hasher: SipHasher13,
}

impl std::fmt::Debug for KeyEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyEncoder").field("types", &self.types).field("width", &self.width).finish_non_exhaustive()
    }
}

impl KeyEncoder {
    /// An encoder for key columns of these types. The secret must be random and stay in the process (and in its saved
    /// index): who knows it can craft colliding keys.
    ///
    /// # Errors
    /// A type that cannot be a key, or no column at all.
    pub fn new(secret: [u64; 2], types: &[Type]) -> Result<KeyEncoder, String> {
        if types.is_empty() {
            return Err("a key needs at least one column".into());
        }
        let mut bytes = Some(0);
        for kind in types {
            bytes = match width(kind)? {
                Some(width) => bytes.map(|sum: usize| sum.saturating_add(width)),
                None => None,
            };
        }
        let width = if bytes.is_some_and(|sum| sum <= 8) { KeyWidth::Exact } else { KeyWidth::Hashed };
        let hasher = SipHasher13::new_with_keys(secret[0], secret[1]);
        Ok(KeyEncoder { types: types.to_vec(), width, mixer: Mixer::new(&hasher), hasher })
    }

    /// How wide the keys are; the index must be made for the same.
    #[must_use]
    pub fn width(&self) -> KeyWidth {
        self.width
    }

    /// The key of every row. Columns come in key order, in the Arrow types of [`crate::core::schema::to_arrow`] or in
    /// those that readers of older or foreign files return for them: narrower integers, other string layouts,
    /// dictionaries, coarser time units.
    ///
    /// # Errors
    /// A column of another type, a null, columns of different lengths, a value that does not fit its column's type.
    pub fn encode(&self, columns: &[ArrayRef]) -> Result<Vec<Key>, String> {
        if columns.len() != self.types.len() {
            return Err(format!("the key has {} columns, got {}", self.types.len(), columns.len()));
        }
        let mut plain = Vec::with_capacity(columns.len());
        for (i, (column, kind)) in columns.iter().zip(&self.types).enumerate() {
            let within = |e| format!("key column {} ({kind}): {e}", i + 1);
            if column.len() != columns[0].len() {
                return Err(within(format!("{} rows beside {}", column.len(), columns[0].len())));
            }
            plain.push(normalize(column, kind).map_err(within)?);
        }
        let mut cells = Vec::with_capacity(columns.len());
        for (i, (column, kind)) in plain.iter().zip(&self.types).enumerate() {
            cells.push(Cells::new(column, kind).map_err(|e| format!("key column {} ({kind}): {e}", i + 1))?);
        }
        Ok(match self.width {
            KeyWidth::Exact => self.exact(&cells, columns[0].len()),
            KeyWidth::Hashed => self.hashed(&cells, columns[0].len()),
        })
    }

    /// The key that these texts say, one per key column: numbers in decimal, strings as they are, dates as
    /// `2026-01-31`, times as `12:30:00.5`, timestamps as `2026-01-31T12:30:00.5`, with `Z` or an offset where the column
    /// has a zone, bytes in hexadecimal.
    ///
    /// # Errors
    /// Too few or too many texts, or one that is no value of its column's type.
    pub fn encode_texts(&self, texts: &[&str]) -> Result<Key, String> {
        if texts.len() != self.types.len() {
            return Err(format!("the key has {} columns, got {} values", self.types.len(), texts.len()));
        }
        let column = |(text, kind): (&&str, &Type)| texts::column(text, kind);
        let columns = texts.iter().zip(&self.types).map(column).collect::<Result<Vec<_>, _>>()?;
        self.encode(&columns)?.pop().ok_or_else(|| "no row".to_string())
    }

    fn exact(&self, cells: &[Cells<'_>], rows: usize) -> Vec<Key> {
        let mut packed = vec![0; rows];
        for column in cells {
            column.pack(&mut packed);
        }
        packed.into_iter().map(|value| Key(u128::from(self.mixer.mix(value)))).collect()
    }

    fn hashed(&self, cells: &[Cells<'_>], rows: usize) -> Vec<Key> {
        let mut bytes = Vec::new();
        let key = |row| {
            bytes.clear();
            for column in cells {
                column.write(row, &mut bytes);
            }
            Key(self.hasher.hash(&bytes).into())
        };
        (0..rows).map(key).collect()
    }
}

/// Bytes of a value in the encoding; `None` where values differ in length.
fn width(kind: &Type) -> Result<Option<usize>, String> {
    Ok(Some(match kind {
        Type::Boolean => 1,
        Type::Int | Type::Date => 4,
        Type::Long | Type::Time | Type::Timestamp { .. } | Type::TimestampNanos { .. } => 8,
        Type::Decimal { precision, .. } if *precision <= DECIMAL_DIGITS_MAX_64 => 8,
        Type::Decimal { .. } | Type::Uuid => 16,
        Type::Fixed(n) => *n as usize,
        Type::String | Type::Binary => return Ok(None),
        Type::Float | Type::Double | Type::Struct(_) | Type::List(_) | Type::Map(..) => {
            return Err(format!("a column of type {kind} cannot be part of a key"));
        }
    }))
}

/// Decimals of up to this many digits fit 64 bits.
const DECIMAL_DIGITS_MAX_64: u8 = 18;

/// Casts a column to the one Arrow type in which values of `kind` are encoded: integers for everything that is one
/// underneath.
fn normalize(column: &ArrayRef, kind: &Type) -> Result<ArrayRef, String> {
    let mut column = Arc::clone(column);
    for step in steps(column.data_type(), kind)? {
        if *column.data_type() != step {
            let options = CastOptions { safe: false, ..Default::default() };
            column = cast_with_options(&column, &step, &options).map_err(|e| e.to_string())?;
        }
    }
    match column.null_count() {
        0 => Ok(column),
        n => Err(format!("{n} of {} values are null, which no key may be", column.len())),
    }
}

/// The casts that lead from an Arrow type to the one that is encoded, none of which can change a value. Timestamps pass
/// through the column's unit; their zone is only how they are shown.
fn steps(from: &DataType, kind: &Type) -> Result<Vec<DataType>, String> {
    use DataType as A;
    let timestamp = |unit, zone: &Option<Arc<str>>| vec![A::Timestamp(unit, zone.clone()), A::Int64];
    Ok(match (kind, from) {
        (_, A::Dictionary(_, values)) => {
            let mut all = vec![values.as_ref().clone()];
            all.extend(steps(values, kind)?);
            all
        }
        (Type::Boolean, A::Boolean) => vec![],
        (Type::Int, A::Int8 | A::Int16 | A::Int32) | (Type::Date, A::Date32) => vec![A::Int32],
        (Type::Long, A::Int8 | A::Int16 | A::Int32 | A::Int64) => vec![A::Int64],
        (Type::Time, A::Time32(_) | A::Time64(TimeUnit::Microsecond)) => {
            vec![A::Time64(TimeUnit::Microsecond), A::Int64]
        }
        (Type::Timestamp { .. }, A::Timestamp(TimeUnit::Nanosecond, _)) => return Err(unfit(from)),
        (Type::Timestamp { .. }, A::Timestamp(_, zone)) => timestamp(TimeUnit::Microsecond, zone),
        (Type::TimestampNanos { .. }, A::Timestamp(_, zone)) => timestamp(TimeUnit::Nanosecond, zone),
        (
            Type::Decimal { scale, .. },
            A::Decimal32(_, s) | A::Decimal64(_, s) | A::Decimal128(_, s) | A::Decimal256(_, s),
        ) if i16::from(*s) == i16::from(*scale) => match from {
            A::Decimal128(..) => vec![],
            _ => vec![A::Decimal128(38, *s)],
        },
        (Type::String, A::Utf8 | A::LargeUtf8) | (Type::Binary, A::Binary | A::LargeBinary) => vec![],
        (Type::String, A::Utf8View) => vec![A::LargeUtf8],
        (Type::Binary, A::BinaryView) => vec![A::LargeBinary],
        (Type::Uuid, A::FixedSizeBinary(16)) => vec![],
        (Type::Fixed(n), A::FixedSizeBinary(m)) if i64::from(*n) == i64::from(*m) => vec![],
        _ => return Err(unfit(from)),
    })
}

fn unfit(from: &DataType) -> String {
    format!("values of Arrow type {from} do not fit the column")
}

/// The values of one column, in the form in which they are encoded.
enum Cells<'a> {
    Boolean(&'a arrow::array::BooleanArray),
    Int(&'a [i32]),
    Long(&'a [i64]),
    /// Decimals whose width in the encoding is 8: each was seen to fit.
    Decimal64(&'a [i128]),
    Decimal128(&'a [i128]),
    Fixed(&'a arrow::array::FixedSizeBinaryArray),
    String(&'a arrow::array::StringArray),
    LargeString(&'a arrow::array::LargeStringArray),
    Binary(&'a arrow::array::BinaryArray),
    LargeBinary(&'a arrow::array::LargeBinaryArray),
}

impl<'a> Cells<'a> {
    fn new(column: &'a ArrayRef, kind: &Type) -> Result<Self, String> {
        let cells = match column.data_type() {
            DataType::Boolean => column.as_boolean_opt().map(Cells::Boolean),
            DataType::Int32 => column.as_primitive_opt::<Int32Type>().map(|a| Cells::Int(a.values())),
            DataType::Int64 => column.as_primitive_opt::<Int64Type>().map(|a| Cells::Long(a.values())),
            DataType::Decimal128(..) => match column.as_primitive_opt::<Decimal128Type>() {
                Some(a) => Some(decimals(a.values(), kind)?),
                None => None,
            },
            DataType::FixedSizeBinary(_) => column.as_fixed_size_binary_opt().map(Cells::Fixed),
            DataType::Utf8 => column.as_string_opt().map(Cells::String),
            DataType::LargeUtf8 => column.as_string_opt().map(Cells::LargeString),
            DataType::Binary => column.as_binary_opt().map(Cells::Binary),
            DataType::LargeBinary => column.as_binary_opt().map(Cells::LargeBinary),
            _ => None,
        };
        cells.ok_or_else(|| unfit(column.data_type()))
    }

    /// Shifts each of `packed` to make room for this column's value of the row.
    fn pack(&self, packed: &mut [u64]) {
        let rows = packed.iter_mut().enumerate();
        match self {
            Cells::Boolean(values) => rows.for_each(|(i, p)| *p = *p << 8 | u64::from(values.value(i))),
            Cells::Int(values) => rows.for_each(|(i, p)| *p = *p << 32 | u64::from(values[i] as u32)),
            // A value of 64 bits leaves no room for another column but one of no bytes.
            Cells::Long(values) => rows.for_each(|(i, p)| *p = values[i] as u64),
            Cells::Decimal64(values) | Cells::Decimal128(values) => rows.for_each(|(i, p)| *p = values[i] as u64),
            Cells::Fixed(values) => {
                rows.for_each(|(i, p)| *p = values.value(i).iter().fold(*p, |p, &b| p << 8 | u64::from(b)));
            }
            Cells::String(_) | Cells::LargeString(_) | Cells::Binary(_) | Cells::LargeBinary(_) => {}
        }
    }

    /// Appends the encoding of one value.
    fn write(&self, row: usize, to: &mut Vec<u8>) {
        let mut counted = |bytes: &[u8]| {
            to.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
            to.extend_from_slice(bytes);
        };
        match self {
            Cells::String(values) => counted(values.value(row).as_bytes()),
            Cells::LargeString(values) => counted(values.value(row).as_bytes()),
            Cells::Binary(values) => counted(values.value(row)),
            Cells::LargeBinary(values) => counted(values.value(row)),
            Cells::Boolean(values) => to.push(u8::from(values.value(row))),
            Cells::Int(values) => to.extend_from_slice(&values[row].to_be_bytes()),
            Cells::Long(values) => to.extend_from_slice(&values[row].to_be_bytes()),
            Cells::Decimal64(values) => to.extend_from_slice(&(values[row] as i64).to_be_bytes()),
            Cells::Decimal128(values) => to.extend_from_slice(&values[row].to_be_bytes()),
            Cells::Fixed(values) => to.extend_from_slice(values.value(row)),
        }
    }
}

/// Decimals in the width of their type. Arrow does not hold values to their type's precision, and two of them must not
/// become one key.
fn decimals<'a>(values: &'a [i128], kind: &Type) -> Result<Cells<'a>, String> {
    if !matches!(kind, Type::Decimal { precision, .. } if *precision <= DECIMAL_DIGITS_MAX_64) {
        return Ok(Cells::Decimal128(values));
    }
    match values.iter().find(|&&value| i64::try_from(value).is_err()) {
        Some(value) => Err(format!("the unscaled value {value} has more digits than the type")),
        None => Ok(Cells::Decimal64(values)),
    }
}

/// A bijection of 64 bits that is chosen by the secret: exclusive-or, and multiplications by odd numbers, which carry
/// every bit upwards, with shifts between them that carry the high bits down again. Each step can be undone, so different
/// values stay different. It is no cipher; it is there so that values that are close, strided or crafted without the
/// secret spread over the index like random ones.
#[derive(Clone)]
struct Mixer {
    masks: [u64; 2],
    odd: [u64; 3],
}

impl Mixer {
    fn new(hasher: &SipHasher13) -> Self {
        let derived = |number: u8| hasher.hash(&[number]).h1;
        Mixer { masks: [derived(0), derived(1)], odd: [derived(2) | 1, derived(3) | 1, derived(4) | 1] }
    }

    #[inline]
    fn mix(&self, value: u64) -> u64 {
        let mut x = (value ^ self.masks[0]).wrapping_mul(self.odd[0]);
        x = (x ^ x >> 32).wrapping_mul(self.odd[1]);
        x = (x ^ x >> 29 ^ self.masks[1]).wrapping_mul(self.odd[2]);
        x ^ x >> 32
    }
}

#[cfg(test)]
mod tests;

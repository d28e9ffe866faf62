//! Growing columns that can go back to the row before: one bad record costs nothing but itself.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, BooleanBufferBuilder, FixedSizeBinaryArray, ListArray, MapArray,
    PrimitiveArray, StringArray, StructArray,
};
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimestampMicrosecondType, TimestampNanosecondType,
};
use arrow::error::ArrowError;

use super::bad::Reason;
use crate::core::schema::{Constant, Field, Type};

/// A column that is being filled. Its length is that of its values; a required column never has nulls of its own, but
/// holds a filler where its parent is null.
#[derive(Debug)]
pub struct Column {
    pub data: Data,
    nulls: Nulls,
    optional: bool,
}

/// Which values are there, a byte for each: setting bits one by one costs more than packing them in the end.
#[derive(Debug, Default)]
struct Nulls {
    /// Empty as long as all are there.
    present: Vec<bool>,
}

impl Nulls {
    /// Notes that the next value is there.
    #[inline(always)]
    fn present(&mut self) {
        if !self.present.is_empty() {
            self.present.push(true);
        }
    }

    fn is_null(&self, at: usize) -> bool {
        self.present.get(at) == Some(&false)
    }

    fn finish(&mut self) -> Option<NullBuffer> {
        let present = again(&mut self.present);
        (!present.is_empty()).then(|| NullBuffer::new(pack(&present)))
    }
}

/// One bit for each flag.
fn pack(flags: &[bool]) -> BooleanBuffer {
    let mut bits = Vec::with_capacity(flags.len().div_ceil(64) * 8);
    for flags in flags.chunks(64) {
        let word = flags.iter().enumerate().fold(0u64, |word, (i, flag)| word | u64::from(*flag) << i);
        bits.extend_from_slice(&word.to_le_bytes());
    }
    BooleanBuffer::new(bits.into(), 0, flags.len())
}

/// The values of a column, by how they are kept.
#[derive(Debug)]
#[repr(u8)]
pub enum Data {
    Boolean(BooleanBufferBuilder),
    Int(Vec<i32>),
    Long(Vec<i64>),
    Float(Vec<f32>),
    Double(Vec<f64>),
    Decimal(Vec<i128>),
    /// Text that was checked to be UTF-8, or bytes.
    Bytes(Bytes),
    Fixed {
        size: usize,
        bytes: Vec<u8>,
    },
    Struct {
        fields: Vec<Column>,
        len: usize,
    },
    List {
        offsets: Vec<i32>,
        element: Box<Column>,
    },
    Map {
        offsets: Vec<i32>,
        key: Box<Column>,
        value: Box<Column>,
    },
}

/// Values of different lengths, one after the other.
#[derive(Debug)]
pub struct Bytes {
    offsets: Vec<i32>,
    bytes: Vec<u8>,
}

impl Bytes {
    fn with_capacity(rows: usize, bytes: usize) -> Bytes {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Bytes { offsets, bytes: Vec::with_capacity(bytes) }
    }

    /// Appends a value; an error when the column holds more bytes than its offsets can name.
    #[inline(always)]
    pub fn push(&mut self, value: &[u8]) -> Result<(), Reason> {
        self.bytes.extend_from_slice(value);
        match i32::try_from(self.bytes.len()) {
            Ok(end) => self.offsets.push(end),
            // The rollback that follows cuts the bytes off again.
            Err(_) => return Err(Reason::TooLarge),
        }
        Ok(())
    }

    /// Appends the first `len` bytes of `value`, more cheaply than a slice whose length the compiler does not know.
    #[inline(always)]
    pub fn push_short<const N: usize>(&mut self, value: &[u8; N], len: usize) -> Result<(), Reason> {
        let end = self.bytes.len() + len;
        self.bytes.extend_from_slice(value);
        self.bytes.truncate(end);
        self.push(&[])
    }

    /// Appends what `write` writes; an error as in [`Bytes::push`].
    pub fn write(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), Reason>) -> Result<(), Reason> {
        write(&mut self.bytes)?;
        self.push(&[])
    }

    fn last(&self) -> &[u8] {
        match self.offsets.as_slice() {
            [.., from, to] => &self.bytes[*from as usize..*to as usize],
            _ => &[],
        }
    }

    fn truncate(&mut self, rows: usize) {
        self.offsets.truncate(rows + 1);
        let end = self.offsets.last().copied().unwrap_or(0);
        self.bytes.truncate(end as usize);
    }
}

impl Column {
    /// An empty column for a table's field, with room for `rows`.
    pub fn new(field: &Field, rows: usize) -> Column {
        let data = match &field.kind {
            Type::Boolean => Data::Boolean(BooleanBufferBuilder::new(rows)),
            Type::Int | Type::Date => Data::Int(Vec::with_capacity(rows)),
            Type::Long | Type::Time | Type::Timestamp { .. } | Type::TimestampNanos { .. } => {
                Data::Long(Vec::with_capacity(rows))
            }
            Type::Float => Data::Float(Vec::with_capacity(rows)),
            Type::Double => Data::Double(Vec::with_capacity(rows)),
            Type::Decimal { .. } => Data::Decimal(Vec::with_capacity(rows)),
            Type::String | Type::Binary => Data::Bytes(Bytes::with_capacity(rows, rows * 8)),
            Type::Uuid => Data::Fixed { size: 16, bytes: Vec::with_capacity(rows * 16) },
            // A wide fixed is not worth room for rows that may never come.
            Type::Fixed(n) => Data::Fixed { size: *n as usize, bytes: Vec::new() },
            Type::Struct(fields) => {
                Data::Struct { fields: fields.iter().map(|f| Column::new(f, rows)).collect(), len: 0 }
            }
            Type::List(element) => {
                Data::List { offsets: start_offsets(rows), element: Box::new(Column::new(element, rows)) }
            }
            Type::Map(key, value) => Data::Map {
                offsets: start_offsets(rows),
                key: Box::new(Column::new(key, rows)),
                value: Box::new(Column::new(value, rows)),
            },
        };
        Column { data, nulls: Nulls::default(), optional: !field.required }
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        match &self.data {
            Data::Boolean(v) => v.len(),
            Data::Int(v) => v.len(),
            Data::Long(v) => v.len(),
            Data::Float(v) => v.len(),
            Data::Double(v) => v.len(),
            Data::Decimal(v) => v.len(),
            Data::Bytes(v) => v.offsets.len() - 1,
            Data::Fixed { size, bytes } => bytes.len() / size.max(&1),
            Data::Struct { len, .. } => *len,
            Data::List { offsets, .. } | Data::Map { offsets, .. } => offsets.len() - 1,
        }
    }

    /// Notes that the value just pushed is there.
    #[inline(always)]
    pub fn present(&mut self) {
        self.nulls.present();
    }

    /// A null; in a required column a filler, which only a null parent may ask for.
    #[inline(always)]
    pub fn push_null(&mut self) -> Result<(), Reason> {
        if self.optional {
            if self.nulls.present.is_empty() {
                self.before_first_null();
            }
            self.nulls.present.push(false);
        }
        match &mut self.data {
            Data::Long(v) => v.push(0),
            Data::Double(v) => v.push(0.0),
            Data::Bytes(v) => v.push(&[])?,
            _ => self.push_other_filler()?,
        }
        Ok(())
    }

    /// A value that is not from the wire. In a column of another type it is null.
    pub fn push_constant(&mut self, constant: &Constant) -> Result<(), Reason> {
        match (&mut self.data, constant) {
            (Data::Boolean(v), Constant::Boolean(value)) => v.append(*value),
            (Data::Int(v), Constant::Int(value)) => v.push(*value),
            (Data::Long(v), Constant::Long(value)) => v.push(*value),
            (Data::Float(v), Constant::Float(bits)) => v.push(f32::from_bits(*bits)),
            (Data::Double(v), Constant::Double(bits)) => v.push(f64::from_bits(*bits)),
            (Data::Decimal(v), Constant::Decimal(value)) => v.push(*value),
            (Data::Bytes(v), Constant::String(value)) => v.push(value.as_bytes())?,
            (Data::Bytes(v), Constant::Bytes(value)) => v.push(value)?,
            (Data::Fixed { size, bytes }, Constant::Bytes(value)) if value.len() == *size => {
                fits(bytes.len() + value.len())?;
                bytes.extend_from_slice(value);
            }
            _ => return self.push_null(),
        }
        self.present();
        Ok(())
    }

    #[cold]
    fn before_first_null(&mut self) {
        self.nulls.present.resize(self.len(), true);
    }

    #[inline(never)]
    fn push_other_filler(&mut self) -> Result<(), Reason> {
        match &mut self.data {
            Data::Boolean(v) => v.append(false),
            Data::Int(v) => v.push(0),
            Data::Long(v) => v.push(0),
            Data::Float(v) => v.push(0.0),
            Data::Double(v) => v.push(0.0),
            Data::Decimal(v) => v.push(0),
            Data::Bytes(v) => v.push(&[])?,
            Data::Fixed { size, bytes } => bytes.resize(fits(bytes.len() + *size)?, 0),
            Data::Struct { fields, len } => {
                fields.iter_mut().try_for_each(Column::push_null)?;
                *len += 1;
            }
            Data::List { offsets, .. } | Data::Map { offsets, .. } => {
                offsets.push(offsets.last().copied().unwrap_or(0))
            }
        }
        Ok(())
    }

    /// Forgets everything from row `rows` on, half-written values included.
    pub fn truncate(&mut self, rows: usize) {
        self.nulls.present.truncate(rows);
        match &mut self.data {
            Data::Boolean(v) => v.truncate(rows),
            Data::Int(v) => v.truncate(rows),
            Data::Long(v) => v.truncate(rows),
            Data::Float(v) => v.truncate(rows),
            Data::Double(v) => v.truncate(rows),
            Data::Decimal(v) => v.truncate(rows),
            Data::Bytes(v) => v.truncate(rows),
            Data::Fixed { size, bytes } => bytes.truncate(rows * *size),
            Data::Struct { fields, len } => {
                fields.iter_mut().for_each(|f| f.truncate(rows));
                *len = rows;
            }
            Data::List { offsets, element } => element.truncate(cut(offsets, rows)),
            Data::Map { offsets, key, value } => {
                let end = cut(offsets, rows);
                key.truncate(end);
                value.truncate(end);
            }
        }
    }

    /// Whether the last value is one of these; a null is none of them.
    pub fn last_is(&self, values: &Wanted) -> bool {
        let Some(row) = self.len().checked_sub(1) else { return false };
        if self.nulls.is_null(row) {
            return false;
        }
        match (&self.data, values) {
            (Data::Bytes(v), Wanted::Texts(wanted)) => wanted.iter().any(|w| w.as_slice() == v.last()),
            (Data::Int(v), Wanted::Numbers(wanted)) => v.last().is_some_and(|v| wanted.contains(&i64::from(*v))),
            (Data::Long(v), Wanted::Numbers(wanted)) => v.last().is_some_and(|v| wanted.contains(v)),
            (Data::Boolean(v), Wanted::Booleans(wanted)) => wanted.contains(&v.get_bit(row)),
            _ => false,
        }
    }

    /// The column as an array of the type that the table's field has in Arrow; the column is empty afterwards, with room
    /// for as much again.
    pub fn finish(&mut self, kind: &DataType) -> Result<ArrayRef, ArrowError> {
        let nulls = self.nulls.finish();
        match (&mut self.data, kind) {
            (Data::Boolean(v), _) => Ok(Arc::new(BooleanArray::new(v.finish(), nulls))),
            (Data::Int(v), DataType::Date32) => Ok(primitive::<Date32Type>(v, nulls, kind)),
            (Data::Int(v), _) => Ok(primitive::<Int32Type>(v, nulls, kind)),
            (Data::Long(v), DataType::Int64) => Ok(primitive::<Int64Type>(v, nulls, kind)),
            (Data::Long(v), DataType::Time64(_)) => Ok(primitive::<Time64MicrosecondType>(v, nulls, kind)),
            (Data::Long(v), DataType::Timestamp(arrow::datatypes::TimeUnit::Nanosecond, _)) => {
                Ok(primitive::<TimestampNanosecondType>(v, nulls, kind))
            }
            (Data::Long(v), _) => Ok(primitive::<TimestampMicrosecondType>(v, nulls, kind)),
            (Data::Float(v), _) => Ok(primitive::<Float32Type>(v, nulls, kind)),
            (Data::Double(v), _) => Ok(primitive::<Float64Type>(v, nulls, kind)),
            (Data::Decimal(v), _) => Ok(primitive::<Decimal128Type>(v, nulls, kind)),
            (Data::Bytes(v), _) => Ok(finish_bytes(v, nulls, kind)),
            (Data::Fixed { size, bytes }, _) => {
                let values = again(bytes);
                Ok(Arc::new(FixedSizeBinaryArray::try_new(*size as i32, values.into(), nulls)?))
            }
            (Data::Struct { fields, len }, DataType::Struct(kinds)) => {
                let arrays = fields.iter_mut().zip(kinds).map(|(f, k)| f.finish(k.data_type()));
                let arrays = arrays.collect::<Result<Vec<_>, _>>()?;
                *len = 0;
                Ok(Arc::new(StructArray::try_new(kinds.clone(), arrays, nulls)?))
            }
            (Data::List { offsets, element }, DataType::List(inner)) => {
                let values = element.finish(inner.data_type())?;
                Ok(Arc::new(ListArray::try_new(inner.clone(), finish_offsets(offsets), values, nulls)?))
            }
            (Data::Map { offsets, key, value }, DataType::Map(entries, sorted)) => {
                let DataType::Struct(kinds) = entries.data_type() else {
                    return Err(ArrowError::SchemaError("map entries are no struct".into()));
                };
                let arrays = vec![key.finish(kinds[0].data_type())?, value.finish(kinds[1].data_type())?];
                let inner = StructArray::try_new(kinds.clone(), arrays, None)?;
                Ok(Arc::new(MapArray::try_new(entries.clone(), finish_offsets(offsets), inner, nulls, *sorted)?))
            }
            (_, kind) => Err(ArrowError::SchemaError(format!("a column was not built for {kind}"))),
        }
    }

    /// Bytes of memory that the values take, nulls aside.
    pub fn bytes(&self) -> usize {
        match &self.data {
            Data::Boolean(v) => v.len() / 8,
            Data::Int(v) => v.len() * 4,
            Data::Long(v) => v.len() * 8,
            Data::Float(v) => v.len() * 4,
            Data::Double(v) => v.len() * 8,
            Data::Decimal(v) => v.len() * 16,
            Data::Bytes(v) => v.bytes.len() + v.offsets.len() * 4,
            Data::Fixed { bytes, .. } => bytes.len(),
            Data::Struct { fields, .. } => fields.iter().map(Column::bytes).sum(),
            Data::List { offsets, element } => offsets.len() * 4 + element.bytes(),
            Data::Map { offsets, key, value } => offsets.len() * 4 + key.bytes() + value.bytes(),
        }
    }
}

/// The values of a field that mark an event as a delete, in the form of its column.
#[derive(Debug, Clone)]
pub enum Wanted {
    Texts(Vec<Vec<u8>>),
    Numbers(Vec<i64>),
    Booleans(Vec<bool>),
}

/// Ends the value of a list or map whose child has reached this length.
#[inline]
pub fn close(offsets: &mut Vec<i32>, child: usize) -> Result<(), Reason> {
    offsets.push(i32::try_from(child).map_err(|_| Reason::TooLarge)?);
    Ok(())
}

/// A length that Arrow's 32-bit offsets can still say.
pub fn fits(bytes: usize) -> Result<usize, Reason> {
    if bytes > i32::MAX as usize { Err(Reason::TooLarge) } else { Ok(bytes) }
}

fn start_offsets(rows: usize) -> Vec<i32> {
    let mut offsets = Vec::with_capacity(rows + 1);
    offsets.push(0);
    offsets
}

fn cut(offsets: &mut Vec<i32>, rows: usize) -> usize {
    offsets.truncate(rows + 1);
    offsets.last().copied().unwrap_or(0) as usize
}

/// Takes the values and leaves an empty vector that will hold as many without growing.
fn again<T>(values: &mut Vec<T>) -> Vec<T> {
    let room = values.len();
    std::mem::replace(values, Vec::with_capacity(room))
}

fn primitive<T: ArrowPrimitiveType>(
    values: &mut Vec<T::Native>,
    nulls: Option<NullBuffer>,
    kind: &DataType,
) -> ArrayRef {
    let values = ScalarBuffer::from(again(values));
    Arc::new(PrimitiveArray::<T>::new(values, nulls).with_data_type(kind.clone()))
}

fn finish_offsets(offsets: &mut Vec<i32>) -> OffsetBuffer<i32> {
    let room = offsets.len();
    let done = std::mem::replace(offsets, start_offsets(room));
    OffsetBuffer::new(done.into())
}

fn finish_bytes(column: &mut Bytes, nulls: Option<NullBuffer>, kind: &DataType) -> ArrayRef {
    let offsets = finish_offsets(&mut column.offsets);
    let values = again(&mut column.bytes).into();
    if *kind == DataType::Utf8 {
        // SAFETY: whatever is pushed to a text column was checked to be UTF-8 value by value (`Cursor::text`, symbols and
        // topic names are `str`), fillers are empty, and each offset is the end of one such value. Checking the buffer
        // again would cost a tenth of decoding.
        Arc::new(unsafe { StringArray::new_unchecked(offsets, values, nulls) })
    } else {
        Arc::new(BinaryArray::new(offsets, values, nulls))
    }
}

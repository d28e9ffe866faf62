//! Columns in one spelling of a table's turned into another, at every depth: fields found again by name or by place, wider
//! types, and a default or null where a field was added since. New rows take this way into data files, and rows of data files the way back.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Decimal128Array, FixedSizeBinaryArray, Float32Array,
    Float64Array, Int32Array, Int64Array, ListArray, MapArray, RecordBatch, RecordBatchOptions, StringArray,
    StructArray, make_array, new_null_array,
};
use arrow::compute::{CastOptions, cast, cast_with_options, is_null, nullif};
use arrow::datatypes::{DataType, Date32Type, Field, Fields, Int64Type, SchemaRef, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;

use crate::core::schema::{Absent, Constant, DAY_MICROS, Named, default_of, matches, other_names};
use crate::error::{Error, Result};

/// `batch`, new rows, with the columns of `schema`, matched at every depth by name, or by a name that either of the two knows
/// the column by besides: rows that were gathered before a column was renamed find it, and so do those that were gathered for
/// a rename that is still to come. What the batch does not have is the column's write default. Field ids are those of `schema`.
///
/// # Errors
/// [`Error::Decision`] naming the column whose values do not fit.
pub fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let one = |(field, place): (&Arc<Field>, Option<usize>)| match place.and_then(|at| batch.columns().get(at)) {
        Some(column) => fit_column(column, field, Matching::ByName(Absent::NotGiven)),
        None => absent(field, Absent::NotGiven, batch.num_rows()).map_err(|e| unfit(field, &e)),
    };
    let places = places(batch.schema_ref().fields(), schema.fields());
    let columns = schema.fields().iter().zip(places).map(one).collect::<Result<_>>()?;
    assemble(schema, columns, batch.num_rows())
}

/// Columns with the names, ids and types of `schema`, whose fields are the same ones in the same order at every depth.
///
/// # Errors
/// As [`conform`].
pub fn respell(columns: Vec<ArrayRef>, rows: usize, schema: &SchemaRef) -> Result<RecordBatch> {
    let one = |(column, field): (&ArrayRef, &Arc<Field>)| fit_column(column, field, Matching::InOrder);
    let columns = columns.iter().zip(schema.fields()).map(one).collect::<Result<_>>()?;
    assemble(schema, columns, rows)
}

fn assemble(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
        .map_err(|e| Error::Decision(format!("rows do not fit the table: {e}")))
}

fn fit_column(column: &ArrayRef, field: &Field, matching: Matching) -> Result<ArrayRef> {
    fit(column, field.data_type(), matching).map_err(|e| unfit(field, &e))
}

fn unfit(field: &Field, error: &ArrowError) -> Error {
    Error::Decision(format!("column {}: {error}", field.name()))
}

/// What a field is in rows that do not have it: its default, or null.
///
/// # Errors
/// [`ArrowError`] where the default is no value of the field's type.
pub fn absent(field: &Field, absent: Absent, rows: usize) -> std::result::Result<ArrayRef, ArrowError> {
    match default_of(field, absent) {
        Some(constant) => repeat(&constant, field.data_type(), rows),
        None => Ok(new_null_array(field.data_type(), rows)),
    }
}

/// So many rows of a constant.
fn repeat(constant: &Constant, kind: &DataType, rows: usize) -> std::result::Result<ArrayRef, ArrowError> {
    let again = |bytes: &[u8]| std::iter::repeat_n(Some(bytes.to_vec()), rows);
    let plain: ArrayRef = match constant {
        Constant::Boolean(v) => Arc::new(BooleanArray::from(vec![*v; rows])),
        Constant::Int(v) => Arc::new(Int32Array::from_value(*v, rows)),
        Constant::Long(v) => Arc::new(Int64Array::from_value(*v, rows)),
        Constant::Float(v) => Arc::new(Float32Array::from_value(f32::from_bits(*v), rows)),
        Constant::Double(v) => Arc::new(Float64Array::from_value(f64::from_bits(*v), rows)),
        Constant::Decimal(v) => {
            return Ok(Arc::new(Decimal128Array::from_value(*v, rows).with_data_type(kind.clone())));
        }
        Constant::String(v) => Arc::new(StringArray::from_iter_values(std::iter::repeat_n(v, rows))),
        Constant::Bytes(v) => match kind {
            DataType::FixedSizeBinary(n) => {
                Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(again(v), *n)?)
            }
            _ => Arc::new(again(v).collect::<BinaryArray>()),
        },
    };
    // Integers to dates and times, which Arrow takes for the same numbers.
    cast(&plain, kind)
}

/// Where each field of `to` is in `from`.
fn places(from: &Fields, to: &Fields) -> Vec<Option<usize>> {
    let aliases = |fields: &Fields| -> Vec<Vec<String>> {
        fields.iter().map(|field| other_names(field).map(str::to_owned).collect()).collect()
    };
    fn named<'a>(fields: &'a Fields, aliases: &'a [Vec<String>]) -> Vec<Named<'a>> {
        fields.iter().zip(aliases).map(|(field, aliases)| Named { name: field.name(), aliases }).collect()
    }
    let (of_from, of_to) = (aliases(from), aliases(to));
    matches(&named(from, &of_from), &named(to, &of_to))
}

/// How fields of records find each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matching {
    /// By their names; one that is not there is absent for this reason.
    ByName(Absent),
    /// By their places.
    InOrder,
}

/// `column` in the type `to`. A field that is absent, or whose record is null, is null.
///
/// # Errors
/// [`ArrowError`] where a value does not fit.
pub fn fit(column: &ArrayRef, to: &DataType, matching: Matching) -> std::result::Result<ArrayRef, ArrowError> {
    match (column.data_type(), to) {
        (from, to) if from == to => Ok(column.clone()),
        (DataType::Struct(_), DataType::Struct(fields)) => Ok(Arc::new(record(column.as_struct(), fields, matching)?)),
        (DataType::List(_), DataType::List(element)) => {
            let from = column.as_list::<i32>();
            let values = fit(from.values(), element.data_type(), matching)?;
            let (offsets, nulls) = (from.offsets().clone(), from.nulls().cloned());
            Ok(Arc::new(ListArray::try_new(element.clone(), offsets, values, nulls)?))
        }
        (DataType::Map(_, _), DataType::Map(entries, sorted)) => {
            let from = column.as_map();
            let values = map_entries(from.entries(), entries, matching)?;
            let (offsets, nulls) = (from.offsets().clone(), from.nulls().cloned());
            Ok(Arc::new(MapArray::try_new(entries.clone(), offsets, values, nulls, *sorted)?))
        }
        (DataType::FixedSizeBinary(16), DataType::Utf8) => Ok(Arc::new(uuid_texts(column.as_fixed_size_binary())?)),
        (DataType::Utf8, DataType::FixedSizeBinary(16)) => uuid_bytes(column.as_string::<i32>()),
        (DataType::FixedSizeBinary(_), DataType::Binary) => {
            Ok(Arc::new(column.as_fixed_size_binary().iter().collect::<BinaryArray>()))
        }
        (DataType::Binary, DataType::FixedSizeBinary(bytes)) => {
            let values = column.as_binary::<i32>().iter();
            Ok(Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(values, *bytes)?))
        }
        (DataType::Time64(TimeUnit::Microsecond), DataType::Int64) => {
            Ok(Arc::new(cast(column, to)?.as_primitive::<Int64Type>().clone()))
        }
        (DataType::Int64, DataType::Time64(TimeUnit::Microsecond)) => {
            let data = column.as_primitive::<Int64Type>().to_data().into_builder().data_type(to.clone()).build();
            Ok(make_array(data?))
        }
        (DataType::Date32, DataType::Timestamp(TimeUnit::Microsecond, None)) => {
            let midnight = |days: i32| i64::from(days).checked_mul(DAY_MICROS).ok_or_else(|| out_of_range(days));
            Ok(Arc::new(column.as_primitive::<Date32Type>().try_unary::<_, TimestampMicrosecondType, _>(midnight)?))
        }
        // Rows for a table whose column is still to become wider.
        (DataType::Timestamp(TimeUnit::Microsecond, None), DataType::Date32) => {
            let day = |micros: i64| match i32::try_from(micros / DAY_MICROS) {
                Ok(days) if micros % DAY_MICROS == 0 => Ok(days),
                _ => Err(ArrowError::CastError(format!("the timestamp {micros} is no midnight of a date"))),
            };
            Ok(Arc::new(column.as_primitive::<TimestampMicrosecondType>().try_unary::<_, Date32Type, _>(day)?))
        }
        // A value that does not fit is an error, never a null.
        _ => cast_with_options(column, to, &CastOptions { safe: false, ..CastOptions::default() }),
    }
}

/// A required field of an optional record has a placeholder ('' or 0) where the record is null; a field that may be null
/// is null there.
fn record(from: &StructArray, fields: &Fields, matching: Matching) -> std::result::Result<StructArray, ArrowError> {
    let gone = if from.null_count() > 0 { Some(is_null(from)?) } else { None };
    let places = match matching {
        Matching::ByName(_) => places(from.fields(), fields),
        Matching::InOrder => (0..fields.len()).map(Some).collect(),
    };
    let child = |(place, field): (Option<usize>, &Arc<Field>)| {
        let found = place.and_then(|at| from.columns().get(at));
        let missing = || match matching {
            Matching::ByName(reason) => absent(field, reason, from.len()),
            Matching::InOrder => Ok(new_null_array(field.data_type(), from.len())),
        };
        match (found, &gone) {
            (None, Some(gone)) if field.is_nullable() => nullif(&missing()?, gone),
            (None, _) => missing(),
            // Before its own fields, which are absent with it.
            (Some(found), Some(gone)) if field.is_nullable() => fit(&nullif(found, gone)?, field.data_type(), matching),
            (Some(found), _) => fit(found, field.data_type(), matching),
        }
    };
    let children = places.into_iter().zip(fields).map(child).collect::<std::result::Result<Vec<_>, _>>()?;
    StructArray::try_new_with_length(fields.clone(), children, from.nulls().cloned(), from.len())
}

/// Keys and values are told by their place, whatever writers call them.
fn map_entries(from: &StructArray, to: &Field, matching: Matching) -> std::result::Result<StructArray, ArrowError> {
    let DataType::Struct(fields) = to.data_type() else {
        return Err(ArrowError::SchemaError(format!("a map's entries are not a record: {to}")));
    };
    let columns = from.columns().iter().zip(fields).map(|(column, field)| fit(column, field.data_type(), matching));
    let columns = columns.collect::<std::result::Result<Vec<_>, _>>()?;
    StructArray::try_new_with_length(fields.clone(), columns, from.nulls().cloned(), from.len())
}

fn out_of_range(days: i32) -> ArrowError {
    ArrowError::CastError(format!("the date {days} days from 1970-01-01 is beyond what a timestamp can hold"))
}

fn unreadable(error: &uuid::Error) -> ArrowError {
    ArrowError::ParseError(format!("not a uuid: {error}"))
}

fn uuid_texts(bytes: &FixedSizeBinaryArray) -> std::result::Result<StringArray, ArrowError> {
    let text = |value: Option<&[u8]>| {
        let uuid = value.map(uuid::Uuid::from_slice).transpose().map_err(|e| unreadable(&e))?;
        Ok(uuid.map(|uuid| uuid.hyphenated().to_string()))
    };
    bytes.iter().map(text).collect()
}

fn uuid_bytes(texts: &StringArray) -> std::result::Result<ArrayRef, ArrowError> {
    let parse = |text: Option<&str>| {
        let uuid = text.map(uuid::Uuid::parse_str).transpose().map_err(|e| unreadable(&e))?;
        Ok(uuid.map(uuid::Uuid::into_bytes))
    };
    let values = texts.iter().map(parse).collect::<std::result::Result<Vec<_>, ArrowError>>()?;
    Ok(Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(values.into_iter(), 16)?))
}

#[cfg(test)]
mod tests;

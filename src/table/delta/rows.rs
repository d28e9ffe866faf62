//! Batches in one spelling of a table's columns turned into another: new rows for data files, and back.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, FixedSizeBinaryArray, Int64Array, ListArray, MapArray, RecordBatch,
    RecordBatchOptions, StringArray, StructArray, make_array, new_null_array,
};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field, Int64Type, SchemaRef, TimeUnit};

use crate::error::{Error, Result};

/// `batch` with the columns of `schema`, matched by name at every depth; what it does not have is null. Field ids are
/// those of `schema`.
///
/// # Errors
/// [`Error::Decision`] naming the column whose values do not fit.
pub(in crate::table) fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let one = |field: &Arc<Field>| match batch.column_by_name(field.name()) {
        Some(column) => to_field(column, field).map_err(|e| Error::Decision(format!("column {}: {e}", field.name()))),
        None => Ok(new_null_array(field.data_type(), batch.num_rows())),
    };
    assemble(schema, schema.fields().iter().map(one).collect::<Result<_>>()?, batch.num_rows())
}

/// Columns with the names, ids and types of `schema`, whose fields are the same ones in the same order at every depth.
///
/// # Errors
/// As [`conform`].
pub(super) fn respell(columns: Vec<ArrayRef>, rows: usize, schema: &SchemaRef) -> Result<RecordBatch> {
    let one = |(column, field): (&ArrayRef, &Arc<Field>)| {
        to_field_in_order(column, field).map_err(|e| Error::Decision(format!("column {}: {e}", field.name())))
    };
    let columns = columns.iter().zip(schema.fields()).map(one).collect::<Result<_>>()?;
    assemble(schema, columns, rows)
}

fn assemble(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
        .map_err(|e| Error::Decision(format!("rows do not fit the table: {e}")))
}

fn to_field(column: &ArrayRef, field: &Field) -> Result<ArrayRef, String> {
    convert(column, field.data_type(), Matching::ByName)
}

fn to_field_in_order(column: &ArrayRef, field: &Field) -> Result<ArrayRef, String> {
    convert(column, field.data_type(), Matching::InOrder)
}

/// How fields of structs find each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Matching {
    ByName,
    InOrder,
}

fn convert(column: &ArrayRef, to: &DataType, matching: Matching) -> Result<ArrayRef, String> {
    let failed = |e: arrow::error::ArrowError| e.to_string();
    match (column.data_type(), to) {
        (from, to) if from == to => Ok(column.clone()),
        (DataType::Struct(_), DataType::Struct(fields)) => {
            let from = column.as_struct();
            let child = |(place, field): (usize, &Arc<Field>)| {
                let inner = match matching {
                    Matching::ByName => from.column_by_name(field.name()),
                    Matching::InOrder => from.columns().get(place),
                };
                match inner {
                    Some(inner) => convert(inner, field.data_type(), matching),
                    None => Ok(new_null_array(field.data_type(), from.len())),
                }
            };
            let children = fields.iter().enumerate().map(child).collect::<Result<Vec<_>, _>>()?;
            let built = StructArray::try_new_with_length(fields.clone(), children, from.nulls().cloned(), from.len());
            Ok(Arc::new(built.map_err(failed)?))
        }
        (DataType::List(_), DataType::List(element)) => {
            let from = column.as_list::<i32>();
            let values = convert(from.values(), element.data_type(), matching)?;
            let built = ListArray::try_new(element.clone(), from.offsets().clone(), values, from.nulls().cloned());
            Ok(Arc::new(built.map_err(failed)?))
        }
        (DataType::Map(_, _), DataType::Map(entries, sorted)) => {
            let from = column.as_map();
            let inner: ArrayRef = Arc::new(from.entries().clone());
            // Keys and values are told by their place whatever they are called.
            let values = convert(&inner, entries.data_type(), Matching::InOrder)?;
            let values = values.as_struct().clone();
            let (offsets, nulls) = (from.offsets().clone(), from.nulls().cloned());
            Ok(Arc::new(MapArray::try_new(entries.clone(), offsets, values, nulls, *sorted).map_err(failed)?))
        }
        (DataType::FixedSizeBinary(16), DataType::Utf8) => Ok(Arc::new(uuid_texts(column.as_fixed_size_binary())?)),
        (DataType::Utf8, DataType::FixedSizeBinary(16)) => uuid_bytes(column.as_string::<i32>()),
        (DataType::FixedSizeBinary(_), DataType::Binary) => {
            Ok(Arc::new(column.as_fixed_size_binary().iter().collect::<BinaryArray>()))
        }
        (DataType::Binary, DataType::FixedSizeBinary(bytes)) => {
            let values = column.as_binary::<i32>().iter();
            let built = FixedSizeBinaryArray::try_from_sparse_iter_with_size(values, *bytes);
            Ok(Arc::new(built.map_err(failed)?))
        }
        (DataType::Time64(TimeUnit::Microsecond), DataType::Int64) => {
            Ok(Arc::new(cast(column, to).map_err(failed)?.as_primitive::<Int64Type>().clone()))
        }
        (DataType::Int64, DataType::Time64(TimeUnit::Microsecond)) => {
            let data = column.as_primitive::<Int64Type>().to_data().into_builder().data_type(to.clone()).build();
            Ok(make_array(data.map_err(failed)?))
        }
        _ => cast(column, to).map_err(failed),
    }
}

fn uuid_texts(bytes: &FixedSizeBinaryArray) -> Result<StringArray, String> {
    let text = |value: Option<&[u8]>| {
        let uuid = value.map(uuid::Uuid::from_slice).transpose().map_err(|e| e.to_string())?;
        Ok(uuid.map(|uuid| uuid.hyphenated().to_string()))
    };
    bytes.iter().map(text).collect()
}

fn uuid_bytes(texts: &StringArray) -> Result<ArrayRef, String> {
    let parse = |text: Option<&str>| {
        let uuid = text.map(uuid::Uuid::parse_str).transpose().map_err(|e| format!("not a uuid: {e}"))?;
        Ok(uuid.map(uuid::Uuid::into_bytes))
    };
    let values = texts.iter().map(parse).collect::<Result<Vec<_>, String>>()?;
    let built = FixedSizeBinaryArray::try_from_sparse_iter_with_size(values.into_iter(), 16);
    Ok(Arc::new(built.map_err(|e| e.to_string())?))
}

/// `value` (one row) as often as asked for.
pub(super) fn repeat(value: &ArrayRef, rows: usize) -> Result<ArrayRef> {
    let places = Int64Array::from_value(0, rows);
    take(value, &places, None).map_err(|e| Error::Internal(format!("cannot repeat a partition value: {e}")))
}

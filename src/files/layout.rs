//! Which of the new rows go into which partition, and in which order.

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StructArray, make_array};
use arrow::buffer::NullBuffer;
use arrow::compute::SortOptions;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, Schema, TimeUnit,
};
use arrow::row::{RowConverter, Rows, SortField};
use iceberg::spec::{Datum, Literal, NullOrder, PrimitiveType, SortDirection, Struct, Transform, Type};

use super::transform::{apply, civil};
use super::{WriteTarget, from_iceberg};
use crate::core::schema::field_id;
use crate::{Error, Result};

/// Rows that share a partition.
#[derive(Debug)]
pub(super) struct Group {
    pub partition: Struct,
    /// `name=value/…` of the partition, empty when the table is not partitioned.
    pub folder: String,
    /// Row numbers in the order of the file; `None` means all rows as they are.
    pub rows: Option<Vec<u32>>,
}

/// Splits rows into partitions (in the order of their values) and sorts each. Costs nothing per row where the table is
/// neither partitioned nor sorted.
pub(super) fn plan(target: &WriteTarget, batches: &[RecordBatch]) -> Result<Vec<Group>> {
    let mut groups = partitions(target, batches)?;
    if target.sort_order.is_unsorted() {
        return Ok(groups);
    }
    let total: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let keys = sort_keys(target, batches)?;
    for group in &mut groups {
        let rows = group.rows.get_or_insert_with(|| (0..total as u32).collect());
        // Rows that compare equal keep their order: the sort is stable.
        rows.sort_by(|a, b| keys.row(*a as usize).cmp(&keys.row(*b as usize)));
    }
    Ok(groups)
}

fn partitions(target: &WriteTarget, batches: &[RecordBatch]) -> Result<Vec<Group>> {
    if target.spec.fields().is_empty() {
        return Ok(vec![Group { partition: Struct::empty(), folder: String::new(), rows: None }]);
    }
    let types = target.spec.partition_type(&target.schema).map_err(|e| from_iceberg("bad partition spec", &e))?;
    let sources: Vec<_> = target.spec.fields().iter().map(|f| (f.source_id, f.transform)).collect();
    let columns = transformed(&sources, batches)?;
    let options = vec![SortOptions::default(); sources.len()];
    let values = encode(&columns, &options)?;

    let mut found: HashMap<&[u8], Vec<u32>> = HashMap::new();
    for (i, row) in values.iter().enumerate() {
        found.entry(row.data()).or_default().push(i as u32);
    }
    let mut found: Vec<_> = found.into_iter().collect();
    found.sort_unstable_by(|a, b| a.0.cmp(b.0));

    let starts = starts(batches);
    let only = found.len() == 1;
    let group = |(_, rows): (&[u8], Vec<u32>)| {
        let (batch, row) = locate(&starts, rows[0]);
        let (mut fields, mut folder) = (Vec::new(), String::new());
        for (i, field) in target.spec.fields().iter().enumerate() {
            let Type::Primitive(kind) = &*types.fields()[i].field_type else {
                return Err(Error::Decision(format!("partition field {} is not of a primitive type", field.name)));
            };
            let value = datum(&columns[batch][i], row, kind)?;
            let separator = if i == 0 { "" } else { "/" };
            folder +=
                &format!("{separator}{}={}", url_encoded(&field.name), path_value(field.transform, value.as_ref()));
            fields.push(value.map(Literal::from));
        }
        Ok(Group { partition: Struct::from_iter(fields), folder, rows: (!only).then_some(rows) })
    };
    found.into_iter().map(group).collect()
}

fn sort_keys(target: &WriteTarget, batches: &[RecordBatch]) -> Result<Rows> {
    let fields = &target.sort_order.fields;
    let sources: Vec<_> = fields.iter().map(|f| (f.source_id, f.transform)).collect();
    let options: Vec<_> = fields
        .iter()
        .map(|f| SortOptions {
            descending: f.direction == SortDirection::Descending,
            nulls_first: f.null_order == NullOrder::First,
        })
        .collect();
    encode(&transformed(&sources, batches)?, &options)
}

/// Per batch, the columns that `sources` (field id and transform) ask for.
fn transformed(sources: &[(i32, Transform)], batches: &[RecordBatch]) -> Result<Vec<Vec<ArrayRef>>> {
    let of_batch = |batch: &RecordBatch| {
        let one = |(id, transform): &(i32, Transform)| apply(*transform, &leaf(batch, *id)?);
        sources.iter().map(one).collect::<Result<Vec<_>>>()
    };
    batches.iter().map(of_batch).collect()
}

fn encode(columns: &[Vec<ArrayRef>], options: &[SortOptions]) -> Result<Rows> {
    let internal = |e: arrow::error::ArrowError| Error::Internal(format!("cannot order rows: {e}"));
    let kinds = columns.first().map(Vec::as_slice).unwrap_or_default();
    let fields =
        kinds.iter().zip(options).map(|(c, o)| SortField::new_with_options(c.data_type().clone(), *o)).collect();
    let converter = RowConverter::new(fields).map_err(internal)?;
    let mut rows = converter.empty_rows(columns.iter().filter_map(|c| c.first()).map(|c| c.len()).sum(), 0);
    for batch in columns {
        converter.append(&mut rows, batch).map_err(internal)?;
    }
    Ok(rows)
}

/// The number of the first row of each batch.
pub(super) fn starts(batches: &[RecordBatch]) -> Vec<u32> {
    let mut next = 0;
    let start = |batch: &RecordBatch| {
        let start = next;
        next += batch.num_rows() as u32;
        start
    };
    batches.iter().map(start).collect()
}

/// Batch and row in it of a row number.
pub(super) fn locate(starts: &[u32], row: u32) -> (usize, usize) {
    // Empty batches share their start with the next: the last batch that starts at or before the row is the one.
    let batch = starts.partition_point(|start| *start <= row) - 1;
    (batch, (row - starts[batch]) as usize)
}

/// The column of a field id at any depth of structs; a value under an absent parent is null.
fn leaf(batch: &RecordBatch, id: i32) -> Result<ArrayRef> {
    let schema: &Schema = batch.schema_ref();
    find(schema.fields(), batch.columns(), None, id)?
        .ok_or_else(|| Error::Internal(format!("new rows have no column with field id {id}")))
}

fn find(
    fields: &arrow::datatypes::Fields,
    columns: &[ArrayRef],
    absent: Option<&NullBuffer>,
    id: i32,
) -> Result<Option<ArrayRef>> {
    for (field, column) in fields.iter().zip(columns) {
        let nulls = NullBuffer::union(absent, column.nulls());
        if field_id(field) == Some(id) {
            let data = column.to_data().into_builder().nulls(nulls).build();
            return data.map(|d| Some(make_array(d))).map_err(|e| Error::Internal(format!("cannot mask nulls: {e}")));
        }
        if let DataType::Struct(inner) = field.data_type() {
            let children: &StructArray = column.as_struct();
            if let Some(found) = find(inner, children.columns(), nulls.as_ref(), id)? {
                return Ok(Some(found));
            }
        }
    }
    Ok(None)
}

/// One value of a column as Iceberg has it; `None` for null.
pub(super) fn datum(column: &ArrayRef, row: usize, kind: &PrimitiveType) -> Result<Option<Datum>> {
    if column.is_null(row) {
        return Ok(None);
    }
    let bytes: Vec<u8> = match column.data_type() {
        DataType::Boolean => vec![u8::from(column.as_boolean().value(row))],
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).to_le_bytes().into(),
        DataType::Date32 => column.as_primitive::<Date32Type>().value(row).to_le_bytes().into(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_le_bytes().into(),
        DataType::Time64(TimeUnit::Microsecond) | DataType::Timestamp(_, _) => {
            let whole = arrow::compute::cast(&column.slice(row, 1), &DataType::Int64);
            let whole = whole.map_err(|e| Error::Internal(format!("cannot take a partition value: {e}")))?;
            whole.as_primitive::<Int64Type>().value(0).to_le_bytes().into()
        }
        DataType::Float32 => column.as_primitive::<Float32Type>().value(row).to_le_bytes().into(),
        DataType::Float64 => column.as_primitive::<Float64Type>().value(row).to_le_bytes().into(),
        DataType::Decimal128(_, _) => column.as_primitive::<Decimal128Type>().value(row).to_be_bytes().into(),
        DataType::Utf8 => column.as_string::<i32>().value(row).as_bytes().into(),
        DataType::Binary => column.as_binary::<i32>().value(row).into(),
        DataType::FixedSizeBinary(_) => column.as_fixed_size_binary().value(row).into(),
        other => return Err(Error::Decision(format!("cannot partition by a column of type {other}"))),
    };
    Datum::try_from_bytes(&bytes, kind.clone()).map(Some).map_err(|e| from_iceberg("bad partition value", &e))
}

/// A partition value in a folder name, as Iceberg's own writers spell it. Nothing reads it back: partition values are in
/// the manifest. Long ones are cut, since file systems allow 255 bytes for a name.
fn path_value(transform: Transform, value: Option<&Datum>) -> String {
    use iceberg::spec::PrimitiveLiteral::{Int, Long};
    let Some(value) = value else { return "null".to_string() };
    let (hour, day) = (|v: i32| i64::from(v).div_euclid(24), |d: i64| civil(d));
    let text = match (transform, value.data_type(), value.literal()) {
        (Transform::Year, _, Int(v)) => format!("{:04}", v + 1970),
        (Transform::Month, _, Int(v)) => format!("{:04}-{:02}", v.div_euclid(12) + 1970, v.rem_euclid(12) + 1),
        (Transform::Hour, _, Int(v)) => {
            let (y, m, d) = day(hour(*v));
            format!("{y:04}-{:02}-{d:02}-{:02}", m + 1, v.rem_euclid(24))
        }
        (_, PrimitiveType::Date, Int(v)) => {
            let (y, m, d) = day(i64::from(*v));
            format!("{y:04}-{:02}-{d:02}", m + 1)
        }
        // Microseconds and nanoseconds are left as numbers: their text form fails for years beyond 262000.
        (_, _, Long(v)) => v.to_string(),
        _ => value.to_human_string(),
    };
    url_encoded(&text)
}

/// `application/x-www-form-urlencoded`, at most 100 bytes.
fn url_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for c in text.chars() {
        let next: String = url::form_urlencoded::byte_serialize(c.encode_utf8(&mut [0; 4]).as_bytes()).collect();
        if encoded.len() + next.len() > 100 {
            break;
        }
        encoded += &next;
    }
    encoded
}

//! An Iceberg table's snapshot as a scan.

use std::collections::HashMap;
use std::sync::Arc;

use ::iceberg::spec::{DataFile as Entry, DataFileFormat, Literal, PrimitiveLiteral, Transform};
use arrow::datatypes::{DataType, TimeUnit};
use async_trait::async_trait;
use datafusion::scalar::ScalarValue;

use super::scan::{Bucket, ColumnFacts, DataFile, Deletes, Scan};
use super::schema::query_schema;
use crate::core::history::SnapshotId;
use crate::core::schema::{DAY_MICROS, TableSchema};
use crate::files::{DeletedPositions, Naming};
use crate::table::LakeTable;
use crate::table::iceberg::{IcebergTable, ScanFile};
use crate::{Error, Result};

/// What a query of `table` reads: its state of the last load, or the snapshot asked for.
pub(super) async fn scan(table: Arc<IcebergTable>, snapshot: Option<SnapshotId>) -> Result<Scan> {
    let plan = table.plan_scan(snapshot).await?;
    let arrow = query_schema(&plan.schema);
    let kinds: HashMap<i32, DataType> =
        plan.schema.fields.iter().zip(arrow.fields()).map(|(f, a)| (f.id, a.data_type().clone())).collect();
    let mut files = Vec::with_capacity(plan.files.len());
    for file in &plan.files {
        files.push(data_file(&table, file, &plan.schema, &kinds).await?);
    }
    // Listing order depends on how manifests were merged; locations hold the attempt and a counter.
    let mut order: Vec<usize> = (0..files.len()).collect();
    order.sort_by(|a, b| (plan.files[*a].sequence, &files[*a].key).cmp(&(plan.files[*b].sequence, &files[*b].key)));
    let sorted: Vec<ScanFile> = order.iter().map(|i| plan.files[*i].clone()).collect();
    let files = order.into_iter().map(|i| files[i].clone()).collect();
    let store = match sorted.first() {
        Some(first) => table.store().object(first.path())?.0,
        None => Arc::new(object_store::memory::InMemory::new()),
    };
    let name = table.name().to_owned();
    let deletes = Arc::new(TableDeletes { table, files: sorted });
    // Identity-partitioned columns are in the files too.
    Ok(Scan { name, schema: plan.schema, files, deletes, store, naming: Naming::ById, constant: Vec::new() })
}

/// Deletes by way of the table, which keeps what it has read within a bound.
#[derive(Debug)]
struct TableDeletes {
    table: Arc<IcebergTable>,
    files: Vec<ScanFile>,
}

#[async_trait]
impl Deletes for TableDeletes {
    async fn positions(&self, file: usize) -> Result<Arc<DeletedPositions>> {
        Ok(Arc::new(self.table.load_deletes(&self.files[file]).await?))
    }
}

async fn data_file(
    table: &IcebergTable,
    file: &ScanFile,
    schema: &TableSchema,
    kinds: &HashMap<i32, DataType>,
) -> Result<DataFile> {
    let entry = &file.file;
    if entry.file_format() != DataFileFormat::Parquet {
        let text = format!("{} is {}: only Parquet data files are read", file.path(), entry.file_format());
        return Err(Error::Decision(text));
    }
    if file.records() > u64::from(u32::MAX) {
        let text = format!("{} has {} rows, and positions beyond 2^32 are not supported", file.path(), file.records());
        return Err(Error::Decision(text));
    }
    let (_, mut key) = table.store().object(file.path())?;
    if file.path().contains('%') {
        key = table.store().found_object(file.path()).await?.1;
    }
    let columns = schema.fields.iter().filter_map(|f| Some((f.id, facts(entry, f.id, kinds.get(&f.id)?)))).collect();
    let mut data = DataFile {
        key,
        bytes: file.bytes(),
        records: file.records(),
        has_deletes: !file.deletes.is_empty(),
        // One deletion vector counts exactly; several delete files may overlap.
        deleted: (file.deletes.count() <= 1).then(|| file.deletes.rows_max()),
        columns,
        buckets: Vec::new(),
        constants: Vec::new(),
    };
    partition_facts(file, kinds, &mut data);
    Ok(data)
}

fn facts(entry: &Entry, id: i32, kind: &DataType) -> ColumnFacts {
    let nulls = entry.null_value_counts().get(&id).copied();
    // Bounds leave NaN out, and queries do not.
    let floating = matches!(kind, DataType::Float32 | DataType::Float64);
    if kind.is_nested() || (floating && entry.nan_value_counts().get(&id) != Some(&0)) {
        return ColumnFacts { nulls: nulls.filter(|_| !kind.is_nested()), ..ColumnFacts::default() };
    }
    let bound = |bounds: &HashMap<i32, ::iceberg::spec::Datum>| bounds.get(&id).and_then(|d| scalar(d.literal(), kind));
    ColumnFacts { lower: bound(entry.lower_bounds()), upper: bound(entry.upper_bounds()), nulls }
}

/// A stored value in the column's type; values of narrower types (before a promotion) are widened.
fn scalar(value: &PrimitiveLiteral, kind: &DataType) -> Option<ScalarValue> {
    let plain = match (value, kind) {
        (PrimitiveLiteral::Boolean(v), _) => ScalarValue::Boolean(Some(*v)),
        (PrimitiveLiteral::Int(v), DataType::Date32) => ScalarValue::Date32(Some(*v)),
        // The bound of a file from before the column was promoted.
        (PrimitiveLiteral::Int(v), DataType::Timestamp(TimeUnit::Microsecond, zone)) => {
            let midnight = i64::from(*v).checked_mul(DAY_MICROS)?;
            return Some(ScalarValue::TimestampMicrosecond(Some(midnight), zone.clone()));
        }
        (PrimitiveLiteral::Int(v), DataType::Int32 | DataType::Int64) => ScalarValue::Int32(Some(*v)),
        (PrimitiveLiteral::Long(v), _) => ScalarValue::Int64(Some(*v)),
        (PrimitiveLiteral::Float(v), _) => ScalarValue::Float32(Some(v.0)),
        (PrimitiveLiteral::Double(v), _) => ScalarValue::Float64(Some(v.0)),
        (PrimitiveLiteral::String(v), _) => ScalarValue::Utf8(Some(v.clone())),
        (PrimitiveLiteral::Binary(v), DataType::FixedSizeBinary(n)) => {
            return (v.len() == *n as usize).then(|| ScalarValue::FixedSizeBinary(*n, Some(v.clone())));
        }
        (PrimitiveLiteral::Binary(v), _) => ScalarValue::Binary(Some(v.clone())),
        (PrimitiveLiteral::UInt128(v), DataType::FixedSizeBinary(16)) => {
            ScalarValue::FixedSizeBinary(16, Some(v.to_be_bytes().to_vec()))
        }
        // The digits are the value times ten to the scale, and a promotion never changes the scale.
        (PrimitiveLiteral::Int128(v), DataType::Decimal128(p, s)) => {
            return Some(ScalarValue::Decimal128(Some(*v), *p, *s));
        }
        _ => return None,
    };
    plain.cast_to(kind).ok().filter(|v| !v.is_null())
}

/// What partitioning says of a file's columns, where the column's own bounds do not.
fn partition_facts(file: &ScanFile, kinds: &HashMap<i32, DataType>, data: &mut DataFile) {
    for (field, value) in file.spec.fields().iter().zip(file.file.partition().iter()) {
        let primitive = match value {
            Some(Literal::Primitive(primitive)) => Some(primitive),
            Some(_) => continue,
            None => None,
        };
        match (field.transform, primitive) {
            (Transform::Bucket(of), None) => data.buckets.push(Bucket { column: field.source_id, of, bucket: None }),
            (Transform::Bucket(of), Some(PrimitiveLiteral::Int(bucket))) => {
                data.buckets.push(Bucket { column: field.source_id, of, bucket: Some(*bucket) });
            }
            (Transform::Identity, Some(value)) => {
                let Some(kind) = kinds.get(&field.source_id) else { continue };
                let Some(value) = scalar(value, kind) else { continue };
                let facts = data.columns.entry(field.source_id).or_default();
                facts.lower.get_or_insert_with(|| value.clone());
                facts.upper.get_or_insert(value);
                facts.nulls.get_or_insert(0);
            }
            (
                Transform::Year | Transform::Month | Transform::Day | Transform::Hour,
                Some(PrimitiveLiteral::Int(at)),
            ) => {
                let Some(kind) = kinds.get(&field.source_id) else { continue };
                let Some((lower, upper)) = time_range(field.transform, *at, kind) else { continue };
                let facts = data.columns.entry(field.source_id).or_default();
                facts.lower.get_or_insert(lower);
                facts.upper.get_or_insert(upper);
            }
            _ => {}
        }
    }
}

/// The first and the last value of a partition by time.
fn time_range(transform: Transform, at: i32, kind: &DataType) -> Option<(ScalarValue, ScalarValue)> {
    let first = |at: i32| -> Option<i64> {
        let epoch = chrono::NaiveDate::from_ymd_opt(1970, 1, 1)?;
        let month = |months: i32| {
            let date =
                chrono::NaiveDate::from_ymd_opt(1970 + months.div_euclid(12), 1 + months.rem_euclid(12) as u32, 1)?;
            Some((date - epoch).num_days())
        };
        let days = match transform {
            Transform::Year => month(at.checked_mul(12)?)?,
            Transform::Month => month(at)?,
            Transform::Day => i64::from(at),
            _ => return i64::from(at).checked_mul(3_600_000_000),
        };
        days.checked_mul(DAY_MICROS)
    };
    let (from, to) = (first(at)?, first(at.checked_add(1)?)?);
    match kind {
        DataType::Date32 => {
            let day = |micros: i64| i32::try_from(micros.div_euclid(DAY_MICROS)).ok();
            Some((ScalarValue::Date32(Some(day(from)?)), ScalarValue::Date32(Some(day(to - 1)?))))
        }
        DataType::Timestamp(TimeUnit::Microsecond, zone) => Some((
            ScalarValue::TimestampMicrosecond(Some(from), zone.clone()),
            ScalarValue::TimestampMicrosecond(Some(to - 1), zone.clone()),
        )),
        _ => None,
    }
}

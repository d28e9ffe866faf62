//! A Delta table's version as a scan.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, TimeUnit};
use arrow::util::display::FormatOptions;
use async_trait::async_trait;
use datafusion::scalar::ScalarValue;
use serde_json::Value;

use super::query_error;
use super::scan::{ColumnFacts, DataFile, Deletes, Scan};
use super::schema::query_schema;
use crate::core::history::SnapshotId;
use crate::files::DeletedPositions;
use crate::table::LakeTable;
use crate::table::delta::{Columns, DeltaFile, DeltaTable};
use crate::{Error, Result};

/// Statistics give times in whole milliseconds: what was cut from an upper bound is less than this.
const CUT_MICROS: i64 = 999;

/// What a query of `table` reads: its state of the last load, or the version asked for.
pub(super) async fn scan(table: Arc<DeltaTable>, snapshot: Option<SnapshotId>) -> Result<Scan> {
    let mut plan = table.plan_scan(snapshot).await?;
    // Names hold the attempt and a counter: row order without ORDER BY follows them.
    plan.files.sort_by(|a, b| a.location().cmp(b.location()));
    let columns = plan.columns.clone();
    let arrow = query_schema(&columns.stored);
    let kinds: Vec<DataType> = arrow.fields().iter().map(|f| f.data_type().clone()).collect();
    let mut files = Vec::with_capacity(plan.files.len());
    for file in &plan.files {
        files.push(data_file(&table, file, &columns, &kinds).await?);
    }
    let store = table.store().object(table.location())?.0;
    let (name, naming) = (table.name().to_owned(), columns.naming());
    let schema = Arc::new(columns.stored.clone());
    let constant = columns.partition.clone();
    let deletes = Arc::new(TableDeletes { table, files: plan.files });
    Ok(Scan { name, schema, files, deletes, store, naming, constant })
}

/// Deletes by way of the table, which keeps what it has read within a bound.
#[derive(Debug)]
struct TableDeletes {
    table: Arc<DeltaTable>,
    files: Vec<DeltaFile>,
}

#[async_trait]
impl Deletes for TableDeletes {
    async fn positions(&self, file: usize) -> Result<Arc<DeletedPositions>> {
        self.table.load_deletes(&self.files[file]).await
    }
}

async fn data_file(table: &DeltaTable, file: &DeltaFile, columns: &Columns, kinds: &[DataType]) -> Result<DataFile> {
    let location = file.location();
    if file.records > u64::from(u32::MAX) {
        let text = format!("{location} has {} rows, and positions beyond 2^32 are not supported", file.records);
        return Err(Error::Decision(text));
    }
    let (_, mut key) = table.store().object(location)?;
    if location.contains('%') {
        key = table.store().found_object(location).await?.1;
    }
    let values = file.constants(columns)?;
    let mut constants = Vec::with_capacity(columns.partition.len());
    let mut facts = statistics(file.stats(), columns, kinds);
    for &place in &columns.partition {
        let kind = &kinds[place];
        let value = ScalarValue::try_from_array(&values[&place], 0).and_then(|v| v.cast_to(kind));
        let value = value.map_err(query_error)?;
        let known = (!value.is_null()).then(|| value.clone());
        let nulls = if value.is_null() { file.records } else { 0 };
        let id = columns.stored.fields[place].id;
        facts.insert(id, ColumnFacts { lower: known.clone(), upper: known, nulls: Some(nulls) });
        constants.push(value);
    }
    Ok(DataFile {
        key,
        bytes: file.bytes(),
        records: file.records,
        has_deletes: file.deleted() > 0,
        deleted: Some(file.deleted()),
        columns: facts,
        buckets: Vec::new(),
        constants,
    })
}

/// What the statistics of a file say of top-level columns. What is not understood is unknown.
fn statistics(stats: Option<&str>, columns: &Columns, kinds: &[DataType]) -> HashMap<i32, ColumnFacts> {
    let parsed: Option<Value> = stats.and_then(|text| serde_json::from_str(text).ok());
    let Some(parsed) = parsed else { return HashMap::new() };
    let one = |(field, kind): (&crate::core::schema::Field, &DataType)| {
        let of = |group: &str| parsed.get(group).and_then(|g| g.get(&field.name)).filter(|v| !v.is_null());
        let bound = |group: &str| of(group).and_then(|value| scalar(value, kind));
        let facts = ColumnFacts {
            lower: bound("minValues"),
            upper: bound("maxValues").map(above_the_cut),
            nulls: of("nullCount").and_then(Value::as_u64),
        };
        (field.id, facts)
    };
    columns.physical.fields.iter().zip(kinds).map(one).collect()
}

/// A bound in the column's type. Bounds of floats may leave NaN out, and those of decimals may have lost digits on their way
/// through JSON: both count as unknown.
fn scalar(value: &Value, kind: &DataType) -> Option<ScalarValue> {
    let text = match (value, kind) {
        (Value::String(text), DataType::Utf8 | DataType::Date32 | DataType::Timestamp(TimeUnit::Microsecond, _)) => {
            text.clone()
        }
        (Value::Number(number), DataType::Int32 | DataType::Int64) => number.as_i64()?.to_string(),
        _ => return None,
    };
    let array: ArrayRef = Arc::new(StringArray::from_iter_values([text]));
    let strict = CastOptions { safe: false, format_options: FormatOptions::default() };
    let value = cast_with_options(&array, kind, &strict).ok()?;
    ScalarValue::try_from_array(&value, 0).ok().filter(|v| !v.is_null())
}

fn above_the_cut(bound: ScalarValue) -> ScalarValue {
    match bound {
        ScalarValue::TimestampMicrosecond(Some(micros), zone) => {
            ScalarValue::TimestampMicrosecond(Some(micros.saturating_add(CUT_MICROS)), zone)
        }
        other => other,
    }
}

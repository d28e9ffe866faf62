//! The lineage column: where in Kafka each row's event was.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Int32Array, Int64Array, StringArray, StringBuilder, StructArray, TimestampMicrosecondArray,
};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;

use super::wire::Event;
use crate::core::schema::Type;

/// Lineage of the rows so far. Events come in runs of one partition, so that topic and partition are kept per run.
#[derive(Debug, Default)]
pub struct Lineage {
    runs: Vec<Run>,
    offsets: Vec<i64>,
    /// Kafka's timestamps as they came.
    millis: Vec<i64>,
}

#[derive(Debug)]
struct Run {
    topic: Arc<str>,
    partition: i32,
    rows: usize,
}

/// Whether a table's column is of the type that lineage has.
pub fn fits(kind: &Type) -> bool {
    let Type::Struct(fields) = kind else { return false };
    let expected = [
        ("topic", Type::String),
        ("partition", Type::Int),
        ("offset", Type::Long),
        ("timestamp", Type::Timestamp { utc: true }),
    ];
    fields.len() == expected.len()
        && fields.iter().zip(&expected).all(|(f, (name, kind))| f.name == *name && f.kind == *kind)
}

impl Lineage {
    /// Notes the event of the next row.
    #[inline]
    pub fn push(&mut self, event: &Event<'_>) {
        match self.runs.last_mut() {
            Some(run) if run.partition == event.partition && same(&run.topic, event.topic) => run.rows += 1,
            _ => self.runs.push(Run { topic: event.topic.clone(), partition: event.partition, rows: 1 }),
        }
        self.millis.push(event.timestamp_ms);
        self.offsets.push(event.offset);
    }

    /// The column; empty afterwards.
    pub fn finish(&mut self, kind: &DataType) -> Result<ArrayRef, ArrowError> {
        let DataType::Struct(fields) = kind else {
            return Err(ArrowError::SchemaError("the lineage column is no struct".into()));
        };
        let rows = self.offsets.len();
        let runs = std::mem::take(&mut self.runs);
        let mut partitions = Vec::with_capacity(rows);
        runs.iter().for_each(|run| partitions.resize(partitions.len() + run.rows, run.partition));
        let millis = std::mem::replace(&mut self.millis, Vec::with_capacity(rows));
        let offsets = std::mem::replace(&mut self.offsets, Vec::with_capacity(rows));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(topics(&runs, rows)?),
            Arc::new(Int32Array::from(partitions)),
            Arc::new(Int64Array::from(offsets)),
            Arc::new(timestamps(millis).with_timezone("+00:00")),
        ];
        Ok(Arc::new(StructArray::try_new(fields.clone(), columns, None)?))
    }

    /// Bytes of memory that the column will take.
    pub fn bytes(&self) -> usize {
        self.offsets.len() * 24 + self.runs.iter().map(|run| run.rows * run.topic.len()).sum::<usize>()
    }
}

/// One allocation serves all events of a topic, as a rule.
#[inline]
fn same(a: &Arc<str>, b: &Arc<str>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}

/// Kafka says −1 where it does not know, and nothing keeps a producer from a time beyond all calendars: these become null.
fn timestamps(mut millis: Vec<i64>) -> TimestampMicrosecondArray {
    let known = 0..=i64::MAX / 1000;
    if millis.iter().all(|millis| known.contains(millis)) {
        millis.iter_mut().for_each(|millis| *millis *= 1000);
        return TimestampMicrosecondArray::from(millis);
    }
    millis.into_iter().map(|millis| known.contains(&millis).then(|| millis * 1000)).collect()
}

fn topics(runs: &[Run], rows: usize) -> Result<StringArray, ArrowError> {
    // Repeating one text checks it once.
    if let [first, more @ ..] = runs
        && more.iter().all(|run| same(&run.topic, &first.topic))
    {
        check_fits(rows.saturating_mul(first.topic.len()))?;
        return Ok(StringArray::new_repeated(&first.topic, rows));
    }
    let bytes = runs.iter().map(|run| run.rows * run.topic.len()).sum();
    check_fits(bytes)?;
    let mut topics = StringBuilder::with_capacity(rows, bytes);
    for run in runs {
        (0..run.rows).for_each(|_| topics.append_value(&run.topic));
    }
    Ok(topics.finish())
}

/// Whether 32-bit offsets can name as many bytes.
fn check_fits(bytes: usize) -> Result<(), ArrowError> {
    i32::try_from(bytes).map(drop).map_err(|_| ArrowError::OffsetOverflowError(bytes))
}

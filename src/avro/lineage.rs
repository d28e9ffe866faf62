//! The lineage column: where in Kafka each row's event was.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Int32Array, Int64Array, NullBufferBuilder, StringArray, StructArray, TimestampMicrosecondArray,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;

use super::wire::Event;
use crate::core::schema::Type;

/// Lineage of the rows so far. Events come in runs of one partition, so that topic and partition are kept per run.
#[derive(Debug, Default)]
pub struct Lineage {
    runs: Vec<Run>,
    offsets: Vec<i64>,
    micros: Vec<i64>,
    nulls: Option<NullBufferBuilder>,
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
        // Kafka says −1 where it does not know, and nothing keeps a producer from a time beyond all calendars.
        let micros = if event.timestamp_ms < 0 { None } else { event.timestamp_ms.checked_mul(1000) };
        let row = self.offsets.len();
        match micros {
            Some(_) => self.nulls.iter_mut().for_each(NullBufferBuilder::append_non_null),
            None => self.nulls.get_or_insert_with(|| NullBufferBuilder::new_with_len(row)).append_null(),
        }
        self.micros.push(micros.unwrap_or_default());
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
        let nulls = self.nulls.take().and_then(|mut nulls| nulls.finish());
        let micros = std::mem::replace(&mut self.micros, Vec::with_capacity(rows));
        let offsets = std::mem::replace(&mut self.offsets, Vec::with_capacity(rows));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(topics(&runs, rows)?),
            Arc::new(Int32Array::from(partitions)),
            Arc::new(Int64Array::from(offsets)),
            Arc::new(TimestampMicrosecondArray::new(micros.into(), nulls).with_timezone("+00:00")),
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

fn topics(runs: &[Run], rows: usize) -> Result<StringArray, ArrowError> {
    let mut text = String::with_capacity(runs.iter().map(|run| run.rows * run.topic.len()).sum());
    let mut ends = Vec::with_capacity(rows + 1);
    ends.push(0i32);
    for run in runs {
        for _ in 0..run.rows {
            text.push_str(&run.topic);
            ends.push(i32::try_from(text.len()).map_err(|_| ArrowError::OffsetOverflowError(text.len()))?);
        }
    }
    StringArray::try_new(OffsetBuffer::new(ScalarBuffer::from(ends)), text.into_bytes().into(), None)
}

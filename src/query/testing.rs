//! Small tables for tests: Parquet files of several row groups and pages in memory, with known rows and deletes.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Decimal128Array, Int32Array, Int64Array, Int64Builder, ListBuilder, MapBuilder, MapFieldNames,
    RecordBatch, StringArray, StringBuilder, StructArray, TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field as ArrowField, SchemaRef};
use async_trait::async_trait;
use datafusion::scalar::ScalarValue;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use super::engine::{Engine, Limits};
use super::scan::{ColumnFacts, DataFile, Deletes, Scan};
use crate::Result;
use crate::core::schema::{Field, TableSchema, Type, to_arrow};
use crate::files::DeletedPositions;

/// A row of the test table, as plain values.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub id: i64,
    pub symbol: String,
    pub qty: Option<i32>,
    /// Hundredths.
    pub price: Option<i128>,
    pub ts: i64,
}

impl Row {
    pub(super) fn number(id: i64) -> Row {
        Row {
            id,
            symbol: format!("S{:02}", id % 7),
            qty: (id % 5 != 0).then_some((id * 37 % 1000) as i32),
            price: (id % 11 != 0).then_some(i128::from(id * 13 % 100_000)),
            ts: 1_767_225_600_000_000 + id * 1_000_003,
        }
    }
}

pub(super) fn table() -> TableSchema {
    let field = |name: &str, kind: Type| Field::new(name, kind, false);
    let kafka =
        vec![field("topic", Type::String), Field::new("partition", Type::Int, true), field("offset", Type::Long)];
    let mut schema = TableSchema {
        fields: vec![
            Field::new("id", Type::Long, true),
            field("symbol", Type::String),
            field("qty", Type::Int),
            field("price", Type::Decimal { precision: 18, scale: 2 }),
            field("ts", Type::Timestamp { utc: true }),
            field("_kafka", Type::Struct(kafka)),
            field("tags", Type::List(Box::new(field("element", Type::String)))),
            field(
                "attrs",
                Type::Map(Box::new(Field::new("key", Type::String, true)), Box::new(field("value", Type::Long))),
            ),
        ],
        key: vec!["id".into()],
    };
    schema.number();
    schema
}

/// Rows in the table's Arrow schema: `_kafka.offset` is the id, `tags` has id % 3 elements, `attrs` one entry.
pub(super) fn batch(schema: &SchemaRef, rows: &[Row]) -> RecordBatch {
    let kafka = StructArray::from(vec![
        (
            Arc::new(ArrowField::new("topic", DataType::Utf8, true)),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|r| format!("t{}", r.id % 2)))) as ArrayRef,
        ),
        (
            Arc::new(ArrowField::new("partition", DataType::Int32, false)),
            Arc::new(Int32Array::from_iter_values(rows.iter().map(|r| (r.id % 4) as i32))) as ArrayRef,
        ),
        (
            Arc::new(ArrowField::new("offset", DataType::Int64, true)),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.id))) as ArrayRef,
        ),
    ]);
    let mut tags = ListBuilder::new(StringBuilder::new());
    let names = MapFieldNames { entry: "key_value".into(), key: "key".into(), value: "value".into() };
    let mut attrs = MapBuilder::new(Some(names), StringBuilder::new(), Int64Builder::new());
    for row in rows {
        (0..row.id % 3).for_each(|i| tags.values().append_value(format!("tag{i}")));
        tags.append(true);
        attrs.keys().append_value("twice");
        attrs.values().append_value(row.id * 2);
        attrs.append(true).unwrap();
    }
    let price = rows.iter().map(|r| r.price).collect::<Decimal128Array>().with_precision_and_scale(18, 2).unwrap();
    let ts = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|r| r.ts)).with_timezone("+00:00");
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.id))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.symbol.clone()))),
        Arc::new(rows.iter().map(|r| r.qty).collect::<Int32Array>()),
        Arc::new(price),
        Arc::new(ts),
        Arc::new(kafka),
        Arc::new(tags.finish()),
        Arc::new(attrs.finish()),
    ];
    let columns = columns.iter().zip(schema.fields()).map(|(c, f)| cast(c, f.data_type()).unwrap()).collect();
    RecordBatch::try_new(schema.clone(), columns).unwrap()
}

/// A table being made.
pub(super) struct Maker {
    pub store: Arc<dyn ObjectStore>,
    pub files: Vec<DataFile>,
    pub deleted: Vec<DeletedPositions>,
    pub row_group: usize,
    pub page: usize,
}

impl Maker {
    pub(super) fn new(row_group: usize, page: usize) -> Self {
        Maker { store: Arc::new(InMemory::new()), files: Vec::new(), deleted: Vec::new(), row_group, page }
    }

    /// Writes `rows` as one file with bounds of `id` and `qty`, of which `deleted` are gone; returns the live rows.
    pub(super) async fn add(&mut self, rows: &[Row], deleted: &[u32]) -> Vec<Row> {
        let batch = batch(&Arc::new(to_arrow(&table())), rows);
        let ids = (rows.iter().map(|r| r.id).min(), rows.iter().map(|r| r.id).max());
        let qty = |pick: fn(std::vec::IntoIter<i32>) -> Option<i32>| {
            pick(rows.iter().filter_map(|r| r.qty).collect::<Vec<_>>().into_iter())
        };
        let columns = HashMap::from([
            (
                1,
                ColumnFacts {
                    lower: ids.0.map(ScalarValue::from),
                    upper: ids.1.map(ScalarValue::from),
                    nulls: Some(0),
                },
            ),
            (
                3,
                ColumnFacts {
                    lower: qty(Iterator::min).map(ScalarValue::from),
                    upper: qty(Iterator::max).map(ScalarValue::from),
                    nulls: Some(rows.iter().filter(|r| r.qty.is_none()).count() as u64),
                },
            ),
        ]);
        self.add_batch(batch, deleted, columns).await;
        let deleted = self.deleted.last().unwrap();
        rows.iter().enumerate().filter(|(i, _)| !deleted.contains(*i as u32)).map(|(_, r)| r.clone()).collect()
    }

    pub(super) async fn add_batch(&mut self, batch: RecordBatch, deleted: &[u32], columns: HashMap<i32, ColumnFacts>) {
        let properties = WriterProperties::builder()
            .set_max_row_group_row_count(Some(self.row_group))
            .set_data_page_row_count_limit(self.page)
            .set_write_batch_size(self.page)
            .set_statistics_enabled(EnabledStatistics::Page)
            .build();
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let key = Path::from(format!("data/{:03}.parquet", self.files.len()));
        let size = bytes.len() as u64;
        self.store.put(&key, bytes.into()).await.unwrap();
        self.files.push(DataFile {
            key,
            bytes: size,
            records: batch.num_rows() as u64,
            has_deletes: !deleted.is_empty(),
            deleted: Some(deleted.len() as u64),
            columns,
            buckets: Vec::new(),
            constants: Vec::new(),
        });
        self.deleted.push(deleted.iter().copied().collect());
    }

    pub(super) fn scan(self, schema: TableSchema) -> Scan {
        let deletes = Arc::new(Listed(self.deleted.into_iter().map(Arc::new).collect()));
        Scan {
            name: "lake.market.trades".into(),
            schema: Arc::new(schema),
            files: self.files,
            deletes,
            store: self.store,
            naming: crate::files::Naming::ById,
            constant: Vec::new(),
        }
    }

    pub(super) fn engine(self, schema: TableSchema, partitions: usize) -> Engine {
        engine(self.scan(schema), partitions)
    }
}

pub(super) fn engine(scan: Scan, partitions: usize) -> Engine {
    let limits = Limits { partitions, ..Limits::default() };
    Engine::new(Vec::new(), limits).unwrap().with_scan("lake", "market", "trades", scan)
}

#[derive(Debug)]
struct Listed(Vec<Arc<DeletedPositions>>);

#[async_trait]
impl Deletes for Listed {
    async fn positions(&self, file: usize) -> Result<Arc<DeletedPositions>> {
        Ok(self.0[file].clone())
    }
}

/// The answer's rows, each as its values in text joined by bars.
pub(super) async fn rows(engine: &Engine, sql: &str) -> Vec<String> {
    let answer = engine.query(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    let batches: Vec<RecordBatch> = answer.stream.try_collect().await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    texts(&batches)
}

pub(super) fn texts(batches: &[RecordBatch]) -> Vec<String> {
    let mut texts = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let value = |c: &ArrayRef| arrow::util::display::array_value_to_string(c, row).unwrap();
            texts.push(batch.columns().iter().map(value).collect::<Vec<_>>().join("|"));
        }
    }
    texts
}

pub(super) async fn sorted(engine: &Engine, sql: &str) -> Vec<String> {
    let mut rows = rows(engine, sql).await;
    rows.sort();
    rows
}

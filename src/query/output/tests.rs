use bytes::Bytes;
use futures::stream;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;
use crate::query::Engine;
use crate::query::engine::Limits;
use crate::query::testing::{Maker, Row, table};

async fn printed(sql: &str, format: Format) -> (u64, Vec<u8>) {
    let mut maker = Maker::new(10, 5);
    maker.add(&(0..30).map(Row::number).collect::<Vec<_>>(), &[1]).await;
    let engine = maker.engine(table(), 1);
    let mut out = Vec::new();
    let rows = print(engine.query(sql).await.unwrap(), format, &mut out).await.unwrap();
    (rows, out)
}

async fn text(sql: &str, format: Format) -> String {
    String::from_utf8(printed(sql, format).await.1).unwrap()
}

const SOME: &str = "SELECT id, symbol, qty, price, ts FROM lake.market.trades WHERE id < 3 ORDER BY id";

#[tokio::test]
async fn a_table_is_aligned_and_says_how_many_rows() {
    let expected = "\
id  symbol   qty  price  ts
--  ------  ----  -----  ---------------------------
 0  S00     null   null  2026-01-01T00:00:00Z
 2  S02       74   0.26  2026-01-01T00:00:02.000006Z
(2 rows)
";
    assert_eq!(text(SOME, Format::Table).await, expected);
    assert_eq!(text("SELECT id FROM lake.market.trades WHERE id < 0", Format::Table).await, "id\n--\n(0 rows)\n");
    let wide = text("SELECT repeat('é', 500) AS a, 'x' || chr(27) || '[31m' AS b", Format::Table).await;
    assert!(wide.lines().all(|line| line.chars().count() <= CELL_MAX + 20), "{wide}");
    assert!(!wide.contains('\u{1b}') && wide.contains('…'), "{wide:?}");
}

#[tokio::test]
async fn csv_has_a_header_even_without_rows_and_nested_values_as_text() {
    let expected = "id,symbol,qty,price,ts\n0,S00,,,2026-01-01T00:00:00Z\n2,S02,74,0.26,2026-01-01T00:00:02.000006Z\n";
    assert_eq!(text(SOME, Format::Csv).await, expected);
    assert_eq!(text("SELECT id FROM lake.market.trades WHERE id < 0", Format::Csv).await, "id\n");
    let nested = text("SELECT _kafka, tags, attrs FROM lake.market.trades WHERE id = 5", Format::Csv).await;
    assert_eq!(nested, "_kafka,tags,attrs\n\"{topic: t1, partition: 1, offset: 5}\",\"[tag0, tag1]\",{twice: 10}\n");
    assert_eq!(text("SELECT 'a,\"b\"\nc' AS x", Format::Csv).await, "x\n\"a,\"\"b\"\"\nc\"\n");
}

#[tokio::test]
async fn json_has_an_object_per_line_with_explicit_nulls() {
    let first = "{\"id\":0,\"symbol\":\"S00\",\"qty\":null,\"price\":null,\"ts\":\"2026-01-01T00:00:00Z\"}";
    let second = "{\"id\":2,\"symbol\":\"S02\",\"qty\":74,\"price\":0.26,\"ts\":\"2026-01-01T00:00:02.000006Z\"}";
    assert_eq!(text(SOME, Format::Json).await, format!("{first}\n{second}\n"));
    let nested = text("SELECT _kafka, tags, attrs FROM lake.market.trades WHERE id = 5", Format::Json).await;
    let expected = "{\"_kafka\":{\"topic\":\"t1\",\"partition\":1,\"offset\":5},\"tags\":[\"tag0\",\"tag1\"],\"attrs\":{\"twice\":10}}\n";
    assert_eq!(nested, expected);
    assert_eq!(text("SELECT id FROM lake.market.trades WHERE id < 0", Format::Json).await, "");
}

#[tokio::test]
async fn parquet_reads_back_with_its_types() {
    let (rows, bytes) = printed("SELECT * FROM lake.market.trades ORDER BY id", Format::Parquet).await;
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes)).unwrap();
    assert_eq!(reader.schema().fields().len(), 8);
    let read: usize = reader.build().unwrap().map(|b| b.unwrap().num_rows()).sum();
    assert_eq!((rows, read), (29, 29));
}

#[tokio::test]
async fn uuids_are_printed_as_such_in_every_format() {
    let mut schema = crate::core::schema::TableSchema {
        fields: vec![crate::core::schema::Field::new("u", crate::core::schema::Type::Uuid, true)],
        key: vec!["u".into()],
    };
    schema.number();
    let arrow = Arc::new(crate::core::schema::to_arrow(&schema));
    let id = uuid::Uuid::parse_str("67e55044-10b1-426f-9247-bb680e5fe0c8").unwrap();
    let column = arrow::array::FixedSizeBinaryArray::try_from_iter(std::iter::once(id.as_bytes())).unwrap();
    let batch = RecordBatch::try_new(arrow, vec![Arc::new(column)]).unwrap();
    let mut maker = Maker::new(10, 10);
    maker.add_batch(batch, &[], std::collections::HashMap::new()).await;
    let engine = maker.engine(schema, 1);
    for format in [Format::Table, Format::Csv, Format::Json] {
        let mut out = Vec::new();
        print(engine.query("SELECT u FROM lake.market.trades").await.unwrap(), format, &mut out).await.unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("67e55044-10b1-426f-9247-bb680e5fe0c8"), "{format:?}: {text}");
    }
    let row = engine.get("lake.market.trades", &["67e55044-10b1-426f-9247-bb680e5fe0c8"]).await.unwrap();
    assert_eq!(row.unwrap().num_rows(), 1);
}

/// An output that fails after some bytes, like a pipe whose reader went away.
struct Closed;

impl Write for Closed {
    fn write(&mut self, _bytes: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn an_output_that_cannot_be_written_is_an_error_not_a_panic() {
    let engine = Engine::new(Vec::new(), Limits::default()).unwrap();
    for format in [Format::Table, Format::Csv, Format::Json, Format::Parquet] {
        let answer = engine.query("SELECT 1").await.unwrap();
        let failed = print(answer, format, &mut Closed).await;
        assert!(matches!(failed, Err(Error::Unreachable(_))), "{format:?}: {failed:?}");
    }
}

#[tokio::test]
async fn rows_after_the_measured_ones_are_printed_as_they_come() {
    let batch = |from: i64| {
        let ids = arrow::array::Int64Array::from_iter_values(from..from + 700);
        RecordBatch::try_from_iter([("id", Arc::new(ids) as ArrayRef)]).unwrap()
    };
    let schema = batch(0).schema();
    let batches = stream::iter((0..5).map(move |i| Ok(batch(i * 700))));
    let stream = datafusion::physical_plan::stream::RecordBatchStreamAdapter::new(schema.clone(), batches);
    let mut out = Vec::new();
    let rows = print(Answer { schema, stream: Box::pin(stream) }, Format::Table, &mut out).await.unwrap();
    let text = String::from_utf8(out).unwrap();
    assert_eq!((rows, text.lines().count()), (3500, 3503));
    assert!(text.ends_with("3499\n(3500 rows)\n"));
}

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int32Array, Int64Array, ListArray, RecordBatch, StructArray};
use arrow::datatypes::{DataType, Field as ArrowField, Int64Type, Schema};
use datafusion::scalar::ScalarValue;
use futures::TryStreamExt;

use super::*;
use crate::core::schema::{FIELD_ID_KEY, Field, TableSchema, Type};
use crate::query::scan::{Bucket, ColumnFacts};
use crate::query::testing::{Maker, Row, engine, rows, sorted, table};

/// Three files of 1000 rows in row groups of 100 and pages of 10, so that skipped groups and pages come before, between
/// and after rows that are read.
const ROWS: i64 = 1000;

fn numbers(from: i64) -> Vec<Row> {
    (from..from + ROWS).map(Row::number).collect()
}

fn patterns() -> Vec<(&'static str, Vec<u32>)> {
    vec![
        ("none", vec![]),
        ("scattered", (0..1000).filter(|i| i % 7 == 3).collect()),
        ("most", (0..1000).filter(|i| i % 10 != 4).collect()),
        ("the first group", (0..100).collect()),
        ("only later groups", (650..653).chain(990..1000).collect()),
        ("all but one", (0..1000).filter(|i| *i != 555).collect()),
        ("all", (0..1000).collect()),
        ("a run across groups", (150..420).collect()),
    ]
}

async fn three_files(deleted: &[u32], partitions: usize) -> (Engine, Vec<Row>) {
    let mut maker = Maker::new(100, 10);
    let mut live = maker.add(&numbers(0), deleted).await;
    live.extend(maker.add(&numbers(1000), &[]).await);
    let reversed: Vec<u32> = deleted.iter().map(|p| 999 - p).collect();
    live.extend(maker.add(&numbers(2000), &reversed).await);
    (maker.engine(table(), partitions), live)
}

type Keep = fn(&Row) -> bool;

fn filters() -> Vec<(&'static str, Keep)> {
    vec![
        ("true", |_| true),
        ("id = 555", |r| r.id == 555),
        ("id = 2444", |r| r.id == 2444),
        ("id BETWEEN 640 AND 660", |r| (640..=660).contains(&r.id)),
        ("id >= 995 AND id < 1005", |r| (995..1005).contains(&r.id)),
        ("id IN (3, 999, 1000, 1999, 2000, 2999)", |r| [3, 999, 1000, 1999, 2000, 2999].contains(&r.id)),
        ("qty IS NULL", |r| r.qty.is_none()),
        ("qty > 900", |r| r.qty > Some(900)),
        ("symbol = 'S03' AND qty < 100", |r| r.symbol == "S03" && r.qty.is_some_and(|q| q < 100)),
        ("price = 13.00", |r| r.price == Some(1300)),
        ("_kafka['offset'] = 1234", |r| r.id == 1234),
        ("id < 0", |_| false),
    ]
}

/// G1, G2: every combination of deletes, filter, limit, projection and partitions returns exactly the live rows.
/// INV-20
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_rows_never_come_back_and_live_rows_never_vanish() {
    for (pattern, deleted) in patterns() {
        for partitions in [1, 5] {
            let (engine, live) = three_files(&deleted, partitions).await;
            for (filter, keep) in filters() {
                let case = format!("{pattern}, {partitions} partitions, {filter}");
                let mut expected: Vec<String> = live.iter().filter(|r| keep(r)).map(|r| r.id.to_string()).collect();
                let sum: i64 = live.iter().filter(|r| keep(r)).map(|r| r.id).sum();
                let from = format!("FROM lake.market.trades WHERE {filter}");
                assert_eq!(
                    rows(&engine, &format!("SELECT count(*) {from}")).await,
                    [expected.len().to_string()],
                    "{case}"
                );
                if !expected.is_empty() {
                    assert_eq!(rows(&engine, &format!("SELECT sum(id) {from}")).await, [sum.to_string()], "{case}");
                }
                for limit in [1, 7, 150, 900] {
                    let some = rows(&engine, &format!("SELECT id {from} LIMIT {limit}")).await;
                    assert_eq!(some.len(), limit.min(expected.len()), "{case} LIMIT {limit}");
                    assert!(some.iter().all(|id| expected.contains(id)), "{case} LIMIT {limit}: {some:?}");
                }
                let last = rows(&engine, &format!("SELECT id {from} ORDER BY id DESC LIMIT 3")).await;
                assert_eq!(last, expected.iter().rev().take(3).cloned().collect::<Vec<_>>(), "{case} ORDER BY");
                expected.sort();
                assert_eq!(sorted(&engine, &format!("SELECT id {from}")).await, expected, "{case}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_column_of_every_live_row_is_right_nested_ones_too() {
    for (_, deleted) in patterns() {
        let (engine, live) = three_files(&deleted, 3).await;
        let sql = "SELECT id, symbol, qty, price, to_char(ts, '%s'), _kafka['topic'], _kafka['partition'], \
            _kafka['offset'], array_to_string(tags, ','), attrs['twice'] FROM lake.market.trades";
        let text = |value: Option<String>| value.unwrap_or_default();
        let mut expected: Vec<String> = live
            .iter()
            .map(|r| {
                let tags = (0..r.id % 3).map(|i| format!("tag{i}")).collect::<Vec<_>>().join(",");
                let (qty, price) =
                    (r.qty.map(|q| q.to_string()), r.price.map(|p| format!("{}.{:02}", p / 100, p % 100)));
                let (id, symbol, seconds) = (r.id, &r.symbol, r.ts / 1_000_000);
                let kafka = format!("t{}|{}|{id}", id % 2, id % 4);
                format!("{id}|{symbol}|{}|{}|{seconds}|{kafka}|{tags}|{}", text(qty), text(price), id * 2)
            })
            .collect();
        expected.sort();
        assert_eq!(sorted(&engine, sql).await, expected);
    }
}

#[tokio::test]
async fn the_same_query_gives_the_same_rows_in_the_same_order_with_one_partition() {
    let (engine, live) = three_files(&[1, 5, 100], 1).await;
    let ids: Vec<String> = live.iter().map(|r| r.id.to_string()).collect();
    assert_eq!(rows(&engine, "SELECT id FROM lake.market.trades").await, ids);
}

/// G8: a filter at the least and the greatest value of a column finds its rows, deleted bounds included.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_at_the_bounds_are_found() {
    let (engine, live) = three_files(&[0, 999], 2).await;
    for column in ["id", "qty", "price", "symbol", "ts"] {
        for bound in ["min", "max"] {
            let sql = format!(
                "SELECT count(*) FROM lake.market.trades WHERE {column} = (SELECT {bound}({column}) FROM lake.market.trades)"
            );
            assert_ne!(rows(&engine, &sql).await, ["0"], "{bound} of {column}");
        }
    }
    assert_eq!(rows(&engine, "SELECT min(id), max(id) FROM lake.market.trades").await, ["1|2998"]);
    let nulls = live.iter().filter(|r| r.qty.is_none()).count().to_string();
    assert_eq!(rows(&engine, "SELECT count(*) FROM lake.market.trades WHERE qty IS NULL").await, [nulls]);
}

/// Files in the plan of a query.
async fn files_read(engine: &Engine, filter: &str) -> usize {
    let plan = rows(engine, &format!("EXPLAIN SELECT symbol FROM lake.market.trades WHERE {filter}")).await.join("\n");
    plan.matches(".parquet").count()
}

#[tokio::test]
async fn files_that_cannot_match_are_not_opened() {
    let (engine, _) = three_files(&[], 1).await;
    assert_eq!(files_read(&engine, "id = 5").await, 1);
    assert_eq!(files_read(&engine, "id = 999 OR id = 1000").await, 2);
    assert_eq!(files_read(&engine, "id > 2999").await, 0);
    assert_eq!(files_read(&engine, "id >= 2999").await, 1);
    assert_eq!(files_read(&engine, "qty IS NULL").await, 3);
    assert_eq!(files_read(&engine, "symbol = 'S01'").await, 3);
    assert_eq!(files_read(&engine, "id IS NULL").await, 0);
}

#[tokio::test]
async fn a_bucket_that_the_values_do_not_hash_to_is_not_opened() {
    let mut maker = Maker::new(100, 10);
    let function = ::iceberg::transform::create_transform_function(&::iceberg::spec::Transform::Bucket(4)).unwrap();
    let bucket_of = |id: i64| {
        let hashed = function.transform(Arc::new(Int64Array::from(vec![id]))).unwrap();
        hashed.as_any().downcast_ref::<Int32Array>().unwrap().value(0)
    };
    for bucket in 0..4 {
        let ids: Vec<Row> = (0..100).filter(|id| bucket_of(*id) == bucket).map(Row::number).collect();
        maker.add(&ids, &[]).await;
        maker.files.last_mut().unwrap().buckets.push(Bucket { column: 1, of: 4, bucket: Some(bucket) });
        maker.files.last_mut().unwrap().columns.clear();
    }
    let engine = maker.engine(table(), 1);
    for id in [0, 17, 42, 99] {
        assert_eq!(files_read(&engine, &format!("id = {id}")).await, 1);
        assert_eq!(
            rows(&engine, &format!("SELECT id FROM lake.market.trades WHERE id = {id}")).await,
            [id.to_string()]
        );
    }
    assert_eq!(files_read(&engine, "id > 17").await, 4);
    assert_eq!(sorted(&engine, "SELECT id FROM lake.market.trades WHERE id IN (3, 9, 27)").await, ["27", "3", "9"]);
}

fn with_id(field: ArrowField, id: i32) -> ArrowField {
    field.with_metadata(HashMap::from([(FIELD_ID_KEY.to_owned(), id.to_string())]))
}

/// An old file: `qty` was an int called `amount`, `note` did not exist, a dropped column had the name `symbol`.
fn old_batch(rows: i32) -> RecordBatch {
    let element = with_id(ArrowField::new("item", DataType::Int64, true), 12);
    let inner = with_id(ArrowField::new("was", DataType::Int32, false), 21);
    let schema = Schema::new(vec![
        with_id(ArrowField::new("symbol", DataType::Int32, true), 99),
        with_id(ArrowField::new("amount", DataType::Int32, true), 3),
        with_id(ArrowField::new("id", DataType::Int64, false), 1),
        with_id(ArrowField::new("list", DataType::List(Arc::new(element.clone())), true), 11),
        with_id(ArrowField::new("place", DataType::Struct(vec![inner.clone()].into()), true), 20),
    ]);
    let lists = (0..rows).map(|i| Some(vec![Some(i64::from(i)), None]));
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>(lists);
    let lists = ListArray::new(Arc::new(element), lists.offsets().clone(), lists.values().clone(), None);
    let numbers = || Arc::new(Int32Array::from_iter_values(0..rows)) as ArrayRef;
    let columns: Vec<ArrayRef> = vec![
        numbers(),
        numbers(),
        Arc::new(Int64Array::from_iter_values((0..rows).map(i64::from))),
        Arc::new(lists),
        Arc::new(StructArray::new(vec![inner].into(), vec![numbers()], None)),
    ];
    RecordBatch::try_new(Arc::new(schema), columns).unwrap()
}

fn evolved() -> TableSchema {
    let field = |id: i32, name: &str, kind: Type| Field { id, ..Field::new(name, kind, false) };
    let place = vec![field(22, "added", Type::String), field(21, "now", Type::Long)];
    TableSchema {
        fields: vec![
            field(1, "id", Type::Long),
            field(2, "symbol", Type::String),
            field(3, "qty", Type::Long),
            field(4, "note", Type::String),
            field(11, "numbers", Type::List(Box::new(field(12, "element", Type::Long)))),
            field(20, "place", Type::Struct(place)),
        ],
        key: vec!["id".into()],
    }
}

#[tokio::test]
async fn columns_are_found_by_id_through_renames_drops_additions_and_promotions() {
    let mut maker = Maker::new(10, 5);
    let facts =
        ColumnFacts { lower: Some(ScalarValue::from(0i64)), upper: Some(ScalarValue::from(39i64)), nulls: Some(0) };
    maker.add_batch(old_batch(40), &[7, 8], HashMap::from([(3, facts)])).await;
    let engine = maker.engine(evolved(), 2);
    let all = "SELECT id, symbol, qty, note, numbers[1], place['now'], place['added'] FROM lake.market.trades";
    assert_eq!(rows(&engine, &format!("{all} WHERE qty = 9")).await, ["9||9||9|9|"]);
    assert_eq!(rows(&engine, &format!("{all} WHERE qty = 7")).await, Vec::<String>::new());
    assert_eq!(rows(&engine, &format!("{all} WHERE note IS NULL AND symbol IS NULL AND id = 39")).await.len(), 1);
    assert_eq!(rows(&engine, "SELECT sum(qty), count(note), count(*) FROM lake.market.trades").await, ["765|0|38"]);
    assert_eq!(rows(&engine, "SELECT count(*) FROM lake.market.trades WHERE place['now'] >= 30").await, ["10"]);
    assert_eq!(rows(&engine, "SELECT place FROM lake.market.trades WHERE id = 3").await, ["{added: , now: 3}"]);
    let types = "SELECT arrow_typeof(qty), arrow_typeof(note) FROM lake.market.trades LIMIT 1";
    assert_eq!(rows(&engine, types).await, ["Int64|Utf8"]);
}

#[tokio::test]
async fn a_file_without_field_ids_is_refused_by_name() {
    let mut maker = Maker::new(10, 5);
    let batch = RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
    maker.add_batch(batch, &[], HashMap::new()).await;
    let engine = maker.engine(table(), 1);
    let answer = engine.query("SELECT id FROM lake.market.trades").await.unwrap();
    let error = query_error(answer.stream.try_collect::<Vec<_>>().await.unwrap_err());
    assert!(error.to_string().contains("no field ids"), "{error}");
}

#[tokio::test]
async fn a_count_of_everything_opens_no_file() {
    let (engine, live) = three_files(&[4, 5, 6], 2).await;
    let plan = rows(&engine, "EXPLAIN SELECT count(*) FROM lake.market.trades").await.join("\n");
    assert!(!plan.contains(".parquet"), "{plan}");
    assert_eq!(rows(&engine, "SELECT count(*) FROM lake.market.trades").await, [live.len().to_string()]);
}

#[tokio::test]
async fn a_table_without_files_is_empty() {
    let engine = Maker::new(10, 10).engine(table(), 2);
    assert_eq!(rows(&engine, "SELECT count(*), sum(qty) FROM lake.market.trades").await, ["0|"]);
    assert_eq!(rows(&engine, "SELECT id FROM lake.market.trades ORDER BY id").await.len(), 0);
}

#[tokio::test]
async fn names_are_shown_described_and_missed_by_name() {
    let (engine, _) = three_files(&[], 1).await;
    let shown = rows(&engine, "SHOW TABLES").await;
    assert!(shown.contains(&"lake|market|trades|BASE TABLE".to_owned()), "{shown:?}");
    let described = rows(&engine, "DESCRIBE lake.market.trades").await;
    assert!(described[0].starts_with("id|Int64"), "{described:?}");
    let error = engine.query("SELECT 1 FROM lake.market.tradez").await.unwrap_err();
    assert!(error.to_string().contains("lake.market.tradez"), "{error}");
    assert_eq!(error.exit_code(), 2);
}

#[tokio::test]
async fn a_query_that_needs_too_much_memory_fails_and_the_next_one_works() {
    let mut maker = Maker::new(100, 10);
    maker.add(&numbers(0), &[]).await;
    let limits = Limits { memory_bytes: 0, partitions: 2 };
    let engine = Engine::new(Vec::new(), limits).unwrap().with_scan("lake", "market", "trades", maker.scan(table()));
    let hungry = "SELECT count(*) FROM (SELECT DISTINCT a.value, repeat('x', 2000) FROM range(2000000) a)";
    let failed = match engine.query(hungry).await {
        Ok(answer) => answer.stream.try_collect::<Vec<_>>().await.map_err(query_error).err(),
        Err(e) => Some(e),
    };
    if let Some(error) = failed {
        assert!(error.to_string().contains("query failed"), "{error}");
    }
    assert_eq!(rows(&engine, "SELECT count(*) FROM lake.market.trades").await, ["1000"]);
}

#[tokio::test]
async fn a_scan_has_the_name_that_it_was_given() {
    let scan = Maker::new(1, 1).scan(table());
    let engine = engine(scan, 1).with_scan("lake", "a.b", "t", Maker::new(1, 1).scan(table()));
    assert_eq!(rows(&engine, "SELECT count(*) FROM lake.a.b.t").await, ["0"]);
    assert_eq!(rows(&engine, "SELECT count(*) FROM lake.\"a.b\".t AS x WHERE x.id > 1").await, ["0"]);
    let unpinned = engine.query("SELECT 1 FROM lake.a.b.t FOR VERSION AS OF 7").await.unwrap_err();
    assert!(unpinned.to_string().contains("has no snapshots"), "{unpinned}");
}

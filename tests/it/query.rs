//! SQL over Iceberg tables that Firn wrote, and the filed queries as far as they need no other engine.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use firn::query::{Engine, Format, Limits, print};
use firn::table::iceberg::{CatalogConfig, CatalogHandle, CatalogKind, TableSpec, open_catalog};
use futures::TryStreamExt;
use tempfile::TempDir;

use crate::contract::{Row, Writer, schema};

async fn catalog() -> (Arc<CatalogHandle>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let config = CatalogConfig {
        name: "lake".into(),
        kind: CatalogKind::Sqlite { path: folder.path().join("catalog.db") },
        warehouse: Some(folder.path().join("warehouse").to_string_lossy().into_owned()),
        properties: BTreeMap::new(),
    };
    (open_catalog(config).await.unwrap(), folder)
}

async fn writer(catalog: &Arc<CatalogHandle>, namespace: &[&str], version: u8, by: &[(&str, &str)]) -> Writer {
    let spec = TableSpec {
        schema: schema(),
        format_version: version,
        partition_by: by.iter().map(|(t, c)| ((*t).to_owned(), (*c).to_owned())).collect(),
        sort_by: Vec::new(),
        pipeline: "p1".into(),
    };
    let namespace: Vec<String> = namespace.iter().map(|s| (*s).to_owned()).collect();
    Writer::new(Arc::new(catalog.create_table(&namespace, "trades", spec).await.unwrap()), "w")
}

async fn batches(engine: &Engine, sql: &str) -> Vec<RecordBatch> {
    engine.query(sql).await.unwrap().stream.try_collect().await.unwrap_or_else(|e| panic!("{sql}: {e}"))
}

/// The answer to a query for id, venue and n, sorted.
async fn rows(engine: &Engine, sql: &str) -> Vec<Row> {
    let mut rows: Vec<Row> = batches(engine, sql).await.iter().flat_map(crate::contract::to_rows).collect();
    rows.sort();
    rows
}

async fn number(engine: &Engine, sql: &str) -> i64 {
    batches(engine, sql).await[0].column(0).as_primitive::<Int64Type>().value(0)
}

const ALL: &str = "SELECT id, venue, n FROM lake.market.trades";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_snapshot_reads_as_the_model_had_it_then() {
    for version in [2, 3] {
        for by in [&[][..], &[("identity", "venue")], &[("bucket[4]", "id")], &[("truncate[10]", "id")]] {
            let (catalog, _folder) = catalog().await;
            let mut writer = writer(&catalog, &["market"], version, by).await;
            let engine = Engine::new(vec![catalog.clone().into()], Limits::default()).unwrap();
            check_snapshots(&engine, &mut writer, 0, &format!("v{version} {by:?}")).await;
        }
    }
}

/// Upserts and deletes into `lake.market.trades`, and asks for every snapshot in several ways. `before` snapshots are there
/// already.
pub async fn check_snapshots(engine: &Engine, writer: &mut Writer, before: i64, what: &str) {
    assert_eq!(rows(engine, ALL).await, Vec::<Row>::new());
    let mut history = Vec::new();
    for round in 0..6i64 {
        let fresh: Vec<(i64, &str, i64)> =
            (0..30).map(|i| ((round * 11 + i * 3) % 80, ["x", "y", "z"][(i % 3) as usize], round * 100 + i)).collect();
        let fresh: BTreeMap<i64, (i64, &str, i64)> = fresh.into_iter().map(|r| (r.0, r)).collect();
        let gone: Vec<i64> =
            writer.model.keys().copied().filter(|id| !fresh.contains_key(id) && id % 7 == round).collect();
        let view = writer.apply(&fresh.into_values().collect::<Vec<_>>(), &gone).await;
        history.push((view.snapshot.unwrap(), writer.rows()));
        assert_eq!(rows(engine, ALL).await, writer.rows(), "{what}");
        assert_eq!(number(engine, "SELECT count(*) FROM lake.market.trades").await, writer.model.len() as i64);
    }
    for (snapshot, expected) in &history {
        let at = format!("{ALL} FOR VERSION AS OF {snapshot}");
        assert_eq!(&rows(engine, &at).await, expected, "{what} at {snapshot}");
        let sql = format!("SELECT count(*) FROM lake.market.trades FOR VERSION AS OF {snapshot}");
        assert_eq!(number(engine, &sql).await, expected.len() as i64);
    }
    for id in [0, 1, 17, 42, 79] {
        let expected: Vec<Row> = writer.model.get(&id).cloned().into_iter().collect();
        assert_eq!(rows(engine, &format!("{ALL} WHERE id = {id}")).await, expected, "{what} id {id}");
        let row = engine.get("lake.market.trades", &[&id.to_string()]).await.unwrap();
        assert_eq!(row.iter().flat_map(crate::contract::to_rows).collect::<Vec<_>>(), expected);
    }
    let venue: Vec<Row> = writer.rows().into_iter().filter(|r| r.1 == "y" && r.2 >= 500).collect();
    assert_eq!(rows(engine, &format!("{ALL} WHERE venue = 'y' AND n >= 500")).await, venue);
    let snapshots = number(engine, "SELECT count(*) FROM lake.market.\"trades$snapshots\"").await;
    assert_eq!(snapshots, before + history.len() as i64);
    let live = number(engine, "SELECT CAST(sum(record_count) AS BIGINT) FROM lake.market.\"trades$files\"").await;
    assert!(live >= writer.model.len() as i64);
}

#[tokio::test]
async fn both_sides_of_a_join_see_one_snapshot_and_versions_can_be_compared() {
    let (catalog, _folder) = catalog().await;
    let mut writer = writer(&catalog, &["market"], 3, &[]).await;
    let first = writer.apply(&[(1, "x", 1), (2, "x", 2)], &[]).await.snapshot.unwrap();
    let second = writer.apply(&[(1, "x", 10), (3, "x", 3)], &[2]).await.snapshot.unwrap();
    let engine = Engine::new(vec![catalog.into()], Limits::default()).unwrap();
    let sql = format!(
        "SELECT count(*) FROM lake.market.trades FOR VERSION AS OF {second} new \
         JOIN lake.market.trades FOR VERSION AS OF {first} old ON new.id = old.id WHERE new.n <> old.n"
    );
    assert_eq!(number(&engine, &sql).await, 1);
    let unknown = engine.query("SELECT * FROM lake.market.trades FOR VERSION AS OF 5").await.unwrap_err();
    assert!(unknown.to_string().contains("has no snapshot 5"), "{unknown}");
    assert_eq!(unknown.exit_code(), 1);
}

#[tokio::test]
async fn namespaces_of_several_levels_are_found_listed_and_defaulted() {
    let (catalog, _folder) = catalog().await;
    writer(&catalog, &["market", "eu"], 2, &[]).await.apply(&[(1, "x", 7)], &[]).await;
    let engine = Engine::new(vec![catalog.into()], Limits::default()).unwrap();
    assert_eq!(number(&engine, "SELECT n FROM lake.market.eu.trades").await, 7);
    assert_eq!(number(&engine, "SELECT t.n FROM \"market.eu\".trades t").await, 7);
    let mut shown = Vec::new();
    print(engine.query("SHOW TABLES").await.unwrap(), Format::Csv, &mut shown).await.unwrap();
    assert!(String::from_utf8(shown).unwrap().contains("lake,market.eu,trades,BASE TABLE"));
}

/// O3: whatever a statement asks for, no file is written and none but tables' files is read.
#[tokio::test]
async fn no_statement_reaches_local_files() {
    let folder = tempfile::tempdir().unwrap();
    let (canary, target) = (folder.path().join("canary.csv"), folder.path().join("target"));
    std::fs::write(&canary, "secret\n7\n").unwrap();
    let (catalog, _folder) = catalog().await;
    let engine = Engine::new(vec![catalog.into()], Limits::default()).unwrap();
    let (canary, target_name) = (canary.display(), target.display());
    for sql in [
        format!("SELECT * FROM '{canary}'"),
        format!("SELECT * FROM \"{canary}\""),
        format!("SELECT * FROM \"file://{canary}\""),
        format!("SELECT * FROM read_csv('{canary}')"),
        format!("SELECT * FROM read_parquet('{canary}')"),
        format!("SELECT * FROM lake.market.\"../../..{canary}\""),
        format!("SELECT read_text('{canary}')"),
        format!("CREATE EXTERNAL TABLE c STORED AS CSV LOCATION '{canary}'"),
        format!("COPY (SELECT 1) TO '{target_name}' STORED AS CSV"),
        format!("SELECT 1 INTO OUTFILE '{target_name}'"),
    ] {
        let failed = engine.query(&sql).await;
        assert!(matches!(failed, Err(firn::Error::Config(_))), "{sql}: {failed:?}");
    }
    assert!(!target.exists());
}

/// O4: as deep as is allowed still runs on the workers' small stacks, plans and executions alike.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deepest_statements_allowed_are_answered_and_deeper_ones_refused() {
    let (catalog, _folder) = catalog().await;
    writer(&catalog, &["market"], 3, &[]).await.apply(&[(1, "x", 1)], &[]).await;
    let engine = Engine::new(vec![catalog.into()], Limits::default()).unwrap();
    let sum = |n: usize| format!("SELECT {} FROM lake.market.trades", vec!["n"; n].join(" + "));
    assert_eq!(number(&engine, &sum(250)).await, 250);
    let chain = |n: i64| (0..n).map(|i| format!("n = {i} OR id = {i}")).collect::<Vec<_>>().join(" OR ");
    assert_eq!(number(&engine, &format!("SELECT count(*) FROM lake.market.trades WHERE {}", chain(120))).await, 1);
    let union = vec!["SELECT id FROM lake.market.trades"; 120].join(" UNION ALL ");
    assert_eq!(number(&engine, &format!("SELECT count(*) FROM ({union})")).await, 120);
    let list = (0..20_000).map(|i| i.to_string()).collect::<Vec<_>>().join(",");
    assert_eq!(number(&engine, &format!("SELECT count(*) FROM lake.market.trades WHERE n IN ({list})")).await, 1);
    for sql in [sum(2000), format!("SELECT 1 WHERE {}", chain(20_000)), format!("SELECT {}1", "NOT ".repeat(5000))] {
        assert!(matches!(engine.query(&sql).await, Err(firn::Error::Config(_))));
    }
    assert_eq!(number(&engine, "SELECT n FROM lake.market.trades").await, 1);
}

/// Firn's spelling of a filed query.
fn spelling(text: &str) -> String {
    let mut ours = String::new();
    let mut wanted = true;
    for line in text.lines() {
        match line.trim() {
            "-- firn:" => wanted = true,
            "-- trino:" => wanted = false,
            _ if wanted => ours.extend([line, "\n"]),
            _ => {}
        }
    }
    ours
}

/// The columns that `schemas/market_event.avsc` and `schemas/nested_example.avsc` become.
mod filed {
    use firn::core::schema::{Field, TableSchema, Type};

    fn field(name: &str, kind: Type) -> Field {
        Field::new(name, kind, false)
    }

    fn list(kind: Type) -> Type {
        Type::List(Box::new(field("element", kind)))
    }

    fn map(kind: Type) -> Type {
        Type::Map(Box::new(Field::new("key", Type::String, true)), Box::new(field("value", kind)))
    }

    fn kafka() -> Field {
        let utc = Type::Timestamp { utc: true };
        let fields = [("topic", Type::String), ("partition", Type::Int), ("offset", Type::Long), ("timestamp", utc)];
        field("_kafka", Type::Struct(fields.map(|(n, k)| field(n, k)).to_vec()))
    }

    fn numbered(mut fields: Vec<Field>, key: &str) -> TableSchema {
        fields.push(kafka());
        let mut schema = TableSchema { fields, key: vec![key.into()] };
        schema.fields.iter_mut().filter(|f| f.name == key).for_each(|f| f.required = true);
        schema.number();
        schema
    }

    pub fn trades() -> TableSchema {
        let fields = [
            ("symbol", Type::String),
            ("id", Type::Long),
            ("event_type", Type::String),
            ("price", Type::Double),
            ("bid", Type::Double),
            ("ask", Type::Double),
            ("qty", Type::Long),
            ("venue", Type::String),
            ("ts", Type::Timestamp { utc: true }),
        ];
        numbered(fields.map(|(n, k)| field(n, k)).to_vec(), "id")
    }

    pub fn orders() -> TableSchema {
        let address =
            || Type::Struct(vec![field("street", Type::String), field("city", Type::String), field("zip", Type::Int)]);
        let customer = vec![field("name", Type::String), field("email", Type::String), field("address", address())];
        let decimal = |precision, scale| Type::Decimal { precision, scale };
        let line = vec![field("sku", Type::String), field("quantity", Type::Int), field("unit_price", decimal(12, 4))];
        let utc = |utc| Type::Timestamp { utc };
        let fields = vec![
            ("order_id", Type::Uuid),
            ("customer", Type::Struct(customer)),
            ("previous_address", address()),
            ("lines", list(Type::Struct(line))),
            ("tags", list(Type::String)),
            ("scores", list(Type::Double)),
            ("attributes", map(Type::String)),
            ("counters", map(Type::Long)),
            ("status", Type::String),
            ("previous_status", Type::String),
            ("total", decimal(18, 2)),
            ("discount", decimal(9, 4)),
            ("ordered_on", Type::Date),
            ("cutoff", Type::Time),
            ("picked_at", Type::Time),
            ("created_at", utc(true)),
            ("updated_at", utc(true)),
            ("local_time", utc(false)),
            ("paid", Type::Boolean),
            ("weight", Type::Float),
            ("distance", Type::Double),
            ("revision", Type::Int),
            ("signature", Type::Binary),
            ("checksum", Type::Fixed(8)),
        ];
        numbered(fields.into_iter().map(|(n, k)| field(n, k)).collect(), "order_id")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_filed_query_is_answered() {
    let (catalog, _folder) = catalog().await;
    for (name, schema) in [("trades", filed::trades()), ("orders", filed::orders())] {
        let spec = TableSpec { schema, format_version: 3, partition_by: vec![], sort_by: vec![], pipeline: "p".into() };
        catalog.create_table(&["market".into()], name, spec).await.unwrap();
    }
    let engine = Engine::new(vec![catalog.into()], Limits::default()).unwrap();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/queries");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "sql"));
    files.sort();
    assert!(files.len() >= 30);
    let mut failed = Vec::new();
    for file in files {
        let sql = spelling(&std::fs::read_to_string(&file).unwrap());
        let answered = async { print(engine.query(&sql).await?, Format::Json, &mut Vec::new()).await };
        if let Err(e) = answered.await {
            failed.push(format!("{}: {e}", file.file_name().unwrap().display()));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

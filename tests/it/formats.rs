//! Pipelines into Delta tables, and into both formats at once, with the operators' commands on them.

use std::path::PathBuf;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use firn::commands::{self, GetArgs, OffsetsSetArgs, OffsetsShowArgs};
use firn::query::Format;
use firn::service;
use firn::settings::Settings;
use futures::TryStreamExt;

use crate::contract::{Row, to_rows};
use crate::evolve;
use crate::run::{V2, World, trade};

const ICEBERG: &str = "{catalog: ice, name: market.trades, format_version: 3}";
const DELTA: &str = "{catalog: lake, name: market.trades, partition_by: [venue]}";

/// A world whose pipeline writes these tables.
async fn world(tables: &[&str]) -> World {
    let world = World::new().await;
    let text = format!(
        "kafka: {{brokers: '{}'}}\nschema_registry: {{url: '{}'}}\n\
         catalogs:\n  ice: {{type: iceberg-sql, uri: 'sqlite:c.db', warehouse: w}}\n  lake: {{type: delta, warehouse: d}}\n\
         pipelines:\n  p:\n    topics: [trades]\n    key: [id]\n    commit: {{interval: 200ms}}\n    tables: [{}]\n",
        world.broker.bootstrap_servers(),
        world.registry_url,
        tables.join(", ")
    );
    std::fs::write(world.config(), text).unwrap();
    world
}

async fn rows(world: &World, table: &str) -> Vec<Row> {
    let settings = Settings::load(&world.config()).unwrap();
    let engine = service::open_engine(&settings).await.unwrap();
    let answer = engine.query(&format!("SELECT id, venue, n FROM {table}")).await.unwrap();
    let batches: Vec<_> = answer.stream.try_collect().await.unwrap();
    let mut rows: Vec<Row> = batches.iter().flat_map(to_rows).collect();
    rows.sort();
    rows
}

/// Makes the schema with one column more the newest one, after the tables were made without that column.
fn evolve(world: &World) {
    assert_eq!(world.registry.as_ref().unwrap().register("trades-value", V2).unwrap(), 2);
}

/// Every column of the table, by id.
async fn everything(world: &World, table: &str) -> String {
    let settings = Settings::load(&world.config()).unwrap();
    let engine = service::open_engine(&settings).await.unwrap();
    let answer = engine.query(&format!("SELECT id, venue, n, note, _kafka FROM {table} ORDER BY id")).await.unwrap();
    let batches: Vec<_> = answer.stream.try_collect().await.unwrap();
    arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string()
}

/// Next offsets of the first partition, by table.
async fn next(world: &World) -> Vec<(String, i64)> {
    let mut out = Vec::new();
    let args = OffsetsShowArgs { config: world.config(), format: Format::Json };
    commands::offsets_show(args, &mut out).await.unwrap();
    let shown: serde_json::Value = serde_json::from_slice(&out).unwrap();
    let tables = shown["tables"].as_array().unwrap();
    let one = |t: &serde_json::Value| {
        (t["table"].as_str().unwrap().to_owned(), t["partitions"][0]["next"].as_i64().unwrap_or(-1))
    };
    tables.iter().map(one).collect()
}

fn expected(newest: &[(i64, i64)]) -> Vec<Row> {
    newest.iter().map(|(id, n)| (*id, "XNAS".to_owned(), *n)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_with_one_delta_table_upserts_and_answers() {
    let world = world(&[DELTA]).await;
    let (text, ended) = world.check().await;
    assert!(ended.is_ok() && text.contains("not there yet"), "{text}");
    world.send(0, &(0..6).map(|id| trade(1, id % 3, id)).collect::<Vec<_>>());
    world.catch_up().await.unwrap();
    assert_eq!(rows(&world, "lake.market.trades").await, expected(&[(0, 3), (1, 4), (2, 5)]));
    evolve(&world);
    world.send(0, &[trade(1, 1, 100), trade(2, 7, 7)]);
    world.catch_up().await.unwrap();
    assert_eq!(rows(&world, "lake.market.trades").await, expected(&[(0, 3), (1, 100), (2, 5), (7, 7)]));
    assert_eq!(next(&world).await, [("lake.market.trades".to_owned(), 8)]);
    let (text, ended) = world.check().await;
    assert!(ended.is_ok() && text.contains("Delta, with table features that firn writes"), "{text}");

    let mut out = Vec::new();
    let args = GetArgs { config: world.config(), table: "lake.market.trades".into(), values: vec!["1".into()] };
    commands::get(args, &mut out).await.unwrap();
    assert!(String::from_utf8(out).unwrap().contains("100"));

    let set = OffsetsSetArgs { positions: vec!["trades/0=2".parse().unwrap()], ..Default::default() };
    world.set(set).await.unwrap();
    assert_eq!(next(&world).await[0].1, 2);
    world.catch_up().await.unwrap();
    assert_eq!(rows(&world, "lake.market.trades").await, expected(&[(0, 3), (1, 100), (2, 5), (7, 7)]));

    let settings = Settings::load(&world.config()).unwrap();
    let engine = service::open_engine(&settings).await.unwrap();
    for (sql, count) in [
        ("SELECT count(*) FROM lake.market.trades WHERE venue = 'XNAS' AND n > 4", 3),
        ("SELECT count(*) FROM lake.market.trades WHERE venue = 'other'", 0),
        ("SELECT count(*) FROM lake.market.\"trades$snapshots\" WHERE operation = 'MERGE'", 1),
    ] {
        let batches: Vec<_> = engine.query(sql).await.unwrap().stream.try_collect().await.unwrap();
        let counted = batches[0].column(0).as_primitive::<Int64Type>().value(0);
        assert!(if sql.contains("snapshots") { counted >= count } else { counted == count }, "{sql}: {counted}");
    }
    let listed: Vec<_> = engine.query("SHOW TABLES").await.unwrap().stream.try_collect().await.unwrap();
    assert!(arrow::util::pretty::pretty_format_batches(&listed).unwrap().to_string().contains("trades"));
}

/// The newest version of the Delta table.
fn newest_version(world: &World) -> PathBuf {
    let log = world.folder.path().join("d/market/trades/_delta_log");
    let names = std::fs::read_dir(log).unwrap().flatten().map(|f| f.path());
    names.filter(|p| p.extension().is_some_and(|e| e == "json")).max().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stream_into_both_formats_gives_the_same_rows_and_heals_after_a_crash_between_the_commits() {
    for tables in [[ICEBERG, DELTA], [DELTA, ICEBERG]] {
        let world = world(&tables).await;
        world.send(0, &(0..6).map(|id| trade(1, id % 3, id)).collect::<Vec<_>>());
        world.catch_up().await.unwrap();
        evolve(&world);
        world.send(0, &[trade(1, 1, 100), trade(2, 7, 7)]);
        world.catch_up().await.unwrap();
        let wanted = expected(&[(0, 3), (1, 100), (2, 5), (7, 7)]);
        assert_eq!(rows(&world, "ice.market.trades").await, wanted);
        assert_eq!(rows(&world, "lake.market.trades").await, wanted);

        // The process died after the Iceberg commit and before the Delta commit: the newest version never was.
        world.send(0, &[trade(1, 2, 200), trade(1, 8, 8)]);
        world.catch_up().await.unwrap();
        std::fs::remove_file(newest_version(&world)).unwrap();
        let behind = next(&world).await;
        let of = |name: &str| behind.iter().find(|(table, _)| table.starts_with(name)).unwrap().1;
        assert!(of("lake") < of("ice"), "{behind:?}");
        world.send(0, &[trade(1, 0, 300)]);
        world.catch_up().await.unwrap();
        let wanted = expected(&[(0, 300), (1, 100), (2, 200), (7, 7), (8, 8)]);
        assert_eq!(rows(&world, "ice.market.trades").await, wanted);
        assert_eq!(rows(&world, "lake.market.trades").await, wanted);
        assert!(next(&world).await.iter().all(|(_, next)| *next == 11));
        // The tables numbered the columns that were added each in its own way.
        let all = everything(&world, "ice.market.trades").await;
        assert_eq!(all, everything(&world, "lake.market.trades").await);
        assert!(all.contains("| hi ") && all.contains("topic: trades"), "{all}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_table_that_cannot_be_written_ends_the_pipeline_with_the_reason() {
    let world = world(&[DELTA]).await;
    world.send(0, &[trade(1, 1, 1)]);
    world.catch_up().await.unwrap();
    let newest = newest_version(&world);
    let version: i64 = newest.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let next = newest.with_file_name(format!("{:020}.json", version + 1));
    let protocol = serde_json::json!({"protocol": {"minReaderVersion": 3, "minWriterVersion": 7,
        "readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors", "rowTracking"]}});
    std::fs::write(next, format!("{protocol}\n")).unwrap();
    world.send(0, &[trade(1, 2, 2)]);
    let error = world.catch_up().await.unwrap_err();
    assert!(error.exit_code() == 4 && error.to_string().contains("rowTracking"), "{error}");
    let (text, ended) = world.check().await;
    assert!(ended.is_err() && text.contains("rowTracking"), "{text}");
    assert_eq!(rows(&world, "lake.market.trades").await, expected(&[(1, 1)]), "it can still be read");
}

/// What the format cannot hold is for a person to decide: trying again would end the same way, for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_cannot_be_made_ends_the_pipeline_with_the_reason() {
    let world = evolve::world(&["{catalog: lake, name: market.trades, partition_by: [venue]}"], "").await;
    let schema = evolve::schema(r#",{"name":"venue","type":"string"}"#);
    let id = evolve::register(&world, &schema);
    world.send(0, &[evolve::encode(id, &schema, serde_json::json!({"id": 1, "venue": ""}))]);
    let error = world.catch_up().await.unwrap_err();
    assert!(error.exit_code() == 4 && error.to_string().contains("Delta cannot tell it from null"), "{error}");
}

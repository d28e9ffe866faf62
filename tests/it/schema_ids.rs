//! INV-22, FAILURES D4: a registry that gives an id to another schema.

use std::fs;

use firn::commands::OffsetsSetArgs;
use firn::embedded::Registry;
use firn::embedded::registry::Level;
use firn::service;
use firn::settings::Settings;
use futures::TryStreamExt;
use serde_json::{Value, json};

use crate::evolve::{encode, register, rows, schema, world};
use crate::run::World;

const ICEBERG: &str = "{catalog: ice, name: market.trades, format_version: 2}";
const DELTA: &str = "{catalog: lake, name: market.trades}";

const FIRST: &str = r#",{"name":"n","type":"int"},{"name":"old","type":"string"}"#;
/// The same but for what nobody reads values by.
const SAME: &str = r#", {"doc":"how many","name":"n","type":{"type":"int"},"default":3},
    {"type":"string","name":"old","default":""}"#;
/// Bodies of one can be read as the other: without an error, and with wrong rows.
const OTHER: &str = r#",{"name":"m","type":"int"},{"name":"text","type":"string"}"#;

fn record(id: u32, key: i64) -> Vec<u8> {
    encode(id, &schema(FIRST), json!({"id": key, "n": 0, "old": format!("o{key}")}))
}

/// Another registry under another address, which gave out these schemas for the values of the topic, in order.
async fn replace_registry(world: &mut World, subjects: &[(&str, &str)]) {
    let registry = Registry::start(([127, 0, 0, 1], 0).into()).await.unwrap();
    registry.set_level(None, Level::None).unwrap();
    for (id, (subject, fields)) in (1..).zip(subjects) {
        assert_eq!(registry.register(subject, &schema(fields)).unwrap(), id);
    }
    let settings = fs::read_to_string(world.config()).unwrap().replace(&world.registry_url, &registry.url());
    fs::write(world.config(), settings).unwrap();
    world.registry_url = registry.url();
    world.registry = Some(registry);
}

/// The table property, of the first table.
async fn remembered(world: &World, catalog: &str) -> Value {
    let settings = Settings::load(&world.config()).unwrap();
    let catalog = service::open_lake(&settings.catalogs[catalog]).await.unwrap();
    let table = catalog.load_table(&["market".to_owned()], "trades").await.unwrap().unwrap();
    serde_json::from_str(&table.lake().schemas().expect("the table remembers schema ids")).unwrap()
}

/// How many versions of the Delta table have properties in them.
fn delta_properties(world: &World) -> usize {
    let log = fs::read_dir(world.folder.path().join("d/market/trades/_delta_log")).unwrap();
    let text = log.map(|file| fs::read_to_string(file.unwrap().path()).unwrap_or_default());
    text.filter(|text| text.contains("\"metaData\"")).count()
}

async fn refused(world: &World, expected: &[&str]) -> String {
    let error = world.catch_up().await.unwrap_err();
    assert_eq!(error.exit_code(), 4, "{error}");
    let (text, ended) = world.check().await;
    assert_eq!(ended.unwrap_err().exit_code(), 4, "{text}");
    for part in expected {
        assert!(error.to_string().contains(part), "`{part}` is not in: {error}");
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
    error.to_string()
}

async fn stops(tables: &[&str], name: &str, more: &str) {
    let mut world = world(tables, more).await;
    let table = format!("{name}.market.trades");
    // The world begins with a schema of its own.
    let id = register(&world, &schema(FIRST));
    assert_eq!(id, 2);
    world.send(0, &[record(id, 1), record(id, 2)]);
    world.catch_up().await.unwrap();
    let pins = remembered(&world, name).await;
    assert_eq!(pins["ids"].as_object().unwrap().keys().collect::<Vec<_>>(), ["2"], "{pins}");
    let properties = delta_properties_of(&world, tables);

    // Other words for the same schema change nothing, and a commit without a new id changes no property.
    replace_registry(&mut world, &[("a", ""), ("trades-value", SAME)]).await;
    world.send(0, &[record(id, 3)]);
    world.catch_up().await.unwrap();
    assert_eq!((remembered(&world, name).await, delta_properties_of(&world, tables)), (pins.clone(), properties));
    let before = rows(&world, &table).await;
    assert_eq!(before.len(), 3);
    let (text, ended) = world.check().await;
    assert!(ended.is_ok() && text.contains("the schema ids of its records mean what they meant"), "{text}");

    // The newest schema of the subject is another one under the same id.
    let held = pins["ids"]["2"].as_str().unwrap();
    replace_registry(&mut world, &[("a", ""), ("trades-value", OTHER)]).await;
    world.send(0, &[record(id, 4)]);
    let error = refused(&world, &["records of schema id 2", held, "--accept-schema 2", &table]).await;
    assert!(error.contains("subject trades-value"), "{error}");

    // Only old records name the id; the newest schema is the one that it was.
    replace_registry(&mut world, &[("a", ""), ("b", OTHER), ("trades-value", FIRST)]).await;
    refused(&world, &["records of schema id 2", held, "--accept-schema 2", &table]).await;
    assert_eq!(rows(&world, &table).await, before, "nothing was read with another schema");
    assert_eq!(world.positions().await[0], (3, 1), "nothing was passed over");

    // The id is in no registry any more: what it meant is remembered, so that its records are no bad ones.
    replace_registry(&mut world, &[("trades-value", FIRST)]).await;
    let error = world.catch_up().await.unwrap_err();
    assert!(error.exit_code() == 4 && error.to_string().contains("no schema of that id"), "{error}");
    assert_eq!(world.positions().await[0], (3, 1), "nothing was passed over");
    let (text, ended) = world.check().await;
    assert!(
        ended.is_ok() && text.contains("schema id 2, which records in it name, is not in the schema registry"),
        "{text}"
    );

    // The registry is restored.
    replace_registry(&mut world, &[("a", ""), ("trades-value", FIRST)]).await;
    world.catch_up().await.unwrap();
    assert_eq!(rows(&world, &table).await.len(), 4);
}

/// No record is a bad one over it, whatever becomes of bad ones.
#[tokio::test(flavor = "multi_thread")]
async fn an_id_with_another_schema_stops_before_a_record_is_read_with_it() {
    stops(&[ICEBERG], "ice", "    on_bad_record: skip\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_with_another_schema_stops_where_a_stream_goes_to_both_formats() {
    stops(&[DELTA, ICEBERG], "lake", "").await;
}

fn delta_properties_of(world: &World, tables: &[&str]) -> usize {
    if tables.contains(&DELTA) { delta_properties(world) } else { 0 }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_accepts_a_schema_and_the_table_keeps_why() {
    for (tables, name) in [(vec![ICEBERG], "ice"), (vec![DELTA], "lake")] {
        let mut world = world(&tables, "").await;
        let table = format!("{name}.market.trades");
        let id = register(&world, &schema(FIRST));
        world.send(0, &[record(id, 1)]);
        world.catch_up().await.unwrap();
        let pins = remembered(&world, name).await;
        replace_registry(&mut world, &[("a", ""), ("trades-value", OTHER)]).await;
        world.send(0, &[encode(id, &schema(OTHER), json!({"id": 2, "m": 7, "text": "x"}))]);
        refused(&world, &["--accept-schema 2"]).await;

        let accept = |id| OffsetsSetArgs { accept_schemas: vec![id], ..OffsetsSetArgs::default() };
        assert_eq!(world.set(accept(9)).await.unwrap_err().exit_code(), 2, "nothing is remembered of that id");
        let said = world.set(accept(id)).await.unwrap();
        assert!(said.contains("schema id 2"), "{said}");
        assert_eq!(remembered(&world, name).await["ids"], json!({}));
        let settings = Settings::load(&world.config()).unwrap();
        let engine = service::open_engine(&settings).await.unwrap();
        let query = format!("SELECT 1 FROM {name}.market.\"trades$snapshots\" WHERE summary LIKE '%a test%'");
        let batches: Vec<_> = engine.query(&query).await.unwrap().stream.try_collect().await.unwrap();
        assert_eq!(batches.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>(), 1, "the reason is kept");
        world.catch_up().await.unwrap();
        let now = remembered(&world, name).await;
        assert!(now["ids"]["2"].is_string() && now != pins, "{now}");
        let read = rows(&world, &table).await;
        assert_eq!(read[1], json!({"id": 2, "m": 7, "text": "x"}), "{read:?}");
        assert_eq!(read[0]["old"], "o1", "what was written stays");
    }
}

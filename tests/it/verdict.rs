//! `firn schema verdict` and the running pipeline: whatever the one says of a schema, the other does.

use firn::avro::table_schema;
use firn::core::history::VectorRead;
use firn::core::schema::{TableFormat, TableSchema};
use firn::service::{Catalogs, event_shape};
use firn::settings::Settings;
use firn::table::{Change, LakeTable};
use futures::StreamExt;

use crate::columns::planned;
use crate::contract::committed;
use crate::evolve::{register, rows, schema, verdict, world};
use crate::run::World;

const ICEBERG: &str = "{catalog: ice, name: market.trades, format_version: 2}";
const ICEBERG_V3: &str = "{catalog: ice, name: market.trades, format_version: 3}";
const DELTA: &str = "{catalog: lake, name: market.trades}";
const BY_DAY: &str = "{catalog: ice, name: market.trades, format_version: 2, partition_by: ['day(ts)'], sort_by: [ts]}";
const TS: &str = r#",{"name":"ts","type":{"type":"long","logicalType":"timestamp-micros"}}"#;
const N: &str = r#",{"name":"n","type":"int"}"#;

/// A pipeline whose tables were made for one schema, and another schema that comes up.
struct Case {
    tables: Vec<&'static str>,
    /// More settings of the pipeline.
    more: &'static str,
    /// The fields of both schemas, behind the key.
    before: String,
    after: String,
    /// What the table grew by before.
    grown: Option<String>,
    /// The body of an event of the second schema, behind the key, where it fits; else a part of the reason.
    ends: Result<Vec<u8>, &'static str>,
}

fn case(
    tables: &[&'static str],
    more: &'static str,
    (before, after): (&str, &str),
    ends: Result<Vec<u8>, &'static str>,
) -> Case {
    Case { tables: tables.to_vec(), more, before: before.into(), after: after.into(), grown: None, ends }
}

/// An optional column of so many megabytes each, numbered from one on.
fn wide(range: std::ops::Range<u32>) -> String {
    let field = |n| format!(r#",{{"name":"w{n}","type":["null",{{"type":"fixed","name":"F{n}","size":1048576}}]}}"#);
    range.map(field).collect()
}

fn possible() -> Vec<Case> {
    let n = |kind: &str| format!(r#",{{"name":"n","type":{kind}}}"#);
    let decimal = |digits| n(&format!(r#"{{"type":"bytes","logicalType":"decimal","precision":{digits},"scale":2}}"#));
    let (order, half) = ("    order_by: n\n", 0.5f64.to_le_bytes().to_vec());
    vec![
        case(&[ICEBERG], order, (N, &n(r#""long""#)), Ok(vec![10])),
        case(&[DELTA], order, (&n(r#""float""#), &n(r#""double""#)), Ok(half.clone())),
        case(&[ICEBERG_V3], order, (&decimal(9), &decimal(18)), Ok(vec![2, 1])),
        case(&[DELTA], "", (N, &n(r#""double""#)), Ok(half.clone())),
        case(&[DELTA], "    mode: append\n    order_by: n\n", (N, &n(r#""double""#)), Ok(half.clone())),
        case(&[ICEBERG], "    delete: {field: n, values: ['9']}\n", (N, &n(r#""long""#)), Ok(vec![10])),
        case(&[BY_DAY], "", (TS, &TS.replace("ts\",", "at\",\"aliases\":[\"ts\"],")), Ok(vec![0])),
        case(&[DELTA, ICEBERG], "", (N, ""), Ok(Vec::new())),
    ]
}

fn impossible() -> Vec<Case> {
    let n = |kind: &str| format!(r#",{{"name":"n","type":{kind}}}"#);
    let decimal = |digits| n(&format!(r#"{{"type":"bytes","logicalType":"decimal","precision":{digits},"scale":2}}"#));
    let (order, delete) = ("    order_by: n\n", "    delete: {field: n, values: ['9']}\n");
    let renamed = r#",{"name":"m","aliases":["n"],"type":"int"}"#;
    let kind = |k: &str| format!(r#",{{"name":"x","type":{k}}}"#);
    let deep = (0..33).fold(r#""int""#.to_owned(), |inner, _| format!(r#"{{"type":"array","items":{inner}}}"#));
    let full = Case {
        grown: Some(wide(15..63)),
        ..case(&[ICEBERG_V3], "", (&wide(0..15), &wide(63..65)), Err("and 67108864 are possible"))
    };
    vec![
        case(&[DELTA], order, (N, &n(r#""double""#)), Err("its values would change their order")),
        case(&[ICEBERG], order, (&decimal(18), &decimal(19)), Err("decimal of at most 18 digits")),
        case(&[ICEBERG], order, (N, &n(r#""string""#)), Err("`order_by` names `n` of type string")),
        case(&[ICEBERG], order, (N, ""), Err("`order_by` names `n`, which is not a column")),
        case(&[ICEBERG], order, (N, renamed), Err("`order_by` names `n`, which is not a column")),
        case(&[DELTA], delete, (N, &n(r#""double""#)), Err("`delete.field` names `n` of type double")),
        case(&[DELTA], delete, (N, renamed), Err("`delete.field` names `n`, which is not a column")),
        case(&[DELTA], delete, (N, &n(r#""string""#)), Err("column n is int in the table and cannot become string")),
        case(
            &[ICEBERG],
            "    lineage: where\n",
            (N, &format!("{N}{}", r#",{"name":"Where","type":"int"}"#)),
            Err("lineage column"),
        ),
        case(
            &[ICEBERG],
            "",
            (N, &format!("{N}{}", r#",{"name":"ID","type":"int"}"#)),
            Err("only in upper and lower case"),
        ),
        case(&[DELTA], "", (N, &n(r#"["null","int","string"]"#)), Err("cannot become a union")),
        case(&[DELTA, ICEBERG], "", (N, &n(r#""double""#)), Err("only delta allows")),
        case(
            &[ICEBERG_V3, DELTA],
            "",
            (N, &kind(r#"{"type":"long","logicalType":"timestamp-nanos"}"#)),
            Err("format version 3"),
        ),
        case(&[BY_DAY], "", (TS, &format!("{TS}{}", r#",{"name":"ts_day","type":"int"}"#)), Err("ts_day")),
        case(&[ICEBERG], "", (N, &kind(&deep)), Err("nested more than 32 deep")),
        case(&[ICEBERG], "", (N, r#",{"name":"t","type":["null","Trade"]}"#), Err("contains itself")),
        full,
    ]
}

/// Changes of the key itself, as whole schemas.
fn keys() -> Vec<(String, &'static str)> {
    vec![
        (schema(N).replace("\"id\"", "\"number\""), "`key` names `id`"),
        (schema(N).replace("\"long\"", "\"string\""), "column id is long in the table and cannot become string"),
        (schema(N).replace("\"name\":\"id\"", "\"aliases\":[\"id\"],\"name\":\"number\""), "`key` names `id`"),
        (schema(N).replace("\"long\"", "\"double\""), "cannot be part of a key"),
    ]
}

async fn made(case: &Case) -> World {
    let world = world(&case.tables, case.more).await;
    if case.more.contains("lineage") {
        let settings = std::fs::read_to_string(world.config()).unwrap();
        std::fs::write(world.config(), settings.replace("    lineage: false\n", "")).unwrap();
    }
    register(&world, &schema(&case.before));
    world.catch_up().await.unwrap();
    if let Some(fields) = &case.grown {
        let settings = Settings::load(&world.config()).unwrap();
        let pipeline = settings.pipeline("p").unwrap();
        let catalog = Catalogs::default().get(&settings, "ice").await.unwrap();
        let table = catalog.load_table(&["market".to_owned()], "trades").await.unwrap().unwrap().lake();
        for part in [wide(15..30), wide(30..45), wide(45..60), wide(60..63)] {
            assert!(fields.contains(&part), "it is what the case says");
            let shape = event_shape(pipeline, &pipeline.tables[0]);
            let wanted = table_schema(&schema(&part), None, &shape, 3).unwrap();
            grow(&*table, &wanted).await;
        }
    }
    world
}

/// Changes the table's columns to hold rows of `wanted` too, in a commit without rows.
async fn grow(table: &dyn LakeTable, wanted: &TableSchema) {
    let view = table.load(None).await.unwrap();
    let VectorRead::Found(vector) = view.history.vector(None) else { panic!("firn made it") };
    let change = Change {
        base: view.snapshot,
        attempt: format!("grow-{}", view.last_field_id),
        pipeline: "p".into(),
        files: Vec::new(),
        superseded: Vec::new(),
        schema_change: planned(&view, wanted, &[TableFormat::IcebergV3]),
        pins: None,
        vector,
        now_ms: firn::service::now_ms(),
        reason: None,
    };
    committed(table.commit(change).await);
}

/// Asks for the verdict on `after`, then has an event of it read while another schema is the newest one, then has it be the
/// newest one when a pipeline starts. All three say the same.
async fn compare(world: &World, after: &str, newest: &str, ends: &Result<Vec<u8>, &str>) {
    let (report, text, asked) = verdict(world, Some(after)).await;
    let tables = report["tables"].as_array().expect(&text).clone();
    let refused: Vec<&str> = tables
        .iter()
        .flat_map(|table| table["changes"].as_array().unwrap())
        .filter(|change| change["action"] == "not_possible")
        .filter_map(|change| change["why"].as_str())
        .collect();
    assert_eq!(asked.is_ok(), refused.is_empty(), "{text}");
    assert_eq!(asked.is_ok(), ends.is_ok(), "{after}\n{text}");
    let id = register(world, after);
    register(world, newest);
    let body = ends.clone().unwrap_or_default();
    world.send(0, &[[&[0][..], &id.to_be_bytes(), &[2], &body].concat()]);
    let running = world.catch_up().await;
    register(world, &after.replacen("\"type\":\"record\"", "\"type\":\"record\",\"doc\":\"the newest\"", 1));
    let starting = world.catch_up().await;
    for (when, ended) in [("running", running), ("starting", starting)] {
        match (ends, ended) {
            (Ok(_), ended) => ended.unwrap_or_else(|e| panic!("{when}: {e}\n{text}")),
            (Err(part), Ok(())) => panic!("{when}: it goes on in spite of {part}:\n{text}"),
            (Err(part), Err(error)) => {
                let said = error.to_string();
                assert!(said.contains(part), "{when}: {part} is not in: {said}");
                assert!(refused.iter().any(|why| said.contains(why)), "{when}: {said}\nis not in:\n{text}");
                assert_eq!(error.exit_code(), 4, "{when}: {said}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_verdict_and_the_pipeline_decide_alike() {
    let mut cases = possible();
    cases.extend(impossible());
    let one = |case: Case| async move {
        let world = made(&case).await;
        let newest = schema(&format!("{}{}", case.before, r#",{"name":"zz","type":["null","int"]}"#));
        compare(&world, &schema(&case.after), &newest, &case.ends).await;
        if case.ends.is_ok() {
            let table = if case.tables[0].contains("lake") { "lake.market.trades" } else { "ice.market.trades" };
            assert_eq!(rows(&world, table).await.len(), 1, "{}", case.after);
        }
    };
    futures::stream::iter(cases).for_each_concurrent(4, one).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_verdict_and_the_pipeline_decide_alike_about_keys() {
    for (after, part) in keys() {
        let world = world(&[ICEBERG], "").await;
        register(&world, &schema(N));
        world.catch_up().await.unwrap();
        compare(&world, &after, &schema(&format!("{N}{}", TS)), &Err(part)).await;
    }
}

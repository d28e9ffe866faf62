//! Schemas that change while events flow, and what `firn schema verdict` says of them beforehand.

use apache_avro::Schema;
use apache_avro::types::Value;
use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use firn::commands::{self, GetArgs, VerdictArgs};
use firn::embedded::registry::Level;
use firn::query::Format;
use firn::service;
use firn::settings::Settings;
use firn::{Error, Result};
use futures::TryStreamExt;
use serde_json::json;

use crate::run::World;

pub const ICEBERG: &str = "{catalog: ice, name: market.trades, format_version: 2}";
pub const ICEBERG_V3: &str = "{catalog: ice, name: market.trades, format_version: 3}";
const DELTA: &str = "{catalog: lake, name: market.trades}";

/// A record schema with these fields behind the key.
pub fn schema(fields: &str) -> String {
    format!(r#"{{"type":"record","name":"Trade","fields":[{{"name":"id","type":"long"}}{fields}]}}"#)
}

/// A world whose pipeline writes these tables, and whose registry takes any schema.
pub async fn world(tables: &[&str], more: &str) -> World {
    let world = World::new().await;
    world.registry.as_ref().unwrap().set_level(None, Level::None).unwrap();
    let text = format!(
        "kafka: {{brokers: '{}'}}\nschema_registry: {{url: '{}'}}\n\
         catalogs:\n  ice: {{type: iceberg-sql, uri: 'sqlite:c.db', warehouse: w}}\n  lake: {{type: delta, warehouse: d}}\n\
         pipelines:\n  p:\n    topics: [trades]\n    key: [id]\n    lineage: false\n    commit: {{interval: 200ms}}\n{more}    \
         tables: [{}]\n",
        world.broker.bootstrap_servers(),
        world.registry_url,
        tables.join(", ")
    );
    std::fs::write(world.config(), text).unwrap();
    world
}

/// Registers a schema; its id.
pub fn register(world: &World, schema: &str) -> u32 {
    world.registry.as_ref().unwrap().register("trades-value", schema).unwrap()
}

/// A value as the wire format has it.
pub fn encode(id: u32, schema: &str, value: serde_json::Value) -> Vec<u8> {
    let schema = Schema::parse_str(schema).unwrap();
    let value = Value::from(value).resolve(&schema).unwrap();
    [&[0][..], &id.to_be_bytes(), &apache_avro::to_avro_datum(&schema, value).unwrap()].concat()
}

/// All rows of a table by id, as JSON.
pub async fn rows(world: &World, table: &str) -> Vec<serde_json::Value> {
    let settings = Settings::load(&world.config()).unwrap();
    let engine = service::open_engine(&settings).await.unwrap();
    let answer = engine.query(&format!("SELECT * FROM {table} ORDER BY id")).await.unwrap();
    let batches: Vec<_> = answer.stream.try_collect().await.unwrap();
    let mut lines = arrow::json::LineDelimitedWriter::new(Vec::new());
    batches.iter().for_each(|batch| lines.write(batch).unwrap());
    lines.finish().unwrap();
    let text = String::from_utf8(lines.into_inner()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What the verdict on a schema, or on the newest one, says to programs and to people.
pub async fn verdict(world: &World, new: Option<&str>) -> (serde_json::Value, String, Result<()>) {
    let file = new.map(|text| {
        let path = world.folder.path().join("new.avsc");
        std::fs::write(&path, text).unwrap();
        path
    });
    let args = |format| VerdictArgs { config: world.config(), pipeline: "p".into(), schema: file.clone(), format };
    let mut text = Vec::new();
    let _ = commands::schema_verdict(args(Format::Table), &mut text).await;
    let mut out = Vec::new();
    let ended = commands::schema_verdict(args(Format::Json), &mut out).await;
    let report = serde_json::from_slice(&out).unwrap_or_default();
    (report, String::from_utf8(text).unwrap(), ended)
}

/// Path and action of each change of the first table.
fn actions(report: &serde_json::Value) -> Vec<(String, String)> {
    let changes = report["tables"][0]["changes"].as_array().unwrap();
    changes.iter().map(|c| (c["path"].as_str().unwrap().into(), c["action"].as_str().unwrap().into())).collect()
}

const FIRST: &str = r#",{"name":"n","type":"int"},{"name":"old","type":"string"},
    {"name":"s","type":{"type":"record","name":"S","fields":[{"name":"a","type":"int"}]}},
    {"name":"l","type":{"type":"array","items":{"type":"record","name":"L","fields":[{"name":"x","type":"float"}]}}}"#;
const SECOND: &str = r#",{"name":"n","type":"long"},{"name":"new","aliases":["old"],"type":"string"},
    {"name":"s","type":{"type":"record","name":"S","fields":[{"name":"a","type":"int"},
        {"name":"b","type":["null","string"],"default":null}]}},
    {"name":"l","type":{"type":"array","items":{"type":"record","name":"L","fields":[
        {"name":"y","type":["null","int"],"default":null},{"name":"x","type":"double"}]}}},
    {"name":"m","type":["null",{"type":"map","values":"long"}],"default":null}"#;

fn first(id: u32, key: i64) -> Vec<u8> {
    let value = json!({"id": key, "n": 7, "old": format!("o{key}"), "s": {"a": 1}, "l": [{"x": 0.5}]});
    encode(id, &schema(FIRST), value)
}

fn second(id: u32, key: i64) -> Vec<u8> {
    let value = json!({"id": key, "n": 5_000_000_000_i64, "new": format!("n{key}"), "s": {"a": 2, "b": "deep"},
        "l": [{"x": 0.25, "y": 3}, {"x": 1.5, "y": null}], "m": {"k": 9}});
    encode(id, &schema(SECOND), value)
}

/// FAILURES D1, D3, D5: at every depth, in lists of more than one element, and by the schema that a record names.
#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_change_happens_while_old_and_new_events_are_mixed() {
    for tables in [vec![ICEBERG], vec![ICEBERG_V3], vec![DELTA], vec![DELTA, ICEBERG_V3]] {
        let world = world(&tables, "").await;
        let old = register(&world, &schema(FIRST));
        world.send(0, &[first(old, 1), first(old, 2)]);
        world.catch_up().await.unwrap();

        let (report, text, ended) = verdict(&world, Some(&schema(SECOND))).await;
        assert!(ended.is_ok() && report["compatible"] == true, "{text}");
        let expected = [
            ("n", "widen"),
            ("old", "rename"),
            ("s.b", "add_column"),
            ("l.element.y", "add_column"),
            ("l.element.x", "widen"),
            ("m", "add_column"),
        ];
        let mut found = actions(&report);
        found.sort();
        let mut wanted = expected.map(|(path, action)| (path.to_owned(), action.to_owned())).to_vec();
        wanted.sort();
        assert_eq!(found, wanted, "{text}");
        assert_eq!(report["tables"].as_array().unwrap().len(), tables.len());

        let new = register(&world, &schema(SECOND));
        assert_ne!(old, new);
        world.send(0, &[first(old, 3), second(new, 4), first(old, 5), second(new, 1), first(old, 6)]);
        world.catch_up().await.unwrap();
        world.send(1, &[first(old, 7)]);
        world.catch_up().await.unwrap();
        for table in ["ice", "lake"].iter().filter(|c| tables.iter().any(|t| t.contains(&format!("catalog: {c}")))) {
            let rows = rows(&world, &format!("{table}.market.trades")).await;
            let ids: Vec<i64> = rows.iter().map(|r| r["id"].as_i64().unwrap()).collect();
            assert_eq!(ids, [1, 2, 3, 4, 5, 6, 7], "{tables:?}");
            for row in &rows {
                let key = row["id"].as_i64().unwrap();
                let expected = match key {
                    1 | 4 => {
                        json!({"id": key, "n": 5_000_000_000_i64, "new": format!("n{key}"), "s": {"a": 2, "b": "deep"},
                        "l": [{"x": 0.25, "y": 3}, {"x": 1.5}], "m": {"k": 9}})
                    }
                    _ => json!({"id": key, "n": 7, "new": format!("o{key}"), "s": {"a": 1}, "l": [{"x": 0.5}]}),
                };
                assert_eq!(*row, expected, "{tables:?}");
            }
        }
        let (report, text, ended) = verdict(&world, None).await;
        assert!(ended.is_ok() && actions(&report).is_empty(), "{text}");
        assert!(text.contains("nothing changes") && report["registry"]["answer"] == "registered", "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_field_stays_as_an_optional_column() {
    for table in [ICEBERG, DELTA] {
        let world = world(&[table], "").await;
        let both = register(&world, &schema(r#",{"name":"a","type":"string"},{"name":"b","type":"int"}"#));
        let of_both = schema(r#",{"name":"a","type":"string"},{"name":"b","type":"int"}"#);
        world.send(0, &[encode(both, &of_both, json!({"id": 1, "a": "x", "b": 1}))]);
        world.catch_up().await.unwrap();
        let less = schema(r#",{"name":"b","type":"int"}"#);
        let (report, ..) = verdict(&world, Some(&less)).await;
        assert_eq!(actions(&report), [("a".to_owned(), "make_optional".to_owned())]);
        let id = register(&world, &less);
        world.send(
            0,
            &[encode(id, &less, json!({"id": 2, "b": 2})), encode(both, &of_both, json!({"id": 3, "a": "z", "b": 3}))],
        );
        world.catch_up().await.unwrap();
        let name = if table == DELTA { "lake.market.trades" } else { "ice.market.trades" };
        let expected =
            [json!({"id": 1, "a": "x", "b": 1}), json!({"id": 2, "b": 2}), json!({"id": 3, "a": "z", "b": 3})];
        assert_eq!(rows(&world, name).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_says_what_cannot_be_with_path_and_types_and_the_registrys_answer() {
    let world = world(&[DELTA, ICEBERG], "").await;
    let n = |kind: &str| schema(&format!(r#",{{"name":"n","type":"{kind}"}}"#));
    let (report, text, ended) = verdict(&world, Some(&n("int"))).await;
    assert!(ended.is_ok() && text.contains("would be created"), "{text}");
    assert_eq!(report["registry"]["answer"], "compatible", "the level is NONE");
    let old = register(&world, &n("int"));
    world.send(0, &[encode(old, &n("int"), json!({"id": 1, "n": 1}))]);
    world.catch_up().await.unwrap();

    world.registry.as_ref().unwrap().set_level(Some("trades-value"), Level::Full).unwrap();
    let (report, text, ended) = verdict(&world, Some(&n("string"))).await;
    assert_eq!(ended.unwrap_err().exit_code(), 1, "{text}");
    let change = &report["tables"][1]["changes"][0];
    let said = ["path", "action", "from", "to"].map(|key| change[key].as_str().unwrap());
    assert_eq!(said, ["n", "not_possible", "int", "string"]);
    assert_eq!((&report["compatible"], &report["registry"]["answer"]), (&json!(false), &json!("incompatible")));
    assert!(!report["registry"]["messages"].as_array().unwrap().is_empty(), "{report}");

    // Delta alone could: the tables take the same rows.
    let (report, text, ended) = verdict(&world, Some(&n("double"))).await;
    assert!(ended.is_err() && text.contains("only delta allows"), "{text}");
    assert!(report["tables"].as_array().unwrap().iter().all(|t| t["compatible"] == false));

    let dropped = n("int").replace("\"id\"", "\"number\"");
    let (_, text, ended) = verdict(&world, Some(&dropped)).await;
    assert!(ended.is_err() && text.contains("`id`"), "{text}");
    let retyped = n("int").replace("\"long\"", "\"string\"");
    let (_, text, ended) = verdict(&world, Some(&retyped)).await;
    assert!(ended.is_err() && text.contains("column id is long in the table and cannot become string"), "{text}");
    for (wrong, code) in [("{", 1), ("\"int\"", 1)] {
        let (_, text, ended) = verdict(&world, Some(wrong)).await;
        assert_eq!(ended.as_ref().err().map(Error::exit_code), Some(code), "{text}");
    }
    assert_eq!(rows(&world, "ice.market.trades").await, [json!({"id": 1, "n": 1})], "a verdict changes nothing");
}

/// The ids of rows for which this holds.
pub async fn ids(world: &World, table: &str, holds: &str) -> Vec<i64> {
    let settings = Settings::load(&world.config()).unwrap();
    let engine = service::open_engine(&settings).await.unwrap();
    let answer = engine.query(&format!("SELECT id FROM {table} WHERE {holds} ORDER BY id")).await.unwrap();
    let batches: Vec<_> = answer.stream.try_collect().await.unwrap();
    let column = |batch: &arrow::array::RecordBatch| batch.column(0).as_primitive::<Int64Type>().values().to_vec();
    batches.iter().flat_map(column).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn defaults_are_what_old_rows_and_old_events_have_on_v3_and_null_elsewhere() {
    let fields = |top: &str, deep: &str| {
        schema(&format!(
            r#",{{"name":"s","type":{{"type":"record","name":"S","fields":[{{"name":"a","type":"int"}}{deep}]}}}},
                {{"name":"l","type":{{"type":"array","items":"S"}}}}{top}"#
        ))
    };
    let first = fields("", "");
    let second = fields(
        r#",{"name":"n","type":"int","default":7},{"name":"o","type":["string","null"],"default":"x"},
            {"name":"z","type":["null","int"],"default":null}"#,
        r#",{"name":"b","type":"string","default":"deep"}"#,
    );
    let old = |id: u32, key: u8| [&[0][..], &id.to_be_bytes(), &[key * 2, 2, 2, 4, 0]].concat();
    let new = |id: u32, key: u8| [&[0][..], &id.to_be_bytes(), &[key * 2, 2, 2, b'b', 0, 16, 2, 0]].concat();
    for (tables, filled) in
        [(vec![ICEBERG_V3], true), (vec![ICEBERG], false), (vec![DELTA], false), (vec![ICEBERG_V3, DELTA], false)]
    {
        let world = world(&tables, "").await;
        let name = if tables == [DELTA] { "lake.market.trades" } else { "ice.market.trades" };
        let one = register(&world, &first);
        world.send(0, &[old(one, 1), old(one, 2)]);
        world.catch_up().await.unwrap();

        let (report, text, ended) = verdict(&world, Some(&second)).await;
        assert!(ended.is_ok(), "{text}");
        let said = if filled { "adds column n (int) with the default 7" } else { "adds column n (int)\n" };
        assert!(text.contains(said) && (report["compatible"] == true), "{text}");

        let two = register(&world, &second);
        world.send(0, &[new(two, 3), old(one, 4)]);
        world.catch_up().await.unwrap();
        let expected = |key: i64| match (key, filled) {
            (3, _) => json!({"id": 3, "s": {"a": 1, "b": "b"}, "l": [], "n": 8}),
            (_, true) => {
                let inner = |a: i32| json!({"a": a, "b": "deep"});
                json!({"id": key, "s": inner(1), "l": [inner(2)], "n": 7, "o": "x"})
            }
            (_, false) => json!({"id": key, "s": {"a": 1}, "l": [{"a": 2}]}),
        };
        assert_eq!(rows(&world, name).await, [1, 2, 3, 4].map(expected), "{tables:?}");
        let of = |yes: &[i64]| if filled { yes.to_vec() } else { Vec::new() };
        assert_eq!(ids(&world, name, "n = 7").await, of(&[1, 2, 4]), "{tables:?}");
        assert_eq!(ids(&world, name, "n > 7").await, [3]);
        assert_eq!(ids(&world, name, "o = 'x' AND s['b'] = 'deep'").await, of(&[1, 2, 4]));
        assert_eq!(ids(&world, name, "n IS NULL").await.len(), if filled { 0 } else { 3 });
        let mut got = Vec::new();
        let args = GetArgs { config: world.config(), table: name.into(), values: vec!["1".into()] };
        commands::get(args, &mut got).await.unwrap();
        let got = String::from_utf8(got).unwrap();
        assert_eq!((got.contains('7'), got.contains("deep")), (filled, filled), "{got}");

        // A schema that lacks the fields again changes nothing on v3, where their default is known.
        let (report, text, _) = verdict(&world, Some(&first)).await;
        assert!(report["compatible"] == true && actions(&report).is_empty(), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_union_gains_branches_while_events_of_both_schemas_are_mixed() {
    let fields = |more: &str| {
        format!(
            r#",{{"name":"u","type":["null","int",{{"type":"record","name":"P","fields":[{{"name":"a","type":"int"}}]}}{more}]}}"#
        )
    };
    let (few, many) = (schema(&fields("")), schema(&fields(r#","string""#)));
    let plain = schema(r#",{"name":"u","type":["null","int"]}"#);
    for tables in [vec![ICEBERG], vec![ICEBERG_V3], vec![DELTA], vec![DELTA, ICEBERG_V3]] {
        let world = world(&tables, "").await;
        let wire = |id: u32, key: u8, union: &[u8]| [&[0][..], &id.to_be_bytes(), &[key * 2], union].concat();
        let old = register(&world, &few);
        world.send(0, &[wire(old, 1, &[2, 10]), wire(old, 2, &[4, 12]), wire(old, 3, &[0])]);
        world.catch_up().await.unwrap();

        let (report, text, ended) = verdict(&world, Some(&many)).await;
        assert!(ended.is_ok(), "{text}");
        assert_eq!(actions(&report), [("u.string".to_owned(), "add_column".to_owned())], "{text}");
        let (_, text, ended) = verdict(&world, Some(&schema(r#",{"name":"u","type":["null","boolean"]}"#))).await;
        assert!(ended.is_err() && text.contains("no branch of the union takes values of this type"), "{text}");

        let new = register(&world, &many);
        let one = register(&world, &plain);
        world.send(
            0,
            &[wire(new, 4, &[6, 2, b's']), wire(old, 5, &[2, 14]), wire(one, 6, &[2, 16]), wire(new, 1, &[4, 18])],
        );
        world.catch_up().await.unwrap();
        for table in ["ice", "lake"].iter().filter(|c| tables.iter().any(|t| t.contains(&format!("catalog: {c}")))) {
            let expected = [
                json!({"id": 1, "u": {"tag": "P", "P": {"a": 9}}}),
                json!({"id": 2, "u": {"tag": "P", "P": {"a": 6}}}),
                json!({"id": 3}),
                json!({"id": 4, "u": {"tag": "string", "string": "s"}}),
                json!({"id": 5, "u": {"tag": "int", "int": 7}}),
                json!({"id": 6, "u": {"tag": "int", "int": 8}}),
            ];
            assert_eq!(rows(&world, &format!("{table}.market.trades")).await, expected, "{tables:?}");
        }
    }
    let world = world(&[ICEBERG], "").await;
    let old = register(&world, &plain);
    world.send(0, &[[&[0][..], &old.to_be_bytes(), &[2, 2, 2]].concat()]);
    world.catch_up().await.unwrap();
    let (_, text, ended) = verdict(&world, Some(&few)).await;
    let expected = "column u is int in the table and cannot become struct<tag: string, int: int, P: struct<a: int>>: a column of one type";
    assert!(ended.is_err() && text.contains(expected), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_does_not_fit_stops_behind_what_came_before_it() {
    let world = world(&[ICEBERG], "").await;
    let n = |kind: &str| schema(&format!(r#",{{"name":"n","type":"{kind}"}}"#));
    let (good, bad) = (register(&world, &n("int")), register(&world, &n("string")));
    register(&world, &schema(r#",{"name":"n","type":"int"},{"name":"newest","type":["null","int"]}"#));
    world.send(0, &[encode(good, &n("int"), json!({"id": 1, "n": 1}))]);
    world.send(0, &[encode(bad, &n("string"), json!({"id": 2, "n": "x"}))]);
    let error = world.catch_up().await.unwrap_err();
    assert_eq!(error.exit_code(), 4, "{error}");
    for part in ["column n is int in the table and cannot become string", &format!("schema {bad}")] {
        assert!(error.to_string().contains(part), "{part} is not in: {error}");
    }
    assert_eq!(rows(&world, "ice.market.trades").await, [json!({"id": 1, "n": 1})]);
}

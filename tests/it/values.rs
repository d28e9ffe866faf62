//! Values that are not Avro, from the registry to the table.

use firn::avro::SchemaKind;
use firn::commands::{self, VerdictArgs};
use firn::query::Format;
use firn::{Error, Result};
use serde_json::{Value, json};

use crate::dead_letters::{DEAD_LETTERS, letters};
use crate::evolve::{rows, world};
use crate::run::World;

const ICEBERG: &str = "{catalog: ice, name: market.trades, format_version: 2}";
const DELTA: &str = "{catalog: lake, name: market.trades}";

fn wire(id: u32, body: &[u8]) -> Vec<u8> {
    [&[0][..], &id.to_be_bytes(), body].concat()
}

async fn verdict(world: &World, file: &str, schema: &str) -> (Value, Result<()>) {
    let path = world.folder.path().join(file);
    std::fs::write(&path, schema).unwrap();
    let args = VerdictArgs { config: world.config(), pipeline: "p".into(), schema: Some(path), format: Format::Json };
    let mut out = Vec::new();
    let ended = commands::schema_verdict(args, &mut out).await;
    (serde_json::from_slice(&out).unwrap_or_default(), ended)
}

#[tokio::test(flavor = "multi_thread")]
async fn json_values_become_rows_and_their_schemas_grow_the_tables() {
    let world = world(&[ICEBERG, DELTA], DEAD_LETTERS).await;
    world.broker.create_topic("trades.dlq", 2).unwrap();
    let registry = world.registry.as_ref().unwrap();
    let schema = |more: &str| {
        format!(
            r#"{{"$schema":"http://json-schema.org/draft-07/schema#","type":"object","title":"Trade","properties":{{
            "id":{{"type":"integer"}},"venue":{{"type":"string"}},"at":{{"type":"string","format":"date-time"}}{more}}},
            "required":["id","venue"]}}"#
        )
    };
    let first = registry.register_as(SchemaKind::Json, "trades-value", &schema("")).unwrap();
    let send = |id: u32, bodies: &[&str]| {
        world.send(0, &bodies.iter().map(|body| wire(id, body.as_bytes())).collect::<Vec<_>>());
    };
    send(
        first,
        &[
            r#"{"venue":"XNAS","id":1,"at":"2026-01-31T12:00:00+01:00"}"#,
            r#"{"id":2,"venue":"XPAR"}"#,
            r#"{"id":2.5,"venue":"XPAR"}"#,
            r#"{"id":1,"venue":"XLON","later":"ignored"}"#,
            r#"{"id":3}"#,
        ],
    );
    world.catch_up().await.unwrap();
    let expected = [json!({"id": 1, "venue": "XLON"}), json!({"id": 2, "venue": "XPAR"})];
    for table in ["ice.market.trades", "lake.market.trades"] {
        assert_eq!(rows(&world, table).await, expected, "{table}");
    }
    let reasons: Vec<_> = letters(&world).whole.into_values().map(|l| (l.place.offset, l.reason)).collect();
    assert_eq!(reasons, [(2, "wrong_type".to_owned()), (4, "missing_field".to_owned())]);

    let wider = schema(r#","price":{"type":["number","null"]}"#);
    let (report, ended) = verdict(&world, "new.json", &wider).await;
    ended.unwrap();
    assert_eq!(report["registry"]["answer"], "compatible");
    assert_eq!(report["tables"][0]["changes"][0]["path"], "price");
    let second = registry.register_as(SchemaKind::Json, "trades-value", &wider).unwrap();
    send(second, &[r#"{"id":4,"venue":"X","price":0.1}"#, r#"{"id":5,"venue":"X","price":null}"#]);
    world.catch_up().await.unwrap();
    for table in ["ice.market.trades", "lake.market.trades"] {
        let last = rows(&world, table).await.split_off(2);
        assert_eq!(last, [json!({"id": 4, "venue": "X", "price": 0.1}), json!({"id": 5, "venue": "X"})], "{table}");
    }

    let (_, ended) = verdict(&world, "new.json", &schema(r#","x":{"type":"object"}"#)).await;
    let error = ended.unwrap_err();
    assert!(matches!(error, Error::No(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn protobuf_values_become_rows_and_their_schemas_grow_the_tables() {
    let world = world(&[ICEBERG, DELTA], DEAD_LETTERS).await;
    world.broker.create_topic("trades.dlq", 2).unwrap();
    let registry = world.registry.as_ref().unwrap();
    let schema = |more: &str| {
        format!(
            "syntax = \"proto3\"; message Trade {{ int64 id = 1; string venue = 2; repeated int32 sizes = 3; {more} }}"
        )
    };
    let first = registry.register_as(SchemaKind::Protobuf, "trades-value", &schema("")).unwrap();
    let send = |id: u32, bodies: &[&[u8]]| world.send(0, &bodies.iter().map(|body| wire(id, body)).collect::<Vec<_>>());
    send(
        first,
        &[
            b"\0\x08\x01\x12\x04XNAS\x1a\x02\x05\x06",
            b"\0\x08\x02",
            b"\0\x08",
            b"\x02\x02\x08\x03",
            b"\x02\0\x08\x01\x12\x04XLON",
        ],
    );
    world.catch_up().await.unwrap();
    let expected = [json!({"id": 1, "venue": "XLON", "sizes": []}), json!({"id": 2, "venue": "", "sizes": []})];
    for table in ["ice.market.trades", "lake.market.trades"] {
        assert_eq!(rows(&world, table).await, expected, "{table}");
    }
    let reasons: Vec<_> = letters(&world).whole.into_values().map(|l| (l.place.offset, l.reason)).collect();
    assert_eq!(reasons, [(2, "truncated".to_owned()), (3, "bad_union_branch".to_owned())]);

    let wider = schema("optional double price = 4;");
    let (report, ended) = verdict(&world, "new.proto", &wider).await;
    ended.unwrap();
    assert_eq!(report["tables"][0]["changes"][0]["path"], "price");
    let second = registry.register_as(SchemaKind::Protobuf, "trades-value", &wider).unwrap();
    let priced = [&b"\0\x08\x04\x21"[..], &0.5f64.to_le_bytes()].concat();
    send(second, &[&priced, b"\0\x08\x05"]);
    world.catch_up().await.unwrap();
    for table in ["ice.market.trades", "lake.market.trades"] {
        let last = rows(&world, table).await.split_off(2);
        let four = json!({"id": 4, "venue": "", "sizes": [], "price": 0.5});
        assert_eq!(last, [four, json!({"id": 5, "venue": "", "sizes": []})], "{table}");
    }
}

/// The fields of the record key are the primary key; events and tombstones name them in any order and encoding.
#[tokio::test(flavor = "multi_thread")]
async fn record_keys_in_json_and_protobuf_are_detected() {
    let values = r#"{"type":"object","title":"Trade","properties":{"id":{"type":"integer"},"size":{"type":"integer"}},"required":["size"]}"#;
    for (kind, schema, keys) in [
        (
            SchemaKind::Json,
            r#"{"type":"object","properties":{"venue":{"type":"string"},"id":{"type":"integer"}},"required":["venue","id"]}"#,
            [&br#"{"venue":"X","id":1}"#[..], br#"{"id":1,"venue":"X"}"#, br#"{"venue":"X","id":2}"#],
        ),
        (
            SchemaKind::Protobuf,
            "syntax = \"proto3\"; message Key { string venue = 1; int64 id = 2; }",
            [b"\0\x0a\x01X\x10\x01", b"\x02\0\x10\x01\x0a\x01X", b"\0\x0a\x01X\x10\x02"],
        ),
    ] {
        let world = world(&[ICEBERG, DELTA], "").await;
        let settings = std::fs::read_to_string(world.config()).unwrap();
        std::fs::write(world.config(), settings.replace("    key: [id]\n", "")).unwrap();
        let registry = world.registry.as_ref().unwrap();
        let value = registry.register_as(SchemaKind::Json, "trades-value", values).unwrap();
        let key = registry.register_as(kind, "trades-key", schema).unwrap();
        let send = |key_body: &[u8], body: Option<&str>| {
            let body = body.map(|body| wire(value, body.as_bytes()));
            crate::record_types::send(&world, 0, &[(Some(wire(key, key_body)), body)]);
        };
        send(keys[0], Some(r#"{"size":10}"#));
        send(keys[2], Some(r#"{"size":20}"#));
        send(keys[1], Some(r#"{"size":11}"#));
        world.catch_up().await.unwrap();
        let row = |id: i64, size: i64| json!({"id": id, "size": size, "venue": "X"});
        for table in ["ice.market.trades", "lake.market.trades"] {
            assert_eq!(rows(&world, table).await, [row(1, 11), row(2, 20)], "{kind:?} {table}");
        }
        send(keys[0], None);
        world.catch_up().await.unwrap();
        for table in ["ice.market.trades", "lake.market.trades"] {
            assert_eq!(rows(&world, table).await, [row(2, 20)], "{kind:?} {table}");
        }
    }
}

/// INV-21: in one run, events of both schemas in turn. What a schema loses stays, what it gains is null in older rows, and a
/// field under another name is another column, in Protobuf too, where it keeps its number.
#[tokio::test(flavor = "multi_thread")]
async fn json_and_protobuf_schemas_lose_and_rename_fields_while_events_flow() {
    let json_schema = |properties: &str, required: &str| {
        format!(
            r#"{{"type":"object","title":"T","properties":{{"id":{{"type":"integer"}},{properties}}},"required":["id",{required}]}}"#
        )
    };
    let json = [
        json_schema(r#""venue":{"type":"string"},"size":{"type":"integer","connect.type":"int32"}"#, r#""venue""#),
        json_schema(r#""market":{"type":"string"},"size":{"type":"integer"},"price":{"type":"number"}"#, r#""market""#),
        json_schema(r#""market":{"type":"string"}"#, r#""market""#),
    ];
    let proto = |fields: &str| format!("syntax = \"proto3\"; message T {{ int64 id = 1; {fields} }}");
    let protobuf = [
        proto("string venue = 2; optional int32 size = 3;"),
        proto("string market = 2; optional int64 size = 3; optional double price = 4;"),
        proto("string market = 2; reserved 3, 4;"),
    ];
    let body = |of: SchemaKind, id: u8, name: &str| match of {
        SchemaKind::Json => format!(r#"{{"id":{id},"{}":"X","size":{id}}}"#, name).into_bytes(),
        _ => vec![0, 8, id, 0x12, 1, b'X', 0x18, id],
    };
    for (kind, schemas) in [(SchemaKind::Json, json), (SchemaKind::Protobuf, protobuf)] {
        let world = world(&[ICEBERG, DELTA], "").await;
        let registry = world.registry.as_ref().unwrap();
        let first = registry.register_as(kind, "trades-value", &schemas[0]).unwrap();
        world.send(0, &[wire(first, &body(kind, 1, "venue"))]);
        world.catch_up().await.unwrap();
        let (_, ended) = verdict(&world, "renamed", &schemas[1]).await;
        ended.unwrap();
        let second = registry.register_as(kind, "trades-value", &schemas[1]).unwrap();
        let third = registry.register_as(kind, "trades-value", &schemas[2]).unwrap();
        world.send(
            0,
            &[
                wire(first, &body(kind, 2, "venue")),
                wire(second, &body(kind, 3, "market")),
                wire(first, &body(kind, 4, "venue")),
                wire(third, &body(kind, 5, "market")),
                wire(second, &body(kind, 6, "market")),
            ],
        );
        world.catch_up().await.unwrap();
        let old = |id: i64| json!({"id": id, "venue": "X", "size": id});
        let new = |id: i64| json!({"id": id, "market": "X", "size": id});
        let expected = [old(1), old(2), new(3), old(4), json!({"id": 5, "market": "X"}), new(6)];
        for table in ["ice.market.trades", "lake.market.trades"] {
            assert_eq!(rows(&world, table).await, expected, "{kind:?} {table}");
        }
    }
}

use arrow::array::StructArray;

use super::*;
use crate::core::change::{NO_ROW, Op};

const VALUE: &str = r#"{"name":"id","type":"long"},{"name":"op","type":["null","string"]},{"name":"ts","type":["null",{"type":"long","logicalType":"timestamp-millis"}]}"#;

fn value(id: i64, op: Option<&str>, ts: Option<i64>) -> Vec<u8> {
    let op = op.map_or(vec![0], |op| [&[2][..], &text(op)].concat());
    let ts = ts.map_or(vec![0], |ts| [&[2][..], &long(ts)].concat());
    wire(1, &[long(id), op, ts].concat())
}

fn id_key(id: i64) -> Key {
    key_of(&[id.to_string()])
}

#[test]
fn plain_upserts_need_neither_ops_nor_row_numbers() {
    let mut decoder = decoder(&record(VALUE), &upsert(&["id"]));
    for i in 0..3 {
        assert_eq!(push(&mut decoder, 10 + i, None, Some(&value(i, None, None))), Pushed::Row);
    }
    let decoded = decoder.finish().unwrap();
    assert_eq!(decoded.offsets, [10, 11, 12]);
    assert_eq!(decoded.keys, [id_key(0), id_key(1), id_key(2)]);
    assert!(decoded.ops.is_empty() && decoded.row_of.is_empty() && decoded.orders.is_empty());
    assert_eq!(decoder.finish().unwrap().batch.num_rows(), 0);
}

#[test]
fn tombstones_and_deletes_by_field_keep_their_place_among_upserts() {
    let shape = EventShape {
        order_by: Some("ts".into()),
        delete: DeleteBy::Field { field: "op".into(), values: vec!["d".into(), "x".into()] },
        lineage: Some("_kafka".into()),
        ..upsert(&["id"])
    };
    let mut decoder = decoder(&record(VALUE), &shape);
    let key = 7i64.to_be_bytes();
    assert_eq!(push(&mut decoder, 0, None, Some(&value(5, None, Some(50)))), Pushed::Row);
    assert_eq!(push(&mut decoder, 1, Some(&key), None), Pushed::Delete);
    assert_eq!(push(&mut decoder, 2, None, Some(&value(6, Some("d"), Some(60)))), Pushed::Delete);
    assert_eq!(push(&mut decoder, 3, None, Some(&value(7, Some("dd"), Some(70)))), Pushed::Row);
    assert_eq!(reason(&push(&mut decoder, 4, Some(&key[..3]), None)), Some(Reason::BadKey));
    assert_eq!(reason(&push(&mut decoder, 5, None, None)), Some(Reason::NullKey));
    assert_eq!(reason(&push(&mut decoder, 6, None, Some(&value(7, None, None)))), Some(Reason::NullOrder));
    assert_eq!(push(&mut decoder, 7, None, Some(&value(8, Some("x"), Some(80)))), Pushed::Delete);
    let decoded = decoder.finish().unwrap();
    assert_eq!(decoded.offsets, [0, 1, 2, 3, 7]);
    assert_eq!(decoded.ops, [Op::Upsert, Op::Tombstone, Op::Delete, Op::Upsert, Op::Delete]);
    assert_eq!(decoded.keys, [5, 7, 6, 7, 8].map(id_key));
    assert_eq!(decoded.orders, [50_000, 0, 60_000, 70_000, 80_000]);
    assert_eq!(decoded.row_of, [0, NO_ROW, NO_ROW, 2, NO_ROW]);
    assert_eq!(decoded.batch.num_rows(), 4);
    let lineage = decoded.batch.column_by_name("_kafka").unwrap();
    assert_eq!(render(lineage, 2), r#"{"trades" 3 3 1003000 usZ}"#);
    // Nothing of this batch is left for the next.
    assert_eq!(push(&mut decoder, 8, None, Some(&value(9, None, Some(1)))), Pushed::Row);
    let decoded = decoder.finish().unwrap();
    assert_eq!((decoded.keys, decoded.ops.len(), decoded.offsets), (vec![id_key(9)], 0, vec![8]));
}

#[test]
fn in_append_mode_keys_mean_nothing_and_tombstones_are_passed_over() {
    let shape = EventShape { delete: DeleteBy::Field { field: "op".into(), values: vec!["d".into()] }, ..append() };
    let mut decoder = decoder(&record(VALUE), &shape);
    assert_eq!(push(&mut decoder, 0, Some(b"\xff whatever"), None), Pushed::Passed);
    assert_eq!(push(&mut decoder, 1, None, None), Pushed::Passed);
    assert_eq!(push(&mut decoder, 2, Some(b"\xff"), Some(&value(1, Some("d"), None))), Pushed::Row);
    let decoded = decoder.finish().unwrap();
    assert_eq!((decoded.offsets, decoded.keys.len(), decoded.ops.len()), (vec![2], 0, 0));
}

#[test]
fn the_record_key_is_the_primary_key_where_none_is_named() {
    let shape = EventShape { key: None, ..upsert(&[]) };
    let key_schema =
        record(r#"{"name":"venue","type":"string"},{"name":"id","type":"long"},{"name":"more","type":"int"}"#);
    let value_schema = record(VALUE);
    // The third key field makes a third column: use a key of two.
    let two = record(r#"{"name":"venue","type":"string"},{"name":"id","type":"int"}"#);
    let table = table_schema(&value_schema, Some(&two), &shape, 2).unwrap();
    assert_eq!(table.key, ["venue", "id"]);
    let mut decoder = Decoder::new(&table, &shape, encode()).unwrap();
    let key = |id: i64| wire(9, &[text("X"), long(id)].concat());
    let needs = |id, of| Pushed::NeedsSchema { id, of };
    assert_eq!(push(&mut decoder, 0, Some(&key(4)), Some(&value(4, None, None))), needs(9, Half::Key));
    decoder.add_key_schema(9, &two).unwrap();
    assert_eq!(push(&mut decoder, 0, Some(&key(4)), Some(&value(4, None, None))), needs(1, Half::Value));
    decoder.add_value_schema(1, &value_schema).unwrap();
    assert!(decoder.unknown_fields(1).is_empty());
    assert_eq!(push(&mut decoder, 0, Some(&key(4)), Some(&value(4, None, None))), Pushed::Row);
    assert_eq!(reason(&push(&mut decoder, 1, None, Some(&value(4, None, None)))), Some(Reason::NullKey));
    assert_eq!(reason(&push(&mut decoder, 1, Some(&key(4)), Some(b"\0\0\0\0\x01\x02"))), Some(Reason::Truncated));
    assert_eq!(reason(&push(&mut decoder, 1, Some(b"\0\0\0\0\x09\x02"), None)), Some(Reason::BadLength));
    assert_eq!(push(&mut decoder, 2, Some(&key(5)), None), Pushed::Delete);
    assert!(decoder.add_key_schema(10, &key_schema).is_err(), "a long id cannot be read as an int column");
    assert!(decoder.add_key_schema(11, r#""string""#).is_err());
    let decoded = decoder.finish().unwrap();
    assert_eq!(decoded.keys, [key_of(&["\"X\"", "4"]), key_of(&["\"X\"", "5"])]);
    assert_eq!(rows(&decoded.batch), [r#"4 null null "X""#]);
}

#[test]
fn tombstones_take_their_key_in_every_form() {
    let uuid = "00112233-4455-6677-8899-aabbccddeeff";
    let bytes: Vec<u8> = (0..16).map(|i| i * 0x11).collect();
    let wired = |body: &[u8]| wire(2, body);
    let (record_key, string_type) = (record(r#"{"name":"x","type":"int"},{"name":"k","type":"int"}"#), r#""string""#);
    type Case<'a> = (&'a str, Option<RecordKey>, Option<&'a str>, Vec<u8>, Result<String, Reason>);
    let cases: [Case<'_>; 16] = [
        (r#""string""#, None, None, b"a1".to_vec(), Ok("\"a1\"".into())),
        (r#""string""#, None, None, wired(&text("a1")), Err(Reason::BadKey)),
        (r#""string""#, None, None, b"\xff\xff".to_vec(), Err(Reason::InvalidUtf8)),
        (r#""string""#, Some(RecordKey::Avro), Some(string_type), wired(&text("a1")), Ok("\"a1\"".into())),
        (r#""string""#, Some(RecordKey::Avro), Some(r#"["null","string"]"#), wired(&[0]), Err(Reason::NullKey)),
        (r#""string""#, Some(RecordKey::Avro), Some(r#""int""#), wired(&[2]), Err(Reason::BadKey)),
        (r#""string""#, Some(RecordKey::Avro), None, b"a1".to_vec(), Err(Reason::Magic)),
        (r#""long""#, None, None, (-2i64).to_be_bytes().to_vec(), Ok("-2".into())),
        (r#""long""#, Some(RecordKey::Int32), None, (-2i32).to_be_bytes().to_vec(), Ok("-2".into())),
        (r#""long""#, Some(RecordKey::String), None, b"-2".to_vec(), Ok("-2".into())),
        (r#""long""#, Some(RecordKey::String), None, b"007".to_vec(), Err(Reason::BadKey)),
        (r#""long""#, Some(RecordKey::Avro), Some(&record_key), wired(&[2, 8]), Ok("4".into())),
        (r#""int""#, None, None, 5i32.to_be_bytes().to_vec(), Ok("5".into())),
        (r#""int""#, Some(RecordKey::Int64), None, (1i64 << 40).to_be_bytes().to_vec(), Err(Reason::BadKey)),
        (r#"{"type":"string","logicalType":"uuid"}"#, None, None, uuid.into(), Ok(format!("{bytes:02x?}"))),
        (r#"{"type":"string","logicalType":"uuid"}"#, None, None, b"no".to_vec(), Err(Reason::BadUuid)),
    ];
    for (kind, form, schema, key, expected) in cases {
        let shape = EventShape { record_key: form, ..upsert(&["k"]) };
        let mut decoder = decoder(&record(&format!(r#"{{"name":"k","type":{kind}}}"#)), &shape);
        if let Some(schema) = schema {
            decoder.add_key_schema(2, schema).unwrap();
        }
        let pushed = push(&mut decoder, 0, Some(&key), None);
        match expected {
            Ok(rendered) => {
                assert_eq!(pushed, Pushed::Delete, "{kind} {form:?}");
                assert_eq!(decoder.finish().unwrap().keys, [key_of(&[rendered])], "{kind} {form:?}");
            }
            Err(expected) => {
                assert_eq!(reason(&pushed), Some(expected), "{kind} {form:?}");
                assert_eq!(decoder.finish().unwrap().offsets.len(), 0);
            }
        }
    }
}

#[test]
fn a_null_in_a_key_column_is_a_bad_record() {
    let mut decoder = decoder(&record(r#"{"name":"k","type":["null","string"]}"#), &upsert(&["k"]));
    assert_eq!(reason(&push_body(&mut decoder, &[0])), Some(Reason::NullKey));
    assert_eq!(push_body(&mut decoder, &[2, 2, b'x']), Pushed::Row);
    assert_eq!(rows(&decoder.finish().unwrap().batch), ["\"x\""]);
}

#[test]
fn deletes_compare_integers_booleans_and_symbols_too() {
    let cases: [(&str, &str, &[u8], &[u8]); 4] = [
        (r#""int""#, "-1", &[1], &[2]),
        (r#""boolean""#, "true", &[1], &[0]),
        (r#"{"type":"enum","name":"E","symbols":["KEEP","DROP"]}"#, "DROP", &[2], &[0]),
        (r#"["null","long"]"#, "0", &[2, 0], &[0]),
    ];
    for (kind, value, deletes, keeps) in cases {
        let delete = DeleteBy::Field { field: "d".into(), values: vec![value.into()] };
        let shape = EventShape { delete, ..upsert(&["k"]) };
        let mut decoder =
            decoder(&record(&format!(r#"{{"name":"d","type":{kind}}},{{"name":"k","type":"int"}}"#)), &shape);
        assert_eq!(push_body(&mut decoder, &[deletes, &[2]].concat()), Pushed::Delete, "{kind}");
        assert_eq!(push_body(&mut decoder, &[keeps, &[2]].concat()), Pushed::Row, "{kind}");
    }
    let shape =
        EventShape { delete: DeleteBy::Field { field: "k".into(), values: vec!["x".into()] }, ..upsert(&["k"]) };
    let table = table_schema(&record(r#"{"name":"k","type":"int"}"#), None, &shape, 2).unwrap();
    assert!(Decoder::new(&table, &shape, encode()).unwrap_err().to_string().contains("`delete.values` has `x`"));
}

#[test]
fn lineage_follows_topic_partition_and_unknown_times() {
    let shape = EventShape { lineage: Some("_kafka".into()), ..append() };
    let mut decoder = decoder(&record(r#"{"name":"k","type":"int"}"#), &shape);
    let topics: [Arc<str>; 2] = [Arc::from("a"), Arc::from("bb")];
    for (topic, partition, offset, timestamp_ms) in [(0, 0, 5, 1), (0, 0, 6, -1), (0, 1, 5, i64::MAX), (1, 1, 9, 2)] {
        let value = wire(1, &[2]);
        let event = Event { topic: &topics[topic], partition, offset, timestamp_ms, key: None, value: Some(&value) };
        assert_eq!(decoder.push(&event), Pushed::Row);
    }
    let batch = decoder.finish().unwrap().batch;
    let lineage: &StructArray = batch.column(1).as_struct();
    let rendered: Vec<_> = (0..4).map(|row| render(lineage, row)).collect();
    assert_eq!(rendered, [r#"{"a" 0 5 1000 usZ}"#, r#"{"a" 0 6 null}"#, r#"{"a" 1 5 null}"#, r#"{"bb" 1 9 2000 usZ}"#]);
}

#[test]
fn a_registered_key_schema_settles_how_keys_are_written() {
    // Five bytes of header and three of varint: as many as an integer has.
    let key = wire(2, &long(500_000));
    assert_eq!(key.len(), 8);
    let shape = upsert(&["id"]).with_key_schema(true);
    let mut decoder = decoder(&record(VALUE), &shape);
    assert_eq!(push(&mut decoder, 0, Some(&key), None), Pushed::NeedsSchema { id: 2, of: Half::Key });
    decoder.add_key_schema(2, &record(r#"{"name":"id","type":"long"}"#)).unwrap();
    assert_eq!(push(&mut decoder, 0, Some(&key), None), Pushed::Delete);
    assert_eq!(decoder.finish().unwrap().keys, [id_key(500_000)]);
    let told = EventShape { record_key: Some(RecordKey::Int64), ..upsert(&["id"]) };
    assert_eq!(told.clone().with_key_schema(true), told);
    assert_eq!(upsert(&["id"]).with_key_schema(false), upsert(&["id"]));
}

/// FAILURES D4: whatever became of a record, the schemas that it names were used.
#[test]
fn a_batch_says_which_schemas_its_records_name() {
    let key = r#"{"type":"record","name":"K","fields":[{"name":"id","type":"long"}]}"#;
    let shape = EventShape { record_key: Some(RecordKey::Avro), ..upsert(&["id"]) };
    let schema = record(VALUE);
    let mut decoder = decoder(&schema, &shape);
    decoder.add_value_schema(2, &schema).unwrap();
    decoder.add_value_schema(3, &schema).unwrap();
    decoder.add_key_schema(9, key).unwrap();
    assert_eq!(push(&mut decoder, 0, None, Some(&value(5, None, None))), Pushed::Row);
    assert_eq!(reason(&push(&mut decoder, 1, None, Some(&wire(2, &[])))), Some(Reason::Truncated));
    assert_eq!(push(&mut decoder, 2, None, Some(&value(6, None, None))), Pushed::Row);
    assert_eq!(push(&mut decoder, 3, Some(&wire(9, &long(5))), None), Pushed::Delete);
    let of = |text: &str| SchemaText::new(SchemaKind::Avro, text).fingerprint();
    assert_eq!(decoder.finish().unwrap().schemas, [(1, of(&schema)), (2, of(&schema)), (9, of(key))]);
    assert_eq!(push(&mut decoder, 4, None, Some(&value(5, None, None))), Pushed::Row);
    assert_eq!(decoder.finish().unwrap().schemas, [(1, of(&schema))]);
    // Columns that grow make new plans; what a rejected record named is not forgotten over it.
    assert_eq!(reason(&push(&mut decoder, 5, None, Some(&wire(3, &[])))), Some(Reason::Truncated));
    let more = record(&format!(r#"{VALUE},{{"name":"n","type":["null","int"],"default":null}}"#));
    let grown = Arc::new(ValueSchema::avro(&more).unwrap());
    let wanted = Arc::new(table_schema(&more, None, &shape, 3).unwrap());
    decoder.grow(4, &grown, &wanted, &[]).unwrap();
    assert_eq!(decoder.finish().unwrap().schemas, [(3, of(&schema))]);
}

const JSON_KEY: &str =
    r#"{"type":"object","properties":{"venue":{"type":"string"},"id":{"type":"integer"}},"required":["venue","id"]}"#;
const PROTOBUF_KEY: &str =
    "syntax = \"proto3\"; message K { string venue = 1; int64 id = 2; message Other { int64 id = 1; } }";

fn key_schema(kind: SchemaKind, text: &str) -> Arc<KeySchema> {
    Arc::new(KeySchema::parse(&SchemaText::new(kind, text)))
}

#[test]
fn record_keys_in_json_and_protobuf_are_the_primary_key() {
    let json = |body: &str| wire(9, body.as_bytes());
    let protobuf = |body: &[u8]| wire(9, body);
    for (kind, text, four, five, bad) in [
        (
            SchemaKind::Json,
            JSON_KEY,
            json(r#"{"id":4,"venue":"X"}"#),
            json(r#"{"venue":"X","id":5}"#),
            [(json(r#"{"id":4}"#), "missing_field venue"), (json(r#"{"id":"4","venue":"X"}"#), "wrong_type id")],
        ),
        (
            SchemaKind::Protobuf,
            PROTOBUF_KEY,
            protobuf(b"\0\x10\x04\x0a\x01X"),
            protobuf(b"\x02\0\x0a\x01X\x10\x05"),
            [(protobuf(b"\x04\0\0\x08\x04"), "bad_union_branch"), (protobuf(b"\0\x0d\0\0\0\0"), "wire_type venue")],
        ),
    ] {
        let shape = EventShape { key: None, ..upsert(&[]) };
        let (schema, values) = (key_schema(kind, text), ValueSchema::avro(&record(VALUE)).unwrap());
        let table = values.table_schema(Some(&schema), &shape, 2).unwrap();
        assert_eq!(table.key, ["venue", "id"], "{kind:?}");
        let mut decoder = Decoder::new(&table, &shape, encode()).unwrap();
        decoder.add_value_schema(1, &record(VALUE)).unwrap();
        let needs = Pushed::NeedsSchema { id: 9, of: Half::Key };
        assert_eq!(push(&mut decoder, 0, Some(&four), Some(&value(4, None, None))), needs);
        assert_eq!(push(&mut decoder, 0, Some(&four), None), needs);
        decoder.add_keys(9, &schema).unwrap();
        assert_eq!(push(&mut decoder, 0, Some(&four), Some(&value(4, None, None))), Pushed::Row);
        for (key, expected) in &bad {
            for value in [Some(value(4, None, None)), None] {
                let Pushed::Bad(bad) = push(&mut decoder, 1, Some(key), value.as_deref()) else { panic!("{expected}") };
                let said = format!("{} {}", bad.reason.code(), bad.field.unwrap_or_default());
                assert_eq!((said.trim(), bad.half), (*expected, Half::Key));
            }
        }
        assert_eq!(push(&mut decoder, 2, Some(&five), None), Pushed::Delete);
        let decoded = decoder.finish().unwrap();
        assert_eq!(decoded.keys, [key_of(&["\"X\"", "4"]), key_of(&["\"X\"", "5"])], "{kind:?}");
        assert_eq!(rows(&decoded.batch), [r#"4 null null "X""#], "{kind:?}");
    }
}

#[test]
fn tombstones_have_json_and_protobuf_keys_where_columns_are_named() {
    for (kind, text, key, expected) in [
        (SchemaKind::Json, r#"{"type":"integer"}"#, &b"7"[..], Ok("7")),
        (SchemaKind::Json, r#"{"type":["integer","null"]}"#, b"null", Err("null_key")),
        (SchemaKind::Json, r#"{"type":"integer"}"#, b"7 8", Err("not_json")),
        (SchemaKind::Json, r#"{"type":"string"}"#, br#""7""#, Err("bad_key")),
        (SchemaKind::Json, r#"{"type":"object","properties":{"id":{"type":"integer"}}}"#, br#"{"id":7}"#, Ok("7")),
        (SchemaKind::Json, r#"{"type":"object","properties":{"id":{"type":"integer"}}}"#, b"{}", Err("null_key")),
        (SchemaKind::Protobuf, PROTOBUF_KEY, b"\0\x10\x07\x0a\x01X", Ok("7")),
        (SchemaKind::Protobuf, PROTOBUF_KEY, b"\0", Ok("0")),
        (SchemaKind::Protobuf, PROTOBUF_KEY, b"", Err("truncated")),
    ] {
        let mut decoder = decoder(&record(VALUE), &upsert(&["id"]).with_key_schema(true));
        decoder.add_keys(2, &key_schema(kind, text)).unwrap();
        let pushed = push(&mut decoder, 0, Some(&wire(2, key)), None);
        match expected {
            Ok(rendered) => {
                assert_eq!(pushed, Pushed::Delete, "{text}");
                assert_eq!(decoder.finish().unwrap().keys, [key_of(&[rendered])], "{text}");
            }
            Err(code) => assert_eq!(reason(&pushed).map(Reason::code), Some(code), "{text}"),
        }
    }
}

#[test]
fn a_key_schema_that_has_no_columns_matters_only_to_those_who_need_the_keys() {
    let tree = key_schema(SchemaKind::Protobuf, "syntax = \"proto3\"; message K { K k = 1; }");
    let values = ValueSchema::avro(&record(VALUE)).unwrap();
    assert!(values.table_schema(Some(&tree), &upsert(&["id"]), 2).is_ok());
    let keyed = EventShape { key: None, ..upsert(&[]) };
    let refused = values.table_schema(Some(&tree), &keyed, 2).unwrap_err();
    assert!(refused.to_string().contains("key schema: field `k`: message K contains itself"), "{refused}");
    let plain = key_schema(SchemaKind::Json, r#"{"type":"string"}"#);
    let refused = values.table_schema(Some(&plain), &keyed, 2).unwrap_err();
    assert!(refused.to_string().contains("a record is needed, this is string"), "{refused}");
    let mut decoder = decoder(&record(VALUE), &upsert(&["id"]));
    assert!(decoder.add_keys(3, &tree).is_err());
}

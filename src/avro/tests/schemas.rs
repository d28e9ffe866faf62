use super::*;
use crate::Error;
use crate::core::schema::{TableSchema, Type};

fn columns(table: &TableSchema) -> String {
    let column =
        |f: &crate::core::schema::Field| format!("{}{}: {}", f.name, if f.required { "!" } else { "" }, f.kind);
    table.fields.iter().map(column).collect::<Vec<_>>().join(", ")
}

fn table(fields: &str, shape: &EventShape, version: u8) -> Result<String, String> {
    table_schema(&record(fields), None, shape, version).map(|t| columns(&t)).map_err(|e| match e {
        Error::Decision(message) => message,
        other => panic!("{other:?}"),
    })
}

#[test]
fn every_avro_type_has_its_column_type() {
    let cases = [
        (r#""boolean""#, "f!: boolean"),
        (r#""int""#, "f!: int"),
        (r#""long""#, "f!: long"),
        (r#""float""#, "f!: float"),
        (r#""double""#, "f!: double"),
        (r#""bytes""#, "f!: binary"),
        (r#""string""#, "f!: string"),
        (r#"{"type":"string","avro.java.string":"String"}"#, "f!: string"),
        (r#"["null","int"]"#, "f: int"),
        (r#"["int","null"]"#, "f: int"),
        (r#"["int"]"#, "f!: int"),
        (r#"{"type":"fixed","name":"F","size":7}"#, "f!: fixed[7]"),
        (r#"{"type":"enum","name":"E","symbols":["A"]}"#, "f!: string"),
        (r#"{"type":"array","items":["null","long"]}"#, "f!: list<long>"),
        (r#"{"type":"map","values":"double"}"#, "f!: map<string, double>"),
        (r#"{"type":"record","name":"S","fields":[{"name":"a","type":"int"}]}"#, "f!: struct<a: int>"),
        (r#"{"type":"bytes","logicalType":"decimal","precision":10,"scale":2}"#, "f!: decimal(10, 2)"),
        (r#"{"type":"fixed","name":"D","size":4,"logicalType":"decimal","precision":9}"#, "f!: decimal(9, 0)"),
        (r#"{"type":"string","logicalType":"uuid"}"#, "f!: uuid"),
        (r#"{"type":"fixed","name":"U","size":16,"logicalType":"uuid"}"#, "f!: uuid"),
        (r#"{"type":"int","logicalType":"date"}"#, "f!: date"),
        (r#"{"type":"int","logicalType":"time-millis"}"#, "f!: time"),
        (r#"{"type":"long","logicalType":"time-micros"}"#, "f!: time"),
        (r#"{"type":"long","logicalType":"timestamp-millis"}"#, "f!: timestamptz"),
        (r#"{"type":"long","logicalType":"local-timestamp-micros"}"#, "f!: timestamp"),
        (r#"{"type":"long","logicalType":"timestamp-nanos"}"#, "f!: timestamptz_ns"),
        (r#"{"type":"long","logicalType":"local-timestamp-nanos"}"#, "f!: timestamp_ns"),
        // A logical type that is unknown or does not fit is the plain type.
        (r#"{"type":"string","logicalType":"colour"}"#, "f!: string"),
        (r#"{"type":"string","logicalType":"timestamp-millis"}"#, "f!: string"),
        (r#"{"type":"bytes","logicalType":"decimal","precision":2,"scale":5}"#, "f!: binary"),
        (
            r#"{"type":"fixed","name":"D","size":12,"logicalType":"duration"}"#,
            "f!: struct<months: long, days: long, millis: long>",
        ),
        (r#"["null","int","string"]"#, "f: struct<tag: string, int: int, string: string>"),
        (
            r#"[{"type":"int","logicalType":"date"},{"type":"map","values":["int","bytes"]},{"type":"record","name":"n.E","fields":[]},
                {"type":"fixed","name":"n.F","size":2}]"#,
            "f!: struct<tag: string, int: date, map: map<string, struct<tag: string, int: int, bytes: binary>>, F: fixed[2]>",
        ),
        // What is only ever null has nothing to keep.
        (r#""null"},{"name":"g","type":"int""#, "g!: int"),
        (r#"["null"]},{"name":"g","type":"int""#, "g!: int"),
        (
            r#"{"type":"record","name":"S","fields":[{"name":"a","type":"int"},{"name":"b","type":"null"}]}"#,
            "f!: struct<a: int>",
        ),
    ];
    for (avro, column) in cases {
        assert_eq!(table(&format!(r#"{{"name":"f","type":{avro}}}"#), &append(), 3).as_deref(), Ok(column), "{avro}");
    }
}

#[test]
fn what_has_no_column_type_is_refused_with_its_path() {
    let cases = [
        (
            r#"["int",{"type":"int","logicalType":"date"}]"#,
            "field `f`: two branches of its union are named `int`: give one of the types another name",
        ),
        (
            r#"[{"type":"record","name":"a.X","fields":[]},{"type":"fixed","name":"b.x","size":2}]"#,
            "field `f`: two branches of its union are named `x`",
        ),
        (r#"["int",{"type":"fixed","name":"Tag","size":2}]"#, "field `f`: a branch of its union is named `Tag`"),
        (
            r#"["int",{"type":"record","name":"Deep","fields":[{"name":"g","type":{"type":"array","items":"null"}}]}]"#,
            "field `f.Deep.g.element`: a type that is only null",
        ),
        (
            r#"{"type":"long","logicalType":"timestamp-nanos"}"#,
            "field `f`: timestamp-nanos needs a table of format version 3",
        ),
        (
            r#"{"type":"array","items":{"type":"map","values":"null"}}"#,
            "field `f.element.value`: a type that is only null",
        ),
        (r#"{"type":"record","name":"S","fields":[]}"#, "field `f`: a record without fields"),
        (r#"{"type":"record","name":"S","fields":[{"name":"a","type":"null"}]}"#, "field `f`: a record without fields"),
        (r#"["null","R"]"#, "field `f`: type `R` contains itself, which no table column can; `recursive_types: json`"),
        (r#"{"type":"bytes","logicalType":"decimal","precision":39,"scale":0}"#, "field `f`: decimal(39, 0)"),
        (r#""nothing""#, "f: unknown type `nothing`"),
        (r#"{"type":"fixed","name":"F","size":2147483647}"#, "field `f`: a fixed of 2147483647 bytes"),
    ];
    for (avro, message) in cases {
        let refused = table(&format!(r#"{{"name":"f","type":{avro}}}"#), &append(), 2).unwrap_err();
        assert!(refused.contains(message), "{avro}: {refused}");
    }
}

#[test]
fn a_named_type_keeps_its_logical_type_where_it_is_mentioned_again() {
    let fields = r#"{"name":"a","type":{"type":"fixed","name":"x.Money","size":8,"logicalType":"decimal","precision":10,"scale":2}},
        {"name":"b","type":["null","x.Money"]}"#;
    assert_eq!(table(fields, &append(), 2).as_deref(), Ok("a!: decimal(10, 2), b: decimal(10, 2)"));
}

#[test]
fn schemas_that_grow_beyond_bounds_are_refused() {
    let mut fields =
        vec![r#"{"name":"f0","type":{"type":"record","name":"T0","fields":[{"name":"x","type":"int"}]}}"#.to_string()];
    for i in 1..40 {
        let below = i - 1;
        fields.push(format!(
            r#"{{"name":"f{i}","type":{{"type":"record","name":"T{i}","fields":[{{"name":"a","type":"T{below}"}},{{"name":"b","type":"T{below}"}}]}}}}"#
        ));
    }
    assert!(table(&fields.join(","), &append(), 2).unwrap_err().contains("more than 20000 types"));
    let mut fields = fields[..1].to_vec();
    for i in 1..80 {
        let below = i - 1;
        fields.push(format!(
            r#"{{"name":"f{i}","type":{{"type":"record","name":"T{i}","fields":[{{"name":"a","type":"T{below}"}}]}}}}"#
        ));
    }
    assert!(table(&fields.join(","), &append(), 2).unwrap_err().contains("nested more than 64 deep"));
    let deep = format!("{}\"int\"{}", r#"{"type":"array","items":"#.repeat(100_000), "}".repeat(100_000));
    assert!(table(&format!(r#"{{"name":"f","type":{deep}}}"#), &append(), 2).is_err());
}

#[test]
fn a_record_without_fields_makes_no_table() {
    assert!(table("", &append(), 2).unwrap_err().contains("a record without fields makes no table"));
    let lineage = EventShape { lineage: Some("_kafka".into()), ..append() };
    assert!(table("", &lineage, 2).is_ok(), "it has the lineage column");
}

/// D9
/// FAILURES D9
#[test]
fn columns_too_deep_for_the_metadata_of_a_table_are_refused() {
    let nested = |levels: usize, wrap: fn(usize, String) -> String| {
        let kind = (1..levels).fold(r#""int""#.to_owned(), |kind, level| wrap(level, kind));
        table(&format!(r#"{{"name":"f","type":{kind}}}"#), &append(), 2)
    };
    let wraps: [fn(usize, String) -> String; 3] = [
        |level, kind| format!(r#"{{"type":"record","name":"T{level}","fields":[{{"name":"p","type":{kind}}}]}}"#),
        |_, kind| format!(r#"{{"type":"array","items":{kind}}}"#),
        |_, kind| format!(r#"{{"type":"map","values":{kind}}}"#),
    ];
    for wrap in wraps {
        assert!(nested(32, wrap).is_ok());
        assert!(nested(33, wrap).unwrap_err().contains("columns are nested more than 32 deep"));
    }
}

#[test]
fn key_columns_are_required_and_come_from_the_record_key_where_no_key_is_named() {
    let value = r#"{"name":"id","type":["null","int"]},{"name":"v","type":"string"}"#;
    assert_eq!(table(value, &upsert(&["id"]), 2).as_deref(), Ok("id!: int, v!: string"));
    let shape = EventShape { key: None, lineage: Some("_kafka".into()), ..upsert(&[]) };
    let key = record(r#"{"name":"id","type":"long"},{"name":"venue","type":"string"}"#);
    let made = table_schema(&record(value), Some(&key), &shape, 2).unwrap();
    let lineage = "_kafka: struct<topic: string, partition: int, offset: long, timestamp: timestamptz>";
    assert_eq!(columns(&made), format!("id!: long, v!: string, venue!: string, {lineage}"));
    assert_eq!(made.key, ["id", "venue"]);
    let Type::Struct(fields) = &made.fields[3].kind else { panic!() };
    assert_eq!(fields.iter().map(|f| f.id).collect::<Vec<_>>(), [5, 6, 7, 8]);
}

#[test]
fn settings_that_name_no_fitting_column_are_refused() {
    let fields = r#"{"name":"id","type":"long"},{"name":"p","type":"double"},{"name":"s","type":"string"},{"name":"_kafka","type":"int"}"#;
    let by = |field: &str| DeleteBy::Field { field: field.into(), values: vec!["d".into()] };
    let cases = [
        (upsert(&["nope"]), "`key` names `nope`, which the value does not have; its fields are id, p, s, _kafka"),
        (upsert(&["p"]), "column `p` of type double cannot be part of a key"),
        (upsert(&["id", "id"]), "names the column `id` twice"),
        (EventShape { order_by: Some("s".into()), ..upsert(&["id"]) }, "`order_by` names `s` of type string"),
        (EventShape { order_by: Some("t".into()), ..upsert(&["id"]) }, "`order_by` names `t`, which is not a column"),
        (EventShape { delete: by("p"), ..upsert(&["id"]) }, "`delete.field` names `p` of type double"),
        (EventShape { lineage: Some("_kafka".into()), ..upsert(&["id"]) }, "the value has a field `_kafka`"),
        (EventShape { key: None, ..upsert(&[]) }, "the record key has no schema"),
    ];
    for (shape, message) in cases {
        let refused = table(fields, &shape, 2).unwrap_err();
        assert!(refused.contains(message), "{refused}");
    }
}

#[test]
fn the_schemas_of_the_repository_make_tables() {
    let read = |name: &str| std::fs::read_to_string(format!("{}/schemas/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let (v1, v2, key) = (read("market_event.avsc"), read("market_event_v2.avsc"), read("market_key.avsc"));
    let shape = EventShape { key: None, order_by: Some("ts".into()), lineage: Some("_kafka".into()), ..upsert(&[]) };
    let market = table_schema(&v1, Some(&key), &shape, 3).unwrap();
    assert!(
        columns(&market).starts_with("symbol!: string, id!: long, event_type!: string, price: double, bid: double")
    );
    assert_eq!(market.key, ["id"]);
    let mut decoder = Decoder::new(&market, &shape, encode()).unwrap();
    decoder.add_key_schema(1, &key).unwrap();
    decoder.add_value_schema(2, &v1).unwrap();
    decoder.add_value_schema(3, &v2).unwrap();
    assert_eq!((decoder.unknown_fields(2).len(), decoder.unknown_fields(3)), (0, &["currency".to_string()][..]));
    let nested = table_schema(&read("nested_example.avsc"), None, &upsert(&["order_id"]), 2).unwrap();
    assert_eq!(nested.fields.len(), 24);
    assert_eq!(nested.column("discount").map(|f| f.kind.to_string()).as_deref(), Some("decimal(9, 4)"));
    assert_eq!(nested.column("previous_status").map(|f| f.kind.to_string()).as_deref(), Some("string"));
}

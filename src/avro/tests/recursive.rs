//! Types that contain themselves, as JSON.

use serde_json::{Value, json};

use super::*;

fn as_json() -> EventShape {
    EventShape { recursive_types: RecursiveTypes::Json, ..append() }
}

/// Decodes bodies; the column `c` of the rows, which is text.
fn texts(schema: &str, bodies: &[Vec<u8>]) -> Vec<Option<String>> {
    let mut decoder = decoder(schema, &as_json());
    for body in bodies {
        assert_eq!(push_body(&mut decoder, body), Pushed::Row);
        assert!(matches!(push_body(&mut decoder, &body[..body.len() - 1]), Pushed::Bad(_)));
    }
    let batch = decoder.finish().unwrap().batch;
    let column = batch.column_by_name("c").unwrap().as_string::<i32>();
    column.iter().map(|text| text.map(str::to_owned)).collect()
}

fn list(depth: usize) -> Vec<u8> {
    (0..depth).flat_map(|n| [long(n as i64), long(1)].concat()).chain([long(9), long(0)].concat()).collect()
}

#[test]
fn a_value_inside_itself_is_json_from_there_on() {
    let schema = record(r#"{"name":"n","type":"int"},{"name":"c","type":["null","R"]}"#);
    let table = table_schema(&schema, None, &as_json(), 2).unwrap();
    assert_eq!(table.fields.iter().map(|f| f.kind.to_string()).collect::<Vec<_>>(), ["int", "string"]);
    let found = texts(&schema, &[list(0), list(1), list(3)]);
    let expected = [None, Some(r#"{"n":9,"c":null}"#), Some(r#"{"n":1,"c":{"n":2,"c":{"n":9,"c":null}}}"#)];
    assert_eq!(found, expected.map(|text| text.map(str::to_owned)));
}

#[test]
fn nesting_is_bounded_and_costs_the_record_alone() {
    let schema = record(r#"{"name":"n","type":"int"},{"name":"c","type":["null","R"]}"#);
    let mut decoder = decoder(&schema, &as_json());
    assert_eq!(push_body(&mut decoder, &list(100)), Pushed::Row);
    assert_eq!(reason(&push_body(&mut decoder, &list(101))), Some(Reason::TooDeep));
    assert_eq!(reason(&push_body(&mut decoder, &list(1_000_000))), Some(Reason::TooDeep));
    assert_eq!(push_body(&mut decoder, &list(1)), Pushed::Row);
    assert_eq!(decoder.finish().unwrap().batch.num_rows(), 2);
    // A record that has to contain itself has no values.
    let endless = record(r#"{"name":"c","type":"R"}"#);
    let mut decoder = super::decoder(&endless, &as_json());
    assert_eq!(reason(&push_body(&mut decoder, &[])), Some(Reason::TooDeep));
}

#[test]
fn every_type_has_its_form_in_json() {
    let types = [
        (r#""boolean""#, vec![1], json!(true)),
        (r#""int""#, long(-5), json!(-5)),
        (r#""long""#, long(i64::MIN), json!(i64::MIN)),
        (r#""float""#, 0.1f32.to_le_bytes().to_vec(), json!(0.1)),
        (r#""double""#, (-0.0f64).to_le_bytes().to_vec(), json!(-0.0)),
        (r#""double""#, f64::NAN.to_le_bytes().to_vec(), json!("NaN")),
        (r#""float""#, f32::NEG_INFINITY.to_le_bytes().to_vec(), json!("-Infinity")),
        (r#""bytes""#, [long(2), vec![0, 0xff]].concat(), json!("AP8=")),
        (r#""string""#, text("a\"\n\u{1F984}"), json!("a\"\n\u{1F984}")),
        (r#"{"type":"fixed","name":"F","size":1}"#, vec![7], json!("Bw==")),
        (r#"{"type":"enum","name":"E","symbols":["A","B"]}"#, long(1), json!("B")),
        (
            r#"{"type":"bytes","logicalType":"decimal","precision":9,"scale":3}"#,
            [long(1), vec![0xff]].concat(),
            json!("-0.001"),
        ),
        (r#"{"type":"fixed","name":"G","size":2,"logicalType":"decimal","precision":4}"#, vec![0, 12], json!("12")),
        (
            r#"{"type":"fixed","name":"U","size":16,"logicalType":"uuid"}"#,
            vec![0; 16],
            json!("00000000-0000-0000-0000-000000000000"),
        ),
        (r#"{"type":"int","logicalType":"date"}"#, long(-719_162), json!("0001-01-01")),
        (r#"{"type":"int","logicalType":"time-millis"}"#, long(86_399_999), json!("23:59:59.999")),
        (r#"{"type":"long","logicalType":"time-micros"}"#, long(1), json!("00:00:00.000001")),
        (r#"{"type":"long","logicalType":"timestamp-millis"}"#, long(-1), json!("1969-12-31T23:59:59.999Z")),
        (r#"{"type":"long","logicalType":"local-timestamp-micros"}"#, long(0), json!("1970-01-01T00:00:00.000000")),
        (r#"{"type":"long","logicalType":"timestamp-nanos"}"#, long(5), json!("1970-01-01T00:00:00.000000005Z")),
        (
            r#"{"type":"fixed","name":"H","size":12,"logicalType":"duration"}"#,
            vec![1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0],
            json!({"months": 1, "days": 2, "millis": 3}),
        ),
        (r#"{"type":"array","items":"int"}"#, vec![4, 2, 4, 2, 6, 0], json!([1, 2, 3])),
        (r#"{"type":"map","values":"int"}"#, [&[2][..], &text("k"), &[8, 0]].concat(), json!({"k": 4})),
        (r#"["null","int","string"]"#, vec![2, 8], json!({"tag": "int", "int": 4})),
        (r#"["null","int","string"]"#, vec![0], json!(null)),
        (r#"{"type":"record","name":"E0","fields":[]}"#, vec![], json!({})),
    ];
    for (avro, body, expected) in types {
        let schema = record(&format!(
            r#"{{"name":"c","type":{{"type":"array","items":"R"}}}},{{"name":"v","type":["null",{avro}]}}"#
        ));
        let shape = as_json();
        let mut decoder = match table_schema(&schema, None, &shape, 3) {
            Ok(_) => decoder(&schema, &shape),
            // It has no column, but it has its form in JSON.
            Err(_) => continue,
        };
        let inner = [long(0), long(1), body].concat();
        let whole = [long(1), inner, long(0), long(0)].concat();
        assert_eq!(push_body(&mut decoder, &whole), Pushed::Row, "{avro}");
        let batch = decoder.finish().unwrap().batch;
        let lists = batch.column(0).as_list::<i32>().value(0);
        let value: Value = serde_json::from_str(lists.as_string::<i32>().value(0)).unwrap();
        assert_eq!(value, json!({"c": [], "v": expected}), "{avro}");
    }
}

#[test]
fn types_that_contain_each_other_and_trees_are_read_and_passed_over() {
    let schema = record(
        r#"{"name":"c","type":["null",{"type":"record","name":"A","fields":[
            {"name":"b","type":{"type":"map","values":{"type":"record","name":"B","fields":[{"name":"a","type":["null","A"]},{"name":"r","type":{"type":"array","items":"R"}}]}}}]}]}"#,
    );
    let table = table_schema(&schema, None, &as_json(), 2).unwrap();
    assert_eq!(table.fields[0].kind.to_string(), "struct<b: map<string, struct<a: string, r: list<string>>>>");
    let empty = [long(1), long(0)].concat();
    let body = [long(1), long(1), text("k"), long(1), long(0), long(2), long(0), empty, long(0), long(0)].concat();
    let mut decoder = decoder(&schema, &as_json());
    assert_eq!(push_body(&mut decoder, &body), Pushed::Row);
    assert_eq!(
        rows(&decoder.finish().unwrap().batch),
        [r#"{<{"k" {"{\"b\":{}}" ["{\"c\":null}" "{\"c\":{\"b\":{}}}"]}}>}"#]
    );

    // A table that does not have the column: the value is checked all the same.
    let other = record(r#"{"name":"x","type":"int"}"#);
    let mut decoder = super::decoder(&other, &as_json());
    let more = record(r#"{"name":"x","type":"int"},{"name":"c","type":["null","R"]}"#);
    decoder.add_value_schema(2, &more).unwrap();
    let body = [long(7), long(1), long(8), long(0)].concat();
    assert_eq!(push(&mut decoder, 0, None, Some(&wire(2, &body))), Pushed::Row);
    assert!(reason(&push(&mut decoder, 1, None, Some(&wire(2, &body[..3])))).is_some());
    assert_eq!(rows(&decoder.finish().unwrap().batch), ["7"]);
}

#[test]
fn symbols_that_make_a_small_record_a_large_text_are_bounded() {
    let symbol = "s".repeat(60_000);
    let schema = record(&format!(
        r#"{{"name":"c","type":{{"type":"array","items":"R"}}}},
           {{"name":"v","type":["null",{{"type":"enum","name":"E","symbols":["{symbol}"]}}]}}"#
    ));
    let table = record(r#"{"name":"c","type":{"type":"array","items":"R"}}"#);
    let mut decoder = super::decoder(&table, &as_json());
    decoder.add_value_schema(2, &schema).unwrap();
    let of = |items: usize| [long(items as i64), [0, 2, 0].repeat(items), long(0), long(0)].concat();
    // 5 000 texts of 60 kB: none is too long, but together they are.
    assert_eq!(reason(&push(&mut decoder, 0, None, Some(&wire(2, &of(5_000))))), Some(Reason::TooLarge));
    assert_eq!(push(&mut decoder, 0, None, Some(&wire(2, &of(100)))), Pushed::Row);
    let nested = [long(1), of(5_000), long(0), long(0)].concat();
    assert_eq!(reason(&push(&mut decoder, 0, None, Some(&wire(2, &nested)))), Some(Reason::TooLarge));
}

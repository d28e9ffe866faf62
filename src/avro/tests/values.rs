use super::*;

/// Decodes one value written as `writer` into the column that `reader` makes.
fn read(reader: &str, writer: &str, body: &[u8]) -> Result<String, String> {
    let field = |kind: &str| record(&format!(r#"{{"name":"f","type":{kind}}}"#));
    let shape = append();
    let table = table_schema(&field(reader), None, &shape, 3).unwrap();
    let mut decoder = Decoder::new(&table, &shape, encode()).unwrap();
    decoder.add_value_schema(1, &field(writer)).map_err(|e| e.to_string())?;
    match push_body(&mut decoder, body) {
        Pushed::Row => Ok(rows(&decoder.finish().unwrap().batch).remove(0)),
        Pushed::Bad(bad) => Err(bad.reason.code().into()),
        other => panic!("{other:?}"),
    }
}

const UUID: &str = r#"{"type":"string","logicalType":"uuid"}"#;
const UUID_BYTES: &str = r#"{"type":"fixed","name":"U","size":16,"logicalType":"uuid"}"#;
const MILLIS: &str = r#"{"type":"long","logicalType":"timestamp-millis"}"#;
const MICROS: &str = r#"{"type":"long","logicalType":"timestamp-micros"}"#;
const NANOS: &str = r#"{"type":"long","logicalType":"timestamp-nanos"}"#;
const LOCAL_MILLIS: &str = r#"{"type":"long","logicalType":"local-timestamp-millis"}"#;
const DATE: &str = r#"{"type":"int","logicalType":"date"}"#;
const TIME_MILLIS: &str = r#"{"type":"int","logicalType":"time-millis"}"#;
const TIME_MICROS: &str = r#"{"type":"long","logicalType":"time-micros"}"#;
const DECIMAL: &str = r#"{"type":"bytes","logicalType":"decimal","precision":4,"scale":2}"#;
const DECIMAL_20: &str = r#"{"type":"fixed","name":"D","size":20,"logicalType":"decimal","precision":38,"scale":2}"#;
const DECIMAL_WIDE: &str = r#"{"type":"bytes","logicalType":"decimal","precision":10,"scale":2}"#;
const DECIMAL_SCALE: &str = r#"{"type":"bytes","logicalType":"decimal","precision":10,"scale":3}"#;
const ENUM: &str = r#"{"type":"enum","name":"E","symbols":["BUY","SELL"]}"#;

#[test]
fn numbers_are_widened() {
    let cases = [
        (r#""int""#, r#""int""#, vec![3], "-2"),
        (r#""long""#, r#""int""#, vec![3], "-2"),
        (r#""float""#, r#""int""#, vec![3], "-2.0"),
        (r#""double""#, r#""int""#, vec![3], "-2.0"),
        (r#""float""#, r#""long""#, vec![4], "2.0"),
        (r#""double""#, r#""long""#, long(i64::MIN), "-9.223372036854775808e18"),
        (r#""double""#, r#""float""#, 1.5f32.to_le_bytes().to_vec(), "1.5"),
        (r#""string""#, r#""bytes""#, text("ü"), "\"ü\""),
        (r#""bytes""#, r#""string""#, text("a"), "[61]"),
        (r#""string""#, ENUM, vec![2], "\"SELL\""),
        (r#""string""#, UUID, text("x"), "\"x\""),
        (r#"["null","long"]"#, r#""int""#, vec![3], "-2"),
        (r#"["null","long"]"#, r#"["int","null"]"#, vec![0, 3], "-2"),
        (r#"["null","long"]"#, r#"["int","null"]"#, vec![2], "null"),
        (r#""long""#, r#"["long"]"#, vec![0, 3], "-2"),
        (r#"["null","int"]"#, r#"["null","int"]"#, vec![0], "null"),
    ];
    for (reader, writer, body, expected) in cases {
        let got = read(reader, writer, &body);
        let expected = expected.replace("-9.223372036854775808e18", "-9.223372036854776e18");
        assert_eq!(got.as_deref(), Ok(expected.as_str()), "{writer} as {reader}");
    }
}

#[test]
fn logical_types_are_scaled_to_the_column() {
    let day = 86_400_000;
    let cases = [
        (MICROS, MILLIS, long(-5), Ok("-5000 usZ")),
        (MICROS, MICROS, long(i64::MIN), Ok("-9223372036854775808 usZ")),
        (MILLIS, MILLIS, long(i64::MAX / 1000), Ok("9223372036854775000 usZ")),
        (MILLIS, MILLIS, long(i64::MAX / 1000 + 1), Err("out_of_range")),
        (MILLIS, MILLIS, long(i64::MIN), Err("out_of_range")),
        (NANOS, MILLIS, long(5), Ok("5000000 nsZ")),
        (NANOS, MICROS, long(5), Ok("5000 nsZ")),
        (NANOS, NANOS, long(5), Ok("5 nsZ")),
        (LOCAL_MILLIS, LOCAL_MILLIS, long(5), Ok("5000 us")),
        (LOCAL_MILLIS, DATE, long(-1), Ok("-86400000000 us")),
        (LOCAL_MILLIS, DATE, long(106_751_991), Ok("9223372022400000000 us")),
        (LOCAL_MILLIS, DATE, long(106_751_992), Err("out_of_range")),
        (TIME_MILLIS, TIME_MILLIS, long(day - 1), Ok("86399999000 us")),
        (TIME_MICROS, TIME_MILLIS, long(day), Err("out_of_range")),
        (TIME_MICROS, TIME_MICROS, long(-1), Err("out_of_range")),
        (TIME_MILLIS, TIME_MICROS, long(day * 1000 - 1), Ok("86399999999 us")),
        (
            r#"{"type":"int","logicalType":"date"}"#,
            r#"{"type":"int","logicalType":"date"}"#,
            long(-719_162),
            Ok("day -719162"),
        ),
    ];
    for (reader, writer, body, expected) in cases {
        let got = read(reader, writer, &body);
        assert_eq!(got.as_deref().map_err(String::as_str), expected, "{writer} as {reader}");
    }
}

#[test]
fn decimals_extend_their_sign_and_keep_their_precision() {
    let bytes = |bytes: &[u8]| [&long(bytes.len() as i64)[..], bytes].concat();
    let mut twenty = [0xff; 20];
    twenty[19] = 0x85;
    let mut overflow = [0u8; 20];
    overflow[4] = 0x80;
    type Case<'a> = (&'a str, &'a str, Vec<u8>, Result<&'a str, &'a str>);
    let cases: [Case<'_>; 12] = [
        (DECIMAL, DECIMAL, bytes(&[0x7b]), Ok("123e-2")),
        (DECIMAL, DECIMAL, bytes(&[0x85]), Ok("-123e-2")),
        (DECIMAL, DECIMAL, bytes(&[0xff, 0xff, 0x85]), Ok("-123e-2")),
        (DECIMAL, DECIMAL, bytes(&[0x00, 0xff]), Ok("255e-2")),
        (DECIMAL, DECIMAL, bytes(&[0x27, 0x0f]), Ok("9999e-2")),
        (DECIMAL, DECIMAL, bytes(&[0x27, 0x10]), Err("decimal_precision")),
        (DECIMAL, DECIMAL, bytes(&[0xd8, 0xf0]), Err("decimal_precision")),
        (DECIMAL, DECIMAL, bytes(&[]), Err("bad_length")),
        (DECIMAL_WIDE, DECIMAL, bytes(&[0x01, 0x00]), Ok("256e-2")),
        (DECIMAL_20, DECIMAL_20, twenty.to_vec(), Ok("-123e-2")),
        (DECIMAL_20, DECIMAL_20, overflow.to_vec(), Err("decimal_precision")),
        (DECIMAL_20, DECIMAL_20, [&[1][..], &[0; 19]].concat(), Err("decimal_precision")),
    ];
    for (reader, writer, body, expected) in cases {
        let got = read(reader, writer, &body);
        assert_eq!(got.as_deref().map_err(String::as_str), expected, "{body:02x?} of {writer} as {reader}");
    }
}

#[test]
fn uuids_are_sixteen_bytes_from_text_or_bytes() {
    let bytes: Vec<u8> = (0..16).map(|i| i * 0x11).collect();
    let rendered = format!("{bytes:02x?}");
    let written = text("00112233-4455-6677-8899-AABBCCDDEEFF");
    assert_eq!(read(UUID, UUID, &written).as_deref(), Ok(rendered.as_str()));
    assert_eq!(read(UUID_BYTES, UUID_BYTES, &bytes).as_deref(), Ok(rendered.as_str()));
    assert_eq!(read(UUID, UUID_BYTES, &bytes).as_deref(), Ok(rendered.as_str()));
    assert_eq!(read(UUID, UUID, &text("0011")), Err("bad_uuid".into()));
}

#[test]
fn what_avro_does_not_resolve_is_refused_with_both_types() {
    let list = |items: &str| format!(r#"{{"type":"array","items":{items}}}"#);
    let cases = [
        (r#""int""#.to_string(), r#""long""#.to_string(), "field `f`: long cannot be read as the column's int"),
        (r#""float""#.into(), r#""double""#.into(), "double cannot be read as the column's float"),
        (r#""string""#.into(), r#""int""#.into(), "int cannot be read as the column's string"),
        (MICROS.into(), r#""long""#.into(), "long cannot be read as the column's timestamptz"),
        (r#""long""#.into(), MILLIS.into(), "timestamp-millis cannot be read as the column's long"),
        (MICROS.into(), LOCAL_MILLIS.into(), "local-timestamp-millis cannot be read as the column's timestamptz"),
        (MICROS.into(), NANOS.into(), "timestamp-nanos cannot be read as the column's timestamptz"),
        (DECIMAL_WIDE.into(), DECIMAL_SCALE.into(), "decimal(10, 3) cannot be read as the column's decimal(10, 2)"),
        (DECIMAL.into(), DECIMAL_WIDE.into(), "decimal(10, 2) cannot be read as the column's decimal(4, 2)"),
        (r#""long""#.into(), r#"["null","long"]"#.into(), "field `f` may be null, and its column is required"),
        (r#""long""#.into(), r#"["int","long"]"#.into(), "union of int, long cannot be read"),
        (list(r#""int""#), list(r#""string""#), "field `f.element`: string cannot be read as the column's int"),
        (list(r#""int""#), list(r#"["null","int"]"#), "field `f.element` may be null"),
    ];
    for (reader, writer, message) in cases {
        let refused = read(&reader, &writer, &[]).unwrap_err();
        assert!(
            refused.starts_with("value schema 1: ") && refused.contains(message),
            "{writer} as {reader}: {refused}"
        );
    }
}

#[test]
fn nested_values_are_read_at_every_depth() {
    let line = r#"{"type":"record","name":"L","fields":[{"name":"q","type":"int"},{"name":"tags","type":{"type":"map","values":["null","string"]}}]}"#;
    let list = format!(r#"["null",{{"type":"array","items":["null",{line}]}}]"#);
    // Two blocks, the second with its size: {1, {}}, null; {2, {a: "x", b: null}}.
    let entry = [&[2][..], &[4], &[4], &text("a"), &[2], &text("x"), &text("b"), &[0], &[0]].concat();
    let body = [&[2][..], &[4], &[2, 2, 0], &[0], &[1], &long(entry.len() as i64), &entry, &[0]].concat();
    assert_eq!(read(&list, &list, &body).as_deref(), Ok(r#"[{1 <>} null {2 <{"a" "x"} {"b" null}>}]"#));
    assert_eq!(read(&list, &list, &[0]).as_deref(), Ok("null"));
    assert_eq!(read(&list, &list, &[2, 0]).as_deref(), Ok("[]"));
}

#[test]
fn a_second_schema_version_is_read_into_the_same_columns() {
    let v1 = record(
        r#"{"name":"id","type":"long"},{"name":"price","type":"double"},
           {"name":"info","type":{"type":"record","name":"I","fields":[{"name":"a","type":"long"},{"name":"b","type":["null","string"]}]}},
           {"name":"note","type":["null","string"]}"#,
    );
    // Reordered and narrower, without note and info.b, with fields that the table does not know.
    let v2 = record(
        r#"{"name":"gone","type":{"type":"array","items":["int",{"type":"map","values":"null"},{"type":"enum","name":"E","symbols":["A"]}]}},
           {"name":"info","type":{"type":"record","name":"I","fields":[{"name":"c","type":"string"},{"name":"a","type":"int"}]}},
           {"name":"price","type":"float"},{"name":"id","type":"int"}"#,
    );
    let mut decoder = decoder(&v1, &upsert(&["id"]));
    decoder.add_value_schema(2, &v2).unwrap();
    assert_eq!(decoder.unknown_fields(2), ["gone", "info.c"]);
    assert!(decoder.unknown_fields(1).is_empty() && decoder.unknown_fields(3).is_empty());
    let first = [long(1), 2.5f64.to_le_bytes().to_vec(), long(7), vec![2], text("b"), vec![2], text("n")].concat();
    let gone = [&[6][..], &[0, 8], &[2, 2], &text("k"), &[0], &[4, 0], &[0]].concat();
    let second = [gone, text("c"), long(8), 1.5f32.to_le_bytes().to_vec(), long(2)].concat();
    for (offset, id) in [1, 2, 2, 1, 2].into_iter().enumerate() {
        let body = if id == 1 { &first } else { &second };
        assert_eq!(push(&mut decoder, offset as i64, None, Some(&wire(id, body))), Pushed::Row);
    }
    let of = |id| if id == 1 { r#"1 2.5 {7 "b"} "n""# } else { "2 1.5 {8 null} null" };
    assert_eq!(rows(&decoder.finish().unwrap().batch), [1, 2, 2, 1, 2].map(of));
}

#[test]
fn a_writer_without_a_required_column_is_refused() {
    let mut decoder = decoder(&record(r#"{"name":"id","type":"long"},{"name":"x","type":"int"}"#), &upsert(&["id"]));
    let refused = decoder.add_value_schema(2, &record(r#"{"name":"id","type":"long"}"#)).unwrap_err().to_string();
    assert_eq!(refused, "value schema 2: column `x` is required, and the schema has no such field");
    assert_eq!(push(&mut decoder, 0, None, Some(&wire(2, &[2]))), Pushed::NeedsSchema { id: 2, of: Half::Value });
}

#[test]
fn batches_have_exactly_the_tables_arrow_schema() {
    let shape = EventShape { lineage: Some("_kafka".into()), ..upsert(&["f"]) };
    let mut decoder = decoder(
        &record(&format!(
            r#"{{"name":"f","type":"long"}},{{"name":"m","type":["null",{{"type":"map","values":{MILLIS}}}]}},{{"name":"d","type":{DECIMAL}}}"#
        )),
        &shape,
    );
    let body = [vec![2, 2, 2], text("k"), long(1), vec![0], vec![2, 5]].concat();
    assert_eq!(push_body(&mut decoder, &body), Pushed::Row);
    assert!(decoder.bytes() > 0 && decoder.rows() == 1 && decoder.events() == 1);
    let batch = decoder.finish().unwrap().batch;
    batch.columns().iter().for_each(|c| c.to_data().validate_full().unwrap());
    assert_eq!(batch.schema().field(0).metadata().get("PARQUET:field_id").map(String::as_str), Some("1"));
    assert_eq!(rows(&batch), [r#"1 <{"k" 1000 usZ}> 5e-2 {"trades" 3 0 1000000 usZ}"#]);
}

//! Defaults of fields: on tables of Iceberg v3 they are what a column is in records that do not have it.

use super::*;
use crate::core::schema::{Constant, TableFormat, Type, evolve};

const ID: &str = r#"{"name":"id","type":"long"}"#;

/// A type, its default in JSON, the constant of its column, and how a row shows it.
fn cases() -> Vec<(&'static str, &'static str, Constant, &'static str)> {
    let bytes = |bytes: &[u8]| Constant::Bytes(bytes.to_vec());
    vec![
        (r#""boolean""#, "true", Constant::Boolean(true), "true"),
        (r#""int""#, "-5", Constant::Int(-5), "-5"),
        (r#""long""#, "9223372036854775807", Constant::Long(i64::MAX), "9223372036854775807"),
        (r#""float""#, "0.5", Constant::Float(0.5f32.to_bits()), "0.5"),
        (r#""double""#, "-0.0", Constant::Double((-0.0f64).to_bits()), "-0.0"),
        (r#""string""#, r#""\u00e4\"""#, Constant::String("ä\"".into()), r#""ä\"""#),
        (r#""bytes""#, r#""\u0000\u00ff""#, bytes(&[0, 255]), "[00, ff]"),
        (r#"{"type":"fixed","name":"F","size":2}"#, r#""ab""#, bytes(b"ab"), "[61, 62]"),
        (r#"{"type":"enum","name":"E","symbols":["A","B"]}"#, r#""B""#, Constant::String("B".into()), r#""B""#),
        (
            r#"{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}"#,
            r#""\u00ff""#,
            Constant::Decimal(-1),
            "-1e-2",
        ),
        (r#"{"type":"int","logicalType":"date"}"#, "-719162", Constant::Int(-719_162), "day -719162"),
        (r#"{"type":"int","logicalType":"time-millis"}"#, "7", Constant::Long(7_000), "7000 us"),
        (r#"{"type":"long","logicalType":"timestamp-millis"}"#, "-1", Constant::Long(-1000), "-1000 usZ"),
        (r#"{"type":"long","logicalType":"local-timestamp-micros"}"#, "5", Constant::Long(5), "5 us"),
        (
            r#"{"type":"string","logicalType":"uuid"}"#,
            r#""00000000-0000-0000-0000-000000000001""#,
            bytes(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
            "[00, 00, 00, 00, 00, 00, 00, 00, 00, 00, 00, 00, 00, 00, 00, 01]",
        ),
    ]
}

fn with(field: &str) -> String {
    record(&format!("{ID},{field}"))
}

#[test]
fn a_record_without_a_field_has_its_default_on_v3_and_null_elsewhere() {
    for (kind, json, constant, shown) in cases() {
        for kind in [kind.to_owned(), format!(r#"[{kind},"null"]"#), format!(r#"["null",{kind}]"#)] {
            let newer = with(&format!(r#"{{"name":"f","type":{kind},"default":{json}}}"#));
            let table = table_schema(&newer, None, &append(), 3).unwrap();
            assert_eq!(table.fields[1].write_default, Some(constant.clone()), "{kind}");
            let older = table_schema(&record(ID), None, &append(), 3).unwrap();
            let grown = evolve(&older, &table, &[TableFormat::IcebergV3], 9).schema;
            assert_eq!(grown.fields[1].initial_default, Some(constant.clone()));
            let mut decoder = Decoder::new(&grown, &append(), encode()).unwrap();
            decoder.add_value_schema(1, &record(ID)).unwrap();
            decoder.add_value_schema(2, &newer).unwrap();
            assert_eq!(push(&mut decoder, 0, None, Some(&wire(1, &long(1)))), Pushed::Row);
            assert_eq!(rows(&decoder.finish().unwrap().batch), [format!("1 {shown}")]);

            for (version, formats) in
                [(2, &[TableFormat::IcebergV2][..]), (3, &[TableFormat::IcebergV3, TableFormat::Delta])]
            {
                let wanted = table_schema(&newer, None, &append(), version).unwrap();
                let grown = evolve(&older, &wanted, formats, 9).schema;
                assert_eq!((&grown.fields[1].initial_default, &grown.fields[1].write_default), (&None, &None));
                let mut decoder = Decoder::new(&grown, &append(), encode()).unwrap();
                decoder.add_value_schema(1, &record(ID)).unwrap();
                assert_eq!(push(&mut decoder, 0, None, Some(&wire(1, &long(1)))), Pushed::Row);
                assert_eq!(rows(&decoder.finish().unwrap().batch), ["1 null"]);
            }
        }
    }
}

#[test]
fn what_is_no_constant_of_its_type_is_no_default() {
    let cases = [
        (r#"["null","int"]"#, "null"),
        (r#""int""#, r#""5""#),
        (r#""int""#, "2147483648"),
        (r#""bytes""#, r#""\u0100""#),
        (r#"{"type":"fixed","name":"F","size":2}"#, r#""abc""#),
        (r#"{"type":"enum","name":"E","symbols":["A"]}"#, r#""B""#),
        (r#"{"type":"int","logicalType":"date"}"#, "2932897"),
        (r#"{"type":"int","logicalType":"time-millis"}"#, "86400000"),
        (r#"{"type":"long","logicalType":"timestamp-nanos"}"#, "1"),
        (r#"{"type":"array","items":"int"}"#, "[]"),
        (r#"{"type":"map","values":"int"}"#, "{}"),
        (r#"["int","string"]"#, "1"),
        (r#"{"type":"record","name":"S","fields":[{"name":"a","type":"int"}]}"#, r#"{"a":1}"#),
    ];
    for (kind, json) in cases {
        let schema = with(&format!(r#"{{"name":"f","type":{kind},"default":{json}}}"#));
        let table = table_schema(&schema, None, &append(), 3).unwrap();
        assert_eq!(table.fields[1].write_default, None, "{kind} {json}");
    }
}

#[test]
fn defaults_are_filled_at_every_depth_and_where_an_alias_names_the_column() {
    let inner = |more: &str| format!(r#"{{"type":"record","name":"S","fields":[{{"name":"a","type":"int"}}{more}]}}"#);
    let list = |more: &str| {
        with(&format!(
            r#"{{"name":"l","type":{{"type":"array","items":{}}}}},{{"name":"new","aliases":["old"],"type":"int","default":7}}"#,
            inner(more)
        ))
    };
    let newer = list(r#",{"name":"b","type":"string","default":"x"}"#);
    let table = table_schema(&newer, None, &append(), 3).unwrap();
    let Type::List(element) = &table.fields[1].kind else { panic!() };
    let Type::Struct(fields) = &element.kind else { panic!() };
    assert!(fields[1].required && fields[1].write_default == Some(Constant::String("x".into())));
    let mut decoder = Decoder::new(&table, &append(), encode()).unwrap();
    decoder.add_value_schema(1, &list("").replace(r#""name":"new","aliases":["old"]"#, r#""name":"other""#)).unwrap();
    decoder.add_value_schema(2, &list("").replace(r#""name":"new","aliases":["old"]"#, r#""name":"new""#)).unwrap();
    let body = [long(1), vec![4, 2, 4, 0], long(9)].concat();
    assert_eq!(push(&mut decoder, 0, None, Some(&wire(1, &body))), Pushed::Row);
    assert_eq!(push(&mut decoder, 1, None, Some(&wire(2, &body))), Pushed::Row);
    let expected = [r#"1 [{1 "x"} {2 "x"}] 7"#, r#"1 [{1 "x"} {2 "x"}] 9"#];
    assert_eq!(rows(&decoder.finish().unwrap().batch), expected);
}

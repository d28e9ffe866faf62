//! Unions of more than null and one type, durations, and what is only null.

use super::*;
use crate::core::schema::TableSchema;

fn union(branches: &str) -> String {
    record(&format!(r#"{{"name":"u","type":{branches}}}"#))
}

/// A decoder for the table of schema 1 that knows schema 2 too.
fn with_older(table: &str, older: &str) -> Result<Decoder, crate::Error> {
    let mut decoder = decoder(table, &append());
    decoder.add_value_schema(2, older).map(|()| decoder)
}

fn push_as(decoder: &mut Decoder, id: u32, body: &[u8]) -> Pushed {
    let offset = decoder.events() as i64;
    push(decoder, offset, None, Some(&wire(id, body)))
}

/// The rows of schema 1 after records of schema 2.
fn read_older(table: &str, older: &str, bodies: &[Vec<u8>]) -> Vec<String> {
    let mut decoder = with_older(&union(table), &union(older)).unwrap();
    for body in bodies {
        assert_eq!(push_as(&mut decoder, 2, body), Pushed::Row, "{table} from {older}");
    }
    rows(&decoder.finish().unwrap().batch)
}

#[test]
fn each_branch_fills_its_field_and_names_itself() {
    let schema = union(
        r#"["int","null",{"type":"record","name":"x.P","fields":[{"name":"a","type":"string"},{"name":"b","type":["null","int"]}]},
            {"type":"array","items":["long","boolean"]},{"type":"record","name":"Gone","fields":[{"name":"n","type":["null"]}]}]"#,
    );
    let mut decoder = decoder(&schema, &append());
    let bodies: [&[u8]; 5] =
        [&[0, 84], &[2], &[&[4], &text("x")[..], &[2, 10]].concat(), &[6, 4, 0, 8, 2, 1, 0], &[8, 0]];
    for body in bodies {
        assert_eq!(push_body(&mut decoder, body), Pushed::Row);
        // A record that stops inside of the union leaves nothing behind.
        let cut = push_body(&mut decoder, &body[..body.len() - 1]);
        assert!(matches!(cut, Pushed::Bad(_)), "{cut:?}");
    }
    for body in [&[10, 0][..], &[1, 0], &[3, 0], &[&[0xff; 9][..], &[1, 0]].concat()] {
        assert_eq!(reason(&push_body(&mut decoder, body)), Some(Reason::UnionBranch), "{body:02x?}");
    }
    let batch = decoder.finish().unwrap().batch;
    batch.columns().iter().for_each(|c| c.to_data().validate_full().unwrap());
    let expected = [
        r#"{"int" 42 null null}"#,
        "null",
        r#"{"P" null {"x" 5} null}"#,
        r#"{"array" null null [{"long" 4 null} {"boolean" null true}]}"#,
        r#"{"Gone" null null null}"#,
    ];
    assert_eq!(rows(&batch), expected);
}

#[test]
fn writers_with_other_branches_another_order_or_one_type_fill_the_right_branch() {
    let table = r#"["null","string","long",{"type":"record","name":"P","fields":[{"name":"a","type":"int"}]}]"#;
    let p = r#"{"type":"record","name":"other.P","fields":[{"name":"a","type":"int"}]}"#;
    let string = [&[0][..], &text("s")].concat();
    assert_eq!(
        read_older(table, &format!(r#"[{p},"long"]"#), &[vec![0, 8], vec![2, 6]]),
        [r#"{"P" null null {4}}"#, r#"{"long" null 3 null}"#]
    );
    assert_eq!(read_older(table, r#"["string","null"]"#, &[string, vec![2]]), [r#"{"string" "s" null null}"#, "null"]);
    assert_eq!(read_older(table, p, &[vec![8]]), [r#"{"P" null null {4}}"#]);
    assert_eq!(read_older(table, r#""null""#, &[vec![]]), ["null"]);
    // A narrower number is the first wider branch that there is; text and bytes become each other.
    assert_eq!(read_older(table, r#"["null","int"]"#, &[vec![2, 6]]), [r#"{"long" null 3 null}"#]);
    assert_eq!(
        read_older(table, r#"["bytes","long"]"#, &[[&[0][..], &text("b")].concat()]),
        [r#"{"string" "b" null null}"#]
    );
    let refused = [
        (r#"{"type":"record","name":"Q","fields":[{"name":"a","type":"int"}]}"#, "its type Q is no branch"),
        (r#"["boolean","long"]"#, "its type boolean is no branch of the column's union, which has string, long, P"),
        (r#"["string","string"]"#, "two branches of its union are named `string`"),
        (
            r#"{"type":"record","name":"P","fields":[{"name":"a","type":"string"}]}"#,
            "field `u.P.a`: string cannot be read",
        ),
    ];
    for (older, message) in refused {
        let error = with_older(&union(table), &union(older)).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    let error = with_older(&union(r#"["int","long"]"#), &union(r#"["null","int"]"#)).unwrap_err().to_string();
    assert!(error.contains("may be null, and its column is required"), "{error}");
    let error = with_older(&union(r#""int""#), &union(r#"["int","long"]"#)).unwrap_err().to_string();
    assert!(error.contains("field `u`: union of int, long cannot be read as the column's int"), "{error}");
}

#[test]
fn unions_are_no_keys_and_decide_no_order_and_no_deletes() {
    let schema = union(r#"["int","string"]"#);
    let shapes = [
        upsert(&["u"]),
        EventShape { order_by: Some("u".into()), key: Some(vec!["id".into()]), ..upsert(&[]) },
        EventShape {
            delete: DeleteBy::Field { field: "u".into(), values: vec!["1".into()] },
            key: Some(vec!["id".into()]),
            ..upsert(&[])
        },
    ];
    let schema = schema.replace(r#""fields":["#, r#""fields":[{"name":"id","type":"long"},"#);
    for shape in shapes {
        let error = table_schema(&schema, None, &shape, 3).unwrap_err().to_string();
        assert!(error.contains("`u` of type struct<tag: string, int: int, string: string>"), "{error}");
    }
}

#[test]
fn a_duration_is_three_numbers_without_a_sign() {
    let schema = union(r#"["null",{"type":"fixed","name":"D","size":12,"logicalType":"duration"}]"#);
    let mut decoder = decoder(&schema, &append());
    let most = [&[2][..], &[0xff; 12]].concat();
    let some: Vec<u8> = [2].into_iter().chain([1u32, 2, 3].iter().flat_map(|n| n.to_le_bytes())).collect();
    for body in [&[0][..], &most, &some] {
        assert_eq!(push_body(&mut decoder, body), Pushed::Row);
    }
    assert_eq!(reason(&push_body(&mut decoder, &some[..12])), Some(Reason::Truncated));
    let expected = ["null", "{4294967295 4294967295 4294967295}", "{1 2 3}"];
    assert_eq!(rows(&decoder.finish().unwrap().batch), expected);
}

#[test]
fn a_field_that_is_only_null_has_no_column_and_leaves_one_null() {
    let schema = record(r#"{"name":"a","type":"int"},{"name":"n","type":"null"},{"name":"m","type":["null"]}"#);
    let mut decoder = decoder(&schema, &append());
    assert_eq!(push_body(&mut decoder, &[2, 0]), Pushed::Row);
    assert_eq!(reason(&push_body(&mut decoder, &[2, 2])), Some(Reason::UnionBranch));
    assert!(decoder.unknown_fields(1).is_empty());
    assert_eq!(rows(&decoder.finish().unwrap().batch), ["1"]);
    let table: TableSchema = table_schema(&schema, None, &append(), 2).unwrap();
    assert_eq!(table.fields.len(), 1);
}

//! Protobuf values, over the public face of the decoder.

use std::path::Path;

use arrow::json::LineDelimitedWriter;
use serde_json::Value;

use crate::avro::tests::{append, encode, push, render, wire};
use crate::avro::{Decoder, EventShape, Pushed, SchemaKind, SchemaText, Types, ValueSchema};
use crate::core::schema::Field;

fn parse_with(schema: &str, imports: &[(&str, &str)]) -> Result<ValueSchema, String> {
    let imports = imports.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    let text = SchemaText { imports, ..SchemaText::new(SchemaKind::Protobuf, schema) };
    ValueSchema::parse(&text).map_err(|e| e.to_string())
}

fn parse(schema: &str) -> Result<ValueSchema, String> {
    parse_with(schema, &[])
}

fn decoder(schema: &ValueSchema, shape: &EventShape) -> Decoder {
    let table = schema.table_schema(None, shape, 2).unwrap();
    let mut decoder = Decoder::new(&table, shape, encode()).unwrap();
    decoder.add_values(1, &std::sync::Arc::new(schema.clone())).unwrap();
    decoder
}

/// The columns of a schema, as `name type`, `!` where required.
fn columns_of(schema: &ValueSchema, types: Types) -> Result<String, String> {
    let shape = EventShape { types, ..append() };
    let table = schema.table_schema(None, &shape, 2).map_err(|e| e.to_string())?;
    let shown = |f: &Field| format!("{} {}{}", f.name, f.kind, if f.required { "!" } else { "" });
    Ok(table.fields.iter().map(shown).collect::<Vec<_>>().join(", "))
}

fn columns(fields: &str) -> Result<String, String> {
    let text = format!("syntax = \"proto3\"; import \"google/protobuf/timestamp.proto\"; message M {{ {fields} }}");
    columns_of(&parse(&text)?, Types::Any)
}

fn tag(number: u64, wire: u64) -> Vec<u8> {
    varint(number << 3 | wire)
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn bytes(number: u64, content: &[u8]) -> Vec<u8> {
    [tag(number, 2), varint(content.len() as u64), content.to_vec()].concat()
}

fn golden(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/protobuf").join(file);
    std::fs::read_to_string(path).unwrap()
}

/// A body behind the shortcut for the first message.
fn first(body: &[u8]) -> Vec<u8> {
    wire(1, &[&[0][..], body].concat())
}

#[test]
fn messages_of_another_serializer_are_read_as_it_means_them() {
    let schema = parse(&golden("every.proto")).unwrap();
    let mut decoder = decoder(&schema, &append());
    let mut expected = Vec::new();
    for (offset, line) in golden("messages.txt").lines().enumerate() {
        let (body, row) = line.split_once(' ').unwrap();
        let body: Vec<u8> =
            (0..body.len() / 2).map(|i| u8::from_str_radix(&body[2 * i..2 * i + 2], 16).unwrap()).collect();
        assert_eq!(push(&mut decoder, offset as i64, None, Some(&first(&body))), Pushed::Row, "{row}");
        expected.push(serde_json::from_str::<Value>(row).unwrap());
        // Whatever is cut off of it, or changed in it, costs that record at most.
        for at in (0..body.len()).step_by(3) {
            push(&mut decoder, offset as i64, None, Some(&first(&body[..at])));
            let mut changed = body.clone();
            changed[at] ^= 0xff;
            push(&mut decoder, offset as i64, None, Some(&first(&changed)));
        }
        let batch = decoder.finish().unwrap().batch.slice(0, 1);
        let mut lines = LineDelimitedWriter::new(Vec::new());
        lines.write(&batch).unwrap();
        lines.finish().unwrap();
        let read: Value = serde_json::from_slice(&lines.into_inner()).unwrap();
        assert_eq!(read, expected[offset], "message {offset}");
    }
    assert_eq!(expected.len(), 100);
}

#[test]
fn fields_become_columns() {
    for (fields, expected) in [
        ("int32 a = 1; sint64 b = 2; uint32 c = 3; fixed64 d = 4;", "a int!, b long!, c long!, d long!"),
        ("optional bool a = 2; string b = 1;", "a boolean, b string!"),
        ("repeated string a = 1; map<int32, double> b = 2;", "a list<string>!, b map<string, double>!"),
        ("oneof o { string a = 1; bytes b = 2; }", "a string, b binary"),
        ("google.protobuf.Timestamp at = 1;", "at timestamptz"),
        ("message In { float x = 1; } In a = 1;", "a struct<x: float>"),
        ("enum E { Z = 0; } E a = 1;", "a string!"),
    ] {
        assert_eq!(columns(fields).unwrap(), expected, "{fields}");
    }
    let proto2 = "syntax = \"proto2\"; message M { required int32 a = 1; optional string b = 2 [default = \"x\"]; }";
    assert_eq!(columns_of(&parse(proto2).unwrap(), Types::Any).unwrap(), "a int!, b string");
}

#[test]
fn what_has_no_column_type_is_refused_with_its_path() {
    for (fields, expected) in [
        ("M a = 1;", "field `a`: message M contains itself"),
        ("message In { repeated M a = 1; } In b = 1;", "field `b.a`: message M contains itself"),
        ("message In { } In b = 1;", "field `b`: a record without fields"),
    ] {
        let said = columns(fields).unwrap_err();
        assert!(said.contains(expected), "{said}");
    }
    let grouped = "syntax = \"proto2\"; message M { optional group G = 1 { optional int32 a = 1; } }";
    assert!(columns_of(&parse(grouped).unwrap(), Types::Any).unwrap_err().contains("a group has no column type"));
    let structs =
        "syntax = \"proto3\"; import \"google/protobuf/struct.proto\"; message M { google.protobuf.Struct s = 1; }";
    assert!(columns_of(&parse(structs).unwrap(), Types::Any).unwrap_err().contains("contains itself"));
    for (text, expected) in [
        ("message", "the schema is not protobuf"),
        ("syntax = \"proto3\"; message M { int32 a = 019; }", "its parser gave up on it"),
        ("syntax = \"proto3\"; import \"other.proto\";", "other.proto"),
        ("syntax = \"proto3\";", "defines no message"),
    ] {
        let said = parse(text).unwrap_err();
        assert!(said.contains(expected), "{said}");
    }
}

/// INV-18
#[test]
fn hostile_schemas_are_refused_in_bounded_time() {
    let nested = format!("syntax = \"proto3\"; {}int32 a = 1;{}", "message M {".repeat(10_000), "}".repeat(10_000));
    assert!(parse(&nested).unwrap_err().contains("nested more than 64 deep"));
    let options =
        format!("syntax = \"proto3\"; message M {{ option (a) = {}{}; }}", "{a:[".repeat(10_000), "]}".repeat(10_000));
    assert!(parse(&options).unwrap_err().contains("nested more than 64 deep"));
    let doubling: String = (0..30).map(|n| format!("message M{n} {{ M{0} a = 1; M{0} b = 2; }} ", n + 1)).collect();
    let doubling = format!("syntax = \"proto3\"; {doubling} message M30 {{ int32 x = 1; }}");
    let said = columns_of(&parse(&doubling).unwrap(), Types::Any).unwrap_err();
    assert!(said.contains("more than 20000 types"), "{said}");
    assert!(parse(&"x".repeat(5 << 20)).unwrap_err().contains("the limit is"));
}

#[test]
fn imports_come_from_references_and_the_well_known_types_are_there() {
    let schema = "syntax = \"proto3\"; package a; import \"shop/money.proto\"; import \"confluent/meta.proto\";
        message Order { shop.Money total = 1; int32 id = 2 [(confluent.field_meta).doc = \"x\"]; }";
    let money = "syntax = \"proto3\"; package shop; import \"shop/unit.proto\"; message Money { int64 cents = 1; Unit unit = 2; }";
    let unit = "syntax = \"proto3\"; package shop; enum Unit { EUR = 0; USD = 1; }";
    let read = parse_with(schema, &[("shop/money.proto", money), ("shop/unit.proto", unit)]).unwrap();
    assert_eq!(columns_of(&read, Types::Any).unwrap(), "total struct<cents: long, unit: string>, id int!");
}

const SEVERAL: &str = "syntax = \"proto3\"; package a; message One { int32 x = 1; message Deep { string s = 1; } }
    message Two { map<string, string> m = 2; bool y = 1; message In { int64 z = 1; } } message Bad { Bad b = 1; }";

#[test]
fn the_message_index_says_the_type() {
    let schema = parse(SEVERAL).unwrap();
    let names: Vec<_> = schema.names().map(|name| &**name).collect();
    assert_eq!(names, ["a.One", "a.Two", "a.Bad", "a.One.Deep", "a.Two.In"]);
    let read = |name: &str, index: &[u8], body: &[u8]| {
        let shape = EventShape { types: Types::One(name.into()), ..append() };
        let mut decoder = decoder(&schema, &shape);
        match push(&mut decoder, 0, None, Some(&wire(1, &[index, body].concat()))) {
            Pushed::Row => render(decoder.finish().unwrap().batch.column(0), 0),
            Pushed::Bad(bad) => bad.reason.code().to_owned(),
            other => panic!("{other:?}"),
        }
    };
    // A count, then the numbers from the outermost message inwards, all of them zig-zag; or 0 for the first message.
    assert_eq!(read("a.One", &[0], &[8, 7]), "7");
    assert_eq!(read("a.One", &[2, 0], &[8, 7]), "7");
    assert_eq!(read("a.Two.In", &[4, 2, 0], &[8, 7]), "7");
    assert_eq!(read("a.One.Deep", &[4, 0, 0], &[10, 1, b'x']), "\"x\"");
    for index in [&[2, 2][..], &[2, 8], &[4, 0, 2], &[1], &[2], &[0xff; 11], &[200, 1], &[]] {
        let said = read("a.One", index, &[]);
        assert!(["bad_union_branch", "truncated", "bad_varint"].contains(&said.as_str()), "{index:?}: {said}");
    }
    let bad = schema.table_schema(None, &EventShape { types: Types::One("a.Bad".into()), ..append() }, 2).unwrap_err();
    assert!(bad.to_string().contains("contains itself"), "{bad}");
}

const SMALL: &str =
    "syntax = \"proto3\"; message M { int32 a = 1; uint64 b = 2; string c = 3; repeated fixed32 d = 4; In e = 5;
    map<string, int32> f = 6; oneof o { int32 g = 7; In h = 8; } In i = 9; map<string, In> j = 10; message In { int32 x = 1; int32 y = 2; } }";

/// What a body of `SMALL` becomes: a column of its row, or the reason and field of a bad record.
fn read(body: &[u8], column: &str) -> String {
    let mut decoder = decoder(&parse(SMALL).unwrap(), &append());
    assert_eq!(push(&mut decoder, 0, None, Some(&first(&[8, 1]))), Pushed::Row);
    let pushed = push(&mut decoder, 1, None, Some(&first(body)));
    assert_eq!(push(&mut decoder, 2, None, Some(&first(&[8, 1]))), Pushed::Row);
    let batch = decoder.finish().unwrap().batch;
    let last = batch.num_rows() - 1;
    assert_eq!((render(batch.column(0), 0), render(batch.column(0), last)), ("1".into(), "1".into()), "neighbours");
    match pushed {
        Pushed::Row => render(batch.column_by_name(column).unwrap(), 1),
        Pushed::Bad(bad) => format!("{} {}", bad.reason.code(), bad.field.unwrap_or_default()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn values_are_what_the_encoding_says_or_the_record_is_a_bad_one() {
    let int = |number: u64, value: i64| [tag(number, 0), varint(value as u64)].concat();
    let both = |a: Vec<u8>, b: Vec<u8>| [a, b].concat();
    for (body, column, expected) in [
        (vec![], "a", "0"),
        (int(1, -5), "a", "-5"),
        (int(1, i64::from(i32::MAX) + 1), "a", "out_of_range a"),
        (both(int(1, 1), int(1, 2)), "a", "2"),
        (int(2, i64::MAX), "b", "9223372036854775807"),
        (int(2, i64::MIN), "b", "out_of_range b"),
        (bytes(3, b"\xff"), "c", "invalid_utf8 c"),
        (bytes(4, &[1, 0, 0, 0, 2, 0, 0, 0]), "d", "[1 2]"),
        (both(bytes(4, &[1, 0, 0, 0]), [tag(4, 5), vec![9, 0, 0, 0]].concat()), "d", "[1 9]"),
        (bytes(4, &[1, 0, 0]), "d", "truncated d"),
        // The parts of a message are merged.
        (both(bytes(5, &[8, 1, 16, 1]), bytes(5, &[16, 2])), "e", "{1 2}"),
        (both(bytes(5, &[8, 1]), both(bytes(5, &[16, 2]), bytes(5, &[8, 3]))), "e", "{3 2}"),
        (vec![], "e", "null"),
        (bytes(5, &[]), "e", "{0 0}"),
        (bytes(6, &[]), "f", "<{\"\" 0}>"),
        (both(bytes(6, b"\x0a\x01k\x10\x01"), bytes(6, b"\x0a\x01k\x10\x02")), "f", "<{\"k\" 2}>"),
        (bytes(10, b"\x0a\x01k\x12\x02\x08\x01\x12\x02\x10\x02"), "j", "<{\"k\" {1 2}}>"),
        // Of a oneof, the last counts.
        (both(int(7, 1), bytes(8, &[8, 1])), "g", "null"),
        (both(bytes(8, &[8, 1]), int(7, 0)), "g", "0"),
        (both(bytes(8, &[8, 1]), int(7, 0)), "h", "null"),
        (both(bytes(8, &[8, 1]), both(int(7, 0), bytes(8, &[16, 1]))), "h", "{0 1}"),
        // Fields that nobody knows are passed over.
        (both(int(100, 1), both(bytes(101, b"x"), int(1, 4))), "a", "4"),
    ] {
        assert_eq!(read(&body, column), expected, "{body:02x?}");
    }
}

#[test]
fn hostile_bodies_are_bad_records() {
    for (body, expected) in [
        (&[8][..], "truncated"),
        (&[8, 0x80], "truncated"),
        (&[0x80; 20], "bad_varint"),
        (&[8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], "bad_varint"),
        (&[0, 1], "wire_type"),
        (&[0x0b], "wire_type"),
        (&[0x0c], "wire_type"),
        (&[0x0e, 1], "wire_type"),
        (&[0x0f, 1], "wire_type"),
        (&[9, 1, 2, 3, 4, 5, 6, 7, 8], "wire_type a"),
        (&[10, 1, 1], "wire_type a"),
        (&[0x2a, 2, 10, 0], "wire_type e.x"),
        (&[0x2a, 2, 8], "bad_length"),
        (&[0x2a, 1, 8], "truncated e"),
        (&[0x1a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], "bad_length"),
        (&[0x32, 2, 16], "bad_length"),
        (&[0x32, 3, 8, 1, 1], "wire_type f"),
    ] {
        assert_eq!(read(body, "a").trim(), expected, "{body:02x?}");
    }
}

/// INV-18
#[test]
fn a_small_body_cannot_become_a_huge_one() {
    let fields: String = (1..2_000).map(|n| format!("int64 f{n} = {n}; ")).collect();
    let schema = format!("syntax = \"proto3\"; message M {{ repeated In l = 1; message In {{ {fields} }} }}");
    let mut decoder = self::decoder(&parse(&schema).unwrap(), &append());
    let body: Vec<u8> = [0x0a, 0].repeat(1_000_000);
    let pushed = push(&mut decoder, 0, None, Some(&first(&body)));
    assert!(matches!(&pushed, Pushed::Bad(bad) if bad.reason.code() == "too_large"), "{pushed:?}");
    let name = "N".repeat(500);
    let schema = format!("syntax = \"proto3\"; enum E {{ {name} = 0; }} message M {{ repeated E l = 1; }}");
    let mut decoder = self::decoder(&parse(&schema).unwrap(), &append());
    let pushed = push(&mut decoder, 0, None, Some(&first(&bytes(1, &[0; 1_000_000]))));
    assert!(matches!(&pushed, Pushed::Bad(bad) if bad.reason.code() == "too_large"), "{pushed:?}");
}

#[test]
fn times_are_kept_exactly_or_refused() {
    let schema = "syntax = \"proto3\"; import \"google/protobuf/timestamp.proto\"; message M { google.protobuf.Timestamp t = 1; }";
    let mut decoder = self::decoder(&parse(schema).unwrap(), &append());
    let time = |seconds: i64, nanos: i64| {
        let body = [tag(1, 0), varint(seconds as u64), tag(2, 0), varint(nanos as u64)].concat();
        first(&bytes(1, &body))
    };
    assert_eq!(push(&mut decoder, 0, None, Some(&time(-1, 999_999_000))), Pushed::Row);
    assert_eq!(push(&mut decoder, 1, None, Some(&first(&bytes(1, &[])))), Pushed::Row);
    for (seconds, nanos) in [(0, 1_000_000_000), (0, -1_000), (0, 1 << 31), (i64::MAX, 0)] {
        let pushed = push(&mut decoder, 2, None, Some(&time(seconds, nanos)));
        assert!(matches!(&pushed, Pushed::Bad(bad) if bad.reason.code() == "out_of_range"), "{pushed:?}");
    }
    let batch = decoder.finish().unwrap().batch;
    assert_eq!([render(batch.column(0), 0), render(batch.column(0), 1)], ["-1 usZ", "0 usZ"]);
}

//! JSON values, over the public face of the decoder.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::json::ReaderBuilder;
use serde_json::{Value, json};

use crate::Error;
use crate::avro::tests::{append, encode, push, render, rows, upsert, wire};
use crate::avro::{Decoder, EventShape, Pushed, SchemaKind, SchemaText, ValueSchema};
use crate::core::schema::Field;

fn parse(schema: &str) -> Result<ValueSchema, String> {
    parse_with(schema, &[])
}

fn parse_with(schema: &str, imports: &[(&str, &str)]) -> Result<ValueSchema, String> {
    let imports = imports.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    let text = SchemaText { imports, ..SchemaText::new(SchemaKind::Json, schema) };
    ValueSchema::parse(&text).map_err(|e| e.to_string())
}

fn decoder(schema: &ValueSchema, shape: &EventShape) -> Decoder {
    let table = schema.table_schema(None, shape, 2).unwrap();
    let mut decoder = Decoder::new(&table, shape, encode()).unwrap();
    decoder.add_values(1, &Arc::new(schema.clone())).unwrap();
    decoder
}

/// The columns of a schema with these properties, as `name type`, `!` where required.
fn columns(properties: &str, required: &str) -> Result<String, String> {
    let schema = parse(&format!(r#"{{"type":"object","properties":{{{properties}}},"required":[{required}]}}"#))?;
    let table = schema.table_schema(None, &append(), 2).map_err(|e| e.to_string())?;
    let shown = |f: &Field| format!("{} {}{}", f.name, f.kind, if f.required { "!" } else { "" });
    Ok(table.fields.iter().map(shown).collect::<Vec<_>>().join(", "))
}

#[test]
fn properties_become_columns_in_their_order() {
    for (properties, required, expected) in [
        (r#""z":{"type":"integer"},"a":{"type":"string"}"#, r#""z""#, "z long!, a string"),
        (r#""a":{"type":["null","boolean"]}"#, r#""a""#, "a boolean"),
        (r#""a":{"oneOf":[{"type":"null"},{"type":"number"}]}"#, r#""a""#, "a double"),
        (r#""a":{"anyOf":[{"type":"number","connect.type":"float32"},{"type":"null"}]}"#, "", "a float"),
        (r#""a":{"type":"integer","minimum":0,"maximum":2147483647}"#, r#""a""#, "a int!"),
        (r#""a":{"type":"integer","minimum":0,"maximum":2147483648}"#, r#""a""#, "a long!"),
        (r#""a":{"type":"integer","connect.type":"int16"}"#, "", "a int"),
        (
            r#""a":{"type":"string","format":"date"},"b":{"type":"string","format":"date-time"}"#,
            "",
            "a date, b timestamptz",
        ),
        (r#""a":{"type":"string","format":"uuid"},"b":{"type":"string","format":"email"}"#, "", "a uuid, b string"),
        (r#""a":{"type":"string","contentEncoding":"base64"}"#, "", "a binary"),
        (r#""a":{"enum":["x","y"]}"#, r#""a""#, "a string!"),
        (r#""a":{"type":"array","items":{"type":"integer"}}"#, r#""a""#, "a list<long>!"),
        (r#""a":{"type":"object","additionalProperties":{"type":"string"}}"#, r#""a""#, "a map<string, string>!"),
        (
            r#""b":{"type":"string","connect.index":1},"a":{"type":"string","connect.index":0}"#,
            "",
            "a string, b string",
        ),
        (
            r#""a":{"type":"number","title":"org.apache.kafka.connect.data.Decimal","connect.parameters":{"scale":"2","connect.decimal.precision":"9"}}"#,
            "",
            "a decimal(9, 2)",
        ),
    ] {
        assert_eq!(columns(properties, required).unwrap(), expected, "{properties}");
    }
}

#[test]
fn what_has_no_column_type_is_refused_with_its_path() {
    for (properties, expected) in [
        (r#""a":{"type":"object"}"#, "field `a`: an object without `properties`"),
        (r#""a":{"type":"object","properties":{"b":{}}}"#, "field `a.b`: a schema without a type"),
        (r#""a":{"type":["string","integer"]}"#, "field `a`: a type of string or integer"),
        (r#""a":{"oneOf":[{"type":"string"},{"type":"integer"}]}"#, "field `a`: `oneOf` of 2 types"),
        (r#""a":{"type":"array","items":[{"type":"string"}]}"#, "field `a`: an array needs `items`"),
        (r#""a":{"type":"array","items":{"type":"null"}}"#, "field `a.element`: type `null`"),
        (r##""a":{"$ref":"#"}"##, "field `a`: type `#` contains itself"),
        (r##""a":{"$ref":"#/definitions/X"}"##, "field `a`: it refers to `#/definitions/X`, which is not there"),
        (r#""a":{"type":"object","patternProperties":{"x":{}}}"#, "`patternProperties`"),
    ] {
        let said = columns(properties, "").unwrap_err();
        assert!(said.contains(expected), "{said}");
    }
    for (schema, expected) in [
        ("{", "not json"),
        (r#"{"type":"array","items":{"type":"integer"}}"#, "an object with properties is needed, this is array"),
        (r#"{"type":"object","type":"object"}"#, "`type` is there twice"),
    ] {
        let said = parse(schema).unwrap_err();
        assert!(said.contains(expected), "{said}");
    }
    let doc = "x".repeat(1 << 20);
    let fields: Vec<_> = (0..100).map(|n| format!(r##""f{n}":{{"$ref":"#/definitions/D"}}"##)).collect();
    let wordy = format!(
        r#"{{"definitions":{{"D":{{"type":"string","description":"{doc}"}}}},"type":"object","properties":{{{}}}}}"#,
        fields.join(",")
    );
    assert!(parse(&wordy).unwrap_err().contains("bytes of words"));
    let deep = format!("{}{}{}", r#"{"items":"#.repeat(70), r#"{"type":"string"}"#, "}".repeat(70));
    assert!(columns(&format!(r#""a":{deep}"#), "").unwrap_err().contains("nested more than 64 deep"));
}

#[test]
fn references_are_followed_within_and_between_schemas() {
    let schema = r##"{"title":"com.acme.Order","type":"object","definitions":{"Money":{"type":"object",
        "properties":{"amount":{"type":"number"},"unit":{"$ref":"units.json#/$defs/Unit"}},"required":["amount"]}},
        "properties":{"total":{"$ref":"#/definitions/Money"},"to":{"$ref":"address.json"},"paid":{"$ref":"#/definitions/Money"}}}"##;
    let imports = [
        ("address.json", r#"{"type":"object","properties":{"city":{"type":"string"}}}"#),
        ("units.json", r#"{"$defs":{"Unit":{"enum":["EUR","USD"]}}}"#),
    ];
    let read = parse_with(schema, &imports).unwrap();
    assert_eq!(read.names().map(|name| &**name).collect::<Vec<_>>(), ["com.acme.Order"]);
    let table = read.table_schema(None, &append(), 2).unwrap();
    let money = "struct<amount: double, unit: string>";
    let kinds: Vec<_> = table.fields.iter().map(|f| f.kind.to_string()).collect();
    assert_eq!(kinds, [money, "struct<city: string>", money]);
    let mutual = r##"{"type":"object","definitions":{"A":{"type":"object","properties":{"b":{"$ref":"#/definitions/B"}}},
        "B":{"type":"object","properties":{"a":{"$ref":"#/definitions/A"}}}},"properties":{"a":{"$ref":"#/definitions/A"}}}"##;
    assert!(parse(mutual).unwrap_err().contains("contains itself"));
}

const EVERY: &str = r#"{"type":"object","properties":{
    "id":{"type":"integer"},"n":{"type":"integer","connect.type":"int32"},"x":{"type":"number"},
    "f":{"type":"number","connect.type":"float32"},"ok":{"type":"boolean"},
    "d":{"type":"number","title":"org.apache.kafka.connect.data.Decimal","connect.parameters":{"scale":"2","connect.decimal.precision":"9"}},
    "s":{"type":["string","null"]},"e":{"type":"string","enum":["NEW","PAID"]},"u":{"type":"string","format":"uuid"},
    "day":{"type":"string","format":"date"},"at":{"type":"string","format":"date-time"},
    "b":{"type":"string","contentEncoding":"base64"},"l":{"type":"array","items":{"type":["integer","null"]}},
    "m":{"type":"object","additionalProperties":{"type":"string"}},
    "o":{"type":"object","properties":{"p":{"type":"string"},"q":{"type":"integer"}},"required":["p"],"additionalProperties":false}},
    "required":["id"]}"#;

/// What a body of `EVERY` becomes: the named column of its row, or the reason and field of a bad record.
fn read(body: &str, column: &str) -> String {
    let mut decoder = decoder(&parse(EVERY).unwrap(), &append());
    let good = wire(1, br#"{"id":7}"#);
    assert_eq!(push(&mut decoder, 0, None, Some(&good)), Pushed::Row);
    let pushed = push(&mut decoder, 1, None, Some(&wire(1, body.as_bytes())));
    assert_eq!(push(&mut decoder, 2, None, Some(&good)), Pushed::Row);
    let batch = decoder.finish().unwrap().batch;
    let neighbours = if batch.num_rows() == 3 { [0, 2] } else { [0, 1] };
    neighbours.iter().for_each(|row| assert_eq!(render(batch.column(0), *row), "7", "a neighbour of {body}"));
    match pushed {
        Pushed::Row => render(batch.column_by_name(column).unwrap(), 1),
        Pushed::Bad(bad) => format!("{} {}", bad.reason.code(), bad.field.unwrap_or_default()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn values_are_kept_exactly_or_the_record_is_a_bad_one() {
    for (body, column, expected) in [
        (r#"{"id":-9223372036854775808}"#, "id", "-9223372036854775808"),
        (r#"{"id":9223372036854775808}"#, "id", "out_of_range id"),
        (r#"{"id":1e3}"#, "id", "1000"),
        (r#"{"id":2.0}"#, "id", "2"),
        (r#"{"id":2.5}"#, "id", "wrong_type id"),
        (r#"{"id":9007199254740993.0}"#, "id", "out_of_range id"),
        (r#"{"id":1e16}"#, "id", "out_of_range id"),
        (r#"{"id":"1"}"#, "id", "wrong_type id"),
        (r#"{"id":null}"#, "id", "wrong_type id"),
        ("{}", "id", "missing_field id"),
        (r#"{"id":1,"n":2147483648}"#, "n", "out_of_range n"),
        (r#"{"id":1,"x":0.1}"#, "x", "0.1"),
        (r#"{"id":1,"x":9007199254740992}"#, "x", "9007199254740992.0"),
        (r#"{"id":1,"x":9007199254740993}"#, "x", "out_of_range x"),
        (r#"{"id":1,"x":1e400}"#, "x", "out_of_range x"),
        (r#"{"id":1,"f":16777217}"#, "f", "out_of_range f"),
        (r#"{"id":1,"f":0.1}"#, "f", "0.1"),
        (r#"{"id":1,"d":19.99}"#, "d", "1999e-2"),
        (r#"{"id":1,"d":-1.5e1}"#, "d", "-1500e-2"),
        (r#"{"id":1,"d":"B88="}"#, "d", "1999e-2"),
        (r#"{"id":1,"d":19.999}"#, "d", "decimal_precision d"),
        (r#"{"id":1,"d":1e7}"#, "d", "decimal_precision d"),
        (r#"{"id":1,"d":1e999999999}"#, "d", "decimal_precision d"),
        (r#"{"id":1,"s":"a\u00e9\n"}"#, "s", "\"aé\\n\""),
        (r#"{"id":1,"s":null}"#, "s", "null"),
        (r#"{"id":1,"s":5}"#, "s", "wrong_type s"),
        (r#"{"id":1,"ok":true}"#, "ok", "true"),
        (r#"{"id":1,"ok":1}"#, "ok", "wrong_type ok"),
        (r#"{"id":1,"e":"PAID"}"#, "e", "\"PAID\""),
        (r#"{"id":1,"e":"LOST"}"#, "e", "bad_enum_index e"),
        (r#"{"id":1,"u":"x"}"#, "u", "bad_uuid u"),
        (r#"{"id":1,"day":"1970-01-02"}"#, "day", "day 1"),
        (r#"{"id":1,"day":"1970-1-2"}"#, "day", "wrong_type day"),
        (r#"{"id":1,"at":"1970-01-01T01:00:00.000001+01:00"}"#, "at", "1 usZ"),
        (r#"{"id":1,"at":"1970-01-01T00:00:00.0000010Z"}"#, "at", "1 usZ"),
        (r#"{"id":1,"at":"1970-01-01T00:00:00.0000001Z"}"#, "at", "0 usZ"),
        (r#"{"id":1,"at":"1970-01-01T23:59:60Z"}"#, "at", "out_of_range at"),
        (r#"{"id":1,"at":"1970-01-01T00:00:00"}"#, "at", "wrong_type at"),
        (r#"{"id":1,"b":"AQI="}"#, "b", "[01, 02]"),
        (r#"{"id":1,"b":"!"}"#, "b", "wrong_type b"),
        (r#"{"id":1,"l":[1,null,3]}"#, "l", "[1 null 3]"),
        (r#"{"id":1,"l":[1,"x"]}"#, "l", "wrong_type l.element"),
        (r#"{"id":1,"m":{"a":"b"}}"#, "m", "<{\"a\" \"b\"}>"),
        (r#"{"id":1,"m":{"a":"b","a":"c"}}"#, "m", "duplicate_field m.value"),
        (r#"{"q":1,"o":{"q":4,"p":"x"},"id":1}"#, "o", "{\"x\" 4}"),
        (r#"{"id":1,"o":{"q":4}}"#, "o", "missing_field o.p"),
        (r#"{"id":1,"o":{"p":"x","z":1}}"#, "o", "unknown_field o"),
        (r#"{"id":1,"id":2}"#, "id", "duplicate_field id"),
        (r#"{"id":1,"other":{"any":[1,{}]}}"#, "id", "1"),
    ] {
        assert_eq!(read(body, column), expected, "{body}");
    }
}

#[test]
fn hostile_bodies_are_bad_records() {
    let deep = format!(r#"{{"id":1,"l":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    for body in
        ["", "{", "null", "[]", "1", r#"{"id":1}{"id":2}"#, r#"{"id":1,}"#, r#"{"id":01}"#, r#"{"id":NaN}"#, &deep]
    {
        let said = read(body, "id");
        assert!(said.starts_with("not_json") || said.starts_with("wrong_type"), "{body:.40}: {said}");
    }
    assert!(read("{\"id\":1,\"s\":\"\\ud800\"}", "s").starts_with("not_json"));
    // Every cut of a good body, and every byte of it changed, is a row or a bad record.
    let good = r#"{"id":1,"s":"é","l":[1,2],"m":{"a":"b"},"o":{"p":"x"},"at":"1970-01-01T00:00:00Z"}"#.as_bytes();
    let mut decoder = decoder(&parse(EVERY).unwrap(), &append());
    for at in 0..good.len() {
        for byte in [0u8, b'"', b'{', 0xff] {
            let mut changed = good.to_vec();
            changed[at] = byte;
            push(&mut decoder, at as i64, None, Some(&wire(1, &changed)));
        }
        assert!(matches!(push(&mut decoder, at as i64, None, Some(&wire(1, &good[..at]))), Pushed::Bad(_)));
    }
}

#[test]
fn a_small_body_cannot_become_a_huge_one() {
    let fields: Vec<String> = (0..2_000).map(|n| format!(r#""f{n}":{{"type":"string"}}"#)).collect();
    let item = format!(r#"{{"type":"object","properties":{{{}}}}}"#, fields.join(","));
    let schema =
        parse(&format!(r#"{{"type":"object","properties":{{"l":{{"type":"array","items":{item}}}}}}}"#)).unwrap();
    let mut decoder = decoder(&schema, &append());
    let body = format!(r#"{{"l":[{}{{}}]}}"#, "{},".repeat(1_000_000));
    let pushed = push(&mut decoder, 0, None, Some(&wire(1, body.as_bytes())));
    assert!(matches!(&pushed, Pushed::Bad(bad) if bad.reason.code() == "too_large"), "{pushed:?}");
}

#[test]
fn keys_and_deletes_are_those_of_any_value() {
    let schema =
        parse(r#"{"type":"object","properties":{"id":{"type":"string"},"n":{"type":"integer"}},"required":["id"]}"#);
    let mut decoder = decoder(&schema.unwrap(), &upsert(&["id"]));
    let body = |text: &str| wire(1, text.as_bytes());
    assert_eq!(push(&mut decoder, 0, None, Some(&body(r#"{"n":1,"id":"a"}"#))), Pushed::Row);
    assert_eq!(push(&mut decoder, 1, Some(b"a"), None), Pushed::Delete);
    let keys = decoder.finish().unwrap().keys;
    assert_eq!(keys[0], keys[1]);
    let optional = parse(r#"{"type":"object","properties":{"id":{"type":"string"}}}"#).unwrap();
    let mut decoder = self::decoder(&optional, &upsert(&["id"]));
    let pushed = push(&mut decoder, 0, None, Some(&body("{}")));
    assert!(matches!(&pushed, Pushed::Bad(bad) if bad.reason.code() == "null_key"), "{pushed:?}");
}

/// Random objects, read here and by Arrow's own JSON reader.
#[test]
fn random_values_are_read_as_arrow_reads_them() {
    let schema = r#"{"type":"object","properties":{"id":{"type":"integer"},"x":{"type":"number"},"s":{"type":"string"},
        "ok":{"type":"boolean"},"l":{"type":"array","items":{"type":"string"}},
        "o":{"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"array","items":{"type":"object","properties":{"c":{"type":"number"}}}}}}},
        "required":["id"]}"#;
    let mut decoder = decoder(&parse(schema).unwrap(), &append());
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut text = String::new();
    for offset in 0..2_000 {
        let value = random.object();
        assert_eq!(
            push(&mut decoder, offset, None, Some(&wire(1, value.to_string().as_bytes()))),
            Pushed::Row,
            "{value}"
        );
        text += &format!("{value}\n");
    }
    let ours = decoder.finish().unwrap().batch;
    let mut theirs = ReaderBuilder::new(ours.schema()).with_batch_size(4_096).build(text.as_bytes()).unwrap();
    let theirs: RecordBatch = theirs.next().unwrap().unwrap();
    assert_eq!(rows(&ours), rows(&theirs));
}

struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }

    fn text(&mut self) -> Value {
        let letters = ["a", "é", "\"", "\\", "\n", "\u{1f600}", "\u{0}", "z"];
        (0..self.next(6)).map(|_| letters[self.next(8) as usize]).collect::<String>().into()
    }

    fn number(&mut self) -> Value {
        json!(f64::from_bits(self.next(u64::MAX)).clamp(-1e300, 1e300))
    }

    fn maybe(
        &mut self,
        object: &mut serde_json::Map<String, Value>,
        name: &str,
        make: impl FnOnce(&mut Self) -> Value,
    ) {
        if self.next(3) > 0 {
            let value = make(self);
            object.insert(name.to_owned(), value);
        }
    }

    fn object(&mut self) -> Value {
        let mut object = serde_json::Map::new();
        object.insert("id".into(), json!(self.next(u64::MAX) as i64));
        self.maybe(&mut object, "x", Random::number);
        self.maybe(&mut object, "s", Random::text);
        self.maybe(&mut object, "ok", |r| json!(r.next(2) == 0));
        self.maybe(&mut object, "l", |r| (0..r.next(4)).map(|_| r.text()).collect());
        self.maybe(&mut object, "o", |r| {
            let mut inner = serde_json::Map::new();
            r.maybe(&mut inner, "a", |r| json!(r.next(1000)));
            r.maybe(&mut inner, "b", |r| {
                let item = |r: &mut Random| {
                    let mut deepest = serde_json::Map::new();
                    r.maybe(&mut deepest, "c", Random::number);
                    Value::Object(deepest)
                };
                (0..r.next(3)).map(|_| item(r)).collect()
            });
            Value::Object(inner)
        });
        Value::Object(object)
    }
}

#[test]
fn other_schemas_of_a_topic_are_read_into_the_same_columns() {
    let first =
        parse(r#"{"type":"object","properties":{"id":{"type":"integer"},"s":{"type":"string"}},"required":["id"]}"#);
    let mut decoder = decoder(&first.unwrap(), &append());
    let avro = r#"{"type":"record","name":"R","fields":[{"name":"id","type":"int"},{"name":"s","type":"string"}]}"#;
    decoder.add_value_schema(2, avro).unwrap();
    push(&mut decoder, 0, None, Some(&wire(1, br#"{"s":"json","id":1}"#)));
    push(&mut decoder, 1, None, Some(&wire(2, b"\x04\x08avro")));
    assert_eq!(rows(&decoder.finish().unwrap().batch), ["1 \"json\"", "2 \"avro\""]);
    let other = parse(r#"{"type":"object","properties":{"id":{"type":"string"}},"required":["id"]}"#).unwrap();
    let refused = decoder.add_values(3, &Arc::new(other)).unwrap_err();
    assert!(matches!(&refused, Error::Decision(why) if why.contains("`id`: string cannot be read")), "{refused}");
}

#[test]
fn listed_values_are_the_only_ones() {
    let schema = r#"{"type":"object","properties":{
        "k":{"const":"v"},"n":{"type":"integer","enum":[1,2,null]},"x":{"enum":[0.5,1]},"f":{"const":false},
        "e":{"enum":["A",null]},"s":{"type":"string","const":"v"}},"required":["k"]}"#;
    let schema = parse(schema).unwrap();
    let read = |body: &str| {
        let mut decoder = decoder(&schema, &append());
        match push(&mut decoder, 0, None, Some(&wire(1, body.as_bytes()))) {
            Pushed::Row => rows(&decoder.finish().unwrap().batch).remove(0),
            Pushed::Bad(bad) => format!("{} {}", bad.reason.code(), bad.field.unwrap_or_default()),
            other => panic!("{other:?}"),
        }
    };
    for (body, expected) in [
        (r#"{"k":"v","n":2,"x":0.5,"f":false,"e":"A","s":"v"}"#, r#""v" 2 0.5 false "A" "v""#),
        (r#"{"k":"v","n":2.0,"x":1.0,"e":null}"#, r#""v" 2 1.0 null null null"#),
        (r#"{"k":"w"}"#, "bad_enum_index k"),
        (r#"{"k":"v","n":3}"#, "bad_enum_index n"),
        (r#"{"k":"v","x":0.75}"#, "bad_enum_index x"),
        (r#"{"k":"v","f":true}"#, "bad_enum_index f"),
        (r#"{"k":"v","e":"B"}"#, "bad_enum_index e"),
        (r#"{"k":"v","s":"w"}"#, "bad_enum_index s"),
    ] {
        assert_eq!(read(body), expected, "{body}");
    }
}

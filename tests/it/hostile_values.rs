//! JSON and Protobuf made to break a reader: schemas and values are refused, in bounded memory, time and stack.

use std::sync::Arc;

use firn::avro::{BadRecord, Decoder, Event, Pushed, RECORD_BYTES_MAX, SchemaKind, SchemaText, ValueSchema};

use crate::hostile::{append, confined};

const MEMORY_MAX: usize = 300 << 20;

fn json(properties: &str) -> String {
    format!(r#"{{"type":"object","properties":{{{properties}}}}}"#)
}

/// `count` properties that refer to one definition.
fn mentions(definition: &str, count: usize) -> String {
    let fields: Vec<String> = (0..count).map(|i| format!(r##""f{i}":{{"$ref":"#/definitions/D"}}"##)).collect();
    format!(r#"{{"type":"object","definitions":{{"D":{definition}}},"properties":{{{}}}}}"#, fields.join(","))
}

/// JSON Schemas that say little and mean much, and a part of the refusal; none where all is well.
fn json_schemas() -> Vec<(&'static str, String, &'static str)> {
    let word = "x".repeat(1 << 20);
    let deep = |open: &str, n: usize| format!(r#""f":{}{{"type":"string"}}{}"#, open.repeat(n), "}".repeat(n));
    let doubling: Vec<String> = (0..30)
        .map(|i| {
            let next = format!(r##"{{"$ref":"#/definitions/D{}"}}"##, i + 1);
            format!(r#""D{i}":{{"type":"object","properties":{{"a":{next},"b":{next}}}}}"#)
        })
        .collect();
    let doubling = format!(
        r##"{{"type":"object","definitions":{{{},"D30":{{"type":"string"}}}},"properties":{{"f":{{"$ref":"#/definitions/D0"}}}}}}"##,
        doubling.join(",")
    );
    let symbols: String = (0..60_000).map(|i| format!(r#","S{i}""#)).collect();
    let wide: Vec<String> = (0..6_000).map(|i| format!(r#""f{i}":{{"type":"integer"}}"#)).collect();
    let branches = r#"{"oneOf":["#;
    vec![
        ("100 000 arrays", json(&deep(r#"{"items":"#, 100_000)), "not json"),
        ("100 arrays", json(&deep(r#"{"items":"#, 100)), "nested more than 64 deep"),
        ("60 choices", json(&format!(r#""f":{}{{"type":"string"}}{}"#, branches.repeat(60), "]}".repeat(60))), ""),
        ("2^30 types", doubling, "more than 20000 types"),
        (
            "a description of 1 MiB in 10 000 fields",
            mentions(&format!(r#"{{"type":"string","description":"{word}"}}"#), 10_000),
            "bytes of words",
        ),
        (
            "60 000 symbols in 10 000 fields",
            mentions(&format!(r#"{{"enum":["S"{symbols}]}}"#), 10_000),
            "bytes of words",
        ),
        ("a name of 1 MiB", json(&format!(r#""{word}":{{"type":"string"}}"#)), "more than 1024 bytes"),
        ("a type named by 1 MiB", json(&format!(r#""f":{{"type":"{word}"}}"#)), "type `xxx"),
        ("a reference of 1 MiB", json(&format!(r#""f":{{"$ref":"{word}"}}"#)), "it refers to"),
        (
            "a pointer of 500 000 steps",
            json(&format!(r##""f":{{"$ref":"#{}"}}"##, "/a".repeat(500_000))),
            "it refers to",
        ),
        (
            "100 000 required fields",
            format!(
                r#"{{"type":"object","properties":{{{}}},"required":["f0"{}]}}"#,
                wide.join(","),
                r#","x""#.repeat(100_000)
            ),
            "",
        ),
        ("3 MiB of spaces", " ".repeat(3 << 20), "the limit is"),
        ("nothing", String::new(), "not json"),
        ("half a surrogate", r#"{"title":"\ud800"}"#.into(), "not json"),
    ]
}

fn proto(text: &str) -> String {
    format!("syntax = \"proto3\"; {text}")
}

/// As [`json_schemas`], in Protobuf.
fn protobuf_schemas() -> Vec<(&'static str, String, &'static str)> {
    let word = "x".repeat(1 << 20);
    let fields = |kind: &str, count: usize| -> String { (1..=count).map(|i| format!("{kind} f{i} = {i}; ")).collect() };
    let values: String = (1..60_000).map(|i| format!("V{i} = {i}; ")).collect();
    let doubling: String = (0..30).map(|i| format!("message M{i} {{ M{0} a = 1; M{0} b = 2; }} ", i + 1)).collect();
    let nested = format!("{}int32 a = 1;{}", "message M { ".repeat(60), "}".repeat(60));
    vec![
        ("100 000 messages in each other", proto(&"message M {".repeat(100_000)), "nested more than 64 deep"),
        ("60 messages in each other", proto(&nested), "a record without fields"),
        ("100 000 open options", proto(&format!("option a = {}", "{a:".repeat(100_000))), "nested more than 64 deep"),
        ("2^30 types", proto(&format!("{doubling} message M30 {{ int32 x = 1; }}")), "more than 20000 types"),
        ("18 000 fields", proto(&format!("message M {{ {} }}", fields("int32", 18_000))), ""),
        ("30 000 messages", proto(&(0..30_000).map(|i| format!("message M{i} {{}} ")).collect::<String>()), "messages"),
        (
            "60 000 names in 10 000 fields",
            proto(&format!("enum E {{ Z = 0; {values} }} message M {{ {} }}", fields("E", 10_000))),
            "",
        ),
        ("a name of 1 MiB", proto(&format!("message M {{ int32 {word} = 1; }}")), "more than 1024 bytes"),
        ("a type named by 1 MiB", proto(&format!("message M {{ {word} a = 1; }}")), "not protobuf"),
        ("an import of itself", proto("import \"firn.value.proto\"; message M { int32 a = 1; }"), "not protobuf"),
        ("a number of 21 digits", proto("message M { int32 a = 999999999999999999999; }"), "not protobuf"),
        ("a comment without an end", proto(&format!("/*{}", "/*".repeat(500_000))), "not protobuf"),
        ("1 000 000 semicolons", proto(&";".repeat(1_000_000)), "defines no message"),
        ("a text without an end", proto("message M { option a = \"x"), "not protobuf"),
        ("3 MiB of spaces", " ".repeat(3 << 20), "the limit is"),
        ("nothing", String::new(), "defines no message"),
        ("bytes", "\u{0}\u{1}\u{feff}".into(), "not protobuf"),
    ]
}

/// E6, D9
#[test]
fn no_schema_of_other_languages_takes_more_memory_time_or_stack_than_there_is() {
    let mut wrong = Vec::new();
    let of =
        |kind: SchemaKind, all: Vec<_>| all.into_iter().map(move |(what, text, refusal)| (kind, what, text, refusal));
    for (kind, what, text, refusal) in
        of(SchemaKind::Json, json_schemas()).chain(of(SchemaKind::Protobuf, protobuf_schemas()))
    {
        let (said, memory) = confined(what, move || {
            let schema = ValueSchema::parse(&SchemaText::new(kind, &text));
            let table = schema.and_then(|schema| schema.table_schema(None, &append(), 3));
            table.err().map(|e| e.to_string()).unwrap_or_default()
        });
        let fits = said.contains(refusal) && said.is_empty() == refusal.is_empty();
        if !fits || said.len() > 8192 || memory > MEMORY_MAX {
            wrong.push(format!(
                "{} {what}: {memory} bytes of memory, {} of refusal: {said:.200}",
                kind.name(),
                said.len()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What became of one value between two good ones, which stay as they are.
fn between_good_ones(kind: SchemaKind, schema: &str, good: &[u8], body: &[u8]) -> Option<BadRecord> {
    let schema = Arc::new(ValueSchema::parse(&SchemaText::new(kind, schema)).unwrap());
    let table = schema.table_schema(None, &append(), 3).unwrap();
    let mut decoder = Decoder::new(&table, &append(), Box::new(|_| Ok(Vec::new()))).unwrap();
    decoder.add_values(1, &schema).unwrap();
    let topic: Arc<str> = Arc::from("t");
    let mut push = |body: &[u8]| {
        let value = [&[0, 0, 0, 0, 1][..], body].concat();
        decoder.push(&Event { topic: &topic, partition: 0, offset: 0, timestamp_ms: 0, key: None, value: Some(&value) })
    };
    assert_eq!(push(good), Pushed::Row);
    let pushed = push(body);
    assert_eq!(push(good), Pushed::Row);
    let batch = decoder.finish().unwrap().batch;
    match pushed {
        Pushed::Bad(bad) => {
            assert_eq!(batch.num_rows(), 2);
            Some(bad)
        }
        other => {
            assert_eq!((other, batch.num_rows()), (Pushed::Row, 3));
            None
        }
    }
}

/// JSON bodies, with the code of the reason for which each is refused; none where it is a row.
fn json_bodies() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let list = |items: &str| format!(r#"{{"list":[{items}]}}"#).into_bytes();
    let entries: Vec<String> = (0..1_200_000).map(|i| format!("\"{i}\":1")).collect();
    vec![
        ("1 000 000 items of 500 columns", list("{},".repeat(1_000_000).trim_end_matches(',')), "too_large"),
        ("10 000 items of 500 columns", list("{},".repeat(10_000).trim_end_matches(',')), ""),
        ("1 200 000 entries", format!(r#"{{"map":{{{}}}}}"#, entries.join(",")).into_bytes(), "too_large"),
        ("open brackets", [&b"{\"list\":"[..], &b"[".repeat(10 << 20)].concat(), "wrong_type"),
        ("open brackets that nobody reads", [&b"{\"x\":"[..], &b"[".repeat(10 << 20)].concat(), "not_json"),
        ("one long text", format!(r#"{{"text":"{}"}}"#, "\\u0041".repeat(5 << 20)).into_bytes(), ""),
        (
            "a number of 1 000 000 digits",
            format!(r#"{{"long":{}}}"#, "9".repeat(1_000_000)).into_bytes(),
            "out_of_range",
        ),
        ("a fraction of 1 000 000 digits", format!(r#"{{"double":0.{}}}"#, "9".repeat(1_000_000)).into_bytes(), ""),
        ("a body beyond the limit", vec![b' '; RECORD_BYTES_MAX], "too_large"),
    ]
}

/// Protobuf bodies, likewise.
fn protobuf_bodies() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let varint = |mut n: usize| {
        let mut out = Vec::new();
        while n >= 0x80 {
            out.push(n as u8 | 0x80);
            n >>= 7;
        }
        out.push(n as u8);
        out
    };
    let entry = |i: usize| {
        let name = i.to_string();
        [&[0x1a, name.len() as u8 + 2, 0x0a, name.len() as u8], name.as_bytes()].concat()
    };
    let packed = |n: usize| [vec![0x22], varint(n), vec![1; n]].concat();
    let first = |body: Vec<u8>| [vec![0], body].concat();
    vec![
        ("1 000 000 items of 500 columns", first([0x12, 0].repeat(1_000_000)), "too_large"),
        ("10 000 items of 500 columns", first([0x12, 0].repeat(10_000)), ""),
        ("1 200 000 entries", first((0..1_200_000).flat_map(entry).collect()), "too_large"),
        ("40 000 000 packed numbers", first(packed(40_000_000)), "too_large"),
        ("1 000 000 packed numbers", first(packed(1_000_000)), ""),
        ("1 000 000 parts of one message", first([0x2a, 2, 8, 1].repeat(1_000_000)), ""),
        ("endless groups", first(vec![0x0b; 1 << 20]), "wire_type"),
        ("an endless varint", first(vec![0xff; 1 << 20]), "bad_varint"),
        ("an endless place", vec![0xff; 1 << 20], "bad_varint"),
        ("a body beyond the limit", vec![0; RECORD_BYTES_MAX], "too_large"),
    ]
}

/// E5, INV-16
#[test]
fn no_value_of_other_encodings_takes_more_memory_time_or_stack_than_there_is() {
    let wide: Vec<String> = (0..500).map(|i| format!(r#""c{i}":{{"type":"integer"}}"#)).collect();
    let json_schema = json(&format!(
        r#""text":{{"type":"string"}},"long":{{"type":"integer"}},"double":{{"type":"number"}},
        "map":{{"type":"object","additionalProperties":{{"type":"integer"}}}},"list":{{"type":"array","items":{}}}"#,
        json(&wide.join(","))
    ));
    let wide: String = (1..=500).map(|i| format!("int64 c{i} = {i}; ")).collect();
    let protobuf_schema = proto(&format!(
        "message M {{ string text = 1; repeated In list = 2; map<string, int64> map = 3; repeated int64 packed = 4; In one = 5; \
         message In {{ {wide} }} }}"
    ));
    let json = json_bodies().into_iter().map(|body| (SchemaKind::Json, json_schema.clone(), &b"{}"[..], body));
    let protobuf = protobuf_bodies().into_iter();
    let protobuf = protobuf.map(|body| (SchemaKind::Protobuf, protobuf_schema.clone(), &b"\0"[..], body));
    for (kind, schema, good, (what, body, reason)) in json.chain(protobuf) {
        let (bad, memory) = confined(what, move || between_good_ones(kind, &schema, good, &body));
        let code = bad.map_or("", |bad| bad.reason.code());
        assert_eq!(code, reason, "{} {what}", kind.name());
        assert!(memory < MEMORY_MAX, "{} {what} took {memory} bytes", kind.name());
    }
}

//! What each fuzz target does with its bytes. `tests/it/fuzz.rs` runs the same functions over the corpus and a fixed number of
//! mutations of it, so that a target that no longer holds is found by `cargo test`; `docs/testing.md` has the long run.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use firn::avro::{
    Decoded, Decoder, DeleteBy, EncodeKeys, Event, EventShape, KeySchema, Mode, Nanoseconds, Pushed, RecordKey,
    RecursiveTypes, SchemaKind, SchemaText, Types, ValueSchema, table_schema,
};
use firn::core::change::Key;
use firn::core::schema::{TableFormat, TableSchema, evolve};
use firn::settings::Settings;
use firn::source::schema_in_answers;

/// A target: what it does with bytes. It panics where something does not hold.
pub type Target = fn(&[u8]);

/// Every target by its name, which is that of its folder in `corpus`.
pub const TARGETS: [(&str, Target); 7] = [
    ("wire_frame", wire_frame),
    ("datum", datum),
    ("schema", schema),
    ("registry_reply", registry_reply),
    ("settings", settings),
    ("json_value", json_value),
    ("protobuf_value", protobuf_value),
];

/// Decisions, a byte each; zeros when there are no more.
struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    fn below(&mut self, n: usize) -> usize {
        match self.0 {
            [first, rest @ ..] => {
                self.0 = rest;
                usize::from(*first) % n
            }
            [] => 0,
        }
    }

    fn take(&mut self, n: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        head
    }
}

fn shape(mode: Mode) -> EventShape {
    EventShape {
        mode,
        key: None,
        record_key: None,
        order_by: None,
        delete: DeleteBy::Tombstone,
        lineage: None,
        types: Types::Any,
        recursive_types: RecursiveTypes::Json,
        nanoseconds: Nanoseconds::Truncate,
    }
}

fn encode() -> EncodeKeys {
    Box::new(|columns| Ok(vec![Key(0); columns.first().map_or(0, |c| c.len())]))
}

fn long(value: i64) -> Vec<u8> {
    let mut raw = ((value << 1) ^ (value >> 63)) as u64;
    let mut out = Vec::new();
    while raw >= 0x80 {
        out.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
    out
}

fn framed(id: u32, body: &[u8]) -> Vec<u8> {
    [&[0][..], &id.to_be_bytes(), body].concat()
}

fn push(decoder: &mut Decoder, key: Option<&[u8]>, value: Option<&[u8]>) -> Pushed {
    let topic: Arc<str> = Arc::from("t");
    decoder.push(&Event { topic: &topic, partition: 0, offset: 7, timestamp_ms: 0, key, value })
}

fn finished(decoder: &mut Decoder) -> Decoded {
    let done = decoder.finish().expect("columns that fit together");
    for column in done.batch.columns() {
        column.to_data().validate_full().expect("a valid column");
    }
    done
}

fn same_rows(batch: &RecordBatch, a: usize, b: usize) {
    for column in batch.columns() {
        assert_eq!(column.slice(a, 1).as_ref(), column.slice(b, 1).as_ref());
    }
}

const VALUE: &str = r#"{"type":"record","name":"V","fields":[
    {"name":"id","type":"long"},{"name":"name","type":["null","string"]},
    {"name":"tags","type":{"type":"array","items":["null","string"]}},
    {"name":"counts","type":{"type":"map","values":"int"}},
    {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},
    {"name":"op","type":{"type":"enum","name":"Op","symbols":["u","d"]}},
    {"name":"price","type":["null",{"type":"bytes","logicalType":"decimal","precision":20,"scale":2}]},
    {"name":"flags","type":{"type":"record","name":"F","fields":[{"name":"a","type":"boolean"},{"name":"b","type":["null","F2"]}]}}]}"#;
const KEY: &str = r#"{"type":"record","name":"K","fields":[{"name":"id","type":"long"}]}"#;

/// One event of any bytes between two good ones, which stay as they are. The first byte says how the topic is set up, the
/// second whether key and value are there, the third how long the key is; ids 1 and 2 are known.
pub fn wire_frame(bytes: &[u8]) {
    let mut choices = Choices(bytes);
    let value_schema = VALUE.replace("\"F2\"", r#"{"type":"fixed","name":"F2","size":3}"#);
    let (setup, there, key_bytes) = (choices.below(256), choices.below(256), choices.below(256));
    let key = choices.take(key_bytes);
    let keyed_by_record = setup & 1 == 0;
    let forms = [None, Some(RecordKey::Avro), Some(RecordKey::String), Some(RecordKey::Int64), Some(RecordKey::Int32)];
    let deletes = DeleteBy::Field { field: "op".into(), values: vec!["d".into()] };
    let shape = EventShape {
        key: (!keyed_by_record).then(|| vec!["id".into()]),
        record_key: if keyed_by_record { None } else { forms[(setup >> 1) % 5] },
        order_by: (setup & 16 != 0).then(|| "at".into()),
        delete: if setup & 32 != 0 { deletes } else { DeleteBy::Tombstone },
        lineage: (setup & 64 != 0).then(|| "_kafka".into()),
        ..shape(Mode::Upsert)
    };
    let table = table_schema(&value_schema, Some(KEY), &shape, 3).expect("a table");
    let mut decoder = Decoder::new(&table, &shape, encode()).expect("a decoder");
    decoder.add_value_schema(1, &value_schema).expect("a plan for values");
    decoder.add_key_schema(2, KEY).expect("a plan for keys");
    let good_key = framed(2, &long(5));
    let good =
        [long(5), vec![2, 2, b'x'], vec![2, 0, 0], vec![2, 2, b'k', 2, 0], long(9), vec![0], vec![2, 2, 1], vec![1, 0]];
    let good = framed(1, &good.concat());
    let good = |decoder: &mut Decoder| assert_eq!(push(decoder, Some(&good_key), Some(&good)), Pushed::Row);

    good(&mut decoder);
    let before = (decoder.rows(), decoder.events(), decoder.bytes());
    let pushed = push(&mut decoder, (there & 1 == 0).then_some(key), (there & 2 == 0).then_some(choices.0));
    let after = (decoder.rows(), decoder.events(), decoder.bytes());
    match pushed {
        Pushed::Bad(_) | Pushed::NeedsSchema { .. } => assert_eq!(before, after),
        Pushed::Row => assert_eq!((after.0, after.1), (2, 2)),
        Pushed::Delete => assert_eq!(after.1, 2),
        other @ (Pushed::Passed | Pushed::Full) => panic!("{other:?}"),
    }
    good(&mut decoder);
    let done = finished(&mut decoder);
    assert_eq!((done.keys.len(), done.offsets.len()), (after.1 + 1, after.1 + 1));
    same_rows(&done.batch, 0, done.batch.num_rows() - 1);
}

/// Writes a schema text by choices: any type, nested and mentioned again.
struct Writer<'c, 'a> {
    choices: &'c mut Choices<'a>,
    /// Types that can be mentioned.
    names: Vec<String>,
    declared: usize,
}

impl Writer<'_, '_> {
    fn declare(&mut self, kind: &str, rest: &str) -> String {
        let name = format!("N{}", self.declared);
        self.declared += 1;
        self.names.push(name.clone());
        format!(r#"{{"type":"{kind}","name":"{name}",{rest}}}"#)
    }

    fn kind(&mut self, depth: usize) -> String {
        const PLAIN: [&str; 17] = [
            r#""boolean""#,
            r#""int""#,
            r#""long""#,
            r#""float""#,
            r#""double""#,
            r#""bytes""#,
            r#""string""#,
            r#""null""#,
            r#"{"type":"string","logicalType":"uuid"}"#,
            r#"{"type":"int","logicalType":"date"}"#,
            r#"{"type":"int","logicalType":"time-millis"}"#,
            r#"{"type":"long","logicalType":"time-micros"}"#,
            r#"{"type":"long","logicalType":"timestamp-millis"}"#,
            r#"{"type":"long","logicalType":"timestamp-micros"}"#,
            r#"{"type":"long","logicalType":"local-timestamp-nanos"}"#,
            r#"{"type":"bytes","logicalType":"decimal","precision":38,"scale":9}"#,
            r#"{"type":"bytes","logicalType":"decimal","precision":3}"#,
        ];
        match self.choices.below(if depth < 5 { 28 } else { 20 }) {
            at @ 0..17 => PLAIN[at].into(),
            17 => {
                let size = [0, 1, 12, 16, 1000][self.choices.below(5)];
                let logical = ["none", "decimal\",\"precision\":\"9", "uuid", "duration"][self.choices.below(4)];
                self.declare("fixed", &format!(r#""size":{size},"logicalType":"{logical}""#))
            }
            18 => {
                let symbols: Vec<_> = (0..=self.choices.below(4)).map(|i| format!("\"S{i}\"")).collect();
                self.declare("enum", &format!(r#""symbols":[{}]"#, symbols.join(",")))
            }
            19 if !self.names.is_empty() => {
                let at = self.choices.below(self.names.len());
                format!("\"{}\"", self.names[at])
            }
            20 | 21 => format!(r#"{{"type":"array","items":{}}}"#, self.kind(depth + 1)),
            22 => format!(r#"{{"type":"map","values":{}}}"#, self.kind(depth + 1)),
            23 | 24 => format!(r#"["null",{}]"#, self.kind(depth + 1)),
            25 => {
                let branches: Vec<_> = (0..=self.choices.below(3)).map(|_| self.kind(depth + 1)).collect();
                format!("[{}]", branches.join(","))
            }
            _ => {
                let fields: Vec<_> = (0..self.choices.below(4))
                    .map(|i| format!(r#"{{"name":"f{i}","type":{}}}"#, self.kind(depth + 1)))
                    .collect();
                self.declare("record", &format!(r#""fields":[{}]"#, fields.join(",")))
            }
        }
    }
}

/// A schema of the first bytes' choosing, of which the table knows some fields, and the rest as the body of a record.
pub fn datum(bytes: &[u8]) {
    let mut choices = Choices(bytes);
    let count = 1 + choices.below(6);
    let mut known = Vec::new();
    let mut fields = Vec::new();
    let mut writer = Writer { choices: &mut choices, names: Vec::new(), declared: 0 };
    for i in 0..count {
        let in_table = writer.choices.below(3) != 0;
        let named = writer.names.len();
        let field = format!(r#"{{"name":"c{i}","type":{}}}"#, writer.kind(0));
        if in_table {
            known.push(field.clone());
        } else {
            // What is declared in it cannot be mentioned by what the table has.
            writer.names.truncate(named);
        }
        fields.push(field);
    }
    known.push(r#"{"name":"more","type":["null","string"]}"#.into());
    let record = |fields: &[String]| format!(r#"{{"type":"record","name":"R","fields":[{}]}}"#, fields.join(","));
    let (text, known) = (record(&fields), record(&known));
    let shape = shape(Mode::Append);
    let Ok(table) = table_schema(&known, None, &shape, 3) else { return };
    let mut decoder = Decoder::new(&table, &shape, encode()).expect("a decoder");
    if decoder.add_value_schema(1, &text).is_err() {
        return;
    }
    let body = choices.0;
    let first = push(&mut decoder, None, Some(&framed(1, body)));
    assert_eq!(push(&mut decoder, None, Some(&framed(1, body))), first, "{text}");
    if first == Pushed::Row {
        let batch = finished(&mut decoder).batch;
        assert_eq!(batch.num_rows(), 2);
        same_rows(&batch, 0, 1);
        if let [start @ .., _] = body {
            assert!(matches!(push(&mut decoder, None, Some(&framed(1, start))), Pushed::Bad(_)), "{text}");
        }
        let longer = [body, &[0]].concat();
        assert!(matches!(push(&mut decoder, None, Some(&framed(1, &longer))), Pushed::Bad(_)), "{text}");
    }
    assert_eq!((decoder.rows(), decoder.events()), (0, 0));
    assert_eq!(finished(&mut decoder).batch.num_rows(), 0);
}

/// Any text as a schema: a table of it, a decoder of it, and what an older table becomes by it.
pub fn schema(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let older = older();
    let mut reader = Decoder::new(&older, &shape(Mode::Append), encode()).expect("a decoder");
    let _ = (reader.add_value_schema(1, text), reader.add_key_schema(1, text));
    for version in [2, 3] {
        let Ok(table) = table_schema(text, None, &shape(Mode::Append), version) else { continue };
        let schema = Arc::new(ValueSchema::avro(text).expect("a schema"));
        own_rows_are_read(&table, &schema);
        let format = if version == 2 { TableFormat::IcebergV2 } else { TableFormat::IcebergV3 };
        grown(&older, &table, format, &schema);
    }
}

/// A table that was there before.
fn older() -> TableSchema {
    let older = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int"},{"name":"b","type":["null",{"type":"record","name":"B","fields":[{"name":"c","type":"float"}]}]}]}"#;
    table_schema(older, None, &shape(Mode::Append), 3).expect("a table")
}

/// A table that can follow a schema has nothing left to follow then, and reads its rows.
fn grown(older: &TableSchema, wanted: &TableSchema, format: TableFormat, schema: &Arc<ValueSchema>) {
    let grown = evolve(older, wanted, &[format], 100);
    if grown.obstacle().is_none() {
        let again = evolve(&grown.schema, wanted, &[format], 1_000);
        assert!(again.changes.is_empty(), "{:?} after {:?}", again.changes, grown.changes);
        own_rows_are_read(&grown.schema, schema);
    }
}

/// A table takes records of the schema that its columns were made of or for.
fn own_rows_are_read(table: &TableSchema, schema: &Arc<ValueSchema>) {
    let mut decoder = Decoder::new(table, &shape(Mode::Append), encode()).expect("a decoder");
    decoder.add_values(1, schema).expect("a plan");
    let _ = push(&mut decoder, None, Some(&framed(1, &[0; 64])));
    finished(&mut decoder);
}

/// A JSON Schema, a NUL, and a value. What is read of a value does not depend on space around it, and ends with it.
pub fn json_value(bytes: &[u8]) {
    value_of(SchemaKind::Json, bytes, &|decoder, body| {
        let again = push(decoder, None, Some(&framed(1, &[b" ", body, b"\n"].concat())));
        assert_eq!(again, Pushed::Row);
        for other in [body.trim_ascii_end().split_last().map_or(body, |(_, start)| start), &[body, b"1"].concat()] {
            assert!(matches!(push(decoder, None, Some(&framed(1, other))), Pushed::Bad(_)));
        }
    });
}

/// A Protobuf schema, a NUL, and a value with its message index. A field that nobody knows is passed over.
pub fn protobuf_value(bytes: &[u8]) {
    value_of(SchemaKind::Protobuf, bytes, &|decoder, body| {
        // The highest number that there is, as a varint; no seed has a field of it.
        let unknown = [0xf8, 0xff, 0xff, 0xff, 0x0f, 1];
        assert_eq!(push(decoder, None, Some(&framed(1, &[body, &unknown].concat()))), Pushed::Row);
        // Lists double, and so may memory; anything else is merged.
        let index = if body[0] == 0 { 1 } else { body.len() };
        let _ = push(decoder, None, Some(&framed(1, &[body, &body[index..]].concat())));
    });
}

/// A schema's text, a NUL, and a body: a table of the schema, what an older table becomes by it, a decoder, keys. Another
/// row like that of the body is what `again` pushes.
fn value_of(kind: SchemaKind, bytes: &[u8], again: &dyn Fn(&mut Decoder, &[u8])) {
    let at = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (text, body) = (&bytes[..at], bytes.get(at + 1..).unwrap_or_default());
    let Ok(text) = std::str::from_utf8(text) else { return };
    let text = SchemaText::new(kind, text);
    key_of(&text, body);
    let Ok(schema) = ValueSchema::parse(&text) else { return };
    let (schema, shape) = (Arc::new(schema), shape(Mode::Append));
    let Ok(table) = schema.table_schema(None, &shape, 3) else { return };
    grown(&older(), &table, TableFormat::IcebergV3, &schema);
    let mut decoder = Decoder::new(&table, &shape, encode()).expect("a decoder");
    decoder.add_values(1, &schema).expect("a plan");
    let value = framed(1, body);
    let first = push(&mut decoder, None, Some(&value));
    assert_eq!(push(&mut decoder, None, Some(&value)), first);
    if first == Pushed::Row {
        again(&mut decoder, body);
        let batch = finished(&mut decoder).batch;
        same_rows(&batch, 0, 1);
        same_rows(&batch, 0, 2);
    }
    assert_eq!((decoder.rows(), decoder.events()), (0, 0));
}

/// The schema as that of record keys, for a table with a key of its own.
fn key_of(text: &SchemaText, body: &[u8]) {
    let shape = EventShape { key: Some(vec!["id".into()]), ..shape(Mode::Upsert) }.with_key_schema(true);
    let table = table_schema(KEY, None, &shape, 3).expect("a table");
    let mut decoder = Decoder::new(&table, &shape, encode()).expect("a decoder");
    if decoder.add_keys(1, &Arc::new(KeySchema::parse(text))).is_ok() {
        let pushed = push(&mut decoder, Some(&framed(1, body)), None);
        assert!(matches!(pushed, Pushed::Delete | Pushed::Bad(_)), "{pushed:?}");
        assert_eq!(finished(&mut decoder).keys.len(), usize::from(pushed == Pushed::Delete));
    }
}

/// What a registry says about id 1 and the subjects that it refers to: answers with a NUL between them, each a letter for its
/// status and a body.
pub fn registry_reply(bytes: &[u8]) {
    const STATUSES: [u16; 8] = [200, 404, 422, 500, 302, 401, 204, 99];
    let answers = bytes.split(|b| *b == 0).map(|answer| match answer {
        [status, body @ ..] => (STATUSES[usize::from(*status) % 8], body),
        [] => (200, answer),
    });
    match schema_in_answers(1, answers) {
        Ok(found) => {
            assert_eq!(found.fingerprint, found.text.fingerprint());
            schema(found.text.text.as_bytes());
        }
        Err(error) => assert!(error.to_string().len() < 2_000, "{error}"),
    }
}

/// Any text as `firn.yaml`.
pub fn settings(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let env = |name: &str| (name == "SET").then(|| "value".to_owned());
    if let Ok(settings) = Settings::parse(text, Path::new("/nonexistent"), &env) {
        assert!(!settings.redacted().is_empty());
    }
}

//! Bytes and schemas made to break a reader: each is refused, in bounded memory, time and stack, and never ends the process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::Array;
use firn::avro::{
    BadRecord, Decoder, DeleteBy, Event, EventShape, Mode, Nanoseconds, Pushed, RECORD_BYTES_MAX, RecursiveTypes,
    Types, table_schema,
};
use firn::settings::Settings;

use crate::memory;
use crate::run::long;

/// The poll thread has four times as much.
const STACK_BYTES: usize = 512 << 10;
/// Far more than any of these takes, unoptimised and on a busy machine.
const TIME_MAX: Duration = Duration::from_secs(20);

/// Runs `work` on a small stack; its outcome, and the most memory that it held.
pub fn confined<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> (T, usize) {
    let started = Instant::now();
    let run = move || memory::peak(work);
    let done = std::thread::Builder::new().name(what.to_owned()).stack_size(STACK_BYTES).spawn(run).unwrap().join();
    assert!(started.elapsed() < TIME_MAX, "{what} took {:?}", started.elapsed());
    done.unwrap()
}

pub fn append() -> EventShape {
    let (key, record_key) = (None, None);
    EventShape {
        mode: Mode::Append,
        key,
        record_key,
        order_by: None,
        delete: DeleteBy::Tombstone,
        lineage: None,
        types: Types::Any,
        recursive_types: RecursiveTypes::Refuse,
        nanoseconds: Nanoseconds::Truncate,
    }
}

fn decoder(schema: &str) -> Decoder {
    let table = table_schema(schema, None, &append(), 3).unwrap();
    let mut decoder = Decoder::new(&table, &append(), Box::new(|_| Ok(Vec::new()))).unwrap();
    decoder.add_value_schema(1, schema).unwrap();
    decoder
}

fn record(fields: &str) -> String {
    format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#)
}

/// `count` fields of the type named `T`, whose definition comes first.
fn mentions(definition: &str, kind: &str, count: usize) -> String {
    let rest: String = (0..count).map(|i| format!(r#",{{"name":"g{i}","type":{kind}}}"#)).collect();
    record(&format!(r#"{{"name":"f","type":{definition}}}{rest}"#))
}

/// Schema texts that stand for more than they say, and a part of the refusal; none where all is well.
fn deep_schemas() -> Vec<(&'static str, String, &'static str)> {
    let deep = |open: &str, close: &str| format!("{}\"int\"{}", open.repeat(100_000), close.repeat(100_000));
    let field = |kind: &str| record(&format!(r#"{{"name":"f","type":{kind}}}"#));
    let chain: String = (1..20_000)
        .map(|i| {
            format!(
                r#",{{"name":"f{i}","type":{{"type":"record","name":"T{i}","fields":[{{"name":"p","type":"T{}"}}]}}}}"#,
                i - 1
            )
        })
        .collect();
    let fixed = |size: &str| field(&format!(r#"{{"type":"fixed","name":"F","size":{size}}}"#));
    vec![
        ("100 000 arrays", field(&deep(r#"{"type":"array","items":"#, "}")), "bytes, the limit is"),
        ("100 000 unions", field(&deep("[", "]")), "not json"),
        ("100 000 types", field(&deep(r#"{"type":"#, "}")), "not json"),
        ("100 000 open brackets", "[".repeat(100_000), "not json"),
        (
            "a chain of 20 000 names",
            record(&format!(r#"{{"name":"f0","type":{{"type":"record","name":"T0","fields":[]}}}}{chain}"#)),
            "nested more than 64 deep",
        ),
        ("a type that contains itself", record(r#"{"name":"next","type":["null","R"]}"#), "contains itself"),
        ("fixed(2^31)", fixed("2147483648"), "a fixed of 2147483648 bytes"),
        ("fixed(2^31 - 1)", fixed("2147483647"), "a fixed of 2147483647 bytes"),
        ("fixed(2^64 - 1)", fixed("18446744073709551615"), "a fixed of 18446744073709551615 bytes"),
        ("fixed(1e300)", fixed("1e300"), "a fixed without a size"),
        ("fixed(-1)", fixed("-1"), "a fixed without a size"),
    ]
}

/// Schemas that say little and mean much.
fn wide_schemas() -> Vec<(&'static str, String, &'static str)> {
    let field = |kind: &str| record(&format!(r#"{{"name":"f","type":{kind}}}"#));
    let word = "x".repeat(1 << 20);
    let symbols: String = (0..60_000).map(|i| format!(r#","S{i}""#)).collect();
    let spaced = |i: usize| format!(r#",{{"name":"f{i}","type":{{"type":"fixed","name":"F{i}","size":1}}}}"#);
    let many = (0..15_000).map(spaced).collect::<String>();
    let branches: String = (0..30_000).map(|i| format!(r#",{{"type":"fixed","name":"F{i}","size":1}}"#)).collect();
    vec![
        (
            "a symbol of 1 MiB in 10 000 fields",
            mentions(&format!(r#"{{"type":"enum","name":"T","symbols":["{word}"]}}"#), r#""T""#, 10_000),
            "bytes of names, docs and symbols",
        ),
        (
            "60 000 symbols in 10 000 fields",
            mentions(&format!(r#"{{"type":"enum","name":"T","symbols":["S"{symbols}]}}"#), r#""T""#, 10_000),
            "bytes of names, docs and symbols",
        ),
        (
            "a doc of 1 MiB in 9 000 fields",
            mentions(
                &format!(r#"{{"type":"record","name":"T","fields":[{{"name":"a","type":"int","doc":"{word}"}}]}}"#),
                r#""T""#,
                9_000,
            ),
            "bytes of names, docs and symbols",
        ),
        ("a field name of 1 MiB", record(&format!(r#"{{"name":"{word}","type":"int"}}"#)), "more than 1024 bytes"),
        (
            "a namespace of 1 MiB around 15 000 types",
            format!(
                r#"{{"type":"record","name":"R","namespace":"{word}","fields":[{{"name":"f","type":"int"}}{many}]}}"#
            ),
            "more than 1024 bytes",
        ),
        (
            "5 000 nulls of 1 MiB",
            mentions(r#"["null",{"type":"fixed","name":"T","size":1048576}]"#, r#"["null","T"]"#, 5_000),
            "bytes even where all is null",
        ),
        ("a type named by 1 MiB", field(&format!("\"{word}\"")), "more than 1024 bytes"),
        (
            "a union of 10 000",
            field(&format!("[\"null\"{}]", &branches[..branches.match_indices(",{").nth(10_000).unwrap().0])),
            "",
        ),
        ("a union of 30 000", field(&format!("[\"null\"{branches}]")), "more than 20000 types"),
        ("6 000 columns", mentions(r#""int""#, r#"["null","long"]"#, 6_000), ""),
        ("3 MiB of spaces", " ".repeat(3 << 20), "bytes, the limit is"),
        ("objects of one attribute", format!("[{}0]", r#"{"":0},"#.repeat(290_000)), "value schema"),
        (
            "a decimal of 10^18 digits",
            field(r#"{"type":"bytes","logicalType":"decimal","precision":1000000000000000000}"#),
            "",
        ),
        (
            "200 000 aliases",
            record(&format!(r#"{{"name":"f","type":"int","aliases":["a"{}]}}"#, r#","b""#.repeat(200_000))),
            "",
        ),
        ("nothing", String::new(), "not json"),
        ("not utf-16", r#""\ud800""#.into(), "not json"),
    ]
}

/// E6, D9
#[test]
fn no_schema_takes_more_memory_time_or_stack_than_there_is() {
    for (what, text, refusal) in [deep_schemas(), wide_schemas()].concat() {
        let (as_table, memory) = confined(what, {
            let text = text.clone();
            move || table_schema(&text, None, &append(), 3).map(drop).map_err(|e| e.to_string())
        });
        let said = as_table.err().unwrap_or_default();
        assert!(said.contains(refusal) && said.is_empty() == refusal.is_empty(), "{what}: {said:.300}");
        assert!(said.len() < 4096, "{what}: a refusal of {} bytes", said.len());
        assert!(memory < 300 << 20, "{what} as a table took {memory} bytes");
        let (_, memory) = confined(what, move || {
            let mut decoder = decoder(&record(r#"{"name":"f","type":["null","string"]}"#));
            (decoder.add_value_schema(2, &text).is_ok(), decoder.add_key_schema(3, &text).is_ok())
        });
        assert!(memory < 300 << 20, "{what} as a writer's schema took {memory} bytes");
    }
}

/// What the records below are read into, and an id 2 whose `skipped` the table does not know.
fn two_schemas() -> (String, String) {
    let wide: String = (0..500).map(|i| format!(r#",{{"name":"c{i}","type":["null","long"]}}"#)).collect();
    let wide = format!(r#"{{"type":"record","name":"W","fields":[{{"name":"a","type":["null","int"]}}{wide}]}}"#);
    let deep = format!("{}\"int\"{}", r#"{"type":"array","items":"#.repeat(30), "}".repeat(30));
    let base = format!(
        r#"{{"name":"text","type":"string"}},{{"name":"list","type":{{"type":"array","items":["null",{wide}]}}}},
           {{"name":"map","type":{{"type":"map","values":"int"}}}},{{"name":"deep","type":{deep}}}"#
    );
    let skipped = r#",{"name":"skipped","type":["null",{"type":"array","items":"null"},{"type":"fixed","name":"Huge","size":2147483647},
        {"type":"map","values":{"type":"array","items":{"type":"record","name":"Empty","fields":[]}}}]}"#;
    (record(&base), record(&format!("{base}{skipped}")))
}

/// Bodies by schema id, with the code of the reason for which each is refused; none where it is a row.
fn bodies() -> Vec<(&'static str, u32, Vec<u8>, &'static str)> {
    let text = |len: i64| [long(len), b"ab".to_vec()].concat();
    let list = |block: Vec<u8>| [long(0), block, vec![0, 0]].concat();
    let map = |block: Vec<u8>| [vec![0, 0], block, vec![0]].concat();
    let skipped = |value: Vec<u8>| [vec![0, 0, 0, 0], value].concat();
    let entries = |count: usize| [long(count as i64), [2, b'k', 0].repeat(count), vec![0]].concat();
    vec![
        ("1 GiB of text", 1, text(1 << 30), "bad_length"),
        ("i64::MAX of text", 1, text(i64::MAX), "bad_length"),
        ("i64::MIN of text", 1, text(i64::MIN), "bad_length"),
        ("i64::MAX items", 1, list(long(i64::MAX)), "bad_block"),
        ("i64::MIN items", 1, list([long(i64::MIN), long(1)].concat()), "bad_block"),
        ("i64::MIN + 1 items", 1, list([long(i64::MIN + 1), long(1)].concat()), "bad_block"),
        ("a block of i64::MAX bytes", 1, list([long(-1), long(i64::MAX)].concat()), "bad_block"),
        ("a block of i64::MIN bytes", 1, list([long(-1), long(i64::MIN)].concat()), "bad_block"),
        ("a negative block", 1, list([long(-2), long(2), vec![0, 0], vec![0]].concat()), ""),
        ("i64::MAX entries", 1, map(long(i64::MAX)), "bad_block"),
        ("i64::MIN entries", 1, map([long(i64::MIN), long(1)].concat()), "bad_block"),
        ("1 000 000 null items of 501 columns", 1, list([long(1_000_000), vec![0; 1_000_000]].concat()), "too_large"),
        (
            "a body of nothing but open blocks",
            1,
            [vec![0, 0, 0], vec![2; 1 << 20]].concat(),
            "bad_varint bad_block truncated trailing_bytes",
        ),
        ("30 arrays in each other", 1, [vec![0, 0, 0], vec![2; 30], vec![0; 31]].concat(), ""),
        ("1 000 000 entries", 1, map(entries(1_000_000)), ""),
        ("a body beyond the limit", 1, vec![0; RECORD_BYTES_MAX], "too_large"),
        ("i64::MAX nulls that are passed over", 2, skipped([vec![2], long(i64::MAX), vec![0]].concat()), "bad_block"),
        (
            "300 000 000 nulls that are passed over",
            2,
            skipped([vec![2], long(300_000_000), vec![0]].concat()),
            "bad_block",
        ),
        ("60 000 nulls that are passed over", 2, skipped([vec![2], long(60_000), vec![0]].concat()), ""),
        ("fixed(2^31 - 1) that is passed over", 2, skipped(vec![4, 1, 2, 3]), "truncated"),
        (
            "empty records in every entry",
            2,
            skipped([vec![6], long(3), [&[2, b'k'][..], &long(60_000), &[0]].concat().repeat(3), vec![0]].concat()),
            "bad_block",
        ),
        ("an endless varint", 1, vec![0xff; 1 << 20], "bad_varint"),
    ]
}

/// What became of one record between two good ones, which stay as they are.
fn between_good_ones(id: u32, body: &[u8]) -> Option<BadRecord> {
    let (first, second) = two_schemas();
    let mut decoder = decoder(&first);
    decoder.add_value_schema(2, &second).unwrap();
    let topic: Arc<str> = Arc::from("t");
    let mut push = |id: u32, body: &[u8]| {
        let value = [&[0][..], &id.to_be_bytes(), body].concat();
        decoder.push(&Event { topic: &topic, partition: 0, offset: 0, timestamp_ms: 0, key: None, value: Some(&value) })
    };
    assert_eq!(push(1, &[0, 0, 0, 0]), Pushed::Row);
    let pushed = push(id, body);
    assert_eq!(push(1, &[4, b'o', b'k', 0, 0, 0]), Pushed::Row);
    let batch = decoder.finish().unwrap().batch;
    batch.columns().iter().for_each(|c| c.to_data().validate_full().unwrap());
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

/// E5, INV-16
#[test]
fn no_record_takes_more_memory_time_or_stack_than_there_is() {
    for (what, id, body, reasons) in bodies() {
        let (bad, memory) = confined(what, move || between_good_ones(id, &body));
        let code = bad.map_or("", |bad| bad.reason.code());
        assert!(reasons.split(' ').any(|reason| reason == code), "{what}: {code}, and not {reasons}");
        assert!(memory < 300 << 20, "{what} took {memory} bytes");
    }
}

/// Types that contain themselves, as JSON: each is planned once, however often it is mentioned, and a record of any depth or
/// width is refused in bounded memory, time and stack.
#[test]
fn no_recursive_type_takes_more_memory_time_or_stack_than_there_is() {
    let inside = |i: usize| {
        format!(
            r#",{{"name":"f{i}","type":["null",{{"type":"record","name":"T{i}","fields":[{{"name":"r","type":["null","R"]}},
                {{"name":"t","type":{{"type":"array","items":"T{i}"}}}}]}}]}}"#
        )
    };
    let many =
        record(&format!(r#"{{"name":"next","type":["null","R"]}}{}"#, (0..2_000).map(inside).collect::<String>()));
    let symbol = "s".repeat(100_000);
    let wide = record(&format!(
        r#"{{"name":"next","type":{{"type":"array","items":"R"}}}},
           {{"name":"s","type":{{"type":"enum","name":"E","symbols":["{symbol}"]}}}}"#
    ));
    let list = record(r#"{"name":"next","type":["null","R"]}"#);
    let shape = EventShape { recursive_types: RecursiveTypes::Json, ..append() };
    let body = |first: Vec<u8>| [vec![0, 0, 0, 0, 1], first].concat();
    for (what, schema, value, code) in [
        ("2 000 types that mention the root", many, body(vec![0; 2_001]), ""),
        ("60 000 000 records in each other", list, body(vec![2; 60 << 20]), "too_deep"),
        ("10 000 symbols of 100 kB", wide, body([long(10_000), vec![0; 20_000], vec![0, 0]].concat()), "too_large"),
    ] {
        let shape = shape.clone();
        let (found, memory) = confined(what, move || {
            let table = table_schema(&schema, None, &shape, 3).unwrap();
            let mut decoder = Decoder::new(&table, &shape, Box::new(|_| Ok(Vec::new()))).unwrap();
            decoder.add_value_schema(1, &schema).unwrap();
            let topic: Arc<str> = Arc::from("t");
            let value = Some(value.as_slice());
            let event = Event { topic: &topic, partition: 0, offset: 0, timestamp_ms: 0, key: None, value };
            match decoder.push(&event) {
                Pushed::Bad(bad) => bad.reason.code(),
                other => {
                    assert_eq!(other, Pushed::Row);
                    ""
                }
            }
        });
        assert_eq!(found, code, "{what}");
        assert!(memory < 400 << 20, "{what} took {memory} bytes");
    }
}

/// A file of settings comes from the operator, who may paste anything.
#[test]
fn no_settings_take_more_stack_than_there_is() {
    for (what, text) in [
        ("100 000 lists", "[".repeat(100_000)),
        ("100 000 maps", "{a: ".repeat(100_000)),
        ("100 000 indents", (0..1_000).map(|i| format!("{}a:\n", " ".repeat(i))).collect()),
        (
            "aliases of aliases",
            "a: &a [x, x]\n".to_owned()
                + &(0..25)
                    .map(|i| {
                        format!("b{i}: &b{i} [*{0}, *{0}]\n", if i == 0 { "a".into() } else { format!("b{}", i - 1) })
                    })
                    .collect::<String>(),
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("firn.yaml");
        std::fs::write(&path, text).unwrap();
        let (loaded, memory) = confined(what, move || Settings::load(&path).is_ok());
        assert!(!loaded, "{what}");
        assert!(memory < 300 << 20, "{what} took {memory} bytes");
    }
}

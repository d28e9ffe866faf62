//! Timestamps of JSON and Protobuf, whose producers print as many digits as their clocks have.

use super::*;

const JSON: &str = r#"{"type":"object","properties":{"at":{"type":"string","format":"date-time"}},"required":["at"]}"#;
const PROTOBUF: &str = "syntax = \"proto3\"; import \"google/protobuf/timestamp.proto\";
    message M { google.protobuf.Timestamp at = 1; }";

fn schema(kind: SchemaKind) -> ValueSchema {
    let text = if kind == SchemaKind::Json { JSON } else { PROTOBUF };
    ValueSchema::parse(&SchemaText::new(kind, text)).unwrap()
}

/// The bodies of a time in both encodings.
fn bodies(seconds: i64, nanos: u32) -> [(SchemaKind, Vec<u8>); 2] {
    let time = chrono::DateTime::from_timestamp(seconds, nanos).unwrap();
    let json = format!(r#"{{"at":"{}"}}"#, time.to_rfc3339_opts(chrono::SecondsFormat::Nanos, true)).into_bytes();
    let varint = |value: u64| long(((value >> 1) as i64) ^ -((value & 1) as i64));
    let inner = [&[8][..], &varint(seconds as u64), &[16], &varint(nanos.into())].concat();
    let protobuf = [&[0, 10, inner.len() as u8][..], &inner].concat();
    [(SchemaKind::Json, json), (SchemaKind::Protobuf, protobuf)]
}

/// What a time becomes in a table of this format version, and how many times lost digits.
fn read(kind: SchemaKind, body: &[u8], shape: &EventShape, version: u8) -> (String, u64) {
    let schema = Arc::new(schema(kind));
    let table = schema.table_schema(None, shape, version).unwrap();
    let mut decoder = Decoder::new(&table, shape, encode()).unwrap();
    decoder.add_values(1, &schema).unwrap();
    let pushed = push(&mut decoder, 0, None, Some(&wire(1, body)));
    let cut = decoder.take_cut_times();
    assert_eq!(decoder.take_cut_times(), 0);
    match pushed {
        Pushed::Row => (render(decoder.finish().unwrap().batch.column(0), 0), cut),
        other => (reason(&other).map(Reason::code).unwrap_or("none").to_owned(), cut),
    }
}

#[test]
fn digits_finer_than_microseconds_are_cut_and_counted_or_refused_or_kept() {
    use Nanoseconds::{Keep, Reject, Truncate};
    for (seconds, nanos, nanoseconds, version, expected, cut) in [
        (1, 123_456_000, Truncate, 2, "1123456 usZ", 0),
        (1, 123_456_000, Reject, 2, "1123456 usZ", 0),
        (1, 123_456_000, Keep, 3, "1123456000 nsZ", 0),
        (1, 123_456_789, Truncate, 2, "1123456 usZ", 1),
        (1, 123_456_789, Truncate, 3, "1123456 usZ", 1),
        (1, 123_456_789, Reject, 3, "out_of_range", 0),
        (1, 123_456_789, Keep, 3, "1123456789 nsZ", 0),
        // Before 1970 as after it, the past is what is left.
        (-1, 999_999_999, Truncate, 2, "-1 usZ", 1),
        (-1, 1, Truncate, 2, "-1000000 usZ", 1),
        (-1, 1, Keep, 3, "-999999999 nsZ", 0),
        // Nanoseconds go from 1677 to 2262.
        (253_402_300_799, 0, Truncate, 2, "253402300799000000 usZ", 0),
        (253_402_300_799, 0, Keep, 3, "out_of_range", 0),
        (-9_223_372_037, 145_224_192, Keep, 3, "-9223372036854775808 nsZ", 0),
        (-9_223_372_037, 145_224_191, Keep, 3, "out_of_range", 0),
    ] {
        for (kind, body) in bodies(seconds, nanos) {
            let shape = EventShape { nanoseconds, ..append() };
            let found = read(kind, &body, &shape, version);
            assert_eq!(found, (expected.to_owned(), cut), "{kind:?} {seconds} {nanos} {nanoseconds:?} v{version}");
        }
    }
}

#[test]
fn tables_without_nanoseconds_refuse_to_keep_them() {
    let shape = EventShape { nanoseconds: Nanoseconds::Keep, ..append() };
    for kind in [SchemaKind::Json, SchemaKind::Protobuf] {
        let refused = schema(kind).table_schema(None, &shape, 2).unwrap_err();
        assert!(refused.to_string().contains("field `at`: `nanoseconds: keep` needs a table of format version 3"));
    }
}

#[test]
fn keys_and_columns_of_nanoseconds_never_lose_digits() {
    let keyed = upsert(&["at"]);
    let nanos = EventShape { nanoseconds: Nanoseconds::Keep, ..append() };
    for (kind, body) in bodies(1, 123_456_789) {
        assert_eq!(read(kind, &body, &keyed, 2), ("out_of_range".to_owned(), 0), "{kind:?}");
        // A table that has nanoseconds gets them, whatever the setting is.
        let schema = Arc::new(schema(kind));
        let table = schema.table_schema(None, &nanos, 3).unwrap();
        let mut decoder = Decoder::new(&table, &append(), encode()).unwrap();
        decoder.add_values(1, &schema).unwrap();
        assert_eq!(push(&mut decoder, 0, None, Some(&wire(1, &body))), Pushed::Row);
        assert_eq!(render(decoder.finish().unwrap().batch.column(0), 0), "1123456789 nsZ");
    }
    for (kind, body) in bodies(1, 123_456_000) {
        assert_eq!(read(kind, &body, &keyed, 2), ("1123456 usZ".to_owned(), 0), "{kind:?}");
    }
}

#[test]
fn the_digits_that_producers_print_are_read() {
    let read = |text: &str, nanoseconds| {
        let version = if nanoseconds == Nanoseconds::Keep { 3 } else { 2 };
        let shape = EventShape { nanoseconds, ..append() };
        read(SchemaKind::Json, format!(r#"{{"at":"{text}"}}"#).as_bytes(), &shape, version)
    };
    for (text, micros, cut, nanos) in [
        // Java's Instant, in its four lengths.
        ("1970-01-01T00:00:01Z", "1000000 usZ", 0, "1000000000 nsZ"),
        ("1970-01-01T00:00:01.250Z", "1250000 usZ", 0, "1250000000 nsZ"),
        ("1970-01-01T00:00:01.250001Z", "1250001 usZ", 0, "1250001000 nsZ"),
        ("1970-01-01T00:00:01.250001002Z", "1250001 usZ", 1, "1250001002 nsZ"),
        // Go's RFC3339Nano leaves zeros out at the end, Python's isoformat has six digits and an offset, .NET's has seven.
        ("1970-01-01T02:00:01.25000001+02:00", "1250000 usZ", 1, "1250000010 nsZ"),
        ("1970-01-01T00:00:01.250001+00:00", "1250001 usZ", 0, "1250001000 nsZ"),
        ("1970-01-01T00:00:01.2500010Z", "1250001 usZ", 0, "1250001000 nsZ"),
        // Zeros say nothing, however many there are.
        ("1970-01-01T00:00:01.250000000000000Z", "1250000 usZ", 0, "1250000000 nsZ"),
        ("1970-01-01T00:00:01.2500000000001Z", "1250000 usZ", 1, "out_of_range"),
    ] {
        assert_eq!(read(text, Nanoseconds::Truncate), (micros.to_owned(), cut), "{text}");
        assert_eq!(read(text, Nanoseconds::Keep).0, nanos, "{text}");
        let rejected = read(text, Nanoseconds::Reject).0;
        assert_eq!(rejected, if cut == 1 { "out_of_range" } else { micros }, "{text}");
    }
}

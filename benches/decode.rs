//! What decoding costs: CPU nanoseconds per market-data event of about 46 bytes, keys and lineage included.
//!
//! `cargo bench --bench decode`. The figure is CPU time of the thread, not wall time, so that a busy machine does not
//! change it much; each line is the best of several rounds.

#![allow(
    missing_docs,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark prints its figures and stops at the first surprise"
)]

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::Int64Type;
use arrow_avro::reader::ReaderBuilder;
use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};
use firn::avro::{
    Decoder, DeleteBy, EncodeKeys, Event, EventShape, Mode, Nanoseconds, Pushed, RecursiveTypes, Types, table_schema,
};
use firn::core::change::Key;

const EVENTS: usize = 1_000_000;
const BATCH: usize = 65_536;
const ROUNDS: usize = 5;

const SCHEMA: &str = r#"{"type":"record","name":"MarketEvent","fields":[
    {"name":"symbol","type":"string"},{"name":"id","type":"long"},
    {"name":"event_type","type":{"type":"enum","name":"EventType","symbols":["TRADE","QUOTE","CANCEL","CORRECT"]}},
    {"name":"price","type":["null","double"]},{"name":"bid","type":["null","double"]},{"name":"ask","type":["null","double"]},
    {"name":"qty","type":["null","long"]},{"name":"venue","type":"string"},
    {"name":"ts","type":{"type":"long","logicalType":"timestamp-millis"}}]}"#;

fn main() {
    let messages = messages();
    let bytes: usize = messages.iter().map(Vec::len).sum();
    println!("{EVENTS} events of {:.1} bytes, batches of {BATCH}", bytes as f64 / EVENTS as f64);
    let append = EventShape {
        mode: Mode::Append,
        key: None,
        record_key: None,
        order_by: None,
        delete: DeleteBy::Tombstone,
        lineage: None,
        types: Types::Any,
        recursive_types: RecursiveTypes::Refuse,
        nanoseconds: Nanoseconds::Truncate,
    };
    let upsert = EventShape { mode: Mode::Upsert, key: Some(vec!["id".into()]), ..append.clone() };
    let lineage = EventShape { lineage: Some("_kafka".into()), ..upsert.clone() };
    let ordered = EventShape { order_by: Some("ts".into()), ..lineage.clone() };
    let plain = Stream::default();
    let two_ids = Stream { two_ids: true, ..Stream::default() };
    let bad_ones = Stream { bad_ones: true, ..Stream::default() };
    report("append", || decode(&messages, &append, &plain));
    report("upsert", || decode(&messages, &upsert, &plain));
    report("upsert, lineage", || decode(&messages, &lineage, &plain));
    report("upsert, lineage, order_by", || decode(&messages, &ordered, &plain));
    report("upsert, lineage, two schema ids in turn", || decode(&messages, &lineage, &two_ids));
    report("upsert, lineage, one bad record in 1000", || decode(&messages, &lineage, &bad_ones));
    report("arrow-avro (no keys, no lineage)", || arrow_avro(&messages));
}

fn report(what: &str, mut run: impl FnMut() -> usize) {
    let best = (0..ROUNDS)
        .map(|_| {
            let start = cpu_nanos();
            assert_eq!(run(), EVENTS);
            cpu_nanos() - start
        })
        .min()
        .unwrap_or_default();
    println!("{what:<42} {:>7.1} ns CPU/event", best as f64 / EVENTS as f64);
}

/// How the events of a run differ from the messages.
#[derive(Default)]
struct Stream {
    /// Every other one names schema id 1.
    two_ids: bool,
    /// Every thousandth is without its last byte; what it costs to reject them, with the other rows unharmed.
    bad_ones: bool,
}

fn decode(messages: &[Vec<u8>], shape: &EventShape, stream: &Stream) -> usize {
    let table = table_schema(SCHEMA, None, shape, 3).unwrap();
    let mut decoder = Decoder::new(&table, shape, encode()).unwrap();
    for id in 0..=u32::from(stream.two_ids) {
        decoder.add_value_schema(id, SCHEMA).unwrap();
    }
    let topic: Arc<str> = Arc::from("market.trades");
    let (mut rows, mut rejected) = (0, 0);
    for (i, message) in messages.iter().enumerate() {
        let named;
        let value = if stream.two_ids && i % 2 == 1 {
            named = renamed(message);
            named.as_slice()
        } else {
            message.as_slice()
        };
        let bad = stream.bad_ones && i % 1000 == 999;
        let value = &value[..value.len() - usize::from(bad)];
        let partition = (i / 500 % 4) as i32;
        let event =
            Event { topic: &topic, partition, offset: i as i64, timestamp_ms: 1_000, key: None, value: Some(value) };
        match decoder.push(&event) {
            Pushed::Row => {}
            Pushed::Bad(reason) => {
                assert!(bad, "{reason}");
                rejected += std::hint::black_box(reason.to_string()).len().min(1);
            }
            other => panic!("{other:?}"),
        }
        if decoder.events() == BATCH || i + 1 == messages.len() {
            rows += std::hint::black_box(decoder.finish().unwrap()).batch.num_rows();
        }
    }
    rows + rejected
}

/// The message under schema id 1, without an allocation.
fn renamed(message: &[u8]) -> Slot {
    let mut slot = Slot { bytes: [0; 96], len: message.len() };
    slot.bytes[..message.len()].copy_from_slice(message);
    slot.bytes[4] = 1;
    slot
}

struct Slot {
    bytes: [u8; 96],
    len: usize,
}

impl Slot {
    fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Stands for the key index's encoder: a bijection of the 64-bit key.
fn encode() -> EncodeKeys {
    Box::new(|columns: &[ArrayRef]| {
        let ids = columns.first().ok_or("no key column")?.as_primitive::<Int64Type>();
        Ok(ids.values().iter().map(|id| Key(u128::from((*id as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)))).collect())
    })
}

fn arrow_avro(messages: &[Vec<u8>]) -> usize {
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    store.set(Fingerprint::Id(0), AvroSchema::new(SCHEMA.to_string())).unwrap();
    let mut decoder =
        ReaderBuilder::new().with_writer_schema_store(store).with_batch_size(BATCH).build_decoder().unwrap();
    let mut rows = 0;
    for message in messages {
        assert_eq!(decoder.decode(message).unwrap(), message.len());
        if decoder.batch_is_full() {
            rows += std::hint::black_box(decoder.flush().unwrap()).map_or(0, |b| b.num_rows());
        }
    }
    rows + decoder.flush().unwrap().map_or(0, |b| b.num_rows())
}

fn messages() -> Vec<Vec<u8>> {
    let symbols = ["AAPL", "MSFT", "GOOGL", "NVDA", "AMZN", "TSLA"];
    let venues = ["XNAS", "XNYS", "BATS"];
    let mut state = 42u64;
    let mut random = move || {
        // Xorshift: the same events on every run.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..EVENTS)
        .map(|i| {
            let mut out = vec![0, 0, 0, 0, 0];
            let quote = random() % 2 == 0;
            text(&mut out, symbols[random() as usize % symbols.len()]);
            long(&mut out, (random() % 1_000_000) as i64);
            long(&mut out, i64::from(quote));
            for present in [!quote, quote, quote] {
                out.push(if present { 2 } else { 0 });
                if present {
                    out.extend_from_slice(&((random() % 100_000) as f64 / 100.0).to_le_bytes());
                }
            }
            out.push(2);
            long(&mut out, (random() % 10_000) as i64);
            text(&mut out, venues[random() as usize % venues.len()]);
            long(&mut out, 1_760_000_000_000 + i as i64);
            out
        })
        .collect()
}

fn text(out: &mut Vec<u8>, value: &str) {
    long(out, value.len() as i64);
    out.extend_from_slice(value.as_bytes());
}

fn long(out: &mut Vec<u8>, value: i64) {
    let mut raw = ((value << 1) ^ (value >> 63)) as u64;
    while raw >= 0x80 {
        out.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}

fn cpu_nanos() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid, writable timespec for the length of the call.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(failed, 0);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

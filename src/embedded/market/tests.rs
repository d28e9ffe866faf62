use std::collections::{HashMap, HashSet};

use apache_avro::Schema;
use apache_avro::types::Value;

use super::{EventType, HEADER_LEN, INSTRUMENTS, KEY_SCHEMA, Market, Tick, VALUE_SCHEMA, VENUES};

fn decode(schema: &Schema, mut bytes: &[u8]) -> Vec<(String, Value)> {
    let value = apache_avro::from_avro_datum(schema, &mut bytes, None).unwrap();
    assert!(bytes.is_empty(), "bytes left after the record");
    let Value::Record(fields) = value else { panic!("not a record") };
    fields
}

fn optional(index: u32, value: Option<Value>) -> Value {
    value.map_or(Value::Union(0, Box::new(Value::Null)), |v| Value::Union(index, Box::new(v)))
}

fn as_avro(tick: &Tick) -> Vec<(String, Value)> {
    let double = |v: Option<f64>| optional(1, v.map(Value::Double));
    let kind = Value::Enum(tick.event_type as u32, tick.event_type.symbol().into());
    [
        ("symbol", Value::String(tick.symbol.into())),
        ("id", Value::Long(tick.id)),
        ("event_type", kind),
        ("price", double(tick.price)),
        ("bid", double(tick.bid)),
        ("ask", double(tick.ask)),
        ("qty", optional(1, tick.qty.map(Value::Long))),
        ("venue", Value::String(tick.venue.into())),
        ("ts", Value::TimestampMillis(tick.ts)),
    ]
    .map(|(name, value)| (name.to_string(), value))
    .to_vec()
}

#[test]
fn the_hand_written_bytes_are_what_the_avro_library_reads() {
    let (value_schema, key_schema) = (Schema::parse_str(VALUE_SCHEMA).unwrap(), Schema::parse_str(KEY_SCHEMA).unwrap());
    let mut market = Market::new(7, 1_000_000, 0.1).with_schema_ids(0x0102_0304, 9).with_late_share(0.1);
    let mut tombstones = 0;
    for _ in 0..20_000 {
        let event = market.next_event();
        assert_eq!(event.key[..HEADER_LEN], [0, 0, 0, 0, 9]);
        assert_eq!(decode(&key_schema, &event.key[HEADER_LEN..]), [("id".to_string(), Value::Long(event.id))]);
        let (Some(value), Some(tick)) = (event.value, event.tick) else {
            tombstones += 1;
            continue;
        };
        assert_eq!(value[..HEADER_LEN], [0, 1, 2, 3, 4]);
        assert_eq!(decode(&value_schema, &value[HEADER_LEN..]), as_avro(&tick));
        assert_eq!((tick.id, tick.ts), (event.id, event.ts));
    }
    assert!((1_700..2_300).contains(&tombstones), "{tombstones} tombstones of 20 000 at a share of 0.1");
}

#[test]
fn the_same_seed_gives_the_same_events_and_another_seed_others() {
    fn stream(seed: u64) -> Vec<(Vec<u8>, Option<Vec<u8>>, i64)> {
        let mut market = Market::new(seed, 1_000, 0.05).with_zipf(0.99).with_late_share(0.05);
        (0..5_000)
            .map(|_| {
                let event = market.next_event();
                (event.key.to_vec(), event.value.map(<[u8]>::to_vec), event.ts)
            })
            .collect()
    }
    assert_eq!(stream(1), stream(1));
    assert_ne!(stream(1), stream(2));
}

#[test]
fn prices_walk_in_small_steps_with_the_bid_below_the_ask() {
    let mut market = Market::new(3, 640, 0.0);
    let mut last: HashMap<&str, f64> = HashMap::new();
    for _ in 0..200_000 {
        let tick = market.next_event().tick.unwrap();
        let middle = match tick.event_type {
            EventType::Quote => {
                let (bid, ask) = (tick.bid.unwrap(), tick.ask.unwrap());
                assert!(0.0 < bid && bid < ask && tick.price.is_none(), "{tick:?}");
                (bid + ask) / 2.0
            }
            EventType::Trade => {
                assert!(tick.qty.unwrap() > 0 && tick.bid.is_none() && tick.ask.is_none(), "{tick:?}");
                tick.price.unwrap()
            }
        };
        if let Some(before) = last.insert(tick.symbol, middle) {
            assert!((before - middle).abs() < 0.11, "{} jumped from {before} to {middle}", tick.symbol);
        }
    }
    assert_eq!(last.len(), INSTRUMENTS.len());
}

#[test]
fn symbol_and_venue_follow_from_the_key() {
    let mut market = Market::new(4, 100_000, 0.0);
    for _ in 0..10_000 {
        let tick = market.next_event().tick.unwrap();
        let id = tick.id as usize;
        assert_eq!((tick.symbol, tick.venue), (INSTRUMENTS[id % 64].0, VENUES[id / 64 % 8]));
    }
    assert_eq!(INSTRUMENTS.iter().map(|(name, _)| name).collect::<HashSet<_>>().len(), INSTRUMENTS.len());
}

#[test]
fn an_event_takes_about_46_bytes() {
    let mut market = Market::new(5, 1_000_000, 0.0);
    let bytes: usize = (0..100_000).map(|_| market.next_event().value.unwrap().len()).sum();
    let mean = bytes as f64 / 100_000.0;
    assert!((44.5..47.0).contains(&mean), "{mean} bytes");
}

#[test]
fn time_moves_on_but_for_the_late_events() {
    fn steps_back(share: f64) -> usize {
        let mut market = Market::new(6, 100, 0.0).with_late_share(share).starting_at(1_000_000);
        let times: Vec<i64> = (0..20_000).map(|_| market.next_event().ts).collect();
        assert!(times[0] >= 1_000_000 - 2_000 && times[19_999] > times[0]);
        times.windows(2).filter(|pair| pair[1] < pair[0]).count()
    }
    assert_eq!(steps_back(0.0), 0);
    assert!((500..1_500).contains(&steps_back(0.05)));
}

#[test]
fn uniform_keys_cover_the_range_and_popular_keys_dominate_under_zipf() {
    fn counts(mut market: Market) -> Vec<u32> {
        let mut counts = vec![0u32; 1_000];
        (0..100_000).for_each(|_| counts[market.next_event().id as usize] += 1);
        counts.sort_unstable_by(|a, b| b.cmp(a));
        counts
    }
    let uniform = counts(Market::new(8, 1_000, 0.0));
    assert!(uniform[0] < 150 && uniform[999] > 50, "{} {}", uniform[0], uniform[999]);
    // 1/k over 1 000 ranks: the first gets 1/7.49 of the draws, the hundredth a hundredth of that.
    let zipf = counts(Market::new(8, 1_000, 0.0).with_zipf(1.0));
    assert!((12_600..14_100).contains(&zipf[0]), "{}", zipf[0]);
    assert!((90..190).contains(&zipf[99]), "{}", zipf[99]);
}

#[test]
fn one_key_is_enough() {
    let mut market = Market::new(9, 0, 0.5).with_zipf(0.99);
    assert!((0..100).all(|_| market.next_event().id == 0));
}

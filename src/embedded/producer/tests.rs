use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Message, Offset, TopicPartitionList};

use super::super::Broker;
use super::*;

/// The partition and the values, in order, of each key.
type ByKey = HashMap<Vec<u8>, (i32, Vec<Option<Vec<u8>>>)>;

fn broker(partitions: i32) -> Broker {
    Broker::start(&[("market".into(), partitions)]).unwrap()
}

fn job(broker: &Broker, events: u64, lead_max: u64) -> Job<'_> {
    Job { bootstrap_servers: broker.bootstrap_servers(), topic: "market", events, lead_max }
}

fn reader(broker: &Broker, partitions: i32) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker.bootstrap_servers()).set("group.id", "g");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset("market", partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    consumer
}

#[test]
fn a_reader_gets_all_events_with_each_key_on_one_partition_and_in_order() {
    const EVENTS: usize = 20_000;
    let broker = broker(4);
    let stop = AtomicBool::new(false);
    let mut market = Market::new(1, 500, 0.05);
    let produced = produce(&job(&broker, EVENTS as u64, LEAD_MAX), &mut market, |_| 0, &stop).unwrap();
    assert_eq!((produced.events, produced.by_partition.iter().sum::<u64>()), (EVENTS as u64, EVENTS as u64));
    assert!(produced.by_partition.iter().all(|count| *count > 4_000), "{produced:?}");
    assert!(produced.tombstones > 700 && !produced.stopped, "{produced:?}");

    let consumer = reader(&broker, 4);
    let mut by_key: ByKey = HashMap::new();
    for _ in 0..EVENTS {
        let record = consumer.poll(Duration::from_secs(10)).unwrap().unwrap();
        let (partition, values) = by_key.entry(record.key().unwrap().to_vec()).or_insert((record.partition(), vec![]));
        assert_eq!(*partition, record.partition());
        values.push(record.payload().map(<[u8]>::to_vec));
    }
    let mut expected: ByKey = HashMap::new();
    let mut again = Market::new(1, 500, 0.05);
    for _ in 0..EVENTS {
        let event = again.next_event();
        let at = expected.entry(event.key.to_vec()).or_insert((partition_of(event.id, 4), vec![]));
        at.1.push(event.value.map(<[u8]>::to_vec));
    }
    assert!(by_key == expected);
}

#[test]
fn the_producer_waits_for_the_consumer_and_the_stop_flag_ends_the_wait() {
    let broker = broker(1);
    let (taken, stop) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicBool::new(false)));
    let asked = Arc::new(AtomicU64::new(0));
    let producing = {
        let (taken, stop, asked) = (Arc::clone(&taken), Arc::clone(&stop), Arc::clone(&asked));
        let servers = broker.bootstrap_servers().to_string();
        std::thread::spawn(move || {
            let job = Job { bootstrap_servers: &servers, topic: "market", events: 10_000, lead_max: 1_000 };
            let consumed = |_| {
                asked.fetch_add(1, Ordering::Relaxed);
                taken.load(Ordering::Relaxed)
            };
            produce(&job, &mut Market::new(2, 10, 0.0), consumed, &stop)
        })
    };
    let end = |wanted: i64| {
        let consumer = reader(&broker, 1);
        let mut high = 0;
        for _ in 0..200 {
            high = consumer.fetch_watermarks("market", 0, Duration::from_secs(10)).unwrap().1;
            if high >= wanted {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        high
    };
    assert_eq!(end(1_000), 1_000);
    let before = asked.load(Ordering::Relaxed);
    while asked.load(Ordering::Relaxed) < before + 20 {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(end(1_000), 1_000, "it went on without the consumer");
    taken.store(700, Ordering::Relaxed);
    assert_eq!(end(1_700), 1_700);
    stop.store(true, Ordering::Relaxed);
    let produced = producing.join().unwrap().unwrap();
    assert_eq!((produced.events, produced.stopped), (1_700, true));
}

#[test]
fn a_second_run_counts_from_the_end_that_it_finds() {
    let broker = broker(1);
    let stop = AtomicBool::new(false);
    let mut market = Market::new(3, 10, 0.0);
    assert_eq!(produce(&job(&broker, 100, 100), &mut market, |_| 0, &stop).unwrap().events, 100);
    // All of the first run was consumed, so there is room for as many again.
    assert_eq!(produce(&job(&broker, 100, 100), &mut market, |_| 100, &stop).unwrap().events, 100);
}

#[test]
fn a_lead_beyond_the_limit_is_cut_to_it() {
    let broker = broker(1);
    let stop = AtomicBool::new(false);
    let job = job(&broker, 0, u64::MAX);
    let producer = connect(&job).unwrap();
    let mut run = Run::new(&job, &producer).unwrap();
    assert!(run.wait_for_room(0, &|_| 0, &stop));
    assert_eq!(run.room[0], LEAD_MAX);
}

//! The source against librdkafka's own broker in this process.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use rdkafka::types::RDKafkaErrorCode;

use super::*;
use crate::Error;
use crate::core::offsets::Epoch;

/// A record or (with `None`) an end that the handler was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shown {
    partition: i32,
    offset: i64,
    epoch: u64,
    value: Option<u64>,
}

/// What a test sees and steers of a handler.
#[derive(Default)]
struct Seen {
    shown: Mutex<Vec<Shown>>,
    /// How many more records are taken; below zero there is no limit.
    room: AtomicI64,
    refused: AtomicBool,
}

struct Recorder(Arc<Seen>);

impl Handler for Recorder {
    fn on_message(&mut self, message: &Message<'_>) -> Flow {
        match self.0.room.load(Ordering::SeqCst) {
            0 => {
                self.0.refused.store(true, Ordering::SeqCst);
                return Flow::Full;
            }
            n if n > 0 => {
                self.0.room.fetch_sub(1, Ordering::SeqCst);
            }
            _ => {}
        }
        let value = message.value.map(|v| u64::from_be_bytes(v.try_into().unwrap()));
        assert!(message.timestamp_ms > 1_500_000_000_000, "{}", message.timestamp_ms);
        assert_eq!(message.key, Some(&b"k"[..]));
        let (partition, offset) = (message.partition.partition, message.offset);
        self.0.shown.lock().unwrap().push(Shown { partition, offset, epoch: message.epoch.0, value });
        Flow::Taken
    }

    fn on_end(&mut self, _: usize, partition: &TopicPartition, next: i64, epoch: Epoch) -> Flow {
        let end = Shown { partition: partition.partition, offset: next, epoch: epoch.0, value: None };
        self.0.shown.lock().unwrap().push(end);
        Flow::Taken
    }

    fn on_idle(&mut self) {}
}

impl Seen {
    fn records(&self) -> Vec<Shown> {
        self.shown.lock().unwrap().iter().copied().filter(|s| s.value.is_some()).collect()
    }

    fn of(&self, epoch: u64) -> Vec<Shown> {
        self.records().into_iter().filter(|s| s.epoch == epoch).collect()
    }

    fn ends(&self, epoch: u64) -> BTreeSet<(i32, i64)> {
        let shown = self.shown.lock().unwrap();
        shown.iter().filter(|s| s.value.is_none() && s.epoch == epoch).map(|s| (s.partition, s.offset)).collect()
    }
}

fn seen() -> Arc<Seen> {
    Arc::new(Seen { room: AtomicI64::new(-1), ..Seen::default() })
}

fn config(brokers: &str, group: &str) -> SourceConfig {
    SourceConfig {
        brokers: brokers.to_owned(),
        // Members hear of a rebalance from their heartbeats.
        properties: BTreeMap::from([("heartbeat.interval.ms".into(), "200".into())]),
        group: group.to_owned(),
        topics: vec!["t".into()],
        queue_bytes: 8 << 20,
        revoke_patience: Duration::from_secs(10),
    }
}

fn source(brokers: &str, group: &str, seen: &Arc<Seen>) -> Source {
    Source::start(&config(brokers, group), Box::new(Recorder(seen.clone()))).unwrap()
}

fn cluster(partitions: i32) -> MockCluster<'static, DefaultProducerContext> {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", partitions, 1).unwrap();
    cluster
}

/// Sends `from..to`, round robin over the partitions; value n is at offset n / partitions.
fn produce(brokers: &str, partitions: u64, range: std::ops::Range<u64>) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("linger.ms", "20")
        .set("compression.type", "lz4")
        .set("queue.buffering.max.messages", "1000000")
        .create()
        .unwrap();
    for n in range {
        let value = n.to_be_bytes();
        let partition = i32::try_from(n % partitions).unwrap();
        let mut record = BaseRecord::to("t").partition(partition).key("k").payload(&value[..]);
        while let Err((error, back)) = producer.send(record) {
            assert_eq!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
            producer.poll(Duration::from_millis(10));
            record = back;
        }
        if n % 1000 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(Duration::from_secs(30)).unwrap();
}

async fn event(source: &mut Source) -> Event {
    tokio::time::timeout(Duration::from_secs(30), source.event())
        .await
        .expect("an event in time")
        .expect("a live thread")
}

async fn assigned(source: &mut Source) -> Vec<TopicPartition> {
    match event(source).await {
        Event::Assigned { partitions, .. } => partitions,
        other => panic!("expected an assignment, got {other:?}"),
    }
}

async fn open(source: &Source, partition: i32, offset: i64, epoch: u64) {
    let partition = TopicPartition::new("t", partition);
    source.send(Command::Open { partition, offset, epoch: Epoch(epoch) }).await.unwrap();
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(40);
    while !done() {
        assert!(Instant::now() < end, "still waiting: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Every partition's records are the offsets from `from` on, each once, in order, and the values that were produced.
fn assert_complete(records: &[Shown], partitions: u64, from: i64, per_partition: i64) {
    for p in 0..i32::try_from(partitions).unwrap() {
        let got: Vec<_> = records.iter().filter(|s| s.partition == p).map(|s| (s.offset, s.value.unwrap())).collect();
        let want: Vec<_> = (from..per_partition)
            .map(|o| (o, u64::try_from(o).unwrap() * partitions + u64::try_from(p).unwrap()))
            .collect();
        assert_eq!(got.len(), want.len(), "partition {p}");
        assert!(got == want, "partition {p} is out of order or has other values");
    }
}

#[tokio::test]
async fn a_hundred_thousand_records_arrive_once_in_order_with_their_epoch_and_the_end_is_told() {
    let cluster = cluster(4);
    let brokers = cluster.bootstrap_servers();
    produce(&brokers, 4, 0..100_000);
    let seen = seen();
    let mut source = source(&brokers, "all", &seen);
    assert_eq!(assigned(&mut source).await.len(), 4);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(seen.shown.lock().unwrap().is_empty(), "nothing is read before it is opened");
    for p in 0..4 {
        open(&source, p, 0, 10 + u64::try_from(p).unwrap()).await;
    }
    until("all records", || seen.records().len() >= 100_000).await;
    assert_complete(&seen.records(), 4, 0, 25_000);
    assert!(seen.records().iter().all(|s| s.epoch == 10 + u64::try_from(s.partition).unwrap()));
    for p in 0..4u64 {
        let end = BTreeSet::from([(i32::try_from(p).unwrap(), 25_000)]);
        until("the end", || seen.ends(10 + p).is_superset(&end)).await;
    }
    source.stop().await;
}

#[tokio::test]
async fn reopening_shows_exactly_the_records_from_there_under_the_new_epoch() {
    let cluster = cluster(2);
    let brokers = cluster.bootstrap_servers();
    produce(&brokers, 2, 0..60_000);
    let seen = seen();
    let mut source = source(&brokers, "reopen", &seen);
    assigned(&mut source).await;
    // Again and again while queues are full of records from ahead.
    for round in 0..20u64 {
        let from = 29_000 - 1_400 * i64::try_from(round).unwrap();
        open(&source, 0, from, 2 * round).await;
        open(&source, 1, from, 2 * round + 1).await;
        let some = 700 * usize::try_from(round % 3).unwrap();
        until("some records", || seen.of(2 * round).len() >= some).await;
    }
    until("the rest", || seen.of(38).len() + seen.of(39).len() >= 2 * 27_600).await;
    let last: Vec<Shown> = seen.records().into_iter().filter(|s| s.epoch >= 38).collect();
    assert_complete(&last, 2, 2_400, 30_000);
    for epoch in 0..40u64 {
        let from = 29_000 - 1_400 * i64::try_from(epoch / 2).unwrap();
        for (i, s) in seen.of(epoch).iter().enumerate() {
            assert_eq!(s.offset, from + i64::try_from(i).unwrap(), "epoch {epoch}");
        }
    }
    // Epochs do not mix: once a newer one of a partition was shown, no older one is.
    let mut newest = [0; 2];
    for s in seen.records() {
        let newest = &mut newest[usize::try_from(s.partition).unwrap()];
        assert!(s.epoch >= *newest);
        *newest = s.epoch;
    }
    source.stop().await;
}

#[tokio::test]
async fn a_full_handler_and_a_pause_lose_and_reorder_nothing() {
    let cluster = cluster(4);
    let brokers = cluster.bootstrap_servers();
    produce(&brokers, 4, 0..40_000);
    let seen = seen();
    seen.room.store(0, Ordering::SeqCst);
    let mut source = source(&brokers, "full", &seen);
    assigned(&mut source).await;
    for p in 0..4 {
        open(&source, p, 0, 1).await;
    }
    until("a refusal", || seen.refused.load(Ordering::SeqCst)).await;
    for step in 1..=20 {
        seen.room.store(997, Ordering::SeqCst);
        until("room to be used", || seen.records().len() == step * 997).await;
        if step == 10 {
            source.send(Command::Pause).await.unwrap();
            tokio::time::sleep(Duration::from_millis(150)).await;
            seen.room.store(5, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(150)).await;
            assert_eq!(seen.records().len(), step * 997, "paused");
            seen.room.store(0, Ordering::SeqCst);
            source.send(Command::Resume).await.unwrap();
        }
    }
    seen.room.store(-1, Ordering::SeqCst);
    until("all records", || seen.records().len() >= 40_000).await;
    assert_complete(&seen.records(), 4, 0, 10_000);
    source.stop().await;
}

#[tokio::test]
async fn a_closed_partition_is_silent_and_the_others_go_on() {
    let cluster = cluster(2);
    let brokers = cluster.bootstrap_servers();
    let seen = seen();
    let mut source = source(&brokers, "close", &seen);
    assigned(&mut source).await;
    open(&source, 0, 0, 1).await;
    open(&source, 1, 0, 1).await;
    produce(&brokers, 2, 0..200);
    until("the first", || seen.records().len() == 200).await;
    source.send(Command::Close(TopicPartition::new("t", 0))).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    produce(&brokers, 2, 200..400);
    until("the other", || seen.records().len() >= 300).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(seen.records().iter().filter(|s| s.partition == 0).count(), 100);
    open(&source, 0, 100, 2).await;
    until("the reopened", || seen.records().len() >= 400).await;
    assert_complete(&seen.records(), 2, 0, 200);
    source.stop().await;
}

#[tokio::test]
async fn an_offset_that_the_log_does_not_have_is_told_and_not_jumped_over() {
    let cluster = cluster(1);
    let brokers = cluster.bootstrap_servers();
    produce(&brokers, 1, 0..100);
    let seen = seen();
    let mut source = source(&brokers, "range", &seen);
    assigned(&mut source).await;
    open(&source, 0, 500, 1).await;
    match event(&mut source).await {
        Event::OutOfRange { partition, offset, epoch, .. } => {
            assert_eq!((partition, offset, epoch), (TopicPartition::new("t", 0), 500, Epoch(1)));
        }
        other => panic!("expected out of range, got {other:?}"),
    }
    assert!(seen.records().is_empty());
    open(&source, 0, 40, 2).await;
    until("the rest", || seen.records().len() >= 60).await;
    assert_complete(&seen.records(), 1, 40, 100);
    source.stop().await;
}

/// A member as a service would run it: opens what it gets at the shared position, and says what it owns.
async fn member(
    brokers: String,
    positions: Arc<Mutex<BTreeMap<i32, i64>>>,
    owners: Arc<Mutex<BTreeMap<i32, u64>>>,
    epochs: Arc<AtomicI64>,
    name: u64,
    mut stop: tokio::sync::oneshot::Receiver<()>,
) -> Vec<Shown> {
    let seen = seen();
    let mut source = source(&brokers, "pair", &seen);
    let note = |partitions: &[TopicPartition]| {
        // What a service does before it lets go: its position becomes that of the table.
        for p in partitions {
            let next = seen.records().iter().filter(|s| s.partition == p.partition).map(|s| s.offset + 1).max();
            let mut positions = positions.lock().unwrap();
            let position = positions.entry(p.partition).or_insert(0);
            *position = (*position).max(next.unwrap_or(0));
            assert_eq!(owners.lock().unwrap().remove(&p.partition), Some(name), "{p} was not ours");
        }
    };
    loop {
        let event = tokio::select! {
            event = source.event() => event.expect("a live thread"),
            _ = &mut stop => break,
        };
        match event {
            Event::Assigned { partitions, .. } => {
                for p in partitions {
                    let before = owners.lock().unwrap().insert(p.partition, name);
                    assert_eq!(before, None, "{p} has two owners");
                    let at = positions.lock().unwrap().get(&p.partition).copied().unwrap_or(0);
                    open(&source, p.partition, at, u64::try_from(epochs.fetch_add(1, Ordering::SeqCst)).unwrap()).await;
                }
            }
            Event::Revoked { partitions, done, .. } => {
                tokio::time::sleep(Duration::from_millis(200)).await;
                note(&partitions);
                done.send(()).expect("somebody waits");
            }
            other => panic!("member {name}: {other:?}"),
        }
    }
    let owned: Vec<TopicPartition> =
        owners.lock().unwrap().iter().filter(|(_, o)| **o == name).map(|(&p, _)| TopicPartition::new("t", p)).collect();
    source.send(Command::Pause).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    note(&owned);
    source.stop().await;
    seen.records()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_members_share_the_partitions_and_nobody_reads_anothers() {
    let cluster = cluster(4);
    let brokers = cluster.bootstrap_servers();
    let (positions, owners, epochs) = (Arc::default(), Arc::<Mutex<BTreeMap<i32, u64>>>::default(), Arc::default());
    let start = |name| {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let member =
            member(brokers.clone(), Arc::clone(&positions), Arc::clone(&owners), Arc::clone(&epochs), name, stopped);
        (stop, tokio::spawn(member))
    };
    let (stop_one, one) = start(1);
    until("the first owns all", || owners.lock().unwrap().len() == 4).await;
    produce(&brokers, 4, 0..20_000);
    let (stop_two, two) = start(2);
    let even = |owners: &BTreeMap<i32, u64>| owners.len() == 4 && owners.values().filter(|&&o| o == 2).count() == 2;
    until("both own two", || even(&owners.lock().unwrap())).await;
    produce(&brokers, 4, 20_000..40_000);
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop_one.send(()).unwrap();
    let mut records = one.await.unwrap();
    until("the second owns all", || owners.lock().unwrap().values().filter(|&&o| o == 2).count() == 4).await;
    produce(&brokers, 4, 40_000..60_000);
    tokio::time::sleep(Duration::from_secs(2)).await;
    stop_two.send(()).unwrap();
    records.extend(two.await.unwrap());
    records.sort_by_key(|s| (s.partition, s.offset));
    assert_complete(&records, 4, 0, 15_000);
}

#[tokio::test]
async fn a_revocation_is_not_waited_for_longer_than_patience() {
    let cluster = cluster(2);
    let brokers = cluster.bootstrap_servers();
    let seen = seen();
    let impatient = SourceConfig { revoke_patience: Duration::from_millis(300), ..config(&brokers, "patience") };
    let mut one = Source::start(&impatient, Box::new(Recorder(seen.clone()))).unwrap();
    assert_eq!(assigned(&mut one).await.len(), 2);
    let mut two = source(&brokers, "patience", &seen);
    let Event::Revoked { partitions, done, .. } = event(&mut one).await else { panic!("expected a revocation") };
    assert_eq!(partitions.len(), 1);
    // The second member gets an empty assignment first, the partition in the next round.
    let mut theirs = Vec::new();
    while theirs.is_empty() {
        theirs = assigned(&mut two).await;
    }
    assert_eq!(theirs, partitions);
    drop(done);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn an_outage_of_the_brokers_is_told_and_so_is_its_end() {
    let cluster = cluster(1);
    let brokers = cluster.bootstrap_servers();
    produce(&brokers, 1, 0..10);
    let seen = seen();
    let mut source = source(&brokers, "outage", &seen);
    assigned(&mut source).await;
    open(&source, 0, 0, 1).await;
    until("the first", || seen.records().len() == 10).await;
    cluster.broker_down(1).unwrap();
    assert!(matches!(event(&mut source).await, Event::Stalled { .. }));
    cluster.broker_up(1).unwrap();
    loop {
        match event(&mut source).await {
            Event::Recovered => break,
            // The session may have ended meanwhile.
            Event::Lost { .. } | Event::Revoked { .. } | Event::Trouble { .. } | Event::Stalled { .. } => {}
            other => panic!("expected recovery, got {other:?}"),
        }
    }
    source.stop().await;
}

#[tokio::test]
async fn topics_are_described_with_ids_partitions_and_offsets() {
    let cluster = cluster(3);
    cluster.create_topic("market.x", 1, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    produce(&brokers, 3, 0..300);
    let asker = Cluster::connect(&brokers, &BTreeMap::new(), Duration::from_secs(10)).unwrap();
    let selection = TopicSelection::parse(&["t".into()]).unwrap();
    let topology = asker.describe(&selection, Duration::from_secs(20), Duration::ZERO).await.unwrap();
    assert!(!topology.cluster_id.is_empty());
    let info = &topology.topics["t"];
    assert_eq!(info.partitions, [0, 1, 2]);
    assert!(!info.id.is_empty());
    let again = asker.describe_once(&selection).await.unwrap();
    assert_eq!(again, topology, "ids are stable");
    let earliest = asker.start_offsets(&topology, StartAt::Earliest).await.unwrap();
    assert!(earliest.len() == 3 && earliest.values().all(|s| s.offset == 0 && s.earliest));
    let latest = asker.start_offsets(&topology, StartAt::Latest).await.unwrap();
    assert!(latest.len() == 3 && latest.values().all(|s| s.offset == 100 && !s.earliest), "{latest:?}");
    let partitions: Vec<TopicPartition> = topology.partitions().map(|(p, _)| p).collect();
    let stable = asker.last_stable_offsets(&partitions).await.unwrap();
    assert!(stable.len() == 3 && stable.values().all(|&o| o == 100), "{stable:?}");
    let marks = asker.watermarks(&partitions).await.unwrap();
    assert!(marks.len() == 3 && marks.values().all(|&m| m == (0, 100)), "{marks:?}");
    let pattern = TopicSelection::parse(&[r"^market\..*".into()]).unwrap();
    let found = asker.describe_once(&pattern).await.unwrap();
    assert_eq!(found.topics.keys().map(|k| &**k).collect::<Vec<_>>(), ["market.x"]);
}

#[tokio::test]
async fn a_missing_topic_and_a_missing_broker_are_told_apart() {
    let cluster = cluster(1);
    let asker = Cluster::connect(&cluster.bootstrap_servers(), &BTreeMap::new(), Duration::from_secs(5)).unwrap();
    let selection = TopicSelection::parse(&["t".into(), "nope".into()]).unwrap();
    let error = asker.describe(&selection, Duration::from_secs(20), Duration::from_millis(600)).await.unwrap_err();
    assert!(matches!(&error, Error::Config(m) if m.contains("topic nope does not exist")), "{error:?}");
    let nobody = Cluster::connect("127.0.0.1:1", &BTreeMap::new(), Duration::from_millis(500)).unwrap();
    let error = nobody.describe(&selection, Duration::from_millis(800), Duration::ZERO).await.unwrap_err();
    assert!(matches!(&error, Error::Unreachable(m) if m.contains("no kafka broker answers")), "{error:?}");
}

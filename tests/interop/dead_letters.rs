//! Rejected records on a real broker: acknowledged before V passes them, whatever their size, and submitted again once.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::kafka::{Compression, Received, Record};
use crate::process::{FirnProcess, catch_up, eventually, firn, until_caught_up};
use crate::rows::{assert_same_rows, difference};
use crate::scenario::Scenario;
use crate::stack::Catalog;
use crate::wanted;

const LIMIT: Duration = Duration::from_secs(100);
/// The broker's default of `max.message.bytes`.
const RECORD_BYTES_MAX: usize = 1_048_588;

/// A topic and its dead letters.
struct Letters {
    scenario: Scenario,
    /// The topic of the letters.
    topic: String,
    config: PathBuf,
}

impl Letters {
    /// A topic of its own with this many partitions; none where the tests of real servers were not asked for.
    fn new(stem: &str, partitions: i32) -> Option<Letters> {
        if !wanted() {
            return None;
        }
        let scenario = Scenario::new(stem, Catalog::Sqlite, partitions);
        let topic = format!("{}.dlq", scenario.topic);
        scenario.stack.kafka.create_topic(&topic, 3, &[]);
        let more = format!("    on_bad_record: dead_letter\n    dead_letter: {{topic: {topic}}}\n");
        Some(Letters { config: scenario.config(3, &more), topic, scenario })
    }

    /// The same, with events in the table already.
    fn with_rows(stem: &str) -> Option<Letters> {
        let mut letters = Letters::new(stem, 1)?;
        letters.scenario.produce(50, 50);
        letters.catch_up();
        Some(letters)
    }

    fn all(&self) -> Vec<Received> {
        self.scenario.stack.kafka.consume(&self.topic)
    }

    /// The places of all letters in the topic that they are of, each once.
    fn places(&self) -> Vec<(i64, i64)> {
        let at = |r: &Received, name: &str| header(&r.record, &format!("__connect.errors.{name}")).parse().unwrap();
        let mut places: Vec<_> = self.all().iter().map(|r| (at(r, "partition"), at(r, "offset"))).collect();
        places.sort_unstable();
        places.dedup();
        places
    }

    fn catch_up(&self) {
        catch_up(&self.config);
    }

    #[track_caller]
    fn rows_are_right(&self) {
        assert_same_rows(&self.scenario.trino(), &self.scenario.expected());
    }

    /// The topic of the letters is another one of the same name, with these settings.
    fn recreate(&self, partitions: i32, settings: &[(&str, &str)]) {
        self.scenario.stack.kafka.delete_topic(&self.topic);
        self.scenario.stack.kafka.create_topic(&self.topic, partitions, settings);
    }

    /// A record that nobody can read, and more events behind it.
    fn poison(&mut self) {
        let mut bad = self.scenario.stray(1, 0);
        bad.value = Some(b"\x07rubbish".to_vec());
        self.scenario.send(&[bad]);
        self.scenario.produce(50, 50);
    }

    /// Record keys, which are Avro, are taken for numbers: a tombstone is a bad record. Returns what mends it.
    fn mistake_keys(&self) -> String {
        let settings = std::fs::read_to_string(&self.config).unwrap();
        std::fs::write(&self.config, settings.replace("key: [id]", "key: [id]\n    record_key: int64")).unwrap();
        settings
    }

    fn replay(&self) -> (Option<i32>, Value) {
        replay(&self.config, &self.scenario.topic)
    }
}

fn replay(config: &Path, pipeline: &str) -> (Option<i32>, Value) {
    let config = config.to_str().unwrap();
    let out = firn(["dead-letters", "replay", "-c", config, "--pipeline", pipeline, "--format", "json"]);
    let said = String::from_utf8_lossy(&out.stdout);
    (out.status.code(), serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}")))
}

fn header(record: &Record, name: &str) -> String {
    let value = record.headers.iter().rev().find(|(key, _)| key == name).and_then(|(_, value)| value.clone());
    String::from_utf8(value.unwrap_or_default()).unwrap()
}

/// E4
#[test]
fn a_record_of_the_largest_size_is_kept_and_every_letter_has_its_place() {
    let Some(mut letters) = Letters::new("letters", 2) else { return };
    letters.scenario.produce(100, 50);
    let scenario = &letters.scenario;
    // With the batch's and the record's own bytes exactly as much as the broker takes.
    let mut bytes = RECORD_BYTES_MAX - 61 - 12;
    let largest = loop {
        let value: Vec<u8> = (0..bytes as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8 | 1).collect();
        let record = Record { partition: 0, key: None, value: Some(value.clone()), ..Record::default() };
        let sent = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut way = scenario.stack.kafka.plain();
            way.push(("message.max.bytes".into(), "2000000".into()));
            scenario.stack.kafka.produce_through(&way, &scenario.topic, &[record], Compression::None)
        }));
        if sent.is_ok() {
            break value;
        }
        bytes -= 1;
        assert!(bytes > RECORD_BYTES_MAX - 200, "the broker takes far less than it says");
    };
    letters.scenario.produce(100, 50);
    letters.catch_up();
    letters.rows_are_right();
    let kept = letters.all();
    assert!(kept.len() >= 2, "it needs more than one record with its headers");
    assert!(kept.iter().all(|r| header(&r.record, "__connect.errors.topic") == letters.scenario.topic));
    let mut parts: Vec<_> =
        kept.iter().map(|r| (header(&r.record, "firn.part"), r.record.value.clone().unwrap())).collect();
    parts.sort();
    assert_eq!(parts.into_iter().flat_map(|(_, value)| value).collect::<Vec<_>>(), largest);
}

/// E3
#[test]
fn a_topic_that_takes_no_letter_stops_the_pipeline_and_v_does_not_pass() {
    let Some(mut letters) = Letters::with_rows("refused") else { return };
    let before = letters.scenario.expected();
    // Nothing fits any more, however small the parts are.
    letters.scenario.stack.kafka.delete_topic(&letters.topic);
    eventually("the topic is gone", LIMIT, || until_caught_up(&letters.config, LIMIT).0 == 2);
    letters.scenario.stack.kafka.create_topic(&letters.topic, 1, &[("max.message.bytes", "100")]);
    letters.poison();
    for _ in 0..2 {
        let (code, stderr) = until_caught_up(&letters.config, LIMIT);
        assert_eq!(code, 4, "{stderr}");
        assert!(stderr.contains(&letters.topic), "{stderr}");
        assert_same_rows(&letters.scenario.trino(), &before);
    }
    letters.recreate(1, &[]);
    letters.catch_up();
    letters.rows_are_right();
    assert_eq!(letters.all().len(), 1);
}

/// E3
#[test]
fn a_letter_that_the_broker_refuses_while_running_holds_v_back() {
    let Some(mut letters) = Letters::with_rows("unheard") else { return };
    let before = letters.scenario.expected();
    let mut process = FirnProcess::run(&letters.config, &[]);
    process.wait_for_stderr("partitions assigned", LIMIT);
    // It was told that the topic takes large records; the answer to the next one is another.
    letters.recreate(3, &[("max.message.bytes", "100")]);
    letters.poison();
    assert_eq!(process.wait(LIMIT).code(), Some(4), "{}", process.stderr());
    assert!(process.stderr().contains("record rejected"), "it was handed over: {}", process.stderr());
    assert_same_rows(&letters.scenario.trino(), &before);
    letters.recreate(1, &[]);
    letters.catch_up();
    letters.rows_are_right();
    assert_eq!(letters.all().len(), 1);
}

/// An update of a key, which is remembered.
fn update(scenario: &mut Scenario, id: i64) -> Record {
    loop {
        let record = scenario.event_of(id, (id % 2) as i32);
        if record.value.is_some() {
            return record;
        }
    }
}

#[test]
fn letters_survive_kills_and_what_is_mended_comes_back_once() {
    let Some(mut letters) = Letters::new("mended", 2) else { return };
    let settings = letters.mistake_keys();
    for round in 0..5 {
        let scenario = &mut letters.scenario;
        let mut records: Vec<Record> = (0..100).map(|id| update(scenario, id)).collect();
        let doomed = update(scenario, 1_000 + round);
        records.push(Record { value: None, ..doomed.clone() });
        records.insert(0, doomed);
        records.push(update(scenario, 1));
        scenario.send(&records);
        let mut process = FirnProcess::run(&letters.config, &[]);
        std::thread::sleep(Duration::from_millis(1_500 + 400 * round as u64));
        process.kill_9();
    }
    // Deleted, and written again behind it: that deletion must not come back.
    let back = update(&mut letters.scenario, 2_000);
    letters.scenario.send(&[Record { value: None, ..back.clone() }, back]);
    letters.catch_up();
    letters.rows_are_right();
    assert!(letters.all().iter().all(|r| header(&r.record, "firn.reason") == "bad_key"));
    assert_eq!(letters.places().len(), 6, "each is there, some perhaps twice");

    std::fs::write(&letters.config, settings).unwrap();
    for submitted in [5, 0] {
        let (code, said) = letters.replay();
        assert_eq!(code, Some(1), "one is refused: {said}");
        assert_eq!(said["submitted"].as_array().unwrap().len(), submitted, "{said}");
        assert!(said["refused"][0]["refused"].as_str().unwrap().contains("written since"), "{said}");
        letters.scenario.change(|rows| rows.retain(|id, _| !(1_000..1_005).contains(id)));
        letters.catch_up();
        letters.rows_are_right();
    }
}

#[test]
fn nothing_that_is_produced_while_letters_are_replayed_is_overwritten() {
    const KEYS: i64 = 400;
    let Some(mut letters) = Letters::new("while", 2) else { return };
    // Each deletion is a letter until the setting is mended.
    let settings = letters.mistake_keys();
    let (scenario, config) = (&mut letters.scenario, &letters.config);
    let first: Vec<Record> = (0..KEYS).map(|id| update(scenario, id)).collect();
    let doomed: Vec<Record> = first.iter().map(|record| Record { value: None, ..record.clone() }).collect();
    scenario.send(&first);
    scenario.send(&doomed);
    catch_up(config);
    std::fs::write(config, &settings).unwrap();
    let pipeline = scenario.topic.clone();

    // Some keys are written again before the replay and more while it runs, in random order; a third never is.
    let again = |n: i64| (n * 7_919) % KEYS;
    let overtaken: Vec<Record> = (0..30).map(again).filter(|id| id % 3 != 0).map(|id| update(scenario, id)).collect();
    scenario.send(&overtaken);
    let done = std::sync::atomic::AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let producing = scope.spawn(|| {
            let mut written = 0;
            while !done.load(std::sync::atomic::Ordering::SeqCst) {
                let ids: Vec<i64> = (written..written + 10).map(again).collect();
                let record = |id: &i64| match id % 3 {
                    0 => scenario.stray(-1 - id, (id % 2) as i32),
                    _ => update(scenario, *id),
                };
                let records: Vec<Record> = ids.iter().map(record).collect();
                scenario.send(&records);
                written += 10;
            }
            written
        });
        let (code, said) = replay(config, &pipeline);
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        assert!(code == Some(0) || code == Some(1), "{said}");
        producing.join().expect("the producer goes on")
    });
    assert!(written > 0, "something was produced meanwhile");
    let all = letters.scenario.stack.kafka.consume(&pipeline);
    let mut submitted = 0;
    for again in all.iter().filter(|r| r.record.headers.iter().any(|(name, _)| name == "firn.replay.of")) {
        submitted += 1;
        let of: i64 = header(&again.record, "firn.replay.of").rsplit('/').next().unwrap().parse().unwrap();
        let between =
            all.iter().filter(|r| r.record.partition == again.record.partition && r.record.key == again.record.key);
        let between = between.filter(|r| (of + 1..again.offset).contains(&r.offset)).count();
        assert_eq!(between, 0, "the letter of offset {of} was submitted at {} behind a newer event", again.offset);
    }
    crate::say(&format!("{submitted} of {KEYS} letters submitted beside {written} events"));
    assert!(submitted > KEYS / 3 && submitted < KEYS, "some were overtaken, some were not: {submitted}");
    letters.catch_up();
}

/// E3
#[test]
fn a_topic_that_takes_letters_slowly_holds_v_back_and_memory_is_bounded() {
    let Some(mut letters) = Letters::with_rows("full") else { return };
    let before = letters.scenario.expected();
    let settings = std::fs::read_to_string(&letters.config).unwrap();
    let scenario = &mut letters.scenario;
    let client = &scenario.topic;
    let settings = settings.replace("properties: {}", &format!("properties: {{client.id: {client}}}"));
    std::fs::write(&letters.config, settings + "memory: 64MB\n").unwrap();
    // The broker takes of this client far less than there is.
    scenario.stack.limit_producer(client, Some(300_000));
    // More than the queue of letters holds.
    let large: Vec<u8> = (0..900_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8 | 1).collect();
    for _ in 0..10 {
        let bad = Record { partition: 0, key: None, value: Some(large.clone()), ..Record::default() };
        scenario.send(&vec![bad; 20]);
    }
    scenario.produce(50, 50);
    let mut process = FirnProcess::run(&letters.config, &[]);
    process.wait_for_stderr("record rejected", LIMIT);
    std::thread::sleep(Duration::from_secs(10));
    assert!(process.is_running(), "it waits: {}", process.stderr());
    assert_same_rows(&scenario.trino(), &before);
    let resident = process.resident_bytes();
    assert!(resident < 600_000_000, "{resident} bytes while waiting");
    scenario.stack.limit_producer(&scenario.topic, None);
    eventually("the rest is in", LIMIT, || difference(&scenario.trino(), &scenario.expected()).is_none());
    process.terminate();
    assert_eq!(process.wait(LIMIT).code(), Some(0), "{}", process.stderr());
    assert_eq!(letters.places().len(), 10 * 20);
}

#[test]
fn a_letter_whose_key_was_written_in_another_partition_since_is_refused() {
    let Some(mut letters) = Letters::new("moved", 2) else { return };
    let settings = letters.mistake_keys();
    let scenario = &mut letters.scenario;
    // Not long ago: what is older than a week is deleted by the broker as soon as it looks.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    let at = |record: Record, partition, ms| Record { partition, timestamp: Some(now - 60_000 + ms), ..record };
    let (moved, stayed) = (update(scenario, 4), update(scenario, 6));
    scenario.send(&[at(moved.clone(), 0, 1_000), at(stayed.clone(), 1, 1_000)]);
    let gone = |record: Record| Record { value: None, ..record };
    scenario.send(&[at(gone(moved), 0, 2_000), at(gone(stayed), 0, 2_000)]);
    // In a commit of its own: between partitions nothing else decides which event is the last.
    catch_up(&letters.config);
    let again = update(scenario, 4);
    scenario.send(&[at(again, 1, 3_000)]);
    catch_up(&letters.config);
    std::fs::write(&letters.config, settings).unwrap();
    let (code, said) = letters.replay();
    assert_eq!((code, said["submitted"].as_array().unwrap().len()), (Some(1), 1), "{said}");
    assert!(said["refused"][0]["refused"].as_str().unwrap().contains("written since"), "{said}");
    letters.scenario.change(|rows| drop(rows.remove(&6)));
    letters.catch_up();
    letters.rows_are_right();
}

//! Rejected records on a real broker: acknowledged before V passes them, whatever their size, and submitted again once.

use std::path::Path;
use std::time::Duration;

use crate::kafka::{Compression, Received, Record};
use crate::process::{FirnProcess, catch_up, eventually, firn, until_caught_up};
use crate::rows::assert_same_rows;
use crate::scenario::Scenario;
use crate::stack::Catalog;
use crate::wanted;

const LIMIT: Duration = Duration::from_secs(100);
/// The broker's default of `max.message.bytes`.
const RECORD_BYTES_MAX: usize = 1_048_588;

struct Letters {
    topic: String,
    config: std::path::PathBuf,
}

impl Letters {
    fn new(scenario: &Scenario) -> Letters {
        let topic = format!("{}.dlq", scenario.topic);
        scenario.stack.kafka.create_topic(&topic, 3, &[]);
        let more = format!("    on_bad_record: dead_letter\n    dead_letter: {{topic: {topic}}}\n");
        Letters { config: scenario.config(3, &more), topic }
    }

    fn all(&self, scenario: &Scenario) -> Vec<Received> {
        scenario.stack.kafka.consume(&self.topic)
    }
}

fn header(record: &Record, name: &str) -> String {
    let value = record.headers.iter().rev().find(|(key, _)| key == name).and_then(|(_, value)| value.clone());
    String::from_utf8(value.unwrap_or_default()).unwrap()
}

fn replay(config: &Path, pipeline: &str) -> (Option<i32>, String) {
    let config = config.to_str().unwrap();
    let out = firn(["dead-letters", "replay", "-c", config, "--pipeline", pipeline, "--format", "json"]);
    (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned())
}

#[test]
fn a_record_of_the_largest_size_is_kept_and_every_letter_has_its_place() {
    if !wanted() {
        return;
    }
    let mut scenario = Scenario::new("letters", Catalog::Sqlite, 2);
    let letters = Letters::new(&scenario);
    scenario.produce(100, 50);
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
    scenario.produce(100, 50);
    catch_up(&letters.config);
    assert_same_rows(&scenario.trino(), &scenario.expected());
    let kept = letters.all(&scenario);
    assert!(kept.len() >= 2, "it needs more than one record with its headers");
    assert!(kept.iter().all(|r| header(&r.record, "__connect.errors.topic") == scenario.topic));
    let mut parts: Vec<_> =
        kept.iter().map(|r| (header(&r.record, "firn.part"), r.record.value.clone().unwrap())).collect();
    parts.sort();
    assert_eq!(parts.into_iter().flat_map(|(_, value)| value).collect::<Vec<_>>(), largest);
}

#[test]
fn a_topic_that_takes_no_letter_stops_the_pipeline_and_v_does_not_pass() {
    if !wanted() {
        return;
    }
    let mut scenario = Scenario::new("refused", Catalog::Sqlite, 1);
    let letters = Letters::new(&scenario);
    scenario.produce(50, 50);
    catch_up(&letters.config);
    let before = scenario.expected();
    // Nothing fits any more, however small the parts are.
    scenario.stack.kafka.delete_topic(&letters.topic);
    eventually("the topic is gone", LIMIT, || until_caught_up(&letters.config, LIMIT).0 == 2);
    scenario.stack.kafka.create_topic(&letters.topic, 1, &[("max.message.bytes", "100")]);
    let mut bad = scenario.stray(1, 0);
    bad.value = Some(b"\x07rubbish".to_vec());
    scenario.send(&[bad]);
    scenario.produce(50, 50);
    for _ in 0..2 {
        let (code, stderr) = until_caught_up(&letters.config, LIMIT);
        assert_eq!(code, 4, "{stderr}");
        assert!(stderr.contains(&letters.topic), "{stderr}");
        assert_same_rows(&scenario.trino(), &before);
    }
    scenario.stack.kafka.delete_topic(&letters.topic);
    scenario.stack.kafka.create_topic(&letters.topic, 1, &[]);
    catch_up(&letters.config);
    assert_same_rows(&scenario.trino(), &scenario.expected());
    assert_eq!(letters.all(&scenario).len(), 1);
}

#[test]
fn a_letter_that_the_broker_refuses_while_running_holds_v_back() {
    if !wanted() {
        return;
    }
    let mut scenario = Scenario::new("unheard", Catalog::Sqlite, 1);
    let letters = Letters::new(&scenario);
    scenario.produce(50, 50);
    catch_up(&letters.config);
    let before = scenario.expected();
    let mut process = FirnProcess::run(&letters.config, &[]);
    process.wait_for_stderr("partitions assigned", LIMIT);
    // It was told that the topic takes large records; the answer to the next one is another.
    scenario.stack.kafka.delete_topic(&letters.topic);
    scenario.stack.kafka.create_topic(&letters.topic, 3, &[("max.message.bytes", "100")]);
    let mut bad = scenario.stray(1, 0);
    bad.value = Some(b"\x07rubbish".to_vec());
    scenario.send(&[bad]);
    scenario.produce(50, 50);
    assert_eq!(process.wait(LIMIT).code(), Some(4), "{}", process.stderr());
    assert!(process.stderr().contains("record rejected"), "it was handed over: {}", process.stderr());
    assert_same_rows(&scenario.trino(), &before);
    scenario.stack.kafka.delete_topic(&letters.topic);
    scenario.stack.kafka.create_topic(&letters.topic, 1, &[]);
    catch_up(&letters.config);
    assert_same_rows(&scenario.trino(), &scenario.expected());
    assert_eq!(letters.all(&scenario).len(), 1);
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
    if !wanted() {
        return;
    }
    let mut scenario = Scenario::new("mended", Catalog::Sqlite, 2);
    let letters = Letters::new(&scenario);
    // The keys are Avro: every tombstone is a bad record until the setting is mended.
    let settings = std::fs::read_to_string(&letters.config).unwrap();
    std::fs::write(&letters.config, settings.replace("key: [id]", "key: [id]\n    record_key: int64")).unwrap();
    for round in 0..5 {
        let mut records: Vec<Record> = (0..100).map(|id| update(&mut scenario, id)).collect();
        let doomed = update(&mut scenario, 1_000 + round);
        records.push(Record { value: None, ..doomed.clone() });
        records.insert(0, doomed);
        records.push(update(&mut scenario, 1));
        scenario.send(&records);
        let mut process = FirnProcess::run(&letters.config, &[]);
        std::thread::sleep(Duration::from_millis(1_500 + 400 * round as u64));
        process.kill_9();
    }
    // Deleted, and written again behind it: that deletion must not come back.
    let back = update(&mut scenario, 2_000);
    scenario.send(&[Record { value: None, ..back.clone() }, back]);
    catch_up(&letters.config);
    assert_same_rows(&scenario.trino(), &scenario.expected());
    let place = |r: &Received| {
        let at = |name: &str| header(&r.record, &format!("__connect.errors.{name}")).parse::<i64>().unwrap();
        assert_eq!(header(&r.record, "firn.reason"), "bad_key");
        (at("partition"), at("offset"))
    };
    let mut places: Vec<_> = letters.all(&scenario).iter().map(place).collect();
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), 6, "each is there, some perhaps twice");

    std::fs::write(&letters.config, settings).unwrap();
    for submitted in [5, 0] {
        let (code, said) = replay(&letters.config, &scenario.topic);
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!(code, Some(1), "one is refused: {said}");
        assert_eq!(said["submitted"].as_array().unwrap().len(), submitted, "{said}");
        assert!(said["refused"][0]["refused"].as_str().unwrap().contains("written since"), "{said}");
        scenario.change(|rows| rows.retain(|id, _| !(1_000..1_005).contains(id)));
        catch_up(&letters.config);
        assert_same_rows(&scenario.trino(), &scenario.expected());
    }
}

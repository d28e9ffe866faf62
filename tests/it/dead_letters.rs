//! Records that cannot be rows, kept in a topic of their own: nothing is lost, and V passes none that is not there.

use std::time::Duration;

use firn::commands::{self, DeadLettersReplayArgs, DeadLettersShowArgs};
use firn::core::letter::{Letters, Record};
use firn::embedded::registry::Level;
use firn::query::Format;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::json;

use crate::evolve::{encode, register, rows, schema};
use crate::run::{IMPATIENT, V2, World, trade};

const DLQ: &str = "trades.dlq";

/// Adds to the pipeline of the world's file.
pub fn set(world: &World, lines: &str) {
    let text = std::fs::read_to_string(world.config()).unwrap();
    let kept: Vec<&str> = text.lines().filter(|line| !line.contains("on_bad_record")).collect();
    let text = kept.join("\n").replace("    tables:", &format!("{lines}    tables:"));
    std::fs::write(world.config(), text + "\n").unwrap();
}

pub const DEAD_LETTERS: &str = "    on_bad_record: dead_letter\n    dead_letter: {topic: trades.dlq}\n";

pub async fn world() -> World {
    let world = World::new().await;
    world.broker.create_topic(DLQ, 2).unwrap();
    set(&world, DEAD_LETTERS);
    world
}

/// Every record of the dead-letter topic.
pub fn records(world: &World) -> Vec<Record> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", world.broker.bootstrap_servers()).set("group.id", "look");
    config.set("enable.partition.eof", "true").set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut list = TopicPartitionList::new();
    (0..2).for_each(|p| list.add_partition_offset(DLQ, p, Offset::Beginning).unwrap());
    consumer.assign(&list).unwrap();
    let (mut found, mut ends) = (Vec::new(), 0);
    while ends < 2 {
        match consumer.poll(Duration::from_secs(10)).expect("an answer") {
            Ok(message) => {
                let headers = message.headers().into_iter().flat_map(|h| h.iter());
                let headers = headers.map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec))).collect();
                let (key, value) = (message.key().map(<[u8]>::to_vec), message.payload().map(<[u8]>::to_vec));
                found.push(Record { key, value, headers });
            }
            Err(rdkafka::error::KafkaError::PartitionEOF(_)) => ends += 1,
            Err(error) => panic!("{error}"),
        }
    }
    found
}

/// The letters by reason and offset.
pub fn letters(world: &World) -> Letters {
    let mut letters = Letters::of("p");
    records(world).into_iter().for_each(|record| letters.add(record));
    letters
}

fn reasons(world: &World) -> Vec<(i64, String)> {
    letters(world).whole.into_values().map(|letter| (letter.place.offset, letter.reason)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_records_are_kept_whole_with_the_reason_and_their_neighbours_are_rows() {
    let world = world().await;
    world.send(0, &[trade(1, 1, 1), b"\x07rubbish".to_vec(), trade(1, 2, 1)]);
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", world.broker.bootstrap_servers());
    let producer: BaseProducer = config.create().unwrap();
    let headers = OwnedHeaders::new().insert(Header { key: "trace", value: Some(&[0u8, 0xff]) });
    let headers = headers.insert(Header { key: "empty", value: None::<&[u8; 1]> });
    let record = BaseRecord::to("trades").partition(0).key(&b"k\xff"[..]).payload(&[0u8, 0, 0][..]).headers(headers);
    producer.send(record).unwrap();
    producer
        .send(BaseRecord::<[u8], [u8]>::to("trades").partition(0).key(&b""[..]).payload(&[0, 0, 0, 1, 0, 2]))
        .unwrap();
    producer.flush(Duration::from_secs(10)).unwrap();
    world.send(0, &[trade(1, 3, 1)]);
    world.catch_up().await.unwrap();

    assert_eq!(world.ids().await, [1, 2, 3]);
    assert_eq!(world.positions().await, [(6, 0), (0, 0)]);
    let letters = letters(&world);
    let found: Vec<_> = letters.whole.values().map(|l| (l.place.offset, l.reason.as_str())).collect();
    assert_eq!(found, [(1, "bad_magic_byte"), (3, "too_short"), (4, "unknown_schema")]);
    let letter = letters.whole.values().nth(1).unwrap();
    assert_eq!((letter.key.as_deref(), letter.value.as_deref()), (Some(&b"k\xff"[..]), Some(&[0u8, 0, 0][..])));
    assert_eq!(letter.headers, [("trace".into(), Some(vec![0, 0xff])), ("empty".into(), None)]);
    assert_eq!((letter.topic.as_str(), letter.pipeline.as_str()), ("trades", "p"));
    let (table, _) = world.show().await;
    assert!(table.to_string().contains(&letter.place.topic_id), "the topic's id identifies it: {table}");

    // Nothing is read again, and so nothing is sent again.
    world.catch_up().await.unwrap();
    assert_eq!(records(&world).len(), 3);
}

/// E1, E2: wherever in a batch they are, bad records cost themselves, and V passes them once they are kept.
#[tokio::test(flavor = "multi_thread")]
async fn bad_records_at_every_position_of_a_batch_cost_nothing_but_themselves() {
    let world = world().await;
    let (mut sent, mut good, mut bad) = (0, Vec::new(), Vec::new());
    for places in [vec![0], vec![4], vec![2], vec![0, 4], vec![1, 2, 3], vec![0, 1, 2, 3, 4]] {
        let mut values = Vec::new();
        for place in 0..5 {
            if places.contains(&place) {
                values.push(b"\x07rubbish".to_vec());
                bad.push((sent, "bad_magic_byte".to_owned()));
            } else {
                values.push(trade(1, sent, 1));
                good.push(sent);
            }
            sent += 1;
        }
        world.send(0, &values);
        world.catch_up().await.unwrap();
        assert_eq!(world.ids().await, good, "{places:?}");
        assert_eq!(reasons(&world), bad, "{places:?}");
        assert_eq!(world.positions().await[0], (sent, 0), "{places:?}");
    }
    assert_eq!(records(&world).len(), bad.len(), "what is passed is not sent again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_stops_before_anything_is_read() {
    let world = World::new().await;
    set(&world, DEAD_LETTERS);
    world.send(0, &[b"\x07rubbish".to_vec()]);
    let error = world.catch_up_with(IMPATIENT).await.unwrap_err();
    assert!(error.exit_code() == 2 && error.to_string().contains("trades.dlq does not exist"), "{error}");
}

/// E4
#[tokio::test(flavor = "multi_thread")]
async fn a_large_record_is_kept_in_parts() {
    let world = world().await;
    let large: Vec<u8> = (0..999_900u32).map(|i| (i % 251) as u8 | 1).collect();
    world.send(1, &[large.clone(), trade(1, 1, 1)]);
    world.catch_up().await.unwrap();
    assert_eq!(world.ids().await, [1]);
    assert_eq!(records(&world).len(), 2, "with the headers it is larger than a record may be");
    let letters = letters(&world);
    assert_eq!(letters.whole.values().next().unwrap().value.as_ref(), Some(&large));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_a_schema_that_does_not_fit_are_dead_letters_and_the_others_rows() {
    let world = world().await;
    set(&world, "    on_incompatible_schema: dead_letter\n    dead_letter: {topic: trades.dlq}\n");
    let text = std::fs::read_to_string(world.config()).unwrap();
    let once = text.replacen("    dead_letter: {topic: trades.dlq}\n", "", 1);
    std::fs::write(world.config(), once).unwrap();
    world.registry.as_ref().unwrap().set_level(None, Level::None).unwrap();
    world.send(0, &[trade(1, 1, 1)]);
    world.catch_up().await.unwrap();
    let wrong = schema(r#",{"name":"venue","type":"long"},{"name":"n","type":"long"}"#);
    let id = register(&world, &wrong);
    let record = encode(id, &wrong, json!({"id": 2, "venue": 5, "n": 1}));
    world.send(0, &[record.clone(), trade(1, 3, 1), record, trade(1, 4, 1)]);
    // The newest schema is the one that does not fit, both at the start and in the stream.
    world.catch_up().await.unwrap();
    assert_eq!(world.ids().await, [1, 3, 4]);
    assert_eq!(reasons(&world), [(1, "incompatible_schema".to_owned()), (3, "incompatible_schema".to_owned())]);
    let letter = letters(&world).whole.into_values().next().unwrap();
    assert!(
        letter.message.contains("column venue is string in the table and cannot become long"),
        "{}",
        letter.message
    );
    assert_eq!(rows(&world, "lake.market.trades").await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_rejects_everything_stops() {
    let world = world().await;
    set(&world, "    max_bad_ratio: 0.5\n");
    let text = std::fs::read_to_string(world.config()).unwrap();
    std::fs::write(
        world.config(),
        text.replace("    max_bad", &format!("{}    max_bad", "    on_bad_record: dead_letter\n")),
    )
    .unwrap();
    world.send(0, &(0..50).map(|id| trade(1, id, 1)).collect::<Vec<_>>());
    world.send(0, &(0..300).map(|_| b"\x07rubbish".to_vec()).collect::<Vec<_>>());
    let error = world.catch_up().await.unwrap_err();
    assert!(error.exit_code() == 4 && error.to_string().contains("max_bad_ratio"), "{error}");
    assert_eq!(world.ids().await.len(), 50, "what was good is in");
    let kept = letters(&world).whole.len() as i64;
    assert!((51..=300).contains(&kept), "{kept}");
    assert!(world.positions().await[0].0 <= 50 + kept, "V passes only what is kept");
}

async fn show(world: &World) -> serde_json::Value {
    let args = DeadLettersShowArgs { config: world.config(), pipeline: "p".into(), samples: 2, format: Format::Json };
    let mut out = Vec::new();
    commands::dead_letters_show(args, &mut out).await.unwrap();
    serde_json::from_slice(&out).unwrap()
}

/// How many letters were submitted, were submitted earlier, and were refused with which reason.
pub async fn replay(world: &World, dry_run: bool) -> (usize, u64, Vec<String>) {
    let (config, pipeline) = (world.config(), "p".to_owned());
    let args = DeadLettersReplayArgs { config, pipeline, reasons: Vec::new(), dry_run, format: Format::Json };
    let mut out = Vec::new();
    let ended = commands::dead_letters_replay(args, &mut out).await;
    let said: serde_json::Value = serde_json::from_slice(&out).unwrap_or_else(|_| panic!("{ended:?}"));
    let refused: Vec<String> =
        said["refused"].as_array().unwrap().iter().map(|l| l["refused"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ended.map_or_else(|e| e.exit_code(), |()| 0), u8::from(!refused.is_empty()));
    (said["submitted"].as_array().unwrap().len(), said["replayed_before"].as_u64().unwrap(), refused)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_mended_comes_back_once_and_what_was_not_stays() {
    let world = world().await;
    // Nobody knows schema 2 yet.
    world.send(0, &[trade(1, 1, 1), trade(2, 5, 1), b"\x07rubbish".to_vec()]);
    world.send(1, &[trade(2, 6, 1)]);
    world.catch_up().await.unwrap();
    assert_eq!(world.ids().await, [1]);
    let shown = show(&world).await;
    assert_eq!(shown["reasons"]["unknown_schema"]["letters"], 2, "{shown}");
    assert_eq!(shown["reasons"]["bad_magic_byte"]["samples"][0]["offset"], 2, "{shown}");

    let (submitted, _, refused) = replay(&world, false).await;
    assert_eq!((submitted, refused.len()), (0, 3), "nothing is mended: {refused:?}");
    assert_eq!(world.registry.as_ref().unwrap().register("trades-value", V2).unwrap(), 2);
    assert_eq!(replay(&world, true).await.0, 2);
    assert_eq!(world.positions().await, [(3, 0), (1, 0)], "a dry run submits nothing");
    let (submitted, earlier, refused) = replay(&world, false).await;
    assert_eq!((submitted, earlier, refused.len()), (2, 0, 1));
    assert!(refused[0].contains("rejected again") && refused[0].contains("magic"), "{refused:?}");
    world.catch_up().await.unwrap();
    assert_eq!(world.ids().await, [1, 5, 6]);

    let (rows, positions) = (world.rows().await, world.positions().await);
    let (submitted, earlier, refused) = replay(&world, false).await;
    assert_eq!((submitted, earlier, refused.len()), (0, 2, 1), "nothing is submitted twice");
    world.catch_up().await.unwrap();
    assert_eq!((world.rows().await, world.positions().await), (rows, positions));
    assert_eq!(show(&world).await["reasons"]["unknown_schema"]["replayed"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_whose_key_was_written_since_is_refused_unless_a_column_decides() {
    for (order_by, expected) in [("", (0, 1)), ("    order_by: n\n", (1, 0))] {
        let world = world().await;
        set(&world, &format!("{order_by}    on_bad_record: dead_letter\n"));
        world.send(0, &[trade(2, 5, 3), trade(1, 5, 9), trade(1, 6, 1)]);
        world.catch_up().await.unwrap();
        world.registry.as_ref().unwrap().register("trades-value", V2).unwrap();
        let (submitted, _, refused) = replay(&world, false).await;
        assert_eq!((submitted, refused.len()), expected, "{refused:?}");
        assert!(refused.iter().all(|why| why.contains("written since")), "{refused:?}");
        world.catch_up().await.unwrap();
        let row = |id, n| (id, "XNAS".to_owned(), n);
        assert_eq!(world.rows().await, [row(5, 9), row(6, 1)], "the newer value stays");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_submitted_again_is_for_its_pipeline_alone() {
    let world = world().await;
    world.send(0, &[trade(1, 1, 1), trade(2, 5, 1), trade(1, 2, 1)]);
    world.catch_up().await.unwrap();
    world.registry.as_ref().unwrap().register("trades-value", V2).unwrap();
    // Another pipeline on the same topic knows the schema from the beginning: it has had the record.
    let ours = std::fs::read_to_string(world.config()).unwrap();
    let theirs = ours.replace("  p:\n", "  q:\n").replace("market.trades", "market.log");
    let theirs = theirs.replace("    key: [id]", "    key: [id]\n    mode: append");
    std::fs::write(world.config(), &theirs).unwrap();
    world.catch_up().await.unwrap();
    assert_eq!(rows(&world, "lake.market.log").await.len(), 3);
    std::fs::write(world.config(), &ours).unwrap();
    assert_eq!(replay(&world, false).await.0, 1);
    world.catch_up().await.unwrap();
    assert_eq!(world.ids().await, [1, 2, 5]);
    std::fs::write(world.config(), &theirs).unwrap();
    world.catch_up().await.unwrap();
    assert_eq!(rows(&world, "lake.market.log").await.len(), 3, "an event is a row once");
    assert_eq!(world.show().await.0["partitions"][0]["next"], 4, "and V passes it");
}

use std::ffi::{CStr, CString};
use std::ptr;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::producer::BaseRecord;
use rdkafka::{Message, Offset, TopicPartitionList};

use super::*;

const ANSWER: Duration = Duration::from_secs(10);

fn topics(names: &[(&str, i32)]) -> Vec<(String, i32)> {
    names.iter().map(|(name, partitions)| (name.to_string(), *partitions)).collect()
}

fn config(broker: &Broker) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker.bootstrap_servers());
    config
}

fn consumer(broker: &Broker, group: &str) -> BaseConsumer {
    let mut config = config(broker);
    config.set("group.id", group).set("auto.offset.reset", "earliest").set("enable.partition.eof", "true");
    // The answer to an automatic commit may come through the batch call, which ends the process at its sight
    // (`unhandled optype`).
    config.set("enable.auto.commit", "false");
    config.create().unwrap()
}

fn fill(broker: &Broker, topic: &str, partition: i32, count: usize) {
    let producer: BaseProducer = config(broker).create().unwrap();
    for i in 0..count {
        let (key, value) = (format!("k{i}"), format!("v{i}"));
        let record = BaseRecord::to(topic).partition(partition).key(&key).payload(&value).timestamp(i as i64 + 1);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(ANSWER).unwrap();
}

fn assign(consumer: &BaseConsumer, topic: &str, partitions: i32) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    list
}

/// The topic id that DescribeTopics answers, in the base64 spelling of Kafka's tools; none for an unknown topic.
///
/// Any broker can answer, and it has to be said which: librdkafka would ask the controller, and the mock cluster names
/// one that does not exist (0, while its only broker is 1), so that request would never be sent.
fn topic_id(client: &BaseConsumer, topic: &str) -> Option<String> {
    let name = CString::new(topic).unwrap();
    let mut names = [name.as_ptr()];
    let any_broker = client.fetch_metadata(Some(topic), ANSWER).unwrap().orig_broker_id();
    // SAFETY: every pointer is used before its owner is destroyed, in the order that librdkafka's manual asks for.
    unsafe {
        let rk = client.client().native_ptr();
        let queue = native::rd_kafka_queue_new(rk);
        let wanted = native::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), 1);
        let options =
            native::rd_kafka_AdminOptions_new(rk, native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        let mut why = [0; 256];
        native::rd_kafka_AdminOptions_set_broker(options, any_broker, why.as_mut_ptr(), why.len());
        native::rd_kafka_DescribeTopics(rk, wanted, options, queue);
        let event = native::rd_kafka_queue_poll(queue, 10_000);
        assert!(!event.is_null(), "no answer");
        let result = native::rd_kafka_event_DescribeTopics_result(event);
        assert!(!result.is_null(), "not a DescribeTopics answer");
        let mut count = 0;
        let described = native::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        assert_eq!(count, 1);
        let error = native::rd_kafka_error_code(native::rd_kafka_TopicDescription_error(*described));
        let id = (error == native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| {
            let id = native::rd_kafka_TopicDescription_topic_id(*described);
            CStr::from_ptr(native::rd_kafka_Uuid_base64str(id)).to_string_lossy().into_owned()
        });
        native::rd_kafka_event_destroy(event);
        native::rd_kafka_AdminOptions_destroy(options);
        native::rd_kafka_TopicCollection_destroy(wanted);
        native::rd_kafka_queue_destroy(queue);
        id
    }
}

#[test]
fn topics_have_the_partitions_asked_for_and_a_cluster_id_and_topic_ids() {
    let broker = Broker::start(&topics(&[("one", 1), ("many", 32)])).unwrap();
    let client = consumer(&broker, "g");
    let metadata = client.fetch_metadata(None, ANSWER).unwrap();
    let mut found: Vec<_> = metadata.topics().iter().map(|t| (t.name(), t.partitions().len())).collect();
    found.sort_unstable();
    assert_eq!(found, [("many", 32), ("one", 1)]);
    assert!(client.client().fetch_cluster_id(ANSWER).unwrap().starts_with("mockCluster"));
    let (one, many) = (topic_id(&client, "one").unwrap(), topic_id(&client, "many").unwrap());
    assert_eq!((one.len(), many.len()), (22, 22));
    assert_ne!(one, many);
    assert_eq!(topic_id(&client, "one").unwrap(), one, "the id stays");
    assert_eq!(topic_id(&client, "unknown"), None);
    broker.create_topic("later", 2).unwrap();
    assert!(topic_id(&client, "later").is_some());
}

#[test]
fn a_producer_creates_a_topic_by_asking_for_it_and_a_consumer_does_not() {
    let broker = Broker::start(&[]).unwrap();
    let client = consumer(&broker, "g");
    let asked = client.fetch_metadata(Some("by-consumer"), ANSWER).unwrap();
    assert!(asked.topics()[0].error().is_some() && asked.topics()[0].partitions().is_empty());
    fill(&broker, "by-producer", 0, 1);
    let asked = client.fetch_metadata(Some("by-producer"), ANSWER).unwrap();
    assert_eq!(asked.topics()[0].partitions().len(), AUTO_CREATED_PARTITIONS as usize);
    let all = client.fetch_metadata(None, ANSWER).unwrap();
    assert_eq!(all.topics().len(), 1);
}

#[test]
fn two_brokers_are_two_clusters() {
    let (a, b) = (Broker::start(&topics(&[("t", 1)])).unwrap(), Broker::start(&topics(&[("t", 1)])).unwrap());
    assert_ne!(a.bootstrap_servers(), b.bootstrap_servers());
    let (in_a, in_b) = (consumer(&a, "g"), consumer(&b, "g"));
    assert_ne!(in_a.client().fetch_cluster_id(ANSWER), in_b.client().fetch_cluster_id(ANSWER));
    assert_ne!(topic_id(&in_a, "t"), topic_id(&in_b, "t"));
}

#[test]
fn watermarks_ends_of_partitions_and_pausing_work() {
    let broker = Broker::start(&topics(&[("t", 2)])).unwrap();
    fill(&broker, "t", 0, 10);
    let client = consumer(&broker, "g");
    assert_eq!(client.fetch_watermarks("t", 0, ANSWER).unwrap(), (0, 10));
    assert_eq!(client.fetch_watermarks("t", 1, ANSWER).unwrap(), (0, 0));
    let list = assign(&client, "t", 2);
    let (mut records, mut ends) = (0, 0);
    while ends < 2 {
        match client.poll(ANSWER).unwrap() {
            Ok(record) => {
                assert_eq!((record.offset(), record.timestamp().to_millis()), (records, Some(records + 1)));
                records += 1;
            }
            Err(KafkaError::PartitionEOF(_)) => ends += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(records, 10);
    client.pause(&list).unwrap();
    fill(&broker, "t", 0, 5);
    assert!(client.poll(Duration::from_millis(300)).is_none(), "paused");
    client.resume(&list).unwrap();
    // Resuming tells the ends of the partitions once more.
    let polled = std::iter::repeat_with(|| client.poll(ANSWER).unwrap()).take(5);
    assert_eq!(polled.flatten().next().unwrap().offset(), 10);
}

#[test]
fn a_batch_comes_from_the_consumer_queue_in_one_call() {
    let broker = Broker::start(&topics(&[("t", 1)])).unwrap();
    fill(&broker, "t", 0, 500);
    let client = consumer(&broker, "g");
    assign(&client, "t", 1);
    let (mut offsets, mut ends) = (Vec::new(), 0);
    // SAFETY: the messages are destroyed once each, the queue after them, both before the client.
    unsafe {
        let queue = native::rd_kafka_queue_get_consumer(client.client().native_ptr());
        let deadline = Instant::now() + ANSWER;
        while ends == 0 && Instant::now() < deadline {
            let mut batch = [ptr::null_mut(); 1_000];
            let count = native::rd_kafka_consume_batch_queue(queue, 200, batch.as_mut_ptr(), batch.len());
            for message in &batch[..count.max(0) as usize] {
                match (**message).err {
                    native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => offsets.push((**message).offset),
                    native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__PARTITION_EOF => ends += 1,
                    other => panic!("{other:?}"),
                }
                native::rd_kafka_message_destroy(*message);
            }
        }
        native::rd_kafka_queue_destroy(queue);
    }
    assert_eq!(offsets, (0..500).collect::<Vec<i64>>());
    assert_eq!(ends, 1);
}

#[test]
fn a_group_gets_its_partitions_in_well_under_three_seconds() {
    let broker = Broker::start(&topics(&[("t", 1)])).unwrap();
    fill(&broker, "t", 0, 1);
    let client = consumer(&broker, "group");
    let began = Instant::now();
    client.subscribe(&["t"]).unwrap();
    // A poll that only served the assignment returns nothing.
    let first = std::iter::repeat_with(|| client.poll(ANSWER)).take(5).flatten().next().unwrap().unwrap().offset();
    assert_eq!(first, 0);
    assert!(began.elapsed() < Duration::from_millis(2_500), "{:?}", began.elapsed());
}

#[test]
fn records_beyond_the_limit_of_a_partition_are_gone_without_a_word() {
    let broker = Broker::start(&topics(&[("small", 1), ("large", 1)])).unwrap();
    let end = |topic: &str, bytes: usize| {
        let producer: BaseProducer = config(&broker).set("queue.buffering.max.messages", "200000").create().unwrap();
        let value = "v".repeat(bytes);
        for _ in 0..120_000 {
            let record = BaseRecord::to(topic).partition(0).key("k").payload(&value);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(Duration::from_secs(60)).unwrap();
        consumer(&broker, "g").fetch_watermarks(topic, 0, ANSWER).unwrap()
    };
    assert_eq!(end("small", 1), (0, 120_000), "the number of messages is no limit");
    let (low, high) = end("large", 100);
    assert!(high == 120_000 && low > 60_000, "about five megabytes are left: {low} to {high}");
}

#[test]
fn names_that_kafka_refuses_are_refused_here() {
    for (name, partitions) in
        [("", 1), ("a b", 1), ("a/b", 1), ("..", 1), (&"x".repeat(250), 1), ("t", 0), ("t", 1_025)]
    {
        let refused = Broker::start(&topics(&[(name, partitions)])).unwrap_err();
        assert!(matches!(refused, Error::Config(_)), "{name} {partitions}: {refused:?}");
    }
    let twice = Broker::start(&topics(&[("t", 1), ("t", 1)])).unwrap_err();
    assert!(matches!(twice, Error::Config(_)), "{twice:?}");
}

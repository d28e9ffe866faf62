//! Producing what Firn is to read, and the broker's administration.

use std::path::PathBuf;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{Offset, TopicPartitionList};

use crate::stack::block_on;

const LIMIT: Duration = Duration::from_secs(60);

/// One broker with four listeners.
#[derive(Debug, Clone)]
pub struct Kafka {
    /// `host:port` without encryption or authentication: `kafka.brokers` in `firn.yaml`.
    pub plaintext: String,
    /// With SASL: PLAIN `plain`/`plain-secret`, SCRAM-SHA-256 and -512 `scram`/`scram-secret`.
    pub sasl_plaintext: String,
    /// With TLS.
    pub ssl: String,
    /// With TLS and SASL.
    pub sasl_ssl: String,
    /// The certificate of the authority that signed the broker's.
    pub ca: PathBuf,
}

/// A record to produce.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Partition it goes to.
    pub partition: i32,
    /// Key, or none.
    pub key: Option<Vec<u8>>,
    /// Value; none is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Create time in milliseconds since 1970; the producer's clock when absent.
    pub timestamp: Option<i64>,
    /// Headers in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// A record as it was read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Its offset in the partition.
    pub offset: i64,
    /// What was produced, with the timestamp filled in.
    pub record: Record,
}

/// How a producer compresses its batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// Snappy.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// All of them.
    pub const ALL: [Compression; 5] =
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

    /// Its name in librdkafka's properties.
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }
}

/// How a transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Its records become readable.
    Commit,
    /// Its records stay in the log, and committed readers pass over them.
    Abort,
}

/// A way to reach the broker, as librdkafka's properties: what `kafka.properties` holds in `firn.yaml`, with the address.
pub type Properties = Vec<(String, String)>;

impl Kafka {
    /// Without encryption or authentication.
    pub fn plain(&self) -> Properties {
        properties(&[("bootstrap.servers", &self.plaintext)])
    }

    /// With TLS only.
    pub fn tls(&self) -> Properties {
        let ca = self.ca.display().to_string();
        properties(&[("bootstrap.servers", &self.ssl), ("security.protocol", "SSL"), ("ssl.ca.location", &ca)])
    }

    /// With SASL over TLS; `mechanism` is `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.
    pub fn sasl_tls(&self, mechanism: &str) -> Properties {
        let ca = self.ca.display().to_string();
        let mut all = properties(&[
            ("bootstrap.servers", &self.sasl_ssl),
            ("security.protocol", "SASL_SSL"),
            ("ssl.ca.location", &ca),
        ]);
        all.extend(credentials(mechanism));
        all
    }

    /// With SASL and no encryption.
    pub fn sasl(&self, mechanism: &str) -> Properties {
        let mut all =
            properties(&[("bootstrap.servers", &self.sasl_plaintext), ("security.protocol", "SASL_PLAINTEXT")]);
        all.extend(credentials(mechanism));
        all
    }

    /// Produces records in order and waits until the broker has them all. Returns their offsets.
    pub fn produce(&self, topic: &str, records: &[Record], compression: Compression) -> Vec<i64> {
        self.produce_through(&self.plain(), topic, records, compression)
    }

    /// As [`Kafka::produce`], through any listener.
    pub fn produce_through(
        &self,
        through: &Properties,
        topic: &str,
        records: &[Record],
        compression: Compression,
    ) -> Vec<i64> {
        let producer = producer(through, &[("compression.type", compression.name())]);
        send_all(&producer, topic, records);
        producer.flush(LIMIT).expect("the broker takes the records");
        producer.context().offsets(records.len())
    }

    /// Produces records in one transaction. Its marker takes one more offset in every partition that it wrote to.
    pub fn transaction(&self, topic: &str, records: &[Record], ending: Ending) {
        let id = crate::stack::unique("transaction");
        let producer = producer(&self.plain(), &[("transactional.id", &id), ("linger.ms", "5")]);
        producer.init_transactions(LIMIT).expect("the broker knows transactions");
        producer.begin_transaction().expect("a transaction begins");
        send_all(&producer, topic, records);
        producer.flush(LIMIT).expect("the broker takes the records");
        match ending {
            Ending::Commit => producer.commit_transaction(LIMIT).expect("the transaction commits"),
            Ending::Abort => producer.abort_transaction(LIMIT).expect("the transaction aborts"),
        }
    }

    /// Leaves a transaction open, so that the last stable offset stays before it until the producer is dropped and its
    /// transaction times out, or until [`OpenTransaction::end`].
    pub fn open_transaction(&self, topic: &str, records: &[Record]) -> OpenTransaction {
        let id = crate::stack::unique("transaction");
        let producer = producer(&self.plain(), &[("transactional.id", &id), ("linger.ms", "5")]);
        producer.init_transactions(LIMIT).expect("the broker knows transactions");
        producer.begin_transaction().expect("a transaction begins");
        send_all(&producer, topic, records);
        producer.flush(LIMIT).expect("the broker takes the records");
        OpenTransaction { producer }
    }

    /// Creates a topic, with properties such as `("cleanup.policy", "compact")`.
    pub fn create_topic(&self, topic: &str, partitions: i32, config: &[(&str, &str)]) {
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let new = config.iter().fold(new, |new, (key, value)| new.set(key, value));
        let results = block_on(self.admin().create_topics([&new], &options()));
        all_done("create", results);
    }

    /// Deletes a topic and waits until the broker no longer lists it, so that it can be created again under the same name.
    pub fn delete_topic(&self, topic: &str) {
        let admin = self.admin();
        all_done("delete", block_on(admin.delete_topics(&[topic], &options())));
        for _ in 0..200 {
            let listed = admin.inner().fetch_metadata(None, LIMIT).expect("metadata");
            if listed.topics().iter().all(|found| found.name() != topic) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{topic} is still listed 10 s after it was deleted");
    }

    /// Raises the number of partitions to `total`.
    pub fn grow_topic(&self, topic: &str, total: usize) {
        let new = NewPartitions::new(topic, total);
        all_done("grow", block_on(self.admin().create_partitions([&new], &options())));
    }

    /// Deletes records: the log of each given partition then starts at the given offset.
    pub fn delete_records(&self, topic: &str, before: &[(i32, i64)]) {
        let mut list = TopicPartitionList::new();
        for &(partition, offset) in before {
            list.add_partition_offset(topic, partition, Offset::Offset(offset)).expect("an offset");
        }
        let done = block_on(self.admin().delete_records(&list, &options())).expect("the broker deletes records");
        for element in done.elements() {
            assert_eq!(element.error(), Ok(()), "delete records of {topic}/{}", element.partition());
        }
    }

    /// First and next offset of each partition. The next one lies behind transaction markers too.
    pub fn watermarks(&self, topic: &str) -> Vec<(i64, i64)> {
        let consumer = consumer(&self.plain(), "read_uncommitted");
        let partitions = partitions(&consumer, topic);
        let range = |p| consumer.fetch_watermarks(topic, p, LIMIT).expect("watermarks");
        (0..partitions).map(range).collect()
    }

    /// All committed records of a topic up to its end, by partition and offset.
    pub fn consume(&self, topic: &str) -> Vec<Received> {
        self.consume_through(&self.plain(), topic)
    }

    /// As [`Kafka::consume`], through any listener.
    pub fn consume_through(&self, through: &Properties, topic: &str) -> Vec<Received> {
        let consumer = consumer(through, "read_committed");
        let partitions = partitions(&consumer, topic);
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            list.add_partition_offset(topic, partition, Offset::Beginning).expect("an offset");
        }
        consumer.assign(&list).expect("an assignment");
        let (mut received, mut ended) = (Vec::new(), 0);
        while ended < partitions {
            match consumer.poll(LIMIT) {
                Some(Ok(message)) => received.push(read_back(&message)),
                Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
                Some(Err(error)) => panic!("consume {topic}: {error}"),
                None => panic!("consume {topic}: nothing for {LIMIT:?}"),
            }
        }
        received.sort_by_key(|r| (r.record.partition, r.offset));
        received
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        client_config(&self.plain()).create().expect("an admin client")
    }
}

/// A transaction that has not ended.
pub struct OpenTransaction {
    producer: BaseProducer<Deliveries>,
}

impl OpenTransaction {
    /// Ends it.
    pub fn end(self, ending: Ending) {
        match ending {
            Ending::Commit => self.producer.commit_transaction(LIMIT).expect("the transaction commits"),
            Ending::Abort => self.producer.abort_transaction(LIMIT).expect("the transaction aborts"),
        }
    }
}

/// Collects what became of each record, in the order in which they were sent.
#[derive(Default)]
struct Deliveries(std::sync::Mutex<Vec<(usize, Result<i64, String>)>>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult<'_>, index: Box<usize>) {
        let outcome = match result {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(error.to_string()),
        };
        self.0.lock().expect("no delivery panicked").push((*index, outcome));
    }
}

impl Deliveries {
    /// The offsets of the records 0..count, each of which must have been delivered exactly once.
    fn offsets(&self, count: usize) -> Vec<i64> {
        let mut delivered = self.0.lock().expect("no delivery panicked").clone();
        delivered.sort_by_key(|(index, _)| *index);
        assert_eq!(delivered.len(), count, "records with an outcome");
        let offset = |(index, outcome)| match outcome {
            Ok(offset) => offset,
            Err(error) => panic!("record {index} was not delivered: {error}"),
        };
        delivered.into_iter().map(offset).collect()
    }
}

fn properties(pairs: &[(&str, &str)]) -> Properties {
    pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn credentials(mechanism: &str) -> Properties {
    let user = if mechanism == "PLAIN" { "plain" } else { "scram" };
    let password = format!("{user}-secret");
    properties(&[("sasl.mechanism", mechanism), ("sasl.username", user), ("sasl.password", &password)])
}

fn client_config(through: &Properties) -> ClientConfig {
    let mut config = ClientConfig::new();
    for (key, value) in through {
        config.set(key, value);
    }
    config
}

fn producer(through: &Properties, more: &[(&str, &str)]) -> BaseProducer<Deliveries> {
    let mut config = client_config(through);
    config.set("enable.idempotence", "true").set("linger.ms", "20").set("delivery.timeout.ms", "60000");
    for (key, value) in more {
        config.set(*key, *value);
    }
    config.create_with_context(Deliveries::default()).expect("a producer")
}

fn consumer(through: &Properties, isolation: &str) -> BaseConsumer {
    client_config(through)
        .set("group.id", crate::stack::unique("reader"))
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", isolation)
        .create()
        .expect("a consumer")
}

fn partitions(consumer: &BaseConsumer, topic: &str) -> i32 {
    let metadata = consumer.fetch_metadata(Some(topic), LIMIT).expect("metadata");
    let found = metadata.topics().first().expect("the topic is in the answer");
    assert!(found.error().is_none(), "{topic}: {:?}", found.error());
    i32::try_from(found.partitions().len()).expect("a partition count")
}

fn send_all(producer: &BaseProducer<Deliveries>, topic: &str, records: &[Record]) {
    for (index, record) in records.iter().enumerate() {
        let mut headers = OwnedHeaders::new();
        for (key, value) in &record.headers {
            headers = headers.insert(Header { key, value: value.as_ref() });
        }
        let mut next: BaseRecord<'_, Vec<u8>, Vec<u8>, Box<usize>> =
            BaseRecord::with_opaque_to(topic, Box::new(index)).partition(record.partition);
        next.key = record.key.as_ref();
        next.payload = record.value.as_ref();
        next.timestamp = record.timestamp;
        if !record.headers.is_empty() {
            next.headers = Some(headers);
        }
        while let Err((error, back)) = producer.send(next) {
            assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull), "produce to {topic}");
            producer.poll(Duration::from_millis(50));
            next = back;
        }
        producer.poll(Duration::ZERO);
    }
}

fn read_back(message: &impl Message) -> Received {
    let headers = message.headers().map(|headers| {
        headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
    });
    Received {
        offset: message.offset(),
        record: Record {
            partition: message.partition(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            timestamp: message.timestamp().to_millis(),
            headers: headers.unwrap_or_default(),
        },
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(LIMIT)).operation_timeout(Some(LIMIT))
}

fn all_done(what: &str, results: Result<Vec<rdkafka::admin::TopicResult>, KafkaError>) {
    for result in results.unwrap_or_else(|error| panic!("{what}: {error}")) {
        if let Err((topic, code)) = result {
            panic!("{what} {topic}: {code}");
        }
    }
}

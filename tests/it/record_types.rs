//! Several record types in one topic: routed to a table each, or kept as structs of one table.

use std::time::Duration;

use firn::commands::{self, CheckArgs, OffsetsShowArgs, VerdictArgs};
use firn::query::Format;
use firn::{Error, Result};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};

use crate::dead_letters::{letters, replay};
use crate::evolve::{encode, rows};
use crate::run::{IMPATIENT, World};

const ORDER: &str = r#"{"type":"record","name":"Order","namespace":"shop","fields":[
    {"name":"id","type":"long"},{"name":"total","type":"double"},{"name":"seq","type":"long"}]}"#;
const ORDER_2: &str = r#"{"type":"record","name":"Order","namespace":"shop","fields":[
    {"name":"id","type":"long"},{"name":"total","type":"double"},{"name":"seq","type":"long"},
    {"name":"note","type":["null","string"],"default":null}]}"#;
const CUSTOMER: &str = r#"{"type":"record","name":"Customer","namespace":"shop","fields":[
    {"name":"id","type":"string"},{"name":"name","type":"string"}]}"#;
const NOTE: &str = r#"{"type":"record","name":"Note","namespace":"shop","fields":[{"name":"id","type":"long"}]}"#;

const TABLES: &str = "\n      - {catalog: lake, name: shop.orders, record_type: shop.Order, order_by: seq}\
                      \n      - {catalog: lake, name: shop.customers, record_type: shop.Customer}";

/// A world whose pipeline has these lines.
async fn world(pipeline: &str) -> World {
    let world = World::new().await;
    let text = format!(
        "kafka: {{brokers: '{}'}}\nschema_registry: {{url: '{}'}}\n\
         catalogs:\n  lake: {{type: iceberg-sql, uri: 'sqlite:c.db', warehouse: w}}\n\
         pipelines:\n  p:\n    topics: [trades]\n    lineage: false\n    commit: {{interval: 200ms}}\n    {pipeline}\n",
        world.broker.bootstrap_servers(),
        world.registry_url,
    );
    std::fs::write(world.config(), text).unwrap();
    world
}

fn register(world: &World, subject: &str, schema: &str) -> u32 {
    world.registry.as_ref().unwrap().register(subject, schema).unwrap()
}

/// A key and a value.
pub type Sent = (Option<Vec<u8>>, Option<Vec<u8>>);

/// Sends records with these keys and values.
pub fn send(world: &World, partition: i32, records: &[Sent]) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", world.broker.bootstrap_servers());
    let producer: BaseProducer = config.create().unwrap();
    for (key, value) in records {
        let mut record = BaseRecord::<Vec<u8>, Vec<u8>>::to("trades").partition(partition);
        record.key = key.as_ref();
        record.payload = value.as_ref();
        producer.send(record).unwrap();
    }
    producer.flush(Duration::from_secs(20)).unwrap();
}

fn value(bytes: Vec<u8>) -> Sent {
    (None, Some(bytes))
}

/// The lags of all tables.
async fn lags(world: &World) -> Vec<i64> {
    let mut out = Vec::new();
    let args = OffsetsShowArgs { config: world.config(), format: Format::Json };
    commands::offsets_show(args, &mut out).await.unwrap();
    let shown: Value = serde_json::from_slice(&out).unwrap();
    let tables = shown["tables"].as_array().unwrap();
    let partitions = tables.iter().flat_map(|table| table["partitions"].as_array().unwrap());
    partitions.map(|partition| partition["lag"].as_i64().unwrap()).collect()
}

/// INV-1, INV-4: V of each table passes the events of the others.
#[tokio::test(flavor = "multi_thread")]
async fn each_record_type_has_its_table() {
    let world = world(&format!(
        "key: [id]\n    subject_strategy: topic_record\n    on_unknown_type: skip\n    tables: {TABLES}"
    ))
    .await;
    let order = register(&world, "trades-shop.Order", ORDER);
    let customer = register(&world, "trades-shop.Customer", CUSTOMER);
    let note = register(&world, "trades-shop.Note", NOTE);
    let an_order = |id: i64, seq: i64| value(encode(order, ORDER, json!({"id": id, "total": 0.5, "seq": seq})));
    let a_customer = |id: &str| value(encode(customer, CUSTOMER, json!({"id": id, "name": "n"})));
    send(&world, 0, &[an_order(1, 5), a_customer("ann"), value(encode(note, NOTE, json!({"id": 1}))), an_order(2, 5)]);
    send(&world, 1, &[a_customer("bob"), a_customer("cy"), value(encode(note, NOTE, json!({"id": 2})))]);
    world.catch_up().await.unwrap();
    let ids = |rows: Vec<Value>| rows.into_iter().map(|row| row["id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(rows(&world, "lake.shop.orders").await), [json!(1), json!(2)]);
    assert_eq!(ids(rows(&world, "lake.shop.customers").await), [json!("ann"), json!("bob"), json!("cy")]);
    assert_eq!(lags(&world).await, [0; 4], "the notes at the ends are passed by both");

    // A late order, a new version of its schema, and tombstones: one of an order, one of a customer.
    let newer = register(&world, "trades-shop.Order", ORDER_2);
    let noted = value(encode(newer, ORDER_2, json!({"id": 2, "total": 7.0, "seq": 6, "note": "new"})));
    send(&world, 0, &[an_order(2, 4), noted, (Some(1i64.to_be_bytes().to_vec()), None), (Some(b"ann".to_vec()), None)]);
    world.catch_up().await.unwrap();
    assert_eq!(rows(&world, "lake.shop.orders").await, [json!({"id": 2, "total": 7.0, "seq": 6, "note": "new"})]);
    assert_eq!(ids(rows(&world, "lake.shop.customers").await), [json!("bob"), json!("cy")]);
    assert_eq!(lags(&world).await, [0; 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_branch_of_a_union_says_the_type() {
    let world = world(&format!("key: [id]\n    tables: {TABLES}")).await;
    let registry = world.registry.as_ref().unwrap();
    registry.set_level(None, firn::embedded::registry::Level::None).unwrap();
    let union = register(&world, "trades-value", &format!("[{ORDER},{CUSTOMER}]"));
    let event = |branch: u8, schema: &str, json: Value| {
        let plain = encode(union, schema, json);
        value([&plain[..5], &[branch << 1], &plain[5..]].concat())
    };
    send(
        &world,
        0,
        &[
            event(0, ORDER, json!({"id": 1, "total": 1.5, "seq": 1})),
            event(1, CUSTOMER, json!({"id": "ann", "name": "Ann"})),
        ],
    );
    world.catch_up().await.unwrap();
    assert_eq!(rows(&world, "lake.shop.orders").await, [json!({"id": 1, "total": 1.5, "seq": 1})]);
    assert_eq!(rows(&world, "lake.shop.customers").await, [json!({"id": "ann", "name": "Ann"})]);

    send(&world, 1, &[event(2, ORDER, json!({"id": 1, "total": 1.5, "seq": 1}))]);
    let error = world.catch_up().await.unwrap_err().to_string();
    assert!(error.contains("bad_union_branch"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn record_types_can_be_structs_of_one_table() {
    let world = world(
        "key: [id]\n    order_by: seq\n    subject_strategy: record\n    record_types: [shop.Order, shop.Refund]\n    \
         tables: [{catalog: lake, name: shop.events}]",
    )
    .await;
    let refund_schema = r#"{"type":"record","name":"Refund","namespace":"shop","fields":[
        {"name":"why","type":"string"},{"name":"seq","type":"long"},{"name":"id","type":"long"}]}"#;
    let order = register(&world, "shop.Order", ORDER);
    let refund = register(&world, "shop.Refund", refund_schema);
    let an_order = |id: i64, seq: i64| value(encode(order, ORDER, json!({"id": id, "total": 0.5, "seq": seq})));
    let a_refund =
        |id: i64, seq: i64| value(encode(refund, refund_schema, json!({"id": id, "why": "late", "seq": seq})));
    send(&world, 0, &[an_order(1, 1), an_order(2, 1), a_refund(3, 1), a_refund(2, 2), an_order(3, 0)]);
    world.catch_up().await.unwrap();
    let expected = [
        json!({"id": 1, "seq": 1, "Order": {"id": 1, "total": 0.5, "seq": 1}}),
        json!({"id": 2, "seq": 2, "Refund": {"id": 2, "why": "late", "seq": 2}}),
        json!({"id": 3, "seq": 1, "Refund": {"id": 3, "why": "late", "seq": 1}}),
    ];
    assert_eq!(rows(&world, "lake.shop.events").await, expected);

    // One of the types grows.
    let newer = register(&world, "shop.Order", ORDER_2);
    send(&world, 0, &[value(encode(newer, ORDER_2, json!({"id": 1, "total": 1.5, "seq": 2, "note": "x"})))]);
    world.catch_up().await.unwrap();
    let first = rows(&world, "lake.shop.events").await.remove(0);
    assert_eq!(first, json!({"id": 1, "seq": 2, "Order": {"id": 1, "total": 1.5, "seq": 2, "note": "x"}}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_no_table_takes_stops_unless_told_otherwise() {
    let world = world(&format!("key: [id]\n    subject_strategy: topic_record\n    tables: {TABLES}")).await;
    let missing = world.catch_up_with(IMPATIENT).await.unwrap_err();
    assert!(missing.to_string().contains("no subject trades-shop.Order"), "{missing}");
    register(&world, "trades-shop.Order", ORDER);
    register(&world, "trades-shop.Customer", CUSTOMER);
    let note = register(&world, "trades-shop.Note", NOTE);
    send(&world, 0, &[value(encode(note, NOTE, json!({"id": 1})))]);
    let error = world.catch_up().await.unwrap_err();
    assert!(matches!(error, Error::Decision(_)), "{error}");
    assert!(error.to_string().contains("trades/0 at offset 0: no table takes record type shop.Note"), "{error}");

    world.broker.create_topic("trades.dlq", 2).unwrap();
    let text = std::fs::read_to_string(world.config()).unwrap();
    let kept = "on_unknown_type: dead_letter\n    dead_letter: {topic: trades.dlq}\n    tables:";
    std::fs::write(world.config(), text.replace("tables:", kept)).unwrap();
    world.catch_up().await.unwrap();
    let letters = letters(&world);
    assert_eq!(letters.whole.values().map(|letter| letter.reason.as_str()).collect::<Vec<_>>(), ["unknown_type"]);
    assert_eq!(lags(&world).await, [0; 4]);
}

/// With record keys as primary keys a tombstone goes to the tables whose key it has.
#[tokio::test(flavor = "multi_thread")]
async fn a_tombstone_deletes_in_the_tables_whose_key_it_has() {
    let tables = "[{catalog: lake, name: shop.orders, record_type: shop.Order, key: [id]}, \
                  {catalog: lake, name: shop.customers, record_type: shop.Customer, key: [id]}, \
                  {catalog: lake, name: shop.notes, record_type: shop.Note, key: [id]}]";
    let world = world(&format!("subject_strategy: topic_record\n    record_key: avro\n    tables: {tables}")).await;
    let order = register(&world, "trades-shop.Order", ORDER);
    let customer = register(&world, "trades-shop.Customer", CUSTOMER);
    let note = register(&world, "trades-shop.Note", NOTE);
    let key_schema = r#"{"type":"record","name":"K","fields":[{"name":"id","type":"long"}]}"#;
    let key = register(&world, "keys", key_schema);
    let text_schema = r#"{"type":"record","name":"K","fields":[{"name":"id","type":"string"}]}"#;
    let text = register(&world, "text-keys", text_schema);
    let other_schema = r#"{"type":"record","name":"K","fields":[{"name":"other","type":"string"}]}"#;
    let other = register(&world, "other-keys", other_schema);
    let of = |id: i64| Some(encode(key, key_schema, json!({"id": id})));
    let named = |id: &str| Some(encode(text, text_schema, json!({"id": id})));
    send(
        &world,
        0,
        &[
            (of(1), Some(encode(order, ORDER, json!({"id": 1, "total": 0.5, "seq": 1})))),
            (of(2), Some(encode(order, ORDER, json!({"id": 2, "total": 0.5, "seq": 1})))),
            (of(1), Some(encode(note, NOTE, json!({"id": 1})))),
            (named("ann"), Some(encode(customer, CUSTOMER, json!({"id": "ann", "name": "Ann"})))),
            (of(1), None),
        ],
    );
    world.catch_up().await.unwrap();
    let count = |rows: Vec<Value>| rows.len();
    assert_eq!(count(rows(&world, "lake.shop.orders").await), 1);
    assert_eq!(count(rows(&world, "lake.shop.notes").await), 0);
    assert_eq!(count(rows(&world, "lake.shop.customers").await), 1);
    send(&world, 0, &[(named("ann"), None)]);
    world.catch_up().await.unwrap();
    assert_eq!(count(rows(&world, "lake.shop.customers").await), 0);
    assert_eq!(count(rows(&world, "lake.shop.orders").await), 1);
    send(&world, 0, &[(Some(encode(other, other_schema, json!({"other": "x"}))), None)]);
    let error = world.catch_up().await.unwrap_err().to_string();
    assert!(error.contains("bad_key"), "a tombstone of no table is a bad record: {error}");
}

/// INV-15
#[tokio::test(flavor = "multi_thread")]
async fn a_tombstone_that_is_a_key_of_several_tables_comes_back_in_all_of_them() {
    let tables = "[{catalog: lake, name: shop.orders, record_type: shop.Order, key: [id], order_by: seq}, \
                  {catalog: lake, name: shop.notes, record_type: shop.Note, key: [id], order_by: id}]";
    let letters = "on_bad_record: dead_letter\n    dead_letter: {topic: trades.dlq}\n";
    let lines = format!("subject_strategy: topic_record\n    record_key: int64\n    {letters}    tables: {tables}");
    let world = world(&lines).await;
    world.broker.create_topic("trades.dlq", 2).unwrap();
    let order = register(&world, "trades-shop.Order", ORDER);
    let note = register(&world, "trades-shop.Note", NOTE);
    let key_schema = r#"{"type":"record","name":"K","fields":[{"name":"id","type":"long"}]}"#;
    let key = register(&world, "keys", key_schema);
    let gone = |id: i64| (Some(encode(key, key_schema, json!({"id": id}))), None);
    let an_order = |id: i64| value(encode(order, ORDER, json!({"id": id, "total": 0.5, "seq": 1})));
    let a_note = |id: i64| value(encode(note, NOTE, json!({"id": id})));
    for id in 1..=4 {
        send(&world, 0, &[an_order(id), a_note(id)]);
    }
    // The keys are Avro: until the setting is mended, no tombstone can be read. What is behind them writes keys again, in one
    // table each; a larger value of the order column is no help against a deletion.
    let again = value(encode(order, ORDER, json!({"id": 3, "total": 1.5, "seq": 2})));
    send(&world, 0, &[gone(1), gone(2), gone(3), a_note(2), again]);
    world.catch_up().await.unwrap();
    let ids = async |table: &str| -> Vec<i64> {
        rows(&world, table).await.iter().map(|row| row["id"].as_i64().unwrap()).collect()
    };
    assert_eq!((ids("lake.shop.orders").await, ids("lake.shop.notes").await), (vec![1, 2, 3, 4], vec![1, 2, 3, 4]));
    let settings = std::fs::read_to_string(world.config()).unwrap();
    std::fs::write(world.config(), settings.replace("record_key: int64", "record_key: avro")).unwrap();
    for (submitted, earlier) in [(1, 0), (0, 1)] {
        let (now, before, refused) = replay(&world, false).await;
        assert_eq!((now, before, refused.len()), (submitted, earlier, 2), "{refused:?}");
        assert!(refused.iter().all(|why| why.contains("written since")), "{refused:?}");
        world.catch_up().await.unwrap();
        assert_eq!((ids("lake.shop.orders").await, ids("lake.shop.notes").await), (vec![2, 3, 4], vec![2, 3, 4]));
    }
    assert!(lags(&world).await.iter().all(|lag| *lag == 0), "V of each table passes it");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_and_verdict_look_at_the_subject_of_the_record_type() {
    let world = world(&format!("key: [id]\n    subject_strategy: topic_record\n    tables: {TABLES}")).await;
    register(&world, "trades-shop.Order", ORDER);
    register(&world, "trades-shop.Customer", CUSTOMER);
    world.catch_up().await.unwrap();
    let mut out = Vec::new();
    commands::check(CheckArgs { config: world.config(), verbose: false }, &mut out).await.unwrap();
    let said = String::from_utf8(out).unwrap();
    assert!(said.contains("subject trades-shop.Order: the newest schema can be read"), "{said}");
    assert!(said.contains("subject trades-shop.Customer: the newest schema can be read"), "{said}");
    assert!(said.matches("its columns hold what the newest schema has").count() == 2, "{said}");

    let (report, ended) = verdict(&world, ORDER_2).await;
    ended.unwrap();
    assert_eq!(report["registry"]["subject"], "trades-shop.Order");
    assert_eq!(report["registry"]["answer"], "compatible");
    let tables: Vec<_> = report["tables"].as_array().unwrap().iter().map(|t| t["table"].clone()).collect();
    assert_eq!(tables, ["lake.shop.orders"], "the other table does not take it");
    assert_eq!(report["tables"][0]["changes"][0]["path"], "note");
    let (_, ended) = verdict(&world, NOTE).await;
    let error = ended.unwrap_err().to_string();
    assert!(error.contains("no table of pipeline p takes record type shop.Note"), "{error}");
}

async fn verdict(world: &World, schema: &str) -> (Value, Result<()>) {
    let path = world.folder.path().join("new.avsc");
    std::fs::write(&path, schema).unwrap();
    let args = VerdictArgs { config: world.config(), pipeline: "p".into(), schema: Some(path), format: Format::Json };
    let mut out = Vec::new();
    let ended = commands::schema_verdict(args, &mut out).await;
    (serde_json::from_slice(&out).unwrap_or_default(), ended)
}

//! Avro, JSON and Protobuf values of several record types in one topic, with their schemas in a real registry.

use serde_json::json;

use crate::kafka::{Compression, Record};
use crate::process::catch_up;
use crate::registry::{Reference, framed};
use crate::rows::assert_same_rows;
use crate::stack::{Catalog, Stack, unique};
use crate::wanted;

const ORDER: &str = r#"{"type":"record","name":"Order","namespace":"shop","fields":[
    {"name":"id","type":"long"},{"name":"total","type":["null","double"],"default":null}]}"#;
const CUSTOMER: &str = r#"{"$schema":"http://json-schema.org/draft-07/schema#","title":"shop.Customer","type":"object",
    "properties":{"email":{"type":"string"},"name":{"type":["string","null"]},"age":{"type":"integer"}},"required":["email"]}"#;
const MONEY: &str =
    "syntax = \"proto3\";\npackage shop;\n\nmessage Money {\n  int64 cents = 1;\n  string unit = 2;\n}\n";
const PAYMENT: &str = "syntax = \"proto3\";\npackage shop;\n\nimport \"shop/money.proto\";\nimport \"google/protobuf/timestamp.proto\";\n\n\
    message Payment {\n  int64 id = 1;\n  Money amount = 2;\n  google.protobuf.Timestamp at = 3;\n  repeated string tags = 4;\n}\n";

/// The zig-zag variable-length integers of Avro.
pub fn long(value: i64) -> Vec<u8> {
    varint(((value << 1) ^ (value >> 63)) as u64)
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn field(number: u64, content: &[u8]) -> Vec<u8> {
    [varint(number << 3 | 2), varint(content.len() as u64), content.to_vec()].concat()
}

fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

#[test]
fn three_encodings_and_record_types_in_one_topic_have_a_table_each() {
    if !wanted() {
        return;
    }
    let stack = Stack::get();
    let topic = unique("values");
    stack.kafka.create_topic(&topic, 3, &[]);
    let registry = &stack.registry;
    let order = registry.register(&format!("{topic}-shop.Order"), ORDER);
    let customer = registry.register_as("JSON", &format!("{topic}-shop.Customer"), CUSTOMER, &[]);
    let money = format!("{topic}-money");
    registry.register_as("PROTOBUF", &money, MONEY, &[]);
    let reference = Reference { name: "shop/money.proto".into(), subject: money, version: 1 };
    let payment = registry.register_as("PROTOBUF", &format!("{topic}-shop.Payment"), PAYMENT, &[reference]);
    let ignored = registry.register(&format!("{topic}-shop.Ignored"), &ORDER.replace("Order", "Ignored"));

    let mut records = Vec::new();
    let mut send = |partition: i32, value: Vec<u8>| {
        records.push(Record { partition, value: Some(value), ..Record::default() });
    };
    for id in 0..30i64 {
        let partition = (id % 3) as i32;
        let total = if id % 2 == 0 { vec![0] } else { [vec![2], (id as f64 / 4.0).to_le_bytes().to_vec()].concat() };
        send(partition, framed(order, &[long(id), total.clone()].concat()));
        let name = if id % 3 == 0 { json!(null) } else { json!(format!("Zoë {id}")) };
        let person = json!({"name": name, "email": format!("{id}@x"), "age": id});
        send(partition, framed(customer, person.to_string().as_bytes()));
        let amount = field(2, &[number(1, 100 + id as u64), field(2, b"EUR")].concat());
        let at = field(3, &[number(1, 1_700_000_000), number(2, 1_000)].concat());
        let body = [vec![0], number(1, id as u64), amount, at, field(4, b"a"), field(4, b"b")].concat();
        send(partition, framed(payment, &body));
        send(partition, framed(ignored, &[long(id), total].concat()));
    }
    stack.kafka.produce(&topic, &records, Compression::None);

    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("firn.yaml");
    let table = topic.replace('-', "_");
    let text = format!(
        "kafka: {{brokers: \"{}\"}}\nschema_registry: {{url: \"{}\"}}\ncatalogs: {{lake: {}}}\n\
         pipelines:\n  {topic}:\n    topics: [{topic}]\n    subject_strategy: topic_record\n    on_unknown_type: skip\n    lineage: false\n\
         \x20   tables:\n      - {{catalog: lake, name: shop.{table}_o, record_type: shop.Order, key: [id]}}\n\
         \x20     - {{catalog: lake, name: shop.{table}_c, record_type: shop.Customer, key: [email]}}\n\
         \x20     - {{catalog: lake, name: shop.{table}_p, record_type: shop.Payment, key: [id]}}\n\
         state_dir: ./state\n",
        stack.kafka.plaintext,
        registry.url,
        stack.firn_catalog(Catalog::Sqlite)
    );
    std::fs::write(&config, text).unwrap();
    catch_up(&config);

    let rows = |suffix: &str| {
        let table = format!("shop.{table}_{suffix}");
        stack.pyiceberg_rows(&stack.pyiceberg_catalog(Catalog::Sqlite), &table, None)
    };
    let null = crate::rows::NULL.to_owned();
    let orders: Vec<_> = (0..30i64)
        .map(|id| vec![id.to_string(), if id % 2 == 0 { null.clone() } else { format!("{:?}", id as f64 / 4.0) }])
        .collect();
    assert_same_rows(&rows("o"), &orders);
    let customers: Vec<_> = (0..30i64)
        .map(|id| {
            let name = if id % 3 == 0 { null.clone() } else { format!("Zoë {id}") };
            vec![format!("{id}@x"), name, id.to_string()]
        })
        .collect();
    assert_same_rows(&rows("c"), &customers);
    let payments = rows("p");
    assert_eq!(payments.len(), 30);
    for row in payments {
        let id: u64 = row[0].parse().unwrap();
        assert!(row[1].contains(&(100 + id).to_string()) && row[1].contains("EUR"), "{row:?}");
        assert!(row[2].contains("2023-11-14") && row[2].contains("000001"), "{row:?}");
        assert!(row[3].contains('a') && row[3].contains('b'), "{row:?}");
    }
}

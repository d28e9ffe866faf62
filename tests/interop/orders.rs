//! Events of `schemas/nested_example.avsc`: a value of every type, with nulls wherever the schema lets them be.

use std::collections::HashMap;

use apache_avro::types::Value;
use apache_avro::{Decimal, Uuid};

/// The value's schema.
pub const SCHEMA: &str = include_str!("../../schemas/nested_example.avsc");

const STATUS: [&str; 4] = ["NEW", "PAID", "SHIPPED", "CANCELLED"];

fn optional(some: bool, value: Value) -> Value {
    if some { Value::Union(1, Box::new(value)) } else { Value::Union(0, Box::new(Value::Null)) }
}

fn record(fields: Vec<(&str, Value)>) -> Value {
    Value::Record(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn text(value: impl Into<String>) -> Value {
    Value::String(value.into())
}

fn decimal(unscaled: i64) -> Value {
    Value::Decimal(Decimal::from(unscaled.to_be_bytes()))
}

fn status(number: u64) -> Value {
    let index = (number % 4) as usize;
    Value::Enum(index as u32, STATUS[index].to_owned())
}

fn address(number: u64) -> Value {
    let zip = optional(!number.is_multiple_of(3), Value::Int(number as i32 * 7 - 20));
    record(vec![
        ("street", text(format!("Straße {number}"))),
        ("city", text(format!("City {}", number % 7))),
        ("zip", zip),
    ])
}

/// The key of an order, as the table shows it.
pub fn id(number: u64) -> String {
    Uuid::from_u128(0x1234_5678_9abc_4def_8000_0000_0000_0000 + u128::from(number)).to_string()
}

/// The `revision`th value of order `number`.
pub fn order(number: u64, revision: u64) -> Value {
    let n = number * 31 + revision * 17;
    let signed = n as i64 - 600;
    let line = |i: u64| {
        record(vec![
            ("sku", text(format!("sku \"{i}\", {n}"))),
            ("quantity", Value::Int((n + i) as i32 - 100)),
            ("unit_price", decimal((signed + i as i64) * 12_345)),
        ])
    };
    let customer = record(vec![
        ("name", text(format!("Zoë {}", n % 11))),
        ("email", optional(!n.is_multiple_of(4), text(format!("c{n}@example.com")))),
        ("address", optional(!n.is_multiple_of(5), address(n))),
    ]);
    let tags = (0..n % 4).map(|i| text(format!("tag{}", (n + i) % 6))).collect();
    let scores =
        (0..n % 3).map(|i| optional(!(n + i).is_multiple_of(4), Value::Double((n + i) as f64 / 8.0))).collect();
    let mut attributes = HashMap::from([("n".to_owned(), text(n.to_string()))]);
    if !n.is_multiple_of(3) {
        attributes.insert("channel".to_owned(), text(["web", "shop", ""][(n % 3) as usize]));
    }
    let counters = HashMap::from([("views".to_owned(), optional(!n.is_multiple_of(6), Value::Long(signed)))]);
    let micros = 1_767_623_400_123_456 + signed * 3_600_000_123;
    record(vec![
        ("order_id", Value::Uuid(id(number).parse().unwrap())),
        ("customer", customer),
        ("previous_address", optional(n.is_multiple_of(2), address(n + 1))),
        ("lines", Value::Array((0..n % 3).map(line).collect())),
        ("tags", Value::Array(tags)),
        ("scores", Value::Array(scores)),
        ("attributes", Value::Map(attributes)),
        ("counters", Value::Map(counters)),
        ("status", status(n)),
        ("previous_status", optional(!n.is_multiple_of(3), status(n / 2))),
        ("total", decimal(signed * 101)),
        ("discount", optional(!n.is_multiple_of(4), Value::Decimal(Decimal::from((signed as i32 * 33).to_be_bytes())))),
        ("ordered_on", Value::Date(20_454 + (n % 40) as i32 - 20)),
        ("cutoff", Value::TimeMillis((n * 7_777 % 86_400_000) as i32)),
        ("picked_at", optional(!n.is_multiple_of(3), Value::TimeMicros((n * 7_777_777 % 86_400_000_000) as i64))),
        ("created_at", Value::TimestampMicros(micros)),
        ("updated_at", optional(n.is_multiple_of(2), Value::TimestampMillis(micros / 1_000))),
        ("local_time", Value::LocalTimestampMicros(micros + 7)),
        ("paid", Value::Boolean(n.is_multiple_of(2))),
        ("weight", Value::Float(signed as f32 / 16.0 + 0.1)),
        (
            "distance",
            Value::Union(
                u32::from(n.is_multiple_of(5)),
                Box::new(if n.is_multiple_of(5) { Value::Null } else { Value::Double(signed as f64 / 4.0) }),
            ),
        ),
        ("revision", Value::Int(revision as i32)),
        ("signature", Value::Bytes(n.to_be_bytes()[(n % 8) as usize..].to_vec())),
        ("checksum", Value::Fixed(8, (n * 0x9e37_79b9).to_le_bytes().to_vec())),
    ])
}

//! Random schemas and messages, read here and by prost-reflect, which decodes messages of any schema.

use std::sync::Arc;

use prost_reflect::Value as Theirs;
use prost_reflect::{Cardinality, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage};
use serde_json::{Value, json};

use super::schema::compile;
use crate::avro::tests::oracle::Random;
use crate::avro::tests::{append, encode, row_of, same};
use crate::avro::{Decoder, Reason, SchemaKind, SchemaText, ValueSchema};

const SCHEMAS: usize = 1_000;
const MESSAGES: usize = 6;

const TYPES: [&str; 16] = [
    "double", "float", "int32", "int64", "uint32", "uint64", "sint32", "sint64", "fixed32", "fixed64", "sfixed32",
    "sfixed64", "bool", "string", "bytes", "E",
];
const KEYS: [&str; 6] = ["string", "int32", "sint64", "fixed64", "bool", "uint32"];
const INTS: [i64; 9] = [0, 1, -1, 127, 300, i64::MAX, i64::MIN, (1 << 53) + 1, -(1 << 31)];
const ENUMS: [i32; 7] = [0, 1, -7, i32::MAX, 99, -1, i32::MIN];

/// Writes schemas and bodies.
struct Maker {
    random: Random,
    proto3: bool,
    names: usize,
}

impl Maker {
    fn below(&mut self, n: usize) -> usize {
        self.random.below(n as u64) as usize
    }

    fn kind(&mut self, depth: usize, inner: &mut String) -> String {
        if depth < 3 && self.below(4) == 0 {
            let name = format!("M{}", self.names);
            inner.push_str(&self.message(&name, depth + 1));
            return name;
        }
        TYPES[self.below(TYPES.len())].into()
    }

    fn message(&mut self, name: &str, depth: usize) -> String {
        self.names += 1;
        let (mut inner, mut fields) = (String::new(), String::new());
        let mut number = 0;
        for at in 0..=self.below(5) {
            number += 1 + [0, 0, 14, 2_000, 100_000_000][self.below(5)];
            let kind = self.kind(depth, &mut inner);
            let is_message = kind.starts_with('M');
            let packs = !is_message && kind != "string" && kind != "bytes";
            fields += &match self.below(8) {
                0 => format!("map<{}, {kind}> f{at} = {number};", KEYS[self.below(KEYS.len())]),
                1 => {
                    let other = TYPES[self.below(TYPES.len())];
                    number += 1;
                    format!("oneof o{at} {{ {kind} f{at} = {}; {other} g{at} = {number}; }}", number - 1)
                }
                2 | 3 => {
                    let packed = ["", " [packed = true]", " [packed = false]"][self.below(3)];
                    format!("repeated {kind} f{at} = {number}{};", if packs { packed } else { "" })
                }
                4 if !self.proto3 => format!("required {kind} f{at} = {number};"),
                5 if !self.proto3 && kind == "int32" => format!("optional int32 f{at} = {number} [default = 5];"),
                4 | 5 => format!("optional {kind} f{at} = {number};"),
                _ => format!("{}{kind} f{at} = {number};", if self.proto3 { "" } else { "optional " }),
            };
            fields += "\n";
        }
        format!("message {name} {{ {inner}\n{fields} }}\n")
    }

    fn schema(&mut self) -> String {
        self.proto3 = self.below(2) == 0;
        self.names = 0;
        let syntax = if self.proto3 { "proto3" } else { "proto2" };
        format!("syntax = \"{syntax}\";\n{}enum E {{ Z = 0; A = 1; B = -7; C = 2147483647; }}", self.message("M", 0))
    }

    /// As encoders write it, or longer.
    fn varint(&mut self, mut value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
        if self.below(8) == 0 && out.len() < 10 {
            *out.last_mut().unwrap() |= 0x80;
            out.push(0);
        }
        out
    }

    fn int(&mut self) -> i64 {
        let value = INTS[self.below(INTS.len())];
        if self.below(2) == 0 { value } else { self.below(1 << 40) as i64 - (1 << 39) }
    }

    /// A value in the form of its type: wire type and bytes, those of a length in front.
    fn raw(&mut self, kind: &Kind, depth: usize) -> (u64, Vec<u8>) {
        let value = self.int();
        let fraction = (value % (1 << 20)) as f64 / 8.0;
        let zigzag = |value: i64| ((value << 1) ^ (value >> 63)) as u64;
        match kind {
            Kind::Double => (1, fraction.to_le_bytes().into()),
            Kind::Float => (5, (fraction as f32).to_le_bytes().into()),
            Kind::Int32 => (0, self.varint(i64::from(value as i32) as u64)),
            Kind::Int64 => (0, self.varint(value as u64)),
            Kind::Uint32 => (0, self.varint(u64::from(value as u32))),
            Kind::Uint64 => (0, self.varint(value as u64 >> 1)),
            Kind::Sint32 => (0, self.varint(zigzag((value as i32).into()))),
            Kind::Sint64 => (0, self.varint(zigzag(value))),
            Kind::Fixed32 | Kind::Sfixed32 => (5, (value as u32).to_le_bytes().into()),
            Kind::Fixed64 => (1, (value as u64 >> 1).to_le_bytes().into()),
            Kind::Sfixed64 => (1, value.to_le_bytes().into()),
            Kind::Bool => (0, self.varint(value as u64 % 3)),
            Kind::Enum(_) => {
                let number = ENUMS[self.below(ENUMS.len())];
                (0, self.varint(i64::from(number) as u64))
            }
            Kind::String => {
                let text = ["", "a", "é", "\u{1f600}\0", "\"\\"][self.below(5)];
                (2, self.behind_length(text.as_bytes()))
            }
            Kind::Bytes => {
                let length = self.below(4);
                (2, self.behind_length(&[0xff, 0, 7][..length]))
            }
            Kind::Message(message) => {
                let body = self.body(message, depth + 1);
                (2, self.behind_length(&body))
            }
        }
    }

    fn behind_length(&mut self, bytes: &[u8]) -> Vec<u8> {
        [self.varint(bytes.len() as u64), bytes.to_vec()].concat()
    }

    fn field(&mut self, field: &FieldDescriptor, depth: usize) -> Vec<u8> {
        let (wire, raw) = if field.is_list() && packs(&field.kind()) && self.below(2) == 0 {
            let several: Vec<u8> = (0..self.below(4)).flat_map(|_| self.raw(&field.kind(), depth).1).collect();
            (2, self.behind_length(&several))
        } else {
            self.raw(&field.kind(), depth)
        };
        [self.varint(u64::from(field.number()) << 3 | wire), raw].concat()
    }

    /// Fields in any order, again, in parts, several of a oneof; and some that nobody knows.
    fn body(&mut self, message: &MessageDescriptor, depth: usize) -> Vec<u8> {
        let fields: Vec<FieldDescriptor> = message.fields().collect();
        let mut out = Vec::new();
        for field in fields.iter().filter(|field| field.cardinality() == Cardinality::Required) {
            if self.below(20) > 0 {
                out.extend(self.field(field, depth));
            }
        }
        for _ in 0..self.below(if depth < 4 { 7 } else { 2 }) {
            out.extend(match self.below(12) {
                0 => [self.varint(536_870_911 << 3), self.varint(9)].concat(),
                1 => [self.varint(536_870_910 << 3 | 2), vec![2, 8, 1]].concat(),
                _ => {
                    let at = self.below(fields.len());
                    self.field(&fields[at], depth)
                }
            });
        }
        out
    }
}

/// Whether values of a type may come packed.
fn packs(kind: &Kind) -> bool {
    !matches!(kind, Kind::String | Kind::Bytes | Kind::Message(_))
}

/// Whether all required fields are there, at every depth.
fn is_complete(message: &DynamicMessage) -> bool {
    let inside = |value: &Theirs| value.as_message().is_none_or(is_complete);
    message.descriptor().fields().all(|field| {
        let there = message.has_field(&field);
        let value = message.get_field(&field);
        let within = match &*value {
            Theirs::List(items) => items.iter().all(inside),
            Theirs::Map(entries) => entries.values().all(inside),
            one => !there || inside(one),
        };
        within && (there || field.cardinality() != Cardinality::Required)
    })
}

/// A message as the row that it should be.
fn shown(message: &DynamicMessage) -> Value {
    let mut row = serde_json::Map::new();
    for field in message.descriptor().fields() {
        let many = field.is_list() || field.is_map();
        if many || message.has_field(&field) || !field.supports_presence() {
            // In proto2 a field that is not there is null, whatever its default is.
            row.insert(field.name().to_owned(), shown_value(&message.get_field(&field), &field.kind()));
        }
    }
    Value::Object(row)
}

fn shown_value(value: &Theirs, kind: &Kind) -> Value {
    match value {
        Theirs::Bool(flag) => json!(flag),
        Theirs::I32(n) => json!(n),
        Theirs::I64(n) => json!(n),
        Theirs::U32(n) => json!(n),
        Theirs::U64(n) => json!(n),
        // As it is printed.
        Theirs::F32(x) => json!(x.to_string().parse::<f64>().unwrap()),
        Theirs::F64(x) => json!(x),
        Theirs::String(text) => json!(text),
        Theirs::Bytes(bytes) => json!(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
        Theirs::EnumNumber(number) => {
            let name = kind.as_enum().and_then(|of| of.get_value(*number)).map(|value| value.name().to_owned());
            json!(name.unwrap_or_else(|| number.to_string()))
        }
        Theirs::Message(message) => shown(message),
        Theirs::List(items) => items.iter().map(|item| shown_value(item, kind)).collect(),
        Theirs::Map(entries) => {
            let of = kind.as_message().unwrap().map_entry_value_field().kind();
            let entry = |(key, value): (&MapKey, &Theirs)| {
                let key = match key {
                    MapKey::Bool(flag) => flag.to_string(),
                    MapKey::I32(n) => n.to_string(),
                    MapKey::I64(n) => n.to_string(),
                    MapKey::U32(n) => n.to_string(),
                    MapKey::U64(n) => n.to_string(),
                    MapKey::String(text) => text.clone(),
                };
                (key, shown_value(value, &of))
            };
            Value::Object(entries.iter().map(entry).collect())
        }
    }
}

/// What the decoder makes of a body, that of the schema's first message.
fn ours(decoder: &mut Decoder, body: &[u8]) -> Result<Value, Reason> {
    row_of(decoder, &[&[0][..], body].concat())
}

#[test]
fn random_messages_are_read_as_prost_reads_them() {
    let mut maker = Maker { random: Random::new(11), proto3: true, names: 0 };
    let (mut rows, mut changed_rows, mut refused, mut unread, mut strict) = (0, 0, 0, 0, 0);
    for _ in 0..SCHEMAS {
        let text = maker.schema();
        let message = compile(&text, &[]).unwrap().get_message_by_name("M").unwrap();
        let schema = Arc::new(ValueSchema::parse(&SchemaText::new(SchemaKind::Protobuf, &text)).unwrap());
        let table = schema.table_schema(None, &append(), 2).unwrap_or_else(|e| panic!("{e}: {text}"));
        let mut decoder = Decoder::new(&table, &append(), encode()).unwrap();
        decoder.add_values(1, &schema).unwrap();
        for _ in 0..MESSAGES {
            let mut body = maker.body(&message, 0);
            let theirs = DynamicMessage::decode(message.clone(), &*body).unwrap();
            let expected = if is_complete(&theirs) { Ok(shown(&theirs)) } else { Err(Reason::MissingField) };
            match (ours(&mut decoder, &body), &expected) {
                (Ok(row), Ok(expected)) => assert!(same(&row, expected), "{row} {expected} {body:02x?} of {text}"),
                // A required field is missing in what a later entry of the map replaces.
                (Err(Reason::MissingField), Ok(_)) => strict += 1,
                (ours, expected) => assert_eq!(ours, *expected, "{body:02x?} of {text}"),
            }
            rows += usize::from(expected.is_ok());
            // The same with a few bytes changed: what we take, they take, and as the same.
            for _ in 0..=maker.below(3) {
                if !body.is_empty() {
                    let at = maker.below(body.len());
                    body[at] = [0, 1, 0x7f, 0x80, 0xff, maker.below(256) as u8][maker.below(6)];
                }
            }
            let theirs = DynamicMessage::decode(message.clone(), &*body);
            match (ours(&mut decoder, &body), theirs) {
                (Ok(row), Ok(theirs)) => {
                    let theirs = shown(&theirs);
                    assert!(same(&row, &theirs), "{row} {theirs} {body:02x?} of {text}");
                    changed_rows += 1;
                }
                (Err(_), Err(_)) => refused += 1,
                // Numbers that prost cuts off or that no column holds, required fields, groups that it passes over.
                (Err(Reason::OutOfRange | Reason::MissingField | Reason::WireType), Ok(_)) => {}
                // What a later value of its oneof, or of itself, replaces is not looked into here.
                (Ok(_), Err(_)) => unread += 1,
                // Prost does not look at the form of a map's entries on the wire.
                (Err(_), Ok(_)) => strict += 1,
            }
        }
    }
    let figures = format!(
        "{rows} rows, {changed_rows} changed ones, {refused} refused, {unread} by prost alone, {strict} here alone"
    );
    assert!(rows > 4_000 && changed_rows > 1_500 && refused > 500 && unread < 100 && strict < 30, "{figures}");
}

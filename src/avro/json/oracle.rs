//! Random schemas and values: a body is read as serde_json's values say, or refused where they say so.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chrono::{DateTime, SecondsFormat};
use serde_json::{Value, json};

use crate::avro::tests::oracle::Random;
use crate::avro::tests::{append, encode, row_of, same};
use crate::avro::{Decoder, Reason, SchemaKind, SchemaText, ValueSchema};

const SCHEMAS: usize = 1_000;
const VALUES: usize = 6;

/// A schema as it was made.
enum Made {
    Integer,
    Number,
    Flag,
    Text,
    Symbol,
    Instant,
    Bytes,
    List(Box<Made>),
    Map(Box<Made>),
    /// Name, type, whether it is required.
    Object(Vec<(String, Made, bool)>),
}

struct Maker(Random);

impl Maker {
    fn below(&mut self, n: usize) -> usize {
        self.0.below(n as u64) as usize
    }

    fn made(&mut self, depth: usize) -> Made {
        match self.below(if depth < 4 { 11 } else { 7 }) {
            0 => Made::Integer,
            1 => Made::Number,
            2 => Made::Flag,
            3 => Made::Text,
            4 => Made::Symbol,
            5 => Made::Instant,
            6 => Made::Bytes,
            7 => Made::List(Box::new(self.made(depth + 1))),
            8 => Made::Map(Box::new(self.made(depth + 1))),
            _ => self.object(depth + 1),
        }
    }

    fn object(&mut self, depth: usize) -> Made {
        let names = ["a", "é", "with space", "\u{1f600}", "\"\\"];
        let fields = (0..=self.below(5)).map(|at| {
            let name = if self.below(3) == 0 && at < names.len() { names[at].into() } else { format!("f{at}") };
            let kind = self.made(depth);
            (name, kind, self.below(2) == 0)
        });
        Made::Object(fields.collect())
    }

    /// A value of the type, or, rarely, another one.
    fn value(&mut self, made: &Made) -> String {
        if self.below(60) == 0 {
            return ["null", "1e400", "[]", "{}", "\"x\"", "-1.5", "true", "\"\\ud800\""][self.below(8)].into();
        }
        match made {
            Made::Integer => {
                let all =
                    ["0", "-0", "7", "-1e2", "12.0", "1.5", "9223372036854775807", "-9223372036854775808", "1e15"];
                let more = ["9007199254740993", "9223372036854775808", "9007199254740992e0", "0e99"];
                let at = self.below(all.len() + 4);
                if at < all.len() { all[at].into() } else { more[self.below(4)].into() }
            }
            Made::Number => {
                let all =
                    ["0", "-0.0", "0.1", "1e308", "1e309", "-2.5e-3", "9007199254740992", "9007199254740993", "5e-324"];
                all[self.below(all.len())].into()
            }
            Made::Flag => ["true", "false"][self.below(2)].into(),
            Made::Text => ["\"\"", "\"a\\u0000\"", "\"\\ud83d\\ude00\"", "\"é\\n\"", "\"\\/\""][self.below(5)].into(),
            Made::Symbol => ["\"A\"", "\"\\u0042\"", "\"C\""][self.below(3)].into(),
            Made::Instant => {
                let offset = ["Z", "+00:00", "-05:30"][self.below(3)];
                let digits = ["", ".5", ".123456", ".1234560"][self.below(4)];
                format!("\"{:04}-02-0{}T23:59:59{digits}{offset}\"", 1 + self.below(9998), 1 + self.below(9))
            }
            Made::Bytes => format!("\"{}\"", BASE64_STANDARD.encode(&[0xff, 0, 7][..self.below(4)])),
            Made::List(items) => {
                let items: Vec<_> = (0..self.below(3)).map(|_| self.value(items)).collect();
                format!("[ {} ]", items.join(" ,"))
            }
            Made::Map(values) => {
                let entries: Vec<_> =
                    (0..self.below(3)).map(|at| format!("\"k{at}\":{}", self.value(values))).collect();
                format!("{{{}}}", entries.join(",\n"))
            }
            Made::Object(fields) => {
                let mut entries = Vec::new();
                for (name, kind, required) in fields {
                    if *required || self.below(3) > 0 {
                        let value = if !required && self.below(5) == 0 { "null".into() } else { self.value(kind) };
                        entries.push(format!("{}:{value}", json!(name)));
                    }
                }
                if self.below(4) == 0 {
                    entries.push(r#""nobody knows":[{"x":[1e999]},null]"#.into());
                }
                let by = self.below(entries.len() + 1);
                entries.rotate_left(by);
                format!("{{{}}}", entries.join(", "))
            }
        }
    }
}

fn schema(made: &Made) -> Value {
    match made {
        Made::Integer => json!({"type": "integer"}),
        Made::Number => json!({"type": "number"}),
        Made::Flag => json!({"type": "boolean"}),
        Made::Text => json!({"type": "string"}),
        Made::Symbol => json!({"enum": ["A", "B", "C"]}),
        Made::Instant => json!({"type": "string", "format": "date-time"}),
        Made::Bytes => json!({"type": "string", "contentEncoding": "base64"}),
        Made::List(items) => json!({"type": "array", "items": schema(items)}),
        Made::Map(values) => json!({"type": "object", "additionalProperties": schema(values)}),
        Made::Object(fields) => {
            let properties: serde_json::Map<String, Value> =
                fields.iter().map(|(name, kind, _)| (name.clone(), schema(kind))).collect();
            let required: Vec<_> = fields.iter().filter(|(.., required)| *required).map(|(name, ..)| name).collect();
            json!({"type": "object", "properties": properties, "required": required})
        }
    }
}

/// What a value is in its row; none where it is not of the type.
fn read(made: &Made, value: &Value) -> Option<Value> {
    match made {
        Made::Integer => match (value.as_i64(), value.as_f64()) {
            (Some(whole), _) => Some(json!(whole)),
            (None, Some(x)) if !value.is_u64() && x.fract() == 0.0 && x.abs() < 9_007_199_254_740_992.0 => {
                Some(json!(x as i64))
            }
            _ => None,
        },
        Made::Number => value.as_f64().map(|x| json!(x)),
        Made::Flag => value.as_bool().map(|flag| json!(flag)),
        Made::Text => value.as_str().map(|text| json!(text)),
        Made::Symbol => value.as_str().filter(|text| ["A", "B", "C"].contains(text)).map(|text| json!(text)),
        Made::Instant => {
            let time = DateTime::parse_from_rfc3339(value.as_str()?).ok()?.to_utc();
            Some(json!(time.to_rfc3339_opts(SecondsFormat::AutoSi, true)))
        }
        Made::Bytes => {
            let bytes = BASE64_STANDARD.decode(value.as_str()?).ok()?;
            Some(json!(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()))
        }
        Made::List(items) => value.as_array()?.iter().map(|item| read(items, item)).collect(),
        Made::Map(values) => {
            let entry = |(key, value): (&String, &Value)| Some((key.clone(), read(values, value)?));
            value.as_object()?.iter().map(entry).collect::<Option<_>>().map(Value::Object)
        }
        Made::Object(fields) => {
            let object = value.as_object()?;
            let mut row = serde_json::Map::new();
            for (name, kind, required) in fields {
                match object.get(name) {
                    None | Some(Value::Null) if !required => {}
                    found => drop(row.insert(name.clone(), read(kind, found?)?)),
                }
            }
            Some(Value::Object(row))
        }
    }
}

#[test]
fn random_values_are_read_as_their_schemas_say() {
    let mut maker = Maker(Random::new(5));
    let (mut rows, mut refused, mut changed) = (0, 0, 0);
    for _ in 0..SCHEMAS {
        let made = maker.object(0);
        let text = schema(&made).to_string();
        let schema = Arc::new(ValueSchema::parse(&SchemaText::new(SchemaKind::Json, &text)).unwrap());
        let table = schema.table_schema(None, &append(), 2).unwrap_or_else(|e| panic!("{e}: {text}"));
        let mut decoder = Decoder::new(&table, &append(), encode()).unwrap();
        decoder.add_values(1, &schema).unwrap();
        for round in 0..VALUES * 2 {
            let mut body = maker.value(&made).into_bytes();
            if round % 2 == 1 && !body.is_empty() {
                let at = maker.below(body.len());
                body[at] = b"0\"{}[]:,\\ex\xff \n"[maker.below(14)];
            }
            // What serde_json does not take at all may still be in a field that is passed over.
            let theirs = serde_json::from_slice::<Value>(&body).ok();
            let expected = theirs.as_ref().map(|value| read(&made, value));
            let shown = String::from_utf8_lossy(&body);
            match (row_of(&mut decoder, &body), expected) {
                (Ok(row), Some(Some(expected))) => {
                    assert!(same(&row, &expected), "{row} is not {expected}: {shown} of {text}");
                    rows += 1;
                    changed += round % 2;
                }
                (Err(_), None | Some(None)) => refused += 1,
                (Ok(_), None) => assert!(shown.contains("1e999"), "{shown} of {text}"),
                // A whole number that is not exact, or a name that is there twice, which serde_json's values do not tell.
                (Err(Reason::OutOfRange | Reason::DuplicateField), Some(Some(_))) => {}
                (ours, expected) => panic!("{ours:?} is not {expected:?}: {shown} of {text}"),
            }
        }
    }
    assert!(rows > 3_000 && refused > 2_000 && changed > 250, "{rows} {refused} {changed}");
}

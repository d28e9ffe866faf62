//! Random schemas and values: written by apache-avro, read by this decoder and by arrow-avro, which must agree.

use apache_avro::types::Value;
use apache_avro::{Days, Decimal, Duration, Millis, Months};
use arrow_avro::reader::ReaderBuilder;
use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};
use serde_json::{Value as Json, json};

use super::*;

/// SplitMix64: the same numbers on every run.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// Small numbers, large ones and the ends of the range.
    fn integer(&mut self, bits: u32) -> i64 {
        let value = (self.next() as i64) >> (64 - bits);
        match self.below(4) {
            0 => value >> (bits - 8).min(bits / 2 + 3),
            1 if self.below(4) == 0 => i64::MAX >> (64 - bits),
            1 if self.below(4) == 0 => i64::MIN >> (64 - bits),
            _ => value,
        }
    }

    fn text(&mut self) -> String {
        let alphabet: Vec<char> = "abcXYZ 019_äß€😀\u{0}".chars().collect();
        (0..self.below(12)).map(|_| alphabet[self.below(alphabet.len() as u64) as usize]).collect()
    }
}

/// Makes schemas and values of them. Names are given once.
pub struct Generator {
    pub random: Random,
    pub names: usize,
    /// Whether unions have more branches than null and one other.
    pub unions: bool,
}

impl Generator {
    pub fn name(&mut self, prefix: &str) -> String {
        self.names += 1;
        format!("{prefix}{}", self.names)
    }

    pub fn record(&mut self, depth: usize) -> Json {
        let count = 1 + self.random.below(if depth == 0 { 7 } else { 3 });
        let fields: Vec<Json> =
            (0..count).map(|_| json!({"name": self.name("f"), "type": self.optional(depth + 1)})).collect();
        json!({"type": "record", "name": self.name("R"), "fields": fields})
    }

    fn optional(&mut self, depth: usize) -> Json {
        let kind = self.kind(depth);
        match self.random.below(9) {
            0 | 1 => json!(["null", kind]),
            2 | 3 => json!([kind, "null"]),
            4 if self.unions => self.union(depth, kind),
            _ => kind,
        }
    }

    /// A union of types that all have names of their own, with or without null among them.
    fn union(&mut self, depth: usize, first: Json) -> Json {
        let mut branches = vec![first];
        for _ in 0..=self.random.below(3) {
            branches.push(self.kind(depth));
        }
        if self.random.below(2) == 0 {
            branches.insert(self.random.below(branches.len() as u64) as usize, json!("null"));
        }
        let mut seen = std::collections::HashSet::new();
        branches.retain(|branch| {
            // To apache-avro all decimals are one type, whatever they annotate.
            let logical = branch["logicalType"].as_str().unwrap_or_default().to_owned();
            seen.insert(avro_name(branch)) && (logical.is_empty() || seen.insert(logical))
        });
        json!(branches)
    }

    pub fn kind(&mut self, depth: usize) -> Json {
        match self.random.below(if depth < 4 { 26 } else { 21 }) {
            0 => json!("boolean"),
            1 => json!("int"),
            2 => json!("long"),
            3 => json!("float"),
            4 => json!("double"),
            5 => json!("bytes"),
            6 | 7 => json!("string"),
            8 => json!({"type": "fixed", "name": self.name("F"), "size": 1 + self.random.below(20)}),
            9 | 10 => {
                let symbols: Vec<_> = (0..=self.random.below(5)).map(|_| self.name("S")).collect();
                json!({"type": "enum", "name": self.name("E"), "symbols": symbols})
            }
            11 => {
                json!({"type": "bytes", "logicalType": "decimal", "precision": 18 + self.random.below(21), "scale": self.random.below(10)})
            }
            12 => {
                json!({"type": "fixed", "name": self.name("D"), "size": 16, "logicalType": "decimal", "precision": 38, "scale": self.random.below(10)})
            }
            13 => json!({"type": "string", "logicalType": "uuid"}),
            14 => json!({"type": "int", "logicalType": "date"}),
            15 => json!({"type": "int", "logicalType": "time-millis"}),
            16 => json!({"type": "long", "logicalType": "time-micros"}),
            17 => json!({"type": "long", "logicalType": "timestamp-millis"}),
            18 => json!({"type": "long", "logicalType": "timestamp-micros"}),
            19 => json!({"type": "long", "logicalType": "local-timestamp-millis"}),
            20 => json!({"type": "long", "logicalType": "timestamp-nanos"}),
            21 | 22 => json!({"type": "array", "items": self.optional(depth + 1)}),
            23 => json!({"type": "map", "values": self.optional(depth + 1)}),
            _ => self.record(depth),
        }
    }

    pub fn value(&mut self, schema: &Json) -> Value {
        match schema {
            Json::Array(branches) => {
                let branch = self.random.below(branches.len() as u64);
                Value::Union(branch as u32, Box::new(self.value(&branches[branch as usize])))
            }
            Json::String(name) => self.primitive(name),
            other => match other["logicalType"].as_str() {
                Some(logical) => self.logical(logical),
                None => self.complex(other),
            },
        }
    }

    fn primitive(&mut self, name: &str) -> Value {
        match name {
            "null" => Value::Null,
            "boolean" => Value::Boolean(self.random.below(2) == 0),
            "int" => Value::Int(self.random.integer(32) as i32),
            "long" => Value::Long(self.random.integer(64)),
            "float" => Value::Float(self.random.integer(40) as f32 / 8.0),
            "double" => Value::Double(f64::from_bits(self.random.next())),
            "bytes" => Value::Bytes((0..self.random.below(9)).map(|b| b as u8 ^ 0xa5).collect()),
            _ => Value::String(self.random.text()),
        }
    }

    fn logical(&mut self, name: &str) -> Value {
        let millis = self.random.integer(50);
        match name {
            "decimal" => Value::Decimal(Decimal::from(self.random.integer(56).to_be_bytes())),
            "uuid" => Value::Uuid(uuid::Uuid::from_u64_pair(self.random.next(), self.random.next())),
            "date" => Value::Date(self.random.integer(22) as i32),
            "time-millis" => Value::TimeMillis(self.random.below(86_400_000) as i32),
            "time-micros" => Value::TimeMicros(self.random.below(86_400_000_000) as i64),
            "timestamp-millis" => Value::TimestampMillis(millis),
            "timestamp-micros" => Value::TimestampMicros(self.random.integer(64)),
            "timestamp-nanos" => Value::TimestampNanos(self.random.integer(64)),
            "local-timestamp-millis" => Value::LocalTimestampMillis(millis),
            _ => Value::Duration(Duration::new(Months::new(1), Days::new(2), Millis::new(3))),
        }
    }

    fn complex(&mut self, schema: &Json) -> Value {
        match schema["type"].as_str() {
            Some("fixed") => {
                let size = schema["size"].as_u64().unwrap() as usize;
                Value::Fixed(size, (0..size).map(|_| self.random.next() as u8).collect())
            }
            Some("enum") => {
                let symbols = schema["symbols"].as_array().unwrap();
                let index = self.random.below(symbols.len() as u64) as usize;
                Value::Enum(index as u32, symbols[index].as_str().unwrap().into())
            }
            Some("array") => Value::Array((0..self.random.below(4)).map(|_| self.value(&schema["items"])).collect()),
            Some("map") => {
                let count = self.random.below(4);
                Value::Map((0..count).map(|i| (format!("k{i}"), self.value(&schema["values"]))).collect())
            }
            _ => {
                let fields = schema["fields"].as_array().unwrap().clone();
                Value::Record(
                    fields.iter().map(|f| (f["name"].as_str().unwrap().into(), self.value(&f["type"]))).collect(),
                )
            }
        }
    }
}

/// What a type is called as a branch.
fn avro_name(schema: &Json) -> String {
    let kind = schema["name"].as_str().or(schema["type"].as_str()).or(schema.as_str());
    kind.unwrap_or_default().to_owned()
}

fn arrow_avro_rows(schema: &str, messages: &[Vec<u8>]) -> Vec<String> {
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    store.set(Fingerprint::Id(1), AvroSchema::new(schema.to_string())).unwrap();
    let mut decoder =
        ReaderBuilder::new().with_writer_schema_store(store).with_batch_size(1024).build_decoder().unwrap();
    for message in messages {
        assert_eq!(decoder.decode(message).unwrap(), message.len());
    }
    rows(&decoder.flush().unwrap().unwrap())
}

#[test]
fn random_schemas_and_values_are_read_as_arrow_avro_reads_them() {
    let mut compared = 0;
    for seed in 0..800 {
        let mut generator = Generator { random: Random::new(seed), names: 0, unions: true };
        let json = generator.record(0);
        let schema = json.to_string();
        let writer = apache_avro::Schema::parse_str(&schema).unwrap();
        let messages: Vec<Vec<u8>> = (0..1 + generator.random.below(12))
            .map(|_| wire(1, &apache_avro::to_avro_datum(&writer, generator.value(&json)).unwrap()))
            .collect();
        let mut decoder = decoder(&schema, &append());
        for message in &messages {
            assert_eq!(push(&mut decoder, 0, None, Some(message)), Pushed::Row, "seed {seed}: {schema}");
            // A damaged copy in between changes nothing.
            assert!(reason(&push(&mut decoder, 0, None, Some(&message[..message.len() - 1]))).is_some());
        }
        let batch = decoder.finish().unwrap().batch;
        batch.columns().iter().for_each(|c| c.to_data().validate_full().unwrap());
        assert_eq!(rows(&batch), arrow_avro_rows(&schema, &messages), "seed {seed}: {schema}");
        compared += messages.len();
    }
    assert!(compared > 4_000, "{compared}");
}

//! Random schemas and random successors of them: a table that followed is read from writers of both, and what the decoder
//! makes of their values is what Avro's resolution says. It is held against a resolution of apache-avro's values that is
//! written here, and against arrow-avro with the successor as its reader schema.

use std::collections::HashMap;

use apache_avro::types::Value;
use arrow_avro::reader::ReaderBuilder;
use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};
use serde_json::{Value as Json, json};

use super::oracle::{Generator, Random};
use super::*;
use crate::core::schema::{Field, TableFormat, Type, evolve};

/// Makes successors of schemas.
struct Change<'g> {
    generator: &'g mut Generator,
    /// Of a renamed field: what it was called at first.
    origins: HashMap<String, String>,
    /// Why the successor does not read the older schema's values by Avro's own rules, where a table follows all the same.
    beyond_avro: Option<&'static str>,
}

impl Change<'_> {
    fn one_in(&mut self, n: u64) -> bool {
        self.generator.random.below(n) == 0
    }

    fn kind(&mut self, kind: &Json) -> Json {
        match kind {
            Json::Array(branches) => self.union(branches),
            Json::String(name) => self.primitive(name),
            object => match (object["logicalType"].as_str(), object["type"].as_str()) {
                (Some("decimal"), Some("bytes")) if self.one_in(3) => {
                    let mut wider = object.clone();
                    wider["precision"] = json!((object["precision"].as_u64().unwrap() + 1).min(38));
                    self.beyond_avro = Some("Avro reads decimals of the same precision only");
                    wider
                }
                (Some("timestamp-millis"), _) if self.one_in(4) => {
                    self.beyond_avro = Some("Avro does not scale timestamps");
                    json!({"type": "long", "logicalType": "timestamp-micros"})
                }
                (Some(_), _) => object.clone(),
                (_, Some("record")) => self.record(object),
                (_, Some("array")) => json!({"type": "array", "items": self.kind(&object["items"])}),
                (_, Some("map")) => json!({"type": "map", "values": self.kind(&object["values"])}),
                (_, Some("enum")) if self.one_in(2) => {
                    let mut more = object.clone();
                    let symbols = more["symbols"].as_array_mut().unwrap();
                    let at = self.generator.random.below(symbols.len() as u64 + 1) as usize;
                    symbols.insert(at, json!(self.generator.name("S")));
                    symbols.reverse();
                    more
                }
                _ => object.clone(),
            },
        }
    }

    fn union(&mut self, branches: &[Json]) -> Json {
        let null = branches.iter().position(|b| b == "null").unwrap();
        let inner = match self.kind(&branches[1 - null]) {
            Json::Array(_) => branches[1 - null].clone(),
            inner => inner,
        };
        match self.generator.random.below(8) {
            0 => {
                self.beyond_avro = Some("Avro does not read null as a required field");
                inner
            }
            1 => json!([inner, "null"]),
            _ => json!(["null", inner]),
        }
    }

    fn primitive(&mut self, name: &str) -> Json {
        match (name, self.generator.random.below(6)) {
            ("int", 0..3) => json!("long"),
            ("float", 0..3) => json!("double"),
            ("bytes", 0) => {
                self.beyond_avro = Some("the column of bytes stays one");
                json!("string")
            }
            ("long", 0) => {
                self.beyond_avro = Some("Avro does not read a long as an int");
                json!("int")
            }
            ("double", 0) => {
                self.beyond_avro = Some("Avro does not read a double as a float");
                json!("float")
            }
            (_, 5) => json!(["null", name]),
            (same, _) => json!(same),
        }
    }

    fn record(&mut self, record: &Json) -> Json {
        let mut fields = Vec::new();
        for field in record["fields"].as_array().unwrap() {
            let name = field["name"].as_str().unwrap();
            let kind = self.kind(&field["type"]);
            match self.generator.random.below(10) {
                0 => {}
                1 => {
                    let new = self.generator.name("g");
                    fields.push(json!({"name": new, "aliases": [name], "type": kind}));
                    self.origins.insert(new, name.to_owned());
                }
                _ => fields.push(json!({"name": name, "type": kind})),
            }
        }
        if self.one_in(2) || fields.is_empty() {
            let kind = self.generator.kind(3);
            fields.push(json!({"name": self.generator.name("h"), "type": ["null", kind], "default": null}));
        }
        let turn = self.generator.random.below(fields.len() as u64) as usize;
        fields.rotate_left(turn);
        json!({"type": "record", "name": record["name"], "fields": fields})
    }

    fn origin<'n>(&'n self, name: &'n str) -> &'n str {
        self.origins.get(name).map_or(name, String::as_str)
    }

    /// A writer's value as it is in a column, in the words of [`render`].
    fn resolved(&self, value: &Value, column: &Field) -> String {
        let zone = |utc: &bool| if *utc { "Z" } else { "" };
        let stamp = |value: i64, per_second: i64| match &column.kind {
            Type::TimestampNanos { utc } => format!("{} ns{}", value * (1_000_000_000 / per_second), zone(utc)),
            Type::Timestamp { utc } => format!("{} us{}", value * (1_000_000 / per_second), zone(utc)),
            other => panic!("a timestamp in a column of {other}"),
        };
        match value {
            Value::Union(_, inner) => self.resolved(inner, column),
            Value::Null => "null".into(),
            Value::Boolean(b) => b.to_string(),
            Value::Int(n) => n.to_string(),
            Value::Long(n) => n.to_string(),
            Value::Float(n) if column.kind == Type::Double => format!("{:?}", f64::from(*n)),
            Value::Float(n) => format!("{n:?}"),
            Value::Double(n) => format!("{n:?}"),
            Value::Bytes(b) | Value::Fixed(_, b) => format!("{b:02x?}"),
            Value::String(s) if column.kind == Type::Binary => format!("{:02x?}", s.as_bytes()),
            Value::String(s) | Value::Enum(_, s) => format!("{s:?}"),
            Value::Uuid(uuid) => format!("{:02x?}", uuid.as_bytes()),
            Value::Decimal(decimal) => {
                let Type::Decimal { scale, .. } = column.kind else {
                    panic!("a decimal in a column of {}", column.kind)
                };
                let bytes = Vec::<u8>::try_from(decimal).unwrap();
                let start = if bytes[0] & 0x80 == 0 { 0i128 } else { -1 };
                format!("{}e-{scale}", bytes.iter().fold(start, |all, b| (all << 8) | i128::from(*b)))
            }
            Value::Date(days) => format!("day {days}"),
            Value::TimeMillis(n) => format!("{} us", i64::from(*n) * 1000),
            Value::TimeMicros(n) => format!("{n} us"),
            Value::TimestampMillis(n) | Value::LocalTimestampMillis(n) => stamp(*n, 1000),
            Value::TimestampMicros(n) => stamp(*n, 1_000_000),
            Value::TimestampNanos(n) => stamp(*n, 1_000_000_000),
            Value::Record(fields) => {
                let Type::Struct(columns) = &column.kind else { panic!("a record in a column of {}", column.kind) };
                format!("{{{}}}", self.row(fields, columns))
            }
            Value::Array(items) => {
                let Type::List(element) = &column.kind else { panic!("an array in a column of {}", column.kind) };
                format!("[{}]", items.iter().map(|v| self.resolved(v, element)).collect::<Vec<_>>().join(" "))
            }
            Value::Map(entries) => {
                let Type::Map(_, of) = &column.kind else { panic!("a map in a column of {}", column.kind) };
                let entries = entries.iter().map(|(key, v)| format!("{{{key:?} {}}}", self.resolved(v, of)));
                format!("<{}>", entries.collect::<Vec<_>>().join(" "))
            }
            other => panic!("no column for {other:?}"),
        }
    }

    fn row(&self, fields: &[(String, Value)], columns: &[Field]) -> String {
        let value = |column: &Field| {
            let written = fields.iter().find(|(name, _)| self.origin(name) == self.origin(&column.name));
            written.map_or("null".to_owned(), |(_, value)| self.resolved(value, column))
        };
        columns.iter().map(value).collect::<Vec<_>>().join(" ")
    }
}

/// A value as text, with only the fields that a schema has, in its order.
fn render_as(array: &dyn Array, row: usize, schema: &Json) -> String {
    if array.is_null(row) {
        return "null".into();
    }
    let schema = match schema.as_array() {
        Some(branches) => branches.iter().find(|b| *b != "null").unwrap(),
        None => schema,
    };
    let all = |items: &dyn Array, kind: &Json| {
        (0..items.len()).map(|i| render_as(items, i, kind)).collect::<Vec<_>>().join(" ")
    };
    match schema["type"].as_str() {
        Some("record") => {
            let fields = schema["fields"].as_array().unwrap().iter();
            let fields = fields.map(|f| {
                let column = array.as_struct().column_by_name(f["name"].as_str().unwrap()).unwrap();
                render_as(column, row, &f["type"])
            });
            format!("{{{}}}", fields.collect::<Vec<_>>().join(" "))
        }
        Some("array") => format!("[{}]", all(&array.as_list::<i32>().value(row), &schema["items"])),
        Some("map") => {
            let entries = array.as_map().value(row);
            let keys = (0..entries.len()).map(|i| render(entries.column(0), i)).collect::<Vec<_>>().join(" ");
            format!("<{keys}: {}>", all(entries.column(1), &schema["values"]))
        }
        _ => render(array, row),
    }
}

/// The rows of a batch with only the columns that a schema has.
fn rows_as(batch: &RecordBatch, schema: &Json) -> Vec<String> {
    let columns = arrow::array::StructArray::from(batch.clone());
    (0..batch.num_rows()).map(|row| render_as(&columns, row, schema)).collect()
}

fn arrow_avro_rows(writers: [&str; 2], reader: &Json, messages: &[Vec<u8>]) -> Result<Vec<String>, String> {
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    for (id, text) in (1..).zip(writers) {
        store.set(Fingerprint::Id(id), AvroSchema::new(text.to_owned())).unwrap();
    }
    let builder = ReaderBuilder::new().with_writer_schema_store(store).with_batch_size(1024);
    let builder = builder.with_reader_schema(AvroSchema::new(reader.to_string()));
    let mut decoder = builder.build_decoder().map_err(|e| e.to_string())?;
    let mut rows = Vec::new();
    for message in messages {
        let read = decoder.decode(message).map_err(|e| e.to_string())?;
        assert_eq!(read, message.len());
        // A batch is of one writer's schema; the rest would wait for its end.
        if let Some(batch) = decoder.flush().map_err(|e| e.to_string())? {
            rows.extend(rows_as(&batch, reader));
        }
    }
    Ok(rows)
}

/// FAILURES D1, D5, D7
#[test]
fn a_table_that_followed_reads_both_writers_as_avro_resolves_them() {
    let (mut followed, mut values, mut compared) = (0, 0, 0);
    let mut left_out: HashMap<String, usize> = HashMap::new();
    for seed in 10_000..13_000 {
        let mut generator = Generator { random: Random::new(seed), names: 0, unions: false };
        let old = generator.record(0);
        let mut change = Change { generator: &mut generator, origins: HashMap::new(), beyond_avro: None };
        let new = change.record(&old);
        let texts = [old.to_string(), new.to_string()];
        let what = format!("seed {seed}:\n{}\n{}", texts[0], texts[1]);
        let [table, wanted] = [&texts[0], &texts[1]].map(|text| table_schema(text, None, &append(), 3).unwrap());
        let evolution = evolve(&table, &wanted, &[TableFormat::IcebergV3], 1_000);
        if evolution.obstacle().is_some() {
            continue;
        }
        followed += 1;
        let columns = evolution.schema.fields.clone();
        let mut decoder = Decoder::new(&evolution.schema, &append(), encode()).unwrap();
        let (mut messages, mut expected) = (Vec::new(), Vec::new());
        let writers = texts.each_ref().map(|text| apache_avro::Schema::parse_str(text).unwrap());
        for (id, text) in (1..).zip(&texts) {
            decoder.add_value_schema(id, text).unwrap_or_else(|e| panic!("{what}\n{e}"));
        }
        for _ in 0..6 {
            // The ids come in any order.
            let which = change.generator.random.below(2) as usize;
            let value = change.generator.value(if which == 0 { &old } else { &new });
            let Value::Record(fields) = &value else { panic!("a record has fields") };
            expected.push(change.row(fields, &columns));
            messages.push(wire(which as u32 + 1, &apache_avro::to_avro_datum(&writers[which], value).unwrap()));
        }
        for message in &messages {
            assert_eq!(push(&mut decoder, 0, None, Some(message)), Pushed::Row, "{what}");
        }
        let batch = decoder.finish().unwrap().batch;
        batch.columns().iter().for_each(|c| c.to_data().validate_full().unwrap());
        assert_eq!(rows(&batch), expected, "{what}");
        values += messages.len();
        if let Some(reason) = change.beyond_avro {
            *left_out.entry(reason.to_owned()).or_default() += 1;
            continue;
        }
        match arrow_avro_rows([&texts[0], &texts[1]], &new, &messages) {
            Ok(by_arrow) => {
                assert_eq!(rows_as(&batch, &new), by_arrow, "{what}");
                compared += messages.len();
            }
            Err(error) => panic!("{what}\n{error}"),
        }
    }
    assert!(followed > 1_500 && values > 9_000 && compared > 3_000, "{followed} {values} {compared} {left_out:?}");
}

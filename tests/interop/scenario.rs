//! Events with known values on a real topic, and what a table of them must hold: folded here, one record after the other,
//! without any of the program's own code.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::json;

use crate::kafka::{Compression, Record};
use crate::registry::Encoder;
use crate::rows::NULL;
use crate::stack::{Catalog, Stack, unique};

/// The value's schema.
pub const VALUE: &str = r#"{"type":"record","name":"Trade","namespace":"test","fields":[
 {"name":"id","type":"long"},{"name":"symbol","type":"string"},{"name":"price","type":["null","double"],"default":null},
 {"name":"qty","type":"int"},{"name":"ts","type":{"type":"long","logicalType":"timestamp-millis"}}]}"#;

/// The record key's schema.
pub const KEY: &str =
    r#"{"type":"record","name":"TradeKey","namespace":"test","fields":[{"name":"id","type":"long"}]}"#;

/// The columns to select, in the order of [`Scenario::expected`].
pub const COLUMNS: &str = "id, symbol, price, qty";

/// A topic, its schemas, and the rows its events make.
pub struct Scenario {
    pub stack: &'static Stack,
    pub topic: String,
    pub dir: tempfile::TempDir,
    pub catalog: Catalog,
    pub partitions: i32,
    value: Encoder,
    key: Encoder,
    rows: BTreeMap<i64, Vec<String>>,
    random: u64,
    counter: i64,
}

impl Scenario {
    /// A topic of its own, with registered schemas.
    pub fn new(stem: &str, catalog: Catalog, partitions: i32) -> Scenario {
        let stack = Stack::get();
        let topic = unique(stem);
        stack.kafka.create_topic(&topic, partitions, &[]);
        Scenario {
            stack,
            dir: tempfile::tempdir().unwrap(),
            catalog,
            partitions,
            value: stack.registry.encoder(&format!("{topic}-value"), VALUE),
            key: stack.registry.encoder(&format!("{topic}-key"), KEY),
            topic,
            rows: BTreeMap::new(),
            random: 88_172_645_463_325_252,
            counter: 0,
        }
    }

    fn next(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    /// Records of `events` updates and deletes on `keys` keys, each key on one partition; remembers what they make.
    pub fn events(&mut self, events: usize, keys: u64) -> Vec<Record> {
        (0..events).map(|_| self.event(keys)).collect()
    }

    fn event(&mut self, keys: u64) -> Record {
        let id = self.next(keys) as i64;
        self.counter += 1;
        let key = Some(self.key.encode_json(json!({ "id": id })));
        let partition = (id % i64::from(self.partitions)) as i32;
        if self.next(10) == 0 {
            self.rows.remove(&id);
            return Record { partition, key, value: None, ..Record::default() };
        }
        let price = (self.next(4) != 0).then(|| self.next(1_000_000) as f64 / 64.0);
        let (symbol, qty) = (format!("S{}", self.next(50)), self.next(1_000) as i32);
        let value =
            json!({"id": id, "symbol": symbol, "price": price, "qty": qty, "ts": 1_700_000_000_000 + self.counter});
        let price = price.map_or(NULL.to_owned(), double);
        self.rows.insert(id, vec![id.to_string(), symbol, price, qty.to_string()]);
        let value = self.value.encode_json(value);
        Record { partition, key, value: Some(value), ..Record::default() }
    }

    /// Produces `events` more.
    pub fn produce(&mut self, events: usize, keys: u64) {
        let records = self.events(events, keys);
        let topic = self.topic.clone();
        self.stack.kafka.produce(&topic, &records, Compression::None);
    }

    /// The rows that the table must hold now: [`COLUMNS`], one row per key.
    pub fn expected(&self) -> Vec<Vec<String>> {
        self.rows.values().cloned().collect()
    }

    /// `namespace.table`.
    pub fn table(&self) -> String {
        format!("market.{}", self.topic.replace('-', "_"))
    }

    /// Writes a `firn.yaml` for one pipeline and one table.
    pub fn config(&self, format_version: u8, more: &str) -> PathBuf {
        self.config_named("firn.yaml", &self.stack.kafka.plaintext, "", format_version, more)
    }

    /// The same, with everything that a test may want to be different.
    pub fn config_named(&self, file: &str, brokers: &str, properties: &str, format_version: u8, more: &str) -> PathBuf {
        let (registry, catalog) = (&self.stack.registry.url, self.stack.firn_catalog(self.catalog));
        let (topic, table) = (&self.topic, self.table());
        let text = format!(
            "kafka:\n  brokers: \"{brokers}\"\n  properties: {{{properties}}}\nschema_registry: {{url: \"{registry}\"}}\n\
             catalogs: {{lake: {catalog}}}\n\
             pipelines:\n  {topic}:\n    topics: [{topic}]\n    key: [id]\n    commit: {{interval: 500ms}}\n\
             \x20   tables: [{{catalog: lake, name: {table}, format_version: {format_version}}}]\n{more}\
             state_dir: ./state\n"
        );
        let path = self.dir.path().join(file);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The table as Trino reads it.
    pub fn trino(&self) -> Vec<Vec<String>> {
        self.stack.trino.query(&format!("SELECT {COLUMNS} FROM {}.{}", self.catalog.name(), self.table()))
    }

    /// The table as pyiceberg reads it.
    pub fn pyiceberg(&self) -> Vec<Vec<String>> {
        let all = self.stack.pyiceberg_rows(&self.stack.pyiceberg_catalog(self.catalog), &self.table(), None);
        all.into_iter().map(|row| row.into_iter().take(4).collect()).collect()
    }
}

/// A double as the rows of all engines are written.
fn double(value: f64) -> String {
    format!("{value:?}")
}

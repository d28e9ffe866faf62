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
 {"name":"qty","type":"int"},{"name":"ts","type":{"type":"long","logicalType":"timestamp-millis"}},
 {"name":"side","type":{"type":"enum","name":"Side","symbols":["BUY","SELL"]}}]}"#;

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
    /// Milliseconds of event time from one event to the next.
    pub step: i64,
    /// How many characters longer than needed a symbol is.
    pub padding: usize,
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
            step: 1,
            padding: 0,
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
        let partition = (id % i64::from(self.partitions)) as i32;
        self.event_of(id, partition)
    }

    /// An update or a delete of one key, on a partition of the caller's choice; remembers what it makes.
    pub fn event_of(&mut self, id: i64, partition: i32) -> Record {
        if self.next(10) == 0 {
            self.rows.remove(&id);
            let key = Some(self.key.encode_json(json!({ "id": id })));
            return Record { partition, key, value: None, ..Record::default() };
        }
        let (record, row) = self.update(id, partition);
        self.rows.insert(id, row);
        record
    }

    /// An update that is not remembered: for records that are not to count.
    pub fn stray(&mut self, id: i64, partition: i32) -> Record {
        self.update(id, partition).0
    }

    fn update(&mut self, id: i64, partition: i32) -> (Record, Vec<String>) {
        self.counter += 1;
        let key = Some(self.key.encode_json(json!({ "id": id })));
        let price = (self.next(4) != 0).then(|| self.next(1_000_000) as f64 / 64.0);
        let (symbol, qty) = (format!("S{}{}", self.next(50), "x".repeat(self.padding)), self.next(1_000) as i32);
        let ts = 1_700_000_000_000 + self.counter * self.step;
        let side = if qty % 2 == 0 { "BUY" } else { "SELL" };
        let value = json!({"id": id, "symbol": symbol, "price": price, "qty": qty, "ts": ts, "side": side});
        let price = price.map_or(NULL.to_owned(), double);
        let row = vec![id.to_string(), symbol, price, qty.to_string()];
        let value = self.value.encode_json(value);
        (Record { partition, key, value: Some(value), ..Record::default() }, row)
    }

    /// From now on values are written with another version of the schema, which is registered first.
    pub fn evolve(&mut self, schema: &str) {
        self.value = self.stack.registry.encoder(&format!("{}-value", self.topic), schema);
    }

    /// What somebody else does to the rows.
    pub fn change(&mut self, foreign: impl FnOnce(&mut BTreeMap<i64, Vec<String>>)) {
        foreign(&mut self.rows);
    }

    /// Produces these records.
    pub fn send(&self, records: &[Record]) {
        self.stack.kafka.produce(&self.topic, records, Compression::None);
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

    /// The table's name in Trino.
    pub fn trino_table(&self) -> String {
        format!("{}.{}", self.catalog.name(), self.table())
    }

    /// The table as Trino reads it.
    pub fn trino(&self) -> Vec<Vec<String>> {
        self.stack.trino.query(&format!("SELECT {COLUMNS} FROM {}", self.trino_table()))
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

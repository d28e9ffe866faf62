//! A schema that changes while two processes share its topic, old and new producers interleave, and a process dies.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::kafka::{Compression, Record};
use crate::process::{FirnProcess, catch_up};
use crate::registry::Encoder;
use crate::rows::{NULL, assert_same_rows};
use crate::stack::{Catalog, Stack, unique};
use crate::wanted;

const LIMIT: Duration = Duration::from_secs(90);
const PARTITIONS: i64 = 4;
const KEYS: i64 = 300;
const OLD: &str =
    r#"{"type":"record","name":"Trade","fields":[{"name":"id","type":"long"},{"name":"n","type":"long"}]}"#;
const NEW: &str = r#"{"type":"record","name":"Trade","fields":[{"name":"id","type":"long"},{"name":"n","type":"long"},
 {"name":"note","type":["null","string"],"default":null},
 {"name":"more","type":["null",{"type":"record","name":"More","fields":[{"name":"level","type":"int"}]}],"default":null}]}"#;

/// A topic whose events are of one schema or of two, and the rows that they make.
struct Topic {
    stack: &'static Stack,
    name: String,
    encoders: Vec<Encoder>,
    rows: BTreeMap<i64, Vec<String>>,
    sent: i64,
}

impl Topic {
    fn new() -> Topic {
        let (stack, name) = (Stack::get(), unique("evolving"));
        stack.kafka.create_topic(&name, PARTITIONS as i32, &[]);
        let mut topic = Topic { stack, name, encoders: Vec::new(), rows: BTreeMap::new(), sent: 0 };
        topic.register(OLD);
        topic
    }

    /// From now on some events are of this schema too.
    fn register(&mut self, schema: &str) {
        self.encoders.push(self.stack.registry.encoder(&format!("{}-value", self.name), schema));
    }

    /// Produces some events, of each schema by turns, and remembers what they make.
    fn produce(&mut self, events: usize) {
        let records: Vec<Record> = (0..events).map(|_| self.event()).collect();
        self.stack.kafka.produce(&self.name, &records, Compression::None);
    }

    fn event(&mut self) -> Record {
        self.sent += 1;
        let (n, id) = (self.sent, self.sent * 7919 % KEYS);
        let is_new = self.encoders.len() > 1 && n % 3 != 0;
        let (value, note, more) = match is_new {
            true => {
                (json!({"id": id, "n": n, "note": format!("n{n}"), "more": {"level": n % 50}}), format!("n{n}"), n % 50)
            }
            false => (json!({"id": id, "n": n}), NULL.to_owned(), -1),
        };
        let more = if is_new { more.to_string() } else { NULL.to_owned() };
        self.rows.insert(id, vec![id.to_string(), n.to_string(), note, more]);
        let value = Some(self.encoders[usize::from(is_new)].encode_json(value));
        Record { partition: (id % PARTITIONS) as i32, value, ..Record::default() }
    }

    /// A little again and again, until a process has said `text` `times` times.
    fn live_until(&mut self, process: &mut FirnProcess, text: &str, times: usize) {
        let end = Instant::now() + LIMIT;
        while process.stderr().matches(text).count() < times {
            assert!(process.is_running(), "it ended without saying {text:?}:\n{}", process.stderr());
            assert!(Instant::now() < end, "no {text:?}; stderr so far:\n{}", process.stderr());
            self.produce(100);
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn table(&self) -> String {
        self.name.replace('-', "_")
    }

    fn expected(&self) -> Vec<Vec<String>> {
        self.rows.values().cloned().collect()
    }
}

fn config(topic: &Topic, folder: &Path) -> PathBuf {
    let (brokers, registry, lake) =
        (&topic.stack.kafka.plaintext, &topic.stack.registry.url, topic.stack.firn_catalog(Catalog::Rest));
    let (name, table) = (&topic.name, topic.table());
    let text = format!(
        "kafka: {{brokers: \"{brokers}\"}}\nschema_registry: {{url: \"{registry}\"}}\n\
         catalogs:\n  lake: {lake}\n  delta: {{type: delta, warehouse: delta}}\n\
         pipelines:\n  {name}:\n    topics: [{name}]\n    key: [id]\n    commit: {{interval: 500ms}}\n    tables:\n      \
         - {{catalog: lake, name: market.{table}, format_version: 3}}\n      - {{catalog: delta, name: market.{table}}}\n\
         state_dir: ./state\n"
    );
    let path = folder.join("firn.yaml");
    std::fs::write(&path, text).unwrap();
    path
}

/// id, n, note and more.level as pyiceberg and deltalake read them.
fn read(topic: &Topic, folder: &Path) -> [Vec<Vec<String>>; 2] {
    let catalog = topic.stack.pyiceberg_catalog(Catalog::Rest);
    let iceberg = topic.stack.pyiceberg_rows(&catalog, &format!("market.{}", topic.table()), None);
    // Between them is the lineage column, which was there first.
    let level = |text: &str| text.trim_matches(['(', ')']).to_owned();
    let iceberg = iceberg.into_iter().map(|row| vec![row[0].clone(), row[1].clone(), row[3].clone(), level(&row[4])]);
    let location = folder.join("delta/market").join(topic.table()).display().to_string();
    let request = json!({"op": "rows", "columns": "id, n, note, more['level']"});
    let delta = serde_json::from_value(topic.stack.deltalake(&location, request)).unwrap();
    [iceberg.collect(), delta]
}

/// The versions of the Delta table that change its columns: whether each brings rows.
fn column_changes(log: &Path) -> Vec<bool> {
    let mut files: Vec<_> = std::fs::read_dir(log).unwrap().map(|f| f.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "json"));
    files.sort();
    let (mut before, mut changes) = (None, Vec::new());
    for file in files {
        let text = std::fs::read_to_string(file).unwrap();
        let actions: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let schema = actions.iter().find_map(|action| action["metaData"]["schemaString"].as_str());
        if let Some(schema) =
            schema.map(str::to_owned).filter(|schema| before.as_ref().is_some_and(|old| old != schema))
        {
            changes.push(actions.iter().any(|action| action["add"].is_object()));
            before = Some(schema);
        }
        before = before.or(schema.map(str::to_owned));
    }
    changes
}

/// INV-21
#[test]
fn a_schema_changes_while_two_processes_share_its_topic_and_one_dies() {
    if !wanted() {
        return;
    }
    let (mut topic, folder) = (Topic::new(), tempfile::tempdir().unwrap());
    let config = config(&topic, folder.path());
    topic.produce(500);
    let mut first = FirnProcess::run(&config, &[]);
    topic.live_until(&mut first, "commit written", 2);
    let mut second = FirnProcess::run(&config, &[]);
    topic.live_until(&mut second, "commit written", 2);
    let before = first.stderr().matches("commit written").count();
    topic.live_until(&mut first, "commit written", before + 2);
    let assigned = [&first, &second].map(|process| process.stderr().matches("partitions assigned").count());

    // Both meet the new schema, each when it comes to it; nobody leaves the group for it.
    topic.register(NEW);
    topic.produce(200);
    for process in [&mut first, &mut second] {
        let before = process.stderr().matches("commit written").count();
        topic.live_until(process, "commit written", before + 4);
    }
    let now = [&first, &second].map(|process| process.stderr().matches("partitions assigned").count());
    assert_eq!(now, assigned, "a consumer left the group:\n{}\n{}", first.stderr(), second.stderr());
    let changed: usize = [&first, &second].iter().map(|p| p.stderr().matches("columns changed").count()).sum();
    assert_eq!(changed, 2, "each table changed once:\n{}\n{}", first.stderr(), second.stderr());

    // A third schema comes up, and a process dies about when it commits the first rows of it.
    topic.encoders.remove(1);
    topic.register(
        &NEW.replace(r#""type":["null","string"]"#, r#""doc":"free text","type":["null","string"]"#)
            .replace(r#"{"name":"more""#, r#"{"name":"late","type":["null","long"],"default":null},{"name":"more""#),
    );
    topic.produce(200);
    std::thread::sleep(Duration::from_millis(400));
    assert!(first.kill_9());
    let before = second.stderr().matches("commit written").count();
    topic.live_until(&mut second, "commit written", before + 4);
    let mut third = FirnProcess::run(&config, &[]);
    topic.live_until(&mut third, "commit written", 2);
    for process in [&mut second, &mut third] {
        process.terminate();
        assert_eq!(process.wait(Duration::from_secs(35)).code(), Some(0), "{}", process.stderr());
    }
    catch_up(&config);
    for rows in read(&topic, folder.path()) {
        assert_same_rows(&rows, &topic.expected());
    }
    let log = folder.path().join("delta/market").join(topic.table()).join("_delta_log");
    assert_eq!(column_changes(&log), [true, true], "each change came with rows");
}

//! A schema that changes in every way that there is while two processes share its topic, old and new producers interleave, and a
//! process dies.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use apache_avro::types::Value as Avro;
use serde_json::{Value, json};

use crate::kafka::{Compression, Record};
use crate::process::{FirnProcess, catch_up, firn};
use crate::registry::Encoder;
use crate::rows::{NULL, assert_same_rows};
use crate::stack::{Catalog, Stack, unique};
use crate::wanted;

const LIMIT: Duration = Duration::from_secs(90);
const PARTITIONS: i64 = 4;
const KEYS: i64 = 300;
/// The columns at the end, as Delta's engines are asked for them.
const FLAT: &str =
    "id, n, f, d, req, gone, new, side, u['tag'], u['int'], u['string'], u['boolean'], note, more['level'], late";

/// What the schemas are, one after the other. Producers of the first one never stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    First,
    /// Has optional fields more.
    Added,
    /// And one of them later; a field is renamed, one is removed, one may be null; an enum and a union have more of what they
    /// can be.
    Changed,
    /// And numbers are wider.
    Widened,
}

impl Phase {
    fn schema(self) -> String {
        let (n, f, digits) = if self == Phase::Widened { ("long", "double", 12) } else { ("int", "float", 6) };
        let decimal = format!(r#"{{"type":"bytes","logicalType":"decimal","precision":{digits},"scale":2}}"#);
        let enumerated = |symbols| format!(r#"{{"type":"enum","name":"Side","symbols":[{symbols}]}}"#);
        let mut fields =
            vec![("id", "\"long\"".to_owned()), ("n", format!("\"{n}\"")), ("f", format!("\"{f}\"")), ("d", decimal)];
        if self < Phase::Changed {
            fields.extend([
                ("req", "\"string\"".to_owned()),
                ("gone", "\"string\"".to_owned()),
                ("old", "\"string\"".to_owned()),
            ]);
            fields.push(("side", enumerated(r#""BUY","SELL""#)));
            fields.push(("u", r#"["null","int","string"]"#.to_owned()));
        } else {
            fields.extend([
                ("req", r#"["null","string"]"#.to_owned()),
                ("new", r#""string","aliases":["old"]"#.to_owned()),
            ]);
            fields.push(("side", enumerated(r#""BUY","SELL","HOLD""#)));
            fields.push(("u", r#"["null","int","string","boolean"]"#.to_owned()));
        }
        if self >= Phase::Added {
            fields.push(("note", r#"["null","string"],"default":null"#.to_owned()));
        }
        if self >= Phase::Changed {
            fields.push(("late", r#"["null","long"],"default":null"#.to_owned()));
        }
        if self >= Phase::Added {
            let more = r#"{"type":"record","name":"More","fields":[{"name":"level","type":"int"}]}"#;
            fields.push(("more", format!(r#"["null",{more}],"default":null"#)));
        }
        let fields: Vec<String> =
            fields.iter().map(|(name, kind)| format!(r#"{{"name":"{name}","type":{kind}}}"#)).collect();
        format!(r#"{{"type":"record","name":"Trade","fields":[{}]}}"#, fields.join(","))
    }

    /// The value with this number, and its row in the order of [`FLAT`].
    fn event(self, id: i64, number: i64) -> (Avro, Vec<String>) {
        let wide = self == Phase::Widened;
        let (n, f) = (number + if wide { 5_000_000_000 } else { 0 }, (number % 1_000) as f64 / 8.0);
        let cents = number % 10_000 * if wide { 1_000_000 } else { 1 } + 1;
        let (changed, added) = (self >= Phase::Changed, self >= Phase::Added);
        let text = |what: &str| format!("{what}{number}");
        let optional = |there: bool, value: Avro| {
            if there { Avro::Union(1, Box::new(value)) } else { Avro::Union(0, Box::new(Avro::Null)) }
        };
        let shown = |there: bool, text: String| if there { text } else { NULL.to_owned() };

        let sides = ["BUY", "SELL", "HOLD"];
        let side = (number % if changed { 3 } else { 2 }) as usize;
        let branch = (number % if changed { 4 } else { 3 }) as u32;
        let union = match branch {
            0 => Avro::Null,
            1 => Avro::Int(number as i32),
            2 => Avro::String(text("u")),
            _ => Avro::Boolean(true),
        };
        let has_req = !changed || number % 5 != 0;
        let mut value = vec![
            ("id", Avro::Long(id)),
            ("n", if wide { Avro::Long(n) } else { Avro::Int(n as i32) }),
            ("f", if wide { Avro::Double(f) } else { Avro::Float(f as f32) }),
            ("d", Avro::Decimal(cents.to_be_bytes().to_vec().into())),
            ("req", if changed { optional(has_req, Avro::String(text("r"))) } else { Avro::String(text("r")) }),
        ];
        if !changed {
            value.push(("gone", Avro::String(text("g"))));
        }
        value.push((if changed { "new" } else { "old" }, Avro::String(text("o"))));
        value.push(("side", Avro::Enum(side as u32, sides[side].to_owned())));
        value.push(("u", Avro::Union(branch, Box::new(union))));
        if added {
            value.push(("note", optional(true, Avro::String(text("n")))));
        }
        if changed {
            value.push(("late", optional(true, Avro::Long(number * 3))));
        }
        if added {
            let level = Avro::Record(vec![("level".to_owned(), Avro::Int((number % 50) as i32))]);
            value.push(("more", optional(true, level)));
        }
        let value = Avro::Record(value.into_iter().map(|(name, value)| (name.to_owned(), value)).collect());
        let row = vec![
            id.to_string(),
            n.to_string(),
            format!("{f:?}"),
            format!("{}.{:02}", cents / 100, cents % 100),
            shown(has_req, text("r")),
            shown(!changed, text("g")),
            text("o"),
            sides[side].to_owned(),
            shown(branch > 0, ["", "int", "string", "boolean"][branch as usize].to_owned()),
            shown(branch == 1, number.to_string()),
            shown(branch == 2, text("u")),
            shown(branch == 3, "true".to_owned()),
            shown(added, text("n")),
            shown(added, (number % 50).to_string()),
            shown(changed, (number * 3).to_string()),
        ];
        (value, row)
    }
}

/// A row of [`FLAT`] as an Iceberg engine shows the whole table: structs are one cell.
fn whole(flat: Vec<String>) -> Vec<String> {
    let quoted = |text: &String| if text == NULL { NULL.to_owned() } else { format!("{text:?}") };
    let mut row = flat[..8].to_vec();
    let union = format!("({}, {}, {}, {})", quoted(&flat[8]), flat[9], quoted(&flat[10]), flat[11]);
    row.push(if flat[8] == NULL { NULL.to_owned() } else { union });
    row.push(flat[12].clone());
    row.push(if flat[13] == NULL { NULL.to_owned() } else { format!("({})", flat[13]) });
    row.push(flat[14].clone());
    row
}

/// The same of a table that has the first columns only.
fn whole_at_first(flat: Vec<String>) -> Vec<String> {
    let quoted = |text: &String| if text == NULL { NULL.to_owned() } else { format!("{text:?}") };
    let mut row = flat[..8].to_vec();
    let union = format!("({}, {}, {})", quoted(&flat[8]), flat[9], quoted(&flat[10]));
    row.push(if flat[8] == NULL { NULL.to_owned() } else { union });
    row
}

/// A topic whose events are of one schema or of two, and what they make.
struct Topic {
    stack: &'static Stack,
    name: String,
    first: Encoder,
    /// The newest of the others.
    newest: Option<(Phase, Encoder)>,
    /// By partition, the key and the row of each event, in the order of offsets.
    events: [Vec<(i64, Vec<String>)>; PARTITIONS as usize],
    sent: i64,
}

impl Topic {
    fn new() -> Topic {
        let (stack, name) = (Stack::get(), unique("evolving"));
        stack.kafka.create_topic(&name, PARTITIONS as i32, &[]);
        let first = stack.registry.encoder(&format!("{name}-value"), &Phase::First.schema());
        Topic { stack, name, first, newest: None, events: Default::default(), sent: 0 }
    }

    /// From now on some events are of this schema too.
    fn enter(&mut self, phase: Phase) {
        let encoder = self.stack.registry.encoder(&format!("{}-value", self.name), &phase.schema());
        self.newest = Some((phase, encoder));
    }

    /// Produces some events, of each schema by turns, and remembers what they make.
    fn produce(&mut self, events: usize) {
        let records: Vec<Record> = (0..events).map(|_| self.event()).collect();
        self.stack.kafka.produce(&self.name, &records, Compression::None);
    }

    fn event(&mut self) -> Record {
        self.sent += 1;
        let (number, id) = (self.sent, self.sent * 7919 % KEYS);
        let (phase, encoder) = match &self.newest {
            Some((phase, encoder)) if number % 3 != 0 => (*phase, encoder),
            _ => (Phase::First, &self.first),
        };
        let (value, row) = phase.event(id, number);
        let partition = id % PARTITIONS;
        self.events[partition as usize].push((id, row));
        Record { partition: partition as i32, value: Some(encoder.encode(value)), ..Record::default() }
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

    /// The same until each of the processes has committed so often from now on.
    fn live_for(&mut self, processes: [&mut FirnProcess; 2], commits: usize) {
        for process in processes {
            let before = process.stderr().matches("commit written").count();
            self.live_until(process, "commit written", before + commits);
        }
    }

    /// The name of the table; `two` is that of Iceberg's older format.
    fn table(&self, two: bool) -> String {
        format!("{}{}", self.name.replace('-', "_"), if two { "_two" } else { "" })
    }

    /// The rows that a table has which holds the events below these offsets.
    fn expected_at(&self, next: &[usize]) -> Vec<Vec<String>> {
        let mut rows = BTreeMap::new();
        for (events, next) in self.events.iter().zip(next) {
            rows.extend(events[..*next].iter().cloned());
        }
        rows.into_values().collect()
    }

    fn expected(&self) -> Vec<Vec<String>> {
        self.expected_at(&self.events.each_ref().map(Vec::len))
    }
}

fn config(topic: &Topic, folder: &Path) -> PathBuf {
    let (brokers, registry, lake) =
        (&topic.stack.kafka.plaintext, &topic.stack.registry.url, topic.stack.firn_catalog(Catalog::Rest));
    let (name, two, three) = (&topic.name, topic.table(true), topic.table(false));
    let text = format!(
        "kafka: {{brokers: \"{brokers}\"}}\nschema_registry: {{url: \"{registry}\"}}\n\
         catalogs:\n  lake: {lake}\n  delta: {{type: delta, warehouse: delta}}\n\
         pipelines:\n  {name}:\n    topics: [{name}]\n    key: [id]\n    lineage: false\n    commit: {{interval: 500ms}}\n    tables:\n      \
         - {{catalog: lake, name: market.{two}, format_version: 2}}\n      \
         - {{catalog: lake, name: market.{three}, format_version: 3}}\n      - {{catalog: delta, name: market.{three}}}\n\
         state_dir: ./state\n"
    );
    let path = folder.join("firn.yaml");
    std::fs::write(&path, text).unwrap();
    path
}

/// Trino 483 and pyiceberg read the rows of both Iceberg tables, and those of a snapshot that is older than all changes.
fn iceberg_is_right(topic: &Topic) {
    let (trino, catalog) = (&topic.stack.trino, topic.stack.pyiceberg_catalog(Catalog::Rest));
    let expected: Vec<_> = topic.expected().into_iter().map(whole).collect();
    for table in [topic.table(true), topic.table(false)] {
        assert_same_rows(&trino.query(&format!("SELECT * FROM rest.market.{table}")), &expected);
        assert_same_rows(&topic.stack.pyiceberg_rows(&catalog, &format!("market.{table}"), None), &expected);
        let snapshots = trino.query(&format!(
            "SELECT snapshot_id, element_at(summary, 'firn.offsets') FROM rest.market.\"{table}$snapshots\"
             WHERE element_at(summary, 'added-records') IS NOT NULL ORDER BY committed_at LIMIT 1"
        ));
        let offsets: Value = serde_json::from_str(&snapshots[0][1]).unwrap();
        let partitions = offsets["topics"].as_object().unwrap().values().next().unwrap()["partitions"].clone();
        let next = (0..PARTITIONS).map(|p| partitions[p.to_string()]["next"].as_u64().unwrap() as usize);
        let then: Vec<_> = topic.expected_at(&next.collect::<Vec<_>>()).into_iter().map(whole_at_first).collect();
        assert!(!then.is_empty());
        let (id, name) = (&snapshots[0][0], format!("market.{table}"));
        assert_same_rows(&trino.query(&format!("SELECT * FROM rest.{name} FOR VERSION AS OF {id}")), &then);
        assert_same_rows(&topic.stack.pyiceberg_rows(&catalog, &name, Some(id.parse().unwrap())), &then);
    }
}

/// A version of the Delta table: its columns, whether it brings rows, and the next offsets as of it.
struct Version {
    schema: String,
    adds: bool,
    next: Vec<usize>,
}

fn versions(log: &Path) -> Vec<Version> {
    let mut files: Vec<_> = std::fs::read_dir(log).unwrap().map(|f| f.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "json"));
    files.sort();
    let (mut schema, mut next, mut versions) = (String::new(), vec![0; PARTITIONS as usize], Vec::new());
    for file in files {
        let text = std::fs::read_to_string(file).unwrap();
        let actions: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for action in &actions {
            if let Some(changed) = action["metaData"]["schemaString"].as_str() {
                changed.clone_into(&mut schema);
            }
            let app = action["txn"]["appId"].as_str().filter(|app| app.starts_with("firn:"));
            if let Some(partition) = app.and_then(|app| app.rsplit(':').next()?.parse::<usize>().ok()) {
                next[partition] = action["txn"]["version"].as_u64().unwrap() as usize;
            }
        }
        let adds = actions.iter().any(|action| action["add"].is_object());
        versions.push(Version { schema: schema.clone(), adds, next: next.clone() });
    }
    versions
}

/// The Delta table has the rows, and deltalake reads those of the last version without wider types: neither it nor Trino 476
/// knows that feature. Each change of columns came with rows.
fn delta_is_right(topic: &Topic, config: &Path, folder: &Path) {
    let location = folder.join("delta/market").join(topic.table(false)).display().to_string();
    let versions = versions(&Path::new(&location).join("_delta_log"));
    let changes: Vec<usize> = (1..versions.len()).filter(|&v| versions[v].schema != versions[v - 1].schema).collect();
    assert_eq!(changes.len(), 3, "one for each schema: {changes:?}");
    assert!(changes.iter().all(|&version| versions[version].adds), "a change without rows");
    let before = changes[2] - 1;
    let request = json!({"op": "rows", "columns": FLAT, "version": before});
    let rows: Vec<Vec<String>> = serde_json::from_value(topic.stack.deltalake(&location, request)).unwrap();
    let rows: Vec<_> = rows.into_iter().map(booleans).collect();
    assert_same_rows(&rows, &topic.expected_at(&versions[before].next));

    assert_same_rows(&firn_rows(config, &format!("delta.market.{}", topic.table(false))), &topic.expected());
}

/// The table as `firn sql` reads it.
fn firn_rows(config: &Path, table: &str) -> Vec<Vec<String>> {
    let statement = format!("SELECT {FLAT} FROM {table}");
    let output = firn(["sql", "-c", &config.display().to_string(), "--format", "csv", &statement]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let cell = |cell: &str| if cell.is_empty() { NULL.to_owned() } else { cell.to_owned() };
    text.lines().skip(1).map(|line| line.split(',').map(cell).collect()).collect()
}

/// Python's booleans are written with capitals.
fn booleans(mut row: Vec<String>) -> Vec<String> {
    row[11] = row[11].to_lowercase();
    row
}

/// INV-21, FAILURES D1, D2: whatever changes, it does so while both run.
#[test]
fn a_schema_changes_while_two_processes_share_its_topic_and_one_dies() {
    if !wanted() {
        return;
    }
    let (mut topic, folder) = (Topic::new(), tempfile::tempdir().unwrap());
    let config = config(&topic, folder.path());
    topic.produce(500);
    let mut first = FirnProcess::run(&config, &[]);
    topic.live_until(&mut first, "commit written", 3);
    let mut second = FirnProcess::run(&config, &[]);
    topic.live_until(&mut second, "commit written", 3);
    topic.live_for([&mut first, &mut second], 3);
    let assigned = [&first, &second].map(|process| process.stderr().matches("partitions assigned").count());

    // Both meet each new schema, each when it comes to it; nobody leaves the group for it.
    for (changes, phase) in [(3, Phase::Added), (6, Phase::Changed)] {
        topic.enter(phase);
        topic.produce(200);
        topic.live_for([&mut first, &mut second], 6);
        let now = [&first, &second].map(|process| process.stderr().matches("partitions assigned").count());
        assert_eq!(now, assigned, "a consumer left the group:\n{}\n{}", first.stderr(), second.stderr());
        let changed: usize = [&first, &second].iter().map(|p| p.stderr().matches("columns changed").count()).sum();
        assert_eq!(changed, changes, "each table changed once:\n{}\n{}", first.stderr(), second.stderr());
    }

    // A process dies about when it commits the first rows of the last schema.
    topic.enter(Phase::Widened);
    topic.produce(200);
    std::thread::sleep(Duration::from_millis(400));
    assert!(first.kill_9());
    let mut third = FirnProcess::run(&config, &[]);
    topic.live_until(&mut third, "commit written", 3);
    topic.live_for([&mut second, &mut third], 3);
    for process in [&mut second, &mut third] {
        process.terminate();
        assert_eq!(process.wait(LIMIT).code(), Some(0), "{}", process.stderr());
    }
    catch_up(&config);
    iceberg_is_right(&topic);
    delta_is_right(&topic, &config, folder.path());
}

//! Schemas that change while a pipeline runs: it goes on, and the tables change in the commits of the rows that need it.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use firn::service::{self, Progress, RunOptions};
use firn::settings::Settings;
use serde_json::{Value, json};
use sqlx::Connection;
use tokio_util::sync::CancellationToken;

use crate::evolve::{encode, register, rows, schema, world};
use crate::run::World;

const ICEBERG: &str = "{catalog: ice, name: market.trades, format_version: 2}";
const ICEBERG_V3: &str = "{catalog: ice, name: market.trades, format_version: 3}";
const DELTA: &str = "{catalog: lake, name: market.trades}";

const OLD: &str = r#",{"name":"n","type":"int"},{"name":"old","type":"string"}"#;
const NEW: &str = r#",{"name":"n","type":"long"},{"name":"new","aliases":["old"],"type":"string"},
    {"name":"s","type":["null",{"type":"record","name":"S","fields":[{"name":"a","type":"int"}]}],"default":null}"#;

/// What the pipeline logs.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Logged {
    fn count(&self, what: &str) -> usize {
        String::from_utf8_lossy(&self.0.lock().unwrap()).matches(what).count()
    }
}

/// A pipeline that runs beside the test, on its thread, so that its log is the test's.
struct Running {
    progress: Arc<Progress>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<firn::Result<()>>,
    logged: Logged,
    _log: Option<tracing::subscriber::DefaultGuard>,
}

impl Running {
    fn start(world: &World) -> Running {
        // With one subscriber alone, whatever another test's thread says first is never logged by anybody.
        static ANOTHER: OnceLock<tracing::Dispatch> = OnceLock::new();
        let silent = || tracing_subscriber::fmt().with_writer(std::io::sink).finish();
        ANOTHER.get_or_init(|| tracing::Dispatch::new(silent()));
        let logged = Logged::default();
        let writer = logged.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        let log = tracing::subscriber::set_default(subscriber);
        Running { _log: Some(log), ..Running::start_beside(world, logged) }
    }

    /// Another member of the group, that logs where the first one does.
    fn start_beside(world: &World, logged: Logged) -> Running {
        let (progress, stop) = (Arc::new(Progress::default()), CancellationToken::new());
        let reports = BTreeMap::from([("p".to_owned(), progress.clone())]);
        let options = RunOptions { progress: reports, ..RunOptions::default() };
        let (settings, token) = (Settings::load(&world.config()).unwrap(), stop.clone());
        let task = tokio::spawn(async move { service::run(&settings, &options, &token).await });
        Running { progress, stop, task, logged, _log: None }
    }

    fn events(&self) -> u64 {
        self.progress.events.load(Ordering::Relaxed)
    }

    /// Waits until the first table has this many events.
    async fn until(&self, events: u64) {
        until(&format!("{events} events"), || !self.task.is_finished(), || self.events() >= events).await;
    }

    /// Ends in order, with everything committed; what was logged.
    async fn end(self) -> Logged {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
        self.logged
    }
}

async fn until(what: &str, is_alive: impl Fn() -> bool, done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(60) && is_alive(), "not within a minute: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A commit of a table: the offsets of partition 0 that it brought, how many rows it added, and its columns afterwards.
#[derive(Debug)]
struct Commit {
    from: i64,
    next: i64,
    added: u64,
    columns: Vec<String>,
    /// The columns at every depth, as the format writes them.
    schema: String,
}

/// The commits that change columns at any depth. The first one of all has those that the table was created with.
fn changes(commits: &[Commit]) -> Vec<&Commit> {
    commits.windows(2).filter(|pair| pair[0].schema != pair[1].schema).map(|pair| &pair[1]).collect()
}

/// All commits of the Iceberg table, oldest first; nothing else ever touched its metadata.
async fn iceberg_commits(world: &World) -> Vec<Commit> {
    let settings = Settings::load(&world.config()).unwrap();
    let catalog = service::open_catalog(&settings.catalogs["ice"]).await.unwrap();
    let table = catalog.load_table(&["market".to_owned()], "trades").await.unwrap().unwrap();
    let metadata = table.metadata();
    assert_eq!(metadata.metadata_log().len(), metadata.snapshots().count(), "a change of the metadata without rows");
    let mut snapshots: Vec<_> = metadata.snapshots().collect();
    snapshots.sort_by_key(|s| s.sequence_number());
    let one = |snapshot: &&iceberg::spec::SnapshotRef| {
        let summary = &snapshot.summary().additional_properties;
        let offsets: Value = serde_json::from_str(&summary["firn.offsets"]).unwrap();
        let partition = &offsets["topics"].as_object().unwrap().values().next().unwrap()["partitions"]["0"];
        let schema = metadata.schema_by_id(snapshot.schema_id().unwrap()).unwrap();
        Commit {
            from: partition["from"].as_i64().unwrap(),
            next: partition["next"].as_i64().unwrap(),
            added: summary.get("added-records").map_or(0, |n| n.parse().unwrap()),
            columns: schema.as_struct().fields().iter().map(|f| f.name.clone()).collect(),
            schema: serde_json::to_string(schema.as_struct()).unwrap(),
        }
    };
    snapshots.iter().map(one).collect()
}

/// All versions of the Delta table after its creation.
fn delta_commits(world: &World) -> Vec<Commit> {
    let log = world.folder.path().join("d/market/trades/_delta_log");
    let mut files: Vec<_> = std::fs::read_dir(log).unwrap().map(|f| f.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "json"));
    files.sort();
    let (mut commits, mut columns, mut text_of, mut from) = (Vec::new(), Vec::new(), String::new(), 0);
    for file in files {
        let text = std::fs::read_to_string(file).unwrap();
        let actions: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let (mut added, mut next) = (0, from);
        for action in &actions {
            if let Some(schema) = action["metaData"]["schemaString"].as_str() {
                text_of = schema.to_owned();
                let schema: Value = serde_json::from_str(schema).unwrap();
                let fields = schema["fields"].as_array().unwrap();
                columns = fields.iter().map(|f| f["name"].as_str().unwrap().to_owned()).collect();
            }
            if action["txn"]["appId"].as_str().is_some_and(|id| id.starts_with("firn:") && id.ends_with(":0")) {
                next = action["txn"]["version"].as_i64().unwrap();
            }
            // A file that only lost rows is added again with its vector.
            if action["add"].is_object() && action["add"]["deletionVector"].is_null() {
                let stats: Value = serde_json::from_str(action["add"]["stats"].as_str().unwrap()).unwrap();
                added += stats["numRecords"].as_u64().unwrap();
            }
        }
        commits.push(Commit { from, next, added, columns: columns.clone(), schema: text_of.clone() });
        from = next;
    }
    commits.split_off(1)
}

fn old(id: u32, key: i64) -> Vec<u8> {
    encode(id, &schema(OLD), json!({"id": key, "n": 7, "old": format!("o{key}")}))
}

fn new(id: u32, key: i64) -> Vec<u8> {
    let value = json!({"id": key, "n": 5_000_000_000_i64, "new": format!("n{key}"), "s": {"a": 3}});
    encode(id, &schema(NEW), value)
}

/// The first commit with other columns is the one that brings offset `first`, with rows, and no commit before has them.
fn check_commits(commits: &[Commit], first: i64) {
    let at = commits.iter().position(|c| c.columns.len() > 3).expect("the columns have changed");
    let change = &commits[at];
    assert!(change.from <= first && first < change.next && change.added > 0, "offset {first}: {commits:#?}");
    assert_eq!(change.columns, ["id", "n", "new", "s"], "{commits:#?}");
    assert!(change.next > first + 1, "rows of both schemas are in one batch: {commits:#?}");
    assert!(commits[..at].iter().all(|c| c.columns == ["id", "n", "old"]), "{commits:#?}");
    assert!(commits[at..].iter().all(|c| c.columns == change.columns), "{commits:#?}");
}

#[tokio::test]
async fn columns_change_in_the_commit_of_the_first_rows_that_need_it_and_nobody_starts_again() {
    for tables in [vec![ICEBERG], vec![ICEBERG_V3], vec![DELTA], vec![DELTA, ICEBERG_V3]] {
        let world = world(&tables, "").await;
        let slower = std::fs::read_to_string(world.config()).unwrap().replace("200ms", "1s");
        std::fs::write(world.config(), slower).unwrap();
        let before = register(&world, &schema(OLD));
        let running = Running::start(&world);
        world.send(0, &[old(before, 1), old(before, 2), old(before, 9)]);
        running.until(3).await;
        let after = register(&world, &schema(NEW));
        // The schema is known to the registry, and no record has it: nothing changes.
        world.send(0, &[old(before, 3)]);
        running.until(4).await;
        world.send(0, &[new(after, 4), old(before, 5), new(after, 1), old(before, 6), old(before, 9)]);
        running.until(9).await;
        world.send(0, &[old(before, 7), new(after, 8)]);
        running.until(11).await;
        let logged = running.end().await;
        assert_eq!(logged.count("partitions assigned"), 1, "no consumer left the group");
        assert_eq!(logged.count("columns changed"), tables.len(), "once per table");

        for (catalog, table) in [("ice", "ice.market.trades"), ("lake", "lake.market.trades")] {
            if !tables.iter().any(|t| t.contains(&format!("catalog: {catalog}"))) {
                continue;
            }
            let commits = if catalog == "ice" { iceberg_commits(&world).await } else { delta_commits(&world) };
            check_commits(&commits, 4);
            let expected = (1..=9).map(|key| match key {
                1 | 4 | 8 => json!({"id": key, "n": 5_000_000_000_i64, "new": format!("n{key}"), "s": {"a": 3}}),
                _ => json!({"id": key, "n": 7, "new": format!("o{key}")}),
            });
            assert_eq!(rows(&world, table).await, expected.collect::<Vec<_>>(), "{tables:?}");
        }
    }
}

#[tokio::test]
async fn a_table_changes_while_another_one_of_the_pipeline_is_out_of_reach() {
    let world = world(&[DELTA, ICEBERG_V3], "").await;
    let before = register(&world, &schema(OLD));
    let running = Running::start(&world);
    world.send(0, &[old(before, 1)]);
    running.until(1).await;
    while iceberg_commits(&world).await.last().is_none_or(|c| c.next < 1) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Nobody can write to the catalog of the other table.
    let catalog = format!("sqlite:{}", world.folder.path().join("c.db").display());
    let mut lock = sqlx::SqliteConnection::connect(&catalog).await.unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut lock).await.unwrap();
    let after = register(&world, &schema(NEW));
    world.send(0, &[new(after, 2), old(before, 3)]);
    running.until(3).await;
    assert_eq!(delta_commits(&world).last().unwrap().columns, ["id", "n", "new", "s"]);
    assert_eq!(iceberg_commits(&world).await.last().unwrap().columns, ["id", "n", "old"]);
    sqlx::query("ROLLBACK").execute(&mut lock).await.unwrap();
    lock.close().await.unwrap();
    let logged = running.end().await;
    assert_eq!((logged.count("partitions assigned"), logged.count("columns changed")), (1, 2));
    check_commits(&iceberg_commits(&world).await, 1);
    let expected = rows(&world, "lake.market.trades").await;
    assert_eq!((rows(&world, "ice.market.trades").await, expected.len()), (expected, 3));
}

const PLAIN: &str = r#",{"name":"at","type":"long"},
    {"name":"s","type":{"type":"record","name":"S","fields":[{"name":"a","type":"int"}]}}"#;
const FILLED: &str = r#",{"name":"at","type":"long"},
    {"name":"s","type":{"type":"record","name":"S","fields":[{"name":"a","type":"int"},
        {"name":"b","type":"string","default":"deep"}]}},
    {"name":"n","type":"int","default":7}"#;

/// An event of [`PLAIN`] or, with the fields that have defaults, of [`FILLED`].
fn event(id: u32, key: i64, at: i64, own: Option<i32>) -> Vec<u8> {
    match own {
        None => encode(id, &schema(PLAIN), json!({"id": key, "at": at, "s": {"a": 1}})),
        Some(n) => encode(id, &schema(FILLED), json!({"id": key, "at": at, "s": {"a": 1, "b": "own"}, "n": n})),
    }
}

/// The row that an event makes, in a table that keeps defaults and in one that does not.
fn row(key: i64, at: i64, own: Option<i32>, keeps_defaults: bool) -> Value {
    match own {
        Some(n) => json!({"id": key, "at": at, "s": {"a": 1, "b": "own"}, "n": n}),
        None if keeps_defaults => json!({"id": key, "at": at, "s": {"a": 1, "b": "deep"}, "n": 7}),
        None => json!({"id": key, "at": at, "s": {"a": 1}}),
    }
}

#[tokio::test]
async fn a_field_that_comes_up_has_its_default_in_rows_under_way_and_in_events_that_lose_or_win_by_order() {
    for (tables, keeps) in [(vec![ICEBERG_V3], true), (vec![ICEBERG], false), (vec![DELTA, ICEBERG_V3], false)] {
        let world = world(&tables, "    order_by: at\n").await;
        let slower = std::fs::read_to_string(world.config()).unwrap().replace("200ms", "1s");
        std::fs::write(world.config(), slower).unwrap();
        let before = register(&world, &schema(PLAIN));
        let running = Running::start(&world);
        world.send(0, &[event(before, 1, 5, None), event(before, 2, 5, None), event(before, 3, 5, None)]);
        running.until(3).await;
        let after = register(&world, &schema(FILLED));
        world.send(
            0,
            &[
                // Gathered before the columns grow, and committed with them.
                event(before, 4, 5, None),
                event(after, 1, 6, Some(9)),
                event(after, 5, 5, Some(10)),
                // It is older than what it meets, in the batch and in the table.
                event(before, 1, 4, None),
                event(after, 2, 4, Some(11)),
                // It is newer than both.
                event(before, 5, 8, None),
            ],
        );
        running.until(9).await;
        assert_eq!(running.end().await.count("partitions assigned"), 1);
        let expected: Vec<_> = [(1, 6, Some(9)), (2, 5, None), (3, 5, None), (4, 5, None), (5, 8, None)]
            .map(|(key, at, own)| row(key, at, own, keeps))
            .to_vec();
        for (catalog, table) in [("ice", "ice.market.trades"), ("lake", "lake.market.trades")] {
            if tables.iter().any(|t| t.contains(&format!("catalog: {catalog}"))) {
                assert_eq!(rows(&world, table).await, expected, "{tables:?} {table}");
            }
        }
    }
}

#[tokio::test]
async fn members_that_see_a_field_at_different_times_write_the_same_default() {
    let world = world(&[ICEBERG_V3], "    order_by: at\n").await;
    let before = register(&world, &schema(PLAIN));
    let first = Running::start(&world);
    world.send(0, &[event(before, 0, 5, None)]);
    first.until(1).await;
    let second = Running::start(&world);
    let begun = Instant::now();
    let mut sent = 1;
    // Keys of a partition have its number as their last digit. Until each of the two has one of the partitions:
    while second.progress.events.load(Ordering::Relaxed) == 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "the second member gets no partition");
        world.send(0, &[event(before, 10 * sent, 5, None)]);
        world.send(1, &[event(before, 10 * sent + 1, 5, None)]);
        sent += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let after = register(&world, &schema(FILLED));
    // One of them hears of it now, the other one by the table; then by an event of its own.
    world.send(0, &[event(after, 10_000, 5, Some(1)), event(before, 10_010, 5, None)]);
    world.send(1, &[event(before, 10_001, 5, None)]);
    let both = || first.progress.events.load(Ordering::Relaxed) + second.progress.events.load(Ordering::Relaxed);
    let all = |more: i64| (1 + 2 * (sent - 1) + more) as u64;
    while both() < all(3) {
        assert!(begun.elapsed() < Duration::from_secs(120), "{} of {} events", both(), all(3));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.send(1, &[event(before, 10_011, 5, None), event(after, 10_021, 5, Some(2)), event(before, 10_031, 5, None)]);
    world.send(0, &[event(before, 10_020, 5, None)]);
    while both() < all(7) {
        assert!(begun.elapsed() < Duration::from_secs(180), "{} of {} events", both(), all(7));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    second.end().await;
    first.end().await;
    let own = |key: i64| [(10_000, 1), (10_021, 2)].into_iter().find(|(of, _)| *of == key).map(|(_, n)| n);
    let found = rows(&world, "ice.market.trades").await;
    assert_eq!(found.len() as u64, all(7));
    for found in found {
        let key = found["id"].as_i64().unwrap();
        assert_eq!(found, row(key, 5, own(key), true));
    }
}

/// The commits of whichever of the two tables is among the settings.
async fn commits(world: &World, table: &str) -> Vec<Commit> {
    if table == DELTA { delta_commits(world) } else { iceberg_commits(world).await }
}

fn name(table: &str) -> &'static str {
    if table == DELTA { "lake.market.trades" } else { "ice.market.trades" }
}

/// Records at every depth, each with these fields behind its first.
fn nested(more: &str) -> String {
    let record =
        |name: &str| format!(r#"{{"type":"record","name":"{name}","fields":[{{"name":"a","type":"int"}}{more}]}}"#);
    let list = |items: &str| format!(r#"{{"type":"array","items":{items}}}"#);
    let fields = [
        ("s", record("S")),
        ("o", format!(r#"["null",{}]"#, record("O"))),
        ("l", list(&record("L"))),
        ("ll", list(&list(&record("M")))),
        ("m", format!(r#"{{"type":"map","values":{}}}"#, record("V"))),
        (
            "d",
            format!(
                r#"["null",{{"type":"record","name":"D","fields":[{{"name":"in","type":{}}}]}}]"#,
                list(&record("E"))
            ),
        ),
    ];
    let field = |(name, kind): &(&str, String)| format!(r#",{{"name":"{name}","type":{kind}}}"#);
    schema(&fields.iter().map(field).collect::<String>())
}

/// A value of [`nested`] that has these at every depth.
fn full(id: i64, of: &[Value]) -> Value {
    json!({"id": id, "s": of[0], "o": of[0], "l": of, "ll": [[], of], "m": {"k": of[0]}, "d": {"in": of}})
}

/// One that has none but where it must.
fn bare(id: i64, one: &Value) -> Value {
    json!({"id": id, "s": one, "o": null, "l": [], "ll": [[]], "m": {}, "d": null})
}

/// D1: fields come up at every depth where nothing is: their parents are null, their lists are empty.
#[tokio::test]
async fn fields_are_added_at_every_depth_also_where_their_parents_are_null_or_empty() {
    let (before, after) = (nested(""), nested(r#",{"name":"b","type":["null","string"],"default":null}"#));
    for table in [ICEBERG, ICEBERG_V3, DELTA] {
        let world = world(&[table], "").await;
        let old = register(&world, &before);
        let running = Running::start(&world);
        let one = json!({"a": 1});
        world.send(0, &[encode(old, &before, full(1, std::slice::from_ref(&one)))]);
        running.until(1).await;
        let new = register(&world, &after);
        let null = json!({"a": 2, "b": null});
        world.send(0, &[encode(new, &after, bare(2, &null))]);
        running.until(2).await;
        let some = [json!({"a": 3, "b": "x"}), null, json!({"a": 4, "b": "y"})];
        world.send(0, &[encode(new, &after, full(3, &some)), encode(old, &before, bare(4, &one))]);
        running.until(4).await;
        running.end().await;

        let commits = commits(&world, table).await;
        let changes = changes(&commits);
        assert_eq!(changes.len(), 1, "{commits:#?}");
        assert_eq!((changes[0].from, changes[0].added), (1, 1), "with the first event, though it has none of them");
        let (some, one) = ([json!({"a": 3, "b": "x"}), json!({"a": 2}), json!({"a": 4, "b": "y"})], &one);
        let bare = |id, s| json!({"id": id, "s": s, "l": [], "ll": [[]], "m": {}});
        let expected =
            [full(1, std::slice::from_ref(one)), bare(2, json!({"a": 2})), full(3, &some), bare(4, one.clone())];
        assert_eq!(rows(&world, name(table)).await, expected, "{table}");
    }
}

/// D3: a list of several elements that gain a field is one new column, in one commit with its data.
#[tokio::test]
async fn a_list_of_several_records_that_gain_a_field_is_one_change_in_the_commit_of_its_rows() {
    let list = |more: &str| {
        schema(&format!(
            r#",{{"name":"l","type":{{"type":"array","items":{{"type":"record","name":"L","fields":[
                {{"name":"x","type":"int"}}{more}]}}}}}}"#
        ))
    };
    let (before, after) = (list(""), list(r#",{"name":"y","type":["null","long"]}"#));
    for table in [ICEBERG, ICEBERG_V3, DELTA] {
        let world = world(&[table], "").await;
        let old = register(&world, &before);
        let running = Running::start(&world);
        world.send(0, &[encode(old, &before, json!({"id": 1, "l": [{"x": 1}, {"x": 2}]}))]);
        running.until(1).await;
        let new = register(&world, &after);
        let elements = json!([{"x": 1, "y": 10}, {"x": 2, "y": null}, {"x": 3, "y": 30}, {"x": 4, "y": 40}]);
        world.send(0, &[encode(new, &after, json!({"id": 2, "l": elements}))]);
        running.until(2).await;
        world.send(0, &[encode(new, &after, json!({"id": 3, "l": elements}))]);
        running.until(3).await;
        let logged = running.end().await;
        assert_eq!(logged.count("columns changed"), 1);

        let commits = commits(&world, table).await;
        let changes = changes(&commits);
        assert_eq!(changes.len(), 1, "{commits:#?}");
        assert_eq!((changes[0].from, changes[0].next, changes[0].added), (1, 2, 1), "{commits:#?}");
        assert_eq!(changes[0].schema.matches(r#""name":"y""#).count(), 1, "{}", changes[0].schema);
        let elements = json!([{"x": 1, "y": 10}, {"x": 2}, {"x": 3, "y": 30}, {"x": 4, "y": 40}]);
        let expected = [
            json!({"id": 1, "l": [{"x": 1}, {"x": 2}]}),
            json!({"id": 2, "l": elements}),
            json!({"id": 3, "l": elements}),
        ];
        assert_eq!(rows(&world, name(table)).await, expected, "{table}");
    }
}

/// D2: members see a schema at different times, and the table is another one when the last of them does.
#[tokio::test]
async fn members_meet_a_schema_one_after_the_other_and_a_table_that_was_created_again_is_not_taken_for_the_old_one() {
    for table in [ICEBERG_V3, DELTA] {
        let world = world(&[table], "").await;
        let before = register(&world, &schema(OLD));
        let first = Running::start(&world);
        world.send(0, &[old(before, 1)]);
        first.until(1).await;
        let second = Running::start_beside(&world, first.logged.clone());
        let begun = Instant::now();
        while second.events() == 0 {
            assert!(begun.elapsed() < Duration::from_secs(60), "the second member gets nothing");
            world.send(0, &[old(before, 2)]);
            world.send(1, &[old(before, 3)]);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }

        // One meets the schema long before the other, which goes on with the old one meanwhile.
        let after = register(&world, &schema(NEW));
        world.send(0, &[new(after, 4)]);
        has(&world, table, 4).await;
        world.send(1, &[old(before, 5)]);
        has(&world, table, 5).await;
        world.send(1, &[new(after, 6), old(before, 7)]);
        has(&world, table, 7).await;
        let logged = || String::from_utf8_lossy(&first.logged.0.lock().unwrap()).into_owned();
        assert_eq!(logged().matches("columns changed").count(), 1, "whoever is first changes them:\n{}", logged());
        let row = |key: i64| match key {
            4 | 6 => json!({"id": key, "n": 5_000_000_000_i64, "new": format!("n{key}"), "s": {"a": 3}}),
            _ => json!({"id": key, "n": 7, "new": format!("o{key}")}),
        };
        assert_eq!(rows(&world, name(table)).await, (1..=7).map(row).collect::<Vec<_>>(), "{table}");
        // Now the table is another one of the same name, which has the columns of the beginning.
        let elsewhere = self::world(&[table], "").await;
        register(&elsewhere, &schema(OLD));
        elsewhere.catch_up().await.unwrap();
        recreate(&world, &elsewhere, table).await;
        let begun = Instant::now();
        while !(first.task.is_finished() && second.task.is_finished()) {
            assert!(begun.elapsed() < Duration::from_secs(120), "they do not end by themselves");
            world.send(0, &[new(after, 8)]);
            world.send(1, &[new(after, 9)]);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        for member in [first, second] {
            let error = member.task.await.unwrap().unwrap_err();
            assert_eq!(error.exit_code(), 4, "{error}");
            assert!(error.to_string().contains("dropped and created again"), "{error}");
        }
        assert!(rows(&world, name(table)).await.is_empty(), "nobody wrote into it");
        let commits = commits(&world, table).await;
        let untouched = commits.iter().all(|c| c.added == 0 && c.columns == ["id", "n", "old"]);
        assert!(untouched, "and nobody changed it: {commits:#?}");
    }
}

/// Waits until the table has a row of this key.
async fn has(world: &World, table: &str, id: i64) {
    let begun = Instant::now();
    while !rows(world, name(table)).await.iter().any(|row| row["id"] == id) {
        assert!(begun.elapsed() < Duration::from_secs(60), "the row of {id} does not come");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Puts the table of another world in the place of this one's.
async fn recreate(world: &World, elsewhere: &World, table: &str) {
    let (folder, other) = (world.folder.path(), elsewhere.folder.path());
    if table == DELTA {
        std::fs::rename(folder.join("d/market"), folder.join("dropped")).unwrap();
        std::fs::rename(other.join("d/market"), folder.join("d/market")).unwrap();
        return;
    }
    let catalog = |path: &std::path::Path| format!("sqlite:{}", path.join("c.db").display());
    let mut theirs = sqlx::SqliteConnection::connect(&catalog(other)).await.unwrap();
    let query = "SELECT metadata_location FROM iceberg_tables WHERE table_name = 'trades'";
    let (location,): (String,) = sqlx::query_as(query).fetch_one(&mut theirs).await.unwrap();
    let mut ours = sqlx::SqliteConnection::connect(&catalog(folder)).await.unwrap();
    let update = "UPDATE iceberg_tables SET metadata_location = ?, previous_metadata_location = NULL WHERE table_name = 'trades'";
    sqlx::query(update).bind(location).execute(&mut ours).await.unwrap();
}

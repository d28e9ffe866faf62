//! Schemas that change while a pipeline runs: it goes on, and the tables change in the commits of the rows that need it.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
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
    _log: tracing::subscriber::DefaultGuard,
}

impl Running {
    fn start(world: &World) -> Running {
        let logged = Logged::default();
        let writer = logged.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        let log = tracing::subscriber::set_default(subscriber);
        let (progress, stop) = (Arc::new(Progress::default()), CancellationToken::new());
        let reports = BTreeMap::from([("p".to_owned(), progress.clone())]);
        let options = RunOptions { progress: reports, ..RunOptions::default() };
        let (settings, token) = (Settings::load(&world.config()).unwrap(), stop.clone());
        let task = tokio::spawn(async move { service::run(&settings, &options, &token).await });
        Running { progress, stop, task, logged, _log: log }
    }

    /// Waits until the first table has this many events.
    async fn until(&self, events: u64) {
        let begun = Instant::now();
        while self.progress.events.load(Ordering::Relaxed) < events {
            assert!(
                begun.elapsed() < Duration::from_secs(60) && !self.task.is_finished(),
                "{events} events do not come"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends in order, with everything committed; what was logged.
    async fn end(self) -> Logged {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
        self.logged
    }
}

/// A commit of a table: the offsets of partition 0 that it brought, how many rows it added, and its columns afterwards.
#[derive(Debug)]
struct Commit {
    from: i64,
    next: i64,
    added: u64,
    columns: Vec<String>,
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
    let (mut commits, mut columns, mut from) = (Vec::new(), Vec::new(), 0);
    for file in files {
        let text = std::fs::read_to_string(file).unwrap();
        let actions: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let (mut added, mut next) = (0, from);
        for action in &actions {
            if let Some(schema) = action["metaData"]["schemaString"].as_str() {
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
        commits.push(Commit { from, next, added, columns: columns.clone() });
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

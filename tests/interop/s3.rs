//! Tables of both formats in an object store, from real Kafka, read back by every engine that can.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::process::{FirnProcess, catch_up, firn};
use crate::rows::{NULL, assert_same_rows};
use crate::scenario::{COLUMNS, Scenario};
use crate::stack::{Catalog, Stack};
use crate::{long, wanted};

/// A table of a pipeline: its catalog, `lake` for Iceberg and `delta` for Delta, and what else is said about it.
pub const ICEBERG: &str = "{catalog: lake, name: TABLE, format_version: 3}";
/// The same, of Delta.
pub const DELTA: &str = "{catalog: delta, name: TABLE}";

/// A scenario whose tables are in the object store.
pub fn scenario(stem: &str, partitions: i32) -> Scenario {
    Scenario::new(stem, Catalog::Sqlite, partitions)
}

/// A `firn.yaml` whose catalogs are in the object store at `url`; `TABLE` in `tables` is the scenario's table.
pub fn config(scenario: &Scenario, url: &str, tables: &[&str]) -> PathBuf {
    let (stack, topic) = (scenario.stack, &scenario.topic);
    let (bucket, properties) = (&stack.s3.bucket, stack.s3.properties(url));
    let tables = tables.join(", ").replace("TABLE", &scenario.table());
    let text = format!(
        "kafka: {{brokers: \"{}\"}}\nschema_registry: {{url: \"{}\"}}\ncatalogs:\n\
         \x20 lake: {{type: iceberg-sql, uri: \"sqlite:{}\", warehouse: \"s3://{bucket}/iceberg\", properties: {{{properties}}}}}\n\
         \x20 delta: {{type: delta, warehouse: \"s3://{bucket}/delta\", properties: {{{properties}}}}}\n\
         pipelines:\n  {topic}:\n    topics: [{topic}]\n    key: [id]\n    commit: {{interval: 500ms}}\n    tables: [{tables}]\n\
         state_dir: ./state\n",
        stack.kafka.plaintext,
        stack.registry.url,
        stack.sqlite.display(),
    );
    let path = scenario.dir.path().join("firn.yaml");
    std::fs::write(&path, text).unwrap();
    path
}

/// Where the scenario's Delta table is.
pub fn delta_location(scenario: &Scenario) -> String {
    format!("s3://{}/delta/{}", scenario.stack.s3.bucket, scenario.table().replacen('.', "/", 1))
}

/// Makes the Delta table known to Trino; its name there.
pub fn register(scenario: &Scenario) -> String {
    let (trino, bucket) = (&scenario.stack.trino_delta, &scenario.stack.s3.bucket);
    trino.query(&format!("CREATE SCHEMA IF NOT EXISTS delta.market WITH (location = 's3://{bucket}/delta/market')"));
    let (name, location) = (scenario.table().replacen("market.", "", 1), delta_location(scenario));
    trino.query(&format!("CALL delta.system.register_table('market', '{name}', '{location}')"));
    format!("delta.market.{name}")
}

/// A table as `firn sql` reads it, by its full name.
pub fn firn_rows(config: &Path, table: &str) -> Vec<Vec<String>> {
    firn_values(config, table, &COLUMNS.split(", ").collect::<Vec<_>>())
}

/// The same of these columns.
pub fn firn_values(config: &Path, table: &str, columns: &[&str]) -> Vec<Vec<String>> {
    let statement = format!("SELECT * FROM {table}");
    let output = firn(["sql", "-c", &config.display().to_string(), "--format", "json", &statement]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let rows = serde_json::Deserializer::from_str(&text).into_iter::<serde_json::Value>();
    let cell = |value: &serde_json::Value| match value {
        serde_json::Value::Null => NULL.to_owned(),
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Number(n) if n.is_f64() => format!("{:?}", n.as_f64().unwrap()),
        other => other.to_string(),
    };
    let row = |row: &serde_json::Value| columns.iter().map(|column| cell(&row[*column])).collect();
    rows.flat_map(|rows| match rows.unwrap() {
        serde_json::Value::Array(rows) => rows,
        one => vec![one],
    })
    .map(|value| row(&value))
    .collect()
}

/// The Delta table as deltalake reads it.
pub fn deltalake_rows(scenario: &Scenario) -> Vec<Vec<String>> {
    let request = json!({"op": "rows", "columns": COLUMNS});
    serde_json::from_value(scenario.stack.deltalake(&delta_location(scenario), request)).unwrap()
}

/// The Delta table as Trino reads it, by the name that [`register`] gave.
pub fn trino_delta_rows(scenario: &Scenario, name: &str) -> Vec<Vec<String>> {
    scenario.stack.trino_delta.query(&format!("SELECT {COLUMNS} FROM {name}"))
}

/// The Iceberg table as pyiceberg reads it.
fn pyiceberg_rows(scenario: &Scenario) -> Vec<Vec<String>> {
    let s3 = &scenario.stack.s3;
    let mut properties = scenario.stack.pyiceberg_catalog(Catalog::Sqlite);
    for (name, value) in [
        ("s3.endpoint", &s3.url),
        ("s3.access-key-id", &s3.key),
        ("s3.secret-access-key", &s3.secret),
        ("s3.region", &"us-east-1".to_owned()),
    ] {
        properties.push((name.to_owned(), value.clone()));
    }
    let all = scenario.stack.pyiceberg_rows(&properties, &scenario.table(), None);
    all.into_iter().map(|row| row.into_iter().take(4).collect()).collect()
}

/// Every engine reads the Iceberg table's rows.
#[track_caller]
pub fn iceberg_is_right(scenario: &Scenario, config: &Path) {
    let expected = scenario.expected();
    assert_same_rows(&scenario.trino(), &expected);
    assert_same_rows(&pyiceberg_rows(scenario), &expected);
    assert_same_rows(&firn_rows(config, &format!("lake.{}", scenario.table())), &expected);
}

/// Every engine reads the Delta table's rows.
#[track_caller]
pub fn delta_is_right(scenario: &Scenario, config: &Path, in_trino: &str) {
    let expected = scenario.expected();
    assert_same_rows(&trino_delta_rows(scenario, in_trino), &expected);
    assert_same_rows(&deltalake_rows(scenario), &expected);
    assert_same_rows(&firn_rows(config, &format!("delta.{}", scenario.table())), &expected);
}

#[test]
fn one_stream_into_both_formats_on_s3_is_read_alike_by_every_engine() {
    if !wanted() {
        return;
    }
    let mut scenario = scenario("both", 4);
    let config = config(&scenario, &Stack::get().s3.url, &[ICEBERG, DELTA]);
    scenario.produce(2_000, 500);
    catch_up(&config);
    let in_trino = register(&scenario);
    for _ in 0..2 {
        iceberg_is_right(&scenario, &config);
        delta_is_right(&scenario, &config, &in_trino);
        scenario.produce(2_000, 500);
        catch_up(&config);
    }
    iceberg_is_right(&scenario, &config);
    delta_is_right(&scenario, &config, &in_trino);
    let deletes =
        Stack::get().trino_delta.query(&format!("SELECT count(*) FROM {in_trino} WHERE \"$path\" LIKE 's3://%'"));
    assert_eq!(deletes[0][0], scenario.expected().len().to_string(), "paths are spelled as Trino spells them");
}

#[test]
fn iceberg_format_2_on_s3_is_read_alike() {
    if !wanted() {
        return;
    }
    let mut scenario = scenario("two", 2);
    let config = config(&scenario, &Stack::get().s3.url, &["{catalog: lake, name: TABLE, format_version: 2}"]);
    for _ in 0..2 {
        scenario.produce(1_000, 300);
        catch_up(&config);
        iceberg_is_right(&scenario, &config);
    }
}

/// kill -9 at any moment, over and over, on tables of both formats: a crash between the two commits heals.
#[test]
fn survives_kill_9_on_s3() {
    if !wanted() {
        return;
    }
    let kills = if long("45 of 50 kills on S3") { 50 } else { 5 };
    let mut scenario = scenario("s3kills", 4);
    let config = config(&scenario, &Stack::get().s3.url, &[ICEBERG, DELTA]);
    scenario.produce(1_000, 400);
    let mut counted = 0;
    for round in 0..kills * 3 {
        scenario.produce(300, 400);
        let mut process = FirnProcess::run(&config, &[]);
        process.wait_for_stderr("commit written", Duration::from_secs(90));
        scenario.produce(300, 400);
        std::thread::sleep(Duration::from_millis(83 * (round as u64 % 13)));
        if process.kill_9() {
            counted += 1;
        }
        if counted == kills {
            break;
        }
    }
    assert_eq!(counted, kills);
    catch_up(&config);
    let in_trino = register(&scenario);
    iceberg_is_right(&scenario, &config);
    delta_is_right(&scenario, &config, &in_trino);
}

/// Two members commit to one Delta table: each version is one's alone, and whoever comes second follows the other.
#[test]
fn two_members_commit_to_one_delta_table_on_s3() {
    if !wanted() {
        return;
    }
    let mut scenario = scenario("members", 4);
    let config = config(&scenario, &Stack::get().s3.url, &[DELTA]);
    let other = scenario.dir.path().join("other").join("firn.yaml");
    std::fs::create_dir(other.parent().unwrap()).unwrap();
    std::fs::copy(&config, &other).unwrap();
    let mut members = [FirnProcess::run(&config, &[]), FirnProcess::run(&other, &[])];
    for member in &mut members {
        member.wait_for_stderr("partitions assigned", Duration::from_secs(60));
    }
    let refused = |members: &[FirnProcess]| -> usize {
        members.iter().map(|member| member.stderr().matches("commit refused").count()).sum()
    };
    let end = Instant::now() + Duration::from_secs(90);
    while refused(&members) < 5 {
        assert!(Instant::now() < end, "{} conflicts", refused(&members));
        assert!(members.iter_mut().all(FirnProcess::is_running), "{}{}", members[0].stderr(), members[1].stderr());
        scenario.produce(200, 400);
        std::thread::sleep(Duration::from_millis(100));
    }
    for member in &mut members {
        member.terminate();
        assert_eq!(member.wait(Duration::from_secs(35)).code(), Some(0), "{}", member.stderr());
    }
    catch_up(&config);
    let in_trino = register(&scenario);
    delta_is_right(&scenario, &config, &in_trino);
}

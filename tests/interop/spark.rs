//! Spark as one more reader, in the long mode (`FIRN_INTEROP_LONG=1`): it takes a 500 MB download and half a minute a query.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::process::catch_up;
use crate::rows::{NULL, assert_same_rows};
use crate::s3::firn_rows;
use crate::scenario::{COLUMNS, Scenario};
use crate::stack::{Catalog, Stack};
use crate::{long, wanted};

/// The rows of the last statement.
fn spark(stack: &Stack, statements: &[&str]) -> Vec<Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("compose/native/spark.sh");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&script);
        command.args(arguments).env("FIRN_STACK_RUN", &stack.run).env("FIRN_WAREHOUSE", &stack.warehouse);
        let output = command.stdin(Stdio::null()).output().expect("spark.sh runs");
        assert!(output.status.success(), "spark: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("utf-8")
    };
    run(&["install"]);
    let lines = run(&[&["sql"], statements].concat());
    lines.lines().filter(|line| line.starts_with('{')).map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// As the rows of all engines are written.
fn text(value: &Value) -> String {
    match value {
        Value::Null => NULL.to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => format!("{:?}", number.as_f64().unwrap()),
        other => other.to_string(),
    }
}

fn rows(stack: &Stack, columns: &str, table: &str) -> Vec<Vec<String>> {
    let select = format!("SELECT {columns} FROM {table}");
    let row = |row: &Value| columns.split(", ").map(|column| text(&row[column])).collect();
    spark(stack, &[&select]).iter().map(row).collect()
}

fn upserted(format_version: u8) {
    if !wanted() || !long("Spark") {
        return;
    }
    let mut scenario = Scenario::new("spark", Catalog::Sqlite, 2);
    let config = scenario.config(format_version, "");
    for _ in 0..4 {
        scenario.produce(1_500, 400);
        catch_up(&config);
    }
    let table = format!("lake.{}", scenario.table());
    assert_same_rows(&rows(scenario.stack, COLUMNS, &table), &scenario.expected());

    // What Spark deletes is followed, and Spark reads what comes on top of it.
    spark(scenario.stack, &[&format!("DELETE FROM {table} WHERE id % 7 = 3"), "SELECT 1"]);
    scenario.change(|rows| rows.retain(|id, _| id % 7 != 3));
    scenario.produce(600, 400);
    catch_up(&config);
    assert_same_rows(&rows(scenario.stack, COLUMNS, &table), &scenario.expected());
    assert_same_rows(&scenario.trino(), &scenario.expected());
}

/// A `firn.yaml` whose one table is a Delta table on the local disk; and the table's folder.
fn delta_on_disk(scenario: &Scenario) -> (PathBuf, String) {
    let (stack, topic) = (scenario.stack, &scenario.topic);
    let text = format!(
        "kafka: {{brokers: \"{}\"}}\nschema_registry: {{url: \"{}\"}}\n\
         catalogs: {{delta: {{type: delta, warehouse: ./delta}}}}\n\
         pipelines:\n  {topic}:\n    topics: [{topic}]\n    key: [id]\n    commit: {{interval: 500ms}}\n\
         \x20   tables: [{{catalog: delta, name: {}}}]\nstate_dir: ./state\n",
        stack.kafka.plaintext,
        stack.registry.url,
        scenario.table(),
    );
    let folder = scenario.dir.path();
    let config = folder.join("firn.yaml");
    std::fs::write(&config, text).unwrap();
    (config, folder.join("delta").join(scenario.table().replacen('.', "/", 1)).display().to_string())
}

#[test]
fn spark_reads_and_deletes_from_delta_tables_with_deletion_vectors() {
    if !wanted() || !long("Spark with Delta") {
        return;
    }
    let mut scenario = Scenario::new("sparkdelta", Catalog::Sqlite, 2);
    let (config, folder) = delta_on_disk(&scenario);
    for _ in 0..4 {
        scenario.produce(1_500, 400);
        catch_up(&config);
    }
    let table = format!("delta.`{folder}`");
    let vectors =
        || std::fs::read_dir(&folder).unwrap().any(|f| f.unwrap().path().extension().is_some_and(|e| e == "bin"));
    assert!(vectors(), "there are deletion vectors in {folder}");
    assert_same_rows(&rows(scenario.stack, COLUMNS, &table), &scenario.expected());
    // Spark deletes by vectors on top of ours, and updates; we upsert on top of that, and each reads the other's.
    for round in 0..2 {
        spark(
            scenario.stack,
            &[
                &format!("DELETE FROM {table} WHERE id % 7 = {round}"),
                &format!("UPDATE {table} SET qty = qty + 1000 WHERE id % 5 = {round}"),
                "SELECT 1",
            ],
        );
        scenario.change(|rows| {
            rows.retain(|id, _| id % 7 != round);
            for (_, row) in rows.iter_mut().filter(|(id, _)| *id % 5 == round) {
                row[3] = (row[3].parse::<i64>().unwrap() + 1000).to_string();
            }
        });
        scenario.produce(600, 400);
        catch_up(&config);
        assert_same_rows(&rows(scenario.stack, COLUMNS, &table), &scenario.expected());
        assert_same_rows(&firn_rows(&config, &format!("delta.{}", scenario.table())), &scenario.expected());
    }
}

#[test]
fn spark_reads_and_deletes_upserted_rows_format_2() {
    upserted(2);
}

#[test]
fn spark_reads_and_deletes_upserted_rows_format_3() {
    upserted(3);
}

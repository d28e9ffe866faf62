//! Spark as one more reader, in the long mode (`FIRN_INTEROP_LONG=1`): it takes a 500 MB download and half a minute a query.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::process::catch_up;
use crate::rows::{NULL, assert_same_rows};
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

#[test]
fn spark_reads_and_deletes_upserted_rows_format_2() {
    upserted(2);
}

#[test]
fn spark_reads_and_deletes_upserted_rows_format_3() {
    upserted(3);
}

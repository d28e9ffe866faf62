//! Partitioned and sorted tables, and the bounds by which engines leave files out.

use std::path::PathBuf;

use crate::process::catch_up;
use crate::rows::{NULL, assert_same_rows};
use crate::scenario::{COLUMNS, Scenario};
use crate::stack::Catalog;
use crate::wanted;

/// Milliseconds between events: 200 of them cover ten months and a New Year.
const STEP: i64 = 37 * 3_600_000;

fn config(scenario: &Scenario, format_version: u8, partition_by: &str, sort_by: &str) -> PathBuf {
    let path = scenario.config(format_version, "");
    let text = std::fs::read_to_string(&path).unwrap();
    let version = format!("format_version: {format_version}");
    let table = format!("{version}, partition_by: [{partition_by}], sort_by: [{sort_by}]");
    std::fs::write(&path, text.replace(&version, &table)).unwrap();
    path
}

/// A filter on the least and the greatest value of every column, and on null, finds exactly its rows.
fn filters_find_their_rows(scenario: &Scenario, table: &str) {
    let expected = scenario.expected();
    let numeric = |at: usize| at != 1;
    for (at, column) in COLUMNS.split(", ").enumerate() {
        let mut values: Vec<&String> = expected.iter().map(|row| &row[at]).filter(|value| *value != NULL).collect();
        if numeric(at) {
            values.sort_by(|a, b| a.parse::<f64>().unwrap().total_cmp(&b.parse().unwrap()));
        } else {
            values.sort();
        }
        for value in [values[0], values[values.len() / 2], values[values.len() - 1]] {
            let literal = match column {
                "symbol" => format!("'{value}'"),
                "price" => format!("DOUBLE '{value}'"),
                _ => value.clone(),
            };
            let found =
                scenario.stack.trino.query(&format!("SELECT {COLUMNS} FROM {table} WHERE {column} = {literal}"));
            let wanted: Vec<_> = expected.iter().filter(|row| row[at] == *value).cloned().collect();
            assert_same_rows(&found, &wanted);
        }
        let found = scenario.stack.trino.query(&format!("SELECT {COLUMNS} FROM {table} WHERE {column} IS NULL"));
        let wanted: Vec<_> = expected.iter().filter(|row| row[at] == NULL).cloned().collect();
        assert_same_rows(&found, &wanted);
    }
    // of the columns that the fold does not know, the table's own extremes
    for column in ["ts", "side", "_kafka.\"offset\""] {
        for extreme in ["min", "max"] {
            let found = scenario.stack.trino.query(&format!(
                "SELECT count(*) > 0 FROM {table} WHERE {column} = (SELECT {extreme}({column}) FROM {table})"
            ));
            assert_eq!(found, [["true"]], "{extreme} of {column}");
        }
    }
}

fn partitioned(format_version: u8, partition_by: &str) {
    let mut scenario = Scenario::new("partitioned", Catalog::Sqlite, 2);
    scenario.step = STEP;
    let config = config(&scenario, format_version, partition_by, "symbol");
    // later values of a key are of another partition: the old row has to go
    for _ in 0..3 {
        scenario.produce(70, 40);
        catch_up(&config);
        assert_same_rows(&scenario.trino(), &scenario.expected());
    }
    assert_same_rows(&scenario.pyiceberg(), &scenario.expected());
    let sql = format!(
        "SELECT count(DISTINCT partition) > 1 FROM {}.\"{}$files\"",
        scenario.trino_table().rsplit_once('.').unwrap().0,
        scenario.table().rsplit_once('.').unwrap().1
    );
    assert_eq!(scenario.stack.trino.query(&sql), [["true"]], "{partition_by}");
    filters_find_their_rows(&scenario, &scenario.trino_table());
}

#[test]
fn partitions_by_value_bucket_and_truncated_value() {
    if wanted() {
        partitioned(3, "symbol");
        partitioned(2, "\"bucket(4, id)\"");
        partitioned(3, "\"truncate(2, symbol)\"");
    }
}

#[test]
fn partitions_by_year_and_month() {
    if wanted() {
        partitioned(2, "\"year(ts)\"");
        partitioned(3, "\"month(ts)\"");
    }
}

#[test]
fn partitions_by_day_and_hour() {
    if wanted() {
        partitioned(2, "\"day(ts)\"");
        partitioned(3, "\"hour(ts)\"");
    }
}

#[test]
fn partitions_by_several_fields() {
    if wanted() {
        partitioned(3, "\"month(ts)\", \"bucket(2, id)\"");
    }
}

#[test]
fn a_filter_at_the_bounds_of_every_column_finds_its_rows() {
    if !wanted() {
        return;
    }
    for format_version in [2, 3] {
        let mut scenario = Scenario::new("bounds", Catalog::Sqlite, 2);
        let config = config(&scenario, format_version, "", "symbol, id");
        for _ in 0..3 {
            scenario.produce(2_000, 900);
            catch_up(&config);
        }
        let table = scenario.trino_table();
        filters_find_their_rows(&scenario, &table);
        filters_find_their_rows(&scenario, &table.replacen("sqlite.", "sqlite_no_page_index.", 1));
    }
}

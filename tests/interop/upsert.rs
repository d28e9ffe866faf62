//! Upserts from real Kafka into real catalogs, read back by Trino and pyiceberg.

use std::time::Duration;

use crate::process::{FirnProcess, firn};
use crate::rows::assert_same_rows;
use crate::scenario::Scenario;
use crate::stack::Catalog;
use crate::{long, wanted};

const LIMIT: Duration = Duration::from_secs(90);

fn catch_up(config: &std::path::Path) {
    let output = firn(["run", "-c", &config.display().to_string(), "--until-caught-up"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn upserts_are_read_back(catalog: Catalog, format_version: u8) {
    let mut scenario = Scenario::new("upserts", catalog, 4);
    let config = scenario.config(format_version, "");
    for _ in 0..3 {
        scenario.produce(4_000, 700);
        catch_up(&config);
        assert_same_rows(&scenario.trino(), &scenario.expected());
        assert_same_rows(&scenario.pyiceberg(), &scenario.expected());
    }
}

#[test]
fn upserts_into_a_sqlite_catalog_format_3() {
    if wanted() {
        upserts_are_read_back(Catalog::Sqlite, 3);
    }
}

#[test]
fn upserts_into_a_sqlite_catalog_format_2() {
    if wanted() {
        upserts_are_read_back(Catalog::Sqlite, 2);
    }
}

#[test]
fn upserts_into_a_postgres_catalog() {
    if wanted() {
        upserts_are_read_back(Catalog::Postgres, 3);
    }
}

#[test]
fn upserts_into_a_rest_catalog() {
    if wanted() {
        upserts_are_read_back(Catalog::Rest, 3);
    }
}

/// kill -9 at any moment, over and over, counting a kill only when that process had committed.
fn survives_kills(format_version: u8) {
    let kills = if long("20 of 30 kills") { 30 } else { 10 };
    let mut scenario = Scenario::new("kills", Catalog::Sqlite, 4);
    let config = scenario.config(format_version, "");
    scenario.produce(2_000, 500);
    let mut counted = 0;
    for round in 0..kills * 3 {
        scenario.produce(500, 500);
        let mut process = FirnProcess::run(&config, &[]);
        process.wait_for_stderr("commit written", LIMIT);
        scenario.produce(500, 500);
        std::thread::sleep(Duration::from_millis(97 * (round as u64 % 13)));
        if process.kill_9() {
            counted += 1;
        }
        if counted == kills {
            break;
        }
    }
    assert_eq!(counted, kills);
    catch_up(&config);
    assert_same_rows(&scenario.trino(), &scenario.expected());
    assert_same_rows(&scenario.pyiceberg(), &scenario.expected());
}

#[test]
fn survives_kill_9_on_format_3() {
    if wanted() {
        survives_kills(3);
    }
}

#[test]
fn survives_kill_9_on_format_2() {
    if wanted() {
        survives_kills(2);
    }
}

//! Somebody else writes to the table as well: Trino deletes, updates, inserts and rewrites, pyiceberg expires snapshots.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::process::{FirnProcess, catch_up, until_caught_up};
use crate::rows::assert_same_rows;
use crate::scenario::Scenario;
use crate::stack::Catalog;
use crate::wanted;

const LIMIT: Duration = Duration::from_secs(60);

/// A row of the scenario's table as Trino inserts it.
fn insert(scenario: &Scenario, id: i64) {
    scenario.stack.trino.query(&format!(
        "INSERT INTO {} (id, symbol, price, qty, ts, side) VALUES ({id}, 'FOREIGN', 1.5, 42, \
         TIMESTAMP '2026-01-01 00:00:00.000000 UTC', 'BUY')",
        scenario.trino_table()
    ));
}

fn foreign_row(id: i64) -> Vec<String> {
    [&id.to_string(), "FOREIGN", "1.5", "42"].map(str::to_owned).to_vec()
}

fn same_everywhere(scenario: &Scenario, more: &[Vec<String>]) {
    let mut expected = scenario.expected();
    expected.extend_from_slice(more);
    assert_same_rows(&scenario.trino(), &expected);
    assert_same_rows(&scenario.pyiceberg(), &expected);
}

fn foreign_writes_between_runs(catalog: Catalog, format_version: u8) {
    let mut scenario = Scenario::new("foreign", catalog, 2);
    let config = scenario.config(format_version, "");
    let (trino, table) = (&scenario.stack.trino, scenario.trino_table());
    scenario.produce(1_500, 200);
    catch_up(&config);

    trino.query(&format!("DELETE FROM {table} WHERE id % 5 = 0"));
    scenario.change(|rows| rows.retain(|id, _| id % 5 != 0));
    same_everywhere(&scenario, &[]);
    scenario.produce(100, 200);
    catch_up(&config);
    same_everywhere(&scenario, &[]);

    trino.query(&format!("UPDATE {table} SET qty = 7777 WHERE id % 7 = 0"));
    scenario.change(|rows| {
        rows.iter_mut().filter(|(id, _)| *id % 7 == 0).for_each(|(_, row)| row[3] = "7777".into());
    });
    scenario.produce(100, 200);
    catch_up(&config);
    same_everywhere(&scenario, &[]);

    // rows of the same keys, and one of a new key: all of them are superseded by the next event
    let record = scenario.event_of(12, 0);
    scenario.send(&[record]);
    catch_up(&config);
    insert(&scenario, 12);
    insert(&scenario, 12);
    insert(&scenario, 90_000);
    same_everywhere(&scenario, &[foreign_row(12), foreign_row(12), foreign_row(90_000)]);
    let mut records = scenario.events(50, 12);
    records.push(scenario.event_of(12, 0));
    records.push(scenario.event_of(90_000, 0));
    scenario.send(&records);
    catch_up(&config);
    same_everywhere(&scenario, &[]);
}

#[test]
fn foreign_deletes_updates_and_duplicates_are_superseded_format_2() {
    if wanted() {
        foreign_writes_between_runs(Catalog::Sqlite, 2);
    }
}

#[test]
fn foreign_deletes_updates_and_duplicates_are_superseded_format_3() {
    if wanted() {
        foreign_writes_between_runs(Catalog::Rest, 3);
    }
}

/// Rewrites of all files, between runs.
fn foreign_rewrites(catalog: Catalog, format_version: u8) {
    let mut scenario = Scenario::new("rewritten", catalog, 2);
    let config = scenario.config(format_version, "");
    for _ in 0..3 {
        scenario.produce(800, 200);
        catch_up(&config);
        let statement = format!("ALTER TABLE {} EXECUTE optimize", scenario.trino_table());
        let rewritten = scenario.stack.trino.try_answer(&statement);
        if let Err(message) = &rewritten {
            // Trino says so itself; then there is nothing to follow
            assert!(format_version == 3 && message.contains("not supported"), "{message}");
        }
        same_everywhere(&scenario, &[]);
    }
    scenario.produce(300, 200);
    catch_up(&config);
    same_everywhere(&scenario, &[]);
}

#[test]
fn foreign_compaction_is_followed_format_2() {
    if wanted() {
        foreign_rewrites(Catalog::Postgres, 2);
    }
}

#[test]
fn foreign_compaction_is_followed_format_3() {
    if wanted() {
        foreign_rewrites(Catalog::Sqlite, 3);
    }
}

const EXPIRE: &str = "import json, pathlib, sys\n\
    from datetime import datetime, timedelta\n\
    from pyiceberg.catalog import load_catalog\n\
    request = json.load(sys.stdin)\n\
    table = load_catalog('lake', **request['catalog']).load_table(request['table'])\n\
    table.maintenance.expire_snapshots().older_than(datetime.now() + timedelta(days=1)).commit()\n\
    table.refresh()\n\
    if request['forget']:\n\
    \x20   for entry in table.metadata.metadata_log:\n\
    \x20       pathlib.Path(entry.metadata_file.removeprefix('file://')).unlink(missing_ok=True)\n\
    print(len(table.metadata.snapshots))\n";

/// Everything but the current snapshot goes, and with `forget` the older metadata files too; how many snapshots are left.
fn expire(scenario: &Scenario, forget: bool) -> usize {
    let script = scenario.dir.path().join("expire.py");
    std::fs::write(&script, EXPIRE).unwrap();
    let properties: BTreeMap<_, _> = scenario.stack.pyiceberg_catalog(scenario.catalog).into_iter().collect();
    let request = serde_json::json!({"catalog": properties, "table": scenario.table(), "forget": forget}).to_string();
    scenario.stack.python_lines(&script, &request).trim().parse().unwrap()
}

#[test]
fn the_position_survives_expired_snapshots_or_a_person_decides() {
    if !wanted() {
        return;
    }
    let mut scenario = Scenario::new("expired", Catalog::Sqlite, 2);
    let config = scenario.config(2, "");
    for _ in 0..2 {
        for _ in 0..2 {
            scenario.produce(300, 200);
            catch_up(&config);
        }
        assert_eq!(expire(&scenario, false), 1);
        same_everywhere(&scenario, &[]);
    }
    scenario.produce(300, 200);
    catch_up(&config);
    same_everywhere(&scenario, &[]);

    // The only snapshot left is somebody else's, and pyiceberg takes its parent's id away: what the older metadata files
    // say of it proves the position.
    insert(&scenario, 50_000);
    assert_eq!(expire(&scenario, false), 1);
    scenario.produce(300, 200);
    catch_up(&config);
    same_everywhere(&scenario, &[foreign_row(50_000)]);

    // Without those nothing does.
    insert(&scenario, 50_001);
    assert_eq!(expire(&scenario, true), 1);
    let before = scenario.expected();
    scenario.produce(300, 200);
    let (code, stderr) = until_caught_up(&config, LIMIT);
    assert_eq!(code, 4, "{stderr}");
    assert!(stderr.contains("firn.offsets") && stderr.contains("offsets set"), "{stderr}");
    let mut untouched = before;
    untouched.extend([50_000, 50_001].map(foreign_row));
    assert_same_rows(&scenario.trino(), &untouched);
}

/// Trino's statements while Firn commits; what conflicts on Trino's side is Trino's to try again.
fn foreign_writes_while_running(format_version: u8) {
    let mut scenario = Scenario::new("meanwhile", Catalog::Sqlite, 2);
    let config = scenario.config(format_version, "");
    scenario.produce(500, 200);
    let mut process = FirnProcess::run(&config, &[]);
    process.wait_for_stderr("commit written", LIMIT);
    let (trino, table) = (&scenario.stack.trino, scenario.trino_table());
    let statements = [
        // touches nothing that events touch, but adds snapshots, files and deletes
        format!(
            "INSERT INTO {table} (id, symbol, price, qty, ts, side) SELECT 100000 + n, 'FOREIGN', 1.5, 42, TIMESTAMP '2026-01-01 00:00:00.000000 UTC', 'BUY' FROM UNNEST(sequence(1, 20)) AS t(n)"
        ),
        format!("DELETE FROM {table} WHERE id BETWEEN 100001 AND 100010"),
        format!("UPDATE {table} SET qty = 43 WHERE id BETWEEN 100011 AND 100015"),
        format!("ALTER TABLE {table} EXECUTE optimize"),
    ];
    let mut done = [false; 4];
    for (number, statement) in statements.iter().enumerate() {
        // a statement that loses against the live commits is tried again
        for _ in 0..15 {
            scenario.produce(40, 200);
            match trino.try_answer(statement) {
                Ok(_) => {
                    done[number] = true;
                    break;
                }
                Err(message) => println!("trino: {message}"),
            }
            let pause = Instant::now() + Duration::from_millis(700);
            while Instant::now() < pause {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        assert!(process.is_running(), "{}", process.stderr());
    }
    println!("format {format_version}: statements that came through: {done:?}");
    scenario.produce(300, 200);
    process.terminate();
    assert_eq!(process.wait(Duration::from_secs(35)).code(), Some(0), "{}", process.stderr());
    catch_up(&config);
    assert!(done[0], "nothing foreign came through");
    let mut foreign = Vec::new();
    for id in 100_001..=100_020 {
        let mut row = foreign_row(id);
        if done[1] && id <= 100_010 {
            continue;
        }
        if done[2] && (100_011..=100_015).contains(&id) {
            row[3] = "43".into();
        }
        foreign.push(row);
    }
    same_everywhere(&scenario, &foreign);
}

#[test]
fn foreign_writes_while_firn_runs_format_2() {
    if wanted() {
        foreign_writes_while_running(2);
    }
}

#[test]
fn foreign_writes_while_firn_runs_format_3() {
    if wanted() {
        foreign_writes_while_running(3);
    }
}

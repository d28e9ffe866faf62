//! Two processes of one pipeline: each owns partitions and commits by itself, and one may come, go or die at any time.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::process::{FirnProcess, catch_up, eventually};
use crate::rows::assert_same_rows;
use crate::scenario::Scenario;
use crate::stack::Catalog;
use crate::wanted;

const LIMIT: Duration = Duration::from_secs(60);
/// What is promised is 15 s; the rest is for a machine that runs all tests at once, and more besides.
const RESUMES_WITHIN: Duration = Duration::from_secs(45);

/// Produces a little again and again while time passes, as a live topic does.
fn live(scenario: &mut Scenario, seconds: u64) {
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        scenario.produce(200, 400);
        std::thread::sleep(Duration::from_millis(150));
    }
}

/// As [`live`], until a process has said `text` `times` times.
fn live_until(scenario: &mut Scenario, process: &mut FirnProcess, text: &str, times: usize) {
    let end = Instant::now() + LIMIT;
    while process.stderr().matches(text).count() < times {
        assert!(process.is_running(), "it ended without saying {text:?}:\n{}", process.stderr());
        assert!(Instant::now() < end, "no {text:?}; stderr so far:\n{}", process.stderr());
        scenario.produce(200, 400);
        std::thread::sleep(Duration::from_millis(150));
    }
}

fn stop(process: &mut FirnProcess) {
    process.terminate();
    let status = process.wait(Duration::from_secs(35));
    assert_eq!(status.code(), Some(0), "{}", process.stderr());
}

/// How many partitions the newest assignment of a process holds, as its log says it.
fn assigned(process: &FirnProcess) -> usize {
    let text = process.stderr();
    let line = text.lines().rev().find(|line| line.contains("partitions assigned"));
    line.map_or(0, |line| line.matches('/').count().max(line.matches("\", \"").count() + 1))
}

/// Where each row came from: what an append-only table must hold exactly once.
fn positions(scenario: &Scenario) -> (Vec<Vec<String>>, Vec<Vec<String>>) {
    let table = format!("{}.{}", scenario.catalog.name(), scenario.table());
    let rows = scenario.stack.trino.query(&format!("SELECT _kafka.\"partition\", _kafka.\"offset\" FROM {table}"));
    let records = scenario.stack.kafka.consume(&scenario.topic).into_iter().filter(|r| r.record.value.is_some());
    let expected = records.map(|r| vec![r.record.partition.to_string(), r.offset.to_string()]).collect();
    (rows, expected)
}

fn config(scenario: &Scenario, mode: &str) -> PathBuf {
    let path = scenario.config(3, mode);
    let text = std::fs::read_to_string(&path).unwrap();
    let text = if mode.contains("append") { text.replace("    key: [id]\n", "") } else { text };
    std::fs::write(&path, text).unwrap();
    path
}

fn holds_exactly(scenario: &Scenario, mode: &str) {
    if mode.contains("append") {
        let (rows, expected) = positions(scenario);
        assert_same_rows(&rows, &expected);
    } else {
        assert_same_rows(&scenario.trino(), &scenario.expected());
        assert_same_rows(&scenario.pyiceberg(), &scenario.expected());
    }
}

fn one_joins_one_leaves_one_dies(mode: &str) {
    let mut scenario = Scenario::new("sharing", Catalog::Sqlite, 4);
    let config = config(&scenario, mode);
    scenario.produce(1_000, 400);
    let mut first = FirnProcess::run(&config, &[]);
    live_until(&mut scenario, &mut first, "commit written", 1);

    // one more: both own partitions and both commit
    let mut second = FirnProcess::run(&config, &[]);
    live_until(&mut scenario, &mut second, "commit written", 2);
    let before = first.stderr().matches("commit written").count();
    live_until(&mut scenario, &mut first, "commit written", before + 2);
    assert!(first.stderr().contains("partitions revoked"), "{}", first.stderr());

    // one leaves in order
    stop(&mut second);
    live(&mut scenario, 2);

    // another one comes, and the first dies
    let mut third = FirnProcess::run(&config, &[]);
    live_until(&mut scenario, &mut third, "commit written", 2);
    live(&mut scenario, 1);
    assert!(first.kill_9());
    let died = Instant::now();
    let takes = third.stderr().matches("partitions assigned").count() + 1;
    live_until(&mut scenario, &mut third, "partitions assigned", takes);
    let assigned_after = died.elapsed();
    let before = third.stderr().matches("commit written").count();
    live_until(&mut scenario, &mut third, "commit written", before + 2);
    let resumed = died.elapsed();
    println!("after kill -9: partitions taken over in {assigned_after:.1?}, committed in {resumed:.1?}");
    assert!(resumed < RESUMES_WITHIN, "work resumed {resumed:?} after kill -9");

    stop(&mut third);
    catch_up(&config);
    holds_exactly(&scenario, mode);
}

#[test]
fn two_processes_share_a_pipeline_while_one_joins_leaves_or_dies() {
    if wanted() {
        one_joins_one_leaves_one_dies("");
    }
}

#[test]
fn two_processes_append_each_event_once_while_one_joins_leaves_or_dies() {
    if wanted() {
        one_joins_one_leaves_one_dies("    mode: append\n");
    }
}

/// An owner that is stopped past its session, while another one takes over, and then wakes up with uncommitted rows.
fn a_zombie(mode: &str) {
    let mut scenario = Scenario::new("zombie", Catalog::Sqlite, 4);
    let path = config(&scenario, mode);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("properties: {}", "properties: {session.timeout.ms: 6000}")).unwrap();
    scenario.produce(1_000, 400);
    let mut zombie = FirnProcess::run(&path, &[]);
    live_until(&mut scenario, &mut zombie, "commit written", 2);
    let mut other = FirnProcess::run(&path, &[]);
    for round in 0..2 {
        let before = other.stderr().matches("commit written").count();
        live_until(&mut scenario, &mut other, "commit written", before + 2);
        // with something read and not committed
        scenario.produce(300, 400);
        std::thread::sleep(Duration::from_millis(200));
        zombie.signal(libc::SIGSTOP);
        let takes = other.stderr().matches("partitions assigned").count() + 1;
        live_until(&mut scenario, &mut other, "partitions assigned", takes);
        let before = other.stderr().matches("commit written").count();
        live_until(&mut scenario, &mut other, "commit written", before + 2);
        zombie.signal(libc::SIGCONT);
        let takes = zombie.stderr().matches("partitions assigned").count() + 1;
        live_until(&mut scenario, &mut zombie, "partitions assigned", takes);
        println!("zombie round {round}: it owns {} partitions again", assigned(&zombie));
        live(&mut scenario, 1);
    }
    stop(&mut zombie);
    stop(&mut other);
    catch_up(&path);
    holds_exactly(&scenario, mode);
}

#[test]
fn a_zombie_that_wakes_up_commits_nothing_twice() {
    if wanted() {
        a_zombie("");
    }
}

#[test]
fn a_zombie_that_wakes_up_appends_nothing_twice() {
    if wanted() {
        a_zombie("    mode: append\n");
    }
}

/// Both stop and a fresh one goes on from the table, whatever the saved indexes of the others say.
#[test]
fn processes_that_share_a_state_folder_do_not_mislead_each_other() {
    if !wanted() {
        return;
    }
    let mut scenario = Scenario::new("statedir", Catalog::Postgres, 4);
    let config = config(&scenario, "");
    scenario.produce(2_000, 400);
    for _ in 0..2 {
        let mut both = [FirnProcess::run(&config, &[]), FirnProcess::run(&config, &[])];
        for process in &mut both {
            live_until(&mut scenario, process, "commit written", 1);
        }
        both.iter().for_each(FirnProcess::terminate);
        for process in &mut both {
            assert_eq!(process.wait(Duration::from_secs(35)).code(), Some(0), "{}", process.stderr());
        }
    }
    scenario.produce(500, 400);
    catch_up(&config);
    let expected = scenario.expected();
    eventually("trino sees the table", LIMIT, || scenario.trino().len() == expected.len());
    assert_same_rows(&scenario.trino(), &expected);
}

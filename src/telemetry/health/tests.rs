use super::*;

const TABLES: [&str; 2] = ["lake.m.t", "delta.m.t"];

fn health() -> Health {
    let mut health = Health::default();
    health.expect("p", &TABLES.map(str::to_owned));
    health.starting("p");
    health
}

fn ready() -> Health {
    let mut health = health();
    TABLES.iter().for_each(|table| health.loaded("p", table));
    health
}

fn table(name: &str) -> Task {
    Task::of(Dependency::Table, name)
}

/// Each reason as `dependency subject since: error`.
fn told(health: &Health, now_ms: i64) -> Vec<String> {
    let one = |r: Reason| {
        let task = r.task.map(|task| task.to_string()).unwrap_or_default();
        format!("{task} {}: {}", r.since_ms.map_or("-".into(), |ms| ms.to_string()), r.error)
    };
    health.reasons(now_ms).into_iter().map(one).collect()
}

#[test]
fn nobody_is_ready_before_the_position_of_every_table_is_known() {
    let mut health = health();
    assert_eq!(told(&health, 0).len(), 2);
    health.loaded("p", TABLES[0]);
    assert_eq!(told(&health, 0), ["table delta.m.t -: its position in the log is not loaded yet"]);
    health.loaded("p", TABLES[1]);
    assert!(told(&health, 0).is_empty());
    // Again at every new start.
    health.starting("p");
    assert_eq!(told(&health, 0).len(), 2);
}

#[test]
fn what_fails_is_named_since_its_first_try_until_it_is_answered() {
    let mut health = ready();
    health.began("p", &table("lake.m.t"), 100);
    assert!(told(&health, 100).is_empty(), "a request under way is no stall");
    health.failed("p", &table("lake.m.t"), "503".into(), 250);
    health.began("p", &table("lake.m.t"), 300);
    health.failed("p", &table("lake.m.t"), "504".into(), 400);
    assert_eq!(told(&health, 500), ["table lake.m.t 100: 504"]);
    health.answered("p", &table("delta.m.t"));
    assert_eq!(told(&health, 500).len(), 1, "another's answer does not count");
    health.answered("p", &table("lake.m.t"));
    assert!(told(&health, 500).is_empty());
    health.failed("p", &table("lake.m.t"), "503".into(), 900);
    assert_eq!(told(&health, 900), ["table lake.m.t 900: 503"], "a new outage has its own beginning");
}

#[test]
fn silence_is_a_stall_after_a_while() {
    let mut health = ready();
    let letters = Task::only(Dependency::DeadLetters);
    health.began("p", &letters, 1_000);
    assert!(told(&health, 1_000 + SILENT_MS - 1).is_empty());
    assert_eq!(told(&health, 1_000 + SILENT_MS), ["dead letters 1000: no answer yet"]);
    health.answered("p", &letters);
    assert!(told(&health, 1_000 + SILENT_MS).is_empty());
}

#[test]
fn a_new_start_forgets_old_waits_but_not_why_it_was_needed() {
    let mut health = ready();
    health.failed("p", &table("lake.m.t"), "503".into(), 10);
    health.failed("p", &Task::only(Dependency::Pipeline), "the consumer broke".into(), 20);
    health.starting("p");
    let reasons = told(&health, 30);
    assert_eq!(reasons[0], "pipeline 20: the consumer broke");
    assert_eq!(reasons.len(), 3, "{reasons:?}");
    TABLES.iter().for_each(|table| health.loaded("p", table));
    assert!(told(&health, 30).is_empty());
}

#[test]
fn one_pipeline_that_stopped_is_told_of_and_one_that_is_done_is_not() {
    let mut health = ready();
    health.expect("q", &["lake.m.u".to_owned()]);
    health.failed("q", &table("lake.m.u"), "503".into(), 5);
    health.ended("q", Some("a person has to decide".into()), 7);
    assert_eq!(told(&health, 9), [" 7: the pipeline has stopped: a person has to decide"]);
    health.ended("q", None, 7);
    assert!(told(&health, 9).is_empty());
    health.stopping();
    assert_eq!(told(&health, 9), [" -: the process is stopping"]);
}

#[test]
fn every_task_ever_begun_has_its_stalled_time() {
    let mut health = ready();
    health.began("p", &table("lake.m.t"), 0);
    health.answered("p", &table("lake.m.t"));
    health.failed("p", &Task::only(Dependency::Broker), "down".into(), 2_000);
    let stalled: Vec<_> = health.stalled(5_000).map(|(p, task, ms)| (p, task.to_string(), ms)).collect();
    let expected = [("p", "broker", 3_000), ("p", "table lake.m.t", 0), ("p", "pipeline", 0)];
    assert_eq!(stalled, expected.map(|(p, task, ms)| (p, task.to_owned(), ms)));
}

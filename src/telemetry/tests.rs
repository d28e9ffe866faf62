use super::*;

fn telemetry(secrets: &[&str]) -> Arc<Telemetry> {
    let secrets = secrets.iter().map(|s| SecretString::from(*s)).collect();
    Arc::new(Telemetry::new(secrets).unwrap())
}

/// The line of a metric, without its name and labels.
fn value<'t>(text: &'t str, metric: &str) -> Option<&'t str> {
    text.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '))
}

#[test]
fn every_metric_of_the_design_has_its_name() {
    let telemetry = telemetry(&[]);
    let pipeline = telemetry.pipeline("p", &["lake.m.t".into()]);
    pipeline.landed("lake.m.t", &Landed { events: 5, appended: 4, superseded: 2, seconds: Some(0.2) });
    pipeline.rejected("truncated", 3);
    pipeline.cut_times(4);
    pipeline.lag(&[(("t".into(), 0), 7)].into());
    pipeline.failed(&Task::of(Dependency::Table, "lake.m.t"), "503");
    let text = telemetry.scrape();
    let of_table = r#"{pipeline="p",table="lake.m.t"}"#;
    for (metric, labels, expected) in [
        ("firn_events_total", of_table, "5"),
        ("firn_commits_total", of_table, "1"),
        ("firn_commit_seconds_count", of_table, "1"),
        ("firn_commit_lag_seconds", of_table, "0"),
        ("firn_consumer_lag", r#"{partition="0",pipeline="p",topic="t"}"#, "7"),
        ("firn_bad_records_total", r#"{pipeline="p",reason="truncated"}"#, "3"),
        ("firn_truncated_timestamps_total", r#"{pipeline="p"}"#, "4"),
        ("firn_index_keys", of_table, "0"),
        ("firn_ready", "", "0"),
    ] {
        assert_eq!(value(&text, &format!("{metric}{labels}")), Some(expected), "{metric} in\n{text}");
    }
    assert!(text.contains(r#"firn_stalled_seconds{dependency="table",pipeline="p",subject="lake.m.t"} "#), "{text}");
}

#[test]
fn partitions_that_went_to_another_member_have_no_lag_here() {
    let telemetry = telemetry(&[]);
    let pipeline = telemetry.pipeline("p", &[]);
    pipeline.lag(&[(("t".into(), 0), 7), (("t".into(), 1), 8)].into());
    pipeline.lag(&[(("t".into(), 1), 9)].into());
    let text = telemetry.scrape();
    let lag =
        |partition| value(&text, &format!(r#"firn_consumer_lag{{partition="{partition}",pipeline="p",topic="t"}}"#));
    assert_eq!((lag(0), lag(1)), (None, Some("9")));
}

#[test]
fn secrets_are_not_told() {
    let telemetry = telemetry(&["hunter22", "abc"]);
    let pipeline = telemetry.pipeline("p", &[]);
    pipeline.failed(&Task::only(Dependency::Broker), "abc: login with hunter22 failed at hunter22@host");
    assert_eq!(telemetry.reasons()[0].error, "abc: login with *** failed at ***@host");
}

#[test]
fn a_loop_that_does_not_turn_is_named_and_one_that_ended_is_not() {
    let telemetry = telemetry(&[]);
    let pipeline = telemetry.pipeline("p", &[]);
    let (stuck, turns, ended) = (pipeline.beat("a"), pipeline.beat("b"), pipeline.beat("c"));
    for beat in [&stuck, &turns, &ended] {
        beat.last.store(telemetry.now_ms() - STUCK_MS, Ordering::Relaxed);
    }
    turns.turn();
    drop(ended);
    assert_eq!(telemetry.stuck(), ["a of pipeline p has not turned for 60 s"]);
    stuck.turn();
    assert!(telemetry.stuck().is_empty());
}

#[tokio::test]
async fn an_address_that_is_taken_is_said_at_once() {
    let server = Server::start(([127, 0, 0, 1], 0).into(), telemetry(&[])).await.unwrap();
    let taken = Server::start(server.address(), telemetry(&[])).await.unwrap_err();
    assert_eq!(taken.exit_code(), 3);
    assert!(taken.to_string().contains(&format!("{} is in use", server.address())), "{taken}");
    // An address of no machine: reserved for documentation.
    let foreign = Server::start(([192, 0, 2, 1], 9090).into(), telemetry(&[])).await.unwrap_err();
    assert_eq!(foreign.exit_code(), 2, "{foreign}");
    server.stop().await;
}

//! What Kafka can do to a reader: codecs, encryption, authentication, transactions, topics that change.

use std::path::PathBuf;
use std::time::Duration;

use crate::kafka::{Compression, Ending, Properties};
use crate::process::{FirnProcess, catch_up, eventually, until_caught_up};
use crate::rows::{assert_same_rows, difference};
use crate::scenario::Scenario;
use crate::stack::Catalog;
use crate::wanted;

const LIMIT: Duration = Duration::from_secs(100);

/// A file that reaches the broker in this way.
fn config_for(scenario: &Scenario, file: &str, way: &Properties) -> PathBuf {
    let value = |key: &str| way.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone());
    let properties: Vec<_> = way
        .iter()
        .filter(|(key, _)| key != "bootstrap.servers")
        .map(|(key, value)| format!("{key}: \"{value}\""))
        .collect();
    scenario.config_named(file, &value("bootstrap.servers").unwrap(), &properties.join(", "), 3, "")
}

#[test]
fn every_codec_is_read() {
    if !wanted() {
        return;
    }
    let mut scenario = Scenario::new("codecs", Catalog::Sqlite, 2);
    let config = scenario.config(3, "");
    for codec in Compression::ALL {
        let records = scenario.events(500, 300);
        scenario.stack.kafka.produce(&scenario.topic, &records, codec);
    }
    catch_up(&config);
    assert_same_rows(&scenario.trino(), &scenario.expected());
}

#[test]
fn tls_and_every_sasl_mechanism_work() {
    if !wanted() {
        return;
    }
    let mut scenario = Scenario::new("tls", Catalog::Sqlite, 1);
    let kafka = &scenario.stack.kafka;
    let ways = [
        kafka.tls(),
        kafka.sasl_tls("PLAIN"),
        kafka.sasl_tls("SCRAM-SHA-256"),
        kafka.sasl_tls("SCRAM-SHA-512"),
        kafka.sasl("PLAIN"),
        kafka.sasl("SCRAM-SHA-512"),
    ];
    for (number, way) in ways.iter().enumerate() {
        scenario.produce(100, 60);
        catch_up(&config_for(&scenario, &format!("way{number}.yaml"), way));
        assert_same_rows(&scenario.trino(), &scenario.expected());
    }
}

#[test]
fn a_wrong_password_ends_the_start_and_is_not_printed() {
    if !wanted() {
        return;
    }
    let scenario = Scenario::new("password", Catalog::Sqlite, 1);
    let mut way = scenario.stack.kafka.sasl_tls("SCRAM-SHA-512");
    way.retain(|(key, _)| key != "sasl.password");
    way.push(("sasl.password".into(), "not-the-word".into()));
    let (code, stderr) = until_caught_up(&config_for(&scenario, "firn.yaml", &way), LIMIT);
    assert!(matches!(code, 2 | 3), "exit code {code}: {stderr}");
    assert!(stderr.to_lowercase().contains("authentication"), "{stderr}");
    assert!(!stderr.contains("not-the-word"), "{stderr}");
}

#[test]
fn only_committed_transactions_are_read_and_markers_do_not_hold_up_the_end() {
    if !wanted() {
        return;
    }
    let mut scenario = Scenario::new("transactions", Catalog::Sqlite, 2);
    let (config, topic) = (scenario.config(3, ""), scenario.topic.clone());
    let kafka = &scenario.stack.kafka;
    scenario.produce(200, 100);
    let aborted: Vec<_> = (0..50).map(|id| scenario.stray(id, (id % 2) as i32)).collect();
    kafka.transaction(&topic, &aborted, Ending::Abort);
    let committed = scenario.events(100, 100);
    kafka.transaction(&topic, &committed, Ending::Commit);
    // the log ends with records that nobody sees, and their marker
    kafka.transaction(&topic, &aborted, Ending::Abort);
    catch_up(&config);
    assert_same_rows(&scenario.trino(), &scenario.expected());
    // nothing but markers since then
    kafka.transaction(&topic, &aborted, Ending::Abort);
    catch_up(&config);
    assert_same_rows(&scenario.trino(), &scenario.expected());

    let before = scenario.expected();
    let records = scenario.events(50, 100);
    let open = kafka.open_transaction(&topic, &records);
    catch_up(&config);
    assert_same_rows(&scenario.trino(), &before);
    open.end(Ending::Commit);
    catch_up(&config);
    assert_same_rows(&scenario.trino(), &scenario.expected());
    assert_same_rows(&scenario.pyiceberg(), &scenario.expected());
}

#[test]
fn an_empty_topic_and_one_of_markers_only_are_caught_up() {
    if !wanted() {
        return;
    }
    let mut scenario = Scenario::new("idle", Catalog::Sqlite, 2);
    let config = scenario.config(3, "");
    catch_up(&config);
    let aborted = [scenario.stray(1, 0)];
    scenario.stack.kafka.transaction(&scenario.topic, &aborted, Ending::Abort);
    catch_up(&config);
    assert_same_rows(&scenario.trino(), &[]);
    scenario.produce(50, 20);
    catch_up(&config);
    assert_same_rows(&scenario.trino(), &scenario.expected());
}

#[test]
fn partitions_that_are_added_are_read_from_their_first_record() {
    if !wanted() {
        return;
    }
    let mut scenario = Scenario::new("growing", Catalog::Sqlite, 1);
    let quick = "topic.metadata.refresh.interval.ms: 1000";
    let config = scenario.config_named("firn.yaml", &scenario.stack.kafka.plaintext, quick, 3, "");
    scenario.produce(300, 100);
    let mut process = FirnProcess::run(&config, &[]);
    process.wait_for_stderr("commit written", LIMIT);
    scenario.stack.kafka.grow_topic(&scenario.topic, 3);
    let mut records: Vec<_> = (0..300).map(|n| scenario.event_of(1_000 + n % 50, 1 + (n % 50 % 2) as i32)).collect();
    records.extend((0..100).map(|n| scenario.event_of(n % 100, 0)));
    scenario.send(&records);
    let expected = scenario.expected();
    eventually("the new partitions are in", LIMIT, || {
        assert!(process.is_running(), "{}", process.stderr());
        difference(&scenario.trino(), &expected).is_none()
    });
    process.terminate();
    assert_eq!(process.wait(Duration::from_secs(35)).code(), Some(0), "{}", process.stderr());

    // and while nobody was looking
    scenario.stack.kafka.grow_topic(&scenario.topic, 4);
    let records: Vec<_> = (0..100).map(|n| scenario.event_of(2_000 + n % 30, 3)).collect();
    scenario.send(&records);
    catch_up(&config);
    assert_same_rows(&scenario.trino(), &scenario.expected());
}

#[test]
fn records_that_were_deleted_before_they_were_read_need_a_decision() {
    if !wanted() {
        return;
    }
    let mut scenario = Scenario::new("retained", Catalog::Sqlite, 1);
    let config = scenario.config(3, "");
    scenario.produce(500, 100);
    catch_up(&config);
    let before = scenario.expected();
    scenario.produce(500, 100);
    scenario.stack.kafka.delete_records(&scenario.topic, &[(0, 800)]);
    let (code, stderr) = until_caught_up(&config, LIMIT);
    assert_eq!(code, 4, "{stderr}");
    assert!(stderr.contains(&scenario.topic) && stderr.contains("500"), "{stderr}");
    assert_same_rows(&scenario.trino(), &before);
}

#[test]
fn a_topic_that_was_made_anew_needs_a_decision() {
    if !wanted() {
        return;
    }
    let mut scenario = Scenario::new("anew", Catalog::Sqlite, 1);
    let config = scenario.config(3, "");
    scenario.produce(200, 100);
    catch_up(&config);
    let before = scenario.expected();
    scenario.stack.kafka.delete_topic(&scenario.topic);
    scenario.stack.kafka.create_topic(&scenario.topic, 1, &[]);
    scenario.produce(300, 100);
    let (code, stderr) = until_caught_up(&config, LIMIT);
    assert_eq!(code, 4, "{stderr}");
    assert!(stderr.contains(&scenario.topic), "{stderr}");
    assert_same_rows(&scenario.trino(), &before);
}

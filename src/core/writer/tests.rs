use super::*;
use crate::core::history::{Ancestor, History, WalkEnd};
use crate::core::offsets::{Position, Start, TopicPositions};

fn id(partition: i32) -> PartitionId {
    PartitionId { topic: "id-1".into(), partition }
}

fn topology(cluster: &str, topic: &str) -> Event<()> {
    Event::Topics(Topology { cluster: cluster.into(), topics: BTreeMap::from([("orders".into(), topic.into())]) })
}

fn vector(next: i64) -> Vector {
    let position = Position { next, ..Position::at_start(Start { offset: 0, earliest: true }) };
    let topic = TopicPositions { name: "orders".into(), partitions: BTreeMap::from([(0, position)]) };
    Vector { cluster: "c".into(), topics: BTreeMap::from([("id-1".into(), topic)]) }
}

fn view(snapshot: SnapshotId, vector: Vector) -> Box<View> {
    let attempt = Some(format!("other-{snapshot}"));
    let own =
        Ancestor { id: snapshot, parent: None, sequence: snapshot, timestamp_ms: 0, attempt, vector: Some(vector) };
    let history = History { ancestors: vec![own], end: WalkEnd::Root, anchor: None };
    Box::new(View {
        table: "uuid-1".into(),
        snapshot: Some(snapshot),
        sequence: snapshot,
        updated_ms: 0,
        history,
        pipeline: Some("p".into()),
        key: vec!["k".into()],
    })
}

fn loading() -> Writer<()> {
    let mut writer = Writer::new(WriterConfig {
        table: "l.n.t".into(),
        pipeline: "p".into(),
        writer: "w".into(),
        semantics: Semantics::LastWins,
        key_width: KeyWidth::Exact,
        key: vec!["k".into()],
        interval_ms: 10_000,
        max_rows: 100,
        max_bytes: 1 << 20,
        mutants: Mutants::default(),
    });
    let actions = writer.step(topology("c", "id-1"), 0);
    assert!(matches!(actions[..], [Action::Load { .. }]), "{actions:?}");
    writer.step(Event::Assigned(vec![id(0)]), 0);
    writer
}

/// A writer that reads partition 0 of a table whose V is 0.
fn reading() -> Writer<()> {
    let mut writer = loading();
    writer.step(Event::Loaded(view(1, vector(0))), 0);
    writer.step(Event::Followed, 0);
    // The assignment came while the first load was under way.
    writer.step(Event::Loaded(view(1, vector(0))), 0);
    assert_eq!(writer.applied(&id(0)), Some(0));
    writer
}

fn stop(actions: &[Action<()>]) -> &Error {
    match actions {
        [Action::Stop(error)] => error,
        other => panic!("not a stop: {other:?}"),
    }
}

/// INV-6
#[test]
fn a_table_of_another_pipeline_or_with_another_key_is_refused() {
    let mut foreign = view(1, vector(0));
    foreign.pipeline = Some("q".into());
    assert!(matches!(stop(&loading().step(Event::Loaded(foreign), 0)), Error::Config(text) if text.contains(" q")));
    let mut other = view(1, vector(0));
    other.key = vec!["z".into()];
    assert!(matches!(stop(&loading().step(Event::Loaded(other), 0)), Error::Config(text) if text.contains("[z]")));
}

/// INV-3
#[test]
fn a_recreated_topic_and_another_cluster_are_for_a_person_to_decide() {
    let actions = reading().step(topology("c", "id-2"), 0);
    assert!(matches!(stop(&actions), Error::Decision(text) if text.contains("topic orders was deleted")));
    let mut elsewhere = vector(0);
    elsewhere.cluster = "old".into();
    let actions = loading().step(Event::Loaded(view(1, elsewhere)), 0);
    assert!(matches!(stop(&actions), Error::Decision(text) if text.contains("cluster old")));
    // While it runs: brokers without topic ids call a topic of the same name the same thing in every cluster.
    let actions = reading().step(topology("new", "id-1"), 0);
    assert!(matches!(stop(&actions), Error::Decision(text) if text.contains("brokers are cluster new")));
}

#[test]
fn an_idle_writer_looks_at_the_table_each_minute() {
    let mut writer = reading();
    assert!(writer.step(Event::Tick, 59_999).is_empty());
    assert!(matches!(writer.step(Event::Tick, 60_000)[..], [Action::Load { since: Some(1), .. }]));
}

/// INV-5
#[test]
fn a_start_is_not_resolved_again_once_another_process_wrote_events() {
    let mut writer = reading();
    writer.step(Event::Reload, 0);
    assert!(writer.step(Event::OutOfRange(id(0)), 0).is_empty(), "the table is being loaded");
    let mut actions = writer.step(Event::Loaded(view(2, vector(9))), 0);
    actions.extend(writer.step(Event::Followed, 0));
    assert!(!actions.iter().any(|a| matches!(a, Action::ResolveStarts { .. })), "V would go back: {actions:?}");
    assert_eq!(writer.applied(&id(0)), Some(9));
}

/// INV-14: a saved index is followed from its snapshot, and only if it is this table's.
#[test]
fn a_restored_index_of_another_table_is_dropped() {
    for (table, expected) in [("uuid-1", Some(1)), ("uuid-2", None)] {
        let index = KeyIndex::new(KeyWidth::Exact, false);
        let mut writer = loading().with_index(index, [(0, "a".into())], table.into(), 1);
        let actions = writer.step(Event::Loaded(view(2, vector(0))), 0);
        assert!(matches!(actions[..], [Action::Follow { since }] if since == expected), "{table}: {actions:?}");
    }
}

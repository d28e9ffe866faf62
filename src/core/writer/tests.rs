mod columns;
mod commits;
mod pins;
mod reading;

use super::*;
use crate::core::change::Asks;
use crate::core::history::{Ancestor, History, WalkEnd};
use crate::core::offsets::{Position, Start, TopicPositions};
use crate::core::schema::{Field, TableSchema, Type};

fn id(partition: i32) -> PartitionId {
    PartitionId { topic: "id-1".into(), partition }
}

fn topology(cluster: &str, topic: &str) -> Event<()> {
    Event::Topics(Topology { cluster: cluster.into(), topics: BTreeMap::from([("orders".into(), topic.into())]) })
}

fn vector(next: i64) -> Vector {
    vector_at(Position { next, ..Position::at_start(Start { offset: 0, earliest: true }) })
}

fn vector_at(position: Position) -> Vector {
    let topic = TopicPositions { name: "orders".into(), partitions: BTreeMap::from([(0, position)]) };
    Vector { cluster: "c".into(), topics: BTreeMap::from([("id-1".into(), topic)]) }
}

fn ancestor(id: SnapshotId, attempt: Option<String>, vector: Option<Vector>) -> Ancestor {
    Ancestor { id, parent: None, sequence: id, timestamp_ms: 0, attempt, vector }
}

fn view(snapshot: SnapshotId, vector: Vector) -> Box<View> {
    view_of(vec![ancestor(snapshot, Some(format!("other-{snapshot}")), Some(vector))])
}

/// A table with this history, newest first.
fn view_of(ancestors: Vec<Ancestor>) -> Box<View> {
    let snapshot = ancestors.first().map(|newest| newest.id);
    let history = History { ancestors, end: WalkEnd::Root, anchor: None };
    Box::new(View {
        table: "uuid-1".into(),
        snapshot,
        sequence: snapshot.unwrap_or_default(),
        updated_ms: 0,
        history,
        pipeline: Some("p".into()),
        schema: columns(&[]),
        last_field_id: 10,
        schemas: None,
    })
}

/// The key and these columns besides.
fn columns(names: &[(&str, i32)]) -> Arc<TableSchema> {
    let long = |(name, id): &(&str, i32)| Field { id: *id, ..Field::new(*name, Type::Long, *name == "k") };
    Arc::new(TableSchema { fields: [("k", 1)].iter().chain(names).map(long).collect(), key: vec!["k".into()] })
}

fn loading() -> Writer<()> {
    let mut writer = Writer::new(WriterConfig {
        table: "l.n.t".into(),
        pipeline: "p".into(),
        writer: "w".into(),
        semantics: Semantics::LastWins,
        key_width: KeyWidth::Exact,
        key: vec!["k".into()],
        formats: vec![TableFormat::IcebergV2],
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

/// A writer that reads partition 0 of a table whose V is 0, under epoch 1.
fn reading() -> Writer<()> {
    reading_from(vector(0))
}

fn reading_from(vector: Vector) -> Writer<()> {
    let mut writer = loading();
    let next = vector.next(&id(0));
    // The assignment came while the first load was under way: there are two.
    load(&mut writer, &view(1, vector));
    assert_eq!(writer.applied(&id(0)), next);
    writer.step(Event::Opened { id: id(0), epoch: Epoch(1) }, 0);
    writer
}

/// Answers loads, and what they lead to, until something else is wanted.
fn load(writer: &mut Writer<()>, view: &View) -> Vec<Action<()>> {
    let mut actions = writer.step(Event::Loaded(Box::new(view.clone())), 0);
    loop {
        let answer = match actions[..] {
            [Action::Load { .. }] => Event::Loaded(Box::new(view.clone())),
            [Action::Follow { .. }] => Event::Followed,
            _ => return actions,
        };
        actions = writer.step(answer, 0);
    }
}

/// Events of a partition at these offsets, each of a key of its own, read under an epoch up to `next`.
fn chunk(partition: i32, epoch: u64, offsets: impl IntoIterator<Item = i64>, next: i64) -> Event<()> {
    let offsets: Vec<i64> = offsets.into_iter().collect();
    let run = Run { partition: id(partition), epoch: Epoch(epoch), events: offsets.len() as u32, next };
    let keys = offsets.iter().map(|&offset| crate::core::change::Key(offset as u128)).collect();
    let (ops, orders, row_of) = (vec![], vec![], vec![]);
    Event::Chunk(Arc::new(Chunk {
        runs: vec![run],
        offsets,
        keys,
        ops,
        orders,
        row_of,
        rows: (),
        asks: Asks::default(),
        bytes: 1,
    }))
}

/// Answers writing and looking at the topics until the commit is ordered.
fn order(writer: &mut Writer<()>, mut actions: Vec<Action<()>>) -> CommitOrder {
    loop {
        let answer = match actions.pop() {
            Some(Action::Write { attempt, plan, .. }) => {
                let (path, records) = (attempt.into(), plan.appended() as u32);
                Event::Written(vec![PlacedFile { path, records, rows: Placement::Range { start: 0 } }])
            }
            Some(Action::Inspect) => topology("c", "id-1"),
            Some(Action::Commit(order)) => return order,
            other => panic!("no commit: {other:?}"),
        };
        actions = writer.step(answer, 0);
    }
}

/// The commit is in the table, as this snapshot.
fn committed(writer: &mut Writer<()>, order: &CommitOrder, snapshot: SnapshotId) -> Vec<Action<()>> {
    writer.step(Event::Outcome(Outcome::Committed(view(snapshot, order.vector.clone()))), 0)
}

fn refused(writer: &mut Writer<()>) -> Vec<Action<()>> {
    writer.step(Event::Outcome(Outcome::Refused), 0)
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
    other.schema = Arc::new(TableSchema { key: vec!["z".into()], ..TableSchema::default() });
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

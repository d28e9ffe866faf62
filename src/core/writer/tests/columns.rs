//! How a table's columns change with the rows that need it.

use super::*;
use crate::core::change::Asks;
use crate::core::schema::SchemaChange;

/// Events of partition 0 at these offsets, one run for each epoch given; those of the last one ask for the columns.
fn asking(runs: &[(u64, i64)], wanted: &Arc<TableSchema>) -> Event<()> {
    let run =
        |&(epoch, offset): &(u64, i64)| Run { partition: id(0), epoch: Epoch(epoch), events: 1, next: offset + 1 };
    Event::Chunk(Arc::new(Chunk {
        runs: runs.iter().map(run).collect(),
        offsets: runs.iter().map(|(_, offset)| *offset).collect(),
        keys: runs.iter().map(|(_, offset)| crate::core::change::Key(*offset as u128)).collect(),
        ops: vec![],
        orders: vec![],
        row_of: vec![],
        rows: (),
        asks: Asks { names: wanted.clone(), of_runs: vec![(runs.len() as u32 - 1, wanted.clone())], schemas: vec![] },
        bytes: 1,
    }))
}

/// The change for which a batch's files are to be written.
fn planned(actions: &[Action<()>]) -> Option<&SchemaChange> {
    match actions {
        [.., Action::Write { schema_change, .. }] => schema_change.as_deref(),
        other => panic!("nothing is written: {other:?}"),
    }
}

fn ids(schema: &TableSchema) -> Vec<(&str, i32)> {
    schema.fields.iter().map(|f| (f.name.as_str(), f.id)).collect()
}

fn view_with(snapshot: SnapshotId, schema: &Arc<TableSchema>, last_field_id: i32) -> Box<View> {
    Box::new(View { schema: schema.clone(), last_field_id, ..*view(snapshot, vector(0)) })
}

#[test]
fn a_batch_that_asks_for_columns_brings_them_and_another_does_not() {
    let wanted = columns(&[("a", 0)]);
    let mut writer = reading();
    writer.step(chunk(0, 1, [0], 1), 0);
    let actions = writer.step(Event::Flush, 0);
    assert_eq!(planned(&actions), None);
    let first = order(&mut writer, actions);
    assert!(first.schema_change.is_none());
    // It is read while the first one is under way.
    writer.step(asking(&[(1, 1)], &wanted), 0);
    committed(&mut writer, &first, 2);
    let actions = writer.step(Event::Flush, 0);
    let change = planned(&actions).unwrap().clone();
    assert_eq!((ids(&change.to), change.from), (vec![("k", 1), ("a", 11)], columns(&[])));
    let second = order(&mut writer, actions);
    assert_eq!(ids(&second.schema_change.as_ref().unwrap().to), [("k", 1), ("a", 11)]);
    let after = view_with(3, &change.to, 11);
    let landed = writer.step(Event::Outcome(Outcome::Committed(after)), 0);
    assert!(
        matches!(&landed[..], [Action::Landed(landed)] if landed.schema_changes.len() == 1),
        "it is told once: {landed:?}"
    );
    writer.step(asking(&[(1, 2)], &wanted), 0);
    let actions = writer.step(Event::Flush, 0);
    assert_eq!(planned(&actions), None, "the table has the column");
}

/// INV-2: what is read again, perhaps by another member, brings its columns then.
#[test]
fn events_that_do_not_count_ask_for_nothing() {
    let mut writer = reading();
    writer.step(asking(&[(1, 0), (0, 1)], &columns(&[("a", 0)])), 0);
    let actions = writer.step(Event::Flush, 0);
    assert_eq!(planned(&actions), None);
}

/// INV-9
#[test]
fn after_a_conflict_columns_are_planned_again_and_files_are_written_again_where_numbers_changed() {
    let wanted = columns(&[("a", 0)]);
    let ordered = || {
        let mut writer = reading();
        writer.step(asking(&[(1, 0)], &wanted), 0);
        let actions = writer.step(Event::Flush, 0);
        let order = order(&mut writer, actions);
        refused(&mut writer);
        (writer, order)
    };
    // Somebody committed rows alone: the same change, and the same files.
    let (mut writer, before) = ordered();
    let actions = load(&mut writer, &view_with(2, &columns(&[]), 10));
    assert!(matches!(actions[..], [Action::Inspect]), "{actions:?}");
    let again = order(&mut writer, actions);
    assert_eq!((&again.files, &again.schema_change), (&before.files, &before.schema_change));

    // Another engine's column has the number now.
    let (mut writer, before) = ordered();
    let actions = load(&mut writer, &view_with(1, &columns(&[("theirs", 11)]), 11));
    assert_eq!(ids(&planned(&actions).unwrap().to), [("k", 1), ("theirs", 11), ("a", 12)]);
    let again = order(&mut writer, actions);
    assert_ne!(again.files, before.files);

    // Another member has added the same column, with the number that was planned here: in files it may still be another.
    let (mut writer, before) = ordered();
    let actions = load(&mut writer, &view_with(2, &columns(&[("a", 11)]), 11));
    assert_eq!(planned(&actions), None);
    let again = order(&mut writer, actions);
    assert!(again.schema_change.is_none() && again.files != before.files);
}

#[test]
fn columns_that_others_made_impossible_stop_the_writer_with_the_reason() {
    let mut writer = reading();
    writer.step(asking(&[(1, 0)], &columns(&[("a", 0)])), 0);
    let actions = writer.step(Event::Flush, 0);
    order(&mut writer, actions);
    refused(&mut writer);
    let mut theirs = TableSchema::clone(&columns(&[("a", 11)]));
    theirs.fields[1].kind = Type::Boolean;
    let actions = load(&mut writer, &view_with(2, &Arc::new(theirs), 11));
    let expected = "column a is boolean in the table and cannot become long";
    assert!(matches!(stop(&actions), Error::Decision(text) if text.contains(expected)), "{actions:?}");
}

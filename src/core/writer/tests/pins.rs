//! INV-22, FAILURES D4: schema ids that the table remembers.

use super::*;
use crate::core::schema::{Fingerprint, Pins};

/// An event of partition 0 whose record names this schema.
fn naming(offset: i64, schema: (u32, u128)) -> Event<()> {
    let Event::Chunk(chunk) = chunk(0, 1, [offset], offset + 1) else { unreachable!() };
    let asks = Asks { schemas: vec![(schema.0, Fingerprint(schema.1))], ..Asks::default() };
    Event::Chunk(Arc::new(Chunk { asks, ..Chunk::clone(&chunk) }))
}

fn pins(ids: &[(u32, u128)]) -> Pins {
    let used: Vec<_> = ids.iter().map(|&(id, of)| (id, Fingerprint(of))).collect();
    Pins::default().with(&used).unwrap().unwrap()
}

fn remembering(snapshot: SnapshotId, next: i64, ids: &[(u32, u128)]) -> Box<View> {
    Box::new(View { schemas: Some(pins(ids).to_json()), ..*view(snapshot, vector(next)) })
}

/// The commit of a batch with these events.
fn ordered(writer: &mut Writer<()>, events: &[(i64, (u32, u128))]) -> CommitOrder {
    for &(offset, schema) in events {
        writer.step(naming(offset, schema), 0);
    }
    let actions = writer.step(Event::Flush, 0);
    order(writer, actions)
}

#[test]
fn an_id_is_remembered_from_the_commit_of_its_first_records_on() {
    let mut writer = reading();
    let first = ordered(&mut writer, &[(0, (7, 70)), (1, (8, 80)), (2, (7, 70))]);
    assert_eq!(first.pins.as_deref(), Some(&pins(&[(7, 70), (8, 80)])));
    let after =
        Box::new(View { schemas: Some(first.pins.clone().unwrap().to_json()), ..*view(2, first.vector.clone()) });
    writer.step(Event::Outcome(Outcome::Committed(after)), 0);
    let second = ordered(&mut writer, &[(3, (8, 80))]);
    assert_eq!(second.pins, None, "nothing new: the commit changes no property");
}

#[test]
fn records_that_were_rejected_are_remembered_and_those_that_do_not_count_are_not() {
    let mut writer = reading();
    let Event::Chunk(passed) = chunk(0, 1, [], 1) else { unreachable!() };
    let rejected = Asks { schemas: vec![(7, Fingerprint(70))], ..Asks::default() };
    writer.step(Event::Chunk(Arc::new(Chunk { asks: rejected, ..Chunk::clone(&passed) })), 0);
    let old = Asks { schemas: vec![(8, Fingerprint(80))], ..Asks::default() };
    let Event::Chunk(stale) = chunk(0, 0, [1], 2) else { unreachable!() };
    writer.step(Event::Chunk(Arc::new(Chunk { asks: old, ..Chunk::clone(&stale) })), 0);
    let actions = writer.step(Event::Flush, 0);
    assert_eq!(order(&mut writer, actions).pins.as_deref(), Some(&pins(&[(7, 70)])));
}

#[test]
fn another_schema_under_a_remembered_id_stops_the_writer() {
    let mut writer = reading();
    let first = ordered(&mut writer, &[(0, (7, 70))]);
    writer.step(Event::Outcome(Outcome::Committed(remembering(2, 1, &[(7, 70)]))), 0);
    assert!(first.pins.is_some());
    writer.step(naming(1, (7, 71)), 0);
    let actions = writer.step(Event::Flush, 0);
    let Error::Decision(text) = stop(&actions) else { panic!("{actions:?}") };
    assert!(text.contains("table l.n.t") && text.contains("schema id 7"), "{text}");
}

/// INV-9: two members may add different ids, or the same one with different schemas.
#[test]
fn after_a_conflict_what_the_other_member_added_stays() {
    let conflict = |theirs: &[(u32, u128)]| {
        let mut writer = reading();
        ordered(&mut writer, &[(0, (7, 70))]);
        refused(&mut writer);
        let actions = load(&mut writer, &remembering(2, 0, theirs));
        (writer, actions)
    };
    let (mut writer, actions) = conflict(&[(8, 80)]);
    assert_eq!(order(&mut writer, actions).pins.as_deref(), Some(&pins(&[(7, 70), (8, 80)])));
    let (mut writer, actions) = conflict(&[(7, 70)]);
    assert_eq!(order(&mut writer, actions).pins, None);
    let (_, actions) = conflict(&[(7, 71)]);
    assert!(matches!(stop(&actions), Error::Decision(text) if text.contains("schema id 7")), "{actions:?}");
}

#[test]
fn a_property_that_cannot_be_read_stops_before_anything_is_committed() {
    let mut writer = loading();
    let broken = Box::new(View { schemas: Some("{".into()), ..*view(1, vector(0)) });
    load(&mut writer, &broken);
    writer.step(Event::Opened { id: id(0), epoch: Epoch(1) }, 0);
    writer.step(naming(0, (7, 70)), 0);
    let actions = writer.step(Event::Flush, 0);
    assert!(matches!(stop(&actions), Error::Decision(text) if text.contains("firn.schemas")), "{actions:?}");
}

//! Where reading begins, and what of that which is read counts.

use super::*;

fn starts(offset: i64) -> Event<()> {
    let start = Start { offset, earliest: true };
    Event::Starts(vec![ResolvedStart { id: id(0), topic: "orders".into(), start }])
}

fn opened(actions: &[Action<()>]) -> Option<(&PartitionId, i64)> {
    actions.iter().find_map(|action| match action {
        Action::Open { id, offset } => Some((id, *offset)),
        _ => None,
    })
}

/// A writer that found a table nobody wrote to, and asked where its topic begins.
fn resolving() -> Writer<()> {
    let mut writer = loading();
    let actions = load(&mut writer, &view_of(vec![]));
    match &actions[..] {
        [Action::ResolveStarts { topics, .. }] => assert!(topics.iter().map(|t| &**t).eq(["id-1"]), "{topics:?}"),
        other => panic!("starts are not asked for: {other:?}"),
    }
    writer
}

/// INV-5
#[test]
fn starts_are_stored_before_the_first_event_is_read() {
    let mut writer = resolving();
    let actions = writer.step(starts(7), 0);
    assert_eq!(opened(&actions), None);
    writer.step(chunk(0, 1, [7], 8), 0);
    let order = order(&mut writer, actions);
    let start = Start { offset: 7, earliest: true };
    assert_eq!(order.vector, vector_at(Position::at_start(start)));
    assert!(order.files.is_empty() && order.superseded.is_empty());
    let actions = committed(&mut writer, &order, 1);
    assert_eq!(opened(&actions), Some((&id(0), 7)), "{actions:?}");
    assert!(writer.is_drained(), "what came before it was stored does not count");
}

#[test]
fn a_topic_that_is_gone_before_its_start_was_found_is_asked_for_again_without_haste() {
    let mut writer = resolving();
    assert!(writer.step(Event::Starts(vec![]), 0).is_empty(), "there is nothing to commit");
    assert!(writer.step(Event::Tick, 9_999).is_empty());
    let actions = writer.step(Event::Tick, 10_000);
    assert!(matches!(actions[..], [Action::ResolveStarts { .. }]), "{actions:?}");
}

/// INV-5
#[test]
fn a_start_that_the_log_lost_is_resolved_again_and_stored_before_it_is_read() {
    let mut writer = reading();
    let actions = writer.step(Event::OutOfRange(id(0)), 0);
    assert!(matches!(&actions[..], [Action::ResolveStarts { topics, partitions }]
        if topics.is_empty() && *partitions == [id(0)]));
    let actions = writer.step(starts(5), 0);
    assert_eq!(opened(&actions), None);
    let order = order(&mut writer, actions);
    assert_eq!(order.vector, vector_at(Position::at_start(Start { offset: 5, earliest: true })));
    let actions = committed(&mut writer, &order, 2);
    assert_eq!(opened(&actions), Some((&id(0), 5)), "{actions:?}");
}

/// INV-5
#[test]
fn an_offset_that_the_log_lost_is_for_a_person_to_decide_once_anything_rests_on_it() {
    let at = |earliest, next| vector_at(Position { next, ..Position::at_start(Start { offset: 0, earliest }) });
    for (vector, offset) in [(at(true, 9), 9), (at(false, 0), 0)] {
        let actions = reading_from(vector).step(Event::OutOfRange(id(0)), 0);
        let expected = format!("orders/0 is to be read from offset {offset}");
        assert!(matches!(stop(&actions), Error::Decision(text) if text.contains(&expected)), "{actions:?}");
    }
    let mut writer = reading();
    writer.step(chunk(0, 1, [0], 1), 0);
    assert!(matches!(stop(&writer.step(Event::OutOfRange(id(0)), 0)), Error::Decision(_)), "it was read already");
}

#[test]
fn what_is_out_of_range_of_a_partition_that_was_taken_away_is_old_news() {
    let mut writer = reading();
    writer.step(Event::Revoked(vec![id(0)]), 0);
    let actions = writer.step(Event::OutOfRange(id(0)), 0);
    assert!(actions.is_empty(), "the partition is someone else's now: {actions:?}");
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

/// INV-1, INV-2
#[test]
fn records_of_an_older_epoch_and_below_v_are_dropped() {
    let mut writer = reading();
    writer.step(Event::Reload, 0);
    // Another process wrote meanwhile: reading goes on where V is, under a new epoch.
    let actions = load(&mut writer, &view(2, vector(5)));
    assert_eq!(opened(&actions), Some((&id(0), 5)));
    writer.step(chunk(0, 1, [5, 6], 7), 0);
    assert!(writer.is_drained(), "not opened yet");
    writer.step(Event::Opened { id: id(0), epoch: Epoch(2) }, 0);
    writer.step(chunk(0, 1, [5, 6], 7), 0);
    assert!(writer.is_drained(), "queued before V was read");
    writer.step(chunk(0, 2, [3, 4, 5], 6), 0);
    assert_eq!(writer.applied(&id(0)), Some(6));
    let actions = writer.step(Event::Flush, 0);
    assert!(matches!(&actions[..], [Action::Write { plan, .. }] if plan.appended() == 1), "{actions:?}");
}

/// A vector of partitions 0 and 1, both at 0.
fn two() -> Vector {
    let mut two = vector(0);
    let position = Position::at_start(Start { offset: 0, earliest: true });
    two.topics.get_mut("id-1").unwrap().partitions.insert(1, position);
    two
}

#[test]
fn a_partition_that_is_taken_over_is_read_before_the_batches_of_others_are_written() {
    let mut writer = reading_from(two());
    // A batch in flight, and the next one is full: it will take off as soon as the first has landed.
    let writing = writer.step(chunk(0, 1, 0..100, 100), 0);
    assert!(matches!(writing[..], [Action::Write { .. }]), "{writing:?}");
    writer.step(chunk(0, 1, 100..200, 200), 0);
    assert!(writer.step(Event::Assigned(vec![id(1)]), 0).is_empty(), "an answer is awaited");
    let Some(Action::Write { attempt, plan, .. }) = writing.into_iter().next() else { return };
    let (path, records) = (attempt.into(), plan.appended() as u32);
    let written = vec![PlacedFile { path, records, rows: Placement::Range { start: 0 } }];
    let actions = writer.step(Event::Written(written), 0);
    assert!(matches!(actions[..], [Action::Load { .. }]), "V may have moved: {actions:?}");
    let actions = load(&mut writer, &view(1, two()));
    assert_eq!(opened(&actions), Some((&id(1), 0)), "{actions:?}");
    // The batch that was on its way goes on, with the files that it has.
    let order = order(&mut writer, actions);
    assert_eq!(order.files.len(), 1);
    let next: BTreeMap<PartitionId, i64> = order.vector.iter().map(|(id, position)| (id, position.next)).collect();
    assert_eq!(next, BTreeMap::from([(id(0), 100), (id(1), 0)]));
}

/// INV-8
#[test]
fn a_partition_that_comes_back_is_read_only_when_it_is_known_what_became_of_its_batch() {
    let mut writer = reading();
    writer.step(chunk(0, 1, [0, 1], 2), 0);
    let actions = writer.step(Event::Flush, 0);
    writer.step(Event::Revoked(vec![id(0)]), 0);
    writer.step(Event::Assigned(vec![id(0)]), 0);
    let mut actions = match actions.into_iter().next() {
        Some(Action::Write { attempt, .. }) => {
            let rows = Placement::Range { start: 0 };
            writer.step(Event::Written(vec![PlacedFile { path: attempt.into(), records: 2, rows }]), 0)
        }
        other => panic!("nothing is written: {other:?}"),
    };
    assert!(matches!(actions[..], [Action::Load { .. }]), "{actions:?}");
    actions = load(&mut writer, &view(1, vector(0)));
    assert_eq!(opened(&actions), None);
    let order = order(&mut writer, actions);
    let actions = committed(&mut writer, &order, 2);
    assert_eq!(opened(&actions), Some((&id(0), 2)), "{actions:?}");
}

/// INV-3
#[test]
fn positions_alone_are_committed_once_a_minute_or_when_asked_to() {
    let mut writer = reading();
    writer.step(chunk(0, 1, [], 5), 1_000);
    for now in [11_000, 59_999] {
        assert!(writer.step(Event::Tick, now).is_empty(), "at {now}");
    }
    assert!(matches!(writer.step(Event::Tick, 60_000)[..], [Action::Load { .. }]), "as an idle writer does");
    let actions = load(&mut writer, &view(1, vector(0)));
    let first = order(&mut writer, actions);
    assert_eq!((first.vector.next(&id(0)), first.files.len()), (Some(5), 0));
    committed(&mut writer, &first, 2);
    writer.step(chunk(0, 1, [], 6), 61_000);
    assert!(writer.step(Event::Tick, 119_999).is_empty());
    let actions = writer.step(Event::Flush, 119_999);
    let second = order(&mut writer, actions);
    assert_eq!((second.vector.next(&id(0)), second.files.len()), (Some(6), 0));
    committed(&mut writer, &second, 3);
    // One event, and the interval counts.
    writer.step(chunk(0, 1, [6], 7), 120_000);
    assert!(writer.step(Event::Tick, 129_999).is_empty());
    assert!(matches!(writer.step(Event::Tick, 130_000)[..], [Action::Write { .. }]));
}

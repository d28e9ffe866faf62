//! What becomes of a batch, whatever the catalog answers and whoever else writes.

use super::*;
use crate::core::change::Key;
use crate::core::writer::flight::ATTEMPTS_MAX;

const HOUR_MS: i64 = 3_600_000;

/// A writer that has read events 0 and 1, and ordered their commit.
fn committing() -> (Writer<()>, CommitOrder) {
    let mut writer = reading();
    writer.step(chunk(0, 1, [0, 1], 2), 0);
    let actions = writer.step(Event::Flush, 0);
    let order = order(&mut writer, actions);
    assert_eq!((order.base, order.vector.next(&id(0))), (Some(1), Some(2)));
    (writer, order)
}

fn landed(actions: &[Action<()>]) -> Option<&Landed> {
    actions.iter().find_map(|action| match action {
        Action::Landed(landed) => Some(landed),
        _ => None,
    })
}

fn again(actions: &[Action<()>]) -> u32 {
    match actions {
        [Action::Load { again, .. }] => *again,
        other => panic!("not a load: {other:?}"),
    }
}

/// INV-8: the batch of a partition that was taken away is committed only where its new owner has not begun.
#[test]
fn the_batch_of_a_revoked_partition_is_fenced_by_v() {
    for v in [0, 1, 2] {
        let mut writer = reading();
        writer.step(chunk(0, 1, [0, 1, 2], 3), 0);
        let actions = writer.step(Event::Revoked(vec![id(0)]), 0);
        let first = order(&mut writer, actions);
        refused(&mut writer);
        let actions = load(&mut writer, &view(2, vector(v)));
        if v == 0 {
            let second = order(&mut writer, actions);
            assert_eq!((second.base, second.vector.next(&id(0))), (Some(2), Some(3)));
            assert_ne!(second.attempt, first.attempt);
        } else {
            assert!(actions.is_empty() && writer.is_drained(), "V is {v}: {actions:?}");
        }
    }
}

/// INV-7: an answer that was lost says nothing, and neither does a table that has not moved.
#[test]
fn an_unknown_outcome_stays_unknown_while_the_base_has_not_moved() {
    let unknown = || {
        let (mut writer, first) = committing();
        let actions = writer.step(Event::Outcome(Outcome::Unknown), 0);
        assert_eq!(again(&actions), 1);
        let actions = load(&mut writer, &view(1, vector(0)));
        assert_eq!(landed(&actions), None);
        assert!(!writer.is_drained());
        let second = order(&mut writer, actions);
        assert_eq!((second.base, &second.files, &second.vector), (first.base, &first.files, &first.vector));
        assert_ne!(second.attempt, first.attempt);
        (writer, first, second)
    };
    // It was lost: the next attempt is the one.
    let (mut writer, _, second) = unknown();
    let actions = committed(&mut writer, &second, 2);
    assert_eq!(landed(&actions).map(|l| (l.snapshot, l.events)), Some((Some(2), 2)));
    // It was late. V alone would not tell: somebody has gone on from there.
    let (mut writer, first, _) = unknown();
    assert_eq!(again(&refused(&mut writer)), 2);
    let late = ancestor(2, Some(first.attempt), Some(vector(2)));
    let on_top = ancestor(3, Some("other-1".into()), Some(vector(9)));
    let actions = writer.step(Event::Loaded(view_of(vec![on_top, late])), 0);
    assert_eq!(landed(&actions).map(|l| l.events), Some(2), "{actions:?}");
    assert!(writer.is_drained());
}

/// INV-7: V decides where the attempt cannot be found.
#[test]
fn a_batch_whose_end_is_in_v_is_in_the_table() {
    let (mut writer, _) = committing();
    writer.step(Event::Outcome(Outcome::Unknown), 0);
    let nameless = ancestor(3, Some("?".into()), Some(vector(2)));
    let actions = writer.step(Event::Loaded(view_of(vec![ancestor(4, None, None), nameless])), 0);
    assert_eq!(landed(&actions).map(|l| l.events), Some(2), "{actions:?}");
    assert!(writer.is_drained());
    assert_eq!(writer.applied(&id(0)), Some(2));
}

/// INV-5: expiry must not take the last snapshot that holds V before V is stored again.
#[test]
fn v_is_anchored_again_after_an_hour_of_foreign_snapshots() {
    let mut writer = reading();
    writer.step(Event::Reload, 0);
    let foreign = view_of(vec![ancestor(2, None, None), ancestor(1, Some("w".into()), Some(vector(0)))]);
    assert!(load(&mut writer, &foreign).is_empty());
    assert_eq!(again(&writer.step(Event::Tick, HOUR_MS - 1)), 0);
    assert!(load(&mut writer, &foreign).is_empty(), "not yet");
    let actions = writer.step(Event::Tick, HOUR_MS);
    let anchor = order(&mut writer, actions);
    assert_eq!((anchor.base, &anchor.vector), (Some(2), &vector(0)));
    assert!(anchor.files.is_empty() && anchor.superseded.is_empty());
    // It fails, is still needed, and is tried again after a wait.
    let actions = writer.step(Event::Outcome(Outcome::NotSent), HOUR_MS);
    assert_eq!(again(&actions), 1);
    let actions = load(&mut writer, &foreign);
    let anchor = order(&mut writer, actions);
    assert_eq!(again(&writer.step(Event::Outcome(Outcome::NotSent), HOUR_MS)), 2);
    let actions = load(&mut writer, &foreign);
    order(&mut writer, actions);
    let actions = committed(&mut writer, &anchor, 3);
    assert_eq!(landed(&actions).map(|l| l.snapshot), Some(Some(3)));
    writer.step(Event::Tick, 3 * HOUR_MS);
    assert!(load(&mut writer, &view(3, vector(0))).is_empty(), "the current snapshot is our own");
}

/// INV-6
#[test]
fn a_table_that_was_dropped_and_created_again_is_for_a_person_to_decide() {
    let mut recreated = view(1, vector(2));
    recreated.table = "uuid-2".into();
    let (mut unknown, _) = committing();
    unknown.step(Event::Outcome(Outcome::Unknown), 0);
    let mut idle = reading();
    idle.step(Event::Reload, 0);
    for mut writer in [unknown, idle] {
        let actions = writer.step(Event::Loaded(recreated.clone()), 0);
        let expected = "l.n.t: it was dropped and created again (uuid uuid-1 became uuid-2)";
        assert!(matches!(stop(&actions), Error::Decision(text) if text.contains(expected)), "{actions:?}");
        assert!(writer.is_stopped());
    }
}

#[test]
fn a_load_waits_only_while_something_that_failed_is_to_be_repeated() {
    // A batch that is dropped, because another process wrote it.
    let (mut writer, _) = committing();
    assert_eq!(again(&refused(&mut writer)), 1);
    load(&mut writer, &view(2, vector(1)));
    assert_eq!(again(&writer.step(Event::Reload, 0)), 0);

    // Starts: needed as long as nobody has stored them.
    let start = Start { offset: 0, earliest: true };
    let starts = || Event::Starts(vec![ResolvedStart { id: id(0), topic: "orders".into(), start }]);
    let mut writer = loading();
    load(&mut writer, &view_of(vec![]));
    for failed in 1..4 {
        let actions = writer.step(starts(), 0);
        order(&mut writer, actions);
        assert_eq!(again(&writer.step(Event::Outcome(Outcome::NotSent), 0)), failed);
        let actions = load(&mut writer, &view_of(vec![]));
        assert!(matches!(actions[..], [Action::ResolveStarts { .. }]), "{actions:?}");
    }
    let actions = writer.step(starts(), 0);
    order(&mut writer, actions);
    assert_eq!(again(&refused(&mut writer)), 4);
    load(&mut writer, &view(1, vector(0)));
    assert_eq!(again(&writer.step(Event::Reload, 0)), 0);
}

/// INV-18: the next batch fills while one is in flight, and then the poll thread has to wait.
#[test]
fn no_more_than_two_batches_are_held() {
    let mut writer = reading();
    let actions = writer.step(chunk(0, 1, 0..100, 100), 0);
    assert!(matches!(actions[..], [Action::Write { .. }]) && writer.wants_input(), "{actions:?}");
    writer.step(chunk(0, 1, 100..199, 199), 0);
    assert!(writer.wants_input());
    writer.step(chunk(0, 1, 199..200, 200), 0);
    assert!(!writer.wants_input());
    let order = order(&mut writer, actions);
    let actions = committed(&mut writer, &order, 2);
    assert!(actions.iter().any(|a| matches!(a, Action::Write { .. })) && writer.wants_input(), "{actions:?}");
}

/// INV-18: a catalog that answers nothing for days takes no memory.
#[test]
fn attempts_whose_answers_were_lost_are_not_kept_for_ever() {
    let (mut writer, mut last) = committing();
    for _ in 0..10 * ATTEMPTS_MAX {
        writer.step(Event::Outcome(Outcome::Unknown), 0);
        let actions = load(&mut writer, &view(1, vector(0)));
        last = order(&mut writer, actions);
    }
    assert!(writer.attempts.len() <= ATTEMPTS_MAX, "{} are kept", writer.attempts.len());
    writer.step(Event::Outcome(Outcome::Unknown), 0);
    let late = ancestor(2, Some(last.attempt), Some(vector(2)));
    let actions = writer.step(Event::Loaded(view_of(vec![late])), 0);
    assert!(landed(&actions).is_some(), "the newest are kept: {actions:?}");
}

/// INV-18: only live files have numbers.
#[test]
fn files_that_are_gone_are_forgotten() {
    let mut writer = reading();
    for n in 2..200 {
        writer.step(Event::Reload, 0);
        writer.step(Event::Loaded(view(n, vector(0))), 0);
        writer.step(Event::Diff { whole: n == 100, removed: vec![format!("f{}", n - 1).into()], deletes: vec![] }, 0);
        let rows = Event::Rows { path: format!("f{n}").into(), keys: vec![Key(7)], positions: vec![0], orders: vec![] };
        writer.step(rows, 0);
        writer.step(Event::Followed, 0);
    }
    assert_eq!(writer.keys(), 1);
    assert_eq!(writer.files.size(), 1);
    let saved = writer.index().unwrap().files;
    assert!(matches!(&saved[..], [(197, path)] if **path == *"f199"), "numbers are never used again: {saved:?}");
}

//! The fold against one that applies event after event and knows nothing of batches, chunks or an index.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::*;
use crate::core::change::Asks;
use crate::core::key_index::KeyWidth;
use crate::core::offsets::PartitionId;

/// An event; its number in the log is the value of its row.
#[derive(Debug, Clone, Copy)]
struct Given {
    key: u64,
    op: Op,
    order: i64,
}

fn key(number: u64) -> Key {
    Key(u128::from(number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

/// Rows by key, as one event after the other makes them.
fn one_by_one(events: &[Given], semantics: Semantics) -> BTreeMap<u64, usize> {
    let mut rows: BTreeMap<u64, (usize, i64)> = BTreeMap::new();
    for (number, event) in events.iter().enumerate() {
        let newer = rows.get(&event.key).is_some_and(|(_, order)| event.order < *order);
        let late = semantics == Semantics::Ordered && newer;
        match event.op {
            Op::Upsert if !late => _ = rows.insert(event.key, (number, event.order)),
            Op::Delete if !late => _ = rows.remove(&event.key),
            Op::Tombstone => _ = rows.remove(&event.key),
            Op::Upsert | Op::Delete => {}
        }
    }
    rows.into_iter().map(|(key, (row, _))| (key, row)).collect()
}

/// A table that takes plans, and the index that follows it.
struct Table {
    index: KeyIndex,
    rows: BTreeMap<Location, (u64, usize)>,
    files: u32,
    semantics: Semantics,
}

impl Table {
    fn new(semantics: Semantics) -> Self {
        let index = KeyIndex::new(KeyWidth::Exact, semantics == Semantics::Ordered);
        Table { index, rows: BTreeMap::new(), files: 0, semantics }
    }

    /// Commits events `first..` as one batch of chunks of at most `chunk` events.
    fn commit(&mut self, first: usize, events: &[Given], chunk: usize) {
        let batch = batch(first, events, chunk);
        let plan = fold(&batch, &self.index, self.semantics, Mutants::default());
        assert_eq!(plan.keys.iter().collect::<BTreeSet<_>>().len(), plan.keys.len(), "a key appears twice");
        assert_eq!(plan.keys.len(), plan.appended());
        assert!(plan.gone.iter().all(|key| !plan.keys.contains(key)), "a key is both gone and there");
        for (file, gone) in &plan.superseded {
            for row in gone {
                let was = self.rows.remove(&Location { file: *file, row });
                assert!(was.is_some(), "superseded a position that is not live");
            }
        }
        let places = plan.append.iter().flat_map(|part| part.rows.iter().map(|row| (part.chunk, *row as usize)));
        for (row, (part, event)) in places.enumerate() {
            let number = batch.chunks[part].chunk.offsets[event] as usize;
            let at = Location { file: self.files, row: row as u32 };
            self.rows.insert(at, (events[number - first].key, number));
            let order = plan.orders.get(row).copied().unwrap_or(0);
            self.index.replace(plan.keys[row], at, order);
        }
        for &key in &plan.gone {
            self.index.remove_all(key);
        }
        self.files += 1;
    }

    fn content(&self) -> BTreeMap<u64, usize> {
        let content: BTreeMap<u64, usize> = self.rows.values().copied().collect();
        assert_eq!(content.len(), self.rows.len(), "two rows of one key");
        content
    }
}

fn batch(first: usize, events: &[Given], size: usize) -> Batch<()> {
    let mut batch = Batch::default();
    let id = PartitionId { topic: "t".into(), partition: 0 };
    batch.extend(&id, first as i64, (first + events.len()) as i64);
    for (n, part) in events.chunks(size).enumerate() {
        let from = (first + n * size) as i64;
        let chunk = Chunk {
            runs: Vec::new(),
            offsets: (from..from + part.len() as i64).collect(),
            keys: part.iter().map(|e| key(e.key)).collect(),
            ops: part.iter().map(|e| e.op).collect(),
            orders: part.iter().map(|e| e.order).collect(),
            row_of: (0..).zip(part).map(|(row, e)| if e.op == Op::Upsert { row } else { NO_ROW }).collect(),
            rows: (),
            asks: Asks::default(),
            bytes: 1,
        };
        let all = std::iter::once(0..part.len() as u32).collect();
        batch.admit(Arc::new(chunk), all, 0);
    }
    batch
}

/// Commits `events` in batches that end at `cuts`.
fn cut_at(events: &[Given], cuts: &[usize], chunk: usize, semantics: Semantics) -> BTreeMap<u64, usize> {
    let mut table = Table::new(semantics);
    let mut first = 0;
    for end in cuts.iter().copied().chain([events.len()]) {
        table.commit(first, &events[first..end], chunk);
        first = end;
    }
    table.content()
}

struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ x >> 31) % limit
    }

    fn events(&mut self, count: usize, keys: u64) -> Vec<Given> {
        let ops = [Op::Upsert, Op::Upsert, Op::Upsert, Op::Tombstone, Op::Delete];
        let mut given =
            || Given { key: self.below(keys), op: ops[self.below(5) as usize], order: self.below(6) as i64 - 3 };
        (0..count).map(|_| given()).collect()
    }
}

/// INV-15, exhaustively for one key: inserts, updates and deletes in every order, late and equal order values included,
/// in one batch and in every division of it.
#[test]
fn every_sequence_of_four_events_of_a_key_folds_like_one_event_after_the_other() {
    let event = |op, order| Given { key: 0, op, order };
    let alphabet = [
        event(Op::Upsert, 1),
        event(Op::Upsert, 2),
        event(Op::Upsert, 3),
        event(Op::Tombstone, 0),
        event(Op::Delete, 1),
        event(Op::Delete, 2),
    ];
    for semantics in [Semantics::LastWins, Semantics::Ordered] {
        for word in 0..6usize.pow(4) {
            let events = [0, 1, 2, 3].map(|place| alphabet[word / 6usize.pow(place) % 6]);
            let expected = one_by_one(&events, semantics);
            for division in 0..8 {
                let cuts: Vec<usize> = (1..4).filter(|cut| division >> (cut - 1) & 1 == 1).collect();
                assert_eq!(cut_at(&events, &cuts, 2, semantics), expected, "{semantics:?} {events:?} cut at {cuts:?}");
            }
        }
    }
}

/// INV-15: the same events, cut anywhere, make the same table.
#[test]
fn the_result_does_not_depend_on_where_batches_and_chunks_are_cut() {
    let mut draw = Draw(15);
    for round in 0..150 {
        let count = 1 + draw.below(30) as usize;
        let events = draw.events(count, 5);
        for semantics in [Semantics::LastWins, Semantics::Ordered] {
            let expected = one_by_one(&events, semantics);
            for cut in 0..=count {
                let chunk = 1 + draw.below(7) as usize;
                assert_eq!(cut_at(&events, &[cut], chunk, semantics), expected, "round {round}, cut at {cut}");
            }
            let everywhere: Vec<usize> = (1..count).collect();
            assert_eq!(cut_at(&events, &everywhere, 1, semantics), expected, "round {round}, cut everywhere");
        }
    }
}

#[test]
fn a_late_event_changes_nothing_and_a_tie_is_won_by_the_later_offset() {
    let event = |op, order| Given { key: 0, op, order };
    let check = |events: &[Given], expected: Option<usize>| {
        for cut in 0..=events.len() {
            let rows = cut_at(events, &[cut], 8, Semantics::Ordered);
            assert_eq!(rows.get(&0).copied(), expected, "{events:?} cut at {cut}");
        }
    };
    check(&[event(Op::Upsert, 5), event(Op::Upsert, 4)], Some(0));
    check(&[event(Op::Upsert, 5), event(Op::Upsert, 5)], Some(1));
    check(&[event(Op::Upsert, 5), event(Op::Delete, 4)], Some(0));
    check(&[event(Op::Upsert, 5), event(Op::Delete, 5)], None);
    check(&[event(Op::Upsert, 5), event(Op::Tombstone, 0)], None);
    check(&[event(Op::Upsert, 5), event(Op::Delete, 6), event(Op::Upsert, 1)], Some(2));
    check(&[event(Op::Upsert, i64::MIN), event(Op::Upsert, i64::MAX), event(Op::Upsert, i64::MIN)], Some(1));
}

/// INV-13: a foreign writer made duplicates of a key; whatever replaces it supersedes them all.
#[test]
fn every_position_of_a_key_is_superseded() {
    for op in [Op::Upsert, Op::Tombstone, Op::Delete] {
        let mut index = KeyIndex::new(KeyWidth::Exact, true);
        let places = [(1, 7), (1, 9), (4, 0)].map(|(file, row)| Location { file, row });
        for (order, at) in places.iter().enumerate() {
            index.insert(key(0), *at, order as i64);
        }
        let newer = batch(0, &[Given { key: 0, op, order: 2 }], 1);
        let plan = fold(&newer, &index, Semantics::Ordered, Mutants::default());
        assert_eq!(plan.superseded, group_by_file(places.to_vec()), "{op:?}");
        assert_eq!(plan.gone.len(), usize::from(op != Op::Upsert));
        // The newest of the duplicates decides what is late.
        let late = batch(0, &[Given { key: 0, op, order: 1 }], 1);
        let plan = fold(&late, &index, Semantics::Ordered, Mutants::default());
        assert_eq!(plan.superseded.is_empty(), op != Op::Tombstone, "{op:?}");
    }
}

#[test]
fn append_keeps_every_event_and_asks_no_index() {
    let events = Draw(3).events(40, 2);
    let index = KeyIndex::new(KeyWidth::Exact, false);
    let plan = fold(&batch(0, &events, 7), &index, Semantics::Append, Mutants::default());
    assert_eq!(plan.appended(), events.iter().filter(|e| e.op == Op::Upsert).count());
    assert!(plan.keys.is_empty() && plan.superseded.is_empty() && plan.gone.is_empty());
}

#[test]
fn a_key_that_is_made_and_deleted_in_one_batch_leaves_no_trace() {
    let event = |op| Given { key: 9, op, order: 0 };
    let index = KeyIndex::new(KeyWidth::Exact, false);
    let both = batch(0, &[event(Op::Upsert), event(Op::Tombstone)], 1);
    assert_eq!(fold(&both, &index, Semantics::LastWins, Mutants::default()), Plan::default());
}

#[test]
fn events_that_are_not_admitted_are_not_folded() {
    let given = |key| Given { key, op: Op::Upsert, order: 0 };
    let mut batch = batch(0, &[given(1), given(2), given(1), given(3)], 4);
    batch.chunks[0].events = vec![0..2, 3..4];
    let index = KeyIndex::new(KeyWidth::Exact, false);
    let plan = fold(&batch, &index, Semantics::LastWins, Mutants::default());
    assert_eq!(plan.append, [ChunkRows { chunk: 0, rows: vec![0, 1, 3] }]);
}

use super::*;
use crate::core::change::Asks;
use crate::core::change::Key;

fn chunk(events: usize) -> Arc<Chunk<()>> {
    Arc::new(Chunk {
        runs: Vec::new(),
        offsets: (0..events as i64).collect(),
        keys: vec![Key(1); events],
        ops: Vec::new(),
        orders: Vec::new(),
        row_of: Vec::new(),
        rows: (),
        asks: Asks::default(),
        bytes: 100,
    })
}

fn id(partition: i32) -> PartitionId {
    PartitionId { topic: "t".into(), partition }
}

#[test]
fn a_batch_remembers_where_it_began_and_how_far_it_came() {
    let mut batch: Batch<()> = Batch::default();
    assert!(batch.is_empty());
    batch.extend(&id(0), 5, 9);
    batch.extend(&id(0), 9, 12);
    batch.extend(&id(1), 0, 1);
    assert_eq!((batch.from[&id(0)], batch.next[&id(0)]), (5, 12));
    assert!(batch.holds(&id(1)) && !batch.holds(&id(2)) && !batch.is_empty());
}

#[test]
fn only_admitted_events_are_counted_and_a_chunk_without_any_is_not_kept() {
    let mut batch = Batch::default();
    batch.admit(chunk(10), vec![2..4, 7..10], 50);
    batch.admit(chunk(10), vec![], 60);
    assert_eq!((batch.events, batch.bytes, batch.chunks.len(), batch.since_ms), (5, 100, 1, Some(50)));
    assert_eq!(batch.chunks[0].indexes().collect::<Vec<_>>(), [2, 3, 7, 8, 9]);
}

#[test]
fn positions_alone_make_a_batch_that_waits_from_its_first_one_on() {
    let mut batch = Batch::default();
    batch.extend(&id(0), 5, 6);
    batch.admit(chunk(3), vec![], 70);
    assert_eq!((batch.events, batch.chunks.len(), batch.since_ms), (0, 0, Some(70)));
    assert!(!batch.is_empty());
}

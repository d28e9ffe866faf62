//! One row per key: events are folded over what the index knows, in arrival order.
//!
//! The fold is sequential per key in offset order over (row | absent). Across partitions any interleaving that keeps each
//! partition's order is a valid one, and arrival order is such an interleaving. The result does not depend on where
//! batches are cut, because every batch starts from the rows that the index holds.
//!
//! Order values (`order_by`) come as 64-bit integers whose order is that of the column: an event that is older than the
//! row changes nothing, a tie is won by the later offset. A tombstone always applies; a delete with an order value applies
//! when it is not older than the row; an applied delete forgets the order value.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::batch::{Admitted, Batch};
use super::change::{Chunk, Key, NO_ROW, Op};
use super::key_index::{KeyIndex, Location, Probe};
use super::mutant::{Mutant, Mutants};
use super::plan::{ChunkRows, Plan, group_by_file};

/// How events of one key replace each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Semantics {
    /// Every event is a row.
    Append,
    /// One row per key, the last event wins.
    LastWins,
    /// One row per key, an event with a smaller order value never overwrites.
    Ordered,
}

/// Folds a batch over the index into what the commit appends and supersedes. The index is not changed.
#[must_use]
pub fn fold<R>(batch: &Batch<R>, index: &KeyIndex, semantics: Semantics, mutants: Mutants) -> Plan {
    match semantics {
        Semantics::Append => append_all(batch),
        Semantics::LastWins => Folding::new(false).run(batch, index, mutants),
        Semantics::Ordered => Folding::new(true).run(batch, index, mutants),
    }
}

fn append_all<R>(batch: &Batch<R>) -> Plan {
    let append = batch.chunks.iter().enumerate().map(|(number, admitted)| {
        let chunk = &admitted.chunk;
        let rows = admitted.indexes().map(|event| row_of(chunk, event)).filter(|&row| row != NO_ROW).collect();
        ChunkRows { chunk: number, rows }
    });
    Plan { append: append.filter(|c| !c.rows.is_empty()).collect(), ..Plan::default() }
}

/// The row of an event's new value, in its chunk's batch.
fn row_of<R>(chunk: &Chunk<R>, event: usize) -> u32 {
    chunk.row_of.get(event).copied().unwrap_or(event as u32)
}

/// What is known of a key while its events are applied.
#[derive(Debug, Clone, Copy)]
struct Slot {
    /// The key had a row in the table when the batch began.
    existed: bool,
    now: Now,
    /// Order value of the current row; meaningless while there is none.
    order: i64,
}

/// A key's row after the events applied so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Now {
    /// The table's own.
    Unchanged,
    Absent,
    /// The value of an event of the batch.
    Event {
        chunk: u32,
        event: u32,
    },
}

struct Folding {
    ordered: bool,
    numbers: HashMap<Key, u32, BuildHasherDefault<KeyBits>>,
    slots: Vec<Slot>,
    keys: Vec<Key>,
    /// Slot of each admitted event, per chunk.
    events: Vec<Vec<u32>>,
}

impl Folding {
    fn new(ordered: bool) -> Self {
        Folding { ordered, numbers: HashMap::default(), slots: Vec::new(), keys: Vec::new(), events: Vec::new() }
    }

    fn run<R>(mut self, batch: &Batch<R>, index: &KeyIndex, mutants: Mutants) -> Plan {
        let mut probes = Vec::new();
        for (number, admitted) in batch.chunks.iter().enumerate() {
            let first_new = self.keys.len();
            self.number_keys(admitted);
            index.probe(&self.keys[first_new..], &mut probes);
            self.slots.extend(probes.iter().zip(&self.keys[first_new..]).map(|(probe, key)| base(*probe, *key, index)));
            self.apply(number, admitted);
        }
        self.plan(batch, index, mutants)
    }

    /// Gives each distinct key a slot number, and remembers each event's.
    fn number_keys<R>(&mut self, admitted: &Admitted<R>) {
        let mut slots = Vec::with_capacity(admitted.chunk.len());
        for event in admitted.indexes() {
            let key = admitted.chunk.keys[event];
            let slot = *self.numbers.entry(key).or_insert_with(|| {
                self.keys.push(key);
                (self.keys.len() - 1) as u32
            });
            slots.push(slot);
        }
        self.events.push(slots);
    }

    fn apply<R>(&mut self, number: usize, admitted: &Admitted<R>) {
        let chunk = &admitted.chunk;
        for (event, &slot) in admitted.indexes().zip(&self.events[number]) {
            let slot = &mut self.slots[slot as usize];
            let order = if self.ordered { chunk.orders[event] } else { 0 };
            let older = self.ordered && slot.present() && order < slot.order;
            match chunk.op(event) {
                Op::Upsert if !older => {
                    slot.now = Now::Event { chunk: number as u32, event: event as u32 };
                    slot.order = order;
                }
                Op::Delete if !older => slot.now = Now::Absent,
                Op::Tombstone => slot.now = Now::Absent,
                Op::Upsert | Op::Delete => {}
            }
        }
    }

    fn plan<R>(&self, batch: &Batch<R>, index: &KeyIndex, mutants: Mutants) -> Plan {
        let mut plan = Plan::default();
        for (number, admitted) in batch.chunks.iter().enumerate() {
            let chunk = &admitted.chunk;
            let mut rows = Vec::new();
            for (event, &slot) in admitted.indexes().zip(&self.events[number]) {
                let slot = &self.slots[slot as usize];
                if slot.now == (Now::Event { chunk: number as u32, event: event as u32 }) {
                    rows.push(row_of(chunk, event));
                    plan.keys.push(chunk.keys[event]);
                    if self.ordered {
                        plan.orders.push(slot.order);
                    }
                }
            }
            if !rows.is_empty() {
                plan.append.push(ChunkRows { chunk: number, rows });
            }
        }
        let mut superseded = Vec::new();
        for (slot, &key) in self.slots.iter().zip(&self.keys) {
            if slot.existed && slot.now != Now::Unchanged {
                let all = index.locations(key);
                let known = if mutants.has(Mutant::OnePosition) { 1 } else { usize::MAX };
                superseded.extend(all.take(known));
                if slot.now == Now::Absent {
                    plan.gone.push(key);
                }
            }
        }
        plan.superseded = group_by_file(superseded);
        plan
    }
}

/// A key's slot before any event of the batch.
fn base(probe: Probe, key: Key, index: &KeyIndex) -> Slot {
    match probe {
        Probe::Absent => Slot { existed: false, now: Now::Absent, order: 0 },
        Probe::One(Location { .. }, order) => Slot { existed: true, now: Now::Unchanged, order },
        Probe::Many(_) => Slot { existed: true, now: Now::Unchanged, order: index.order(key).unwrap_or(i64::MIN) },
    }
}

impl Slot {
    fn present(&self) -> bool {
        self.now != Now::Absent
    }
}

/// Keys are already well mixed and keyed by a secret: their own bits are the hash.
#[derive(Default)]
struct KeyBits(u64);

impl Hasher for KeyBits {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u128(&mut self, bits: u128) {
        self.0 = (bits as u64) ^ ((bits >> 64) as u64);
    }
}

#[cfg(test)]
mod tests;

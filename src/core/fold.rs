//! One row per key: events are folded over what the index knows, in arrival order.
//!
//! The fold is sequential per key in offset order over (row | absent). Across partitions any interleaving that keeps each
//! partition's order is a valid one, and arrival order is such an interleaving. The result does not depend on where
//! batches are cut, because every batch starts from the rows that the index holds.
//!
//! Order values (`order_by`) come as 64-bit integers whose order is that of the column: an event that is older than the
//! row changes nothing, a tie is won by the later offset. A tombstone always applies; a delete with an order value applies
//! when it is not older than the row; an applied delete forgets the order value.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

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
        Semantics::LastWins => Folding::new(false, batch.events).run(batch, index, mutants),
        Semantics::Ordered => Folding::new(true, batch.events).run(batch, index, mutants),
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
    key: Key,
    base: Base,
    now: Now,
    /// Order value of the current row; meaningless while there is none.
    order: i64,
}

/// A key's rows in the table when the batch began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base {
    Absent,
    One(Location),
    /// Several, see [`KeyIndex::listed`].
    Many(u32),
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
    /// Numbers of slots, found by key: small entries, since a batch looks up every one of its events here.
    numbers: HashTable<u32>,
    slots: Vec<Slot>,
}

impl Folding {
    /// Room for a batch of this many events: growing would copy what is there again and again.
    fn new(ordered: bool, events: usize) -> Self {
        Folding { ordered, numbers: HashTable::with_capacity(events), slots: Vec::with_capacity(events) }
    }

    fn run<R>(mut self, batch: &Batch<R>, index: &KeyIndex, mutants: Mutants) -> Plan {
        let (mut numbers, mut new, mut probes) = (Vec::new(), Vec::new(), Vec::new());
        for (number, admitted) in batch.chunks.iter().enumerate() {
            self.number_keys(admitted, &mut numbers, &mut new);
            index.probe(&new, &mut probes);
            let first_new = self.slots.len() - new.len();
            for (slot, probe) in self.slots[first_new..].iter_mut().zip(&probes) {
                slot.begin(*probe, index);
            }
            self.apply(number, admitted, &numbers);
        }
        self.plan(batch, index, mutants)
    }

    /// Gives each distinct key a slot; `numbers` becomes the slot of each event, `new` the keys that had none.
    fn number_keys<R>(&mut self, admitted: &Admitted<R>, numbers: &mut Vec<u32>, new: &mut Vec<Key>) {
        numbers.clear();
        new.clear();
        let slots = &mut self.slots;
        for event in admitted.indexes() {
            let key = admitted.chunk.keys[event];
            let entry = self.numbers.entry(
                bits(key),
                |&number| slots[number as usize].key == key,
                |&number| bits(slots[number as usize].key),
            );
            numbers.push(match entry {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(free) => {
                    let number = slots.len() as u32;
                    free.insert(number);
                    slots.push(Slot { key, base: Base::Absent, now: Now::Absent, order: 0 });
                    new.push(key);
                    number
                }
            });
        }
    }

    fn apply<R>(&mut self, number: usize, admitted: &Admitted<R>, numbers: &[u32]) {
        let chunk = &admitted.chunk;
        for (event, &slot) in admitted.indexes().zip(numbers) {
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
        let known = if mutants.has(Mutant::OnePosition) { 1 } else { usize::MAX };
        let mut plan = Plan::default();
        let mut winners: Vec<Vec<bool>> = batch.chunks.iter().map(|c| vec![false; c.chunk.len()]).collect();
        let mut superseded = Vec::with_capacity(self.slots.len());
        for slot in &self.slots {
            if let Now::Event { chunk, event } = slot.now {
                winners[chunk as usize][event as usize] = true;
            }
            if slot.now == Now::Unchanged {
                continue;
            }
            match slot.base {
                Base::Absent => continue,
                Base::One(at) => superseded.push(at),
                Base::Many(list) => superseded.extend(index.listed(list).iter().map(|(at, _)| *at).take(known)),
            }
            if slot.now == Now::Absent {
                plan.gone.push(slot.key);
            }
        }
        for (number, (admitted, won)) in batch.chunks.iter().zip(&winners).enumerate() {
            let chunk = &admitted.chunk;
            let mut rows = Vec::with_capacity(won.len());
            for event in admitted.indexes().filter(|&event| won[event]) {
                rows.push(row_of(chunk, event));
                plan.keys.push(chunk.keys[event]);
                if self.ordered {
                    plan.orders.push(chunk.orders[event]);
                }
            }
            if !rows.is_empty() {
                plan.append.push(ChunkRows { chunk: number, rows });
            }
        }
        plan.superseded = group_by_file(superseded);
        plan
    }
}

impl Slot {
    /// Sets what the table holds of the key before any event of the batch.
    fn begin(&mut self, probe: Probe, index: &KeyIndex) {
        (self.base, self.order) = match probe {
            Probe::Absent => return,
            Probe::One(at, order) => (Base::One(at), order),
            Probe::Many(list) => (Base::Many(list), index.order(self.key).unwrap_or(i64::MIN)),
        };
        self.now = Now::Unchanged;
    }

    fn present(&self) -> bool {
        self.now != Now::Absent
    }
}

/// Keys are already well mixed and keyed by a secret: their own bits are the hash.
fn bits(key: Key) -> u64 {
    (key.0 as u64) ^ ((key.0 >> 64) as u64)
}

#[cfg(test)]
mod tests;

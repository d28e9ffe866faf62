//! What was read since the last commit, and where in the log it begins and ends.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::change::Chunk;
use super::offsets::PartitionId;
use super::schema::{Fingerprint, TableSchema};

/// A chunk, and which of its events belong to the batch.
#[derive(Debug)]
pub struct Admitted<R> {
    pub chunk: Arc<Chunk<R>>,
    /// Event indexes, ascending and disjoint; what V already contains is left out.
    pub events: Vec<Range<u32>>,
}

impl<R> Admitted<R> {
    /// The indexes of the events that belong to the batch.
    pub fn indexes(&self) -> impl Iterator<Item = usize> + '_ {
        self.events.iter().flat_map(|r| r.start as usize..r.end as usize)
    }
}

/// Everything read since the last commit, in arrival order. It enters the table together or not at all; it is never
/// trimmed.
#[derive(Debug)]
pub struct Batch<R> {
    pub chunks: Vec<Admitted<R>>,
    /// V where the batch begins, for each partition in it.
    pub from: BTreeMap<PartitionId, i64>,
    /// V where it ends.
    pub next: BTreeMap<PartitionId, i64>,
    pub events: usize,
    /// Approximate memory held by the chunks, in bytes.
    pub bytes: usize,
    /// What the schemas of its events ask of the table, in the order in which they came up, each once.
    pub wanted: Vec<Arc<TableSchema>>,
    /// The schemas that its records name, and what each was taken for.
    pub schemas: Vec<(u32, Fingerprint)>,
    /// When the first of it arrived (milliseconds).
    pub since_ms: Option<i64>,
}

impl<R> Default for Batch<R> {
    fn default() -> Self {
        Batch {
            chunks: Vec::new(),
            from: BTreeMap::new(),
            next: BTreeMap::new(),
            events: 0,
            bytes: 0,
            wanted: Vec::new(),
            schemas: Vec::new(),
            since_ms: None,
        }
    }
}

impl<R> Batch<R> {
    /// Whether nothing was read, not even a position.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.next.is_empty()
    }

    /// Whether the batch holds events or positions of this partition.
    #[must_use]
    pub fn holds(&self, id: &PartitionId) -> bool {
        self.next.contains_key(id)
    }

    /// Records that `id` was read from `from` up to `next`.
    pub(super) fn extend(&mut self, id: &PartitionId, from: i64, next: i64) {
        self.from.entry(id.clone()).or_insert(from);
        self.next.insert(id.clone(), next);
    }

    /// Records that events of the batch are of a schema that asks for these columns.
    pub(super) fn want(&mut self, schema: &Arc<TableSchema>) {
        if !self.wanted.iter().any(|known| Arc::ptr_eq(known, schema)) {
            self.wanted.push(schema.clone());
        }
    }

    /// Records which schemas records of the batch name.
    pub(super) fn name_schemas(&mut self, schemas: &[(u32, Fingerprint)]) {
        for schema in schemas.iter().filter(|schema| !self.schemas.contains(schema)).collect::<Vec<_>>() {
            self.schemas.push(*schema);
        }
    }

    /// Adds the events of a chunk that belong to the batch.
    pub(super) fn admit(&mut self, chunk: Arc<Chunk<R>>, events: Vec<Range<u32>>, now_ms: i64) {
        let count: usize = events.iter().map(|r| r.len()).sum();
        self.since_ms.get_or_insert(now_ms);
        if count > 0 {
            self.events += count;
            self.bytes += chunk.bytes;
            self.chunks.push(Admitted { chunk, events });
        }
    }
}

#[cfg(test)]
mod tests;

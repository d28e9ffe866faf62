//! What a batch appends and supersedes.

use roaring::RoaringBitmap;

use super::change::Key;
use super::key_index::Location;
use super::mutant::{Mutant, Mutants};

/// The output of a fold: all that a commit changes besides V.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// The rows to append, in arrival order.
    pub append: Vec<ChunkRows>,
    /// The key of each appended row, in the same order; empty in `append` mode.
    pub keys: Vec<Key>,
    /// The order value of each appended row; empty without `order_by`.
    pub orders: Vec<i64>,
    /// Positions that are gone, per file, each once.
    pub superseded: Vec<(u32, RoaringBitmap)>,
    /// Keys that have no row any more.
    pub gone: Vec<Key>,
}

/// Rows of one chunk of the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkRows {
    /// Which chunk of the batch.
    pub chunk: usize,
    /// Rows of that chunk, ascending.
    pub rows: Vec<u32>,
}

impl Plan {
    /// How many rows are appended.
    #[must_use]
    pub fn appended(&self) -> usize {
        self.append.iter().map(|c| c.rows.len()).sum()
    }

    /// How many rows of the table are superseded.
    #[must_use]
    pub fn superseded(&self) -> u64 {
        self.superseded.iter().map(|(_, rows)| rows.len()).sum()
    }
}

/// Positions by file, each file once, in the order of file numbers. Sorting first and building each bitmap from sorted
/// positions costs about a fifth of inserting them one by one.
#[must_use]
pub fn group_by_file(mut positions: Vec<Location>) -> Vec<(u32, RoaringBitmap)> {
    positions.sort_unstable_by_key(|at| (u64::from(at.file) << 32) | u64::from(at.row));
    positions.dedup();
    positions
        .chunk_by(|a, b| a.file == b.file)
        .map(|group| (group[0].file, group.iter().map(|at| at.row).collect()))
        .collect()
}

/// The deleted positions of a file after a commit: a new deletion vector always contains the old one, since at most one
/// is valid per data file.
#[must_use]
pub fn merge_deletes(old: &RoaringBitmap, superseded: &RoaringBitmap, mutants: Mutants) -> RoaringBitmap {
    if mutants.has(Mutant::DropOldDeletes) { superseded.clone() } else { old | superseded }
}

#[cfg(test)]
mod tests;

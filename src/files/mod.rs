//! Arrow to Parquet in the object store and back; deleted positions as files.

use std::collections::HashMap;

use iceberg::spec::{Datum, Struct};

/// A data file that was written and is not yet part of a table.
#[derive(Debug, Clone)]
pub struct WrittenFile {
    /// Its location as the table's metadata is to spell it (`file:///…`).
    pub path: String,
    pub records: u64,
    /// Size of the object in bytes.
    pub bytes: u64,
    /// Partition values in the order of the partition spec's fields; empty when unpartitioned.
    pub partition: Struct,
    pub partition_spec: i32,
    pub sort_order: Option<i32>,
    pub metrics: Metrics,
    /// Byte offsets of the row groups, for readers that split files.
    pub split_offsets: Vec<i64>,
    /// Which of the new rows are in this file.
    pub rows: RowOrder,
}

/// Which rows of a [`crate::table::NewRows`] a file holds, by position in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowOrder {
    /// Row `start + p` is at position p.
    Range {
        /// The row at position 0.
        start: u32,
    },
    /// Row `list[p]` is at position p.
    List(Vec<u32>),
}

/// Per-column figures of a data file, by field id, as manifests and Delta statistics want them. Bounds are only present
/// where they are true bounds of every row group; strings and binaries may be truncated (upper bounds rounded up).
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    pub column_sizes: HashMap<i32, u64>,
    /// Values including nulls and NaN.
    pub value_counts: HashMap<i32, u64>,
    pub null_value_counts: HashMap<i32, u64>,
    pub nan_value_counts: HashMap<i32, u64>,
    pub lower_bounds: HashMap<i32, Datum>,
    pub upper_bounds: HashMap<i32, Datum>,
}

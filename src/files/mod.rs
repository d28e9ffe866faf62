//! Arrow to Parquet in the object store and back; deleted positions as files.

mod buckets;
mod deletes;
mod encoding;
mod file_io;
mod fit;
mod layout;
mod lent;
mod metrics;
mod parquet;
mod place;
mod puffin;
mod read;
mod store;
mod transform;

use std::collections::HashMap;

use iceberg::spec::{DataFileBuilder, Datum, Struct};

pub use self::buckets::{STORE_PROPERTIES, check_store_properties, is_store_property};
pub use self::deletes::{
    DeleteEncoding, WrittenDeletes, read_position_deletes, to_delete_file, write_position_deletes,
};
pub use self::file_io::from_iceberg;
pub use self::fit::{Matching, absent, conform, fit, respell};
pub use self::lent::{Grants, Lender, Lent};
pub use self::parquet::{WriteTarget, to_data_file, write_data_files};
pub use self::puffin::{decode_vector, encode_vector, read_vector, write_vectors};
pub use self::read::{Naming, read_named_rows, read_rows, row_count};
pub use self::store::{Listed, Store};

/// Positions in a data file whose rows are gone. Files of 2³² rows and more are refused where they are met.
pub type DeletedPositions = roaring::RoaringBitmap;

/// A data file that was written and is not yet part of a table.
#[derive(Debug, Clone)]
pub struct WrittenFile {
    /// Its location as the table's metadata is to spell it (`file:///…`, `s3://…`).
    pub path: String,
    /// Rows in it.
    pub records: u64,
    /// Size of the object in bytes.
    pub bytes: u64,
    /// Partition values in the order of the partition spec's fields; empty when unpartitioned.
    pub partition: Struct,
    /// Id of the partition spec it was written with.
    pub partition_spec: i32,
    /// Id of the sort order its rows are in; `None` when they are in arrival order.
    pub sort_order: Option<i32>,
    /// Figures per column.
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
    /// Compressed bytes.
    pub column_sizes: HashMap<i32, u64>,
    /// Values including nulls and NaN.
    pub value_counts: HashMap<i32, u64>,
    /// Nulls, those of an absent parent included.
    pub null_value_counts: HashMap<i32, u64>,
    /// NaN values; only float columns outside lists and maps have a count.
    pub nan_value_counts: HashMap<i32, u64>,
    /// Not above any value that is neither null nor NaN.
    pub lower_bounds: HashMap<i32, Datum>,
    /// Not below any value that is neither null nor NaN.
    pub upper_bounds: HashMap<i32, Datum>,
}

impl Metrics {
    /// Puts the figures into a manifest entry.
    fn fill(&self, entry: &mut DataFileBuilder) {
        entry
            .column_sizes(self.column_sizes.clone())
            .value_counts(self.value_counts.clone())
            .null_value_counts(self.null_value_counts.clone())
            .nan_value_counts(self.nan_value_counts.clone())
            .lower_bounds(self.lower_bounds.clone())
            .upper_bounds(self.upper_bounds.clone());
    }
}

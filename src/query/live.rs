//! Reading past deleted rows, in one of two ways.
//!
//! A selection of rows lets the Parquet reader leave out pages and row groups, but costs it two calls per run of live rows
//! and column, which is what a scan of scattered deletes would spend its time on. Where nothing else decides which rows of
//! a file are read (no predicate that leaves out pages, no limit), all are decoded in file order, their positions counted,
//! and the deleted ones filtered out of each batch before anything sees it. Else the selection is made
//! ([`super::files::access_plan`]).

use std::any::Any;
use std::collections::VecDeque;
use std::fmt::Formatter;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{BooleanArray, BooleanBufferBuilder, RecordBatch};
use arrow::compute::filter_record_batch;
use datafusion::config::ConfigOptions;
use datafusion::datasource::listing::{FileRange, PartitionedFile};
use datafusion::datasource::physical_plan::parquet::{ParquetAccessPlan, RowGroupAccess};
use datafusion::datasource::physical_plan::{FileOpenFuture, FileOpener, FileScanConfig, FileSource};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_plan::DisplayFormatType;
use datafusion::physical_plan::filter_pushdown::FilterPushdownPropagation;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::ObjectStore;
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};

use super::files::access_plan;
use super::through;
use crate::Error;
use crate::files::DeletedPositions;

/// What a file of a scan carries along when rows of it are deleted.
#[derive(Debug)]
pub(super) struct Deleted {
    pub(super) positions: Arc<DeletedPositions>,
    pub(super) footer: Arc<ParquetMetaData>,
}

/// A source of Parquet files that shows live rows alone: each file's [`Deleted`] says which are not.
#[derive(Clone)]
pub(super) struct LiveRows {
    inner: Arc<dyn FileSource>,
}

impl LiveRows {
    /// The live rows of what `inner`, a source of Parquet files, reads.
    pub(super) fn of(inner: Arc<dyn FileSource>) -> Arc<dyn FileSource> {
        Arc::new(LiveRows { inner })
    }
}

impl FileSource for LiveRows {
    fn create_file_opener(
        &self,
        store: Arc<dyn ObjectStore>,
        config: &FileScanConfig,
        partition: usize,
    ) -> Result<Arc<dyn FileOpener>> {
        let inner = self.inner.create_file_opener(store, config, partition)?;
        let whole = self.inner.filter().is_none() && config.limit.is_none();
        Ok(Arc::new(Opener { inner, whole }))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn table_schema(&self) -> &TableSchema {
        self.inner.table_schema()
    }

    fn with_batch_size(&self, batch_size: usize) -> Arc<dyn FileSource> {
        LiveRows::of(self.inner.with_batch_size(batch_size))
    }

    fn filter(&self) -> Option<Arc<dyn PhysicalExpr>> {
        self.inner.filter()
    }

    fn projection(&self) -> Option<&ProjectionExprs> {
        self.inner.projection()
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        self.inner.metrics()
    }

    fn file_type(&self) -> &str {
        self.inner.file_type()
    }

    fn fmt_extra(&self, kind: DisplayFormatType, f: &mut Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt_extra(kind, f)
    }

    fn try_pushdown_filters(
        &self,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn FileSource>>> {
        let pushed = self.inner.try_pushdown_filters(filters, config)?;
        Ok(FilterPushdownPropagation { filters: pushed.filters, updated_node: pushed.updated_node.map(LiveRows::of) })
    }

    fn try_pushdown_projection(&self, projection: &ProjectionExprs) -> Result<Option<Arc<dyn FileSource>>> {
        Ok(self.inner.try_pushdown_projection(projection)?.map(LiveRows::of))
    }
}

struct Opener {
    inner: Arc<dyn FileOpener>,
    /// Nothing but deletes decides which rows are read.
    whole: bool,
}

impl FileOpener for Opener {
    fn open(&self, mut file: PartitionedFile) -> Result<FileOpenFuture> {
        let deleted = file.extensions.take().and_then(|e| e.downcast::<Deleted>().ok());
        let Some(deleted) = deleted else { return self.inner.open(file) };
        if !self.whole {
            return self.inner.open(file.with_extensions(Arc::new(access_plan(&deleted.footer, &deleted.positions))));
        }
        // Row groups are chosen here, so that it is known which positions come.
        let (plan, ranges) = groups(&deleted, file.range.take().as_ref());
        let batches = self.inner.open(file.with_extensions(Arc::new(plan)))?;
        let mut counted = Counted { positions: deleted.positions.clone(), ranges };
        let live = async move {
            let live = batches.await?.map(move |batch| batch.and_then(|batch| counted.live(batch)));
            Ok(live.try_filter(|batch| std::future::ready(batch.num_rows() > 0)).boxed())
        };
        Ok(live.boxed())
    }
}

/// The row groups that begin within `range` of the file and have live rows, and the positions in them.
fn groups(deleted: &Deleted, range: Option<&FileRange>) -> (ParquetAccessPlan, VecDeque<Range<u32>>) {
    let (mut start, mut ranges) = (0u32, VecDeque::new());
    let access = deleted.footer.row_groups().iter().map(|group| {
        let rows = start..start.saturating_add(group.num_rows() as u32);
        start = rows.end;
        let gone = deleted.positions.range_cardinality(rows.clone());
        if gone == u64::from(rows.end - rows.start) || !range.is_none_or(|range| begins_within(group, range)) {
            return RowGroupAccess::Skip;
        }
        ranges.push_back(rows);
        RowGroupAccess::Scan
    });
    let plan = ParquetAccessPlan::new(access.collect());
    (plan, ranges)
}

/// Each row group begins within one range, where a file is read in several.
fn begins_within(group: &RowGroupMetaData, range: &FileRange) -> bool {
    let first = group.column(0);
    let offset = first.dictionary_page_offset().unwrap_or_else(|| first.data_page_offset());
    (range.start..range.end).contains(&offset)
}

/// Counts the positions of the rows that come.
struct Counted {
    positions: Arc<DeletedPositions>,
    /// What is still to come.
    ranges: VecDeque<Range<u32>>,
}

impl Counted {
    /// The live rows of the next batch.
    fn live(&mut self, batch: RecordBatch) -> Result<RecordBatch> {
        let rows = batch.num_rows();
        let mut live = BooleanBufferBuilder::new(rows);
        live.append_n(rows, true);
        let (mut at, mut gone) = (0, 0);
        while at < rows {
            let Some(range) = self.ranges.front_mut() else {
                return Err(through(Error::Internal("a data file has more rows than its footer says".into())));
            };
            let end = range.end.min(range.start.saturating_add((rows - at) as u32));
            for position in self.positions.range(range.start..end) {
                live.set_bit(at + (position - range.start) as usize, false);
                gone += 1;
            }
            at += (end - range.start) as usize;
            range.start = end;
            if range.start == range.end {
                self.ranges.pop_front();
            }
        }
        match gone {
            0 => Ok(batch),
            _ => Ok(filter_record_batch(&batch, &BooleanArray::new(live.finish(), None))?),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, UInt32Array};
    use arrow::datatypes::UInt32Type;

    use super::*;

    /// Rows whose value is their position, in batches of `step`, from these ranges of positions.
    fn shown(ranges: &[Range<u32>], deleted: &[u32], step: usize) -> Vec<u32> {
        let mut counted =
            Counted { positions: Arc::new(deleted.iter().collect()), ranges: ranges.iter().cloned().collect() };
        let all: Vec<u32> = ranges.iter().cloned().flatten().collect();
        let mut shown = Vec::new();
        for part in all.chunks(step) {
            let column = Arc::new(UInt32Array::from(part.to_vec()));
            let batch = counted.live(RecordBatch::try_from_iter([("position", column as _)]).unwrap()).unwrap();
            shown.extend_from_slice(batch.column(0).as_primitive::<UInt32Type>().values());
        }
        shown
    }

    /// INV-20: the positions that count are those of the file, wherever batches are cut and whatever groups are left out.
    #[test]
    fn batches_that_cross_row_groups_lose_their_deleted_rows_alone() {
        let (ranges, deleted) = ([0..10, 30..37, 37..60], [0, 9, 10, 29, 36, 37, 41, 59, 60, 1000]);
        let live: Vec<u32> = ranges.iter().cloned().flatten().filter(|p| !deleted.contains(p)).collect();
        for step in [1, 3, 7, 10, 17, 40] {
            assert_eq!(shown(&ranges, &deleted, step), live, "batches of {step}");
        }
    }

    #[test]
    fn more_rows_than_the_footer_says_are_an_error() {
        let mut counted = Counted { positions: Arc::default(), ranges: std::iter::once(0..2).collect() };
        let column = Arc::new(UInt32Array::from(vec![0, 1, 2]));
        assert!(counted.live(RecordBatch::try_from_iter([("position", column as _)]).unwrap()).is_err());
    }
}

//! Opening data files: footers under the table's names, kept for a while, and the rows to read per row group.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::{ParquetAccessPlan, RowGroupAccess};
use datafusion::error::Result as DataFusionResult;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::ObjectStore;
use object_store::path::Path;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, RowSelection};
use parquet::arrow::async_reader::{AsyncFileReader, ParquetObjectReader};
use parquet::errors::Result as ParquetResult;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};

use super::schema::named_as;
use crate::core::schema::TableSchema;
use crate::files::{DeletedPositions, Naming};

/// Footers that are kept, for all tables together. Past it the oldest go.
const FOOTER_BYTES_MAX: usize = 64 << 20;
/// Read from the end of a file at once: most footers fit.
const FOOTER_HINT: usize = 64 << 10;

/// Footers of data files as they are in the files. Data files never change, so an entry is right for ever.
#[derive(Debug, Default)]
pub(super) struct Footers {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    by_key: HashMap<Path, Arc<ParquetMetaData>>,
    order: VecDeque<Path>,
    bytes: usize,
}

impl Footers {
    /// The footer and page index of a file.
    pub(super) async fn get(
        &self,
        store: &Arc<dyn ObjectStore>,
        key: &Path,
        bytes: u64,
    ) -> ParquetResult<Arc<ParquetMetaData>> {
        if let Some(footer) = self.lock().by_key.get(key) {
            return Ok(footer.clone());
        }
        let mut reader = ParquetObjectReader::new(store.clone(), key.clone())
            .with_file_size(bytes)
            .with_footer_size_hint(FOOTER_HINT);
        let footer = ParquetMetaDataReader::new()
            .with_page_index_policy(PageIndexPolicy::Optional)
            .with_prefetch_hint(Some(FOOTER_HINT))
            .load_and_finish(&mut reader, bytes)
            .await?;
        let footer = Arc::new(footer);
        self.lock().keep(key, &footer);
        Ok(footer)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn keep(&mut self, key: &Path, footer: &Arc<ParquetMetaData>) {
        if self.by_key.insert(key.clone(), footer.clone()).is_some() {
            return;
        }
        self.bytes += footer.memory_size();
        self.order.push_back(key.clone());
        while self.bytes > FOOTER_BYTES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.bytes -= self.by_key.remove(&oldest).map_or(0, |f| f.memory_size());
        }
    }
}

/// Opens the files of one table.
#[derive(Debug)]
pub(super) struct Readers {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) footers: Arc<Footers>,
    pub(super) schema: Arc<TableSchema>,
    pub(super) naming: Naming,
}

impl ParquetFileReaderFactory for Readers {
    fn create_reader(
        &self,
        _partition_index: usize,
        file: PartitionedFile,
        _metadata_size_hint: Option<usize>,
        _metrics: &ExecutionPlanMetricsSet,
    ) -> DataFusionResult<Box<dyn AsyncFileReader + Send>> {
        let (key, bytes) = (file.object_meta.location, file.object_meta.size);
        let inner = ParquetObjectReader::new(self.store.clone(), key.clone()).with_file_size(bytes);
        let (store, footers, schema) = (self.store.clone(), self.footers.clone(), self.schema.clone());
        Ok(Box::new(Reader { inner, key, bytes, store, footers, schema, naming: self.naming.clone() }))
    }
}

struct Reader {
    inner: ParquetObjectReader,
    key: Path,
    bytes: u64,
    store: Arc<dyn ObjectStore>,
    footers: Arc<Footers>,
    schema: Arc<TableSchema>,
    naming: Naming,
}

impl AsyncFileReader for Reader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        self.inner.get_bytes(range)
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        self.inner.get_byte_ranges(ranges)
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        async move {
            let footer = self.footers.get(&self.store, &self.key, self.bytes).await?;
            Ok(Arc::new(named_as(&footer, &self.schema, &self.naming)?))
        }
        .boxed()
    }
}

/// Which rows of each row group are live. Positions count physical rows over all row groups in file order, and the plan
/// is per row group, so splitting a file by row groups keeps it right.
pub(super) fn access_plan(footer: &ParquetMetaData, deleted: &DeletedPositions) -> ParquetAccessPlan {
    let mut start = 0u32;
    let access = footer.row_groups().iter().map(|group| {
        let rows = group.num_rows() as u32;
        let range = start..start.saturating_add(rows);
        start = range.end;
        match deleted.range_cardinality(range.clone()) {
            0 => RowGroupAccess::Scan,
            n if n == u64::from(rows) => RowGroupAccess::Skip,
            _ => RowGroupAccess::Selection(live_rows(range, deleted)),
        }
    });
    ParquetAccessPlan::new(access.collect())
}

fn live_rows(range: Range<u32>, deleted: &DeletedPositions) -> RowSelection {
    let (base, rows) = (range.start, (range.end - range.start) as usize);
    let mut live = Vec::new();
    let mut next = 0;
    for position in deleted.range(range) {
        let position = (position - base) as usize;
        if position > next {
            live.push(next..position);
        }
        next = position + 1;
    }
    if next < rows {
        live.push(next..rows);
    }
    RowSelection::from_consecutive_ranges(live.into_iter(), rows)
}

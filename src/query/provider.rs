//! The table provider: a scan's files as a DataFusion table.

use std::any::Any;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{DFSchema, Statistics};
use datafusion::config::TableParquetOptions;
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectMeta;

use super::files::{Footers, Readers};
use super::live::{Deleted, LiveRows};
use super::nested::ColumnAdapters;
use super::scan::{DataFile, Scan};
use super::schema::{query_schema, with_defaults};
use super::{prune, through};

/// Delete files and footers that are read at a time while a query is planned.
const READS: usize = 8;

/// The filters of a scan as one; none where there are none.
type Filter = Option<Arc<dyn PhysicalExpr>>;

/// A table at one snapshot: every scan of it sees the same files and the same deleted positions.
#[derive(Debug)]
pub struct PinnedTable {
    scan: Scan,
    schema: SchemaRef,
    footers: Arc<Footers>,
}

impl PinnedTable {
    /// A table of these files.
    #[must_use]
    pub fn new(scan: Scan) -> Self {
        Self::with_footers(scan, Arc::default())
    }

    pub(super) fn with_footers(scan: Scan, footers: Arc<Footers>) -> Self {
        let schema = Arc::new(query_schema(&scan.schema));
        PinnedTable { scan, schema, footers }
    }

    /// The columns as a scan of files has them, those that are constant in a file last.
    fn scanned(&self) -> TableSchema {
        let (mut held, mut constant) = (Vec::new(), Vec::new());
        for (place, field) in self.schema.fields().iter().enumerate() {
            if !self.scan.constant.contains(&place) {
                held.push(field.clone());
            }
        }
        constant.extend(self.scan.constant.iter().map(|place| self.schema.fields()[*place].clone()));
        TableSchema::new(Arc::new(Schema::new(held)), constant)
    }

    /// The place in [`PinnedTable::scanned`] of a column.
    fn scanned_place(&self, place: usize) -> usize {
        let constant = &self.scan.constant;
        match constant.iter().position(|c| *c == place) {
            Some(nth) => self.schema.fields().len() - constant.len() + nth,
            None => place - constant.iter().filter(|c| **c < place).count(),
        }
    }

    /// Names of the key columns, in key order.
    #[must_use]
    pub fn key(&self) -> &[String] {
        &self.scan.schema.key
    }

    /// The files that the filters leave.
    fn pruned(&self, state: &dyn Session, filters: &[Expr]) -> Result<(Vec<usize>, Filter)> {
        let all = 0..self.scan.files.len();
        let Some(filter) = conjunction(filters.to_vec()) else { return Ok((all.collect(), None)) };
        let filter = state.create_physical_expr(filter, &DFSchema::try_from(self.schema.as_ref().clone())?)?;
        let keep = prune::keep(filter.clone(), &self.scan.schema, &self.schema, &self.scan.files);
        Ok((all.filter(|i| keep[*i]).collect(), Some(filter)))
    }

    /// A file and its live rows.
    async fn open(&self, index: usize) -> Result<(PartitionedFile, u64)> {
        let file = &self.scan.files[index];
        let plain = partitioned(file);
        if !file.has_deletes {
            return Ok((plain, file.records));
        }
        let deleted = self.scan.deletes.positions(index).await.map_err(through)?;
        // A foreign delete file may name positions that the file does not have.
        let gone = deleted.range_cardinality(0..u32::try_from(file.records).unwrap_or(u32::MAX));
        let live = file.records - gone;
        if gone == 0 {
            return Ok((plain, live));
        }
        let footer = self.footers.get(&self.scan.store, &file.key, file.bytes).await?;
        Ok((plain.with_extensions(Arc::new(Deleted { positions: deleted, footer })), live))
    }

    /// The files with their live rows, in order; with a limit only as many as it takes.
    async fn opened(&self, kept: Vec<usize>, limit: Option<usize>) -> Result<Vec<(PartitionedFile, u64)>> {
        let mut opening = futures::stream::iter(kept).map(|i| self.open(i)).buffered(READS);
        let (mut files, mut rows) = (Vec::new(), 0u64);
        while let Some((file, live)) = opening.try_next().await? {
            if live > 0 {
                files.push((file, live));
                rows += live;
            }
            if limit.is_some_and(|limit| rows >= limit as u64) {
                break;
            }
        }
        Ok(files)
    }
}

fn partitioned(file: &DataFile) -> PartitionedFile {
    PartitionedFile::new_from_meta(ObjectMeta {
        location: file.key.clone(),
        last_modified: chrono::DateTime::UNIX_EPOCH,
        size: file.bytes,
        e_tag: None,
        version: None,
    })
    .with_partition_values(file.constants.clone())
}

#[async_trait]
impl TableProvider for PinnedTable {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Filters only leave out files, row groups and pages here; the rows are filtered above.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (kept, filter) = self.pruned(state, filters)?;
        // A limit is about rows that the filters leave, and those are not known here.
        let limit = limit.filter(|_| filter.is_none());
        let files = self.opened(kept, limit).await?;
        let rows: u64 = files.iter().map(|(_, live)| live).sum();
        if files.is_empty() {
            let schema = match projection {
                Some(columns) => Arc::new(self.schema.project(columns)?),
                None => self.schema.clone(),
            };
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let scanned = self.scanned();
        let mut statistics = Statistics::new_unknown(scanned.table_schema());
        // Only the row count: bounds cover deleted rows too, so no other figure is exact.
        let rows = usize::try_from(rows).unwrap_or(usize::MAX);
        statistics.num_rows = if limit.is_none() { Precision::Exact(rows) } else { Precision::Inexact(rows) };

        let global = state.config_options().execution.parquet.clone();
        let options = TableParquetOptions { global, ..TableParquetOptions::default() };
        let readers = Readers {
            store: self.scan.store.clone(),
            footers: self.footers.clone(),
            schema: self.scan.schema.clone(),
            naming: self.scan.naming.clone(),
        };
        let places = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let places = places.into_iter().map(|place| self.scanned_place(place)).collect();
        let filter = match filter {
            Some(_) if !self.scan.constant.is_empty() => {
                let columns = DFSchema::try_from(scanned.table_schema().as_ref().clone())?;
                conjunction(filters.to_vec()).map(|all| state.create_physical_expr(all, &columns)).transpose()?
            }
            same => same,
        };
        let mut source = ParquetSource::new(scanned)
            .with_table_parquet_options(options)
            .with_parquet_file_reader_factory(Arc::new(readers))
            .with_enable_page_index(true)
            .with_pushdown_filters(false);
        if let Some(filter) = filter {
            source = source.with_predicate(filter);
        }
        let config = FileScanConfigBuilder::new(ObjectStoreUrl::local_filesystem(), LiveRows::of(Arc::new(source)))
            .with_projection_indices(Some(places))?
            .with_expr_adapter(Some(Arc::new(ColumnAdapters { defaults: Arc::new(with_defaults(&self.scan.schema)) })))
            .with_limit(limit)
            // Else the opener may read whole row groups in place of selected rows: it takes a group whose statistics
            // satisfy the predicate, counts its deleted rows towards the limit, and forgets the selection.
            .with_preserve_order(true)
            .with_statistics(statistics)
            .with_file_groups(groups(files, state.config().target_partitions()))
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }

    fn statistics(&self) -> Option<Statistics> {
        let mut rows = 0;
        for file in &self.scan.files {
            rows += file.records.checked_sub(if file.has_deletes { file.deleted? } else { 0 })?;
        }
        let mut statistics = Statistics::new_unknown(&self.schema);
        statistics.num_rows = Precision::Inexact(usize::try_from(rows).ok()?);
        Some(statistics)
    }
}

/// The files in at most `partitions` groups of about the same number of rows, in order.
fn groups(files: Vec<(PartitionedFile, u64)>, partitions: usize) -> Vec<FileGroup> {
    let total: u64 = files.iter().map(|(_, live)| live).sum();
    let share = total.div_ceil(partitions.max(1) as u64).max(1);
    let mut groups: Vec<Vec<PartitionedFile>> = Vec::new();
    let mut before = 0;
    for (file, live) in files {
        let group = (before / share) as usize;
        before += live;
        if groups.is_empty() || (group >= groups.len() && groups.len() < partitions.max(1)) {
            groups.push(Vec::new());
        }
        if let Some(last) = groups.last_mut() {
            last.push(file);
        }
    }
    groups.into_iter().map(FileGroup::new).collect()
}

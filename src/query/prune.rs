//! Which files can hold rows that a filter keeps: by column bounds, null counts and buckets, before anything is opened.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ::iceberg::spec::Transform;
use ::iceberg::transform::create_transform_function;
use arrow::array::{ArrayRef, AsArray, BooleanArray, UInt64Array};
use arrow::datatypes::{DataType, Int32Type, SchemaRef};
use datafusion::common::Column;
use datafusion::common::pruning::PruningStatistics;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::pruning::PruningPredicate;
use datafusion::scalar::ScalarValue;

use super::scan::{ColumnFacts, DataFile};
use crate::core::schema::TableSchema;

/// For each of `files` whether it may hold a row for which `filter` is true.
pub(super) fn keep(
    filter: Arc<dyn PhysicalExpr>,
    table: &TableSchema,
    schema: &SchemaRef,
    files: &[DataFile],
) -> Vec<bool> {
    let all = || vec![true; files.len()];
    let Ok(predicate) = PruningPredicate::try_new(filter, schema.clone()) else { return all() };
    let ids = table.fields.iter().map(|f| (f.name.as_str(), f.id)).collect();
    predicate.prune(&Facts { files, ids, schema }).unwrap_or_else(|_| all())
}

struct Facts<'f> {
    files: &'f [DataFile],
    ids: HashMap<&'f str, i32>,
    schema: &'f SchemaRef,
}

impl Facts<'_> {
    fn scalars(&self, column: &Column, pick: impl Fn(&ColumnFacts) -> Option<ScalarValue>) -> Option<ArrayRef> {
        let id = self.ids.get(column.name.as_str())?;
        let kind = self.schema.field_with_name(&column.name).ok()?.data_type();
        let unknown = ScalarValue::try_from(kind).ok()?;
        let mut known = false;
        let values = self.files.iter().map(|file| {
            let value = file.columns.get(id).and_then(&pick).filter(|v| v.data_type() == *kind);
            known |= value.is_some();
            value.unwrap_or_else(|| unknown.clone())
        });
        let values: Vec<_> = values.collect();
        if known { ScalarValue::iter_to_array(values).ok() } else { None }
    }
}

impl PruningStatistics for Facts<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.scalars(column, |facts| facts.lower.clone())
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.scalars(column, |facts| facts.upper.clone())
    }

    fn num_containers(&self) -> usize {
        self.files.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let id = self.ids.get(column.name.as_str())?;
        let counts = self.files.iter().map(|f| f.columns.get(id).and_then(|c| c.nulls));
        Some(Arc::new(UInt64Array::from_iter(counts)))
    }

    /// Physical rows: null counts are of physical rows too.
    fn row_counts(&self, _column: &Column) -> Option<ArrayRef> {
        Some(Arc::new(UInt64Array::from_iter_values(self.files.iter().map(|f| f.records))))
    }

    fn contained(&self, column: &Column, values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        let id = self.ids.get(column.name.as_str())?;
        let kind = self.schema.field_with_name(&column.name).ok()?.data_type();
        let mut buckets: HashMap<u32, Option<HashSet<i32>>> = HashMap::new();
        let verdict = |file: &DataFile| {
            let impossible = file.buckets.iter().filter(|b| b.column == *id).any(|b| {
                let wanted = buckets.entry(b.of).or_insert_with(|| buckets_of(values, b.of, kind));
                // All values null: no value of it equals anything.
                wanted.as_ref().is_some_and(|wanted| b.bucket.is_none_or(|bucket| !wanted.contains(&bucket)))
            });
            impossible.then_some(false)
        };
        Some(self.files.iter().map(verdict).collect())
    }
}

/// The buckets of the values, or none where one of them cannot be hashed as the column's type.
fn buckets_of(values: &HashSet<ScalarValue>, of: u32, kind: &DataType) -> Option<HashSet<i32>> {
    let function = create_transform_function(&Transform::Bucket(of)).ok()?;
    let bucket = |value: &ScalarValue| {
        // Hashes of nanoseconds are those of the microsecond; such columns are rare, and only pruning is lost.
        if value.is_null()
            || value.data_type() != *kind
            || matches!(kind, DataType::Timestamp(arrow::datatypes::TimeUnit::Nanosecond, _))
        {
            return None;
        }
        let hashed = function.transform(value.to_array().ok()?).ok()?;
        Some(hashed.as_primitive_opt::<Int32Type>()?.value(0))
    };
    values.iter().map(bucket).collect()
}

//! Records, lists and maps of a data file as the table has them now.
//!
//! DataFusion fits the columns of a file to the table, records within records included, but not records within lists and
//! maps; and a required field of an optional record keeps its placeholder ('' or 0) where the record is null, which
//! `record['field']` then shows. Both are put right here, for nested columns, and dates that became timestamps, which
//! DataFusion would let overflow; the rest stays DataFusion's.

use std::any::Any;
use std::fmt::{Display, Formatter};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_expr_adapter::{DefaultPhysicalExprAdapter, PhysicalExprAdapter, PhysicalExprAdapterFactory};

use crate::core::schema::{Absent, default_of};
use crate::files::{Matching, absent, fit};

/// Fits the columns of each file to the table.
#[derive(Debug)]
pub(super) struct ColumnAdapters {
    /// The table's columns with their defaults noted.
    pub(super) defaults: SchemaRef,
}

impl PhysicalExprAdapterFactory for ColumnAdapters {
    fn create(&self, table: SchemaRef, file: SchemaRef) -> Result<Arc<dyn PhysicalExprAdapter>> {
        let plain = DefaultPhysicalExprAdapter::new(table.clone(), file.clone());
        Ok(Arc::new(ColumnAdapter { table, file, defaults: self.defaults.clone(), plain }))
    }
}

#[derive(Debug)]
struct ColumnAdapter {
    table: SchemaRef,
    file: SchemaRef,
    defaults: SchemaRef,
    plain: DefaultPhysicalExprAdapter,
}

impl ColumnAdapter {
    /// The column, where the file has it and it is nested or was a date.
    fn nested(&self, column: &Column) -> Option<NestedColumn> {
        let wanted = self.table.field_with_name(column.name()).ok()?;
        let index = self.file.index_of(column.name()).ok()?;
        let was_date =
            *self.file.field(index).data_type() == DataType::Date32 && *wanted.data_type() != DataType::Date32;
        if !wanted.data_type().is_nested() && !was_date {
            return None;
        }
        let name = column.name();
        let column = Arc::new(Column::new(name, index));
        let noted = self.defaults.field_with_name(name).map_or_else(|_| wanted.data_type(), |f| f.data_type()).clone();
        Some(NestedColumn { column, wanted: Arc::new(wanted.clone()), noted })
    }

    /// The default of a column that the file does not have.
    fn default(&self, column: &Column) -> Result<Option<Arc<dyn PhysicalExpr>>> {
        let Ok(noted) = self.defaults.field_with_name(column.name()) else { return Ok(None) };
        if self.file.index_of(column.name()).is_ok() || default_of(noted, Absent::Older).is_none() {
            return Ok(None);
        }
        let value = ScalarValue::try_from_array(&absent(noted, Absent::Older, 1)?, 0)?;
        Ok(Some(Arc::new(Literal::new(value))))
    }
}

impl PhysicalExprAdapter for ColumnAdapter {
    fn rewrite(&self, expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        let fit = |expr: Arc<dyn PhysicalExpr>| match expr.as_any().downcast_ref::<Column>() {
            None => Ok(Transformed::no(expr)),
            Some(column) => match self.nested(column) {
                Some(nested) => Ok(Transformed::yes(Arc::new(nested) as Arc<dyn PhysicalExpr>)),
                None => match self.default(column)? {
                    Some(default) => Ok(Transformed::yes(default)),
                    None => self.plain.rewrite(expr).map(Transformed::yes),
                },
            },
        };
        expr.transform_up(fit).data()
    }
}

/// A nested column of a file, in the table's type.
#[derive(Debug, Clone, Eq)]
struct NestedColumn {
    /// In the file's schema.
    column: Arc<dyn PhysicalExpr>,
    wanted: FieldRef,
    /// The wanted type with the defaults of its fields noted.
    noted: DataType,
}

impl PartialEq for NestedColumn {
    fn eq(&self, other: &Self) -> bool {
        self.column.eq(&other.column) && self.wanted == other.wanted
    }
}

impl Hash for NestedColumn {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.column.hash(state);
        self.wanted.hash(state);
    }
}

impl Display for NestedColumn {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.column)
    }
}

impl PhysicalExpr for NestedColumn {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn data_type(&self, _input: &Schema) -> Result<DataType> {
        Ok(self.wanted.data_type().clone())
    }

    fn nullable(&self, _input: &Schema) -> Result<bool> {
        Ok(self.wanted.is_nullable())
    }

    fn return_field(&self, _input: &Schema) -> Result<FieldRef> {
        Ok(self.wanted.clone())
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let column = self.column.evaluate(batch)?.into_array(batch.num_rows())?;
        let filled = fit(&column, &self.noted, Matching::ByName(Absent::Older))?;
        Ok(ColumnarValue::Array(fit(&filled, self.wanted.data_type(), Matching::InOrder)?))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.column]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        let column = children.pop().unwrap_or_else(|| self.column.clone());
        Ok(Arc::new(NestedColumn { column, wanted: self.wanted.clone(), noted: self.noted.clone() }))
    }

    fn fmt_sql(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        self.column.fmt_sql(f)
    }
}

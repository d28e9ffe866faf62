//! The current row of a key.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field};
use datafusion::common::Column;
use datafusion::logical_expr::{Expr, lit};
use datafusion::scalar::ScalarValue;

use super::engine::Engine;
use super::query_error;
use super::schema::is_uuid;
use crate::{Error, Result};

impl Engine {
    /// The key columns of a table, in the order in which [`Engine::get`] takes their values.
    ///
    /// # Errors
    /// [`Error::Config`] where the table is not there; else as [`Engine::query`].
    pub async fn key(&self, table: &str) -> Result<Vec<String>> {
        Ok(self.table(table).await?.1.key().to_vec())
    }

    /// The current row of the key whose columns have these values, in key order; none where there is no such row.
    ///
    /// # Errors
    /// [`Error::Config`] where the table is not there or has no key, or the values do not fit the key columns; else as
    /// [`Engine::query`].
    pub async fn get(&self, table: &str, values: &[&str]) -> Result<Option<RecordBatch>> {
        let (context, pinned) = self.table(table).await?;
        let key = pinned.key();
        if key.is_empty() {
            return Err(Error::Config(format!("table {table} has no key: ask with `firn sql`")));
        }
        if key.len() != values.len() {
            let (wanted, given) = (key.join(", "), values.len());
            return Err(Error::Config(format!("the key of {table} is ({wanted}): {given} values were given")));
        }
        let frame = context.read_table(pinned.clone()).map_err(query_error)?;
        let mut filter: Option<Expr> = None;
        for (name, value) in key.iter().zip(values) {
            let field = frame.schema().field_with_unqualified_name(name).map_err(query_error)?;
            let value = parse(field, value).map_err(|e| e.within(format!("key column {name} of {table}")))?;
            let equal = Expr::Column(Column::new_unqualified(name)).eq(lit(value));
            filter = Some(match filter {
                Some(before) => before.and(equal),
                None => equal,
            });
        }
        let frame = match filter {
            Some(filter) => frame.filter(filter).map_err(query_error)?,
            None => frame,
        };
        let schema = std::sync::Arc::new(frame.schema().as_arrow().clone());
        let rows = frame.limit(0, Some(1)).map_err(query_error)?.collect().await.map_err(query_error)?;
        let row = concat_batches(&schema, &rows).map_err(|e| Error::Internal(format!("cannot join batches: {e}")))?;
        Ok((row.num_rows() > 0).then(|| row.slice(0, 1)))
    }
}

/// A value of the column's type; what cannot be one exactly is refused.
fn parse(field: &Field, text: &str) -> Result<ScalarValue> {
    let wrong = |what: &str| Error::Config(format!("'{}' is not {what}", text.escape_debug()));
    match field.data_type() {
        DataType::Utf8 => Ok(ScalarValue::Utf8(Some(text.to_owned()))),
        DataType::FixedSizeBinary(16) if is_uuid(field) => {
            let id = uuid::Uuid::parse_str(text).map_err(|_| wrong("a UUID"))?;
            Ok(ScalarValue::FixedSizeBinary(16, Some(id.as_bytes().to_vec())))
        }
        DataType::Binary => Ok(ScalarValue::Binary(Some(bytes(text).ok_or_else(|| wrong("bytes in hexadecimal"))?))),
        DataType::FixedSizeBinary(n) => {
            let bytes = bytes(text).filter(|b| b.len() == *n as usize);
            let bytes = bytes.ok_or_else(|| wrong(&format!("{n} bytes in hexadecimal")))?;
            Ok(ScalarValue::FixedSizeBinary(*n, Some(bytes)))
        }
        DataType::Decimal128(_, scale) => {
            let digits = text.split_once('.').map_or(0, |(_, fraction)| fraction.trim_end_matches('0').len());
            if digits > usize::try_from(*scale).unwrap_or(0) || text.contains(['e', 'E']) {
                return Err(wrong(&format!("a decimal with at most {scale} digits after the point")));
            }
            cast(field, text).ok_or_else(|| wrong("a decimal that fits the column"))
        }
        DataType::Timestamp(..) => cast(field, text).ok_or_else(|| wrong("a time such as 2026-01-31T12:00:00Z")),
        other => cast(field, text).ok_or_else(|| wrong(&format!("a value of type {other}"))),
    }
}

fn cast(field: &Field, text: &str) -> Option<ScalarValue> {
    ScalarValue::try_from_string(text.to_owned(), field.data_type()).ok().filter(|v| !v.is_null())
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    let text = text.strip_prefix("0x").unwrap_or(text);
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(text.get(i..i + 2)?, 16).ok()).collect()
}

#[cfg(test)]
mod tests;

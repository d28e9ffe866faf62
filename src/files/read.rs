//! Reads columns of a data file with each row's physical position.

use futures::stream::BoxStream;

use super::{DeletedPositions, Store};
use crate::core::schema::TableSchema;
use crate::table::FileRows;
use crate::{Error, Result};

/// The live rows of a data file: the named top-level columns of `schema`, found by field id, in the order of `columns`,
/// as [`crate::core::schema::to_arrow`] types them. Columns that the file does not have are null.
///
/// The file is read unfiltered and rows are counted by position; `deleted` ones are then left out.
///
/// # Errors
/// [`Error::Unreachable`] where the file cannot be read, [`Error::Decision`] where it does not fit `schema`,
/// [`Error::Internal`] where `schema` has no such column.
pub async fn read_rows(
    store: &Store,
    location: &str,
    schema: &TableSchema,
    columns: &[String],
    deleted: DeletedPositions,
) -> Result<BoxStream<'static, Result<FileRows>>> {
    let _ = (store, location, schema, columns, deleted);
    Err(Error::Internal("being written".to_string()))
}

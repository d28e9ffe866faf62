//! Read-only SQL over the tables: one table provider for every format, a session that only reads, and how answers look.
//!
//! A scan is a list of Parquet files at a pinned snapshot ([`scan::Scan`]). Deleted rows are left out by their positions
//! before anything is filtered, limited or split, so no later step can count rows differently from the writer.

mod catalog;
mod delta;
mod engine;
mod files;
mod get;
mod iceberg;
mod like;
mod live;
mod metadata_tables;
mod nested;
mod output;
mod prompt;
mod provider;
mod prune;
pub mod scan;
mod schema;
mod statement;
#[cfg(test)]
mod testing;

pub use self::engine::{Answer, Engine, Limits};
pub use self::output::{Format, print};
pub use self::prompt::prompt;
pub use self::provider::PinnedTable;
pub use self::schema::query_schema;

use datafusion::error::DataFusionError;

use crate::Error;

/// A query's error by what its author can do about it: our own errors come back as they were, a store that does not
/// answer is [`Error::Unreachable`], everything else is about the statement.
pub(crate) fn query_error(error: DataFusionError) -> Error {
    let root = error.find_root();
    if let DataFusionError::External(source) = root
        && let Some(ours) = source.downcast_ref::<Error>()
    {
        return ours.clone();
    }
    let text = root.strip_backtrace();
    match root {
        DataFusionError::ObjectStore(_) | DataFusionError::IoError(_) => {
            Error::Unreachable(format!("cannot read a table: {text}"))
        }
        DataFusionError::ParquetError(_) => Error::Decision(format!("cannot read a data file: {text}")),
        DataFusionError::Internal(_) => Error::Internal(format!("the query failed: {text}")),
        _ => Error::Config(format!("the query failed: {text}")),
    }
}

/// An error of ours on its way through DataFusion; [`query_error`] finds it again.
pub(crate) fn through(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

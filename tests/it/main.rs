//! Tests over more than one module, in one binary.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

mod columns;
mod contract;
mod dates;
mod dead_letters;
mod delta;
mod deltalake;
mod evolve;
mod formats;
mod fuzz;
mod hostile;
mod hostile_values;
mod iceberg;
mod live;
mod memory;
mod observe;
mod query;
mod record_types;
mod registry_tls;
mod run;
mod schema_ids;
mod takeover;
mod types;
mod values;
mod verdict;

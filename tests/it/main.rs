//! Tests over more than one module, in one binary.

mod contract;
mod iceberg;

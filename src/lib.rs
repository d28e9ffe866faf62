//! Firn upserts Avro events from Kafka, exactly once, into lakehouse tables that read like append-only ones.
//!
//! Arrows point one way: [`service`] wires the edges ([`source`], [`avro`], [`files`], [`table`], [`query`],
//! [`embedded`], [`telemetry`]) to the pure [`core`], and nothing in the core names an edge. `docs/architecture.md` has the map,
//! the vocabulary and the invariants.

pub mod avro;
pub mod commands;
pub mod core;
pub mod embedded;
pub mod error;
pub mod files;
pub mod query;
pub mod service;
pub mod settings;
pub mod source;
pub mod table;
pub mod telemetry;

pub use error::{Error, Result};

//! Avro: schemas become table columns, events in the Confluent wire format become Arrow batches.
//!
//! For each schema that a producer wrote with, a plan is compiled once that appends its records to the table's columns.
//! All plans append to the same columns, so that interleaved schema ids cost nothing; and since columns can go back to the
//! row before, a bad record costs that record and neither its neighbours nor its batch.
//!
//! Values in JSON and Protobuf take the same way: their schema becomes a record of Avro types, and each value an Avro body of it.

mod avro_type;
mod bad;
mod binding;
mod branches;
mod columns;
mod cursor;
mod decoder;
mod default;
mod grow;
mod json;
mod key_schema;
mod lineage;
mod meaning;
mod plan;
mod plans;
mod protobuf;
mod read;
mod record_key;
mod recursive;
mod schema;
mod shape;
mod used;
mod value_schema;
mod wire;
mod write;
mod writer_schema;

#[cfg(test)]
mod tests;

pub use self::bad::{BadRecord, Half, Reason};
pub use self::decoder::{Decoded, Decoder, EncodeKeys, Pushed};
pub use self::grow::grown_columns;
pub use self::key_schema::KeySchema;
pub use self::plans::Plans;
pub use self::schema::table_schema;
pub use self::shape::{DeleteBy, EventShape, Mode, Nanoseconds, RecordKey, RecursiveTypes, Types};
pub use self::value_schema::{Form, SchemaKind, SchemaText, ValueSchema};
pub use self::wire::{Event, RECORD_BYTES_MAX, schema_id};
